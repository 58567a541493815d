# %% [markdown]
# # Exercises 17: residual attention
#
# From the product of trunk and mask to the hourglass. The letters are those of
# [lesson 17](../notebooks/17_residual_attention.ipynb): `T` is what the trunk makes, `M` the mask, both
# (N, C, H, W); an hourglass has `halvings` levels.
#
# Run a cell, then its check. `hint("17.attend")` gives one hint at a time, and after a try
# `solution("17.attend")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. Attend
#
# The product of the residual form, from the numbers $v$ in front of the sigmoid:
#
# $$y = (1 + M)\, T, \qquad M = \sigma(v) = \frac{1}{1 + e^{-v}}$$
#
# For example, with `T = 2` and `v = 0` it is 3. Write it in primitive form with both rules:
# `return y, (vjp_T, vjp_v)`.


# %% exercise="attend"
def attend(T, v):
    """T and v (N, C, H, W) -> y (N, C, H, W), and the rules of T and of v."""
    ### BEGIN SOLUTION
    M = 1 / (1 + np.exp(-v))

    def vjp_T(dy):
        return (1 + M) * dy

    def vjp_v(dy):
        return T * dy * M * (1 - M)

    return (1 + M) * T, (vjp_T, vjp_v)
    ### END SOLUTION


# %% check="attend" points=2
check("17.attend", attend)

# %% [markdown]
# ## 2. Enlarge
#
# Bilinear enlargement along one axis is a matrix $A: (H, P)$. With corners on corners, position $i$ of
# the $H$ large ones lies at $i\,(P - 1)/(H - 1)$ among the $P$ small ones, and takes the two pixels around it,
# the nearer one with the larger weight. From 2 to 4 the second column is `[0, 1/3, 2/3, 1]`. There are
# at least two pixels on either side, and $H \ge P$.


# %% exercise="enlarge"
def enlarge(H, P):
    """The matrix (H, P) that enlarges P pixels to H, corners on corners."""
    ### BEGIN SOLUTION
    A = np.zeros((H, P))
    for i in range(H):
        place = i * (P - 1) / (H - 1)
        left = min(int(place), P - 2)
        A[i, left] = 1 - (place - left)
        A[i, left + 1] = place - left
    return A
    ### END SOLUTION


# %% check="enlarge" points=2
check("17.enlarge", enlarge)

# %% [markdown]
# ## 3. A chain
#
# Modules stand one behind the other, and their trunks hand on what they get. The masks are given as an array of $m$
# numbers. By what factor has a signal been multiplied behind each of the modules? For masks `[0.5, 0.5]` the naive
# chain gives `[0.5, 0.25]`, the residual one `[1.5, 2.25]`.


# %% exercise="chain_factor"
def chain_factor(masks, residual=True):
    """Masks (m,) -> the factor behind each of the m modules, (m,)."""
    ### BEGIN SOLUTION
    return np.cumprod(1 + masks if residual else masks)
    ### END SOLUTION


# %% check="chain_factor" points=1
check("17.chain_factor", chain_factor)

# %% [markdown]
# ## 4. What a mask costs
#
# How many units has the hourglass of a mask with $d$ halvings? On every level but the innermost there are
# $r$ units on the way down, one in the skip and $r$ on the way up; on the innermost, $r$ down and $r$ up. For
# $d = 1$ and $r = 1$ it is 2.


# %% exercise="mask_units"
def mask_units(d, r):
    """Units of an hourglass with d halvings and r units between pools."""
    ### BEGIN SOLUTION
    return 2 * r + (d - 1) * (2 * r + 1)
    ### END SOLUTION


# %% check="mask_units" points=1
check("17.mask_units", mask_units)

# %% [markdown]
# ## 5. The channel mask
#
# The paper's second activation divides the channels at each position by their length:
#
# $$M_{nchw} = \frac{v_{nchw}}{\lVert v_{n \cdot hw} \rVert}, \qquad
# \lVert v_{n \cdot hw} \rVert = \sqrt{\textstyle\sum_c v_{nchw}^2}$$
#
# Write it in primitive form, `return M, vjp_v`. Every channel enters the length, so each gets something from the
# gradient of all the others. No position is zero throughout.


# %% exercise="channel_mask"
def channel_mask(v):
    """v (N, C, H, W) -> M (N, C, H, W) of length 1 over the channels, and the rule of v."""
    ### BEGIN SOLUTION
    length = np.sqrt((v**2).sum(axis=1, keepdims=True))
    M = v / length

    def vjp_v(dy):
        return (dy - M * (M * dy).sum(axis=1, keepdims=True)) / length

    return M, vjp_v
    ### END SOLUTION


# %% check="channel_mask" points=3
check("17.channel_mask", channel_mask)

# %% [markdown]
# ## 6. The hourglass
#
# As an `nn.Module`. So that the shape of the recursion is all there is to see, a unit is one 3x3 convolution
# with padding 1 and without bias. With $d$ halvings,
#
# $$a = \mathrm{down}(\mathrm{pool}(x)), \qquad
# y = \mathrm{enlarge}(\mathrm{up}(\mathrm{skip}(a) + \mathrm{inner}(a)))$$
#
# where `pool` is `F.max_pool2d(x, 3, stride=2, padding=1)`, `inner` an hourglass with one halving fewer, and `enlarge`
# is `F.interpolate` to the size of `x`, `mode="bilinear"`, `align_corners=True`. The innermost, with one halving,
# has neither skip nor inner: $y = \mathrm{enlarge}(\mathrm{up}(a))$. Call the parts `down`, `skip`, `inner`, `up`.


# %% exercise="Hourglass"
class Hourglass(nn.Module):
    """Down, a skip beside a smaller hourglass, up: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels, halvings):
        super().__init__()
        ### BEGIN SOLUTION
        self.halvings = halvings
        self.down = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        if halvings > 1:
            self.skip = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.inner = Hourglass(channels, halvings - 1)
        self.up = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        ### END SOLUTION

    def forward(self, x):
        """Map x (N, C, H, W) to the same shape."""
        ### BEGIN SOLUTION
        a = self.down(F.max_pool2d(x, 3, stride=2, padding=1))
        if self.halvings > 1:
            a = self.skip(a) + self.inner(a)
        return F.interpolate(self.up(a), size=x.shape[2:], mode="bilinear", align_corners=True)
        ### END SOLUTION


# %% check="Hourglass" points=3
check("17.Hourglass", Hourglass)
