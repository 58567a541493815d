"""Kernels: functions of CUDA C++ for what is slow as NumPy-style code on a GPU.

A kernel is written once for all its element types: where the source says `T`, a macro puts the
type of the arrays it is launched with. It is compiled when it is first launched, by the compiler
that comes with CuPy, which needs no headers: everything a source uses beside CUDA's own names is
in the prelude that stands in front of each (`cuda/intrinsics.cuh`, `cuda/prelude.cuh`).
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .backend import array_module, is_array, raw_kernel

FLOATS = ("half_t", "bfloat_t", "float", "double")
KERNELS: list[Kernel] = []  # every kernel of the library, in the order of definition

THREADS = 256  # of a block, where the work of each element is its own
MOST_BLOCKS = 65_536  # beyond that a thread takes several elements, one after another

_C_TYPES = {
    "float16": "half_t",
    "bfloat16": "bfloat_t",
    "float32": "float",
    "float64": "double",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
    "bool": "bool",
}

Size = int | tuple[int, ...]


class Kernel:
    """A function of CUDA C++ that is compiled for each set of constants it is launched with.

    Parameters
    ----------
    name : str
        The function in the source, declared ``extern "C" __global__ void name(...)``.
    source : str, Path or tuple of them
        CUDA C++ without ``#include``, or the file that holds it; of several, one after another.
        An integer argument is a ``long long``, a floating-point one a ``double``, an array a
        pointer to its elements.
    variants : sequence of dict
        Constants it may be launched with, such as ``{"T": "float"}``: what is compiled to check
        it where there is no GPU. Each value of each constant stands in one of them, and not every
        combination.
    """

    def __init__(
        self,
        name: str,
        source: str | Path | tuple[str | Path, ...],
        variants: Sequence[Mapping[str, Any]] = (),
    ):
        self.name = name
        self._sources = source if isinstance(source, tuple) else (source,)
        self.variants = [dict(variant) for variant in variants] or [{}]
        KERNELS.append(self)

    def __call__(
        self, grid: Size, block: Size, *arguments: Any, shared: int = 0, **constants: Any
    ) -> None:
        """Run the kernel on the arrays' device.

        Parameters
        ----------
        grid, block : int or tuple of int
            How many blocks, of how many threads each, along up to three axes.
        *arguments : arrays and numbers
            In the order of the kernel's parameters.
        shared : int
            Bytes of shared memory that a block is given beyond what the source declares.
        **constants : dtype, str, int or bool
            Macros of the source; a dtype stands for its type in C.

        Raises
        ------
        ValueError
            If an array is not C-contiguous: a kernel gets nothing but its first address.
        """
        grid, block = _three(grid), _three(block)
        xp, given = np, []
        for i, argument in enumerate(arguments):
            if not is_array(argument):
                given.append(_number(argument))
            elif argument.flags.c_contiguous:
                xp = array_module(argument)
                given.append(argument)
            else:
                raise ValueError(
                    f"kernel {self.name!r}: argument {i} of shape {argument.shape} is not "
                    "C-contiguous: give ascontiguousarray() of it"
                )
        if math.prod(grid) == 0 or math.prod(block) == 0:
            return  # no element to work on
        compiled = _compiled(xp, self, tuple(constants.items()))
        compiled.ask(shared)
        compiled.run(grid, block, tuple(given), shared_mem=shared)

    def over(self, count: int, *arguments: Any, **constants: Any) -> None:
        """Run the kernel with a thread for each of `count` elements, which `FOR_EACH` finds."""
        blocks = min(-(-count // THREADS), MOST_BLOCKS)
        self(blocks, THREADS, *arguments, **constants)

    def code(self, constants: Mapping[str, Any]) -> str:
        """The whole text that is compiled."""
        macros = [f"#define {name} {c_constant(value)}" for name, value in constants.items()]
        texts = [
            source.read_text(encoding="utf-8") if isinstance(source, Path) else source
            for source in self._sources
        ]
        return "\n".join([_header("intrinsics.cuh"), *macros, _header("prelude.cuh"), *texts])

    def __repr__(self) -> str:
        return f"Kernel({self.name!r})"


def c_constant(value: Any) -> str:
    """A constant as CUDA C++ writes it: a dtype by the name of its type.

    Raises
    ------
    TypeError
        If kernels know no such type.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, np.integer)):
        return str(int(value))
    name = np.dtype(value).name
    if name not in _C_TYPES:
        raise TypeError(f"kernels have no type for {name}: they know {', '.join(_C_TYPES)}")
    return _C_TYPES[name]


@functools.cache  # by the constants as they are given: to spell them takes longer than to look up
def _compiled(xp: ModuleType, kernel: Kernel, constants: tuple[tuple[str, Any], ...]) -> _Compiled:
    return _compiled_code(xp, kernel.code(dict(sorted(constants))), kernel.name)


@functools.cache  # one of each text: CuPy makes one function of it, which keeps what was asked last
def _compiled_code(xp: ModuleType, code: str, name: str) -> _Compiled:
    return _Compiled(raw_kernel(xp, code, name))


class _Compiled:
    """What CuPy made of a source, and how much shared memory it has asked for."""

    def __init__(self, run: Any):
        self.run = run
        self._asked = 0

    def ask(self, shared: int) -> None:
        """A block that needs more than 48 KiB, with what the source declares, has to say so."""
        if shared > self._asked:
            self.run.max_dynamic_shared_size_bytes = self._asked = shared


@functools.cache
def _header(name: str) -> str:
    return (Path(__file__).parent / "cuda" / name).read_text(encoding="utf-8")


def _three(size: Size) -> tuple[int, ...]:
    sizes = size if isinstance(size, tuple) else (operator.index(size),)
    return (*sizes, *(1,) * (3 - len(sizes)))


def _number(value: Any) -> Any:
    """A number in one of the two types that kernels declare them with."""
    return np.float64(value) if isinstance(value, (float, np.floating)) else np.int64(value)
