"""Winograd's form: a convolution with small kernels, in fewer multiplications.

Take one axis first. A kernel g of R taps and a tile d of 6 pixels give m = 7 - R outputs, which
costs m * R multiplications. But correlating is multiplying polynomials, seen backwards, and a
polynomial is known by its values at as many points as it has coefficients. At 6 points the product
takes 6 multiplications, one a point (R = 3 would take 12):

    y = A^T [(G g) * (B^T d)]         G g   the values of the kernel at the points
                                      A     the same matrix for m coefficients
                                      B     back from values to coefficients

In an image it holds along the rows and along the columns, and 36 multiplications do the work of
144 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016: F(4x4, 3x3)):

    Y = A^T [(G g G^T) * (B^T d B)] A

Summed over the channels, the multiplications at each of the 36 points are one matrix product over
all tiles. The transforms before and after are products with small matrices, and cost little.

The gradient of the images is the convolution of dy with the rotated kernels. That of the kernels is
the adjoint of the equation: every matrix transposed, in the reverse order.

Channels come last in memory here, so that whatever moves is a run of whole pixels.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np

from ...engine import array_module
from ...engine.backend import Array
from ...engine.threads import in_parallel
from .geometry import Geometry
from .layout import channels_first, channels_last, close_by, copy_channels_last

# The values are taken at these points and at infinity, which gives the highest coefficient. In
# float32 the rounding error is then about 2e-6 of the largest output: a quarter of that at 0, +-1,
# +-2, the points of the paper.
POINTS = (0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))
TILE = len(POINTS) + 1

BLOCK_BYTES = 3 << 19  # images are worked through in blocks, to use what is still in the cache
BUNDLE = 16  # channels that groups are joined to: see _kernel_values


def suits(g: Geometry) -> bool:
    """Whether the form can compute this convolution at all."""
    return len(g.size) == 2 and g.is_reversible and max(g.dilation) == 1 and max(g.kernel) < TILE


def saving(g: Geometry) -> float:
    """How many times fewer multiplications there are than in the definition."""
    return math.prod(g.kernel + g.places) / (TILE * TILE * math.prod(_tiles(g)))


def forward(x: Array, weight: Array, g: Geometry) -> Array:
    """Y = A^T [(G g G^T) * (B^T d B)] A: (N, C, H, W), (O, C / G, R, S) -> (N, O, P, Q)."""
    xp = array_module(x)
    y = xp.empty((g.N, *g.places, g.O), dtype=xp.result_type(x, weight))

    def compute(part: slice) -> None:
        kernels = _kernel_values(weight, g)  # here, where products keep to one thread
        for images in _blocks(part, g, y.itemsize):
            _add_up(_multiply(_image_values(x[images], g), kernels), y[images], g)

    in_parallel(compute, g.N, g.multiply_adds)
    return channels_first(y)


def grad_input(dy: Array, weight: Array, g: Geometry) -> Array:
    """The convolution of dy with the rotated kernels: -> (N, C, H, W)."""
    return forward(dy, g.rotated(weight), g.back())


def grad_weight(dy: Array, x: Array, g: Geometry) -> Array:
    """The sum over the tiles of G^T [(A dY A^T) * (B^T d B)] G: -> (O, C / G, R, S)."""
    xp = array_module(x)
    bundles = _bundles(g)
    shape = (TILE * TILE, bundles, g.C // bundles, g.O // bundles)

    def compute(part: slice) -> Array:
        total = xp.zeros(shape, dtype=x.dtype)
        for images in _blocks(part, g, x.itemsize):
            values = _split(_image_values(x[images], g), bundles)
            dvalues = _split(_output_values(dy[images], g), bundles)
            total += values.swapaxes(2, 3) @ dvalues
        return _kernels_of(total, g)  # here for the same reason as in the forward

    return sum(in_parallel(compute, g.N, g.multiply_adds))


# -- values at the 36 points ------------------------------------------------------------


def _image_values(x: Array, g: Geometry) -> Array:
    """B^T d B of all tiles: (N, C, H, W) -> (36, tiles, C)."""
    xp = array_module(x)
    rows, columns = _transforms(g, x.dtype)
    (p, q), (P, Q) = _tiles(g), _outputs_per_tile(g)
    (top, _), (left, _) = g.border
    n, C, H, W = x.shape
    padded = xp.zeros((n, p * P + g.kernel[0] - 1, q * Q + g.kernel[1] - 1, C), dtype=x.dtype)
    copy_channels_last(x, padded[:, top : top + H, left : left + W])
    overlapping = tiles_along(2, padded, q, Q)  # (N, rows, q, 6, C)
    d = overlapping.transpose(3, 0, 1, 2, 4).reshape(TILE, -1)
    d = (columns.B.T @ d).reshape(TILE, n, padded.shape[1], q * C)
    overlapping = tiles_along(2, d, p, P)  # (6, N, p, 6, q * C)
    values = xp.empty((TILE, TILE, n, p, q * C), dtype=x.dtype)
    xp.matmul(rows.B.T, overlapping, out=values.transpose(0, 2, 3, 1, 4))
    return values.reshape(TILE * TILE, n * p * q, C)


def tiles_along(axis: int, x: Array, count: int, step: int) -> Array:
    """Tiles of 6 that begin every `step` elements of an axis, as a view with an axis more."""
    shape = (*x.shape[:axis], count, TILE, *x.shape[axis + 1 :])
    strides = (*x.strides[:axis], step * x.strides[axis], *x.strides[axis:])
    return array_module(x).lib.stride_tricks.as_strided(x, shape, strides)


def _add_up(values: Array, y: Array, g: Geometry) -> None:
    """A^T M A, written to where each tile lies: (36, tiles, O) -> y (N, P, Q, O)."""
    xp = array_module(y)
    rows, columns = _transforms(g, y.dtype)
    (p, q), (P, Q) = _tiles(g), _outputs_per_tile(g)
    n, *_, O = y.shape
    m = (columns.A.T @ values.reshape(TILE, -1)).reshape(Q, TILE, n, p, q * O)
    del values
    outputs = xp.empty((Q, n, p, P, q * O), dtype=y.dtype)
    xp.matmul(rows.A.T, m.transpose(0, 2, 3, 1, 4), out=outputs)
    outputs = outputs.reshape(Q, n, p * P, q, O)
    for column in range(Q):
        there = y[:, :, column::Q]
        there[...] = outputs[column, :, : y.shape[1], : there.shape[2]]


def _output_values(dy: Array, g: Geometry) -> Array:
    """The adjoint of `_add_up`, A dY A^T: (N, O, P, Q) -> (36, tiles, O)."""
    xp = array_module(dy)
    rows, columns = _transforms(g, dy.dtype)
    (p, q), (P, Q) = _tiles(g), _outputs_per_tile(g)
    n, O = dy.shape[:2]
    dy = channels_last(close_by(dy))
    outputs = xp.zeros((Q, n, p * P, q, O), dtype=dy.dtype)
    for column in range(Q):
        there = dy[:, :, column::Q]
        outputs[column, :, : dy.shape[1], : there.shape[2]] = there
    m = (columns.A @ outputs.reshape(Q, -1)).reshape(TILE, n, p, P, q * O)
    del outputs
    values = xp.empty((TILE, TILE, n, p, q * O), dtype=dy.dtype)
    xp.matmul(rows.A, m, out=values.transpose(0, 2, 3, 1, 4))
    return values.reshape(TILE * TILE, n * p * q, O)


# -- the products -----------------------------------------------------------------------


def _kernel_values(weight: Array, g: Geometry) -> Array:
    """G g G^T: (O, C / G, R, S) -> (36, bundles, channels, output channels of a bundle).

    A matrix product with few rows and columns wastes most of its time on getting started. So groups
    of few channels are joined to bundles: the matrix of a bundle has the groups' matrices on its
    diagonal and zeros elsewhere.
    """
    xp = array_module(weight)
    bundles, C, O = _bundles(g), g.C // g.G, g.O // g.G
    joined = g.G // bundles
    kernels = weight.reshape(g.G, O, C, *g.kernel).transpose(4, 3, 0, 2, 1)
    values = _kernel_transform(g, weight.dtype) @ kernels.reshape(-1, g.G * C * O)
    values = values.reshape(TILE * TILE, bundles, joined, C, O)
    matrices = xp.zeros((TILE * TILE, bundles, joined, C, joined, O), dtype=weight.dtype)
    _on_diagonal(matrices)[...] = values
    return matrices.reshape(TILE * TILE, bundles, joined * C, joined * O)


def _kernels_of(dvalues: Array, g: Geometry) -> Array:
    """The adjoint of `_kernel_values`."""
    bundles, C, O = _bundles(g), g.C // g.G, g.O // g.G
    joined = g.G // bundles
    dvalues = _on_diagonal(dvalues.reshape(-1, bundles, joined, C, joined, O))
    dkernels = _kernel_transform(g, dvalues.dtype).T @ dvalues.reshape(TILE * TILE, -1)
    dkernels = dkernels.reshape(*g.kernel[::-1], g.G, C, O)
    return dkernels.transpose(2, 4, 3, 1, 0).reshape(g.weight_shape)


def _on_diagonal(matrices: Array) -> Array:
    """The groups' own parts of the matrices of bundles, as a view."""
    return array_module(matrices).einsum("tbicio->tbico", matrices)


def _multiply(values: Array, kernels: Array) -> Array:
    """For every point, and bundle of channels, the product values @ kernels."""
    xp = array_module(values)
    bundles, each = kernels.shape[1], kernels.shape[3]
    products = xp.empty((*values.shape[:2], bundles * each), dtype=values.dtype)
    xp.matmul(_split(values, bundles), kernels, out=_split(products, bundles))
    return products


def _split(values: Array, bundles: int) -> Array:
    """(36, tiles, channels) -> (36, bundles, tiles, channels of a bundle), as a view."""
    points, tiles, channels = values.shape
    return values.reshape(points, tiles, bundles, channels // bundles).swapaxes(1, 2)


def _bundles(g: Geometry) -> int:
    """How many bundles of at most 16 channels the groups are joined to."""
    most = max(1, BUNDLE * g.G // max(g.C, g.O))
    return g.G // max(n for n in range(1, most + 1) if g.G % n == 0)


# -- sizes and matrices -----------------------------------------------------------------


def _outputs_per_tile(g: Geometry) -> tuple[int, int]:
    R, S = g.kernel
    return TILE - R + 1, TILE - S + 1


def _tiles(g: Geometry) -> tuple[int, int]:
    """How many tiles cover the output, down and across."""
    p, q = (-(-places // m) for places, m in zip(g.places, _outputs_per_tile(g)))
    return p, q


def _blocks(part: slice, g: Geometry, itemsize: int) -> Iterator[slice]:
    p, q = _tiles(g)
    per_image = TILE * TILE * p * q * (g.C + g.O) * itemsize
    kernels = TILE * TILE * g.C * g.O // g.G * itemsize
    # A block of few images would read large kernels too often.
    size = max(1, max(BLOCK_BYTES, kernels // 2) // per_image)
    return (slice(n, min(n + size, part.stop)) for n in range(part.start, part.stop, size))


@dataclasses.dataclass(frozen=True)
class Transform:
    """The matrices A (6, m), G (6, R) and B (6, 6) along one axis."""

    A: np.ndarray
    G: np.ndarray
    B: np.ndarray


def _transforms(g: Geometry, dtype: np.dtype) -> tuple[Transform, Transform]:
    R, S = g.kernel
    return transform(R, dtype), transform(S, dtype)


@functools.cache
def transform(taps: int, dtype: np.dtype) -> Transform:
    """The matrices for a kernel of some taps."""

    def values(coefficients: int) -> np.ndarray:
        """The matrix that takes a polynomial's coefficients to its values at the points."""
        finite = np.vander(POINTS, coefficients, increasing=True)
        return np.vstack([finite, np.eye(coefficients)[-1]])

    A, G, B = values(TILE - taps + 1), values(taps), np.linalg.inv(values(TILE))
    return Transform(A.astype(dtype), G.astype(dtype), B.astype(dtype))


@functools.cache
def _kernel_transform_of(kernel: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    R, S = kernel
    exact = np.dtype(np.float64)
    return np.kron(transform(S, exact).G, transform(R, exact).G).astype(dtype)


def _kernel_transform(g: Geometry, dtype: np.dtype) -> np.ndarray:
    """G along both axes at once: (36, S * R)."""
    return _kernel_transform_of(g.kernel, dtype)
