"""Integers as people give them, one or several, checked before anything is computed with them."""

from __future__ import annotations

import operator
from typing import Any


def integer(op: str, name: str, value: Any, least: int | None = None) -> int:
    """An argument that is one integer, Python's or NumPy's.

    Raises
    ------
    ValueError
        If it is none, or below `least`.
    """
    number = _index(value)
    if number is None or (least is not None and number < least):
        least_of_all = "" if least is None else f" of at least {least}"
        raise ValueError(f"{op}: {name} must be an integer{least_of_all}, not {value!r}")
    return number


def integers(op: str, name: str, values: Any) -> tuple[int, ...]:
    """An argument that is one integer or several, in anything that can be iterated over.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if (number := _index(values)) is not None:
        return (number,)
    try:
        return tuple(map(operator.index, values))
    except TypeError:
        raise ValueError(
            f"{op}: {name} must be an integer or a tuple of integers, not {values!r}"
        ) from None


def _index(value: Any) -> int | None:
    try:
        return operator.index(value)
    except TypeError:
        return None
