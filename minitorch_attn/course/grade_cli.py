"""`python -m minitorch_attn grade`: grade notebooks from a shell."""

from __future__ import annotations

import argparse
import glob
import sys
from pathlib import Path

from .files import write_atomically
from .grade import Limits, Row, as_csv, as_json, as_table, grade


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``python -m minitorch_attn grade``."""
    parser.description = (
        "Run each notebook in a process of its own and grade its exercises by the same checks that "
        "the learner has, on more cases. Grade only notebooks of people you trust: the process "
        "may do whatever you may."
    )
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the grades as CSV")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write grades and messages")
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
    """Grade, print the table, write the files; 0 whatever the grades are, 2 if a file cannot be."""
    notebooks = [path for given in args.notebooks for path in _matching(given)]
    outputs = [path for path in (args.csv, args.json) if path is not None]
    if fault := _fault_of(outputs, notebooks):
        print(fault, file=sys.stderr)
        return 2
    limits = Limits(args.cell_limit, args.notebook_limit, args.check_limit)
    rows: list[Row] = []
    for number, path in enumerate(notebooks, 1):
        if sys.stderr.isatty():
            print(f"\r{number} of {len(notebooks)}: {path}\033[K", end="", file=sys.stderr)
        rows += grade(path, more=args.cases, seed=args.seed, limits=limits)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(as_table(rows))
    # Written at the end and in one step: an interrupted run leaves the old grades as they were.
    try:
        if args.csv:
            write_atomically(args.csv, as_csv(rows))
        if args.json:
            write_atomically(args.json, as_json(rows, {"seed": args.seed, "cases": args.cases}))
    except OSError as error:
        print(f"The grades could not be written: {error}", file=sys.stderr)
        return 2
    return 0


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
