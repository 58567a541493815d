import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal, torch

SHAPES = [(7,), (3, 5), (2, 3, 4), (3, 0), (0, 3), (1, 1), ()]


def axes_of(shape):
    return range(-max(len(shape), 1), max(len(shape), 1))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_sort_agrees_with_pytorch(shape, descending):
    for dim in axes_of(shape):
        x = np.asarray(np.round(normal(*shape)))  # with equal values
        compare(
            lambda x, dim=dim: F.sort(x, dim, descending),
            lambda x, dim=dim: torch.sort(x, dim=dim, descending=descending, stable=True),
            x,
        )
        ours = F.argsort(x, dim, descending).numpy()
        theirs = pytest.importorskip("torch").argsort(
            torch.tensor(x), dim=dim, descending=descending, stable=True
        )
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 4, 3), ()])
def test_topk_agrees_with_pytorch(shape, largest):
    for dim in axes_of(shape):
        for k in range((shape[dim] if shape else 1) + 1):
            compare(
                lambda x, k=k, dim=dim: F.topk(x, k, dim, largest),
                lambda x, k=k, dim=dim: torch.topk(x, k, dim, largest),
                np.asarray(normal(*shape)),
            )


def test_gradients_go_to_where_the_values_came_from():
    check_gradients(lambda x: F.sort(x, 0).values, normal(4, 3))
    check_gradients(lambda x: F.sort(x, 1, descending=True).values, normal(4, 3))
    check_gradients(lambda x: F.topk(x, 2).values, normal(4, 3))
    x = mt.tensor([3.0, 1.0, 2.0], requires_grad=True)
    values, indices = x.topk(2)
    (values * mt.tensor([10.0, 1.0])).sum().backward()
    assert (indices.tolist(), x.grad.tolist()) == ([0, 2], [10, 0, 1])
    assert not indices.requires_grad and indices.dtype == np.int64


@pytest.mark.parametrize("descending", [False, True])
def test_nan_is_the_greatest(descending):
    torch = pytest.importorskip("torch")
    x = [1.0, np.nan, -np.inf, np.inf, np.nan]
    ours = F.sort(mt.tensor(x), descending=descending)
    theirs = torch.sort(torch.tensor(x), descending=descending, stable=True)
    np.testing.assert_array_equal(ours.values.numpy(), theirs.values.numpy())
    np.testing.assert_array_equal(ours.indices.numpy(), theirs.indices.numpy())


def test_integers_and_booleans_are_sorted_as_they_are():
    assert F.sort(mt.tensor([3, 1, 2]), descending=True).values.tolist() == [3, 2, 1]
    assert F.sort(mt.tensor([True, False])).values.tolist() == [False, True]


def test_the_methods():
    x = mt.tensor([[2.0, 3.0, 1.0]])
    assert x.sort().values.tolist() == [[1, 2, 3]]
    assert x.argsort(descending=True).tolist() == [[1, 0, 2]]
    assert [part.item() for part in x[0].unbind()] == [2, 3, 1]


@pytest.mark.parametrize("k", [-1, 4])
def test_topk_has_at_most_what_there_is(k):
    with pytest.raises(mt.ShapeError, match=f"k must be from 0 to 3, the size of dim 1, not {k}"):
        F.topk(mt.ones(5, 3), k, 1)


@pytest.mark.parametrize("op", [F.sort, F.argsort, lambda x, dim: F.topk(x, 1, dim)])
def test_an_axis_that_does_not_exist(op):
    with pytest.raises(IndexError, match="2"):
        op(mt.ones(5, 3), 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.sort(x, 2), IndexError, "^sort: the tensor has no dim 2"),
        (lambda x: F.sort(x, "0"), ValueError, "^sort: dim must be an integer, not '0'"),
        (lambda x: F.topk(x, 1, 1.0), ValueError, "^topk: dim must be an integer, not 1.0"),
        (lambda x: F.topk(x, "2"), ValueError, "^topk: k must be an integer, not '2'"),
        (lambda x: F.topk(x, 2.0), ValueError, "^topk: k must be an integer, not 2.0"),
    ],
)
def test_what_is_no_axis_or_no_count_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(mt.ones(2, 3))
