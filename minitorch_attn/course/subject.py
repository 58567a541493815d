"""The seam: the one way in which a check reaches the learner's object.

A check never touches the object itself. It holds a `Handle`, and each thing it does with the
handle becomes a request to the side where the learner's code lives:

    the check's side                    the learner's side
    Handle, Side  -- request, arrays -> Host: keeps the objects, does what it is asked
                  <- reply, arrays ---

Only arrays and plain data (numbers, text, None, and tuples, lists and dicts of these) cross.
Whatever else the learner's code returns (a closure, a module, a Tensor) stays where it is, and
the check gets a handle on it: call it, read its attributes, pass it back as an argument. A check
therefore reads like ordinary Python::

    y, vjp_x = subject(x)           # y is an array, vjp_x a handle
    dx = vjp_x(dy)                  # an array

The requests reach the host by a function call in the learner's own notebook (`here`), or through
the pipes of another process when work is graded (`Worker`; its far end is worker.py). The checks
are the same, and cannot tell.
"""

from __future__ import annotations

import _thread
import contextlib
import inspect
import io
import linecache
import os
import queue
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .files import ROOT
from .wire import KINDS, MOST_BYTES, MOST_WORDS, read_message, write_message

Message = dict[str, Any]
Arrays = list[np.ndarray]

_DEEPEST = 20
_MOST_ITEMS = 10_000
_MOST_PRINTED = 2_000
_MOST_WARNED = 20
_MOST_LETTERS = 500  # of an exception's text, of a warning
_MOST_ALTOGETHER = 256 * 2**20  # bytes of arrays that come back in one check: they are all kept
_LATEST = 5.0  # seconds past its time in which a check may still tidy up


class SubjectError(Exception):
    """The learner's code raised an exception.

    Attributes
    ----------
    kind, message : str
        The exception's type name and text.
    frames : tuple of Frame
        Where it came from: the lines of the learner's own code, outermost first.
    """

    def __init__(self, kind: str, message: str, frames: tuple[Frame, ...] = ()):
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.frames = kind, message, frames


class SubjectLost(Exception):
    """The learner's side no longer answers: its process ended or had to be stopped."""


class TimeLimit(BaseException):
    """Raised in code that ran too long; not an Exception, so that `except Exception` lets it go."""


class TooMuch(ValueError):
    """A value that is too large or too deeply nested to cross."""


@dataclass(frozen=True)
class Frame:
    """One line of a traceback."""

    function: str
    line: int
    source: str


@dataclass(frozen=True)
class Code:
    """A Python expression that is evaluated on the learner's side, with `np` and `mt` at hand.

    As an argument it passes a function: ``subject(Code("lambda x: np.sum(x ** 2)"), x)``.
    """

    text: str


# -- what crosses ---------------------------------------------------------------------------


def encode(value: Any, arrays: Arrays, keep: Callable[[Any], list], depth: int = 0) -> list:
    """Write a value as nested lists for JSON; its arrays are copied to `arrays`.

    Parameters
    ----------
    value : object
        Anything; what is neither data nor made of data is handed to `keep`.
    arrays : list of ndarray
        The arrays found are appended here.
    keep : callable
        Stands in for an object that cannot cross: returns the list that names it.

    Raises
    ------
    TooMuch
        If the value is nested deeper, or is larger, than a message may be.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return ["plain", value]
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in KINDS:
        # view() strips a subclass without running its code
        array = value.view(np.ndarray) if isinstance(value, np.ndarray) else np.asarray(value)
        if array.nbytes + sum(one.nbytes for one in arrays) > MOST_BYTES // 2:
            raise TooMuch(f"an array of shape {array.shape} ({array.nbytes / 2**20:.0f} MiB)")
        arrays.append(array.copy())
        return ["array" if isinstance(value, np.ndarray) else "scalar", len(arrays) - 1]
    if kind in (tuple, list, dict):
        if depth == _DEEPEST or len(value) > _MOST_ITEMS:
            raise TooMuch(f"a {kind.__name__} of {len(value)} items, nested {depth} deep")
        items = value.items() if kind is dict else value
        return [kind.__name__, [encode(item, arrays, keep, depth + 1) for item in items]]
    return keep(value)


def decode(node: list, arrays: Arrays, find: Callable[[list], Any]) -> Any:
    """Undo `encode`; `find` turns the list that names an object into what stands for it."""
    match node:
        case ["plain", None | bool() | int() | float() | str() as value]:
            return value
        case ["array", int(index)]:
            return arrays[index]
        case ["scalar", int(index)]:
            return arrays[index][()]
        case ["tuple", list(items)]:
            return tuple(decode(item, arrays, find) for item in items)
        case ["list", list(items)]:
            return [decode(item, arrays, find) for item in items]
        case ["dict", list(items)]:
            return dict(decode(item, arrays, find) for item in items)
        case _:
            return find(node)


# -- the check's side -----------------------------------------------------------------------


class Side:
    """The learner's side as a check sees it.

    Parameters
    ----------
    send : callable
        Carries a request with its arrays over, and brings the reply and its arrays back.
    seconds : float, optional
        Time the learner's code may take altogether; without it there is no limit.

    Attributes
    ----------
    changed : list of str
        Names of the arguments that the learner's code changed in place, since last emptied.
    printed, warned : list of str
        What it printed, and the warnings it caused, since last emptied.
    """

    def __init__(
        self,
        send: Callable[[Message, Arrays], tuple[Message, Arrays]],
        seconds: float | None = None,
    ):
        self._send = send
        self.seconds = self._left = seconds
        self._room = _MOST_ALTOGETHER
        self.changed: list[str] = []
        self.printed: list[str] = []
        self.warned: list[str] = []

    def ask(self, do: str, **request: Any) -> Any:
        """Have something done on the learner's side, and return what comes of it.

        Raises
        ------
        SubjectError
            If the learner's code raised, or took longer than is left.
        SubjectLost
            If the learner's side no longer answers.
        """
        if self._left is not None and self._left < -_LATEST:
            raise SubjectLost("it went on answering, slowly, past its time")
        arrays: Arrays = []
        message: Message = {"do": do}
        for key, value in request.items():
            message[key] = value if key in _PLAIN else encode(value, arrays, self._name_of)
        if self._left is not None:
            message["limit"] = max(self._left, 0.001)
        started = time.perf_counter()
        reply, arrays = self._send(message, arrays)
        if self._left is not None:
            self._left -= time.perf_counter() - started
        self._room -= sum(array.nbytes for array in arrays)
        if self._room < 0:
            raise SubjectError("TooMuch", f"more than {_MOST_ALTOGETHER / 2**20:.0f} MiB in all")
        try:
            return self._open(reply, arrays)
        except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            words = str(error)[:_MOST_LETTERS]
            raise SubjectLost(f"its answer cannot be read: {words}") from error

    def _open(self, reply: Message, arrays: Arrays) -> Any:
        """Read a reply, and take nothing in it for what it should be."""
        self.printed += [str(reply["printed"])[:_MOST_PRINTED]] if reply["printed"] else []
        self.warned += _new_words(reply["warned"], self.warned)
        if "error" in reply:
            kind, text, frames = reply["error"]
            own = tuple(
                Frame(_cut(name), int(line), _cut(code)) for name, line, code in frames[-5:]
            )
            raise SubjectError(_cut(kind), _cut(text), own)
        self.changed += _new_words(reply["changed"], self.changed)
        return decode(reply["value"], arrays, self._handle)

    def _name_of(self, value: Any) -> list:
        if isinstance(value, Handle) and value._side is self:
            return ["object", value._number]
        if isinstance(value, Code):
            return ["code", value.text]
        raise TypeError(
            f"a {type(value).__name__} cannot cross to the learner's side: pass arrays, plain "
            "data, a handle from that side, or a Code(...)"
        )

    def _handle(self, node: list) -> Handle:
        _, number, kind, text = node
        return Handle(self, int(number), _cut(kind), _cut(text))


def _cut(text: Any) -> str:
    """Text of limited length: the other side may have left its own limits out."""
    return str(text)[:_MOST_LETTERS]


def _new_words(words: list, known: list[str]) -> list[str]:
    return [_cut(one) for one in words[:_MOST_WARNED] if _cut(one) not in known]


#: Parts of a request that are text or numbers of the seam's own, not values.
_PLAIN = ("object", "name", "text", "source", "title")


class Handle:
    """A thing that lives on the learner's side: call it, read or set its attributes."""

    __slots__ = ("_kind", "_number", "_side", "_text")

    def __init__(self, side: Side, number: int, kind: str, text: str):
        for name, value in zip(self.__slots__, (kind, number, side, text), strict=True):
            object.__setattr__(self, name, value)

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return self._side.ask("call", object=self._number, args=args, settings=settings)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._side.ask("get", object=self._number, name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._side.ask("set", object=self._number, name=name, value=value)

    def __repr__(self) -> str:
        return self._text


def there(subject: Handle, expression: str) -> Any:
    """Evaluate an expression on the subject's side: ``there(subject, "mt.tensor")``."""
    return subject._side.ask("code", text=expression)


def keep(subject: Handle, value: Any) -> Handle:
    """Put data on the subject's side and keep it there, to see later what became of it."""
    return subject._side.ask("keep", value=value)


def fetch(handle: Handle) -> Any:
    """The present value of data that lives on the learner's side."""
    return handle._side.ask("fetch", object=handle._number)


def kind_of(value: Any) -> str:
    """The type's name of a value from the learner's side."""
    return value._kind if isinstance(value, Handle) else type(value).__name__


def here(learners_object: Any, seconds: float | None = None) -> Any:
    """Put an object of this process behind the seam.

    Parameters
    ----------
    learners_object : object
        A function or class, as a rule.
    seconds : float, optional
        Time its code may take altogether.

    Returns
    -------
    Handle or data
        What a check is given; plain data if the object is no more than that.
    """
    host = Host({"it": learners_object})
    return Side(host.answer, seconds).ask("name", name="it")


# -- the learner's side ---------------------------------------------------------------------


class Host:
    """Keeps the learner's objects and does with them what it is asked.

    Parameters
    ----------
    namespace : dict
        Where the names of the learner's notebook are looked up.
    """

    #: Exceptions that are an answer, not an end.
    answers_with: tuple[type[BaseException], ...] = (Exception, SystemExit, TimeLimit)

    def __init__(self, namespace: dict[str, Any]):
        self.namespace = namespace
        self.objects: list[Any] = []

    def answer(self, request: Message, arrays: Arrays) -> tuple[Message, Arrays]:
        """Do what a request asks; what goes wrong in it becomes part of the reply."""
        outgoing: Arrays = []
        reply: Message = {"changed": []}
        with _listening() as (printed, warned):
            try:
                with time_limit(request.get("limit")):
                    action = getattr(self, f"do_{request['do']}")
                    value = action(_Request(self, request, arrays, reply["changed"]))
                    reply["value"] = encode(value, outgoing, self._name_of)
            except self.answers_with as error:
                outgoing.clear()
                reply["error"] = _describe(error)
        reply["printed"] = printed.getvalue()
        words = dict.fromkeys(_cut(one.message) for one in warned)
        reply["warned"] = list(words)[:_MOST_WARNED]
        return reply, outgoing

    def do_call(self, request: _Request) -> Any:
        function = request.object()
        args, settings = request.value("args"), request.value("settings")
        try:
            return function(*args, **settings)
        finally:
            given = dict(zip(_argument_names(function, len(args)), args)) | settings
            sent = (*request.value("args"), *request.value("settings").values())
            request.changed += [
                name
                for (name, value), pristine in zip(given.items(), sent, strict=True)
                if not _unchanged(value, pristine)
            ]

    def do_get(self, request: _Request) -> Any:
        return getattr(request.object(), request["name"])

    def do_set(self, request: _Request) -> None:
        setattr(request.object(), request["name"], request.value("value"))

    def do_code(self, request: _Request) -> Any:
        return self._evaluate(request["text"])

    def do_keep(self, request: _Request) -> Any:
        return _Kept(request.value("value"))

    def do_fetch(self, request: _Request) -> Any:
        return request.object()

    def do_name(self, request: _Request) -> Any:
        return self.namespace[request["name"]]

    def _evaluate(self, text: str) -> Any:
        names: dict[str, Any] = {"np": np, "mt": sys.modules["minitorch_attn"]}
        return eval(compile(text, "<check>", "eval"), names)

    def _name_of(self, value: Any) -> list:
        value = value.value if isinstance(value, _Kept) else value
        self.objects.append(value)
        kind = type if isinstance(value, type) else type(value)
        text = f"a {kind.__name__}"
        if kind is type:
            text = f"the class {value.__name__}"
        elif isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
            text = f"the function {value.__name__}"
        return ["object", len(self.objects) - 1, kind.__name__, text]

    def _find(self, node: list) -> Any:
        match node:
            case ["object", int(number)]:
                return self.objects[number]
            case ["code", str(text)]:
                return self._evaluate(text)
        raise TypeError(f"{node} names nothing")


@dataclass
class _Kept:
    """Data that is to stay on the learner's side."""

    value: Any


@dataclass
class _Request:
    """A request as the host's methods read it."""

    host: Host
    message: Message
    arrays: Arrays
    changed: list[str]

    def __getitem__(self, key: str) -> Any:
        return self.message[key]

    def object(self) -> Any:
        return self.host.objects[self.message["object"]]

    def value(self, key: str) -> Any:
        """Decode a value anew: the code that gets its arrays may write to them."""
        fresh = [array.copy() for array in self.arrays]
        return decode(self.message[key], fresh, self.host._find)


def _unchanged(value: Any, pristine: Any) -> bool:
    """Whether arrays that were handed in still hold what they held."""
    if isinstance(pristine, np.ndarray):
        same_kind = isinstance(value, np.ndarray) and value.shape == pristine.shape
        return same_kind and value.tobytes() == pristine.tobytes()
    if isinstance(pristine, (list, tuple)):
        same_kind = type(value) is type(pristine) and len(value) == len(pristine)
        return same_kind and all(map(_unchanged, value, pristine))
    if isinstance(pristine, dict):
        same_kind = isinstance(value, dict) and value.keys() == pristine.keys()
        return same_kind and all(_unchanged(value[key], pristine[key]) for key in pristine)
    return True


def _argument_names(function: Any, count: int) -> list[str]:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    return [*names[:count], *(f"argument {i + 1}" for i in range(len(names), count))]


class _Page(io.StringIO):
    """Text of limited length: the rest of what is written is dropped."""

    def write(self, text: str) -> int:
        super().write(text[: max(_MOST_PRINTED - self.tell(), 0)])
        return len(text)


@contextlib.contextmanager
def _listening() -> Iterator[tuple[_Page, list[warnings.WarningMessage]]]:
    page = _Page()
    with (
        contextlib.redirect_stdout(page),
        contextlib.redirect_stderr(page),
        warnings.catch_warnings(record=True) as warned,
        np.errstate(divide="warn", over="warn", invalid="warn", under="ignore"),
    ):
        warnings.simplefilter("default")
        yield page, warned


def _describe(error: BaseException) -> list:
    try:
        message = re.sub(r"0x[0-9a-fA-F]{4,}", "0x...", str(error))[:500]
    except Exception:  # an exception class of the learner's own, itself with a mistake in it
        message = ""
    return [type(error).__name__, message, own_frames(error)]


def own_frames(error: BaseException) -> list[list]:
    """The lines of the learner's own code that an exception passed through, outermost first."""
    frames = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if not code.co_filename.startswith(_NOT_THE_LEARNERS):
            source = linecache.getline(code.co_filename, step.tb_lineno).strip()
            if source:
                frames.append([code.co_name, step.tb_lineno, source[:200]])
        step = step.tb_next
    return frames[-5:]


#: Folders of code that the learner did not write. Tests and checks hand in learners' objects too.
_NOT_THE_LEARNERS = (
    *("<frozen", "<check>", "<__array_function__"),
    *(
        str(ROOT / "minitorch_attn" / room)
        for room in (
            *("engine", "ops", "nn", "attention", "models", "data", "viz", "retrieval"),
            *("functional", "optim", "training", "distributed", "simulator"),
            *("course/subject.py", "course/worker.py"),
        )
    ),
    *(sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")),
)


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `TimeLimit` in the code inside after so many seconds.

    Works in the main thread, where a notebook's cells run; elsewhere there is no limit.
    """
    main = threading.main_thread()
    previous = signal.getsignal(signal.SIGINT)
    if seconds is None or threading.current_thread() is not main or previous is None:
        yield
        return
    running, expired = True, False
    done = threading.Event()

    def interrupt(signal_number: int, frame: types.FrameType | None) -> None:
        if not expired:  # the user pressed Stop
            signal.default_int_handler(signal_number, frame)
        if running:
            raise TimeLimit

    def watch() -> None:
        nonlocal expired
        pause: float = seconds
        while not done.wait(pause):
            expired = True
            if hasattr(signal, "pthread_kill"):  # also ends a sleep; Windows does not have it
                signal.pthread_kill(main.ident or 0, signal.SIGINT)
            else:
                _thread.interrupt_main()
            pause = 0.5  # code that swallowed the exception is interrupted again

    signal.signal(signal.SIGINT, interrupt)
    watchdog = threading.Thread(target=watch, daemon=True)
    watchdog.start()
    try:
        yield
    finally:
        running = False
        done.set()
        watchdog.join()
        signal.signal(signal.SIGINT, previous)


# -- the learner's side in another process --------------------------------------------------


class Process(subprocess.Popen):
    """A process that can be stopped with all that it started, for a reason.

    Attributes
    ----------
    reason : str
        Why it is no longer there, in a few words.
    """

    reason = "its process ended"

    def stop(self, reason: str | None = None) -> None:
        """End it and whatever it started; the first reason that is given stays."""
        if reason is not None and "reason" not in vars(self):
            self.reason = reason
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(self.pid, signal.SIGKILL)
            else:
                self.kill()


#: Starts a command with settings for its environment, its input and output being pipes.
Launch = Callable[[list[str], dict[str, str]], Process]


def launch_freely(folder: Path) -> Launch:
    """Run a command in a folder, with all rights of the user: for code that is trusted."""

    def launch(command: list[str], settings: dict[str, str]) -> Process:
        return Process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=os.environ | settings,
            start_new_session=os.name == "posix",  # so that its children can be stopped with it
        )

    return launch


class Worker:
    """A process in which a learner's notebook is run and its objects are kept.

    Parameters
    ----------
    folder : Path
        Where it runs; relative files that the notebook writes land there.
    grace : float
        Seconds past a request's own limit after which the process is stopped.
    launch : callable, optional
        What starts the process: `launch_freely` in the folder, if left out.
    """

    def __init__(self, folder: Path, grace: float = 5.0, launch: Launch | None = None):
        self.grace = grace
        settings = {
            "IPYTHONDIR": str(folder),
            "MINITORCH_ATTN_PROGRESS": str(folder / "progress.json"),
            "MPLBACKEND": "Agg",
            "MPLCONFIGDIR": str(folder),
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")])),
        }
        command = [sys.executable, "-m", "minitorch_attn.course.worker"]
        self._process = (launch or launch_freely(folder))(command, settings)
        self._outbox: queue.SimpleQueue = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        # A thread does the waiting: neither a full pipe nor a silent one stops the grader.
        threading.Thread(target=self._converse, daemon=True).start()

    def _converse(self) -> None:
        """Carry over requests and bring back one reply for each: a flood stays in the pipe."""
        try:
            while (item := self._outbox.get()) is not None:
                write_message(self._process.stdin, *item)  # type: ignore[arg-type]
                self._inbox.put(read_message(self._process.stdout, MOST_WORDS))  # type: ignore[arg-type]
        except Exception as error:  # whatever comes over the pipe, `send` hears of it
            self._inbox.put(error)

    def send(self, request: Message, arrays: Arrays) -> tuple[Message, Arrays]:
        """Carry a request over and bring the reply back.

        Raises
        ------
        SubjectLost
            If the process ended, or did not answer in time and was stopped.
        """
        if not self.lives:
            raise SubjectLost("its process has ended")
        self._outbox.put((request, arrays))
        limit = request.get("limit")
        try:
            reply = self._inbox.get(timeout=None if limit is None else limit + self.grace)
        except queue.Empty:
            self.close()
            raise SubjectLost("it did not answer in time and was stopped") from None
        if isinstance(reply, Exception):
            self.close()
            raise SubjectLost(self._process.reason)
        return reply

    @property
    def lives(self) -> bool:
        """Whether the process still answers."""
        return self._process.poll() is None

    def close(self) -> None:
        """Stop the process and whatever it started."""
        self._outbox.put(None)
        self._process.stop()
        self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
