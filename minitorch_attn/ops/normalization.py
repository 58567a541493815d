r"""Normalisation: a scale and a shift that give values a mean of 0 and a variance of 1.

With :math:`\hat x = (x - \mu)\, r`, :math:`r = 1 / \sqrt{\sigma^2 + \epsilon}`, where mean and
variance are taken over m values, the gradient of those values is

.. math:: dx = r \left(d\hat x - \overline{d\hat x} - \hat x\, \overline{d\hat x\, \hat x}\right),

the incoming gradient without its mean and without its part along :math:`\hat x`: a change of the
values that only shifts or scales them changes nothing behind the normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine import ShapeError, Tensor, array_module, primitive
from ..engine.backend import Array, on_gpu
from ..engine.devices import common_device
from ..engine.tensor import operand
from . import normalization_kernels as kernels
from .arguments import integer, integers

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm"]


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
    per_channel = {
        "running_mean": running_mean,
        "running_var": running_var,
        "weight": weight,
        "bias": bias,
    }
    _check_channels("batch_norm", input, **per_channel)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError(
                "batch_norm: without training it needs running_mean and running_var (a layer that "
                "tracks no running statistics always normalises by the batch: training=True)"
            )
        return _standardise(input, weight, bias, mean=running_mean, variance=running_var, eps=eps)
    x, running = operand(input), _running("batch_norm", input, running_mean, running_var)
    seen: list[tuple[Array, Array]] = []
    y = _batch_norm(x, weight, bias, eps=eps, observe=seen.append)
    N, _, *positions = x.shape
    _move(running, *seen[0], N * math.prod(positions), momentum)
    return y


@primitive(floats="first", takes_half=True)
def _batch_norm(x, weight, bias, *, eps, observe):
    """By the batch's own mean and variance (C,), which `observe` is given."""
    images = _Images(x)
    count = x.size // max(x.shape[1], 1)
    if count == 1:
        raise ValueError(
            f"batch_norm: training needs more than one value per channel, and the input {x.shape} "
            "has one: take a larger batch, or use the running statistics (eval() of a layer)"
        )
    if on_gpu(x):
        x = array_module(x).ascontiguousarray(x)
        moments = kernels.moments_of_batch(x)
        y, rules, statistics = kernels.batch_norm(x, weight, bias, moments, False, eps)
        observe(statistics)
        return y, rules
    m = max(count, 1)  # of no values the moments are 0
    x = images.rows(x)
    mean = images.sum(x) / m
    z = x - images.spread(mean)  # kept instead of x: no rule needs x itself
    variance = images.sum_of_products(z, z) / m
    observe((mean, variance))
    scale = 1 / array_module(x).sqrt(variance + eps)
    slope = scale if weight is None else scale * _cast(weight, x)
    y = z * images.spread(slope)
    if bias is not None:
        y += images.spread(_cast(bias, x))

    def vjp_x(dy):
        dy = images.rows(dy)
        along = images.sum_of_products(dy, z)
        # dx = slope (dy - mean(dy) - z scale^2 mean(dy z)), in place
        dx = z * images.spread(-scale * scale * along / m)
        dx += dy
        dx -= images.spread(images.sum(dy) / m)
        dx *= images.spread(slope)
        return images.like_input(dx)

    def vjp_weight(dy):
        return images.sum_of_products(images.rows(dy), z) * scale

    def vjp_bias(dy):
        return images.sum(images.rows(dy))

    return images.like_input(y), (vjp_x, vjp_weight, vjp_bias)


@primitive(floats="first", takes_half=True)
def _standardise(x, weight, bias, *, mean, variance, eps):
    """Channels standardised by constants, then scaled and shifted."""
    if on_gpu(x):
        moments = kernels.moments_of_constants(mean, variance, x.dtype)
        x = array_module(x).ascontiguousarray(x)
        return kernels.batch_norm(x, weight, bias, moments, True, eps)[:2]
    images = _Images(x)
    x = images.rows(x)
    mean, variance = _cast(mean, x), _cast(variance, x)
    scale = 1 / array_module(x).sqrt(variance + eps)
    slope = images.spread(scale if weight is None else scale * _cast(weight, x))
    y = x * slope
    y -= images.spread(mean) * slope
    if bias is not None:
        y += images.spread(_cast(bias, x))

    def vjp_x(dy):
        return images.like_input(images.rows(dy) * slope)

    def vjp_weight(dy):
        return images.sum_of_products(images.rows(dy), x - images.spread(mean)) * scale

    def vjp_bias(dy):
        return images.sum(images.rows(dy))

    return images.like_input(y), (vjp_x, vjp_weight, vjp_bias)


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
    ValueError
        If `normalized_shape` is not made of integers.

    References
    ----------
    Ba, Kiros and Hinton, "Layer Normalization" (2016), section 3.
    """
    x, sizes = operand(input), integers("layer_norm", "normalized_shape", normalized_shape)
    if not sizes or x.shape[-len(sizes) :] != sizes:
        raise ShapeError(
            f"layer_norm: the last axes of the input {x.shape} must be normalized_shape={sizes}"
        )
    for name, value in {"weight": weight, "bias": bias}.items():
        if value is not None and np.shape(value) != sizes:
            raise ShapeError(
                f"layer_norm: the {name} must have the shape {sizes} of normalized_shape, "
                f"not {np.shape(value)}"
            )
    samples = math.prod(x.shape[: -len(sizes)])
    return _layer_norm(x, weight, bias, groups=(samples, 1, math.prod(sizes), 1), eps=eps)


def instance_norm(
    input: Any,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""Normalise each channel of each example over its positions.

    .. math:: y = \gamma \frac{x - \mu_{n,c}}{\sqrt{\sigma_{n,c}^2 + \epsilon}} + \beta

    Parameters
    ----------
    input : (N, C, ...)
    running_mean, running_var : Tensor (C,) or None
        Moved in place, as in `batch_norm`, towards the mean over the batch of what each example
        has; used as constants if `use_input_stats` is False.
    weight, bias : (C,), optional
        Scale gamma and shift beta of each channel; 1 and 0 if left out.
    use_input_stats : bool
        Whether to normalise by what the input itself has.
    momentum : float
        How far the running statistics move.
    eps : float
        Added to the variance.

    Returns
    -------
    (N, C, ...)

    Raises
    ------
    ShapeError
        If sizes do not fit.
    ValueError
        If an example has one value per channel (its variance is 0), or the running statistics
        are missing where they are used.

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky, "Instance Normalization" (2016), equation 2.
    """
    per_channel = {
        "running_mean": running_mean,
        "running_var": running_var,
        "weight": weight,
        "bias": bias,
    }
    _check_channels("instance_norm", input, **per_channel)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ValueError(
                "instance_norm: with use_input_stats=False it needs running_mean and running_var"
            )
        return _standardise(input, weight, bias, mean=running_mean, variance=running_var, eps=eps)
    x = operand(input)
    N, C, *positions = x.shape
    count = math.prod(positions)
    if count == 1:
        raise ValueError(
            "instance_norm: needs more than one value per channel of each example, and the input "
            f"{x.shape} has one: take larger images, or batch_norm"
        )
    running = _running("instance_norm", input, running_mean, running_var)
    seen: list[tuple[Array, Array]] = []
    y = _instance_norm(x, weight, bias, groups=(N, C, 1, count), eps=eps, observe=seen.append)
    if running and N > 0:
        mean, variance = (of_each.reshape(N, C).mean(axis=0) for of_each in seen[0])
        _move(running, mean, variance, count, momentum)
    return y


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    r"""Normalise each group of channels of each example over its channels and positions.

    .. math:: y = \gamma \frac{x - \mu_{n,g}}{\sqrt{\sigma_{n,g}^2 + \epsilon}} + \beta

    Parameters
    ----------
    input : (N, C, ...)
    num_groups : int
        G, which divides C: group g holds the C / G channels from g C / G on.
    weight, bias : (C,), optional
        Scale gamma and shift beta of each channel; 1 and 0 if left out.
    eps : float
        Added to the variance.

    Returns
    -------
    (N, C, ...)

    Raises
    ------
    ShapeError
        If sizes do not fit.
    ValueError
        If `num_groups` is below 1.

    References
    ----------
    Wu and He, "Group Normalization" (2018), equations 1 to 4.
    """
    _check_channels("group_norm", input, weight=weight, bias=bias)
    x = operand(input)
    N, C, *positions = x.shape
    num_groups = integer("group_norm", "num_groups", num_groups, least=1)
    if C % num_groups:
        raise ShapeError(
            f"group_norm: num_groups={num_groups} does not divide the {C} channels of the input "
            f"{x.shape}"
        )
    groups = N, num_groups, C // num_groups, math.prod(positions)
    return _group_norm(x, weight, bias, groups=groups, eps=eps)


def _of_groups(op: str) -> Callable[..., Tensor]:
    """The primitive that standardises groups of channels, under the name that graphs show.

    An input holds N G groups of C / G channels at L positions. For a layer norm a sample is one
    group, each of its D features a channel, at one position; for an instance norm each channel is
    a group.
    """

    def normalization(x, weight, bias, *, groups, eps, observe=None):
        xp, shape, (N, G, channels, L) = array_module(x), x.shape, groups
        if on_gpu(x):
            x = xp.ascontiguousarray(x)
            y, rules, statistics = kernels.group_norm(x, weight, bias, groups, eps)
            if observe is not None:
                observe(statistics)
            return y, rules
        m, C = channels * L, G * channels
        count = max(m, 1)
        x = x.reshape(N * G, m)
        # Sums are products with ones: so BLAS takes them, several times quicker than sum().
        along, across = xp.ones(m, x.dtype), xp.ones(N, x.dtype)
        mean = x @ along / count
        z = x - mean[:, None]  # kept instead of x: no rule needs x itself
        variance = _dots(z, z) / count
        if observe is not None:
            observe((mean, variance))
        scale = 1 / xp.sqrt(variance + eps)
        gamma, shapes = _cast(weight, x), (np.shape(weight), np.shape(bias))

        def scaled(values):
            """Values of all groups times 1 / sigma and gamma."""
            if gamma is None:
                return values * scale[:, None]
            slope = xp.einsum("ng,gc->ngc", scale.reshape(N, G), gamma.reshape(G, channels))
            return (values.reshape(N, G, channels, L) * slope[..., None]).reshape(N * G, m)

        def per_channel(of_positions):
            """The sums over L, (C * L,) -> (C,)."""
            return of_positions.reshape(C, L).sum(axis=1)

        y = scaled(z)
        if bias is not None:
            beta = _cast(bias, x)
            y = y.reshape(N, C * L)
            y += beta if L == 1 else beta.repeat(L)

        def vjp_x(dy):
            # dx = dz - mean(dz) - z scale^2 mean(dz z) with dz = dy gamma scale
            dz = scaled(dy.reshape(N * G, m))
            dx = z * (-scale * scale * _dots(dz, z) / count)[:, None]
            dx += dz
            dx -= (dz @ along / count)[:, None]
            return dx.reshape(shape)

        def vjp_weight(dy):
            products = (dy.reshape(z.shape) * z).reshape(N, G, m)
            sums = scale.reshape(N, G).T[:, None] @ products.swapaxes(0, 1)  # over N: (G, 1, m)
            return per_channel(sums).reshape(shapes[0])

        def vjp_bias(dy):
            return per_channel(across @ dy.reshape(N, C * L)).reshape(shapes[1])

        return y.reshape(shape), (vjp_x, vjp_weight, vjp_bias)

    normalization.__name__ = op
    return primitive(floats="first", takes_half=True)(normalization)


_layer_norm, _instance_norm, _group_norm = map(
    _of_groups, ("layer_norm", "instance_norm", "group_norm")
)


def _dots(a: Array, b: Array) -> Array:
    """The dot product of each row of a with that row of b: (M, m), (M, m) -> (M,)."""
    return (a[:, None] @ b[..., None])[:, 0, 0]


@primitive(floats="all")
def local_response_norm(x, *, size, alpha=1e-4, beta=0.75, k=1.0):
    r"""Each value divided by a power of the mean square of its neighbours in channel.

    .. math:: y_c = x_c\, d_c^{-\beta}, \qquad d_c = k + \frac{\alpha}{n} \sum_{j} x_j^2

    with j from c - n // 2 on, n = `size` channels; those that do not exist count as 0.

    Parameters
    ----------
    x : (N, C, ...) with at least one axis of positions
    size : int
        How many neighbouring channels n are looked at, the value's own included.
    alpha, beta, k : float

    Returns
    -------
    (N, C, ...)

    Raises
    ------
    ShapeError
        If the input has fewer than three axes.
    ValueError
        If `size` is below 1.

    References
    ----------
    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural
    Networks" (2012), section 3.3; there alpha is not divided by n.
    """
    if x.ndim < 3:
        raise ShapeError(f"local_response_norm: needs an input (N, C, L, ...), not {x.shape}")
    size = integer("local_response_norm", "size", size, least=1)
    before, after = size // 2, (size - 1) // 2
    d = k + alpha / size * _sum_of_neighbours(np.square(x), before, after)
    factor = d**-beta

    def vjp_x(dy):
        along = _sum_of_neighbours(dy * x * factor / d, after, before)
        return dy * factor - (2 * alpha * beta / size) * x * along

    return x * factor, vjp_x


def _sum_of_neighbours(x: Array, before: int, after: int) -> Array:
    """For each channel c the sum of the channels c - before to c + after of (N, C, ...)."""
    C, total = x.shape[1], x.copy()
    for step in range(1, min(before, C - 1) + 1):
        total[:, step:] += x[:, :-step]
    for step in range(1, min(after, C - 1) + 1):
        total[:, :-step] += x[:, step:]
    return total


class _Images:
    """An input (N, C, ...) as N rows, one an image, in the order that memory holds it in.

    That order is channels first, or channels last where the input is a view of such memory: results
    then have the same layout. What is one number per channel is written out over a row once.
    So every pass is one NumPy call with long rows, which is quickest, whichever the layout.
    """

    def __init__(self, x: Array):
        N, C, *positions = x.shape
        self.shape, self.xp, self.dtype = x.shape, array_module(x), x.dtype
        self.channels_last = np.moveaxis(x, 1, -1).flags.c_contiguous and not x.flags.c_contiguous
        self.C, self.L = C, math.prod(positions)
        self.ones = self.xp.ones(N, x.dtype)

    def rows(self, x: Array) -> Array:
        """(N, C, ...) -> (N, C * L)."""
        x = np.moveaxis(x, 1, -1) if self.channels_last else x
        return x.reshape(len(x), self.C * self.L)

    def like_input(self, rows: Array) -> Array:
        """The inverse of `rows`."""
        if not self.channels_last:
            return rows.reshape(self.shape)
        N, C, *positions = self.shape
        return np.moveaxis(rows.reshape(N, *positions, C), -1, 1)

    def spread(self, per_channel: Array) -> Array:
        """(C,) -> (C * L,), each number at all positions of its channel."""
        if self.channels_last:
            return np.tile(per_channel, self.L)
        return np.repeat(per_channel, self.L)

    def sum(self, rows: Array) -> Array:
        """Sum of each channel, (C,): over the batch by a product with ones, as BLAS is quickest."""
        return self._over_positions(self.ones @ rows)

    def sum_of_products(self, a: Array, b: Array) -> Array:
        """Sum of a * b of each channel, (C,), without an array of the products."""
        return self._over_positions(self.xp.einsum("np,np->p", a, b))

    def _over_positions(self, row: Array) -> Array:
        if self.channels_last:
            return row.reshape(self.L, self.C).sum(axis=0)
        return row.reshape(self.C, self.L).sum(axis=1)


def _running(op: str, input: Any, *statistics: Tensor | None) -> list[tuple[int, Tensor]]:
    """The running statistics that are kept: the mean as number 0, the variance as number 1."""
    for name, running in zip(("running_mean", "running_var"), statistics):
        if running is not None and not isinstance(running, Tensor):
            raise TypeError(f"{op}: training updates {name}, so it must be a tensor")
        common_device(op, {"input": input, name: running})
    return [(i, running) for i, running in enumerate(statistics) if running is not None]


def _move(
    running: list[tuple[int, Tensor]], mean: Array, variance: Array, count: int, momentum: float
) -> None:
    """Move running statistics towards those of a batch of `count` values each."""
    if count == 0:
        return
    batch, unbiased = (mean, variance), (1.0, count / (count - 1))
    for i, statistic in running:
        # New values, not a write in place: that would make the reverse pass look through all that
        # was recorded before it.
        statistic.data = _moved(statistic.data, batch[i], momentum, unbiased[i])


def _moved(running: Array, batch: Array, momentum: float, factor: float) -> Array:
    """Running values moved towards `factor` times those of a batch, in their own dtype."""
    if on_gpu(running):
        return kernels.moved(running, batch, momentum=momentum, correction=factor)
    moved = (1 - momentum) * running + momentum * (factor * batch)
    return moved.astype(running.dtype, copy=False)


def _cast(parameter: Array | None, x: Array) -> Any:
    """A parameter in the dtype of x, flat; None if it was left out."""
    return None if parameter is None else parameter.reshape(-1).astype(x.dtype, copy=False)


def _check_channels(op: str, input: Any, **per_channel: Any) -> None:
    shape = np.shape(input)
    if len(shape) < 2:
        raise ShapeError(f"{op}: needs an input of shape (N, C, ...), not {shape}")
    for name, value in per_channel.items():
        if value is not None and np.shape(value) != shape[1:2]:
            raise ShapeError(
                f"{op}: {name} needs one number for each of the {shape[1]} channels of the "
                f"input {shape}, shape {shape[1:2]}, not {np.shape(value)}"
            )
