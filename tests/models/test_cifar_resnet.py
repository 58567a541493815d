import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import SqueezeExcitation
from minitorch_attn.models import (
    BasicBlock,
    CifarResNet,
    cifar_resnet,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
    resnet1202,
)
from minitorch_attn.models.cifar_resnet import ZeroPadding

from ..nn.parity import compare_modules, normal
from .networks import Nothing, check_training, count

PUBLISHED = [
    (resnet20, 269_722),
    (resnet32, 464_154),
    (resnet44, 658_586),
    (resnet56, 853_018),
    (resnet110, 1_727_962),
    (resnet1202, 19_421_274),
]


@pytest.mark.parametrize(("build", "parameters"), PUBLISHED)
def test_parameters_are_as_many_as_published(unfilled, build, parameters):
    assert count(build()) == parameters


@pytest.mark.parametrize(
    ("build", "parameters"), [(resnet20, 272_474), (resnet56, 855_770), (resnet110, 1_730_714)]
)
def test_parameters_with_projections(unfilled, build, parameters):
    assert count(build(shortcut="B")) == parameters


def test_parameters_of_other_forms(unfilled):
    assert count(resnet20(100)) == 275_572
    assert count(cifar_resnet(164, shortcut="B", bottleneck=True)) == 1_704_154


@pytest.mark.parametrize("build", [build for build, _ in PUBLISHED])
def test_every_parameter_gets_a_gradient(quick_random, build):
    check_training(build(7, 1), 1, 8, 8, num_classes=7)


def test_every_parameter_with_projections_gets_a_gradient(quick_random):
    check_training(resnet56(7, 1, "B"), 1, 8, 8, num_classes=7)


def test_every_parameter_of_bottlenecks_gets_a_gradient():
    model = cifar_resnet(29, 7, 1, shortcut="B", bottleneck=True)
    check_training(model, 1, 8, 8, num_classes=7)


def test_zeros_stand_behind_the_channels_of_every_second_pixel():
    x = normal(2, 3, 5, 4)
    y = ZeroPadding(3, 7, 2)(mt.tensor(x)).numpy()
    assert y.shape == (2, 7, 3, 2)
    np.testing.assert_array_equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("training", [False, True])
def test_it_computes_what_pytorch_does(shortcut, training):
    torch = pytest.importorskip("torch")
    tnn = torch.nn

    class Block(tnn.Module):
        def __init__(self, before, width, stride):
            super().__init__()
            self.conv1 = tnn.Conv2d(before, width, 3, stride, 1, bias=False)
            self.bn1 = tnn.BatchNorm2d(width)
            self.conv2 = tnn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = tnn.BatchNorm2d(width)
            self.stride = stride
            self.changes = before != width
            if self.changes and shortcut == "B":
                self.downsample = tnn.Sequential(
                    tnn.Conv2d(before, width, 1, stride, bias=False), tnn.BatchNorm2d(width)
                )

        def forward(self, x):
            out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            if not self.changes:
                return torch.relu(out + x)
            if shortcut == "B":
                return torch.relu(out + self.downsample(x))
            thinned = tnn.functional.avg_pool2d(x, 1, self.stride)
            return torch.relu(out + torch.cat([thinned, 0 * thinned], dim=1))

    class Network(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = tnn.Conv2d(2, 16, 3, padding=1, bias=False)
            self.bn1 = tnn.BatchNorm2d(16)
            self.layer1 = tnn.Sequential(Block(16, 16, 1), Block(16, 16, 1))
            self.layer2 = tnn.Sequential(Block(16, 32, 2), Block(32, 32, 1))
            self.layer3 = tnn.Sequential(Block(32, 64, 2), Block(64, 64, 1))
            self.fc = tnn.Linear(64, 5)

        def forward(self, x):
            x = torch.relu(self.bn1(self.conv1(x)))
            return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))

    ours = cifar_resnet(14, 5, 2, shortcut)
    images = normal(2, 2, 9, 12)
    compare_modules(ours, Network(), images, training=training, dtypes=("float64",))


def test_stages_halve_the_image_and_double_the_channels():
    rows = {row.name: row.output_shape for row in mt.summary(resnet20(), (3, 32, 32)).rows}
    assert rows["conv1"] == rows["layer1"] == (1, 16, 32, 32)
    assert rows["layer2"] == (1, 32, 16, 16)
    assert rows["layer3"] == (1, 64, 8, 8)


def test_attention_stands_in_every_block():
    model = resnet20(attention=lambda channels: SqueezeExcitation(channels, 4))
    gates = [m for m in model.modules() if isinstance(m, SqueezeExcitation)]
    assert [gate.channels for gate in gates] == [16] * 3 + [32] * 3 + [64] * 3
    closed = CifarResNet(BasicBlock, 1, shortcut=ZeroPadding, attention=Nothing).eval()
    x = mt.tensor(normal(1, 3, 8, 8).astype(np.float32))
    stem = mt.functional.relu(closed.bn1(closed.conv1(x)))
    np.testing.assert_array_equal(closed.layer1(stem).numpy(), stem.numpy())


@pytest.mark.parametrize(("depth", "nearest"), [(21, 20), (24, 26), (2, 8)])
def test_a_depth_that_is_none_is_told_with_the_nearest(depth, nearest):
    with pytest.raises(ValueError, match=rf"depth must be 6 n \+ 2.*not {depth}: take {nearest}"):
        cifar_resnet(depth)


def test_an_unknown_shortcut_is_told():
    with pytest.raises(ValueError, match="shortcut must be one of A, B, not 'C'"):
        cifar_resnet(20, shortcut="C")
