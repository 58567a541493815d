"""Tensors made from a shape: constants, ranges and random numbers.

All take a `device`, "cpu" or "cuda"; left out, it is the default one (see `set_default_device`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .backend import array_module, as_array, module_of_device, placed, to_device
from .dtypes import as_dtype, get_default_dtype
from .random import default_generator
from .tensor import Tensor, tensor


def full(
    shape: tuple[int, ...],
    value: float,
    dtype: Any = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """A tensor of a shape with every element equal to `value`, of the dtype of `tensor(value)`."""
    dtype = tensor(value).dtype if dtype is None else as_dtype(dtype)
    return Tensor(module_of_device(device).full(shape, value, dtype), requires_grad)


def zeros(
    *shape: int, dtype: Any = None, requires_grad: bool = False, device: str | None = None
) -> Tensor:
    """A tensor of zeros: `zeros(2, 3)` or `zeros((2, 3))`."""
    xp, dtype = module_of_device(device), as_dtype(dtype or get_default_dtype())
    return Tensor(xp.zeros(_shape(shape), dtype), requires_grad)


def ones(
    *shape: int, dtype: Any = None, requires_grad: bool = False, device: str | None = None
) -> Tensor:
    """A tensor of ones: `ones(2, 3)` or `ones((2, 3))`."""
    xp, dtype = module_of_device(device), as_dtype(dtype or get_default_dtype())
    return Tensor(xp.ones(_shape(shape), dtype), requires_grad)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of the shape, dtype and device of `x`."""
    return Tensor(array_module(x._data).zeros_like(x._data))


def ones_like(x: Tensor) -> Tensor:
    """Ones of the shape, dtype and device of `x`."""
    return Tensor(array_module(x._data).ones_like(x._data))


def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """start, start + step, ... up to but without end; with one argument, from 0 to it.

    Integers give integers, floats the default dtype.
    """
    start, end = (0, start) if end is None else (start, end)
    values = module_of_device(device).arange(start, end, step)
    if dtype is None and values.dtype.kind == "f":
        dtype = get_default_dtype()
    return tensor(values, dtype)


def randn(
    *shape: int,
    dtype: Any = None,
    requires_grad: bool = False,
    generator: np.random.Generator | None = None,
    device: str | None = None,
) -> Tensor:
    """Standard normal numbers, from `generator` or the device's default one (see `manual_seed`).

    They are drawn in float64 and rounded: every dtype gives the same numbers.
    """
    values = (generator or default_generator(placed(device))).standard_normal(_shape(shape))
    return tensor(values, dtype or get_default_dtype(), requires_grad, placed(device))


def rand(
    *shape: int,
    dtype: Any = None,
    requires_grad: bool = False,
    generator: np.random.Generator | None = None,
    device: str | None = None,
) -> Tensor:
    """Numbers uniform in [0, 1), from `generator` or the device's default one (`manual_seed`).

    They are drawn in float64 and rounded, but not to 1: every dtype gives the same numbers.
    """
    device = placed(device)
    values = to_device((generator or default_generator(device)).random(_shape(shape)), device)
    kind = as_dtype(dtype or get_default_dtype()).type
    below_one = np.nextafter(kind(1), kind(0))
    values = array_module(values).minimum(values.astype(kind), below_one)
    return Tensor(as_array(values), requires_grad)


def _shape(shape: tuple) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
