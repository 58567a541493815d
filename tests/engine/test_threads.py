"""Splitting a batch over threads: what is split, in which order it returns, and what fails."""

import multiprocessing
import sys
import threading
import time

import pytest

import minitorch_attn as mt
from minitorch_attn.engine.threads import SMALL, in_parallel


@pytest.fixture
def three_threads():
    mt.set_num_threads(3)
    yield
    mt.set_num_threads(1)


def test_one_thread_is_the_default_and_takes_the_whole_batch():
    assert mt.get_num_threads() == 1
    assert in_parallel(lambda part: (part, threading.current_thread()), 7) == [
        (slice(0, 7), threading.current_thread())
    ]


def test_slices_cover_the_batch_and_results_come_in_order(three_threads):
    def work(part):
        time.sleep(0.02 / (1 + part.start))  # the first takes longest
        return list(range(10))[part]

    parts = in_parallel(work, 10)
    assert len(parts) == 3
    assert sum(parts, []) == list(range(10))


@pytest.mark.parametrize(("batch", "slices"), [(0, 1), (1, 1), (2, 2)])
def test_there_are_no_more_threads_than_images(three_threads, batch, slices):
    assert len(in_parallel(lambda part: part, batch)) == slices


def test_slices_run_at_the_same_time(three_threads):
    together = threading.Barrier(3, timeout=10)
    in_parallel(lambda part: together.wait(), 3)


def test_an_error_is_raised_once_all_threads_are_done(three_threads):
    done = []

    def work(part):
        if part.start == 0:
            raise ValueError("first")
        time.sleep(0.02)
        done.append(part)

    with pytest.raises(ValueError, match="first"):
        in_parallel(work, 3)
    assert len(done) == 2


def test_small_work_is_not_split(three_threads):
    assert in_parallel(lambda part: part, 9, SMALL - 1) == [slice(0, 9)]
    assert len(in_parallel(lambda part: part, 9, SMALL)) == 3


def test_work_inside_work_is_not_split_again(three_threads):
    inner = in_parallel(lambda part: in_parallel(lambda inside: inside, 9), 3)
    assert inner == [[slice(0, 9)]] * 3
    assert len(in_parallel(lambda part: part, 3)) == 3  # and afterwards it is again


def test_products_keep_to_one_thread_meanwhile(three_threads):
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads_of_products(_):
        return [
            m["num_threads"] for m in threadpoolctl.threadpool_info() if m["user_api"] == "blas"
        ]

    before = threads_of_products(None)
    assert all(set(counts) <= {1} for counts in in_parallel(threads_of_products, 3))
    assert threads_of_products(None) == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork by default")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(three_threads):
    in_parallel(lambda part: part, 3)
    child = multiprocessing.get_context("fork").Process(
        target=in_parallel, args=(lambda part: part, 3)
    )
    child.start()
    child.join(timeout=20)
    finished = child.exitcode == 0
    child.kill()
    assert finished


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_thread_is_refused(count):
    with pytest.raises(ValueError, match=f"at least 1 thread, not {count}"):
        mt.set_num_threads(count)
