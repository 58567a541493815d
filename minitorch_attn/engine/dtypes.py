"""The floating-point type of results, and of numbers that bring none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import DTypeError

FLOAT64 = np.dtype(np.float64)
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
    array. Here, as in PyTorch, integers do not widen floats.
    """
    dtypes = [x.dtype for x in inputs if hasattr(x, "dtype")]
    if FLOAT64 in dtypes:
        return y  # the common case
    floats = [dtype for dtype in dtypes if dtype.kind == "f"]
    return y.astype(max(floats, key=lambda d: d.itemsize, default=_default), copy=False)
