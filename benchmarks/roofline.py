"""The roofline of a card: no operation is quicker than its bytes take to move, nor than its
multiplications take to do, at the rates that the card reaches in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import minitorch_attn as mt
from minitorch_attn.engine.backend import gpu_module

PRECISIONS = {  # what products are computed in: storage, and the setting for float32
    "float32": ("float32", "highest"),
    "TF32": ("float32", "high"),
    "float16": ("float16", "highest"),
}


class Work(NamedTuple):
    """What an operation has to do at least: each array read and written once.

    Attributes
    ----------
    flops : float
        Multiplications and additions.
    bytes : float
        Read from and written to the card's memory.
    precision : str
        A key of `PRECISIONS`.
    """

    flops: float
    bytes: float
    precision: str = "float32"


class Ceilings(NamedTuple):
    """What a card reaches.

    Attributes
    ----------
    bandwidth : float
        Bytes a second of a copy, read and written ones both counted.
    rates : dict
        FLOPs a second of a product of large square matrices, by precision.
    """

    bandwidth: float
    rates: dict[str, float]

    def seconds(self, work: Work) -> float:
        """The least time that some work can take."""
        return max(work.flops / self.rates[work.precision], work.bytes / self.bandwidth)


def measure_ceilings(elements: int = 1 << 28, size: int = 8192) -> Ceilings:
    """Copy many float32 numbers, multiply matrices of size x size; the best of several times.

    Both are CuPy's own, so that they say what the card can do and not what this library does.
    """
    bandwidth = _bandwidth_of_copies(elements)
    rates = {}
    before = mt.get_float32_matmul_precision()
    for precision, (dtype, setting) in PRECISIONS.items():
        a, b = (_random_matrix(size, dtype, seed) for seed in (0, 1))
        mt.set_float32_matmul_precision(setting)
        rates[precision] = 2 * size**3 / _quickest(lambda a=a, b=b: a @ b)
    mt.set_float32_matmul_precision(before)
    return Ceilings(bandwidth, rates)


def _bandwidth_of_copies(elements: int) -> float:
    cupy = gpu_module()
    source = cupy.ones(elements, np.float32)
    target = cupy.empty_like(source)
    return 2 * source.nbytes / _quickest(lambda: cupy.copyto(target, source))


def _random_matrix(size: int, dtype: str, seed: int) -> Any:
    """Noise: a card multiplies zeros faster than numbers."""
    values = np.random.default_rng(seed).standard_normal((size, size), np.float32)
    return gpu_module().asarray(values.astype(dtype))


def _quickest(run: Callable[[], Any], times: int = 10) -> float:
    run()
    return min(_seconds(run) for _ in range(times))


def _seconds(run: Callable[[], Any]) -> float:
    start = wall_clock_of_gpu()
    run()
    return wall_clock_of_gpu() - start


def wall_clock_of_gpu() -> float:
    """Seconds on the wall, once the card has done all that it was given."""
    mt.cuda.synchronize()
    return time.perf_counter()
