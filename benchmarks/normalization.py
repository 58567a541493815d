"""Normalisation, and relu, which goes with it: passes over memory with little arithmetic. A time is
that of one result and the gradients of all its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .measure import case, peer

Contenders = Iterator[tuple[str, Callable[[], Any]]]


def contenders(inputs: list[np.ndarray], ops: dict[str, Callable]) -> Contenders:
    """Every library's way to compute a result of the first input's shape, and all gradients.

    `ops` finds the operation in a library, by the library's name.
    """
    dy = np.random.default_rng(1).standard_normal(inputs[0].shape, np.float32)
    for name, find in ops.items():
        if library := peer(name):
            yield name, TURNS[name](library, find(library), inputs, dy)


def with_tensors(library: Any, op: Callable, inputs: list, dy: Any) -> Callable:
    """A turn of a library that has PyTorch's tensors."""
    gradient = library.tensor(dy)

    def turn() -> None:
        op(*(library.tensor(x, requires_grad=True) for x in inputs)).backward(gradient)

    return turn


def with_variables(library: Any, op: Callable, inputs: list, dy: Any) -> Callable:
    """A turn of a library whose variables take the gradient of a result as an attribute."""
    gradient = library.Variable(dy) if library.__name__ == "dezero" else dy

    def turn() -> None:
        y = op(*map(library.Variable, inputs))
        y.grad = gradient
        y.backward()

    return turn


def with_mygrad(library: Any, op: Callable, inputs: list, dy: Any) -> Callable:
    """A turn of MyGrad."""

    def turn() -> None:
        op(*map(library.tensor, inputs)).backward(dy)

    return turn


def with_functions(library: Any, op: Callable, inputs: list, dy: Any) -> Callable:
    """A turn of HIPS autograd, which differentiates functions of arrays."""

    def turn() -> None:
        pull_back, _ = library.make_vjp(lambda given: op(*given))(tuple(inputs))
        pull_back(dy)

    return turn


TURNS = {
    "minitorch_attn": with_tensors,
    "torch": with_tensors,
    "dezero": with_variables,
    "chainer": with_variables,
    "mygrad": with_mygrad,
    "autograd": with_functions,
}


def normal(*shape: int) -> np.ndarray:
    """Reproducible float32 noise."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def batch_norm(library: Any) -> Callable:
    """Batch norm of PyTorch, or of this library, by the batch's own statistics."""
    op = library.nn.functional if library.__name__ == "torch" else library.functional
    return lambda x, w, b: op.batch_norm(x, None, None, w, b, training=True)


def batch_norm_in_dezero(library: Any) -> Callable:
    """Batch norm of DeZero, which moves running statistics too: it has no other."""
    mean, variance = np.zeros(64, np.float32), np.ones(64, np.float32)

    def op(x: Any, w: Any, b: Any) -> Any:
        C = len(w)
        return library.functions.batch_nrom(x, w, b, mean[:C], variance[:C])

    return op


def standardised_in_autograd(axes: tuple[int, ...], shape: tuple[int, ...]) -> Callable:
    """Finds NumPy's operations that make a norm over some axes, with parameters of a shape."""

    def find(library: Any) -> Callable:
        xp: Any = peer("autograd.numpy")

        def op(x: Any, w: Any, b: Any) -> Any:
            centred = x - xp.mean(x, axis=axes, keepdims=True)
            variance = xp.mean(centred * centred, axis=axes, keepdims=True)
            xhat = centred / xp.sqrt(variance + np.float32(1e-5))
            return xhat * w.reshape(shape) + b.reshape(shape)

        return op

    return find


for shape in ((32, 32, 28, 28), (64, 64, 14, 14)):

    @case(f"batch norm in training, {'x'.join(map(str, shape))}")
    def _(shape: tuple[int, ...] = shape) -> Contenders:
        C = shape[1]
        return contenders(
            [normal(*shape), np.ones(C, np.float32), np.zeros(C, np.float32)],
            {
                "minitorch_attn": batch_norm,
                "torch": batch_norm,
                "dezero": batch_norm_in_dezero,
                "chainer": lambda chainer: chainer.functions.batch_normalization,
                "mygrad": lambda mygrad: (
                    lambda x, w, b: mygrad.nnet.layers.batchnorm(x, gamma=w, beta=b, eps=1e-5)
                ),
                "autograd": standardised_in_autograd((0, 2, 3), (1, C, 1, 1)),
            },
        )


@case("layer norm, 32x196x64")
def _() -> Contenders:
    N, L, D = 32, 196, 64

    def in_chainer(chainer: Any) -> Callable:
        def op(x: Any, w: Any, b: Any) -> Any:
            rows = chainer.functions.reshape(x, (N * L, D))
            y = chainer.functions.layer_normalization(rows, w, b)
            return chainer.functions.reshape(y, (N, L, D))

        return op

    return contenders(
        [normal(N, L, D), np.ones(D, np.float32), np.zeros(D, np.float32)],
        {
            "minitorch_attn": lambda mt: lambda x, w, b: mt.functional.layer_norm(x, (D,), w, b),
            "torch": lambda torch: lambda x, w, b: torch.layer_norm(x, (D,), w, b),
            "chainer": in_chainer,
            "autograd": standardised_in_autograd((2,), (1, 1, D)),
        },
    )


@case("group norm, 32x32x28x28 in 8 groups")
def _() -> Contenders:
    N, C, G = 32, 32, 8

    def in_autograd(autograd: Any) -> Callable:
        xp: Any = peer("autograd.numpy")

        def op(x: Any, w: Any, b: Any) -> Any:
            groups = x.reshape(N, G, -1)
            centred = groups - xp.mean(groups, axis=2, keepdims=True)
            variance = xp.mean(centred * centred, axis=2, keepdims=True)
            xhat = (centred / xp.sqrt(variance + np.float32(1e-5))).reshape(x.shape)
            return xhat * w.reshape(C, 1, 1) + b.reshape(C, 1, 1)

        return op

    return contenders(
        [normal(N, C, 28, 28), np.ones(C, np.float32), np.zeros(C, np.float32)],
        {
            "minitorch_attn": lambda mt: lambda x, w, b: mt.functional.group_norm(x, G, w, b),
            "torch": lambda torch: lambda x, w, b: torch.group_norm(x, G, w, b),
            "chainer": lambda chainer: (
                lambda x, w, b: chainer.functions.group_normalization(x, G, w, b)
            ),
            "autograd": in_autograd,
        },
    )


@case("relu, 32x32x28x28")
def _() -> Contenders:
    def in_autograd(autograd: Any) -> Callable:
        xp: Any = peer("autograd.numpy")
        return lambda x: xp.maximum(x, np.float32(0))

    return contenders(
        [normal(32, 32, 28, 28)],
        {
            "minitorch_attn": lambda mt: mt.functional.relu,
            "torch": lambda torch: torch.relu,
            "dezero": lambda dezero: dezero.functions.relu,
            "chainer": lambda chainer: chainer.functions.relu,
            "mygrad": lambda mygrad: mygrad.nnet.activations.relu,
            "autograd": in_autograd,
        },
    )
