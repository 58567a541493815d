# %% [markdown]
# # Exercises 07: pooling and normalisation
#
# Two pools with their rules, then batch normalisation from its forward to the convolution that it
# vanishes into. The letters are those of [lesson
# 07](../notebooks/07_pooling_and_normalisation.ipynb): images `x` (N, C, H, W), output `y` and its
# gradient `dy`, scale `gamma` (C,) and shift `beta` (C,).
#
# Run a cell, then its check. `hint("07.max_pool2d")` gives one hint at a time, and after a try
# `solution("07.max_pool2d")` shows a way to do it.

# %%
import numpy as np

from minitorch_attn.course import check

# %% [markdown]
# ## 1. The greatest of each window
#
# Windows of `size` x `size` tile the image; what does not fill a whole window at the bottom and on
# the right is left out. The rule gives `dy` to the winner of each window, all other pixels get 0.
# Where several are equal, the first wins, row by row (as `argmax` has it).
#
# With `size=2`, the image `[[1, 7, 4, 4], [2, 0, 3, 4]]` becomes `[[7, 4]]`, and `dy = [[10, 20]]`
# goes to `[[0, 10, 20, 0], [0, 0, 0, 0]]`.


# %% exercise="max_pool2d"
def max_pool2d(x, *, size):
    """x (N, C, H, W) -> y (N, C, H // size, W // size), and the rule of x."""
    ### BEGIN SOLUTION
    N, C, H, W = x.shape
    P, Q = H // size, W // size
    tiled = x[:, :, : P * size, : Q * size].reshape(N, C, P, size, Q, size)
    windows = tiled.swapaxes(3, 4).reshape(N, C, P, Q, size * size)
    winner = windows.argmax(axis=-1)[..., None]

    def vjp_x(dy):
        dwindows = np.where(np.arange(size * size) == winner, dy[..., None], 0.0)
        dtiled = dwindows.reshape(N, C, P, Q, size, size).swapaxes(3, 4)
        dx = np.zeros((N, C, H, W))
        dx[:, :, : P * size, : Q * size] = dtiled.reshape(N, C, P * size, Q * size)
        return dx

    return windows.max(axis=-1), vjp_x
    ### END SOLUTION


# %% check="max_pool2d" points=3
check("07.max_pool2d", max_pool2d)

# %% [markdown]
# ## 2. The mean of each window
#
# Now windows of `size` x `size` lie `stride` pixels apart, and overlap where `stride < size`:
#
# $$y_{ncpq} = \frac{1}{R^2} \sum_{r,s} x_{n,\,c,\,pa+r,\,qa+s} \qquad
# dx_{n,\,c,\,pa+r,\,qa+s} \mathrel{+}= \frac{1}{R^2}\, dy_{ncpq} \quad \text{for all } p, q, r, s$$
#
# with $R$ = `size` and $a$ = `stride`. The forward is given; fill in the rule. With `size=2`,
# `stride=1`, an image of 2 x 3 has two windows, which share its middle column: `dy = [[4, 8]]` goes
# to `[[1, 3, 2], [1, 3, 2]]`.


# %% exercise="avg_pool2d"
def avg_pool2d(x, *, size, stride):
    """x (N, C, H, W) -> y (N, C, P, Q), and the rule of x."""
    P, Q = (x.shape[2] - size) // stride + 1, (x.shape[3] - size) // stride + 1
    y = np.zeros((*x.shape[:2], P, Q))
    for p, q in np.ndindex(P, Q):
        window = x[:, :, p * stride : p * stride + size, q * stride : q * stride + size]
        y[:, :, p, q] = window.mean(axis=(2, 3))

    ### BEGIN SOLUTION
    def vjp_x(dy):
        dx = np.zeros(x.shape)
        for p, q in np.ndindex(P, Q):
            rows = slice(p * stride, p * stride + size)
            columns = slice(q * stride, q * stride + size)
            dx[:, :, rows, columns] += dy[:, :, p, q, None, None] / size**2
        return dx

    return y, vjp_x
    ### END SOLUTION


# %% check="avg_pool2d" points=2
check("07.avg_pool2d", avg_pool2d)

# %% [markdown]
# ## 3. Batch normalisation, forward
#
# In each channel, over its $m = NHW$ values,
#
# $$\mu = \frac1m \sum_i x_i \qquad v = \frac1m \sum_i (x_i - \mu)^2 \qquad
# y_i = \gamma\, \frac{x_i - \mu}{\sqrt{v + \varepsilon}} + \beta$$
#
# Two images of one channel and one pixel, 1 and 5, have $\mu = 3$ and $v = 4$. With `eps=0`, `gamma
# = [10]` and `beta = [1]` they become -9 and 11.


# %% exercise="batch_norm"
def batch_norm(x, gamma, beta, eps=1e-5):
    """x (N, C, H, W), gamma (C,), beta (C,) -> y (N, C, H, W), by the statistics of the batch."""
    ### BEGIN SOLUTION
    mean = x.mean(axis=(0, 2, 3), keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=(0, 2, 3), keepdims=True)
    xhat = (x - mean) / np.sqrt(variance + eps)
    return gamma[:, None, None] * xhat + beta[:, None, None]
    ### END SOLUTION


# %% check="batch_norm" points=2
check("07.batch_norm", batch_norm)

# %% [markdown]
# ## 4. Batch normalisation, backward
#
# $$d\gamma = \sum_i dy_i\, \hat x_i \qquad d\beta = \sum_i dy_i \qquad
# dx_i = \frac{\gamma}{\sqrt{v + \varepsilon}} \left( dy_i - \overline{dy} -
# \hat x_i\; \overline{dy\, \hat x} \right)$$
#
# The bars are means over the $m$ values of the channel. The forward is given, with `xhat` (N, C, H,
# W) and `r` (1, C, 1, 1), which is $1/\sqrt{v + \varepsilon}$.


# %% exercise="batch_norm_rules"
def batch_norm_rules(x, gamma, beta, *, eps=1e-5):
    """x (N, C, H, W), gamma (C,), beta (C,) -> y (N, C, H, W), and a rule for each."""
    centred = x - x.mean(axis=(0, 2, 3), keepdims=True)
    r = 1 / np.sqrt((centred**2).mean(axis=(0, 2, 3), keepdims=True) + eps)
    xhat = centred * r
    y = gamma[:, None, None] * xhat + beta[:, None, None]

    ### BEGIN SOLUTION
    def vjp_x(dy):
        mean_dy = dy.mean(axis=(0, 2, 3), keepdims=True)
        mean_along = (dy * xhat).mean(axis=(0, 2, 3), keepdims=True)
        return gamma[:, None, None] * r * (dy - mean_dy - xhat * mean_along)

    def vjp_gamma(dy):
        return (dy * xhat).sum(axis=(0, 2, 3))

    def vjp_beta(dy):
        return dy.sum(axis=(0, 2, 3))

    return y, (vjp_x, vjp_gamma, vjp_beta)
    ### END SOLUTION


# %% check="batch_norm_rules" points=4
check("07.batch_norm_rules", batch_norm_rules)

# %% [markdown]
# ## 5. Running statistics
#
# A step of the layer as a function: it takes the running statistics, and returns the output and the
# statistics after it.
#
# - `training=True`: normalise by the mean and the *biased* variance of the batch, and move the
#   running statistics with momentum $\alpha$ towards the mean and the *unbiased* variance
#   $\tfrac{m}{m-1} v$:
#   $$\mu_{\text{run}} \leftarrow (1 - \alpha)\, \mu_{\text{run}} + \alpha\, \mu \qquad
#   v_{\text{run}} \leftarrow (1 - \alpha)\, v_{\text{run}} + \alpha\, \tfrac{m}{m-1}\, v$$
# - `training=False`: normalise by the running statistics, and return them as they are.
#
# Two images of one pixel, 1 and 5, have $\mu = 3$, $v = 4$ and the unbiased variance 8. From a
# running mean of 0 and variance of 1, with a momentum of 0.1, they lead to 0.3 and 1.7.


# %% exercise="running_statistics"
def running_statistics(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    """x (N, C, H, W), running statistics (C,) -> xhat (N, C, H, W), and both statistics (C,)."""
    ### BEGIN SOLUTION
    mean, variance = running_mean, running_var
    if training:
        mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
        m = x.size // x.shape[1]
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * variance * m / (m - 1)
    xhat = (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + eps)
    return xhat, running_mean, running_var
    ### END SOLUTION


# %% check="running_statistics" points=3
check("07.running_statistics", running_statistics)

# %% [markdown]
# ## 6. Group normalisation
#
# The channels of each image are cut into `groups` groups of channels that follow one another. Each
# group of each image gets mean 0 and variance 1 (biased, and with `eps` under the root), over its
# channels and pixels. With one group this is layer normalisation of an image, with C groups it is
# instance normalisation.
#
# One image with four channels of one pixel, `1, 5, 7, 7`, and two groups becomes `-1, 1, 0, 0` with
# a tiny `eps`.


# %% exercise="group_norm"
def group_norm(x, groups, eps=1e-5):
    """x (N, C, H, W) -> xhat (N, C, H, W)."""
    ### BEGIN SOLUTION
    rows = x.reshape(len(x), groups, -1)
    mean, variance = rows.mean(axis=2, keepdims=True), rows.var(axis=2, keepdims=True)
    return ((rows - mean) / np.sqrt(variance + eps)).reshape(x.shape)
    ### END SOLUTION


# %% check="group_norm" points=3
check("07.group_norm", group_norm)

# %% [markdown]
# ## 7. One convolution for two layers
#
# In use, batch normalisation behind a convolution (the star of lesson 05) is a scale and a shift by
# constants. Return the weights and the bias of the one convolution that does both:
#
# $$\gamma\, \frac{(w \star x + b) - \mu}{\sqrt{v + \varepsilon}} + \beta \;=\; w' \star x + b'
# \qquad \text{for each output channel}$$
#
# For a kernel of one weight 3 with bias 1, a mean of 5, a variance of 4, `gamma = [10]`, `beta =
# [7]` and `eps=0`, they are 15 and -13.


# %% exercise="fold_batch_norm"
def fold_batch_norm(w, b, mean, variance, gamma, beta, eps=1e-5):
    """w (O, C, R, S), all others (O,) -> new weights (O, C, R, S) and a new bias (O,)."""
    ### BEGIN SOLUTION
    slope = gamma / np.sqrt(variance + eps)
    return slope[:, None, None, None] * w, slope * (b - mean) + beta
    ### END SOLUTION


# %% check="fold_batch_norm" points=2
check("07.fold_batch_norm", fold_batch_norm)
