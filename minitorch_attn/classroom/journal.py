"""The journal: grades as they come, one line each, safe from the moment they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .records import Graded


class Busy(RuntimeError):
    """Somebody else is writing to the journal."""


class Journal:
    """A file of graded submissions, to which lines are only ever added.

    What was graded before a grader was killed is in it: reading passes over a line that was cut
    off. A submission that was graded again has several lines, of which the last counts.

    Parameters
    ----------
    path : Path
        The file; it need not be there yet.
    """

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[Graded]:
        """All lines, the oldest first."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return [graded for line in text.splitlines() if (graded := _read(line)) is not None]

    def latest(self) -> dict[str, Graded]:
        """The grade that counts, by learner."""
        return {graded.learner: graded for graded in self.read()}

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Add lines, alone.

        Raises
        ------
        Busy
            If somebody else does so at the moment.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            _lock(file, self.path)
            yield Writer(file)


class Writer:
    """Adds lines to a journal's file; each is on the disk when `add` returns."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # the last line was cut off: it must not spoil the next
                self._put(b"\n")

    def add(self, graded: Graded) -> None:
        self._put(graded.as_line().encode() + b"\n")

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())


def _read(line: str) -> Graded | None:
    try:
        return Graded.from_line(line)
    except ValueError:
        return None


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows, where nothing is graded behind a wall
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Busy(f"{path} is being written to: grading of this set is under way") from None
