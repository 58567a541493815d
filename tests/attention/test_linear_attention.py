import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import LinearAttention

from ..nn.parity import compare_modules, normal

Q, K, V = normal(2, 3, 6, 4), normal(2, 3, 6, 4, seed=1), normal(2, 3, 6, 5, seed=2)


def paper_module(torch, is_causal):
    """Equation 4: the weights written down, masked, and normalised."""

    class Paper(torch.nn.Module):
        def forward(self, q, k, v):
            q, k = (torch.where(t > 0, t + 1, t.exp()) for t in (q, k))
            w = q @ k.transpose(-2, -1)
            w = torch.tril(w) if is_causal else w
            return (w @ v) / (w.sum(dim=-1, keepdim=True) + 1e-6)

    return Paper()


@pytest.mark.parametrize("is_causal", [False, True])
def test_outputs_and_gradients_are_those_of_the_quadratic_form(is_causal):
    torch = pytest.importorskip("torch")
    compare_modules(LinearAttention(is_causal), paper_module(torch, is_causal), Q, K, V)


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_gradient_check_passes(is_causal):
    assert len(mt.gradcheck(LinearAttention(is_causal), Q, K, V).inputs) == 3


def test_queries_and_keys_may_differ_in_number():
    assert LinearAttention()(mt.ones(2, 4), mt.ones(7, 4), mt.ones(7, 3)).shape == (2, 3)


def test_causal_attention_does_not_see_what_comes():
    changed = V.copy()
    changed[..., 3:, :] += 1
    attend = LinearAttention(is_causal=True)
    before, after = (attend(mt.tensor(Q), mt.tensor(K), mt.tensor(v)).numpy() for v in (V, changed))
    np.testing.assert_array_equal(before[..., :3, :], after[..., :3, :])
    assert (np.abs(before - after)[..., 3:, :] > 1e-3).all()


def test_shapes_that_do_not_fit_are_refused():
    attend = LinearAttention()
    with pytest.raises(mt.ShapeError, match="of the same D, got"):
        attend(mt.ones(2, 4), mt.ones(2, 5), mt.ones(2, 4))
    with pytest.raises(mt.ShapeError, match="a value for each key"):
        attend(mt.ones(2, 4), mt.ones(2, 4), mt.ones(3, 4))
    with pytest.raises(mt.ShapeError, match="as many queries as keys"):
        LinearAttention(is_causal=True)(mt.ones(2, 4), mt.ones(3, 4), mt.ones(3, 4))
    with pytest.raises(mt.ShapeError, match="queries"):
        attend(mt.ones(4), mt.ones(4), mt.ones(4))
