"""The builder: from the text of lessons and exercise sets to notebooks that have been run.

    notebooks/source/NN_topic.py  ->  notebooks/NN_topic.ipynb   the lesson, with its outputs
    solutions/source/NN_topic.py  ->  solutions/NN_topic.ipynb   the exercise set, solved and run
                                  ->  exercises/NN_topic.ipynb   the exercise set as handed out

The same text gives the same bytes. A notebook is run again only where its code has changed, or, of
a solved set, its checks.
"""

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ..engine.optional import require
from . import exercise_cells
from .files import ROOT, write_atomically
from .notebook_run import Notebook, RunError, normalise, run_notebook
from .notebook_source import NOT_RUN, Cell, SourceError, place, read_source, write_source

COMMAND = "python -m minitorch_attn build"

METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}


class State(Enum):
    """How a notebook stands to its source; the value says it to the author."""

    IN_STEP = "in step"
    MISSING = "has not been built"
    STALE = "its source changed since it was built"
    EDITED = "was edited since it was built"
    BOTH_CHANGED = "was edited since it was built, and so was its source"
    NOT_RUN = "has outputs that are not those of its code and checks, run once from top to bottom"
    OTHER_FORM = "has the same cells, but other bytes than the builder writes"


@dataclass(frozen=True)
class Target:
    """A notebook and the text that it is built from."""

    source: Path
    path: Path

    @property
    def folder(self) -> str:
        """Which of the three it is: notebooks, solutions or exercises."""
        return self.path.parent.name

    @property
    def checks(self) -> Path:
        """The check file of an exercise set; it need not be there."""
        root = self.source.parents[2]
        return root / "minitorch_attn" / "course" / "checks" / self.source.name

    @property
    def is_run(self) -> bool:
        """Whether the notebook is stored with its outputs."""
        return self.folder != "exercises"

    def __str__(self) -> str:
        return f"{self.folder}/{self.path.name}"


def targets(root: Path, names: Sequence[str] = ()) -> list[Target]:
    """List what is built under `root`: all of it, or what `names` (``13``, ``13_topic``) mean."""
    found = []
    for folder, built in (("notebooks", ["notebooks"]), ("solutions", ["solutions", "exercises"])):
        for source in sorted((root / folder / "source").glob("*.py")):
            found += [Target(source, root / b / f"{source.stem}.ipynb") for b in built]
    wanted = [Path(name).stem for name in names]
    for name in wanted:
        if not any(_means(name, target) for target in found):
            known = sorted({target.source.stem for target in found})
            raise SourceError(f"No source is called {name!r}. There are: {', '.join(known)}.")
    return [t for t in found if not wanted or any(_means(name, t) for name in wanted)]


def _means(name: str, target: Target) -> bool:
    return name in (target.source.stem, target.source.stem.partition("_")[0])


# ---------------------------------------------------------------- from text to notebook


def generate(target: Target) -> Notebook:
    """Make the notebook that a source means, without outputs."""
    cells = read_source(target.source)
    seen: set[str] = set()
    for index, cell in enumerate(cells):
        wrong = exercise_cells.problem(cell, seen)
        if target.folder == "notebooks" and set(cell.metadata) - {"tags"}:
            wrong = "a lesson has no exercises and no checks: they stand in solutions/source."
        if wrong:
            raise SourceError(f"{place(target.source, index)}: {wrong}")
    return _notebook(cells, target)


def _notebook(cells: list[Cell], target: Target) -> Notebook:
    nbformat = require("nbformat", extra="course", purpose="build a notebook")
    ids = _ids(cells, target.source.stem)
    new_cell = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
    built = []
    answers = _answers(cells)
    for index, (cell, cell_id) in enumerate(zip(cells, ids)):
        nbgrader = exercise_cells.nbgrader_metadata(cell.metadata)
        source = cell.source
        if target.folder == "exercises":
            source = exercise_cells.stub(cell)
            nbgrader |= {"cell_type": cell.cell_type} if nbgrader else {}
        metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        metadata |= {"nbgrader": nbgrader} if nbgrader else {}
        metadata |= _FOLDED if index in answers else {}
        built.append(new_cell[cell.cell_type](source=source, id=cell_id, metadata=metadata))
    notebook = nbformat.v4.new_notebook(cells=built, metadata=METADATA)
    notebook.metadata["minitorch_attn"] = {"cells": fingerprint(built)}
    if target.is_run:
        notebook.metadata["minitorch_attn"]["ran"] = run_digest(notebook, target)
    return notebook


#: What JupyterLab keeps with a cell whose outputs are folded away, to be opened by a click.
_FOLDED = {"jupyter": {"outputs_hidden": True}}
_HEADING = re.compile(r"^##? (.+)$", re.MULTILINE)


def _answers(cells: list[Cell]) -> set[int]:
    """Indices of the code cells whose outputs a reader is to predict before they are seen."""
    found, heading = set(), ""
    for index, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            heading = [heading, *_HEADING.findall(cell.source)][-1]
        elif heading == "Predict before you run":
            found.add(index)
    return found


def _ids(cells: list[Cell], stem: str) -> list[str]:
    """Id of each cell: by its name if it has one, else by its text.

    Neither a cell put in before it nor, for a named cell, a change of its text gives it a new id.
    """
    times: Counter[str] = Counter()
    ids = []
    for cell in cells:
        settings = exercise_cells.nbgrader_metadata(cell.metadata)
        key = settings.get("grade_id") or f"{cell.cell_type}\n{cell.source}"
        times[key] += 1
        ids.append(_digest(f"{stem}\n{key}\n{times[key]}")[:8])
    return ids


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(cells: list[Cell]) -> str:
    """Digest of what an author writes: text, tags and nbgrader's settings, nothing else."""
    written = [
        [cell.cell_type, cell.source, cell.metadata.get("tags"), cell.metadata.get("nbgrader")]
        for cell in cells
    ]
    return _digest(json.dumps(written, sort_keys=True))[:16]


def read(path: Path) -> Notebook:
    """Read a notebook file."""
    nbformat = require("nbformat", extra="course", purpose="read a notebook")
    try:
        return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except ValueError:
        wrong = "is not a notebook (marks of a merge?): remove it and build it again."
        raise SourceError(f"{path} {wrong}") from None


def text_of(notebook: Notebook) -> str:
    """Bytes of a notebook file, as text: sorted keys, no timestamps, a newline at the end."""
    nbformat = require("nbformat", extra="course", purpose="write a notebook")
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


# ---------------------------------------------------------------- outputs


def code_cells(notebook: Notebook) -> list[Cell]:
    """List the cells of a notebook that are run."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and NOT_RUN not in cell.metadata.get("tags", [])
    ]


def run_digest(notebook: Notebook, target: Target) -> str:
    """Digest of what a notebook's outputs come from: its code and, of a solved set, its checks."""
    parts = [cell.source for cell in code_cells(notebook)]
    if target.folder == "solutions" and target.checks.exists():
        parts.append(target.checks.read_text(encoding="utf-8"))
    return _digest(json.dumps(parts))[:16]


def was_run(notebook: Notebook, target: Target) -> bool:
    """Whether the outputs are the builder's own: every cell run once, in order, as it stands."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    ran = notebook.metadata.get("minitorch_attn", {}).get("ran")
    return counts == list(range(1, len(counts) + 1)) and ran == run_digest(notebook, target)


def keep_outputs(new: Notebook, old: Notebook, target: Target) -> bool:
    """Give `new` the outputs of `old` if the same code made them; say whether it did."""
    if run_digest(new, target) != run_digest(old, target) or not was_run(old, target):
        return False
    for cell, same in zip(code_cells(new), code_cells(old)):
        cell.outputs, cell.execution_count = same.outputs, same.execution_count
    normalise(new)
    return True


# ---------------------------------------------------------------- in step or not


def state(target: Target) -> State:
    """Say how a notebook stands to its source."""
    new = generate(target)
    if not target.path.exists():
        return State.MISSING
    old = read(target.path)
    here, built = fingerprint(old.cells), old.metadata.get("minitorch_attn", {}).get("cells")
    wanted = fingerprint(new.cells)
    if here != wanted:
        if here == built:
            return State.STALE
        return State.EDITED if built == wanted else State.BOTH_CHANGED
    if target.is_run and not keep_outputs(new, old, target):
        return State.NOT_RUN
    in_form = target.path.read_text(encoding="utf-8") == text_of(new)
    return State.IN_STEP if in_form else State.OTHER_FORM


def strangers(root: Path) -> list[Path]:
    """Notebooks that no source stands behind."""
    known = {target.path for target in targets(root)}
    folders = ("notebooks", "solutions", "exercises")
    return [p for f in folders for p in sorted((root / f).glob("*.ipynb")) if p not in known]


def first_difference(target: Target) -> str:
    """Where a notebook and its source part."""
    pairs = zip(read(target.path).cells, generate(target).cells)
    for index, (old, new) in enumerate(pairs):
        if fingerprint([old]) != fingerprint([new]):
            return place(target.source, index)
    return "one of them has more cells"


# ---------------------------------------------------------------- the command


def build(target: Target, *, run_again: bool, overwrite: bool, limit: float) -> str:
    """Bring one notebook in step with its source; return what was done, in a few words."""
    before = state(target)
    edited = before in (State.EDITED, State.BOTH_CHANGED)
    if edited and not overwrite:
        raise SourceError(f"{target} {before.value}. {mending(target, before)}")
    if before is State.IN_STEP and not (run_again and target.is_run):
        return "in step"
    new = generate(target)
    done = "written"
    if target.is_run:
        old = read(target.path) if target.path.exists() and not run_again else None
        kept = old is not None and keep_outputs(new, old, target)
        done = "written, outputs kept" if kept else f"run in {_run(new, target, limit):.1f} s"
    target.path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target.path, text_of(new))
    return done


def _run(notebook: Notebook, target: Target, limit: float) -> float:
    written = dict(notebook.metadata)
    target.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        seconds = run_notebook(notebook, target.path.parent, limit)
    except RunError as error:
        raise SourceError(f"{place(target.source, error.index)}: {error}") from None
    notebook.metadata.clear()
    notebook.metadata.update(written)  # running adds the version of this Python
    return seconds


def sync(target: Target) -> None:
    """Write the source anew from a notebook that was edited by hand."""
    cells = read(target.path).cells
    for cell in cells:
        settings = exercise_cells.short_settings(cell.metadata.get("nbgrader", {}))
        tags = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        cell.metadata = type(cell.metadata)(settings | tags)
    write_source(target.source, cells)


def mending(target: Target, found: State) -> str:
    """How to bring a notebook in step again."""
    name = target.source.stem
    if found not in (State.EDITED, State.BOTH_CHANGED):
        return f"Build it: {COMMAND} {name}"
    drop = f"or drop the notebook's edits: {COMMAND} {name} --overwrite"
    if target.folder == "exercises":
        return f"Edit {target.source.name} in solutions/source instead, {drop}"
    also = " (the source's own edits are lost)" if found is State.BOTH_CHANGED else ""
    return f"Take the notebook's edits into its source: {COMMAND} {name} --sync{also}, {drop}"


def check(root: Path, wanted: list[Target]) -> list[str]:
    """Say what is out of step, and how to mend it."""
    complaints = []
    for target in wanted:
        found = state(target)
        if found is State.IN_STEP:
            continue
        where = ""
        if found in (State.STALE, State.EDITED, State.BOTH_CHANGED):
            where = f"\n    first difference: {first_difference(target)}"
        complaints.append(f"{target} {found.value}{where}\n    {mending(target, found)}")
    return complaints + [
        f"{path.parent.name}/{path.name} has no source\n    Write its source, or remove it"
        for path in strangers(root)
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``python -m minitorch_attn build``."""
    parser.description = __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NN", help="13 or 13_topic; default: all")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="build nothing, say what is out of step")
    how.add_argument(
        "--sync",
        action="store_true",
        help="first take edits made in notebooks (in JupyterLab) into their sources",
    )
    how.add_argument(
        "--overwrite", action="store_true", help="drop edits made in notebooks by hand"
    )
    parser.add_argument("--force", action="store_true", help="run even what did not change")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="notebooks run at a time (default 1)"
    )
    parser.add_argument(
        "--limit", type=float, default=120, metavar="S", help="seconds for a notebook (default 120)"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Run the command; 0 if all is in step afterwards, else 1."""
    try:
        wanted = targets(args.root, args.names)
        if not wanted:
            raise SourceError(f"No notebooks/source/*.py and no solutions/source/*.py: {args.root}")
        if args.check:
            return _report(check(args.root, wanted), f"{len(wanted)} notebooks are in step.")
        if args.sync:
            _sync_all(wanted)
    except SourceError as error:
        return _report([str(error)])
    return _report(_build_all(wanted, args))


def _sync_all(wanted: list[Target]) -> None:
    for target in wanted:
        if target.is_run and state(target) in (State.EDITED, State.BOTH_CHANGED):
            sync(target)
            print(f"{target.source.parent.parent.name}/source/{target.source.name} written")


def _build_all(wanted: list[Target], args: argparse.Namespace) -> list[str]:
    complaints = []
    options: dict[str, Any] = {"run_again": args.force, "overwrite": args.overwrite}
    with ThreadPoolExecutor(max(1, args.jobs)) as pool:
        work = {pool.submit(build, t, limit=args.limit, **options): t for t in wanted}
        for future in as_completed(work):
            try:
                print(f"{work[future]} {future.result()}", flush=True)
            except SourceError as error:
                complaints.append(str(error))
    return complaints


def _report(complaints: list[str], all_well: str = "") -> int:
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if not complaints and all_well:
        print(all_well)
    return 1 if complaints else 0
