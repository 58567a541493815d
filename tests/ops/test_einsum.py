import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import compare, normal, torch

SIZES = {"a": 2, "b": 3, "c": 1, "d": 2, "B": 3}

EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ij,jk->ki", (2, 3), (3, 4)),
    ("i,i->", (3,), (3,)),
    ("i,j->ij", (3,), (4,)),
    ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)),
    ("bld,hdk->bhlk", (2, 3, 4), (5, 4, 6)),
    ("ii->", (3, 3)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("bii->b", (2, 3, 3)),
    ("ij->ji", (2, 3)),
    ("ba", (2, 3)),
    ("ij->", (2, 3)),
    ("ij->j", (2, 3)),
    ("ij,ij->ij", (2, 3), (2, 3)),
    ("bchw,bc->bchw", (2, 3, 4, 5), (2, 3)),
    ("ij,kl->il", (2, 3), (4, 5)),
    ("i,i,i->i", (3,), (3,), (3,)),
    ("ab,bc,cd->ad", (2, 3), (3, 4), (4, 5)),
    ("ab,ab,ab->", (2, 3), (2, 3), (2, 3)),
    ("iij,jk->ik", (3, 3, 2), (2, 4)),
    ("...ij,...jk->...ik", (5, 2, 3), (5, 3, 4)),
    ("...ij,...jk->...ik", (5, 2, 3), (3, 4)),
    ("...ij,...jk->...ik", (1, 2, 3), (6, 5, 3, 4)),
    ("...ij,jk", (5, 2, 3), (3, 4)),
    ("i...->...", (2, 3, 4)),
    ("...", (2, 3)),
    ("...ii->...i", (2, 3, 3)),
    ("...a,...a->", (2, 3), (2, 3)),
    ("i...j,j->i...", (2, 4, 5, 3), (3,)),
    ("ij,ij->ij", (1, 3), (2, 3)),
    ("ij,jk->ik", (2, 1), (3, 4)),
    (" i j , j k -> i k ", (2, 3), (3, 4)),
    ("Ab,bA->A", (2, 3), (3, 2)),
    ("zB,Ba", (2, 3), (3, 4)),
    (",ij->ij", (), (2, 3)),
    ("ij,jk->ik", (0, 3), (3, 4)),
    ("ij,jk->ik", (2, 0), (0, 4)),
]


@pytest.mark.parametrize("equation,shapes", [(e, shapes) for e, *shapes in EQUATIONS])
def test_einsum(equation, shapes):
    operands = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    compare(lambda *xs: F.einsum(equation, *xs), lambda *xs: torch.einsum(equation, *xs), *operands)


@st.composite
def equations(draw):
    """Up to four operands of any labels, repeated ones too, and any of these in the result."""
    terms = draw(st.lists(st.text("abcdB", max_size=3), min_size=1, max_size=4))
    labels = sorted(set("".join(terms)))
    output = draw(st.permutations(labels)) if labels else []
    kept = output[: draw(st.integers(0, len(output)))]
    return f"{','.join(terms)}->{''.join(kept)}", [[SIZES[c] for c in term] for term in terms]


@settings(max_examples=150, deadline=None)
@given(equations())
def test_einsum_of_any_equation(case):
    equation, shapes = case
    operands = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    tensors = [mt.tensor(x, requires_grad=True) for x in operands]
    y = F.einsum(equation, *tensors)
    np.testing.assert_allclose(y.numpy(), np.einsum(equation, *operands), atol=1e-12)
    dy = normal(*y.shape, seed=9)
    y.backward(dy)
    # Linear in each operand: <dy, y> is <dx, x> for every one of them.
    expected = (dy * y.numpy()).sum()
    for x, tensor in zip(operands, tensors):
        assert tensor.grad.shape == x.shape
        np.testing.assert_allclose((tensor.grad.numpy() * x).sum(), expected, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(equations())
def test_gradients_of_any_equation(case):
    equation, shapes = case
    operands = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    mt.gradcheck(lambda *xs: F.einsum(equation, *xs), *operands)


@pytest.mark.parametrize(
    "equation,shapes,reason",
    [
        ("ij,jk->ik", [(2, 3)], "describes 2 operands, not 1"),
        ("ij->i", [(2, 3, 4)], r"'ij' in 'ij->i' does not fit the shape \(2, 3, 4\)"),
        ("...ij->i", [(2,)], r"'...ij' in .* does not fit the shape \(2,\)"),
        ("ij,jk->ik", [(2, 3), (4, 5)], "'j' in 'ij,jk->ik' stands for the sizes 3 and 4"),
        ("...i,...i->i", [(2, 3), (4, 3)], r"'\.\.\.' in .* stands for the sizes 2 and 4"),
        ("ii->i", [(1, 3)], "'i' in 'ii->i' stands for the sizes 1 and 3"),
        ("ij->ik", [(2, 3)], "'k' must be once in the result and in an operand"),
        ("ij->ii", [(2, 3)], "'i' must be once in the result"),
        ("i1->i", [(2, 3)], "may hold letters"),
        ("......->", [(2, 3)], "does not fit"),
        ("i.j->i", [(2, 3)], "does not fit"),
    ],
)
def test_einsum_says_what_does_not_fit(equation, shapes, reason):
    with pytest.raises(mt.ShapeError, match=f"einsum: .*{reason}"):
        F.einsum(equation, *(mt.ones(*shape) for shape in shapes))


def test_einsum_takes_arrays_as_constants():
    x = mt.ones(2, 3).requires_grad_()
    F.einsum("ij,j->i", x, np.array([1.0, 2.0, 3.0], dtype="float32")).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[1, 2, 3]] * 2)


def test_operands_may_stand_in_a_list():
    assert F.einsum("i,i", [mt.ones(3), mt.ones(3)]).item() == 3
