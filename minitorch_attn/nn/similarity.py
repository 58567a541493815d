from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from .module import Module
from .representation import settings


class CosineSimilarity(Module):
    """Cosine of the angle between vectors along an axis, see `functional.cosine_similarity`.

    Parameters
    ----------
    dim : int
        The axis of the vectors, which the result no longer has.
    eps : float
        Least length that is divided by.
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8):
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x1: Any, x2: Any) -> Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)

    def extra_repr(self) -> str:
        return f"dim={self.dim}" + settings(eps=(self.eps, 1e-8))


class PairwiseDistance(Module):
    """Distance of each vector from its partner, see `functional.pairwise_distance`.

    Parameters
    ----------
    p : float
        Of the norm.
    eps : float
        Added to every difference.
    keepdim : bool
        Whether to keep the last axis, with size 1.
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False):
        super().__init__()
        self.p = p
        self.eps = eps
        self.keepdim = keepdim

    def forward(self, x1: Any, x2: Any) -> Tensor:
        return F.pairwise_distance(x1, x2, p=self.p, eps=self.eps, keepdim=self.keepdim)

    def extra_repr(self) -> str:
        more = settings(eps=(self.eps, 1e-6), keepdim=(self.keepdim, False))
        return f"p={self.p}" + more
