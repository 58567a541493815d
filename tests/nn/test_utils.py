import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn


def with_gradients(seed=0):
    rng = np.random.default_rng(seed)
    params = [nn.Parameter(np.zeros(shape)) for shape in ((3, 2), (4,), ())]
    for p in params[:2]:
        p.grad = mt.tensor(rng.standard_normal(p.shape))
    return params


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, float("inf")])
@pytest.mark.parametrize("max_norm", [0.1, 100.0])
def test_clipping_by_norm_is_pytorchs(norm_type, max_norm):
    torch = pytest.importorskip("torch")
    ours = with_gradients()
    theirs = [torch.nn.Parameter(torch.zeros(p.shape, dtype=torch.float64)) for p in ours]
    for p, t in zip(ours[:2], theirs):
        t.grad = torch.tensor(p.grad.numpy().copy())
    total = nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    their_total = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert total.item() == pytest.approx(their_total.item(), rel=1e-6)
    for p, t in zip(ours[:2], theirs):
        np.testing.assert_allclose(p.grad.numpy(), t.grad.numpy(), rtol=1e-12)
    assert ours[2].grad is None


def test_clipping_by_value_is_pytorchs():
    torch = pytest.importorskip("torch")
    (p, *_), clipped = with_gradients(), with_gradients()
    nn.utils.clip_grad_value_(clipped, 0.5)
    expected = torch.tensor(p.grad.numpy().copy()).clamp(-0.5, 0.5).numpy()
    np.testing.assert_array_equal(clipped[0].grad.numpy(), expected)


def test_gradients_that_share_an_array_are_scaled_once_each():
    a, b = nn.Parameter(np.zeros(4)), nn.Parameter(np.zeros(4))
    (a + b).backward(np.full(4, 3.0))
    assert nn.utils.clip_grad_norm_([a, b], 1.0).item() == pytest.approx(np.sqrt(72))
    np.testing.assert_allclose(a.grad.numpy(), 3 / np.sqrt(72), rtol=1e-6)
    np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())


def test_a_norm_that_is_not_finite_can_stop_the_training():
    p = nn.Parameter(np.zeros(2))
    p.grad = mt.tensor([np.nan, 1.0])
    with pytest.raises(mt.AnomalyError, match="the norm of the gradients is nan"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)


def test_no_gradients_have_norm_zero():
    assert nn.utils.clip_grad_norm_([nn.Parameter(mt.ones(2))], 1.0).item() == 0


def test_dtype_is_kept():
    p = nn.Parameter(np.zeros(2, dtype="float32"))
    p.grad = mt.tensor(np.ones(2, dtype="float32"))
    nn.utils.clip_grad_norm_([p], 0.1)
    assert p.grad.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_gradients_with_a_norm_that_is_not_finite_become_pytorchs(value):
    torch = pytest.importorskip("torch")
    ours = with_gradients()
    ours[0].grad = mt.tensor(np.full((3, 2), value))
    theirs = [torch.nn.Parameter(torch.zeros(p.shape, dtype=torch.float64)) for p in ours]
    for p, t in zip(ours[:2], theirs):
        t.grad = torch.tensor(p.grad.numpy().copy())
    with np.errstate(invalid="ignore"):
        nn.utils.clip_grad_norm_(ours, 1.0)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    for p, t in zip(ours[:2], theirs):
        np.testing.assert_array_equal(p.grad.numpy(), t.grad.numpy())


def test_gradients_within_the_bound_are_not_copied():
    params = with_gradients()
    before = [p.grad for p in params]
    nn.utils.clip_grad_norm_(params, 100.0)
    assert all(p.grad is g for p, g in zip(params, before))


def test_the_norm_of_half_precision_gradients_does_not_overflow():
    p = nn.Parameter(np.zeros(4, dtype="float16"))
    p.grad = mt.tensor(np.full(4, 300, dtype="float16"))
    assert nn.utils.clip_grad_norm_([p], 1.0).item() == 600
    np.testing.assert_allclose(p.grad.numpy(), 0.5, rtol=1e-3)
