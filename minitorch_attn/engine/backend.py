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

gpu_in_use = False  # whether any array may lie on a GPU: until then nobody asks which do


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


def on_gpu(array: Array) -> bool:
    """Whether an array lies on a GPU, where kernels can work on it."""
    return array_module(array) is not np


def to_device(array: Array, device: str) -> Array:
    """The array on a device, copied only if it lies on the other one.

    Raises
    ------
    DeviceError
        If the device is unknown, or no GPU can be used.
    ImportError
        If CuPy is not installed.
    """
    check_device(device)
    if device == device_of(array):
        return array
    if device == "cpu":
        return array_module(array).asnumpy(array)
    return gpu_module().asarray(array)


def check_device(device: str) -> None:
    """Refuse a name that no device has.

    Raises
    ------
    DeviceError
        If it is neither "cpu" nor "cuda".
    """
    if device in ("cpu", "cuda"):
        return
    hint = ""
    if isinstance(device, str) and device.startswith("cuda:"):
        hint = (
            "; which card 'cuda' means is chosen before Python starts, by the environment variable "
            f"CUDA_VISIBLE_DEVICES={device.removeprefix('cuda:')}"
        )
    raise DeviceError(f"unknown device {device!r}: there are 'cpu' and 'cuda'{hint}")


_default_device = "cpu"


def get_default_device() -> str:
    """Where new tensors and parameters lie: "cpu" at first."""
    return _default_device


def set_default_device(device: str) -> None:
    """Choose where new tensors and parameters lie.

    Raises
    ------
    DeviceError
        If there is no such device, or no GPU that can be used.
    ImportError
        If CuPy is not installed.
    """
    global _default_device
    module_of_device(device)
    _default_device = device


def placed(device: str | None) -> str:
    """The device that is meant: the default one if none is named."""
    return _default_device if device is None else device


def module_of_device(device: str | None) -> ModuleType:
    """The library that makes arrays on a device, or on the default one: `numpy`, or `cupy`.

    Raises
    ------
    DeviceError, ImportError
        As `to_device`.
    """
    device = placed(device)
    check_device(device)
    return np if device == "cpu" else gpu_module()


def gpu_is_available() -> bool:
    """Whether CuPy is installed and finds a GPU that it can use."""
    try:
        gpu_module()
    except (DeviceError, ImportError):
        return False
    return True


def gpu_module() -> ModuleType:
    """`cupy`, once it is known that it can be used.

    Raises
    ------
    DeviceError
        If CuPy finds no GPU: says whether the driver or the card is missing.
    ImportError
        If CuPy is not installed.
    """
    global gpu_in_use
    cupy = require(
        "cupy",
        extra="gpu-cuda12",
        purpose="compute on a GPU",
        note="With a driver of CUDA 13 (`nvidia-smi` shows which) take gpu-cuda13 instead.",
    )
    if not cupy.is_available():
        raise DeviceError(_why_no_gpu(cupy))
    if not gpu_in_use and _float32_products == "high":  # chosen before there was a GPU
        _choose_products(cupy)
    gpu_in_use = True
    return cupy


def _why_no_gpu(cupy: ModuleType) -> str:
    """What CuPy is missing, and how to get it."""
    stay = "or stay on device='cpu'"
    driver = cupy.cuda.runtime.driverGetVersion()  # 0 without a driver
    if not driver:
        return (
            "CuPy is installed, but there is no NVIDIA driver: install the driver of your card "
            f"(then `nvidia-smi` lists it), {stay}"
        )
    runtime = cupy.cuda.runtime.runtimeGetVersion()
    if driver // 1000 < runtime // 1000:
        return (
            f"the NVIDIA driver knows CUDA {_cuda_version(driver)}, but this CuPy was made for "
            f"CUDA {_cuda_version(runtime)}: install a newer driver, or the CuPy of your driver "
            f'with python -m pip install "minitorch-attn[gpu-cuda{driver // 1000}]", {stay}'
        )
    return (
        f"CuPy and a driver for CUDA {_cuda_version(driver)} are installed, but no card is seen: "
        "check that `nvidia-smi` lists one and that the environment variable "
        f"CUDA_VISIBLE_DEVICES does not hide it, {stay}"
    )


def _cuda_version(number: int) -> str:
    """12090 as "12.9"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def raw_kernel(xp: ModuleType, code: str, name: str) -> Any:
    """A function of CUDA C++ that CuPy compiles when it is first called."""
    return xp.RawKernel(code, name, options=("-std=c++17",))


def has_matrix_units(xp: ModuleType) -> bool:
    """Whether the card has the matrix units that kernels know: compute capability 8.0 or more."""
    return int(xp.cuda.Device().compute_capability) >= 80


# How products of float32 arrays are computed on a GPU.
_float32_products = "highest"


def get_float32_matmul_precision() -> str:
    """How products of float32 arrays are computed on a GPU: "highest" (at first) or "high"."""
    return _float32_products


def set_float32_matmul_precision(precision: str) -> None:
    """Choose how products of float32 arrays are computed on a GPU; the CPU always takes float32.

    Matrix units read a float32 number with 10 bits of fraction instead of 23 (the format is called
    TF32) and add up in float32: several times as fast, with a relative error of about 1e-3 in each
    factor. It holds for products of two matrices, convolutions and attention; a batch of matrices
    by a batch of matrices is multiplied by CuPy in float32.

    Parameters
    ----------
    precision : "highest" or "high"
        "highest" multiplies in float32, "high" in TF32.

    Raises
    ------
    ValueError
        If it is neither.
    """
    global _float32_products
    if precision not in ("highest", "high"):
        raise ValueError(f"set_float32_matmul_precision: 'highest' or 'high', not {precision!r}")
    _float32_products = precision
    if gpu_in_use:
        _choose_products(gpu_module())


def _choose_products(cupy: ModuleType) -> None:
    """Tell CuPy's own matrix products about the choice."""
    linalg = cupy._core._routines_linalg
    fast = _float32_products == "high"
    kind = linalg.COMPUTE_TYPE_TF32 if fast else linalg.COMPUTE_TYPE_DEFAULT
    cupy._core.set_compute_type(np.float32, kind)


def read_only(array: Array) -> Array:
    """A view that NumPy refuses to write through (CuPy knows no read-only arrays)."""
    view = array.view()
    if isinstance(view, np.ndarray):
        view.flags.writeable = False
    return view
