"""Tensors made from a shape: constants, ranges and random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .backend import array_module
from .dtypes import get_default_dtype
from .random import default_generator
from .tensor import Tensor


def full(shape: tuple[int, ...], value: float, dtype: Any = None) -> Tensor:
    """A tensor of a shape with every element equal to `value`."""
    return Tensor(np.full(shape, value, dtype=dtype or get_default_dtype()))


def zeros(*shape: int, dtype: Any = None) -> Tensor:
    """A tensor of zeros: `zeros(2, 3)` or `zeros((2, 3))`."""
    return full(_shape(shape), 0, dtype)


def ones(*shape: int, dtype: Any = None) -> Tensor:
    """A tensor of ones: `ones(2, 3)` or `ones((2, 3))`."""
    return full(_shape(shape), 1, dtype)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of the shape, dtype and device of `x`."""
    return Tensor(array_module(x._data).zeros_like(x._data))


def ones_like(x: Tensor) -> Tensor:
    """Ones of the shape, dtype and device of `x`."""
    return Tensor(array_module(x._data).ones_like(x._data))


def arange(start: float, end: float | None = None, step: float = 1, dtype: Any = None) -> Tensor:
    """start, start + step, ... up to but without end; with one argument, from 0 to it."""
    start, end = (0, start) if end is None else (start, end)
    values = np.arange(start, end, step)
    return Tensor(
        values.astype(dtype or (get_default_dtype() if values.dtype.kind == "f" else values.dtype))
    )


def randn(*shape: int, dtype: Any = None, generator: np.random.Generator | None = None) -> Tensor:
    """Standard normal numbers, from `generator` or the default one (see `manual_seed`)."""
    values = (generator or default_generator()).standard_normal(_shape(shape))
    return Tensor(values.astype(dtype or get_default_dtype()))


def rand(*shape: int, dtype: Any = None, generator: np.random.Generator | None = None) -> Tensor:
    """Numbers uniform in [0, 1), from `generator` or the default one (see `manual_seed`)."""
    values = (generator or default_generator()).random(_shape(shape))
    return Tensor(values.astype(dtype or get_default_dtype()))


def _shape(shape: tuple) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
