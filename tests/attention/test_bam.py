import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import BAM

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 6)
PAPER = {"combine": "sum", "norm": "end"}
PROGRAM = {"combine": "product", "norm": "hidden"}


def count(module):
    return sum(p.numel() for p in module.parameters())


def torch_module(torch, C, hidden, dilation, combine="sum", norm="end", branches="both"):
    """Section 3 of the paper, and what the authors' program does instead, with PyTorch."""
    tnn = torch.nn
    wide = {"padding": dilation, "dilation": dilation}

    class Module(tnn.Module):
        def __init__(self):
            super().__init__()
            mean = tnn.AdaptiveAvgPool2d(1)
            fc1, fc2 = tnn.Conv2d(C, hidden, 1), tnn.Conv2d(hidden, C, 1)
            f0, f3 = tnn.Conv2d(C, hidden, 1), tnn.Conv2d(hidden, 1, 1)
            f1, f2 = (tnn.Conv2d(hidden, hidden, 3, **wide) for _ in range(2))
            relu, bn = tnn.ReLU(), tnn.BatchNorm2d
            if norm == "end":
                channel = mean, fc1, relu, fc2, bn(C)
                spatial = f0, relu, f1, relu, f2, relu, f3, bn(1)
            else:
                channel = mean, fc1, bn(hidden), relu, fc2
                first = f0, bn(hidden), relu, f1, bn(hidden), relu
                spatial = *first, f2, bn(hidden), relu, f3
            if branches != "spatial":
                self.channel = tnn.Sequential(*channel)
            if branches != "channel":
                self.spatial = tnn.Sequential(*spatial)

        def forward(self, x):
            if branches != "both":
                m = getattr(self, branches)(x)
            else:
                c, s = self.channel(x).expand_as(x), self.spatial(x).expand_as(x)
                m = {"sum": c + s, "product": c * s, "max": torch.max(c, s)}[combine]
            return x + torch.sigmoid(m) * x

    return Module()


@pytest.mark.parametrize("norm", ["end", "hidden"])
@pytest.mark.parametrize("combine", ["sum", "product", "max"])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_all_gradients_are_those_of_the_equations(combine, norm, training):
    torch = pytest.importorskip("torch")
    ours = BAM(8, reduction=2, dilation=2, combine=combine, norm=norm)
    theirs = torch_module(torch, 8, 4, 2, combine, norm)
    compare_modules(ours, theirs, IMAGES, training=training, dtypes=("float64",))


@pytest.mark.parametrize("settings", [PAPER, PROGRAM])
def test_both_published_forms_agree_in_evaluation_in_float32_too(settings):
    torch = pytest.importorskip("torch")
    ours = BAM(8, reduction=4, dilation=4, **settings)
    compare_modules(ours, torch_module(torch, 8, 2, 4, **settings), IMAGES, training=False)


@pytest.mark.parametrize("branches", ["channel", "spatial"])
def test_one_branch_alone_is_the_equation_without_the_other(branches):
    torch = pytest.importorskip("torch")
    ours = BAM(8, reduction=2, dilation=1, branches=branches)
    theirs = torch_module(torch, 8, 4, 1, branches=branches)
    compare_modules(ours, theirs, IMAGES, dtypes=("float64",))


@pytest.mark.parametrize("settings", [PAPER, PROGRAM, {**PAPER, "combine": "max"}])
def test_the_gradient_check_passes(settings):
    mt.manual_seed(0)
    module = BAM(4, reduction=2, dilation=1, **settings).double()
    report = mt.gradcheck(module, normal(3, 4, 3, 4))
    assert report.ok
    assert len(report.inputs) == 1 + len(list(module.parameters()))


@pytest.mark.parametrize(
    ("settings", "expected"), [(PROGRAM, 17_361), (PAPER, 17_361 + 2 * (256 + 1) - 2 * 4 * 16)]
)
def test_a_module_on_256_channels_has_as_many_parameters_as_the_authors(settings, expected):
    assert count(BAM(256, **settings)) == expected


def test_three_of_them_add_the_papers_third_of_a_million_to_a_resnet50():
    added = sum(count(BAM(channels, **PROGRAM)) for channels in (256, 512, 1024))
    assert (25_557_032 + added) / 1e6 == pytest.approx(25.92, abs=0.005)


@pytest.mark.parametrize("settings", [PAPER, PROGRAM])
def test_hooks_see_both_branches_and_the_map_that_weighs(settings):
    mt.manual_seed(0)
    module, seen = BAM(8, reduction=2, dilation=2, **settings).double(), {}
    for name in "channel", "spatial", "gate":
        part = getattr(module, name)
        part.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out.numpy()}))
    y = module(mt.tensor(IMAGES)).numpy()
    c, s, M = seen["channel"], seen["spatial"], seen["gate"]
    assert (c.shape, s.shape, M.shape) == ((3, 8, 1, 1), (3, 1, 5, 6), (3, 8, 5, 6))
    m = c + s if settings is PAPER else c * s
    np.testing.assert_allclose(M, 1 / (1 + np.exp(-m)), rtol=1e-12)
    np.testing.assert_allclose(y, (1 + M) * IMAGES, rtol=1e-12)


def test_nothing_is_ever_weakened_and_nothing_more_than_doubled():
    ratio = BAM(8, reduction=2, dilation=1)(mt.tensor(IMAGES)).numpy() / IMAGES
    assert 1 < ratio.min() < ratio.max() < 2


def spread(module, size, dilation):
    """Rows of the input that the middle of the spatial map depends on."""
    x = mt.tensor(normal(1, 8, size, size), requires_grad=True)
    s = module.spatial(x)
    dy = np.zeros(s.shape)
    dy[0, 0, size // 2, size // 2] = 1
    s.backward(dy)
    reached = np.abs(x.grad.numpy()).sum(axis=(0, 1, 3))
    return np.flatnonzero(reached > 1e-9 * reached.max())


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_a_position_of_the_spatial_branch_sees_one_plus_four_dilations(dilation):
    mt.manual_seed(0)
    module = BAM(8, reduction=1, dilation=dilation).double().eval()
    rows = spread(module, 21, dilation)
    assert rows[0] == 10 - 2 * dilation and rows[-1] == 10 + 2 * dilation
    assert len(rows) == 5  # the taps of two dilated kernels, with gaps between them


def silence(module):
    """Set the last layers of both branches to zero."""
    for branch in module.channel, module.spatial:
        last = [part for part in branch.modules() if isinstance(part, mt.nn.Conv2d)][-1]
        mt.nn.init.zeros_(last.weight)
        mt.nn.init.zeros_(last.bias)


@pytest.mark.parametrize(("combine", "dead"), [("sum", False), ("product", True)])
def test_a_product_of_two_silent_branches_learns_nothing(combine, dead):
    mt.manual_seed(0)
    module = BAM(8, reduction=2, dilation=1, combine=combine, norm="hidden").double()
    silence(module)
    module(mt.tensor(IMAGES)).backward(normal(*IMAGES.shape, seed=1))
    assert all(np.abs(p.grad.numpy()).max() == 0 for p in module.parameters()) == dead


@pytest.mark.parametrize("shape", [(1, 4, 7, 3), (2, 4, 1, 1), (2, 4, 2, 9)])
def test_the_shape_stays_whatever_it_is(shape):
    module = BAM(4, reduction=2).eval()
    assert module(mt.ones(*shape)).shape == shape


@pytest.mark.parametrize("shape", [(2, 6, 3, 3), (8, 3, 3), (2, 8)])
def test_an_input_of_another_shape_is_refused_by_name(shape):
    with pytest.raises(mt.ShapeError, match=r"BAM: needs an input \(N, C, H, W\) with C = 8"):
        BAM(8, 2)(mt.ones(*shape))


def test_a_bottleneck_without_channels_is_refused():
    with pytest.raises(ValueError) as caught:
        BAM(8)
    assert str(caught.value) == (
        "BAM: reduction=16 leaves no unit in the bottleneck of 8 channels: take a reduction of "
        "at most 8"
    )
    with pytest.raises(ValueError, match="reduction must be at least 1, not 0"):
        BAM(8, reduction=0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"combine": "add"}, "combine must be one of sum, product, max, not 'add'"),
        ({"norm": "all"}, "norm must be one of end, hidden, not 'all'"),
        ({"branches": "none"}, "branches must be one of both, channel, spatial, not 'none'"),
        ({"dilation": 0}, "dilation must be an integer of at least 1, not 0"),
        ({"dilation": 1.5}, "BAM: dilation must be an integer of at least 1, not 1.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(setting, message):
    with pytest.raises(ValueError, match=message):
        BAM(8, reduction=2, **setting)


@pytest.mark.parametrize("norm", ["end", "hidden"])
def test_training_on_a_single_image_is_refused_by_the_channel_branch(norm):
    module = BAM(8, reduction=2, dilation=1, norm=norm)
    with pytest.raises(ValueError, match=r"take a larger batch.*BAM\.channel"):
        module(mt.ones(1, 8, 4, 4))
    alone = BAM(8, reduction=2, dilation=1, norm=norm, branches="spatial")
    assert alone(mt.ones(1, 8, 4, 4)).shape == (1, 8, 4, 4)


def test_it_prints_its_parts():
    lines = repr(BAM(8, reduction=2, dilation=1)).splitlines()
    assert lines[0].startswith("BAM(8, reduction=2, dilation=1, combine='sum', norm='end')")
    assert [line.split(":")[0].strip() for line in lines if line[2:3] == "("] == [
        "(channel)",
        "(spatial)",
        "(gate)",
    ]
    assert "branches='channel'" in repr(BAM(8, 2, branches="channel"))
