from __future__ import annotations

import functools
import math
import operator
from typing import Any

from .. import functional as F
from ..engine import DTypeError, ShapeError, Tensor, as_tensor, ones, ones_like, zeros, zeros_like
from ..engine.dtypes import is_floating
from . import init
from .linear import Linear
from .masked_softmax import MaskedSoftmax
from .module import Module
from .parameter import Parameter
from .representation import settings


class MultiheadAttention(Module):
    r"""Softmax attention in E heads, each with queries, keys and values of its own.

    .. math::
        \mathrm{head}_e &= \mathrm{softmax}\!\left(
            \frac{(q W_q^e)(k W_k^e)^\top}{\sqrt{D / E}} + b\right) v W_v^e \\
        y &= [\mathrm{head}_1; \dots; \mathrm{head}_E]\, W_o^\top + b_o

    with a bias in each of the projections, and b the mask. Self-attention is the case of three
    equal inputs, `attention(x, x, x)`; in cross-attention keys and values come from elsewhere.

    Arguments, parameters and conventions are PyTorch's. **In the masks of this module True means
    "must not be looked at"**, the opposite of `F.scaled_dot_product_attention`.

    Where the weights are asked for they are computed as one matrix a head; else
    `F.scaled_dot_product_attention` computes the same without holding them. A forward hook on
    `softmax` is shown the weights (N, E, L, S) of every call, whether they are asked for or not.

    Parameters
    ----------
    embed_dim : int
        Features D of the queries and of the output.
    num_heads : int
        Number of heads E, a divisor of D.
    dropout : float
        Probability by which a weight is set to 0 in training; the weights that are returned are
        those after it.
    bias : bool
        Whether the projections have biases.
    add_bias_kv : bool
        Whether one more key and value are learned, which belong to no token.
    add_zero_attn : bool
        Whether one more key and value are there that are zero.
    kdim, vdim : int, optional
        Features of keys and of values, where they are not D.
    batch_first : bool
        Whether inputs and output are (N, L, D) rather than (L, N, D).

    Attributes
    ----------
    in_proj_weight : Parameter (3 D, D)
        Weights of queries, keys and values, one below the other, at first xavier-uniform as a
        whole. With `kdim` or `vdim` there are `q_proj_weight`, `k_proj_weight` and
        `v_proj_weight` instead.
    in_proj_bias : Parameter (3 D,) or None
        At first 0, as is that of `out_proj`.
    bias_k, bias_v : Parameter (1, 1, D) or None
        The key and value that `add_bias_kv` adds.
    softmax : MaskedSoftmax
        Makes the weights of the scores.
    out_proj : Linear
        The last map.

    Raises
    ------
    ValueError
        If the heads do not divide the features.

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
    ):
        super().__init__()
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ValueError(
                f"MultiheadAttention: {embed_dim} features cannot be shared out evenly among "
                f"{num_heads} heads: num_heads must be a divisor of embed_dim"
            )
        if not 0 <= dropout <= 1:
            raise ValueError(
                f"MultiheadAttention: dropout is a probability, from 0 to 1, not {dropout}"
            )
        self.embed_dim = D = embed_dim
        self.kdim = D if kdim is None else kdim
        self.vdim = D if vdim is None else vdim
        self.num_heads = num_heads
        self.head_dim = D // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        self.q_proj_weight = self.k_proj_weight = self.v_proj_weight = self.in_proj_weight = None
        if self.kdim == self.vdim == D:
            self.in_proj_weight = Parameter(zeros(3 * D, D))
        else:
            self.q_proj_weight = Parameter(zeros(D, D))
            self.k_proj_weight = Parameter(zeros(D, self.kdim))
            self.v_proj_weight = Parameter(zeros(D, self.vdim))
        self.in_proj_bias = Parameter(zeros(3 * D)) if bias else None
        self.bias_k = Parameter(zeros(1, 1, D)) if add_bias_kv else None
        self.bias_v = Parameter(zeros(1, 1, D)) if add_bias_kv else None
        self.softmax = MaskedSoftmax()
        self.out_proj = Linear(D, D, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first values anew."""
        self.out_proj.reset_parameters()
        for name, p in self._own_parameters().items():
            if name.endswith("weight"):
                init.xavier_uniform_(p)
            elif name == "in_proj_bias":
                init.zeros_(p)
            else:
                init.xavier_normal_(p)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from L queries to S keys.

        The shapes below are those of ``batch_first=True``; without it, inputs and output have the
        axes N and L (or S) the other way round. A single sequence may come without the axis N.

        Parameters
        ----------
        query : (N, L, D)
        key : (N, S, Dk)
        value : (N, S, Dv)
        key_padding_mask : (N, S), optional
            Booleans: True where a key is only padding. Or floats that are added to the scores.
        need_weights : bool
            Whether the weights are returned.
        attn_mask : (L, S) or (N * E, L, S), optional
            Booleans: True where query i must not look at key j. Or floats that are added.
        average_attn_weights : bool
            Whether the weights returned are the mean over the heads.
        is_causal : bool
            Without `attn_mask`: query i looks at the keys up to i alone (where PyTorch raises an
            error). With it, nothing: the mask counts.

        Returns
        -------
        output : (N, L, D)
        weights : (N, L, S) or (N, E, L, S), or None
            Rows add up to 1 (without dropout), or to 0 where nothing may be looked at.

        Raises
        ------
        ShapeError
            If inputs or masks do not fit.
        DTypeError
            If a mask holds integers.
        """
        query, key, value = as_tensor(query), as_tensor(key), as_tensor(value)
        is_batched = self._check_inputs(query, key, value)
        q, k, v = self._project(query, key, value)
        N, E, L, _ = q.shape
        causal = is_causal and attn_mask is None
        if causal and (key_padding_mask is not None or self._extra_keys):
            attn_mask, causal = ~_causal(q, k), False
        mask = self._merge(attn_mask, key_padding_mask, (N, E, L, k.shape[2]), q.dtype)
        k, v, mask = self._with_extra_keys(k, v, mask)
        y, weights = self.attend(q, k, v, mask, is_causal=causal, need_weights=need_weights)
        if not is_batched:
            y = y[0]
        elif not self.batch_first:
            y = y.transpose(0, 1)
        if weights is None:
            return y, None
        weights = weights.mean(dim=1) if average_attn_weights else weights
        return y, weights if is_batched else weights[0]

    # -- its steps, which decoding with a cache takes one by one ------------------------------

    def queries(self, x: Any) -> Tensor:
        """Queries of all heads, (N, L, D) -> (N, E, L, D / E)."""
        return self._heads(x, 0)

    def keys(self, x: Any) -> Tensor:
        """Keys of all heads, (N, S, Dk) -> (N, E, S, D / E)."""
        return self._heads(x, 1)

    def values(self, x: Any) -> Tensor:
        """Values of all heads, (N, S, Dv) -> (N, E, S, D / E)."""
        return self._heads(x, 2)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Any = None,
        *,
        is_causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Weigh the values of each head, and map the heads side by side to the output.

        Parameters
        ----------
        q : (N, E, L, D / E)
        k, v : (N, E, S, D / E)
        mask : broadcasts to (N, E, L, S), optional
            As in `F.scaled_dot_product_attention`: True where a key may be looked at, or floats.
        is_causal : bool
            Instead of a mask: keys up to the query's own place.
        need_weights : bool
            Whether the weights are returned.

        Returns
        -------
        output : (N, L, D)
        weights : (N, E, L, S) or None
        """
        dropout = self.dropout if self.training else 0.0
        if need_weights or self.softmax.is_watched:
            if is_causal:
                mask = _causal(q, k)
            scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(self.head_dim))
            weights = F.dropout(self.softmax(scores, mask), dropout)
            y = weights @ v
        else:
            weights = None
            y = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal)
        N, _, L, _ = q.shape
        y = self.out_proj(y.transpose(1, 2).reshape(N, L, self.embed_dim))
        return y, weights if need_weights else None

    # -- what forward is made of --------------------------------------------------------------

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all heads, whatever the layout of the inputs."""
        query, key, value = (self._batch_in_front(x) for x in (query, key, value))
        return self.queries(query), self.keys(key), self.values(value)

    def _batch_in_front(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _heads(self, x: Any, part: int) -> Tensor:
        """Map x by the parameters of queries (0), keys (1) or values (2)."""
        third = slice(part * self.embed_dim, (part + 1) * self.embed_dim)
        if self.in_proj_weight is not None:
            weight: Any = self.in_proj_weight[third]
        else:
            weight = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)[part]
        bias = None if self.in_proj_bias is None else self.in_proj_bias[third]
        return self._split(F.linear(x, weight, bias))

    def _split(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, E, L, D / E): a head has D / E features that lie side by side."""
        N, L, _ = x.shape
        return x.reshape(N, L, self.num_heads, self.head_dim).transpose(1, 2)

    def _merge(
        self, attn_mask: Any, key_padding_mask: Any, shape: tuple[int, ...], dtype: Any
    ) -> Tensor | None:
        """Both masks as one: True where a key may be looked at, or floats to add to the scores."""
        N, E, L, S = shape
        masks = []
        if attn_mask is not None:
            mask = _checked("attn_mask", attn_mask, (L, S), (N * E, L, S))
            masks.append(mask.reshape(N, E, L, S) if mask.ndim == 3 else mask)
        if key_padding_mask is not None:
            alone = [(S,)] if N == 1 else []
            mask = _checked("key_padding_mask", key_padding_mask, (N, S), *alone)
            masks.append(mask.reshape(N, 1, 1, S))
        if not masks:
            return None
        if all(mask.dtype == bool for mask in masks):
            return ~functools.reduce(operator.or_, masks)
        return functools.reduce(operator.add, (_to_add(mask, dtype) for mask in masks))

    @property
    def _extra_keys(self) -> int:
        """How many keys belong to no token."""
        return (self.bias_k is not None) + self.add_zero_attn

    def _with_extra_keys(
        self, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values with those that belong to no token, which every query may look at."""
        if not self._extra_keys:
            return k, v, mask
        if self.bias_k is not None and self.bias_v is not None:
            one = (*k.shape[:2], 1, self.head_dim)
            k = F.cat([k, self._split(self.bias_k).expand(one)], dim=2)
            v = F.cat([v, self._split(self.bias_v).expand(one)], dim=2)
        if self.add_zero_attn:
            k, v = (F.cat([x, zeros_like(x[:, :, :1])], dim=2) for x in (k, v))
        if mask is not None:
            allowed = (ones_like if mask.dtype == bool else zeros_like)(mask[..., :1])
            mask = F.cat([mask, *[allowed] * self._extra_keys], dim=-1)
        return k, v, mask

    def _check_inputs(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Whether there is an axis N; a ShapeError where the inputs do not fit."""
        shapes = [tuple(x.shape) for x in (query, key, value)]
        axes = {len(shape) for shape in shapes}
        batch = 0 if self.batch_first else 1
        fits = (
            len(axes) == 1
            and axes <= {2, 3}
            and [shape[-1] for shape in shapes] == [self.embed_dim, self.kdim, self.vdim]
            and shapes[1][:-1] == shapes[2][:-1]
            and (axes == {2} or shapes[0][batch] == shapes[1][batch])
        )
        if not fits:
            L, S = ("N, L", "N, S") if self.batch_first else ("L, N", "S, N")
            raise ShapeError(
                f"MultiheadAttention: with batch_first={self.batch_first} needs query "
                f"({L}, {self.embed_dim}), key ({S}, {self.kdim}) and value ({S}, {self.vdim}), "
                f"or all three without N; got {shapes[0]}, {shapes[1]} and {shapes[2]}"
            )
        return axes == {3}

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}" + settings(
            dropout=(self.dropout, 0.0),
            bias=(self.in_proj_bias is not None, True),
            add_bias_kv=(self.bias_k is not None, False),
            add_zero_attn=(self.add_zero_attn, False),
            kdim=(self.kdim, self.embed_dim),
            vdim=(self.vdim, self.embed_dim),
            batch_first=(self.batch_first, False),
        )


def _causal(q: Tensor, k: Tensor) -> Tensor:
    """True where query i may look at key j, j <= i: (L, S)."""
    return F.tril(ones(q.shape[2], k.shape[2], dtype=bool)).to(q.device)


def _checked(name: str, mask: Any, *shapes: tuple[int, ...]) -> Tensor:
    mask = as_tensor(mask)
    if mask.shape not in shapes:
        raise ShapeError(
            f"MultiheadAttention: {name} needs shape {' or '.join(map(str, shapes))}, "
            f"not {mask.shape}"
        )
    if mask.dtype != bool and not is_floating(mask.dtype):
        raise DTypeError(
            f"MultiheadAttention: {name} holds booleans (True: must not be looked at) or floats "
            f"(added to the scores), not {mask.dtype}: write {name} != 0"
        )
    return mask


def _to_add(mask: Tensor, dtype: Any) -> Tensor:
    """A mask as numbers to add: minus infinity where a mask of booleans is True."""
    if mask.dtype == bool:
        return F.masked_fill(zeros_like(mask).to(dtype), mask, -math.inf)
    return mask.to(dtype)
