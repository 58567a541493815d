import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import compare, normal, positive, torch

SHAPES = mutually_broadcastable_shapes(num_shapes=2, min_dims=0, max_dims=3, min_side=0, max_side=3)
BINARY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "remainder": np.remainder,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "pow": np.power,
}


@pytest.mark.parametrize("name", BINARY)
@settings(max_examples=25, deadline=None)
@given(shapes=SHAPES, seed=st.integers(0, 99))
def test_two_operands_of_any_shapes_broadcast(name, shapes, seed):
    a, b = (positive(*shape, seed=seed + i) for i, shape in enumerate(shapes.input_shapes))
    op = getattr(F, name)
    y = op(mt.tensor(a), mt.tensor(b))
    np.testing.assert_allclose(y.numpy(), BINARY[name](a, b))
    assert y.shape == shapes.result_shape
    mt.gradcheck(op, a, b)


@settings(max_examples=25, deadline=None)
@given(
    shapes=mutually_broadcastable_shapes(num_shapes=3, min_dims=0, max_dims=3, max_side=3),
    seed=st.integers(0, 99),
)
def test_where_broadcasts_all_three(shapes, seed):
    condition, a, b = (normal(*s, seed=seed + i) for i, s in enumerate(shapes.input_shapes))
    y = F.where(condition > 0, mt.tensor(a, requires_grad=True), mt.tensor(b, requires_grad=True))
    np.testing.assert_array_equal(y.numpy(), np.where(condition > 0, a, b))
    x, z = mt.tensor(a, requires_grad=True), mt.tensor(b, requires_grad=True)
    F.where(condition > 0, x, z).sum().backward()
    chosen = np.broadcast_to(condition > 0, shapes.result_shape)
    assert x.grad.shape == x.shape and z.grad.shape == z.shape
    assert x.grad.sum().item() == chosen.sum() and z.grad.sum().item() == (~chosen).sum()


def test_where_keeps_nan_of_the_other_branch_out_of_the_gradient():
    x = mt.tensor([-1.0, 4.0], requires_grad=True)
    F.where(x > 0, F.sqrt(F.where(x > 0, x, 1.0)), 0.0).backward(np.array([np.nan, 1.0]))
    np.testing.assert_array_equal(x.grad.numpy(), [0, 0.25])


@pytest.mark.parametrize("exponent", [-3, -2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.0, 3, 4, 5, 8, 33])
def test_a_number_as_exponent_agrees_with_pytorch(exponent):
    compare(lambda x: x**exponent, lambda x: x**exponent, positive(3, 4))


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 7, 1.5])
def test_powers_at_zero_have_no_nan_and_no_warning(exponent):
    x = mt.tensor([0.0], requires_grad=True)
    with np.errstate(all="raise"):
        (x**exponent).backward()
    assert x.grad.item() == (1 if exponent == 1 else 0)


@pytest.mark.parametrize("exponent", [2, 3, 4, 5])
def test_whole_powers_of_negative_numbers(exponent):
    compare(lambda x: x**exponent, lambda x: x**exponent, -positive(3, 4))


def test_whole_powers_of_integers_are_integers():
    for exponent in (0, 1, 2, 3, 6):
        y = mt.tensor([-2, 0, 3]) ** exponent
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y.numpy(), np.array([-2, 0, 3]) ** exponent)


def test_whole_powers_agree_with_a_loop():
    x = normal(50)
    for exponent in range(2, 40):
        expected = np.prod([x] * exponent, axis=0)
        np.testing.assert_allclose((mt.tensor(x) ** exponent).numpy(), expected, rtol=1e-13)


def test_tensor_exponents_at_base_zero():
    compare(F.pow, getattr(torch, "pow", None), np.zeros(4), np.array([0.0, 1.0, 2.0, 2.5]))


def test_a_number_as_base():
    compare(lambda x: 2**x, lambda x: 2**x, normal(3, 4))


def test_ties_share_the_gradient_evenly():
    a, b = np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])
    for op in ("maximum", "minimum"):
        compare(getattr(F, op), getattr(torch, op, None), a, b)
    x, z = mt.tensor(a, requires_grad=True), mt.tensor(b, requires_grad=True)
    F.maximum(x, z).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0.5, 0, 1])
    np.testing.assert_array_equal(z.grad.numpy(), [0.5, 1, 0])


def test_clamp_passes_the_gradient_at_its_bounds():
    x = mt.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], requires_grad=True)
    F.clamp(x, -1, 1).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1, 1, 1, 0])


@pytest.mark.parametrize("bounds", [{"min": 0}, {"max": 0.5}, {"min": -1, "max": 1}])
def test_clamp_with_one_bound_or_two(bounds):
    compare(F.clamp, getattr(torch, "clamp", None), normal(3, 4), **bounds)


def test_clamp_needs_a_bound():
    with pytest.raises(ValueError, match="clamp: give min, max or both"):
        mt.ones(3).clamp()


def test_abs_has_no_slope_at_zero():
    x = mt.zeros(3).requires_grad_()
    abs(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 0)


def test_remainder_has_the_sign_of_the_divisor():
    for a, b in [(7.0, 3.0), (-7.0, 3.0), (7.0, -3.0), (-7.0, -3.0)]:
        compare(F.remainder, getattr(torch, "remainder", None), np.array([a]), np.array([b]))


@pytest.mark.parametrize("op", ["expm1", "log1p"])
def test_small_values_keep_their_digits(op):
    y = getattr(F, op)(mt.tensor(np.array([1e-18])))
    assert y.item() == 1e-18


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3)])
@pytest.mark.parametrize("op", [F.exp, F.abs, F.negative, F.square, lambda x: x**3, F.sqrt])
def test_edge_shapes(op, shape):
    x = mt.tensor(positive(*shape), requires_grad=True)
    y = op(x)
    y.backward(np.ones(shape))
    assert y.shape == x.grad.shape == shape


# -- dtypes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(2)])
def test_numbers_do_not_change_the_dtype(number):
    for dtype in ("float32", "float64"):
        x = mt.tensor([1.0, 2.0], dtype=dtype)
        for y in (x + number, number * x, x / number, number - x, x**number, F.maximum(x, number)):
            assert y.dtype == dtype


def test_integers_do_not_widen_floats():
    x, n = mt.tensor([1.0, 2.0], dtype="float32"), mt.tensor([1, 2])
    for y in (x + n, n * x, x / n, n**x, F.maximum(x, n), F.where(n > 1, x, n)):
        assert y.dtype == np.float32
    assert (x * n.numpy()).dtype == np.float32


def test_integers_made_into_floats_have_the_default_dtype():
    n = mt.tensor([1, 2])
    for y in (n / 2, n / n, F.exp(n), n.sqrt(), n * 0.5, 2.0**n):
        assert y.dtype == np.float32
    mt.set_default_dtype("float64")
    try:
        assert (n / 2).dtype == np.float64
    finally:
        mt.set_default_dtype("float32")


def test_integers_stay_integers():
    n = mt.tensor([5, -3])
    for y in (n + 1, 2 * n, n - n, n // 2, n % 2, -n, abs(n), n**2, F.clamp(n, 0, 3)):
        assert y.dtype == np.int64
    np.testing.assert_array_equal((n // 2).numpy(), [2, -2])
    np.testing.assert_array_equal((n % 2).numpy(), [1, 1])


def test_float64_beside_float32_gives_float64():
    y = mt.tensor([1.0], dtype="float64") * mt.tensor([1.0], dtype="float32")
    assert y.dtype == np.float64


# -- errors ----------------------------------------------------------------------------------------


def test_shapes_that_do_not_broadcast_are_named_with_the_axis():
    with pytest.raises(
        mt.ShapeError, match=r"add: shapes \(2, 3\) and \(4, 3\).* axis -2 is 2 and 4"
    ):
        mt.ones(2, 3) + mt.ones(4, 3)


@pytest.mark.parametrize("operand", ["2", {}, object()])
def test_operands_that_are_no_numbers_are_refused(operand):
    with pytest.raises(TypeError, match="multiply"):
        mt.ones(2) * operand


def test_an_infinite_gradient_is_stopped_where_the_mask_is_false():
    masks = {
        "relu": F.relu,
        "relu6": F.relu6,
        "hardswish": lambda x: F.hardswish(x - 3) + 9,
        "hardsigmoid": lambda x: F.hardsigmoid(x - 3),
        "clamp": lambda x: x.clamp(min=0),
        "maximum": lambda x: F.maximum(x, 0.0),
        "minimum": lambda x: -F.minimum(-x, 0.0),
        "where": lambda x: F.where(x > 0, x, 0.0),
        "masked_fill": lambda x: x.masked_fill(x <= 0, 0.0),
    }
    for name, bend in masks.items():
        for dtype in ("float16", "float32", "float64"):
            x = mt.tensor([-1.0, 4.0], dtype=dtype, requires_grad=True)
            bend(x).backward(np.array([np.inf, 2.0]))
            assert x.grad[0].item() == 0, (name, dtype)
            assert np.isfinite(x.grad[1].item()) and x.grad.dtype == dtype


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_the_root_of_a_clamped_number_has_a_gradient():
    x = mt.tensor([-1.0, 4.0], requires_grad=True)
    x.clamp(min=0).sqrt().sum().backward()
    assert x.grad.tolist() == [0.0, 0.25]


def test_bounds_do_not_enlarge_what_they_bound():
    x = mt.ones(3)
    assert x.clamp(min=mt.tensor([2.0])).tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(mt.ShapeError, match=r"clamp: min of shape \(2, 3\) must broadcast to"):
        x.clamp(min=mt.ones(2, 3))


SMALL_INTEGERS = np.array([1, 4, 200], np.uint8)
OF_FLOATS = """sigmoid tanh silu gelu softplus logsigmoid hardsigmoid hardswish elu leaky_relu exp
    expm1 log log1p sqrt rsqrt reciprocal sin cos erf mean var std norm""".split()


@pytest.mark.parametrize("name", OF_FLOATS)
@pytest.mark.filterwarnings("ignore:overflow")
def test_small_integers_are_computed_with_as_floats(name):
    op = getattr(F, name)
    y = op(mt.tensor(SMALL_INTEGERS))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.numpy(), op(mt.tensor(SMALL_INTEGERS.astype("f"))).numpy())


def test_two_operands_may_have_pytorchs_names():
    a, b = mt.tensor([5.0]), mt.tensor([2.0])
    assert F.subtract(a, other=b).item() == F.subtract(input=a, other=b).item() == 3
    assert F.relu(input=a).item() == 5
    assert F.where(a > 0, input=a, other=b).item() == 5
