"""The stand-in's array does what CuPy's does, above all where that is not what NumPy's does."""

import copy
import pickle
import weakref

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.simulator import simulated_gpu


@pytest.fixture
def x(cupy):
    return cupy.asarray(np.arange(12.0, dtype="f").reshape(3, 4))


# -- apart from NumPy ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, a: x + a,
        lambda x, a: a + x,
        lambda x, a: x < a,
        lambda x, a: x @ a.T,
        lambda x, a: np.maximum(x, a),
        lambda x, a: np.exp(x, out=a),
        lambda x, a: np.where(x > 0, x, a),
        lambda x, a: np.where(a > 0, x, x),
        lambda x, a: np.concatenate([x, a]),
        lambda x, a: np.einsum("ij,ij->i", x, a),
        lambda x, a: x.dot(a),
        lambda x, a: np.add.at(a, x > 3, 1),
        lambda x, a: x.__iadd__(a),
        lambda x, a: x + [1, 2, 3, 4],
    ],
)
def test_it_does_not_mix_with_numpys_arrays(x, mix):
    with pytest.raises(TypeError):
        mix(x, np.ones((3, 4), "f"))


def test_numbers_of_python_and_numpy_are_operands(x):
    for y in (x + 1, 1 + x, x + np.float32(1), np.float32(1) + x, np.add(x, 1)):
        assert (type(y), y.dtype) == (type(x), np.float32)
        np.testing.assert_array_equal(y.get(), x.get() + 1)
    assert (x + np.float64(1)).dtype == np.float64
    assert (x < np.asarray(3)).sum().item() == 3  # a comparison reads an array without axes
    with pytest.raises(TypeError):
        x + np.asarray(3)


def test_it_is_not_copied_to_the_host_unasked(x):
    for implicit in (np.asarray, np.array, np.ascontiguousarray, lambda x: np.ones(2) * x):
        with pytest.raises(TypeError):
            implicit(x)


def test_numpys_functions_are_led_to_cupys(x, cupy):
    assert isinstance(np.sqrt(x), cupy.ndarray)
    assert isinstance(np.concatenate([x, x]), cupy.ndarray)
    assert isinstance(np.multiply.outer(x, x), cupy.ndarray)
    assert np.shape(x) == (3, 4)
    with pytest.raises(TypeError, match="no implementation"):
        np.unstack(x)


@pytest.mark.parametrize(
    "read", [float, int, complex, bool, range, max, lambda x: [1, 2][x], lambda x: 1 in x[None]]
)
def test_no_value_is_read_unseen(cupy, read):
    with pytest.raises(TypeError):
        read(cupy.asarray(np.asarray(1)))


# -- shapes and memory -----------------------------------------------------------------------------


def test_results_without_axes_stay_arrays(x, cupy):
    for y in (x.sum(), x[0, 0], np.max(x), x.sum() + 1, np.exp(x.sum()), cupy.allclose(x, x)):
        assert isinstance(y, cupy.ndarray) and y.shape == ()


def test_views_show_the_memory_of_their_base(x):
    for view in (x[1:], x.T, x.reshape(4, 3), x[None, ..., 2], x.view(), np.moveaxis(x, 0, 1)):
        assert view.base is x
    for of_its_own in (x + 0, x[[0, 1]], x.copy(), x[x > 3], x.T.reshape(-1)):
        assert of_its_own.base is None
    x.T[0] = 7
    assert x[:, 0].tolist() == [7, 7, 7]


def test_the_same_array_is_returned_where_nothing_is_to_be_done(x, cupy):
    assert cupy.asarray(x) is x
    assert cupy.ascontiguousarray(x) is x
    assert x.astype(np.float32, copy=False) is x
    assert np.exp(x, out=x) is x


def test_its_memory_has_an_address_and_no_lock(x):
    assert x[1:].data.ptr == x.data.ptr + 16
    assert x.flags.c_contiguous and not x.T.flags["C_CONTIGUOUS"]
    assert not hasattr(x.flags, "writeable")


def test_memory_that_was_not_written_holds_nothing_sensible(cupy):
    assert np.isnan(cupy.empty((2, 3)).get()).all()
    assert np.isnan(cupy.empty_like(cupy.ones(3)).get()).all()
    assert (cupy.ndarray((2,), np.int32).get() == -1).all()


def test_it_can_be_copied_pickled_and_referred_to_weakly_but_not_hashed(x):
    for twin in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert type(twin) is type(x) and twin.base is None
        np.testing.assert_array_equal(twin.get(), x.get())
    assert weakref.ref(x)() is x
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)


# -- indices ---------------------------------------------------------------------------------------


def test_integers_out_of_range_are_errors_but_in_arrays_they_wrap_around(x):
    with pytest.raises(IndexError):
        x[3]
    np.testing.assert_array_equal(x[[3, -4]].get(), x.get()[[0, 2]])
    np.testing.assert_array_equal(x[:, np.array([5])].get(), x.get()[:, [1]])
    np.testing.assert_array_equal(x.take([4], axis=0).get(), x.get()[[1]])
    np.testing.assert_array_equal(x[None, ..., [4], 1:].get(), x.get()[None, [1], 1:])


@pytest.mark.parametrize(
    "index", [0, -1, (slice(None), 1), ..., None, (None, 2), ([0, 2], [1, 1]), [], (0, [1, 2])]
)
def test_an_index_picks_what_it_picks_in_numpy(x, index):
    np.testing.assert_array_equal(x[index].get(), x.get()[index])


def test_indices_of_the_host_are_copied_to_the_device(x, traffic):
    traffic.reset()
    for index in (np.array([0, 1]), [0, 1], np.array([True, False, True])):
        np.testing.assert_array_equal(x[index]._host, x._host[index])
    assert traffic.to_device == 3


def test_which_of_several_values_stays_in_one_place_is_left_open(x):
    """CuPy's threads race; NumPy's users rely on the last value."""
    x[[0, 0]] = x[[1, 2]].copy()
    assert x[0].tolist() == x[1].tolist() != x[2].tolist()
    x[[2, 0]] = x[[0, 2]].copy()
    assert x[:, 0].tolist() == [8, 4, 4]


def test_slices_take_arrays_of_the_device_and_numbers_only(x):
    x[0] = x[1]
    x[1] = 5
    x[2] = np.asarray(6.0)
    assert x[:, 0].tolist() == [4, 5, 6]
    for value in (np.ones(4), [1, 2, 3, 4]):
        with pytest.raises(ValueError, match="cannot be used for fill"):
            x[0] = value


def test_an_element_is_a_view_as_a_slice_is(x):
    x[0, 1] = 5
    element = x[0, 1]
    element += 2
    assert x[0, 1].item() == 7


def test_what_is_assigned_at_indices_may_come_from_the_host(x, traffic):
    traffic.reset()
    x[[0, 2]] = np.ones(4)
    assert x[:, 0].tolist() == [1, 4, 1]
    assert traffic.to_device == 2  # the index too


# -- methods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.sum(initial=1),
        lambda x: x.max(where=x > 0),
        lambda x: x.var(correction=1),
        lambda x: np.sum(x, where=x > 0),
        lambda x: np.add(x, x, where=True),
        lambda x: np.take_along_axis(x, x.argsort()),
    ],
)
def test_parameters_that_cupy_does_not_have_are_refused(x, call):
    with pytest.raises(TypeError):
        call(x)


def test_methods_that_cupy_does_not_have_are_not_there(x):
    for name in ("resize", "itemset", "byteswap_", "__contains__", "__index__", "__imatmul__"):
        assert not hasattr(x, name)


def test_sorting_is_stable_or_an_error(x):
    assert x.argsort(kind="stable").shape == (3, 4)
    for sort in (x.argsort, lambda kind: np.sort(x, kind=kind)):
        with pytest.raises(ValueError, match="stable"):
            sort(kind="quicksort")


# -- ufuncs ----------------------------------------------------------------------------------------


def test_only_sums_and_products_reduce_and_accumulate(x):
    np.testing.assert_array_equal(np.add.reduce(x, 0).get(), x.get().sum(0))
    np.testing.assert_array_equal(np.multiply.accumulate(x, 0).get(), x.get().cumprod(0))
    for missing in (np.maximum.reduce, np.logical_or.reduce, np.maximum.accumulate):
        with pytest.raises(NotImplementedError):
            missing(x)


def test_few_ufuncs_and_types_can_be_added_to_at_indices(cupy):
    total = cupy.zeros(3, np.float32)
    cupy.add.at(total, cupy.asarray([0, 0, 4]), 1)
    assert total.tolist() == [2, 1, 0]
    with pytest.raises(NotImplementedError):
        cupy.multiply.at(total, [0], 2)
    for ufunc, dtype in ((cupy.subtract, "f4"), (cupy.add, "i2"), (cupy.maximum, "f2")):
        with pytest.raises(TypeError, match="only supports"):
            ufunc.at(cupy.zeros(3, dtype), [0], 1)


def test_nothing_warns_of_infinities(cupy):
    with np.errstate(all="raise"):
        assert np.isinf(cupy.ones(2) / cupy.zeros(2)).all().item()


# -- with the engine -------------------------------------------------------------------------------


def test_a_tensor_beside_it_answers_first(cupy):
    tensor = mt.ones(3).to("cuda")
    assert isinstance(cupy.ones(3, np.float32) * tensor, mt.Tensor)


def test_it_is_gone_when_the_simulation_is_over():
    import sys

    before = sys.modules.get("cupy")
    with simulated_gpu(), simulated_gpu():
        assert mt.ones(2).to("cuda").device == "cuda"
        assert mt.cuda.is_available()
    assert sys.modules.get("cupy") is before
