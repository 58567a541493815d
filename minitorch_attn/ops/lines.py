"""Lines on a GPU: the values along one axis of an array, which threads take together.

An array (outer, length, inner) has outer * inner lines of `length` values, `inner` apart. Threads
side by side should read values side by side: so a line that lies together in memory is taken by a
warp, or by a block if it is long; lines that lie beside each other are taken by a thread each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..engine.kernels import FLOATS, THREADS

SOURCE = r"""
// WIDTH threads (1, a warp, or all of a block) take a line together; a block has blockDim.y lines.
#define BLOCK (WIDTH < 256 ? 256 : WIDTH)
#define LINE ((long long)blockIdx.x * blockDim.y + threadIdx.y)

// Where the first value of the line lies in the array (outer, length, inner).
__device__ long long first_of_line(long long length, long long inner) {
    return LINE / inner * length * inner + LINE % inner;
}

// Every i below `length` for one of the threads of a line.
#define FOR_EACH_OF_LINE(i, length) for (long long i = threadIdx.x; i < (length); i += WIDTH)

// The sum, or the maximum, over the threads of a line, given to all of them.
__device__ acc_t line_sum(acc_t v) {
#if WIDTH == 1
    return v;
#elif WIDTH == 32
    return warp_sum(v);
#else
    __shared__ acc_t scratch[32];
    return block_sum(v, scratch);
#endif
}

__device__ acc_t line_max(acc_t v) {
#if WIDTH == 1
    return v;
#elif WIDTH == 32
    return warp_max(v);
#else
    __shared__ acc_t scratch[32];
    return block_max(v, scratch);
#endif
}
"""

EXPONENTIALS = r"""
// The maximum of a line and the sum of all exp(x - maximum), in one read: whenever a greater value
// comes, the sum so far shrinks to what it is beside that value.
struct Exponentials {
    acc_t most, sum;
};

__device__ Exponentials exponentials(const T* x, long long length, long long stride) {
    // The least finite number, not -inf: exp(-inf - most) is then 0, as it should.
    const double least = sizeof(acc_t) == 8 ? -1.7976931348623157e308 : -3.4028234663852886e38;
    acc_t most = least, sum = 0;
    FOR_EACH_OF_LINE(i, length) {
        const acc_t v = x[i * stride];
        if (v > most) {
            sum *= exp(most - v);
            most = v;
        }
        sum += exp(v - most);
    }
    const acc_t top = line_max(most);
    return {top, line_sum(sum * exp(most - top))};
}
"""

VARIANTS: list[dict[str, Any]] = [{"T": t, "WIDTH": THREADS} for t in FLOATS]
VARIANTS += [{"T": "float", "WIDTH": width} for width in (1, 32, 1024)]

_LONG = 1024  # values: a line for a block rather than a warp
_VERY_LONG = 16_384  # and for the largest block there is
_MANY = 4096  # lines: enough to give each to one thread


@dataclass(frozen=True)
class Lines:
    """The lines of an array along an axis, and how they are given to threads."""

    outer: int
    length: int
    inner: int

    @classmethod
    def along(cls, axis: int, shape: tuple[int, ...]) -> Lines:
        """Those along an axis, counted from the front."""
        return cls(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))

    @property
    def count(self) -> int:
        return self.outer * self.inner

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many lines, their length, and how far their values are apart: for kernels."""
        return self.count, self.length, self.inner

    @property
    def width(self) -> int:
        """How many threads take a line: the constant WIDTH."""
        if self.inner > 1 and self.count >= _MANY:
            return 1
        if self.length <= _LONG:
            return 32
        return THREADS if self.length <= _VERY_LONG else 1024

    @property
    def launch(self) -> tuple[int, tuple[int, int]]:
        """Grid and block."""
        each = max(THREADS // self.width, 1)
        return -(-self.count // each), (self.width, each)
