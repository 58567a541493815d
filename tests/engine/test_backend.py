"""Arrays of one library or another; CuPy itself is tested where there is a GPU."""

import sys
import types

import numpy as np
import pytest

from minitorch_attn.engine import DeviceError, array_module, backend, tensor
from minitorch_attn.engine.backend import (
    as_array,
    device_of,
    get_float32_matmul_precision,
    gpu_is_available,
    is_array,
    read_only,
    set_float32_matmul_precision,
    to_device,
)


class FakeGpuArray:
    """Stands for cupy.ndarray."""


@pytest.fixture
def fake_cupy(monkeypatch):
    cupy = types.SimpleNamespace(
        ndarray=FakeGpuArray,
        asnumpy=lambda array: np.ones(2),
        asarray=lambda array: FakeGpuArray(),
        is_available=lambda: True,
        cuda=types.SimpleNamespace(runtime=types.SimpleNamespace()),
    )
    monkeypatch.setattr(backend, "gpu_in_use", False)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


def test_the_module_of_an_array(fake_cupy):
    assert array_module(np.ones(2)) is np
    assert array_module(1.0) is np
    assert array_module(FakeGpuArray()) is fake_cupy


def test_what_is_an_array(fake_cupy):
    assert is_array(np.ones(2)) and is_array(FakeGpuArray())
    assert not any(map(is_array, [1.0, np.float32(1), [1], None, tensor(1.0)]))


def test_moving_between_devices(fake_cupy):
    x = np.ones(2)
    assert to_device(x, "cpu") is x
    moved = to_device(x, "cuda")
    assert device_of(moved) == "cuda" and device_of(x) == "cpu"
    assert to_device(moved, "cuda") is moved
    assert device_of(to_device(moved, "cpu")) == "cpu"


def test_a_device_that_is_not_there():
    with pytest.raises(DeviceError, match="unknown device 'gpu': there are 'cpu' and 'cuda'"):
        to_device(np.ones(2), "gpu")
    with pytest.raises(DeviceError, match="environment variable CUDA_VISIBLE_DEVICES=1$"):
        to_device(np.ones(2), "cuda:1")


@pytest.mark.parametrize(
    "driver, runtime, said",
    [
        (0, 12090, "there is no NVIDIA driver: install the driver of your card"),
        (12020, 13000, r"driver knows CUDA 12\.2, but this CuPy was made for CUDA 13\.0"),
        (12020, 13000, r'install "minitorch-attn\[gpu-cuda12\]"'),
        (12090, 12090, "no card is seen: check that `nvidia-smi` lists one"),
        (13000, 12090, "a driver for CUDA 13.0 are installed, but no card is seen"),
    ],
)
def test_without_a_gpu_the_error_says_what_is_missing(fake_cupy, driver, runtime, said):
    fake_cupy.is_available = lambda: False
    fake_cupy.cuda.runtime.driverGetVersion = lambda: driver
    fake_cupy.cuda.runtime.runtimeGetVersion = lambda: runtime
    with pytest.raises(DeviceError, match=said):
        to_device(np.ones(2), "cuda")
    assert not gpu_is_available()


def test_moving_to_a_gpu_without_cupy_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    said = r"To compute on a GPU, the package 'cupy' .*gpu-cuda12.* CUDA 13 .* take gpu-cuda13"
    with pytest.raises(ImportError, match=said):
        to_device(np.ones(2), "cuda")
    assert not gpu_is_available()


def test_the_precision_of_products_is_one_of_two():
    assert get_float32_matmul_precision() == "highest"
    with pytest.raises(ValueError, match="'highest' or 'high', not 'medium'"):
        set_float32_matmul_precision("medium")


def test_cupy_is_told_of_the_precision_of_products(fake_cupy):
    chosen = []
    fake_cupy._core = types.SimpleNamespace(
        set_compute_type=lambda dtype, kind: chosen.append((dtype, kind)),
        _routines_linalg=types.SimpleNamespace(COMPUTE_TYPE_TF32=7, COMPUTE_TYPE_DEFAULT=1),
    )
    to_device(np.ones(2), "cuda")
    try:
        set_float32_matmul_precision("high")
    finally:
        set_float32_matmul_precision("highest")
    assert chosen == [(np.float32, 7), (np.float32, 1)]


def test_read_only_views():
    x = np.ones(2)
    view = read_only(x)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2.0
    x[0] = 3.0
    assert view[0] == 3.0


def test_results_as_arrays():
    x = np.ones(2)
    assert as_array(x) is x
    for number in (np.float32(1.5), 1.5, True):
        assert as_array(number).shape == ()
    assert as_array(np.float32(1.5)).dtype == np.float32
    with pytest.raises(TypeError, match="^f returned str, not an array$"):
        as_array("a", "f")
    with pytest.raises(TypeError, match=r"is its `return` missing\?"):
        as_array(None, "f")
