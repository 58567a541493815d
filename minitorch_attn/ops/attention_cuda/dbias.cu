// The gradient of what was added to the scores, for a mask of (M, L, S): a block owns a tile of one
// of the M, and sums over the items of the batch to which it was added.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
attention_dbias(const T* q, const T* k, const T* v, const T* dy, const acc_t* log_sum,
                const acc_t* along, acc_t* dbias, long long N, SCORES_PARAMETERS) {
    extern __shared__ uint4 memory[];
    T *of_q = (T*)memory, *of_dy = of_q + ROWS * pitch<D>, *tiles = of_dy + ROWS * pitch<DV>;
    const long long rows = (L + ROWS - 1) / ROWS, columns = (S + COLUMNS - 1) / COLUMNS;
    const long long m = blockIdx.x / (rows * columns);
    const int query0 = blockIdx.x / columns % rows * ROWS, key0 = blockIdx.x % columns * COLUMNS;

    Tile<COLUMNS> sum = {};
    for (long long n = 0; n < N; ++n) {
        if (which[n] != m) continue;
        const Scores scores = SCORES(n);
        fetch<ROWS, D>(of_q, q + (n * L + query0) * D, L - query0);
        fetch<ROWS, DV>(of_dy, dy + (n * L + query0) * DV, L - query0);
        each_tile(k + n * S * D, v + n * S * DV, key0, key0 + 1, S, tiles,
                  [&](int, const T* of_k, const T* of_v) {
            Tile<COLUMNS> p = {}, ds = {};
            rows_by_rows<D>(p, of_q, of_k);
            rows_by_rows<DV>(ds, of_dy, of_v);
            scores.again<false>(p, ds, query0, key0, log_sum + n * L, along + n * L);
            each(sum, ds, [&](acc_t& x, acc_t of_item, int, int) { x += of_item; });
        });
        __syncthreads();
    }
    each(sum, [&](acc_t x, int r, int column) {
        const int i = query0 + row_of(r), j = key0 + column;
        if (i < L && j < S) dbias[(m * L + i) * S + j] = x;
    });
}
