"""Axes as people count them, from the front or, negative, from the back."""

from __future__ import annotations

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
