"""All rows are trained alike, and their costs are what they are said to be."""

import itertools

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import compare
from minitorch_attn.compare import ROWS, Settings, measure, paired, train
from minitorch_attn.compare.sweep import scenes, sweep

TINY = Settings(images=64, test_images=50, epochs=1, batch_size=16)


def test_a_seed_repeats_a_training_and_another_does_not():
    first, again, other = (train(ROWS["nothing"], seed, TINY) for seed in (0, 0, 1))
    weights = [run.network.fc.weight.numpy() for run in (first, again, other)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert first.accuracy == again.accuracy
    assert np.abs(weights[0] - weights[2]).max() > 1e-3


def test_training_is_in_float64_and_leaves_the_default_alone():
    trained = train(ROWS["nothing"], 0, TINY)
    assert trained.network.fc.weight.dtype == np.float64
    assert mt.get_default_dtype() == np.float32


def test_accuracy_is_that_of_the_network_on_the_test_scenes():
    trained = train(ROWS["nothing"], 0, TINY)
    images, labels = scenes(TINY, train=False).arrays
    trained.network.eval()
    with mt.no_grad():
        guesses = trained.network(images).numpy().argmax(axis=1)
    assert trained.accuracy == pytest.approx((guesses == labels).mean())
    assert 0 <= trained.train_accuracy <= 1


def test_another_order_starts_from_the_same_weights():
    plain, control = ROWS["nothing"], ROWS["nothing, in another order"]
    no_steps = Settings(images=16, test_images=50, epochs=1, batch_size=16, learning_rate=1e-12)
    a, b = (train(row, 3, no_steps).network.fc.weight.numpy() for row in (plain, control))
    np.testing.assert_allclose(a, b, atol=1e-9)
    a, b = (train(row, 3, TINY).network.fc.weight.numpy() for row in (plain, control))
    assert np.abs(a - b).max() > 1e-4


def test_training_and_test_scenes_differ_and_are_between_0_and_1():
    a, b = scenes(TINY, train=True).arrays[0], scenes(TINY, train=False).arrays[0]
    assert a.shape == (64, 1, 24, 24) and b.shape == (50, 1, 24, 24)
    assert a.min() == 0 and 0.9 < a.max() <= 1
    assert not (a[:50] == b).all()


def test_costs_are_counted():
    names = ["nothing", "SqueezeExcitation", "NonLocalBlock"]
    costs, _ = measure(names, TINY)
    plain, se, non_local = (costs[name] for name in names)
    assert plain.parameters == 19_706
    assert se.parameters - plain.parameters == 2 * 16**2 // 4 + 2 * 32**2 // 4
    assert se.multiply_adds - plain.multiply_adds == 2 * 16**2 // 4 + 2 * 32**2 // 4
    assert non_local.multiply_adds - plain.multiply_adds == 4 * 144 * 16 * 8 + 2 * 144**2 * 8
    # The map and its gradient are there at once, in float64, for each of 16 images.
    assert non_local.memory > plain.memory > 0


def test_times_are_ratios_within_a_round_so_that_a_slow_round_does_not_matter(monkeypatch):
    calls = itertools.count()

    def timed(step, clock):
        slowness = (1, 10, 2)[next(calls) // 2]  # the second round is ten times as slow
        return slowness * (0.3 if hasattr(step.network.stage1.attention, "gate") else 0.2)

    monkeypatch.setattr(compare.sweep, "_timed", timed)
    costs, step = measure(["nothing", "SqueezeExcitation"], TINY, rounds=3)
    se = costs["SqueezeExcitation"]
    assert (se.time, se.time_low, se.time_high) == pytest.approx((1.5, 1.5, 1.5))
    assert costs["nothing"].time == 1 and step == pytest.approx(0.4)


def test_a_step_is_timed_warm():
    steps, ticks = [], itertools.count(step=0.5)
    assert compare.sweep._timed(lambda: steps.append(1), lambda: next(ticks)) == 0.5
    assert len(steps) == 2


def test_without_rounds_no_time_is_measured():
    costs, step = measure(["SimAM"], TINY)
    assert np.isnan(costs["SimAM"].time) and np.isnan(step)


def test_memory_is_that_of_a_step_and_the_same_again():
    peaks = [measure(["nothing"], TINY)[0]["nothing"].memory for _ in range(2)]
    assert abs(peaks[0] - peaks[1]) < 0.02 * peaks[0]
    more = measure(["nothing"], Settings(images=64, batch_size=32))[0]["nothing"].memory
    assert 1.7 < more / peaks[0] < 2.3


def test_paired_difference_is_over_the_same_seeds():
    mean, error = paired(np.array([0.8, 0.9, 0.7]), np.array([0.7, 0.8, 0.7]))
    assert mean == pytest.approx(0.2 / 3)
    assert error == pytest.approx(np.std([0.1, 0.1, 0.0], ddof=1) / 3**0.5)
    assert np.isnan(paired(np.array([0.8]), np.array([0.7]))[1])


def test_processes_find_what_this_one_finds():
    ((task, found),) = sweep([("SimAM", 2)], TINY, workers=1)
    here = train(ROWS["SimAM"], 2, TINY)
    assert task == ("SimAM", 2)
    assert found == pytest.approx((here.accuracy, here.train_accuracy))
