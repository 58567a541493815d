import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import RegionalAttention
from minitorch_attn.retrieval import (
    GeM,
    PCAWhitening,
    RegionalMAC,
    gem,
    l2_normalized,
    mac,
    region_grid,
    region_vectors,
    rmac,
    spoc,
)

from ..nn.parity import compare_modules, normal

MAPS = np.abs(normal(2, 3, 6, 8)) + 0.01


def test_mac_and_spoc_are_maximum_and_mean():
    np.testing.assert_array_equal(mac(MAPS).numpy(), MAPS.max(axis=(2, 3)))
    np.testing.assert_allclose(spoc(MAPS).numpy(), MAPS.mean(axis=(2, 3)))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 6.5])
def test_gem_is_the_papers_mean(p):
    expected = (MAPS**p).mean(axis=(2, 3)) ** (1 / p)
    np.testing.assert_allclose(gem(MAPS, p).numpy(), expected)


def test_gem_goes_from_the_mean_to_the_maximum():
    np.testing.assert_allclose(gem(MAPS, 1.0).numpy(), spoc(MAPS).numpy())
    np.testing.assert_allclose(gem(MAPS, 2000.0).numpy(), mac(MAPS).numpy(), rtol=3e-3)


def test_gem_stays_finite_where_powers_do_not():
    x = mt.tensor(1e3 * MAPS.astype("float32"), requires_grad=True)
    y = gem(x, 20.0)
    y.sum().backward()
    assert np.isfinite(y.numpy()).all() and np.isfinite(x.grad.numpy()).all()


def test_gem_has_the_papers_gradients():
    torch = pytest.importorskip("torch")

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.full((1,), 3.0))

        def forward(self, x):
            p = self.p.abs() + 1
            return (x.clamp(min=1e-6) ** p).mean(dim=(2, 3)) ** (1 / p)

    class Ours(GeM):
        def forward(self, x):
            return gem(x, self.p.abs() + 1, self.eps)

    compare_modules(Ours(), Paper(), MAPS, dtypes=("float64",))


def test_the_gradient_checks_pass():
    few = MAPS[:1, :2, :4, :3]
    assert mt.gradcheck(GeM().double(), few).ok
    assert mt.gradcheck(lambda x: rmac(x, levels=2), few).ok


def test_what_is_below_eps_counts_as_eps():
    y = gem(np.array([[[[-1.0, 0.0]]]]), p=1.0, eps=0.25)
    assert y.item() == 0.25
    assert GeM(p=1.0, eps=0.25)(mt.zeros(1, 1, 1, 2)).item() == 0.25


def test_rmac_is_the_sum_of_normalised_maxima_of_regions():
    regions = [(0, 0, 2), (0, 1, 2)]
    x = MAPS[:, :, :2, :3]  # of 2 x 3 places: at level 1 two regions of 2 x 2
    vectors = region_vectors(x, levels=1).numpy()
    assert vectors.shape == (2, 2, 3)
    for k, (top, left, size) in enumerate(regions):
        cut = x[:, :, top : top + size, left : left + size]
        np.testing.assert_array_equal(vectors[:, k], cut.max(axis=(2, 3)))
    expected = l2_normalized(vectors).sum(axis=1)
    np.testing.assert_allclose(rmac(x, levels=1).numpy(), expected)


def test_the_whole_map_can_be_one_more_region():
    vectors = region_vectors(MAPS, whole=True).numpy()
    assert vectors.shape[1] == region_vectors(MAPS).shape[1] + 1
    np.testing.assert_array_equal(vectors[:, -1], MAPS.max(axis=(2, 3)))
    expected = l2_normalized(vectors).sum(axis=1)
    np.testing.assert_allclose(rmac(MAPS, whole=True).numpy(), expected)


def test_regions_are_pooled_as_one_asks():
    vectors = region_vectors(MAPS, levels=1, pool=spoc, whole=True).numpy()
    np.testing.assert_allclose(vectors[:, 0], MAPS[:, :, :, :6].mean(axis=(2, 3)))
    np.testing.assert_allclose(vectors[:, -1], MAPS.mean(axis=(2, 3)))


def test_whitening_stands_between_two_normalisations():
    seen = []

    def whiten(v):
        seen.append(v.numpy())
        return v * mt.tensor([1.0, 2.0, 3.0], dtype="float64")

    y = rmac(MAPS, whiten=whiten).numpy()
    np.testing.assert_allclose(np.linalg.norm(seen[0], axis=2), 1)
    np.testing.assert_allclose(y, l2_normalized(seen[0] * [1, 2, 3]).sum(axis=1))


def test_regions_are_whitened_by_what_was_learned():
    whitening = PCAWhitening(2).fit(normal(20, 3))
    expected = whitening.transform(l2_normalized(region_vectors(MAPS).numpy())).sum(axis=1)
    np.testing.assert_allclose(rmac(MAPS, whiten=whitening.transform).numpy(), expected)


def test_attention_weighs_regions_after_they_are_whitened():
    seen = []

    def attention(means, whole):
        seen.extend([means.numpy(), whole.numpy()])
        return means.sum(dim=2) + whole.sum(dim=1, keepdim=True)

    whitening = PCAWhitening(2).fit(normal(20, 3))
    y = rmac(MAPS, whiten=whitening.transform, whole=True, attention=attention).numpy()
    means, whole = seen
    np.testing.assert_allclose(means, region_vectors(MAPS, pool=spoc, whole=True).numpy())
    np.testing.assert_allclose(whole, spoc(MAPS).numpy())
    w = means.sum(axis=2) + whole.sum(axis=1, keepdims=True)
    vectors = whitening.transform(l2_normalized(region_vectors(MAPS, whole=True).numpy()))
    np.testing.assert_allclose(y, np.einsum("nr,nrd->nd", w, vectors))


@pytest.mark.parametrize("whole", [False, True])
def test_regional_mac_is_the_papers_weighted_mean_with_its_gradients(whole):
    torch = pytest.importorskip("torch")
    regions = [*region_grid(6, 8, levels=2)]

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.Module()
            self.attention.fc1 = torch.nn.Linear(6, 4)
            self.attention.fc2 = torch.nn.Linear(4, 1)

        def forward(self, x):
            softplus, total = torch.nn.functional.softplus, 0
            cuts = [x[:, :, t : t + s, left : left + s] for t, left, s in regions]
            cuts += [x] if whole else []
            for cut in cuts:
                u = torch.cat([cut.mean(dim=(2, 3)), x.mean(dim=(2, 3))], dim=1)
                w = softplus(self.attention.fc2(softplus(self.attention.fc1(u))))
                total = total + w * cut.amax(dim=(2, 3))
            return total / len(cuts)

    ours = RegionalMAC(RegionalAttention(3, hidden=4), levels=2, whole=whole)
    compare_modules(ours, Paper(), MAPS)


def test_its_gradient_check_passes():
    mt.manual_seed(0)
    module = RegionalMAC(RegionalAttention(3, hidden=2), levels=2).double()
    assert mt.gradcheck(module, MAPS[:1]).ok
    assert str(module).startswith("RegionalMAC(levels=2, whole=False")


def test_regional_mac_refuses_what_is_no_feature_map():
    with pytest.raises(mt.ShapeError, match="needs feature maps"):
        RegionalMAC(RegionalAttention(3))(mt.ones(3, 4, 4))
    with pytest.raises(mt.ShapeError, match="with C = 4 channels"):
        RegionalMAC(RegionalAttention(4))(mt.ones(1, 3, 4, 4))


def test_a_power_may_be_an_integer_and_is_shown():
    np.testing.assert_allclose(gem(MAPS, 3).numpy(), gem(MAPS, 3.0).numpy())
    for dtype in ("float16", "float32", "float64"):
        assert gem(MAPS.astype(dtype), 2.7).numpy().dtype == dtype
    assert str(GeM(2)).startswith("GeM(p=2, eps=1e-06)")


@pytest.mark.parametrize("settings", [(0,), (-1.0,), (float("nan"),), (3.0, 0.0), (3.0, -1.0)])
def test_powers_and_least_values_that_are_not_positive_are_refused(settings):
    with pytest.raises(ValueError, match="gem: p and eps must be positive, not"):
        gem(MAPS, *settings)


def test_a_power_for_each_channel_is_refused():
    with pytest.raises(mt.ShapeError, match=r"gem: needs one power p for all channels, got \(8,\)"):
        gem(MAPS, np.full(8, 3.0))


def test_what_is_no_feature_map_is_refused_by_name():
    for pool in (mac, spoc, gem, rmac):
        name = "region_vectors" if pool is rmac else pool.__name__
        with pytest.raises(mt.ShapeError, match=rf"{name}: needs feature maps \(N, C, H, W\)"):
            pool(np.ones((3, 4, 4)))
    with pytest.raises(mt.ShapeError, match="needs feature maps"):
        mac(np.ones((1, 3, 0, 4)))
