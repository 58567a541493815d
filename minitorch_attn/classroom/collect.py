"""Collect what was handed in: from folders, and from the archives that Moodle and Canvas give.

Nothing that a learner named becomes a path: a submission is stored under the learner's name, made
safe, and its exercise set's.
"""

from __future__ import annotations

import lzma
import re
import shutil
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from ..course.submission import MOST_BYTES, BadNotebook, read_submission
from .folder import OWN, BadClass, ClassFolder
from .records import Person

#: ``Ada Lovelace_4711_assignsubmission_file_/13_topic.ipynb``, without the slash in some versions.
_MOODLE = re.compile(
    r"^(?P<name>[^/]+)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)_/?(?P<file>[^/]+)$"
)
#: ``lovelaceada_LATE_4711_99_13_topic-2.ipynb``: name, the learner's id, the file's id, the file.
_CANVAS = re.compile(r"^(?P<name>[^/_]+)_(?:LATE_)?(?P<id>\d+)_\d+_(?P<file>[^/]+)$")


@dataclass(frozen=True)
class Entry:
    """A file in a source.

    Attributes
    ----------
    place : str
        Where it lies, for messages.
    inner : str
        Its path inside the source.
    size : int
        Bytes, by what the source says.
    time : float or tuple
        When it was last changed.
    read : callable
        ``read()`` is what is in it.
    """

    place: str
    inner: str
    size: int
    time: Any
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Found:
    """A notebook that somebody handed in.

    Attributes
    ----------
    place : str
        Where it was found, for messages.
    learner : str
        The name of the folder it goes to.
    time : float or tuple
        When it was last changed.
    copy : Path
        A copy of it, under the name that the learner gave it, made safe.
    """

    place: str
    learner: str
    time: Any
    copy: Path


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
        Of several notebooks of one learner and set, that which was changed last counts.
    number : int, optional
        The exercise set that is expected: others are left out.

    Yields
    ------
    Outcome
        One a notebook, and one for each learner who handed in files without a notebook among them.

    Raises
    ------
    BadClass
        If the source is the class itself, or what it holds.
    OSError, zipfile.BadZipFile
        If the source cannot be read.
    """
    source.stat()
    _refuse_own(folder, source)
    people = folder.roster
    others: dict[str, str] = {}
    latest: dict[Path, Found] = {}
    with tempfile.TemporaryDirectory() as spool:
        entries = _in_archive(source) if source.is_file() else _in_folder(source)
        for count, entry in enumerate(entries):
            learner, file = _who(entry.inner, people)
            if not file.lower().endswith(".ipynb"):
                others.setdefault(learner, entry.place)
                continue
            try:
                found = _found(entry, learner, Path(spool, str(count), safe_name(file)))
                target = _target(folder, found, number)
            except BadNotebook as error:
                why = str(error).replace("--lesson", "--set")  # as this command calls it
                yield Outcome(entry.place, learner, "left out", why)
                continue
            if target in latest:
                older, found = sorted((latest[target], found), key=lambda one: one.time)
                why = f"{found.place} is the later version"
                yield Outcome(older.place, learner, "left out", why)
            latest[target] = found
        for target, found in latest.items():
            yield _stored(target, found)
    for learner in others.keys() - {found.learner for found in latest.values()} - {""}:
        yield Outcome(others[learner], learner, "left out", "is no notebook")


def _refuse_own(folder: ClassFolder, source: Path) -> None:
    root, place = folder.root.resolve(), source.resolve()
    own = [root / name for name in OWN]
    if place in (root, *root.parents) or any(one in (place, *place.parents) for one in own):
        raise BadClass(
            f"{source} is, holds or lies in the class itself: collect from where your download lies"
        )


def _in_folder(source: Path) -> Iterator[Entry]:
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        if any((source / one).is_symlink() for one in [*inner.parents, inner]):
            if path.suffix == ".ipynb":
                yield Entry(str(path), inner.as_posix(), 0, 0.0, _refuse_link)
        elif path.is_file() and not _is_by_the_way(inner):
            facts = path.stat()
            place = str(path)
            yield Entry(place, inner.as_posix(), facts.st_size, facts.st_mtime, path.read_bytes)


def _in_archive(source: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():

            def read(info: zipfile.ZipInfo = info) -> bytes:
                with archive.open(info) as file:
                    return file.read(MOST_BYTES + 1)  # whatever size the archive says

            if not info.is_dir() and not _is_by_the_way(PurePosixPath(info.filename)):
                place, inner = f"{source.name}: {info.filename}", info.filename.lstrip("/")
                yield Entry(place, inner, info.file_size, info.date_time, read)


def _is_by_the_way(inner: PurePath) -> bool:
    """Whether a system or Jupyter put it there beside what somebody handed in."""
    return any(part.startswith(".") and part != ".." for part in inner.parts) or (
        "__MACOSX" in inner.parts
    )


def _refuse_link() -> bytes:
    raise OSError("it is a link, or lies behind one")


def _found(entry: Entry, learner: str, copy: Path) -> Found:
    """Take a copy of a notebook.

    Raises
    ------
    BadNotebook
        If nobody handed it in, it is too large or cannot be read.
    """
    if not learner:
        raise BadNotebook("lies in no learner's folder: put it into one with the learner's name")
    size = entry.size
    if size <= MOST_BYTES:
        try:
            content = entry.read()
        except _UNREADABLE as error:
            raise BadNotebook(f"cannot be read: {error}") from error
        size = len(content)
    if size > MOST_BYTES:
        most = MOST_BYTES // 2**20
        raise BadNotebook(f"has {size / 2**20:.0f} MiB, more than {most}: clear its outputs")
    copy.parent.mkdir()
    copy.write_bytes(content)
    return Found(entry.place, learner, entry.time, copy)


_UNREADABLE = (
    *(OSError, EOFError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


def _target(folder: ClassFolder, found: Found, number: int | None) -> Path:
    """Where a notebook goes; a broken one of a known set, too: its grade says what is wrong.

    Raises
    ------
    BadNotebook
        If it belongs to no set, or to another than expected.
    """
    try:
        known = read_submission(found.copy, number).number
    except BadNotebook as error:
        by_name = re.match(r"\d\d(?=_)", found.copy.name)
        guess = number or (int(by_name[0]) if by_name else None)
        if guess is None or guess not in folder.sets() or " expected " in str(error):
            raise
        known = guess
    return folder.submission(found.learner, known)


def _who(inner: str, people: Sequence[Person]) -> tuple[str, str]:
    """Whose notebook it is, by its path inside the source, and what it is called."""
    parts = PurePosixPath(inner).parts
    for form in (_MOODLE, _CANVAS):
        for length in (2, 1):
            if match := form.match("/".join(parts[-length:])):
                return _learner(match["name"], match["id"], people), match["file"]
    return (_learner(parts[0], "", people) if "/" in inner else ""), parts[-1]


def _learner(name: str, id: str, people: Sequence[Person]) -> str:
    """The roster's name for somebody; who is not on it is called by name and number.

    The name says who it is if one person alone has it, else name and number together do, and the
    number alone if nobody has the name.
    """
    name = _one_way(name)
    for person in people:
        if name == _one_way(person.learner):
            return person.learner
    named = [one for one in people if name in map(_one_way, _names(one))]
    numbered = [one for one in named or people if id and id == one.id]
    candidates = named if len(named) == 1 else numbered
    if len(candidates) == 1:
        return candidates[0].learner
    safe = safe_name(f"{name} {id}" if id else name)
    # Two names that become one when made safe are still two learners.
    return safe if id or safe == name else f"{safe}-{zlib.crc32(name.encode()):08x}"


def _names(person: Person) -> list[str]:
    """What somebody may be called: in Canvas, which turns names round, ``lovelaceada``, too."""
    words = ["".join(filter(str.isalnum, word)).lower() for word in person.name.split()]
    turned = ["".join(words[cut:] + words[:cut]) for cut in range(len(words))]
    return [person.name, *turned]


def _one_way(text: str) -> str:
    """Text whose accents are written as Unicode's form C has them; a Mac's archives have not."""
    return unicodedata.normalize("NFC", text)


def safe_name(text: str) -> str:
    """A name that can be a folder's on every system: letters, digits, dots, hyphens."""
    name = re.sub(r"[^\w.-]+", "_", _one_way(text))
    return name.strip("._-")[:80] or "nobody"


def _stored(target: Path, found: Found) -> Outcome:
    if target.is_file() and target.read_bytes() == found.copy.read_bytes():
        return Outcome(found.place, found.learner, "same")
    verdict = "changed" if target.exists() else "new"
    target.parent.mkdir(parents=True, exist_ok=True)
    arriving = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(found.copy, arriving)
        if target.exists():
            target.rename(_free_name(target))
        arriving.replace(target)
    finally:
        arriving.unlink(missing_ok=True)
    return Outcome(found.place, found.learner, verdict)


def _free_name(path: Path) -> Path:
    """Where an earlier version goes: ``earlier/13_topic.1.ipynb``, then 2, and so on."""
    folder = path.parent / "earlier"
    folder.mkdir(exist_ok=True)
    number = 1 + len(list(folder.glob(f"{path.stem}.*.ipynb")))
    return folder / f"{path.stem}.{number}.ipynb"
