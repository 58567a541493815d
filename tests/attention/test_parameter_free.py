import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import ParameterFreeSpatialAttention

from ..nn.parity import compare_modules, normal

MAPS = np.abs(normal(3, 4, 5, 6)) + 0.01


def paper_module(torch, squeeze, norm):
    class Paper(torch.nn.Module):
        def forward(self, x):
            s = getattr(x, squeeze)(dim=1)
            if norm == "softmax":
                M = s.exp() / s.exp().sum(dim=(1, 2), keepdim=True)
            elif norm == "l1":
                M = s / s.sum(dim=(1, 2), keepdim=True)
            else:
                M = s / (s**2).sum(dim=(1, 2), keepdim=True) ** 0.5
            return x * M[:, None]

    return Paper()


@pytest.mark.parametrize("squeeze", ["sum", "mean"])
@pytest.mark.parametrize("norm", ["softmax", "l1", "l2"])
def test_outputs_and_gradients_are_those_of_the_formulas(squeeze, norm):
    torch = pytest.importorskip("torch")
    ours = ParameterFreeSpatialAttention(squeeze, norm)
    compare_modules(ours, paper_module(torch, squeeze, norm), MAPS)


@pytest.mark.parametrize("norm", ["softmax", "l1", "l2"])
def test_the_gradient_check_passes(norm):
    assert mt.gradcheck(ParameterFreeSpatialAttention("mean", norm), MAPS[:2, :3, :2, :3]).ok


def test_it_has_no_parameters_and_a_hook_sees_its_weights():
    module, seen = ParameterFreeSpatialAttention(), []
    with module.weights.register_forward_hook(lambda m, inputs, w: seen.append(w.numpy())):
        y = module(mt.tensor(MAPS)).numpy()
    (M,) = seen
    assert list(module.parameters()) == [] and M.shape == (3, 30)
    np.testing.assert_allclose(M.sum(axis=1), 1)
    np.testing.assert_allclose(y, MAPS * M.reshape(3, 1, 5, 6))


def test_behind_it_a_mean_is_a_weighted_one():
    y = ParameterFreeSpatialAttention("sum", "l1")(mt.tensor(MAPS)).numpy()
    weights = MAPS.sum(axis=1) / MAPS.sum(axis=(1, 2, 3))[:, None, None]
    expected = (weights[:, None] * MAPS).sum(axis=(2, 3))
    np.testing.assert_allclose(y.mean(axis=(2, 3)) * 30, expected)


def test_a_sum_over_many_channels_leaves_one_place():
    many = mt.tensor(np.repeat(MAPS[:1], 100, axis=1))

    def largest(squeeze):
        seen = []
        module = ParameterFreeSpatialAttention(squeeze)
        module.weights.register_forward_hook(lambda m, i, w: seen.append(w.numpy()))
        module(many)
        return seen[0].max()

    assert largest("sum") > 0.99 and largest("mean") < 0.2


@pytest.mark.parametrize("norm", ["softmax", "l1", "l2"])
def test_a_map_of_zeros_stays_zero(norm):
    y = ParameterFreeSpatialAttention("sum", norm)(mt.zeros(1, 2, 3, 3)).numpy()
    np.testing.assert_array_equal(y, 0)


def test_bad_settings_and_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="squeeze must be one of sum, mean, not 'max'"):
        ParameterFreeSpatialAttention("max")
    with pytest.raises(ValueError, match="norm must be one of softmax, l1, l2, not 'l3'"):
        ParameterFreeSpatialAttention(norm="l3")
    with pytest.raises(mt.ShapeError, match="ParameterFreeSpatialAttention: needs an input"):
        ParameterFreeSpatialAttention()(mt.ones(3, 4, 4))
