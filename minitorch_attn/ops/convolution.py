"""Convolution and its transpose: kernels slide over images, and what they see is summed.

What is computed is, as in every deep learning library, the cross-correlation. How it is computed
stands in `convolution_forms`, where each form knows three products. A convolution's output is
`forward`, its gradients are `grad_input` and `grad_weight`. A transposed convolution goes the way
of a gradient back through a convolution: its output is that one's `grad_input`, its gradients are
`forward` and `grad_weight` with the parts of x and dy exchanged.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from ..engine import ShapeError, Tensor, primitive
from ..engine.backend import Array, on_gpu
from ..engine.dtypes import accumulator
from .arguments import integer
from .convolution_forms import Geometry, choose
from .windows import (
    Border,
    Sizes,
    also_unbatched,
    by,
    check_images,
    count_places,
    extent,
    per_axis,
    symmetric,
)

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]

Option = int | Sizes


@also_unbatched(1)
def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Option = 1,
    padding: Option | str = 0,
    dilation: Option = 1,
    groups: int = 1,
) -> Tensor:
    r"""Slide kernels along sequences and sum the products: `conv2d` with one axis of space.

    .. math:: y_{n,o,p} = b_o + \sum_{c,r} w_{o,c,r}\, x_{n,\,c,\,pa+rd}

    Parameters
    ----------
    input : (N, C, W) or (C, W)
        Sequences.
    weight : (O, C / groups, R)
        One kernel for each of O output channels.
    bias, stride, padding, dilation, groups
        As in `conv2d`.

    Returns
    -------
    (N, O, P) or (O, P)
    """
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


@also_unbatched(2)
def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Option = 1,
    padding: Option | str = 0,
    dilation: Option = 1,
    groups: int = 1,
) -> Tensor:
    r"""Slide kernels over images and sum the products (cross-correlation, as in PyTorch).

    .. math:: y_{n,o,p,q} = b_o + \sum_{c,r,s} w_{o,c,r,s}\, x_{n,\,c,\,pa+rd,\,qa+sd}

    with stride a, dilation d, and c over the channels of o's group.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W)
        Images.
    weight : (O, C / groups, R, S)
        One kernel for each of O output channels.
    bias : (O,), optional
        Added to each output channel.
    stride : int or (int, int)
        Step between places, in rows and columns.
    padding : int, (int, int), "same" or "valid"
        Zeros around the images. "same" keeps H and W (an odd one goes below and to the right)
        and needs stride 1; "valid" is none.
    dilation : int or (int, int)
        Step between the taps of a kernel.
    groups : int
        Cut the channels into groups that do not see one another; C of them is a depthwise
        convolution.

    Returns
    -------
    (N, O, P, Q) or (O, P, Q)
        ``P = (H + 2 * padding - dilation * (R - 1) - 1) // stride + 1``, and Q likewise.

    Raises
    ------
    ShapeError
        If channels, groups and kernels do not fit, or a kernel is larger than the padded image.
    ValueError
        If an option is not one of those above.
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


@also_unbatched(3)
def conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Option = 1,
    padding: Option | str = 0,
    dilation: Option = 1,
    groups: int = 1,
) -> Tensor:
    r"""Slide kernels through volumes and sum the products: `conv2d` with three axes of space.

    Parameters
    ----------
    input : (N, C, D, H, W) or (C, D, H, W)
        Volumes, or images one after another.
    weight : (O, C / groups, depth, R, S)
        One kernel for each of O output channels.
    bias, stride, padding, dilation, groups
        As in `conv2d`; an option has one integer, or three for (depth, height, width).

    Returns
    -------
    (N, O, ...) or (O, ...)
        Each size of space as in `conv2d`.
    """
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups)


@also_unbatched(1)
def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Option = 1,
    padding: Option = 0,
    output_padding: Option = 0,
    groups: int = 1,
    dilation: Option = 1,
) -> Tensor:
    """The transpose of `conv1d`: `conv_transpose2d` with one axis of space.

    Parameters
    ----------
    input : (N, C, W) or (C, W)
    weight : (C, O / groups, R)
    bias, stride, padding, output_padding, groups, dilation
        As in `conv_transpose2d`.

    Returns
    -------
    (N, O, P) or (O, P)
    """
    return _spread(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@also_unbatched(2)
def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Option = 1,
    padding: Option = 0,
    output_padding: Option = 0,
    groups: int = 1,
    dilation: Option = 1,
) -> Tensor:
    r"""Lay a kernel, times the pixel, down at every pixel, and add what overlaps.

    .. math:: y_{n,\,o,\,pa+rd,\,qa+sd} \mathrel{+}= \sum_c w_{c,o,r,s}\, x_{n,c,p,q}

    for all p, q, r, s, with stride a and dilation d. As a matrix this is the transpose of
    `conv2d` with the same weight and options: it computes what `conv2d` sends back as the gradient
    of its input, and with a stride it enlarges images.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W)
        Images.
    weight : (C, O / groups, R, S)
        Kernels; those of a `conv2d` from O channels to C.
    bias : (O,), optional
        Added to each output channel.
    stride : int or (int, int)
        Step in the output from pixel to pixel of the input.
    padding : int or (int, int)
        How much is cut off from every side of the output (what `conv2d` padded).
    output_padding : int or (int, int)
        How much larger than P, Q below the output is, at the bottom and right. Several sizes
        shrink to (H, W) under a `conv2d` with a stride: this says which one is meant. It must be
        smaller than the stride or the dilation.
    groups : int
        Cut the channels into groups that do not see one another.
    dilation : int or (int, int)
        Step between the taps of a kernel.

    Returns
    -------
    (N, O, P, Q) or (O, P, Q)
        ``P = (H - 1) * stride - 2 * padding + dilation * (R - 1) + output_padding + 1``, and Q
        likewise.

    Raises
    ------
    ShapeError
        If channels, groups and kernels do not fit, or the padding cuts everything off.
    ValueError
        If an option is not one of those above.

    References
    ----------
    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016), section 4.
    """
    return _spread(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@also_unbatched(3)
def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Option = 1,
    padding: Option = 0,
    output_padding: Option = 0,
    groups: int = 1,
    dilation: Option = 1,
) -> Tensor:
    """The transpose of `conv3d`: `conv_transpose2d` with three axes of space.

    Parameters
    ----------
    input : (N, C, D, H, W) or (C, D, H, W)
    weight : (C, O / groups, depth, R, S)
    bias, stride, padding, output_padding, groups, dilation
        As in `conv_transpose2d`; an option has one integer, or three for (depth, height, width).

    Returns
    -------
    (N, O, ...) or (O, ...)
        Each size of space as in `conv_transpose2d`.
    """
    return _spread(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def _convolve(dims, input, weight, bias, stride, padding, dilation, groups) -> Tensor:
    op = f"conv{dims}d"
    stride = per_axis(op, "stride", stride, dims, least=1)
    return _CONVOLUTIONS[dims](
        input,
        weight,
        bias,
        stride=stride,
        padding=padding_option(op, padding, stride),
        dilation=per_axis(op, "dilation", dilation, dims, least=1),
        groups=integer(op, "groups", groups, least=1),
    )


def _spread(dims, input, weight, bias, stride, padding, output_padding, groups, dilation) -> Tensor:
    op = f"conv_transpose{dims}d"
    stride = per_axis(op, "stride", stride, dims, least=1)
    dilation = per_axis(op, "dilation", dilation, dims, least=1)
    output_padding = per_axis(op, "output_padding", output_padding, dims, least=0)
    if any(n >= max(steps) for n, *steps in zip(output_padding, stride, dilation)):
        raise ValueError(
            f"{op}: output_padding={output_padding} must be smaller than the stride {stride} or "
            f"the dilation {dilation} along each axis"
        )
    return _TRANSPOSED_CONVOLUTIONS[dims](
        input,
        weight,
        bias,
        stride=stride,
        padding=per_axis(op, "padding", padding, dims, least=0),
        output_padding=output_padding,
        dilation=dilation,
        groups=integer(op, "groups", groups, least=1),
    )


def _convolution(op: str) -> Callable[..., Tensor]:
    """The primitive under the name that errors and graphs show."""

    def convolution(x, weight, bias, *, stride, padding, dilation, groups):
        g = _fit(op, x, weight, stride, padding, dilation, groups)
        _check_bias(op, bias, g.O)
        form = choose(g, on_gpu(x))
        y = _with_bias(form.forward, x, weight, g, bias)

        def vjp_x(dy):
            return form.grad_input(dy, weight, g)

        def vjp_weight(dy):
            return form.grad_weight(dy, x, g)

        return y, (vjp_x, vjp_weight, _sum_of_channels)

    convolution.__name__ = op
    return primitive(floats="all", takes_half=True)(convolution)


def _transposed_convolution(op: str) -> Callable[..., Tensor]:
    """The primitive that runs a convolution from images of y's shape to x's shape backwards."""

    def transposed_convolution(
        x, weight, bias, *, stride, padding, output_padding, dilation, groups
    ):
        g = _fit_transposed(op, x, weight, stride, padding, output_padding, dilation, groups)
        _check_bias(op, bias, g.C)
        form = choose(g, on_gpu(x))
        y = _with_bias(form.grad_input, x, weight, g, bias)

        def vjp_x(dy):
            return form.forward(dy, weight, g)

        def vjp_weight(dy):
            return form.grad_weight(x, dy, g)

        return y, (vjp_x, vjp_weight, _sum_of_channels)

    transposed_convolution.__name__ = op
    return primitive(floats="all", takes_half=True)(transposed_convolution)


_CONVOLUTIONS = {dims: _convolution(f"conv{dims}d") for dims in (1, 2, 3)}
_TRANSPOSED_CONVOLUTIONS = {
    dims: _transposed_convolution(f"conv_transpose{dims}d") for dims in (1, 2, 3)
}


def _check_bias(op: str, bias: Array | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(
            f"{op}: the bias needs one number for each of {channels} kernels, "
            f"shape ({channels},), not {bias.shape}"
        )


def _with_bias(product: Callable[..., Array], x: Array, weight: Array, g, bias) -> Array:
    """A product with a number added to each channel: in place, on a GPU while it is written."""
    if on_gpu(x):
        return product(x, weight, g, bias)
    y = product(x, weight, g)
    if bias is not None:
        y += bias.reshape(-1, *(1,) * (y.ndim - 2))
    return y


def _sum_of_channels(dy: Array) -> Array:
    """The gradient of a bias: (N, O, P, Q) -> (O,)."""
    return dy.sum(axis=(0, *range(2, dy.ndim)), dtype=accumulator(dy.dtype))


def _fit(op, x: Array, weight: Array, stride, padding, dilation, groups: int) -> Geometry:
    """The geometry of a convolution, once it is known that its parts fit together."""
    check_images(op, x, len(stride))
    _check_weight(op, "(out channels, in channels / groups, {})", x, weight)
    (N, C, *size), (O, seen, *kernel) = x.shape, weight.shape
    if C % groups or O % groups:
        raise ShapeError(
            f"{op}: groups={groups} must divide the {C} channels of the input {x.shape} and "
            f"the {O} kernels of the weight {weight.shape}"
        )
    if seen * groups != C:
        raise ShapeError(
            f"{op}: the input {x.shape} has {C} channels, but kernels {weight.shape} with "
            f"groups={groups} see {seen * groups}: give an input of {seen * groups} channels or "
            f"a weight of shape {(O, C // groups, *kernel)}"
        )
    border = border_of(padding, kernel, dilation)
    padded = tuple(n + sum(added) for n, added in zip(size, border))
    places = count_places(op, padded, tuple(kernel), stride, dilation)
    return Geometry(N, C, O, groups, tuple(size), tuple(kernel), places, stride, dilation, border)


def _fit_transposed(
    op, x: Array, weight: Array, stride, padding, output_padding, dilation, groups: int
) -> Geometry:
    """The geometry of the convolution that leads from y's shape to x's shape."""
    check_images(op, x, len(stride))
    _check_weight(op, "(in channels, out channels / groups, {})", x, weight)
    (N, C, *places), (taken, each, *kernel) = x.shape, weight.shape
    if C % groups:
        raise ShapeError(
            f"{op}: groups={groups} must divide the {C} channels of the input {x.shape}"
        )
    if taken != C:
        raise ShapeError(
            f"{op}: the input {x.shape} has {C} channels, but the weight {weight.shape} takes "
            f"{taken}: give an input of {taken} channels or a weight of shape {(C, each, *kernel)}"
        )
    smallest = smallest_output(places, kernel, stride, padding, dilation)
    size = tuple(map(operator.add, smallest, output_padding))
    if min(size) < 1:
        raise ShapeError(
            f"{op}: of an image of {by(places)} under a kernel of {by(kernel)} nothing is left "
            f"({by(size)}) once padding={padding} is cut off from every side: use less padding"
        )
    return Geometry(
        N,
        each * groups,
        C,
        groups,
        size,
        tuple(kernel),
        tuple(places),
        stride,
        dilation,
        symmetric(padding),
    )


def smallest_output(
    image: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Sizes:
    """The size that a transposed convolution gives an image without output padding."""
    return tuple(
        (n - 1) * step + extent(taps, d) - 2 * cut
        for n, step, taps, d, cut in zip(image, stride, kernel, dilation, padding)
    )


def padding_option(op: str, padding: Any, stride: Sizes) -> Sizes | str:
    """A convolution's padding: one integer for each axis of space, "same" or "valid".

    Raises
    ------
    ValueError
        If it is none of these, or "same" with a stride.
    """
    if not isinstance(padding, str):
        return per_axis(op, "padding", padding, len(stride), least=0)
    if padding not in ("same", "valid"):
        raise ValueError(f"{op}: padding is integers, 'same' or 'valid', not {padding!r}")
    if padding == "same" and max(stride) > 1:
        raise ValueError(f"{op}: padding='same' needs stride 1, not {stride}: give integers")
    return padding


def border_of(padding: Sizes | str, kernel: Sizes, dilation: Sizes) -> Border:
    """What a padding adds before and after, along each axis of space."""
    if padding == "valid":
        return symmetric((0,) * len(kernel))
    if padding == "same":
        added = (extent(taps, d) - 1 for taps, d in zip(kernel, dilation))
        return tuple((n // 2, n - n // 2) for n in added)
    return symmetric(padding)  # type: ignore[arg-type]


def _check_weight(op: str, needed: str, x: Array, weight: Array) -> None:
    if weight.ndim != x.ndim:
        axes = {3: "width", 4: "height, width", 5: "depth, height, width"}[x.ndim]
        raise ShapeError(f"{op}: the weight needs shape {needed.format(axes)}, not {weight.shape}")
