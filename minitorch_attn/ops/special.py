"""The error function, which NumPy does not have: the area under a bell curve."""

from __future__ import annotations

import functools
import math

import numpy as np

from ..engine import primitive
from ..engine.backend import on_gpu
from .elementwise import Activation

_ERF = Activation("erf", "erf(x)", "dy * exp(-x * x) * acc_t(1.1283791670955126)")


@primitive(floats="all", takes_half=True)
def erf(x):
    """Error function: 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x. (*) -> (*)."""
    if on_gpu(x):
        return _ERF(x)

    def vjp_x(dy):
        return dy * (np.exp(-x * x) * (2 / math.sqrt(math.pi)))

    return error_function(x), vjp_x


def error_function(x):
    r"""The error function of an array, right to 3e-14 (float64) and 3e-7 (float32).

    With t = 3 / (3 + abs(x)), which maps 0 ... infinity to 1 ... 0,

        1 - erf(abs(x)) = t * exp(-x^2) * q(2t - 1),

    and q is smooth enough for a polynomial of a moderate degree.
    """
    size = np.minimum(np.abs(x), 10)  # from there on it is 1
    t = 3 / (3 + size)
    u = 2 * t - 1
    coefficients = _smooth_part(degree=18 if x.dtype == np.float64 else 10)
    q = np.full_like(u, coefficients[-1])
    for c in coefficients[-2::-1]:  # Horner's scheme
        q *= u
        q += c
    return np.copysign(1 - t * np.exp(-size * size) * q, x)


@functools.cache
def _smooth_part(degree: int) -> list[float]:
    """Coefficients of q, from the lowest power: it meets the true function in Chebyshev points."""

    def q(u):
        t = (u + 1) / 2
        return np.array([_scaled_erfc(3 / s - 3) / s for s in t])

    chebyshev = np.polynomial.chebyshev
    return chebyshev.cheb2poly(chebyshev.chebinterpolate(q, degree)).tolist()


def _scaled_erfc(x: float) -> float:
    """exp(x^2) * erfc(x) for x >= 0; by its series in 1 / x where erfc(x) itself is too small."""
    if x < 20:
        return math.exp(x * x) * math.erfc(x)
    s = 1 / (2 * x * x)
    return (1 - s + 3 * s**2 - 15 * s**3 + 105 * s**4) / (x * math.sqrt(math.pi))
