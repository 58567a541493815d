import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.models.mobilenet_v2 import InvertedResidual, mobilenet_v2

from ..nn.parity import compare_modules, normal
from .networks import check_training, count, shapes


def torch_block(torch, in_channels, out_channels, stride, expansion):
    """Figure 4 (d) of the paper, written out with PyTorch."""
    tnn, width = torch.nn, expansion * in_channels

    def conv(before, after, kernel, stride=1, groups=1):
        return tnn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)

    def activated(*layers):
        return tnn.Sequential(*layers, tnn.BatchNorm2d(width), tnn.Hardtanh(0, 6))

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            expand = [activated(conv(in_channels, width, 1))] if expansion > 1 else []
            self.conv = tnn.Sequential(
                *expand,
                activated(conv(width, width, 3, stride, width)),
                conv(width, out_channels, 1),
                tnn.BatchNorm2d(out_channels),
            )

        def forward(self, x):
            y = self.conv(x)
            return x + y if x.shape == y.shape else y

    return Block()


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride", "expansion"),
    [(4, 4, 1, 6), (4, 6, 1, 6), (4, 4, 2, 3), (4, 6, 2, 1), (4, 4, 1, 1)],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_the_papers_figure(in_channels, out_channels, stride, expansion, training):
    torch = pytest.importorskip("torch")
    block = InvertedResidual(in_channels, out_channels, stride, expansion)
    theirs = torch_block(torch, in_channels, out_channels, stride, expansion)
    compare_modules(block, theirs, normal(3, in_channels, 5, 6), training=training)


def test_the_end_of_a_block_is_linear():
    block = InvertedResidual(4, 6, 1, 2).eval()
    assert block(mt.tensor(normal(2, 4, 5, 5).astype("float32"))).numpy().min() < 0


def test_it_has_the_parameters_of_the_paper(unfilled):
    assert count(mobilenet_v2()) == 3_504_872


def test_its_parameters_have_the_names_of_torchvision(unfilled):
    named = shapes(mobilenet_v2())
    assert len(named) == 314
    assert named["features.0.0.weight"] == (32, 3, 3, 3)
    assert named["features.0.1.running_mean"] == (32,)
    assert named["features.1.conv.0.0.weight"] == (32, 1, 3, 3)
    assert named["features.1.conv.1.weight"] == (16, 32, 1, 1)
    assert named["features.1.conv.2.bias"] == (16,)
    assert named["features.2.conv.0.0.weight"] == (96, 16, 1, 1)
    assert named["features.2.conv.1.0.weight"] == (96, 1, 3, 3)
    assert named["features.2.conv.1.1.running_var"] == (96,)
    assert named["features.2.conv.2.weight"] == (24, 96, 1, 1)
    assert named["features.2.conv.3.weight"] == (24,)
    assert named["features.17.conv.2.weight"] == (320, 960, 1, 1)
    assert named["features.18.0.weight"] == (1280, 320, 1, 1)
    assert named["features.18.1.num_batches_tracked"] == ()
    assert named["classifier.1.weight"] == (1000, 1280)


@pytest.mark.parametrize(
    ("width", "first", "second", "fifth", "last"),
    [
        (0.35, 16, 8, 32, 1280),
        (0.5, 16, 16, 48, 1280),
        (0.75, 24, 24, 72, 1280),
        (1.4, 48, 32, 136, 1792),
    ],
)
def test_widths_are_rounded_to_multiples_of_eight(unfilled, width, first, second, fifth, last):
    named = shapes(mobilenet_v2(width_mult=width))
    assert named["features.0.0.weight"][0] == first
    assert named["features.2.conv.2.weight"][0] == second
    assert named["features.11.conv.2.weight"][0] == fifth
    assert named["features.18.0.weight"][0] == last
    assert all(np.prod(shape) % 8 == 0 for name, shape in named.items() if "running" in name)


def test_every_parameter_gets_a_gradient():
    check_training(mobilenet_v2(7, in_channels=1, width_mult=0.35), 1, 32, 32, num_classes=7)
