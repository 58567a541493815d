"""The door from arrays into the graph: what a primitive may take, return and do wrong."""

import sys
import types

import numpy as np
import pytest

from minitorch_attn.engine import (
    DeviceError,
    DTypeError,
    GraphError,
    ShapeError,
    Tensor,
    backend,
    get_default_dtype,
    no_grad,
    primitive,
    set_default_dtype,
    tensor,
)

from .primitives import add, exp, matmul, multiply, scale, total


def leaf(*values: float, dtype: str = "float64") -> Tensor:
    return tensor(np.array(values, dtype), requires_grad=True)


# -- what it makes -----------------------------------------------------------------------------


def test_a_primitive_of_tensors_and_the_function_of_arrays_within():
    x = np.array([1.0, 2.0])
    y, rule = exp.__wrapped__(x)
    np.testing.assert_array_equal(y, np.exp(x))
    np.testing.assert_array_equal(rule(np.ones(2)), np.exp(x))
    assert isinstance(exp(tensor(x)), Tensor)
    assert exp.__name__ == "exp"


def test_the_name_in_the_graph_has_no_underscores():
    @primitive
    def _hidden(x):
        return x, lambda dy: dy

    assert repr(_hidden(leaf(1.0, dtype="float32"))) == "tensor([1.], op=<hidden>)"


def test_the_output_is_an_array_also_where_numpy_gives_a_number():
    for y in (total(leaf(1.0, 2.0)), add(tensor(1.0), tensor(2.0)), exp(1.0)):
        assert type(y.data) is np.ndarray
        assert y.shape == ()


def test_settings_carry_no_gradient():
    x = leaf(3.0)
    assert scale(x, by=2.0).item() == 6.0
    with pytest.raises(GraphError, match=r"scale: no gradient flows to by: pass by.detach\(\)"):
        scale(x, by=leaf(2.0))
    with no_grad():
        assert scale(x, by=leaf(2.0)).item() == 6.0


def test_tensors_and_arrays_among_settings_arrive_as_arrays():
    got = []

    @primitive
    def look(x, *, index, pair, sizes, name, rows):
        got.extend([index, pair, sizes, name, rows])
        return x, None

    class Size(tuple):
        pass

    rows, sizes = np.array([0, 1]), Size((2, 3))
    look(leaf(1.0), index=tensor([1]), pair=(tensor([2]), 5), sizes=sizes, name="a", rows=[rows])
    assert type(got[0]) is np.ndarray
    assert type(got[1]) is tuple and type(got[1][0]) is np.ndarray
    assert got[2] is sizes and got[3] == "a"
    assert got[4][0] is not rows


# -- constants and dtypes ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "number", [2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(2)], ids=repr
)
def test_numbers_do_not_change_the_dtype(dtype, number):
    x = leaf(1.0, 2.0, dtype=dtype)
    assert multiply(x, number).dtype == dtype
    assert multiply(number, x).dtype == dtype


def test_arrays_bring_their_dtype():
    x = leaf(1.0, dtype="float32")
    assert multiply(x, np.ones(1)).dtype == np.float64
    assert multiply(x, np.ones(1, "float32")).dtype == np.float32
    assert multiply(x, [0.5]).dtype == np.float32  # a list, as in tensor()


@pytest.mark.parametrize("integers", [np.ones(2, "int64"), [1, 2], np.array([True, False])])
def test_integers_do_not_widen_floats(integers):
    assert multiply(leaf(1.0, 2.0, dtype="float32"), integers).dtype == np.float32


def test_integers_become_the_default_float():
    before = get_default_dtype()
    assert exp(tensor([1, 2])).dtype == np.float32
    assert exp(1).dtype == np.float32
    try:
        set_default_dtype("float64")
        assert exp(tensor([1, 2])).dtype == np.float64
    finally:
        set_default_dtype(before)


def test_a_gradient_reaches_an_input_beside_integers():
    x = leaf(1.0, 2.0, dtype="float32")
    total(multiply(x, tensor([3, 4]))).backward()
    assert x.grad.tolist() == [3.0, 4.0]
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize(
    ("operand", "said"),
    [
        ("abc", "multiply: a tensor holds floats, integers or booleans, not <U3"),
        (1j, "multiply: a tensor holds floats, integers or booleans, not complex128"),
        ({}, "multiply: a tensor holds floats, integers or booleans, not {}"),
    ],
)
def test_operands_that_are_no_numbers(operand, said):
    with pytest.raises(DTypeError) as error:
        multiply(leaf(1.0), operand)
    assert str(error.value).startswith(said)


def test_an_input_that_was_left_out_is_none():
    @primitive
    def linear(x, bias=None):
        def vjp(dy):
            return dy

        return (x, (vjp, None)) if bias is None else (x + bias, (vjp, vjp))

    assert linear(leaf(1.0), None).item() == 1.0
    assert linear(leaf(1.0), leaf(2.0)).item() == 3.0


# -- errors ------------------------------------------------------------------------------------


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ShapeError) as error:
        add(leaf(1.0, 2.0, 3.0), tensor(np.ones((4, 2))))
    assert str(error.value) == (
        "add: shapes (3,) and (4, 2) do not fit: axis -1 is 2 and 3; sizes must be equal, or 1, "
        "counted from the last axis"
    )


def test_shapes_that_do_not_multiply_keep_numpys_words():
    with pytest.raises(ValueError, match=r"^matmul: Input .*\(given: \(2, 3\) float64, \(2, 3\)"):
        matmul(tensor(np.ones((2, 3))), tensor(np.ones((2, 3))))


def test_a_broadcast_that_fails_inside_is_not_blamed_on_the_inputs():
    @primitive
    def inner(a, b):
        return a.sum() + np.ones(5) + np.ones(6), None

    with pytest.raises(ValueError) as error:
        inner(tensor(np.ones((2, 3))), tensor(np.ones((4, 7))))
    assert "(5,) (6,)" in str(error.value)
    assert "given: (2, 3) float64, (4, 7) float64" in str(error.value)


def test_the_authors_own_words_stay_as_they_are():
    @primitive
    def picky(x):
        raise ShapeError("picky: wants a square, not (2,)")

    with pytest.raises(ShapeError, match=r"^picky: wants a square, not \(2,\)$") as error:
        picky(leaf(1.0, 2.0))
    assert error.value.__cause__ is None


@pytest.mark.parametrize("kind", [ValueError, TypeError, IndexError, ShapeError, DTypeError])
def test_an_error_inside_keeps_its_kind_and_its_traceback(kind):
    @primitive
    def broken(x):
        raise kind("something is off")

    with pytest.raises(kind) as error:
        broken(leaf(1.0, 2.0))
    assert type(error.value) is kind
    assert str(error.value) == "broken: something is off (given: (2,) float64)"
    assert isinstance(error.value.__cause__, kind)


def test_other_errors_pass_as_they_are():
    @primitive
    def broken(x):
        return x.no_such_attribute, None

    with pytest.raises(AttributeError, match="no_such_attribute"):
        broken(leaf(1.0))


@pytest.mark.parametrize(
    "returned",
    [np.ones(2), np.ones((2, 2)), (np.ones(2),), [np.ones(2), None], None],
    ids=["array", "array of two rows", "one in a tuple", "list", "None"],
)
def test_a_function_without_rules_is_told_so(returned):
    @primitive
    def forgetful(x):
        return returned

    with pytest.raises(TypeError, match=r"^forgetful must return \(output, rules\)"):
        forgetful(leaf(1.0, 2.0))


@pytest.mark.parametrize("rules", [None, (), (None,), (None, None, None)])
def test_a_wrong_number_of_rules_is_told(rules):
    @primitive
    def two(a, b):
        return a + b, rules

    count = len(rules) if isinstance(rules, tuple) else 1
    with pytest.raises(TypeError, match=rf"^two returned {count} rules for 2 inputs"):
        two(leaf(1.0), leaf(2.0))


def test_rules_may_stand_in_a_list():
    @primitive
    def two(a, b):
        return a + b, [lambda dy: dy, lambda dy: 2 * dy]

    a, b = leaf(1.0), leaf(2.0)
    two(a, b).backward()
    assert (a.grad.item(), b.grad.item()) == (1.0, 2.0)


def test_an_output_that_is_no_array_is_told():
    @primitive
    def nested(x):
        return exp(x), lambda dy: dy  # exp() takes tensors; within, np.exp is meant

    with pytest.raises(TypeError, match="^nested returned Tensor, not an array"):
        nested(leaf(1.0))


def test_a_rule_of_none_carries_nothing():
    @primitive
    def half_blind(a, b):
        return a + b, (lambda dy: dy, None)

    a, b = leaf(1.0), leaf(2.0)
    half_blind(a, b).backward()
    assert a.grad.item() == 1.0 and b.grad is None
    assert not half_blind(tensor([1.0]), b).requires_grad


# -- calls -------------------------------------------------------------------------------------


@primitive
def affine(x, weight, bias=None, *, scale=1.0, name="plain"):
    y = x * weight * scale + (0.0 if bias is None else bias)
    rules = (lambda dy: dy * weight * scale, lambda dy: dy * x * scale, lambda dy: dy)
    return y, rules if bias is not None else rules[:2]


def test_inputs_by_name_and_settings_by_position():
    x, w, b = leaf(2.0), leaf(3.0), leaf(4.0)
    assert affine(x, weight=w).item() == 6.0
    assert affine(weight=w, x=x).item() == 6.0
    assert affine(x, w, b, 10.0).item() == 64.0
    assert affine(x, w, bias=b, scale=10.0).item() == 64.0
    y = affine(x, bias=b, weight=w)
    y.backward()
    assert (x.grad.item(), w.grad.item(), b.grad.item()) == (3.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: affine(x, bias=x), "affine: its input 'weight' is missing"),
        (lambda x: affine(x, x, x, 1.0, "a", 2), "affine: too many arguments, it takes x, weight"),
        (lambda x: affine(x, x, x, 1.0, scale=2.0), "affine: too many arguments"),
        (lambda x: affine(x), "affine: .*missing 1 required positional argument"),
        (lambda x: affine(x, x, size=3), "affine: .*unexpected keyword argument 'size'"),
        (lambda x: affine(x, x, x=x), "affine: its input 'x' is given twice"),
    ],
)
def test_calls_that_do_not_fit_name_the_operation(call, said):
    with pytest.raises(TypeError, match=said):
        call(leaf(1.0))


def test_any_number_of_inputs():
    @primitive
    def add_all(*xs, scale=1.0):
        def vjp(dy):
            return dy * scale

        return sum(xs) * scale, (vjp,) * len(xs)

    x = leaf(1.0)
    add_all(x, x, x, scale=2.0).backward()
    assert x.grad.item() == 6.0


# -- devices -----------------------------------------------------------------------------------


class ArrayOnGpu:
    """As much of cupy.ndarray as tells where a tensor lies."""

    shape, dtype, size, ndim = (2,), np.dtype("float64"), 2, 1

    def copy(self):
        return self

    def astype(self, dtype, copy=True):
        return self


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(ndarray=ArrayOnGpu))
    monkeypatch.setattr(backend, "gpu_in_use", True)
    return tensor(ArrayOnGpu())


def test_inputs_on_different_devices_are_told(on_gpu):
    with pytest.raises(DeviceError) as error:
        add(on_gpu, leaf(1.0, 2.0))
    assert str(error.value) == (
        "add: input 0 (2,) float64 lies on 'cuda' and input 1 (2,) float64 lies on 'cpu': move one "
        "of them, for example with x.to('cuda'), or all parameters of a module with "
        "model.to('cuda')"
    )


def test_a_setting_on_another_device_is_told_by_its_name(on_gpu):
    with pytest.raises(DeviceError, match="and by .* lies on 'cpu'"):
        scale(on_gpu, by=(0, [tensor([1])]))


# -- floats ------------------------------------------------------------------------------------


@primitive(floats="all")
def root(x):
    y = np.sqrt(x)
    return y, lambda dy: dy / (2 * y)


@primitive(floats="first")
def pick(x, index):
    assert x.dtype.kind == "f" and index.dtype.kind == "i"
    return x[index], (None, None)


def test_a_primitive_of_floats_gets_integers_as_floats():
    for dtype in ("uint8", "int64", "bool"):
        assert root(tensor(np.ones(2, dtype))).dtype == np.float32
    assert root(4).item() == 2
    assert pick(tensor(np.array([3, 4], "uint8")), tensor([1])).dtype == np.float32


def test_half_precision_is_computed_in_single_and_rounded():
    got = []

    @primitive(floats="all")
    def look(a, b):
        got.extend([a.dtype, b.dtype])
        return a * b, (lambda dy: dy * b, lambda dy: dy * a)

    x = leaf(1.0, dtype="float16")
    y = look(x, tensor(np.array([2], "uint8")))
    y.backward()
    assert got == [np.float32, np.float32]
    assert y.dtype == x.grad.dtype == np.float16
    assert look(x, leaf(1.0, dtype="float64")).dtype == np.float64


def test_a_single_number_does_not_widen_an_array():
    x = leaf(1.0, 2.0, dtype="float32")
    for number in (np.array(2.0), tensor(np.float64(2.0))):
        assert multiply(x, number).dtype == multiply(number, x).dtype == np.float32
    assert multiply(tensor([1, 2]), np.array(0.5)).dtype == np.float64
    assert exp(np.array(0.5)).dtype == np.float64


def test_a_list_of_tensors_does_not_lose_a_gradient_silently():
    a = leaf(1.0)
    for given in ([a, a], ([1.0], [a])):
        with pytest.raises(GraphError, match=r"multiply: no gradient flows through a list.*stack"):
            multiply(leaf(1.0, 2.0), given)
    with no_grad():
        assert multiply(leaf(1.0, 2.0), [a.detach()[0], 2.0]).tolist() == [1.0, 4.0]


def test_a_number_where_a_tensor_is_needed_is_told():
    with pytest.raises(TypeError, match="^total: takes tensors, not the number 2.0"):
        total(2.0)
    with pytest.raises(TypeError, match="^total: takes tensors, not None"):
        total(None)
