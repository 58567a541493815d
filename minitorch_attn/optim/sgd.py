from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..engine import Tensor, array_module
from ..engine.backend import Array, as_array
from ..engine.kernels import FLOATS, Kernel
from ..engine.many_arrays import PARTS, launch_over
from .optimizer import PARAMETER, Optimizer, check_not_negative


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
                state["momentum_buffer"] = as_array(g).copy()
            else:
                state["momentum_buffer"] *= momentum
                state["momentum_buffer"] += (1 - group["dampening"]) * g
            b = state["momentum_buffer"]
            g = g + momentum * b if group["nesterov"] else b
        p -= group["lr"] * g

    def launch(
        self,
        params: list[Array],
        masters: list[Array],
        gradients: list[Array],
        states: list[dict[str, Any]],
        group: Mapping[str, Any],
    ) -> None:
        """Move parameters of one dtype on a GPU, all in one launch."""
        is_first = ["momentum_buffer" not in state for state in states]
        buffers = masters  # for want of others: without momentum the kernel leaves them alone
        if group["momentum"]:
            empty_like = array_module(params[0]).empty_like
            buffers = [
                state.setdefault("momentum_buffer", empty_like(master))
                if first
                else state["momentum_buffer"]
                for state, master, first in zip(states, masters, is_first)
            ]
        launch_over(
            SGD_STEP,
            [params, masters, gradients, buffers],
            float(group["lr"]),
            float(group["momentum"]),
            float(1 - group["dampening"]),
            float(group["weight_decay"]),
            numbers=[is_first],
            T=params[0].dtype,
            MOMENTUM=bool(group["momentum"]),
            NESTEROV=bool(group["nesterov"]),
        )


SGD_STEP = Kernel(
    "sgd",
    PARTS
    + PARAMETER
    + r"""
extern "C" __global__ void sgd(const long long* table, long long arrays, double lr,
                               double momentum, double fresh, double weight_decay) {
    Part part = part_of_block(table, arrays);
    T* p = array_of<T>(table, arrays, part, 0);
    acc_t* master = array_of<acc_t>(table, arrays, part, 1);
    const T* gradient = array_of<const T>(table, arrays, part, 2);
    acc_t* b = array_of<acc_t>(table, arrays, part, 3);
    bool is_first = number_of(table, arrays, part, 4) != 0;
    FOR_EACH_OF(part, i) {
        acc_t value = value_of(p, master, i);
        acc_t g = acc_t(gradient[i]) + acc_t(weight_decay) * value;
        if (MOMENTUM) {
            b[i] = is_first ? g : acc_t(momentum) * b[i] + acc_t(fresh) * g;
            g = NESTEROV ? g + acc_t(momentum) * b[i] : b[i];
        }
        move_to(value - acc_t(lr) * g, p, master, i);
    }
}
""",
    variants=[
        {"T": T, "MOMENTUM": momentum, "NESTEROV": nesterov}
        for T in FLOATS
        for momentum, nesterov in [(False, False), (True, False), (True, True)]
    ],
)
