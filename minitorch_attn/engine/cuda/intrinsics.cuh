// Instructions of the GPU that C++ has no word for, as functions. Header files may be missing where
// a kernel is compiled, so half precision is spelled out too. A compiler for another machine must
// bring functions of the same names.
#ifdef __CUDACC__

// 16 bits: 1 for the sign, 5 for the exponent, 10 for the fraction.
struct half_t {
    unsigned short bits;
    half_t() = default;
    __device__ explicit half_t(float f) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(f)); }
    __device__ operator float() const {
        float f;
        asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(bits));
        return f;
    }
};

// The upper half of a float: 1 bit for the sign, 8 for the exponent, 7 for the fraction.
struct bfloat_t {
    unsigned short bits;
    bfloat_t() = default;
    __device__ explicit bfloat_t(float f) {
#if __CUDA_ARCH__ >= 800
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(f));
#else
        const unsigned u = __float_as_uint(f);
        const unsigned to_nearest_even = u + 0x7fffu + (u >> 16 & 1);
        bits = (unsigned short)((f == f ? to_nearest_even : 0x7fffffffu) >> 16);
#endif
    }
    __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
};

// The nearest float whose fraction has 10 bits, as a matrix unit takes it.
__device__ __forceinline__ unsigned to_tf32(float f) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(f));
    return bits;
}

// d += a b by the 32 threads of a warp (compute capability 8.0 and later), each of which holds a part of each matrix.
// a is 16 x 16, b 16 x 8, d 16 x 8; with lane = 4 g + t the thread holds of
//   d: (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1)
//   a: pairs of columns 2t, 2t + 1 of rows g, g + 8, then the same of columns 2t + 8, 2t + 9
//   b: pairs of rows 2t, 2t + 1 of column g, then rows 2t + 8, 2t + 9
__device__ __forceinline__ void mma_f16(float (&d)[4], const unsigned (&a)[4],
                                        const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of floats: a is 16 x 8, b 8 x 8. The thread holds of
//   a: (g, t) (g + 8, t) (g, t + 4) (g + 8, t + 4)
//   b: (t, g) (t + 4, g)
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ unsigned shared_address(const void* shared) {
    return (unsigned)__cvta_generic_to_shared(shared);
}

// Two or four 8 x 8 matrices of 16-bit numbers from shared memory. Lane 8 i + j gives the address
// of row j of matrix i (16 bytes, aligned to 16); lane 4 g + t receives of each matrix the pair of
// columns 2t, 2t + 1 of row g, or with _trans the pair of rows 2t, 2t + 1 of column g.
__device__ __forceinline__ void ldmatrix_x2(unsigned (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)) : "memory");
}

// Begin to copy 16 bytes (both addresses aligned to 16) from global to shared memory past the
// registers; zeros where it is not `inside`. They have arrived once their group was waited for.
// Cards before compute capability 8.0 copy at once.
__device__ __forceinline__ void copy_async16(void* shared, const void* global, bool inside) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(shared)), "l"(global), "r"(inside ? 16 : 0) : "memory");
#else
    *(uint4*)shared = inside ? *(const uint4*)global : make_uint4(0, 0, 0, 0);
#endif
}

// Close a group of copies.
__device__ __forceinline__ void commit_async() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until at most N of this thread's groups are under way. Others' need a barrier besides.
template <int N>
__device__ __forceinline__ void wait_async() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
#endif
}

#endif
