"""Unfolding images into the columns that kernels see, and folding columns back into images.

The two are each other's transpose: as the gradient of one, the other is computed.
"""

from __future__ import annotations

import math
from typing import Any

from ..engine import ShapeError, Tensor, array_module, primitive
from ..engine.backend import Array
from .windows import (
    Sizes,
    add_windows,
    also_unbatched,
    by,
    check_images,
    count_places,
    inside,
    pad,
    per_axis,
    symmetric,
    windows,
)

__all__ = ["fold", "unfold"]

Option = int | Sizes


@also_unbatched(2)
def unfold(
    input: Any,
    kernel_size: Option,
    dilation: Option = 1,
    padding: Option = 0,
    stride: Option = 1,
) -> Tensor:
    r"""Write out what a kernel sees at each place as a column (im2col).

    .. math:: y_{n,\,(c,r,s),\,(p,q)} = x_{n,\,c,\,pa+rd,\,qa+sd}

    with stride a and dilation d. A convolution is a matrix product with these columns.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W)
        Images.
    kernel_size : int or (int, int)
        Size (R, S) of the kernel.
    dilation : int or (int, int)
        Step between the taps of the kernel.
    padding : int or (int, int)
        Zeros around the images.
    stride : int or (int, int)
        Step between places.

    Returns
    -------
    (N, C * R * S, L) or (C * R * S, L)
        One column for each of L = P * Q places, row by row.

    Raises
    ------
    ShapeError
        If the kernel is larger than the padded image.
    ValueError
        If an option is out of its range.
    """
    return _unfold(input, **_options("unfold", kernel_size, dilation, padding, stride))


@also_unbatched(1)
def fold(
    input: Any,
    output_size: Option,
    kernel_size: Option,
    dilation: Option = 1,
    padding: Option = 0,
    stride: Option = 1,
) -> Tensor:
    r"""Lay columns down as patches of an image, and add them up where they overlap (col2im).

    .. math:: y_{n,\,c,\,pa+rd,\,qa+sd} \mathrel{+}= x_{n,\,(c,r,s),\,(p,q)}

    for all c, p, q, r, s, with stride a and dilation d. The transpose of `unfold`, not its
    inverse: folding what was unfolded gives each pixel as many times as windows see it.

    Parameters
    ----------
    input : (N, C * R * S, L) or (C * R * S, L)
        One column for each of the L = P * Q places of a kernel, as `unfold` gives them.
    output_size : int or (int, int)
        Size (H, W) of the images.
    kernel_size, dilation, padding, stride
        As in `unfold`; the padding is cut off.

    Returns
    -------
    (N, C, H, W) or (C, H, W)

    Raises
    ------
    ShapeError
        If the columns are not those of an image of this size.
    ValueError
        If an option is out of its range.
    """
    size = per_axis("fold", "output_size", output_size, 2, least=1)
    return _fold(input, size=size, **_options("fold", kernel_size, dilation, padding, stride))


@primitive
def _unfold(x, *, kernel, dilation, padding, stride):
    check_images("unfold", x, 2)
    size = x.shape[2:]
    places = _places("unfold", size, kernel, dilation, padding, stride)
    y = _columns(x, kernel, places, dilation, padding, stride)

    def vjp_x(dy):
        return _images(dy, size, kernel, places, dilation, padding, stride)

    return y, vjp_x


@primitive
def _fold(x, *, size, kernel, dilation, padding, stride):
    places = _places("fold", size, kernel, dilation, padding, stride)
    _check_columns(x, size, kernel, places)
    y = _images(x, size, kernel, places, dilation, padding, stride)

    def vjp_x(dy):
        return _columns(dy, kernel, places, dilation, padding, stride)

    return y, vjp_x


def _columns(x: Array, kernel: Sizes, places: Sizes, dilation: Sizes, padding, stride) -> Array:
    """(N, C, H, W) -> (N, C * R * S, P * Q)."""
    N, C = x.shape[:2]
    seen = windows(pad(x, symmetric(padding)), kernel, places, stride, dilation)
    return seen.reshape(N, C * math.prod(kernel), math.prod(places))


def _images(x: Array, size, kernel: Sizes, places: Sizes, dilation, padding, stride) -> Array:
    """(N, C * R * S, P * Q) -> (N, C, H, W)."""
    N, C = len(x), x.shape[1] // math.prod(kernel)
    padded_size = tuple(n + 2 * p for n, p in zip(size, padding))
    padded = array_module(x).zeros((N, C, *padded_size), dtype=x.dtype)
    add_windows(padded, x.reshape(N, C, *kernel, *places), stride, dilation)
    return inside(padded, symmetric(padding))


def _options(op: str, kernel_size, dilation, padding, stride) -> dict[str, Sizes]:
    return {
        "kernel": per_axis(op, "kernel_size", kernel_size, 2, least=1),
        "dilation": per_axis(op, "dilation", dilation, 2, least=1),
        "padding": per_axis(op, "padding", padding, 2, least=0),
        "stride": per_axis(op, "stride", stride, 2, least=1),
    }


def _places(op: str, size: Sizes, kernel: Sizes, dilation: Sizes, padding, stride) -> Sizes:
    padded_size = tuple(n + 2 * p for n, p in zip(size, padding))
    return count_places(op, padded_size, kernel, stride, dilation)


def _check_columns(x: Array, size: Sizes, kernel: Sizes, places: Sizes) -> None:
    taps, L = math.prod(kernel), math.prod(places)
    if x.ndim != 3:
        raise ShapeError(
            "fold: needs columns of shape (N, C * R * S, L), or those of one image "
            f"(C * R * S, L), not {x.shape}"
        )
    if x.shape[1] % taps:
        raise ShapeError(
            f"fold: columns of {x.shape[1]} numbers {x.shape} are no patches of {by(kernel)} "
            f"pixels: they need {taps} numbers for each channel"
        )
    if x.shape[2] != L:
        raise ShapeError(
            f"fold: a kernel of {by(kernel)} with this stride, padding and dilation has "
            f"{by(places)} = {L} places in an image of {by(size)}, but the input {x.shape} has "
            f"{x.shape[2]} columns: give {L} columns or the output_size they come from"
        )
