"""The seam between a check and the learner's code, in this process and through a worker."""

import io
import json
import signal
import struct
import threading
import time

import numpy as np
import pytest

from minitorch_attn.course import wire
from minitorch_attn.course.subject import (
    Code,
    Handle,
    Side,
    SubjectError,
    SubjectLost,
    TimeLimit,
    Worker,
    fetch,
    here,
    keep,
    kind_of,
    there,
    time_limit,
)

SOURCE = """
import numpy as np
calls = []

def echo(x):
    return x

def describe(x):
    return repr(x)

def scale(factor):
    def apply(x):
        return factor * x
    return apply

def overwrite(x, y, *, out=None):
    y += 1
    return x

def fails(x):
    helper = x.nothing
    return helper

def raises(error):
    raise error(f"at {object()}")

def integrate(f, x):
    return f(x) + f(-x)

def chatter(x):
    print("here", x)
    return np.log(np.array([-1.0]))

def forever():
    while True:
        pass

def forever_again():
    try:
        while True:
            pass
    except BaseException:
        pass
    while True:
        pass

def leaves():
    import os
    os._exit(3)

def many():
    return [np.zeros(2**24) for i in range(5)]

def endless_list():
    deep = []
    for i in range(100):
        deep = [deep]
    return deep

class Counter:
    def __init__(self, start=0):
        self.count = start

    def add(self, n):
        self.count += n
        return self
"""


class Local:
    """The learner's names in this process."""

    def __init__(self, tmp_path):
        path = tmp_path / "learner.py"
        path.write_text(SOURCE)
        self.names = {}
        exec(compile(SOURCE, str(path), "exec"), self.names)

    def __call__(self, name, seconds=20.0):
        return here(self.names[name], seconds)


class Remote:
    """The same names in a worker."""

    def __init__(self, tmp_path):
        self.worker = Worker(tmp_path, grace=3.0)
        Side(self.worker.send, 30.0).ask("run", source=SOURCE, title="<cell 1>")

    def __call__(self, name, seconds=20.0):
        return Side(self.worker.send, seconds).ask("name", name=name)


@pytest.fixture(scope="module", params=[Local, Remote])
def learner(request, tmp_path_factory):
    side = request.param(tmp_path_factory.mktemp("learner"))
    yield side
    if isinstance(side, Remote):
        side.worker.close()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int8).reshape(2, 3)),
        np.arange(10.0, dtype=np.float32)[::3],
        np.array(2.5),
        np.zeros((0, 4)),
        np.array([True, False]),
        np.array([1 + 2j, np.nan]),
        np.array(["cat", "dog"]),
        np.float32(1.5),
        np.int64(-3),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_arrays_cross_unchanged(learner, array):
    back = learner("echo")(array)
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    "data",
    [None, True, 3, 2.5, float("inf"), "text", (), [1, (2, "a")], {"a": [1.5], 3: None}],
    ids=repr,
)
def test_plain_data_crosses_unchanged(learner, data):
    back = learner("echo")(data)
    assert back == data and type(back) is type(data)


def test_arrays_inside_containers_cross(learner):
    back = learner("echo")({"pair": (np.ones(2), [np.zeros(1)])})
    np.testing.assert_array_equal(back["pair"][0], [1, 1])
    np.testing.assert_array_equal(back["pair"][1][0], [0])


def test_what_is_no_data_stays_there_and_can_be_called(learner):
    double = learner("scale")(2.0)
    assert isinstance(double, Handle)
    assert kind_of(double) == "function" and repr(double) == "the function apply"
    np.testing.assert_array_equal(double(np.array([1.0, 2.0])), [2.0, 4.0])


def test_attributes_are_read_written_and_objects_passed_back(learner):
    counter = learner("Counter")(start=2)
    assert counter.count == 2
    counter.count = 10
    assert counter.add(5).count == 15
    again = learner("Counter")
    assert kind_of(again) == "type" and repr(again) == "the class Counter"


def test_a_function_crosses_as_code(learner):
    integrate = learner("integrate")
    f = Code("lambda x: np.exp(x)")
    assert integrate(f, np.array(0.0)) == pytest.approx(2.0)


def test_nothing_else_crosses_to_the_learners_side(learner):
    with pytest.raises(TypeError, match="a function cannot cross"):
        learner("integrate")(lambda x: x, 1.0)
    with pytest.raises(TypeError, match="a object cannot cross"):
        learner("echo")(object())


def test_data_can_be_kept_there_and_fetched(learner):
    overwrite = learner("overwrite")
    y = keep(overwrite, np.zeros(2))
    overwrite(1, y)
    np.testing.assert_array_equal(fetch(y), [1.0, 1.0])


def test_expressions_are_evaluated_there(learner):
    echo = learner("echo")
    assert there(echo, "np.pi") == pytest.approx(np.pi)
    tensor = there(echo, "mt.tensor")(np.ones(3))
    assert kind_of(echo(tensor)) == "Tensor"


def test_arguments_written_to_are_named_and_the_caller_keeps_its_own(learner):
    overwrite = learner("overwrite")
    x, y = np.zeros(2), np.zeros(2)
    overwrite(x, y)
    assert overwrite._side.changed == ["y"]
    np.testing.assert_array_equal(y, [0.0, 0.0])


def test_an_item_replaced_by_something_else_is_a_change():
    def forget(nodes, names):
        nodes[0], names["a"] = None, None

    subject = here(forget)
    subject([[1.0]], {"a": {}})
    assert subject._side.changed == ["nodes", "names"]


def test_a_result_is_a_copy_of_what_the_learner_keeps(learner):
    echo = learner("echo")
    x = np.zeros(2)
    echo(x)[0] = 5
    assert x[0] == 0


def test_print_and_warnings_are_caught(learner, capsys):
    chatter = learner("chatter")
    chatter(3)
    assert chatter._side.printed == ["here 3\n"]
    assert chatter._side.warned == ["invalid value encountered in log"]
    assert capsys.readouterr() == ("", "")


def test_a_flood_of_print_is_cut(learner):
    chatter = learner("chatter")
    chatter("x" * 10_000)
    assert len(chatter._side.printed[0]) == 2_000


def test_an_exception_arrives_with_the_learners_own_lines(learner):
    with pytest.raises(SubjectError) as caught:
        learner("fails")(np.zeros(1))
    error = caught.value
    assert error.kind == "AttributeError"
    assert "no attribute 'nothing'" in error.message
    assert [frame.function for frame in error.frames] == ["fails"]
    assert error.frames[0].source == "helper = x.nothing"


def test_addresses_are_taken_out_of_messages(learner):
    with pytest.raises(SubjectError, match=r"<object object at 0x\.\.\.>"):
        learner("raises")(Code("ValueError"))


@pytest.mark.parametrize("error", ["SystemExit", "RecursionError", "MemoryError"])
def test_any_exception_is_an_answer(learner, error):
    with pytest.raises(SubjectError) as caught:
        learner("raises")(Code(error))
    assert caught.value.kind == error


@pytest.mark.parametrize("name", ["many", "endless_list"])
def test_a_result_that_is_too_much_is_refused(learner, name):
    with pytest.raises(SubjectError) as caught:
        learner(name)()
    assert caught.value.kind == "TooMuch"


@pytest.mark.parametrize("name", ["forever", "forever_again"])
def test_an_endless_loop_is_ended(learner, name):
    started = time.monotonic()
    with pytest.raises(SubjectError) as caught:
        learner(name, seconds=0.3)()
    assert caught.value.kind == "TimeLimit"
    assert caught.value.frames[-1].function == name
    assert time.monotonic() - started < 4.0


def test_time_is_counted_over_all_calls(learner):
    sleep = there(learner("echo", seconds=0.5), "__import__('time').sleep")
    sleep(0.3)
    with pytest.raises(SubjectError, match="TimeLimit"):
        sleep(0.3)


# -- this process ---------------------------------------------------------------------------


def test_stop_pressed_by_the_user_is_not_swallowed():
    def press_stop():
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        here(press_stop, seconds=5.0)()


def test_the_signal_handler_is_restored():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TimeLimit), time_limit(0.05):
        time.sleep(5)
    with time_limit(5):
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_there_is_no_limit_but_it_works():
    results = []
    thread = threading.Thread(target=lambda: results.append(here(lambda: 7, seconds=1.0)()))
    thread.start()
    thread.join()
    assert results == [7]


def test_an_array_of_objects_stays_where_it_is():
    back = here(lambda: np.array([object(), None]))()
    assert kind_of(back) == "ndarray"


def test_a_subclass_of_ndarray_arrives_as_a_plain_array():
    class Hostile(np.ndarray):
        def __array_finalize__(self, parent):
            pass

        def __eq__(self, other):
            raise RuntimeError("never asked")

        __hash__ = None

    back = here(lambda: np.zeros(2).view(Hostile))()
    assert type(back) is np.ndarray


# -- the worker -----------------------------------------------------------------------------


@pytest.fixture
def worker(tmp_path):
    with Worker(tmp_path, grace=1.0) as worker:
        yield worker


def test_a_process_that_ends_itself_is_lost_not_waited_for(tmp_path):
    with Worker(tmp_path) as worker:
        side = Side(worker.send, 20.0)
        side.ask("run", source=SOURCE, title="<cell 1>")
        with pytest.raises(SubjectLost, match="process ended"):
            side.ask("name", name="leaves")()
        with pytest.raises(SubjectLost, match="has ended"):
            side.ask("name", name="echo")


def test_a_process_that_cannot_be_interrupted_is_stopped(worker):
    source = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    started = time.monotonic()
    with pytest.raises(SubjectLost, match="did not answer in time"):
        Side(worker.send, 0.5).ask("run", source=source, title="<cell 1>")
    assert time.monotonic() - started < 10


def test_cells_may_print_read_and_write_descriptors_without_disturbing_the_messages(worker):
    side = Side(worker.send, 20.0)
    source = "import os, sys\nprint('noise')\nos.write(1, b'noise')\nos.write(2, b'noise')"
    side.ask("run", source=source, title="<cell 1>")
    with pytest.raises(SubjectError, match="EOF|StdinNotImplemented"):
        side.ask("run", source="input()", title="<cell 2>")
    side.ask("run", source="answer = 42", title="<cell 3>")
    assert side.ask("name", name="answer") == 42


def test_magics_and_await_work_in_cells(worker):
    pytest.importorskip("IPython")
    side = Side(worker.send, 20.0)
    side.ask("run", source="%matplotlib inline\n%time x = 3", title="<cell 1>")
    side.ask("run", source="import asyncio\nawait asyncio.sleep(0)", title="<cell 2>")
    assert side.ask("name", name="x") == 3


def test_a_flood_of_print_in_a_cell_is_cut_and_costs_little_time(worker):
    side = Side(worker.send, 20.0)
    side.ask("run", source="x = 3", title="<cell 1>")
    started = time.monotonic()
    source = (
        "import sys\nfor i in range(300_000):\n    print(i, file=[sys.stdout, sys.stderr][i % 2])"
    )
    side.ask("run", source=source, title="<cell 2>")
    assert time.monotonic() - started < 2.5
    assert [len(text) for text in side.printed] == [2_000]


def test_a_name_that_is_not_there(worker):
    with pytest.raises(SubjectError, match="KeyError: 'squeeze'"):
        Side(worker.send, 20.0).ask("name", name="squeeze")


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"printed": "", "warned": [], "changed": []},
        {"printed": "", "warned": [], "changed": [], "value": ["array", 7]},
        {"printed": "", "warned": [], "changed": [], "value": ["object", "x", 1, 2]},
        {"printed": "", "warned": [], "changed": [], "value": ["dict", [["list", []]]]},
        {"printed": "", "warned": 3, "changed": [], "value": ["plain", 1]},
        {"printed": "", "warned": [], "error": ["ValueError", "x", [1]]},
    ],
)
def test_a_reply_that_is_none_is_a_lost_subject(reply):
    with pytest.raises(SubjectLost, match="cannot be read"):
        Side(lambda message, arrays: (reply, [])).ask("name", name="x")


# -- the wire -------------------------------------------------------------------------------


def message_with(blob, lengths=None):
    header = json.dumps({"message": {}, "arrays": lengths or [len(blob)]}).encode()
    return io.BytesIO(struct.pack("<4sQ", b"mta1", len(header)) + header + blob)


def npy(array, **settings):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **settings)
    return buffer.getvalue()


def lying_npy():
    """A header that promises 8 TB over 8 bytes of data."""
    return npy(np.zeros(1)).replace(b"(1,), }" + b" " * 13, b"(1000000000000,), }" + b" ")


@pytest.mark.parametrize(
    "blob",
    [
        npy(np.array([{}], dtype=object), allow_pickle=True),
        lying_npy(),
        npy(np.zeros(3))[:-4],
        npy(np.zeros(1, dtype=[("a", float)])),
        b"not an array",
    ],
    ids=["pickle", "lying", "short", "fields", "noise"],
)
def test_what_is_no_honest_array_is_refused(blob):
    with pytest.raises(wire.WireError):
        wire.read_message(message_with(blob))


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"mta1",
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<4sQ", b"mta1", 2**60),
        struct.pack("<4sQ", b"mta1", 4) + b"nope",
        struct.pack("<4sQ", b"mta1", 100_000) + b"[" * 100_000,
        message_with(b"", lengths=[-5]).getvalue(),
        message_with(b"", lengths=[2**50]).getvalue(),
        message_with(b"", lengths=["x"]).getvalue(),
    ],
    ids=["empty", "cut", "other", "huge", "no-json", "deep", "negative", "vast", "text"],
)
def test_what_is_no_message_is_refused(stream):
    with pytest.raises(wire.WireError):
        wire.read_message(io.BytesIO(stream))


def test_a_message_that_is_too_large_is_not_sent(monkeypatch):
    monkeypatch.setattr(wire, "MOST_BYTES", 1000)
    with pytest.raises(wire.WireError, match="at most 1000"):
        wire.write_message(io.BytesIO(), {}, [np.zeros(1000)])
