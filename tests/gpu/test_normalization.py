"""Normalisation by kernels: the CPU's numbers, whatever the shape, and exact ones far from zero."""

import importlib.util

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.engine.dtypes import as_dtype
from minitorch_attn.engine.errors import DeviceError
from minitorch_attn.simulator.kernels import order

from .twice import computed

drawn = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
DTYPES = ["float16", "float32", "float64"]
if importlib.util.find_spec("ml_dtypes"):
    DTYPES.append("bfloat16")
# Of values of about 1, the largest of an array; weights' gradients sum a thousand of them.
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 5e-6, "float64": 1e-12}

# Rows shorter than a warp, not a multiple of it, longer than what a warp takes and than a block;
# channels that several blocks share; nothing at all.
SHAPES = [
    (4, 3),
    (600, 33),
    (2, 3, 5),
    (4, 2, 1),
    (3, 2, 70, 70),
    (300, 2, 11),
    (2, 2, 9000),
    (1, 2, 6144),  # 48 KiB of floats, all the shared memory that a block may take unasked
    (70, 5, 7, 7),
    (2, 6, 2, 3, 2),
    (0, 4, 2, 2),
    (2, 4, 0, 2),
    (2, 0, 3),
]


@st.composite
def batches(draw):
    """Images (N, C, ...) and a weight and a bias of their channels."""
    shape = draw(st.sampled_from(SHAPES) | st.lists(st.integers(0, 40), min_size=2, max_size=3))
    rng, dtype = np.random.default_rng(draw(st.integers(0, 99))), draw(st.sampled_from(DTYPES))
    arrays = [2 * rng.standard_normal(shape) + 3, *rng.standard_normal((2, shape[1]))]
    return [a.astype(as_dtype(dtype)) for a in arrays]


def check(op, arrays):
    """Raise unless both devices give the same result and gradients."""
    tolerance = TOLERANCE[arrays[0].dtype.name]
    pairs = zip(computed(op, arrays, "cpu"), computed(op, arrays, "cuda"), strict=True)
    for i, (ours, theirs) in enumerate(pairs):
        assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape), f"result {i}"
        ours, theirs = ours.astype("d"), theirs.astype("d")
        allowed = tolerance * np.abs(ours).max(initial=1)
        np.testing.assert_allclose(theirs, ours, 0, allowed, err_msg=f"result {i}")


@drawn
@given(batches(), st.sampled_from([(1, 1), (1, 0), (0, 1), (0, 0)]), st.booleans())
def test_batch_norm_gives_the_same(card, arrays, given_ones, training):
    x, *parameters = arrays
    if training and x.size == x.shape[1]:
        return  # one value per channel is refused
    mean, variance = np.random.default_rng(1).random((2, x.shape[1])).astype("f")

    def batch_norm(x, *parameters):
        left = iter(parameters)
        weight, bias = (next(left) if is_given else None for is_given in given_ones)
        running = [mt.tensor(a).to(x.device) for a in (mean, variance)]
        return F.batch_norm(x, *running, weight, bias, training=training)

    check(batch_norm, [x, *(p for p, is_given in zip(parameters, given_ones) if is_given)])


@drawn
@given(batches(), st.sampled_from([1, 2, 3]))
def test_group_norm_gives_the_same(card, arrays, groups):
    groups = groups if arrays[0].shape[1] % groups == 0 else 1
    check(lambda x, w, b: F.group_norm(x, groups, w, b), arrays)


@drawn
@given(batches())
def test_instance_norm_gives_the_same(card, arrays):
    shape = arrays[0].shape
    if int(np.prod(shape[2:])) != 1:  # one value is refused
        check(lambda x, w, b: F.instance_norm(x, None, None, w, b), arrays)


@drawn
@given(batches(), st.integers(1, 3), st.booleans())
def test_layer_norm_gives_the_same(card, arrays, axes, affine):
    x = arrays[0]
    sizes = x.shape[-axes:]
    rng = np.random.default_rng(2)
    parameters = [rng.standard_normal(sizes).astype(x.dtype) for _ in range(2 if affine else 0)]
    check(lambda x, *parameters: F.layer_norm(x, sizes, *parameters), [x, *parameters])


@pytest.mark.parametrize("shape", [(64, 3, 7, 7), (5, 3, 100), (2, 3, 100, 100), (2, 3, 30000)])
@pytest.mark.parametrize("norm", ["batch", "instance", "layer"])
def test_the_variance_survives_a_mean_far_greater_than_it(card, shape, norm):
    """Plain sums of x and x^2 in float32 would leave nothing of a variance of 1 beside 4000^2."""
    x = (4000 + np.random.default_rng(0).standard_normal(shape)).astype("f")
    exact = x.astype("d")
    axis = tuple(
        i
        for i in range(len(shape))
        if (norm, i) not in {("batch", 1), ("instance", 0), ("instance", 1), ("layer", 0)}
    )
    centred = exact - exact.mean(axis=axis, keepdims=True)
    exact = centred / np.sqrt((centred**2).mean(axis=axis, keepdims=True))
    t = mt.tensor(x).to("cuda")
    y = {
        "batch": lambda: F.batch_norm(t, None, None, training=True, eps=0.0),
        "instance": lambda: F.instance_norm(t, eps=0.0),
        "layer": lambda: F.layer_norm(t, shape[1:], eps=0.0),
    }[norm]()
    # The mean itself is rounded to a float: 2.4e-4 at 4000.
    np.testing.assert_allclose(y.cpu().numpy(), exact, rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("first", [0.0, 1e4])
def test_a_first_value_far_from_all_others_does_not_spoil_the_variance(card, first):
    """Each thread shifts by the first of its values: an image may begin with its border."""
    x = (100 + np.random.default_rng(0).standard_normal((4, 2, 80, 80))).astype("f")
    x[0, :, 0, 0] = first
    mean, variance = mt.zeros(2).to("cuda"), mt.zeros(2).to("cuda")
    F.batch_norm(mt.tensor(x).to("cuda"), mean, variance, training=True, momentum=1.0)
    exact = x.astype("d").transpose(1, 0, 2, 3).reshape(2, -1)
    np.testing.assert_allclose(mean.cpu().numpy(), exact.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(variance.cpu().numpy(), exact.var(axis=1, ddof=1), rtol=2e-5)


@pytest.mark.parametrize("momentum", [0.1, 1.0])
@pytest.mark.parametrize("norm", [F.batch_norm, F.instance_norm])
def test_running_statistics_move_as_on_the_cpu(card, norm, momentum):
    x = np.random.default_rng(0).standard_normal((5, 3, 4, 6)).astype("f") + 2
    found = []
    for device in ("cpu", "cuda"):
        mean, variance = (mt.ones(3, dtype="float32").to(device) for _ in range(2))
        norm(mt.tensor(x).to(device), mean, variance, None, None, True, momentum)
        assert (mean.device, mean.dtype) == (device, np.float32)
        found.append([mean.cpu().numpy(), variance.cpu().numpy()])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


def test_running_statistics_on_another_device_are_refused(card):
    x = mt.ones(2, 3, 4).to("cuda")
    with pytest.raises(DeviceError, match="running_mean .* lies on 'cpu'"):
        F.batch_norm(x, mt.zeros(3), mt.ones(3), training=True)


@pytest.mark.parametrize("training", [True, False])
def test_the_host_waits_for_nothing(card, training):
    layers = [mt.nn.BatchNorm2d(6), mt.nn.GroupNorm(2, 6), mt.nn.InstanceNorm2d(6)]
    layers = [layer.to("cuda").train(training) for layer in [*layers, mt.nn.LayerNorm(5)]]
    x = mt.ones(2, 6, 4, 5).to("cuda").requires_grad_()
    if card is None:
        pytest.skip("only the simulated card counts")
    before = card.to_host, card.synchronisations
    for layer in layers:
        layer(x).sum().backward()
    assert (card.to_host, card.synchronisations) == before


@pytest.mark.parametrize("shape", [(9, 40), (40, 2, 9, 30)])
def test_no_order_of_the_threads_changes_a_digit(card, shape):
    if card is not None:
        results = []
        for seed in (1, 2):
            with order(seed):
                rng = np.random.default_rng(0)
                x, w = rng.standard_normal(shape).astype("f"), np.ones(shape[1], "f")
                results.append(
                    [
                        *computed(
                            lambda x, w: F.batch_norm(x, None, None, w, training=True),
                            [x, w],
                            "cuda",
                        ),
                        *computed(lambda x, w: F.group_norm(x, 2, w), [x, w], "cuda"),
                    ]
                )
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)
