"""`minitorch-attn class`: a class from the first hand-out to the list of scores."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..command_line import count
from ..course import plan
from ..course.files import write_atomically
from ..course.grade_cli import exercise_set
from ..engine.optional import require
from . import feedback, likeness, overview, scores
from .cluster import BadCluster, graded_on
from .collect import collect
from .folder import BadClass, ClassFolder
from .grading import graded_here
from .jobs import Job, Terms, digest_of
from .journal import Busy, Journal
from .records import BadRoster, Graded
from .wall import WAYS, NoWall, choose


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``minitorch-attn class``."""
    parser.description = (
        "Hand exercise sets out, collect them, grade them behind a wall, give feedback and export "
        "scores. docs/classroom.md walks through it."
    )
    steps = parser.add_subparsers(metavar="STEP", required=True)

    step = _step(steps, "create", _create, "make the folder of a new class")
    step.add_argument("folder", type=Path)
    step.add_argument("--title", default="", help="as it stands above feedback")

    step = _step(steps, "release", _release, "put exercise sets where you hand them out from")
    step.add_argument(
        "sets", nargs="+", type=exercise_set, metavar="NN", help="exercise sets, as in 13"
    )

    step = _step(steps, "collect", _collect, "bring in what was handed in")
    step.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help="zip archives or folders"
    )
    step.add_argument(
        "--set", type=exercise_set, metavar="NN", help="leave out what is of another set"
    )

    step = _step(steps, "grade", _grade, "grade what is new or changed")
    _add_sets(step)
    step.add_argument(
        "--processes", type=count, default=os.cpu_count() or 1, metavar="N", help="at once"
    )
    step.add_argument(
        "--scheduler", metavar="ADDRESS", help="grade on a Dask cluster, as in tcp://host:8786"
    )
    step.add_argument("--wall", choices=WAYS, help="the wall to use; the first that holds if not")
    step.add_argument(
        "--trust",
        action="store_true",
        help="without a wall: every submission may do whatever you may",
    )
    step.add_argument("--again", action="store_true", help="grade everything again")

    step = _step(steps, "feedback", _feedback, "write a page for each learner")
    _add_sets(step)
    step = _step(steps, "export", _export, "write the list of scores, and pictures of the class")
    _add_sets(step)
    step = _step(steps, "compare", _compare, "point out submissions that are much alike")
    _add_sets(step)


def _step(steps: Any, name: str, action: Any, help: str) -> argparse.ArgumentParser:
    step = steps.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    step.set_defaults(step=action)
    if name != "create":
        step.add_argument(
            "--folder", type=Path, default=Path(), help="the class; this folder if left out"
        )
    return step


def _add_sets(step: argparse.ArgumentParser) -> None:
    step.add_argument(
        "sets", nargs="*", type=exercise_set, metavar="NN", help="exercise sets; all if left out"
    )


def run(args: argparse.Namespace) -> int:
    """Do a step of the work.

    Returns
    -------
    int
        0 if all is well; 1 if something was left out or could not be graded; 2 if nothing could be
        done, with the reason on standard error; 130 if interrupted.
    """
    try:
        return args.step(args)
    except KeyboardInterrupt:
        print("Stopped. What is done is kept; the same command goes on.", file=sys.stderr)
        return 130
    except (BadClass, BadCluster, BadRoster, Busy, NoWall, ImportError) as error:
        print(f"{error}.".replace("..", "."), file=sys.stderr)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"{place}{error.strerror or error}", file=sys.stderr)
    return 2


# -- the steps ------------------------------------------------------------------------------


def _create(args: argparse.Namespace) -> int:
    ClassFolder.create(args.folder, args.title or args.folder.resolve().name)
    print(f"{args.folder} is ready. Its class.toml holds the secret seed: keep it to yourself.")
    print(f"Next: cd {shlex.quote(str(args.folder))}; minitorch-attn class release 00")
    return 0


def _release(args: argparse.Namespace) -> int:
    folder = ClassFolder.open(args.folder)
    for number in args.sets:
        print(folder.release(number))
    return 0


def _collect(args: argparse.Namespace) -> int:
    folder = ClassFolder.open(args.folder)
    verdicts: Counter[str] = Counter()
    for source in args.sources:
        before = verdicts.total()
        try:
            for outcome in collect(folder, source, args.set):
                verdicts[outcome.verdict] += 1
                if outcome.verdict in ("changed", "left out"):
                    why = f": {outcome.why}" if outcome.why else ""
                    print(_printable(f"{outcome.verdict}: {outcome.place}{why}"))
            if verdicts.total() == before:
                print(f"{source}: there is no notebook in it", file=sys.stderr)
                verdicts["left out"] += 1
        except zipfile.BadZipFile as error:
            print(f"{source} is no zip archive that can be read: {error}", file=sys.stderr)
            verdicts["left out"] += 1
    print(", ".join(f"{verdicts[one]} {one}" for one in ("new", "changed", "same", "left out")))
    if people := folder.roster:
        _name_strays(sorted(set(folder.learners) - {one.learner for one in people}))
    return 1 if verdicts["left out"] else 0


def _name_strays(strays: Sequence[str], so: str = "") -> None:
    if strays:
        print(f"not in roster.csv{so}: {', '.join(map(_printable, strays))}")


def _grade(args: argparse.Namespace) -> int:
    folder = ClassFolder.open(args.folder)
    sets = args.sets or folder.sets()
    if not any(folder.submissions(number) for number in sets):
        raise BadClass(
            f"Nothing was handed in for {_names(sets)}: `minitorch-attn class collect SOURCE` "
            "brings in what was"
        )
    wall = None if args.trust else _wall(folder, args)
    if wall is None:
        print("No wall: every submission may do whatever you may.", file=sys.stderr)
    else:
        print(f"The wall in force is {wall}.", file=sys.stderr)
    return max(_grade_set(folder, number, wall, args) for number in sets)


def _wall(folder: ClassFolder, args: argparse.Namespace) -> str:
    """The wall that holds; the one that a cluster is asked for its machines try themselves."""
    if args.wall and args.scheduler:
        return args.wall
    return choose(args.wall, folder.settings.bounds).name


def _grade_set(folder: ClassFolder, number: int, wall: str | None, args: Any) -> int:
    terms = _terms(folder, number, wall)
    digest = terms.digest
    journal = Journal(folder.journal(number))
    submissions = folder.submissions(number)
    with journal.writing() as writer:
        known = {} if args.again else journal.latest()
        jobs = [
            (learner, path)
            for learner, path in submissions.items()
            if not _is_done(known.get(learner), path, digest)
        ]
        with _progress(f"{number:02d}", len(jobs)) as advance:

            def on_done(graded: Graded) -> None:
                writer.add(graded)
                advance(graded)

            waiting = (
                Job(learner, path.name, path.read_bytes(), terms, digest) for learner, path in jobs
            )
            if args.scheduler:
                graded_on(args.scheduler, waiting, on_done)
            else:
                graded_here(waiting, args.processes, on_done)
    latest = [one for learner, one in journal.latest().items() if learner in submissions]
    without = [one for one in latest if not one.is_graded]
    print(
        f"{plan.lesson(number).name}: {len(jobs)} graded now, {len(submissions) - len(jobs)} "
        f"before, {len(without)} could not be graded"
    )
    for one in without:
        print(_printable(f"  {one.learner}: {one.rows[0].cause}"))
    return 1 if without else 0


def _terms(folder: ClassFolder, number: int, wall: str | None) -> Terms:
    own = folder.settings
    return Terms(number, own.seed, own.cases, own.limits, own.bounds, wall)


def _is_done(known: Graded | None, path: Path, terms_digest: str) -> bool:
    if known is None or known.terms != terms_digest:
        return False
    return known.digest == digest_of(path.read_bytes())


@contextlib.contextmanager
def _progress(name: str, total: int) -> Iterator[Any]:
    tqdm = require("tqdm", extra="course", purpose="show how far grading has come")
    with tqdm.tqdm(total=total, desc=name, unit="submission", disable=not total) as bar:

        def advance(graded: Graded) -> None:
            bar.set_postfix_str(_printable(graded.learner)[:20], refresh=False)
            bar.update()

        yield advance


def _feedback(args: argparse.Namespace) -> int:
    folder = ClassFolder.open(args.folder)
    people = {one.learner: one for one in folder.roster}
    title = folder.settings.title
    grades = _grades(folder, args.sets)
    for graded in grades:
        for suffix, text in (
            (".txt", feedback.feedback_text(graded, people.get(graded.learner), title)),
            (".html", feedback.feedback_html(graded, people.get(graded.learner), title)),
        ):
            path = folder.feedback(graded.learner, graded.lesson, suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
    print(f"{len(grades)} pages in {folder.root / 'feedback'}")
    return 0


def _export(args: argparse.Namespace) -> int:
    folder = ClassFolder.open(args.folder)
    grades, roster = _grades(folder, args.sets), folder.roster
    for name, write in (
        ("scores.csv", scores.as_csv),
        ("scores.json", scores.as_json),
        ("canvas.csv", scores.canvas),
        ("moodle.csv", scores.moodle),
    ):
        write_atomically(folder.root / name, write(grades, roster))
        print(folder.root / name)
    if roster:
        _name_strays(scores.not_on_roster(grades, roster), ", and so not in moodle.csv")
    (folder.root / "overview").mkdir(exist_ok=True)
    for number in sorted({one.lesson for one in grades}):
        path = folder.root / "overview" / f"{plan.lesson(number).name}.png"
        its = [one for one in grades if one.lesson == number]
        overview.overview(its, number).savefig(path, dpi=150, bbox_inches="tight")
        print(path)
    return 0


def _compare(args: argparse.Namespace) -> int:
    folder = ClassFolder.open(args.folder)
    print("A hint where to look, not a verdict: people who learn together write alike.")
    for number in args.sets or folder.sets():
        name, submissions = plan.lesson(number).name, folder.submissions(number)
        if len(submissions) < likeness.SMALLEST_CLASS:
            least = likeness.SMALLEST_CLASS
            print(f"{name}: {len(submissions)} handed in; what is usual shows from {least} on")
            continue
        pairs = likeness.alike(submissions, number)
        print(f"{name}: {len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} much alike")
        for pair in pairs:
            print(_printable(f"  {pair}"))
    return 0


def _grades(folder: ClassFolder, sets: Sequence[int]) -> list[Graded]:
    """The grades that count, of those who are still there; says whose are not of today."""
    found, stale = [], []
    sets = sets or folder.sets()
    for number in sets:
        submissions = folder.submissions(number)
        latest = Journal(folder.journal(number)).latest()
        digest = _terms(folder, number, None).digest
        found += [latest[one] for one in submissions if one in latest]
        stale += [
            f"{one} ({number:02d})"
            for one, path in submissions.items()
            if not _is_done(latest.get(one), path, digest)
        ]
    if not found:
        raise BadClass(f"Nothing is graded of {_names(sets)}: `minitorch-attn class grade` does it")
    if stale:
        print(
            _printable(f"not graded since the submission or the terms changed: {', '.join(stale)}"),
            file=sys.stderr,
        )
    return found


def _names(sets: Sequence[int]) -> str:
    return f"set {', '.join(f'{one:02d}' for one in sets)}" if sets else "any set"


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)
