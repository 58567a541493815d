# %% [markdown]
# # 07 · Pooling and normalisation
#
# Two layers with next to nothing to learn that are in almost every network on images: one keeps a
# single number of a window, the other gives each channel a mean of 0 and a variance of 1.
#
# **You will be able to**
#
# - write maximum, average and global pooling with their rules, and say what each keeps of an image;
# - derive the backward of batch normalisation line by line, and say what it takes out of a gradient
#   and why;
# - choose between batch, layer, instance and group normalisation, and avoid the usual mistakes with
#   `train()` and `eval()`.
#
# **You need** lessons [05](05_convolution.ipynb) and [06](06_convolution_backward.ipynb):
# convolution, windows, and adding up where windows overlap.
#
# **Time** about 70 minutes, and as long again for the exercises.

# %%
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_sample_image

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.data import DataLoader, digits
from minitorch_attn.training import DivergedError, evaluate, fit
from minitorch_attn.viz.heatmap import heat_map, write_numbers

mt.set_default_dtype("float64")
rng = np.random.default_rng(0)


def draw(ax, table, title, cmap="Greys", numbers=False, **colours):
    image = heat_map(ax, table, cmap=cmap, bar=False, numbers=False, **colours)
    if numbers:
        write_numbers(ax, table, image)
    ax.set(title=title, xticks=[], yticks=[])


# %% [markdown]
# ## The idea in one picture
#
# **Pooling.** A convolution says at every pixel how well its pattern fits. Often we do not need to
# know it that finely: cut the image into squares, and keep one number of each, the greatest or the
# mean. Here are the edges of a photo, whose squares are 8 x 8 pixels.

# %%
photo = load_sample_image("flower.jpg").mean(axis=2) / 255  # grey, from 0 to 1
photo = photo[:416].reshape(104, 4, 160, 4).mean(axis=(1, 3))  # means of 4 x 4 pixels
sobel = np.array([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4
kernels = np.stack([sobel, sobel.T])[:, None]  # (2, 1, 3, 3): upright and level edges
padded = np.pad(photo, 1, mode="edge")
edges = np.abs(F.conv2d(padded[None, None], kernels).numpy()).max(axis=1)[0]  # (104, 160)

squares = edges.reshape(13, 8, 20, 8)
largest, mean = squares.max(axis=(1, 3)), squares.mean(axis=(1, 3))
assert edges.shape == (104, 160) and (largest >= mean).all()

figure, axes = viz.panels(1, 3, height=2.0)
draw(axes[0], edges, f"edges {edges.shape}")
draw(axes[1], largest, f"greatest of 8 x 8 {largest.shape}")
draw(axes[2], mean, f"mean of 8 x 8 {mean.shape}")
figure

# %% [markdown]
# *Figure 1. Dark is a strong edge. The greatest says whether there is an edge anywhere in a square,
# the mean how much of the square is edge. Of 64 numbers one is left, and the flower can still be
# seen.*
#
# **Normalisation.** The channels of a feature map come in all sizes. Below, 64 digits have passed
# through a convolution with random weights. *Batch normalisation* takes from each channel its mean
# over all images and pixels, and divides by the standard deviation.

# %%
train, test = digits(), digits(train=False)
images, labels = train[:]
mt.manual_seed(0)
x = nn.Conv2d(1, 4, 3, padding=1)(mt.tensor(images[:64])).numpy()  # (64, 4, 8, 8)
normal = (x - x.mean(axis=(0, 2, 3), keepdims=True)) / x.std(axis=(0, 2, 3), keepdims=True)
assert np.allclose(normal.mean(axis=(0, 2, 3)), 0) and np.allclose(normal.var(axis=(0, 2, 3)), 1)

figure, axes = viz.panels(1, 2, height=2.6)
for ax, values, title in zip(axes, (x, normal), ("before", "after"), strict=True):
    for c, colour in enumerate(viz.COLOURS[:4]):
        ax.hist(values[:, c].ravel(), bins=40, histtype="step", color=colour, label=f"channel {c}")
    ax.set(title=title, xlabel="value", yticks=[])
axes[0].legend(frameon=False, fontsize=9)
figure

# %% [markdown]
# *Figure 2. How often each value occurs in the four channels; the spikes are the empty paper around
# the digits. Before, every channel has its own place and width; afterwards all have mean 0 and
# variance 1. Their shapes are still their own.*
#
# The forward is two lines of school statistics. The backward is not, and it is the heart of this
# lesson: when one value changes, the mean and the variance change as well, and with them the output
# at every other pixel of every other image.

# %% [markdown]
# ## The equations
#
# ### Pooling, forward
#
# Images $x$ have the shape $(N, C, H, W)$. Windows are $R \times S$ and lie $a$ pixels apart (the
# stride). If nothing is said, $a = R = S$, and the windows tile the image. Each channel is pooled by
# itself:
#
# $$\text{maximum:}\quad y_{ncpq} = \max_{r,s}\; x_{n,\,c,\,pa+r,\,qa+s} \qquad\qquad
# \text{average:}\quad y_{ncpq} = \frac{1}{RS} \sum_{r,s} x_{n,\,c,\,pa+r,\,qa+s}$$
#
# The output is $(N, C, P, Q)$, with $P = \lfloor (H - R)/a \rfloor + 1$ as in lesson 05. **Global**
# pooling has one window, the whole image: $(N, C, H, W) \to (N, C)$.

# %% [markdown]
# ### Pooling, backward
#
# **Maximum.** Let the winner of window $(p, q)$ be the pixel $(i, j)$. As long as the changes are
# small it stays the winner, so $y_{pq} = x_{ij}$: its derivative is 1 for that pixel and 0 for all
# others of the window. A pixel may win in several windows that overlap; by the chain rule their
# gradients add up. With a bracket that is 1 if what it says is true and 0 otherwise,
#
# $$\boxed{\; dx_{ncij} = \sum_{p,q} dy_{ncpq} \; [\,(i,j) \text{ is the winner of } (p,q)\,] \;}$$
#
# Where two pixels tie there is a kink and no derivative. We let the *first* one win, row by row, as
# PyTorch does. (The maximum over an axis in lesson 02 shared $dy$ among them, which is as good a
# choice. To give all of it to both would count it twice.)
#
# **Average.** Each pixel of a window has the derivative $1/RS$, whatever the values:
#
# $$\boxed{\; dx_{ncij} = \frac{1}{RS} \sum_{\substack{p,q,r,s \\ pa+r=i,\; qa+s=j}} dy_{ncpq} \;}$$
#
# This is a depthwise convolution whose weights are all $1/RS$, and the rule that lesson 06 found
# for it: every place stamps its share, and where windows overlap, the shares add up. For **global
# average pooling** it is $dx_{ncij} = dy_{nc} / HW$: all pixels of a channel get the same.

# %% [markdown]
# ### Batch normalisation, forward
#
# In each channel there are $m = N \cdot H \cdot W$ values: every pixel of every image. Channels do
# not meet, so let us look at one, and number its values $x_1, \dots, x_m$. (One number $i$ for the
# three indices $n, h, w$. Some letters change their meaning: $r$ is no tap of a window from here on,
# $\hat x$ no padded image, and $\mu$ no momentum.)
#
# $$\mu = \frac1m \sum_i x_i \qquad v = \frac1m \sum_i (x_i - \mu)^2 \qquad
# r = \frac{1}{\sqrt{v + \varepsilon}} \qquad \hat x_i = (x_i - \mu)\, r \qquad
# y_i = \gamma\, \hat x_i + \beta$$
#
# | | shape | how it comes about |
# |---|---|---|
# | $x, \hat x, y$ | $(N, C, H, W)$ | |
# | mean $\mu$, variance $v$, scale $r$ | $(C)$ | means over the axes $N, H, W$ |
# | $\gamma, \beta$ | $(C)$ | learned; 1 and 0 at first |
#
# The small number $\varepsilon = 10^{-5}$ stands *inside* the root, so that a channel which is
# constant is not divided by 0. The standard deviation is $\sigma = \sqrt{v + \varepsilon} = 1/r$.
#
# Why $\gamma$ and $\beta$? With them the layer can give a channel any mean and width that the task
# asks for, and even undo itself ($\gamma = \sigma$, $\beta = \mu$). What has changed is who
# decides: two numbers that gradient descent moves directly, and no longer all the weights of all
# layers before.

# %% [markdown]
# ### Batch normalisation, backward: three paths
#
# Given $dy_i = \partial L / \partial y_i$ for all $i$, we want $dx_i$. Go backward through the five
# equations.
#
# **The last equation.** $\gamma$ and $\beta$ take part in all $m$ outputs, so their gradients are
# sums over the axes $N, H, W$ (and have shape $(C)$); $\hat x_i$ takes part in $y_i$ only:
#
# $$\boxed{\; d\beta = \sum_i dy_i \qquad d\gamma = \sum_i dy_i\, \hat x_i \;} \qquad
# d\hat x_i = \gamma\, dy_i$$
#
# **Now $\hat x_i = (x_i - \mu)\, r$.** A value $x_i$ reaches the outputs by three paths: directly;
# through the variance $v$, which is in every $\hat x_j$; and through the mean $\mu$, likewise in
# every $\hat x_j$. The chain rule adds them:
#
# $$dx_i = \underbrace{d\hat x_i \frac{\partial \hat x_i}{\partial x_i}}_{\text{directly}}
# + \underbrace{dv\, \frac{\partial v}{\partial x_i}}_{\text{through the variance}}
# + \underbrace{d\mu\, \frac{\partial \mu}{\partial x_i}}_{\text{through the mean}}$$
#
# in which each partial derivative holds the other two paths fixed.
#
# *Directly.* With $\mu$ and $r$ fixed, $\partial \hat x_i / \partial x_i = r$.
#
# *Through the variance.* It goes from $v$ to $r$, and from $r$ to every $\hat x_j = (x_j - \mu)\,
# r$, with $\partial \hat x_j / \partial r = x_j - \mu$. From $r = (v + \varepsilon)^{-1/2}$ follows
# by the power rule $\partial r / \partial v = -\tfrac12 (v + \varepsilon)^{-3/2} = -\tfrac12 r^3$.
# So by the chain rule
#
# $$dr = \sum_j d\hat x_j\, (x_j - \mu) \qquad\qquad
# dv = dr \cdot \left(-\tfrac12 r^3\right) = -\tfrac12\, r^2 \sum_j d\hat x_j\, \hat x_j$$
#
# (in the last step one $r$ of the three went with $x_j - \mu$ to make $\hat x_j$). With $\mu$ fixed
# only one term of $v$ contains $x_i$: $\partial v / \partial x_i = \tfrac2m (x_i - \mu)$. The
# product, again with $r\,(x_i - \mu) = \hat x_i$, is
#
# $$dv\, \frac{\partial v}{\partial x_i} = -\frac{r^2}{m} (x_i - \mu) \sum_j d\hat x_j\, \hat x_j
# = -\, r\, \hat x_i \cdot \frac1m \sum_j d\hat x_j\, \hat x_j$$
#
# *Through the mean.* $\mu$ is in every $\hat x_j$, with $\partial \hat x_j / \partial \mu = -r$,
# and it is in the variance:
#
# $$d\mu = -r \sum_j d\hat x_j + dv\, \frac{\partial v}{\partial \mu}, \qquad
# \frac{\partial v}{\partial \mu} = -\frac2m \sum_j (x_j - \mu) = 0$$
#
# The second part vanishes: deviations from the mean add up to 0. With $\partial \mu / \partial x_i
# = 1/m$,
#
# $$d\mu\, \frac{\partial \mu}{\partial x_i} = -\, r \cdot \frac1m \sum_j d\hat x_j$$
#
# **Together.** All three have the factor $r = 1/\sigma$. Put $d\hat x_j = \gamma\, dy_j$ in; $\gamma$
# is one number for the channel and comes out of the sums. Write a bar for the mean over the $m$
# values:
#
# $$\boxed{\; dx_i = \frac{\gamma}{\sigma} \left( dy_i - \overline{dy} -
# \hat x_i \; \overline{dy\, \hat x} \right), \qquad
# \overline{dy} = \frac1m \sum_j dy_j, \quad \overline{dy\,\hat x} = \frac1m \sum_j dy_j\, \hat x_j \;}$$
#
# As arrays: $dy$, $\hat x$ and $dx$ are $(N, C, H, W)$; the two means go over the axes $N, H, W$
# and are $(C)$, as are $\gamma$ and $\sigma$. The two sums are those of $d\beta$ and $d\gamma$, so
# they cost nothing extra.

# %% [markdown]
# ### What it means
#
# Take the $m$ values of a channel as one vector. Let $\mathbf 1$ be the vector of ones, and let us
# drop $\varepsilon$. Then $\mathbf 1 \cdot \hat x = 0$ (the mean is 0), $\hat x \cdot \hat x = m$
# (the variance is 1), and the two terms that are subtracted,
#
# $$\overline{dy}\; \mathbf 1 = \frac{dy \cdot \mathbf 1}{\mathbf 1 \cdot \mathbf 1}\, \mathbf 1 \qquad\qquad
# \overline{dy\, \hat x}\; \hat x = \frac{dy \cdot \hat x}{\hat x \cdot \hat x}\, \hat x$$
#
# are the **projections** of $dy$ onto these two directions: the multiples of $\mathbf 1$ and of
# $\hat x$ that come closest to $dy$. What is left after subtracting one is at right angles to that
# direction; and since $\mathbf 1$ and $\hat x$ are at right angles to each other, subtracting the
# second does not spoil the first. So the rule *takes out of the gradient its part along $\mathbf 1$
# and its part along $\hat x$*:
#
# $$dx \cdot \mathbf 1 = 0 \qquad\qquad dx \cdot \hat x = 0$$
#
# There is no other way it could be. Add the same number to all $x_i$, and the mean takes it out
# again: $y$ does not change, so the slope in the direction $\mathbf 1$ is 0. Stretch all deviations
# by a factor, and the standard deviation takes it out again: the slope in the direction $\hat x$ is
# 0. (With $\varepsilon$ the first stays exact. In the second $\hat x \cdot \hat x$ is a little less
# than $m$, by the factor $v / (v + \varepsilon)$, and a little of $dy \cdot \hat x$ is left: next to
# nothing, unless the variance is as small as $\varepsilon$.)
#
# Two consequences.
#
# **A bias in front is useless.** Let $x = w \star u + b$ come from a convolution of an image $u$
# (with the star of lesson 05). Then $b$ is added to all values of its channel, and its gradient is
# $db = \sum_i dx_i = 0$. The mean takes it out, $\beta$ does its work. Hence
# `nn.Conv2d(..., bias=False)` in front of a batch normalisation.
#
# **The size of the weights is of no account.** Multiply a kernel by $k > 0$: its whole channel is
# multiplied by $k$, and $y$ stays. Let $L(w)$ be the loss and $\nabla L(w)$ its gradient, which the
# code calls `dw`. Differentiate both sides of $L(kw) = L(w)$ by the chain rule: with respect to $k$,
# $\; w \cdot \nabla L(kw) = 0$; with respect to $w$, $\; k\, \nabla L(kw) = \nabla L(w)$. So (the
# first at $k = 1$)
#
# $$w \cdot \nabla L(w) = 0 \qquad\qquad \nabla L(kw) = \frac1k\, \nabla L(w)$$
#
# The gradient is at right angles to the weights, so every step of gradient descent makes them
# longer (Pythagoras); and the longer they are, the smaller the gradient. A learning rate that is too
# large punishes itself: after a wild step the weights are long, and the next steps turn them less.

# %% [markdown]
# ### Training and evaluation
#
# In use we want the answer to one image, and it must not depend on which other images happen to be
# in the batch. So during training the layer keeps **running statistics**. With the *momentum*
# $\alpha$ (0.1), after each batch
#
# $$\mu_{\text{run}} \leftarrow (1 - \alpha)\, \mu_{\text{run}} + \alpha\, \mu \qquad\qquad
# v_{\text{run}} \leftarrow (1 - \alpha)\, v_{\text{run}} + \alpha\, \frac{m}{m-1}\, v$$
#
# starting from 0 and 1. Here $\alpha$ is the weight of the *new* (in the optimisers of lesson 04
# momentum is the weight of the *old*). Each batch multiplies what was there by $1 - \alpha$, so
# after $k$ batches the start has the weight $(1-\alpha)^k$.
#
# The factor $m/(m-1)$: the mean $\mu$ was made from the same values, and they lie closer to it than
# to the true mean. For values that are drawn independently the expected value of $v$ is
# $\tfrac{m-1}{m}$ of the true variance, and the factor mends that. So there are two variances: the
# *biased* one, $v$, normalises the batch, and the *unbiased* one goes into the running average.
#
# A batch with $m = 1$ has the variance 0, whatever it shows, and its output is $\beta$: nothing of
# the input is left. The library refuses it.
#
# In `eval()` the layer takes $\mu_{\text{run}}$ and $r_{\text{run}} = 1 / \sqrt{v_{\text{run}} +
# \varepsilon}$ for $\mu$ and $r$, as constants. Then there is one path only, and the rule is $dx_i =
# \gamma\, r_{\text{run}}\, dy_i$.
#
# **Folding.** With constants, normalisation is a scale and a shift of each channel, and a
# convolution in front can take them in. For output channel $o$, with $\mu_o$ and $r_o$ the running
# ones:
#
# $$y_o = \gamma_o r_o (w_o \star u + b_o - \mu_o) + \beta_o =
# \underbrace{(\gamma_o r_o w_o)}_{w'_o} \star u
# + \underbrace{\gamma_o r_o (b_o - \mu_o) + \beta_o}_{b'_o}$$
#
# So in use, batch normalisation behind a convolution costs nothing at all.

# %% [markdown]
# ### The same formula over other axes
#
# Up to the three paths, nothing in the derivation asked *which* $m$ values are normalised together.
# So it gives a whole family, which differs in the sets over which the means go:
#
# | | means over | $m$ | statistics | where it is used |
# |---|---|---|---|---|
# | **batch** norm | $N, H, W$ | $NHW$ | $(C)$ | convolutional networks, large batches |
# | **layer** norm | $C, H, W$ | $CHW$ | $(N)$ | sequences (part III), there over the numbers of one word |
# | **instance** norm | $H, W$ | $HW$ | $(N, C)$ | style transfer: it takes the contrast of each image out |
# | **group** norm | $C/G$ channels, $H, W$ | $CHW/G$ | $(N, G)$ | detection and segmentation, with one or two large images a batch |
#
# Group normalisation with $G = 1$ has the statistics of layer norm, with $G = C$ those of instance
# norm. None of the last three looks beyond its own image, so they need no running statistics, and
# do the same in training and in use.
#
# One thing changes. $\gamma$ and $\beta$ belong to channels, $(C)$ (in layer norm even to each
# element), and now several channels may share a mean. Then $\gamma$ must stay inside the means:
#
# $$dx_i = \frac1\sigma \left( d\hat x_i - \overline{d\hat x} - \hat x_i \; \overline{d\hat x\,
# \hat x} \right), \qquad d\hat x_i = \gamma_i\, dy_i$$

# %%
N, C, P = 4, 6, 5  # images, channels, and pixels in one axis
normalised_with = {  # whether (image n, channel c, pixel p) shares its mean with (0, C - 1, P - 1)
    "batch": lambda n, c, p: c == C - 1,
    "layer": lambda n, c, p: n == 0,
    "instance": lambda n, c, p: n == 0 and c == C - 1,
    "group, G = 3": lambda n, c, p: n == 0 and c >= C - 2,
}
depth = np.array([0.5, 0.4])  # one image further back, on paper


def draw_cell(ax, corner, along, up, shaded, brightness):
    corner, along, up = map(np.asarray, (corner, along, up))
    outline = np.array([corner, corner + along, corner + along + up, corner + up])
    colour = viz.COLOURS[0] if shaded else "white"
    ax.fill(*outline.T, facecolor=colour, alpha=brightness, edgecolor="none")
    ax.fill(*outline.T, facecolor="none", edgecolor="#777777", linewidth=0.7)


def draw_cube(ax, shaded, title):
    for c, p in np.ndindex(C, P):  # front
        draw_cell(ax, (c, p), (1, 0), (0, 1), shaded(0, c, p), 0.8)
    for n, c in np.ndindex(N, C):  # top
        draw_cell(ax, (c, P) + n * depth, (1, 0), depth, shaded(n, c, P - 1), 0.55)
    for n, p in np.ndindex(N, P):  # right
        draw_cell(ax, (C, p) + n * depth, depth, (0, 1), shaded(n, C - 1, p), 1)
    ax.text(C / 2, -0.3, "C", ha="center", va="top")
    ax.text(-0.3, P / 2, "H, W", ha="right", va="center")
    ax.text(C + 1.3, 0.4, "N", ha="left", va="center")
    ax.set(title=title, aspect="equal", xlim=(-2, C + 2.2), ylim=(-1.2, P + 1.8))
    ax.set_axis_off()


figure, axes = viz.panels(1, 4, width=9.0, height=2.5)
counts = []
for ax, (name, shaded) in zip(axes, normalised_with.items(), strict=True):
    draw_cube(ax, shaded, name)
    counts.append(sum(shaded(n, c, p) for n, c, p in np.ndindex(N, C, P)))
assert counts == [N * P, C * P, P, 2 * P]  # m = NHW, CHW, HW, CHW/G
figure

# %% [markdown]
# *Figure 3. A feature map as a block: channels to the right, pixels upward (both axes of the image in
# one), images to the back. The blue values share one mean and one variance.*

# %% [markdown]
# ## The code
#
# ### Pooling
#
# First the loops: window by window. Forward the winner is copied; backward $dy$ goes to where the
# winner was.


# %%
def max_pool2d_loops(x, dy, kernel, stride):
    """y and dx, window by window: x (N, C, H, W), dy (N, C, P, Q)."""
    y, dx = np.empty_like(dy), np.zeros_like(x)
    for n, c, p, q in np.ndindex(dy.shape):
        i, j = p * stride, q * stride
        for r, s in np.ndindex(kernel, kernel):
            if x[n, c, p * stride + r, q * stride + s] > x[n, c, i, j]:  # the first wins a tie
                i, j = p * stride + r, q * stride + s
        y[n, c, p, q] = x[n, c, i, j]
        dx[n, c, i, j] += dy[n, c, p, q]
    return y, dx


# %% [markdown]
# As arrays, in primitive form. All windows are a view (lesson 05). `argmax` finds the first of the
# greatest; its number, counted row by row, gives the row (`// kernel`) and the column (`% kernel`) in
# the window. `place` holds the indices $n, c, i, j$ of all winners at once, each an array of the
# shape $(N, C, P, Q)$. `np.add.at` adds at places that may occur more than once (lesson 02).


# %%
def max_pool2d(x, *, kernel, stride):
    """x (N, C, H, W) -> y (N, C, P, Q), and the rule."""
    seen = sliding_window_view(x, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]
    seen = seen.reshape(*seen.shape[:4], kernel**2)  # (N, C, P, Q, R S)
    winner = seen.argmax(axis=-1)
    n, c, p, q = np.indices(winner.shape)
    place = (n, c, p * stride + winner // kernel, q * stride + winner % kernel)
    shape = x.shape

    def vjp_x(dy):
        dx = np.zeros(shape)
        np.add.at(dx, place, dy)
        return dx

    return x[place], vjp_x


def avg_pool2d(x, *, kernel, stride):
    """x (N, C, H, W) -> y (N, C, P, Q), and the rule."""
    P, Q = ((size - kernel) // stride + 1 for size in x.shape[2:])
    taps = [  # the pixels that tap (r, s) meets in all windows, as in lesson 06
        (
            ...,
            slice(r, r + (P - 1) * stride + 1, stride),
            slice(s, s + (Q - 1) * stride + 1, stride),
        )
        for r, s in np.ndindex(kernel, kernel)
    ]
    shape = x.shape

    def vjp_x(dy):
        dx = np.zeros(shape)
        for tap in taps:
            dx[tap] += dy / kernel**2
        return dx

    return sum(x[tap] for tap in taps) / kernel**2, vjp_x


# %%
x = rng.integers(0, 9, size=(2, 3, 7, 6)).astype(float)  # whole numbers: there are ties


def agree(x, y, dx, dy, library, *settings):
    """Whether the library makes the same y of x, and the same dx of dy."""
    x = mt.tensor(x, requires_grad=True)
    its = library(x, *settings)
    its.backward(dy)
    return np.allclose(y, its.data) and np.allclose(dx, x.grad.data)


for kernel, stride in (2, 2), (3, 2), (3, 1):
    y, vjp_x = max_pool2d(x, kernel=kernel, stride=stride)
    dy = rng.normal(size=y.shape)
    looped = max_pool2d_loops(x, dy, kernel, stride)
    assert np.allclose(y, looped[0]) and np.allclose(vjp_x(dy), looped[1])
    assert agree(x, y, vjp_x(dy), dy, F.max_pool2d, kernel, stride)
    y, vjp_x = avg_pool2d(x, kernel=kernel, stride=stride)
    assert agree(x, y, vjp_x(dy), dy, F.avg_pool2d, kernel, stride)
mean, dy = x.mean(axis=(2, 3), keepdims=True), rng.normal(size=(2, 3, 1, 1))
shared = np.broadcast_to(dy / (7 * 6), x.shape)
assert agree(x, mean, shared, dy, F.adaptive_avg_pool2d, 1)  # one window: global pooling
print("loops, arrays and library agree, forward and backward")

# %% [markdown]
# Where do gradients go? Four windows of 3 x 3 with stride 2 on an image of 5 x 5, each with
# $dy = 1$:

# %%
x = np.array(
    [[1.0, 2, 0, 1, 3], [0, 4, 1, 0, 2], [2, 1, 8, 3, 0], [5, 0, 2, 1, 4], [1, 3, 0, 2, 9]]
)[None, None]
ones = np.ones((1, 1, 2, 2))
to_winners = max_pool2d(x, kernel=3, stride=2)[1](ones)[0, 0]
to_all = avg_pool2d(x, kernel=3, stride=2)[1](ones)[0, 0]
assert to_winners[2, 2] == 3 and to_winners[4, 4] == 1 and to_winners.sum() == 4
assert np.isclose(to_all[2, 2], 4 / 9) and np.isclose(to_all.sum(), 4)

figure, axes = viz.panels(1, 3, height=2.6)
draw(axes[0], x[0, 0], "image", numbers=True)
draw(axes[1], to_winners, "dx of the maximum", cmap="Blues", numbers=True)
draw(axes[2], to_all, "dx of the average", cmap="Blues", numbers=True)
figure

# %% [markdown]
# *Figure 4. The eight in the middle lies in all four windows and wins three of them, so three
# gradients add up there; the fourth goes to the nine in the corner. With the average every pixel
# gets a ninth of each window that it lies in. In both cases nothing is lost: the gradients of all
# pixels add up to 4.*

# %% [markdown]
# ### What stays when the image moves
#
# Move the edges of figure 1 by a pixel to the right (what leaves comes in again on the left). How
# much do the numbers change that a layer keeps? We compare three ways to keep one of $R \times R$
# pixels: the greatest, the mean, and one fixed pixel (which is what a convolution with stride keeps).
# We measure the standard deviation of the changes, in percent of that of the kept numbers.

# %%
sizes = 1, 2, 4, 8


def fixed(x, R):
    return x[..., ::R, ::R]


def greatest(x, R):
    return max_pool2d(x, kernel=R, stride=R)[0]


def average(x, R):
    return avg_pool2d(x, kernel=R, stride=R)[0]


moved = np.roll(edges, 1, axis=1)
change = {}
for keep in fixed, greatest, average:
    pairs = [(keep(edges[None, None], R), keep(moved[None, None], R)) for R in sizes]
    change[keep.__name__] = [100 * (after - before).std() / before.std() for before, after in pairs]
for one, two in zip(change["greatest"][1:], change["average"][1:], strict=True):
    assert one < change["fixed"][0] and two < change["fixed"][0]
assert change["average"][3] < change["greatest"][3] < 0.7 * change["fixed"][3]
assert change["average"][2] < change["greatest"][2]
assert min(change["average"][1], change["greatest"][1]) > 0.6 * change["fixed"][0]
assert (np.diff(change["fixed"]) > 0).all()
assert np.isclose(edges.max(), moved.max()) and np.isclose(edges.mean(), moved.mean())

figure, ax = viz.panels(width=5.6, height=2.8)
for (name, shares), colour in zip(change.items(), viz.COLOURS, strict=False):
    ax.plot(sizes, shares, "o-", color=colour, label=name)
ax.set(xlabel="size $R$ of the windows", ylabel="change, %", ylim=(0, None), xticks=sizes)
ax.legend(frameon=False)
figure

# %% [markdown]
# *Figure 5. A move by one pixel, seen through pools of several sizes. The larger the window, the
# less it matters; from 4 x 4 on, least for the mean. A fixed pixel changes more and more.*
#
# At the extreme, a global pool does not see a move at all, as long as nothing leaves the image. But
# small pools do see it: with windows of 2 x 2 most of the change remains.

# %% [markdown]
# ### Batch normalisation
#
# First with loops and the three paths one by one, as in the derivation.


# %%
def batch_norm_loops(x, gamma, beta, dy, eps=1e-5):
    """y and dx, channel by channel: the three paths as they stand."""
    y, dx = np.empty_like(x), np.empty_like(x)
    for c in range(x.shape[1]):
        values, dvalues = x[:, c].ravel(), dy[:, c].ravel()  # m numbers each
        m = len(values)
        mu = sum(values) / m
        v = sum((value - mu) ** 2 for value in values) / m
        r = 1 / np.sqrt(v + eps)
        y[:, c] = gamma[c] * (x[:, c] - mu) * r + beta[c]

        dxhat = gamma[c] * dvalues
        dv = sum(dxhat[j] * (values[j] - mu) for j in range(m)) * -0.5 * r**3
        dmu = -r * sum(dxhat)
        paths = [dxhat[i] * r + dv * 2 / m * (values[i] - mu) + dmu / m for i in range(m)]
        dx[:, c] = np.reshape(paths, x[:, c].shape)
    return y, dx


# %% [markdown]
# Now whole arrays, and the compact rule. `keepdims` leaves means in the shape (1, C, 1, 1), which
# broadcasts.


# %%
def channel_mean(values):
    """Mean over images and pixels: (N, C, H, W) -> (1, C, 1, 1)."""
    return values.mean(axis=(0, 2, 3), keepdims=True)


def standardise(x, eps=1e-5):
    """The values xhat (N, C, H, W) with mean 0 and variance 1, and the scale r (1, C, 1, 1)."""
    mu = channel_mean(x)
    r = 1 / np.sqrt(channel_mean((x - mu) ** 2) + eps)
    return (x - mu) * r, r


def batch_norm(x, gamma, beta, *, eps=1e-5):
    """x (N, C, H, W), gamma (C,), beta (C,) -> y (N, C, H, W), and a rule for each."""
    xhat, r = standardise(x, eps)
    gain = gamma[:, None, None]

    def vjp_x(dy):
        return gain * r * (dy - channel_mean(dy) - xhat * channel_mean(dy * xhat))

    def vjp_gamma(dy):
        return (dy * xhat).sum(axis=(0, 2, 3))

    def vjp_beta(dy):
        return dy.sum(axis=(0, 2, 3))

    return gain * xhat + beta[:, None, None], (vjp_x, vjp_gamma, vjp_beta)


# %%
x, dy = rng.normal(2, 3, size=(3, 2, 2, 4)), rng.normal(size=(3, 2, 2, 4))
gamma, beta = rng.normal(size=2), rng.normal(size=2)
y, (vjp_x, vjp_gamma, vjp_beta) = batch_norm(x, gamma, beta)
dx = vjp_x(dy)
looped = batch_norm_loops(x, gamma, beta, dy)
print("loops and arrays agree:", np.allclose(y, looped[0]), np.allclose(dx, looped[1]))

tensors = [mt.tensor(value, requires_grad=True) for value in (x, gamma, beta)]
library = F.batch_norm(tensors[0], None, None, *tensors[1:], training=True)
library.backward(dy)
for ours, tensor in zip((dx, vjp_gamma(dy), vjp_beta(dy)), tensors, strict=True):
    assert np.allclose(ours, tensor.grad.data)
print("the library agrees:    ", np.allclose(y, library.data))

# %% [markdown]
# And the geometry, as numbers: in each channel the gradient is at right angles to ones and to $\hat
# x$. As `dy` comes in, it is neither.

# %%
xhat, _ = standardise(x)
for name, gradient in ("dy", dy), ("dx", dx):
    for direction, vector in ("1", np.ones_like(x)), ("xhat", xhat):
        cosine = (gradient * vector).sum(axis=(0, 2, 3)) / np.sqrt(
            (gradient**2).sum(axis=(0, 2, 3)) * (vector**2).sum(axis=(0, 2, 3))
        )
        print(f"cosine of {name} with {direction:4}:", np.round(abs(cosine), 2))
        assert (abs(cosine) < 1e-5).all() if name == "dx" else (abs(cosine) > 1e-3).all()

# %% [markdown]
# ### One formula, four layers
#
# Only the axes of the means differ; for groups, the channels are first cut into two axes.


# %%
def normalise(x, axes, eps=1e-5):
    mu, v = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return (x - mu) / np.sqrt(v + eps)


def group_norm(x, groups):
    N, C, H, W = x.shape
    return normalise(x.reshape(N, groups, C // groups, H, W), axes=(2, 3, 4)).reshape(x.shape)


x = rng.normal(size=(3, 6, 4, 5))
pairs = {
    "batch": (normalise(x, (0, 2, 3)), F.batch_norm(x, None, None, training=True)),
    "layer": (normalise(x, (1, 2, 3)), F.layer_norm(x, (6, 4, 5))),
    "instance": (normalise(x, (2, 3)), F.instance_norm(x)),
    "group": (group_norm(x, 3), F.group_norm(x, 3)),
    "group, G = 1, is layer": (group_norm(x, 1), F.layer_norm(x, (6, 4, 5))),
    "group, G = C, is instance": (group_norm(x, 6), F.instance_norm(x)),
}
for name, (ours, library) in pairs.items():
    print(f"{name:25}", np.allclose(ours, library.data))
    assert np.allclose(ours, library.data)

# %% [markdown]
# And backward, with all channels of an image in one mean: with $\gamma$ inside the means, and with
# $\gamma$ in front of them, as in batch normalisation.

# %%
gamma = np.arange(1.0, 7)[:, None, None]
dy = np.random.default_rng(1).normal(size=x.shape)
xhat, sigma = normalise(x, (1, 2, 3)), np.sqrt(x.var(axis=(1, 2, 3), keepdims=True) + 1e-5)


def back(d):
    mean, along = (a.mean(axis=(1, 2, 3), keepdims=True) for a in (d, d * xhat))
    return (d - mean - xhat * along) / sigma


for name, dx in ("inside", back(gamma * dy)), ("in front", gamma * back(dy)):
    right = agree(x, gamma * xhat, dx, dy, F.group_norm, 1, gamma.ravel())
    print(f"gamma {name}: {'right' if right else 'wrong'}")
    assert right == (name == "inside")

# %% [markdown]
# ### Weights without a size
#
# A convolution with batch normalisation behind it, its kernels multiplied by $k$. We look at the
# loss, the size of the gradient, and the angle between gradient and weights.

# %%
u, target = mt.tensor(images[:32]), rng.normal(size=(32, 4, 6, 6))
w = rng.normal(size=(4, 1, 3, 3))


def loss_and_gradient(w):
    w = mt.tensor(w, requires_grad=True)
    y = F.batch_norm(F.conv2d(u, w), None, None, training=True, eps=0.0)
    loss = F.mse_loss(y, target)
    loss.backward()
    return loss.item(), w.grad.data


first, gradient = loss_and_gradient(w)
for k in 1, 10, 100:
    loss, dw = loss_and_gradient(k * w)
    size = np.linalg.norm(dw)
    cosine = (dw * k * w).sum() / size / np.linalg.norm(k * w)
    print(f"k = {k:3}: loss {loss:.2f}, size of dw {size:.5f}, cosine {abs(cosine):.2f}")
    assert np.isclose(loss, first) and np.allclose(dw, gradient / k) and abs(cosine) < 1e-9

# %% [markdown]
# ### Running statistics
#
# Batches of 32 digits pass through one convolution and a batch normalisation in training. We follow
# the running mean of a channel, with two momentums, and how far the output in `eval()` is from that
# in `train()`.

# %%
mt.manual_seed(1)
convolution = nn.Conv2d(1, 4, 3, padding=1, bias=False)
u = convolution(mt.tensor(images)).numpy()  # all 1437 digits: (1437, 4, 8, 8)
true_mean = u.mean(axis=(0, 2, 3))
channel = int(abs(true_mean).argmax())
order = np.random.default_rng(0)
batches = [u[order.choice(len(u), 32, replace=False)] for _ in range(100)]
followed = {alpha: nn.BatchNorm2d(4, momentum=alpha) for alpha in (0.1, 0.02)}
means = {alpha: [] for alpha in followed}
gaps = {alpha: [] for alpha in followed}
for batch in map(mt.tensor, batches):
    for alpha, layer in followed.items():
        in_training = layer.train()(batch)
        in_use = layer.eval()(batch)
        means[alpha].append(layer.running_mean.data[channel])
        gaps[alpha].append(np.sqrt(((in_use - in_training).data ** 2).mean()))

figure, axes = viz.panels(1, 2, height=3.0)
axes[0].plot([b[:, channel].mean() for b in batches], ".", color="#999999", label="of the batch")
axes[0].axhline(true_mean[channel], color="black", linewidth=1, label="of all images")
for (alpha, layer), colour in zip(followed.items(), viz.COLOURS, strict=False):
    axes[0].plot(means[alpha], color=colour, label=f"running, {alpha}")
    axes[1].plot(gaps[alpha], color=colour, label=f"momentum {alpha}")
    assert np.isclose(layer.running_mean.data[channel], means[alpha][-1])
axes[0].set(title=f"mean of channel {channel}", xlabel="batches")
axes[1].set(
    title="eval() against train()", xlabel="batches", ylabel="RMS difference", ylim=(0, None)
)
axes[0].legend(frameon=False, fontsize=9)
axes[1].legend(frameon=False, fontsize=9)
assert max(gaps[0.1][60:]) < 0.3 * gaps[0.1][0] and gaps[0.02][40] > 3 * gaps[0.1][40]
figure

# %% [markdown]
# *Figure 6. Left: the means of single batches scatter about the mean of all images; the running
# average begins at 0 and settles, later with the smaller momentum. Right: as long as it has not
# settled, the layer in `eval()` is another function than the one that is being trained. A rest of
# difference remains, because each batch is a little different from the whole.*
#
# After 44 batches with $\alpha = 0.1$ the start has a weight of $0.9^{44}$, about one in a hundred;
# after six, more than half. A network that is evaluated so early is judged by statistics that are
# mostly 0 and 1.
#
# A batch of one image without pixels has $m = 1$, and is refused in training:

# %%
try:
    nn.BatchNorm1d(3)(mt.ones(1, 3))
except ValueError as error:
    print(error)

# %% [markdown]
# ### Folding
#
# In `eval()` one convolution with other weights and a bias does the work of both layers:

# %%
layer, u = followed[0.1].eval(), mt.tensor(images[:32])
layer.weight.data, layer.bias.data = rng.normal(size=4), rng.normal(size=4)
slope = layer.weight.data / np.sqrt(layer.running_var.data + 1e-5)
b = layer.bias.data - slope * layer.running_mean.data
one = F.conv2d(u, convolution.weight.data * slope[:, None, None, None], b, padding=1)
print("one layer for two:", np.allclose(one.data, layer(convolution(u)).data))

# %% [markdown]
# ## The gradient check

# %%
x = rng.normal(size=(2, 3, 2, 2))
gamma, beta = rng.normal(size=3), rng.normal(size=3)
report = mt.check_vjp(batch_norm, x, gamma, beta)
print(report)

# %%
assert report.ok
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 7. The rules of batch normalisation and what is measured agree: the error is dark
# throughout.*
#
# Now the mistake that everyone makes once: mean and variance are taken for constants, as if they
# did not depend on $x$. Only the direct path is left, $dx = \tfrac{\gamma}{\sigma}\, dy$. Two
# milder cases forget one path each.


# %%
def with_rule_of_x(rule):
    """Batch normalisation with another rule for x: rule(dy, xhat) in the place of the bracket."""

    def norm(x, gamma, beta):
        y, (_, *others) = batch_norm(x, gamma, beta)
        xhat, r = standardise(x)
        return y, (lambda dy: gamma[:, None, None] * r * rule(dy, xhat), *others)

    norm.__name__ = rule.__name__
    return norm


def both_forgotten(dy, xhat):
    return dy


def mean_forgotten(dy, xhat):
    return dy - xhat * channel_mean(dy * xhat)


def variance_forgotten(dy, xhat):
    return dy - channel_mean(dy)


wrong = {
    rule.__name__: mt.check_vjp(with_rule_of_x(rule), x, gamma, beta, raise_on_failure=False)
    for rule in (both_forgotten, mean_forgotten, variance_forgotten)
}
for name, report in wrong.items():
    assert [entry.ok for entry in report.inputs] == [False, True, True]
    print(f"{name}: {report.inputs[0].diagnosis or '(no pattern that the diagnosis knows)'}")
assert [bool(report.inputs[0].diagnosis) for report in wrong.values()] == [False, True, False]

# %%
viz.draw_gradcheck(wrong["both_forgotten"])

# %% [markdown]
# *Figure 8. Only the direct path: the gradient of $x$ is wrong nearly everywhere, those of $\gamma$
# and $\beta$ are right.*
#
# Of the three, the diagnosis names one: where the path through the mean is missing, the error is the
# same at all places of a channel. In the other two it varies from pixel to pixel and fits none of
# the patterns that it knows. But *we* know what to look for: what is missing is a constant, or a
# multiple of $\hat x$, or both. So draw the error of each element against its $\hat x$, for a random
# `dy` with a mean that is well away from 0.

# %%
xhat, _ = standardise(x)
dy = 1 + rng.normal(size=x.shape)
right = batch_norm(x, gamma, beta)[1][0](dy)
figure, axes = viz.panels(1, 3, height=2.8)
for ax, rule in zip(axes, (both_forgotten, mean_forgotten, variance_forgotten), strict=True):
    error = with_rule_of_x(rule)(x, gamma, beta)[1][0](dy) - right
    for c, colour in enumerate(viz.COLOURS[:3]):
        slope, height = np.polyfit(xhat[:, c].ravel(), error[:, c].ravel(), 1)
        ax.plot(xhat[:, c].ravel(), error[:, c].ravel(), ".", color=colour, markersize=9)
        ax.plot([-2, 2], [height - 2 * slope, height + 2 * slope], color=colour, linewidth=1)
        assert np.allclose(error[:, c], height + slope * xhat[:, c])
        assert (abs(slope) > 0.01) == (rule != mean_forgotten)
        assert (abs(height) > 0.01) == (rule != variance_forgotten)
    ax.set(title=rule.__name__.replace("_", " "), xlabel=r"$\hat x$", xlim=(-2.2, 2.2))
axes[0].set_ylabel("error of dx")
figure

# %% [markdown]
# *Figure 9. One colour for each channel. The errors lie exactly on straight lines: level lines where
# the mean is forgotten, lines through the origin where the variance is, and slanted lines anywhere
# where both are. A wrong gradient has a form, and the form says which term is missing.*
#
# By the way, the worst of the three rules is the right one in `eval()`, where the statistics *are*
# constants.

# %% [markdown]
# ## At work
#
# ### Learning rates
#
# What does batch normalisation bring? A network of six convolutions with 8 channels (16 in the
# last) and a linear layer is to read digits, after two epochs of plain SGD. Three arms, five
# learning rates, three seeds each:
#
# - **plain**: convolution and ReLU, with the initial weights of `nn.Conv2d` (PyTorch's);
# - **plain, Kaiming**: the same with Kaiming's initial weights, which keep the size of the signal
#   through ReLUs (lesson 04);
# - **batch norm**: PyTorch's weights, batch normalisation between convolution and ReLU.


# %%
def network(norm=None, kaiming=False, K=8):
    layers = []
    for C, O, stride in (1, K, 2), (K, K, 1), (K, K, 1), (K, K, 1), (K, K, 1), (K, 2 * K, 2):
        convolution = nn.Conv2d(C, O, 3, stride, padding=1, bias=norm is None)
        if kaiming:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)
        layers += [convolution, *([norm(O)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * K, 10))


def score(model):
    """Accuracy on unseen digits, in percent."""
    return 100 * evaluate(model, DataLoader(test, batch_size=500))["accuracy"]


def accuracy_at(lr, make, seed):
    mt.manual_seed(seed)
    model = make()
    loader = DataLoader(train, batch_size=32, shuffle=True, generator=seed, drop_last=True)
    optimizer = optim.SGD(model.parameters(), lr=lr)
    try:
        fit(model, loader, optimizer=optimizer, epochs=2, progress=False)
    except DivergedError:
        return 10.0  # as good as guessing
    return score(model)


SEEDS = 0, 1, 2
RATES = 0.01, 0.03, 0.1, 0.3, 1.0
arms = {
    "plain": lambda: network(),
    "plain, Kaiming": lambda: network(kaiming=True),
    "batch norm": lambda: network(nn.BatchNorm2d),
}
by_rate = {
    name: np.array([[accuracy_at(lr, make, seed) for seed in SEEDS] for lr in RATES])
    for name, make in arms.items()
}  # (rates, seeds)

# %%
plain, kaiming, normed = by_rate.values()
assert plain.max() < 20
assert (normed.min(axis=1) > kaiming.max(axis=1)).all() and (normed[1:4] > 85).all()
assert (kaiming[2:4] > 60).all() and (kaiming[0] < 50).all()
assert kaiming[4].max() < 20 < 60 < normed[4].min()

figure, ax = viz.panels(width=6.4, height=3.0)
for (name, runs), colour in zip(by_rate.items(), viz.COLOURS, strict=False):
    ax.semilogx(RATES, runs.mean(axis=1), color=colour, label=name)
    ax.semilogx(np.repeat(RATES, len(SEEDS)), runs.ravel(), ".", color=colour)
ax.set(xlabel="learning rate", ylabel="accuracy, %", ylim=(0, 100))
ax.set_xticks(RATES, labels=RATES)
ax.minorticks_off()
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
figure

# %% [markdown]
# *Figure 10. A dot is one seed, a line the mean of three. Ten percent are what guessing gives.*
#
# - Without normalisation, and with PyTorch's initial weights, this network learns **next to
#   nothing** in so short a time, at any of the learning rates. By the derivation of lesson 04 each
#   layer leaves about a sixth of the signal's mean square.
# - Kaiming's weights mend much of that, at learning rates of 0.1 and 0.3. A good deal of what batch
#   normalisation does here can be had from the initialisation.
# - With batch normalisation every seed is better than any seed of the other two arms, at each of the
#   five learning rates. At 1.0, where these are back at guessing, it still learns.

# %% [markdown]
# ### Small batches
#
# Batch normalisation takes two directions out of a gradient that has $m$. Of the squared length of a
# random $dy$ the share $(m - 2)/m$ is left: nearly all of it if $m$ is large, but half of it for $m =
# 4$. And for $m = 2$, as behind a linear layer with two images in a batch, it is **nothing**: the two
# values become $1$ and $-1$, whatever they were, and no gradient goes back. (But for $\varepsilon$:
# where the two values nearly agree, so that $v$ is as small as $\varepsilon$, a remainder passes,
# multiplied by an $r$ of several hundred. That is noise rather than guidance.)

# %%
for m in 2, 4, 8, 32:
    values, dy = rng.normal(size=(m, 4000, 1, 1)), rng.normal(size=(m, 4000, 1, 1))
    xhat, r = standardise(values, eps=0.0)
    dx = batch_norm(values, np.ones(4000), np.zeros(4000), eps=0.0)[1][0](dy)
    share = ((dx / r) ** 2).sum() / (dy**2).sum()
    print(f"m = {m:2}: {100 * share:3.0f} % left")
    assert abs(share - (m - 2) / m) < 0.01

# %% [markdown]
# We train a network of two hidden linear layers for 300 steps with batches of 2, 4, 8 and 32, with
# batch and with layer normalisation. Then we train the convolutional network with batches of 2, with
# batch normalisation and with group normalisation of 2 groups. There $m$ is 32: two images of 4 x 4
# pixels (8 in the last layer).


# %%
def hidden_layers(norm, K=40):
    def layer(D):
        return [nn.Linear(D, K, bias=False), norm(K), nn.ReLU()]

    return nn.Sequential(nn.Flatten(), *layer(64), *layer(K), nn.Linear(K, 10))


def accuracy_with(batch, make, seed, steps=300):
    mt.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = make()
    optimizer = optim.SGD(model.parameters(), lr=0.03)
    for _ in range(steps):
        chosen = rng.choice(len(images), batch, replace=False)
        loss = F.cross_entropy(model(mt.tensor(images[chosen])), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return score(model)


BATCHES = 2, 4, 8, 32
dense = {
    "batch norm": lambda: hidden_layers(nn.BatchNorm1d),
    "layer norm": lambda: hidden_layers(nn.LayerNorm),
}
convolutional = {
    "batch norm": lambda: network(nn.BatchNorm2d),
    "group norm": lambda: network(lambda channels: nn.GroupNorm(2, channels)),
}
by_batch = {
    name: np.array([[accuracy_with(N, make, seed) for seed in SEEDS] for N in BATCHES])
    for name, make in dense.items()
}
in_twos = {
    name: [accuracy_with(2, make, seed) for seed in SEEDS] for name, make in convolutional.items()
}

# %%
by_channel, by_image = by_batch.values()
assert (by_channel[0] < 70).all() and (by_image[0] > 75).all()
assert (by_channel[2] > by_image[2]).all()
assert min(in_twos["batch norm"]) > 65
assert np.sign(np.subtract(*in_twos.values())).tolist() == [-1, -1, 1]  # the seeds disagree

figure, axes = viz.panels(1, 2, height=2.8)
for (name, runs), colour in zip(by_batch.items(), viz.COLOURS, strict=False):
    axes[0].semilogx(BATCHES, runs.mean(axis=1), color=colour, label=name)
    axes[0].semilogx(np.repeat(BATCHES, len(SEEDS)), runs.ravel(), ".", color=colour)
axes[0].set(title="hidden layers", xlabel="images in a batch", ylabel="accuracy, %", ylim=(0, 100))
axes[0].set_xticks(BATCHES, labels=BATCHES)
axes[0].minorticks_off()
axes[0].legend(frameon=False, loc="lower right")
viz.plot_arms(in_twos, label="%", ax=axes[1])
axes[1].set(title="convolutions, batches of 2", xlim=(0, 100), xlabel="accuracy, %")
figure

# %% [markdown]
# *Figure 11. Left, where $m = N$: with two images in a batch, layer normalisation is far ahead on
# each seed. With eight, batch normalisation is ahead on each. Right, two images **with pixels**: no
# such collapse. Two seeds are better with group normalisation, the third with batch normalisation.*
#
# (The three dots at the lower left may lie a little differently on your computer: there the rounding
# of the processor, enlarged by $r$, decides where the training goes.)
#
# So what counts is $m$, not the batch size. That group normalisation wins with small batches was
# shown on much deeper networks, trained for much longer. Our digits do not show it.

# %% [markdown]
# ### Forgetting `train()` and `eval()`
#
# Three networks with batch normalisation, well trained (one for each seed), read the unseen digits:
# in `eval()`, and in `train()`, where `eval()` was forgotten. Batches may be of 50 mixed digits; or
# of 10, sorted by class; or each digit may come alone. The last arm was *trained* in `eval()`,
# where `train()` was forgotten.


# %%
def trained(seed, training=True):
    mt.manual_seed(seed)
    model = network(nn.BatchNorm2d).train(training)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(train, batch_size=32, shuffle=True, generator=seed, drop_last=True)
    for _ in range(2):
        for x, t in loader:
            loss = F.cross_entropy(model(x), t)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


unseen, answers = test[:]
mixed = np.random.default_rng(0).permutation(len(unseen))
by_class = np.argsort(answers, kind="stable")


def accuracy_in_use(model, order, size):
    """In batches of a size, in the mode that the model is in."""
    with mt.no_grad():
        scores = [
            model(mt.tensor(unseen[order[start : start + size]])).data
            for start in range(0, len(order), size)
        ]
    return 100 * (np.concatenate(scores).argmax(axis=1) == answers[order]).mean()


models = [trained(seed) for seed in SEEDS]
uses = {
    "eval(), mixed": [accuracy_in_use(model.eval(), mixed, 50) for model in models],
    "eval(), sorted": [accuracy_in_use(model.eval(), by_class, 10) for model in models],
    "train(), mixed": [accuracy_in_use(model.train(), mixed, 50) for model in models],
    "train(), sorted": [accuracy_in_use(model.train(), by_class, 10) for model in models],
    "train(), alone": [accuracy_in_use(model.train(), mixed, 1) for model in models],
}
untrained = [trained(seed, training=False) for seed in SEEDS]
uses["trained in eval()"] = [accuracy_in_use(model, mixed, 50) for model in untrained]

# %%
assert np.allclose(uses["eval(), mixed"], uses["eval(), sorted"])
assert np.allclose(uses["eval(), mixed"], uses["train(), mixed"], atol=4)
worse = [np.subtract(uses["eval(), mixed"], uses[f"train(), {way}"]) for way in ("sorted", "alone")]
assert (worse[0] > 10).all() and (worse[1] > 3).all() and max(uses["trained in eval()"]) < 20
viz.plot_arms(uses, label="accuracy on unseen digits, %")

# %% [markdown]
# *Figure 12. Forgetting `eval()` does no visible harm as long as the batches are large and mixed,
# which is why the mistake lives long. Sorted by class, the digits of a batch are measured against
# one another: what they have in common is taken out with the mean, and that is part of what they
# are recognised by. Alone, each is measured against its own few pixels, and this costs something on
# each seed, too. Trained in `eval()`, the statistics stay 0 and 1, nothing is normalised, and the
# network learns as little as the plain one of figure 10.*
#
# A forgotten `eval()` does more: every batch that passes moves the running statistics, so the
# test images leave their traces in the model.

# %% [markdown]
# ### Maximum or average?
#
# Two convolutions, each followed by something that halves the image: the maximum of 2 x 2, the mean
# of 2 x 2, or no pooling at all but a stride of 2 in the convolution. They have the same number of
# weights and of epochs (though in front of a pool a convolution costs four times as much). They are
# tested on unseen digits in their place and moved by one pixel.


# %%
def pooled(pool, K=8):
    stride, after = (2, []) if pool is None else (1, [pool(2)])
    layers = []
    for C, O in (1, K), (K, 2 * K):
        layers += [nn.Conv2d(C, O, 3, stride, padding=1), nn.ReLU(), *after]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * K, 10))


def accuracies(pool, seed):
    """On unseen digits in their place, and moved by one pixel in four directions, in percent."""
    mt.manual_seed(seed)
    model = pooled(pool)
    loader = DataLoader(train, batch_size=64, shuffle=True, generator=seed)
    fit(model, loader, optimizer=optim.Adam(model.parameters(), lr=5e-3), epochs=5, progress=False)
    around = np.pad(unseen, ((0, 0), (0, 0), (1, 1), (1, 1)))
    places = (0, 1), (2, 1), (1, 0), (1, 2)
    moved = np.concatenate([around[:, :, i : i + 8, j : j + 8] for i, j in places])
    with mt.no_grad():
        right = model(mt.tensor(moved)).data.argmax(axis=1) == np.tile(answers, 4)
    return score(model), 100 * right.mean()


pools = {"maximum": nn.MaxPool2d, "average": nn.AvgPool2d, "stride": None}
halved = {name: np.array([accuracies(pool, s) for s in SEEDS]) for name, pool in pools.items()}

figure, axes = viz.panels(1, 2, height=2.2)
for ax, column, title in zip(axes, (0, 1), ("in place", "moved by one pixel"), strict=True):
    viz.plot_arms({name: found[:, column] for name, found in halved.items()}, label="%", ax=ax)
    ax.set(title=title, xlim=(0, 100), xlabel="accuracy, %")
largest, mean, stride = halved.values()
assert (largest[:, 0] > mean[:, 0] + 5).all() and (stride[:, 0] > mean[:, 0] + 5).all()
assert abs(largest[:, 0].mean() - stride[:, 0].mean()) < 3
assert (largest[:, 1] > stride[:, 1] + 3).all() and (largest[:, 1] < 65).all()
figure

# %% [markdown]
# *Figure 13. In place, maximum and stride are close together, and the mean is behind on each seed:
# after so few epochs, at least, it has learned less. Moved by a pixel, the maximum is ahead of the
# stride on each seed. But all three break down.*
#
# All of them end in a linear layer that reads the image place by place. As in lesson 05, what makes
# a network robust against moves is a *global* pool at its end; small ones on the way help a little.

# %% [markdown]
# ## Paper and code
#
# | | elsewhere | here |
# |---|---|---|
# | place of batch norm | the paper: between convolution and nonlinearity; some networks of lesson 08 have it in front of the convolution | the paper's |
# | why it works | the paper: less *internal covariate shift* (a layer's inputs move while the layers before it learn); Santurkar et al. find that this is not the reason, and that the loss becomes smoother | the geometry is proved; the reason is still argued about |
# | running variance | the paper and PyTorch: unbiased | unbiased |
# | momentum | PyTorch: weight of the new statistics, 0.1; Keras: weight of the old, 0.99 | of the new, 0.1 |
# | $\varepsilon$ | inside the root: PyTorch $10^{-5}$, Keras $10^{-3}$ | inside, $10^{-5}$ |
# | border of average pooling | PyTorch counts padded zeros in the mean, unless `count_include_pad=False` | the same |
# | last window, if incomplete | left out, unless `ceil_mode=True` | the same |

# %% [markdown]
# ## Predict before you run
#
# **1.** The kernels in front of a batch normalisation may be multiplied by any $k > 0$. What if all
# of them are multiplied by $-1$?

# %%
x, w = rng.normal(size=(4, 2, 5, 5)), rng.normal(size=(3, 2, 3, 3))
y, turned = (F.batch_norm(F.conv2d(x, v), None, None, training=True).data for v in (w, -w))
print("the same:", np.allclose(y, turned), " negated:", np.allclose(y, -turned))

# %% [markdown]
# <details><summary>Answer</summary>
#
# The output changes its sign: the deviations do, and the standard deviation is positive whatever
# happens. Behind a ReLU that is another network.
#
# </details>
#
# **2.** Let the loss be the sum of all outputs of a batch normalisation. Which gradients do $x$ and
# $\gamma$ get?

# %%
_, (vjp_x, vjp_gamma, vjp_beta) = batch_norm(x, np.ones(2), np.zeros(2))
ones = np.ones_like(x)
print("x is 0:    ", np.allclose(vjp_x(ones), 0))
print("gamma is 0:", np.allclose(vjp_gamma(ones), 0))
print("beta:      ", vjp_beta(ones))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Zero, both. $dy$ is all ones, and that direction is taken out; and $d\gamma = \sum_i \hat x_i =
# 0$. The sum of the outputs is $m\beta$ for each channel, whatever $x$ is. A gradient check with
# ones in place of a random `dy` would let a rule of zeros pass: the warning of lesson 03.
#
# </details>
#
# **3.** All pixels of an image are equal, as in a clear sky. Where does maximum pooling of 2 x 2
# send its gradient, and what does the gradient check say to that?

# %%
sky = np.ones((1, 1, 4, 4))
y, vjp_x = max_pool2d(sky, kernel=2, stride=2)
print(vjp_x(np.ones_like(y))[0, 0].astype(int))
print(mt.check_vjp(max_pool2d, sky, kernel=2, stride=2, raise_on_failure=False))

# %% [markdown]
# <details><summary>Answer</summary>
#
# To the upper left pixel of each window, the first of four equal ones. At a tie there is no
# derivative, and so nothing to compare with: the check leaves these elements out, and says that it
# has checked nothing. It can neither confirm nor contradict the choice; that takes a test of its
# own.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`07_pooling_and_normalisation`](../exercises/07_pooling_and_normalisation.ipynb):
#
# 1. **max_pool2d**: the greatest of each window, and its rule.
# 2. **avg_pool2d**: the mean, with windows that overlap.
# 3. **batch_norm**: the forward, in training.
# 4. **batch_norm_rules**: the backward, in its compact form.
# 5. **running_statistics**: what `train()` collects for `eval()`.
# 6. **group_norm**: one formula, with layer and instance normalisation at its ends.
# 7. **fold_batch_norm**: one convolution in place of two layers.

# %% [markdown]
# ## What to remember
#
# - The maximum sends its gradient to the winner, the average shares it out. Where windows overlap,
#   add.
# - $dx = \tfrac{\gamma}{\sigma} (dy - \overline{dy} - \hat x\, \overline{dy\, \hat x})$: shifting and
#   stretching $x$ change nothing, so what points along $\mathbf 1$ and along $\hat x$ is taken out.
# - Batch, layer, instance and group normalisation are one formula. They differ in which values
#   share a mean.
# - In `train()` the batch's own statistics, in `eval()` the running ones, as constants. Forgetting
#   either can go unnoticed for long.
# - It makes a network forgiving about initial weights and learning rates. It needs enough values for
#   each mean.

# %% [markdown]
# ## Sources
#
# - S. Ioffe, C. Szegedy, *Batch Normalization: Accelerating Deep Network Training by Reducing
#   Internal Covariate Shift*, ICML 2015, algorithms 1 and 2.
# - S. Santurkar, D. Tsipras, A. Ilyas, A. Madry, *How Does Batch Normalization Help Optimization?*,
#   NeurIPS 2018.
# - J. L. Ba, J. R. Kiros, G. E. Hinton, *Layer Normalization*, arXiv:1607.06450, 2016.
# - D. Ulyanov, A. Vedaldi, V. Lempitsky, *Instance Normalization: The Missing Ingredient for Fast
#   Stylization*, arXiv:1607.08022, 2016.
# - Y. Wu, K. He, *Group Normalization*, ECCV 2018.
# - T. van Laarhoven, *L2 Regularization versus Batch and Weight Normalization*, arXiv:1706.05350,
#   2017: weights whose size is of no account.
# - D. Scherer, A. Müller, S. Behnke, *Evaluation of Pooling Operations in Convolutional
#   Architectures for Object Recognition*, ICANN 2010.
# - PyTorch's documentation: `torch.nn.BatchNorm2d`, `torch.nn.MaxPool2d`, `torch.nn.AvgPool2d`.
# - The photo is scikit-learn's `flower.jpg`, released under CC BY 2.0 (flickr.com/photos/vultilion).
