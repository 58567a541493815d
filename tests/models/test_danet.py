import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn
from minitorch_attn.attention import DualAttentionHead
from minitorch_attn.attention.dual_attention import DualAttentionOutputs
from minitorch_attn.models import (
    Bottleneck,
    DANet,
    DilatedResNet,
    ResNet,
    auxiliary_cross_entropy,
    danet_resnet50,
    danet_resnet101,
)

from ..nn.parity import normal
from .networks import count, shapes

SMALL = (1, 2, 2, 2)


def head_parameters(C, width, K, queries):
    convolutions = 2 * (9 * C * width + 2 * width + 9 * width**2 + 2 * width)
    position = width**2 + width + 2 * (width * queries + queries) + 1
    return convolutions + position + 1 + 3 * (width * K + K)


@pytest.mark.parametrize(
    ("build", "backbone"), [(danet_resnet50, 23_508_032), (danet_resnet101, 42_500_160)]
)
def test_parameters_are_the_resnets_without_classifier_and_the_heads(unfilled, build, backbone):
    model = build()
    assert count(model.backbone) == backbone
    assert count(model.head) == head_parameters(2048, 512, 19, 64)


def test_state_dict_is_that_of_the_resnet_without_its_classifier(unfilled):
    plain = shapes(ResNet(Bottleneck, SMALL))
    dilated = shapes(DilatedResNet(SMALL))
    assert dilated == {n: shape for n, shape in plain.items() if not n.startswith("fc.")}
    assert list(dilated) == list(plain)[:-2]


def undilated(model, x):
    """Features of a ResNet: (N, 2048, H / 32, W / 32)."""
    x = model.maxpool(mt.functional.relu(model.bn1(model.conv1(x))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x))))


def test_every_fourth_feature_is_that_of_the_resnet_with_strides(quick_random):
    """Padding and all: each kernel sees the same places, so that trained parameters fit."""
    plain = ResNet(Bottleneck, SMALL).eval()
    dilated = DilatedResNet(SMALL).eval()
    state = plain.state_dict()
    dilated.load_state_dict({n: t for n, t in state.items() if not n.startswith("fc.")})
    x = mt.tensor(normal(1, 3, 64, 96).astype(np.float32))
    with mt.no_grad():
        y, z = undilated(plain, x).numpy(), dilated(x).numpy()
    assert y.shape == (1, 2048, 2, 3) and z.shape == (1, 2048, 8, 12)
    assert np.abs(y).max() > 0.1
    np.testing.assert_allclose(z[:, :, ::4, ::4], y, rtol=0, atol=1e-4 * np.abs(y).max())


def test_every_parameter_gets_a_gradient(quick_random):
    model = DANet(DilatedResNet((1, 1, 1, 1)), DualAttentionHead(2048, 3, reduction=32))
    for attention in (model.head.sa, model.head.sc):
        attention.gamma.data = np.array([0.5], np.float32)
    outputs = model(mt.tensor(normal(2, 3, 32, 32).astype(np.float32)))
    target = np.random.default_rng(0).integers(3, size=(2, 32, 32))
    auxiliary_cross_entropy(outputs, target, weight=1.0).backward()
    for name, p in model.named_parameters():
        largest = np.abs(p.grad.numpy()).max()
        assert np.isfinite(largest), name
        assert largest > 0 or name.endswith("bias"), name


def tiny(**head):
    return DANet(
        nn.Conv2d(3, 16, 3, stride=4),
        DualAttentionHead(16, 5, reduction=2, **head),
    )


def test_scores_have_the_size_of_the_image():
    x = mt.tensor(normal(2, 3, 17, 26).astype(np.float32))
    outputs = tiny().train()(x)
    assert isinstance(outputs, DualAttentionOutputs)
    assert [scores.shape for scores in outputs] == [(2, 5, 17, 26)] * 3
    assert tiny().eval()(x).shape == (2, 5, 17, 26)
    assert tiny(branches="channel").train()(x).shape == (2, 5, 17, 26)


def test_enlarging_puts_corners_on_corners():
    """From 4 x 3 to 16 x 13 scores: every fifth row and every sixth column is as it was."""
    model = tiny().eval()
    x = mt.tensor(normal(1, 3, 16, 13).astype(np.float32))
    small, large = model.head(model.backbone(x)).numpy(), model(x).numpy()
    assert small.shape == (1, 5, 4, 3) and large.shape == (1, 5, 16, 13)
    np.testing.assert_allclose(large[..., ::5, ::6], small, atol=1e-6)


def test_the_papers_loss_is_the_sum_of_the_three():
    model = tiny().train()
    outputs = model(mt.tensor(normal(2, 3, 9, 9).astype(np.float32)))
    target = np.random.default_rng(0).integers(5, size=(2, 9, 9))
    loss = auxiliary_cross_entropy(outputs, target, weight=1.0).item()
    parts = [mt.functional.cross_entropy(scores, target).item() for scores in outputs]
    assert loss == pytest.approx(sum(parts), rel=1e-5)


def test_settings_of_the_head_are_passed_on(unfilled):
    model = danet_resnet50(num_classes=4, in_channels=1, branches="position", reduction=8)
    assert model.head.branches == "position" and model.head.conv8[1].out_channels == 4
    assert model.backbone.conv1.in_channels == 1 and model.head.sa.channels == 256
