"""The default dtype, results that NumPy would widen, and bfloat16."""

import re
import sys

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.engine import DTypeError, get_default_dtype, primitive, set_default_dtype
from minitorch_attn.engine.dtypes import as_dtype, as_floats, is_floating, unwidened
from minitorch_attn.simulator import simulated_gpu
from tests.ops.test_functional import EXAMPLES, PUBLIC, run, variables


@pytest.fixture(autouse=True)
def restored():
    before = get_default_dtype()
    yield
    set_default_dtype(before)


@pytest.mark.parametrize("dtype", ["float64", np.float16, np.dtype("float32")])
def test_the_default_dtype_can_be_set(dtype):
    set_default_dtype(dtype)
    assert get_default_dtype() == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["int64", bool, "complex64"])
def test_the_default_dtype_is_a_float(dtype):
    with pytest.raises(DTypeError, match="the default dtype must be a float type"):
        set_default_dtype(dtype)
    assert get_default_dtype() == np.float32


def array(dtype: str) -> np.ndarray:
    return np.ones(2, dtype)


@pytest.mark.parametrize(
    ("inputs", "dtype"),
    [
        ([array("int64")], "float32"),
        ([array("float32"), array("int64")], "float32"),
        ([array("float16"), array("float32"), 2.0], "float32"),
        ([array("float16"), array("bool")], "float16"),
        ([array("float64"), array("int64")], "float64"),
        ([1.0, 2.0], "float32"),
    ],
)
def test_integers_do_not_widen_floats(inputs, dtype):
    assert unwidened(array("float64"), inputs).dtype == dtype


# -- half precision -----------------------------------------------------------------------------


@pytest.fixture
def bfloat16():
    pytest.importorskip("ml_dtypes")
    return as_dtype("bfloat16")


@pytest.mark.parametrize("name", ["flaot32", "cuda", 0, ["float32"]])
def test_an_unknown_dtype_is_named(name):
    with pytest.raises(DTypeError, match=rf"{re.escape(repr(name))} is no dtype: name one, such"):
        as_dtype(name)


def test_bfloat16_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"compute in bfloat16, .*ml_dtypes.*attn\[bfloat16\]"):
        mt.tensor([1.0], dtype="bfloat16")


def test_bfloat16_is_the_upper_half_of_a_float32(bfloat16):
    x = mt.tensor([1.0, 1 + 2**-7, 1 + 2**-9, 3e38], dtype="bfloat16", requires_grad=True)
    assert x.dtype == bfloat16 and is_floating(x.dtype) and str(x.dtype) == "bfloat16"
    assert x.tolist()[:3] == [1, 1 + 2**-7, 1] and np.isfinite(x.tolist()[3])
    x.backward(np.ones(4))
    assert x.grad.dtype == bfloat16
    assert "dtype=bfloat16" in repr(x)


def test_tensors_and_modules_can_be_of_bfloat16(bfloat16):
    for x in (mt.zeros(2, dtype="bfloat16"), mt.ones(2, dtype="bfloat16"), mt.rand(2).to(bfloat16)):
        assert x.dtype == bfloat16
    assert (mt.rand(1000, dtype="bfloat16").numpy() < 1).all()
    net = nn.Linear(2, 2).to("bfloat16")
    assert net(mt.ones(1, 2, dtype="bfloat16")).dtype == net.weight.dtype == bfloat16
    assert net.to("float32").weight.dtype == np.float32


def test_the_default_dtype_can_be_bfloat16(bfloat16):
    set_default_dtype("bfloat16")
    assert mt.tensor([0.5]).dtype == nn.Linear(1, 1).weight.dtype == bfloat16


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), True])
def test_numbers_do_not_widen_bfloat16(bfloat16, number):
    x = mt.ones(3, dtype="bfloat16")
    for y in (x + number, number * x, x / number, x**number, x.clamp(0, 1), F.maximum(x, number)):
        assert y.dtype == bfloat16
    assert (x + mt.tensor([1, 2, 3])).dtype == bfloat16
    assert (x + mt.ones(3)).dtype == np.float32
    assert (x + mt.tensor(np.ones(3))).dtype == np.float64


def test_what_else_is_in_use_changes_no_dtype(bfloat16):
    x = mt.ones(2, dtype="float16") * mt.tensor(np.array(2, "float32"))
    assert x.dtype == (np.ones(2, "float16") * np.array(2, "float32")).dtype
    assert (mt.tensor([1, 2]) / 2).dtype == np.float32


# What a small change of the input changes much: the remainder jumps, and between the pixels that
# a grid reads the slope does.
JUMPS = {"grid_sample", "remainder"}


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - JUMPS))
def test_every_operation_and_its_gradients_take_half_precision(name, half, request):
    if half == "bfloat16":
        request.getfixturevalue("bfloat16")
    inputs, settings = EXAMPLES[name]
    results = []
    for dtype in (half, "float64"):
        tensors = [mt.tensor(x, dtype=half).to(dtype).detach() for x in variables(inputs)]
        for x in tensors:
            x.requires_grad = True
        y = run(PUBLIC[name], inputs, settings, tensors)
        y.backward(np.ones(y.shape))
        results.append([y, *(x.grad for x in tensors)])
    for got, exact in zip(*results):
        assert (got is None) == (exact is None)
        if got is not None:
            assert got.dtype == half
            scale = max(1, np.abs(exact.numpy()).max(initial=0))
            error = np.abs(got.numpy().astype("float64") - exact.numpy()).max(initial=0) / scale
            assert error < (0.02 if half == "bfloat16" else 0.003)


def test_half_precision_is_summed_in_float32():
    for dtype in ("float16", "bfloat16"):
        if dtype == "bfloat16":
            pytest.importorskip("ml_dtypes")
        x = mt.ones(2000, dtype=dtype) + mt.tensor([*[0] * 1999, 1], dtype=dtype)
        assert x.sum().item() == (2001 if dtype == "float16" else 2000)  # of 2001 the nearest
        assert (x[None] @ x[:, None]).item() == (2003 if dtype == "float16" else 2000)
    overflow = mt.tensor([60000.0, 60000.0, -60000.0], dtype="float16")
    with np.errstate(over="ignore"):  # the second of the sums
        assert overflow.sum().item() == 60000 and overflow.cumsum(0).tolist()[-1] == 60000


def test_two_kinds_of_half_meet_in_float32(bfloat16):
    a, b = np.ones(2, "float16"), np.ones(2, bfloat16)
    arrays, half = as_floats([a, b, 2.0, None], "all")
    assert [x.dtype for x in arrays[:2]] == [np.float32] * 2 and half is None
    assert arrays[2:] == [2.0, None]


def test_only_half_precision_becomes_float32_where_that_is_asked():
    arrays, half = as_floats([np.ones(2, int), np.ones(2, "float16")], "half")
    assert [x.dtype for x in arrays] == [int, np.float32] and half == np.float16
    whole = [np.ones(2, int), np.ones(2, "float32")]
    assert as_floats(whole, "half") == (whole, None)


def test_a_primitive_that_takes_half_gets_it_on_a_gpu_alone():
    got = []

    @primitive(floats="all", takes_half=True)
    def look(a, b):
        got.append((str(a.dtype), str(b.dtype)))
        return a * b, (lambda dy: dy * b, lambda dy: dy * a)

    with simulated_gpu():
        for device in ("cpu", "cuda"):
            half = mt.ones(2, dtype="float16").to(device)
            for other in (half, half.to("float32"), mt.tensor([1, 2]).to(device)):
                assert look(half, other).dtype in (np.float16, other.dtype)
    single = ("float32", "float32")
    assert got == [single, single, single, ("float16", "float16"), single, single]
