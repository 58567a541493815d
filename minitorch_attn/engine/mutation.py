"""Who wrote into which memory, and when: how a changed tensor is caught before it misleads.

A rule of the graph may hold an array that a later statement overwrites. Watching every array
would slow every operation down; writing in place is rare, so the writes are recorded instead,
each with the number of the graph node it came after. A backward pass asks about a node only
if some write came after that node.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from .backend import Array, is_array

last_write = 0
_writes: dict[int, tuple[weakref.ref, int]] = {}  # id of the memory's owner -> (owner, when)


def note_write(array: Array, when: int) -> None:
    """Record that an array's memory was written to, just now."""
    global last_write
    owner, key = _owner(array), id(_owner(array))
    _writes[key] = (weakref.ref(owner, lambda _: _writes.pop(key, None)), when)
    last_write = when


def overwritten(rule: Callable, since: int) -> bool:
    """Whether an array that a rule holds has been written to since a point in time."""
    return any(_written_at(array) > since for array in _held_arrays(rule))


def _owner(array: Array) -> Array:
    while is_array(array.base):
        array = array.base
    return array


def _written_at(array: Array) -> int:
    owner = _owner(array)
    reference, when = _writes.get(id(owner), (None, 0))
    return when if reference is not None and reference() is owner else 0


def _held_arrays(value: Any) -> Iterator[Array]:
    """The arrays a rule's closure holds, also inside containers and inner functions."""
    if is_array(value):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _held_arrays(item)
    elif isinstance(value, dict):
        yield from _held_arrays(list(value.values()))
    elif callable(value):
        for cell in getattr(value, "__closure__", None) or ():
            yield from _held_arrays(cell.cell_contents)
