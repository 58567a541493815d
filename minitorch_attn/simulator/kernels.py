"""CUDA kernels on the CPU: compiled by the machine's C++ compiler, run by `emulator.h`.

`RawKernel` is called as CuPy's is. It puts `emulator.h` in front of the kernel's source, which
gives CUDA's words a meaning on a CPU, and a few lines behind it, which call the kernel with
arguments of just the types it declares. The compiler makes a library of that, which is kept in
the user's cache folder under a key made of all that went into it.

The threads of a block are fibers: each has a stack of its own and runs until it must wait, at a
barrier or at an operation of its warp; then another goes on. Which one is drawn at random, and so
is the order of the blocks. A seed decides (`order`, $MINITORCH_ATTN_KERNEL_SEED), so a launch can
be repeated.

What it shows
-------------
- Results: the kernel's own arithmetic, with the types it names. Half precision rounds as a card
  does. The matrix units' instructions, loads of matrices and copies past the registers have PTX's
  layouts, held against formulas of their own in the tests.
- A missing barrier: what was not yet written is garbage (NaN, -1), and the order of threads
  changes from barrier to barrier. With `races_found` every access to an array or to shared memory
  is watched, and two that nothing puts in order are an error with both lines, whatever the order
  of that launch.
- Threads that part at a barrier, lanes that wait for lanes that never come, a shuffle from a lane
  that takes no part: an error that says who waits where.
- An address outside of an array, at once and with the thread; an index outside of an array of the
  kernel's own, an address that is not aligned to its type, a copy or a load of a matrix that is
  not 16 aligned bytes of shared memory, a stack that overflows, a division of an integer by zero.
- What was never set: shared memory, and where the compiler can do it the kernel's variables, begin
  as garbage. So does the target of a copy past the registers, until it was waited for.
- Arguments of the wrong type or number. A card would take them, and read garbage.
- Launches beyond a card's limits: threads, grid, shared memory.

What it cannot show
-------------------
- Speed: how memory is reached, how full a card is, how many registers are spilt. (The test that
  compiles every kernel with NVIDIA's compiler reports registers and spills.)
- Subnormal numbers: CuPy has kernels compiled so that those of float32 are 0.
- A card's memory model. One thread runs at a time and each write is seen at once, so a missing
  `__threadfence`, or a `volatile` that is needed, goes unnoticed. Blocks run one after another:
  one that waits for another in a loop never ends.
- Races, as long as nobody asks for them with `races_found`, that the order of threads does not
  bring to light: a thread is not interrupted between two waits, so ``x[0] += 1`` by many threads
  adds up right. What `races_found` lets pass: a plain look at an element that others change by
  atomics, and lanes of one warp after any `__syncwarp` of some of them. What it does not let
  pass: several threads that write the same value.
- What becomes of arrays whose addresses a kernel finds in a table rather than among its
  arguments: those are neither guarded nor watched.
- Threads of a warp that march together. Code that relies on that, without a `__syncwarp`, goes
  wrong here as it may on a card.
- The last digits. A matrix unit adds up its products in an order and with a rounding of its own;
  here they are added in double precision and rounded once. `expf`, `rsqrtf` and their like are
  the C library's, the rough `__expf` too; a card's compiler also joins ``a * b + c`` into one
  rounding where this one does not. Sums by atomics come in another order on a card in any case.
- NVIDIA's compiler: what it refuses or reads differently. The test that compiles shows the first.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import math
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .traffic import kernels_run, note

HEADER = Path(__file__).with_name("emulator.h")

# Limits of a card of compute capability 8.0.
MOST_THREADS = 1024
MOST_BLOCK = (1024, 1024, 64)
MOST_GRID = (2**31 - 1, 65535, 65535)
SHARED_WITHOUT_ASKING = 48 * 1024  # bytes
MOST_SHARED = 163 * 1024

PAGE = mmap.PAGESIZE
STACK = 32 * PAGE  # of one thread of a kernel
GUARD = 1024 * PAGE  # before and behind each array
ALIGNMENT = 16  # bytes: the most that one access of a thread asks for
GARBAGE = 0xFF  # the bytes of what was never written: NaN, or -1


class NoCompiler(RuntimeError):
    """No C++ compiler that could build a kernel for this machine."""


class CompileError(RuntimeError):
    """A kernel's source that is not C++."""


class LaunchError(RuntimeError):
    """A launch that a card would refuse, or one that went wrong on the way."""


class RawKernel:
    """A kernel of CUDA C++, run on the CPU: what stands in for `cupy.RawKernel`.

    Parameters
    ----------
    code : str
        The source; it includes nothing.
    name : str
        The kernel in it, declared ``extern "C" __global__ void name(...)``.
    options : sequence of str
        ``-D...`` and ``-std=...`` are passed to the compiler, others mean nothing here.
    """

    def __init__(self, code: str, name: str, options: Sequence[str] = (), **ignored: Any):
        self.code = code
        self.name = name
        self.options = tuple(options)
        self.max_dynamic_shared_size_bytes = SHARED_WITHOUT_ASKING

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
    ) -> None:
        """Run the kernel on arrays of the stand-in.

        Parameters
        ----------
        grid, block : sequence of int
            How many blocks, of how many threads each, along up to three axes.
        args : sequence
            In the order of the kernel's parameters: arrays for pointers, `int` for ``long long``,
            `float` for ``double``, `bool`, and NumPy's scalars for the types they are of.
        shared_mem : int
            Bytes of dynamic shared memory of each block.

        Raises
        ------
        TypeError
            If an argument is not of the type that the kernel declares.
        LaunchError
            If a card would refuse the launch, or if it goes wrong: threads that wait for one
            another in vain, an address that is not the kernel's.
        CompileError
            If the source is not C++.
        NoCompiler
            If there is no compiler.
        """
        for i, argument in enumerate(args):
            if isinstance(argument, np.ndarray):
                raise TypeError(
                    f"kernel {self.name!r}: argument {i} is an array on the host, not on the device"
                )
        if kernels_run():
            self.run(grid, block, [getattr(a, "_host", a) for a in args], shared_mem=shared_mem)
        note("launches")

    def run(
        self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0
    ) -> None:
        """Run the kernel as `__call__` does, on NumPy's arrays."""
        grid, block = _three(grid), _three(block)
        self._check_sizes(grid, block, shared_mem)
        program = _program(self.code, self.name, self.options, _watched)
        asked = self.max_dynamic_shared_size_bytes != SHARED_WITHOUT_ASKING
        most = MOST_SHARED if asked else SHARED_WITHOUT_ASKING
        program.launch(grid, block, args, shared_mem, most)

    def compile(self) -> None:
        """Compile now rather than at the first launch."""
        _program(self.code, self.name, self.options, _watched)

    def _check_sizes(self, grid: tuple[int, ...], block: tuple[int, ...], shared: int) -> None:
        def refuse(reason: str) -> None:
            raise LaunchError(f"kernel {self.name!r}, grid {grid}, block {block}: {reason}")

        if math.prod(block) > MOST_THREADS:
            refuse(f"{math.prod(block)} threads: a block has at most {MOST_THREADS}")
        for what, size, most in (("grid", grid, MOST_GRID), ("block", block, MOST_BLOCK)):
            if any(n < 1 for n in size):
                refuse(f"a {what} of nothing")
            if any(n > limit for n, limit in zip(size, most)):
                refuse(f"the largest {what} is {most}")
        if not 0 <= self.max_dynamic_shared_size_bytes <= MOST_SHARED:
            refuse(
                f"max_dynamic_shared_size_bytes is {self.max_dynamic_shared_size_bytes}: "
                f"a card has {MOST_SHARED}"
            )
        if shared > self.max_dynamic_shared_size_bytes:
            refuse(
                f"{shared} bytes of dynamic shared memory, "
                f"{self.max_dynamic_shared_size_bytes} are allowed: "
                "set kernel.max_dynamic_shared_size_bytes first"
            )


def _three(size: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(int(n) for n in size)
    return (*sizes, *(1,) * (3 - len(sizes)))


# ---------------------------------------------------------------- order and races

_seed = int(os.environ.get("MINITORCH_ATTN_KERNEL_SEED", "0"))


@contextlib.contextmanager
def order(seed: int) -> Iterator[None]:
    """Run kernels inside with the blocks and threads in another order.

    Outside it is the order of seed $MINITORCH_ATTN_KERNEL_SEED, or 0.
    """
    global _seed
    before, _seed = _seed, seed
    try:
        yield
    finally:
        _seed = before


_watched = os.environ.get("MINITORCH_ATTN_KERNEL_RACES", "") not in ("", "0")


@contextlib.contextmanager
def races_found() -> Iterator[None]:
    """Watch every access to memory of the kernels launched inside: a race is a `LaunchError`.

    A race is two accesses to one element by two threads, one of them a write, with neither a
    barrier between nor both being atomic. It is slow: each access is looked up. Outside it is done
    where $MINITORCH_ATTN_KERNEL_RACES is 1.
    """
    global _watched
    before, _watched = _watched, True
    try:
        yield
    finally:
        _watched = before


# ---------------------------------------------------------------- from source to program


@functools.cache
def _program(code: str, name: str, options: tuple[str, ...], watched: bool) -> Program:
    library = _library(code, name, options, watched)
    return Program(name, parameter_names(code, name), library)


def parameter_names(code: str, name: str) -> list[str]:
    """Names of a kernel's parameters, for messages."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", code, flags=re.S)
    declared = re.search(rf"\b{name}\s*\(([^)]*)\)\s*\{{", code)
    if declared is None:
        return []
    return [re.sub(r".*\W", "", part.strip(), flags=re.S) for part in declared[1].split(",")]


_EXTERN_SHARED = re.compile(r"\bextern\s+__shared__\s+([^;\[]*?)(\w+)\s*\[\s*\]\s*;")
_SHARED = re.compile(r"(?<!extern )\b__shared__\s+([^;{}]*);")


def emulated(code: str, name: str) -> str:
    """A kernel's source as the C++ compiler gets it: with shared memory and a way in."""

    def dynamic(found: re.Match[str]) -> str:
        kind, variable = found[1], found[2]
        bare = re.sub(r"(__align__|alignas)\s*\([^()]*\)", "", kind).strip()
        return f"{bare}* const {variable} = ({bare}*)emulator::dynamic_shared();"

    def static(found: re.Match[str]) -> str:
        bare = re.sub(r"\[[^\]]*\]|<[^<>]*>|\([^()]*\)", "", found[1])  # of sizes and the like
        names = [re.findall(r"\w+", part)[-1] for part in bare.split(",")]
        known = (f'static emulator::Shared known_{n}({n}, "`{n}`");' for n in names)
        return " ".join([found[0], *known])

    code = _SHARED.sub(static, _EXTERN_SHARED.sub(dynamic, code))
    bounds = re.search(rf"__launch_bounds__\(([^;{{}}]*?)\)\s*(?:void\s+)?{name}\s*\(", code)
    most_threads = bounds[1] if bounds else MOST_THREADS
    return f"""#include "emulator.h"
#line 1 "{name}"
{code}
#line 1 "launcher"
static void emulated_kernel(void** arguments) {{ emulator::call(&{name}, arguments); }}
extern "C" int emulated_launch(emulator::Launch* asked) {{
    return emulator::launch(asked, emulated_kernel);
}}
extern "C" int emulated_parameters(emulator::Parameter* parameters) {{
    return emulator::describe(&{name}, parameters);
}}
extern "C" int emulated_most_threads() {{ return emulator::first_of({most_threads}); }}
"""


@functools.cache
def compiler() -> str:
    """The C++ compiler: $CXX, or the first of c++, g++ and clang++ that is there.

    Raises
    ------
    NoCompiler
        If there is none, or none for a system whose threads can be emulated.
    """
    if sys.platform == "win32":
        raise NoCompiler("kernels are emulated on Linux and macOS only")
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else ["c++", "g++", "clang++"]:
        if (found := shutil.which(name)) is not None:
            return found
    wanted = f"$CXX is {chosen!r}, which is not there" if chosen else "there is no g++ or clang++"
    raise NoCompiler(f"to run a kernel on the CPU a C++ compiler is needed: {wanted}")


FLAGS = (
    *("-std=c++17", "-O1", "-g1", "-fPIC", "-w"),
    "-fno-strict-aliasing",  # kernels read the same bytes as numbers of several types
    "-fwrapv",
    "-fno-threadsafe-statics",
    "-U_FORTIFY_SOURCE",  # it takes a switch of stacks for an attack
    "-fsanitize=bounds,alignment",  # the emulator is told, it needs no library
    "-fno-sanitize-recover=all",
)


@functools.cache
def _flags() -> tuple[str, ...]:
    """How kernels are compiled; variables begin as garbage where the compiler can do that."""
    garbage = "-ftrivial-auto-var-init=pattern"
    probe = [compiler(), garbage, "-fsyntax-only", "-x", "c++", os.devnull]
    able = subprocess.run(probe, capture_output=True).returncode == 0
    return (*FLAGS, garbage) if able else FLAGS


@functools.cache
def _compiler_version() -> str:
    told = subprocess.run([compiler(), "--version"], capture_output=True, text=True)
    if told.returncode != 0:
        raise NoCompiler(f"{compiler()} does not work: {told.stderr}")
    return f"{compiler()} {told.stdout} {platform.machine()}"


def cache_folder() -> Path:
    """Where compiled kernels are kept for this user; where that cannot be, for this process."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "minitorch_attn" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(_scratch().name)
    return folder if os.access(folder, os.W_OK) else Path(_scratch().name)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="minitorch_attn-kernels-", ignore_cleanup_errors=True)


def _library(code: str, name: str, options: Sequence[str], watched: bool) -> ctypes.CDLL:
    """The kernel as a library, from the cache if it was compiled before."""
    source = emulated(code, name)
    flags = [*_flags(), *(o for o in options if o.startswith(("-D", "-std=", "--std=")))]
    if watched:
        flags += ["-fsanitize=thread", "-DWATCHED"]
    parts = [HEADER.read_text(encoding="utf-8"), source, *flags, _compiler_version()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    built = cache_folder() / f"{key}.so"
    if not built.exists():
        _compile(source, name, flags, built)
    return ctypes.CDLL(str(built))


def _compile(source: str, name: str, flags: Sequence[str], built: Path) -> None:
    """Compile in a folder of its own, then move it into place: others may do so too."""
    with tempfile.TemporaryDirectory(dir=built.parent, prefix="new-") as folder:
        text, parts, library = (Path(folder, f"kernel.{kind}") for kind in ("cpp", "o", "so"))
        text.write_text(source, encoding="utf-8")
        compiling = [*flags, f"-I{HEADER.parent}", "-c", str(text), "-o", str(parts)]
        # Without the flags, which would bring a sanitizer's library.
        linking = ["-shared", str(parts), "-o", str(library)]
        for arguments in (compiling, linking):
            told = subprocess.run([compiler(), *arguments], capture_output=True, text=True)
            if told.returncode != 0:
                raise CompileError(f"kernel {name!r} is not C++:\n{told.stderr}")
        library.replace(built)


# ---------------------------------------------------------------- launching


class _Array(ctypes.Structure):
    """The struct of the same name in emulator.h."""

    _fields_ = [
        ("at", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("element", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
    ]


class _Launch(ctypes.Structure):
    """The struct of the same name in emulator.h."""

    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("stacks", ctypes.c_void_p),
        ("stack_size", ctypes.c_size_t),
        ("shared", ctypes.c_void_p),
        ("shared_size", ctypes.c_size_t),
        ("shared_limit", ctypes.c_size_t),
        ("seed", ctypes.c_ulonglong),
        ("arrays", ctypes.POINTER(_Array)),
        ("array_count", ctypes.c_int),
        ("failed", ctypes.c_int),
        ("report", ctypes.c_char * 1024),
        ("fault", ctypes.c_void_p),
        ("code", ctypes.c_size_t * 2),
    ]


class _Parameter(ctypes.Structure):
    """The struct of the same name in emulator.h."""

    _fields_ = [
        ("pointer", ctypes.c_bool),
        ("constant", ctypes.c_bool),
        ("kind", ctypes.c_char),
        ("size", ctypes.c_int),
    ]

    @property
    def number(self) -> tuple[str, int]:
        return self.kind.decode(), self.size

    def __str__(self) -> str:
        name = _C_NAMES.get(self.number, f"a struct of {self.size} bytes")
        return f"{'const ' * self.constant}{name}*" if self.pointer else name


_C_NAMES = {
    ("b", 1): "bool",
    ("f", 2): "half_t",
    ("B", 2): "bfloat_t",
    ("f", 4): "float",
    ("f", 8): "double",
    ("i", 1): "signed char",
    ("i", 2): "short",
    ("i", 4): "int",
    ("i", 8): "long long",
    ("u", 1): "unsigned char",
    ("u", 2): "unsigned short",
    ("u", 4): "unsigned",
    ("u", 8): "unsigned long long",
}


def _number(dtype: np.dtype) -> tuple[str, int]:
    """Kind and size of a dtype, as emulator.h tells them of a C type."""
    return "B" if dtype.name == "bfloat16" else dtype.kind, dtype.itemsize


class Program:
    """A compiled kernel, and what it says of its parameters."""

    def __init__(self, name: str, parameter_names: Sequence[str], library: ctypes.CDLL):
        self.name = name
        self._library = library
        room = (_Parameter * 256)()
        self._parameters = room[: library.emulated_parameters(room)]
        known = len(parameter_names) == len(self._parameters)
        self._names = parameter_names if known else [""] * len(self._parameters)
        self._most_threads = library.emulated_most_threads()

    def launch(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        shared: int,
        most_shared: int,
    ) -> None:
        """Run it, one launch at a time in this process.

        A block is given `shared` bytes of dynamic shared memory, and with what the source
        declares may have `most_shared`.
        """
        if math.prod(block) > self._most_threads:
            raise LaunchError(
                f"kernel {self.name!r}: {math.prod(block)} threads in a block, "
                f"its __launch_bounds__ says at most {self._most_threads}"
            )
        if len(args) != len(self._parameters):
            names = ", ".join(self._names)
            raise TypeError(
                f"kernel {self.name!r} has {len(self._parameters)} parameters ({names}), "
                f"not {len(args)}"
            )
        values = [self._value(i, argument) for i, argument in enumerate(args)]
        with _one_at_a_time:
            self._launch(grid, block, values, shared, most_shared)

    def _value(self, i: int, argument: Any) -> np.ndarray | np.generic:
        """An argument as an array or a scalar of just the type that the parameter has."""
        parameter = self._parameters[i]
        if type(argument) in (bool, int, float):
            kind = {bool: np.bool_, int: np.int64, float: np.float64}[type(argument)]
            argument = kind(argument)
        if not isinstance(argument, (np.ndarray, np.generic)):
            given = f"a {type(argument).__name__}"
        else:
            same = _number(argument.dtype) == parameter.number
            pointer = isinstance(argument, np.ndarray)
            if pointer and parameter.pointer and not argument.flags.c_contiguous:
                given = f"an array of strides {argument.strides}, not C-contiguous"
            elif pointer == parameter.pointer and (same or pointer and parameter.kind in b"vs"):
                return argument
            else:
                given = f"{argument.dtype} {'array' if pointer else 'number'}"
        raise TypeError(
            f"kernel {self.name!r}: argument {i} for `{parameter} {self._names[i]}` is {given}"
        )

    def _launch(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        values: Sequence[np.ndarray | np.generic],
        shared: int,
        most_shared: int,
    ) -> None:
        names = [n for n, value in zip(self._names, values) if isinstance(value, np.ndarray)]
        memory = Memory([value for value in values if isinstance(value, np.ndarray)])
        numbers = [
            (memory.address(value) if isinstance(value, np.ndarray) else value).tobytes()
            for value in values
        ]
        places = [ctypes.create_string_buffer(number, len(number)) for number in numbers]
        arrays = [
            _Array(int(memory.address(array)), array.nbytes, array.itemsize, f"`{name}`".encode())
            for array, name in zip(memory.arrays, names)
        ]
        room = _room()
        asked = _Launch(
            grid=grid,
            block=block,
            arguments=(ctypes.c_void_p * len(places))(*map(ctypes.addressof, places)),
            stacks=room.stacks,
            stack_size=STACK,
            shared=room.shared_end - -(-shared // ALIGNMENT) * ALIGNMENT,
            shared_size=shared,
            shared_limit=most_shared,
            seed=_seed,
            arrays=(_Array * len(arrays))(*arrays),
            array_count=len(arrays),
        )
        if self._library.emulated_launch(ctypes.byref(asked)):
            told = asked.report.decode(errors="replace")
            told += memory.describe(asked.fault, names) if asked.fault else ""
            raise LaunchError(f"kernel {self.name!r}: {told}{self._lines(asked.code)}")
        if (spoilt := memory.spoilt()) is not None:
            raise LaunchError(
                f"kernel {self.name!r} wrote outside of `{names[spoilt]}` "
                f"of shape {memory.arrays[spoilt].shape}"
            )
        constant = [p.constant for p in self._parameters if p.pointer]
        memory.copy_back([array for array, kept in zip(memory.arrays, constant) if not kept])

    def _lines(self, code: Sequence[int]) -> str:
        """Lines of the source that places in the library come from, where that can be told."""
        found = [line for place in code if place and (line := self._line(place))]
        return f", in line {' and line '.join(found)}" if found else ""

    def _line(self, place: int) -> str | None:
        tool = shutil.which("addr2line")
        if tool is None:
            return None
        command = [tool, "-i", "-e", self._library._name, hex(place - 1)]
        told = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        own = (re.search(rf"(?:^|/){self.name}:(\d+)", line) for line in told)
        return next((found[1] for found in own if found), None)


_one_at_a_time = threading.Lock()  # the emulator keeps what runs in variables of its own


# ---------------------------------------------------------------- memory with guards

_mprotect: Any = getattr(ctypes.CDLL(None), "mprotect", None)
_NOBODY, _READ_AND_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE


def _protect(address: int, size: int, protection: int) -> None:
    if _mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection) != 0:
        raise MemoryError("the system gives no guarded memory to run a kernel in")


def _reserve(size: int) -> tuple[mmap.mmap, int]:
    """Addresses that nobody may read or write, held as long as the first result is."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    _protect(address, size, _NOBODY)
    return pages, address


def _whole_pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


class _Room:
    """Where blocks run: the stacks of their threads, and dynamic shared memory before a guard."""

    def __init__(self) -> None:
        stacks, shared = MOST_THREADS * STACK, _whole_pages(MOST_SHARED)
        self._held, self.stacks = _reserve(stacks + GUARD + shared + GUARD)
        for stack in range(self.stacks, self.stacks + stacks, STACK):
            _protect(stack + PAGE, STACK - PAGE, _READ_AND_WRITE)  # it grows down, to the guard
        _protect(self.stacks + stacks + GUARD, shared, _READ_AND_WRITE)
        self.shared_end = self.stacks + stacks + GUARD + shared


_room = functools.cache(_Room)


class Memory:
    """Copies of a launch's arrays, each between guards that nobody may read or write.

    An array ends where its guard begins, or up to 15 bytes before: there, and on the page where it
    begins, garbage stands around it, in which writes show. Arrays that overlap share a copy.
    """

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.arrays = arrays
        spans = sorted({(a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays})
        merged: list[tuple[int, int]] = []
        for first, last in spans:
            if merged and first < merged[-1][1]:
                first, last = merged[-1][0], max(last, merged.pop()[1])
            merged.append((first, last))
        self._copies = [_Copy(first, last) for first, last in merged]

    def address(self, array: np.ndarray) -> np.uint64:
        """Where the kernel finds an array."""
        copy = self._copy(array)
        return np.uint64(copy.start + array.ctypes.data - copy.first)

    def _copy(self, array: np.ndarray) -> _Copy:
        start = array.ctypes.data
        end = start + array.nbytes
        return next(copy for copy in self._copies if copy.first <= start and end <= copy.last)

    def spoilt(self) -> int | None:
        """The first array that was written before or behind, if there is one."""
        spoilt = (i for i, a in enumerate(self.arrays) if not self._copy(a).is_whole())
        return next(spoilt, None)

    def copy_back(self, written: Sequence[np.ndarray]) -> None:
        """Bring to the arrays what the kernel made of them."""
        for array in written:
            ctypes.memmove(array.ctypes.data, int(self.address(array)), array.nbytes)

    def describe(self, fault: int, names: Sequence[str]) -> str:
        """Which array a forbidden address is near to."""
        for array, name in zip(self.arrays, names):
            if self._copy(array).is_near(fault):
                place = (fault - int(self.address(array))) // array.itemsize
                return f": element {place} of `{name}`, which has {array.size}"
        return ""


class _Copy:
    """A guarded copy of the bytes from one address of the host to another."""

    def __init__(self, first: int, last: int):
        self.first, self.last = first, last
        count = last - first
        padding = -(count + first) % ALIGNMENT  # the copy is aligned as the array is
        inner = _whole_pages(count + padding)
        self._held, self._begin = _reserve(GUARD + inner + GUARD)
        self._end = self._begin + GUARD + inner + GUARD
        if inner:
            _protect(self._begin + GUARD, inner, _READ_AND_WRITE)
        self.start = self._end - GUARD - padding - count
        before = inner - padding - count
        self._around = ((self.start - before, before), (self.start + count, padding))
        for address, size in self._around:
            ctypes.memset(address, GARBAGE, size)
        ctypes.memmove(self.start, first, count)

    def is_near(self, address: int) -> bool:
        """Whether an address is in the copy or its guards."""
        return self._begin <= address < self._end

    def is_whole(self) -> bool:
        """Whether the garbage around it is as it was."""
        return all(
            ctypes.string_at(address, size) == bytes([GARBAGE]) * size
            for address, size in self._around
        )
