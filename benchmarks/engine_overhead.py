"""What the engine adds to the work on numbers: chains of operations on so few of them that the
bookkeeping is what is timed. A time is that of one operation, recorded and carried back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minitorch_attn as mt

from .measure import case, peer

LENGTH = 100  # operations in a chain


def constants(y: Any, x: Any) -> Any:
    """A chain whose every operation has one input that needs a gradient."""
    for _ in range(LENGTH // 2):
        y = y * 1.01
        y = y + 0.5
    return y


def tensors(y: Any, x: Any) -> Any:
    """A chain whose every operation has two."""
    for _ in range(LENGTH // 2):
        y = y * x
        y = y + x
    return y


def contenders(chain: Callable, size: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every library's way to compute a chain and the gradient of its sum."""
    start, ones = np.full(size, 0.5, np.float32), np.ones(size, np.float32)

    def minitorch_attn() -> None:
        x = mt.tensor(start, requires_grad=True)
        chain(x, x).backward(ones)

    yield "minitorch_attn", minitorch_attn
    yield "numpy, forward", lambda: chain(start, start)  # the work on numbers alone

    if torch := peer("torch"):

        def in_torch() -> None:
            x = torch.tensor(start, requires_grad=True)
            chain(x, x).backward(torch.from_numpy(ones))

        yield "torch", in_torch

    if peer("autograd"):
        vjp = peer("autograd").make_vjp

        def in_autograd() -> None:
            pull_back, _ = vjp(lambda x: chain(x, x))(start)
            pull_back(ones)

        yield "autograd", in_autograd

    if mygrad := peer("mygrad"):

        def in_mygrad() -> None:
            x = mygrad.tensor(start)
            chain(x, x).backward(ones)

        yield "mygrad", in_mygrad


for chain in (constants, tensors):
    for size in (8, 4096):

        @case(f"chain of {LENGTH} operations with {chain.__name__}, {size} floats", LENGTH)
        def _(chain: Callable = chain, size: int = size) -> Iterator:
            return contenders(chain, size)
