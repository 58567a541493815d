"""What a learner has done so far: kept in a file of their own, shown as one page."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from . import plan, solution_source
from .exercise import Exercise, exercises
from .files import write_atomically
from .page import Page

_LONGEST_WAIT = 2.0  # seconds for another notebook that is just writing


@dataclass
class Record:
    """What is known of one exercise.

    Attributes
    ----------
    tries : int
        Checks of written code (a stub is not a try).
    passed : bool
        Whether it was ever right.
    shown : bool
        Whether the solution was looked at before it was right.
    """

    tries: int = 0
    passed: bool = False
    shown: bool = False

    @property
    def state(self) -> str:
        """``"done"``, ``"tried"`` or ``"open"``."""
        return "done" if self.passed else "tried" if self.tries else "open"


def progress_path() -> Path:
    """The file that progress is kept in; MINITORCH_ATTN_PROGRESS names another."""
    if chosen := os.environ.get("MINITORCH_ATTN_PROGRESS"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "minitorch_attn" / "progress.json"


def read() -> tuple[dict[str, Record], str]:
    """All records by exercise id, and a note if the file could not be used.

    A file that is not what it should be is moved aside, never overwritten.
    """
    path = progress_path()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["exercises"]
        return {id: _record(entry) for id, entry in entries.items()}, ""
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"Progress cannot be read ({_reason(error)})."
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, _moved_aside(path)


def _record(entry: dict) -> Record:
    return Record(int(entry.get("tries", 0)), bool(entry.get("passed")), bool(entry.get("shown")))


def _moved_aside(path: Path) -> str:
    aside = path.with_name(f"{path.stem}-damaged-{time.strftime('%Y%m%d-%H%M%S')}.json")
    try:
        os.replace(path, aside)
    except OSError as error:
        return f"The progress file is damaged and cannot be moved aside ({_reason(error)})."
    return f"The progress file was damaged: it is now {aside.name}, and a new one is begun."


def note(
    exercise: Exercise, *, passed: bool = False, tried: bool = False, shown: bool = False
) -> str:
    """Add what happened to an exercise's record; return a note if that was not possible.

    Never raises: a check works wherever it is run.
    """
    path = progress_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            records, words = read()
            record = records.setdefault(exercise.id, Record())
            record.shown |= shown and not record.passed
            record.passed |= passed
            record.tries += tried
            entries = {id: asdict(records[id]) for id in sorted(records)}
            write_atomically(path, json.dumps({"version": 1, "exercises": entries}, indent=1))
        return words
    except OSError as error:
        return f"Progress cannot be kept ({_reason(error)}); checks work all the same."


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other notebooks from writing meanwhile; after a while go on without."""
    with open(path.with_suffix(".lock"), "a+b") as lock:
        deadline = time.monotonic() + _LONGEST_WAIT
        while not (held := _try_to_lock(lock)) and time.monotonic() < deadline:
            time.sleep(0.02)
        try:
            yield
        finally:
            if held:
                _unlock(lock)


if sys.platform == "win32":
    import msvcrt

    def _try_to_lock(file: IO[bytes]) -> bool:
        with contextlib.suppress(OSError):
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            return True
        return False

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_to_lock(file: IO[bytes]) -> bool:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


# -- the page -------------------------------------------------------------------------------


def overview(lesson: Any = None) -> Page:
    """One page: what is done, what was tried, what is open, what is next.

    Parameters
    ----------
    lesson : int or str, optional
        A lesson's number or name, or an exercise of it: what to show. Without it, the whole course.
    """
    chosen: tuple[plan.Lesson, ...] = plan.LESSONS
    if lesson is not None:
        number = re.match(r"\d+", str(lesson))
        chosen = tuple(one for one in chosen if number and one.number == int(number[0]))
    if not chosen:
        page = Page(f"There is no lesson {lesson!r}.")
        page.text("`progress(13)` shows lesson 13, and `progress()` the whole course.")
        return page
    records, words = read()
    sections: dict[str, list[list[str]]] = {}
    states: dict[Exercise, str] = {}
    for one in chosen:
        its = {each: records.get(each.id, Record()).state for each in exercises(one.number)}
        heading = plan.PARTS[one.part]
        heading = heading if one.part == "0" else f"Part {one.part}. {heading}"
        sections.setdefault(heading, []).append(_row(one, its))
        states |= its
    page = Page("Your progress")
    page.table(sections)
    done = [one for one in states if states[one] == "done"]
    page.text(
        f"{'Altogether' if lesson is None else 'Here'} {len(done)} of {len(states)} exercises, "
        f"{_points(done):g} of {_points(states):g} points."
    )
    following = next((one for one in states if states[one] != "done"), None)
    if following:
        folder = f"exercises/{plan.lesson(following.number).name}.ipynb"
        page.text(f"Next: {following.id}, in {folder}")
    elif states:
        page.text(f"Every exercise there is {'so far ' if lesson is None else ''}is done.")
    if words:
        page.text(words)
    return page


def _row(lesson: plan.Lesson, states: dict[Exercise, str]) -> list[str]:
    name = f"{lesson.number:02d} {lesson.title}"
    if not states:
        return [name, "no exercises" if lesson.is_written else "not written yet", "", ""]
    by_state = {
        state: [one for one in states if states[one] == state]
        for state in ("done", "tried", "open")
    }
    bar = "".join({"done": "#", "tried": "+", "open": "."}[state] for state in states.values())
    return [
        name,
        f"[{bar}] {len(by_state['done'])} of {len(states)}",
        f"{_points(by_state['done']):g} of {_points(states):g} points",
        "; ".join(
            f"{state}: {', '.join(one.name for one in its)}"
            for state, its in by_state.items()
            if its
        ),
    ]


def _points(of: Iterable[Exercise]) -> float:
    total = 0.0
    for exercise in of:
        try:
            total += solution_source.points(exercise)
        except solution_source.NoSource:
            total += 1
    return total
