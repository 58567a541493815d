"""Pooling: passes over memory with little arithmetic. A time is that of a pool and its gradient.

The contender "channels last" is this library on images whose channels are adjacent in memory, as
its convolutions give them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F

from .measure import case, peer
from .normalization import TURNS, normal, with_tensors

Contenders = Iterator[tuple[str, Callable[[], Any]]]


def contenders(shape: tuple[int, ...], ops: dict[str, Callable]) -> Contenders:
    """Every library's way to pool images and to carry a gradient back.

    `ops` finds the pool in a library, by the library's name.
    """
    x, pool = normal(*shape), ops["minitorch_attn"](mt)
    dy = normal(*pool(mt.tensor(x)).shape)
    for name, find in ops.items():
        if library := peer(name):
            yield name, TURNS[name](library, find(library), [x], dy)
    yield "channels last", with_tensors(_AsTheyLie, pool, [_channels_last(x)], _channels_last(dy))


def _channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


class _AsTheyLie:
    """Makes tensors of copies in the layout of the array: `mt.tensor` has the channels first."""

    @staticmethod
    def tensor(x: np.ndarray, requires_grad: bool = False) -> mt.Tensor:
        return mt.Tensor(x.copy(order="K"), requires_grad)


def named(name: str, *args: Any) -> Callable:
    """Finds a pool of PyTorch or of this library by its name."""

    def find(library: Any) -> Callable:
        op = getattr(F if library is mt else library.nn.functional, name)
        return lambda x: op(x, *args)

    return find


def in_chainer(name: str, *args: Any, **options: Any) -> Callable:
    """Finds a pool of Chainer by its name."""
    return lambda chainer: lambda x: getattr(chainer.functions, name)(x, *args, **options)


def in_dezero(name: str, *args: Any) -> Callable:
    """Finds a pool of DeZero by its name."""
    return lambda dezero: lambda x: getattr(dezero.functions, name)(x, *args)


for size, window in (((32, 32, 28, 28), (2, 2, 0)), ((16, 64, 32, 32), (3, 2, 1))):

    @case("max pool {0}x{0}, stride {1}, {2}".format(*window[:2], "x".join(map(str, size))))
    def _(size: tuple[int, ...] = size, window: tuple[int, int, int] = window) -> Contenders:
        ops = {
            "minitorch_attn": named("max_pool2d", *window),
            "torch": named("max_pool2d", *window),
            "dezero": in_dezero("pooling", *window),
            "chainer": in_chainer("max_pooling_2d", *window, cover_all=False),
        }
        if window[2] == 0:  # it knows no padding
            ops["mygrad"] = lambda mygrad: (
                lambda x: mygrad.nnet.layers.max_pool(x, (window[0],) * 2, window[1])
            )
        return contenders(size, ops)


for size, window in (((32, 32, 28, 28), (2, 2, 0)), ((16, 64, 32, 32), (3, 1, 1))):

    @case("average pool {0}x{0}, stride {1}, {2}".format(*window[:2], "x".join(map(str, size))))
    def _(size: tuple[int, ...] = size, window: tuple[int, int, int] = window) -> Contenders:
        return contenders(
            size,
            {
                "minitorch_attn": named("avg_pool2d", *window),
                "torch": named("avg_pool2d", *window),
                "dezero": in_dezero("average_pooling", *window),
                "chainer": in_chainer("average_pooling_2d", *window),
            },
        )


@case("global average pool, 32x64x14x14")
def _() -> Contenders:
    return contenders(
        (32, 64, 14, 14),
        {
            "minitorch_attn": named("adaptive_avg_pool2d", 1),
            "torch": named("adaptive_avg_pool2d", 1),
            "chainer": in_chainer("average_pooling_2d", 14),
        },
    )


@case("global max pool, 32x64x14x14")
def _() -> Contenders:
    return contenders(
        (32, 64, 14, 14),
        {
            "minitorch_attn": named("adaptive_max_pool2d", 1),
            "torch": named("adaptive_max_pool2d", 1),
            "chainer": in_chainer("max_pooling_2d", 14),
        },
    )
