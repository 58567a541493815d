"""Max pooling: the greatest element of each window.

The greatest of a window is the greatest of its rows' greatest: the pool goes along one axis of
space after the other, in images with R + S taps instead of R * S. Each pass is a function in the
form of a primitive: it returns its output and the rule that carries a gradient back.

On a GPU a kernel looks through all R * S, which lie close by, and notes where the greatest was. On
the way back each element asks the windows it is in whether it was theirs: nothing is added to by
two threads, so the gradient is the same in every run.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine import Tensor, array_module, as_tensor, primitive
from ..engine.backend import Array
from ..engine.dtypes import is_floating
from ..engine.kernels import FLOATS, Kernel
from .masking import split
from .pooling_windows import WINDOWS, Option, Windows, fit, has_kernels, lay_along
from .windows import also_unbatched, inside, pad

__all__ = ["max_pool1d", "max_pool2d", "max_pool3d"]

VARIANTS = [{"T": t, "Index": index} for t in FLOATS for index in ("int", "long long")]

MAX_POOL = Kernel(
    "max_pool",
    WINDOWS
    + r"""
extern "C" __global__ void max_pool(const T* x, T* y, Index* where, long long n,
                                    AXIS(d), AXIS(h), AXIS(w)) {
    Along D = ALONG(d), H = ALONG(h), W = ALONG(w);
    FOR_EACH(i, n) {
        Spot p = spot(i, D.places, H.places, W.places);
        const T* image = x + p.plane * D.size * H.size * W.size;
        acc_t greatest = -1 / acc_t(0);
        Index found = -1;
        for (int a = D.begin(p.d), last = D.end(p.d); a < last; a += D.dilation)
            for (int b = H.begin(p.h), last = H.end(p.h); b < last; b += H.dilation)
                for (int c = W.begin(p.w), last = W.end(p.w); c < last; c += W.dilation) {
                    Index at = ((Index)a * H.size + b) * W.size + c;
                    acc_t v = image[at];
                    if (found < 0 || v > greatest || v != v) {
                        greatest = v;
                        found = at;
                    }
                }
        y[i] = T(greatest);
        where[i] = found;
    }
}
""",
    VARIANTS,
)

MAX_POOL_BACKWARD = Kernel(
    "max_pool_backward",
    WINDOWS
    + r"""
extern "C" __global__ void max_pool_backward(const T* dy, const Index* where, T* dx, long long n,
                                             AXIS(d), AXIS(h), AXIS(w)) {
    Along D = ALONG(d), H = ALONG(h), W = ALONG(w);
    FOR_EACH(i, n) {
        Spot s = spot(i, D.size, H.size, W.size);
        Index here = ((Index)s.d * H.size + s.h) * W.size + s.w;
        acc_t sum = 0;
        for (int o = D.first(s.d), last = D.last(s.d); o <= last; ++o)
            for (int p = H.first(s.h), last = H.last(s.h); p <= last; ++p)
                for (int q = W.first(s.w), last = W.last(s.w); q <= last; ++q) {
                    long long j = ((s.plane * D.places + o) * H.places + p) * W.places + q;
                    if (where[j] == here) sum += acc_t(dy[j]);
                }
        dx[i] = T(sum);
    }
}
""",
    VARIANTS,
)


@also_unbatched(1)
def max_pool1d(
    input: Any,
    kernel_size: Option,
    stride: Option | None = None,
    padding: Option = 0,
    dilation: Option = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Greatest element of each window of a sequence: `max_pool2d` with one axis of space.

    Parameters
    ----------
    input : (N, C, W) or (C, W)
    kernel_size, stride, padding, dilation, ceil_mode, return_indices
        As in `max_pool2d`.

    Returns
    -------
    (N, C, P) or (C, P)
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@also_unbatched(2)
def max_pool2d(
    input: Any,
    kernel_size: Option,
    stride: Option | None = None,
    padding: Option = 0,
    dilation: Option = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    r"""Greatest element of each window.

    .. math:: y_{n,c,p,q} = \max_{r,s} x_{n,\,c,\,pa+rd,\,qa+sd}

    with stride a and dilation d. The gradient goes to the greatest element, to the first one
    (row by row) among equals. NaN counts as greater than any number, and the last NaN wins.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W)
    kernel_size : int or (int, int)
        Size (R, S) of a window.
    stride : int or (int, int), optional
        Step between windows; the size of a window if left out.
    padding : int or (int, int)
        Border of -inf around the images, at most half a window wide.
    dilation : int or (int, int)
        Step between the elements of a window.
    ceil_mode : bool
        Also keep a last window that sticks out at the bottom or right, if it starts inside.
    return_indices : bool
        Also return where the greatest elements are: h * W + w for the one in row h, column w of
        its channel's image without border. `max_unpool2d` takes them.

    Returns
    -------
    (N, C, P, Q) or (C, P, Q)
        With `return_indices` a tuple of it and the indices, int64, of the same shape.

    Raises
    ------
    ShapeError
        If no window fits.
    ValueError
        If an option is out of its range.
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@also_unbatched(3)
def max_pool3d(
    input: Any,
    kernel_size: Option,
    stride: Option | None = None,
    padding: Option = 0,
    dilation: Option = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Greatest element of each window of a volume: `max_pool2d` with three axes of space.

    Parameters
    ----------
    input : (N, C, D, H, W) or (C, D, H, W)
    kernel_size, stride, padding, dilation, ceil_mode, return_indices
        As in `max_pool2d`; an option has one integer, or three for (depth, height, width).

    Returns
    -------
    (N, C, ...) or (C, ...)
    """
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _max_pool(
    dims, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
) -> Any:
    op = f"max_pool{dims}d"
    windows = fit(op, dims, input, kernel_size, stride, padding, dilation, ceil_mode)
    y = MAX_POOLS[dims](input, windows=windows)
    return (y, as_tensor(_where_greatest(input._data, windows))) if return_indices else y


def _max_pooling(op: str) -> Callable[..., Tensor]:
    """The primitive under the name that errors and graphs show."""

    def pool(x, *, windows):
        if has_kernels(x):
            return _pool_on_gpu(x, windows)
        border, rules = windows.border, []
        y, beats = pad(x, border, _lowest(x.dtype)), _beats(x)
        for axis in reversed(windows.axes):  # of equals the first row by row, not by column
            y, rule = _max_along(axis, y, windows, beats)
            rules.append(rule)

        def vjp_x(dy):
            for rule in reversed(rules):
                dy = rule(dy)
            return inside(dy, border)

        return y, vjp_x

    pool.__name__ = op
    return primitive(floats="half", takes_half=True)(pool)


MAX_POOLS = {dims: _max_pooling(f"max_pool{dims}d") for dims in (1, 2, 3)}


def _pool_on_gpu(x: Array, windows: Windows) -> tuple[Array, Callable[[Array], Array]]:
    fits = math.prod(windows.size) < 2**31
    y, where = find_greatest(x, windows, np.int32 if fits else np.int64)

    def vjp_x(dy):
        return give_to_greatest(dy, where, windows)

    return y, vjp_x


def find_greatest(x: Array, windows: Windows, integer: Any) -> tuple[Array, Array]:
    """The greatest element of each window, and its flat position; -1 where it sees none. On a GPU.

    `integer` is the dtype of the positions.
    """
    xp, shape = array_module(x), (*x.shape[:2], *windows.places)
    y, where = xp.empty(shape, x.dtype), xp.empty(shape, integer)
    x = xp.ascontiguousarray(x)
    MAX_POOL.over(y.size, x, y, where, y.size, *windows.numbers, T=x.dtype, Index=where.dtype)
    return y, where


def give_to_greatest(dy: Array, where: Array, windows: Windows) -> Array:
    """The gradient of the images, from those of the windows and where their greatest lie."""
    xp = array_module(dy)
    dx, dy = xp.empty((*dy.shape[:2], *windows.size), dy.dtype), xp.ascontiguousarray(dy)
    MAX_POOL_BACKWARD.over(
        dx.size, dy, where, dx, dx.size, *windows.numbers, T=dy.dtype, Index=where.dtype
    )
    return dx


def _max_along(
    axis: int, x: Array, windows: Windows, beats: Callable
) -> tuple[Array, Callable[[Array], Array]]:
    """Greatest element of windows that extend along one axis."""
    y, victories = _contest(axis, x, windows, beats)
    size = x.shape[axis]

    def vjp_x(dy):
        """The last challenger who won takes the gradient, if any; else those before it."""
        parts = []
        for won in reversed(victories):
            part, dy = split(dy, won)
            parts.append(part)
        return lay_along(axis, size, [dy, *reversed(parts)], windows)

    return y, vjp_x


def _contest(axis: int, x: Array, windows: Windows, beats: Callable) -> tuple[Array, list[Array]]:
    """The greatest of the taps, and for each after the first: where it beat all before it."""
    first, *others = windows.seen(axis)
    y, victories = x[first].copy(order="K"), []
    for elements in others:
        challenger = x[elements].copy(order="K")  # scattered as it lies, it is read but once
        victories.append(beats(challenger, y))
        array_module(x).maximum(y, challenger, out=y)
    for place, tap in windows.begin_outside(axis):  # -inf inside beats the border's
        victories[tap - 1][(slice(None),) * axis + (place,)] = True
    return y, victories


def _beats(x: Array) -> Callable[[Array, Array], Array]:
    """How a challenger wins: by being greater, or NaN. Few images hold NaN: one look tells."""
    if x.size and is_floating(x.dtype) and np.isnan(x.max()):
        return lambda challenger, y: (challenger > y) | (challenger != challenger)
    return operator.gt


def _lowest(dtype: np.dtype) -> float:
    return -np.inf if is_floating(dtype) else np.iinfo(dtype).min


def _where_greatest(x: Array, windows: Windows) -> Array:
    """Where the greatest elements lie in images without border: (N, C, P, Q), flat positions."""
    if has_kernels(x):
        return find_greatest(x, windows, np.int64)[1]
    xp, beats = array_module(x), _beats(x)
    values = pad(x, windows.border, _lowest(x.dtype))
    found = xp.broadcast_to(xp.asarray(_positions(windows)), values.shape)
    for axis in reversed(windows.axes):
        values, victories = _contest(axis, values, windows, beats)
        (first, *others), positions = windows.seen(axis), found
        found = positions[first].copy()
        for elements, won in zip(others, victories):
            xp.copyto(found, positions[elements], where=won)
    return found


def _positions(windows: Windows) -> np.ndarray:
    """The flat position of each element of an image.

    Positions in its border mean nothing; only a dilated window that sees nothing else finds one.
    """
    flat = np.zeros((), np.int64)
    for size, (before, after) in zip(windows.size, windows.border):
        flat = np.add.outer(flat * size, np.arange(-before, size + after))
    return flat
