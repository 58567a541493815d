from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from .. import functional as F
from ..engine import ShapeError, Tensor, full
from . import init
from .containers import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .multihead_attention import MultiheadAttention
from .normalization import LayerNorm

Activation = str | Callable[[Tensor], Tensor]
Sublayer = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class _Layer(Module):
    """What encoder and decoder layers share: residual sub-layers, one of them a small network."""

    linear1: Linear
    linear2: Linear
    dropout: Dropout
    activation: Callable[[Tensor], Tensor]
    norm_first: bool

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))

    def _add(self, x: Tensor, sublayer: Sublayer, norm: Module, dropout: Module) -> Tensor:
        """A residual step, with the norm in front of the sub-layer or behind the sum."""
        if self.norm_first:
            return x + dropout(sublayer(norm(x)))
        return norm(x + dropout(sublayer(x)))

    def extra_repr(self) -> str:
        return "norm_first=True" if self.norm_first else ""


class TransformerEncoderLayer(_Layer):
    r"""Self-attention, then a network of two linear layers for each token; both residual.

    .. math::
        \text{post-norm:} \quad x &\leftarrow LN(x + f(x)) \\
        \text{pre-norm:}  \quad x &\leftarrow x + f(LN(x))

    for f the self-attention, and again for f the feed-forward network
    :math:`f(x) = W_2\, relu(W_1 x + b_1) + b_2`. The paper is post-norm, which is the default.

    Arguments and names are PyTorch's. A hook on `self_attn.softmax` is shown the weights.

    Parameters
    ----------
    d_model : int
        Features D of a token.
    nhead : int
        Heads E.
    dim_feedforward : int
        Width of the hidden layer.
    dropout : float
        Probability of a zero among the weights, in the hidden layer and behind each sub-layer.
    activation : "relu", "gelu" or callable
        Between the two linear layers.
    layer_norm_eps : float
        eps of the layer norms.
    batch_first : bool
        Whether tokens are (N, L, D) rather than (L, N, D).
    norm_first : bool
        Whether it is pre-norm.
    bias : bool
        Whether linear layers and norms have biases.

    Attributes
    ----------
    self_attn, linear1, dropout, linear2, norm1, norm2, dropout1, dropout2 : Module
        Its parts.

    Raises
    ------
    ValueError
        If the heads do not divide the features, or the activation is unknown.

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), section 3.1;
    Xiong et al., "On Layer Normalization in the Transformer Architecture" (2020), figure 1.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
        self.linear1 = Linear(d_model, dim_feedforward, bias)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _activation(self, activation)

    def forward(
        self,
        src: Tensor,
        src_mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Tokens (N, L, D), which have looked at one another; masks as in `MultiheadAttention`."""

        def attention(x: Tensor) -> Tensor:
            return self.self_attn(
                x,
                x,
                x,
                key_padding_mask=src_key_padding_mask,
                need_weights=False,
                attn_mask=src_mask,
                is_causal=is_causal,
            )[0]

        x = self._add(src, attention, self.norm1, self.dropout1)
        return self._add(x, self._feed_forward, self.norm2, self.dropout2)


class TransformerDecoderLayer(_Layer):
    r"""Masked self-attention, then attention to the encoder's memory, then a network a token.

    Three residual sub-layers f, post-norm or pre-norm as in `TransformerEncoderLayer`, which
    tells of the arguments. In the second, queries come from the decoder, keys and values from the
    memory. A hook on `multihead_attn.softmax` is shown its weights: the alignment.

    Attributes
    ----------
    self_attn, multihead_attn, linear1, dropout, linear2 : Module
        Its parts.
    norm1, norm2, norm3, dropout1, dropout2, dropout3 : Module
        Norm and dropout of each sub-layer.

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), section 3.1.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        self.self_attn, self.multihead_attn = (
            MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
            for _ in range(2)
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _activation(self, activation)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Tokens tgt (N, L, D), which have looked at one another and at the memory (N, S, D).

        Masks are those of `MultiheadAttention`: True hides. `tgt_is_causal=True` alone makes each
        token look at itself and those before it.
        """

        def self_attention(x: Tensor) -> Tensor:
            return self.self_attn(
                x,
                x,
                x,
                key_padding_mask=tgt_key_padding_mask,
                need_weights=False,
                attn_mask=tgt_mask,
                is_causal=tgt_is_causal,
            )[0]

        def cross_attention(x: Tensor) -> Tensor:
            return self.multihead_attn(
                x,
                memory,
                memory,
                key_padding_mask=memory_key_padding_mask,
                need_weights=False,
                attn_mask=memory_mask,
                is_causal=memory_is_causal,
            )[0]

        return self._compose(tgt, self_attention, cross_attention)

    def _compose(self, x: Tensor, self_attention: Sublayer, cross_attention: Sublayer) -> Tensor:
        x = self._add(x, self_attention, self.norm1, self.dropout1)
        x = self._add(x, cross_attention, self.norm2, self.dropout2)
        return self._add(x, self._feed_forward, self.norm3, self.dropout3)

    # -- token by token ---------------------------------------------------------------------

    def start(self, memory: Tensor) -> dict[str, Tensor]:
        """A cache for decoding token by token: the memory's keys and values, and none yet else.

        Parameters
        ----------
        memory : (N, S, D)
            Whatever `batch_first` is.

        Returns
        -------
        dict
            "keys" and "values" (N, E, 0, D / E) of the tokens so far; "memory_keys" and
            "memory_values" (N, E, S, D / E).
        """
        nothing = memory[:, :0]
        return {
            "keys": self.self_attn.keys(nothing),
            "values": self.self_attn.values(nothing),
            "memory_keys": self.multihead_attn.keys(memory),
            "memory_values": self.multihead_attn.values(memory),
        }

    def step(
        self, x: Tensor, cache: dict[str, Tensor], memory_mask: Any = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One more token, for which no key or value of an earlier one is computed again.

        Parameters
        ----------
        x : (N, 1, D)
            The token.
        cache : dict
            From `start`, or from the step before.
        memory_mask : (N, 1, 1, S), optional
            True where the memory may be looked at.

        Returns
        -------
        y : (N, 1, D)
            What `forward` gives for the last token, with a causal mask.
        cache : dict
            With the token's key and value behind the others.
        """
        cache = dict(cache)

        def self_attention(x: Tensor) -> Tensor:
            cache["keys"] = F.cat([cache["keys"], self.self_attn.keys(x)], dim=2)
            cache["values"] = F.cat([cache["values"], self.self_attn.values(x)], dim=2)
            q = self.self_attn.queries(x)
            return self.self_attn.attend(q, cache["keys"], cache["values"])[0]

        def cross_attention(x: Tensor) -> Tensor:
            q = self.multihead_attn.queries(x)
            keys, values = cache["memory_keys"], cache["memory_values"]
            return self.multihead_attn.attend(q, keys, values, memory_mask)[0]

        return self._compose(x, self_attention, cross_attention), cache


class TransformerEncoder(Module):
    """A stack of encoder layers, and a norm behind the last where one is given.

    Parameters
    ----------
    encoder_layer : TransformerEncoderLayer
        Copied for each layer, first values and all.
    num_layers : int
        How many.
    norm : Module, optional
        Behind the last layer: a pre-norm stack needs one.
    enable_nested_tensor, mask_check : bool
        Taken for PyTorch's sake, and without effect.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ):
        super().__init__()
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        src: Tensor,
        mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """Tokens (N, L, D) through all layers; see `TransformerEncoderLayer`."""
        x = src
        for layer in self.layers:
            x = layer(x, mask, src_key_padding_mask, bool(is_causal))
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(Module):
    """A stack of decoder layers, and a norm behind the last where one is given.

    Parameters
    ----------
    decoder_layer : TransformerDecoderLayer
        Copied for each layer, first values and all.
    num_layers : int
        How many.
    norm : Module, optional
        Behind the last layer: a pre-norm stack needs one.
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None):
        super().__init__()
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Tokens (N, L, D) and memory (N, S, D) through all layers: `TransformerDecoderLayer`."""
        x = tgt
        for layer in self.layers:
            x = layer(
                x,
                memory,
                tgt_mask,
                memory_mask,
                tgt_key_padding_mask,
                memory_key_padding_mask,
                bool(tgt_is_causal),
                memory_is_causal,
            )
        return x if self.norm is None else self.norm(x)


class Transformer(Module):
    """An encoder and a decoder, of tokens that are already vectors.

    Arguments, defaults and names are PyTorch's. As there, both stacks end in a norm of their own,
    also post-norm ones, where the paper has none. For a network of words, with embeddings, places
    and an output layer, see `models.Seq2SeqTransformer`.

    Parameters
    ----------
    d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, \
bias
        Those of `TransformerEncoderLayer`.
    num_encoder_layers, num_decoder_layers : int
        Layers of each stack.
    custom_encoder, custom_decoder : Module, optional
        Instead of the usual stacks.

    Attributes
    ----------
    encoder, decoder : Module
        The two stacks; their matrices are at first xavier-uniform.

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), figure 1.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        layer: tuple[Any, ...] = (d_model, nhead, dim_feedforward, dropout, activation)
        layer += (layer_norm_eps, batch_first, norm_first, bias)

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias)

        self.encoder: Module = custom_encoder or TransformerEncoder(
            TransformerEncoderLayer(*layer), num_encoder_layers, norm()
        )
        self.decoder: Module = custom_decoder or TransformerDecoder(
            TransformerDecoderLayer(*layer), num_decoder_layers, norm()
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices anew, so that no two layers are alike."""
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Decoded tokens (N, L, D) of source tokens src (N, S, D) and target tokens tgt (N, L, D).

        Masks are those of `MultiheadAttention`: True hides. Without any, every target token sees
        all others: pass `tgt_is_causal=True`, or the mask of `generate_square_subsequent_mask`.

        Raises
        ------
        ShapeError
            If source and target do not fit.
        """
        batch = 0 if self.batch_first else 1
        if src.ndim == tgt.ndim == 3 and src.shape[batch] != tgt.shape[batch]:
            raise ShapeError(
                f"Transformer: src {src.shape} and tgt {tgt.shape} need the same N, which with "
                f"batch_first={self.batch_first} is axis {batch}"
            )
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        return self.decoder(
            tgt,
            memory,
            tgt_mask,
            memory_mask,
            tgt_key_padding_mask,
            memory_key_padding_mask,
            tgt_is_causal,
            memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(sz: int, dtype: Any = None) -> Tensor:
        """The causal mask (sz, sz): 0, and minus infinity above the diagonal, to add to scores."""
        return F.triu(full((sz, sz), -float("inf"), dtype=dtype), diagonal=1)


def _copies(layer: Module, count: int) -> ModuleList:
    return ModuleList(copy.deepcopy(layer) for _ in range(count))


def _activation(layer: Module, activation: Activation) -> Callable[[Tensor], Tensor]:
    if not isinstance(activation, str):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{type(layer).__name__}: activation must be {' or '.join(ACTIVATIONS)}, or a function "
            f"of tensors, not {activation!r}"
        )
    return ACTIVATIONS[activation]
