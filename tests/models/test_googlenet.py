import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.models.googlenet import (
    GoogLeNetOutputs,
    Inception,
    InceptionAux,
    auxiliary_cross_entropy,
    googlenet,
)

from ..nn.parity import compare_modules, normal
from .networks import check_training, count, shapes
from .reference import torch_conv_bn


def torch_conv(torch, batch_norm, in_channels, out_channels, kernel_size):
    """A convolution that keeps the image's size and a ReLU, with PyTorch."""
    padding = kernel_size // 2
    if batch_norm:
        return torch_conv_bn(
            torch, in_channels, out_channels, kernel_size, padding=padding, eps=0.001
        )

    class ConvReLU(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)

        def forward(self, x):
            return torch.relu(self.conv(x))

    return ConvReLU()


def torch_inception(torch, batch_norm, C, widths):
    """Figure 2 (b) of the paper, written out with PyTorch."""
    tnn, widest = torch.nn, 3 if batch_norm else 5

    def conv(*channels_and_kernel):
        return torch_conv(torch, batch_norm, *channels_and_kernel)

    class Module(tnn.Module):
        def __init__(self):
            super().__init__()
            a, b, c, d, e, f = widths
            self.branch1 = conv(C, a, 1)
            self.branch2 = tnn.Sequential(conv(C, b, 1), conv(b, c, 3))
            self.branch3 = tnn.Sequential(conv(C, d, 1), conv(d, e, widest))
            self.branch4 = tnn.Sequential(tnn.MaxPool2d(3, 1, 1), conv(C, f, 1))

        def forward(self, x):
            y = [self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)]
            return torch.cat(y, dim=1)

    return Module()


def torch_aux(torch, batch_norm, C, K):
    """The auxiliary classifier of section 5 of the paper, written out with PyTorch."""
    tnn = torch.nn

    class Aux(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch_conv(torch, batch_norm, C, 128, 1)
            self.fc1 = tnn.Linear(2048, 1024)
            self.fc2 = tnn.Linear(1024, K)

        def forward(self, x):
            x = tnn.functional.adaptive_avg_pool2d(x, 4) if batch_norm else x
            x = x if batch_norm else tnn.functional.avg_pool2d(x, 5, 3)
            x = self.conv(x).reshape(len(x), -1)
            return self.fc2(torch.relu(self.fc1(x)))

    return Aux()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_an_inception_module_is_the_papers_figure(batch_norm, training):
    torch = pytest.importorskip("torch")
    widths = (3, 4, 5, 2, 3, 2)
    module = Inception(4, widths, batch_norm)
    theirs = torch_inception(torch, batch_norm, 4, widths)
    compare_modules(module, theirs, normal(2, 4, 5, 6), training=training)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_an_auxiliary_classifier_is_the_papers(batch_norm):
    torch = pytest.importorskip("torch")
    aux = InceptionAux(3, 5, batch_norm)
    theirs = torch_aux(torch, batch_norm, 3, 5)
    compare_modules(aux, theirs, normal(2, 3, 14, 14), training=False)


def test_it_has_the_parameters_of_the_paper(unfilled):
    net = googlenet()
    assert count(net) == 6_998_552
    modules = {name: count(m) for name, m in net.named_children() if name.startswith("inception")}
    assert modules == {
        "inception3a": 163_696,
        "inception3b": 388_736,
        "inception4a": 376_176,
        "inception4b": 449_160,
        "inception4c": 510_104,
        "inception4d": 605_376,
        "inception4e": 868_352,
        "inception5a": 1_043_456,
        "inception5b": 1_444_080,
    }


def test_with_batch_norm_it_has_the_parameters_of_torchvision(unfilled):
    assert count(googlenet(batch_norm=True)) == 6_624_904
    assert count(googlenet(batch_norm=True, aux_logits=True)) == 13_004_888


def test_with_batch_norm_its_parameters_have_the_names_of_torchvision(unfilled):
    named = shapes(googlenet(batch_norm=True, aux_logits=True))
    assert len(named) == 59 * 6 + 5 * 2
    assert named["conv1.conv.weight"] == (64, 3, 7, 7)
    assert named["conv1.bn.running_mean"] == (64,)
    assert named["conv3.conv.weight"] == (192, 64, 3, 3)
    assert named["inception3a.branch1.conv.weight"] == (64, 192, 1, 1)
    assert named["inception3a.branch2.0.conv.weight"] == (96, 192, 1, 1)
    assert named["inception3a.branch2.1.bn.bias"] == (128,)
    assert named["inception3a.branch3.1.conv.weight"] == (32, 16, 3, 3)
    assert named["inception5b.branch4.1.conv.weight"] == (128, 832, 1, 1)
    assert named["aux1.conv.conv.weight"] == (128, 512, 1, 1)
    assert named["aux2.conv.bn.running_var"] == (128,)
    assert named["aux2.fc1.weight"] == (1024, 2048)
    assert named["aux1.fc2.weight"] == (1000, 1024)
    assert named["fc.bias"] == (1000,)


def test_every_parameter_gets_a_gradient(quick_random):
    check_training(googlenet(7, in_channels=1), 1, 32, 32, num_classes=7)


def test_every_parameter_of_all_three_classifiers_gets_a_gradient(quick_random):
    net = googlenet(7, in_channels=1, aux_logits=True, batch_norm=True)
    check_training(net, 1, 64, 64, num_classes=7, loss=auxiliary_cross_entropy)


def test_the_papers_network_halves_an_image_of_224_to_7(quick_random):
    net, seen = googlenet(7, in_channels=1, aux_logits=True), {}
    for name in ("inception3a", "inception4a", "inception5b", "aux1.pool"):
        net.get_submodule(name).register_forward_hook(
            lambda module, inputs, y, name=name: seen.update({name: y.shape[2:]})
        )
    with mt.no_grad():
        net(mt.ones(1, 1, 224, 224))
    assert seen == {
        "inception3a": (28, 28),
        "inception4a": (14, 14),
        "aux1.pool": (4, 4),
        "inception5b": (7, 7),
    }


def test_the_auxiliary_classifiers_stand_behind_4a_and_4d(quick_random):
    net = googlenet(7, in_channels=1, aux_logits=True, batch_norm=True)
    read, made = {}, {}

    def see(module, inputs, y):
        read[module], made[module] = inputs[0], y

    for module in (net.aux1, net.aux2, net.inception4a, net.inception4d):
        module.register_forward_hook(see)
    outputs = net(mt.ones(2, 1, 32, 32))
    assert read[net.aux1] is made[net.inception4a]
    assert read[net.aux2] is made[net.inception4d]
    assert outputs.aux_logits1 is made[net.aux1]
    assert outputs.aux_logits2 is made[net.aux2]


def test_auxiliary_scores_come_in_training_only(quick_random):
    net = googlenet(7, in_channels=1, aux_logits=True, batch_norm=True)
    x = mt.tensor(normal(2, 1, 32, 32).astype("float32"))
    assert isinstance(net.train()(x), GoogLeNetOutputs)
    assert net.eval()(x).shape == (2, 7)


def test_the_auxiliary_loss_counts_three_tenths_each():
    scores = [mt.tensor(normal(4, 5, seed=i)) for i in range(3)]
    target = np.array([0, 4, 2, 2])
    main, first, second = (F.cross_entropy(s, target).item() for s in scores)
    loss = auxiliary_cross_entropy(GoogLeNetOutputs(*scores), target)
    assert loss.item() == pytest.approx(main + 0.3 * first + 0.3 * second)
    assert auxiliary_cross_entropy(scores[0], target).item() == pytest.approx(main)
    half = auxiliary_cross_entropy(tuple(scores[:2]), target, weight=0.5)
    assert half.item() == pytest.approx(main + 0.5 * first)


def test_images_too_small_for_the_papers_auxiliary_classifiers_are_told(quick_random):
    net = googlenet(7, in_channels=1, aux_logits=True)
    with pytest.raises(mt.ShapeError, match=r"images of 224x224.*\(aux_logits=False\).*aux2"):
        net(mt.ones(1, 1, 96, 96))
