"""Many values become one: sums, means, extremes, norms.

`dim` is an axis, a tuple of axes, or None for all; with `keepdim` the reduced axes stay, of size 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..engine import DTypeError, Tensor, primitive
from .indexing import gather


@primitive
def sum(x, *, dim=None, keepdim=False):
    """Sum over `dim`."""
    shape = x.shape

    def vjp_x(dy):
        return _spread(dy, shape, dim, keepdim)

    return x.sum(axis=dim, keepdims=keepdim), vjp_x


@primitive
def mean(x, *, dim=None, keepdim=False):
    """Mean over `dim`: the sum divided by how many were summed."""
    total, shape = x.sum(axis=dim, keepdims=keepdim), x.shape
    n = _count(shape, dim)

    def vjp_x(dy):
        return _spread(dy / n, shape, dim, keepdim)

    return total / n, vjp_x


@primitive
def var(x, *, dim=None, correction=1, keepdim=False):
    """Variance over `dim`: sum of (x - mean)^2, divided by their number less `correction`.

    `correction=1` estimates the variance of what the values were drawn from; normalisation layers
    take 0.
    """
    centred, freedom = _centred(x, dim), _freedom(x.shape, dim, correction)

    def vjp_x(dy):  # the mean's own dependence on x drops out: the centred values sum to 0
        return _spread(dy * 2 / freedom, centred.shape, dim, keepdim) * centred

    return np.square(centred).sum(axis=dim, keepdims=keepdim) / freedom, vjp_x


@primitive
def std(x, *, dim=None, correction=1, keepdim=False):
    """Standard deviation over `dim`, the square root of `var`; its gradient at 0 is 0."""
    centred, freedom = _centred(x, dim), _freedom(x.shape, dim, correction)
    y = np.sqrt(np.square(centred).sum(axis=dim, keepdims=keepdim) / freedom)

    def vjp_x(dy):
        return _spread(_ratio(dy, y * freedom), centred.shape, dim, keepdim) * centred

    return y, vjp_x


@primitive
def prod(x, *, dim=None, keepdim=False):
    """Product over one axis, or all."""
    if isinstance(dim, tuple):
        raise DTypeError(f"prod: dim is one axis or None, not {dim}")
    shape = x.shape

    def vjp_x(dy):
        rows = x.reshape(-1) if dim is None else np.moveaxis(x, dim, -1)
        others = _product_of_the_others(rows)
        others = others.reshape(shape) if dim is None else np.moveaxis(others, -1, dim)
        return _spread(dy, shape, dim, keepdim) * others

    return x.prod(axis=dim, keepdims=keepdim), vjp_x


@primitive
def cumsum(x, *, dim):
    """Sums of the first 1, 2, ... values along an axis. (*) -> (*)."""

    def vjp_x(dy):  # x_i is in every sum from the i-th on
        return np.flip(np.flip(dy, dim).cumsum(axis=dim), dim)

    return x.cumsum(axis=dim), vjp_x


@primitive
def amax(x, *, dim=None, keepdim=False):
    """Maximum over `dim`; equal maxima share the gradient evenly."""
    y = x.max(axis=dim, keepdims=True)

    def vjp_x(dy):
        return _share(dy, x == y, dim, keepdim)

    return y if keepdim else _drop(y, dim), vjp_x


@primitive
def amin(x, *, dim=None, keepdim=False):
    """Minimum over `dim`; equal minima share the gradient evenly."""
    y = x.min(axis=dim, keepdims=True)

    def vjp_x(dy):
        return _share(dy, x == y, dim, keepdim)

    return y if keepdim else _drop(y, dim), vjp_x


class Extremes(NamedTuple):
    """What `max` and `min` along an axis return."""

    values: Tensor
    indices: Tensor


def max(x, dim=None, keepdim=False):
    """The maximum of all; or with `dim`, the maxima along it and their indices.

    Of equal maxima along an axis the first is chosen, and takes the whole gradient.
    """
    return amax(x) if dim is None else _pick(x, argmax(x, dim=dim, keepdim=True), dim, keepdim)


def min(x, dim=None, keepdim=False):
    """The minimum of all; or with `dim`, the minima along it and their indices.

    Of equal minima along an axis the first is chosen, and takes the whole gradient.
    """
    return amin(x) if dim is None else _pick(x, argmin(x, dim=dim, keepdim=True), dim, keepdim)


@primitive
def argmax(x, *, dim=None, keepdim=False):
    """Index of the (first) maximum along an axis, or into the flattened values."""
    return x.argmax(axis=dim, keepdims=keepdim), None


@primitive
def argmin(x, *, dim=None, keepdim=False):
    """Index of the (first) minimum along an axis, or into the flattened values."""
    return x.argmin(axis=dim, keepdims=keepdim), None


@primitive
def any(x, *, dim=None, keepdim=False):
    """Whether any value over `dim` is true (not zero)."""
    return x.any(axis=dim, keepdims=keepdim), None


@primitive
def all(x, *, dim=None, keepdim=False):
    """Whether all values over `dim` are true (not zero)."""
    return x.all(axis=dim, keepdims=keepdim), None


@primitive
def norm(x, *, p=2, dim=None, keepdim=False):
    """The p-norm (sum of |x|^p)^(1/p) over `dim`, for p > 0; `float("inf")` is the largest |x|.

    Where the norm is 0, so is its gradient.
    """
    if p == math.inf:
        return _largest(np.abs(x), np.sign(x), dim, keepdim)
    y = (np.abs(x) ** p).sum(axis=dim, keepdims=True) ** (1 / p)

    def vjp_x(dy):
        if p == 2:
            return _spread(dy, x.shape, dim, keepdim) * _ratio(x, y)
        return _spread(dy, x.shape, dim, keepdim) * np.sign(x) * _ratio(np.abs(x), y) ** (p - 1)

    return y if keepdim else _drop(y, dim), vjp_x


@primitive
def logsumexp(x, *, dim, keepdim=False):
    """Logarithm of the sum of exp(x) over `dim`, without overflow."""
    largest = x.max(axis=dim, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)  # all -inf: the sum is 0, its log -inf
    with np.errstate(divide="ignore"):
        y = np.log(np.exp(x - largest).sum(axis=dim, keepdims=True)) + largest

    def vjp_x(dy):
        finite = np.where(np.isfinite(y), y, 0)
        return _spread(dy, x.shape, dim, keepdim) * np.exp(x - finite)

    return y if keepdim else _drop(y, dim), vjp_x


# -- what reductions share -------------------------------------------------------------------------


def _spread(dy, shape, dim, keepdim):
    """The gradient of a result, given to everything it was reduced from."""
    if dim is not None and not keepdim:
        dy = np.expand_dims(dy, dim)
    return np.broadcast_to(dy, shape)


def _drop(y, dim):
    """A result that kept its reduced axes, without them."""
    return y.reshape(()) if dim is None else y.squeeze(axis=dim)


def _count(shape, dim):
    """How many values are reduced to one."""
    axes = range(len(shape)) if dim is None else dim if isinstance(dim, tuple) else (dim,)
    return math.prod([shape[axis] for axis in axes])


def _freedom(shape, dim, correction):
    degrees = _count(shape, dim) - correction
    return degrees if degrees > 0 else 0


def _centred(x, dim):
    return x - x.sum(axis=dim, keepdims=True) / _count(x.shape, dim)


def _ratio(a, b):
    """Quotient a / b, and 0 where b is 0."""
    zero = b == 0
    return np.where(zero, 0, a / np.where(zero, 1, b))


def _share(dy, chosen, dim, keepdim):
    """The gradient of a result, in equal parts to those that were chosen for it."""
    if dim is not None and not keepdim:
        dy = np.expand_dims(dy, dim)
    return dy / chosen.sum(axis=dim, keepdims=True, dtype=dy.dtype) * chosen


def _product_of_the_others(x):
    """For each value the product of all others along the last axis, right where some are 0 too."""
    ones = np.ones_like(x[..., :1])
    before = np.concatenate([ones, x[..., :-1]], axis=-1).cumprod(axis=-1)
    after = np.concatenate([ones, x[..., :0:-1]], axis=-1).cumprod(axis=-1)
    return before * after[..., ::-1]


def _largest(size, direction, dim, keepdim):
    y = size.max(axis=dim, keepdims=True)

    def vjp_x(dy):
        return _share(dy, size == y, dim, keepdim) * direction

    return y if keepdim else _drop(y, dim), vjp_x


def _pick(x, indices, dim, keepdim):
    values = gather(x, dim=dim, index=indices)
    if keepdim:
        return Extremes(values, indices)
    return Extremes(values.squeeze(dim), indices.squeeze(dim))
