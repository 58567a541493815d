"""Where the channels of images lie in memory: first (one plane a channel) or last (whole pixels).

The shape is (N, C, H, W) either way, only the strides differ. Forms that move whole pixels return
channels last; elementwise operations keep what they get, and so a network stays in one layout.
"""

from __future__ import annotations

import math

from ...engine import array_module
from ...engine.backend import Array


def channels_last(x: Array) -> Array:
    """(N, C, H, W) -> (N, H, W, C), as a view."""
    return x.transpose(0, *range(2, x.ndim), 1)


def channels_first(x: Array) -> Array:
    """(N, H, W, C) -> (N, C, H, W), as a view."""
    return x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


def flat(x: Array) -> Array:
    """(N, C, H, W) -> (N, C, H * W), as a view if the layout is one of the two."""
    N, C, *size = x.shape
    places = math.prod(size)
    last = channels_last(x)
    if last.flags.c_contiguous:
        return last.reshape(N, places, C).swapaxes(1, 2)
    return x.reshape(N, C, places)


def empty_like(x: Array, shape: tuple[int, ...], *others: Array) -> Array:
    """An array of another shape in the layout of x, of the dtype of x and the others together."""
    xp = array_module(x)
    dtype = xp.result_type(x, *others)
    if channels_last(x).flags.c_contiguous:
        N, C, *size = shape
        return channels_first(xp.empty((N, *size, C), dtype=dtype))
    return xp.empty(shape, dtype=dtype)


def copy_channels_last(x: Array, out: Array) -> None:
    """Copy images (N, C, H, W) into an array (N, H, W, C)."""
    out[...] = channels_last(close_by(x))


def close_by(x: Array) -> Array:
    """The same images (N, C, H, W), such that they are quick to read pixel by pixel.

    A pixel of channels first has its numbers in C planes: more than a processor foresees, and where
    planes lie a multiple of 1 KB apart, all of them compete for the same few places of its cache
    (eight times slower). So whole planes are copied into the cache first, and out of step.
    """
    if x.strides[1] == x.itemsize or x.shape[1] <= 8:
        return x
    N, C, H, W = x.shape
    apart = array_module(x).empty((N, C, H * W + 16), dtype=x.dtype)[..., : H * W]
    copy = apart.reshape(x.shape)
    copy[...] = x
    return copy
