import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import SqueezeExcitation

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def count(module):
    return sum(p.numel() for p in module.parameters())


def paper_module(torch, channels, hidden, bias=False, squeeze="avg", gate="sigmoid"):
    """Equations 2 to 4 of the paper, written out with PyTorch."""

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = torch.nn.Linear(channels, hidden, bias=bias)
            self.fc2 = torch.nn.Linear(hidden, channels, bias=bias)

        def forward(self, x):
            z = x.mean(dim=(2, 3)) if squeeze == "avg" else x.flatten(2).max(dim=2).values
            s = getattr(torch, gate)(self.fc2(torch.relu(self.fc1(z))))
            return torch.einsum("nc,nchw->nchw", s, x)

    return Paper()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("squeeze", ["avg", "max"])
@pytest.mark.parametrize("gate", ["sigmoid", "tanh", "relu"])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(bias, squeeze, gate):
    torch = pytest.importorskip("torch")
    ours = SqueezeExcitation(8, reduction=2, bias=bias, squeeze=squeeze, gate=gate)
    compare_modules(ours, paper_module(torch, 8, 4, bias, squeeze, gate), IMAGES)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("squeeze", ["avg", "max"])
@pytest.mark.parametrize("gate", ["sigmoid", "tanh"])
def test_the_gradient_check_passes_for_every_setting(bias, squeeze, gate):
    mt.manual_seed(0)
    module = SqueezeExcitation(6, reduction=2, bias=bias, squeeze=squeeze, gate=gate).double()
    report = mt.gradcheck(module, normal(3, 6, 2, 3))
    assert len(report.inputs) == (5 if bias else 3)
    assert not any(i.warning for i in report.inputs), str(report)


@pytest.mark.parametrize(("channels", "reduction"), [(16, 4), (64, 16), (256, 16), (2048, 16)])
def test_it_costs_two_c_squared_over_r_parameters(channels, reduction):
    count = sum(p.numel() for p in SqueezeExcitation(channels, reduction).parameters())
    assert count == 2 * channels**2 // reduction
    with_biases = sum(
        p.numel() for p in SqueezeExcitation(channels, reduction, bias=True).parameters()
    )
    assert with_biases == count + channels // reduction + channels


@pytest.mark.parametrize(
    ("reduction", "extra"),
    [(2, 20_119_552), (4, 10_059_776), (8, 5_029_888), (16, 2_514_944), (32, 1_257_472)],
)
def test_the_weights_it_adds_to_a_resnet50_are_the_papers(reduction, extra):
    stages = {256: 3, 512: 4, 1024: 6, 2048: 3}  # channels behind a block, number of blocks
    added = sum(
        blocks * count(SqueezeExcitation(channels, reduction))
        for channels, blocks in stages.items()
    )
    assert added == extra


def test_a_hook_on_the_gate_sees_one_weight_a_channel():
    module, seen = SqueezeExcitation(8, reduction=2), []
    with module.gate.register_forward_hook(lambda m, inputs, s: seen.append(s)):
        y = module(mt.tensor(IMAGES))
    (s,) = seen
    assert s.shape == (3, 8) and (s.numpy() > 0).all() and (s.numpy() < 1).all()
    np.testing.assert_allclose(y.numpy(), IMAGES * s.numpy()[:, :, None, None], rtol=1e-6)


def test_every_pixel_of_a_channel_gets_the_same_weight_and_the_order_of_pixels_is_nothing():
    mt.manual_seed(0)
    module = SqueezeExcitation(8, reduction=2).double()
    shuffled = np.random.default_rng(0).permutation(20)
    flat = IMAGES.reshape(3, 8, 20)
    with mt.no_grad():
        y = module(mt.tensor(IMAGES)).numpy().reshape(3, 8, 20)
        z = module(mt.tensor(flat[:, :, shuffled].reshape(IMAGES.shape))).numpy()
    np.testing.assert_allclose(z.reshape(3, 8, 20), y[:, :, shuffled], rtol=1e-12)
    ratio = y / flat
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :, :1], ratio.shape), rtol=1e-9)


def test_one_pixel_is_enough():
    assert SqueezeExcitation(4, 2)(mt.ones(1, 4, 1, 1)).shape == (1, 4, 1, 1)


def test_a_bottleneck_without_units_is_refused():
    with pytest.raises(ValueError) as caught:
        SqueezeExcitation(8, reduction=16)
    assert str(caught.value) == (
        "SqueezeExcitation: reduction=16 leaves no unit in the bottleneck of 8 channels: take a "
        "reduction of at most 8"
    )
    assert SqueezeExcitation(8, reduction=8).fc1.weight.shape == (1, 8)
    assert SqueezeExcitation(10, reduction=4).fc1.weight.shape == (2, 10)


def test_unknown_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="squeeze must be one of avg, max, not 'sum'"):
        SqueezeExcitation(8, 2, squeeze="sum")
    with pytest.raises(ValueError, match="gate must be one of sigmoid, tanh, relu, not 'elu'"):
        SqueezeExcitation(8, 2, gate="elu")


@pytest.mark.parametrize("shape", [(2, 6, 3, 3), (8, 3, 3), (2, 8)])
def test_an_input_of_another_shape_is_refused_by_name(shape):
    with pytest.raises(mt.ShapeError, match=r"an input \(N, C, H, W\) with C = 8 channels"):
        SqueezeExcitation(8, 2)(mt.ones(*shape))


def test_it_prints_its_parts():
    assert repr(SqueezeExcitation(16, reduction=4)) == (
        "SqueezeExcitation(16, reduction=4)  128 parameters\n"
        "  (squeeze): AdaptiveAvgPool2d(1)\n"
        "  (fc1): Linear(16, 4, bias=False)   64\n"
        "  (fc2): Linear(4, 16, bias=False)   64\n"
        "  (gate): Sigmoid()"
    )


@pytest.mark.parametrize("reduction", [0, -1])
def test_a_reduction_below_one_is_refused(reduction):
    with pytest.raises(ValueError, match=f"reduction must be at least 1, not {reduction}"):
        SqueezeExcitation(8, reduction=reduction)


@pytest.mark.parametrize(
    ("channels", "reduction", "message"),
    [
        (0, 1, "channels must be an integer of at least 1, not 0"),
        (8.0, 2, "channels must be an integer of at least 1, not 8.0"),
        (8, 2.0, "reduction must be an integer, not 2.0"),
        (8, None, "reduction must be an integer, not None"),
    ],
)
def test_channels_and_reduction_are_integers(channels, reduction, message):
    with pytest.raises(ValueError, match=f"SqueezeExcitation: {message}"):
        SqueezeExcitation(channels, reduction)


def test_an_array_is_taken_as_an_image():
    module = SqueezeExcitation(8, reduction=2).double()
    np.testing.assert_array_equal(module(IMAGES).numpy(), module(mt.tensor(IMAGES)).numpy())
