# %% [markdown]
# # Exercises 22: regional attention
#
# A search for images in its parts: how a picture becomes a vector, which regions have a part in it, and
# how good a ranking is. The letters are those of
# [lesson 22](../notebooks/22_regional_attention.ipynb): C channels, L positions, R regions, D hidden units.
#
# Run a cell, then its check. `hint("22.gem")` gives one hint at a time, and after a try
# `solution("22.gem")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check


def softplus(a):
    """ln(1 + exp(a)), without overflow."""
    return np.logaddexp(0, a)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


# %% [markdown]
# ## 1. The generalised mean
#
# For each channel, from its values at $L$ positions, all positive:
#
# $$f_c = \Big( \frac{1}{L} \sum_i x_{ci}^p \Big)^{1/p}, \qquad
# \frac{\partial f_c}{\partial x_{ci}} = \frac{1}{L} \Big( \frac{x_{ci}}{f_c} \Big)^{p-1}, \qquad
# \frac{\partial f_c}{\partial p} = \frac{f_c}{p} \Big( \sum_i q_{ci} \ln x_{ci} - \ln f_c \Big)$$
#
# with the shares $q_{ci} = x_{ci}^p / \sum_j x_{cj}^p$. Write it in primitive form, `return f, (vjp_x, vjp_p)`.
# All channels share $p$, an array of one number; so is its gradient. For example, `x = [[1, 7]]` with
# `p = [2]` gives `[5]`.


# %% exercise="gem"
def gem(x, p):
    """x (C, L), p (1,) -> f (C,), and the rules of x and of p."""
    ### BEGIN SOLUTION
    f = (x**p).mean(axis=1) ** (1 / p)

    def vjp_x(dy):
        return dy[:, None] * (x / f[:, None]) ** (p - 1) / x.shape[1]

    def vjp_p(dy):
        q = x**p / (x**p).sum(axis=1, keepdims=True)
        return np.array([(dy * f / p * ((q * np.log(x)).sum(axis=1) - np.log(f))).sum()])

    return f, (vjp_x, vjp_p)
    ### END SOLUTION


# %% check="gem" points=3
check("22.gem", gem)

# %% [markdown]
# ## 2. The regions of R-MAC
#
# At level $l = 1, 2, \ldots$ the squares have the size $z = \lfloor 2 \min(H, W) / (l + 1) \rfloor$. On a
# square map there are $l$ in each direction. On a longer one there are $m$ more along the longer side, at
# every level; `more_regions(shorter, longer)` below gives this number (it makes the squares of level 1
# overlap by about 40 %).
#
# Of $n$ squares in a direction of length $H$, the square $j = 0, \ldots, n - 1$ begins at
# $\lfloor j\, (H - z) / (n - 1) \rfloor$; a single one begins at 0. All numbers are integers.
# Return a list of `(top, left, size)`, level by level, row by row. For example, a map of 2 x 3 with one
# level has `[(0, 0, 2), (0, 1, 2)]`.


# %%
def more_regions(shorter, longer):
    """How many regions there are more along the longer side than along the shorter."""
    if shorter == longer:
        return 0
    overlaps = [1 - (longer - shorter) / (n - 1) / shorter for n in range(2, 8)]
    return 1 + min(range(6), key=lambda i: abs(overlaps[i] - 0.4))


# %% exercise="region_grid"
def region_grid(height, width, levels=3):
    """Regions (top, left, size) of a map of height x width positions, as a list."""
    ### BEGIN SOLUTION
    m = more_regions(min(height, width), max(height, width))

    def starts(room, count):
        return [j * room // max(count - 1, 1) for j in range(count)]

    regions = []
    for level in range(1, levels + 1):
        size = 2 * min(height, width) // (level + 1)
        tops = starts(height - size, level + m * (height > width))
        lefts = starts(width - size, level + m * (width > height))
        regions += [(top, left, size) for top in tops for left in lefts]
    return regions
    ### END SOLUTION


# %% check="region_grid" points=3
check("22.region_grid", region_grid)

# %% [markdown]
# ## 3. Regional attention
#
# For one picture, from the maxima $m_r$ of its regions, and from $u_r = [v_r; g]$, the mean features of the
# region and of the whole map:
#
# $$a_r = W_1 u_r + b_1, \qquad h_r = \mathrm{softplus}(a_r), \qquad s_r = w_2 \cdot h_r + b_2, \qquad
# w_r = \mathrm{softplus}(s_r), \qquad y = \frac{1}{R} \sum_r w_r\, m_r$$
#
# Write it in primitive form, with a rule for each of the six inputs: `return y, (vjp_m, vjp_u, vjp_w1,
# vjp_b1, vjp_w2, vjp_b2)`. `softplus` and `sigmoid`, its derivative, are given above. For example, with
# `w1`, `b1`, `w2` and `b2` of zeros all weights are $\ln 2$.


# %% exercise="regional_attention"
def regional_attention(m, u, w1, b1, w2, b2):
    """m (R, C), u (R, 2C), w1 (D, 2C), b1 (D,), w2 (D,), b2 (1,) -> y (C,), and six rules."""
    ### BEGIN SOLUTION
    R = len(m)
    a = u @ w1.T + b1
    h = softplus(a)
    s = h @ w2 + b2
    w = softplus(s)

    def back_to_s(dy):
        return (m @ dy) / R * sigmoid(s)

    def back_to_a(dy):
        return np.outer(back_to_s(dy), w2) * sigmoid(a)

    def vjp_m(dy):
        return np.outer(w, dy) / R

    def vjp_u(dy):
        return back_to_a(dy) @ w1

    def vjp_w1(dy):
        return back_to_a(dy).T @ u

    def vjp_b1(dy):
        return back_to_a(dy).sum(axis=0)

    def vjp_w2(dy):
        return back_to_s(dy) @ h

    def vjp_b2(dy):
        return back_to_s(dy).sum(keepdims=True)

    return w @ m / R, (vjp_m, vjp_u, vjp_w1, vjp_b1, vjp_w2, vjp_b2)
    ### END SOLUTION


# %% check="regional_attention" points=4
check("22.regional_attention", regional_attention)

# %% [markdown]
# ## 4. Average precision
#
# *Positives* are the wanted pictures. Take the junk out of the ranking. Then walk down. Recall starts at 0
# and precision at 1; after each place, recall is the number of positives so far, divided by the number of *all* positives, and precision the
# number of positives so far, divided by the number of places so far. Average precision is the area below, by
# trapezoids, with a term for each place $t$ of what is kept:
#
# $$AP = \sum_t (\text{recall}_t - \text{recall}_{t-1})\,
# \frac{\text{precision}_t + \text{precision}_{t-1}}{2}$$
#
# For example, the ranking `[3, 1, 0, 7, 2]` with positives `[3, 7]` and junk `[1]` has 19/24, about 0.79.


# %% exercise="average_precision"
def average_precision(ranking, positives, junk):
    """Lists of pictures' numbers -> a number from 0 to 1."""
    ### BEGIN SOLUTION
    area, found, recall, precision = 0.0, 0, 0.0, 1.0
    kept = [picture for picture in ranking if picture not in junk]
    for place, picture in enumerate(kept, start=1):
        found += picture in positives
        before = recall, precision
        recall, precision = found / len(positives), found / place
        area += (recall - before[0]) * (precision + before[1]) / 2
    return area
    ### END SOLUTION


# %% check="average_precision" points=3
check("22.average_precision", average_precision)

# %% [markdown]
# ## 5. Whitening
#
# Learn from $M$ descriptors `learned` (M, C): their mean $\mu$, and of their covariance
# $\frac{1}{M} \sum_m (x_m - \mu)(x_m - \mu)^\top$ the eigenvectors $V$ of the largest `components` eigenvalues
# $\Lambda$. Apply it to other descriptors `x` (N, C):
#
# $$x' = \Lambda^{-1/2}\, V^\top (x - \mu), \quad \text{then divided by its length}$$
#
# Eigenvectors have no sign, and $x'$ no order of its components that would matter: what is compared are the
# products of the results with one another, the cosines that a search would see.


# %% exercise="whiten"
def whiten(x, learned, components):
    """x (N, C), learned (M, C) -> (N, components), each row of length 1."""
    ### BEGIN SOLUTION
    mean = learned.mean(axis=0)
    covariance = (learned - mean).T @ (learned - mean) / len(learned)
    variances, vectors = np.linalg.eigh(covariance)  # the smallest first
    y = (x - mean) @ vectors[:, -components:] / np.sqrt(variances[-components:])
    return y / np.linalg.norm(y, axis=1, keepdims=True)
    ### END SOLUTION


# %% check="whiten" points=3
check("22.whiten", whiten)

# %% [markdown]
# ## 6. The module
#
# The weights of regions' mean features `regions` (N, R, C) in pictures whose mean features are `whole` (N, C),
# with two linear layers, `fc1` from $2C$ to `hidden` and `fc2` from `hidden` to 1:
#
# $$w = \mathrm{softplus}(\text{fc2}(\mathrm{softplus}(\text{fc1}([v_r; g])))) : (N, R)$$
#
# `t.unsqueeze(1)` puts in an axis, `t.expand(-1, R, -1)` repeats along it, `F.cat([a, b], dim=2)` joins,
# `t.squeeze(2)` takes an axis of length 1 away, and there is `F.softplus`.


# %% exercise="RegionalAttention"
class RegionalAttention(nn.Module):
    """How much each region should count: (N, R, C), (N, C) -> (N, R)."""

    def __init__(self, channels, hidden=64):
        super().__init__()
        ### BEGIN SOLUTION
        self.fc1 = nn.Linear(2 * channels, hidden)
        self.fc2 = nn.Linear(hidden, 1)
        ### END SOLUTION

    def forward(self, regions, whole):
        """Weights (N, R) of regions (N, R, C) in pictures of mean features whole (N, C)."""
        ### BEGIN SOLUTION
        context = whole.unsqueeze(1).expand(-1, regions.shape[1], -1)
        u = F.cat([regions, context], dim=2)
        return F.softplus(self.fc2(F.softplus(self.fc1(u)))).squeeze(2)
        ### END SOLUTION


# %% check="RegionalAttention" points=3
check("22.RegionalAttention", RegionalAttention)
