"""The shadow: what a test computes on the CPU is computed a second time on a GPU, and compared.

Every call of a primitive that a test makes is repeated on the device with the same arrays and
settings: the result, and each rule with a random gradient, must have the CPU's shape, dtype and
values. The device is the stand-in of `minitorch_attn.simulator`; where there is a real GPU, every
test exists a second time, marked `gpu`, with the card in its place.

Nothing of it reaches the test: arrays and generators are copied, and a difference fails the test
when it is over. Where the CPU's call raises there is nothing to compare. A call is repeated once
a session, the same numbers being the same again; and of the calls under `no_grad` (a gradient
check makes thousands) only the first of its shapes and settings.

A test that counts calls or measures takes ``@pytest.mark.no_shadow("why")``; while `tracemalloc`
measures, nothing is repeated anyway.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import tracemalloc
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minitorch_attn.functional as F
from minitorch_attn.engine import backend
from minitorch_attn.engine.graph import mode
from minitorch_attn.simulator import simulated_gpu
from minitorch_attn.simulator.kernels import NoCompiler

SEEN: set[tuple] = set()  # the calls that were repeated in this session
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-4, "float64": 1e-11}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "no_shadow(why): not repeated on a (simulated) GPU")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Where there is a card, a second time with it; else the tests' names stay as they are."""
    if "_shadow" in metafunc.fixturenames and _cards():
        card = pytest.param("gpu", marks=pytest.mark.gpu)
        metafunc.parametrize("_shadow", ["simulated", card], indirect=True)


@functools.cache
def _cards() -> bool:
    return backend.gpu_is_available()


@pytest.fixture(autouse=True)
def _shadow(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("no_shadow"):
        yield
        return
    card = getattr(request, "param", "simulated") == "gpu"
    shadow = Shadow(contextlib.nullcontext if card else simulated_gpu)
    with shadow:
        yield
    assert not shadow.differences, "differs on the GPU:\n" + "\n".join(shadow.differences)


class Shadow:
    """Repeats the calls of all primitives on a device, and notes what differs there.

    Parameters
    ----------
    device : callable
        Makes the context in which `cupy` can be imported.
    """

    def __init__(self, device: Callable[[], contextlib.AbstractContextManager]):
        self.device = device
        self.differences: list[str] = []
        self._busy = False

    def __enter__(self) -> Shadow:
        for primitive, forward in primitives():
            _forward_of(primitive).cell_contents = functools.partial(self._called, forward)
        return self

    def __exit__(self, *error: Any) -> None:
        for primitive, forward in primitives():
            _forward_of(primitive).cell_contents = forward

    def _called(self, forward: Callable, *arrays: Any, **settings: Any) -> Any:
        if self._busy or tracemalloc.is_tracing() or self._is_known(forward, arrays, settings):
            return forward(*arrays, **settings)
        twin = copied(settings)
        result = forward(*arrays, **settings)
        self._busy, in_use = True, backend.gpu_in_use
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"), self.device():
                warnings.simplefilter("ignore")
                self.differences += differences(forward, arrays, twin, result)
        finally:
            self._busy, backend.gpu_in_use = False, in_use
        return result

    def _is_known(self, forward: Callable, arrays: tuple, settings: dict) -> bool:
        """Whether the session has seen this very call; without a graph, one like it."""
        what = exactly if mode.recording else described
        call = (self.device, id(forward), what([arrays, settings]))
        known = call in SEEN
        SEEN.add(call)
        return known


@functools.cache
def primitives() -> list[tuple[Callable, Callable]]:
    """Every primitive of the library, wherever it is kept, with its function of arrays."""
    functions = (f for f in gc.get_objects() if type(f) is types.FunctionType)
    ours = (f for f in functions if f.__module__ and f.__module__.startswith("minitorch_attn."))
    return [(f, f.__wrapped__) for f in ours if f.__code__ is F.exp.__code__]


def _forward_of(primitive: Callable) -> types.CellType:
    """The variable in which a primitive, wherever it was imported to, keeps its function."""
    return primitive.__closure__[primitive.__code__.co_freevars.index("forward")]


# -- one call, on both ----------------------------------------------------------------------------


def differences(forward: Callable, arrays: tuple, settings: dict, result: tuple) -> list[str]:
    """What is not the same when a call of a function of arrays is repeated on the device."""
    name = forward.__name__
    call = f"{name}{described(arrays)} {described(settings)}"
    try:
        y, rules = forward(*on_device(arrays), **on_device(settings))
        found = [f"{call}: {text}" for text in unlike(y, result[0])]
        if not found and np.asarray(result[0]).dtype.kind == "f":
            pairs = zip(arrays, _tuple(result[1]), _tuple(rules), strict=True)
            for i, (x, rule, twin) in enumerate(pairs):
                if isinstance(x, np.ndarray) and x.dtype.kind == "f":
                    found += [f"{call}: rule {i}: {text}" for text in _unlike_rules(rule, twin, y)]
    except NoCompiler:
        return []  # nothing to compare: a kernel cannot run here
    except Exception as error:
        place = _place(error)
        return [f"{call}: raises {type(error).__name__} there, in {place}: {error}"]
    return found


def _unlike_rules(rule: Callable | None, twin: Callable | None, y: Any) -> list[str]:
    if rule is None or twin is None:
        return [] if rule is twin else ["is there on one of the two alone"]
    dy = np.asarray(np.random.default_rng(y.shape).standard_normal(y.shape), y.dtype)
    return unlike(twin(on_device(dy)), rule(dy))


def _place(error: Exception) -> str:
    """The line of the library in which an error came up."""
    trace, place = error.__traceback__, "?"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "minitorch_attn" in file and "simulator" not in file:
            place = f"{file.rpartition('minitorch_attn/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def on_device(value: Any) -> Any:
    """A value with all arrays in it copied to the device."""
    import cupy

    if isinstance(value, np.ndarray):
        return cupy.asarray(value)
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(map(on_device, value))
    return {k: on_device(v) for k, v in value.items()} if isinstance(value, dict) else value


def copied(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings whose generators will draw the same numbers again, and without observers."""
    generators = (np.random.Generator,)
    twins = {k: copy.deepcopy(v) if isinstance(v, generators) else v for k, v in settings.items()}
    return twins | {"observe": lambda *_: None} if "observe" in settings else twins


def unlike(theirs: Any, ours: Any) -> list[str]:
    """How an array of the device differs from the CPU's."""
    import cupy

    if not isinstance(theirs, cupy.ndarray):
        return [f"gives {type(theirs).__name__}, no array of the device"]
    theirs, ours = theirs.get(), np.asarray(ours)
    if (theirs.shape, theirs.dtype) != (ours.shape, ours.dtype):
        return [f"gives {described(theirs)} instead of {described(ours)}"]
    if ours.dtype.name not in TOLERANCE:
        return [] if np.array_equal(theirs, ours) else [f"gives other {ours.dtype} values"]
    tolerance, finite = TOLERANCE[ours.dtype.name], np.isfinite(ours)
    if not np.array_equal(theirs[~finite], ours[~finite], equal_nan=True):
        return ["is infinite or NaN in other places"]
    ours, theirs = ours[finite].astype(np.float64), theirs[finite].astype(np.float64)
    error = np.abs(ours - theirs).max(initial=0)
    allowed = tolerance * np.abs(ours).max(initial=1)
    return [] if error <= allowed else [f"differs by {error:.2g}, {allowed:.2g} is allowed"]


def described(value: Any) -> str:
    """A value in short: arrays by their dtype and shape."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(described, value))})"
    if isinstance(value, dict):
        return f"({', '.join(f'{k}={described(v)}' for k, v in value.items())})"
    return repr(value)


def exactly(value: Any) -> Any:
    """A value with the contents and layout of all its arrays, to tell one call from another."""
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape, value.strides, hash(value.tobytes())
    if isinstance(value, (tuple, list)):
        return tuple(map(exactly, value))
    if isinstance(value, dict):
        return tuple((name, exactly(v)) for name, v in value.items() if name != "observe")
    return repr(value.bit_generator.state if isinstance(value, np.random.Generator) else value)


def _tuple(rules: Any) -> tuple:
    return tuple(rules) if isinstance(rules, (tuple, list)) else (rules,)
