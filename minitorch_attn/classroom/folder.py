"""A class: a folder on disk that holds all there is of it, in files that a person can read.

::

    class.toml                      title, secret seed, limits
    roster.csv                      who is in the class; may be left out
    released/13_topic.ipynb         what was handed out
    submitted/ada/13_topic.ipynb    what ada handed in; earlier versions in submitted/ada/earlier
    grades/13_topic.jsonl           the journal: one line a graded submission
    feedback/ada/13_topic.html      what ada is told
    scores.csv, scores.json, ...    what is exported
"""

from __future__ import annotations

import secrets
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..course import plan
from ..course.files import ROOT, write_atomically
from ..course.grade import Limits
from .records import Person, read_roster
from .wall import Bounds

#: What the commands keep in the folder of a class.
OWN = ("released", "submitted", "grades", "feedback")


#: GiB, with which NumPy starts and the exercises run.
LEAST_MEMORY = 0.5


class BadClass(ValueError):
    """A class folder that cannot be used; the message says why and how to mend it."""


@dataclass(frozen=True)
class Settings:
    """What a class is graded by, as `class.toml` says.

    Attributes
    ----------
    title : str
        As it stands above feedback.
    seed : int
        Hidden cases are made from it: whoever knows it can make them too.
    cases : int
        Hidden cases a check.
    cell, notebook, check, submission : float
        Seconds, see `Limits`.
    memory : float
        GiB that a submission may use.
    """

    title: str
    seed: int
    cases: int = 20
    cell: float = 60.0
    notebook: float = 180.0
    check: float = 30.0
    submission: float = 400.0
    memory: float = 2.0

    @property
    def limits(self) -> Limits:
        return Limits(self.cell, self.notebook, self.check, self.submission)

    @property
    def bounds(self) -> Bounds:
        return Bounds(memory=int(self.memory * 2**30), cpu=int(self.submission) + 1)


TEMPLATE = """\
# A class of minitorch_attn. Keep this file to yourself: the hidden cases come from the seed.
title = {title}
seed = {seed}

# Hidden cases a check, besides those that learners see.
cases = {cases}

# Seconds: for one cell, for all cells of a notebook, for one check, for a submission altogether.
cell = {cell}
notebook = {notebook}
check = {check}
submission = {submission}

# GiB of memory that a submission may use.
memory = {memory}
"""


@dataclass(frozen=True)
class ClassFolder:
    """The folder of a class.

    Attributes
    ----------
    root : Path
        Where it lies.
    settings : Settings
        As `class.toml` says.
    """

    root: Path
    settings: Settings

    @classmethod
    def create(cls, root: Path, title: str) -> ClassFolder:
        """Make the folder of a new class.

        Raises
        ------
        BadClass
            If there is a class already, or the folder cannot be made.
        """
        settings = Settings(title, seed=secrets.randbits(60))
        if (root / "class.toml").exists():
            raise BadClass(f"{root} is the folder of a class already: it stays as it is")
        values = {one.name: _as_toml(getattr(settings, one.name)) for one in fields(Settings)}
        try:
            for name in OWN:
                (root / name).mkdir(parents=True, exist_ok=True)
            write_atomically(root / "class.toml", TEMPLATE.format(**values))
            (root / "class.toml").chmod(0o600)
        except OSError as error:
            raise BadClass(f"{root} cannot be made: {error.strerror or error}") from error
        return cls(root, settings)

    @classmethod
    def open(cls, root: Path) -> ClassFolder:
        """Open the folder of a class.

        Raises
        ------
        BadClass
            If it is none, or its `class.toml` cannot be used.
        """
        path = root / "class.toml"
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BadClass(
                f"{root.resolve()} is not the folder of a class: there is no class.toml in it. "
                "`minitorch-attn class create FOLDER` makes one; --folder FOLDER names another"
            ) from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadClass(f"{path} cannot be read: {error}") from error
        return cls(root, _settings(path, content))

    @property
    def roster(self) -> list[Person]:
        """Who is in the class, by `roster.csv`; nobody where there is none."""
        path = self.root / "roster.csv"
        return read_roster(path) if path.exists() else []

    @property
    def learners(self) -> list[str]:
        """Who has a folder below `submitted/`."""
        folder = self.root / "submitted"
        if not folder.is_dir():
            return []
        return sorted(one.name for one in folder.iterdir() if one.is_dir() and not _is_link(one))

    def released(self, number: int) -> Path:
        return self.root / "released" / f"{plan.lesson(number).name}.ipynb"

    def journal(self, number: int) -> Path:
        return self.root / "grades" / f"{plan.lesson(number).name}.jsonl"

    def submission(self, learner: str, number: int) -> Path:
        return self.root / "submitted" / learner / f"{plan.lesson(number).name}.ipynb"

    def feedback(self, learner: str, number: int, suffix: str) -> Path:
        return self.root / "feedback" / learner / f"{plan.lesson(number).name}{suffix}"

    def sets(self) -> list[int]:
        """The exercise sets that were handed out, or that somebody handed in."""
        known = {one.name: one.number for one in plan.LESSONS if one.has_exercises}
        files = [*self.root.glob("released/*.ipynb"), *self.root.glob("submitted/*/*.ipynb")]
        return sorted({known[one.stem] for one in files if one.stem in known})

    def submissions(self, number: int) -> dict[str, Path]:
        """What was handed in for a set, by learner; links are passed over."""
        paths = {one: self.submission(one, number) for one in self.learners}
        return {one: path for one, path in paths.items() if path.is_file() and not _is_link(path)}

    def release(self, number: int) -> Path:
        """Put the notebook of a set where it can be handed out from; an older one is replaced.

        Raises
        ------
        BadClass
            If the set's notebook is not there.
        """
        source = ROOT / "exercises" / f"{plan.lesson(number).name}.ipynb"
        target = self.released(number)
        try:
            text = source.read_text(encoding="utf-8")
        except OSError as error:
            raise BadClass(f"{source} cannot be read: {error.strerror or error}") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text)
        return target


def _is_link(path: Path) -> bool:
    """Whether a path leads elsewhere: what learners hand in must not name other files."""
    return path.is_symlink()


def _as_toml(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(one if one.isprintable() else " " for one in escaped) + '"'
    return repr(value)


def _settings(path: Path, content: dict[str, Any]) -> Settings:
    kinds: dict[str, Any] = {one.name: _KINDS[one.type] for one in _FIELDS}
    for name, value in content.items():
        if name not in kinds:
            raise BadClass(f"{path}: there is no setting {name}; there are {', '.join(kinds)}")
        if not isinstance(value, kinds[name]) or isinstance(value, bool):
            kind = _IN_WORDS[kinds[name]]
            raise BadClass(f"{path}: {name} cannot be {value!r}: it must be {kind}")
        if name != "title" and not 0 <= value < 2**63:
            raise BadClass(f"{path}: {name} must be a number from 0 on, not {value}")
        if name not in ("title", "seed", "cases") and value == 0:
            raise BadClass(f"{path}: {name} must be more than 0")
        if name == "memory" and value < LEAST_MEMORY:
            raise BadClass(f"{path}: NumPy needs a memory of {LEAST_MEMORY} or more, not {value}")
    missing = [name for name in ("title", "seed") if name not in content]
    if missing:
        raise BadClass(f"{path} does not say the {' and the '.join(missing)}")
    return Settings(**content)


_FIELDS: Any = fields(Settings)
_KINDS: Any = {"str": str, "int": int, "float": (int, float)}
_IN_WORDS = {str: 'text in quotes, "..."', int: "a whole number", (int, float): "a number"}
