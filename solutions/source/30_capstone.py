# %% [markdown]
# # Exercises 30: every mechanism side by side
#
# What a comparison needs: a difference with its error, the part that luck plays, the rows that are worth
# their price; and two pieces to compare, made by you. The letters are those of
# [lesson 30](../notebooks/30_capstone.ipynb): `S` seeds, `M` rows.
#
# Run a cell, then its check. `hint("30.paired_difference")` gives one hint at a time, and after a try
# `solution("30.paired_difference")` shows a way to do it.

# %%
import math

import numpy as np

import minitorch_attn as mt
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. A difference and its error
#
# `a` and `b` hold the accuracies of two rows, seed by seed. Give the mean of the differences
# $d_s = a_s - b_s$ and its standard error
#
# $$\bar d = \frac1S \sum_s d_s, \qquad
# e = \sqrt{\frac{1}{S\,(S - 1)} \sum_s (d_s - \bar d)^2}$$
#
# For example, `a = [0.8, 0.9, 0.7]` and `b = [0.7, 0.5, 0.6]` have the differences 0.1, 0.4 and 0.1, their mean
# is 0.2, and the error is 0.1. Give the mean first, then the error.


# %% exercise="paired_difference"
def paired_difference(a, b):
    """a, b (S,) -> mean of a - b, standard error of that mean."""
    ### BEGIN SOLUTION
    d = a - b
    return d.mean(), d.std(ddof=1) / math.sqrt(len(d))
    ### END SOLUTION


# %% check="paired_difference" points=2
check("30.paired_difference", paired_difference)

# %% [markdown]
# ## 2. Luck in one row
#
# A row that does nothing is as likely ahead of the baseline as behind it, with each seed anew. How likely
# is it that such a row is ahead with `wins` of `seeds` seeds *or with more*?
#
# $$p = 2^{-S} \sum_{k = \mathrm{wins}}^{S} \binom{S}{k}$$
#
# For example, 4 of 6 or more: $(15 + 6 + 1) / 64 = 0.34375$. `math.comb` counts.


# %% exercise="luck"
def luck(wins, seeds):
    """How likely a row without effect is ahead with `wins` or more of `seeds` seeds."""
    ### BEGIN SOLUTION
    return sum(math.comb(seeds, k) for k in range(wins, seeds + 1)) / 2**seeds
    ### END SOLUTION


# %% check="luck" points=2
check("30.luck", luck)

# %% [markdown]
# ## 3. Luck in many rows
#
# `p` (M,) has such a number for each of M rows. Which rows stand out, if even one false alarm among all of
# them may come no more often than `level`? Holm's procedure: take the rows from the smallest `p` to the
# largest. The first stands out if its $p \le \mathrm{level} / M$, the second if
# $p \le \mathrm{level} / (M - 1)$, and so on; with the first that does not, it is over, for all that
# follow too.
#
# For example, `p = [0.04, 0.01, 0.3]` at the level 0.05: 0.01 is below 0.05 / 3 and stands out; 0.04 is
# above 0.05 / 2, so neither it nor 0.3 does: `[False, True, False]`.


# %% exercise="holm"
def holm(p, level):
    """p (M,), a number -> (M,) of booleans, in the order of p."""
    ### BEGIN SOLUTION
    stands_out = np.zeros(len(p), dtype=bool)
    for rank, row in enumerate(np.argsort(p)):
        if p[row] > level / (len(p) - rank):
            break
        stands_out[row] = True
    return stands_out
    ### END SOLUTION


# %% check="holm" points=3
check("30.holm", holm)

# %% [markdown]
# ## 4. Worth its price
#
# A row is *beaten* if another one is at least as accurate and costs at most as much, and is better in one
# of the two. Which rows are not beaten?
#
# For example, accuracies `[0.8, 0.9, 0.7]` at the costs `[1, 3, 2]`: the last is beaten by the first, so
# `[True, True, False]`. Two rows that are the same in both do not beat each other. The answer is an array.


# %% exercise="not_beaten"
def not_beaten(accuracy, cost):
    """accuracy (M,), cost (M,) -> (M,) of booleans."""
    ### BEGIN SOLUTION
    # Row i (down) against row j (across): is j no worse in either, and better in one?
    no_worse = (accuracy >= accuracy[:, None]) & (cost <= cost[:, None])
    better = (accuracy > accuracy[:, None]) | (cost < cost[:, None])
    return ~(no_worse & better).any(axis=1)
    ### END SOLUTION


# %% check="not_beaten" points=3
check("30.not_beaten", not_beaten)

# %% [markdown]
# ## 5. A pooling that asks with the mean
#
# The pooling of the lesson, for one image with a row of D features at each of L places:
#
# $$q = \frac1L \sum_j x_j, \qquad a = \mathrm{softmax}_j(q \cdot x_j), \qquad y = \sum_j a_j\, x_j$$
#
# Write it in primitive form: `return y, vjp_x`. There are three ways from `y` back to `x`. (Nothing is divided by
# the root of D; and products may be large.)


# %% exercise="mean_query"
def mean_query(x):
    """x (L, D) -> y (D,), and the rule of x."""
    ### BEGIN SOLUTION
    q = x.mean(axis=0)
    e = x @ q
    a = np.exp(e - e.max())
    a = a / a.sum()

    def vjp_x(dy):
        da = x @ dy
        de = a * (da - a @ da)
        dq = de @ x
        return np.outer(a, dy) + np.outer(de, q) + dq / len(x)

    return a @ x, vjp_x
    ### END SOLUTION


# %% check="mean_query" points=4
check("30.mean_query", mean_query)

# %% [markdown]
# ## 6. A guest that starts as nothing
#
# Put something into a trained network, and it breaks, unless the guest changes nothing at first. Write a
# module that holds a guest, here a 3 x 3 convolution that keeps the size (call it `guest`; with bias), and
# one number `gamma`, of shape (1,), that starts at 0:
#
# $$y = x + \gamma\, \mathrm{guest}(x)$$


# %% exercise="StartsAsNothing"
class StartsAsNothing(nn.Module):
    """y = x + gamma guest(x).  (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels):
        super().__init__()
        ### BEGIN SOLUTION
        self.guest = nn.Conv2d(channels, channels, 3, padding=1)
        self.gamma = nn.Parameter(mt.zeros(1))
        ### END SOLUTION

    def forward(self, x):
        """Add to x (N, C, H, W) what the guest makes of it, gamma times."""
        ### BEGIN SOLUTION
        return x + self.gamma * self.guest(x)
        ### END SOLUTION


# %% check="StartsAsNothing" points=3
check("30.StartsAsNothing", StartsAsNothing)
