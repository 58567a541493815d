"""Say in words how a wrong gradient is wrong: each known mistake leaves its own pattern."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np


def diagnose(got: np.ndarray, expected: np.ndarray, output_shape: tuple[int, ...] = ()) -> str:
    """Name the pattern that relates a wrong gradient to the right one.

    Parameters
    ----------
    got, expected : ndarray
        The gradient under test and the right one.
    output_shape : tuple of int
        Shape of the function's output: a factor that is one of its sizes can be named.

    Returns
    -------
    str
        A sentence part such as ``"exactly negated"``; empty if no known pattern fits.
    """
    got, expected = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if got.shape != expected.shape:
        return _wrong_shape(got, expected)
    if not np.isfinite(got).all():
        return f"{int((~np.isfinite(got)).sum())} of {got.size} elements are NaN or infinite"
    if not got.any():
        return "zero everywhere: no gradient arrives at this input"
    if _close(got, -expected):
        return "exactly negated: a minus sign is missing or too many"
    patterns: tuple[Callable[[], str], ...] = (
        lambda: _factor(got, expected, output_shape),
        lambda: _permuted(got, expected),
        lambda: _flipped(got, expected),
        lambda: _signs(got, expected),
        lambda: _shifted(got, expected),
        lambda: _offset(got, expected),
        lambda: _partly_zero(got, expected),
        lambda: _partly_right(got, expected),
    )
    return next((found for pattern in patterns if (found := pattern())), "")


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    scale = np.abs(b).max(initial=0.0)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-4, atol=1e-5 * scale + 1e-300))


def _wrong_shape(got: np.ndarray, expected: np.ndarray) -> str:
    shapes = f"shape {got.shape} instead of {expected.shape}"
    if got.size == expected.size and _close(got.reshape(expected.shape), expected):
        return f"{shapes}: right values, but not reshaped to the input's shape"
    if _close(got.T, expected):
        return f"{shapes}: transposed"
    if got.ndim >= expected.ndim:
        axes = _broadcast_axes(got.shape, expected.shape)
        if axes and _close(got.sum(axis=axes).reshape(expected.shape), expected):
            plural = "axes" if len(axes) > 1 else "axis"
            return f"{shapes}: not summed over the broadcast {plural} {_join(axes)}"
    return shapes


def _broadcast_axes(wide: tuple[int, ...], narrow: tuple[int, ...]) -> tuple[int, ...]:
    added = len(wide) - len(narrow)
    pairs = list(zip(narrow, wide[added:], strict=True))
    if any(n not in (1, m) for n, m in pairs):
        return ()
    return (*range(added), *(added + i for i, (n, m) in enumerate(pairs) if n != m))


def _factor(got: np.ndarray, expected: np.ndarray, output_shape: tuple[int, ...]) -> str:
    factor = float((got * expected).sum() / max((expected * expected).sum(), 1e-300))
    if factor == 0 or not _close(got, factor * expected):
        return ""
    times, direction = (factor, "large") if abs(factor) > 1 else (1 / factor, "small")
    whole = round(times)
    if abs(times - whole) > 1e-3 * abs(times):
        return f"a constant factor {factor:.4g} too {direction}"
    mistaken = "a mean treated as a sum?" if direction == "large" else "a sum treated as a mean?"
    sizes = _products(expected.shape) | _products(output_shape)
    reason = f": {mistaken}" if whole in sizes and whole > 2 else ""
    if whole == 2:
        reason = ": counted twice, or the 2 of a square misplaced?"
    return f"{whole} times too {direction}{reason}"


def _products(shape: tuple[int, ...]) -> set[int]:
    return {
        math.prod(c) for k in range(1, len(shape) + 1) for c in itertools.combinations(shape, k)
    }


def _permuted(got: np.ndarray, expected: np.ndarray) -> str:
    if not 2 <= got.ndim <= 5:
        return ""
    for order in itertools.permutations(range(got.ndim)):
        if order != tuple(range(got.ndim)) and _close(got.transpose(order), expected):
            return "transposed" if got.ndim == 2 else f"its axes are permuted: needs {order}"
    return ""


def _flipped(got: np.ndarray, expected: np.ndarray) -> str:
    for count in range(1, got.ndim + 1):
        for axes in itertools.combinations(range(got.ndim), count):
            if _close(np.flip(got, axes), expected):
                kernel = ": the kernel not flipped?" if axes == (got.ndim - 2, got.ndim - 1) else ""
                return f"flipped along axis {_join(axes)}{kernel}"
    return ""


def _signs(got: np.ndarray, expected: np.ndarray) -> str:
    return (
        "right in size, wrong in sign at some elements" if _close(abs(got), abs(expected)) else ""
    )


def _shifted(got: np.ndarray, expected: np.ndarray) -> str:
    for axis in range(got.ndim):
        for step in (1, -1):
            if got.shape[axis] > 1 and _close(np.roll(got, step, axis), expected):
                return f"shifted by one along axis {axis}"
    return ""


def _offset(got: np.ndarray, expected: np.ndarray) -> str:
    difference = got - expected
    for axis in range(got.ndim):
        if got.shape[axis] > 1 and np.abs(difference).max() > 0:
            constant = np.broadcast_to(difference.mean(axis=axis, keepdims=True), got.shape)
            if _close(difference, constant):
                return (
                    f"off by a constant along axis {axis}: a term that sums over that axis is "
                    "missing (as in softmax or a normalisation)"
                )
    return ""


def _partly_zero(got: np.ndarray, expected: np.ndarray) -> str:
    missing = (got == 0) & (expected != 0)
    if missing.any() and _close(got[~missing], expected[~missing]):
        return f"zero at {int(missing.sum())} of {got.size} elements where it should not be"
    return ""


def _partly_right(got: np.ndarray, expected: np.ndarray) -> str:
    right = np.isclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max(initial=0.0))
    if 0.2 < right.mean() < 1:
        return (
            f"right at {int(right.sum())} of {got.size} elements: where several contributions "
            "meet, are they added, or does the last one overwrite?"
        )
    return ""


def _join(axes: tuple[int, ...]) -> str:
    return ", ".join(map(str, axes[:-1])) + (" and " if len(axes) > 1 else "") + str(axes[-1])
