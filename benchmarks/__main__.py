"""Run the benchmarks: a table of times and ratios, and the same as JSON."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import importlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .measure import CASES, Case, Result, clock_for, measure

MODULES = {
    "cpu": (
        "engine_overhead",
        "convolution",
        "sampling",
        "normalization",
        "pooling",
        "attention",
        "networks",
    ),
    "cuda": ("gpu",),
}
PEERS = ("torch", "dezero", "chainer", "mygrad", "autograd")


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains TEXT")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of samples (default 15)")
    parser.add_argument("--threads", type=int, default=1, help="threads per library (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    parser.add_argument("--device", choices=MODULES, default="cpu", help="default cpu")
    parser.add_argument(
        "--simulated",
        action="store_true",
        help="every case of a GPU once, small, on a simulated card, without times: to see that "
        "all run",
    )
    options = parser.parse_args()
    options.device = "cuda" if options.simulated else options.device
    _set_threads(options.threads)
    _keep_freed_memory()
    for module in MODULES[options.device]:  # now: libraries read the number of threads on import
        importlib.import_module(f".{module}", __package__)
    importlib.import_module("minitorch_attn").set_num_threads(options.threads)
    if options.simulated:
        _try_all(options)
        return
    card = Card() if options.device == "cuda" else None
    results = _run(options, card)
    if options.json:
        about = {"threads": options.threads, "rounds": options.rounds, **_versions()}
        about |= card.about if card else {}
        report = {"about": about, "results": [_without_nothing(asdict(r)) for r in results]}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _chosen(options: argparse.Namespace) -> list[Case]:
    return [c for c in CASES.values() if options.only in c.name and c.device == options.device]


def _run(options: argparse.Namespace, card: Card | None) -> list[Result]:
    results: list[Result] = []
    for case in _chosen(options):
        found = measure(case, options.rounds, card.clock if card else clock_for(options.threads))
        if card:
            found = [card.placed(result, case) for result in found]
        _print_table(case.name, found)
        results += found
    return results


def _try_all(options: argparse.Namespace) -> None:
    """Let every contender run once on a simulated card."""
    importlib.import_module(".gpu", __package__).small = True
    with importlib.import_module("minitorch_attn.simulator").simulated_gpu():
        Card(elements=1 << 10, size=16)
        for case in _chosen(options):
            for name, run in case.contenders():
                run()
                print(f"{case.name}: {name} ran")


class Card:
    """A GPU: its name, what it reaches, and how far below that a result lies."""

    def __init__(self, **sizes: int):
        roofline = importlib.import_module(".roofline", __package__)
        runtime = importlib.import_module("minitorch_attn.engine.backend").gpu_module().cuda.runtime
        name = importlib.import_module("minitorch_attn").cuda.get_device_name()
        self.clock = roofline.wall_clock_of_gpu
        self.ceilings = roofline.measure_ceilings(**sizes)
        self.about = {
            "card": name,
            "driver": runtime.driverGetVersion(),
            "cuda": runtime.runtimeGetVersion(),
            "bandwidth": self.ceilings.bandwidth,
            "rates": self.ceilings.rates,
        }
        rates = ", ".join(f"{p} {r * 1e-12:.1f}" for p, r in self.ceilings.rates.items())
        print(f"{name}: copies {self.ceilings.bandwidth * 1e-9:.0f} GB/s; TFLOP/s: {rates}")

    def placed(self, result: Result, case: Case) -> Result:
        """A result with its distance from the roofline, and images a second."""
        seconds = result.microseconds * 1e-6
        return replace(
            result,
            roofline=self.ceilings.seconds(case.work) / seconds,
            images_per_second=case.images / seconds if case.images else None,
        )


def _without_nothing(result: dict) -> dict:
    return {name: value for name, value in result.items() if value is not None}


def _set_threads(count: int) -> None:
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(count)
    # OpenBLAS's threads spin after each product, and keep the cores from other libraries' threads.
    os.environ["OPENBLAS_THREAD_TIMEOUT"] = "20"


def _keep_freed_memory() -> None:
    """Ask glibc to keep freed memory: to fetch it anew costs more than a small operation."""
    mmap_max, trim_threshold = -4, -1  # names of malloc.h
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(mmap_max, 0)
        ctypes.CDLL(None).mallopt(trim_threshold, 1 << 30)


def _print_table(name: str, results: Iterable[Result]) -> None:
    results = list(results)
    print(f"\n{name}")
    print(f"  {'':<16}{'us':>10}{'x ' + results[0].reference:>10}   quartiles")
    for r in sorted(results, key=lambda r: r.ratio):
        print(
            f"  {r.contender:<16}{r.microseconds:>10.2f}{r.ratio:>10.2f}"
            f"   {r.low:.2f} to {r.high:.2f}"
            + (f"   {r.roofline:.0%} of the roofline" if r.roofline else "")
            + (f"   {r.images_per_second:.0f} images/s" if r.images_per_second else "")
        )


def _versions() -> dict[str, str]:
    installed = {}
    for library in ("numpy", "cupy-cuda12x", "cupy-cuda13x", *PEERS):
        with contextlib.suppress(PackageNotFoundError):
            installed[library] = version(library)
    return {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        **installed,
        "machine": platform.machine(),
        "system": platform.system(),
    }


if __name__ == "__main__":
    main()
