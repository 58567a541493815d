"""Multiplicative attention: what to look at is told by a product of query and memory."""

from __future__ import annotations

from typing import Any

from .. import nn
from ..engine import ShapeError, Tensor
from ..ops.arguments import integer
from .arguments import check_choice, check_look_up

SCORES = ("dot", "general")


class MultiplicativeAttention(nn.Module):
    r"""Luong's global attention: look up in a memory what fits a query, by inner products.

    .. math::

        e_j &= s^\top m_j \quad (\text{"dot"}) \qquad \text{or} \qquad
               e_j = (W s)^\top m_j \quad (\text{"general"}) \\
        \alpha &= \mathrm{softmax}(e), \qquad c = \sum_j \alpha_j\, m_j

    with the query :math:`s` and the memory :math:`m_1, \dots, m_L`. One product of matrices scores
    all places at once, where `AdditiveAttention` needs a tanh for each place and unit.

    Parameters
    ----------
    query_size, memory_size : int
        Features of the query, Dq, and of each place of the memory, Dm.
    score : str
        "general", with Dq Dm parameters, or "dot", with none, for which Dq = Dm.

    Attributes
    ----------
    query : Linear, or Identity for "dot"
        W (Dm, Dq).
    softmax : MaskedSoftmax
        A forward hook on it sees the weights (N, L).

    Raises
    ------
    ValueError
        If a size is no integer of at least 1, or the score is unknown.
    ShapeError
        If the sizes do not fit.

    References
    ----------
    Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine Translation"
    (EMNLP 2015), section 3.1. Their third score, "concat", is that of `AdditiveAttention`; their
    local attention, which looks at a window of the memory, is left out.
    """

    def __init__(self, query_size: int, memory_size: int, score: str = "general"):
        super().__init__()
        self.query_size = integer("MultiplicativeAttention", "query_size", query_size, least=1)
        self.memory_size = integer("MultiplicativeAttention", "memory_size", memory_size, least=1)
        self.score = check_choice(self, "score", score, SCORES)
        if score == "dot" and query_size != memory_size:
            raise ShapeError(
                f"MultiplicativeAttention: a query of {query_size} features has no inner product "
                f'with a memory of {memory_size}: take score="general", or equal sizes'
            )
        self.query = (
            nn.Identity() if score == "dot" else nn.Linear(query_size, memory_size, bias=False)
        )
        self.softmax = nn.MaskedSoftmax()

    def forward(self, query: Any, memory: Any, mask: Any = None) -> tuple[Tensor, Tensor]:
        """Look up a query (N, Dq) in a memory (N, L, Dm).

        Parameters
        ----------
        mask : (N, L) of booleans, optional
            True where it may look.

        Returns
        -------
        Tensor (N, Dm), and Tensor (N, L)
            Context and weights; both 0 where nothing may be looked at.
        """
        query, memory, mask = check_look_up(
            self, query, memory, mask, self.query_size, self.memory_size
        )
        scores = (memory @ self.query(query).unsqueeze(2)).squeeze(2)  # (N, L)
        weights = self.softmax(scores, mask)
        return (weights.unsqueeze(1) @ memory).squeeze(1), weights

    def extra_repr(self) -> str:
        return f'{self.query_size}, {self.memory_size}, score="{self.score}"'
