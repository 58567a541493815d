"""What a `Kernel` does around a source: types, launches, errors. Run by the emulator."""

import numpy as np
import pytest

from minitorch_attn.engine import kernels
from minitorch_attn.engine.backend import gpu_module, has_matrix_units
from minitorch_attn.engine.kernels import KERNELS, Kernel, c_constant
from minitorch_attn.simulator import simulated_gpu
from minitorch_attn.simulator.kernels import NoCompiler, compiler

try:
    compiler()
except NoCompiler as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture
def cupy(monkeypatch):
    monkeypatch.setattr(kernels, "KERNELS", [])  # these are not the library's
    with simulated_gpu():
        yield gpu_module()


def test_a_kernel_is_compiled_for_the_type_of_its_arrays(cupy):
    twice = Kernel(
        "twice",
        """
        extern "C" __global__ void twice(const T* x, T* y, long long n, double factor) {
            FOR_EACH(i, n) y[i] = T(acc_t(x[i]) * acc_t(factor));
        }
        """,
    )
    for dtype in ("float16", "float32", "float64"):
        x = cupy.asarray(np.arange(300).astype(dtype))
        y = cupy.empty_like(x)
        twice.over(300, x, y, 300, 2.0, T=x.dtype)
        np.testing.assert_array_equal(y.get(), 2 * np.arange(300).astype(dtype))


def test_more_elements_than_threads(cupy, monkeypatch):
    count = Kernel(
        "count",
        'extern "C" __global__ void count(int* y, long long n) { FOR_EACH(i, n) y[i] += 1; }',
    )
    monkeypatch.setattr(kernels, "MOST_BLOCKS", 2)
    y = cupy.zeros(2000, np.int32)
    count.over(2000, y, 2000)
    assert (y.get() == 1).all()


def test_nothing_is_launched_for_no_elements(cupy):
    broken = Kernel("broken", "this is no source")
    broken.over(0, cupy.empty(0))


def test_the_number_of_blocks_may_be_a_number_of_numpy(cupy):
    count = Kernel("count", 'extern "C" __global__ void count(int* y) { y[blockIdx.x] = 1; }')
    y = cupy.zeros(3, np.int32)
    count(np.int64(3), np.int32(1), y)
    assert (y.get() == 1).all()
    with pytest.raises(TypeError, match="float"):
        count(3.0, 1, y)


def test_an_array_with_gaps_is_refused_by_its_place(cupy):
    kernel = Kernel("any", 'extern "C" __global__ void any(const float* x, const float* y) {}')
    x = cupy.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"'any': argument 1 of shape \(3, 2\) is not C-contig"):
        kernel(1, 32, x, x.T)


def test_sums_and_maxima_of_blocks(cupy):
    reduce = Kernel(
        "reduce",
        """
        extern "C" __global__ void reduce(const T* x, T* y) {
            __shared__ acc_t scratch[32];
            const acc_t v = x[blockIdx.x * blockDim.x + threadIdx.x];
            const acc_t sum = block_sum(v, scratch), most = block_max(v, scratch);
            if (threadIdx.x == blockDim.x - 1) y[2 * blockIdx.x] = T(sum);
            if (threadIdx.x == 1) y[2 * blockIdx.x + 1] = T(most);
        }
        """,
    )
    values = np.random.default_rng(0).standard_normal((5, 96))
    x, y = cupy.asarray(values), cupy.empty((5, 2))
    reduce(5, 96, x, y, T=x.dtype)
    expected = np.stack([values.sum(axis=1), values.max(axis=1)], axis=1)
    np.testing.assert_allclose(y.get(), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_many_threads_add_to_the_same_numbers(cupy, dtype):
    add = Kernel(
        "add_to",
        """
        extern "C" __global__ void add_to(T* y, long long n) {
            FOR_EACH(i, n) atomic_add(&y[i % 3], acc_t(1));
        }
        """,
    )
    y = cupy.zeros(3, dtype)
    add.over(900, y, 900, T=y.dtype)
    np.testing.assert_array_equal(y.get(), [300, 300, 300])


def test_shared_memory_that_a_launch_gives(cupy):
    reverse = Kernel(
        "reverse",
        """
        extern "C" __global__ void reverse(float* x) {
            extern __shared__ float row[];
            row[threadIdx.x] = x[threadIdx.x];
            __syncthreads();
            x[threadIdx.x] = row[blockDim.x - 1 - threadIdx.x];
        }
        """,
    )
    x = cupy.arange(64, dtype=np.float32)
    reverse(1, 64, x, shared=64 * 4)
    np.testing.assert_array_equal(x.get(), np.arange(64)[::-1])
    reverse(1, 64, x, shared=100 * 1024)  # more than a block gets without asking
    np.testing.assert_array_equal(x.get(), np.arange(64))


def test_constants_of_one_meaning_make_one_kernel(cupy):
    """Of one text CuPy makes one function, whose shared memory is what was asked for last."""
    first = Kernel(
        "first",
        """extern "C" __global__ void first(T* y) {
            extern __shared__ T memory[];
            if (threadIdx.x == 0) y[0] = memory[0] = 1;
        }""",
    )
    y = cupy.zeros(1, np.float32)
    first(1, 1, y, shared=60 * 1024, T=np.dtype("float32"))
    first(1, 1, y, shared=50 * 1024, T="float")
    compiled = [kernels._compiled(cupy, first, (("T", t),)) for t in (y.dtype, "float")]
    assert compiled[0] is compiled[1] and compiled[0].run.max_dynamic_shared_size_bytes == 60 * 1024


def test_constants_as_c_writes_them():
    given = [np.float16, np.dtype("float32"), np.int64, True, 7, np.int64(3), "half_t"]
    assert list(map(c_constant, given)) == ["half_t", "float", "long long", "1", "7", "3", "half_t"]
    with pytest.raises(TypeError, match="kernels have no type for complex128: they know float16"):
        c_constant(np.dtype(complex))


def test_a_source_may_stand_in_files(cupy, tmp_path):
    (tmp_path / "a.cuh").write_text("#define VALUE 3\n")
    (tmp_path / "b.cu").write_text('extern "C" __global__ void b(int* y) { *y = VALUE; }\n')
    y = cupy.zeros(1, np.int32)
    Kernel("b", (tmp_path / "a.cuh", tmp_path / "b.cu"))(1, 1, y)
    assert y.get()[0] == 3


def test_matrix_units_begin_with_ampere(cupy, monkeypatch):
    for capability, there in {"75": False, "80": True, "89": True, "120": True}.items():
        monkeypatch.setattr(cupy.cuda.Device, "compute_capability", capability)
        assert has_matrix_units(cupy) is there


def test_the_library_registers_its_kernels_once_by_name():
    import minitorch_attn.functional  # noqa: F401

    names = [kernel.name for kernel in KERNELS]
    assert len(set(names)) == len(names) > 10
