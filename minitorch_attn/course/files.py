"""Where the course's files lie, and how a file is replaced without ever losing the old one."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

#: The checkout: lessons, solutions and exercises lie beside the package.
ROOT = Path(__file__).resolve().parents[2]


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's text in one step: whoever reads it sees all of the old or all of the new.

    Parameters
    ----------
    path : Path
        The file; its folder must exist.
    text : str
        The new content, written as UTF-8 with the line ends it has.

    Raises
    ------
    OSError
        If the folder cannot be written to; the old file is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
