"""The GPU's own instructions on the CPU, held against formulas of their own in NumPy.

Layouts are those of the PTX ISA (sections on the fragments of mma.m16n8k16 and m16n8k8, and on
ldmatrix): here as index arrays, in the emulator as loops over lanes.
"""

import numpy as np
import pytest

from minitorch_attn.simulator import kernels
from minitorch_attn.simulator.kernels import LaunchError, NoCompiler, RawKernel

try:
    kernels.compiler()
except NoCompiler as missing:
    pytest.skip(str(missing), allow_module_level=True)

RANDOM = np.random.default_rng(8)
LANE = np.arange(32)
GROUP, IN_GROUP = LANE // 4, LANE % 4


def run(parameters, body, *arguments, grid=(1,), block=(32,), shared_mem=0):
    source = f'extern "C" __global__ void tried({parameters}) {{\nint i = threadIdx.x;\n{body}\n}}'
    RawKernel(source, "tried").run(grid, block, arguments, shared_mem=shared_mem)


# ---------------------------------------------------------------- conversions

EVERY_16_BITS = np.arange(2**16, dtype=np.uint16)


def floats_to_round():
    """Floats of every size, those half-way between two halves, and their neighbours."""
    bits = RANDOM.integers(0, 2**32, 200_000, dtype=np.uint32)
    near = []
    for shift in (13, 16):
        at = RANDOM.integers(0, 2**32, 100_000, dtype=np.uint32) >> shift << shift
        middle = at + np.uint32(1 << shift - 1)
        near += [at, middle - np.uint32(1), middle, middle + np.uint32(1)]
    small = np.float32(2.0**-24) * RANDOM.integers(0, 2100, 10_000).astype(np.float32) / 2
    edges = [0, 65504, 65519.996, 65520, 2.0**-14, 2.0**-25, 2.0**-149, 3.39e38, np.inf, np.nan]
    edges = np.array(edges, np.float32)
    return np.concatenate([np.concatenate([bits, *near]).view(np.float32), small, edges, -edges])


def each(given, taken, expression):
    run(
        f"const {given[1]}* x, {taken[1]}* y, long long n",
        f"for (i += blockIdx.x * 32; i < n; i += 32 * gridDim.x) y[i] = {expression};",
        given[0],
        taken[0],
        given[0].size,
        grid=(8,),
    )
    return taken[0]


def bfloat16():
    return pytest.importorskip("ml_dtypes").bfloat16


@pytest.mark.parametrize("kind", ["half_t", "bfloat_t"])
def test_sixteen_bits_become_the_float_they_stand_for(kind):
    x = EVERY_16_BITS.view(np.float16 if kind == "half_t" else bfloat16())
    y = each((x, kind), (np.zeros(x.size, np.float32), "float"), "x[i]")
    np.testing.assert_array_equal(y, x.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(y), EVERY_16_BITS >> 15)


@pytest.mark.parametrize("kind", ["half_t", "bfloat_t"])
def test_floats_round_to_the_nearest_even_of_sixteen_bits(kind):
    dtype = np.float16 if kind == "half_t" else bfloat16()
    x = floats_to_round()
    y = each((x, "float"), (np.zeros(x.size, dtype), kind), f"{kind}(x[i])")
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = x.astype(dtype)
    there = ~np.isnan(x)
    np.testing.assert_array_equal(y[there].view(np.uint16), wanted[there].view(np.uint16))
    assert (y[~there].view(np.uint16) == 0x7FFF).all()


def nearest_tf32(x):
    """By its definition: of two numbers of 10 bits of fraction the nearer, else the larger."""
    fraction, exponent = np.frexp(x.astype(np.float64))
    step = np.ldexp(1.0, np.maximum(exponent, -125) - 11)
    size = np.floor(np.abs(x.astype(np.float64)) / step + 0.5) * step
    with np.errstate(over="ignore"):
        return np.copysign(size, fraction).astype(np.float32)


def test_floats_round_to_tf32():
    x = floats_to_round()
    x = x[np.isfinite(x)]
    y = each((x, "float"), (np.zeros(x.size, np.uint32), "unsigned"), "to_tf32(x[i])")
    np.testing.assert_array_equal(y.view(np.float32), nearest_tf32(x))
    assert (y & 0x1FFF == 0).all()
    special = np.array([np.inf, -np.inf, np.nan], np.float32)
    y = each((special, "float"), (np.zeros(3, np.uint32), "unsigned"), "to_tf32(x[i])")
    np.testing.assert_array_equal(y.view(np.float32), special)


def test_bits_of_floats():
    x = np.array([1.5, -0.0, np.inf], np.float32)
    y = each((x, "float"), (np.zeros(3, np.uint32), "unsigned"), "__float_as_uint(x[i])")
    np.testing.assert_array_equal(y, x.view(np.uint32))
    z = each((y, "unsigned"), (np.zeros(3, np.float32), "float"), "__uint_as_float(x[i])")
    np.testing.assert_array_equal(z.view(np.uint32), y)


# ---------------------------------------------------------------- matrices of a warp


def pairs(matrix, rows, columns):
    """Elements at two index arrays whose last axis is (low, high), packed into 32 bits."""
    bits = matrix.view(np.uint16)[rows, columns].astype(np.uint32)
    return bits[..., 0] | bits[..., 1] << 16


def fragments_of_halves(a, b):
    """Registers (lane, register) of a 16 x 16 and b 16 x 8, two numbers in each."""
    i = np.arange(8)
    upper = (i < 2) | ((i >= 4) & (i < 6))
    row = GROUP[:, None] + np.where(upper, 0, 8)
    column = IN_GROUP[:, None] * 2 + (i & 1) + np.where(i >= 4, 8, 0)
    of_a = pairs(a, row.reshape(32, 4, 2), column.reshape(32, 4, 2))
    i = np.arange(4)
    row = IN_GROUP[:, None] * 2 + (i & 1) + np.where(i >= 2, 8, 0)
    column = np.broadcast_to(GROUP[:, None], row.shape)
    of_b = pairs(b, row.reshape(32, 2, 2), column.reshape(32, 2, 2))
    return of_a, of_b


def fragments_of_tf32(a, b):
    """Registers of a 16 x 8 and b 8 x 8."""
    i = np.arange(4)
    of_a = a[GROUP[:, None] + (i % 2) * 8, IN_GROUP[:, None] + (i // 2) * 4]
    of_b = b[IN_GROUP[:, None] + np.arange(2) * 4, GROUP[:, None]]
    return of_a.view(np.uint32), of_b.view(np.uint32)


def accumulators(d):
    """Floats (lane, register) of d 16 x 8."""
    i = np.arange(4)
    return d[GROUP[:, None] + (i >= 2) * 8, IN_GROUP[:, None] * 2 + (i & 1)]


def multiplied(instruction, of_a, of_b, of_d):
    of_a, of_b, of_d = map(np.ascontiguousarray, (of_a, of_b, of_d))
    body = f"""
        unsigned ra[4], rb[2];
        float rd[4];
        for (int k = 0; k < 4; ++k) ra[k] = a[4 * i + k];
        for (int k = 0; k < 2; ++k) rb[k] = b[2 * i + k];
        for (int k = 0; k < 4; ++k) rd[k] = d[4 * i + k];
        {instruction}(rd, ra, rb);
        for (int k = 0; k < 4; ++k) d[4 * i + k] = rd[k];
    """
    run("const unsigned* a, const unsigned* b, float* d", body, of_a, of_b, of_d)
    return of_d


@pytest.mark.parametrize("instruction", ["mma_f16", "mma_bf16", "mma_tf32"])
@pytest.mark.parametrize("exact", [True, False], ids=["integers", "fractions"])
def test_a_warp_multiplies_matrices(instruction, exact):
    inner = 8 if instruction == "mma_tf32" else 16
    a, b = RANDOM.standard_normal((16, inner)), RANDOM.standard_normal((inner, 8))
    d = RANDOM.standard_normal((16, 8)).astype(np.float32)
    if exact:
        a, b, d = np.round(9 * a), np.round(9 * b), np.round(9 * d).astype(np.float32)
    if instruction == "mma_tf32":
        a, b = nearest_tf32(a.astype(np.float32)), nearest_tf32(b.astype(np.float32))
        registers = fragments_of_tf32(a, b)
    else:
        dtype = np.float16 if instruction == "mma_f16" else bfloat16()
        a, b = a.astype(dtype), b.astype(dtype)
        registers = fragments_of_halves(a, b)
    found = multiplied(instruction, *registers, accumulators(d))
    wanted = d + a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(found, accumulators(wanted), rtol=0 if exact else 2e-6, atol=1e-6)


def test_tf32_ignores_the_bits_that_it_does_not_have():
    a, b = RANDOM.standard_normal((16, 8)), RANDOM.standard_normal((8, 8))
    a, b = nearest_tf32(a.astype(np.float32)), nearest_tf32(b.astype(np.float32))
    of_a, of_b = fragments_of_tf32(a, b)
    zero = np.zeros((32, 4), np.float32)
    clean = multiplied("mma_tf32", of_a, of_b, zero)
    noise = RANDOM.integers(0, 2**13, (32, 6), dtype=np.uint32)
    noisy = multiplied("mma_tf32", of_a | noise[:, :4], of_b | noise[:, 4:], zero)
    np.testing.assert_array_equal(clean, noisy)


def test_infinity_and_nan_pass_through_a_multiplication():
    a = np.eye(16, dtype=np.float16)
    b = np.ones((16, 8), np.float16)
    a[3, 3], a[5, 5] = np.inf, np.nan
    found = multiplied("mma_f16", *fragments_of_halves(a, b), np.zeros((32, 4), np.float32))
    wanted = np.ones((16, 8), np.float32)
    wanted[3], wanted[5] = np.inf, np.nan
    np.testing.assert_array_equal(found, accumulators(wanted))


def test_a_multiplication_needs_the_whole_warp():
    body = "float d[4] = {}; unsigned a[4] = {}, b[2] = {};\nif (i < 31) mma_f16(d, a, b);"
    with pytest.raises(LaunchError, match="in vain: 1 have returned, 31 at mma_f16 in line 4"):
        run("", body)


def test_a_multiplication_is_one_instruction_for_all_lanes():
    body = """float d[4] = {}; unsigned a[4] = {}, b[2] = {};
        if (i < 16) mma_f16(d, a, b);
        else mma_f16(d, a, b);"""
    with pytest.raises(LaunchError, match="in vain: 0 have returned, 16 at mma_f16 in line"):
        run("", body)


# ---------------------------------------------------------------- ldmatrix


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_are_loaded_from_rows_in_shared_memory(count, transposed):
    stored = RANDOM.integers(0, 2**16, (8 * count, 8)).astype(np.uint16)
    rows = RANDOM.permutation(8 * count).astype(np.int32)  # of lane l's address
    taken = np.zeros((32, count), np.uint32)
    name = f"ldmatrix_x{count}{'_trans' * transposed}"
    body = f"""
        __shared__ __align__(16) unsigned short kept[{8 * count}][8];
        for (int k = i; k < {64 * count}; k += 32) kept[k / 8][k % 8] = stored[k];
        __syncthreads();
        unsigned r[{count}];
        {name}(r, i < {8 * count} ? kept[rows[i]] : nullptr);
        for (int k = 0; k < {count}; ++k) taken[{count} * i + k] = r[k];
    """
    run("const unsigned short* stored, const int* rows, unsigned* taken", body, stored, rows, taken)
    matrices = stored[rows].reshape(count, 8, 8)
    if transposed:
        matrices = matrices.swapaxes(1, 2)
    low, high = matrices[:, :, 0::2], matrices[:, :, 1::2]
    wanted = low.astype(np.uint32) | high.astype(np.uint32) << 16
    np.testing.assert_array_equal(taken, wanted.reshape(count, 32).T)


@pytest.mark.parametrize("transposed", [False, True])
def test_loaded_matrices_are_the_fragments_that_are_multiplied(transposed):
    """As kernels use them: b as its rows lie in memory, or as its columns do."""
    a = RANDOM.standard_normal((16, 16)).astype(np.float16)
    b = RANDOM.standard_normal((16, 8)).astype(np.float16)
    stored = b if transposed else np.ascontiguousarray(b.T)
    d = np.zeros((16, 8), np.float32)
    address = "&sb[i % 16][0]" if transposed else "&sb[i % 8][i / 8 % 2 * 8]"
    shape = "[16][8]" if transposed else "[8][16]"
    body = f"""
        __shared__ __align__(16) half_t sa[16][16], sb{shape};
        for (int k = i; k < 256; k += 32) sa[k / 16][k % 16] = a[k];
        for (int k = i; k < 128; k += 32) (&sb[0][0])[k] = b[k];
        __syncwarp();
        unsigned ra[4], rb[2];
        float rd[4] = {{}};
        ldmatrix_x4(ra, &sa[i % 16][i / 16 * 8]);
        ldmatrix_x2{"_trans" * transposed}(rb, {address});
        mma_f16(rd, ra, rb);
        for (int k = 0; k < 4; ++k) d[(i / 4 + k / 2 * 8) * 8 + i % 4 * 2 + k % 2] = rd[k];
    """
    run("const half_t* a, const half_t* b, float* d", body, a, stored, d)
    np.testing.assert_allclose(d, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("kept + 1", "the row is not aligned to 16"),
        ("kept + 64 * 8 - 4", "not 16 bytes of shared memory"),
        ("global", "not 16 bytes of shared memory"),
    ],
)
def test_a_row_must_be_sixteen_aligned_bytes_of_shared_memory(row, said):
    body = f"""__shared__ __align__(16) unsigned short kept[64 * 8];
        unsigned r[4];
        ldmatrix_x4(r, i == 9 ? {row} : kept);"""
    with pytest.raises(LaunchError, match=f"ldmatrix_x4 in line 5: {said}.*thread .9, 0, 0."):
        run("const unsigned short* global", body, np.zeros(64, np.uint16))


# ---------------------------------------------------------------- copies past the registers

COPIED = """
    __shared__ __align__(16) float kept[4 * 32];
    copy_async16(kept + 4 * i, x + 4 * i, i < inside);
    commit_async();
    copy_async16(kept + 4 * i, x + 128 + 4 * i, true);
    commit_async();
    {wait}
    for (int k = 0; k < 4; ++k) y[4 * i + k] = kept[4 * i + k];
"""


def copied(wait, inside=32):
    x = RANDOM.standard_normal((2, 128)).astype(np.float32)
    y = np.zeros(128, np.float32)
    run("const float* x, float* y, long long inside", COPIED.format(wait=wait), x, y, inside)
    return x, y


def test_copies_have_arrived_once_they_were_waited_for():
    x, y = copied("wait_async<0>();")
    np.testing.assert_array_equal(y, x[1])


def test_the_latest_groups_may_be_left_under_way():
    x, y = copied("wait_async<1>();")
    np.testing.assert_array_equal(y, x[0])


@pytest.mark.parametrize("wait", ["", "wait_async<2>();"])
def test_a_missing_wait_shows(wait):
    _, y = copied(wait)
    assert np.isnan(y).all()


def test_zeros_arrive_where_a_copy_is_outside():
    x, y = copied("wait_async<1>();", inside=20)
    np.testing.assert_array_equal(y, np.where(np.arange(128) < 80, x[0], 0))


def test_outside_nothing_is_read():
    body = """__shared__ __align__(16) float kept[4];
        copy_async16(kept, x + 4000, i != 0);
        commit_async();
        wait_async<0>();
        y[0] = kept[0];"""
    y = np.ones(1, np.float32)
    run("const float* x, float* y", body, np.zeros(4, np.float32), y, block=(1,))
    assert y[0] == 0


def test_copies_that_were_not_committed_are_not_waited_for():
    body = """__shared__ __align__(16) float kept[4];
        copy_async16(kept, x, true);
        wait_async<0>();
        y[0] = kept[0];"""
    y = np.ones(1, np.float32)
    run("const float* x, float* y", body, np.zeros(4, np.float32), y, block=(1,))
    assert np.isnan(y[0])


@pytest.mark.parametrize(
    ("target", "source", "said"),
    [
        ("kept + 1", "x", "not aligned to 16"),
        ("kept", "x + 1", "not aligned to 16"),
        ("kept + 8", "x", "not to shared memory"),
        ("(float*)x", "x", "not to shared memory"),
    ],
)
def test_a_copy_goes_between_sixteen_aligned_bytes(target, source, said):
    body = f"__shared__ __align__(16) float kept[8];\ncopy_async16({target}, {source}, true);"
    with pytest.raises(LaunchError, match=f"copy_async16 in line 4: .*{said}"):
        run("const float* x", body, np.zeros(8, np.float32), block=(1,))


# ---------------------------------------------------------------- numbers


def test_functions_of_floats():
    x = np.array([0.3, 1.7, 2.5], np.float32)
    wanted = {
        "expf(v)": np.exp(x),
        "__expf(v)": np.exp(x),
        "exp2f(v)": np.exp2(x),
        "logf(v)": np.log(x),
        "__logf(v)": np.log(x),
        "sqrtf(v)": np.sqrt(x),
        "rsqrtf(v)": 1 / np.sqrt(x),
        "tanhf(v)": np.tanh(x),
        "fmaf(v, v, 1)": x * x + 1,
        "fmaxf(v, 2.0f)": np.maximum(x, 2),
        "min(v, 2.0f)": np.minimum(x, 2),
        "__fdividef(1, v)": 1 / x,
        "(float)max(1, (int)v)": np.maximum(1, x.astype(int)),
        "(float)min(5ll, (long long)v)": x.astype(int),
        "rintf(v)": np.rint(x),
        "__saturatef(v)": np.clip(x, 0, 1),
        "(float)__popc((unsigned)v)": np.array([0, 1, 1]),
        "(float)__clz((int)v)": np.array([32, 31, 30]),
        "__ldg(x + i)": x,
        "isnan(v) || isinf(v) ? 1.0f : 0.0f": 0 * x,
    }
    body = "float v = x[i];\n" + "\n".join(f"y[i + 3 * {n}] = {f};" for n, f in enumerate(wanted))
    y = np.zeros((len(wanted), 3), np.float32)
    run("const float* x, float* y", body, x, y, block=(3,))
    for name, found, right in zip(wanted, y, wanted.values()):
        np.testing.assert_allclose(found, right, rtol=1e-6, err_msg=name)
