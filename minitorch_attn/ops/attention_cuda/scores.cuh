// Softmax attention: forward, and the gradients of queries, keys, values and bias.
//
// The GPU has an instruction for 2^x, so logarithms are to the base 2: with c = log2(e),
//
//     p_ij = 2^(c s_ij - l_i),   l_i = log2 sum_j 2^(c s_ij).
//
// (c s - l is rounded once: large scores lose no digits to c.)
//
// Forward: a block owns ROWS queries and meets the keys COLUMNS at a time. Of each query it keeps
// the largest score so far, m / c, and relative to 2^m the sum of powers and the sum of values.
// When a tile brings a larger m', both are multiplied by 2^(m - m') (online softmax).
//
// Backward: from l_i the weights of any tile follow at once, and with a_i = dy_i . y_i
//
//     ds_ij = p_ij (dy_i . v_j - a_i),
//     dq_i = scale sum_j ds_ij k_j,   dk_j = scale sum_i ds_ij q_i,   dv_j = sum_i p_ij dy_i.
//
// A sum over keys is a loop of the block that owns the queries, a sum over queries one of the block
// that owns the keys: two kernels, each of which computes the scores again. One kernel for both
// would save two of seven products, but its blocks would add to each other's dq by atomics, and the
// last digits would change from run to run.
//
// Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018), algorithm 3.
// Dao, "FlashAttention-2" (2023), algorithms 1 and 2.

constexpr acc_t LOG2_E = 1.4426950408889634;
#define HIDDEN acc_t(__int_as_float(0xff800000))  // -inf, the score of a key that is not looked at

// What scores and weights are computed from, beside queries and keys.
#define SCORES_PARAMETERS                                                                          \
    long long L, long long S, double scale, const MASK_T *mask, const long long *which,            \
        long long mask_item, long long mask_row, long long mask_column, double kept,               \
        long long dropped, long long seed
#define SCORES(n)                                                                                  \
    Scores {                                                                                       \
        (int)L, (int)S, acc_t(scale), mask + (MASK ? which[n] * mask_item : 0), mask_row,          \
            (int)mask_column, acc_t(kept), (unsigned)dropped, (unsigned)seed, (unsigned)(n * L)    \
    }

// Every bit of h changes each bit of the result half of the time. (The constants are from Wellons,
// "Prospecting for Hash Functions", 2018.)
__device__ __forceinline__ unsigned mixed(unsigned h) {
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    return h ^ (h >> 16);
}

// f(number of a, number of b, query, key) for every place of two tiles of scores.
template <bool KEYS_ARE_ROWS, typename F>
__device__ __forceinline__ void each_place(Tile<COLUMNS>& a, Tile<COLUMNS>& b, int row0,
                                           int column0, F f) {
    each(a, b, [&](acc_t& x, acc_t& y, int r, int column) {
        const int at_row = row0 + row_of(r), at_column = column0 + column;
        f(x, y, KEYS_ARE_ROWS ? at_column : at_row, KEYS_ARE_ROWS ? at_row : at_column);
    });
}

// The scores of an item of the batch: what stands between q k^T and the weights.
struct Scores {
    int L, S;
    acc_t scale;
    const MASK_T* mask;
    long long mask_row;
    int mask_column;
    acc_t kept;                    // dropout's factor of a weight that is kept
    unsigned dropped, seed, item;  // how many in 2^32 are not; where the noise begins

    // The mask's number for query i and key j; some other where there is no such pair.
    __device__ __forceinline__ MASK_T masks(int i, int j) const {
        return mask[min(i, L - 1) * mask_row + min(j, S - 1) * mask_column];
    }

    // Dropout's factor of a weight: a function of its place, so that it need not be stored, and the
    // same as that of `Noise` in attention_tiles.py.
    __device__ __forceinline__ acc_t noise(int i, int j) const {
        if (!DROPOUT) return 1;
        const unsigned row = mixed(mixed(item + i) + seed);
        return mixed(row + j * 0x9e3779b9u) < dropped ? acc_t(0) : kept;
    }

    // Products q k^T as scores, HIDDEN where a query may not look or where there is none.
    template <bool KEYS_ARE_ROWS>
    __device__ __forceinline__ void finish(Tile<COLUMNS>& s, int row0, int column0) const {
        each_place<KEYS_ARE_ROWS>(s, s, row0, column0, [&](acc_t& x, acc_t&, int i, int j) {
            x *= scale;
            if (MASK == 1 && !masks(i, j)) x = HIDDEN;
            if (MASK == 2) x += acc_t(masks(i, j));
        });
        const int i0 = KEYS_ARE_ROWS ? column0 : row0, i1 = i0 + (KEYS_ARE_ROWS ? COLUMNS : ROWS);
        const int j0 = KEYS_ARE_ROWS ? row0 : column0, j1 = j0 + (KEYS_ARE_ROWS ? ROWS : COLUMNS);
        if (i1 <= L && j1 <= S && !(CAUSAL && j1 > i0 + 1)) return;  // nothing to hide
        each_place<KEYS_ARE_ROWS>(s, s, row0, column0, [&](acc_t& x, acc_t&, int i, int j) {
            if (i >= L || j >= S || (CAUSAL && j > i)) x = HIDDEN;
        });
    }

    // Products q k^T and dy v^T as weights, with noise, and as gradients of the scores.
    template <bool KEYS_ARE_ROWS>
    __device__ __forceinline__ void again(Tile<COLUMNS>& p, Tile<COLUMNS>& ds, int row0,
                                          int column0, const acc_t* log_sum,
                                          const acc_t* along) const {
        finish<KEYS_ARE_ROWS>(p, row0, column0);
        each_place<KEYS_ARE_ROWS>(p, ds, row0, column0, [&](acc_t& p, acc_t& ds, int i, int j) {
            const int known = min(i, L - 1);
            const acc_t factor = noise(i, j);
            p = exp2(fma(LOG2_E, p, -log_sum[known]));
            ds = p * (factor * ds - along[known]);
            p *= factor;
        });
    }
};
