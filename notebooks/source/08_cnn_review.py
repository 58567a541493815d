# %% [markdown]
# # 08 · A review of convolutional networks
#
# From VGG to NASNet: ten families of networks, told as ten answers to one question. What should a
# *block* look like, so that many of them can be stacked?
#
# **You will be able to**
#
# - draw and build the block of each family in a few lines, and say what it costs;
# - derive what a shortcut does to the gradient, why many paths are one grouped convolution, and what
#   a shuffle does on the way back;
# - judge a comparison of architectures: which budget was equal, and whether the difference is
#   larger than chance.
#
# **You need** lessons 04 to 07: training, convolution forward and backward, pooling, batch
# normalisation.
#
# **Time** about 60 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import models, nn, optim, viz
from minitorch_attn.data import DataLoader, digits
from minitorch_attn.training import evaluate, fit

# %% [markdown]
# ## The idea in one picture
#
# All of these networks share a skeleton. An image enters with few channels and many positions. Stage
# by stage the positions grow fewer and the channels more, until each channel is one number and a
# linear layer reads the class from them. Here is a digit on that way, through a small network with
# random weights.

# %%
train, test = digits(), digits(train=False)
images, labels = test[:]
image = images[np.flatnonzero(labels == 4)[3]]  # (1, 8, 8)

mt.manual_seed(0)
stages = [
    nn.Conv2d(1, 4, 3, padding=1),
    nn.Sequential(nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2, padding=1)),
    nn.Sequential(nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1)),
]
x = mt.tensor(image[None].astype(np.float32))
shapes, rows = [], []
with mt.no_grad():
    for stage in stages:
        x = stage(x)
        shapes.append(x.shape[1:])
        rows.append(x.data[0])
assert shapes == [(4, 8, 8), (8, 4, 4), (16, 2, 2)]

# %%
figure, ax = viz.panels(1, 1, height=3.8)
top = 0.0
for maps in image, *rows:
    channels, size, _ = maps.shape
    for c, channel in enumerate(maps):
        left = c * (size + 1)
        ax.imshow(channel, cmap="gray", extent=(left, left + size, top - size, top))
        across, down = size * np.array([[0, 1, 1, 0, 0], [0, 0, 1, 1, 0]])
        ax.plot(left + across, top - down, color="0.5", lw=0.8)
    ax.text(-1, top - size / 2, f"{channels} x {size} x {size}", ha="right", va="center")
    top -= size + 1.5
ax.set(xlim=(-8, 48), ylim=(top + 1, 0.5))
ax.set_axis_off()
figure

# %% [markdown]
# *Figure 1. A four, and what three stages make of it: channels x height x width. The second and the third
# stage each halve how many numbers there are.*
#
# What differs between the families is what a stage is made of: its blocks. The next picture is a
# map of this lesson. Read each block from the bottom to the top; a line without a box hands its input
# on as it is.

# %%
BLOCKS = {
    "VGG": ("", [["3x3", "3x3"]]),
    "ResNet": ("+", [[], ["3x3", "3x3"]]),
    "ResNeXt": ("+", [[], ["1x1", "3x3\ngroups", "1x1"]]),
    "Xception": ("+", [[], ["depth-\nwise", "1x1", "depth-\nwise", "1x1"]]),
    "ShuffleNet": ("+", [[], ["1x1\ngroups", "shuffle", "depth-\nwise", "1x1\ngroups"]]),
    "DenseNet": ("join", [[], ["1x1", "3x3"]]),
    "Inception": ("join", [["1x1"], ["1x1", "3x3"], ["1x1", "5x5"], ["pool", "1x1"]]),
    "NASNet": ("join", [[], ["sep 5\n+ sep 3"], ["pool\n+ id"], ["sep 3\n+ id"]]),
}


def draw_block(ax, name, join, branches):
    """A block, read upwards: its branches side by side, and how they are put together."""
    top, middle = 6.2, (len(branches) - 1) / 2
    for ends in (-0.5, 0.35), (top, 7):
        ax.plot([middle, middle], ends, color="0.5", lw=1, zorder=0)
    for at, branch in enumerate(branches):
        ax.plot([middle, at, at, middle], [0.35, 0.7, top - 0.5, top], color="0.5", lw=1, zorder=0)
        for level, box in enumerate(branch):
            place = (at, 3.2 + 1.25 * (level - (len(branch) - 1) / 2))
            style = {"boxstyle": "round,pad=0.3", "fc": "white", "ec": viz.COLOURS[0]}
            ax.text(*place, box, ha="center", va="center", fontsize=7, bbox=style, linespacing=0.9)
    if join:
        style = {"boxstyle": "round,pad=0.25", "fc": viz.COLOURS[1], "ec": "none"}
        ax.text(middle, top, join, ha="center", va="center", fontsize=8, bbox=style)
    ax.set(title=name, xlim=(middle - 2.1, middle + 2.1), ylim=(-0.6, 7))
    ax.set_axis_off()


figure, axes = viz.panels(2, 4, height=6)
for ax, (name, (join, branches)) in zip(np.ravel(axes), BLOCKS.items(), strict=True):
    draw_block(ax, name, join, branches)
assert [join for join, _ in BLOCKS.values()] == [""] + 4 * ["+"] + 3 * ["join"]
figure

# %% [markdown]
# *Figure 2. The blocks of this lesson, without their batch normalisations and ReLUs. Those with a plus
# add what they computed to what came in; those with "join" lay channels side by side. Of NASNet's two
# inputs and five sums, one and three are drawn. (sep: depthwise, then 1x1; id: the input itself.)*

# %% [markdown]
# ## The equations
#
# A feature map $x$ has shape $(N, C, H, W)$. For a convolution with weights $w: (O, C/G, R, S)$ we
# write $w * x$; $G$ is the number of groups, and padding keeps the positions. Of a stack of blocks,
# $x_l$ is what enters block $l = 0, 1, \dots, B - 1$, and $x_B$ comes out. $\mathrm{BN}$ is batch
# normalisation.
#
# ### What a convolution costs
#
# Every weight is multiplied once at each of $P \times Q$ output positions, so for one image
#
# $$\text{parameters} = O \cdot \tfrac{C}{G} \cdot R S, \qquad
# \text{multiply-adds} = P Q \cdot \text{parameters}$$
#
# ### VGG: small kernels, many of them
#
# Two $3 \times 3$ convolutions in a row see $5 \times 5$ positions, and three see $7 \times 7$
# (lesson 05). With $C$ channels throughout they need
#
# $$2 \cdot 9 C^2 = 18 C^2 \;\text{ instead of }\; 25 C^2, \qquad
# 3 \cdot 9 C^2 = 27 C^2 \;\text{ instead of }\; 49 C^2$$
#
# weights, and there is a ReLU after each. So VGG uses nothing but $3 \times 3$ kernels: two to four
# convolutions in each of five stages, 16 at most.
#
# ### ResNet: learn what to add
#
# Stack many more and training gets worse, on the training images too. A residual block therefore learns
# only the *difference* from its input, with a branch $R_l$ of two convolutions:
#
# $$x_{l+1} = x_l + R_l(x_l), \qquad R_l(x) = \mathrm{BN}(w_2 * \mathrm{relu}(\mathrm{BN}(w_1 * x)))$$
#
# To do nothing, $R_l$ need only be zero. Put the equation into itself for $l$, $l+1$, and so on up to the
# last block:
#
# $$x_B = x_l + \sum_{j=l}^{B-1} R_j(x_j)$$
#
# Now the gradient, $dx_l = \partial L / \partial x_l$ of a loss $L$. On the right, $x_l$ stands twice: alone,
# where the Jacobian is the identity, and in the sum, whose Jacobian we call $S_l$. Each carries $dx_B$
# back with its transpose (lesson 03), and the two are added:
#
# $$\boxed{\; dx_l = dx_B + S_l^\top dx_B, \qquad S_l = \frac{\partial}{\partial x_l} \sum_{j=l}^{B-1}
# R_j(x_j) \;}$$
#
# Whatever the branches do, one part of the gradient at every block is $dx_B$ itself. Without the
# shortcuts, when $x_{l+1} = R_l(x_l)$, the chain rule gives a *product* instead,
#
# $$dx_l = J_l^\top J_{l+1}^\top \cdots J_{B-1}^\top \, dx_B, \qquad J_j = \frac{\partial R_j}{\partial x_j}$$
#
# which shrinks or grows by some factor at every block. A shortcut that is scaled, $x_{l+1} = \lambda
# x_l + R_l(x_l)$, would carry $\lambda^{B-l} dx_B$: for $\lambda = 0.9$ and 50 blocks that is less than a
# hundredth. So the shortcut is left alone.
#
# ### Pre-activation: leave the sum alone, too
#
# The first ResNet has a ReLU *behind* the sum, $x_{l+1} = \max(x_l + R_l(x_l), 0)$, so that the boxed
# equation holds only where all sums are positive. With batch normalisation and ReLU in front of the
# convolutions, inside the branch, it holds everywhere:
#
# $$R_l(x) = w_2 * \mathrm{relu}(\mathrm{BN}(w_1 * \mathrm{relu}(\mathrm{BN}(x))))$$
#
# ### Wide residual networks
#
# Instead of more blocks, take wider ones. With $k$ times the channels, $O \cdot C$ grows by $k^2$, and so
# do both costs. The depth stays, and with it the number of layers that must wait for one another.
#
# ### ResNeXt: many narrow paths
#
# Let the branch be a sum of $G$ narrow paths of the same form, each a $1 \times 1$ convolution $u_g$ to $D$
# channels, a $3 \times 3$ convolution $v_g$, and a $1 \times 1$ convolution $w_g$ back to $C$. With $f$ for
# what is between them (BN, ReLU),
#
# $$\text{(a)} \quad R(x) = \sum_{g=1}^{G} w_g * f\big(v_g * f(u_g * x)\big)$$
#
# At each position the last convolution is a matrix product $w_g h_g$, of $w_g: (C, D)$ with the $D$ channels
# $h_g$ of path $g$. A sum of products is one product of matrices laid side by side:
#
# $$\sum_g w_g h_g = \begin{pmatrix} w_1 & \cdots & w_G \end{pmatrix}
# \begin{pmatrix} h_1 \\ \vdots \\ h_G \end{pmatrix}$$
#
# So (b): join the $h_g$, then one $1 \times 1$ convolution $w$. Likewise the first convolutions all read the
# same $x$: they are one convolution $u$, whose kernels are those of $u_1, \dots, u_G$ one after the other.
# Each $v_g$ then reads $D$ channels of its own and nothing of the others'. Together they are a convolution
# $v$ with $G$ groups, written $*_G$:
#
# $$\text{(c)} \quad R(x) = w * f\big(v *_G f(u * x)\big)$$
#
# Batch normalisation treats every channel by itself, so it may be cut and joined with the channels. The
# one behind the last convolution comes after the sum in all three forms.
#
# ### Xception and MobileNet: space and channels apart
#
# The extreme is one group for each channel: a *depthwise* convolution with kernels $v: (C, R, S)$
# looks at space, then a $1 \times 1$ convolution $u: (O, C)$ mixes the channels. Put one into the other,
# and compare with an ordinary convolution, $y_{no} = \sum_c w_{oc} * x_{nc}$:
#
# $$y_{no} = \sum_c u_{oc} \, (v_c * x_{nc})
# \qquad\Rightarrow\qquad w_{ocrs} = u_{oc} \, v_{crs}$$
#
# So it is an ordinary one whose weights are restricted to such products. Its share of the cost is
#
# $$\frac{C \cdot RS + O \cdot C}{O \cdot C \cdot RS} = \frac{1}{O} + \frac{1}{RS}$$
#
# about one ninth for $3 \times 3$ kernels and many channels.
#
# ### ShuffleNet: let the groups talk
#
# Then the $1 \times 1$ convolutions cost most. Group them too, and what one group knows never reaches
# another. A *shuffle* between two grouped convolutions mends that. Number the channels by group $g$ and
# place $j$ in it, both from 0: $c = g \cdot \tfrac{C}{G} + j$. Afterwards the channel stands at
#
# $$c' = j \cdot G + g$$
#
# As an array that is a matrix of $G$ rows and $C/G$ columns, transposed. The gradient goes back to
# where each channel came from. That is the transposition of $C/G$ rows and $G$ columns: *a shuffle with
# $C/G$ groups*.
#
# ### DenseNet: keep everything
#
# Do not add what a layer makes but lay it beside what is there. Layer $l$ sees all feature maps before it
# and brings $k$ new channels ($k$ is now the *growth rate*):
#
# $$x_{l+1} = \big[\, x_l, \; R_l(x_l) \,\big], \qquad C_{l} = C_0 + l k$$
#
# What a layer makes is read by every later one, so its gradient is the sum of what all of them send
# back. Concatenation itself is undone by cutting: with $dx_{l+1} = [\,a, b\,]$ cut at channel $C_l$,
#
# $$dx_l = a + J_l^\top b$$
#
# ### Inception: several sizes at once
#
# Branches with $1 \times 1$, $3 \times 3$ and $5 \times 5$ kernels and a pooling look at the same input,
# and their channels are joined. A $1 \times 1$ convolution in front makes it affordable. To get 32
# channels from 192 by $5 \times 5$ kernels takes $32 \cdot 192 \cdot 25 = 153{,}600$ weights; by way of 16
# channels it takes $16 \cdot 192 + 32 \cdot 16 \cdot 25 = 15{,}872$.
#
# ### NASNet: let a program choose
#
# A block is called a *cell* here. It has two inputs, the outputs of the two cells before. Five times it
# takes two of the feature maps there are, applies to each an operation out of a short list, and adds the
# results. Sums that no later one reads are joined. A second network, the controller, was trained to
# propose cells whose networks do well; the best one that it found on CIFAR-10 is NASNet-A.

# %% [markdown]
# ## The code
#
# ### A shuffle, as loops and as a transposition


# %%
def shuffle_loops(x, groups):
    """x (N, C, H, W) -> y: channel g * (C / G) + j goes to j * G + g."""
    C = x.shape[1]
    y = np.empty_like(x)
    for g in range(groups):
        for j in range(C // groups):
            y[:, j * groups + g] = x[:, g * (C // groups) + j]
    return y


def shuffle(x, groups):
    """The same as a transposition, in primitive form."""
    N, C, H, W = x.shape

    def transposed(x, rows):
        return x.reshape(N, rows, C // rows, H, W).swapaxes(1, 2).reshape(N, C, H, W)

    def vjp_x(dy):
        return transposed(dy, C // groups)

    return transposed(x, groups), vjp_x


rng = np.random.default_rng(0)
x = rng.normal(size=(2, 12, 3, 3))
y, _ = shuffle(x, groups=3)
order = shuffle(np.arange(12).reshape(1, 12, 1, 1), groups=3)[0].ravel()
print("12 channels in 3 groups, in their new order:", order)
print("loops and transposition agree:", np.array_equal(y, shuffle_loops(x, groups=3)))
print("the library agrees:           ", np.array_equal(y, F.channel_shuffle(x, 3).data))

# %% [markdown]
# ### Three forms of ResNeXt
#
# Without the batch normalisations, whose place was said above; `first`, `middle` and `last` hold the
# $u_g$, $v_g$ and $w_g$.


# %%
def paths(x, first, middle, last):
    """(a) A sum of paths: for each g, 1x1 (D, C), 3x3 (D, D), 1x1 (C, D)."""
    return sum(
        F.conv2d(F.relu(F.conv2d(F.relu(F.conv2d(x, w1)), w2, padding=1)), w3)
        for w1, w2, w3 in zip(first, middle, last, strict=True)
    )


def joined(x, first, middle, last):
    """(b) Join the paths' channels, then one 1x1 convolution."""
    h = [
        F.relu(F.conv2d(F.relu(F.conv2d(x, w1)), w2, padding=1))
        for w1, w2 in zip(first, middle, strict=True)
    ]
    return F.conv2d(F.cat(h, dim=1), np.concatenate(last, axis=1))


def grouped(x, first, middle, last):
    """(c) Three convolutions, the middle one grouped."""
    h = F.relu(F.conv2d(x, np.concatenate(first)))
    h = F.relu(F.conv2d(h, np.concatenate(middle), padding=1, groups=len(middle)))
    return F.conv2d(h, np.concatenate(last, axis=1))


G, C, D = 4, 8, 2
x = rng.normal(size=(2, C, 5, 5))
first, middle, last = (
    rng.normal(size=shape) for shape in [(G, D, C, 1, 1), (G, D, D, 3, 3), (G, C, D, 1, 1)]
)
a, b, c = (form(x, first, middle, last).data for form in (paths, joined, grouped))
print("(a) and (b) agree:", np.allclose(a, b))
print("(a) and (c) agree:", np.allclose(a, c))

# %% [markdown]
# ### All blocks
#
# Each takes $C$ channels and gives back $C$. What recurs is a convolution with batch normalisation,
# behind it or, in the pre-activated ones, in front.


# %%
def conv(C, O, size=3, groups=1):
    return nn.Conv2d(C, O, size, padding=size // 2, groups=groups, bias=False)


def conv_bn(C, O, size=3, groups=1):
    return nn.Sequential(conv(C, O, size, groups), nn.BatchNorm2d(O))


def conv_bn_relu(C, O, size=3, groups=1):
    return nn.Sequential(conv(C, O, size, groups), nn.BatchNorm2d(O), nn.ReLU())


def bn_relu_conv(C, O, size=3):
    return nn.Sequential(nn.BatchNorm2d(C), nn.ReLU(), conv(C, O, size))


def plain(C):
    """VGG, with batch normalisation."""
    return nn.Sequential(conv_bn_relu(C, C), conv_bn_relu(C, C))


class Residual(nn.Module):
    """y = relu(x + R(x)), or without the ReLU behind the sum."""

    def __init__(self, branch, relu=True):
        super().__init__()
        self.branch, self.relu = branch, relu

    def forward(self, x):
        y = x + self.branch(x)
        return F.relu(y) if self.relu else y


def resnet(C):
    return Residual(nn.Sequential(conv_bn_relu(C, C), conv_bn(C, C)))


def preactivation(C):
    return Residual(nn.Sequential(bn_relu_conv(C, C), bn_relu_conv(C, C)), relu=False)


def resnext(C, groups=4):
    width = C // 2  # D channels for each of the groups
    return Residual(
        nn.Sequential(
            conv_bn_relu(C, width, 1),
            conv_bn_relu(width, width, 3, groups=groups),
            conv_bn(width, C, 1),
        )
    )


def xception(C):
    def separable():
        return nn.Sequential(nn.ReLU(), conv(C, C, groups=C), conv_bn(C, C, 1))

    return Residual(nn.Sequential(separable(), separable()), relu=False)


# %% [markdown]
# The next three need modules of their own. The DenseNet block ends with a *transition*, the $1 \times 1$
# convolution that DenseNets have between their stages, and so gives back $C$ channels, too.


# %%
class Shuffle(nn.Module):
    """As a layer: the channels of G groups take turns."""

    def __init__(self, groups):
        super().__init__()
        self.groups = groups

    def forward(self, x):
        return F.channel_shuffle(x, self.groups)


def shufflenet(C, groups=4):
    width = C // 4
    branch = nn.Sequential(
        conv_bn_relu(C, width, 1, groups=groups),
        Shuffle(groups),
        conv_bn(width, width, 3, groups=width),
        conv_bn(width, C, 1, groups=groups),
    )
    return Residual(branch)


class DenseNet(nn.Module):
    """Two layers of growth C / 4, then a transition back to C channels."""

    def __init__(self, C):
        super().__init__()
        k = C // 4
        self.layers = nn.ModuleList([self.layer(C, k), self.layer(C + k, k)])
        self.transition = bn_relu_conv(C + 2 * k, C, 1)

    def layer(self, C, k):
        """A bottleneck of 4 k channels, then k new ones."""
        return nn.Sequential(bn_relu_conv(C, 4 * k, 1), bn_relu_conv(4 * k, k))

    def forward(self, x):
        for layer in self.layers:
            x = F.cat([x, layer(x)], dim=1)
        return self.transition(x)


class Inception(nn.Module):
    """Four branches of C / 4 channels each."""

    def __init__(self, C):
        super().__init__()
        O = C // 4
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(C, O, 1),
                nn.Sequential(conv_bn_relu(C, O, 1), conv_bn_relu(O, O, 3)),
                nn.Sequential(conv_bn_relu(C, O, 1), conv_bn_relu(O, O, 5)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_bn_relu(C, O, 1)),
            ]
        )

    def forward(self, x):
        return F.cat([branch(x) for branch in self.branches], dim=1)


# %% [markdown]
# Last the cell of NASNet-A. Its five sums stand in a table, as the controller wrote them down: an
# operation and which map it reads, twice. Map 0 comes from the cell before the last, map 1 from
# the last cell; each is first brought to `filters` channels. Joined are the five sums, and map 0 as well.


# %%
PAIRS = [
    ("separable 5", 1, "separable 3", 0),
    ("separable 5", 0, "separable 3", 0),
    ("average 3", 1, "identity", 0),
    ("average 3", 0, "average 3", 0),
    ("separable 3", 1, "identity", 1),
]


class NASNetCell(nn.Module):
    """The normal cell of NASNet-A: two maps of C channels -> 6 * filters channels."""

    def __init__(self, C, filters):
        super().__init__()
        self.inputs = nn.ModuleList([self.relu_conv_bn(C, filters) for _ in range(2)])
        self.pairs = nn.ModuleList(
            [nn.ModuleList([self.operation(name, filters) for name in pair[::2]]) for pair in PAIRS]
        )

    def relu_conv_bn(self, C, O):
        return nn.Sequential(nn.ReLU(), conv_bn(C, O, 1))

    def operation(self, name, filters):
        kind, *size = name.split()
        if kind == "identity":
            return nn.Identity()
        if kind == "average":
            return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        return nn.Sequential(
            self.separable(filters, int(size[0])), self.separable(filters, int(size[0]))
        )

    def separable(self, filters, size):
        depthwise = conv(filters, filters, size, groups=filters)
        return nn.Sequential(nn.ReLU(), depthwise, conv_bn(filters, filters, 1))

    def forward(self, before, x):
        maps = [self.inputs[0](before), self.inputs[1](x)]
        made = [
            one(maps[i]) + other(maps[j])
            for (one, other), (_, i, _, j) in zip(self.pairs, PAIRS, strict=True)
        ]
        return F.cat([maps[0], *made], dim=1)


cell = NASNetCell(24, filters=4)
with mt.no_grad():
    print("a cell gives", cell(mt.ones(2, 24, 8, 8), mt.ones(2, 24, 8, 8)).shape)

# %% [markdown]
# ### The same as the library's
#
# `minitorch_attn.models` has the networks themselves. The ResNet paper trains one of 20 layers on CIFAR-10:
# a convolution, nine blocks of two, and a linear layer. Ours has as many parameters as the library's, and
# computes the same once it is given the same ones.


# %%
class OurResNet20(nn.Module):
    """Three stages of three blocks; where the channels double, the shortcut pads with zeros."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn_relu(3, 16)
        self.branches = nn.ModuleList()
        for O in 16, 32, 64:
            for block in range(3):
                C = O if block or O == 16 else O // 2
                first = nn.Conv2d(C, O, 3, stride=O // C, padding=1, bias=False)
                self.branches.append(
                    nn.Sequential(first, nn.BatchNorm2d(O), nn.ReLU(), conv_bn(O, O))
                )
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.stem(x)
        for branch in self.branches:
            r = branch(x)
            if r.shape != x.shape:  # every second position, and zeros for the new channels
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))
            x = F.relu(x + r)
        return self.fc(x.mean(dim=(2, 3)))


ours, library = OurResNet20(), models.resnet20()
for mine, theirs in zip(ours.parameters(), library.parameters(), strict=True):
    with mt.no_grad():
        mine.copy_(theirs)
count = sum(p.numel() for p in library.parameters())
x = mt.tensor(rng.normal(size=(4, 3, 32, 32)).astype(np.float32))
print(f"{count:,} parameters")
print("outputs agree:", np.allclose(ours(x).data, library(x).data, atol=1e-4))
assert count == 269_722

# %% [markdown]
# ## The gradient check
#
# The shuffle is the one new rule of this lesson.

# %%
x = rng.normal(size=(1, 6, 2, 2))
report = mt.check_vjp(shuffle, x, groups=2)
print(report)

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 3. The gradient of a shuffle of 6 channels in 2 groups: rule, measurement, and an error that is
# dark throughout.*
#
# It is tempting to let the rule shuffle with the same number of groups once more:


# %%
def shuffle_again(x, groups):
    y, _ = shuffle(x, groups)
    return y, lambda dy: shuffle(dy, groups)[0]


wrong = mt.check_vjp(shuffle_again, x, groups=2, raise_on_failure=False)
print(wrong)
assert not wrong.ok and "in another order" in wrong.inputs[0].diagnosis

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 4. The values are right, but most stand in another channel's place. Only the first channel
# and the last, which no shuffle moves, are dark.*
#
# And a residual block, through the engine: its input, which reaches the sum on two paths, and both
# weights.

# %%
mt.set_default_dtype("float64")


def residual_block(x, w1, w2):
    return F.relu(x + F.conv2d(F.relu(F.conv2d(x, w1, padding=1)), w2, padding=1))


arrays = [rng.normal(size=shape) for shape in [(2, 3, 4, 4), (3, 3, 3, 3), (3, 3, 3, 3)]]
print(mt.gradcheck(residual_block, *(mt.tensor(a, requires_grad=True) for a in arrays)))

# %% [markdown]
# ## At work
#
# ### What the blocks cost
#
# `mt.summary` runs a network once and counts parameters and multiply-adds. For the blocks above, at 64
# channels and 32 x 32 positions:

# %%
FAMILIES = {
    "plain": plain,
    "ResNet": resnet,
    "pre-activation": preactivation,
    "ResNeXt": resnext,
    "Xception": xception,
    "ShuffleNet": shufflenet,
    "DenseNet": DenseNet,
    "Inception": Inception,
}
costs = {name: mt.summary(make(64), (64, 32, 32)) for name, make in FAMILIES.items()}
print(f"{'':<16}{'parameters':>12}{'multiply-adds':>16}{'of plain':>10}")
for name, cost in costs.items():
    share = cost.multiply_adds / costs["plain"].multiply_adds
    print(f"{name:<16}{cost.parameters:>12,}{cost.multiply_adds:>16,}{share:>9.0%}")
assert costs["plain"].multiply_adds == 2 * 64 * 64 * 9 * 32 * 32

# %% [markdown]
# A shortcut costs nothing. Groups, depthwise kernels and fewer channels inside save most of the cost;
# most of what they leave is in the $1 \times 1$ convolutions.
#
# And whole networks, for ImageNet's 1000 classes:

# %%
NETWORKS = {
    "VGG-16": models.vgg16,
    "GoogLeNet": models.googlenet,
    "ResNet-18": models.resnet18,
    "ResNet-50": models.resnet50,
    "ResNeXt-50": models.resnext50_32x4d,
    "DenseNet-121": models.densenet121,
    "SqueezeNet 1.1": models.squeezenet1_1,
    "MobileNet v2": models.mobilenet_v2,
    "ShuffleNet v2": models.shufflenet_v2_x1_0,
    "NASNet-A mobile": models.nasnet_a_mobile,
}
mt.set_default_dtype("float32")
totals = {name: mt.summary(build(), (3, 224, 224)) for name, build in NETWORKS.items()}
for name, total in totals.items():
    print(
        f"{name:<16}{total.parameters / 1e6:>8.2f} M parameters"
        f"{total.multiply_adds / 1e9:>8.2f} G multiply-adds"
    )
mt.set_default_dtype("float64")

# %%
figure, ax = viz.panels(1, 1, height=4)
for name, total in totals.items():
    at = total.parameters / 1e6, total.multiply_adds / 1e9
    ax.plot(*at, "o", color=viz.COLOURS[0])
    side = "right" if name in ("GoogLeNet", "ResNeXt-50") else "left"  # of two near ones
    shift = (-6, 4) if side == "right" else (6, 4)
    ax.annotate(name, at, xytext=shift, textcoords="offset points", fontsize=8, ha=side)
ax.set(xscale="log", yscale="log", xlabel="parameters, million", ylabel="multiply-adds, G")
ax.set(xlim=(0.9, 400), ylim=(0.1, 30))
assert totals["VGG-16"].parameters == 138_357_544
assert totals["ResNet-50"].parameters == 25_557_032
figure

# %% [markdown]
# *Figure 5. Two orders of magnitude in both. Nine tenths of VGG-16's parameters are in its three linear
# layers; the later networks take the mean of each channel and need one at most.*
#
# ### Gradients on their way down
#
# Now a convolution, three stages of $n$ blocks with two convolutions each, and a linear layer: $6n + 2$
# layers, as in the ResNet paper, but only 8 channels in the first stage. Without shortcuts, with them, and
# with pre-activation. One batch of digits, before any training: how large is the gradient of each
# convolution's weights?


# %%
class Block(nn.Module):
    """One block of the deep networks; `kind` says what stands around its branch."""

    def __init__(self, C, O, stride, kind):
        super().__init__()
        self.kind = kind
        before, after = (C, O) if kind == "pre-activation" else (O, O)
        self.conv1 = nn.Conv2d(C, O, 3, stride, padding=1, bias=False)
        self.conv2 = conv(O, O)
        self.bn1, self.bn2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.shortcut = nn.Identity()
        if C != O and kind != "plain":
            self.shortcut = nn.Conv2d(C, O, 1, stride, bias=False)

    def forward(self, x):
        if self.kind == "pre-activation":
            a = F.relu(self.bn1(x))
            x = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(a)
            return x + self.conv2(F.relu(self.bn2(self.conv1(a))))
        r = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(r if self.kind == "plain" else self.shortcut(x) + r)


def deep(kind, n, seed=0):
    """A network of 6 n + 2 layers for pictures (N, 1, 8, 8)."""
    mt.manual_seed(seed)
    net = nn.Sequential(conv_bn_relu(1, 8))
    C = 8
    for O in 8, 16, 32:
        for i in range(n):
            net.append(Block(C, O, 2 if i == 0 and O > 8 else 1, kind))
            C = O
    if kind == "pre-activation":
        net.append(nn.Sequential(nn.BatchNorm2d(C), nn.ReLU()))
    net.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 10)))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def gradient_norms(net):
    x, y = train[:128]
    F.cross_entropy(net(mt.tensor(x)), mt.tensor(y)).backward()
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    return [float(m.weight.grad.norm()) for m in convs]


KINDS = "plain", "residual", "pre-activation"
norms = {kind: gradient_norms(deep(kind, n=9)) for kind in KINDS}
figure, ax = viz.panels(1, 1, height=3.2)
for kind, colour in zip(KINDS, viz.COLOURS, strict=False):
    ax.plot(range(1, len(norms[kind]) + 1), norms[kind], color=colour, label=kind)
ax.set(yscale="log", xlabel="convolution, from the input to the output", ylabel="gradient norm")
ax.legend()
spread = {kind: max(norms[kind]) / min(norms[kind]) for kind in KINDS}
assert spread["plain"] > 1000 > 10 * max(spread["residual"], spread["pre-activation"])
assert (
    1.1 < (norms["plain"][0] / norms["plain"][18]) ** (1 / 18) < 1.2
)  # a layer of the first stage
figure

# %% [markdown]
# *Figure 6. Networks of 56 layers before training. Without shortcuts the gradients grow towards the input,
# by a factor of more than a thousand. With them, the largest is some tens of times the smallest at most.
# The steps are where a stage begins.*
#
# Many texts say that they vanish; that was so before batch normalisation. A ReLU keeps a third of the
# variance of a normal number ($\tfrac12 - \tfrac1{2\pi}$, about 0.34), and the next normalisation scales it
# up to one again. The gradient is scaled up as much, but loses only half at the ReLU: 0.5 / 0.34 is about
# 1.5 in square, 1.2 in size, at every layer (in the picture a little less). Whether gradients shrink or
# grow, no one learning rate fits the first layer and the last.
#
# ### Depth, with shortcuts and without
#
# Does it matter for training? We train networks without shortcuts and with them, at three depths, for
# three epochs on the same batches.


# %%
def train_network(net, seed, epochs, optimizer, batch_size=64):
    loader = DataLoader(train, batch_size=batch_size, shuffle=True, generator=seed)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    history = fit(
        net,
        loader,
        optimizer=optimizer,
        epochs=epochs,
        scheduler=schedule,
        scheduler_every="batch",
        progress=False,
    )
    found = evaluate(net, DataLoader(test, batch_size=500))
    return history, 100 * found["accuracy"]


DEPTHS = {8: 1, 20: 3, 32: 5}
trained = {}
for kind in "plain", "residual":
    for depth, n in DEPTHS.items():
        net = deep(kind, n)
        sgd = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        history, accuracy = train_network(net, 0, 3, sgd, batch_size=128)
        trained[kind, depth] = history["train_loss"][-1], accuracy
        print(f"{kind:<9} {depth:>2} layers: {accuracy:.0f} % of the test digits")

# %%
figure, axes = viz.panels(1, 2, height=3)
for ax, place, label in zip(axes, (0, 1), ("training loss", "test accuracy, %"), strict=True):
    for kind, colour in zip(("plain", "residual"), viz.COLOURS, strict=False):
        values = [trained[kind, depth][place] for depth in DEPTHS]
        ax.plot(list(DEPTHS), values, "o-", color=colour, label=kind)
    ax.set(xlabel="layers", ylabel=label, xticks=list(DEPTHS))
axes[0].legend()
losses = {kind: [trained[kind, depth][0] for depth in DEPTHS] for kind in ("plain", "residual")}
assert losses["plain"] == sorted(losses["plain"]) and losses["plain"][2] > 3 * losses["residual"][2]
figure

# %% [markdown]
# *Figure 7. More layers make the plain network worse, on its training images too: this is no overfitting
# but a failure to be trained. With shortcuts the depth makes little difference.*
#
# (One seed; with three others, not shown, each step in depth cost the plain network as well.) Digits of
# 8 x 8 do not need 32 layers; with shortcuts they do no harm.
#
# ### What a shuffle lets through
#
# Two grouped $1 \times 1$ convolutions in a row, with a shuffle between them or without. How does each
# output channel depend on each input channel? The engine gives the derivative.


# %%
def channel_jacobian(between):
    """|d output channel / d input channel| of two grouped 1x1 convolutions: (C, C)."""
    mt.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(16, 16, 1, groups=4, bias=False),
        between,
        nn.Conv2d(16, 16, 1, groups=4, bias=False),
    )
    rows = []
    for channel in range(16):
        x = mt.ones(1, 16, 1, 1, requires_grad=True)
        net(x)[0, channel, 0, 0].backward()
        rows.append(np.abs(x.grad.data[0, :, 0, 0]))
    return np.stack(rows)


jacobians = {
    "without a shuffle": channel_jacobian(nn.Identity()),
    "with a shuffle": channel_jacobian(Shuffle(4)),
}
reached = [float((jacobian > 0).mean()) for jacobian in jacobians.values()]
assert reached == [0.25, 1.0]
figure, axes = viz.panels(1, 2, height=3.4)
for ax, (name, jacobian) in zip(axes, jacobians.items(), strict=True):
    viz.show_channel_weights(jacobian, label="size of the derivative", ax=ax)
    ax.set(title=name, xlabel="input channel", ylabel="output channel")
figure

# %% [markdown]
# *Figure 8. Without a shuffle the four groups are four networks that know nothing of one another. With it
# every output channel depends on every input channel; what is dark at the right is small, not zero.*
#
# ### A fair race
#
# Which block is best? A comparison needs an equal budget. We give each the width at which the network
# comes closest to 200,000 multiply-adds (within 15 %: groups must come out even), the same optimiser,
# batches and three epochs, and three seeds.


# %%
def network(make, C):
    """Stem, a block at 8 x 8, a transition, a block at 4 x 4, a classifier."""
    return nn.Sequential(
        conv_bn_relu(1, C),
        make(C),
        conv_bn_relu(C, 2 * C, 1),
        nn.AvgPool2d(2),
        make(2 * C),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * C, 10),
    )


def width_for(make, budget, widths):
    costs = {C: mt.summary(network(make, C), (1, 8, 8)).multiply_adds for C in widths}
    return min(costs, key=lambda C: abs(costs[C] - budget))


BUDGET = 200_000
STEPS = {"ResNeXt": 8, "ShuffleNet": 16, "DenseNet": 4, "Inception": 4}  # widths that divide evenly
race = {}
for name, make in FAMILIES.items():
    if name == "pre-activation":  # at two blocks it is as good as the ResNet
        continue
    step = STEPS.get(name, 1)
    C = width_for(make, BUDGET, range(max(8, step), 33, step))
    race[name] = []
    for seed in 0, 1, 2:
        mt.manual_seed(seed)
        net = network(make, C)
        adam = optim.Adam(net.parameters(), lr=1e-2)
        race[name].append(train_network(net, seed, 3, adam)[1])
    total = mt.summary(net, (1, 8, 8))
    assert abs(total.multiply_adds - BUDGET) < 0.15 * BUDGET
    print(
        f"{name:<11}{C:>3} channels {total.multiply_adds:>8,} multiply-adds"
        f"{total.parameters:>7,} parameters",
        *(f"{run:5.1f}" for run in race[name]),
        "%",
    )

# %%
means = {name: np.mean(runs) for name, runs in race.items()}
others = [mean for name, mean in means.items() if name != "DenseNet"]
assert means["DenseNet"] < min(others) - 2 and max(others) - min(others) < 2
viz.plot_arms(race, label="accuracy on unseen digits, %")

# %% [markdown]
# *Figure 9. A dot is one seed, the bar their mean. Six of the means lie within two points, no further apart
# than seeds of one block. DenseNet, whose layers add three channels here and six after the transition,
# is behind.*
#
# (Over seven seeds, four of them not shown, Xception and Inception are about a point ahead of plain, ResNet
# and ResNeXt, and ShuffleNet one or two behind.) Another budget, learning rate or number of epochs may well
# change the order; DenseNet, for one, was made for long trainings. To tell these blocks apart it takes real
# images and thousands of times the budget. Be as careful with tables in papers: was the budget equal, how
# many seeds were there, who was tuned?

# %% [markdown]
# ## Paper and code
#
# Names are shared more often than architectures. Where the paper and well-known code differ, and what is
# built in `minitorch_attn.models`:
#
# - **ResNet.** The paper's bottleneck puts the stride on the first $1 \times 1$ convolution; fb.resnet.torch and
#   torchvision put it on the $3 \times 3$, and so do we. For CIFAR the paper's shortcut ("option A") has
#   no parameters: every second position, zeros for the new channels. Code differs in whether the
#   zeros stand behind the channels (ours) or on both sides; the counts are equal, the weights cannot be
#   exchanged.
# - **Pre-activation.** One batch normalisation and ReLU behind the last block belong to it; a popular
#   port forgets them. Where the shape changes, the shortcut reads what the block's first ReLU gives.
# - **ResNeXt.** The paper's CIFAR experiments have pre-activated blocks, the released code has not, and is
#   better for it.
# - **DenseNet.** The paper starts with 16 channels (or $2k$ with bottlenecks), the released code always
#   with $2k$. Ours takes the stem's width as a setting.
# - **GoogLeNet.** torchvision's "$5 \times 5$" branch has a $3 \times 3$ kernel, by a mistake that was kept so
#   that its weights stay valid. Both are here.
# - **ShuffleNet.** No ReLU behind the depthwise convolution; several ports have one.
# - **NASNet.** Each separable convolution is applied twice. The paper's figure does not say so; its text does.

# %% [markdown]
# ## Predict before you run
#
# **1.** Twelve channels are shuffled with 3 groups, and the result is shuffled with 4 groups. In which
# order are the channels then?

# %%
print(shuffle(shuffle(np.arange(12).reshape(1, 12, 1, 1), 3)[0], 4)[0].ravel())

# %% [markdown]
# <details><summary>Answer</summary>
#
# In their first order. 12 / 3 = 4: a shuffle with $C/G$ groups undoes one with $G$, which is why it is
# its gradient.
#
# </details>
#
# **2.** We multiply every shortcut of a network of 27 blocks by 0.8. How large is the part of the gradient that
# arrives at the first block through the shortcuts alone?

# %%
print(f"{0.8**27:.4f} of what the last block gets")

# %% [markdown]
# <details><summary>Answer</summary>
#
# $0.8^{27}$, about a 400th. With a factor of one it would be all of it.
#
# </details>
#
# **3.** We make a network twice as wide, and replace its $3 \times 3$ convolutions by depthwise separable ones.
# Has it more parameters or fewer?

# %%
narrow, wide = mt.summary(plain(64), (64, 8, 8)), mt.summary(xception(128), (128, 8, 8))
print(f"{narrow.parameters:,} before, {wide.parameters:,} after")
assert wide.parameters < narrow.parameters

# %% [markdown]
# <details><summary>Answer</summary>
#
# Fewer. Twice the width costs four times as much; separating gives back a factor of nearly nine.
#
# </details>

# %% [markdown]
# ## Exercises
#
# The [exercise set](../exercises/08_cnn_review.ipynb):
#
# 1. `conv_cost`: parameters and multiply-adds of any convolution;
# 2. `channel_shuffle`: with its rule;
# 3. `shortcut`: the parameter-free shortcut of ResNet, with its rule;
# 4. `full_kernel`: write a grouped convolution's weights as those of an ordinary one;
# 5. `dense_layer`: the rule of "keep everything";
# 6. `PreActivationBlock`: the module.

# %% [markdown]
# ## What to remember
#
# - A convolution has $O \cdot C/G \cdot RS$ parameters, each used $PQ$ times. Small kernels, groups,
#   depthwise kernels and $1 \times 1$ bottlenecks are ways to lower that.
# - A shortcut turns the product of Jacobians into a sum with the identity in it. Nothing should stand on
#   that way: no factor, and no ReLU behind the sum.
# - Many paths of one form are one grouped convolution; a shuffle lets groups talk.
# - To join instead of to add keeps everything, and the gradient is cut where the channels were joined.
# - A ranking of architectures is worth as much as its budget, its seeds and its tuning.

# %% [markdown]
# ## Sources
#
# - K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
#   (ICLR 2015), section 2.3.
# - C. Szegedy et al., "Going Deeper with Convolutions" (CVPR 2015); "Rethinking the Inception
#   Architecture for Computer Vision" (CVPR 2016).
# - K. He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), sections 3 and 4.2;
#   "Identity Mappings in Deep Residual Networks" (ECCV 2016), equations 3 to 5 and section 3.1.
# - S. Zagoruyko, N. Komodakis, "Wide Residual Networks" (BMVC 2016).
# - G. Huang et al., "Densely Connected Convolutional Networks" (CVPR 2017).
# - S. Xie et al., "Aggregated Residual Transformations for Deep Neural Networks" (CVPR 2017), figure 3.
# - F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (CVPR 2017).
# - A. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
#   Applications" (2017).
# - X. Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices"
#   (CVPR 2018), section 3.
# - B. Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition" (CVPR 2018),
#   figure 4 and appendix A.
