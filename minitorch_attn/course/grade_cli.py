"""`python -m minitorch_attn grade`: grade notebooks from a shell."""

from __future__ import annotations

import argparse
import glob
import sys
from pathlib import Path

from . import plan
from .files import write_atomically
from .grade import Limits, Row, grade
from .grade_tables import as_csv, as_json, as_summary, as_table, totals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``python -m minitorch_attn grade``."""
    parser.description = (
        "Run each notebook in a process of its own and grade its exercises by the same checks that "
        "the learner has, on more cases. Grade only notebooks of people you trust: the process "
        "may do whatever you may. `minitorch-attn class grade` grades behind a wall."
    )
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument(
        "--lesson",
        type=exercise_set,
        metavar="NN",
        help="the exercise set that is expected, as in 13",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a line an exercise, as CSV")
    parser.add_argument(
        "--summary", type=Path, metavar="FILE", help="write a line a notebook, as CSV"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all that, and the messages"
    )
    parser.add_argument(
        "--cases",
        type=_count,
        default=20,
        metavar="N",
        help="cases made from the seed (default 20)",
    )
    parser.add_argument(
        "--seed", type=_count, default=0, metavar="N", help="of the cases that are made (default 0)"
    )
    defaults = Limits()
    for name, help in (
        ("cell", "to run one cell"),
        ("notebook", "to run all cells of a notebook"),
        ("check", "for one check"),
    ):
        default = getattr(defaults, name)
        parser.add_argument(
            f"--{name}-limit",
            type=_seconds,
            default=default,
            metavar="S",
            help=f"seconds {help} (default {default:g})",
        )


def exercise_set(text: str) -> int:
    """Read the number of an exercise set that has checks, for argparse."""
    sets = [lesson.number for lesson in plan.LESSONS if lesson.has_exercises]
    if not (text.isdecimal() and int(text) in sets):
        names = ", ".join(f"{number:02d}" for number in sets)
        raise argparse.ArgumentTypeError(f"there is no exercise set {text!r}; there are {names}")
    return int(text)


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than 0")
    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < seconds <= 1e6:
        raise argparse.ArgumentTypeError(
            f"{seconds:g} s: it must be more than 0 and at most 1000000"
        )
    return seconds


def run(args: argparse.Namespace) -> int:
    """Grade, print the table, write the files.

    Returns
    -------
    int
        0 if every notebook has a grade, whatever it is; 1 if some could not be graded; 2 if the
        files cannot be written; 130 if interrupted.
    """
    notebooks = list(dict.fromkeys(path for given in args.notebooks for path in _matching(given)))
    outputs = [path for path in (args.csv, args.summary, args.json) if path is not None]
    if fault := _fault_of(outputs, notebooks):
        return _refuse(fault)
    rows: list[Row] = []
    try:
        for number, path in enumerate(notebooks, 1):
            _tell_progress(f"{number} of {len(notebooks)}: {path}")
            rows += _grade(path, args)
    except KeyboardInterrupt:
        _tell_progress("")
        if rows:
            print(as_table(rows))
        print(f"interrupted: {_left(outputs)}", file=sys.stderr)
        return 130
    _tell_progress("")
    print(as_table(rows))
    without = [total.notebook for total in totals(rows) if not total.is_graded]
    if without:
        print(f"\n{len(without)} of {len(notebooks)} could not be graded: {', '.join(without)}")
    if len(without) == len(notebooks):
        print(_left(outputs), file=sys.stderr)
        return 1
    # Written at the end, each in one step: until then the old grades are as they were.
    try:
        _write(rows, args)
    except OSError as error:
        return _refuse(f"The grades could not be written: {error}")
    return 1 if without else 0


def _refuse(fault: str) -> int:
    print(fault, file=sys.stderr)
    return 2


def _grade(path: Path, args: argparse.Namespace) -> list[Row]:
    limits = Limits(args.cell_limit, args.notebook_limit, args.check_limit)
    return grade(path, lesson=args.lesson, more=args.cases, seed=args.seed, limits=limits)


def _write(rows: list[Row], args: argparse.Namespace) -> None:
    settings = ("lesson", "seed", "cases", "cell_limit", "notebook_limit", "check_limit")
    if args.csv:
        write_atomically(args.csv, as_csv(rows))
    if args.summary:
        write_atomically(args.summary, as_summary(rows))
    if args.json:
        write_atomically(args.json, as_json(rows, {name: getattr(args, name) for name in settings}))


def _tell_progress(text: str) -> None:
    """Show it on one line that is written over, or as a line of a log."""
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def _left(outputs: list[Path]) -> str:
    """Say of the files that nothing was written."""
    if not outputs:
        return "no grades were written"
    names = " and ".join(map(str, outputs))
    return f"{names} left as {'it was' if len(outputs) == 1 else 'they were'}"


def _fault_of(outputs: list[Path], notebooks: list[Path]) -> str | None:
    """Why the grades must not go to these files, if so: nobody's work may be overwritten."""
    inputs = {path.resolve() for path in notebooks}
    places = [path.resolve() for path in outputs]
    for path, place in zip(outputs, places):
        if path.suffix == ".ipynb":
            return f"{path} is a notebook: grades go to a file of their own, as in --csv grades.csv"
        if place in inputs:
            return f"{path} is one of the notebooks to grade: name another file for the grades."
        if places.count(place) > 1:
            return f"{path} is named for two outputs: each needs a file of its own."
        if place.is_dir():
            return f"{path} cannot be written: it is a folder."
        if not place.parent.is_dir():
            return f"{path} cannot be written: its folder is not there."
    return None


def _matching(path: Path) -> list[Path]:
    """The files a pattern means, where the shell (as on Windows) has left it as it was."""
    return [Path(name) for name in sorted(glob.glob(str(path)))] or [path]
