"""How many multiply-adds an operation takes, told from shapes.

Counted are sums of products: convolutions and matrix products, whose work grows with the product
of three sizes and more. Additions, scalings, activations, normalisation and pooling count nothing,
as in the tables of papers; neither do biases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..engine.backend import Array


def multiply_adds(op: str, y: Array, inputs: Sequence[Any], settings: Mapping[str, Any]) -> int:
    """Number of products that a call of a primitive has summed up.

    Parameters
    ----------
    op : str
        The primitive's name.
    y : array
        Its output.
    inputs : sequence of array
        Its positional inputs.
    settings : dict
        Its settings by name.

    Returns
    -------
    int
        0 for an operation that is not in `COUNTED`.
    """
    count = COUNTED.get(op)
    return 0 if count is None else count(y, inputs, settings)


def _convolution(y: Array, inputs: Sequence[Any], settings: Mapping[str, Any]) -> int:
    """N O P Q (C/G) R S: for each output, as many products as its kernel (C/G, R, S) has taps."""
    _, weight, *_ = inputs
    return y.size * math.prod(weight.shape[1:])


def _transposed_convolution(y: Array, inputs: Sequence[Any], settings: Mapping[str, Any]) -> int:
    """N C H W (O/G) R S: each input is spread by its kernel (O/G, R, S)."""
    x, weight, *_ = inputs
    return x.size * math.prod(weight.shape[1:])


def _matrix_product(y: Array, inputs: Sequence[Any], settings: Mapping[str, Any]) -> int:
    """N n k m: for each of the N n k outputs, as many products as the rows of a are long (m)."""
    a, *_ = inputs
    return y.size * a.shape[-1]


def _einsum_product(y: Array, inputs: Sequence[Any], settings: Mapping[str, Any]) -> int:
    """The product of the sizes of all labels, those that are kept and those summed over."""
    sizes: dict[str, int] = {}
    for x, labels in zip(inputs, settings["labels"]):
        for label, size in zip(labels, x.shape):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values())


def _attention(y: Array, inputs: Sequence[Any], settings: Mapping[str, Any]) -> int:
    """N L S (D + Dv): each of N L queries meets S keys and S values, whatever a mask hides."""
    query, key, value, *_ = inputs
    return math.prod(y.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _recurrence(y: Array, inputs: Sequence[Any], settings: Mapping[str, Any]) -> int:
    """B G D D: each of B elements multiplies its state by a weight (G D, D)."""
    a, weight, *_ = inputs
    return len(a) * weight.size


#: How the multiply-adds of a primitive are counted, by its name.
COUNTED: dict[str, Callable[[Array, Sequence[Any], Mapping[str, Any]], int]] = {
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "conv_transpose1d": _transposed_convolution,
    "conv_transpose2d": _transposed_convolution,
    "conv_transpose3d": _transposed_convolution,
    "linear": _matrix_product,
    "matmul": _matrix_product,
    "product": _einsum_product,
    "recurrence": _recurrence,
    "scaled_dot_product_attention": _attention,
}
