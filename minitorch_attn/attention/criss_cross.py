from __future__ import annotations

import numpy as np

from .. import functional as F
from .. import nn
from ..engine import Tensor, array_module
from ..ops.arguments import integer
from .arguments import as_images, reduced


class CrissCrossAttention(nn.Module):
    r"""Criss-cross attention (CCNet): each position looks along its own row and column, twice.

    .. math::

        q &= W_q x + b_q, \quad k = W_k x + b_k, \quad v = W_v x + b_v \\
        w_{ij} &= \mathrm{softmax}_{j \in \mathrm{cross}(i)}(q_i \cdot k_j)
            && \text{H + W - 1 weights a position} \\
        y_i &= x_i + \gamma \sum_{j \in \mathrm{cross}(i)} w_{ij}\, v_j

    After two rounds with the same parameters everything has reached everything: what stands at
    row h, column w goes first to the crossing (h, w'), then to (h', w'). That costs
    2 H W (H + W - 1) weights, where full attention has (H W)^2.

    Parameters
    ----------
    channels : int
        Channels C.
    reduction : int
        Queries and keys have C // reduction channels.
    rounds : int
        R: how often it is applied.

    Attributes
    ----------
    query, key, value, weights : Module
    gamma : Parameter
        Starts at 0, so that the module at first changes nothing. A forward hook on `weights` sees
        the weights (N, H, W, W + H) of each round, those of the row first; in the column, the
        place of the position itself is 0, for the row has it already.

    Raises
    ------
    ValueError
        If the reduction leaves no channels, or a count is no integer of at least 1.

    References
    ----------
    Huang, Wang, Huang, Huang, Wei and Liu, "CCNet: Criss-Cross Attention for Semantic
    Segmentation" (ICCV 2019), section 3.2, equations 1 and 2.
    """

    def __init__(self, channels: int, reduction: int = 8, rounds: int = 2):
        super().__init__()
        hidden = reduced(self, channels, reduction)
        self.channels = channels
        self.rounds = integer("CrissCrossAttention", "rounds", rounds, least=1)
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.weights = nn.Softmax(dim=3)
        self.gamma = nn.Parameter(np.zeros(1, dtype=self.value.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Attend along rows and columns of x (N, C, H, W); the shape stays."""
        x = as_images(self, x, self.channels)
        for _ in range(self.rounds):
            x = x + self.gamma * self.look(x)
        return x

    def look(self, x: Tensor) -> Tensor:
        """One round: what each position fetches from its row and column, (N, C, H, W)."""
        H, W = x.shape[2:]
        q, k, v = self.query(x), self.key(x), self.value(x)
        row = F.einsum("ndhw,ndhj->nhwj", q, k)
        column = F.einsum("ndhw,ndjw->nhwj", q, k)
        itself = array_module(x.data).eye(H, dtype=bool)[:, None]  # (H, 1, H), row h and j = h
        column = column.masked_fill(itself, -np.inf)
        w = self.weights(F.cat([row, column], dim=3))  # (N, H, W, W + H)
        from_row = F.einsum("nhwj,nchj->nchw", w[..., :W], v)
        from_column = F.einsum("nhwj,ncjw->nchw", w[..., W:], v)
        return from_row + from_column

    def extra_repr(self) -> str:
        return f"{self.channels}, rounds={self.rounds}"
