extern "C" __global__ void __launch_bounds__(32 * WARPS)
attention_dk_dv(const T* q, const T* k, const T* v, const T* dy, const acc_t* log_sum,
                const acc_t* along, T* dk, T* dv, SCORES_PARAMETERS) {
    extern __shared__ uint4 memory[];
    T *of_k = (T*)memory, *of_v = of_k + ROWS * pitch<D>, *tiles = of_v + ROWS * pitch<DV>;
    const long long blocks = (S + ROWS - 1) / ROWS, n = blockIdx.x / blocks;
    const int key0 = blockIdx.x % blocks * ROWS;
    const Scores scores = SCORES(n);

    fetch<ROWS, D>(of_k, k + (n * S + key0) * D, S - key0);
    fetch<ROWS, DV>(of_v, v + (n * S + key0) * DV, S - key0);
    Tile<D> sum_k = {};
    Tile<DV> sum_v = {};
    each_tile(q + n * L * D, dy + n * L * DV, CAUSAL ? key0 : 0, L, L, tiles,
              [&](int query0, const T* of_q, const T* of_dy) {
        Tile<COLUMNS> p = {}, ds = {};  // transposed: a row for each key
        rows_by_rows<D>(p, of_k, of_q);
        rows_by_rows<DV>(ds, of_v, of_dy);
        scores.again<true>(p, ds, key0, query0, log_sum + n * L, along + n * L);
        tile_by_matrix(sum_v, p, of_dy);
        tile_by_matrix(sum_k, ds, of_q);
    });
    each(sum_k, [&](acc_t& x, int, int) { x *= scores.scale; });
    store(dk + (n * S + key0) * D, sum_k, S - key0);
    store(dv + (n * S + key0) * DV, sum_v, S - key0);
}
