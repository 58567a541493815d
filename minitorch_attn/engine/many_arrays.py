"""Work on many arrays at once: on a GPU by one launch, however many there are and of what sizes.

A network has hundreds of parameters, most of them small, and to launch a kernel takes longer than
to update a small one. So a launch covers them all: every block of threads takes a part of one
array, and finds out in a table of sizes and addresses which. The arrays stay where they are, for
modules that share, replace or reload them; a copy of all of them in one buffer would not know of
that. The table is a few kilobytes, and is copied to the GPU without waiting for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .backend import Array, array_module
from .kernels import THREADS, Kernel
from .mutation import note_write
from .tensor import Tensor

PART = 8192  # elements that a block takes

# What a kernel over many arrays begins with. Row 0 of the table has the size of each array, row 1
# its first block, row 2 + k the address of each array of list k, the rows after that numbers.
PARTS = (
    f"#define PART {PART}\n"
    + r"""
struct Part {
    long long array, begin, end;
};

// The part of this block: of the last array that begins at it or before.
__device__ Part part_of_block(const long long* table, long long arrays) {
    const long long* first = table + arrays;
    long long low = 0, high = arrays;
    while (high - low > 1) {
        long long middle = (low + high) / 2;
        if (first[middle] <= (long long)blockIdx.x) low = middle; else high = middle;
    }
    long long begin = (blockIdx.x - first[low]) * PART, end = begin + PART;
    return {low, begin, end < table[low] ? end : table[low]};
}

// Where the array that the part is of begins in list k.
template <typename Element>
__device__ Element* array_of(const long long* table, long long arrays, Part part, int k) {
    return (Element*)table[(2 + k) * arrays + part.array];
}

// Number k of the array that the part is of, counted on from the lists.
__device__ double number_of(const long long* table, long long arrays, Part part, int k) {
    return __longlong_as_double(table[(2 + k) * arrays + part.array]);
}

// Every element of a part for one thread of the block.
#define FOR_EACH_OF(part, i) \
    for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x)
"""
)


def launch_over(
    kernel: Kernel,
    lists: Sequence[Sequence[Array]],
    *arguments: Any,
    numbers: Sequence[Sequence[float]] = (),
    **constants: Any,
) -> None:
    """Launch a kernel of which each block works on a part of one array.

    Parameters
    ----------
    kernel : Kernel
        Its source begins with `PARTS`, its parameters with ``const long long* table, long long
        arrays``.
    lists : sequence of lists of arrays
        Arrays of equal place in the lists belong together, and have one size.
    *arguments
        The further parameters of the kernel.
    numbers : sequence of lists of float
        Numbers of each array: rows of doubles below the addresses.
    **constants
        Macros of the source.
    """
    sizes, blocks = [array.size for array in lists[0]], blocks_of(lists[0])
    addresses = [[array.data.ptr for array in arrays] for arrays in lists]
    rows = [sizes, np.cumsum(blocks) - blocks, *addresses]
    rows += [np.array(row, np.float64).view(np.int64) for row in numbers]
    table = array_module(lists[0][0]).asarray(np.array(rows, np.int64))
    kernel(int(blocks.sum()), THREADS, table, len(sizes), *arguments, **constants)


def blocks_of(arrays: Sequence[Array]) -> np.ndarray:
    """How many blocks work on each of some arrays."""
    return np.array([-(-array.size // PART) for array in arrays])


def by_dtype(arrays: Iterable[Array]) -> list[list[Array]]:
    """Arrays in groups of one dtype."""
    groups: dict[np.dtype, list[Array]] = {}
    for array in arrays:
        groups.setdefault(array.dtype, []).append(array)
    return list(groups.values())


def writable(tensor: Tensor) -> Array:
    """The array of a tensor for a kernel to write to: contiguous, and the graph hears of it."""
    if not tensor._data.flags.c_contiguous:
        tensor._data = array_module(tensor._data).ascontiguousarray(tensor._data)
    note_write(tensor._data)
    return tensor._data
