"""Convolution on a GPU: a matrix product that gathers its factors while it runs.

Column matrices, as in `columns`, would be nine times the image for 3 x 3 kernels, written and read
again. Here blocks of threads gather what they multiply next (`implicit_gemm.cu`), from where
`lookup` says. Groups of few output channels have too few rows for that: `direct.cu`. Pixels by
themselves, in float32 or float64, are multiplied by cuBLAS, as in `pointwise`.

float16 and bfloat16 arrays, and float32 ones if `set_float32_matmul_precision` allows, are
multiplied by the matrix units of the card (of compute capability 8.0 or more) and added up in
float32.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ...engine import array_module
from ...engine.backend import Array, get_float32_matmul_precision, has_matrix_units
from ...engine.dtypes import accumulator, is_half
from ...engine.kernels import FLOATS, Kernel, c_constant
from ..windows import pad
from . import lookup, pointwise
from .geometry import Geometry

FEW = 4  # rows of a group that are summed one by one
ENOUGH = 512  # blocks that keep a large card busy: four on each of 128 multiprocessors

# What the kernels say too.
COLUMNS = 128  # of a tile
STEP = 32  # places that a share is a multiple of: the most that a tile has along k
TAPS = 9  # whose gradients a block of direct.cu sums at a time
IMAGES = 4  # of which a thread of direct.cu takes a place

HERE = Path(__file__).parent
WORDS = HERE / "words.cuh"


def _tiles(T: str, units: bool) -> dict[int, int]:
    """Which rows a tile can have, and how many of them a thread takes, from the largest."""
    if T == "double":  # fills twice the registers
        return {64: 4, 32: 4}
    if T in ("half_t", "bfloat_t") and not units:  # on old cards, where they are better left
        return {64: 8}
    return {128: 8, 64: 8, 32: 4}


_WAYS = [(T, units) for T in FLOATS for units in (True, False) if (T, units) != ("double", True)]
_VARIANTS = [
    {"T": T, "MATRIX_UNITS": units, "BM": rows, "TM": each, "GRAD_WEIGHT": back}
    for T, units in _WAYS
    for rows, each in _tiles(T, units).items()
    for back in (False, True)
]

IMPLICIT_GEMM = Kernel("implicit_gemm", (WORDS, HERE / "implicit_gemm.cu"), _VARIANTS)
PACK = Kernel(
    "pack",
    (WORDS, HERE / "pack.cu"),
    [{"T": T, "MATRIX_UNITS": units} for T, units in _WAYS],
)
DIRECT = Kernel(
    "direct",
    HERE / "direct.cu",
    [{"T": T, "GRAD_WEIGHT": back} for T in FLOATS for back in (False, True)],
)


def forward(x: Array, weight: Array, g: Geometry, bias: Array | None = None) -> Array:
    """(N, C, H, W), (O, C / G, R, S) -> (N, O, P, Q); a bias is added on the way."""
    x, weight = _alike(x, weight)
    if _is_pointwise(g, x):
        y = pointwise.forward(x, weight, g)
        return y if bias is None else _add(y, bias)
    y = array_module(x).empty(g.y_shape, dtype=x.dtype)
    _multiply(lookup.forward(g), x, weight, y, bias)
    return y


def grad_input(dy: Array, weight: Array, g: Geometry, bias: Array | None = None) -> Array:
    """(N, O, P, Q), (O, C / G, R, S) -> (N, C, H, W); a transposed convolution's has a bias."""
    dy, weight = _alike(dy, weight)
    if _is_pointwise(g, dy):
        dx = pointwise.grad_input(dy, weight, g)
        return dx if bias is None else _add(dx, bias)
    dx = array_module(dy).empty(g.x_shape, dtype=dy.dtype)
    for product in lookup.grad_input(g):
        _multiply(product, dy, weight, dx, bias)
    return dx


def grad_weight(dy: Array, x: Array, g: Geometry) -> Array:
    """(N, O, P, Q), (N, C, H, W) -> (O, C / G, R, S).

    The sum runs over all places of all images, and there are few results: blocks take shares of the
    places, and their sums are summed afterwards. So the card is busy, and the result is the same
    at every run, as it would not be if they added to one array at once.
    """
    dy, x = _alike(dy, x)
    product, border = lookup.forward(g).fitted()
    x = x if border is None else pad(x, border)
    parts = (_direct_shares if product.rows <= FEW else _shares)(product, dy, x)
    total = parts[0] if len(parts) == 1 else parts.sum(axis=0)
    return total.reshape(g.weight_shape).astype(x.dtype, copy=False)


def _multiply(
    product: lookup.Product, x: Array, weight: Array, y: Array, bias: Array | None
) -> None:
    """Write a product, and the bias, into y."""
    product, border = product.fitted()
    x = x if border is None else pad(x, border)
    (_directly if product.rows <= FEW else _in_tiles)(product, x, weight, y, bias)


def _in_tiles(
    product: lookup.Product, x: Array, weight: Array, y: Array, bias: Array | None
) -> None:
    N, P = len(x), product.places
    columns = -(-N * P // COLUMNS)
    tile = _tile(x, product, columns)
    table = lookup.tables(array_module(x), product)
    packed = _packed(weight, product, table.order, tile)
    bias_or_any = y if bias is None else _alike(bias, x)[0]
    fours = product.is_dense and P % 4 == 0
    shapes = product.rows, N, P, product.depth, product.image, product.plane
    IMPLICIT_GEMM(
        (-(-product.rows // tile["BM"]) * columns, product.groups),
        _threads(tile),
        *(x, packed, y, bias_or_any, *table[:3], *shapes, bias is not None, fours, 0, 0, 0),
        **tile,
        GRAD_WEIGHT=False,
    )


def _directly(
    product: lookup.Product, x: Array, weight: Array, y: Array, bias: Array | None
) -> None:
    N, P, O = len(x), product.places, product.groups * product.rows
    table = lookup.tables(array_module(x), product)
    bias_or_any = y if bias is None else _alike(bias, x)[0]
    shapes = O, product.rows, N, P, product.depth, product.image, product.plane
    steps = weight.size // product.groups, product.row_step
    DIRECT(
        (-(-O * P // 256), min(-(-N // IMAGES), 65535)),
        256,
        *(x, weight, y, bias_or_any, *table, *shapes, *steps, bias is not None),
        T=x.dtype,
        GRAD_WEIGHT=False,
    )


def _packed(weight: Array, product: lookup.Product, order: Array, tile: dict[str, Any]) -> Array:
    """The weight as words, in the order in which tiles of it are read, filled up to whole tiles."""
    xp, T = array_module(weight), weight.dtype
    pack, deep, word = _words(T, tile["MATRIX_UNITS"])
    width = -(-product.rows // tile["BM"]) * tile["BM"]
    depth = -(-product.depth // (pack * deep)) * deep
    packed = xp.empty((product.groups, depth, width), dtype=word)
    PACK.over(
        *(packed.size, weight, order, packed, product.groups, product.rows, product.depth),
        *(width, depth, weight.size // product.groups, product.row_step),
        T=T,
        MATRIX_UNITS=tile["MATRIX_UNITS"],
    )
    return packed


def _shares(product: lookup.Product, dy: Array, x: Array) -> Array:
    """Sums over shares of the places: (shares, O, C / G R S)."""
    xp, N, P, K = array_module(x), len(x), product.places, product.depth
    table = lookup.tables(xp, product)
    tile = _tile(x, product, ENOUGH)  # shares make enough of tiles of any size
    grid = -(-product.rows // tile["BM"]) * -(-K // COLUMNS)
    shares = min(ENOUGH // max(1, grid * product.groups), N * P // 256)
    shares = max(1, shares, -(-N * P // 2**30))  # within a share 31 bits count the places
    share = -(-N * P // (shares * STEP)) * STEP
    parts = xp.empty((shares, product.groups * product.rows, K), dtype=accumulator(x.dtype))
    shapes = product.rows, N, P, K, product.image, K
    IMPLICIT_GEMM(
        (grid, product.groups, shares),
        _threads(tile),
        *(x, dy, parts, x, *table[:3], *shapes, False, K % 4 == 0, share, *_reciprocal(P)),
        **tile,
        GRAD_WEIGHT=True,
    )
    return parts


def _reciprocal(P: int) -> tuple[int, int]:
    """Numbers r, s of 32 bits at most such that i // P is i r >> s, for i below 2**31."""
    shift = 31 + (P - 1).bit_length()
    return -(-(1 << shift) // P), shift


def _direct_shares(product: lookup.Product, dy: Array, x: Array) -> Array:
    """Sums over shares of the images: (shares, O, C / G R S)."""
    xp, N, P, K = array_module(x), len(x), product.places, product.depth
    table = lookup.tables(xp, product)
    grid = product.groups * product.rows, -(-K // TAPS)
    shares = max(1, min(2 * ENOUGH // max(1, math.prod(grid)), N), -(-N * P // 2**30))
    parts = xp.empty((shares, grid[0], K), dtype=accumulator(x.dtype))
    DIRECT(
        (*grid, shares),
        256,
        *(x, dy, parts, table.places, table.taps, product.rows, N, P, K, product.image),
        T=x.dtype,
        GRAD_WEIGHT=True,
    )
    return parts


def _tile(x: Array, product: lookup.Product, columns: int) -> dict[str, Any]:
    """The constants of the kernel: the largest tile that is filled well and makes enough blocks."""
    units = _takes_units(x)
    tiles = _tiles(c_constant(x.dtype), units)

    def suits(rows: int) -> bool:
        down = -(-product.rows // rows)
        busy = rows < 128 or down * columns * product.groups >= ENOUGH // 4
        return busy and 3 * down * rows <= 4 * product.rows

    rows = next(filter(suits, tiles), min(tiles))
    return {"T": x.dtype, "MATRIX_UNITS": units, "BM": rows, "TM": tiles[rows]}


def _threads(tile: dict[str, Any]) -> int:
    """A thread of a tile computes TM x 8 numbers."""
    return tile["BM"] * COLUMNS // (8 * tile["TM"])


def _takes_units(x: Array) -> bool:
    """Whether the matrix units of the card multiply numbers of this dtype."""
    wanted = is_half(x.dtype) or (
        x.dtype.name == "float32" and get_float32_matmul_precision() == "high"
    )
    return wanted and has_matrix_units(array_module(x))


def _words(dtype: Any, units: bool) -> tuple[int, int, Any]:
    """As in words.cuh: numbers in a word, words of a tile along k, and a word's dtype."""
    if units:
        return 4 // dtype.itemsize, 16, "uint32"
    return 1, 8, accumulator(dtype)


def _is_pointwise(g: Geometry, x: Array) -> bool:
    """Whether cuBLAS multiplies the images as they lie.

    CuPy leaves the matrix units out of products of more than two axes: what these can multiply is
    left to our own kernel, and half precision, which CuPy would convert, in any case.
    """
    by_cublas = not is_half(x.dtype) and not _takes_units(x)
    return by_cublas and pointwise.suits(g) and g.places == g.size


def _alike(*arrays: Array) -> list[Array]:
    """Arrays of one dtype without gaps, as a kernel needs them."""
    xp = array_module(arrays[0])
    dtype = xp.result_type(*arrays)
    return [xp.ascontiguousarray(a, dtype=dtype) for a in arrays]


def _add(y: Array, bias: Array) -> Array:
    y += bias.reshape(-1, *(1,) * (y.ndim - 2))
    return y
