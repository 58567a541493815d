"""The floating-point type that numbers without one are given."""

from __future__ import annotations

import numpy as np

from .errors import DTypeError

_default = np.dtype(np.float32)


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
