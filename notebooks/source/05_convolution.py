# %% [markdown]
# # 05 · Convolution
#
# One small kernel, moved over a whole image: the layer on which everything in vision stands, from its
# definition to a form that is fast.
#
# **You will be able to**
#
# - tell convolution from cross-correlation, and derive the size of the output for any stride, padding
#   and dilation;
# - write the layer as loops, as windows, and as one matrix product, and say why the last is fast;
# - work out what a pixel of a deep layer can see, and measure what it does see.
#
# **You need** lessons [01](01_computational_graphs.ipynb) to
# [04](04_modules_losses_optimisers.ipynb): rules, broadcasting, the gradient check, modules.
#
# **Time** about 70 minutes (20 of them for *Fewer multiplications*, which can wait for a second reading),
# and as long again for the exercises.

# %%
import time

import numpy as np
from numpy.lib.stride_tricks import as_strided
from sklearn.datasets import load_sample_image

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.data import DataLoader, TensorDataset, digits
from minitorch_attn.training import evaluate, fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# Put a small table of weights, the *kernel*, over a corner of an image. Multiply each pixel with the
# weight that lies on it, add the products up, and write the sum down. Move the kernel on by one pixel,
# and do it again, until it has been everywhere.

# %%
photo = load_sample_image("flower.jpg").mean(axis=2) / 255  # grey, from 0 to 1
photo = photo[:424].reshape(106, 4, 160, 4).mean(axis=(1, 3))  # means of 4 x 4 pixels
flower = photo[16:92, 38:114].reshape(38, 2, 38, 2).mean(axis=(1, 3))  # a part, half as fine

w = np.array([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4  # light on the left of dark
R, S = w.shape
P, Q = flower.shape[0] - R + 1, flower.shape[1] - S + 1
y = np.zeros((P, Q))
for p, q in np.ndindex(P, Q):
    y[p, q] = (w * flower[p : p + R, q : q + S]).sum()

p, q = np.unravel_index(y.argmax(), y.shape)
window = flower[p : p + R, q : q + S]
assert y[p, q] == (w * window).sum() == y.max()


def draw_numbers(ax, table, title, **colours):
    ax.imshow(table, **colours)
    for r, s in np.ndindex(table.shape):
        ax.text(s, r, f"{table[r, s]:.2f}", ha="center", va="center", backgroundcolor="white")
    ax.set(title=title, xticks=[], yticks=[])


def draw_box(ax, top, left, height, width, colour=viz.COLOURS[1]):
    ax.plot(
        left + np.array([0, width, width, 0, 0]) - 0.5,
        top + np.array([0, 0, height, height, 0]) - 0.5,
        color=colour,
    )


figure, axes = viz.panels(1, 4, width=9.0, height=2.6)
axes[0].imshow(flower, cmap="gray")
axes[0].set(title=f"image {flower.shape}", xticks=[], yticks=[])
draw_box(axes[0], p, q, R, S)
draw_numbers(axes[1], window, "the window", cmap="gray", vmin=0, vmax=1)
draw_numbers(axes[2], w, "the kernel", cmap="RdBu_r", vmin=-1, vmax=1)
axes[3].imshow(y, cmap="RdBu_r", vmin=-0.8, vmax=0.8)
axes[3].set(title=f"output {y.shape}", xticks=[], yticks=[])
draw_box(axes[3], p, q, 1, 1, colour=viz.COLOURS[6])
figure

# %% [markdown]
# *Figure 1. Nine pixels of the photo, times the nine weights of the kernel, are one pixel of the output.
# This kernel answers where a light place has a dark one on its right (red), and with the other sign
# where it is the other way round (blue). The marked place is where it answers most.*
#
# Two things make this more than a table of products. The output at a place depends on what lies **near**
# it, and on nothing else. And the kernel is the **same** everywhere: what was learned on the left side of
# an image is known on the right. This is also why it needs so few weights: nine, whatever the size of the
# image.

# %% [markdown]
# ## The equations
#
# ### A pixel of the output is a dot product
#
# For one image $x$ of shape $(H, W)$ and one kernel $w$ of shape $(R, S)$, the output $y$ has a pixel for
# each place where the kernel fits: $P = H - R + 1$ of them in a column, $Q = W - S + 1$ in a row.
#
# $$y_{pq} = \sum_{r=0}^{R-1} \sum_{s=0}^{S-1} w_{rs}\, x_{p+r,\,q+s}$$
#
# Write the window at $(p, q)$ as a vector of $RS$ numbers, row after row, and the kernel likewise. Then the
# double sum is the dot product of two vectors: the product of their lengths, times the cosine of the angle
# between them. So among windows of the same length it is largest for one that points in the kernel's
# direction: **a kernel is a picture of what it looks for**.

# %% [markdown]
# ### Cross-correlation and convolution
#
# What the equation says is a *cross-correlation*. In mathematics a *convolution* has a minus sign. In
# one dimension, with sums over all integers and zeros outside,
#
# $$(w \star x)_p = \sum_r w_r\, x_{p+r} \qquad\qquad (w * x)_p = \sum_r w_r\, x_{p-r}$$
#
# - *Convolution is commutative.* Substitute $r' = p - r$, so that $r = p - r'$; as $r$ runs through all
#   integers, so does $r'$:
#   $$(w * x)_p = \sum_{r'} w_{p-r'}\, x_{r'} = \sum_{r'} x_{r'}\, w_{p-r'} = (x * w)_p$$
# - *Cross-correlation is not.* Exchange the two, and substitute $r' = p + r$:
#   $$(x \star w)_p = \sum_r x_r\, w_{p+r} = \sum_{r'} w_{r'}\, x_{r'-p} = (w \star x)_{-p}$$
#   the same numbers, in mirrored order.
# - *One is the other with a flipped kernel.* Let $\bar w_r = w_{-r}$. With $r' = -r$,
#   $$(w * x)_p = \sum_{r'} w_{-r'}\, x_{p+r'} = (\bar w \star x)_p$$
#
# In two dimensions both axes are flipped.

# %%
signal, kernel = np.array([1.0, 5, 2, 0, 3]), np.array([1.0, 2, -1])
print("w * x", np.convolve(signal, kernel), " x * w", np.convolve(kernel, signal))
print("w ⋆ x", np.correlate(signal, kernel, "full"), " x ⋆ w", np.correlate(kernel, signal, "full"))

# %% [markdown]
# On a photo the difference shows if the kernel is not symmetric. This one has two weights that are not
# zero: 1 in the middle, and 0.6 in its lower right corner.

# %%
echo = np.zeros((31, 31))
echo[15, 15], echo[30, 30] = 1.0, 0.6


def correlate(image, kernel):
    """Cross-correlation with zeros around the image, so that the size stays."""
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    image, kernel = mt.tensor(image[None, None]), mt.tensor(kernel[None, None].copy())
    return F.conv2d(image, kernel, padding=(rows, columns)).numpy()[0, 0]


correlation, convolution = correlate(photo, echo), correlate(photo, echo[::-1, ::-1])
assert np.allclose(correlation[:-15, :-15], photo[:-15, :-15] + 0.6 * photo[15:, 15:])
assert np.allclose(convolution[15:, 15:], photo[15:, 15:] + 0.6 * photo[:-15, :-15])

figure, axes = viz.panels(1, 3, width=9.0, height=2.3)
axes[0].imshow(echo, cmap="gray")
axes[0].text(17, 15, "1", color="white", va="center")
axes[0].text(28.5, 28, "0.6", color="white", ha="right", va="center")
axes[1].imshow(correlation, cmap="gray")
axes[2].imshow(convolution, cmap="gray")
titles = "kernel", "cross-correlation", "convolution"
for ax, title in zip(axes, titles, strict=True):
    ax.set(title=title, xticks=[], yticks=[])
figure

# %% [markdown]
# *Figure 2. In the kernel the second weight is at the lower right. Cross-correlation lets every place
# **look** there: the second flower appears at the upper left of the first. Convolution lets every pixel
# **draw** the kernel: the second flower appears at the lower right. (Where the kernel sticks out of the
# photo it meets zeros; hence the darker borders.)*
#
# A network learns its kernels. Whether it learns $w$ or the flipped $\bar w$ makes no difference to what
# it can do, so every deep learning library leaves the flip out, and says convolution all the same. So do
# we from here on. The flip will come back by itself, in the gradient (lesson 06).

# %% [markdown]
# ### Many channels, many kernels
#
# An image has $C$ channels, and a layer has $O$ kernels, each of which looks through all channels at once
# and makes one channel of the output. With a batch of $N$ images and a bias $b_o$ for each kernel:
#
# $$y_{nopq} = b_o + \sum_{c=0}^{C-1} \sum_{r=0}^{R-1} \sum_{s=0}^{S-1} w_{ocrs}\, x_{n,\,c,\,p+r,\,q+s}$$
#
# | | shape |
# |---|---|
# | images $x$ | $(N, C, H, W)$ |
# | kernels $w$ | $(O, C, R, S)$ |
# | output $y$ | $(N, O, P, Q)$ |
#
# Along rows and columns the kernel is local and slides. Along the channels it is neither: each output
# channel has a weight for each input channel, as in a linear layer.

# %% [markdown]
# ### Stride, padding, dilation, and the size of the output
#
# Three numbers say where the kernel goes. Put $z$ rows and columns of zeros around the image
# (*padding*). Move the kernel by $a$ pixels from one place to the next (*stride*). Let its weights, its
# *taps*, lie $d$ pixels apart (*dilation*). With $\hat x$ for the padded image,
#
# $$y_{nopq} = b_o + \sum_{c,r,s} w_{ocrs}\, \hat x_{n,\,c,\,pa + rd,\,qa + sd}$$
#
# How many places $P$ are there in a column? The padded image has the rows $0 \dots H + 2z - 1$. At place
# $p$ the last tap, $r = R - 1$, meets row $pa + (R-1)d$, which must exist:
#
# $$pa + (R-1)d \;\le\; H + 2z - 1 \qquad\Longleftrightarrow\qquad
# p \;\le\; \frac{H + 2z - (R-1)d - 1}{a}$$
#
# (subtract, then divide by $a > 0$). The places are the integers from 0 to the largest that fits; with
# $\lfloor\cdot\rfloor$ for rounding down,
#
# $$\boxed{\;P = \left\lfloor \frac{H + 2z - d(R-1) - 1}{a} \right\rfloor + 1\;}$$
#
# and $Q$ likewise. Two cases to know by heart: an odd kernel with $a = d = 1$ and $z = (R-1)/2$ keeps the
# size; with $a = 2$ it halves it, rounded up.


# %%
def output_size(H, R, stride=1, padding=0, dilation=1):
    return (H + 2 * padding - dilation * (R - 1) - 1) // stride + 1


for H, R in (28, 3), (28, 5), (9, 1):
    for stride, padding, dilation in np.ndindex(4, 3, 3):
        a, z, d = stride + 1, padding, dilation + 1
        y = F.conv2d(np.zeros((1, 1, H, H)), np.zeros((1, 1, R, R)), None, a, z, d)
        assert y.shape[2:] == (output_size(H, R, a, z, d),) * 2
print("28 rows, 3 x 3 kernel:", output_size(28, 3), "places")
print("with padding 1:       ", output_size(28, 3, padding=1))
print("and stride 2:         ", output_size(28, 3, stride=2, padding=1))

# %% [markdown]
# ### Groups, and kernels of one pixel
#
# **Groups.** Cut the $C$ channels into $G$ groups of $C/G$, and the $O$ kernels as well. Kernel $o$
# belongs to group $g = \lfloor o / (O/G) \rfloor$ and sees the channels of that group only:
#
# $$y_{nopq} = b_o + \sum_{c=0}^{C/G-1} \sum_{r,s} w_{ocrs}\, \hat x_{n,\,g\,C/G + c,\,pa+rd,\,qa+sd}
# \qquad w: (O, C/G, R, S)$$
#
# With $G = C$ each channel has kernels of its own and meets no other: a *depthwise* convolution.
#
# **1 x 1.** With $R = S = 1$ the sums over $r$ and $s$ have one term, and what is left is
# $y_{nopq} = b_o + \sum_c w_{oc}\, x_{ncpq}$: the same linear layer at every pixel. It moves nothing,
# it mixes the channels. Depthwise and 1 x 1 together do, in two steps, what an ordinary convolution
# does in one: look around, and mix. (With fewer weights: not every kernel can be split in this way.)

# %% [markdown]
# ### What it costs
#
# Each of the $N \cdot O \cdot P \cdot Q$ numbers of the output is a sum of $(C/G) \cdot R \cdot S$ products:
#
# $$\text{multiplications} = N\,O\,P\,Q \cdot \frac{C}{G}\,R\,S \qquad\qquad
# \text{weights} = O \cdot \frac{C}{G}\,R\,S$$
#
# The weights do not depend on the size of the image. The multiplications do, and there are many:


# %%
def multiplications(C, O, size, kernel, groups=1):
    """For one image of size x size pixels; the size stays."""
    return O * size**2 * (C // groups) * kernel**2


dense = multiplications(64, 64, 56, 3)
apart = multiplications(64, 64, 56, 3, groups=64) + multiplications(64, 64, 56, 1)
print(f"3 x 3, 64 to 64 channels, 56 x 56: {dense:11,} multiplications")
print(f"depthwise 3 x 3, then 1 x 1:       {apart:11,}")
assert dense == 115_605_504 and 7 < dense / apart < 8

# %% [markdown]
# ### What a pixel can see
#
# The *receptive field* of a pixel in layer $l$ of a stack is the part of the input it depends on. Let
# $r_l$ be its width in pixels of the input ($r$ alone still counts taps), and $j_l$ the *jump*: how far
# apart, in pixels of the input, the fields of two neighbours of layer $l$ are. The input has $r_0 = j_0 = 1$.
#
# Layer $l$ has kernel size $R_l$, stride $a_l$ and dilation $d_l$. One of its pixels looks at $R_l$ pixels
# of layer $l - 1$. The first and the last of them are $(R_l - 1)\,d_l$ steps apart, each of which is
# $j_{l-1}$ pixels of the input. The first one's field is $r_{l-1}$ wide; the last one's is as wide, and lies
# that distance further on. So the whole is wider than $r_{l-1}$ by the distance. And a step in layer $l$ is
# $a_l$ steps in layer $l-1$:
#
# $$\boxed{\;r_l = r_{l-1} + (R_l - 1)\,d_l\,j_{l-1} \qquad\qquad j_l = a_l\,j_{l-1}\;}$$
#
# Padding moves the field, and does not change its width.


# %%
def receptive_field(layers):
    """Width of the field of one pixel, for layers (kernel, stride, dilation), first to last."""
    width, jump = 1, 1
    for kernel, stride, dilation in layers:
        width += (kernel - 1) * dilation * jump
        jump *= stride
    return width


def draw_stack(ax, layers, title):
    """A stack in one dimension: dots are pixels, lines lead from the top one to what it sees."""
    jumps = np.cumprod([1] + [stride for _, stride, _ in layers])
    seen = {0}
    for level in range(len(layers), -1, -1):
        grid = np.arange(-8 // jumps[level] + 1, 8 // jumps[level]) * jumps[level]
        ax.plot(grid, np.full(grid.shape, level), "o", color="#BBBBBB", markersize=4)
        ax.plot(sorted(seen), [level] * len(seen), "o", color=viz.COLOURS[0], markersize=5)
        if level:
            kernel, _, dilation = layers[level - 1]
            steps = (np.arange(kernel) - kernel // 2) * dilation * jumps[level - 1]
            for unit in seen:
                for step in steps:
                    ax.plot([unit, unit + step], [level, level - 1], color="#56B4E9", linewidth=0.8)
            seen = {unit + step for unit in seen for step in steps}
    ax.set(title=title, xticks=[], yticks=range(4), yticklabels=["input", 1, 2, 3])
    return seen


stacks = {
    "plain": [(3, 1, 1)] * 3,
    "strides 2, 2, 1": [(3, 2, 1), (3, 2, 1), (3, 1, 1)],
    "dilations 1, 2, 4": [(3, 1, 1), (3, 1, 2), (3, 1, 4)],
}
figure, axes = viz.panels(1, 3, width=9.0, height=2.6)
for ax, (name, layers) in zip(axes, stacks.items(), strict=True):
    seen = draw_stack(ax, layers, f"{name}: sees {receptive_field(layers)}")
    assert sorted(seen) == list(range(min(seen), max(seen) + 1))  # no gaps
    assert len(seen) == receptive_field(layers)
figure

# %% [markdown]
# *Figure 3. Three layers of kernel size 3 in one dimension. Blue dots are what the pixel at the top
# depends on. Left, each layer adds 2 pixels to the field. In the middle they add 2, 4 and 8, but the
# pixels thin out: layer 2 has one for every four of the input. On the right they add as many, and all
# pixels stay.*
#
# Three layers of 3 x 3 see as far as one of 7 x 7. With $C$ channels throughout they have
# $3 \cdot 9\,C^2 = 27\,C^2$ weights where the one has $49\,C^2$, and two more nonlinearities.

# %% [markdown]
# ### Backward
#
# Hold $w$ fixed, and $y$ is linear in $x$; hold $x$ fixed, and it is linear in $w$. So the rules are
# adjoints (lesson 02), and lesson 06 derives them. Until then we borrow the library's, and check them.

# %% [markdown]
# ## The code
#
# ### Seven loops
#
# The equation with everything in it. Four loops choose a number of the output, three run through the
# products that it is the sum of.


# %%
def conv2d_loops(x, w, *, stride=1, padding=0, dilation=1, groups=1):
    """x (N, C, H, W), w (O, C/G, R, S) -> y (N, O, P, Q)."""
    N, C, H, W = x.shape
    O, each, R, S = w.shape
    P = output_size(H, R, stride, padding, dilation)
    Q = output_size(W, S, stride, padding, dilation)
    around = (padding, padding)
    x = np.pad(x, ((0, 0), (0, 0), around, around))
    y = np.zeros((N, O, P, Q))
    for n, o, p, q in np.ndindex(N, O, P, Q):
        first = o // (O // groups) * each  # first channel of the group that o belongs to
        for c, r, s in np.ndindex(each, R, S):
            seen = x[n, first + c, p * stride + r * dilation, q * stride + s * dilation]
            y[n, o, p, q] += w[o, c, r, s] * seen
    return y


rng = np.random.default_rng(0)
x, w = rng.normal(size=(2, 4, 7, 6)), rng.normal(size=(6, 2, 3, 3))
options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
y = conv2d_loops(x, w, **options)
print("output", y.shape, "as the library's:", np.allclose(y, F.conv2d(x, w, **options).data))

# %% [markdown]
# ### Windows, without copying
#
# NumPy keeps an array as one run of numbers in memory, together with its *strides*: how many bytes to
# step for the next index of each axis. (Another meaning of the word than above.) An array of all windows,
# with the axes $(N, C, R, S, P, Q)$, needs no memory of its own. A step to the next tap is $d$ rows of
# the image, a step to the next place is $a$ rows: different steps through the same numbers.


# %%
def windows(x, R, S, stride=1, dilation=1):
    """All windows of padded images, as a view: (N, C, H, W) -> (N, C, R, S, P, Q)."""
    N, C, H, W = x.shape
    P, Q = output_size(H, R, stride, 0, dilation), output_size(W, S, stride, 0, dilation)
    n, c, h, w = x.strides
    steps = n, c, h * dilation, w * dilation, h * stride, w * stride
    return as_strided(x, (N, C, R, S, P, Q), steps, writeable=False)


x, w = rng.normal(size=(2, 4, 7, 6)), rng.normal(size=(6, 4, 3, 3))
seen = windows(x, 3, 3)
print("windows", seen.shape, "in the image's memory:", np.shares_memory(seen, x))
y = np.einsum("ocrs,ncrspq->nopq", w, seen)
print("loops and windows agree:", np.allclose(y, conv2d_loops(x, w)))

# %% [markdown]
# `einsum` reads like the equation. (`as_strided` checks nothing: with wrong steps it shows memory that
# belongs to something else, and where windows overlap, to write into one is to write into others.
# Hence `writeable=False`.)
#
# ### Columns, and one matrix product
#
# In the sum over $c, r, s$ the three letters always come together. Make one axis of them, of length
# $CRS$, and another one of the places, of length $PQ$. The windows of an image become a matrix, with one
# **column** for each place, and the kernels one with a **row** for each kernel:
#
# $$\underbrace{y}_{(O,\;PQ)} \;=\; \underbrace{w}_{(O,\;CRS)} \;\;
# \underbrace{\text{columns}}_{(CRS,\;PQ)}$$
#
# The order of the letters inside $CRS$ must be the same on both sides. This form is known as *im2col*,
# image to columns; the library, like PyTorch, calls it `F.unfold`.


# %%
def columns(x, R, S, *, stride=1, padding=0, dilation=1):
    """What the kernel sees at each place, written out: (N, C, H, W) -> (N, C*R*S, P*Q)."""
    around = (padding, padding)
    x = np.pad(x, ((0, 0), (0, 0), around, around))
    seen = windows(x, R, S, stride, dilation)
    N, C, R, S, P, Q = seen.shape
    return seen.reshape(N, C * R * S, P * Q)  # here it is copied


images, labels = digits()[:]
seven = images[7]  # (1, 8, 8)
table = columns(seven[None], 3, 3)[0]  # (9, 36)
assert labels[7] == 7
for r, s in np.ndindex(3, 3):
    assert np.array_equal(table[3 * r + s].reshape(6, 6), seven[0, r : r + 6, s : s + 6])

figure, axes = viz.panels(2, 1, height=4.8)
axes[0].imshow(seven[0], cmap="gray")
axes[0].set(title="image (8, 8)", xticks=[], yticks=[])
axes[1].imshow(table, cmap="gray")
taps = [f"{r}, {s}" for r, s in np.ndindex(3, 3)]
axes[1].set(title="columns (9, 36)", ylabel="tap $r, s$", yticks=range(9), yticklabels=taps)
axes[1].set(xlabel="place, row after row", xticks=range(0, 36, 6))
figure

# %% [markdown]
# *Figure 4. A digit, and its columns for a kernel of 3 x 3. A column is one window. A row is what one tap
# meets at all 36 places: 6 x 6 pixels of the image, which begin at the tap's own place. So the nine rows
# look alike, only shifted.*


# %%
def conv2d(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Convolution as a matrix product: x (N, C, H, W), w (O, C/G, R, S) -> y (N, O, P, Q)."""
    N, C, H, W = x.shape
    O, each, R, S = w.shape
    seen = columns(x, R, S, stride=stride, padding=padding, dilation=dilation)
    seen = seen.reshape(N, groups, each * R * S, -1)  # channels of a group are neighbours
    y = w.reshape(groups, O // groups, each * R * S) @ seen  # (N, G, O/G, P*Q)
    y = y.reshape(N, O, -1, output_size(W, S, stride, padding, dilation))
    return y if b is None else y + b[:, None, None]


tried = 0
for stride, padding, dilation in np.ndindex(3, 3, 2):
    for groups in 1, 2, 4:
        options = {"stride": stride + 1, "padding": padding, "dilation": dilation + 1}
        options["groups"] = groups
        x, w = rng.normal(size=(2, 4, 7, 6)), rng.normal(size=(8, 4 // groups, 3, 2))
        y = conv2d(x, w, **options)
        assert np.allclose(y, conv2d_loops(x, w, **options))
        assert np.allclose(y, F.conv2d(x, w, **options).data)
        tried += 1
print(f"loops, matrix product and library agree on {tried} choices of options")
print(
    "unfold gives our columns:",
    np.array_equal(F.unfold(x, 3, padding=1).data, columns(x, 3, 3, padding=1)),
)

pointwise = rng.normal(size=(8, 4, 1, 1))
at_each_pixel = np.einsum("oc,nchw->nohw", pointwise[:, :, 0, 0], x)
print("1 x 1 mixes the channels of each pixel:", np.allclose(conv2d(x, pointwise), at_each_pixel))

# %% [markdown]
# In networks one uses the layer, which keeps kernels and biases as parameters:

# %%
layer = nn.Conv2d(4, 8, kernel_size=3, stride=2, padding=1)
weight, bias = layer.weight.data, layer.bias.data
print(layer, weight.shape)
print(np.allclose(layer(mt.tensor(x)).data, conv2d(x, weight, bias, stride=2, padding=1)))

# %% [markdown]
# ### Why it is fast
#
# The three forms do the same multiplications. How long does each take? We measure processor time, and keep
# the fastest of several runs. The dotted line is the matrix product alone, with its columns already there.


# %%
def seconds(work, runs=3):
    taken = []
    for _ in range(runs):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return max(min(taken), 1e-6)


kernels = rng.normal(size=(8, 8, 3, 3))
matrix = kernels.reshape(8, 72)
sizes = [8, 16, 32, 64, 128]
curves = {"seven loops": [], "windows, einsum": [], "columns, product": [], "product alone": []}
for size in sizes:
    x = rng.normal(size=(1, 8, size, size))
    written = columns(x, 3, 3)[0]
    if size <= 16:
        curves["seven loops"].append(seconds(lambda x=x: conv2d_loops(x, kernels), runs=1))
    curves["windows, einsum"].append(
        seconds(lambda x=x: np.einsum("ocrs,ncrspq->nopq", kernels, windows(x, 3, 3)))
    )
    curves["columns, product"].append(seconds(lambda x=x: conv2d(x, kernels)))
    curves["product alone"].append(seconds(lambda written=written: matrix @ written))
assert curves["seven loops"][1] > 5 * curves["columns, product"][1]

batch, kernels = rng.normal(size=(64, 16, 34, 34)), rng.normal(size=(16, 16, 3, 3))
blocks = [1, 2, 4, 8, 16, 32, 64]


def in_blocks(size):
    return [conv2d(batch[i : i + size], kernels) for i in range(0, len(batch), size)]


per_block = [seconds(lambda size=size: in_blocks(size), runs=5) for size in blocks]
mebibytes = [columns(batch[:size], 3, 3).nbytes / 2**20 for size in blocks]

figure, axes = viz.panels(1, 2, width=9.0, height=3.4)
for (name, taken), style, colour in zip(
    curves.items(), ("o-", "s--", "^-", ":"), viz.COLOURS, strict=False
):
    axes[0].loglog(sizes[: len(taken)], taken, style, color=colour, label=name)
axes[0].set(xlabel="rows and columns of the image", ylabel="seconds", xticks=sizes)
axes[0].set_ylim(1e-6, 30)
axes[0].set_xticklabels(sizes)
axes[0].minorticks_off()
axes[0].legend(frameon=False, fontsize=9, loc="upper right")
axes[1].semilogx(mebibytes, np.array(per_block) / min(per_block), "o-", color=viz.COLOURS[0])
axes[1].set(
    xlabel="columns written out at a time, MiB", ylabel="time, the best = 1", ylim=(0, None)
)
figure

# %% [markdown]
# *Figure 5. Left: the time of each form, 8 to 8 channels, both axes logarithmic. Right: 64 images of 16
# channels, as many of them at a time as the axis says. (Times differ from one computer to the next, and
# from run to run.)*
#
# - **Loops.** For each single product Python looks up names, makes objects, checks indices. The
#   multiplication itself is the least of it.
# - **Windows and `einsum`.** The same loops, but compiled. Each number is fetched from memory anew for
#   every product it takes part in.
# - **Columns and a matrix product.** A matrix product is the best-tuned routine a computer has. It cuts
#   both matrices into blocks that fit into the *cache*, the small fast memory beside the processor, and
#   uses each number that is there many times: a weight $PQ$ times, a pixel $O$ times. And it multiplies
#   several pairs in one instruction. The gap down to the dotted line is what writing the columns costs.
#
# The price is memory. Each pixel is written down once for each tap that meets it:

# %%
x = rng.normal(size=(1, 16, 34, 34))
written = columns(x, 3, 3)
print(f"columns take {written.nbytes / x.nbytes:.1f} times the memory of the image")
assert written.nbytes / x.nbytes == 9 * 32**2 / 34**2

# %% [markdown]
# So about $RS$ times. Write the columns of a whole batch out, and they no longer fit into the cache: they
# travel to the main memory and back, and the product waits for them. That is the rise on the right of
# the picture; where it begins depends on the computer's caches. So where the library writes columns out, it
# does so for a few images at a time (`BLOCK_BYTES` in `minitorch_attn/ops/windows.py`). The sums are the
# same.

# %% [markdown]
# ### Fewer multiplications
#
# All forms so far do the same multiplications. Fewer are enough. (In this section $d$, $g$ and $G$ have
# meanings of their own, those of the papers.) Take a kernel of three taps $g_0, g_1, g_2$ and four
# neighbouring inputs $d_0 \dots d_3$. Two outputs need six multiplications:
#
# $$y_0 = d_0 g_0 + d_1 g_1 + d_2 g_2 \qquad\qquad y_1 = d_1 g_0 + d_2 g_1 + d_3 g_2$$
#
# S. Winograd found that four are enough. Compute
#
# $$\begin{aligned}
# m_1 &= (d_0 - d_2)\,g_0 & m_2 &= (d_1 + d_2)\,\tfrac{g_0 + g_1 + g_2}{2} \\
# m_3 &= (d_2 - d_1)\,\tfrac{g_0 - g_1 + g_2}{2} & m_4 &= (d_1 - d_3)\,g_2
# \end{aligned}$$
#
# Take the sum and the difference of $m_2$ and $m_3$, and in each collect what stands before $g_0 + g_2$
# and what stands before $g_1$, which has the other sign in $m_3$:
#
# $$\begin{aligned}
# m_2 + m_3 &= \tfrac12\big[(d_1 + d_2) + (d_2 - d_1)\big](g_0 + g_2)
#            + \tfrac12\big[(d_1 + d_2) - (d_2 - d_1)\big]\,g_1 = d_2 g_0 + d_2 g_2 + d_1 g_1 \\
# m_2 - m_3 &= \tfrac12\big[(d_1 + d_2) - (d_2 - d_1)\big](g_0 + g_2)
#            + \tfrac12\big[(d_1 + d_2) + (d_2 - d_1)\big]\,g_1 = d_1 g_0 + d_1 g_2 + d_2 g_1
# \end{aligned}$$
#
# Add $m_1$ to the first and $d_2 g_0$ becomes $d_0 g_0$; subtract $m_4$ from the second and $d_1 g_2$
# becomes $d_3 g_2$:
#
# $$m_1 + m_2 + m_3 = y_0 \qquad\qquad m_2 - m_3 - m_4 = y_1$$
#
# The sums of $g$ are made once for a kernel, those of $d$ once for all kernels. With $\odot$ for the
# product element by element, this is $y = A^\top\big[(G g) \odot (B^\top d)\big]$, named $F(2, 3)$: two
# outputs, three taps. Each row of $G$ and of $B^\top$ makes one factor of one $m$, each row of $A^\top$ one
# output; the next cell has all three.
#
# In two dimensions it is *nested*. Read the three taps as three rows of a kernel, and the four inputs as
# four rows of an image. Then each of the four "products" is itself a convolution of rows, and costs 4
# multiplications for 2 outputs:
#
# $$y = A^\top \big[ (G g G^\top) \odot (B^\top d\, B) \big] A \qquad g: (3, 3),\ d: (4, 4),\ y: (2, 2)$$
#
# $F(2 \times 2, 3 \times 3)$ takes 16 multiplications where the equation takes $4 \cdot 9 = 36$. With many
# channels, add up over $c$ before the last step, which is linear: for each of the 16 positions in $d$, a
# *tile*, this is a matrix product of kernels and tiles. So are the other steps, in which a tile is written
# as a vector, row after row; then $B^\top d\,B$ is one matrix, `np.kron(B, B).T`, times that vector.

# %%
B = np.array([[1.0, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A = np.array([[1.0, 0], [1, 1], [1, -1], [0, -1]])


def winograd(x, w, A=A, B=B, G=G):
    """x (C, H, W), w (O, C, 3, 3) -> y (O, H-2, W-2); A has m columns, m divides H-2 and W-2."""
    A, B, G = A.astype(x.dtype), B.astype(x.dtype), G.astype(x.dtype)
    (C, H, W), O, (n, m) = x.shape, len(w), A.shape
    tiles = windows(x[None], n, n, stride=m)[0]  # (C, n, n, tiles down, tiles across)
    d = np.kron(B, B).T @ tiles.reshape(C, n * n, -1)  # BᵀdB of each of T tiles: (C, n*n, T)
    g = w.reshape(O, C, 9) @ np.kron(G, G).T  # GgGᵀ of each kernel: (O, C, n*n)
    products = g.transpose(2, 0, 1) @ d.transpose(1, 0, 2)  # sums over c: (n*n, O, T)
    y = np.kron(A, A).T @ products.transpose(1, 0, 2)  # (O, m*m, T)
    return y.reshape(O, m, m, *tiles.shape[3:]).transpose(0, 3, 1, 4, 2).reshape(O, H - 2, W - 2)


x, w = rng.normal(size=(64, 34, 34)), rng.normal(size=(16, 64, 3, 3))
exact = conv2d(x[None], w)[0]
print("equal to the matrix product:", np.allclose(winograd(x, w), exact))
print(
    "and to the loops:",
    np.allclose(winograd(x[:2], w[:2, :2]), conv2d_loops(x[None, :2], w[:2, :2])[0]),
)

# %% [markdown]
# **Where the four come from.** Multiply two polynomials, one with the coefficients $g_0 \dots g_{R-1}$, the
# other with $u_0 \dots u_{m-1}$. The product has $n = m + R - 1$ coefficients, $\sum_r g_r u_{i-r}$ for $i
# = 0 \dots n - 1$: a convolution. But a polynomial with $n$ coefficients is known by its values at $n$
# points, and there the product takes **one multiplication a point**. Let $V_k$, of shape $(n, k)$, hold the
# powers $0 \dots k - 1$ of the $n$ points: times $k$ coefficients it gives the values. (One point may be
# "infinity", whose row picks the highest coefficient; that of a product is the product of those of its
# factors.) So the product is
#
# $$V_n^{-1} \big[ (V_R\, g) \odot (V_m\, u) \big]$$
#
# For a fixed $g$ this is linear in $u$, and its adjoint (lesson 02) is the cross-correlation with $g$: put
# $p = i - r$ into $\sum_i d_i \sum_r g_r u_{i-r} = \sum_p u_p \sum_r g_r d_{p+r}$. What was applied to $u$
# is $V_m$, then the factors $V_R\,g$, then $V_n^{-1}$; the adjoint applies their transposes in the reverse
# order:
#
# $$y = V_m^\top \big[ (V_R\, g) \odot (V_n^{-\top} d) \big] \qquad A = V_m,\quad G = V_R,\quad B = V_n^{-1}$$
#
# The points $0, 1, -1, \infty$ give the matrices above, but for signs and halves that can move from one to
# another. Six points give $F(4 \times 4, 3 \times 3)$: 36 multiplications in place of 144.
#
# All these forms are equal but for rounding: they add up other numbers. How much do they lose in float32?


# %%
def from_points(points, R=3):
    """A (n, m), B (n, n) and G (n, R) of F(m, R), from n - 1 points and infinity."""
    n = len(points) + 1

    def V(k):
        return np.vstack([np.vander(points, k, increasing=True), np.eye(k)[-1]])

    return V(n - R + 1), np.linalg.inv(V(n)), V(R)


half, two = np.sqrt([0.5, 2])
forms = {
    "F(2x2, 3x3) at 0, ±1": (A, B, G),
    "F(4x4, 3x3) at 0, ±1, ±2": from_points([0, 1, -1, 2, -2]),
    "F(4x4, 3x3) at 0, ±√½, ±√2": from_points([0, half, -half, two, -two]),
}
x32, w32 = x.astype(np.float32), w.astype(np.float32)
errors = {"one matrix product": conv2d(x32[None], w32)[0] - exact}
for name, matrices in forms.items():
    assert np.allclose(winograd(x, w, *matrices), exact)
    errors[name] = winograd(x32, w32, *matrices) - exact

size = {name: 1e6 * error.std() / exact.std() for name, error in errors.items()}
for name, millionths in size.items():
    bound = next(bound for bound in (0.5, 1.2, 3) if millionths < bound)
    print(f"{name:27} error below {bound} millionths of the output")
assert size["F(2x2, 3x3) at 0, ±1"] < 1.5 * size["one matrix product"]
assert size["F(4x4, 3x3) at 0, ±√½, ±√2"] < size["F(4x4, 3x3) at 0, ±1, ±2"] / 1.5

# %% [markdown]
# (Root of the mean square of the error, over that of the output.) The small tile is no less accurate here.
# A likely reason: it adds $C$ products where the direct form adds $9C$, which makes up for what the
# transforms lose. The larger tile loses most of a digit at $0, \pm 1, \pm 2$, the points of Lavin and Gray
# (2016), where powers up to $2^5$ appear; with points nearer to 1 its error is about half of that. Time is
# not saved in the same measure: the transforms cost too, and pay only if enough channels share them.
#
# The library computes small kernels with stride 1 in this way, in tiles of six pixels at the points of the
# last line: along rows and columns where there are many channels, along one of the two where there are few
# (`winograd.py` and `winograd_rows.py` in `minitorch_attn/ops/convolution_forms`; `__init__.py` there says
# which form is chosen when). So its answer is that of the loops up to rounding, not to the last bit.

# %% [markdown]
# ## The gradient check
#
# The library's rules, with all options, against central differences:


# %%
def strided(x, w, b):
    return F.conv2d(x, w, b, stride=2, padding=1, dilation=2, groups=2)


x, w, b = rng.normal(size=(1, 4, 6, 7)), rng.normal(size=(2, 2, 3, 2)), rng.normal(size=2)
report = mt.gradcheck(strided, x, w, b)
print(report)

# %%
assert report.ok
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 6. The gradients of the image (its four channels side by side), the kernels and the biases: by the
# rules, measured, and their difference. (Why so much white in the image? With stride 2 and dilation 2, taps
# meet every second row and column only.)*
#
# And when it is wrong? The matrix product has its rules since lesson 02. What is new is the step before
# it: to write the windows out. It takes pixels, many of them repeatedly, and lesson 02 says what the rule
# of that is: what comes back from all copies is **added**. Someone assigns instead.


# %%
def taken(H, W, R, S, stride):
    """Row and column of the pixel that each tap meets at each place, to index with."""
    P, Q = output_size(H, R, stride), output_size(W, S, stride)
    r, s, p, q = np.ogrid[:R, :S, :P, :Q]  # counts along one axis each, ready to broadcast
    return p * stride + r, q * stride + s


def write_out(x, *, stride=1):
    """Windows of 3 x 3, x (H, W) -> (3, 3, P, Q), and the rule."""
    place = taken(*x.shape, 3, 3, stride)

    def vjp_x(dy):
        dx = np.zeros_like(x)
        np.add.at(dx, place, dy)
        return dx

    return x[place], vjp_x


def write_out_wrong(x, *, stride=1):
    place = taken(*x.shape, 3, 3, stride)

    def vjp_x(dy):
        dx = np.zeros_like(x)
        dx[place] = dy
        return dx

    return x[place], vjp_x


x = rng.normal(size=(6, 7))
assert np.array_equal(write_out(x)[0], windows(x[None, None], 3, 3)[0, 0])
assert mt.check_vjp(write_out, x).ok
wrong = mt.check_vjp(write_out_wrong, x, raise_on_failure=False)
print(wrong)

# %%
error = ~np.isclose(wrong.inputs[0].analytic, wrong.inputs[0].numeric, atol=1e-6)
corners = np.zeros((6, 7), bool)
corners[[0, 0, -1, -1], [0, -1, 0, -1]] = True
assert np.array_equal(error, ~corners)
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 7. The rule that assigns: only the four corners are right. (A few other errors are small, and as
# dark in the picture; the cell compares the numbers.) The corners are the pixels that only one window sees;
# everywhere else one copy overwrote the others.*
#
# With stride 3 the windows do not overlap, and the wrong rule passes:

# %%
apart = mt.check_vjp(write_out_wrong, rng.normal(size=(6, 9)), stride=3)
print("stride 3:", "passed" if apart.ok else "FAILED")
assert apart.ok

# %% [markdown]
# So check at shapes where things overlap, and where all sizes differ. Lesson 06 turns this adding into
# convolutions.

# %% [markdown]
# ## At work
#
# ### What a pixel does see
#
# The receptive field says what a pixel *can* depend on. How much it *does* depend on each pixel of the
# input is a gradient: put a random `dy` on one pixel of the last layer, zeros elsewhere, and let the
# engine carry it back to the image. Here through stacks of 3 x 3 convolutions with random weights and
# ReLU, 8 channels each; the root of the mean square over the channels and over 20 stacks.


# %%
def sensitivity(depth, seed, channels=8, size=49):
    """Gradient of the middle pixel of the last layer to the image: (channels, size, size)."""
    rng = np.random.default_rng(seed)
    x = mt.tensor(rng.normal(size=(1, channels, size, size)), requires_grad=True)
    y = x
    for _ in range(depth):
        w = rng.normal(size=(channels, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        y = F.relu(F.conv2d(y, w, padding=1))
    dy = np.zeros(y.shape)
    dy[0, :, size // 2, size // 2] = rng.normal(size=channels)
    y.backward(dy)
    return x.grad.data[0]


depths = [1, 2, 5, 10, 15, 20]
squares = {
    n: np.mean([sensitivity(n, seed) ** 2 for seed in range(20)], axis=(0, 1)) for n in depths
}

figure, axes = viz.panels(1, 3, width=8.0, height=3.0)
for ax, n in zip(axes, (5, 10, 20), strict=True):
    root = np.sqrt(squares[n])
    field = receptive_field([(3, 1, 1)] * n)
    reached = np.flatnonzero(root.sum(axis=0) > 1e-10 * root.max())
    assert reached[0] == 24 - n and reached[-1] == 24 + n and field == 2 * n + 1
    ax.imshow(root, cmap="viridis")
    draw_box(ax, 24 - n, 24 - n, field, field)
    ax.set(title=f"{n} layers, field {field}", xticks=[], yticks=[])
figure

# %% [markdown]
# *Figure 8. How strongly the middle pixel of the last layer depends on each pixel of the input. The frame
# is the receptive field. Outside of it the gradient is zero; inside, most of it is in the middle, the more
# so the deeper the stack.*
#
# Why? Leave the ReLUs out. Then the gradient at a pixel of the input is a sum over all **paths** from the
# top to it, each with one tap and one channel in every layer, of the products of the $n$ weights on the
# way. Let the weights be independent, with mean 0 and variance $v$. The product over one path has the
# mean square $v^n$. Two different paths differ in at least one weight; the mean of the product of the two
# has that weight's mean as a factor, and is 0. So the mean square of the gradient is
#
# $$v^n \cdot (\text{number of paths that end at the pixel})$$
#
# A path is $n$ steps of $-1$, $0$ or $1$ along the rows, and as many along the columns. Draw one of all
# paths at random: its steps are independent, each with mean 0 and variance $\tfrac13 (1 + 0 + 1) =
# \tfrac23$. Their variances add up to $\tfrac23 n$, and for many steps the number of paths has the shape of
# a bell. Its standard deviation $\sqrt{2n/3}$ grows like the **root** of the depth, while the receptive
# field reaches $n$ to either side. Is that what we measured, with the ReLUs in?

# %%
offset = np.arange(49) - 24
measured = []
for n in depths:
    along = squares[n].sum(axis=0) / squares[n].sum()
    measured.append(np.sqrt((along * offset**2).sum()))
derived = np.sqrt(2 * np.array(depths) / 3)
assert np.allclose(measured, derived, rtol=0.12)

figure, ax = viz.panels(1, 1, width=6.0, height=2.8)
ax.plot(depths, depths, "--", color=viz.COLOURS[1], label="receptive field, half its width")
ax.plot(np.arange(1, 21), np.sqrt(2 * np.arange(1, 21) / 3), color=viz.COLOURS[0], label="derived")
ax.plot(depths, measured, "o", color=viz.COLOURS[6], label="measured")
ax.set(xlabel="layers $n$", ylabel="pixels", xticks=depths)
ax.legend(frameon=False)
figure

# %% [markdown]
# *Figure 9. How far the gradient spreads, as a standard deviation in pixels, and how far it could.*
#
# At the start of its training a deep stack of 3 x 3 sees much less than its receptive field says. Strides
# and dilations widen what it sees; attention, from lesson 10 on, reaches everywhere in one layer.

# %% [markdown]
# ### Digits, moved
#
# What is gained by one kernel for all places? We put the digits of 8 x 8 into the middle of
# a canvas of 12 x 12, and train on that. Then we test on unseen digits: in the middle, moved by one
# pixel, moved by two (in all directions). Four networks of about 2000 parameters:
#
# - **no convolution**: a hidden layer of 13 units;
# - **conv, then linear**: two strided convolutions, then a linear layer on all that they give;
# - **conv, then mean** and **conv, then max**: two convolutions without stride, then of each channel only
#   the mean over all positions, or the largest value; a linear layer on these 24 numbers.
#
# And as a further arm, a simpler way to the same end: **no convolution, trained on moved digits**, with as
# many steps.

# %%
unseen, answers = digits(train=False)[:]


def on_canvas(images, down=0, right=0):
    canvas = np.zeros((len(images), 1, 12, 12))
    canvas[:, :, 2 + down : 10 + down, 2 + right : 10 + right] = images
    return canvas


class OverPositions(nn.Module):
    """One number of each channel: (N, C, H, W) -> (N, C)."""

    def __init__(self, reduce):
        super().__init__()
        self.reduce = reduce

    def forward(self, x):
        return self.reduce(x, dim=(2, 3))


def without_convolution():
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 13), nn.ReLU(), nn.Linear(13, 10))


def then_linear():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 3 * 3, 10),
    )


def then_reduced(reduce):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 24, 3, padding=1),
        nn.ReLU(),
        OverPositions(reduce),
        nn.Linear(24, 10),
    )


rng = np.random.default_rng(0)
moved = [on_canvas(image[None], *rng.integers(-2, 3, size=2)) for _ in range(5) for image in images]
in_the_middle = TensorDataset(on_canvas(images), labels), 15  # and epochs
anywhere = TensorDataset(np.concatenate(moved), np.tile(labels, 5)), 3

arms = {
    "no convolution": (without_convolution, in_the_middle),
    "conv, then linear": (then_linear, in_the_middle),
    "conv, then mean": (lambda: then_reduced(mt.Tensor.mean), in_the_middle),
    "conv, then max": (lambda: then_reduced(mt.Tensor.amax), in_the_middle),
    "no convolution, moved": (without_convolution, anywhere),
}
for name, (make, _) in arms.items():
    print(f"{name:22} {sum(p.numel() for p in make().parameters())} parameters")


# %%
def accuracies(make, dataset, epochs, seed):
    """Train; accuracy on unseen digits in the middle, moved by 1 and moved by 2, in percent."""
    mt.manual_seed(seed)
    model = make()
    loader = DataLoader(dataset, batch_size=64, shuffle=True, generator=seed)
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    fit(model, loader, optimizer=optimizer, epochs=epochs, progress=False)
    found = []
    for far in 0, 1, 2:
        steps = np.array([(a, b) for a in (-far, 0, far) for b in (-far, 0, far)])
        places = np.unique(steps[abs(steps).max(axis=1) == far], axis=0)
        x = np.concatenate([on_canvas(unseen, *place) for place in places])
        tested = DataLoader(TensorDataset(x, np.tile(answers, len(places))), batch_size=500)
        found.append(100 * evaluate(model, tested)["accuracy"])
    return found


SEEDS = 0, 1, 2
results = {
    name: np.array([accuracies(make, *data, seed) for seed in SEEDS])  # (seeds, 3)
    for name, (make, data) in arms.items()
}

# %%
print(f"{'mean of three seeds, %':24} middle  by 1  by 2")
for name, found in results.items():
    middle, by_one, by_two = found.mean(axis=0)
    print(f"{name:24} {middle:6.1f} {by_one:5.1f} {by_two:5.1f}")

plain, linear, mean, largest, trained = results.values()
assert min(plain[:, 0].min(), linear[:, 0].min(), largest[:, 0].min()) > 93
assert abs(plain[:, 0].mean() - linear[:, 0].mean()) < 2
assert (
    max(plain[:, 1].max(), linear[:, 1].max()) < 40
    and max(plain[:, 2].max(), linear[:, 2].max()) < 15
)
assert (largest[:, 1] > 90).all() and (largest[:, 2] > 80).all()
assert largest[:, 2].mean() < largest[:, 1].mean() - 1
assert (largest > mean).all() and (largest > trained).all()
assert (trained < 75).all() and (trained[:, 0] < plain[:, 0] - 20).all()
assert (mean[:, 1:] > plain[:, 1:]).all()

figure, axes = viz.panels(1, 3, width=9.5, height=3.2)
for ax, title, column in zip(
    axes, ("in the middle", "moved by 1", "moved by 2"), range(3), strict=True
):
    viz.plot_arms({name: found[:, column] for name, found in results.items()}, label="%", ax=ax)
    ax.set(title=title, xlim=(0, 105), xlabel="accuracy, %")
for ax in axes[1:]:
    ax.set_yticklabels([])
figure

# %% [markdown]
# *Figure 10. A dot is one seed, the bar their mean. Ten percent are what guessing gives.*
#
# - In the middle, convolution gains **nothing** that three seeds could show: on small centred digits a
#   hidden layer is as good.
# - Moved by one pixel, the network without convolution breaks down, and **so does the one with
#   convolutions and a linear layer** behind them. Convolutions move their output along with the input;
#   the linear layer then has another weight for each place, and has never seen a digit there.
# - Followed by a summary that does not ask *where*, convolutions read moved digits nearly as well as those
#   in the middle, though they never saw one. That is the answer to our question: the kernel gives the same
#   answer everywhere, and the network must not throw that away afterwards.
# - In 15 epochs the maximum does it far better than the mean. The mean learns slowly (a reason may be that
#   the few pixels that tell two digits apart drown in a mean of 144): in three runs of 60 epochs, not shown
#   here, it came to about 90 %.
# - Moved by two, digits touch the edge of the canvas, and the maximum loses something, on some seeds more
#   than on others. A likely reason: the places beyond the edge, which saw a part of the digit, are missing.
# - Showing moved digits to the network without convolution helps, but with so few units and steps not far:
#   it has to learn each digit at 25 places, and pays for it in the middle.

# %% [markdown]
# ## Paper and code
#
# | | where | here |
# |---|---|---|
# | flip | mathematics, signal processing, `np.convolve` and `scipy.signal.convolve2d`: yes; PyTorch and all deep learning libraries: no | no |
# | order of the axes | PyTorch $(N, C, H, W)$, TensorFlow $(N, H, W, C)$ by default | $(N, C, H, W)$ |
# | output size | rounded down; some libraries' pooling rounds up | rounded down |
# | `padding="same"` | PyTorch: stride 1 only; TensorFlow: any stride, more zeros below and right where they are uneven | PyTorch's |
# | connections between channels | LeNet-5 (1998) joined some pairs of maps only; then all, then groups, first because AlexNet (2012) had to be spread over two graphics cards | all, or groups |
#
# A linear layer, a convolution and attention are of one form, $y_i = \sum_j W_{ij}\, x_j$ over positions $j$.
# In a linear layer $W_{ij}$ is free for every pair; in a convolution it depends on $j - i$ alone, and is 0
# if that is large; in attention (lesson 10) it is computed from the input.

# %% [markdown]
# ## Predict before you run
#
# **1.** An image of 8 x 8, a kernel of 3 x 3, stride 2, no padding. How many places are there? And which
# pixels have no influence on the output at all?

# %%
x = mt.tensor(rng.normal(size=(1, 1, 8, 8)), requires_grad=True)
y = F.conv2d(x, np.ones((1, 1, 3, 3)), stride=2)
y.sum().backward()
print("output", y.shape[2:])
print(x.grad.data[0, 0].round().astype(int))

# %% [markdown]
# <details><summary>Answer</summary>
#
# $\lfloor (8 - 3) / 2 \rfloor + 1 = 3$ in each direction. The last tap at the last place meets row
# $2 \cdot 2 + 2 = 6$, so row 7 and column 7 are seen by no window: what rounding down leaves over. The
# numbers count how many windows see a pixel (the kernel is all ones).
#
# </details>
#
# **2.** The image is moved by one pixel to the right. What happens to the output of a convolution with
# stride 1? With stride 2?

# %%
image, kernel = rng.normal(size=(1, 1, 12, 12)), rng.normal(size=(1, 1, 3, 3))
by_one = np.roll(image, 1, axis=3)
for stride in 1, 2:
    before, after = conv2d(image, kernel, stride=stride), conv2d(by_one, kernel, stride=stride)
    print(
        f"stride {stride}: the same numbers, one place on:",
        np.allclose(after[..., 1:], before[..., :-1]),
    )

# %% [markdown]
# <details><summary>Answer</summary>
#
# With stride 1 it moves along: this is called *equivariance*. With stride 2 the places fall between the old
# ones, and the numbers are new; only a move by two pixels is a move by one place.
#
# </details>
#
# **3.** Someone flips the kernel in the forward, and writes rules that fit. What does the gradient check
# say?


# %%
def flipped(x, w):
    return F.conv2d(x, w.flip((2, 3)))


report = mt.gradcheck(flipped, rng.normal(size=(1, 2, 4, 5)), rng.normal(size=(3, 2, 2, 3)))
print("passed" if report.ok else "FAILED")

# %% [markdown]
# <details><summary>Answer</summary>
#
# It passes. A gradient check says that the rules belong to the forward, not that the forward is the one
# you meant. That takes a second way to the same output: loops, or another library.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`05_convolution`](../exercises/05_convolution.ipynb):
#
# 1. **output_size**: at how many places does a kernel fit?
# 2. **conv2d_loops**: the equation, number by number.
# 3. **windows**: all windows as a view.
# 4. **columns**: the windows written out as a matrix.
# 5. **conv2d**: one matrix product, with stride, padding, dilation and groups.
# 6. **receptive_field**: how far does a pixel of a deep layer see?

# %% [markdown]
# ## What to remember
#
# - A pixel of the output is the dot product of the kernel with one window; the kernel is the same
#   everywhere. Libraries do not flip it.
# - $P = \lfloor (H + 2z - d(R-1) - 1) / a \rfloor + 1$, and $N O P Q \cdot (C/G) R S$ multiplications.
# - Windows are a view; written out as columns they make a convolution one matrix product, which is fast
#   because it uses each number in the cache many times. The columns take $RS$ times the memory.
# - Receptive field: $r_l = r_{l-1} + (R_l - 1)\, d_l\, j_{l-1}$, $j_l = a_l\, j_{l-1}$. At random weights the
#   gradient spreads over about $\sqrt{2n/3}$ pixels only.
# - Convolutions move along with their input. Whether a network is robust against moving depends on what
#   comes after them.

# %% [markdown]
# ## Sources
#
# - Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-Based Learning Applied to Document Recognition*,
#   Proceedings of the IEEE 86, 1998.
# - I. Goodfellow, Y. Bengio, A. Courville, *Deep Learning*, MIT Press 2016, chapter 9.
# - V. Dumoulin, F. Visin, *A guide to convolution arithmetic for deep learning*, 2016.
# - K. Chellapilla, S. Puri, P. Simard, *High Performance Convolutional Neural Networks for Document
#   Processing*, IWFHR 2006: convolution as a matrix product.
# - S. Winograd, *Arithmetic Complexity of Computations*, SIAM 1980; A. Lavin, S. Gray, *Fast Algorithms for
#   Convolutional Neural Networks*, CVPR 2016.
# - W. Luo, Y. Li, R. Urtasun, R. Zemel, *Understanding the Effective Receptive Field in Deep Convolutional
#   Neural Networks*, NIPS 2016.
# - K. Simonyan, A. Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*, ICLR
#   2015, section 2.3: three 3 x 3 in place of one 7 x 7.
# - The photo is scikit-learn's `flower.jpg`, released under CC BY 2.0 (flickr.com/photos/vultilion).
