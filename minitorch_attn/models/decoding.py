"""Let a model write: the likeliest token at every step, or the likeliest sequence of a few.

Both work with every model that has `start` and `step`, as `Seq2Seq` and `Seq2SeqTransformer` do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..engine import Tensor, no_grad
from ..ops.arguments import integer
from .seq2seq import PADDING

START, END = 1, 2  # the tokens that start and end a target


class Beams(NamedTuple):
    """The sequences that a beam search has kept, the best first."""

    tokens: np.ndarray  # (N, B, T) of integers, each row ended by 2 and filled up with 0
    scores: np.ndarray  # (N, B): log-probability over the length's penalty


def greedy_decode(
    model: Any, source: Any, source_lengths: Any = None, max_length: int = 100
) -> np.ndarray:
    r"""Write a sequence for each source, at every step the likeliest token.

    .. math:: \hat y_t = \mathrm{argmax}_k\ p(y_t = k \mid \hat y_1, \dots, \hat y_{t-1}, x)

    Gradients are not tracked. The model's mode is left as it is: call `model.eval()` before if it
    has dropout.

    Parameters
    ----------
    model : object with start and step
        ``start(source, source_lengths) -> state`` and ``step(tokens (N,), state) -> logits (N, K),
        state``.
    source : (N, L) of integers
    source_lengths : (N,) of integers, optional
    max_length : int
        Where to stop writing if the end, token 2, has not come.

    Returns
    -------
    array (N, T) of integers
        T is at most `max_length`; behind the end of a row there is padding, 0.

    Raises
    ------
    ValueError
        If max_length is no integer of at least 1.
    """
    max_length = integer("greedy_decode", "max_length", max_length, least=1)
    with no_grad():
        state = model.start(source, source_lengths)
        tokens = np.full(len(source), START)
        has_ended = np.zeros(len(source), bool)
        written: list[np.ndarray] = []
        while len(written) < max_length and not has_ended.all():
            logits, state = model.step(tokens, state)
            tokens = np.where(has_ended, PADDING, logits.numpy().argmax(axis=1))
            has_ended |= tokens == END
            written.append(tokens)
    return np.stack(written, axis=1) if written else np.zeros((len(source), 0), int)


def beam_search(
    model: Any,
    source: Any,
    source_lengths: Any = None,
    beam_size: int = 4,
    max_length: int = 100,
    length_penalty: float = 0.6,
) -> Beams:
    r"""Write a few sequences for each source, and keep those of the highest score.

    .. math::
        \mathrm{score}(y) = \frac{\log p(y \mid x)}{lp(|y|)}, \qquad
        lp(T) = \left(\frac{5 + T}{6}\right)^{\alpha}

    At every step each of the B sequences kept so far goes on with each of the K tokens, and the B
    best of these B K are kept. A sequence that has ended keeps its score, and its place for as
    long as no better one comes. With one beam this is `greedy_decode`; with beams for every
    sequence there is, it finds the best of all.

    A probability gets smaller with every token, so the logarithm alone, :math:`\alpha = 0`, favours
    short sequences.

    Parameters
    ----------
    model, source, source_lengths, max_length
        As in `greedy_decode`; the state is made of tensors whose first axis is the batch, in any
        nest of dicts, lists and tuples.
    beam_size : int
        B.
    length_penalty : float
        :math:`\alpha`.

    Returns
    -------
    Beams
        Tokens (N, B, T), the best sequences first, and their scores (N, B). Where there are fewer
        than B sequences, the score of the last ones is minus infinity.

    Raises
    ------
    ValueError
        If max_length or beam_size is no integer of at least 1.

    References
    ----------
    Wu et al., "Google's Neural Machine Translation System" (2016), equation 14, for the penalty.
    """
    max_length = integer("beam_search", "max_length", max_length, least=1)
    B = integer("beam_search", "beam_size", beam_size, least=1)
    N = len(source)
    rows = np.arange(N)[:, None]
    tokens = np.zeros((N, B, 0), int)
    last = np.full((N, B), START)
    lengths, has_ended = np.zeros((N, B)), np.zeros((N, B), bool)
    log_p = np.full((N, B), -np.inf)
    log_p[:, 0] = 0  # all beams begin as one
    scores = log_p
    with no_grad():
        state = _rows(model.start(source, source_lengths), np.repeat(np.arange(N), B))
        while tokens.shape[2] < max_length and not has_ended.all():
            logits, state = model.step(last.reshape(N * B), state)
            K = logits.shape[1]
            step_log_p = F.log_softmax(logits, dim=1).numpy().reshape(N, B, K)
            # What has ended goes on in one way, with padding, at no price.
            ended_log_p = np.where(np.arange(K) == PADDING, 0.0, -np.inf)
            step_log_p = np.where(has_ended[..., None], ended_log_p, step_log_p)
            all_log_p = (log_p[..., None] + step_log_p).reshape(N, B * K)
            lengths = lengths + ~has_ended
            all_scores = all_log_p / np.repeat(((5 + lengths) / 6) ** length_penalty, K, axis=1)
            best = np.argsort(-all_scores, axis=1, kind="stable")[:, :B]  # (N, B)
            beam, last = best // K, best % K
            scores, log_p = all_scores[rows, best], all_log_p[rows, best]
            tokens = np.concatenate([tokens[rows, beam], last[..., None]], axis=2)
            lengths = lengths[rows, beam]
            has_ended = has_ended[rows, beam] | (last == END)
            state = _rows(state, (rows * B + beam).reshape(N * B))
    return Beams(tokens, scores)


def _rows(state: Any, index: np.ndarray) -> Any:
    """A state in which the sequences of some rows go on."""
    if isinstance(state, Tensor):
        return state[index]
    if isinstance(state, dict):
        return {name: _rows(part, index) for name, part in state.items()}
    return type(state)([_rows(part, index) for part in state])
