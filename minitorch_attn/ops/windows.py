"""Sliding windows: where a kernel lands on an image, what it sees there, and the way back.

Convolution and pooling share this geometry, in one, two and three dimensions of space. Written for
two: a kernel of R x S taps visits P x Q places; tap r of the kernel, at place p, meets row
p * stride + r * dilation of the padded image. Along each axis of space the same rule holds by
itself, so that every function here takes tuples with one entry an axis.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any

from ..engine import ShapeError, array_module
from ..engine.backend import Array
from ..engine.tensor import operand

Sizes = tuple[int, ...]  # one entry for each axis of space
Border = tuple[tuple[int, int], ...]  # how much is added before and after, for each axis of space

# Windows overlap: written out they take R * S times the memory of the image. They are written
# out for a few images at a time, few enough that they stay in a processor's cache until used.
BLOCK_BYTES = 1 << 20

AXES = {1: "(N, C, W)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}


def per_axis(op: str, name: str, value: Any, dims: int, least: int) -> Sizes:
    """An option for each axis of space: one integer for all, also as (one,), or `dims` of them.

    Raises
    ------
    ValueError
        If it is neither, or an integer is below `least`.
    """
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    try:
        sizes = tuple(map(operator.index, values * dims if len(values) == 1 else values))
    except TypeError:
        sizes = ()
    if len(sizes) == dims and min(sizes) >= least:
        return sizes
    several = {1: "", 2: ", or two of them (height, width)", 3: ", or three (depth, height, width)"}
    raise ValueError(
        f"{op}: {name} must be an integer of at least {least}{several[dims]}, not {value!r}"
    )


def symmetric(padding: Sizes) -> Border:
    """The same padding on both sides of each axis."""
    return tuple((p, p) for p in padding)


def extent(taps: int, dilation: int) -> int:
    """How many elements a kernel of some taps reaches over: dilation * (taps - 1) + 1."""
    return dilation * (taps - 1) + 1


def count_places(op: str, image: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Sizes:
    """At how many places (P, Q) a kernel fits into a padded image.

    Raises
    ------
    ShapeError
        If it fits nowhere.
    """
    reach = tuple(map(extent, kernel, dilation))
    if any(r > size for r, size in zip(reach, image)):
        spread = f", {by(reach)} with its dilation" if reach != kernel else ""
        raise ShapeError(
            f"{op}: a kernel of {by(kernel)}{spread} does not fit into an image of {by(image)}, "
            "padding included: use a smaller kernel or more padding"
        )
    return tuple((size - r) // step + 1 for size, r, step in zip(image, reach, stride))


def pad(x: Array, border: Border, value: float = 0.0) -> Array:
    """Images with a border around them, in their layout: (N, C, H, W) -> (N, C, H + ..., ...)."""
    if not any(map(any, border)):
        return x
    size = tuple(before + n + after for n, (before, after) in zip(x.shape[2:], border))
    padded = array_module(x).full_like(x, value, shape=(*x.shape[:2], *size))
    inside(padded, border)[...] = x
    return padded


def inside(padded: Array, border: Border) -> Array:
    """The images without their border, as a view: undoes `pad`, and is its gradient."""
    return padded[(..., *(slice(b, size - a) for size, (b, a) in zip(padded.shape[2:], border)))]


def met_by(tap: int, places: int, stride: int, dilation: int = 1) -> slice:
    """The elements along an axis that one tap of the kernel meets, one for each place."""
    start = tap * dilation
    return slice(start, start + (places - 1) * stride + 1, stride)


def taps(kernel: Sizes, places: Sizes, stride: Sizes, dilation: Sizes) -> Iterator[tuple]:
    """For each tap (r, s) of a kernel: its index, and the elements it meets at all places."""
    for tap in itertools.product(*map(range, kernel)):
        yield tap, (..., *map(met_by, tap, places, stride, dilation))


def windows(x: Array, kernel: Sizes, places: Sizes, stride: Sizes, dilation: Sizes) -> Array:
    """All windows of padded images, as a view: (N, C, H, W) -> (N, C, R, S, P, Q).

    Nothing is copied: a step to the next tap is a step of `dilation` elements in the image, a
    step to the next place one of `stride` elements.
    """
    steps = x.strides[2:]
    to_next_tap = map(operator.mul, steps, dilation)
    to_next_place = map(operator.mul, steps, stride)
    return array_module(x).lib.stride_tricks.as_strided(
        x, (*x.shape[:2], *kernel, *places), (*x.strides[:2], *to_next_tap, *to_next_place)
    )


def add_windows(x: Array, values: Array, stride: Sizes, dilation: Sizes) -> None:
    """Add values of windows (N, C, R, S, P, Q) to where they lie in padded images, in place.

    The adjoint of `windows`: an element that several windows saw gets the sum of their values.
    """
    dims = x.ndim - 2
    kernel, places = values.shape[2 : 2 + dims], values.shape[2 + dims :]
    for tap, met in taps(kernel, places, stride, dilation):
        x[met] += values[:, :, *tap]


def blocks(images: int, bytes_per_image: int) -> Iterator[slice]:
    """Slices over the batch, such that the working memory of a block is about `BLOCK_BYTES`."""
    size = max(1, BLOCK_BYTES // max(1, bytes_per_image))
    return (slice(start, min(start + size, images)) for start in range(0, images, size))


def also_unbatched(dims: int) -> Callable:
    """Let an operation on images (N, C, H, W) take a single image (C, H, W) too.

    Its result is a tensor or a tuple of them, each with the axis N in front.
    """

    def decorate(op: Callable) -> Callable:
        @functools.wraps(op)
        def apply(input: Any, *args: Any, **kwargs: Any) -> Any:
            images = operand(input)
            if images.ndim != dims + 1:
                return op(images, *args, **kwargs)
            result = op(images[None], *args, **kwargs)
            return tuple(y[0] for y in result) if isinstance(result, tuple) else result[0]

        return apply

    return decorate


def check_images(op: str, x: Array, dims: int) -> None:
    """Raise a ShapeError unless x has the axes (N, C, H, W), or those of other dimensions.

    There may be no images in the batch, but each has pixels.
    """
    if x.ndim != dims + 2:
        single = AXES[dims].replace("N, ", "")
        raise ShapeError(
            f"{op}: needs images of shape {AXES[dims]}, or one of shape {single}, not {x.shape}"
        )
    if 0 in x.shape[2:]:
        raise ShapeError(f"{op}: an image of {by(x.shape[2:])} has no pixels (input {x.shape})")


def by(sizes: Sizes) -> str:
    """Sizes as people write them: "3x3"."""
    return "x".join(map(str, sizes))
