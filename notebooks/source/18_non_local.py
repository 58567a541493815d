# %% [markdown]
# # 18 · Non-local networks
#
# A layer in which every position takes in a weighted sum over all positions, near and far; the weights
# come from comparing what is there.
#
# **You will be able to**
#
# - clean a noisy photograph with non-local means, and see in it softmax attention without a learned
#   weight;
# - derive the forward and backward of the non-local block with each of its four ways to compare two
#   positions, and say what its map costs;
# - build the block for sequences, images and clips, put it into a trained network without disturbing
#   it, and find out by a control which part of it a task needs.
#
# **You need** lessons 01 to 08, and 11 for softmax attention.
#
# **Time** about 50 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import NonLocalBlock
from minitorch_attn.attention.non_local_means import non_local_means, non_local_weights
from minitorch_attn.data import DataLoader, TensorDataset, digits, photograph
from minitorch_attn.training import fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# A convolution mixes a pixel with its neighbours. But what a pixel has to do with is not always next to
# it: a roof tile looks like other tiles, a piece of sky like the whole sky. *Non-local means* (2005)
# compares the surroundings of a pixel, a small square called a *patch*, with the patches of other
# pixels, and gives each of them a weight: large where the patches look alike. Below, a piece of a
# photograph with noise on it, and the weights of three of its pixels. (What `h` and `sigma` are, the
# equations tell.)

# %%
NOISE = 0.1
photo = photograph("china", grey=True).astype(float)
clean, other = photo[60:156, 230:326], photo[180:276, 250:346]  # two pieces, (96, 96) each


def with_noise(image, seed):
    return image + NOISE * np.random.default_rng(seed).normal(size=image.shape)


noisy = with_noise(clean, seed=0)
places = {"roof tiles": (45, 20), "edge of the roof": (57, 62), "sky": (20, 70)}
maps = [
    non_local_weights(noisy, place, h=0.1, patch_size=7, search_size=None, sigma=NOISE)
    for place in places.values()
]

figure, axes = viz.panels(1, 4, height=2.4)
axes[0].imshow(noisy, cmap="gray", vmin=0, vmax=1)
axes[0].set_title("a noisy photograph")
for ax, w, (name, (row, column)) in zip(axes[1:], maps, places.items(), strict=True):
    ax.imshow(np.sqrt(w / w.max()), cmap="viridis")
    ax.plot(column, row, "o", markersize=9, markerfacecolor="none", color="white")
    ax.set_title(name)
for ax in axes:
    ax.set_axis_off()
tiles, edge, sky = maps
assert all(np.isclose(w.sum(), 1) for w in maps)
assert tiles[:30, 60:].sum() < 0.01 and sky[45:, :30].sum() < 0.01
figure

# %% [markdown]
# *Figure 1. The weights that three pixels, in the circles, give to all pixels (bright is large; drawn
# is the square root). A roof tile finds tiles, the edge finds pixels along edges that run as it does,
# the sky finds sky.*
#
# The mean of all pixels with these weights is a cleaner value for the pixel, as noise averages out and
# what is alike stays. A *non-local network* (2018) does the same inside a network: patches become
# features, and how to compare them is learned.

# %% [markdown]
# ## The equations
#
# ### Non-local means
#
# Let $v_i$ be the brightness of pixel $i$, and $p_i$ its patch: the $R \times R$ pixels around it as one
# vector. The denoised pixel is a mean over all pixels $j$,
#
# $$\hat v_i = \sum_j w_{ij}\, v_j, \qquad
# w_{ij} = \frac{e^{-d_{ij}^2 / h^2}}{\sum_k e^{-d_{ik}^2 / h^2}}, \qquad
# d_{ij}^2 = \frac{1}{R^2}\, \lVert p_i - p_j \rVert^2$$
#
# The weights are a softmax over $j$. The number $h$ says how different patches may look.
#
# The library's function can do three things more. `search_size` lets $j$ run only over a square window
# around $i$. `spread` counts the middle of a patch more than its rim. And `sigma` is the noise's standard
# deviation $\sigma$: two patches that differ by noise alone have $d_{ij}^2 = 2\sigma^2$ on average, and
# this is taken off (down to zero). Figure 1 has `sigma` alone, and the equations here have none of the
# three.
#
# Multiply the square out: $\lVert p_i - p_j \rVert^2 = \lVert p_i \rVert^2 - 2\, p_i \cdot p_j +
# \lVert p_j \rVert^2$. The first term is the same for all $j$, and a softmax does not change when the
# same number is added to all its inputs (lesson 00). So, with $c = 1 / (R h)^2$,
#
# $$w_{ij} = \mathrm{softmax}_j\left(2c\, p_i \cdot p_j - c \lVert p_j \rVert^2\right)
# = \mathrm{softmax}_j\left(\theta_i \cdot \phi_j\right), \qquad
# \theta_i = [2c\, p_i,\ 1], \quad \phi_j = [p_j,\ -c \lVert p_j \rVert^2]$$
#
# That is softmax attention (lesson 11): queries $\theta_i$, keys $\phi_j$, values $v_j$. Queries and
# keys are both made of patches, and nothing is learned.
#
# ### The block
#
# Now $x_i$ is the vector of $C$ features at position $i$ of a feature map with $L = HW$ positions (of a
# clip with $T$ frames: $L = THW$). Matrices that are learned take the place of patches:
#
# $$\theta_i = W_\theta x_i, \qquad \phi_j = W_\phi x_j, \qquad g_j = W_g x_j$$
#
# The three matrices have shape $(D, C)$, and lead to $D = C/2$ features; a convolution with kernels of
# size 1 does that for all positions. Then
#
# $$y_i = \sum_j P_{ij}\, g_j, \qquad z_i = \mathrm{BN}(W_z\, y_i) + x_i$$
#
# with $W_z: (C, D)$, and BN a batch normalisation (lesson 07). The *map* $P: (L, L)$ says how much
# position $j$ counts for $i$. The paper writes it as $P_{ij} = f(x_i, x_j) / \mathcal{C}(x)$ and gives
# four choices:
#
# | | $f(x_i, x_j)$ | $\mathcal{C}(x)$ | so $P$ is |
# |---|---|---|---|
# | Gaussian | $e^{x_i \cdot x_j}$ | $\sum_j f$ | $\mathrm{softmax}_j(x_i \cdot x_j)$ |
# | embedded Gaussian | $e^{\theta_i \cdot \phi_j}$ | $\sum_j f$ | $\mathrm{softmax}_j(\theta_i \cdot \phi_j)$ |
# | dot product | $\theta_i \cdot \phi_j$ | $L$ | $\theta_i \cdot \phi_j / L$ |
# | concatenation | $\max(w \cdot [\theta_i, \phi_j],\ 0)$ | $L$ | $\max(w_\theta \cdot \theta_i + w_\phi \cdot \phi_j,\ 0) / L$ |
#
# In the last row $w$ has $2D$ numbers, and a product with a vector of two halves is the sum of two
# products: $w_\theta$ is the first half of $w$, $w_\phi$ the second.

# %% [markdown]
# ### Backward
#
# Take one input. Its $\theta, \phi, g$ are matrices $(L, D)$ with one row for each position. As always,
# $dy$ stands for the gradient of the loss with respect to $y$, and has $y$'s shape.
#
# **From $z$ to $y$.** Write $u$ for what goes into the batch normalisation, one row for each position:
# $u = y W_z^\top$, and $z = \mathrm{BN}(u) + x$. The rule of lesson 07 makes $du$ of $dz$. By the rule of
# a matrix product, $dA = dY\, B^\top$ and $dB = A^\top dY$ for $Y = A B$ (lesson 02),
#
# $$dy = du\, W_z, \qquad dW_z = du^\top y$$
#
# **The weighted sum.** $y = P g$ is a matrix product, too:
#
# $$dg = P^\top dy, \qquad dP = dy\, g^\top \qquad dP: (L, L)$$
#
# **The product.** The first three forms begin with a matrix of products, $E = \theta \phi^\top$. By the
# same rule
#
# $$d\theta = dE\, \phi, \qquad d\phi = dE^\top \theta$$
#
# What lies between, from $dP$ to $dE$, is where the forms differ.
#
# **Softmax.** Row $i$ of $P$ is the softmax of row $i$ of $E$, whose rule is (lesson 03)
#
# $$dE_{ij} = P_{ij} \Big( dP_{ij} - \sum_k P_{ik}\, dP_{ik} \Big)$$
#
# **Dot product.** $P = E / L$, so $dE = dP / L$.
#
# **Gaussian.** There $\theta = \phi = x$. Both factors of $E = x x^\top$ are $x$, so $x$ gets both
# gradients:
#
# $$dx = dE\, x + dE^\top x$$
#
# **Concatenation.** With $a_i = w_\theta \cdot \theta_i$, $b_j = w_\phi \cdot \phi_j$ and
# $r_{ij} = a_i + b_j$ the map is $P_{ij} = \max(r_{ij}, 0) / L$. The ReLU lets a gradient pass only where
# its input was positive:
#
# $$dr_{ij} = \frac{1}{L}\, dP_{ij}\, \mathbb{1}[r_{ij} > 0]$$
#
# $a_i$ takes part in all of row $i$, and $b_j$ in all of column $j$:
#
# $$da_i = \sum_j dr_{ij}, \qquad db_j = \sum_i dr_{ij}$$
#
# and $a = \theta w_\theta$, $b = \phi w_\phi$ are products again:
#
# $$d\theta_i = da_i\, w_\theta, \qquad d\phi_j = db_j\, w_\phi, \qquad
# dw_\theta = \theta^\top da, \qquad dw_\phi = \phi^\top db$$
#
# **The whole.** The input reaches $z$ by the shortcut and through $\theta$, $\phi$ and $g$, which are
# $x W_\theta^\top$, $x W_\phi^\top$ and $x W_g^\top$ when $x$ is written with one row for each position.
# So four gradients add up, and each matrix gets its own:
#
# $$\boxed{\; dx = dz + d\theta\, W_\theta + d\phi\, W_\phi + dg\, W_g \;} \qquad
# dW_\theta = d\theta^\top x, \quad dW_\phi = d\phi^\top x, \quad dW_g = dg^\top x$$
#
# (In the Gaussian form the $dx$ above takes the place of $d\theta\, W_\theta + d\phi\, W_\phi$.) In
# each of the last three terms one position has a part from all positions.

# %% [markdown]
# ### The start, and the cost
#
# The scale of the batch normalisation behind $W_z$ starts at zero. Then $z = x$: the block does nothing
# yet, and a trained network stays as good as it was when the block is put into it. In the first step
# only that scale (and the shift beside it) gets a gradient: all others are multiplied by it.
#
# The four matrices have $4\,CD = 2C^2$ numbers. They take $2 L C^2$ multiply-adds, and $E$ and $P g$
# another $2 L^2 D = L^2 C$. The map has $L^2$ numbers for each input: 16 times as many when a map is
# twice as wide and high. That is the price of looking everywhere. Two ways to pay less: take the
# greatest of each 2 x 2 positions of $\phi$ and $g$, a quarter of the columns; or never make the map as
# a whole (the dot product below; for softmax, lesson 20).

# %%
print("image      map       MB in float32")
for side in 14, 28, 56, 112:
    print(f"{side:3} x {side:<3}  {side**4:11,}  {4 * side**4 / 1e6:7.1f}")
assert 4 * 28**4 / 1e6 < 2.5 and 4 * 112**4 / 1e6 > 600

# %% [markdown]
# ## The code
#
# First as loops, with the softmax as it is written above.


# %%
def attend_loops(theta, phi, g):
    """theta (L, D), phi (L, D), g (L, D) -> y (L, D), with softmax weights."""
    y = np.zeros((len(theta), g.shape[1]))
    for i in range(len(theta)):
        f = [
            np.exp(sum(theta[i, d] * phi[j, d] for d in range(len(theta[i]))))
            for j in range(len(phi))
        ]
        for j in range(len(phi)):
            y[i] += f[j] / sum(f) * g[j]
    return y


# %% [markdown]
# Now in primitive form, all four. The last product and the rule of $g$ are the same in all; how $dP$,
# which is `dy @ g.T`, goes back to what made the map is each form's own. The Gaussian form takes both
# rules of the embedded one, for the two ways to $x$.


# %%
def softmax(E):
    e = np.exp(E - E.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softmax_back(P, dP):
    return P * (dP - (P * dP).sum(axis=1, keepdims=True))


def embedded_gaussian(theta, phi, g):
    P = softmax(theta @ phi.T)

    def vjp_theta(dy):
        return softmax_back(P, dy @ g.T) @ phi

    def vjp_phi(dy):
        return softmax_back(P, dy @ g.T).T @ theta

    def vjp_g(dy):
        return P.T @ dy

    return P @ g, (vjp_theta, vjp_phi, vjp_g)


def gaussian(x, g):
    y, (vjp_theta, vjp_phi, vjp_g) = embedded_gaussian(x, x, g)

    def vjp_x(dy):
        return vjp_theta(dy) + vjp_phi(dy)

    return y, (vjp_x, vjp_g)


def dot_product(theta, phi, g):
    L = len(phi)
    P = theta @ phi.T / L

    def vjp_theta(dy):
        return dy @ g.T / L @ phi

    def vjp_phi(dy):
        return (dy @ g.T / L).T @ theta

    def vjp_g(dy):
        return P.T @ dy

    return P @ g, (vjp_theta, vjp_phi, vjp_g)


def concatenation(theta, phi, g, w):
    L, D = phi.shape
    w_theta, w_phi = w[:D], w[D:]
    r = (theta @ w_theta)[:, None] + phi @ w_phi  # (L, L)
    P = np.maximum(r, 0) / L

    def back_to_r(dy):
        return dy @ g.T / L * (r > 0)

    def vjp_theta(dy):
        return back_to_r(dy).sum(axis=1)[:, None] * w_theta

    def vjp_phi(dy):
        return back_to_r(dy).sum(axis=0)[:, None] * w_phi

    def vjp_g(dy):
        return P.T @ dy

    def vjp_w(dy):
        dr = back_to_r(dy)
        return np.concatenate([theta.T @ dr.sum(axis=1), phi.T @ dr.sum(axis=0)])

    return P @ g, (vjp_theta, vjp_phi, vjp_g, vjp_w)


# %%
rng = np.random.default_rng(0)
theta, phi, g = rng.normal(size=(3, 12, 4))
w = rng.normal(size=8)

y, _ = embedded_gaussian(theta, phi, g)
print("loops and arrays agree:", np.allclose(y, attend_loops(theta, phi, g)))

# %% [markdown]
# The whole block as a module, embedded Gaussian, for images:


# %%
class OurNonLocalBlock(nn.Module):
    """z = BN(W_z softmax(theta phi^T) g) + x.  (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels):
        super().__init__()
        self.theta = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.phi = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.w_z = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x):
        N, C, H, W = x.shape
        theta, phi, g = (part(x).flatten(2) for part in (self.theta, self.phi, self.g))  # (N, D, L)
        P = F.softmax(theta.transpose(1, 2) @ phi, dim=2)  # (N, L, L): row i for position i
        y = P @ g.transpose(1, 2)  # (N, L, D)
        return self.bn(self.w_z(y.transpose(1, 2).reshape(N, C // 2, H, W))) + x


# %% [markdown]
# The library's `NonLocalBlock` has the same names. At first both are the identity; with numbers in place
# of the zeros they still agree.

# %%
x = mt.tensor(rng.normal(size=(2, 8, 3, 4)))
ours, library = OurNonLocalBlock(8), NonLocalBlock(8)
print("at first the identity:  ", np.array_equal(ours(x).data, x.data))

for parameter in ours.parameters():
    parameter.data = rng.normal(size=parameter.shape)
library.load_state_dict(ours.state_dict())
print("library's module agrees:", np.allclose(library(x).data, ours(x).data))
library

# %% [markdown]
# Each form has its own way to $y$, and the library's block has all four. Its map can be seen by a hook
# on the part called `affinity`. And the dot product has a short cut: as no softmax stands between,
# $(\theta \phi^\top) g = \theta\, (\phi^\top g)$, and the matrix in the right-hand brackets has
# $D \times D$ numbers instead of $L \times L$:

# %%
y, _ = dot_product(theta, phi, g)
print("without a map the same:", np.allclose(y, theta @ (phi.T @ g) / 12))

quick = mt.summary(NonLocalBlock(64, "dot_product", make_map=False), (64, 28, 28)).multiply_adds
slow = mt.summary(NonLocalBlock(64, "dot_product"), (64, 28, 28)).multiply_adds
print(f"multiply-adds for an image of 28 x 28: {slow:,} with a map, {quick:,} without")
assert slow == 2 * 784 * 64**2 + 784**2 * 64 and quick == 2 * 784 * 64**2 + 2 * 784 * 32**2

# %% [markdown]
# ### Ancestor and block as one formula
#
# Non-local means on a small piece of the photograph, three ways: the library's loop over offsets; our
# embedded Gaussian, with $\theta$ and $\phi$ made of patches as derived above; and the
# `scaled_dot_product_attention` of lesson 11.

# %%
piece = noisy[24:56, 24:56]  # (32, 32)
h, R = 0.15, 5
border = np.pad(piece, R // 2, mode="reflect")
p = np.lib.stride_tricks.sliding_window_view(border, (R, R)).reshape(-1, R * R)  # (1024, 25)
c = 1 / (R * h) ** 2
queries = np.concatenate([2 * c * p, np.ones((1024, 1))], axis=1)
keys = np.concatenate([p, -c * (p**2).sum(axis=1, keepdims=True)], axis=1)
values = piece.reshape(-1, 1)

by_offsets = non_local_means(piece, h, patch_size=R, search_size=None)
by_block, _ = embedded_gaussian(queries, keys, values)
by_attention = F.scaled_dot_product_attention(
    *(mt.tensor(t) for t in (queries, keys, values)), scale=1.0
)
print("the block computes non-local means:", np.allclose(by_block.reshape(32, 32), by_offsets))
print("and so does softmax attention:     ", np.allclose(by_attention.data, by_block))

# %% [markdown]
# ## The gradient check
#
# All four forms against central differences (lesson 03):

# %%
reports = {
    "embedded Gaussian": mt.check_vjp(embedded_gaussian, theta, phi, g),
    "Gaussian": mt.check_vjp(gaussian, theta, g),
    "dot product": mt.check_vjp(dot_product, theta, phi, g),
    "concatenation": mt.check_vjp(concatenation, theta, phi, g, w),
}
for name, report in reports.items():
    print(f"{name:18}", "passed" if report.ok else "failed")
print(reports["concatenation"])

# %%
viz.draw_gradcheck(reports["embedded Gaussian"])

# %% [markdown]
# *Figure 2. Each row is one input: the gradient by the rule, the measured one, and their difference,
# dark throughout.*
#
# A mistake that is easily made: someone takes the rules of the dot product, and forgets that the
# normaliser $L$ belongs to the backward as well.


# %%
def without_normaliser(theta, phi, g):
    y, (_, _, vjp_g) = dot_product(theta, phi, g)
    return y, (lambda dy: dy @ g.T @ phi, lambda dy: (dy @ g.T).T @ theta, vjp_g)


wrong = mt.check_vjp(without_normaliser, theta, phi, g, raise_on_failure=False)
print(wrong)
assert [compared.ok for compared in wrong.inputs] == [False, False, True]
assert "12" in wrong.inputs[0].diagnosis

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 3. The gradients of $\theta$ and $\phi$ have the right pattern and the wrong size, 12 times
# too large, and there are 12 positions. That of $g$ is right.*
#
# A subtler one: in the Gaussian form $x$ is compared with itself, and the second way to it is
# forgotten.


# %%
def one_way_only(x, g):
    y, (vjp_theta, _, vjp_g) = embedded_gaussian(x, x, g)
    return y, (vjp_theta, vjp_g)


print(mt.check_vjp(one_way_only, theta, g, raise_on_failure=False))

# %% [markdown]
# Here no simple pattern gives it away; that the rule of $x$ fails while that of $g$ passes says that the
# mistake is on the way to $x$.

# %% [markdown]
# ## At work
#
# ### A photograph
#
# How well does non-local means clean? Quality is measured as *peak signal-to-noise ratio* (PSNR), for
# brightness from 0 to 1 $10 \log_{10} (1 / \text{mean squared error})$ in decibels: 10 more mean a tenth
# of that error. The opponent is a blur: the mean of a pixel's neighbours, weighted by a Gaussian of their
# distance. To be fair to it, we choose its width on the very piece that is to be cleaned, where we know
# the truth; the $h$ of non-local means is chosen on another piece of the photograph. Its patches are
# compared in windows of 21 x 21 pixels.


# %%
def psnr(image, truth):
    return 10 * np.log10(1 / ((image - truth) ** 2).mean())


def blur(image, width):
    reach = int(np.ceil(4 * width))
    k = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * width**2))
    border = np.pad(image, reach, mode="reflect")
    for axis in 0, 1:
        border = np.apply_along_axis(np.convolve, axis, border, k / k.sum(), mode="valid")
    return border


def denoise(image, h):
    return non_local_means(image, h, patch_size=7, search_size=21, spread=1.5, sigma=NOISE)


widths, hs = np.arange(0.4, 1.7, 0.2), np.arange(0.04, 0.15, 0.02)
noisy_other = with_noise(other, seed=1)
on_other = [psnr(denoise(noisy_other, h), other) for h in hs]
h = hs[np.argmax(on_other)]
blurred = max((blur(noisy, width) for width in widths), key=lambda image: psnr(image, clean))
denoised = denoise(noisy, h)

scores = {"noisy": noisy, "best blur": blurred, "non-local means": denoised}
for name, image in scores.items():
    print(f"{name:16} {psnr(image, clean):.1f} dB")
assert psnr(denoised, clean) > psnr(blurred, clean) + 1 > psnr(noisy, clean) + 2

# %%
viz.show_images(
    np.stack([*scores.values(), clean])[:, 10:90, 10:90],
    [*(f"{name}, {psnr(image, clean):.1f} dB" for name, image in scores.items()), "the photograph"],
    columns=2,
    value_range=(0, 1),
)

# %% [markdown]
# *Figure 4. The blur trades noise for sharpness. Non-local means keeps edges and tiles, and smooths the
# sky. Under the eaves, where little comes again, detail goes with the noise.*

# %%
on_this = [psnr(denoise(noisy, one), clean) for one in hs]
figure, ax = viz.panels(1, 1, width=5, height=3)
for values, name, colour in zip((on_other, on_this), ("other piece", "this piece"), viz.COLOURS):
    ax.plot(hs, values, "o-", color=colour, label=name)
ax.axvline(h, color="black", linewidth=1, linestyle="--")
ax.set(xlabel="h", ylabel="PSNR, dB")
ax.legend(frameon=False)
loss = max(on_this) - on_this[int(np.argmax(on_other))]
print(f"chosen on the other piece: h = {h:.2f}, {loss:.1f} dB short of the best h here")
assert loss == 0
figure

# %% [markdown]
# *Figure 5. Quality against $h$ on both pieces. The dashed line is the $h$ that was chosen on the other
# one: of these six the best here, too.*
#
# Half of this piece is sky, which is alike everywhere. How much is gained on the roof alone (the pixels
# darker than 0.8), against the blur that is best there? And on a piece of the photograph that hardly
# repeats itself, the leaves of a tree?

# %%
leaves = photo[280:376, 400:496]
noisy_leaves = with_noise(leaves, seed=2)
roof = clean < 0.8


def gain(image, truth, where):
    """Decibels by which non-local means is ahead of the blur that is best for these pixels."""
    best = max(psnr(blur(image, width)[where], truth[where]) for width in widths)
    return psnr(denoise(image, h)[where], truth[where]) - best


gains = {
    "sky": gain(noisy, clean, ~roof),
    "roof": gain(noisy, clean, roof),
    "leaves": gain(noisy_leaves, leaves, ...),
}
for name, ahead in gains.items():
    print(f"{name:6} ahead of the best blur by {ahead:.1f} dB")
assert gains["sky"] > 5 and 1.5 < gains["roof"] < 3 and 0 < gains["leaves"] < 1

# %% [markdown]
# Most in the sky, less on the roof, little among the leaves, of which hardly two look alike. The method
# lives on what comes again.

# %% [markdown]
# ### Has this digit a twin?
#
# Now a task that cannot be solved locally. Four digits in a picture of 16 x 16; two of them are of the
# same class, in different handwriting. *For every position: does its digit have a twin?* Half of them
# have. Whoever sees one digit alone can only guess.

# %%
DIGITS = {"train": digits()[:], "test": digits(train=False)[:]}


def drawn(part, classes, rng):
    """For each of some classes a digit from a part of the data, drawn at random: (..., 8, 8)."""
    images, labels = DIGITS[part]
    order, counts = np.argsort(labels, kind="stable"), np.bincount(labels)
    starts = np.cumsum(counts) - counts
    ranks = (rng.random(classes.shape) * counts[classes]).astype(int)
    return images[order[starts[classes] + ranks], 0].astype(float)


def with_twins(count, rng):
    """Four classes each, two of them alike; and which these are: both (count, 4)."""
    kinds = rng.permuted(np.tile(np.arange(10), (count, 1)), axis=1)[:, [0, 0, 1, 2]]
    order = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    return np.take_along_axis(kinds, order, axis=1), order < 2


def in_quarters(four):
    """Four digits (N, 4, 8, 8) as a picture (N, 1, 16, 16)."""
    N = len(four)
    return four.reshape(N, 2, 2, 8, 8).transpose(0, 1, 3, 2, 4).reshape(N, 1, 16, 16)


def per_position(answers):
    """An answer for each digit (N, 4) as one for each of 4 x 4 positions."""
    return answers.reshape(-1, 2, 2).repeat(2, axis=1).repeat(2, axis=2).astype(int)


rng = np.random.default_rng(3)
classes, twin = with_twins(5, rng)
pictures = in_quarters(drawn("test", classes, rng))
assert (twin.sum(axis=1) == 2).all() and all(len(set(row)) == 3 for row in classes.tolist())


def apart(pictures):
    """With a grey cross between the four digits, to see them better: (N, 1, 17, 17)."""
    return np.insert(np.insert(pictures, 8, 0.5, axis=2), 8, 0.5, axis=3)


viz.show_images(apart(pictures), [f"twins: {k[t][0]}" for k, t in zip(classes, twin)], columns=5)

# %% [markdown]
# *Figure 6. Five pictures. In each, two of the four digits are the same.*
#
# The network is made as the paper makes its own: first a plain network is trained, then the block is put
# into it. Three convolutions, which lead to 24 channels on 4 x 4 positions (four for each digit), learn
# to tell which digit is where. They never hear of twins.

# %%
CHANNELS = 24


def convolution(in_channels, out_channels, stride):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def train(model, x, target, epochs, seed, lr=1e-2):
    optimizer = optim.Adam(model.parameters(), lr=lr)
    loader = DataLoader(TensorDataset(x, target), batch_size=50, shuffle=True, generator=seed)
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
    model.eval()


def run(model, x):
    """A model's output for an array, in evaluation, without a graph."""
    model.eval()
    with mt.no_grad():
        return np.concatenate(
            [model(mt.tensor(x[i : i + 250])).numpy() for i in range(0, len(x), 250)]
        )


def right(model, x, target):
    """Percentage of right answers."""
    return 100 * (run(model, x).argmax(axis=1) == target).mean()


mt.manual_seed(0)
trunk = nn.Sequential(
    convolution(1, CHANNELS, 1),
    convolution(CHANNELS, CHANNELS, 2),
    convolution(CHANNELS, CHANNELS, 2),
)
reader = nn.Sequential(trunk, nn.Conv2d(CHANNELS, 10, 1))
rng = np.random.default_rng(0)
classes = rng.integers(10, size=(600, 4))
train(reader, in_quarters(drawn("train", classes, rng)), per_position(classes), epochs=6, seed=0)

classes = rng.integers(10, size=(200, 4))
share = right(reader, in_quarters(drawn("test", classes, rng)), per_position(classes))
print(f"which digit is here: {share:.0f} % of the positions right")

with_block = nn.Sequential(trunk, NonLocalBlock(CHANNELS), reader[1])
pictures = in_quarters(drawn("test", classes, rng))
print(
    "a fresh block changes nothing:",
    np.array_equal(run(with_block, pictures), run(reader, pictures)),
)
assert share > 80

# %% [markdown]
# Now the trunk stays as it is. Behind it come the block (or nothing), and a head of two 1 x 1
# convolutions, which answers the question for each position. Only these learn, from three seeds. As the
# trunk does not change, its features are computed once.
#
# One more arm is a control. Two things are new in the block: every position *sees* all others, and it
# *compares* itself with them. To tell the two apart we also train a block with a flat map, $P_{ij} = 1 / L$:
# it sees all positions and compares nothing, so that $y$ is the mean of all $g_j$. ($W_\theta$ and $W_\phi$
# are still there, and idle.)

# %%
SEEDS = 0, 1, 2


def twin_features(part, count, seed):
    rng = np.random.default_rng(seed)
    classes, twin = with_twins(count, rng)
    return run(trunk, in_quarters(drawn(part, classes, rng))), per_position(twin)


def head(convolution):
    return convolution(CHANNELS, CHANNELS, 1), nn.ReLU(), convolution(CHANNELS, 2, 1)


x_train, t_train = twin_features("train", 2000, seed=1)
x_test, t_test = twin_features("test", 500, seed=2)


def train_twins(block, seed):
    mt.manual_seed(seed)
    model = nn.Sequential(block(), *head(nn.Conv2d))
    train(model, x_train, t_train, epochs=8, seed=seed)
    return model, right(model, x_test, t_test)


def print_arms(arms):
    for arm, runs in arms.items():
        print(f"{arm:18}", "  ".join(f"{share:.1f} %" for share in runs))


class FlatMap(nn.Module):
    """In place of a comparison: all positions count alike."""

    def forward(self, theta, phi):
        L = phi.shape[1]
        return mt.ones(len(theta), L, L) / L


def with_flat_map(block):
    block.affinity = FlatMap()
    return block


blocks = {
    "no block": nn.Identity,
    "flat map": lambda: with_flat_map(NonLocalBlock(CHANNELS)),
    "Gaussian": lambda: NonLocalBlock(CHANNELS, "gaussian"),
    "embedded Gaussian": lambda: NonLocalBlock(CHANNELS),
    "dot product": lambda: NonLocalBlock(CHANNELS, "dot_product"),
    "concatenation": lambda: NonLocalBlock(CHANNELS, "concatenation"),
}
twins = {arm: [train_twins(block, seed) for seed in SEEDS] for arm, block in blocks.items()}

# %%
on_twins = {arm: [share for _, share in runs] for arm, runs in twins.items()}
print_arms(on_twins)
viz.plot_arms(on_twins, label="positions answered right, %")

# %%
lowest = {arm: min(runs) for arm, runs in on_twins.items()}
highest = {arm: max(runs) for arm, runs in on_twins.items()}
assert 48 < lowest["no block"] and highest["no block"] < 52
assert lowest["Gaussian"] > highest["no block"] + 3
assert min(lowest["embedded Gaussian"], lowest["dot product"]) > highest["Gaussian"] + 10
assert lowest["concatenation"] > highest["Gaussian"]
assert min(lowest["flat map"], lowest["embedded Gaussian"]) > 70
assert abs(np.mean(on_twins["flat map"]) - np.mean(on_twins["embedded Gaussian"])) < 3

# %% [markdown]
# *Figure 7. A dot is one seed, the bar their mean. Without the block half of the answers are right: that
# is guessing. With it more are, in every form and on every seed; and with a flat map as many as with the
# best form.*
#
# So to see all positions is needed, and to compare them is not: the control does as well as the best of
# the four forms. In the mean of the four digits' features, the class that is there twice counts twice.
# The head gets the position's own features by the shortcut, with this mean added, and can learn to put
# the two together. (The mean is the squeeze of lesson 13; there it scales channels, here it is added.)
# That a task cannot be solved locally does not make it a task for comparing; without the control we would
# have taken the one for the other.
#
# Among the four forms, the softmax over embedded features and the plain dot product do best, at about three
# quarters, so softmax is not what matters. The Gaussian form, which has nothing to learn in its comparison,
# does worst. Concatenation differs much from seed to seed.
#
# ### The first weights
#
# The paper draws the first $W_\theta$, $W_\phi$ and $W_g$ as He et al. did for layers with ReLUs: larger
# than `nn.Conv2d` does. And it does not divide the products by $\sqrt{D}$, as the Transformer of lesson 11
# and the authors' program do (`scale=True`). Does that matter? A number that tells how a softmax stands is
# the largest weight of a row: with 16 positions it is 1/16 if all count alike, and 1 if one takes all.


# %%
def map_of(block, x):
    """The map that a block makes of an input, by a hook on the part that computes it."""
    seen = []
    with block.affinity.register_forward_hook(lambda part, inputs, P: seen.append(P.numpy())):
        run(block, x)
    return np.concatenate(seen)


def as_he_et_al(**settings):
    block = NonLocalBlock(CHANNELS, **settings)
    for part in block.theta, block.phi, block.g:
        nn.init.kaiming_normal_(part.weight)
    return block


by_start = {
    "as nn.Conv2d": twins["embedded Gaussian"],
    "as He et al.": [train_twins(as_he_et_al, seed) for seed in SEEDS],
    "the same, divided": [train_twins(lambda: as_he_et_al(scale=True), seed) for seed in SEEDS],
}
largest = {}
for name, runs in by_start.items():
    largest[name] = np.mean([map_of(model[0], x_test).max(axis=2).mean() for model, _ in runs])
    shares = "  ".join(f"{share:.1f} %" for _, share in runs)
    print(f"{name:17}  {shares}   largest weight of a row {largest[name]:.1f}")
plain, he, divided = ([share for _, share in runs] for runs in by_start.values())
assert max(he) < min(plain) - 10 and max(he) < min(divided) - 10
assert largest["as He et al."] > 0.5 > 0.2 > largest["the same, divided"]

# %% [markdown]
# It does. With the larger weights the products $\theta_i \cdot \phi_j$ lie far apart and the softmax is
# nearly all or nothing. There its slope $P (1 - P)$ is nearly zero, and the block learns hardly anything in
# the time it has. Divided by $\sqrt{D}$, the same weights do better. Small first weights make a map that
# is nearly flat, and a flat map is a good start here, as figure 7 shows.
#
# ### Where it looks
#
# Row $i$ of the map says where position $i$ looks. We give it in shares: 1 is what each position would
# get if all counted alike. The network is that of the first seed, with the embedded Gaussian. For each
# position and each digit of its picture we take the mean share of the digit's four positions, and draw the
# five pictures in which the twin is furthest ahead of the other digits.

# %%
rng = np.random.default_rng(2)  # draws the pictures behind x_test once more
classes, twin = with_twins(len(x_test), rng)
pictures = in_quarters(drawn("test", classes, rng))
assert np.array_equal(per_position(twin), t_test)

owner = per_position(np.arange(4)[None])[0].ravel()  # (16,): the digit at each position
model = twins["embedded Gaussian"][0][0]
shares = 16 * map_of(model[0], x_test)  # (N, 16, 16)
on_digit = np.stack([shares[:, :, owner == k].mean(axis=2) for k in range(4)], axis=2)  # (N, 16, 4)

is_other = owner[:, None] != np.arange(4)  # (16, 4): not the position's own digit
is_twin = twin[:, owner, None] & twin[:, None] & is_other  # (N, 16, 4)
rivals = np.where(is_other & ~is_twin, on_digit, 0).max(axis=2)
lead = np.where(is_twin.any(axis=2), (on_digit * is_twin).sum(axis=2) - rivals, 0)  # (N, 16)
clearest = np.argsort(-lead.max(axis=1))[:5]

brightest = max(shares[n, lead[n].argmax()].max() for n in clearest)

figure, axes = viz.panels(2, 5, height=3.5)
for n, (top, bottom) in zip(clearest, axes.T, strict=True):
    i = lead[n].argmax()
    top.imshow(apart(pictures)[n, 0], cmap="gray")
    top.set_title(f"twins: {classes[n][twin[n]][0]}")
    top.plot(4.3 * (i % 4) + 1.5, 4.3 * (i // 4) + 1.5, "o", markersize=9, color=viz.COLOURS[1])
    colours = bottom.imshow(shares[n, i].reshape(4, 4), cmap="viridis", vmin=0, vmax=brightest)
    bottom.plot(i % 4, i // 4, "o", markersize=9, color=viz.COLOURS[1])
    bottom.axhline(1.5, color="white", linewidth=1)
    bottom.axvline(1.5, color="white", linewidth=1)
for ax in axes.ravel():
    ax.set_axis_off()
figure.colorbar(colours, ax=axes[1], label="share")
assert np.allclose(shares.mean(axis=2), 1) and (lead[clearest].max(axis=1) > 0.5).all()
figure

# %% [markdown]
# *Figure 8. Top: five pictures, and one position in each, the dot. Bottom: what that position gives to
# each of the 16. The twin of its digit gets more than any other digit. These are the clearest of 500.*


# %%
def looks(on_digit):
    """Mean share that positions of each class give to other digits, by their class: (10, 10)."""
    n, i, k = np.nonzero(np.broadcast_to(is_other, on_digit.shape))
    total, count = np.zeros((2, 10, 10))
    np.add.at(total, (classes[n, owner[i]], classes[n, k]), on_digit[n, i, k])
    np.add.at(count, (classes[n, owner[i]], classes[n, k]), 1)
    return total / count


table = looks(on_digit)
on_twin, on_others = np.diag(table), (table.sum(axis=1) - np.diag(table)) / 9
print(
    f"a position on the twin gets {on_twin.mean():.2f}, one on another digit {on_others.mean():.2f}"
)
print(
    f"the twin gets more than the mean of the others in {(on_twin > on_others).sum()} of 10 classes"
)
assert (on_twin > on_others).sum() >= 9

figure, ax = viz.panels(1, 1, width=4.6, height=3.6)
image = ax.imshow(table, cmap="RdBu_r", vmin=0.5, vmax=1.5)
ax.set(xticks=range(10), yticks=range(10), xlabel="looked at", ylabel="looking")
figure.colorbar(image, ax=ax, label="share")
figure

# %% [markdown]
# *Figure 9. All 500 pictures together: the mean share that positions on a digit of one class give to the
# positions of another digit, by its class. On the diagonal that other digit is the twin.*
#
# The map favours the twin, though nobody said which digits belong together: the block was told only
# whether there is a twin. But it does so mildly, and not for every pair: some classes get as much as the
# twin. Does the network need it? We take the trained map away and put the flat one in its place.

# %%
kept, flattened = [], []
for model, share in twins["embedded Gaussian"]:
    kept.append(share)
    with_flat_map(model[0])
    flattened.append(right(model, x_test, t_test))
    print(f"with its own map {share:.1f} %, with a flat one {flattened[-1]:.1f} %")
assert all(1 < own - flat < 8 for own, flat in zip(kept, flattened, strict=True))

# %% [markdown]
# A few points are lost, and most is left: this network relies on the mean, and uses its map a little. A
# picture of a map does not say how much a network depends on it. To take the map away does.
#
# ### Twins in time
#
# A clip is a feature map with one axis more, $(N, C, T, H, W)$, and for the block it is a longer list of
# positions, $L = THW$. Our clips have four frames of 8 x 20. A digit moves from left to right or from
# right to left, and turns into another on the way: of the four digits that are seen, two are of the same
# class. *For every frame: does its digit come back in another frame?* The same trunk sees each frame by
# itself. The head takes the mean of the block's output over each frame.


# %%
def clips(part, count, seed):
    """Clips (count, 4, 8, 20), and whether the digit of each frame has a twin, (count, 4)."""
    rng = np.random.default_rng(seed)
    classes, twin = with_twins(count, rng)
    frames = drawn(part, classes, rng)
    leftwards = rng.random(count) < 0.5
    x = np.zeros((count, 4, 8, 20))
    for t in range(4):
        x[~leftwards, t, :, 4 * t : 4 * t + 8] = frames[~leftwards, t]
        x[leftwards, t, :, 12 - 4 * t : 20 - 4 * t] = frames[leftwards, t]
    return x, twin


def clip_features(part, count, seed):
    x, twin = clips(part, count, seed)
    features = run(trunk, x.reshape(-1, 1, 8, 20)).reshape(count, 4, CHANNELS, 2, 5)
    return np.ascontiguousarray(features.transpose(0, 2, 1, 3, 4)), twin.astype(int)


shown, _ = clips("test", 2, seed=4)
assert shown.shape == (2, 4, 8, 20) and (shown[:, :, :, :4].sum(axis=(2, 3)) > 0).sum() == 2
viz.show_images(shown.reshape(8, 8, 20), [f"frame {t}" for t in range(4)] * 2, columns=4)

# %% [markdown]
# *Figure 10. Two clips, one in each row.*
#
# Three blocks: one for images, with the plain product, which looks at each frame by itself; and two for
# the whole clip, with softmax and with the plain product.


# %%
class InEachFrame(nn.Module):
    """A block for images, on each frame of a clip by itself."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        N, C, T, H, W = x.shape
        frames = x.transpose(1, 2).reshape(N * T, C, H, W)
        return self.block(frames).reshape(N, T, C, H, W).transpose(1, 2)


class MeanOfFrames(nn.Module):
    def forward(self, x):
        return x.mean(dim=(3, 4))


c_train, u_train = clip_features("train", 1000, seed=5)
c_test, u_test = clip_features("test", 400, seed=6)


def train_clips(block, seed):
    mt.manual_seed(seed)
    model = nn.Sequential(block(), MeanOfFrames(), *head(nn.Conv1d))
    train(model, c_train, u_train, epochs=10, seed=seed)
    return model, right(model, c_test, u_test)


blocks = {
    "in each frame": lambda: InEachFrame(NonLocalBlock(CHANNELS, "dot_product")),
    "softmax, whole clip": lambda: NonLocalBlock(CHANNELS, dims=3),
    "product, whole clip": lambda: NonLocalBlock(CHANNELS, "dot_product", dims=3),
}
in_time = {arm: [train_clips(block, seed) for seed in SEEDS] for arm, block in blocks.items()}
on_clips = {arm: [share for _, share in runs] for arm, runs in in_time.items()}
print_arms(on_clips)
viz.plot_arms(on_clips, label="frames answered right, %")

# %%
assert max(on_clips["in each frame"]) < 55
assert min(on_clips["softmax, whole clip"] + on_clips["product, whole clip"]) > 60

# %% [markdown]
# *Figure 11. The block in each frame by itself sees one digit and can only guess. The same block over the
# whole clip sees the other frames. It has as many parameters; only its list of positions is longer.*
#
# With two other trunks, data and all, each frame by itself stayed below 54 %, and the product over the
# clip above 70 %; the softmax came to between 56 and 72 %. On the pictures the order of the four forms was
# that of figure 7, but for concatenation, which once came as close as two points to the Gaussian; and the
# flat map was at most one point behind the embedded Gaussian of the same seed, and up to six ahead.

# %% [markdown]
# ## Paper and code
#
# | | paper | authors' program | here |
# |---|---|---|---|
# | sub-sampling | of $\phi$ and $g$ | of $x$, in front of them: fewer convolutions, another result | `subsample="after"`, `"before"` |
# | in the exponent | $\theta_i \cdot \phi_j$ | divided by $\sqrt{D}$ | `scale=False`, can be set |
# | first weights of $\theta, \phi, g$ | He et al. | normal, 0.01 | as `nn.Conv2d` |
# | biases of the four convolutions | none written | there | `bias=False`, can be set |
# | identity at first | scale of the batch normalisation is 0 | the same | the same; without it, $W_z = 0$ |
# | forms | all four | embedded Gaussian and dot product | all four |
#
# The maximum of a convolution is not the convolution of the maximum, so the two sub-samplings are two
# modules. A widely used rewriting in PyTorch puts each pair $[\theta_i, \phi_j]$ together for the
# concatenation, $2 D L^2$ numbers; as $a_i + b_j$ no pair is ever made.
#
# Some of the paper's numbers: clips of human actions (Kinetics), a ResNet-50 on frames, accuracy in
# percent (table 2):
#
# | none | Gaussian | embedded Gaussian | dot product | concatenation |
# |---|---|---|---|---|
# | 71.8 | 72.5 | 72.7 | 72.9 | 72.8 |
#
# All are ahead of none, by one block each, and the four lie within half a point. Five blocks over space
# alone come to 72.9, over time alone to 73.1, over both to 73.8. That a map need not compare was found in
# trained networks, too: Cao et al. (2019) saw nearly the same row at all positions, and did as well with
# one row for all (lesson 21).
#
# What came before: the formula of 2005 weighs the places in a patch by a Gaussian (`spread`); its authors'
# later program subtracts what noise alone adds to a distance, $2 \sigma^2$ (`sigma`).

# %% [markdown]
# ## Predict before you run
#
# **1.** The positions of the input are shuffled. What happens to the output?

# %%
mt.manual_seed(0)
block = NonLocalBlock(8, dims=1)
block.bn.weight.data = np.ones(8)
x = np.random.default_rng(0).normal(size=(4, 8, 10))
order = np.random.default_rng(1).permutation(10)
shuffled = block(mt.tensor(x[:, :, order])).data
print("shuffled alike:", np.allclose(shuffled, block(mt.tensor(x)).data[:, :, order]))

# %% [markdown]
# <details><summary>Answer</summary>
#
# It is shuffled in the same way, and nothing else. The block compares *what* is at two positions, and
# does not know *where* they are, nor which frame comes first. What it knows of places it has from the
# features: a convolution with padding, for one, answers differently at the border.
#
# </details>
#
# **2.** A fresh block, its first step. Which of its parameters get a gradient?

# %%
fresh = NonLocalBlock(8, dims=1)
fresh(mt.tensor(x)).backward(np.random.default_rng(2).normal(size=x.shape))
for name, parameter in fresh.named_parameters():
    print(f"{name:13}", "has a gradient" if np.abs(parameter.grad.data).max() > 1e-12 else "zero")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Only the scale and the shift of the batch normalisation. All others are reached through the scale, which
# is zero. From the second step on all learn.
#
# </details>
#
# **3.** Every $\phi_j$ gets the same vector added to it, a bias. In which forms does the map change?

# %%
theta, phi = np.random.default_rng(3).normal(size=(2, 5, 4))
bias = np.array([1.0, -2.0, 0.5, 3.0])
g = np.eye(5)  # with it, y = P g is the map itself
for name, form, more in (
    ("softmax", embedded_gaussian, ()),
    ("dot product", dot_product, ()),
    ("concatenation", concatenation, (w,)),  # w as in the gradient check
):
    same = np.allclose(form(theta, phi + bias, g, *more)[0], form(theta, phi, g, *more)[0])
    print(f"{name:13}", "the same map" if same else "another map")

# %% [markdown]
# <details><summary>Answer</summary>
#
# $\theta_i \cdot (\phi_j + b) = \theta_i \cdot \phi_j + \theta_i \cdot b$: the second term is the same
# for the whole row, and a softmax does not see it. A bias of $\phi$ is useless there, and its gradient is
# zero. In the dot product and the concatenation it counts.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`18_non_local`](../exercises/18_non_local.ipynb):
#
# 1. **patch_weights**: the weights of non-local means.
# 2. **dot_product**: the form without softmax, with its rules.
# 3. **embedded_gaussian**: softmax attention, with its rules.
# 4. **concatenation**: the form with a ReLU, with its rules.
# 5. **NonLocalBlock**: the module, for images.

# %% [markdown]
# ## What to remember
#
# - $y_i = \sum_j P_{ij}\, g_j$: a weighted sum over all positions, with weights from comparing what is
#   there. Non-local means is softmax attention with patches for queries and keys.
# - Four ways to compare; backward they differ only between $dP$ and what made the map. Softmax is not
#   essential; with products that are large from the start it hardly learns.
# - It starts as the identity, so it can be put into a trained network.
# - To see all positions is needed where the answer depends on places that no window joins. Whether to
#   compare them is, a flat map tells. The map has $L^2$ numbers, and does not know where positions are.

# %% [markdown]
# ## Sources
#
# - X. Wang, R. Girshick, A. Gupta, K. He, *Non-local Neural Networks*, CVPR 2018: equations 1 to 6,
#   section 3, table 2.
# - A. Buades, B. Coll, J.-M. Morel, *A non-local algorithm for image denoising*, CVPR 2005; and
#   *Non-Local Means Denoising*, Image Processing On Line, 2011.
# - Y. Cao, J. Xu, S. Lin, F. Wei, H. Hu, *GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
#   Beyond*, ICCV Workshops 2019.
# - The photograph of the temple comes with scikit-learn.
