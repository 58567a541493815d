// Tiles of scores on a GPU: where their numbers lie, and the two products that make and use them.
//
// A block of WARPS warps computes a tile of ROWS x COLUMNS scores; each warp owns SLABS slabs of 16
// whole rows of it. As the matrix units lay it out, thread 4 g + t of a warp holds of 16 rows and 8
// columns the numbers (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1). So
//
//   - the four threads of a g hold whole rows: sums and maxima of rows need no shared memory;
//   - what was computed lies as the left factor of the next product wants it: scores become weights
//     and multiply the values without leaving the registers.
//
// Every product of attention is then one of two: rows by rows (q k^T, dy v^T), both in shared
// memory, or a tile in registers by a matrix in shared memory (p v, ds k). Where weights must be
// transposed (p^T dy, ds^T q), the scores are computed with the keys as rows: so they already are.
//
// T       what the arrays hold              UNIT    16: matrix units, of 16-bit numbers (MMA says
// D, DV   features of keys and values,              which), 32: of floats as TF32, 0: none, exact
//         multiples of 16                   MASK    0: none, 1: booleans, 2: added to the scores
// MASK_T  what the mask holds               CAUSAL, DROPOUT  whether there are

constexpr int ROWS = WARPS * SLABS * 16;
[[maybe_unused]] constexpr int HELD = 2 * SLABS;  // rows of which a thread holds a part
constexpr int PIECE = 16 / sizeof(T);  // numbers that are copied at once

// Rows in shared memory begin 16 bytes further into the banks than the row before: the eight rows
// that are read at once lie in eight different places.
template <int WIDTH>
constexpr int pitch = WIDTH + PIECE;

struct alignas(16) Piece { T x[PIECE]; };
struct alignas(2 * sizeof(T)) Pair { T x[2]; };

__device__ __forceinline__ int lane() { return threadIdx.x % 32; }

// Which row of the block's tile is the thread's r-th.
__device__ __forceinline__ int row_of(int r) {
    return threadIdx.x / 32 * SLABS * 16 + r / 2 * 16 + r % 2 * 8 + lane() / 4;
}

template <int WIDTH>
struct Tile {
    acc_t x[SLABS][WIDTH / 8][4];
};

// f(number of a, number of b, r, column) for every place of which the thread holds the numbers.
template <int WIDTH, typename F>
__device__ __forceinline__ void each(Tile<WIDTH>& a, Tile<WIDTH>& b, F f) {
    #pragma unroll
    for (int slab = 0; slab < SLABS; ++slab)
        #pragma unroll
        for (int j = 0; j < WIDTH / 8; ++j)
            #pragma unroll
            for (int e = 0; e < 4; ++e)
                f(a.x[slab][j][e], b.x[slab][j][e], 2 * slab + e / 2,
                  8 * j + 2 * (lane() % 4) + e % 2);
}

template <int WIDTH, typename F>
__device__ __forceinline__ void each(Tile<WIDTH>& a, F f) {
    each(a, a, [&](acc_t& x, acc_t&, int r, int column) { f(x, r, column); });
}

// The sum, or the maximum, over the four threads that hold a row.
__device__ __forceinline__ acc_t row_sum(acc_t v) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

__device__ __forceinline__ acc_t row_max(acc_t v) {
    v = max(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return max(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

#if UNIT == 16

__device__ __forceinline__ unsigned packed(float low, float high) {
    return T(low).bits | (unsigned)T(high).bits << 16;
}

// Two products next to each other: r holds the right factors of both, as ldmatrix_x4 brings them.
template <int WIDTH>
__device__ __forceinline__ void add_products(Tile<WIDTH>& d, const unsigned (&a)[SLABS][4],
                                             const unsigned (&r)[4], int j) {
    const unsigned left[2] = {r[0], r[1]}, right[2] = {r[2], r[3]};
    #pragma unroll
    for (int slab = 0; slab < SLABS; ++slab) {
        MMA(d.x[slab][2 * j], a[slab], left);
        MMA(d.x[slab][2 * j + 1], a[slab], right);
    }
}

// d += a b^T, of rows of a (ROWS x DEPTH) and of b (WIDTH x DEPTH).
template <int DEPTH, int WIDTH>
__device__ __forceinline__ void rows_by_rows(Tile<WIDTH>& d, const T* a, const T* b) {
    const int row = threadIdx.x / 32 * SLABS * 16 + lane() % 16;
    const T* own = &a[row * pitch<DEPTH> + lane() / 16 * 8];
    b += (lane() / 16 * 8 + lane() % 8) * pitch<DEPTH> + lane() / 8 % 2 * 8;
    #pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        unsigned of_a[SLABS][4], of_b[4];
        #pragma unroll
        for (int slab = 0; slab < SLABS; ++slab)
            ldmatrix_x4(of_a[slab], &own[slab * 16 * pitch<DEPTH> + k]);
        #pragma unroll
        for (int j = 0; j < WIDTH / 16; ++j) {
            ldmatrix_x4(of_b, &b[16 * j * pitch<DEPTH> + k]);
            add_products(d, of_a, of_b, j);
        }
    }
}

// d += p b, of a tile p (ROWS x DEPTH) and a matrix b (DEPTH x WIDTH).
template <int DEPTH, int WIDTH>
__device__ __forceinline__ void tile_by_matrix(Tile<WIDTH>& d, const Tile<DEPTH>& p, const T* b) {
    b += lane() % 16 * pitch<WIDTH> + lane() / 16 * 8;
    #pragma unroll
    for (int k = 0; k < DEPTH / 16; ++k) {
        unsigned of_p[SLABS][4], of_b[4];
        #pragma unroll
        for (int slab = 0; slab < SLABS; ++slab)
            #pragma unroll
            for (int i = 0; i < 4; ++i) {
                const acc_t* two = &p.x[slab][2 * k + i / 2][i % 2 * 2];
                of_p[slab][i] = packed(two[0], two[1]);
            }
        #pragma unroll
        for (int j = 0; j < WIDTH / 16; ++j) {
            ldmatrix_x4_trans(of_b, &b[16 * k * pitch<WIDTH> + 16 * j]);
            add_products(d, of_p, of_b, j);
        }
    }
}

#elif UNIT == 32

template <int DEPTH, int WIDTH>
__device__ __forceinline__ void rows_by_rows(Tile<WIDTH>& d, const T* a, const T* b) {
    const int g = lane() / 4, t = lane() % 4;
    #pragma unroll
    for (int k = t; k < DEPTH; k += 8) {
        unsigned of_a[SLABS][4];
        #pragma unroll
        for (int slab = 0; slab < SLABS; ++slab)
            #pragma unroll
            for (int i = 0; i < 4; ++i)
                of_a[slab][i] = to_tf32(a[row_of(2 * slab + i % 2) * pitch<DEPTH> + k + i / 2 * 4]);
        #pragma unroll
        for (int j = 0; j < WIDTH / 8; ++j) {
            const T* row = &b[(8 * j + g) * pitch<DEPTH> + k];
            const unsigned of_b[2] = {to_tf32(row[0]), to_tf32(row[4])};
            #pragma unroll
            for (int slab = 0; slab < SLABS; ++slab) mma_tf32(d.x[slab][j], of_a[slab], of_b);
        }
    }
}

// The thread holds columns 2t and 2t + 1 of p where the instruction reads columns t and t + 4: so
// rows 2t and 2t + 1 of b go where it reads rows t and t + 4, and the sum is the same.
template <int DEPTH, int WIDTH>
__device__ __forceinline__ void tile_by_matrix(Tile<WIDTH>& d, const Tile<DEPTH>& p, const T* b) {
    const int g = lane() / 4, t = lane() % 4;
    #pragma unroll
    for (int k = 0; k < DEPTH / 8; ++k) {
        unsigned of_p[SLABS][4];
        #pragma unroll
        for (int slab = 0; slab < SLABS; ++slab)
            #pragma unroll
            for (int i = 0; i < 4; ++i)
                of_p[slab][i] = to_tf32(p.x[slab][k][i % 2 * 2 + i / 2]);
        #pragma unroll
        for (int j = 0; j < WIDTH / 8; ++j) {
            const T* column = &b[(8 * k + 2 * t) * pitch<WIDTH> + 8 * j + g];
            const unsigned of_b[2] = {to_tf32(column[0]), to_tf32(column[pitch<WIDTH>])};
            #pragma unroll
            for (int slab = 0; slab < SLABS; ++slab) mma_tf32(d.x[slab][j], of_p[slab], of_b);
        }
    }
}

#else  // the same in plain multiplications and additions

template <int DEPTH, int WIDTH>
__device__ __forceinline__ void rows_by_rows(Tile<WIDTH>& d, const T* a, const T* b) {
    b += lane() % 4 * 2 * pitch<DEPTH>;
    #pragma unroll 2
    for (int k = 0; k < DEPTH; k += PIECE) {
        Piece of_a[HELD];
        #pragma unroll
        for (int r = 0; r < HELD; ++r) of_a[r] = *(const Piece*)&a[row_of(r) * pitch<DEPTH> + k];
        #pragma unroll
        for (int j = 0; j < WIDTH / 4; ++j) {
            const Piece of_b = *(const Piece*)&b[(j / 2 * 8 + j % 2) * pitch<DEPTH> + k];
            #pragma unroll
            for (int r = 0; r < HELD; ++r)
                #pragma unroll
                for (int i = 0; i < PIECE; ++i)
                    d.x[r / 2][j / 2][r % 2 * 2 + j % 2] += acc_t(of_a[r].x[i]) * acc_t(of_b.x[i]);
        }
    }
}

// The columns of p come one after another, from the thread of the four that holds them.
template <int DEPTH, int WIDTH>
__device__ __forceinline__ void tile_by_matrix(Tile<WIDTH>& d, const Tile<DEPTH>& p, const T* b) {
    b += lane() % 4 * 2;
    #pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
        acc_t of_p[HELD];
        #pragma unroll
        for (int r = 0; r < HELD; ++r)
            of_p[r] = __shfl_sync(0xffffffffu, p.x[r / 2][k / 8][r % 2 * 2 + k % 2],
                                  lane() / 4 * 4 + k % 8 / 2);
        #pragma unroll
        for (int j = 0; j < WIDTH / 8; ++j) {
            const Pair of_b = *(const Pair*)&b[k * pitch<WIDTH> + 8 * j];
            #pragma unroll
            for (int r = 0; r < HELD; ++r)
                #pragma unroll
                for (int e = 0; e < 2; ++e)
                    d.x[r / 2][j][r % 2 * 2 + e] += of_p[r] * acc_t(of_b.x[e]);
        }
    }
}

#endif

// Begin to copy COUNT rows to shared memory; zeros for those that are not below `inside`.
template <int COUNT, int WIDTH>
__device__ __forceinline__ void fetch(T* shared, const T* rows, int inside) {
    constexpr int PIECES = WIDTH / PIECE;
    #pragma unroll 4
    for (int i = threadIdx.x; i < COUNT * PIECES; i += 32 * WARPS) {
        const int row = i / PIECES, column = i % PIECES * PIECE;
        copy_async16(&shared[row * pitch<WIDTH> + column], &rows[row * WIDTH + column],
                     row < inside);
    }
}

// f(first, tile of a, tile of b) for the rows of a (tokens x D) and b (tokens x DV) from `first` to
// `stop`, COLUMNS at a time. While f computes with two tiles, the next two are on their way.
template <typename F>
__device__ __forceinline__ void each_tile(const T* a, const T* b, int first, int stop, int tokens,
                                          T* shared, F f) {
    constexpr int B = COLUMNS * pitch<D>, STAGE = B + COLUMNS * pitch<DV>;
    auto fetch_both = [&](T* stage, int token) {
        fetch<COLUMNS, D>(stage, a + (long long)token * D, tokens - token);
        fetch<COLUMNS, DV>(stage + B, b + (long long)token * DV, tokens - token);
        commit_async();
    };
    if (first < stop) fetch_both(shared, first);
    for (int turn = 0; first < stop; first += COLUMNS, turn ^= 1) {
        wait_async<0>();
        __syncthreads();  // the tiles are here, and all threads are done with those before
        if (first + COLUMNS < stop) fetch_both(shared + (turn ^ 1) * STAGE, first + COLUMNS);
        f(first, shared + turn * STAGE, shared + turn * STAGE + B);
    }
}

template <int WIDTH>
__device__ __forceinline__ void store(T* rows, Tile<WIDTH>& d, int inside) {
    each(d, [&](acc_t x, int r, int column) {
        if (row_of(r) < inside) rows[(long long)row_of(r) * WIDTH + column] = T(x);
    });
}
