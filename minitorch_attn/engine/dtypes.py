"""The floating-point types: which there are, what results have, and what is computed in."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from .backend import is_array, on_gpu
from .errors import DTypeError
from .optional import require

FLOAT16, FLOAT32, FLOAT64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
_default: np.dtype = np.dtype(np.float32)

bfloat16_in_use = False  # whether any array may be of bfloat16: until then nobody asks which is


def as_dtype(dtype: np.typing.DTypeLike) -> np.dtype:
    """A dtype by its name or class: NumPy's, or "bfloat16".

    bfloat16 is the upper half of a float32: its range, with 8 bits of precision instead of 24.

    Raises
    ------
    DTypeError
        If there is no such dtype.
    ImportError
        If bfloat16 is asked for, and the package that brings it to NumPy is not installed.
    """
    global bfloat16_in_use
    if isinstance(dtype, str) and dtype == "bfloat16":
        require("ml_dtypes", extra="bfloat16", purpose="compute in bfloat16")
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise DTypeError(
            f"{dtype!r} is no dtype: name one, such as 'float32', 'bfloat16' or 'int64'"
        ) from None
    bfloat16_in_use = bfloat16_in_use or _is_bfloat16(dtype)
    return dtype


def is_floating(dtype: np.dtype) -> bool:
    """Whether a dtype is of floating-point numbers; NumPy itself does not count bfloat16."""
    return dtype.kind == "f" or _is_bfloat16(dtype)


def is_half(dtype: np.dtype) -> bool:
    """Whether a dtype is one of the two of 16 bits: float16, bfloat16."""
    return dtype is FLOAT16 or _is_bfloat16(dtype)


def _is_bfloat16(dtype: np.dtype) -> bool:
    return dtype.kind == "V" and dtype.name == "bfloat16"  # the name alone takes long to make


def accumulator(dtype: np.dtype) -> np.dtype:
    """The type in which numbers of a dtype are added up, `acc_t` of kernels."""
    return FLOAT32 if is_half(dtype) else dtype


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
    dtype = as_dtype(dtype)
    if not is_floating(dtype):
        raise DTypeError(f"the default dtype must be a float type such as 'float64', not {dtype}")
    _default = dtype


def unwidened(y: Any, inputs: Sequence[Any]) -> Any:
    """A float result in the dtype of the float inputs, or in the default one if there is none.

    NumPy gives float64 for an integer array beside a float32 one, and for the root of an integer
    array; and float32 for a Python number beside a bfloat16 array. Here, as in PyTorch, integers
    do not widen floats, and a single number (an input without axes) does not widen an array.
    """
    for x in inputs:
        if getattr(x, "dtype", None) is FLOAT64 and x.ndim:
            return y  # the common case
    typed = [x for x in inputs if hasattr(x, "dtype") and is_floating(x.dtype)]
    widest = _widest({x.dtype for x in typed if x.ndim} or {x.dtype for x in typed})
    if y.dtype is FLOAT64 or (y.dtype is FLOAT32 and _is_bfloat16(widest)):
        return y.astype(widest, copy=False)
    return y


def _widest(floats: Iterable[np.dtype]) -> np.dtype:
    """The type that holds all of some; float16 and bfloat16 meet in float32."""
    return functools.reduce(_wider, floats, None) or _default


def _wider(a: np.dtype | None, b: np.dtype) -> np.dtype:
    if a is None or a == b:
        return b
    return FLOAT32 if is_half(a) and is_half(b) else np.promote_types(a, b)


def as_floats(
    inputs: list[Any], which: Literal["all", "first", "half"], takes_half: bool = False
) -> tuple[list[Any], np.dtype | None]:
    """Arrays to compute with in float32 or float64, and the half type to round the result to.

    NumPy takes the root of small integers in float16, and sums float16 in float16: both overflow
    on the way to a result that would fit.

    Parameters
    ----------
    inputs : list
        Arrays, numbers and None.
    which : "all", "first" or "half"
        Which become floats: all of them, the first, or only those of half precision.
    takes_half : bool
        On a GPU leave arrays of one half type as they are: kernels read them and sum in float32.
    """
    considered = inputs[:1] if which == "first" else inputs
    for x in considered:
        dtype = getattr(x, "dtype", FLOAT32)  # a number or None stays what it is
        if dtype is not FLOAT32 and dtype is not FLOAT64:
            break
    else:
        return inputs, None  # the common case
    arrays = [x for x in considered if is_array(x)]
    floats = [x.dtype for x in arrays if is_floating(x.dtype)]
    if which == "half" and not any(map(is_half, floats)):
        return inputs, None
    result = _widest(floats)
    if takes_half and is_half(result) and len(floats) == len(arrays) and on_gpu(arrays[0]):
        return inputs, None
    working = accumulator(result)

    def converted(x: Any) -> Any:
        stays = not is_array(x) or x.dtype is FLOAT32 or x.dtype is FLOAT64
        if stays or (which == "half" and not is_floating(x.dtype)):
            return x
        return x.astype(working)

    rest = inputs[len(considered) :]
    return [converted(x) for x in considered] + rest, result if is_half(result) else None
