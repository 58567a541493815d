import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal, torch

MATMUL_SHAPES = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((5, 2, 3), (3, 4)),
    ((6, 5, 2, 3), (3, 4)),
    ((3,), (5, 3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (1, 3, 4)),
    ((6, 1, 2, 3), (5, 3, 4)),
    ((6, 5, 2, 3), (3,)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 4)),
    ((0, 2, 3), (3, 4)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize("shapes", MATMUL_SHAPES)
def test_matmul_of_vectors_matrices_and_batches(shapes):
    a, b = (normal(*shape, seed=i) for i, shape in enumerate(shapes))
    compare(F.matmul, getattr(torch, "matmul", None), a, b)
    if a.size and b.size:
        check_gradients(F.matmul, a, b)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_matmul_broadcasts_any_batches(data):
    n, m, k = (data.draw(st.integers(0, 3)) for _ in range(3))
    batch = data.draw(st.lists(st.integers(1, 3), max_size=3))

    def part_of(batch):
        kept = batch[data.draw(st.integers(0, len(batch))) :]
        return [data.draw(st.sampled_from([1, size])) for size in kept]

    compare(
        F.matmul,
        getattr(torch, "matmul", None),
        normal(*part_of(batch), n, m),
        normal(*part_of(batch), m, k, seed=1),
    )


@pytest.mark.parametrize(
    "shapes,reason",
    [
        (((2, 3), (4, 5)), r"\(2, 3\) @ \(4, 5\): the inner sizes 3 and 4 must be equal"),
        (((3,), (4,)), r"the inner sizes 3 and 4"),
        (((2, 3), (2,)), r"the inner sizes 3 and 2"),
        (((), (2, 2)), r"needs vectors or matrices, got shapes \(\) and \(2, 2\)"),
        (((4, 2, 3), (5, 3, 2)), r"matmul: .*\(4, 2, 3\).*\(5, 3, 2\)"),
    ],
)
def test_matmul_of_shapes_that_do_not_fit(shapes, reason):
    with pytest.raises(ValueError, match=f"matmul: .*{reason}|{reason}"):
        mt.ones(*shapes[0]) @ mt.ones(*shapes[1]) if shapes[0] else mt.tensor(1.0) @ mt.ones(2, 2)


def test_one_weight_for_a_whole_batch_needs_no_copies_per_item():
    a, b = mt.tensor(normal(64, 8, 16)), mt.tensor(normal(16, 4), requires_grad=True)
    (_, rule), dy = F.matmul.__wrapped__(a.numpy(), b.numpy())[1], normal(64, 8, 4)
    assert rule(dy).shape == (16, 4)  # summed by the product itself, not afterwards


# -- products by other names -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dot", "outer", "bmm"])
def test_products_need_their_number_of_axes(name):
    with pytest.raises(mt.ShapeError, match=rf"{name}: both operands need \d axes, .*\(2, 2\)"):
        getattr(F, name)(mt.ones(2, 2), mt.ones(2, 2))


def test_bmm_does_not_broadcast():
    with pytest.raises(mt.ShapeError, match="bmm: the batches differ: 1 and 5 matrices"):
        F.bmm(mt.ones(1, 2, 3), mt.ones(5, 3, 2))


def test_a_number_is_no_factor_of_a_matrix_product():
    with pytest.raises(mt.ShapeError, match=r"matmul: needs vectors or matrices, got .* and \(\)"):
        mt.ones(2, 2) @ 2.0
