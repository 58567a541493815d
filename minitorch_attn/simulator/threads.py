"""A small GPU in Python: the threads of a kernel run one by one, and are watched.

A kernel is a function of one thread. `yield` is its barrier, CUDA's `__syncthreads()`::

    def reverse(thread, x, y):                       # of each block's part
        part = thread.shared("part", thread.block_size)
        i = thread.block * thread.block_size + thread.index
        part[thread.index] = x[i]
        yield                                        # all have written before any reads
        y[i] = part[thread.block_size - 1 - thread.index]

    tally = launch(reverse, 4, 32, x, y)             # 4 blocks of 32 threads

A real GPU runs the threads of a block in an order that nobody knows, and the blocks too. Here both
orders are drawn from a seed, and every element that a thread touches is remembered: what is right
in one order alone is an error that names the threads, the element and the mend. All reads and
writes are counted. It is slow, and it says nothing of time.
"""

from __future__ import annotations

import inspect
import linecache
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType, GeneratorType
from typing import Any

import numpy as np

WARP = 32  # threads that load and store together
SECTOR = 32  # bytes: the smallest piece that global memory delivers

Kernel = Callable[..., Any]


class KernelError(RuntimeError):
    """A kernel that is wrong, or right only by luck."""


class RaceError(KernelError):
    """Two threads touch an element, one of them writes, and nothing says who comes first."""


class BarrierError(KernelError):
    """A barrier that some threads of a block reach and others do not."""


class BoundsError(KernelError):
    """An index outside the array."""


class UnwrittenError(KernelError):
    """Shared memory that was read before anything was written there."""


# -- what is counted ------------------------------------------------------------------------


@dataclass
class Request:
    """What the threads of one warp ask of global memory in one instruction.

    Attributes
    ----------
    array : str
        Name of the array, as the kernel calls it.
    kind : "read", "write" or "atomic"
    block, warp : int
        Whose request it is.
    elements : list of int
        Which elements, counted along the flattened array; one for each thread that takes part.
    itemsize : int
        Bytes of an element.
    """

    array: str
    kind: str
    block: int
    warp: int
    elements: list[int]
    itemsize: int

    @property
    def sectors(self) -> set[int]:
        """The pieces of 32 bytes that hold the elements, numbered from the array's start."""
        return {i * self.itemsize // SECTOR for i in self.elements}


@dataclass
class Tally:
    """What a launch asked of memory.

    Attributes
    ----------
    requests : list of Request
        Of global memory, in the order in which they came up.
    shared : int
        Reads and writes of shared memory.
    barriers : int
        How often a block waited for its last thread, over all blocks.
    """

    requests: list[Request] = field(default_factory=list)
    shared: int = 0
    barriers: int = 0

    def of(self, array: str) -> Tally:
        """The part that concerns one array."""
        return Tally([one for one in self.requests if one.array == array])

    @property
    def reads(self) -> int:
        """Elements read from global memory."""
        return self._count("read")

    @property
    def writes(self) -> int:
        """Elements written to global memory."""
        return self._count("write")

    @property
    def atomics(self) -> int:
        """Elements of global memory that were added to atomically."""
        return self._count("atomic")

    @property
    def bytes(self) -> int:
        """Bytes that the threads asked for."""
        return sum(len(one.elements) * one.itemsize for one in self.requests)

    @property
    def sectors(self) -> int:
        """Pieces of 32 bytes that had to come or go for it, if nothing is cached."""
        return sum(len(one.sectors) for one in self.requests)

    def _count(self, kind: str) -> int:
        return sum(len(one.elements) for one in self.requests if one.kind == kind)

    def __repr__(self) -> str:
        return (
            f"Tally(reads={self.reads}, writes={self.writes}, atomics={self.atomics}, "
            f"bytes={self.bytes}, sectors={self.sectors}, shared={self.shared}, "
            f"barriers={self.barriers})"
        )


# -- running --------------------------------------------------------------------------------


def launch(kernel: Kernel, blocks: int, block_size: int, *arguments: Any, seed: int = 0) -> Tally:
    """Run a kernel: `blocks` times `block_size` threads.

    Parameters
    ----------
    kernel : function or generator function
        ``kernel(thread, *arguments)``, as described above; `Thread` says what a thread knows.
    blocks, block_size : int
        How many blocks, of how many threads each.
    *arguments
        C-contiguous arrays, which lie in global memory and are written in place, and numbers.
    seed : int
        Decides in which order blocks run, and threads between two barriers.

    Returns
    -------
    Tally
        What was read and written.

    Raises
    ------
    RaceError, BarrierError, BoundsError, UnwrittenError
        What the kernel does wrong: the threads, the element, and how to mend it. The kernel and
        its lines stand in the error's notes.
    """
    if blocks < 1 or block_size < 1:
        raise ValueError(f"launch: {blocks} blocks of {block_size} threads: both must be 1 or more")
    run = _Run(getattr(kernel, "__name__", "kernel"))
    names = list(inspect.signature(kernel).parameters)[1:]
    held = [run.hold(name, value) for name, value in zip(names, arguments)]
    held += arguments[len(names) :]  # one too many: Python says so when the kernel is called
    rng = np.random.default_rng(seed)
    for block in rng.permutation(blocks).tolist():
        threads = [Thread(run, index, block, block_size, blocks) for index in range(block_size)]
        _run_block(run, kernel, threads, held, rng)
        run.end_block()
    return run.tally


class Thread:
    """What one thread knows of itself.

    Attributes
    ----------
    index : int
        Its place in its block, CUDA's ``threadIdx.x``.
    block : int
        The place of its block, ``blockIdx.x``.
    block_size : int
        Threads of a block, ``blockDim.x``.
    blocks : int
        How many blocks there are, ``gridDim.x``.
    """

    def __init__(self, run: _Run, index: int, block: int, block_size: int, blocks: int):
        self._run = run
        self.index, self.block = index, block
        self.block_size, self.blocks = block_size, blocks

    def shared(self, name: str, shape: int | tuple[int, ...], dtype: Any = float) -> Array:
        """An array that the threads of this block share: the same name is the same array.

        It holds nothing until it is written, and is gone when the block ends.
        """
        return self._run.shared_array(name, shape, dtype)

    def atomic_add(self, array: Array, index: Any, value: Any) -> Any:
        """Add to an element that other threads add to as well; returns what it was before.

        The sum is right in any order, but floating-point sums round differently in each.
        """
        if not isinstance(array, Array):
            raise KernelError(
                "atomic_add takes the array, the place in it and the number to be added: "
                f"thread.atomic_add(y, i, value); its first argument is not an array, but {array!r}"
            )
        return array.touch("atomic", index, value, sys._getframe(1))

    def __repr__(self) -> str:
        return f"thread {self.index} of block {self.block}"


def _run_block(
    run: _Run, kernel: Kernel, threads: list[Thread], held: list, rng: np.random.Generator
) -> None:
    """All threads from barrier to barrier, each time in a new order."""
    running: dict[Thread, GeneratorType] = {}
    for thread in _shuffled(threads, rng):
        run.current = thread
        started = kernel(thread, *held)
        if isinstance(started, GeneratorType):
            running[thread] = started
    if not running:
        run.end_interval()
    while running:
        waiting, ended = {}, []
        for thread in _shuffled(list(running), rng):
            run.current = thread
            try:
                next(running[thread])
            except StopIteration:
                ended.append(thread)
            else:
                waiting[thread] = run.line(_waiting(running[thread]))
        _check_barrier(run, waiting, ended)
        run.end_interval()
        if waiting:
            run.tally.barriers += 1
        for thread in ended:
            del running[thread]


def _shuffled(threads: list[Thread], rng: np.random.Generator) -> Iterator[Thread]:
    return (threads[i] for i in rng.permutation(len(threads)).tolist())


def _check_barrier(run: _Run, waiting: dict[Thread, _Line], ended: list[Thread]) -> None:
    """All threads of a block wait at one barrier, or all have ended."""
    if not waiting:
        return
    mend = (
        "all threads of a block must reach every barrier: take the `yield` out of the `if` (or of "
        "the loop that is not equally long for all), and keep only the work inside"
    )
    first = min(waiting, key=lambda thread: thread.index)
    if ended:
        last = min(ended, key=lambda thread: thread.index)
        raise run.error(
            BarrierError,
            f"thread {first.index} of block {first.block} waits at a barrier, but thread "
            f"{last.index} has ended without it; {mend}",
            waiting[first],
        )
    elsewhere = [thread for thread, line in waiting.items() if line != waiting[first]]
    if elsewhere:
        other = min(elsewhere, key=lambda thread: thread.index)
        raise run.error(
            BarrierError,
            f"thread {first.index} of block {first.block} waits at one barrier, thread "
            f"{other.index} at another; {mend}",
            waiting[first],
            waiting[other],
        )


# -- memory ---------------------------------------------------------------------------------


class Array:
    """An array as the threads see it: one element at a time, each touch remembered."""

    def __init__(self, run: _Run, name: str, data: np.ndarray, in_block: bool):
        self._run, self._name, self._data = run, name, data
        self._flat = data.reshape(-1)
        self._in_block = in_block  # shared memory, not global
        self._written: set[int] = set()
        self._touched: dict[tuple[str, int], dict[int, _Touch]] = {}  # by kind, element and block

    shape = property(lambda self: self._data.shape)
    size = property(lambda self: self._data.size)
    dtype = property(lambda self: self._data.dtype)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: Any) -> Any:
        return self.touch("read", index, None, sys._getframe(1))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.touch("write", index, value, sys._getframe(1))

    def __iter__(self) -> Iterator:
        raise KernelError(f"{self._name}: a thread reads one element at a time: {self._name}[i]")

    def touch(self, kind: str, index: Any, value: Any, frame: FrameType) -> Any:
        """Read, write or add to an element, after a look at who else touched it."""
        run = self._run
        line = run.line(frame)
        element = self._place(index, kind, line)
        self._look_for_races(kind, element, line)
        if not self._in_block:
            run.count(self._name, kind, element, self._data.itemsize, line)
        else:
            run.tally.shared += 1
            if kind == "write":
                self._written.add(element)
            elif element not in self._written:
                run.blame_later(self._called(element), line)
        before = self._flat[element]
        if kind != "read":
            self._flat[element] = before + value if kind == "atomic" else value
        return before

    def _place(self, index: Any, kind: str, line: _Line) -> int:
        """Where an index lies in the flattened array."""
        indices = index if isinstance(index, tuple) else (index,)
        shape = self._data.shape
        if len(indices) != len(shape) or not all(isinstance(i, (int, np.integer)) for i in indices):
            raise KernelError(
                f"{self._name}[{_shown(index)}]: a thread touches one element at a time, so "
                f"{self._name} of shape {shape} takes {len(shape)} integer{'s' * (len(shape) > 1)}"
            )
        if not all(0 <= i < n for i, n in zip(indices, shape)):
            doing = {"read": "reads", "write": "writes", "atomic": "adds to"}[kind]
            raise self._run.error(
                BoundsError,
                f"{self._run.current} {doing} {self._name}[{_shown(index)}], but {self._name} has "
                f"the shape {shape}: let the threads that have no element do nothing, "
                f"`if i < {shape[0]}:`",
                line,
            )
        element = 0
        for i, n in zip(indices, shape):
            element = element * n + int(i)
        return element

    def _look_for_races(self, kind: str, element: int, line: _Line) -> None:
        thread, interval = self._run.current, self._run.interval
        for other_kind in ("read", "write", "atomic"):
            if other_kind == kind != "write":
                continue  # both read, or both add
            for block, touch in self._touched.get((other_kind, element), {}).items():
                others = touch.interval == interval and touch.threads != {thread.index}
                if others or block != thread.block:
                    self._race(kind, element, line, other_kind, block, touch)
        touches = self._touched.setdefault((kind, element), {})
        own = touches.get(thread.block)
        if own is None or own.interval != interval:
            touches[thread.block] = _Touch(interval, {thread.index}, line)
        else:
            own.threads.add(thread.index)

    def _race(
        self, kind: str, element: int, line: _Line, other_kind: str, block: int, touch: _Touch
    ) -> None:
        thread = self._run.current
        past = {"read": "read", "write": "wrote", "atomic": "added to"}
        now = {"read": "reads", "write": "writes", "atomic": "adds to"}
        other = min(touch.threads - {thread.index} if block == thread.block else touch.threads)
        adds = "atomic" in (kind, other_kind)
        if block != thread.block:
            when = "and blocks wait for nothing"
            mend = "let one block own the element, or add with thread.atomic_add"
        else:
            when = "with no barrier between"
            mend = (
                "put a `yield` between the two (or thread.atomic_add, where both add)"
                if "read" in (kind, other_kind)
                else "let each thread write an element of its own, or add with thread.atomic_add"
            )
        if adds:
            mend = "touch it by thread.atomic_add alone until a barrier (or the launch) is over"
        raise self._run.error(
            RaceError,
            f"a race for {self._called(element)}: thread {other} of block {block} "
            f"{past[other_kind]} it, thread {thread.index} of block {thread.block} {now[kind]} it, "
            f"{when}; either may come first. To mend it, {mend}",
            touch.line,
            line,
        )

    def _called(self, element: int) -> str:
        place = ", ".join(str(int(i)) for i in np.unravel_index(element, self._data.shape))
        return f"{self._name}[{place}]" + (" (shared)" if self._in_block else "")

    def __repr__(self) -> str:
        where = "shared" if self._in_block else "global"
        return f"Array({self._name!r}, {self._data.shape}, {self._data.dtype}, {where})"


@dataclass(frozen=True, eq=False)
class _Line:
    """A place in a kernel's source: of a line that touches two arrays there are two."""

    code: CodeType
    position: tuple[int | None, ...]

    def __str__(self) -> str:
        number = self.position[0] or self.code.co_firstlineno
        text = linecache.getline(self.code.co_filename, number).strip()
        return text or f"line {number} of {self.code.co_name}"


@dataclass
class _Touch:
    """The threads of one block that touched an element, between which barriers, and where first."""

    interval: int
    threads: set[int]
    line: _Line


class _Run:
    """A launch on its way: who runs, what is shared, what was counted."""

    def __init__(self, kernel_name: str):
        self.kernel_name = kernel_name
        self.tally = Tally()
        self.current: Thread
        self.interval = 0
        self._shared: dict[str, Array] = {}
        self._unwritten: KernelError | None = None
        self._lines: dict[tuple[int, int], _Line] = {}
        self._places: dict[tuple, _Line] = {}
        self._requests: dict[tuple, Request] = {}
        self._visits: Counter[tuple] = Counter()

    def hold(self, name: str, value: Any) -> Any:
        """An argument as threads see it."""
        if not isinstance(value, np.ndarray):
            return value
        if not value.flags.c_contiguous:
            raise ValueError(
                f"launch: {name} of shape {value.shape} is not C-contiguous: a kernel gets its "
                "first address alone; pass np.ascontiguousarray of it"
            )
        return Array(self, name, value, in_block=False)

    def end_interval(self) -> None:
        """What comes now is parted by a barrier from what came before."""
        self.interval += 1
        if self._unwritten is not None:
            raise self._unwritten

    def end_block(self) -> None:
        self._shared = {}

    def line(self, frame: FrameType) -> _Line:
        """The place in a kernel where a frame stands."""
        key = id(frame.f_code), frame.f_lasti
        if key not in self._lines:
            positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
            place = frame.f_code, positions
            self._lines[key] = self._places.setdefault(place, _Line(frame.f_code, positions))
        return self._lines[key]

    def blame_later(self, element: str, line: _Line) -> None:
        """Shared memory was read before it was written: an error, unless a race explains it."""
        if self._unwritten is None:
            self._unwritten = self.error(
                UnwrittenError,
                f"{self.current} reads {element}, where nothing has been written: shared memory "
                "is not zero at the start, so some thread must write each element first",
                line,
            )

    def shared_array(self, name: str, shape: int | tuple[int, ...], dtype: Any) -> Array:
        if name not in self._shared:
            nothing = np.nan if np.dtype(dtype).kind == "f" else 0
            self._shared[name] = Array(self, name, np.full(shape, nothing, dtype), in_block=True)
        known = self._shared[name]
        if known.shape != np.empty(shape).shape:
            raise KernelError(
                f"shared({name!r}): the threads of a block ask for the shapes {known.shape} and "
                f"{shape}: there is one array of that name"
            )
        return known

    def count(self, array: str, kind: str, element: int, itemsize: int, line: _Line) -> None:
        """Put it to what the other threads of the warp ask for in the same instruction.

        Which turn of a loop it is, is told by how often the thread came by.
        """
        thread = self.current
        visit = thread.block, thread.index, array, kind, line
        turn = self._visits[visit]
        self._visits[visit] += 1
        warp = thread.index // WARP
        key = thread.block, warp, array, kind, line, turn
        request = self._requests.get(key)
        if request is None:
            request = Request(array, kind, thread.block, warp, [], itemsize)
            self._requests[key] = request
            self.tally.requests.append(request)
        request.elements.append(element)

    def error(self, kind: type[KernelError], message: str, *lines: _Line) -> KernelError:
        """An error whose notes name the kernel and hold the lines."""
        error = kind(f"{message}.")
        error.add_note(f"In the kernel {self.kernel_name}:")
        for line in dict.fromkeys(map(str, lines)):
            error.add_note(f"    {line}")
        return error


def _waiting(generator: GeneratorType) -> Any:
    """The frame in which a thread waits: its kernel's, or one called there by `yield from`."""
    while isinstance(generator.gi_yieldfrom, GeneratorType):
        generator = generator.gi_yieldfrom
    return generator.gi_frame


def _shown(index: Any) -> str:
    return ", ".join(map(str, index)) if isinstance(index, tuple) else str(index)
