"""Collect what was handed in: from folders, and from the archives that Moodle and Canvas give.

Nothing that a learner named becomes a path: a submission is stored under the learner's name, made
safe, and its exercise set's.
"""

from __future__ import annotations

import re
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..course.submission import MOST_BYTES, BadNotebook, read_submission
from .folder import ClassFolder
from .records import Person

#: ``Ada Lovelace_4711_assignsubmission_file_/13_topic.ipynb``, without the slash in some versions.
_MOODLE = re.compile(r"^(?P<name>[^/]+)_(?P<id>\d+)_assignsubmission_file_/?(?P<file>[^/]+)$")
#: ``lovelaceada_LATE_4711_99_13_topic-2.ipynb``: name, the learner's id, the file's id, the file.
_CANVAS = re.compile(r"^(?P<name>[^/_]+)_(?:LATE_)?(?P<id>\d+)_\d+_(?P<file>[^/]+)$")


@dataclass(frozen=True)
class Found:
    """A notebook that somebody handed in.

    Attributes
    ----------
    place : str
        Where it was found, for messages.
    learner : str
        The name of the folder it goes to.
    file : str
        The name that the learner gave it.
    content : bytes
        What is in it.
    """

    place: str
    learner: str
    file: str
    content: bytes


@dataclass(frozen=True)
class Outcome:
    """What became of a notebook.

    Attributes
    ----------
    place, learner : str
        As in `Found`.
    verdict : str
        ``"new"``, ``"changed"`` (the earlier version is kept), ``"same"`` or ``"left out"``.
    why : str
        Why it was left out.
    """

    place: str
    learner: str
    verdict: str
    why: str = ""


def collect(folder: ClassFolder, source: Path, number: int | None = None) -> Iterator[Outcome]:
    """Bring submissions into a class.

    Parameters
    ----------
    folder : ClassFolder
        The class.
    source : Path
        A zip archive, or a folder with one folder a learner, in which notebooks lie at any depth.
    number : int, optional
        The exercise set that is expected: others are left out.

    Yields
    ------
    Outcome
        One a notebook.

    Raises
    ------
    OSError, zipfile.BadZipFile
        If the source cannot be read.
    """
    people = folder.roster
    found = _in_archive(source, people) if source.is_file() else _in_folder(source, people)
    for one in found:
        yield one if isinstance(one, Outcome) else _stored(folder, one, number)


def _in_folder(source: Path, people: Iterable[Person]) -> Iterator[Found | Outcome]:
    for path in sorted(source.rglob("*.ipynb")):
        inner = path.relative_to(source)
        place = str(path)
        if any((source / one).is_symlink() for one in [*inner.parents, inner]):
            yield Outcome(place, "", "left out", "is a link, or lies behind one")
        elif ".ipynb_checkpoints" in inner.parts or not path.is_file():
            continue
        elif path.stat().st_size > MOST_BYTES:
            yield Outcome(place, "", "left out", _too_large(path.stat().st_size))
        else:
            learner, file = _who(inner.as_posix(), people)
            yield _found(place, learner, file, path.read_bytes())


def _in_archive(source: Path, people: Iterable[Person]) -> Iterator[Found | Outcome]:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            place = f"{source.name}: {info.filename}"
            if not info.filename.endswith(".ipynb") or ".ipynb_checkpoints" in info.filename:
                continue
            if info.file_size > MOST_BYTES:
                yield Outcome(place, "", "left out", _too_large(info.file_size))
                continue
            try:
                with archive.open(info) as file:
                    content = file.read(MOST_BYTES + 1)  # whatever size the archive says
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
                yield Outcome(place, "", "left out", f"cannot be unpacked: {error}")
                continue
            if len(content) > MOST_BYTES:
                yield Outcome(place, "", "left out", _too_large(len(content)))
                continue
            learner, name = _who(info.filename.lstrip("/"), people)
            yield _found(place, learner, name, content)


def _found(place: str, learner: str, file: str, content: bytes) -> Found | Outcome:
    if not learner:
        return Outcome(place, "", "left out", "lies in no learner's folder")
    return Found(place, learner, file, content)


def _too_large(size: int) -> str:
    return f"has {size / 2**20:.0f} MiB, more than {MOST_BYTES / 2**20:.0f}: clear its outputs"


def _who(inner: str, people: Iterable[Person]) -> tuple[str, str]:
    """Whose notebook it is, by its path inside the source, and what it is called."""
    file = PurePosixPath(inner).name
    for form in (_MOODLE, _CANVAS):
        parts = PurePosixPath(inner).parts
        for length in (2, 1):
            if match := form.match("/".join(parts[-length:])):
                return _learner(match["name"], match["id"], people), match["file"]
    return (_learner(PurePosixPath(inner).parts[0], "", people) if "/" in inner else ""), file


def _learner(name: str, id: str, people: Iterable[Person]) -> str:
    """The roster's name for somebody; who is not on it is called by name and number."""
    for person in people:
        if name in (person.learner, person.name) or (id and id == person.id):
            return person.learner
    safe = safe_name(f"{name} {id}" if id else name)
    # Two names that become one when made safe are still two learners.
    return safe if id or safe == name else f"{safe}-{zlib.crc32(name.encode()):08x}"


def safe_name(text: str) -> str:
    """A name that can be a folder's on every system: letters, digits, dots, hyphens."""
    name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text))
    return name.strip("._-")[:80] or "nobody"


def _stored(folder: ClassFolder, found: Found, number: int | None) -> Outcome:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, safe_name(found.file))
        path.write_bytes(found.content)
        try:
            submission = read_submission(path, number)
            target = folder.submission(found.learner, submission.number)
        except BadNotebook as error:
            by_name = re.match(r"\d\d(?=_)", found.file)
            known = number or (int(by_name[0]) if by_name else None)
            if known is None or known not in folder.sets() or " expected " in str(error):
                return Outcome(found.place, found.learner, "left out", str(error))
            target = folder.submission(found.learner, known)  # the grade says what is wrong
    if target.is_file() and target.read_bytes() == found.content:
        return Outcome(found.place, found.learner, "same")
    verdict = "changed" if target.exists() else "new"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(_free_name(target))
    target.write_bytes(found.content)
    return Outcome(found.place, found.learner, verdict)


def _free_name(path: Path) -> Path:
    """Where an earlier version goes: ``earlier/13_topic.1.ipynb``, then 2, and so on."""
    folder = path.parent / "earlier"
    folder.mkdir(exist_ok=True)
    number = 1 + len(list(folder.glob(f"{path.stem}.*.ipynb")))
    return folder / f"{path.stem}.{number}.ipynb"
