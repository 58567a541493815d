import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import DELFAttention

from ..nn.parity import compare_modules, normal

MAPS = normal(3, 4, 5, 6)


def paper_module(torch, channels, hidden, normalize):
    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(channels, hidden, 1)
            self.conv2 = torch.nn.Conv2d(hidden, 1, 1)

        def forward(self, x):
            places = x.flatten(2).transpose(1, 2)  # (N, L, C)
            w1, w2 = self.conv1.weight.flatten(1), self.conv2.weight.flatten(1)
            inner = torch.relu(places @ w1.T + self.conv1.bias)
            alpha = torch.log1p(torch.exp(inner @ w2.T + self.conv2.bias))
            if normalize:
                places = places / places.norm(dim=2, keepdim=True)
            return (alpha * places).sum(dim=1)

    return Paper()


@pytest.mark.parametrize("normalize", [True, False])
def test_outputs_and_all_gradients_are_those_of_the_paper(normalize):
    torch = pytest.importorskip("torch")
    ours = DELFAttention(4, hidden=6, normalize=normalize)
    compare_modules(ours, paper_module(torch, 4, 6, normalize), MAPS)


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    report = mt.gradcheck(DELFAttention(4, hidden=3).double(), normal(2, 4, 2, 3))
    assert len(report.inputs) == 5


def test_it_has_as_many_parameters_as_two_layers():
    count = sum(p.numel() for p in DELFAttention(1024).parameters())
    assert count == 1024 * 512 + 512 + 512 + 1


def test_a_hook_sees_one_positive_score_a_place():
    module, seen = DELFAttention(4).double(), []
    with module.score.register_forward_hook(lambda m, inputs, a: seen.append(a.numpy())):
        module(mt.tensor(MAPS))
    assert seen[0].shape == (3, 1, 5, 6) and (seen[0] > 0).all()
    np.testing.assert_array_equal(module.scores(mt.tensor(MAPS)).numpy(), seen[0])


def test_the_length_of_a_feature_counts_for_its_score_alone():
    module = DELFAttention(4).double()
    one = normal(1, 4, 1, 1)
    short, long = (module(mt.tensor(f * one)).numpy() for f in (1, 3))
    scores = [module.scores(mt.tensor(f * one)).item() for f in (1, 3)]
    np.testing.assert_allclose(short / scores[0], long / scores[1])
    assert abs(scores[0] - scores[1]) > 1e-3


def test_bad_settings_and_shapes_are_refused_by_name():
    for hidden in (0, 2.5):
        with pytest.raises(ValueError, match=f"hidden must be an integer of .* 1, not {hidden}"):
            DELFAttention(4, hidden=hidden)
    with pytest.raises(ValueError, match="DELFAttention: channels must be an integer"):
        DELFAttention("4")
    with pytest.raises(mt.ShapeError, match="DELFAttention: needs .* C = 4 channels"):
        DELFAttention(4)(mt.ones(2, 3, 4, 4))
