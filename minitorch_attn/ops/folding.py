"""Unfolding images into the columns that kernels see, and folding columns back into images.

The two are each other's transpose: as the gradient of one, the other is computed. On a GPU both are
kernels with a thread for each element of the result, which gathers what belongs there.
"""

from __future__ import annotations

import math
from typing import Any

from ..engine import ShapeError, Tensor, array_module, primitive
from ..engine.backend import Array
from ..engine.kernels import FLOATS, Kernel
from .pooling_windows import WINDOWS, Windows, has_kernels
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

TO_COLUMNS = Kernel(
    "to_columns",
    WINDOWS
    + r"""
// x (planes, H, W) -> columns (planes, R, S, P, Q)
extern "C" __global__ void to_columns(const T* x, T* columns, long long n,
                                      AXIS(d), AXIS(h), AXIS(w)) {
    Along H = ALONG(h), W = ALONG(w);
    FOR_EACH(i, n) {
        Spot place = spot(i, W.taps, H.places, W.places);  // of tap s = place.d
        int row = place.h * H.stride - H.padding + place.plane % H.taps * H.dilation;
        int column = place.w * W.stride - W.padding + place.d * W.dilation;
        bool inside = 0 <= row && row < H.size && 0 <= column && column < W.size;
        long long plane = place.plane / H.taps;
        columns[i] = inside ? x[(plane * H.size + row) * W.size + column] : T(acc_t(0));
    }
}
""",
    [{"T": t} for t in FLOATS],
)

TO_IMAGES = Kernel(
    "to_images",
    WINDOWS
    + r"""
// columns (planes, R, S, P, Q) -> x (planes, H, W)
extern "C" __global__ void to_images(const T* columns, T* x, long long n,
                                     AXIS(d), AXIS(h), AXIS(w)) {
    Along H = ALONG(h), W = ALONG(w);
    FOR_EACH(i, n) {
        Spot pixel = spot(i, 1, H.size, W.size);
        acc_t sum = 0;
        for (int r = 0; r < H.taps; ++r) {
            int p = H.place(pixel.h, r);
            if (p < 0) continue;
            for (int s = 0; s < W.taps; ++s) {
                int q = W.place(pixel.w, s);
                if (q < 0) continue;
                long long tap = (pixel.plane * H.taps + r) * W.taps + s;
                sum += acc_t(columns[(tap * H.places + p) * W.places + q]);
            }
        }
        x[i] = T(sum);
    }
}
""",
    [{"T": t} for t in FLOATS],
)


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


@primitive(floats="half", takes_half=True)
def _unfold(x, *, kernel, dilation, padding, stride):
    check_images("unfold", x, 2)
    patches = _Patches("unfold", x.shape[2:], kernel, dilation, padding, stride)
    return patches.to_columns(x), patches.to_images


@primitive(floats="half", takes_half=True)
def _fold(x, *, size, kernel, dilation, padding, stride):
    patches = _Patches("fold", size, kernel, dilation, padding, stride)
    _check_columns(x, patches)
    return patches.to_images(x), patches.to_columns


class _Patches:
    """What a kernel sees in images of one size: as columns, or added up to images."""

    def __init__(self, op: str, size: Sizes, kernel: Sizes, dilation: Sizes, padding, stride):
        self.size, self.kernel, self.dilation, self.stride = size, kernel, dilation, stride
        self.border = symmetric(padding)
        self.padded_size = tuple(n + 2 * p for n, p in zip(size, padding))
        self.places = count_places(op, self.padded_size, kernel, stride, dilation)
        self.numbers = Windows(size, kernel, stride, padding, dilation, self.places).numbers

    def to_columns(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C * R * S, P * Q)."""
        N, C = x.shape[:2]
        shape = (N, C * math.prod(self.kernel), math.prod(self.places))
        if has_kernels(x):
            return _gather(TO_COLUMNS, x, shape, self.numbers)
        seen = windows(pad(x, self.border), self.kernel, self.places, self.stride, self.dilation)
        return seen.copy().reshape(shape)

    def to_images(self, columns: Array) -> Array:
        """(N, C * R * S, P * Q) -> (N, C, H, W): the transpose of `to_columns`."""
        N, C = len(columns), columns.shape[1] // math.prod(self.kernel)
        if has_kernels(columns):
            return _gather(TO_IMAGES, columns, (N, C, *self.size), self.numbers)
        padded = array_module(columns).zeros((N, C, *self.padded_size), dtype=columns.dtype)
        patches = columns.reshape(N, C, *self.kernel, *self.places)
        add_windows(padded, patches, self.stride, self.dilation)
        return inside(padded, self.border)


def _gather(kernel: Kernel, x: Array, shape: Sizes, numbers: Sizes) -> Array:
    xp = array_module(x)
    y, x = xp.empty(shape, x.dtype), xp.ascontiguousarray(x)
    kernel.over(y.size, x, y, y.size, *numbers, T=x.dtype)
    return y


def _options(op: str, kernel_size, dilation, padding, stride) -> dict[str, Sizes]:
    return {
        "kernel": per_axis(op, "kernel_size", kernel_size, 2, least=1),
        "dilation": per_axis(op, "dilation", dilation, 2, least=1),
        "padding": per_axis(op, "padding", padding, 2, least=0),
        "stride": per_axis(op, "stride", stride, 2, least=1),
    }


def _check_columns(x: Array, patches: _Patches) -> None:
    taps, L = math.prod(patches.kernel), math.prod(patches.places)
    if x.ndim != 3:
        raise ShapeError(
            "fold: needs columns of shape (N, C * R * S, L), or those of one image "
            f"(C * R * S, L), not {x.shape}"
        )
    if x.shape[1] % taps:
        raise ShapeError(
            f"fold: columns of {x.shape[1]} numbers {x.shape} are no patches of "
            f"{by(patches.kernel)} pixels: they need {taps} numbers for each channel"
        )
    if x.shape[2] != L:
        raise ShapeError(
            f"fold: a kernel of {by(patches.kernel)} with this stride, padding and dilation has "
            f"{by(patches.places)} = {L} places in an image of {by(patches.size)}, but the input "
            f"{x.shape} has {x.shape[2]} columns: give {L} columns or the output_size they come "
            "from"
        )
