# %% [markdown]
# # Exercises 26: spatial and channel-wise attention for captions
#
# From the two attentions to a module, and from there to a loss and a measure. The letters are those of
# [lesson 26](../notebooks/26_sca_cnn.ipynb): `x` maps (N, C, L) of C channels and L places, `h` states (N, D), A hidden
# units, `alpha` weights of places and `beta` weights of channels.
#
# Run a cell, then its check. `hint("26.channel_weights")` gives one hint at a time, and after a try
# `solution("26.channel_weights")` shows a way to do it.

# %%
import math
from collections import Counter

import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. What to look for
#
# The weights of the channels. A channel is known by its mean, and $u$, $V$ and $w$ are the same for all of them:
#
# $$m_c = \frac1L \sum_j x_{cj}, \qquad e_c = w^\top \tanh(u\, m_c + V h), \qquad
# \beta = \mathrm{softmax}_c(e)$$
#
# with `u` (A,), `v` (A, D) and `w` (A,). For example, two channels of the same mean have the weights `[0.5, 0.5]`,
# whatever the state. No rules are asked.


# %% exercise="channel_weights"
def channel_weights(x, h, u, v, w):
    """x (N, C, L), h (N, D), u (A,), v (A, D), w (A,) -> beta (N, C); each row adds up to 1."""
    ### BEGIN SOLUTION
    m = x.mean(axis=2)  # (N, C)
    a = np.tanh(m[:, :, None] * u + (h @ v.T)[:, None])  # (N, C, A)
    e = a @ w
    beta = np.exp(e - e.max(axis=1, keepdims=True))
    return beta / beta.sum(axis=1, keepdims=True)
    ### END SOLUTION


# %% check="channel_weights" points=2
check("26.channel_weights", channel_weights)

# %% [markdown]
# ## 2. Where to look, with its rules
#
# Spatial attention in primitive form. $x_j$ are the C numbers of place $j$, a column of `x`:
#
# $$a_j = \tanh(U x_j + V h), \qquad e_j = w^\top a_j, \qquad \alpha = \mathrm{softmax}_j(e), \qquad
# y_j = L\, \alpha_j\, x_j$$
#
# The weights `u` (A, C), `v` (A, D) and `w` (A,) are settings: they get no rules. Those of map and state are asked,
# `return y, (vjp_x, vjp_h)`. For example, with `w` all 0 nothing changes: $\alpha_j = 1 / L$, and the factor L makes 1
# of it. Remember that a place is weighed, and that it is what its weight is made from.


# %% exercise="weigh_places"
def weigh_places(x, h, *, u, v, w):
    """x (N, C, L), h (N, D) -> y (N, C, L), and the rules of x and h."""
    ### BEGIN SOLUTION
    L = x.shape[2]
    a = np.tanh(x.swapaxes(1, 2) @ u.T + (h @ v.T)[:, None])  # (N, L, A)
    e = a @ w
    alpha = np.exp(e - e.max(axis=1, keepdims=True))
    alpha = alpha / alpha.sum(axis=1, keepdims=True)  # (N, L)

    def back_to_a(dy):
        dalpha = L * (x * dy).sum(axis=1)
        de = alpha * (dalpha - (alpha * dalpha).sum(axis=1, keepdims=True))
        return de[:, :, None] * w * (1 - a**2)

    def vjp_x(dy):
        return L * alpha[:, None] * dy + (back_to_a(dy) @ u).swapaxes(1, 2)

    def vjp_h(dy):
        return back_to_a(dy).sum(axis=1) @ v

    return L * alpha[:, None] * x, (vjp_x, vjp_h)
    ### END SOLUTION


# %% check="weigh_places" points=4
check("26.weigh_places", weigh_places)

# %% [markdown]
# ## 3. Both, as a module
#
# C-S: first the channels are weighed, then the places of what comes out of it. With linear layers of these names, in which
# K is the number of hidden units:
#
# | channel | place | |
# |---|---|---|
# | `channel_map`, from 1 to K | `place_map`, from C to K | of what it is known by, with bias |
# | `channel_state`, from D to K | `place_state`, from D to K | of the state, without bias |
# | `channel_score`, from K to 1 | `place_score`, from K to 1 | without bias |
#
# Both weights are multiplied by how many they are. Images come in, `x` (N, C, H, W); `x.flatten(2)` makes (N, C, L) of
# them, `.unsqueeze(2)` and `.squeeze(2)` add and take away an axis of length 1, and `F.softmax(e, dim=1)` is there.


# %% exercise="ChannelSpatial"
class ChannelSpatial(nn.Module):
    """Images (N, C, H, W) and states (N, D) -> weighed images (N, C, H, W)."""

    def __init__(self, channels, state, hidden):
        super().__init__()
        ### BEGIN SOLUTION
        self.channel_map = nn.Linear(1, hidden)
        self.channel_state = nn.Linear(state, hidden, bias=False)
        self.channel_score = nn.Linear(hidden, 1, bias=False)
        self.place_map = nn.Linear(channels, hidden)
        self.place_state = nn.Linear(state, hidden, bias=False)
        self.place_score = nn.Linear(hidden, 1, bias=False)
        ### END SOLUTION

    def forward(self, x, h):
        """First what, then where; equal weights leave x as it is."""
        ### BEGIN SOLUTION
        N, C, H, W = x.shape
        m = x.mean(dim=(2, 3)).unsqueeze(2)  # (N, C, 1)
        hidden = F.tanh(self.channel_map(m) + self.channel_state(h).unsqueeze(1))
        beta = F.softmax(self.channel_score(hidden).squeeze(2), dim=1)
        x = C * beta.reshape(N, C, 1, 1) * x
        places = x.flatten(2).transpose(1, 2)  # (N, L, C)
        hidden = F.tanh(self.place_map(places) + self.place_state(h).unsqueeze(1))
        alpha = F.softmax(self.place_score(hidden).squeeze(2), dim=1)
        return H * W * alpha.reshape(N, 1, H, W) * x
        ### END SOLUTION


# %% check="ChannelSpatial" points=4
check("26.ChannelSpatial", ChannelSpatial)

# %% [markdown]
# ## 4. A further loss
#
# *Show, attend and tell* asks that over a whole caption each place is looked at about as much as the others. With the
# weights `alpha` (N, T, L) at T words, of which `is_word` (N, T) says which are words of the caption and which are
# padding behind it ($\mu_t = 1$ or 0), the mean over the captions of
#
# $$\sum_j \Bigl(1 - \sum_t \mu_t\, \alpha_{tj}\Bigr)^2$$
#
# For example, one caption with the weights `[[1, 0], [1, 0]]` has looked twice at the first place and never at the second:
# $(1 - 2)^2 + (1 - 0)^2 = 2$. Write it in primitive form, `return penalty, vjp_alpha`; the penalty is one number.


# %% exercise="doubly_stochastic"
def doubly_stochastic(alpha, *, is_word):
    """alpha (N, T, L), booleans is_word (N, T) -> penalty, a number, and the rule of alpha."""
    ### BEGIN SOLUTION
    mu = is_word[:, :, None]
    missing = 1 - (mu * alpha).sum(axis=1)  # (N, L)

    def vjp_alpha(dy):
        return dy * mu * (-2 * missing / len(alpha))[:, None]

    return (missing**2).sum(axis=1).mean(), vjp_alpha
    ### END SOLUTION


# %% check="doubly_stochastic" points=3
check("26.doubly_stochastic", doubly_stochastic)

# %% [markdown]
# ## 5. CIDEr
#
# For n-grams of one length n, with one reference for each of N pictures. A text becomes a vector with a number for each
# n-gram $\omega$, how often it is there times how rare it is, and $\mathrm{df}_\omega$ is the number of pictures in
# whose reference it stands (at least 1):
#
# $$g_\omega = \#_\omega \log \frac{N}{\mathrm{df}_\omega}, \qquad
# s = e^{-(|c| - |r|)^2 / 72}\; \frac{\sum_\omega \min(g_\omega(c), g_\omega(r))\, g_\omega(r)}
# {\lVert g(c) \rVert\, \lVert g(r) \rVert}$$
#
# The score is 10 times the mean of $s$ over the pictures. Texts are lists of words, $|c|$ is the number of
# words; where a vector has length 0, $s = 0$. The norms are over all n-grams of a text.
#
# For example, with n = 1, the texts "a cat" and "a dog" beside the very same references score 10: "a" stands in both
# references and counts $\log (2 / 2) = 0$, and the other word is right. "a cat" beside "a dog" scores 0.


# %% exercise="cider"
def cider(texts, references, n):
    """Lists of as many lists of words -> a number from 0 to 10."""
    ### BEGIN SOLUTION

    def grams(text):
        return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))

    df = Counter(gram for reference in references for gram in set(grams(reference)))

    def vector(text):
        return {
            gram: count * math.log(len(references) / max(1, df[gram]))
            for gram, count in grams(text).items()
        }

    total = 0.0
    for text, reference in zip(texts, references):
        c, r = vector(text), vector(reference)
        norms = math.hypot(*c.values()) * math.hypot(*r.values())
        shared = sum(min(c[gram], r[gram]) * r[gram] for gram in c if gram in r)
        brevity = math.exp(-((len(text) - len(reference)) ** 2) / 72)
        total += brevity * shared / norms if norms else 0.0
    return 10 * total / len(texts)
    ### END SOLUTION


# %% check="cider" points=3
check("26.cider", cider)
