"""Convolution's kernels: every product, tile and dtype against the definition, on any geometry.

The kernels run on the simulated card, whose threads take turns in an order that a seed draws, and
on a real one where there is one (``pytest -m gpu``).
"""

import contextlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.engine import backend
from minitorch_attn.engine.kernels import Kernel, c_constant
from minitorch_attn.ops.convolution_forms import Geometry, columns, gpu, lookup, loops
from minitorch_attn.ops.windows import extent
from minitorch_attn.simulator import kernels, simulated_gpu

from .conftest import CARDS

PRECISIONS = [
    ("float32", "highest", 2e-5),
    ("float32", "high", 2e-3),
    ("float64", "highest", 1e-12),
    ("float16", "highest", 3e-3),
    ("bfloat16", "highest", 2e-2),
]


@pytest.fixture(params=CARDS)
def card(request):
    """A context in which there is a card: simulated, or the real one."""
    return simulated_gpu if request.param == "simulated" else contextlib.nullcontext


@contextlib.contextmanager
def computing(precision):
    """How float32 is multiplied by our kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "get_float32_matmul_precision", lambda: precision)
        yield


@pytest.fixture
def one_image_fills_the_card(monkeypatch):
    """Large tiles and shares for small images too."""
    monkeypatch.setattr(gpu, "ENOUGH", 4)


def dtype_of(name):
    return mt.engine.dtypes.as_dtype(name)


def arrays(g, dtype, seed=0):
    """Images, kernels, a gradient of the output, and a bias."""
    rng = np.random.default_rng(seed)
    shapes = g.x_shape, g.weight_shape, g.y_shape, (g.O,)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def on_card(*host):
    return [backend.to_device(a, "cuda") for a in host]


def products(g, dtype):
    """The three products on the card, as arrays of the host."""
    x, weight, dy, bias = on_card(*arrays(g, dtype))
    results = (
        gpu.forward(x, weight, g, bias),
        gpu.grad_input(dy, weight, g),
        gpu.grad_weight(dy, x, g),
    )
    return [backend.to_device(y, "cpu") for y in results]


def expected(g, dtype, form):
    """The same from a form of the CPU, in float64."""
    x, weight, dy, bias = (a.astype(np.float64) for a in arrays(g, dtype))
    y = form.forward(x, weight, g) + bias.reshape(-1, *(1,) * len(g.size))
    return y, form.grad_input(dy, weight, g), form.grad_weight(dy, x, g)


def assert_agree(g, dtype, tolerance, form=columns):
    for name, ours, theirs in zip(
        ("forward", "grad_input", "grad_weight"), products(g, dtype), expected(g, dtype, form)
    ):
        assert (ours.dtype, ours.shape) == (dtype, theirs.shape), name
        scale = max(1, np.abs(theirs).max(initial=0))
        np.testing.assert_allclose(
            ours.astype(np.float64), theirs, rtol=0, atol=tolerance * scale, err_msg=f"{name}, {g}"
        )


def convolution(N, C, O, size, kernel, stride=1, dilation=1, border=(0, 0), groups=1):
    """A geometry with square kernels, all of whose places are taken."""
    dims, padded = len(size), [n + sum(border) for n in size]
    places = tuple((n - extent(kernel, dilation)) // stride + 1 for n in padded)
    same = [(n,) * dims for n in (kernel, stride, dilation)]
    return Geometry(N, C, O, groups, size, same[0], places, *same[1:], (border,) * dims)


@st.composite
def geometries(draw):
    """Any convolution that fits, with fewer places than fit too, as transposed ones have them."""
    dims = draw(st.integers(1, 3))

    def per_axis(strategy):
        return draw(st.tuples(*[strategy] * dims))

    G, C, O = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 40))
    size, kernel = per_axis(st.integers(1, 7 if dims < 3 else 4)), per_axis(st.integers(1, 4))
    stride, dilation = per_axis(st.integers(1, 3)), per_axis(st.integers(1, 3))
    reach = [extent(k, d) for k, d in zip(kernel, dilation)]
    border = [
        (before, max(draw(st.integers(0, 3)), r - n - before))
        for n, r, before in zip(size, reach, per_axis(st.integers(0, 3)))
    ]
    most = [(n + sum(b) - r) // a + 1 for n, b, r, a in zip(size, border, reach, stride)]
    places = tuple(draw(st.integers(max(1, p - 1), p)) for p in most)
    N = draw(st.integers(0, 3))
    return Geometry(N, G * C, G * O, G, size, kernel, places, stride, dilation, tuple(border))


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(geometries(), st.sampled_from(PRECISIONS), st.integers(0, 99), st.sampled_from([4, 512]))
def test_products_agree_at_any_geometry_and_order_of_threads(card, g, how, seed, enough):
    dtype, precision, tolerance = how
    with card(), kernels.order(seed), computing(precision), pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "ENOUGH", enough)
        assert_agree(g, dtype_of(dtype), tolerance)


@pytest.mark.parametrize(("dtype", "precision", "tolerance"), PRECISIONS)
@pytest.mark.parametrize(
    "g",
    [
        convolution(2, 9, 230, (9, 8), 3, border=(1, 1)),
        convolution(3, 40, 64, (7, 7), 3, stride=2, border=(1, 1)),
        convolution(1, 24, 20, (16, 16), 3, border=(2, 2), dilation=2),
        convolution(2, 12, 36, (6, 6), 5, border=(2, 2), groups=2),
    ],
    ids=["230 rows", "64 rows", "32 rows", "groups"],
)
def test_tiles_that_several_blocks_fill(
    card, g, dtype, precision, tolerance, one_image_fills_the_card
):
    with card(), computing(precision):
        assert_agree(g, dtype_of(dtype), tolerance)


@pytest.mark.parametrize(("dtype", "precision", "tolerance"), PRECISIONS)
def test_old_cards_multiply_without_matrix_units(dtype, precision, tolerance, monkeypatch):
    monkeypatch.setattr(gpu, "has_matrix_units", lambda xp: False)
    with simulated_gpu(), computing(precision):
        g = convolution(2, 9, 70, (6, 5), 3, border=(1, 1))
        assert_agree(g, dtype_of(dtype), 2e-5 if dtype == "float32" else tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_are_those_of_the_definition(card, dtype):
    g = convolution(1, 4, 6, (4, 3), 2, stride=2, border=(1, 0))
    with card():
        assert_agree(g, dtype_of(dtype), 1e-5, form=loops)


@pytest.mark.parametrize(
    "g",
    [
        convolution(2, 3, 6, (50,), 33, border=(7, 5)),
        convolution(2, 3, 6, (50,), 33, border=(7, 5), stride=2),
        convolution(1, 2, 5, (20, 18), 17, border=(4, 9)),
        convolution(1, 2, 2, (20, 18), 17, border=(4, 9), groups=2),
    ],
    ids=["axis", "stride", "plane", "depthwise"],
)
def test_kernels_of_more_taps_than_bits(card, g):
    assert not lookup.forward(g).has_bits
    with card():
        assert_agree(g, dtype_of("float64"), 1e-12)


@pytest.mark.parametrize("groups", [12, 4])
def test_groups_of_few_rows_are_summed_one_by_one(card, groups, monkeypatch):
    monkeypatch.setattr(gpu, "IMPLICIT_GEMM", None)  # not this way
    g = convolution(9, 12, 12, (7, 6), 3, border=(1, 1), stride=2, groups=groups)
    with card():
        for dtype, _, tolerance in PRECISIONS:
            assert_agree(g, dtype_of(dtype), tolerance)


def test_a_stride_costs_no_products_with_zeros():
    """Along an axis of 9 pixels 5 are met by taps 0 and 2, and 4 by tap 1."""
    g = convolution(1, 8, 6, (9, 9), 3, stride=2)
    sums = sum(p.depth * p.places * p.rows for p in lookup.grad_input(g))
    assert sums == (5 * 2 + 4 * 1) ** 2 * 8 * 6


def test_shares_of_the_places_give_the_same_sum_at_every_run(card, one_image_fills_the_card):
    g = convolution(5, 3, 8, (12, 12), 3, border=(1, 1))
    runs = []
    for seed in range(3):
        with card(), kernels.order(seed):
            x, weight, dy, _ = on_card(*arrays(g, np.dtype("float32")))
            product = lookup.forward(g)
            assert len(gpu._shares(product, dy, x)) > 1
            runs.append(backend.to_device(gpu.grad_weight(dy, x, g), "cpu"))
    assert all(np.array_equal(run, runs[0]) for run in runs)


@given(st.integers(1, 2**30), st.integers(0, 2**31 - 1))
def test_a_division_is_exact_up_to_31_bits(P, i):
    reciprocal, shift = gpu._reciprocal(P)
    assert reciprocal < 2**32
    for k in (i, i // P * P, i // P * P - 1, 2**31 - 1):
        assert max(k, 0) * reciprocal >> shift == max(k, 0) // P


def test_float32_is_read_as_tf32_only_where_it_may_be(card):
    g = convolution(2, 16, 16, (8, 8), 3)
    exact = expected(g, np.dtype("float32"), columns)

    def error(precision):
        mt.set_float32_matmul_precision(precision)
        return max(
            np.abs(a - b).max() / np.abs(b).max()
            for a, b in zip(products(g, np.dtype("float32")), exact)
        )

    with card():
        assert error("highest") < 1e-6
        assert 1e-5 < error("high") < 1e-3
        assert error("highest") < 1e-6  # and the card is left as it was


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("groups", [1, 8], ids=["dense", "depthwise"])
def test_half_precision_is_summed_in_float32(card, dtype, groups):
    """2048 ones and more: float16 stops at 2048, bfloat16 at 256; the weights are 2 each."""
    C = 8
    g = convolution(1, C, C, (1, 600), 1, groups=groups)
    x, weight, dy, _ = (np.ones_like(a) for a in arrays(g, dtype_of(dtype)))
    with card():
        x, dy = on_card(x, dy)
        dweight = backend.to_device(gpu.grad_weight(dy, x, g), "cpu").astype(np.float64)
    np.testing.assert_allclose(dweight, 600, rtol=4e-3)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_operations_keep_the_dtype_on_the_card(card, name, dtype):
    rng = np.random.default_rng(0)
    host = [rng.standard_normal(s) for s in [(2, 6, 7, 7), (6, 6, 3, 3), (6,), (2, 6, 4, 4)]]
    if name == "conv_transpose2d":
        host[3] = rng.standard_normal((2, 6, 13, 13))

    def run(device, dtype):
        x, w, b = (mt.tensor(a, dtype=dtype, requires_grad=True, device=device) for a in host[:3])
        y = getattr(F, name)(x, w, b, stride=2, padding=1)
        y.backward(mt.tensor(host[3], dtype=dtype, device=device))
        return [y, x.grad, w.grad, b.grad]

    with card():
        ours = run("cuda", dtype)
        assert {str(t.dtype) for t in ours} == {dtype} and {t.device for t in ours} == {"cuda"}
        ours = [t.cpu().numpy().astype(np.float64) for t in ours]
    tolerance = {"float16": 1e-2, "bfloat16": 5e-2, "float32": 1e-5, "float64": 1e-12}[dtype]
    for a, b in zip(ours, run("cpu", "float64")):
        np.testing.assert_allclose(a, b.numpy(), atol=tolerance * np.abs(b.numpy()).max(), rtol=0)


@pytest.mark.parametrize(("dtype", "precision", "tolerance"), PRECISIONS)
def test_kernels_of_one_tap_are_left_to_cublas_where_units_are_not(
    dtype, precision, tolerance, monkeypatch
):
    """CuPy multiplies batches of matrices without matrix units, and no bfloat16 at all."""
    called = []
    multiply = gpu._multiply
    monkeypatch.setattr(gpu, "_multiply", lambda *given: called.append(1) or multiply(*given))
    g = convolution(2, 5, 6, (3, 3), 1)
    with simulated_gpu(), computing(precision):
        x, weight, dy, bias = on_card(*arrays(g, dtype_of(dtype)))
        gpu.forward(x, weight, g, bias)
        gpu.grad_input(dy, weight, g)
    assert len(called) == (
        0 if dtype == "float64" or (dtype, precision) == PRECISIONS[0][:2] else 2
    )


def test_tables_are_made_once_for_a_geometry_and_any_batch():
    with simulated_gpu() as traffic:
        for N in (2, 3, 5):
            g = convolution(N, 5, 8, (6, 7), 3, stride=2, border=(1, 1))
            on_the_card = on_card(*arrays(g, np.dtype("float32")))
            traffic.reset()
            x, weight, dy, bias = on_the_card
            gpu.forward(x, weight, g, bias)
            gpu.grad_input(dy, weight, g)
            gpu.grad_weight(dy, x, g)
            assert traffic.to_host == traffic.synchronisations == 0
            if N > 2:
                assert traffic.to_device == 0


def test_every_launch_is_one_that_the_compiler_is_tried_on(monkeypatch):
    """The compile test sees the constants in `variants`: none may be launched that is not there."""
    launched = []

    def launch(kernel, *arguments, **constants):
        launched.append((kernel, {name: c_constant(value) for name, value in constants.items()}))

    monkeypatch.setattr(Kernel, "__call__", launch)
    with simulated_gpu():
        for dtype, precision, _ in PRECISIONS:
            for O, size in ((2, 3), (10, 3), (64, 3), (128, 130)):
                g = convolution(1, 2, O, (size, size), 3, border=(1, 1))
                x, weight, dy, bias = on_card(*arrays(g, dtype_of(dtype)))
                for units in (True, False):
                    monkeypatch.setattr(gpu, "has_matrix_units", lambda xp, answer=units: answer)
                    with computing(precision):
                        gpu.forward(x, weight, g, bias)
                        gpu.grad_weight(dy, x, g)
    for kernel, constants in launched:
        assert constants in [
            {name: c_constant(value) for name, value in variant.items()}
            for variant in kernel.variants
        ], kernel
    tiles = {constants.get("BM") for kernel, constants in launched}
    assert tiles == {None, "32", "64", "128"}


def test_an_image_that_tables_cannot_index_is_refused():
    with pytest.raises(ValueError, match=r"an image of 4294967296 elements is too large"):
        lookup.tables(np, lookup.forward(convolution(1, 1, 1, (2**32,), 1)))
