"""Read the source of a solved exercise set: the solutions, the stubs made of them, the points.

A learner's notebook needs this at once and with NumPy alone, so it reads the few marks itself;
the builder reads the same text with jupytext.
"""

from __future__ import annotations

import ast
import json
import linecache
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from . import exercise_cells, plan
from .exercise import Exercise
from .files import ROOT

_MARK = re.compile(r"^# ?%%(?P<rest>.*)$")
_SETTING = re.compile(r'(\w+)=("[^"]*"|\[[^\]]*\]|\S+)')
_REGION = re.compile(r"^ *### (BEGIN|END) (SOLUTION|HIDDEN TESTS)\n", re.MULTILINE)


class NoSource(LookupError):
    """The solution's source is not there, or does not have what is looked for."""


@dataclass(frozen=True)
class SourceCell:
    """A cell: its type, text and short settings, under the names that nbformat has for them."""

    cell_type: str
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)


def source_path(number: int) -> Path:
    """Where the solved exercise set of a lesson lies in a checkout."""
    return ROOT / "solutions" / "source" / f"{plan.lesson(number).name}.py"


@cache
def cells_of(path: Path) -> tuple[SourceCell, ...]:
    """The cells of a source.

    Raises
    ------
    NoSource
        If the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise NoSource(
            f"The solutions are read from {path.name} in the folder solutions/source of a checkout "
            "of this course, and it is not there."
        ) from error
    starts = [i for i, line in enumerate(lines) if _MARK.match(line)]
    return tuple(_cell(lines[a:b]) for a, b in zip(starts, [*starts[1:], len(lines)]))


def _cell(lines: list[str]) -> SourceCell:
    rest = _MARK.match(lines[0])["rest"]  # type: ignore[index]
    settings = {key: json.loads(value) for key, value in _SETTING.findall(rest)}
    kind = "markdown" if "[markdown]" in rest or "[md]" in rest else "code"
    return SourceCell(kind, "\n".join(lines[1:]).strip("\n"), settings)


def points(exercise: Exercise) -> float:
    """What the exercise is worth.

    Raises
    ------
    NoSource
        If the source has no such check.
    """
    for cell in cells_of(source_path(exercise.number)):
        if cell.metadata.get("check") == exercise.name:
            return cell.metadata["points"]
    raise NoSource(f'{exercise.id}: no cell is marked check="{exercise.name}" points=...')


def stub(exercise: Exercise) -> str:
    """The exercise's cell as it is handed out."""
    return exercise_cells.stub(_exercise_cell(exercise))


def solution(exercise: Exercise) -> str:
    """The exercise's cell, solved, without the marks."""
    return _REGION.sub("", _exercise_cell(exercise).source + "\n").rstrip("\n")


def define(exercise: Exercise, stubbed: bool = False) -> Any:
    """Run what the solution needs, and return the object that solves the exercise.

    Of the cells above it, exercises are run as they stand, and of the others the imports, functions
    and classes alone: experiments would take their time.

    Parameters
    ----------
    exercise : Exercise
        The exercise to solve.
    stubbed : bool
        Take its stub in place of its solution, with all before it solved.
    """
    namespace: dict[str, Any] = {"__name__": f"solutions_{exercise.number:02d}"}
    target = _exercise_cell(exercise)
    for cell in cells_of(source_path(exercise.number)):
        source = exercise_cells.stub(cell) if stubbed and cell is target else cell.source
        if cell.cell_type == "code":
            title = f"<solution {exercise.number:02d}.{cell.metadata.get('exercise', '')}>"
            _run(source, title, namespace, whole="exercise" in cell.metadata)
        if cell is target:
            break
    try:
        return namespace[exercise.name]
    except KeyError:
        raise NoSource(f"{exercise.id}: its cell defines no `{exercise.name}`") from None


def _exercise_cell(exercise: Exercise) -> SourceCell:
    for cell in cells_of(source_path(exercise.number)):
        if cell.metadata.get("exercise") == exercise.name:
            return cell
    raise NoSource(f'{exercise.id}: no cell is marked exercise="{exercise.name}"')


_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def _run(source: str, title: str, namespace: dict[str, Any], whole: bool) -> None:
    tree = ast.parse(source)
    if not whole:
        tree.body = [node for node in tree.body if isinstance(node, _DEFINITIONS)]
    linecache.cache[title] = (len(source), None, source.splitlines(True), title)
    exec(compile(tree, title, "exec"), namespace)
