"""What a kernel of the GPU looks up: where the window of each place begins, where each tap lies.

A product of a convolution gathers numbers from an image: the window of place p begins at
``starts[p]``, and tap r lies ``shifts[r]`` further, along each axis. Strides, padding, dilation and
the number of axes are nothing but such numbers, and the gradient of the images is a product of the
same kind. A kernel that reads them from tables needs to know none of it, and divides nothing. The
tables are small, made once for each geometry, and stay on the GPU.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import NamedTuple

import numpy as np

from ...engine.backend import Array
from ..windows import Border, Sizes
from .geometry import Geometry

NOWHERE = 31  # the bit of a tap that is never inside of an image: what fills up the last tile
MULTIPLE = 128  # to which the table of the taps is filled up: the columns of a tile
LARGEST = 2**31  # elements of an image: a table holds 32 bits


@dataclass(frozen=True)
class Axis:
    """One axis of space of a product.

    Attributes
    ----------
    size : int
        Of the image that is gathered from.
    starts : range
        For each place where its window begins, but for the shifts.
    shifts : sequence of int
        For each tap how far it lies from there.
    taps : sequence of int
        Which taps of the kernel these are.
    where : range
        For each place where its result goes.
    """

    size: int
    starts: range
    shifts: Sequence[int]
    taps: Sequence[int]
    where: range

    @property
    def sticks_out(self) -> tuple[int, int]:
        """How far the windows reach beyond the image, before and after."""
        if not self.starts or not self.shifts:
            return 0, 0
        first = self.starts[0] + min(self.shifts)
        last = self.starts[-1] + max(self.shifts)
        return max(0, -first), max(0, last - self.size + 1)

    def padded(self) -> Axis:
        """The same product of an image with a border: no window sticks out of it."""
        before, after = self.sticks_out
        shifts = tuple(shift + before for shift in self.shifts)
        return replace(self, size=before + self.size + after, shifts=shifts)


@dataclass(frozen=True)
class Product:
    """Sums over channels and taps, for each row (channel of the result) and place of each image.

    Attributes
    ----------
    axes : tuple of Axis
        The axes of space.
    groups, rows, channels : int
        Groups, and in each of them channels of the result and channels that are summed over.
    kernel, size : tuple of int
        (R, S) of the weight, and the size of the result.
    row_step, channel_step : int
        Elements of the weight from row to row, and from channel to channel.
    """

    axes: tuple[Axis, ...]
    groups: int
    rows: int
    channels: int
    kernel: Sizes
    size: Sizes
    row_step: int
    channel_step: int

    @property
    def places(self) -> int:
        """How many an image has."""
        return math.prod(len(axis.starts) for axis in self.axes)

    @property
    def depth(self) -> int:
        """How many products are summed: channels times taps."""
        return self.channels * math.prod(len(axis.taps) for axis in self.axes)

    @property
    def image(self) -> int:
        """Elements of a group of channels of the image that is gathered from."""
        return self.channels * math.prod(axis.size for axis in self.axes)

    @property
    def plane(self) -> int:
        """Elements of a channel of the result."""
        return math.prod(self.size)

    @property
    def is_dense(self) -> bool:
        """Whether the places fill the result in order."""
        return all(a.where == range(n) for a, n in zip(self.axes, self.size))

    @property
    def has_bits(self) -> bool:
        """Whether a bit for each tap along each axis finds room in the tables."""
        return sum(len(axis.taps) for axis in self.axes) <= NOWHERE

    def fitted(self) -> tuple[Product, Border | None]:
        """The product as kernels can compute it, and the border its image must be given.

        With more taps than bits, tables cannot say which taps are inside of the image: then it
        gets a border, and all are.
        """
        if self.has_bits:
            return self, None
        border = tuple(axis.sticks_out for axis in self.axes)
        return replace(self, axes=tuple(axis.padded() for axis in self.axes)), border


def forward(g: Geometry) -> Product:
    """From x to y."""
    axes = tuple(
        Axis(n, range(0, P * a, a), range(-before, R * d - before, d), range(R), range(P))
        for n, P, R, a, d, (before, _) in zip(
            g.size, g.places, g.kernel, g.stride, g.dilation, g.border
        )
    )
    taps, O, C = math.prod(g.kernel), g.O // g.G, g.C // g.G
    return Product(axes, g.G, O, C, g.kernel, g.places, C * taps, taps)


def grad_input(g: Geometry) -> Iterator[Product]:
    """From dy to dx, in as many products as there are ways for a stride to meet a pixel.

    Tap r meets pixel h at place p if p a + r d = h + border. Pixels of the same remainder h mod a
    meet the same taps, and a step to the next of them is a step to the next place: each remainder
    is a product by itself, with no multiplications by zeros that a stride has left out.
    """
    remainders = (range(min(a, n)) for a, n in zip(g.stride, g.size))
    taps, O, C = math.prod(g.kernel), g.O // g.G, g.C // g.G
    for remainder in itertools.product(*remainders):
        axes = tuple(itertools.starmap(_back, zip(remainder, *_axes(g))))
        yield Product(axes, g.G, C, O, g.kernel, g.size, taps, C * taps)


def _axes(g: Geometry) -> tuple:
    return g.size, g.places, g.kernel, g.stride, g.dilation, g.border


def _back(h: int, n: int, P: int, R: int, a: int, d: int, border: tuple[int, int]) -> Axis:
    where = range(h, n, a)
    taps = tuple(r for r in range(R) if (h + border[0] - r * d) % a == 0)
    shifts = tuple((h + border[0] - r * d) // a for r in taps)
    return Axis(P, range(len(where)), shifts, taps, where)


class Tables(NamedTuple):
    """On the GPU, of 32-bit integers.

    Attributes
    ----------
    places : (places, 2)
        Where each window begins, in elements of a channel; bits of the taps inside of the image.
    taps : (depth, filled up, 2)
        Where each tap lies in the window, channels before axes; the bits that it needs.
    where : (places,)
        Where the result of each place goes, in elements of a channel.
    order : (depth,)
        Where the weight of each tap lies, in elements of a row.
    """

    places: Array
    taps: Array
    where: Array
    order: Array


@functools.lru_cache(maxsize=256)
def tables(xp: ModuleType, product: Product) -> Tables:
    """The tables of a product that is `fitted`, on the GPU.

    Raises
    ------
    ValueError
        If an image is too large for them.
    """
    axes = product.axes
    most = product.groups * max(product.image, product.rows * product.plane)
    if most >= LARGEST:
        raise ValueError(f"an image of {most} elements is too large: a GPU takes less than 2**31")
    steps = _steps([axis.size for axis in axes])
    starts = _sums([np.multiply(axis.starts, step) for axis, step in zip(axes, steps)])
    plane = math.prod(axis.size for axis in axes)
    shifts = _sums(
        [
            np.arange(product.channels) * plane,
            *(np.multiply(axis.shifts, step) for axis, step in zip(axes, steps)),
        ]
    )
    inside, needed = _bits(product)
    taps = np.zeros((-(-len(shifts) // MULTIPLE) * MULTIPLE, 2), np.int64)
    taps[:, 1] = 1 << NOWHERE
    taps[: len(shifts)] = np.stack([shifts, np.tile(needed, product.channels)], axis=1)
    where = _sums([np.multiply(a.where, step) for a, step in zip(axes, _steps(product.size))])
    order = _sums(
        [
            np.arange(product.channels) * product.channel_step,
            *(np.multiply(a.taps, step) for a, step in zip(axes, _steps(product.kernel))),
        ]
    )
    return Tables(
        *(
            xp.asarray(table.astype(np.uint32).view(np.int32))
            for table in (np.stack([starts, inside], axis=1), taps, where, order)
        )
    )


def _bits(product: Product) -> tuple[Array, Array]:
    """The taps inside of the image at each place, and those that each tap needs to be: itself."""
    if not product.has_bits:
        depth = math.prod(len(axis.taps) for axis in product.axes)
        return np.ones(product.places, np.int64), np.ones(depth, np.int64)
    inside, needed, bit = [], [], 0
    for axis in product.axes:
        bits = 1 << np.arange(bit, bit + len(axis.taps))
        met = np.add.outer(np.array(axis.starts, np.int64), np.array(axis.shifts, np.int64))
        inside.append(((met >= 0) & (met < axis.size)) @ bits)
        needed.append(bits)
        bit += len(axis.taps)
    return _sums(inside), _sums(needed)


def _steps(sizes: Sequence[int]) -> list[int]:
    """Elements from one index to the next, along each axis of a channel."""
    return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]


def _sums(parts: Sequence[Array]) -> Array:
    """The sum of one number of each part, for all combinations; the last part runs fastest."""
    return functools.reduce(np.add.outer, parts).ravel().astype(np.int64)
