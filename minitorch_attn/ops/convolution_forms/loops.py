"""Convolution as its definition says: every product by itself. All other forms must agree with it.

    y[n, o, p, q] = sum over c, r, s of  weight[o, c, r, s] * padded x[n, c, p a + r d, q a + s d]

The equation is a list of terms. Each term is a product of two numbers, and so the gradient of each
factor is the other one, times dy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ...engine import array_module
from ...engine.backend import Array
from ..windows import inside, pad
from .geometry import Geometry


def forward(x: Array, weight: Array, g: Geometry) -> Array:
    """(N, C, H, W), (O, C / G, R, S) -> (N, O, P, Q)."""
    padded = pad(x, g.border)
    y = array_module(x).zeros(g.y_shape, dtype=x.dtype)
    for output, kernel, image in _terms(g):
        y[output] += weight[kernel] * padded[image]
    return y


def grad_input(dy: Array, weight: Array, g: Geometry) -> Array:
    """(N, O, P, Q), (O, C / G, R, S) -> (N, C, H, W)."""
    dpadded = array_module(dy).zeros((g.N, g.C, *g.padded_size), dtype=dy.dtype)
    for output, kernel, image in _terms(g):
        dpadded[image] += dy[output] * weight[kernel]
    return inside(dpadded, g.border)


def grad_weight(dy: Array, x: Array, g: Geometry) -> Array:
    """(N, O, P, Q), (N, C, H, W) -> (O, C / G, R, S)."""
    padded = pad(x, g.border)
    dweight = array_module(x).zeros(g.weight_shape, dtype=dy.dtype)
    for output, kernel, image in _terms(g):
        dweight[kernel] += dy[output] * padded[image]
    return dweight


def _terms(g: Geometry) -> Iterator[tuple[tuple, tuple, tuple]]:
    """For each product: where it goes in y, and where its factors stand in weight and padded x."""
    C, O = g.C // g.G, g.O // g.G  # of a group
    for n, group, o, c in itertools.product(range(g.N), range(g.G), range(O), range(C)):
        for place in itertools.product(*map(range, g.places)):
            for tap in itertools.product(*map(range, g.kernel)):
                met = (p * a + r * d for p, a, r, d in zip(place, g.stride, tap, g.dilation))
                yield (n, group * O + o, *place), (group * O + o, c, *tap), (n, group * C + c, *met)
