"""Arrays of one library or another; CuPy itself is tested where there is a GPU."""

import sys
import types

import numpy as np
import pytest

from minitorch_attn.engine import DeviceError, array_module, tensor
from minitorch_attn.engine.backend import as_array, device_of, is_array, read_only, to_device


class FakeGpuArray:
    """Stands for cupy.ndarray."""


@pytest.fixture
def fake_cupy(monkeypatch):
    cupy = types.SimpleNamespace(
        ndarray=FakeGpuArray,
        asnumpy=lambda array: np.ones(2),
        asarray=lambda array: FakeGpuArray(),
        is_available=lambda: True,
    )
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


def test_a_device_that_is_not_there(fake_cupy, monkeypatch):
    with pytest.raises(DeviceError, match="unknown device 'gpu': there are 'cpu' and 'cuda'"):
        to_device(np.ones(2), "gpu")
    monkeypatch.setattr(fake_cupy, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="finds no GPU it can use"):
        to_device(np.ones(2), "cuda")


def test_moving_to_a_gpu_without_cupy_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match="To move a tensor to a GPU, the package 'cupy'"):
        to_device(np.ones(2), "cuda")


def test_importing_the_engine_does_not_import_cupy():
    assert "cupy" not in sys.modules


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
