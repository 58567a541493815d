"""Every operation of `functional`, on tensors that lie on a card: one example call of each.

The engine's own part is tried here: types before and after an operation, constants that come
along from the host, gradients summed to the inputs' shapes.
"""

import numpy as np
import pytest

import minitorch_attn as mt

from ..ops.test_functional import EXAMPLES, PUBLIC, WITHOUT_GRADIENT, run, variables

# Of the largest value: the types' precision, a few operations long.
TOLERANCE = {"float16": 1e-2, "float32": 1e-4}


def computed(name, device, dtype):
    inputs, settings = (EXAMPLES | WITHOUT_GRADIENT)[name]
    if not variables(inputs):  # something must say where to compute
        inputs = [mt.tensor(x).to(device) if isinstance(x, np.ndarray) else x for x in inputs]
    tensors = [mt.tensor(x, dtype=dtype).to(device) for x in variables(inputs)]
    for x in tensors:
        x.requires_grad_(name in EXAMPLES)
    y = run(PUBLIC[name], inputs, settings, tensors)
    assert y.device == device
    if name in EXAMPLES:
        dy = np.random.default_rng(0).standard_normal(y.shape).astype(y.dtype)
        y.backward(mt.tensor(dy).to(device))
    return [x.detach().cpu().numpy() for x in (y, *(t.grad for t in tensors if t.grad is not None))]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", sorted(EXAMPLES | WITHOUT_GRADIENT))
def test_an_operation_gives_the_same_on_a_card(card, name, dtype):
    here, there = computed(name, "cpu", dtype), computed(name, "cuda", dtype)
    assert len(here) == len(there)
    for ours, theirs in zip(here, there):
        assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape)
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        allowed = TOLERANCE[dtype] * np.abs(ours).max(initial=1)
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=allowed)
