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
