"""Tensors made from a shape."""

import numpy as np
import pytest

from minitorch_attn.engine import (
    arange,
    default_generator,
    full,
    get_default_dtype,
    manual_seed,
    ones,
    ones_like,
    rand,
    randn,
    set_default_dtype,
    tensor,
    zeros,
    zeros_like,
)


@pytest.mark.parametrize("make", [zeros, ones, rand, randn])
def test_shapes_dtypes_and_leaves(make):
    for x in (make(2, 3), make((2, 3)), make([2, 3])):
        assert x.shape == (2, 3)
        assert x.dtype == get_default_dtype() == np.float32
        assert not x.requires_grad
    assert make().shape == ()
    assert make(0, 3).numel() == 0
    assert make(2, dtype="float16").dtype == np.float16
    x = make(2, requires_grad=True)
    assert x.requires_grad and x.is_leaf


def test_values():
    assert zeros(2).tolist() == [0.0, 0.0]
    assert ones(2, dtype="int64").tolist() == [1, 1]
    assert full((2,), 1.5, requires_grad=True).tolist() == [1.5, 1.5]
    assert [full((), v).dtype.name for v in (1.5, 1, True)] == ["float32", "int64", "bool"]
    assert full((1,), 1, dtype="float64").dtype == np.float64


def test_the_default_dtype_is_followed():
    set_default_dtype("float64")
    try:
        made = [zeros(1), ones(1), full((1,), 0.5), rand(1), randn(1), arange(0.0, 1.0, 0.5)]
        assert {x.dtype.name for x in made} == {"float64"}
    finally:
        set_default_dtype("float32")


@pytest.mark.parametrize(("make", "value"), [(zeros_like, 0.0), (ones_like, 1.0)])
def test_like_another_tensor(make, value):
    x = make(tensor(np.full((2, 3), 7, "float16"), requires_grad=True))
    assert (x.dtype, x.shape, x.requires_grad) == (np.float16, (2, 3), False)
    assert (x.data == value).all()


def test_arange():
    assert arange(3).tolist() == [0, 1, 2]
    assert arange(3).dtype == np.int64
    assert arange(1, 7, 2).tolist() == [1, 3, 5]
    assert arange(0, 1, 0.25).dtype == np.float32
    assert arange(3, dtype="float64").dtype == np.float64


def test_random_numbers_repeat_with_the_seed():
    manual_seed(3)
    first, second = randn(4).tolist(), rand(4).tolist()
    assert randn(4).tolist() != first
    assert manual_seed(3) is default_generator()
    assert (randn(4).tolist(), rand(4).tolist()) == (first, second)


def test_a_generator_of_ones_own_leaves_the_default_one_alone():
    before = default_generator().bit_generator.state
    one, two = (randn(3, generator=np.random.default_rng(0)).tolist() for _ in range(2))
    assert one == two
    assert default_generator().bit_generator.state == before


def test_every_dtype_draws_the_same_numbers():
    for make in (rand, randn):
        single, double = (
            make(1000, dtype=d, generator=np.random.default_rng(0)) for d in ("float32", "float64")
        )
        np.testing.assert_array_equal(single.data, double.data.astype("float32"))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_uniform_numbers_stay_below_1(dtype):
    class AlmostOne:
        def random(self, shape):
            return np.full(shape, np.nextafter(1.0, 0.0))

    assert rand(1, dtype=dtype, generator=AlmostOne()).item() < 1
    assert rand(1, dtype=dtype, generator=AlmostOne()).dtype == dtype
