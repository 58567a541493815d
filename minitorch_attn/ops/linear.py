"""Linear maps: a matrix product with a bias, and the lookup of rows."""

from __future__ import annotations

import math
from typing import Any

from ..engine import DTypeError, ShapeError, Tensor, primitive
from ..engine.backend import on_gpu
from ..engine.dtypes import accumulator
from .indexing import added_at
from .products import matrix_product

__all__ = ["embedding", "linear"]


def linear(input: Any, weight: Any, bias: Any = None) -> Tensor:
    """Linear map y = x W^T + b of the last axis.

    Parameters
    ----------
    input : (*, D_in)
    weight : (D_out, D_in)
    bias : (D_out,), optional

    Returns
    -------
    (*, D_out)

    Raises
    ------
    ShapeError
        If the sizes do not fit.
    """
    return _linear(input, weight, bias)


@primitive(floats="all", takes_half=True)
def _linear(x, weight, bias):
    if weight.ndim != 2:
        raise ShapeError(
            f"linear: the weight needs shape (out features, in features), not {weight.shape}"
        )
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: the weight {weight.shape} takes {weight.shape[1]} features, but the last "
            f"axis of the input {x.shape} has another size: give an input (..., {weight.shape[1]}) "
            "or a weight of shape (out features, size of that axis)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"linear: the bias needs one number for each of {weight.shape[0]} outputs, shape "
            f"{weight.shape[:1]}, not {bias.shape}"
        )
    D_out, D_in = weight.shape
    y = matrix_product(x, weight.T)
    if bias is not None:
        y += bias

    def vjp_x(dy):
        return matrix_product(dy, weight)

    def vjp_weight(dy):
        rows = math.prod(x.shape[:-1])
        return dy.reshape(rows, D_out).T @ x.reshape(rows, D_in)

    def vjp_bias(dy):
        rows = math.prod(dy.shape[:-1])
        return dy.reshape(rows, D_out).sum(axis=0, dtype=accumulator(dy.dtype))

    return y, (vjp_x, vjp_weight, vjp_bias)


@primitive
def embedding(input, weight, *, padding_idx=None):
    """Look up rows: y[...] = weight[input[...]].

    Parameters
    ----------
    input : (*) of integers
        Which row to take, from 0 to K - 1.
    weight : (K, D)
        The rows.
    padding_idx : int, optional
        A row that gets no gradient; negative counts from the last.

    Returns
    -------
    (*, D)

    Raises
    ------
    DTypeError
        If the indices are not integers.
    IndexError
        If an index (unless they lie on a GPU) or `padding_idx` is not a row.
    """
    if weight.ndim != 2:
        raise ShapeError(f"embedding: the weight needs shape (rows, features), not {weight.shape}")
    K, D = weight.shape
    if input.dtype.kind not in "iu":
        raise DTypeError(f"embedding: the indices must be integers, not {input.dtype}")
    if not on_gpu(input):  # there the host would have to wait for the answer
        outside = (input < 0) | (input >= K)
        if outside.any():
            raise IndexError(
                f"embedding: index {input[outside][0]} is not one of the {K} rows, 0 to {K - 1}"
            )
    if padding_idx is not None and not -K <= padding_idx < K:
        raise IndexError(f"embedding: padding_idx={padding_idx} is not one of the {K} rows")

    def vjp_weight(dy):
        dweight = added_at((K, D), input, dy)  # a row that is looked up twice gets both gradients
        if padding_idx is not None:
            dweight[padding_idx] = 0
        return dweight

    return weight[input], (None, vjp_weight)
