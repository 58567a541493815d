"""The text of a notebook (jupytext's py:percent), what an author edits and a reviewer diffs."""

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..engine.optional import require
from .files import write_atomically

Cell = Any  # nbformat's NotebookNode: cell_type, source, metadata

FORMAT = "py:percent"
MARKER = re.compile(r"# ?%%")
METADATA = ("tags", "exercise", "check", "points")

# The client that runs notebooks can wait for ever on these: they speak on the channel it waits on.
CAN_HANG = re.compile(r"\b(interact|interactive|interactive_output|interact_manual|Output)\(")
NOT_RUN = "nbval-skip"


class SourceError(ValueError):
    """A source that no notebook can be built from: which file, which cell, and why."""


def place(path: Path, index: int) -> str:
    """Where cell `index` of a source stands: ``13_topic.py, line 120 (cell 14)``."""
    lines = path.read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(lines, 1) if MARKER.match(line)]
    line = f", line {starts[index]}" if index < len(starts) else ""
    return f"{path}{line} (cell {index + 1})"


def read_source(path: Path) -> list[Cell]:
    """Read the cells of a source, their metadata as it stands there.

    Raises
    ------
    SourceError
        If a cell's metadata is none of `METADATA`, or a cell that is to be run could hang.
    """
    jupytext = require("jupytext", extra="course", purpose="read the source of a notebook")
    cells = jupytext.reads(path.read_text(encoding="utf-8"), fmt=FORMAT).cells
    for index, cell in enumerate(cells):
        cell.metadata.pop("lines_to_next_cell", None)
        unknown = sorted(set(cell.metadata) - set(METADATA))
        if unknown:
            raise SourceError(
                f"{place(path, index)}: a cell has no setting {unknown[0]!r}; "
                f"there are {', '.join(METADATA)}, and text stands in lines that begin with #."
            )
        if cell.cell_type not in ("code", "markdown"):
            raise SourceError(f"{place(path, index)}: a cell is code or [markdown].")
        runs = cell.cell_type == "code" and NOT_RUN not in cell.metadata.get("tags", [])
        if runs and (call := CAN_HANG.search(cell.source)):
            raise SourceError(
                f"{place(path, index)}: {call.group()[:-1]} can hang when a notebook is run "
                f'without a browser. Draw instead, or mark the cell with tags=["{NOT_RUN}"].'
            )
    return cells


def write_source(path: Path, cells: list[Cell]) -> None:
    """Write cells as a source, in the repository's format. Inverse of `read_source`."""
    purpose = "write the source of a notebook"
    jupytext = require("jupytext", extra="course", purpose=purpose)
    nbformat = require("nbformat", extra="course", purpose=purpose)
    require("ruff", extra="dev", purpose=purpose)
    notebook = nbformat.v4.new_notebook(cells=copy.deepcopy(cells))
    notebook.metadata["jupytext"] = {
        "notebook_metadata_filter": "-all",
        "cell_metadata_filter": "all",
    }
    text = jupytext.writes(notebook, fmt=FORMAT)
    formatted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(path), "-"],
        input=text.encode(),
        capture_output=True,
        check=False,
    )
    # Code that is being written may not parse yet: its words are worth more than its format.
    text = text if formatted.returncode else formatted.stdout.decode()
    write_atomically(path, text)
