# %% [markdown]
# # 12 · Local and global recalibration
#
# Four layers, a fully-connected one, a convolution, attention and recalibration, written as one formula
# with four choices of weights.
#
# **You will be able to**
#
# - write each of the four as $y_i = \sum_j w_{ij}(x)\, x_j$, and say which positions it looks at and
#   whether its weights are fixed or made from the input;
# - derive one backward for all of them, and tell which part of it fixed weights do without;
# - predict what each costs as the image grows, and what it does when the input is shifted, shuffled or
#   scaled.
#
# **You need** lessons 01 to 08: primitives, gradient checks, modules, convolution. Attention is introduced
# here as far as it is needed; lesson 11 derives it.
#
# **Time** about 40 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.data import DataLoader, TensorDataset, digits
from minitorch_attn.training import fit
from minitorch_attn.viz.heatmap import heat_map

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# A handwritten digit passes through four fixed filters, each of which answers to edges in one direction; of
# their answers we take the magnitude. That gives a feature map of $C = 4$ channels on $8 \times 8$ positions.
#
# We number the positions row by row, $i = 0, \dots, L - 1$ with $L = HW = 64$, and write $x_i$ for the
# vector of the four channels at position $i$. The feature map is then a table `x` of shape $(L, C)$.

# %%
image = digits()[:][0][1]  # (1, 8, 8)
rows = np.array([[-1.0, -1, -1], [0, 0, 0], [1, 1, 1]])
diagonal = np.array([[-1.0, -1, 0], [-1, 0, 1], [0, 1, 1]])
kernels = np.stack([rows, diagonal, rows.T, diagonal[:, ::-1]])[:, None]  # (4, 1, 3, 3)
edges = F.conv2d(mt.tensor(image[None]), mt.tensor(kernels), padding=1).abs()  # (1, 4, 8, 8)

H, W, C = 8, 8, 4
L = H * W
x = edges.numpy().reshape(C, L).T.copy()  # (L, C): one row for each position
assert x.shape == (64, 4) and np.allclose(x[8 * 3 + 2], edges.numpy()[0, :, 3, 2])

figure, axes = viz.panels(1, 5, height=2.1)
axes[0].imshow(image[0], cmap="gray")
axes[0].set(xticks=[], yticks=[], title="digit")
directions = "horizontal", "rising", "vertical", "falling"
for ax, channel, direction in zip(axes[1:], edges.numpy()[0], directions, strict=True):
    heat_map(ax, channel, cmap="viridis", vmin=0, vmax=3, bar=ax is axes[-1])
    ax.set_title(direction)
figure

# %% [markdown]
# *Figure 1. A digit, and its feature map of four channels, on which the lesson works up to the experiment.*
#
# A layer makes a new vector $y_i$ for each position out of the old ones. All four layers of this lesson do
# it by the same formula, a weighted sum over positions:
#
# $$y_i = \sum_{j} w_{ij}\, x_j$$
#
# We call it *the frame*. What differs is the table of weights $w$, of shape $(L, L)$: which entries may differ
# from zero, and where they come from. A layer whose $y_i$ hears of a few positions around $i$ alone is *local*, one
# whose $y_i$ hears of all of them is *global*.
#
# Here are four such tables, made by four short functions; the equations behind them come in the next section. All
# parameters (the fully-connected weights, the kernel, and `u` and `v` of the gates) are drawn at random, as before
# a training.


# %%
def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def softmax(e):
    """Rows of e become positive and sum up to 1."""
    exponentials = np.exp(e - e.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def fully_connected_weights(w):
    """Any table (L, L) at all."""
    return w


def convolution_weights(kernel, H, W):
    """kernel (R, S), odd -> (HW, HW): position j counts for i by where it lies as seen from i."""
    R, S = kernel.shape
    row, column = np.divmod(np.arange(H * W), W)
    r = row - row[:, None] + R // 2  # (L, L): row of the kernel that i uses for j
    s = column - column[:, None] + S // 2
    inside = (0 <= r) & (r < R) & (0 <= s) & (s < S)
    return np.where(inside, kernel[r.clip(0, R - 1), s.clip(0, S - 1)], 0)


def attention_weights(x, scale):
    """x (L, C) -> (L, L): the larger the dot product of x_i and x_j; each row sums up to 1."""
    return softmax(scale * x @ x.T)


def gates(x, u, v, b):
    """x (L, C), u and v (C, C), b (C) -> (L, C), each between 0 and 1."""
    z = x.mean(axis=0)
    return sigmoid(x @ u.T + z @ v.T + b)


# %%
rng = np.random.default_rng(1)
full = rng.normal(size=(L, L)) / np.sqrt(L)
kernel = rng.normal(size=(3, 3)) / 3
u, v, b = rng.normal(size=(C, C)), rng.normal(size=(C, C)), np.zeros(C)
g = gates(x, u, v, b)

tables = {
    "fully connected": fully_connected_weights(full),
    "convolution": convolution_weights(kernel, H, W),
    "attention": attention_weights(x, scale=0.25),
    "recalibration": np.diag(g[:, 0]),  # for the first channel
}

figure, axes = viz.panels(2, 2, height=7.6)
for ax, (name, table) in zip(axes.ravel(), tables.items(), strict=True):
    limit = np.abs(table).max()
    heat_map(ax, table, cmap="RdBu_r", vmin=-limit, vmax=limit, bar=False)
    ax.set(title=name, xlabel="j", ylabel="i")
figure

# %%
i, j = np.indices((L, L))
near = (abs(i // W - j // W) <= 1) & (abs(i % W - j % W) <= 1)
assert (tables["fully connected"] != 0).all() and (tables["attention"] > 0).all()
assert ((tables["convolution"] != 0) == near).all()
assert ((tables["recalibration"] != 0) == (i == j)).all()
for name, table in tables.items():
    print(f"{name:16} {np.count_nonzero(table):5,} of {table.size:,} weights are not zero")

# %% [markdown]
# *Figure 2. The table $w$ of each layer, $i$ downwards and $j$ to the right; red is positive, blue
# negative, white zero, each in its own scale. Full, banded, full again, diagonal. The bands of the
# convolution are three groups of three: the row above, the own row, the row below. For recalibration it is the table
# of the first channel; each channel has a diagonal of its own.*
#
# One row of the table belongs to one output position. Folded back to $8 \times 8$ it says where that
# position looks. We choose a position on the stroke of the digit:

# %%
chosen = 8 * 3 + 4

figure, axes = viz.panels(1, 5, height=2.2)
axes[0].imshow(image[0], cmap="gray")
axes[0].set(xticks=[], yticks=[], title="digit")
for ax, (name, table) in zip(axes[1:], tables.items(), strict=True):
    limit = np.abs(table[chosen]).max()
    seen = table[chosen].reshape(H, W)
    heat_map(ax, seen, cmap="RdBu_r", vmin=-limit, vmax=limit, bar=False)
    ax.set_title(name)
for ax in axes:
    ax.plot(chosen % W, chosen // W, marker="s", markersize=11, color="#009E73", fillstyle="none")

attended = tables["attention"][chosen]
likeness = x @ x[chosen]
assert attended.argmax() == likeness.argmax() and attended.min() > 0
assert (np.diff(attended[likeness.argsort()]) >= 0).all()
assert x[chosen].argmax() == x[attended.argmax()].argmax() == 2  # vertical
assert attended.max() > 3 / L and 1 / L < attended[chosen] < attended.max() / 2
figure

# %% [markdown]
# *Figure 3. What the position in the green frame looks at, each in its own scale. Fully connected: everything, with
# weights that have nothing to do with the picture. Convolution: its eight neighbours and itself. Attention:
# everything, and most of all strong upright edges, wherever they are. Recalibration: itself alone.*
#
# The position has an upright edge of its own, but a weaker one, and so gives itself less than half of the largest
# weight: a dot product grows with the likeness of two vectors *and* with their lengths.

# %% [markdown]
# ## The equations
#
# ### Four choices of $w$
#
# Weights are called *fixed* here if they are the same for every input: parameters, which a training changes, but no
# input does.
#
# **Fully connected.** Every $w_{ij}$ is a parameter of its own:
#
# $$w_{ij} = (\text{parameter})_{ij}$$
#
# **Convolution.** The weight depends only on where $j$ lies as seen from $i$, and is zero outside a
# small window. Let position $i$ have row $p_i$ and column $q_i$; for a kernel $k$ of shape $(R, S)$ with odd
# sides,
#
# $$w_{ij} = k_{rs} \quad \text{with} \quad r = p_j - p_i + \lfloor R/2 \rfloor, \quad
# s = q_j - q_i + \lfloor S/2 \rfloor, \qquad \text{and } 0 \text{ where the kernel has no such } r, s$$
#
# **Attention.** The weight is made from the input: it compares $x_i$ with $x_j$ by their dot product, which
# is large for vectors that are long and point the same way. The *softmax* makes positive weights of
# the numbers $e_{ij}$ that sum up to 1 over $j$. With a fixed number $t$, the scale,
#
# $$e_{ij} = t\, x_i \cdot x_j, \qquad w_{ij} = \frac{\exp e_{ij}}{\sum_{k} \exp e_{ik}}$$
#
# That is all we need of it here. Why a softmax, which scale, and what learned maps of $x_i$ and $x_j$ in front
# of the dot product are for: lesson 11 derives it.
#
# **Recalibration.** No other position enters the sum. What is there is multiplied by a *gate*, made of
# what is here, $x_i$, and of the *context*, the mean $z$ of all positions. With weights $U$ and $V$ of
# shape $(C, C)$ and a bias $b$ of shape $(C)$,
#
# $$z = \frac{1}{L} \sum_j x_j, \qquad a_i = U x_i + V z + b, \qquad g_i = \sigma(a_i), \qquad
# y_i = g_i \odot x_i$$
#
# with $\odot$ for the product channel by channel, and $\sigma$ for the sigmoid. $U x_i$ is the local part of the
# gate, $V z$ the global one: hence the lesson's title. In the frame: $w_{ij} = g_i$ for $j = i$, else 0, one diagonal
# table for each channel.
#
# | | which $j$ | weights | $w$ depends on |
# |---|---|---|---|
# | fully connected | all | fixed | the places $i$ and $j$ |
# | convolution | a window around $i$ | fixed | the step from $i$ to $j$ |
# | attention | all | made from the input | what is at $i$, at $j$, and (in the denominator) at the rest |
# | recalibration | $i$ itself | made from the input | what is at $i$, and the mean of all |
#
# A real layer mixes the channels as well: a full convolution, for example, has a matrix $A_{rs}$ of shape $(C, C)$ in
# the place of each number $k_{rs}$. That costs more and changes nothing about who looks at whom, so we leave it to one
# linear map in front, $x_j \mapsto A x_j$, the same for all four.

# %% [markdown]
# ### One backward
#
# As in all lessons, $dy$ stands for the gradient of the loss with respect to $y$, here of shape $(L, C)$, and
# likewise $dx$ and $dw$. The sum $y_i = \sum_j w_{ij}
# x_j$ has two factors, and the product rule gives two gradients.
#
# **The values.** $x_j$ enters every $y_i$, with weight $w_{ij}$:
#
# $$dx_j = \sum_i w_{ij}\, dy_i \qquad \text{as matrices } dx = w^\top dy$$
#
# **The weights.** $w_{ij}$ multiplies all channels of $x_j$ into $y_i$:
#
# $$dw_{ij} = dy_i \cdot x_j \qquad \text{as matrices } dw = dy\, x^\top$$
#
# What becomes of $dw$ is what tells the layers apart.
#
# - *Fully connected*: $dw$ is the parameter's gradient, and that is all.
# - *Convolution*: one tap $k_{rs}$ stands in many places of $w$, so its gradient is the sum of $dw_{ij}$ over
#   them (the chain rule for something that is used many times).
# - *Attention* and *recalibration* made $w$ from $x$: the gradient goes on, through $w$, to $x$. This second
#   path adds to the first.
#
# **Attention's second path.** The derivative of a softmax is $\partial w_{ij} / \partial e_{ik} = w_{ij}
# (\delta_{jk} - w_{ik})$, where $\delta_{jk}$ is 1 for $j = k$ and else 0. (Differentiate the quotient: the
# numerator gives the first term, the denominator the second.) Summed up over $j$ with $dw_{ij}$:
#
# $$de_{ik} = w_{ik} \Big( dw_{ik} - \sum_j dw_{ij}\, w_{ij} \Big)$$
#
# In $e_{ij} = t\, x_i \cdot x_j$ a vector takes part twice: as the one who looks ($i$), and as the one
# looked at ($j$). With both,
#
# $$dx_m = \underbrace{\sum_i w_{im}\, dy_i}_{\text{values}} + \underbrace{t \sum_j de_{mj}\,
# x_j}_{\text{looking}} + \underbrace{t \sum_i de_{im}\, x_i}_{\text{looked at}}
# \qquad \text{as matrices } \boxed{\; dx = w^\top dy + t\, (de + de^\top)\, x \;}$$
#
# **Recalibration's second path.** Here $dw$ has only its diagonal, and each channel a gate of its own:
# $dg_i = dy_i \odot x_i$. The sigmoid's slope is $\sigma' = \sigma (1 - \sigma)$:
#
# $$da_i = dg_i \odot g_i \odot (1 - g_i)$$
#
# $a_i = U x_i + V z + b$ hands it on. $U$, $V$, $b$ and $z$ take part at every position, so each sums over $i$:
#
# $$dU = \sum_i da_i\, x_i^\top, \qquad db = \sum_i da_i, \qquad dV = \Big(\sum_i da_i\Big) z^\top, \qquad
# dz = V^\top \sum_i da_i$$
#
# $x_j$ takes part in $y_j$, in $a_j$, and with weight $1/L$ in the mean $z$. The three paths add up:
#
# $$\boxed{\; dx_j = \underbrace{g_j \odot dy_j}_{\text{values}} + \underbrace{U^\top da_j}_{\text{what is
# here}} + \underbrace{\tfrac{1}{L}\, dz}_{\text{the context}} \;}$$
#
# The last term is the same for every $j$. Though $w$ is diagonal, every position feels every other.

# %% [markdown]
# ## The code
#
# First the frame as loops, for any table of weights; then as one matrix product.


# %%
def mix_loops(w, x):
    """w (L, L), x (L, C) -> y (L, C)."""
    y = np.zeros_like(x)
    for i in range(len(x)):
        for j in range(len(x)):
            for c in range(x.shape[1]):
                y[i, c] += w[i, j] * x[j, c]
    return y


for name, table in tables.items():
    print(f"{name:16} loops and matrix product agree:", np.allclose(mix_loops(table, x), table @ x))

# %% [markdown]
# Nobody multiplies by a table of zeros: the library's convolution slides a kernel, and a gate is one product
# for each number. The results are the same.

# %%
as_maps = edges.reshape(C, 1, H, W)  # each channel by itself
slid = F.conv2d(as_maps, mt.tensor(kernel[None, None]), padding=1).numpy().reshape(C, L).T
linear = F.linear(mt.tensor(x.T), mt.tensor(full)).numpy().T
scores = mt.tensor(x) @ mt.tensor(x.T) * 0.25
attended = (F.softmax(scores, dim=1) @ mt.tensor(x)).numpy()
per_channel = np.stack([np.diag(g[:, c]) @ x[:, c] for c in range(C)], axis=1)

print("fully connected:", np.allclose(linear, tables["fully connected"] @ x))
print("convolution:    ", np.allclose(slid, tables["convolution"] @ x))
print("attention:      ", np.allclose(attended, tables["attention"] @ x))
print("recalibration:  ", np.allclose(g * x, per_channel))

# %% [markdown]
# The two whose weights are made from the input, in the form of primitives, with the rules derived above:


# %%
def attend(x, *, scale):
    """y = softmax(scale x x^T) x.  x (L, C) -> y (L, C), and the rule of x."""
    w = softmax(scale * x @ x.T)

    def vjp_x(dy):
        dw = dy @ x.T
        de = w * (dw - (dw * w).sum(axis=1, keepdims=True))
        return w.T @ dy + scale * (de + de.T) @ x

    return w @ x, vjp_x


def recalibrate(x, u, v, b):
    """y_i = sigmoid(U x_i + V z + b) x_i with z the mean of x.  (L, C) -> (L, C), and the rules."""
    z = x.mean(axis=0)
    g = sigmoid(x @ u.T + z @ v.T + b)

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


# %% [markdown]
# ### Who depends on whom
#
# The table $w$ says what is *added up*. What an output *depends on* is another question, and its
# answer is the gradient. Under `mt.primitive` the functions take tensors; then one reverse pass from $y_i$
# gives its gradient with respect to every position of the input. We draw its size, the sum of the
# magnitudes over the channels:

# %%
layers = {
    "fully connected": lambda x: mt.tensor(full) @ x,
    "convolution": lambda x: mt.tensor(tables["convolution"]) @ x,
    "attention": lambda x: mt.primitive(attend)(x, scale=0.25),
    "recalibration": lambda x: mt.primitive(recalibrate)(x, u, v, b),
}


def influence(layer, x, i):
    """How strongly each position of x acts on y_i: (L,)."""
    x = mt.tensor(x, requires_grad=True)
    y = layer(x)
    total = np.zeros(len(x))
    for c in range(C):
        x.zero_grad()
        dy = np.zeros(y.shape)
        dy[i, c] = 1
        y.backward(dy, retain_graph=True)
        total += np.abs(x.grad.numpy()).sum(axis=1)
    return total


influences = {name: influence(layer, x, chosen) for name, layer in layers.items()}
figure, axes = viz.panels(1, 4, height=2.6)
for ax, (name, strength) in zip(axes, influences.items(), strict=True):
    shown = np.log10(np.where(strength > 0, strength, np.nan)).reshape(H, W)
    heat_map(ax, shown, cmap="viridis", vmin=-4, vmax=1, bar=ax is axes[-1], label="log10")
    ax.set_title(name)
    ax.plot(chosen % W, chosen // W, marker="s", markersize=13, color="#D55E00", fillstyle="none")
figure

# %%
for name, strength in influences.items():
    weights = np.count_nonzero(tables[name][chosen])
    print(f"{name:16} adds up {weights:2}, depends on {np.count_nonzero(strength):2} positions")

context = np.delete(influences["recalibration"], chosen)
assert np.allclose(context, context[0]) and context[0] > 0
assert np.count_nonzero(influences["convolution"]) == 9
assert influences["recalibration"][chosen] > 10 * context[0]

# %% [markdown]
# *Figure 4. The gradient of one output position (red frame), on a logarithmic scale; grey is exactly zero.
# The convolution depends on nine positions, the other three on all sixty-four. Recalibration adds up one of them, and
# depends on the others weakly and on all alike, as they act through the mean alone.*
#
# The convolution is local, the other three are global. And of the two whose weights are made from the input, attention
# *fetches* from elsewhere, while recalibration lets elsewhere decide *how much of here to keep*.

# %% [markdown]
# ### Shift, shuffle, scale
#
# What does a layer do with a changed input? Let $T$ be a change: shift the picture by one column, shuffle the
# positions, or double all values. If $f(Tx) = T f(x)$, the layer is *equivariant* to $T$: it does not
# matter whether $T$ comes before or behind it. For the shift we put the digit into a larger empty frame, so that
# nothing falls off.

# %%
framed = np.zeros((12, 12, C))
framed[2:10, 2:10] = x.reshape(H, W, C)
framed = framed.reshape(144, C)
wide, banded = rng.normal(size=(144, 144)) / 12, convolution_weights(kernel, 12, 12)
on_frames = layers | {"fully connected": lambda x: wide @ x, "convolution": lambda x: banded @ x}

order = rng.permutation(144)
changes = {
    "shift": lambda x: np.roll(x.reshape(12, 12, C), 1, axis=1).reshape(144, C),
    "shuffle": lambda x: x[order],
    "scale": lambda x: 2 * x,
}


def is_equivariant(layer, change):
    before, after = layer(mt.tensor(change(framed))), layer(mt.tensor(framed))
    return np.allclose(mt.as_tensor(before).data, change(mt.as_tensor(after).data))


respected = {
    name: [is_equivariant(layer, change) for change in changes.values()]
    for name, layer in on_frames.items()
}
print(f"{'':16}", *(f"{name:8}" for name in changes))
for name, answers in respected.items():
    print(f"{name:16}", *(f"{'yes' if answer else 'no':8}" for answer in answers))

assert respected == {
    "fully connected": [False, False, True],
    "convolution": [True, False, True],
    "attention": [True, True, False],
    "recalibration": [True, True, False],
}

# %% [markdown]
# The fully-connected layer treats every place in its own way: what it learned at one place it does not know
# at another. A convolution treats all places alike, and knows of a neighbour on which side it is. Attention and
# recalibration do not know of places at all: shuffle the positions, and the results are the same, shuffled. (A
# shift within the empty frame is such a shuffle, so they respect it too.) Fixed weights make a
# layer linear, and doubling comes out as doubling; weights made from the input do not.

# %% [markdown]
# ### What it costs
#
# Parameters and multiply-adds (products that are summed up) of the bare tables, for $L$ positions of $C$
# channels:
#
# | | parameters | multiply-adds |
# |---|---|---|
# | fully connected | $L^2$ | $L^2 C$ |
# | convolution, one $R \times S$ kernel | $RS$ | $RS\, L C$ |
# | attention | $0$ | $2 L^2 C$: the dot products, then the sum |
# | recalibration | $2 C^2 + C$ | $L C^2 + C^2$: a map of each $x_i$, one of $z$ |
#
# The layers of a network have parameters in each case. These are the four that go to work below, made so that they
# have about as many. Attention gets something to learn: a linear map for those who look (*queries*) and one for those
# looked at (*keys*). And the convolution mixes its channels in groups of four.


# %%
class FullyConnected(nn.Module):
    """w is a parameter.  (N, L, C) -> (N, L, C)."""

    def __init__(self, positions, channels):
        super().__init__()
        self.weight = nn.Parameter(mt.randn(positions, positions) / positions**0.5)

    def forward(self, x):
        return self.weight @ x


class Convolution(nn.Module):
    """3 x 3 windows on a square map, in groups of 4 channels.  (N, L, C) -> (N, L, C)."""

    def __init__(self, positions, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels // 4, bias=False)

    def forward(self, x):
        N, L, C = x.shape
        side = round(L**0.5)
        y = self.conv(x.permute(0, 2, 1).reshape(N, C, side, side))
        return y.reshape(N, C, L).permute(0, 2, 1)


class Attention(nn.Module):
    """w = softmax(query(x) key(x)^T / sqrt(C)).  (N, L, C) -> (N, L, C)."""

    def __init__(self, positions, channels):
        super().__init__()
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)

    def forward(self, x):
        scores = self.query(x) @ self.key(x).permute(0, 2, 1) / x.shape[2] ** 0.5
        return F.softmax(scores, dim=-1) @ x


class Recalibration(nn.Module):
    """g_i = sigmoid(U x_i + V z + b), y_i = g_i x_i.  (N, L, C) -> (N, L, C)."""

    def __init__(self, positions, channels):
        super().__init__()
        self.here = nn.Linear(channels, channels, bias=False)
        self.context = nn.Linear(channels, channels)

    def forward(self, x):
        z = x.mean(dim=1, keepdim=True)
        return F.sigmoid(self.here(x) + self.context(z)) * x


FRAME = {
    "fully connected": FullyConnected,
    "convolution": Convolution,
    "attention": Attention,
    "recalibration": Recalibration,
}

# %% [markdown]
# `mt.summary` counts both, here for 16 channels and growing square maps:

# %%
sides = [4, 8, 16, 32]
parameters, products = {}, {}
for name, layer in FRAME.items():
    counted = [mt.summary(layer(side**2, 16), (side**2, 16)) for side in sides]
    parameters[name] = [one.parameters for one in counted]
    products[name] = [one.multiply_adds for one in counted]
    print(f"{name:16} parameters    ", "".join(f"{n:12,}" for n in parameters[name]))
    print(f"{'':16} multiply-adds ", "".join(f"{n:12,}" for n in products[name]))

positions = np.array(sides) ** 2
assert products["fully connected"] == [n**2 * 16 for n in positions]
assert products["convolution"] == [9 * n * 16 * 4 for n in positions]
assert products["attention"] == [2 * n**2 * 16 + 2 * n * 16**2 for n in positions]
assert products["recalibration"] == [n * 16**2 + 16**2 for n in positions]

# %%
figure, axes = viz.panels(1, 2, height=3.2)
for ax, counts, title in zip(
    axes, (parameters, products), ("parameters", "multiply-adds"), strict=True
):
    for (name, values), colour in zip(counts.items(), viz.COLOURS, strict=False):
        ax.loglog(positions, values, color=colour, marker="o", label=name)
    ax.set(xlabel="positions L", title=title)
    ax.grid()
    ax.set_xticks(positions, [str(n) for n in positions])
    ax.minorticks_off()
axes[0].legend(fontsize=9, frameon=False)
figure

# %% [markdown]
# *Figure 5. Both as the image grows, on logarithmic scales. Only the fully-connected layer needs more
# parameters for a larger image (the other three lie close together, on level lines). In multiply-adds,
# it and attention grow with the square of the number of positions, convolution and recalibration in proportion.*
#
# That square is why attention between all positions of an image is dear, and what lesson 20 saves.

# %% [markdown]
# ## The gradient check
#
# The rules of attention and of recalibration against central differences (lesson 03), on small random inputs:

# %%
few = rng.normal(size=(5, 3))
report = mt.check_vjp(attend, few, scale=0.5)
print(report)
small = few, rng.normal(size=(3, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
print(mt.check_vjp(recalibrate, *small))

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 6. Left the gradient that attention's rule gives, in the middle the measured one, right the error: dark
# throughout, so they agree.*
#
# And now a mistake that comes naturally after fixed weights: the table $w$ is taken as given, and what goes through it
# is forgotten. In attention we leave out the whole second path, in recalibration its last part, the context.


# %%
def attend_as_if_fixed(x, *, scale):
    w = softmax(scale * x @ x.T)
    return w @ x, lambda dy: w.T @ dy


def gate_without_context(x, u, v, b):
    y, (vjp_x, *others) = recalibrate(x, u, v, b)

    def wrong_vjp_x(dy):
        context = others[2](dy) @ v / len(x)  # others[2] is the rule of b: the sum of da
        return vjp_x(dy) - context

    return y, (wrong_vjp_x, *others)


wrong = mt.check_vjp(attend_as_if_fixed, few, scale=0.5, raise_on_failure=False)
forgotten = mt.check_vjp(gate_without_context, *small, raise_on_failure=False)
print(wrong)
print(forgotten.inputs[0].diagnosis)
assert not wrong.ok and not forgotten.ok
assert [one.ok for one in forgotten.inputs] == [False, True, True, True]
assert "constant along axis 0" in forgotten.inputs[0].diagnosis

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 7. With attention's weights taken as fixed, the gradient is wrong nearly everywhere, here more and there less:
# what is missing depends on all pairs of positions.*
#
# For recalibration the diagnosis says more. What is missing there is the same for every position, constant along
# axis 0: that is the term $dz / L$ of the mean.

# %% [markdown]
# ## At work
#
# ### A task for the whole picture: figure and ground
#
# A picture is made of $5 \times 5$ handwritten digits. Most of them, the ground, are of one class; nine that lie
# together, the figure, are of another. Which nine? The classes are drawn anew for each picture, so a digit by
# itself says nothing. And near the border of the figure one sees *that* there are two sides; which of them is the
# smaller one, only the whole picture tells.

# %%
SIDE, CHANNELS = 5, 16
POSITIONS = SIDE**2
DIGITS = {"train": digits()[:], "test": digits(train=False)[:]}


def figure_and_ground(part, count, seed, columns=range(SIDE)):
    """Pictures (count, 25, 64), and 1 where a digit is of the figure (count, 25).

    The middle of the figure lies in one of `columns`.
    """
    rng = np.random.default_rng(seed)
    images, labels = DIGITS[part]
    row, column = np.divmod(np.arange(POSITIONS), SIDE)
    middle = SIDE * rng.integers(SIDE, size=(count, 1)) + rng.choice(list(columns), (count, 1))
    # the nine nearest to the middle: by rank, and at equal distance by chance
    distance = (row - row[middle]) ** 2 + (column - column[middle]) ** 2
    rank = (distance + 0.5 * rng.random((count, POSITIONS))).argsort(axis=1).argsort(axis=1)
    figure = rank < 9
    ground = rng.integers(10, size=(count, 1))
    shown = np.where(figure, (ground + rng.integers(1, 10, size=(count, 1))) % 10, ground)
    x = np.empty((count, POSITIONS, 64))
    for k in range(10):
        of_class = np.flatnonzero(labels == k)
        chosen = rng.choice(of_class, size=(shown == k).sum())
        x[shown == k] = images[chosen].reshape(-1, 64)
    return x, figure.astype(float)


pictures, figures = figure_and_ground("test", 2, seed=1)
assert (figures.sum(axis=1) == 9).all()


def side_by_side(picture):
    """(25, 64) -> one image (50, 50), with grey between the digits."""
    framed = np.full((SIDE, SIDE, 10, 10), 0.4)
    framed[:, :, 1:9, 1:9] = picture.reshape(SIDE, SIDE, 8, 8)
    return framed.swapaxes(1, 2).reshape(10 * SIDE, 10 * SIDE)


drawn, axes = viz.panels(2, 2, height=7.2)
axes = axes.ravel()
for n in range(2):
    axes[2 * n].imshow(side_by_side(pictures[n]), cmap="gray")
    axes[2 * n].set(xticks=[], yticks=[], title="picture")
    where = figures[n].reshape(SIDE, SIDE)
    heat_map(axes[2 * n + 1], where, cmap="viridis", bar=False, numbers=False)
    axes[2 * n + 1].set_title("figure (yellow)")
drawn

# %% [markdown]
# *Figure 8. Two pictures, and the nine digits to be found in each: threes among eights, nines among ones.*
#
# The network reads each digit by itself (a linear map to 16 channels, a ReLU), applies *one* of the four layers,
# adds what it gives to what was there, and decides for each position by itself. Everything but the layer is the
# same, and the layers have about as many parameters. A fifth arm has no layer at all.


# %%
class Reader(nn.Module):
    """Pictures (N, L, 64) -> a score for each position (N, L): above 0 it is of the figure."""

    def __init__(self, layer):
        super().__init__()
        self.embed = nn.Linear(64, CHANNELS)
        self.values = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.layer = layer
        self.hidden = nn.Linear(CHANNELS, CHANNELS)
        self.score = nn.Linear(CHANNELS, 1)

    def forward(self, x):
        x = F.relu(self.embed(x))
        x = x + self.layer(self.values(x))
        return self.score(F.relu(self.hidden(x))).squeeze(2)


ARMS = FRAME | {"none": lambda positions, channels: nn.Identity()}
SEEDS = 0, 1, 2
EPOCHS = 22


def train_reader(arm, seed, columns=range(SIDE)):
    mt.manual_seed(seed)
    model = Reader(ARMS[arm](POSITIONS, CHANNELS))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    data = TensorDataset(*figure_and_ground("train", 1200, seed, columns))
    loader = DataLoader(data, batch_size=30, shuffle=True, generator=seed)
    fit(
        model,
        loader,
        optimizer=optimizer,
        epochs=EPOCHS,
        loss=F.binary_cross_entropy_with_logits,
        scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(loader)),
        scheduler_every="batch",
        progress=False,
    )
    return model


def share_right(model, seed, columns=range(SIDE)):
    """Positions of 1000 unseen pictures that are told rightly, in %."""
    x, figure = figure_and_ground("test", 1000, 1000 + seed, columns)
    model.eval()
    with mt.no_grad():
        return 100 * ((model(mt.tensor(x)).data > 0) == figure).mean()


for name, layer in FRAME.items():
    costs = mt.summary(layer(POSITIONS, CHANNELS), (POSITIONS, CHANNELS))
    print(f"{name:16} {costs.parameters} parameters")

# %%
models = {arm: [train_reader(arm, seed) for seed in SEEDS] for arm in FRAME}
models["none"] = [train_reader("none", SEEDS[0])]
outcomes = {
    arm: [share_right(model, seed) for model, seed in zip(runs, SEEDS, strict=False)]
    for arm, runs in models.items()
}
for arm, runs in outcomes.items():
    print(f"{arm:16}", "  ".join(f"{run:.1f} %" for run in runs))

assert np.allclose(outcomes["none"], 64)  # 16 of 25
assert max(np.abs(np.array(outcomes["convolution"]) - 64)) < 4
for arm in ("fully connected", "attention", "recalibration"):
    assert min(outcomes[arm]) > 70
assert min(outcomes["fully connected"]) > max(outcomes["attention"] + outcomes["recalibration"])

# %%
viz.plot_arms(outcomes, label="positions told rightly, %")

# %% [markdown]
# *Figure 9. A dot is one seed, the bar their mean. (Without a layer, one seed is enough.)*
#
# Alone, a digit says nothing, and the best answer is to call all of them ground, which is right in 16 of 25 cases,
# 64 %. *The convolution does hardly better*: its window shows the border, and the border looks alike from both sides.
# (Several in a row would see further; lesson 05 counted how far. Here it is one layer.) The three that see the
# whole picture do better, on every seed.
#
# Which of the three is best cannot be told from this. Here the fully-connected layer is ahead; on two of three further
# seeds it was behind both others. And patience is needed: with 15 passes over the data in place of 22, three of twelve
# starts of attention and recalibration were still below 66 %.

# %% [markdown]
# ### What was learned: the figure on the left alone
#
# Now we train on pictures in which the middle of the figure lies in the two columns on the left, and test on unseen
# pictures of two kinds: with the figure on the left, as trained, and with the figure in the two columns on the right.
#
# Attention and recalibration need no new training. A seed draws the same digits wherever the figure lies; only
# their places change. And these two layers do not know of places (shift, shuffle, scale), nor does the rest of the
# network: each step of the training would come out the same again. So we take their networks from above.

# %%
LEFT, RIGHT = (0, 1), (3, 4)
anywhere, one_side = (figure_and_ground("train", 1200, 0, c)[0] for c in (range(SIDE), LEFT))
ink = anywhere.sum(axis=2), one_side.sum(axis=2)  # of each digit, (1200, 25)
assert not np.allclose(*ink) and np.allclose(*(np.sort(one, axis=1) for one in ink))

shown = SEEDS[:2]
for arm in ("fully connected", "convolution"):
    models[arm] = [train_reader(arm, seed, LEFT) for seed in shown]
moved = {
    arm: np.array([[share_right(models[arm][s], s, side) for s in shown] for side in (LEFT, RIGHT)])
    for arm in FRAME
}
for arm, sides in moved.items():
    for side, row in zip(("left", "right"), sides, strict=True):
        print(f"{arm:16} {side:6}", "  ".join(f"{run:.1f} %" for run in row))

for arm in ("fully connected", "convolution"):
    on_left, on_right = moved[arm]
    assert (on_left > 70).all() and (on_right < 50).all()
for arm in ("attention", "recalibration"):
    on_left, on_right = moved[arm]
    assert (on_left > 70).all() and np.abs(on_left - on_right).max() < 0.1
assert max(moved["fully connected"][0]) > 90

# %%
figure, axes = viz.panels(1, 2, height=2.9)
for ax, side, row in zip(axes, ("left", "right"), (0, 1), strict=True):
    viz.plot_arms({arm: runs[row] for arm, runs in moved.items()}, ax=ax)
    ax.set(xlim=(20, 100), title=f"figure on the {side}", xlabel="positions told rightly, %")
axes[1].set_yticklabels([])
figure

# %% [markdown]
# *Figure 10. The same networks tested on two kinds of pictures. Left panel: with the figure on the left, as in the
# training of the upper two. Right panel: with the figure on the right.*

# %%
on_the_right, truth = figure_and_ground("test", 1000, 1000, RIGHT)
with mt.no_grad():
    called_figure = models["convolution"][0](mt.tensor(on_the_right)).data > 0
last_column = np.arange(POSITIONS) % SIDE == SIDE - 1
print(f"last column: {100 * truth[:, last_column].mean():.0f} % are of the figure")
print(f"the convolution finds {100 * called_figure[:, last_column].mean():.0f} %")
assert called_figure[:, last_column].mean() < 0.005

# %% [markdown]
# - The **fully-connected** layer learned that the figure is on the left. On the right, it is worse than calling
#   everything ground.
# - The **convolution**, which could not do the task before, now can, and fails in the same way. It treats all places
#   alike, and yet: its kernel knows left from right, and the left side of a border was always the figure. Moreover
#   the zeros around the picture (lesson 05) tell it that it stands at an edge, and at which. In the last column it
#   calls every digit ground, even where most are of the figure.
# - **Attention** and **recalibration** do as well on the right as on the left. They cannot know of places: for them a
#   figure on the right is a figure on the left, shuffled.
#
# Which is better is a question of the task. If the figure really were always on the left, the blindness for places
# would be a loss: on the left, one of the two fully-connected networks is far ahead of all others. (Of five
# seeds, four came out so.) Lesson 11 tells how one gives a Transformer its places back.

# %% [markdown]
# ## Paper and code
#
# There is no one paper behind the frame; three of them draw parts of it.
#
# | | there | here |
# |---|---|---|
# | the non-local operation (Wang and others, 2018, equation 1) | $y_i = \frac{1}{\mathcal{C}(x)} \sum_j f(x_i, x_j)\, g(x_j)$, with a linear $g$ and $f$ of four kinds; section 3.1 sets it apart from fully-connected layers and convolutions | $f$ is the exponential of a dot product, $g$ stands in front of the layer |
# | the Transformer (Vaswani and others, 2017, equation 1) | $\mathrm{softmax}(QK^\top / \sqrt{d})\, V$ with learned maps for $Q$, $K$ and $V$, several heads | in the equations $Q = K = V = x$; in the experiment $Q$ and $K$ are learned |
# | squeeze and excitation (Hu and others, 2020, equations 2 to 4) | the gate is made of the mean alone, by two layers with a bottleneck | one linear map of the mean, and one of what is here |
#
# The name *recalibration* is that of the squeeze-and-excitation paper: features are not made anew, but weighed again.
# Of the modules that come next, those of lessons 13 to 15 and 17 are of this kind. The spatial transformer of lesson 16
# is not: there each position fetches its vector from one other place of the map, which is computed from the input. And
# those of lessons 18 to 20 fetch from many places, as attention does here.

# %% [markdown]
# ## Predict before you run
#
# **1.** All positions hold the same vector, and attention is applied. What comes out?

# %%
same = np.tile(x[chosen], (L, 1))
w = attention_weights(same, scale=0.25)
print("all weights are 1 / L:   ", np.allclose(w, 1 / L))
print("the output is the input: ", np.allclose(w @ same, same))

# %% [markdown]
# <details><summary>Answer</summary>
#
# The input. All dot products are equal, so the weights are too, and the mean of equal vectors is that vector.
#
# </details>
#
# **2.** The input is multiplied by 20. How large is the largest weight that the position of Figure 3 gives to any
# position?

# %%
for factor in (0.05, 1, 20):
    largest = attention_weights(factor * x, scale=0.25)[chosen].max()
    print(f"input times {factor:<5} largest weight {largest:.2f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Nearly 1. The dot products grow 400 times, and the softmax of numbers that lie far apart is almost 1 for the
# largest and 0 for the others; for a small input all weights are alike. The scale of the input decides how
# choosy attention is, which is why the scale $t$ matters.
#
# </details>
#
# **3.** Each layer was made for $5 \times 5$ positions and is now given $6 \times 6$. Which of them refuse?

# %%
larger = mt.randn(1, 36, CHANNELS)
for name, layer in FRAME.items():
    try:
        print(f"{name:16} gives {layer(POSITIONS, CHANNELS)(larger).shape}")
    except ValueError:
        print(f"{name:16} refuses")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The fully-connected layer alone: it has a weight for each pair of places, and none for the new ones. The others'
# parameters belong to a step, or to channels, and do not count positions.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`12_local_global_recalibration`](../exercises/12_local_global_recalibration.ipynb):
#
# 1. **convolution_weights**: a convolution as a table of weights.
# 2. **attention_weights**: weights made from the input.
# 3. **attend**: attention in primitive form, with all three paths of its gradient.
# 4. **recalibrate**: gates from what is here and from the context, with four rules.
# 5. **cost**: parameters and multiply-adds of the four.

# %% [markdown]
# ## What to remember
#
# - One formula, $y_i = \sum_j w_{ij}(x)\, x_j$: the table is full and fixed, banded and fixed, full and made from
#   the input, or diagonal and made from the input.
# - Backward, $dx = w^\top dy$ for all; where the weights were made from the input, a second path is added.
# - Recalibration adds up one position and depends on all of them, at a cost that grows with $L$; attention
#   fetches from all, at a cost that grows with $L^2$.
# - A full table of fixed weights knows places, a convolution knows steps, attention and gates know neither.

# %% [markdown]
# ## Sources
#
# - X. Wang, R. Girshick, A. Gupta, K. He, *Non-local Neural Networks*, CVPR 2018: equation 1 and section 3.1.
# - A. Vaswani and others, *Attention Is All You Need*, NIPS 2017: equation 1; table 1 compares costs.
# - J. Hu, L. Shen, S. Albanie, G. Sun, E. Wu, *Squeeze-and-Excitation Networks*, IEEE TPAMI 2020: equations 2 to 4.
