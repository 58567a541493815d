// What is multiplied: a word. For the matrix units it is 32 bits, one float rounded to TF32 or two
// 16-bit numbers that follow one another along k; else it is one number in the type of the sums.
#if MATRIX_UNITS
using word = unsigned;
constexpr int PACK = 4 / sizeof(T);  // numbers in a word
constexpr int DEPTH = 16;            // words of a tile along k

__device__ __forceinline__ word join(const float* v) { return to_tf32(v[0]); }

template <typename Half>
__device__ __forceinline__ word join(const Half* v) {
    return v[0].bits | (unsigned)v[1].bits << 16;
}
#else
using word = acc_t;
constexpr int PACK = 1;
constexpr int DEPTH = 8;

__device__ __forceinline__ word join(const T* v) { return acc_t(v[0]); }
#endif
