"""The floating-point type of results, and of numbers that bring none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from .errors import DTypeError

FLOAT16, FLOAT32, FLOAT64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
_default: np.dtype = np.dtype(np.float32)


def get_default_dtype() -> np.dtype:
    """The dtype of new parameters and of tensors made from Python numbers (float32 at first)."""
    return _default


def set_default_dtype(dtype: np.typing.DTypeLike) -> None:
    """Set the dtype of new parameters and of tensors made from Python numbers.

    Raises
    ------
    DTypeError
        If the dtype is not a floating-point type.
    """
    global _default
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        raise DTypeError(f"the default dtype must be a float type such as 'float64', not {dtype}")
    _default = dtype


def unwidened(y: Any, inputs: Sequence[Any]) -> Any:
    """A float64 result in the dtype of the float inputs, or in the default one if there is none.

    NumPy gives float64 for an integer array beside a float32 one, and for the root of an integer
    array. Here, as in PyTorch, integers do not widen floats, and a single number (an input
    without axes) does not widen an array.
    """
    for x in inputs:
        if getattr(x, "dtype", None) is FLOAT64 and x.ndim:
            return y  # the common case
    typed = [x for x in inputs if hasattr(x, "dtype") and x.dtype.kind == "f"]
    decisive = {x.dtype for x in typed if x.ndim} or {x.dtype for x in typed}
    return y if FLOAT64 in decisive else y.astype(_widest(decisive))


def _widest(floats: Iterable[np.dtype]) -> np.dtype:
    return max(floats, key=lambda dtype: dtype.itemsize, default=_default)


def as_floats(inputs: list[Any], which: Literal["all", "first"]) -> tuple[list[Any], bool]:
    """Arrays to compute with in float32 or float64, and whether to round the result to float16.

    NumPy takes the root of small integers in float16, and sums float16 in float16: both overflow
    on the way to a result that would fit.
    """
    considered = inputs if which == "all" else inputs[:1]
    for x in considered:
        dtype = getattr(x, "dtype", FLOAT32)  # a number or None stays what it is
        if dtype is not FLOAT32 and dtype is not FLOAT64:
            break
    else:
        return inputs, False  # the common case
    dtypes = [x.dtype for x in considered if hasattr(x, "dtype")]
    result = _widest(dtype for dtype in dtypes if dtype.kind == "f")
    working = np.promote_types(result, FLOAT32)
    converted = [
        x if getattr(x, "dtype", FLOAT32) in (FLOAT32, FLOAT64) else x.astype(working)
        for x in considered
    ]
    return converted + inputs[len(considered) :], result == FLOAT16
