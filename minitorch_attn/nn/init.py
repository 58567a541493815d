r"""First values of parameters, written in place.

A layer y = W x of n inputs keeps the variance of its signal if its weights have variance 1 / n;
with a nonlinearity behind it, :math:`g^2 / n` with the nonlinearity's gain g. n counts the inputs
(fan in: keeps the forward signal) or the outputs (fan out: keeps the gradient).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..engine import ShapeError, Tensor, default_generator, no_grad

Generator = np.random.Generator | None


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """How much larger weights must be to make up for what a nonlinearity takes away.

    Parameters
    ----------
    nonlinearity : str
        "linear", "conv1d", "conv2d", "conv3d", "sigmoid", "tanh", "relu", "leaky_relu" or "selu".
    param : float, optional
        The negative slope of "leaky_relu", 0.01 if left out.

    Raises
    ------
    ValueError
        If the nonlinearity is unknown.
    """
    slope = 0.01 if param is None else param
    gains = {
        "linear": 1.0,
        "conv1d": 1.0,
        "conv2d": 1.0,
        "conv3d": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + slope**2)),
        "selu": 3 / 4,
    }
    if nonlinearity not in gains:
        raise ValueError(f"no gain is known for {nonlinearity!r}, only for {', '.join(gains)}")
    return gains[nonlinearity]


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Set every element to a number."""
    with no_grad():
        return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Set every element to 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Set every element to 1."""
    return constant_(tensor, 1.0)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator = None) -> Tensor:
    """Fill with numbers uniform in [a, b)."""
    return _fill(tensor, _rng(generator).uniform(a, b, tensor.shape))


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator = None
) -> Tensor:
    """Fill with normal numbers."""
    return _fill(tensor, _rng(generator).normal(mean, std, tensor.shape))


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator = None,
) -> Tensor:
    """Fill with normal numbers that lie in [a, b]: what falls outside is drawn again.

    Raises
    ------
    ValueError
        If less than a thousandth of the normal distribution lies in [a, b].
    """
    below = [0.5 * (1 + math.erf((x - mean) / (std * math.sqrt(2)))) for x in (a, b)]
    if below[1] - below[0] < 1e-3:
        raise ValueError(
            f"trunc_normal_: [{a}, {b}] holds almost nothing of a normal distribution with mean "
            f"{mean} and standard deviation {std}"
        )
    rng = _rng(generator)
    values = rng.normal(mean, std, tensor.shape)
    while (outside := (values < a) | (values > b)).any():
        values[outside] = rng.normal(mean, std, int(outside.sum()))
    return _fill(tensor, values)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator = None) -> Tensor:
    r"""Fill uniformly in [-b, b] with :math:`b = g \sqrt{6 / (n_{in} + n_{out})}`.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks"
    (2010), equation 16.
    """
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator = None) -> Tensor:
    r"""Fill with normal numbers of standard deviation :math:`g \sqrt{2 / (n_{in} + n_{out})}`."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator = None,
) -> Tensor:
    r"""Fill uniformly in [-b, b] with :math:`b = g \sqrt{3 / n}`.

    Parameters
    ----------
    tensor : Tensor (out, in, ...)
    a : float
        Negative slope of the leaky ReLU that follows.
    mode : str
        "fan_in" (n inputs: keeps the variance of the signal) or "fan_out" (that of the gradient).
    nonlinearity : str
        What follows, see `calculate_gain`.
    generator : numpy.random.Generator, optional
        The default one (see `manual_seed`) if left out.

    References
    ----------
    He et al., "Delving Deep into Rectifiers" (2015), equations 10 and 14.
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator = None,
) -> Tensor:
    r"""Fill with normal numbers of standard deviation :math:`g / \sqrt{n}`.

    The arguments are those of `kaiming_uniform_`.
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', not {mode!r}")
    fan_in, fan_out = _fans(tensor)
    n = fan_in if mode == "fan_in" else fan_out
    return calculate_gain(nonlinearity, a) / math.sqrt(max(n, 1))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """Number of inputs of an output, and of outputs of an input, of a weight (out, in, ...)."""
    if tensor.ndim < 2:
        raise ShapeError(
            f"a weight has at least the axes (out, in) to count inputs and outputs by, "
            f"not {tensor.shape}"
        )
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _rng(generator: Generator) -> Any:
    return generator or default_generator()


def _fill(tensor: Tensor, values: np.ndarray) -> Tensor:
    with no_grad():
        return tensor.copy_(values)
