"""Activation functions: elementwise bends between layers, and softmax over an axis.

Each is written so that no input overflows, and float32 stays float32.
"""

from __future__ import annotations

import math

import numpy as np

from ..engine import primitive
from .special import error_function


@primitive
def sigmoid(x):
    """Logistic function 1 / (1 + exp(-x)), elementwise, without overflow. (*) -> (*)."""
    y = _logistic(x)

    def vjp_x(dy):
        return dy * y * (1 - y)

    return y, vjp_x


@primitive
def tanh(x):
    """Hyperbolic tangent, elementwise. (*) -> (*)."""
    y = np.tanh(x)

    def vjp_x(dy):
        return dy * (1 - y * y)

    return y, vjp_x


@primitive
def relu(x):
    """max(x, 0), elementwise; the gradient at 0 is 0. (*) -> (*)."""
    y = np.maximum(x, 0)

    def vjp_x(dy):
        return dy * (y > 0)

    return y, vjp_x


@primitive
def relu6(x):
    """min(max(x, 0), 6), elementwise; the gradient at 0 and at 6 is 0. (*) -> (*)."""
    y = np.clip(x, 0, 6)

    def vjp_x(dy):
        return dy * ((y > 0) & (y < 6))

    return y, vjp_x


@primitive
def leaky_relu(x, *, negative_slope=0.01):
    """Identity where x > 0, else negative_slope * x, elementwise. (*) -> (*)."""

    def vjp_x(dy):
        return dy * (x > 0) + negative_slope * dy * (x <= 0)

    return np.maximum(x, 0) + negative_slope * np.minimum(x, 0), vjp_x


@primitive
def elu(x, *, alpha=1.0):
    """Identity where x > 0, else alpha * (exp(x) - 1), elementwise. (*) -> (*)."""
    below = alpha * np.expm1(np.minimum(x, 0))  # 0 where x > 0

    def vjp_x(dy):
        return dy * ((x > 0) + (below + alpha) * (x <= 0))

    return np.maximum(x, 0) + below, vjp_x


@primitive
def silu(x):
    """Sigmoid-weighted input x * sigmoid(x), elementwise; also called swish. (*) -> (*)."""
    s = _logistic(x)

    def vjp_x(dy):
        return dy * (s * (1 + x * (1 - s)))

    return x * s, vjp_x


@primitive
def gelu(x, *, approximate="none"):
    """Input times normal distribution, x * Phi(x), elementwise. (*) -> (*).

    Phi(x) is the share of a normal distribution below x;
    `approximate="tanh"` takes Phi(x) = (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2.
    Hendrycks and Gimpel, 2016, section 2.
    """
    if approximate not in _PHI:
        raise ValueError(f"gelu: approximate is one of {', '.join(_PHI)}, not {approximate!r}")
    phi, slope = _PHI[approximate](x)

    def vjp_x(dy):
        return dy * (phi + x * slope())

    return x * phi, vjp_x


def _normal_phi(x):
    """Phi(x), the share of a normal distribution below x, and its slope."""
    return 0.5 + 0.5 * error_function(
        x * math.sqrt(0.5)
    ), lambda: np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _tanh_phi(x):
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    t = np.tanh(scale * x * (1 + cubic * x * x))
    return 0.5 + 0.5 * t, lambda: 0.5 * scale * (1 - t * t) * (1 + 3 * cubic * x * x)


_PHI = {"none": _normal_phi, "tanh": _tanh_phi}


@primitive
def softplus(x, *, beta=1.0, threshold=20.0):
    """Smooth relu log(1 + exp(beta * x)) / beta, elementwise. (*) -> (*).

    Where beta * x > threshold it is x itself, which it then hardly differs from.
    """
    z = beta * x
    linear = z > threshold
    y = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta

    def vjp_x(dy):
        return np.where(linear, dy, dy * _logistic(z))

    return np.where(linear, x, y), vjp_x


@primitive
def logsigmoid(x):
    """log(sigmoid(x)), elementwise, without overflow. (*) -> (*)."""

    def vjp_x(dy):
        return dy * _logistic(-x)

    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))), vjp_x


@primitive
def hardsigmoid(x):
    """min(max(x / 6 + 1 / 2, 0), 1), straight lines for a sigmoid, elementwise. (*) -> (*)."""

    def vjp_x(dy):
        return dy * ((x > -3) & (x < 3)) / 6

    return np.clip(x + 3, 0, 6) / 6, vjp_x


@primitive
def hardswish(x):
    """Input times straight-lined sigmoid, x * hardsigmoid(x), elementwise. (*) -> (*)."""
    gate = np.clip(x + 3, 0, 6) / 6

    def vjp_x(dy):
        return dy * (gate + x * ((x > -3) & (x < 3)) / 6)

    return x * gate, vjp_x


@primitive
def softmax(x, *, dim):
    """exp(x) divided by its sum along an axis: positive values that add up to 1. (*) -> (*)."""
    y = x - x.max(axis=dim, keepdims=True)  # changes nothing but the largest exponent: to 0
    np.exp(y, out=y)
    y /= y.sum(axis=dim, keepdims=True)

    def vjp_x(dy):
        dx = dy * y
        dx -= y * dx.sum(axis=dim, keepdims=True)
        return dx

    return y, vjp_x


@primitive
def log_softmax(x, *, dim):
    """log(softmax(x)) along an axis, without the underflow of its parts. (*) -> (*)."""
    y = x - x.max(axis=dim, keepdims=True)
    y -= np.log(np.exp(y).sum(axis=dim, keepdims=True))

    def vjp_x(dy):
        return dy - np.exp(y) * dy.sum(axis=dim, keepdims=True)

    return y, vjp_x


def _logistic(x):
    with np.errstate(over="ignore"):  # exp(-x) may be infinite: its reciprocal is 0, as it should
        return 1 / (1 + np.exp(-x))
