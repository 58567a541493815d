"""Timing on a machine that does other things too.

Milliseconds wander by half on a busy machine; the ratio of two contenders that are timed one right
after the other hardly does. So all contenders of a case run in every round, in a new order each,
and what counts is the median over the rounds of the ratio to a reference contender.
"""

from __future__ import annotations

import builtins
import importlib
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

REFERENCE = "torch"  # ratios are to it, or to the first contender where it does not take part
SAMPLE = 0.02  # seconds that one sample should take


@dataclass
class Case:
    """Something that several contenders do, each in its way.

    Attributes
    ----------
    name : str
    operations : int
        How many operations one call does: times are given for one of them.
    contenders : callable
        Yields (name, function without arguments).
    device : str
        "cpu" or "cuda".
    work : Work, optional
        What a call has to do at least, for the roofline of a card.
    images : int
        How many images a call trains on, if it is a step of training.
    """

    name: str
    operations: int
    contenders: Callable[[], Iterator[tuple[str, Callable[[], Any]]]]
    device: str = "cpu"
    work: Any = None
    images: int = 0


@dataclass
class Result:
    """What was measured of one contender: its time for one operation, and paired ratios.

    Attributes
    ----------
    microseconds : float
        Median over the rounds.
    ratio, low, high : float
        Median and quartiles, over the rounds, of its time divided by the reference's.
    roofline : float, optional
        The least time that the card could take, divided by this one.
    images_per_second : float, optional
        Of a step of training.
    """

    case: str
    contender: str
    reference: str
    microseconds: float
    ratio: float
    low: float
    high: float
    roofline: float | None = None
    images_per_second: float | None = None


CASES: dict[str, Case] = {}


def case(name: str, operations: int = 1, **about: Any) -> Callable:
    """Register a function that yields the contenders of a case; see `Case`."""

    def register(contenders: Callable) -> Callable:
        CASES[name] = Case(name, operations, contenders, **about)
        return contenders

    return register


def peer(name: str) -> ModuleType | None:
    """Another library, if it is installed and can be imported."""
    _restore_names()
    try:
        return importlib.import_module(name)
    except Exception:  # a peer that breaks on this NumPy does not take part
        return None


def _restore_names() -> None:
    """Give NumPy back the names that version 1 had and DeZero and Chainer still ask for."""
    import numpy as np  # not above: it reads the number of threads when it is imported

    for name in ("int", "float", "bool", "object", "complex"):
        if name not in vars(np):
            setattr(np, name, getattr(builtins, name))
    if not hasattr(np, "sctypes"):
        kinds = {"float": np.floating, "int": np.signedinteger, "uint": np.unsignedinteger}
        np.sctypes = {n: k.__subclasses__() for n, k in kinds.items()}  # type: ignore # noqa: NPY201


def measure(case: Case, rounds: int, clock: Callable[[], float], seed: int = 0) -> list[Result]:
    """Time every contender of a case in interleaved rounds."""
    contenders = dict(case.contenders())
    calls = {name: _calls_per_sample(run, clock) for name, run in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    shuffle = random.Random(seed).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            times[name].append(_sample(contenders[name], calls[name], clock))
    reference = REFERENCE if REFERENCE in contenders else next(iter(contenders))
    return [_summary(case, name, reference, times) for name in contenders]


def _calls_per_sample(run: Callable[[], Any], clock: Callable[[], float]) -> int:
    run()
    start = clock()
    run()
    return max(1, round(SAMPLE / max(clock() - start, 1e-9)))


def _sample(run: Callable[[], Any], calls: int, clock: Callable[[], float]) -> float:
    """Seconds of one call, warm: the contender before has left its own data in the caches."""
    run()
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls


def _summary(case: Case, name: str, reference: str, times: dict[str, list[float]]) -> Result:
    ratios = [t / r for t, r in zip(times[name], times[reference])]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    microseconds = 1e6 * statistics.median(times[name]) / case.operations
    return Result(case.name, name, reference, microseconds, middle, low, high)


def clock_for(threads: int) -> Callable[[], float]:
    """Processor time where one thread does all the work, else the clock on the wall."""
    return time.thread_time if threads == 1 else time.perf_counter
