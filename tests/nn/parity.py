"""A module beside PyTorch's of the same kind: same names, same values, same gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minitorch_attn as mt

TOLERANCE = {"float32": 2e-5, "float64": 1e-11}


def compare_modules(
    ours: Any,
    theirs: Any,
    *inputs: np.ndarray,
    training: bool = True,
    dtypes: tuple[str, ...] = ("float32", "float64"),
) -> None:
    """Assert that a module agrees with PyTorch's once it has its state dict.

    Compared, in each dtype: names, shapes and dtypes of the state dict; outputs; gradients
    of inputs and of all parameters for a random cotangent; and the buffers afterwards. PyTorch's
    module has its parameters drawn anew (normal, so that none is 0 or 1).
    """
    torch = pytest.importorskip("torch")
    for dtype in dtypes:
        ours.to(dtype).train(training)
        theirs.to(getattr(torch, dtype)).train(training)
        torch.manual_seed(0)
        for p in theirs.parameters():
            torch.nn.init.normal_(p, 0.0, 0.5)
        state = {name: t.numpy().copy() for name, t in theirs.state_dict().items()}
        assert [(n, t.shape, t.dtype) for n, t in ours.state_dict().items()] == [
            (n, a.shape, a.dtype) for n, a in state.items()
        ]
        ours.load_state_dict(state)
        _compare(torch, ours, theirs, inputs, dtype)


def _compare(torch: Any, ours: Any, theirs: Any, inputs: Any, dtype: str) -> None:
    is_float = [x.dtype.kind == "f" for x in inputs]
    cast = [x.astype(dtype) if f else x for x, f in zip(inputs, is_float)]
    our_inputs = [mt.tensor(x, requires_grad=f) for x, f in zip(cast, is_float)]
    their_inputs = [torch.tensor(x, requires_grad=f) for x, f in zip(cast, is_float)]
    y, t = ours(*our_inputs), theirs(*their_inputs)
    close(y, t, dtype, "output")
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    ours.zero_grad()
    theirs.zero_grad()
    y.backward(dy)
    t.backward(torch.tensor(dy))
    for i, (x, tx) in enumerate(zip(our_inputs, their_inputs)):
        if x.requires_grad:
            close(x.grad, tx.grad, dtype, f"gradient of input {i}")
    # A gradient that is 0 but for rounding, as in front of a batch norm, is the sum of large terms.
    largest = max((tp.grad.abs().max().item() for tp in theirs.parameters()), default=1.0)
    for (name, p), (their_name, tp) in zip(ours.named_parameters(), theirs.named_parameters()):
        assert name == their_name
        close(p.grad, tp.grad, dtype, f"gradient of {name}", largest)
    for (name, b), (their_name, tb) in zip(ours.named_buffers(), theirs.named_buffers()):
        assert name == their_name
        close(b, tb, dtype, f"buffer {name}")


def close(ours: Any, theirs: Any, dtype: str, what: str, scale: float = 1.0) -> None:
    """Assert that a tensor equals PyTorch's, up to rounding in that dtype of numbers of a scale."""
    ours, theirs = ours.numpy(), theirs.detach().numpy()
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), what
    scale = np.abs(theirs).max(initial=max(1.0, scale))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=what)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Reproducible standard normal numbers."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape)
