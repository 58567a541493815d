"""The GPU: whether there is one, its memory, and waiting for it (the names of `torch.cuda`).

A GPU works through a queue: an operation returns as soon as it is queued, and Python waits only
where it reads a value, as in `loss.item()` or `x.cpu()`. To time operations, call `synchronize()`
before each look at the clock.

What could only be known by waiting is not checked: an index out of range counts from the other end
again, where the CPU raises an IndexError, and a class that is not there makes a loss NaN. Try new
data on the CPU first.
"""

from __future__ import annotations

from .engine.backend import gpu_is_available, gpu_module

__all__ = [
    "empty_cache",
    "get_device_name",
    "is_available",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "synchronize",
]


def is_available() -> bool:
    """Whether `x.to("cuda")` works: CuPy is installed and finds a GPU that it can use."""
    return gpu_is_available()


def get_device_name() -> str:
    """The name of the card that "cuda" stands for.

    Raises
    ------
    DeviceError, ImportError
        If there is none, as everything below.
    """
    cuda = gpu_module().cuda
    name = cuda.runtime.getDeviceProperties(cuda.Device().id)["name"]
    return name.decode() if isinstance(name, bytes) else name


def synchronize() -> None:
    """Wait until the GPU has done all that it was given."""
    gpu_module().cuda.runtime.deviceSynchronize()


def memory_allocated() -> int:
    """Bytes of the card's memory that arrays occupy."""
    return gpu_module().get_default_memory_pool().used_bytes()


def memory_reserved() -> int:
    """Bytes that are kept from the card: of arrays, and free for the next ones."""
    return gpu_module().get_default_memory_pool().total_bytes()


def mem_get_info() -> tuple[int, int]:
    """Bytes of the card's memory that are free for every program, and bytes in all."""
    return gpu_module().cuda.runtime.memGetInfo()


def empty_cache() -> None:
    """Give memory that no array occupies back to the card, for other programs."""
    gpu_module().get_default_memory_pool().free_all_blocks()
