"""How alike vectors are: by the angle between them, or by how far apart they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import ShapeError, Tensor, primitive
from ..engine.tensor import as_operands, operand
from .arguments import integers
from .arithmetic import clamp
from .axes import axis_of
from .reduction import norm


def normalize(
    input: Any, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12
) -> Tensor:
    r"""Vectors along an axis divided by their norm. (*) -> (*).

    .. math:: y = \frac{x}{\max(\lVert x \rVert_p, \epsilon)}

    Parameters
    ----------
    input : (*)
    p : float
        Of the norm, see `norm`.
    dim : int or tuple of int
        The axis, or axes, along which the vectors lie.
    eps : float
        Least that is divided by.

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    x = operand(input)
    dim = tuple(axis_of("normalize", d, x.ndim) for d in integers("normalize", "dim", dim))
    return x / clamp(norm(x, p=p, dim=dim, keepdim=True), min=eps)


@primitive(floats="all")
def cosine_similarity(x1, x2, *, dim=1, eps=1e-8):
    r"""Cosine of the angle between vectors that lie along an axis.

    .. math:: y = \frac{x_1}{\max(\lVert x_1 \rVert, \epsilon)} \cdot
        \frac{x_2}{\max(\lVert x_2 \rVert, \epsilon)}

    The gradient is that of the norms themselves also where `eps` takes their place, as in
    PyTorch; that of a norm of 0 is 0.

    Parameters
    ----------
    x1, x2 : (*)
        They broadcast to one another.
    dim : int
        The axis of the vectors, which the result no longer has.
    eps : float
        Least length that is divided by.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    IndexError
        If there is no such axis.
    """
    axis = axis_of("cosine_similarity", dim, max(x1.ndim, x2.ndim))
    try:
        x1, x2 = np.broadcast_arrays(x1, x2)
    except ValueError:
        raise ShapeError(
            f"cosine_similarity: {x1.shape} and {x2.shape} do not broadcast: counted from the last "
            "axis, sizes must be equal or 1"
        ) from None
    (length1, u1), (length2, u2) = _direction(x1, axis, eps), _direction(x2, axis, eps)
    y = (u1 * u2).sum(axis=axis)

    def vjp_of(x, length, u, other):
        """d(x / r) with r = max(length, eps), and the slope of the length taken for that of r."""

        def vjp(dy):
            dy, cosine = np.expand_dims(dy, axis), np.expand_dims(y, axis)
            r = np.maximum(length, eps)
            outwards = x / np.where(length == 0, 1, length)
            return dy * (other - cosine * outwards) / r

        return vjp

    return y, (vjp_of(x1, length1, u1, u2), vjp_of(x2, length2, u2, u1))


def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    r"""Distance of each vector from its partner. (..., D), (..., D) -> (...).

    .. math:: y = \lVert x_1 - x_2 + \epsilon \rVert_p

    Where the norm is 0, so is its gradient. `eps` keeps equal vectors from having none.

    Parameters
    ----------
    x1, x2 : (..., D)
        They broadcast to one another.
    p : float
        Of the norm, see `norm`; greater than 0.
    eps : float
        Added to every difference.
    keepdim : bool
        Whether to keep the last axis, with size 1.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast, or an input is a single number.
    ValueError
        If p is not positive.
    """
    if not p > 0:
        raise ValueError(f"pairwise_distance: p must be greater than 0, not {p}")
    x1, x2 = as_operands(x1, x2)
    if 0 in (x1.ndim, x2.ndim):
        raise ShapeError(
            f"pairwise_distance: needs vectors (..., D), got shapes {x1.shape} and {x2.shape}"
        )
    return norm(x1 - x2 + eps, p=p, dim=-1, keepdim=keepdim)


def _direction(x, axis, eps):
    length = np.sqrt(np.square(x).sum(axis=axis, keepdims=True))
    return length, x / np.maximum(length, eps)
