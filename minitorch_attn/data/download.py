"""Files of data sets: found on disk or downloaded, and never used unless they are the real ones."""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.optional import require

CONNECT_SECONDS, READ_SECONDS = 10, 30
CHUNK_BYTES = 1 << 16


class MirrorError(Exception):
    """Why a mirror did not give the file."""


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes
    ----------
    name : str
        Its name on the mirrors and on disk.
    size : int
        Its length in bytes.
    sha256 : str
        Its SHA-256, as hexadecimal digits.
    content : str
        For a gzip file, `"algorithm:digits"` of what it unzips to. The same content zipped by
        another program, or not zipped, is then as good.
    """

    name: str
    size: int
    sha256: str
    content: str = ""

    def accept(self, data: bytes) -> bytes | None:
        """What the file holds (unzipped where `content` is known), or None if it is not the file.

        The check is of the very bytes that are returned.
        """
        if not self.content:
            return data if _digest("sha256", data) == self.sha256 else None
        try:
            content = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        except (OSError, EOFError, zlib.error):  # cut off or damaged
            return None
        algorithm, _, digest = self.content.partition(":")
        return content if _digest(algorithm, content) == digest else None


@dataclass(frozen=True)
class Source:
    """The files of a data set, and where they can be had.

    Attributes
    ----------
    title : str
        What the data set is called.
    folder : str
        The folder of its files.
    mirrors : tuple of str
        Addresses that a file's name is appended to, tried in this order.
    files : tuple of RemoteFile
        The files.
    """

    title: str
    folder: str
    mirrors: tuple[str, ...]
    files: tuple[RemoteFile, ...]

    def read(
        self, name: str, root: str | os.PathLike[str] | None = None, download: bool = True
    ) -> bytes:
        """The content of a file, checked; downloaded where it is not yet on disk.

        Parameters
        ----------
        name : str
            Name of one of `files`.
        root : path, optional
            Holds the file, or the `folder` that holds it (see `data_folder`).
        download : bool
            Whether it may be downloaded, into `root/folder`.

        Raises
        ------
        FileNotFoundError
            If no good file is on disk and none could be downloaded.
        """
        file = next(f for f in self.files if f.name == name)
        root = data_folder(root)
        folder = root / self.folder
        places = _places(file, folder, root)
        looked = [f"{p}{' (damaged, or another file)' if p.is_file() else ''}" for p in places]
        tried: list[str] = []
        content = _first_good(file, places)
        if content is None and download:
            _set_aside(folder / name)
            tried = self._download(file, folder)
            content = _first_good(file, [folder / name])
        if content is None:
            raise FileNotFoundError(self._how_to_get(file, folder, looked, tried))
        return content

    def _download(self, file: RemoteFile, folder: Path) -> list[str]:
        """Ask the mirrors in turn until one gives the file; say why those before it did not."""
        problems: list[str] = []
        for mirror in self.mirrors:
            try:
                fetch(mirror + file.name, file, folder)
                break
            except MirrorError as error:
                problems.append(f"{mirror}{file.name}: {error}")
        return problems

    def _how_to_get(
        self, file: RemoteFile, folder: Path, looked: list[str], tried: list[str]
    ) -> str:
        attempt = "and could not be downloaded" if tried else "and download=False"
        addresses = tried or [mirror + file.name for mirror in self.mirrors]
        return "\n".join(
            [
                f"{self.title} needs {file.name}: it is not on this computer {attempt}.",
                "Looked for it at:",
                *(f"  {place}" for place in looked),
                "Mirrors tried:" if tried else "Mirrors:",
                *(f"  {address}" for address in addresses),
                "To put it there by hand, save it from one of these addresses as",
                f"  {folder / file.name}",
                f"  ({file.size:,} bytes, sha256 {file.sha256}).",
                "Another folder can be given with root=..., or for all data sets in the "
                "environment variable MINITORCH_ATTN_DATA.",
                "digits() has small images of handwritten digits that need no download.",
            ]
        )


def data_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """Where data sets are kept: `root`, else $MINITORCH_ATTN_DATA, else the user's cache folder."""
    root = root or os.environ.get("MINITORCH_ATTN_DATA")
    if not root:
        pooch = require("pooch", extra="course", purpose="find the folder of downloaded data")
        root = pooch.os_cache("minitorch_attn")
    return Path(root).expanduser()


def _places(file: RemoteFile, *folders: Path) -> list[Path]:
    """Where a file may lie: as published, or unzipped where its content can be checked."""
    names = [file.name, file.name.removesuffix(".gz")] if file.content else [file.name]
    return [folder / name for folder in folders for name in names]


def _first_good(file: RemoteFile, places: list[Path]) -> bytes | None:
    """The content of the first of these paths that is the file, if any is."""
    contents = (file.accept(path.read_bytes()) for path in places if path.is_file())
    return next((content for content in contents if content is not None), None)


def _set_aside(path: Path) -> None:
    """Make room for a good file where a bad one lies."""
    if path.exists():
        aside = path.with_name(path.name + ".corrupt")
        os.replace(path, aside)
        warnings.warn(
            f"{path} is damaged or another file: moved to {aside.name}, downloading it anew",
            stacklevel=2,
        )


def fetch(url: str, file: RemoteFile, folder: Path) -> None:
    """Download a file into a folder; it appears there only whole and with the right hash.

    What an interrupted download has brought lies beside as `NAME.part`, and the next one goes on
    from there.

    Raises
    ------
    MirrorError
        If this address does not give the file.
    """
    pooch = require("pooch", extra="course", purpose="download data")
    part = folder / (file.name + ".part")
    receive = functools.partial(_download, part=part, size=file.size)
    retrieve = functools.partial(
        pooch.retrieve, url, f"sha256:{file.sha256}", file.name, folder, downloader=receive
    )
    resumed = part.exists()
    try:
        try:
            retrieve()
        except ValueError:  # pooch's word for a wrong hash
            if not resumed:
                raise
            retrieve()  # the fault may lie in the part that an earlier download left
    except ValueError:
        raise MirrorError("gave a file with another sha256, thrown away") from None


def _download(url: str, output_file: str, _: Any, *, part: Path, size: int) -> None:
    """A downloader for pooch that resumes: as often as the connection breaks but brings more."""
    received = _length(part)
    while received < size:
        problem = _receive(url, part, size)
        before, received = received, _length(part)
        if received <= before:
            raise MirrorError(problem or "closed the connection without sending anything")
    os.replace(part, output_file)


def _receive(url: str, part: Path, size: int) -> str | None:
    """Append to the part what one connection brings; say what broke it, if anything did."""
    requests = require("requests", extra="course", purpose="download data")
    transport = require("urllib3.exceptions", extra="course", purpose="download data")
    tqdm = require("tqdm.auto", extra="course", purpose="show the progress of a download")
    start = _length(part)
    headers = {"Accept-Encoding": "identity"}  # the file as it is: a Range counts its bytes
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with requests.get(
            url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)
        ) as response:
            start = _check_answer(response, start, size)
            # disable=None: a bar in a terminal or a notebook, nothing in a log.
            bar = tqdm.tqdm(
                desc=part.stem, total=size, initial=start, unit="B", unit_scale=True, disable=None
            )
            with bar, open(part, "ab" if start else "wb") as out:
                for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                    out.write(chunk)
                    bar.update(len(chunk))
    except requests.Timeout:
        return "no answer in time"
    except requests.ConnectionError as error:
        return f"no connection ({type(error).__name__})"
    except (requests.RequestException, transport.HTTPError) as error:
        return f"the connection broke ({type(error).__name__})"
    return None


def _check_answer(response: Any, start: int, size: int) -> int:
    """The byte at which an answer begins: `start`, or 0 from a server that cannot resume."""
    if response.status_code not in (200, 206):
        raise MirrorError(f"answers {response.status_code} {response.reason}")
    if response.status_code == 200:
        start = 0
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise MirrorError("answers with another part of the file than was asked for")
    length = response.headers.get("Content-Length")
    if length is not None and start + int(length) != size:
        raise MirrorError(f"offers {start + int(length):,} bytes, the file has {size:,}")
    return start


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(algorithm: str, data: bytes) -> str:
    return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
