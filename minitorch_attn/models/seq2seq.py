"""Encoder and decoder: one network reads a sequence, another writes one, token by token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn
from ..engine import ShapeError, Tensor, tensor
from ..engine.tensor import operand

PADDING = 0  # the token that fills a batch up; 1 starts a target, 2 ends it

State = dict[str, Tensor]


class Encoder(nn.Module):
    r"""Read a sequence in both directions: a memory of each of its tokens, and a summary of all.

    .. math::

        m_j = [\overrightarrow{h}_j; \overleftarrow{h}_j], \qquad
        c = [\overrightarrow{h}_L; \overleftarrow{h}_1]

    with :math:`\overrightarrow{h}_j = \mathrm{GRU}(E x_j, \overrightarrow{h}_{j-1})` and
    :math:`\overleftarrow{h}_j = \mathrm{GRU}(E x_j, \overleftarrow{h}_{j+1})`.

    Parameters
    ----------
    num_embeddings : int
        Number of tokens it knows; token 0 is the padding.
    embedding_dim : int
        Features of a token.
    hidden_size : int
        Features of the state of each direction; a memory has D = 2 hidden_size of them.

    Attributes
    ----------
    embedding, rnn : Module
        Its parts.
    memory_size : int
        D.

    References
    ----------
    Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and
    Translate" (ICLR 2015), section 3.2.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, hidden_size: int):
        super().__init__()
        self.embedding = nn.Embedding(num_embeddings, embedding_dim, padding_idx=PADDING)
        self.rnn = nn.GRU(embedding_dim, hidden_size, batch_first=True, bidirectional=True)
        self.memory_size = 2 * hidden_size

    def forward(self, tokens: Any, lengths: Any = None) -> tuple[Tensor, Tensor]:
        """Read tokens (N, L) of some lengths (N,); left out, those up to the padding.

        Returns
        -------
        Tensor (N, L, D), and Tensor (N, D)
            The memory m, zero in the padding, and the summary c.

        Raises
        ------
        ShapeError
            If the tokens are no integers (N, L), or a length is not from 1 to L: a sequence of
            padding alone cannot be read.
        """
        tokens = _tokens("Encoder", "(N, L)", tokens, ndim=2)
        packed = nn.pack_padded_sequence(
            self.embedding(tokens),
            _lengths(tokens, lengths),
            batch_first=True,
            enforce_sorted=False,
        )
        states, (forward, backward) = self.rnn(packed)
        L = tokens.shape[1]
        memory, _ = nn.pad_packed_sequence(states, batch_first=True, total_length=L)
        return memory, F.cat([forward, backward], 1)


class Decoder(nn.Module):
    r"""Write a sequence: each token follows from those before it, and from what was read.

    .. math::

        s_0 &= \tanh(W_0 c) \\
        s_t &= \mathrm{GRU}([E y_{t-1}; c_t], s_{t-1}) \\
        p(y_t) &= \mathrm{softmax}(W_p \tanh(W_r [s_t; c_t; E y_{t-1}]))

    Without an attention the context :math:`c_t` is the summary c at every step. An attention looks
    it up in the memory, for the state before the step, :math:`s_{t-1}`, as in Bahdanau et al.; or
    with ``attend="current"`` for the state after it, :math:`s_t`, as in Luong et al.: then the step
    itself is given the context of the step before (their input feeding).

    Parameters
    ----------
    num_embeddings : int
        Number K of tokens that it writes; 1 starts a sequence, 2 ends it.
    embedding_dim : int
        Features of a token.
    hidden_size : int
        Features of the state s.
    memory_size : int
        Features D of memory and summary, the encoder's `memory_size`.
    attention : callable, optional
        ``attention(query (N, hidden_size), memory (N, L, D), mask=(N, L)) -> context (N, D),
        weights (N, L)``. The mask is true where there is a token. A module is registered, and a
        forward hook on it sees the weights of every step. If it has a method ``keys(memory)``, that
        is called once a source, and each step is given the result as ``keys=``.
    attend : str
        "previous" or "current": which state asks.

    Attributes
    ----------
    embedding, bridge, rnn, readout : Module
        Its parts: E, W_0, the GRU, and W_r and W_p.

    Raises
    ------
    ValueError
        If `attend` is neither.

    References
    ----------
    Without attention: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for
    Statistical Machine Translation" (EMNLP 2014), section 2.2. With it: Bahdanau, Cho and Bengio
    (ICLR 2015), section 3.1; Luong, Pham and Manning, "Effective Approaches to Attention-based
    Neural Machine Translation" (EMNLP 2015), section 3. Their readouts differ a little: a maxout
    over the three parts, or a tanh over two.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        hidden_size: int,
        memory_size: int,
        attention: Callable | None = None,
        attend: str = "previous",
    ):
        super().__init__()
        if attend not in ("previous", "current"):
            raise ValueError(f"Decoder: attend must be 'previous' or 'current', not {attend!r}")
        self.embedding = nn.Embedding(num_embeddings, embedding_dim, padding_idx=PADDING)
        self.bridge = nn.Linear(memory_size, hidden_size)
        self.rnn = nn.GRU(embedding_dim + memory_size, hidden_size, batch_first=True)
        self.readout = nn.Sequential(
            nn.Linear(hidden_size + memory_size + embedding_dim, hidden_size),
            nn.Tanh(),
            nn.Linear(hidden_size, num_embeddings),
        )
        self.attention = attention
        self.attend = attend

    def start(self, memory: Tensor, summary: Tensor, mask: Tensor) -> State:
        """The state before the first token.

        Parameters
        ----------
        memory, summary : Tensor (N, L, D), (N, D)
            What an encoder returned.
        mask : Tensor (N, L) of booleans
            Where the memory is of a token, and not of the padding.

        Returns
        -------
        dict of str to Tensor
            Each with a first axis N.
        """
        state = {"hidden": F.tanh(self.bridge(summary)), "context": summary}
        if self.attention is None:
            return state
        state = {**state, "memory": memory, "mask": mask}
        if hasattr(self.attention, "keys"):
            state["keys"] = self.attention.keys(memory)
        return state

    def forward(self, tokens: Any, state: State) -> tuple[Tensor, State]:
        """Scores for the tokens that follow each of some given ones.

        Parameters
        ----------
        tokens : (N, T) of integers
            What was written so far, in teacher forcing the target without its last token.
        state : dict of str to Tensor
            From `start`, or from a call before: then the tokens go on from there.

        Returns
        -------
        Tensor (N, T, K), and dict
            The logits, and the state after the last token.

        Raises
        ------
        ShapeError
            If the tokens are no integers (N, T), or of another number of sequences than the state.
        """
        tokens = _tokens("Decoder", "(N, T)", tokens, ndim=2)
        if len(tokens) != len(state["hidden"]):
            raise ShapeError(
                f"Decoder: tokens {tokens.shape} are of {len(tokens)} sequences, but the state is "
                f"of {len(state['hidden'])}: each source needs its target"
            )
        x, T = self.embedding(tokens), tokens.shape[1]  # (N, T, E)
        if self.attention is None:  # all steps at once
            contexts = F.stack([state["context"]] * T, 1)
            hidden, last = self._steps(F.cat([x, contexts], 2), state["hidden"])
            state = {**state, "hidden": last}
        else:
            states = []
            for t in range(T):
                state = self._attend_and_step(x[:, t : t + 1], state)
                states.append(state)
            hidden = F.stack([s["hidden"] for s in states], 1)
            contexts = F.stack([s["context"] for s in states], 1)
        return self.readout(F.cat([hidden, contexts, x], 2)), state

    def step(self, tokens: Any, state: State) -> tuple[Tensor, State]:
        """Scores (N, K) for the tokens that follow the last ones (N,), and the state after them."""
        tokens = _tokens("Decoder.step", "(N,)", tokens, ndim=1)
        logits, state = self(tokens.unsqueeze(1), state)
        return logits.squeeze(1), state

    def _attend_and_step(self, x: Tensor, state: State) -> State:
        """The state after one token, whose features are x (N, 1, E)."""
        hidden, context = state["hidden"], state["context"]
        if self.attend == "previous":
            context = self._look(hidden, state)
        _, hidden = self._steps(F.cat([x, context.unsqueeze(1)], 2), hidden)
        if self.attend == "current":
            context = self._look(hidden, state)
        return {**state, "hidden": hidden, "context": context}

    def _look(self, query: Tensor, state: State) -> Tensor:
        assert self.attention is not None
        keys = {"keys": state["keys"]} if "keys" in state else {}
        context, _ = self.attention(query, state["memory"], mask=state["mask"], **keys)
        return context

    def _steps(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        states, last = self.rnn(x, hidden.unsqueeze(0))
        return states, last.squeeze(0)

    def extra_repr(self) -> str:
        return "" if self.attend == "previous" else f"attend={self.attend!r}"


class Seq2Seq(nn.Module):
    """An encoder and a decoder as one model: from a sequence to the scores of another.

    Parameters
    ----------
    encoder : Encoder, or a module like it
        ``encoder(source, source_lengths) -> memory (N, L, D), summary (N, D)``.
    decoder : Decoder
        Made with the encoder's `memory_size`.

    References
    ----------
    Sutskever, Vinyals and Le, "Sequence to Sequence Learning with Neural Networks" (NIPS 2014).
    """

    def __init__(self, encoder: nn.Module, decoder: Decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, source: Any, target_in: Any, source_lengths: Any = None) -> Tensor:
        """Scores of every next token, where the tokens before it are given (teacher forcing).

        Parameters
        ----------
        source : (N, L) of integers
            Padded with 0.
        target_in : (N, T) of integers
            The target from its start, 1, to the token before the last.
        source_lengths : (N,) of integers, optional
            Left out, a source ends where its padding begins.

        Returns
        -------
        Tensor (N, T, K)
            Logits of what follows: to be compared with the target from its second token on.
        """
        logits, _ = self.decoder(target_in, self.start(source, source_lengths))
        return logits

    def start(self, source: Any, source_lengths: Any = None) -> State:
        """Read the source; the state before the first token, tensors with a first axis N."""
        source = _tokens("Seq2Seq", "(N, L)", source, ndim=2)
        lengths = _lengths(source, source_lengths)
        memory, summary = self.encoder(source, lengths)
        mask = tensor(np.arange(source.shape[1]) < lengths[:, None]).to(source.device)
        return self.decoder.start(memory, summary, mask)

    def step(self, tokens: Any, state: State) -> tuple[Tensor, State]:
        """Scores (N, K) for the tokens that follow the last ones (N,), and the state after them."""
        return self.decoder.step(tokens, state)


def _tokens(who: str, shape: str, tokens: Any, ndim: int) -> Tensor:
    tokens = operand(tokens)
    if tokens.ndim != ndim or tokens.dtype.kind not in "iu":
        raise ShapeError(
            f"{who}: needs tokens {shape} of integers, got {tokens.shape} of {tokens.dtype}"
        )
    if 0 in tokens.shape:
        raise ShapeError(f"{who}: tokens {shape} of shape {tokens.shape} hold no token")
    return tokens


def _lengths(tokens: Tensor, lengths: Any) -> np.ndarray:
    """Lengths as an array; left out, up to the last token that is no padding."""
    if lengths is not None:
        return np.asarray(lengths)
    is_token = tokens.numpy() != PADDING
    return np.where(is_token.any(axis=1), is_token.shape[1] - is_token[:, ::-1].argmax(axis=1), 0)
