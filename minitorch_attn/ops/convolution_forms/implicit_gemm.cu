// Convolution as a matrix product whose large factor is never written out (implicit GEMM).
//
//     d[m, n] = sum over k of a[m, k] b[k, n]
//
//                   m                k                       n
//     forward       output channel   channel and tap         place, over all images
//     grad_input    input channel    output channel and tap  pixel, over all images
//     grad_weight   output channel   place, over all images  channel and tap
//
// What a tap meets at a place lies places[..].x + taps[..].x elements from where the image begins.
// It is inside of the image if no bit of taps[..].y is missing in places[..].y, which has a bit for
// each tap along each axis. These tables hold all there is to know of strides, padding, dilation,
// dimensions and direction.
//
// A block computes BM rows and 128 columns, a warp 8 TM rows and 32 columns, a thread (lane
// 4 g + t) rows 16 i + 2 g + (0, 1) and columns 16 j + 4 t + (0..3). While one tile of a and b is
// multiplied, the next is on its way to the other half of the shared memory. A word of a is fetched
// for 128 products, one of b for BM.
//
// A tile consists of quads, two steps along k by two rows or columns: one read gives a thread four
// words that belong together in its registers. Two quads of padding a line let eight threads
// (g = 0, 1 and all t) meet all 32 banks.
constexpr int BN = 128;
constexpr int WARPS_N = BN / 32, WARPS = BM / (8 * TM) * WARPS_N, THREADS = 32 * WARPS;
// How many blocks a multiprocessor holds at least: 16 warps with 128 registers a thread, or 12 with
// 168 where two gathers wait for memory at a time, or what doubles leave room for.
constexpr bool HUNGRY = MATRIX_UNITS && GRAD_WEIGHT && THREADS == 128;
constexpr int BLOCKS = sizeof(acc_t) == 8 ? 1 : HUNGRY ? 3 : 512 / THREADS;

struct alignas(16) Quad {
    word v[4];
};

struct alignas(16) Tile {
    word a[DEPTH / 2][2 * BM + 8];  // of each quad (k, m) (k, m + 1) (k + 1, m) (k + 1, m + 1)
    word b[DEPTH / 2][2 * BN + 8];  // of each quad (k, n) (k + 1, n) (k, n + 1) (k + 1, n + 1)
};

__device__ __forceinline__ Quad quad(const word* at) { return *(const Quad*)at; }

// A thread's part of d: [i][2 j + e][2 r + s] is row 16 i + 2 g + r, column 16 j + 4 t + 2 s + e.
using Sums = acc_t[TM / 2][4][4];

#if MATRIX_UNITS
using A = word[4];
using B = word[2];
using D = float[4];
__device__ __forceinline__ void mma(D& d, const A& a, const B& b, float) { mma_tf32(d, a, b); }
__device__ __forceinline__ void mma(D& d, const A& a, const B& b, half_t) { mma_f16(d, a, b); }
__device__ __forceinline__ void mma(D& d, const A& a, const B& b, bfloat_t) { mma_bf16(d, a, b); }

// A unit's row g is here row 2 g, its row g + 8 row 2 g + 1, and its k = t + 4 the second step of
// pair t; columns c of two units are 2 c and 2 c + 1. So its operands are quads just as they lie.
__device__ __forceinline__ void multiply(const Tile& tile, Sums& sums, int row, int column, int g,
                                         int t) {
#pragma unroll
    for (int k = 0; k < DEPTH / 2; k += 4) {
        Quad a[TM / 2], b[2];
#pragma unroll
        for (int i = 0; i < TM / 2; ++i) a[i] = quad(&tile.a[k + t][2 * row + 32 * i + 4 * g]);
#pragma unroll
        for (int j = 0; j < 2; ++j) b[j] = quad(&tile.b[k + t][2 * column + 32 * j + 4 * g]);
#pragma unroll
        for (int i = 0; i < TM / 2; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const B pair = {b[j / 2].v[j % 2 * 2], b[j / 2].v[j % 2 * 2 + 1]};
                mma(sums[i][j], a[i].v, pair, T());
            }
    }
}
#else
__device__ __forceinline__ void multiply(const Tile& tile, Sums& sums, int row, int column, int g,
                                         int t) {
#pragma unroll
    for (int k = 0; k < DEPTH / 2; ++k) {
        Quad a[TM / 2], b[4];
#pragma unroll
        for (int i = 0; i < TM / 2; ++i) a[i] = quad(&tile.a[k][2 * row + 32 * i + 4 * g]);
#pragma unroll
        for (int j = 0; j < 4; ++j)
            b[j] = quad(&tile.b[k][2 * column + 32 * (j / 2) + 8 * t + 4 * (j % 2)]);
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int i = 0; i < TM / 2; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j)
#pragma unroll
                    for (int e = 0; e < 4; ++e)
                        sums[i][j][e] +=
                            a[i].v[2 * h + e / 2] * b[j / 2 * 2 + e % 2].v[j % 2 * 2 + h];
    }
}
#endif

// Where the window of a place begins in memory, and which taps are inside of the image there.
struct Place {
    const T* window;
    unsigned inside;
};

__device__ __forceinline__ T met(const Place& place, int2 tap) {
    return (unsigned)tap.y & ~place.inside ? T() : place.window[tap.x];
}

#if GRAD_WEIGHT
using a_t = T;  // dy
using d_t = acc_t;

// Both factors are gathered, a from dy and b from x, with k along the places. A warp takes 8 rows
// by 4 words along k at a time, of two pairs that lie half of the banks apart. From memory it reads
// small pieces of 8 planes, but the next words of the same thread are in the same sectors.
struct Factors {
    static constexpr int A = BM / 8 / WARPS, B = BN / 8 / WARPS, WORDS = DEPTH / 4;
    const T *x, *dy;  // of the image where the share of this block begins
    const int2* places;
    int2 rows[A], columns[B];
    unsigned x_image, dy_image;  // elements
    unsigned first, last, P;     // the share, in places from the start of that image
    unsigned reciprocal;         // of P: a division takes dozens of instructions
    int shift, warp, lane;
    T a[WORDS][A][PACK], b[WORDS][B][PACK];

    __device__ __forceinline__ int pair(int w) const { return w / 2 * 4 + w % 2 + lane / 16 * 2; }
    __device__ __forceinline__ int step() const { return lane / 8 % 2; }
    __device__ __forceinline__ int line(int i) const { return 8 * (warp + WARPS * i) + lane % 8; }

    __device__ __forceinline__ void fetch(int tile, Tile&) {
#pragma unroll
        for (int w = 0; w < WORDS; ++w)
#pragma unroll
            for (int h = 0; h < PACK; ++h) {
                const unsigned k = first + (tile * DEPTH + 2 * pair(w) + step()) * PACK + h;
                const unsigned n = (unsigned)((unsigned long long)k * reciprocal >> shift);
                const unsigned p = k - n * P;
                const int2 place = k < last ? places[p] : int2{0, 0};
                const Place seen = {x + (unsigned long long)n * x_image + place.x,
                                    (unsigned)place.y};
                const Place sent = {dy + (unsigned long long)n * dy_image + p, k < last};
#pragma unroll
                for (int i = 0; i < A; ++i) a[w][i][h] = met(sent, rows[i]);
#pragma unroll
                for (int i = 0; i < B; ++i) b[w][i][h] = met(seen, columns[i]);
            }
    }
    __device__ __forceinline__ void store(Tile& tile) const {
#pragma unroll
        for (int w = 0; w < WORDS; ++w) {
#pragma unroll
            for (int i = 0; i < A; ++i)
                tile.a[pair(w)][line(i) / 2 * 4 + step() * 2 + line(i) % 2] = join(a[w][i]);
#pragma unroll
            for (int i = 0; i < B; ++i) tile.b[pair(w)][line(i) * 2 + step()] = join(b[w][i]);
        }
    }
};
#else
using a_t = word;  // packed kernels
using d_t = T;

// a is copied as it lies. b is gathered: a thread stays at one place, and the lanes of a warp are
// at neighbouring ones, which mostly lie side by side in memory.
struct Factors {
    static constexpr int PAIRS = DEPTH / 2 * BN / THREADS;
    const word* a;
    const int4* taps;  // two at a time
    Place place;
    int width, thread;
    T b[PAIRS][2 * PACK];

    __device__ __forceinline__ int pair(int i) const { return thread / BN + THREADS / BN * i; }

    __device__ __forceinline__ void fetch(int tile, Tile& into) {
        constexpr int RUN = 16 / sizeof(word), RUNS = 2 * BM / RUN;  // what one copy moves
#pragma unroll
        for (int i = 0; i < (DEPTH / 2 * RUNS + THREADS - 1) / THREADS; ++i) {
            const int k = (thread + THREADS * i) / RUNS, m = (thread + THREADS * i) % RUNS * RUN;
            if (k < DEPTH / 2)
                copy_async16(&into.a[k][m], a + (tile * (DEPTH / 2) + k) * 2 * width + m, true);
        }
        commit_async();
#pragma unroll
        for (int i = 0; i < PAIRS; ++i)
#pragma unroll
            for (int h = 0; h < PACK; ++h) {
                const int4 two = taps[(tile * (DEPTH / 2) + pair(i)) * PACK + h];
                b[i][2 * h] = met(place, int2{two.x, two.y});
                b[i][2 * h + 1] = met(place, int2{two.z, two.w});
            }
    }
    __device__ __forceinline__ void store(Tile& tile) const {
        struct alignas(2 * sizeof(word)) Two { word v[2]; };
#pragma unroll
        for (int i = 0; i < PAIRS; ++i)
            *(Two*)&tile.b[pair(i)][thread % BN * 2] = {join(b[i]), join(b[i] + PACK)};
        wait_async<0>();
    }
};
#endif

// The grid: tiles, groups, shares of the places. M rows a group, N images of P places, K taps a
// group; a group of x's channels has x_group elements, a channel of d (of dy) has `plane`.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
implicit_gemm(const T* x, const a_t* a, d_t* d, const T* bias, const int2* __restrict__ places,
              const int2* __restrict__ taps, const int* where, long long M, long long N,
              long long P, long long K, long long x_group, long long plane, long long biased,
              long long fours, long long share, long long reciprocal, long long shift) {
    __shared__ Tile tiles[2];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int row = warp / WARPS_N * 8 * TM, column = warp % WARPS_N * 32;
    const long long G = gridDim.y, group = blockIdx.y;
    const long long down = (M + BM - 1) / BM;  // blocks that gather the same run side by side
    const long long m0 = blockIdx.x % down * BM, n0 = blockIdx.x / down * BN;

    Factors factors;
#if GRAD_WEIGHT
    const long long columns = K, begin = blockIdx.z * share, end = min(begin + share, N * P);
    const int steps = (end - begin + DEPTH * PACK - 1) / (DEPTH * PACK);
    factors.warp = warp, factors.lane = lane, factors.places = places;
    factors.x_image = G * x_group, factors.dy_image = G * M * P;
    factors.x = x + begin / P * factors.x_image + group * x_group;
    factors.dy = a + begin / P * factors.dy_image + group * M * P;
    factors.first = begin % P, factors.last = factors.first + (end - begin), factors.P = P;
    factors.reciprocal = reciprocal, factors.shift = shift;
    for (int i = 0; i < Factors::A; ++i) {
        const long long m = m0 + factors.line(i);
        factors.rows[i] = int2{(int)(m * P), m < M ? 1 : -1};
    }
    for (int i = 0; i < Factors::B; ++i) factors.columns[i] = taps[n0 + factors.line(i)];
#else
    const long long columns = N * P, n = n0 + threadIdx.x % BN;
    const int steps = (K + DEPTH * PACK - 1) / (DEPTH * PACK);
    factors.thread = threadIdx.x, factors.width = down * BM, factors.taps = (const int4*)taps;
    factors.a = a + group * steps * DEPTH * factors.width + 2 * m0;
    const int2 place = n < columns ? places[n % P] : int2{0, 0};
    factors.place = {x + (n / P * G + group) * x_group + place.x, (unsigned)place.y};
#endif

    Sums sums = {};
    if (steps > 0) {
        factors.fetch(0, tiles[0]);
        factors.store(tiles[0]);
    }
    for (int step = 0; step < steps; ++step) {
        __syncthreads();  // tile `step` is complete, and nobody reads the one before it any more
        Tile& next = tiles[(step + 1) % 2];
        const bool more = step + 1 < steps;
        if (more) factors.fetch(step + 1, next);
        multiply(tiles[step % 2], sums, row, column, g, t);
        if (more) factors.store(next);
    }

#pragma unroll
    for (int j = 0; j < 2; ++j) {
        const long long first = n0 + column + 16 * j + 4 * t;
        d_t* to[4];
        for (int c = 0; c < 4; ++c) {
            const long long n = min(first + c, columns - 1);
#if GRAD_WEIGHT
            to[c] = d + (blockIdx.z * G + group) * M * plane + n;
#else
            to[c] = d + (n / P * G + group) * M * plane + where[n % P];
#endif
        }
#pragma unroll
        for (int i = 0; i < TM; ++i) {
            const long long m = m0 + row + i / 2 * 16 + 2 * g + i % 2;
            if (m >= M) continue;
            const acc_t more = biased ? acc_t(bias[group * M + m]) : acc_t(0);
            struct alignas(sizeof(d_t) < 4 ? 8 : 16) Four { d_t v[4]; } four;
#pragma unroll
            for (int c = 0; c < 4; ++c)
                four.v[c] = d_t(sums[i / 2][2 * j + c % 2][i % 2 * 2 + c / 2] + more);
            if (fours && first < columns)
                *(Four*)(to[0] + m * plane) = four;
            else
                for (int c = 0; c < 4; ++c)
                    if (first + c < columns) to[c][m * plane] = four.v[c];
        }
    }
}
