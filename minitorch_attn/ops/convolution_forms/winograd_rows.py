"""Winograd's form along one axis: half the multiplications, and hardly anything to move.

As `winograd`, with the equation y = A^T [(G g) * (B^T d)] down the columns of the image alone; with
three taps, 6 multiplications do the work of 12. A tile is then six whole rows, which lie in memory
as a matrix product wants them, and the transforms touch nothing else. Along the rows the windows
are written out, as in `rows`.

For few channels this is quicker than saving more multiplications: they are soon done, and it is
moving tiles about that takes the time.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...engine import array_module
from ...engine.backend import Array
from ...engine.threads import in_parallel
from .geometry import Geometry
from .layout import channels_first, channels_last, close_by, copy_channels_last
from .winograd import TILE, tiles_along, transform

BLOCK_BYTES = 2 << 20  # images are worked through in blocks, to use what is still in the cache
QUICK_PRODUCT = 10**6  # of more multiplications, OpenBLAS first copies the factors of a product


def suits(g: Geometry) -> bool:
    """Whether the form can compute this convolution at all."""
    return (
        len(g.size) == 2
        and g.G == 1
        and g.is_reversible
        and max(g.dilation) == 1
        and g.kernel[0] < TILE
    )


def saving(g: Geometry) -> float:
    """How many times fewer multiplications there are than in the definition."""
    return g.kernel[0] * g.places[0] / (TILE * _tiles(g))


def forward(x: Array, weight: Array, g: Geometry) -> Array:
    """Y = A^T [(G g) * (B^T d)] for six rows d: (N, C, H, W), (O, C, R, S) -> (N, O, P, Q)."""
    xp = array_module(x)
    (P, Q), S, p = g.places, g.kernel[1], _tiles(g)
    A = xp.asarray(transform(g.kernel[0], x.dtype).A)
    kernels = _kernel_values(weight, g)
    y = xp.empty((g.N, p, A.shape[1], Q * g.O), dtype=xp.result_type(x, weight))

    def compute(part: slice) -> None:
        for images in _blocks(part, g, y.itemsize):
            there = y[images]
            values = xp.empty((TILE, len(there) * p * _pitch(g) // S, S, g.O), dtype=y.dtype)
            for s, seen in enumerate(_windows(x[images], g)):
                xp.matmul(seen, kernels, out=values[:, :, s])
            values = values.reshape(TILE, len(there), p, -1)[..., : Q * g.O]
            xp.matmul(A.T, values.transpose(1, 2, 0, 3), out=there)

    in_parallel(compute, g.N, g.multiply_adds)
    y = y.reshape(g.N, p * A.shape[1], Q, g.O)[:, :P]
    return channels_first(xp.ascontiguousarray(y))


def grad_input(dy: Array, weight: Array, g: Geometry) -> Array:
    """The convolution of dy with the rotated kernels: -> (N, C, H, W)."""
    return forward(dy, g.rotated(weight), g.back())


def grad_weight(dy: Array, x: Array, g: Geometry) -> Array:
    """The sum over the tiles of G^T [(A dY) * (B^T d)]: -> (O, C, R, S)."""
    xp = array_module(x)
    R, S = g.kernel

    def compute(part: slice) -> Array:
        total = xp.zeros((TILE, S * g.C, g.O), dtype=x.dtype)
        for images in _blocks(part, g, x.itemsize):
            dvalues = _output_values(dy[images], g).reshape(TILE, -1, S, g.O)
            for s, seen in enumerate(_windows(x[images], g)):
                total += seen.swapaxes(1, 2) @ dvalues[:, :, s]
        return total

    G = xp.asarray(transform(R, x.dtype).G)
    dkernels = G.T @ sum(in_parallel(compute, g.N, g.multiply_adds)).reshape(TILE, -1)
    return dkernels.reshape(R, S, g.C, g.O).transpose(3, 2, 0, 1)


# -- values at the 6 points -------------------------------------------------------------


def _windows(x: Array, g: Geometry) -> Iterator[Array]:
    """What every S-th place sees in B^T d, from place 0, 1 ... S - 1 on: S x (6, places, S * C).

    The windows of places 0, S, 2 S ... lie in memory side by side, which makes them the rows of a
    matrix without a copy; so do those of places 1, S + 1, 2 S + 1 ...
    """
    values, start = _image_values(x, g), (g.kernel[1] - 1) * g.C
    for first in range(0, start + 1, g.C):
        yield values[first : len(values) - start + first].reshape(TILE, -1, g.kernel[1] * g.C)


def _image_values(x: Array, g: Geometry) -> Array:
    """B^T d of all tiles, in one row: (N, C, H, W) -> (6 * N * tiles * pitch * C + (S - 1) * C,).

    The last window sticks out by S - 1 pixels.
    """
    xp = array_module(x)
    B, p = xp.asarray(transform(g.kernel[0], x.dtype).B), _tiles(g)
    (top, _), (left, _) = g.border
    n, C, H, W = x.shape
    padded = xp.zeros((n, p * _rows_per_tile(g) + g.kernel[0] - 1, _pitch(g), C), dtype=x.dtype)
    copy_channels_last(x, padded[:, top : top + H, left : left + W])
    d = tiles_along(1, padded.reshape(n, padded.shape[1], -1), p, _rows_per_tile(g))
    count = TILE * n * p * d.shape[3]
    values = xp.empty(count + (g.kernel[1] - 1) * C, dtype=x.dtype)
    values[count:] = 0
    xp.matmul(B.T, d, out=values[:count].reshape(TILE, n, p, -1).transpose(1, 2, 0, 3))
    return values


def _output_values(dy: Array, g: Geometry) -> Array:
    """A dY of all tiles, and zeros to the right: (N, O, P, Q) -> (6, N, tiles, pitch * O)."""
    xp = array_module(dy)
    A, p, m = xp.asarray(transform(g.kernel[0], dy.dtype).A), _tiles(g), _rows_per_tile(g)
    n, O, P, Q = dy.shape
    outputs = channels_last(close_by(dy))
    if P < p * m:
        rows, outputs = outputs, xp.zeros((n, p * m, Q, O), dtype=dy.dtype)
        outputs[:, :P] = rows
    values = xp.empty((TILE, n, p, _pitch(g) * O), dtype=dy.dtype)
    values[..., Q * O :] = 0
    outputs = outputs.reshape(n, p, m, Q * O)
    xp.matmul(A, outputs, out=values[..., : Q * O].transpose(1, 2, 0, 3))
    return values


def _kernel_values(weight: Array, g: Geometry) -> Array:
    """G g: (O, C, R, S) -> (6, S * C, O)."""
    xp = array_module(weight)
    R, S = g.kernel
    G = xp.asarray(transform(R, weight.dtype).G)
    values = G @ weight.transpose(2, 3, 1, 0).reshape(R, -1)
    return values.reshape(TILE, S * g.C, g.O)


# -- sizes ------------------------------------------------------------------------------


def _rows_per_tile(g: Geometry) -> int:
    return TILE - g.kernel[0] + 1


def _tiles(g: Geometry) -> int:
    return -(-g.places[0] // _rows_per_tile(g))


def _pitch(g: Geometry) -> int:
    """How many pixels it is from row to row: a multiple of S.

    The zeros behind a row are also those before the next one.
    """
    S = g.kernel[1]
    return -(-(g.size[1] + max(g.border[1])) // S) * S


def _blocks(part: slice, g: Geometry, itemsize: int) -> Iterator[slice]:
    places = _tiles(g) * _pitch(g)
    fitting = BLOCK_BYTES // (TILE * places * (g.C + g.O) * itemsize)
    quick = QUICK_PRODUCT // (places * g.C * g.O)
    size = max(1, min(fitting, quick))
    return (slice(n, min(n + size, part.stop)) for n in range(part.start, part.stop, size))
