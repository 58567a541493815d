"""Convolution: kernels slide over images, and what they see is multiplied and summed.

What is computed is, as in every deep learning library, the cross-correlation. How it is computed
stands in `convolution_forms`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..engine import ShapeError, Tensor, primitive
from ..engine.backend import Array
from .convolution_forms import Geometry, choose
from .windows import (
    Border,
    Sizes,
    also_unbatched,
    check_images,
    count_places,
    extent,
    per_axis,
    symmetric,
)

__all__ = ["conv2d"]


@also_unbatched(2)
def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: int | Sizes = 1,
    padding: int | Sizes | str = 0,
    dilation: int | Sizes = 1,
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


def _convolve(dims, input, weight, bias, stride, padding, dilation, groups) -> Tensor:
    op = f"conv{dims}d"
    stride = per_axis(op, "stride", stride, dims, least=1)
    dilation = per_axis(op, "dilation", dilation, dims, least=1)
    if padding == "same" and max(stride) > 1:
        raise ValueError(f"{op}: padding='same' needs stride 1, not {stride}: give integers")
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise ValueError(f"{op}: padding is integers, 'same' or 'valid', not {padding!r}")
    if not isinstance(padding, str):
        padding = per_axis(op, "padding", padding, dims, least=0)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return _CONVOLUTIONS[dims](input, weight, bias, **options)


def _convolution(op: str) -> Callable[..., Tensor]:
    """The primitive under the name that errors and graphs show."""

    def convolution(x, weight, bias, *, stride, padding, dilation, groups):
        g = _fit(op, x, weight, stride, padding, dilation, groups)
        _check_bias(op, bias, g.O)
        form = choose(g)
        y = form.forward(x, weight, g)
        if bias is not None:
            y += bias.reshape(g.O, *(1,) * len(g.size))

        def vjp_x(dy):
            return form.grad_input(dy, weight, g)

        def vjp_weight(dy):
            return form.grad_weight(dy, x, g)

        def vjp_bias(dy):
            return dy.sum(axis=(0, *range(2, dy.ndim)))

        return y, (vjp_x, vjp_weight, vjp_bias)

    convolution.__name__ = op
    return primitive(floats="all")(convolution)


_CONVOLUTIONS = {dims: _convolution(f"conv{dims}d") for dims in (1, 2, 3)}


def _fit(op, x: Array, weight: Array, stride, padding, dilation, groups: int) -> Geometry:
    """The geometry of a convolution, once it is known that its parts fit together."""
    dims = len(stride)
    check_images(op, x, dims)
    _check_channels(op, x, weight, groups)
    (N, C, *size), (O, _, *kernel) = x.shape, weight.shape
    size, kernel = tuple(size), tuple(kernel)
    border = _border(padding, kernel, dilation)
    padded = tuple(n + sum(added) for n, added in zip(size, border))
    places = count_places(op, padded, kernel, stride, dilation)
    return Geometry(N, C, O, groups, size, kernel, places, stride, dilation, border)


def _border(padding: Sizes | str, kernel: Sizes, dilation: Sizes) -> Border:
    if padding == "valid":
        return symmetric((0,) * len(kernel))
    if padding == "same":
        added = (extent(taps, d) - 1 for taps, d in zip(kernel, dilation))
        return tuple((n // 2, n - n // 2) for n in added)
    return symmetric(padding)  # type: ignore[arg-type]


def _check_channels(op: str, x: Array, weight: Array, groups: int) -> None:
    if weight.ndim != x.ndim:
        axes = {3: "width", 4: "height, width", 5: "depth, height, width"}[x.ndim]
        raise ShapeError(
            f"{op}: the weight needs shape (out channels, in channels / groups, {axes}), "
            f"not {weight.shape}"
        )
    C, O, each = x.shape[1], weight.shape[0], weight.shape[1]
    if groups < 1 or C % groups or O % groups:
        raise ShapeError(
            f"{op}: groups={groups} must divide the {C} channels of the input {x.shape} and "
            f"the {O} kernels of the weight {weight.shape}"
        )
    if each * groups != C:
        raise ShapeError(
            f"{op}: the input {x.shape} has {C} channels, but kernels {weight.shape} with "
            f"groups={groups} see {each * groups}: give an input of {each * groups} channels or "
            f"a weight of shape {(O, C // groups, *weight.shape[2:])}"
        )


def _check_bias(op: str, bias: Array | None, O: int) -> None:
    if bias is not None and bias.shape != (O,):
        raise ShapeError(
            f"{op}: the bias needs one number for each of {O} kernels, shape ({O},), "
            f"not {bias.shape}"
        )
