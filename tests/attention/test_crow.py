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
    maps = MAPS + 1e-3 * (MAPS.sum(axis=1, keepdims=True) == 0)  # the root's slope at 0 is infinite
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


def test_the_gradient_check_passes():
    assert mt.gradcheck(CroW(), np.abs(normal(2, 3, 2, 2)) + 0.1).ok


def test_channels_and_maps_of_zeros_stay_finite():
    x = MAPS.copy()
    x[:, 1] = 0
    x[2] = 0
    for eps in (0.0, 0.01):
        y = CroW(eps=eps)(mt.tensor(x)).numpy()
        assert np.isfinite(y).all() and (y[:, 1] == 0).all() and (y[2] == 0).all()


def test_bad_settings_and_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="a and b must be positive, not 0 and 2"):
        CroW(a=0)
    with pytest.raises(ValueError, match="eps must not be negative"):
        CroW(eps=-1.0)
    with pytest.raises(mt.ShapeError, match=r"CroW: needs an input \(N, C, H, W\), got"):
        CroW()(mt.ones(3, 4, 4))
