// Convolution where a group has a few output channels, or one (depthwise): too few rows for a tile
// of a matrix product. Each output by itself sums what its taps meet; see implicit_gemm.cu for the
// tables. Its neighbours read the same numbers at about the same time, from the cache.
__device__ __forceinline__ acc_t met(const T* window, int inside, int2 tap) {
    return tap.y & ~inside ? acc_t(0) : acc_t(window[tap.x]);
}

#if GRAD_WEIGHT
// A block sums a few taps of one output channel over its share of the images.
constexpr int TAPS = 9;

extern "C" __global__ void direct(const T* x, const T* dy, acc_t* d, const int2* places,
                                  const int2* taps, long long M, long long N, long long P,
                                  long long K, long long x_group) {
    __shared__ acc_t scratch[32];
    const long long O = gridDim.x, o = blockIdx.x, first_tap = (long long)blockIdx.y * TAPS;
    const long long shares = gridDim.z, share = blockIdx.z;
    const long long images = (N - share + shares - 1) / shares;
    acc_t sums[TAPS] = {};
    int2 tap[TAPS];
    for (int i = 0; i < TAPS; ++i) tap[i] = taps[min(first_tap + i, K - 1)];
    for (unsigned i = threadIdx.x; i < images * P; i += blockDim.x) {
        const unsigned p = i % (unsigned)P;
        const long long n = share + i / (unsigned)P * shares;
        const acc_t sent = acc_t(dy[(n * O + o) * P + p]);
        const T* window = x + (n * (O / M) + o / M) * x_group + places[p].x;
#pragma unroll
        for (int j = 0; j < TAPS; ++j) sums[j] += sent * met(window, places[p].y, tap[j]);
    }
#pragma unroll
    for (int j = 0; j < TAPS; ++j) {
        const acc_t sum = block_sum(sums[j], scratch);
        if (threadIdx.x == 0 && first_tap + j < K) d[(share * O + o) * K + first_tap + j] = sum;
    }
}
#else
// A thread takes one output of several images, so that place and taps are looked up once for all.
constexpr int IMAGES = 4;

extern "C" __global__ void direct(const T* x, const T* weight, T* y, const T* bias,
                                  const int2* places, const int2* taps, const int* where,
                                  const int* order, long long O, long long M, long long N,
                                  long long P, long long K, long long x_group, long long plane,
                                  long long group_step, long long m_step, long long biased) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= O * P) return;
    const long long o = i / P, p = i % P, group = o / M;
    const int2 place = places[p];
    const T* kernel = weight + group * group_step + o % M * m_step;
    const T* window = x + group * x_group + place.x;
    const long long x_image = O / M * x_group;
    const acc_t more = biased ? acc_t(bias[o]) : acc_t(0);
    for (long long n = (long long)blockIdx.y * IMAGES; n < N; n += gridDim.y * IMAGES) {
        acc_t sums[IMAGES] = {};
        const T* windows[IMAGES];
#pragma unroll
        for (int j = 0; j < IMAGES; ++j) windows[j] = window + min(n + j, N - 1) * x_image;
        for (int k = 0; k < K; ++k) {
            const int2 tap = taps[k];
            const acc_t w = acc_t(kernel[order[k]]);
#pragma unroll
            for (int j = 0; j < IMAGES; ++j) sums[j] += w * met(windows[j], place.y, tap);
        }
        for (int j = 0; j < IMAGES && n + j < N; ++j)
            y[((n + j) * O + o) * plane + where[p]] = T(sums[j] + more);
    }
}
#endif
