"""The same computation on the CPU and on a card, compared."""

import numpy as np

import minitorch_attn as mt
from minitorch_attn.engine.dtypes import is_floating

# How far apart two orders of summation may end, of numbers of about 1.
TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-6, "float64": 1e-13}


def computed(op, arrays, device, seed=0):
    """What an op makes of arrays on a device, and their gradients for a random one of the result.

    `op` takes tensors and returns one, or a tuple whose others are integers. All come back as
    arrays of the host.
    """
    tensors = []
    for x in arrays:
        x = mt.tensor(x).to(device)
        tensors.append(x.requires_grad_() if is_floating(x.dtype) else x)
    result = op(*tensors)
    y, *rest = result if isinstance(result, tuple) else (result,)
    dy = np.random.default_rng(seed).standard_normal(y.shape).astype(y.dtype)
    y.backward(mt.tensor(dy).to(device))
    grads = [x.grad for x in tensors if x.requires_grad]
    return [t.detach().cpu().numpy() for t in (y, *rest, *grads)]


def check(op, *arrays, tolerances=TOLERANCE):
    """Raise unless both devices give the same results and gradients."""
    for i, (ours, theirs) in enumerate(
        zip(computed(op, arrays, "cpu"), computed(op, arrays, "cuda"), strict=True)
    ):
        assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape), f"result {i}"
        if ours.dtype.name not in tolerances:
            np.testing.assert_array_equal(theirs, ours, err_msg=f"result {i}")
            continue
        tolerance = tolerances[ours.dtype.name]
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        scale = np.abs(ours[np.isfinite(ours)]).max(initial=1)
        np.testing.assert_allclose(theirs, ours, 0, tolerance * scale, err_msg=f"result {i}")
