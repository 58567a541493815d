// along_i = dy_i . y_i, a warp for each query.
extern "C" __global__ void attention_along(const T* dy, const T* y, acc_t* along, long long rows,
                                           long long features) {
    const long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (i >= rows) return;
    acc_t sum = 0;
    for (long long d = i * features + threadIdx.x % 32; d < (i + 1) * features; d += 32)
        sum += acc_t(dy[d]) * acc_t(y[d]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) along[i] = sum;
}
