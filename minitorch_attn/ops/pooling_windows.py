"""Where the windows of a pool lie, and the way back from them to images."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from ..engine import ShapeError, Tensor, array_module
from ..engine.backend import Array, on_gpu
from ..engine.dtypes import is_floating
from .windows import Border, Sizes, by, check_images, extent, met_by, per_axis

Option = int | Sizes

# Windows for a kernel, three axes of space always: a parameter AXIS(h) takes what `Windows.numbers`
# gives for an axis, and ALONG(h) is what the kernel asks.
WINDOWS = r"""
#define AXIS(a)                                                                    \
    long long a##_size, long long a##_places, long long a##_taps,                  \
    long long a##_stride, long long a##_padding, long long a##_dilation
#define ALONG(a)                                                                   \
    Along{(int)a##_size, (int)a##_places, (int)a##_taps,                           \
          (int)a##_stride, (int)a##_padding, (int)a##_dilation}

struct Along {  // without taps: adaptive windows, which cover the image
    int size, places, taps, stride, padding, dilation;

    // The first element of window p inside the image, of every `dilation`-th; and their end.
    __device__ int begin(int p) const {
        if (taps == 0) return (long long)p * size / places;
        int start = p * stride - padding;
        return start < 0 ? start + (-start + dilation - 1) / dilation * dilation : start;
    }
    __device__ int end(int p) const {
        if (taps == 0) return ((long long)(p + 1) * size + places - 1) / places;
        return min(p * stride - padding + (taps - 1) * dilation + 1, size);
    }

    // The first and the last of the windows that reach over element i.
    __device__ int first(int i) const {
        if (taps == 0) return (long long)i * places / size;
        int beyond = i + padding - (taps - 1) * dilation;
        return beyond > 0 ? (beyond + stride - 1) / stride : 0;
    }
    __device__ int last(int i) const {
        if (taps == 0) return ((long long)(i + 1) * places + size - 1) / size - 1;
        return min((i + padding) / stride, places - 1);
    }

    // The window whose tap t meets element i; -1 if there is none.
    __device__ int place(int i, int t) const {
        int start = i + padding - t * dilation;
        return start < 0 || start % stride || start / stride >= places ? -1 : start / stride;
    }
};

struct Spot {  // an element of (planes, D, H, W)
    long long plane;
    int d, h, w;
};

__device__ Spot spot(long long i, int D, int H, int W) {
    Spot found;
    found.w = i % W;
    i /= W;
    found.h = i % H;
    i /= H;
    found.d = i % D;
    found.plane = i / D;
    return found;
}
"""


@dataclass(frozen=True)
class Windows:
    """Where windows lie: along each axis of space, an image's size and the options of a pool."""

    size: Sizes
    kernel: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    places: Sizes

    @property
    def border(self) -> Border:
        """What the images need around them, for windows that stick out too."""
        ends = (
            (places - 1) * step + extent(taps, d) - p
            for places, step, taps, d, p in zip(
                self.places, self.stride, self.kernel, self.dilation, self.padding
            )
        )
        return tuple((p, max(0, e - n)) for p, e, n in zip(self.padding, ends, self.size))

    @property
    def axes(self) -> range:
        """The axes of space, in an array of images."""
        return range(2, 2 + len(self.size))

    @property
    def numbers(self) -> tuple[int, ...]:
        """Size, places, taps, stride, padding, dilation of three axes of space, for kernels."""
        along = (self.size, self.places, self.kernel, self.stride, self.padding, self.dilation)
        one_element = (1, 1, 1, 1, 0, 1)
        return (*one_element * (3 - len(self.size)), *itertools.chain.from_iterable(zip(*along)))

    def seen(self, axis: int) -> list[tuple[slice, ...]]:
        """For each tap along an axis: the index of what it meets, one element for each window."""
        i = axis - 2
        return [
            (slice(None),) * axis + (met_by(t, self.places[i], self.stride[i], self.dilation[i]),)
            for t in range(self.kernel[i])
        ]

    def begin_outside(self, axis: int) -> list[tuple[int, int]]:
        """The windows that begin in the border; for each: its first tap that meets the image."""
        i = axis - 2
        step, d, border = self.stride[i], self.dilation[i], self.padding[i]
        count = min(self.places[i], -(-border // step))
        return [(place, -(-(border - place * step) // d)) for place in range(count)]


def has_kernels(x: Array) -> bool:
    """Whether the kernels take an array: one of floats, on a GPU."""
    return on_gpu(x) and is_floating(x.dtype)


def covering(size: Sizes, places: Sizes) -> Windows:
    """The windows of adaptive pooling, for kernels alone: they have no taps."""
    none, ones = (0,) * len(size), (1,) * len(size)
    return Windows(size, kernel=none, stride=ones, padding=none, dilation=ones, places=places)


def fit(
    op: str,
    dims: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> Windows:
    """Where the windows of a pool lie, once it is known that its options fit the images."""
    kernel = per_axis(op, "kernel_size", kernel_size, dims, least=1)
    steps = kernel if stride is None else per_axis(op, "stride", stride, dims, least=1)
    padding = per_axis(op, "padding", padding, dims, least=0)
    dilation = per_axis(op, "dilation", dilation, dims, least=1)
    check_images(op, input, dims)
    shape = input.shape
    window = by(kernel) + (f", dilation {dilation}" if max(dilation) > 1 else "")
    if any(2 * p > taps for p, taps in zip(padding, kernel)):
        raise ValueError(
            f"{op}: padding={padding} must be at most half of the window, {window}, or a window "
            "could see nothing else"
        )
    places = tuple(
        _places(n, extent(taps, d), step, p, ceil_mode)
        for n, taps, step, p, d in zip(shape[2:], kernel, steps, padding, dilation)
    )
    if min(places) < 1:
        raise ShapeError(
            f"{op}: no window of {window} fits into the input {shape} with padding={padding}: "
            "use a smaller window or more padding"
        )
    return Windows(shape[2:], kernel, steps, padding, dilation, places)


def _places(size: int, reach: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """How many windows there are along one axis."""
    room = size + 2 * padding - reach
    places = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (places - 1) * stride >= size + padding:
        places -= 1  # the last window would start beyond the image
    return places


def lay_along(axis: int, size: int, parts: list[Array], windows: Windows) -> Array:
    """What all taps met, from a part for each tap; where several taps met an element, their sum."""
    N_to_axis, rest = parts[0].shape[:axis], parts[0].shape[axis + 1 :]
    x = array_module(parts[0]).zeros_like(parts[0], shape=(*N_to_axis, size, *rest))
    stride, met = windows.stride[axis - 2], set()
    for elements, part in zip(windows.seen(axis), parts):
        phase = elements[axis].start % stride
        if phase in met:
            x[elements] += part
        else:  # taps of different phases never meet
            x[elements] = part
        met.add(phase)
    return x
