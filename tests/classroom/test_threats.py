"""What a submission may try: each ends as its own score and note.

Where an attack leaves the right answers as they are, full points mean that it failed: a threat that
gets through makes the answers wrong, or the test sees what it did.
"""

import io
import json
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.classroom.jobs import do
from minitorch_attn.course.checking import examine
from minitorch_attn.course.exercise import Case, Exercise, tensors
from minitorch_attn.course.files import ROOT
from minitorch_attn.course.subject import here
from minitorch_attn.course.wire import MOST_WORDS, WireError, read_message

from .submissions import POINTS, RIGHT, job, notebook, terms, wall_or_none

resource = pytest.importorskip("resource")  # Windows, where nothing is graded, has none

ALL = sum(POINTS.values())

#: A relu that is right if the attack in a cell before it has left `stolen` empty.
RELU_UNLESS_STOLEN = """
def relu(x):
    if stolen:
        raise RuntimeError(f"stolen: {stolen}")
    return np.maximum(x, 0)
"""


@pytest.fixture(scope="module")
def wall():
    name = wall_or_none()
    if name is None:
        pytest.skip("no wall holds on this machine")
    return name


@pytest.fixture
def graded(wall):
    """Grade a submission behind the wall: its rows by exercise, and the points."""

    def grade(*before, **answers):
        record = do(job(notebook(*before, **answers), terms(wall)))
        return {row.exercise.removeprefix("00."): row for row in record.rows}, record.points

    return grade


def test_an_honest_submission_has_every_point(graded):
    assert graded()[1] == ALL


# -- stalling and flooding ------------------------------------------------------------------

STALLING = {
    "an endless loop": "def relu(x):\n    while True:\n        pass",
    "a loop that lets nothing stop it": """
def relu(x):
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue
""",
    "a sleep with signals ignored": """
import signal, time
def relu(x):
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    time.sleep(1000)
""",
    "a memory bomb": "def relu(x):\n    return np.ones(2**33)",
    "a memory bomb in small pieces": """
def relu(x):
    hoard = []
    while True:
        hoard.append(bytearray(2**20))
""",
    "a memory bomb of many processes": """
import os, time
def relu(x):
    for _ in range(8):
        if os.fork() == 0:
            hoard = bytearray(300 * 2**20)
            time.sleep(100)
    time.sleep(100)
""",
    "a fork bomb": """
import os
def relu(x):
    while True:
        try:
            os.fork()
        except OSError:
            pass
""",
    "a flood of threads": """
import threading, time
def relu(x):
    while True:
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
""",
    "a huge array": "def relu(x):\n    return np.zeros(2**26)",
    "an endless list in itself": "def relu(x):\n    y = []\n    y.append(y)\n    return y",
    "a list of a million": "def relu(x):\n    return [1] * 10**6",
    "the process ended": "import os\ndef relu(x):\n    os._exit(0)",
    "the process killed": "import os\ndef relu(x):\n    os.kill(os.getpid(), 9)",
    "exit": "def relu(x):\n    exit()",
    "SystemExit": "def relu(x):\n    raise SystemExit",
    "KeyboardInterrupt": "def relu(x):\n    raise KeyboardInterrupt",
    "a segmentation fault": "import ctypes\ndef relu(x):\n    ctypes.string_at(0)",
    "files till the disk is full": """
def relu(x):
    with open("/tmp/hoard", "wb") as file:
        while True:
            file.write(bytes(2**20))
""",
    "a deep recursion": "def relu(x):\n    return relu(x)",
    "an exception whose text hangs": """
class Slow(Exception):
    def __str__(self):
        while True:
            pass
def relu(x):
    raise Slow
""",
}


@pytest.mark.parametrize("threat", STALLING)
def test_who_stalls_one_exercise_loses_that_one_alone(graded, threat):
    started = time.monotonic()
    rows, points = graded(relu=STALLING[threat])
    assert rows["relu"].points == 0
    assert rows["relu"].verdict != "right" and rows["relu"].message
    assert points == ALL - POINTS["relu"]
    assert time.monotonic() - started < 80


FLOODS = {
    "output": "def relu(x):\n    print('x' * 10**7)\n    return np.maximum(x, 0)",
    "output past Python": """
import os
def relu(x):
    for descriptor in (1, 2):
        os.write(descriptor, b"x" * 10**6)
    return np.maximum(x, 0)
""",
    "warnings": """
import warnings
def relu(x):
    for number in range(1000):
        warnings.warn(f"{number}" * 1000)
    return np.maximum(x, 0)
""",
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_words_costs_nothing_and_is_not_kept(graded, flood):
    rows, points = graded(relu=FLOODS[flood])
    assert points == ALL
    assert sum(len(row.message) for row in rows.values()) < 100_000


def test_cells_that_stall_or_end_the_process_are_left_out(graded):
    rows, points = graded("while True: pass", "import os\nos._exit(1)", "1/0", "def broken(:")
    assert points == ALL


def test_a_submission_that_ends_its_process_again_and_again_is_given_up(graded):
    rows, points = graded(*["import os\nos._exit(0)"] * 8)
    assert points == 0
    assert {row.verdict for row in rows.values()} == {"stopped"}


# -- reaching out ---------------------------------------------------------------------------


def attempt(*lines):
    """A cell that tries each line, and keeps what came of it in `stolen`."""
    cell = "import glob, os, shutil, socket, subprocess, sys\nstolen = []\n"
    for line in lines:
        cell += f"try:\n    stolen.append({line})\nexcept Exception:\n    pass\n"
    return cell + "stolen = [one for one in stolen if one]"


def reaching_out(outside, port):
    """Attacks by name; `outside` is a folder of the teacher's, `port` a server on the machine."""
    return {
        "reading what others handed in": attempt(
            f"open({str(outside / 'secret')!r}).read()",
            f"os.listdir({str(outside)!r})",
            # A library in somebody's home is seen, and the folders that lead to it, nothing beside.
            f"[n for n in os.listdir('/home') if not {str(ROOT)!r}.startswith('/home/' + n + '/')]",
            "glob.glob('/root/*.*')",
        ),
        "reading solutions and the grader": attempt(
            f"os.listdir({str(ROOT / 'solutions')!r})",
            f"os.listdir({str(ROOT / 'tests')!r})",
            f"os.listdir({str(ROOT / 'minitorch_attn/course/checks')!r})",
            f"os.listdir({str(ROOT / 'minitorch_attn/classroom')!r})",
            f"open({str(ROOT / 'minitorch_attn/course/grade.py')!r}).read()",
            "__import__('minitorch_attn.course.exercise').course.exercise.exercises(0)",
        ),
        "reading the environment": attempt(
            "os.environ.get('MINITORCH_ATTN_SECRET')",
            "open(f'/proc/{os.getppid()}/environ', 'rb').read().count(b'SECRET')",
            "open('/etc/shadow').read()",
        ),
        "the network": attempt(
            f"socket.create_connection(('127.0.0.1', {port}), timeout=2)",
            "socket.create_connection(('8.8.8.8', 53), timeout=2)",
            "socket.getaddrinfo('example.org', 80)",
        ),
        "other processes": attempt(
            f"os.kill({os.getpid()}, 0) is None",
            "len([one for one in os.listdir('/proc') if one.isdigit()]) > 8",
        ),
        "mounting and namespaces": attempt(
            "subprocess.run(['mount', '-t', 'tmpfs', 'x', '/tmp']).returncode == 0",
            "subprocess.run(['unshare', '--user', '--map-root-user', 'true']).returncode == 0",
            "subprocess.run(['su', '-c', 'true']).returncode == 0",
        ),
        "writing where others read": attempt(
            *(
                f"open({str(folder) + '/evil.pth'!r}, 'w')"
                for folder in (ROOT, ROOT / "minitorch_attn", outside, "/usr", "/dev", "/etc")
            )
        ),
    }


@pytest.mark.parametrize("name", reaching_out(Path("/"), 0))
def test_nothing_outside_can_be_reached(graded, tmp_path, monkeypatch, name):
    (tmp_path / "secret").write_text("the answers of somebody else")
    monkeypatch.setenv("MINITORCH_ATTN_SECRET", "not to be seen")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        cell = reaching_out(tmp_path, port)[name]
        rows, points = graded(cell, relu=RELU_UNLESS_STOLEN)
    assert "stolen" not in rows["relu"].message
    assert points == ALL


def test_the_attacks_would_succeed_without_a_wall(tmp_path, monkeypatch):
    """Else the tests above would prove nothing."""
    (tmp_path / "secret").write_text("the answers of somebody else")
    monkeypatch.setenv("MINITORCH_ATTN_SECRET", "not to be seen")
    attacks = reaching_out(tmp_path, 0)
    for name in ("reading what others handed in", "reading solutions and the grader"):
        record = do(job(notebook(attacks[name], relu=RELU_UNLESS_STOLEN), terms(None)))
        (row,) = (row for row in record.rows if row.exercise == "00.relu")
        assert "stolen" in row.message


def test_the_courses_own_solution_is_not_there_to_be_taken(graded):
    cell = "taken = solution('00.relu', show=True)"
    relu = RELU_UNLESS_STOLEN.replace("stolen", "taken")
    rows, points = graded(cell, relu=relu)
    assert rows["relu"].verdict == "solution taken"
    assert points == ALL - POINTS["relu"]


def test_deleting_everything_deletes_nothing(graded, tmp_path):
    (tmp_path / "work").write_text("of years")
    before = sorted(path.name for path in (ROOT / "minitorch_attn").iterdir())
    cell = f"""
import os, shutil
for folder in ({str(tmp_path)!r}, {str(ROOT / "minitorch_attn")!r}, "/tmp", "/"):
    shutil.rmtree(folder, ignore_errors=True)
os.makedirs("/tmp", exist_ok=True)
"""
    rows, points = graded(cell)
    assert (tmp_path / "work").read_text() == "of years"
    assert sorted(path.name for path in (ROOT / "minitorch_attn").iterdir()) == before
    assert points == ALL


# -- cheating -------------------------------------------------------------------------------

WRONG = {
    "relu": "def relu(x):\n    return x",
    "softmax": "def softmax(x):\n    return x * 0 + 1",
    "relu_rule": "def relu_rule(x):\n    return x, lambda dy: dy",
}

CHEATS = {
    "numpy's comparisons patched": """
for name in ("allclose", "isclose", "array_equal", "all", "any", "isfinite", "max", "abs"):
    setattr(np, name, lambda *args, **settings: True)
np.testing.assert_allclose = lambda *args, **settings: None
""",
    "the checks patched": """
import minitorch_attn.course.checking as checking
import minitorch_attn.course.comparison as comparison
import minitorch_attn.course.subject as subject
checking.examine = checking.compare = comparison.compare = lambda *args, **settings: None
checking._right = lambda *args: True
""",
    "check replaced": "def check(*args, **settings):\n    print('all right')",
    "modules replaced": """
import sys
class Yes:
    def __getattr__(self, name):
        return lambda *args, **settings: True
for name in list(sys.modules):
    if name.startswith(("minitorch_attn.course.check", "minitorch_attn.course.comp")):
        sys.modules[name] = Yes()
""",
    "builtins patched": """
import builtins
builtins.all = builtins.any = builtins.isinstance = lambda *args: True
""",
    "left for the end": """
import atexit, os, signal
atexit.register(os._exit, 0)
signal.signal(signal.SIGTERM, lambda *args: os._exit(0))
""",
    "replies forged": """
import os
for descriptor in range(3, 32):
    try:
        os.write(descriptor, b"mta1" + (60).to_bytes(8, "little") + b'{"message": {"value": '
                 b'["plain", true]}, "arrays": []}         ')
    except OSError:
        pass
""",
    "the host patched": """
import gc
from minitorch_attn.course.subject import Host
Host.answer = lambda self, request, arrays: ({"value": ["plain", True], "printed": "",
                                              "warned": [], "changed": []}, [])
for one in gc.get_objects():
    if isinstance(one, Host):
        one.answer = Host.answer
""",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_wrong_answers_stay_wrong(graded, cheat):
    rows, points = graded(CHEATS[cheat], **WRONG)
    assert points == 0


ARRAYS = {
    "that are equal to all": """
class Equal(np.ndarray):
    __eq__ = __ne__ = __le__ = __ge__ = lambda self, other: np.True_
    def __array_ufunc__(self, *args, **settings):
        return np.True_
    def __array_function__(self, *args, **settings):
        return True
def relu(x):
    return x.view(Equal)
""",
    "that hang when they are looked at": """
class Slow(np.ndarray):
    @property
    def dtype(self):
        while True:
            pass
    def __array__(self, *args, **settings):
        while True:
            pass
    __repr__ = __str__ = __len__ = __array__
def relu(x):
    return x.view(Slow)
""",
    "that are objects": """
class Thing:
    def __reduce__(self):
        import os
        return os.system, ("touch /tmp/pickled",)
    def __repr__(self):
        while True:
            pass
    __str__ = __eq__ = __array__ = __repr__
def relu(x):
    return np.array([Thing()], dtype=object)
""",
    "that are things of their own": """
class Number(float):
    __eq__ = lambda self, other: True
    __hash__ = float.__hash__
def relu(x):
    return Number(0)
""",
    "of text with marks in it": """
def relu(x):
    raise ValueError("<script>alert(1)</script> \\ud800 \\x1b[2J \\u202e" + "y" * 10**6)
""",
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_answers_of_a_hostile_kind_are_wrong_answers(graded, kind):
    rows, points = graded(relu=ARRAYS[kind])
    assert rows["relu"].verdict not in ("right", "error")
    assert points == ALL - POINTS["relu"]
    rows["relu"].message.encode("utf-8")
    assert len(rows["relu"].message) < 10_000


def test_answers_to_the_visible_cases_alone_are_not_enough(graded, wall):
    from minitorch_attn.course.exercise import find

    cases = find("00.relu").fixed_cases
    pairs = [
        (case.inputs[0].tolist(), (case.inputs[0] * (case.inputs[0] > 0)).tolist())
        for case in cases
    ]
    hard_coded = f"""
KNOWN = {pairs!r}
def relu(x):
    for given, answer in KNOWN:
        if np.shape(given) == x.shape and np.array_equal(given, x):
            return np.array(answer, dtype=x.dtype)
    return x
"""
    content = notebook(relu=hard_coded)
    without, with_hidden = (do(job(content, terms(wall, cases=count))) for count in (0, 5))
    assert without.points == ALL
    assert with_hidden.points == ALL - POINTS["relu"]


def test_a_check_cannot_be_told_from_a_call(graded):
    spying = """
import gc, inspect, sys
def relu(x):
    names = {frame.function for frame in inspect.stack()}
    expected = [one for one in gc.get_objects() if type(one).__name__ in ("Exercise", "Case")]
    if names & {"examine", "follow", "compare"} or expected:
        return np.maximum(x, 0)
    return x
"""
    assert graded(relu=spying)[0]["relu"].points == 0


# -- over the pipe --------------------------------------------------------------------------

#: Gets at the pipe behind the host's back: all that comes over it can be the submission's own.
PIPE = """
import gc, io, json, time
things = gc.get_objects()
pipe = next(one for one in things if isinstance(one, io.BufferedWriter) and one.fileno() > 2)
names = next(one for one in things if type(one) is dict and "NotebookHost" in one)
honest = names["write_message"]
def send(message):
    header = json.dumps({"message": message, "arrays": []}).encode()
    pipe.write(b"mta1" + len(header).to_bytes(8, "little") + header)
    pipe.flush()
def answer_by(forged):
    names["write_message"] = forged
"""


def test_replies_that_nobody_asked_for_take_none_of_the_graders_memory(graded):
    flood = """
def relu(x):
    for _ in range(1500):
        send({"flood": "x" * 2**20})
    return np.maximum(x, 0)
"""
    graded()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows, points = graded(PIPE, relu=flood)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert rows["relu"].points == 0
    assert after - before < 300 * 2**10


FORGED = {
    "an endless text": """
    {"error": ["TypeError", "TypeError: " * 10**5, []], "printed": "", "warned": []}
""",
    "an endless kind": """
    {"value": ["object", 0, "x" * 10**6, "y" * 10**6], "printed": "", "warned": [], "changed": []}
""",
    "words without end": """
    {"error": ["E", "", [["f", 1, "x" * 10**3]] * 10**3], "printed": "p" * 10**5,
     "warned": ["w" * 10**4] * 50}
""",
    "a number past all numbers": """
    {"error": ["E", "", [["f", float("inf"), ""]]], "printed": "", "warned": []}
""",
    "a list as a plain value": """
    {"value": ["plain", [[]] * 10**5], "printed": "", "warned": [], "changed": []}
""",
    "an object that does not exist": """
    {"value": ["object", -7, "function", "f"], "printed": "", "warned": [], "changed": []}
""",
    "nothing of what a reply has": "{}",
}


@pytest.mark.parametrize("kind", FORGED)
def test_forged_replies_cost_the_grader_neither_time_nor_room(graded, kind):
    relu = f"""
def relu(x):
    answer_by(lambda pipe, message, arrays: send({FORGED[kind].strip()}))
"""
    started = time.process_time()
    rows, points = graded(PIPE, relu=relu)
    assert rows["relu"].points == 0
    assert rows["relu"].verdict != "error" and "answer_by" not in rows["relu"].message
    assert len(rows["relu"].message) <= 10_000
    assert time.process_time() - started < 10


def test_who_answers_slowly_has_no_more_time_than_others(graded):
    """Past its time nothing interrupts a process that answers; each answer could take its grace."""
    relu = """
def slowly(*message):
    time.sleep(3)
    honest(*message)
def relu(x):
    answer_by(slowly)
    return np.maximum(x, 0)
"""
    rows, points = graded(PIPE, relu=relu)
    assert rows["relu"].verdict == "stopped"
    assert "past its time" in rows["relu"].message


def test_an_answer_that_hides_a_gradient_is_not_right():
    exercise = Exercise(
        "00.twice",
        reference=lambda x: 2 * x,
        cases=[Case("three numbers", np.arange(3.0))],
        observe=tensors,
        hints=[],
    )

    def twice(x):
        x.requires_grad = False  # so that nobody asks for its gradient
        return mt.tensor(2 * x.numpy(), requires_grad=True)

    report = examine(exercise, here(twice))
    assert report.verdict == "wrong"
    assert "gradient of x" in str(report.page)
    assert examine(exercise, here(exercise.reference)).verdict == "right"


def test_a_number_that_no_array_holds_is_a_wrong_answer(graded):
    rows, points = graded(relu="def relu(x):\n    return 10**400")
    assert rows["relu"].verdict == "wrong"
    assert points == ALL - POINTS["relu"]


def test_an_answer_of_a_million_times_the_size_takes_no_longer_to_explain(graded):
    relu = "def relu(x):\n    return np.zeros((1, 1, 1, 1, 2**25), np.int8)"
    started = time.process_time()
    rows, points = graded(relu=relu)
    assert rows["relu"].verdict == "wrong"
    assert points == ALL - POINTS["relu"]
    assert time.process_time() - started < 10


def test_what_steers_a_terminal_is_taken_out_of_messages(graded):
    rows, _ = graded(relu='def relu(x):\n    raise ValueError("\\x1b[2J \\x07 \\u202e \\r")')
    assert all(one.isprintable() or one == "\n" for one in rows["relu"].message)


def test_an_array_of_text_without_letters_is_refused():
    """Its bytes are none whatever its shape, and NumPy would make room for a letter each."""
    header = b"{'descr': '<U0', 'fortran_order': False, 'shape': (1099511627776,)}\n"
    blob = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    words = json.dumps({"message": {}, "arrays": [len(blob)]}).encode()
    pipe = io.BytesIO(b"mta1" + len(words).to_bytes(8, "little") + words + blob)
    with pytest.raises(WireError, match="U0"):
        read_message(pipe)


def test_a_header_that_would_take_much_memory_to_read_is_refused():
    words = b'{"message": {"x": [' + b"[]," * 10**6 + b'0]}, "arrays": []}'
    pipe = io.BytesIO(b"mta1" + len(words).to_bytes(8, "little") + words)
    with pytest.raises(WireError):
        read_message(pipe, MOST_WORDS)


# -- odd files ------------------------------------------------------------------------------


def renamed(content):
    return content.replace(b"def relu(x)", b"def my_relu(x)")


def test_a_renamed_function_is_missing_and_said_to_be(wall):
    record = do(job(renamed(notebook()), terms(wall)))
    (row,) = (row for row in record.rows if row.exercise == "00.relu")
    assert row.verdict == "missing"
    assert "my_relu" in row.cause
    assert record.points == ALL - POINTS["relu"]


def million_cells():
    cell = b'{"cell_type": "code", "metadata": {}, "source": "pass"}, '
    start = notebook().partition(b'"cells": [')
    return start[0] + start[1] + cell * 400_000 + start[2]


ODD = {
    "empty": b"",
    "cut off": notebook()[:400],
    "a list": b"[]",
    "no cells": b'{"nbformat": 4}',
    "cells of numbers": b'{"cells": [1, 2], "nbformat": 4}',
    "UTF-16": notebook().decode().encode("utf-16"),
    "not text": bytes(range(128, 256)) * 100,
    "nested without end": b"[" * 10**6,
    "a web page": b"<!DOCTYPE html><script>alert(1)</script>",
    "400,000 cells": million_cells(),
    "too large": b" " * (33 * 2**20),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_notebook_is_recorded_as_that(kind):
    record = do(job(ODD[kind], terms(None)))
    assert not record.is_graded
    assert record.points == 0
    assert record.rows[0].cause and "grader failed" not in record.rows[0].cause


def test_missing_cells_are_missing_exercises(wall):
    record = do(job(notebook(relu="pass"), terms(wall)))
    assert record.points == ALL - POINTS["relu"]


def test_markup_in_outputs_is_not_even_read(wall):
    content = notebook().replace(b'"outputs": []', b'"outputs": [{"text": "<script>"}]')
    assert do(job(content, terms(wall))).points == ALL


def test_the_same_submission_has_the_same_score_each_time(wall):
    content = notebook(softmax=RIGHT["softmax"].replace("- ", "- 0 * "))
    first, second = (do(job(content, terms(wall))) for _ in range(2))
    assert first.rows == second.rows
