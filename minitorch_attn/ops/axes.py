"""Axes as people count them, from the front or, negative, from the back; and what fits them."""

from __future__ import annotations

from typing import Any

from ..engine import ShapeError
from ..engine.backend import Array
from ..engine.errors import no_such_dim
from .arguments import integer


def axis_of(op: str, dim: int, ndim: int) -> int:
    """The axis that `dim` means in a tensor of `ndim` axes, counted from 0.

    Raises
    ------
    IndexError
        If there is no such axis; `op` is named.
    ValueError
        If `dim` is no integer.
    """
    dim = integer(op, "dim", dim)
    if not -ndim <= dim < ndim:
        raise IndexError(f"{op}: {no_such_dim(dim, ndim)}")
    return dim % ndim


def check_not_enlarged(op: str, y: Array, x: Array, **settings: Any) -> None:
    """Raise a ShapeError if a setting has broadcast the result beyond the shape of the input."""
    if y.shape != x.shape:
        given = " and ".join(
            f"{name} of shape {value.shape}"
            for name, value in settings.items()
            if getattr(value, "ndim", 0)
        )
        raise ShapeError(
            f"{op}: {given} must broadcast to the input {x.shape}, the result would be {y.shape}"
        )
