"""The wall: each way of building it is tried by a program that wants out, and so is no wall."""

import subprocess
import sys
import time

import pytest

from minitorch_attn.classroom import wall as walls
from minitorch_attn.classroom.wall import WAYS, Bounds, NoWall, Wall, choose, gaps_of

pytest.importorskip("psutil")

SMALL = Bounds(memory=600 * 2**20, disk=8 * 2**20, processes=12)


@pytest.fixture(scope="module", params=WAYS)
def wall(request):
    wall = Wall(request.param, WAYS[request.param], SMALL)
    gaps = gaps_of(wall)
    if gaps:
        pytest.skip(f"{wall.name}: {'; '.join(gaps)}")
    return wall


def run(wall, source, seconds=60):
    """Run a program behind a wall: its output, and why it ended if it was stopped."""
    settings = {"PYTHONPATH": walls._library_path()}
    process = wall.launch([sys.executable, "-c", source], settings)
    output, _ = process.communicate(timeout=seconds)
    return output.decode(), process.reason


def test_a_machine_that_runs_the_course_on_linux_has_a_wall():
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    try:
        assert choose(bounds=SMALL).name in WAYS
    except NoWall as error:
        pytest.skip(str(error))


def test_without_a_wall_the_probe_finds_what_is_open(monkeypatch):
    monkeypatch.setattr(walls, "_missing_for", lambda wall: "")
    gaps = " ".join(gaps_of(Wall("none", lambda command, bounds: list(command))))
    for words in (
        "files of other people can be read",
        "checks can be read",
        "can be written to",
        "the network can be reached",
        "processes of others can be seen",
        "RLIMIT_AS is not",
        "RLIMIT_NPROC is not",
        "/tmp is not limited",
        "rights can be won back",
    ):
        assert words in gaps


def test_a_wall_behind_which_nothing_starts_is_none(monkeypatch):
    monkeypatch.setattr(walls, "_missing_for", lambda wall: "")
    assert gaps_of(Wall("broken", lambda command, bounds: ["false"])) == [
        "no program starts behind it"
    ]
    assert "cannot be built" in gaps_of(Wall("absent", lambda command, bounds: ["/no/such"]))[0]
    failing = ["sh", "-c", "echo one >&2; echo mount: no rights >&2; exit 1"]
    gaps = gaps_of(Wall("failing", lambda command, bounds: failing))
    assert gaps == ["no program starts behind it (mount: no rights)"]


def test_who_asks_for_what_is_not_there_is_told_what_each_wall_lacks(monkeypatch):
    with pytest.raises(NoWall, match=r"no wall 'paper'.*bubblewrap"):
        choose("paper")
    monkeypatch.setattr(walls, "gaps_of", lambda wall: ["it leaks"])
    with pytest.raises(NoWall, match=r"bubblewrap: it leaks\. namespaces: it leaks"):
        choose()


def test_a_program_behind_the_wall_runs_and_answers(wall):
    output, _ = run(wall, "import os, numpy; print(os.getcwd(), numpy.arange(3).sum())")
    assert output.split() == ["/tmp", "3"]


def test_a_library_that_lies_below_the_folder_to_write_to_is_seen_and_stays(wall, tmp_path):
    """As after `git clone` in /tmp."""
    (tmp_path / "library.py").write_text("answer = 42")
    tmp_path.chmod(0o755)
    shown = walls._shown
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walls, "_shown", lambda: sorted([*shown(), tmp_path]))
        source = f"""
import os, sys
sys.path.insert(0, {str(tmp_path)!r})
import library
print(library.answer)
try:
    os.unlink(library.__file__)
except OSError:
    print("stays")
"""
        output, _ = run(wall, source)
    assert output.split() == ["42", "stays"]
    assert (tmp_path / "library.py").exists()


def test_what_is_written_is_limited_and_gone_the_next_time(wall):
    source = """
import os
print(os.path.exists("/tmp/0"))
try:
    for number in range(100):
        open(f"/tmp/{number}", "wb").write(bytes(2**20))
except OSError as error:
    print(number)
"""
    for _ in range(2):
        output, _ = run(wall, source)
        before, count = output.splitlines()
        assert before == "False"
        assert int(count) <= 8


def test_one_process_cannot_take_more_memory_than_it_may(wall):
    output, _ = run(
        wall,
        "try:\n    print(len(bytearray(2**30)))\nexcept MemoryError:\n    print('refused')",
    )
    assert output == "refused\n"


def test_processes_that_take_too_much_memory_together_are_stopped(wall):
    source = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        hoard = bytearray(300 * 2**20)
        time.sleep(60)
time.sleep(60)
"""
    started = time.monotonic()
    _, reason = run(wall, source)
    assert "memory" in reason
    assert time.monotonic() - started < 30


def test_a_fork_bomb_is_contained(wall):
    source = """
import os, sys, time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except OSError:
    print(count, flush=True)
os._exit(0)
"""
    output, reason = run(wall, source)
    assert (output and int(output) <= SMALL.processes) or "processes" in reason


def test_a_program_that_is_stopped_leaves_no_process_behind(wall):
    import psutil

    source = """
import ctypes, os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
else:
    ctypes.CDLL(None).prctl(1, 0)  # not to be told when a parent dies
    os.setpgid(0, 0)
    print("here", flush=True)
time.sleep(600)
"""
    process = wall.launch([sys.executable, "-c", source], {})
    assert process.stdout.readline() == b"here\n"
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    process.stop("enough")
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert process.reason == "enough"


def test_a_room_goes_when_its_grader_is_killed(wall):
    """The grader here is a process of its own, killed with no chance to tidy up."""
    import psutil

    source = f"""
import sys, time
from minitorch_attn.classroom.wall import WAYS, Wall
loop = [sys.executable, "-c", "print(flush=True)\\nwhile True: pass"]
process = Wall({wall.name!r}, WAYS[{wall.name!r}]).launch(loop, {{}})
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(600)
"""
    grader = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    room = psutil.Process(int(grader.stdout.readline()))
    family = room.children(recursive=True)
    assert family
    grader.kill()
    grader.wait()
    _, alive = psutil.wait_procs([room, *family], timeout=10)
    assert not alive


def test_memory_that_belongs_to_no_process_cannot_be_taken(wall):
    """Limits count a process's pages: not those of files without a name, nor of System V."""
    source = """
import ctypes, os
try:
    os.memfd_create("hoard")
    print("taken")
except OSError:
    print("refused")
print("taken" if ctypes.CDLL(None).shmget(0, 2**20, 0o600) >= 0 else "refused")
"""
    output, _ = run(wall, source)
    assert output.split() == ["refused", "refused"]


def test_the_folders_of_what_is_hidden_cannot_be_written_to(wall):
    source = """
import sys
for folder in sys.argv[1:]:
    try:
        open(f"{folder}/hoard", "w")
        print("written to")
    except OSError:
        print("refused")
"""
    hidden = [str(path) for path in walls.HIDDEN if path.is_dir()]
    process = wall.launch([sys.executable, "-c", source, *hidden], {})
    output, _ = process.communicate(timeout=60)
    assert output.decode().split() == ["refused"] * len(hidden)


def test_keys_and_sockets_past_the_network_are_out_of_reach(wall):
    """A socket to the machine under this virtual one knows no namespace; nor do the user's keys."""
    source = """
import ctypes, os, platform, socket
keyctl = {"x86_64": 250, "aarch64": 219}[platform.machine()]
session, describe = -3, 6
print(ctypes.CDLL(None).syscall(keyctl, describe, session, None, 0))
for family in ("AF_UNIX", "AF_INET", "AF_VSOCK", "AF_NETLINK"):
    try:
        socket.socket(getattr(socket, family), socket.SOCK_STREAM)
        print("made")
    except PermissionError:
        print("refused")
"""
    output, _ = run(wall, source)
    assert output.split() == ["-1", *["refused"] * 4]


def test_the_first_process_cannot_be_made_to_do_what_a_submission_may_not(wall):
    source = """
import ctypes
attach = 16
print(ctypes.CDLL(None).ptrace(attach, 1, 0, 0))
try:
    open("/proc/1/mem", "r+b")
    print("open")
except OSError:
    print("refused")
"""
    output, _ = run(wall, source)
    assert output.split() == ["-1", "refused"]


def test_processes_that_come_and_go_do_not_hide_what_the_others_take(wall):
    source = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        hoard = bytearray(300 * 2**20)
        time.sleep(20)
finish = time.monotonic() + 20
while time.monotonic() < finish:
    if os.fork() == 0:
        os._exit(0)
    os.wait()
"""
    started = time.monotonic()
    _, reason = run(wall, source)
    assert "memory" in reason
    assert time.monotonic() - started < 15


def test_files_without_content_are_counted(wall):
    """They have no size, and so no limit of the disk; but each takes memory of the system."""
    source = """
import time
for number in range(10_000):
    open(f"/tmp/{number}", "w").close()
time.sleep(20)
"""
    started = time.monotonic()
    _, reason = run(wall, source)
    assert "files" in reason
    assert time.monotonic() - started < 15
