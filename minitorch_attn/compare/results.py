"""What a comparison has found, in a file that can be gone on with."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from .mechanisms import BASELINE, ROWS
from .sweep import Costs, Settings, Task, paired

#: The comparison that lesson 30 draws, beside the package in a checkout.
STORED = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "compare.json"


@dataclass
class Row:
    """What was found of one row.

    Attributes
    ----------
    name : str
    accuracies, train_accuracies : dict of int to float
        By seed.
    costs : Costs or None
    """

    name: str
    accuracies: dict[int, float] = field(default_factory=dict)
    train_accuracies: dict[int, float] = field(default_factory=dict)
    costs: Costs | None = None

    @property
    def place(self) -> str:
        """Where it stands."""
        return ROWS[self.name].place

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds."""
        return float(np.mean(list(self.accuracies.values())))

    @property
    def train_mean(self) -> float:
        """Mean accuracy on the training scenes, while it learned, over the seeds."""
        return float(np.mean(list(self.train_accuracies.values())))

    @property
    def spread(self) -> float:
        """Standard deviation of the accuracy over the seeds; NaN for one seed."""
        values = list(self.accuracies.values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


@dataclass
class Comparison:
    """All rows, and how they came about.

    Attributes
    ----------
    settings : Settings
    rows : dict of str to Row
        In the order of `ROWS`.
    about : dict
        Versions, machine and date; the baseline's step in milliseconds as "baseline_step_ms".
    """

    settings: Settings = field(default_factory=Settings)
    rows: dict[str, Row] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def row(self, name: str) -> Row:
        """A row, made if it is not there."""
        if name not in self.rows:
            self.rows[name] = Row(name)
            self.rows = {known: self.rows[known] for known in ROWS if known in self.rows}
        return self.rows[name]

    def missing(self, names: Sequence[str], seeds: int) -> list[Task]:
        """What is still to be trained, seed by seed."""
        return [
            (name, seed)
            for seed in range(seeds)
            for name in names
            if name not in self.rows or seed not in self.rows[name].accuracies
        ]

    def difference(self, name: str, to: str = BASELINE.name) -> tuple[float, float]:
        """Mean difference of accuracy to another row, over the seeds of both, and its error."""
        mine, other = self.rows[name].accuracies, self.rows[to].accuracies
        both = sorted(mine.keys() & other.keys())
        return paired([mine[s] for s in both], [other[s] for s in both])  # type: ignore[arg-type]

    def save(self, path: Path) -> None:
        """Write it as JSON; whoever reads the file sees all of the old or all of the new."""
        report = {
            "about": self.about | _versions(),
            "settings": asdict(self.settings),
            "rows": [_as_json(row) for row in self.rows.values()],
        }
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)


def load(path: Path = STORED) -> Comparison:
    """Read what `Comparison.save` wrote; rows that are no longer known are left out.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no comparison {path}: `python -m minitorch_attn compare --json {path}` "
            "makes one"
        )
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no comparison that `python -m minitorch_attn compare` wrote "
            f"({type(error).__name__}: {error}): name another file"
        ) from error


def _from_json(report: dict[str, Any]) -> Comparison:
    comparison = Comparison(Settings(**report["settings"]), about=report["about"])
    for saved in report["rows"]:
        if saved["name"] in ROWS:
            row = comparison.row(saved["name"])
            row.accuracies = {int(seed): value for seed, value in saved["accuracies"].items()}
            row.train_accuracies = {int(s): value for s, value in saved["train_accuracies"].items()}
            if saved["costs"] is not None:
                costs: dict[str, Any] = {
                    name: math.nan if value is None else value
                    for name, value in saved["costs"].items()
                }
                row.costs = Costs(**costs)
    return comparison


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "accuracies": _by_seed(row.accuracies),
        "train_accuracies": _by_seed(row.train_accuracies),
        "costs": None
        if row.costs is None
        else {k: _short(v) for k, v in asdict(row.costs).items()},
    }


def _by_seed(values: dict[int, float]) -> dict[str, float | None]:
    return {str(seed): _short(values[seed]) for seed in sorted(values)}


def _short(value: float) -> float | None:
    """Digits enough, and JSON's null for what was not measured."""
    return None if math.isnan(value) else round(value, 5)


def _versions() -> dict[str, str]:
    try:
        own = version("minitorch-attn")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "date": datetime.date.today().isoformat(),
        "minitorch_attn": own,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
    }
