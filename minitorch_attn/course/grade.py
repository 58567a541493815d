"""Grade notebooks: run each in a process of its own, and check what it defined through the seam."""

from __future__ import annotations

import re
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import solution_source
from .checking import Report, examine
from .exercise import Exercise, exercises
from .subject import Launch, Side, SubjectError, SubjectLost, Worker, launch_freely
from .submission import BadNotebook, Submission, read_submission

#: After so many cells that ended the notebook's process, it is given up.
MOST_LOST = 5

_MOST_LETTERS = 10_000  # of what a learner is told of an exercise


@dataclass(frozen=True)
class Limits:
    """How long a notebook's code may take, in seconds.

    Attributes
    ----------
    cell, notebook : float
        For running one cell, and all of them.
    check : float
        For each check, all its cases together.
    submission : float
        For everything: where code ends its process, what follows is run again in a new one.
    """

    cell: float = 60.0
    notebook: float = 300.0
    check: float = 30.0
    submission: float = 1200.0


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
        As in `Report`, or ``"missing"`` (nothing of that name), ``"imported"`` (the library's own),
        ``"solution taken"``, ``"error"``.
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


#: Opens the place where a notebook's code runs: a folder of its own, and what starts its process.
Room = Callable[[Path], AbstractContextManager[tuple[Path, Launch]]]


@contextmanager
def open_room(notebook: Path) -> Iterator[tuple[Path, Launch]]:
    """A new folder with a copy of the notebook; its code has all rights of the user."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        shutil.copy(notebook, name)
        yield Path(name), launch_freely(Path(name))


def grade(
    path: Path,
    *,
    lesson: int | None = None,
    more: int = 20,
    seed: int = 0,
    limits: Limits | None = None,
    room: Room = open_room,
) -> list[Row]:
    """Grade one notebook; whatever it does becomes its own rows.

    Parameters
    ----------
    path : Path
        A notebook of an exercise set, anywhere on disk.
    lesson : int, optional
        The set that is expected; a notebook of another gets an error row.
    more : int
        Cases made from the seed, besides the fixed ones.
    seed : int
        The same seed makes the same cases.
    limits : Limits, optional
        How long its code may take.
    room : callable
        Opens the place where its code runs.
    """
    try:
        submission = read_submission(path, lesson)
        return _Grading(path, submission, more, seed, limits or Limits(), room).rows()
    except BadNotebook as error:
        cause = str(error)
    except Exception as error:  # no submission may cost the others their grades
        cause = f"the grader failed on it: {type(error).__name__}: {error}"
    return [Row(str(path), "", 0, 0, "error", cause=_one_line(cause), message=cause)]


@dataclass(frozen=True)
class _Fault:
    """What went wrong in a cell, and the verdict on an exercise that is missing for it."""

    words: str
    verdict: str = "missing"


@dataclass
class _Grading:
    """One notebook being graded."""

    path: Path
    submission: Submission
    more: int
    seed: int
    limits: Limits
    room: Room

    def rows(self) -> list[Row]:
        with self.room(self.path) as (folder, launch):
            waiting = exercises(self.submission.number)
            self._deadly: dict[int, _Fault] = {}
            self._finish = time.monotonic() + self.limits.submission
            done: list[Row] = []
            # A process that a cell or an exercise has ended is started anew for what follows.
            for _ in range(MOST_LOST + len(waiting)):
                if waiting and len(self._deadly) < MOST_LOST and self._left > 0:
                    with Worker(folder, launch=launch) as worker:
                        done += self._grade_while_it_lives(worker, waiting)
            words = "the process that the notebook ran in ended again and again"
            if self._left <= 0:
                words = f"the submission took longer than {self.limits.submission:g} s"
            return done + [self._row(one, "stopped", words) for one in waiting]

    @property
    def _left(self) -> float:
        """Seconds that are left for the submission."""
        return self._finish - time.monotonic()

    def _grade_while_it_lives(self, worker: Worker, waiting: list[Exercise]) -> list[Row]:
        rows: list[Row] = []
        try:
            self._run_cells(worker)
            taken = Side(worker.send, self.limits.check).ask("taken")
        except SubjectLost:
            return rows
        while waiting and worker.lives and self._left > 0:
            exercise = waiting.pop(0)
            rows.append(
                self._taken(exercise) if exercise.id in taken else self._check(worker, exercise)
            )
        return rows

    def _run_cells(self, worker: Worker) -> None:
        """Run all cells, past errors and without those that ended a process before.

        Raises
        ------
        SubjectLost
            If a cell ended the process; it will be left out the next time.
        """
        self._faults = dict(self._deadly)
        finish = min(time.monotonic() + self.limits.notebook, self._finish)
        for number, cell in enumerate(self.submission.cells, 1):
            if number in self._deadly:
                continue
            left = finish - time.monotonic()
            too_late = f"the notebook took longer than {self.limits.notebook:g} s"
            if left <= 0:
                self._faults[number] = _Fault(f"not run: {too_late}", "stopped")
                continue
            try:
                side = Side(worker.send, min(self.limits.cell, left))
                side.ask("run", source=cell.source, title=f"<cell {number}>")
            except SubjectError as error:
                if error.kind != "TimeLimit":
                    self._faults[number] = _fault_of(error)
                elif left > self.limits.cell:
                    words = f"did not end within {self.limits.cell:g} s"
                    self._faults[number] = _Fault(words, "too slow")
                else:
                    self._faults[number] = _Fault(too_late, "too slow")
            except SubjectLost as lost:
                self._deadly[number] = _Fault(f"code cell {number}: {lost}", "stopped")
                raise

    def _check(self, worker: Worker, exercise: Exercise) -> Row:
        side = Side(worker.send, min(self.limits.check, self._left))
        try:
            answer = side.ask("name", name=exercise.name)
            home = side.ask("home", name=exercise.name)
        except SubjectError:
            return self._missing(exercise)
        except SubjectLost as lost:
            return self._row(exercise, "stopped", str(lost))
        if f"{home}.".startswith("minitorch_attn."):
            return self._imported(exercise, home)
        report = examine(exercise, answer, more=self.more, seed=self.seed)
        return self._row(exercise, report.verdict, self._cause(report), report)

    def _cause(self, report: Report) -> str:
        """A few words on a report: the mistake's name, else how its code ended."""
        known = "" if report.cause is None else report.cause.name
        if known == report.verdict == "too slow":
            return f"did not end within {self.limits.check:g} s"
        if isinstance(report.error, SubjectError) and known in ("", report.error.kind):
            return _words_of(report.error, report.exercise.name)
        return known if known != report.verdict else ""

    def _missing(self, exercise: Exercise) -> Row:
        """Nothing has the name: the cell that should have given it failed, or there is none."""
        own = {n: c for n, c in enumerate(self.submission.cells, 1) if c.is_of(exercise.name)}
        fault = next((self._faults[n] for n in own if n in self._faults), None)
        if fault is None:
            instead = [name for cell in own.values() for name in cell.defines]
            fault = _Fault(
                f"no {exercise.name} in the notebook"
                + (f"; its cell defines {' and '.join(instead[:3])}" if instead else "")
            )
        told = [f"{exercise.id}: {fault.words}"]
        told += [
            f"Code cell {n}: {self._faults[n].words}" for n in self._faults if self._is_common(n)
        ]
        return self._row(exercise, fault.verdict, fault.words, message="\n".join(told))

    def _is_common(self, number: int) -> bool:
        """Whether a cell is the place of no exercise and no check, as that of the imports."""
        cell = self.submission.cells[number - 1]
        if cell.mark or cell.checks:
            return False
        return not any(cell.is_of(one.name) for one in exercises(self.submission.number))

    def _taken(self, exercise: Exercise) -> Row:
        message = (
            f'The notebook calls solution("{exercise.id}"). If the work in it is your own, take '
            "that call out."
        )
        return self._row(exercise, "solution taken", "calls solution(...)", message=message)

    def _imported(self, exercise: Exercise, home: str) -> Row:
        message = (
            f"{exercise.name} is the library's own, from {home}. Write it in the notebook; if you "
            f"did, take out the line that gives the name {exercise.name} to the library's."
        )
        return self._row(exercise, "imported", f"it is {home}'s", message=message)

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
            cause=_one_line(cause),
            passed=report.passed if report else 0,
            cases=report.looked_at if report else 0,
            message=_writable(message or (str(report.page) if report else cause)),
        )


# -- causes in a few words ------------------------------------------------------------------


def _fault_of(error: SubjectError) -> _Fault:
    """What a cell's exception says of it, with the line it came from."""
    if found := re.fullmatch(r"(?s)(.*) \(.*, line (\d+)\)", error.message):  # a syntax error
        return _Fault(f"line {found[2]}: {found[1]}")
    lines = [frame.line for frame in error.frames if frame.function == "<module>"]
    place = f"line {lines[0]}: " if lines else ""
    return _Fault(place + _words_of(error))


def _words_of(error: SubjectError, name: str = "") -> str:
    """An exception in one line; `name` is the function or class that was called."""
    if error.kind == "SystemExit":
        return "calls exit()"
    text = f"{error.kind}: {error.message}" if error.message else error.kind
    if name and re.search(rf"TypeError: {name}\b.* unexpected keyword argument", text):
        return f"parameter names differ: {error.message}"
    return text


def _writable(text: str) -> str:
    """Text for a file and a terminal, of limited length, whatever a learner's code put into it."""
    text = text[:_MOST_LETTERS].encode("utf-8", "replace").decode("utf-8")
    return "".join(one if one.isprintable() or one in "\n\t" else " " for one in text)


def _one_line(text: str) -> str:
    """Text that fits into a table."""
    printable = "".join(letter if letter.isprintable() else " " for letter in _writable(text))
    return textwrap.shorten(printable, 160, placeholder=" ...")
