from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from .module import Module


class Dropout(Module):
    r"""In training, set elements to zero at random and scale up the others. (*) -> (*).

    .. math:: y = \frac{x\, m}{1 - p}, \qquad m \sim \mathrm{Bernoulli}(1 - p)

    In evaluation the input is passed on. The noise is drawn from the default generator (see
    `manual_seed`).

    Parameters
    ----------
    p : float
        Probability of a zero, from 0 to 1.
    inplace : bool
        Taken for PyTorch's sake, and without effect: the input is never overwritten.

    Raises
    ------
    ValueError
        If p is not a probability.

    References
    ----------
    Srivastava et al., "Dropout" (JMLR 2014).
    """

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p is a probability, from 0 to 1, not {p}")
        self.p = p

    def forward(self, x: Any) -> Tensor:
        return F.dropout(x, p=self.p, training=self.training)

    def extra_repr(self) -> str:
        return str(self.p)


class Dropout2d(Dropout):
    r"""In training, set whole channels to zero at random. (N, C, H, W) -> (N, C, H, W).

    .. math::

        y_{nchw} = \frac{x_{nchw}\, m_{nc}}{1 - p}, \qquad
        m_{nc} \sim \mathrm{Bernoulli}(1 - p)

    Parameters and errors are those of `Dropout`.

    References
    ----------
    Tompson et al., "Efficient Object Localization Using Convolutional Networks" (CVPR 2015).
    """

    def forward(self, x: Any) -> Tensor:
        return F.dropout2d(x, p=self.p, training=self.training)
