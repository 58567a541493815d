# %% [markdown]
# # 06 · Convolution, backward
#
# How a gradient travels back through a convolution: to the bias, to the kernels and to the image;
# and the layer that uses the way back as its way forward.
#
# **You will be able to**
#
# - derive all three gradients of a convolution from one sum, with stride, padding, dilation and
#   groups;
# - build them in two ways, by scattering and by gathering, and prove them with the sharpest test
#   there is for a linear operation;
# - build a transposed convolution, say how large its output is and why it may show a checkerboard.
#
# **You need** lesson 05 (convolution, its windows as a view) and lesson 03 (gradient checking).
#
# **Time** about 70 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.data import DataLoader, TensorDataset, digits
from minitorch_attn.training import fit
from minitorch_attn.viz.heatmap import heat_map, write_numbers

mt.set_default_dtype("float64")


def draw(ax, table, title, numbers=False, cmap="RdBu_r"):
    """A table as colours, white at 0, with its numbers if asked."""
    limit = np.abs(table).max()
    low = -limit if cmap == "RdBu_r" else 0
    image = heat_map(ax, table, cmap=cmap, vmin=low, vmax=limit, bar=False, numbers=False)
    if numbers:
        write_numbers(ax, table, image)
    ax.set_title(title)


# %% [markdown]
# ## The idea in one picture
#
# Forward, every place of the output looks at a window of the image, multiplies it with the kernel
# and adds up: nine numbers become one.
#
# Backward, that one number has a gradient $dy$, and the nine pixels want their share. A pixel was
# multiplied with one weight, so its share is $dy$ times that weight: the place *stamps* the kernel
# back onto the window it has seen. Here are two places with $dy = 1$; all others have 0.

# %%
images, labels = digits(train=False)[:]
image = images[labels == 3][0, 0].astype(float)  # (8, 8)
kernel = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])  # answers to upright edges
chosen = [(1, 1), (2, 3)]

y = np.zeros((6, 6))
for p, q in np.ndindex(y.shape):
    y[p, q] = (kernel * image[p : p + 3, q : q + 3]).sum()

dy, dx = np.zeros((6, 6)), np.zeros((8, 8))
for p, q in chosen:
    dy[p, q] = 1
    dx[p : p + 3, q : q + 3] += dy[p, q] * kernel

figure, axes = viz.panels(1, 4, height=2.3)
draw(axes[0], image, "image x", cmap="Greys")
draw(axes[1], y, "output y")
draw(axes[2], dy, "dy, two places", numbers=True)
draw(axes[3], dx, "dx, two stamps", numbers=True)
assert dx[2, 3] == kernel[1, 2] + kernel[0, 0] == 2 - 1
assert dx[3, 3] == kernel[2, 2] + kernel[1, 0] == 1 - 2
figure

# %% [markdown]
# *Figure 1. A digit three, its upright edges, the gradients of two output places, and what they
# give back: the kernel, stamped at each place. Where the stamps overlap, in two pixels of the
# fourth column, their values are added: $2 - 1 = 1$ and $1 - 2 = -1$.*
#
# With all places stamping at once, that is the whole gradient of the image. What remains is to
# write it down exactly, and to find a fast form.

# %% [markdown]
# ## The equations
#
# ### The sum
#
# From lesson 05: $x: (N, C, H, W)$ are images, $w: (O, C, R, S)$ kernels, $b: (O)$ biases, $a$ is
# the stride and $d$ the dilation. The output $y: (N, O, P, Q)$ is
#
# $$y_{nopq} = b_o + \sum_{c,r,s} w_{ocrs} \; x_{n,\, c,\, pa + rd,\, qa + sd}$$
#
# Padding is a step before: here $x$ has its border of zeros already (it is the $\hat x$ of lesson
# 05), and $H, W$ include it. The gradient of that step crops the border off again. Groups come at
# the end.
#
# Two things can be read off. For fixed $w$, and without the bias, $y$ is *linear* in $x$: twice the
# image gives twice the output, and the sum of two images the sum of their outputs. In the same way
# it is linear in $w$ for a fixed $x$.
#
# Let $L$ be the loss and $dy_{nopq} = \partial L / \partial y_{nopq}$. For any variable $t$ the
# chain rule says (lesson 01)
#
# $$dt = \sum_{n,o,p,q} dy_{nopq} \frac{\partial y_{nopq}}{\partial t}$$
#
# and since each term under the sum in $y$ is a product of two factors, its derivative with respect
# to one of them is the other.
#
# ### The bias
#
# $\partial y_{nopq} / \partial b_{o'}$ is 1 if $o = o'$ and 0 otherwise. Of the sum over $o$ one
# term remains:
#
# $$\boxed{\; db_o = \sum_{n,p,q} dy_{nopq} \;}$$
#
# A sum, not a mean: the bias was added at all places of all images.
#
# ### The kernels
#
# In $y_{nopq}$ the weight $w_{ocrs}$ is multiplied with $x_{n,c,pa+rd,qa+sd}$. Other output
# channels do not use it. So
#
# $$\boxed{\; dw_{ocrs} = \sum_{n,p,q} dy_{nopq} \; x_{n,\, c,\, rd + pa,\, sd + qa} \;}$$
#
# Compare it with the sum we came from. There the sum ran over $r, s$, with factor $d$ at them, and
# the places were $p, q$, with factor $a$. Here the sum runs over $p, q$, and the places are $r, s$.
# So this is a convolution again: **$dy$ is the kernel, it slides over $x$, and stride and dilation
# have changed their parts.** A convolution with stride 2 has a weight gradient with dilation 2. The
# sum over $n$ does what the sum over channels did, and the channels $c$ are treated like a batch:
#
# | | slides | over | batch | summed | step of places | step of taps |
# |---|---|---|---|---|---|---|
# | $y$ | $w$ | $x$ | $n$ | $c, r, s$ | $a$ | $d$ |
# | $dw$ | $dy$ | $x$ | $c$ | $n, p, q$ | $d$ | $a$ |
#
# ### The image
#
# The pixel $x_{ncij}$ takes part in $y_{nopq}$ if some tap meets it, that is, if $pa + rd = i$ and
# $qa + sd = j$; then its factor is $w_{ocrs}$. With a bracket that is 1 if what it says is true and
# 0 otherwise,
#
# $$\frac{\partial y_{nopq}}{\partial x_{ncij}} = \sum_{r,s} w_{ocrs} \, [pa + rd = i] \,
# [qa + sd = j]$$
#
# Put into the chain rule, this sums over all output channels, and over those places and taps for
# which the brackets are 1:
#
# $$\boxed{\; dx_{ncij} = \sum_o \sum_{\substack{p,q,r,s \\ pa + rd = i \\ qa + sd = j}}
# w_{ocrs} \; dy_{nopq} \;}$$
#
# There are two ways to go through these terms.
#
# **Scatter.** Take all $p, q, r, s$ in turn, and add each product where it belongs. These are the
# stamps of figure 1:
#
# $$dx_{n,\, c,\, pa + rd,\, qa + sd} \mathrel{+}= \sum_o w_{ocrs} \; dy_{nopq}
# \qquad \text{for all } p, q, r, s$$
#
# **Gather.** Take each pixel in turn, and ask which places have met it. Let first $a = 1$. Then
# $p = i - rd$ and $q = j - sd$, and
#
# $$dx_{ncij} = \sum_{o,r,s} w_{ocrs} \; dy_{n,\, o,\, i - rd,\, j - sd}$$
#
# where $dy$ outside of its $P \times Q$ places counts as 0. This is nearly the sum we started from,
# only with a minus sign at the taps. To turn it into a plus, count the taps from the other end:
# $r' = R - 1 - r$ and $s' = S - 1 - s$, so that $-rd = r'd - (R - 1)d$:
#
# $$dx_{ncij} = \sum_{o,r',s'} \underbrace{w_{o,\, c,\, R-1-r',\, S-1-s'}}_{\text{flipped}} \;
# dy_{n,\, o,\, i + r'd - (R-1)d,\, j + s'd - (S-1)d}$$
#
# A convolution once more, with three changes:
#
# - the kernel is **flipped** in both directions;
# - its **channels are swapped**: the sum runs over $o$, and $c$ is the output channel;
# - $dy$ has a **border of zeros**, $(R-1)d$ rows above and below and $(S-1)d$ columns on each side,
#   so that the kernel may hang over the edge: a *full* correlation.
#
# With a stride $a > 1$ only those places exist for which $i - rd$ is a multiple of $a$. We put
# $a - 1$ **zeros between the elements of $dy$**: in the spread array the element $p$ stands at
# $pa$, the others are 0, and then the formula for $a = 1$ is right as it stands.
#
# ### The matrix
#
# Write all pixels of one image as one long vector of $CHW$ numbers, and all outputs as one of
# $OPQ$. A linear operation between vectors is a matrix $A: (OPQ, CHW)$,
#
# $$y = A x \qquad \Longrightarrow \qquad dx = A^\top dy$$
#
# by lesson 02. Most of $A$ is zeros, and the same $RSC$ weights stand in each row of an output
# channel, a little further to the right each time: a *Toeplitz* pattern. Nobody stores it. But it
# tells what "backward" means: *scatter* goes through the columns of $A^\top$ and adds them up;
# *gather* goes through its rows.
#
# ### The adjoint
#
# Lesson 02 has shown for all vectors $x$ and $v$, with $\langle u, v \rangle = \sum_i u_i v_i$,
#
# $$\boxed{\; \langle A x,\, v \rangle = \langle x,\, A^\top v \rangle \;}$$
#
# and called $A^\top$ the *adjoint* of $A$. No other operation has this property: if $B$ has it too,
# subtract the two equations, and $\langle x, (B - A^\top) v \rangle = 0$ for all $x$, so also for
# $x = (B - A^\top) v$. Then the squares of its numbers add up to 0, so each of them is 0, for every
# $v$. Two random arrays and two sums test the property. No step, no truncation: both sides agree to
# rounding, or the rule is wrong.
#
# ### Groups
#
# With $G$ groups the channels are cut into $G$ parts, and each part is a convolution of its own, of
# $C/G$ channels to $O/G$. So is each gradient: $G$ small problems that do not see one another. With
# $G = C = O$, a *depthwise* convolution, nothing is summed over channels, forward or backward:
#
# $$dw_{crs} = \sum_{n,p,q} dy_{ncpq} \; x_{n,\, c,\, rd+pa,\, sd+qa}, \qquad
# dx_{n,\, c,\, pa+rd,\, qa+sd} \mathrel{+}= w_{crs} \; dy_{ncpq}$$

# %% [markdown]
# ### Backward as a layer: transposed convolution
#
# A convolution with stride 2 makes images smaller. Its way back, $v \mapsto A^\top v$, makes them
# larger: each number stamps a kernel onto a larger image. With weights that are learned this is a
# layer for *learned upsampling*, the **transposed convolution**: *its forward is the $dx$ of a
# convolution.* We give its input the letters $x: (N, C, H, W)$, its output $y: (N, O, P, Q)$. Its
# weight $w: (C, O, R, S)$ is that of the convolution which goes the other way, from $O$ channels to
# $C$:
#
# $$y_{n,\, o,\, ia + rd,\, ja + sd} \mathrel{+}= \sum_c w_{cors} \; x_{ncij} \qquad
# \text{for all } i, j, r, s, \qquad \text{then add } b_o$$
#
# **Its gradients** need no new work. The forward is $A^\top$, so the way back to $x$ is
# $(A^\top)^\top = A$: *the forward of the convolution*. And each product above holds one weight,
# one $x_{ncij}$ and, on the way back, one $dy_{n,o,ia+rd,ja+sd}$, so
#
# $$dw_{cors} = \sum_{n,i,j} x_{ncij} \; dy_{n,\, o,\, ia + rd,\, ja + sd}$$
#
# which is the weight gradient of the convolution, *with $dy$ in the place of the image and $x$ in
# the place of the gradient*.
#
# **Its size.** The last number, $i = H - 1$, stamps at row $(H - 1)a$, and the kernel reaches
# $d(R - 1) + 1$ rows. The padding $z$ of the convolution is cropped at both ends:
#
# $$P = (H - 1)\,a + d\,(R - 1) + 1 - 2z + \text{output padding}$$
#
# **Output padding** is there because a strided convolution rounds down. With $R = 3$, $a = 2$ and
# $z = 0$, an image of 7 rows becomes one of 3, and so does one of 8, whose last row is met by no
# tap. Going back from 3, the formula says 7. Whoever wants 8 has to say so, and gets one more row
# at the end. As $a$ sizes in a row have the same outcome, output padding goes from 0 to $a - 1$.
# Its rows are the next ones of the uncropped output: rows that the padding would have cropped, with
# what the stamps left there, and after those, rows that no stamp reaches, with the bias alone.

# %% [markdown]
# ## The code
#
# ### Loops
#
# Each term joins a weight, a pixel and an output. Forward, weight times pixel is added to the
# output. Backward, $dy$ times the weight is added to the pixel's gradient, and $dy$ times the pixel
# to the weight's. So one loop says it all:


# %%
def conv2d_loops(x, w, b, dy, stride=1, dilation=1):
    """y and dx, dw, db, term by term; x (N, C, H, W) has its border already."""
    N, O, P, Q = dy.shape
    y, dx, dw, db = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w), np.zeros_like(b)
    for n, o, p, q in np.ndindex(N, O, P, Q):
        y[n, o, p, q] += b[o]
        db[o] += dy[n, o, p, q]
        for c, r, s in np.ndindex(w.shape[1:]):
            i, j = p * stride + r * dilation, q * stride + s * dilation
            y[n, o, p, q] += w[o, c, r, s] * x[n, c, i, j]
            dx[n, c, i, j] += w[o, c, r, s] * dy[n, o, p, q]
            dw[o, c, r, s] += dy[n, o, p, q] * x[n, c, i, j]
    return y, dx, dw, db


# %% [markdown]
# ### Arrays: scatter
#
# Lesson 05 made a view of all windows, (N, C, R, S, P, Q), without copying: a step to the next tap
# is $d$ elements in the image, a step to the next place $a$. Its adjoint takes a value for each
# element of each window, and adds it to the pixel that lies there. For each tap $(r, s)$, the
# pixels that it meets are a slice with step $a$, no pixel twice; so a loop over the taps is enough,
# and `+=` on a slice adds correctly.


# %%
def windows(x, kernel, places, stride, dilation):
    """All windows of images, as a view: (N, C, H, W) -> (N, C, R, S, P, Q)."""
    n, c, h, w = x.strides
    steps = (n, c, h * dilation, w * dilation, h * stride, w * stride)
    return np.lib.stride_tricks.as_strided(x, (*x.shape[:2], *kernel, *places), steps)


def add_windows(shape, values, stride, dilation):
    """The adjoint of `windows`: values (N, C, R, S, P, Q), added up in zeros (N, C, H, W)."""
    R, S, P, Q = values.shape[2:]
    x = np.zeros(shape)
    for r, s in np.ndindex(R, S):
        rows = slice(r * dilation, r * dilation + (P - 1) * stride + 1, stride)
        columns = slice(s * dilation, s * dilation + (Q - 1) * stride + 1, stride)
        x[:, :, rows, columns] += values[:, :, r, s]
    return x


# %% [markdown]
# With the two, the convolution and its rules are the equations from above. `np.einsum` takes the
# letters of the sum as they stand: what is missing on the right of the arrow is summed. One sum,
# three readings. (The letter `g` counts groups; `o` and `c` then count channels inside a group.)


# %%
def conv2d(x, w, b, *, stride=1, padding=0, dilation=1, groups=1):
    """x (N, C, H, W), w (O, C/G, R, S), b (O,) -> y (N, O, P, Q), and a rule for each."""
    margin = (padding, padding)
    padded = np.pad(x, ((0, 0), (0, 0), margin, margin))
    N, C, *size = padded.shape
    O, _, *kernel = w.shape
    P, Q = ((n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(size, kernel, strict=True))
    grouped = (N, groups, C // groups, *kernel, P, Q)
    seen = windows(padded, kernel, (P, Q), stride, dilation).reshape(grouped)
    kernels = w.reshape(groups, O // groups, C // groups, *kernel)
    y = np.einsum("gocrs,ngcrspq->ngopq", kernels, seen, optimize=True)

    def in_groups(dy):
        return dy.reshape(N, groups, O // groups, P, Q)

    def vjp_x(dy):
        dseen = np.einsum("gocrs,ngopq->ngcrspq", kernels, in_groups(dy), optimize=True)
        dpadded = add_windows(padded.shape, dseen.reshape(N, C, *kernel, P, Q), stride, dilation)
        return dpadded[:, :, padding : size[0] - padding, padding : size[1] - padding]

    def vjp_w(dy):
        dkernels = np.einsum("ngopq,ngcrspq->gocrs", in_groups(dy), seen, optimize=True)
        return dkernels.reshape(w.shape)

    def vjp_b(dy):
        return dy.sum(axis=(0, 2, 3))

    return y.reshape(N, O, P, Q) + b[:, None, None], (vjp_x, vjp_w, vjp_b)


# %% [markdown]
# Loops and arrays agree, with stride and dilation that differ:

# %%
rng = np.random.default_rng(0)
x, w, b = rng.normal(size=(2, 3, 10, 9)), rng.normal(size=(4, 3, 3, 2)), rng.normal(size=4)
options = {"stride": 2, "dilation": 3}

y, rules = conv2d(x, w, b, **options)
dy = rng.normal(size=y.shape)
dx, dw, db = (rule(dy) for rule in rules)
for name, ours, looped in zip(
    ["y", "dx", "dw", "db"], [y, dx, dw, db], conv2d_loops(x, w, b, dy, **options), strict=True
):
    assert np.allclose(ours, looped)
    print(f"{name:2} {ours.shape}: agree")

# %% [markdown]
# and both agree with what the library's reverse pass gives, for several settings:


# %%
def library_gradients(x, w, b, dy, **options):
    tensors = [mt.tensor(array, requires_grad=True) for array in (x, w, b)]
    F.conv2d(*tensors, **options).backward(dy)
    return [t.grad.numpy() for t in tensors]


x = rng.normal(size=(2, 4, 9, 8))
for channels, options in [
    (4, {}),
    (4, {"stride": 2, "padding": 1}),
    (4, {"stride": 3, "padding": 2, "dilation": 2}),
    (2, {"padding": 1, "groups": 2}),
    (1, {"padding": 1, "groups": 4}),
]:
    w = rng.normal(size=(8, channels, 3, 3))
    y, rules = conv2d(x, w, np.zeros(8), **options)
    dy = rng.normal(size=y.shape)
    ours = [rule(dy) for rule in rules]
    agree = all(map(np.allclose, ours, library_gradients(x, w, np.zeros(8), dy, **options)))
    print(f"{options or 'plain'}:", "agree" if agree else "DIFFER")
    assert agree

# %% [markdown]
# ### The weight gradient is a convolution
#
# Now the table of the equations, as code: $dw$ by the *forward* alone, with images and channels
# exchanged, and stride and dilation exchanged. One detail: if the stride does not divide evenly,
# the image has rows at its end that no tap meets, and the sliding $dy$ would fit at a place too
# many. We keep the first $R \times S$.

# %%
x, w = rng.normal(size=(2, 3, 10, 9)), rng.normal(size=(4, 3, 3, 3))
none = np.zeros(4)
y, (_, vjp_w, _) = conv2d(x, w, none, stride=2, dilation=1)
dy = rng.normal(size=y.shape)

images_as_channels, dy_as_kernels = x.swapaxes(0, 1), dy.swapaxes(0, 1)
dw, _ = conv2d(images_as_channels, dy_as_kernels, none, stride=1, dilation=2)  # exchanged
print("shape before keeping R x S:", dw.shape)
assert np.allclose(dw[:, :, :3, :3].swapaxes(0, 1), vjp_w(dy))

# %% [markdown]
# ### The image's gradient by gathering
#
# $dy$ with its zeros between and around, the kernel flipped, the channels swapped. Two details:
# rows that no tap has met make the border larger at the end; and the padding of the forward (at
# most $(R-1)d$) can be taken off the border at once, so that nothing needs cropping.


# %%
def spread(dy, stride):
    """dy (N, O, P, Q) with stride - 1 zeros between its elements."""
    N, O, P, Q = dy.shape
    wide = np.zeros((N, O, (P - 1) * stride + 1, (Q - 1) * stride + 1))
    wide[:, :, ::stride, ::stride] = dy
    return wide


def flipped(w):
    """The kernels of the way back: turned by 180 degrees, (O, C, R, S) -> (C, O, R, S)."""
    return w[:, :, ::-1, ::-1].swapaxes(0, 1)


def gather_dx(dy, w, size, *, stride=1, padding=0, dilation=1):
    """The gradient of images (N, C, *size) as a full correlation, without groups."""
    wide = spread(dy, stride)
    before = [dilation * (k - 1) - padding for k in w.shape[2:]]
    after = [
        n + dilation * (k - 1) - front - have
        for n, k, front, have in zip(size, w.shape[2:], before, wide.shape[2:], strict=True)
    ]
    border = [(0, 0), (0, 0), *zip(before, after, strict=True)]
    return conv2d(np.pad(wide, border), flipped(w), np.zeros(w.shape[1]), dilation=dilation)[0]


for options in {}, {"stride": 2, "padding": 1}, {"stride": 2, "dilation": 2}:
    y, (vjp_x, _, _) = conv2d(x, w, none, **options)
    dy = rng.normal(size=y.shape)
    assert np.allclose(gather_dx(dy, w, (10, 9), **options), vjp_x(dy))
    print(f"{options or 'plain'}:", "scatter and gather agree")

# %%
tap_numbers = np.arange(1.0, 10).reshape(1, 1, 3, 3)
some_dy = np.array([[[[1.0, 2], [3, 4]]]])
wide = np.pad(spread(some_dy, 2), ((0, 0), (0, 0), (2, 2), (2, 2)))
back = gather_dx(some_dy, tap_numbers, (5, 5), stride=2)
assert back[0, 0, 2, 2] == 9 * 1 + 7 * 2 + 3 * 3 + 1 * 4  # four stamps overlap in the middle

figure, axes = viz.panels(1, 5, height=2.1)
draw(axes[0], tap_numbers[0, 0], "kernel w", numbers=True)
draw(axes[1], some_dy[0, 0], "dy", numbers=True)
draw(axes[2], wide[0, 0], "dy, spread", numbers=True)
draw(axes[3], flipped(tap_numbers)[0, 0], "w, flipped", numbers=True)
draw(axes[4], back[0, 0], "dx", numbers=True)
figure

# %% [markdown]
# *Figure 2. Gathering, for a convolution of a 5x5 image with stride 2: $dy$ gets zeros between its
# elements, because of the stride, and two rows and columns of zeros around, because the kernel has
# three taps. Over that slides the flipped kernel. The middle of dx gets something from all four
# places.*
#
# Which is better? The scatter form multiplies only what is there, but adds its windows up in pieces
# that lie apart in memory. With stride 1 the gather form is a convolution, and as fast as one; with
# a larger stride most of its products have a factor 0.

# %% [markdown]
# ### The matrix, drawn
#
# The columns of $A$ are what becomes of images in which one pixel is 1. Here for images of 6x6 (7x7
# for stride 2), or of 4x4 with two channels; the colour says which tap of the kernel stands there,
# from dark (the first) to bright (the ninth).


# %%
def matrix_of(f, shape):
    """The matrix of a linear function of one image of shape (C, H, W)."""
    pixels = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    return f(pixels).reshape(len(pixels), -1).T


def conv(w, **options):
    return lambda x: conv2d(x, w, np.zeros(len(w)), **options)[0]


two = np.concatenate([tap_numbers, tap_numbers])  # two channels, one kernel each
matrices = {
    "stride 1": matrix_of(conv(tap_numbers), (1, 6, 6)),
    "stride 2": matrix_of(conv(tap_numbers, stride=2), (1, 7, 7)),
    "dilation 2": matrix_of(conv(tap_numbers, dilation=2), (1, 6, 6)),
    "depthwise, two channels": matrix_of(conv(two, groups=2), (2, 4, 4)),
}
figure, axes = viz.panels(2, 2, height=4.2)
for ax, (title, A) in zip(axes.ravel(), matrices.items(), strict=True):
    rows, columns = A.shape
    ax.imshow(np.where(A == 0, np.nan, A), cmap="viridis", aspect="auto")
    ax.set(title=f"{title}: {rows} x {columns}", xticks=[], yticks=[])
    ax.set(xlabel="pixels", ylabel="outputs")
    assert all(sorted(row[row != 0]) == list(range(1, 10)) for row in A)
assert not matrices["depthwise, two channels"][:4, 16:].any()
figure

# %% [markdown]
# *Figure 3. Four convolutions as matrices; white is 0. Every row holds the nine weights, moved to
# the place it looks at: with stride 2 each row moves by two pixels, with dilation 2 the taps lie
# apart, and with groups there are blocks, one for each group. The gradient of the image multiplies
# with the transpose: the columns say what each pixel gets.*

# %%
A = matrices["stride 2"]
dy = rng.normal(size=(1, 1, 3, 3))
_, (vjp_x, _, _) = conv2d(np.zeros((1, 1, 7, 7)), tap_numbers, np.zeros(1), stride=2)
print("A transposed times dy is dx:", np.allclose(A.T @ dy.ravel(), vjp_x(dy).ravel()))
print("weights in the columns:", np.unique((A != 0).sum(axis=0)))
assert np.allclose(A.T @ dy.ravel(), vjp_x(dy).ravel())

# %% [markdown]
# The rows of $A$ all have nine weights, its columns have one, two or four: one for each place that
# sees the pixel. We shall meet these numbers again.

# %% [markdown]
# ### Unfold and fold: how often is a pixel seen?
#
# Lesson 05 wrote the windows out as columns (im2col, `unfold`). The way back, *col2im* or `fold`,
# is `add_windows`: an element that several windows hold gets the sum. So fold does not undo unfold;
# it multiplies each pixel by the number of windows that hold it. To have the image back, divide by
# these counts, which are fold of unfold of ones:


# %%
def counts(size, kernel, stride):
    """How many windows hold each pixel of a square image."""
    places = (size - kernel) // stride + 1
    ones = np.ones((1, 1, kernel, kernel, places, places))
    return add_windows((1, 1, size, size), ones, stride, 1)[0, 0]


x = rng.normal(size=(1, 1, 8, 8))
folded = add_windows(x.shape, windows(x, (3, 3), (6, 6), 1, 1), 1, 1)
print("fold of unfold is x times the counts:", np.allclose(folded, x * counts(8, 3, 1)))
library = F.fold(F.unfold(mt.tensor(x), 3), (8, 8), 3)  # (output size, kernel size)
print("and so is the library's:             ", np.allclose(folded, library.data))
assert np.allclose(folded, x * counts(8, 3, 1)) and np.allclose(folded, library.data)

# %%
settings = [(9, 3, 1), (9, 3, 2), (8, 2, 2), (10, 4, 2)]
figure, axes = viz.panels(1, 4, height=2.4)
for ax, (size, k, stride) in zip(axes, settings, strict=True):
    draw(ax, counts(size, k, stride), f"kernel {k}, stride {stride}", numbers=True, cmap="Blues")

uneven, even = counts(9, 3, 2)[2:7, 2:7], counts(10, 4, 2)[2:8, 2:8]
assert uneven[:2, :2].tolist() == [[4, 2], [2, 1]] and (even == 4).all()
assert (counts(8, 2, 2) == 1).all() and (counts(9, 3, 1)[2:7, 2:7] == 9).all()
figure

# %% [markdown]
# *Figure 4. How many windows hold each pixel. With kernel 3 and stride 2 the counts alternate, 4 2
# 4 2 in one row and 2 1 2 1 in the next: a checkerboard. With a kernel whose size is a multiple of
# the stride (the other three) they are even, but for the edges.*
#
# ### Transposed convolution
#
# Forward and backward of a convolution, in each other's place. To ask `conv2d` for its rules we
# need an image of the right size; its values do not matter, because the rule of a linear operation
# does not depend on where it is taken.


# %%
def conv_transpose2d(x, w, b, *, output_padding=0, **options):
    """x (N, C, H, W), w (C, O/G, R, S), b (O,) -> y (N, O, P, Q), and a rule for each."""
    stride, padding = options.get("stride", 1), options.get("padding", 0)
    dilation, groups = options.get("dilation", 1), options.get("groups", 1)
    P, Q = (
        (n - 1) * stride + dilation * (k - 1) + 1 - 2 * padding + output_padding
        for n, k in zip(x.shape[2:], w.shape[2:], strict=True)
    )
    none = np.zeros(len(w))
    larger = np.zeros((len(x), w.shape[1] * groups, P, Q))
    _, (back, _, _) = conv2d(larger, w, none, **options)

    def vjp_x(dy):
        return conv2d(dy, w, none, **options)[0]

    def vjp_w(dy):
        _, (_, back_to_w, _) = conv2d(dy, w, none, **options)
        return back_to_w(x)

    def vjp_b(dy):
        return dy.sum(axis=(0, 2, 3))

    return back(x) + b[:, None, None], (vjp_x, vjp_w, vjp_b)


# %%
x, w, b = rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(3, 5, 3, 3)), rng.normal(size=5)
for output_padding in 0, 1:
    larger, _ = conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=output_padding)
    smaller, _ = conv2d(larger, w, np.zeros(3), stride=2, padding=1)
    print(f"4 rows -> {larger.shape[2]} rows with output padding {output_padding},", end=" ")
    print(f"and back to {smaller.shape[2]}")
    assert smaller.shape == x.shape and larger.shape[2] == 7 + output_padding

# %% [markdown]
# Whether an image grows smoothly or in blocks is a matter of the kernel. Two classic ways of
# enlarging are transposed convolutions with fixed weights and stride 2: a kernel of 2x2 ones
# repeats each pixel, and the outer product of $(1, 3, 3, 1)/4$ with itself interpolates between
# pixels.

# %%
digit = images[labels == 3][:1].astype(float)
bilinear = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16
enlarged = {
    "pixels repeated": (np.ones((2, 2)), {"stride": 2}),
    "interpolated": (bilinear, {"stride": 2, "padding": 1}),
    "kernel 3, all 1": (np.ones((3, 3)), {"stride": 2, "padding": 1, "output_padding": 1}),
}
enlarged = {
    title: conv_transpose2d(digit, w[None, None], np.zeros(1), **options)[0][0, 0]
    for title, (w, options) in enlarged.items()
}
assert all(picture.shape == (16, 16) for picture in enlarged.values())
assert np.array_equal(enlarged["pixels repeated"], digit[0, 0].repeat(2, 0).repeat(2, 1))
a = digit[0, 0]
between = (9 * a[:-1, :-1] + 3 * a[1:, :-1] + 3 * a[:-1, 1:] + a[1:, 1:]) / 16
assert np.allclose(enlarged["interpolated"][1:-1:2, 1:-1:2], between)
even_grey, _ = conv_transpose2d(np.ones((1, 1, 8, 8)), np.ones((1, 1, 3, 3)), np.zeros(1), stride=2)
assert even_grey[0, 0, 2:4, 2:4].tolist() == [[4, 2], [2, 1]]  # the third kernel, on an even image

figure, axes = viz.panels(1, 4, height=2.3)
draw(axes[0], digit[0, 0], "8 x 8", cmap="Greys")
for ax, (title, picture) in zip(axes[1:], enlarged.items(), strict=True):
    draw(ax, picture, title, cmap="Greys")
figure

# %% [markdown]
# *Figure 5. A digit, and what three transposed convolutions make of it, 16x16 each. Kernel 2
# repeats each pixel, so that it looks as before; kernel 4 interpolates; kernel 3, all ones, puts a
# checkerboard over the digit, for it adds up 1, 2 or 4 numbers from place to place.*
#
# In a network the kernel is learned: it may start as one of these, or at random. The library's
# `F.conv_transpose2d` has the same layout of the weight, and `nn.ConvTranspose2d` is the layer.

# %%
x, w, b = rng.normal(size=(2, 4, 4, 3)), rng.normal(size=(4, 3, 3, 2)), rng.normal(size=6)
for options in (
    {"groups": 2},
    {"groups": 2, "stride": 2, "padding": 1, "output_padding": 1},
    {"groups": 2, "stride": 3, "dilation": 2},
):
    ours, rules = conv_transpose2d(x, w, b, **options)
    tensors = [mt.tensor(array, requires_grad=True) for array in (x, w, b)]
    library = F.conv_transpose2d(*tensors, **options)
    dy = rng.normal(size=ours.shape)
    library.backward(dy)
    agree = [np.allclose(ours, library.data)]
    agree += [np.allclose(rule(dy), t.grad.data) for rule, t in zip(rules, tensors, strict=True)]
    print(f"{options}:", "agree" if all(agree) else "DIFFER")
    assert all(agree)

# %% [markdown]
# ## The gradient check
#
# ### By differences
#
# With stride, padding, dilation and groups at once, and shapes whose sizes differ:

# %%
x, w, b = rng.normal(size=(2, 4, 6, 5)), rng.normal(size=(6, 2, 3, 2)), rng.normal(size=6)
options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
report = mt.check_vjp(conv2d, x, w, b, **options)
print(report)
print(mt.check_vjp(conv_transpose2d, x, w.reshape(4, 3, 3, 2), b, output_padding=1, **options))

# %%
dx = report.inputs[0].numeric
assert report.ok and not dx[:, :, ::2].any() and not dx[:, :, :, ::2].any()
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 6. Each small map is one channel of one image (x) or of one kernel (w). The rules and the
# measured gradients look the same, and the error is dark throughout. As stride and dilation are
# both 2, only every second pixel of every second row is ever met; the others get nothing.*
#
# ### By the adjoint test
#
# For a linear operation there is the sharper test. `adjoint_gap` returns
# $\langle Ax, v \rangle - \langle x, Bv \rangle$ for random $x$ and $v$, without its sign and as a
# share of the size of the terms that were added. It calls $A$ and $B$ once, whatever the shapes:


# %%
def adjoint_gap(A, B, shape, seed=0):
    """How far B is from the adjoint of A, which takes arrays of `shape`; 0 but for rounding."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    y = A(x)
    v = rng.normal(size=y.shape)
    forward, backward = y * v, x * B(v)
    return abs(forward.sum() - backward.sum()) / np.linalg.norm(forward)


_, (vjp_x, vjp_w, _) = conv2d(x, w, 0 * b, **options)
for_images = adjoint_gap(lambda x: conv2d(x, w, 0 * b, **options)[0], vjp_x, x.shape)
for_kernels = adjoint_gap(lambda w: conv2d(x, w, 0 * b, **options)[0], vjp_w, w.shape)
print("both right to rounding:", max(for_images, for_kernels) < 1e-13)
assert max(for_images, for_kernels) < 1e-13

# %% [markdown]
# How sharp is it? We give the rule kernels in which one weight differs in its seventh digit.

# %%
slightly_wrong = w.copy()
slightly_wrong[0, 0, 0, 0] *= 1 + 1e-7
_, (nearly, _, _) = conv2d(x, slightly_wrong, 0 * b, **options)
gap = adjoint_gap(lambda x: conv2d(x, w, 0 * b, **options)[0], nearly, x.shape)
print("seen by the adjoint test:", gap > 1e-11)


def nearly_right(x):
    return conv2d(x, w, 0 * b, **options)[0], nearly


differences = mt.check_vjp(nearly_right, x, raise_on_failure=False)
print("seen by differences:     ", not differences.ok)
assert gap > 1e-11 and differences.ok

# %% [markdown]
# Differences compare to about five digits; the adjoint test sees all that a float holds. But mind
# what it says: that $B$ belongs to $A$, not that $A$ is the convolution you meant. If both flip the
# kernel, they are each other's adjoint, and pass. And only linear operations have an adjoint; a
# network with a ReLU in it has none.
#
# ### Wrong rules
#
# Five mistakes that are easy to make. Each replaces one rule of `conv2d` with stride 2 (stride 1
# for the first).


# %%
def not_flipped(x, w, b, *, stride=1):
    """dx gathered with the kernel as it is: the flip here undoes the one in gather_dx."""
    y, (_, *rules) = conv2d(x, w, b, stride=stride)
    return y, (lambda dy: gather_dx(dy, w[:, :, ::-1, ::-1], x.shape[2:], stride=stride), *rules)


def zeros_forgotten(x, w, b, *, stride=2):
    """dx gathered without the zeros between the elements of dy; filled up to size at the end."""
    y, (_, *rules) = conv2d(x, w, b, stride=stride)

    def vjp_x(dy):
        dx = np.zeros_like(x)
        size = [p + k - 1 for p, k in zip(dy.shape[2:], w.shape[2:], strict=True)]
        dx[:, :, : size[0], : size[1]] = gather_dx(dy, w, size)
        return dx

    return y, (vjp_x, *rules)


def overwritten(x, w, b, *, stride=2):
    """dx scattered with = instead of +=."""
    y, (_, *rules) = conv2d(x, w, b, stride=stride)

    def vjp_x(dy):
        dx = np.zeros_like(x)
        for p, q in np.ndindex(dy.shape[2:]):
            i, j = p * stride, q * stride
            stamp = np.einsum("ocrs,no->ncrs", w, dy[:, :, p, q])
            dx[:, :, i : i + w.shape[2], j : j + w.shape[3]] = stamp
        return dx

    return y, (vjp_x, *rules)


def last_image_only(x, w, b, *, stride=2):
    """dw of the last image, for = instead of += in a loop over the batch."""
    y, (vjp_x, _, vjp_b) = conv2d(x, w, b, stride=stride)
    _, (_, vjp_w, _) = conv2d(x[-1:], w, b, stride=stride)
    return y, (vjp_x, lambda dy: vjp_w(dy[-1:]), vjp_b)


def mean_bias(x, w, b, *, stride=2):
    """db as a mean over places and images."""
    y, (vjp_x, vjp_w, _) = conv2d(x, w, b, stride=stride)
    return y, (vjp_x, vjp_w, lambda dy: dy.mean(axis=(0, 2, 3)))


x, w, b = rng.normal(size=(3, 2, 7, 7)), rng.normal(size=(4, 2, 3, 3)), rng.normal(size=4)
wrong = [not_flipped, zeros_forgotten, overwritten, last_image_only, mean_bias]
reports = {f.__name__: mt.check_vjp(f, x, w, b, raise_on_failure=False) for f in wrong}
for name, report in reports.items():
    for compared in report.inputs:
        if not compared.ok:
            print(f"{name}, {compared.name}: {compared.diagnosis or 'WRONG, no known pattern'}")

named = {name: [each.diagnosis for each in report.inputs] for name, report in reports.items()}
assert [report.ok for report in reports.values()] == [False] * 5
assert "overwrite" in named["overwritten"][0] and "mean" in named["mean_bias"][2]
assert not named["not_flipped"][0] and not named["last_image_only"][1]

# %% [markdown]
# All five are found, and two are named at once. For the others, make the case smaller until the
# pattern speaks, or look at the picture. `last_image_only` passes with a batch of one: so the
# mistake is in how images are added up. `not_flipped` becomes readable where the kernel has one
# place only: dx is then a sum of kernels, and a flip of all of them shows as a flip of dx.

# %%
one_place = mt.check_vjp(not_flipped, x[:1, :, :3, :3], w[:2], b[:2], raise_on_failure=False)
print("one image:", "passed" if mt.check_vjp(last_image_only, x[:1], w, b) else "FAILED")
print("one place:", one_place.inputs[0].diagnosis)
assert "kernel not flipped" in one_place.inputs[0].diagnosis

# %%
viz.draw_gradcheck(one_place)

# %% [markdown]
# *Figure 7. The kernel as it is, where it should be flipped: left and middle are turned by 180
# degrees against one another. The rules of w and b are right.*

# %%
no_zeros = mt.check_vjp(zeros_forgotten, x[:1, :1], w[:2, :1], b[:2], raise_on_failure=False)
analytic = no_zeros.inputs[0].analytic
assert not analytic[:, :, 5:].any() and not analytic[:, :, :, 5:].any()
assert no_zeros.inputs[0].numeric[:, :, 5:].all()
viz.draw_gradcheck(no_zeros)

# %% [markdown]
# *Figure 8. The zeros between the elements of dy forgotten: the stamps are one pixel apart instead
# of two. They crowd in the upper left corner, and two rows and columns get nothing.*
#
# The adjoint test finds these mistakes, too. Here it looks at the three wrong rules of $x$; it says
# whether a rule is wrong, not where:

# %%
for f in not_flipped, zeros_forgotten, overwritten:
    _, (vjp_x, *_) = f(x, w, 0 * b, stride=2)
    gap = adjoint_gap(lambda x: conv2d(x, w, 0 * b, stride=2)[0], vjp_x, x.shape)
    print(f"{f.__name__}:", "not the adjoint" if gap > 1e-3 else "adjoint")
    assert gap > 1e-3

# %% [markdown]
# ## At work
#
# ### Enlarging digits
#
# A task for learned upsampling: from a digit of 4x4 pixels, made by averaging blocks of 2x2, guess
# the original of 8x8. The network has a convolution of 3x3, a ReLU, and then one of two ways to
# the larger image:
#
# - **transposed convolution**, stride 2, of 3x3 or of 4x4;
# - **repeat, then convolve**: every pixel is repeated 2x2 (a fixed way to enlarge), then a
#   convolution of 3x3.
#
# What is a fair budget? The number of *weights* is one answer, that of *multiplications* another:
# the transposed convolution computes at the small size, the convolution behind the repetition at
# the large one, with four times as many pixels. We take four arms: three with about the same
# number of weights, and a wide one, with so many channels between its two layers that it has about
# the multiplications of the second way.


# %%
class Enlarge(nn.Module):
    """Our transposed convolution as a layer: (N, C, H, W) -> (N, 1, 2 H, 2 W)."""

    run = staticmethod(mt.primitive(conv_transpose2d))

    def __init__(self, channels, kernel):
        super().__init__()
        self.options = {"stride": 2, "padding": 1, "output_padding": kernel % 2}
        self.weight = nn.Parameter(mt.zeros(channels, 1, kernel, kernel))
        self.bias = nn.Parameter(mt.zeros(1))
        terms = channels * kernel**2 / 4  # that an output adds up, on average
        nn.init.uniform_(self.weight, -1 / np.sqrt(terms), 1 / np.sqrt(terms))

    def forward(self, x):
        return self.run(x, self.weight, self.bias, **self.options)


class Repeat(nn.Module):
    """Every pixel 2 x 2 times: (N, C, H, W) -> (N, C, 2 H, 2 W)."""

    def forward(self, x):
        N, C, H, W = x.shape
        return (x.reshape(N, C, H, 1, W, 1) * np.ones((2, 1, 2))).reshape(N, C, 2 * H, 2 * W)


def network(width, *enlarge):
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), *enlarge)


ARMS = {
    "repeat, conv 3x3": lambda: network(16, Repeat(), nn.Conv2d(16, 1, 3, padding=1)),
    "transposed 3x3": lambda: network(16, Enlarge(16, 3)),
    "transposed 4x4": lambda: network(12, Enlarge(12, 4)),
    "transposed 4x4, wide": lambda: network(28, Enlarge(28, 4)),
}
products = {  # 4 x 4 places of the first layer, then of the second at its own size
    "repeat, conv 3x3": 16 * (9 * 4 * 4 + 9 * 8 * 8),
    "transposed 3x3": 16 * (9 * 4 * 4 + 9 * 4 * 4),
    "transposed 4x4": 12 * (9 * 4 * 4 + 16 * 4 * 4),
    "transposed 4x4, wide": 28 * (9 * 4 * 4 + 16 * 4 * 4),
}
for arm, build in ARMS.items():
    weights = sum(p.data.size for p in build().parameters())
    print(f"{arm:21} {weights:4} weights and biases, {products[arm]:6,} multiplications")

# %%
SEEDS = 0, 1, 2
train_images = digits()[:][0].astype(float)
test_images = images.astype(float)


def shrink(x):
    return x.reshape(len(x), 1, 4, 2, 4, 2).mean(axis=(3, 5))


def error(enlarged):
    """Root of the mean squared difference to the originals, in % of white."""
    return 100 * np.sqrt(((enlarged - test_images) ** 2).mean())


def predict(model, x):
    with mt.no_grad():
        return model(mt.tensor(x)).numpy()


def train_network(build, seed, epochs=20):
    mt.manual_seed(seed)
    model = build()
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    data = TensorDataset(shrink(train_images), train_images)
    loader = DataLoader(data, batch_size=32, shuffle=True, generator=seed)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    fit(
        model,
        loader,
        optimizer=optimizer,
        epochs=epochs,
        loss=F.mse_loss,
        scheduler=schedule,
        scheduler_every="batch",
        progress=False,
    )
    return model


trained = {arm: [train_network(build, seed) for seed in SEEDS] for arm, build in ARMS.items()}
errors = {
    arm: [error(predict(model, shrink(test_images))) for model in models]
    for arm, models in trained.items()
}
repeated = error(shrink(test_images).repeat(2, axis=2).repeat(2, axis=3))
print(f"{'repeat alone':21} {repeated:.1f} %")
for arm, runs in errors.items():
    print(f"{arm:21}", "  ".join(f"{run:.1f} %" for run in runs))

# %%
resized, three, four, wide = map(np.array, errors.values())
assert max(map(max, errors.values())) < 0.9 * repeated
assert (resized < three).all() and (resized < four).any() and (resized > four).any()
assert wide.max() < min(resized.min(), three.min(), four.min())
viz.plot_arms(errors, label="error on unseen digits, % of white")

# %% [markdown]
# *Figure 9. The root of the mean squared difference to the original, where white is 100 %; a dot is
# one seed. Every network is well ahead of repeating pixels, whose error is in the first printed
# line.*
#
# With equal weights, repeating and convolving is ahead of the transposed 3x3 on each seed, by a
# little; with the transposed 4x4 the seeds disagree. With about equal multiplications, and over
# twice the weights, the wide transposed convolution is ahead of all others on each seed. Which one
# is better depends on what is scarce.
#
# There is an exact reason why the two ways are so close. Repeating is a transposed convolution with
# a kernel of 2x2 ones, and a convolution behind it can be drawn into that kernel: repeat and
# convolve by 3x3 *is* a transposed convolution by 4x4, with only 9 free numbers in its 16 weights.
# (The 3x3 kernel is flipped on the way: the one *looks* through it, the other *stamps*.)

# %%
w3 = rng.normal(size=(1, 1, 3, 3))
w4, _ = conv_transpose2d(flipped(w3), np.ones((1, 1, 2, 2)), np.zeros(1))
x = rng.normal(size=(1, 1, 5, 5))
larger = x.repeat(2, axis=2).repeat(2, axis=3)
one_way, _ = conv2d(larger, w3, np.zeros(1), padding=1)
other_way, _ = conv_transpose2d(x, w4, np.zeros(1), stride=2, padding=1)
print("a kernel of", w4.shape[2:], "does both:", np.allclose(one_way, other_way))
assert np.allclose(one_way, other_way)

# %% [markdown]
# ### The checkerboard
#
# What do the networks make of a picture without any content, an even grey? A good answer is an even
# grey. We leave the edges out, and look before training and after.

# %%
grey = np.full((1, 1, 8, 8), 0.5)
shown = {arm: ARMS[arm] for arm in list(ARMS)[:3]}
patterns = {}
for arm, build in shown.items():
    mt.manual_seed(0)
    untrained = build()
    patterns[arm] = [
        predict(model, grey)[0, 0, 4:12, 4:12] for model in (untrained, trained[arm][0])
    ]

figure, axes = viz.panels(2, 3, height=4.8)
for column, (arm, pair) in zip(axes.T, patterns.items(), strict=True):
    for ax, when, pattern in zip(column, ["untrained", "trained"], pair, strict=True):
        difference = pattern - pattern.mean()
        heat_map(ax, difference, cmap="RdBu_r", vmin=-0.3, vmax=0.3, bar=False, numbers=False)
        ax.set_title(f"{arm}, {when}")
figure


# %%
def unevenness(model):
    return predict(model, grey)[0, 0, 4:12, 4:12].std()


for arm, build in shown.items():
    before = []
    for seed in SEEDS:
        mt.manual_seed(seed)
        before.append(unevenness(build()))
    after = [unevenness(model) for model in trained[arm]]
    if arm.startswith("repeat"):
        assert max(before + after) < 1e-12
    else:
        assert min(before + after) > 0.01
        changes = np.sign(np.subtract(after, before))
        assert sorted(changes) == [-1, -1, 1]  # weaker on two seeds, stronger on the third

# %% [markdown]
# *Figure 10. An even grey picture, enlarged; difference to the mean, red is brighter, and the
# deepest colours are 0.3. Repeat and convolve gives an even answer, trained or not: all pixels
# inside see the same. Both transposed convolutions weave a pattern with period 2.*
#
# The pattern of the 4x4 kernel shows that even counts are not enough: in each of the four positions
# of the checkerboard another four of a channel's 16 weights are at work, and only if their sums
# agree is the answer even. With 3x3 there are 1, 2, 2 and 4 weights, so that not even equal weights
# would do.
# Training on digits makes both patterns weaker on two of the three seeds, stronger on the third,
# and removes them on none: no digit is an even grey.

# %%
one = int(np.flatnonzero(labels == 5)[1])
pictures = [test_images[one, 0], shrink(test_images[[one]]).repeat(2, 2).repeat(2, 3)[0, 0]]
pictures += [predict(models[0], shrink(test_images[[one]]))[0, 0] for models in trained.values()]
assert len(pictures) == 6 and pictures[0].shape == (8, 8)
viz.show_images(
    np.clip(np.stack(pictures), 0, 1),
    ["original", "what they see", *(arm.replace(", ", ",\n") for arm in ARMS)],
    columns=6,
)

# %% [markdown]
# *Figure 11. A five that no network has seen, the sixteen numbers they get of it, and what they
# make of them.*

# %% [markdown]
# ## Paper and code
#
# | | elsewhere | here |
# |---|---|---|
# | name | *deconvolution* (Zeiler et al., Long et al.), *fractionally strided convolution* (Radford et al.), *transposed convolution* (Dumoulin and Visin). It does not invert a convolution, and "deconvolution" means just that in signal processing | transposed convolution |
# | weight of the layer | PyTorch: (in, out / groups, R, S), that of the convolution which goes the other way | the same |
# | first weights | Long et al.: bilinear interpolation, as in figure 5, then learned; PyTorch: uniform, with a bound from the *second* axis of the weight | `nn.ConvTranspose2d`: PyTorch's |
# | output size | PyTorch: `output_padding`, or `output_size` in the call of the layer; others take the wanted shape as an argument | `output_padding` |
# | against the checkerboard | Odena et al.: resize, then convolve; or a kernel divisible by the stride | both shown |
# | the image's gradient | im2col's way back, col2im (Chellapilla et al.); or a convolution with the turned kernel, which saves the scattered additions | both derived; the library's are in `ops/convolution_forms` |
# | the border of $dx$ | a full correlation with border $(R-1)d$, then cropping by the padding $z$ | border $(R-1)d - z$ at once |
#
# One more difference in words. What is called the *kernel* of a mathematical convolution is
# flipped, and that of a correlation is not. Deep learning computes correlations and calls them
# convolutions; its *backward* is then a convolution in the mathematical sense.

# %% [markdown]
# ## Predict before you run
#
# **1.** A convolution with a 3x3 kernel of ones and stride 2 looks at an image of 7x7; all $dy$ are
# 1. What does $dx$ look like?

# %%
_, (vjp_x, _, _) = conv2d(np.zeros((1, 1, 7, 7)), np.ones((1, 1, 3, 3)), np.zeros(1), stride=2)
print(vjp_x(np.ones((1, 1, 3, 3)))[0, 0].astype(int))

# %% [markdown]
# <details><summary>Answer</summary>
#
# The counts of figure 4, second map: $dx$ is a transposed convolution and has the checkerboard.
# Whoever draws the gradient of an image through strided convolutions sees such patterns, though
# nothing is wrong.
#
# </details>
#
# **2.** A 1x1 convolution with stride 2, as in the shortcuts of residual networks. Which share of
# the pixels gets a gradient of zero, whatever the weights?

# %%
x, w = rng.normal(size=(1, 3, 8, 8)), rng.normal(size=(5, 3, 1, 1))
y, (vjp_x, _, _) = conv2d(x, w, np.zeros(5), stride=2)
print(f"{(vjp_x(rng.normal(size=y.shape)) == 0).mean():.0%}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Three in four: only every second pixel of every second row is looked at. What is not seen forward
# gets nothing backward: the columns of $A$ that belong to these pixels are empty.
#
# </details>
#
# **3.** An image goes through a convolution, and the outcome through the transposed convolution
# with the same weights. Does the image come back? Try a random 2x2 kernel with stride 2, and then
# four kernels that are at right angles to one another, each of length 1.

# %%
x = rng.normal(size=(1, 1, 6, 6))
square = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
for name, w in ("random kernel", rng.normal(size=(1, 1, 2, 2))), ("four at right angles", square):
    w = w.reshape(-1, 1, 2, 2)
    y, (vjp_x, _, _) = conv2d(x, w, np.zeros(len(w)), stride=2)
    print(f"{name}:", "comes back" if np.allclose(vjp_x(y), x) else "does not come back")

# %% [markdown]
# <details><summary>Answer</summary>
#
# In general not: $A^\top$ is the transpose, not the inverse, and 36 numbers cannot come back from
# 9. The four kernels make 36 numbers of 36, by an orthogonal matrix in each block of 2x2, and for
# an orthogonal matrix the transpose is the inverse. (They are the Haar wavelets of a block.)
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`06_convolution_backward`](../exercises/06_convolution_backward.ipynb):
#
# 1. **weight_and_bias**: the gradients of the kernels and of the bias.
# 2. **col2im**: add windows up where they lie.
# 3. **input_by_gathering**: the gradient of the image as a full correlation.
# 4. **adjoint_gap**: the test for adjoints.
# 5. **grouped_conv2d**: a whole convolution with stride, padding and groups, and its rules.
# 6. **conv_transpose2d**: the transposed convolution, with its own rules.

# %% [markdown]
# ## What to remember
#
# - All three gradients come from one sum: the gradient of a variable adds up $dy$ times what the
#   variable was multiplied with, over all the indices that the variable does not have.
# - $db$ is a sum of $dy$. $dw$ is a convolution of $x$ by $dy$, stride and dilation exchanged.
# - $dx$: scatter (every place stamps its kernel, overlaps add) or gather ($dy$ with zeros between
#   and around, the kernel flipped, channels swapped).
# - $\langle Ax, v \rangle = \langle x, A^\top v \rangle$ tests an adjoint to the last digit.
# - A transposed convolution is the $dx$ of a convolution used as a layer, and its $dx$ is a
#   convolution. A kernel that the stride does not divide overlaps unevenly.

# %% [markdown]
# ## Sources
#
# - Y. LeCun et al., *Backpropagation Applied to Handwritten Zip Code Recognition*, Neural
#   Computation 1, 1989.
# - K. Chellapilla, S. Puri, P. Simard, *High Performance Convolutional Neural Networks for Document
#   Processing*, IWFHR 2006: convolution unrolled into a matrix product, forward and backward.
# - M. D. Zeiler, D. Krishnan, G. W. Taylor, R. Fergus, *Deconvolutional Networks*, CVPR 2010.
# - J. Long, E. Shelhamer, T. Darrell, *Fully Convolutional Networks for Semantic Segmentation*,
#   CVPR 2015.
# - A. Radford, L. Metz, S. Chintala, *Unsupervised Representation Learning with Deep Convolutional
#   Generative Adversarial Networks*, ICLR 2016.
# - V. Dumoulin, F. Visin, *A guide to convolution arithmetic for deep learning*, arXiv:1603.07285,
#   2016.
# - A. Odena, V. Dumoulin, C. Olah, *Deconvolution and Checkerboard Artifacts*, Distill, 2016.
# - PyTorch's documentation: `torch.nn.functional.conv_transpose2d`, `torch.nn.ConvTranspose2d`,
#   `torch.nn.Fold`.
