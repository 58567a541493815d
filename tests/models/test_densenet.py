import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.models import (
    DenseNet,
    cifar_densenet,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
)
from minitorch_attn.models.densenet import DenseBlock, DenseLayer

from ..nn.parity import compare_modules, normal
from .networks import check_training, count, shapes
from .test_resnet import BN

PUBLISHED = [
    (densenet121, 7_978_856),
    (densenet169, 14_149_480),
    (densenet201, 20_013_928),
    (densenet161, 28_681_000),
]


@pytest.mark.parametrize(("build", "parameters"), PUBLISHED)
def test_parameters_are_as_many_as_published(unfilled, build, parameters):
    assert count(build()) == parameters


@pytest.mark.parametrize(
    ("depth", "growth_rate", "parameters", "with_stem_of_2k"),
    [
        (40, 12, 1_019_722, 1_059_298),
        (100, 12, 6_979_642, 7_083_538),
        (100, 24, 27_249_082, 28_071_706),
    ],
)
def test_parameters_for_cifar(unfilled, depth, growth_rate, parameters, with_stem_of_2k):
    assert count(cifar_densenet(depth, growth_rate)) == parameters
    wide = cifar_densenet(depth, growth_rate, stem_channels=2 * growth_rate)
    assert count(wide) == with_stem_of_2k


@pytest.mark.parametrize(
    ("depth", "growth_rate", "parameters"),
    [(40, 12, 176_122), (100, 12, 769_162), (250, 24, 15_324_406), (190, 40, 25_624_430)],
)
def test_parameters_of_densenet_bc(unfilled, depth, growth_rate, parameters):
    assert count(cifar_densenet(depth, growth_rate, bc=True)) == parameters


def test_parameters_for_a_hundred_classes(unfilled):
    assert count(cifar_densenet(100, 12, 100, bc=True)) == 800_032


@pytest.mark.parametrize("build", [build for build, _ in PUBLISHED])
def test_every_parameter_gets_a_gradient(quick_random, build):
    check_training(build(7, 1), 1, 64, 64, num_classes=7)


@pytest.mark.parametrize(
    ("depth", "growth_rate", "bc"),
    [(40, 12, False), (100, 24, False), (40, 12, True), (100, 12, True), (190, 40, True)],
)
def test_every_parameter_gets_a_gradient_on_small_images(quick_random, depth, growth_rate, bc):
    model = cifar_densenet(depth, growth_rate, 7, 1, bc, dropout=0.2)
    check_training(model, 1, 8, 8, num_classes=7)


def test_names_are_torchvisions(unfilled):
    def bn(name):
        return [f"{name}.{part}" for part in BN]

    names = ["features.conv0.weight", *bn("features.norm0")]
    for number, layers in enumerate((6, 12, 24, 16), start=1):
        for i in range(1, layers + 1):
            layer = f"features.denseblock{number}.denselayer{i}."
            names += [*bn(f"{layer}norm1"), f"{layer}conv1.weight"]
            names += [*bn(f"{layer}norm2"), f"{layer}conv2.weight"]
        if number < 4:
            transition = f"features.transition{number}."
            names += [*bn(f"{transition}norm"), f"{transition}conv.weight"]
    names += [*bn("features.norm5"), "classifier.weight", "classifier.bias"]
    assert list(shapes(densenet121())) == names


def test_shapes_are_torchvisions(unfilled):
    state = shapes(densenet161())
    assert state["features.conv0.weight"] == (96, 3, 7, 7)
    assert state["features.denseblock1.denselayer1.norm1.weight"] == (96,)
    assert state["features.denseblock1.denselayer2.conv1.weight"] == (192, 144, 1, 1)
    assert state["features.denseblock1.denselayer2.conv2.weight"] == (48, 192, 3, 3)
    assert state["features.transition1.conv.weight"] == (192, 384, 1, 1)
    assert state["features.norm5.running_mean"] == (2208,)
    assert state["classifier.weight"] == (1000, 2208)


def torch_layer(torch, before, growth_rate, bottleneck):
    tnn = torch.nn

    class Layer(tnn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = tnn.BatchNorm2d(before)
            inner = 4 * growth_rate
            if bottleneck:
                self.conv1 = tnn.Conv2d(before, inner, 1, bias=False)
                self.norm2 = tnn.BatchNorm2d(inner)
                self.conv2 = tnn.Conv2d(inner, growth_rate, 3, padding=1, bias=False)
            else:
                self.conv1 = tnn.Conv2d(before, growth_rate, 3, padding=1, bias=False)

        def forward(self, *seen):
            x = self.conv1(torch.relu(self.norm1(torch.cat(seen, 1))))
            return self.conv2(torch.relu(self.norm2(x))) if bottleneck else x

    return Layer()


def torch_block(torch, layers, before, growth_rate, bottleneck):
    """All that the layers have made is kept in a list, as torchvision does."""
    tnn = torch.nn

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            for i in range(layers):
                layer = torch_layer(torch, before + i * growth_rate, growth_rate, bottleneck)
                self.add_module(f"denselayer{i + 1}", layer)

        def forward(self, x):
            seen = [x]
            for layer in self.children():
                seen.append(layer(*seen))
            return torch.cat(seen, 1)

    return Block()


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_layer_computes_what_pytorch_does(bottleneck, training):
    torch = pytest.importorskip("torch")
    ours, theirs = DenseLayer(5, 3, bottleneck), torch_layer(torch, 5, 3, bottleneck)
    compare_modules(ours, theirs, normal(3, 5, 4, 6), training=training)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_block_computes_what_pytorch_does(bottleneck):
    torch = pytest.importorskip("torch")
    ours = DenseBlock(3, 4, 2, bottleneck)
    theirs = torch_block(torch, 3, 4, 2, bottleneck)
    compare_modules(ours, theirs, normal(3, 4, 4, 6), dtypes=("float64",))


def test_new_channels_stand_behind_the_old_ones():
    x = mt.tensor(normal(2, 4, 5, 5).astype(np.float32))
    y = DenseBlock(3, 4, 2).eval()(x).numpy()
    assert y.shape == (2, 10, 5, 5)
    np.testing.assert_array_equal(y[:, :4], x.numpy())


@pytest.mark.parametrize("small_images", [False, True])
def test_a_network_computes_what_pytorch_does(small_images):
    torch = pytest.importorskip("torch")
    tnn = torch.nn

    class Network(tnn.Module):
        def __init__(self):
            super().__init__()
            if small_images:
                self.features = tnn.Sequential()
                self.features.add_module("conv0", tnn.Conv2d(2, 8, 3, padding=1, bias=False))
            else:
                self.features = tnn.Sequential()
                conv = tnn.Conv2d(2, 8, 7, stride=2, padding=3, bias=False)
                self.features.add_module("conv0", conv)
                self.features.add_module("norm0", tnn.BatchNorm2d(8))
                self.features.add_module("relu0", tnn.ReLU())
                self.features.add_module("pool0", tnn.MaxPool2d(3, stride=2, padding=1))
            self.features.add_module("denseblock1", torch_block(torch, 3, 8, 4, True))
            transition = tnn.Sequential()
            transition.add_module("norm", tnn.BatchNorm2d(20))
            transition.add_module("relu", tnn.ReLU())
            transition.add_module("conv", tnn.Conv2d(20, 10, 1, bias=False))
            transition.add_module("pool", tnn.AvgPool2d(2, stride=2))
            self.features.add_module("transition1", transition)
            self.features.add_module("denseblock2", torch_block(torch, 2, 10, 4, True))
            self.features.add_module("norm3", tnn.BatchNorm2d(18))
            self.classifier = tnn.Linear(18, 5)

        def forward(self, x):
            return self.classifier(torch.relu(self.features(x)).mean((2, 3)))

    ours = DenseNet((3, 2), 4, 5, 2, stem_channels=8, small_images=small_images)
    compare_modules(ours, Network(), normal(2, 2, 21, 20), dtypes=("float64",))


def test_a_depth_that_is_none_is_told():
    with pytest.raises(ValueError, match=r"depth must be 3 n \+ 4.*not 41: take 40"):
        cifar_densenet(41)
    with pytest.raises(ValueError, match=r"depth must be 6 n \+ 4.*not 42: take 40"):
        cifar_densenet(42, bc=True)
