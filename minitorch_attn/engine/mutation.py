"""Who wrote into which memory, and when: how a changed tensor is caught before it misleads.

A rule of the graph may hold an array that a later statement overwrites. Watching every array
would slow every operation down; writing in place is rare, so the writes are noted instead. One
clock numbers them together with the recorded operations: a backward pass looks at what an
operation holds only if something was written after it.

Memory is told apart by the array that owns it: a write through one view counts for all its views.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import BuiltinMethodType, FunctionType, MethodType, MethodWrapperType
from typing import Any

from .backend import Array, is_array

tick = itertools.count(1).__next__  # the clock: every call gives a larger number
last_write = 0
_writes: dict[int, tuple[weakref.ref, int]] = {}  # id of the memory's owner -> (owner, when)

_CONTAINERS = (
    tuple,
    list,
    set,
    dict,
    partial,
    MethodType,  # a method holds the object it is bound to
    BuiltinMethodType,
    MethodWrapperType,
)


def note_write(array: Array) -> None:
    """Note that an array's memory is about to be written to."""
    global last_write
    owner = _owner(array)
    key = id(owner)
    last_write = tick()
    _writes[key] = (weakref.ref(owner, lambda _: _writes.pop(key, None)), last_write)


def written_since(array: Array, since: int) -> bool:
    """Whether an array has been written to after a moment of the clock."""
    _, when = _writes.get(id(_owner(array)), (None, 0))
    return when > since


def overwritten(rule: Callable, since: int) -> bool:
    """Whether an array that a rule holds has been written to after a moment of the clock."""
    return any(written_since(array, since) for array in _held_arrays(rule))


def _owner(array: Array) -> Array:
    """The array whose memory a view shows; between the two may stand other objects."""
    owner = base = array
    while (base := getattr(base, "base", None)) is not None:
        if is_array(base):
            owner = base
    return owner


def _held_arrays(rule: Callable) -> Iterator[Array]:
    """The arrays that a rule holds: in its closure and defaults, in containers and functions."""
    waiting: list[Any] = [rule]
    seen = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if is_array(value):
            yield value
        elif isinstance(value, FunctionType):
            # Asked through gc, as a variable of the closure may have no value yet.
            waiting += gc.get_referents(*(value.__closure__ or ()))
            waiting += [value.__defaults__, value.__kwdefaults__]
        elif isinstance(value, _CONTAINERS):
            waiting += gc.get_referents(value)
