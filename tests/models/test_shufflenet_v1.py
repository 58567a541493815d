import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.models.shufflenet_v1 import ShuffleUnit, shufflenet_v1

from ..nn.parity import compare_modules, normal
from .networks import check_training, count
from .reference import torch_conv_bn


def torch_unit(torch, in_channels, out_channels, stride, groups, groups_in):
    """Figure 2 (b) and (c) of the paper, written out with PyTorch."""
    width = out_channels // 4
    made = out_channels - in_channels if stride == 2 else out_channels

    class Unit(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.reduce = torch_conv_bn(torch, in_channels, width, 1, groups=groups_in)
            self.depthwise = torch_conv_bn(
                torch, width, width, 3, stride, 1, groups=width, relu=False
            )
            self.expand = torch_conv_bn(torch, width, made, 1, groups=groups, relu=False)

        def forward(self, x):
            y = self.reduce(x)
            y = torch.cat([y[:, i :: width // groups] for i in range(width // groups)], dim=1)
            y = self.expand(self.depthwise(y))
            if stride == 1:
                return torch.relu(x + y)
            pooled = torch.nn.functional.avg_pool2d(x, 3, stride=2, padding=1)
            return torch.relu(torch.cat([pooled, y], dim=1))

    return Unit()


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride", "groups", "groups_in"),
    [(24, 24, 1, 3, 3), (24, 24, 1, 2, 2), (16, 16, 1, 1, 1), (12, 36, 2, 3, 3), (8, 24, 2, 2, 1)],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_unit_is_the_papers_figure(
    in_channels, out_channels, stride, groups, groups_in, training
):
    torch = pytest.importorskip("torch")
    unit = ShuffleUnit(in_channels, out_channels, stride, groups, groups_in)
    theirs = torch_unit(torch, in_channels, out_channels, stride, groups, groups_in)
    compare_modules(unit, theirs, normal(2, in_channels, 4, 5), training=training)


def test_a_shuffle_of_twelve_channels_in_three_groups():
    x = mt.tensor(np.arange(12.0).reshape(1, 12, 1, 1))
    shuffled = F.channel_shuffle(x, 3).numpy().ravel()
    assert shuffled.tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


def test_the_shuffle_lets_every_input_channel_reach_every_output_channel():
    unit = ShuffleUnit(64, 64, 1, groups=4).eval()
    for layer in (unit.reduce, unit.depthwise, unit.expand):
        with mt.no_grad():
            layer.conv.weight.copy_(np.abs(layer.conv.weight.numpy()))
    x = mt.tensor(np.abs(normal(1, 64, 3, 3)).astype("float32"), requires_grad=True)
    for channel in (0, 16, 32, 48):  # one of each group
        x.grad = None
        unit(x)[:, channel].sum().backward()
        assert (np.abs(x.grad.numpy()).sum(axis=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    ("groups", "parameters"),
    [(1, 1_531_936), (2, 1_733_848), (3, 1_865_728), (4, 1_968_344), (8, 2_434_768)],
)
def test_it_has_the_parameters_of_the_paper(unfilled, groups, parameters):
    assert count(shufflenet_v1(groups=groups)) == parameters


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 8])
def test_every_parameter_gets_a_gradient(groups):
    net = shufflenet_v1(7, in_channels=1, groups=groups)
    check_training(net, 1, 32, 32, num_classes=7)


def test_a_number_of_groups_that_the_paper_lacks_is_refused():
    with pytest.raises(ValueError, match="groups must be one of 1, 2, 3, 4, 8, .* not 5"):
        shufflenet_v1(groups=5)
