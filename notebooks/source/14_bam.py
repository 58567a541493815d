# %% [markdown]
# # 14 · Bottleneck attention module (BAM)
#
# One branch asks which channels count, another asks which places count; their answers are added, and
# one sigmoid makes a map of them that strengthens the feature map.
#
# **You will be able to**
#
# - derive the gradients of a sum that is broadcast, and of the product that the authors' program has in
#   its place;
# - build both branches, and say how far the dilated one sees and what it misses;
# - tell from an ablation what each branch is for.
#
# **You need** lessons 05 to 08 (convolution, its receptive field, batch normalisation, residual blocks)
# and lesson 13.
#
# **Time** about 50 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import BAM
from minitorch_attn.data import DataLoader, TensorDataset, digits
from minitorch_attn.models import bam_resnet
from minitorch_attn.training import evaluate, fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# Lesson 13 gave each *channel* one weight, the same at every position. Here is again a feature map of four
# channels: a handwritten digit behind four filters, each of which answers to edges in one direction.
#
# Two questions are put to it. *Which channels count?* The answer is a number $u$ for each channel. *Which
# places count?* The answer is a number $v$ for each position. Both are chosen by hand for now: $u$ is large
# for a channel that is stronger than the others on average, $v$ is large where there is much ink around.

# %%
train, test = digits(), digits(train=False)
images, labels = test[:]
image = images[int(np.flatnonzero(labels == 7)[1])]  # (1, 8, 8)

rows = np.array([[-1.0, -1, -1], [0, 0, 0], [1, 1, 1]])
diagonal = np.array([[-1.0, -1, 0], [-1, 0, 1], [0, 1, 1]])
kernels = np.stack([rows, diagonal, rows.T, diagonal[:, ::-1]])[:, None]  # (4, 1, 3, 3)
edges = ["horizontal", "rising", "vertical", "falling"]

x = F.conv2d(mt.tensor(image[None]), mt.tensor(kernels), padding=1).abs()  # (1, 4, 8, 8)
z = x.mean(dim=(2, 3), keepdim=True)
u = 20 * (z - z.mean())  # (1, 4, 1, 1): what
ink = F.avg_pool2d(mt.tensor(image[None]), 3, stride=1, padding=1)
v = 8 * (ink - ink.mean())  # (1, 1, 8, 8): where
M = F.sigmoid(u + v)  # (1, 4, 8, 8)
print("what", u.shape, "+ where", v.shape, "-> map", M.shape)

figure, axes = viz.panels(1, 3, width=8.0, height=2.6)
axes[0].imshow(image[0], cmap="gray")
axes[0].set(title="a digit seven", xticks=[], yticks=[])
viz.show_channel_weights(u.reshape(4), label="what: u", value_range=(-6, 6), ax=axes[1])
shown = axes[2].imshow(v.data[0, 0], cmap="RdBu_r", vmin=-4, vmax=4)
axes[2].set(title="where: v", xticks=[], yticks=[])
figure.colorbar(shown, ax=axes[2])
assert u.data.argmax() == 2 and image.ravel()[v.data.argmax()] > 0.5  # vertical, and on ink
figure

# %%
viz.show_feature_maps(M[0], titles=edges, columns=4, label="map M")

# %%
loudest, faintest = int(u.data.argmax()), int(u.data.argmin())
assert (M.data[0, loudest] > M.data[0, faintest]).all()
most, least = v.data.argmax(), v.data.argmin()
flat = M.data.reshape(4, 64)
assert (flat[:, most] > flat[:, least]).all()
print("4 + 64 numbers make", M.data.size)

# %% [markdown]
# *Figure 1. Above: the digit, and the two answers; channels 0 to 3 are the filters for horizontal, rising, vertical and
# falling edges. Below: the map $M = \sigma(u + v)$ for each of these channels. All four have the shape of $v$; a
# channel with a large $u$ is brighter everywhere.*
#
# The feature map is then strengthened by it, $y = x + x M$. That is the mechanism. What makes it useful is
# that $u$ and $v$ come from two small networks that learn.

# %% [markdown]
# ## The equations
#
# Let $x$ be a feature map $(N, C, H, W)$; $n$ counts images, $c$ channels, $h$ and $w$ rows and columns.
# Both branches pass through a bottleneck of $C/r$ channels, where $r$ is the *reduction*, 16 in the paper.
#
# **Channel branch** (the paper's $M_c$): the mean of each channel, two linear layers, and batch
# normalisation, written $BN$ (lesson 07):
#
# $$z_{nc} = \frac{1}{HW} \sum_{h,w} x_{nchw}, \qquad
# u = BN\big(\max(z\, W_0^\top + b_0,\, 0)\, W_1^\top + b_1\big) \qquad u: (N, C)$$
#
# with $W_0: (C/r, C)$ and $W_1: (C, C/r)$.
#
# **Spatial branch** (the paper's $M_s$): four convolutions $f_0$ to $f_3$ with a ReLU between them, and batch
# normalisation:
#
# $$v = BN\big(f_3^{1 \times 1}(f_2^{3 \times 3}(f_1^{3 \times 3}(f_0^{1 \times 1}(x))))\big)
# \qquad v: (N, H, W)$$
#
# The first brings the channels from $C$ to $C/r$, the two in the middle keep them and are *dilated* by $d$,
# 4 in the paper, and the last makes one channel of them.
#
# **Combination.** The sum has an element for every channel *and* every position: $u$ is repeated along $h$
# and $w$, and $v$ along $c$:
#
# $$m_{nchw} = u_{nc} + v_{nhw}, \qquad M = \sigma(m), \qquad y = x + x \odot M = (1 + M) \odot x$$
#
# $M$ lies between 0 and 1, so the factor $1 + M$ lies between 1 and 2. Where a gate of lesson 13 can shut,
# this one lets everything through, and up to twice as strong what counts. A block that comes behind loses
# nothing.

# %% [markdown]
# ### Backward
#
# As always $dy = \partial L / \partial y$ has the shape of $y$. We go back from the last equation.
#
# **Product.** $y_{nchw} = (1 + M_{nchw})\, x_{nchw}$ has two factors (product rule):
#
# $$dM_{nchw} = dy_{nchw}\, x_{nchw}, \qquad
# \text{and to } x \text{ through this product: } (1 + M_{nchw})\, dy_{nchw}$$
#
# **Sigmoid.** $\sigma' = \sigma (1 - \sigma)$, elementwise:
#
# $$dm_{nchw} = dM_{nchw}\, M_{nchw} (1 - M_{nchw})$$
#
# **Broadcast sum.** $m_{nchw} = u_{nc} + v_{nhw}$, and both have the derivative 1. But $u_{nc}$ takes part in
# $m_{nchw}$ for *all* positions, and $v_{nhw}$ in $m_{nchw}$ for *all* channels. By the multivariable chain
# rule each collects what comes back over the axes along which it was repeated:
#
# $$\boxed{\; du_{nc} = \sum_{h,w} dm_{nchw}, \qquad dv_{nhw} = \sum_{c} dm_{nchw} \;}$$
#
# So a channel learns from all positions, and a position from all channels.
#
# **Branches.** $du$ goes back through batch normalisation, the two linear layers and the mean, $dv$ through
# batch normalisation and four convolutions: lessons 13, 07 and 06. Both end at $x$. Let
# $dz$ be what arrives at the means, and $dx^{v}$ what the convolutions hand back. Then $x$ hears from **three
# paths**:
#
# $$dx_{nchw} = \underbrace{(1 + M_{nchw})\, dy_{nchw}}_{\text{the strengthened signal}}
# + \underbrace{\frac{1}{HW}\, dz_{nc}}_{\text{what: the same everywhere}}
# + \underbrace{dx^{v}_{nchw}}_{\text{where: from the neighbourhood}}$$
#
# The first has the sign of $dy$ and is at least as large, whatever the branches do.

# %% [markdown]
# ### And a product?
#
# The authors' program multiplies where the paper adds: $m_{nchw} = u_{nc}\, v_{nhw}$. The derivative by one
# factor is the other (product rule), and the sums over repeated axes stay:
#
# $$du_{nc} = \sum_{h,w} dm_{nchw}\, v_{nhw}, \qquad dv_{nhw} = \sum_c dm_{nchw}\, u_{nc}$$
#
# Each branch now learns only as much as the other one speaks. If both are silent, $u = v = 0$, neither
# gets any gradient at all. We shall see that happen.

# %% [markdown]
# ### How far the spatial branch sees
#
# Lesson 05: a layer of kernel size $R_l$, stride $a_l$ and dilation $d_l$ widens the receptive field by
# $(R_l - 1)\, d_l\, j_{l-1}$, where the jump $j_l$ is the product of the strides so far. Here all strides are 1, so
# every jump is 1, and a 1x1 layer adds nothing. From one position on, the field grows to
#
# $$1 + 0 + 2d + 2d + 0 = 1 + 4d$$


# %%
def receptive_field(layers):
    """Width of the field of one pixel, for layers (kernel, stride, dilation), first to last."""
    width, jump = 1, 1
    for kernel, stride, dilation in layers:
        width += (kernel - 1) * dilation * jump
        jump *= stride
    return width


def branch_field(d):
    return receptive_field([(1, 1, 1), (3, 1, d), (3, 1, d), (1, 1, 1)])


print({d: branch_field(d) for d in (1, 2, 4)})
assert all(branch_field(d) == 1 + 4 * d for d in range(1, 9))

# %% [markdown]
# With $d = 4$ a position sees 17 pixels in each direction, at the price of two 3x3 kernels. What is inside?
# A gradient tells (lesson 05): we put a `dy` on the middle of $v$ and look what arrives at $x$.


# %%
def seen_by_the_middle(d, size=21):
    """How strongly the middle of v depends on each position of x: (size, size)."""
    mt.manual_seed(0)
    module = BAM(8, reduction=1, dilation=d).eval()
    x = mt.randn(16, 8, size, size, requires_grad=True)
    v = module.spatial(x)
    dy = np.zeros(v.shape)
    dy[:, :, size // 2, size // 2] = 1
    v.backward(dy)
    return np.sqrt((x.grad.data**2).mean(axis=(0, 1)))


def draw_frame(ax, top, left, height, width):
    y, x = top - 0.5, left - 0.5
    corners = [x, x + width, x + width, x, x], [y, y, y + height, y + height, y]
    ax.plot(*corners, color=viz.COLOURS[1], linewidth=2)


figure, axes = viz.panels(1, 3, width=8.0, height=3.0)
for ax, d in zip(axes, (1, 2, 4), strict=True):
    seen, field = seen_by_the_middle(d), branch_field(d)
    where = np.argwhere(seen > 1e-9 * seen.max())
    assert len(where) == 25  # 5 x 5 taps, however far apart
    assert (where.min(axis=0) == 10 - 2 * d).all() and (where.max(axis=0) == 10 + 2 * d).all()
    ax.imshow(seen / seen.max(), cmap="viridis", vmin=0, vmax=1)
    draw_frame(ax, 10 - 2 * d, 10 - 2 * d, field, field)
    ax.set(title=f"d = {d}: field {field} x {field}", xticks=[], yticks=[])
figure

# %% [markdown]
# *Figure 2. What the middle of $v$ depends on, for three dilations; the frame is the receptive field of the
# recursion. It grows, but the number of positions in it that are read is always 25: the taps of the second
# kernel fall on the taps of the first.*
#
# So dilation buys width with holes: at $d = 4$ a position reads 25 of 289 pixels. In a deep layer that is
# less bad than it looks, since each of these pixels has itself a large field in the image.

# %% [markdown]
# ### What it costs
#
# Weights and biases, and two numbers a channel for batch normalisation:
#
# | | channel branch | spatial branch |
# |---|---|---|
# | first layer | $C^2/r + C/r$ | $C^2/r + C/r$ |
# | 3x3 | | $2\,(9\,(C/r)^2 + C/r)$ |
# | last layer | $C^2/r + C$ | $C/r + 1$ |
# | batch normalisation | $2C$ | $2$ |
#
# The channel branch needs $2\, C^2/r$ multiplications, once for the whole map, as in lesson 13. The spatial branch
# works at every position: $HW\,(C^2/r + 18\,(C/r)^2 + C/r)$. The last product, $(1 + M) \odot x$, adds $HW\, C$.
# ResNet-50 has three bottlenecks between its four stages:


# %%
def bam_parameters(C, r=16):
    k = C // r
    channel = (C * k + k) + (k * C + C) + 2 * C
    spatial = (C * k + k) + 2 * (9 * k * k + k) + (k + 1) + 2
    return channel + spatial


def multiplications(C, size, r=16):
    k = C // r
    return 2 * C * k + size**2 * (C * k + 18 * k * k + k) + size**2 * C


places = [(256, 56), (512, 28), (1024, 14)]  # channels and size in front of each bottleneck
for C, size in places:
    counted = sum(p.numel() for p in BAM(C).parameters())
    assert counted == bam_parameters(C)
    print(f"{C:5} channels: {counted:8,} parameters, {multiplications(C, size):11,} products")
total = sum(bam_parameters(C) for C, _ in places)
print(f"together {total:,} parameters")
assert 0.013 < total / 25_557_032 < 0.015
products = [multiplications(C, size) for C, size in places]
assert max(products) / min(products) < 1.05

# %% [markdown]
# which is between one and two in a hundred of ResNet-50's 25.6 million. Most parameters are in the last
# module, but the multiplications are about the same in all three: while $C^2$ grows four times, $HW$ falls
# to a quarter.

# %% [markdown]
# ## The code
#
# First the combination as loops.


# %%
def combine_loops(x, u, v):
    """x (N, C, H, W), u (N, C), v (N, H, W) -> y (N, C, H, W)."""
    N, C, H, W = x.shape
    y = np.empty_like(x)
    for n in range(N):
        for c in range(C):
            for i in range(H):
                for j in range(W):
                    M = 1 / (1 + np.exp(-(u[n, c] + v[n, i, j])))
                    y[n, c, i, j] = (1 + M) * x[n, c, i, j]
    return y


# %% [markdown]
# With whole arrays the sum is broadcast: `u` gets axes of length 1 where the positions are, `v` where the
# channels are. In primitive form, with the rules of the box:


# %%
def combine(x, u, v):
    """x (N, C, H, W), u (N, C), v (N, H, W) -> y = (1 + sigmoid(u + v)) x, and three rules."""
    M = 1 / (1 + np.exp(-(u[:, :, None, None] + v[:, None])))

    def back_to_m(dy):
        return dy * x * M * (1 - M)

    def vjp_x(dy):
        return (1 + M) * dy

    def vjp_u(dy):
        return back_to_m(dy).sum(axis=(2, 3))

    def vjp_v(dy):
        return back_to_m(dy).sum(axis=1)

    return (1 + M) * x, (vjp_x, vjp_u, vjp_v)


# %%
rng = np.random.default_rng(0)
x, u, v = rng.normal(size=(2, 3, 3, 4)), rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 4))
print("loops and arrays agree:", np.allclose(combine(x, u, v)[0], combine_loops(x, u, v)))

# %% [markdown]
# (The rule of `x` is the first of its three paths. The other two run through `u` and `v`, which are inputs
# here.)
#
# The module is put together from parts that have their rules. A linear layer on the means is a 1x1
# convolution on an image of one pixel; so `u` comes out as $(N, C, 1, 1)$ and `v` as $(N, 1, H, W)$, ready to
# be broadcast.


# %%
class OurBAM(nn.Module):
    """y = (1 + sigmoid(u + v)) x.  (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels, reduction=16, dilation=4):
        super().__init__()
        hidden = channels // reduction
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.BatchNorm2d(channels),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
            nn.BatchNorm2d(1),
        )

    def forward(self, x):
        return x * (1 + F.sigmoid(self.channel(x) + self.spatial(x)))


# %%
mt.manual_seed(0)
ours, library = OurBAM(8, reduction=2, dilation=2), BAM(8, reduction=2, dilation=2)
library.load_state_dict(ours.state_dict())
image_batch = mt.randn(4, 8, 6, 6)

y = ours(image_batch)
u, v = ours.channel(image_batch).data[:, :, 0, 0], ours.spatial(image_batch).data[:, 0]
print("u", u.shape, " v", v.shape)
print(
    "our module and the primitive agree:", np.allclose(y.data, combine(image_batch.data, u, v)[0])
)
print("the library's module agrees:       ", np.allclose(library(image_batch).data, y.data))
library

# %% [markdown]
# ## The gradient check
#
# The three rules beside central differences (lesson 03):

# %%
x, u, v = rng.normal(size=(2, 3, 3, 4)), rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 4))
report = mt.check_vjp(combine, x, u, v)
print(report)

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 3. By the rules, measured, and the error, which is dark throughout. Grey bars stand between the images and
# the channels.*
#
# Now a mistake that is easy to make: the branch began with a *mean* over positions, so someone takes the
# mean on the way back, too. But `u` was repeated by broadcasting here, and nothing was averaged.


# %%
def combine_with_a_mean(x, u, v):
    y, (vjp_x, _, vjp_v) = combine(x, u, v)
    M = 1 / (1 + np.exp(-(u[:, :, None, None] + v[:, None])))

    def vjp_u(dy):
        return (dy * x * M * (1 - M)).mean(axis=(2, 3))

    return y, (vjp_x, vjp_u, vjp_v)


wrong = mt.check_vjp(combine_with_a_mean, x, u, v, raise_on_failure=False)
print(wrong)
assert [i.ok for i in wrong.inputs] == [True, False, True]
assert "12 times too small" in wrong.inputs[1].diagnosis

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 4. The gradient of `u` has the right signs and is too pale. The diagnosis counts how much:
# 12 times, which is $HW = 3 \cdot 4$. A factor that is a number of positions betrays a mean that should be a
# sum. The rules of `x` and `v` are still right.*
#
# The whole module, with all of its parameters, is checked through the engine:

# %%
mt.manual_seed(0)
whole = mt.gradcheck(BAM(4, reduction=2, dilation=1), rng.normal(size=(3, 4, 3, 4)))
print(len(whole.inputs), "inputs and parameters, all right:", whole.ok)

# %% [markdown]
# ## At work
#
# ### Between the stages of a residual network
#
# BAM does not stand in every block. It stands at the *bottlenecks*: behind a stage, in front of the next,
# whose first block halves the image. What is about to be made smaller is weighed first. `bam_resnet` is such a
# network; here with two stages, so with one module, beside the same without.

# %%
SEEDS = 0, 1, 2


def train_digits(attention, seed):
    mt.manual_seed(seed)
    model = bam_resnet(widths=(8, 16), blocks=(1, 1), attention=attention)
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    loader = DataLoader(train, batch_size=64, shuffle=True, generator=seed)
    fit(model, loader, optimizer=optimizer, epochs=3, progress=False)
    return 100 * evaluate(model, DataLoader(test, batch_size=500))["accuracy"]


on_digits = {
    "without": [train_digits(None, seed) for seed in SEEDS],
    "with BAM": [train_digits(lambda C: BAM(C, reduction=2, dilation=1), seed) for seed in SEEDS],
}
for arm, runs in on_digits.items():
    print(f"{arm:8}", "  ".join(f"{run:.1f} %" for run in runs))

# %%
viz.plot_arms(on_digits, label="accuracy on unseen digits, %")

# %%
assert min(on_digits["with BAM"]) < max(on_digits["without"])
assert max(on_digits["with BAM"]) > min(on_digits["without"])
means = [np.mean(runs) for runs in on_digits.values()]
assert np.ptp(on_digits["with BAM"]) > abs(means[1] - means[0])

# %% [markdown]
# *Figure 5. A dot is one seed, the bar their mean. The two overlap.*
#
# The seeds of one arm differ by more than the means of the arms. Whether BAM helps here cannot be told from this:
# with one epoch more, and five seeds, the mean without it came out ahead. As in lesson 13, the plain digits leave
# little to decide: one digit stands in the middle, and everything on it counts.

# %% [markdown]
# ### What each branch is for
#
# So let us make a task in which it is known what counts. It is that of lesson 13: of four noisy pictures one is
# a little brighter all over; *which digit does it show?* But the four pictures come in two arrangements:
#
# - as four **channels** of an input $(4, 8, 8)$: then the question is *what* counts;
# - as four **places**, the quarters of an input $(1, 16, 16)$: then the question is *where* it counts.
#
# The pictures, the noise and the brightness are the same.

# %%
DIGITS = {"train": train[:], "test": test[:]}


def brightest(part, count, seed):
    """Pictures (count, 4, 8, 8), the digit in the brightest of four, and which one that is."""
    rng = np.random.default_rng(seed)
    images, labels = DIGITS[part]
    chosen, told = rng.integers(len(images), size=(count, 4)), rng.integers(4, size=count)
    x = images[chosen, 0] + 0.2 * rng.normal(size=(count, 4, 8, 8))
    x[np.arange(count), told] += 0.2
    return x, labels[chosen[np.arange(count), told]], told


def as_channels(pictures):
    return pictures


def as_places(pictures):
    """(N, 4, 8, 8) -> (N, 1, 16, 16): pictures 0 and 1 above, 2 and 3 below."""
    quarters = pictures.reshape(-1, 2, 2, 8, 8)
    return quarters.transpose(0, 1, 3, 2, 4).reshape(-1, 1, 16, 16)


pictures, digit, told = brightest("test", 1, seed=2)
place = as_places(pictures)[0, 0]
top, left = 8 * (told[0] // 2), 8 * (told[0] % 2)
assert (place[top : top + 8, left : left + 8] == pictures[0, told[0]]).all()
assert pictures[0].mean(axis=(1, 2)).argmax() == told[0]

figure, axes = viz.panels(1, 5, width=8.0, height=2.2)
for i, ax in enumerate(axes[:4]):
    ax.imshow(pictures[0, i], cmap="gray", vmin=-0.5, vmax=1.5)
    ax.set(title=f"channel {i}", xticks=[], yticks=[])
axes[4].imshow(place, cmap="gray", vmin=-0.5, vmax=1.5)
draw_frame(axes[4], top, left, 8, 8)
axes[4].set(title="four places", xticks=[], yticks=[])
print("to read: channel", told[0], "- a", digit[0])
figure

# %% [markdown]
# *Figure 6. The same four pictures as channels, and as quarters of one image. The frame shows which quarter is
# to be read.*
#
# The network: three convolutions. The first keeps the four channels apart (4 groups), or halves the image of
# four places, so that both arrangements go on as $(24, 8, 8)$. The other two halve it further. At both
# bottlenecks stands one of four things: nothing, the channel branch alone, the spatial branch alone, or both.
# We take $d = 1$: on $8 \times 8$ positions a field of 5 is about a quarter of the image, while $d = 4$
# would mostly read padding.


# %%
def convolution(in_channels, out_channels, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def reader(arrange, branches):
    def attention():
        if branches == "none":
            return nn.Identity()
        return BAM(24, reduction=4, dilation=1, branches=branches)

    apart = arrange is as_channels
    return nn.Sequential(
        convolution(4, 24, groups=4) if apart else convolution(1, 24, stride=2),
        attention(),
        convolution(24, 24, stride=2),
        attention(),
        convolution(24, 24, stride=2),
        nn.Flatten(),
        nn.Linear(24 * 2 * 2, 10),
    )


def train_reader(arrange, branches, seed, count=1000, epochs=5):
    """Train a network from a seed; return it and its accuracy on 1000 unseen inputs, in %."""
    mt.manual_seed(seed)
    model = reader(arrange, branches)
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    x, digit, _ = brightest("train", count, seed)
    dataset = TensorDataset(arrange(x), digit)
    loader = DataLoader(dataset, batch_size=32, shuffle=True, generator=seed)
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
    unseen = [(mt.tensor(arrange(x)), mt.tensor(digit))]
    return model, 100 * evaluate(model, unseen)["accuracy"]


# %%
ARMS = "none", "channel", "spatial", "both"
trained, accuracies = {}, {}


def ablate(arrange):
    for arm in ARMS:
        runs = [train_reader(arrange, arm, seed) for seed in SEEDS]
        trained[arrange, arm] = [model for model, _ in runs]
        accuracies[arrange, arm] = [accuracy for _, accuracy in runs]
        shown = "  ".join(f"{accuracy:.1f} %" for accuracy in accuracies[arrange, arm])
        print(f"{arrange.__name__:12} {arm:8} {shown}")


ablate(as_channels)

# %%
ablate(as_places)

# %%
figure, axes = viz.panels(1, 2, width=8.0, height=3.4)
for ax, arrange in zip(axes, (as_channels, as_places), strict=True):
    arms = {arm: accuracies[arrange, arm] for arm in ARMS}
    viz.plot_arms(arms, ax=ax)
    ax.set(title=arrange.__name__.replace("_", " "), xlabel="accuracy on unseen inputs, %")
figure

# %%
questions = (as_channels, "channel", "spatial"), (as_places, "spatial", "channel")
for arrange, right, other in questions:
    none, ahead, behind, both = (
        np.array(accuracies[arrange, a]) for a in ("none", right, other, "both")
    )
    won = np.minimum(ahead, both) > np.maximum(none, behind)
    print(f"{arrange.__name__:12} ahead with the {right} branch: {won.sum()} of {len(won)} seeds")
    assert won.all()
assert (np.array(accuracies[as_places, "both"]) < accuracies[as_places, "spatial"]).all()
assert (np.array(accuracies[as_places, "channel"]) < accuracies[as_places, "none"]).all()

# %% [markdown]
# *Figure 7. The ablation. Left the question is what counts: the channel branch helps, alone and beside the
# other. Right it is where: there the spatial branch helps. On both sides and on every seed, the runs with the
# right branch are ahead of those without it.*
#
# Neither branch can do the other's work. A mean over all positions cannot say which quarter is bright, and
# one map for all channels cannot turn down a single one of them. The sum helps in both arrangements, without
# being told which it is. It has its price: among the places the spatial branch alone is a little better than
# both, on each of the seeds, and the channel branch alone is even behind no branch at all. A likely reason: a
# branch that has nothing to say is not quite silent, and what it says is noise in the map. So do not expect the
# sum to win where one question alone is asked.
#
# How much a branch gains depends on the settings. Four were tried, and these are the ones in which the two
# questions come apart most clearly; seven seeds agree with the three that are shown. With one module in place
# of two, $d = 2$ and more inputs, the spatial branch gained only a few points among the places, and not on
# every seed.

# %% [markdown]
# ### The map on real images
#
# What does the map look like? A forward hook on `gate` reads $M$ at the first bottleneck of the network with
# both branches, for unseen inputs; we draw the mean over its 24 channels.

# %%
COUNT = 1000
pictures, _, told = brightest("test", COUNT, seed=7)


def look(model, part, arrangement):
    """What a part of the first BAM of a trained network gives for the unseen pictures."""
    seen = []
    handle = getattr(model[1], part).register_forward_hook(
        lambda module, inputs, output: seen.append(output.data)
    )
    model.eval()
    with mt.no_grad():
        model(mt.tensor(arrangement(pictures)))
    handle.remove()
    return seen[0]


M = look(trained[as_places, "both"][0], "gate", as_places).mean(axis=1)  # (N, 8, 8)

examples = [int(np.flatnonzero(told == quarter)[0]) for quarter in range(4)]
figure, axes = viz.panels(2, 4, width=8.0, height=4.4)
for quarter, (n, (above, below)) in enumerate(zip(examples, axes.T, strict=True)):
    above.imshow(as_places(pictures[n : n + 1])[0, 0], cmap="gray", vmin=-0.5, vmax=1.5)
    draw_frame(above, 8 * (quarter // 2), 8 * (quarter % 2), 8, 8)
    shown = below.imshow(M[n], cmap="viridis", vmin=0, vmax=1)
    draw_frame(below, 4 * (quarter // 2), 4 * (quarter % 2), 4, 4)
    for ax in above, below:
        ax.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("input")
axes[1, 0].set_ylabel("map M")
figure.colorbar(shown, ax=axes, shrink=0.7)
figure

# %%
quarters = M.reshape(COUNT, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(COUNT, 4)
own = quarters[np.arange(COUNT), told]
others = (quarters.sum(axis=1) - own) / 3
found = (quarters.argmax(axis=1) == told).mean()
print(f"mean map in the quarter to read {own.mean():.1f}, in the others {others.mean():.1f}")
print(f"the quarter with the brightest map is the one to read: {100 * found:.0f} %")
assert own.mean() > others.mean() + 0.2 and found > 0.9
ahead = (own / others)[examples]
assert (ahead[[0, 1, 3]] > 1.2).all() and ahead[2] == ahead.min()

# %% [markdown]
# *Figure 8. Four unseen inputs, and under each the map at the first bottleneck. The frame is the quarter to
# read. In the first two and the last the map is high there; in the third it hesitates between two quarters. It
# is bright in spots rather than as one field: it follows the strokes, too.*
#
# Nobody told the branch where to look. It found that brightness tells it, from the digits it had to name
# alone.
#
# And the channel branch, where the pictures are channels? We average $u$ over the inputs in which picture 0
# was the brightest, then picture 1, and so on, over the six channels of each group of the first convolution,
# and over the networks of the three seeds.

# %%
u = [look(model, "channel", as_channels) for model in trained[as_channels, "both"]]
u = np.mean(u, axis=0).reshape(COUNT, 4, 6).mean(axis=2)  # (N, group)
mean_u = np.stack([u[told == picture].mean(axis=0) for picture in range(4)])
figure, ax = viz.panels(1, 1, width=5.5, height=3)
viz.show_channel_weights(mean_u, rows=[f"picture {i}" for i in range(4)], label="mean u", ax=ax)
ax.set_xlabel("group of channels")
figure

# %%
diagonal = np.diag(mean_u)
rest = (mean_u.sum(axis=0) - diagonal) / 3
print("a picture's own group, when it is the brightest:", diagonal.round(1))
print("and when another one is:                        ", rest.round(1))
assert (diagonal > rest + 0.2).all() and (mean_u.argmax(axis=0) == np.arange(4)).all()

# %% [markdown]
# *Figure 9. One row for each brightest picture, one column for each group of channels. Each column is
# brightest where the group's own picture is the one to read.*

# %% [markdown]
# ### Why a sum
#
# The equations said that in a product each branch learns only as much as the other one speaks. Let us see it:
# we scale the last layers of both branches by a factor, from 1 down to nothing, and look at the largest
# gradient that reaches them. (Batch normalisation at the end would undo the scaling; so this is the form with
# `norm="hidden"`, the authors' program.)


# %%
def largest_gradient(combine, factor):
    mt.manual_seed(0)
    module = BAM(8, reduction=2, dilation=1, combine=combine, norm="hidden")
    last = [module.channel[-1], module.spatial[-1]]
    with mt.no_grad():
        for p in (p for layer in last for p in layer.parameters()):
            p *= factor
    y = module(mt.randn(8, 8, 6, 6))
    y.backward(mt.randn(*y.shape))
    return max(np.abs(p.grad.data).max() for layer in last for p in layer.parameters())


factors = 10.0 ** -np.arange(6)
figure, ax = viz.panels(1, 1, width=5.5, height=3.2)
gradients = {c: [largest_gradient(c, f) for f in factors] for c in ("sum", "product")}
for name, line, colour in zip(gradients, ("o-", "s--"), viz.COLOURS, strict=False):
    ax.loglog(factors, gradients[name], line, color=colour, label=name)
ax.set(xlabel="factor on the last layers", ylabel="largest gradient")
ax.legend()
figure

# %%
fall = {c: g[-1] / g[-2] for c, g in gradients.items()}
print({c: round(float(f), 2) for c, f in fall.items()})
assert 0.95 < fall["sum"] < 1.05 and 0.09 < fall["product"] < 0.11
assert largest_gradient("sum", 0.0) > 0.1 and largest_gradient("product", 0.0) == 0

# %% [markdown]
# *Figure 10. With a sum the gradient stays, however quiet both branches are. With a product it falls as they
# do, ten times for each factor of ten.*
#
# At exactly zero the product gets no gradient at all: a saddle, which it cannot leave. At the usual random
# start both branches do speak, and the product is slow rather than dead.

# %% [markdown]
# ## Paper and code
#
# The authors' program is not the module of their paper, and the models they released were trained by the
# program. Both can be had here: `BAM(C)` is the paper's, `BAM(C, combine="product", norm="hidden")` the
# program's.
#
# | | paper | authors' program | here |
# |---|---|---|---|
# | combination | $\sigma(M_c + M_s)$; its own ablation prefers the sum to product and maximum | $\sigma(M_c \cdot M_s)$ | `combine="sum"`, `"product"`, `"max"` |
# | batch normalisation | behind the last layer of each branch | behind every layer *but* the last, before its ReLU | `norm="end"`, `"hidden"` |
# | ReLU | not in the equations | behind every layer but the last | the same in both forms |
# | residual | $F + F \otimes M(F)$ | $(1 + M)\, F$, which is equal | $(1 + M)\, x$ |
# | the mean | over the whole map | over a square as wide as the map is high | over the whole map |
# | place | bottlenecks between stages | behind stages 1, 2 and 3 of a ResNet | `bam_resnet`: behind each stage but the last |
#
# Three traps. On small maps the default dilation reads mostly padding (question 3 below). In training,
# batch normalisation at the end of the channel branch compares the images of a batch: an image's map depends
# on its neighbours in the batch, and a batch of one, which leaves nothing to compare, is refused. And the module
# is not the identity at the start: it multiplies by about one and a half.

# %% [markdown]
# ## Predict before you run
#
# **1.** A fresh module of the paper's form meets a batch of random numbers. Between which bounds does
# output / input lie, and what is its mean?

# %%
mt.manual_seed(0)
fresh = BAM(64)
x = mt.randn(8, 64, 12, 12)
y = fresh(x)
ratio = y.data / x.data
print(f"mean {ratio.mean():.2f}, all between 1 and 2: {1 < ratio.min() and ratio.max() < 2}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# $1 + M$ lies between 1 and 2. Both branches end in batch normalisation, so $u + v$ has mean 0 over the batch,
# and $\sigma$ of something that lies about evenly around 0 has a mean near $1/2$: with the 1, about 1.5.
#
# </details>
#
# **2.** In the same form, the last layer of each branch has a bias. How large is its gradient in training?

# %%
y.backward(mt.randn(*y.shape))
biases = fresh.channel[3].bias, fresh.spatial[6].bias
print("all zero but for rounding:", all(np.abs(b.grad.data).max() < 1e-10 for b in biases))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Zero. Batch normalisation subtracts the mean, and a bias shifts the mean: what it adds is taken away again. The
# paper's $b_1$ has no effect in training.
#
# </details>
#
# **3.** A map has 8 x 8 positions, and $d = 4$. Of the 25 taps that the position in row 4 and column 4 reads, how
# many lie in the map?

# %%
taps = np.arange(-2, 3) * 4 + 4
inside = taps[(taps >= 0) & (taps < 8)]
print("rows read:", inside, "->", len(inside) ** 2, "of 25 taps")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Four. The taps are at rows $-4, 0, 4, 8, 12$, of which two are in the map; the same for the columns. The other
# 21 are padding. The branch was made for larger maps.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`14_bam`](../exercises/14_bam.ipynb):
#
# 1. **combine**: the broadcast sum and its three rules.
# 2. **combine_product**: the same for the product of the authors' program.
# 3. **positions_read**: what two dilated kernels read, and what is padding.
# 4. **extra_parameters**: count the parameters of one module.
# 5. **BAM**: the module.

# %% [markdown]
# ## What to remember
#
# - Two branches side by side, what and where; their sum is broadcast, one sigmoid makes a map of it, and
#   $y = (1 + M) \odot x$ never weakens anything.
# - What was repeated by broadcasting is summed on the way back: $du$ over positions, $dv$ over channels.
# - Two 3x3 kernels with dilation $d$ see $1 + 4d$ positions, and read 25 of them.
# - Each branch helps where its own question is asked; the sum helps with both. On plain digits there was
#   nothing to see.
# - A product of two branches starves them when both are quiet; a sum does not.

# %% [markdown]
# ## Sources
#
# - J. Park, S. Woo, J.-Y. Lee, I. S. Kweon, *BAM: Bottleneck Attention Module*, BMVC 2018: section 3 for the
#   equations, and its ablations.
# - The authors' program for BAM and CBAM, written in PyTorch, which they published with their models.
# - F. Yu, V. Koltun, *Multi-Scale Context Aggregation by Dilated Convolutions*, ICLR 2016.
