"""A GPU simulated on the CPU: strict, slow, and honest about what it is.

A module of CuPy's names with NumPy behind it stands in for `cupy`, so that code for a GPU can be
tried, tested and read where there is none. It refuses what CuPy refuses, lacks what CuPy lacks,
counts what passes between host and device, and runs kernels of our own on the CPU.

What it is not: it says nothing of speed; its arithmetic is the CPU's, not the rounding of a
card; NumPy's functions stand in for CuPy's, so a mistake in CuPy itself cannot show. Only a
real GPU shows those.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from .module import make_cupy
from .traffic import Traffic, counting

__all__ = ["Traffic", "simulated_gpu"]

_cupy = make_cupy()


@contextlib.contextmanager
def simulated_gpu(run_kernels: bool = True) -> Iterator[Traffic]:
    """Let `cupy` be the stand-in inside: ``tensor.to("cuda")`` works without a GPU.

    Parameters
    ----------
    run_kernels : bool
        Whether kernels of our own are run, which takes a C++ compiler and time. False only counts
        their launches, and leaves what they should have written as it is: no values then, but
        all that passes between host and device.

    Yields
    ------
    Traffic
        Copies, waits and launches, counted from here on.
    """
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = _cupy
    traffic = Traffic(runs_kernels=run_kernels)
    counting.append(traffic)
    try:
        yield traffic
    finally:
        counting[:] = [other for other in counting if other is not traffic]
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before
