import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import optim
from minitorch_attn.attention import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation
from minitorch_attn.attention.cbam import ORDERS, POOLS, SPATIAL_POOLS
from minitorch_attn.models import cifar_resnet, resnet50

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def count(module):
    return sum(p.numel() for p in module.parameters())


def paper_channel(torch, channels, hidden, pool="both", bias=False):
    """Equation 2 of the paper, written out with PyTorch."""

    class Channel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = torch.nn.Linear(channels, hidden, bias=bias)
            self.fc2 = torch.nn.Linear(hidden, channels, bias=bias)

        def forward(self, x):
            average = self.fc2(torch.relu(self.fc1(x.mean(dim=(2, 3)))))
            maximum = self.fc2(torch.relu(self.fc1(torch.max_pool2d(x, x.shape[2:])[:, :, 0, 0])))
            score = {"both": average + maximum, "avg": average, "max": maximum}[pool]
            return torch.sigmoid(score)[:, :, None, None]

    return Channel()


def paper_spatial(torch, kernel_size, pool="both", batch_norm=False):
    """Equation 3 of the paper, written out with PyTorch."""

    class Spatial(torch.nn.Module):
        def __init__(self):
            super().__init__()
            maps = 2 if pool == "both" else 1
            if pool == "conv":
                self.squeeze = torch.nn.Conv2d(IMAGES.shape[1], 1, 1, bias=False)
            self.conv = torch.nn.Conv2d(maps, 1, kernel_size, padding="same", bias=False)
            if batch_norm:
                self.bn = torch.nn.BatchNorm2d(1, eps=1e-5, momentum=0.01)

        def forward(self, x):
            average, maximum = x.mean(dim=1), x.max(dim=1).values
            maps = {"both": [average, maximum], "avg": [average], "max": [maximum]}
            mixed = self.squeeze(x) if pool == "conv" else torch.stack(maps[pool], dim=1)
            score = self.conv(mixed)
            return torch.sigmoid(self.bn(score) if batch_norm else score)

    return Spatial()


def paper_cbam(torch, channels, hidden, kernel_size, order, bias=False, batch_norm=False):
    """Equation 1 of the paper, and the other arrangements of its table 3."""

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            if order != "spatial":
                self.channel = paper_channel(torch, channels, hidden, bias=bias)
            if order != "channel":
                self.spatial = paper_spatial(torch, kernel_size, batch_norm=batch_norm)

        def forward(self, x):
            if order == "channel_spatial":
                weighed = self.channel(x) * x
                return self.spatial(weighed) * weighed
            if order == "spatial_channel":
                weighed = self.spatial(x) * x
                return self.channel(weighed) * weighed
            if order == "parallel":
                return self.channel(x) * self.spatial(x) * x
            return getattr(self, order)(x) * x

    return Paper()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("pool", POOLS)
def test_channel_attention_is_the_papers_equation(pool, bias):
    torch = pytest.importorskip("torch")
    ours = ChannelAttention(8, reduction=2, pool=pool, bias=bias)
    compare_modules(ours, paper_channel(torch, 8, 4, pool, bias), IMAGES)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("pool", SPATIAL_POOLS)
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_spatial_attention_is_the_papers_equation(kernel_size, pool, batch_norm):
    torch = pytest.importorskip("torch")
    ours = SpatialAttention(kernel_size, pool, batch_norm, channels=8)
    compare_modules(ours, paper_spatial(torch, kernel_size, pool, batch_norm), IMAGES)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("as_in_the_authors_code", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(
    order, as_in_the_authors_code, training
):
    torch = pytest.importorskip("torch")
    extras = {"bias": as_in_the_authors_code, "batch_norm": as_in_the_authors_code}
    ours = CBAM(8, reduction=4, kernel_size=3, order=order, **extras)
    theirs = paper_cbam(torch, 8, 2, 3, order, **extras)
    compare_modules(ours, theirs, IMAGES, training=training)


def test_of_equal_maxima_the_first_takes_the_gradient_as_in_pytorch():
    torch = pytest.importorskip("torch")
    ties = np.maximum(IMAGES.round(), 0)  # as behind a ReLU: many equal maxima
    ours = CBAM(8, reduction=4, kernel_size=3)
    compare_modules(ours, paper_cbam(torch, 8, 2, 3, "channel_spatial"), ties)


@pytest.mark.parametrize("pool", SPATIAL_POOLS)
@pytest.mark.parametrize("order", ORDERS)
def test_the_gradient_check_passes_for_every_setting(order, pool):
    mt.manual_seed(0)
    as_code, what = pool == "max", "both" if pool == "conv" else pool
    module = CBAM(6, 2, 3, order, what, pool, bias=as_code, batch_norm=as_code).double()
    report = mt.gradcheck(module, normal(3, 6, 4, 3))
    assert len(report.inputs) == 1 + len(list(module.parameters()))
    assert not any(i.warning for i in report.inputs), str(report)


def test_channel_attention_over_averages_is_squeeze_and_excitation():
    mt.manual_seed(0)
    ours, se = CBAM(8, 2, order="channel", channel_pool="avg"), SqueezeExcitation(8, 2)
    se.load_state_dict({n.removeprefix("channel."): t for n, t in ours.state_dict().items()})
    x = mt.tensor(IMAGES)
    np.testing.assert_allclose(ours(x).numpy(), se(x).numpy(), rtol=1e-6)


def test_both_poolings_share_one_mlp_and_its_gradients_add():
    mt.manual_seed(0)
    both = ChannelAttention(8, 2).double()
    x, z = mt.tensor(IMAGES), IMAGES.reshape(3, 8, -1)
    separate = [both.fc1.weight.numpy().copy() for _ in range(2)]
    w_avg, w_max = (mt.tensor(w, requires_grad=True) for w in separate)
    hidden = [F.relu(mt.tensor(z.mean(2)) @ w_avg.T), F.relu(mt.tensor(z.max(2)) @ w_max.T)]
    F.sigmoid(both.fc2(hidden[0]) + both.fc2(hidden[1])).sum().backward()
    both.zero_grad()
    both(x).sum().backward()
    np.testing.assert_allclose(
        both.fc1.weight.grad.numpy(), w_avg.grad.numpy() + w_max.grad.numpy(), rtol=1e-12
    )


def test_the_second_attention_sees_what_the_first_has_left():
    mt.manual_seed(0)
    module, seen = CBAM(8, 2, 3).double(), []
    handle = module.spatial.register_forward_hook(lambda m, inputs, y: seen.append(inputs[0]))
    x = mt.tensor(IMAGES)
    with mt.no_grad():
        module(x)
        handle.remove()
        expected = x * module.channel(x)
    np.testing.assert_allclose(seen[0].numpy(), expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_hooks_see_the_maps_whose_product_weighs_the_input(order):
    mt.manual_seed(0)
    module, seen = CBAM(8, 2, 3, order=order).double(), {}
    for name, part in module.named_children():
        part.register_forward_hook(lambda m, inputs, y, name=name: seen.update({name: y.numpy()}))
    with mt.no_grad():
        y = module(mt.tensor(IMAGES)).numpy()
    shapes = {"channel": (3, 8, 1, 1), "spatial": (3, 1, 5, 4)}
    assert {n: m.shape for n, m in seen.items()} == {n: shapes[n] for n in seen}
    weights = np.ones(())
    for part in seen.values():
        assert (part > 0).all() and (part < 1).all()
        weights = weights * part
    np.testing.assert_allclose(y, IMAGES * weights, rtol=1e-12)


def test_the_orders_differ():
    outputs = []
    for order in ORDERS:
        mt.manual_seed(0)
        outputs.append(CBAM(8, 2, 3, order=order).double()(mt.tensor(3 * IMAGES)).numpy())
    for i, a in enumerate(outputs):
        for b in outputs[:i]:
            assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize(("channels", "reduction"), [(16, 4), (64, 16), (256, 16), (2048, 16)])
def test_it_costs_two_c_squared_over_r_and_98_parameters(channels, reduction):
    mlp = 2 * channels**2 // reduction
    assert count(CBAM(channels, reduction)) == mlp + 98
    assert count(CBAM(channels, reduction, kernel_size=3)) == mlp + 18
    assert count(CBAM(channels, reduction, spatial_pool="max")) == mlp + 49
    assert count(CBAM(channels, reduction, spatial_pool="conv")) == mlp + channels + 49
    assert count(CBAM(channels, reduction, order="channel")) == mlp
    assert count(CBAM(channels, reduction, order="spatial")) == 98
    as_code = count(CBAM(channels, reduction, bias=True, batch_norm=True))
    assert as_code == mlp + channels // reduction + channels + 98 + 2


def test_a_block_of_256_channels_costs_8564_parameters_in_the_authors_code():
    assert count(CBAM(256, bias=True, batch_norm=True)) == 8564


def test_resnet50_with_it_has_the_papers_28_09_million_parameters():
    net = resnet50(attention=lambda channels: CBAM(channels, bias=True, batch_norm=True))
    assert count(net) == 28_089_624
    assert sum(isinstance(m, CBAM) for m in net.modules()) == 16


def test_a_residual_network_learns_a_batch_by_heart():
    mt.manual_seed(0)
    net = cifar_resnet(8, in_channels=1, attention=lambda channels: CBAM(channels, 4, 3))
    x, classes = mt.tensor(normal(20, 1, 8, 8).astype("float32")), np.arange(20) % 10
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    for _ in range(40):
        loss = F.cross_entropy(net(x), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_one_pixel_and_images_smaller_than_the_kernel_are_enough():
    assert CBAM(4, 2)(mt.ones(1, 4, 1, 1)).shape == (1, 4, 1, 1)
    assert CBAM(4, 2, kernel_size=7)(mt.ones(2, 4, 3, 2)).shape == (2, 4, 3, 2)


def test_a_bottleneck_without_units_is_refused():
    with pytest.raises(ValueError) as caught:
        CBAM(8, reduction=16)
    assert str(caught.value) == (
        "ChannelAttention: reduction=16 leaves no unit in the bottleneck of 8 channels: take a "
        "reduction of at most 8"
    )


def test_an_empty_batch_stays_empty():
    assert CBAM(4, 2)(mt.ones(0, 4, 3, 3)).shape == (0, 4, 3, 3)


@pytest.mark.parametrize("reduction", [0, -1])
def test_a_reduction_below_one_is_refused(reduction):
    with pytest.raises(ValueError, match=f"reduction must be at least 1, not {reduction}"):
        CBAM(8, reduction=reduction)


def test_a_fractional_reduction_is_refused():
    with pytest.raises(ValueError, match=r"reduction must be an integer, not 2\.5"):
        CBAM(8, reduction=2.5)


@pytest.mark.parametrize("channels", [0, -8, 8.0])
def test_channels_below_one_are_refused(channels):
    with pytest.raises(
        ValueError, match=f"channels must be an integer of at least 1, not {channels}"
    ):
        CBAM(channels, 2)


@pytest.mark.parametrize("kernel_size", [0, 2, -3, 3.5])
def test_a_kernel_without_a_middle_is_refused(kernel_size):
    with pytest.raises(ValueError, match=f"odd and positive, not {kernel_size}: "):
        CBAM(8, 2, kernel_size=kernel_size)


def test_unknown_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="CBAM: order must be one of channel_spatial, spatial_c"):
        CBAM(8, 2, order="spatial_first")
    with pytest.raises(ValueError, match="ChannelAttention: pool must be .* avg, max, not 'sum'"):
        CBAM(8, 2, channel_pool="sum")
    with pytest.raises(ValueError, match="ChannelAttention: pool must be .* avg, max, not 'conv'"):
        CBAM(8, 2, channel_pool="conv")
    with pytest.raises(ValueError, match="SpatialAttention: pool must be .* conv, not 'sum'"):
        CBAM(8, 2, spatial_pool="sum")


def test_a_convolution_over_the_channels_is_told_how_many_there_are():
    with pytest.raises(ValueError, match="pool='conv' needs channels=, the number of channels"):
        SpatialAttention(3, pool="conv")
    with pytest.raises(mt.ShapeError, match=r"SpatialAttention: .* with C = 8 channels, got"):
        SpatialAttention(3, pool="conv", channels=8)(mt.ones(2, 6, 4, 4))


def test_a_convolution_over_the_channels_with_equal_weights_is_their_average():
    mt.manual_seed(0)
    conv = CBAM(8, 2, 3, spatial_pool="conv").double()
    average = CBAM(8, 2, 3, spatial_pool="avg").double()
    with mt.no_grad():
        conv.spatial.squeeze.weight.copy_(mt.full((1, 8, 1, 1), 1 / 8, dtype="float64"))
    shared = {n: t for n, t in conv.state_dict().items() if "squeeze" not in n}
    average.load_state_dict(shared)
    x = mt.tensor(IMAGES)
    np.testing.assert_allclose(conv(x).numpy(), average(x).numpy(), rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 6, 3, 3), (8, 3, 3), (2, 8)])
@pytest.mark.parametrize("build", [CBAM, ChannelAttention])
def test_an_input_of_another_shape_is_refused_by_name(build, shape):
    message = rf"{build.__name__}: needs an input \(N, C, H, W\) with C = 8 channels, got"
    with pytest.raises(mt.ShapeError, match=message):
        build(8, 2)(mt.ones(*shape))


def test_spatial_attention_takes_any_number_of_channels_but_images_alone():
    attention = SpatialAttention(3)
    assert attention(mt.ones(2, 5, 4, 4)).shape == attention(mt.ones(2, 1, 4, 4)).shape
    with pytest.raises(mt.ShapeError, match=r"SpatialAttention: needs an input \(N, C, H, W\), "):
        attention(mt.ones(5, 4, 4))


def test_it_prints_its_parts():
    assert repr(CBAM(16, reduction=4, spatial_pool="max")) == (
        "CBAM(16, order='channel_spatial')                               177 parameters\n"
        "  (channel): ChannelAttention(16, reduction=4)                  128\n"
        "    (fc1): Linear(16, 4, bias=False)                             64\n"
        "    (fc2): Linear(4, 16, bias=False)                             64\n"
        "    (gate): Sigmoid()\n"
        "  (spatial): SpatialAttention(7, pool='max')                     49\n"
        "    (conv): Conv2d(1, 1, kernel_size=7, padding=3, bias=False)   49\n"
        "    (bn): Identity()\n"
        "    (gate): Sigmoid()"
    )
