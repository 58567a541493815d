"""Additive attention, the first: what to look at is learned by a small network of its own."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .. import nn
from ..engine import Tensor
from ..ops.arguments import integer
from .arguments import check_look_up


class AdditiveAttention(nn.Module):
    r"""Bahdanau's attention: look up in a memory what fits a query, by a small network's scores.

    .. math::

        e_j &= v^\top \tanh(W s + U m_j) && \text{score: how well } m_j \text{ fits } s \\
        \alpha &= \mathrm{softmax}(e) && \text{weights, over the } L \text{ places} \\
        c &= \sum_j \alpha_j\, m_j && \text{context}

    with the query :math:`s`, in a decoder its state, and the memory :math:`m_1, \dots, m_L`, in a
    decoder what the encoder made of each token. Query and memory may have any sizes.

    Parameters
    ----------
    query_size, memory_size : int
        Features of the query, Dq, and of each place of the memory, Dm.
    hidden_size : int
        Units A of the small network: A (Dq + Dm + 1) parameters in all.
    bias : bool
        Whether a bias is added inside the tanh (A parameters more). The paper's equation has none.

    Attributes
    ----------
    query, key, score : Linear
        W, U and v.
    softmax : MaskedSoftmax
        A forward hook on it sees the weights (N, L).

    Raises
    ------
    ValueError
        If a size is no integer of at least 1.
    ShapeError
        If what is looked up in what does not fit.

    References
    ----------
    Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and
    Translate" (ICLR 2015), section 3.1 and appendix A.1.2.
    Luong et al. (2015) call this score "concat" and write :math:`v^\top \tanh(W_a [s; m_j])`:
    that :math:`W_a` is W and U side by side.
    """

    def __init__(self, query_size: int, memory_size: int, hidden_size: int, bias: bool = False):
        super().__init__()
        self.query_size = integer("AdditiveAttention", "query_size", query_size, least=1)
        self.memory_size = integer("AdditiveAttention", "memory_size", memory_size, least=1)
        self.hidden_size = integer("AdditiveAttention", "hidden_size", hidden_size, least=1)
        self.query = nn.Linear(query_size, hidden_size, bias)
        self.key = nn.Linear(memory_size, hidden_size, bias=False)
        self.score = nn.Linear(hidden_size, 1, bias=False)
        self.softmax = nn.MaskedSoftmax()

    def forward(
        self, query: Any, memory: Any, mask: Any = None, keys: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Look up a query (N, Dq) in a memory (N, L, Dm).

        Parameters
        ----------
        mask : (N, L) of booleans, optional
            True where it may look.
        keys : (N, L, A), optional
            `keys(memory)`, if it was computed before: in a decoder it is the same at every step.

        Returns
        -------
        Tensor (N, Dm), and Tensor (N, L)
            Context and weights; both 0 where nothing may be looked at.
        """
        query, memory, mask = check_look_up(
            self, query, memory, mask, self.query_size, self.memory_size
        )
        keys = self.keys(memory) if keys is None else keys
        hidden = F.tanh(self.query(query).unsqueeze(1) + keys)  # (N, L, A)
        weights = self.softmax(self.score(hidden).squeeze(2), mask)
        return (weights.unsqueeze(1) @ memory).squeeze(1), weights

    def keys(self, memory: Any) -> Tensor:
        """The share U m of a memory (N, L, Dm) in the scores, whoever asks: (N, L, A)."""
        return self.key(memory)

    def extra_repr(self) -> str:
        return f"{self.query_size}, {self.memory_size}, {self.hidden_size}"
