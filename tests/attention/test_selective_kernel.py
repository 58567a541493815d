import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import SelectiveKernel

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def paper_module(torch, channels, out, branches, hidden, groups, stride):
    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.branches = torch.nn.ModuleList(
                torch.nn.Sequential(
                    torch.nn.Conv2d(
                        channels, out, 3, stride, m, dilation=m, groups=groups, bias=False
                    ),
                    torch.nn.BatchNorm2d(out),
                    torch.nn.ReLU(),
                )
                for m in range(1, branches + 1)
            )
            self.fc = torch.nn.Sequential(
                torch.nn.Linear(out, hidden, bias=False),
                torch.nn.BatchNorm1d(hidden),
                torch.nn.ReLU(),
            )
            self.select = torch.nn.Linear(hidden, branches * out)

        def forward(self, x):
            u = [branch(x) for branch in self.branches]
            z = self.fc(sum(u).mean(dim=(2, 3)))
            scores = self.select(z).chunk(branches, dim=1)
            total = sum(torch.exp(s) for s in scores)
            return sum((torch.exp(s) / total)[:, :, None, None] * u for s, u in zip(scores, u))

    return Paper()


@pytest.mark.parametrize(
    ("out", "branches", "groups", "stride"), [(8, 2, 1, 1), (8, 3, 4, 1), (4, 2, 2, 2)]
)
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(
    out, branches, groups, stride, training
):
    torch = pytest.importorskip("torch")
    ours = SelectiveKernel(8, out, branches, reduction=2, least=3, groups=groups, stride=stride)
    theirs = paper_module(torch, 8, out, branches, max(out // 2, 3), groups, stride)
    compare_modules(ours, theirs, IMAGES, training=training)


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    module = SelectiveKernel(4, reduction=2, least=3).double().eval()
    assert mt.gradcheck(module, normal(2, 4, 3, 2)).ok


def test_a_hook_sees_which_branch_each_channel_picks():
    module, seen = SelectiveKernel(8, branches=3).double(), []
    with module.weights.register_forward_hook(lambda m, inputs, a: seen.append(a.numpy())):
        module(mt.tensor(IMAGES))
    (a,) = seen
    assert a.shape == (3, 3, 8)
    np.testing.assert_allclose(a.sum(axis=1), 1)


def test_the_bottleneck_keeps_a_least_width():
    assert SelectiveKernel(64).fc[0].weight.shape == (32, 64)
    assert SelectiveKernel(64, reduction=2, least=8).fc[0].weight.shape == (32, 64)
    assert SelectiveKernel(64, reduction=16, least=8).fc[0].weight.shape == (8, 64)


def test_bad_settings_and_shapes_are_refused_by_name():
    for setting in ("channels", "out_channels", "branches", "reduction", "least"):
        for count in (0, 2.5):
            wrong = rf"SelectiveKernel: {setting} must be an integer of at least 1, not {count}"
            with pytest.raises(ValueError, match=wrong):
                SelectiveKernel(**{"channels": 8, setting: count})
    with pytest.raises(mt.ShapeError, match=r"SelectiveKernel: needs .* C = 8 channels"):
        SelectiveKernel(8)(mt.ones(2, 6, 3, 3))
