import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal, torch

X = normal(2, 3, 4)

# -- the axes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(24,), (4, 6), (-1,), (2, -1, 2), (1, 24, 1), (2, 3, 4)])
def test_reshape(shape):
    compare(F.reshape, getattr(torch, "reshape", None), X, shape=shape)


def test_reshape_shares_memory_where_it_can():
    x = mt.tensor(X)
    assert np.shares_memory(x.reshape(6, 4).numpy(), x.numpy())


@pytest.mark.parametrize(
    "shape,reason",
    [
        ((5, 5), r"\(2, 3, 4\) holds 24 elements, \(5, 5\) needs 25"),
        ((-1, 5), r"\(2, 3, 4\) holds 24 elements, which 5 does not divide"),
        ((-1, -1), "one may be -1"),
    ],
)
def test_reshape_to_an_impossible_shape_says_why(shape, reason):
    with pytest.raises(mt.ShapeError, match=f"reshape: .*{reason}"):
        mt.tensor(X).reshape(shape)


@pytest.mark.parametrize("dims", [(0, -1), (1, -1), (0, 1), (1, 2), (-2, -1), (2, 2)])
def test_flatten(dims):
    compare(F.flatten, getattr(torch, "flatten", None), X, start_dim=dims[0], end_dim=dims[1])
    assert F.flatten(mt.tensor(3.0)).shape == (1,)


def test_flatten_refuses_an_end_before_the_start():
    with pytest.raises(mt.ShapeError, match="start_dim 2 comes after end_dim 1"):
        F.flatten(mt.tensor(X), 2, 1)


@pytest.mark.parametrize("dim", [None, 0, 1, -1, (0, 2), [0, 2], (0, 1, 2, 3)])
def test_squeeze_drops_axes_of_size_one_only(dim):
    settings = {} if dim is None else {"dim": dim}
    compare(F.squeeze, getattr(torch, "squeeze", None), normal(1, 3, 1, 2), **settings)


@pytest.mark.parametrize("dim", [0, 1, 3, -1, -4])
def test_unsqueeze(dim):
    compare(F.unsqueeze, getattr(torch, "unsqueeze", None), X, dim=dim)


@pytest.mark.parametrize("dims", [(0, 1), (1, 0), (0, 2), (-1, 0), (-1, -2), (1, 1)])
def test_transpose(dims):
    compare(F.transpose, getattr(torch, "transpose", None), X, dim0=dims[0], dim1=dims[1])


@given(st.permutations(range(4)), st.lists(st.booleans(), min_size=4, max_size=4))
@settings(max_examples=30, deadline=None)
def test_permute_in_any_order(order, from_the_back):
    dims = [d - 4 if back else d for d, back in zip(order, from_the_back)]
    compare(F.permute, getattr(torch, "permute", None), normal(2, 3, 4, 5), dims=dims)


@pytest.mark.parametrize("move", [(0, 2), (-1, 0), ((0, 1), (2, 0)), ([0], [-1])])
def test_movedim(move):
    compare(F.movedim, getattr(torch, "movedim", None), X, source=move[0], destination=move[1])


@pytest.mark.parametrize(
    "op,arguments",
    [
        ("transpose", (0, 3)),
        ("permute", ((0, 1, 3),)),
        ("movedim", (3, 0)),
        ("squeeze", (3,)),
        ("flatten", (3,)),
        ("flip", (3,)),
        ("split", (1, 3)),
        ("chunk", (2, 3)),
    ],
)
def test_a_dim_that_does_not_exist_is_named(op, arguments):
    with pytest.raises(IndexError, match=f"{op}: .*no dim 3, its dims are -3 to 2"):
        getattr(F, op)(mt.tensor(X), *arguments)


@pytest.mark.parametrize("op", [F.cat, F.stack])
def test_joining_along_a_dim_that_does_not_exist(op):
    with pytest.raises(IndexError, match=r"no dim 4, its dims are -\d to \d"):
        op([mt.tensor(X)], 4)


@pytest.mark.parametrize("dims", [(0, 1), (0, 0, 1), (0, 1, 2, 3)])
def test_permute_needs_every_axis_once(dims):
    with pytest.raises((mt.ShapeError, IndexError), match=r"permute: .*(\(2, 3, 4\) once|dim 3)"):
        mt.tensor(X).permute(dims)


# -- repetition ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 2, 3, 4)])
def test_broadcast_to(shape):
    compare(
        lambda x: F.broadcast_to(x, shape), lambda x: torch.broadcast_to(x, shape), normal(3, 1)
    )


def test_broadcast_to_a_shape_that_does_not_fit():
    with pytest.raises(
        mt.ShapeError, match=r"broadcast_to: \(3, 2\) does not broadcast to \(3, 4\)"
    ):
        F.broadcast_to(mt.ones(3, 2), (3, 4))


@pytest.mark.parametrize("sizes", [(3, 4), (-1, 4), (2, -1, 4), (2, 3, -1)])
def test_expand(sizes):
    compare(lambda x: x.expand(*sizes), lambda x: x.expand(*sizes), normal(3, 1))


@pytest.mark.parametrize("sizes", [(2, 1), (2, 3), (1, 2, 3), (0, 2)])
def test_repeat(sizes):
    compare(lambda x: x.repeat(*sizes), lambda x: x.repeat(*sizes), normal(3, 2))


def test_repeat_needs_a_size_for_each_axis():
    with pytest.raises(
        mt.ShapeError, match=r"repeat: the 3 axes of .* at least 3 sizes .* \(2, 2\)"
    ):
        mt.tensor(X).repeat(2, 2)
    with pytest.raises(mt.ShapeError, match=r"sizes of 0 or more, not \(2, -1, 1\)"):
        mt.tensor(X).repeat(2, -1, 1)


@pytest.mark.parametrize("dims", [0, (0,), (0, 2), (-1,)])
def test_flip(dims):
    dims_torch = dims if isinstance(dims, tuple) else (dims,)
    compare(lambda x: F.flip(x, dims), lambda x: torch.flip(x, dims_torch), X)


def test_writing_into_a_flip_leaves_the_input_alone():
    x = mt.ones(2, 3)
    F.flip(x, 0)[...] = 0
    assert x.numpy().all()


@pytest.mark.parametrize("shifts,dims", [(1, 0), (-2, 2), (5, 1), (7, None), ((1, -1), (0, 2))])
def test_roll(shifts, dims):
    compare(F.roll, getattr(torch, "roll", None), X, shifts=shifts, dims=dims)


def test_clone_has_memory_of_its_own():
    x = mt.tensor(X)
    y = x.clone()
    x[...] = 0
    np.testing.assert_array_equal(y.numpy(), X)


# -- joining and cutting ---------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.data(),
)
def test_cat_and_split_undo_each_other(shape, sizes, data):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    parts = []
    for i, n in enumerate(sizes):
        size = list(shape)
        size[dim] = n
        parts.append(mt.tensor(normal(*size, seed=i), requires_grad=True))
    joined = F.cat(parts, dim)
    assert joined.shape[dim] == sum(sizes)
    for part, again in zip(parts, F.split(joined, sizes, dim), strict=True):
        np.testing.assert_array_equal(part.numpy(), again.numpy())
    dy = normal(*joined.shape)
    joined.backward(dy)
    for part, expected in zip(parts, np.split(dy, np.cumsum(sizes)[:-1], axis=dim)):
        np.testing.assert_array_equal(part.grad.numpy(), expected)


@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1, -4])
def test_stack(dim):
    arrays = [X, normal(2, 3, 4, seed=1), normal(2, 3, 4, seed=2)]
    compare(
        lambda *xs: F.stack(xs, dim),
        lambda *xs: torch.stack(xs, dim),
        *arrays,
    )


def test_one_tensor_joined_with_itself_gets_both_gradients():
    x = mt.tensor([1.0, 2.0], requires_grad=True)
    (F.cat([x, x]) * mt.tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [101, 1010])


def test_cat_says_which_axis_differs():
    with pytest.raises(
        mt.ShapeError, match=r"cat: tensor 0 has shape \(2, 3\) and tensor 1 \(2, 4\)"
    ):
        F.cat([mt.ones(2, 3), mt.ones(2, 4)], dim=0)
    with pytest.raises(mt.ShapeError, match=r"3 and 4 in dim 1; all sizes but those of dim 0"):
        F.cat([mt.ones(2, 3), mt.ones(2, 4)], dim=0)
    with pytest.raises(mt.ShapeError, match=r"tensor 1 has shape \(2,\)"):
        F.cat([mt.ones(2, 3), mt.ones(2)])


def test_stack_says_which_tensor_differs():
    with pytest.raises(mt.ShapeError, match=r"stack: .*tensor 2 \(4, 3\): 2 and 4 in dim 0"):
        F.stack([mt.ones(2, 3), mt.ones(2, 3), mt.ones(4, 3)])


@pytest.mark.parametrize("op", [F.cat, F.stack])
def test_joining_nothing_is_refused(op):
    with pytest.raises(mt.ShapeError, match="needs at least one tensor"):
        op([])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, [2, 5], [0, 7, 0]])
def test_split(size):
    compare(lambda x: F.split(x, size, 1), lambda x: torch.split(x, size, 1), normal(2, 7))


@pytest.mark.parametrize("chunks", [1, 2, 3, 4, 6, 7, 9])
def test_chunk(chunks):
    compare(lambda x: F.chunk(x, chunks, -1), lambda x: torch.chunk(x, chunks, -1), normal(2, 7))


def test_joining_and_cutting_are_along_the_first_axis_by_default():
    parts = F.cat([mt.tensor(X), mt.tensor(X)]), F.stack([mt.tensor(X), mt.tensor(X)])
    assert [part.shape for part in parts] == [(4, 3, 4), (2, 2, 3, 4)]
    assert [part.shape for part in F.chunk(mt.tensor(X), 2) + F.split(mt.tensor(X), 1)] == [
        (1, 3, 4)
    ] * 4


def test_an_empty_axis_is_split_into_one_empty_part():
    assert [part.shape for part in F.split(mt.zeros(0, 3), 2)] == [(0, 3)]


def test_split_sizes_must_add_up():
    with pytest.raises(mt.ShapeError, match=r"split: .* add up to 5, .* and \[2, 2\] add up to 4"):
        F.split(mt.ones(5), [2, 2])
    with pytest.raises(mt.ShapeError, match=r"split: sizes of 0 or more"):
        F.split(mt.ones(5), [6, -1])
    with pytest.raises(mt.ShapeError, match="size of at least 1, not 0"):
        F.split(mt.ones(5), 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.flatten(x, "1"), ValueError, "flatten: dim must be an integer, not '1'"),
        (lambda x: F.squeeze(x, 1.0), ValueError, "squeeze: dim must be an integer, not 1.0"),
        (lambda x: F.unsqueeze(x, None), ValueError, "unsqueeze: dim must be an integer, not None"),
        (lambda x: F.permute(x, "01"), ValueError, "permute: dims must be an integer or a tuple"),
        (lambda x: F.expand(x, "2"), ValueError, "expand: sizes must be an integer or a tuple"),
        (lambda x: F.expand(x, 5), mt.ShapeError, r"\(4, 3\) does not broadcast to \(5,\)"),
        (lambda x: F.broadcast_to(x, 5.0), ValueError, "broadcast_to: shape must be an integer or"),
        (lambda x: F.split(x, 2.0), ValueError, "split: split_size_or_sections must be an integer"),
        (lambda x: F.chunk(x, 0), ValueError, "chunk: chunks must be an integer of at least 1"),
        (lambda x: F.chunk(x, 1.5), ValueError, "chunk: chunks must be an integer .* not 1.5"),
        (lambda x: F.repeat(x, "22"), ValueError, "repeat: sizes must be an integer or a tuple"),
        (lambda x: F.flip(x, "1"), ValueError, "flip: dims must be an integer or a tuple of int"),
        (lambda x: F.flip(x, (0, -2)), mt.ShapeError, r"flip: .* an axis of \(4, 3\) twice"),
        (lambda x: F.roll(x, 1.5), ValueError, "roll: shifts must be an integer or a tuple of int"),
        (lambda x: F.roll(x, (1, 2), 1), mt.ShapeError, r"shifts=\(1, 2\) and dims=\(1,\) must be"),
        (lambda x: F.roll(x, 1, 2), IndexError, "roll: the tensor has no dim 2"),
        (lambda x: F.tril(x[0]), mt.ShapeError, r"tril: needs matrices .* not \(3,\)"),
        (lambda x: F.triu(x, "1"), ValueError, "triu: diagonal must be an integer, not '1'"),
        (lambda x: F.masked_fill(x, x > 0, "a"), TypeError, "masked_fill: value must be a number"),
        (lambda x: F.masked_fill(x, x, 0.0), TypeError, "masked_fill: the mask must be of boolean"),
    ],
)
def test_what_no_arrangement_can_mean_is_refused(call, error, message):
    with pytest.raises(error, match=f"^{message}" if ":" in message else message):
        call(mt.ones(4, 3))


# -- filling ---------------------------------------------------------------------------------------


def test_masked_fill_broadcasts_its_mask():
    mask = np.array([True, False, True, False])
    compare(lambda x: F.masked_fill(x, mt.tensor(mask), -math.inf).exp(), _torch_masked(mask), X)


def _torch_masked(mask):
    return lambda x: torch.masked_fill(x, torch.tensor(mask), -math.inf).exp()


def test_masked_fill_keeps_nan_out_of_the_gradient():
    x = mt.ones(2).requires_grad_()
    F.masked_fill(x, mt.tensor([True, False]), 0).backward(np.array([np.nan, 1]))
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1])


@pytest.mark.parametrize("diagonal", [-2, -1, 0, 1, 5])
@pytest.mark.parametrize("op", ["tril", "triu"])
def test_triangles(op, diagonal):
    compare(getattr(F, op), getattr(torch, op, None), X, diagonal=diagonal)


def test_a_causal_mask_of_booleans():
    mask = F.tril(mt.tensor(np.ones((3, 3), dtype=bool)))
    np.testing.assert_array_equal(mask.numpy(), np.tri(3, dtype=bool))


# -- edges -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0,), (1,), (2, 0)])
@pytest.mark.parametrize(
    "op",
    [
        lambda x: x.flatten(),
        lambda x: x.unsqueeze(0).squeeze(0),
        lambda x: F.cat([x, x]),
        lambda x: F.stack([x, x]),
        lambda x: F.flip(x, 0),
        lambda x: F.roll(x, 1, 0),
        lambda x: F.pad(x, (1, 1)),
        lambda x: F.repeat(x, (2,) * x.ndim),
        lambda x: x.broadcast_to((3, *x.shape)),
    ],
)
def test_edge_shapes(op, shape):
    x = mt.tensor(normal(*shape), requires_grad=True)
    y = op(x)
    y.backward(np.ones(y.shape))
    assert x.grad.shape == shape


@pytest.mark.parametrize("op", [F.flip, F.roll, F.permute, F.movedim, F.repeat])
def test_integers_and_booleans_can_be_rearranged(op):
    arguments = {F.flip: (0,), F.roll: (1,), F.permute: ((1, 0),), F.movedim: (0, 1)}
    for dtype in ("int64", "bool"):
        x = mt.ones(2, 3, dtype=dtype)
        assert op(x, *arguments.get(op, ((2, 2),))).dtype == dtype


def test_gradients_through_a_chain_of_rearrangements():
    def f(x):
        y = x.permute(2, 0, 1).reshape(4, 6).T.unsqueeze(1)
        return F.cat([y, F.flip(y, 0)], 1).roll(1, 2)[1:, :, ::2]

    check_gradients(f, X)


def test_a_border_of_none_is_of_zeros():
    assert F.pad(mt.ones(1), (1, 0), value=None).tolist() == [0, 1]


def test_a_mask_does_not_enlarge_what_it_fills():
    with pytest.raises(mt.ShapeError, match=r"masked_fill: mask of shape \(2, 3\) must"):
        mt.ones(3).masked_fill(np.ones((2, 3), bool), 0.0)


@pytest.mark.parametrize("array", [np.ones((4, 1)), [[1.0]] * 4], ids=["array", "list"])
def test_arrays_and_lists_become_tensors(array):
    outputs = [*F.split(array, 2), *F.chunk(array, 2), F.flatten(array), F.squeeze(array)]
    outputs += [F.unsqueeze(array, 0), F.expand(array, (4, 3)), F.pad(array, (1, 1))]
    assert all(isinstance(y, mt.Tensor) for y in outputs)
    assert F.flatten(input=array, start_dim=0).shape == (4,)


def test_pytorchs_small_words_on_shapes():
    x = mt.tensor(normal(2, 3), requires_grad=True)
    assert (x.size(), x.size(-1), x.size(dim=0), x.numel(), x.dim()) == ((2, 3), 3, 2, 6, 2)
    with pytest.raises(IndexError, match="size: the tensor has no dim 2"):
        x.size(2)
    assert x.t().shape == (3, 2) and x.t().requires_grad
    assert +x is x and x.contiguous() is x
    assert x.T.contiguous().data.flags.c_contiguous
    assert mt.ones(3).expand_as(x).shape == (2, 3)
    with pytest.raises(mt.ShapeError, match=r"t: needs a matrix, not \(1, 2, 3\)"):
        x[None].t()
