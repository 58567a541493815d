"""Kernels on the CPU: what their threads do together, and what is found where they go wrong."""

import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

from minitorch_attn.simulator import kernels, simulated_gpu
from minitorch_attn.simulator.kernels import (
    CompileError,
    LaunchError,
    NoCompiler,
    RawKernel,
    order,
    races_found,
)

try:
    kernels.compiler()
except NoCompiler as missing:
    pytest.skip(str(missing), allow_module_level=True)


def kernel(parameters, body, before="", options=()):
    source = f'{before}\nextern "C" __global__ void tried({parameters}) {{\n{body}\n}}'
    return RawKernel(source, "tried", options)


def run(parameters, body, *arguments, grid=(1,), block=(1,), shared_mem=0, **settings):
    kernel(parameters, body, **settings).run(grid, block, arguments, shared_mem=shared_mem)


# ---------------------------------------------------------------- where a thread is


def test_each_thread_of_each_block_runs_once_and_knows_where_it_is():
    seen = np.zeros((2, 3, 4, 2, 3, 5, 12), np.uint32)
    body = """
        long long i = blockIdx.z;
        i = i * gridDim.y + blockIdx.y;
        i = i * gridDim.x + blockIdx.x;
        i = i * blockDim.z + threadIdx.z;
        i = i * blockDim.y + threadIdx.y;
        i = i * blockDim.x + threadIdx.x;
        unsigned all[12] = {blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y,
            threadIdx.z, gridDim.x, gridDim.y, gridDim.z, blockDim.x, blockDim.y, blockDim.z};
        for (int k = 0; k < 12; ++k) seen[12 * i + k] += all[k];
    """
    run("unsigned* seen", body, seen, grid=(4, 3, 2), block=(5, 3, 2))
    bz, by, bx, tz, ty, tx = np.indices(seen.shape[:-1])
    sizes = [np.full_like(bx, n) for n in (4, 3, 2, 5, 3, 2)]
    np.testing.assert_array_equal(seen, np.stack([bx, by, bz, tx, ty, tz, *sizes], -1))


def test_blocks_and_threads_run_in_an_order_that_the_seed_decides():
    def ran(seed):
        turns, count = np.zeros((8, 40), np.int32), np.zeros(1, np.int32)
        body = "turns[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(count, 1);"
        with order(seed):
            run("int* turns, int* count", body, turns, count, grid=(8,), block=(40,))
        return turns

    first = ran(0)
    assert sorted(first.ravel()) == list(range(320))
    assert (np.diff(first[0]) != 1).any() and (np.diff(first[:, 0]) < 0).any()
    np.testing.assert_array_equal(first, ran(0))
    assert (first != ran(1)).any()


def test_the_seed_is_the_environment_s_at_first():
    program = "from minitorch_attn.simulator import kernels; print(kernels._seed)"
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
        ).stdout.strip()
        for extra in ({}, {"MINITORCH_ATTN_KERNEL_SEED": "7"})
    ]
    assert told == ["0", "7"]


# ---------------------------------------------------------------- shared memory and barriers

REVERSED = """
    __shared__ float row[256];
    row[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    {barrier}
    y[blockIdx.x * blockDim.x + threadIdx.x] = row[blockDim.x - 1 - threadIdx.x];
"""


def reversed_rows(barrier):
    x = np.random.default_rng(0).standard_normal((5, 256)).astype(np.float32)
    y = np.zeros_like(x)
    body = REVERSED.format(barrier=barrier)
    run("const float* x, float* y", body, x, y, grid=(5,), block=(256,))
    return x[:, ::-1], y


def test_threads_meet_at_a_barrier():
    np.testing.assert_array_equal(*reversed_rows("__syncthreads();"))


def test_a_missing_barrier_shows():
    wanted, found = reversed_rows("")
    assert np.isnan(found[wanted != found]).any()  # read before it was written
    assert (wanted != found).mean() > 0.3


def test_a_missing_second_barrier_shows():
    """What one thread still reads another writes anew."""
    body = """
        __shared__ int turn[64];
        int sum = 0;
        for (int round = 0; round < 4; ++round) {
            turn[threadIdx.x] = round;
            __syncthreads();
            sum += turn[threadIdx.x ^ 1];
            %s
        }
        y[threadIdx.x] = sum;
    """
    right, wrong = np.zeros((2, 64), np.int32)
    run("int* y", body % "__syncthreads();", right, block=(64,))
    run("int* y", body % "", wrong, block=(64,))
    assert (right == 6).all() and (wrong != 6).any()


def test_shared_memory_begins_as_garbage_in_each_block():
    body = """
        extern __shared__ float dynamic[];
        __shared__ float fixed[4], last;
        y[2 * blockIdx.x] = fixed[3] + last;
        y[2 * blockIdx.x + 1] = dynamic[7];
        fixed[3] = last = dynamic[7] = 1;
    """
    y = np.zeros((3, 2), np.float32)
    run("float* y", body, y, grid=(3,), shared_mem=32)
    assert np.isnan(y).all()


def test_shared_memory_in_a_template_and_outside_of_functions():
    before = """
        __shared__ int outside;
        template <typename Number> __device__ Number inside(Number v) {
            __shared__ __align__(16) Number kept[2];
            Number old = kept[1];
            kept[1] = v;
            return old;
        }
    """
    body = "y[blockIdx.x] = outside == -1 && inside(3) == -1 && inside(2) == 3; outside = 1;"
    y = np.zeros(3, np.int32)
    run("int* y", body, y, grid=(3,), before=before)
    assert (y == 1).all()


def test_shared_variables_however_they_are_declared():
    before = """
        #define LARGER(a, b) ((a) > (b) ? (a) : (b))
        template <typename A, typename B> struct Pair { A a; B b; };
    """
    body = """
        __shared__ float x[LARGER(2, 3)][2 * (1 + 1)], *y, z;  /* __shared__ int not_there; */
        __shared__ Pair<int, float> pair[2];
        // __shared__ int neither;
        float* p = y;
        seen[blockIdx.x] = isnan(x[2][3]) && p == (float*)-1 && isnan(z) && pair[1].a == -1;
        x[2][3] = z = 0; y = nullptr; pair[1].a = 0;
    """
    seen = np.zeros(3, np.int32)
    run("int* seen", body, seen, grid=(3,), before=before)
    assert (seen == 1).all()


def test_dynamic_shared_memory_ends_where_it_was_asked_to():
    body = "extern __shared__ __align__(16) double room[]; room[n] = 1; y[0] = room[n];"
    y = np.zeros(1)
    run("double* y, long long n", body, y, 99, shared_mem=800)
    assert y[0] == 1
    with pytest.raises(LaunchError, match="not the kernel's"):
        run("double* y, long long n", body, y, 100, shared_mem=800)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("if (threadIdx.x < 40) __syncthreads();", "24 have returned, 40 at __syncthreads"),
        (
            "if (threadIdx.x) __syncthreads();\nelse __syncthreads();",
            "63 at .*, 1 at|1 at .*, 63 at",
        ),
        (
            "if (threadIdx.x >= 32) __syncthreads();\nelse __syncwarp();\n",
            "32 have returned, 32 at",
        ),
    ],
)
def test_threads_that_part_at_a_barrier_are_found(body, said):
    with pytest.raises(LaunchError, match=f"wait for one another in vain.*{said}"):
        run("", body, block=(64,))


def test_votes_of_a_block():
    body = """
        y[threadIdx.x] = __syncthreads_count(threadIdx.x % 3 == 0);
        y[threadIdx.x] += 1000 * __syncthreads_or(threadIdx.x == 50);
        y[threadIdx.x] += 2000 * __syncthreads_or(threadIdx.x == 100);
        y[threadIdx.x] += 4000 * __syncthreads_and(threadIdx.x < 100);
        y[threadIdx.x] += 8000 * __syncthreads_and(threadIdx.x < 50);
    """
    y = np.zeros(100, np.int32)
    run("int* y", body, y, block=(100,))
    assert (y == 34 + 1000 + 4000).all()


# ---------------------------------------------------------------- warps


def lanes(expression, dtype=np.int32, block=32, c_type="int"):
    y = np.zeros(block, dtype)
    run(f"{c_type}* y", f"int i = threadIdx.x; y[i] = {expression};", y, block=(block,))
    return y


I = np.arange(32)


OPERATIONS = {
    "__shfl_sync(~0u, i * i, 5)": I * 0 + 25,
    "__shfl_sync(~0u, i, i + 3)": (I + 3) % 32,
    "__shfl_sync(~0u, i, i + 3, 8)": I // 8 * 8 + (I + 3) % 8,
    "__shfl_up_sync(~0u, i, 3)": np.where(I < 3, I, I - 3),
    "__shfl_up_sync(~0u, i, 3, 16)": np.where(I % 16 < 3, I, I - 3),
    "__shfl_down_sync(~0u, i, 5)": np.where(I > 26, I, I + 5),
    "__shfl_down_sync(~0u, i, 5, 8)": np.where(I % 8 > 2, I, I + 5),
    "__shfl_xor_sync(~0u, i, 9)": I ^ 9,
    # Beyond its own group a lane sees earlier groups, not later ones.
    "__shfl_xor_sync(~0u, i, 9, 8)": np.where(I & 8, I ^ 9, I),
    "(int)(__ballot_sync(~0u, i % 3) >> 1)": I * 0 + sum(1 << n for n in range(32) if n % 3) // 2,
    "__any_sync(~0u, i == 4)": I * 0 + 1,
    "__any_sync(~0u, i == 40)": I * 0,
    "__all_sync(~0u, i != 4)": I * 0,
    "__all_sync(~0u, i != 40)": I * 0 + 1,
    # Two halves of a warp, each on its own way.
    "(i % 2 ? __shfl_xor_sync(0xaaaaaaaau, i, 2) : __shfl_xor_sync(0x55555555u, -i, 2))": np.where(
        I % 2, I ^ 2, -(I ^ 2)
    ),
}


def test_operations_of_a_warp():
    lines = [f"y[{32 * n} + i] = {operation};" for n, operation in enumerate(OPERATIONS)]
    y = np.zeros((len(OPERATIONS), 32), np.int32)
    run("int* y", "int i = threadIdx.x;\n" + "\n".join(lines), y, block=(32,))
    for operation, found, wanted in zip(OPERATIONS, y, OPERATIONS.values()):
        np.testing.assert_array_equal(found, wanted, operation)


def test_a_shuffle_of_other_types():
    eighths = lanes("__shfl_xor_sync(~0u, i / 8.0, 1)", np.float64, c_type="double")
    np.testing.assert_array_equal(eighths, (I ^ 1) / 8)
    large = lanes("__shfl_xor_sync(~0u, i + (1ll << 40), 1)", np.int64, c_type="long long")
    np.testing.assert_array_equal(large, (I ^ 1) + 2**40)


def test_each_warp_is_for_itself():
    y = lanes("__shfl_sync(~0u, i, 1)", block=96)
    np.testing.assert_array_equal(y, np.repeat([1, 33, 65], 32))


def test_lanes_that_have_returned_are_not_waited_for():
    body = "if (threadIdx.x % 4) return; y[threadIdx.x] = __ballot_sync(~0u, 1) == 0x11111111u;"
    y = np.zeros(32, np.int32)
    run("int* y", body, y, block=(32,))
    np.testing.assert_array_equal(y, I % 4 == 0)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("if (i < 9) __shfl_sync(~0u, i, 3);\nelse __syncthreads();", "23 at .*9 at|9 at .*23 at"),
        ("if (i < 9) __shfl_sync(511u, i, 9);", "reads from lane 9, which takes no part"),
        ("if (i < 9) __syncwarp(510u);", "lane 0 is not in its own mask 0x000001fe"),
        ("if (i < 9) __shfl_sync(~0u, i, 3);\nelse __shfl_sync(~0u, 1.0, 3);", "in vain"),
        ("__shfl_xor_sync(~0u, i, 1, 12);", "its width is 12"),
    ],
)
def test_operations_of_a_warp_that_go_wrong(body, said):
    with pytest.raises(LaunchError, match=said):
        run("", f"int i = threadIdx.x;\n{body}", block=(32,))


def test_half_a_warp_cannot_shuffle_with_the_other():
    with pytest.raises(LaunchError, match="reads from lane 16, which takes no part"):
        lanes("__shfl_xor_sync(~0u, i, 16)", block=16)


# ---------------------------------------------------------------- atomics


@pytest.mark.parametrize(
    ("dtype", "c_type"),
    [
        (np.int32, "int"),
        (np.uint32, "unsigned"),
        (np.uint64, "unsigned long long"),
        (np.float32, "float"),
        (np.float64, "double"),
    ],
)
def test_atomic_addition(dtype, c_type):
    y = np.full(1, 5, dtype)
    body = f"atomicAdd(y, ({c_type})threadIdx.x);"
    run(f"{c_type}* y", body, y, grid=(3,), block=(64,))
    assert y[0] == 5 + 3 * sum(range(64))


def test_other_atomics():
    body = """
        int i = threadIdx.x;
        atomicMax(y, i); atomicMin(y + 1, i); atomicOr(y + 2, 1 << i % 8);
        atomicAnd(y + 3, ~(1 << i % 8)); atomicXor(y + 4, i); atomicSub(y + 5, i);
        for (int seen = y[6], was; ; seen = was)
            if ((was = atomicCAS(y + 6, seen, seen + 2)) == seen) break;
        if (i == 7) y[7] = atomicExch(y + 8, 3);
    """
    y = np.array([-9, 99, 0, 255, 0, 0, 0, 0, 4], np.int32)
    run("int* y", body, y, block=(16,))
    assert y.tolist() == [15, 0, 255, 0, 0, -120, 32, 4, 3]


# ---------------------------------------------------------------- arguments


def test_arguments_arrive_as_the_types_they_are():
    body = """
        y[0] = a; y[1] = b; y[2] = c; y[3] = d; y[4] = e; y[5] = f; y[6] = *(const short*)p;
    """
    parameters = (
        "double* y, long long a, double b, bool c, float d, int e, unsigned char f, const void* p"
    )
    y = np.zeros(7)
    arguments = (-(2**40), 0.1, True, np.float32(0.1), np.int32(-3), np.uint8(200))
    run(parameters, body, y, *arguments, np.array([-7], np.int16))
    np.testing.assert_array_equal(y, [-(2**40), 0.1, 1, np.float32(0.1), -3, 200, -7])


FITTING = {
    "int count": np.int32(3),
    "float scale": np.float32(0.5),
    "long long n": 3,
    "unsigned long long u": np.uint64(3),
    "float* x": np.zeros(2, np.float32),
    "const int* k": np.zeros(2, np.int32),
}


@pytest.mark.parametrize(
    ("parameter", "argument", "given"),
    [
        ("int count", 3, "int64 number"),
        ("float scale", 0.5, "float64 number"),
        ("long long n", 3.0, "float64 number"),
        ("long long n", np.int32(3), "int32 number"),
        ("long long n", True, "bool number"),
        ("unsigned long long u", np.int64(3), "int64 number"),
        ("float* x", np.zeros(2), "float64 array"),
        ("const int* k", np.zeros(2, np.float32), "float32 array"),
        ("float* x", np.zeros((4, 4), np.float32)[:, 1], "not C-contiguous"),
        ("float* x", 0, "int64 number"),
        ("long long n", np.zeros(2, np.int64), "int64 array"),
        ("long long n", "3", "a str"),
        ("long long n", None, "a NoneType"),
    ],
)
def test_an_argument_of_another_type_is_refused(parameter, argument, given):
    run(", ".join(FITTING), "", *FITTING.values())
    arguments = {**FITTING, parameter: argument}
    declared = re.escape(parameter.replace("*", "* ").replace("*  ", "* "))
    place = list(FITTING).index(parameter)
    with pytest.raises(TypeError, match=rf"argument {place} for `{declared}` is .*{given}"):
        run(", ".join(FITTING), "", *arguments.values())


def test_a_wrong_number_of_arguments_is_refused():
    with pytest.raises(TypeError, match=r"2 parameters \(x, n\), not 1"):
        parameters = "const float* __restrict__ x, // (of n numbers, not fewer)\n long long n"
        run(parameters, "", np.zeros(3, np.float32))


def test_halves_are_for_halves():
    run("half_t* x", "x[0] = half_t(float(x[1]) + 1);", x := np.arange(2, dtype=np.float16))
    assert x[0] == 2
    with pytest.raises(TypeError, match="half_t"):
        run("half_t* x", "", np.zeros(2, np.uint16))
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    run("bfloat_t* x", "x[0] = bfloat_t(float(x[1]) + 1);", x := np.arange(2).astype(bfloat16))
    assert x[0] == 2
    with pytest.raises(TypeError, match=r"argument 0 for `half_t\* x` is bfloat16 array"):
        run("half_t* x", "", x)


def test_vectors_of_numbers():
    body = "float4 v = y[1]; y[0] = make_float4(v.w, v.z, v.y, 2 * v.x);"
    y = np.arange(8, dtype=np.float32)
    run("float4* y", body, y)
    assert y[:4].tolist() == [7, 6, 5, 8]


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("size", [1, 3, 64, 5000])
def test_an_array_is_read_and_written_to_its_ends(size):
    x = np.arange(size, dtype=np.float32)
    y = np.zeros_like(x)
    body = "for (long long i = threadIdx.x; i < n; i += blockDim.x) y[i] = 2 * x[i];"
    run("const float* x, float* y, long long n", body, x, y, size, block=(32,))
    np.testing.assert_array_equal(y, 2 * x)


@pytest.mark.parametrize("place", [64, 65, 600, -1, -3, -1024, -2000])
@pytest.mark.parametrize("size", [64, 63])
def test_a_write_outside_of_an_array_is_found(place, size):
    x = np.zeros(size, np.float32)
    with pytest.raises(LaunchError, match="`x`"):
        run("const int* n, float* x", "x[n[0]] = 1;", np.full(1, place, np.int32), x)
    assert not x.any()


@pytest.mark.parametrize("place", [64, 600, -1100])
def test_a_read_outside_of_an_array_is_found(place):
    x = np.zeros(64, np.float32)
    said = rf"element {place} of `x`, which has 64" if place > -1000 else "`x`"
    with pytest.raises(LaunchError, match=said):
        run("float* x, long long n", "x[0] = x[n];", x, place)


def test_the_thread_and_the_line_that_go_wrong_are_named():
    said = r"thread \(8, 0, 0\) of block \(0, 0, 0\)\): element 8 of `x`, which has 8"
    said += ", in line 4" if kernels.shutil.which("addr2line") else ""
    with pytest.raises(LaunchError, match=said):
        run("float* x", "\nx[threadIdx.x] = 1;", np.zeros(8, np.float32), block=(9,))


def test_a_null_pointer_and_a_division_by_zero_are_found():
    with pytest.raises(LaunchError, match="not the kernel's"):
        run("long long n", "*(volatile int*)n = 1;", 0)
    with pytest.raises(LaunchError, match="divided by zero"):
        run("int* y", "y[0] = y[1] / y[0];", np.zeros(2, np.int32))


def test_too_deep_a_stack_is_found():
    before = "__device__ __noinline__ int deep(volatile int* n) { volatile int a[99]; a[0] = 1;"
    before += "return *n ? deep(n) + a[0] : 0; }"
    with pytest.raises(LaunchError, match="not the kernel's"):
        run("int* y", "y[0] = deep(y + 1);", np.ones(2, np.int32), before=before)


def test_after_a_launch_that_went_wrong_the_next_goes_right():
    for _ in range(3):
        with pytest.raises(LaunchError):
            run("int* y", "if (threadIdx.x == 9) y[9] = 1; __syncthreads();", np.zeros(9, np.int32),
                block=(64,))  # fmt: skip
    np.testing.assert_array_equal(*reversed_rows("__syncthreads();"))


def test_arrays_that_overlap_are_seen_as_one():
    base = np.arange(10, dtype=np.int32)
    body = "y[threadIdx.x] = -1; z[threadIdx.x] += x[threadIdx.x];"
    run("int* x, int* y, int* z", body, base[:6], base[2:4], base[6:8], block=(2,))
    assert base.tolist() == [0, 1, -1, -1, 4, 5, 6, 8, 8, 9]


def test_an_array_that_is_only_read_may_be_shared_with_one_that_is_written():
    x = np.arange(4, dtype=np.int32)
    run("const int* x, int* y", "y[threadIdx.x] = 2 * x[threadIdx.x];", x, x, block=(4,))
    assert x.tolist() == [0, 2, 4, 6]


def test_an_array_without_elements():
    empty = np.zeros((0, 3), np.float32)
    run("float* x, float* y", "if (y) y[0] = 1;", empty, y := np.zeros(1, np.float32))
    assert y[0] == 1
    with pytest.raises(LaunchError):
        run("float* x", "x[0] = 1;", empty)


def test_what_was_never_set_is_not_zero():
    body = "float sum[4]; for (int i = 0; i < n; ++i) sum[i] = 0; y[0] = sum[3];"
    y = np.zeros(1, np.float32)
    if kernels._flags() == kernels.FLAGS:
        pytest.skip("this compiler cannot fill variables with garbage")
    run("float* y, long long n", body, y, 3)
    assert not abs(y[0]) < 1e30


def test_an_index_outside_of_an_array_of_the_kernel_s_own_is_found():
    body = "__shared__ float tile[2][30];\nint i = threadIdx.x;\ntile[0][i] = 1;"
    run("", body, block=(30,))
    with pytest.raises(LaunchError, match="index 30 is outside of an array, in line 5"):
        run("", body, block=(31,))


def test_an_address_that_is_not_aligned_is_found():
    body = "float4 v = make_float4(1, 2, 3, 4);\n*(float4*)(y + n) = v;"
    run("float* y, long long n", body, np.zeros(8, np.float32), 4)
    with pytest.raises(LaunchError, match="not aligned to 16 bytes .* in line 4"):
        run("float* y, long long n", body, np.zeros(8, np.float32), 2)
    with pytest.raises(LaunchError, match="not aligned to 16 bytes"):  # as the array itself is
        run("float* y, long long n", body, np.zeros(9, np.float32)[1:], 4)


# ---------------------------------------------------------------- races

RACES = {
    "several add": ("y[0] += 1;", "element 0 of `y` is read, and was written .* line 3 and line 3"),
    "several write": ("y[0] = 1;", "element 0 of `y` is written, and was written"),
    "no barrier": (
        "__shared__ float s[64];\ns[i] = 1;\ny[i] = s[63 - i];",
        "element .* of `s` is (written, and was read|read, and was written) .* line [45] and",
    ),
    "no second barrier": (
        "__shared__ float s[64];\nfor (int k = 0; k < 2; ++k) {\n s[i] = k;\n __syncthreads();\n"
        "y[i] = s[63 - i]; }",
        "of `s` is .* line [57] and line [57]",
    ),
    "a warp meets, not the block": (
        "extern __shared__ float s[];\ns[i] = 1;\n__syncwarp();\ny[i] = s[i ^ 32];",
        "byte .* of dynamic shared memory .* line [46] and line [46]",
    ),
    "a shuffle is no barrier": (
        "__shared__ float s[64];\ns[i] = __shfl_xor_sync(~0u, 1.0f, 1);\n"
        "__shfl_xor_sync(~0u, 1.0f, 1);\ny[i] = s[i ^ 1];",
        "of `s`",
    ),
    "an addition and a write": (
        "if (i) atomicAdd(y, 1.0f);\nelse y[0] = 1;",
        "element 0 of `y` .* line [34] and line [34]",
    ),
    "a copy that no barrier follows": (
        "__shared__ __align__(16) float s[256];\ncopy_async16(s + 4 * i, x + 4 * (i % 16), true);\n"
        "commit_async();\nwait_async<0>();\ny[i] = s[4 * (63 - i)];",
        "of `s` is .* line [47] and line [47]",
    ),
    "a matrix that no barrier precedes": (
        "__shared__ __align__(16) float s[256];\nfor (int k = i; k < 256; k += 64) s[k] = 1;\n"
        "unsigned r[4];\nldmatrix_x4(r, s + 4 * i);\ny[i] = __uint_as_float(r[0]);",
        "of `s` is .* line 4",
    ),
}


@pytest.mark.parametrize(("body", "said"), RACES.values(), ids=RACES)
def test_a_race_is_found(body, said):
    arguments = np.zeros(64, np.float32), np.zeros(64, np.float32)
    lines = f"int i = threadIdx.x;\n{body}".replace("i = threadIdx.x;\n", "i = threadIdx.x; ", 1)
    with races_found(), pytest.raises(LaunchError, match=f"a race: .*{said}"):
        run("const float* x, float* y", lines, *arguments, block=(64,), shared_mem=256)


@pytest.mark.parametrize("seed", range(6))
def test_a_race_is_found_in_every_order(seed):
    """Also where the one that writes was the last to read."""
    body = "int i = threadIdx.x;\nfloat v = y[0];\ny[i == 1 ? 0 : i + 1] = v + 1;"
    with order(seed), races_found(), pytest.raises(LaunchError, match="a race: element 0 of `y`"):
        run("float* y", body, np.zeros(4, np.float32), block=(3,))


def test_blocks_race():
    body = "y[threadIdx.x] = 1;"
    with races_found(), pytest.raises(LaunchError, match="by thread . of another block"):
        run("float* y", body, np.zeros(4, np.float32), grid=(2,), block=(4,))


def test_what_is_in_order_is_no_race():
    body = """
        __shared__ float s[64], sum;
        struct Tile { int number[64]; };
        __shared__ Tile held;  // by several threads, each a part
        __shared__ __align__(16) float t[256];
        int i = threadIdx.x;
        copy_async16(t + 4 * i, x + 4 * (i % 16), true);
        commit_async();
        if (i == 0) sum = 0;
        held.number[i] = i;
        for (int k = 0; k < 3; ++k) {
            s[i] = k;
            __syncwarp();
            s[i ^ 1] += 1;
            __syncthreads();
            y[64 * blockIdx.x + i] = s[63 - i];
            atomicAdd(&sum, s[i]);
            __syncthreads();
        }
        wait_async<0>();
        __syncthreads();
        unsigned r[4];
        ldmatrix_x4(r, t + 4 * i);
        atomicAdd(&y[0], sum + t[4 * (63 - i)]);
        y[64 * blockIdx.x + i + 256] = x[0] + __uint_as_float(r[0]);
    """
    x, y = np.ones(64, np.float32), np.zeros(512, np.float32)
    with races_found(), pytest.raises(LaunchError, match="of `y`"):  # y[0] by block 0 as well
        run("const float* x, float* y", body, x, y, grid=(4,), block=(64,))
    body = body.replace("&y[0]", "&y[508]").replace("grid", "")
    with races_found():
        run("const float* x, float* y", body, x, y, grid=(3,), block=(64,))


# ---------------------------------------------------------------- what a card would refuse


@pytest.mark.parametrize(
    ("grid", "block", "shared", "said"),
    [
        ((1,), (1025,), 0, "1025 threads"),
        ((1,), (32, 33), 0, "1056 threads"),
        ((1,), (1, 1, 65), 0, "largest block"),
        ((1, 65536), (1,), 0, "largest grid"),
        ((0,), (1,), 0, "grid of nothing"),
        ((1,), (0,), 0, "block of nothing"),
        ((1,), (1,), 48 * 1024 + 1, "max_dynamic_shared_size_bytes first"),
    ],
)
def test_a_launch_beyond_the_limits_is_refused(grid, block, shared, said):
    with pytest.raises(LaunchError, match=said):
        run("", "", grid=grid, block=block, shared_mem=shared)


def test_more_shared_memory_has_to_be_asked_for():
    large = kernel(
        "float* y", "extern __shared__ float room[]; room[20000] = 3; y[0] = room[20000];"
    )
    large.max_dynamic_shared_size_bytes = 100_000
    large.run((1,), (1,), (y := np.zeros(1, np.float32),), shared_mem=100_000)
    assert y[0] == 3
    large.max_dynamic_shared_size_bytes = 200_000
    with pytest.raises(LaunchError, match="a card has 166912"):
        large.run((1,), (1,), (y,))


def test_static_and_dynamic_shared_memory_count_together():
    both = kernel("float* y", "__shared__ float a[10000]; a[0] = 1; y[0] = a[0];")
    y = np.zeros(1, np.float32)
    both.run((1,), (1,), (y,), shared_mem=9152)
    with pytest.raises(LaunchError, match="of at most 49152: set kernel.max_dynamic_shared"):
        both.run((1,), (1,), (y,), shared_mem=9153)
    both.max_dynamic_shared_size_bytes = 163 * 1024 - 30_000
    with pytest.raises(LaunchError, match="40000 bytes of static and 136912 of .* 166912"):
        both.run((1,), (1,), (y,), shared_mem=163 * 1024 - 30_000)


def test_launch_bounds_bind():
    source = 'extern "C" __global__ void __launch_bounds__({}) tried(int* y) {{ y[0] = 1; }}'
    for bounds in ("64", "32 * 2, 2", "(LIMIT)"):
        bound = RawKernel(source.format(bounds), "tried", ("-DLIMIT=64",))
        bound.run((1,), (64,), (np.zeros(1, np.int32),))
        with pytest.raises(LaunchError, match="65 threads .* at most 64"):
            bound.run((1,), (65,), (np.zeros(1, np.int32),))


# ---------------------------------------------------------------- compiling


def test_a_source_that_is_not_cpp_is_told_with_its_line():
    with pytest.raises(CompileError, match=r"(?s)'tried' is not C\+\+.*tried:4.*missing_name"):
        run("int* y", "\ny[0] = missing_name;", np.zeros(1, np.int32))


def test_a_kernel_is_compiled_when_first_launched(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = kernel("int* y", "not c++")
    with pytest.raises(CompileError):
        broken.compile()
    assert not list(tmp_path.rglob("*.so"))


def test_a_compiled_kernel_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = (
        "import numpy as np; from minitorch_attn.simulator.kernels import RawKernel\n"
        "y = np.zeros(1, np.int32)\n"
        "code = 'extern \"C\" __global__ void five(int* y) { y[0] = 5; }'\n"
        'RawKernel(code, "five").run((1,), (1,), (y,))\nprint(y[0])'
    )

    def start(path):
        environment = {**os.environ, "PATH": path}
        command = [sys.executable, "-c", program]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    together = [start(os.environ["PATH"]) for _ in range(3)]
    assert [p.communicate()[0].strip() for p in together] == ["5"] * 3
    (built,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert built.suffix == ".so"
    time = built.stat().st_mtime_ns
    assert start(os.environ["PATH"]).communicate()[0].strip() == "5"
    assert built.stat().st_mtime_ns == time


def test_without_a_compiler_that_is_said(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    kernels.compiler.cache_clear()
    try:
        with pytest.raises(NoCompiler, match=r"\$CXX is 'no-such-compiler', which is not there"):
            kernels.compiler()
        monkeypatch.delenv("CXX")
        monkeypatch.setenv("PATH", "")
        with pytest.raises(NoCompiler, match="no g\\+\\+ or clang"):
            kernels.compiler()
    finally:
        kernels.compiler.cache_clear()


def test_the_cache_lies_in_the_user_s_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kernels.cache_folder() == tmp_path / ".cache" / "minitorch_attn" / "kernels"


def test_without_a_cache_kernels_are_compiled_for_the_process_alone(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder can be in it")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    y = np.zeros(1, np.int32)
    run("int* y", "y[0] = 5;  // compiled for this process", y)
    assert y[0] == 5 and list(kernels.cache_folder().glob("*.so"))


# ---------------------------------------------------------------- as CuPy's


def test_a_kernel_is_launched_as_cupy_s_is():
    with simulated_gpu() as traffic:
        import cupy

        doubled = cupy.RawKernel(
            'extern "C" __global__ void doubled(float* x) { x[threadIdx.x] *= 2; }', "doubled"
        )
        x = cupy.arange(6, dtype=cupy.float32)
        doubled((1,), (6,), (x,))
        assert traffic.launches == 1 and traffic.to_host == 0
        assert x.tolist() == [0, 2, 4, 6, 8, 10]
        with pytest.raises(TypeError, match="argument 0 is an array on the host"):
            doubled((1,), (6,), (np.zeros(6, np.float32),))


def test_launches_from_several_threads_take_turns():
    adder = kernel("int* y", "__shared__ int n; n = y[0]; __syncthreads(); y[0] = n + 1;")
    results = np.zeros((8, 1), np.int32)

    def work(row):
        for _ in range(50):
            adder.run((1,), (64,), (row,))

    workers = [threading.Thread(target=work, args=(row,)) for row in results]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (results == 50).all()
