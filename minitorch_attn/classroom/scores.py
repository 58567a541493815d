"""A class's scores: a line a learner, a column a set; as CSV and JSON, for Canvas and for Moodle.

Wherever a learner handed in nothing, or something that could not be graded, there is no score: that
is for the teacher to judge, and 0 would be a judgement.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..course import plan
from ..course.grade_tables import as_cell
from .feedback import plain
from .records import Graded, Person

#: So many letters of a name or a note fit into a cell.
MOST_LETTERS = 400


def as_csv(grades: Iterable[Graded], roster: Sequence[Person] = ()) -> str:
    """The scores as CSV for a spreadsheet.

    The columns are `learner`, `name`, `id`, `email`; one for each set, under its name, with the
    points; `points`, their sum; `out_of`, what there was to earn in all sets; and `note`, which
    names what could not be graded and who is not on the roster.

    Parameters
    ----------
    grades : iterable of Graded
        Of any number of sets; of several for one learner and set the last counts.
    roster : sequence of Person
        Gives the order of the lines, and lines to those who handed in nothing. Learners who are not
        on it come behind.
    """
    board = _Board(list(grades), roster)
    names = [plan.lesson(number).name for number in board.sets]
    lines: list[list[Any]] = [
        ["learner", "name", "id", "email", *names, "points", "out_of", "note"]
    ]
    for person in board.people:
        lines.append(
            [person.learner, person.name, person.id, person.email]
            + board.scores(person)
            + [board.total(person), board.out_of_all, board.note(person)]
        )
    return "\ufeff" + _csv(lines)  # the mark by which Excel knows UTF-8


def as_json(grades: Iterable[Graded], roster: Sequence[Person] = ()) -> str:
    """The scores as JSON, with each exercise's points and verdict.

    Parameters
    ----------
    grades, roster
        As of `as_csv`.
    """
    board = _Board(list(grades), roster)
    content = {
        "version": 1,
        "sets": [
            {
                "lesson": number,
                "name": plan.lesson(number).name,
                "title": plan.lesson(number).title,
                "out_of": board.out_of[number],
            }
            for number in board.sets
        ],
        "learners": [_learner(board, person) for person in board.people],
    }
    return json.dumps(content, indent=1) + "\n"


def canvas(grades: Iterable[Graded], roster: Sequence[Person] = ()) -> str:
    """The scores as CSV for Canvas: Grades, Import.

    The columns are `Student`, `ID`, `SIS User ID`, `SIS Login ID`, `Section` and one a set; the
    line `Points Possible` says what each set is worth. Canvas finds a learner by the roster's `id`
    as SIS User ID, else by the e-mail address (without one, the name of the folder) as SIS Login
    ID, else by the name, and asks where it finds nobody. `ID` is Canvas's own number of a person,
    which a roster does not know: it stays empty, for a number of the school's could be that of
    somebody else. So does `Section`, which is not read.

    A column whose title is none of the course's assignments becomes a new one. An empty cell takes
    away a score that stands in Canvas already: import before you enter scores by hand.

    Parameters
    ----------
    grades, roster
        As of `as_csv`.

    Notes
    -----
    Source: Canvas's guide "How do I import grades in the Gradebook?", and what its importer does
    (canvas-lms, lib/gradebook_importer.rb).
    """
    board = _Board(list(grades), roster)
    titles = [_title(number) for number in board.sets]
    lines: list[list[Any]] = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *titles]]
    worth = [board.out_of[number] for number in board.sets]
    lines.append(["    Points Possible", "", "", "", "", *worth])
    for person in board.people:
        login = person.email or person.learner
        lines.append(
            [person.name or person.learner, "", person.id, login, ""] + board.scores(person)
        )
    return _csv(lines)


def moodle(grades: Iterable[Graded], roster: Sequence[Person] = ()) -> str:
    """The scores as CSV for Moodle: Grades, Import, CSV file.

    The first column says who it is, the "Map from" of the import: `Email address` if everybody on
    the roster has one of their own, else `ID number` if everybody has that, else `Username`, the
    name of the folder. It is one for all, because Moodle gives a line without an identity to the
    person of the line before, and imports nothing at all if it does not know somebody: learners who
    are not on the roster are left out, see `not_on_roster`.

    Then comes one column a set. Map it to a grade item with the set's points as its maximum: one
    that the import makes is worth 100. No score is written ``-``, as Moodle does: it takes an empty
    cell of a new grade item for 0.

    Parameters
    ----------
    grades, roster
        As of `as_csv`; without a roster everybody is there, by the name of the folder.

    Notes
    -----
    Source: Moodle's documentation, "Grade import", and what it does (moodle,
    grade/import/csv/classes/load_data.php).
    """
    board = _Board(list(grades), roster)
    people = [person for person in board.people if not roster or board.is_on_roster(person)]
    column, identity = _identity(people)
    lines: list[list[Any]] = [[column, *(_title(number) for number in board.sets)]]
    for person in people:
        lines.append([identity(person), *board.scores(person)])
    return _csv(lines, none="-")


def not_on_roster(grades: Iterable[Graded], roster: Sequence[Person]) -> list[str]:
    """The learners who have a grade and no line of the roster, by the names of their folders."""
    known = {person.learner for person in roster}
    return sorted({graded.learner for graded in grades} - known)


# -- the board ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Board:
    """Who has which score."""

    grades: list[Graded]
    roster: Sequence[Person]

    @cached_property
    def _by_place(self) -> dict[tuple[str, int], Graded]:
        return {(graded.learner, graded.lesson): graded for graded in self.grades}

    @cached_property
    def sets(self) -> list[int]:
        return sorted({graded.lesson for graded in self.grades})

    @cached_property
    def people(self) -> list[Person]:
        return [*self.roster, *map(Person, not_on_roster(self.grades, self.roster))]

    @cached_property
    def out_of(self) -> dict[int, float | None]:
        """What each set is worth, where one of its submissions could be graded."""
        return {
            number: max(
                (one.out_of for one in self.grades if one.lesson == number and one.is_graded),
                default=None,
            )
            for number in self.sets
        }

    @cached_property
    def out_of_all(self) -> float:
        return sum(worth for worth in self.out_of.values() if worth is not None)

    def is_on_roster(self, person: Person) -> bool:
        return person in self.roster

    def graded(self, person: Person, number: int) -> Graded | None:
        return self._by_place.get((person.learner, number))

    def scores(self, person: Person) -> list[float | None]:
        """One a set, None where there is none."""
        its = [self.graded(person, number) for number in self.sets]
        return [one.points if one is not None and one.is_graded else None for one in its]

    def total(self, person: Person) -> float | None:
        """The sum of the scores of somebody who has one."""
        scores = [score for score in self.scores(person) if score is not None]
        return sum(scores) if scores else None

    def fault(self, person: Person, number: int) -> str:
        """Why what was handed in has no score; empty where there is one, or nothing."""
        graded = self.graded(person, number)
        return "" if graded is None or graded.is_graded else _reason(graded)

    def note(self, person: Person) -> str:
        faults = {plan.lesson(number).name: self.fault(person, number) for number in self.sets}
        notes = [f"{name} could not be graded: {fault}" for name, fault in faults.items() if fault]
        if self.roster and not self.is_on_roster(person):
            notes.append("not on the roster")
        return "; ".join(notes)


def _reason(graded: Graded) -> str:
    """Why there is no grade."""
    return next(row.cause for row in graded.rows if not row.exercise) or "no reason is known"


def _learner(board: _Board, person: Person) -> dict[str, Any]:
    return {
        "learner": person.learner,
        "name": person.name,
        "id": person.id,
        "email": person.email,
        "points": board.total(person),
        "out_of": board.out_of_all,
        "note": board.note(person),
        "sets": {
            plan.lesson(number).name: _handed_in(graded)
            for number in board.sets
            if (graded := board.graded(person, number)) is not None
        },
    }


def _handed_in(graded: Graded) -> dict[str, Any]:
    if not graded.is_graded:
        return {"points": None, "note": _reason(graded), "digest": graded.digest}
    exercises = {
        row.exercise: {
            "points": row.points,
            "out_of": row.out_of,
            "verdict": row.verdict,
            "cause": row.cause,
        }
        for row in graded.rows
    }
    points = {"points": graded.points, "out_of": graded.out_of}
    return points | {"digest": graded.digest, "exercises": exercises}


# -- files ----------------------------------------------------------------------------------


def _title(number: int) -> str:
    return f"{number:02d} {plan.lesson(number).title}"


def _identity(people: Sequence[Person]) -> tuple[str, Callable[[Person], str]]:
    """A column that tells all these people apart, by Moodle's name of it."""
    columns: dict[str, Callable[[Person], str]] = {
        "Email address": lambda person: person.email,
        "ID number": lambda person: person.id,
    }
    for name, identity in columns.items():
        values = [identity(person) for person in people]
        if all(values) and len(set(values)) == len(values) > 0:
            return name, identity
    return "Username", lambda person: person.learner


def _csv(lines: Iterable[Sequence[Any]], none: str = "") -> str:
    """Lines as CSV, with nothing in them that a spreadsheet would run; `none` stands for None."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(
        [none if cell is None else as_cell(_plain(cell)) for cell in line] for line in lines
    )
    return buffer.getvalue()


def _plain(cell: Any) -> Any:
    return plain(cell, MOST_LETTERS) if isinstance(cell, str) else cell
