"""`python -m minitorch_attn compare`: every mechanism of the course under one roof."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ..command_line import count, count_or_0
from ..engine.optional import require
from . import report, sweep
from .backbone import Backbone, place
from .mechanisms import BASELINE, CONTROLS, FAMILY_ROWS, MECHANISMS, ROWS, Mechanism
from .results import STORED, Comparison, Row, load
from .sweep import Costs, Settings, measure, paired, train

__all__ = [
    "BASELINE",
    "CONTROLS",
    "FAMILY_ROWS",
    "MECHANISMS",
    "ROWS",
    "STORED",
    "Backbone",
    "Comparison",
    "Costs",
    "Mechanism",
    "Row",
    "Settings",
    "add_arguments",
    "load",
    "measure",
    "paired",
    "place",
    "run",
    "train",
]

ROUNDS = 15
FIGURES = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``python -m minitorch_attn compare``."""
    parser.description = (
        "Put every mechanism of the course into one small network, train all of them alike on "
        "cluttered digits, and write accuracy, parameters, multiply-adds, time and memory as a "
        "table, as JSON and as a figure. All of it takes some ten to fifteen minutes on two quiet "
        "cores. Each training is kept as soon as it is done: interrupted, the same command goes on "
        "where it stopped. Times are measured at the end, and anew on each call, so a second call "
        "when the machine is quiet repeats only them."
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="rows whose name contains one of these, whatever the case, and the baseline "
        "(default: all)",
    )
    parser.add_argument(
        "--seeds", type=count, default=5, metavar="N", help="of each row (default %(default)s)"
    )
    parser.add_argument(
        "--epochs",
        type=count,
        default=Settings.epochs,
        metavar="N",
        help="of each training (default %(default)s)",
    )
    parser.add_argument(
        "--images",
        type=count,
        default=Settings.images,
        metavar="N",
        help="scenes to train on (default %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=count,
        default=2,
        metavar="N",
        help="trainings at a time, of one thread each (default %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=count_or_0,
        default=ROUNDS,
        metavar="N",
        help="how often each row is timed; 0 keeps the times that the file has "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("compare.json"),
        metavar="FILE",
        help="where the results are, or go (default %(default)s)",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="a .png, .svg or .pdf (default: beside the results, .png)",
    )
    parser.add_argument(
        "--afresh", action="store_true", help="forget what the file of results holds"
    )


def run(args: argparse.Namespace) -> int:
    """Train what is missing, measure, and write.

    Returns
    -------
    int
        0; 2 if an argument does not fit the rows or the file, or a package is missing.
    """
    figure_file = args.figure or args.json.with_suffix(".png")
    try:
        require("matplotlib", extra="course", purpose="draw the figure")
        require("sklearn", extra="course", purpose="read the digits")
        _check_places(args.json, figure_file)
        names = _chosen(args.only)
        settings = replace(Settings(), epochs=args.epochs, images=args.images)
        comparison = _begun(args, settings)
        _train(comparison, names, args)
        _measure(comparison, names, args)
        comparison.save(args.json)
        print(report.table(comparison))
        report.figure(comparison).savefig(figure_file, dpi=150)
    except (ImportError, OSError, ValueError) as error:
        print(f"python -m minitorch_attn compare: {error}", file=sys.stderr)
        return 2
    print(f"written: {args.json} and {figure_file}")
    return 0


def _check_places(json_file: Path, figure_file: Path) -> None:
    """Say before the trainings what would go wrong behind them."""
    if figure_file.suffix not in FIGURES:
        raise ValueError(f"--figure {figure_file}: its name must end with one of {FIGURES}")
    for folder in (json_file.parent, figure_file.parent):
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}: make it, or name another")


def _chosen(only: list[str]) -> list[str]:
    """Names of the rows that contain one of the texts, behind the baseline's."""
    for text in only:
        if not any(text.lower() in name.lower() for name in ROWS):
            raise ValueError(f"--only {text}: no row has that in its name: {', '.join(ROWS)}")
    wanted = [name for name in ROWS if any(text.lower() in name.lower() for text in only)]
    return list(dict.fromkeys([BASELINE.name, *wanted])) if only else list(ROWS)


def _begun(args: argparse.Namespace, settings: Settings) -> Comparison:
    """What the file holds, if that can be gone on with."""
    if args.afresh or not args.json.exists():
        return Comparison(settings)
    comparison = load(args.json)
    if comparison.settings != settings:
        raise ValueError(
            f"{args.json} was made with {comparison.settings}, and this is {settings}: name "
            "another file by --json, or write over it by --afresh"
        )
    return comparison


def _train(comparison: Comparison, names: list[str], args: argparse.Namespace) -> None:
    tasks = comparison.missing(names, args.seeds)
    print(
        f"{len(names)} rows, {args.seeds} seeds: {len(tasks)} trainings of {args.epochs} epochs, "
        f"{args.workers} at a time",
        flush=True,
    )
    for number, ((name, seed), found) in enumerate(
        sweep.sweep(tasks, comparison.settings, args.workers), 1
    ):
        row = comparison.row(name)
        row.accuracies[seed], row.train_accuracies[seed] = found
        comparison.save(args.json)
        print(f"{number:4} {name}, seed {seed}: {100 * found[0]:.1f} %", flush=True)


def _measure(comparison: Comparison, names: list[str], args: argparse.Namespace) -> None:
    """Costs of the rows; without rounds, times stay what they were."""
    print(f"costs, {args.rounds} rounds of times", flush=True)
    costs, step = sweep.measure_apart(names, comparison.settings, args.rounds)
    for name, found in costs.items():
        row = comparison.row(name)
        if not args.rounds and row.costs is not None:
            before = row.costs
            found = replace(
                found, time=before.time, time_low=before.time_low, time_high=before.time_high
            )
        row.costs = found
    if args.rounds:
        comparison.about["baseline_step_ms"] = round(1000 * step, 2)
