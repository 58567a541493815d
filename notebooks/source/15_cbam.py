# %% [markdown]
# # 15 · Convolutional block attention module (CBAM)
#
# Squeeze and excitation weighs the channels. CBAM asks twice: *what* is worth looking at, and then
# *where*.
#
# **You will be able to**
#
# - derive both halves backward: what a maximum does to a gradient, and what a shared layer does;
# - build the module, change its order and its poolings, and put it into a residual network;
# - tell what the second half adds to the first, from an experiment with a control.
#
# **You need** lessons 05 to 07 (convolution, its backward, pooling) and lesson 13 (squeeze and
# excitation).
#
# **Time** about 50 minutes, and as long again for the exercises.

# %%
import numpy as np
from matplotlib.patches import Rectangle
from sklearn.datasets import load_sample_image

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import CBAM, SpatialAttention, SqueezeExcitation
from minitorch_attn.data import DataLoader, TensorDataset, digits
from minitorch_attn.models import cifar_resnet
from minitorch_attn.training import evaluate, fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# A photograph, and four channels that are made of it by hand: how much redder than green each
# place is, how much greener than red, how much bluer than yellow, how much yellower than blue.

# %%
photo = load_sample_image("flower.jpg")[3:, 8:632].transpose(2, 0, 1) / 255  # (3, 424, 624)
photo = F.avg_pool2d(mt.tensor(photo[None]), 8).data[0]  # (3, 53, 78)
red, green, blue = photo
yellow = (red + green) / 2
COLOURS = ["red", "green", "blue", "yellow"]
x = np.maximum([red - green, green - red, blue - yellow, yellow - blue], 0)[None]  # (1, 4, 53, 78)

viz.show_images(photo[None])

# %%
z_avg, z_max = x.mean(axis=(2, 3)), x.max(axis=(2, 3))  # (1, 4) each
assert z_avg.argmax() == COLOURS.index("green") and z_max.argmax() == COLOURS.index("red")
viz.show_feature_maps(
    x,
    titles=[f"{c}\n{a:.2f} / {m:.2f}" for c, a, m in zip(COLOURS, z_avg[0], z_max[0])],
    columns=4,
    label="response",
)

# %% [markdown]
# *Figure 1. A flower before its leaves, and the four channels, above each its mean / its maximum.
# Leaves fill most of the picture, so the channel with the greatest mean is green. The flower is
# small but strong: the channel with the greatest maximum is red.*
#
# A mean tells how much of something there is in all; a maximum, how strongly it is there in one place.
# Squeeze and excitation has the means alone; CBAM takes both.
#
# **What:** both go through the *same* function, here by hand "how far above the average of the four";
# the results are added, and a sigmoid makes a gate $s$ for every channel, by which it is multiplied.
# **Where:** the channels, so weighed, are boiled down to two maps, their mean and their maximum at each
# place; a 7x7 window gathers both, here by hand with equal weights, and another sigmoid makes a gate $t$
# for every place.


# %%
def above_average(z):
    return 8 * (z - z.mean())


s = F.sigmoid(mt.tensor(above_average(z_avg) + above_average(z_max))).data  # what: (1, 4)
weighed = s[:, :, None, None] * x

q = np.stack([weighed.mean(axis=1), weighed.max(axis=1)], axis=1)  # (1, 2, 53, 78)
window = mt.tensor(np.full((1, 2, 7, 7), 1 / 98))
gathered = F.conv2d(mt.tensor(q), window, padding=3).data
t = F.sigmoid(mt.tensor(40 * (gathered - gathered.mean()))).data[0, 0]  # where: (53, 78)

figure, ax = viz.panels(1, 1, width=5, height=2.2)
viz.show_channel_weights(s[0], value_range=(0, 1), label="gate s", ax=ax)
ax.set_xticks(range(4), labels=COLOURS)
ax.set_xlabel("")
assert s[0, 0] > s[0, 1] > s[0, 2] and s[0, 3] > s[0, 1]
figure

# %%
assert t[20:34, 30:46].min() > 0.9 and t[:, :12].mean() < 0.5  # the flower, and the leaves
viz.show_attention(photo, t, value_range=(0, 1), label="gate t")

# %% [markdown]
# *Figure 2. What: the flower's two colours are let through, the leaves' less. Where: the gate is open at
# the places in which what was let through is strong.*
#
# And the two questions one after the other, drawn over the photograph: the mean of the four channels as
# they came, behind the first gate, and behind both.

# %%
steps = [x, weighed, t * weighed]  # (1, 4, 53, 78) each
means = np.stack([step[0].mean(axis=0) for step in steps])
contrast = means[:, 20:34, 30:46].mean(axis=(1, 2)) / means[:, :, :12].mean(axis=(1, 2))
print("flower / leaves:", "  ".join(f"{c:.1f}" for c in contrast))
assert contrast[0] < contrast[1] < contrast[2]

relative = means / means.max(axis=(1, 2), keepdims=True)
viz.show_attention(photo, relative, ["x", "what: s x", "where: t s x"], label="mean / greatest")

# %% [markdown]
# *Figure 3. The mean of the channels over the photograph, each map divided by its greatest value. The
# first gate makes the leaves weaker beside the flower, the second one weaker still.*
#
# In the module none of this is done by hand: two small matrices and one kernel are learned from the
# task.

# %% [markdown]
# ## The equations
#
# As in lesson 13, $x$ has shape $(N, C, H, W)$, and $x_{nchw}$ is one element of it; $r$ is the
# reduction, $\sigma$ the sigmoid, and $dy$ the gradient of the loss by $y$. $\odot$ multiplies element by
# element, and $\mathbb{1}[\ldots]$ is 1 where the condition holds, else 0. $s$ are the gates of the
# channels, $t$ the gates of the places.
#
# ### Channel attention: what
#
# Two numbers a channel,
#
# $$z^\mathrm{avg}_{nc} = \frac{1}{HW} \sum_{h,w} x_{nchw}, \qquad
# z^\mathrm{max}_{nc} = \max_{h,w} x_{nchw} \qquad (N, C)$$
#
# go through the same two layers, $W_1: (C/r, C)$ and $W_2: (C, C/r)$, with a ReLU between them:
#
# $$a^\mathrm{avg} = z^\mathrm{avg} W_1^\top, \quad h^\mathrm{avg} = \max(a^\mathrm{avg}, 0),
# \qquad a^\mathrm{max} = z^\mathrm{max} W_1^\top, \quad h^\mathrm{max} = \max(a^\mathrm{max}, 0)
# \qquad (N, C/r)$$
#
# $$v = h^\mathrm{avg} W_2^\top + h^\mathrm{max} W_2^\top \quad (N, C), \qquad s = \sigma(v), \qquad
# x'_{nchw} = s_{nc}\, x_{nchw}$$
#
# ($h^\mathrm{avg}$ and $h^\mathrm{max}$ are the hidden layer; $h$ as an index counts rows.)
#
# ### Spatial attention: where
#
# Two numbers a place, from what the channel attention left,
#
# $$q_{n0hw} = \frac{1}{C} \sum_c x'_{nchw}, \qquad q_{n1hw} = \max_c x'_{nchw}
# \qquad (N, 2, H, W)$$
#
# then one convolution with a kernel $k: (2, R, R)$, $R = 7$, whose rows and columns we count from its
# middle, $\delta, \epsilon = -3, \ldots, 3$, so that $\delta = \epsilon = 0$ reads the place itself:
#
# $$u_{nhw} = \sum_{i=0}^{1} \sum_{\delta, \epsilon}
# k_{i\delta\epsilon}\; q_{n,\,i,\,h+\delta,\,w+\epsilon}, \qquad
# t = \sigma(u) \quad (N, H, W), \qquad y_{nchw} = t_{nhw}\, x'_{nchw}$$
#
# Outside the map $q$ counts as zero, so that $u$ has its size (and below, $du$ counts as zero there too).

# %% [markdown]
# ### Two things that are new on the way back
#
# **A maximum** passes its value on from one place; all the others could change a little, and nothing
# would happen. So its whole gradient goes to that one place:
#
# $$z = \max_j x_j = x_{j^*} \quad\Longrightarrow\quad dx_j = dz \cdot \mathbb{1}[j = j^*],
# \qquad j^* = \text{the first } j \text{ with } x_j = z$$
#
# Where two values are equally great there is no derivative, and a convention must choose. The first
# takes all: that is how `argmax` finds it, and how pooling does it (lesson 07).
#
# **A shared layer** is used twice, so its weight reaches the loss on two paths, and by the
# multivariable chain rule the gradients of both are *added*. For one product, $v = h\, W_2^\top$, it is
# $dW_2 = dv^\top h$ (lesson 13). So with $v = h^\mathrm{avg} W_2^\top + h^\mathrm{max} W_2^\top$:
#
# $$dW_2 = dv^\top h^\mathrm{avg} + dv^\top h^\mathrm{max}
# = dv^\top (h^\mathrm{avg} + h^\mathrm{max})$$
#
# ### Backward: where
#
# From the last equation to the first. **Product:** $t_{nhw}$ multiplies all channels at its place, so
# its gradient sums over them. **Sigmoid:** $\sigma' = \sigma (1 - \sigma)$.
#
# $$dt_{nhw} = \sum_c dy_{nchw}\, x'_{nchw}, \qquad du = dt \odot t \odot (1 - t)$$
#
# **Convolution** (lesson 06). The weight $k_{i\delta\epsilon}$ multiplies $q_{n,i,h+\delta,w+\epsilon}$
# in every $u_{nhw}$. And the place $(h, w)$ of $q$ is read with $k_{i\delta\epsilon}$ by the output that
# lies at $(h - \delta, w - \epsilon)$:
#
# $$dk_{i\delta\epsilon} = \sum_{n,h,w} du_{nhw}\; q_{n,\,i,\,h+\delta,\,w+\epsilon}, \qquad
# dq_{nihw} = \sum_{\delta,\epsilon} k_{i\delta\epsilon}\; du_{n,\,h-\delta,\,w-\epsilon}$$
#
# The minus signs say that the second is a convolution with the kernel turned by 180 degrees.
#
# **Mean and maximum over the channels.** $x'$ reaches the loss on three paths: through the product,
# through the mean and through the maximum. With $c^*_{nhw}$ for the first channel that has the maximum
# at a place,
#
# $$\boxed{\; dx'_{nchw} = t_{nhw}\, dy_{nchw} + \frac{1}{C}\, dq_{n0hw}
# + \mathbb{1}[c = c^*_{nhw}]\; dq_{n1hw} \;}$$
#
# ### Backward: what
#
# What came out above is the gradient of the *whole* $x'$, and now takes the role that $dy$ had in
# lesson 13:
#
# $$ds_{nc} = \sum_{h,w} dx'_{nchw}\, x_{nchw}, \qquad dv = ds \odot s \odot (1 - s)$$
#
# The sum $v$ hands the same $dv$ to both of its terms, and so $dh = dv\, W_2$ is the gradient of
# $h^\mathrm{avg}$ and of $h^\mathrm{max}$. From there on they part, for each ReLU is open at units of its
# own:
#
# $$da^\mathrm{avg} = dh \odot \mathbb{1}[a^\mathrm{avg} > 0], \qquad
# da^\mathrm{max} = dh \odot \mathbb{1}[a^\mathrm{max} > 0]$$
#
# $W_1$ is shared like $W_2$, so its gradients add; the two inputs have one path each:
#
# $$dW_1 = (da^\mathrm{avg})^\top z^\mathrm{avg} + (da^\mathrm{max})^\top z^\mathrm{max}, \qquad
# dz^\mathrm{avg} = da^\mathrm{avg}\, W_1, \qquad dz^\mathrm{max} = da^\mathrm{max}\, W_1$$
#
# $x$ reaches the loss on three paths again: through the product, the mean and the maximum.
# $(h^*, w^*)_{nc}$ is the first place of a channel's maximum:
#
# $$\boxed{\; dx_{nchw} = s_{nc}\, dx'_{nchw} + \frac{1}{HW}\, dz^\mathrm{avg}_{nc}
# + \mathbb{1}[(h, w) = (h^*, w^*)_{nc}]\; dz^\mathrm{max}_{nc} \;}$$

# %% [markdown]
# ### What it costs
#
# The MLP is shared, so it has the $2C^2/r$ weights of squeeze and excitation; it runs twice, which
# doubles its $2C^2/r$ multiplications. The kernel has $2 \cdot 7 \cdot 7 = 98$ weights, whatever $C$
# is, and takes $98\, HW$ multiplications. ResNet-50 has four stages of 3, 4, 6 and 3 blocks, with a module
# in each block:

# %%
stages = list(zip([3, 4, 6, 3], [256, 512, 1024, 2048]))
what = sum(blocks * 2 * C * C // 16 for blocks, C in stages)
where = sum(blocks * 98 for blocks, _ in stages)
print(f"what: {what:,} weights; where: {where:,} weights")
assert where < what / 1000

# %% [markdown]
# ## The code
#
# First the two halves as loops.


# %%
def channel_attention_loops(x, w1, w2):
    """x (N, C, H, W), w1 (C/r, C), w2 (C, C/r) -> gates (N, C)."""
    N, C = x.shape[:2]
    s = np.empty((N, C))
    for n in range(N):
        v = np.zeros(C)
        for z in (
            [x[n, c].sum() / x[n, c].size for c in range(C)],
            [x[n, c].max() for c in range(C)],
        ):
            hidden = [max(sum(w1[k, c] * z[c] for c in range(C)), 0.0) for k in range(len(w1))]
            for c in range(C):
                v[c] += sum(w2[c, k] * hidden[k] for k in range(len(w1)))
        s[n] = 1 / (1 + np.exp(-v))
    return s


def spatial_attention_loops(x, k):
    """x (N, C, H, W), k (2, R, R) -> gates (N, H, W)."""
    N, _, H, W = x.shape
    R, border = k.shape[1], k.shape[1] // 2
    t = np.empty((N, H, W))
    for n in range(N):
        for i in range(H):
            for j in range(W):
                u = 0.0
                for row in range(R):
                    for column in range(R):
                        h, w = i + row - border, j + column - border
                        if 0 <= h < H and 0 <= w < W:  # zeros outside
                            place = x[n, :, h, w]  # all channels there, (C,)
                            u += k[0, row, column] * place.mean() + k[1, row, column] * place.max()
                t[n, i, j] = 1 / (1 + np.exp(-u))
    return t


# %% [markdown]
# Now with whole arrays, in the form of a primitive: the output, and a rule for each input. The maximum
# needs the most care. `argmax` says *where* it is (the first, if there are several), and
# `put_along_axis` puts a gradient there. (That it can be exchanged, `to_maximum=`, is for the gradient
# check below.)


# %%
def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def at_maximum(x, dz, axis):
    """Zeros of the shape of x, with dz where x has its (first) maximum along an axis."""
    dx = np.zeros_like(x)
    np.put_along_axis(dx, x.argmax(axis=axis, keepdims=True), dz, axis)
    return dx


def weigh_channels(x, w1, w2, *, to_maximum=at_maximum):
    """x (N, C, H, W), w1 (C/r, C), w2 (C, C/r) -> s x (N, C, H, W), and a rule for each."""
    N, C, H, W = x.shape
    flat = x.reshape(N, C, H * W)
    z_avg, z_max = flat.mean(axis=2), flat.max(axis=2)
    a_avg, a_max = z_avg @ w1.T, z_max @ w1.T
    h = np.maximum(a_avg, 0) + np.maximum(a_max, 0)
    s = sigmoid(h @ w2.T)
    gate = s[:, :, None, None]

    def back_to_v(dy):
        return (dy * x).sum(axis=(2, 3)) * s * (1 - s)

    def back_to_a(dy):
        dh = back_to_v(dy) @ w2
        return dh * (a_avg > 0), dh * (a_max > 0)

    def vjp_x(dy):
        da_avg, da_max = back_to_a(dy)
        dz_avg, dz_max = da_avg @ w1, da_max @ w1
        pooled = dz_avg[:, :, None] / (H * W) + to_maximum(flat, dz_max[:, :, None], 2)
        return gate * dy + pooled.reshape(x.shape)

    def vjp_w1(dy):
        da_avg, da_max = back_to_a(dy)
        return da_avg.T @ z_avg + da_max.T @ z_max

    def vjp_w2(dy):
        return back_to_v(dy).T @ h

    return gate * x, (vjp_x, vjp_w1, vjp_w2)


# %% [markdown]
# For the convolution, `windows` shows every R x R window of a map without copying it; then both the
# convolution and its two gradients are sums of products.


# %%
def windows(maps, R):
    """All R x R windows of maps (..., H, W), zeros around them: (..., H, W, R, R)."""
    border = [(0, 0)] * (maps.ndim - 2) + [(R // 2, R // 2)] * 2
    return np.lib.stride_tricks.sliding_window_view(np.pad(maps, border), (R, R), axis=(-2, -1))


def weigh_places(x, k):
    """x (N, C, H, W), k (2, R, R) -> t x (N, C, H, W), and a rule for each."""
    C, R = x.shape[1], k.shape[1]
    q = np.stack([x.mean(axis=1), x.max(axis=1)], axis=1)  # (N, 2, H, W)
    t = sigmoid(np.einsum("nihwrs,irs->nhw", windows(q, R), k))
    gate = t[:, None]  # (N, 1, H, W)

    def back_to_u(dy):
        return (dy * x).sum(axis=1) * t * (1 - t)

    def vjp_x(dy):
        turned = k[:, ::-1, ::-1]
        dq = np.einsum("nhwrs,irs->nihw", windows(back_to_u(dy), R), turned)
        return gate * dy + dq[:, :1] / C + at_maximum(x, dq[:, 1:], axis=1)

    def vjp_k(dy):
        return np.einsum("nhw,nihwrs->irs", back_to_u(dy), windows(q, R))

    return gate * x, (vjp_x, vjp_k)


# %%
rng = np.random.default_rng(0)
x = rng.normal(size=(2, 4, 5, 5))
w1, w2, k = rng.normal(size=(2, 4)), rng.normal(size=(4, 2)), rng.normal(size=(2, 3, 3))

weighed, _ = weigh_channels(x, w1, w2)
y, _ = weigh_places(weighed, k)
s, t = channel_attention_loops(x, w1, w2), spatial_attention_loops(weighed, k)
print("what, loops and arrays agree: ", np.allclose(weighed, s[:, :, None, None] * x))
print("where, loops and arrays agree:", np.allclose(y, t[:, None] * weighed))

# %% [markdown]
# In a network the module is put together from parts that have their rules.


# %%
class OurCBAM(nn.Module):
    """y = t x' with x' = s x.  (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels, reduction=16, kernel_size=7):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction, bias=False)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=False)
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def mlp(self, z):
        return self.fc2(F.relu(self.fc1(z)))

    def forward(self, x):
        flat = x.flatten(2)
        s = F.sigmoid(self.mlp(flat.mean(dim=2)) + self.mlp(F.max(flat, dim=2).values))
        x = x * s.reshape(*s.shape, 1, 1)
        q = F.stack([x.mean(dim=1), F.max(x, dim=1).values], dim=1)
        return x * F.sigmoid(self.conv(q))


# %% [markdown]
# The library's `CBAM` has two parts, `channel` and `spatial`. Each returns its gates alone, so that a
# forward hook on it sees them.

# %%
ours, library = OurCBAM(4, 2, kernel_size=3), CBAM(4, 2, kernel_size=3)
ours.load_state_dict(
    {"fc1.weight": mt.tensor(w1), "fc2.weight": mt.tensor(w2), "conv.weight": mt.tensor(k[None])}
)
library.channel.load_state_dict({"fc1.weight": mt.tensor(w1), "fc2.weight": mt.tensor(w2)})
library.spatial.load_state_dict({"conv.weight": mt.tensor(k[None])})

print("our module agrees:      ", np.allclose(ours(mt.tensor(x)).data, y))
print("library's module agrees:", np.allclose(library(mt.tensor(x)).data, y))
library

# %% [markdown]
# ## The gradient check
#
# The rules of both halves against central differences (lesson 03).

# %%
x = rng.normal(size=(2, 3, 4, 4))
w1, w2 = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
report = mt.check_vjp(weigh_channels, x, w1, w2)
print(report)
print(mt.check_vjp(weigh_places, x, k))

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 4. The rules' gradients, the measured ones, and their difference: dark throughout.*
#
# And with a mistake. Someone has the product and the mean right, as in squeeze and excitation, but
# forgets that the maximum is a path too:


# %%
def nowhere(x, dz, axis):
    return np.zeros_like(x)


wrong = mt.check_vjp(weigh_channels, x, w1, w2, to_maximum=nowhere, raise_on_failure=False)
print(wrong)
assert not wrong.inputs[0].ok and wrong.inputs[1].ok and wrong.inputs[2].ok

# %%
of_x = wrong.inputs[0]
amiss = np.abs(of_x.analytic - of_x.numeric) > 1e-6
flat = x.reshape(2, 3, -1)
assert (amiss.reshape(2, 3, -1).sum(axis=2) == 1).all()
assert (amiss.reshape(2, 3, -1).argmax(axis=2) == flat.argmax(axis=2)).all()
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 5. Exactly one place of each map is wrong, the one that holds the channel's maximum (some
# are faint; the cell counts them). A mistake in the mean's path would show everywhere; single cells
# point at a maximum. The weights' rules do not use that path and are right.*

# %% [markdown]
# ## At work
#
# ### Read the brightest quarter
#
# In lesson 13 one *channel* of four was a little brighter, and its digit was to be read. Now the four
# digits stand in one picture, a quarter each, one *quarter* is brighter by 0.3, and all is covered with
# noise. Which digit does the bright quarter show?

# %%
DIGITS = {"train": digits()[:], "test": digits(train=False)[:]}


def brightest(part, count, seed, noise=0.2):
    """Pictures (count, 1, 16, 16), the brightest quarter's digits, and its row and column."""
    rng = np.random.default_rng(seed)
    images, labels = DIGITS[part]
    chosen = rng.integers(len(images), size=(count, 2, 2))
    row, column = rng.integers(2, size=(2, count))
    each = np.arange(count)
    x = images[chosen, 0] + noise * rng.normal(size=(count, 2, 2, 8, 8))
    x[each, row, column] += 0.3
    pictures = x.transpose(0, 1, 3, 2, 4).reshape(count, 1, 16, 16)
    return pictures, labels[chosen[each, row, column]], np.stack([row, column], axis=1)


pictures, digit, told = brightest("test", 5, seed=3)
means = pictures.reshape(5, 2, 8, 2, 8).mean(axis=(2, 4))
assert (means.reshape(5, 4).argmax(axis=1) == 2 * told[:, 0] + told[:, 1]).all()
names = np.array([["upper left", "upper right"], ["lower left", "lower right"]])
clean, _, _ = brightest("test", 5, seed=3, noise=0)
titles = [f"{names[r, c]}: {d}" for (r, c), d in zip(told, digit)] + [""] * 5
viz.show_images(np.concatenate([clean, pictures]), titles, columns=5)

# %% [markdown]
# *Figure 6. Above, five inputs without their noise, and what is to be read in each; below, as the
# network gets them.*
#
# The network has two places for a module, behind its second and its third convolution. At the end comes
# the mean of each channel over *all* quarters: whatever is not to count must have been turned down
# before. (The batch normalisation behind that mean sets its scale anew, so that no arm is slowed
# down because its gates begin at one half.) Four arms:
#
# - **nothing**: no module;
# - **SE**: squeeze and excitation, what alone;
# - **added**: the map $t$ of a spatial attention, added to $x$ instead of multiplied with it: the same
#   weights, the same view of 7x7 places, but no gate;
# - **CBAM**: what, then where.


# %%
class Added(SpatialAttention):
    """A control: the map is added where it should weigh."""

    def forward(self, x):
        return x + super().forward(x)


def convolution(in_channels, out_channels, stride=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def reader(module):
    """A network for pictures (N, 1, 16, 16); `module()` makes what stands in its two places."""
    return nn.Sequential(
        convolution(1, 16, stride=2),
        convolution(16, 16),
        module(),
        convolution(16, 16),
        module(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(16),
        nn.Linear(16, 10),
    )


SEEDS = 0, 1, 2


def train_reader(module, seed, epochs=6):
    """Train from a seed; return the network and its accuracy on 1000 unseen inputs, in %."""
    mt.manual_seed(seed)
    model = reader(module)
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    x, digit, _ = brightest("train", 1200, seed)
    loader = DataLoader(TensorDataset(x, digit), batch_size=50, shuffle=True, generator=seed)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    fit(
        model,
        loader,
        optimizer=optimizer,
        epochs=epochs,
        scheduler=schedule,
        scheduler_every="batch",
        progress=False,
    )
    x, digit, _ = brightest("test", 1000, 1000 + seed)
    return model, 100 * evaluate(model, [(mt.tensor(x), mt.tensor(digit))])["accuracy"]


def report_arms(arms):
    for arm, runs in arms.items():
        print(
            f"{arm:16}", "  ".join(f"{run:.0f} %" for run in runs), f"  mean {np.mean(runs):.0f} %"
        )


# %%
arms = {
    "nothing": nn.Identity,
    "SE": lambda: SqueezeExcitation(16, reduction=4),
    "added": Added,
    "CBAM": lambda: CBAM(16, reduction=4),
}
readers = {arm: [train_reader(module, seed) for seed in SEEDS] for arm, module in arms.items()}
on_quarters = {arm: [accuracy for _, accuracy in runs] for arm, runs in readers.items()}
report_arms(on_quarters)

others = [on_quarters[arm] for arm in arms if arm != "CBAM"]
assert (np.array(on_quarters["CBAM"]) > others).all()  # seed by seed

# %%
viz.plot_arms(on_quarters, label="accuracy on unseen inputs, %")

# %% [markdown]
# *Figure 7. On each seed CBAM is ahead of all other arms. SE can turn a channel down in all quarters or
# in none, and the same map, added, keeps the other three quarters in the final mean: what helps here
# is to weigh places.*
#
# Even the network without a module is far above what reading one of the four digits at random would
# give (about a third: that digit is the right one in a quarter of the inputs, and equals it by chance in
# a tenth of the rest). A likely reason: convolutions, too, can answer more strongly where it is bright.
#
# And the gain hangs on the network. In trials with another one, without the batch normalisation in front of
# the classifier or with residual blocks, CBAM was not ahead of no module at all. This task and network were
# chosen because the effect shows in them; that is what a demonstration is, and it is no proof that CBAM
# helps in general.

# %% [markdown]
# ### Where it looks
#
# Hooks on the second module's two parts read the gates; here the map $t$ for the inputs of figure 6.


# %%
def look(model, x):
    """The second module's gates for inputs x: of the channels (N, C), of the places (N, 8, 8)."""
    seen = {}
    for name, part in model[4].named_children():
        part.register_forward_hook(
            lambda module, inputs, gates, name=name: seen.update({name: gates.data})
        )
    model.eval()
    with mt.no_grad():
        model(mt.tensor(x))
    return seen["channel"][:, :, 0, 0], seen["spatial"][:, 0]


trained = [model for model, _ in readers["CBAM"]]
_, t = look(trained[0], pictures)
figure, axes = viz.panels(2, 5, height=3.2)
for above, below, picture, gates, (row, column) in zip(*axes, pictures[:, 0], t, told):
    above.imshow(picture, cmap="gray")
    image = below.imshow(gates, cmap="viridis", vmin=0, vmax=t.max())
    for ax, size in (above, 8), (below, 4):
        corner = (size * column - 0.5, size * row - 0.5)
        ax.add_patch(Rectangle(corner, size, size, fill=False, edgecolor="#D55E00", linewidth=3))
        ax.set_axis_off()
figure.colorbar(image, ax=axes[1], label="gate t")
figure

# %% [markdown]
# *Figure 8. Above the inputs, with a frame around the quarter that counts; below the map of the places
# (8x8, as the network has halved the picture).*
#
# And over a thousand unseen inputs, for the networks of all three seeds:

# %%
x, digit_unseen, told_unseen = brightest("test", 1000, seed=7)
for seed, model in zip(SEEDS, trained):
    quarters = look(model, x)[1].reshape(1000, 2, 4, 2, 4).mean(axis=(2, 4))  # mean gates
    own = quarters[np.arange(1000), told_unseen[:, 0], told_unseen[:, 1]]
    others = (quarters.sum(axis=(1, 2)) - own) / 3
    widest = quarters.reshape(1000, 4).argmax(axis=1)
    found = np.mean(widest == 2 * told_unseen[:, 0] + told_unseen[:, 1])
    print(
        f"seed {seed}: gates of the right quarter / of the others: {own.mean() / others.mean():.1f}"
    )
    assert own.mean() > 1.1 * others.mean() and found > 0.9

# %% [markdown]
# In more than nine of ten inputs the quarter whose gates are on average widest open is the one to read,
# on every seed (the cell asserts it). The others are turned down, not off.
#
# Nobody told the module where to look; it was told the digit alone.
#
# ### What it weighs
#
# And the gates of the channels? Their means for each of the ten digits that were to be read:

# %%
s, _ = look(trained[0], x)
per_digit = np.stack([s[digit_unseen == d].mean(axis=0) for d in range(10)])  # (10, C)
figure, ax = viz.panels(1, 1, width=6.5, height=3.2)
viz.show_channel_weights(per_digit, value_range=(0, 1), label="mean gate s", ax=ax)
ax.set_ylabel("digit")
figure

# %%
between_channels = per_digit.mean(axis=0).std()
between_digits = per_digit.std(axis=0).mean()
print(f"spread between channels {between_channels:.2f}, between digits {between_digits:.2f}")
assert between_channels > 2 * between_digits

# %% [markdown]
# *Figure 9. Rows are digits, columns channels. The rows look alike: the gates tell the channels apart,
# but hardly the digits.*
#
# A gate that is the same for every input could as well be a constant factor in the next layer. On this
# task there is little to choose between channels; all that matters is a matter of places.

# %% [markdown]
# ### The order of the two
#
# So what does the channel attention do here, and does it matter which comes first? The same network
# with the other order, and with the spatial attention alone:

# %%
orders = {
    "nothing": on_quarters["nothing"],
    "channel, spatial": on_quarters["CBAM"],
    **{
        name: [
            train_reader(lambda order=order: CBAM(16, reduction=4, order=order), seed)[1]
            for seed in SEEDS
        ]
        for name, order in {
            "spatial, channel": "spatial_channel",
            "spatial alone": "spatial",
        }.items()
    },
}
report_arms(orders)
gains = np.array([np.subtract(runs, orders["nothing"]) for runs in list(orders.values())[1:]])
assert gains.min() > 0
assert (np.array(orders["channel, spatial"]) > orders["spatial, channel"]).all()
assert np.mean(orders["spatial alone"]) > np.mean(orders["channel, spatial"]) - 1

# %%
viz.plot_arms(orders, label="accuracy on unseen inputs, %")

# %% [markdown]
# *Figure 10. Every arrangement with a spatial attention is ahead of nothing, seed by seed, and the spatial
# attention alone keeps up with the whole module. Channel first is ahead of spatial first on these three
# seeds; but on three more, which are not shown, it was behind.*
#
# In trials with five seeds each, not shown either, the two side by side, with both gates made from $x$,
# and spatial attentions from the mean alone, the maximum alone, or a 1x1 convolution in place of both,
# reached 80 to 83 % on average, with seeds further apart than that: this experiment cannot rank them. All
# are settings of the library's `CBAM`: `order=`, `channel_pool=`, `spatial_pool=`.
#
# The paper's differences between the orders are small as well, up to three tenths of a percent on ImageNet.
# But there, on a thousand classes of photographs, the channel attention brings the larger part of the
# gain (tables below). A module helps where its question is one that the task asks.

# %% [markdown]
# ### In a residual network
#
# The module stands at the end of each residual branch, before the addition. Our residual networks take
# a function that makes a module for so many channels. Small maps need no 7x7 window.

# %%
plain = cifar_resnet(20, in_channels=1)
network = cifar_resnet(
    20, in_channels=1, attention=lambda channels: CBAM(channels, reduction=4, kernel_size=3)
)
sizes = [sum(p.numel() for p in net.parameters()) for net in (plain, network)]
print(f"{sizes[0]:,} parameters without, {sizes[1]:,} with")
assert sizes[1] - sizes[0] == sum(3 * (2 * C * C // 4 + 2 * 3 * 3) for C in (16, 32, 64))
network.layer1[0].attention

# %% [markdown]
# ## Paper and code
#
# | | paper | authors' code | here |
# |---|---|---|---|
# | biases in the MLP | none in equation 2 | there; the second one counts twice, once a pooling | `bias=False`, can be set |
# | behind the 7x7 convolution | the sigmoid (equation 3) | a batch normalisation, then the sigmoid | `batch_norm=False`, can be set |
# | its weight at the start | | 0 in their ResNet: every place begins at 1/2, and the kernel has no gradient in the first step | 1 |
# | order of the two maps | mean, maximum | maximum, mean | mean, maximum |
# | pooling | mean and maximum | also L2 norm and log-sum-exp | "both", "avg", "max" |
# | the places' maps | mean and maximum; a 1x1 convolution in table 2 | maximum and mean | also "conv", without bias |
# | both at once ("parallel") | a row in table 3, no formula | | $y = s\, t\, x$, both from $x$ |
#
# Top-1 error of ResNet-50 on ImageNet in the paper, in %:
#
# | table | | error |
# |---|---|---|
# | 1 | no module | 24.56 |
# | | channel attention, mean (that is SE) / maximum / both | 23.14 / 23.20 / 22.80 |
# | 2 | both, then spatial attention by mean and maximum, window 3x3 / 7x7 | 22.68 / 22.66 |
# | | the same by a 1x1 convolution, window 3x3 / 7x7 | 22.96 / 22.90 |
# | 3 | channel then spatial / spatial then channel / parallel | 22.66 / 22.78 / 22.95 |
#
# Whoever copies weights from the authors' code exchanges the two slices of the kernel. And two
# traps: behind a ReLU many values are 0, so that maxima are often tied; two programs agree in their
# gradients only if they agree on who takes them (here and in pooling the first, in `amax` all of
# them in equal parts). And $c^*$ belongs to $x'$, not to $x$: the gates change which channel is
# greatest.

# %% [markdown]
# ## Predict before you run
#
# **1.** At the start the weights are small. How much of its input does the module let through?

# %%
mt.manual_seed(0)
fresh = CBAM(64)
x = mt.randn(8, 64, 8, 8)
ratio = fresh(x).data / x.data
print(f"output / input: {ratio.mean():.2f} on average")
assert 0.2 < ratio.mean() < 0.3

# %% [markdown]
# <details><summary>Answer</summary>
#
# About a quarter: two gates of one half each, multiplied. With two modules one behind the other it is a
# sixteenth, unless a normalisation between them sets the scale anew.
#
# </details>
#
# **2.** All pixels are shuffled, in every channel in the same way. Which gates stay as they were, and
# which are only shuffled along?

# %%
order = np.random.default_rng(0).permutation(64)
shuffled = x.reshape(8, 64, 64)[:, :, order].reshape(8, 64, 8, 8)


def shuffled_along(attention):
    before, after = attention(x).data.reshape(8, 64), attention(shuffled).data.reshape(8, 64)
    return np.allclose(before[:, order], after)


print(
    "channels' gates stay:              ",
    np.allclose(fresh.channel(x).data, fresh.channel(shuffled).data),
)
print("places' gates move along, window 1:", shuffled_along(SpatialAttention(1)))
print("places' gates move along, window 7:", shuffled_along(SpatialAttention(7)))

# %% [markdown]
# <details><summary>Answer</summary>
#
# A mean and a maximum do not know the order of the places: the channels' gates stay. A window of one
# place moves along with its place. A window of 7x7 sees other neighbours now, and its gates change:
# only this part knows what lies beside what.
#
# </details>
#
# **3.** A channel is 0 everywhere, as happens behind a ReLU. To how many of its places does the maximum
# send a gradient?

# %%
silent = mt.zeros(1, 1, 3, 3, requires_grad=True)
F.max(silent.flatten(2), dim=2).values.sum().backward()
print(silent.grad.data[0, 0])

# %% [markdown]
# <details><summary>Answer</summary>
#
# To one, the first, though all nine are the greatest. It is a convention, not a derivative: there is
# none at a tie.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`15_cbam`](../exercises/15_cbam.ipynb):
#
# 1. **global_max**: the maximum of every channel, with its rule.
# 2. **shared_mlp**: two layers used twice, with the rules of all inputs.
# 3. **channel_gates**: from the feature map to the gates of the channels.
# 4. **spatial_maps**: mean and maximum over the channels, with their rule.
# 5. **cbam_parameters**: count the weights that a network gains.
# 6. **CBAM**: the module.

# %% [markdown]
# ## What to remember
#
# - What: mean and maximum of each channel, one MLP for both, their scores added, a sigmoid. Where: mean
#   and maximum over the channels, a 7x7 window, a sigmoid, from what the first half let through.
# - A maximum sends its whole gradient to one place; a layer used twice adds up two gradients.
# - It costs $2C^2/r + 98$ weights: the second question is nearly free.
# - Where the task is a matter of places CBAM helped on every seed, squeeze and excitation little or not
#   at all. Which half came first made no difference that lasted over more seeds.

# %% [markdown]
# ## Sources
#
# - S. Woo, J. Park, J.-Y. Lee, I. S. Kweon, *CBAM: Convolutional Block Attention Module*, ECCV 2018:
#   equations 1 to 3, tables 1 to 3, figure 3 for its place in a residual block.
# - J. Hu, L. Shen, S. Albanie, G. Sun, E. Wu, *Squeeze-and-Excitation Networks*, IEEE TPAMI 2020:
#   the channel attention that it starts from.
# - The photograph is `flower.jpg` of scikit-learn's sample images, from Flickr's user vultilion
#   (Creative Commons, attribution 2.0).
