# %% [markdown]
# # 22 · Regional attention
#
# Find pictures of the same thing by one vector for each picture; and let a small network say which
# regions of a picture should have a part in it.
#
# **You will be able to**
#
# - build a search for images from end to end: descriptors (SPoC, MAC, GeM, R-MAC), whitening, query
#   expansion, re-ranking, and measure it by mean average precision;
# - derive the generalised mean and regional attention forward and backward, and train the attention by
#   classification, with all else frozen;
# - tell by controls what the attention adds, on classes that the network was trained on and on classes
#   that it never saw.
#
# **You need** lessons 01 to 08.
#
# **Time** about 60 minutes, and as long again for the exercises.

# %%
import numpy as np
from matplotlib import colormaps
from matplotlib.patches import Rectangle

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import RegionalAttention
from minitorch_attn.data import DataLoader, TensorDataset, cluttered_digits
from minitorch_attn.retrieval import (
    Index,
    PCAWhitening,
    RegionalMAC,
    average_precision,
    expand_queries,
    gem,
    l2_normalized,
    mac,
    mean_average_precision,
    precision_at_k,
    reciprocal_distances,
    region_grid,
    region_vectors,
    rerank,
    rmac,
    spoc,
)
from minitorch_attn.training import fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# *Image retrieval*: a person shows a picture, the *query*, and wants the pictures of the same thing from a
# large collection, the *gallery*. To compare it with a million pictures pixel by pixel would take too long,
# and pixels are alike only where nothing has moved. So each picture is made into one vector once, its
# *descriptor*; a search then compares vectors.
#
# A descriptor that takes in the whole picture takes in the background, too. R-MAC cuts the picture into
# overlapping squares of several sizes, the *regions*, describes each, and adds up. It gives the same say
# to all. But look:

# %%
scenes = cluttered_digits(40, train=False, generator=0)
GRID = region_grid(8, 8)  # regions of a feature map of 8 x 8 positions, of 4 x 4 pixels each
SIZES = sorted({region.size for region in GRID}, reverse=True)


def square(ax, top, left, side, colour, inset=0.0, **style):
    """Draw a square given in pixels."""
    corner, side = (left - 0.5 + inset, top - 0.5 + inset), side - 2 * inset
    ax.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour, **style))


def shares(image, box):
    """For each region the share of its ink that lies in the digit's square."""
    inside = np.zeros(image.shape)
    top, left, height, width = box
    inside[top : top + height, left : left + width] = 1

    def pixels(start, size):
        return slice(4 * start, 4 * (start + size))

    cells = [(pixels(r.top, r.size), pixels(r.left, r.size)) for r in GRID]
    return np.array([(image * inside)[cell].sum() / image[cell].sum() for cell in cells])


n = 37
image, box = scenes.images[n, 0] / 255.0, scenes.boxes[n]
share = shares(image, box)
figure, axes = viz.panels(1, 4, height=2.5)
for ax in axes:
    ax.imshow(image, cmap="gray_r", vmin=0, vmax=1.5)
    ax.set_axis_off()
square(axes[0], *box[:3], "black", linestyle="--", linewidth=1.5)
axes[0].set_title(f"a {scenes.labels[n]}")
for ax, size in zip(axes[1:], SIZES):
    of_size = [(region, value) for region, value in zip(GRID, share) if region.size == size]
    for number, (region, value) in enumerate(of_size):
        colour = colormaps["viridis_r"](value)
        inset = 0.8 + 0.55 * (number % 4)
        square(ax, 4 * region.top, 4 * region.left, 4 * size, colour, inset, linewidth=2.5)
    ax.set_title(f"{len(of_size)} of {4 * size} x {4 * size}")
assert [len([r for r in GRID if r.size == size]) for size in SIZES] == [1, 4, 9]
assert share.min() < 0.1 and share.max() > 0.8
figure

# %% [markdown]
# *Figure 1. A scene: one handwritten digit (dashed), and pieces of others. Right of it the 14 regions of
# R-MAC, at three sizes; the darker, the more of the ink in a region is the digit's. In some it is nearly
# all, in others nearly nothing, and R-MAC adds them up as equals.*
#
# *Regional attention* looks at each region, in the light of the whole picture, and gives it a weight.

# %% [markdown]
# ## The equations
#
# ### One vector for a picture
#
# A convolutional network, cut off before its classifier, makes of a picture a feature map
# $x: (C, L)$, with $C$ channels and $L = HW$ positions. After its last ReLU no value is negative. The
# descriptor has one number for each channel, from the $L$ values $x_{c1}, \ldots, x_{cL}$ that it has:
#
# $$\text{SPoC: } \frac{1}{L} \sum_i x_{ci}, \qquad \text{MAC: } \max_i x_{ci}, \qquad
# \text{GeM: } f_c = \Big(\frac{1}{L} \sum_i x_{ci}^p \Big)^{1/p}$$
#
# The mean asks *how much* of it there is, the maximum *how strong* it is at its best. The generalised mean
# lies between: it is the mean at $p = 1$, and goes to the maximum as $p$ grows. One takes $p = 3$, or learns
# it.
#
# **Backward of GeM.** As always, $dy$ is the gradient of the loss by the output, here $f$, and $dx$ that by
# $x$. One channel first, so we leave out $c$. Call $M = \frac{1}{L} \sum_i x_i^p$; then
# $f = M^{1/p}$. By the chain rule, and with $M = f^p$, so that $M^{1/p - 1} = f^{1 - p}$,
#
# $$\frac{\partial f}{\partial x_i} = \frac{1}{p} M^{1/p - 1} \cdot \frac{p\, x_i^{p-1}}{L}
# = \frac{1}{L} f^{1-p}\, x_i^{p-1} = \frac{1}{L} \Big( \frac{x_i}{f} \Big)^{p-1}
# \qquad\Rightarrow\qquad \boxed{\; dx_{ci} = dy_c\, \frac{1}{L} \Big( \frac{x_{ci}}{f_c} \Big)^{p-1} \;}$$
#
# At $p = 1$ all positions get the same, $1/L$; for large $p$ nearly all goes to the largest. For $p$ we
# take logarithms: $\ln f = \frac{1}{p} \ln M$, and differentiate both sides by $p$. On the right that is
# the product rule, and $x_i^p = e^{p \ln x_i}$ has the derivative $x_i^p \ln x_i$:
#
# $$\frac{1}{f} \frac{\partial f}{\partial p} = -\frac{\ln M}{p^2} + \frac{1}{p M} \cdot
# \frac{1}{L} \sum_i x_i^p \ln x_i$$
#
# With $\ln M = p \ln f$ and the shares $q_i = x_i^p / \sum_j x_j^p$, this is
#
# $$\boxed{\; dp = \sum_c dy_c\, \frac{f_c}{p} \Big( \sum_i q_{ci} \ln x_{ci} - \ln f_c \Big) \;}$$
#
# The shares prefer large values, and the bracket is never negative: as $q_i = x_i^p / (L f^p)$, it is
# $\frac{1}{p} \sum_i q_i \ln (L q_i)$, and by $\ln a \geq 1 - 1/a$ that sum is at least
# $\sum_i (q_i - 1/L) = 1 - 1 = 0$. So $f$ rises with $p$, from the mean to the maximum. The loss decides
# whether it should. (Of 0 there is no logarithm: the library's `gem` counts what is below $10^{-6}$ as
# $10^{-6}$.)
#
# Descriptors are compared by their direction alone: each descriptor $x: (C,)$ is divided by its length,
# $\hat x = x / |x|$. For a query $q$ and a picture $g$ of the gallery the product $\hat x_q \cdot \hat x_g$
# is then the cosine of the angle between the two, 1 for the same direction. The rule for $y = \hat x$, by
# the quotient rule and because $|x|$ has the gradient $\hat x$:
#
# $$dx = \frac{1}{|x|} \big( dy - \hat x\, (\hat x \cdot dy) \big)$$

# %% [markdown]
# ### R-MAC
#
# At level $l = 1, 2, \ldots$ take squares of size $z = \lfloor 2 \min(H, W) / (l + 1) \rfloor$: the largest
# that fits, then two thirds of it, a half. On a square map there are $l \times l$ of them, from edge to
# edge; square $j = 0, \ldots, l - 1$ begins at $\lfloor j\, (H - z) / (l - 1) \rfloor$, and the single one of
# level 1 at 0. (On a longer map there are more along the longer side, so many that those of level 1 overlap
# by about 40 %.) With three levels that makes $R = 1 + 4 + 9 = 14$ regions on a square map. Each has a MAC
# vector $m_r: (C,)$, and
#
# $$y = \sum_{r=1}^{R} \hat m_r$$
#
# The lengths are divided out *before* the sum, so that a region counts for what is in it, and not for how
# loud that is.

# %% [markdown]
# ### Regional attention
#
# A region is described to the attention by its *mean* features $v_r: (C,)$. Is a stroke a part of the
# thing, or a stray piece? That depends on the rest. So the mean of the whole map, $g: (C,)$, is put below
# it:
#
# $$u_r = [v_r;\, g] : (2C,)$$
#
# Then come two layers, with $D$ hidden units, the same for all regions. $\mathrm{softplus}(a) = \ln(1 + e^a)$
# is a smooth ReLU, and always positive. With $W_1: (D, 2C)$, $b_1: (D,)$, $w_2: (D,)$ and one number $b_2$,
#
# $$a_r = W_1 u_r + b_1 : (D,), \qquad h_r = \mathrm{softplus}(a_r), \qquad
# s_r = w_2 \cdot h_r + b_2, \qquad w_r = \mathrm{softplus}(s_r)$$
#
# $s_r$ is the region's *score* and $w_r$ its *weight*, one number each. The picture's vector is
#
# $$y = \frac{1}{R} \sum_r w_r\, m_r$$
#
# The weights are *not* shares: there is no softmax, and a region does not have to be better than others to
# count. In a picture full of clutter all may be small.
#
# **Backward.** From the last line to the first. $y$ is linear in each $m_r$ and in each $w_r$:
#
# $$dm_r = \frac{w_r}{R}\, dy, \qquad dw_r = \frac{1}{R}\, m_r \cdot dy$$
#
# The second says how the weights learn: a region gets more weight if its vector points where the loss
# wants $y$ to go. Softplus has the derivative $e^a / (1 + e^a) = \sigma(a)$, the sigmoid:
#
# $$ds_r = dw_r\, \sigma(s_r)$$
#
# The layers are those of lesson 04; $w_2$, $b_1$ and the others serve all regions, so their gradients are
# sums over the regions:
#
# $$dw_2 = \sum_r ds_r\, h_r, \qquad db_2 = \sum_r ds_r, \qquad
# da_r = ds_r\, w_2 \odot \sigma(a_r)$$
#
# $$dW_1 = \sum_r da_r\, u_r^\top, \qquad db_1 = \sum_r da_r, \qquad du_r = W_1^\top da_r$$
#
# **Training.** Nothing here says what is worth looking at. Kim and Yoon take a network that was trained to
# classify, put the attention between its feature map and its last layer, freeze both, and train $W_1, b_1,
# w_2, b_2$ by the same cross-entropy. The weights learn which regions speak for the class. In a search the
# last layer is left away, and the vectors of the regions are divided by their lengths, as in R-MAC:
# $y = \sum_r w_r\, \hat m_r$.
#
# All of it comes from one pass of the network: regions are cut out of the feature map, not of the picture.

# %% [markdown]
# ### Whitening
#
# Some directions among the descriptors vary a lot, and decide every comparison. *PCA whitening* learns
# the mean $\mu$ and the covariance $\frac{1}{M} \sum_m (x_m - \mu)(x_m - \mu)^\top = V \Lambda V^\top$ of $M$
# descriptors of other pictures, and makes all directions vary alike:
#
# $$x' = \Lambda^{-1/2}\, V^\top (x - \mu), \quad \text{then divided by its length}$$
#
# For $x'$ one keeps the $B$ eigenvectors of the largest eigenvalues, $V: (C, B)$ and $\Lambda: (B, B)$, and
# drops the rest. Eigenvectors are orthonormal, $V^\top V = I$, and the covariance makes $V \Lambda$ of $V$. So
# before the lengths are divided out, the covariance of $x'$ is the identity:
# $\Lambda^{-1/2} V^\top (V \Lambda) \Lambda^{-1/2} = I$.

# %% [markdown]
# ### How good is a ranking?
#
# The gallery is ranked by the cosine with the query. Walk down the ranking. After some places, *recall* is
# the share of the $P$ wanted pictures that have come, *precision* the share of wanted ones among those
# that came. At the start recall is 0, and precision is taken to be 1. *Average precision* (AP) is the area
# below precision as a function of recall; the mean over the queries is *mAP*. *Junk* are pictures that should
# count neither way (in photographs of buildings, those where one hardly sees it); they are taken out of the
# ranking before. *P@k* is the precision after $k$ places.
#
# The area is measured by trapezoids, or by steps, which gives more: the two are not to be mixed. By hand,
# for the ranking 3, 1, 0, 7, 2, where 3 and 7 are wanted and 1 is junk:

# %%
ranking, wanted, junk = [3, 1, 0, 7, 2], {3, 7}, {1}
kept = [picture for picture in ranking if picture not in junk]
found = np.cumsum([picture in wanted for picture in kept])
recall = np.concatenate([[0], found / len(wanted)])
precision = np.concatenate([[1], found / np.arange(1, len(kept) + 1)])
print("place:    ", *[f"{picture:5}" for picture in kept])
print("recall:   ", *[f"{value:5.2f}" for value in recall[1:]])
print("precision:", *[f"{value:5.2f}" for value in precision[1:]])
trapezoid = (np.diff(recall) * (precision[1:] + precision[:-1]) / 2).sum()
step = (np.diff(recall) * precision[1:]).sum()
print(f"area by trapezoids {trapezoid:.3f}, by steps {step:.3f}")
assert np.isclose(average_precision(ranking, wanted, junk), trapezoid)
assert np.isclose(average_precision(ranking, wanted, junk, interpolation="step"), step)

figure, ax = viz.panels(1, 1, width=4.5, height=2.8)
ax.plot(recall, precision, "o-", color=viz.COLOURS[0], label="trapezoids")
ax.fill_between(recall, precision, color=viz.COLOURS[0], alpha=0.2, linewidth=0)
ax.step(recall, precision, where="pre", color=viz.COLOURS[1], linestyle="--", label="steps")
ax.set(xlabel="recall", ylabel="precision", ylim=(0, 1.05))
ax.legend(frameon=False, loc="lower left")
assert trapezoid < step
figure

# %% [markdown]
# *Figure 2. Precision over recall. A place with a wrong picture lowers the precision and leaves the
# recall; a wanted one moves on to the right. The steps take the precision at a wanted picture for all the
# way to it.*

# %% [markdown]
# ### Asking again
#
# Two ways to rank better without a better descriptor. *Query expansion*: add the first $k$ answers to the
# query and ask again, with
#
# $$\hat x_q + \sum_{g \in \text{first } k} \hat x_g$$
#
# *k-reciprocal re-ranking*: trust those that name the query as well. The *friends* $F(i, k)$ of a picture
# $i$ are the pictures $j$ such that $i$ and $j$ are each among the other's $k$ nearest. Its circle
# $F^*(i)$ holds its friends $F(i, k_1)$; and of each friend $j$ also the closer friends $F(j, k_1/2)$, if more
# than two thirds of these are friends of $i$. Each picture is then described by who is in its circle, the
# near ones with more weight, and two pictures are near if they have the same circle:
#
# $$V_{ij} = \frac{e^{-d_{ij}}}{\sum_{m \in F^*(i)} e^{-d_{im}}} \text{ for } j \in F^*(i), \text{ else } 0,
# \qquad J_{ij} = 1 - \frac{\sum_m \min(V_{im}, V_{jm})}{\sum_m \max(V_{im}, V_{jm})}$$
#
# Here $d_{ij} = |\hat x_i - \hat x_j|^2$, divided by the largest of row $i$. Between the two steps $V_i$ is
# averaged over the $k_2$ nearest of $i$, itself among them. The ranking is by
# $0.3\, d_{ij} + 0.7\, J_{ij}$.

# %% [markdown]
# ## The code
#
# Regional attention as loops, for one picture:


# %%
def softplus(a):
    return np.logaddexp(0, a)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def regional_attention_loops(m, u, w1, b1, w2, b2):
    """Maxima m (R, C), regions with context u (R, 2C) -> y (C,)."""
    R, C = m.shape
    y = np.zeros(C)
    for r in range(R):
        s = b2[0]
        for d in range(len(b1)):
            s += w2[d] * softplus(b1[d] + sum(w1[d, j] * u[r, j] for j in range(2 * C)))
        y += softplus(s) * m[r] / R
    return y


# %% [markdown]
# And in primitive form, in two parts, as in the derivation: the scores $s$, and the mean with the weights
# $\mathrm{softplus}(s)$. The rules of the whole are those of the parts, one after the other.


# %%
def weighted_mean(m, s):
    """m (R, C), scores s (R,) -> y (C,), and a rule for each."""
    R, w = len(m), softplus(s)

    def vjp_m(dy):
        return np.outer(w, dy) / R

    def vjp_s(dy):
        return (m @ dy) / R * sigmoid(s)

    return w @ m / R, (vjp_m, vjp_s)


def region_scores(u, w1, b1, w2, b2):
    """u (R, 2C), w1 (D, 2C), b1 (D,), w2 (D,), b2 (1,) -> s (R,), and a rule for each."""
    a = u @ w1.T + b1  # (R, D)
    h = softplus(a)

    def back_to_a(ds):
        return np.outer(ds, w2) * sigmoid(a)

    def vjp_u(ds):
        return back_to_a(ds) @ w1

    def vjp_w1(ds):
        return back_to_a(ds).T @ u

    def vjp_b1(ds):
        return back_to_a(ds).sum(axis=0)

    def vjp_w2(ds):
        return ds @ h

    def vjp_b2(ds):
        return ds.sum(keepdims=True)

    return h @ w2 + b2, (vjp_u, vjp_w1, vjp_b1, vjp_w2, vjp_b2)


def regional_attention(m, u, w1, b1, w2, b2):
    s, rules_of_s = region_scores(u, w1, b1, w2, b2)
    y, (vjp_m, vjp_s) = weighted_mean(m, s)
    return y, (vjp_m, *[lambda dy, rule=rule: rule(vjp_s(dy)) for rule in rules_of_s])


# %% [markdown]
# GeM for one picture, with its two rules:


# %%
def our_gem(x, p):
    """x (C, L), all positive, p (1,) -> f (C,), and a rule for each."""
    f = (x**p).mean(axis=1) ** (1 / p)

    def vjp_x(dy):
        return dy[:, None] * (x / f[:, None]) ** (p - 1) / x.shape[1]

    def vjp_p(dy):
        q = x**p / (x**p).sum(axis=1, keepdims=True)
        return np.array([(dy * f / p * ((q * np.log(x)).sum(axis=1) - np.log(f))).sum()])

    return f, (vjp_x, vjp_p)


# %% [markdown]
# The regions of a square map, and R-MAC from them:


# %%
def square_grid(side, levels=3):
    """Regions (top, left, size) of a map of side x side positions."""
    regions = []
    for level in range(1, levels + 1):
        size = 2 * side // (level + 1)
        starts = [j * (side - size) // max(level - 1, 1) for j in range(level)]
        regions += [(top, left, size) for top in starts for left in starts]
    return regions


def our_rmac(x):
    """x (C, H, W) with H = W -> (C,)."""
    y = 0
    for top, left, size in square_grid(x.shape[1]):
        m = x[:, top : top + size, left : left + size].max(axis=(1, 2))
        y = y + m / np.sqrt((m**2).sum())
    return y


rng = np.random.default_rng(0)
C, R, D = 3, 5, 4
m, u = rng.uniform(size=(R, C)), rng.uniform(size=(R, 2 * C))
w1, b1, w2, b2 = (rng.normal(size=shape) for shape in ((D, 2 * C), D, D, 1))
maps = rng.uniform(0.1, 2, size=(2, C, 7, 7))

y, _ = regional_attention(m, u, w1, b1, w2, b2)
same_loops = np.allclose(y, regional_attention_loops(m, u, w1, b1, w2, b2))
print("regional attention, loops and arrays agree:", same_loops)
grids = all(square_grid(side) == region_grid(side, side) for side in (3, 7, 8, 14))
print("our grid is the library's:", grids)
print("our R-MAC is the library's:", np.allclose(rmac(maps).data, [our_rmac(x) for x in maps]))
f, _ = our_gem(maps[0].reshape(C, 49), np.array([3.0]))
print("our GeM is the library's:", np.allclose(gem(maps, 3.0).data[0], f))

# %% [markdown]
# As a module, made of layers, and beside the library's. `RegionalAttention` gives the weights;
# `RegionalMAC` takes a feature map and returns the weighted mean.


# %%
class OurRegionalAttention(nn.Module):
    """Weights (N, R) of regions' means (N, R, C) in pictures of means (N, C)."""

    def __init__(self, channels, hidden=64):
        super().__init__()
        self.fc1 = nn.Linear(2 * channels, hidden)
        self.fc2 = nn.Linear(hidden, 1)

    def forward(self, regions, whole):
        context = whole.unsqueeze(1).expand(-1, regions.shape[1], -1)
        u = F.cat([regions, context], dim=2)  # (N, R, 2C)
        return F.softplus(self.fc2(F.softplus(self.fc1(u)))).squeeze(2)


# %%
mt.manual_seed(0)
ours, library = OurRegionalAttention(C, D), RegionalAttention(C, D)
library.load_state_dict(ours.state_dict())
means, whole = region_vectors(maps, pool=spoc), spoc(maps)
weights = ours(means, whole)
print("module and library agree:", np.allclose(weights.data, library(means, whole).data))

pooled = RegionalMAC(library)(mt.tensor(maps)).data[0]
state = {name: value.data for name, value in ours.state_dict().items()}
context = np.broadcast_to(whole.data[0], means.shape[1:])
by_hand, _ = regional_attention(
    region_vectors(maps).data[0],
    np.concatenate([means.data[0], context], axis=1),
    *(state["fc1.weight"], state["fc1.bias"], state["fc2.weight"][0], state["fc2.bias"]),
)
print("RegionalMAC is our function:", np.allclose(pooled, by_hand))
count = sum(p.numel() for p in RegionalAttention(2048).parameters())
print(f"parameters for 2048 channels: {count:,}")
assert count == 262_273

# %% [markdown]
# The search itself is a product of matrices and a sort; whitening is an eigendecomposition. Last, the
# re-ranking. The table of friends comes from the table of neighbours by one `&`; all else is as said
# above, for all pictures at once.


# %%
def mutual(order, k):
    """order (M, M): for each picture all pictures, the nearest (itself) first -> friends (M, M)."""
    near = np.zeros(order.shape, bool)
    np.put_along_axis(near, order[:, : k + 1], True, axis=1)
    return near & near.T


def our_reranking(x, queries, k1=20, k2=6, original=0.3):
    """x (M, C) of length 1, the queries first -> distances (queries, M - queries)."""
    d = 2 - 2 * x @ x.T  # squared distances
    d = d / d.max(axis=1, keepdims=True)
    order = np.argsort(d, axis=1)
    friends, closer = mutual(order, k1).astype(int), mutual(order, round(k1 / 2)).astype(int)
    shared = friends @ closer.T  # (M, M): friends of i among the closer friends of j
    trusted = friends * (3 * shared > 2 * closer.sum(axis=1))  # more than two thirds
    circle = friends + trusted @ closer > 0
    V = np.where(circle, np.exp(-d), 0)
    V /= V.sum(axis=1, keepdims=True)
    V = V[order[:, :k2]].mean(axis=1)
    q, g = V[:queries, None], V[None, queries:]
    jaccard = 1 - np.minimum(q, g).sum(axis=2) / np.maximum(q, g).sum(axis=2)
    return original * d[:queries, queries:] + (1 - original) * jaccard


points = l2_normalized(rng.normal(size=(120, 6)))
index = Index(points[10:])
print(
    "search:", np.array_equal(index.search(points[:10]), np.argsort(-points[:10] @ points[10:].T))
)

mean = points.mean(axis=0)
variances, V = np.linalg.eigh((points - mean).T @ (points - mean) / len(points))
white = (points - mean) @ V[:, :1:-1] / np.sqrt(variances[:1:-1])  # the 4 widest
library_white = PCAWhitening(4, normalize=False).fit_transform(points)
print("whitening:", np.allclose(abs(white), abs(library_white)))  # up to the signs of eigenvectors
print(
    "re-ranking:",
    np.allclose(our_reranking(points, 10), reciprocal_distances(index, points[:10])),
)

# %% [markdown]
# ## The gradient check
#
# All rules against central differences (lesson 03):

# %%
x, p = rng.uniform(0.2, 2, size=(2, 6)), np.array([2.5])
print(mt.check_vjp(our_gem, x, p))
print(mt.check_vjp(regional_attention, m, u, w1, b1, w2, b2))
s = np.array([-1.0, 0.2, 1.5, -0.5, 2.0])
report = mt.check_vjp(weighted_mean, m, s)
assert report.ok

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 3. The weighted mean: the gradients by the rules, the measured ones, and the errors, dark
# throughout.*
#
# A mistake that is easily made: weights come from a *sigmoid* so often that one writes its derivative,
# $w\,(1 - w)$, from memory. Here the gate is a softplus.


# %%
def gate_taken_for_a_sigmoid(m, s):
    y, (vjp_m, _) = weighted_mean(m, s)
    w = softplus(s)

    def vjp_s(dy):
        return (m @ dy) / len(m) * w * (1 - w)

    return y, (vjp_m, vjp_s)


wrong = mt.check_vjp(gate_taken_for_a_sigmoid, m, s, raise_on_failure=False)
print(wrong)
assert [compared.ok for compared in wrong.inputs] == [True, False]
ratio = wrong.inputs[1].analytic / wrong.inputs[1].numeric
assert ((ratio < 0) == (softplus(s) > 1)).all() and (ratio < 0).sum() == 2

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 4. The rule of m is right; that of s is wrong in each element by a factor of its own. Two of the
# five weights are above 1. There $1 - w$ is negative, and even the sign is wrong: the network would learn to
# look away from what it should look at.*
#
# And one for GeM. If the $1/L$ of the mean is forgotten, the checker names the mistake:


# %%
def gem_without_the_mean(x, p):
    f, (vjp_x, vjp_p) = our_gem(x, p)
    return f, (lambda dy: x.shape[1] * vjp_x(dy), vjp_p)


print(mt.check_vjp(gem_without_the_mean, x, p, raise_on_failure=False))

# %% [markdown]
# ## At work
#
# ### The task
#
# Scenes as in figure 1, with real handwritten digits. The network is trained on the digits 0 to 6. It
# never sees 7, 8 and 9. The gallery holds 700 scenes of all ten digits; there are 100 queries of digits
# that were seen, and 100 of digits that were not. Training uses one part of the written digits, gallery
# and queries another. Wanted are the scenes of the query's digit. If the very same written digit
# stands in a scene of the gallery, that scene is junk: to find it is too easy to count, and no mistake
# either.
#
# By chance one picture in ten is wanted: a ranking by lot has an mAP of about 0.1.

# %%
train_scenes = cluttered_digits(4500, range(7), generator=1)
gallery = cluttered_digits(700, range(10), train=False, generator=2)
queries = {
    "seen": cluttered_digits(100, range(7), train=False, generator=3),
    "unseen": cluttered_digits(100, (7, 8, 9), train=False, generator=4),
}


def wanted_and_junk(scenes):
    """For each query the numbers of the gallery's scenes."""
    same = [gallery.samples == sample for sample in scenes.samples]
    like = [gallery.labels == label for label in scenes.labels]
    wanted = [np.flatnonzero(a & ~b) for a, b in zip(like, same)]
    return wanted, [np.flatnonzero(b) for b in same]


TRUTH = {kind: wanted_and_junk(scenes) for kind, scenes in queries.items()}


def mean_ap(rankings, kind):
    return mean_average_precision(rankings, *TRUTH[kind])


lot = np.random.default_rng(0).permuted(np.tile(np.arange(700), (100, 1)), axis=1)
print(f"mAP of a ranking by lot: {mean_ap(lot, 'seen'):.1f}, {mean_ap(lot, 'unseen'):.1f}")

# %% [markdown]
# ### The network
#
# Four convolutions lead from 32 x 32 pixels to $C = 32$ channels on $8 \times 8$ positions. SPoC and a
# linear layer make it a classifier.


# %%
def convolution(in_channels, out_channels, stride=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class SPoC(nn.Module):
    def forward(self, x):
        return spoc(x)


def run(model, x):
    """A model's output for an array, in evaluation, without a graph."""
    model.eval()
    with mt.no_grad():
        return np.concatenate(
            [model(mt.tensor(x[i : i + 100])).numpy() for i in range(0, len(x), 100)]
        )


mt.manual_seed(0)
backbone = nn.Sequential(
    convolution(1, 16, stride=2),
    convolution(16, 32, stride=2),
    convolution(32, 32),
    convolution(32, 32),
)
last_layer = nn.Linear(32, 7)
classifier = nn.Sequential(backbone, SPoC(), last_layer)
loader = DataLoader(
    TensorDataset(train_scenes.images / 255, train_scenes.labels),
    batch_size=32,
    shuffle=True,
    generator=0,
)
optimizer = optim.Adam(classifier.parameters(), lr=5e-3)
schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 2 * len(loader))
fit(
    classifier,
    loader,
    optimizer=optimizer,
    epochs=2,
    scheduler=schedule,
    scheduler_every="batch",
    metrics={},
    progress=False,
)
scores = run(classifier, queries["seen"].images / 255)
right = (scores.argmax(axis=1) == queries["seen"].labels).mean()
print(f"of the queries that it could know it classifies {100 * right:.0f} % rightly")
assert right > 0.8

# %% [markdown]
# Now it is frozen, and the feature maps of all scenes are computed once. The attention is trained
# between backbone and last layer. As nothing in front of it changes, it can be trained on the stored maps.
#
# Two controls ask what it is that helps. *No context*: the same attention, but $g$ is zero. *Mean weights*:
# each region gets the weight that it has in the mean over the training scenes. Such weights know sizes and
# places, and nothing of the picture.

# %%
f_train = run(backbone, train_scenes.images / 255)
f_gallery = run(backbone, gallery.images / 255)
f_query = {kind: run(backbone, scenes.images / 255) for kind, scenes in queries.items()}
last_layer.requires_grad_(False)


class NoContext(RegionalAttention):
    def forward(self, regions, whole):
        return super().forward(regions, 0 * whole)


def trained(kind, seed):
    mt.manual_seed(seed)
    attention = kind(32, hidden=16)
    model = nn.Sequential(RegionalMAC(attention), last_layer)
    loader = DataLoader(
        TensorDataset(f_train, train_scenes.labels), batch_size=32, shuffle=True, generator=seed
    )
    optimizer = optim.Adam(attention.parameters(), lr=1e-2)
    fit(model, loader, optimizer=optimizer, epochs=2, metrics={}, progress=False)
    return attention


attentions = [trained(RegionalAttention, seed) for seed in range(3)]
without_context = [trained(NoContext, seed) for seed in range(3)]


def weights_of(attention, maps):
    """Of each region (N, R)."""
    with mt.no_grad():
        return attention(region_vectors(maps, pool=spoc), spoc(maps)).numpy()


def with_mean_weights(attention):
    mean = weights_of(attention, f_train[:1000]).mean(axis=0)
    return lambda regions, whole: mt.tensor(np.tile(mean, (len(whole), 1)))


# %% [markdown]
# One pass for all regions, is that worth much? The alternative would be to cut the regions out of the
# picture and run the network on each:

# %%
once = mt.summary(backbone, (1, 32, 32)).multiply_adds
areas = sum((size / 8) ** 2 for _, _, size in GRID)
attending = len(GRID) * (64 * 16 + 16)
print(f"one pass {once / 1e6:.2f} M multiply-adds, its attention {attending / 1e6:.2f} M more;")
print(f"on 14 pieces of the picture it would take {areas:.1f} passes")
assert attending < 0.02 * once

# %% [markdown]
# ### Descriptors, side by side


# %%
def described(descriptor, maps):
    """Descriptors (N, C), of length 1."""
    with mt.no_grad():
        return l2_normalized(descriptor(mt.tensor(maps)))


def with_attention(attention):
    return lambda maps: rmac(maps, attention=attention)


ARMS = {
    "SPoC": [spoc],
    "MAC": [mac],
    "GeM": [gem],
    "R-MAC": [rmac],
    "R-MAC, mean weights": [with_attention(with_mean_weights(one)) for one in attentions],
    "R-MAC, no context": [with_attention(one) for one in without_context],
    "R-MAC, attention": [with_attention(one) for one in attentions],
}
found = {kind: {} for kind in queries}
for arm, descriptors in ARMS.items():
    for kind in queries:
        found[kind][arm] = [
            mean_ap(Index(described(one, f_gallery)).search(described(one, f_query[kind])), kind)
            for one in descriptors
        ]

figure, axes = viz.panels(1, 2, height=3.8)
for ax, kind in zip(axes, queries):
    viz.plot_arms(found[kind], label="mAP", ax=ax)
    ax.margins(x=0.15)
    ax.set_title(f"queries of {kind} digits")
axes[1].set_yticklabels([])
for kind in queries:
    mean = {arm: np.mean(runs) for arm, runs in found[kind].items()}
    assert mean["R-MAC"] < min(mean["MAC"], mean["GeM"])
    assert min(found[kind]["R-MAC, attention"]) > mean["R-MAC"]
    assert mean["R-MAC"] < mean["R-MAC, no context"] < mean["R-MAC, attention"]
    assert mean["R-MAC, attention"] < mean["GeM"]
    gain = {arm: value - mean["R-MAC"] for arm, value in mean.items()}
    assert gain["R-MAC, mean weights"] < 0.3 * gain["R-MAC, attention"]
figure

# %% [markdown]
# *Figure 5. Left the queries of digits that the network knows, right of digits that it does not; note the
# two scales. A dot is one training of the attention, the bar their mean.*
#
# Read it from below.
#
# - The attention raises R-MAC on both sides, with each seed. The mean weights hardly do: what helps is not
#   that some sizes or places get more, it is what the attention sees in this picture.
# - Without the context it gains less: what a region is worth, the whole picture helps to decide.
# - And yet GeM, with no regions and nothing more to train, is better still. In these scenes R-MAC starts
#   behind: most of its 14 regions hold clutter as well, and all are divided by their length, so that a
#   stray stroke speaks as loudly as the digit. The attention repairs a part of that. (In photographs of
#   buildings, for which R-MAC was made, a thing may fill the picture or a corner of it; ours is always
#   of one size.)
# - On digits that were not seen all descriptors are far worse, though much better than chance. What was
#   learned is to tell seven digits apart.
#
# How far does this hold? We trained twelve backbones, from other seeds on other scenes. Behind each of them the
# attention raised R-MAC, by between one and five hundredths on seen digits, and GeM stayed ahead of it there.
# The context helped behind eleven of them; behind one it made no difference. On unseen digits, measured
# behind six of them, the gain was one or two hundredths; GeM was ahead behind four, and no better behind two.

# %% [markdown]
# ### What the attention sees
#
# For each scene of the gallery the weights of its 14 regions, and how much of each region's ink is the
# digit's (figure 1). Among regions of the same size, a larger share should go with a larger weight:

# %%
W = weights_of(attentions[0], f_gallery)
S = np.array([shares(i, b) for i, b in zip(gallery.images[:, 0] / 255 + 1e-9, gallery.boxes)])
size_of = np.array([region.size for region in GRID])
for size in SIZES[1:]:
    of_size = size_of == size
    w, share = W[:, of_size], S[:, of_size]
    heavy = np.take_along_axis(share, w.argmax(axis=1)[:, None], axis=1).mean()
    print(
        f"regions of {4 * size} x {4 * size}: the digit has {share.mean():.2f} of the ink,", end=" "
    )
    print(
        f"in the heaviest {heavy:.2f}; correlation {np.corrcoef(w.ravel(), share.ravel())[0, 1]:.1f}"
    )
    assert heavy > share.mean() + 0.1

# %%
covering = np.zeros((14, 8, 8))  # which positions each region holds
for r, (top, left, size) in enumerate(GRID):
    covering[r, top : top + size, left : left + size] = 1
shown = [int(np.flatnonzero(gallery.labels == digit)[0]) for digit in (0, 2, 4, 7, 9)]
figure, axes = viz.panels(2, 5, height=3.6)
for (above, below), k in zip(axes.T, shown):
    picture, box = gallery.images[k, 0] / 255, gallery.boxes[k]
    for ax in above, below:
        ax.imshow(picture, cmap="gray_r", vmin=0, vmax=1.5)
        ax.set_axis_off()
    square(above, *box[:3], "black", linestyle="--", linewidth=1.5)
    for r in np.argsort(-W[k])[:3]:
        top, left, size = GRID[r]
        square(above, 4 * top, 4 * left, 4 * size, viz.COLOURS[1], inset=0.5, linewidth=2)
    attended = np.einsum("r,rhw->hw", W[k, 5:], covering[5:]) / covering[5:].sum(axis=0)
    below.imshow(
        attended,
        cmap="viridis",
        alpha=0.65,
        vmin=0,
        extent=(-0.5, 31.5, 31.5, -0.5),
        interpolation="bilinear",
    )
    above.set_title(str(gallery.labels[k]))
assert (S[shown][np.arange(5), W[shown].argmax(axis=1)] > S[shown].mean(axis=1)).all()
figure

# %% [markdown]
# *Figure 6. The first scene of some digits in the gallery; 7 and 9 were never trained on. Above: the digit's
# square (dashed), and the three heaviest regions. Below: for each position the mean weight of the small
# regions that hold it, the brighter the more.*
#
# Nobody ever said where the digit is. That is what classification taught the attention.

# %% [markdown]
# ### Whitening: who gains?
#
# Learned on the descriptors of the training scenes, which are not in the gallery. Below, the share of the
# variance in each direction; and what becomes of mAP if $B$ directions are kept, as they are (PCA), or
# whitened. The descriptor is R-MAC with attention.

# %%
descriptor = with_attention(attentions[0])
d_train, d_gallery = described(descriptor, f_train), described(descriptor, f_gallery)
d_query = {kind: described(descriptor, maps) for kind, maps in f_query.items()}
plain = {kind: mean_ap(Index(d_gallery).search(d), kind) for kind, d in d_query.items()}

variances = PCAWhitening().fit(d_train).variances
variance_share = variances / variances.sum()
print(
    f"the first 6 of {len(variances)} directions: {100 * variance_share[:6].sum():.0f} % of the variance"
)

kept = [2, 4, 6, 8, 12, 16, 24]
curves = {}
for whiten, name in (False, "PCA"), (True, "whitened"):
    for kind in queries:
        curves[name, kind] = []
        for B in kept:
            change = PCAWhitening(B, whiten).fit(d_train).transform
            rankings = Index(change(d_gallery)).search(change(d_query[kind]))
            curves[name, kind].append(mean_ap(rankings, kind))

figure, axes = viz.panels(1, 3, height=2.9)
axes[0].bar(np.arange(1, 17), variance_share[:16], color=viz.COLOURS[0])
axes[0].set(xlabel="direction", ylabel="share of the variance")
for ax, kind in zip(axes[1:], queries):
    for name, colour in ("PCA", viz.COLOURS[0]), ("whitened", viz.COLOURS[1]):
        ax.plot(kept, curves[name, kind], "o-", color=colour, label=name)
    ax.axhline(plain[kind], color="black", linestyle="--", linewidth=1)
    ax.set(xlabel="directions kept, B", ylabel="mAP", title=kind)
axes[1].legend(frameon=False)
wide = [kept.index(B) for B in kept if B >= 8]
assert variance_share[:6].sum() > 0.8
for name, sign in ("seen", -1), ("unseen", 1):
    pca, white = (np.array(curves[way, name])[wide] for way in ("PCA", "whitened"))
    assert (sign * (white - pca) > 0).all() and (sign * (plain[name] - pca) > 0).all()
    assert np.ptp(pca) < 0.03
figure

# %% [markdown]
# *Figure 7. Left: the variances of the first 16 directions. Then mAP for seen and for unseen digits, with
# the number of directions that are kept; dashed is the descriptor as it is.*
#
# Seven classes fit into six directions (three points at equal distances lie in a plane, seven in six
# directions), and here six hold nearly all the variance. Compare the two lines, which differ by the
# whitening alone. For digits that the network knows, these directions say all: blue is flat from there on,
# and orange falls, because whitening makes the rest as loud. For digits that it does not know it is the
# other way round. The wide directions hardly tell them apart; to raise the narrow ones helps.
#
# And blue is flat, but not where the dashed line is. What is left of the change when nearly all directions
# are kept is that the mean $\mu$ was subtracted. For seen digits that is a gain: what all pictures have in
# common says nothing. For unseen ones it is a loss. How much is left of their descriptors?

# %%
mu = d_train.mean(axis=0)
for kind, d in d_query.items():
    print(
        f"{kind:6} |x - mu| of descriptors of length 1: {np.linalg.norm(d - mu, axis=1).mean():.2f}"
    )
left = {kind: np.linalg.norm(d - mu, axis=1).mean() for kind, d in d_query.items()}
assert left["unseen"] < left["seen"] - 0.05

# %% [markdown]
# Less. One may read it so: to the network an unseen digit looks like a bit of this and a bit of that, and so
# it lies nearer to the mean. What remains is divided by its length, and speaks more loudly than it should.
#
# "Whitening helps", say the papers, and it does in *their* case: their network was trained for something else
# than it is used for. It is no law.

# %% [markdown]
# ### Asking again: who gains?

# %%
index = Index(d_gallery)
gains, first_five = {"expansion": [], "re-ranking": []}, []
for kind, d in d_query.items():
    before = index.search(d)
    again = {
        "expansion": index.search(expand_queries(index, d, k=5)),
        "re-ranking": rerank(index, d),
    }
    line = [f"{kind:6} mAP {plain[kind]:.2f}"]
    for way, after in again.items():
        line.append(f"after {way} {mean_ap(after, kind):.2f}")
        for b, a, wanted, junk in zip(before, after, *TRUTH[kind]):
            gain = average_precision(a, wanted, junk) - average_precision(b, wanted, junk)
            gains[way].append(gain)
    first_five += [precision_at_k(b, w, 5, junk=j) for b, w, j in zip(before, *TRUTH[kind])]
    print(", ".join(line))

first_five = np.array(first_five)
groups = {
    "0 or 1": first_five < 0.3,
    "2 or 3": abs(first_five - 0.5) < 0.2,
    "4 or 5": first_five > 0.7,
}
figure, ax = viz.panels(1, 1, width=5.5, height=3)
mean_gain = {
    way: [np.mean(np.array(g)[one]) for one in groups.values()] for way, g in gains.items()
}
for offset, (way, values) in zip((-0.2, 0.2), mean_gain.items()):
    colour = viz.COLOURS[0] if offset < 0 else viz.COLOURS[1]
    ax.bar(np.arange(3) + offset, values, 0.36, color=colour, label=way)
ax.axhline(0, color="black", linewidth=1)
ax.set_xticks(range(3), labels=[f"{name}\n({one.sum()} queries)" for name, one in groups.items()])
ax.set(xlabel="right ones among the first five answers", ylabel="gain in AP, mean")
ax.legend(frameon=False, loc="upper left")
for values in mean_gain.values():
    assert values[2] > 0.01 and values[0] < 0.4 * values[2]
figure

# %% [markdown]
# *Figure 8. What asking again gains, for all 200 queries, by how many of the first five answers were right
# before.*
#
# Both believe the first answers. Where these are right, they help; where they are wrong, the query drifts
# towards the wrong. They make good searches better, and do next to nothing for bad ones. That is also why
# they help the seen digits, and the unseen hardly.

# %%
wanted, junk = TRUTH["seen"]
expanded = expand_queries(index, d_query["seen"], k=5)


def first_seven(ranking, junk):
    return ranking[~np.isin(ranking, junk)][:7]


pairs = [
    [first_seven(answers, j) for answers in both]
    for *both, j in zip(index.search(d_query["seen"]), index.search(expanded), junk)
]
right = np.array(
    [[np.isin(answers, w).sum() for answers in pair] for pair, w in zip(pairs, wanted)]
)
k = int((right[:, 1] - right[:, 0]).argmax())
rows, marks, titles = [], [], []
for way, answers in zip(("plain", "expanded"), pairs[k]):
    rows += [queries["seen"].images[k], *gallery.images[answers]]
    marks += [False, *~np.isin(answers, wanted[k])]
    titles += [way, *gallery.labels[answers]]
assert sum(marks[8:]) < sum(marks[:8])
viz.show_images(255 - np.array(rows), titles, wrong=marks, columns=8)

# %% [markdown]
# *Figure 9. Left a query, chosen because its first seven answers gain most by expansion; these answers,
# before and after. Wrong ones are framed.*

# %% [markdown]
# ## Paper and code
#
# | | paper | released program | here |
# |---|---|---|---|
# | inner activation of the attention | | softplus in training, tanh in testing, with the same weights | `activation="softplus"` or `"tanh"` |
# | regions | on the feature map | in pixels, divided by 32, rounded, ends included: up to a cell larger | on the feature map |
# | sizes of regions | | five in regional attention | `levels=3` (R-MAC's), can be set |
# | the whole map as one more region | no | some programs of R-MAC add it, so that a square map counts twice | `whole=False` |
# | sum or mean of the regions | sum (R-MAC), mean (attention) | mean | sum for search, mean for training |
# | a region's length | Euclidean | first divided by its largest value: a sign is lost if that is negative | Euclidean |
# | tiny variances | | nothing is cut off | left out below $10^{-10}$ of the largest |
# | average precision | trapezoids (Oxford) | trapezoids | both; trapezoids if nothing is said |
# | re-ranking: friends of friends | at least two thirds shared | more than two thirds | more than two thirds |
# | re-ranking: neighbours | among the gallery | among gallery and queries | among gallery and queries |
#
# With the paper's sizes, 2048 channels and 64 hidden units, the attention has 262,273 parameters. It is
# trained by SGD with ResNet-101 and its classifier frozen, on ImageNet; tested on
# photographs of buildings, with the region vectors whitened between two divisions by their lengths
# (`rmac(..., whiten=)`), and with query expansion.
#
# For a gallery of some hundred thousand pictures a product of matrices is quick enough. Beyond that, take
# FAISS, a library for exact and approximate search; the docstring of `Index` says how.

# %% [markdown]
# ## Predict before you run
#
# **1.** In how many of the 14 regions is the middle of an 8 x 8 map, in how many is a corner?

# %%
cover = covering.sum(axis=0).astype(int)
print(cover)

# %% [markdown]
# <details><summary>Answer</summary>
#
# A corner is in one region of each size: 3. The middle is in the one large region, in all four of the
# second size, and in as many as four of the third: 9. R-MAC has a preference for the middle built in,
# which nobody wrote down.
#
# </details>
#
# **2.** An attention that was not trained at all. What will R-MAC with its weights find, compared with
# R-MAC?

# %%
mt.manual_seed(0)
untrained = RegionalAttention(32, hidden=16)
w = weights_of(untrained, f_gallery)
print(f"its weights lie between {w.min():.1f} and {w.max():.1f}")
rankings = Index(described(with_attention(untrained), f_gallery)).search(
    described(with_attention(untrained), f_query["seen"])
)
difference = mean_ap(rankings, "seen") - found["seen"]["R-MAC"][0]
print("about the same as R-MAC:", bool(abs(difference) < 0.02))

# %% [markdown]
# <details><summary>Answer</summary>
#
# About the same. The weights of a fresh network are all nearly equal, and what is common to all of them is
# lost when the sum is divided by its length. It starts as R-MAC, and learns from there.
#
# </details>
#
# **3.** Query expansion with the first 5 answers helped. What will the first 300 do?

# %%
for k in 5, 300:
    rankings = index.search(expand_queries(index, d_query["seen"], k=k))
    print(f"k = {k:3}: mAP of the seen {mean_ap(rankings, 'seen'):.2f}, before {plain['seen']:.2f}")
drifted = mean_ap(rankings, "seen")
assert drifted < plain["seen"] - 0.05

# %% [markdown]
# <details><summary>Answer</summary>
#
# Harm. Of 700 pictures some 70 are wanted, so of the first 300 most are wrong: the new query is close to the
# mean of nearly half the gallery.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`22_regional_attention`](../exercises/22_regional_attention.ipynb):
#
# 1. **gem**: the generalised mean with both rules.
# 2. **region_grid**: the regions of R-MAC, on maps of any shape.
# 3. **regional_attention**: from regions to a vector, with all six rules.
# 4. **average_precision**: by trapezoids, with junk.
# 5. **whiten**: learn on one set, apply to another.
# 6. **RegionalAttention**: the module.

# %% [markdown]
# ## What to remember
#
# - A picture is remembered by one vector: pool a feature map (mean, maximum, GeM between them), divide by the
#   length, compare by cosine.
# - R-MAC adds up regions of length 1, as equals. Regional attention weighs them by
#   $\mathrm{softplus}$ of two layers that see region and whole, trained by classification with all else
#   frozen.
# - A control tells what helped: here what a region holds, and the context; not its size or place.
# - Whitening, query expansion and re-ranking do not help by nature. Ask whether the wide directions are
#   those that your queries need, and whether the first answers are right.
# - Say which average precision you measured, and take the junk out first.

# %% [markdown]
# ## Sources
#
# - J. Kim, S.-E. Yoon, *Regional Attention Based Deep Feature for Image Retrieval*, BMVC 2018; and the
#   program that its authors published.
# - G. Tolias, R. Sicre, H. Jégou, *Particular Object Retrieval with Integral Max-Pooling of CNN
#   Activations*, ICLR 2016.
# - F. Radenović, G. Tolias, O. Chum, *Fine-tuning CNN Image Retrieval with No Human Annotation*, TPAMI 2019
#   (GeM); F. Radenović et al., *Revisiting Oxford and Paris*, CVPR 2018 (junk, P@k).
# - A. Babenko, V. Lempitsky, *Aggregating Deep Convolutional Features for Image Retrieval*, ICCV 2015 (SPoC);
#   A. S. Razavian et al., *A Baseline for Visual Instance Retrieval with Deep Convolutional Networks*, 2014
#   (MAC).
# - H. Jégou, O. Chum, *Negative Evidences and Co-occurences in Image Retrieval: The Benefit of PCA and
#   Whitening*, ECCV 2012.
# - O. Chum et al., *Total Recall: Automatic Query Expansion with a Generative Feature Model for Object
#   Retrieval*, ICCV 2007; Z. Zhong, L. Zheng, D. Cao, S. Li, *Re-ranking Person Re-identification with
#   k-reciprocal Encoding*, CVPR 2017.
