import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import optim
from minitorch_attn.attention import SqueezeExcitation
from minitorch_attn.models import (
    Bottleneck,
    SENet,
    SENetBlock,
    googlenet,
    resnet50,
    se_googlenet,
    se_resnet50,
    se_resnet101,
    se_resnet152,
    se_resnext50_32x4d,
    se_resnext101_32x4d,
    senet154,
)
from minitorch_attn.models.googlenet import Inception, auxiliary_cross_entropy
from minitorch_attn.models.senet import squeeze_excitation, wide_projection

from ..nn.parity import compare_modules, normal
from .networks import Nothing, check_training, count, shapes
from .test_googlenet import torch_inception

# Parameters with biases, as released; those of attention; and without biases, as in ablations.
COUNTS = [
    (se_resnet50, 28_088_024, 2_530_992, 28_071_976),
    (se_resnet101, 49_326_872, 4_777_712, 49_292_328),
    (se_resnet152, 66_821_848, 6_629_040, 66_770_984),
    (se_resnext50_32x4d, 27_559_896, 2_530_992, 27_543_848),
    (se_resnext101_32x4d, 48_955_416, 4_777_712, 48_920_872),
    (se_googlenet, 7_105_007, 480_103, 7_099_176),
    (senet154, 115_088_984, 6_629_040, 115_038_120),
]


@pytest.mark.parametrize(("build", "released", "share", "without_bias"), COUNTS)
def test_parameters_are_as_many_as_published(unfilled, build, released, share, without_bias):
    model = build()
    assert count(model) == released
    assert sum(count(m) for m in model.modules() if isinstance(m, SqueezeExcitation)) == share
    assert count(build(bias=False)) == without_bias


@pytest.mark.parametrize(
    ("reduction", "extra"),
    [(2, 20_119_552), (4, 10_059_776), (8, 5_029_888), (16, 2_514_944), (32, 1_257_472)],
)
def test_the_reduction_says_what_attention_costs(unfilled, reduction, extra):
    model = se_resnet50(reduction=reduction, bias=False)
    assert count(model) - count(resnet50()) == extra


def test_multiply_adds(unfilled):
    """SE adds a thousandth to ResNet-50; SENet-154 has the 20.7 G of its publications."""
    plain = mt.summary(resnet50(), (3, 224, 224)).multiply_adds
    weighed = mt.summary(se_resnet50(), (3, 224, 224)).multiply_adds
    assert 0.0005 * plain < weighed - plain < 0.001 * plain
    assert mt.summary(senet154(), (3, 224, 224)).multiply_adds == 20_688_363_520


@pytest.mark.parametrize(
    ("build", "blocks"),
    [
        (se_resnet50, (3, 4, 6, 3)),
        (se_resnet101, (3, 4, 23, 3)),
        (se_resnet152, (3, 8, 36, 3)),
        (se_resnext50_32x4d, (3, 4, 6, 3)),
        (se_resnext101_32x4d, (3, 4, 23, 3)),
        (senet154, (3, 8, 36, 3)),
    ],
)
def test_every_block_has_its_own(unfilled, build, blocks):
    model = build()
    gates = [m for m in model.modules() if isinstance(m, SqueezeExcitation)]
    expected = [C for C, n in zip((256, 512, 1024, 2048), blocks) for _ in range(n)]
    assert [m.channels for m in gates] == expected
    assert [m.fc1.weight.shape[0] for m in gates] == [C // 16 for C in expected]
    assert all(m.fc1.bias is not None and m.fc2.bias is not None for m in gates)


def test_the_3x3_convolutions_of_se_resnext_have_32_groups_of_4(unfilled):
    for build in (se_resnext50_32x4d, se_resnext101_32x4d):
        state = shapes(build())
        assert state["layer1.0.conv2.weight"] == (128, 4, 3, 3)
        assert state["layer4.2.conv2.weight"] == (1024, 32, 3, 3)


# ---------------------------------------------------------------- the same numbers as PyTorch


def torch_squeeze(torch, channels, hidden):
    """Squeeze and excitation as in the released models: with biases."""
    tnn = torch.nn

    class Squeeze(tnn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = tnn.Linear(channels, hidden), tnn.Linear(hidden, channels)

        def forward(self, x):
            s = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean(dim=(2, 3))))))
            return x * s[:, :, None, None]

    return Squeeze()


def torch_block(torch, before, first, grouped, groups, outer, stride, shortcut, reduction):
    """A bottleneck of the released models: 1x1 to `first`, grouped 3x3 to `grouped`, 1x1."""
    tnn = torch.nn

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = tnn.Conv2d(before, first, 1, bias=False)
            self.bn1 = tnn.BatchNorm2d(first)
            self.conv2 = tnn.Conv2d(first, grouped, 3, stride, 1, groups=groups, bias=False)
            self.bn2 = tnn.BatchNorm2d(grouped)
            self.conv3 = tnn.Conv2d(grouped, outer, 1, bias=False)
            self.bn3 = tnn.BatchNorm2d(outer)
            self.downsample = tnn.Identity()
            if shortcut is not None:
                self.downsample = tnn.Sequential(
                    tnn.Conv2d(before, outer, shortcut, stride, shortcut // 2, bias=False),
                    tnn.BatchNorm2d(outer),
                )
            self.attention = torch_squeeze(torch, outer, outer // reduction)

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = torch.relu(self.bn2(self.conv2(y)))
            y = self.bn3(self.conv3(y))
            return torch.relu(self.attention(y) + self.downsample(x))

    return Block()


@pytest.mark.parametrize(
    ("before", "width", "stride", "shortcut"),
    [(16, 4, 1, None), (8, 4, 1, 1), (16, 4, 2, 3), (8, 4, 2, 3)],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_block_of_senet154_computes_what_pytorch_does(before, width, stride, shortcut, training):
    torch = pytest.importorskip("torch")
    ours = SENetBlock(
        *(before, width, stride),
        attention=squeeze_excitation(4, bias=True),
        groups=2,
        width_per_group=32,
    )
    theirs = torch_block(torch, before, 2, 4, 2, 16, stride, shortcut, 4)
    x = normal(3, before, 5, 6)
    compare_modules(ours, theirs, x, training=training, dtypes=("float64",))


@pytest.mark.parametrize(("before", "stride", "shortcut"), [(32, 1, None), (16, 1, 1), (16, 2, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_of_se_resnext_computes_what_pytorch_does(before, stride, shortcut, training):
    torch = pytest.importorskip("torch")
    ours = Bottleneck(
        *(before, 8, stride),
        attention=squeeze_excitation(4, bias=True),
        groups=4,
        width_per_group=16,
    )
    theirs = torch_block(torch, before, 8, 8, 4, 32, stride, shortcut, 4)
    x = normal(3, before, 5, 6)
    compare_modules(ours, theirs, x, training=training, dtypes=("float64",))


def test_the_stem_computes_what_pytorch_does(unfilled):
    torch = pytest.importorskip("torch")
    tnn = torch.nn

    class ConvBN(tnn.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.conv = tnn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.bn = tnn.BatchNorm2d(after)

        def forward(self, x):
            return torch.relu(self.bn(self.conv(x)))

    pool = tnn.MaxPool2d(3, stride=2, ceil_mode=True)
    theirs = tnn.Sequential(ConvBN(2, 64, 2), ConvBN(64, 64, 1), ConvBN(64, 128, 1), pool)
    stem = small_senet(in_channels=2).stem
    compare_modules(stem, theirs, normal(2, 2, 17, 20), dtypes=("float64",))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_an_se_inception_module_computes_what_pytorch_does(batch_norm, training):
    torch = pytest.importorskip("torch")
    widths = (3, 4, 5, 2, 3, 1)

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            plain = torch_inception(torch, batch_norm, 4, widths)
            for name, branch in plain.named_children():
                self.add_module(name, branch)
            self.attention = torch_squeeze(torch, 12, 3)

        def forward(self, x):
            branches = (self.branch1, self.branch2, self.branch3, self.branch4)
            return self.attention(torch.cat([branch(x) for branch in branches], dim=1))

    ours = Inception(4, widths, batch_norm, squeeze_excitation(4, bias=True))
    compare_modules(ours, Module(), normal(2, 4, 5, 6), training=training)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_passes_the_gradient_check(stride):
    mt.manual_seed(0)
    block = SENetBlock(
        *(4, 2, stride),
        attention=squeeze_excitation(4, bias=True),
        groups=2,
        width_per_group=64,
    ).double()
    report = mt.gradcheck(block, normal(2, 4, 3, 3))
    assert len(report.inputs) == 1 + len(list(block.parameters()))


# ---------------------------------------------------------------- SENet-154


def small_senet(**options):
    return SENet((1, 1, 1, 1), 7, **{"in_channels": 1, **options})


def test_it_is_a_resnext_152_with_half_the_channels_in_front(unfilled):
    state = shapes(senet154())
    assert state["stem.0.conv.weight"] == (64, 3, 3, 3)
    assert state["stem.2.conv.weight"] == (128, 64, 3, 3)
    for number, width in enumerate((64, 128, 256, 512), start=1):
        block = f"layer{number}.1"
        assert state[f"{block}.conv1.weight"] == (2 * width, 4 * width, 1, 1)
        assert state[f"{block}.conv2.weight"] == (4 * width, 2 * width // 64, 3, 3)
        assert state[f"{block}.conv3.weight"] == (4 * width, 4 * width, 1, 1)
    assert state["layer1.0.downsample.0.weight"] == (256, 128, 1, 1)
    assert state["layer2.0.downsample.0.weight"] == (512, 256, 3, 3)
    assert state["layer4.0.downsample.0.weight"] == (2048, 1024, 3, 3)


def test_its_stages_halve_an_image_of_224_to_7(unfilled):
    lines = str(mt.summary(small_senet(in_channels=3), (3, 224, 224), depth=1)).splitlines()
    found = [line.split("(1, ")[1].split(")")[0] for line in lines if "(layer" in line]
    assert found == ["256, 56, 56", "512, 28, 28", "1024, 14, 14", "2048, 7, 7"]


def test_every_parameter_gets_a_gradient(quick_random):
    model = small_senet(attention=squeeze_excitation(16, bias=True))
    check_training(model, 1, 64, 64, num_classes=7)


def test_dropout_stands_in_front_of_the_classifier(quick_random):
    model, seen = small_senet(dropout=1.0), []
    x = mt.tensor(normal(2, 1, 32, 32).astype("float32"))
    model.fc.register_forward_hook(lambda m, inputs, y: seen.append(inputs[0].numpy()))
    with mt.no_grad():
        model.train()(x)
        model.eval()(x)
    assert not seen[0].any() and seen[1].any()
    assert small_senet().dropout.p == 0.2


def test_attention_weighs_the_branch_before_the_addition():
    block = SENetBlock(16, 4, attention=Nothing, groups=2, width_per_group=32)
    x = mt.tensor(normal(2, 16, 6, 6).astype("float32"))
    np.testing.assert_array_equal(block(x).numpy(), F.relu(x).numpy())


def test_a_hook_sees_the_weights_of_a_block(quick_random):
    model, seen = small_senet(attention=squeeze_excitation(16, bias=True)).eval(), []
    gate = model.get_submodule("layer2.0.attention.gate")
    with mt.no_grad(), gate.register_forward_hook(lambda m, inputs, s: seen.append(s)):
        model(mt.ones(3, 1, 32, 32))
    assert seen[0].shape == (3, 512)


@pytest.mark.parametrize(("stride", "size"), [(1, 1), (2, 3)])
def test_only_a_shortcut_that_halves_the_image_looks_around(stride, size):
    conv, _ = wide_projection(4, 8, stride)
    assert conv.weight.shape == (8, 4, size, size)
    assert wide_projection(4, 8, stride)(mt.ones(2, 4, 6, 5)).shape == (
        *(2, 8),
        *(-(-n // stride) for n in (6, 5)),
    )


def test_a_block_learns_a_batch_by_heart():
    mt.manual_seed(0)
    block = SENetBlock(
        *(16, 4),
        attention=squeeze_excitation(4, bias=True),
        groups=2,
        width_per_group=32,
    )
    x = mt.tensor(normal(10, 16, 4, 4).astype("float32"))
    optimizer = optim.Adam(block.parameters(), lr=0.03)
    for _ in range(60):
        loss = F.cross_entropy(block(x).mean((2, 3)), np.arange(10))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5


# ---------------------------------------------------------------- SE-Inception


def test_what_comes_out_of_each_inception_module_is_weighed(unfilled):
    model = se_googlenet()
    gates = {
        name: module.attention.channels
        for name, module in model.named_children()
        if isinstance(module, Inception)
    }
    assert list(gates) == [f"inception{n}" for n in "3a 3b 4a 4b 4c 4d 4e 5a 5b".split()]
    assert list(gates.values()) == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


def test_without_attention_no_name_of_googlenet_changes(unfilled):
    plain, weighed = shapes(googlenet(batch_norm=True)), shapes(se_googlenet())
    assert [name for name in weighed if ".attention." not in name] == list(plain)
    assert count(se_googlenet(batch_norm=False, bias=False)) == 6_998_552 + 474_272


@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_parameter_of_se_inception_gets_a_gradient(quick_random, batch_norm):
    model = se_googlenet(7, in_channels=1, batch_norm=batch_norm)
    check_training(model, 1, 32, 32, num_classes=7)


def test_the_auxiliary_classifiers_read_what_is_weighed(quick_random):
    model, read, made = se_googlenet(7, in_channels=1, aux_logits=True), {}, {}
    model.aux1.register_forward_hook(lambda m, inputs, y: read.update(first=inputs[0]))
    model.aux2.register_forward_hook(lambda m, inputs, y: read.update(second=inputs[0]))
    weighed = {"first": model.inception4a.attention, "second": model.inception4d.attention}
    for name, module in weighed.items():
        module.register_forward_hook(lambda m, inputs, y, name=name: made.update({name: y}))
    check_training(model, 1, 64, 64, num_classes=7, loss=auxiliary_cross_entropy)
    assert read["first"] is made["first"] and read["second"] is made["second"]


# ---------------------------------------------------------------- errors


def test_settings_that_do_not_fit_are_refused(unfilled):
    with pytest.raises(ValueError, match=r"SENet: blocks=\(3, 8, 36\) has 3 values for 4 stages"):
        SENet((3, 8, 36))
    with pytest.raises(ValueError, match="a stage needs a block at least, not 0"):
        SENet((1, 0, 1, 1))
    for build in (se_resnet50, se_googlenet, senet154):
        with pytest.raises(ValueError, match="reduction=512 leaves no unit in the bottleneck"):
            build(reduction=512)
    with pytest.raises(TypeError, match="attention must make a module for each block"):
        googlenet(attention=SqueezeExcitation(256))
