"""Softmax attention on a GPU: by kernels where its tokens fit into them, else in large tiles."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.engine import backend
from minitorch_attn.ops import attention_cuda, attention_tiles
from minitorch_attn.simulator import kernels

attend = F.scaled_dot_product_attention

# Largest error over the largest number, of a result whose rounding the CPU does not share.
TOLERANCE = {"float64": 1e-13, "float32": 3e-6, "tf32": 4e-3, "float16": 4e-3, "bfloat16": 3e-2}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def sequences(*batch, L=7, S=9, D=4, Dv=3):
    return [normal(*batch, L, D), normal(*batch, S, D, seed=1), normal(*batch, S, Dv, seed=2)]


def on(device, dtype, arrays, **options):
    """Output and gradients of attention on a device, as float64 arrays of the host.

    Arrays of floats are inputs, those among the options are not.
    """
    mt.manual_seed(5)
    inputs = [mt.tensor(x, dtype).to(device).requires_grad_() for x in arrays]
    options = {
        name: mt.tensor(x).to(device) if isinstance(x, np.ndarray) else x
        for name, x in options.items()
    }
    y = attend(*inputs, **options)
    y.backward(mt.tensor(normal(*y.shape, seed=9), y.dtype).to(device))
    results = [y.detach(), *(x.grad for x in inputs)]
    assert all((x.dtype, x.device) == (inputs[0].dtype, device) for x in results)
    return [x.cpu().numpy().astype(np.float64) for x in results]


def compare(dtype, arrays, tolerance=None, **options):
    """Raise unless the GPU gives what the CPU computes in float64 of the same numbers."""
    tolerance = tolerance or TOLERANCE[dtype]
    rounded = [mt.tensor(x, dtype).numpy().astype(np.float64) for x in arrays]
    ours = on("cpu", "float64", rounded, **options)
    theirs = on("cuda", dtype, rounded, **options)
    names = ("output", "dq", "dk", "dv", "dbias")
    for name, a, b in zip(names, theirs, ours):
        atol = tolerance * max(1.0, abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=name)


@pytest.fixture(params=["float64", "float32", "tf32", "float16", "bfloat16"])
def dtype(request, card):
    """Every type with its tolerance, and float32 a second time by the matrix units."""
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes")
    if request.param != "tf32":
        yield request.param, TOLERANCE[request.param]
        return
    backend.set_float32_matmul_precision("high")
    yield "float32", TOLERANCE["tf32"]
    backend.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("lengths", "options"),
    [
        ({"L": 70, "S": 50, "D": 20, "Dv": 40}, {}),
        ({"L": 130, "S": 150, "D": 8, "Dv": 16}, {"is_causal": True}),
        ({"L": 90, "S": 33, "D": 16, "Dv": 5}, {"is_causal": True, "scale": -0.3}),
        ({"L": 33, "S": 65}, {"attn_mask": normal(2, 1, 65) > 0, "dropout_p": 0.3}),
        ({"L": 1, "S": 1, "D": 1, "Dv": 1}, {}),
    ],
)
def test_output_and_gradients_are_those_of_the_cpu(dtype, lengths, options):
    dtype, tolerance = dtype
    compare(dtype, sequences(2, **lengths), tolerance, **options)


@pytest.mark.parametrize("shape", [(70, 40), (2, 1, 40), (3, 1, 70, 1), (3, 2, 70, 40), (1,)])
def test_a_bias_and_its_gradient_are_those_of_the_cpu(dtype, shape):
    dtype, tolerance = dtype
    compare(dtype, [*sequences(3, 2, L=70, S=40), normal(*shape, seed=3)], tolerance)


@pytest.mark.parametrize("features", [(64, 64), (128, 96), (48, 128)])
def test_wide_tokens_fit_into_the_kernels(dtype, features):
    dtype, tolerance = dtype
    D, Dv = features
    compare(dtype, sequences(1, L=40, S=70, D=D, Dv=Dv), tolerance)


def test_cards_without_matrix_units_multiply_half_precision_too(card, monkeypatch):
    monkeypatch.setattr(attention_cuda, "has_matrix_units", lambda xp: False)
    backend.set_float32_matmul_precision("high")
    try:
        compare("float32", sequences(2, L=40, S=50))
    finally:
        backend.set_float32_matmul_precision("highest")
    compare("float16", sequences(2, L=40, S=50, D=16, Dv=16), is_causal=True)
    compare("float16", [*sequences(2, L=40, S=50, D=128, Dv=16), normal(40, 50)])


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_wider_tokens_than_kernels_take_are_computed_too(card, monkeypatch, name):
    monkeypatch.setattr(attention_tiles, "ON_GPU", 16)
    arrays = sequences(2, L=40, S=35, D=130, Dv=7)
    compare(name, arrays)
    compare(name, [*arrays, normal(40, 1)])
    compare(name, arrays, is_causal=True, dropout_p=0.2)
    compare(name, arrays, attn_mask=normal(2, 40, 35) > 1.5)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["float64", "float32", "float16"]),
    N=st.integers(1, 3),
    L=st.integers(1, 140),
    S=st.integers(1, 140),
    D=st.sampled_from([3, 16]),
    mask=st.sampled_from([None, "causal", "booleans", "floats", "padding"]),
    spread=st.sampled_from([1.0, 20.0]),
    dropout=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 99),
)
def test_any_lengths_and_masks(card, name, N, L, S, D, mask, spread, dropout, seed):
    arrays = sequences(N, L=L, S=S, D=D, Dv=16)
    arrays[0] *= spread
    options = {"dropout_p": dropout}
    if mask == "causal":
        options["is_causal"] = True
    elif mask == "booleans":
        options["attn_mask"] = normal(L, S, seed=seed) > 0
    elif mask == "padding":
        options["attn_mask"] = np.arange(S) < normal(N, 1, 1, seed=seed) * S
    elif mask == "floats":
        arrays.append(3 * normal(N, L, S, seed=seed))
    # An error of the gradients of scores is multiplied by the queries, which are large.
    compare(name, arrays, TOLERANCE[name] * spread, **options)


@pytest.mark.parametrize("seed", range(3))
def test_no_order_of_threads_and_blocks_changes_a_bit(card, seed):
    if card is None:
        pytest.skip("a card chooses its own order")
    arrays = sequences(2, L=70, S=90, D=16, Dv=16) + [normal(70, 90, seed=3)]
    first = on("cuda", "float16", arrays, dropout_p=0.1)
    with kernels.order(seed + 1):
        again = on("cuda", "float16", arrays, dropout_p=0.1)
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["float16", "float64"])
def test_no_thread_reads_what_another_is_writing(card, name):
    if card is None:
        pytest.skip("the simulated card watches")
    with kernels.races_found():
        on("cuda", name, [*sequences(3, L=70, S=100, D=16, Dv=16), normal(70, 100)])


def test_a_query_that_may_look_at_nothing_gives_zeros(card):
    arrays = sequences(1, L=40, S=70)
    allowed = np.ones((40, 70), bool)
    allowed[3] = False
    y, dq, *_ = on("cuda", "float32", arrays, attn_mask=allowed)
    assert not y[0, 3].any() and not dq[0, 3].any()
    barrier = np.where(allowed, 0, -np.inf)
    for a, b in zip(
        on("cuda", "float32", [*arrays, barrier])[:4],
        on("cpu", "float32", arrays, attn_mask=allowed),
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("lengths", [{"L": 0}, {"S": 0}, {"Dv": 0}, {"D": 0}, {"L": 0, "S": 0}])
def test_empty_sequences(card, lengths):
    compare("float32", sequences(2, **lengths))
    compare("float32", sequences(0, **lengths))


def test_leading_axes_and_grouped_heads(card):
    compare("float32", [normal(2, 1, 40, 5), normal(3, 36, 5), normal(1, 3, 36, 2)])
    heads = [normal(2, 6, 34, 3), normal(2, 2, 35, 3), normal(2, 2, 35, 2)]
    compare("float32", heads, enable_gqa=True)
    compare("float32", [*heads, normal(6, 34, 35)], enable_gqa=True)


def test_arrays_in_any_order_of_memory(card):
    x = mt.tensor(normal(2, 3, 34, 8)).to("cuda")
    y = attend(*(x.transpose(1, 2).transpose(2, 3).transpose(2, 3) for _ in range(3)))
    expected = attend(*(x.cpu().transpose(1, 2) for _ in range(3)))
    np.testing.assert_allclose(y.cpu().numpy(), expected.numpy(), atol=1e-6)


def test_arrays_may_begin_at_any_element(card):
    q = mt.tensor(normal(1 + 7 * 16), dtype="float32", device="cuda")[1:].reshape(7, 16)
    dy = mt.tensor(normal(1 + 7 * 16), dtype="float32", device="cuda")[1:].reshape(7, 16)
    whole = q.clone().requires_grad_()
    q.requires_grad_()
    F.scaled_dot_product_attention(q, q, q).backward(dy)
    F.scaled_dot_product_attention(whole, whole, whole).backward(dy.clone())
    np.testing.assert_array_equal(q.grad.cpu().numpy(), whole.grad.cpu().numpy())


def test_the_host_waits_for_nothing(card):
    if card is None:
        pytest.skip("the simulated card counts")
    for D in (8, 130):
        inputs = [mt.tensor(x, "float32").to("cuda").requires_grad_() for x in sequences(2, D=D)]
        bias = mt.tensor(normal(7, 9), "float32").to("cuda").requires_grad_()
        dy = mt.tensor(normal(2, 7, 3), "float32").to("cuda")
        card.reset()
        attend(*inputs, bias, dropout_p=0.1).backward(dy)
        attend(*inputs, bias > 0).backward(dy)
        assert (card.to_host, card.to_device, card.synchronisations) == (0, 0, 0), D


def test_nothing_of_the_size_of_the_scores_is_allocated(card, monkeypatch):
    """Of what the kernels get and give, every array is linear in the length."""
    if card is None:
        pytest.skip("looks at the arguments of the simulated kernels")
    sizes = []
    launch = kernels.RawKernel.__call__
    monkeypatch.setattr(
        kernels.RawKernel,
        "__call__",
        lambda self, grid, block, args, **kw: (
            sizes.extend(getattr(x, "size", 0) for x in args),
            launch(self, grid, block, args, **kw),
        )[1],
    )
    on("cuda", "float32", sequences(1, L=300, S=300, D=4, Dv=4), is_causal=True)
    assert sizes and max(sizes) == 300 * 16


@pytest.mark.parametrize(
    ("name", "units"), [("float16", (0, 16)), ("float32", (0, 32)), ("float64", (0,))]
)
def test_the_largest_tiles_fit_a_block_of_any_card(name, units):
    """Its shared memory: 99 KiB on the smallest card with matrix units, 64 KiB on those without."""
    dtype = np.dtype(name)
    most = 64 if name == "float64" else 128
    assert attention_cuda.fits(dtype, most, most) and not attention_cuda.fits(dtype, most + 1, 1)
    for unit in units:
        for backward in (False, True):
            tiling = attention_cuda.Tiling.of(unit, dtype, most, most, backward)
            assert tiling.shared(twice=backward) <= (99 if unit else 64) * 1024
