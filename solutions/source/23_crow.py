# %% [markdown]
# # Exercises 23: cross-dimensional weighting
#
# Two kinds of weights, a rule by hand, the module, and a second round of search. The letters are those of
# [lesson 23](../notebooks/23_crow.ipynb). Feature maps come from a ReLU: no number in them is negative.
#
# Run a cell, then its check. `hint("23.spatial_weights")` gives one hint at a time, and after a try
# `solution("23.spatial_weights")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. The weights of the places
#
# For the feature map of one image:
#
# $$s'_{ij} = \sum_c x_{cij}, \qquad
# s_{ij} = \left(\frac{s'_{ij}}{\big(\sum_{kl} s'^{\,a}_{kl}\big)^{1/a}}\right)^{1/b}$$
#
# Example: two channels on one row of two places, `x = [[[1, 4]], [[2, 0]]]`, with $a = b = 2$. The activity is
# `[[3, 4]]`, its norm 5, and the weights are the roots of 3/5 and 4/5.


# %% exercise="spatial_weights"
def spatial_weights(x, a=2, b=2):
    """x (C, H, W), somewhere positive -> s (H, W)."""
    ### BEGIN SOLUTION
    activity = x.sum(axis=0)
    norm = (activity**a).sum() ** (1 / a)
    return (activity / norm) ** (1 / b)
    ### END SOLUTION


# %% check="spatial_weights" points=2
check("23.spatial_weights", spatial_weights)

# %% [markdown]
# ## 2. The weights of the channels
#
# Let $q_c$ be the share of places at which channel $c$ is active, that is, greater than 0. Then
#
# $$t_c = \log \frac{\sum_d q_d}{q_c}$$
#
# with the natural logarithm, and $t_c = 0$ for a channel that is active nowhere.
#
# Example: of two channels one is active everywhere, the other at half of the places. Their weights are
# $\log 1.5$ and $\log 3$.


# %% exercise="channel_weights"
def channel_weights(x):
    """x (C, H, W) -> t (C,)."""
    ### BEGIN SOLUTION
    q = (x > 0).mean(axis=(1, 2))
    t = np.zeros(len(q))
    active = q > 0
    t[active] = np.log(q.sum() / q[active])
    return t
    ### END SOLUTION


# %% check="channel_weights" points=2
check("23.channel_weights", channel_weights)

# %% [markdown]
# ## 3. The weighted sum, with its rule
#
# The weights of places alone, for one image whose activity $s'$ is positive everywhere:
#
# $$y_c = \sum_{ij} s_{ij}\, x_{cij}$$
#
# in primitive form: `return y, vjp_x`. The gradient reaches $x$ through the sum and through the weights. With
# $e_{ij} = s_{ij} \sum_c dy_c\, x_{cij}$ and the shares $p_{kl} = s'^{\,a}_{kl} / \sum_{ij} s'^{\,a}_{ij}$,
#
# $$dx_{ckl} = s_{kl}\, dy_c + \frac{e_{kl} - p_{kl} \sum_{ij} e_{ij}}{b\, s'_{kl}}$$


# %% exercise="weighted_sum"
def weighted_sum(x, *, a=2, b=2):
    """x (C, H, W) -> y (C,), and the rule of x: dy (C,) -> dx (C, H, W)."""
    ### BEGIN SOLUTION
    activity = x.sum(axis=0)
    norm = (activity**a).sum() ** (1 / a)
    s = (activity / norm) ** (1 / b)
    y = (s * x).sum(axis=(1, 2))

    def vjp_x(dy):
        column = dy[:, None, None]
        e = s * (column * x).sum(axis=0)
        p = (activity / norm) ** a
        through_s = (e - p * e.sum()) / (b * activity)
        return s * column + through_s

    return y, vjp_x
    ### END SOLUTION


# %% check="weighted_sum" points=4
check("23.weighted_sum", weighted_sum)

# %% [markdown]
# ## 4. The module
#
# For Tensors, a batch of feature maps, with both kinds of weights; $y_c = t_c \sum_{ij} s_{ij}\, x_{cij}$ for each
# image. There are no parameters. In the maps of the check something is active at every place, and every channel is
# active somewhere. `F.normalize(z, p=p, dim=dims)` divides z by its p-norm over the axes dims. `x > 0` gives a
# Tensor of truth values; `.to(x.dtype)` makes numbers of it.


# %% exercise="CroW"
class CroW(nn.Module):
    """Sum over places, weighed by place and by channel: (N, C, H, W) -> (N, C)."""

    def __init__(self, a=2, b=2):
        super().__init__()
        ### BEGIN SOLUTION
        self.a, self.b = a, b
        ### END SOLUTION

    def forward(self, x):
        """x (N, C, H, W) -> y (N, C)."""
        ### BEGIN SOLUTION
        s = F.normalize(x.sum(dim=1), p=self.a, dim=(1, 2)) ** (1 / self.b)
        q = (x > 0).to(x.dtype).mean(dim=(2, 3))
        t = (q.sum(dim=1, keepdim=True) / q).log()
        return t * (x * s.unsqueeze(1)).sum(dim=(2, 3))
        ### END SOLUTION


# %% check="CroW" points=3
check("23.CroW", CroW)

# %% [markdown]
# ## 5. Ask again
#
# The first answers to a query are mostly right, if the search is any good. So add them to the query, and ask once
# more with that. For one query `q` (D,) and a gallery `g` (G, D) of descriptors, all of length 1:
#
# - the likeness of the query to each descriptor is their product; the `k` most alike are the first answers;
# - the new query is the old one plus the **sum** of these, divided by its length.
#
# `np.argsort(-values, kind="stable")` gives the numbers of the values from the largest to the smallest.


# %% exercise="expanded_query"
def expanded_query(q, g, k):
    """q (D,), g (G, D), all of length 1, k answers to add -> a new query (D,) of length 1."""
    ### BEGIN SOLUTION
    first = np.argsort(-(g @ q), kind="stable")[:k]
    both = q + g[first].sum(axis=0)
    return both / np.linalg.norm(both)
    ### END SOLUTION


# %% check="expanded_query" points=2
check("23.expanded_query", expanded_query)
