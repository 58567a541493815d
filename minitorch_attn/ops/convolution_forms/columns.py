"""Convolution as a matrix product: windows written out as columns, times the kernels (im2col).

Works for every shape and option. The windows are written out for a few images at a time, so that
they are still in the processor's cache when the product reads them.
"""

from __future__ import annotations

import math

from ...engine import array_module
from ...engine.backend import Array
from ..windows import add_windows, blocks, inside, pad, windows
from .geometry import Geometry


def forward(x: Array, weight: Array, g: Geometry) -> Array:
    """The product kernels @ columns(x): (N, C, H, W), (O, C / G, R, S) -> (N, O, P, Q)."""
    xp = array_module(x)
    kernels = _kernels(weight, g)
    y = xp.empty((g.N, g.G, g.O // g.G, math.prod(g.places)), dtype=xp.result_type(x, weight))
    for block in _blocks(x, g):
        xp.matmul(kernels, _columns(x[block], g), out=y[block])
    return y.reshape(g.y_shape)


def grad_input(dy: Array, weight: Array, g: Geometry) -> Array:
    """The product kernels^T @ dy, added up where the windows overlap: -> (N, C, H, W)."""
    xp = array_module(dy)
    kernels = _kernels(weight, g).swapaxes(1, 2)
    dy = dy.reshape(g.N, g.G, g.O // g.G, math.prod(g.places))
    dx = xp.empty(g.x_shape, dtype=xp.result_type(dy, weight))
    # With one kernel to a group the product is an outer one, at which matmul is slow.
    product = xp.multiply if g.O == g.G else xp.matmul
    for block in _blocks(dx, g):
        dcolumns = product(kernels, dy[block])
        dpadded = xp.zeros((len(dcolumns), g.C, *g.padded_size), dtype=dx.dtype)
        add_windows(
            dpadded,
            dcolumns.reshape(len(dcolumns), g.C, *g.kernel, *g.places),
            g.stride,
            g.dilation,
        )
        dx[block] = inside(dpadded, g.border)
    return dx


def grad_weight(dy: Array, x: Array, g: Geometry) -> Array:
    """The sum over the images of dy @ columns(x)^T: -> (O, C / G, R, S)."""
    xp = array_module(x)
    dy = dy.reshape(g.N, g.G, g.O // g.G, math.prod(g.places))
    dkernels = xp.zeros((g.G, g.O // g.G, math.prod(g.weight_shape[1:])), dtype=dy.dtype)
    for block in _blocks(x, g):
        dkernels += xp.matmul(dy[block], _columns(x[block], g).swapaxes(2, 3)).sum(axis=0)
    return dkernels.reshape(g.weight_shape)


def _kernels(weight: Array, g: Geometry) -> Array:
    """One row a kernel: (G, O / G, C / G * R * S)."""
    return weight.reshape(g.G, g.O // g.G, math.prod(g.weight_shape[1:]))


def _columns(images: Array, g: Geometry) -> Array:
    """One column a place, one row a tap: (N, G, C / G * R * S, P * Q)."""
    seen = windows(pad(images, g.border), g.kernel, g.places, g.stride, g.dilation)
    rows = g.C // g.G * math.prod(g.kernel)
    return seen.reshape(len(images), g.G, rows, math.prod(g.places))


def _blocks(x: Array, g: Geometry):
    return blocks(g.N, g.C * math.prod(g.kernel) * math.prod(g.places) * x.itemsize)
