# %% [markdown]
# # 16 · Spatial transformers
#
# A module that looks at an image, decides where to read it, and hands on what it has read there:
# turned upright, cut out, brought closer.
#
# **You will be able to**
#
# - derive the gradients that reach the image, the places where it is read, and the numbers that
#   place them;
# - build the module for affine maps, and say what its projective and bending forms add;
# - see in an experiment what it learns, without anyone telling it where to look.
#
# **You need** lessons 01 to 08: primitives, modules, convolution, pooling.
#
# **Time** about 60 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import SpatialTransformer
from minitorch_attn.attention.spatial_transformer import (
    AffineGrid,
    ProjectiveGrid,
    ThinPlateSplineGrid,
)
from minitorch_attn.data import DataLoader, TensorDataset, digits
from minitorch_attn.training import evaluate, fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# The modules of the last lessons weigh what is there: they turn channels and places up and down, and
# nothing moves. This one moves things. It lays a *grid* of places over the image and reads the image
# at each of them. If the grid is turned by as much as the digit is, what is read stands upright.

# %%
train, test = digits(), digits(train=False)
images, labels = test[:]
images = images.astype(float)
seven = images[np.flatnonzero(labels == 7)[:1]]  # (1, 1, 8, 8)


def affine(angle=0.0, scale=1.0, x=0.0, y=0.0):
    """Maps (N, 2, 3) that lay a grid turned clockwise by an angle, at a scale, around (x, y)."""
    angle, scale, x, y = np.broadcast_arrays(*np.atleast_1d(angle, scale, x, y))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.stack([np.stack([c, -s, x], axis=1), np.stack([s, c, y], axis=1)], axis=1)


def read(images, maps, size):
    """Images (N, C, H, W) read through affine maps (N, 2, 3): results (N, C, size, size), grids."""
    grid = F.affine_grid(maps, size=(len(maps), 1, size, size))
    return F.grid_sample(images, grid).numpy(), grid.numpy()


def draw_reading(ax, picture, grid):
    """A picture (H, W), and over it the places (P, Q, 2) that are read; the first has a ring."""
    H, W = picture.shape
    w, h = ((grid[..., 0] + 1) * W - 1) / 2, ((grid[..., 1] + 1) * H - 1) / 2
    ax.imshow(picture, cmap="gray")
    ax.plot(w.ravel(), h.ravel(), ".", color=viz.COLOURS[4], markersize=3)
    ax.plot(w[0, 0], h[0, 0], "o", color=viz.COLOURS[4], markersize=9, fillstyle="none")
    margin = H / 5  # what lies outside the image, in grey
    ax.set(xlim=(-0.5 - margin, W - 0.5 + margin), ylim=(H - 0.5 + margin, -0.5 - margin))
    ax.set(xticks=[], yticks=[], facecolor="#DDDDDD")


def draw_picture(ax, picture, title=""):
    ax.imshow(picture, cmap="gray")
    ax.set(xticks=[], yticks=[], title=title)


turned, _ = read(seven, affine(angle=0.8, scale=1.3), 16)
upright, grid = read(turned, affine(angle=-0.8, scale=0.9), 14)

figure, axes = viz.panels(1, 3, height=2.9)
draw_picture(axes[0], turned[0, 0], "the image")
draw_reading(axes[1], turned[0, 0], grid[0])
axes[1].set_title("a grid laid over it")
draw_picture(axes[2], upright[0, 0], "what is read there")
original, _ = read(seven, affine(scale=1.3 * 0.9), 14)
similarity = np.corrcoef(original.ravel(), upright.ravel())[0, 1]
before = np.corrcoef(read(turned, affine(scale=0.9), 14)[0].ravel(), original.ravel())[0, 1]
assert similarity > 0.9 and before < 0.7
figure

# %% [markdown]
# *Figure 1. A seven that has been turned; a grid that is turned with it, on grey where it leaves the
# image (the ring marks the place that is read for the upper left pixel); and what is read.*
#
# Here the angle was given. The module finds it out: a small network looks at the image and says
# how to lay the grid. Nobody has to tell it the right angle. It learns from the loss of the task
# alone, because what is read changes *without jumps* when the grid moves, and so has a gradient.

# %% [markdown]
# ## The equations
#
# The input is $x: (N, C, H, W)$, the result $y: (N, C, P, Q)$. Three steps lead from one to the other.
#
# **Localisation.** Any small network $f$ gives $D$ features of each image, and a linear layer makes $n$
# numbers $\theta$ of them:
#
# $$\theta = f(x)\, W_\theta^\top + b \qquad f(x): (N, D), \quad W_\theta: (n, D), \quad b: (n),
# \quad \theta: (N, n)$$
#
# $W_\theta$ starts at zero and $b$ at the numbers of the identity, whatever the image. So at first the
# module does nothing, where the result has the size of the input.
#
# **Grid.** Places are given in coordinates that run from $-1$ to $1$ over an image, $u$ to the right
# and $v$ down. Pixel $(p, q)$ of the result has such coordinates of its own (the $t$ is for *target*, the
# paper's word for the result),
#
# $$u^t_q = \frac{2q + 1}{Q} - 1, \qquad v^t_p = \frac{2p + 1}{P} - 1$$
#
# and $\theta$, as a matrix $A: (2, 3)$ for each image, says where in the *input* it is read:
#
# $$\begin{pmatrix} u_{pq} \\ v_{pq} \end{pmatrix} =
# A \begin{pmatrix} u^t_q \\ v^t_p \\ 1 \end{pmatrix}$$
#
# Mind the direction: from the result to the input. So every pixel of the result gets a value, exactly
# one. But what is read then changes the other way round than the grid: a scale *below* one brings
# things *closer*, and a grid turned clockwise turns them anticlockwise.
#
# **Sampler.** In pixels, the place is at column $w$ and row $h$:
#
# $$w = \frac{(u + 1) W - 1}{2}, \qquad h = \frac{(v + 1) H - 1}{2}$$
#
# (so that $u = -1$ is the outer edge of the first pixel). It lies between pixels. What is read is the
# bilinear mean of the four around it: with the tent $k(d) = \max(0, 1 - |d|)$,
#
# $$y_{ncpq} = \sum_{i,j} k(h - i)\, k(w - j)\; x_{ncij}$$
#
# where what lies outside the image counts as zero. Let $\alpha = w - \lfloor w \rfloor$ and
# $\beta = h - \lfloor h \rfloor$, the parts after the point. The row $i = \lfloor h \rfloor$ has
# $h - i = \beta$ and so the tent $1 - \beta$; the next has $h - i = \beta - 1$ and so $\beta$; all others
# are at least 1 away and have 0. In the same way the two columns have $1 - \alpha$ and $\alpha$. Four
# pixels are left of each channel, $x_{00}$ at $(\lfloor h \rfloor, \lfloor w \rfloor)$, $x_{01}$ to its
# right, $x_{10}$ below, and $x_{11}$ both:
#
# $$y = (1 - \beta)(1 - \alpha)\, x_{00} + (1 - \beta)\, \alpha\, x_{01}
#   + \beta\, (1 - \alpha)\, x_{10} + \beta\, \alpha\, x_{11}$$

# %% [markdown]
# ### Backward
#
# From the last step to the first; $dy$ is $\partial L / \partial y$, and so on.
#
# **To the image.** $x_{ncij}$ enters $y_{ncpq}$ with the weight $k\,k$, and it may be read from many
# places, so its gradient is a sum over them (chain rule):
#
# $$dx_{ncij} = \sum_{p,q} k(h_{npq} - i)\, k(w_{npq} - j)\; dy_{ncpq}$$
#
# Reading *gathers*, its gradient *scatters*: each $dy_{ncpq}$ goes back to the four pixels it came
# from, and adds up there.
#
# **To the place.** As long as a place stays between the same four pixels, $\lfloor w \rfloor$ is
# constant and $\partial \alpha / \partial w = 1$. We differentiate the equation of $y$ with respect
# to $\alpha$; all channels are read at one place, so their gradients add up:
#
# $$dw_{npq} = \sum_c dy_{ncpq} \left[ (1 - \beta)(x_{01} - x_{00}) + \beta (x_{11} - x_{10}) \right]$$
#
# and in the same way, with respect to $\beta$,
#
# $$dh_{npq} = \sum_c dy_{ncpq} \left[ (1 - \alpha)(x_{10} - x_{00}) + \alpha (x_{11} - x_{01}) \right]$$
#
# The bracket is the *slope of the image* at that place. Where the image is flat, a place learns
# nothing; and outside the image, a pixel and more away from its outermost pixels, all is flat.
#
# **To the coordinates.** $w$ is linear in $u$, with the factor $W / 2$:
#
# $$du = \frac{W}{2}\, dw, \qquad dv = \frac{H}{2}\, dh$$
#
# **To the map.** $u_{pq}$ is the product of the first row of $A$ with $(u^t_q, v^t_p, 1)$, and $A$
# serves all pixels of its image:
#
# $$\boxed{\; dA_n = \sum_{p,q} \begin{pmatrix} du_{npq} \\ dv_{npq} \end{pmatrix}
# \begin{pmatrix} u^t_q & v^t_p & 1 \end{pmatrix} \;}$$
#
# Where $A$ is made of fewer numbers, each of them gets the sum over the entries of $A$ that it stands
# in (chain rule). From there it goes on through the linear layer into the localisation network, as in
# lesson 04. So $x$ gets two gradients, which add up: one through the sampler, because it is read, and one
# through $f$, because it decides where.
#
# **On a pixel.** If a place lies exactly on a pixel, the slopes on its two sides differ: $y$ has a kink
# there. With the identity and $P = H$, $Q = W$ that is so for *all* places. The paper's equation 7, in
# our letters, is
#
# $$\frac{\partial y_{ncpq}}{\partial w_{npq}} = \sum_{i,j} x_{ncij}\, k(h - i) \cdot
# \begin{cases} 0 & |j - w| \ge 1 \\ 1 & |j - w| < 1 \text{ and } j \ge w \\
# -1 & |j - w| < 1 \text{ and } j < w \end{cases}$$
#
# Between pixels that is our bracket. But if $w$ (and $h$) is whole, only $j = w$ is nearer than 1, with
# the factor $1$: the "slope" is the pixel $x_{00}$ itself, and neither that to the left nor that to the
# right. With $\lfloor w \rfloor$ we get the slope to the right, $x_{01} - x_{00}$: a true slope, if only
# of one side.

# %% [markdown]
# ### Other grids
#
# The affine map has six numbers. Fewer say less and are easier to learn; more can do more.
#
# | grid | numbers | map |
# |---|---|---|
# | translation | 2 | $u = u^t + t_u,\; v = v^t + t_v$ |
# | attention | 3 | $u = s\, u^t + t_u,\; v = s\, v^t + t_v$ |
# | similarity | 4 | a rotation in addition |
# | affine | 6 | any $A$ |
# | projective | 8 | $(u, v) = (m_1 / m_3,\; m_2 / m_3)$ with $m = M (u^t, v^t, 1)^\top$, $M_{33} = 1$ |
# | thin-plate spline | $2K$ | $K$ points are moved anywhere, the rest bends along |
#
# The **thin-plate spline** is a bent sheet. $K$ control points $p_k = (u_k, v_k)$ stand in a regular
# table over the result; $\theta$ says which place $q_k$ of the input each of them reads. Of all maps $g$
# with $g(p_k) = q_k$, the one that bends least (the integral of its squared second derivatives is the
# smallest) is, with $\varphi(r) = r^2 \log r$ and $t = (u^t, v^t)$,
#
# $$g(t) = \sum_k \varphi(|t - p_k|)\, c_k + d_0 + u^t d_1 + v^t d_2$$
#
# Its coefficients $c: (K, 2)$ and $d: (3, 2)$ follow from $g(p_k) = q_k$ and three conditions on $c$, which
# keep the bending from growing without end far away: $\sum_k c_k = 0$, $\sum_k u_k c_k = 0$,
# $\sum_k v_k c_k = 0$. All of that is linear. With $\Phi_{jk} = \varphi(|p_j - p_k|)$ and the rows
# $(1, u_k, v_k)$ as a matrix $R: (K, 3)$ it reads
#
# $$\begin{pmatrix} \Phi & R \\ R^\top & 0 \end{pmatrix} \begin{pmatrix} c \\ d \end{pmatrix} =
# \begin{pmatrix} q \\ 0 \end{pmatrix}$$
#
# Solved for $c$ and $d$ and put into $g(t)$, it makes $g$ linear in $q: (K, 2)$. For the $PQ$ pixels
# together
#
# $$g = B\, q, \qquad B: (PQ, K)$$
#
# with a matrix $B$ that depends on neither image nor $\theta$ and is computed once for each size of the
# result. And so the backward pass is one product: $dq = B^\top dg$.

# %%
grids = {
    "affine": (AffineGrid(), np.array([1.0, 0.3, 0.0, -0.1, 0.9, 0.0])),
    "projective": (ProjectiveGrid(), np.array([0.8, 0, 0, 0, 0.8, 0, 0.2, -0.25])),
    "thin-plate spline": (ThinPlateSplineGrid(), None),
}
bend = grids["thin-plate spline"][0].identity.reshape(16, 2).copy()
bend[:, 1] += 0.25 * np.sin(np.pi * bend[:, 0])  # a wave
grids["thin-plate spline"] = (grids["thin-plate spline"][0], bend.ravel())

figure, axes = viz.panels(2, 3, height=4.6)
for column, (name, (make, theta)) in zip(axes.T, grids.items(), strict=True):
    places = make(mt.tensor(theta[None]), (12, 12)).numpy()
    draw_reading(column[0], upright[0, 0], places[0])
    column[0].set_title(name)
    draw_picture(column[1], F.grid_sample(upright, places).numpy()[0, 0])

    steps = np.linalg.norm(np.diff(np.diff(places[0], axis=1), axis=1), axis=2)
    assert (steps.max() < 1e-12) == (name == "affine")  # only affine steps are all alike
figure

# %% [markdown]
# *Figure 2. Three grids over the upright seven, and what is read. The affine grid keeps parallels
# parallel, the projective one keeps straight lines straight, the spline bends them.*

# %% [markdown]
# ## The code
#
# First the equations as loops, with the tent as it stands in the formula.


# %%
def tent(d):
    return max(0.0, 1 - abs(d))


def sample_loops(x, grid):
    """x (N, C, H, W), grid (N, P, Q, 2) of places (u, v) -> y (N, C, P, Q)."""
    (N, C, H, W), (_, P, Q, _) = x.shape, grid.shape
    y = np.zeros((N, C, P, Q))
    for n, p, q in np.ndindex(N, P, Q):
        u, v = grid[n, p, q]
        w, h = ((u + 1) * W - 1) / 2, ((v + 1) * H - 1) / 2
        for i, j in np.ndindex(H, W):
            y[n, :, p, q] += tent(h - i) * tent(w - j) * x[n, :, i, j]
    return y


# %% [markdown]
# Now whole arrays, only the four neighbours, in the form of a primitive with a rule for each input. A
# border of two zeros all around the image stands for what lies outside. Places further away are moved
# into it: between two zeros nothing is read, and there is no slope. (With a border of one zero they would
# be moved to the edge of a slope.)


# %%
def sample(x, grid):
    """x (N, C, H, W), grid (N, P, Q, 2) -> y (N, C, P, Q), and a rule for each."""
    N, C, H, W = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    w = np.clip(((grid[..., 0] + 1) * W - 1) / 2, -2, W)  # (N, P, Q)
    h = np.clip(((grid[..., 1] + 1) * H - 1) / 2, -2, H)
    column, row = np.floor(w).astype(int), np.floor(h).astype(int)
    alpha, beta = (w - column)[..., None], (h - row)[..., None]  # (N, P, Q, 1): for all channels
    n = np.arange(N)[:, None, None]

    def at(down, right):
        """The index of a neighbour, in the padded image with its channels last."""
        return n, row + 2 + down, column + 2 + right

    pixels = padded.transpose(0, 2, 3, 1)
    x00, x01, x10, x11 = (pixels[at(i, j)] for i, j in [(0, 0), (0, 1), (1, 0), (1, 1)])
    top, bottom = (1 - alpha) * x00 + alpha * x01, (1 - alpha) * x10 + alpha * x11
    y = (1 - beta) * top + beta * bottom  # (N, P, Q, C)

    def vjp_x(dy):
        dy = dy.transpose(0, 2, 3, 1)
        dpixels = np.zeros_like(pixels)
        np.add.at(dpixels, at(0, 0), (1 - beta) * (1 - alpha) * dy)
        np.add.at(dpixels, at(0, 1), (1 - beta) * alpha * dy)
        np.add.at(dpixels, at(1, 0), beta * (1 - alpha) * dy)
        np.add.at(dpixels, at(1, 1), beta * alpha * dy)
        return dpixels.transpose(0, 3, 1, 2)[:, :, 2:-2, 2:-2]

    def vjp_grid(dy):
        dy = dy.transpose(0, 2, 3, 1)
        dw = (dy * ((1 - beta) * (x01 - x00) + beta * (x11 - x10))).sum(axis=-1)
        dh = (dy * ((1 - alpha) * (x10 - x00) + alpha * (x11 - x01))).sum(axis=-1)
        return np.stack([W / 2 * dw, H / 2 * dh], axis=-1)

    return y.transpose(0, 3, 1, 2), (vjp_x, vjp_grid)


# %% [markdown]
# The grid of an affine map is a matrix product, and so is its rule, the boxed equation above.


# %%
def pixel_coordinates(P, Q):
    """(u, v, 1) of all pixels of the result, row by row: (P Q, 3)."""
    u, v = (2 * np.arange(Q) + 1) / Q - 1, (2 * np.arange(P) + 1) / P - 1
    return np.stack([np.tile(u, P), np.repeat(v, Q), np.ones(P * Q)], axis=1)


def affine_places(A, P, Q):
    """A (N, 2, 3) -> places (N, P, Q, 2), and the rule of A."""
    t = pixel_coordinates(P, Q)

    def vjp_A(dg):
        return dg.reshape(len(A), P * Q, 2).swapaxes(1, 2) @ t

    return (t @ A.swapaxes(1, 2)).reshape(len(A), P, Q, 2), vjp_A


# %%
rng = np.random.default_rng(0)
x = rng.normal(size=(2, 3, 5, 4))
A = affine(angle=[0.4, -0.7], scale=[0.9, 1.2], x=0.1)
places, _ = affine_places(A, 4, 6)
y, _ = sample(x, places)
assert (np.abs(places) > 1).any()  # some lie outside

print("loops and arrays agree:  ", np.allclose(y, sample_loops(x, places)))
print("library's grid agrees:   ", np.allclose(F.affine_grid(A, size=(2, 3, 4, 6)).data, places))
print("library's sampler agrees:", np.allclose(F.grid_sample(x, places).data, y))

# %% [markdown]
# The library's `F.affine_grid` and `F.grid_sample` are primitives with these very rules. Of them the
# module is put together:


# %%
class OurSpatialTransformer(nn.Module):
    """(N, C, H, W) -> (N, C, H, W), read through an affine map that a network chooses."""

    def __init__(self, localisation, features):
        super().__init__()
        self.localisation = localisation
        self.fc = nn.Linear(features, 6)
        nn.init.zeros_(self.fc.weight)
        self.fc.bias = nn.Parameter([1.0, 0, 0, 0, 1, 0])

    def forward(self, x):
        theta = self.fc(self.localisation(x)).reshape(-1, 2, 3)
        return F.grid_sample(x, F.affine_grid(theta, size=x.shape))


def small_network(pixels, features=32):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, features),
        nn.ReLU(),
        nn.Linear(features, features),
        nn.ReLU(),
    )


mt.manual_seed(0)
ours = OurSpatialTransformer(small_network(60), 32)
library = SpatialTransformer(3, "affine", small_network(60), features=32)
untouched = np.array_equal(ours(mt.tensor(x)).data, x)
for parameter in ours.parameters():
    parameter.data = rng.normal(scale=0.2, size=parameter.shape)
library.load_state_dict(ours.state_dict())

print("at first it changes nothing, to the last bit:", untouched)
agrees = np.allclose(ours(mt.tensor(x)).data, library(mt.tensor(x)).data)
print("library's module agrees:", agrees)
assert untouched and agrees
library

# %% [markdown]
# ### Both conventions, and never a mixture
#
# Is $-1$ the outer edge of the first pixel, or its centre? Code of the paper's time takes the centre
# (`align_corners=True`), with $w = (u + 1)(W - 1) / 2$ and $u^t_q = 2q / (Q - 1) - 1$; PyTorch and this
# library by default the edge, with the formulas above. Either is right, as long as grid and sampler agree.

# %%
ramp = np.arange(16.0).reshape(1, 1, 4, 4)
for by_grid in (False, True):
    for by_sampler in (False, True):
        g = F.affine_grid(affine(), size=ramp.shape, align_corners=by_grid)
        same = np.array_equal(F.grid_sample(ramp, g, align_corners=by_sampler).data, ramp)
        told = f"align_corners: {by_grid!s:5} for the grid, {by_sampler!s:5} for the sampler"
        print(f"{told}   identity: {same}")
        assert same == (by_grid == by_sampler)

# %% [markdown]
# ## The gradient check
#
# The rules against central differences. The places are random, so none lies on a pixel, where there
# are two slopes. In a second check most of them lie outside the image, many far away.

# %%
x, places = rng.normal(size=(1, 2, 4, 4)), rng.uniform(-0.9, 0.9, size=(1, 4, 5, 2))
report = mt.check_vjp(sample, x, places)
print(report)
print(mt.check_vjp(sample, x, 3 * places))
print(mt.check_vjp(lambda A: affine_places(A, 4, 6), A))

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 3. The gradient of the rules, the measured one, and the error: dark throughout.*
#
# And now a mistake that looks like nothing at all. Instead of `np.add.at(dpixels, index, ...)`,
# someone writes `dpixels[index] += ...`:


# %%
def sample_with_plus(x, grid):
    y, (_, vjp_grid) = sample(x, grid)

    def vjp_x(dy):
        N, C, H, W = x.shape
        w, h = ((grid[..., 0] + 1) * W - 1) / 2, ((grid[..., 1] + 1) * H - 1) / 2
        column, row = np.floor(w).astype(int), np.floor(h).astype(int)
        dpadded = np.zeros((N, H + 2, W + 2, C))
        n = np.arange(N)[:, None, None]
        for down, right in np.ndindex(2, 2):
            i, j = row + down, column + right
            weight = (1 - abs(h - i)) * (1 - abs(w - j))
            dpadded[n, i + 1, j + 1] += weight[..., None] * dy.transpose(0, 2, 3, 1)
        return dpadded.transpose(0, 3, 1, 2)[:, :, 1:-1, 1:-1]

    return y, (vjp_x, vjp_grid)


wrong = mt.check_vjp(sample_with_plus, x, places, raise_on_failure=False)
print(wrong)
assert not wrong.inputs[0].ok and wrong.inputs[1].ok

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 4. The image's gradient is wrong here and there, in the same pixels of both channels.*
#
# `a[index] += b` reads all the elements first and writes them all afterwards. If an index occurs
# twice, the second writing overwrites the first, and a contribution is lost. So wrong are those pixels,
# and only those, that several places read as the same neighbour:

# %%
error = np.abs(wrong.inputs[0].analytic - wrong.inputs[0].numeric)[0] > 1e-6  # (C, H, W)
w, h = 2 * (places[0] + 1).reshape(-1, 2).T - 0.5  # in pixels of a 4 x 4 image
shared = np.zeros((4, 4), bool)
for down, right in np.ndindex(2, 2):
    times = np.zeros((6, 6), int)
    np.add.at(times, (np.floor(h).astype(int) + down + 1, np.floor(w).astype(int) + right + 1), 1)
    shared |= times[1:-1, 1:-1] > 1
print("wrong are exactly the pixels read twice:", (error == shared).all())
assert (error == shared).all() and not shared.all()

# %% [markdown]
# ## At work
#
# ### Turned digits
#
# The paper's first experiment in small: digits turned by any angle between $-90°$ and $90°$. What makes
# such images is the very sampler that is to undo it. A digit stands in a frame of 14 x 14 pixels.

# %%
SEEDS = 0, 1, 2


def turned_digits(dataset, copies, seed):
    """Every digit several times, each turned by an angle: images (N, 1, 14, 14), labels, angles."""
    rng = np.random.default_rng(seed)
    images, labels = dataset[:]
    images, labels = images.repeat(copies, axis=0).astype(float), labels.repeat(copies)
    angles = rng.uniform(-np.pi / 2, np.pi / 2, len(images))
    return read(images, affine(angle=angles, scale=1.4), 14)[0], labels, angles


examples, _, angles = turned_digits(test, 1, seed=1)
assert examples.shape == (355, 1, 14, 14) and np.abs(angles).max() <= np.pi / 2
viz.show_images(examples[:16])

# %% [markdown]
# *Figure 5. Digits of the test set, each turned by an angle of its own.*
#
# Two networks without convolutions, of about the same number of parameters:
#
# - **FCN**: fully connected, two hidden layers;
# - **ST-FCN**: a smaller one of that kind, behind a transformer with an affine grid.


# %%
def classifier(pixels, hidden):
    layers = nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 64), nn.ReLU()
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 10))


def train_on(make, build, seed, watch=None):
    """Train a network from a seed; return it and its accuracy on unseen images, in %.

    `watch` sees it before training and after each epoch.
    """
    mt.manual_seed(seed)
    model = build()
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    images, labels, *_ = make(train, 2, seed)
    loader = DataLoader(TensorDataset(images, labels), 64, shuffle=True, generator=seed)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 8 * len(loader))
    if watch:
        watch(model)
    fit(
        model,
        loader,
        optimizer=optimizer,
        epochs=8,
        scheduler=schedule,
        scheduler_every="batch",
        progress=False,
        after_epoch=(lambda history: watch(model)) if watch else None,
    )
    images, labels, *_ = make(test, 4, 1000 + seed)
    return model, 100 * evaluate(model, [(mt.tensor(images), mt.tensor(labels))])["accuracy"]


def fcn():
    return classifier(14 * 14, 96)


def st_fcn():
    transformer = SpatialTransformer(1, "affine", small_network(14 * 14), features=32)
    return nn.Sequential(transformer, classifier(14 * 14, 64))


def report_arms(arms):
    for arm, runs in arms.items():
        parameters = sum(p.numel() for p in runs[0][0].parameters())
        accuracies = "  ".join(f"{accuracy:.1f} %" for _, accuracy in runs)
        print(f"{arm:7} {parameters:6,} parameters   {accuracies}")


plain = [train_on(turned_digits, fcn, seed) for seed in SEEDS]

# %%
placed = [train_on(turned_digits, st_fcn, seed) for seed in SEEDS]

# %%
arms = {"FCN": plain, "ST-FCN": placed}
report_arms(arms)
on_turned = {arm: [accuracy for _, accuracy in runs] for arm, runs in arms.items()}
assert min(on_turned["ST-FCN"]) > max(on_turned["FCN"])
viz.plot_arms(on_turned, label="accuracy on unseen turned digits, %")

# %% [markdown]
# *Figure 6. A dot is one seed, the bar their mean. Every run with the transformer beats every run
# without, at fewer parameters.*
#
# ### What it does
#
# We turn one digit step by step, and let the transformer of the first seed read it.


# %%
def grids_of(model, images):
    """What the transformer in front of a model reads of images, and where."""
    seen = []
    with model[0].grid.register_forward_hook(lambda module, inputs, g: seen.append(g.numpy())):
        with mt.no_grad():
            result = model[0](mt.tensor(images)).numpy()
    return result, seen[0]


model = placed[0][0]
steps = np.linspace(-np.pi / 2, np.pi / 2, 9)[1:-1]
three = images[np.flatnonzero(labels == 3)[[0]]].repeat(7, axis=0)
series, _ = read(three, affine(angle=steps, scale=1.4), 14)
results, places = grids_of(model, series)

figure, axes = viz.panels(2, 7, height=2.9)
for column, picture, result, g, angle in zip(axes.T, series, results, places, steps, strict=True):
    draw_reading(column[0], picture[0], g[::13, ::13])
    column[0].set_title(f"{np.degrees(angle):.0f}°")
    draw_picture(column[1], result[0])
figure

# %% [markdown]
# *Figure 7. Top: a three, turned anticlockwise by seven angles, and the four corners of the grid that the
# transformer lays over it. Bottom: what it reads.*
#
# Does the grid turn with the digit? For every unseen digit, the angle it was turned by, and the angle of
# the grid, that is, of its rows:

# %%
tests, _, angles = turned_digits(test, 4, seed=1000)
results, places = grids_of(model, tests)
along = places[:, :, -1].mean(axis=1) - places[:, :, 0].mean(axis=1)  # (N, 2): left to right
grid_angles = np.arctan2(along[:, 1], along[:, 0])
agreement = np.corrcoef(-angles, grid_angles)[0, 1]
reach = np.linalg.norm(along, axis=1).mean() / (2 * 13 / 14)  # 1 is the whole frame
print(f"correlation of the two angles: {agreement:.1f}")
print(f"width of the grid, of the frame's: {reach:.1f} on average")

figure, ax = viz.panels(1, 1, width=4.5, height=3.6)
ax.plot(np.degrees(-angles), np.degrees(grid_angles), ".", markersize=3, color=viz.COLOURS[0])
ax.plot([-90, 90], [-90, 90], color="black", linewidth=1, linestyle="--")
ax.set(xlabel="turn that would undo the digit's, degrees", ylabel="turn of the grid, degrees")
assert 0.5 < agreement and np.std(grid_angles) < np.std(angles) / 2 and reach < 0.9
figure

# %% [markdown]
# *Figure 8. A dot is one unseen digit. The grid turns with the digit, though by much less than the
# digit was turned (which would be the dashed line).*
#
# So it turns the right way, but only part of the way; nobody asked it for more. The loss falls when the
# digits are easier to tell apart, upright or not, and the classifier behind has learned from tilted ones.
# Look also at the corners in figure 7: the grid is smaller than the frame, it brings the digit closer.
#
# Do not make too much of the gap in figure 6, either. In runs outside this notebook, with four turned
# copies of each digit instead of two and with 16 epochs, both networks came to 91 to 95 %, and on one seed
# of three the plain one was ahead: it learns all angles by itself, if it is shown enough of them.

# %% [markdown]
# ### A digit somewhere in a larger picture
#
# Now the digits stand upright in their own size, but anywhere in a frame of 16 x 16. A fully connected
# network has to learn every digit anew in every place. The transformer here has the *attention* grid:
# a scale and a place, three numbers, and it hands on 8 x 8 pixels, a quarter of the frame.


# %%
def placed_digits(dataset, copies, seed):
    """Every digit several times, anywhere in a frame: images (N, 1, 16, 16), labels, places."""
    rng = np.random.default_rng(seed)
    images, labels = dataset[:]
    images, labels = images.repeat(copies, axis=0).astype(float), labels.repeat(copies)
    middles = rng.uniform(-0.5, 0.5, size=(len(images), 2))  # in coordinates of the frame
    x, y = -2 * middles.T
    return read(images, affine(scale=2.0, x=x, y=y), 16)[0], labels, middles


def fcn_16():
    return classifier(16 * 16, 96)


def st_fcn_16():
    localisation = small_network(16 * 16)
    transformer = SpatialTransformer(1, "attention", localisation, features=32, output_size=8)
    return nn.Sequential(transformer, classifier(8 * 8, 64))


plain_16 = [train_on(placed_digits, fcn_16, seed) for seed in SEEDS]

# %% [markdown]
# While the network with the transformer trains, we watch what the first seed reads of seven unseen
# digits.

# %%
tests, _, middles = placed_digits(test, 4, seed=1000)
watched = np.arange(0, 1400, 200)
moments = []


def watch(model):
    moments.append(grids_of(model, tests[watched]))


first, *others = SEEDS
placed_16 = [train_on(placed_digits, st_fcn_16, first, watch)]
placed_16 += [train_on(placed_digits, st_fcn_16, seed) for seed in others]

# %%
arms = {"FCN": plain_16, "ST-FCN": placed_16}
report_arms(arms)
on_placed = {arm: [accuracy for _, accuracy in runs] for arm, runs in arms.items()}
assert min(on_placed["ST-FCN"]) > max(on_placed["FCN"]) + 5
viz.plot_arms(on_placed, label="accuracy on unseen placed digits, %")

# %% [markdown]
# *Figure 9. Here the gap is wide, on every seed, and the network with the transformer has little more
# than half the parameters.*

# %%
views, grids = (np.stack(each) for each in zip(*moments, strict=True))  # each (9, 7, ...)
titles = [f"after epoch {t}" if t else "before training" for t in range(9)]

across = (grids[..., 0, -1, 0] - grids[..., 0, 0, 0]) / (7 / 8 * 2)  # (9, 7): 1 is the whole frame
from_digit = grids.mean(axis=(2, 3)) - middles[watched]  # (9, 7, 2)
scatter = from_digit.std(axis=1).mean(axis=1)  # 0 where all grids lie alike around their digits
assert np.allclose(across[0], 1) and np.ptp(grids[0], axis=0).max() == 0
assert across[2:].mean(axis=1).max() < 0.6 and scatter[-1] < scatter[0] / 2
viz.animate_sampling(tests[watched], grids, views, titles, seconds=0.7)

# %% [markdown]
# *Figure 10, which moves (on paper stands its last picture). Top: the frame, and the outline of the
# 8 x 8 places that are read of it; the ring marks the first of them. Bottom: what is read. Before
# training the grid covers the whole frame, and its places are two pixels apart; after two epochs it
# has shrunk to about half of that, and has gone to where the digit is.*

# %%
_, places = grids_of(placed_16[0][0], tests)
found = places.mean(axis=(1, 2))  # the middle of each grid
width = (places[:, 0, -1, 0] - places[:, 0, 0, 0]) / (7 / 8 * 2)  # 1 is the whole frame
follow = [np.corrcoef(middles[:, k], found[:, k])[0, 1] for k in range(2)]
print(f"correlation of the digit's place and the grid's: {follow[0]:.1f} and {follow[1]:.1f}")
print(f"width of the grid, of the frame's: {width.mean():.1f}")
beside = 8 * (found - middles)[:, 0]  # how far right of the digit, in pixels of the frame
print(f"it stands {beside.mean():.0f} pixel too far to the right")
assert min(follow) > 0.95 and width.mean() < 0.6
assert 0.7 < beside.mean() < 1.5 and beside.std() < 0.6

# %% [markdown]
# The grid goes where the digit is, and takes in about half of the frame's width, as much as a digit has.
# It stands about a pixel too far to the right, by much the same for every digit, so that some lose their
# left edge; the classifier behind has learned to read them so. Nobody ever told it where the digits are:
# that comes from the slope of the image at the places that are read, the bracket in the equation of $dw$.

# %% [markdown]
# ## Paper and code
#
# | | paper | its code, and others | here |
# |---|---|---|---|
# | $-1$ and $1$ | not said for pixels | code of 2015 to 2017: the centres of the outermost pixels; PyTorch since 1.3: the outer edges | `align_corners=False`, can be set |
# | gradient on a pixel | equation 7: neither slope | the slope on one side, by rounding down | rounding down |
# | the identity | gives the image back | up to rounding; where a place falls just short of its pixel, the slope is that of the other side | bit for bit |
# | outside the image | kernels sum over pixels of the image alone: zeros | zeros | zeros; "border", "reflection" |
# | localisation network | any; two 5 x 5 convolutions for the digits | the same | `LocalisationNet`, or your own |
# | its learning rate | on bird photographs a ten-thousandth, on house numbers a tenth of the others' | the same | the optimiser's parameter groups |
#
# Four traps:
#
# - A program that was written for one meaning of $-1$ and runs with the other reads every image a little
#   smaller or larger, unnoticed (the cell with the ramp).
# - The weights of the four neighbours must be computed *before* indices are clipped to the image: a widely
#   copied sampler does it the other way round and is wrong along two edges even for the identity.
# - A transformer that has jumped off all of its images gets no gradient any more: the slope there is zero,
#   and it never comes back.
# - Where the grid is much coarser than the image, the four neighbours of each place are all that is read,
#   and the pixels between are skipped. The paper averages over 2 x 2 places behind the transformer where
#   it makes the image smaller.
#
# The identity is exact here by a small trick of the library's sampler. It counts places from a point two
# image sizes away first, where the numbers of the computer lie too far apart to tell a pixel from a place
# a rounding error beside it. So the untrained module is no change at all, and the slope at a pixel is
# everywhere that to the right.
#
# The paper's own experiment is on MNIST, with 28 x 28 pixels. Its error rates, in percent (R: turned;
# RTS: turned, scaled, placed in a larger frame; P: seen in perspective; E: bent; TC: placed in a frame
# of 60 x 60 among six fragments of other digits; for TC there is one number for each network, whatever
# its grid):
#
# | | R | RTS | P | E | TC |
# |---|---|---|---|---|---|
# | FCN | 2.1 | 5.2 | 3.1 | 3.2 | 13.2 |
# | CNN | 1.2 | 0.8 | 1.5 | 1.4 | 3.5 |
# | ST-FCN, affine | 1.2 | 0.8 | 1.5 | 2.7 | 2.0 |
# | ST-FCN, thin-plate spline | 1.1 | 0.8 | 1.4 | 2.4 | |
# | ST-CNN, affine | 0.7 | 0.5 | 0.8 | 1.2 | 1.7 |
# | ST-CNN, thin-plate spline | 0.7 | 0.5 | 0.8 | 1.1 | |
#
# There, too, the fully connected network gains most where digits are anywhere in a larger frame (RTS,
# TC).
#
# `python -m minitorch_attn reproduce stn --protocol R` repeats a column of that table (`--data digits`
# needs no download), and `--animate reading.gif` saves what its transformer reads, epoch by epoch. Runs
# of 785 steps, against the paper's 150,000 (`--limit 10000 --epochs 5` for all, so on the first 10,000
# training and 10,000 test images, seed 0, Adam), came to these errors, in percent:
#
# | affine | R | RTS | P | E | TC |
# |---|---|---|---|---|---|
# | FCN | 13.7 | 33.7 | 40.6 | 14.3 | 49.8 |
# | ST-FCN | 10.6 | 12.1 | 23.0 | 8.7 | 40.1 |
# | CNN | 12.3 | 24.5 | 37.3 | 8.9 | 23.7 |
# | ST-CNN | 10.5 | 9.4 | 22.6 | 6.3 | 17.3 |
#
# | parameters | R, P, E | RTS | TC |
# |---|---|---|---|
# | FCN | 269,322 | 520,202 | 990,218 |
# | ST-FCN | 296,752 | 328,112 | 416,560 |
# | CNN | 54,122 | 60,842 | 84,842 |
# | ST-CNN | 65,208 | 71,208 | 97,208 |
#
# (On TC, an average over 2 x 2 follows the transformer, as in the paper; on RTS the transformer hands on
# 28 x 28 pixels of the 42 x 42 by itself. How strongly the digits of P and E are distorted is this
# project's own choice in part, so compare rows more than tables.)
#
# All are far from trained, and one seed is no proof; but in each column each network is ahead with the
# transformer in front of it, as in the paper. The fully connected one gains most on RTS. On TC it gains
# much less than in the paper, perhaps because its transformer must also learn to tell the digit from
# the fragments, and these are few steps for that.

# %% [markdown]
# ## Predict before you run
#
# **1.** A grid with the matrix $A = \begin{pmatrix} 2 & 0 & 0 \\ 0 & 2 & 0 \end{pmatrix}$. Does the
# digit in the result become larger or smaller?

# %%
result, g = read(upright, affine(scale=2.0), 14)
print(f"ink before: {(upright > 0.1).sum()} pixels, after: {(result > 0.1).sum()} pixels")
assert (result > 0.1).sum() < (upright > 0.1).sum()

# %% [markdown]
# <details><summary>Answer</summary>
#
# Smaller. The grid goes from the result to the input: it now reaches twice as far, beyond the image on
# all sides, and the whole image takes only the middle of the result.
#
# </details>
#
# **2.** All pixels of an image have the same value, and the grid stays inside. What is the gradient of
# $\theta$?

# %%
theta = mt.tensor(affine(angle=0.3, scale=0.5), requires_grad=True)
flat = F.grid_sample(np.ones((1, 1, 6, 6)), F.affine_grid(theta, size=(1, 1, 4, 4)))
flat.backward(rng.normal(size=(1, 1, 4, 4)))
print("all zero:", np.allclose(theta.grad.data, 0))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Zero, whatever comes in from above: a place learns from the slope of the image, and a flat image has
# none. What is to be found must have edges.
#
# </details>
#
# **3.** At the start $W_\theta = 0$. Which parts of the module get a gradient in the first step: the
# bias $b$, the weight $W_\theta$, the localisation network?

# %%
mt.manual_seed(0)
fresh = SpatialTransformer(1, "affine", small_network(196), features=32)
fresh(mt.tensor(examples[:8])).backward(rng.normal(size=(8, 1, 14, 14)))
for name, parameter in fresh.named_parameters():
    print(f"{name:22} {'has a gradient' if np.abs(parameter.grad.data).max() > 0 else 'zero'}")
assert np.abs(fresh.fc.weight.grad.data).max() > 0
assert np.abs(fresh.localisation[1].weight.grad.data).max() == 0

# %% [markdown]
# <details><summary>Answer</summary>
#
# $b$ and $W_\theta$ do; the localisation network does not, for its gradient is multiplied by
# $W_\theta = 0$. After one step $W_\theta$ is no longer zero, and from the second step on all parts
# learn.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`16_spatial_transformer`](../exercises/16_spatial_transformer.ipynb):
#
# 1. **affine_places**: the grid of an affine map, with its rule.
# 2. **attention_map**: from a scale and a place to the map, with its rule.
# 3. **read_pixel**: what is read at one place between four pixels.
# 4. **slopes**: how that changes when the place moves.
# 5. **sample**: the sampler, with the rules of image and grid.
# 6. **SpatialTransformer**: the module, which starts as the identity.

# %% [markdown]
# ## What to remember
#
# - Localisation says how, the grid says where, the sampler reads. The map goes from the result to the
#   input.
# - Reading gathers from four neighbours; its gradient scatters to them and adds up.
# - A place learns from the slope of the image: $dw = \sum_c dy\, [\ldots]$, times $W / 2$ for the grid.
# - It starts as the identity: zero weights, the identity as bias, grid and sampler of one convention.
# - It learned to find digits that nobody had marked, and there a network without convolutions gained
#   much; on turned digits it gained less, and turned only part of the way.

# %% [markdown]
# ## Sources
#
# - M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu, *Spatial Transformer Networks*, NIPS 2015:
#   equations 1 to 7, table 1, appendix A.4.
# - F. L. Bookstein, *Principal warps: thin-plate splines and the decomposition of deformations*, IEEE
#   TPAMI 1989.
