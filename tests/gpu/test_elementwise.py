"""Activations, softmax, dropout and losses by kernels: the CPU's numbers, and no waiting."""

import functools
import importlib.util
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.engine.dtypes import as_dtype
from minitorch_attn.engine.kernels import Kernel
from minitorch_attn.ops import activation, dropout, loss, normalization_kernels, recurrent, special
from minitorch_attn.ops.elementwise import Activation, Elementwise

from . import twice

drawn = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
DTYPES = ["float16", "float32", "float64"]
if importlib.util.find_spec("ml_dtypes"):
    DTYPES.append("bfloat16")
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-6, "float64": 1e-12}
check = functools.partial(twice.check, tolerances=TOLERANCE)

ACTIVATIONS = {
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, negative_slope=0.3),
    "elu": lambda x: F.elu(x, alpha=0.7),
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus": lambda x: F.softplus(x, beta=2.0, threshold=3.0),
    "logsigmoid": F.logsigmoid,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "erf": F.erf,
}


def values(shape, dtype, seed=0, spread=3):
    rng = np.random.default_rng(seed)
    return (spread * rng.standard_normal(shape)).astype(as_dtype(dtype))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "float32") for name in ACTIVATIONS] + [("gelu", dtype) for dtype in DTYPES],
)
def test_activations_give_the_same(card, name, dtype):
    for shape in [(), (1,), (0, 3), (7, 5, 11), (3, 300)]:
        check(ACTIVATIONS[name], values(shape, dtype))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_activation_overflows_or_hides_a_nan(card, name):
    x = np.array([-1e4, -90.0, -6.0, -3.0, -0.0, 0.0, 3.0, 6.0, 90.0, 1e4, np.nan], "f")
    with np.errstate(all="ignore"):
        check(ACTIVATIONS[name], x[:-1])
        y = ACTIVATIONS[name](mt.tensor(x).to("cuda")).cpu().numpy()
    assert np.isfinite(y[:-1]).all()
    assert np.isnan(y[-1])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_one_kernel_each_way(card, name):
    if card is None:
        pytest.skip("only the simulated card counts")
    x = mt.ones(3, 4).to("cuda").requires_grad_()
    dy = mt.ones(3, 4).to("cuda")
    before = card.launches
    y = ACTIVATIONS[name](x)
    assert card.launches == before + 1
    y.backward(dy)
    assert card.launches == before + 2


def test_views_are_taken_as_they_look(card):
    x = values((4, 6, 10), "float32")
    check(lambda x: F.gelu(x.permute(2, 0, 1)[::2]), x)
    check(lambda x: F.softmax(x.permute(2, 0, 1)[::2], dim=1), x)


@st.composite
def lines(draw):
    """An array and an axis: short lines, such as a warp, a block and a thread take, and none."""
    shape = draw(
        st.sampled_from(
            [(3, 33), (2, 1025), (2, 20_000), (5, 3000), (33, 2, 5), (7, 5000), (2, 3, 2100)]
        )
        | st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple)
    )
    x = values(shape, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99)))
    return x, draw(st.integers(-len(shape), len(shape) - 1))


@drawn
@given(lines(), st.sampled_from([F.softmax, F.log_softmax]))
def test_softmax_gives_the_same_along_any_axis(card, line, op):
    x, dim = line
    check(lambda x: op(x, dim=dim), x)


@pytest.mark.parametrize("op", [F.softmax, F.log_softmax])
@pytest.mark.parametrize("shape", [(4, 7), (4, 1500), (7, 5000)])
def test_softmax_neither_overflows_nor_stumbles_over_what_is_masked(card, op, shape):
    x = values(shape, "float32", spread=1)
    x[0] += 1e4
    x[1] -= 1e4
    x[2, : shape[1] // 2] = -np.inf  # the first values a thread sees, and all that some see
    x[2, -1] = -np.inf
    check(lambda x: op(x, dim=1), x)
    check(lambda x: op(x, dim=0), np.repeat(x.T, 1200 if shape == (4, 7) else 1, axis=1))
    x[3] = -np.inf
    assert np.isnan(op(mt.tensor(x).to("cuda"), dim=1).cpu().numpy()[3]).all()
    x[3] = np.nan
    assert np.isnan(op(mt.tensor(x).to("cuda"), dim=1).cpu().numpy()[3]).all()


@st.composite
def classified(draw):
    """Scores, right classes of which some do not count, and options."""
    K = draw(st.sampled_from([1, 2, 10, 33, 1500]))
    samples = draw(st.sampled_from([(), (0,), (1,), (5,), (3, 7), (2, 50, 50), (2, 3, 2)]))
    shape = (*samples[:1], K, *samples[1:])
    if math.prod(shape) > 20_000:
        K, shape = 3, (*samples[:1], 3, *samples[1:])
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    target = rng.integers(0, K, samples, dtype=draw(st.sampled_from(["int64", "int32"])))
    target = np.where(rng.random(samples) < 0.2, -100, target)
    dtype = draw(st.sampled_from(["float32", "float64"]))
    options = {"reduction": draw(st.sampled_from(["mean", "sum", "none"]))}
    if draw(st.booleans()):
        options["weight"] = rng.integers(0, 3, K).astype(dtype)
    return values(shape, dtype, draw(st.integers(0, 99))), target, options


@drawn
@given(classified(), st.sampled_from([0.0, 0.3, 1.0]))
def test_cross_entropy_of_classes_gives_the_same(card, case, smoothing):
    x, target, options = case
    check(
        lambda x: F.cross_entropy(x, mt.tensor(target).to(x.device), label_smoothing=smoothing,
                                  **on(x.device, options)), x
    )  # fmt: skip


def test_the_mean_over_classes_of_no_weight_is_nan_as_on_the_cpu(card):
    weight, target = np.array([1.0, 0.0]), np.array([1])  # of which smoothing leaves a loss
    options = {"weight": weight, "label_smoothing": 0.3}
    check(lambda x: F.cross_entropy(x, target, **on(x.device, options)), values((1, 2), "float64"))


@drawn
@given(classified())
def test_nll_loss_gives_the_same(card, case):
    x, target, options = case
    check(lambda x: F.nll_loss(x, mt.tensor(target).to(x.device), **on(x.device, options)), x)


def on(device, options):
    """Options with their arrays on a device."""
    return {
        k: mt.tensor(v).to(device) if isinstance(v, np.ndarray) else v for k, v in options.items()
    }


def test_a_masked_class_costs_nothing_where_it_is_not_the_right_one(card):
    x = np.array([[1.0, -np.inf, 2.0], [0.5, 3.0, -np.inf]], "f")
    check(lambda x: F.cross_entropy(x, mt.tensor([2, 1]).to(x.device), reduction="none"), x)


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize("wrong", [3, -1])
def test_a_class_that_does_not_exist_gives_nan(card, loss, wrong):
    """Where the CPU raises an error, the host would have to wait for a GPU's answer."""
    x = mt.tensor(values((3, 3), "float32")).to("cuda").requires_grad_()
    target = mt.tensor([0, wrong, 2]).to("cuda")
    each = loss(x, target, reduction="none")
    np.testing.assert_array_equal(np.isnan(each.detach().cpu().numpy()), [False, True, False])
    each.backward(mt.ones(3).to("cuda"))
    np.testing.assert_array_equal(np.isnan(x.grad.cpu().numpy()).any(axis=1), [False, True, False])
    assert math.isnan(loss(x, target).item())


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_the_mean_of_no_samples_is_nan_and_its_gradient_0(card, loss):
    x = mt.tensor(values((2, 3), "float32")).to("cuda").requires_grad_()
    y = loss(x, mt.tensor([-100, -100]).to("cuda"))
    y.backward()
    assert math.isnan(y.item())
    np.testing.assert_array_equal(x.grad.cpu().numpy(), np.zeros((2, 3)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.25, 1.0])
@pytest.mark.parametrize("shape", [(7, 50), (3, 4, 5, 6), (0, 2), ()])
def test_a_generator_of_the_cpu_drops_the_same_elements(card, dtype, p, shape):
    def thinned(op):
        return lambda x: op(x, p, generator=np.random.default_rng(5))

    check(thinned(F.dropout), values(shape, dtype))
    if len(shape) == 4:
        check(thinned(F.dropout2d), values(shape, dtype))


def test_the_default_noise_is_made_on_the_card(card):
    x = mt.ones(100, 100).to("cuda").requires_grad_()
    before = None if card is None else (card.to_device, card.to_host)
    y = F.dropout(x, 0.25)
    if card is not None:
        assert (card.to_device, card.to_host) == before
    y.backward(mt.ones(100, 100).to("cuda"))
    np.testing.assert_array_equal(x.grad.cpu().numpy(), y.detach().cpu().numpy())
    kept = y.detach().cpu().numpy() != 0
    assert 0.72 < kept.mean() < 0.78
    mt.manual_seed(3)
    first = F.dropout(x, 0.25).detach().cpu().numpy()
    mt.manual_seed(3)
    np.testing.assert_array_equal(F.dropout(x, 0.25).detach().cpu().numpy(), first)


@pytest.mark.parametrize("layer", [mt.nn.LSTM, mt.nn.GRU, mt.nn.RNN])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 7), (4, 300, 2), (0, 2, 3)])
def test_recurrence_gives_the_same(card, layer, sizes):
    N, D, T = sizes
    rnn = layer(4, D, batch_first=True).to(dtype="float64")
    check(lambda x: rnn.to(x.device)(x)[0], values((N, T, 4), "float64"))


@pytest.mark.parametrize("layer", [mt.nn.LSTM, mt.nn.GRU])
def test_a_step_of_recurrence_is_one_kernel_each_way(card, layer):
    if card is None:
        pytest.skip("only the simulated card counts")
    rnn, launches = layer(4, 5, batch_first=True).to("cuda"), []
    for length in (3, 5):
        before = card.launches
        y, _ = rnn(mt.ones(2, length, 4).to("cuda"))
        y.sum().backward()
        launches.append(card.launches - before)
    assert launches[1] - launches[0] == 4  # the other kernels are CuPy's own, which are not counted


def test_the_host_waits_for_no_loss(card):
    if card is None:
        pytest.skip("only the simulated card counts")
    x = mt.tensor(values((4, 3), "float32")).to("cuda").requires_grad_()
    classes, t = mt.tensor([0, 1, 2, 0]).to("cuda"), mt.ones(4, 3).to("cuda")
    before = card.to_host, card.synchronisations
    for result in (
        F.cross_entropy(x, classes, label_smoothing=0.1),
        F.cross_entropy(x, F.softmax(x, dim=1).detach()),
        F.nll_loss(F.log_softmax(x, dim=1), classes),
        F.mse_loss(x, t),
        F.l1_loss(x, t),
        F.smooth_l1_loss(x, t),
        F.binary_cross_entropy_with_logits(x, t),
        F.triplet_margin_loss(x, t, -t),
        F.cosine_similarity(x, t).mean(),
        F.normalize(x).sum(),
        F.dropout(x).sum(),
    ):
        result.backward()
    assert (card.to_host, card.synchronisations) == before


def kernels_of(*modules):
    for value in (value for module in modules for value in vars(module).values()):
        for part in value.values() if isinstance(value, dict) else (value,):
            if isinstance(part, Kernel):
                yield part
            elif isinstance(part, Elementwise):
                yield part.kernel
            elif isinstance(part, Activation):
                yield from (part.forward.kernel, part.backward.kernel)


def test_kernels_of_floats_compute_in_float():
    """One literal such as 0.5 makes a formula one of doubles: slow, and unseen in the results."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc")
    kernels = list(kernels_of(activation, dropout, loss, normalization_kernels, recurrent, special))
    assert len(kernels) > 30
    for kernel in kernels:
        for constants in kernel.variants:
            if constants["T"] != "float":
                continue
            _, program = nvrtc.nvrtcCreateProgram(kernel.code(constants).encode(), b"", 0, [], [])
            options = [b"-arch=compute_80", b"-std=c++17"]
            assert nvrtc.nvrtcCompileProgram(program, len(options), options)[0].value == 0
            text = bytearray(nvrtc.nvrtcGetPTXSize(program)[1])
            nvrtc.nvrtcGetPTX(program, text)
            nvrtc.nvrtcDestroyProgram(program)
            of_doubles = re.findall(rb"\b(?:add|sub|mul|fma|div|sqrt|rcp)[.\w]*\.f64", bytes(text))
            assert not of_doubles, f"{kernel} {constants}: {of_doubles}"
