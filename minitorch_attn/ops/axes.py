"""Axes as people count them, from the front or, negative, from the back; and what fits them."""

from __future__ import annotations

from typing import Any

from ..engine import ShapeError
from ..engine.backend import Array
from ..engine.errors import no_such_dim


def axis_of(op: str, dim: int, ndim: int) -> int:
    """The axis that `dim` means in a tensor of `ndim` axes, counted from 0.

    Raises
    ------
    IndexError
        If there is no such axis; `op` is named.
    """
    if not -ndim <= dim < ndim:
        raise IndexError(f"{op}: {no_such_dim(dim, ndim)}")
    return dim % ndim


def check_broadcasts(op: str, x: Array, **settings: Any) -> None:
    """Raise a ShapeError unless each of the settings broadcasts to x without enlarging it."""
    for name, value in settings.items():
        shape = getattr(value, "shape", ())  # a number, or None, always does
        trailing = x.shape[x.ndim - len(shape) :] if len(shape) <= x.ndim else ()
        if len(shape) > x.ndim or any(n not in (1, m) for n, m in zip(shape, trailing)):
            raise ShapeError(
                f"{op}: {name} of shape {shape} does not broadcast to the input {x.shape}: counted "
                "from the last axis, its sizes must be equal, or 1"
            )
