"""Grade notebooks: run each in a process of its own, and check what it defined through the seam."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from . import plan, solution_source
from .checking import Report, examine
from .exercise import Exercise, exercises
from .subject import Side, SubjectError, SubjectLost, Worker


@dataclass(frozen=True)
class Limits:
    """How long a notebook's code may take, in seconds.

    Attributes
    ----------
    cell, notebook : float
        For running one cell, and all of them.
    check : float
        For each check, all its cases together.
    """

    cell: float = 60.0
    notebook: float = 300.0
    check: float = 30.0


@dataclass(frozen=True)
class Row:
    """The grade of one exercise of one notebook, or what kept a notebook from being graded.

    Attributes
    ----------
    notebook : str
        Path as it was given.
    exercise : str
        ``"13.squeeze"``; empty in a notebook's error row.
    points, out_of : float
        Earned, and what there was to earn.
    verdict : str
        As in `Report`, or ``"missing"`` (nothing of that name), ``"solution taken"``, ``"error"``.
    cause : str
        The likely cause in a few words.
    passed, cases : int
        Cases that were right, and cases looked at.
    message : str
        What the learner would be told.
    """

    notebook: str
    exercise: str
    points: float
    out_of: float
    verdict: str
    cause: str = ""
    passed: int = 0
    cases: int = 0
    message: str = ""


class BadNotebook(ValueError):
    """A file that is no notebook of an exercise set."""


def grade(path: Path, *, more: int = 20, seed: int = 0, limits: Limits | None = None) -> list[Row]:
    """Grade one notebook; whatever it does becomes its own rows.

    Parameters
    ----------
    path : Path
        A notebook of an exercise set, anywhere on disk.
    more : int
        Cases made from the seed, besides the fixed ones.
    seed : int
        The same seed makes the same cases.
    limits : Limits, optional
        How long its code may take.
    """
    try:
        number, sources = read_notebook(path)
        return _Grading(path, number, sources, more, seed, limits or Limits()).rows()
    except BadNotebook as error:
        cause = str(error)
    except Exception as error:  # no submission may cost the others their grades
        cause = f"the grader failed on it: {type(error).__name__}: {error}"
    return [Row(str(path), "", 0, 0, "error", cause=cause, message=cause)]


def read_notebook(path: Path) -> tuple[int, list[str]]:
    """The number of the exercise set a notebook belongs to, and the source of its code cells.

    Raises
    ------
    BadNotebook
        If it cannot be read, or belongs to no set that has checks.
    """
    try:
        notebook = json.loads(path.read_bytes().decode("utf-8"))
        cells = notebook["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except OSError as error:
        raise BadNotebook(f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BadNotebook("is not a notebook (format 4)") from error
    return _set_of(path, sources), sources


def _set_of(path: Path, sources: list[str]) -> int:
    """The exercise set that a notebook's checks name, or else its file name."""
    known = [lesson.number for lesson in plan.LESSONS if lesson.has_exercises]
    named = Counter(int(n) for text in sources for n in _CHECK_CALL.findall(text))
    for number, _ in named.most_common():
        if number in known:
            return number
    for found in re.findall(r"(?<!\d)\d\d(?=_)", path.stem):
        if int(found) in known:
            return int(found)
    raise BadNotebook("belongs to no exercise set: it has no check(...) and is not named NN_...")


_CHECK_CALL = re.compile(r"""\bcheck\(\s*["'](\d\d)\.""")


@dataclass
class _Grading:
    """One notebook being graded."""

    path: Path
    number: int
    sources: list[str]
    more: int
    seed: int
    limits: Limits

    def rows(self) -> list[Row]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            shutil.copy(self.path, folder)
            self._folder = Path(folder)
            waiting = exercises(self.number)
            done: list[Row] = []
            while waiting:
                # A process that an exercise has ended is started anew for those that follow.
                with Worker(self._folder) as worker:
                    done += self._grade_while_it_lives(worker, waiting)
            return done

    def _grade_while_it_lives(self, worker: Worker, waiting: list[Exercise]) -> list[Row]:
        rows = []
        try:
            errors = self._run_cells(worker)
            taken = Side(worker.send, self.limits.check).ask("taken")
        except SubjectLost as lost:
            rows = [self._row(one, "stopped", str(lost)) for one in waiting]
            waiting.clear()
            return rows
        while waiting and worker.lives:
            exercise = waiting.pop(0)
            if exercise.id in taken:
                rows.append(self._taken(exercise))
                continue
            rows.append(self._check(worker, exercise, errors))
        return rows

    def _run_cells(self, worker: Worker) -> dict[int, str]:
        """Run all cells, past errors; returns in words what went wrong, by the cells' numbers."""
        errors = {}
        finish = time.monotonic() + self.limits.notebook
        for number, source in enumerate(self.sources, 1):
            left = finish - time.monotonic()
            if left <= 0:
                raise SubjectLost(f"the notebook took longer than {self.limits.notebook:g} s")
            title = f"<cell {number}>"
            try:
                limit = min(self.limits.cell, left)
                Side(worker.send, limit).ask("run", source=source, title=title)
            except SubjectError as error:
                words = "took too long" if error.kind == "TimeLimit" else f"raised {error}"
                errors[number] = f"code cell {number} {words}"
            except SubjectLost as lost:
                raise SubjectLost(f"code cell {number}: {lost}") from lost
        return errors

    def _check(self, worker: Worker, exercise: Exercise, errors: dict[int, str]) -> Row:
        side = Side(worker.send, self.limits.check)
        try:
            answer = side.ask("name", name=exercise.name)
        except SubjectError:
            return self._missing(exercise, errors)
        except SubjectLost as lost:
            return self._row(exercise, "stopped", str(lost))
        report = examine(exercise, answer, more=self.more, seed=self.seed)
        cause = "" if report.cause is None else report.cause.name
        return self._row(exercise, report.verdict, cause, report)

    def _missing(self, exercise: Exercise, errors: dict[int, str]) -> Row:
        """Nothing has the name: the cell that should have given it failed, or there is none."""
        gives = re.compile(rf"(?m)^\s*(def|class)\s+{exercise.name}\b|^\s*{exercise.name}\s*=")
        failed = (errors[n] for n in errors if gives.search(self.sources[n - 1]))
        cause = next(failed, f"no {exercise.name} in the notebook")
        return self._row(exercise, "missing", cause, message="\n".join([cause, *errors.values()]))

    def _taken(self, exercise: Exercise) -> Row:
        message = (
            f'The notebook calls solution("{exercise.id}"). If the work in it is your own, take '
            "that call out."
        )
        return self._row(exercise, "solution taken", "calls solution(...)", message=message)

    def _row(
        self,
        exercise: Exercise,
        verdict: str,
        cause: str,
        report: Report | None = None,
        message: str = "",
    ) -> Row:
        worth = solution_source.points(exercise)
        return Row(
            notebook=str(self.path),
            exercise=exercise.id,
            points=worth if verdict == "right" else 0,
            out_of=worth,
            verdict=verdict,
            cause=cause if cause != verdict else "",
            passed=report.passed if report else 0,
            cases=report.total if report else 0,
            message=message or (str(report.page) if report else cause),
        )


# -- what comes out -------------------------------------------------------------------------


def as_table(rows: Iterable[Row]) -> str:
    """The rows as a table for the terminal, with each notebook's sum."""
    lines = [["notebook", "exercise", "points", "verdict", "likely cause"]]
    by_notebook: dict[str, list[Row]] = {}
    for row in rows:
        by_notebook.setdefault(row.notebook, []).append(row)
    for name, its in by_notebook.items():
        for row in its:
            points = f"{row.points:g} of {row.out_of:g}" if row.exercise else ""
            lines.append([name, row.exercise, points, row.verdict, row.cause])
        if its[0].exercise:
            earned, worth = sum(row.points for row in its), sum(row.out_of for row in its)
            lines.append([name, "all", f"{earned:g} of {worth:g}", "", ""])
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def as_csv(rows: Iterable[Row]) -> str:
    """The rows as CSV, one line an exercise, all but the long message."""
    names = [field.name for field in fields(Row) if field.name != "message"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return buffer.getvalue()


def as_json(rows: Iterable[Row], settings: dict[str, Any]) -> str:
    """The rows and the settings they were graded with, as JSON."""
    content = {"version": 1, "settings": settings, "rows": [asdict(row) for row in rows]}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
