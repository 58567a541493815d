import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import SCAAttention

from ..nn.parity import compare_modules, normal

IMAGES, STATE = normal(3, 4, 2, 5), normal(3, 6)


def paper_module(torch, C, D, K, order, rescale):
    """The equations with the map as a matrix (C, m), an image at a time."""
    tnn = torch.nn

    class Part(tnn.Module):
        def __init__(self, inputs):
            super().__init__()
            self.map = tnn.Linear(inputs, K)
            self.state = tnn.Linear(D, K, bias=False)
            self.score = tnn.Linear(K, 1)

        def weights(self, columns, h):  # (inputs, count) -> (count,)
            a = self.map.weight @ columns + self.map.bias[:, None]
            a = torch.tanh(a + (self.state.weight @ h)[:, None])
            return torch.softmax((self.score.weight @ a)[0] + self.score.bias, dim=0)

    class Paper(tnn.Module):
        def __init__(self):
            super().__init__()
            if "channel" in order:
                self.channel = Part(1)
            if "spatial" in order:
                self.spatial = Part(C)

        def forward(self, x, h):
            images = []
            for one, state in zip(x.flatten(2), h):
                for name in order.split("_"):
                    if name == "channel":
                        w = self.channel.weights(one.mean(1)[None], state)
                        one = w[:, None] * one * (C if rescale else 1)
                    else:
                        w = self.spatial.weights(one, state)
                        one = w[None] * one * (one.shape[1] if rescale else 1)
                images.append(one)
            return torch.stack(images).reshape(x.shape)

    return Paper()


@pytest.mark.parametrize("order", ["channel_spatial", "spatial_channel", "channel", "spatial"])
@pytest.mark.parametrize("rescale", [True, False])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(order, rescale):
    torch = pytest.importorskip("torch")
    ours = SCAAttention(4, 6, 5, order, rescale)
    compare_modules(ours, paper_module(torch, 4, 6, 5, order, rescale), IMAGES, STATE)


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    report = mt.gradcheck(SCAAttention(3, 2, 4).double(), normal(2, 3, 2, 2), normal(2, 2))
    assert len(report.inputs) == 12


def test_hooks_see_what_and_where():
    module, seen = SCAAttention(4, 6, 5).double(), []
    for part in (module.channel, module.spatial):
        part.weights.register_forward_hook(lambda m, inputs, w: seen.append(w.numpy()))
    module(mt.tensor(IMAGES), mt.tensor(STATE))
    beta, alpha = seen
    assert beta.shape == (3, 4) and alpha.shape == (3, 10)
    np.testing.assert_allclose(beta.sum(axis=1), 1)
    np.testing.assert_allclose(alpha.sum(axis=1), 1)


def test_equal_weights_change_nothing_if_rescaled():
    module = SCAAttention(4, 6, 5).double()
    for part in (module.channel, module.spatial):
        part.score.weight.data = np.zeros((1, 5))
    y = module(mt.tensor(IMAGES), mt.tensor(STATE)).numpy()
    np.testing.assert_allclose(y, IMAGES)


def test_channels_of_the_same_mean_have_the_same_weight():
    module, seen = SCAAttention(4, 6, 5).double(), []
    module.channel.weights.register_forward_hook(lambda m, inputs, w: seen.append(w.numpy()))
    x = IMAGES.copy()
    x[:, 1] = x[:, 0, ::-1]
    module(mt.tensor(x), mt.tensor(STATE))
    np.testing.assert_allclose(seen[0][:, 0], seen[0][:, 1])


def test_the_state_decides_where_it_looks():
    mt.manual_seed(0)
    module, seen = SCAAttention(4, 6, 5, "spatial").double(), []
    module.spatial.weights.register_forward_hook(lambda m, inputs, w: seen.append(w.numpy()))
    for h in (STATE, 3 * STATE + 1):
        module(mt.tensor(IMAGES), mt.tensor(h))
    assert np.abs(seen[0] - seen[1]).max() > 1e-3


def test_arrays_serve_as_tensors_and_no_images_give_none():
    module = SCAAttention(4, 6, 5).double()
    expected = module(mt.tensor(IMAGES), mt.tensor(STATE)).numpy()
    np.testing.assert_array_equal(module(IMAGES, STATE).numpy(), expected)
    assert module(IMAGES[:0], STATE[:0]).shape == (0, 4, 2, 5)


def test_bad_settings_and_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="order must be one of channel_spatial, .* not 'both'"):
        SCAAttention(4, 6, order="both")
    with pytest.raises(ValueError, match="state must be an integer of at least 1, not 0"):
        SCAAttention(4, 0)
    with pytest.raises(ValueError, match="channels must be an integer of at least 1, not 4.0"):
        SCAAttention(4.0, 6)
    module = SCAAttention(4, 6, 5)
    with pytest.raises(mt.ShapeError, match="SCAAttention: needs an input .* C = 4 channels"):
        module(mt.ones(3, 5, 2, 2), mt.ones(3, 6))
    with pytest.raises(mt.ShapeError, match=r"needs a state \(3, 6\) beside images"):
        module(mt.ones(3, 4, 2, 2), mt.ones(3, 5))
