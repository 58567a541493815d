# %% [markdown]
# # 20 · Memory-efficient attention
#
# Softmax attention in tiles: the same numbers, forward and backward, without ever holding the table
# of all scores.
#
# **You will be able to**
#
# - derive the online softmax line by line, and say why it is exact;
# - write attention in tiles, forward and backward, with a few numbers for each query and no table;
# - measure what a computation holds, and tell memory that grows with the length from memory that
#   grows with its square.
#
# **You need** lessons 03 (gradient checks) and 11 (queries, keys and values).
#
# **Time** about 60 minutes, and as long again for the exercises.

# %%
import time
import tracemalloc

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import viz
from minitorch_attn.data import photograph

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# A photograph, cut into patches of 8 x 8 pixels. Each patch is a token: the colours of its four
# quarters, 12 numbers $x_i$. Each looks at all others, and the more alike two patches are, the
# higher their score, $s_{ij} = -10\,|x_i - x_j|^2$.


# %%
def cut(image, size):
    """An image (3, H, W) as patches (H/size, W/size, 3 size size)."""
    C, H, W = image.shape
    rows = image.reshape(C, H // size, size, W // size, size).transpose(1, 3, 0, 2, 4)
    return rows.reshape(H // size, W // size, C * size * size)


def softmax(s):
    """Of each row."""
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def likeness(x, others):
    """Scores (L, S) of patches (L, 12) and others (S, 12): minus 10 times the squared distance."""
    squares = (x**2).sum(axis=1)[:, None] - 2 * x @ others.T + (others**2).sum(axis=1)
    return -10 * squares


photo = photograph("china")[:, :424]  # (3, 424, 640), a multiple of 8
quarters = photo.reshape(3, 106, 4, 160, 4).mean(axis=(2, 4), dtype=float)  # 4 x 4 pixels each
tokens = cut(quarters, 2).reshape(-1, 12)
L = len(tokens)  # 53 x 80

places = {"a roof": (15, 34), "the trees": (45, 70), "the lake": (30, 62)}
chosen = [row * 80 + column for row, column in places.values()]
maps = softmax(likeness(tokens[chosen], tokens))
assert (maps.argmax(axis=1) == chosen).all()  # each is most like itself
maps = (maps / maps.max(axis=1, keepdims=True)).reshape(-1, 53, 80)
figure = viz.show_attention(photo, maps, list(places), label="weight / largest")
for ax, (at_row, at_column) in zip(figure.axes[1:], places.values()):
    ring = {"color": "white", "markeredgewidth": 1.5, "markersize": 9, "fillstyle": "none"}
    ax.plot(8 * at_column + 4, 8 * at_row + 4, "o", **ring)  # the patch that looks
figure

# %% [markdown]
# *Figure 1. The photograph, and where three of its patches look, each marked by a ring: the roof at
# roofs, walls and trees, which are as dark; the trees at the same places; the lake at the lake, and at
# the pale sky above it. To compute such a map is to compute one row of a table.*
#
# The picture has 4240 patches, so the table has 4240 rows of 4240 scores:

# %%
s = likeness(tokens, tokens)  # (L, L)
print(
    f"{L} patches: {tokens.nbytes / 1e6:.1f} MB; the table of their scores: {s.nbytes / 1e6:.0f} MB"
)
assert s.nbytes > 300 * tokens.nbytes

TILE = 512
figure, ax = viz.panels(1, 1, width=5.0, height=4.0)
shown = ax.imshow(s[::8, ::8], cmap="viridis", vmin=-20, extent=(0, L, L, 0))
for edge in range(TILE, L, TILE):
    ax.axhline(edge, color="white", linewidth=1.2)
    ax.axvline(edge, color="white", linewidth=1.2)
frame = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * TILE + (2 * TILE, 4 * TILE)
ax.plot(*frame.T, color=viz.COLOURS[1], linewidth=3)  # the one tile that is held
ax.set(xlabel="key", ylabel="query", xticks=[0, 2048, 4096], yticks=[0, 2048, 4096])
figure.colorbar(shown, label="score", shrink=0.8, extend="min")
figure

# %% [markdown]
# *Figure 2. All scores, of which every eighth row and column is drawn; what is below -20 has the darkest
# colour. White lines cut the table into tiles of 512 x 512 (the last ones are smaller). This lesson's
# algorithm holds one tile at a time, such as the framed one, and forgets it before it goes on to the
# next.*
#
# A wider picture of twice as many patches has four times as many scores. But nobody wants the
# scores: what is wanted is one output for each query. The question of this lesson is whether a
# softmax can be had without its whole row at hand.

# %%
del s  # nobody needs it any more

# %% [markdown]
# ## The equations
#
# Queries $q: (L, D)$, keys $k: (S, D)$ and values $v: (S, D_v)$; $i$ counts queries, $j$ counts
# keys. In self-attention $S = L$. With $\tau = 1/\sqrt{D}$,
#
# $$s_{ij} = \tau\, q_i \cdot k_j, \qquad p_{ij} = \frac{e^{s_{ij}}}{\sum_{j'} e^{s_{ij'}}}, \qquad
# y_i = \sum_j p_{ij}\, v_j$$
#
# (The picture's scores were distances, these are products, as in lesson 11. For the softmax it makes no
# difference: what follows holds for any scores.) The queries do not meddle with one another, so we look
# at one of them, and leave its index $i$ out.
#
# ### The softmax, one key at a time
#
# The exponential of a large score overflows, so the largest score $m$ is subtracted first. This
# changes nothing, as numerator and denominator are both multiplied by $e^{-m}$:
#
# $$y = \frac{\sum_j e^{s_j - m}\, v_j}{\sum_j e^{s_j - m}}, \qquad m = \max_j s_j$$
#
# Written so, it takes two passes over the row: one for $m$, and when $m$ is known, one for the two sums.
# (A softmax whose weights are wanted takes a third, which divides.) Here is how one pass does. Suppose
# that the first $n$ keys have been met. Of them we know
#
# $$m_n = \max_{j \le n} s_j, \qquad l_n = \sum_{j \le n} e^{s_j - m_n}, \qquad
# a_n = \sum_{j \le n} e^{s_j - m_n}\, v_j$$
#
# a number, a number, and a vector of $D_v$ numbers. Key $n + 1$ comes.
#
# 1. The maximum of all is the larger of two:
#    $$m_{n+1} = \max(m_n,\ s_{n+1})$$
# 2. The new sum is relative to the new maximum. Split off the last term (rule: a sum is its first $n$
#    terms plus the last):
#    $$l_{n+1} = \sum_{j \le n} e^{s_j - m_{n+1}} + e^{s_{n+1} - m_{n+1}}$$
# 3. In each of the first $n$ terms, add and subtract $m_n$ in the exponent, and take the factor that
#    has no $j$ in it out of the sum (rule: $e^{a + b} = e^a e^b$):
#    $$\sum_{j \le n} e^{s_j - m_{n+1}} = \sum_{j \le n} e^{s_j - m_n}\, e^{m_n - m_{n+1}}
#    = e^{m_n - m_{n+1}}\; l_n$$
# 4. Put together:
#    $$l_{n+1} = e^{m_n - m_{n+1}}\; l_n + e^{s_{n+1} - m_{n+1}}$$
# 5. The same three lines with a $v_j$ behind every exponential:
#    $$a_{n+1} = e^{m_n - m_{n+1}}\; a_n + e^{s_{n+1} - m_{n+1}}\; v_{n+1}$$
#
# Both exponentials are at most 1, since $m_{n+1}$ is the larger of the two: nothing overflows. The factor
# $e^{m_n - m_{n+1}}$ is 1 as long as the maximum stays. After the last key, $y = a_S / l_S$, where $l_S$
# is at least 1, for the largest score adds $e^0$. No step is an approximation. This is the **online
# softmax**.
#
# Before the first key, $m_0 = -\infty$, $l_0 = 0$ and $a_0 = 0$: the first factor is
# $e^{-\infty} = 0$, and it multiplies zeros.
#
# ### The softmax, one tile at a time
#
# Nothing in this derivation needs a *single* new key. With a set $J$ of keys, step 2 splits off the
# terms of $J$. Without a dash what is known before these keys, with a dash what is known after:
#
# $$m' = \max\left(m,\ \max_{j \in J} s_j\right), \qquad
# l' = e^{m - m'}\, l + \sum_{j \in J} e^{s_j - m'}, \qquad
# a' = e^{m - m'}\, a + \sum_{j \in J} e^{s_j - m'}\, v_j$$
#
# For a block of $r$ queries and a block of $c$ keys the scores are one matrix product, $(r, D)
# \times (D, c)$, and the last sum is another, $(r, c) \times (c, D_v)$. Between the two lives the
# tile, $r \times c$ numbers.
#
# ### What to keep for the backward pass
#
# The weights are not kept. They can be had again from the scores if we know one number for each
# query, the **logarithm of its sum of exponentials**:
#
# $$\ell = \log \sum_j e^{s_j} = m_S + \log l_S, \qquad p_j = e^{s_j - \ell}$$
#
# (rules: the whole sum is $e^{m_S}\, l_S$, and $\log(e^{m} l) = m + \log l$; and to divide by the sum
# $e^\ell$ is to subtract $\ell$ in the exponent). Mind the two letters: $l$ is a sum relative to a maximum,
# `l` in the code; $\ell$ is the logarithm of the whole sum, `log_sum`. With $\ell$ there is nothing online
# about the backward pass any more: each weight comes from its own score alone.

# %% [markdown]
# ### Backward
#
# The equations are those of lesson 11; what is new is to ask of each what it needs from outside the tile.
# $dy: (L, D_v)$ comes in. We write the query's index $i$ again.
#
# **Values.** $y_i = \sum_j p_{ij} v_j$ is linear in $v_j$, which every query meets:
#
# $$dv_j = \sum_i p_{ij}\, dy_i$$
#
# **Weights.** From the same equation,
#
# $$dp_{ij} = dy_i \cdot v_j$$
#
# **Scores.** A score raises its own weight and lowers those of all other keys (lesson 11):
# $\partial p_{ij'} / \partial s_{ij} = p_{ij'} ([j = j'] - p_{ij})$, where $[j = j']$ is 1 if $j = j'$ and
# else 0. By the chain rule, summed over all weights of the row (of the first term only $j' = j$ is left),
# and with $p_{ij}$ taken out of both terms,
#
# $$ds_{ij} = \sum_{j'} dp_{ij'}\, p_{ij'} \left( [j = j'] - p_{ij} \right)
# = p_{ij} \Big( dp_{ij} - \sum_{j'} p_{ij'}\, dp_{ij'} \Big)$$
#
# That sum runs over *all* keys, and a tile holds only some of them. Lesson 11 had another way to it, which
# was handy there; here everything depends on it. Put in what $dp$ is, and take $dy_i$, which has no $j'$ in
# it, out of the sum:
#
# $$\sum_{j'} p_{ij'}\, dp_{ij'} = \sum_{j'} p_{ij'}\, (dy_i \cdot v_{j'})
# = dy_i \cdot \sum_{j'} p_{ij'}\, v_{j'} = dy_i \cdot y_i =: \delta_i$$
#
# The output itself has done the sum already. So $\delta: (L)$ is computed from $dy$ and $y$ before
# the first tile, and
#
# $$\boxed{\; ds_{ij} = p_{ij}\, (dy_i \cdot v_j - \delta_i), \qquad p_{ij} = e^{s_{ij} - \ell_i} \;}$$
#
# needs nothing from outside the tile but two numbers for each query, $\ell_i$ and $\delta_i$.
#
# **Queries and keys.** $s_{ij} = \tau q_i \cdot k_j$ is a product:
#
# $$dq_i = \tau \sum_j ds_{ij}\, k_j, \qquad dk_j = \tau \sum_i ds_{ij}\, q_i$$
#
# All three results are sums over the table, so they are collected tile by tile. What does it cost?
# Let us count multiply-adds in units of $L S D$ (for $D_v = D$). Plain: 2 products forward ($s$ and
# $y$), 4 backward ($dv$, $dp$, $dq$, $dk$). Tiles: one more, as $s$ is computed again. **Seven
# products instead of six, and no table.**

# %% [markdown]
# ## The code
#
# First the online softmax of one row, in the loop of the derivation.


# %%
def online_softmax(s, v):
    """Scores (S,), values (S, Dv) -> output (Dv,), in one pass; and how m and l went."""
    m, l, a = -np.inf, 0.0, np.zeros(v.shape[1])
    history = []
    for score, value in zip(s, v):
        largest = max(m, score)
        shrink, e = np.exp(m - largest), np.exp(score - largest)
        l = shrink * l + e
        a = shrink * a + e * value
        m = largest
        history.append((m, l))
    return a / l, np.array(history)


row = likeness(tokens[chosen[:1]], tokens)[0]
y, history = online_softmax(row, tokens)
print("one pass agrees with the softmax of the whole row:", np.allclose(y, softmax(row) @ tokens))

# %%
m, l = history.T
rises = np.flatnonzero(np.diff(m)) + 1
figure, axes = viz.panels(2, 1, height=4.6)
axes[0].plot(row, ".", color="#999999", markersize=2)
axes[0].plot(m, color=viz.COLOURS[1])
axes[0].set(ylabel="score", title="scores (dots), and the running maximum m (line)")
axes[1].semilogy(l, color=viz.COLOURS[0])
for at in rises:
    axes[1].axvline(at, color=viz.COLOURS[1], linewidth=1, linestyle=":")
axes[1].set(xlabel="keys met", ylabel="sum", title="the running sum l; dotted: the maximum rises")
assert (np.diff(m) >= 0).all() and (np.diff(l)[np.diff(m) == 0] >= 0).all()
far = np.diff(m)[rises - 1] > 1  # the maximum rises by more than 1
assert (np.diff(l)[rises - 1][far] < 0).all() and (np.diff(l)[rises - 1][~far] > 0).any()
assert rises[-1] == chosen[0]
figure

# %% [markdown]
# *Figure 3. The roof patch meets its 4240 keys. Above, the maximum so far; below, the sum relative
# to it. At each dotted line the old sum is scaled down, and the new key adds its 1. Where the maximum rises
# far, the sum falls; where it rises a little, the factor is near 1, and the sum may grow all the same. The
# last rise is where the patch meets itself.*
#
# Now attention. The plain form first, as a primitive: the output and a rule for each input. It
# holds `p`, the whole table.


# %%
def plain_attention(q, k, v):
    """q (L, D), k (S, D), v (S, Dv) -> y (L, Dv), and a rule for each."""
    tau = q.dtype.type(1 / np.sqrt(q.shape[1]))  # of the queries' dtype: float32 stays float32
    p = softmax(tau * (q @ k.T))  # (L, S)

    def back_to_scores(dy):
        dp = dy @ v.T
        return p * (dp - (p * dp).sum(axis=1, keepdims=True))

    def vjp_q(dy):
        return tau * (back_to_scores(dy) @ k)

    def vjp_k(dy):
        return tau * (back_to_scores(dy).T @ q)

    def vjp_v(dy):
        return p.T @ dy

    return p @ v, (vjp_q, vjp_k, vjp_v)


# %% [markdown]
# And in tiles. The forward pass is the online softmax, with a block of queries in place of one
# query and a block of keys in place of one key. It returns $y$ and $\ell$.


# %%
def parts(length, size):
    """Slices that cover 0 .. length: the last one may be shorter."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def tiled_forward(q, k, v, size):
    """y (L, Dv) and the logarithms of the sums of exponentials (L, 1)."""
    tau = q.dtype.type(1 / np.sqrt(q.shape[1]))
    y, log_sum = np.empty((len(q), v.shape[1]), q.dtype), np.empty((len(q), 1), q.dtype)
    for rows in parts(len(q), size):
        m = np.full((len(q[rows]), 1), -np.inf, q.dtype)
        l, a = np.zeros_like(m), np.zeros_like(y[rows])
        for columns in parts(len(k), size):
            s = tau * (q[rows] @ k[columns].T)  # the tile (r, c)
            largest = np.maximum(m, s.max(axis=1, keepdims=True))
            shrink, e = np.exp(m - largest), np.exp(s - largest)
            l = shrink * l + e.sum(axis=1, keepdims=True)
            a = shrink * a + e @ v[columns]
            m = largest
        y[rows], log_sum[rows] = a / l, m + np.log(l)
    return y, log_sum


# %% [markdown]
# The backward pass goes over the same tiles. Compare its five innermost lines with the equations: $p$ and
# $ds$ stand in the box, $dv$ above it, $dq$ and $dk$ below.


# %%
def tiled_attention(q, k, v, *, size=256):
    """The same as `plain_attention`, without the table."""
    tau = q.dtype.type(1 / np.sqrt(q.shape[1]))
    y, log_sum = tiled_forward(q, k, v, size)

    def backward(dy):
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        delta = (dy * y).sum(axis=1, keepdims=True)  # (L, 1)
        for rows in parts(len(q), size):
            for columns in parts(len(k), size):
                p = np.exp(tau * (q[rows] @ k[columns].T) - log_sum[rows])
                ds = p * (dy[rows] @ v[columns].T - delta[rows])
                dv[columns] += p.T @ dy[rows]
                dq[rows] += tau * (ds @ k[columns])
                dk[columns] += tau * (ds.T @ q[rows])
        return dq, dk, dv

    # Each rule asks for all three and takes its own; the library's rules share one backward pass.
    return y, (lambda dy: backward(dy)[0], lambda dy: backward(dy)[1], lambda dy: backward(dy)[2])


# %% [markdown]
# Equal? On sizes that no tile divides, outputs and all gradients; and beside them the library's,
# which runs the same algorithm behind `F.scaled_dot_product_attention`.

# %%
rng = np.random.default_rng(0)
q, k, v = rng.normal(size=(50, 8)), rng.normal(size=(70, 8)), rng.normal(size=(70, 5))
dy = rng.normal(size=(50, 5))

y, rules = plain_attention(q, k, v)
plain = [y, *(rule(dy) for rule in rules)]
y, rules = tiled_attention(q, k, v, size=16)
tiled = [y, *(rule(dy) for rule in rules)]
inputs = [mt.tensor(x, requires_grad=True) for x in (q, k, v)]
y = F.scaled_dot_product_attention(*inputs)
y.backward(dy)
library = [y.data, *(x.grad.data for x in inputs)]

for name, one, other, third in zip(("y", "dq", "dk", "dv"), plain, tiled, library):
    print(f"{name:2}  tiles: {np.allclose(one, other)}, library: {np.allclose(one, third)}")
    assert np.allclose(one, other) and np.allclose(one, third)

# %% [markdown]
# ### Two passes less
#
# The library's file, `ops/attention.py`, has the same loops. What it adds is thrift. Two passes
# over every tile of the backward pass do nothing but subtract, $\ell$ from the scores and $\delta$
# from $dp$. That can be had for next to nothing. Give every query one more feature, $-\ell_i$, and every
# key one more, a 1:
#
# $$(\tau q_i,\ -\ell_i) \cdot (k_j,\ 1) = \tau\, q_i \cdot k_j - \ell_i$$
#
# Now the product itself subtracts. The same for $dp - \delta$:

# %%
column = np.ones((70, 1))
_, log_sum = tiled_forward(q, k, v, 16)
wide_q, wide_k = np.hstack([q / np.sqrt(8), -log_sum]), np.hstack([k, column])
p = np.exp(wide_q @ wide_k.T)
delta = (dy * plain[0]).sum(axis=1, keepdims=True)
ds = p * (np.hstack([dy, -delta]) @ np.hstack([v, column]).T)
print(
    "weights:",
    np.allclose(p, softmax(q @ k.T / np.sqrt(8))),
    " dq:",
    np.allclose(ds @ k / np.sqrt(8), plain[1]),
)

# %% [markdown]
# And the forward pass need not follow the maximum closely: any number near it keeps the
# exponentials from overflowing. The library subtracts the maximum of the first tile, lets later
# scores exceed it by up to 16 ($e^{16}$ is nine million, far from overflow), and moves it only
# beyond that.

# %% [markdown]
# ## The gradient check
#
# Central differences against the rules, in float64, in tiles that divide neither length.

# %%
q, k, v = rng.normal(size=(5, 4)), rng.normal(size=(6, 4)), rng.normal(size=(6, 3))


def in_tiles_of_4(q, k, v):
    return tiled_attention(q, k, v, size=4)


report = mt.check_vjp(in_tiles_of_4, q, k, v)
print(report)

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 4. Left the gradient that the rules give, in the middle the measured one, right the error:
# dark throughout.*
#
# The mistake that is easiest to make: to take the sum in the softmax's rule over the keys *of the
# tile*, as if the tile were the row. It looks right, line by line, and with one tile it is right.


# %%
def sum_over_the_tile(q, k, v, *, size=4):
    tau = 1 / np.sqrt(q.shape[1])
    y, (_, _, vjp_v) = tiled_attention(q, k, v, size=size)
    _, log_sum = tiled_forward(q, k, v, size)

    def backward(dy):
        dq, dk = np.zeros_like(q), np.zeros_like(k)
        for rows in parts(len(q), size):
            for columns in parts(len(k), size):
                p = np.exp(tau * (q[rows] @ k[columns].T) - log_sum[rows])
                dp = dy[rows] @ v[columns].T
                ds = p * (dp - (p * dp).sum(axis=1, keepdims=True))  # the sum of this tile alone
                dq[rows] += tau * (ds @ k[columns])
                dk[columns] += tau * (ds.T @ q[rows])
        return dq, dk

    return y, (lambda dy: backward(dy)[0], lambda dy: backward(dy)[1], vjp_v)


wrong = mt.check_vjp(sum_over_the_tile, q, k, v, raise_on_failure=False)
print(wrong)
assert [one.ok for one in wrong.inputs] == [False, False, True]
one_tile = mt.check_vjp(lambda q, k, v: sum_over_the_tile(q, k, v, size=6), q, k, v)
print("with a single tile:", "passed" if one_tile.ok else "failed")

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 5. The gradients of queries and keys are wrong, those of the values right: $dv$ does not
# need the sum. That the same rules pass with a single tile says where to look: at what crosses from
# tile to tile.*

# %% [markdown]
# ## At work
#
# ### Memory against length
#
# `tracemalloc` counts what NumPy allocates. We measure the largest amount held at any moment of
# forward and backward together, in float32 with $D = 64$, for twice the length each time. The
# inputs are made before and do not count; the output and the three gradients do.


# %%
def with_rules(attention):
    """A function of q, k, v, dy that computes the output and all gradients."""

    def run(q, k, v, dy):
        y, rules = attention(q, k, v)
        return y, [rule(dy) for rule in rules]

    return run


def with_the_library(q, k, v, dy):
    inputs = [mt.Tensor(x, requires_grad=True) for x in (q, k, v)]  # without a copy
    F.scaled_dot_product_attention(*inputs).backward(dy)
    return [x.grad for x in inputs]


def megabytes_of(run, *arrays):
    """What is held at most while it runs."""
    tracemalloc.start()
    run(*arrays)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6


def seconds_of(run, *arrays, times):
    """Processor time; the least of a few turns."""
    turns = []
    for _ in range(times):
        start = time.process_time()
        run(*arrays)
        turns.append(time.process_time() - start)
    return min(turns)


LENGTHS = 256, 512, 1024, 2048, 4096
contenders = {
    "plain": with_rules(plain_attention),
    "tiles": with_rules(tiled_attention),
    "library": with_the_library,
}
megabytes, seconds = {name: [] for name in contenders}, {name: [] for name in contenders}
for length in LENGTHS:
    arrays = rng.normal(size=(4, length, 64)).astype(np.float32)
    for name, run in contenders.items():
        megabytes[name].append(megabytes_of(run, *arrays))
        seconds[name].append(seconds_of(run, *arrays, times=3 if length <= 1024 else 1))

print("length   " + "".join(f"{name:>13}" for name in contenders))
for i, length in enumerate(LENGTHS):
    print(f"{length:6}   " + "".join(f"{peak[i]:10.0f} MB" for peak in megabytes.values()))

# %%
figure, axes = viz.panels(1, 2, height=3.6)
for colour, name in zip(viz.COLOURS, contenders):
    axes[0].loglog(LENGTHS, megabytes[name], "o-", color=colour, label=name)
    axes[1].loglog(LENGTHS, [1000 * t for t in seconds[name]], "o-", color=colour, label=name)
axes[0].set_ylabel("largest memory, MB")
axes[1].set_ylabel("processor time, ms")
for ax in axes:
    ax.set_xlabel("length L")
    ax.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
    ax.minorticks_off()
    ax.grid(True)
axes[0].legend()

growth = {name: peak[-1] / peak[-2] for name, peak in megabytes.items()}
assert growth["plain"] > 3.7  # four times for twice the length
for name in ("tiles", "library"):
    from_512 = np.divide(megabytes[name][2:], megabytes[name][1:-1])
    assert (from_512 < 2.1).all()  # twice for twice
assert megabytes["plain"][-1] > 20 * megabytes["library"][-1]
asked_for = 4 * length * 64 * 4 / 1e6  # four arrays (4096, 64) of float32, in MB
assert 0.4 < asked_for / megabytes["library"][-1] < 0.5
figure

# %% [markdown]
# *Figure 6. Left, memory: for twice the length plain attention takes four times as much; tiles at
# most twice as much, once the table is larger than a tile. Right, time on the computer that ran this page:
# all three grow with the square in the end, for every query still meets every key. (Between the three the
# times are no fair race: the rules of our tiles run the whole backward pass three times, those of the plain
# form compute $ds$ twice, and the library does everything once.)*
#
# At length 4096 the plain form holds more than twenty times what the library does. Nearly half of
# what the library holds is what was asked for: the output and three gradients, 1 MB each, which
# grow with the length too.

# %% [markdown]
# ### A photograph in pieces
#
# What is it good for to look at *everything*? The same photograph is cut into patches of 4 x 4
# pixels, 16 960 pieces, and the pieces lie shuffled in a box. For each place of the picture we have
# a noisy view of what belongs there. Which piece is it?
#
# That is attention: the noisy views are the queries, the pieces are keys and values. Let the noise be
# normal, with variance $\sigma^2$ for each number, and before we look let each piece be as likely as any
# other. Then the probability that piece $k_j$ lies behind view $q_i$ is, by Bayes' rule,
#
# $$p_{ij} \propto e^{-|q_i - k_j|^2 / 2 \sigma^2} \propto
# e^{(q_i \cdot k_j - |k_j|^2 / 2) / \sigma^2}$$
#
# where $\propto$ means: up to a factor that is the same for all $j$. (Rule: $|q - k|^2 = |q|^2 - 2\, q
# \cdot k + |k|^2$; the factor with $|q_i|^2$ has no $j$ in it and cancels in the softmax.) So it is attention
# with $\tau = 1 / \sigma^2$, where $-|k_j|^2/2$ rides along in one more feature of the keys, which meets a 1
# of the queries. The output is the expected piece.
#
# The table would have $16\,960^2$ scores: 1.2 GB in float32. With the memory of our tiles the plain
# form could look at a small part of the box only. So we compare: a part of the pieces, drawn at
# random, and all of them; from three seeds.

# %%
SIGMA = 0.1
pieces = cut(photo, 4).reshape(-1, 48)  # (16960, 48)
SHARES = {"1/64": 1 / 64, "1/16": 1 / 16, "1/4": 1 / 4, "all": 1}
print(f"{len(pieces)} pieces, {len(pieces) ** 2 * 4 / 1e9:.1f} GB of scores")


def with_feature(x, column):
    return np.concatenate([x, np.broadcast_to(column, (len(x), 1))], axis=1, dtype=np.float32)


def put_together(noisy, box):
    """For every noisy view the piece to be expected, of those in the box."""
    queries = with_feature(noisy, 1)
    keys = with_feature(box, -(box**2).sum(axis=1, keepdims=True) / 2)
    with mt.no_grad():
        return F.scaled_dot_product_attention(queries, keys, box, scale=1 / SIGMA**2).data


def psnr(image):
    """Peak signal-to-noise ratio in dB: +10 for a tenth of the mean squared error."""
    return 10 * np.log10(1 / ((image - pieces) ** 2).mean())


def one_seed(seed):
    rng = np.random.default_rng(seed)
    noisy = pieces + SIGMA * rng.normal(size=pieces.shape).astype(np.float32)
    shuffled = rng.permutation(pieces)
    return noisy, [
        put_together(noisy, shuffled[: int(share * len(pieces))]) for share in SHARES.values()
    ]


runs = [one_seed(seed) for seed in (0, 1, 2)]
quality = np.array([[psnr(image) for image in images] for _, images in runs])  # (seed, share)
print(f"noisy views        {'  '.join(f'{psnr(noisy):.1f}' for noisy, _ in runs)} dB")
for name, column in zip(SHARES, quality.T):
    print(f"{name:>4} of the pieces {'  '.join(f'{each:.1f}' for each in column)} dB")
assert (np.diff(quality, axis=1) > 1).all()
assert (quality[:, -1] > quality[:, -2] + 5).all()


# %%
def glued(patches, size=4):
    """Patches as an image again, (3, H, W)."""
    rows = patches.reshape(424 // size, 640 // size, 3, size, size)
    return rows.transpose(2, 0, 3, 1, 4).reshape(3, 424, 640)


noisy, images = runs[0]
corner = slice(None), slice(90, 250), slice(100, 340)
pictures = np.stack([glued(image)[corner] for image in (noisy, *images[1:])])
titles = ["noisy views", "1/16 of the pieces", "1/4 of the pieces", "all pieces"]
viz.show_images(np.clip(pictures, 0, 1), titles, columns=2)

# %% [markdown]
# *Figure 7. A corner of the picture: what is known of each place, and what is put together from one
# piece in sixteen, from one in four, and from all of them.*

# %%
viz.plot_arms(
    {f"{name} of the pieces": list(column) for name, column in zip(SHARES, quality.T)},
    label="quality, dB",
)

# %% [markdown]
# *Figure 8. A dot is one seed; the noisy views have 20 dB. Four times as many pieces bring one or two
# decibels, until the box is whole: then the right piece is among them, for every place at once, and the
# quality jumps.*
#
# A part drawn blindly lacks, for most places, the one piece that matters. (A clever choice need not: but to
# choose well one must know where to look, and that is what the scores are computed for.) This is why exact
# attention is worth its price here; and the price is time, no longer memory:

# %%
peak = megabytes_of(put_together, noisy, pieces)
print("held at most: less than 30 MB, with queries, keys and output:", peak < 30)
assert peak < 30

# %% [markdown]
# ## Paper and code
#
# | | paper | official code | here |
# |---|---|---|---|
# | order of the loops | FlashAttention: keys outside, queries inside, $y$ divided at every step; FlashAttention-2: queries outside, $y$ divided once, at the end | as in its paper | queries outside, divided once |
# | kept for the backward pass | FlashAttention: $m$ and $l$; FlashAttention-2: $\ell$ | $\ell$ | $\ell$ |
# | subtracting $m$, $\ell$ or $\delta$ | an operation on the tile | fused with the exponential, in one GPU kernel | rides along in the products: NumPy fuses nothing |
# | when the maximum is moved | at every tile | at every tile | when a score exceeds it by more than 16 |
# | size of a tile | what fits a GPU's shared memory | such as 128 x 64 | 512 x 256: what fits the cache of a processor's core |
# | a query that may see no key | not said | zeros | zeros, with zero gradients, as in PyTorch |
#
# A trap: "memory-efficient" is not "approximate". Linear attention (lesson 21) changes the formula
# to save time; this one changes the order of summation alone.

# %% [markdown]
# ## Predict before you run
#
# **1.** To every score of a query 1000 is added. What happens to the output, to $\ell$, and to a
# softmax that does not subtract a maximum?

# %%
row = rng.normal(size=40)
values = rng.normal(size=(40, 3))
before, (*_, (m, l)) = online_softmax(row, values)
after, (*_, (m_after, l_after)) = online_softmax(row + 1000, values)
rise = m_after + np.log(l_after) - (m + np.log(l))
with np.errstate(over="ignore", invalid="ignore"):
    e = np.exp(row + 1000)
    naive = e @ values / e.sum()
print("output unchanged:", np.allclose(before, after))
print(f"the logarithm of the sum grows by {rise:.0f}; without a maximum: {naive}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The output stays: the factor $e^{1000}$ cancels. $\ell$ grows by 1000, which a float holds easily;
# that is why the logarithm is stored and not the sum. Without a maximum, $e^{1000}$ is infinite,
# and infinity over infinity is not a number.
#
# </details>
#
# **2.** With `is_causal=True`, query $i$ sees the keys up to $i$. The table is cut into 8 x 8
# tiles. How many need not be computed at all?

# %%
edges = np.arange(8)
hidden = (edges[None, :] > edges[:, None]).sum()
print(f"{hidden} of 64")

# %% [markdown]
# <details><summary>Answer</summary>
#
# 28: those wholly above the diagonal. The 8 tiles on the diagonal are half hidden and must be
# masked number by number; of the others 28 are seen wholly. With many tiles, causal attention costs
# about half. The plain form computes all scores and then throws half of them away.
#
# </details>
#
# **3.** The keys (and with them the values) come in another order. In which of $m_n$, $l_n$,
# $\ell$, $y$ does it show?

# %%
order = rng.permutation(40)
y, history = online_softmax(row, values)
shuffled_y, shuffled = online_softmax(row[order], values[order])
print("m and l on the way:", np.allclose(history, shuffled))
print(
    "m and l at the end:", np.allclose(history[-1], shuffled[-1]), " y:", np.allclose(y, shuffled_y)
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Only on the way. At the end $m$ and $l$ belong to the whole row, and so do $\ell$ and $y$. In the
# last digits there may be a difference: floating-point sums depend on their order. It is as large
# as the difference between two tile sizes.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`20_memory_efficient_attention`](../exercises/20_memory_efficient_attention.ipynb):
#
# 1. **running**: the running maximum and the running sum of one row.
# 2. **merge**: two parts of a row, met apart, become one.
# 3. **forward**: attention in tiles, and the logarithms of the sums.
# 4. **score_gradient**: the gradient of one tile's scores.
# 5. **tiled_attention**: the whole, with its rules.

# %% [markdown]
# ## What to remember
#
# - A softmax can be had in one pass: keep a maximum, a sum and an output, and scale the last two when
#   the first rises.
# - For the backward pass keep the output and one number a query, $\ell = m + \log l$; the weights are
#   computed again.
# - The sum in the softmax's rule is $dy \cdot y$: the output has done it already.
# - Seven products instead of six, and memory that grows with the length. It is exact.

# %% [markdown]
# ## Sources
#
# - M. Milakov, N. Gimelshein, *Online normalizer calculation for softmax*, 2018: algorithm 3
#   (the maximum and the sum; that the sum of the values can run along, is in those that follow).
# - M. Rabe, C. Staats, *Self-attention Does Not Need O(n²) Memory*, 2021.
# - T. Dao, D. Fu, S. Ermon, A. Rudra, C. Ré, *FlashAttention: Fast and Memory-Efficient Exact
#   Attention with IO-Awareness*, NeurIPS 2022: algorithms 1 and 4.
# - T. Dao, *FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning*, 2023.
