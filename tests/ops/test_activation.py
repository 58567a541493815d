import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal, torch

X = 3 * normal(4, 5)
ELEMENTWISE = ["elu", "gelu", "hardsigmoid", "hardswish", "leaky_relu", "logsigmoid", "relu"]
ELEMENTWISE += ["relu6", "sigmoid", "silu", "softplus", "tanh", "erf"]
ROUGH = {"float32": 2e-5, "float64": 1e-7}  # PyTorch's hardsigmoid divides by 6 in float32


def pytorch(name):
    return getattr(torch.nn.functional, name, None) or getattr(torch, name) if torch else None


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_activations_agree_with_pytorch(name):
    tolerance = {"tolerance": ROUGH} if name == "hardsigmoid" else {}
    compare(getattr(F, name), pytorch(name), np.linspace(-24, 24, 98), **tolerance)


@pytest.mark.parametrize("name", ELEMENTWISE)
@settings(max_examples=10, deadline=None)
@given(shape=array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
def test_elementwise_activations_take_any_shape(name, shape):
    op = getattr(F, name)
    x = normal(*shape)
    one_by_one = [op(mt.tensor(v)).item() for v in x.ravel()]
    np.testing.assert_allclose(op(mt.tensor(x)).numpy().ravel(), one_by_one, rtol=1e-13, atol=0)
    mt.gradcheck(op, x)


@pytest.mark.parametrize("name", ELEMENTWISE + ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_inputs_overflow_nowhere(name, dtype):
    settings = {"dim": 0} if "softmax" in name else {}
    x = mt.tensor([-1e30, -1e4, -100, 0, 100, 1e4, 1e30], dtype=dtype, requires_grad=True)
    if name in ("erf", "gelu"):  # they square their input
        x = mt.tensor(np.clip(x.numpy(), -1e4, 1e4), requires_grad=True)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = getattr(F, name)(x, **settings)
        y.backward(np.ones(y.shape))
    assert np.isfinite(y.numpy()).all() and np.isfinite(x.grad.numpy()).all()
    assert y.dtype == x.grad.dtype == dtype


@pytest.mark.parametrize(
    "name,slope", [("relu", 0), ("relu6", 0), ("leaky_relu", 0.01), ("elu", 1)]
)
def test_slopes_at_the_kink_are_pytorchs(name, slope):
    compare(getattr(F, name), pytorch(name), np.array([0.0, 6.0, -3.0, 3.0]))
    x = mt.zeros(1).requires_grad_()
    getattr(F, name)(x).sum().backward()
    assert x.grad.item() == pytest.approx(slope)


@pytest.mark.parametrize("name", ["hardsigmoid", "hardswish"])
def test_slopes_where_straight_lines_meet_are_pytorchs(name):
    compare(getattr(F, name), pytorch(name), np.array([-3.0, 0.0, 3.0]), tolerance=ROUGH)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "leaky_relu", "elu", "softplus"])
def test_nan_stays_nan(name):
    assert math.isnan(getattr(F, name)(mt.tensor(math.nan)).item())


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.5, -0.5])
def test_leaky_relu_of_any_slope(slope):
    compare(F.leaky_relu, pytorch("leaky_relu"), X, negative_slope=slope)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_elu_of_any_alpha(alpha):
    compare(F.elu, pytorch("elu"), X, alpha=alpha)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_exact_and_approximate(approximate):
    compare(F.gelu, pytorch("gelu"), X, approximate=approximate)
    check_gradients(F.gelu, X, approximate=approximate)


def test_gelu_names_the_approximations_it_knows():
    with pytest.raises(ValueError, match="gelu: approximate is one of none, tanh, not 'erf'"):
        F.gelu(mt.ones(2), approximate="erf")


@pytest.mark.parametrize("beta,threshold", [(1, 20), (2, 5), (0.5, 1)])
def test_softplus_is_linear_above_its_threshold(beta, threshold):
    compare(F.softplus, pytorch("softplus"), 4 * X, beta=beta, threshold=threshold)


def test_sigmoid_keeps_its_digits_far_from_zero():
    y = F.sigmoid(mt.tensor([-80.0, -30.0], dtype="float32"))
    np.testing.assert_allclose(y.numpy(), np.exp([-80.0, -30.0]), rtol=1e-5)


def test_log_softmax_keeps_its_digits_far_from_the_maximum():
    y = F.log_softmax(mt.tensor([0.0, 1000.0]), 0)
    np.testing.assert_array_equal(y.numpy(), [-1000, 0])


@pytest.mark.parametrize("dtype,accuracy", [("float32", 3e-7), ("float64", 3e-14)])
def test_erf_agrees_with_the_standard_library(dtype, accuracy):
    x = np.concatenate([np.linspace(-7, 7, 2001), [-np.inf, np.inf, 0, 1e-30, 30]]).astype(dtype)
    expected = [math.erf(v) for v in x.astype(float)]
    np.testing.assert_allclose(F.erf(mt.tensor(x)).numpy(), expected, rtol=0, atol=accuracy)


# -- softmax ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_softmax_over_any_axis(name, dim):
    compare(getattr(F, name), pytorch(name), normal(2, 3, 4), dim=dim)
    check_gradients(getattr(F, name), normal(2, 3, 4), dim=dim)


@settings(max_examples=30, deadline=None)
@given(array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4), st.integers(0, 9), st.data())
def test_softmax_is_a_distribution(shape, seed, data):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = mt.tensor(10 * normal(*shape, seed=seed), requires_grad=True)
    y = F.softmax(x, dim)
    assert (y.numpy() >= 0).all()
    np.testing.assert_allclose(y.numpy().sum(axis=dim), 1)
    y.backward(normal(*shape, seed=seed + 1))  # a constant added to x changes nothing:
    np.testing.assert_allclose(x.grad.numpy().sum(axis=dim), 0, atol=1e-12)
    np.testing.assert_allclose(F.log_softmax(x, dim).exp().numpy(), y.numpy())


def test_softmax_gives_nothing_to_what_is_masked_out():
    x = mt.tensor([[1.0, -math.inf, 2.0]], requires_grad=True)
    y = F.softmax(x, dim=1)
    y[0, 0].backward()
    assert y.numpy()[0, 1] == 0 and x.grad.numpy()[0, 1] == 0
    np.testing.assert_allclose(y.numpy().sum(), 1)


@pytest.mark.parametrize("op", [F.softmax, F.log_softmax])
def test_softmax_needs_an_axis_that_exists(op):
    with pytest.raises(IndexError, match=rf"{op.__name__}: .*no dim 2, its dims are -2 to 1"):
        op(mt.ones(2, 3), 2)
    with pytest.raises(TypeError, match=rf"{op.__name__}: .*'dim'"):
        op(mt.ones(2, 3))


@pytest.mark.parametrize("op", [F.softmax, F.log_softmax])
def test_softmax_names_the_axis_that_is_missing(op):
    with pytest.raises(IndexError, match="softmax: the tensor has no dim 0, it has no axes"):
        op(mt.tensor(1.0), dim=0)
    assert op(mt.tensor([1, 2]), dim=0).dtype == np.float32
