"""Recording or not: blocks, decorators, exceptions, threads."""

import threading

import numpy as np
import pytest

from minitorch_attn.engine import enable_grad, is_grad_enabled, no_grad, tensor

from .primitives import square


@pytest.fixture
def x():
    return tensor(np.array([2.0]), requires_grad=True)


def test_nothing_is_recorded_in_no_grad(x):
    with no_grad():
        y = square(x)
        assert not is_grad_enabled()
    assert is_grad_enabled()
    assert not y.requires_grad and y.item() == 4.0


def test_blocks_nest(x):
    with no_grad():
        with enable_grad():
            assert square(x).requires_grad
            with no_grad():
                assert not square(x).requires_grad
            assert square(x).requires_grad
        assert not square(x).requires_grad


def test_an_exception_restores_what_was_before():
    for block in (no_grad, enable_grad):
        with no_grad():
            with pytest.raises(RuntimeError), block():
                raise RuntimeError
            assert not is_grad_enabled()
    assert is_grad_enabled()


def test_as_decorators(x):
    @no_grad()
    def evaluate():
        return square(x)

    @enable_grad()
    def train():
        return square(x)

    for _ in range(2):
        assert not evaluate().requires_grad
        with no_grad():
            assert train().requires_grad


def test_threads_are_independent(x):
    recorded = {}

    def work() -> None:
        recorded["at first"] = square(x).requires_grad
        with no_grad():
            inside.set()
            leave.wait()
            recorded["inside"] = square(x).requires_grad

    inside, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=work)
    with no_grad():
        thread.start()
        inside.wait()
    recorded["here"] = square(x).requires_grad  # while the other thread is in its block
    leave.set()
    thread.join()
    assert recorded == {"at first": True, "here": True, "inside": False}


def test_threads_accumulate_into_graphs_of_their_own():
    totals = []

    def work() -> None:
        w = tensor(np.array([1.0]), requires_grad=True)
        for _ in range(200):
            square(w).backward()
        totals.append(w.grad.item())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [400.0] * 4
