"""Which array library holds an array: NumPy on the CPU, CuPy on a GPU.

The only file that imports cupy. Everything else asks `array_module(x)` for the library
that made `x`, and calls the same functions on it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from .errors import DeviceError
from .optional import require

Array = Any  # numpy.ndarray or cupy.ndarray


def array_module(array: Array) -> ModuleType:
    """The library an array belongs to: `numpy`, or `cupy` for an array on a GPU."""
    if isinstance(array, np.ndarray):
        return np
    cupy = sys.modules.get("cupy")  # a cupy array can only exist once cupy has been imported
    return cupy if cupy is not None and isinstance(array, cupy.ndarray) else np


def is_array(value: object) -> bool:
    """Whether a value is an array of either library."""
    return isinstance(value, np.ndarray) or array_module(value) is not np


def as_array(value: Any, origin: str = "a computation") -> Array:
    """A result as an array: NumPy's arithmetic makes scalars of arrays without axes.

    Raises
    ------
    TypeError
        If it is not a number either; `origin` says whose result it is.
    """
    if is_array(value):
        return value
    if isinstance(value, (np.generic, float, int)):
        return np.asarray(value)
    hint = " (is its `return` missing?)" if value is None else ""
    raise TypeError(f"{origin} returned {type(value).__name__}, not an array{hint}")


def device_of(array: Array) -> str:
    """`"cpu"` or `"cuda"`."""
    return "cpu" if array_module(array) is np else "cuda"


def to_device(array: Array, device: str) -> Array:
    """The array on a device, copied only if it lies on the other one.

    Raises
    ------
    DeviceError
        If the device is unknown, or no GPU can be used.
    """
    if device not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {device!r}: there are 'cpu' and 'cuda'")
    if device == device_of(array):
        return array
    if device == "cpu":
        return array_module(array).asnumpy(array)
    cupy = require("cupy", extra="gpu-cuda12", purpose="move a tensor to a GPU")
    if not cupy.is_available():
        raise DeviceError(
            "cupy is installed but finds no GPU it can use: check the NVIDIA driver "
            "(nvidia-smi should list a card), or stay on device='cpu'"
        )
    return cupy.asarray(array)


def read_only(array: Array) -> Array:
    """A view that NumPy refuses to write through (CuPy knows no read-only arrays)."""
    view = array.view()
    if isinstance(view, np.ndarray):
        view.flags.writeable = False
    return view
