"""Adaptive pooling: as many windows as asked for, which cover the image.

Along an axis of size H, window p of P spans the elements from floor(p H / P) up to
ceil((p + 1) H / P): windows may overlap, and their sizes differ by one or two.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..engine import Tensor, array_module, as_tensor, primitive
from ..engine.backend import Array, on_gpu
from ..engine.dtypes import is_floating
from ..engine.kernels import FLOATS, THREADS, Kernel
from .avg_pooling import Count, mean_on_gpu
from .lines import SOURCE, Lines
from .max_pooling import find_greatest, give_to_greatest
from .pooling_windows import covering, has_kernels
from .windows import Sizes, also_unbatched, check_images, per_axis

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
]

Size = int | tuple[int | None, ...]

MEAN_OF_LINES = Kernel(
    "mean_of_lines",
    SOURCE
    + r"""
extern "C" __global__ void mean_of_lines(const T* x, T* y, long long lines, long long length) {
    if (LINE >= lines) return;
    acc_t sum = 0;
    FOR_EACH_OF_LINE(i, length) sum += acc_t(x[LINE * length + i]);
    sum = line_sum(sum);
    if (threadIdx.x == 0) y[LINE] = T(sum / length);
}
""",
    [{"T": t, "WIDTH": width} for t in FLOATS for width in (32, THREADS, 1024)],
)


@also_unbatched(1)
def adaptive_avg_pool1d(input: Any, output_size: int | tuple[int]) -> Tensor:
    """Mean of each of P windows that cover a sequence, as `adaptive_avg_pool2d`.

    Parameters
    ----------
    input : (N, C, W) or (C, W)
    output_size : int
        P.

    Returns
    -------
    (N, C, P) or (C, P)
    """
    return _avg_pool(1, input, output_size)


@also_unbatched(2)
def adaptive_avg_pool2d(input: Any, output_size: Size) -> Tensor:
    """Mean of each of P x Q windows that cover the image.

    Window p spans the rows from floor(p H / P) up to ceil((p + 1) H / P), and so for columns.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W)
    output_size : int or (int or None, int or None)
        P and Q; None keeps the input's size. 1 is global pooling: the mean of each channel.

    Returns
    -------
    (N, C, P, Q) or (C, P, Q)

    Raises
    ------
    ValueError
        If `output_size` is none of these, or below 1.
    """
    return _avg_pool(2, input, output_size)


@also_unbatched(3)
def adaptive_avg_pool3d(input: Any, output_size: Size) -> Tensor:
    """Mean of each of the windows that cover a volume, as `adaptive_avg_pool2d`.

    Parameters
    ----------
    input : (N, C, D, H, W) or (C, D, H, W)
    output_size : int or three of int or None

    Returns
    -------
    (N, C, *output_size) or (C, *output_size)
    """
    return _avg_pool(3, input, output_size)


def _avg_pool(dims, input, output_size) -> Tensor:
    places = _output_size(f"adaptive_avg_pool{dims}d", dims, input, output_size)
    return _AVG_POOLS[dims](input, places=places)


def _avg_pooling(op: str) -> Callable[..., Tensor]:
    """The primitive under the name that errors and graphs show."""

    def pool(x, *, places):
        if on_gpu(x):
            if math.prod(places) == 1:
                return _mean_of_images(x)
            return mean_on_gpu(x, covering(x.shape[2:], places), Count())
        if not any(n % p for n, p in zip(x.shape[2:], places)):
            return _mean_of_tiles(x, places)
        return _mean_of_spans(x, places)

    pool.__name__ = op
    return primitive(floats="all", takes_half=True)(pool)


_AVG_POOLS = {dims: _avg_pooling(f"adaptive_avg_pool{dims}d") for dims in (1, 2, 3)}


def _mean_of_images(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Global pooling on a GPU, where many threads take an image together."""
    xp, shape = array_module(x), x.shape
    lines = Lines.along(2, (*shape[:2], math.prod(shape[2:])))
    y, x = xp.empty((*shape[:2], *(1,) * (x.ndim - 2)), x.dtype), xp.ascontiguousarray(x)
    MEAN_OF_LINES(*lines.launch, x, y, lines.count, lines.length, T=x.dtype, WIDTH=lines.width)

    def vjp_x(dy):
        return xp.broadcast_to(dy / lines.length, shape)

    return y, vjp_x


def _mean_of_tiles(x: Array, places: Sizes) -> tuple[Array, Callable[[Array], Array]]:
    """Where the windows are all of one size: (N, C, P, H / P, Q, W / Q), the mean over tiles."""
    shape, xp = x.shape, array_module(x)
    tile = tuple(n // p for n, p in zip(shape[2:], places))
    tiled = (*shape[:2], *itertools.chain.from_iterable(zip(places, tile)))
    inside = tuple(range(3, len(tiled), 2))

    def vjp_x(dy):
        share = dy / math.prod(tile)
        if math.prod(places) == 1:  # a view
            return xp.broadcast_to(share, shape)
        return xp.broadcast_to(xp.expand_dims(share, inside), tiled).reshape(shape)

    return x.reshape(tiled).mean(axis=inside), vjp_x


def _mean_of_spans(x: Array, places: Sizes) -> tuple[Array, Callable[[Array], Array]]:
    """Where windows overlap: along one axis after the other, a window at a time."""
    size = x.shape[2:]
    for axis, count in enumerate(places, start=2):
        x = _mean_along(axis, x, _spans(x.shape[axis], count))

    def vjp_x(dy):
        for axis in reversed(range(2, dy.ndim)):
            dy = _share_along(axis, dy, size[axis - 2])
        return dy

    return x, vjp_x


def _mean_along(axis: int, x: Array, spans: list[slice]) -> Array:
    """Mean of windows that extend along one axis."""
    y = array_module(x).empty_like(x, shape=_resized(x.shape, axis, len(spans)))
    for p, span in enumerate(spans):
        elements = (x[_along(axis, i)] for i in range(span.start, span.stop))
        y[_along(axis, p)] = functools.reduce(operator.add, elements) / (span.stop - span.start)
    return y


def _share_along(axis: int, dy: Array, size: int) -> Array:
    """Give each element its share of the gradients of the windows that it is in."""
    dx = array_module(dy).zeros_like(dy, shape=_resized(dy.shape, axis, size))
    for p, span in enumerate(_spans(size, dy.shape[axis])):
        share = dy[_along(axis, slice(p, p + 1))] / (span.stop - span.start)
        dx[_along(axis, span)] += share
    return dx


@also_unbatched(1)
def adaptive_max_pool1d(
    input: Any, output_size: int | tuple[int], return_indices: bool = False
) -> Any:
    """Greatest element of each of P windows that cover a sequence, as `adaptive_max_pool2d`.

    Parameters
    ----------
    input : (N, C, W) or (C, W)
    output_size : int
        P.
    return_indices : bool

    Returns
    -------
    (N, C, P) or (C, P)
    """
    return _max_pool(1, input, output_size, return_indices)


@also_unbatched(2)
def adaptive_max_pool2d(input: Any, output_size: Size, return_indices: bool = False) -> Any:
    """Greatest element of each of P x Q windows that cover the image.

    Window p spans the rows from floor(p H / P) up to ceil((p + 1) H / P), and so for columns.
    The gradient goes to the first (row by row) of the greatest elements. NaN counts as greater
    than any number, and the last NaN wins.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W)
    output_size : int or (int or None, int or None)
        P and Q; None keeps the input's size. 1 is global pooling.
    return_indices : bool
        Also return where the greatest elements are: h * W + w for the one in row h, column w.

    Returns
    -------
    (N, C, P, Q) or (C, P, Q)
        With `return_indices` a tuple of it and the indices, int64, of the same shape.

    Raises
    ------
    ValueError
        If `output_size` is none of these, or below 1.
    """
    return _max_pool(2, input, output_size, return_indices)


@also_unbatched(3)
def adaptive_max_pool3d(input: Any, output_size: Size, return_indices: bool = False) -> Any:
    """Greatest element of each of the windows that cover a volume, as `adaptive_max_pool2d`.

    Parameters
    ----------
    input : (N, C, D, H, W) or (C, D, H, W)
    output_size : int or three of int or None
    return_indices : bool

    Returns
    -------
    (N, C, *output_size) or (C, *output_size)
    """
    return _max_pool(3, input, output_size, return_indices)


def _max_pool(dims, input, output_size, return_indices) -> Any:
    places = _output_size(f"adaptive_max_pool{dims}d", dims, input, output_size)
    positions = as_tensor(_where_greatest(input._data, places))
    y = _MAX_POOLS[dims](input, positions=positions, places=places)
    return (y, positions) if return_indices else y


def _max_pooling(op: str) -> Callable[..., Tensor]:
    """The primitive under the name that errors and graphs show: it picks what was found."""

    def pool(x, *, positions, places):
        xp, shape, size = array_module(x), x.shape, math.prod(x.shape[2:])
        images = xp.arange(math.prod(shape[:2])).reshape(*shape[:2], *(1,) * (x.ndim - 2))
        flat = positions + images * size

        def vjp_x(dy):
            if on_gpu(dy):
                return give_to_greatest(dy, positions, covering(shape[2:], places))
            dx = xp.zeros(math.prod(shape), dtype=dy.dtype)
            xp.add.at(dx, flat.reshape(-1), dy.reshape(-1))
            return dx.reshape(shape)

        return x.reshape(-1)[flat], vjp_x

    pool.__name__ = op
    return primitive(floats="half", takes_half=True)(pool)


_MAX_POOLS = {dims: _max_pooling(f"adaptive_max_pool{dims}d") for dims in (1, 2, 3)}


def _where_greatest(x: Array, places: Sizes) -> Array:
    """Flat positions of the greatest elements: (N, C, P, Q). Windows of one size go together."""
    if has_kernels(x):
        return find_greatest(x, covering(x.shape[2:], places), np.int64)[1]
    xp, dims, size = array_module(x), len(places), x.shape[2:]
    positions = xp.empty((*x.shape[:2], *places), dtype=np.int64)
    for window, chosen, starts in _groups(size, places):
        views = xp.lib.stride_tricks.sliding_window_view(x, window, axis=tuple(range(2, x.ndim)))
        seen = views[(..., *np.ix_(*starts), *(slice(None),) * dims)]
        winner = _argmax(seen.reshape(*seen.shape[: x.ndim], math.prod(window)))
        flat = 0
        for n, start, inside in zip(size, np.ix_(*starts), xp.unravel_index(winner, window)):
            flat = flat * n + xp.asarray(start) + inside
        positions[(..., *np.ix_(*chosen))] = flat
    return positions


def _groups(size: Sizes, places: Sizes) -> Iterator[tuple[Sizes, list, list]]:
    """The sizes that windows have; for each: which windows those are, and where they start."""
    per_axis = []
    for n, count in zip(size, places):
        spans = _spans(n, count)
        reach = np.array([span.stop - span.start for span in spans])
        start = np.array([span.start for span in spans])
        chosen = [(int(r), np.flatnonzero(reach == r)) for r in np.unique(reach)]
        per_axis.append([(r, which, start[which]) for r, which in chosen])
    for combination in itertools.product(*per_axis):
        window, chosen, starts = zip(*combination)
        yield window, list(chosen), list(starts)


def _argmax(x: Array) -> Array:
    """Along the last axis: where the first greatest element is, or the last NaN."""
    winner = x.argmax(axis=-1)
    if is_floating(x.dtype) and np.isnan(x.max(initial=-np.inf)):
        is_nan = np.isnan(x)
        last = x.shape[-1] - 1 - is_nan[..., ::-1].argmax(axis=-1)
        winner = array_module(x).where(is_nan.any(axis=-1), last, winner)
    return winner


# -- what they share -------------------------------------------------------------------------------


def _spans(size: int, places: int) -> list[slice]:
    """The elements of each window along one axis."""
    return [slice(p * size // places, -(-(p + 1) * size // places)) for p in range(places)]


def _along(axis: int, elements: slice | int) -> tuple[slice | int, ...]:
    """The index that picks elements along one axis and everything along the others."""
    return (slice(None),) * axis + (elements,)


def _resized(shape: Sizes, axis: int, size: int) -> Sizes:
    """A shape with another size along one axis."""
    return (*shape[:axis], size, *shape[axis + 1 :])


def _output_size(op: str, dims: int, input: Tensor, output_size: Any) -> Sizes:
    """The number of windows along each axis of space."""
    check_images(op, input, dims)
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,)
    sizes = sizes * dims if len(sizes) == 1 else sizes
    kept = [n if size is None else size for n, size in zip(input.shape[2:], sizes)]
    return per_axis(op, "output_size", (*kept, *sizes[dims:]), dims, least=1)
