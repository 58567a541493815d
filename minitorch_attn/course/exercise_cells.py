"""Cells of an exercise set: their settings in nbgrader's form, and the stub that a learner gets.

A source marks its cells shortly, ``exercise="squeeze"`` and ``check="squeeze" points=2``;
notebooks carry nbgrader's metadata (schema 3), so that nbgrader can take the same files.
"""

import re
from typing import Any

from .notebook_source import Cell

CHECK_PREFIX = "check-"
GRADE_ID = re.compile(r"[a-zA-Z0-9_\-]+")
REGIONS = {"SOLUTION": "exercise", "HIDDEN TESTS": "check"}


def nbgrader_metadata(settings: dict[str, Any]) -> dict[str, Any]:
    """Metadata that nbgrader wants for a cell with these short settings ({} for other cells)."""
    if "exercise" in settings:
        return _graded(settings["exercise"], solution=True)
    if "check" in settings:
        return _graded(CHECK_PREFIX + settings["check"], points=settings["points"])
    return {}


def short_settings(nbgrader: dict[str, Any]) -> dict[str, Any]:
    """Inverse of `nbgrader_metadata`."""
    if nbgrader.get("solution"):
        return {"exercise": nbgrader["grade_id"]}
    if nbgrader.get("grade"):
        check = nbgrader["grade_id"].removeprefix(CHECK_PREFIX)
        return {"check": check, "points": nbgrader["points"]}
    return {}


def _graded(grade_id: str, solution: bool = False, points: float | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "grade": points is not None,
        "grade_id": grade_id,
        "locked": points is not None,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return metadata if points is None else metadata | {"points": points}


def problem(cell: Cell, seen: set[str]) -> str | None:
    """Say what is wrong with a cell of an exercise set, if anything; `seen` gathers the ids."""
    settings = cell.metadata
    kind = next((name for name in ("exercise", "check") if name in settings), None)
    if kind:
        name = settings[kind]
        if cell.cell_type != "code":
            return f"{kind} {name!r} is not a code cell."
        if not isinstance(name, str) or not GRADE_ID.fullmatch(name):
            return f"{kind} {name!r}: an id has letters, digits, - and _ only."
        if f"{kind} {name}" in seen:
            return f"there is a {kind} {name!r} already."
        seen.add(f"{kind} {name}")
    if kind == "exercise" and "### BEGIN SOLUTION" not in cell.source:
        return f"exercise {settings[kind]!r} has no ### BEGIN SOLUTION."
    if (kind == "check") != ("points" in settings):
        return 'check and points go together: check="name" points=2.'
    for region, owner in REGIONS.items():
        marks = re.findall(rf"### (BEGIN|END) {region}", cell.source)
        if marks and kind != owner:
            return f"### BEGIN {region} stands in a cell that is not marked {owner}=..."
        if marks != ["BEGIN", "END"] * (len(marks) // 2):
            return f"each ### BEGIN {region} needs its ### END {region}."
    return None


def stub(cell: Cell) -> str:
    """Source of a cell as the learner gets it: no solution, no hidden tests."""
    name = cell.metadata.get("exercise")
    todo = ["# YOUR CODE HERE", f'raise NotImplementedError("{name}: not written yet")']
    source = _replace_regions(cell.source, "SOLUTION", todo)
    return _replace_regions(source, "HIDDEN TESTS", [])


def _replace_regions(source: str, region: str, lines: list[str]) -> str:
    """Put `lines`, indented as the region is, in the place of each marked region."""

    def replacement(match: re.Match) -> str:
        return "".join(f"{match['indent']}{line}\n" for line in lines)

    pattern = rf"(?m)^(?P<indent> *)### BEGIN {region}\n(?:.*\n)*? *### END {region}\n"
    return re.sub(pattern, replacement, source + "\n").rstrip("\n")
