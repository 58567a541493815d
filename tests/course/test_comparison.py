"""The comparison of an answer with the right one, and the causes it names."""

import numpy as np
import pytest

from minitorch_attn.course.comparison import MARKS, compare, show

X = np.random.default_rng(0).normal(size=(3, 4))
SQUARE = np.random.default_rng(1).normal(size=(3, 3))
POSITIVE = np.abs(X) + 0.5


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1.5, np.array(1.5)),
        (np.float64(2), 2),
        (2, np.int32(2)),
        ([1, 2], (1, 2)),
        ((2, 3), [2, 3]),
        (X + 1e-12, X),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf])),
        (X.astype(np.float32), (X + 1e-7).astype(np.float32)),
        ({"a": 1, "b": X}, {"b": X, "a": 1}),
        ("text", "text"),
        (None, None),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        (np.array([1, 2], np.int32), np.array([1, 2])),
        (np.bool_(True), True),
    ],
)
def test_what_counts_as_equal(got, expected):
    assert compare(got, expected) is None


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1.5, 1.6),
        (X + 1e-5, X),
        (X, X.T),
        (np.array([np.nan]), np.array([1.0])),
        (np.array([np.inf]), np.array([-np.inf])),
        ([1, 2, 3], [1, 2]),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": 1}),
        ("text", "Text"),
        (None, 0),
        (0, None),
        ("1", 1),
        (np.array([1.0]), 1.0),
        (np.array([1, 0]), np.array([True, False])),
        (X.astype(np.float32).astype(float), X.astype(np.float32)),
        (np.array(["a"]), np.array(["b"])),
        (X, "text"),
        ("text", X),
        ([X], X),
    ],
)
def test_what_counts_as_different(got, expected):
    assert compare(got, expected) is not None


@pytest.mark.parametrize(
    ("got", "expected", "name"),
    [
        (-X, X, "exactly negated"),
        (12 * X, X, "12 times too large"),
        (X / 4, X, "4 times too small"),
        (np.zeros_like(X), X, "zero everywhere"),
        (SQUARE.T, SQUARE, "transposed"),
        (X.T, X, "transposed"),
        (X[:, ::-1], X, "flipped along axis 1"),
        (np.roll(X, 1, axis=1), X, "shifted by one along axis 1"),
        (X[:, :, None], X, "axes of length 1"),
        (X, X.sum(axis=0), "not summed over axis 0"),
        (X, X.mean(axis=1), "not averaged over axis 1"),
        (X.sum(axis=1), X, "reduced too far"),
        (X.reshape(2, 6), X, "not reshaped"),
        (softmax(X, 0), softmax(X, 1), "normalised over the wrong axis"),
        (np.log(POSITIVE), POSITIVE, "its logarithm"),
        (np.exp(X), X, "its exponential"),
        (POSITIVE**2, POSITIVE, "its square"),
        (np.sqrt(POSITIVE), POSITIVE, "its square root"),
        (1 / POSITIVE, POSITIVE, "its reciprocal"),
        (1 - X, X, "1 minus it"),
        (X * (1 + 1e-5), X, "right to few digits"),
        (np.where(X > 0, np.nan, X), X, "NaN"),
        (np.where(X > 0, np.inf, X), X, "infinite"),
        (np.concatenate([X[:2], np.full((1, 4), 9.0)]), X, "wrong at the last place of axis 0"),
        (X > 0, X <= 0, "inverted"),
        (X.astype(np.float32).astype(float), X.astype(np.float32), "dtype not kept"),
        (None, X, "nothing returned"),
        (X.tolist(), X, "list, not array"),
        ((X, X), X, "tuple, not array"),
        ([512], 512, "list, not number"),
    ],
)
def test_a_pattern_names_the_cause(got, expected, name):
    assert compare(got, expected, sizes=(3, 4)).cause.name == name


def test_causes_that_one_input_cannot_tell_apart_are_all_there():
    names = [cause.name for cause in compare(X[:1], X[:1].sum(axis=0)).causes]
    assert names[:2] == ["axes of length 1", "not summed over axis 0"]


def test_an_overwritten_contribution_is_suspected_in_gradients_alone():
    got = X + np.array([[0, 0, 1.0, 0], [0, 0, 0, -2.0], [0.5, 0, 0, 0]])
    assert "overwrite" in compare(got, X, gradient=True).cause.sentence
    assert compare(got, X).cause is None


@pytest.mark.parametrize(
    ("dtype", "words"), [(np.float64, "`.astype(np.float64)`"), (bool, "`.astype(bool)`")]
)
def test_a_type_is_named_as_it_is_written(dtype, words):
    expected = np.ones(3, dtype)
    assert words in compare(np.ones(3, int), expected).cause.sentence


def test_an_empty_array_of_another_shape_is_just_of_another_shape():
    assert compare(np.zeros((0, 3)), np.zeros((3, 0))).statement.endswith("it has shape (0, 3).")


def test_where_only_names_differ_only_those_are_printed():
    difference = compare({"fc1": 1, "conv": 2}, {"fc1": 1, "Fc2": 2})
    assert difference.statement == "The names differ. Missing: Fc2; not asked for: conv."
    assert difference.expected == difference.got == ""


def test_an_unknown_pattern_names_none():
    other = np.random.default_rng(7).normal(size=X.shape)
    assert compare(other, X).cause is None


def test_the_first_difference_is_stated():
    got = X.copy()
    got[1, 2] = 7
    statement = compare(got, X).statement
    assert (
        statement
        == f"1 of 12 elements differ, the first at [1, 2]: it is 7 and should be {X[1, 2]:.4g}."
    )


def test_a_difference_inside_a_container_says_where():
    got = {"weight": (2, 3), "bias": (4,)}
    assert compare(got, {"weight": (2, 3), "bias": (3,)}).statement == (
        "`bias`: Item 0: It is 4 and should be 3."
    )


def test_few_differences_are_all_marked_many_only_at_the_first():
    one, two = MARKS
    assert show(np.array([1.0, 20.0, 3.0]), np.array([False, True, False])) == (
        f"[  1  {one}20{two}   3 ]"
    )
    difference = compare(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 3.0]))
    assert difference.got.count(one) == difference.expected.count(one) == 1


def test_noise_is_shown_as_zero_and_zero_has_no_sign():
    assert show(np.array([1.0, 1e-17, -0.0])) == "[1 0 0]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((0, 2)), "an empty array of shape (0, 2)"),
        (np.array([[True, False]]), "[[ True False]]"),
        (3, "3"),
        (1 / 3, "0.3333"),
        (None, "None"),
        ([np.zeros(1), np.ones(2)], "0: [0]\n1: [1 1]"),
        ("x" * 400, "x" * 300 + " ..."),
    ],
)
def test_values_are_printed_for_people(value, text):
    assert show(value) == text


def test_an_array_of_many_lines_is_printed_in_part():
    assert show(np.zeros((2, 2, 2, 2))).count("\n") == 11
    text = show(np.zeros((2, 4, 2, 2)), place=(1, 3, 0, 1))
    assert text.startswith("of a float64 array of shape (2, 4, 2, 2), the part [1, 3, 0:2, 0:2]:")
    assert text.count("\n") == 2
    assert "the part [0, 0:6, 0:4]" in show(np.zeros((9, 9, 4)), place=(1, 3))


def test_of_a_large_array_the_part_around_the_difference_is_printed():
    large = np.zeros((3, 50, 50))
    marked = np.zeros(large.shape, bool)
    marked[1, 49, 0] = True
    text = show(large, marked)
    assert text.startswith("of a float64 array of shape (3, 50, 50), the part [1, 44:50, 0:6]:\n")
    assert text.count("\n") == 6 and MARKS[0] in text
