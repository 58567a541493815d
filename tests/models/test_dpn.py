import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.models.dpn import (
    DPN,
    DualPathBlock,
    dpn68,
    dpn92,
    dpn98,
    dpn107,
    dpn131,
)

from ..nn.parity import compare_modules, normal
from .networks import check_training, count


def torch_block(torch, in_channels, width, residual, growth, groups, stride):
    """Figure 2 (d) of the paper, written out with PyTorch: the two paths kept apart."""
    tnn = torch.nn

    class BNReLUConv(tnn.Module):
        def __init__(self, before, after, kernel_size=1, stride=1, groups=1):
            super().__init__()
            self.bn = tnn.BatchNorm2d(before, 0.001)
            self.conv = tnn.Conv2d(
                before, after, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
            )

        def forward(self, x):
            return self.conv(torch.relu(self.bn(x)))

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            if stride:
                self.projection = BNReLUConv(in_channels, residual + 2 * growth, 1, stride)
            self.bottleneck = tnn.Sequential(
                BNReLUConv(in_channels, width),
                BNReLUConv(width, width, 3, stride or 1, groups),
                BNReLUConv(width, residual + growth),
            )

        def forward(self, x):
            dense = in_channels - residual
            paths = self.projection(x) if stride else x
            r, d = paths.split([residual, 2 * growth if stride else dense], dim=1)
            added, appended = self.bottleneck(x).split([residual, growth], dim=1)
            return torch.cat((r + added, torch.cat((d, appended), dim=1)), dim=1)

    return Block()


@pytest.mark.parametrize(("in_channels", "stride"), [(10, 1), (10, 2), (12, None)])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_the_papers_figure(in_channels, stride, training):
    torch = pytest.importorskip("torch")
    block = DualPathBlock(in_channels, 4, 6, 2, 2, stride)
    theirs = torch_block(torch, in_channels, 4, 6, 2, 2, stride)
    compare_modules(block, theirs, normal(2, in_channels, 5, 6), training=training)


def test_the_dense_path_passes_a_block_untouched():
    block = DualPathBlock(12, 4, 6, 2, 2)
    x = mt.tensor(normal(2, 12, 4, 4).astype("float32"))
    y = block(x)
    assert y.shape == (2, 14, 4, 4)
    np.testing.assert_array_equal(y.numpy()[:, 6:12], x.numpy()[:, 6:])


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (dpn68, 12_611_602),
        (dpn92, 37_668_392),
        (dpn98, 61_570_728),
        (dpn107, 86_917_800),
        (dpn131, 79_254_504),
    ],
)
def test_it_has_the_parameters_of_the_reference(unfilled, network, parameters):
    assert count(network()) == parameters


def test_every_parameter_gets_a_gradient(quick_random):
    check_training(dpn68(7, in_channels=1), 1, 32, 32, num_classes=7)


def test_every_parameter_of_a_narrow_network_with_a_wide_stem_gets_a_gradient():
    net = DPN(7, 1, 8, 7, 16, 8, 4, (2, 1, 2, 1), (4, 4, 2, 2))
    check_training(net, 1, 32, 32, num_classes=7)
    assert net.fc.in_features == 16 * 8 + 3 * 2
