"""Say in words how a wrong gradient is wrong: each known mistake leaves its own pattern."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

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
    return next(diagnoses(got, expected, output_shape), "")


def diagnoses(
    got: np.ndarray,
    expected: np.ndarray,
    output_shape: tuple[int, ...] = (),
    *,
    gradient: bool = True,
) -> Iterator[str]:
    """All patterns that fit, the likeliest first; see `diagnose`.

    Parameters
    ----------
    got, expected, output_shape
        As for `diagnose`.
    gradient : bool
        Whether these are gradients; of other arrays no mistake of a reverse pass is named.
    """
    got, expected = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if got.shape != expected.shape:
        yield _wrong_shape(got, expected)
        return
    if not np.isfinite(got).all():
        yield f"{int((~np.isfinite(got)).sum())} of {got.size} elements are NaN or infinite"
        return
    if not got.any():
        yield "zero everywhere" + (": no gradient arrives at this input" if gradient else "")
        return
    patterns: list[Callable[[np.ndarray, np.ndarray], str]] = [
        _negated,
        lambda got, expected: _factor(got, expected, output_shape),
        _permuted,
        _flipped,
        _signs,
        _shifted,
        _reordered,
        _offset,
        _partly_zero,
    ]
    patterns += [_not_masked, _overwritten] if gradient else []
    yield from filter(None, (pattern(got, expected) for pattern in patterns))


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(_equal(a, b).all())


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.isclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max(initial=0.0) + 1e-300)


def _wrong_shape(got: np.ndarray, expected: np.ndarray) -> str:
    shapes = f"shape {got.shape} instead of {expected.shape}"
    if got.size == expected.size and _close(got.reshape(expected.shape), expected):
        return f"{shapes}: right values, but not reshaped to the input's shape"
    if permuted := _permuted(got, expected):
        return f"{shapes}: {permuted}"
    if axes := _broadcast_axes(got.shape, expected.shape):
        if _close(got.sum(axis=axes).reshape(expected.shape), expected):
            return f"{shapes}: not summed over the broadcast {_named(axes)}"
    if axes := _broadcast_axes(expected.shape, got.shape):
        if _close(expected.sum(axis=axes).reshape(got.shape), got):
            return f"{shapes}: summed over {_named(axes)}, which was not broadcast"
    return shapes


def _broadcast_axes(wide: tuple[int, ...], narrow: tuple[int, ...]) -> tuple[int, ...]:
    """The axes over which `narrow` is repeated to make `wide`; none if it does not fit."""
    added = len(wide) - len(narrow)
    if added < 0 or any(n not in (1, m) for n, m in zip(narrow, wide[added:], strict=True)):
        return ()
    stretched = [added + i for i, n in enumerate(narrow) if n != wide[added + i]]
    return (*range(added), *stretched)


def _negated(got: np.ndarray, expected: np.ndarray) -> str:
    return "exactly negated: a minus sign is missing or too many" if _close(got, -expected) else ""


def _factor(got: np.ndarray, expected: np.ndarray, output_shape: tuple[int, ...]) -> str:
    factor = float((got * expected).sum() / max((expected * expected).sum(), 1e-300))
    if factor == 0 or not _close(got, factor * expected):
        return ""
    times, direction = (factor, "large") if abs(factor) > 1 else (1 / factor, "small")
    sign = " and negated" if times < 0 else ""
    whole = round(abs(times))
    if whole < 2 or abs(abs(times) - whole) > 1e-3:
        if expected.size == 1:
            return ""  # any number is some multiple of another
        return f"a constant factor {abs(times):.6g} too {direction}{sign}"
    mistaken = "a mean treated as a sum?" if direction == "large" else "a sum treated as a mean?"
    if whole == 2:
        mistaken = "counted twice, or the 2 of a square misplaced?"
    elif whole not in _products(expected.shape) | _products(output_shape):
        mistaken = ""
    return f"{whole} times too {direction}{sign}" + (f": {mistaken}" if mistaken else "")


def _products(shape: tuple[int, ...]) -> set[int]:
    """How many elements can be averaged over: all products of some of the sizes."""
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
                return f"flipped along {_named(axes)}{kernel}"
    return ""


def _signs(got: np.ndarray, expected: np.ndarray) -> str:
    if _close(abs(got), abs(expected)):
        return "right in size, wrong in sign at some elements"
    return ""


def _shifted(got: np.ndarray, expected: np.ndarray) -> str:
    for axis in range(got.ndim):
        a, b = np.moveaxis(got, axis, 0), np.moveaxis(expected, axis, 0)
        for ahead, behind, kept in ((a[1:], b[:-1], b[1:]), (a[:-1], b[1:], b[:-1])):
            if len(a) > 2 and _close(ahead, behind) and not _close(ahead, kept):
                return f"shifted by one along axis {axis}"
    return ""


def _reordered(got: np.ndarray, expected: np.ndarray) -> str:
    for axis in range(got.ndim):
        slices, wanted = np.moveaxis(got, axis, 0), np.moveaxis(expected, axis, 0)
        if not 2 < len(slices) <= 64:  # every slice is compared with every other
            continue
        order = [next((i for i, b in enumerate(wanted) if _close(a, b)), -1) for a in slices]
        if sorted(order) == list(range(len(order))):
            return (
                f"the right values in another order along axis {axis}: a permutation that is "
                "applied once more in place of its inverse?"
            )
    return ""


def _offset(got: np.ndarray, expected: np.ndarray) -> str:
    difference = got - expected
    long = [axis for axis in range(got.ndim) if got.shape[axis] > 1]
    for count in range(len(long), 0, -1):
        for axes in itertools.combinations(long, count):
            constant = np.broadcast_to(difference.mean(axis=axes, keepdims=True), got.shape)
            if _close(difference, constant):
                which = " and ".join(f"axis {axis}" for axis in axes)
                those = "that axis" if count == 1 else "them"
                return (
                    f"off by a constant along {which}: a term that sums over {those} is missing "
                    "or wrong (as in softmax or a normalisation)"
                )
    return ""


def _partly_zero(got: np.ndarray, expected: np.ndarray) -> str:
    missing = (got == 0) & (expected != 0)
    if missing.any() and _close(got[~missing], expected[~missing]):
        return f"zero at {int(missing.sum())} of {got.size} elements where it should not be"
    return ""


def _not_masked(got: np.ndarray, expected: np.ndarray) -> str:
    passed = expected != 0
    if passed.any() and not passed.all() and _close(got[passed], expected[passed]):
        return (
            "right wherever the right gradient is not zero: a mask (relu, max, dropout) was "
            "forgotten?"
        )
    return ""


def _overwritten(got: np.ndarray, expected: np.ndarray) -> str:
    telling = (got != 0) | (expected != 0)  # zeros agree too easily
    right = _equal(got, expected) & telling
    wrong = telling & ~right
    a_share_each = (got[wrong] != 0).all() and (expected[wrong] != 0).all()
    if a_share_each and telling.sum() / 3 <= right.sum() < telling.sum():
        return (
            f"right at {int(right.sum())} of {int(telling.sum())} elements: where several "
            "contributions meet, are they added, or does the last one overwrite?"
        )
    return ""


def _named(axes: tuple[int, ...]) -> str:
    *others, last = map(str, axes)
    return f"axes {', '.join(others)} and {last}" if others else f"axis {last}"
