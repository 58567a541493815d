"""What every network is asked: how many parameters it has, and whether it can be trained."""

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn


def count(module):
    """Number of elements of all parameters."""
    return sum(p.numel() for p in module.parameters())


def shapes(module):
    """Names and shapes of the state dict."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def check_training(model, *input_shape, num_classes, loss=F.cross_entropy):
    """Run two images forward and back: every parameter's gradient is finite, and not all zeros.

    The gradient of a bias may be: it is where a batch normalisation takes the bias away again.
    """
    x = np.random.default_rng(0).standard_normal((2, *input_shape)).astype(np.float32)
    outputs = model(mt.tensor(x))
    for scores in outputs if isinstance(outputs, tuple) else (outputs,):
        assert scores.shape == (2, num_classes)
        assert np.isfinite(scores.numpy()).all()
    loss(outputs, np.array([0, num_classes - 1])).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        gradient = p.grad.data  # no copy: there are networks of 100 million parameters
        largest = max(gradient.max(), -gradient.min())
        assert np.isfinite(largest), name
        assert largest > 0 or name.endswith("bias"), name


class Nothing(nn.Module):
    """An attention module that closes the residual branch."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        assert x.shape[1] == self.channels
        return x * 0.0
