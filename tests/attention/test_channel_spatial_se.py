import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import optim
from minitorch_attn.attention import ChannelSpatialSE, SpatialSE, SqueezeExcitation
from minitorch_attn.attention.channel_spatial_se import COMBINATIONS
from minitorch_attn.models import cifar_resnet

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def count(module):
    return sum(p.numel() for p in module.parameters())


def paper_spatial(torch, channels, bias=False):
    """sSE as the papers describe it, written out with PyTorch."""

    class Spatial(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(channels, 1, 1, bias=bias)

        def forward(self, x):
            score = torch.einsum("c,nchw->nhw", self.conv.weight.flatten(), x)
            score = score + self.conv.bias if bias else score
            return torch.einsum("nhw,nchw->nchw", torch.sigmoid(score), x)

    return Spatial()


def paper_module(torch, channels, hidden, combine, bias=False):
    """scSE as the papers describe it, written out with PyTorch."""

    class Channel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = torch.nn.Linear(channels, hidden, bias=bias)
            self.fc2 = torch.nn.Linear(hidden, channels, bias=bias)

        def forward(self, x):
            s = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean(dim=(2, 3))))))
            return torch.einsum("nc,nchw->nchw", s, x)

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.channel = Channel()
            self.spatial = paper_spatial(torch, channels, bias)

        def forward(self, x):
            c, p = self.channel(x), self.spatial(x)
            return {"max": torch.max(c, p), "sum": torch.add(c, p), "product": torch.mul(c, p)}[
                combine
            ]

    return Paper()


@pytest.mark.parametrize("bias", [False, True])
def test_spatial_excitation_is_the_papers_equation(bias):
    torch = pytest.importorskip("torch")
    compare_modules(SpatialSE(8, bias), paper_spatial(torch, 8, bias), IMAGES)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("combine", COMBINATIONS)
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(combine, bias):
    torch = pytest.importorskip("torch")
    ours = ChannelSpatialSE(8, reduction=2, combine=combine, bias=bias)
    compare_modules(ours, paper_module(torch, 8, 4, combine, bias), IMAGES)


def test_zeros_as_behind_a_relu_share_the_gradient_of_the_maximum_as_in_pytorch():
    torch = pytest.importorskip("torch")
    ours = ChannelSpatialSE(8, reduction=2)
    compare_modules(ours, paper_module(torch, 8, 4, "max"), np.maximum(IMAGES, 0))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("combine", COMBINATIONS)
def test_the_gradient_check_passes_for_every_setting(combine, bias):
    mt.manual_seed(0)
    module = ChannelSpatialSE(6, reduction=2, combine=combine, bias=bias).double()
    report = mt.gradcheck(module, normal(3, 6, 2, 3))
    assert len(report.inputs) == 1 + len(list(module.parameters())) == (7 if bias else 4)
    assert not any(i.warning for i in report.inputs), str(report)


def weights_of(module, x):
    """What hooks on the two gates see: (N, C, 1, 1) and (N, 1, H, W)."""
    seen = {}
    for name in ("channel", "spatial"):
        module.get_submodule(f"{name}.gate").register_forward_hook(
            lambda m, inputs, y, name=name: seen.update({name: y.numpy()})
        )
    with mt.no_grad():
        y = module(mt.tensor(x)).numpy()
    assert seen["channel"].shape == (3, 8) and seen["spatial"].shape == (3, 1, 5, 4)
    return y, seen["channel"][:, :, None, None], seen["spatial"]


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("max", lambda s, q, x: np.where(x > 0, np.maximum(s, q), np.minimum(s, q)) * x),
        ("sum", lambda s, q, x: (s + q) * x),
        ("product", lambda s, q, x: s * q * x**2),
    ],
)
def test_hooks_see_the_weights_and_the_weighed_features_are_combined(combine, expected):
    mt.manual_seed(0)
    module = ChannelSpatialSE(8, reduction=2, combine=combine).double()
    y, s, q = weights_of(module, IMAGES)
    assert ((s > 0) & (s < 1)).all() and ((q > 0) & (q < 1)).all()
    np.testing.assert_allclose(y, expected(s, q, IMAGES), rtol=1e-12)


def test_its_parts_are_the_channel_and_the_spatial_excitation():
    module = ChannelSpatialSE(8, reduction=4, bias=True)
    assert type(module.channel) is SqueezeExcitation and type(module.spatial) is SpatialSE
    assert module.channel.reduction == 4
    assert module.channel.fc1.bias is not None and module.spatial.conv.bias is not None


@pytest.mark.parametrize(("channels", "reduction"), [(16, 4), (64, 16), (64, 2)])
def test_it_costs_two_c_squared_over_r_and_c_parameters(channels, reduction):
    weights = 2 * channels**2 // reduction + channels
    assert count(ChannelSpatialSE(channels, reduction)) == weights
    biases = channels // reduction + channels + 1
    assert count(ChannelSpatialSE(channels, reduction, bias=True)) == weights + biases


def test_a_residual_network_learns_a_batch_by_heart():
    mt.manual_seed(0)
    net = cifar_resnet(8, in_channels=1, attention=lambda channels: ChannelSpatialSE(channels, 2))
    x, classes = mt.tensor(normal(20, 1, 8, 8).astype("float32")), np.arange(20) % 10
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    for _ in range(40):
        loss = F.cross_entropy(net(x), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_settings_that_do_not_fit_are_refused():
    message = "ChannelSpatialSE: combine must be one of max, sum, product, not 'concat'"
    with pytest.raises(ValueError, match=message):
        ChannelSpatialSE(8, 2, combine="concat")
    with pytest.raises(ValueError, match="reduction=16 leaves no unit in the bottleneck of 8"):
        ChannelSpatialSE(8)


@pytest.mark.parametrize("shape", [(2, 6, 3, 3), (8, 3, 3), (2, 8)])
def test_an_input_of_another_shape_is_refused_by_name(shape):
    for module in (ChannelSpatialSE(8, 2), SpatialSE(8)):
        message = rf"{type(module).__name__}: needs an input \(N, C, H, W\) with C = 8 channels"
        with pytest.raises(mt.ShapeError, match=message):
            module(mt.ones(*shape))


def test_it_prints_its_parts():
    lines = repr(ChannelSpatialSE(8, reduction=2)).splitlines()
    assert lines[0].split("  ")[0] == "ChannelSpatialSE(8, combine='max')"
    assert any("(spatial): SpatialSE(8)" in line for line in lines)
