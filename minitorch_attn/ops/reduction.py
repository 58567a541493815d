"""Many values become one: sums, means, extremes, norms, over some axes or all."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..engine import DTypeError, Tensor, primitive
from ..engine.dtypes import accumulator, is_half
from .arithmetic import maximum, minimum
from .indexing import gather
from .masking import masked


@primitive(floats="half", takes_half=True)
def sum(x, *, dim=None, keepdim=False):
    """Sum over axes.

    Parameters
    ----------
    x : (*)
    dim : int, tuple of int, or None
        The axes to sum over; all of them if left out.
    keepdim : bool
        Keep these axes, of size 1.

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    shape = x.shape

    def vjp_x(dy):
        return np.broadcast_to(_keep(dy, dim, keepdim), shape)

    if is_half(x.dtype):  # on a GPU, where CuPy may add up float16 in float16
        y = x.sum(axis=dim, keepdims=keepdim, dtype=accumulator(x.dtype)).astype(x.dtype)
    else:
        y = x.sum(axis=dim, keepdims=keepdim)
    return y, vjp_x


@primitive(floats="all")
def mean(x, *, dim=None, keepdim=False):
    """Mean over axes, the sum divided by how many values were summed; arguments as in `sum`."""
    total, shape = x.sum(axis=dim, keepdims=keepdim), x.shape
    n = _count(shape, dim)

    def vjp_x(dy):
        return np.broadcast_to(_keep(dy / n, dim, keepdim), shape)

    return total / n, vjp_x


@primitive(floats="all")
def var(x, *, dim=None, correction=1, keepdim=False):
    """Variance over axes: the sum of (x - mean)^2 divided by their number n - correction.

    Arguments as in `sum`. The correction of 1 makes it an unbiased estimate of the variance of
    what the values were drawn from; normalisation layers take 0. With n <= correction it is NaN.
    """
    centred, freedom = _centred(x, dim), _freedom(x.shape, dim, correction)

    def vjp_x(dy):  # the mean's own dependence on x drops out: the centred values sum to 0
        return _keep(dy * 2 / freedom, dim, keepdim) * centred

    return np.square(centred).sum(axis=dim, keepdims=keepdim) / freedom, vjp_x


@primitive(floats="all")
def std(x, *, dim=None, correction=1, keepdim=False):
    """Standard deviation over axes, the square root of `var`; its gradient at 0 is 0.

    Arguments as in `var`.
    """
    centred, freedom = _centred(x, dim), _freedom(x.shape, dim, correction)
    y = np.sqrt(np.square(centred).sum(axis=dim, keepdims=keepdim) / freedom)

    def vjp_x(dy):
        return _keep(_ratio(dy, y * freedom), dim, keepdim) * centred

    return y, vjp_x


@primitive(floats="half")
def prod(x, *, dim=None, keepdim=False):
    """Product over one axis (`dim` is an int), or over all; `keepdim` as in `sum`."""
    if isinstance(dim, tuple):
        raise DTypeError(f"prod: dim is one axis or None, not {dim}")
    shape = x.shape

    def vjp_x(dy):
        rows = x.reshape(-1) if dim is None else np.moveaxis(x, dim, -1)
        others = _product_of_the_others(rows)
        others = others.reshape(shape) if dim is None else np.moveaxis(others, -1, dim)
        return _keep(dy, dim, keepdim) * others

    return x.prod(axis=dim, keepdims=keepdim), vjp_x


@primitive(floats="half")
def cumsum(x, *, dim):
    """Sums of the first 1, 2, ... values along an axis. (*) -> (*)."""

    def vjp_x(dy):  # x_i is in every sum from the i-th on
        return np.flip(np.flip(dy, dim).cumsum(axis=dim), dim)

    return x.cumsum(axis=dim), vjp_x


@primitive
def amax(x, *, dim=None, keepdim=False):
    """Maximum over axes; equal maxima share the gradient evenly. Arguments as in `sum`."""
    y = x.max(axis=dim, keepdims=True)

    def vjp_x(dy):
        return _share(dy, x == y, dim, keepdim)

    return y if keepdim else _drop(y, dim), vjp_x


@primitive
def amin(x, *, dim=None, keepdim=False):
    """Minimum over axes; equal minima share the gradient evenly. Arguments as in `sum`."""
    y = x.min(axis=dim, keepdims=True)

    def vjp_x(dy):
        return _share(dy, x == y, dim, keepdim)

    return y if keepdim else _drop(y, dim), vjp_x


class Extremes(NamedTuple):
    """What `max` and `min` along an axis return."""

    values: Tensor
    indices: Tensor


def max(input, dim=None, keepdim=False):
    """Maximum of all values; or along an axis `dim`, the pair (values, indices).

    `max(a, b)` of two tensors is `maximum(a, b)`.

    Of equal maxima along an axis the first is chosen, and takes the whole gradient.
    """
    if isinstance(dim, Tensor):
        return maximum(input, dim)
    if dim is None:
        return amax(input)
    return _pick(input, argmax(input, dim=dim, keepdim=True), dim, keepdim)


def min(input, dim=None, keepdim=False):
    """Minimum of all values; or along an axis `dim`, the pair (values, indices).

    `min(a, b)` of two tensors is `minimum(a, b)`.

    Of equal minima along an axis the first is chosen, and takes the whole gradient.
    """
    if isinstance(dim, Tensor):
        return minimum(input, dim)
    if dim is None:
        return amin(input)
    return _pick(input, argmin(input, dim=dim, keepdim=True), dim, keepdim)


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
    """Whether any value is true (not zero), over axes; arguments as in `sum`."""
    return x.any(axis=dim, keepdims=keepdim), None


@primitive
def all(x, *, dim=None, keepdim=False):
    """Whether all values are true (not zero), over axes; arguments as in `sum`."""
    return x.all(axis=dim, keepdims=keepdim), None


@primitive(floats="all")
def norm(x, *, p=2, dim=None, keepdim=False):
    """Norm over axes: (sum of abs(x)^p)^(1/p), or the largest abs(x) for p = infinity.

    For p = 0 it is how many values are not 0, and has no gradient.
    Other arguments as in `sum`. Where the norm is 0, so is its gradient.
    """
    if p == math.inf:
        return _largest(np.abs(x), np.sign(x), dim, keepdim)
    if p == 0:
        return (x != 0).sum(axis=dim, keepdims=keepdim, dtype=x.dtype), None
    y = (np.abs(x) ** p).sum(axis=dim, keepdims=True) ** (1 / p)

    def vjp_x(dy):
        if p == 2:
            return _keep(dy, dim, keepdim) * _ratio(x, y)
        return _keep(dy, dim, keepdim) * np.sign(x) * _ratio(np.abs(x), y) ** (p - 1)

    return y if keepdim else _drop(y, dim), vjp_x


@primitive(floats="all")
def logsumexp(x, *, dim, keepdim=False):
    """Logarithm of the sum of exp(x) over axes, without overflow; arguments as in `sum`."""
    largest = x.max(axis=dim, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)  # all -inf: the sum is 0, its log -inf
    with np.errstate(divide="ignore"):
        y = np.log(np.exp(x - largest).sum(axis=dim, keepdims=True)) + largest

    def vjp_x(dy):
        finite = np.where(np.isfinite(y), y, 0)
        return _keep(dy, dim, keepdim) * np.exp(x - finite)

    return y if keepdim else _drop(y, dim), vjp_x


# -- what reductions share -------------------------------------------------------------------------


def _keep(dy, dim, keepdim):
    """The gradient of a result with the reduced axes, of size 1, so that it broadcasts to x."""
    return dy if keepdim or dim is None else np.expand_dims(dy, dim)


def _drop(y, dim):
    """A result without the reduced axes that it kept."""
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
    share = _keep(dy, dim, keepdim) / chosen.sum(axis=dim, keepdims=True, dtype=dy.dtype)
    return masked(share, chosen)


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
