// Kernels in the order in which implicit_gemm.cu multiplies them: quads of words, of two rows m and
// two steps k each, (k, m) (k, m + 1) (k + 1, m) (k + 1, m + 1). Zeros fill up whole tiles.
extern "C" __global__ void pack(const T* weight, const int* order, word* packed, long long groups,
                                long long M, long long K, long long width, long long depth,
                                long long group_step, long long m_step) {
    FOR_EACH(i, groups * depth * width) {
        long long quad = i / 4, pairs = width / 2;
        long long m = quad % pairs * 2 + i % 2;
        long long k = (quad / pairs % (depth / 2) * 2 + i / 2 % 2) * PACK;
        const T* kernel = weight + i / (depth * width) * group_step + m * m_step;
        T v[PACK];
        for (int h = 0; h < PACK; ++h) v[h] = m < M && k + h < K ? kernel[order[k + h]] : T();
        packed[i] = join(v);
    }
}
