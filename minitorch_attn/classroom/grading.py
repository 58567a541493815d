"""Grade many submissions at once on this machine's cores."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from .jobs import Job, do
from .records import Graded

#: Called with each record as it comes.
OnDone = Callable[[Graded], None]


def graded_here(jobs: Iterable[Job], processes: int, on_done: OnDone) -> None:
    """Do jobs in some processes, in no particular order.

    Parameters
    ----------
    jobs : iterable of Job
        Taken as they are needed: not all submissions are in memory at once.
    processes : int
        How many at once.
    on_done : callable
        Called in this process, once a job.

    Notes
    -----
    A process that dies of a job takes the others with it; the jobs that were under way are then
    done again, each in a process of its own, and the one that kills it again is recorded as failed.
    """
    waiting = iter(jobs)
    while suspects := _in_one_pool(waiting, processes, on_done):
        for job in suspects:
            if _in_one_pool(iter([job]), 1, on_done):
                on_done(job.failed("the process that graded it ended, twice"))


def _in_one_pool(waiting: Iterator[Job], processes: int, on_done: OnDone) -> list[Job]:
    """Do jobs till none is left, or till the pool breaks: then those that were under way."""
    under_way: dict[Future[Graded], Job] = {}
    # A fork of a process with threads can hang for ever: start afresh.
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        while True:
            for job in itertools.islice(waiting, processes - len(under_way)):
                try:
                    under_way[pool.submit(do, job)] = job
                except BrokenProcessPool:
                    return [*under_way.values(), job]
            if not under_way:
                return []
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            try:
                for future in done:
                    on_done(future.result())
                    del under_way[future]
            except BrokenProcessPool:
                return list(under_way.values())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
