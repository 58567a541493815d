# %% [markdown]
# # Exercises 15: CBAM
#
# What is new beside squeeze and excitation: a maximum, a layer that is used twice, and a second
# question. The letters are those of [lesson 15](../notebooks/15_cbam.ipynb): `x` is a feature map
# (N, C, H, W), `z_avg` and `z_max` are what its channels are boiled down to, (N, C), and `w1` (C/r, C)
# and `w2` (C, C/r) the weights of the MLP, where r is the reduction.
#
# Run a cell, then its check. `hint("15.global_max")` gives one hint at a time, and after a try
# `solution("15.global_max")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. The maximum of a channel
#
# The greatest value of each channel, and its rule. The gradient goes to the place of the maximum; if
# several places are equally great, to the first of them, row by row. For example, a channel
# `[[1, 5], [5, 2]]` becomes 5, and its gradient goes to the upper right.
#
# Write it in primitive form, `return z, vjp_x`. The rule takes `dy` of shape (N, C), and returns the
# gradient of `x`.


# %% exercise="global_max"
def global_max(x):
    """Maximum over positions, x (N, C, H, W) -> z (N, C), and the rule dy -> dx."""
    ### BEGIN SOLUTION
    flat = x.reshape(*x.shape[:2], -1)
    first = flat.argmax(axis=2, keepdims=True)

    def vjp_x(dy):
        dx = np.zeros_like(flat)
        np.put_along_axis(dx, first, dy[:, :, None], axis=2)
        return dx.reshape(x.shape)

    return flat.max(axis=2), vjp_x
    ### END SOLUTION


# %% check="global_max" points=2
check("15.global_max", global_max)

# %% [markdown]
# ## 2. One MLP for both
#
# The scores of the channels, before the sigmoid:
#
# $$v = \max(z^\mathrm{avg} W_1^\top, 0)\, W_2^\top + \max(z^\mathrm{max} W_1^\top, 0)\, W_2^\top$$
#
# in primitive form with all four rules: `return v, (vjp_avg, vjp_max, vjp_w1, vjp_w2)`. The rules take
# `dy`, the gradient of $v$.


# %% exercise="shared_mlp"
def shared_mlp(z_avg, z_max, w1, w2):
    """z_avg, z_max (N, C), w1 (C/r, C), w2 (C, C/r) -> v (N, C), and a rule for each input."""
    ### BEGIN SOLUTION
    a_avg, a_max = z_avg @ w1.T, z_max @ w1.T
    h_avg, h_max = np.maximum(a_avg, 0), np.maximum(a_max, 0)

    def back_to_avg(dy):
        return (dy @ w2) * (a_avg > 0)

    def back_to_max(dy):
        return (dy @ w2) * (a_max > 0)

    def vjp_avg(dy):
        return back_to_avg(dy) @ w1

    def vjp_max(dy):
        return back_to_max(dy) @ w1

    def vjp_w1(dy):
        return back_to_avg(dy).T @ z_avg + back_to_max(dy).T @ z_max

    def vjp_w2(dy):
        return dy.T @ (h_avg + h_max)

    return (h_avg + h_max) @ w2.T, (vjp_avg, vjp_max, vjp_w1, vjp_w2)
    ### END SOLUTION


# %% check="shared_mlp" points=4
check("15.shared_mlp", shared_mlp)

# %% [markdown]
# ## 3. The gates of the channels
#
# The whole channel attention, the output alone: mean and maximum of each channel, the shared MLP, the
# sum of both scores, the sigmoid.


# %% exercise="channel_gates"
def channel_gates(x, w1, w2):
    """x (N, C, H, W), w1 (C/r, C), w2 (C, C/r) -> s (N, C), between 0 and 1."""
    ### BEGIN SOLUTION
    v = 0
    for z in x.mean(axis=(2, 3)), x.max(axis=(2, 3)):
        v = v + np.maximum(z @ w1.T, 0) @ w2.T
    return 1 / (1 + np.exp(-v))
    ### END SOLUTION


# %% check="channel_gates" points=2
check("15.channel_gates", channel_gates)

# %% [markdown]
# ## 4. The maps of the places
#
# What the spatial attention looks at: the mean of the channels at each place, then their maximum,
#
# $$q_{n0hw} = \frac{1}{C} \sum_c x_{nchw}, \qquad q_{n1hw} = \max_c x_{nchw}$$
#
# in primitive form, `return q, vjp_x`. The rule takes `dy` of shape (N, 2, H, W). Of equal maxima the
# first channel takes the gradient.


# %% exercise="spatial_maps"
def spatial_maps(x):
    """Mean and maximum over channels, x (N, C, H, W) -> q (N, 2, H, W), and the rule dy -> dx."""
    ### BEGIN SOLUTION
    first = x.argmax(axis=1, keepdims=True)  # (N, 1, H, W)

    def vjp_x(dy):
        dx = np.zeros_like(x)
        np.put_along_axis(dx, first, dy[:, 1:], axis=1)
        return dx + dy[:, :1] / x.shape[1]

    return np.stack([x.mean(axis=1), x.max(axis=1)], axis=1), vjp_x
    ### END SOLUTION


# %% check="spatial_maps" points=3
check("15.spatial_maps", spatial_maps)

# %% [markdown]
# ## 5. What it costs
#
# A network consists of stages, given as pairs (blocks, channels); every block gets one module without
# biases and without batch normalisation. How many weights does that add? For one block of 64 channels,
# a reduction of 16 and windows of 7x7 it is 610. You may assume that the reduction divides the
# channels.


# %% exercise="cbam_parameters"
def cbam_parameters(stages, reduction, kernel_size):
    """Weights that CBAM adds, e.g. cbam_parameters([(3, 256), (4, 512)], 16, 7)."""
    ### BEGIN SOLUTION
    return sum(
        blocks * (2 * channels * channels // reduction + 2 * kernel_size**2)
        for blocks, channels in stages
    )
    ### END SOLUTION


# %% check="cbam_parameters" points=1
check("15.cbam_parameters", cbam_parameters)

# %% [markdown]
# ## 6. The module
#
# Both questions as an `nn.Module`: first what, then where, from what was let through. Call the two
# linear layers `fc1` and `fc2` and the convolution `conv`; none has a bias. The mean stands before the
# maximum.
#
# `F.max(x, dim=1).values` are the maxima along an axis, with the rule that you wrote above;
# `F.stack` and `F.cat` put tensors together.


# %% exercise="CBAM"
class CBAM(nn.Module):
    """Weigh the channels, then the places: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels, reduction=16, kernel_size=7):
        super().__init__()
        ### BEGIN SOLUTION
        self.fc1 = nn.Linear(channels, channels // reduction, bias=False)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=False)
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        ### END SOLUTION

    def forward(self, x):
        """Weigh x (N, C, H, W); the shape stays."""
        ### BEGIN SOLUTION
        v = 0
        for z in x.mean(dim=(2, 3)), F.max(x.flatten(2), dim=2).values:
            v = v + self.fc2(F.relu(self.fc1(z)))
        s = F.sigmoid(v)
        x = x * s.reshape(*s.shape, 1, 1)
        q = F.stack([x.mean(dim=1), F.max(x, dim=1).values], dim=1)
        return x * F.sigmoid(self.conv(q))
        ### END SOLUTION


# %% check="CBAM" points=4
check("15.CBAM", CBAM)
