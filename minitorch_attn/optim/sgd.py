from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..engine import Tensor
from ..engine.backend import Array
from .optimizer import Optimizer, check_not_negative


class SGD(Optimizer):
    r"""Stochastic gradient descent with momentum.

    .. math::

        g &\leftarrow g + \lambda p \\
        b &\leftarrow \mu b + (1 - \tau) g \qquad (b = g \text{ in the first step}) \\
        p &\leftarrow p - \gamma b

    With `nesterov`, :math:`g + \mu b` takes the place of b in the last line.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        See `Optimizer`.
    lr : float
        Learning rate gamma.
    momentum : float
        mu; 0 is plain gradient descent.
    dampening : float
        tau.
    weight_decay : float
        lambda.
    nesterov : bool
        Whether to look ahead along the momentum.

    Raises
    ------
    ValueError
        If a setting is negative, or `nesterov` comes without momentum or with dampening.

    References
    ----------
    Sutskever et al., "On the importance of initialization and momentum in deep learning" (2013),
    in the form that PyTorch gives it: the learning rate stands outside of the momentum.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        check_not_negative(settings, "lr", "momentum", "weight_decay")
        if settings["nesterov"] and (settings["momentum"] == 0 or settings["dampening"] != 0):
            raise ValueError("nesterov=True needs a momentum above 0 and no dampening")

    def update(self, p: Tensor, g: Array, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        momentum = group["momentum"]
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p.data
        if momentum:
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = g.copy()
            else:
                state["momentum_buffer"] *= momentum
                state["momentum_buffer"] += (1 - group["dampening"]) * g
            b = state["momentum_buffer"]
            g = g + momentum * b if group["nesterov"] else b
        p -= group["lr"] * g
