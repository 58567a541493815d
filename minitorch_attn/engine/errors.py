"""The errors a user meets, and the words that explain them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from numpy.exceptions import AxisError


class ShapeError(ValueError):
    """Shapes that do not fit together."""


class DTypeError(TypeError):
    """A data type that an operation cannot take."""


class DeviceError(RuntimeError):
    """An array that is not on the device where it is needed."""


class GraphError(RuntimeError):
    """A backward pass that the recorded graph cannot answer."""


class AnomalyError(ArithmeticError):
    """A value that is not a number, caught where it arose."""


def describe(value: object) -> str:
    """A value as an error message names it: its shape and dtype, or itself if it is short."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{tuple(shape)} {dtype}"
    text = repr(value)
    return text if len(text) <= 40 else f"{type(value).__name__} {text[:37]}..."


def broadcast_mismatch(shapes: Sequence[tuple[int, ...]]) -> str | None:
    """Say which axis keeps shapes from broadcasting; None when they do broadcast."""
    for axis, sizes in enumerate(zip_longest(*map(reversed, shapes), fillvalue=1), start=1):
        wide = sorted(set(sizes) - {1})
        if len(wide) > 1:
            found = " and ".join(map(str, wide))
            return f"axis -{axis} is {found}; sizes must be equal, or 1, counted from the last axis"
    return None


def no_such_dim(dim: int, ndim: int) -> str:
    """What to say of an axis that a tensor of `ndim` axes does not have."""
    known = f"its dims are {-ndim} to {ndim - 1}" if ndim else "it has no axes"
    return f"the tensor has no dim {dim}, {known}"


def explain(error: Exception, op: str, inputs: Sequence[object]) -> Exception:
    """An error of the same kind that also names the operation and what it was given."""
    text = str(error).removeprefix(f"{op}: ")
    if isinstance(error, AxisError) and error.axis is not None and error.ndim is not None:
        text = no_such_dim(error.axis, error.ndim)
    shapes = [tuple(x.shape) for x in inputs if hasattr(x, "shape")]
    # NumPy writes shapes without spaces; if they are not these, it speaks of something inside.
    mismatch = broadcast_mismatch(shapes) if "broadcast" in text else None
    if mismatch and all(str(shape).replace(" ", "") in text for shape in shapes):
        return ShapeError(f"{op}: shapes {' and '.join(map(str, shapes))} do not fit: {mismatch}")
    kinds = (ShapeError, DTypeError, IndexError, TypeError, ValueError)
    kind = next(kind for kind in kinds if isinstance(error, kind))
    return kind(f"{op}: {text} (given: {', '.join(map(describe, inputs))})")
