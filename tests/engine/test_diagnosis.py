"""Each real mistake in a rule is named, and an error without a pattern is not."""

import numpy as np
import pytest

from minitorch_attn.engine import check_vjp
from minitorch_attn.engine.diagnosis import diagnose, diagnoses


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def diagnosis_of(f, *inputs) -> str:
    """The diagnosis of the first wrong input."""
    report = check_vjp(f, *inputs, raise_on_failure=False)
    return next(i.diagnosis for i in report.inputs if not i.ok)


def correlate(x, w):
    """y[p] = sum_r x[p + r] w[r], and the gradient to x done right."""
    R = len(w)
    y = np.array([x[p : p + R] @ w for p in range(len(x) - R + 1)])
    return y, lambda dy: np.convolve(dy, w)


# -- real mistakes -----------------------------------------------------------------------------


def test_a_minus_sign():
    def subtract(a, b):
        return a - b, (lambda dy: dy, lambda dy: dy)

    assert diagnosis_of(subtract, normal(3), normal(3)) == (
        "exactly negated: a minus sign is missing or too many"
    )


def test_a_mean_treated_as_a_sum():
    def mean(x):
        return x.mean(), lambda dy: np.broadcast_to(dy, x.shape)

    assert diagnosis_of(mean, normal(4, 3)) == "12 times too large: a mean treated as a sum?"


def test_a_mean_over_one_axis_treated_as_a_sum():
    def mean(x):
        return x.mean(axis=0), lambda dy: np.broadcast_to(dy, x.shape)

    assert diagnosis_of(mean, normal(5, 3)) == "5 times too large: a mean treated as a sum?"


def test_a_sum_treated_as_a_mean():
    def summed(x):
        return x.sum(), lambda dy: np.broadcast_to(dy / x.size, x.shape)

    assert diagnosis_of(summed, normal(7)) == "7 times too small: a sum treated as a mean?"


def test_the_2_of_a_square():
    def square(x):
        return x * x, lambda dy: dy * x

    assert diagnosis_of(square, normal(4)) == (
        "2 times too small: counted twice, or the 2 of a square misplaced?"
    )


def test_a_constant_factor_and_a_sign():
    def scaled(x):
        return -2.5 * x, lambda dy: dy

    assert diagnosis_of(scaled, normal(4)) == "a constant factor 2.5 too small and negated"


def test_a_transposed_weight():
    def linear(x, weight):
        return x @ weight.T, (lambda dy: dy @ weight, lambda dy: x.T @ dy)

    assert diagnosis_of(linear, normal(4, 3), normal(3, 3, seed=1)) == "transposed"


def test_a_transposed_weight_that_is_not_square():
    def linear(x, weight):
        return x @ weight.T, (lambda dy: dy @ weight, lambda dy: x.T @ dy)

    assert diagnosis_of(linear, normal(4, 3), normal(2, 3)) == (
        "shape (3, 2) instead of (2, 3): transposed"
    )


def test_permuted_axes():
    def permute(x):
        return x.transpose(1, 2, 0), lambda dy: dy.transpose(1, 2, 0)

    assert diagnosis_of(permute, normal(3, 3, 3)) == "its axes are permuted: needs (1, 2, 0)"
    assert diagnosis_of(permute, normal(2, 3, 4)) == (
        "shape (4, 2, 3) instead of (2, 3, 4): its axes are permuted: needs (1, 2, 0)"
    )


def test_a_gradient_that_was_not_reshaped():
    def flatten(x):
        return x.reshape(-1), lambda dy: dy

    assert diagnosis_of(flatten, normal(2, 3)) == (
        "shape (6,) instead of (2, 3): right values, but not reshaped to the input's shape"
    )


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((3,), "axis 0"), ((2, 1), "axis 1"), ((1, 1), "axes 0 and 1"), ((), "axes 0 and 1")],
)
def test_a_broadcast_axis_that_was_not_summed(shape, axes):
    def add(a, b):
        return a + b, (lambda dy: dy, lambda dy: dy)

    assert diagnosis_of(add, normal(2, 3), normal(*shape)) == (
        f"shape (2, 3) instead of {shape}: not summed over the broadcast {axes}"
    )


def test_a_sum_over_an_axis_that_was_not_broadcast():
    def add(a, b):
        return a + b, (lambda dy: dy.sum(axis=0), lambda dy: dy.sum(axis=0))

    assert diagnosis_of(add, normal(4, 3), normal(3)) == (
        "shape (3,) instead of (4, 3): summed over axis 0, which was not broadcast"
    )


def test_a_kernel_that_was_not_flipped():
    def conv(x, w):
        y, _ = correlate(x, w)
        return y, (lambda dy: np.convolve(dy, w[::-1]), None)

    report = check_vjp(conv, normal(6), normal(3), raise_on_failure=False)
    assert not report
    assert report.inputs[0].diagnosis == ""  # to x, no simple pattern remains ...

    def weight_gradient(w):
        x = normal(6)
        return correlate(x, w)[0], lambda dy: np.convolve(dy, x[::-1], mode="valid")

    assert diagnosis_of(weight_gradient, normal(3)) == "flipped along axis 0"  # ... to w, one does


def test_a_two_dimensional_kernel_that_was_not_flipped():
    assert diagnose(np.flip(normal(2, 3, 3), (1, 2)), normal(2, 3, 3)) == (
        "flipped along axes 1 and 2: the kernel not flipped?"
    )


def test_an_index_that_is_off_by_one():
    def crop(x):
        def vjp_x(dy):
            dx = np.zeros(x.shape)
            dx[:, 2:6] = dy  # should be 1:5
            return dx

        return x[:, 1:5], vjp_x

    assert diagnosis_of(crop, normal(2, 8)) == "shifted by one along axis 1"


def test_a_permutation_applied_again_in_place_of_its_inverse():
    def shuffled(x, order=(0, 3, 1, 4, 2, 5)):
        return x[:, list(order)], lambda dy: dy[:, list(order)]

    assert "in another order along axis 1" in diagnosis_of(shuffled, normal(2, 6))


def test_softmax_without_its_sum():
    def softmax(x):
        e = np.exp(x)
        y = e / e.sum(axis=1, keepdims=True)
        return np.log(y), lambda dy: dy

    assert diagnosis_of(lambda x: softmax(x), normal(3, 4)) == ""

    def centre(x):
        return x - x.mean(axis=1, keepdims=True), lambda dy: dy

    assert diagnosis_of(centre, normal(3, 4)) == (
        "off by a constant along axis 1: a term that sums over that axis is missing or wrong "
        "(as in softmax or a normalisation)"
    )


def test_a_normalisation_without_its_sum_over_two_axes():
    def centre(x):
        return x - x.mean(axis=(2, 3), keepdims=True), lambda dy: dy

    assert diagnosis_of(centre, normal(2, 3, 4, 2)).startswith(
        "off by a constant along axis 2 and axis 3: a term that sums over them is missing or wrong"
    )


def test_a_mask_that_was_forgotten():
    def relu(x):
        return np.maximum(x, 0), lambda dy: dy

    assert diagnosis_of(relu, normal(3, 4)) == (
        "right wherever the right gradient is not zero: a mask (relu, max, dropout) was forgotten?"
    )


def test_of_an_output_no_mistake_of_a_reverse_pass_is_named():
    expected = np.maximum(normal(3, 4), 0)
    assert list(diagnoses(normal(3, 4), expected, gradient=False)) == []
    got = np.arange(1.0, 6.0)
    got[0] = 7
    assert list(diagnoses(got, np.arange(1.0, 6.0), gradient=False)) == []
    assert list(diagnoses(got, np.arange(1.0, 6.0))) != []


def test_a_gradient_overwritten_where_it_should_be_added():
    index = np.array([0, 1, 2, 3, 1])

    def take(x):
        def vjp_x(dy):
            dx = np.zeros(x.shape)
            dx[index] = dy  # the last of the two shares of x[1] stays
            return dx

        return x[index], vjp_x

    assert diagnosis_of(take, normal(4)) == (
        "right at 3 of 4 elements: where several contributions meet, are they added, or does the "
        "last one overwrite?"
    )


def test_a_gradient_that_misses_some_elements():
    def maximum(x):
        first = np.arange(len(x)) < 2
        return 2 * x, lambda dy: 2 * dy * first

    assert diagnosis_of(maximum, normal(5)) == "zero at 3 of 5 elements where it should not be"


def test_no_gradient_at_all():
    def dead(x):
        return x * 2, lambda dy: 0 * dy

    assert diagnosis_of(dead, normal(3)) == "zero everywhere: no gradient arrives at this input"


def test_nan():
    def root(x):
        with np.errstate(invalid="ignore"):
            return np.sqrt(np.abs(x)), lambda dy: dy * 0.5 * np.sqrt(x)

    with np.errstate(invalid="ignore"):
        assert (
            diagnosis_of(root, np.array([1.0, -2.0, -3.0])) == "2 of 3 elements are NaN or infinite"
        )


def test_the_sign_of_an_absolute_value():
    def absolute(x):
        return np.abs(x), lambda dy: dy

    assert diagnosis_of(absolute, normal(6)) == "right in size, wrong in sign at some elements"


# -- no false alarms ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (2,), (5,), (1, 1), (2, 2), (3, 4), (2, 3, 3), (1, 3)])
@pytest.mark.parametrize("relative", [0.01, 0.3, 1.0, 10.0])
def test_a_random_error_gets_no_diagnosis(shape, relative):
    rng = np.random.default_rng(1)
    for _ in range(50):
        expected = rng.standard_normal(shape)
        got = expected + relative * rng.uniform(0.1, 1.0, shape) * rng.choice([-1, 1], shape)
        assert diagnose(got, expected, shape) == ""


@pytest.mark.parametrize("shape", [(3,), (2, 2), (4, 1, 2)])
def test_a_random_gradient_of_another_shape_gets_only_the_shapes(shape):
    rng = np.random.default_rng(2)
    other = (*shape, 5)
    assert diagnose(rng.standard_normal(other), rng.standard_normal(shape)) == (
        f"shape {other} instead of {shape}"
    )


def test_an_error_at_the_edge_of_a_constant_gradient_is_no_shift():
    got = np.ones(5)
    got[0] = 3.0
    assert diagnose(got, np.ones(5)).startswith("right at 4 of 5 elements")


def test_a_gradient_where_none_should_be_gets_no_diagnosis():
    assert diagnose(normal(3), np.zeros(3)) == ""
