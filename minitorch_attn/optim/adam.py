from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..engine import Tensor, array_module
from ..engine.backend import Array
from ..engine.kernels import FLOATS, Kernel
from ..engine.many_arrays import PARTS, launch_over
from .optimizer import PARAMETER, Optimizer, check_not_negative


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

    decoupled = False

    def update(self, p: Tensor, g: Array, state: dict[str, Any], group: Mapping[str, Any]) -> None:
        if self.decoupled:
            p *= 1 - group["lr"] * group["weight_decay"]
        elif group["weight_decay"]:
            g = g + group["weight_decay"] * p.data
        size, correction = self._take_step(g, state, group)
        m, v = state["exp_avg"], state["exp_avg_sq"]
        beta1, beta2 = group["betas"]
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        root = np.sqrt(v)
        root /= correction
        root += group["eps"]
        p -= size * m / root

    def _take_step(
        self, like: Array, state: dict[str, Any], group: Mapping[str, Any]
    ) -> tuple[float, float]:
        """Count a parameter's step; what m is multiplied by and the root of v divided by in it."""
        if "step" not in state:
            zeros_like = array_module(like).zeros_like
            state |= {"step": 0, "exp_avg": zeros_like(like), "exp_avg_sq": zeros_like(like)}
        state["step"] += 1
        beta1, beta2 = group["betas"]
        t = state["step"]
        return group["lr"] / (1 - beta1**t), math.sqrt(1 - beta2**t)

    def launch(
        self,
        params: list[Array],
        masters: list[Array],
        gradients: list[Array],
        states: list[dict[str, Any]],
        group: Mapping[str, Any],
    ) -> None:
        """Move parameters of one dtype on a GPU, all in one launch."""
        steps = [self._take_step(like, state, group) for like, state in zip(masters, states)]
        averages = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        decay = group["lr"] * group["weight_decay"] if self.decoupled else group["weight_decay"]
        launch_over(
            ADAM_STEP,
            [params, masters, gradients, averages, squares],
            *map(float, (*group["betas"], group["eps"], decay)),
            numbers=list(zip(*steps)),
            T=params[0].dtype,
            DECOUPLED=self.decoupled,
        )


ADAM_STEP = Kernel(
    "adam",
    PARTS
    + PARAMETER
    + r"""
extern "C" __global__ void adam(const long long* table, long long arrays, double beta1,
                                double beta2, double eps, double decay) {
    Part part = part_of_block(table, arrays);
    T* p = array_of<T>(table, arrays, part, 0);
    acc_t* master = array_of<acc_t>(table, arrays, part, 1);
    const T* gradient = array_of<const T>(table, arrays, part, 2);
    acc_t* m = array_of<acc_t>(table, arrays, part, 3);
    acc_t* v = array_of<acc_t>(table, arrays, part, 4);
    acc_t size = number_of(table, arrays, part, 5);
    acc_t correction = number_of(table, arrays, part, 6);
    FOR_EACH_OF(part, i) {
        acc_t value = value_of(p, master, i), g = gradient[i];
        if (DECOUPLED) value *= acc_t(1 - decay); else g += acc_t(decay) * value;
        m[i] = acc_t(beta1) * m[i] + acc_t(1 - beta1) * g;
        v[i] = acc_t(beta2) * v[i] + acc_t(1 - beta2) * (g * g);
        acc_t root = sqrt(v[i]) / correction + acc_t(eps);
        move_to(value - size * m[i] / root, p, master, i);
    }
}
""",
    variants=[{"T": T, "DECOUPLED": decoupled} for T in FLOATS for decoupled in (False, True)],
)


class AdamW(Adam):
    r"""Adam with decoupled weight decay: the parameter shrinks by itself, not by its gradient.

    .. math:: p \leftarrow (1 - \gamma\lambda)\, p, \quad \text{then Adam's step without decay.}

    In Adam the decay is divided by :math:`\sqrt{v}` with the rest of the gradient: large gradients
    would hardly decay. The parameters are those of `Adam`.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)
