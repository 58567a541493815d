import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.ops import attention_tiles

from .parity import check_gradients, compare, normal, torch

attend = F.scaled_dot_product_attention
WIDE = {"float32": 1e-4, "float64": 1e-11}


def theirs(*inputs, **options):
    return torch.nn.functional.scaled_dot_product_attention(*inputs, **options)


def weights_of(query, key, mask=0.0, scale=None):
    """Softmax of the scores, in NumPy and at once."""
    scale = 1 / np.sqrt(query.shape[-1]) if scale is None else scale
    s = query @ key.swapaxes(-1, -2) * scale + mask
    p = np.exp(s - s.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


@pytest.fixture(params=[None, (4, 3), (2, 5)])
def tiles(request, monkeypatch):
    """Tiles as large as they are, and so small that short sequences have many."""
    set_tiles(monkeypatch, request.param)


def set_tiles(monkeypatch, size):
    if size is not None:
        monkeypatch.setattr(attention_tiles, "ROWS", size[0])
        monkeypatch.setattr(attention_tiles, "COLUMNS", size[1])


def sequences(*batch, L=7, S=9, D=4, Dv=3):
    return normal(*batch, L, D), normal(*batch, S, D, seed=1), normal(*batch, S, Dv, seed=2)


# -- agreement ------------------------------------------------------------------------------------


def test_it_is_the_softmax_of_the_scores_times_the_values(tiles):
    query, key, value = sequences(2)
    y = attend(query, key, value)
    np.testing.assert_allclose(y.numpy(), weights_of(query, key) @ value, rtol=1e-12)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3), (2, 1, 3)])
def test_output_and_gradients_agree_with_pytorch(batch, tiles):
    compare(attend, theirs, *sequences(*batch))


@pytest.mark.parametrize("lengths", [{"L": 7, "S": 9}, {"L": 9, "S": 4}, {"L": 6, "S": 6}])
def test_causal_attention_agrees_with_pytorch(lengths, tiles):
    compare(attend, theirs, *sequences(2, 2, **lengths), is_causal=True)


@pytest.mark.parametrize("shape", [(7, 9), (2, 1, 1, 9), (3, 7, 1), (1, 1), (2, 3, 7, 9)])
def test_masks_that_broadcast_agree_with_pytorch(shape, tiles):
    mask = normal(*shape, seed=3)
    compare(attend, theirs, *sequences(2, 3), attn_mask=mask > -0.5)
    compare(attend, theirs, *sequences(2, 3), mask)  # with the gradient of the mask


def test_leading_axes_broadcast(tiles):
    query, key, value = normal(2, 1, 4, 5), normal(3, 6, 5), normal(1, 3, 6, 2)
    compare(attend, theirs, query, key, value)


def test_grouped_queries_agree_with_pytorch(tiles):
    query, key, value = normal(2, 6, 4, 3), normal(2, 2, 5, 3), normal(2, 2, 5, 2)
    compare(attend, theirs, query, key, value, enable_gqa=True)
    compare(attend, theirs, query, key, value, normal(6, 4, 5), enable_gqa=True)
    compare(attend, theirs, query, key, value, normal(2, 1, 4, 5), enable_gqa=True)
    compare(attend, theirs, query, key, value, normal(4, 5), enable_gqa=True)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.sampled_from([(), (1,), (3,), (2, 2)]),
    L=st.integers(1, 12),
    S=st.integers(1, 12),
    D=st.integers(1, 6),
    Dv=st.integers(1, 6),
    mask=st.sampled_from([None, "causal", "booleans", "floats", "padding"]),
    scale=st.sampled_from([None, 0.1, 1.0, -2.0]),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    spread=st.sampled_from([1.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_any_shapes_masks_and_tiles_agree_with_pytorch(
    batch, L, S, D, Dv, mask, scale, size, spread, seed
):
    query, key, value = sequences(*batch, L=L, S=S, D=D, Dv=Dv)
    options = {"scale": scale}
    if mask == "causal":
        options["is_causal"] = True
        if scale is not None:
            options["scale"] = abs(scale)  # PyTorch's answer to a negative one is NaN
    elif mask == "booleans":
        options["attn_mask"] = normal(L, S, seed=seed) > 0
    elif mask == "padding":
        options["attn_mask"] = np.arange(S) < normal(*batch, 1, 1, seed=seed) * S
    extra = [3 * normal(*batch, L, S, seed=seed)] if mask == "floats" else []
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        set_tiles(patch, size)
        # With large scores a difference in the last digit of a score is one of its exponential.
        compare(attend, theirs, spread * query, key, value, *extra, **options, tolerance=WIDE)


def test_long_sequences_agree_with_pytorch_at_the_real_tile_sizes():
    compare(attend, theirs, *sequences(2, L=700, S=600), tolerance=WIDE)
    compare(attend, theirs, *sequences(L=700, S=700), is_causal=True, tolerance=WIDE)


def test_gradients_agree_with_central_differences(tiles):
    query, key, value = sequences(2, L=4, S=5)
    check_gradients(attend, query, key, value)
    check_gradients(attend, query, key, value, normal(4, 5))
    check_gradients(attend, query, key, value, is_causal=True, scale=0.7)
    check_gradients(attend, query, key, value, attn_mask=normal(4, 5) > -0.5)


def test_each_rule_answers_for_any_gradient_in_any_order():
    query, key, value = sequences()
    _, rules = attend_arrays(query, key, value)
    first, second = normal(7, 3, seed=5), normal(7, 3, seed=6)
    alone = [[attend_arrays(query, key, value)[1][i](dy) for dy in (first, second)] for i in (0, 2)]
    mixed = [[rules[0](first), rules[0](second)], [rules[2](first), rules[2](second)]]
    np.testing.assert_array_equal(np.concatenate(mixed[0]), np.concatenate(alone[0]))
    np.testing.assert_array_equal(np.concatenate(mixed[1]), np.concatenate(alone[1]))


def attend_arrays(query, key, value):
    from minitorch_attn.ops.attention import _scaled_dot_product_attention as primitive

    settings = {"allowed": None, "is_causal": False, "scale": None, "dropout_p": 0.0, "seed": 0}
    return primitive.__wrapped__(query, key, value, None, **settings)


def test_threads_change_nothing_but_the_last_digits():
    tensors = [mt.tensor(x, requires_grad=True) for x in sequences(L=1500, S=1500, D=8)]
    results = []
    for threads in (1, 3):
        mt.set_num_threads(threads)
        try:
            y = attend(*tensors)
            results.append([y, *mt.grad(y, tensors, normal(1500, 3))])
        finally:
            mt.set_num_threads(1)
    for one, several in zip(*results):
        np.testing.assert_allclose(one.numpy(), several.numpy(), rtol=1e-9, atol=1e-12)


# -- rows without keys, large scores, edges -------------------------------------------------------


def test_a_query_that_may_look_at_nothing_gives_zeros_and_gets_no_gradient(tiles):
    may_look = np.ones((7, 9), bool)
    may_look[[0, 5]] = False
    for mask in (may_look, np.where(may_look, 0.0, -np.inf)):
        tensors = [mt.tensor(x, requires_grad=True) for x in sequences(2)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y = attend(*tensors, attn_mask=mask)
            y.backward(normal(2, 7, 3))
        assert not y.numpy()[:, [0, 5]].any() and y.numpy()[:, 1:5].all()
        assert not tensors[0].grad.numpy()[:, [0, 5]].any()
        assert all(np.isfinite(x.grad.numpy()).all() for x in tensors)
        compare(attend, theirs, *sequences(2), mask)


@pytest.mark.parametrize("late", [-2000.0, 0.0, 2000.0])
def test_a_query_that_meets_its_first_key_in_a_late_tile_counts_from_there(late, monkeypatch):
    set_tiles(monkeypatch, (4, 3))
    query, value = np.ones((7, 1)), normal(9, 3)
    key = np.concatenate([normal(6, 1), late + normal(3, 1)])
    may_look = np.ones((7, 9), bool)
    may_look[::2, :6] = False
    expected = weights_of(query, key, np.where(may_look, 0, -np.inf)) @ value
    y = attend(query, key, value, attn_mask=may_look)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12)


@pytest.mark.no_shadow("float32 scores of thousands keep so few digits that roundings differ")
@pytest.mark.parametrize("rising", [True, False])
def test_scores_of_thousands_neither_overflow_nor_vanish(rising, monkeypatch):
    set_tiles(monkeypatch, (4, 2))
    steps = np.linspace(-3000, 3000, 8) if rising else np.linspace(3000, -3000, 8)
    query, value = np.ones((5, 1)), normal(8, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(attend, theirs, query, steps[:, None], value, dtypes=("float64",))
        y = attend(query.astype("f4"), steps[:, None].astype("f4"), value.astype("f4"))
    np.testing.assert_allclose(y.numpy(), np.broadcast_to(value[np.argmax(steps)], (5, 3)), 1e-6)


def test_scores_far_below_zero_do_not_vanish(tiles):
    query, key, value = np.ones((3, 1)), -2000.0 - np.arange(9)[:, None], normal(9, 3)
    expected = weights_of(query, key) @ value
    np.testing.assert_allclose(attend(query, key, value).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("step", [1.0, 5.0, 15.0, 17.0, 40.0])
def test_a_reference_that_the_scores_outgrow_is_exact(step, monkeypatch):
    set_tiles(monkeypatch, (2, 1))
    key = step * np.arange(9.0)[:, None]
    query, value = np.array([[1.0], [-1.0], [0.5]]), normal(9, 3)
    expected = weights_of(query, key) @ value
    np.testing.assert_allclose(attend(query, key, value).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("shapes", [
    ((0, 3, 4), (0, 5, 4), (0, 5, 2)),
    ((2, 0, 4), (2, 5, 4), (2, 5, 2)),
    ((2, 3, 4), (2, 0, 4), (2, 0, 2)),
    ((2, 3, 0), (2, 5, 0), (2, 5, 2)),
    ((2, 3, 4), (2, 5, 4), (2, 5, 0)),
    ((1, 1), (1, 1), (1, 1)),
])  # fmt: skip
def test_empty_and_single_shapes_agree_with_pytorch(shapes):
    compare(attend, theirs, *(normal(*shape) for shape in shapes))
    compare(attend, theirs, *(normal(*shape) for shape in shapes), is_causal=True)


def test_memory_layout_of_heads_does_not_matter():
    query, key, value = (normal(2, 6, 3, 4, seed=i).swapaxes(1, 2) for i in range(3))
    y = attend(query, key, value)
    np.testing.assert_allclose(
        y.numpy(), attend(*map(np.ascontiguousarray, (query, key, value))).numpy()
    )
    compare(attend, theirs, query, key, value)


@pytest.mark.no_shadow("float32 scores of thousands keep so few digits that roundings differ")
def test_float16_is_computed_in_float32():
    query, key, value = (x.astype("f2") for x in sequences())
    y = attend(100 * query, 100 * key, value)
    assert y.dtype == np.float16 and np.isfinite(y.numpy()).all()


# -- dropout --------------------------------------------------------------------------------------


def test_dropout_sets_weights_to_zero_and_keeps_their_mean():
    mt.manual_seed(0)
    query, key, value = normal(3, 4), normal(50, 4), np.eye(50)  # the output is the weights
    weights = weights_of(query, key)
    draws = np.stack([attend(query, key, value, dropout_p=0.25).numpy() for _ in range(400)])
    kept = draws != 0
    np.testing.assert_allclose(draws[kept], np.broadcast_to(weights / 0.75, draws.shape)[kept])
    assert abs(kept.mean() - 0.75) < 0.01
    assert not attend(query, key, value, dropout_p=1.0).numpy().any()


def test_dropout_repeats_with_the_seed_and_differs_without():
    query, key, value = sequences(2)
    mt.manual_seed(3)
    first, second = attend(query, key, value, None, 0.5), attend(query, key, value, None, 0.5)
    mt.manual_seed(3)
    again = attend(query, key, value, None, 0.5)
    np.testing.assert_array_equal(first.numpy(), again.numpy())
    assert not np.array_equal(first.numpy(), second.numpy())


def test_every_tile_of_dropout_has_its_own_noise(monkeypatch):
    set_tiles(monkeypatch, (2, 3))
    kept = attend(np.zeros((2, 8, 1)), np.zeros((2, 9, 1)), np.eye(9), dropout_p=0.5).numpy() != 0
    tiles = kept.reshape(2, 4, 2, 3, 3).transpose(0, 1, 3, 2, 4).reshape(24, 6)
    assert len(np.unique(tiles, axis=0)) > 12


def test_the_backward_of_dropout_meets_the_noise_of_its_forward(tiles):
    def seeded(*inputs):
        mt.manual_seed(7)
        return attend(*inputs, dropout_p=0.4)

    check_gradients(seeded, *sequences(2, L=4, S=5))
    check_gradients(seeded, *sequences(2, L=4, S=5), normal(4, 5))


# -- memory ---------------------------------------------------------------------------------------


def peak_memory(L, **options):
    """Megabytes of forward and backward together, of which 4 arrays (L, 64) are the results."""
    tensors = [mt.tensor(normal(L, 64, seed=i), "float32", requires_grad=True) for i in range(3)]
    dy = normal(L, 64).astype("float32")
    tracemalloc.start()
    attend(*tensors, **options).backward(dy)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6


@pytest.mark.parametrize("mask", ["none", "causal", "booleans", "floats"])
def test_memory_grows_with_the_length_not_its_square(mask):
    def options(L):
        return {
            "none": {},
            "causal": {"is_causal": True},
            "booleans": {"attn_mask": mt.tensor(np.arange(L) < L - 9)},
            "floats": {"attn_mask": mt.tensor(normal(L, 1), "float32", requires_grad=True)},
        }[mask]

    short, long = peak_memory(2048, **options(2048)), peak_memory(4096, **options(4096))
    assert long < 12  # one array of all scores would take 67
    assert long < 1.8 * short


@pytest.mark.no_shadow("counts calls")
def test_tiles_that_are_hidden_are_not_computed(monkeypatch):
    set_tiles(monkeypatch, (2, 2))
    seen = []
    monkeypatch.setattr(
        attention_tiles.Scores,
        "at",
        lambda self, tile, q, at=attention_tiles.Scores.at: seen.append(tile) or at(self, tile, q),
    )
    attend(*sequences(L=8, S=8), is_causal=True)
    assert len(seen) == 10  # of 16: those on and below the diagonal
    seen.clear()
    attend(*sequences(L=8, S=8), attn_mask=np.arange(8) < 3)
    assert {tile.columns.start for tile in seen} == {0, 2}


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "mask", "text"),
    [
        (((4,), (5, 4), (5, 2)), None, "query needs shape"),
        (((3, 4), (5, 6), (5, 2)), None, "last axes must be equal"),
        (((3, 4), (5, 4), (6, 2)), None, "same number of tokens"),
        (((2, 3, 4), (3, 5, 4), (5, 2)), None, "do not broadcast"),
        (((3, 4), (5, 4), (5, 2)), (3, 4), r"mask \(3, 4\) does not broadcast"),
        (((3, 4), (5, 4), (5, 2)), (2, 3, 5), r"mask \(2, 3, 5\) does not broadcast"),
    ],
)
def test_sizes_that_do_not_fit_are_explained(shapes, mask, text):
    with pytest.raises(mt.engine.ShapeError, match=text):
        attend(*(normal(*s) for s in shapes), attn_mask=None if mask is None else normal(*mask))


def test_other_mistakes_are_explained():
    query, key, value = sequences()
    with pytest.raises(ValueError, match="is_causal=True is a mask of its own"):
        attend(query, key, value, attn_mask=np.ones((7, 9), bool), is_causal=True)
    with pytest.raises(mt.engine.DTypeError, match=r"astype\(bool\)"):
        attend(query, key, value, attn_mask=np.ones((7, 9), int))
    with pytest.raises(ValueError, match="probability"):
        attend(query, key, value, dropout_p=1.5)
    for shapes in [((7, 4), (9, 4), (9, 3)), ((5, 7, 4), (2, 9, 4), (2, 9, 3))]:
        with pytest.raises(mt.engine.ShapeError, match="enable_gqa needs heads on axis -3"):
            attend(*(normal(*s) for s in shapes), enable_gqa=True)


def test_the_multiply_adds_are_those_of_scores_and_means():
    class Attention(mt.nn.Module):
        def forward(self, x):
            return attend(x, x, x[..., :3])

    assert mt.summary(Attention(), (2, 7, 4)).multiply_adds == 2 * 7 * 7 * (4 + 3)
