import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import CoordinateAttention

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def paper_module(torch, channels, hidden):
    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Conv1d(channels, hidden, 1)
            self.norm = torch.nn.BatchNorm1d(hidden)
            self.conv_h = torch.nn.Conv1d(hidden, channels, 1)
            self.conv_w = torch.nn.Conv1d(hidden, channels, 1)

        def forward(self, x):
            H = x.shape[2]
            f = self.norm(self.fc(torch.cat([x.mean(3), x.mean(2)], dim=2)))
            f = f * torch.nn.functional.relu6(f + 3) / 6
            s_h = torch.sigmoid(self.conv_h(f[:, :, :H]))
            s_w = torch.sigmoid(self.conv_w(f[:, :, H:]))
            return torch.einsum("nch,ncw,nchw->nchw", s_h, s_w, x)

    return Paper()


@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(training):
    torch = pytest.importorskip("torch")
    ours = CoordinateAttention(8, reduction=2, least=3)
    compare_modules(ours, paper_module(torch, 8, 4), IMAGES, training=training)


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    module = CoordinateAttention(4, least=3).double()
    assert mt.gradcheck(module, normal(2, 4, 3, 2)).ok


def test_hooks_see_a_gate_a_row_and_a_gate_a_column():
    module, seen = CoordinateAttention(8).double(), []
    for gate in (module.gate_h, module.gate_w):
        gate.register_forward_hook(lambda m, inputs, s: seen.append(s.numpy()))
    y = module(mt.tensor(IMAGES)).numpy()
    s_h, s_w = seen
    assert s_h.shape == (3, 8, 5) and s_w.shape == (3, 8, 4)
    np.testing.assert_allclose(y, IMAGES * s_h[:, :, :, None] * s_w[:, :, None, :])


def test_the_gate_of_a_channel_has_rank_one():
    module = CoordinateAttention(8).double()
    gate = module(mt.tensor(IMAGES)).numpy() / IMAGES
    assert all(np.linalg.matrix_rank(g, tol=1e-9) == 1 for g in gate.reshape(-1, 5, 4))


def test_the_bottleneck_keeps_a_least_width():
    assert CoordinateAttention(64).fc.weight.shape == (8, 64, 1)
    assert CoordinateAttention(512).fc.weight.shape == (16, 512, 1)


def test_bad_settings_and_shapes_are_refused_by_name():
    for setting in ("channels", "reduction", "least"):
        for count in (0, 2.5):
            wrong = rf"CoordinateAttention: {setting} must be an integer of at least 1, not {count}"
            with pytest.raises(ValueError, match=wrong):
                CoordinateAttention(**{"channels": 8, setting: count})
    with pytest.raises(mt.ShapeError, match=r"CoordinateAttention: needs .* C = 8 channels"):
        CoordinateAttention(8)(mt.ones(2, 6, 3, 3))
