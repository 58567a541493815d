import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import CrissCrossAttention

from ..nn.parity import compare_modules, normal

IMAGES = normal(2, 8, 3, 4)


def paper_module(torch, channels, hidden, rounds):
    """Equations 1 and 2 with plain loops: for each position, its row and then its column."""

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = torch.nn.Parameter(torch.zeros(1))
            self.query = torch.nn.Conv2d(channels, hidden, 1)
            self.key = torch.nn.Conv2d(channels, hidden, 1)
            self.value = torch.nn.Conv2d(channels, channels, 1)

        def look(self, x):
            q, k, v = self.query(x), self.key(x), self.value(x)
            H, W = x.shape[2:]
            rows = []
            for h in range(H):
                for w in range(W):
                    cross = [(h, j) for j in range(W)] + [(j, w) for j in range(H) if j != h]
                    keys = torch.stack([k[:, :, i, j] for i, j in cross], dim=1)
                    values = torch.stack([v[:, :, i, j] for i, j in cross], dim=1)
                    weights = torch.softmax((keys * q[:, None, :, h, w]).sum(2), dim=1)
                    rows.append((weights[:, :, None] * values).sum(1))
            return torch.stack(rows, dim=2).reshape(x.shape)

        def forward(self, x):
            for _ in range(rounds):
                x = x + self.gamma * self.look(x)
            return x

    return Paper()


@pytest.mark.parametrize("rounds", [1, 2])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(rounds):
    torch = pytest.importorskip("torch")
    ours = CrissCrossAttention(8, reduction=2, rounds=rounds)
    compare_modules(ours, paper_module(torch, 8, 4, rounds), IMAGES)


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    module = CrissCrossAttention(4, reduction=2).double()
    module.gamma.data = np.array([0.7])
    report = mt.gradcheck(module, normal(2, 4, 3, 2))
    assert len(report.inputs) == 8


def test_at_the_start_it_changes_nothing():
    y = CrissCrossAttention(8).double()(mt.tensor(IMAGES))
    np.testing.assert_array_equal(y.numpy(), IMAGES)


def reached(rounds):
    """Positions that feel a change of position (1, 2)."""
    mt.manual_seed(0)
    module = CrissCrossAttention(8, reduction=2, rounds=rounds).double()
    module.gamma.data = np.array([1.0])
    x = IMAGES.copy()
    before = module(mt.tensor(x)).numpy()
    x[:, :, 1, 2] += 0.5
    return (np.abs(module(mt.tensor(x)).numpy() - before) > 1e-9).any(axis=(0, 1))


def test_one_round_reaches_the_cross_and_two_the_whole_image():
    cross = np.zeros((3, 4), bool)
    cross[1], cross[:, 2] = True, True
    np.testing.assert_array_equal(reached(rounds=1), cross)
    assert reached(rounds=2).all()


def test_a_hook_sees_the_weights_of_row_and_column():
    module, seen = CrissCrossAttention(8, reduction=2, rounds=1).double(), []
    with module.weights.register_forward_hook(lambda m, inputs, w: seen.append(w.numpy())):
        module(mt.tensor(IMAGES))
    (w,) = seen
    assert w.shape == (2, 3, 4, 4 + 3)
    np.testing.assert_allclose(w.sum(axis=3), 1)
    itself = w[:, range(3), :, 4 + np.arange(3)]
    np.testing.assert_array_equal(itself, 0)


def test_bad_settings_and_shapes_are_refused_by_name():
    for rounds in (0, 1.5):
        with pytest.raises(ValueError, match=f"rounds must be an integer of .* 1, not {rounds}"):
            CrissCrossAttention(8, rounds=rounds)
    with pytest.raises(ValueError, match="CrissCrossAttention: reduction=8 leaves no unit"):
        CrissCrossAttention(4)
    with pytest.raises(mt.ShapeError, match=r"CrissCrossAttention: needs .* C = 8 channels"):
        CrissCrossAttention(8)(mt.ones(2, 6, 3, 3))
