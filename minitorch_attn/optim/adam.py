from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..engine import Tensor
from ..engine.backend import Array
from .optimizer import Optimizer, check_not_negative


class Adam(Optimizer):
    r"""Steps of a size that each number finds for itself, from running means of its gradient.

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        p &\leftarrow p - \gamma \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    The divisions by :math:`1 - \beta^t` make up for m and v having started at 0.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        See `Optimizer`.
    lr : float
        Learning rate gamma.
    betas : (float, float)
        How much of the running means of gradient and squared gradient a step keeps.
    eps : float
        Keeps the division finite.
    weight_decay : float
        lambda: :math:`\lambda p` is added to the gradient. See `AdamW` for the other way.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        check_not_negative(settings, "lr", "eps", "weight_decay")
        betas = settings["betas"]
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers from 0 to below 1, not {betas}")

    def update(self, p: Tensor, g: Array, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p.data
        self.adapt(p, g, state, group)

    def adapt(self, p: Tensor, g: Array, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        """Move a parameter by its running means: the three equations above."""
        if not state:
            state |= {"step": 0, "exp_avg": np.zeros_like(g), "exp_avg_sq": np.zeros_like(g)}
        state["step"] += 1
        t, m, v = state["step"], state["exp_avg"], state["exp_avg_sq"]
        beta1, beta2 = group["betas"]
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        root = np.sqrt(v)
        root /= math.sqrt(1 - beta2**t)
        root += group["eps"]
        p -= (group["lr"] / (1 - beta1**t)) * m / root


class AdamW(Adam):
    r"""Adam with decoupled weight decay: the parameter shrinks by itself, not by its gradient.

    .. math:: p \leftarrow (1 - \gamma\lambda)\, p, \quad \text{then Adam's step without decay.}

    In Adam the decay is divided by :math:`\sqrt{v}` with the rest of the gradient: large gradients
    would hardly decay. The parameters are those of `Adam`.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(self, p: Tensor, g: Array, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        p *= 1 - group["lr"] * group["weight_decay"]
        self.adapt(p, g, state, group)
