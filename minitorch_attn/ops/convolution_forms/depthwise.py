"""Depthwise convolution: every channel sees itself alone, so that there is no matrix to multiply.

With the channels last, what tap (r, s) meets at all places of a row is one run of Q * C numbers of
the padded image, and each of them has its weight, that of its channel. einsum multiplies such runs
and adds them up at once: for a row of the output, which stays in the cache, tap after tap.

    y[p, k] = sum over r, s of  padded x[p + r d, s d C + k] * w[r, s, k mod C]
"""

from __future__ import annotations

import itertools

from ...engine import array_module
from ...engine.backend import Array
from ...engine.threads import in_parallel
from .geometry import Geometry
from .layout import channels_first, channels_last, copy_channels_last


def suits(g: Geometry) -> bool:
    """Whether the form can compute this convolution at all."""
    return len(g.size) == 2 and g.G == g.C == g.O and g.is_reversible


def forward(x: Array, weight: Array, g: Geometry) -> Array:
    """(N, C, H, W), (C, 1, R, S) -> (N, C, P, Q)."""
    xp = array_module(x)
    P, Q = g.places
    weights = xp.tile(weight[:, 0].transpose(1, 2, 0), Q)  # (R, S, Q * C)
    y = xp.empty((g.N, P, Q * g.C), dtype=xp.result_type(x, weight))

    def compute(images: slice) -> None:
        xp.einsum("nprsk,rsk->npk", _runs(x[images], g), weights, out=y[images])

    in_parallel(compute, g.N, g.multiply_adds)
    return channels_first(y.reshape(g.N, P, Q, g.C))


def grad_input(dy: Array, weight: Array, g: Geometry) -> Array:
    """The convolution of dy with the rotated kernels: -> (N, C, H, W)."""
    return forward(dy, g.rotated(weight), g.back())


def grad_weight(dy: Array, x: Array, g: Geometry) -> Array:
    """What each tap met, times dy, summed over images and places: -> (C, 1, R, S)."""
    xp = array_module(x)
    R, S = g.kernel
    dy = channels_last(dy).reshape(g.N, g.places[0], g.places[1] * g.C)

    def compute(images: slice) -> Array:
        runs = _runs(x[images], g)
        sums = [
            xp.einsum("npk,npk->k", runs[:, :, r, s], dy[images])
            for r, s in itertools.product(range(R), range(S))
        ]
        return xp.stack(sums)

    dweights = sum(in_parallel(compute, g.N, g.multiply_adds)).reshape(R, S, g.places[1], g.C)
    return dweights.sum(axis=2).transpose(2, 0, 1).reshape(g.weight_shape)


def _runs(x: Array, g: Geometry) -> Array:
    """What every tap meets at the places of a row: (N, C, H, W) -> (N, P, R, S, Q * C), a view."""
    xp = array_module(x)
    (top, _), (left, _) = g.border
    n, C, H, W = x.shape
    padded = xp.zeros((n, *g.padded_size, C), dtype=x.dtype)
    copy_channels_last(x, padded[:, top : top + H, left : left + W])
    image, row, pixel, number = padded.strides
    return xp.lib.stride_tricks.as_strided(
        padded,
        (n, g.places[0], *g.kernel, g.places[1] * C),
        (image, row, row * g.dilation[0], pixel * g.dilation[1], number),
    )
