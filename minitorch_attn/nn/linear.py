from __future__ import annotations

import math
from typing import Any

from .. import functional as F
from ..engine import Tensor, no_grad, zeros
from . import init
from .module import Module
from .parameter import Parameter


class Linear(Module):
    """Linear map y = x W^T + b of the last axis, with learned W and b.

    Parameters
    ----------
    in_features, out_features : int
        Sizes D_in and D_out of the last axis before and after.
    bias : bool
        Whether b is added.

    Attributes
    ----------
    weight : Parameter (D_out, D_in)
        At first uniform in [-1/sqrt(D_in), 1/sqrt(D_in)].
    bias : Parameter (D_out,) or None
        Likewise.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(zeros(out_features, in_features))
        self.bias = Parameter(zeros(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first values anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # this gain makes it 1/sqrt(D_in)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any) -> Tensor:
        """Map an input (*, D_in) to (*, D_out)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + (", bias=False" * (self.bias is None))


class Embedding(Module):
    """A learned row for each of K things: y[...] = weight[x[...]].

    Parameters
    ----------
    num_embeddings : int
        Number K of rows.
    embedding_dim : int
        Their length D.
    padding_idx : int, optional
        A row that stays zero and gets no gradient.

    Attributes
    ----------
    weight : Parameter (K, D)
        At first standard normal.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None):
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.weight = Parameter(zeros(num_embeddings, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first values anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    def forward(self, x: Any) -> Tensor:
        """Look up the rows of integers (*): (*, D)."""
        return F.embedding(x, self.weight, padding_idx=self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Flatten(Module):
    """Make one axis of several: (N, C, H, W) becomes (N, C * H * W).

    Parameters
    ----------
    start_dim, end_dim : int
        First and last of the axes that are joined.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: Any) -> Tensor:
        return F.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        is_default = (self.start_dim, self.end_dim) == (1, -1)
        return "" if is_default else f"{self.start_dim}, {self.end_dim}"


class Identity(Module):
    """Returns its input: a place in a network where another module could stand."""

    def __init__(self, *_: Any, **__: Any):
        super().__init__()

    def forward(self, x: Any) -> Any:
        return x
