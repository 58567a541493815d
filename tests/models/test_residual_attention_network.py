import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn
from minitorch_attn.models import (
    attention56,
    attention92,
    cifar_attention,
    residual_attention_network,
)
from minitorch_attn.models.residual_attention_network import (
    UNITS,
    InceptionUnit,
    ResidualAttentionNetwork,
    preactivation_unit,
)
from minitorch_attn.nn.summary import summary

from ..nn.parity import compare_modules, normal
from .networks import check_training, count
from .reference import torch_conv_bn


def tiny(unit=preactivation_unit, **settings):
    """Three stages with one module each, on 16 to 32 channels."""
    return ResidualAttentionNetwork(
        unit,
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        8,
        widths=(16, 16, 32),
        modules=(1, 1, 1),
        last_width=32,
        last_stride=1,
        num_classes=10,
        halvings=(2, 1, 1),
        **settings,
    )


@pytest.mark.parametrize(
    ("build", "parameters"), [(attention56, 31_810_728), (attention92, 52_466_344)]
)
def test_parameters_are_as_many_as_in_the_published_network_descriptions(
    unfilled, build, parameters
):
    assert count(build()) == parameters


def test_attentionnext_has_three_norms_more_than_the_published_description(unfilled):
    # there the masks begin with a 1x1 convolution, without a norm and a ReLU in front of it
    norms = 2 * (256 + 512 + 1024)
    assert count(attention56(unit="resnext")) == 31_318_824 + norms


@pytest.mark.parametrize(
    ("depth", "parameters"), [(56, 1_148_826), (92, 1_959_706), (236, 5_203_226)]
)
def test_the_networks_for_cifar_have_the_papers_millions(unfilled, depth, parameters):
    assert count(cifar_attention(depth)) == parameters
    papers = {92: 1.9, 236: 5.1}
    if depth in papers:
        assert parameters / 1e6 == pytest.approx(papers[depth], abs=0.11)


def formula(C, halvings, p=1, t=2, r=1):
    """Parameters of a module of pre-activation bottlenecks, counted by hand."""
    b = C // 4
    unit = 2 * C * b + 9 * b * b + 2 * C + 4 * b
    units = 2 * p + t + 2 * r + (halvings - 1) * (2 * r + 1)
    return units * unit + 2 * C * C + 4 * C


def test_the_modules_of_attention56_have_as_many_parameters_as_the_formula(unfilled):
    stages = attention56().stages
    assert [count(stage[1]) for stage in stages] == [
        formula(C, d) for C, d in ((256, 3), (512, 2), (1024, 1))
    ]


def test_attention92_has_one_two_and_three_modules(unfilled):
    assert [len(stage) - 1 for stage in attention92().stages] == [1, 2, 3]


def test_attention56_for_imagenet_costs_the_papers_multiply_adds(quick_random):
    cost = summary(attention56(), (3, 224, 224), depth=1)
    assert cost.multiply_adds / 1e9 == pytest.approx(6.27, abs=0.005)


def test_the_smallest_maps_of_all_masks_are_seven_by_seven(unfilled):
    # at 224 pixels the stages see 56, 28 and 14: as many halvings lead to 7
    model = attention56()
    assert [56 >> model.stages[0][1].halvings, 28 >> model.stages[1][1].halvings] == [7, 7]
    assert 14 >> model.stages[2][1].halvings == 7


@pytest.mark.parametrize("unit", list(UNITS))
def test_every_parameter_gets_a_gradient_with_every_unit(unit):
    mt.manual_seed(0)
    check_training(cifar_attention(56, 7, 1, unit=unit), 1, 16, 16, num_classes=7)


@pytest.mark.parametrize("activation", ["mixed", "channel", "spatial"])
@pytest.mark.parametrize("learning", ["residual", "naive"])
def test_settings_reach_the_modules_and_the_network_trains(activation, learning):
    mt.manual_seed(0)
    model = tiny(activation=activation, learning=learning)
    assert all(stage[1].learning == learning for stage in model.stages)
    check_training(model, 1, 8, 8, num_classes=10)


def test_only_preactivation_units_need_a_norm_at_the_end(unfilled):
    assert count(attention56(unit="preactivation").norm) == 2 * 2048
    assert count(attention56(unit="resnext").norm) == 0


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 16, 2)])
def test_the_inception_unit_computes_what_pytorch_does(shape):
    torch = pytest.importorskip("torch")
    before, after, stride = shape
    width = after // 8

    class Unit(torch.nn.Module):
        def __init__(self):
            super().__init__()
            tnn = torch.nn
            self.path1 = torch_conv_bn(torch, before, width, 1, stride)
            self.path3 = tnn.Sequential(
                torch_conv_bn(torch, before, width, 1),
                torch_conv_bn(torch, width, width, 3, stride, 1),
            )
            self.path5 = tnn.Sequential(
                torch_conv_bn(torch, before, width, 1),
                torch_conv_bn(torch, width, width, 3, 1, 1),
                torch_conv_bn(torch, width, width, 3, stride, 1),
            )
            self.merge = torch_conv_bn(torch, 3 * width, after, 1, relu=False)
            if stride != 1 or before != after:
                self.downsample = tnn.Sequential(
                    tnn.Conv2d(before, after, 1, stride, bias=False), tnn.BatchNorm2d(after)
                )

        def forward(self, x):
            paths = torch.cat([self.path1(x), self.path3(x), self.path5(x)], dim=1)
            shortcut = self.downsample(x) if hasattr(self, "downsample") else x
            return torch.relu(self.merge(paths) + shortcut)

    compare_modules(InceptionUnit(*shape), Unit(), normal(3, before, 6, 5), dtypes=("float64",))


def test_a_hook_sees_the_mask_of_each_stage():
    model, sizes = tiny().eval(), []
    for stage in model.stages:
        stage[1].mask.register_forward_hook(lambda m, i, M: sizes.append(M.shape))
    model(mt.ones(2, 1, 8, 8))
    assert sizes == [(2, 16, 8, 8), (2, 16, 4, 4), (2, 32, 2, 2)]


@pytest.mark.parametrize(
    ("unit", "channels", "step"),
    [("preactivation", 2, 4), ("residual", 6, 4), ("resnext", 32, 64), ("inception", 12, 8)],
)
def test_a_unit_that_cannot_divide_its_channels_is_refused(unit, channels, step):
    with pytest.raises(ValueError, match=f"{unit}.* a multiple of {step} channels.*not {channels}"):
        UNITS[unit](channels, channels, 1)


def test_what_it_cannot_build_is_refused():
    with pytest.raises(ValueError, match="unit must be one of preactivation, residual"):
        attention56(unit="vgg")
    with pytest.raises(ValueError, match=r"depth must be 36 n \+ 20"):
        cifar_attention(100)
    with pytest.raises(ValueError, match="modules"):
        residual_attention_network((1, 1))
    assert np.isfinite(tiny().eval()(mt.ones(1, 1, 8, 8)).numpy()).all()
