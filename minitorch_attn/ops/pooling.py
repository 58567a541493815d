"""Pooling: the greatest or the mean of each window.

The greatest of a window is the greatest of its rows' greatest, and its sum the sum of its rows'
sums: every pool goes along the columns first, then along the rows, with R + S taps instead of
R * S. Each of the two passes is a function in the form of a primitive: it returns its output and
the rule that carries a gradient back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine import ShapeError, Tensor, array_module, primitive
from ..engine.backend import Array
from .masking import masked
from .windows import Sizes, also_unbatched, check_images, extent, inside, met_by, pad, per_axis

__all__ = ["adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d"]

Pass = tuple[Array, Callable[[Array], Array]]


@also_unbatched(2)
def max_pool2d(
    input: Any,
    kernel_size: int | Sizes,
    stride: int | Sizes | None = None,
    padding: int | Sizes = 0,
    dilation: int | Sizes = 1,
    ceil_mode: bool = False,
) -> Tensor:
    r"""Greatest element of each window.

    .. math:: y_{n,c,p,q} = \max_{r,s} x_{n,\,c,\,pa+rd,\,qa+sd}

    with stride a and dilation d. The gradient goes to the greatest element, to the first one
    (row by row) among equals.

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
    kernel = per_axis("max_pool2d", "kernel_size", kernel_size, 2, least=1)
    return _max_pool2d(
        input,
        kernel=kernel,
        stride=kernel if stride is None else per_axis("max_pool2d", "stride", stride, 2, least=1),
        padding=per_axis("max_pool2d", "padding", padding, 2, least=0),
        dilation=per_axis("max_pool2d", "dilation", dilation, 2, least=1),
        ceil_mode=ceil_mode,
    )


@primitive
def _max_pool2d(x, *, kernel, stride, padding, dilation, ceil_mode):
    places, border = _fit("max_pool2d", x, kernel, stride, padding, dilation, ceil_mode)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    padded = pad(x, border, lowest)
    widest, spread_columns = _max_along(3, padded, kernel, places, stride, dilation)
    y, spread_rows = _max_along(2, widest, kernel, places, stride, dilation)

    def vjp_x(dy):
        return inside(spread_columns(spread_rows(dy)), border)

    return y, vjp_x


def _max_along(
    axis: int, x: Array, kernel: Sizes, places: Sizes, stride: Sizes, dilation: Sizes
) -> Pass:
    """Greatest element of windows that extend along one axis."""
    xp, i = array_module(x), axis - 2
    seen = [_along(axis, met_by(t, places[i], stride[i], dilation[i])) for t in range(kernel[i])]
    y = x[seen[0]].copy()
    winner = xp.zeros(y.shape, dtype=np.min_scalar_type(kernel[i]))  # the first greatest tap
    for tap, elements in enumerate(seen[1:], start=1):
        challenger = x[elements]
        xp.maximum(winner, (challenger > y) * winner.dtype.type(tap), out=winner)
        xp.maximum(y, challenger, out=y)
    shape = x.shape

    def vjp_x(dy):
        dx = xp.zeros(shape, dtype=dy.dtype)
        for tap, elements in enumerate(seen):
            dx[elements] += masked(dy, winner == tap)
        return dx

    return y, vjp_x


@also_unbatched(2)
def avg_pool2d(
    input: Any,
    kernel_size: int | Sizes,
    stride: int | Sizes | None = None,
    padding: int | Sizes = 0,
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
    kernel = per_axis("avg_pool2d", "kernel_size", kernel_size, 2, least=1)
    if divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    return _avg_pool2d(
        input,
        kernel=kernel,
        stride=kernel if stride is None else per_axis("avg_pool2d", "stride", stride, 2, least=1),
        padding=per_axis("avg_pool2d", "padding", padding, 2, least=0),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        divisor_override=divisor_override,
    )


@primitive(floats="all")
def _avg_pool2d(x, *, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
    places, border = _fit("avg_pool2d", x, kernel, stride, padding, (1, 1), ceil_mode)
    sums, spread_rows = _sum_along(2, pad(x, border), kernel, places, stride)
    y, spread_columns = _sum_along(3, sums, kernel, places, stride)
    rows, columns = (
        _counted(places[i], x.shape[2 + i], kernel[i], stride[i], padding[i], count_include_pad)
        for i in (0, 1)
    )
    xp = array_module(x)
    count = xp.asarray(divisor_override or np.outer(rows, columns), dtype=x.dtype)

    def vjp_x(dy):
        return inside(spread_rows(spread_columns(dy / count)), border)

    return y / count, vjp_x


def _sum_along(axis: int, x: Array, kernel: Sizes, places: Sizes, stride: Sizes) -> Pass:
    """Sum of windows that extend along one axis."""
    xp, i, shape = array_module(x), axis - 2, x.shape
    seen = [_along(axis, met_by(t, places[i], stride[i])) for t in range(kernel[i])]
    y = x[seen[0]].copy()
    for elements in seen[1:]:
        y += x[elements]

    def vjp_x(dy):
        dx = xp.zeros(shape, dtype=dy.dtype)
        for elements in seen:
            dx[elements] += dy
        return dx

    return y, vjp_x


def _counted(
    places: int, size: int, kernel: int, stride: int, padding: int, count_include_pad: bool
) -> np.ndarray:
    """How many elements each window counts along one axis."""
    start = np.arange(places) * stride - padding
    end = np.minimum(start + kernel, size + padding)
    return end - start if count_include_pad else np.minimum(end, size) - np.maximum(start, 0)


@also_unbatched(2)
def adaptive_max_pool2d(input: Any, output_size: int | tuple[int | None, int | None]) -> Tensor:
    """Greatest element of each of P x Q windows that cover the image.

    Window p spans the rows from floor(p H / P) up to ceil((p + 1) H / P), and so for columns.
    The gradient goes to the first (row by row) of the greatest elements.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W)
    output_size : int or (int or None, int or None)
        P and Q; None keeps the input's size. 1 is global pooling.

    Returns
    -------
    (N, C, P, Q) or (C, P, Q)
    """
    return _adaptive_max_pool2d(input, output_size=output_size)


@primitive
def _adaptive_max_pool2d(x, *, output_size):
    P, Q = _adaptive_size("adaptive_max_pool2d", x, output_size)
    widest, spread_columns = _adaptive_max_along(3, x, Q)
    y, spread_rows = _adaptive_max_along(2, widest, P)

    def vjp_x(dy):
        return spread_columns(spread_rows(dy))

    return y, vjp_x


def _adaptive_max_along(axis: int, x: Array, places: int) -> Pass:
    xp, shape, spans = array_module(x), x.shape, _adaptive_spans(x.shape[axis], places)
    winners = [x[_along(axis, span)].argmax(axis=axis, keepdims=True) for span in spans]
    picked = [
        xp.take_along_axis(x[_along(axis, span)], winner, axis=axis)
        for span, winner in zip(spans, winners)
    ]

    def vjp_x(dy):
        dx = xp.zeros(shape, dtype=dy.dtype)
        for p, (span, winner) in enumerate(zip(spans, winners)):
            taps = xp.arange(span.stop - span.start).reshape((-1,) + (1,) * (3 - axis))
            dx[_along(axis, span)] += masked(dy[_along(axis, slice(p, p + 1))], taps == winner)
        return dx

    return xp.concatenate(picked, axis=axis), vjp_x


@also_unbatched(2)
def adaptive_avg_pool2d(input: Any, output_size: int | tuple[int | None, int | None]) -> Tensor:
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
    """
    return _adaptive_avg_pool2d(input, output_size=output_size)


@primitive(floats="all")
def _adaptive_avg_pool2d(x, *, output_size):
    P, Q = _adaptive_size("adaptive_avg_pool2d", x, output_size)
    xp = array_module(x)
    rows = xp.asarray(_averaging(x.shape[2], P), dtype=x.dtype)  # (P, H)
    columns = xp.asarray(_averaging(x.shape[3], Q), dtype=x.dtype)  # (Q, W)

    def vjp_x(dy):
        return rows.T @ dy @ columns

    return rows @ x @ columns.T, vjp_x


def _averaging(size: int, places: int) -> np.ndarray:
    """The matrix that takes the mean of each window along one axis: (places, size)."""
    matrix = np.zeros((places, size))
    for row, span in zip(matrix, _adaptive_spans(size, places)):
        row[span] = 1 / (span.stop - span.start)
    return matrix


def _adaptive_spans(size: int, places: int) -> list[slice]:
    return [slice(p * size // places, -(-(p + 1) * size // places)) for p in range(places)]


def _adaptive_size(op: str, x: Array, output_size: Any) -> Sizes:
    check_images(op, x, 2)
    if 0 in x.shape[2:]:
        raise ShapeError(f"{op}: images of shape {x.shape} have no pixels to pool")
    sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * 2
    kept = [x.shape[2 + i] if size is None else size for i, size in enumerate(sizes[:2])]
    return per_axis(op, "output_size", (*kept, *sizes[2:]), 2, least=1)


def _along(axis: int, elements: slice) -> tuple[slice, ...]:
    """The index that picks elements along one axis and everything along the others."""
    return (slice(None),) * axis + (elements,)


def _fit(
    op: str,
    x: Array,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
) -> tuple[Sizes, tuple[Sizes, Sizes]]:
    """The number of windows, and the border that the images need for them."""
    check_images(op, x, 2)
    fits = [
        _fit_axis(size, extent(taps, d), step, p, ceil_mode)
        for size, taps, step, p, d in zip(x.shape[2:], kernel, stride, padding, dilation)
    ]
    window = f"{kernel[0]}x{kernel[1]}" + (f", dilation {dilation}" if dilation != (1, 1) else "")
    if any(2 * p > taps for p, taps in zip(padding, kernel)):
        raise ValueError(
            f"{op}: padding={padding} must be at most half of the window, {window}, or a window "
            "could see nothing else"
        )
    (P, below), (Q, right) = fits
    if min(P, Q) < 1:
        raise ShapeError(
            f"{op}: no window of {window} fits into the input {x.shape} with padding={padding}: "
            "use a smaller window or more padding"
        )
    return (P, Q), ((padding[0], below), (padding[1], right))


def _fit_axis(size: int, reach: int, stride: int, padding: int, ceil_mode: bool) -> tuple[int, int]:
    room = size + 2 * padding - reach
    places = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (places - 1) * stride >= size + padding:
        places -= 1  # the last window would start beyond the image
    return places, max(0, (places - 1) * stride + reach - size - padding)
