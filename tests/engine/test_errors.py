"""The words of errors: what was given, what is needed."""

import numpy as np
import pytest

from minitorch_attn.engine import DTypeError, ShapeError, tensor
from minitorch_attn.engine.errors import broadcast_mismatch, describe, explain


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (np.ones((2, 3), "float32"), "(2, 3) float32"),
        (tensor(1), "() int64"),
        (2.5, "2.5"),
        (None, "None"),
        (list(range(100)), "list [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11..."),
    ],
)
def test_values_are_described_briefly(value, described):
    assert describe(value) == described


@pytest.mark.parametrize(
    "shapes", [[(2, 3), (3,)], [(2, 1), (1, 3)], [(), (5,)], [(0, 3), (1, 3)], [(4,)], []]
)
def test_shapes_that_broadcast_have_no_mismatch(shapes):
    np.broadcast_shapes(*shapes)
    assert broadcast_mismatch(shapes) is None


@pytest.mark.parametrize(
    ("shapes", "axis"),
    [
        ([(2, 3), (4,)], "axis -1 is 3 and 4"),
        ([(2, 3), (5, 3)], "axis -2 is 2 and 5"),
        ([(2, 1), (3, 1), (4, 1)], "axis -2 is 2 and 3 and 4"),
        ([(0,), (2,)], "axis -1 is 0 and 2"),
    ],
)
def test_the_axis_that_does_not_broadcast_is_named(shapes, axis):
    with pytest.raises(ValueError):
        np.broadcast_shapes(*shapes)
    assert broadcast_mismatch(shapes).startswith(axis)


def numpy_error(call) -> Exception:
    with pytest.raises(Exception) as error:
        call()
    return error.value


def explained(call, *inputs) -> Exception:
    return explain(numpy_error(call), "op", inputs)


def test_a_broadcast_error_becomes_a_shape_error():
    a, b = np.ones((2, 3)), np.ones(4)
    error = explained(lambda: a + b, a, b)
    assert type(error) is ShapeError
    assert str(error).startswith("op: shapes (2, 3) and (4,) do not fit: axis -1 is 3 and 4;")


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda x: x.reshape(7), ValueError, "cannot reshape array of size 6 into shape (7,)"),
        (lambda x: x[9], IndexError, "index 9 is out of bounds for axis 0 with size 2"),
        (lambda x: x.sum(axis=5), IndexError, "the tensor has no dim 5, its dims are -2 to 1"),
        (lambda x: np.bitwise_or(x, x), TypeError, "ufunc 'bitwise_or' not supported"),
        (lambda x: len(5), TypeError, "object of type 'int' has no len()"),
    ],
)
def test_numpys_and_pythons_errors_keep_their_kind_and_words(call, kind, said):
    x = np.ones((2, 3))
    error = explained(lambda: call(x), x, 2.5)
    assert type(error) is kind
    assert said in str(error)
    assert str(error).startswith("op: ") and str(error).endswith("(given: (2, 3) float64, 2.5)")


@pytest.mark.parametrize("kind", [ShapeError, DTypeError, ValueError, TypeError, IndexError])
def test_no_kind_is_lost(kind):
    assert type(explain(kind("x"), "op", ())) is kind


def test_the_operation_is_not_named_twice():
    assert str(explain(ValueError("op: too large"), "op", [1])) == "op: too large (given: 1)"
