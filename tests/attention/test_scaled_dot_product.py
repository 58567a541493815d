import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import attention, nn
from minitorch_attn.attention import ScaledDotProductAttention

from ..nn.parity import close, normal

Q, K, V = normal(2, 3, 5, 4), normal(2, 3, 7, 4), normal(2, 3, 7, 6)
MASK = np.random.default_rng(0).random((5, 7)) < 0.6
MASK[:, 0] = True
MASKS = {
    "none": {},
    "booleans": {"attn_mask": MASK},
    "floats": {"attn_mask": normal(2, 1, 5, 7)},
    "causal": {"is_causal": True},
    "a query without keys": {"attn_mask": MASK & (np.arange(5) != 2)[:, None]},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_output_and_all_gradients_are_pytorchs(mask, dtype, scale):
    torch = pytest.importorskip("torch")
    module = ScaledDotProductAttention(scale)
    inputs = [mt.tensor(x.astype(dtype), requires_grad=True) for x in (Q, K, V)]
    theirs = [torch.tensor(x.astype(dtype), requires_grad=True) for x in (Q, K, V)]
    call = MASKS[mask]
    their_call = dict(call)
    if "attn_mask" in call:
        their_mask = torch.tensor(call["attn_mask"])
        floats = their_mask.is_floating_point()
        their_call["attn_mask"] = their_mask.to(getattr(torch, dtype)) if floats else their_mask
    y = module(*inputs, **call)
    t = torch.nn.functional.scaled_dot_product_attention(*theirs, scale=scale, **their_call)
    close(y, t, dtype, "output")
    dy = normal(*y.shape, seed=1).astype(dtype)
    y.backward(dy)
    t.backward(torch.tensor(dy))
    for name, a, b in zip(("query", "key", "value"), inputs, theirs):
        close(a.grad, b.grad, dtype, f"gradient of {name}")


@pytest.mark.parametrize("mask", MASKS)
def test_it_is_the_tiles_in_plain_form(mask):
    inputs = [mt.tensor(x) for x in (Q, K, V)]
    plain = ScaledDotProductAttention()(*inputs, **MASKS[mask])
    tiles = F.scaled_dot_product_attention(*inputs, **MASKS[mask])
    np.testing.assert_allclose(plain.numpy(), tiles.numpy(), atol=1e-12)


@pytest.mark.parametrize("mask", MASKS)
def test_the_gradient_check_passes_with_every_mask(mask):
    module = ScaledDotProductAttention()
    report = mt.gradcheck(lambda q, k, v: module(q, k, v, **MASKS[mask]), Q, K, V)
    assert not any(i.warning for i in report.inputs), str(report)


def test_arrays_are_taken_too_also_square_ones():
    q, k, v = normal(4, 4), normal(4, 4, seed=1), normal(4, 4, seed=2)
    y = ScaledDotProductAttention()(q, k, v).numpy()
    np.testing.assert_allclose(y, F.scaled_dot_product_attention(q, k, v).numpy(), atol=1e-12)


def test_a_hook_on_the_softmax_sees_the_weights():
    module, seen = ScaledDotProductAttention(), []
    with module.softmax.register_forward_hook(lambda m, inputs, p: seen.append(p.numpy())):
        y = module(mt.tensor(Q), mt.tensor(K), mt.tensor(V), attn_mask=MASK)
    (p,) = seen
    assert p.shape == (2, 3, 5, 7)
    np.testing.assert_allclose(p.sum(axis=-1), 1)
    assert (p[..., ~MASK] == 0).all()
    np.testing.assert_allclose(p @ V, y.numpy(), atol=1e-12)


def test_dropout_thins_the_weights_in_training_alone():
    mt.manual_seed(0)
    module, eye = ScaledDotProductAttention(dropout=0.25), np.eye(50)
    weights = module(mt.tensor(normal(50, 4)), mt.tensor(normal(50, 4)), mt.tensor(eye)).numpy()
    assert (weights == 0).mean() == pytest.approx(0.25, abs=0.03)
    module.eval()
    inputs = [mt.tensor(x) for x in (Q, K, V)]
    np.testing.assert_allclose(
        module(*inputs).numpy(), ScaledDotProductAttention()(*inputs).numpy(), atol=1e-12
    )


def test_the_weights_are_a_mean_so_outputs_stay_within_the_values():
    y = ScaledDotProductAttention()(mt.tensor(Q), mt.tensor(K), mt.tensor(V)).numpy()
    assert (y <= V.max(axis=-2, keepdims=True)).all() and (y >= V.min(axis=-2, keepdims=True)).all()


def test_shapes_that_do_not_fit_are_refused_by_name():
    module, ones = ScaledDotProductAttention(), mt.ones
    for shapes in [
        [(5, 4), (7, 3), (7, 6)],
        [(5, 4), (7, 4), (6, 6)],
        [(4,), (7, 4), (7, 4)],
    ]:
        with pytest.raises(mt.ShapeError, match=r"with one D and one S; got") as caught:
            module(*(ones(*shape) for shape in shapes))
        assert str(shapes[1]) in str(caught.value)
    with pytest.raises(ValueError, match="is_causal=True is a mask of its own"):
        module(ones(5, 4), ones(5, 4), ones(5, 4), attn_mask=np.ones((5, 5), bool), is_causal=True)


def test_it_prints_its_parts():
    assert repr(ScaledDotProductAttention(scale=0.5)) == (
        "ScaledDotProductAttention(scale=0.5)\n"
        "  (softmax): MaskedSoftmax()\n"
        "  (dropout): Dropout(0.0)"
    )


def test_multi_head_attention_is_found_here_too():
    assert attention.MultiheadAttention is nn.MultiheadAttention
