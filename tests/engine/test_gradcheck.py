"""The gradient checker must not pass a wrong rule, and must not blame a right one."""

import numpy as np
import pytest

import minitorch_attn.engine as engine
from minitorch_attn.engine import (
    DTypeError,
    GradcheckError,
    Tensor,
    check_vjp,
    gradcheck,
    is_grad_enabled,
    no_grad,
    primitive,
    tensor,
)

from .primitives import add, exp, log, matmul, multiply, relu, scale, square, take, total


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def elementwise(f, slope):
    """A function in the form of a primitive, of f and its derivative."""
    return lambda x: (f(x), lambda dy: dy * slope(x))


def report_of(f, *inputs, **options):
    return check_vjp(f, *inputs, raise_on_failure=False, **options)


# -- right rules pass --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "inputs"),
    [
        (add, (normal(2, 3), normal(3))),
        (multiply, (normal(2, 3), normal(2, 1))),
        (exp, (normal(4),)),
        (matmul, (normal(2, 3), normal(3, 4))),
        (total, (normal(2, 3),)),
        (square, (normal(),)),
        (relu, (normal(3, 3),)),
    ],
)
def test_right_rules_pass(f, inputs):
    for report in (gradcheck(f, *inputs), check_vjp(f, *inputs)):
        assert report and report.ok
        assert report.max_error < 1e-7
        assert len(report.inputs) == len(inputs)
        assert not any(i.warning or i.diagnosis or i.on_kink.any() for i in report.inputs)


@pytest.mark.parametrize(
    ("f", "slope", "x"),
    [
        (lambda x: np.exp(50 * x), lambda x: 50 * np.exp(50 * x), normal(5) / 2),
        (lambda x: np.sin(1000 * x), lambda x: 1000 * np.cos(1000 * x), normal(5)),
        (lambda x: np.tanh(300 * x), lambda x: 300 / np.cosh(300 * x) ** 2, normal(5) / 300),
        (lambda x: x**3, lambda x: 3 * x**2, np.array([0.0, 1e-7, 1.0, 1e3, 1e5])),
        (lambda x: 1 / x, lambda x: -1 / x**2, np.array([1e-3, 1.0, 1e4])),
        (np.sqrt, lambda x: 0.5 / np.sqrt(x), np.array([1e-4, 1.0, 1e6])),
    ],
    ids=["exp(50 x)", "sin(1000 x)", "tanh(300 x)", "x^3", "1/x", "sqrt"],
)
def test_steep_functions_are_not_mistaken_for_kinks(f, slope, x):
    (result,) = check_vjp(elementwise(f, slope), x).inputs
    assert not result.on_kink.any()


def test_large_and_small_inputs_are_measured_by_steps_of_their_size():
    assert check_vjp(elementwise(np.sin, np.cos), np.array([1e8 / 3, 1e4 / 3, 1.0, 1e-6]))


@pytest.mark.parametrize("distance", [1e-9, 1e-8, 2e-8, 5e-8, 1e-7, 2e-7, 3e-7, 5e-7, 9e-7, 2e-6])
@pytest.mark.parametrize("side", [1, -1])
def test_near_a_kink_a_right_rule_passes(distance, side):
    x = np.array([side * distance, 1.0])
    assert check_vjp(relu, x)


# -- wrong rules fail --------------------------------------------------------------------------


def test_a_wrong_gradient_raises_with_its_report():
    wrong = elementwise(np.sin, lambda x: np.cos(x) + 0.01)
    with pytest.raises(GradcheckError) as error:
        check_vjp(wrong, normal(3))
    assert not error.value.report
    assert error.value.report.max_error > 1e-4
    assert str(error.value) == str(error.value.report)
    assert isinstance(error.value, AssertionError)


def test_softmax_without_its_sum_fails_though_the_sum_of_its_outputs_is_constant():
    def softmax(x):
        e = np.exp(x - x.max())
        y = e / e.sum()
        return y, lambda dy: y * dy

    assert not report_of(softmax, normal(4))
    # With dy of ones, right and wrong rule differ by y alone; a rule of zeros would be right.
    assert not report_of(lambda x: (softmax(x)[0], lambda dy: 0 * dy), normal(4))


def test_an_error_in_a_small_element_is_not_hidden_by_a_large_one():
    def scaled(x):
        wrong = np.array([1e5, 1.1])
        return x * np.array([1e5, 1.0]), lambda dy: dy * wrong

    assert not report_of(scaled, np.array([1.0, 1.0]))


def test_inputs_from_the_first_generator_at_hand_are_not_the_cotangent():
    def linear(x, weight):  # x.T @ dy should be dy.T @ x: the same if dy is x
        return x @ weight.T, (lambda dy: dy @ weight, lambda dy: x.T @ dy)

    x = np.random.default_rng(0).standard_normal((4, 3))
    assert not report_of(linear, x, normal(3, 3))


def test_a_small_relative_error_fails():
    assert not report_of(elementwise(np.sin, lambda x: np.cos(x) * (1 + 1e-4)), normal(3))


def test_every_input_is_checked_on_its_own():
    def product(a, b):
        return a * b, (lambda dy: dy * b, lambda dy: dy * b)

    first, second = report_of(product, normal(3), normal(3, seed=1)).inputs
    assert first.ok and not second.ok
    assert (first.name, second.name) == ("a", "b")


def test_the_other_inputs_need_no_gradient_meanwhile():
    recorded = set()

    def product(a, b):
        if is_grad_enabled():
            recorded.add((a.requires_grad, b.requires_grad))
        return multiply(a, b)

    assert gradcheck(product, normal(3), normal(3))
    assert recorded == {(True, False), (False, True)}


def test_the_gradient_to_one_of_two_equal_inputs_does_not_stand_in_for_the_other():
    @primitive
    def product(a, b):
        return a * b, (lambda dy: 2 * dy * b, lambda dy: 0 * dy)

    x = normal(3)
    x = tensor(x)
    report = gradcheck(product, x, x, raise_on_failure=False)  # the sum over both is right
    assert [i.ok for i in report.inputs] == [False, False]


def test_a_rule_that_ignores_the_incoming_gradient_fails():
    assert not report_of(lambda x: (np.sin(x), lambda dy: np.cos(x)), normal(3))


def test_a_lost_graph_fails():
    def cut(x):
        return exp(square(x).detach())

    report = gradcheck(cut, normal(3), raise_on_failure=False)
    assert report.inputs[0].diagnosis == "zero everywhere: no gradient arrives at this input"


def test_a_gradient_of_the_wrong_shape_fails():
    def summed(x):
        return x.sum(axis=0), lambda dy: dy

    (result,) = report_of(summed, normal(2, 3)).inputs
    assert not result.ok
    assert np.isnan(result.error).all()


def test_broadcasting_is_undone_for_primitives_only():
    def product(a, b):
        return a * b, (lambda dy: dy * b, lambda dy: dy * a)

    a, b = normal(2, 3), normal(3)
    assert check_vjp(primitive(product), a, b)
    plain = report_of(product, a, b)
    assert [i.ok for i in plain.inputs] == [True, False]
    assert plain.inputs[1].diagnosis == (
        "shape (2, 3) instead of (3,): not summed over the broadcast axis 0"
    )


# -- kinks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "slope", "x", "kinks"),
    [
        (lambda x: np.maximum(x, 0), lambda x: x > 0, [0.0, 1.0, -1.0], [True, False, False]),
        (np.abs, np.sign, [0.0, 2.0, -2.0], [True, False, False]),
        (lambda x: np.maximum(x, 2 * x - 1), lambda x: 1 + (x > 1), [1.0, 0.0], [True, False]),
        (np.floor, lambda x: 0 * x, [1.0, 1.5], [True, False]),
        (lambda x: x * (x > 1), lambda x: x > 1.0, [1.0, 2.0], [True, False]),
        (np.sqrt, lambda x: 0.5 / np.sqrt(np.maximum(x, 1e-300)), [0.0, 1.0], [True, False]),
        (np.log, lambda x: 1 / x, [1e-8, 1.0], [True, False]),
    ],
    ids=["relu", "abs", "maximum of equals", "floor", "a jump", "sqrt at 0", "log beside 0"],
)
def test_kinks_are_left_out_and_counted(f, slope, x, kinks):
    (result,) = check_vjp(elementwise(f, slope), np.array(x)).inputs
    assert result.on_kink.tolist() == kinks
    assert f"1 of {len(x)} elements on a kink" in str(result)
    assert (result.error[result.on_kink] == 0).all()


def test_a_wrong_rule_beside_a_kink_still_fails():
    wrong = elementwise(np.abs, lambda x: 0.5 * np.sign(x))
    (result,) = report_of(wrong, np.array([0.0, 1.0, -2.0])).inputs
    assert not result.ok
    assert result.diagnosis == "2 times too small: counted twice, or the 2 of a square misplaced?"


def test_where_all_elements_sit_on_kinks_nothing_is_proved():
    report = report_of(elementwise(np.abs, np.sign), np.zeros(3))
    assert not report
    assert str(report) == (
        "gradcheck of <lambda> FAILED\n"
        "  x (3,): NOT CHECKED\n"
        "    3 of 3 elements on a kink\n"
        "    warning: every element sits on a kink: nothing was compared, move the input"
    )


# -- what proves little ------------------------------------------------------------------------


def test_a_gradient_of_zero_is_warned_of():
    gate = np.zeros(3)
    x_result, gate_result = check_vjp(multiply, normal(3), gate).inputs
    assert x_result.ok
    assert x_result.warning == (
        "the gradient is zero here, so a rule that does nothing passes as well: check at other "
        "values (is a scale or gate initialised to zero, or a unit dead?)"
    )
    assert not gate_result.warning


def test_an_empty_input_is_warned_of():
    (result,) = check_vjp(square, np.ones((0, 3))).inputs
    assert result.ok and result.warning == "empty: nothing was compared"
    assert result.max_error == 0.0


def test_a_function_without_floating_point_inputs_is_refused():
    with pytest.raises(ValueError, match="square has no floating-point input to check"):
        gradcheck(square, np.array([1, 2]))


def test_integer_inputs_are_passed_on_and_not_checked():
    def rows(x, index):
        return take(x, index=index)

    report = gradcheck(rows, normal(3, 2), np.array([0, 2, 2]))
    assert [i.name for i in report.inputs] == ["input 0"]


def test_a_rule_of_none_is_skipped():
    def masked(x, mask):
        return x * mask, (lambda dy: dy * mask, None)

    assert [i.name for i in check_vjp(masked, normal(3), np.ones(3)).inputs] == ["x"]


# -- functions that cannot be checked ----------------------------------------------------------


def test_a_function_that_is_not_deterministic_is_refused():
    rng = np.random.default_rng(0)

    def noisy(x):
        return add(x, rng.standard_normal(3))

    with pytest.raises(ValueError, match="noisy gives another result on a second call"):
        gradcheck(noisy, normal(3))


def test_a_function_of_float32_is_refused():
    def narrow(x):
        return x.astype("float32"), lambda dy: dy

    with pytest.raises(DTypeError, match="narrow returned float32 for float64 inputs"):
        check_vjp(narrow, normal(3))


def test_a_function_that_is_infinite_is_refused():
    with pytest.raises(ValueError, match="log gives NaN or infinity at these inputs"):
        gradcheck(log, np.array([1.0, 0.0]))


def test_a_function_that_returns_no_tensor_is_refused():
    with pytest.raises(TypeError, match="must return a tensor, it returned ndarray"):
        gradcheck(lambda x: x.numpy() * 2, normal(3))


@pytest.mark.parametrize("returned", [np.ones(3), (np.ones(3),), None])
def test_a_function_that_returns_no_rules_is_refused(returned):
    with pytest.raises(TypeError, match=r"must return \(output, rules\)"):
        check_vjp(lambda x: returned, normal(3))


def test_a_wrong_number_of_rules_is_refused():
    with pytest.raises(TypeError, match="sum_of_two returned 1 rules for 2 inputs"):

        def sum_of_two(a, b):
            return a + b, lambda dy: dy

        check_vjp(sum_of_two, normal(3), normal(3))


def test_a_rule_without_return_is_refused():
    def forgetful(x):
        def vjp_x(dy):
            dy * x

        return x * x, vjp_x

    with pytest.raises(TypeError, match=r"the rule for 'x' returned NoneType.*is its `return`"):
        check_vjp(forgetful, normal(3))


def test_a_function_that_changes_its_input_is_refused():
    def shifted(x):
        x -= x.max()
        return np.exp(x), lambda dy: dy * np.exp(x)

    with pytest.raises(ValueError, match="shifted changes x in place: compute with a copy"):
        check_vjp(shifted, normal(3))


def test_a_rule_that_changes_the_incoming_gradient_is_refused():
    def greedy(x):
        def vjp_x(dy):
            dy *= np.cos(x)
            return dy

        return np.sin(x), vjp_x

    with pytest.raises(ValueError, match="a rule of greedy changes dy in place"):
        check_vjp(greedy, normal(3))


# -- inputs, modules, settings -----------------------------------------------------------------


def test_inputs_are_copied_to_float64():
    x = tensor([0.5, 1.5], requires_grad=True)  # float32
    (result,) = gradcheck(square, x).inputs
    assert result.numeric.dtype == np.float64
    assert x.dtype == np.float32 and x.tolist() == [0.5, 1.5] and x.grad is None


def test_lists_and_numbers_are_inputs():
    assert gradcheck(multiply, [0.1, 0.2], 0.3)


def test_settings_reach_the_function():
    assert check_vjp(scale, normal(3), by=2.5).inputs[0].analytic.shape == (3,)


class Layer:
    """What gradcheck asks of a module: to be called, and to name its parameters."""

    def __init__(self, dtype="float64", **parameters):
        self.parameters = {
            name: tensor(p.astype(dtype), requires_grad=True) for name, p in parameters.items()
        }

    def named_parameters(self):
        return iter(self.parameters.items())

    def __call__(self, x):
        return add(matmul(x, self.parameters["weight"]), self.parameters["bias"])


def test_the_parameters_of_a_module_are_checked_and_left_as_they_were():
    layer = Layer(weight=normal(3, 2), bias=normal(2))
    weight = layer.parameters["weight"]
    weight.grad = tensor(np.full((3, 2), 7.0))
    report = gradcheck(layer, normal(4, 3))
    assert [i.name for i in report.inputs] == ["input 0", "weight", "bias"]
    assert report.function == "Layer"
    np.testing.assert_array_equal(weight.data, normal(3, 2))
    assert weight.requires_grad and weight.grad.tolist() == [[7.0, 7.0]] * 3


def test_a_parameter_that_no_gradient_reaches_fails():
    class Frozen(Layer):
        def __call__(self, x):
            return add(matmul(x, self.parameters["weight"].detach()), self.parameters["bias"])

    layer = Frozen(weight=normal(3, 2), bias=normal(2))
    report = gradcheck(layer, normal(4, 3), raise_on_failure=False)
    assert [i.ok for i in report.inputs] == [True, False, True]


def test_a_frozen_parameter_is_checked_and_stays_frozen():
    layer = Layer(weight=normal(3, 2), bias=normal(2))
    layer.parameters["weight"].requires_grad = False
    assert gradcheck(layer, normal(4, 3))
    assert not layer.parameters["weight"].requires_grad


def test_a_float32_module_is_refused():
    with pytest.raises(
        DTypeError, match=r"parameter 'weight' is float32: .*call .double\(\) first"
    ):
        gradcheck(Layer("float32", weight=normal(3, 2), bias=normal(2)), normal(4, 3))


def test_gradcheck_works_inside_no_grad_and_leaves_other_gradients_alone():
    other = tensor(normal(3), requires_grad=True)
    with no_grad():
        assert gradcheck(lambda x: multiply(x, other), normal(3))
    assert other.grad is None


# -- the report --------------------------------------------------------------------------------


def test_the_report_of_a_failure_reads_well():
    def product(a, b):
        return a * b, (lambda dy: -dy * b, lambda dy: dy * a)

    report = report_of(product, np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), seed=3)
    dy = np.random.default_rng([3, 1]).standard_normal((1, 2))
    worst = np.abs(dy * [[3.0, 4.0]]).argmax()
    value = float((dy * [[3.0, 4.0]]).ravel()[worst])
    assert str(report) == (
        "gradcheck of product FAILED\n"
        f"  a (1, 2): WRONG, largest error {2 * abs(value):.2g} at (0, {worst}): "
        f"got {-value:.6g}, measured {value:.6g}\n"
        "    pattern: exactly negated: a minus sign is missing or too many\n"
        "  b (1, 2): ok"
    )
    assert repr(report) == str(report)


def test_the_report_of_a_success_reads_well():
    assert str(check_vjp(total, normal(2, 3))) == "gradcheck of total passed\n  x (2, 3): ok"


def test_the_report_of_a_gradient_of_nan():
    (result,) = report_of(lambda x: (x * 2, lambda dy: dy * np.nan), np.array([1.0, 2.0])).inputs
    assert "x (2,): WRONG, largest error nan at (0,): got nan, measured" in str(result)
    assert "pattern: 2 of 2 elements are NaN or infinite" in str(result)


def test_the_report_of_a_single_number_reads_well():
    report = report_of(lambda x: (x * 2, lambda dy: dy * 6), np.array(1.0))
    dy = np.random.default_rng([0, 1]).standard_normal()
    assert str(report) == (
        "gradcheck of <lambda> FAILED\n"
        f"  x (): WRONG, largest error {4 * abs(dy):.2g}: got {6 * dy:.6g}, measured {2 * dy:.6g}\n"
        "    pattern: 3 times too large"
    )


def test_the_numbers_are_there_for_a_picture():
    report = report_of(elementwise(np.sin, lambda x: np.cos(x) + (x == x[0, 1])), normal(2, 3))
    error = report.inputs[0].error
    assert error.shape == (2, 3)
    assert error.argmax() == 1 and (np.delete(error.ravel(), 1) < 1e-8).all()


def test_other_seeds_give_other_cotangents():
    one, two = (check_vjp(square, normal(3), seed=s).inputs[0].numeric for s in (0, 1))
    assert not np.allclose(one, two)


def test_the_checker_is_public():
    assert {"gradcheck", "check_vjp", "GradcheckError", "GradcheckReport"} <= set(engine.__all__)
    assert isinstance(tensor(1.0), Tensor)
