"""A border around a tensor: of a constant, or of the tensor's own values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..engine import ShapeError, Tensor, array_module, primitive
from ..engine.tensor import operand
from .arguments import integers

Pairs = list[tuple[int, int]]  # (before, after) of each axis, the first axis first


def pad(
    input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """With a border around it.

    Parameters
    ----------
    input : (*)
        For modes other than "constant" (C, ...) or (N, C, ...): one, two or three axes of
        positions, all of which get a border.
    pad : ints
        (before, after) of the LAST axis, then of the one before it, and so on:
        (left, right, top, bottom) for images (N, C, H, W). A negative width cuts off.
    mode : str
        What the border of a row 0 1 2 3 holds, if it is 2 wide on both sides:
        "constant", `value`;
        "reflect", the inside mirrored at the outermost value, 2 1 (0 1 2 3) 2 1;
        "replicate", the outermost value, 0 0 (0 1 2 3) 3 3;
        "circular", the other end, 2 3 (0 1 2 3) 0 1.
    value : float, optional
        0 if left out; for mode "constant" only.

    Returns
    -------
    (*)
        Each padded axis has its size + before + after.

    Raises
    ------
    ShapeError
        If there are more widths than axes, nothing is left, or there is not enough inside to
        make the border of: at most n - 1 for "reflect" and n for "circular".
    ValueError
        If there is no such mode, or it takes no value, or a width is no integer.
    TypeError
        If `value` is no number.
    """
    x, widths = operand(input), integers("pad", "pad", pad)
    pairs = _pairs(x.shape, widths)
    if mode == "constant":
        return _pad_constant(x, pairs=pairs, value=_number(value))
    if mode not in _MODES:
        raise ValueError(f"pad: mode is one of constant, {', '.join(_MODES)}, not {mode!r}")
    if value:
        raise ValueError(f"pad: mode {mode!r} takes no value, its border is made of the inside")
    if len(widths) not in (2, 4, 6) or x.ndim - len(widths) // 2 not in (1, 2):
        raise ShapeError(
            f"pad: mode {mode!r} needs widths (before, after) for all axes of positions of an "
            f"input (C, ...) or (N, C, ...), the last axis first, and {x.shape} got {widths}"
        )
    outwards = [(max(before, 0), max(after, 0)) for before, after in pairs]
    if mode == "circular":  # what is cut off takes no part in the circle
        x = _cut(x, pairs)
        _check_widths(x.shape, outwards, mode)
        return _pad_from_inside(x, pairs=outwards, mode=mode)
    _check_widths(x.shape, outwards, mode)
    return _cut(_pad_from_inside(x, pairs=outwards, mode=mode), pairs)


@primitive
def _pad_constant(x, *, pairs, value):
    shape = [n + before + after for n, (before, after) in zip(x.shape, pairs)]
    # Where x lies in the padded array, and which part of x that is where the border cuts.
    place = tuple(slice(max(b, 0), n - max(a, 0)) for n, (b, a) in zip(shape, pairs))
    part = tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, pairs))
    y = array_module(x).full(shape, value, dtype=x.dtype)
    y[place] = x[part]
    whole, cuts = x.shape, any(min(pair) < 0 for pair in pairs)

    def vjp_x(dy):
        if not cuts:
            return dy[place]
        dx = array_module(dy).zeros(whole, dy.dtype)
        dx[part] = dy[place]
        return dx

    return y, vjp_x


class _Mode(NamedTuple):
    """How a border is made of the n values inside, which lie at 0 <= i < n."""

    origin: Callable[[int, int], int]  # (i, n) -> the place inside that place i outside repeats
    widest: Callable[[int], float]  # border that n values can make


_MODES = {
    "reflect": _Mode(lambda i, n: -i if i < 0 else 2 * (n - 1) - i, lambda n: max(n - 1, 0)),
    "replicate": _Mode(lambda i, n: 0 if i < 0 else n - 1, lambda n: math.inf if n else 0),
    "circular": _Mode(lambda i, n: i % n, lambda n: n),
}


@primitive
def _pad_from_inside(x, *, pairs, mode):
    """Pad one axis after the other: a later one repeats the border of the earlier in corners."""
    shape = [n + before + after for n, (before, after) in zip(x.shape, pairs)]
    inside = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, pairs))
    copies = []  # (target, origin): slices across an axis that are copied, in that order
    for axis, (n, (before, after)) in enumerate(zip(x.shape, pairs)):
        for i in (*range(-before, 0), *range(n, n + after)):
            places = before + i, before + _MODES[mode].origin(i, n)
            copies.append(tuple((slice(None),) * axis + (place,) for place in places))
    y = array_module(x).empty(shape, dtype=x.dtype)
    y[inside] = x
    for target, origin in copies:
        y[target] = y[origin]

    def vjp_x(dy):
        dx = dy.copy()
        for target, origin in reversed(copies):  # an origin gets what arrived at its copies
            dx[origin] += dx[target]
        return dx[inside]

    return y, vjp_x


# -- what they share -------------------------------------------------------------------------------


def _pairs(shape: tuple[int, ...], widths: tuple[int, ...]) -> Pairs:
    """(before, after) of each axis, from widths that begin with the last axis."""
    if len(widths) % 2 or len(widths) > 2 * len(shape):
        raise ShapeError(
            f"pad: needs (before, after) for up to {len(shape)} axes of the input {shape}, the "
            f"last axis first, not {widths}"
        )
    padded = list(zip(widths[-2::-2], widths[-1::-2]))
    pairs = [(0, 0)] * (len(shape) - len(padded)) + padded
    if any(n + before + after < 0 for n, (before, after) in zip(shape, pairs)):
        raise ShapeError(f"pad: cutting {widths} off leaves nothing of {shape}")
    return pairs


def _number(value: Any) -> Any:
    if value is not None and not isinstance(value, (int, float, np.number)):
        raise TypeError(f"pad: value must be a number, not {value!r}")
    return value or 0


def _cut(x: Tensor, pairs: Pairs) -> Tensor:
    """Without what negative widths cut off; the tensor itself if they cut nothing."""
    if min(map(min, pairs)) >= 0:
        return x
    return x[tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, pairs))]


def _check_widths(shape: tuple[int, ...], pairs: Pairs, mode: str) -> None:
    """Raise unless there is enough inside to make the border of."""
    for n, pair in zip(shape, pairs):
        widest = _MODES[mode].widest(n)
        if max(pair) > widest:
            raise ShapeError(
                f"pad: mode {mode!r} makes the border of an axis of size {n} at most {widest} "
                f"wide, not {max(pair)}, of an input {shape}"
            )
