"""Run the benchmarks: a table of times and ratios, and the same as JSON."""

import argparse
import contextlib
import ctypes
import datetime
import importlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .measure import CASES, Result, clock_for, measure

MODULES = (
    "engine_overhead",
    "convolution",
    "sampling",
    "normalization",
    "pooling",
    "attention",
    "networks",
)
PEERS = ("torch", "dezero", "chainer", "mygrad", "autograd")


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains TEXT")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of samples (default 15)")
    parser.add_argument("--threads", type=int, default=1, help="threads per library (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    options = parser.parse_args()
    _set_threads(options.threads)
    _keep_freed_memory()
    for module in MODULES:  # now, not above: libraries read the number of threads on import
        importlib.import_module(f".{module}", __package__)
    importlib.import_module("minitorch_attn").set_num_threads(options.threads)
    results: list[Result] = []
    for name, case in CASES.items():
        if options.only in name:
            found = measure(case, options.rounds, clock_for(options.threads))
            _print_table(name, found)
            results += found
    if options.json:
        about = {"threads": options.threads, "rounds": options.rounds, **_versions()}
        report = {"about": about, "results": [asdict(r) for r in results]}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


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
        )


def _versions() -> dict[str, str]:
    installed = {}
    for library in ("numpy", *PEERS):
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
