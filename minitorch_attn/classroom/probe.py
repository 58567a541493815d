"""Try to get out: run behind the wall, and print as JSON what should have failed and did not.

Run as the text of ``python -c``. Its argument says what is outside (see `wall.gaps_of`).
"""

import ctypes
import json
import os
import resource
import socket
import sys
from collections.abc import Callable

question = json.loads(sys.argv[1])
gaps = []


def can(act: Callable[[], object]) -> bool:
    """Whether nothing keeps it from acting."""
    try:
        act()
        return True
    except OSError:
        return False


def reads(path: str) -> bool:
    """Whether anything can be read at a path."""
    try:
        if os.path.isdir(path):
            return bool(os.listdir(path))
        with open(path, "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False


def writes(folder: str) -> bool:
    """Whether a file can be made in a folder."""
    path = os.path.join(folder, "written-from-behind-the-wall")
    try:
        with open(path, "w"):
            pass
        os.unlink(path)
        return True
    except OSError:
        return False


def reaches(port: int) -> bool:
    """Whether a server on the machine answers."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return True
    except OSError:
        return False


if reads(question["secret"]):
    gaps.append("files of other people can be read")
gaps += [f"{path} can be read" for path in question["hidden"] if reads(path)]
outside = [*question["outside"], *question["hidden"]]
gaps += [f"{folder} can be written to" for folder in outside if writes(folder)]
gaps += [f"{folder} can be written to" for folder in ("/", "/dev", "/etc") if writes(folder)]
if reaches(question["port"]):
    gaps.append("the network can be reached")
if "MINITORCH_ATTN_SECRET" in os.environ:
    gaps.append("the grader's environment can be read")
if os.getppid() > 10 or len([name for name in os.listdir("/proc") if name.isdigit()]) > 10:
    gaps.append("processes of others can be seen")
for name, most in question["limits"].items():
    if resource.getrlimit(getattr(resource, name)) != (most, most):
        gaps.append(f"{name} is not {most}")
writable = os.statvfs("/tmp")
if not 0 < writable.f_blocks * writable.f_frsize <= question["disk"]:
    gaps.append("what can be written to /tmp is not limited")
with open("/proc/self/status") as status:
    facts = {name: text.strip() for name, _, text in (line.partition(":") for line in status)}
if any(int(facts[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")):
    gaps.append("rights of the administrator are left")
if facts["NoNewPrivs"] != "1":
    gaps.append("rights can be won back")
if ctypes.CDLL(None).unshare(0x10000000) == 0:
    gaps.append("a user namespace can be made")
if can(lambda: os.close(os.memfd_create("x"))):
    gaps.append("memory can be taken that nothing counts")
if can(lambda: socket.socket(socket.AF_UNIX).close()):
    gaps.append("sockets can be made")
if can(lambda: os.readlink("/proc/1/root")):
    gaps.append("the room's first process can be looked into")
if not writes("/tmp"):
    gaps.append("/tmp cannot be written to")
try:
    import minitorch_attn.course.worker  # noqa: F401
except Exception as error:
    gaps.append(f"the library cannot be imported: {type(error).__name__}: {error}")
print(json.dumps(gaps))
