extern "C" __global__ void __launch_bounds__(32 * WARPS)
attention_forward(const T* q, const T* k, const T* v, T* y, acc_t* log_sum, SCORES_PARAMETERS) {
    extern __shared__ uint4 memory[];
    T *of_q = (T*)memory, *tiles = of_q + ROWS * pitch<D>;
    const long long blocks = (L + ROWS - 1) / ROWS, n = blockIdx.x / blocks;
    const int query0 = (blocks - 1 - blockIdx.x % blocks) * ROWS;  // with a causal mask, long first
    const Scores scores = SCORES(n);

    fetch<ROWS, D>(of_q, q + (n * L + query0) * D, L - query0);
    Tile<DV> sum = {};
    acc_t highest[HELD], total[HELD], shrink[HELD], reference[HELD];
    #pragma unroll
    for (int r = 0; r < HELD; ++r) highest[r] = HIDDEN, total[r] = 0;

    const int stop = CAUSAL ? min((int)S, query0 + ROWS) : S;
    each_tile(k + n * S * D, v + n * S * DV, 0, stop, S, tiles,
              [&](int key0, const T* of_k, const T* of_v) {
        Tile<COLUMNS> p = {};
        rows_by_rows<D>(p, of_q, of_k);
        scores.finish<false>(p, query0, key0);

        #pragma unroll
        for (int r = 0; r < HELD; ++r) shrink[r] = highest[r];
        each(p, [&](acc_t s, int r, int) { highest[r] = max(highest[r], s); });
        bool risen = false;
        #pragma unroll
        for (int r = 0; r < HELD; ++r) {
            highest[r] = row_max(highest[r]);
            risen |= highest[r] != shrink[r];
            const acc_t before = LOG2_E * shrink[r];
            reference[r] = highest[r] == HIDDEN ? 0 : LOG2_E * highest[r];  // of no key: 2^-inf = 0
            shrink[r] = exp2(before - reference[r]);
            total[r] *= shrink[r];
        }
        if (__ballot_sync(0xffffffffu, risen))
            each(sum, [&](acc_t& x, int r, int) { x *= shrink[r]; });

        each(p, [&](acc_t& x, int r, int column) {
            x = exp2(fma(LOG2_E, x, -reference[r]));
            total[r] += x;
            x *= scores.noise(query0 + row_of(r), key0 + column);
        });
        tile_by_matrix(sum, p, of_v);
    });

    #pragma unroll
    for (int r = 0; r < HELD; ++r) {
        total[r] = row_sum(total[r]);
        if (total[r] == 0) total[r] = 1;  // the sum of nothing: then the output stays 0
        const int i = query0 + row_of(r);
        if (i < L && lane() % 4 == 0) log_sum[n * L + i] = reference[r] + log2(total[r]);
    }
    each(sum, [&](acc_t& x, int r, int) { x /= total[r]; });
    store(y + (n * L + query0) * DV, sum, L - query0);
}
