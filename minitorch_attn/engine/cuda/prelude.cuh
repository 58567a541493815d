// What every kernel may use. T, where it is defined, is the type that the arrays are stored in.

// In which type numbers of another are added up.
template <typename Stored>
struct Accumulator {
    using type = float;
};
template <>
struct Accumulator<double> {
    using type = double;
};
#ifdef T
using acc_t = Accumulator<T>::type;
#endif

// Every i below n for one thread of the grid, however many threads there are.
#define FOR_EACH(i, n)                                                              \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (n);   \
         i += (long long)gridDim.x * blockDim.x)

// The sum, or the maximum, of a number of each of the 32 threads of a warp, given to all of them.
template <typename Number>
__device__ __forceinline__ Number warp_sum(Number v) {
    for (int apart = 16; apart > 0; apart /= 2) v += __shfl_xor_sync(0xffffffffu, v, apart);
    return v;
}

template <typename Number>
__device__ __forceinline__ Number warp_max(Number v) {
    for (int apart = 16; apart > 0; apart /= 2) {
        Number other = __shfl_xor_sync(0xffffffffu, v, apart);
        v = other > v ? other : v;
    }
    return v;
}

// The same over a block whose size is a multiple of 32; `scratch` is shared, one place per warp.
template <typename Number>
__device__ __forceinline__ Number block_sum(Number v, Number* scratch) {
    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    Number total = 0;
    for (unsigned i = 0; i < blockDim.x / 32; ++i) total += scratch[i];
    return total;
}

template <typename Number>
__device__ __forceinline__ Number block_max(Number v, Number* scratch) {
    v = warp_max(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    Number most = scratch[0];
    for (unsigned i = 1; i < blockDim.x / 32; ++i) most = scratch[i] > most ? scratch[i] : most;
    return most;
}

// Add to a number that other threads add to at the same time. The order of the sum is the card's,
// so the last digits of the result may change from run to run.
__device__ __forceinline__ void atomic_add(float* p, float v) { atomicAdd(p, v); }
__device__ __forceinline__ void atomic_add(double* p, double v) { atomicAdd(p, v); }

// A 16-bit number is added to by exchanging the 32 bits that it is half of.
template <typename Half>
__device__ __forceinline__ void atomic_add(Half* p, float v) {
    unsigned long long address = (unsigned long long)p;
    unsigned* word = (unsigned*)(address & ~3ull);
    int shift = address & 2 ? 16 : 0;
    unsigned seen = *word, expected;
    do {
        expected = seen;
        Half sum;
        sum.bits = (unsigned short)(expected >> shift);
        sum = Half(float(sum) + v);
        unsigned wanted = (expected & ~(0xffffu << shift)) | ((unsigned)sum.bits << shift);
        seen = atomicCAS(word, expected, wanted);
    } while (seen != expected);
}
