import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.models import (
    preact_resnet,
    preact_resnet110,
    preact_resnet164,
    preact_resnet1001,
)
from minitorch_attn.models.cifar_resnet import ZeroPadding
from minitorch_attn.models.preact_resnet import PreActBasicBlock, PreActBottleneck

from ..nn.parity import compare_modules, normal
from .networks import Nothing, check_training, count

PUBLISHED = [
    (preact_resnet110, 1_727_962),
    (preact_resnet164, 1_703_258),
    (preact_resnet1001, 10_327_706),
]


@pytest.mark.parametrize(("build", "parameters"), PUBLISHED)
def test_parameters_are_as_many_as_published(unfilled, build, parameters):
    assert count(build()) == parameters


@pytest.mark.parametrize("build", [build for build, _ in PUBLISHED])
def test_every_parameter_gets_a_gradient(quick_random, build):
    check_training(build(7, 1), 1, 8, 8, num_classes=7)


def torch_block(torch, before, width, stride=1, bottleneck=False, shortcut="B"):
    """The paper's figure, with the activation shared where the shape changes."""
    tnn = torch.nn
    outer = 4 * width if bottleneck else width

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            self.bn1 = tnn.BatchNorm2d(before)
            if bottleneck:
                self.conv1 = tnn.Conv2d(before, width, 1, bias=False)
                self.bn2 = tnn.BatchNorm2d(width)
                self.conv2 = tnn.Conv2d(width, width, 3, stride, 1, bias=False)
                self.bn3 = tnn.BatchNorm2d(width)
                self.conv3 = tnn.Conv2d(width, outer, 1, bias=False)
            else:
                self.conv1 = tnn.Conv2d(before, width, 3, stride, 1, bias=False)
                self.bn2 = tnn.BatchNorm2d(width)
                self.conv2 = tnn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.changes = stride != 1 or before != outer
            if self.changes and shortcut == "B":
                self.shortcut = tnn.Conv2d(before, outer, 1, stride, bias=False)

        def forward(self, x):
            pre = torch.relu(self.bn1(x))
            out = self.conv2(torch.relu(self.bn2(self.conv1(pre))))
            if bottleneck:
                out = self.conv3(torch.relu(self.bn3(out)))
            if not self.changes:
                return out + x
            if shortcut == "B":
                return out + self.shortcut(pre)
            thinned = pre[:, :, ::stride, ::stride]
            zeros = thinned.new_zeros(len(x), outer - before, *thinned.shape[2:])
            return out + torch.cat([thinned, zeros], dim=1)

    return Block()


@pytest.mark.parametrize(("before", "width", "stride"), [(4, 4, 1), (4, 6, 1), (4, 8, 2)])
@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("training", [False, True])
def test_a_basic_block_computes_what_pytorch_does(before, width, stride, shortcut, training):
    torch = pytest.importorskip("torch")
    options = {"shortcut": ZeroPadding} if shortcut == "A" else {}
    ours = PreActBasicBlock(before, width, stride, **options)
    theirs = torch_block(torch, before, width, stride, shortcut=shortcut)
    compare_modules(ours, theirs, normal(3, before, 5, 6), training=training)


@pytest.mark.parametrize(
    ("before", "width", "stride"), [(8, 2, 1), (4, 2, 1), (8, 2, 2), (8, 4, 2)]
)
@pytest.mark.parametrize("training", [False, True])
def test_a_bottleneck_computes_what_pytorch_does(before, width, stride, training):
    torch = pytest.importorskip("torch")
    ours = PreActBottleneck(before, width, stride)
    theirs = torch_block(torch, before, width, stride, bottleneck=True)
    compare_modules(ours, theirs, normal(3, before, 5, 6), training=training)


@pytest.mark.parametrize(("bottleneck", "depth"), [(False, 14), (True, 20)])
def test_a_network_ends_with_an_activation_as_in_pytorch(unfilled, bottleneck, depth):
    torch = pytest.importorskip("torch")
    tnn = torch.nn
    expansion = 4 if bottleneck else 1

    def two_blocks(before, width, stride):
        first = torch_block(torch, before, width, stride, bottleneck)
        return tnn.Sequential(first, torch_block(torch, width * expansion, width, 1, bottleneck))

    class Network(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = tnn.Conv2d(2, 16, 3, padding=1, bias=False)
            self.layer1 = two_blocks(16, 16, 1)
            self.layer2 = two_blocks(16 * expansion, 32, 2)
            self.layer3 = two_blocks(32 * expansion, 64, 2)
            self.bn = tnn.BatchNorm2d(64 * expansion)
            self.fc = tnn.Linear(64 * expansion, 5)

        def forward(self, x):
            x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
            return self.fc(torch.relu(self.bn(x)).mean((2, 3)))

    ours = preact_resnet(depth, 5, 2, bottleneck=bottleneck)
    compare_modules(ours, Network(), normal(2, 2, 9, 12), dtypes=("float64",))


@pytest.mark.parametrize("block", [PreActBasicBlock, PreActBottleneck])
def test_with_the_branch_closed_a_block_passes_its_input_on(block):
    channels = 4 * block.expansion
    x = mt.tensor(normal(2, channels, 6, 6).astype(np.float32))
    closed = block(channels, 4, attention=Nothing)
    np.testing.assert_array_equal(closed(x).numpy(), x.numpy())
    changing = block(channels, 4, 2, attention=Nothing)
    shared = F.relu(changing.bn1(x))
    np.testing.assert_array_equal(changing(x).numpy(), changing.shortcut(shared).numpy())


def test_a_depth_or_shortcut_that_is_none_is_told():
    with pytest.raises(ValueError, match=r"depth must be 9 n \+ 2.*not 111: take 110"):
        preact_resnet(111)
    with pytest.raises(ValueError, match="shortcut must be one of A, B, not 'a'"):
        preact_resnet(164, shortcut="a")
