import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.attention import ResidualAttentionModule
from minitorch_attn.attention.residual_attention import Hourglass

from ..nn.parity import compare_modules, normal

IMAGES = normal(2, 4, 7, 6)


def count(module):
    return sum(p.numel() for p in module.parameters())


class Unit(nn.Module):
    """A small residual unit: x + conv(relu(bn(x)))."""

    def __init__(self, channels, kernel=3):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)

    def forward(self, x):
        return x + self.conv(F.relu(self.bn(x)))


class Same(nn.Module):
    """A unit that changes nothing."""

    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return x


def torch_module(torch, C, d, p=1, t=2, r=1, activation="mixed", learning="residual"):
    """The module level by level, without recursion, with PyTorch."""
    tnn, tF = torch.nn, torch.nn.functional

    class TorchUnit(tnn.Module):
        def __init__(self):
            super().__init__()
            self.bn = tnn.BatchNorm2d(C)
            self.conv = tnn.Conv2d(C, C, 3, 1, 1, bias=False)

        def forward(self, x):
            return x + self.conv(torch.relu(self.bn(x)))

    def units(n):
        return tnn.Sequential(*(TorchUnit() for _ in range(n)))

    class Levels(tnn.Module):
        def __init__(self, d):
            super().__init__()
            self.down = units(r)
            if d > 1:
                self.skip = TorchUnit()
                self.inner = Levels(d - 1)
            self.up = units(r)

    class Mask(tnn.Module):
        def __init__(self):
            super().__init__()
            self.hourglass = Levels(d)
            self.bn1, self.conv1 = tnn.BatchNorm2d(C), tnn.Conv2d(C, C, 1, bias=False)
            self.bn2, self.conv2 = tnn.BatchNorm2d(C), tnn.Conv2d(C, C, 1, bias=False)

        def forward(self, x):
            levels = [self.hourglass]
            for _ in range(d - 1):
                levels.append(levels[-1].inner)
            sizes, skips, y = [], [], x
            for level in levels:
                sizes.append(y.shape[2:])
                y = level.down(tF.max_pool2d(y, 3, 2, 1))
                skips.append(y)
            for k in reversed(range(d)):
                if k < d - 1:
                    y = y + levels[k].skip(skips[k])
                y = levels[k].up(y)
                y = tF.interpolate(y, sizes[k], mode="bilinear", align_corners=True)
            y = self.conv1(torch.relu(self.bn1(y)))
            y = self.conv2(torch.relu(self.bn2(y)))
            if activation == "channel":
                return y * torch.rsqrt(y.pow(2).sum(1, keepdim=True) + 1e-5)
            if activation == "spatial":
                mean = y.mean((2, 3), keepdim=True)
                variance = ((y - mean) ** 2).mean((2, 3), keepdim=True)
                y = (y - mean) / torch.sqrt(variance + 1e-5)
            return torch.sigmoid(y)

    class Module(tnn.Module):
        def __init__(self):
            super().__init__()
            self.pre, self.trunk = units(p), units(t)
            self.mask = Mask()
            self.post = units(p)

        def forward(self, x):
            x = self.pre(x)
            M, T = self.mask(x), self.trunk(x)
            return self.post(M * T + T if learning == "residual" else M * T)

    return Module()


@pytest.mark.parametrize("activation", ["mixed", "channel", "spatial"])
@pytest.mark.parametrize("learning", ["residual", "naive"])
@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_outputs_and_all_gradients_are_those_of_the_papers_figure(halvings, learning, activation):
    torch = pytest.importorskip("torch")
    ours = ResidualAttentionModule(4, Unit, halvings, activation=activation, learning=learning)
    theirs = torch_module(torch, 4, halvings, activation=activation, learning=learning)
    compare_modules(ours, theirs, IMAGES, dtypes=("float64",))


@pytest.mark.parametrize("training", [True, False])
def test_other_numbers_of_units_agree_too_and_in_evaluation(training):
    torch = pytest.importorskip("torch")
    ours = ResidualAttentionModule(4, Unit, 2, pre=2, trunk=1, between=2)
    theirs = torch_module(torch, 4, 2, p=2, t=1, r=2)
    compare_modules(ours, theirs, IMAGES, training=training, dtypes=("float64",))


@pytest.mark.parametrize("activation", ["mixed", "channel", "spatial"])
@pytest.mark.parametrize("learning", ["residual", "naive"])
def test_the_gradient_check_passes(activation, learning):
    mt.manual_seed(0)
    module = ResidualAttentionModule(
        2, lambda C: Unit(C, kernel=1), 2, trunk=1, activation=activation, learning=learning
    ).double()
    report = mt.gradcheck(module, normal(2, 2, 4, 3))
    assert report.ok
    assert len(report.inputs) == 1 + len(list(module.parameters()))


@pytest.mark.parametrize(("halvings", "units"), [(1, 2), (2, 5), (3, 8)])
def test_a_mask_has_two_units_and_three_more_for_each_further_halving(halvings, units):
    one = count(Unit(6))
    assert count(Hourglass(6, Unit, halvings)) == units * one
    mask = units * one + 2 * 6 * 6 + 4 * 6
    assert count(ResidualAttentionModule(6, Unit, halvings)) == 4 * one + mask


@pytest.mark.parametrize("between", [1, 2, 3])
def test_units_between_pools_count_as_in_the_formula(between):
    d, r = 3, between
    expected = 2 * r + (d - 1) * (2 * r + 1)
    assert count(Hourglass(4, Unit, d, r)) == expected * count(Unit(4))


@pytest.mark.parametrize("learning", ["residual", "naive"])
def test_hooks_on_trunk_and_mask_see_what_is_multiplied(learning):
    mt.manual_seed(0)
    module, seen = ResidualAttentionModule(4, Unit, 2, learning=learning).double(), {}
    for name in "trunk", "mask":
        part = getattr(module, name)
        part.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out.numpy()}))
    module.post.register_forward_hook(lambda m, i, out: seen.update(H=i[0].numpy()))
    module(mt.tensor(IMAGES))
    M, T, H = seen["mask"], seen["trunk"], seen["H"]
    assert M.shape == T.shape == IMAGES.shape
    assert (M > 0).all() and (M < 1).all()
    np.testing.assert_allclose(H, (M + (learning == "residual")) * T, rtol=1e-12)


def test_the_channel_mask_has_length_one_at_every_position_and_may_be_negative():
    mt.manual_seed(0)
    module = ResidualAttentionModule(4, Unit, activation="channel").double()
    M = module.mask.gate(mt.tensor(IMAGES)).numpy()
    np.testing.assert_allclose((M**2).sum(axis=1), 1, rtol=1e-3)
    assert M.min() < 0


def test_a_channel_mask_of_nothing_is_nothing_and_its_gradient_bounded():
    gate = ResidualAttentionModule(4, Unit, activation="channel").mask.gate
    x = mt.zeros(1, 4, 2, 2, requires_grad=True)
    M = gate(x)
    M.backward(np.ones(M.shape))
    assert (M.numpy() == 0).all() and np.abs(x.grad.numpy()).max() < 1e3


def test_the_spatial_mask_forgets_the_mean_of_each_map():
    mt.manual_seed(0)
    gate = ResidualAttentionModule(4, Unit, activation="spatial").double().mask.gate
    M = gate(mt.tensor(IMAGES)).numpy()
    np.testing.assert_allclose(gate(mt.tensor(3 * IMAGES + 5)).numpy(), M, rtol=1e-4)
    logits = np.log(M / (1 - M))
    np.testing.assert_allclose(logits.mean(axis=(2, 3)), 0, atol=1e-12)


@pytest.mark.parametrize(("learning", "factor"), [("residual", 1.5), ("naive", 0.5)])
def test_a_chain_with_masks_of_one_half_grows_or_fades_as_a_power(learning, factor):
    chain = nn.Sequential(
        *(ResidualAttentionModule(4, Same, learning=learning) for _ in range(8))
    ).double()
    for module in chain:
        nn.init.zeros_(module.mask.conv2.weight)  # every mask is sigmoid(0) = 1/2
    np.testing.assert_allclose(chain(mt.tensor(IMAGES)).numpy(), factor**8 * IMAGES, rtol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (5, 9), (8, 8)])
def test_every_size_of_image_comes_back_at_its_size(size):
    module = ResidualAttentionModule(4, Unit, 3).eval()
    assert module(mt.ones(2, 4, *size)).shape == (2, 4, *size)


def test_each_part_has_units_of_its_own():
    module = ResidualAttentionModule(4, Unit, 3)
    units = [m for m in module.modules() if isinstance(m, Unit)]
    assert len(units) == 4 + 8 == len(set(map(id, units)))


def test_unknown_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="learning must be one of residual, naive, not 'no'"):
        ResidualAttentionModule(4, Unit, learning="no")
    with pytest.raises(ValueError, match="activation must be one of mixed, channel, spatial, not"):
        ResidualAttentionModule(4, Unit, activation="sigmoid")


@pytest.mark.parametrize("count", [0, 1.5])
@pytest.mark.parametrize("name", ["channels", "halvings", "pre", "trunk", "between"])
def test_a_count_below_one_is_refused_by_name(name, count):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, not {count}"):
        ResidualAttentionModule(**{"channels": 4, "unit": Unit, name: count})


@pytest.mark.parametrize("unit", [Unit(4), None, "residual"])
def test_a_unit_that_makes_nothing_is_refused(unit):
    with pytest.raises(TypeError, match="unit must make a module from its number of channels"):
        ResidualAttentionModule(4, unit)


def test_a_function_that_returns_no_module_is_refused():
    with pytest.raises(TypeError, match=r"unit\(4\) must be a module, and it is a NoneType"):
        ResidualAttentionModule(4, lambda channels: None)


@pytest.mark.parametrize("shape", [(2, 6, 4, 4), (4, 4, 4), (2, 4)])
def test_an_input_of_another_shape_is_refused_by_name(shape):
    with pytest.raises(mt.ShapeError, match=r"an input \(N, C, H, W\) with C = 4 channels"):
        ResidualAttentionModule(4, Unit)(mt.ones(*shape))


def test_a_unit_that_changes_the_shape_is_refused():
    module = ResidualAttentionModule(4, lambda C: nn.Conv2d(C, C, 3))
    with pytest.raises(mt.ShapeError, match="a unit must keep the shape"):
        module(mt.ones(1, 4, 6, 6))


def test_it_prints_what_it_is():
    first = repr(ResidualAttentionModule(4, Unit, 2, learning="naive")).splitlines()[0]
    assert first.startswith("ResidualAttentionModule(4, halvings=2, learning='naive')")
