import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import GlobalContext

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def paper_module(torch, channels, hidden, fusion):
    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mask = torch.nn.Conv2d(channels, 1, 1)
            self.fc1 = torch.nn.Linear(channels, hidden)
            self.norm = torch.nn.LayerNorm(hidden)
            self.fc2 = torch.nn.Linear(hidden, channels)

        def forward(self, x):
            a = torch.softmax(self.mask(x).flatten(1), dim=1).reshape(len(x), *x.shape[2:])
            z = torch.einsum("nhw,nchw->nc", a, x)
            v = self.fc2(torch.relu(self.norm(self.fc1(z))))[:, :, None, None]
            return x + v if fusion == "add" else x * torch.sigmoid(v)

    return Paper()


@pytest.mark.parametrize("fusion", ["add", "scale"])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(fusion):
    torch = pytest.importorskip("torch")
    ours = GlobalContext(8, reduction=2, fusion=fusion)
    compare_modules(ours, paper_module(torch, 8, 4, fusion), IMAGES)


@pytest.mark.parametrize("fusion", ["add", "scale"])
def test_the_gradient_check_passes(fusion):
    mt.manual_seed(0)
    module = GlobalContext(6, reduction=2, fusion=fusion).double()
    module.fc2.weight.data = normal(6, 3)  # at 0 nothing in front of it has a gradient
    assert mt.gradcheck(module, normal(3, 6, 2, 3)).ok


def test_at_the_start_it_changes_nothing():
    np.testing.assert_array_equal(GlobalContext(8, 2).double()(mt.tensor(IMAGES)).numpy(), IMAGES)


def test_a_hook_sees_one_map_for_the_whole_image():
    module, seen = GlobalContext(8, 2).double(), []
    with module.weights.register_forward_hook(lambda m, inputs, a: seen.append(a.numpy())):
        module(mt.tensor(IMAGES))
    (a,) = seen
    assert a.shape == (3, 1, 20)
    np.testing.assert_allclose(a.sum(axis=2), 1)


def test_every_position_is_given_the_same():
    module = GlobalContext(8, 2).double()
    module.fc2.weight.data = normal(8, 4)
    given = module(mt.tensor(IMAGES)).numpy() - IMAGES
    np.testing.assert_allclose(given, np.broadcast_to(given[:, :, :1, :1], given.shape), atol=1e-12)
    assert np.abs(given).max() > 0.1


def test_bad_settings_and_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="GlobalContext: fusion must be one of add, scale, not"):
        GlobalContext(8, 2, fusion="mul")
    with pytest.raises(ValueError, match="reduction=16 leaves no unit in the bottleneck of 8"):
        GlobalContext(8)
    with pytest.raises(ValueError, match="reduction must be at least 1, not 0"):
        GlobalContext(8, reduction=0)
    with pytest.raises(mt.ShapeError, match=r"GlobalContext: needs .* C = 8 channels, got \(2, 6"):
        GlobalContext(8, 2)(mt.ones(2, 6, 3, 3))
