# %% [markdown]
# # Exercises 20: memory-efficient attention
#
# From the online softmax of one row to attention in tiles with its rules. The letters are those of
# [lesson 20](../notebooks/20_memory_efficient_attention.ipynb): `m` the maximum so far, `l` the sum
# of exponentials relative to it, `a` the sum of exponentials times values, `log_sum` the logarithm
# of the whole sum; queries `q` (L, D), keys `k` (S, D), values `v` (S, Dv).
#
# Run a cell, then its check. `hint("20.running")` gives one hint at a time, and after a try
# `solution("20.running")` shows a way to do it.

# %%
import numpy as np

from minitorch_attn.course import check

# %% [markdown]
# ## 1. The running maximum and the running sum
#
# Go through the scores of one query, key by key, and note after each key
#
# $$m_n = \max_{j \le n} s_j, \qquad l_n = \sum_{j \le n} e^{s_j - m_n}$$
#
# from $m_{n-1}$, $l_{n-1}$ and $s_n$ alone. Return two arrays of the length of `s`. For example,
# the scores `[0, 0, log 2]` give the maxima `[0, 0, log 2]` and the sums `[1, 2, 2]`: at the third
# key the old sum 2 is scaled to 1, and 1 is added.


# %% exercise="running"
def running(s):
    """Scores s (S,) -> the maxima (S,) and the sums (S,) after each key."""
    ### BEGIN SOLUTION
    m, l = -np.inf, 0.0
    maxima, sums = [], []
    for score in s:
        largest = max(m, score)
        l = np.exp(m - largest) * l + np.exp(score - largest)
        m = largest
        maxima.append(m)
        sums.append(l)
    return np.array(maxima), np.array(sums)
    ### END SOLUTION


# %% check="running" points=2
check("20.running", running)

# %% [markdown]
# ## 2. Two parts become one
#
# Two tiles of the same queries were met apart, perhaps on two computers. Each left its `m` (L, 1),
# its `l` (L, 1) and its `a` (L, Dv), relative to its own `m`. Return `m`, `l` and `a` of both
# together. For example, with $m_1 = 0$, $l_1 = 2$ and $m_2 = \log 2$, $l_2 = 1$ the two make $m =
# \log 2$ and $l = 2$.


# %% exercise="merge"
def merge(m1, l1, a1, m2, l2, a2):
    """Maxima (L, 1), sums (L, 1) and sums of values (L, Dv) of two parts -> m, l, a of both."""
    ### BEGIN SOLUTION
    m = np.maximum(m1, m2)
    shrink1, shrink2 = np.exp(m1 - m), np.exp(m2 - m)
    return m, shrink1 * l1 + shrink2 * l2, shrink1 * a1 + shrink2 * a2
    ### END SOLUTION


# %% check="merge" points=2
check("20.merge", merge)

# %% [markdown]
# ## 3. Forward, in tiles
#
# Attention with $\tau = 1/\sqrt{D}$, for keys and values in blocks of `size`: the last block may be
# shorter. (All queries at once: only the keys are cut here.) Return the output `y` (L, Dv) and
# `log_sum` (L, 1). Scores of hundreds are no reason to overflow.


# %% exercise="forward"
def forward(q, k, v, size):
    """q (L, D), k (S, D), v (S, Dv) -> y (L, Dv) and log_sum (L, 1), `size` keys at a time."""
    ### BEGIN SOLUTION
    tau = 1 / np.sqrt(q.shape[1])
    m = np.full((len(q), 1), -np.inf)
    l, a = np.zeros((len(q), 1)), np.zeros((len(q), v.shape[1]))
    for start in range(0, len(k), size):
        s = tau * (q @ k[start : start + size].T)
        largest = np.maximum(m, s.max(axis=1, keepdims=True))
        shrink, e = np.exp(m - largest), np.exp(s - largest)
        l = shrink * l + e.sum(axis=1, keepdims=True)
        a = shrink * a + e @ v[start : start + size]
        m = largest
    return a / l, m + np.log(l)
    ### END SOLUTION


# %% check="forward" points=4
check("20.forward", forward)

# %% [markdown]
# ## 4. The gradient of one tile's scores
#
# Of a tile we know its scores `s` (r, c), its queries' `log_sum` (r, 1) over *all* keys, the tile's
# values `v` (c, Dv), the final output `y` (r, Dv) and its gradient `dy` (r, Dv). Return
#
# $$ds_{ij} = p_{ij} \Big( dy_i \cdot v_j - \sum_{j'} p_{ij'}\, dy_i \cdot v_{j'} \Big)$$
#
# where the sum is over all keys, of which the tile has only some. Which of the arrays knows that
# sum?


# %% exercise="score_gradient"
def score_gradient(s, log_sum, v, y, dy):
    """s (r, c), log_sum (r, 1), v (c, Dv), y (r, Dv), dy (r, Dv) -> ds (r, c)."""
    ### BEGIN SOLUTION
    p = np.exp(s - log_sum)
    delta = (dy * y).sum(axis=1, keepdims=True)
    return p * (dy @ v.T - delta)
    ### END SOLUTION


# %% check="score_gradient" points=3
check("20.score_gradient", score_gradient)

# %% [markdown]
# ## 5. The whole, with its rules
#
# Attention in primitive form, `return y, (vjp_q, vjp_k, vjp_v)`, with keys in blocks of `size` both
# forward and backward. Your `forward` and `score_gradient` may be used. No array of L x S numbers
# should be made. (The check compares outputs and gradients, and a whole table gives the same: that
# there is none is for you to see to.)


# %% exercise="tiled_attention"
def tiled_attention(q, k, v, *, size):
    """q (L, D), k (S, D), v (S, Dv) -> y (L, Dv), and a rule for each input."""
    ### BEGIN SOLUTION
    tau = 1 / np.sqrt(q.shape[1])
    y, log_sum = forward(q, k, v, size)

    def backward(dy):
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        for start in range(0, len(k), size):
            keys = slice(start, start + size)
            s = tau * (q @ k[keys].T)
            ds = score_gradient(s, log_sum, v[keys], y, dy)
            dq += tau * (ds @ k[keys])
            dk[keys] = tau * (ds.T @ q)
            dv[keys] = np.exp(s - log_sum).T @ dy
        return dq, dk, dv

    return y, (lambda dy: backward(dy)[0], lambda dy: backward(dy)[1], lambda dy: backward(dy)[2])
    ### END SOLUTION


# %% check="tiled_attention" points=4
check("20.tiled_attention", tiled_attention)
