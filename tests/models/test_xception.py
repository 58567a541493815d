import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn
from minitorch_attn.models.xception import SeparableConv2d, XceptionBlock, xception

from ..nn.parity import compare_modules, normal
from .networks import check_training, count


def torch_separable(torch, in_channels, out_channels):
    class Separable(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.depthwise = torch.nn.Conv2d(
                in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False
            )
            self.pointwise = torch.nn.Conv2d(in_channels, out_channels, 1, bias=False)

        def forward(self, x):
            # One full kernel from each channel c to each channel o: V[o, c] w[c].
            kernel = self.pointwise.weight * self.depthwise.weight[None, :, 0]
            return torch.nn.functional.conv2d(x, kernel, padding=1)

    return Separable()


def torch_block(torch, in_channels, widths, stride, first_relu):
    """A module of figure 5 of the paper, written out with PyTorch."""
    tnn = torch.nn

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            layers = []
            for before, after in zip((in_channels, *widths), widths):
                layers += [tnn.ReLU(), torch_separable(torch, before, after)]
                layers += [tnn.BatchNorm2d(after)]
            self.residual = tnn.Sequential(*layers[0 if first_relu else 1 :])
            self.shortcut = tnn.Identity()
            if stride == 2:
                self.residual.append(tnn.MaxPool2d(3, 2, 1))
                self.shortcut = tnn.Sequential(
                    tnn.Conv2d(in_channels, widths[-1], 1, 2, bias=False),
                    tnn.BatchNorm2d(widths[-1]),
                )

        def forward(self, x):
            return self.residual(x) + self.shortcut(x)

    return Block()


def test_a_separable_convolution_is_a_full_one_of_products():
    torch = pytest.importorskip("torch")
    theirs = torch_separable(torch, 4, 6)
    compare_modules(SeparableConv2d(4, 6), theirs, normal(2, 4, 5, 6))


def test_nothing_stands_between_depthwise_and_pointwise():
    layer = SeparableConv2d(3, 5).double()
    x = normal(2, 3, 4, 4)
    np.testing.assert_allclose(layer(mt.tensor(-x)).numpy(), -layer(mt.tensor(x)).numpy())


@pytest.mark.parametrize(
    ("in_channels", "widths", "stride", "first_relu"),
    [
        (4, (6, 6), 2, False),
        (4, (6, 6), 2, True),
        (4, (4, 4, 4), 1, True),
        (4, (4, 6), 2, True),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_the_papers_figure(in_channels, widths, stride, first_relu, training):
    torch = pytest.importorskip("torch")
    block = XceptionBlock(in_channels, widths, stride, first_relu)
    theirs = torch_block(torch, in_channels, widths, stride, first_relu)
    compare_modules(block, theirs, normal(2, in_channels, 5, 6), training=training)


def test_the_shortcut_sees_the_input_before_its_relu():
    block = XceptionBlock(4, (4, 4), 1).eval()
    with mt.no_grad():
        for layer in block.residual:
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.copy_(np.zeros(4))
    x = normal(2, 4, 3, 3).astype("float32")
    np.testing.assert_array_equal(block(mt.tensor(x)).numpy(), x)


def test_it_has_the_parameters_of_the_paper(unfilled):
    assert count(xception()) == 22_855_952


def test_it_has_34_separable_convolutions(unfilled):
    separable = [m for m in xception().modules() if isinstance(m, SeparableConv2d)]
    assert len(separable) == 34


def test_every_parameter_gets_a_gradient(quick_random):
    check_training(xception(7, in_channels=1), 1, 32, 32, num_classes=7)
