"""Images read between their pixels: sampled on an affine grid, and enlarged. A time is that of one
result and the gradients of all its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F

from .measure import case, peer


def images(*shape: int, seed: int = 0) -> np.ndarray:
    """Reproducible float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def slightly_turned(N: int, H: int, W: int) -> np.ndarray:
    """Sampling grids (N, H, W, 2), each of another affine map near the identity."""
    theta = np.float32([[0.9, 0.2, 0.1], [-0.2, 0.9, 0.05]]) + 0.1 * images(N, 2, 3, seed=1)
    return F.affine_grid(theta, (N, 1, H, W)).numpy()


def sampled(N: int, C: int, H: int, W: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every library's way to sample images and to find the gradients of images and grid."""
    start, places, dy = images(N, C, H, W), slightly_turned(N, H, W), images(N, C, H, W, seed=2)

    def minitorch_attn() -> None:
        x, grid = mt.tensor(start, requires_grad=True), mt.tensor(places, requires_grad=True)
        F.grid_sample(x, grid).backward(dy)

    yield "minitorch_attn", minitorch_attn

    if torch := peer("torch"):

        def in_torch() -> None:
            x, grid = (
                torch.tensor(start, requires_grad=True),
                torch.tensor(places, requires_grad=True),
            )
            y = torch.nn.functional.grid_sample(x, grid, align_corners=False)
            y.backward(torch.from_numpy(dy))

        yield "torch", in_torch

    if chainer := peer("chainer"):
        in_front = np.ascontiguousarray(places.transpose(0, 3, 1, 2))  # (N, 2, H, W)

        def in_chainer() -> None:
            x, grid = chainer.Variable(start), chainer.Variable(in_front)
            y = chainer.functions.spatial_transformer_sampler(x, grid)
            y.grad = dy
            y.backward()

        yield "chainer", in_chainer


def enlarged(*shape: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every library's way to double the size of images, and the gradient."""
    start = images(*shape)
    dy = images(*shape[:2], 2 * shape[2], 2 * shape[3], seed=2)

    def minitorch_attn() -> None:
        x = mt.tensor(start, requires_grad=True)
        F.interpolate(x, scale_factor=2, mode="bilinear").backward(dy)

    yield "minitorch_attn", minitorch_attn

    if torch := peer("torch"):

        def in_torch() -> None:
            x = torch.tensor(start, requires_grad=True)
            y = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
            y.backward(torch.from_numpy(dy))

        yield "torch", in_torch

    if chainer := peer("chainer"):
        size = dy.shape[2:]

        def in_chainer() -> None:
            x = chainer.Variable(start)
            y = chainer.functions.resize_images(x, size, align_corners=False)
            y.grad = dy
            y.backward()

        yield "chainer", in_chainer


for shape in ((32, 1, 28, 28), (16, 16, 28, 28)):

    @case(f"bilinear sampling of {shape}")
    def _(shape: tuple = shape) -> Iterator:
        return sampled(*shape)


@case("bilinear enlargement of (16, 32, 14, 14) by 2")
def _() -> Iterator:
    return enlarged(16, 32, 14, 14)
