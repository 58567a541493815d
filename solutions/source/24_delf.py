# %% [markdown]
# # Exercises 24: attentive local features (DELF)
#
# From the score of a place to RANSAC and the module. The letters are those of
# [lesson 24](../notebooks/24_delf.ipynb): a picture has `L` places, and `x` is a matrix (L, C) with the
# feature of each place as a row.
#
# Run a cell, then its check. `hint("24.scores")` gives one hint at a time, and after a try
# `solution("24.scores")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. The score of each place
#
# $$\alpha_n = \mathrm{softplus}(w \cdot \max(W x_n + b,\ 0) + c), \qquad
# \mathrm{softplus}(s) = \log(1 + e^s)$$
#
# For all places at once. $s$ can be large: $e^{1000}$ overflows, though softplus(1000) is just 1000. For
# example, where $W$, $b$ and $w$ are zero and $c = 0$, each score is $\log 2 \approx 0.69$.


# %% exercise="scores"
def scores(x, W, b, w, c):
    """x (L, C), W (D, C), b (D,), w (D,), c a number -> alpha (L,)."""
    ### BEGIN SOLUTION
    return np.logaddexp(0, np.maximum(x @ W.T + b, 0) @ w + c)
    ### END SOLUTION


# %% check="scores" points=2
check("24.scores", scores)

# %% [markdown]
# ## 2. The sum
#
# $$y = \sum_n \alpha_n\, \hat x_n, \qquad \hat x_n = \frac{x_n}{|x_n|}$$
#
# In primitive form, with a rule for `alpha` and one for `x`: `return y, (vjp_alpha, vjp_x)`. The length
# depends on $x_n$, too:
#
# $$d\alpha_n = dy \cdot \hat x_n, \qquad
# dx_n = \frac{\alpha_n}{|x_n|} \left( dy - \hat x_n\, (\hat x_n \cdot dy) \right)$$
#
# For example, one place with the feature (3, 4) and the score 2 gives $y = (1.2, 1.6)$.


# %% exercise="attended_sum"
def attended_sum(alpha, x):
    """alpha (L,), x (L, C) -> y (C,), and a rule for each input."""
    ### BEGIN SOLUTION
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x_hat = x / length

    def vjp_alpha(dy):
        return x_hat @ dy

    def vjp_x(dy):
        return alpha[:, None] / length * (dy - x_hat * (x_hat @ dy)[:, None])

    return alpha @ x_hat, (vjp_alpha, vjp_x)
    ### END SOLUTION


# %% check="attended_sum" points=4
check("24.attended_sum", attended_sum)

# %% [markdown]
# ## 3. What a place sees
#
# `layers` lists the layers of a chain, the first one first, each as `(R, s, p)`: kernel, stride, padding. Give
# size, stride and start of the receptive field of the last one's places. The start is the pixel in the
# middle of the first window: one convolution with a kernel of 3 and no padding has `(3, 1, 1.0)`, with a
# padding of 1 `(3, 1, 0.0)`. No layers: `(1, 1, 0.0)`. Two layers, the first with stride 2,
# `[(3, 2, 1), (3, 1, 0)]`: `(7, 2, 2.0)`.


# %% exercise="field_of"
def field_of(layers):
    """[(R, s, p), ...] -> (size, stride, start)."""
    ### BEGIN SOLUTION
    size, stride, start = 1, 1, 0.0
    for R, s, p in layers:
        start += stride * ((R - 1) / 2 - p)
        size += stride * (R - 1)
        stride *= s
    return size, stride, start
    ### END SOLUTION


# %% check="field_of" points=3
check("24.field_of", field_of)

# %% [markdown]
# ## 4. Pairs
#
# `a` (M, D) and `b` (K, D) are the descriptors of two pictures, *all of length 1*. For each row of `a` find the
# row of `b` at the least distance $|a_i - b_j|$, and keep the pair if that distance is at most `most`.
# Give the pairs as an array (pairs, 2) of whole numbers: row of `a`, row of `b`, in the order of `a`. If none
# is near enough, its shape is (0, 2). Mind that the product of two equal rows can be a little more than 1, for
# rounding.


# %% exercise="match"
def match(a, b, most):
    """a (M, D), b (K, D), rows of length 1 -> pairs (pairs, 2) of int."""
    ### BEGIN SOLUTION
    cosines = a @ b.T
    nearest = cosines.argmax(axis=1)
    distances = np.sqrt(np.maximum(2 - 2 * cosines.max(axis=1), 0))
    near = np.flatnonzero(distances <= most)
    return np.stack([near, nearest[near]], axis=1)
    ### END SOLUTION


# %% check="match" points=3
check("24.match", match)

# %% [markdown]
# ## 5. RANSAC
#
# `source` and `target` (K, 2) are places $(x, y)$ of $K$ pairs, and `triples` (T, 3) says which three pairs
# each trial takes. (So there is nothing left to chance.) For each trial find the affine map that moves its
# three places to their partners exactly, and count the pairs that it moves to within `tolerance` of their
# partners, by Euclidean distance. Give, for the first trial with the greatest count, which pairs those
# are, as an array (K,) of bool.
#
# Pass over trials whose three places in `source` lie on a line: the determinant of their matrix with rows
# $(x, y, 1)$ is zero, or for rounding less than 1e-6 in size. There is always one trial that is good.


# %% exercise="best_inliers"
def best_inliers(source, target, triples, tolerance):
    """source (K, 2), target (K, 2), triples (T, 3) of int -> inliers (K,) of bool."""
    ### BEGIN SOLUTION
    with_ones = np.column_stack([source, np.ones(len(source))])
    best = np.zeros(len(source), dtype=bool)
    for three in triples:
        if abs(np.linalg.det(with_ones[three])) < 1e-6:
            continue
        A = np.linalg.solve(with_ones[three], target[three])
        inliers = np.linalg.norm(with_ones @ A - target, axis=1) <= tolerance
        if inliers.sum() > best.sum():
            best = inliers
    return best
    ### END SOLUTION


# %% check="best_inliers" points=4
check("24.best_inliers", best_inliers)

# %% [markdown]
# ## 6. The module
#
# For feature maps (N, C, H, W). Call its parts `conv1` (a 1 x 1 convolution from `channels` to `hidden`),
# `conv2` (a 1 x 1 convolution to one channel) and `score` (`nn.Softplus()`, so that a hook on it sees the
# scores). `forward` gives the sums (N, C). `F.normalize(x, dim=...)` divides by the length along an axis.


# %% exercise="DELFAttention"
class DELFAttention(nn.Module):
    """The sum over places of features of length 1, weighed by their scores."""

    def __init__(self, channels, hidden):
        super().__init__()
        ### BEGIN SOLUTION
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, 1, 1)
        self.score = nn.Softplus()
        ### END SOLUTION

    def forward(self, x):
        """x (N, C, H, W) -> y (N, C)."""
        ### BEGIN SOLUTION
        alpha = self.score(self.conv2(F.relu(self.conv1(x))))
        return (alpha * F.normalize(x, dim=1)).sum(dim=(2, 3))
        ### END SOLUTION


# %% check="DELFAttention" points=4
check("24.DELFAttention", DELFAttention)
