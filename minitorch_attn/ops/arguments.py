"""What people give, checked before anything is computed with it: integers above all."""

from __future__ import annotations

import operator
from typing import Any

from ..engine.backend import Array, on_gpu


def integer(op: str, name: str, value: Any, least: int | None = None) -> int:
    """An argument that is one integer, Python's or NumPy's.

    Raises
    ------
    ValueError
        If it is none, or below `least`.
    """
    try:
        number = operator.index(value)
        if least is None or number >= least:
            return number
    except TypeError:
        pass
    bound = "" if least is None else f" of at least {least}"
    raise ValueError(f"{op}: {name} must be an integer{bound}, not {value!r}")


def integers(op: str, name: str, values: Any) -> tuple[int, ...]:
    """An argument that is one integer or several, in anything that can be iterated over.

    Raises
    ------
    ValueError
        If it is neither.
    """
    try:
        return (operator.index(values),)
    except TypeError:
        pass
    try:
        return tuple(map(operator.index, values))
    except TypeError:
        raise ValueError(
            f"{op}: {name} must be an integer or a tuple of integers, not {values!r}"
        ) from None


def any_wrong(wrong: Array) -> bool:
    """Whether something is wrong with any value, where that can be asked in passing.

    On a GPU the host would have to wait for the answer in every step of a training: there nobody
    asks, and an index out of range wraps around, as CuPy has it.
    """
    return not on_gpu(wrong) and bool(wrong.any())
