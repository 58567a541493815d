"""The benchmarks' table for the README, from the reports of two runs.

``python -m benchmarks.table ONE_THREAD.json TWO_THREADS.json``
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

OURS, LIMIT, TORCH = "minitorch_attn", "matmul", "torch"
PEERS = ("dezero", "chainer", "mygrad", "autograd")


def markdown(one_thread: dict, two_threads: dict) -> str:
    """A row a case; every number is a time divided by PyTorch's in the same run."""
    one, two = by_case(one_thread), by_case(two_threads)
    lines = [
        "| forward and backward | 1 thread | 2 threads | matrix products | best NumPy peer |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        row(case, one[case].get(OURS), two.get(case, {}).get(OURS), one[case]) for case in one
    ]
    dense = [case for case in one if case.startswith("conv dense")]
    means = [geometric_mean([run[case][OURS] for case in dense]) for run in (one, two)]
    lines.append(row("**geometric mean of the dense convolutions**", *means, {}))
    return "\n".join(lines)


def row(case: str, ours: float | None, ours_on_two: float | None, ratios: dict[str, float]) -> str:
    """One line of the table."""
    peers = {name: ratios[name] for name in PEERS if name in ratios}
    best = min(peers, key=peers.__getitem__, default=None)
    cells = [
        case,
        shown(ours),
        shown(ours_on_two),
        shown(ratios.get(LIMIT)),
        f"{shown(peers[best])} ({best})" if best else "",
    ]
    return f"| {' | '.join(cells)} |"


def shown(ratio: float | None) -> str:
    """A ratio with two digits that count."""
    if ratio is None:
        return ""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 2 else f"{ratio:.2f}"


def by_case(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The ratio of each contender, by case."""
    found: dict[str, dict[str, float]] = {}
    for result in report["results"]:
        if result["reference"] == TORCH:
            found.setdefault(result["case"], {})[result["contender"]] = result["ratio"]
    return found


def geometric_mean(ratios: list[float]) -> float:
    """The mean that takes twice as fast and half as fast for equal steps."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def load(path: str | Path) -> dict[str, Any]:
    """A report that ``python -m benchmarks --json PATH`` wrote."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


if __name__ == "__main__":
    print(markdown(load(sys.argv[1]), load(sys.argv[2])))
