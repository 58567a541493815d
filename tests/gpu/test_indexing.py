"""Choosing elements on a card: the CPU's numbers, and what is different there."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices, integer_array_indices

import minitorch_attn as mt
import minitorch_attn.functional as F

from .twice import check

drawn = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def numbers(*shape, dtype=np.float64):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def on_card(values, dtype=None):
    return mt.tensor(np.asarray(values, dtype)).to("cuda")


@drawn
@given(st.data(), array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
def test_indices_of_all_kinds(card, data, shape):
    kinds = basic_indices(shape, allow_newaxis=True) | integer_array_indices(shape)
    index = data.draw(kinds)
    check(lambda x: x[index], numbers(*shape))


@pytest.mark.parametrize(
    "index",
    [
        [0, 2, 2, 0, -1],
        (slice(None), [1, 1]),
        ([0, 1, 1], slice(None), [2, 2, 0]),
        (..., np.array([[0, 1], [1, 1]])),
        (1, [0, 0, 1], None, slice(0, 2)),
        np.array([True, False, True]),
        (slice(None), np.array([True, False, True, True])),
    ],
    ids=["rows", "columns", "apart", "matrix", "mixed", "mask of rows", "mask of columns"],
)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_lists_arrays_and_masks(card, index, dtype):
    check(lambda x: x[index], numbers(3, 4, 3, dtype=dtype))


def test_an_index_may_lie_on_the_card(card):
    x = on_card(numbers(4, 3))
    for index in ([3, 3, 0], [[0, 1], [1, 2]]):
        np.testing.assert_array_equal(x[on_card(index)].numpy(), x.numpy()[np.array(index)])
    mask = x > 0
    np.testing.assert_array_equal(x[mask].numpy(), x.numpy()[mask.numpy()])


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_gather_and_its_relatives(card, dim):
    x, index = numbers(3, 3, 3), np.random.default_rng(1).integers(0, 3, (2, 3, 2))
    check(lambda x, index: F.gather(x, dim, index), x, index)
    check(lambda x, index: x.index_select(dim, index), x, np.array([2, 0, 0, 2]))
    check(lambda x: F.take_along_dim(x, F.argsort(x, dim=dim), dim), x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_gradients_of_a_row_are_summed_in_single_precision(card, dtype):
    """4096 times 1 is 4096; summed in float16 it would stop at 2048, in bfloat16 at 256."""
    weight = mt.tensor(np.zeros((3, 2)), dtype=dtype).to("cuda").requires_grad_()
    rows = on_card(np.ones(4096), np.int64)
    for looked_up in (F.embedding(rows, weight), weight[rows]):
        weight.grad = None
        looked_up.sum().backward()
        np.testing.assert_array_equal(
            weight.grad.numpy().astype(float), [[0] * 2, [4096] * 2, [0] * 2]
        )


def test_embeddings_leave_out_the_padding(card):
    tokens = np.array([[0, 1, 1], [3, 0, 2]])
    check(lambda tokens, w: F.embedding(tokens, w, padding_idx=0), tokens, numbers(4, 5))


@pytest.mark.parametrize("descending", [False, True])
def test_sorting_keeps_the_order_of_equals_and_puts_nan_last(card, descending):
    x = np.random.default_rng(0).integers(0, 3, (4, 9)).astype(np.float32)
    x[1, 3] = x[2, 0] = np.nan
    check(lambda x: F.sort(x, descending=descending), x)
    check(lambda x: F.topk(x, 4, largest=descending), x)


def test_bfloat16_is_sorted(card):
    """CuPy itself refuses."""
    x = mt.tensor([[3.0, -1.0, 2.0]], dtype="bfloat16").to("cuda")
    assert F.sort(x)[0].tolist() == [[-1, 2, 3]]
    assert F.topk(x, 2)[1].tolist() == [[0, 2]]


def test_an_index_out_of_bounds_counts_on_from_the_other_end(card):
    x = on_card([10.0, 11.0, 12.0])
    np.testing.assert_array_equal(x[on_card([3, 4, -4])].numpy(), [10, 11, 12])
    np.testing.assert_array_equal(x.index_select(0, on_card([5])).numpy(), [12])
    np.testing.assert_array_equal(F.gather(x, 0, on_card([3])).numpy(), [10])
    with pytest.raises(IndexError):
        x[3]  # a number is checked: it is there without asking the card


def test_a_class_that_is_none_gives_a_vector_of_zeros(card):
    np.testing.assert_array_equal(F.one_hot(on_card([1, 5]), 3).numpy(), [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(F.one_hot(on_card([1, 2])).numpy(), [[0, 1, 0], [0, 0, 1]])


def test_nothing_waits_for_the_card_unless_a_shape_depends_on_values(card):
    if card is None:
        pytest.skip("only the simulated card counts")
    x, index = on_card(numbers(5, 4)).requires_grad_(), on_card([0, 2, 2])
    classes, mask = on_card([[0, 1], [1, 1]]), on_card(np.eye(4), bool)
    card.reset()
    y = x[index] + x[[0, 1, 1]] + x[1:4] + x.index_select(0, index)
    y = F.gather(y, 0, index.reshape(3, 1)) + F.embedding(index, x).sum() + F.sort(x)[0][:3, :1]
    (y.sum() + F.pad(x, (1, 1), mode="reflect").sum() + F.topk(x, 2)[0].sum()).backward()
    F.one_hot(classes, 3)
    assert (card.to_host, card.synchronisations) == (0, 0)
    x[:4][mask]
    assert card.synchronisations == 1
    F.one_hot(classes)
    assert card.synchronisations == 2
