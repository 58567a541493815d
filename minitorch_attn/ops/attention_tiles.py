"""The scores of attention, tile by tile: which tiles there are, and what stands in one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..engine import array_module
from ..engine.backend import Array, on_gpu

# Queries and keys of a tile. Half a megabyte of scores in float32: they stay in a core's cache.
ROWS, COLUMNS = 512, 256
ON_GPU = 4096  # of both on a GPU, which is kept busy by few large steps


Block = tuple[slice, slice]  # some queries: items of the batch, rows of each

# Tokens as columns (N, D + 1, c), by the first token of their tile. Each lies in one piece, as
# columns cut out of a wider array take a product some 7 % more time.
Columns = dict[int, Array]


class Tile(NamedTuple):
    """A place among the scores (N, L, S): some items of the batch, some queries, some keys."""

    items: slice
    rows: slice
    columns: slice

    @property
    def queries(self) -> Block:
        """Where its queries are, in an array (N, L, D)."""
        return self.items, self.rows

    @property
    def keys(self) -> tuple[slice, slice]:
        """Where its keys are, in an array (N, S, D)."""
        return self.items, self.columns


class Mask(NamedTuple):
    """Masks (M, L or 1, S or 1), and which of them each item of the batch has: (N,)."""

    values: Array
    which: Array

    @classmethod
    def of(cls, mask: Array | None, batch: tuple[int, ...]) -> Mask | None:
        """A mask that broadcasts to (*batch, L, S), for that batch as one axis."""
        if mask is None:
            return None
        xp = array_module(mask)
        *leading, L, S = (1,) * (2 - mask.ndim) + mask.shape
        M = math.prod(leading)
        which = xp.broadcast_to(xp.arange(M).reshape(leading), batch).reshape(-1)
        return cls(mask.reshape(M, L, S), which)

    def place(self, tile: Tile) -> tuple:
        """The index of a tile in `values`."""
        M, L, S = self.values.shape
        return (
            slice(None) if M == 1 else self.which[tile.items],
            slice(None) if L == 1 else tile.rows,
            slice(None) if S == 1 else tile.columns,
        )

    def at(self, tile: Tile) -> Array:
        """What broadcasts to the scores of a tile."""
        return self.values[self.place(tile)]


class Noise(NamedTuple):
    """Dropout among the weights: each draw a function of its place, so that none is stored.

    No order of tiles, threads or devices matters. (`scores.cuh` has the same for kernels.)
    """

    p: float
    seed: int
    L: int  # queries of an item

    @property
    def kept(self) -> float:
        """The factor of a weight that is kept."""
        return 0.0 if self.p == 1 else 1 / (1 - self.p)

    @property
    def dropped(self) -> int:
        """How many of the 2^32 numbers that may be drawn mean that a weight is not kept."""
        return min(int(self.p * 2**32), 2**32 - 1)

    def at(self, tile: Tile, weights: Array) -> Array | None:
        """A factor of the tile's weights: 0 with probability p, else 1 / (1 - p)."""
        if self.p == 0:
            return None
        xp = array_module(weights)
        items, rows, columns = (xp.arange(p.start, p.stop, dtype=np.uint32) for p in tile)
        row = _mixed(_mixed(items[:, None, None] * self.L + rows[:, None]) + self.seed)
        factor = (_mixed(row + columns * 0x9E3779B9) >= self.dropped).astype(weights.dtype)
        factor *= self.kept
        return factor


def _mixed(h: Array) -> Array:
    """Numbers of 32 bits, every bit of which changes each bit of the result half of the time.

    The constants are from Wellons, "Prospecting for Hash Functions" (2018).
    """
    h = h ^ (h >> 16)
    h *= 0x7FEB352D
    h ^= h >> 15
    h *= 0x846CA68B
    h ^= h >> 16
    return h


class Scores(NamedTuple):
    """What any tile of the scores is computed from, and the noise that their weights are given.

    Each query takes one more feature, and each key a one there. So the product of the two has
    a number of the query's choice added to each of its scores, at no cost: the forward pass
    subtracts the reference of its exponentials so, the backward pass the logarithm of their sum.
    """

    query: Array  # (N, L, D)
    key: Array  # (N, S, D)
    columns: Columns  # of the keys
    scale: np.floating
    bias: Mask | None
    allowed: Mask | None
    is_causal: bool
    noise: Noise

    @property
    def multiply_adds(self) -> int:
        """Of one product with all scores."""
        return math.prod(self.query.shape) * self.key.shape[1]

    def blocks(self) -> list[Block]:
        """Blocks that cover all queries, of several items where their scores are few."""
        N, L, _ = self.query.shape
        height, width = _tile_size(self.query)
        size = width if self.is_causal else height  # squares have fewest tiles on the diagonal
        scores = min(L, size) * min(self.key.shape[1], width)
        together = max(1, height * width // max(scores, 1))
        return [(items, rows) for items in _parts(N, together) for rows in _parts(L, size)]

    def tiles(self, block: Block) -> Iterator[Tile]:
        """The tiles of a block, without those where no query may look at a key."""
        items, rows = block
        _, width = _tile_size(self.key)
        for columns in _parts(self.key.shape[1], width):
            tile = Tile(items, rows, columns)
            if self.is_causal and columns.start >= rows.stop:
                return
            if self.allowed is None or on_gpu(self.key) or self.allowed.at(tile).any():
                yield tile  # (to ask a GPU what a mask hides is to wait for it)

    def queries(self, block: Block, added: Array) -> Array:
        """A block's scaled queries, with what is to be added to their scores: (G, r, D + 1)."""
        return with_column(self.query[block] * self.scale, added)

    def at(self, tile: Tile, queries: Array) -> Array:
        """The scores (G, r, c) of a tile, -inf where a query may not look."""
        s = queries @ self.columns[tile.columns.start][tile.items]
        if self.bias is not None:
            s += self.bias.at(tile)
        if self.allowed is not None:
            s += _barrier(self.allowed.at(tile), s.dtype)
        if self.is_causal and tile.columns.stop > tile.rows.start + 1:
            xp = array_module(s)
            i = xp.arange(tile.rows.start, tile.rows.stop)[:, None]
            j = xp.arange(tile.columns.start, tile.columns.stop)
            s += _barrier(j <= i, s.dtype)
        return s


def _barrier(allowed: Array, dtype: np.dtype) -> Array:
    """0 where it is allowed to look, else -inf: by a division, as `where` takes ten times that."""
    with np.errstate(divide="ignore"):
        return 1 - 1 / allowed.astype(dtype)


def with_column(x: Array, column: Array | float) -> Array:
    """An array (N, L, D), and one more feature: (N, L, D + 1)."""
    xp = array_module(x)
    wider = xp.empty((*x.shape[:-1], x.shape[-1] + 1), x.dtype)
    wider[..., :-1] = x
    wider[..., -1:] = column
    return wider


def in_columns(x: Array) -> Columns:
    """Tokens (N, S, D) as columns, with a one in each."""
    _, width = _tile_size(x)
    return {part.start: _columns(x[:, part]) for part in _parts(x.shape[1], width)}


def _columns(x: Array) -> Array:
    N, c, D = x.shape
    columns = array_module(x).ones((N, D + 1, c), x.dtype)
    columns[:, :-1] = x.swapaxes(1, 2)
    return columns


def _tile_size(x: Array) -> tuple[int, int]:
    """Queries and keys of a tile, where an array lies."""
    return (ON_GPU, ON_GPU) if on_gpu(x) else (ROWS, COLUMNS)


def _parts(length: int, size: int) -> list[slice]:
    """Slices of about a size that cover an axis, as equal as can be."""
    count = max(1, round(length / size)) if length else 0
    bounds = [length * i // count for i in range(count + 1)] if count else []
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
