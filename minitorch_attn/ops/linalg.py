"""Products of vectors and matrices."""

from __future__ import annotations

import math

import numpy as np

from ..engine import ShapeError, primitive
from ..engine.tensor import as_operands
from .einsum import einsum
from .products import matrix_product


@primitive(floats="half", takes_half=True)
def matmul(a, b):
    """Matrix product y = a b: (*, n, m), (*, m, k) -> (*, n, k), the leading axes broadcast.

    A vector on the left is a row, one on the right is a column, and that axis of size 1 is
    dropped from the result: (m,), (m,) -> (); (*, n, m), (m,) -> (*, n); (m,), (*, m, k) -> (*, k).

    With y_nk = sum_m a_nm b_mk the gradients are dy b^T and a^T dy.

    Raises
    ------
    ShapeError
        If the inner sizes differ, or an operand has no axes.
    """
    _check_inner_sizes(np.shape(a), np.shape(b))
    a_is_row, b_is_column, one_b = a.ndim == 1, b.ndim == 1, b.ndim <= 2

    def as_matrix(dy):
        """The gradient with the axes that a vector's product has dropped: (*, n, k)."""
        if b_is_column:
            dy = dy[..., None]
        return dy[..., None, :] if a_is_row else dy

    def vjp_a(dy):
        columns = b[:, None] if b_is_column else b
        da = matrix_product(as_matrix(dy), columns.swapaxes(-1, -2))
        return da[..., 0, :] if a_is_row else da

    def vjp_b(dy):
        rows, dy = (a[None, :] if a_is_row else a), as_matrix(dy)
        if one_b and rows.ndim > 2:  # the same b for the whole batch: one product over all rows
            rows, dy = _as_one_matrix(rows), _as_one_matrix(dy)
        db = matrix_product(rows.swapaxes(-1, -2), dy)
        return db[..., 0] if b_is_column else db

    return matrix_product(a, b), (vjp_a, vjp_b)


def _as_one_matrix(batch):
    """The rows of all matrices of a batch, one below the other."""
    return batch.reshape(math.prod(batch.shape[:-1]), batch.shape[-1])


def _check_inner_sizes(a, b):
    if not a or not b:
        raise ShapeError(f"matmul: needs vectors or matrices, got shapes {a} and {b}")
    inner = b[-2] if len(b) > 1 else b[0]
    if a[-1] != inner:
        raise ShapeError(
            f"matmul: {a} @ {b}: the inner sizes {a[-1]} and {inner} must be equal "
            "(columns of the left, rows of the right)"
        )


def dot(a, b):
    """Product of two vectors, sum_i a_i b_i: (n,), (n,) -> ()."""
    a, b = as_operands(a, b)
    _check_axes("dot", 1, a, b)
    return matmul(a, b)


def outer(a, b):
    """All products of two vectors, y_ij = a_i b_j: (n,), (m,) -> (n, m)."""
    a, b = as_operands(a, b)
    _check_axes("outer", 1, a, b)
    return einsum("i,j->ij", a, b)


def bmm(a, b):
    """Matrix products of a batch: (N, n, m), (N, m, k) -> (N, n, k); nothing is broadcast."""
    a, b = as_operands(a, b)
    _check_axes("bmm", 3, a, b)
    if a.shape[0] != b.shape[0]:
        raise ShapeError(f"bmm: the batches differ: {a.shape[0]} and {b.shape[0]} matrices")
    return matmul(a, b)


def _check_axes(op, ndim, *tensors):
    if any(x.ndim != ndim for x in tensors):
        shapes = " and ".join(str(x.shape) for x in tensors)
        raise ShapeError(f"{op}: both operands need {ndim} axes, their shapes are {shapes}")
