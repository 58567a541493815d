"""The Transformer as a network from words to words: embeddings, places, stacks, output layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn
from ..engine import ShapeError, Tensor, as_tensor

POSITIONS = {"sinusoidal": nn.SinusoidalEncoding, "learned": nn.LearnedEncoding}

State = dict[str, Any]


class Seq2SeqTransformer(nn.Module):
    r"""Scores of each next target token, from a source sequence and the target tokens before it.

    With embeddings E of source and target tokens, and encodings p of their places,

    .. math::
        m = \mathrm{encoder}(\sqrt{D}\, E_x[source] + p), \quad
        h = \mathrm{decoder}(\sqrt{D}\, E_y[target] + p,\, m), \quad
        z = W h + b.

    Self-attention in the decoder is causal. Padding of the source is never looked at; that of the
    target stands behind the tokens that count, and no token looks ahead: leave it out of the loss
    with ``ignore_index``.

    As in the paper, a post-norm stack has no further norm behind it; a pre-norm stack needs one.
    (`nn.Transformer`, as PyTorch's, always has one.) A hook on
    ``decoder.layers[i].multihead_attn.softmax`` is shown the alignment (N, E, L, S).

    Parameters
    ----------
    source_tokens, target_tokens : int
        Sizes of the two vocabularies.
    d_model, nhead, num_encoder_layers, num_decoder_layers, dim_feedforward, activation
        See `nn.Transformer`.
    dropout : float
        As there, and on the sum of embedding and place.
    norm_first : bool
        Pre-norm rather than the paper's post-norm.
    positions : "sinusoidal", "learned" or None
        How places are told; without, the encoder cannot know the order of its tokens.
    max_len : int
        Longest sequence.
    share_embeddings : bool
        Whether one matrix serves as both embeddings and as W, then without b: section 3.4 of the
        paper. The vocabularies must be one, then.
    padding_idx : int
        Token that fills up sequences.

    Attributes
    ----------
    source_embedding, target_embedding, positions, dropout, encoder, decoder, generator : Module
        Its parts; `positions` may be None, and so is `generator` where embeddings are shared.

    Raises
    ------
    ValueError
        If `positions` is unknown, or embeddings of two vocabularies are to be shared.

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017).
    """

    def __init__(
        self,
        source_tokens: int,
        target_tokens: int,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        norm_first: bool = False,
        positions: str | None = "sinusoidal",
        max_len: int = 512,
        share_embeddings: bool = False,
        padding_idx: int = 0,
    ):
        super().__init__()
        if share_embeddings and source_tokens != target_tokens:
            raise ValueError(
                f"Seq2SeqTransformer: embeddings of {source_tokens} source and {target_tokens} "
                "target tokens cannot be shared: that takes one vocabulary"
            )
        if positions is not None and positions not in POSITIONS:
            raise ValueError(
                f"Seq2SeqTransformer: positions must be {', '.join(POSITIONS)} or None, "
                f"not {positions!r}"
            )
        self.d_model, self.padding_idx = d_model, padding_idx
        self.source_embedding = nn.Embedding(source_tokens, d_model)
        self.target_embedding = (
            self.source_embedding if share_embeddings else nn.Embedding(target_tokens, d_model)
        )
        self.positions = None if positions is None else POSITIONS[positions](d_model, max_len)
        self.dropout = nn.Dropout(dropout)
        layer: dict[str, Any] = {
            "dim_feedforward": dim_feedforward,
            "dropout": dropout,
            "activation": activation,
            "batch_first": True,
            "norm_first": norm_first,
        }
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(d_model, nhead, **layer),
            num_encoder_layers,
            nn.LayerNorm(d_model) if norm_first else None,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(d_model, nhead, **layer),
            num_decoder_layers,
            nn.LayerNorm(d_model) if norm_first else None,
        )
        self.generator = None if share_embeddings else nn.Linear(d_model, target_tokens)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices anew: xavier-uniform, and embeddings that sqrt(D) brings to size 1."""
        for p in self.parameters():
            if p.ndim > 1:
                nn.init.xavier_uniform_(p)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=self.d_model**-0.5)

    def forward(self, source: Any, target: Any, source_lengths: Any = None) -> Tensor:
        """Scores (N, T, K) of what follows each target token.

        Parameters
        ----------
        source : integers (N, L)
        target : integers (N, T)
            What goes into the decoder: the start token, then all but the last.
        source_lengths : integers (N,), optional
            Tokens of each source; without, all that are not padding.

        Raises
        ------
        ShapeError
            If source and target are not two batches of one size.
        """
        source, target = as_tensor(source), as_tensor(target)
        if source.ndim != 2 or target.ndim != 2 or len(source) != len(target):
            raise ShapeError(
                "Seq2SeqTransformer: needs a source (N, L) and a target (N, T), got "
                f"{source.shape} and {target.shape}"
            )
        memory, hidden = self.encode(source, source_lengths)
        y = self.decoder(
            self._embed(self.target_embedding, target),
            memory,
            memory_key_padding_mask=hidden,
            tgt_is_causal=True,
        )
        return self._scores(y)

    def encode(self, source: Any, source_lengths: Any = None) -> tuple[Tensor, Tensor]:
        """Memory (N, L, D) of a source (N, L), and where it is padding (N, L).

        Raises
        ------
        ShapeError
            If the source is no batch, or there is not one length for each of it.
        """
        source = as_tensor(source)
        if source.ndim != 2:
            raise ShapeError(f"Seq2SeqTransformer: needs a source (N, L), not {source.shape}")
        hidden = _padding(source, source_lengths, self.padding_idx)
        x = self._embed(self.source_embedding, source)
        return self.encoder(x, src_key_padding_mask=hidden), hidden

    # -- token by token ---------------------------------------------------------------------

    def start(self, source: Any, source_lengths: Any = None) -> State:
        """Read a source; what `step` needs of it.

        Returns
        -------
        dict
            "looked_at" (N, 1, 1, L) booleans, "layers" a list of the caches of the decoder's
            layers (see `nn.TransformerDecoderLayer.start`): all with the batch in front, so that
            a search may keep, drop and repeat sequences.
        """
        memory, hidden = self.encode(source, source_lengths)
        N, L = hidden.shape
        return {
            "looked_at": ~hidden.reshape(N, 1, 1, L),
            "layers": [layer.start(memory) for layer in self._decoder_layers],
        }

    def step(self, tokens: Any, state: State) -> tuple[Tensor, State]:
        """Scores (N, K) of what follows one more target token (N,), and the state after it.

        Keys and values of earlier tokens come from the state: the work of a step grows with the
        number of tokens so far, where running the prefix again would take its square. The scores
        are those of `forward`.

        Raises
        ------
        ShapeError
            If there is not one token for each sequence of the state.
        """
        tokens, N = as_tensor(tokens), len(state["looked_at"])
        if tokens.shape != (N,):
            raise ShapeError(
                f"Seq2SeqTransformer: a step takes one token for each of the {N} sequences, shape "
                f"({N},), not {tokens.shape}"
            )
        place = state["layers"][0]["keys"].shape[2]
        x = self._embed(self.target_embedding, tokens.unsqueeze(1), place)
        caches = []
        for layer, cache in zip(self._decoder_layers, state["layers"], strict=True):
            x, cache = layer.step(x, cache, state["looked_at"])
            caches.append(cache)
        if self.decoder.norm is not None:
            x = self.decoder.norm(x)
        return self._scores(x)[:, 0], {**state, "layers": caches}

    @property
    def _decoder_layers(self) -> Sequence[Any]:
        return list(self.decoder.layers)

    def _embed(self, embedding: nn.Embedding, tokens: Tensor, start: int = 0) -> Tensor:
        x = math.sqrt(self.d_model) * embedding(tokens)
        if self.positions is not None:
            x = self.positions(x, start)
        return self.dropout(x)

    def _scores(self, y: Tensor) -> Tensor:
        if self.generator is None:
            return F.linear(y, self.target_embedding.weight)
        return self.generator(y)


def _padding(source: Tensor, lengths: Any, padding_idx: int) -> Tensor:
    """Where a batch of sequences (N, L) is only padding."""
    if lengths is None:
        return source == padding_idx
    N, L = source.shape
    lengths = as_tensor(lengths).to(source.device)
    if lengths.shape != (N,):
        raise ShapeError(
            f"Seq2SeqTransformer: {N} sources need as many lengths, shape ({N},), "
            f"not {lengths.shape}"
        )
    return as_tensor(np.arange(L)).to(source.device) >= lengths.unsqueeze(1)
