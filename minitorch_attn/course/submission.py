"""A notebook that was handed in: its code cells, and the exercise set it belongs to."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import plan
from .exercise import exercises
from .exercise_cells import CHECK_PREFIX

#: A larger notebook, or one of more code cells, is no answer to an exercise set.
MOST_BYTES = 32 * 2**20
MOST_CELLS = 1000


class BadNotebook(ValueError):
    """A file that cannot be graded; the message says what it is and how to mend it."""


@dataclass(frozen=True)
class Cell:
    """A code cell.

    Attributes
    ----------
    source : str
        Its text.
    mark : str
        nbgrader's ``grade_id``; empty where there is none.
    """

    source: str
    mark: str = ""

    @property
    def defines(self) -> list[str]:
        """The functions and classes defined at the left margin, and the names set there."""
        return [first or second for first, second in _DEFINITION.findall(self.source)]

    @property
    def checks(self) -> list[int]:
        """The sets of the exercises that it checks."""
        return [int(number) for number in _CHECK_CALL.findall(self.source)]

    def is_of(self, name: str) -> bool:
        """Whether it is the place of an exercise: by its mark, or by what it defines."""
        return name == self.mark or name in self.defines


_DEFINITION = re.compile(r"(?m)^(?:(?:async )?(?:def|class)\s+(\w+)|(\w+)\s*=(?!=))")
_CHECK_CALL = re.compile(r"""\bcheck\(\s*["'](\d\d)\.""")


@dataclass(frozen=True)
class Submission:
    """A notebook's exercise set, by its number, and its code cells."""

    number: int
    cells: list[Cell]


def read_submission(path: Path, lesson: int | None = None) -> Submission:
    """Read a notebook.

    Parameters
    ----------
    path : Path
        A notebook of an exercise set, anywhere on disk.
    lesson : int, optional
        The set that is expected: a notebook that belongs to no other is taken as one of it.

    Raises
    ------
    BadNotebook
        If it cannot be read, or belongs to no set that has checks, or to another than expected.
    """
    cells = _code_cells(_content(path))
    number = _set_of(path, cells)
    if number is None and lesson is None:
        raise BadNotebook(
            "belongs to no exercise set: none of its checks, marks or definitions is of one, and "
            "it is not named NN_...; --lesson NN says which set it is"
        )
    if lesson is not None and number not in (None, lesson):
        raise BadNotebook(f"is set {number:02d}, expected {lesson:02d}")
    return Submission(number if lesson is None else lesson, cells)  # type: ignore[arg-type]


def _content(path: Path) -> Any:
    """What is in the file, as JSON."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadNotebook(f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(data) > MOST_BYTES:
        raise BadNotebook(
            f"has more than {MOST_BYTES // 2**20} MiB: clear its outputs, and hand it in again"
        )
    if not data.strip():
        raise BadNotebook("is empty: ask for it to be saved and handed in again")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:2]:
        raise BadNotebook("is written in UTF-16: save it as UTF-8 in a text editor")
    if data.lstrip().startswith(b"<"):
        raise BadNotebook("is a web page: download the notebook itself (on GitHub: Raw)")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadNotebook("is not text in UTF-8: save it as UTF-8 in a text editor") from error
    except json.JSONDecodeError as error:
        raise BadNotebook(
            f"is cut off or damaged: its JSON breaks at line {error.lineno}, column {error.colno} "
            f"({error.msg}); ask for it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadNotebook("is not a notebook: its JSON is too deep or too large to read") from error


def _code_cells(content: Any) -> list[Cell]:
    if isinstance(content, dict) and (
        content.get("nbformat") in (1, 2, 3) or "worksheets" in content
    ):
        raise BadNotebook(
            "is a notebook of format 3: open it in Jupyter and save it, or run "
            "jupyter nbconvert --to notebook --inplace on it"
        )
    try:
        cells = [_code_cell(cell) for cell in content["cells"] if cell["cell_type"] == "code"]
    except (LookupError, TypeError, AttributeError) as error:
        raise BadNotebook("is not a notebook (format 4)") from error
    if len(cells) > MOST_CELLS:
        raise BadNotebook(f"has {len(cells)} code cells: at most {MOST_CELLS} are run")
    return cells


def _code_cell(cell: dict[str, Any]) -> Cell:
    marks = cell.get("metadata", {}).get("nbgrader", {})
    return Cell("".join(cell["source"]), str(marks.get("grade_id", "")))


def _set_of(path: Path, cells: list[Cell]) -> int | None:
    """The exercise set of a notebook: by its checks, its marks, its file name, what it defines."""
    known = [lesson.number for lesson in plan.LESSONS if lesson.has_exercises]
    checks = Counter(number for cell in cells for number in cell.checks)
    clues = (
        [number for number, _ in checks.most_common()],
        _sets_with(known, (cell.mark.removeprefix(CHECK_PREFIX) for cell in cells)),
        map(int, re.findall(r"(?<!\d)\d\d(?=_)", path.stem)),
        _sets_with(known, (name for cell in cells for name in cell.defines)),
    )
    return next((number for clue in clues for number in clue if number in known), None)


def _sets_with(known: list[int], names: Iterable[str]) -> list[int]:
    """The set that has most of these names; none if no set or no single one has."""
    present = set(names)
    hits = Counter({n: sum(one.name in present for one in exercises(n)) for n in known})
    first, second = [*hits.most_common(2), (-1, 0), (-1, 0)][:2]
    return [first[0]] if first[1] > second[1] else []
