# %% [markdown]
# # Exercises 10: additive and multiplicative attention
#
# From the masked softmax to a module, and from there to decoding and judging. The letters are those of
# [lesson 10](../notebooks/10_additive_and_multiplicative_attention.ipynb): `s` queries (N, Dq), `m` a memory
# (N, L, D), `e` scores and `alpha` weights (N, L), `c` contexts (N, D).
#
# Run a cell, then its check. `hint("10.masked_softmax")` gives one hint at a time, and after a try
# `solution("10.masked_softmax")` shows a way to do it.

# %%
import math
from collections import Counter

import numpy as np

from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. Weights from scores
#
# The softmax over the places that may be looked at. `mask` (N, L) is true there, and true at least once in
# every row:
#
# $$\alpha_j = \frac{\mu_j\, e^{e_j}}{\sum_k \mu_k\, e^{e_k}}, \qquad
# de_j = \alpha_j \Bigl(d\alpha_j - \sum_k \alpha_k\, d\alpha_k\Bigr)$$
#
# For example, scores `[[0, 0, 9]]` with the mask `[[True, True, False]]` give `[[0.5, 0.5, 0]]`. Write it in
# primitive form, `return alpha, vjp_e`. Scores may be large: an exponential of 1000 overflows.


# %% exercise="masked_softmax"
def masked_softmax(e, *, mask):
    """Scores e (N, L), booleans mask (N, L) -> weights (N, L), and the rule dalpha -> de."""
    ### BEGIN SOLUTION
    e = np.where(mask, e, -1e30)
    alpha = np.exp(e - e.max(axis=1, keepdims=True))
    alpha = alpha / alpha.sum(axis=1, keepdims=True)

    def vjp_e(dalpha):
        return alpha * (dalpha - (alpha * dalpha).sum(axis=1, keepdims=True))

    return alpha, vjp_e
    ### END SOLUTION


# %% check="masked_softmax" points=2
check("10.masked_softmax", masked_softmax)

# %% [markdown]
# ## 2. Additive attention, with its rules
#
# Forward:
#
# $$z_j = \tanh(W s + U m_j), \qquad e_j = v^\top z_j, \qquad \alpha = \mathrm{softmax}(e), \qquad
# c = \sum_j \alpha_j\, m_j$$
#
# The weights W (A, Dq), U (A, D) and v (A,) are settings here: they get no rules. Those of query and memory
# are asked, `return c, (vjp_s, vjp_m)`. There is no mask. For example, with `v` all 0 every place has the same
# score, and the context is the plain mean of the places. Remember that the memory reaches the context on two
# paths.


# %% exercise="additive_attention"
def additive_attention(s, m, *, w, u, v):
    """s (N, Dq), m (N, L, D) -> c (N, D), and the rules of s and m; w (A, Dq), u (A, D), v (A,)."""
    ### BEGIN SOLUTION
    z = np.tanh((s @ w.T)[:, None] + m @ u.T)  # (N, L, A)
    e = z @ v
    alpha = np.exp(e - e.max(axis=1, keepdims=True))
    alpha = alpha / alpha.sum(axis=1, keepdims=True)
    c = np.einsum("nl,nld->nd", alpha, m)

    def back_to_a(dc):
        dalpha = np.einsum("nld,nd->nl", m, dc)
        de = alpha * (dalpha - (alpha * dalpha).sum(axis=1, keepdims=True))
        return de[:, :, None] * v * (1 - z**2)

    def vjp_s(dc):
        return back_to_a(dc).sum(axis=1) @ w

    def vjp_m(dc):
        return alpha[:, :, None] * dc[:, None] + back_to_a(dc) @ u

    return c, (vjp_s, vjp_m)
    ### END SOLUTION


# %% check="additive_attention" points=4
check("10.additive_attention", additive_attention)

# %% [markdown]
# ## 3. Multiplicative attention, the module
#
# The "general" score as an `nn.Module`:
#
# $$e_j = (W s)^\top m_j, \qquad \alpha = \mathrm{softmax}(e) \text{ where the mask is true}, \qquad
# c = \sum_j \alpha_j\, m_j$$
#
# Call the linear layer without bias `query`. `nn.MaskedSoftmax()` is a module that takes scores and a mask (or
# `None`). A batch of matrices times a batch of vectors is `@` with an axis of length 1 more:
# `a.unsqueeze(2)`, and `.squeeze(2)` takes it away. The context alone is to be returned.


# %% exercise="MultiplicativeAttention"
class MultiplicativeAttention(nn.Module):
    """Query (N, Dq), memory (N, L, D), mask (N, L) or None -> context (N, D)."""

    def __init__(self, query_size, memory_size):
        super().__init__()
        ### BEGIN SOLUTION
        self.query = nn.Linear(query_size, memory_size, bias=False)
        self.softmax = nn.MaskedSoftmax()
        ### END SOLUTION

    def forward(self, query, memory, mask=None):
        """The mean of the memory, weighted by how well each place fits the query."""
        ### BEGIN SOLUTION
        scores = (memory @ self.query(query).unsqueeze(2)).squeeze(2)
        weights = self.softmax(scores, mask)
        return (weights.unsqueeze(1) @ memory).squeeze(1)
        ### END SOLUTION


# %% check="MultiplicativeAttention" points=3
check("10.MultiplicativeAttention", MultiplicativeAttention)

# %% [markdown]
# ## 4. A step of beam search
#
# There are B beams, beginnings of a text, with log-probabilities `log_p` (B,). The model says what may follow
# each of them, `step_log_p` (B, K). Keep the B best of all B K ways to go on, the best first. Return three
# arrays of length B: which beam each goes on from, with which token, and its log-probability. (No penalty
# for lengths here.)
#
# For example, beams of probability 0.6 and 0.4, the first to be followed by its two tokens with 0.5
# each, the second by 0.9 and 0.1: the best are 0.36, beam 1 with token 0, and 0.3, beam 0 with token 0 (its
# token 1 is as good: take the first of equals).
#
# A beam that has ended is marked in `has_ended` (B,). It goes on in one way only, with padding, token 0, and
# keeps its log-probability.


# %% exercise="beam_step"
def beam_step(log_p, step_log_p, has_ended):
    """log_p (B,), step_log_p (B, K), has_ended (B,) -> beam (B,), token (B,), log_p (B,)."""
    ### BEGIN SOLUTION
    B, K = step_log_p.shape
    step_log_p = np.where(has_ended[:, None], -np.inf, step_log_p)
    step_log_p[has_ended, 0] = 0
    total = (log_p[:, None] + step_log_p).ravel()  # (B * K,)
    best = np.argsort(-total, kind="stable")[:B]
    return best // K, best % K, total[best]
    ### END SOLUTION


# %% check="beam_step" points=3
check("10.beam_step", beam_step)

# %% [markdown]
# ## 5. BLEU
#
# The score of a corpus with one reference for each text, with runs of 1 to $M$ characters, $M$ = `max_order`:
#
# $$p_n = \frac{\text{runs of } n \text{ shared with the reference, none more often than there}}
# {\text{all runs of } n}, \qquad
# \mathrm{BLEU} = \min(1,\ e^{1 - R / C})\, (p_1 \cdots p_M)^{1/M}$$
#
# Shared runs and all runs are counted in the whole corpus before they are divided; $C$ and $R$ are the lengths
# of all texts and of all references. If any $p_n$ is 0, so is BLEU. For example, "aab" beside the reference
# "abc": of its runs of one, two are shared, a and b; of its runs of two, one, ab. With `max_order=2` that
# is $\sqrt{2/3 \cdot 1/2}$.


# %% exercise="bleu"
def bleu(texts, references, max_order):
    """Lists of as many strings -> a number from 0 to 1."""
    ### BEGIN SOLUTION
    product = 1.0
    for n in range(1, max_order + 1):
        shared = total = 0
        for text, reference in zip(texts, references):
            ours = Counter(text[i : i + n] for i in range(len(text) - n + 1))
            theirs = Counter(reference[i : i + n] for i in range(len(reference) - n + 1))
            shared += sum((ours & theirs).values())
            total += sum(ours.values())
        if shared == 0:
            return 0.0
        product *= shared / total
    C, R = sum(map(len, texts)), sum(map(len, references))
    return min(1.0, math.exp(1 - R / C)) * product ** (1 / max_order)
    ### END SOLUTION


# %% check="bleu" points=3
check("10.bleu", bleu)
