r"""Normalisation: a scale and a shift that give values a mean of 0 and a variance of 1.

With :math:`\hat x = (x - \mu)\, r`, :math:`r = 1 / \sqrt{\sigma^2 + \epsilon}`, where mean and
variance are taken over m values, the gradient of those values is

.. math:: dx = r \left(d\hat x - \overline{d\hat x} - \hat x\, \overline{d\hat x\, \hat x}\right),

the incoming gradient without its mean and without its part along :math:`\hat x`: a change of the
values that only shifts or scales them changes nothing behind the normalisation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..engine import ShapeError, Tensor, array_module, primitive
from ..engine.backend import Array

__all__ = ["batch_norm", "layer_norm"]


def batch_norm(
    input: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""Normalise each channel over the batch and all positions.

    .. math:: y = \gamma \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} + \beta

    In training the mean and the (biased) variance are those of the batch, and the running ones
    move towards them, in place: `running = (1 - momentum) * running + momentum * batch`, where the
    running variance takes the unbiased one. Otherwise the running ones are used as constants.

    Parameters
    ----------
    input : (N, C) or (N, C, ...)
    running_mean, running_var : Tensor (C,) or None
        Updated in place in training; may be None there.
    weight, bias : (C,), optional
        Scale gamma and shift beta of each channel; 1 and 0 if left out.
    training : bool
        Whether to normalise by the batch's own statistics.
    momentum : float
        How far the running statistics move.
    eps : float
        Added to the variance.

    Returns
    -------
    (N, C) or (N, C, ...)

    Raises
    ------
    ShapeError
        If sizes do not fit.
    ValueError
        In training if there is one value per channel (its variance is 0); otherwise if the
        running statistics are missing.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization" (2015), algorithms 1 and 2.
    """
    _check_channels(
        input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError(
                "batch_norm: without training it needs running_mean and running_var (a layer that "
                "tracks no running statistics always normalises by the batch: training=True)"
            )
        return _batch_norm_eval(
            input, weight, bias, mean=running_mean, variance=running_var, eps=eps
        )

    for name, running in {"running_mean": running_mean, "running_var": running_var}.items():
        if running is not None and not isinstance(running, Tensor):
            raise TypeError(f"batch_norm: training updates {name}, so it must be a tensor")

    def update_running(mean: Array, variance: Array, count: int) -> None:
        unbiased = variance * (count / (count - 1))
        for running, batch in ((running_mean, mean), (running_var, unbiased)):
            if running is not None:
                # New values, not a write in place: that would make the reverse pass look through
                # all that was recorded before it.
                moved = (1 - momentum) * running.data + momentum * batch
                running.data = moved.astype(running.dtype, copy=False)

    return _batch_norm(input, weight, bias, eps=eps, observe=update_running)


@primitive(floats="all")
def _batch_norm(x, weight, bias, *, eps, observe=None):
    shape, channels = x.shape, (x.shape[1], 1)
    x = x.reshape(*shape[:2], math.prod(shape[2:]))  # (N, C, L): all positions in one axis
    weight, bias = _parameter(weight, 1, x, channels), _parameter(bias, 0, x, channels)
    mean, variance, count = _moments(x, axis=(0, 2))
    if count == 1:
        raise ValueError(
            f"batch_norm: training needs more than one value per channel, and the input {shape} "
            "has one: take a larger batch, or use the running statistics (eval() of a layer)"
        )
    if observe is not None and count > 0:
        observe(mean.reshape(-1), variance.reshape(-1), count)
    scale = 1 / array_module(x).sqrt(variance + eps)
    y = x - mean
    y *= scale * weight
    y += bias

    def vjp_x(dy):
        dy = dy.reshape(x.shape)
        return _vjp_standardised(dy * weight, x, mean, scale, axis=(0, 2)).reshape(shape)

    def vjp_weight(dy):
        return (dy.reshape(x.shape) * (x - mean)).sum(axis=(0, 2)) * scale.reshape(-1)

    def vjp_bias(dy):
        return dy.sum(axis=(0, *range(2, dy.ndim)))

    return y.reshape(shape), (vjp_x, vjp_weight, vjp_bias)


@primitive(floats="all")
def _batch_norm_eval(x, weight, bias, *, mean, variance, eps):
    shape, channels = x.shape, (x.shape[1], 1)
    x = x.reshape(*shape[:2], math.prod(shape[2:]))
    weight, bias = _parameter(weight, 1, x, channels), _parameter(bias, 0, x, channels)
    mean = mean.reshape(channels).astype(x.dtype)
    scale = 1 / array_module(x).sqrt(variance.reshape(channels).astype(x.dtype) + eps)
    slope = weight * scale
    y = x * slope
    y += bias - mean * slope

    def vjp_x(dy):
        return dy * slope.reshape(-1, *(1,) * (dy.ndim - 2))

    def vjp_weight(dy):
        return (dy.reshape(x.shape) * (x - mean)).sum(axis=(0, 2)) * scale.reshape(-1)

    def vjp_bias(dy):
        return dy.sum(axis=(0, *range(2, dy.ndim)))

    return y.reshape(shape), (vjp_x, vjp_weight, vjp_bias)


def layer_norm(
    input: Any,
    normalized_shape: int | tuple[int, ...],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:
    r"""Normalise each sample over its last axes.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    Parameters
    ----------
    input : (*, D_1, ..., D_k)
    normalized_shape : int or tuple of int
        (D_1, ..., D_k), the sizes of the axes over which mean and variance are taken.
    weight, bias : (D_1, ..., D_k), optional
        Scale gamma and shift beta of each element; 1 and 0 if left out.
    eps : float
        Added to the variance.

    Returns
    -------
    (*, D_1, ..., D_k)

    Raises
    ------
    ShapeError
        If the last axes of the input, or the weight or bias, have other sizes.

    References
    ----------
    Ba, Kiros and Hinton, "Layer Normalization" (2016), section 3.
    """
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not sizes or np.shape(input)[-len(sizes) :] != sizes:
        raise ShapeError(
            f"layer_norm: the last axes of the input {np.shape(input)} must be "
            f"normalized_shape={sizes}"
        )
    for name, value in {"weight": weight, "bias": bias}.items():
        if value is not None and np.shape(value) != sizes:
            raise ShapeError(
                f"layer_norm: the {name} must have the shape {sizes} of normalized_shape, "
                f"not {np.shape(value)}"
            )
    return _layer_norm(input, weight, bias, sizes=sizes, eps=eps)


@primitive(floats="all")
def _layer_norm(x, weight, bias, *, sizes, eps):
    shape, D = x.shape, math.prod(sizes)
    x = x.reshape(x.size // max(D, 1), D)  # one row per sample
    weight, bias = _parameter(weight, 1, x, (D,)), _parameter(bias, 0, x, (D,))
    mean, variance, _ = _moments(x, axis=1)
    scale = 1 / array_module(x).sqrt(variance + eps)
    y = x - mean
    y *= scale
    y *= weight
    y += bias

    def vjp_x(dy):
        dy = dy.reshape(x.shape)
        return _vjp_standardised(dy * weight, x, mean, scale, axis=1).reshape(shape)

    def vjp_weight(dy):
        return (dy.reshape(x.shape) * ((x - mean) * scale)).sum(axis=0).reshape(sizes)

    def vjp_bias(dy):
        return dy.reshape(x.shape).sum(axis=0).reshape(sizes)

    return y.reshape(shape), (vjp_x, vjp_weight, vjp_bias)


def _moments(x: Array, axis: int | tuple[int, ...]) -> tuple[Array, Array, int]:
    """Mean, biased variance, and over how many values; of no values the moments are 0."""
    mean = x.sum(axis=axis, keepdims=True)
    count = x.size // max(mean.size, 1)
    mean /= max(count, 1)
    centred = x - mean
    centred *= centred
    return mean, centred.sum(axis=axis, keepdims=True) / max(count, 1), count


def _vjp_standardised(
    dxhat: Array, x: Array, mean: Array, scale: Array, axis: int | tuple[int, ...]
) -> Array:
    """Carry a gradient back through xhat = (x - mean) * scale, with mean and scale made of x."""
    count = max(x.size // max(mean.size, 1), 1)
    xhat = x - mean
    xhat *= scale
    dx = dxhat - dxhat.sum(axis=axis, keepdims=True) / count
    xhat *= (dxhat * xhat).sum(axis=axis, keepdims=True) / count
    dx -= xhat
    dx *= scale
    return dx


def _parameter(value: Array | None, otherwise: float, x: Array, shape: tuple[int, ...]) -> Array:
    """A parameter in a shape and in the dtype of x, or the number it stands for if left out."""
    if value is None:
        return array_module(x).full(shape, otherwise, dtype=x.dtype)
    return value.reshape(shape).astype(x.dtype, copy=False)


def _check_channels(input: Any, **per_channel: Any) -> None:
    shape = np.shape(input)
    if len(shape) < 2:
        raise ShapeError(f"batch_norm: needs an input of shape (N, C, ...), not {shape}")
    for name, value in per_channel.items():
        if value is not None and np.shape(value) != shape[1:2]:
            raise ShapeError(
                f"batch_norm: {name} needs one number for each of the {shape[1]} channels of the "
                f"input {shape}, shape {shape[1:2]}, not {np.shape(value)}"
            )
