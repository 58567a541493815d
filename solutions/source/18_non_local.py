# %% [markdown]
# # Exercises 18: non-local networks
#
# From the weights of non-local means to the block. The letters are those of
# [lesson 18](../notebooks/18_non_local.ipynb). Except in the last exercise there is one input with `L`
# positions, and `theta`, `phi` and `g` are matrices with one row for each position: `theta` and `phi`
# (L, D), `g` (L, M). (M is often D, but need not be; nor need `phi` and `g` have as many rows as `theta`.)
#
# Run a cell, then its check. `hint("18.patch_weights")` gives one hint at a time, and after a try
# `solution("18.patch_weights")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. The weights of non-local means
#
# `patches` (L, K) has the patch of each pixel as a row of K numbers. Give the weights of all pixels $j$ for
# all pixels $i$:
#
# $$w_{ij} = \frac{e^{-d_{ij}^2 / h^2}}{\sum_k e^{-d_{ik}^2 / h^2}}, \qquad
# d_{ij}^2 = \frac{1}{K} \lVert p_i - p_j \rVert^2$$
#
# For example, two patches `[0, 0]` and `[1, 1]` have a squared distance of 1; with `h = 1` the weights are
# 0.73 for a pixel itself and 0.27 for the other. No rules are asked.


# %% exercise="patch_weights"
def patch_weights(patches, h):
    """patches (L, K) -> w (L, L); row i has the weights of all pixels j for pixel i."""
    ### BEGIN SOLUTION
    squares = (patches**2).sum(axis=1)
    distances = (squares[:, None] - 2 * patches @ patches.T + squares) / patches.shape[1]
    w = np.exp(-distances / h**2)
    return w / w.sum(axis=1, keepdims=True)
    ### END SOLUTION


# %% check="patch_weights" points=2
check("18.patch_weights", patch_weights)

# %% [markdown]
# ## 2. Dot product
#
# $$P_{ij} = \frac{1}{L'}\, \theta_i \cdot \phi_j, \qquad y = P g$$
#
# where $L'$ is the number of positions $j$, the rows of `phi`. Write it in primitive form, with all three
# rules: `return y, (vjp_theta, vjp_phi, vjp_g)`.


# %% exercise="dot_product"
def dot_product(theta, phi, g):
    """theta (L, D), phi (L', D), g (L', M) -> y (L, M), and a rule for each input."""
    ### BEGIN SOLUTION
    P = theta @ phi.T / len(phi)

    def back_to_E(dy):
        return dy @ g.T / len(phi)

    def vjp_theta(dy):
        return back_to_E(dy) @ phi

    def vjp_phi(dy):
        return back_to_E(dy).T @ theta

    def vjp_g(dy):
        return P.T @ dy

    return P @ g, (vjp_theta, vjp_phi, vjp_g)
    ### END SOLUTION


# %% check="dot_product" points=3
check("18.dot_product", dot_product)

# %% [markdown]
# ## 3. Embedded Gaussian
#
# $$P_{ij} = \mathrm{softmax}_j(\theta_i \cdot \phi_j), \qquad y = P g$$
#
# Again in primitive form. The products can be large: subtract the greatest of each row before you take
# exponentials. The rule of the softmax is that of the lesson,
# $dE_{ij} = P_{ij} (dP_{ij} - \sum_k P_{ik}\, dP_{ik})$.


# %% exercise="embedded_gaussian"
def embedded_gaussian(theta, phi, g):
    """theta (L, D), phi (L', D), g (L', M) -> y (L, M), and a rule for each input."""
    ### BEGIN SOLUTION
    E = theta @ phi.T
    e = np.exp(E - E.max(axis=1, keepdims=True))
    P = e / e.sum(axis=1, keepdims=True)

    def back_to_E(dy):
        dP = dy @ g.T
        return P * (dP - (P * dP).sum(axis=1, keepdims=True))

    def vjp_theta(dy):
        return back_to_E(dy) @ phi

    def vjp_phi(dy):
        return back_to_E(dy).T @ theta

    def vjp_g(dy):
        return P.T @ dy

    return P @ g, (vjp_theta, vjp_phi, vjp_g)
    ### END SOLUTION


# %% check="embedded_gaussian" points=4
check("18.embedded_gaussian", embedded_gaussian)

# %% [markdown]
# ## 4. Concatenation
#
# The map alone, with its rules. `w` has 2D numbers; its first half goes with `theta`, its second with
# `phi`:
#
# $$P_{ij} = \frac{1}{L'} \max(w_\theta \cdot \theta_i + w_\phi \cdot \phi_j,\ 0)$$
#
# Write it without a loop and without putting pairs together, in primitive form:
# `return P, (vjp_theta, vjp_phi, vjp_w)`. The rules take `dy`, the gradient of the map, of shape (L, L').


# %% exercise="concatenation"
def concatenation(theta, phi, w):
    """theta (L, D), phi (L', D), w (2D,) -> P (L, L'), and a rule for each input."""
    ### BEGIN SOLUTION
    D = theta.shape[1]
    w_theta, w_phi = w[:D], w[D:]
    r = (theta @ w_theta)[:, None] + phi @ w_phi

    def back_to_r(dy):
        return dy * (r > 0) / len(phi)

    def vjp_theta(dy):
        return back_to_r(dy).sum(axis=1)[:, None] * w_theta

    def vjp_phi(dy):
        return back_to_r(dy).sum(axis=0)[:, None] * w_phi

    def vjp_w(dy):
        dr = back_to_r(dy)
        return np.concatenate([theta.T @ dr.sum(axis=1), phi.T @ dr.sum(axis=0)])

    return np.maximum(r, 0) / len(phi), (vjp_theta, vjp_phi, vjp_w)
    ### END SOLUTION


# %% check="concatenation" points=4
check("18.concatenation", concatenation)

# %% [markdown]
# ## 5. The module
#
# The block for images, with the embedded Gaussian: $z = \mathrm{BN}(W_z\, y) + x$. Call its parts `theta`,
# `phi`, `g` (1 x 1 convolutions from `channels` to `channels // 2`, no biases), `w_z` (a 1 x 1
# convolution back, no bias) and `bn` (`nn.BatchNorm2d`, whose `weight` starts at zero:
# `nn.init.zeros_`).


# %% exercise="NonLocalBlock"
class NonLocalBlock(nn.Module):
    """z = BN(W_z softmax(theta phi^T) g) + x.  (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels):
        super().__init__()
        ### BEGIN SOLUTION
        self.theta = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.phi = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.w_z = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)
        ### END SOLUTION

    def forward(self, x):
        """Add to x (N, C, H, W) what each position gathers from all; the shape stays."""
        ### BEGIN SOLUTION
        N, C, H, W = x.shape
        theta, phi, g = (part(x).flatten(2) for part in (self.theta, self.phi, self.g))
        P = F.softmax(theta.transpose(1, 2) @ phi, dim=2)
        y = (P @ g.transpose(1, 2)).transpose(1, 2).reshape(N, C // 2, H, W)
        return self.bn(self.w_z(y)) + x
        ### END SOLUTION


# %% check="NonLocalBlock" points=4
check("18.NonLocalBlock", NonLocalBlock)
