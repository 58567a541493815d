import numpy as np
import pytest

from minitorch_attn.engine import as_tensor
from minitorch_attn.nn import init, parameter


@pytest.fixture
def uncopied(monkeypatch):
    """Parameters that take the fresh zeros they are given, which take no memory till written."""
    monkeypatch.setattr(parameter, "tensor", as_tensor)


@pytest.fixture
def unfilled(monkeypatch, uncopied):
    """Networks whose weights stay the zeros they are made as: no random numbers, hardly memory."""
    for draw in ("normal_", "uniform_"):
        monkeypatch.setattr(init, draw, lambda tensor, *_, **__: tensor)


@pytest.fixture
def quick_random(monkeypatch, uncopied):
    """Networks whose weights repeat a few random numbers: as good to run, quicker to make."""
    monkeypatch.setattr(init, "_rng", lambda generator: Repeating())


class Repeating:
    """Draws as a generator does, but 65,537 numbers over and over."""

    normals = np.random.default_rng(0).standard_normal(65_537).astype(np.float32)
    uniforms = np.random.default_rng(1).random(65_537).astype(np.float32)

    def normal(self, mean, std, shape):
        return np.resize(mean + std * self.normals, shape)

    def uniform(self, low, high, shape):
        return np.resize(low + (high - low) * self.uniforms, shape)
