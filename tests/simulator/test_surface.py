"""The stand-in has what CuPy has: no more."""

import inspect
import subprocess
import sys

import pytest

from minitorch_attn.simulator import surface


def test_the_stored_surface_is_that_of_the_installed_cupy():
    installed = pytest.importorskip("cupy").__version__
    stored = surface.surface()
    if installed.split(".")[:2] != stored["version"].split(".")[:2]:
        pytest.skip(f"CuPy {installed} is installed; the stored surface is {stored['version']}'s")
    assert surface.read_installed() | {"version": ""} == stored | {"version": ""}


def test_names_that_cupy_lacks_are_not_there(cupy):
    for name in ("errstate", "einsum_path", "vecdot", "nditer", "insert", "longdouble", "unstack"):
        with pytest.raises(AttributeError, match=name):
            getattr(cupy, name)
    assert not hasattr(cupy.linalg, "vector_norm")
    assert not hasattr(cupy.random.default_rng(0), "normal")


def test_names_that_only_the_stand_in_lacks_say_so(cupy):
    with pytest.raises(NotImplementedError, match=r"no cupy\.ElementwiseKernel"):
        _ = cupy.ElementwiseKernel


def test_types_and_constants_are_numpys(cupy):
    import numpy as np

    assert cupy.float32 is np.float32 and cupy.inf == np.inf and cupy.newaxis is None
    assert cupy.lib.stride_tricks.sliding_window_view(cupy.ones(4), 2).shape == (3, 2)
    assert [g.shape for g in cupy.ogrid[:2, :3]] == [(2, 1), (1, 3)]


def test_a_list_of_parameters_is_read_as_python_reads_it():
    parsed = surface.signature("a, b=, *, out=, **others")
    parameters = inspect.signature(lambda a, b=..., *, out=..., **others: None).parameters
    assert list(parsed.parameters.values()) == list(parameters.values())


def test_functions_take_arrays_of_the_device(cupy):
    for call in (
        lambda: cupy.sum([1.0]),
        lambda: cupy.exp([1.0]),
        lambda: cupy.zeros(cupy.asarray(3)),
    ):
        with pytest.raises(TypeError):
            call()
    assert cupy.exp(0.0).item() == 1


def test_random_numbers_are_of_the_device_and_not_numpys(cupy):
    import numpy as np

    draw = cupy.random.default_rng(0).standard_normal((1000,), dtype=np.float32)
    assert isinstance(draw, cupy.ndarray) and draw.dtype == np.float32
    assert abs(draw.mean().item()) < 0.2 and 0.9 < draw.std().item() < 1.1
    again = cupy.random.default_rng(0).standard_normal((1000,), dtype=np.float32)
    np.testing.assert_array_equal(draw.get(), again.get())
    numpys = np.random.default_rng(0).standard_normal(1000, dtype=np.float32)
    assert not np.array_equal(draw.get(), numpys)


def test_the_library_does_not_import_it():
    code = "import sys, minitorch_attn; print('minitorch_attn.simulator' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
