"""The report of `pytest -m gpu --gpu-report FILE`: what ran, on which card, and what came out."""

import datetime
import json
import platform
from collections import Counter
from pathlib import Path

import pytest

import minitorch_attn as mt
from minitorch_attn.engine.backend import gpu_module


class Report:
    """Counts the tests' outcomes and keeps the names of those that failed."""

    def __init__(self, path: str):
        self.path = Path(path)
        self.outcomes: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        text = json.dumps({**about(), "outcomes": self.outcomes, "failed": self.failed}, indent=2)
        self.path.write_text(text + "\n", encoding="utf-8")


def about() -> dict[str, object]:
    """Date, card and versions."""
    found: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "card": None,
    }
    if mt.cuda.is_available():
        cupy = gpu_module()
        found |= {
            "card": mt.cuda.get_device_name(),
            "cupy": cupy.__version__,
            "driver": cupy.cuda.runtime.driverGetVersion(),
            "cuda": cupy.cuda.runtime.runtimeGetVersion(),
        }
    return found
