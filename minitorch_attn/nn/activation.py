from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from .module import Module
from .representation import settings


class _Pointwise(Module):
    """An activation without settings of its own.

    PyTorch's `inplace=True` saves memory by overwriting the input. Here a gradient may still need
    that input, so it is never overwritten: the setting is taken, so that code written for PyTorch
    runs, and changes nothing; the output is the same.
    """

    def __init__(self, inplace: bool = False):
        super().__init__()


class ReLU(_Pointwise):
    r"""The positive part, elementwise. (*) -> (*).

    .. math:: y = \max(x, 0)

    Parameters
    ----------
    inplace : bool
        Taken for PyTorch's sake, and without effect: the input is never overwritten.
    """

    def forward(self, x: Any) -> Tensor:
        return F.relu(x)


class ReLU6(_Pointwise):
    r"""The positive part, at most 6, elementwise. (*) -> (*).

    .. math:: y = \min(\max(x, 0), 6)

    Parameters
    ----------
    inplace : bool
        Without effect, see `ReLU`.
    """

    def forward(self, x: Any) -> Tensor:
        return F.relu6(x)


class LeakyReLU(Module):
    r"""x where it is positive, a small multiple of it elsewhere. (*) -> (*).

    .. math:: y = \max(x, 0) + a \min(x, 0)

    Parameters
    ----------
    negative_slope : float
        a.
    inplace : bool
        Without effect, see `ReLU`.
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        return F.leaky_relu(x, negative_slope=self.negative_slope)

    def extra_repr(self) -> str:
        return str(self.negative_slope)


class ELU(Module):
    r"""x where it is positive, an exponential that levels off at -alpha elsewhere. (*) -> (*).

    .. math:: y = \max(x, 0) + \alpha \left(e^{\min(x, 0)} - 1\right)

    Parameters
    ----------
    alpha : float
    inplace : bool
        Without effect, see `ReLU`.
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Any) -> Tensor:
        return F.elu(x, alpha=self.alpha)

    def extra_repr(self) -> str:
        return str(self.alpha)


class GELU(Module):
    r"""x times the share of a normal distribution that lies below x. (*) -> (*).

    .. math:: y = x\, \Phi(x)

    Parameters
    ----------
    approximate : {"none", "tanh"}
        "tanh" takes a formula with tanh for Phi.
    """

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        return F.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        return "" if self.approximate == "none" else f"approximate={self.approximate!r}"


class SiLU(_Pointwise):
    r"""x times its own sigmoid; also called swish. (*) -> (*).

    .. math:: y = x\, \sigma(x) = \frac{x}{1 + e^{-x}}

    Parameters
    ----------
    inplace : bool
        Without effect, see `ReLU`.
    """

    def forward(self, x: Any) -> Tensor:
        return F.silu(x)


class Sigmoid(Module):
    r"""Logistic function, elementwise. (*) -> (*).

    .. math:: y = \sigma(x) = \frac{1}{1 + e^{-x}}
    """

    def forward(self, x: Any) -> Tensor:
        return F.sigmoid(x)


class Tanh(Module):
    r"""Hyperbolic tangent, elementwise. (*) -> (*).

    .. math:: y = \frac{e^x - e^{-x}}{e^x + e^{-x}}
    """

    def forward(self, x: Any) -> Tensor:
        return F.tanh(x)


class Softplus(Module):
    r"""A ReLU without a corner. (*) -> (*).

    .. math:: y = \frac{1}{\beta} \log\left(1 + e^{\beta x}\right)

    Parameters
    ----------
    beta : float
        The greater, the nearer to ReLU.
    threshold : float
        Where beta x is above it, y is x itself.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, x: Any) -> Tensor:
        return F.softplus(x, beta=self.beta, threshold=self.threshold)

    def extra_repr(self) -> str:
        return settings(beta=(self.beta, 1.0), threshold=(self.threshold, 20.0)).lstrip(", ")


class LogSigmoid(Module):
    r"""Logarithm of the logistic function, without underflow. (*) -> (*).

    .. math:: y = \log \sigma(x) = -\log\left(1 + e^{-x}\right)
    """

    def forward(self, x: Any) -> Tensor:
        return F.logsigmoid(x)


class Hardsigmoid(_Pointwise):
    r"""The logistic function as three straight lines. (*) -> (*).

    .. math:: y = \min(\max(x / 6 + 1 / 2, 0), 1)

    Parameters
    ----------
    inplace : bool
        Without effect, see `ReLU`.
    """

    def forward(self, x: Any) -> Tensor:
        return F.hardsigmoid(x)


class Hardswish(_Pointwise):
    r"""x times its hardsigmoid. (*) -> (*).

    .. math:: y = x \min(\max(x / 6 + 1 / 2, 0), 1)

    Parameters
    ----------
    inplace : bool
        Without effect, see `ReLU`.
    """

    def forward(self, x: Any) -> Tensor:
        return F.hardswish(x)


class Softmax(Module):
    r"""Scores as probabilities: positive, and of sum 1 along an axis. (*) -> (*).

    .. math:: y_k = \frac{e^{x_k}}{\sum_j e^{x_j}}

    Parameters
    ----------
    dim : int
        The axis.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        return F.softmax(x, dim=self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    r"""Logarithm of the softmax along an axis, without underflow. (*) -> (*).

    .. math:: y_k = x_k - \log \sum_j e^{x_j}

    Parameters
    ----------
    dim : int
        The axis.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        return F.log_softmax(x, dim=self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
