"""Sampling and interpolation by kernels: the CPU's numbers, at places of all kinds."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.simulator.kernels import order

from .twice import check, computed

drawn = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def numbers(*shape, dtype=np.float64):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@drawn
@given(st.data())
def test_grid_sample_reads_the_same_pixels(card, data):
    dims = data.draw(st.integers(2, 3))
    modes = ["nearest", "bilinear"] + ["bicubic"] * (dims == 2)
    options = {
        "mode": data.draw(st.sampled_from(modes)),
        "padding_mode": data.draw(st.sampled_from(["zeros", "border", "reflection"])),
        "align_corners": data.draw(st.booleans()),
    }
    size = data.draw(st.tuples(*[st.integers(1, 5)] * dims))
    channels = data.draw(st.sampled_from([1, 3, 17]))
    reach = data.draw(st.sampled_from([1.0, 1.3, 9.0]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.standard_normal((2, channels, *size))
    grid = rng.uniform(-reach, reach, (2, *(2, 3, 2)[:dims], dims))
    check(lambda x, grid: F.grid_sample(x, grid, **options), x, grid)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_places_that_are_no_places(card, mode, padding_mode, align_corners):
    x, odd = numbers(1, 2, 3, 4), [np.nan, np.inf, -np.inf, 1e30, -1.0, 1.0, 0.0]
    grid = np.stack(np.meshgrid(odd, odd), axis=-1)[None]
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    with np.errstate(invalid="ignore"):
        check(lambda x: F.grid_sample(x, grid, **options), x)
        check(lambda grid: F.grid_sample(mt.tensor(x).to(grid.device), grid, **options), grid)


def test_the_identity_gives_the_image_back_bit_for_bit(card):
    for size in (1, 2, 3, 7, 28, 224):
        x = mt.tensor(numbers(1, 1, 3, size, dtype=np.float32)).to("cuda")
        theta = mt.tensor([[[1.0, 0, 0], [0, 1, 0]]]).to("cuda")
        y = F.grid_sample(x, F.affine_grid(theta, x.shape))
        np.testing.assert_array_equal(y.numpy(), x.numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_gradients_of_a_pixel_are_summed_in_single_precision(card, dtype):
    """4096 times 1 is 4096; summed in float16 it would stop at 2048, in bfloat16 at 256."""
    x = mt.tensor(np.zeros((1, 1, 1, 1)), dtype=dtype).to("cuda").requires_grad_()
    grid = mt.tensor(np.zeros((1, 64, 64, 2)), dtype=dtype).to("cuda")
    F.grid_sample(x, grid).sum().backward()
    assert x.grad.item() == 4096


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float16", "float32")])
def test_images_and_places_of_two_dtypes_meet_in_the_wider(card, dtypes):
    x, grid = numbers(1, 2, 3, 4, dtype=dtypes[0]), numbers(1, 2, 2, 2, dtype=dtypes[1])
    check(lambda x, grid: F.grid_sample(x, grid), x, grid)


def test_many_threads_add_to_one_pixel_without_losing_a_share(card):
    """Only a real card can lose one: the simulated card runs a thread at a time."""
    x, grid = numbers(2, 3, 2, 2, dtype=np.float32), numbers(2, 9, 9, 2, dtype=np.float32) / 3
    for seed in range(4):
        with order(seed):
            check(lambda x, grid: F.grid_sample(x, grid, padding_mode="border"), x, grid)


@drawn
@given(st.data())
def test_interpolation_weighs_the_same_pixels(card, data):
    dims = data.draw(st.integers(1, 3))
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[dims]
    modes = ["nearest", "nearest-exact", "area", linear] + ["bicubic"] * (dims == 2)
    mode = data.draw(st.sampled_from(modes))
    size, places = (data.draw(st.tuples(*[st.integers(1, 7)] * dims)) for _ in range(2))
    options = {"size": places, "mode": mode}
    if mode in (linear, "bicubic"):
        options["align_corners"] = data.draw(st.booleans())
    x = np.random.default_rng(0).standard_normal((2, 3, *size))
    check(lambda x: F.interpolate(x, **options), x)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_interpolation_in_the_dtypes_of_a_gpu(card, mode, dtype):
    x = mt.tensor(numbers(1, 2, 4, 5), dtype=dtype).numpy()
    check(lambda x: F.interpolate(x, scale_factor=1.7, mode=mode), x)


def test_an_infinite_pixel_reaches_only_its_neighbours(card):
    x = np.zeros((1, 1, 1, 8), np.float32)
    x[..., 6] = np.inf
    y = F.interpolate(mt.tensor(x).to("cuda"), scale_factor=(1, 2), mode="bilinear").numpy()
    np.testing.assert_array_equal(np.isinf(y)[0, 0, 0], [False] * 11 + [True] * 4 + [False])
    assert not np.isnan(y).any()


def test_resizing_gives_the_same_bits_in_any_order_of_threads(card):
    runs = []
    for seed in range(4):
        with order(seed):
            op = lambda x: F.interpolate(x, size=(7, 9), mode="bicubic")  # noqa: E731
            runs.append(computed(op, [numbers(1, 2, 5, 4, dtype=np.float32)], "cuda"))
    for run in runs[1:]:
        for first, again in zip(runs[0], run):
            np.testing.assert_array_equal(again, first)


def test_nothing_waits_for_the_card(card):
    if card is None:
        pytest.skip("only the simulated card counts")
    x, grid = (
        mt.tensor(numbers(*shape)).to("cuda").requires_grad_()
        for shape in ((1, 2, 4, 4), (1, 3, 3, 2))
    )
    card.reset()
    for mode in ("nearest", "bilinear", "bicubic"):
        y = F.grid_sample(x, grid, mode=mode)
        F.interpolate(y, scale_factor=2, mode=mode).sum().backward()
    assert (card.to_host, card.synchronisations) == (0, 0)
