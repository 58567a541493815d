# %% [markdown]
# # Exercises 13: squeeze and excitation
#
# From the three steps of the module to the module itself. The letters are those of
# [lesson 13](../notebooks/13_squeeze_and_excitation.ipynb): `x` is a feature map (N, C, H, W), `z`
# its squeeze (N, C), `s` the gates (N, C), `w1` (C/r, C) and `w2` (C, C/r) the two weights.
#
# Run a cell, then its check. `hint("13.squeeze")` gives one hint at a time, and after a try
# `solution("13.squeeze")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. Squeeze
#
# The mean of each channel over its positions, and its rule:
#
# $$z_{nc} = \frac{1}{HW} \sum_{h,w} x_{nchw}$$
#
# For example, a channel `[[1, 3], [5, 7]]` becomes 4. Write it in primitive form: return the output
# and the rule, `return z, vjp_x`. The rule takes `dy`, the gradient of the output, of shape (N, C), and
# returns the gradient of `x`, of the shape of `x`.


# %% exercise="squeeze"
def squeeze(x):
    """Mean over positions, x (N, C, H, W) -> z (N, C), and the rule dy -> dx."""
    ### BEGIN SOLUTION
    H, W = x.shape[2:]
    z = x.mean(axis=(2, 3))

    def vjp_x(dy):
        return np.broadcast_to(dy[:, :, None, None] / (H * W), x.shape)

    return z, vjp_x
    ### END SOLUTION


# %% check="squeeze" points=2
check("13.squeeze", squeeze)

# %% [markdown]
# ## 2. Excite
#
# From the means to the gates:
#
# $$s = \sigma\left(\max(z W_1^\top, 0)\, W_2^\top\right), \qquad \sigma(v) = \frac{1}{1 + e^{-v}}$$
#
# The output alone is asked here, without rules.


# %% exercise="excite"
def excite(z, w1, w2):
    """z (N, C), w1 (C/r, C), w2 (C, C/r) -> s (N, C), between 0 and 1."""
    ### BEGIN SOLUTION
    h = np.maximum(z @ w1.T, 0)
    return 1 / (1 + np.exp(-(h @ w2.T)))
    ### END SOLUTION


# %% check="excite" points=2
check("13.excite", excite)

# %% [markdown]
# ## 3. Scale
#
# Every position of a channel is multiplied by the channel's gate, $y_{nchw} = s_{nc}\, x_{nchw}$.
# Write it in primitive form with both rules: `return y, (vjp_x, vjp_s)`.


# %% exercise="scale"
def scale(x, s):
    """x (N, C, H, W), s (N, C) -> y (N, C, H, W), and the rules of x and of s."""
    ### BEGIN SOLUTION
    gate = s[:, :, None, None]

    def vjp_x(dy):
        return dy * gate

    def vjp_s(dy):
        return (dy * x).sum(axis=(2, 3))

    return x * gate, (vjp_x, vjp_s)
    ### END SOLUTION


# %% check="scale" points=2
check("13.scale", scale)

# %% [markdown]
# ## 4. The whole, with its rules
#
# Now all three steps in one primitive: `return y, (vjp_x, vjp_w1, vjp_w2)`. Remember that `x` reaches
# the output on two paths.


# %% exercise="squeeze_excite"
def squeeze_excite(x, w1, w2):
    """x (N, C, H, W), w1 (C/r, C), w2 (C, C/r) -> y (N, C, H, W), and a rule for each input."""
    ### BEGIN SOLUTION
    H, W = x.shape[2:]
    z = x.mean(axis=(2, 3))
    a = z @ w1.T
    h = np.maximum(a, 0)
    s = 1 / (1 + np.exp(-(h @ w2.T)))
    gate = s[:, :, None, None]

    def back_to_v(dy):
        ds = (dy * x).sum(axis=(2, 3))
        return ds * s * (1 - s)

    def back_to_a(dy):
        return (back_to_v(dy) @ w2) * (a > 0)

    def vjp_x(dy):
        dz = back_to_a(dy) @ w1
        return gate * dy + dz[:, :, None, None] / (H * W)

    def vjp_w1(dy):
        return back_to_a(dy).T @ z

    def vjp_w2(dy):
        return back_to_v(dy).T @ h

    return gate * x, (vjp_x, vjp_w1, vjp_w2)
    ### END SOLUTION


# %% check="squeeze_excite" points=4
check("13.squeeze_excite", squeeze_excite)

# %% [markdown]
# ## 5. The module
#
# The same as an `nn.Module`, put together from parts that have their rules: `nn.Linear`, `F.relu`,
# `F.sigmoid` and the methods of tensors (which say `dim=` where NumPy says `axis=`). Call the two linear
# layers `fc1` and `fc2`; they have no biases.


# %% exercise="SqueezeExcitation"
class SqueezeExcitation(nn.Module):
    """Weigh each channel by what the whole image holds: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels, reduction=16):
        super().__init__()
        ### BEGIN SOLUTION
        self.fc1 = nn.Linear(channels, channels // reduction, bias=False)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=False)
        ### END SOLUTION

    def forward(self, x):
        """Weigh the channels of x (N, C, H, W); the shape stays."""
        ### BEGIN SOLUTION
        z = x.mean(dim=(2, 3))
        s = F.sigmoid(self.fc2(F.relu(self.fc1(z))))
        return x * s.reshape(*s.shape, 1, 1)
        ### END SOLUTION


# %% check="SqueezeExcitation" points=3
check("13.SqueezeExcitation", SqueezeExcitation)

# %% [markdown]
# ## 6. Its place in a residual block
#
# A residual block has a branch $R$ and adds $x$ to what the branch makes. The module can stand in four
# places:
#
# | placement | the block |
# |---|---|
# | standard | $y = \max(\mathrm{SE}(R(x)) + x,\ 0)$ |
# | pre | $y = \max(R(\mathrm{SE}(x)) + x,\ 0)$ |
# | post | $y = \mathrm{SE}(\max(R(x) + x,\ 0))$ |
# | identity | $y = \max(R(x) + \mathrm{SE}(x),\ 0)$ |
#
# `residual` and `attention` are functions of an array (N, C, H, W), and give one of the same shape. For
# example, with `residual = lambda x: 3 * x` and `attention = lambda x: x / 2`, an element 2 becomes 5 in
# the standard place and 4 in "post". The output alone is asked here.


# %% exercise="place"
def place(x, residual, attention, placement):
    """A residual block, x (N, C, H, W) -> y; placement: standard, pre, post or identity."""
    ### BEGIN SOLUTION
    if placement == "standard":
        return np.maximum(attention(residual(x)) + x, 0)
    if placement == "pre":
        return np.maximum(residual(attention(x)) + x, 0)
    if placement == "post":
        return attention(np.maximum(residual(x) + x, 0))
    return np.maximum(residual(x) + attention(x), 0)
    ### END SOLUTION


# %% check="place" points=2
check("13.place", place)
