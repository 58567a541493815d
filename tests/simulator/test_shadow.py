"""The shadow finds what differs on a GPU, and leaves the test that it follows alone."""

import re
import sys

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.engine import backend
from minitorch_attn.ops import dropout
from minitorch_attn.simulator import simulated_gpu

from ..shadow import Shadow, differences, primitives

X = np.arange(6.0).reshape(2, 3) + 1


def found(forward, *arrays, **settings):
    """The differences of one call, in one text."""
    with simulated_gpu():
        return "\n".join(differences(forward, arrays, settings, forward(*arrays, **settings)))


def double(x):
    return 2 * x, lambda dy: 2 * dy


def on_the_host(x):
    return np.ones(x.shape) * x, lambda dy: dy


def of_the_host(x):
    return np.zeros(x.shape), lambda dy: dy


def rounded_there(x):
    return (x * (1 + 1e-6 * backend.on_gpu(x))), lambda dy: dy


def narrow_there(x):
    return x.astype("f4" if backend.on_gpu(x) else "f8"), lambda dy: dy


def flat_rule_there(x):
    return x * 1, lambda dy: dy.reshape(-1) if backend.on_gpu(dy) else dy


def no_rule_there(x):
    return x * 1, None if backend.on_gpu(x) else lambda dy: dy


def waits(x):
    return x * float(x.max()), lambda dy: dy


def test_what_is_the_same_is_not_reported():
    assert found(double, X) == ""
    assert found(double, X.astype("f4")) == ""
    assert found(double, np.asarray(1.0)) == ""


@pytest.mark.parametrize(
    ("forward", "text"),
    [
        (on_the_host, "raises TypeError there, in"),
        (of_the_host, "gives ndarray, no array of the device"),
        (rounded_there, "differs by 6e-06"),
        (narrow_there, r"gives float32\(2, 3\) instead of float64\(2, 3\)"),
        (flat_rule_there, r"rule 0: gives float64\(6,\) instead of"),
        (no_rule_there, "rule 0: is there on one of the two alone"),
        (waits, "the host wait"),
    ],
)
def test_what_differs_is_reported(forward, text):
    assert re.search(text, found(forward, X))


def infinite_there(x):
    return np.where(x == 1 + backend.on_gpu(x), np.inf, x), lambda dy: dy


def test_infinities_must_be_in_the_same_places():
    assert found(infinite_there, X * 10) == ""
    assert "infinite" in found(infinite_there, X)


def test_every_primitive_is_followed_and_let_go():
    followed = {forward for _, forward in primitives()}
    assert {F.exp.__wrapped__, dropout._dropout.__wrapped__} <= followed
    assert {"exp", "conv2d", "layer_norm"} <= {forward.__name__ for forward in followed}
    calls = []
    shadow = Shadow(simulated_gpu)
    shadow._called = lambda forward, *arrays, **settings: calls.append(1) or forward(*arrays)
    with shadow:
        mt.tensor(X).exp()
        assert calls
    calls.clear()
    mt.tensor(X).exp()
    assert not calls


def test_a_difference_is_kept_until_the_test_is_over(monkeypatch):
    monkeypatch.setattr(dropout, "array_module", lambda x: np)
    monkeypatch.setattr("tests.shadow.SEEN", set())
    with Shadow(simulated_gpu) as shadow:
        F.dropout(mt.tensor(X))
    assert "_dropout(float64(2, 3))" in shadow.differences[0]


def test_generators_draw_what_they_draw_without_it():
    mt.manual_seed(0)
    alone = F.dropout(mt.ones(50)), F.dropout(mt.ones(50))
    mt.manual_seed(0)
    with Shadow(simulated_gpu) as shadow:
        followed = F.dropout(mt.ones(50)), F.dropout(mt.ones(50))
    assert not shadow.differences
    for a, b in zip(alone, followed):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_running_statistics_move_once():
    mean, variance = mt.zeros(3), mt.ones(3)
    with Shadow(simulated_gpu):
        F.batch_norm(mt.tensor(X), mean, variance, training=True, momentum=0.5)
    np.testing.assert_allclose(mean.numpy(), X.mean(axis=0) / 2)


@pytest.fixture
def repeated(monkeypatch):
    """The calls that a new session repeats."""
    calls = []
    monkeypatch.setattr("tests.shadow.SEEN", set())
    monkeypatch.setattr("tests.shadow.differences", lambda *call: calls.append(call) or [])
    return calls


def test_of_calls_without_a_graph_only_the_first_of_its_shapes_is_repeated(repeated):
    with Shadow(simulated_gpu), mt.no_grad():
        for x in (X, X * 2, X[:1], X * 3):
            F.exp(mt.tensor(x))
    assert len(repeated) == 2


def test_the_same_call_is_repeated_once(repeated):
    for _ in range(2):
        with Shadow(simulated_gpu):
            for x, settings in (
                (X, {"dim": 0}),
                (X, {"dim": 1}),
                (X * 2, {"dim": 0}),
                (X.astype("f"), {"dim": 0}),
                (X.copy("F"), {"dim": 0}),
            ):
                F.softmax(mt.Tensor(x), **settings)
    assert len(repeated) == 5


def test_noise_of_another_state_is_another_call(repeated):
    with Shadow(simulated_gpu):
        F.dropout(mt.tensor(X))
        F.dropout(mt.tensor(X))
    assert len(repeated) == 2


def test_the_rest_of_the_process_does_not_notice_the_device():
    before = backend.gpu_in_use, sys.modules.get("cupy")
    with Shadow(simulated_gpu):
        F.dropout(mt.tensor(X))
        assert (backend.gpu_in_use, sys.modules.get("cupy")) == before
