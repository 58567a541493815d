"""Dropout: noise that switches elements off during training."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import ShapeError, Tensor, array_module, as_tensor, default_generator, primitive
from ..engine.backend import on_gpu
from ..engine.kernels import FLOATS, Kernel
from ..engine.random import uniform

__all__ = ["dropout", "dropout2d"]


def dropout(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    generator: np.random.Generator | None = None,
) -> Tensor:
    r"""Set each element to zero with probability p, and scale the others by 1 / (1 - p).

    .. math:: y = \frac{x \, m}{1 - p}, \qquad m \sim \mathrm{Bernoulli}(1 - p)

    The scale keeps the expected value: without training nothing is left to do.

    Parameters
    ----------
    input : (*)
    p : float
        Probability of a zero, from 0 to 1.
    training : bool
        Without it, the input is returned as it is.
    generator : numpy.random.Generator, optional
        Where the noise comes from; the default one of the input's device (see `manual_seed`) if
        left out. NumPy's gives the same noise on a GPU as on the CPU, but has to send it there.

    Returns
    -------
    (*)

    Raises
    ------
    ValueError
        If p is not a probability.

    References
    ----------
    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
    JMLR 15 (2014).
    """
    return _thinned("dropout", as_tensor(input), p, training, generator, dims=None)


def dropout2d(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    generator: np.random.Generator | None = None,
) -> Tensor:
    r"""Set whole channels to zero with probability p, and scale the others by 1 / (1 - p).

    .. math::

        y_{nchw} = \frac{x_{nchw} \, m_{nc}}{1 - p}, \qquad
        m_{nc} \sim \mathrm{Bernoulli}(1 - p)

    Neighbours in a feature map tell nearly the same: a zero beside them hides little. A channel
    that is gone is gone everywhere.

    Parameters
    ----------
    input : (N, C, H, W)
    p, training, generator
        As `dropout`.

    Returns
    -------
    (N, C, H, W)

    Raises
    ------
    ValueError
        If p is not a probability.
    ShapeError
        If the input has not four axes.

    References
    ----------
    Tompson et al., "Efficient Object Localization Using Convolutional Networks" (CVPR 2015),
    section 3.2.
    """
    x = as_tensor(input)
    if x.ndim != 4:
        raise ShapeError(f"dropout2d: needs an input (N, C, H, W), got {x.shape}")
    return _thinned("dropout2d", x, p, training, generator, dims=2)


def _thinned(
    name: str,
    x: Tensor,
    p: float,
    training: bool,
    generator: np.random.Generator | None,
    dims: int | None,
) -> Tensor:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is a probability, from 0 to 1, not {p}")
    if not training or p == 0:
        return x
    return _dropout(x, p=p, generator=generator or default_generator(x.device), dims=dims)


_THINNED = Kernel(
    "thinned",
    r"""
// One number of the noise decides about `each` elements.
extern "C" __global__ void thinned(const T* x, const float* noise, T* y, double p, double scale,
                                   long long each, long long n) {
    FOR_EACH(i, n) {
        const bool kept = noise[each == 1 ? i : i / each] >= float(p);
        y[i] = T(acc_t(x[i]) * (kept ? acc_t(scale) : 0));
    }
}
""",
    [{"T": t} for t in FLOATS],
)


@primitive(floats="all", takes_half=True)
def _dropout(x, *, p, generator, dims):
    """Noise for each element or, with `dims`, for each item of the first so many axes."""
    shape = x.shape if dims is None else x.shape[:dims] + (1,) * (x.ndim - dims)
    noise = uniform(shape, x, generator)
    kept_by = 0.0 if p == 1 else 1 / (1 - p)
    if on_gpu(x):
        return _thinned_on_gpu(x, noise, float(p), kept_by)
    scale = (noise >= p).astype(x.dtype)  # the same mask in every dtype
    scale *= kept_by

    def vjp_x(dy):
        return dy * scale

    return x * scale, vjp_x


def _thinned_on_gpu(x, noise, p, scale):
    xp, dtype, each = array_module(x), x.dtype, x.size // max(noise.size, 1)

    def thinned(values):
        y = xp.empty(values.shape, dtype)
        values = xp.ascontiguousarray(values, dtype=dtype)
        _THINNED.over(y.size, values, noise, y, p, scale, each, y.size, T=dtype)
        return y

    return thinned(x), thinned
