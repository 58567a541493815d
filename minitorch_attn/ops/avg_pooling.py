"""Average and norm pooling: the mean, or the root of the sum of powers, of each window.

The sum of a window is the sum of its rows' sums: a pool goes along one axis of space after the
other, in images with R + S taps instead of R * S. On a GPU kernels add up all R * S at once; and on
the way back each element collects its shares from the windows it is in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..engine import Tensor, array_module, primitive
from ..engine.backend import Array, on_gpu
from ..engine.kernels import FLOATS, Kernel
from .arithmetic import abs as absolute
from .max_pooling import MAX_POOLS
from .pooling_windows import WINDOWS, Option, Windows, fit, lay_along
from .windows import also_unbatched, inside, pad

__all__ = ["avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d"]

COUNT = r"""
// How many elements window p counts: of the image, or of its border too.
__device__ int counted(const Along& axis, int p, bool border) {
    if (axis.taps == 0 || !border) return axis.end(p) - axis.begin(p);
    int start = p * axis.stride - axis.padding;
    return min(start + axis.taps, axis.size + axis.padding) - start;
}
"""

AVG_POOL = Kernel(
    "avg_pool",
    WINDOWS
    + COUNT
    + r"""
extern "C" __global__ void avg_pool(const T* x, T* y, long long n, long long border,
                                    double divisor, AXIS(d), AXIS(h), AXIS(w)) {
    Along D = ALONG(d), H = ALONG(h), W = ALONG(w);
    FOR_EACH(i, n) {
        Spot p = spot(i, D.places, H.places, W.places);
        const T* image = x + p.plane * D.size * H.size * W.size;
        acc_t sum = 0;
        for (int a = D.begin(p.d), end = D.end(p.d); a < end; ++a)
            for (int b = H.begin(p.h), end = H.end(p.h); b < end; ++b)
                for (int c = W.begin(p.w), end = W.end(p.w); c < end; ++c)
                    sum += acc_t(image[((long long)a * H.size + b) * W.size + c]);
        acc_t count = divisor ? acc_t(divisor)
                              : acc_t(counted(D, p.d, border)) * counted(H, p.h, border) *
                                    counted(W, p.w, border);
        y[i] = T(sum / count);
    }
}
""",
    [{"T": t} for t in FLOATS],
)

AVG_POOL_BACKWARD = Kernel(
    "avg_pool_backward",
    WINDOWS
    + COUNT
    + r"""
extern "C" __global__ void avg_pool_backward(const T* dy, T* dx, long long n, long long border,
                                             double divisor, AXIS(d), AXIS(h), AXIS(w)) {
    Along D = ALONG(d), H = ALONG(h), W = ALONG(w);
    FOR_EACH(i, n) {
        Spot s = spot(i, D.size, H.size, W.size);
        acc_t sum = 0;
        for (int o = D.first(s.d), last = D.last(s.d); o <= last; ++o)
            for (int p = H.first(s.h), last = H.last(s.h); p <= last; ++p)
                for (int q = W.first(s.w), last = W.last(s.w); q <= last; ++q) {
                    long long j = ((s.plane * D.places + o) * H.places + p) * W.places + q;
                    acc_t count = divisor ? acc_t(divisor)
                                          : acc_t(counted(D, o, border)) * counted(H, p, border) *
                                                counted(W, q, border);
                    sum += acc_t(dy[j]) / count;
                }
        dx[i] = T(sum);
    }
}
""",
    [{"T": t} for t in FLOATS],
)


@also_unbatched(1)
def avg_pool1d(
    input: Any,
    kernel_size: Option,
    stride: Option | None = None,
    padding: Option = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean of each window of a sequence: `avg_pool2d` with one axis of space.

    Parameters
    ----------
    input : (N, C, W) or (C, W)
    kernel_size, stride, padding, ceil_mode, count_include_pad
        As in `avg_pool2d`.

    Returns
    -------
    (N, C, P) or (C, P)
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@also_unbatched(2)
def avg_pool2d(
    input: Any,
    kernel_size: Option,
    stride: Option | None = None,
    padding: Option = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    r"""Mean of each window.

    .. math:: y_{n,c,p,q} = \frac{1}{RS} \sum_{r,s} x_{n,\,c,\,pa+r,\,qa+s}

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W)
    kernel_size : int or (int, int)
        Size (R, S) of a window.
    stride : int or (int, int), optional
        Step a between windows; the size of a window if left out.
    padding : int or (int, int)
        Border of zeros around the images, at most half a window wide.
    ceil_mode : bool
        Also keep a last window that sticks out at the bottom or right, if it starts inside.
    count_include_pad : bool
        Whether the zeros of the border count in the mean. What `ceil_mode` adds beyond the border
        never counts.
    divisor_override : int, optional
        Divide every sum by this instead of by the number of elements.

    Returns
    -------
    (N, C, P, Q) or (C, P, Q)

    Raises
    ------
    ShapeError
        If no window fits.
    ValueError
        If an option is out of its range.
    """
    return _avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@also_unbatched(3)
def avg_pool3d(
    input: Any,
    kernel_size: Option,
    stride: Option | None = None,
    padding: Option = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window of a volume: `avg_pool2d` with three axes of space.

    Parameters
    ----------
    input : (N, C, D, H, W) or (C, D, H, W)
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As in `avg_pool2d`; an option has one integer, or three for (depth, height, width).

    Returns
    -------
    (N, C, ...) or (C, ...)
    """
    return _avg_pool(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


class Count(NamedTuple):
    """By what the sum of a window is divided: the elements that count, or one number for all."""

    border: bool = True
    divisor: int | None = None


def _avg_pool(
    dims, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
) -> Tensor:
    op = f"avg_pool{dims}d"
    windows = fit(op, dims, input, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override == 0:
        raise ValueError(f"{op}: divisor_override must not be 0")
    count = Count(bool(count_include_pad), divisor_override)
    return _AVG_POOLS[dims](input, windows=windows, count=count)


def _avg_pooling(op: str) -> Callable[..., Tensor]:
    """The primitive under the name that errors and graphs show."""

    def pool(x, *, windows, count):
        return _mean(x, windows, count)

    pool.__name__ = op
    return primitive(floats="all", takes_half=True)(pool)


_AVG_POOLS = {dims: _avg_pooling(f"avg_pool{dims}d") for dims in (1, 2, 3)}


def _mean(x: Array, windows: Windows, count: Count) -> tuple[Array, Callable[[Array], Array]]:
    """The sum of each window divided by its count, and the rule of its gradient."""
    if on_gpu(x):
        return mean_on_gpu(x, windows, count)
    border, y = windows.border, pad(x, windows.border)
    sizes = y.shape
    for axis in windows.axes:
        y = _sum_along(axis, y, windows)
    divisor = np.asarray(_divisor(windows, count), dtype=x.dtype)

    def vjp_x(dy):
        dy = dy / divisor
        for axis in reversed(windows.axes):
            dy = lay_along(axis, sizes[axis], [dy] * windows.kernel[axis - 2], windows)
        return inside(dy, border)

    return y / divisor, vjp_x


def mean_on_gpu(x: Array, windows: Windows, count: Count) -> tuple[Array, Callable[[Array], Array]]:
    """As `_mean`, by kernels."""
    xp, numbers = array_module(x), (count.border, float(count.divisor or 0), *windows.numbers)
    N_and_C = x.shape[:2]
    y, x = xp.empty((*N_and_C, *windows.places), x.dtype), xp.ascontiguousarray(x)
    AVG_POOL.over(y.size, x, y, y.size, *numbers, T=x.dtype)

    def vjp_x(dy):
        dx, dy = xp.empty((*N_and_C, *windows.size), dy.dtype), xp.ascontiguousarray(dy)
        AVG_POOL_BACKWARD.over(dx.size, dy, dx, dx.size, *numbers, T=dy.dtype)
        return dx

    return y, vjp_x


def _sum_along(axis: int, x: Array, windows: Windows) -> Array:
    """Sum of windows that extend along one axis."""
    first, *others = windows.seen(axis)
    if not others:
        return x[first]
    y = x[first] + x[others[0]]
    for elements in others[1:]:
        y += x[elements]
    return y


def _divisor(windows: Windows, counted: Count) -> np.ndarray | int:
    """What the sum of each window is divided by: an array (P, Q), or one number."""
    if counted.divisor is not None:
        return counted.divisor
    count = np.ones((), np.int64)
    for n, taps, places, step, p in zip(
        windows.size, windows.kernel, windows.places, windows.stride, windows.padding
    ):
        start = np.arange(places) * step - p
        end = np.minimum(start + taps, n + p)
        if not counted.border:
            start, end = np.maximum(start, 0), np.minimum(end, n)
        count = np.multiply.outer(count, end - start)
    return count


@also_unbatched(1)
def lp_pool1d(
    input: Any,
    norm_type: float,
    kernel_size: Option,
    stride: Option | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Norm of each window of a sequence: `lp_pool2d` with one axis of space.

    Parameters
    ----------
    input : (N, C, W) or (C, W)
    norm_type, kernel_size, stride, ceil_mode
        As in `lp_pool2d`.

    Returns
    -------
    (N, C, P) or (C, P)
    """
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


@also_unbatched(2)
def lp_pool2d(
    input: Any,
    norm_type: float,
    kernel_size: Option,
    stride: Option | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    r"""Norm of each window.

    .. math:: y_{n,c,p,q} = \Bigl(\sum_{r,s} x_{n,\,c,\,pa+r,\,qa+s}^m\Bigr)^{1/m}

    with stride a and the norm's power m. As in PyTorch the elements keep their sign: m = 1 is the
    plain sum, and a sum below 0 has no root, it gives NaN. Where the sum is 0 the gradient is 0.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W)
    norm_type : float
        The power m, not 0. Infinity takes the greatest magnitude, minus infinity the least.
    kernel_size : int or (int, int)
        Size (R, S) of a window.
    stride : int or (int, int), optional
        Step between windows; the size of a window if left out.
    ceil_mode : bool
        Also keep a last window that sticks out at the bottom or right, if it starts inside. Its
        sum is scaled up to R S elements.

    Returns
    -------
    (N, C, P, Q) or (C, P, Q)

    Raises
    ------
    ShapeError
        If no window fits.
    ValueError
        If an option is out of its range.
    """
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


@also_unbatched(3)
def lp_pool3d(
    input: Any,
    norm_type: float,
    kernel_size: Option,
    stride: Option | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Norm of each window of a volume: `lp_pool2d` with three axes of space.

    Parameters
    ----------
    input : (N, C, D, H, W) or (C, D, H, W)
    norm_type, kernel_size, stride, ceil_mode
        As in `lp_pool2d`; an option has one integer, or three for (depth, height, width).

    Returns
    -------
    (N, C, ...) or (C, ...)
    """
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _lp_pool(dims, input, norm_type, kernel_size, stride, ceil_mode) -> Tensor:
    op = f"lp_pool{dims}d"
    windows = fit(op, dims, input, kernel_size, stride, 0, 1, ceil_mode)
    if norm_type == 0:
        raise ValueError(f"{op}: norm_type must not be 0, there is no root to the power of 0")
    if norm_type == math.inf:
        return MAX_POOLS[dims](absolute(input), windows=windows)
    if norm_type == -math.inf:
        return -MAX_POOLS[dims](-absolute(input), windows=windows)
    return _LP_POOLS[dims](input, windows=windows, power=norm_type)


def _lp_pooling(op: str) -> Callable[..., Tensor]:
    """The primitive under the name that errors and graphs show."""

    def pool(x, *, windows, power):
        xp, taps = array_module(x), math.prod(windows.kernel)
        means, spread = _mean(x**power, windows, Count())
        sums = means * taps
        with np.errstate(invalid="ignore"):
            y = sums ** (1 / power)

        def vjp_x(dy):
            some = sums != 0
            with np.errstate(invalid="ignore"):
                slope = xp.where(some, sums, 1) ** (1 / power - 1) * taps
            return spread(xp.where(some, dy * slope, 0)) * x ** (power - 1)

        return y, vjp_x

    pool.__name__ = op
    return primitive(floats="all")(pool)


_LP_POOLS = {dims: _lp_pooling(f"lp_pool{dims}d") for dims in (1, 2, 3)}
