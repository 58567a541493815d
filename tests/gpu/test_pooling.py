"""Pooling and folding by kernels: the CPU's numbers, from windows of all kinds."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.simulator.kernels import order

from .twice import check, computed

drawn = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def pools(draw, dilated=True):
    """Images with ties, and windows that overlap, leave gaps, stick out and begin in the border."""
    dims = draw(st.integers(1, 3))
    along = st.tuples(*[st.integers(1, 3)] * dims)
    kernel, stride = draw(along), draw(along)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = draw(along) if dilated else (1,) * dims
    reach = [d * (k - 1) + 1 - 2 * p for k, p, d in zip(kernel, padding, dilation)]
    size = tuple(draw(st.integers(max(1, r), max(1, r) + 4)) for r in reach)
    dtype = draw(st.sampled_from(["float16", "float32", "float64"]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.integers(-2, 3, (2, 2, *size)).astype(dtype)
    options = {"stride": stride, "padding": padding, "ceil_mode": draw(st.booleans())}
    return dims, x, kernel, options | ({"dilation": dilation} if dilated else {})


@drawn
@given(pools(), st.sampled_from([0, np.nan, np.inf, -np.inf]))
def test_max_pooling_finds_the_same_elements(card, pool, odd):
    dims, x, kernel, options = pool
    x.reshape(-1)[:: 3 if odd else x.size] = odd
    op = getattr(F, f"max_pool{dims}d")
    check(lambda x: op(x, kernel, **options), x)
    y, where = op(mt.tensor(x).to("cuda"), kernel, return_indices=True, **options)
    expected = op(mt.tensor(x), kernel, return_indices=True, **options)[1].numpy()
    sees = where.numpy() >= 0  # dilated windows may see nothing but the border
    assert where.dtype == np.int64
    np.testing.assert_array_equal(where.numpy()[sees], expected[sees])
    assert np.all(y.numpy()[~sees] == -np.inf)


@drawn
@given(pools(dilated=False), st.booleans(), st.sampled_from([None, None, 5, -2]))
def test_average_pooling_counts_the_same_elements(card, pool, count_include_pad, divisor):
    dims, x, kernel, options = pool
    options["count_include_pad"] = count_include_pad
    if dims > 1:
        options["divisor_override"] = divisor
    check(lambda x: getattr(F, f"avg_pool{dims}d")(x, kernel, **options), x)


@drawn
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=3))
def test_adaptive_pooling_covers_the_images_with_the_same_windows(card, sizes):
    size, places = zip(*sizes)
    x = np.random.default_rng(0).integers(-2, 3, (2, 2, *size)).astype(np.float32)
    average, greatest = (getattr(F, f"adaptive_{kind}_pool{len(size)}d") for kind in ("avg", "max"))
    check(lambda x: average(x, places), x)
    check(lambda x: greatest(x, places, return_indices=True), x)


@pytest.mark.parametrize("size", [(3, 5), (40, 40), (130, 130)])
def test_global_pooling_takes_an_image_by_many_threads(card, size):
    x = np.random.default_rng(0).standard_normal((2, 3, *size)).astype(np.float32)
    check(lambda x: F.adaptive_avg_pool2d(x, 1), x)


@pytest.mark.parametrize("power", [1, 2, 3.0, np.inf])
def test_norm_pooling(card, power):
    x = np.random.default_rng(0).uniform(1, 2, (2, 3, 5, 6))
    check(lambda x: F.lp_pool2d(x, power, (2, 3), stride=2, ceil_mode=True), x)


@drawn
@given(st.data())
def test_fold_and_unfold_move_the_same_numbers(card, data):
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, dilation, stride = data.draw(pair), data.draw(pair), data.draw(pair)
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    options = {"dilation": dilation, "stride": stride, "padding": padding}
    size = tuple(max(1, d * (k - 1) + 1 - 2 * p) + 3 for k, d, p in zip(kernel, dilation, padding))
    x = np.random.default_rng(0).standard_normal((2, 2, *size))
    check(lambda x: F.unfold(x, kernel, **options), x)
    columns = F.unfold(mt.tensor(x), kernel, **options).numpy()
    check(lambda x: F.fold(x, size, kernel, **options), columns)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "op",
    [
        lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True),
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.adaptive_avg_pool2d(x, 3),
        lambda x: F.adaptive_max_pool2d(x, 3),
        lambda x: F.fold(F.unfold(x, 3), 8, 3),
    ],
    ids=["max", "avg", "global", "adaptive avg", "adaptive max", "fold"],
)
def test_half_precision_is_summed_in_single(card, dtype, op):
    x = mt.tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8)), dtype=dtype).numpy()
    check(op, x)


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_integers_are_pooled_without_kernels(card, dtype):
    x = np.random.default_rng(0).integers(-9, 9, (1, 2, 5, 5)).astype(dtype)
    y = F.max_pool2d(mt.tensor(x).to("cuda"), 3, 2, 1)
    np.testing.assert_array_equal(y.numpy(), F.max_pool2d(mt.tensor(x), 3, 2, 1).numpy())


def test_elements_go_back_where_they_were(card):
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 6))

    def op(x):
        y, where = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(y, where, 2)

    check(op, x)


def test_overlapping_windows_give_the_same_bits_in_any_order_of_threads(card):
    x = np.random.default_rng(0).standard_normal((2, 2, 6, 6)).astype(np.float32)
    for op in (
        lambda x: F.max_pool2d(x, 3, 1, 1),
        lambda x: F.avg_pool2d(x, 3, 1, 1),
        lambda x: F.adaptive_avg_pool2d(x, 4),
        lambda x: F.fold(F.unfold(x, 3), 6, 3),
    ):
        runs = []
        for seed in range(4):
            with order(seed):
                runs.append(computed(op, [x], "cuda"))
        for run in runs[1:]:
            for first, again in zip(runs[0], run):
                np.testing.assert_array_equal(again, first)


def test_nothing_waits_for_the_card(card):
    if card is None:
        pytest.skip("only the simulated card counts")
    x = mt.tensor(np.zeros((2, 3, 8, 8), np.float32)).to("cuda").requires_grad_()
    card.reset()
    y, where = F.max_pool2d(x, 2, return_indices=True)
    y = F.max_unpool2d(y, where, 2)
    y = F.adaptive_max_pool2d(F.avg_pool2d(F.max_pool2d(y, 3, 1, 1), 3, 1, 1), 6)
    y = F.adaptive_avg_pool2d(F.fold(F.unfold(y, 3), 6, 3), (4, 5))
    F.lp_pool2d(y, 2, 2).sum().backward()
    assert (card.to_host, card.synchronisations) == (0, 0)


def test_there_may_be_no_images(card):
    x = np.zeros((0, 3, 8, 8), np.float32)
    check(lambda x: F.max_pool2d(x, 2), x)
    check(lambda x: F.avg_pool2d(x, 2), x)
    check(lambda x: F.adaptive_avg_pool2d(x, 1), x)


def test_images_need_not_lie_in_one_piece(card):
    x = np.random.default_rng(0).standard_normal((6, 5, 3, 2))
    for op in (
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.adaptive_max_pool2d(x, 2),
        lambda x: F.unfold(x, 2),
    ):
        check(lambda x: op(x.permute((3, 2, 1, 0))), x)  # noqa: B023
    check(lambda x: F.fold(x.permute((2, 1, 0)), (7, 6), (3, 1)), x.reshape(30, 3, 2))
