"""Convolution as a matrix product: one row a place, with the window it sees, pixel by pixel.

The same as `columns`, transposed: channels come last in memory. What is copied into a row are runs
of whole pixels, S of them where the dilation is 1, and not single numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ...engine import array_module
from ...engine.backend import Array
from ...engine.threads import in_parallel
from ..windows import blocks, taps, windows
from .geometry import Geometry
from .layout import channels_first, channels_last


def suits(g: Geometry) -> bool:
    """Whether the form can compute this convolution at all."""
    return g.G == 1


def run(g: Geometry) -> int:
    """How many numbers are copied at once."""
    return g.C * (g.kernel[-1] if g.dilation[-1] == 1 else 1)


def forward(x: Array, weight: Array, g: Geometry) -> Array:
    """The product rows(x) @ kernels: (N, C, H, W), (O, C, R, S) -> (N, O, P, Q)."""
    xp = array_module(x)
    kernels = _kernels(weight, g)
    y = xp.empty((g.N, math.prod(g.places), g.O), dtype=xp.result_type(x, weight))

    def compute(part: slice) -> None:
        for images in _blocks(part, g, y.itemsize):
            xp.matmul(_rows(x[images], g), kernels, out=y[images])

    in_parallel(compute, g.N, g.multiply_adds)
    return channels_first(y.reshape(g.N, *g.places, g.O))


def grad_input(dy: Array, weight: Array, g: Geometry) -> Array:
    """The product dy @ kernels^T, added up where the windows overlap: -> (N, C, H, W)."""
    if g.is_reversible:  # to write windows out takes less time than to add them up
        return forward(dy, g.rotated(weight), g.back())
    xp = array_module(dy)
    kernels = _kernels(weight, g).reshape(-1, g.C, g.O).swapaxes(1, 2)
    dy = channels_last(dy).reshape(g.N, math.prod(g.places), g.O)
    dx = xp.empty((g.N, *g.size, g.C), dtype=xp.result_type(dy, weight))
    seen = [met[1:] for _, met in taps(g.kernel, g.places, g.stride, g.dilation)]

    def compute(part: slice) -> None:
        for images in _blocks(part, g, dx.itemsize):
            dpadded = xp.zeros((len(dx[images]), *g.padded_size, g.C), dtype=dx.dtype)
            for kernel, met in zip(kernels, seen):
                there = dpadded[(slice(None), *met)]
                there += (dy[images] @ kernel).reshape(there.shape)
            dx[images] = dpadded[_inside(g)]

    in_parallel(compute, g.N, g.multiply_adds)
    return channels_first(dx)


def grad_weight(dy: Array, x: Array, g: Geometry) -> Array:
    """The sum over the images of rows(x)^T @ dy: -> (O, C, R, S)."""
    xp = array_module(x)
    dy = channels_last(dy).reshape(g.N, math.prod(g.places), g.O)

    def compute(part: slice) -> Array:
        total = xp.zeros((math.prod(g.kernel) * g.C, g.O), dtype=dy.dtype)
        for images in _blocks(part, g, dy.itemsize):
            rows = _rows(x[images], g)
            places = len(rows) * rows.shape[1]
            total += rows.reshape(places, rows.shape[2]).T @ dy[images].reshape(places, g.O)
        return total

    dkernels = sum(in_parallel(compute, g.N, g.multiply_adds)).reshape(*g.kernel, g.C, g.O)
    return dkernels.transpose(dkernels.ndim - 1, dkernels.ndim - 2, *range(dkernels.ndim - 2))


def _kernels(weight: Array, g: Geometry) -> Array:
    """One column a kernel: (R * S * C, O)."""
    taps_first = weight.transpose(*range(2, weight.ndim), 1, 0)
    return taps_first.reshape(math.prod(g.kernel) * g.C, g.O)


def _rows(x: Array, g: Geometry) -> Array:
    """The windows: (N, C, H, W) -> (N, P * Q, R * S * C)."""
    padded = array_module(x).zeros((len(x), *g.padded_size, g.C), dtype=x.dtype)
    padded[_inside(g)] = channels_last(x)
    seen = windows(channels_first(padded), g.kernel, g.places, g.stride, g.dilation)
    dims = len(g.size)  # from (N, C, R, S, P, Q) to (N, P, Q, R, S, C)
    seen = seen.transpose(0, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims), 1)
    return seen.reshape(len(x), math.prod(g.places), math.prod(g.kernel) * g.C)


def _inside(g: Geometry) -> tuple[slice, ...]:
    """Where the images lie in padded ones, channels last."""
    return (slice(None), *(slice(b, b + n) for n, (b, _) in zip(g.size, g.border)))


def _blocks(part: slice, g: Geometry, itemsize: int) -> Iterator[slice]:
    bytes_per_image = g.C * math.prod(g.kernel) * math.prod(g.places) * itemsize
    for block in blocks(part.stop - part.start, bytes_per_image):
        yield slice(part.start + block.start, part.start + block.stop)
