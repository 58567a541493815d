from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from .module import Module
from .summary import settings


class ReLU(Module):
    """max(x, 0), elementwise."""

    def forward(self, x: Any) -> Tensor:
        return F.relu(x)


class ReLU6(Module):
    """min(max(x, 0), 6), elementwise."""

    def forward(self, x: Any) -> Tensor:
        return F.relu6(x)


class LeakyReLU(Module):
    """x where x > 0, else negative_slope * x, elementwise."""

    def __init__(self, negative_slope: float = 0.01):
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        return F.leaky_relu(x, negative_slope=self.negative_slope)

    def extra_repr(self) -> str:
        return str(self.negative_slope)


class ELU(Module):
    """x where x > 0, else alpha * (exp(x) - 1), elementwise."""

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Any) -> Tensor:
        return F.elu(x, alpha=self.alpha)

    def extra_repr(self) -> str:
        return str(self.alpha)


class GELU(Module):
    """x * Phi(x) with the normal distribution's Phi, elementwise.

    `approximate="tanh"` takes a formula with tanh for Phi.
    """

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        return F.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        return "" if self.approximate == "none" else f"approximate={self.approximate!r}"


class SiLU(Module):
    """x * sigmoid(x), elementwise; also called swish."""

    def forward(self, x: Any) -> Tensor:
        return F.silu(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x)), elementwise."""

    def forward(self, x: Any) -> Tensor:
        return F.sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return F.tanh(x)


class Softplus(Module):
    """log(1 + exp(beta * x)) / beta, elementwise; x itself where beta * x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, x: Any) -> Tensor:
        return F.softplus(x, beta=self.beta, threshold=self.threshold)

    def extra_repr(self) -> str:
        return settings(beta=(self.beta, 1.0), threshold=(self.threshold, 20.0)).lstrip(", ")


class LogSigmoid(Module):
    """log(sigmoid(x)), elementwise."""

    def forward(self, x: Any) -> Tensor:
        return F.logsigmoid(x)


class Hardsigmoid(Module):
    """min(max(x / 6 + 1 / 2, 0), 1), elementwise."""

    def forward(self, x: Any) -> Tensor:
        return F.hardsigmoid(x)


class Hardswish(Module):
    """x * hardsigmoid(x), elementwise."""

    def forward(self, x: Any) -> Tensor:
        return F.hardswish(x)


class Softmax(Module):
    """exp(x) divided by its sum along the axis `dim`."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        return F.softmax(x, dim=self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """log(softmax(x)) along the axis `dim`."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        return F.log_softmax(x, dim=self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
