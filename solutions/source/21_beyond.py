# %% [markdown]
# # Exercises 21: beyond
#
# From attention without a square to modules of a few lines. The letters are those of [lesson
# 21](../notebooks/21_beyond.ipynb): tokens are rows, `q`, `k`, `v` have shape (L, D), feature maps (N, C, H, W).
#
# Run a cell, then its check. `hint("21.linear_attention")` gives one hint at a time, and after a try
# `solution("21.linear_attention")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. Linear attention
#
# With $f_i = \phi(q_i)$, $g_j = \phi(k_j)$ and $\phi(a) = a + 1$ for $a > 0$, otherwise $e^a$:
#
# $$y_i = \frac{S^\top f_i}{f_i \cdot z}, \qquad S = \sum_j g_j v_j^\top, \qquad z = \sum_j g_j$$
#
# in primitive form, `return y, (vjp_q, vjp_k, vjp_v)`, without an L x L table. For one token, $y = v$ whatever $q$
# and $k$ are. `phi` is given.


# %%
def phi(a):
    """elu(a) + 1, elementwise: positive everywhere; its derivative is min(phi(a), 1)."""
    return np.where(a > 0, a + 1, np.exp(np.minimum(a, 0)))


# %% exercise="linear_attention"
def linear_attention(q, k, v):
    """q, k (L, D), v (L, M) -> y (L, M), and three rules."""
    ### BEGIN SOLUTION
    f, g = phi(q), phi(k)
    S, z = g.T @ v, g.sum(axis=0)
    n = f @ z
    y = f @ S / n[:, None]

    def back(dy):
        du = dy / n[:, None]
        return du, -(y * du).sum(axis=1)

    def vjp_q(dy):
        du, dn = back(dy)
        return (du @ S.T + dn[:, None] * z) * np.minimum(f, 1)

    def vjp_k(dy):
        du, dn = back(dy)
        return (v @ (f.T @ du).T + dn @ f) * np.minimum(g, 1)

    def vjp_v(dy):
        du, _ = back(dy)
        return g @ (f.T @ du)

    return y, (vjp_q, vjp_k, vjp_v)
    ### END SOLUTION


# %% check="linear_attention" points=4
check("21.linear_attention", linear_attention)

# %% [markdown]
# ## 2. A token at a time
#
# The same with $j \le i$: position $i$ sees itself and what came before. Carry the running sums $S$ and $z$ from
# token to token. No rules this time.


# %% exercise="causal"
def causal(q, k, v):
    """q, k (L, D), v (L, M) -> y (L, M), where y[i] depends on tokens up to i alone."""
    ### BEGIN SOLUTION
    S, z = np.zeros((k.shape[1], v.shape[1])), np.zeros(k.shape[1])
    y = np.empty_like(v)
    for i in range(len(q)):
        f, g = phi(q[i]), phi(k[i])
        S += np.outer(g, v[i])
        z += g
        y[i] = f @ S / (f @ z)
    return y
    ### END SOLUTION


# %% check="causal" points=2
check("21.causal", causal)

# %% [markdown]
# ## 3. SimAM
#
# With the mean $\mu$ of each channel of each image, and $n = HW - 1$,
#
# $$\delta = x - \mu, \qquad V = \frac{1}{n} \sum_{h,w} \delta^2 + \lambda, \qquad
# s = \sigma\Big(\frac{\delta^2}{4 V} + \frac{1}{2}\Big), \qquad y = s\, x$$
#
# in primitive form: `return y, vjp_x`. The gradient reaches $x$ through the product, and through the gate; in the
# gate, through $\delta$ itself and through $V$; and each $\delta$ holds $x$ directly and through the mean.


# %% exercise="simam"
def simam(x, *, lam=1e-4):
    """x (N, C, H, W) -> y (N, C, H, W), and the rule of x."""
    ### BEGIN SOLUTION
    positions, n = (2, 3), x.shape[2] * x.shape[3] - 1
    delta = x - x.mean(axis=positions, keepdims=True)
    V = (delta**2).sum(axis=positions, keepdims=True) / n + lam
    s = 1 / (1 + np.exp(-(delta**2 / (4 * V) + 0.5)))

    def vjp_x(dy):
        da = dy * x * s * (1 - s)
        dV = -(da * delta**2).sum(axis=positions, keepdims=True) / (4 * V**2)
        ddelta = 2 * delta * (da / (4 * V) + dV / n)
        return dy * s + ddelta - ddelta.mean(axis=positions, keepdims=True)

    return s * x, vjp_x
    ### END SOLUTION


# %% check="simam" points=3
check("21.simam", simam)

# %% [markdown]
# ## 4. Criss-cross weights
#
# For each position of one image: scores $q_i \cdot k_j$ with the $W$ positions of its row, then with the $H$
# positions of its column, and one softmax over all of them. The position itself is in both; in the column its weight
# is to be 0, so that it counts once. No scale.


# %% exercise="criss_cross_weights"
def criss_cross_weights(q, k):
    """q, k (D, H, W) -> weights (H, W, W + H), those of the row first; they sum to 1."""
    ### BEGIN SOLUTION
    H = q.shape[1]
    row = np.einsum("dhw,dhj->hwj", q, k)
    column = np.einsum("dhw,djw->hwj", q, k)
    column[np.arange(H), :, np.arange(H)] = -np.inf
    scores = np.concatenate([row, column], axis=2)
    w = np.exp(scores - scores.max(axis=2, keepdims=True))
    return w / w.sum(axis=2, keepdims=True)
    ### END SOLUTION


# %% check="criss_cross_weights" points=3
check("21.criss_cross_weights", criss_cross_weights)

# %% [markdown]
# ## 5. Patches
#
# Cut images into patches of `size` by `size` pixels: (N, C, H, W) becomes (N, L, C size size), patch after patch
# along each row of patches. Within a patch the order is channel, row, column, as in a convolution's weight. In
# primitive form: the rule puts the patches of `dy` back to their places. For an image of one channel with the pixels
# 0 to 15 in rows of four, and patches of 2, the first patch is 0, 1, 4, 5.


# %% exercise="patches"
def patches(x, *, size):
    """x (N, C, H, W) -> y (N, L, C size size), and the rule of x."""
    ### BEGIN SOLUTION
    N, C, H, W = x.shape
    P, Q = H // size, W // size
    y = x.reshape(N, C, P, size, Q, size).transpose(0, 2, 4, 1, 3, 5)

    def vjp_x(dy):
        back = dy.reshape(N, P, Q, C, size, size).transpose(0, 3, 1, 4, 2, 5)
        return back.reshape(N, C, H, W)

    return y.reshape(N, P * Q, C * size * size), vjp_x
    ### END SOLUTION


# %% check="patches" points=3
check("21.patches", patches)

# %% [markdown]
# ## 6. Global context
#
# With `hidden = channels // reduction`: `self.mask`, a 1x1 convolution to one channel without a bias (a softmax does
# not notice one); `self.fc1`, a linear map to `hidden`; `self.norm`, `nn.LayerNorm(hidden)`; `self.fc2`, a linear
# map back, both with biases.
#
# $$a_j = \mathrm{softmax}_j(\mathrm{mask}(x)_j), \qquad z = \sum_j a_j x_j, \qquad
# y_i = x_i + \mathrm{fc2}(\mathrm{relu}(\mathrm{norm}(\mathrm{fc1}(z))))$$


# %% exercise="GlobalContext"
class GlobalContext(nn.Module):
    """Give every position the weighted mean of all: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels, reduction=16):
        super().__init__()
        ### BEGIN SOLUTION
        hidden = channels // reduction
        self.mask = nn.Conv2d(channels, 1, 1, bias=False)
        self.fc1 = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, channels)
        ### END SOLUTION

    def forward(self, x):
        """x (N, C, H, W) -> y (N, C, H, W)."""
        ### BEGIN SOLUTION
        N, C, H, W = x.shape
        a = F.softmax(self.mask(x).reshape(N, 1, H * W), dim=2)
        z = (a @ x.reshape(N, C, H * W).transpose(1, 2)).reshape(N, C)
        context = self.fc2(F.relu(self.norm(self.fc1(z))))
        return x + context.reshape(N, C, 1, 1)
        ### END SOLUTION


# %% check="GlobalContext" points=3
check("21.GlobalContext", GlobalContext)
