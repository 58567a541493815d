import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.models import wide_resnet50_2, wide_resnet101_2, wrn
from minitorch_attn.models.preact_resnet import PreActBasicBlock

from ..nn.parity import normal
from .networks import check_training, count, shapes
from .test_resnet import published_names


@pytest.mark.parametrize(
    ("depth", "width", "parameters"),
    [
        (16, 1, 175_066),
        (16, 2, 691_674),
        (16, 4, 2_748_890),
        (16, 8, 10_961_370),
        (16, 10, 17_116_634),
        (22, 8, 17_158_106),
        (28, 10, 36_479_194),
        (28, 12, 52_517_850),
        (40, 1, 563_930),
        (40, 2, 2_243_546),
        (40, 4, 8_949_210),
        (40, 8, 35_748_314),
    ],
)
def test_parameters_are_as_many_as_published(unfilled, depth, width, parameters):
    assert count(wrn(depth, width)) == parameters


@pytest.mark.parametrize(
    ("depth", "width", "parameters"), [(16, 4, 2_772_020), (28, 10, 36_536_884)]
)
def test_parameters_for_a_hundred_classes(unfilled, depth, width, parameters):
    assert count(wrn(depth, width, num_classes=100)) == parameters


@pytest.mark.parametrize(
    ("build", "parameters"), [(wide_resnet50_2, 68_883_240), (wide_resnet101_2, 126_886_696)]
)
def test_parameters_for_imagenet(unfilled, build, parameters):
    assert count(build()) == parameters


@pytest.mark.parametrize(("depth", "width"), [(16, 1), (28, 10), (40, 2)])
def test_every_parameter_gets_a_gradient(quick_random, depth, width):
    check_training(wrn(depth, width, 7, 1, dropout=0.3), 1, 8, 8, num_classes=7)


def test_every_parameter_gets_a_gradient_on_large_images(quick_random):
    check_training(wide_resnet50_2(7, 1), 1, 64, 64, num_classes=7)


def test_names_and_shapes_are_torchvisions(unfilled):
    state = shapes(wide_resnet50_2())
    assert list(state) == published_names((3, 4, 6, 3), 3)
    assert state["layer1.0.conv2.weight"] == (128, 128, 3, 3)
    assert state["layer4.2.conv3.weight"] == (2048, 1024, 1, 1)
    assert list(shapes(wide_resnet101_2())) == published_names((3, 4, 23, 3), 3)


def test_a_stage_that_keeps_its_channels_has_no_projection(unfilled):
    narrow, wide = shapes(wrn(16, 1)), shapes(wrn(16, 2))
    assert "layer1.0.shortcut.weight" not in narrow
    assert wide["layer1.0.shortcut.weight"] == (32, 16, 1, 1)
    assert wide["layer3.0.shortcut.weight"] == (128, 64, 1, 1)
    assert "layer2.1.shortcut.weight" not in wide


def torch_wrn_16(torch, w, x):
    """WRN-16 as a function of its weights, by their names."""
    F = torch.nn.functional

    def activation(x, name):
        gamma, beta = w[f"{name}.weight"], w[f"{name}.bias"]
        return torch.relu(F.batch_norm(x, None, None, gamma, beta, training=True))

    def block(x, name, stride):
        a = activation(x, f"{name}.bn1")
        y = F.conv2d(a, w[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = F.conv2d(activation(y, f"{name}.bn2"), w[f"{name}.conv2.weight"], padding=1)
        if f"{name}.shortcut.weight" in w:
            return y + F.conv2d(a, w[f"{name}.shortcut.weight"], stride=stride)
        return y + x

    x = F.conv2d(x, w["conv1.weight"], padding=1)
    for layer, stride in [("layer1", 1), ("layer2", 2), ("layer3", 2)]:
        x = block(block(x, f"{layer}.0", stride), f"{layer}.1", 1)
    return F.linear(activation(x, "bn").mean((2, 3)), w["fc.weight"], w["fc.bias"])


@pytest.mark.parametrize("width", [1, 2])
def test_a_network_computes_what_pytorch_does(width):
    torch = pytest.importorskip("torch")
    model = wrn(16, width, 5, 2).double()
    values = {name: normal(*p.shape) / 4 for name, p in model.named_parameters()}
    model.load_state_dict(values, strict=False)
    weights = {name: torch.tensor(v, requires_grad=True) for name, v in values.items()}
    x = normal(2, 2, 9, 12)
    y, t = model(mt.tensor(x)), torch_wrn_16(torch, weights, torch.tensor(x))
    np.testing.assert_allclose(y.numpy(), t.detach().numpy(), rtol=0, atol=1e-11)
    (y**2).sum().backward()
    (t**2).sum().backward()
    for name, p in model.named_parameters():
        expected = weights[name].grad.numpy()
        scale = np.abs(expected).max()
        np.testing.assert_allclose(p.grad.numpy(), expected, rtol=0, atol=1e-10 * scale)


def test_dropout_stands_between_the_convolutions():
    """Behind them, it would leave zeros in half of the branch."""
    block = PreActBasicBlock(4, 4, dropout=0.5)
    x = mt.tensor(normal(2, 4, 5, 5).astype(np.float32))
    assert (block(x).numpy() != x.numpy()).mean() > 0.9
    assert not np.allclose(block(x).numpy(), block(x).numpy())
    np.testing.assert_array_equal(block.eval()(x).numpy(), block(x).numpy())


def test_a_depth_that_is_none_is_told():
    with pytest.raises(ValueError, match=r"depth must be 6 n \+ 4.*not 20: take 22"):
        wrn(20)
