r"""Normalisation on a GPU: how mean and variance are taken in one read, and everything else fused.

**Moments.** A thread takes the sums of d and d^2 of its values' differences d = x - s from the
first of them, s; then moments of two parts are merged (Chan, Golub and LeVeque, 1979):

.. math:: \mu = \mu_a + \delta \frac{n_b}{n_a + n_b}, \quad
          M = M_a + M_b + \delta^2 \frac{n_a n_b}{n_a + n_b}, \quad \delta = \mu_b - \mu_a

with n values, the mean mu and the sum M of squared differences from it. Plain sums of x^2 would
lose the variance where the mean is far greater; Welford's recurrence would not, but divides at each
value. Beside the shift, which is one of the values, a thread loses at most a relative
n_a * epsilon of its own M, and n_a is small.

**Who takes what.** The values of a channel lie in N pieces of L: several blocks walk over them, and
every block that needs the whole merges their moments, always in one order: so results are the same
in every run. The values of a group lie together, and are a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engine import array_module
from ..engine.backend import Array
from ..engine.dtypes import accumulator
from ..engine.kernels import FLOATS, THREADS, Kernel
from . import lines
from .elementwise import Elementwise
from .shared_rules import shared_rules

MOST_KEPT = 47 * 1024  # bytes of its rows that a block keeps: more would leave room for one block

# -- moments ---------------------------------------------------------------------------------------

_MOMENTS = r"""
struct Moments {
    acc_t count, mean, squares;  // squares: the sum of (value - mean)^2
};

__device__ Moments merged(Moments a, Moments b) {
    const acc_t count = a.count + b.count, apart = b.mean - a.mean;
    const acc_t share = count > 0 ? b.count / count : 0;
    return {count, a.mean + apart * share, a.squares + b.squares + apart * apart * a.count * share};
}

// The values of one thread, added one by one.
struct Collector {
    acc_t count = 0, shift = 0, sum = 0, squares = 0;

    __device__ void add(acc_t v) {
        if (count == 0) shift = v;
        const acc_t d = v - shift;
        count += 1;
        sum += d;
        squares += d * d;
    }
    __device__ Moments moments() const {
        const acc_t mean = count > 0 ? sum / count : 0, rest = squares - sum * mean;
        return {count, shift + mean, rest < 0 ? 0 : rest};
    }
};

// Those of lane 0 are right.
__device__ Moments warp_moments(Moments m) {
    for (int apart = 16; apart > 0; apart /= 2)
        m = merged(m, {__shfl_down_sync(0xffffffffu, m.count, apart),
                       __shfl_down_sync(0xffffffffu, m.mean, apart),
                       __shfl_down_sync(0xffffffffu, m.squares, apart)});
    return m;
}

// The moments of all values of the WIDTH threads, a warp or a block, given to all of them.
__device__ Moments line_moments(Moments m) {
    m = warp_moments(m);
#if WIDTH > 32
    __shared__ Moments warps[WIDTH / 32];
    __syncthreads();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = m;
    __syncthreads();
    m = warps[0];
    for (int i = 1; i < WIDTH / 32; ++i) m = merged(m, warps[i]);
    return m;
#else
    return {__shfl_sync(0xffffffffu, m.count, 0), __shfl_sync(0xffffffffu, m.mean, 0),
            __shfl_sync(0xffffffffu, m.squares, 0)};
#endif
}
"""

# -- channels of (N, C, L): `parts` blocks for each ------------------------------------------------

_CHANNELS = r"""
#define CHANNEL (blockIdx.x / parts)
#define PART (blockIdx.x % parts)

// The values i = n L + l of a channel in an array (N, C, L) that one thread takes, parts * WIDTH =
// step_n * L + step_l apart. `at` is where they lie; no value costs a division.
struct Walk {
    const long long count, step, step_n, step_l, step_at, L, skipped;
    long long i, n, l, at;

    __device__ Walk(long long N, long long C, long long L, long long parts, long long step_n,
                    long long step_l)
        : count(N * L), step(parts * WIDTH), step_n(step_n), step_l(step_l),
          step_at(step_n * C * L + step_l), L(L), skipped((C - 1) * L) {
        const unsigned first = (unsigned)PART * WIDTH + threadIdx.x;  // below 2^16
        i = first;
        n = first < L ? 0 : first / (unsigned)L;
        l = first - n * L;
        at = (n * C + CHANNEL) * L + l;
    }
    __device__ bool inside() const { return i < count; }
    __device__ void next() {
        i += step;
        n += step_n;
        l += step_l;
        at += step_at;
        if (l >= L) {  // in the next image, beyond the other channels
            ++n;
            l -= L;
            at += skipped;
        }
    }
};

#define SHAPE \
    long long N, long long C, long long L, long long parts, long long step_n, long long step_l
#define FOR_EACH_OF_CHANNEL(walk) \
    _Pragma("unroll 4") for (Walk walk(N, C, L, parts, step_n, step_l); walk.inside(); walk.next())
"""

_OF_CHANNELS = [{"T": t, "WIDTH": THREADS} for t in FLOATS]

_CHANNEL_MOMENTS = Kernel(
    "channel_moments",
    _MOMENTS
    + _CHANNELS
    + r"""
// moments: (C, parts, 3), of what each block has read
extern "C" __global__ void channel_moments(const T* x, acc_t* moments, SHAPE) {
    Collector values;
    FOR_EACH_OF_CHANNEL(walk) values.add(x[walk.at]);
    const Moments m = line_moments(values.moments());
    if (threadIdx.x == 0) {
        acc_t* mine = moments + 3 * (long long)blockIdx.x;
        mine[0] = m.count;
        mine[1] = m.mean;
        mine[2] = m.squares;
    }
}
""",
    _OF_CHANNELS,
)

_BATCH_NORM = Kernel(
    "batch_norm",
    _MOMENTS
    + _CHANNELS
    + r"""
// moments: (C, read_parts, 3), read_parts <= WIDTH; statistics: (3, C) of mean, variance, scale
extern "C" __global__ void batch_norm(const T* x, const acc_t* moments, long long read_parts,
                                      const acc_t* weight, const acc_t* bias, T* y,
                                      acc_t* statistics, double eps, SHAPE) {
    const long long c = CHANNEL;
    Moments m = {0, 0, 0};
    if (threadIdx.x < read_parts) {
        const acc_t* part = moments + 3 * (c * read_parts + threadIdx.x);
        m = {part[0], part[1], part[2]};
    }
    m = line_moments(m);
    const acc_t variance = m.count > 0 ? m.squares / m.count : 0;
    const acc_t scale = 1 / sqrt(variance + acc_t(eps));
    if (PART == 0 && threadIdx.x == 0) {
        statistics[c] = m.mean;
        statistics[C + c] = variance;
        statistics[2 * C + c] = scale;
    }
    const acc_t slope = scale * weight[c], shift = bias[c];
    FOR_EACH_OF_CHANNEL(walk) {
        const long long at = walk.at;
        y[at] = T((acc_t(x[at]) - m.mean) * slope + shift);
    }
}
""",
    _OF_CHANNELS,
)

# dy and dy * xhat, xhat = (x - mean) * scale, summed over N and L: (parts, 2, C). The statistics
# of a channel c of image n stand at n * groups + c / channels: of a group of channels of an image,
# or (groups = 0, channels = 1) of the channel.

_CHANNEL_SUMS = Kernel(
    "channel_sums",
    lines.SOURCE
    + _CHANNELS
    + r"""
extern "C" __global__ void channel_sums(const T* dy, const T* x, const acc_t* mean,
                                        const acc_t* scale, acc_t* sums, long long groups,
                                        long long channels, SHAPE) {
    const long long c = CHANNEL, group = c / channels;
    acc_t sum = 0, along = 0;
    FOR_EACH_OF_CHANNEL(walk) {
        const long long at = walk.at, of = walk.n * groups + group;
        const acc_t dv = dy[at];
        sum += dv;
        along += dv * (acc_t(x[at]) - mean[of]) * scale[of];
    }
    sum = line_sum(sum);
    along = line_sum(along);
    if (threadIdx.x == 0) {
        sums[2 * PART * C + c] = sum;
        sums[(2 * PART + 1) * C + c] = along;
    }
}
""",
    _OF_CHANNELS,
)

# The same where L is 1 and a channel's values lie C apart: a warp reads 32 channels of an image.
_TILE, _ROWS = 32, 8

_COLUMN_SUMS = Kernel(
    "column_sums",
    r"""
extern "C" __global__ void column_sums(const T* dy, const T* x, const acc_t* mean,
                                       const acc_t* scale, acc_t* sums, long long groups,
                                       long long channels, long long N, long long C) {
    __shared__ acc_t of_rows[2][ROWS][TILE];
    const long long c = (long long)blockIdx.x * TILE + threadIdx.x;
    acc_t sum = 0, along = 0;
    if (c < C) {
        const long long group = c / channels;
#pragma unroll 4
        for (long long n = blockIdx.y * ROWS + threadIdx.y; n < N; n += gridDim.y * ROWS) {
            const long long at = n * C + c, of = n * groups + group;
            const acc_t dv = dy[at];
            sum += dv;
            along += dv * (acc_t(x[at]) - mean[of]) * scale[of];
        }
    }
    of_rows[0][threadIdx.y][threadIdx.x] = sum;
    of_rows[1][threadIdx.y][threadIdx.x] = along;
    __syncthreads();
    if (threadIdx.y < 2 && c < C) {
        acc_t total = 0;
        for (int row = 0; row < ROWS; ++row) total += of_rows[threadIdx.y][row][threadIdx.x];
        sums[(2 * blockIdx.y + threadIdx.y) * C + c] = total;
    }
}
""",
    [{"T": t, "TILE": _TILE, "ROWS": _ROWS} for t in FLOATS],
)

_BATCH_NORM_BACKWARD = Kernel(
    "batch_norm_backward",
    _CHANNELS
    + r"""
// share: 1 / how many values, or 0 where mean and variance are constants
extern "C" __global__ void batch_norm_backward(const T* dy, const T* x, const acc_t* mean,
                                               const acc_t* scale, const acc_t* weight,
                                               const acc_t* sums, T* dx, double share, SHAPE) {
    const long long c = CHANNEL;
    const acc_t middle = mean[c], slope = weight[c] * scale[c];
    const acc_t mean_dy = sums[c] * acc_t(share);
    const acc_t mean_along = sums[C + c] * acc_t(share) * scale[c];
    FOR_EACH_OF_CHANNEL(walk) {
        const long long at = walk.at;
        const acc_t z = acc_t(x[at]) - middle;
        dx[at] = T(slope * (acc_t(dy[at]) - mean_dy - z * mean_along));
    }
}
""",
    _OF_CHANNELS,
)


class _Channels:
    """An array (N, C, L), whose channels are taken by some blocks each."""

    def __init__(self, shape: Sequence[int]):
        self.N, self.C, *positions = shape
        self.L = math.prod(positions)
        # Blocks for a channel: enough in all for the card, but not below 8 values for a thread.
        enough = min(self.N * self.L // (8 * THREADS), 2048 // max(self.C, 1))
        self.parts = min(max(enough, 1), THREADS)
        L = max(self.L, 1)
        self._shape = (self.N, self.C, L, self.parts, *divmod(self.parts * THREADS, L))
        if not self.L:
            self._shape = (0, *self._shape[1:])

    def launch(self, kernel: Kernel, *arguments: Any, T: np.dtype) -> None:
        kernel(self.C * self.parts, THREADS, *arguments, *self._shape, T=T, WIDTH=THREADS)

    def sums(
        self, dy: Array, x: Array, mean: Array, scale: Array, groups: int = 0, channels: int = 1
    ) -> Array:
        """Sums of dy and of dy * xhat over N and L, (2, C): first by block, then of all blocks."""
        xp = array_module(x)
        if self.L != 1:
            sums = xp.empty((self.parts, 2, self.C), mean.dtype)
            arguments = (dy, x, mean, scale, sums, groups, channels)
            self.launch(_CHANNEL_SUMS, *arguments, T=x.dtype)
        else:
            tiles = -(-self.C // _TILE)
            parts = min(max(self.N // (4 * _ROWS), 1), max(1024 // max(tiles, 1), 1))
            sums = xp.empty((parts, 2, self.C), mean.dtype)
            columns = (dy, x, mean, scale, sums, groups, channels, self.N, self.C)
            grid, block = (tiles, parts), (_TILE, _ROWS)
            _COLUMN_SUMS(grid, block, *columns, T=x.dtype, TILE=_TILE, ROWS=_ROWS)
        return sums.sum(axis=0) if len(sums) > 1 else sums[0]


def moments_of_batch(x: Array) -> Array:
    """What `batch_norm` normalises each channel of (N, C, ...) by, in parts: (C, parts, 3)."""
    channels, xp = _Channels(x.shape), array_module(x)
    moments = xp.empty((channels.C, channels.parts, 3), accumulator(x.dtype))
    channels.launch(_CHANNEL_MOMENTS, x, moments, T=x.dtype)
    return moments


def moments_of_constants(mean: Array, variance: Array, dtype: np.dtype) -> Array:
    """Given mean and variance (C,) as those of one value: (C, 1, 3)."""
    xp, dtype = array_module(mean), accumulator(dtype)
    moments = xp.empty((len(mean), 1, 3), dtype)
    moments[:, 0, 0], moments[:, 0, 1], moments[:, 0, 2] = 1, mean, variance
    return moments


def batch_norm(
    x: Array, weight: Array | None, bias: Array | None, moments: Array, constant: bool, eps: float
) -> tuple[Array, tuple[Callable, ...], Array]:
    """The output, its rules for x, weight and bias, and the mean and variance of each channel.

    x is C-contiguous. `constant`: whether the moments do not depend on x.
    """
    channels, xp = _Channels(x.shape), array_module(x)
    weight, bias = _parameter(weight, x, 1, channels.C), _parameter(bias, x, 0, channels.C)
    y, statistics = xp.empty_like(x), xp.empty((3, channels.C), moments.dtype)
    arguments = (x, moments, moments.shape[1], weight, bias, y, statistics, float(eps))
    channels.launch(_BATCH_NORM, *arguments, T=x.dtype)
    mean, variance, scale = statistics

    def gradients(dy):
        dy = xp.ascontiguousarray(dy, dtype=x.dtype)
        sums, dx = channels.sums(dy, x, mean, scale), xp.empty_like(x)
        share = 0.0 if constant else 1 / max(channels.N * channels.L, 1)
        arguments = (dy, x, mean, scale, weight, sums, dx, share)
        channels.launch(_BATCH_NORM_BACKWARD, *arguments, T=x.dtype)
        return dx, sums[1], sums[0]

    return y, shared_rules(gradients, 3), statistics[:2]


# -- groups: lines of one image --------------------------------------------------------------------

_CHANNEL_OF_LINE = r"""
// The channel of value i of a line: a group of `channels` of L positions each.
#define CHANNEL_OF(i) (LINE % groups * channels + (L == 1 ? (i) : (unsigned)(i) / (unsigned)L))
"""

_GROUP_NORM = Kernel(
    "group_norm",
    lines.SOURCE
    + _MOMENTS
    + _CHANNEL_OF_LINE
    + r"""
// statistics: (3, lines) of mean, variance, scale
extern "C" __global__ void __launch_bounds__(BLOCK)
group_norm(const T* x, const acc_t* weight, const acc_t* bias, T* y, acc_t* statistics,
           double eps, long long lines, long long groups, long long channels, long long L) {
    if (LINE >= lines) return;
    const long long length = channels * L;
    x += LINE * length;
    y += LINE * length;
    // A line that fits (KEPT) stays in shared memory; each thread reads only what it has written.
    extern __shared__ acc_t kept_lines[];
    acc_t* kept = kept_lines + threadIdx.y * length;
    Collector values;
    FOR_EACH_OF_LINE(i, length) {
        const acc_t v = x[i];
        if (KEPT) kept[i] = v;
        values.add(v);
    }
    const Moments m = line_moments(values.moments());
    const acc_t variance = m.count > 0 ? m.squares / m.count : 0;
    const acc_t scale = 1 / sqrt(variance + acc_t(eps));
    if (threadIdx.x == 0) {
        statistics[LINE] = m.mean;
        statistics[lines + LINE] = variance;
        statistics[2 * lines + LINE] = scale;
    }
    FOR_EACH_OF_LINE(i, length) {
        const long long c = CHANNEL_OF(i);
        const acc_t z = (KEPT ? kept[i] : acc_t(x[i])) - m.mean;
        y[i] = T(z * scale * weight[c] + bias[c]);
    }
}
""",
    [{**variant, "KEPT": 1} for variant in lines.VARIANTS if variant["WIDTH"] in (32, THREADS)]
    + [{"T": "float", "WIDTH": width, "KEPT": 0} for width in (THREADS, 1024)],
)

_GROUP_NORM_BACKWARD = Kernel(
    "group_norm_backward",
    lines.SOURCE
    + _CHANNEL_OF_LINE
    + r"""
extern "C" __global__ void __launch_bounds__(BLOCK)
group_norm_backward(const T* dy, const T* x, const acc_t* mean, const acc_t* scale,
                    const acc_t* weight, T* dx, long long lines, long long groups,
                    long long channels, long long L) {
    if (LINE >= lines) return;
    const long long length = channels * L, first = LINE * length;
    const acc_t middle = mean[LINE], by = scale[LINE];
    acc_t sum = 0, along = 0;
    FOR_EACH_OF_LINE(i, length) {
        const acc_t dv = acc_t(dy[first + i]) * weight[CHANNEL_OF(i)];
        sum += dv;
        along += dv * (acc_t(x[first + i]) - middle) * by;
    }
    const acc_t mean_dy = line_sum(sum) / length, mean_along = line_sum(along) / length;
    FOR_EACH_OF_LINE(i, length) {
        const acc_t dv = acc_t(dy[first + i]) * weight[CHANNEL_OF(i)];
        const acc_t normal = (acc_t(x[first + i]) - middle) * by;
        dx[first + i] = T(by * (dv - mean_dy - normal * mean_along));
    }
}
""",
    [variant for variant in lines.VARIANTS if variant["WIDTH"] > 1],
)


def group_norm(
    x: Array, weight: Array | None, bias: Array | None, groups: tuple[int, ...], eps: float
) -> tuple[Array, tuple[Callable, ...], Array]:
    """The output, its rules for x, weight and bias, and the mean and variance of each group.

    x is C-contiguous; groups: (N, G, channels of a group, positions).
    """
    xp, (N, G, channels, L) = array_module(x), groups
    C = G * channels
    shapes = [(C,) if p is None else p.shape for p in (weight, bias)]
    weight, bias = _parameter(weight, x, 1, C), _parameter(bias, x, 0, C)
    y, statistics = xp.empty_like(x), xp.empty((3, N * G), weight.dtype)
    taken = lines.Lines(N * G, channels * L, 1)
    (grid, block), sizes = taken.launch, (N * G, G, channels, L)
    bytes_of_block = block[1] * taken.length * weight.itemsize
    kept = bytes_of_block <= MOST_KEPT
    arguments = (x, weight, bias, y, statistics, float(eps), *sizes)
    shared, constants = bytes_of_block if kept else 0, {"T": x.dtype, "WIDTH": taken.width}
    _GROUP_NORM(grid, block, *arguments, shared=shared, KEPT=kept, **constants)
    mean, _, scale = statistics

    def vjp_x(dy):
        dx, dy = xp.empty_like(x), xp.ascontiguousarray(dy, dtype=x.dtype)
        arguments = (dy, x, mean, scale, weight, dx, *sizes)
        _GROUP_NORM_BACKWARD(grid, block, *arguments, **constants)
        return dx

    def of_parameters(dy):
        dy = xp.ascontiguousarray(dy, dtype=x.dtype)
        dbias, dweight = _Channels((N, C, L)).sums(dy, x, mean, scale, G, channels)
        return dweight.reshape(shapes[0]), dbias.reshape(shapes[1])

    return y, (vjp_x, *shared_rules(of_parameters, 2)), statistics[:2]


# -- parameters and running statistics -------------------------------------------------------------

moved = Elementwise(
    "moved",
    "(1 - momentum) * running + momentum * (correction * batch)",
    arrays=["running", "batch"],
    numbers=["momentum", "correction"],
)


def _parameter(parameter: Array | None, x: Array, missing: float, count: int) -> Array:
    """A parameter, flat, in the type that is computed in."""
    dtype = accumulator(x.dtype)
    if parameter is None:
        return array_module(x).full(count, missing, dtype)
    return array_module(x).ascontiguousarray(parameter.reshape(-1), dtype=dtype)
