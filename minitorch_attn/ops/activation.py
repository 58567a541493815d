"""Activation functions: the bends between linear layers, and softmax over an axis.

All but softmax are elementwise, (*) -> (*). No input overflows, and float32 stays float32.
On a GPU each is one kernel, and so is its rule.
"""

from __future__ import annotations

import math

import numpy as np

from ..engine import array_module, primitive
from ..engine.backend import on_gpu
from ..engine.kernels import Kernel
from . import lines
from .axes import axis_of
from .elementwise import Activation
from .masking import masked
from .special import error_function

_SIGMOID = Activation("sigmoid", "logistic(x)", "dy * y * (1 - y)")


@primitive(floats="all", takes_half=True)
def sigmoid(x):
    """Logistic function 1 / (1 + exp(-x)), elementwise, without overflow. (*) -> (*)."""
    if on_gpu(x):
        return _SIGMOID(x)
    y = _logistic(x)

    def vjp_x(dy):
        dx = 1 - y  # in place from here on: every new array costs as much as the arithmetic
        dx *= y
        dx *= dy
        return dx

    return y, vjp_x


_TANH = Activation("tanh", "tanh(x)", "dy * (1 - y * y)")


@primitive(floats="all", takes_half=True)
def tanh(x):
    """Hyperbolic tangent, elementwise. (*) -> (*)."""
    if on_gpu(x):
        return _TANH(x)
    y = np.tanh(x)

    def vjp_x(dy):
        return dy * (1 - y * y)

    return y, vjp_x


_RELU = Activation("relu", "x < 0 ? 0 : x", "y > 0 ? dy : 0")


@primitive
def relu(x):
    """Rectifier max(x, 0), elementwise; its slope at 0 is 0. (*) -> (*)."""
    if on_gpu(x) and x.dtype.kind not in "biu":
        return _RELU(x)
    # An array of zeros, not the number: NumPy's loop for two arrays is much the quicker one.
    y = np.maximum(x, array_module(x).zeros(x.shape, x.dtype))

    def vjp_x(dy):
        return masked(dy, y > 0)

    return y, vjp_x


_RELU6 = Activation("relu6", "clip(x, 0, 6)", "y > 0 && y < 6 ? dy : 0")


@primitive
def relu6(x):
    """Rectifier with a ceiling, min(max(x, 0), 6); its slope at 0 and at 6 is 0. (*) -> (*)."""
    if on_gpu(x) and x.dtype.kind not in "biu":
        return _RELU6(x)
    y = np.clip(x, 0, 6)

    def vjp_x(dy):
        return masked(dy, (y > 0) & (y < 6))

    return y, vjp_x


_LEAKY_RELU = Activation(
    "leaky_relu", "x > 0 ? x : slope * x", "x > 0 ? dy : x <= 0 ? slope * dy : 0", numbers=["slope"]
)


@primitive(floats="all", takes_half=True)
def leaky_relu(x, *, negative_slope=0.01):
    """Rectifier that lets a little through: x where x > 0, else negative_slope * x. (*) -> (*).

    The slope at 0 is `negative_slope`.
    """
    if on_gpu(x):
        return _LEAKY_RELU(x, slope=negative_slope)

    def vjp_x(dy):
        return masked(dy, x > 0) + masked(negative_slope * dy, x <= 0)

    return np.maximum(x, 0) + negative_slope * np.minimum(x, 0), vjp_x


_ELU = Activation(
    "elu", "x > 0 ? x : alpha * expm1(x)", "x > 0 ? dy : dy * alpha * exp(x)", numbers=["alpha"]
)


@primitive(floats="all", takes_half=True)
def elu(x, *, alpha=1.0):
    """Exponential linear unit: x where x > 0, else alpha * (exp(x) - 1). (*) -> (*).

    Clevert, Unterthiner and Hochreiter, 2016, section 3.
    """
    if on_gpu(x):
        return _ELU(x, alpha=alpha)
    below = alpha * np.expm1(np.minimum(x, 0))  # 0 where x > 0

    def vjp_x(dy):
        return dy * ((x > 0) + (below + alpha) * (x <= 0))

    return np.maximum(x, 0) + below, vjp_x


_SILU = Activation("silu", "x * logistic(x)", "dy * logistic(x) * (1 + x * logistic(-x))")


@primitive(floats="all", takes_half=True)
def silu(x):
    """Input weighted by its sigmoid, x * sigmoid(x), also called swish. (*) -> (*)."""
    if on_gpu(x):
        return _SILU(x)
    gate = _logistic(x)

    def vjp_x(dy):
        return dy * (gate * (1 + x * (1 - gate)))

    return x * gate, vjp_x


_GELU = {
    "none": Activation(
        "gelu",
        "x * normal_share(x)",
        "dy * (normal_share(x) + x * acc_t(0.3989422804014327) * exp(acc_t(-0.5) * x * x))",
    ),
    "tanh": Activation(
        "gelu_tanh",
        "x * logistic(gelu_b(x))",
        "dy * logistic(gelu_b(x)) * (1 + x * logistic(-gelu_b(x)) * gelu_b_slope(x))",
    ),
}


@primitive(floats="all", takes_half=True)
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
    if on_gpu(x):
        return _GELU[approximate](x)
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


_SOFTPLUS = Activation(
    "softplus",
    "beta * x > threshold ? x : softplus(beta * x) / beta",
    "beta * x > threshold ? dy : dy * logistic(beta * x)",
    numbers=["beta", "threshold"],
)


@primitive(floats="all", takes_half=True)
def softplus(x, *, beta=1.0, threshold=20.0):
    """Smooth rectifier log(1 + exp(beta * x)) / beta, without overflow. (*) -> (*).

    Where beta * x > threshold it is taken to be x, from which it hardly differs there.
    """
    if on_gpu(x):
        return _SOFTPLUS(x, beta=beta, threshold=threshold)
    z = beta * x
    linear = z > threshold
    y = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta

    def vjp_x(dy):
        return np.where(linear, dy, dy * _logistic(z))

    return np.where(linear, x, y), vjp_x


_LOGSIGMOID = Activation("logsigmoid", "-softplus(-x)", "dy * logistic(-x)")


@primitive(floats="all", takes_half=True)
def logsigmoid(x):
    """Logarithm of the sigmoid, -log(1 + exp(-x)), without overflow. (*) -> (*)."""
    if on_gpu(x):
        return _LOGSIGMOID(x)

    def vjp_x(dy):
        return dy * _logistic(-x)

    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))), vjp_x


_HARDSIGMOID = Activation("hardsigmoid", "clip(x + 3, 0, 6) / 6", "y > 0 && y < 1 ? dy / 6 : 0")


@primitive(floats="all", takes_half=True)
def hardsigmoid(x):
    """Sigmoid of straight lines, min(max(x / 6 + 1 / 2, 0), 1). (*) -> (*)."""
    if on_gpu(x):
        return _HARDSIGMOID(x)
    y = np.clip(x + 3, 0, 6) / 6

    def vjp_x(dy):
        return masked(dy, (y > 0) & (y < 1)) / 6

    return y, vjp_x


_HARDSWISH = Activation(
    "hardswish",
    "x * clip(x + 3, 0, 6) / 6",
    "x + 3 <= 0 ? 0 : x + 3 < 6 ? dy * (2 * x + 3) / 6 : dy",
)


@primitive(floats="all", takes_half=True)
def hardswish(x):
    """Input weighted by its hardsigmoid. (*) -> (*).

    Howard et al., 2019 (MobileNetV3), section 5.2.
    """
    if on_gpu(x):
        return _HARDSWISH(x)
    gate = np.clip(x + 3, 0, 6) / 6

    def vjp_x(dy):
        return masked(dy, gate > 0) * (gate + masked(x, (gate > 0) & (gate < 1)) / 6)

    return x * gate, vjp_x


@primitive(floats="all", takes_half=True)
def softmax(x, *, dim):
    """exp(x) divided by its sum along an axis: positive values that add up to 1. (*) -> (*)."""
    dim = axis_of("softmax", dim, x.ndim)
    if on_gpu(x):
        return _softmax_of_lines(x, dim, log=False)
    y = x - x.max(axis=dim, keepdims=True)  # the same quotient, and no exponent above 0
    np.exp(y, out=y)
    y /= y.sum(axis=dim, keepdims=True)

    def vjp_x(dy):
        dx = dy * y
        dx -= y * dx.sum(axis=dim, keepdims=True)
        return dx

    return y, vjp_x


@primitive(floats="all", takes_half=True)
def log_softmax(x, *, dim):
    """Logarithm of softmax along an axis, also where softmax itself rounds to 0. (*) -> (*)."""
    dim = axis_of("log_softmax", dim, x.ndim)
    if on_gpu(x):
        return _softmax_of_lines(x, dim, log=True)
    y = x - x.max(axis=dim, keepdims=True)
    y -= np.log(np.exp(y).sum(axis=dim, keepdims=True))

    def vjp_x(dy):
        return dy - np.exp(y) * dy.sum(axis=dim, keepdims=True)

    return y, vjp_x


_SOFTMAX_VARIANTS = [{**v, "LOG": log} for v in lines.VARIANTS for log in (0, 1)]

_SOFTMAX = Kernel(
    "softmax_of_lines",
    lines.SOURCE
    + lines.EXPONENTIALS
    + r"""
extern "C" __global__ void __launch_bounds__(BLOCK)
softmax_of_lines(const T* x, T* y, long long lines, long long length, long long inner) {
    if (LINE >= lines) return;
    x += first_of_line(length, inner);
    y += first_of_line(length, inner);
    const Exponentials e = exponentials(x, length, inner);
    const acc_t factor = LOG ? log(e.sum) : 1 / e.sum;
    FOR_EACH_OF_LINE(i, length) {
        const acc_t v = acc_t(x[i * inner]) - e.most;
        y[i * inner] = T(LOG ? v - factor : exp(v) * factor);
    }
}
""",
    _SOFTMAX_VARIANTS,
)

_SOFTMAX_BACKWARD = Kernel(
    "softmax_of_lines_backward",
    lines.SOURCE
    + r"""
extern "C" __global__ void __launch_bounds__(BLOCK)
softmax_of_lines_backward(const T* y, const T* dy, T* dx, long long lines, long long length,
                          long long inner) {
    if (LINE >= lines) return;
    const long long first = first_of_line(length, inner);
    acc_t sum = 0;
    FOR_EACH_OF_LINE(i, length) {
        const long long at = first + i * inner;
        sum += LOG ? acc_t(dy[at]) : acc_t(dy[at]) * acc_t(y[at]);
    }
    sum = line_sum(sum);
    FOR_EACH_OF_LINE(i, length) {
        const long long at = first + i * inner;
        const acc_t v = y[at], dv = dy[at];
        dx[at] = T(LOG ? dv - exp(v) * sum : v * (dv - sum));
    }
}
""",
    _SOFTMAX_VARIANTS,
)


def _softmax_of_lines(x, dim, log):
    """Softmax, or its logarithm, on a GPU: one kernel each way."""
    xp, along = array_module(x), lines.Lines.along(dim, x.shape)
    settings = {"T": x.dtype, "WIDTH": along.width, "LOG": log}
    y = xp.empty(x.shape, x.dtype)
    _SOFTMAX(*along.launch, xp.ascontiguousarray(x), y, *along.sizes, **settings)

    def vjp_x(dy):
        dx = xp.empty(y.shape, y.dtype)
        dy = xp.ascontiguousarray(dy, dtype=y.dtype)
        _SOFTMAX_BACKWARD(*along.launch, y, dy, dx, *along.sizes, **settings)
        return dx

    return y, vjp_x


def _logistic(x):
    with np.errstate(over="ignore"):  # an infinite exp(-x) rightly gives 1 / inf = 0
        return 1 / (1 + np.exp(-x))
