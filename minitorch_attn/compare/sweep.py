"""Train every row alike, and measure what it costs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from .. import functional as F
from .. import nn, optim
from ..data import DataLoader, TensorDataset
from ..data.scenes import cluttered_digits
from ..engine import get_default_dtype, manual_seed, set_default_dtype
from ..nn.summary import summary
from ..training import evaluate, fit
from .mechanisms import BASELINE, ROWS, Mechanism

#: Names and seeds that are to be trained.
Task = tuple[str, int]


@dataclass(frozen=True)
class Settings:
    """What all rows have in common.

    Attributes
    ----------
    images, test_images : int
        Scenes to train on and to measure on.
    size, digit, clutter : int
        Of the scenes, as in `data.cluttered_digits`.
    epochs, batch_size : int
    learning_rate : float
        Of Adam; it falls to 0 along half a cosine.
    """

    images: int = 1200
    test_images: int = 1000
    size: int = 24
    digit: int = 12
    clutter: int = 4
    epochs: int = 8
    batch_size: int = 32
    learning_rate: float = 4e-3


@dataclass(frozen=True)
class Costs:
    """What a row costs; parameters and multiply-adds exactly, memory nearly the same on every run.

    Attributes
    ----------
    parameters, multiply_adds : int
        Of the whole network; multiply-adds for one image, forward.
    memory : int
        Bytes that a training step holds at its peak, beside parameters, their gradients and the
        optimiser's state.
    time, time_low, time_high : float
        Of a training step, divided by the baseline's: median and quartiles over the rounds.
    """

    parameters: int
    multiply_adds: int
    memory: int
    time: float = float("nan")
    time_low: float = float("nan")
    time_high: float = float("nan")


@functools.lru_cache(maxsize=2)
def scenes(settings: Settings, train: bool) -> TensorDataset:
    """The scenes that all rows see: images (N, 1, size, size) from 0 to 1, labels (N,)."""
    scenes = cluttered_digits(
        settings.images if train else settings.test_images,
        train=train,
        size=settings.size,
        digit=settings.digit,
        clutter=settings.clutter,
        generator=0,
    )
    return TensorDataset(scenes.images / 255.0, scenes.labels)


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Make numbers of 64 bits, so that a training gives the same accuracy on every processor."""
    before = get_default_dtype()
    set_default_dtype("float64")
    try:
        yield
    finally:
        set_default_dtype(before)


@dataclass(frozen=True)
class Trained:
    """A row after its training.

    Attributes
    ----------
    network : Module
    accuracy : float
        On the test scenes, behind the last epoch.
    train_accuracy : float
        Mean over the last epoch, while it learned.
    """

    network: nn.Module
    accuracy: float
    train_accuracy: float


def train(row: Mechanism, seed: int, settings: Settings | None = None) -> Trained:
    """Train a row from a seed, which decides its first weights and the order of the images."""
    settings = settings or Settings()
    with in_float64():
        network = seeded(row, seed, settings)
        optimizer = optim.Adam(network.parameters(), lr=settings.learning_rate)
        loader = DataLoader(
            scenes(settings, train=True),
            settings.batch_size,
            shuffle=True,
            generator=seed + row.shuffle,
        )
        steps = settings.epochs * len(loader)
        history = fit(
            network,
            loader,
            optimizer=optimizer,
            epochs=settings.epochs,
            scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
            scheduler_every="batch",
            progress=False,
        )
        measured = evaluate(network, DataLoader(scenes(settings, train=False), 250))
    return Trained(network, measured["accuracy"], history["train_accuracy"][-1])


def seeded(row: Mechanism, seed: int, settings: Settings) -> nn.Module:
    """The network of a row with the first weights of a seed."""
    manual_seed(seed)
    return row.network(settings.size)


# -- costs ----------------------------------------------------------------------------------------


class Step:
    """One training step of a row, to be measured: forward, backward, update."""

    def __init__(self, row: Mechanism, settings: Settings):
        self.network = seeded(row, 0, settings)
        self.optimizer = optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        images, labels = scenes(settings, train=True).arrays
        self.images, self.labels = images[: settings.batch_size], labels[: settings.batch_size]

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(self.images), self.labels).backward()
        self.optimizer.step()

    def peak(self) -> int:
        """Bytes that NumPy holds at the peak of a step, beyond those that it held before."""
        self()  # the gradients and the optimiser's state are there from now on
        tracemalloc.start()
        try:
            self()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def measure(
    names: Iterable[str],
    settings: Settings | None = None,
    rounds: int = 0,
    clock: Callable[[], float] = time.thread_time,
) -> tuple[dict[str, Costs], float]:
    """Parameters, multiply-adds, memory and, if there are rounds, times of some rows.

    In each round every row takes one step, in a new order, and its time is divided by that of the
    baseline in the same round: what else the machine does then hardly matters.

    Parameters
    ----------
    names : iterable of str
        Of `ROWS`.
    settings : Settings, optional
    rounds : int
        How often each is timed.
    clock : callable
        Seconds.

    Returns
    -------
    dict of str to Costs, and float
        And the baseline's median step in seconds (NaN without rounds).
    """
    settings = settings or Settings()
    names = list(names)
    with in_float64():
        steps = {
            name: Step(ROWS[name], settings) for name in {BASELINE.name: 0, **dict.fromkeys(names)}
        }
        peaks = {name: step.peak() for name, step in steps.items()}
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        order, shuffle = list(steps), random.Random(0).shuffle
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                seconds[name].append(_timed(steps[name], clock))
        found = {}
        for name in names:
            told = summary(steps[name].network, (1, settings.size, settings.size))
            ratios = [t / b for t, b in zip(seconds[name], seconds[BASELINE.name])]
            found[name] = Costs(
                told.parameters, told.multiply_adds, peaks[name], *_median_and_quartiles(ratios)
            )
    return found, _median_and_quartiles(seconds[BASELINE.name])[0]


def _timed(step: Step, clock: Callable[[], float]) -> float:
    step()  # warm: the row before has left its own data in the caches
    start = clock()
    step()
    return clock() - start


def _median_and_quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return (values * 3)[:3] if values else (float("nan"),) * 3  # type: ignore[return-value]
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, low, high


# -- many trainings -------------------------------------------------------------------------------


def sweep(
    tasks: Iterable[Task], settings: Settings, workers: int
) -> Iterator[tuple[Task, tuple[float, float]]]:
    """Train rows from seeds, in processes of one thread each; yields them as they are done.

    Yields
    ------
    (name, seed), (accuracy, train_accuracy)
    """
    with _processes(workers) as pool:
        waiting = {
            pool.submit(_accuracies, name, seed, settings): (name, seed) for name, seed in tasks
        }
        try:
            for done in concurrent.futures.as_completed(waiting):
                yield waiting[done], done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def measure_apart(
    names: list[str], settings: Settings, rounds: int
) -> tuple[dict[str, Costs], float]:
    """`measure` in a process of one thread."""
    with _processes(1) as pool:
        return pool.submit(measure, names, settings, rounds).result()


def _accuracies(name: str, seed: int, settings: Settings) -> tuple[float, float]:
    trained = train(ROWS[name], seed, settings)
    return trained.accuracy, trained.train_accuracy


@contextlib.contextmanager
def _processes(count: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Fresh processes, in which the matrix products of NumPy run on one thread."""
    variables = [f"{library}_NUM_THREADS" for library in ("OPENBLAS", "OMP", "MKL")]
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(dict.fromkeys(variables, "1"))
    try:
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(count, mp_context=spawn) as pool:
            yield pool
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def paired(accuracies: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
    """Mean difference to the baseline with the same seeds, and its standard error."""
    differences = np.asarray(accuracies, float) - np.asarray(baseline, float)
    count = len(differences)
    error = differences.std(ddof=1) / count**0.5 if count > 1 else float("nan")
    return float(differences.mean()), float(error)
