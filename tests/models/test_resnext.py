import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.models import (
    Bottleneck,
    cifar_resnext,
    resnext50_32x4d,
    resnext101_32x4d,
    resnext101_32x8d,
    resnext101_64x4d,
)

from ..nn.parity import compare_modules, normal
from .networks import check_training, count, shapes
from .test_resnet import published_names, torch_bottleneck

PUBLISHED = [
    (resnext50_32x4d, 25_028_904),
    (resnext101_32x4d, 44_177_704),
    (resnext101_32x8d, 88_791_336),
    (resnext101_64x4d, 83_455_272),
]


@pytest.mark.parametrize(("build", "parameters"), PUBLISHED)
def test_parameters_are_as_many_as_published(unfilled, build, parameters):
    assert count(build()) == parameters


@pytest.mark.parametrize(
    ("groups", "width_per_group", "parameters"),
    [
        (8, 64, 34_426_698),
        (16, 64, 68_155_210),
        (32, 4, 4_775_754),
        (2, 64, 9_130_314),
        (4, 64, 17_562_442),
    ],
)
def test_parameters_for_cifar(unfilled, groups, width_per_group, parameters):
    assert count(cifar_resnext(29, groups, width_per_group)) == parameters


def test_every_parameter_gets_a_gradient(quick_random):
    """Of the smallest: the others, of 100 million, have more of the same blocks."""
    check_training(resnext50_32x4d(7, 1), 1, 64, 64, num_classes=7)


@pytest.mark.parametrize(("groups", "width_per_group"), [(8, 64), (32, 4)])
def test_every_parameter_gets_a_gradient_on_small_images(quick_random, groups, width_per_group):
    model = cifar_resnext(29, groups, width_per_group, 7, 1)
    check_training(model, 1, 8, 8, num_classes=7)


def test_names_and_shapes_are_torchvisions(unfilled):
    state = shapes(resnext50_32x4d())
    assert list(state) == published_names((3, 4, 6, 3), 3)
    assert state["layer1.0.conv1.weight"] == (128, 64, 1, 1)
    assert state["layer1.0.conv2.weight"] == (128, 4, 3, 3)
    assert state["layer4.0.conv2.weight"] == (1024, 32, 3, 3)
    for build, channels, own in [(resnext101_32x8d, 256, 8), (resnext101_64x4d, 256, 4)]:
        state = shapes(build())
        assert list(state) == published_names((3, 4, 23, 3), 3)
        assert state["layer1.0.conv2.weight"] == (channels, own, 3, 3)


@pytest.mark.parametrize(
    ("before", "width", "stride", "groups", "width_per_group"),
    [(8, 2, 1, 2, 64), (8, 4, 2, 2, 32), (16, 16, 1, 4, 4), (6, 4, 2, 8, 16)],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_grouped_block_computes_what_pytorch_does(
    before, width, stride, groups, width_per_group, training
):
    torch = pytest.importorskip("torch")
    shape = {"groups": groups, "width_per_group": width_per_group}
    ours = Bottleneck(before, width, stride, **shape)
    theirs = torch_bottleneck(torch, before, width, stride, groups, width_per_group)
    compare_modules(ours, theirs, normal(3, before, 5, 6), training=training)


def test_a_grouped_block_is_a_sum_of_branches():
    """Figure 3 of the paper: (a) equals (c), with batch normalisation behind the sum."""
    mt.manual_seed(0)
    block = Bottleneck(8, 2, groups=3, width_per_group=64).double().eval()
    x = mt.tensor(normal(2, 8, 5, 5))
    total = 0
    for g in range(3):
        own = slice(2 * g, 2 * g + 2)
        branch = F.relu(F.conv2d(x, block.conv1.weight[own]) / np.sqrt(1 + 1e-5))
        branch = F.conv2d(branch, block.conv2.weight[own], padding=1)
        branch = F.relu(branch / np.sqrt(1 + 1e-5))
        total = total + F.conv2d(branch, block.conv3.weight[:, own])
    np.testing.assert_allclose(
        F.relu(block.bn3(total) + x).numpy(), block(x).numpy(), rtol=0, atol=1e-12
    )
