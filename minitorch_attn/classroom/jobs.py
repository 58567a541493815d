"""One job: grade one submission. It is plain data that any process on any machine can do."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from ..course import plan, solution_source
from ..course.grade import Limits, Room, Row, grade, open_room
from ..course.subject import Launch
from .records import Graded
from .wall import SCRATCH, Bounds, choose


@dataclass(frozen=True)
class Terms:
    """What a set is graded by: the same for everybody.

    Attributes
    ----------
    lesson : int
        The exercise set.
    seed, cases : int
        Of the hidden cases.
    limits : Limits
        Seconds.
    bounds : Bounds
        What a submission may use.
    wall : str or None
        The wall behind which its code runs, see `wall.choose`; None trusts it, without a wall.
    """

    lesson: int
    seed: int
    cases: int
    limits: Limits
    bounds: Bounds
    wall: str | None

    @property
    def digest(self) -> str:
        """SHA-256 of all that a score depends on: these terms, but the wall, and the checks."""
        own = {key: value for key, value in asdict(self).items() if key != "wall"}
        parts = [json.dumps(own, sort_keys=True).encode()]
        for path in (plan.lesson(self.lesson).checks, solution_source.source_path(self.lesson)):
            parts.append(path.read_bytes())
        return digest_of(b"\0".join(parts))


@dataclass(frozen=True)
class Job:
    """A submission to be graded.

    Attributes
    ----------
    learner : str
        Who handed it in.
    notebook : str
        The notebook's file name.
    content : bytes
        What is in it.
    terms : Terms
        What it is graded by.
    terms_digest : str
        `terms.digest`, taken once for all.
    """

    learner: str
    notebook: str
    content: bytes
    terms: Terms
    terms_digest: str

    @property
    def digest(self) -> str:
        """SHA-256 of the notebook."""
        return digest_of(self.content)

    def graded(self, rows: list[Row], seconds: float) -> Graded:
        """The record of its grade."""
        return Graded(
            self.learner,
            self.terms.lesson,
            self.notebook,
            self.digest,
            self.terms_digest,
            tuple(rows),
            round(seconds, 3),
        )

    def failed(self, why: str) -> Graded:
        """The record of there being none."""
        return self.graded([Row(self.notebook, "", 0, 0, "error", cause=why, message=why)], 0.0)


def digest_of(content: bytes) -> str:
    """SHA-256, as text."""
    return hashlib.sha256(content).hexdigest()


def do(job: Job) -> Graded:
    """Grade a submission; whatever is in it becomes its own record.

    Raises
    ------
    NoWall
        If the machine has no wall that holds, and the terms ask for one.
    """
    terms = job.terms
    room = open_room if terms.wall is None else _room_behind(terms.wall, terms.bounds)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, job.notebook)
        path.write_bytes(job.content)
        rows = grade(
            path,
            lesson=terms.lesson,
            more=terms.cases,
            seed=terms.seed,
            limits=terms.limits,
            room=room,
        )
    own = [replace(row, notebook=job.notebook) for row in rows]
    return job.graded(own, time.monotonic() - started)


@cache
def _room_behind(name: str, bounds: Bounds) -> Room:
    wall = choose(name, bounds)

    @contextmanager
    def room(notebook: Path) -> Iterator[tuple[Path, Launch]]:
        yield SCRATCH, wall.launch

    return room
