"""The wall: what stands between code that nobody has vetted and everything else.

Behind it a program sees the system's and Python's own folders and this library without the answers,
all read-only; one empty folder to write to, /tmp, of limited size; no network; no process but its
own; no variable of the environment that it was not given. Memory, processor time, processes and
open files are limited.

There are two ways to build it, both with what Linux has: `bubblewrap`, a program made for it, and
`namespaces`, by the tools that every Linux has. `choose` takes the first that holds: it runs a
program behind it that tries to get out (probe.py), and believes nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..course.files import ROOT
from ..course.subject import Process
from ..engine.optional import require

HERE = Path(__file__).parent
PACKAGE = ROOT / "minitorch_attn"
SCRATCH = Path("/tmp")

#: What of this library is not to be seen: the answers, and the grader.
HIDDEN = (
    HERE,
    PACKAGE / "course" / "checks",
    *(PACKAGE / "course" / f"{name}.py" for name in ("grade", "grade_cli", "grade_tables")),
)

#: What of the system is to be seen, where it is there.
SYSTEM = tuple(
    Path("/", name)
    for name in (
        *("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"),
        *("etc/alternatives", "etc/ld.so.cache", "etc/fonts", "etc/localtime"),
    )
)


@dataclass(frozen=True)
class Bounds:
    """How much a submission may use.

    Attributes
    ----------
    memory : int
        Bytes, of all its processes together.
    cpu : int
        Seconds of processor time, of each of its processes.
    processes : int
        Processes and threads, its own included.
    files : int
        Files that a process may have open.
    disk : int
        Bytes that it may write. They lie in memory, and go with it.
    """

    memory: int = 2 * 2**30
    cpu: int = 600
    processes: int = 24
    files: int = 128
    disk: int = 128 * 2**20

    def as_limits(self) -> dict[str, int]:
        """The limits that the system keeps a process to, by their names in `resource`."""
        return {
            "RLIMIT_AS": self.memory,
            "RLIMIT_CPU": self.cpu,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_NOFILE": self.files,
            "RLIMIT_FSIZE": self.disk,
            "RLIMIT_CORE": 0,
        }


class NoWall(RuntimeError):
    """No wall that holds can be built on this machine; the message says what each lacks."""


@dataclass(frozen=True)
class Wall:
    """A way to run a program behind a wall.

    Attributes
    ----------
    name : str
        ``"bubblewrap"`` or ``"namespaces"``.
    line : callable
        ``line(command, bounds)`` is the command line that runs a command behind it.
    bounds : Bounds
        What a program behind it may use.
    """

    name: str
    line: Callable[[Sequence[str], Bounds], list[str]]
    bounds: Bounds = Bounds()

    def launch(
        self, command: Sequence[str], settings: dict[str, str], errors: int = subprocess.DEVNULL
    ) -> Process:
        """Start a program behind the wall, and stop it if it uses too much.

        Parameters
        ----------
        command : sequence of str
            A program and its arguments.
        settings : dict
            Variables of its environment, besides the few that programs need.
        errors : int
            Where its standard error goes, as `subprocess.Popen` takes it.
        """
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            "HOME": str(SCRATCH),
            "LANG": "C.UTF-8",
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        process = Process(
            self.line(command, self.bounds),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment | settings,
            start_new_session=True,
        )
        threading.Thread(target=_watch, args=(process, self.bounds), daemon=True).start()
        return process


# -- the two ways ---------------------------------------------------------------------------


def _with_bubblewrap(command: Sequence[str], bounds: Bounds) -> list[str]:
    size = str(bounds.disk)
    line = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"]
    line += ["--new-session", "--hostname", "classroom", "--as-pid-1"]
    line += ["--size", size, "--tmpfs", str(SCRATCH)]  # first: what is shown may lie below it
    for path in _shown():
        way = ["--symlink", os.readlink(path)] if path.is_symlink() else ["--ro-bind", str(path)]
        line += [*way, str(path)]
    for path in _hidden():
        place = str(path)
        way = ["--tmpfs", place, "--remount-ro"] if path.is_dir() else ["--ro-bind", os.devnull]
        line += [*way, place]
    line += ["--dev", "/dev", "--proc", "/proc"]
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(SCRATCH), "--"]
    return [*line, *_confined(command, bounds, user=None, privileged=False)]


def _with_namespaces(command: Sequence[str], bounds: Bounds) -> list[str]:
    room = Path(tempfile.gettempdir(), f"minitorch-attn-room-{os.getuid()}")
    room.mkdir(mode=0o700, exist_ok=True)
    line = ["setpriv", "--pdeathsig", "KILL"]  # the room goes when the grader goes
    line += ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
    if os.getuid() == 0:  # it gets a user of its own, who owns nothing
        user = 2**30 + secrets.randbelow(2**20)
    else:
        user = None
        line += ["--user", "--map-root-user"]
    line += ["sh", str(HERE / "namespaces.sh"), str(room), str(bounds.disk)]
    for path in _shown():
        line += ["--show", str(path)]
    for path in _hidden():
        line += ["--hide", str(path)]
    return [*line, "--", *_confined(command, bounds, user=user, privileged=True)]


WAYS = {"bubblewrap": _with_bubblewrap, "namespaces": _with_namespaces}


def _confined(
    command: Sequence[str], bounds: Bounds, user: int | None, privileged: bool
) -> list[str]:
    terms = {"limits": bounds.as_limits(), "user": user, "privileged": privileged}
    confine = (HERE / "confine.py").read_text(encoding="utf-8")
    return [sys.executable, "-I", "-S", "-c", confine, json.dumps(terms), *command]


def _shown() -> list[Path]:
    """What is to be seen: of two folders, one in the other, the outer alone."""
    packages = [one for one in sys.path if one.endswith(("site-packages", "dist-packages"))]
    own = {Path(one).resolve() for one in (sys.prefix, sys.base_prefix, *packages)}
    paths = {*SYSTEM, *own, PACKAGE}
    paths = {path for path in paths if path.exists()}
    return sorted(
        path for path in paths if path.is_symlink() or not any(o in paths for o in path.parents)
    )


def _library_path() -> str:
    """PYTHONPATH by which this library is found behind the wall, and what it needs."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])


def _hidden() -> list[Path]:
    return [path for path in HIDDEN if path.exists()]


def _watch(process: Process, bounds: Bounds) -> None:
    """Stop a program whose processes use too much together: limits hold for each alone."""
    psutil = require("psutil", extra="course", purpose="watch what a submission uses")
    while process.poll() is None:
        memory = count = files = 0
        with contextlib.suppress(psutil.Error):
            for one in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error, OSError):  # this one has just ended
                    memory += one.memory_info().rss
                    count += one.num_threads()
                    scratch = os.statvfs(f"/proc/{one.pid}/root{SCRATCH}")
                    if scratch.f_blocks * scratch.f_frsize <= bounds.disk:  # the room is built
                        files = max(files, scratch.f_files - scratch.f_ffree)
        if memory > bounds.memory:
            process.stop(f"it used more than {bounds.memory / 2**30:g} GiB of memory")
        elif count > 2 * bounds.processes:
            process.stop(f"it started more than {bounds.processes} processes")
        elif files > bounds.disk // 4096:  # empty ones take memory too, and no room on the disk
            process.stop(f"it made more than {bounds.disk // 4096} files")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)


# -- whether it holds -----------------------------------------------------------------------


def choose(name: str | None = None, bounds: Bounds = Bounds()) -> Wall:
    """A wall that holds on this machine, by trial.

    Parameters
    ----------
    name : str, optional
        The one that is wanted; the first that holds if left out.
    bounds : Bounds
        What a program behind it may use.

    Raises
    ------
    NoWall
        If none holds, or not the one that is wanted.
    """
    if name is not None and name not in WAYS:
        raise NoWall(f"there is no wall {name!r}; there are {' and '.join(WAYS)}")
    failures = []
    for wall in [Wall(one, WAYS[one], bounds) for one in WAYS if name in (None, one)]:
        gaps = gaps_of(wall)
        if not gaps:
            return wall
        failures.append(f"{wall.name}: {'; '.join(gaps)}")
    raise NoWall(
        "Unvetted code cannot be graded safely on this machine. " + ". ".join(failures) + ". "
        "On Linux, install bubblewrap and grade as an ordinary user; elsewhere, use a Linux "
        "machine, real or virtual"
    )


def gaps_of(wall: Wall) -> list[str]:
    """What a program behind a wall can do that it should not; empty if the wall holds."""
    if missing := _missing_for(wall):
        return [missing]
    with (
        tempfile.TemporaryDirectory() as outside,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        secret = Path(outside, "secret")
        secret.write_text("a submission of somebody else")
        question = {
            "secret": str(secret),
            "outside": [outside, str(PACKAGE), sys.prefix],
            "hidden": [str(path) for path in _hidden()],
            "port": server.getsockname()[1],
            "limits": wall.bounds.as_limits(),
            "disk": wall.bounds.disk,
        }
        probe = (HERE / "probe.py").read_text(encoding="utf-8")
        command = [sys.executable, "-c", probe, json.dumps(question)]
        os.environ["MINITORCH_ATTN_SECRET"] = "not to be seen"
        try:
            process = wall.launch(command, {"PYTHONPATH": _library_path()}, subprocess.PIPE)
            answer, complaint = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.stop("it hung")
            return ["a program behind it hangs"]
        except OSError as error:
            return [f"cannot be built: {error}"]
        finally:
            del os.environ["MINITORCH_ATTN_SECRET"]
    try:
        return [str(gap) for gap in json.loads(answer)]
    except ValueError:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        return [f"no program starts behind it{f' ({last[:300]})' if last else ''}"]


def _missing_for(wall: Wall) -> str:
    """What is not there that a wall is built with."""
    if sys.platform != "linux":
        return "needs Linux"
    if wall.name == "bubblewrap" and os.getuid() == 0:
        return "needs an ordinary user, not the administrator"
    program = {"bubblewrap": "bwrap", "namespaces": "unshare"}[wall.name]
    return "" if shutil.which(program) else f"the program {program} is not installed"
