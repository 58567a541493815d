# %% [markdown]
# # Exercises 12: local and global recalibration
#
# The frame $y_i = \sum_j w_{ij}(x)\, x_j$, its tables of weights, and the two layers that make their weights from
# the input. The letters are those of [lesson 12](../notebooks/12_local_global_recalibration.ipynb): `x` is a
# feature map as a table (L, C), one row for each of $L = HW$ positions, numbered row by row; `w` is (L, L).
#
# Run a cell, then its check. `hint("12.convolution_weights")` gives one hint at a time, and after a try
# `solution("12.convolution_weights")` shows a way to do it.

# %%
import numpy as np

from minitorch_attn.course import check

# %% [markdown]
# ## 1. A convolution as a table
#
# Position $i$ has row $p$ and column $q$, $i = pW + q$. A tap $(r, s)$ of the kernel looks at row
# $p + r - \lfloor R/2 \rfloor$ and column $q + s - \lfloor S/2 \rfloor$; beyond the edges there is nothing. Write
# the table $w$ with $y = w x$. For example, the kernel `[[1, 2, 3]]` on a map of one row and three columns gives
# `[[2, 3, 0], [1, 2, 3], [0, 1, 2]]`.


# %% exercise="convolution_weights"
def convolution_weights(kernel, H, W):
    """kernel (R, S) with odd sides -> the table w (HW, HW) of a convolution that keeps the size."""
    ### BEGIN SOLUTION
    R, S = kernel.shape
    w = np.zeros((H * W, H * W))
    for p, q, r, s in np.ndindex(H, W, R, S):
        row, column = p + r - R // 2, q + s - S // 2
        if 0 <= row < H and 0 <= column < W:
            w[p * W + q, row * W + column] = kernel[r, s]
    return w
    ### END SOLUTION


# %% check="convolution_weights" points=2
check("12.convolution_weights", convolution_weights)

# %% [markdown]
# ## 2. Weights made from the input
#
# $$e_{ij} = t\, x_i \cdot x_j, \qquad w_{ij} = \frac{\exp e_{ij}}{\sum_k \exp e_{ik}}$$
#
# with the scale $t$. For example, two equal vectors share their attention: all weights are one half. The vectors
# may be long; the weights should come out all the same.


# %% exercise="attention_weights"
def attention_weights(x, scale):
    """x (L, C) -> w (L, L), e.g. attention_weights(np.ones((2, 3)), 1.0) is [[.5, .5], [.5, .5]]."""
    ### BEGIN SOLUTION
    e = scale * x @ x.T
    exponentials = np.exp(e - e.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
    ### END SOLUTION


# %% check="attention_weights" points=2
check("12.attention_weights", attention_weights)

# %% [markdown]
# ## 3. Attention with its rule
#
# $y = w x$ with the weights of exercise 2, in primitive form: `return y, vjp_x`. `x` is there as the values, as the
# one who looks and as the one looked at, and its gradient has a term for each.


# %% exercise="attend"
def attend(x, *, scale):
    """y = softmax(scale x x^T) x.  x (L, C) -> y (L, C), and the rule of x."""
    ### BEGIN SOLUTION
    e = scale * x @ x.T
    w = np.exp(e - e.max(axis=1, keepdims=True))
    w = w / w.sum(axis=1, keepdims=True)

    def vjp_x(dy):
        dw = dy @ x.T
        de = w * (dw - (dw * w).sum(axis=1, keepdims=True))
        return w.T @ dy + scale * (de + de.T) @ x

    return w @ x, vjp_x
    ### END SOLUTION


# %% check="attend" points=4
check("12.attend", attend)

# %% [markdown]
# ## 4. Recalibration with its rules
#
# $$z = \frac{1}{L} \sum_j x_j, \qquad g_i = \sigma(U x_i + V z + b), \qquad y_i = g_i \odot x_i$$
#
# in primitive form: `return y, (vjp_x, vjp_u, vjp_v, vjp_b)`. For example, with `u`, `v` and `b` all zero every gate
# is one half.


# %% exercise="recalibrate"
def recalibrate(x, u, v, b):
    """x (L, C), u and v (C, C), b (C) -> y (L, C), and a rule for each input."""
    ### BEGIN SOLUTION
    z = x.mean(axis=0)
    g = 1 / (1 + np.exp(-(x @ u.T + z @ v.T + b)))

    def back_to_a(dy):
        return dy * x * g * (1 - g)

    def vjp_x(dy):
        da = back_to_a(dy)
        return g * dy + da @ u + da.sum(axis=0) @ v / len(x)

    def vjp_u(dy):
        return back_to_a(dy).T @ x

    def vjp_v(dy):
        return np.outer(back_to_a(dy).sum(axis=0), z)

    def vjp_b(dy):
        return back_to_a(dy).sum(axis=0)

    return g * x, (vjp_x, vjp_u, vjp_v, vjp_b)
    ### END SOLUTION


# %% check="recalibrate" points=4
check("12.recalibrate", recalibrate)

# %% [markdown]
# ## 5. What it costs
#
# Count parameters and multiply-adds (products that are summed up) of the bare layers of exercises 1 to 4, for $L$
# positions of $C$ channels. All channels share one table `w` in the first three. The convolution has one $3 \times
# 3$ kernel; count nine products for each output, at the edges too. Recalibration's products are those of $U x_i$ and
# $V z$; the mean, and the product with the gate, are no sums of products. For example,
# `cost("convolution", 64, 8)` is `(9, 4608)`.


# %% exercise="cost"
def cost(layer, L, C):
    """(parameters, multiply-adds) of "fully connected", "convolution", "attention" or
    "recalibration"."""
    ### BEGIN SOLUTION
    return {
        "fully connected": (L**2, L**2 * C),
        "convolution": (9, 9 * L * C),
        "attention": (0, 2 * L**2 * C),
        "recalibration": (2 * C**2 + C, L * C**2 + C**2),
    }[layer]
    ### END SOLUTION


# %% check="cost" points=2
check("12.cost", cost)
