"""Grade on many machines: the same jobs on a cluster of Dask's.

Start a scheduler on one machine (``dask scheduler``) and a worker on each
(``dask worker tcp://scheduler:8786``, which does as many jobs at once as the machine has cores).
All of them need a checkout of this course, of the same version, and a wall that holds. Whoever
reaches the scheduler can run programs on the workers: keep it within a network of your own, or use
Dask's TLS.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from itertools import islice
from typing import Any

from ..engine.optional import require
from .jobs import Job, do
from .records import Graded
from .wall import NoWall

#: Jobs on their way for each thread of the cluster, so that none waits for its next one.
AHEAD = 2


class BadCluster(RuntimeError):
    """A cluster that cannot be used; the message says why and how to mend it."""


def graded_on(
    address: str,
    jobs: Iterable[Job],
    on_done: Callable[[Graded], None],
    patience: float = 30.0,
) -> None:
    """Do jobs on a cluster, in no particular order.

    Parameters
    ----------
    address : str
        The scheduler's, as in ``"tcp://host:8786"``.
    jobs : iterable of Job
        Taken as they are needed: not all submissions are in memory at once.
    on_done : callable
        Called in this process, once a job, as the results come. If this process is interrupted,
        all that is done has been handed to it.
    patience : float
        Seconds to wait for the scheduler, and for its first worker.

    Raises
    ------
    BadCluster
        If there is no scheduler, or it is lost, or it has no worker, or one with other checks.
    NoWall
        If a worker has no wall that holds, and the terms ask for one.

    Notes
    -----
    What a worker had under way when it was lost is done again by others. A job under which one
    worker after another is lost is recorded as failed.
    """
    distributed = require("distributed", extra="cluster", purpose="grade on a cluster")
    waiting = iter(jobs)
    with _client(distributed, address, patience) as client:
        under_way: dict[Any, Job] = {}
        completed = distributed.as_completed(loop=client.loop)

        def send() -> None:
            room = AHEAD * sum(client.nthreads().values()) - len(under_way)
            for job in islice(waiting, max(room, 0 if under_way else 1)):
                future = client.submit(_do_on_worker, job, pure=False)
                under_way[future] = job
                completed.add(future)

        def take(future: Any) -> None:
            graded = _result(distributed, future, under_way.pop(future))
            on_done(graded)

        try:
            send()
            for future in completed:
                take(future)
                send()
        except KeyboardInterrupt:
            for future in [one for one in under_way if one.status == "finished"]:
                take(future)
            raise
        finally:
            client.cancel(list(under_way))


@contextlib.contextmanager
def _client(distributed: Any, address: str, patience: float) -> Any:
    try:
        client = distributed.Client(address, timeout=patience, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BadCluster(
            f"No scheduler answers at {address} ({error}). Start one with `dask scheduler`, and "
            "give the address that it prints"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=patience)
        except TimeoutError as error:
            raise BadCluster(
                f"The scheduler at {address} has no worker. Start one on each machine with "
                f"`dask worker {address}`"
            ) from error
        try:
            yield client
        except (distributed.comm.CommClosedError, CancelledError) as error:
            raise BadCluster(
                "The scheduler was lost. What was graded is kept: start it again, and grade on"
            ) from error


def _result(distributed: Any, future: Any, job: Job) -> Graded:
    try:
        return future.result()
    except distributed.KilledWorker:
        return job.failed("the machines that graded it were lost, one after another")


# -- on a worker's machine ------------------------------------------------------------------


class _Own(threading.local):
    """What each thread of a worker has for itself."""

    helper: _Helper | None = None


_own = _Own()


def _do_on_worker(job: Job) -> Graded:
    """Do a job in the process that belongs to this thread of a worker.

    A check counts on a process of its own, whose main thread it has: only there can a time limit
    interrupt code, and random numbers, warnings and the default dtype are the whole process's.
    """
    machine = socket.gethostname()
    if job.terms.digest != job.terms_digest:
        raise BadCluster(
            f"The worker on {machine} has other checks of set {job.terms.lesson:02d}: bring its "
            "checkout to the version of yours, and start it again"
        )
    for _ in range(2):
        if _own.helper is None:
            _own.helper = _Helper()
        try:
            return _own.helper.do(job)
        except NoWall as error:
            raise NoWall(f"{machine}: {error}") from None
        except (EOFError, OSError, pickle.UnpicklingError):
            _own.helper.stop()
            _own.helper = None
    return job.failed("the process that graded it ended, twice")


class _Helper:
    """A process that does jobs, one after another; it ends with the worker that it belongs to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # whoever interrupts the worker does not mean this job
        )

    def do(self, job: Job) -> Graded:
        """Do a job there.

        Raises
        ------
        EOFError, OSError, pickle.UnpicklingError
            If the process has ended.
        """
        process: Any = self._process
        pickle.dump(job, process.stdin)
        process.stdin.flush()
        answer = pickle.load(process.stdout)
        if isinstance(answer, NoWall):
            raise answer
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def _serve() -> None:
    """Do the jobs that come in on standard input, till it is closed."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed must not stand between the replies
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job = pickle.load(requests)
            answer: Graded | NoWall
            try:
                answer = do(job)
            except NoWall as error:
                answer = error
            pickle.dump(answer, replies)
            replies.flush()


if __name__ == "__main__":
    _serve()
