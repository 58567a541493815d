"""The frame of the benchmarks, on a clock that the test sets; and the engine's overhead itself."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu, table
from benchmarks.measure import CASES, Case, case, clock_for, measure, peer
from benchmarks.roofline import Ceilings, Work


class Clock:
    """Stands still except where it is told what something cost."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def costs(self, seconds):
        def run() -> None:
            self.now += seconds() if callable(seconds) else seconds

        return run


def test_times_are_of_one_operation_and_ratios_to_torch():
    clock = Clock()
    contenders = {"ours": clock.costs(3e-3), "torch": clock.costs(2e-3), "numpy": clock.costs(1e-3)}
    results = measure(Case("three", 100, contenders.items), rounds=5, clock=clock)
    assert [r.contender for r in results] == ["ours", "torch", "numpy"]
    assert [r.microseconds for r in results] == pytest.approx([30, 20, 10])
    assert [r.ratio for r in results] == pytest.approx([1.5, 1.0, 0.5])
    assert {r.reference for r in results} == {"torch"}


def test_without_torch_the_first_contender_is_the_reference():
    clock = Clock()
    contenders = {"ours": clock.costs(3e-3), "numpy": clock.costs(1e-3)}
    results = measure(Case("two", 1, contenders.items), rounds=1, clock=clock)
    assert [r.ratio for r in results] == pytest.approx([1.0, 1 / 3])


def test_a_machine_that_slows_down_changes_times_but_not_ratios():
    clock = Clock()

    def slower_and_slower(seconds):
        return lambda: seconds * (1 + 10 * clock.now)

    contenders = {
        "ours": clock.costs(slower_and_slower(1.5e-4)),
        "torch": clock.costs(slower_and_slower(1e-4)),
    }
    ours, torch = measure(Case("tired", 1, contenders.items), rounds=9, clock=clock)
    assert torch.microseconds > 200
    assert ours.ratio == pytest.approx(1.5, rel=0.3)


def test_cases_register_themselves(monkeypatch):
    monkeypatch.setattr("benchmarks.measure.CASES", cases := {})

    @case("a new one", operations=7)
    def contenders():
        yield "numpy", int

    assert list(cases) == ["a new one"] and "a new one" not in CASES
    assert cases["a new one"].operations == 7
    assert dict(cases["a new one"].contenders()) == {"numpy": int}


def test_a_peer_that_is_missing_or_broken_does_not_take_part(tmp_path, monkeypatch):
    (tmp_path / "broken_peer.py").write_text("raise RuntimeError('not on this NumPy')")
    monkeypatch.syspath_prepend(tmp_path)
    assert peer("broken_peer") is None
    assert peer("no_such_peer") is None
    assert peer("json") is json


def test_one_thread_is_timed_by_its_own_clock():
    assert clock_for(1) is time.thread_time
    assert clock_for(2) is time.perf_counter


def run_benchmarks(folder: Path, *options: str) -> dict:
    command = [sys.executable, "-m", "benchmarks", "--json", str(folder / "out.json"), *options]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "minitorch_attn" in done.stdout
    return json.loads((folder / "out.json").read_text())


def test_the_command_writes_its_results(tmp_path):
    report = run_benchmarks(tmp_path, "--only", "constants, 8 floats", "--rounds", "2")
    assert report["about"]["threads"] == 1
    assert {r["contender"] for r in report["results"]} >= {"minitorch_attn", "numpy, forward"}
    assert all(r["microseconds"] > 0 for r in report["results"])


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_a_recorded_operation_costs_less_than_in_torch(tmp_path):
    for _ in range(2):  # a second chance for a moment of noise
        report = run_benchmarks(tmp_path, "--only", ", 8 floats", "--rounds", "5")
        ratios = [r["ratio"] for r in report["results"] if r["contender"] == "minitorch_attn"]
        if max(ratios) < 1:
            return
    raise AssertionError(f"the engine is slower than PyTorch's: {ratios} times its time")


# ---------------------------------------------------------------- the table in the README

ROOT = Path(__file__).parents[1]


def result(case, contender, ratio, reference="torch"):
    return {"case": case, "contender": contender, "reference": reference, "ratio": ratio}


def test_the_table_has_our_ratios_the_limit_and_the_best_peer():
    one = [
        result("conv dense: a", "minitorch_attn", 0.5),
        result("conv dense: a", "torch", 1.0),
        result("conv dense: a", "matmul", 0.25),
        result("conv dense: a", "dezero", 12.4),
        result("conv dense: a", "chainer", 3.21),
        result("conv dense: b", "minitorch_attn", 2.0),
        result("without torch", "minitorch_attn", 1.0, reference="minitorch_attn"),
    ]
    two = [
        result("conv dense: a", "minitorch_attn", 1.0),
        result("conv dense: b", "minitorch_attn", 1.0),
    ]
    rows = table.markdown({"results": one}, {"results": two}).splitlines()[2:]
    assert rows == [
        "| conv dense: a | 0.50 | 1.00 | 0.25 | 3.2 (chainer) |",
        "| conv dense: b | 2.0 | 1.00 |  |  |",
        "| **geometric mean of the dense convolutions** | 1.00 | 1.00 |  |  |",
    ]


def test_the_readme_shows_the_stored_reports():
    reports = [
        table.load(ROOT / "benchmarks" / "results" / f"{threads}.json")
        for threads in ("one_thread", "two_threads")
    ]
    assert [report["about"]["threads"] for report in reports] == [1, 2]
    wanted = table.markdown(*reports)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert wanted in readme, f"the README's table of benchmarks should read:\n{wanted}"


# ---------------------------------------------------------------- on a GPU


def test_the_roofline_is_what_takes_longer_to_move_or_to_multiply():
    card = Ceilings(bandwidth=100.0, rates={"float32": 10.0, "TF32": 40.0})
    assert card.seconds(Work(flops=20, bytes=100)) == 2
    assert card.seconds(Work(flops=20, bytes=100, precision="TF32")) == 1
    assert card.seconds(Work(flops=0, bytes=300)) == 3


def test_the_work_of_a_convolution_is_counted():
    shape = gpu.Shape(C=4, O=6, size=5, k=3, stride=2, groups=2, N=7)
    images, kernels, results = 7 * 4 * 25, 6 * 2 * 9, 7 * 6 * 9
    work = shape.work("float16")
    assert work.flops == 3 * 2 * results * 2 * 9  # each result sums 2 channels x 9 taps
    assert work.bytes == 3 * 2 * (images + kernels + results)


def test_a_step_of_resnet20_has_the_papers_multiply_adds():
    work = gpu.step_work(attention=False, precision="float32")
    assert work.flops / (6 * gpu.BATCH) == pytest.approx(41e6, rel=0.02)


@pytest.mark.slow
def test_every_case_on_a_gpu_runs_on_a_simulated_one():
    command = [sys.executable, "-m", "benchmarks", "--simulated"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    if "NoCompiler" in done.stderr:
        pytest.skip("kernels need a C++ compiler to run here")
    assert done.returncode == 0, done.stderr
    first, *ran = done.stdout.splitlines()
    assert first.startswith("simulated GPU: copies ")
    cases = [name for name, found in CASES.items() if found.device == "cuda"]
    assert len(cases) > 50
    assert ran == [f"{name}: minitorch_attn ran" for name in cases]
