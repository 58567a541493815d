"""Scaled dot-product attention: a soft look-up of values by how well their keys fit a query."""

from __future__ import annotations

import math
from typing import Any

from .. import functional as F
from .. import nn
from ..engine import ShapeError, Tensor, as_tensor, ones


class ScaledDotProductAttention(nn.Module):
    r"""Means of the values, weighted by the softmax of how well their keys fit the queries.

    .. math::
        s = \frac{q k^\top}{\sqrt{D}} + b, \qquad p = \mathrm{softmax}(s), \qquad y = p\, v

    The softmax is over the keys, so each query's weights p add up to 1. If the entries of q and k
    are independent with mean 0 and variance 1, :math:`q \cdot k` has variance D: the division
    keeps the scores' variance at 1, and the softmax out of saturation.

    This is the plain form, which holds all L x S weights, so that a forward hook on `softmax` is
    shown them. `F.scaled_dot_product_attention` computes the same without holding them.

    Parameters
    ----------
    scale : float, optional
        What the scores are multiplied by instead of 1 / sqrt(D).
    dropout : float
        Probability by which a weight is set to 0 in training.

    Attributes
    ----------
    softmax : MaskedSoftmax
        Its output are the weights (..., L, S).
    dropout : Dropout
        Applied to the weights.

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), equation 1. Dropout of the weights is not
    in the paper but in its code (tensor2tensor).
    """

    def __init__(self, scale: float | None = None, dropout: float = 0.0):
        super().__init__()
        self.scale = scale
        self.softmax = nn.MaskedSoftmax()
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Attend from L queries to S keys.

        Parameters
        ----------
        query : (..., L, D)
        key : (..., S, D)
        value : (..., S, Dv)
        attn_mask : broadcasts to (..., L, S), optional
            Booleans: True where a query may look at a key. Floats: b.
        is_causal : bool
            Query i looks at the keys up to i alone.

        Returns
        -------
        (..., L, Dv)
            0 for a query that may look at nothing.

        Raises
        ------
        ShapeError
            If the sizes do not fit.
        ValueError
            If there are two masks.
        """
        query, key, value = as_tensor(query), as_tensor(key), as_tensor(value)
        _check(query.shape, key.shape, value.shape)
        if is_causal:
            if attn_mask is not None:
                raise ValueError(
                    "ScaledDotProductAttention: is_causal=True is a mask of its own: give either "
                    "it or attn_mask"
                )
            shape = query.shape[-2], key.shape[-2]
            attn_mask = F.tril(ones(*shape, dtype=bool)).to(query.device)
        scale = 1 / math.sqrt(query.shape[-1]) if self.scale is None else self.scale
        scores = scale * (query @ key.transpose(-2, -1))
        return self.dropout(self.softmax(scores, attn_mask)) @ value

    def extra_repr(self) -> str:
        return "" if self.scale is None else f"scale={self.scale:g}"


def _check(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...]) -> None:
    if min(map(len, (query, key, value))) < 2 or query[-1] != key[-1] or key[-2] != value[-2]:
        raise ShapeError(
            "ScaledDotProductAttention: needs query (..., L, D), key (..., S, D) and value "
            f"(..., S, Dv), with one D and one S; got {query}, {key} and {value}"
        )
