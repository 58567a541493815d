"""What every test of an operation needs: PyTorch's answer to the same call, and a gradient check.

    compare(F.softmax, torch.softmax, x, dim=1)
    check_gradients(F.softmax, x, dim=1)

Floating-point arrays are the inputs whose gradients are compared; arrays of integers and booleans
(indices, masks) are constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minitorch_attn as mt

try:
    import torch
except ImportError:
    torch = None

TOLERANCE = {"float32": 2e-5, "float64": 1e-11}  # of the largest absolute value, per dtype


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Reproducible standard normal numbers (float64)."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    """Reproducible numbers between 0.5 and 2."""
    return np.random.default_rng([seed, *shape]).uniform(0.5, 2, shape)


def compare(
    ours: Callable,
    theirs: Callable,
    *inputs: Any,
    dtypes: tuple[str, ...] = ("float32", "float64"),
    tolerance: dict[str, float] = TOLERANCE,
    **settings: Any,
) -> None:
    """Assert that a function of tensors agrees with PyTorch's.

    The outputs, their dtypes and shapes, and the gradients of all floating-point inputs for a
    random cotangent must be the same, in every one of `dtypes`. Skips without PyTorch.

    `theirs` takes the same positional inputs and settings as `ours`, as PyTorch's tensors; a
    function whose arguments differ is adapted by a lambda. Both may return a tuple of tensors.
    """
    if torch is None:
        import pytest

        pytest.skip("needs PyTorch")
    for dtype in dtypes:
        _compare(ours, theirs, [_cast(x, dtype) for x in inputs], dtype, tolerance[dtype], settings)


def check_gradients(op: Callable, *inputs: Any, **settings: Any) -> None:
    """Assert that `backward()` through an operation agrees with central differences."""
    arrays = [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray)]

    def call(*tensors: mt.Tensor) -> mt.Tensor:
        given = list(inputs)
        for i, t in zip(arrays, tensors, strict=True):
            given[i] = t
        return op(*given, **settings)

    report = mt.gradcheck(call, *(inputs[i] for i in arrays))
    assert not any(i.warning for i in report.inputs), str(report)


def _cast(x: Any, dtype: str) -> Any:
    return x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x


def _compare(ours, theirs, inputs, dtype, tolerance, settings):
    our_inputs = [_tensor(x) for x in inputs]
    their_inputs = [_torch_tensor(x) for x in inputs]
    our_outputs = _tuple(ours(*our_inputs, **{k: _tensor(v) for k, v in settings.items()}))
    their_outputs = _tuple(
        theirs(*their_inputs, **{k: _torch_tensor(v) for k, v in settings.items()})
    )
    assert len(our_outputs) == len(their_outputs)
    for i, (y, t) in enumerate(zip(our_outputs, their_outputs)):
        where = f"output {i} in {dtype}"
        assert str(y.dtype) == str(t.dtype).removeprefix("torch."), where
        _assert_close(y.numpy(), t.detach().numpy(), tolerance, where)
        assert y.requires_grad == t.requires_grad, where
        if t.requires_grad:
            dy = normal(*y.shape, seed=i + 1).astype(dtype)
            y.backward(dy, retain_graph=True)
            t.backward(torch.from_numpy(np.asarray(dy)), retain_graph=True)
    for i, (x, t) in enumerate(zip(our_inputs, their_inputs)):
        if isinstance(x, mt.Tensor) and t.grad is not None:
            where = f"gradient of input {i} in {dtype}"
            assert x.grad is not None and str(x.grad.dtype) == dtype, where
            _assert_close(x.grad.numpy(), t.grad.numpy(), tolerance, where)


def _tensor(x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x
    return mt.tensor(x, requires_grad=x.dtype.kind == "f")


def _torch_tensor(x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x
    return torch.tensor(x, requires_grad=x.dtype.kind == "f")


def _tuple(y: Any) -> tuple:
    return tuple(y) if isinstance(y, (tuple, list)) else (y,)


def _assert_close(ours: np.ndarray, theirs: np.ndarray, tolerance: float, where: str) -> None:
    assert ours.shape == theirs.shape, f"{where}: shape {ours.shape}, PyTorch's {theirs.shape}"
    finite = np.isfinite(theirs)
    np.testing.assert_array_equal(ours[~finite], theirs[~finite], err_msg=where)
    scale = np.abs(theirs[finite]).max(initial=1.0)
    np.testing.assert_allclose(
        ours[finite], theirs[finite], rtol=0, atol=tolerance * scale, err_msg=where
    )
