"""Kernels of one tap: every pixel by itself is multiplied with one matrix, (O, C).

A product takes its factors and its result transposed as well, so that both layouts of the images
are as quick, and none is copied. With a stride, only the pixels that are met are looked at.
"""

from __future__ import annotations

from ...engine import array_module
from ...engine.backend import Array, on_gpu
from ...engine.threads import in_parallel
from .geometry import Geometry
from .layout import empty_like, flat


def suits(g: Geometry) -> bool:
    """Whether the form can compute this convolution at all."""
    return g.G == 1 and max(g.kernel) == 1 and not any(map(any, g.border))


def forward(x: Array, weight: Array, g: Geometry) -> Array:
    """The product weight @ x for every image: (N, C, H, W), (O, C, 1, 1) -> (N, O, P, Q)."""
    return _multiply(weight.reshape(g.O, g.C), _met(x, g), g.y_shape, g)


def grad_input(dy: Array, weight: Array, g: Geometry) -> Array:
    """The product weight^T @ dy, and zero where no kernel met the image: -> (N, C, H, W)."""
    dmet = _multiply(weight.reshape(g.O, g.C).T, dy, (g.N, g.C, *g.places), g)
    if g.places == g.size:
        return dmet
    dx = empty_like(dmet, g.x_shape)
    dx[...] = 0
    _met(dx, g)[...] = dmet
    return dx


def grad_weight(dy: Array, x: Array, g: Geometry) -> Array:
    """The sum over the images of dy @ x^T: -> (O, C, 1, 1)."""
    dy, x = flat(dy), flat(_met(x, g)).swapaxes(1, 2)
    parts = in_parallel(lambda images: (dy[images] @ x[images]).sum(axis=0), g.N, g.multiply_adds)
    return sum(parts).reshape(g.weight_shape)


def _multiply(matrix: Array, x: Array, shape: tuple[int, ...], g: Geometry) -> Array:
    xp = array_module(x)
    y = empty_like(x, shape, matrix)
    x, flat_y = flat(x), flat(y)

    def compute(images: slice) -> None:
        xp.matmul(matrix, x[images], out=flat_y[images])

    if on_gpu(y):
        compute(slice(0, g.N))  # a card has threads of its own
    else:
        in_parallel(compute, g.N, g.multiply_adds)
    return y


def _met(x: Array, g: Geometry) -> Array:
    """The pixels that a kernel meets: (N, C, H, W) -> (N, C, P, Q)."""
    return x[(..., *(slice(0, (n - 1) * step + 1, step) for n, step in zip(g.places, g.stride)))]
