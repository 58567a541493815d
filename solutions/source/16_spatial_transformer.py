# %% [markdown]
# # Exercises 16: spatial transformers
#
# From the grid to the sampler, and from its gradients to the module. The letters are those of
# [lesson 16](../notebooks/16_spatial_transformer.ipynb): `x` is a batch of images (N, C, H, W), `A` one
# affine map for each (N, 2, 3), `grid` the places that are read (N, P, Q, 2), each a pair (u, v) with
# u to the right and v down. Coordinates run from -1, the outer edge of the first pixel, to 1, the outer
# edge of the last.
#
# Run a cell, then its check. `hint("16.affine_places")` gives one hint at a time, and after a try
# `solution("16.affine_places")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. The grid
#
# Pixel (p, q) of the result has the coordinates $u^t_q = (2q + 1) / Q - 1$ and
# $v^t_p = (2p + 1) / P - 1$, and is read at
#
# $$\begin{pmatrix} u_{pq} \\ v_{pq} \end{pmatrix} =
# A \begin{pmatrix} u^t_q \\ v^t_p \\ 1 \end{pmatrix}$$
#
# For example, with `P = 1`, `Q = 2` and the identity, the two places are `(-0.5, 0)` and `(0.5, 0)`.
# Write it in primitive form: `return grid, vjp_A`.


# %% exercise="affine_places"
def affine_places(A, *, P, Q):
    """A (N, 2, 3) -> grid (N, P, Q, 2), and the rule dy (N, P, Q, 2) -> dA (N, 2, 3)."""
    ### BEGIN SOLUTION
    u, v = (2 * np.arange(Q) + 1) / Q - 1, (2 * np.arange(P) + 1) / P - 1
    t = np.stack([np.tile(u, P), np.repeat(v, Q), np.ones(P * Q)], axis=1)  # (P Q, 3)

    def vjp_A(dy):
        return dy.reshape(len(A), P * Q, 2).swapaxes(1, 2) @ t

    return (t @ A.swapaxes(1, 2)).reshape(len(A), P, Q, 2), vjp_A
    ### END SOLUTION


# %% check="affine_places" points=3
check("16.affine_places", affine_places)

# %% [markdown]
# ## 2. Attention: a scale and a place
#
# From three numbers $\theta = (s, t_u, t_v)$ to a map that neither turns nor stretches:
#
# $$A = \begin{pmatrix} s & 0 & t_u \\ 0 & s & t_v \end{pmatrix}$$
#
# In primitive form: `return A, vjp_theta`.


# %% exercise="attention_map"
def attention_map(theta):
    """theta (N, 3) -> A (N, 2, 3), and the rule dy (N, 2, 3) -> dtheta (N, 3)."""
    ### BEGIN SOLUTION
    A = np.zeros((len(theta), 2, 3))
    A[:, 0, 0] = A[:, 1, 1] = theta[:, 0]
    A[:, :, 2] = theta[:, 1:]

    def vjp_theta(dy):
        return np.stack([dy[:, 0, 0] + dy[:, 1, 1], dy[:, 0, 2], dy[:, 1, 2]], axis=1)

    return A, vjp_theta
    ### END SOLUTION


# %% check="attention_map" points=2
check("16.attention_map", attention_map)

# %% [markdown]
# ## 3. Between four pixels
#
# What is read of a single image (H, W) at a row h and a column w? Both are counted in pixels, and need
# not be whole, nor inside. The tent $k(d) = \max(0, 1 - |d|)$ weighs the pixels around, and what lies
# outside the image is zero:
#
# $$y = \sum_{i,j} k(h - i)\, k(w - j)\; x_{ij}$$
#
# For example, of `[[0, 4], [8, 12]]` at `h = 0.5, w = 0.25` it is 5. The output alone is asked.


# %% exercise="read_pixel"
def read_pixel(x, h, w):
    """x (H, W), a place (h, w) in pixels -> one number."""
    ### BEGIN SOLUTION
    H, W = x.shape
    rows = np.maximum(0, 1 - abs(h - np.arange(H)))
    columns = np.maximum(0, 1 - abs(w - np.arange(W)))
    return rows @ x @ columns
    ### END SOLUTION


# %% check="read_pixel" points=2
check("16.read_pixel", read_pixel)

# %% [markdown]
# ## 4. The slope of an image
#
# How does that number change when the place moves a little? Return the derivatives of what
# `read_pixel` gives with respect to h and to w, as an array of two numbers `(dy/dh, dy/dw)`. The place
# lies inside the image, and neither h nor w is whole. For `[[0, 4], [8, 12]]` they are 8 and 4
# everywhere.


# %% exercise="slopes"
def slopes(x, h, w):
    """x (H, W), a place (h, w) between four pixels -> (dy/dh, dy/dw), an array (2,)."""
    ### BEGIN SOLUTION
    i, j = int(np.floor(h)), int(np.floor(w))
    alpha, beta = w - j, h - i
    x00, x01, x10, x11 = x[i, j], x[i, j + 1], x[i + 1, j], x[i + 1, j + 1]
    down = (1 - alpha) * (x10 - x00) + alpha * (x11 - x01)
    right = (1 - beta) * (x01 - x00) + beta * (x11 - x10)
    return np.array([down, right])
    ### END SOLUTION


# %% check="slopes" points=2
check("16.slopes", slopes)

# %% [markdown]
# ## 5. The sampler
#
# The whole of it, for a batch, with both rules: `return y, (vjp_x, vjp_grid)`. The grid is given in
# coordinates; in pixels, $w = ((u + 1) W - 1) / 2$ and $h = ((v + 1) H - 1) / 2$. What lies outside the
# image is zero.
#
# It need not be fast. One way is to write the weights out: arrays of the tents `k(h - i)` of shape
# (N, P, Q, H) and `k(w - j)` of shape (N, P, Q, W), and `np.einsum`. The rule of the grid then needs
# the slope of the tent. Another way is that of the lesson: four neighbours, by their indices. No place
# in the checks lies on a pixel, and some lie far outside.


# %% exercise="sample"
def sample(x, grid):
    """x (N, C, H, W), grid (N, P, Q, 2) -> y (N, C, P, Q), and the rules of x and of grid."""
    ### BEGIN SOLUTION
    H, W = x.shape[2:]
    from_column = ((grid[..., :1] + 1) * W - 1) / 2 - np.arange(W)  # (N, P, Q, W)
    from_row = ((grid[..., 1:] + 1) * H - 1) / 2 - np.arange(H)  # (N, P, Q, H)
    across, down = np.maximum(0, 1 - abs(from_column)), np.maximum(0, 1 - abs(from_row))

    def slope(distance):
        return -np.sign(distance) * (abs(distance) < 1)

    def vjp_x(dy):
        return np.einsum("ncpq,npqi,npqj->ncij", dy, down, across)

    def vjp_grid(dy):
        dw = np.einsum("ncpq,npqi,npqj,ncij->npq", dy, down, slope(from_column), x)
        dh = np.einsum("ncpq,npqi,npqj,ncij->npq", dy, slope(from_row), across, x)
        return np.stack([W / 2 * dw, H / 2 * dh], axis=-1)

    return np.einsum("ncij,npqi,npqj->ncpq", x, down, across), (vjp_x, vjp_grid)
    ### END SOLUTION


# %% check="sample" points=4
check("16.sample", sample)

# %% [markdown]
# ## 6. The module
#
# With an affine grid and a localisation network of two linear layers: `fc1` from all numbers of an
# image to `features`, a ReLU, and `fc2` to six numbers, row by row those of a map (2, 3). Use
# `F.affine_grid(theta, size=x.shape)` with theta as (N, 2, 3), and `F.grid_sample(x, grid)`. At the start
# the module is to change nothing: the weight of `fc2` is zero (`nn.init.zeros_` writes into a parameter)
# and its bias is the identity (a new `nn.Parameter`).


# %% exercise="SpatialTransformer"
class SpatialTransformer(nn.Module):
    """Read an image where a small network says: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels, height, width, features=8):
        super().__init__()
        ### BEGIN SOLUTION
        self.fc1 = nn.Linear(channels * height * width, features)
        self.fc2 = nn.Linear(features, 6)
        nn.init.zeros_(self.fc2.weight)
        self.fc2.bias = nn.Parameter([1.0, 0, 0, 0, 1, 0])
        ### END SOLUTION

    def forward(self, x):
        """Look at x (N, C, H, W), and read it through the map found; the shape stays."""
        ### BEGIN SOLUTION
        theta = self.fc2(F.relu(self.fc1(x.reshape(len(x), -1))))
        grid = F.affine_grid(theta.reshape(-1, 2, 3), size=x.shape)
        return F.grid_sample(x, grid)
        ### END SOLUTION


# %% check="SpatialTransformer" points=3
check("16.SpatialTransformer", SpatialTransformer)
