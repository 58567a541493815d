"""Values in order. They carry gradients back to where they came from; indices carry none.

NaN counts as greater than any number. Equal values keep their order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..engine import ShapeError, Tensor, array_module, primitive
from ..engine.backend import on_gpu
from ..engine.dtypes import accumulator
from ..engine.tensor import operand
from .arguments import integer
from .axes import axis_of
from .indexing import gather


class Sorted(NamedTuple):
    """What `sort` and `topk` return."""

    values: Tensor
    indices: Tensor


def sort(input, dim=-1, descending=False, stable=False):
    """Values in ascending or descending order along an axis, and where each came from.

    Parameters
    ----------
    input : (*)
    dim : int
    descending : bool
    stable : bool
        Taken for PyTorch's sake: equal values keep their order in any case.

    Returns
    -------
    values, indices : (*)
        With ``values = gather(input, dim, indices)``.

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    x = operand(input)
    dim = axis_of("sort", dim, max(x.ndim, 1))
    return _picked(x, dim, argsort(x, dim, descending))


@primitive
def argsort(x, *, dim=-1, descending=False, stable=False):
    """Indices that put the values along an axis in order; arguments as in `sort`. (*) -> (*)."""
    if x.ndim == 0:
        return array_module(x).zeros((), np.int64), None
    axis = axis_of("argsort", dim, x.ndim)
    if on_gpu(x):  # CuPy does not sort bfloat16
        x = x.astype(accumulator(x.dtype), copy=False)
    if not descending:
        return x.argsort(axis=axis, kind="stable"), None
    # Read backwards, an ascending order descends, and equal values too come in reverse: so they
    # are sorted in reverse.
    from_the_end = np.flip(x, axis).argsort(axis=axis, kind="stable")
    return np.flip(x.shape[axis] - 1 - from_the_end, axis), None


def topk(input, k, dim=-1, largest=True, sorted=True):
    """The k largest or smallest values along an axis, in order, and where each came from.

    Parameters
    ----------
    input : (*)
    k : int
    dim : int
    largest : bool
        The largest, from the largest on; otherwise the smallest, from the smallest on.
    sorted : bool
        Taken for PyTorch's sake: they are in order in any case.

    Returns
    -------
    values, indices
        As the input, but of size k along `dim`.

    Raises
    ------
    ShapeError
        If the axis has fewer than k values.
    """
    x = operand(input)
    axis = axis_of("topk", dim, max(x.ndim, 1))
    size = x.shape[axis] if x.ndim else 1
    if not 0 <= integer("topk", "k", k) <= size:
        raise ShapeError(f"topk: k must be from 0 to {size}, the size of dim {dim}, not {k}")
    order = argsort(x, dim, largest)
    return _picked(x, dim, order[(slice(None),) * axis + (slice(k),)] if x.ndim else order)


def _picked(x, dim, indices):
    return Sorted(gather(x, dim=dim, index=indices) if x.ndim else x.clone(), indices)
