"""Threads: heavy operations can split the batch over a few, each computing with NumPy.

NumPy lets go of Python's lock while it multiplies and copies, so Python's threads run at once.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

Result = TypeVar("Result")

# To hand work to another thread takes about 0.1 ms, in which a core does some five million
# multiply-adds itself: work of less than twice that is done sooner alone.
SMALL = 10_000_000

_count = 1


class _Local(threading.local):
    at_work = False


_local = _Local()


def set_num_threads(count: int) -> None:
    """Let heavy operations split the batch over this many threads; 1, the default, is none.

    Meanwhile the matrix products of each thread keep to one thread of their own, if threadpoolctl
    is installed. Without it, set the environment variable OPENBLAS_NUM_THREADS=1 (or the one of
    your NumPy's BLAS) before starting Python, or too many threads compete for the cores.

    Results are the same at every run with the same number of threads. Another number sums the
    gradients of weights in another order, which changes their last digits.

    Parameters
    ----------
    count : int
        At least 1; the number of cores is a good choice.

    Raises
    ------
    ValueError
        If it is below 1.
    """
    global _count
    if operator.index(count) < 1:
        raise ValueError(f"set_num_threads: needs at least 1 thread, not {count}")
    _count = operator.index(count)


def get_num_threads() -> int:
    """Over how many threads heavy operations split the batch."""
    return _count


def in_parallel(
    work: Callable[[slice], Result], batch: int, multiply_adds: float = math.inf
) -> list[Result]:
    """Call `work(slice)` for slices that cover a batch, one a thread; the results, in order.

    Work of fewer than `SMALL` multiply-adds in all is not split.

    Each call may write into its own slice of an output. Nothing else may be shared: what is summed
    over the batch is returned, and summed by the caller in the order of the list.
    """
    alone = _local.at_work or multiply_adds < SMALL
    threads = 1 if alone else min(_count, batch)
    if threads <= 1:
        return [work(slice(0, batch))]
    bounds = [batch * i // threads for i in range(threads + 1)]
    first, *others = map(slice, bounds, bounds[1:])
    with _one_thread_for_products():
        waiting = [_pool(_count).submit(_work, work, part) for part in others]
        try:
            return [_work(work, first), *(w.result() for w in waiting)]
        finally:
            wait(waiting)  # if one fails, the others must be done before the caller goes on


def _work(work: Callable[[slice], Result], part: slice) -> Result:
    """A share of the work; what it calls splits nothing further, or it might wait for itself."""
    _local.at_work = True
    try:
        return work(part)
    finally:
        _local.at_work = False


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="minitorch_attn")


if hasattr(os, "register_at_fork"):  # a forked process inherits the pool without its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _one_thread_for_products() -> contextlib.AbstractContextManager[Any]:
    controller = _controller()
    return controller.limit(limits=1, user_api="blas") if controller else contextlib.nullcontext()


@functools.cache
def _controller() -> Any:
    """What sets the threads of the BLAS that NumPy multiplies with; None without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
    except ImportError:
        return None
    return ThreadpoolController()
