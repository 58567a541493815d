import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import RegionalAttention

from ..nn.parity import compare_modules, normal

REGIONS, WHOLE = normal(3, 5, 4), normal(3, 4)


def paper_module(torch, channels, hidden, activation):
    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = torch.nn.Linear(2 * channels, hidden)
            self.fc2 = torch.nn.Linear(hidden, 1)

        def forward(self, regions, whole):
            softplus = torch.nn.functional.softplus
            inner = {"softplus": softplus, "tanh": torch.tanh}[activation]
            columns = []
            for r in range(regions.shape[1]):
                u = torch.cat([regions[:, r], whole], dim=1)
                columns.append(softplus(self.fc2(inner(self.fc1(u)))))
            return torch.cat(columns, dim=1)

    return Paper()


@pytest.mark.parametrize("activation", ["softplus", "tanh"])
def test_outputs_and_all_gradients_are_those_of_the_paper(activation):
    torch = pytest.importorskip("torch")
    ours = RegionalAttention(4, hidden=6, activation=activation)
    compare_modules(ours, paper_module(torch, 4, 6, activation), REGIONS, WHOLE)


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    report = mt.gradcheck(RegionalAttention(4, hidden=3).double(), REGIONS, WHOLE)
    assert len(report.inputs) == 6


def test_it_has_the_papers_parameters():
    assert sum(p.numel() for p in RegionalAttention(2048).parameters()) == 262_273


def test_a_hook_sees_positive_weights():
    module, seen = RegionalAttention(4).double(), []
    with module.gate.register_forward_hook(lambda m, inputs, w: seen.append(w.numpy())):
        w = module(mt.tensor(REGIONS), mt.tensor(WHOLE)).numpy()
    assert w.shape == (3, 5) and (w > 0).all()
    np.testing.assert_array_equal(seen[0][:, :, 0], w)


def test_a_region_is_judged_in_the_light_of_the_whole_but_not_of_the_others():
    module = RegionalAttention(4).double()
    other = REGIONS.copy()
    other[:, 1] += 1
    before = module(mt.tensor(REGIONS), mt.tensor(WHOLE)).numpy()
    after = module(mt.tensor(other), mt.tensor(WHOLE)).numpy()
    np.testing.assert_array_equal(np.flatnonzero((before != after).any(axis=0)), [1])
    elsewhere = module(mt.tensor(REGIONS), mt.tensor(WHOLE + 1)).numpy()
    assert (elsewhere != before).all()


def test_arrays_serve_as_tensors():
    module = RegionalAttention(4).double()
    expected = module(mt.tensor(REGIONS), mt.tensor(WHOLE)).numpy()
    np.testing.assert_array_equal(module(REGIONS, WHOLE).numpy(), expected)
    np.testing.assert_array_equal(module(mt.tensor(REGIONS), WHOLE).numpy(), expected)


def test_bad_settings_and_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="activation must be one of softplus, tanh, not 'relu'"):
        RegionalAttention(4, activation="relu")
    with pytest.raises(ValueError, match="hidden must be an integer of at least 1, not 0"):
        RegionalAttention(4, hidden=0)
    with pytest.raises(ValueError, match="channels must be an integer of at least 1, not 4.0"):
        RegionalAttention(4.0)
    module = RegionalAttention(4)
    with pytest.raises(mt.ShapeError, match=r"regions \(N, R, C\) with C = 4 channels"):
        module(mt.ones(3, 5), mt.ones(3, 4))
    with pytest.raises(mt.ShapeError, match=r"one vector for each image, \(3, 4\)"):
        module(mt.ones(3, 5, 4), mt.ones(2, 4))
