import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import EfficientAttention

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def paper_module(torch, channels, key_channels, heads):
    """A head at a time, with the L x L weights written down."""

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.query = torch.nn.Conv2d(channels, key_channels, 1)
            self.key = torch.nn.Conv2d(channels, key_channels, 1)
            self.value = torch.nn.Conv2d(channels, channels, 1)
            self.output = torch.nn.Conv2d(channels, channels, 1)

        def forward(self, x):
            maps = [f(x).flatten(2) for f in (self.query, self.key, self.value)]
            read = []
            for q, k, v in zip(*(t.chunk(heads, dim=1) for t in maps)):
                q, k = torch.softmax(q, dim=1), torch.softmax(k, dim=2)
                weights = torch.einsum("ndi,ndj->nij", q, k)
                read.append(torch.einsum("nij,ndj->ndi", weights, v))
            return x + self.output(torch.cat(read, dim=1).reshape(x.shape))

    return Paper()


@pytest.mark.parametrize(("key_channels", "heads"), [(8, 1), (4, 2), (8, 4)])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(key_channels, heads):
    torch = pytest.importorskip("torch")
    ours = EfficientAttention(8, key_channels, heads)
    compare_modules(ours, paper_module(torch, 8, key_channels, heads), IMAGES)


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    report = mt.gradcheck(EfficientAttention(4, heads=2).double(), normal(2, 4, 3, 2))
    assert len(report.inputs) == 9


def test_each_row_of_the_weights_it_never_writes_down_sums_to_one():
    module, seen = EfficientAttention(8, heads=2).double(), []
    for part in (module.query_weights, module.key_weights):
        part.register_forward_hook(lambda m, i, w: seen.append(w.numpy()))
    module(mt.tensor(IMAGES))
    q, k = seen
    assert q.shape == k.shape == (3, 2, 20, 4)
    np.testing.assert_allclose((q @ k.swapaxes(2, 3)).sum(axis=3), 1)


def test_bad_settings_and_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="heads=3 must divide channels=8"):
        EfficientAttention(8, heads=3)
    with pytest.raises(ValueError, match="heads=4 must divide key_channels=6"):
        EfficientAttention(8, key_channels=6, heads=4)
    for setting in ("channels", "key_channels", "heads"):
        for count in (0, 4.0):
            wrong = rf"EfficientAttention: {setting} must be an integer of at least 1, not {count}"
            with pytest.raises(ValueError, match=wrong):
                EfficientAttention(**{"channels": 8, setting: count})
    with pytest.raises(mt.ShapeError, match=r"EfficientAttention: needs .* C = 8 channels"):
        EfficientAttention(8)(mt.ones(2, 6, 3, 3))
