import pytest

from minitorch_attn import nn
from minitorch_attn.models.mobilenet_v1 import DepthwiseSeparable, mobilenet_v1

from ..nn.parity import compare_modules, normal
from .networks import check_training, count
from .reference import torch_conv_bn


@pytest.mark.parametrize(
    ("width_mult", "parameters"),
    [(1, 4_231_976), (0.75, 2_585_560), (0.5, 1_331_592), (0.25, 470_072)],
)
def test_it_has_the_parameters_of_the_paper(unfilled, width_mult, parameters):
    assert count(mobilenet_v1(width_mult=width_mult)) == parameters


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_the_papers_figure(stride, training):
    torch = pytest.importorskip("torch")

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.depthwise = torch_conv_bn(torch, 4, 4, 3, stride, 1, groups=4)
            self.pointwise = torch_conv_bn(torch, 4, 6, 1)

        def forward(self, x):
            return self.pointwise(self.depthwise(x))

    block = DepthwiseSeparable(4, 6, stride)
    compare_modules(block, Theirs(), normal(3, 4, 5, 6), training=training)


@pytest.mark.parametrize("channels", [16, 64])
def test_a_block_has_one_over_channels_plus_one_ninth_of_the_weights_of_a_full_one(channels):
    full = nn.Conv2d(32, channels, 3, bias=False)
    block = DepthwiseSeparable(32, channels)
    separable = count(block.depthwise.conv) + count(block.pointwise.conv)
    assert separable / count(full) == pytest.approx(1 / channels + 1 / 9)


def test_it_halves_the_image_five_times():
    features = mobilenet_v1(width_mult=0.25).features
    assert len(features) == 14
    assert features(normal(1, 3, 64, 64).astype("float32")).shape == (1, 256, 2, 2)


def test_every_parameter_gets_a_gradient():
    check_training(mobilenet_v1(7, in_channels=1, width_mult=0.25), 1, 32, 32, num_classes=7)
