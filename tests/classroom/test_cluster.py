"""The same jobs on a cluster: every result once, whatever becomes of the workers."""

import contextlib
import json
import os
import signal
import subprocess
import sysconfig
import time
from dataclasses import replace

import pytest

from minitorch_attn.__main__ import main
from minitorch_attn.classroom.cluster import BadCluster, graded_on
from minitorch_attn.classroom.folder import ClassFolder
from minitorch_attn.classroom.jobs import do
from minitorch_attn.classroom.journal import Journal

from .submissions import POINTS, STUBS, job, notebook, terms, wall_or_none

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.slow

ALL = sum(POINTS.values())
TRUSTING = terms(None)
SLOW = "import time\ntime.sleep(0.5)"
UNTOUCHED = {"relu": STUBS["relu"]}


def local_cluster(workers, threads=1):
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=True,
        dashboard_address=":0",
        silence_logs=50,
    )


@pytest.fixture(scope="module")
def cluster():
    """Three workers, each a process of its own."""
    with local_cluster(3) as cluster:
        yield cluster


def jobs_of(count):
    """Right submissions and such with one stub, in turn."""
    return [
        job(notebook(SLOW, **(UNTOUCHED if number % 2 else {})), TRUSTING, f"learner{number:02d}")
        for number in range(count)
    ]


def kill_a_busy_worker(cluster):
    """Kill a worker that has a job under way; say how many it had."""
    with distributed.Client(cluster, set_as_default=False) as client:
        processing = client.processing()
        busiest = max(processing, key=lambda address: len(processing[address]))
        (process,) = client.run(os.getpid, workers=[busiest]).values()
        os.kill(process, signal.SIGKILL)
        return len(processing[busiest])


def test_every_result_comes_once_though_a_worker_is_killed(cluster):
    jobs, results, lost = jobs_of(14), [], []

    def on_done(graded):
        results.append(graded)
        if len(results) == 2:
            lost.append(kill_a_busy_worker(cluster))

    graded_on(cluster.scheduler_address, iter(jobs), on_done)
    assert lost[0] > 0
    assert sorted(one.learner for one in results) == [one.learner for one in jobs]
    points = {one.learner: one.points for one in results}
    assert points == {
        one.learner: ALL - POINTS["relu"] * (number % 2) for number, one in enumerate(jobs)
    }


def test_a_job_has_the_same_record_as_on_this_machine(cluster):
    results = []
    one = job(notebook(**UNTOUCHED), TRUSTING)
    graded_on(cluster.scheduler_address, [one], results.append)
    assert [replace(results[0], seconds=0)] == [replace(do(one), seconds=0)]


def test_behind_a_wall_as_well(cluster):
    if (name := wall_or_none()) is None:
        pytest.skip("this machine has no wall")
    results = []
    graded_on(cluster.scheduler_address, [job(notebook(), terms(name))], results.append)
    assert [one.points for one in results] == [ALL]


def test_threads_of_a_worker_have_a_process_each_for_all_their_jobs():
    """Checks use what a process has once: its main thread, its warnings, its random numbers."""
    tells = "def relu(x):\n    import os\n    raise ValueError(os.getppid())"
    jobs = [job(notebook(SLOW, relu=tells), TRUSTING, f"learner{number}") for number in range(6)]
    results = []
    with local_cluster(1, threads=2) as small:
        graded_on(small.scheduler_address, jobs, results.append)
    causes = [row.cause for one in results for row in one.rows if row.exercise == "00.relu"]
    assert len(causes) == 6 and all(one.startswith("ValueError: ") for one in causes)
    assert len(set(causes)) == 2


def test_no_jobs_are_done_at_once(cluster):
    graded_on(cluster.scheduler_address, [], pytest.fail)


def test_an_interruption_loses_nothing_that_was_done(cluster):
    jobs, before, after = jobs_of(8), [], []

    def on_done(graded):
        before.append(graded)
        if len(before) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        graded_on(cluster.scheduler_address, jobs, on_done)
    done = [one.learner for one in before]
    rest = [one for one in jobs if one.learner not in done]
    graded_on(cluster.scheduler_address, rest, after.append)
    assert len(done) >= 3 and rest
    assert sorted(done + [one.learner for one in after]) == [one.learner for one in jobs]


def test_what_was_done_when_interrupted_is_handed_over(cluster):
    """Two results wait while the first is handed over slowly: they must not be lost with it."""
    jobs, results = jobs_of(3), []

    def on_done(graded):
        results.append(graded)
        if len(results) == 1:
            time.sleep(5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        graded_on(cluster.scheduler_address, jobs, on_done)
    assert sorted(one.learner for one in results) == [one.learner for one in jobs]


def test_a_submission_that_kills_its_grader_fails_alone(cluster):
    killer = job(notebook("import os\nos.kill(os.getppid(), 9)"), TRUSTING, "killer")
    results = {}
    graded_on(
        cluster.scheduler_address,
        [killer, *jobs_of(2)],
        lambda graded: results.update({graded.learner: graded}),
    )
    assert not results["killer"].is_graded
    assert results["killer"].rows[0].cause == "the process that graded it ended, twice"
    assert results["learner00"].points == ALL


def test_a_job_under_which_every_worker_is_lost_is_recorded_as_failed():
    grandparent = "import os, psutil\npsutil.Process(os.getppid()).parent().kill()"
    jobs, results = [job(notebook(grandparent), TRUSTING, "killer"), *jobs_of(2)], {}
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), local_cluster(1) as small:
        graded_on(
            small.scheduler_address,
            jobs,
            lambda graded: results.update({graded.learner: graded}),
        )
    assert "lost, one after another" in results["killer"].rows[0].cause
    assert len(results) == 3


@contextlib.contextmanager
def started(*command):
    """A program of Dask's as it is started by hand."""
    dask_program = os.path.join(sysconfig.get_path("scripts"), "dask")
    process = subprocess.Popen([dask_program, *command], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_programs_started_by_hand_do_and_a_lost_scheduler_is_told(tmp_path):
    where = tmp_path / "scheduler.json"
    results = []

    def on_done(graded):
        results.append(graded)
        if len(results) == 2:
            scheduler.kill()

    at = ["--scheduler-file", str(where), "--host", "127.0.0.1"]
    with (
        started("scheduler", *at, "--port", "0", "--no-dashboard") as scheduler,
        started("worker", *at, "--nthreads", "1", "--no-dashboard", "--death-timeout", "60"),
    ):
        while not where.exists():
            assert scheduler.poll() is None
            time.sleep(0.1)
        address = json.loads(where.read_text())["address"]
        with pytest.raises(BadCluster, match="The scheduler was lost. What was graded is kept"):
            graded_on(address, jobs_of(8), on_done)
    assert 2 <= len(results) < 8


def test_worker_with_other_checks_is_told(cluster):
    other = replace(jobs_of(1)[0], terms_digest="0" * 64)
    with pytest.raises(BadCluster, match="has other checks of set 00: bring its checkout"):
        graded_on(cluster.scheduler_address, [other], pytest.fail)


def test_missing_scheduler_and_missing_workers_are_told():
    with pytest.raises(BadCluster, match="No scheduler answers at tcp://127.0.0.1:9"):
        graded_on("tcp://127.0.0.1:9", jobs_of(1), pytest.fail, patience=0.5)
    with (
        local_cluster(0) as empty,
        pytest.raises(BadCluster, match="has no worker. Start one on each machine"),
    ):
        graded_on(empty.scheduler_address, jobs_of(1), pytest.fail, patience=0.5)


def test_the_command_grades_on_a_cluster(cluster, tmp_path):
    room = ClassFolder.create(tmp_path / "class", "A class")
    path = room.submission("ada", 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(notebook())
    where = ["--folder", str(room.root), "--scheduler", cluster.scheduler_address]
    assert main(["class", "grade", "0", "--trust", *where]) == 0
    assert Journal(room.journal(0)).latest()["ada"].points == ALL


def test_the_command_says_what_is_wrong_with_a_cluster(tmp_path, capsys, monkeypatch):
    room = ClassFolder.create(tmp_path / "class", "A class")
    path = room.submission("ada", 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(notebook())
    where = ["--folder", str(room.root), "--scheduler", "nonsense://nowhere"]
    assert main(["class", "grade", "0", "--trust", *where]) == 2
    assert "No scheduler answers at nonsense://nowhere" in capsys.readouterr().err
