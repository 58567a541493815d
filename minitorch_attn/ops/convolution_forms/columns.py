"""Convolution as a matrix product: windows written out as columns, times the kernels (im2col).

Works for every shape and option. The windows are written out for a few images at a time, so that
they are still in the processor's cache when the product reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ...engine import array_module
from ...engine.backend import Array
from ...engine.threads import in_parallel
from ..windows import add_windows, blocks, inside, pad, windows
from .geometry import Geometry
from .layout import channels_first, flat


def forward(x: Array, weight: Array, g: Geometry) -> Array:
    """The product kernels @ columns(x): (N, C, H, W), (O, C / G, R, S) -> (N, O, P, Q)."""
    xp = array_module(x)
    kernels = _kernels(weight, g)
    y = channels_first(xp.empty((g.N, *g.places, g.O), dtype=xp.result_type(x, weight)))
    by_group = _by_group(y, g)

    def compute(part: slice) -> None:
        for images in _blocks(part, g, y.itemsize):
            xp.matmul(kernels, _columns(x[images], g), out=by_group[images])

    in_parallel(compute, g.N, g.multiply_adds)
    return y


def grad_input(dy: Array, weight: Array, g: Geometry) -> Array:
    """The product kernels^T @ dy, added up where the windows overlap: -> (N, C, H, W)."""
    if g.is_reversible and g.O < 4 * g.C:
        # To add windows up takes about as long as to write out four times as many.
        return forward(dy, g.rotated(weight), g.back())
    xp = array_module(dy)
    kernels = _kernels(weight, g).swapaxes(1, 2)
    dy = _by_group(dy, g)
    dx = xp.empty(g.x_shape, dtype=xp.result_type(dy, weight))
    # With one kernel to a group the product is an outer one, at which matmul is slow.
    product = xp.multiply if g.O == g.G else xp.matmul

    def compute(part: slice) -> None:
        for images in _blocks(part, g, dx.itemsize):
            dcolumns = product(kernels, dy[images])
            dcolumns = dcolumns.reshape(len(dcolumns), g.C, *g.kernel, *g.places)
            dpadded = xp.zeros((len(dcolumns), g.C, *g.padded_size), dtype=dx.dtype)
            add_windows(dpadded, dcolumns, g.stride, g.dilation)
            dx[images] = inside(dpadded, g.border)

    in_parallel(compute, g.N, g.multiply_adds)
    return dx


def grad_weight(dy: Array, x: Array, g: Geometry) -> Array:
    """The sum over the images of dy @ columns(x)^T: -> (O, C / G, R, S)."""
    dy = _by_group(dy, g)

    def compute(part: slice) -> Array:
        total = array_module(x).zeros((g.G, g.O // g.G, math.prod(g.weight_shape[1:])), dy.dtype)
        for images in _blocks(part, g, dy.itemsize):
            total += (dy[images] @ _columns(x[images], g).swapaxes(2, 3)).sum(axis=0)
        return total

    return sum(in_parallel(compute, g.N, g.multiply_adds)).reshape(g.weight_shape)


def _kernels(weight: Array, g: Geometry) -> Array:
    """One row a kernel: (G, O / G, C / G * R * S)."""
    return weight.reshape(g.G, g.O // g.G, math.prod(g.weight_shape[1:]))


def _by_group(y: Array, g: Geometry) -> Array:
    """(N, O, P, Q) -> (N, G, O / G, P * Q)."""
    return flat(y).reshape(g.N, g.G, g.O // g.G, math.prod(g.places))


def _columns(images: Array, g: Geometry) -> Array:
    """One column a place, one row a tap: (N, G, C / G * R * S, P * Q)."""
    seen = windows(pad(images, g.border), g.kernel, g.places, g.stride, g.dilation)
    rows = g.C // g.G * math.prod(g.kernel)
    return seen.reshape(len(images), g.G, rows, math.prod(g.places))


def _blocks(part: slice, g: Geometry, itemsize: int) -> Iterator[slice]:
    bytes_per_image = g.C * math.prod(g.kernel) * math.prod(g.places) * itemsize
    for block in blocks(part.stop - part.start, bytes_per_image):
        yield slice(part.start + block.start, part.start + block.stop)
