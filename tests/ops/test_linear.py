import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal


def pytorch(name):
    def call(*args, **options):
        import torch

        return getattr(torch.nn.functional, name)(*args, **options)

    return call


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 4), (2, 0, 4), (1, 2, 3, 4)])
def test_linear_agrees_with_pytorch(shape):
    compare(F.linear, pytorch("linear"), normal(*shape), normal(5, 4), normal(5))
    compare(F.linear, pytorch("linear"), normal(*shape), normal(5, 4))


@settings(max_examples=30, deadline=None)
@given(
    batch=st.lists(st.integers(0, 3), max_size=3), inside=st.integers(1, 4), out=st.integers(1, 4)
)
def test_linear_agrees_with_pytorch_at_any_shape(batch, inside, out):
    compare(F.linear, pytorch("linear"), normal(*batch, inside), normal(out, inside), normal(out))


def test_linear_gradients_are_those_measured():
    check_gradients(F.linear, normal(2, 3, 4), normal(5, 4), normal(5))
    check_gradients(F.linear, normal(4), normal(5, 4))


def test_linear_of_inputs_that_are_not_contiguous():
    compare(
        lambda x, w: F.linear(x.permute(2, 1, 0), w.T),
        lambda x, w: pytorch("linear")(x.permute(2, 1, 0), w.T),
        normal(4, 3, 2),
        normal(4, 5),
    )


def test_a_bias_of_none_is_no_bias():
    x, w = normal(3, 4), normal(5, 4)
    np.testing.assert_array_equal(F.linear(x, w, None).numpy(), F.linear(x, w).numpy())
    assert F.linear(x, weight=w, bias=normal(5)).shape == (3, 5)


@pytest.mark.parametrize(
    ("x", "w", "b", "message"),
    [
        ((2, 3), (5, 4), None, r"weight \(5, 4\) takes 4 features.*input \(2, 3\)"),
        ((), (5, 4), None, "takes 4 features"),
        ((2, 4), (4,), None, r"shape \(out features, in features\), not \(4,\)"),
        ((2, 4), (5, 4), (4,), r"each of 5 outputs, shape \(5,\), not \(4,\)"),
    ],
)
def test_linear_explains_sizes_that_do_not_fit(x, w, b, message):
    with pytest.raises(mt.ShapeError, match="^linear: .*" + message):
        F.linear(np.zeros(x), np.zeros(w), None if b is None else np.zeros(b))


INDICES = [np.array(2), np.array([0, 3, 3]), np.array([[1, 1], [0, 1]]), np.zeros((0, 2), int)]


@pytest.mark.parametrize("padding_idx", [None, 1, -1])
@pytest.mark.parametrize("indices", INDICES, ids=lambda i: str(i.shape))
def test_embedding_agrees_with_pytorch(indices, padding_idx):
    compare(F.embedding, pytorch("embedding"), indices, normal(4, 3), padding_idx=padding_idx)


def test_a_row_that_is_looked_up_twice_gets_both_gradients():
    check_gradients(lambda w: F.embedding([[0, 2], [2, 2]], w), normal(4, 3))
    w = mt.tensor(normal(4, 3), requires_grad=True)
    F.embedding(mt.tensor([2, 2, 2, 0]), w).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy()[:, 0], [1, 0, 3, 0])


def test_the_padding_row_is_looked_up_and_gets_no_gradient():
    w = mt.tensor(normal(4, 3), requires_grad=True)
    y = F.embedding([1, 2], w, padding_idx=1)
    np.testing.assert_array_equal(y.numpy(), w.numpy()[1:3])
    y.sum().backward()
    np.testing.assert_array_equal(w.grad.numpy()[:, 0], [0, 0, 1, 0])


@pytest.mark.parametrize("indices", [[0, 4], [-1], [[2, 7]]])
def test_embedding_names_an_index_that_is_not_a_row(indices):
    wrong = next(i for i in np.ravel(indices) if not 0 <= i < 4)
    with pytest.raises(IndexError, match=f"^embedding: index {wrong} is not one of the 4 rows"):
        F.embedding(indices, normal(4, 3))


def test_embedding_explains_other_mistakes():
    with pytest.raises(mt.DTypeError, match="must be integers, not float64"):
        F.embedding(np.zeros(2), normal(4, 3))
    with pytest.raises(mt.ShapeError, match=r"\(rows, features\), not \(4,\)"):
        F.embedding([0], normal(4))
    with pytest.raises(IndexError, match="padding_idx=4 is not one of the 4 rows"):
        F.embedding([0], normal(4, 3), padding_idx=4)


@pytest.mark.parametrize(("d_in", "d_out"), [(0, 3), (3, 0), (0, 0)])
def test_no_features_have_gradients_too(d_in, d_out):
    x, w, b = (mt.ones(s, requires_grad=True) for s in ((2, d_in), (d_out, d_in), (d_out,)))
    F.linear(x, w, b).sum().backward()
    assert (x.grad.shape, w.grad.shape, b.grad.shape) == (x.shape, w.shape, b.shape)
    assert (b.grad == 2).all()


def test_integers_with_a_bias_of_floats():
    y = F.linear(mt.tensor([[1, 2]]), mt.tensor([[3, 4]]), mt.tensor([0.5]))
    assert y.tolist() == [[11.5]] and y.dtype == np.float32
