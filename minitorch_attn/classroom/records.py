"""What is kept of a graded submission, and of the people in a class."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..course.grade import Row


@dataclass(frozen=True)
class Graded:
    """The grade of one submission: what one learner handed in for one exercise set.

    Attributes
    ----------
    learner : str
        The name of their folder below `submitted/`.
    lesson : int
        The exercise set.
    notebook : str
        The notebook's file name.
    digest : str
        SHA-256 of the notebook's bytes: what was graded.
    terms : str
        SHA-256 of what it was graded by: checks, seed, limits.
    rows : tuple of Row
        One an exercise; or a single one without exercise, saying why there is no grade.
    seconds : float
        How long grading took.
    """

    learner: str
    lesson: int
    notebook: str
    digest: str
    terms: str
    rows: tuple[Row, ...]
    seconds: float

    @property
    def points(self) -> float:
        return sum(row.points for row in self.rows)

    @property
    def out_of(self) -> float:
        return sum(row.out_of for row in self.rows)

    @property
    def is_graded(self) -> bool:
        """Whether the notebook could be read and run: a grade of 0 is one, no grade is none."""
        return all(row.exercise for row in self.rows)

    def as_line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=True)

    @staticmethod
    def from_line(line: str) -> Graded:
        """Undo `as_line`.

        Raises
        ------
        ValueError
            If the line is cut off, or is none.
        """
        try:
            fields = json.loads(line)
            return Graded(**fields | {"rows": tuple(Row(**row) for row in fields["rows"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"this is no line of grades: {error}") from error


@dataclass(frozen=True)
class Person:
    """A line of the roster, `roster.csv`.

    Attributes
    ----------
    learner : str
        The name of their folder below `submitted/`.
    name, id, email : str
        As the school's own system has them; empty where the roster does not say.
    """

    learner: str
    name: str = ""
    id: str = ""
    email: str = ""


class BadRoster(ValueError):
    """A roster that cannot be read; the message says where and how to mend it."""


def read_roster(path: Path) -> list[Person]:
    """Read a roster: CSV whose first line names its columns, `learner` among them.

    Parameters
    ----------
    path : Path
        UTF-8, with commas or semicolons; columns `learner`, `name`, `id`, `email` in any order,
        others are passed over.

    Raises
    ------
    BadRoster
        If it cannot be read, has no column `learner`, or has a learner twice or one who cannot be
        the name of a folder.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRoster(f"{path} cannot be read: {error}. Save it as CSV in UTF-8.") from error
    first = text.partition("\n")[0]
    table = csv.DictReader(text.splitlines(), delimiter=";" if ";" in first else ",")
    columns = [name.strip().lower() for name in table.fieldnames or []]
    table.fieldnames = columns
    if "learner" not in columns:
        raise BadRoster(
            f"{path} has no column learner: its first line must name the columns, as in "
            "learner,name,id,email"
        )
    people = [_person(row) for row in table]
    people = [one for one in people if one.learner]
    for one in people:
        if one.learner.startswith(".") or set(one.learner) & set("/\\"):
            raise BadRoster(f"{path}: {one.learner!r} cannot be the name of a learner's folder")
    _refuse_twice(path, [one.learner for one in people])
    return people


def _person(row: dict[str, str | None]) -> Person:
    return Person(*((row.get(name) or "").strip() for name in ("learner", "name", "id", "email")))


def _refuse_twice(path: Path, learners: Iterable[str]) -> None:
    seen: set[str] = set()
    for learner in learners:
        if learner in seen:
            raise BadRoster(f"{path} has {learner} twice: each learner needs a line of their own")
        seen.add(learner)
