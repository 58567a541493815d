"""Sliding windows: where a kernel lands on an image, what it sees there, and the way back.

Convolution and pooling share this geometry. A kernel of R x S taps visits P x Q places; tap r of
the kernel, at place p, meets row p * stride + r * dilation of the padded image.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

from ..engine import ShapeError, Tensor, array_module
from ..engine.backend import Array
from ..engine.tensor import operand

Pair = tuple[int, int]
Border = tuple[Pair, Pair]  # rows (above, below) and columns (left, right) around an image

# Windows overlap: written out they take R * S times the memory of the image. They are written
# out for a few images at a time, few enough that they stay in a processor's cache until used.
BLOCK_BYTES = 1 << 20


def pair(op: str, name: str, value: Any, least: int) -> Pair:
    """An option for height and width: one integer for both, or two.

    Raises
    ------
    ValueError
        If it is neither, or an integer is below `least`.
    """
    try:
        height, width = value if isinstance(value, (tuple, list)) else (value, value)
        sizes = operator.index(height), operator.index(width)
    except (TypeError, ValueError):
        sizes = (least - 1, least - 1)
    if min(sizes) < least:
        raise ValueError(
            f"{op}: {name} must be an integer of at least {least}, or two of them "
            f"(height, width), not {value!r}"
        )
    return sizes


def symmetric(padding: Pair) -> Border:
    """The same padding on both sides of each axis."""
    height, width = padding
    return (height, height), (width, width)


def extent(taps: int, dilation: int) -> int:
    """How many elements a kernel of some taps reaches over: dilation * (taps - 1) + 1."""
    return dilation * (taps - 1) + 1


def count_places(op: str, image: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Pair:
    """At how many places (P, Q) a kernel fits into a padded image.

    Raises
    ------
    ShapeError
        If it fits nowhere.
    """
    reach = extent(kernel[0], dilation[0]), extent(kernel[1], dilation[1])
    if reach[0] > image[0] or reach[1] > image[1]:
        spread = f", {reach[0]}x{reach[1]} with its dilation" if reach != kernel else ""
        raise ShapeError(
            f"{op}: a kernel of {kernel[0]}x{kernel[1]}{spread} does not fit into an image of "
            f"{image[0]}x{image[1]}, padding included: use a smaller kernel or more padding"
        )
    return (image[0] - reach[0]) // stride[0] + 1, (image[1] - reach[1]) // stride[1] + 1


def pad(x: Array, border: Border, value: float = 0.0) -> Array:
    """Images with a border around them: (N, C, H, W) -> (N, C, H + ..., W + ...)."""
    if border == ((0, 0), (0, 0)):
        return x
    (above, below), (left, right) = border
    N, C, H, W = x.shape
    shape = (N, C, above + H + below, left + W + right)
    padded = array_module(x).full(shape, value, dtype=x.dtype)
    padded[:, :, above : above + H, left : left + W] = x
    return padded


def inside(padded: Array, border: Border) -> Array:
    """The images without their border: the inverse of `pad`, and its gradient."""
    (above, below), (left, right) = border
    H, W = padded.shape[2:]
    return padded[:, :, above : H - below, left : W - right]


def met_by(tap: int, places: int, stride: int, dilation: int = 1) -> slice:
    """The elements along an axis that one tap of the kernel meets, one for each place."""
    start = tap * dilation
    return slice(start, start + (places - 1) * stride + 1, stride)


def windows(x: Array, kernel: Pair, places: Pair, stride: Pair, dilation: Pair) -> Array:
    """All windows of padded images, as a view: (N, C, H, W) -> (N, C, R, S, P, Q).

    Nothing is copied: a step to the next tap is a step of `dilation` elements in the image, a
    step to the next place one of `stride` elements.
    """
    N, C = x.shape[:2]
    n, c, h, w = x.strides
    steps = (n, c, h * dilation[0], w * dilation[1], h * stride[0], w * stride[1])
    as_strided = array_module(x).lib.stride_tricks.as_strided
    return as_strided(x, (N, C, *kernel, *places), steps)


def add_windows(x: Array, values: Array, stride: Pair, dilation: Pair) -> None:
    """Add values of windows (N, C, R, S, P, Q) to where they lie in padded images, in place.

    The adjoint of `windows`: an element that several windows saw gets the sum of their values.
    """
    R, S, P, Q = values.shape[2:]
    for r in range(R):
        for s in range(S):
            rows, columns = (
                met_by(r, P, stride[0], dilation[0]),
                met_by(s, Q, stride[1], dilation[1]),
            )
            x[:, :, rows, columns] += values[:, :, r, s]


def blocks(images: int, bytes_per_image: int) -> Iterator[slice]:
    """Slices over the batch, such that the working memory of a block is about `BLOCK_BYTES`."""
    size = max(1, BLOCK_BYTES // max(1, bytes_per_image))
    return (slice(start, min(start + size, images)) for start in range(0, images, size))


def also_unbatched(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let an operation on images (N, C, H, W) take a single image (C, H, W) too."""

    @functools.wraps(op)
    def apply(input: Any, *args: Any, **kwargs: Any) -> Tensor:
        images = operand(input)
        if images.ndim == 3:
            return op(images[None], *args, **kwargs)[0]
        return op(images, *args, **kwargs)

    return apply


def check_images(op: str, x: Array) -> None:
    """Raise a ShapeError unless x has the axes (N, C, H, W)."""
    if x.ndim != 4:
        raise ShapeError(
            f"{op}: needs images of shape (N, C, H, W), or one of shape (C, H, W), not {x.shape}"
        )
