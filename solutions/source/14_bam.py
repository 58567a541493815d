# %% [markdown]
# # Exercises 14: bottleneck attention module
#
# From the combination of two branches to the module. The letters are those of
# [lesson 14](../notebooks/14_bam.ipynb): `x` is a feature map (N, C, H, W), `u` the answer of the channel
# branch (N, C), `v` that of the spatial branch (N, H, W), and $M = \sigma(u + v)$ the map.
#
# Run a cell, then its check. `hint("14.combine")` gives one hint at a time, and after a try
# `solution("14.combine")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. Combine
#
# $$m_{nchw} = u_{nc} + v_{nhw}, \qquad M = \frac{1}{1 + e^{-m}}, \qquad y = (1 + M) \odot x$$
#
# For example, with one channel and one position, $x = 4$, $u = 1$ and $v = -1$ give $m = 0$, $M = 1/2$ and
# $y = 6$. Write it in primitive form: `return y, (vjp_x, vjp_u, vjp_v)`. A rule takes `dy`, of the shape of
# `y`, and returns the gradient of its input, of that input's shape.


# %% exercise="combine"
def combine(x, u, v):
    """x (N, C, H, W), u (N, C), v (N, H, W) -> y = (1 + sigmoid(u + v)) x, and three rules."""
    ### BEGIN SOLUTION
    M = 1 / (1 + np.exp(-(u[:, :, None, None] + v[:, None])))

    def back_to_m(dy):
        return dy * x * M * (1 - M)

    def vjp_x(dy):
        return (1 + M) * dy

    def vjp_u(dy):
        return back_to_m(dy).sum(axis=(2, 3))

    def vjp_v(dy):
        return back_to_m(dy).sum(axis=1)

    return (1 + M) * x, (vjp_x, vjp_u, vjp_v)
    ### END SOLUTION


# %% check="combine" points=3
check("14.combine", combine)

# %% [markdown]
# ## 2. Combine by a product
#
# The same with the product of the authors' program, $m_{nchw} = u_{nc}\, v_{nhw}$, again with all three
# rules.


# %% exercise="combine_product"
def combine_product(x, u, v):
    """x (N, C, H, W), u (N, C), v (N, H, W) -> y = (1 + sigmoid(u v)) x, and three rules."""
    ### BEGIN SOLUTION
    a, b = u[:, :, None, None], v[:, None]
    M = 1 / (1 + np.exp(-a * b))

    def back_to_m(dy):
        return dy * x * M * (1 - M)

    def vjp_x(dy):
        return (1 + M) * dy

    def vjp_u(dy):
        return (back_to_m(dy) * b).sum(axis=(2, 3))

    def vjp_v(dy):
        return (back_to_m(dy) * a).sum(axis=1)

    return (1 + M) * x, (vjp_x, vjp_u, vjp_v)
    ### END SOLUTION


# %% check="combine_product" points=3
check("14.combine_product", combine_product)

# %% [markdown]
# ## 3. Which positions are read
#
# In one dimension: a map has positions 0 to `size - 1`. Two kernels of three taps, both with dilation
# `dilation` and as much padding, stand one behind the other. Which positions of the map does the result at
# `middle` depend on? Padding is no position. Return them as a list in rising order: with size 9, middle 4 and
# dilation 1 it is `[2, 3, 4, 5, 6]`.


# %% exercise="positions_read"
def positions_read(size, middle, dilation):
    """Positions that two dilated kernels read, e.g. positions_read(8, 0, 2) == [0, 2, 4]."""
    ### BEGIN SOLUTION
    taps = [middle + step * dilation for step in (-2, -1, 0, 1, 2)]
    return [position for position in taps if 0 <= position < size]
    ### END SOLUTION


# %% check="positions_read" points=2
check("14.positions_read", positions_read)

# %% [markdown]
# ## 4. What it costs
#
# Count the parameters of one module of the paper's form. The channel branch has two linear layers, $C$ to
# $C/r$ and back; the spatial branch a 1x1 convolution $C$ to $C/r$, two 3x3 convolutions that keep $C/r$, and
# a 1x1 convolution to one channel. Every layer has biases. Batch normalisation, with a weight and a bias for
# each channel, stands at the end of both branches. $C/r$ is rounded down. For 4 channels and a reduction of
# 2 it is 121.


# %% exercise="extra_parameters"
def extra_parameters(channels, reduction):
    """Parameters of one BAM, e.g. extra_parameters(4, 2) == 121."""
    ### BEGIN SOLUTION
    k = channels // reduction
    channel = (channels * k + k) + (k * channels + channels) + 2 * channels
    spatial = (channels * k + k) + 2 * (9 * k * k + k) + (k + 1) + 2
    return channel + spatial
    ### END SOLUTION


# %% check="extra_parameters" points=2
check("14.extra_parameters", extra_parameters)

# %% [markdown]
# ## 5. The module
#
# Two branches, each an `nn.Sequential`, with `hidden = channels // reduction`:
#
# - `self.channel`: `nn.AdaptiveAvgPool2d(1)`, a 1x1 convolution to `hidden`, ReLU, a 1x1 convolution back,
#   `nn.BatchNorm2d`;
# - `self.spatial`: a 1x1 convolution to `hidden`, ReLU, a dilated 3x3, ReLU, another dilated 3x3, ReLU, a 1x1
#   convolution to one channel, `nn.BatchNorm2d`.
#
# All convolutions have biases, and the size of the map stays.


# %% exercise="BAM"
class BAM(nn.Module):
    """Strengthen what counts, where it counts: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels, reduction=16, dilation=4):
        super().__init__()
        ### BEGIN SOLUTION
        hidden = channels // reduction
        wide = {"padding": dilation, "dilation": dilation}
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.BatchNorm2d(channels),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, **wide),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, **wide),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
            nn.BatchNorm2d(1),
        )
        ### END SOLUTION

    def forward(self, x):
        """Strengthen x (N, C, H, W) by 1 + M; the shape stays."""
        ### BEGIN SOLUTION
        return x * (1 + F.sigmoid(self.channel(x) + self.spatial(x)))
        ### END SOLUTION


# %% check="BAM" points=4
check("14.BAM", BAM)
