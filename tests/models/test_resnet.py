from functools import partial

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.attention import SqueezeExcitation
from minitorch_attn.models import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)

from ..nn.parity import compare_modules, normal
from .networks import Nothing, check_training, count, shapes

PUBLISHED = [
    (resnet18, 11_689_512),
    (resnet34, 21_797_672),
    (resnet50, 25_557_032),
    (resnet101, 44_549_160),
    (resnet152, 60_192_808),
]


@pytest.mark.parametrize(("build", "parameters"), PUBLISHED)
def test_parameters_are_as_many_as_published(unfilled, build, parameters):
    assert count(build()) == parameters


def test_multiply_adds_of_resnet50(unfilled):
    """4.09 G, as published for the stride in the 3x3 convolution; 3.86 G if it were in the 1x1."""
    assert mt.summary(resnet50(), (3, 224, 224)).multiply_adds == 4_089_184_256


@pytest.mark.parametrize("build", [build for build, _ in PUBLISHED])
def test_every_parameter_gets_a_gradient(quick_random, build):
    check_training(build(7, 1), 1, 64, 64, num_classes=7)


# ---------------------------------------------------------------- torchvision's names


BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def published_names(blocks, convolutions):
    """The names of torchvision's ResNets, in their order."""

    def conv_bn(prefix, conv, bn):
        return [f"{prefix}{conv}.weight", *(f"{prefix}{bn}.{name}" for name in BN)]

    names = conv_bn("", "conv1", "bn1")
    for number, depth in enumerate(blocks, start=1):
        for i in range(depth):
            block = f"layer{number}.{i}."
            for k in range(1, convolutions + 1):
                names += conv_bn(block, f"conv{k}", f"bn{k}")
            if i == 0 and (number > 1 or convolutions == 3):
                names += conv_bn(block, "downsample.0", "downsample.1")
    return [*names, "fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("build", "blocks", "convolutions"),
    [
        (resnet18, (2, 2, 2, 2), 2),
        (resnet34, (3, 4, 6, 3), 2),
        (resnet50, (3, 4, 6, 3), 3),
        (resnet101, (3, 4, 23, 3), 3),
        (resnet152, (3, 8, 36, 3), 3),
    ],
)
def test_names_are_torchvisions(unfilled, build, blocks, convolutions):
    assert list(shapes(build())) == published_names(blocks, convolutions)


def test_shapes_are_torchvisions(unfilled):
    basic, bottleneck = shapes(resnet18()), shapes(resnet50())
    assert basic["conv1.weight"] == (64, 3, 7, 7)
    assert basic["layer1.0.conv1.weight"] == (64, 64, 3, 3)
    assert basic["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert basic["fc.weight"] == (1000, 512)
    assert bottleneck["layer1.0.conv1.weight"] == (64, 64, 1, 1)
    assert bottleneck["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert bottleneck["layer1.1.conv1.weight"] == (64, 256, 1, 1)
    assert bottleneck["layer4.0.conv2.weight"] == (512, 512, 3, 3)
    assert bottleneck["layer4.2.bn3.running_var"] == (2048,)
    assert bottleneck["fc.bias"] == (1000,)


# ---------------------------------------------------------------- the same numbers as PyTorch


def torch_basic(torch, before, width, stride=1):
    tnn = torch.nn

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = tnn.Conv2d(before, width, 3, stride, 1, bias=False)
            self.bn1 = tnn.BatchNorm2d(width)
            self.conv2 = tnn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = tnn.BatchNorm2d(width)
            self.downsample = None
            if stride != 1 or before != width:
                self.downsample = tnn.Sequential(
                    tnn.Conv2d(before, width, 1, stride, bias=False), tnn.BatchNorm2d(width)
                )

        def forward(self, x):
            identity = x if self.downsample is None else self.downsample(x)
            out = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(out)) + identity)

    return Block()


def torch_bottleneck(torch, before, width, stride=1, groups=1, base_width=64):
    tnn = torch.nn
    inner, outer = int(width * (base_width / 64.0)) * groups, 4 * width

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = tnn.Conv2d(before, inner, 1, bias=False)
            self.bn1 = tnn.BatchNorm2d(inner)
            self.conv2 = tnn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
            self.bn2 = tnn.BatchNorm2d(inner)
            self.conv3 = tnn.Conv2d(inner, outer, 1, bias=False)
            self.bn3 = tnn.BatchNorm2d(outer)
            self.downsample = None
            if stride != 1 or before != outer:
                self.downsample = tnn.Sequential(
                    tnn.Conv2d(before, outer, 1, stride, bias=False), tnn.BatchNorm2d(outer)
                )

        def forward(self, x):
            identity = x if self.downsample is None else self.downsample(x)
            out = torch.relu(self.bn1(self.conv1(x)))
            out = torch.relu(self.bn2(self.conv2(out)))
            return torch.relu(self.bn3(self.conv3(out)) + identity)

    return Block()


@pytest.mark.parametrize(
    ("before", "width", "stride"), [(4, 4, 1), (4, 6, 1), (4, 4, 2), (4, 8, 2)]
)
@pytest.mark.parametrize("training", [False, True])
def test_a_basic_block_computes_what_pytorch_does(before, width, stride, training):
    torch = pytest.importorskip("torch")
    ours, theirs = BasicBlock(before, width, stride), torch_basic(torch, before, width, stride)
    compare_modules(ours, theirs, normal(3, before, 5, 6), training=training)


@pytest.mark.parametrize(
    ("before", "width", "stride"), [(8, 2, 1), (4, 2, 1), (8, 2, 2), (8, 4, 2)]
)
@pytest.mark.parametrize("training", [False, True])
def test_a_bottleneck_computes_what_pytorch_does(before, width, stride, training):
    torch = pytest.importorskip("torch")
    ours = Bottleneck(before, width, stride)
    theirs = torch_bottleneck(torch, before, width, stride)
    compare_modules(ours, theirs, normal(3, before, 5, 6), training=training)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_network_computes_what_pytorch_does(unfilled, block):
    torch = pytest.importorskip("torch")
    tnn = torch.nn
    torch_block = torch_basic if block is BasicBlock else torch_bottleneck

    class Network(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = tnn.Conv2d(2, 64, 7, stride=2, padding=3, bias=False)
            self.bn1 = tnn.BatchNorm2d(64)
            self.maxpool = tnn.MaxPool2d(3, stride=2, padding=1)
            before = 64
            for number, (width, stride) in enumerate([(64, 1), (128, 2), (256, 2), (512, 2)]):
                layer = tnn.Sequential(torch_block(torch, before, width, stride))
                before = width * block.expansion
                setattr(self, f"layer{number + 1}", layer)
            self.fc = tnn.Linear(before, 5)

        def forward(self, x):
            x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(x.mean((2, 3)))

    ours = ResNet(block, (1, 1, 1, 1), 5, 2)
    compare_modules(ours, Network(), normal(2, 2, 37, 40), dtypes=("float64",))


# ---------------------------------------------------------------- attention in the branch


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
def test_attention_weighs_the_branch_before_the_addition(block, stride):
    channels = 4 * block.expansion
    closed = block(channels, 4, stride, attention=Nothing)
    x = mt.tensor(normal(2, channels, 6, 6).astype(np.float32))
    np.testing.assert_array_equal(closed(x).numpy(), F.relu(closed.downsample(x)).numpy())


def test_attention_stands_in_every_block_and_changes_no_name(unfilled):
    plain, weighed = shapes(resnet50()), shapes(resnet50(attention=SqueezeExcitation))
    added = [name for name in weighed if name not in plain]
    assert [name for name in weighed if name in plain] == list(plain)
    assert len(added) == 2 * (3 + 4 + 6 + 3)
    assert weighed["layer1.0.attention.fc1.weight"] == (256 // 16, 256)


def test_se_resnet50_has_the_parameters_of_its_paper(unfilled):
    """Table 2 of the SE paper: 28.1 M, of which 2.5 M are attention."""
    model = resnet50(attention=partial(SqueezeExcitation, reduction=16))
    assert count(model) - count(resnet50()) == 2_514_944


def test_first_values():
    """Kernels of variance 2 / (R S O), biases zero."""
    mt.manual_seed(0)
    state = {name: t.numpy() for name, t in resnet18().state_dict().items()}
    for name in ("conv1", "layer2.0.conv1", "layer4.1.conv2", "layer3.0.downsample.0"):
        kernels = state[f"{name}.weight"]
        O, _, R, S = kernels.shape
        assert kernels.std() == pytest.approx(np.sqrt(2 / (R * S * O)), rel=0.02)
    assert (state["layer1.0.bn2.weight"] == 1).all()
    assert not state["fc.bias"].any()
