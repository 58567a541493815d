import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import CroW

from ..nn.parity import compare_modules, normal

MAPS = np.maximum(normal(3, 4, 5, 6), 0)
SMALL = np.arange(12.0).reshape(1, 2, 2, 3)


def paper_module(torch, a, b, eps):
    class Paper(torch.nn.Module):
        def forward(self, x):
            s = x.sum(dim=1)
            s = (s / ((s**a).sum(dim=(1, 2)) ** (1 / a))[:, None, None]) ** (1 / b)
            q = (x > 0).to(x).mean(dim=(2, 3))
            t = torch.log((x.shape[1] * eps + q.sum(1, keepdim=True)) / (eps + q))
            return t * torch.einsum("nhw,nchw->nc", s, x)

    return Paper()


@pytest.mark.parametrize(("a", "b", "eps"), [(2, 2, 0.0), (1, 1, 0.01), (3, 2, 0.1)])
def test_outputs_and_gradients_are_those_of_the_paper(a, b, eps):
    torch = pytest.importorskip("torch")
    maps = MAPS + 1e-3 * (MAPS.sum(axis=1, keepdims=True) == 0)  # there the formula's slope is nan
    compare_modules(CroW(a, b, eps), paper_module(torch, a, b, eps), maps)


def test_a_small_map_by_hand():
    module, seen = CroW(), []
    for part in (module.spatial, module.channel):
        part.register_forward_hook(lambda m, inputs, w: seen.append(w.numpy()))
    y = module(mt.tensor(SMALL)).numpy()
    s, t = seen
    expected = [[0.461155, 0.532496, 0.595349], [0.652172, 0.704427, 0.753064]]
    np.testing.assert_allclose(s[0], expected, atol=1e-6)
    np.testing.assert_allclose(t[0], [0.788457, 0.606136], atol=1e-6)
    np.testing.assert_allclose(y[0], [8.091730, 19.671967], atol=1e-6)


def test_without_weights_it_is_the_sum_and_each_can_stand_alone():
    x = mt.tensor(MAPS)
    np.testing.assert_allclose(CroW(spatial=False, channel=False)(x).numpy(), MAPS.sum((2, 3)))
    both, alone = CroW(), CroW(channel=False)
    ratio = both(x).numpy() / alone(x).numpy()
    np.testing.assert_allclose(ratio, both.channel(x).numpy())


def test_a_changes_the_length_alone_and_a_large_b_gives_the_plain_sum():
    x = mt.tensor(SMALL)
    y, other = CroW()(x).numpy(), CroW(a=5)(x).numpy()
    ratio = other / y
    np.testing.assert_allclose(ratio, ratio[0, 0])
    assert ratio[0, 0] > 1.1
    flat = CroW(b=1e9, channel=False)(x).numpy()
    np.testing.assert_allclose(flat, SMALL.sum((2, 3)), rtol=1e-6)


def test_the_gradient_check_passes():
    assert mt.gradcheck(CroW(), np.abs(normal(2, 3, 2, 2)) + 0.1).ok


def test_channels_and_maps_of_zeros_stay_finite():
    x = MAPS.copy()
    x[:, 1] = 0
    x[2] = 0
    for eps in (0.0, 0.01):
        y = CroW(eps=eps)(mt.tensor(x)).numpy()
        assert np.isfinite(y).all() and (y[:, 1] == 0).all() and (y[2] == 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e4])
def test_no_power_overflows_and_weights_do_not_depend_on_the_contrast(scale):
    x = (MAPS * scale).astype("float32")
    for a in (10, 100):
        expected = CroW(a=a).spatial(mt.tensor(MAPS)).numpy()
        np.testing.assert_allclose(CroW(a=a).spatial(mt.tensor(x)).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(("a", "b"), [(2, 1), (2, 2), (2, 3), (1, 2), (0.5, 2)])
def test_gradients_stay_finite_where_no_channel_is_active(a, b):
    x = np.abs(normal(2, 3, 2, 2)) + 0.1
    x[0, :, 0, 1] = 0  # a place
    x[1] = 0  # an image
    inputs = mt.tensor(x, requires_grad=True)
    CroW(a, b)(inputs).sum().backward()
    grad = inputs.grad.numpy()
    assert np.isfinite(grad).all() and (grad[0, :, 0, 1] == 0).all() and (grad[1] == 0).all()
    few = 1e-9 * (x == 0)  # all but inactive: what the gradient tends to
    near = mt.tensor(x + few, requires_grad=True)
    CroW(a, b, channel=False)(near).sum().backward()
    inputs = mt.tensor(x, requires_grad=True)
    CroW(a, b, channel=False)(inputs).sum().backward()
    active = x[0] > 0  # the slope at an empty place has no limit for a < 1, and is not asked for
    np.testing.assert_allclose(
        inputs.grad.numpy()[0][active], near.grad.numpy()[0][active], atol=1e-2
    )


def test_negative_features_are_refused_where_places_are_weighed():
    x = mt.tensor(MAPS - 0.5)
    with pytest.raises(
        ValueError, match="features that are not negative, .* got some down to -0.5"
    ):
        CroW()(x)
    np.testing.assert_allclose(
        CroW(spatial=False, channel=False)(x).numpy(), (MAPS - 0.5).sum((2, 3))
    )


def test_bad_settings_and_shapes_are_refused_by_name():
    for a in (0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"a and b must be positive and finite, not {a} and 2"):
            CroW(a=a)
    for eps in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=f"eps must be finite and not negative, not {eps}"):
            CroW(eps=eps)
    with pytest.raises(mt.ShapeError, match=r"CroW: needs an input \(N, C, H, W\), got"):
        CroW()(mt.ones(3, 4, 4))
