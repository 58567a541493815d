"""Convolution: the windows of an image written out as columns, times the kernels.

What is computed is, as in every deep learning library, the cross-correlation.
"""

from __future__ import annotations

from typing import Any

from ..engine import ShapeError, Tensor, array_module, primitive
from ..engine.backend import Array
from .windows import (
    Border,
    Pair,
    add_windows,
    also_unbatched,
    blocks,
    check_images,
    count_places,
    extent,
    inside,
    pad,
    pair,
    symmetric,
    windows,
)

__all__ = ["conv2d"]


@also_unbatched
def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
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
    stride = pair("conv2d", "stride", stride, least=1)
    dilation = pair("conv2d", "dilation", dilation, least=1)
    if padding == "same" and stride != (1, 1):
        raise ValueError(f"conv2d: padding='same' needs stride 1, not {stride}: give integers")
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise ValueError(f"conv2d: padding is integers, 'same' or 'valid', not {padding!r}")
    if not isinstance(padding, str):
        padding = pair("conv2d", "padding", padding, least=0)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return _conv2d(input, weight, bias, **options)


@primitive(floats="all")
def _conv2d(x, weight, bias, *, stride, padding, dilation, groups):
    _check_fit(x, weight, bias, groups)
    xp = array_module(x)
    (N, C, H, W), (O, _, R, S), G = x.shape, weight.shape, groups
    border = _border(padding, (R, S), dilation)
    padded_size = H + sum(border[0]), W + sum(border[1])
    places = P, Q = count_places("conv2d", padded_size, (R, S), stride, dilation)
    kernels = weight.reshape(G, O // G, C // G * R * S)
    batch = list(blocks(N, C * R * S * P * Q * x.itemsize))

    def columns(images):
        seen = windows(pad(images, border), (R, S), places, stride, dilation)
        return seen.reshape(len(images), G, C // G * R * S, P * Q)

    y = xp.empty((N, G, O // G, P * Q), dtype=xp.result_type(x, weight))
    for block in batch:
        xp.matmul(kernels, columns(x[block]), out=y[block])
    if bias is not None:
        y += bias.reshape(G, O // G, 1)

    def vjp_x(dy):
        dy = dy.reshape(N, G, O // G, P * Q)
        dx = xp.empty((N, C, H, W), dtype=dy.dtype)
        # With one kernel to a group the product is an outer one, at which matmul is slow.
        product = xp.multiply if O == G else xp.matmul
        for block in batch:
            dcolumns = product(kernels.swapaxes(1, 2), dy[block])
            dpadded = xp.zeros((len(dcolumns), C, *padded_size), dtype=dy.dtype)
            add_windows(dpadded, dcolumns.reshape(-1, C, R, S, P, Q), stride, dilation)
            dx[block] = inside(dpadded, border)
        return dx

    def vjp_weight(dy):
        dy = dy.reshape(N, G, O // G, P * Q)
        dkernels = xp.zeros((G, O // G, C // G * R * S), dtype=dy.dtype)
        for block in batch:
            dkernels += xp.matmul(dy[block], columns(x[block]).swapaxes(2, 3)).sum(axis=0)
        return dkernels.reshape(O, C // G, R, S)

    def vjp_bias(dy):
        return dy.sum(axis=(0, 2, 3))

    return y.reshape(N, O, P, Q), (vjp_x, vjp_weight, vjp_bias)


def _border(padding: Pair | str, kernel: Pair, dilation: Pair) -> Border:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        rows, columns = extent(kernel[0], dilation[0]) - 1, extent(kernel[1], dilation[1]) - 1
        return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
    return symmetric(padding)  # type: ignore[arg-type]


def _check_fit(x: Array, weight: Array, bias: Array | None, groups: int) -> None:
    check_images("conv2d", x)
    if weight.ndim != 4:
        raise ShapeError(
            f"conv2d: the weight needs shape (out channels, in channels / groups, height, width), "
            f"not {weight.shape}"
        )
    C, O, each = x.shape[1], weight.shape[0], weight.shape[1]
    if groups < 1 or C % groups or O % groups:
        raise ShapeError(
            f"conv2d: groups={groups} must divide the {C} channels of the input {x.shape} and "
            f"the {O} kernels of the weight {weight.shape}"
        )
    if each * groups != C:
        raise ShapeError(
            f"conv2d: the input {x.shape} has {C} channels, but kernels {weight.shape} with "
            f"groups={groups} see {each * groups}: give an input of {each * groups} channels or "
            f"a weight of shape {(O, C // groups, *weight.shape[2:])}"
        )
    if bias is not None and bias.shape != (O,):
        raise ShapeError(
            f"conv2d: the bias needs one number for each of {O} kernels, shape ({O},), "
            f"not {bias.shape}"
        )
