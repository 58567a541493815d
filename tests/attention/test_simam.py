import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import SimAM

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def paper_module(torch, lam):
    """One over the least energy, with the variance that the authors' program takes."""

    class Paper(torch.nn.Module):
        def forward(self, x):
            mean = x.mean(dim=(2, 3), keepdim=True)
            variance = x.var(dim=(2, 3), keepdim=True, unbiased=True)
            energy = 4 * (variance + lam) / ((x - mean) ** 2 + 2 * variance + 2 * lam)
            return x * torch.sigmoid(1 / energy)

    return Paper()


@pytest.mark.parametrize("lam", [1e-4, 0.1])
def test_outputs_and_gradients_are_those_of_the_least_energy(lam):
    torch = pytest.importorskip("torch")
    compare_modules(SimAM(lam), paper_module(torch, lam), IMAGES)


def test_the_gradient_check_passes():
    assert mt.gradcheck(SimAM(), normal(2, 3, 4, 3)).ok


def test_it_has_no_parameters_and_no_gate_is_closed():
    module, seen = SimAM(), []
    with module.gate.register_forward_hook(lambda m, inputs, s: seen.append(s.numpy())):
        module(mt.tensor(IMAGES))
    assert list(module.parameters()) == []
    assert seen[0].shape == IMAGES.shape and seen[0].min() > 0.62


def test_what_stands_out_is_weighed_most():
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, 1, 2] = 1
    seen = []
    module = SimAM()
    with module.gate.register_forward_hook(lambda m, inputs, s: seen.append(s.numpy())):
        module(mt.tensor(x))
    assert seen[0].argmax() == 6


def test_a_constant_channel_stays_finite():
    x = mt.ones(1, 2, 3, 3, requires_grad=True)
    SimAM()(x).sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_bad_settings_and_shapes_are_refused_by_name():
    for lam in (0, np.nan):
        with pytest.raises(ValueError, match=f"lam must be positive, not {lam}"):
            SimAM(lam)
    with pytest.raises(mt.ShapeError, match=r"SimAM: needs an input \(N, C, H, W\), got"):
        SimAM()(mt.ones(8, 3, 3))
    with pytest.raises(mt.ShapeError, match="two positions at least"):
        SimAM()(mt.ones(1, 8, 1, 1))
