extern "C" __global__ void __launch_bounds__(32 * WARPS)
attention_dq(const T* q, const T* k, const T* v, const T* dy, const acc_t* log_sum,
             const acc_t* along, T* dq, SCORES_PARAMETERS) {
    extern __shared__ uint4 memory[];
    T *of_q = (T*)memory, *of_dy = of_q + ROWS * pitch<D>, *tiles = of_dy + ROWS * pitch<DV>;
    const long long blocks = (L + ROWS - 1) / ROWS, n = blockIdx.x / blocks;
    const int query0 = (blocks - 1 - blockIdx.x % blocks) * ROWS;
    const Scores scores = SCORES(n);

    fetch<ROWS, D>(of_q, q + (n * L + query0) * D, L - query0);
    fetch<ROWS, DV>(of_dy, dy + (n * L + query0) * DV, L - query0);
    Tile<D> sum = {};
    const int stop = CAUSAL ? min((int)S, query0 + ROWS) : S;
    each_tile(k + n * S * D, v + n * S * DV, 0, stop, S, tiles,
              [&](int key0, const T* of_k, const T* of_v) {
        Tile<COLUMNS> p = {}, ds = {};
        rows_by_rows<D>(p, of_q, of_k);
        rows_by_rows<DV>(ds, of_dy, of_v);
        scores.again<false>(p, ds, query0, key0, log_sum + n * L, along + n * L);
        tile_by_matrix(sum, ds, of_k);
    });
    each(sum, [&](acc_t& x, int, int) { x *= scores.scale; });
    store(dq + (n * L + query0) * D, sum, L - query0);
}
