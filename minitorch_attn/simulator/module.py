"""The module that stands in for `cupy`: its names, no others."""

from __future__ import annotations

import importlib
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from . import random
from .arrays import ndarray, wrap
from .functions import cupy_function, ufunc
from .surface import surface
from .traffic import note


class StandIn(ModuleType):
    """A module of CuPy's names. Functions are made when they are asked for.

    Raises
    ------
    AttributeError
        For a name that CuPy does not have.
    NotImplementedError
        For one that it has and the stand-in has not.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        contents = surface()["modules"][self.__name__]
        if name not in {*contents["functions"], *contents["ufuncs"], *contents["others"]}:
            raise AttributeError(
                f"module {self.__name__!r} (CuPy {surface()['version']}) has no attribute {name!r}"
            )
        found = self._find(name)
        setattr(self, name, found)
        return found

    def _find(self, name: str) -> Any:
        numpy_name = self.__name__.replace("cupy", "numpy", 1)
        if (function := cupy_function(numpy_name, name)) is not None:
            return function
        if f"{self.__name__}.{name}" in surface()["modules"]:
            return StandIn(f"{self.__name__}.{name}")
        if name in ("mgrid", "ogrid"):
            return Grid(getattr(np, name))
        if name in ("RawKernel", "RawModule"):
            return getattr(importlib.import_module(".kernels", __package__), name)
        value = getattr(np, name, None) if self.__name__ == "cupy" else None
        if isinstance(value, float) or (isinstance(value, type) and issubclass(value, np.generic)):
            return value
        raise NotImplementedError(f"the stand-in for CuPy has no {self.__name__}.{name}")


class Grid:
    """`mgrid` or `ogrid`: positions along axes, as slices name them."""

    def __init__(self, grid: Any):
        self._grid = grid

    def __getitem__(self, slices: Any) -> Any:
        return wrap(self._grid[slices])


class Device:
    """The one simulated card."""

    id = 0
    compute_capability = "80"

    def __init__(self, device: int = 0):
        if device != 0:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def synchronize(self) -> None:
        """Wait until the device has done all it was asked to."""
        note("synchronisations")

    def use(self) -> None:
        """Make it the current device."""

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return "<CUDA Device 0>"


def _cuda() -> ModuleType:
    cuda: Any = ModuleType("cupy.cuda")
    stream = SimpleNamespace(synchronize=Device().synchronize, ptr=0)
    cuda.Device = Device
    cuda.Stream = SimpleNamespace(null=stream)
    cuda.get_current_stream = lambda: stream
    cuda.is_available = lambda: True
    cuda.runtime = SimpleNamespace(
        getDeviceCount=lambda: 1,
        deviceSynchronize=Device().synchronize,
        getDeviceProperties=lambda device: {"name": b"simulated GPU"},
        driverGetVersion=lambda: 12090,
        runtimeGetVersion=lambda: 12090,
        memGetInfo=lambda: (1 << 33, 1 << 33),
    )
    return cuda


class MemoryPool:
    """The memory of the simulated card, which is the CPU's: nothing is kept from it."""

    def used_bytes(self) -> int:
        """Bytes that arrays occupy: not counted."""
        return 0

    total_bytes = used_bytes

    def free_all_blocks(self) -> None:
        """Give back what no array occupies."""


def _core() -> SimpleNamespace:
    """What chooses the precision of matrix products; NumPy has one."""
    return SimpleNamespace(
        set_compute_type=lambda dtype, kind: None,
        _routines_linalg=SimpleNamespace(COMPUTE_TYPE_DEFAULT=1, COMPUTE_TYPE_TF32=7),
    )


def make_cupy() -> Any:
    """The stand-in module."""
    cupy: Any = StandIn("cupy")
    cupy.__version__ = surface()["version"]
    cupy.__path__ = []  # submodules are attributes; none is found on disk
    cupy.ndarray = ndarray
    cupy.ufunc = ufunc
    cupy.dtype = np.dtype
    cupy.newaxis = None
    cupy.iinfo, cupy.finfo = np.iinfo, np.finfo
    cupy.cuda = _cuda()
    cupy.get_default_memory_pool = MemoryPool
    cupy._core = _core()
    cupy.random = StandIn("cupy.random")
    cupy.random.Generator = random.Generator
    cupy.random.default_rng = random.Generator
    return cupy
