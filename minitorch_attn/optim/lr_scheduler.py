"""Learning-rate schedules: the learning rate as a function of the number of steps taken.

A schedule is made after its optimiser, sets the learning rate at once, and again at every
`step()`. It is called once an epoch, or once a batch: its numbers count its own steps.
An optimiser has one schedule; `SequentialLR` makes one of several.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from .optimizer import Optimizer


class LRScheduler:
    """What every schedule does: it sets the learning rates. A subclass says in `lr_at` to what.

    Parameters
    ----------
    optimizer : Optimizer
        The learning rate that a group has when its first schedule is made is the base of all its
        schedules; it is kept in the group as "initial_lr".

    Attributes
    ----------
    last_epoch : int
        Steps taken.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.last_epoch = 0
        self._set()

    def lr_at(self, epoch: int, base_lr: float) -> float:
        """The learning rate after `epoch` steps, of a group that starts from `base_lr`."""
        raise NotImplementedError(f"{type(self).__name__} has no lr_at()")

    def step(self) -> None:
        """Take a step and set the learning rates: after the optimiser's own steps."""
        self.last_epoch += 1
        self._set()

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: the number of steps taken."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, and set the learning rates to what they were."""
        self.last_epoch = int(state_dict["last_epoch"])
        self._set()

    def _set(self) -> None:
        for group in self.optimizer.param_groups:
            base_lr = group.setdefault("initial_lr", group["lr"])
            group["lr"] = float(self.lr_at(self.last_epoch, base_lr))


class LambdaLR(LRScheduler):
    """The base times any function of the number of steps.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates are set.
    lr_lambda : callable
        Number of steps taken -> factor.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]):
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        return base_lr * self.lr_lambda(epoch)


class StepLR(LRScheduler):
    r"""Times `gamma` every `step_size` steps.

    .. math:: \eta_t = \eta\, \gamma^{\lfloor t / step\_size \rfloor}

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates are set.
    step_size : int
        Steps with one learning rate, at least 1.
    gamma : float
        The factor.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        _check_positive("StepLR", step_size=step_size)
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        return base_lr * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """Times `gamma` at each of the milestones.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates are set.
    milestones : sequence of int
        Numbers of steps.
    gamma : float
        The factor.
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1):
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        return base_lr * self.gamma ** bisect_right(self.milestones, epoch)


class CosineAnnealingLR(LRScheduler):
    r"""Half a cosine from the base down to `eta_min` in `T_max` steps (and up again after them).

    .. math::
        \eta_t = \eta_{min} + (\eta - \eta_{min})\,\tfrac12 \left(1 + \cos(\pi t / T_{max})\right)

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates are set.
    T_max : int
        Steps of the half cosine, at least 1.
    eta_min : float
        The least learning rate.

    References
    ----------
    Loshchilov and Hutter, "SGDR" (2017), equation 5, without restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        _check_positive("CosineAnnealingLR", T_max=T_max)
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        share = (1 + math.cos(math.pi * epoch / self.T_max)) / 2
        return self.eta_min + (base_lr - self.eta_min) * share


class LinearLR(LRScheduler):
    """A straight line from `start_factor` to `end_factor` times the base: a warm-up.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates are set.
    start_factor, end_factor : float
        Factors of the first step and of all after the last.
    total_iters : int
        Steps that the line takes, at least 1; then the learning rate stays.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ):
        _check_positive("LinearLR", total_iters=total_iters)
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        share = min(epoch / self.total_iters, 1.0)
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * share)


class InverseSqrtLR(LRScheduler):
    r"""Up to the base in a straight line, then down with the square root of the steps.

    .. math:: \eta_t = \eta \min\!\left(\frac{t + 1}{w}, \sqrt{\frac{w}{t + 1}}\right)

    The first step has number t = 0, and the base is reached at the w-th. The Transformer's own
    schedule, :math:`D^{-1/2} \min(s^{-1/2}, s\, w^{-3/2})` for its step s = t + 1, is this one
    with the base ``lr=(D * warmup_steps) ** -0.5``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates are set.
    warmup_steps : int
        w, at least 1.

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), equation 3.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int = 4000):
        _check_positive("InverseSqrtLR", warmup_steps=warmup_steps)
        self.warmup_steps = warmup_steps
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        share = (epoch + 1) / self.warmup_steps
        return base_lr * min(share, share**-0.5)


class SequentialLR(LRScheduler):
    """One schedule after another: each milestone starts the next one, from its own step 0.

    Warm-up, then a cosine::

        warm_up = LinearLR(optimizer, total_iters=5)
        cosine = CosineAnnealingLR(optimizer, T_max=45)
        schedule = SequentialLR(optimizer, [warm_up, cosine], milestones=[5])

    Only `schedule` is stepped.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rates are set.
    schedulers : sequence of LRScheduler
        Of the same optimiser.
    milestones : sequence of int
        Steps after which the second, the third, ... takes over.

    Raises
    ------
    ValueError
        If there is not one milestone between each two schedules, or they do not rise.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]
    ):
        if len(milestones) != len(schedulers) - 1 or list(milestones) != sorted(milestones):
            raise ValueError(
                f"{len(schedulers)} schedules need {len(schedulers) - 1} rising milestones "
                f"between them, not {list(milestones)}"
            )
        self.schedulers = list(schedulers)
        self.milestones = list(milestones)
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        i = bisect_right(self.milestones, epoch)
        start = self.milestones[i - 1] if i else 0
        return self.schedulers[i].lr_at(epoch - start, base_lr)


def _check_positive(schedule: str, **steps: int) -> None:
    """Refuse a number of steps below 1, by its name."""
    for name, value in steps.items():
        if value < 1:
            raise ValueError(f"{schedule}: {name} must be at least 1 step, not {value}")
