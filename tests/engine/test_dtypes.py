"""The default dtype, and results that NumPy would widen."""

import numpy as np
import pytest

from minitorch_attn.engine import DTypeError, get_default_dtype, set_default_dtype
from minitorch_attn.engine.dtypes import unwidened


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
