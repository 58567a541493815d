import ast
import inspect
import operator

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.ops import operators

from .parity import check_gradients, compare, normal, positive, torch

ARITHMETIC = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
A, B = positive(2, 3), positive(3, seed=1)


@pytest.mark.parametrize("op", ARITHMETIC + COMPARISONS)
def test_tensors_arrays_and_numbers_mix_on_either_side(op):
    a, b = mt.tensor(A), mt.tensor(B)
    for left, right in [(a, b), (a, B), (A, b), (a, 2), (2.5, b), (np.float64(2), b), (a, True)]:
        y = op(left, right)
        assert type(y) is mt.Tensor
        values = [x.numpy() if isinstance(x, mt.Tensor) else x for x in (left, right)]
        np.testing.assert_allclose(y.numpy(), op(*values))


@pytest.mark.parametrize("op", ARITHMETIC)
def test_gradients_reach_a_tensor_on_either_side(op):
    if op is operator.floordiv:  # a staircase: it has no slope
        assert not op(mt.tensor(A, requires_grad=True), B).requires_grad
        return
    check_gradients(lambda a: op(a, B), A)
    check_gradients(lambda b: op(A, b), B)
    check_gradients(lambda b: op(2.5, b), B)
    check_gradients(op, A, B)


def test_matrix_products_with_arrays_on_either_side():
    a, b = normal(2, 3), normal(3, 4)
    for left, right in [(mt.tensor(a), mt.tensor(b)), (a, mt.tensor(b)), (mt.tensor(a), b)]:
        np.testing.assert_allclose((left @ right).numpy(), a @ b)
    check_gradients(lambda b: a @ b, b)


@pytest.mark.parametrize("op", [operator.and_, operator.or_, operator.xor])
def test_logic_of_booleans_and_bits_of_integers(op):
    p, q = np.array([True, True, False, False]), np.array([True, False, True, False])
    n, m = np.array([6, 5, -1, 8]), np.array([3, 1, 7, 0])
    for left, right in [(p, q), (n, m)]:
        for y in (op(mt.tensor(left), mt.tensor(right)), op(left, mt.tensor(right))):
            np.testing.assert_array_equal(y.numpy(), op(left, right))
            assert y.dtype == op(left, right).dtype
    np.testing.assert_array_equal((~mt.tensor(p)).numpy(), ~p)
    np.testing.assert_array_equal((~mt.tensor(n)).numpy(), ~n)


def test_bits_of_floats_are_refused():
    with pytest.raises(TypeError, match="bitwise_and"):
        mt.ones(2) & mt.ones(2)


def test_signs():
    x = mt.tensor([1.5, -2.0], requires_grad=True)
    np.testing.assert_array_equal((-x).numpy(), [-1.5, 2])
    np.testing.assert_array_equal(abs(x).numpy(), [1.5, 2])


def test_python_sum_of_tensors():
    x = mt.ones(3).requires_grad_()
    sum([x, x, x]).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 3)


def test_chained_comparisons_choose_elements():
    x = mt.tensor([-1.0, 0.5, 2.0])
    np.testing.assert_array_equal(x[(x > 0) & (x < 1)].numpy(), [0.5])


def test_equality_is_elementwise_and_tensors_still_are_keys():
    x, y = mt.tensor([1.0, 2.0]), mt.tensor([1.0, 3.0])
    np.testing.assert_array_equal((x == y).numpy(), [True, False])
    np.testing.assert_array_equal((x != y).numpy(), [False, True])
    assert {x: "x", y: "y"}[x] == "x"


# -- methods ---------------------------------------------------------------------------------------

METHODS = [
    *(name for names in operators.METHODS.values() for name in names.split()),
    *operators.METHODS_OF_SIZES.split(),
]


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_documented_and_are_pytorchs(name):
    assert getattr(mt.Tensor, name).__doc__
    if torch is None:
        pytest.skip("needs PyTorch")
    assert hasattr(torch.Tensor, name)


@pytest.mark.parametrize(
    "method",
    [
        lambda x: x.sum(1),
        lambda x: x.sum((0, 2)),
        lambda x: x.mean(dim=-1, keepdim=True),
        lambda x: x.reshape(4, -1),
        lambda x: x.reshape((4, 6)),
        lambda x: x.reshape([4, 6]),
        lambda x: x.view(-1),
        lambda x: x.permute(2, 0, 1),
        lambda x: x.permute((2, 0, 1)),
        lambda x: x.expand(5, -1, -1, -1),
        lambda x: x.repeat(2, 1, 1),
        lambda x: x.flip(0, 1),
        lambda x: x.flip(0),
        lambda x: x.transpose(0, 1),
        lambda x: x.mT,
        lambda x: x[0].T,
        lambda x: x.flatten(1),
        lambda x: x.unsqueeze(-1).squeeze(-1),
        lambda x: x.clamp(min=0),
        lambda x: x.pow(2),
        lambda x: x.softmax(-1),
        lambda x: x.log_softmax(dim=1),
        lambda x: x.max(),
        lambda x: x.max(dim=2).values,
        lambda x: x.split(1)[1],
        lambda x: x.chunk(2, 2)[0],
        lambda x: x.roll(1, 0),
        lambda x: x.var(1, correction=0),
        lambda x: x.norm(),
        lambda x: x.masked_fill(x > 0, 0.0),
        lambda x: x.matmul(x.mT),
    ],
)
def test_methods_are_called_as_in_pytorch(method):
    compare(method, method, normal(2, 3, 4))


# -- dtypes and devices ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["half", "float", "double", "int", "long", "bool"])
def test_dtype_methods(name):
    compare(
        lambda x: getattr(x, name)(),
        lambda x: getattr(x, name)(),
        4 * normal(3, 4),
        tolerance={"float32": 1e-3, "float64": 1e-3},
    )


def test_a_gradient_passes_back_through_a_conversion_in_the_inputs_dtype():
    x = mt.tensor([1.0, 2.0], dtype="float32", requires_grad=True)
    y = x.double()
    assert y.dtype == np.float64
    (y * y).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), [2, 4])


def test_no_gradient_passes_through_integers():
    assert not mt.ones(2).requires_grad_().long().requires_grad


def test_to_takes_a_dtype_or_a_device_or_both():
    x = mt.ones(2)
    for y in (x.to("float64"), x.to(np.float64), x.to(dtype="float64"), x.to("cpu", "float64")):
        assert y.dtype == np.float64 and y.device == "cpu"
    for y in (x.to("cpu"), x.to("float32"), x.to(device="cpu"), x.cpu(), x.float()):
        assert y is x


def test_to_names_what_it_does_not_know():
    with pytest.raises(TypeError, match="tpu"):
        mt.ones(2).to("tpu")


def test_a_gpu_that_is_not_there_is_a_clear_error():
    try:
        import cupy

        present = cupy.is_available()
    except ImportError:
        present = False
    if present:
        pytest.skip("there is one")
    with pytest.raises((ImportError, mt.DeviceError), match="(?i)cupy"):
        mt.ones(2).cuda()


# -- declarations ----------------------------------------------------------------------------------


def test_every_operator_is_declared_for_type_checkers_and_every_declared_one_exists():
    declared = {
        method.name
        for block in ast.walk(ast.parse(inspect.getsource(mt.Tensor)))
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for method in block.body
        if isinstance(method, ast.FunctionDef)
    } - {"__getattr__"}
    attached = {
        *operators.OPERATORS,
        *operators.COMPARISONS,
        *operators.OF_ONE_OPERAND,
        *(f"__r{name[2:]}" for name in operators.OPERATORS),
    }
    assert declared == attached
    assert all(name in vars(mt.Tensor) for name in declared)


def test_methods_and_functions_are_the_same_operations():
    for name in METHODS:
        if hasattr(F, name) and name not in operators.METHODS_OF_SIZES.split():
            assert getattr(mt.Tensor, name) is getattr(F, name)


def test_to_takes_another_tensors_dtype_and_names_an_unknown_device():
    assert mt.ones(2).to(mt.ones(1, dtype="float64")).dtype == np.float64
    with pytest.raises(mt.DeviceError, match="unknown device 'cuda:0'"):
        mt.ones(2).to("cuda:0")


def test_a_method_called_wrongly_is_named():
    with pytest.raises(TypeError, match=r"Tensor.cuda\(\) takes 1"):
        mt.ones(2).cuda(0)


@pytest.mark.parametrize("target", ["gpu", "float33", 0])
def test_to_something_unknown_says_what_there_is(target):
    for x in (mt.ones(2), nn.Linear(2, 3)):
        with pytest.raises(mt.DTypeError, match=rf"to\({target!r}\): neither a device, 'cpu' or"):
            x.to(target)
