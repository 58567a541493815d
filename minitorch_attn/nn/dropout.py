from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from .module import Module


class Dropout(Module):
    """In training, set elements to zero with probability p and scale the others by 1 / (1 - p).

    The zeros are drawn from the default generator (see `manual_seed`).
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is a probability, from 0 to 1, not {p}")
        self.p = p

    def forward(self, x: Any) -> Tensor:
        return F.dropout(x, p=self.p, training=self.training)

    def extra_repr(self) -> str:
        return str(self.p)
