# %% [markdown]
# # Exercises 27: on the GPU
#
# Kernels, a gradient by atomic adds, a function without hidden copies, and a loss scaler.
# **None of it needs a GPU**: kernels run in the simulator of
# [lesson 27](../notebooks/27_gpu.ipynb), thread by thread, and the function on the stand-in for
# CuPy. Both are strict: a race, a missed barrier or a hidden copy is found here, also where a real
# card would give the right answer by luck.
#
# A kernel is a function of one `thread`: `thread.index` is its place in its block,
# `thread.block` the place of the block, `thread.block_size` and `thread.blocks` say how many there
# are. `thread.shared(name, size)` is an array of the block, `thread.atomic_add(array, i, value)` adds
# safely, and `yield` is the barrier. `launch(kernel, blocks, block_size, *arrays)` runs one.
#
# Run a cell, then its check. `hint("27.axpy")` gives one hint at a time, and after a try
# `solution("27.axpy")` shows a way to do it.

# %%
import numpy as np

from minitorch_attn.course import check
from minitorch_attn.engine import array_module
from minitorch_attn.simulator.threads import launch


def reverse(thread, x, y):
    """To see how it is done: each block turns its part round, by way of shared memory."""
    part = thread.shared("part", thread.block_size)
    i = thread.block * thread.block_size + thread.index
    part[thread.index] = x[i]
    yield
    y[i] = part[thread.block_size - 1 - thread.index]


x, y = np.arange(8.0), np.zeros(8)
tally = launch(reverse, 2, 4, x, y)
print(y, f"{tally.reads} elements read from global memory, {tally.barriers} barriers")

# %% [markdown]
# ## 1. Which elements are mine?
#
# $y_i \leftarrow a\, x_i + y_i$, for arrays of any length on a grid of any size. Each thread finds
# its place in the whole grid, takes the element there, and if there are more elements than threads,
# goes on by as many as there are threads in all: a *grid-stride loop*. Neighbouring threads so touch
# neighbouring elements, which share the 32-byte sectors that memory delivers. For example, with
# `launch(axpy, 2, 4, a, x, y)` and 10 elements, thread 1 of block 0 takes the elements 1 and 9.


# %% exercise="axpy"
def axpy(thread, a, x, y):
    """The number a and arrays x, y (n,): y[i] becomes a * x[i] + y[i], each i by one thread."""
    ### BEGIN SOLUTION
    first = thread.block * thread.block_size + thread.index
    for i in range(first, len(x), thread.blocks * thread.block_size):
        y[i] = a * x[i] + y[i]
    ### END SOLUTION


# %% check="axpy" points=2
check("27.axpy", axpy)

# %% [markdown]
# ## 2. A sum by a block
#
# One block for each row of `x` (N, D), and `y` (N,) gets the sum of each row. The block size is a
# power of two; D is any number.
#
# 1. Each thread adds up columns in a register (a Python variable): `thread.index`, and then one
#    `thread.block_size` further each time. It puts its sum into shared memory.
# 2. A tree: the first half of the threads each add the element that lies half the array further, then
#    the first quarter, and so on. After $\log_2$ of the block size steps the sum stands in element 0.
# 3. One thread writes it to `y`.
#
# The barriers are yours to place: wherever a thread reads what another has written. **All** threads of
# the block must come by each of them.


# %% exercise="row_sum"
def row_sum(thread, x, y):
    """x (N, D), y (N,): block n writes the sum of row n of x to y[n]."""
    ### BEGIN SOLUTION
    part = thread.shared("part", thread.block_size)
    total = 0.0
    for j in range(thread.index, x.shape[1], thread.block_size):
        total += x[thread.block, j]
    part[thread.index] = total
    yield
    apart = thread.block_size // 2
    while apart:
        if thread.index < apart:
            part[thread.index] += part[thread.index + apart]
        yield
        apart //= 2
    if thread.index == 0:
        y[thread.block] = part[0]
    ### END SOLUTION


# %% check="row_sum" points=4
check("27.row_sum", row_sum)

# %% [markdown]
# ## 3. Many threads, one element
#
# `y = x[index]` picks elements, some of them several times. Its rule adds each `dy[i]` to
# `dx[index[i]]`. Write the rule as a kernel with one thread for each element of `dy`; the launch has
# at least as many threads as elements, and `dx` is zero at the start. For example, `index = [2, 0, 2]`
# and `dy = [1, 10, 100]` give `dx = [10, 0, 101]`.


# %% exercise="scatter_add"
def scatter_add(thread, index, dy, dx):
    """index (n,) of integers, dy (n,), dx (m,): dx[index[i]] grows by dy[i]."""
    ### BEGIN SOLUTION
    i = thread.block * thread.block_size + thread.index
    if i < len(dy):
        thread.atomic_add(dx, index[i], dy[i])
    ### END SOLUTION


# %% check="scatter_add" points=3
check("27.scatter_add", scatter_add)

# %% [markdown]
# ## 4. Two parts become one, again
#
# Batch normalisation needs mean and variance. In one pass, each thread (or block) keeps three
# numbers of the elements that it has met: how many, $n$; their mean $\mu$; and the sum of squared
# deviations from it, $q = \sum_i (x_i - \mu)^2$. Two threads meet. With $\delta = \mu_2 - \mu_1$,
#
# $$n = n_1 + n_2, \qquad \mu = \mu_1 + \delta\, \frac{n_2}{n}, \qquad
# q = q_1 + q_2 + \delta^2\, \frac{n_1 n_2}{n}$$
#
# (Chan, Golub and LeVeque). For example, $1, 3$ is $n = 2$, $\mu = 2$, $q = 2$, and $8$ alone is $n =
# 1$, $\mu = 8$, $q = 0$; together $n = 3$, $\mu = 4$, $q = 26$. The other way, $\sum x^2 - n \mu^2$,
# loses all digits where the mean is large, and the checks look there. All arguments may be arrays
# of one shape.


# %% exercise="merge"
def merge(n1, mean1, q1, n2, mean2, q2):
    """Counts, means and sums of squared deviations of two parts -> n, mean, q of both."""
    ### BEGIN SOLUTION
    n = n1 + n2
    delta = mean2 - mean1
    return n, mean1 + delta * n2 / n, q1 + q2 + delta**2 * n1 * n2 / n
    ### END SOLUTION


# %% check="merge" points=2
check("27.merge", merge)

# %% [markdown]
# ## 5. No hidden copies
#
# This function works on NumPy's arrays. On a GPU the host would have to stand and wait at three places,
# until a number has come from the card: for the `float`; for the list of means, of which `np.array`
# makes an array on the host (CuPy even refuses that); and for the `int`.


# %%
def prepare_on_the_host(x, limit):
    """Rows (N, D), scaled down to |x| <= limit, centred, and taken relative to the longest."""
    largest = float(np.abs(x).max())
    if largest > limit:
        x = x * (limit / largest)
    means = np.array([row.mean() for row in x])
    x = x - means[:, None]
    longest = int((x**2).sum(axis=1).argmax())
    return x - x[longest]


prepare_on_the_host(np.array([[1.0, 3.0], [-8.0, 0.0]]), 4.0)

# %% [markdown]
# Write it for arrays of either library, so that no number leaves the device: a comparison that chooses
# between two computations becomes arithmetic (`maximum`, `where`), and an index may itself be an array
# of the device. `array_module(x)` is `numpy` or `cupy`, whichever made `x`. The check runs your function
# on the stand-in and counts the copies to the host: there should be none.


# %% exercise="prepare"
def prepare(x, limit):
    """x (N, D) of either library, limit a number -> an array like x, without a copy to the host."""
    ### BEGIN SOLUTION
    xp = array_module(x)
    largest = xp.abs(x).max()
    x = x * (limit / xp.maximum(largest, limit))
    x = x - x.mean(axis=1, keepdims=True)
    longest = (x**2).sum(axis=1).argmax()
    return x - x[longest]
    ### END SOLUTION


# %% check="prepare" points=3
check("27.prepare", prepare)

# %% [markdown]
# ## 6. A loss scaler
#
# The loss was multiplied by `scaler.scale` before the backward pass, so all gradients, arrays of
# float16, are that much too large. `scaler.unscale(gradients)` gets them as a list and
#
# - returns them divided by the scale, as arrays of **float32** (in float16 they would vanish now);
# - or returns `None` if an element of any of them is infinite or not a number: that step is left out.
#
# Then it moves `scaler.scale`, for the next step: halved after a step that was left out, and doubled
# after `patience` steps in a row that were not. After either, the row starts anew. For example, with
# `LossScaler(scale=8.0, patience=2)` and steps of which only the third overflows, the scale after
# each step is 8, 16, 8, 8, 16.


# %% exercise="LossScaler"
class LossScaler:
    """Scale of a loss that moves by itself.

    Attributes
    ----------
    scale : float
        What the next loss is to be multiplied by.
    """

    def __init__(self, scale, patience):
        ### BEGIN SOLUTION
        self.scale, self.patience = scale, patience
        self.good = 0  # steps in a row
        ### END SOLUTION

    def unscale(self, gradients):
        """Arrays of float16 -> a list of arrays of float32, divided by the scale; or None."""
        ### BEGIN SOLUTION
        if not all(np.isfinite(g).all() for g in gradients):
            self.scale /= 2
            self.good = 0
            return None
        unscaled = [g.astype(np.float32) / np.float32(self.scale) for g in gradients]
        self.good += 1
        if self.good == self.patience:
            self.scale *= 2
            self.good = 0
        return unscaled
        ### END SOLUTION


# %% check="LossScaler" points=4
check("27.LossScaler", LossScaler)
