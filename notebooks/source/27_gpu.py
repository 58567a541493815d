# %% [markdown]
# # 27 · On the GPU
#
# The same equations on another machine: what changes, where time goes, a kernel from its first version
# to its third, and training with numbers of 16 bits.
#
# **You will be able to**
#
# - move a training to a GPU, and find what makes the processor wait for it;
# - write a kernel with blocks, shared memory and barriers, and count what it reads and writes;
# - say what 16 bits can hold, and why a loss is scaled.
#
# **You need** lessons 03 (gradient checks), 11 (the softmax and its rule), 13 (squeeze and excitation) and 20
# (the online softmax).
#
# **Time** about 75 minutes, and as long again for the exercises.
#
# **No GPU is needed.** The kernels of this page run in a simulator, thread by thread, and the training
# step on a stand-in for CuPy. What these cannot tell is time: no number on this page was measured on a
# card.

# %%
import time
from collections import Counter

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.data import digits, photograph
from minitorch_attn.engine import DeviceError, primitive
from minitorch_attn.engine.anomaly import Inspector, inspecting
from minitorch_attn.engine.kernels import Kernel
from minitorch_attn.models import se_resnet
from minitorch_attn.ops.multiply_adds import multiply_adds
from minitorch_attn.simulator import simulated_gpu
from minitorch_attn.simulator.threads import RaceError, launch

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# A photograph of 40 x 64 pixels is to be made grey. On a GPU every pixel gets a **thread** of its own.
# What all threads do is written once, as a function of one thread: a **kernel**. Threads come in
# **blocks**; here a block has 64 threads and takes a square of 8 x 8 pixels. A card works on many blocks
# at a time and begins a new one wherever one ends, in an order that nobody knows in advance.

# %%
photo = photograph("china")[:, :400].reshape(3, 40, 10, 64, 10).mean(axis=(2, 4)).copy()


def grey(thread, image, y):
    """One thread: its pixel's mean over the colours. image (3, H, W), y (H, W)."""
    squares = y.shape[1] // 8  # in a row of the picture
    row = thread.block // squares * 8 + thread.index // 8
    column = thread.block % squares * 8 + thread.index % 8
    y[row, column] = (image[0, row, column] + image[1, row, column] + image[2, row, column]) / 3


results, orders = [], []
for seed in 0, 1:
    y = np.zeros((40, 64))
    tally = launch(grey, 40, 64, photo, y, seed=seed)
    began = list(dict.fromkeys(request.block for request in tally.requests))
    results.append(y)
    orders.append(np.argsort(began).reshape(5, 8))

figure, axes = viz.panels(2, 2, height=5.4)
axes[0, 0].imshow(np.clip(photo.transpose(1, 2, 0), 0, 1))
axes[0, 0].set_title("the picture, cut into 40 blocks")
for ax, order, seed in zip((axes[0, 1], axes[1, 0]), orders, (0, 1)):
    ax.imshow(order, cmap="viridis", extent=(0, 64, 40, 0))
    ax.set_title(f"when each block began, seed {seed}")
    for (row, column), turn in np.ndenumerate(order):
        colour = "white" if turn < 20 else "black"
        ax.text(8 * column + 4, 8 * row + 4, turn, ha="center", va="center", color=colour, size=9)
axes[1, 1].imshow(results[1], cmap="gray")
axes[1, 1].set_title("the result, in either order")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
for edge in range(8, 64, 8):
    axes[0, 0].axvline(edge - 0.5, color="white", linewidth=1)
for edge in range(8, 40, 8):
    axes[0, 0].axhline(edge - 0.5, color="white", linewidth=1)
assert (results[0] == results[1]).all() and np.allclose(results[0], photo.mean(axis=0))
assert (orders[0] != orders[1]).any()
figure

# %% [markdown]
# *Figure 1. The same kernel, run twice in the simulator. The blocks came in two different orders, and
# the results are equal: no thread needs what another computes.*
#
# That is the whole contract: thousands of threads that need not wait for one another. Where they do
# need one another, in a sum over a row for example, it takes thought. Most of this lesson is about
# that thought.
#
# ### What changes, and what does not
#
# | | on the CPU | on a GPU |
# |---|---|---|
# | arrays | NumPy's | CuPy's, in the card's own memory |
# | to get there | | `x.to("cuda")`, `model.to("cuda")`; back with `.cpu()` |
# | tensors of both in one operation | | an error that names them |
# | an operation returns | when it is done | as soon as it stands in the card's queue |
# | random numbers | NumPy's generator | CuPy's: the same seed gives other numbers |
# | order of a sum | always the same | with atomic additions, another one each time: last digits differ |
# | equations, rules, gradient checks, `state_dict` | the same | the same |
#
# A primitive is a function of arrays, and the array says which library computes. So the modules of all earlier
# lessons are moved as they are, without a change in their code.

# %% [markdown]
# ## The equations
#
# ### How long it must take at least
#
# A computation moves $b$ bytes between memory and processor, and does $f$ operations on them. A card
# has a **bandwidth** of $B$ bytes a second and a **rate** of $R$ operations a second. Moving takes at
# least $b / B$, computing at least $f / R$, and at best the two overlap completely:
#
# $$t \ge \max\left(\frac{b}{B},\ \frac{f}{R}\right)$$
#
# Divide $f$ by this, to see how many operations a second are possible at most. With the **intensity**
# $I = f / b$, operations for each byte,
#
# $$\frac{f}{t} \le \min\left(\frac{f B}{b},\ R\right) = \min(I B,\ R)$$
#
# Over $I$, in logarithms, that is a slope and a flat top: a **roofline**. The two meet at $I = R / B$.
# Left of it a computation is bound by memory, and more operations cost nothing; right of it, by
# arithmetic.
#
# - $y = \max(x, 0)$ in float32, $n$ numbers: $b = 8n$ (4 bytes read, 4 written), $f = n$, so $I = 1/8$.
# - A product of two $n \times n$ matrices: $f = 2n^3$ (a multiply-add counts two), $b \ge 3 \cdot 4 n^2$,
#   so $I \le n / 6$. For $n = 1000$ that is more than a thousand times as much.
#
# ### A softmax by many threads
#
# Lesson 20 met the keys of a row one by one, and kept their maximum $m$ and their sum $l = \sum_j e^{x_j
# - m}$. Now the numbers of a row are dealt out to threads, each number to one. Thread 1 has met the set $J_1$,
# thread 2 the set $J_2$:
#
# $$m_1 = \max_{j \in J_1} x_j, \quad l_1 = \sum_{j \in J_1} e^{x_j - m_1}, \qquad\text{and}\quad
# m_2,\ l_2 \text{ likewise.}$$
#
# What belongs to both together?
#
# 1. The maximum of all is the larger of the two: $m = \max(m_1, m_2)$.
# 2. The sum splits into the two sets:
#    $l = \sum_{j \in J_1} e^{x_j - m} + \sum_{j \in J_2} e^{x_j - m}$.
# 3. In the first, add and subtract $m_1$ in the exponent, and take out the factor without $j$ (rule:
#    $e^{a+b} = e^a e^b$): $\sum_{j \in J_1} e^{x_j - m} = e^{m_1 - m} \sum_{j \in J_1} e^{x_j - m_1} =
#    e^{m_1 - m}\, l_1$.
# 4. The second just so. Together
#
# $$\boxed{\; m = \max(m_1, m_2), \qquad l = e^{m_1 - m}\, l_1 + e^{m_2 - m}\, l_2 \;}$$
#
# The right side does not care which of the two is the first, nor, since it is exact, in which order
# more of them are joined. So pairs may join, then pairs of pairs: a **tree**, of $\log_2 T$ steps for $T$
# threads (we let $T$ be a power of two). A sum alone ($l = l_1 + l_2$) and a maximum alone make the same tree.
#
# The way back of lesson 11, $dx_i = y_i\, (dy_i - \sum_j y_j\, dy_j)$, needs one sum over each row: one
# more tree.

# %% [markdown]
# ### What 16 bits can hold
#
# A floating-point number is a sign, an exponent $e$ and a fraction of $p$ bits:
#
# $$x = \pm\, 2^{e} \left(1 + \frac{k}{2^{p}}\right), \qquad k = 0, 1, \dots, 2^p - 1,\quad
# e_{\min} \le e \le e_{\max}$$
#
# - **Spacing.** From $k$ to $k + 1$ it is $2^{e - p}$: the larger the number, the coarser. Rounding to the
#   nearest errs by at most half of that, a share of at most $2^{-p-1}$ of the number.
# - **Largest**: $e = e_{\max}$, $k = 2^p - 1$ give $2^{e_{\max}} (2 - 2^{-p})$. What lies half a
#   spacing or more beyond becomes infinite.
# - **Smallest.** Below $2^{e_{\min}}$ the exponent can fall no more. There the numbers go on evenly down
#   to 0, with the last spacing, $2^{e_{\min} - p}$ (*subnormal* numbers): fewer and fewer digits.
#   What is at most half of it becomes 0.
#
# | | bits of exponent | $p$ | $e_{\min}, e_{\max}$ | largest | $2^{e_{\min}}$ | smallest | relative error |
# |---|---|---|---|---|---|---|---|
# | float32 | 8 | 23 | -126, 127 | $3.4 \cdot 10^{38}$ | $1.2 \cdot 10^{-38}$ | $1.4 \cdot 10^{-45}$ | $6 \cdot 10^{-8}$ |
# | float16 | 5 | 10 | -14, 15 | 65504 | $6.1 \cdot 10^{-5}$ | $6.0 \cdot 10^{-8}$ | $5 \cdot 10^{-4}$ |
# | bfloat16 | 8 | 7 | -126, 127 | $3.4 \cdot 10^{38}$ | $1.2 \cdot 10^{-38}$ | $9.2 \cdot 10^{-41}$ | $4 \cdot 10^{-3}$ |
#
# float16 has digits but little range, bfloat16 range but few digits. Half the bytes means half the least
# time wherever $b / B$ decides; and newer cards have units that multiply matrices of 16-bit numbers, adding
# up in 32 bits, at many times the rate $R$ of float32.
#
# ### Why a loss is scaled
#
# Gradients are small; float16 loses digits below $6 \cdot 10^{-5}$, and what is at most $3 \cdot
# 10^{-8}$ becomes 0. Multiply the loss by $s$. Every rule is linear in $dy$, so by the chain rule *every*
# gradient becomes $s$ times itself:
#
# $$\frac{\partial (sL)}{\partial w} = s\, \frac{\partial L}{\partial w}$$
#
# Divide by $s$ in float32, before the optimiser's step, and the scale is gone. Let $s = 2^k$. Then the
# scaling itself rounds nothing: $2^k \cdot 2^e (1 + \dots) = 2^{e + k} (1 + \dots)$ has the same
# fraction. So as long as nothing leaves the range, at either end, the sum of two scaled gradients, and the
# product of one with a weight, round to $s$ times what they rounded to before: scaling only *shifts* where
# the gradients lie.
#
# Too large an $s$ makes gradients infinite. Infinity spreads: $\infty \cdot x$ and $\infty + x$ are
# infinite or not a number, so as a rule it arrives at some parameter, where it is easily seen. Then the step is
# left out and $s$ halved. After many good steps $s$ is doubled: so it finds its place by itself
# (**dynamic loss scaling**).
#
# ### Why sums are kept in 32 bits
#
# Above 2048 the spacing of float16 is $2^{11 - 10} = 2$. To 2048 add 1: the result lies between two
# neighbours, and rounding (to the even fraction) falls back to 2048. A running sum of ones stops there.
# So products may be of 16 bits, but what adds them up, in a convolution or a mean, is not.

# %% [markdown]
# ## The code
#
# ### The same program on another device
#
# `simulated_gpu()` puts a strict stand-in for CuPy in its place. It refuses what CuPy refuses, and counts
# what passes between the processor (the *host*) and the card. Its arithmetic is NumPy's; here it need not
# even compute, only count (`run_kernels=False`).

# %%
train, test = digits(), digits(train=False)
images, labels = train[:64]

with simulated_gpu(run_kernels=False) as traffic, np.errstate(all="ignore"):
    mt.manual_seed(0)
    model = se_resnet(widths=(8, 16), blocks=(1, 1), reduction=2).to("float32").to("cuda")
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    x = mt.tensor(images, "float32", device="cuda")
    target = mt.tensor(labels, device="cuda")
    print("the parameters lie on", {p.device for p in model.parameters()})
    try:
        x + mt.tensor(images, "float32")
    except DeviceError as error:
        print(error)

    def step(look=lambda loss: None):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        look(loss)

    step()  # the first makes what the optimiser keeps
    counts = {}
    for name, look in {
        "a step": lambda loss: None,
        "and loss.item()": lambda loss: loss.item(),
        "and its largest gradient": lambda loss: max(
            abs(p.grad).max().item() for p in model.parameters()
        ),
    }.items():
        traffic.reset()
        step(look)
        counts[name] = traffic.to_host, traffic.synchronisations
        print(
            f"{name:25} {traffic.to_host:3} copies to the host, {traffic.synchronisations:3} waits"
        )

assert counts["a step"] == (0, 0) and counts["and loss.item()"] == (1, 1)
assert counts["and its largest gradient"][0] == len(list(model.parameters()))

# %% [markdown]
# A step of a whole network with Squeeze-and-Excitation: nothing comes back. Python runs ahead, and fills
# the card's queue. Every `.item()` stops it until the queue is empty, and then the card stands idle until
# Python has caught up. Once a step does little harm; once for each parameter is another matter. Mind
# the disguises: `float(x)`, `print(x)`, `if x > 0:`, `x.numpy()`, a boolean mask as an index. (Of CuPy's own
# arrays the stand-in refuses `float(x)` and `if x > 0:`, which CuPy allows silently.)
#
# Why it matters shows in a little model. Its times are made up: to put a kernel into the queue takes the
# host one unit of time, to run it takes the card 1.3, and to bring a number back takes half a unit.


# %%
def timeline(kernels, waits):
    """When host and card are busy, as (begin, length); the host waits after the kernels in `waits`."""
    host = card = 0.0
    queueing, running = [], []
    for kernel in range(1, kernels + 1):
        queueing.append((host, 0.95))
        host += 1.0
        card = max(card, host)  # it begins when it is queued, and the one before is done
        running.append((card, 1.25))
        card += 1.3
        if kernel in waits:
            host = card + 0.5
    return queueing, running, card


figure, axes = viz.panels(3, 1, height=4.4)
lasts = []
for ax, (title, waits) in zip(
    axes,
    {
        "no wait": [],
        "a wait after the 12th kernel, as of loss.item()": [12],
        "a wait after every kernel": range(25),
    }.items(),
):
    queueing, running, last = timeline(24, waits)
    ax.broken_barh(queueing, (1.1, 0.8), color=viz.COLOURS[5])
    ax.broken_barh(running, (0.1, 0.8), color=viz.COLOURS[0])
    ax.set(xlim=(0, 70), yticks=[0.5, 1.5], yticklabels=["card", "host"], title=title)
    lasts.append(last)
axes[2].set_xlabel("time, in units of the model")
assert lasts[0] < lasts[1] < 1.1 * lasts[0] and lasts[2] > 2 * lasts[0]
figure

# %% [markdown]
# *Figure 2. The model. Without a wait the host is soon far ahead, and the card always has work. One wait costs
# a small gap. A wait after every kernel makes host and card take turns, and it all takes more than twice as long.*
#
# With a card, the same step is timed by `python -m benchmarks --device cuda`, and `pytest -m gpu` runs all
# tests there. To time something yourself, wait for the queue before you look at the clock:
# `mt.cuda.synchronize()`.

# %% [markdown]
# ### A first kernel, and how memory delivers
#
# Threads of a block run in groups of 32, the **warps**. When a warp loads, all 32 ask at the same time,
# and memory delivers **sectors** of 32 bytes, whole. A sector holds 8 float32 numbers. Whether the
# others of the 8 are of use depends on who asks for what. Two kernels that read 128 numbers each, with 32
# threads:


# %%
def side_by_side(thread, x, y):
    total = 0.0
    for i in range(thread.index, len(x), thread.block_size):
        total += x[i]
    y[thread.index] = total


def a_run_each(thread, x, y):
    total = 0.0
    for i in range(4 * thread.index, 4 * thread.index + 4):
        total += x[i]
    y[thread.index] = total


x = np.arange(128, dtype=np.float32)
firsts = {}
for kernel in side_by_side, a_run_each:
    y = np.zeros(32, np.float32)
    loads = launch(kernel, 1, 32, x, y).of("x")
    firsts[kernel.__name__] = loads.requests[0]
    print(f"{kernel.__name__:13} {loads.reads} numbers, {loads.sectors} sectors in 4 loads")
    assert y.sum() == x.sum()

figure, axes = viz.panels(2, 1, height=4.6)
for ax, (name, request) in zip(axes, firsts.items()):
    for sector in range(16):
        touched = sector in request.sectors
        colour = viz.COLOURS[4] if touched else "#EEEEEE"
        ax.bar(8 * sector + 3.8, 1, width=7.6, color=colour)
    for lane, element in enumerate(sorted(request.elements)):
        ax.plot([2 + 4 * lane, element + 0.4], [4, 1], color=viz.COLOURS[0], linewidth=0.8)
        ax.plot(2 + 4 * lane, 4, "o", color=viz.COLOURS[0], markersize=4)
    ax.set(xlim=(-1, 129), ylim=(-0.3, 4.5), yticks=[0.5, 4], yticklabels=["memory", "threads"])
    ax.set_title(f"{name}: the first load takes {len(request.sectors)} sectors")
    ax.set_xticks([0, 32, 64, 96, 128])
axes[1].set_xlabel("element of x")
assert [len(request.sectors) for request in firsts.values()] == [4, 16]
figure

# %% [markdown]
# *Figure 3. The first load of the warp. Above, 32 threads ask for 32 neighbours: 4 sectors, and all in them
# is used. Below, each thread begins a run of its own: 16 sectors, of which a quarter is used. The rest
# is asked for again by the next loads, and comes again unless a cache has kept it.*
#
# So let neighbouring threads touch neighbouring elements (**coalesced** loads). The simulator counts as if
# there were no cache, and as if an array began at the start of a sector.
#
# ### A race
#
# All threads add into one number. `y[0] += v` is a read and a write, and another thread may come between
# the two. On a card the result is then wrong, or right by luck. The simulator remembers who touched what:


# %%
def sum_of_all(thread, x, y):
    y[0] += x[thread.index]


def sum_of_all_atomic(thread, x, y):
    thread.atomic_add(y, 0, x[thread.index])


try:
    launch(sum_of_all, 1, 32, x, np.zeros(1, np.float32))
except RaceError as error:
    print(type(error).__name__ + ":", error)

y = np.zeros(1, np.float32)
launch(sum_of_all_atomic, 4, 32, x[:32], y)
print("by atomic additions, from 4 blocks:", y[0] == 4 * x[:32].sum())

# %% [markdown]
# An **atomic** addition cannot be interrupted. It is right in every order; but all threads queue for one
# number, and floating-point sums in another order differ in the last digits. Where it can be had,
# *gathering* is better: let the thread of an output fetch all its shares, instead of each share's thread
# bringing it. The library's backward pass of pooling does so.

# %% [markdown]
# ### Softmax, first version: a thread for each row
#
# One thread does what the softmax of lesson 11 does: a pass for the maximum, one for the sum, one that
# divides. Nothing can go wrong, for no thread needs another.


# %%
def softmax_by_rows(thread, x, y):
    """x, y (N, D): thread n takes row n."""
    n = thread.block * thread.block_size + thread.index
    if n >= x.shape[0]:
        return
    columns = range(x.shape[1])
    m = max(x[n, j] for j in columns)
    l = sum(np.exp(x[n, j] - m) for j in columns)
    for j in columns:
        y[n, j] = np.exp(x[n, j] - m) / l


def run_softmax(kernel, x, blocks, block_size, seed=0):
    y = np.zeros_like(x)
    return y, launch(kernel, blocks, block_size, x, y, seed=seed)


rng = np.random.default_rng(0)
x = (3 * rng.normal(size=(32, 64))).astype(np.float32)
right = F.softmax(mt.tensor(x), dim=1).numpy()
y, by_rows = run_softmax(softmax_by_rows, x, 1, 32)
print("equal to F.softmax:", np.allclose(y, right, atol=1e-6))
print(by_rows)

# %% [markdown]
# Each number is read three times. And in every load, the 32 threads of the warp read one column: 32
# numbers that lie a whole row apart, in 32 sectors.
#
# ### Second version: a block for each row, and a tree
#
# The threads of a block take columns side by side, and put what they found into **shared memory**, which
# belongs to the block and is quick. Then the tree: half of the threads join with the other half, then
# a quarter with a quarter. Between two steps everybody must have finished the one before: a **barrier**,
# which the simulator calls `yield` (CUDA: `__syncthreads()`).


# %%
def tree(thread, part, join):
    """Joins the elements of `part`, one of each thread (2, 4, 8, ... of them); all get the result."""
    apart = thread.block_size // 2
    while apart:
        yield
        if thread.index < apart:
            part[thread.index] = join(part[thread.index], part[thread.index + apart])
        apart //= 2
    yield
    result = part[0]
    yield  # nobody may overwrite it before all have read it
    return result


def softmax_by_blocks(thread, x, y):
    """x, y (N, D): block n takes row n."""
    n, columns = thread.block, range(thread.index, x.shape[1], thread.block_size)
    part = thread.shared("part", thread.block_size)
    part[thread.index] = max((x[n, j] for j in columns), default=-np.inf)
    m = yield from tree(thread, part, max)
    part[thread.index] = sum(np.exp(x[n, j] - m) for j in columns)
    l = yield from tree(thread, part, lambda a, b: a + b)
    for j in columns:
        y[n, j] = np.exp(x[n, j] - m) / l


y, by_blocks = run_softmax(softmax_by_blocks, x, 32, 32)
print("equal to F.softmax:", np.allclose(y, right, atol=1e-6))
print(by_blocks)
in_any_order = [run_softmax(softmax_by_blocks, x, 32, 32, seed)[0] for seed in (1, 2)]
print("in other orders:", all((other == y).all() for other in in_any_order))

# %% [markdown]
# As many numbers are read, but from an eighth of the sectors. What if we forget a barrier, say the last
# one of the tree? A quick thread could write its part of the sum where a slow one has not yet read the
# maximum:


# %%
def hasty_tree(thread, part, join):
    apart = thread.block_size // 2
    while apart:
        yield
        if thread.index < apart:
            part[thread.index] = join(part[thread.index], part[thread.index + apart])
        apart //= 2
    yield
    return part[0]


def hasty(thread, x, y):
    part = thread.shared("part", thread.block_size)
    part[thread.index] = x[thread.block, thread.index]
    m = yield from hasty_tree(thread, part, max)
    part[thread.index] = np.exp(x[thread.block, thread.index] - m)
    y[thread.block, thread.index] = part[thread.index]


try:
    run_softmax(hasty, x[:, :32].copy(), 32, 32)
except RaceError as error:
    print(type(error).__name__ + ":", error)

# %% [markdown]
# ### Third version: maximum and sum in one pass
#
# Now the equations in the box. Each thread keeps its own $m$ and $l$ while it goes through its columns,
# once. One tree joins the pairs; a second pass writes.


# %%
def joined(m1, l1, m2, l2):
    """Maxima and sums of two sets -> of both together."""
    m = max(m1, m2)
    if m == -np.inf:
        return m, 0.0  # neither has met a number
    return m, np.exp(m1 - m) * l1 + np.exp(m2 - m) * l2


def softmax_in_one_pass(thread, x, y):
    """x, y (N, D): block n takes row n, and reads it twice."""
    n, columns = thread.block, range(thread.index, x.shape[1], thread.block_size)
    maxima = thread.shared("maxima", thread.block_size)
    sums = thread.shared("sums", thread.block_size)
    m, l = -np.inf, 0.0
    for j in columns:
        m, l = joined(m, l, x[n, j], 1.0)  # one number: its maximum is itself, its sum 1
    maxima[thread.index], sums[thread.index] = m, l
    apart = thread.block_size // 2
    while apart:
        yield
        if thread.index < apart:
            there = thread.index + apart
            m, l = joined(m, l, maxima[there], sums[there])
            maxima[thread.index], sums[thread.index] = m, l
        apart //= 2
    yield
    m, l = maxima[0], sums[0]
    for j in columns:
        y[n, j] = np.exp(x[n, j] - m) / l


y, one_pass = run_softmax(softmax_in_one_pass, x, 32, 32)
print("equal to F.softmax:", np.allclose(y, right, atol=1e-6))
odd = (3 * rng.normal(size=(5, 21))).astype(np.float32)
y, _ = run_softmax(softmax_in_one_pass, odd, 5, 8)
print(
    "rows of 21, blocks of 8:", np.allclose(y, F.softmax(mt.tensor(odd), dim=1).numpy(), atol=1e-6)
)
print(one_pass)

# %%
versions = {
    "a thread\nfor each row": by_rows,
    "a block\nfor each row": by_blocks,
    "maximum and sum\nin one pass": one_pass,
}
figure, axes = viz.panels(1, 3, height=3.6)
places = np.arange(3)
reads = np.array([tally.reads for tally in versions.values()]) / x.size
writes = np.array([tally.writes for tally in versions.values()]) / x.size
sectors = np.array([tally.sectors for tally in versions.values()])
barriers = np.array([tally.barriers for tally in versions.values()]) / len(x)
axes[0].bar(places, reads, color=viz.COLOURS[0], label="read")
axes[0].bar(places, writes, bottom=reads, color=viz.COLOURS[1], label="written")
axes[0].set_title("times that each number\nis moved")
axes[0].legend(loc="upper right", frameon=False)
axes[0].set_ylim(0, 6)
axes[1].bar(places, sectors, color=viz.COLOURS[4])
axes[1].set_title("sectors of 32 bytes")
axes[2].bar(places, barriers, color=viz.COLOURS[2])
axes[2].set_title("barriers of a block")
for ax in axes:
    ax.set_xticks(places, ["row", "block", "one pass"])
assert reads.tolist() == [3, 3, 2] and (writes == 1).all()
assert sectors[0] == 8 * sectors[1] and 3 * sectors[1] == 4 * sectors[2]
assert barriers[2] < barriers[1]
figure

# %% [markdown]
# *Figure 4. Three versions of one softmax, 32 rows of 64 float32 numbers. The first reads as many numbers
# as the second, but in eight times as many sectors. The third reads each number twice instead of three
# times, and needs fewer than half as many barriers.*
#
# A softmax does few operations for each byte. It is bound by memory, so it is such counts that its least
# time hangs on.
#
# ### The same in CUDA C++
#
# The third version again, as a card takes it. `T` is the type of the numbers in memory, `acc_t` that in
# which sums are kept; `Kernel` puts both in when it is launched, and CuPy compiles it then.

# %%
SOFTMAX_ROWS = Kernel(
    "softmax_rows",
    r"""
__device__ void join(acc_t& m, acc_t& l, acc_t m2, acc_t l2) {
    acc_t most = m > m2 ? m : m2;
    l = exp(m - most) * l + exp(m2 - most) * l2;
    m = most;
}

extern "C" __global__ void softmax_rows(const T* x, T* y, long long D) {
    __shared__ acc_t maxima[256], sums[256];  // thread.shared(...)
    x += blockIdx.x * D;                      // thread.block
    y += blockIdx.x * D;
    acc_t m = -1e30, l = 0;
    for (long long j = threadIdx.x; j < D; j += blockDim.x) join(m, l, x[j], 1);
    maxima[threadIdx.x] = m;
    sums[threadIdx.x] = l;
    for (int apart = blockDim.x / 2; apart; apart /= 2) {
        __syncthreads();  // yield
        if (threadIdx.x < apart) {
            join(m, l, maxima[threadIdx.x + apart], sums[threadIdx.x + apart]);
            maxima[threadIdx.x] = m;
            sums[threadIdx.x] = l;
        }
    }
    __syncthreads();
    for (long long j = threadIdx.x; j < D; j += blockDim.x)
        y[j] = T(exp(acc_t(x[j]) - maxima[0]) / sums[0]);
}
""",
)

if mt.cuda.is_available():
    on_card = mt.tensor(x, device="cuda")
    y = mt.tensor(np.zeros_like(x), device="cuda")
    SOFTMAX_ROWS(len(x), 256, on_card.data, y.data, x.shape[1], T=x.dtype)
    assert np.allclose(y.cpu().numpy(), right, atol=1e-6)
print("compared with F.softmax on a card, where there is one")

# %% [markdown]
# Line by line it is the Python above. (It starts from $-10^{30}$ rather than $-\infty$, since $\infty -
# \infty$ is no number.) The library's own, in `ops/activation.py` and `ops/lines.py`, also reads a row
# twice. It takes lines along any axis, and inside of a warp it joins without shared memory: a thread can
# read another's register there (`__shfl_xor_sync`), and no barrier is needed.

# %% [markdown]
# ### Reading once what many need
#
# In a product of two $n \times n$ matrices, each output reads a row and a column: $2n$ numbers, and
# $2n^3$ in all. But a block of 8 x 8 outputs needs only 8 rows and 8 columns. Let its threads load them
# together, tile by tile, into shared memory:


# %%
def plain_product(thread, a, b, y):
    """y = a b, all (n, n): a thread for each output, 64 of them a block."""
    n = len(a)
    row, column = divmod(thread.block * thread.block_size + thread.index, n)
    y[row, column] = sum(a[row, k] * b[k, column] for k in range(n))


def tiled_product(thread, a, b, y):
    """The same: block of 8 x 8 outputs, tiles of 8 x 8 in shared memory."""
    n, (i, j) = len(a), divmod(thread.index, 8)
    top, left = (8 * place for place in divmod(thread.block, n // 8))
    tile_a, tile_b = thread.shared("tile_a", (8, 8)), thread.shared("tile_b", (8, 8))
    total = 0.0
    for start in range(0, n, 8):
        tile_a[i, j] = a[top + i, start + j]
        tile_b[i, j] = b[start + i, left + j]
        yield
        total += sum(tile_a[i, k] * tile_b[k, j] for k in range(8))
        yield
    y[top + i, left + j] = total


a, b = rng.normal(size=(2, 16, 16))
for kernel in plain_product, tiled_product:
    y = np.zeros((16, 16))
    tally = launch(kernel, 4, 64, a, b, y)
    print(f"{kernel.__name__:13} right: {np.allclose(y, a @ b)}, {tally.reads:5} numbers read")
assert tally.reads == 2 * 16**3 // 8

# %% [markdown]
# An eighth, for blocks of 8 x 8 outputs; for 128 x 128, where each thread takes several outputs, it is a
# 128th. This is how a product comes near its intensity of $n / 6$. (Why the second barrier? Someone might still
# be reading the tile while others already load the next.)
#
# ### Fused: several operations, one kernel
#
# The activation $y = x\, \sigma(1.702\, x)$ is a chain of three operations. One after the other, each
# reads its input from memory and writes its output back. In one kernel, what lies between stays in
# registers.


# %%
def everywhere(thread):
    return thread.block * thread.block_size + thread.index


def times_1_702(thread, x, a):
    a[everywhere(thread)] = np.float32(1.702) * x[everywhere(thread)]


def sigmoid(thread, a, s):
    s[everywhere(thread)] = 1 / (1 + np.exp(-a[everywhere(thread)]))


def times(thread, x, s, y):
    y[everywhere(thread)] = x[everywhere(thread)] * s[everywhere(thread)]


def fused(thread, x, y):
    v = x[everywhere(thread)]
    y[everywhere(thread)] = v / (1 + np.exp(-np.float32(1.702) * v))


v = rng.normal(size=1024).astype(np.float32)
a, s, y, z = (np.zeros_like(v) for _ in range(4))
chain = [
    launch(times_1_702, 4, 256, v, a),
    launch(sigmoid, 4, 256, a, s),
    launch(times, 4, 256, v, s, y),
]
one = launch(fused, 4, 256, v, z)
moved = sum(tally.bytes for tally in chain), one.bytes
print(f"three kernels: {moved[0] // v.size} bytes a number; one kernel: {moved[1] // v.size}")
assert np.allclose(y, z) and moved == (28 * v.size, 8 * v.size)

# %% [markdown]
# 28 bytes or 8: such a chain is bound by memory, so (for arrays too large to stay in a cache) its least time
# differs by a factor of 3.5, whatever the card. It is why the library has kernels of its own for an
# optimiser's step, a batch normalisation or a softmax.

# %% [markdown]
# ### Where the time goes
#
# Let us count a training step of an SE-ResNet, on 64 pictures of 32 x 32 pixels in float32. An *inspector* is
# shown each operation of the engine with its inputs and its output, and each rule with its gradients. It
# counts:
#
# - **bytes**: an operation reads its inputs and writes its output, each once. On the way back a product
#   has a rule for each factor, which reads $dy$ and the other factor and writes $dx$. Of all else, one kernel
#   reads $dy$ and the inputs once, and writes all $dx$. A view, or a $dy$ passed on, costs nothing.
# - **operations**: two for each multiply-add of a product; for all else one for each number that is
#   read or written, which is roughly right and, as we shall see, does not matter.
#
# It also looks at the clock, which gives a profile of *this* computer.


# %%
class Profile(Inspector):
    """Bytes, operations and seconds of every kind of operation, forward and backward."""

    def __init__(self):
        super().__init__()
        self.bytes, self.flops, self.seconds = Counter(), Counter(), Counter()
        self.given = {}  # of each node of the graph: bytes of its inputs, and its products
        self.unread = {}  # of each node: what its rules read together
        self.calls = []
        self.clock = time.perf_counter()

    def note(self, kind, bytes, products):
        self.bytes[kind] += bytes
        operations = 2 * products if products else bytes // 4
        self.flops[kind] += operations
        if bytes:
            self.calls.append((kind, operations, operations / bytes))
        now = time.perf_counter()
        self.seconds[kind] += now - self.clock
        self.clock = now

    def after_op(self, op, output, inputs, settings):
        y, arrays = output.data, [x for x in inputs if isinstance(x, np.ndarray)]
        products = multiply_adds(op, y, inputs, settings)
        read = sum(x.nbytes for x in arrays)
        if output._node is not None:
            self.given[output._node] = read, products
            self.unread[output._node] = read + y.nbytes
        view = any(np.may_share_memory(x, y) for x in arrays)
        self.note(op, 0 if view else read + y.nbytes, products)

    def after_rule(self, node, dx, dy):
        given, products = self.given[node]
        if np.may_share_memory(dx, dy):
            bytes = 0  # passed on
        elif products and dx.ndim > 1:  # a factor; a vector is a bias
            bytes = dy.nbytes + given  # without the factor itself, but with dx, which is as large
        else:
            bytes, products = self.unread.pop(node, 0) + dx.nbytes, 0
        self.note(f"{node.name}, backward", bytes, products)


mt.manual_seed(0)
model = se_resnet(10, in_channels=3).to("float32")
crops = photograph("china")[:, :256, :256].reshape(3, 8, 32, 8, 32).transpose(1, 3, 0, 2, 4)
x = mt.tensor(crops.reshape(64, 3, 32, 32), "float32")
target = mt.tensor(np.arange(64) % 10)
F.cross_entropy(model(x), target).backward()  # a first step, which is not counted
with inspecting(Profile()) as profile:
    F.cross_entropy(model(x), target).backward()

moved = sum(profile.bytes.values())
products = sum(f for kind, f in profile.flops.items() if kind.startswith(("conv2d", "linear")))
print(f"{moved / 1e6:.0f} MB moved, {sum(profile.flops.values()) / 1e9:.1f} billion operations,")
print(f"{100 * products / sum(profile.flops.values()):.0f} % of these in products")

# %% [markdown]
# And a card? We take the two numbers of one from its data sheet, NVIDIA's A100 with 40 GB: $B =
# 1555$ GB/s, $R = 19.5 \cdot 10^{12}$ operations a second in float32. **What follows is arithmetic with
# these two numbers, not a measurement**: the least time that each operation could take.

# %%
B, R = 1555e9, 19.5e12  # from the data sheet
least = {kind: max(profile.bytes[kind] / B, profile.flops[kind] / R) for kind in profile.bytes}
ranked = sorted(least, key=least.get, reverse=True)[:9][::-1]
figure, axes = viz.panels(1, 2, height=4.4)
for ax, times, title in (
    (axes[0], least, "a card, by arithmetic"),
    (axes[1], profile.seconds, "this computer, measured"),
):
    share = [100 * times[kind] / sum(times.values()) for kind in ranked]
    bound = [profile.bytes[kind] / B > profile.flops[kind] / R for kind in ranked]
    colours = [viz.COLOURS[0] if memory else viz.COLOURS[1] for memory in bound]
    ax.barh(range(len(ranked)), share, color=colours if ax is axes[0] else "#999999")
    ax.set(title=title, xlabel="share of the step, %")
axes[0].set_yticks(range(len(ranked)), ranked)
axes[1].set_yticks([])
for place, words in enumerate(("bound by memory", "bound by arithmetic")):
    axes[0].plot([], [], "s", color=viz.COLOURS[place], label=words)
axes[0].legend(loc="lower right", frameon=False)
by_products = sum(t for kind, t in least.items() if kind.startswith("conv2d"))
share = 100 * by_products / sum(least.values())
print(f"convolutions: {share:.0f} % of the least time on a card")
assert 40 < share < 70 and products > 0.95 * sum(profile.flops.values())
figure

# %% [markdown]
# *Figure 5. Left, the shares of the step's least time on a card, by the formula: arithmetic, not measured.
# Right, the shares that were measured on the processor that ran this page (they differ from computer to
# computer).*
#
# Nearly all operations are in the convolutions, but only a good half of the least time: batch normalisation, ReLU
# and additions compute next to nothing, and move much. Here is every single call under the roof:

# %%
figure, ax = viz.panels(1, 1, width=7.0, height=4.4)
intensity = np.logspace(-1.5, 3, 200)
ax.loglog(intensity, np.minimum(intensity * B, R), color="black")
ax.axvline(R / B, color="#999999", linewidth=1, linestyle=":")
ax.text(R / B * 1.1, 3e10, f"R / B = {R / B:.1f}\noperations a byte", color="#666666", size=10)
kinds = {
    "convolutions": [call for call in profile.calls if call[0].startswith("conv2d")],
    "linear layers": [call for call in profile.calls if call[0].startswith("linear")],
    "all others": [call for call in profile.calls if not call[0].startswith(("conv2d", "linear"))],
}
for colour, mark, (name, calls) in zip(viz.COLOURS[1:], "osD", kinds.items()):
    at = np.array([intensity for _, _, intensity in calls])
    ax.plot(
        at, np.minimum(at * B, R), mark, color=colour, alpha=0.6, label=f"{name} ({len(calls)})"
    )
ax.legend(loc="upper left", frameon=False)
ax.set(
    xlabel="intensity, operations a byte", ylabel="operations a second at most", ylim=(2e10, 5e13)
)
ax.grid(True)
lowest = {name: min(call[2] for call in calls) for name, calls in kinds.items()}
highest = {name: max(call[2] for call in calls) for name, calls in kinds.items()}
assert highest["all others"] < 1 and highest["convolutions"] > R / B > lowest["convolutions"]
figure

# %% [markdown]
# *Figure 6. A roofline with the data sheet's two numbers; each mark is one call, put on the roof at its
# intensity. (That all others lie in one place is because we count one operation for each number moved.)
# Only convolutions reach the flat top, and not all of them: those with few channels, or with kernels of a single
# pixel, do not.*
#
# Two ways lead to a shorter time: move fewer bytes (fuse; use 16 bits), or, for what lies under the flat top,
# raise the roof (the units for matrices of 16 bits: for them the data sheet says $312 \cdot 10^{12}$). Mixed
# precision does both.

# %% [markdown]
# ### Rounding to 16 bits
#
# To round by hand: find the exponent of $x$, from it the spacing, and take the nearest multiple. `frexp`
# gives the exponent (of a fraction between 1/2 and 1, so one more than ours).


# %%
def rounded(x, p, smallest, largest):
    """x to the nearest number of a format: p bits of fraction, spacing of at least `smallest`."""
    _, exponent = np.frexp(x)
    spacing = np.ldexp(1.0, np.maximum(exponent - 1 - p, smallest))
    y = np.rint(x / spacing) * spacing
    return np.where(np.abs(y) > largest, np.copysign(np.inf, x), y)


def float16(x):
    return rounded(x, p=10, smallest=-24, largest=65504)


def bfloat16(x):
    return rounded(x, p=7, smallest=-133, largest=(2 - 2**-7) * 2.0**127)


def as_it_is(x):
    return x


many = rng.normal(size=10000) * 10.0 ** rng.uniform(-9, 6, size=10000)
with np.errstate(over="ignore"):
    print("as NumPy rounds to float16:", (float16(many) == many.astype(np.float16)).all())
print("2048 + 1 =", float16(np.array(2049.0)), " 1e-8 =", float16(np.array(1e-8)))
gradient = float16(1e-3 * rng.normal(size=1000))
for s in 1024, 1000:
    there_and_back = float16(float16(s * gradient) / s)
    print(f"times {s} and back: {(there_and_back == gradient).mean():.0%} unchanged")
print("0.1 =", float16(np.array(0.1)), "or, in bfloat16,", bfloat16(np.array(0.1)))

# %%
figure, axes = viz.panels(1, 2, height=3.8)
exponents = np.arange(-40, 40)
for colour, (name, p, lowest, highest) in zip(
    viz.COLOURS, (("float32", 23, -149, 127), ("float16", 10, -24, 15), ("bfloat16", 7, -133, 127))
):
    inside = exponents[exponents <= highest]
    axes[0].plot(inside, np.maximum(inside - p, lowest), color=colour, label=name)
axes[0].set(xlabel="number, as a power of 2", ylabel="spacing, as a power of 2")
axes[0].legend(frameon=False)
axes[0].grid(True)

terms = rng.uniform(size=6000)
exact, terms = np.cumsum(terms), terms.astype(np.float16)
in_single, in_half = (np.cumsum(terms, dtype=dtype) for dtype in (np.float32, np.float16))
axes[1].plot(in_single, color=viz.COLOURS[0], label="summed in float32")
axes[1].plot(in_half, color=viz.COLOURS[1], label="summed in float16")
assert np.allclose(in_single, exact, rtol=1e-3)
axes[1].set(xlabel="numbers added", ylabel="sum")
axes[1].legend(frameon=False)
axes[1].grid(True)
assert in_half[-1] == 2048 and in_single[-1] > 2900
figure

# %% [markdown]
# *Figure 7. Left, the distance from one number to the next. float16 ends on the right at 65504; on the
# left its spacing stops falling at $2^{-24}$, and below there is nothing. Right, 6000 numbers of float16 between 0
# and 1, added one by one: in float32 the sum is right to a thousandth, in float16 it stops at 2048.*
#
# And the 1000 gradients, scaled and scaled back: a power of two leaves each as it was; 1000 does not
# leave all.

# %% [markdown]
# ### In the library
#
# `mt.autocast` decides for each operation: products take 16 bits; softmax, losses, sums and the like take
# float32; everything else takes what comes. The parameters stay in float32 (the *master* copy), and
# are cast where they are used. `GradScaler` scales the loss, divides the gradients and moves the scale.


# %%
class DTypes(Inspector):
    """The dtype of every operation's result."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def after_op(self, op, output, inputs, settings):
        self.seen[op] = str(output.dtype)


mt.manual_seed(0)
model = se_resnet(widths=(8, 16), blocks=(1, 1), reduction=2).to("float32")
optimizer = optim.Adam(model.parameters(), lr=5e-3)
scaler = mt.amp.GradScaler(init_scale=2.0**24)
x, target = mt.tensor(images, "float32"), mt.tensor(labels)
with inspecting(DTypes()) as dtypes, mt.autocast("float16"):
    F.cross_entropy(model(x), target)
print({op: dtypes.seen[op] for op in ("conv2d", "relu", "linear", "cross_entropy")})
assert {p.dtype for p in model.parameters()} == {np.dtype("float32")}

scales = []
for _ in range(20):
    with mt.autocast("float16"):
        loss = F.cross_entropy(model(x), target)
    optimizer.zero_grad()
    with np.errstate(over="ignore", invalid="ignore"):
        scaler.scale(loss).backward()
        scaler.step(optimizer)
    scaler.update()
    scales.append(scaler.get_scale())
print("the scale fell at first, and then stayed:", 2.0**24 > scales[8] == scales[-1])
assert scales == sorted(scales, reverse=True)

# %% [markdown]
# ## The gradient check
#
# The kernels get a gradient check as every rule does: the way back of the softmax is a kernel too. The check of
# lesson 03 divides a small difference by a small step. In float16 there is nothing left to divide.
# Here is its error against the right gradient, over the step $h$, in three formats:

# %%
weights = rng.normal(size=8)
point = rng.normal(size=8)
y = np.exp(point) / np.exp(point).sum()
right = y * (weights - (weights * y).sum())


def measured_error(dtype, h):
    """Largest error of central differences of sum(weights * softmax(x)), computed in a dtype."""
    w, x = weights.astype(dtype), point.astype(dtype)
    slopes = []
    for i in range(8):
        values = []
        for sign in (1, -1):
            moved = x.copy()
            moved[i] += dtype(sign * h)
            e = np.exp(moved - moved.max())
            values.append((w * (e / e.sum(dtype=dtype))).sum(dtype=dtype))
        slopes.append(float(values[0] - values[1]) / (2 * h))
    return np.abs(slopes - right).max() / np.abs(right).max()


steps = 2.0 ** -np.arange(1, 26)
errors = {
    dtype.__name__: [measured_error(dtype, h) for h in steps]
    for dtype in (np.float16, np.float32, np.float64)
}
figure, ax = viz.panels(1, 1, width=6.5, height=3.8)
for colour, (name, values) in zip((viz.COLOURS[1], viz.COLOURS[2], viz.COLOURS[0]), errors.items()):
    ax.loglog(steps, values, "o-", color=colour, markersize=4, label=name)
ax.set(xlabel="step h", ylabel="error of the check itself", ylim=(1e-13, 30))
ax.legend(frameon=False)
ax.grid(True)
best = {name: min(values) for name, values in errors.items()}
assert best["float16"] > 1e-3 and best["float32"] < 1e-3 and best["float64"] < 1e-8
figure

# %% [markdown]
# *Figure 8. Too large a step errs by the curve's bend, too small a one by rounding. Even at the best step
# the check errs by more than one part in a thousand in float16; in float64 by less than one in a hundred
# million.*
#
# So a check in float16 could not tell a rule that is wrong by a thousandth from a right one. The way out:
# a kernel's source is written for a type `T`, and compiled for each. *The same lines* run in float64, where the
# check is sharp. What is left for float16 is a comparison with the float64 result, to the format's own
# accuracy. The kernels above are like that: the type is that of the arrays. Now the way back, and
# both as a primitive:


# %%
def softmax_back(thread, y, dy, dx):
    """dx = y (dy - sum of y dy): y, dy, dx (N, D), block n takes row n."""
    n, columns = thread.block, range(thread.index, y.shape[1], thread.block_size)
    part = thread.shared("part", thread.block_size)
    part[thread.index] = sum(y[n, j] * dy[n, j] for j in columns)
    total = yield from tree(thread, part, lambda a, b: a + b)
    for j in columns:
        dx[n, j] = y[n, j] * (dy[n, j] - total)


def softmax_by_threads(x, back=softmax_back):
    """x (N, D) -> softmax of the rows, in blocks of 8 threads; and its rule."""
    y = np.zeros_like(x)
    launch(softmax_in_one_pass, len(x), 8, x, y)

    def vjp_x(dy):
        dx = np.zeros_like(x)
        launch(back, len(x), 8, y, np.ascontiguousarray(dy), dx)
        return dx

    return y, vjp_x


x = rng.normal(size=(4, 11))
report = mt.check_vjp(softmax_by_threads, x)
print(report)
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 9. The kernels' gradient, the measured one, and the error: dark throughout. Rows of 11 and blocks of
# 8: three threads have two columns, five have one.*
#
# The mistake that is most often made in such a kernel: each thread adds only its *first* column to the
# sum, which is right as long as no row is longer than a block.


# %%
def first_columns_only(thread, y, dy, dx):
    n, columns = thread.block, range(thread.index, y.shape[1], thread.block_size)
    part = thread.shared("part", thread.block_size)
    part[thread.index] = y[n, thread.index] * dy[n, thread.index]
    total = yield from tree(thread, part, lambda a, b: a + b)
    for j in columns:
        dx[n, j] = y[n, j] * (dy[n, j] - total)


def with_first_columns(x):
    return softmax_by_threads(x, first_columns_only)


wrong = mt.check_vjp(with_first_columns, x, raise_on_failure=False)
short = mt.check_vjp(with_first_columns, x[:, :8].copy())
assert not wrong.ok and short.ok
off = wrong.inputs[0].error / F.softmax(mt.tensor(x), dim=1).numpy()
assert (np.ptp(off, axis=1) < 1e-6).all()  # of each row a multiple of y
print(wrong)
print("with rows of 8:", "passed" if short.ok else "failed")
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 10. In every row the error is a multiple of $y$, so it shows where $y$ is large. That betrays what is
# wrong: the one number that multiplies $y$ in the whole row, the sum. And with rows of 8, the block size, all is
# well. Test a kernel with sizes that nothing divides.*

# %% [markdown]
# ## At work
#
# ### A network stored in 16 bits
#
# A small convolutional network learns the digits. We want to see what the 16 bits do, and nothing else;
# so everything is computed in float64 and then **rounded, where mixed precision would store it**: each
# layer's output on the way forward, each gradient on the way back, each weight when it is used, each
# weight's gradient. The weights themselves are kept exactly (the master copy), as is everything inside of a
# layer (the accumulation).


# %%
@primitive
def stored(x, *, rounding, watch=None):
    """x as a format holds it; on the way back, its gradient as the format holds that."""

    def vjp_x(dy):
        if watch is not None:
            watch(dy.ravel())
        return rounding(dy)

    return rounding(x), vjp_x


def train_stored(rounding, seed, scale=1.0, steps=80, adapt=False, watch=None):
    """Accuracy in % on unseen digits, and the scale after each step; scale is that of the loss."""
    mt.manual_seed(seed)
    draw = np.random.default_rng(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    for layer in model:
        layer.register_forward_hook(lambda m, i, y: stored(y, rounding=rounding, watch=watch))
    used = list(model.parameters())
    masters = [mt.tensor(p.numpy(), requires_grad=True) for p in used]
    optimizer = optim.Adam(masters, lr=5e-3)
    scales, row = [], 0
    for _ in range(steps):
        chosen = draw.integers(len(train), size=64)
        with mt.no_grad():
            for p, master in zip(used, masters):
                p.copy_(rounding(master.numpy()))
        x, target = train[chosen]
        model.zero_grad()
        with np.errstate(over="ignore", invalid="ignore"):
            (scale * F.cross_entropy(model(mt.tensor(x)), mt.tensor(target))).backward()
            gradients = [rounding(p.grad.numpy()) / scale for p in used]
        good = all(np.isfinite(g).all() for g in gradients)
        if good:
            for master, g in zip(masters, gradients):
                master.grad = mt.tensor(g)
            optimizer.step()
        if adapt:  # halve after an overflow, double after four good steps in a row
            row = row + 1 if good else 0
            if not good or row == 4:
                scale, row = (2 * scale if good else scale / 2), 0
        scales.append(scale)
    with mt.no_grad():
        for p, master in zip(used, masters):
            p.copy_(rounding(master.numpy()))
        x, target = test[:]
        hits = model(mt.tensor(x)).numpy().argmax(axis=1) == target
    return 100 * hits.mean(), scales


SEEDS = 0, 1, 2
exact = [train_stored(as_it_is, seed)[0] for seed in SEEDS]
half = [train_stored(float16, seed)[0] for seed in SEEDS]
brain = [train_stored(bfloat16, seed)[0] for seed in SEEDS]
for name, runs in {"float64": exact, "float16": half, "bfloat16": brain}.items():
    print(f"{name:9}", "  ".join(f"{run:.1f} %" for run in runs))
assert np.abs(np.subtract(half, exact)).max() < 1 and np.abs(np.subtract(brain, exact)).max() < 1

# %% [markdown]
# Rounded to 10 or to 7 bits of fraction, the accuracies stay within one percentage point of the exact ones, on
# each seed, and **without** any scaling. So is scaling needless? Where do the gradients lie?

# %%
seen = []
train_stored(as_it_is, 0, watch=seen.append)
sizes = np.abs(np.concatenate(seen[-6 * 20 :]))  # of the last 20 steps, at all six layers
powers = np.log2(sizes[sizes > 0])
figure, ax = viz.panels(1, 1, height=3.6)
ax.hist(powers, bins=np.arange(-44, 2), color=viz.COLOURS[0])
ax.axvspan(-46, -25, color=viz.COLOURS[1], alpha=0.15, linewidth=0)
ax.axvspan(-25, -14, color=viz.COLOURS[4], alpha=0.15, linewidth=0)
ax.axvline(16, color=viz.COLOURS[1])
top = ax.get_ylim()[1]
ax.text(-35, 0.9 * top, "becomes 0", ha="center")
ax.text(-19.5, 0.9 * top, "loses digits", ha="center")
ax.text(1, 0.9 * top, "all digits", ha="center")
ax.text(15.5, 0.6 * top, "infinite from here", ha="right")
ax.set(xlabel="size of a gradient, as a power of 2", ylabel="how many", xlim=(-46, 18), yticks=[])
lost, few = (powers <= -25).mean(), ((powers > -25) & (powers < -14)).mean()
print(
    f"{100 * lost:.0f} % become 0, {100 * few:.0f} % lose digits; room above: 2 to the {16 - powers.max():.0f}"
)
assert lost < 0.01 and 0.2 < few < 0.35 and powers.max() < 0
assert 1 / 3 < (powers <= -13).mean() < 1 / 2  # what 12 less would make 0
figure

# %% [markdown]
# *Figure 11. The gradients at the layers of the network, at the end of its training, in the range of
# float16; those that are 0 anyway, behind a ReLU, are left out. They lie at its left edge, and most of the
# range is empty.*
#
# Hardly any is lost, and about a quarter loses digits, the smallest ones, which matter least. But this network
# is shallow, and its loss is a mean over 64 pictures only. A loss that is a mean over the pixels of large
# images has gradients that are thousands of times smaller. We can try that: a loss that is multiplied by
# $2^{-12}$ shifts the picture by 12 to the left. And $2^{12}$ shifts it to the right. (The step of the
# optimiser is the same each time: the gradients are divided by the factor again.)

# %%
POWERS = {"float16": (-20, -16, -12, -6, 6, 12, 16, 20, 24), "bfloat16": (-20, 24)}
accuracy = {"float16": {0: half}, "bfloat16": {0: brain}}
for (name, runs), rounding in zip(accuracy.items(), (float16, bfloat16)):
    for k in POWERS[name]:
        runs[k] = [train_stored(rounding, seed, 2.0**k)[0] for seed in SEEDS]
figure, ax = viz.panels(1, 1, height=3.8)
for colour, (name, by_scale) in zip((viz.COLOURS[1], viz.COLOURS[0]), accuracy.items()):
    scales = sorted(by_scale)
    runs = np.array([by_scale[k] for k in scales])
    ax.fill_between(
        scales, runs.min(axis=1), runs.max(axis=1), color=colour, alpha=0.2, linewidth=0
    )
    ax.plot(scales, runs.mean(axis=1), "o-", color=colour, label=name)
ax.axhline(np.mean(exact), color="black", linewidth=1, linestyle=":")
ax.text(-20, np.mean(exact) + 1.5, "not rounded", size=10)
ax.set(
    xlabel="scale of the loss, as a power of 2",
    ylabel="accuracy on unseen digits, %",
    ylim=(0, 100),
)
ax.legend(loc="lower center", frameon=False)
ax.grid(True)
by_scale = accuracy["float16"]
plateau = [k for k in sorted(by_scale) if np.abs(np.subtract(by_scale[k], exact)).max() < 2]
print("float16 within 2 points of the exact run, on every seed, for the powers", plateau)
assert set(plateau) >= {-6, 0, 6, 12} and max(by_scale[-20]) < 30 and max(by_scale[24]) < 30
assert all(np.abs(np.subtract(runs, exact)).max() < 1.5 for runs in accuracy["bfloat16"].values())
figure

# %% [markdown]
# *Figure 12. Line: the mean over three seeds; band: from the lowest to the highest. float16 has a broad plateau
# with a cliff on either side: on the left the gradients vanish, on the right the steps overflow and are left
# out. bfloat16 was tried at both ends, and has no cliff there.*
#
# The plateau is broader than one might fear. At $2^{-12}$ more than a third of the gradients of figure 11
# would be 0, and the network learns as well: the large ones do the work.
#
# So the claim is smaller and firmer than "float16 needs loss scaling": a network has a plateau, and scaling
# moves you onto it. Ours stands on it already. Where a network stands, nobody knows in advance; the scaler
# finds out:

# %%
starts = {"from too small": 2.0**-18, "from too large": 2.0**24}
found = {
    name: [train_stored(float16, seed, start, adapt=True) for seed in SEEDS]
    for name, start in starts.items()
}
figure, ax = viz.panels(1, 1, width=6.5, height=3.4)
for colour, (name, runs) in zip((viz.COLOURS[1], viz.COLOURS[0]), found.items()):
    for _, scales in runs:
        ax.plot(np.log2(scales), color=colour, linewidth=1)
    ax.plot([], [], color=colour, label=name)
ax.set(xlabel="step", ylabel="scale, as a power of 2")
ax.axhspan(-12, 16, color=viz.COLOURS[2], alpha=0.15, linewidth=0)
ax.text(1, 12, "the plateau of figure 12", color=viz.COLOURS[2])
ax.legend(loc="lower right", frameon=False)
for name, runs in found.items():
    print(f"{name}:", "  ".join(f"{hits:.1f} %" for hits, _ in runs))
ends = [np.log2(scales[-1]) for runs in found.values() for _, scales in runs]
assert all(-12 <= end <= 20 for end in ends)
assert all(np.abs(np.subtract([r for r, _ in runs], exact)).max() < 4 for runs in found.values())
assert (np.array([r for r, _ in found["from too small"]]) < exact).all()
figure

# %% [markdown]
# *Figure 13. The scale that moves by itself, three seeds from each side (from too small they move alike). From
# too large it falls by halves at every step, until gradients come through, and then hovers at the upper edge,
# which lies somewhere between the powers 16 and 20 that were tried; from too small it climbs onto the
# plateau.*
#
# Nobody had to know where the plateau is. It costs a little: steps that are left out, and steps whose gradients
# were 0, are lost. The runs from too small a scale end behind the exact ones on each seed, but by less than four
# percentage points. At the upper edge our hasty scaler, which doubles after four good steps, loses about one step in
# five; PyTorch's waits for 2000.

# %% [markdown]
# ## Paper and code
#
# | | paper | PyTorch | here |
# |---|---|---|---|
# | mixed precision | Micikevicius et al.: float16 storage, float32 master weights and sums, loss scaling | `torch.autocast`, `torch.amp.GradScaler` | the same two names, `mt.autocast`, `mt.amp.GradScaler` |
# | scale of the loss | constant, 8 to 32768; many networks needed none | starts at 65536, doubled after 2000 good steps | as PyTorch; this page: doubled after 4 |
# | which operations in 16 bits | products; sums and softmax in float32 | three lists of operations | two lists, in `engine/autocast.py` |
# | online softmax | Milakov, Gimelshein: maximum and sum in one pass, joined in a tree | several kernels, by length of the row | one read for maximum and sum, one that writes |
# | sums of many threads | | atomic additions in some backward passes | gathered, where that costs little |
# | a kernel in the simulator | | | its order is drawn from a seed; races are errors; no caches, no clock |
#
# A trap: "it ran ten times on my card" says little about a race. A card has an order that it likes, and
# another card has another.

# %% [markdown]
# ## Predict before you run
#
# **1.** A row of 64 numbers is summed by a block of 64 threads with a tree. How many barriers does a block
# wait at, with one behind the loading of the row and one behind each step?


# %%
def block_sum(thread, x, y):
    part = thread.shared("part", thread.block_size)
    part[thread.index] = x[thread.block, thread.index]
    yield
    apart = thread.block_size // 2
    while apart:
        if thread.index < apart:
            part[thread.index] += part[thread.index + apart]
        yield
        apart //= 2
    if thread.index == 0:
        y[thread.block] = part[0]


x, y = rng.normal(size=(3, 64)), np.zeros(3)
tally = launch(block_sum, 3, 64, x, y)
print(np.allclose(y, x.sum(axis=1)), tally.barriers // 3, "barriers a block")

# %% [markdown]
# <details><summary>Answer</summary>
#
# 7: one behind the loading, and one behind each of $\log_2 64 = 6$ steps. Thread 0 alone would need 63
# additions one after the other.
#
# </details>
#
# **2.** A weight of 1 gets a step of $10^{-4}$ from the optimiser, a thousand times. What becomes of it in
# float16, in bfloat16, and with a master copy?

# %%
formats = {"float16": float16, "bfloat16": bfloat16, "master copy": as_it_is}
for name, rounding in formats.items():
    weight = np.array(1.0)
    for _ in range(1000):
        weight = rounding(weight + 1e-4)
    print(f"{name:11} {weight:.4f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Nothing at all happens in the two: from 1 the next number of float16 is $2^{-10} \approx 0.001$ away, that of
# bfloat16 $2^{-7} \approx 0.008$, and less than half of that is rounded away, a thousand times. The master copy
# arrives at 1.1. This is why the weights are kept in float32, even with bfloat16, which needs no
# loss scaling.
#
# </details>
#
# **3.** A kernel adds two arrays of float32. It is written anew for float16. By which factor does its intensity
# change, and on which side of $R / B = 12.5$ does it lie?

# %%
for name, size in (("float32", 4), ("float16", 2)):
    print(f"{name}: {1 / (3 * size):.2f} operations a byte")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Twofold, from 1/12 to 1/6, and still far on the left. It is bound by memory both times, so at best it
# takes half the time: because half the bytes are moved, not because 16-bit numbers are added faster.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`27_gpu`](../exercises/27_gpu.ipynb). None of them needs a GPU.
#
# 1. **axpy**: which elements are a thread's, on a grid of any size.
# 2. **row_sum**: the sum of a row by a block, with a tree and its barriers.
# 3. **scatter_add**: many threads add to one element.
# 4. **merge**: counts, means and spreads of two parts become one.
# 5. **prepare**: a function with three hidden copies to the host, without them.
# 6. **LossScaler**: the scale that moves by itself.

# %% [markdown]
# ## What to remember
#
# - The array decides where it is computed; equations and checks stay. What reads a value makes the host wait.
# - $t \ge \max(b / B,\ f / R)$: count bytes first. Neighbouring threads, neighbouring elements; read once; fuse.
# - Threads that need one another: shared memory, barriers for all, a tree. What is right in one order only is
#   wrong.
# - float16 has few exponents, bfloat16 few digits. Sums and weights stay in 32 bits; a power of two
#   shifts gradients into range, exactly.
# - Check a kernel's gradient in float64, with sizes that nothing divides.

# %% [markdown]
# ## Sources
#
# - P. Micikevicius et al., *Mixed Precision Training*, ICLR 2018: section 3 (master copy, loss scaling,
#   accumulation).
# - M. Milakov, N. Gimelshein, *Online normalizer calculation for softmax*, 2018: section 3.
# - S. Williams, A. Waterman, D. Patterson, *Roofline: an insightful visual performance model for multicore
#   architectures*, Communications of the ACM 2009.
# - NVIDIA, *CUDA C++ Programming Guide*: thread hierarchy, shared memory, synchronisation, device memory
#   accesses; and the data sheet of the A100 Tensor Core GPU (40 GB, SXM).
# - IEEE 754-2019 for float16; D. Kalamkar et al., *A Study of BFLOAT16 for Deep Learning Training*, 2019.
# - T. Chan, G. Golub, R. LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances*,
#   1979 (exercise 4).
