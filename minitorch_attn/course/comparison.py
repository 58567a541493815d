"""Compare an answer with the right one, and say in words what differs and why it might."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from minitorch_attn.engine.diagnosis import diagnoses

from .subject import Handle, kind_of

#: What a check gives for the gradient of an input that none comes back to.
NO_GRADIENT = "no gradient"

#: Stand around a differing element in a printed array; each form of display has its own for them.
MARKS = ("\ue000", "\ue001")

#: float32 answers agree to fewer digits, whatever tolerance an exercise asks for.
_FLOAT32_TOLERANCE = 1e-4

_MOST_ELEMENTS, _MOST_LINES = 72, 12  # printed in full up to here
_MOST_TRIED = 1_000_000  # elements of an array of a wrong shape of which all sums are tried
_WINDOW = 6  # rows and columns of a larger array that are printed around the first difference


@dataclass(frozen=True)
class Cause:
    """What probably went wrong.

    Attributes
    ----------
    name : str
        A few words, for a table.
    sentence : str
        For the learner.
    """

    name: str
    sentence: str


@dataclass(frozen=True)
class Difference:
    """How an answer differs from the right one.

    Attributes
    ----------
    statement : str
        A sentence.
    expected, got : str
        Both, printed; the differing elements stand between `MARKS`. Empty where the statement
        says it all.
    explain : callable
        Gives the causes that fit the pattern of the difference, the likeliest first.
    place : tuple of int
        Index of the first differing element of an array.
    """

    statement: str
    expected: str = ""
    got: str = ""
    explain: Callable[[], Iterable[Cause]] = tuple
    place: tuple[int, ...] = ()

    @cached_property
    def causes(self) -> tuple[Cause, ...]:
        """What may have gone wrong, the likeliest first."""
        return tuple(self.explain())

    @property
    def cause(self) -> Cause | None:
        """What probably went wrong, where the pattern of the difference tells."""
        return self.causes[0] if self.causes else None


@dataclass(frozen=True)
class _Terms:
    """What a comparison goes by; see `compare`."""

    tolerance: float
    sizes: tuple[int, ...]
    gradient: bool


def compare(
    got: Any,
    expected: Any,
    *,
    tolerance: float = 1e-7,
    sizes: tuple[int, ...] = (),
    gradient: bool = False,
) -> Difference | None:
    """The first difference between an answer and the right one, or None.

    Parameters
    ----------
    got, expected : array, number, text, None, or a tuple, list or dict of these
        What came and what was to come. Lists and tuples are taken for one another, and so are
        Python numbers and arrays without axes.
    tolerance : float
        Largest allowed error, relative to the largest expected element.
    sizes : tuple of int
        Sizes of the inputs: a constant factor that is a product of them can be explained.
    gradient : bool
        Whether these are gradients, which have mistakes of their own.
    """
    return _compare(got, expected, _Terms(tolerance, sizes, gradient))


def _compare(got: Any, expected: Any, terms: _Terms) -> Difference | None:
    if isinstance(expected, dict):
        return _compare_dicts(got, expected, terms)
    if isinstance(expected, (list, tuple)):
        return _compare_sequences(got, expected, terms)
    if _is_numeric(expected):
        return _compare_arrays(got, expected, terms)
    if kind_of(got) == kind_of(expected) and isinstance(got, Handle) == isinstance(
        expected, Handle
    ):
        if isinstance(got, Handle) or got == expected:
            return None
    return _wrong_kind(got, expected) or Difference(
        f"It should be {describe(expected)}; it is {describe(got)}."
    )


# -- kinds of values ------------------------------------------------------------------------


def _is_numeric(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**63  # no array holds a larger one
    return isinstance(value, (bool, int, float, np.generic, np.ndarray))


def describe(value: Any) -> str:
    """A value in a few words: ``"a float64 array of shape (2, 3)"``."""
    if value is None:
        return "None"
    if isinstance(value, Handle):
        return repr(value)
    if isinstance(value, np.ndarray) and value.ndim:
        return f"a {value.dtype} array of shape {value.shape}"
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if _is_numeric(value):
        return f"the number {_digits(value)}"
    if isinstance(value, int):
        return "an integer that is too large for an array"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, (list, tuple)) and not value:
        return f"an empty {type(value).__name__}"
    if isinstance(value, (list, tuple)) and len(str(value)) <= 60 and _is_flat(value):
        return f"the {type(value).__name__} {value}"
    return f"a {type(value).__name__} of {len(value)}"


def _is_flat(value: Any) -> bool:
    return all(item is None or type(item) in (bool, int, float, str) for item in value)


def _wrong_kind(got: Any, expected: Any) -> Difference | None:
    """The difference where a value is not even of the kind that is needed."""
    statement = f"It should be {describe(expected)}; it is {describe(got)}."
    numbers = _is_numeric(expected)
    if got is None:
        cause = Cause(
            "nothing returned",
            "A function that ends without `return` gives back None: is the `return` line missing?",
        )
    elif got is NO_GRADIENT:
        cause = Cause(
            "no gradient",
            "Nothing leads back to this input: is its rule None, or was `.data`, `.numpy()` or "
            "`no_grad()` used on the way?",
        )
    elif kind_of(got) == "Tensor" and numbers:
        cause = Cause(
            "Tensor, not array",
            "This exercise works on plain arrays: compute with NumPy, and make no Tensor.",
        )
    elif kind_of(got) == "ndarray" and isinstance(got, Handle):
        cause = Cause(
            "array of objects",
            "It is an array, but not of numbers: were things of several kinds or lengths put "
            "together in it?",
        )
    elif kind_of(got) in ("function", "method", "builtin_function_or_method"):
        cause = Cause(
            "function, not value",
            "A function came back, not what it computes: is a call `(...)` missing?",
        )
    elif isinstance(got, (list, tuple)) and numbers and np.ndim(expected) == 0:
        cause = Cause(
            f"{type(got).__name__}, not number",
            "A single number is needed: return it without brackets or commas around it.",
        )
    elif isinstance(got, (list, tuple)) and numbers:
        cause = Cause(
            "list, not array" if isinstance(got, list) else "tuple, not array",
            "NumPy's functions give arrays; `np.array(...)` or `np.stack(...)` makes one of a list."
            if isinstance(got, list)
            else "Several values came back where one is needed: is there a comma too many?",
        )
    elif numbers == _is_numeric(got):
        return None
    else:
        return Difference(statement)
    return Difference(statement, explain=lambda: [cause])


# -- containers -----------------------------------------------------------------------------


def _compare_dicts(got: Any, expected: dict, terms: _Terms) -> Difference | None:
    if not isinstance(got, dict):
        return _wrong_kind(got, expected) or Difference(
            f"It should be a dict; it is {describe(got)}."
        )
    missing = [key for key in expected if key not in got]
    surplus = [key for key in got if key not in expected]
    if missing or surplus:
        parts = [f"missing: {', '.join(map(str, missing))}"] if missing else []
        parts += [f"not asked for: {', '.join(map(str, surplus))}"] if surplus else []
        words = "; ".join(parts)
        return Difference(f"The names differ. {words[0].upper()}{words[1:]}.")
    return _first_inside(((f"`{key}`", got[key], expected[key]) for key in expected), terms)


def _compare_sequences(got: Any, expected: Any, terms: _Terms) -> Difference | None:
    if not isinstance(got, (list, tuple)):
        return _wrong_kind(got, expected) or Difference(
            f"It should be {describe(expected)}; it is {describe(got)}."
        )
    if len(got) != len(expected):
        return Difference(
            f"It should have {len(expected)} items; it has {len(got)}.", *_both(expected, got)
        )
    pairs = ((f"Item {i}", one, other) for i, (one, other) in enumerate(zip(got, expected)))
    found = _first_inside(pairs, terms)
    if found and _is_flat(got) and _is_flat(expected):
        return replace(found, expected=str(expected), got=str(got))
    return found


def _both(expected: Any, got: Any) -> tuple[str, str]:
    return (str(expected), str(got)) if _is_flat(expected) and _is_flat(got) else ("", "")


def _first_inside(items: Any, terms: _Terms) -> Difference | None:
    for name, got, expected in items:
        found = _compare(got, expected, terms)
        if found is not None:
            return replace(found, statement=f"{name}: {found.statement}")
    return None


# -- arrays and numbers ---------------------------------------------------------------------


def _compare_arrays(got: Any, expected: Any, terms: _Terms) -> Difference | None:
    if not _is_numeric(got):
        return _wrong_kind(got, expected) or Difference(
            f"It should be {describe(expected)}; it is {describe(got)}."
        )
    typed = all(isinstance(one, (np.ndarray, np.generic)) for one in (got, expected))
    got, expected = np.asarray(got), np.asarray(expected)
    if got.dtype.kind in "US" or expected.dtype.kind in "US":
        if got.shape == expected.shape and (got == expected).all():
            return None
        return Difference(f"It should be {expected}; it is {got}.")
    if got.shape != expected.shape:
        return Difference(
            f"It should have shape {expected.shape}; it has shape {got.shape}.",
            show(expected),
            show(got),
            lambda: _causes_of_shape(got, expected),
        )
    right = _close(got, expected, terms.tolerance)
    if right.all():
        return _compare_dtypes(got, expected) if typed else None
    wrong = ~right
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    marked = wrong
    if wrong.sum() > right.sum():  # so many marks would show nothing: only the first
        marked = np.zeros_like(wrong)
        marked[place] = True
    was, needed = _told_apart(got[place], expected[place])
    if got.ndim:
        count = f"{int(wrong.sum())} of {wrong.size} elements differ, the first"
        statement = (
            f"{count} at [{', '.join(map(str, place))}]: it is {was} and should be {needed}."
        )
    else:
        statement = f"It is {was} and should be {needed}."
    return Difference(
        statement,
        show(expected, marked) if got.ndim else "",
        show(got, marked) if got.ndim else "",
        lambda: _causes_of_values(got, expected, right, terms),
        place,
    )


def _close(got: np.ndarray, expected: np.ndarray, tolerance: float) -> np.ndarray:
    if "f" in (got.dtype.kind, expected.dtype.kind):
        smallest = min(one.dtype.itemsize for one in (got, expected) if one.dtype.kind == "f")
        tolerance = max(tolerance, _FLOAT32_TOLERANCE) if smallest < 8 else tolerance
    finite = np.abs(expected[np.isfinite(expected)])
    scale = finite.max(initial=0) or 1.0
    with np.errstate(all="ignore"):
        return np.isclose(
            got.astype(complex if got.dtype.kind == "c" else float),
            expected.astype(complex if expected.dtype.kind == "c" else float),
            rtol=tolerance,
            atol=tolerance * float(scale),
            equal_nan=True,
        )


def _compare_dtypes(got: np.ndarray, expected: np.ndarray) -> Difference | None:
    """Right values of a wrong type; integers of any length are the same."""
    kinds = got.dtype.kind, expected.dtype.kind
    if got.dtype == expected.dtype or all(kind in "iu" for kind in kinds):
        return None
    statement = f"The values are right. Their dtype is {got.dtype} and should be {expected.dtype}."
    if kinds == ("f", "f") and got.dtype.itemsize > expected.dtype.itemsize:
        sentence = (
            f"A {got.dtype} array or scalar came in on the way: float32 in should give float32 "
            "out. np.zeros, np.ones and NumPy's random numbers are float64 unless told otherwise."
        )
        return Difference(statement, explain=lambda: [Cause("dtype not kept", sentence)])
    wanted = "bool" if expected.dtype.kind == "b" else f"np.{expected.dtype}"
    sentence = f"Use `.astype({wanted})`, or an operation that gives that type."
    return Difference(statement, explain=lambda: [Cause("wrong dtype", sentence)])


# -- causes ---------------------------------------------------------------------------------


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(_close(a, b, 1e-5).all())


def _causes_of_shape(got: np.ndarray, expected: np.ndarray) -> Iterator[Cause]:
    if got.size > _MOST_TRIED:
        return
    if got.ndim == expected.ndim and 2 <= got.ndim <= 4:
        orders = itertools.permutations(range(got.ndim))
        if any(_equal(got.transpose(order), expected) for order in orders):
            yield Cause("transposed", "The values are right, but the axes are in another order.")
    if _equal(got.squeeze(), expected.squeeze()):
        extra = got.ndim > expected.ndim
        yield Cause(
            "axes of length 1",
            "The values are right; only an axis of length 1 is "
            + ("left over" if extra else "missing")
            + ": `keepdims=True` keeps such an axis, `squeeze` or an index drops it.",
        )
    for reduction in ("sum", "mean", "max") if got.size and expected.size else ():
        for axes in _subsets(got.ndim):
            reduced = (getattr(got, reduction)(axis=axes, keepdims=keep) for keep in (False, True))
            if any(_equal(one, expected) for one in reduced):
                yield _not_reduced(reduction, axes)
        for axes in _subsets(expected.ndim):
            if _equal(getattr(expected, reduction)(axis=axes).squeeze(), got.squeeze()):
                yield Cause(
                    "reduced too far",
                    f"It went one {reduction} too far, over {_axes(axes)} of what is needed.",
                )
    if got.size == expected.size and _equal(got.ravel(), expected.ravel()):
        yield Cause(
            "not reshaped", "The values are right and in order: only a `reshape` is missing."
        )


def _not_reduced(reduction: str, axes: tuple[int, ...]) -> Cause:
    done = {"sum": "summed", "mean": "averaged", "max": "reduced by max"}[reduction]
    why = " Along the axes where an input was broadcast, its gradient is summed."
    return Cause(
        f"not {done} over {_axes(axes)}",
        f"It is not {done} over {_axes(axes)}.{why if reduction == 'sum' else ''}",
    )


def _causes_of_values(
    got: np.ndarray, expected: np.ndarray, right: np.ndarray, terms: _Terms
) -> Iterator[Cause]:
    if not (np.isfinite(expected).all() and got.dtype.kind in "biuf"):
        return
    if not np.isfinite(got).all():
        yield _not_finite(got)
        return
    if got.dtype.kind == "b" and expected.dtype.kind == "b":
        if (got != expected).all():
            yield Cause("inverted", "True and False are exchanged.")
        return
    got, expected = got.astype(float), expected.astype(float)
    yield from filter(None, (pattern(got, expected, right) for pattern in _PATTERNS))
    for words in diagnoses(got, expected, terms.sizes, gradient=terms.gradient):
        sentence = (
            words.replace("its axes", "Its axes") if words.startswith("its") else f"It is {words}"
        )
        yield Cause(words.partition(":")[0], sentence + ("" if words.endswith("?") else "."))


def _not_finite(got: np.ndarray) -> Cause:
    if np.isnan(got).any():
        return Cause(
            "NaN",
            f"{int(np.isnan(got).sum())} of {got.size} elements are NaN: that is what 0/0, "
            "inf - inf, inf/inf, and the root or logarithm of a negative number give.",
        )
    return Cause(
        "infinite",
        f"{int(np.isinf(got).sum())} of {got.size} elements are infinite: a division by zero, or "
        "an exponential of a large number?",
    )


def _all_zero(got: np.ndarray, expected: np.ndarray, right: np.ndarray) -> Cause | None:
    if got.any():
        return None
    return Cause(
        "zero everywhere", "It is zero everywhere: is the result computed, but not stored?"
    )


def _few_digits(got: np.ndarray, expected: np.ndarray, right: np.ndarray) -> Cause | None:
    scale = np.abs(expected).max()
    error = np.abs(got - expected).max() / scale if scale else 1.0
    if error > 1e-3:
        return None
    digits = max(int(-math.log10(error)), 1)
    return Cause(
        "right to few digits",
        f"It is right to about {digits} digits: a small constant (eps) that is too large or at "
        "another place, an approximation, or float32 on the way?",
    )


def _normalised_elsewhere(got: np.ndarray, expected: np.ndarray, right: np.ndarray) -> Cause | None:
    ones = np.ones(1)
    for needed, taken in itertools.permutations(range(got.ndim), 2):
        sums = expected.sum(axis=needed), got.sum(axis=taken), got.sum(axis=needed)
        is_one = [_equal(one, np.broadcast_to(ones, one.shape)) for one in sums]
        if is_one == [True, True, False]:
            return Cause(
                "normalised over the wrong axis",
                f"It sums to 1 over axis {taken}; it should sum to 1 over axis {needed}.",
            )
    return None


def _other_function(got: np.ndarray, expected: np.ndarray, right: np.ndarray) -> Cause | None:
    candidates: tuple[tuple[str, Callable[[], np.ndarray], str], ...] = (
        ("its logarithm", lambda: np.exp(got), "It is the logarithm of the right answer."),
        ("its exponential", lambda: np.log(got), "It is the exponential of the right answer."),
        ("its square", lambda: np.sqrt(got), "It is the square of the right answer."),
        ("its square root", lambda: got**2, "It is the square root of the right answer."),
        ("its reciprocal", lambda: 1 / got, "It is 1 divided by the right answer."),
        ("1 minus it", lambda: 1 - got, "It is 1 minus the right answer."),
    )
    if expected.size < 2:
        return None
    with np.errstate(all="ignore"):
        for name, undo, sentence in candidates:
            undone = undo()
            if np.isfinite(undone).all() and _equal(undone, expected):
                return Cause(name, sentence)
    return None


def _one_place_only(got: np.ndarray, expected: np.ndarray, right: np.ndarray) -> Cause | None:
    """Wrong all over one row, column or channel, right in all the others."""
    for axis, length in enumerate(got.shape):
        wrong = np.moveaxis(~right, axis, 0).reshape(length, -1)
        bad = np.flatnonzero(wrong.any(axis=1))
        if length < 3 or len(bad) > 1 or wrong.shape[1] < 2 or not wrong[bad].all():
            continue
        at = {0: "the first place", length - 1: "the last place"}.get(int(bad[0]))
        if at:
            return Cause(
                f"wrong at {at} of axis {axis}",
                f"Only {at} along axis {axis} is wrong: is a loop or a slice one too short or too "
                "long?",
            )
    return None


_PATTERNS = (_all_zero, _few_digits, _normalised_elsewhere, _other_function, _one_place_only)


def _subsets(count: int) -> list[tuple[int, ...]]:
    axes = range(min(count, 4))
    return [one for length in axes for one in itertools.combinations(axes, length + 1)]


def _axes(axes: tuple[int, ...]) -> str:
    if len(axes) == 1:
        return f"axis {axes[0]}"
    return f"the axes {', '.join(map(str, axes[:-1]))} and {axes[-1]}"


# -- printing -------------------------------------------------------------------------------


def show(value: Any, marked: np.ndarray | None = None, place: tuple[int, ...] = ()) -> str:
    """Print a value so that a person can read it; of a large array, the part that matters.

    Parameters
    ----------
    value : array, number, text, or a container of these
        What to print.
    marked : ndarray of bool, optional
        Elements of an array to put between `MARKS`.
    place : tuple of int
        What to print of a large array: the part around this index, if it has as many axes.
    """
    if isinstance(value, (np.ndarray, np.generic)) and np.ndim(value):
        return _show_array(np.asarray(value), marked, place)
    if _is_numeric(value):
        return _digits(value)
    if isinstance(value, (list, tuple)) and any(isinstance(item, np.ndarray) for item in value):
        return "\n".join(f"{i}: {_indented(show(item), 3)}" for i, item in enumerate(value[:6]))
    if isinstance(value, Handle):
        return repr(value)
    text = str(value)
    return text if len(text) <= 300 else text[:300] + " ..."


def _show_array(array: np.ndarray, marked: np.ndarray | None, place: tuple[int, ...]) -> str:
    if array.size == 0:
        return f"an empty array of shape {array.shape}"
    if array.size <= _MOST_ELEMENTS and array.ndim <= 4 and _lines(array.shape) <= _MOST_LINES:
        return _nested(_cells(array, marked))
    if marked is not None and marked.any():
        place = tuple(np.argwhere(marked)[0])
    if len(place) != array.ndim or any(i >= n for i, n in zip(place, array.shape)):
        place = (0,) * array.ndim
    window: list[Any] = [int(i) for i in place]
    for axis in range(max(array.ndim - 2, 0), array.ndim):
        start = max(min(window[axis] - _WINDOW // 2, array.shape[axis] - _WINDOW), 0)
        window[axis] = slice(start, min(start + _WINDOW, array.shape[axis]))
    index = ", ".join(f"{i.start}:{i.stop}" if isinstance(i, slice) else str(i) for i in window)
    part = tuple(window)
    return f"of {describe(array)}, the part [{index}]:\n" + _nested(
        _cells(array[part], None if marked is None else marked[part])
    )


def _lines(shape: tuple[int, ...]) -> int:
    """How many lines `_nested` takes for an array of this shape."""
    if len(shape) < 2:
        return 1
    return shape[0] * _lines(shape[1:]) + (shape[0] - 1) * (len(shape) - 2)


def _cells(array: np.ndarray, marked: np.ndarray | None) -> np.ndarray:
    """Each element as text, all of one width."""
    largest = np.abs(array[np.isfinite(array)]).max(initial=0) if array.dtype.kind == "f" else 0
    texts = [_digits(0.0 if abs(v) < 1e-12 * largest else v) for v in array.ravel()]
    width = max(map(len, texts))
    any_marked = marked is not None and marked.any()
    cells = np.empty(array.size, dtype=object)
    for i, text in enumerate(texts):
        if any_marked and marked.ravel()[i]:  # type: ignore[union-attr]
            text = MARKS[0] + text + MARKS[1]
        elif any_marked:
            text = f" {text} "
        cells[i] = text.rjust(width + 2 * bool(any_marked))
    return cells.reshape(array.shape)


def _nested(cells: np.ndarray, depth: int = 0) -> str:
    if cells.ndim == 1:
        return "[" + " ".join(cells) + "]"
    lines = "\n" * (cells.ndim - 1) + " " * (depth + 1)
    return "[" + lines.join(_nested(row, depth + 1) for row in cells) + "]"


def _indented(text: str, spaces: int) -> str:
    return text.replace("\n", "\n" + " " * spaces)


def _digits(value: Any) -> str:
    if np.asarray(value).dtype.kind in "fc":
        return f"{value + 0.0:.4g}"
    return str(value)


def _told_apart(got: Any, expected: Any) -> tuple[str, str]:
    """Two unequal numbers with as many digits as it takes to see that they differ."""
    for digits in (4, 6, 8, 11, 17):
        texts = tuple(
            f"{value:.{digits}g}" if np.asarray(value).dtype.kind in "fc" else str(value)
            for value in (got, expected)
        )
        if texts[0] != texts[1]:
            break
    return texts[0], texts[1]
