# %% [markdown]
# # 19 · Dual attention
#
# One feature map read in two ways: positions that look at positions, and channels that look at channels.
#
# **You will be able to**
#
# - derive position attention and channel attention forward and backward, with each of the ways by which
#   a gradient reaches the input;
# - say what the sign of the channel map does, why the map saturates, and what a $\gamma$ of zero leaves to
#   learn;
# - segment pictures in which the class of a pixel is decided far away, measure it by mean IoU, and find
#   out where the network looked.
#
# **You need** lessons 05 to 08 for convolutional networks, 11 for softmax attention, 18 for the non-local
# block.
#
# **Time** about 50 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import ChannelSelfAttention, DualAttentionHead, PositionAttention
from minitorch_attn.data import DataLoader, TensorDataset, digits
from minitorch_attn.metrics import confusion_matrix, intersection_over_union, mean_iou
from minitorch_attn.models import DilatedResNet, auxiliary_cross_entropy
from minitorch_attn.training import fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# *Segmentation* asks for the class of each pixel. A convolution answers from a small window, and often
# that is not enough: whether a grey patch is road or wall, the rest of the picture says. Dual attention
# brings it the rest of the picture in two ways.
#
# A feature map is a table: $C$ channels, $L$ positions. Below, four handwritten digits, and what four
# filters make of them, each of which answers to edges in one direction.

# %%
DIGITS = {"train": digits()[:], "test": digits(train=False)[:]}


def in_quarters(four):
    """Four digits (N, 4, 8, 8) as pictures (N, 1, 16, 16)."""
    return four.reshape(-1, 2, 2, 8, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 1, 16, 16)


def of_classes(part, classes, rng):
    """For each of some classes a digit from a part of the data, drawn at random: (..., 8, 8)."""
    images, labels = DIGITS[part]
    order, counts = np.argsort(labels, kind="stable"), np.bincount(labels)
    starts = np.cumsum(counts) - counts
    ranks = (rng.random(classes.shape) * counts[classes]).astype(int)
    return images[order[starts[classes] + ranks], 0].astype(float)


picture = in_quarters(of_classes("test", np.array([[1, 4, 7, 1]]), np.random.default_rng(0)))
rows = np.array([[-1.0, -1, -1], [0, 0, 0], [1, 1, 1]])
diagonal = np.array([[-1.0, -1, 0], [-1, 0, 1], [0, 1, 1]])
kernels = np.stack([rows, diagonal, rows.T, diagonal[:, ::-1]])[:, None]  # (4, 1, 3, 3)
edges = ["horizontal", "rising", "vertical", "falling"]
responses = F.conv2d(mt.tensor(picture), mt.tensor(kernels), padding=1).abs().numpy()[0]
x = responses.reshape(4, 256)  # C = 4 channels, L = 256 positions


def softmax(E):
    e = np.exp(E - E.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


first_digit = x[2].reshape(16, 16)[:8, :8]
row, column = divmod(int(first_digit.argmax()), 8)  # where it is most upright
position_map = softmax(x.T @ x)  # (L, L): a row for each position
channel_map = softmax(x @ x.T / 256)  # (C, C): a row for each channel
seen = position_map[16 * row + column].reshape(16, 16)

figure, axes = viz.panels(1, 3, height=2.9)
axes[0].imshow(picture[0, 0], cmap="gray")
axes[0].set_title("four digits")
axes[1].imshow(np.sqrt(seen), cmap="viridis")
axes[1].set_title("where one position looks")
for ax in axes[:2]:
    ax.plot(column, row, "o", markersize=9, markerfacecolor="none", color="red")
    ax.set_axis_off()
axes[2].imshow(channel_map, cmap="viridis", vmin=0)
axes[2].set_xticks(range(4), labels=edges, rotation=60)
axes[2].set_yticks(range(4), labels=edges)
axes[2].set_title("channel at channel")
top = np.argsort(seen.ravel())[-20:]
upright = x[2, top] > 0.7 * x[2].max()
assert upright.mean() > 0.9 and {(i // 16 // 8, i % 16 // 8) for i in top} >= {(0, 0), (1, 1)}
figure

# %% [markdown]
# *Figure 1. Middle: the position in the circle, on the edge of an upright stroke, looks at the edges of
# upright strokes, in its own digit and in others (drawn is the square root). Right: the $4 \times 4$ map
# of the channels, from the same table; a row for each channel that looks, brighter is more. Its products
# were divided by the number of positions; why, we shall see below.*
#
# Both maps compare by products. The first multiplies columns of the table, position with position; the
# second multiplies rows, channel with channel. Each then adds up what it looks at.

# %% [markdown]
# ## The equations
#
# Take one image. Its feature map is a matrix $x: (C, L)$, with $L = HW$ positions. We write $x_i$ for
# column $i$, the features at a position, and $x_{ci}$ for one element.
#
# ### Position attention
#
# It is nearly the non-local block of lesson 18. Three matrices make *queries*, *keys* and *values*,
#
# $$q = W_q x, \qquad k = W_k x, \qquad v = W_v x, \qquad W_q, W_k: (D, C), \quad W_v: (C, C)$$
#
# (the paper's convolutions have biases, too; we leave them out here). Then
#
# $$E = q^\top k, \qquad P_{ij} = \mathrm{softmax}_j(E_{ij}), \qquad o = v P^\top, \qquad
# y = \gamma\, o + x$$
#
# with $E, P: (L, L)$. In words, $o_i = \sum_j P_{ij}\, v_j$: row $i$ of the map says where position $i$
# looks. Two things differ from the non-local block: the values keep all $C$ channels, and in place of a
# last matrix there is $\gamma$, one number that is learned and starts at 0.
#
# **Backward.** As always, $dy$ stands for the gradient of the loss by $y$, an array of $y$'s shape. From the
# last equation to the first:
#
# $y = \gamma o + x$: each element of $o$ is multiplied by the same $\gamma$, so
#
# $$d\gamma = \sum_{c,i} dy_{ci}\, o_{ci}, \qquad do = \gamma\, dy, \qquad
# dx \mathrel{+}= dy$$
#
# ($\mathrel{+}=$ because $x$ is used again below.) $o = v P^\top$ is a product of matrices (lesson 02). Its
# right factor $P^\top$ gets $v^\top do$, so $P$ gets the transpose:
#
# $$dv = do\, P, \qquad dP = do^\top v$$
#
# Softmax, row by row (lessons 04 and 11):
#
# $$dE_{ij} = P_{ij} \Big( dP_{ij} - \sum_m P_{im}\, dP_{im} \Big)$$
#
# $E = q^\top k$ is a product again; its left factor $q^\top$ gets $dE\, k^\top$, so $q$ gets the transpose:
#
# $$dq = k\, dE^\top, \qquad dk = q\, dE$$
#
# and so are $q$, $k$ and $v$. All three are made of $x$, and $x$ itself was added:
#
# $$dW_q = dq\, x^\top, \quad \ldots \qquad
# \boxed{\; dx = dy + W_q^\top dq + W_k^\top dk + W_v^\top dv \;}$$

# %% [markdown]
# ### Channel attention
#
# Now the other way round, and with no matrix to learn:
#
# $$E = x x^\top, \qquad P_{cd} = \mathrm{softmax}_d(E_{cd}), \qquad o = P x, \qquad y = \gamma\, o + x$$
#
# with $E, P: (C, C)$. $E_{cd} = \sum_i x_{ci}\, x_{di}$ is large where two channels are loud at the same
# positions: where they *go together*. Row $c$ of $P$ says from which channels $c$ takes. The scalar is the
# paper's $\beta$; we say $\gamma$ here as well.
#
# **Backward.** The first two steps are as before, now with $o = P x$, a product in which $x$ is the right
# factor:
#
# $$do = \gamma\, dy, \qquad dP = do\, x^\top, \qquad dx \mathrel{+}= P^\top do$$
#
# Through the softmax to $dE$, as above. Then $E = x x^\top$, where $x$ is both factors. By the rule of a
# product, the left one, $x$, gets $dE\, (x^\top)^\top = dE\, x$. The right one, $x^\top$, gets $x^\top dE$, so its
# $x$ gets $dE^\top x$:
#
# $$\boxed{\; dx = dy + P^\top do + dE\, x + dE^\top x \;}$$
#
# So $x$ appears three times behind $\gamma$, and once beside it. Note that $E$ is symmetric, but $dE$ is
# not: $dP$ is not, and each row has a softmax of its own.

# %% [markdown]
# ### The sign
#
# So the paper. The authors' program has another line between: it takes $\max_d E_{cd} - E_{cd}$ in place of
# $E_{cd}$. The maximum is the same for a whole row, and a softmax does not see it. What it sees is
#
# $$P_{cd} = \mathrm{softmax}_d(-E_{cd})$$
#
# the *opposite* sign: a channel takes from those it goes together with *least*. (To keep the exponentials
# small one would subtract the maximum, $E_{cd} - \max_d E_{cd}$; softmax does so anyway.)
#
# Why would they? The sum in $E_{cd}$ has $L$ terms, so it grows with the picture. Let the channels be
# independent, with mean 0 and variance 1. Then $E_{cc}$ is about $L$, and $E_{cd}$ is about $\sqrt L$,
# with either sign. With $e^L$ against $e^{\sqrt L}$ the softmax puts all weight on the channel itself:
# $P$ becomes the identity, and $y = (1 + \gamma)\, x$. Nothing was gathered. With the opposite sign the
# channel itself has $e^{-L}$ against $e^{\pm\sqrt L}$, next to nothing: all that comes is from others.
# Dividing the energy by $L$ keeps it of the size it has at one position (neither the paper nor the program
# does). Measured:

# %%
lengths = [1, 2, 4, 8, 16, 32, 64, 128]
forms = {"paper, +E": (1, False), "program, -E": (-1, False), "+E / L": (1, True)}
own = {name: [] for name in forms}
for L in lengths:
    noise = np.random.default_rng(L).normal(size=(40, 16, L))  # 40 times C = 16 channels
    for name, (sign, mean) in forms.items():
        maps = [softmax(sign * x @ x.T / (L if mean else 1)) for x in noise]
        own[name].append(np.mean([np.diag(P).mean() for P in maps]))

figure, ax = viz.panels(1, 1, width=5.5, height=3)
for (name, values), colour in zip(own.items(), viz.COLOURS):
    ax.plot(lengths, values, "o-", color=colour, label=name)
ax.axhline(1 / 16, color="black", linewidth=1, linestyle="--")
ax.set_xscale("log", base=2)
ax.set(xlabel="positions L", ylabel="weight on itself", ylim=(-0.03, 1.03))
ax.legend(frameon=False)
assert own["paper, +E"][-1] > 0.999 and own["program, -E"][-1] < 1e-6
assert 0.1 < own["+E / L"][-1] < 0.2
figure

# %% [markdown]
# *Figure 2. How much a channel looks at itself, the mean of the map's diagonal, among 16 independent
# channels; dashed is an equal share. With the paper's sign it is nearly all from a few dozen positions
# on, with the program's nothing, with the mean in place of the sum it stays between.*
#
# Channels of a network are not independent, and not equally loud. We shall look at theirs below.

# %% [markdown]
# ### The start, and the cost
#
# At $\gamma = 0$ the module is the identity: it can be put into a trained network. In the first step
# $do = \gamma\, dy = 0$, so nothing behind it gets a gradient: not $W_q$, $W_k$, $W_v$. Only
# $d\gamma = \sum dy \odot o$ is not zero. From the second step on all learn.
#
# Position attention has $C^2 + 2 C D + 1$ weights (and $C + 2 D$ biases, with the paper's convolutions). It
# takes $L\,(C^2 + 2 C D)$ multiply-adds for $q$, $k$ and $v$, and $L^2 (C + D)$ for the map and the sum.
# Channel attention has 1 weight, and takes $2 C^2 L$. With $C = 512$ and $D = C / 8$, as in the authors'
# program, and $96 \times 96$ positions, an eighth of a picture of $768 \times 768$ pixels each way:


# %%
def multiply_adds(L, C, D):
    """Of position attention, and of channel attention."""
    return L * (C * C + 2 * C * D) + L * L * (C + D), 2 * C * C * L


modules = PositionAttention(16), ChannelSelfAttention(16)
counted = tuple(mt.summary(module, (16, 4, 5)).multiply_adds for module in modules)
assert counted == multiply_adds(L=20, C=16, D=2)

position, channel = multiply_adds(L=96 * 96, C=512, D=64)
print(f"position: {position / 1e9:.1f} G multiply-adds, a map of {96**4:,} numbers")
print(f"channel:  {channel / 1e9:4.1f} G multiply-adds, a map of {512**2:,} numbers")

# %% [markdown]
# ## The code
#
# First as loops, the channel form:


# %%
def channel_attention_loops(x, gamma):
    """x (C, L), gamma a number -> y (C, L), with the paper's sign."""
    C, L = x.shape
    y = x.copy()
    for c in range(C):
        e = [np.exp(sum(x[c, i] * x[d, i] for i in range(L))) for d in range(C)]
        for d in range(C):
            y[c] += gamma * e[d] / sum(e) * x[d]
    return y


# %% [markdown]
# And both in primitive form: the output, and a rule for each input. `gamma` is an array of one number, as
# in the module.


# %%
def softmax_back(P, dP):
    return P * (dP - (P * dP).sum(axis=1, keepdims=True))


def position_attention(x, w_q, w_k, w_v, gamma):
    """x (C, L), w_q and w_k (D, C), w_v (C, C), gamma (1,) -> y (C, L), and a rule for each."""
    q, k, v = w_q @ x, w_k @ x, w_v @ x
    P = softmax(q.T @ k)
    o = v @ P.T

    def back_to_E(dy):
        return softmax_back(P, gamma * dy.T @ v)

    def back_to_qkv(dy):
        dE = back_to_E(dy)
        return k @ dE.T, q @ dE, gamma * dy @ P

    def vjp_x(dy):
        dq, dk, dv = back_to_qkv(dy)
        return dy + w_q.T @ dq + w_k.T @ dk + w_v.T @ dv

    def vjp_w_q(dy):
        return back_to_qkv(dy)[0] @ x.T

    def vjp_w_k(dy):
        return back_to_qkv(dy)[1] @ x.T

    def vjp_w_v(dy):
        return back_to_qkv(dy)[2] @ x.T

    def vjp_gamma(dy):
        return np.array([(dy * o).sum()])

    return gamma * o + x, (vjp_x, vjp_w_q, vjp_w_k, vjp_w_v, vjp_gamma)


def channel_attention(x, gamma, *, sign=1):
    """x (C, L), gamma (1,) -> y (C, L), and a rule for each; sign -1 is the program's."""
    P = softmax(sign * x @ x.T)
    o = P @ x

    def vjp_x(dy):
        do = gamma * dy
        dE = sign * softmax_back(P, do @ x.T)
        return dy + P.T @ do + dE @ x + dE.T @ x

    def vjp_gamma(dy):
        return np.array([(dy * o).sum()])

    return gamma * o + x, (vjp_x, vjp_gamma)


# %%
rng = np.random.default_rng(0)
x, gamma = rng.normal(size=(4, 6)), np.array([0.7])
w_q, w_k, w_v = rng.normal(size=(2, 4)), rng.normal(size=(2, 4)), rng.normal(size=(4, 4))

y, _ = channel_attention(x, gamma)
print("loops and arrays agree:", np.allclose(y, channel_attention_loops(x, 0.7)))

# %% [markdown]
# As a module, put together from parts that have their rules:


# %%
class OurPositionAttention(nn.Module):
    """y = gamma * softmax(q^T k) v + x.  (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels, reduction=8):
        super().__init__()
        self.query = nn.Conv2d(channels, channels // reduction, 1)
        self.key = nn.Conv2d(channels, channels // reduction, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(mt.zeros(1))

    def forward(self, x):
        q, k, v = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        P = F.softmax(q.transpose(1, 2) @ k, dim=2)  # (N, L, L): row i for position i
        o = v @ P.transpose(1, 2)  # (N, C, L)
        return self.gamma * o.reshape(x.shape) + x


# %%
image = mt.tensor(x.reshape(1, 4, 2, 3))
ours, library = OurPositionAttention(4, reduction=2), PositionAttention(4, reduction=2)
print("at first the identity:   ", np.array_equal(ours(image).data, image.data))
for part, w in zip((ours.query, ours.key, ours.value), (w_q, w_k, w_v), strict=True):
    part.weight.data, part.bias.data = w[:, :, None, None], np.zeros(len(w))
ours.gamma.data = gamma
library.load_state_dict(ours.state_dict())

y, _ = position_attention(x, w_q, w_k, w_v, gamma)
print("our module agrees:       ", np.allclose(ours(image).data[0].reshape(4, 6), y))
print("library's module agrees: ", np.allclose(library(image).data, ours(image).data))
for sign, name in (1, "paper"), (-1, "program"):
    module = ChannelSelfAttention(4, sign=name)
    module.gamma.data = gamma
    y, _ = channel_attention(x, gamma, sign=sign)
    print(f"channels, {name:8} agrees:", np.allclose(module(image).data[0].reshape(4, 6), y))

# %% [markdown]
# ## The gradient check
#
# The rules against central differences (lesson 03). For the channels we take $x / 2$, so that their softmax
# is not all or nothing:

# %%
for sign in 1, -1:
    assert mt.check_vjp(channel_attention, x / 2, gamma, sign=sign).ok
print(mt.check_vjp(position_attention, x, w_q, w_k, w_v, gamma))
report = mt.check_vjp(channel_attention, x / 2, gamma)
print(report)

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 3. Channel attention: the gradient by the rule, the measured one, and the error, dark
# throughout.*
#
# A mistake that is easily made: $E = x x^\top$ is symmetric, so someone takes $dE$ for symmetric, too,
# and writes $2\, dE\, x$ for $dE\, x + dE^\top x$.


# %%
def taken_for_symmetric(x, gamma):
    y, (_, vjp_gamma) = channel_attention(x, gamma)
    P = softmax(x @ x.T)

    def vjp_x(dy):
        do = gamma * dy
        dE = softmax_back(P, do @ x.T)
        return dy + P.T @ do + 2 * dE @ x

    return y, (vjp_x, vjp_gamma)


wrong = mt.check_vjp(taken_for_symmetric, x / 2, gamma, raise_on_failure=False)
print(wrong)
assert [compared.ok for compared in wrong.inputs] == [False, True]

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 4. The error of $x$ is everywhere, large and small, with no simple pattern, while the rule of
# $\gamma$ is right: the mistake lies behind $\gamma$, on the way to $x$.*
#
# And a warning. The same wrong rule, checked as the module starts, at $\gamma = 0$:

# %%
asleep = mt.check_vjp(taken_for_symmetric, x / 2, np.zeros(1), raise_on_failure=False)
print("the wrong rule passes:", asleep.ok)
assert asleep.ok

# %% [markdown]
# All that is wrong in it is multiplied by $\gamma$. Whoever checks a module that starts as the identity wakes it
# up first.

# %% [markdown]
# ## At work
#
# ### Find what is like it
#
# A picture of four digits. Two are of one class, two of another; and one of the four stands on a lit tile.
# *Which ink belongs to digits of the same class as the one that is lit?* There are three classes of
# pixels: the ink of those digits, other ink, and what is no ink. The true classes, the *mask*, are known
# exactly, as we put the pictures together ourselves.
#
# The lit digit itself is easy. For the others, whoever sees one digit alone can only guess: the answer
# stands elsewhere in the picture.


# %%
def scenes(part, count, seed):
    """Pictures (N, 1, 16, 16), masks (N, 16, 16), classes (N, 4), and which digit is lit (N, 4)."""
    rng = np.random.default_rng(seed)
    kinds = rng.permuted(np.tile(np.arange(10), (count, 1)), axis=1)[:, [0, 0, 1, 1]]
    order = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    classes, lit = np.take_along_axis(kinds, order, axis=1), order == 0
    four = of_classes(part, classes, rng)  # (N, 4, 8, 8)
    like = classes == kinds[:, :1]
    mask = np.where(four > 0.3, np.where(like, 1, 2)[:, :, None, None], 0)
    four = np.where(lit[:, :, None, None], np.maximum(four, 0.25), four)
    return in_quarters(four), in_quarters(mask)[:, 0], classes, lit


train_set, test_set = scenes("train", 1000, seed=1), scenes("test", 300, seed=2)
x_train, t_train, *_ = train_set
x_test, t_test, classes, lit = test_set
PALETTE = np.array([[0.15, 0.15, 0.15], [0.90, 0.62, 0.0], [0.34, 0.71, 0.91]])


def coloured(masks):
    """Masks (N, 16, 16) as colour pictures (N, 3, 16, 16)."""
    return PALETTE[masks].transpose(0, 3, 1, 2)


def apart(pictures):
    """With a grey cross between the four digits, to see them better: (N, 3, 17, 17)."""
    return np.insert(np.insert(pictures, 8, 0.5, axis=2), 8, 0.5, axis=3)


assert all(len(set(row)) == 2 for row in classes.tolist()) and (lit.sum(axis=1) == 1).all()
shown = np.concatenate([x_test[:5].repeat(3, axis=1), coloured(t_test[:5])])
viz.show_images(
    apart(shown), [f"lit: {k[b][0]}" for k, b in zip(classes[:5], lit)] + ["mask"] * 5, columns=5
)

# %% [markdown]
# *Figure 5. Above five pictures, below their masks: orange is ink like the lit digit's, blue is other
# ink.*
#
# ### Mean IoU
#
# How good is a mask? The share of right pixels flatters: most pixels are background. For each class one
# takes the *intersection over union*: the pixels that are of this class in both masks, the true one and
# the predicted one, divided by those that are in at least one. The mean over the classes is the *mean
# IoU*. Over many pictures the pixels are counted first, in a *confusion matrix* $M$ whose rows are the
# true classes and whose columns the predicted ones:
#
# $$\mathrm{IoU}_k = \frac{M_{kk}}{\sum_p M_{kp} + \sum_t M_{tk} - M_{kk}}$$
#
# What would someone get who sees every ink pixel, and knows the lit digit, but takes all others for
# unlike? (Of the three others two are.)

# %%
on_lit_tile = in_quarters(np.broadcast_to(lit[:, :, None, None], (300, 4, 8, 8)))[:, 0]
guess = np.where(t_test > 0, np.where(on_lit_tile, 1, 2), 0)
M = confusion_matrix(guess, t_test, 3)
print(M)
print("IoU of each class:", intersection_over_union(M).round(2), "  mean:", round(mean_iou(M), 2))
blind = intersection_over_union(M)
assert blind[0] == 1 and 0.4 < blind[1] < 0.6 < blind[2] < 0.75

# %% [markdown]
# ### Five networks
#
# DANet is made of a *backbone*, a network that was trained to classify images, and a head. So is ours. The
# backbone has four convolutions and leads to 32 channels on $8 \times 8$ positions. It learns something
# else first: at each position, which digit is here, and is it lit (20 classes). Then it is left as it is
# (DANet's learns on with the head), and its features are computed once.


# %%
def convolution(in_channels, out_channels, stride=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def train(model, x, target, epochs, seed, loss=F.cross_entropy):
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    loader = DataLoader(TensorDataset(x, target), batch_size=32, shuffle=True, generator=seed)
    settings = {"loss": loss, "metrics": {}, "progress": False}
    fit(model, loader, optimizer=optimizer, epochs=epochs, **settings)


def run(model, x):
    """A model's output for an array, in evaluation, without a graph."""
    model.eval()
    with mt.no_grad():
        return np.concatenate(
            [model(mt.tensor(x[i : i + 100])).numpy() for i in range(0, len(x), 100)]
        )


def at_positions(answers):
    """An answer for each digit (N, 4) as one for each of 8 x 8 positions."""
    return answers.reshape(-1, 2, 2).repeat(4, axis=1).repeat(4, axis=2)


mt.manual_seed(0)
backbone = nn.Sequential(
    convolution(1, 16), convolution(16, 32, stride=2), convolution(32, 32), convolution(32, 32)
)
classifier = nn.Sequential(backbone, nn.Conv2d(32, 20, 1))
digit_and_light = [at_positions(kind + 10 * light) for _, _, kind, light in (train_set, test_set)]
train(classifier, x_train, digit_and_light[0], epochs=4, seed=0)
f_train, f_test = run(backbone, x_train), run(backbone, x_test)
share = (run(classifier, x_test).argmax(axis=1) == digit_and_light[1]).mean()
print(f"digit and light told rightly at {100 * share:.0f} % of the positions")
assert share > 0.8

# %% [markdown]
# The head is the paper's. Each branch has a 3x3 convolution (here from 32 channels to 16), an attention,
# another 3x3 convolution; both branches are added, and a 1x1 convolution gives the scores. In training the
# branches have scores of their own, too, and the loss is the sum of three. Ours gives four scores for each
# class and position, one for each of the $2 \times 2$ pixels there, which `pixel_shuffle` puts into place
# (the paper enlarges the scores).
#
# There are five arms: no attention (the same convolutions), channel attention alone with each sign,
# position attention alone, and both attentions, with the paper's sign. Two seeds each, and four for
# channel attention, whose runs differ; the same batches for all arms.


# %%
class Pixels(nn.Module):
    """A head with 4 K scores at a position, as K scores at 2 x 2 pixels."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x):
        scores = self.head(x)
        if isinstance(scores, tuple):
            return tuple(F.pixel_shuffle(one, 2) for one in scores)
        return F.pixel_shuffle(scores, 2)


def network(branches, sign="paper"):
    head = DualAttentionHead(
        32, 4 * 3, reduction=2, branches=branches or "position", sign=sign, query_reduction=2
    )
    if branches is None:
        head.sa = nn.Identity()  # sa attends to positions (spatial), sc to channels
    return Pixels(head)


def total_loss(scores, target):
    return auxiliary_cross_entropy(scores, target, weight=1.0)


ARMS = {
    "no attention": {"branches": None},
    "channel, +E": {"branches": "channel"},
    "channel, -E": {"branches": "channel", "sign": "program"},
    "position": {"branches": "position"},
    "both": {"branches": "both"},
}
models = {}
for arm, settings in ARMS.items():
    models[arm] = []
    for seed in range(4 if "channel" in arm else 2):
        mt.manual_seed(seed)
        model = network(**settings)
        train(model, f_train, t_train, epochs=6, seed=seed, loss=total_loss)
        models[arm].append(model)

# %%
predicted = {arm: [run(m, f_test).argmax(axis=1) for m in runs] for arm, runs in models.items()}
overlaps = {
    arm: np.array([intersection_over_union(confusion_matrix(p, t_test, 3)) for p in masks])
    for arm, masks in predicted.items()
}
print("IoU, mean of the seeds   background  like the lit  other ink")
for arm, overlap in overlaps.items():
    print(f"{arm:24} {'  '.join(f'{value:10.1f}' for value in overlap.mean(axis=0))}")

mean = {arm: 100 * overlap.mean(axis=1) for arm, overlap in overlaps.items()}  # by seed
viz.plot_arms({arm: list(runs) for arm, runs in mean.items()}, label="mean IoU, %")

# %%
without = mean["no attention"]
assert np.ptp(without) < 3 and min(mean["position"]) > max(without) + 8
assert (mean["both"] > mean["position"]).all()
for arm in "channel, +E", "channel, -E":
    assert mean[arm].max() > max(without) + 8 and mean[arm].min() < max(without) + 3

# %% [markdown]
# *Figure 6. A dot is one seed, the bar their mean. Position attention helps, by about eleven points. Channel
# attention, with either sign, helps as much on some seeds and hardly or not at all on others; its
# mean lies where no run does. With both attentions the network is a little better than with positions
# alone.*
#
# And without attention? Compare it with our guess, for the ink that it found itself:

# %%
for seed, mask in enumerate(predicted["no attention"]):
    guessed = np.where(mask > 0, np.where(on_lit_tile, 1, 2), 0)
    print(f"seed {seed}: {100 * (mask == guessed).mean():.0f} % of the pixels as guessed,", end=" ")
    print(f"mean IoU of such a guess {mean_iou(confusion_matrix(guessed, t_test, 3)):.2f}")
    assert (mask == guessed).mean() > 0.98

# %% [markdown]
# It does what we guessed: the lit digit orange, all others blue; what it lost against our guess it lost at
# the edges of the ink, as all arms do. Yet its window is 21 pixels wide, 13 by the backbone and 8 more
# by the head's two convolutions: it holds much of the neighbouring digits. To see is not to compare.
#
# Why does channel attention hang on the seed? Look at the $\gamma$ that were learned, and at the gain that
# came with them:

# %%
for arm, sign in ("channel, +E", 1), ("channel, -E", -1):
    gamma = np.array([model.head.sc.gamma.item() for model in models[arm]])
    gain = mean[arm] - without.mean()
    for g, points in zip(gamma, gain, strict=True):
        print(f"{arm}: gamma {np.round(g, 1) + 0:4.1f}, gain {np.round(points) + 0:2.0f} points")
    assert ((gain > 7) == (sign * gamma > 0.3)).all() and ((gain > 7) | (gain < 3)).all()

# %% [markdown]
# It starts at zero, and has to find out which way to go. In these runs all that gain with the paper's sign
# have a positive $\gamma$: they *add* the channel that goes best with them. All that gain with the program's
# have a negative one: they *subtract* the channels that go least with them, and gain as much. Either sign
# can be of use. The others stay nearer to zero, or go the other way, and are about as good as without.
#
# Eight runs are no law. Behind a backbone that was trained from another seed, one run with the program's sign
# gained half as much, with a positive $\gamma$. What holds in all that we tried: position attention gains, and
# a channel attention whose $\gamma$ stays near zero does not.
#
# (In the paper's experiments channel attention gains four points on street scenes, published with a
# program that has the sign $-E$.)

# %%
chosen = [
    int(i) for i in np.flatnonzero((predicted["both"][0] == t_test).mean(axis=(1, 2)) > 0.9)[:4]
]
shown = [x_test[chosen].repeat(3, axis=1)]
shown += [
    coloured(masks[chosen])
    for masks in (t_test, predicted["no attention"][0], predicted["both"][0])
]
accuracy = {
    arm: (predicted[arm][0][chosen] == t_test[chosen]).mean() for arm in ("no attention", "both")
}
assert accuracy["both"] > accuracy["no attention"]
titles = ["picture"] * 4 + ["mask"] * 4 + ["no attention"] * 4 + ["both"] * 4
viz.show_images(apart(np.concatenate(shown)), titles, columns=4)

# %% [markdown]
# *Figure 7. Four pictures that the network with both attentions does well, chosen for that. Without
# attention the lit digit is orange, and nearly all the rest blue.*

# %% [markdown]
# ### Where the positions look
#
# A forward hook on `weights` gives the map: row $i$ holds what position $i$ looks at. We add up what the
# rows of ink positions give to the lit digit, on one side for the digit that is like it, on the other for
# the two that are not.


# %%
def maps_of(model, part):
    """The maps that an attention of the head makes of the test features."""
    seen = []
    with part.weights.register_forward_hook(lambda module, inputs, w: seen.append(w.numpy())):
        run(model, f_test)
    return np.concatenate(seen)


owner = at_positions(np.arange(4)[None])[0].ravel()  # (64,): which digit is at a position
has_ink = t_test.reshape(-1, 8, 2, 8, 2).max(axis=(2, 4)).reshape(-1, 64) > 0
lit_at = lit.argmax(axis=1)
like = (classes == classes[lit][:, None])[:, owner]  # (N, 64): is the digit here like the lit one?
unlit = ~lit[:, owner]

to_lit = []  # by seed: from like, from unlike digits
for seed, model in enumerate(models["position"]):
    P = maps_of(model, model.head.sa)
    given = (P * (owner == lit_at[:, None])[:, None]).sum(axis=2)  # (N, 64): to the lit digit
    to_lit.append([given[has_ink & unlit & like].mean(), given[has_ink & unlit & ~like].mean()])
    print(
        f"seed {seed}: a like digit gives {to_lit[-1][0]:.1f} of its attention to the lit one,",
        end=" ",
    )
    print(f"an unlike digit {to_lit[-1][1]:.1f}")
to_lit = np.array(to_lit)
assert (to_lit[:, 1] - to_lit[:, 0] > 0.3).all()

# %%
model = models["position"][0]
P = maps_of(model, model.head.sa)
given = (P * (owner == lit_at[:, None])[:, None]).sum(axis=2)
is_right = (predicted["position"][0] == t_test).mean(axis=(1, 2))
n = int(is_right.argmax())  # the picture that this network does best
places = [
    int(np.flatnonzero(has_ink[n] & unlit[n] & (like[n] == alike))[4]) for alike in (True, False)
]
figure, axes = viz.panels(1, 3, height=2.8)
axes[0].imshow(x_test[n, 0], cmap="gray", vmin=0, vmax=1)
axes[0].set_title("picture")
for ax, i, title in zip(axes[1:], places, ("from a like digit", "from an unlike digit")):
    ax.imshow(0.4 + 0.6 * x_test[n, 0], cmap="gray", vmin=0, vmax=1)
    overlay = ax.imshow(
        P[n, i].reshape(8, 8), cmap="viridis", alpha=0.6, vmin=0, extent=(-0.5, 15.5, 15.5, -0.5)
    )
    ax.plot(
        2 * (i % 8) + 0.5,
        2 * (i // 8) + 0.5,
        "o",
        markersize=9,
        markerfacecolor="none",
        color="white",
    )
    ax.set_title(title)
for ax in axes:
    ax.set_axis_off()
assert given[n, places[1]] - given[n, places[0]] > 0.3 and lit_at[n] == 3
figure

# %% [markdown]
# *Figure 8. Two rows of the map over the picture, each of the position in the circle; the brighter, the
# more weight. The lit digit is at the lower right: only the unlike digit looks at it.*
#
# One might have expected that like looks at like. Nobody asked for it: the network was told only which ink
# is orange. With both seeds it learned something as good, and the other way round: an *unlike* digit looks
# at the lit one, and a like one looks elsewhere, in the picture above at the digits that are not like it.
# Either way what comes back says whether the digit here is like the lit one.

# %%
for arm in "position", "both":
    for seed, model in enumerate(models[arm]):
        positions = model.head.sa.gamma.item()
        print(f"{arm:8} seed {seed}: gamma of the positions {positions:+.1f}")
        assert abs(positions) > 0.2
assert all(abs(model.head.sc.gamma.item()) < 0.1 for model in models["both"])

# %% [markdown]
# Some $\gamma$ are negative: it is no probability, and it may subtract. So a map by itself does not say
# what a network makes of what it looks at. And where both attentions are there, the $\gamma$ of the channels
# has stayed below 0.1 with both seeds. What "both" is ahead of "position" it hardly owes to the channels'
# map; its second branch has convolutions and scores as well.

# %% [markdown]
# ### What the channels look at
#
# The maps of the trained channel attentions, for one test picture:

# %%
figure, axes = viz.panels(1, 2, height=3.2)
saturated = {}
for ax, arm in zip(axes, ("channel, +E", "channel, -E")):
    P = np.concatenate([maps_of(model, model.head.sc) for model in models[arm]])
    saturated[arm] = P.max(axis=2).mean(), np.diagonal(P, axis1=1, axis2=2).mean()
    image = ax.imshow(P[0], cmap="viridis", vmin=0, vmax=1)
    ax.set(title=arm, xlabel="looked at", ylabel="looking channel")
figure.colorbar(image, ax=axes, label="weight")
for arm, (largest, itself) in saturated.items():
    print(f"{arm}: the largest weight of a row is {largest:.1f} on average,", end=" ")
    print(f"that on itself {itself:.1f}")
assert saturated["channel, +E"][0] > 0.8 > 0.6 > saturated["channel, +E"][1]
assert saturated["channel, -E"][1] < 0.05
figure

# %% [markdown]
# *Figure 9. With the paper's sign most rows have nearly all their weight on one channel, and in many that
# is another channel. With the program's the weight is spread over a few channels, hardly ever itself:
# those whose product with it is smallest.*
#
# So the paper's map saturates, as derived, but it is not the identity. The features come out of a ReLU, and
# are not equally loud: a channel may have a larger product with a louder one than with itself. A map that is
# all or nothing can still be useful: at each position, a channel takes over what the one it goes best with
# has to say. Which one that is, the whole picture decides.

# %% [markdown]
# ## Paper and code
#
# | | paper | authors' program | here |
# |---|---|---|---|
# | sign of the channel map | $+E$ (equation 3) | $\max E - E$, which is $-E$ | `sign="paper"`, `"program"` |
# | channels D of queries and keys | $C$ | $C / 8$ | `reduction=8`, can be set |
# | divided by $\sqrt{D}$ | no | no | no |
# | scalars | $\alpha$ and $\beta$ | both `gamma` | `gamma` |
# | losses | three, added | three | `auxiliary_cross_entropy(..., weight=1.0)` |
# | in front of the scores | | a tenth of the channels dropped (`Dropout2d`) | `dropout=0.1` |
#
# Mean IoU on the street scenes of Cityscapes (validation, ResNet-50; table 1 of the paper): 70.0 without
# attention, 75.7 with positions, 74.3 with channels, 76.3 with both.
#
# ### A backbone that keeps its places
#
# A ResNet leads from an image to a map of $1/32$ of its height and width: too coarse for a mask. DANet's
# last two stages do not halve; the 3x3 kernels behind the missing halvings are *dilated* instead, spread by
# 2 and then by 4, so that each sees what it saw before (lesson 05). A stage's first 3x3 kernel is the one
# that would have halved: it still reads what comes before, and keeps the dilation from there. The map has
# $1/8$, sixteen times as many positions, and the parameters stay what they were, so that a trained ResNet
# fits.

# %%
dilated = DilatedResNet((3, 4, 6, 3))
print(
    f"{sum(p.numel() for p in dilated.parameters()):,} parameters, those of ResNet-50 but the classifier's"
)
for number in 1, 2, 3, 4:
    blocks = getattr(dilated, f"layer{number}")
    print(f"stage {number}: stride {blocks[0].conv2.stride[0]},", end=" ")
    print("dilations", [block.conv2.dilation[0] for block in blocks])
assert sum(p.numel() for p in dilated.parameters()) == 23_508_032

# %% [markdown]
# ## Predict before you run
#
# **1.** A fresh position attention, its first step. Which of its parameters get a gradient? And in the
# second step, after $\gamma$ has moved?

# %%
mt.manual_seed(0)
module, x = PositionAttention(16), mt.randn(2, 16, 4, 4)
target = mt.randn(2, 16, 4, 4)
for step in "first", "second":
    module.zero_grad()
    F.mse_loss(module(x), target).backward()
    found = [n for n, p in module.named_parameters() if np.abs(p.grad.data).max() > 1e-12]
    print(f"{step} step:", ", ".join(found))
    module.gamma.data = module.gamma.data - 0.1 * module.gamma.grad.data

# %% [markdown]
# <details><summary>Answer</summary>
#
# In the first only $\gamma$: everything else is reached through it, and it is zero. In the second all but
# the bias of the keys. That adds $q_i \cdot b$ to all of row $i$, which a softmax does not see: it has no
# gradient, ever.
#
# </details>
#
# **2.** The pixels of the input are shuffled, in every channel in the same way. What happens to the
# channel map?

# %%
module, seen = ChannelSelfAttention(16), []
module.weights.register_forward_hook(lambda part, inputs, w: seen.append(w.data))
order = np.random.default_rng(0).permutation(16)
shuffled = mt.tensor(x.data.reshape(2, 16, 16)[:, :, order].reshape(2, 16, 4, 4))
module(x), module(shuffled)
print("the channel map stays:", np.allclose(*seen))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Nothing. $E_{cd}$ is a sum over positions, and a sum does not know their order. The channels compare
# *when they speak together*, wherever that is. The position map would be shuffled, rows and columns.
#
# </details>
#
# **3.** A predicted mask is background everywhere. More than half of its pixels are right. What is its mean
# IoU?

# %%
M = confusion_matrix(np.zeros_like(t_test), t_test, 3)
print(f"right pixels {np.trace(M) / M.sum():.2f}, mean IoU {mean_iou(M):.2f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# One third of the share of right pixels: the background's IoU is that share, as the union is the whole
# picture, and the two other classes have 0.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`19_dual_attention`](../exercises/19_dual_attention.ipynb):
#
# 1. **channel_map**: the map of the channels, with either sign.
# 2. **channel_attention**: with its rules; `x` appears three times.
# 3. **position_attention**: from queries, keys and values to the output, with all rules.
# 4. **mean_iou**: from two masks to a number.
# 5. **PositionAttention**: the module.

# %% [markdown]
# ## What to remember
#
# - $P = \mathrm{softmax}(q^\top k)$ weighs positions, $P = \mathrm{softmax}(x x^\top)$ channels; both add
#   $\gamma\, o$ to $x$, and $\gamma$ starts at 0.
# - Behind $\gamma$ the channel form has $x$ three times: $dx = dy + P^\top do + dE\, x + dE^\top x$.
# - Check a rule at $\gamma \ne 0$: at zero, whatever is wrong behind $\gamma$ passes.
# - The program's channel map has the opposite sign of the paper's. The plain form grows with $L$ and ends at
#   all or nothing.
# - Attention helps where the class of a pixel is decided elsewhere. What a map shows is not yet what the
#   network makes of it: a negative $\gamma$ turns it round.

# %% [markdown]
# ## Sources
#
# - J. Fu, J. Liu, H. Tian, Y. Li, Y. Bao, Z. Fang, H. Lu, *Dual Attention Network for Scene Segmentation*,
#   CVPR 2019: equations 1 to 4, figure 2, table 1; and the program that its authors published.
# - F. Yu, V. Koltun, *Multi-Scale Context Aggregation by Dilated Convolutions*, ICLR 2016.
# - X. Wang, R. Girshick, A. Gupta, K. He, *Non-local Neural Networks*, CVPR 2018.
