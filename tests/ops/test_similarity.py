import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal


def pytorch(name):
    pytest.importorskip("torch")
    import torch

    return getattr(torch.nn.functional, name)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 0.5, float("inf")])
@pytest.mark.parametrize(("shape", "dim"), [((3, 4), 1), ((3, 4), 0), ((2, 3, 4), -1), ((5,), 0)])
def test_normalize_agrees_with_pytorch(shape, dim, p):
    compare(F.normalize, pytorch("normalize"), normal(*shape), p=p, dim=dim)
    compare(F.normalize, pytorch("normalize"), normal(*shape), p=p, dim=dim, eps=1.5)


def test_normalize_over_several_axes_and_of_nothing():
    compare(F.normalize, pytorch("normalize"), normal(2, 3, 4), dim=(1, 2))
    compare(F.normalize, pytorch("normalize"), normal(0, 3))


def test_the_null_vector_stays_and_its_gradient_is_finite():
    x = np.zeros((2, 3))
    x[1] = 1, 2, 2
    compare(F.normalize, pytorch("normalize"), x)
    assert F.normalize(x).tolist()[0] == [0, 0, 0]


@pytest.mark.parametrize(
    ("first", "second", "dim"),
    [((3, 4), (3, 4), 1), ((2, 3, 4), (3, 4), -1), ((2, 1, 4), (3, 4), 0), ((5,), (5,), 0),
     ((0, 3), (0, 3), 1), ((3, 1), (3, 1), 1)],
)  # fmt: skip
@pytest.mark.parametrize("eps", [1e-8, 2.0])
def test_cosine_similarity_agrees_with_pytorch(first, second, dim, eps):
    ours, theirs = F.cosine_similarity, pytorch("cosine_similarity")
    compare(ours, theirs, normal(*first), normal(*second, seed=1), dim=dim, eps=eps)


def test_cosine_similarity_of_null_vectors_agrees_with_pytorch():
    x = normal(4, 3)
    x[0], x[1] = 0, 1e-10
    compare(F.cosine_similarity, pytorch("cosine_similarity"), x, normal(4, 3, seed=1))


def test_what_the_cosine_is():
    x = mt.tensor([[1.0, 0.0], [1.0, 1.0], [-2.0, 0.0]])
    y = F.cosine_similarity(x, mt.tensor([[3.0, 0.0]]))
    np.testing.assert_allclose(y.numpy(), [1, np.sqrt(0.5), -1], rtol=1e-6)


def test_gradients_are_those_measured():
    check_gradients(F.normalize, normal(3, 4))
    check_gradients(F.normalize, normal(3, 4), 3.0, 0)
    check_gradients(F.cosine_similarity, normal(3, 4), normal(3, 4, seed=1))
    check_gradients(F.cosine_similarity, normal(2, 1, 4), normal(3, 4, seed=1), dim=2)


def test_what_does_not_fit_is_explained():
    with pytest.raises(mt.ShapeError, match=r"\(3, 4\) and \(3, 5\) do not broadcast"):
        F.cosine_similarity(mt.ones(3, 4), mt.ones(3, 5))
    with pytest.raises(IndexError, match="cosine_similarity: .*2"):
        F.cosine_similarity(mt.ones(3, 4), mt.ones(3, 4), dim=2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.normalize(x[0]), IndexError, "normalize: the tensor has no dim 1"),
        (lambda x: F.normalize(x, dim="1"), ValueError, "normalize: dim must be an integer or a"),
        (lambda x: F.cosine_similarity(x, x, 2), IndexError, "cosine_similarity: the tensor has"),
        (lambda x: F.cosine_similarity(x, None), TypeError, "cosine_similarity: takes tensors, no"),
    ],
)
def test_an_axis_that_is_missing_is_named(call, error, message):
    with pytest.raises(error, match="^" + message):
        call(mt.ones(2, 3))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 0.5, float("inf")])
@pytest.mark.parametrize(
    ("first", "second"), [((3, 4), (3, 4)), ((2, 3, 4), (3, 4)), ((2, 1, 4), (3, 4)), ((4,), (4,)),
                          ((0, 4), (0, 4)), ((3, 4), (1, 4))],
)  # fmt: skip
def test_pairwise_distance_agrees_with_pytorch(first, second, p):
    ours, theirs = F.pairwise_distance, pytorch("pairwise_distance")
    x, y = normal(*first), normal(*second, seed=1)
    compare(ours, theirs, x, y, p=p)
    compare(ours, theirs, x, y, p=p, eps=0.5, keepdim=True)


def test_pairwise_distance_of_equal_vectors_has_a_finite_gradient():
    x = normal(3, 4)
    compare(F.pairwise_distance, pytorch("pairwise_distance"), x, x)
    compare(F.pairwise_distance, pytorch("pairwise_distance"), x, x, eps=0)


def test_gradients_of_pairwise_distance_are_those_measured():
    for p in (1, 2, 3.5):
        check_gradients(F.pairwise_distance, normal(3, 4), normal(3, 4, seed=1), p=p)


def test_mistakes_of_pairwise_distance_are_explained():
    with pytest.raises(ValueError, match="pairwise_distance: p must be greater than 0, not 0"):
        F.pairwise_distance(normal(2, 3), normal(2, 3), p=0)
    with pytest.raises(mt.ShapeError, match=r"pairwise_distance: needs vectors .*\(\) and \(3,\)"):
        F.pairwise_distance(mt.tensor(1.0), normal(3))
    with pytest.raises(mt.ShapeError, match=r"\(2, 3\).*\(2, 4\)"):
        F.pairwise_distance(normal(2, 3), normal(2, 4))
