"""Softmax attention: a time is that of the output and the gradients of queries, keys and values.

"torch" is PyTorch's own attention, on arrays (N, E, L, D), for which it has a fused kernel; "torch,
3-D" the same without the axis of heads, where it has none; "torch, plain" the formula written out.
The contender "matmul" is the limit: the seven matrix products, tile by tile, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .measure import case, peer
from .normalization import Contenders, contenders, normal, with_tensors

TILE = 512, 256


def inputs(N: int, L: int, D: int) -> list[np.ndarray]:
    """Queries, keys and values of one head, (N, 1, L, D)."""
    return list(np.random.default_rng(0).standard_normal((3, N, 1, L, D), np.float32))


def own(causal: bool, library: Any) -> Callable:
    """Attention of PyTorch, or of this library."""
    home = library.nn.functional if library.__name__ == "torch" else library.functional
    return lambda q, k, v: home.scaled_dot_product_attention(q, k, v, is_causal=causal)


def without_heads(causal: bool, torch: Any) -> Callable:
    """PyTorch's attention on arrays (N, L, D)."""
    attend = own(causal, torch)
    return lambda q, k, v: attend(q[:, 0], k[:, 0], v[:, 0])[:, None]


def plain_in_torch(causal: bool, torch: Any) -> Callable:
    """The formula in PyTorch."""

    def op(q: Any, k: Any, v: Any) -> Any:
        s = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if causal:
            seen = torch.ones(s.shape[-2:], dtype=torch.bool).tril()
            s = s.masked_fill(~seen, -math.inf)
        return s.softmax(-1) @ v

    return op


def plain_in_chainer(chainer: Any) -> Callable:
    """The formula in Chainer."""
    F = chainer.functions

    def op(q: Any, k: Any, v: Any) -> Any:
        s = F.matmul(q, k, transb=True) / math.sqrt(q.shape[-1])
        return F.matmul(F.softmax(s, axis=-1), v)

    return op


def plain_in_mygrad(mygrad: Any) -> Callable:
    """The formula in MyGrad."""

    def op(q: Any, k: Any, v: Any) -> Any:
        s = mygrad.matmul(q, mygrad.swapaxes(k, -1, -2)) / np.float32(math.sqrt(q.shape[-1]))
        return mygrad.matmul(mygrad.nnet.softmax(s, axis=-1), v)

    return op


def plain_in_autograd(autograd: Any) -> Callable:
    """The formula in NumPy's operations, for HIPS autograd."""
    xp: Any = peer("autograd.numpy")

    def op(q: Any, k: Any, v: Any) -> Any:
        s = xp.matmul(q, xp.swapaxes(k, -1, -2)) / np.float32(math.sqrt(q.shape[-1]))
        e = xp.exp(s - xp.max(s, axis=-1, keepdims=True))
        return xp.matmul(e / xp.sum(e, axis=-1, keepdims=True), v)

    return op


def products(N: int, L: int, D: int) -> Callable[[], None]:
    """Seven products: scores and output; then scores again, and the four of the backward pass."""
    rows, columns = (L // max(1, round(L / size)) for size in TILE)
    tiles = (L // rows) * (L // columns)
    q, k, v = normal(rows, D), normal(columns, D), normal(columns, D)
    tile = normal(rows, columns)

    def run() -> None:
        for _ in range(N * tiles):
            for _ in range(3):  # twice the scores, and the weights' gradient
                np.matmul(q, k.T, out=tile)
            for _ in range(2):  # the output, and the queries' gradient
                tile @ v
            for _ in range(2):  # the gradients of keys and values
                tile.T @ q

    return run


for N, L, D, causal in (
    (1, 4096, 64, False),
    (1, 4096, 64, True),
    (8, 784, 64, False),
    (8, 196, 64, False),
):

    @case(f"attention{', causal' * causal}, {N}x1x{L}x{D}")
    def _(N: int = N, L: int = L, D: int = D, causal: bool = causal) -> Contenders:
        given = inputs(N, L, D)
        libraries = {name: lambda found: own(causal, found) for name in ("minitorch_attn", "torch")}
        peers = {
            "chainer": plain_in_chainer,
            "mygrad": plain_in_mygrad,
            "autograd": plain_in_autograd,
        }
        yield from contenders(given, libraries if causal else libraries | peers)
        if not causal:
            yield "matmul", products(N, L, D)
        if torch := peer("torch"):
            dy = np.random.default_rng(1).standard_normal(given[0].shape, np.float32)
            for name, op in (("3-D", without_heads), ("plain", plain_in_torch)):
                yield f"torch, {name}", with_tensors(torch, op(causal, torch), given, dy)
