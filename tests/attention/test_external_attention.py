import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import ExternalAttention

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def paper_module(torch, channels, memories):
    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.query = torch.nn.Linear(channels, channels)
            self.memory_key = torch.nn.Linear(channels, memories, bias=False)
            self.memory_value = torch.nn.Linear(memories, channels, bias=False)
            self.output = torch.nn.Linear(channels, channels)

        def forward(self, x):
            q = self.query(x.permute(0, 2, 3, 1).reshape(len(x), -1, channels))
            w = torch.softmax(q @ self.memory_key.weight.T, dim=1)
            w = w / (1e-9 + w.sum(dim=2, keepdim=True))
            y = self.output(torch.einsum("nis,cs->nic", w, self.memory_value.weight))
            return x + y.permute(0, 2, 1).reshape(x.shape)

    return Paper()


@pytest.mark.parametrize("memories", [1, 5])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(memories):
    torch = pytest.importorskip("torch")
    compare_modules(ExternalAttention(8, memories), paper_module(torch, 8, memories), IMAGES)


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    report = mt.gradcheck(ExternalAttention(4, memories=3).double(), normal(2, 4, 3, 2))
    assert len(report.inputs) == 7


def test_a_hook_sees_what_each_position_reads_from_the_memory():
    module, seen = ExternalAttention(8, memories=6).double(), []
    with module.weights.register_forward_hook(lambda m, inputs, w: seen.append(w.numpy())):
        module(mt.tensor(IMAGES))
    (w,) = seen
    assert w.shape == (3, 20, 6)
    np.testing.assert_allclose(w.sum(axis=2), 1, rtol=1e-6)


def test_weights_that_vanish_stay_finite():
    module = ExternalAttention(8, memories=2)
    module.memory_key.weight.data = np.full((2, 8), 1000.0, dtype="float32")
    assert np.isfinite(module(mt.tensor(IMAGES.astype("float32"))).numpy()).all()


def test_bad_settings_and_shapes_are_refused_by_name():
    for memories in (0, 2.5):
        with pytest.raises(ValueError, match=f"memories must be an integer .* 1, not {memories}"):
            ExternalAttention(8, memories=memories)
    for channels in (0, 8.0):
        with pytest.raises(ValueError, match=f"channels must be an integer .* 1, not {channels}"):
            ExternalAttention(channels)
    with pytest.raises(mt.ShapeError, match=r"ExternalAttention: needs .* C = 8 channels"):
        ExternalAttention(8)(mt.ones(2, 6, 3, 3))
