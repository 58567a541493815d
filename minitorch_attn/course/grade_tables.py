"""Grades as a table for the terminal, and as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from .grade import Row


@dataclass(frozen=True)
class Total:
    """What a notebook earned altogether.

    Attributes
    ----------
    notebook : str
        Path as it was given.
    lesson : str
        Its exercise set, ``"13"``; empty if it could not be graded.
    points, out_of : float
        Earned, and what there was to earn.
    cause : str
        Why it could not be graded.
    """

    notebook: str
    lesson: str
    points: float
    out_of: float
    cause: str = ""

    @property
    def is_graded(self) -> bool:
        return self.lesson != ""


def totals(rows: Iterable[Row]) -> list[Total]:
    """One total a notebook, in the order of the rows."""
    return [
        Total(
            name,
            its[0].exercise.partition(".")[0],
            sum(row.points for row in its),
            sum(row.out_of for row in its),
            its[0].cause if not its[0].exercise else "",
        )
        for name, its in _by_notebook(rows).items()
    ]


def _by_notebook(rows: Iterable[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.notebook, []).append(row)
    return grouped


# -- the terminal ---------------------------------------------------------------------------


def as_table(rows: list[Row]) -> str:
    """The exercises of each notebook below its path, then the sum of each."""
    lines = [["exercise", "points", "verdict", "likely cause"]]
    for row in rows:
        points = _of(row.points, row.out_of) if row.exercise else ""
        lines.append([f"  {row.exercise}", points, row.verdict, row.cause])
    title, rule, *aligned = _aligned(lines)
    parts = [title, rule]
    below = iter(aligned)
    for name, its in _by_notebook(rows).items():
        parts += [name, *(next(below) for _ in its)]
    sums = [["notebook", "points"]]
    for total in totals(rows):
        points = _of(total.points, total.out_of) if total.is_graded else "could not be graded"
        sums.append([total.notebook, points])
    return "\n".join([*parts, "", *_aligned(sums)])


def _of(points: float, out_of: float) -> str:
    return f"{points:g} of {out_of:g}"


def _aligned(lines: list[list[str]]) -> list[str]:
    """Columns of one width each, with a rule below the first line."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return [text[0], "-" * len(text[0]), *text[1:]]


# -- files ----------------------------------------------------------------------------------


def as_csv(rows: Iterable[Row]) -> str:
    """The rows as CSV, one line an exercise, all but the long message."""
    names = [field.name for field in fields(Row) if field.name != "message"]
    return _csv(names, rows)


def as_summary(rows: Iterable[Row]) -> str:
    """The totals as CSV, one line a notebook."""
    return _csv([field.name for field in fields(Total)], totals(rows))


def as_json(rows: list[Row], settings: dict[str, Any]) -> str:
    """The rows, the totals and the settings they were graded with, as JSON."""
    content = {
        "version": 1,
        "settings": settings,
        "notebooks": [asdict(total) for total in totals(rows)],
        "rows": [asdict(row) for row in rows],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _csv(names: list[str], records: Iterable[Any]) -> str:
    buffer = io.StringIO()
    buffer.write("\ufeff")  # by which Excel knows UTF-8
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([as_cell(getattr(record, name)) for name in names] for record in records)
    return buffer.getvalue()


def as_cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets a quote in front, which stops that."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        value = f"'{value}"
    return value.replace("\r", " ") if isinstance(value, str) else value
