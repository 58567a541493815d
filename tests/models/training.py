"""Whether a network can be trained that normalises by the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F

from ..nn.parity import normal


def assert_trains(
    net: Any, size: int, num_classes: int, in_channels: int = 1, loss: Callable = F.cross_entropy
) -> None:
    """Assert that two images give scores, and their loss finite gradients to all parameters.

    A gradient may be zero, as that of a bias in front of a batch normalisation is, but not at the
    images, which it reaches last.
    """
    images = normal(2, in_channels, size, size).astype("float32")
    x = mt.tensor(images, requires_grad=True)
    outputs = net.train()(x)
    for scores in outputs if isinstance(outputs, tuple) else (outputs,):
        assert scores.shape == (2, num_classes)
    loss(outputs, np.array([0, num_classes - 1])).backward()
    gradients = {"images": x.grad, **{name: p.grad for name, p in net.named_parameters()}}
    assert [name for name, g in gradients.items() if g is None] == []
    assert [name for name, g in gradients.items() if not np.isfinite(g.numpy()).all()] == []
    assert x.grad.numpy().any()
