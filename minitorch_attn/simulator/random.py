"""Random numbers of the stand-in: CuPy's methods, but neither NumPy's numbers nor CuPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import host, ndarray, wrap
from .surface import signature, surface


class Generator:
    """A generator of the device.

    CuPy's draws other numbers than NumPy's from a seed, and so does this one (not CuPy's either).
    Its methods are CuPy's: `standard_normal` and `random`, but no `normal`, `choice`,
    `permutation` or `shuffle`.
    """

    def __init__(self, seed: Any = None):
        self._numpy = np.random.Generator(np.random.Philox(seed))


def _method(name: str, parameters: str) -> Callable:
    allowed = signature(parameters)

    def method(self: Generator, *args: Any, **settings: Any) -> ndarray:
        bound = allowed.bind(*args, **settings).arguments
        out, dtype = bound.get("out"), bound.get("dtype")
        if name == "uniform" and dtype is not None:  # NumPy's has none
            del bound["dtype"]
        if name == "standard_exponential":
            bound.setdefault("method", "inv")
        values = getattr(self._numpy, name)(**{key: host(value) for key, value in bound.items()})
        return wrap(np.asarray(values, dtype if name == "uniform" else None), out)

    method.__name__ = name
    return method


for _name, _parameters in surface()["generator"].items():
    setattr(Generator, _name, _method(_name, _parameters))
