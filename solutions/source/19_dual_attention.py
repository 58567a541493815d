# %% [markdown]
# # Exercises 19: dual attention
#
# From the map of the channels to a module that starts as the identity, and the measure of segmentation.
# The letters are those of [lesson 19](../notebooks/19_dual_attention.ipynb): `x` is a feature map of one
# image as a matrix (C, L), `gamma` an array of one number.
#
# Run a cell, then its check. `hint("19.channel_map")` gives one hint at a time, and after a try
# `solution("19.channel_map")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check


def softmax(E):
    """Each row of E (A, B) as positive numbers whose sum is 1."""
    e = np.exp(E - E.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softmax_back(P, dP):
    """The gradient of E, from P = softmax(E) and the gradient of P."""
    return P * (dP - (P * dP).sum(axis=1, keepdims=True))


# %% [markdown]
# ## 1. The map of the channels
#
# $$E = x x^\top, \qquad P_{cd} = \mathrm{softmax}_d(E_{cd})$$
#
# That is the paper's. The authors' program takes the softmax of $\max_d E_{cd} - E_{cd}$. Write both:
# `program=True` asks for the second. For example, with `x = [[1], [2]]` the first row of $E$ is `[1, 2]`, and
# the paper's first row of $P$ is about `[0.27, 0.73]`, the program's `[0.73, 0.27]`.


# %% exercise="channel_map"
def channel_map(x, program=False):
    """x (C, L) -> P (C, C), rows of sum 1."""
    ### BEGIN SOLUTION
    E = x @ x.T
    return softmax(E.max(axis=1, keepdims=True) - E if program else E)
    ### END SOLUTION


# %% check="channel_map" points=2
check("19.channel_map", channel_map)

# %% [markdown]
# ## 2. Channel attention
#
# With the paper's map,
#
# $$o = P x, \qquad y = \gamma\, o + x$$
#
# Write it in primitive form: `return y, (vjp_x, vjp_gamma)`. Behind $\gamma$, `x` appears three times: as
# each factor of $E$, and in $o$. Besides, it is added. The gradient of `gamma` is an array of one number, as
# `gamma` is.


# %% exercise="channel_attention"
def channel_attention(x, gamma):
    """x (C, L), gamma (1,) -> y (C, L), and the rules of x and of gamma."""
    ### BEGIN SOLUTION
    P = softmax(x @ x.T)
    o = P @ x

    def vjp_x(dy):
        do = gamma * dy
        dE = softmax_back(P, do @ x.T)
        return dy + P.T @ do + dE @ x + dE.T @ x

    def vjp_gamma(dy):
        return np.array([(dy * o).sum()])

    return gamma * o + x, (vjp_x, vjp_gamma)
    ### END SOLUTION


# %% check="channel_attention" points=4
check("19.channel_attention", channel_attention)

# %% [markdown]
# ## 3. Position attention
#
# From queries and keys `q`, `k` of shape (D, L) and values `v` of shape (C, L):
#
# $$E = q^\top k, \qquad P_{ij} = \mathrm{softmax}_j(E_{ij}), \qquad o_i = \sum_j P_{ij}\, v_j$$
#
# where $o_i$ and $v_j$ are columns. Write it in primitive form: `return o, (vjp_q, vjp_k, vjp_v)`.


# %% exercise="position_attention"
def position_attention(q, k, v):
    """q (D, L), k (D, L), v (C, L) -> o (C, L), and a rule for each."""
    ### BEGIN SOLUTION
    P = softmax(q.T @ k)

    def vjp_q(dy):
        return k @ softmax_back(P, dy.T @ v).T

    def vjp_k(dy):
        return q @ softmax_back(P, dy.T @ v)

    def vjp_v(dy):
        return dy @ P

    return v @ P.T, (vjp_q, vjp_k, vjp_v)
    ### END SOLUTION


# %% check="position_attention" points=3
check("19.position_attention", position_attention)

# %% [markdown]
# ## 4. Mean IoU
#
# For each class $k$: the pixels that are of this class in both masks, divided by those that are in at
# least one. Then the mean over the classes. A class that is in neither mask is left out of the mean. For
# example, with `predicted = [0, 1, 1]` and `target = [0, 0, 1]` both classes have 1/2.


# %% exercise="mean_iou"
def mean_iou(predicted, target, num_classes):
    """Masks of integers, of one shape -> a number from 0 to 1."""
    ### BEGIN SOLUTION
    overlaps = []
    for k in range(num_classes):
        p, t = predicted == k, target == k
        if (p | t).any():
            overlaps.append((p & t).sum() / (p | t).sum())
    return np.mean(overlaps)
    ### END SOLUTION


# %% check="mean_iou" points=2
check("19.mean_iou", mean_iou)

# %% [markdown]
# ## 5. The module
#
# Position attention for feature maps (N, C, H, W): three 1x1 convolutions with biases called `query`, `key`
# (both to `channels // reduction` channels) and `value` (to `channels`), the attention, and
#
# $$y = \gamma\, o + x$$
#
# with a parameter `gamma` of shape (1,) that starts at 0. `t.flatten(2)` makes (N, C, L) of (N, C, H, W),
# `t.transpose(1, 2)` swaps two axes, `F.softmax` takes `dim=`.


# %% exercise="PositionAttention"
class PositionAttention(nn.Module):
    """Add to each position what it gathers from all: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels, reduction=8):
        super().__init__()
        ### BEGIN SOLUTION
        self.query = nn.Conv2d(channels, channels // reduction, 1)
        self.key = nn.Conv2d(channels, channels // reduction, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(mt.zeros(1))
        ### END SOLUTION

    def forward(self, x):
        """Attend over the positions of x (N, C, H, W); the shape stays."""
        ### BEGIN SOLUTION
        q, k, v = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        P = F.softmax(q.transpose(1, 2) @ k, dim=2)
        o = v @ P.transpose(1, 2)
        return self.gamma * o.reshape(x.shape) + x
        ### END SOLUTION


# %% check="PositionAttention" points=3
check("19.PositionAttention", PositionAttention)
