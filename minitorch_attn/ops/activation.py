"""Activation functions: the bends between linear layers, and softmax over an axis.

All but softmax are elementwise, (*) -> (*). No input overflows, and float32 stays float32.
"""

from __future__ import annotations

import math

import numpy as np

from ..engine import array_module, primitive
from .axes import axis_of
from .masking import masked
from .special import error_function


@primitive(floats="all")
def sigmoid(x):
    """Logistic function 1 / (1 + exp(-x)), elementwise, without overflow. (*) -> (*)."""
    y = _logistic(x)

    def vjp_x(dy):
        dx = 1 - y  # in place from here on: every new array costs as much as the arithmetic
        dx *= y
        dx *= dy
        return dx

    return y, vjp_x


@primitive(floats="all")
def tanh(x):
    """Hyperbolic tangent, elementwise. (*) -> (*)."""
    y = np.tanh(x)

    def vjp_x(dy):
        return dy * (1 - y * y)

    return y, vjp_x


@primitive
def relu(x):
    """Rectifier max(x, 0), elementwise; its slope at 0 is 0. (*) -> (*)."""
    # An array of zeros, not the number: NumPy's loop for two arrays is much the quicker one.
    y = np.maximum(x, array_module(x).zeros(x.shape, x.dtype))

    def vjp_x(dy):
        return masked(dy, y > 0)

    return y, vjp_x


@primitive
def relu6(x):
    """Rectifier with a ceiling, min(max(x, 0), 6); its slope at 0 and at 6 is 0. (*) -> (*)."""
    y = np.clip(x, 0, 6)

    def vjp_x(dy):
        return masked(dy, (y > 0) & (y < 6))

    return y, vjp_x


@primitive(floats="all")
def leaky_relu(x, *, negative_slope=0.01):
    """Rectifier that lets a little through: x where x > 0, else negative_slope * x. (*) -> (*).

    The slope at 0 is `negative_slope`.
    """

    def vjp_x(dy):
        return masked(dy, x > 0) + masked(negative_slope * dy, x <= 0)

    return np.maximum(x, 0) + negative_slope * np.minimum(x, 0), vjp_x


@primitive(floats="all")
def elu(x, *, alpha=1.0):
    """Exponential linear unit: x where x > 0, else alpha * (exp(x) - 1). (*) -> (*).

    Clevert, Unterthiner and Hochreiter, 2016, section 3.
    """
    below = alpha * np.expm1(np.minimum(x, 0))  # 0 where x > 0

    def vjp_x(dy):
        return dy * ((x > 0) + (below + alpha) * (x <= 0))

    return np.maximum(x, 0) + below, vjp_x


@primitive(floats="all")
def silu(x):
    """Input weighted by its sigmoid, x * sigmoid(x), also called swish. (*) -> (*)."""
    gate = _logistic(x)

    def vjp_x(dy):
        return dy * (gate * (1 + x * (1 - gate)))

    return x * gate, vjp_x


@primitive(floats="all")
def gelu(x, *, approximate="none"):
    """Input weighted by the share Phi(x) of a normal distribution that lies below it. (*) -> (*).

    Hendrycks and Gimpel, 2016, section 2.

    Parameters
    ----------
    x : (*)
    approximate : "none" or "tanh"
        Phi itself, or (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2.

    Raises
    ------
    ValueError
        If `approximate` is neither.
    """
    if approximate not in _SHARES:
        raise ValueError(f"gelu: approximate is one of {', '.join(_SHARES)}, not {approximate!r}")
    share, density = _SHARES[approximate](x)

    def vjp_x(dy):
        return dy * (share + x * density())

    return x * share, vjp_x


def _normal_share(x):
    """Phi(x), and what computes its slope, the normal density."""

    def density():
        return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)

    return 0.5 + 0.5 * error_function(x * math.sqrt(0.5)), density


def _tanh_share(x):
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    t = np.tanh(scale * x * (1 + cubic * x * x))

    def density():
        return 0.5 * scale * (1 - t * t) * (1 + 3 * cubic * x * x)

    return 0.5 + 0.5 * t, density


_SHARES = {"none": _normal_share, "tanh": _tanh_share}


@primitive(floats="all")
def softplus(x, *, beta=1.0, threshold=20.0):
    """Smooth rectifier log(1 + exp(beta * x)) / beta, without overflow. (*) -> (*).

    Where beta * x > threshold it is taken to be x, from which it hardly differs there.
    """
    z = beta * x
    linear = z > threshold
    y = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta

    def vjp_x(dy):
        return np.where(linear, dy, dy * _logistic(z))

    return np.where(linear, x, y), vjp_x


@primitive(floats="all")
def logsigmoid(x):
    """Logarithm of the sigmoid, -log(1 + exp(-x)), without overflow. (*) -> (*)."""

    def vjp_x(dy):
        return dy * _logistic(-x)

    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))), vjp_x


@primitive(floats="all")
def hardsigmoid(x):
    """Sigmoid of straight lines, min(max(x / 6 + 1 / 2, 0), 1). (*) -> (*)."""
    y = np.clip(x + 3, 0, 6) / 6

    def vjp_x(dy):
        return masked(dy, (y > 0) & (y < 1)) / 6

    return y, vjp_x


@primitive(floats="all")
def hardswish(x):
    """Input weighted by its hardsigmoid. (*) -> (*).

    Howard et al., 2019 (MobileNetV3), section 5.2.
    """
    gate = np.clip(x + 3, 0, 6) / 6

    def vjp_x(dy):
        return masked(dy, gate > 0) * (gate + masked(x, (gate > 0) & (gate < 1)) / 6)

    return x * gate, vjp_x


@primitive(floats="all")
def softmax(x, *, dim):
    """exp(x) divided by its sum along an axis: positive values that add up to 1. (*) -> (*)."""
    dim = axis_of("softmax", dim, x.ndim)
    y = x - x.max(axis=dim, keepdims=True)  # the same quotient, and no exponent above 0
    np.exp(y, out=y)
    y /= y.sum(axis=dim, keepdims=True)

    def vjp_x(dy):
        dx = dy * y
        dx -= y * dx.sum(axis=dim, keepdims=True)
        return dx

    return y, vjp_x


@primitive(floats="all")
def log_softmax(x, *, dim):
    """Logarithm of softmax along an axis, also where softmax itself rounds to 0. (*) -> (*)."""
    dim = axis_of("log_softmax", dim, x.ndim)
    y = x - x.max(axis=dim, keepdims=True)
    y -= np.log(np.exp(y).sum(axis=dim, keepdims=True))

    def vjp_x(dy):
        return dy - np.exp(y) * dy.sum(axis=dim, keepdims=True)

    return y, vjp_x


def _logistic(x):
    with np.errstate(over="ignore"):  # an infinite exp(-x) rightly gives 1 / inf = 0
        return 1 / (1 + np.exp(-x))
