import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal, torch

X = normal(2, 3, 4)
DIMS = [0, 1, -1, (0,), (0, 2), [0, 2], (-1, 0), (0, 1, 2)]


@st.composite
def reductions(draw, min_side=0):
    """A shape, and axes of it to reduce, counted from either end."""
    shape = draw(array_shapes(min_dims=1, max_dims=4, min_side=min_side, max_side=4))
    axes = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    dim = tuple(d - len(shape) if draw(st.booleans()) else d for d in axes)
    return shape, dim[0] if len(dim) == 1 and draw(st.booleans()) else dim, draw(st.booleans())


@settings(max_examples=60, deadline=None)
@given(reductions())
def test_sum_over_any_axes_of_any_shape(reduction):
    shape, dim, keepdim = reduction
    x = mt.tensor(normal(*shape), requires_grad=True)
    y = F.sum(x, dim, keepdim)
    np.testing.assert_allclose(y.numpy(), x.numpy().sum(axis=dim, keepdims=keepdim), atol=1e-12)
    dy = normal(*y.shape)
    y.backward(dy)
    spread = np.broadcast_to(dy if keepdim else np.expand_dims(dy, dim), shape)
    np.testing.assert_array_equal(x.grad.numpy(), spread)


@pytest.mark.parametrize("op", ["mean", "amax", "amin", "logsumexp", "norm", "var", "std"])
@settings(max_examples=15, deadline=None)
@given(reductions(min_side=1))
def test_reductions_over_any_axes(op, reduction):
    shape, dim, keepdim = reduction
    function = getattr(F, op)
    if op in ("var", "std"):
        function = lambda x, **s: F.var(x, correction=0, **s)  # noqa: E731
    values = normal(*shape)
    if op == "norm":
        y = np.sqrt(np.square(values).sum(axis=dim, keepdims=keepdim))
    elif op == "logsumexp":
        y = np.log(np.exp(values).sum(axis=dim, keepdims=keepdim))
    else:
        y = getattr(values, {"std": "var"}.get(op, op.lstrip("a")))(axis=dim, keepdims=keepdim)
    result = function(mt.tensor(values), dim=dim, keepdim=keepdim)
    np.testing.assert_allclose(result.numpy(), y, atol=1e-12)
    weights = normal(*y.shape, seed=1)
    mt.gradcheck(lambda x: function(x, dim=dim, keepdim=keepdim) * weights, values)


@pytest.mark.parametrize("op", ["sum", "mean", "amax", "amin", "var", "std", "logsumexp"])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("keepdim", [False, True])
def test_axes_as_in_pytorch(op, dim, keepdim):
    compare(getattr(F, op), getattr(torch, op, None), X, dim=dim, keepdim=keepdim)


@pytest.mark.parametrize("op", ["sum", "mean", "prod", "var", "std", "norm", "max", "min"])
def test_all_axes_without_dim(op):
    compare(getattr(F, op), getattr(torch, op, None), X)
    assert getattr(F, op)(mt.tensor(X)).shape == ()


@pytest.mark.parametrize("op", ["sum", "mean", "amax", "amin", "prod", "logsumexp", "norm"])
def test_one_element_and_no_axes(op):
    dim = {"dim": None} if op == "logsumexp" else {}
    for shape in [(), (1,), (1, 1, 1)]:
        check_gradients(getattr(F, op), normal(*shape), **dim)


@pytest.mark.parametrize("op,expected", [("sum", 0), ("prod", 1), ("norm", 0)])
def test_nothing_reduced_gives_the_neutral_element(op, expected):
    x = mt.zeros(0, 3).requires_grad_()
    y = getattr(F, op)(x, dim=0)
    np.testing.assert_array_equal(y.numpy(), expected)
    y.sum().backward()
    assert x.grad.shape == (0, 3)


@pytest.mark.parametrize("op", ["amax", "max", "argmax", "amin", "min", "argmin"])
def test_extremes_of_nothing_are_refused(op):
    with pytest.raises(ValueError, match=r"^(amax|amin|argmax|argmin): .*\(0, 3\)"):
        getattr(F, op)(mt.zeros(0, 3))


@pytest.mark.parametrize("op", ["sum", "mean", "amax", "var", "prod", "argmax", "cumsum", "max"])
def test_a_dim_that_does_not_exist_is_named_with_those_that_do(op):
    with pytest.raises(IndexError, match=r"no dim 2, its dims are -2 to 1"):
        getattr(F, op)(mt.ones(2, 3), dim=2)


# -- extremes --------------------------------------------------------------------------------------

TIES = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])


@pytest.mark.parametrize("op", ["amax", "amin", "max", "min"])
def test_extremes_share_or_send_gradients_as_pytorch_does_at_ties(op):
    compare(getattr(F, op), getattr(torch, op, None), TIES, dim=1)
    if op in ("max", "min"):
        compare(getattr(F, op), getattr(torch, op, None), TIES)


def test_max_along_an_axis_gives_values_and_indices():
    values, indices = mt.tensor(X).max(1)
    np.testing.assert_array_equal(values.numpy(), X.max(axis=1))
    np.testing.assert_array_equal(indices.numpy(), X.argmax(axis=1))
    kept = mt.tensor(X).min(-1, keepdim=True)
    assert kept.values.shape == kept.indices.shape == (2, 3, 1)
    assert not kept.indices.requires_grad and kept.indices.dtype == np.int64


@pytest.mark.parametrize("dim", [None, 0, -1])
@pytest.mark.parametrize("keepdim", [False, True])
def test_argmax_and_argmin(dim, keepdim):
    for op in ("argmax", "argmin"):
        compare(getattr(F, op), getattr(torch, op, None), X, dim=dim, keepdim=keepdim)


# -- products and sums -----------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [[], [1], [0, 2], [0, 1, 2, 3]])
@pytest.mark.parametrize("dim", [None, 0, 1, -1])
def test_prod_has_the_right_gradient_where_factors_are_zero(zeros, dim):
    x = normal(4, 3, 2)
    x[zeros, 1] = 0
    compare(lambda x: F.prod(x, dim=dim) if dim is not None else F.prod(x), _torch_prod(dim), x)
    check_gradients(F.prod, normal(4, 3, 2), dim=dim)


def _torch_prod(dim):
    return lambda x: torch.prod(x) if dim is None else torch.prod(x, dim)


def test_prod_takes_one_axis():
    with pytest.raises(TypeError, match="prod: dim is one axis"):
        F.prod(mt.ones(2, 3), dim=(0, 1))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cumsum(dim):
    compare(F.cumsum, getattr(torch, "cumsum", None), X, dim=dim)


def test_mean_of_many_float32_stays_exact():
    x = mt.full((1 << 20,), 0.1, dtype="float32")
    assert x.mean().item() == pytest.approx(0.1, rel=1e-6)


def test_counts_of_booleans_and_their_share():
    hits = mt.tensor([True, False, True, True])
    assert hits.sum().item() == 3 and hits.sum().dtype == np.int64
    assert hits.mean().item() == 0.75 and hits.mean().dtype == np.float32


# -- variance and norms ----------------------------------------------------------------------------


@pytest.mark.parametrize("correction", [0, 1, 2])
@pytest.mark.parametrize("op", ["var", "std"])
def test_correction(op, correction):
    compare(getattr(F, op), getattr(torch, op, None), X, dim=2, correction=correction)


def test_variance_of_one_value_is_undefined():
    with np.errstate(invalid="ignore"):
        assert math.isnan(mt.ones(1).var().item())
    assert mt.ones(1).var(correction=0).item() == 0


def test_std_of_equal_values_has_gradient_zero():
    compare(lambda x: F.std(x, dim=1), lambda x: torch.std(x, 1), np.ones((2, 3)))


def test_variance_far_from_zero_keeps_its_digits():
    x = mt.tensor(normal(1000) + 1e8)
    assert x.var().item() == pytest.approx(normal(1000).var(ddof=1), rel=1e-6)


@pytest.mark.parametrize("p", [1, 2, 3, 1.5, math.inf])
@pytest.mark.parametrize("dim", [None, 1, (0, 2)])
def test_norms(p, dim):
    compare(
        lambda x: F.norm(x, p=p, dim=dim),
        lambda x: torch.linalg.vector_norm(x, p, dim),
        X,
    )


@pytest.mark.parametrize("p", [1, 2, 3, math.inf])
def test_norm_of_zeros_has_gradient_zero(p):
    x = mt.zeros(2, 3).requires_grad_()
    with np.errstate(all="raise"):
        F.norm(x, p=p, dim=1).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 0)


# -- logsumexp -------------------------------------------------------------------------------------


def test_logsumexp_of_large_values_does_not_overflow():
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = F.logsumexp(mt.tensor([[1e4, 1e4], [-1e4, -1e4]], requires_grad=True), 1)
        y.sum().backward()
    np.testing.assert_allclose(y.numpy(), [1e4 + math.log(2), -1e4 + math.log(2)])


def test_logsumexp_of_nothing_but_minus_infinity():
    x = mt.tensor([[-math.inf, -math.inf], [0.0, -math.inf]], requires_grad=True)
    with np.errstate(invalid="raise"):
        y = F.logsumexp(x, 1)
        y.sum().backward()
    np.testing.assert_array_equal(y.numpy(), [-math.inf, 0])
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 0], [1, 0]])


# -- logic -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["any", "all"])
@pytest.mark.parametrize("dim", [None, 0, (0, 1)])
def test_any_and_all(op, dim):
    mask = X > 0.5
    y = getattr(F, op)(mt.tensor(mask), dim=dim)
    np.testing.assert_array_equal(y.numpy(), getattr(mask, op)(axis=dim))
    assert y.dtype == np.bool_ and not y.requires_grad


@pytest.mark.parametrize("name", ["mean", "var", "std", "norm"])
def test_half_precision_overflows_only_if_the_result_does(name):
    x = mt.tensor(np.full(70000, 1.0), dtype="float16", requires_grad=True)
    y = getattr(F, name)(x)
    expected = {"mean": 1, "var": 0, "std": 0, "norm": np.sqrt(70000)}[name]
    assert y.dtype == np.float16 and abs(y.item() - expected) < 0.2
    y.backward()
    assert x.grad.dtype == np.float16 and np.isfinite(x.grad.numpy()).all()
    if name == "mean":
        np.testing.assert_allclose(x.grad.numpy(), 1 / 70000, rtol=1e-2)


def test_greater_of_two_tensors_by_max_and_min():
    a, b = mt.tensor([1.0, 5.0]), mt.tensor([2.0, 3.0])
    assert F.max(a, b).tolist() == [2, 5] and a.min(b).tolist() == [1, 3]


def test_the_norm_zero_counts():
    compare(F.norm, lambda x, p, dim: torch.linalg.vector_norm(x, p, dim), normal(2, 3), p=3, dim=1)
    assert F.norm(mt.tensor([[0.0, 2.0, -1.0]]), 0, 1).tolist() == [2.0]
