import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, basic_indices, integer_array_indices

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal, torch

X = normal(3, 4, 5)


def gradient_of_choosing(shape, index, dy):
    """Each element's gradient, added up one chosen place at a time."""
    places = np.arange(np.prod(shape)).reshape(shape)[index]
    dx = np.zeros(int(np.prod(shape)))
    for place, value in zip(np.ravel(places), np.ravel(dy)):
        dx[place] += value
    return dx.reshape(shape)


def check_index(index, shape=(3, 4, 5)):
    x = mt.tensor(normal(*shape), requires_grad=True)
    y = x[index]
    expected = x.numpy()[index]
    np.testing.assert_array_equal(y.numpy(), expected)
    assert y.shape == expected.shape
    dy = normal(*y.shape, seed=1)
    y.backward(dy)
    np.testing.assert_allclose(x.grad.numpy(), gradient_of_choosing(shape, index, dy), atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(basic_indices((3, 4, 5), allow_newaxis=True))
def test_integers_slices_ellipsis_and_new_axes(index):
    check_index(index)


@settings(max_examples=60, deadline=None)
@given(integer_array_indices((3, 4, 5)))
def test_integer_arrays_with_repeated_elements(index):
    check_index(index)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3).flatmap(lambda n: arrays(bool, (3, 4, 5)[:n])))
def test_masks(mask):
    check_index(mask)


@pytest.mark.parametrize(
    "index",
    [
        (0, [1, 1, 3]),
        ([2, 0], slice(None), [4, 4]),
        (slice(1, None), np.array([[0, 1], [1, 0]])),
        (..., [0, 0]),
        (None, [0, 2], ..., 1),
        (np.array([True, False, True]), 2),
        (np.array([True, False, True]), [1, 1]),
        [0, 0, -1],
        ([], slice(2)),
        np.array(1),
        (slice(None, None, -2), slice(3, 0, -1)),
    ],
)
def test_mixed_indices(index):
    check_index(index)


def test_tensors_as_indices():
    x, i, mask = mt.tensor(X), mt.tensor([2, 0, 2]), mt.tensor(X[:, 0, 0] > 0)
    np.testing.assert_array_equal(x[i].numpy(), X[[2, 0, 2]])
    np.testing.assert_array_equal(x[:, i, 1:].numpy(), X[:, [2, 0, 2], 1:])
    np.testing.assert_array_equal(x[mask].numpy(), X[mask.numpy()])
    np.testing.assert_array_equal(x[x > 0].numpy(), X[X > 0])
    np.testing.assert_array_equal(x[i[0], i[1]].numpy(), X[2, 0])


def test_a_repeated_index_accumulates():
    x = mt.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x[[0, 2, 0, 0]].backward(np.array([1.0, 10.0, 100.0, 1000.0]))
    np.testing.assert_array_equal(x.grad.numpy(), [1101, 0, 10])


def test_a_repeated_index_accumulates_in_float32():
    x = mt.zeros(2).requires_grad_()
    x[np.zeros(1000, dtype=int)].sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1000, 0])


def test_slices_are_views_and_chosen_elements_are_copies():
    x = mt.tensor(X)
    assert np.shares_memory(x[1:, ::2].numpy(), x.numpy())
    assert not np.shares_memory(x[[1, 2]].numpy(), x.numpy())


def test_an_index_array_that_changes_later_does_no_harm():
    index = np.array([0, 1])
    x = mt.ones(3).requires_grad_()
    y = x[index]
    index[:] = 2
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 1, 0])


@pytest.mark.parametrize("index", [3, -4, (0, 4), ([0, 3],), (..., 5), (0, 0, 0, 0)])
def test_an_index_out_of_bounds_is_an_index_error_that_names_the_shape(index):
    with pytest.raises(IndexError, match=r"getitem: .*\(3, 4, 5\)"):
        mt.tensor(X)[index]


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(IndexError, match="getitem: .*boolean"):
        mt.tensor(X)[np.array([True, False])]


def test_a_float_is_no_index():
    with pytest.raises(IndexError, match="getitem"):
        mt.tensor(X)[1.5]


def test_rows_come_one_by_one_in_a_loop():
    rows = list(mt.tensor(X, requires_grad=True))
    assert len(rows) == 3 and all(row.shape == (4, 5) and row.requires_grad for row in rows)


# -- along one axis --------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_gather_along_any_axis_as_in_pytorch(data):
    dim = data.draw(st.integers(-3, 2))
    shape = [data.draw(st.integers(0, n)) for n in X.shape]
    shape[dim] = data.draw(st.integers(0, 6))
    index = data.draw(arrays(np.int64, tuple(shape), elements=st.integers(0, X.shape[dim] - 1)))
    compare(
        lambda x: F.gather(x, dim, mt.tensor(index)),
        lambda x: torch.gather(x, dim, torch.tensor(index)),
        X,
    )


@pytest.mark.parametrize("shape", [(3, 4), (4, 4, 5), (3, 4, 6)])
def test_gather_needs_an_index_that_fits(shape):
    with pytest.raises(mt.ShapeError, match=r"gather: an index of shape .* \(3, 4, 5\).* than 1"):
        F.gather(mt.tensor(X), 1, np.zeros(shape, dtype=int))


@pytest.mark.parametrize("shape,dim", [((1, 2, 1), 1), ((3, 4, 1), 2), ((2, 1, 5), 0)])
def test_take_along_dim_broadcasts(shape, dim):
    index = np.random.default_rng(0).integers(0, X.shape[dim], shape)
    compare(
        lambda x: F.take_along_dim(x, mt.tensor(index), dim),
        lambda x: torch.take_along_dim(x, torch.tensor(index), dim),
        X,
    )


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_index_select(dim):
    index = np.array([2, 0, 2, 1])
    compare(
        lambda x: F.index_select(x, dim, mt.tensor(index)),
        lambda x: torch.index_select(x, dim, torch.tensor(index)),
        X,
    )


@pytest.mark.parametrize("op", [F.gather, F.index_select])
def test_indices_must_be_integers(op):
    with pytest.raises(TypeError, match=rf"{op.__name__}: an index holds integers, not float"):
        op(mt.tensor(X), 0, mt.zeros(1, 1, 1))


@pytest.mark.parametrize("op", [F.gather, F.index_select])
def test_indices_along_an_axis_must_exist(op):
    index = np.full((1, 1, 1) if op is F.gather else (1,), 7)
    with pytest.raises(IndexError, match=rf"{op.__name__}: .*7.*\(3, 4, 5\)"):
        op(mt.tensor(X), 0, index)
    with pytest.raises(IndexError, match=rf"{op.__name__}: .*no dim 3"):
        op(mt.tensor(X), 3, index)


# -- one_hot ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
@pytest.mark.parametrize("num_classes", [-1, 5, 8])
def test_one_hot(shape, num_classes):
    classes = np.random.default_rng(0).integers(0, 5, shape)
    compare(
        lambda: F.one_hot(mt.tensor(classes), num_classes),
        lambda: torch.nn.functional.one_hot(torch.tensor(classes), num_classes),
    )


def test_one_hot_of_nothing():
    assert F.one_hot(mt.tensor([], dtype="int64"), 1).shape == (0, 1)


def test_one_hot_beside_floats_stays_float32():
    y = F.one_hot(mt.tensor([0, 2])) * mt.ones(2, 3).log_softmax(1)
    assert y.dtype == np.float32


@pytest.mark.parametrize("classes,wrong", [([0, 3], 3), ([-1, 2], -1)])
def test_one_hot_names_a_class_that_does_not_exist(classes, wrong):
    with pytest.raises(IndexError, match=f"one_hot: class {wrong} is not one of the 3 classes"):
        F.one_hot(mt.tensor(classes), 3)


def test_one_hot_needs_integers():
    with pytest.raises(TypeError, match="one_hot: an index holds integers, not float32"):
        F.one_hot(mt.ones(3))


def test_gradients_of_indexing_by_central_differences():
    check_gradients(lambda x: x[[0, 0, 2], 1:3], X)
    check_gradients(lambda x: x[X > 0], X)


def test_an_index_may_be_a_list():
    x = mt.tensor([5.0, 6.0, 7.0])
    assert F.index_select(x, 0, [0, 2]).tolist() == F.gather(x, 0, [0, 2]).tolist() == [5, 7]
    with pytest.raises(mt.ShapeError, match=r"index_select: needs an index of one axis"):
        F.index_select(x, 0, [[0]])
