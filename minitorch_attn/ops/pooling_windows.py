"""Where the windows of a pool lie, and the way back from them to images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..engine import ShapeError, Tensor, array_module
from ..engine.backend import Array
from .windows import Border, Sizes, by, check_images, extent, met_by, per_axis

Option = int | Sizes


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
