# %% [markdown]
# # Exercises 11: the Transformer
#
# From one look-up to a module of many. The letters are those of
# [lesson 11](../notebooks/11_transformer.ipynb): `q` (L, D) are queries, `k` (S, D) keys, `v` (S, Dv)
# values; E heads share D features.
#
# Run a cell, then its check. `hint("11.places")` gives one hint at a time, and after a try
# `solution("11.places")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. From queries and keys to weights
#
# $$p_{ij} = \frac{e^{s_{ij}}}{\sum_m e^{s_{im}}}, \qquad s = \frac{q k^\top}{\sqrt D}$$
#
# Each row of the result adds up to 1. Scores may be large: subtract the largest of a row before you take
# exponentials. For example, a query that is alike to two keys looks at each with weight one half.


# %% exercise="attention_weights"
def attention_weights(q, k):
    """q (L, D), k (S, D) -> p (L, S)."""
    ### BEGIN SOLUTION
    s = q @ k.T / np.sqrt(q.shape[1])
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
    ### END SOLUTION


# %% check="attention_weights" points=2
check("11.attention_weights", attention_weights)

# %% [markdown]
# ## 2. The look-up, with its rules
#
# $y = p\, v$ in primitive form: `return y, (vjp_q, vjp_k, vjp_v)`. The lesson has the way back:
#
# $$ds_{ij} = p_{ij} \Big( dp_{ij} - \sum_m p_{im}\, dp_{im} \Big), \qquad dp = dy\, v^\top$$


# %% exercise="attention"
def attention(q, k, v):
    """q (L, D), k (S, D), v (S, Dv) -> y (L, Dv), and a rule for each input."""
    ### BEGIN SOLUTION
    scale = 1 / np.sqrt(q.shape[1])
    s = scale * q @ k.T
    p = np.exp(s - s.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)

    def back_to_s(dy):
        dp = dy @ v.T
        return p * (dp - (p * dp).sum(axis=1, keepdims=True))

    def vjp_q(dy):
        return scale * back_to_s(dy) @ k

    def vjp_k(dy):
        return scale * back_to_s(dy).T @ q

    def vjp_v(dy):
        return p.T @ dy

    return p @ v, (vjp_q, vjp_k, vjp_v)
    ### END SOLUTION


# %% check="attention" points=4
check("11.attention", attention)

# %% [markdown]
# ## 3. Who may look at whom
#
# The mask of a decoder's self-attention. `tokens` are sequences of numbers, filled up with 0, the
# padding. Place $i$ of a sequence may look at place $j$ if $j \le i$ and there is a token at $j$. For one
# sequence `[5, 7, 0]`:
#
# $$\begin{pmatrix} 1 & 0 & 0 \\ 1 & 1 & 0 \\ 1 & 1 & 0 \end{pmatrix}$$
#
# as booleans, True where it may look. (What place 2 sees does not matter: it is padding itself. Behind the
# tokens, as here, padding is hidden from them by $j \le i$ already; in front of them it is not.)


# %% exercise="may_look"
def may_look(tokens):
    """tokens (N, L) integers, 0 is padding -> (N, L, L) booleans: [n, i, j] says if i may look at j."""
    ### BEGIN SOLUTION
    L = tokens.shape[1]
    not_ahead = np.tril(np.ones((L, L), bool))
    return not_ahead & (tokens != 0)[:, None, :]
    ### END SOLUTION


# %% check="may_look" points=2
check("11.may_look", may_look)

# %% [markdown]
# ## 4. Sines and cosines
#
# The table of places, for `length` places and an even number D of `features`:
#
# $$p_{t, 2i} = \sin(\omega_i t), \qquad p_{t, 2i+1} = \cos(\omega_i t), \qquad
# \omega_i = 10000^{-2i/D}, \qquad i = 0, \dots, D/2 - 1$$
#
# Places count from 0, so the first row is 0, 1, 0, 1, and so on.


# %% exercise="places"
def places(length, features):
    """The encodings of places 0 to length - 1: (length, features)."""
    ### BEGIN SOLUTION
    frequencies = 10000 ** (-2 * np.arange(features // 2) / features)
    angles = np.arange(length)[:, None] * frequencies
    table = np.empty((length, features))
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles)
    return table
    ### END SOLUTION


# %% check="places" points=2
check("11.places", places)

# %% [markdown]
# ## 5. The learning rate
#
# $$\eta_s = D^{-1/2} \min\left(s^{-1/2}, \; s \, w^{-3/2}\right)$$
#
# for step $s$, counted from 1, D `features` and a `warmup` of $w$ steps. With 512 features and 4000 steps
# its peak is about 0.0007.


# %% exercise="learning_rate"
def learning_rate(step, features, warmup):
    """The paper's learning rate of a step, a number."""
    ### BEGIN SOLUTION
    return features**-0.5 * min(step**-0.5, step * warmup**-1.5)
    ### END SOLUTION


# %% check="learning_rate" points=1
check("11.learning_rate", learning_rate)

# %% [markdown]
# ## 6. Heads
#
# Self-attention in E heads as an `nn.Module`. Two linear layers with biases: `project`, from D to 3 D
# features (queries first, then keys, then values), and `out`, from D to D. A head has $d = D / E$
# features that lie side by side: head 0 the features 0 to $d - 1$ of the queries, of the keys and of the
# values. Outputs of the heads are put side by side again, then go through `out`. There is no mask.
#
# `F.softmax(x, dim=-1)`, `x.chunk(3, dim=-1)`, `x.reshape(...)`, `x.transpose(i, j)` and `@` all work on
# tensors.


# %% exercise="SelfAttention"
class SelfAttention(nn.Module):
    """Tokens that ask one another, in heads: (N, L, D) -> (N, L, D)."""

    def __init__(self, features, heads):
        super().__init__()
        self.heads = heads
        ### BEGIN SOLUTION
        self.project = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)
        ### END SOLUTION

    def forward(self, x):
        """Tokens x (N, L, D); the shape stays."""
        ### BEGIN SOLUTION
        N, L, D = x.shape
        d = D // self.heads
        q, k, v = (
            part.reshape(N, L, self.heads, d).transpose(1, 2)  # (N, E, L, d)
            for part in self.project(x).chunk(3, dim=-1)
        )
        p = F.softmax(q @ k.transpose(-2, -1) / d**0.5, dim=-1)  # (N, E, L, L)
        return self.out((p @ v).transpose(1, 2).reshape(N, L, D))
        ### END SOLUTION


# %% check="SelfAttention" points=4
check("11.SelfAttention", SelfAttention)
