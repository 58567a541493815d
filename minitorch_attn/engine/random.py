"""The generators behind dropout, initialisation and shuffling when none is passed: one a device."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import backend
from .backend import Array

_on_cpu = np.random.default_rng()
_on_gpu: Any = None  # made when the first number is drawn there
_seed: int | None = None


def default_generator(device: str = "cpu") -> Any:
    """The generator that is used on a device where no `generator=` is given.

    NumPy's on the CPU, CuPy's on a GPU: the same seed gives other numbers there.
    """
    global _on_gpu
    if backend.module_of_device(device) is np:
        return _on_cpu
    if _on_gpu is None:
        _on_gpu = backend.gpu_module().random.default_rng(_seed)
    return _on_gpu


def manual_seed(seed: int) -> np.random.Generator:
    """Restart the default generators of all devices at a seed, and return the CPU's."""
    global _on_gpu, _seed
    _on_cpu.bit_generator.state = np.random.default_rng(seed).bit_generator.state
    _on_gpu, _seed = None, seed
    return _on_cpu


def uniform(shape: tuple[int, ...], like: Array, generator: Any = None) -> Array:
    """Numbers uniform in [0, 1) in float32, on the device of an array.

    A generator of NumPy draws on the CPU, whatever the device: so two devices get the same
    numbers, at the price of a copy.
    """
    generator = generator or default_generator(backend.device_of(like))
    values = generator.random(shape, dtype=np.float32)
    return backend.to_device(values, backend.device_of(like))
