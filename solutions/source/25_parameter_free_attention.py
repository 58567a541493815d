# %% [markdown]
# # Exercises 25: parameter-free attention
#
# The layer with its rule, the loss of triplets, and the curve by which a re-identification is measured.
# The letters are those of [lesson 25](../notebooks/25_parameter_free_attention.ipynb).
#
# Run a cell, then its check. `hint("25.spatial_weights")` gives one hint at a time, and after a try
# `solution("25.spatial_weights")` shows a way to do it.

# %%
import numpy as np

from minitorch_attn.course import check

# %% [markdown]
# ## 1. The weights
#
# Squeeze the channels of `x` (N, C, H, W) by their sum or their mean, and make weights of the result,
# one for each place of each image:
#
# - `norm="softmax"`: $M_{ij} = e^{s_{ij}} / \sum_{hw} e^{s_{hw}}$. The sums can be large: subtract the
#   greatest of each image before you take exponentials.
# - `norm="l1"`: $M_{ij} = s_{ij} / \sum_{hw} s_{hw}$. (All `x` are positive here.)
#
# For example, one image with two channels and two places, `[[1, 2]]` and `[[0.5, 0.5]]`: the sums are 1.5
# and 2.5, the paper's weights about 0.27 and 0.73, the program's (mean, "l1") 0.375 and 0.625.


# %% exercise="spatial_weights"
def spatial_weights(x, squeeze="sum", norm="softmax"):
    """x (N, C, H, W) -> M (N, H, W), whose sum is 1 in each image."""
    ### BEGIN SOLUTION
    s = x.sum(axis=1) if squeeze == "sum" else x.mean(axis=1)
    if norm == "softmax":
        s = np.exp(s - s.max(axis=(1, 2), keepdims=True))
    return s / s.sum(axis=(1, 2), keepdims=True)
    ### END SOLUTION


# %% check="spatial_weights" points=2
check("25.spatial_weights", spatial_weights)

# %% [markdown]
# ## 2. The layer
#
# As in the paper: $s$ is the sum of the channels, $M$ its softmax over all places of an image, and
#
# $$y_{cij} = M_{ij}\, x_{cij}$$
#
# Write it in primitive form: `return y, vjp_x`. (As before, the sums can be large.)


# %% exercise="parameter_free"
def parameter_free(x):
    """x (N, C, H, W) -> y (N, C, H, W), and the rule of x."""
    ### BEGIN SOLUTION
    s = x.sum(axis=1, keepdims=True)
    e = np.exp(s - s.max(axis=(2, 3), keepdims=True))
    M = e / e.sum(axis=(2, 3), keepdims=True)  # (N, 1, H, W)

    def vjp_x(dy):
        dM = (dy * x).sum(axis=1, keepdims=True)
        ds = M * (dM - (M * dM).sum(axis=(2, 3), keepdims=True))
        return M * dy + ds

    return M * x, vjp_x
    ### END SOLUTION


# %% check="parameter_free" points=4
check("25.parameter_free", parameter_free)

# %% [markdown]
# ## 3. The loss of triplets
#
# `a`, `b` and `c` are (N, D): anchors, their positives and their negatives. The loss is the mean over the
# N triplets of
#
# $$\ell = \max\left(\lVert a - b \rVert - \lVert a - c \rVert + m,\ 0\right)$$
#
# with the margin $m$. Write it in primitive form: `return loss, (vjp_a, vjp_b, vjp_c)`. (No distance is
# zero. `dy` is one number.) For example, with `a = [[0, 0]]`, `b = [[3, 4]]`, `c = [[0, 1]]` and a margin of
# 0.5 the loss is 4.5.


# %% exercise="triplet_loss"
def triplet_loss(a, b, c, margin):
    """a (N, D), b (N, D), c (N, D) -> loss (), and a rule for each."""
    ### BEGIN SOLUTION
    near = np.sqrt(((a - b) ** 2).sum(axis=1, keepdims=True))  # (N, 1)
    far = np.sqrt(((a - c) ** 2).sum(axis=1, keepdims=True))
    losses = np.maximum(near - far + margin, 0)
    share = (losses > 0) / len(a)
    u, w = (a - b) / near, (a - c) / far

    def vjp_a(dy):
        return dy * share * (u - w)

    def vjp_b(dy):
        return -dy * share * u

    def vjp_c(dy):
        return dy * share * w

    return losses.mean(), (vjp_a, vjp_b, vjp_c)
    ### END SOLUTION


# %% check="triplet_loss" points=4
check("25.triplet_loss", triplet_loss)

# %% [markdown]
# ## 4. The hardest of a batch
#
# `distances` (N, N) holds the distance of each picture of a batch from each other one, `identities` (N,)
# whose pictures they are. For each picture find the *farthest* other picture of its own identity, and the
# *nearest* picture of another identity. Return both as one array of two rows: first the numbers of the
# positives, then those of the negatives. (Everybody has at least two pictures, and no picture is its own
# positive.)


# %% exercise="hardest"
def hardest(distances, identities):
    """distances (N, N), identities (N,) -> (2, N): positives, and negatives."""
    ### BEGIN SOLUTION
    same = identities[:, None] == identities
    other = same & ~np.eye(len(identities), dtype=bool)
    positives = np.where(other, distances, -np.inf).argmax(axis=1)
    negatives = np.where(same, np.inf, distances).argmin(axis=1)
    return np.stack([positives, negatives])
    ### END SOLUTION


# %% check="hardest" points=3
check("25.hardest", hardest)

# %% [markdown]
# ## 5. The curve
#
# `distances` (Q, G) are those of each query from each picture of the gallery; `q` (Q,) and `g` (G,) the
# identities, `q_camera` and `g_camera` the cameras. For each query sort the gallery from near to far, leave
# out the pictures of its identity *by its own camera*, and find the place of the first match. `cmc[k]` is the
# share of queries whose first match stands among the first k + 1 places. Queries that have no match are left
# out. Give the first `ranks` numbers of the curve; where fewer pictures than that are left, its end goes on.
#
# For example, a query of identity 7 by camera 0 has the distances `[0.1, 0.2, 0.3, 0.4]` from pictures of the
# identities 7, 8, 7, 8 by the cameras 0, 0, 1, 1. The first picture is left out, the second is no match, the
# third is: the curve of this query is 0, 1, 1 for `ranks=3`.


# %% exercise="cmc"
def cmc(distances, q, g, q_camera, g_camera, ranks):
    """distances (Q, G), identities and cameras -> (ranks,), the cumulative match curve."""
    ### BEGIN SOLUTION
    first = []
    for i in range(len(q)):
        order = np.argsort(distances[i])
        junk = (g == q[i]) & (g_camera == q_camera[i])
        order = order[~junk[order]]
        places = np.flatnonzero(g[order] == q[i])
        if len(places):
            first.append(places[0])
    return (np.array(first)[:, None] <= np.arange(ranks)).mean(axis=0)
    ### END SOLUTION


# %% check="cmc" points=4
check("25.cmc", cmc)
