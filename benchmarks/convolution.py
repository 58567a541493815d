"""Convolution: forward, and the gradients of images and kernels, through each library's engine.

The contender "matmul" is the limit: three matrix products with as many multiplications as the
definition has, forward and twice backward, without anything that brings the windows into place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F

from .measure import case, peer


class Shape(NamedTuple):
    """N images of C channels and size x size, O kernels of k x k, with padding k // 2."""

    name: str
    N: int
    C: int
    O: int
    size: int
    k: int = 3
    stride: int = 1
    groups: int = 1
    dilation: int = 1
    dtype: type = np.float32

    @property
    def padding(self) -> int:
        return self.dilation * (self.k // 2)

    @property
    def options(self) -> dict[str, int]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, kernels, and a gradient of the output."""
        P = (self.size + 2 * self.padding - self.dilation * (self.k - 1) - 1) // self.stride + 1
        shapes = (
            (self.N, self.C, self.size, self.size),
            (self.O, self.C // self.groups, self.k, self.k),
            (self.N, self.O, P, P),
        )
        rng = np.random.default_rng(0)
        x, w, dy = (rng.standard_normal(s).astype(self.dtype) for s in shapes)
        return x, w, dy

    def __str__(self) -> str:
        name = f"conv {self.name}: {self.N},{self.C}->{self.O},{self.size} k{self.k}"
        return name + (f" {self.dtype.__name__}" if self.dtype is not np.float32 else "")


DENSE = (
    Shape("dense", 32, 1, 16, 28),
    Shape("dense", 32, 16, 32, 28),
    Shape("dense", 64, 64, 64, 14),
    Shape("dense", 16, 64, 64, 32),
    Shape("dense", 16, 256, 64, 14, k=1),
    Shape("dense", 16, 2, 1, 28, k=7),
)
OTHERS = (
    Shape("depthwise", 16, 64, 64, 28, groups=64),
    Shape("in 32 groups", 16, 64, 64, 28, groups=32),
    Shape("stride 2", 16, 64, 128, 28, stride=2),
    Shape("stride 2", 16, 64, 128, 28, k=1, stride=2),
    Shape("dilation 2", 16, 64, 64, 28, dilation=2),
    Shape("few channels", 64, 16, 16, 28),
    Shape("many channels", 16, 256, 256, 7),
    Shape("large kernel", 16, 32, 32, 14, k=5),
    Shape("digits", 64, 8, 8, 8, dtype=np.float64),
    Shape("digits", 64, 16, 32, 8, dtype=np.float64),
)


def in_minitorch_attn(shape: Shape) -> Callable[[], Any]:
    x, w, dy = shape.arrays()
    x, w = mt.tensor(x, requires_grad=True), mt.tensor(w, requires_grad=True)

    def run() -> None:
        x.grad = w.grad = None
        F.conv2d(x, w, **shape.options).backward(dy)

    return run


def in_torch(shape: Shape) -> Callable[[], Any]:
    torch = peer("torch")
    x, w, dy = map(torch.from_numpy, shape.arrays())
    x.requires_grad_(), w.requires_grad_()

    def run() -> None:
        x.grad = w.grad = None
        torch.nn.functional.conv2d(x, w, **shape.options).backward(dy)

    return run


def as_products(shape: Shape) -> Callable[[], Any]:
    x, w, dy = shape.arrays()
    G, O = shape.groups, shape.O // shape.groups
    dy = dy.reshape(shape.N, G, O, -1)
    w = w.reshape(G, O, -1)
    columns = np.ones((shape.N, G, w.shape[2], dy.shape[3]), shape.dtype)
    y, dcolumns = np.empty_like(dy), np.empty_like(columns)
    dw = np.empty((shape.N, *w.shape), shape.dtype)

    def run() -> None:
        np.matmul(w, columns, out=y)
        np.matmul(w.swapaxes(1, 2), dy, out=dcolumns)
        np.matmul(dy, columns.swapaxes(2, 3), out=dw)

    return run


def in_dezero(shape: Shape) -> Callable[[], Any]:
    dezero = peer("dezero")
    x, w, dy = map(dezero.Variable, shape.arrays())

    def run() -> None:
        x.cleargrad(), w.cleargrad()
        y = peer("dezero.functions").conv2d(x, w, None, shape.stride, shape.padding)
        y.grad = dy
        y.backward()

    return run


def in_chainer(shape: Shape) -> Callable[[], Any]:
    chainer = peer("chainer")
    x, w, dy = shape.arrays()
    x, w = chainer.Variable(x), chainer.Variable(w)
    options = {"dilate": shape.dilation, "groups": shape.groups}

    def run() -> None:
        x.cleargrad(), w.cleargrad()
        y = chainer.functions.convolution_2d(x, w, None, shape.stride, shape.padding, **options)
        y.grad = dy
        y.backward()

    return run


def in_mygrad(shape: Shape) -> Callable[[], Any]:
    x, w, dy = shape.arrays()
    x, w = map(peer("mygrad").tensor, (x, w))
    options = {"stride": shape.stride, "padding": shape.padding, "dilation": shape.dilation}

    def run() -> None:
        peer("mygrad.nnet.layers").conv_nd(x, w, **options).backward(dy)

    return run


def in_autograd(shape: Shape) -> Callable[[], Any]:
    x, w, dy = shape.arrays()
    p = shape.padding
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    axes = {"axes": ([2, 3], [2, 3]), "dot_axes": ([1], [1]), "mode": "valid"}

    def convolve(inputs: tuple) -> Any:
        return peer("autograd.scipy.signal").convolve(*inputs, **axes)

    def run() -> None:
        pull_back, _ = peer("autograd").make_vjp(convolve)((padded, w))
        pull_back(dy)

    return run


def peers_of(shape: Shape) -> Iterator[tuple[str, Callable]]:
    """The libraries in NumPy that have this convolution."""
    plain = shape.groups == 1 and shape.dilation == 1
    if plain and peer("dezero"):
        yield "dezero", in_dezero
    if peer("chainer"):
        yield "chainer", in_chainer
    if shape.groups == shape.stride == 1 and peer("mygrad"):
        yield "mygrad", in_mygrad
    if plain and shape.stride == 1 and shape.C <= 2 and peer("autograd"):
        yield "autograd", in_autograd  # takes seconds for more channels


for shape in (*DENSE, *OTHERS):

    @case(str(shape))
    def _(shape: Shape = shape) -> Iterator[tuple[str, Callable[[], Any]]]:
        yield "minitorch_attn", in_minitorch_attn(shape)
        yield "matmul", as_products(shape)
        if peer("torch"):
            yield "torch", in_torch(shape)
        for name, contender in peers_of(shape):
            yield name, contender(shape)
