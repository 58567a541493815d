# %% [markdown]
# # 24 · Attentive local features (DELF)
#
# A picture is remembered by some hundred small features in place of one long one; attention, trained on
# labels of whole pictures alone, says which places are worth remembering.
#
# **You will be able to**
#
# - derive the score of a place, the sum that trains it, and their gradients, and say why the training has
#   two stages;
# - say where in the picture a feature is and how much it sees, at every scale, and check that by a
#   reverse pass;
# - pair the features of two views, find the map between the views by RANSAC, and measure what the choice
#   of places is worth against two simple controls.
#
# **You need** lessons 01 to 08, 16 for affine maps and 22 for PCA and retrieval.
#
# **Time** about 60 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import DELFAttention
from minitorch_attn.data import DataLoader, TensorDataset, photograph
from minitorch_attn.models import DELF, fit_affine, match_features, receptive_field
from minitorch_attn.retrieval import PCAWhitening
from minitorch_attn.training import evaluate, fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# Two photographs of the same building, taken from different spots: one vector for each whole picture says
# that they are alike, not what lies where. Small windows do: a window of the one is searched in the other.
# But not every window is worth it. Below, the photograph and a second one, moved a little, darker and with
# noise on it. Three windows of the first are compared with all windows of the second, by the cosine of
# their pixels less their means.


# %%
def halved(name):
    """A grey photograph at half its size, (213, 320)."""
    return photograph(name, grey=True).astype(float)[:426].reshape(213, 2, 320, 2).mean(axis=(1, 3))


temple, flower = halved("china"), halved("flower")

SIDE, MOVED = 15, (9, 6)  # pixels; to the right and down
noise = 0.02 * np.random.default_rng(0).normal(size=(190, 290))
second = 0.8 * temple[MOVED[1] : MOVED[1] + 190, MOVED[0] : MOVED[0] + 290] + noise


def windows(image):
    """All windows of an image, less their mean and of length 1: (P, Q, SIDE * SIDE)."""
    all_of_them = np.lib.stride_tricks.sliding_window_view(image, (SIDE, SIDE))
    vectors = all_of_them.reshape(*all_of_them.shape[:2], SIDE * SIDE)
    vectors = vectors - vectors.mean(axis=2, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=2, keepdims=True)


of_first, of_second = windows(temple), windows(second)
spots = {"tip of the roof": (12, 96), "sky": (45, 230), "tree": (178, 215)}  # top, left
found = {name: of_second @ of_first[spot] for name, spot in spots.items()}

figure, axes = viz.panels(1, 4, height=2.1)
axes[0].imshow(temple, cmap="gray", vmin=0, vmax=1)
for top, left in spots.values():
    square = np.array([(0, 0), (0, SIDE), (SIDE, SIDE), (SIDE, 0), (0, 0)]) + (left, top)
    axes[0].plot(*square.T, color=viz.COLOURS[1], linewidth=1.5)
axes[0].set_title("three windows")
for ax, (name, cosines) in zip(axes[1:], found.items(), strict=True):
    ax.imshow(np.maximum(cosines, 0) ** 2, cmap="viridis", vmin=0, vmax=1)
    best = np.unravel_index(cosines.argmax(), cosines.shape)
    ax.plot(*best[::-1], "o", markersize=11, markerfacecolor="none", color=viz.COLOURS[1])
    ax.set_title(f"like the {name}")
for ax in axes:
    ax.set_axis_off()
for name, cosines in found.items():
    top, left = np.unravel_index(cosines.argmax(), cosines.shape)
    is_right = (top + MOVED[1], left + MOVED[0]) == spots[name]
    print(f"{name:16} found in its place: {'yes' if is_right else 'no'}")
tip, sky, tree = found.values()
assert tip.max() > 0.95 and (tip > 0.7).sum() < 15 and sky.max() < 0.8
figure

# %% [markdown]
# *Figure 1. Left: three windows. Right: how much each window of the second picture is like one of them
# (squared cosine, bright is 1); the ring is around the best. The tip of the roof is found, for sure. The sky
# is found in a wrong place: its window holds little but noise. The tree is found here, but a tree moves, and looks like other trees.*
#
# *DELF* (2017) compares features of a network instead of pixels, and learns which of them to keep: those
# that say *what building this is*. A sky, a tree, a car are left out, though nobody ever marks one.

# %% [markdown]
# ## The equations
#
# ### A score, and a sum
#
# A network makes features of a picture, $C$ numbers at each of $L = PQ$ places: $x_n$ with $n = 1 \dots L$
# is the feature at one place. A small network of two layers gives it a score,
#
# $$a_n = W x_n + b, \qquad h_n = \max(a_n, 0), \qquad s_n = w \cdot h_n + c, \qquad
# \alpha_n = \mathrm{softplus}(s_n) = \log(1 + e^{s_n})$$
#
# with $W: (D, C)$, $b, w: (D)$ and one number $c$. As a convolution with kernels of size 1 does this, it
# works on a picture of any size. A score is positive, and that is all: scores do not add up to 1, as
# those of a softmax do, so a picture may have many places worth keeping, or none.
#
# How is the score to be learned when nobody says which places matter? By a detour. All features are added
# up, weighed by their scores,
#
# $$y = \sum_n \alpha_n\, \hat x_n, \qquad \hat x_n = \frac{x_n}{|x_n|}$$
#
# and $y: (C)$ goes to a linear classifier of whole pictures. The score sees $x_n$ as it is; the sum has it
# divided by its length, so that only $\alpha_n$ says how much a place counts.
#
# ### Two stages
#
# If features and scores learned together from the start, a score could make up for poor features, and the
# other way round. DELF learns one after the other:
#
# 1. The features, with a classifier behind their *mean* $\frac{1}{L} \sum_n x_n$. No scores yet.
# 2. The scores, by the sum above and a classifier of its own. The features are fixed.
#
# Afterwards both classifiers are thrown away.
#
# ### Backward
#
# $dy$ is the gradient of the loss with respect to $y$. The sum is linear in the scores:
#
# $$d\alpha_n = dy \cdot \hat x_n$$
#
# **This line is all there is to the learning of attention.** A step goes against the gradient: the score
# of a place rises if its feature points *against* $dy$, that is, if more of it makes the loss smaller; and
# falls if the feature speaks for a wrong class. A feature that all classes share does neither in the mean.
#
# The slope of softplus is $e^s / (1 + e^s) = \sigma(s)$, the logistic function. From there on it is the
# chain of two linear layers and a ReLU (lesson 04); the parameters are shared by all places, so their
# gradients add up:
#
# $$ds_n = d\alpha_n\, \sigma(s_n), \qquad dw = \sum_n ds_n\, h_n, \qquad dc = \sum_n ds_n$$
#
# $$da_n = ds_n\, w \odot \mathbb{1}[a_n > 0], \qquad dW = \sum_n da_n x_n^\top, \qquad db = \sum_n da_n$$
#
# In stage 2 that is the end. If the features are to have a gradient, it comes two ways. Through the score:
# $W^\top da_n$. Through the sum: $d\hat x_n = \alpha_n\, dy$, and then through the division by the length. A
# small step $\delta$ of $x_n$ makes it longer by $\hat x_n \cdot \delta$ (the chain rule, on $\sqrt{x_n \cdot x_n}$), so
# by the quotient rule $\hat x_n$ moves by
#
# $$\frac{\delta}{|x_n|} - \frac{x_n\, (\hat x_n \cdot \delta)}{|x_n|^2}
# = \frac{1}{|x_n|} \left( I - \hat x_n \hat x_n^\top \right) \delta$$
#
# It takes off the part along $\hat x_n$, as to make a vector longer does not turn it. The matrix is symmetric:
# backward, $d\hat x_n$ meets the same one. Both ways together:
#
# $$\boxed{\; dx_n = W^\top da_n + \frac{\alpha_n}{|x_n|} \left( dy - \hat x_n\, (\hat x_n \cdot dy) \right) \;}$$

# %% [markdown]
# ### Where is a feature, and what does it see?
#
# Each place of a feature map sees a window of the picture: its *receptive field*. For a chain of layers
# three numbers tell it: the window's *size*, the *stride* from one window to the next, and the *start*, the
# pixel in the middle of the first window. For the picture itself they are 1, 1, 0.
#
# Take one more layer, with kernels of $R$, stride $s$ and padding $p$. Its neighbours are $s$ places
# apart, so the stride becomes stride $\cdot\, s$. Its kernel spans $R - 1$ steps, so the size grows by stride
# $\cdot\,(R - 1)$. Its first kernel begins $p$ places before the first, and its middle is $(R - 1)/2$ places
# further on. So
#
# $$\text{start} \leftarrow \text{start} + \text{stride} \cdot \left(\tfrac{R - 1}{2} - p\right), \qquad
# \text{size} \leftarrow \text{size} + \text{stride} \cdot (R - 1), \qquad
# \text{stride} \leftarrow \text{stride} \cdot s$$
#
# (in this order, with the old stride on the right). The feature in column $q$ lies at pixel
# start $+$ stride $\cdot\, q$.
#
# A building may be near or far. So the picture is shrunk and enlarged to a *pyramid*, and each of its
# pictures goes through the network. The middle of pixel $x$ in a picture that is $k$ times as large
# lies, in the original, at $(x + \frac12) / k - \frac12$: counted from the picture's edge, which is half a pixel before
# the middle of pixel 0, all distances are $k$ times as small; then back to counting from that middle.
#
# ### From features to pairs, from pairs to a map
#
# The features of the highest scores are kept, over all scales. Each is divided by its length, reduced by
# PCA (lesson 22) to 40 numbers, and divided by its length again: $u_i$ for one picture, $v_j$ for the
# other. Feature $i$ is paired with the $j$ of the least distance: that of the greatest product, as
# $|u_i - v_j|^2 = 2 - 2\, u_i \cdot v_j$ for vectors of length 1. The pair is kept if the distance
# $|u_i - v_j|$ (not its square) is at most 0.8.
#
# Many of the pairs are wrong. But right ones agree: a flat thing seen from two spots far away is moved by
# one *affine map*, $(x', y') = A\, (x, y, 1)^\top$ with $A: (2, 3)$. Three pairs fix its six numbers. *RANSAC*
# draws three pairs by chance, computes $A$, counts the pairs that $A$ moves to within some pixels of
# their partner (the *inliers*), and does so again; the map with the most inliers wins. If a share $r$ of
# the pairs is right, three are all right with probability $r^3$, and $T$ trials miss with probability
# $(1 - r^3)^T$. To miss in one of 100 cases (set that to 0.01, and take logarithms) takes
#
# $$T = \frac{\log 0.01}{\log(1 - r^3)}$$

# %%
for r in 0.5, 0.3, 0.1:
    print(f"right pairs {100 * r:2.0f} %: {int(np.ceil(np.log(0.01) / np.log(1 - r**3))):5} trials")
assert np.ceil(np.log(0.01) / np.log(1 - 0.5**3)) == 35

# %% [markdown]
# The share of right pairs counts with its third power: three times as many of them, and RANSAC is done in
# about a 27th of the trials. The number of inliers is also what a search ranks pictures by.

# %% [markdown]
# ## The code
#
# The score and the sum as loops:


# %%
def attended_loops(x, W, b, w, c):
    """x (L, C), W (D, C), b (D), w (D), c () -> y (C)."""
    y = np.zeros(x.shape[1])
    for x_n in x:
        s = c
        for d in range(len(W)):
            a = sum(W[d, i] * x_n[i] for i in range(len(x_n))) + b[d]
            s = s + w[d] * max(a, 0)
        alpha = np.log(1 + np.exp(s))
        y += alpha * x_n / np.sqrt(sum(x_n**2))
    return y


# %% [markdown]
# And in primitive form, all places at once. $\log(1 + e^s)$ overflows for large $s$; `np.logaddexp(0, s)`
# is the same and does not.


# %%
def attended(x, W, b, w, c):
    """The score of each place, and the sum of features weighed by it."""
    length = np.linalg.norm(x, axis=1, keepdims=True)  # (L, 1)
    x_hat = x / length
    a = x @ W.T + b  # (L, D)
    h = np.maximum(a, 0)
    s = h @ w + c  # (L,)
    alpha = np.logaddexp(0, s)

    def back_to_s(dy):
        return (x_hat @ dy) / (1 + np.exp(-s))  # dalpha, times the slope

    def back_to_a(dy):
        return back_to_s(dy)[:, None] * w * (a > 0)

    def vjp_x(dy):
        through_the_sum = alpha[:, None] / length * (dy - x_hat * (x_hat @ dy)[:, None])
        return back_to_a(dy) @ W + through_the_sum

    def vjp_W(dy):
        return back_to_a(dy).T @ x

    def vjp_b(dy):
        return back_to_a(dy).sum(axis=0)

    def vjp_w(dy):
        return h.T @ back_to_s(dy)

    def vjp_c(dy):
        return back_to_s(dy).sum()

    return alpha @ x_hat, (vjp_x, vjp_W, vjp_b, vjp_w, vjp_c)


# %%
rng = np.random.default_rng(0)
x, W, b, w, c = (rng.normal(size=shape) for shape in ((6, 4), (3, 4), 3, 3, ()))
y, _ = attended(x, W, b, w, c)
print("loops and arrays agree:  ", np.allclose(y, attended_loops(x, W, b, w, c)))

library = DELFAttention(4, hidden=3)
library.conv1.weight.data, library.conv1.bias.data = W.reshape(3, 4, 1, 1), b
library.conv2.weight.data, library.conv2.bias.data = w.reshape(1, 3, 1, 1), c.reshape(1)
as_map = mt.tensor(x.T.reshape(1, 4, 2, 3))  # six places, 2 x 3
print("library's module agrees: ", np.allclose(library(as_map).data[0], y))
library

# %% [markdown]
# The receptive field is a loop over the layers. The library's `receptive_field` reads them from a network.


# %%
def field_of(layers):
    """layers: (R, stride, padding) each -> size, stride, start."""
    size, stride, start = 1, 1, 0.0
    for R, s, p in layers:
        start += stride * ((R - 1) / 2 - p)
        size += stride * (R - 1)
        stride *= s
    return size, stride, start


mt.manual_seed(0)
chain = nn.Sequential(
    nn.Conv2d(1, 4, 5, stride=2, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)
)
field = receptive_field(chain)
print("by the formula:", field_of([(5, 2, 1), (2, 2, 0), (3, 1, 0)]))
print("the library:   ", tuple(field))
assert field == field_of([(5, 2, 1), (2, 2, 0), (3, 1, 0)])

# %% [markdown]
# Is it true? The engine can tell: a reverse pass that starts at one place of the feature map reaches just
# the pixels that the place depends on.

# %%
image = mt.tensor(rng.normal(size=(1, 1, 40, 40)), requires_grad=True)
features = chain(image)
one_place = np.zeros(features.shape)
one_place[0, :, 3, 4] = 1  # row 3, column 4
features.backward(one_place)
rows, columns = np.nonzero(np.abs(image.grad.data[0, 0]) > 1e-12)

middle = field.start + field.stride * np.array([3, 4])
low, high = middle - (field.size - 1) / 2, middle + (field.size - 1) / 2
print(f"reached: rows {rows.min()} to {rows.max()}, columns {columns.min()} to {columns.max()}")
print(f"formula: rows {low[0]:.0f} to {high[0]:.0f}, columns {low[1]:.0f} to {high[1]:.0f}")
assert (rows.min(), rows.max(), columns.min(), columns.max()) == (low[0], high[0], low[1], high[1])

# %% [markdown]
# RANSAC, all trials at once: `np.linalg.solve` takes a stack of systems of three equations. Three places on
# a line (or nearly: a triangle of less than a pixel) fix no map and are passed over.


# %%
def ransac(source, target, tolerance, trials, rng):
    """source, target (K, 2) -> which pairs are inliers of the best map (K,)."""
    K = len(source)
    triples = np.stack([rng.choice(K, 3, replace=False) for _ in range(trials)])
    with_ones = np.column_stack([source, np.ones(K)])
    three = with_ones[triples]  # (T, 3, 3): the determinant is twice the triangle's area
    is_triangle = np.abs(np.linalg.det(three)) > 2
    maps = np.linalg.solve(three[is_triangle], target[triples[is_triangle]])  # (T, 3, 2)
    off = np.linalg.norm(with_ones @ maps - target, axis=2)  # (T, K)
    inliers = off <= tolerance
    return inliers[inliers.sum(axis=1).argmax()]


truth = np.array([[0.9, -0.3, 12.0], [0.25, 1.1, -7.0]])
source = rng.uniform(0, 200, size=(60, 2))
target = source @ truth[:, :2].T + truth[:, 2] + rng.uniform(-0.5, 0.5, size=(60, 2))
target[30:] = rng.uniform(0, 200, size=(30, 2))  # half of the pairs are wrong

inliers = ransac(source, target, tolerance=3, trials=200, rng=rng)
fitted = fit_affine(source, target, tolerance=3)
print(f"right pairs among the inliers: {inliers[:30].sum()} of 30, wrong: {inliers[30:].sum()}")
print("the library agrees:           ", np.array_equal(fitted.inliers, inliers))
print("its map, rounded:             ", fitted.matrix.round(2).tolist())
print("the true one:                 ", truth.tolist())

# %% [markdown]
# The library's `fit_affine` leaves the trials to scikit-learn's `RANSACRegressor`. It also passes over
# maps that no change of view explains, such as a mirror image, or a map that squeezes everything to
# one spot: if many features are paired with the same one, such a map has many inliers.

# %% [markdown]
# ## The gradient check

# %%
report = mt.check_vjp(attended, x, W, b, w, c)
print(report)

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 2. Each row is one input: the gradient by the rule, the measured one, and their difference,
# dark throughout. The first hidden number has the gradient 0 everywhere (the first row of $W$, the first of
# $b$ and of $w$): it is negative at all six places, and the ReLU lets nothing through.*
#
# A mistake that is easily made: the length $|x_n|$ depends on $x_n$, and someone divides by it as if it
# were a constant.


# %%
def constant_length(x, W, b, w, c):
    y, (vjp_x, *others) = attended(x, W, b, w, c)
    x_hat = x / np.linalg.norm(x, axis=1, keepdims=True)
    alpha = np.logaddexp(0, np.maximum(x @ W.T + b, 0) @ w + c)

    def wrong(dy):
        length = np.linalg.norm(x, axis=1, keepdims=True)
        return vjp_x(dy) + alpha[:, None] / length * x_hat * (x_hat @ dy)[:, None]

    return y, (wrong, *others)


wrong = mt.check_vjp(constant_length, x, W, b, w, c, raise_on_failure=False)
print(wrong)
assert [compared.ok for compared in wrong.inputs] == [False, True, True, True, True]

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 3. Only the gradient of $x$ is wrong. In stage 2 nobody would notice: the features are fixed, and
# the rule is never asked.*
#
# What is wrong about it? Look at the error itself, one row for each place: it lies along $\hat x_n$, the
# part that the rule should have taken off.

# %%
error = wrong.inputs[0].analytic - wrong.inputs[0].numeric
along = error / np.linalg.norm(error, axis=1, keepdims=True)
cosines = np.abs((along * x).sum(axis=1)) / np.linalg.norm(x, axis=1)
print("cosine of the error with the feature, at each place:", cosines.round(3))
assert cosines.min() > 0.999

# %% [markdown]
# ## At work
#
# ### A temple among trees
#
# DELF was trained on photographs of 586 landmarks. We have two photographs. So we make our
# own landmarks of the one: 46 pieces of the temple, each a class. A scene shows one of them, turned,
# resized and lit a little differently, somewhere on a piece of the same photograph's trees, turned any
# way. *Which piece is it?* The trees say nothing about that.
#
# `looking_at` makes affine maps (lesson 16, here in pixels) that read a picture around a centre, and `read`
# reads it there.


# %%
def looking_at(centre, angle, scale, size):
    """Maps (N, 2, 3) from the pixels (x, y) of a view of a size to those of the picture."""
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    A = np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)
    middle = (np.array(size[::-1]) - 1) / 2
    return np.concatenate([A, (centre - A @ middle)[..., None]], axis=-1)


def read(picture, maps, size):
    """Views (N, *size) of a picture (H, W), bilinear."""
    y, x = np.mgrid[: size[0], : size[1]]
    at = np.stack([x, y, np.ones_like(x)], axis=-1) @ maps[:, None].swapaxes(2, 3)  # (N, P, Q, 2)
    H, W = picture.shape
    x, y = at[..., 0].clip(0, W - 1.001), at[..., 1].clip(0, H - 1.001)
    j, i = x.astype(int), y.astype(int)
    u, v = x - j, y - i
    upper = (1 - u) * picture[i, j] + u * picture[i, j + 1]
    lower = (1 - u) * picture[i + 1, j] + u * picture[i + 1, j + 1]
    return (1 - v) * upper + v * lower


PIECE = 28
# Three areas of trees: left, top, right and bottom of where a scene may have its middle.
TREES = np.array([(250, 120, 305, 200), (195, 175, 290, 200), (20, 185, 90, 200)])
grid = np.stack(np.meshgrid(np.arange(50.0, 160, 18), np.arange(30.0, 165, 16)), -1).reshape(-1, 2)
is_temple = [
    temple[int(y) - 10 : int(y) + 10, int(x) - 10 : int(x) + 10].std() > 0.08
    and abs(x - 103) < 20 + 0.3 * y
    for x, y in grid
]
PLACES = grid[is_temple]  # the middles of the pieces


def scenes(count, size, rng):
    """Scenes (N, 1, size, size), classes (N,), upper left corners of the pieces (N, 2)."""
    area = TREES[rng.integers(0, 3, count)]
    centre = rng.uniform(area[:, :2], area[:, 2:])
    angle, scale = rng.uniform(-np.pi, np.pi, count), rng.uniform(1, 1.3, count)
    x = read(temple, looking_at(centre, angle, scale, (size, size)), (size, size))
    classes = rng.integers(0, len(PLACES), count)
    centre = PLACES[classes] + rng.uniform(-1.5, 1.5, (count, 2))
    angle, scale = rng.uniform(-0.25, 0.25, count), rng.uniform(0.8, 1.25, count)
    pieces = read(temple, looking_at(centre, angle, scale, (PIECE, PIECE)), (PIECE, PIECE))
    contrast, light = rng.uniform(0.8, 1.2, (count, 1, 1)), rng.uniform(-0.1, 0.1, (count, 1, 1))
    pieces = np.clip((pieces - 0.5) * contrast + 0.5 + light, 0, 1)
    corners = rng.integers(0, size - PIECE + 1, (count, 2))
    for n, (top, left) in enumerate(corners):
        x[n, top : top + PIECE, left : left + PIECE] = pieces[n]
    return x[:, None] - 0.5, classes, corners


SEED = 0
rng = np.random.default_rng(SEED)
x_train, t_train, _ = scenes(1500, 48, rng)
x_test, t_test, _ = scenes(300, 48, rng)
print("classes:", len(PLACES), " scenes:", x_train.shape, x_test.shape)
assert len(PLACES) == 46 and x_train.min() >= -0.5 and x_train.max() <= 0.5
viz.show_images(x_train[:14], t_train[:14], columns=7)

# %% [markdown]
# *Figure 4. Scenes, with their classes above: a piece of the temple on a piece of the trees. (Stripes: where
# a scene looks beyond the photograph, its last pixels are repeated.)*
#
# The network has four convolutions, *without padding*: at the rim of a picture padding makes edges that are
# not there, and features with them (the third question below). The first stage, then:

# %%
CHANNELS = 64


def layer(in_channels, out_channels, R, stride=1):
    convolution = nn.Conv2d(in_channels, out_channels, R, stride, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


def network(seed):
    mt.manual_seed(seed)
    backbone = nn.Sequential(
        *layer(1, 12, 5, stride=2),
        *layer(12, 24, 3),
        nn.MaxPool2d(2),
        *layer(24, 48, 3),
        *layer(48, CHANNELS, 3),
    )
    return DELF(backbone, CHANNELS, num_classes=len(PLACES), hidden=32)


def train(model, parameters, x, t, epochs, lr):
    optimizer = optim.Adam(parameters, lr=lr)
    loader = DataLoader(TensorDataset(x, t), batch_size=32, shuffle=True, generator=SEED)
    slower = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    fit(model, loader, optimizer=optimizer, epochs=epochs, scheduler=slower, progress=False)


def right(model, x, t):
    """Share of classes named right, in percent."""
    return 100 * evaluate(model, DataLoader(TensorDataset(x, t), batch_size=100))["accuracy"]


def features_of(model, x):
    with mt.no_grad():
        return model.backbone(mt.tensor(x)).numpy()


model = network(SEED)
train(model, model.begin_stage(1), x_train, t_train, epochs=7, lr=3e-3)
first_stage = right(model, x_test, t_test)
print("a place sees, in pixels:", tuple(model.field))
print(f"stage 1: {first_stage:.0f} % right of {len(PLACES)} classes")
assert first_stage > 60

# %% [markdown]
# The second stage. As the features are fixed, they are computed once, and only the small network of scores
# and its classifier see every epoch. (To train `model` itself, with the pictures, gives the same and takes
# longer; its `begin_stage(2)` freezes the backbone, its batch normalisations too.)

# %%
parameters = model.begin_stage(2)
model.eval()
before = {name: p.numpy().copy() for name, p in model.backbone.state_dict().items()}
head = nn.Sequential(model.attention, model.attended_classifier)
train(head, parameters, features_of(model, x_train), t_train, epochs=10, lr=1e-2)
model.eval()
second_stage = right(model, x_test, t_test)
print(f"stage 2: {second_stage:.0f} % right")
after = model.backbone.state_dict()
print("the features stayed:", all(np.array_equal(before[k], after[k].numpy()) for k in before))
assert second_stage > first_stage + 3

# %% [markdown]
# The second classifier is the better one. It reads a sum from which the trees are weighed out, of features
# divided by their lengths, and starts from features that are trained; which of these helps, this does not tell.
#
# ### What it looks at
#
# The classifiers have done their work; what we want are the scores. Two controls go with them. A feature's
# *length* $|x_n|$ is a score that needs no second stage: after a ReLU, where nothing is found, a feature is
# short. And the length of features of a network that was *not trained* at all tells what the pictures do by
# themselves. (It has seen some pictures, so that its batch normalisations know their means.)

# %%
untrained = network(SEED)
with mt.no_grad():
    for batch in x_train[:64], x_train[64:128]:
        untrained(mt.tensor(batch))  # in training mode: statistics alone
untrained.eval()


def length(features):
    return (features**2).sum(dim=1, keepdim=True) ** 0.5


def score_map(model, rank, picture):
    with mt.no_grad():
        return rank(model.backbone(mt.tensor(picture[None, None] - 0.5))).numpy()[0, 0]


ways = {
    "length, untrained": (untrained, length),
    "length": (model, length),
    "score": (model, model.attention.scores),
}
contrast, sky = {}, {}
for name, (one, rank) in ways.items():
    scores = score_map(one, rank, temple)
    y, x = (one.field.start + one.field.stride * np.arange(n) for n in scores.shape)
    in_temple = (np.abs(x - 103) < 50) & (y[:, None] > 60) & (y[:, None] < 160)
    in_trees = (x > 195) & (x < 290) & (y[:, None] > 175)
    in_sky = (x > 200) & (y[:, None] < 70)
    contrast[name] = scores[in_temple].mean() / scores[in_trees].mean()
    sky[name] = scores[in_sky].mean() / scores[in_temple].mean()

figure, axes = viz.panels(2, 4, height=3.6)
for row, picture in zip(axes, (temple, flower), strict=True):
    row[0].imshow(picture, cmap="gray")
    for ax, (name, (one, rank)) in zip(row[1:], ways.items(), strict=True):
        ax.imshow(score_map(one, rank, picture), cmap="viridis")
        if picture is temple:
            ax.set_title(f"{name}: {contrast[name]:.1f}")
for ax in axes.ravel():
    ax.set_axis_off()
assert contrast["score"] > contrast["length"] > contrast["length, untrained"]
assert contrast["length, untrained"] < 1.2 and contrast["score"] > 3 and 0.8 < sky["score"] < 1.3
figure

# %% [markdown]
# *Figure 5. Two photographs and three scores of their places; above them, how many times as much the temple
# has in the mean as the trees at the lower right. The flower was never seen in training, nor was anything like
# it.*
#
# On the first photograph the score is bright at places of the temple, and dark on the trees. But it does not
# pass over the sky, which has about as high a score as the temple in the mean. Hardly a scene had sky in it, so
# nothing taught the network about it; with three of six other seeds its score was less than half of the
# temple's, with the other three about the same.
#
# These ratios are of different things, lengths and scores. What is chosen depends on the order alone. So in
# numbers that compare: new scenes, 80 pixels wide so that there is more to overlook. Of the 15 best places of each,
# how many lie on the piece of the temple?

# %%
x_wide, _, corners = scenes(200, 80, np.random.default_rng(SEED + 1))
at = model.field.start + model.field.stride * np.arange(features_of(model, x_wide[:1]).shape[2])
inside = [(at >= corners[:, [k]]) & (at < corners[:, [k]] + PIECE) for k in (0, 1)]
on_piece = (inside[0][:, :, None] & inside[1][:, None]).reshape(len(x_wide), -1)


def share_on_piece(scores, best=15):
    chosen = np.argsort(-scores.reshape(len(scores), -1), axis=1, kind="stable")[:, :best]
    return 100 * np.take_along_axis(on_piece, chosen, axis=1).mean()


shares = {"by chance": 100 * on_piece.mean()}
for name, (one, rank) in ways.items():
    shares[name] = share_on_piece(rank(mt.tensor(features_of(one, x_wide))).numpy())
for name, share in shares.items():
    print(f"{name:18} {share:3.0f} %")
assert min(shares["score"], shares["length"]) > 2 * max(
    shares["by chance"], shares["length, untrained"]
)

# %% [markdown]
# Two things are to be seen. To be trained on labels of whole scenes was enough to tell temple from trees,
# place by place. And the first stage alone, without any attention, has put it into the lengths of the
# features: what does not help to classify is not amplified. By this measure the score has learned the same and
# hardly more: with five of six other seeds, too, it was within three points of the length, above or below. With
# the sixth it was 13 points ahead.

# %% [markdown]
# ### Two views
#
# Now to what it is for. A view of the temple and three others of it: turned, nearer or further, darker, with
# noise. The maps are known, so each pair of features can be judged: it is *right* if both ends lie at the
# same spot of the photograph, within 5 pixels of it. All ways of choosing keep 200 features of three scales.
# PCA to 40 numbers is learned on the training scenes. The flower goes through the same.

# %%
SCALES, COUNT, VIEW, TOLERANCE = (0.7, 1.0, 1.4), 200, (144, 176), 5
CHANGES = ((0.1, 0.9), (-0.15, 1.1), (0.2, 0.85))  # angle, scale
CENTRES = {"temple": np.array([(115.0, 105.0)]), "flower": np.array([(155.0, 110.0)])}
PICTURES = {"temple": temple, "flower": flower}


def reduction(model):
    """PCA to 40 numbers, learned on features of training scenes."""
    some = [model.extract(x, scales=(1.0,), count=30).descriptors for x in x_train[:100]]
    return PCAWhitening(40, whiten=False).fit(np.concatenate(some)).transform


dice = np.random.default_rng(0)


def by_chance(features):
    return dice.random((1, 1, *features.shape[2:]))  # other places each time


def view(name, change=None):
    """A view (1, 144, 176) of a picture, and its map to the picture's pixels."""
    if change is None:
        maps = looking_at(CENTRES[name], np.zeros(1), np.ones(1), VIEW)
        return read(PICTURES[name], maps, VIEW) - 0.5, maps[0]
    angle, scale = CHANGES[change]
    maps = looking_at(CENTRES[name] + (-8, 5), np.array([angle]), np.array([scale]), VIEW)
    darker = 0.9 * (read(PICTURES[name], maps, VIEW) - 0.5) - 0.05
    return darker + 0.02 * np.random.default_rng(change).normal(size=VIEW), maps[0]


def on_picture(A, places):
    return places @ A[:, :2].T + A[:, 2]


short = {id(one): reduction(one) for one in (model, untrained)}
choices = {"chance": (model, by_chance)} | ways
results = {}
for name in PICTURES:
    for how, (one, rank) in choices.items():
        options = {"reduce": short[id(one)], "rank": rank}
        seen, A = view(name)
        first = one.extract(seen, SCALES, COUNT, **options)
        for change in range(len(CHANGES)):
            seen, B = view(name, change)
            second = one.extract(seen, SCALES, COUNT, **options)
            pairs = match_features(first, second)
            start, end = first.places[pairs[:, 0]], second.places[pairs[:, 1]]
            apart = np.linalg.norm(on_picture(A, start) - on_picture(B, end), axis=1)
            results[name, how, change] = start, end, apart <= TOLERANCE

counts = {
    name: {how: [int(results[name, how, k][2].sum()) for k in range(3)] for how in choices}
    for name in PICTURES
}
figure, axes = viz.panels(1, 2, height=2.6)
for ax, (name, arms) in zip(axes, counts.items(), strict=True):
    viz.plot_arms(arms, ax=ax)
    ax.set(title=name, xlabel="right pairs, of 200 features", xlim=(0, 160))
axes[1].set_yticklabels([])
figure

# %%
for name, arms in counts.items():
    means = {how: np.mean(numbers) for how, numbers in arms.items()}
    print(f"{name}:", " > ".join(sorted(means, key=means.get, reverse=True)))
    assert means["score"] > max(2 * means["chance"], 1.3 * means["length, untrained"])
    assert means["score"] > means["length"]

# %% [markdown]
# *Figure 6. Right pairs in three pairs of views (dots), and their mean (bars), for four ways to choose 200
# features. Left the temple, right the flower.*
#
# A feature can only be found again if *both* views choose it. Chance chooses other places each time; a score
# that depends on what is there chooses the same ones. That alone is worth much: already the lengths of an
# untrained network, which are large where edges and corners are, give about twice as many right pairs of the
# temple as chance.
#
# The learned score does better than that. Against the length the picture varies. Here the length fails on the
# temple, even against the untrained one: its greatest values crowd on a few bright rails, where one feature
# looks like the next. That need not be so. Six other seeds, data and all, gave these means:
#
# | | chance | length, untrained | length | score |
# |---|---|---|---|---|
# | temple | 27, 37, 32, 35, 30, 33 | 106, 100, 68, 88, 68, 66 | 118, 83, 111, 103, 113, 23 | 116, 131, 108, 119, 128, 121 |
# | flower | 21, 22, 21, 22, 20, 25 | 61, 34, 41, 44, 32, 87 | 50, 32, 31, 50, 61, 30 | 81, 49, 45, 58, 64, 42 |
#
# On the temple the score is ahead five times in seven, and about level with the length twice. On the flower,
# which is new to all of them, it is ahead six times, if narrowly; once the untrained length has twice as many. What the
# score has over both is that it never fails: the worst of its seven results is better than the worst of either
# length, on both photographs. So what the second stage buys here is less a sharper eye for trees than a choice
# that can be relied on.

# %% [markdown]
# ### One pair of views
#
# RANSAC does not know which pairs are right. It finds out. The views are the first and the second one, the
# features chosen by score.

# %%
start, end, is_right = results["temple", "score", 0]
fitted = fit_affine(start, end, TOLERANCE, trials=1000, stretch=2.0)
(one, A), (other, B) = view("temple"), view("temple", 0)
apart = VIEW[1] + 8  # the second view stands to the right of the first

figure, ax = viz.panels(1, 1, height=3.4)
side_by_side = np.concatenate([one[0], np.full((VIEW[0], 8), 0.5), other[0]], axis=1)
ax.imshow(side_by_side, cmap="gray", vmin=-0.5, vmax=0.5)
for inlier, colour, width in ((False, "white", 0.6), (True, viz.COLOURS[4], 0.9)):
    chosen = np.flatnonzero(fitted.inliers == inlier)[::3]
    ends = np.stack([start[chosen], end[chosen] + (apart, 0)], axis=1)  # (K, 2, 2)
    ax.plot(ends[:, :, 0].T, ends[:, :, 1].T, ".-", color=colour, linewidth=width, markersize=4)
ax.set_axis_off()

corners = np.array([(40.0, 30.0), (135.0, 30.0), (135.0, 115.0), (40.0, 115.0)])
true = np.linalg.solve(B[:, :2], (on_picture(A, corners) - B[:, 2]).T).T
off = np.linalg.norm(on_picture(fitted.matrix, corners) - true, axis=1).max()
agree = (fitted.inliers & is_right).sum() / fitted.inliers.sum()
print("most pairs are right:  ", is_right.mean() > 0.5)
print("most inliers are right:", agree > 0.7)
print("four spots of the temple are moved to within 10 pixels of their place:", off < 10)
assert is_right.mean() > 0.5 and agree > 0.7 and off < 10
figure

# %% [markdown]
# *Figure 7. Pairs of features between two views of the temple: in orange those that one affine map explains,
# in white the others (every third of them is drawn).*

# %% [markdown]
# The temple repeats itself, and one of its windows looks like the next. A single feature cannot know which of
# them it is; many together can. What is RANSAC left with, for each way to choose?

# %%
kept = {name: {how: [] for how in choices} for name in PICTURES}
for (name, how, _), (start, end, is_right) in results.items():
    inliers = fit_affine(start, end, TOLERANCE, trials=300, stretch=2.0).inliers
    kept[name][how].append(int((inliers & is_right).sum()))

figure, axes = viz.panels(1, 2, height=2.6)
for ax, (name, arms) in zip(axes, kept.items(), strict=True):
    viz.plot_arms(arms, ax=ax)
    ax.set(title=name, xlabel="inliers that are right", xlim=(0, 160))
    assert np.mean(arms["score"]) > 1.5 * np.mean(arms["chance"])
    assert np.sum(arms["score"]) > 0.5 * np.sum(counts[name]["score"])
axes[1].set_yticklabels([])
figure

# %% [markdown]
# *Figure 8. As figure 6, but only right pairs that are inliers of the map that RANSAC found.*
#
# RANSAC keeps most of the score's right pairs on both photographs, and stays far ahead of chance. Of the few
# right pairs by chance it loses more than half on the flower, where they hardly point to the map.

# %% [markdown]
# ## Paper and code
#
# | | paper | authors' programs | here |
# |---|---|---|---|
# | places in the sum | all added up | the mean over them | added up |
# | between the two layers of the score | ReLU | batch normalisation and ReLU | ReLU |
# | features in the sum | as they are written | divided by their lengths | divided; `normalize=False` |
# | training | two stages | two stages; the later program both at once, no gradient from scores to features | two stages |
# | stage 2 | pictures at random sizes | the same in a rewriting, in PyTorch; not in the later program | one size |
# | features | ResNet-50, third of four stages, 1024 numbers | the same, the stride in the last block of each stage: a place each 32 pixels sees 291 | `delf_resnet50`: stride in the first, a place each 16 pixels sees 267 |
# | scales | seven from 0.25 to 2 | the same | the same, can be set |
# | pairs | nearest, by a tree and product quantisation | nearest, by a tree, at most 0.8 apart | nearest, at most 0.8 apart |
# | RANSAC | affine | affine, 20 pixels, 1000 trials | the same; mirrored and squeezed maps passed over |
#
# Division by the length, PCA to 40 numbers without whitening, division again: that is in the paper and in its
# program. A rewriting in PyTorch that is often used whitens, does not divide again, and leaves out features
# that overlap a better one.
#
# The paper compares the three scores of figure 5 as well, and there the learned one is clearly ahead. Its
# photographs have people, cars and streets in them, and its features begin as those of a network that was
# trained to know such things. Our trees are one kind of distraction, and our features learned to pass over
# them in stage 1.
#
# DELG (2020) has this and a global feature in one network: the local part learns from features that no
# gradient of its own reaches, as in stage 2, but at the same time.

# %% [markdown]
# ## Predict before you run
#
# **1.** One feature is made three times as long. Does its score change? Does its direction in the sum?

# %%
x = np.random.default_rng(4).normal(size=(1, 4))
for factor in 1, 3:
    y, _ = attended(factor * x, W, b, w, c)
    size = np.linalg.norm(y)
    print(f"{factor}: length of y {size:.2f}, direction {(y / size).round(2)}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The score changes, as it sees the feature as it is: with one place the length of $y$ is the score. The
# direction stays. So a network is free to use the length as a signal, and here it does.
#
# </details>
#
# **2.** A score is the same at all places of a picture. Is $y$ then the mean of the features, as in stage 1?

# %%
x = np.random.default_rng(5).normal(size=(6, 4)) * np.array([[9.0], [1], [1], [1], [1], [1]])
flat, _ = attended(x, np.zeros((3, 4)), np.zeros(3), np.zeros(3), 0.0)
cosine = flat @ x.mean(axis=0) / np.linalg.norm(flat) / np.linalg.norm(x.mean(axis=0))
print("the same direction:", np.isclose(cosine, 1))

# %% [markdown]
# <details><summary>Answer</summary>
#
# No: it is the mean of features *of length 1*. In the plain mean a long feature counts more, here the first;
# in the sum of DELF it counts as one among six. So stage 1 has a kind of attention, too: the length.
#
# </details>
#
# **3.** The picture is one even grey, not a thing in it. The convolutions have padding. Where are the longest
# features?

# %%
mt.manual_seed(0)
padded = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
even = mt.tensor(np.full((1, 1, 9, 9), -0.4))
with mt.no_grad():
    lengths = length(padded(even) - padded(even)[:, :, 4:5, 4:5]).numpy()[0, 0]
print((lengths > 1e-9).astype(int))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Printed is where features differ from the one in the middle: along the rim, two places deep, one for each
# convolution. Padding puts zeros around the grey, and the network sees an edge. With padding in all four
# convolutions above, more than half of the places that the untrained length chose lay within 6 pixels of the
# rim, and of the temple's right pairs fewer than half were left (two seeds). Training mends most of it, as no
# class is to be told at the rim; without padding there is nothing to mend.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`24_delf`](../exercises/24_delf.ipynb):
#
# 1. **scores**: the score of each place.
# 2. **attended_sum**: the sum of features divided by their lengths, with its rules.
# 3. **field_of**: the receptive field of a chain of layers.
# 4. **match**: pairs of features.
# 5. **best_inliers**: RANSAC.
# 6. **DELFAttention**: the module.

# %% [markdown]
# ## What to remember
#
# - A score for each place by two small layers and softplus; it learns because the picture's class is read
#   off the sum of features weighed by it: $d\alpha_n = dy \cdot \hat x_n$.
# - First the features, then the scores with the features fixed. Already in stage 1 the length of a feature
#   becomes a score; a learned one has to be measured against it.
# - Size, stride and start of the receptive field say where a feature is. Mind the half pixel between scales,
#   and the rim.
# - What is chosen must be chosen again in the other view. Single pairs err; RANSAC asks what many of them
#   agree on.

# %% [markdown]
# ## Sources
#
# - H. Noh, A. Araujo, J. Sim, T. Weyand, B. Han, *Large-Scale Image Retrieval with Attentive Deep Local
#   Features*, ICCV 2017: section 3, equations 1 to 4.
# - B. Cao, A. Araujo, J. Sim, *Unifying Deep Local and Global Features for Image Search* (DELG), ECCV 2020.
# - M. Fischler, R. Bolles, *Random Sample Consensus*, Communications of the ACM, 1981.
# - The photographs of the temple and the dahlia come with scikit-learn.
