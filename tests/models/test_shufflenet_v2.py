import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.models.shufflenet_v2 import (
    InvertedResidual,
    ShuffleNetV2,
    shufflenet_v2_x0_5,
    shufflenet_v2_x1_0,
    shufflenet_v2_x1_5,
    shufflenet_v2_x2_0,
)

from ..nn.parity import compare_modules, normal
from .networks import check_training, count, shapes


def torch_unit(torch, in_channels, out_channels, stride):
    """Figure 3 (c) and (d) of the paper, written out with PyTorch."""
    tnn, half = torch.nn, out_channels // 2

    def pointwise(before):
        return tnn.Conv2d(before, half, 1, bias=False), tnn.BatchNorm2d(half), tnn.ReLU()

    def depthwise(channels):
        conv = tnn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        return conv, tnn.BatchNorm2d(channels)

    class Unit(tnn.Module):
        def __init__(self):
            super().__init__()
            self.branch1 = tnn.Sequential()
            before = half
            if stride == 2:
                before = in_channels
                self.branch1 = tnn.Sequential(*depthwise(before), *pointwise(before))
            self.branch2 = tnn.Sequential(*pointwise(before), *depthwise(half), *pointwise(half))

        def forward(self, x):
            a, b = (x, x) if stride == 2 else (x[:, :half], x[:, half:])
            a, b = self.branch1(a), self.branch2(b)
            return torch.stack([a, b], dim=2).flatten(1, 2)  # the channels of a and b in turn

    return Unit()


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride"), [(8, 8, 1), (6, 12, 2), (6, 6, 2)]
)
@pytest.mark.parametrize("training", [True, False])
def test_a_unit_is_the_papers_figure(in_channels, out_channels, stride, training):
    torch = pytest.importorskip("torch")
    unit = InvertedResidual(in_channels, out_channels, stride)
    theirs = torch_unit(torch, in_channels, out_channels, stride)
    compare_modules(unit, theirs, normal(3, in_channels, 5, 6), training=training)


def test_half_of_the_channels_pass_a_unit_untouched():
    x = mt.tensor(normal(1, 8, 3, 3).astype("float32"))
    y = InvertedResidual(8, 8, 1)(x)
    np.testing.assert_array_equal(y.numpy()[:, ::2], x.numpy()[:, :4])


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (shufflenet_v2_x0_5, 1_366_792),
        (shufflenet_v2_x1_0, 2_278_604),
        (shufflenet_v2_x1_5, 3_503_624),
        (shufflenet_v2_x2_0, 7_393_996),
    ],
)
def test_it_has_the_parameters_of_the_reference(unfilled, network, parameters):
    assert count(network()) == parameters


def test_its_parameters_have_the_names_of_torchvision(unfilled):
    named = shapes(shufflenet_v2_x1_0())
    assert len(named) == 338
    assert named["conv1.0.weight"] == (24, 3, 3, 3)
    assert named["conv1.1.running_mean"] == (24,)
    assert named["stage2.0.branch1.0.weight"] == (24, 1, 3, 3)
    assert named["stage2.0.branch1.2.weight"] == (58, 24, 1, 1)
    assert named["stage2.0.branch1.3.bias"] == (58,)
    assert named["stage2.0.branch2.0.weight"] == (58, 24, 1, 1)
    assert named["stage2.0.branch2.3.weight"] == (58, 1, 3, 3)
    assert named["stage2.0.branch2.6.running_var"] == (58,)
    assert named["stage3.7.branch2.5.weight"] == (116, 116, 1, 1)
    assert named["stage4.3.branch2.6.weight"] == (232,)
    assert named["conv5.0.weight"] == (1024, 464, 1, 1)
    assert named["fc.weight"] == (1000, 1024)


def test_every_parameter_gets_a_gradient():
    check_training(shufflenet_v2_x0_5(7, in_channels=1), 1, 32, 32, num_classes=7)


def test_channels_without_halves_are_told():
    with pytest.raises(ValueError, match="must be even.* not 115 with in_channels=24"):
        ShuffleNetV2(widths=(115, 232, 464, 1024))
    with pytest.raises(
        ValueError, match="equal to in_channels, not 8 with in_channels=6, stride=1"
    ):
        InvertedResidual(6, 8, 1)
