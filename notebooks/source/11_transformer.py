# %% [markdown]
# # 11 · The Transformer
#
# A network that is made of attention: every token asks all others, at once, and nothing has to be
# carried from step to step.
#
# **You will be able to**
#
# - derive softmax attention with its backward, and say why its scores are divided by $\sqrt D$;
# - build multi-head attention, masks, places and layers, and count what they cost;
# - train an encoder and a decoder, read their alignment, and decode with a cache.
#
# **You need** lessons 01 to 04 (primitives, modules, optimisers), 07 (layer normalisation), 09 and 10
# (sequence to sequence, alignment).
#
# **Time** about 75 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import ScaledDotProductAttention
from minitorch_attn.data import DataLoader, digits, photograph, reversal_pairs
from minitorch_attn.models import Seq2SeqTransformer

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# In lesson 10 a decoder asked the source: which of your words do I need now? Nothing in that question
# needs a decoder. Any set of vectors can ask any set of vectors, also itself.
#
# Cut a photograph into 21 x 32 patches. Each patch is a **token**, a vector; here of three numbers, its
# mean red, green and blue (less those of the whole photograph, and brought to length 1). Let a patch ask
# all patches *how alike are we?* by a dot product, and turn the 672 answers into weights that add up to 1
# by a softmax: the patch knows where its like is. (Answers lie between -1 and 1. They are multiplied by 10
# first, or the weights would differ little.)

# %%
photo = photograph("flower")[:, :420]  # (3, 420, 640)
patches = photo.reshape(3, 21, 20, 32, 20).transpose(1, 3, 0, 2, 4).reshape(21 * 32, 3, 400)
tokens = patches.mean(axis=2).astype("float64")  # 672 tokens of 3 features
tokens -= tokens.mean(axis=0)
tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)


def softmax(s):
    """Along the last axis."""
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


weights = softmax(10 * tokens @ tokens.T)  # (672, 672): row i tells where patch i looks
asking = {"a petal": (6, 11), "the heart": (11, 16), "a leaf": (2, 28)}
rows = np.stack([weights[32 * i + j] for i, j in asking.values()])

figure = viz.show_attention(
    photo,
    (rows / rows.max(axis=1, keepdims=True)).reshape(-1, 21, 32),
    [f"{name} asks" for name in asking],
    label="weight / largest",
)
for ax, (i, j) in zip(figure.axes[1:], asking.values(), strict=False):
    ax.plot(20 * j + 10, 20 * i + 10, "s", color="white", markerfacecolor="none", markersize=8)
assert np.allclose(weights.sum(axis=1), 1)
petal = rows[0].reshape(21, 32)
assert petal[19:, 15:20].mean() > 10 * petal[:3].mean()  # the second flower, at the lower edge
figure

# %% [markdown]
# *Figure 1. A photograph, and where three of its patches look (the white squares ask). The petal finds
# all petals, also those of a second flower at the lower edge; the heart finds the heart, the leaf finds
# leaves, near and far alike.*
#
# A convolution would have needed many layers to bring the two flowers together. Here each patch reaches
# every other in one step. What it gets is a mean of vectors, with these weights. In the Transformer three
# things are learned: what a token asks, what it answers to, and what it hands over.

# %% [markdown]
# ## The equations
#
# ### A soft look-up
#
# There are $L$ **queries** $q_i$ and $S$ **keys** $k_j$, all of $D$ features, and to each key a
# **value** $v_j$ of $D_v$ features. As arrays, $q: (L, D)$, $k: (S, D)$, $v: (S, D_v)$. In
# self-attention all three are made of the same tokens, and $S = L$.
#
# $$s_{ij} = \frac{q_i \cdot k_j}{\sqrt D}, \qquad
# p_{ij} = \frac{e^{s_{ij}}}{\sum_{m} e^{s_{im}}}, \qquad
# y_i = \sum_j p_{ij} \, v_j$$
#
# or, in matrices, $y = \mathrm{softmax}(q k^\top / \sqrt D)\, v$, with the softmax along each row. The
# **scores** $s$ and the **weights** $p$ have shape $(L, S)$, the output $(L, D_v)$.

# %% [markdown]
# ### Backward
#
# $dy$ is the gradient of the loss with respect to $y$, and so on. We go from the last equation to the
# first.
#
# **The mean.** $y_{ic} = \sum_j p_{ij} v_{jc}$ is a matrix product (lesson 02):
#
# $$dv = p^\top dy \qquad dp = dy \, v^\top, \quad \text{that is} \quad dp_{ij} = dy_i \cdot v_j$$
#
# **The softmax.** As in lesson 10, from the quotient rule,
# $\partial p_{ij} / \partial s_{im} = p_{ij} ([j = m] - p_{im})$, where $[j = m]$ is 1 if $j = m$ and else
# 0: a score lifts its own weight and lowers all others of its row. By the chain rule over all $j$,
#
# $$ds_{im} = \sum_j dp_{ij} \, p_{ij} ([j = m] - p_{im})
# = p_{im} \Big( dp_{im} - \sum_j p_{ij} \, dp_{ij} \Big)$$
#
# The sum in it can be had without $p$ and $dp$, for by their definitions
# $\sum_j p_{ij} \, dp_{ij} = \sum_j p_{ij} \, (dy_i \cdot v_j) = dy_i \cdot \sum_j p_{ij} v_j
# = dy_i \cdot y_i$. So
#
# $$\boxed{\; ds_{ij} = p_{ij} \, dy_i \cdot (v_j - y_i) \;}$$
#
# and that can be read: to lift a score lifts the loss if its value lies further along $dy$ than the mean
# does, and the more so the more weight it has.
#
# **The scores.** $s = q k^\top / \sqrt D$, a matrix product again:
#
# $$dq = \frac{ds \; k}{\sqrt D}, \qquad dk = \frac{ds^\top q}{\sqrt D}$$

# %% [markdown]
# ### Why the square root
#
# Suppose that the features of queries and keys are independent, with mean 0 and variance 1. Then each
# product $q_{ic} k_{jc}$ has mean $0 \cdot 0 = 0$ and variance $E[q^2 k^2] - 0^2 = E[q^2] \, E[k^2] = 1$,
# and $q_i \cdot k_j$ is a sum of $D$ independent ones: **its variance is $D$**. With $D = 256$ features the
# standard deviation of the scores is 16, and where one score is 16 above another, its weight is $e^{16}$,
# nine million, times as large. One key takes nearly everything, and $ds_{ij} = p_{ij}\, dy_i \cdot
# (v_j - y_i)$ is about zero both where $p_{ij} \approx 0$ and where $p_{ij} \approx 1$, as there
# $y_i \approx v_j$. The softmax is *saturated*: it passes hardly any gradient. Divided by $\sqrt D$, the
# scores have variance $D / (\sqrt D)^2 = 1$, whatever $D$ is.
#
# The cell draws queries and keys at random. Besides the largest weight it shows the slopes of the weights in
# their own scores, $\partial p_j / \partial s_j = p_j (1 - p_j)$, added up.

# %%
rng = np.random.default_rng(0)
sizes = [1, 4, 16, 64, 256, 1024]


def largest_and_slope(scale):
    """For each D, means over 400 queries to 16 keys: the largest weight, and the sum of p (1 - p)."""
    rows = []
    for D in sizes:
        q, k = rng.normal(size=(400, 1, D)), rng.normal(size=(400, 16, D))
        p = softmax(scale(D) * (q * k).sum(axis=-1))  # (400, 16)
        rows.append((p.max(axis=1).mean(), (p * (1 - p)).sum(axis=1).mean()))
    return np.array(rows).T


plain, scaled = largest_and_slope(lambda D: 1), largest_and_slope(lambda D: D**-0.5)

figure, axes = viz.panels(1, 2, height=3)
for ax, what, a, b in zip(axes, ["largest weight", "sum of $p(1-p)$"], plain, scaled, strict=True):
    ax.plot(sizes, a, "o-", color=viz.COLOURS[1], label="$q \\cdot k$")
    ax.plot(sizes, b, "s-", color=viz.COLOURS[0], label="$q \\cdot k / \\sqrt{D}$")
    ax.set(xscale="log", xlabel="features $D$", title=what, ylim=(0, 1.05))
    ax.grid(axis="y")
axes[0].legend(frameon=False)
assert plain[0][-1] > 0.9 and plain[1][-1] < 0.1  # saturated
assert np.ptp(scaled[0][1:]) < 0.05 and scaled[1].min() > 0.7
figure

# %% [markdown]
# *Figure 2. Without the division the largest of 16 weights goes towards 1 as the features become more, and
# the slopes of the softmax towards 0. With it, both hardly change.*

# %% [markdown]
# ### Heads
#
# One softmax gives one mean. To look at two places for two reasons, use several: $E$ **heads**, each
# with queries, keys and values of its own, of $d = D / E$ features. With $x: (L, D)$ the tokens that ask
# and $x': (S, D)$ those that are asked ($x' = x$ in self-attention),
#
# $$q = x W_q^\top + b_q, \quad k = x' W_k^\top + b_k, \quad v = x' W_v^\top + b_v, \qquad
# y = [\mathrm{head}_0, \dots, \mathrm{head}_{E-1}] \, W_o^\top + b_o.$$
#
# $\mathrm{head}_e: (L, d)$ is the look-up above with the features $e d$ to $(e + 1) d - 1$ of $q$, $k$ and
# $v$; its scores are divided by $\sqrt d$, as it has $d$ features. The brackets put the heads side by side,
# $(L, D)$ again. Four matrices of $(D, D)$ and four biases make $4 (D^2 + D)$ parameters, however many
# heads there are. In self-attention the projections cost $4 L D^2$ multiplications, the look-up $2 L^2 D$:
# half of it for the scores, half for the mean.

# %% [markdown]
# ### Masks
#
# A token that must not be looked at gets the score $-\infty$, so its weight is 0 and the others still
# add up to 1. Two reasons for it:
#
# - **padding**: sequences of a batch are filled up to one length, and what fills them means nothing;
# - **causality**: a decoder is trained on all places of a target at once. At place $i$ it has read token $i$
#   and is to predict the next. It may look at $j \le i$ alone, or it would copy its answer.

# %%
s = rng.normal(size=(6, 6))  # scores of six tokens among themselves
causal = np.tril(np.ones((6, 6), bool))
counts = np.arange(6) < 4  # the last two keys are padding
masks = {"all": np.ones((6, 6), bool), "causal": causal, "causal and padding": causal & counts}
drawn = {name: nn.MaskedSoftmax()(s, may_look).data for name, may_look in masks.items()}

figure, axes = viz.panels(1, 3, height=2.7)
for ax, (name, p) in zip(axes, drawn.items(), strict=True):
    table = ax.imshow(p, cmap="viridis", vmin=0, vmax=1)
    ax.set(title=name, xlabel="key $j$", xticks=range(6), yticks=range(6))
axes[0].set_ylabel("query $i$")
figure.colorbar(table, ax=axes, shrink=0.9, label="weight")
assert all(np.allclose(p.sum(axis=1), 1) for p in drawn.values())
assert (drawn["causal"][~causal] == 0).all() and (drawn["causal and padding"][:, 4:] == 0).all()
figure

# %% [markdown]
# *Figure 3. The same scores under three masks: rows are queries, and each row adds up to 1. What is hidden
# has weight 0, and the rest shares its part.*

# %% [markdown]
# ### Places
#
# Nothing above knows an order. Let $P$ be a permutation matrix: $P x$ has the rows of $x$ in another order.
# Each query, key and value is made of its own token alone, so those of $P x$ are $P q$, $P k$ and $P v$.
# The scores are $P q (P k)^\top / \sqrt D = P s P^\top$, the same numbers with rows and columns in the new
# order. A softmax of each row keeps to that order, so the weights are $P p P^\top$. And the output is
# $P p P^\top P v = P (p v)$, as $P^\top P$ is the identity. Permuted tokens give the same outputs, permuted.
# To the network a word is a bag of letters.
#
# So places are written into the tokens. The paper adds to the token at place $t$ a vector $PE_t$, its
# *positional encoding*, with $D / 2$ pairs of features, $i = 0, \dots, D/2 - 1$:
#
# $$PE_{t, 2i} = \sin \omega_i t, \qquad PE_{t, 2i + 1} = \cos \omega_i t, \qquad
# \omega_i = 10000^{-2i / D}$$
#
# It is a clock with $D / 2$ hands. The fastest turns once in $2 \pi$, about six places; the slowest, if
# there are many, once in about sixty thousand. By the addition theorems, $n$ places further is a rotation of
# each pair by the angle $\omega_i n$, whatever $t$ is:
#
# $$\begin{pmatrix} \sin \omega_i (t + n) \\ \cos \omega_i (t + n) \end{pmatrix} =
# \begin{pmatrix} \cos \omega_i n & \sin \omega_i n \\ -\sin \omega_i n & \cos \omega_i n \end{pmatrix}
# \begin{pmatrix} \sin \omega_i t \\ \cos \omega_i t \end{pmatrix},$$
#
# a linear map that a layer could learn. And by the one for the cosine of a difference,
#
# $$PE_t \cdot PE_u = \sum_i \left( \sin \omega_i t \sin \omega_i u + \cos \omega_i t \cos \omega_i u
# \right) = \sum_i \cos \omega_i (t - u),$$
#
# so the matrix of all these products, the *Gram matrix*, has one value along each diagonal: it is a
# Toeplitz matrix. It tells distances, not places.

# %%
encodings = nn.SinusoidalEncoding(32)(mt.zeros(48, 32)).data  # what is added to tokens of zeros
gram = encodings @ encodings.T

figure, axes = viz.panels(1, 2, height=3.6)
table = axes[0].imshow(encodings.T, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
axes[0].set(title="the encodings $PE_t$", xlabel="place $t$", ylabel="feature")
figure.colorbar(table, ax=axes[0])
table = axes[1].imshow(gram, cmap="viridis")
axes[1].set(title="their products $PE_t \\cdot PE_u$", xlabel="place $u$", ylabel="place $t$")
figure.colorbar(table, ax=axes[1])
assert all(np.ptp(np.diagonal(gram, k)) < 1e-9 for k in range(48))  # Toeplitz
assert (gram.argmax(axis=1) == np.arange(48)).all()  # a place is most like itself
figure

# %% [markdown]
# *Figure 4. Left: each column is a place; fast hands above, slow ones below. Right: a place is most
# like itself, and what it has in common with others depends on their distance alone.*
#
# Two others. **Learned** places are a parameter, one vector for each place, and end where the table
# ends. **Rotary** places came after (2021): they add nothing to the tokens but turn each pair of features of
# a query or key at place $t$ by the angle $\omega_i t$, in every layer. A dot product does not change when
# both vectors are turned alike; so with a query at place $t$ and a key at place $u$ it knows of the two turns
# only their difference, $\omega_i (t - u)$. Here one query and one key are put at each of six places:

# %%
rotary = nn.RotaryEncoding(8)
q, k = rng.normal(size=(2, 8))
scores = rotary(mt.tensor(np.tile(q, (6, 1)))) @ rotary(mt.tensor(np.tile(k, (6, 1)))).T
print(scores.data.round(2))
assert all(np.ptp(np.diagonal(scores.data, k)) < 1e-9 for k in range(-5, 6))

# %% [markdown]
# Rows are places of the query, columns those of the key: one value along each diagonal.
#
# ### Layers
#
# An **encoder layer** is self-attention, then a small network for each token on its own,
# $f(x) = W_2 \max(W_1 x + b_1, 0) + b_2$. A **decoder layer** is *masked* self-attention, then
# *cross-attention*, whose queries come from the decoder and whose keys and values from the encoder's
# output, then the small network. Each of these steps $f$ is a residual, with a layer normalisation
# $LN$ (lesson 07) in one of two places:
#
# $$\text{post-norm: } x \leftarrow LN(x + f(x)) \qquad\qquad
# \text{pre-norm: } x \leftarrow x + f(LN(x))$$
#
# The paper has the first. The second leaves an unbroken path from the last layer to the first, of
# additions alone. Nothing holds the size of that sum, so one more norm is put at the end of the stack. What
# the place of the norm changes is tried below.
#
# Embeddings are multiplied by $\sqrt D$ before places are added. Ours start with variance $1/D$, so they
# come to variance 1, about the size of sines and cosines.
#
# ### Loss and learning rate
#
# The network ends in scores $z: (K)$ for each next token. Its loss is the cross-entropy (lesson 04),
# $-\sum_k t_k \log \mathrm{softmax}(z)_k$, with **label smoothing**: the target $t$ is no longer 1 at the
# right one of $K$ tokens and 0 elsewhere, but
#
# $$t_k = (1 - \varepsilon) [k = \text{right}] + \varepsilon / K, \qquad dz = \mathrm{softmax}(z) - t,$$
#
# so a network is not driven to be ever more certain. The gradient is 0 where $\mathrm{softmax}(z) = t$. Put
# in, that gives the least loss $-\sum_k t_k \log t_k$: no longer 0, but the entropy of $t$.

# %%
K, epsilon = 10, 0.1
t = np.full(K, epsilon / K)
t[3] += 1 - epsilon
z = mt.tensor(np.log(t)[None], requires_grad=True)  # the best scores: their softmax is t
loss = F.cross_entropy(z, np.array([3]), label_smoothing=epsilon)
loss.backward()
print(f"least loss {loss.item():.4f}, the entropy of t {-(t * np.log(t)).sum():.4f}")
assert np.allclose(z.grad.data, 0)

# %% [markdown]
# The learning rate $\eta_s$ of step $s$ rises during a **warm-up** of $w$ steps and then comes down again:
#
# $$\eta_s = D^{-1/2} \min\left(s^{-1/2}, \; s \, w^{-3/2}\right)$$
#
# The two are equal where $s^{3/2} = w^{3/2}$, at $s = w$. Until then the second is the smaller one.

# %%
steps = np.arange(1, 12001)
paper = 512**-0.5 * np.minimum(steps**-0.5, steps * 4000**-1.5)
optimizer = optim.Adam([nn.Parameter(np.zeros(1))], lr=(512 * 4000) ** -0.5)
schedule = optim.lr_scheduler.InverseSqrtLR(optimizer, warmup_steps=4000)
ours = [schedule.lr_at(step - 1, optimizer.param_groups[0]["initial_lr"]) for step in steps]
assert np.allclose(ours, paper) and steps[paper.argmax()] == 4000

figure, ax = viz.panels(1, 1, width=5.5, height=2.5)
ax.plot(steps, 1000 * paper, color=viz.COLOURS[0])
ax.set(xlabel="step $s$", ylabel="1000 x learning rate")
ax.grid(axis="y")
figure

# %% [markdown]
# *Figure 5. The paper's schedule for $D = 512$, $w = 4000$: up in a straight line, then down as
# $1 / \sqrt s$. The peak, at $s = w$, is $(D w)^{-1/2}$.*

# %% [markdown]
# ## The code
#
# First the equations as loops.


# %%
def attention_loops(q, k, v):
    """q (L, D), k (S, D), v (S, Dv) -> y (L, Dv)."""
    y = np.zeros((len(q), v.shape[1]))
    for i in range(len(q)):
        s = [sum(a * b for a, b in zip(q[i], k[j])) / np.sqrt(q.shape[1]) for j in range(len(k))]
        total = sum(np.exp(s))
        for j in range(len(k)):
            y[i] += np.exp(s[j]) / total * v[j]
    return y


# %% [markdown]
# Then as whole arrays and in the form of a primitive, with the rules derived above. A mask is a
# setting, since it has no gradient: True where a query may look.


# %%
def attention(q, k, v, *, mask=True):
    """q (L, D), k (S, D), v (S, Dv) -> y (L, Dv), and a rule for each."""
    scale = 1 / np.sqrt(q.shape[1])
    s = np.where(mask, scale * q @ k.T, -np.inf)
    p = softmax(s)
    y = p @ v

    def back_to_s(dy):
        return p * (dy @ v.T - (dy * y).sum(axis=1, keepdims=True))

    def vjp_q(dy):
        return scale * back_to_s(dy) @ k

    def vjp_k(dy):
        return scale * back_to_s(dy).T @ q

    def vjp_v(dy):
        return p.T @ dy

    return y, (vjp_q, vjp_k, vjp_v)


# %%
q, k, v = rng.normal(size=(3, 4)), rng.normal(size=(5, 4)), rng.normal(size=(5, 2))
y, _ = attention(q, k, v)
print("loops and arrays agree:     ", np.allclose(y, attention_loops(q, k, v)))

plain = ScaledDotProductAttention()
print("the library's plain form:   ", np.allclose(plain(q, mt.tensor(k), mt.tensor(v)).data, y))
print(
    "F.scaled_dot_product_attention:", np.allclose(F.scaled_dot_product_attention(q, k, v).data, y)
)

# %% [markdown]
# The last one gives the same numbers without ever holding all $L \times S$ weights; lesson 20 derives
# how. The plain form is for looking: a forward hook on its `softmax` is shown the weights.
#
# **Heads** are two reshapes around it. $(N, L, D)$ becomes $(N, L, E, d)$, and the axes of tokens and
# heads change places, so that every head is a batch item of its own.


# %%
class OurMultiheadAttention(nn.Module):
    """E look-ups side by side. x (N, L, D), memory (N, S, D) -> (N, L, D)."""

    def __init__(self, features, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(features, features) for _ in range(4)
        )
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x, memory, hidden=None):
        """`hidden` broadcasts to (N, E, L, S): True where nobody may look."""
        q = self.split(self.query(x))
        k, v = self.split(self.key(memory)), self.split(self.value(memory))
        scores = q @ k.transpose(-2, -1) / np.sqrt(q.shape[-1])
        if hidden is not None:
            scores = F.masked_fill(scores, hidden, -np.inf)
        y = self.softmax(scores) @ v  # (N, E, L, d)
        return self.out(y.transpose(1, 2).reshape(*x.shape))

    def split(self, x):
        N, L, D = x.shape
        return x.reshape(N, L, self.heads, D // self.heads).transpose(1, 2)


# %% [markdown]
# The library's `nn.MultiheadAttention` has PyTorch's parameters: one matrix for queries, keys and
# values, one below the other. In its masks, as in PyTorch's, True means *hidden*.

# %%
mt.manual_seed(0)
ours, library = OurMultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
parts = [ours.query, ours.key, ours.value]
library.load_state_dict(
    {
        "in_proj_weight": F.cat([part.weight for part in parts]),
        "in_proj_bias": F.cat([part.bias for part in parts]),
        "out_proj.weight": ours.out.weight,
        "out_proj.bias": ours.out.bias,
    }
)
x, memory = mt.randn(2, 3, 8), mt.randn(2, 5, 8)
padding = np.array([[False] * 5, [False] * 3 + [True] * 2])
y, weights = library(x, memory, memory, key_padding_mask=padding)
print("our heads agree:", np.allclose(ours(x, memory, padding[:, None, None]).data, y.data))
print("weights of the second sequence, query 0:", weights[1, 0].data.round(2))
print("parameters:", sum(p.numel() for p in library.parameters()), "=", 4 * (8 * 8 + 8))
assert np.allclose(weights.data.sum(axis=-1), 1) and (weights.data[1, :, 3:] == 0).all()

# %% [markdown]
# **A layer** is then a few lines. Here is a pre-norm decoder layer as one function of the library's
# parts; the encoder layer is the same without the mask and without the second step.


# %%
def decoder_layer(layer, x, memory):
    """A pre-norm decoder layer, x (N, L, D), memory (N, S, D) -> (N, L, D)."""
    L = x.shape[1]
    ahead = np.triu(np.ones((L, L), bool), 1)  # True where j > i

    def own(x):
        return layer.self_attn(x, x, x, attn_mask=ahead)[0]

    x = x + own(layer.norm1(x))
    x = x + layer.multihead_attn(layer.norm2(x), memory, memory)[0]
    return x + layer.linear2(F.relu(layer.linear1(layer.norm3(x))))


layer = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
y = layer(x, memory, tgt_is_causal=True)
print("our decoder layer agrees:", np.allclose(decoder_layer(layer, x, memory).data, y.data))

base = nn.TransformerEncoderLayer(512, 8), nn.TransformerDecoderLayer(512, 8)
counts = [sum(p.numel() for p in layer.parameters()) for layer in base]
print(
    f"the paper's layers: {counts[0]:,} and {counts[1]:,} parameters, six of each {6 * sum(counts):,}"
)
assert counts == [3_152_384, 4_204_032] and 6 * sum(counts) == 44_138_496

# %% [markdown]
# ## The gradient check

# %%
ahead = np.tril(np.ones((4, 4), bool))  # True where i may look at j
q, k, v = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
report = mt.check_vjp(attention, q, k, v, mask=ahead)
print(report)

# %%
assert all(np.abs(i.error).max() < 1e-6 for i in report.inputs)
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 6. Causal attention. For each input: the gradient of the rules, the measured one, and the
# error, which is dark throughout. The first query gets no gradient: it sees one key alone.*
#
# Now the mistake of taking the softmax for an elementwise function: $ds = p (1 - p) \, dp$, as for a
# sigmoid. It forgets that a score lowers all *other* weights of its row.


# %%
def elementwise(q, k, v, *, mask=True):
    y, (_, _, vjp_v) = attention(q, k, v, mask=mask)
    scale = 1 / np.sqrt(q.shape[1])
    p = softmax(np.where(mask, scale * q @ k.T, -np.inf))

    def back_to_s(dy):
        return p * (1 - p) * (dy @ v.T)

    def vjp_q(dy):
        return scale * back_to_s(dy) @ k

    def vjp_k(dy):
        return scale * back_to_s(dy).T @ q

    return y, (vjp_q, vjp_k, vjp_v)


wrong = mt.check_vjp(elementwise, q, k, v, mask=ahead, raise_on_failure=False)
print(wrong)

# %%
first, last = (np.abs(wrong.inputs[0].error[i]).max() for i in (0, 3))
assert not wrong.ok and [i.ok for i in wrong.inputs] == [False, False, True]
assert first < 1e-6 < last
of_keys = wrong.inputs[1]
assert np.allclose(of_keys.numeric.sum(axis=0), 0, atol=1e-6)
assert np.abs(of_keys.analytic.sum(axis=0)).max() > 0.1
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 7. The rule of the values is right, those of queries and keys are not, so the mistake lies
# between the weights and the scores. And each column of the keys' measured gradient adds up to 0: one
# vector more on all keys lifts all scores of a query alike, which the softmax does not see. The columns
# of the rule do not add up to 0.*
#
# The first query is right even so: it sees one key alone, whose weight is 1 whatever its score, and there
# both formulas give 0.

# %% [markdown]
# ## At work
#
# ### Writing words backwards
#
# The task of lesson 09: read a word, write it from its last letter to its first. Without attention a
# network had to carry the word in one vector. A Transformer does not read in order at all; all it knows
# of the order are the encodings of places. We train it with them, and without. The network: embeddings and
# places, one encoder layer, one decoder layer, 32 features, 4 heads, pre-norm. Adam's settings are the
# paper's; the peak of the learning rate is half of what the formula gives.


# %%
def train_reversal(positions, seed, steps=300, batch=32, warmup=60):
    """Train on fresh words of 3 to 6 letters; return the network."""
    pairs = reversal_pairs(steps * batch, 3, 6, generator=seed)
    K = len(pairs.target_vocabulary)
    mt.manual_seed(seed)
    model = Seq2SeqTransformer(
        K,
        K,
        d_model=32,
        nhead=4,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dim_feedforward=64,
        dropout=0.0,
        norm_first=True,
        positions=positions,
        max_len=32,
    )
    optimizer = optim.Adam(
        model.parameters(), lr=0.5 * (32 * warmup) ** -0.5, betas=(0.9, 0.98), eps=1e-9
    )
    schedule = optim.lr_scheduler.InverseSqrtLR(optimizer, warmup)
    for source, lengths, target in DataLoader(pairs, batch_size=batch):
        scores = model(source, target[:, :-1], lengths)  # each place is told what came before
        loss = F.cross_entropy(
            scores.reshape(-1, K), target[:, 1:].reshape(-1), ignore_index=0, label_smoothing=0.1
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


# %% [markdown]
# To write, the network is asked for one letter after the other, and is given the likeliest each time.
# Run naively, step $t$ would compute all $t$ tokens again. But in masked self-attention an earlier token
# never looks at a later one: its keys and values do not change. So they are kept, the **key-value
# cache**. `model.start` reads the source, `model.step` takes one more token; greedy and beam search of
# lesson 10 ask for no more than these two.


# %%
def write(model, source, lengths, steps):
    """The likeliest token at each step, (N, L) -> (N, steps)."""
    with mt.no_grad():
        state = model.start(source, lengths)
        tokens, written = np.ones(len(source), int), []  # 1 starts a target
        for _ in range(steps):
            scores, state = model.step(tokens, state)
            tokens = scores.data.argmax(axis=1)
            written.append(tokens)
    return np.stack(written, axis=1)


def shares(model, length, count=200):
    """Of fresh words of a length, in %: written without a mistake; with the right letters, in any order."""
    pairs = reversal_pairs(count, length, length, generator=1000 + length)
    source, lengths, target = next(iter(DataLoader(pairs, batch_size=count)))
    written, wanted = write(model, source, lengths, length + 1), target.data[:, 1:]
    exact = (written == wanted).all(axis=1)
    in_order = np.sort(written[:, :-1], axis=1), np.sort(wanted[:, :-1], axis=1)  # without the end
    letters = np.equal(*in_order).all(axis=1)
    return 100 * exact.mean(), 100 * letters.mean()


SEEDS = 0, 1
models = {
    "with places": [train_reversal("sinusoidal", seed) for seed in SEEDS],
    "without": [train_reversal(None, seed) for seed in SEEDS],
}
accuracy, any_order = {}, {}
for arm, runs in models.items():
    measured = [np.mean([shares(model, n) for n in (3, 4, 5, 6)], axis=0) for model in runs]
    accuracy[arm], any_order[arm] = np.transpose(measured)
    for seed, (exact, letters) in zip(SEEDS, measured, strict=True):
        print(f"{arm:12} seed {seed}: {exact:3.0f} % exact, {letters:3.0f} % the right letters")
assert min(accuracy["with places"]) > 80 and max(accuracy["without"]) < 15
assert min(any_order["without"]) > 60

# %%
viz.plot_arms(accuracy, label="words of 3 to 6 letters without a mistake, %")

# %% [markdown]
# *Figure 8. Two seeds an arm. Without places the encoder sees a bag of letters. The network writes the
# right ones for most words, as the numbers above tell, and has to guess their order.* (Words are drawn anew
# for the test. Short ones may have come up in training, too; of six letters there are half a million.)
#
# ### Where it looks
#
# A hook on the `softmax` of the cross-attention is shown the weights of all heads, $(N, E, L, S)$.

# %%
model, word = models["with places"][0], "baggie"
letters = reversal_pairs(1, generator=0).source_vocabulary
seen = []
softmax_of = model.decoder.layers[0].multihead_attn.softmax
with softmax_of.register_forward_hook(lambda module, inputs, p: seen.append(p.data)):
    text = letters.decode(write(model, letters.encode([word]), np.array([6]), 6))[0]
alignment = np.concatenate(seen, axis=2)[0]  # (E, 6, 6): one row from each step

figure, axes = viz.panels(1, 4, height=2.6)
for e, ax in enumerate(axes):
    table = ax.imshow(alignment[e], cmap="viridis", vmin=0, vmax=1)
    ax.set(xticks=range(6), yticks=range(6), xticklabels=word, xlabel="read", title=f"head {e}")
    ax.set_yticklabels(text if e == 0 else [])
axes[0].set_ylabel("written")
figure.colorbar(table, ax=axes, shrink=0.8, label="weight")
print("written:", text)
figure

# %%
mirror = np.eye(6)[::-1]
on_mirror = (alignment * mirror).sum(axis=(1, 2)) / 6
print("mean weight on the letter to be written, by head:", on_mirror.round(1))
assert text == word[::-1] and on_mirror.max() > 0.4

# %% [markdown]
# *Figure 9. Columns: the letters that were read. Rows: the letters as they are written. The bright
# anti-diagonal is the alignment: to write the first letter, look at the last. Some heads keep to it more
# closely than others. The loss asks for right letters only, not for an alignment.*
#
# Back to the cache: it gives the very scores that the whole prefix gives, for less work.

# %%
source, lengths = letters.encode([word]), np.array([6])
prefix = letters.encode([word[::-1]], framed=True)[:, :-1]  # start, then the letters
with mt.no_grad():
    whole = model(source, prefix, lengths).data[0]
    state, cached = model.start(source, lengths), []
    for token in prefix[0]:
        scores, state = model.step(np.array([token]), state)
        cached.append(scores.data[0])
T = prefix.shape[1]
keys = state["layers"][0]["keys"]  # (N, E, T, d)
print("the same scores:", np.allclose(cached, whole), "- keys in the cache:", keys.shape)
print(f"tokens computed for {T} steps: {T} with the cache, {T * (T + 1) // 2} without")
assert np.allclose(cached, whole) and keys.shape == (1, 4, T, 8)

# %% [markdown]
# ### Pre-norm, post-norm, and the warm-up
#
# The place of the norm matters in deep stacks. So let us stack six layers, on another kind of token: the
# eight rows of a digit's image, each a vector of eight pixels. An encoder looks at the rows, and the mean
# of its outputs is classified. Three arms of three seeds each, with the same batches and the same peak of
# the learning rate, for three epochs. This warm-up is the straight part alone: the rate stays at its peak.


# %%
class RowReader(nn.Module):
    """Digits (N, 1, 8, 8), their rows as tokens, -> scores (N, 10)."""

    def __init__(self, norm_first, depth=6, features=16):
        super().__init__()
        self.embed = nn.Linear(8, features)
        self.places = nn.SinusoidalEncoding(features, max_len=8)
        layer = nn.TransformerEncoderLayer(
            features, 2, 32, dropout=0.0, batch_first=True, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(
            layer, depth, nn.LayerNorm(features) if norm_first else None
        )
        for p in self.encoder.parameters():  # the stack's layers are copies: draw each anew
            if p.ndim > 1:
                nn.init.xavier_uniform_(p)
        self.classify = nn.Linear(features, 10)

    def forward(self, x):
        rows = self.places(self.embed(x[:, 0]))
        return self.classify(self.encoder(rows).mean(dim=1))


def train_rows(norm_first, warmup, seed, epochs=3, peak=0.01):
    """The losses of all steps."""
    mt.manual_seed(seed)
    model = RowReader(norm_first)
    optimizer = optim.Adam(model.parameters(), lr=peak)
    schedule = optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, warmup)
    losses = []
    loader = DataLoader(digits(), batch_size=64, shuffle=True, generator=seed)
    for _ in range(epochs):
        for x, label in loader:
            loss = F.cross_entropy(model(x), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return np.array(losses)


arms = {
    "post-norm, no warm-up": [train_rows(False, 1, seed) for seed in (0, 1, 2)],
    "post-norm, warm-up": [train_rows(False, 60, seed) for seed in (0, 1, 2)],
    "pre-norm, no warm-up": [train_rows(True, 1, seed) for seed in (0, 1, 2)],
}

# %%
figure, axes = viz.panels(1, 3, height=2.9)
for ax, (name, runs), colour in zip(
    axes, arms.items(), viz.COLOURS[1::-1] + viz.COLOURS[2:3], strict=True
):
    for losses in runs:
        smooth = np.convolve(losses, np.ones(8) / 8, mode="valid")
        ax.plot(np.arange(len(smooth)) + 8, smooth, color=colour, linewidth=1.5)
    ax.axhline(np.log(10), color="0.6", linewidth=1, linestyle="--")
    ax.set(title=name, xlabel="step", ylim=(0, 3))
axes[0].set_ylabel("loss, mean of 8 steps")
learned = {name: sum(bool(run[-20:].mean() < 2) for run in runs) for name, runs in arms.items()}
for name, count in learned.items():
    print(f"{name:22} came away from a guess: {count} of 3 runs")
assert list(learned.values()) == [0, 2, 3]
figure

# %% [markdown]
# *Figure 10. Three runs an arm (where they fail, their curves lie one upon the other). The dashed line is the
# loss of a guess among ten. Six post-norm layers at full learning rate from the first step stay there. A
# warm-up of 60 steps mends that in two runs of three; the norm in front mends it in all, without a warm-up.*
#
# Three seeds are few. Of ten that were tried, one post-norm run came away from the guess without a
# warm-up, eight with one, and all ten in pre-norm. And it is a statement about a deep stack at this
# learning rate: at half of it, three of five post-norm runs learned without a warm-up. With one layer, on
# the words above, post-norm learned as surely: 97 % of the words without a mistake, pre-norm 98 % (means of
# three seeds).
#
# What Xiong et al. (2020) take for the reason can be seen before the first step. Here are the gradients
# that reach each layer when the network is new, over twenty initialisations.


# %%
def gradient_norms(norm_first, seed):
    """Size of the gradient of each layer's last matrix, for one batch."""
    mt.manual_seed(seed)
    model = RowReader(norm_first)
    x, label = next(iter(DataLoader(digits(), batch_size=64, shuffle=True, generator=seed)))
    F.cross_entropy(model(x), label).backward()
    return [np.linalg.norm(layer.linear2.weight.grad.data) for layer in model.encoder.layers]


norms = {
    "post-norm": np.array([gradient_norms(False, seed) for seed in range(20)]),
    "pre-norm": np.array([gradient_norms(True, seed) for seed in range(20)]),
}
figure, ax = viz.panels(1, 1, width=6, height=3)
for (name, rows), colour in zip(norms.items(), (viz.COLOURS[1], viz.COLOURS[2]), strict=True):
    low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    ax.fill_between(range(1, 7), low, high, color=colour, alpha=0.2)
    ax.plot(range(1, 7), middle, "o-", color=colour, label=name)
ax.set(xlabel="layer", ylabel="gradient of $W_2$", ylim=(0, None), xticks=range(1, 7))
ax.legend(frameon=False)
assert (np.median(norms["post-norm"], axis=0) > np.median(norms["pre-norm"], axis=0))[-3:].all()
figure

# %% [markdown]
# *Figure 11. Medians, and the middle half of the runs. In the last layers the gradients of a post-norm
# stack are mostly larger than those of a pre-norm stack.*
#
# For the last layer the authors derive bounds that say so: in pre-norm the norm at the end divides by the
# size of a sum to which every layer has added, and the bound falls with the root of the number of layers.
# Large gradients when nothing has been learned yet, they conclude, ask for small steps at first.

# %% [markdown]
# ## Paper and code
#
# | | paper (2017) | elsewhere | here |
# |---|---|---|---|
# | place of the norm | behind the sum (post-norm) | in front in the authors' later code, and in most networks since | `norm_first=False` as PyTorch's default; either |
# | norm at the end of a stack | none | `nn.Transformer` of PyTorch: always | `nn.Transformer` as PyTorch's; `Seq2SeqTransformer` for pre-norm alone |
# | dropout of the weights | not mentioned | in the authors' code, and PyTorch's | as PyTorch's |
# | embeddings and output layer | one matrix for all | often three | three, or one with `share_embeddings=True` |
# | boolean masks | | PyTorch: True *hides* in `nn.MultiheadAttention`, and *shows* in `F.scaled_dot_product_attention` | the same two ways |
# | a query that may look at nothing | | PyTorch's plain form: NaN | zeros |
# | label smoothing | $\varepsilon / K$ for every token | some give the right token $1 - \varepsilon$ and share the rest among the others, without padding | $\varepsilon / K$ for every token |
#
# Two traps. The heads must be made by `reshape(N, L, E, d).transpose(1, 2)`: `reshape(N, E, L, d)` has
# the right shape and mixes tokens. And the decoder's input is the target *shifted*: all but the last in,
# all but the first out, or the network learns to copy.

# %% [markdown]
# ## Predict before you run
#
# **1.** The network was trained on words of 3 to 6 letters. How well does it write words of 9?

# %%
exact, _ = shares(models["with places"][0], 9)
print(f"{exact:.0f} % of the words of 9 letters without a mistake")
assert exact < 5

# %% [markdown]
# <details><summary>Answer</summary>
#
# Not at all. Sines and cosines give every place an encoding, but the network has never met the later
# ones, and has learned no rule that reaches beyond. That an encoding *exists* for all lengths does not
# make a network hold for them.
#
# </details>
#
# **2.** In causal self-attention, where does the first token look, whatever the weights are?

# %%
causal = nn.MultiheadAttention(8, 2, batch_first=True)
y, weights = causal(x, x, x, is_causal=True)
print(weights[0].data.round(2))
assert np.allclose(weights.data[:, 0], [1, 0, 0])

# %% [markdown]
# <details><summary>Answer</summary>
#
# At itself, with weight 1: it may look at nothing else. No gradient reaches its query. It was right in
# Figure 7 for the same reason.
#
# </details>
#
# **3.** An encoder without places is given the letters of `abc`, then of `cab`. How do the outputs of the
# letter `a` differ?

# %%
encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)
abc = mt.randn(1, 3, 8)
cab = abc[:, [2, 0, 1]]
print("the same output:", np.allclose(encoder(abc).data[0, 0], encoder(cab).data[0, 1]))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Not at all: self-attention is a sum over all tokens, in no order, and the small network sees one token at a
# time. Permuted tokens give permuted outputs, through any number of layers.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`11_transformer`](../exercises/11_transformer.ipynb):
#
# 1. **attention_weights**: from queries and keys to weights.
# 2. **attention**: the look-up in primitive form, with the rules of queries, keys and values.
# 3. **may_look**: the mask of a decoder, for causality and padding.
# 4. **places**: the table of sines and cosines.
# 5. **learning_rate**: the schedule with its warm-up.
# 6. **SelfAttention**: heads, as a module.

# %% [markdown]
# ## What to remember
#
# - $y = \mathrm{softmax}(q k^\top / \sqrt D)\, v$: a mean of values. Its backward needs
#   $ds_{ij} = p_{ij} \, dy_i \cdot (v_j - y_i)$.
# - The division keeps the scores' variance at 1, and the softmax out of saturation.
# - Attention knows no order: places are added to the tokens, or turn queries and keys.
# - Encoder: self-attention and a small network. Decoder: masked self-attention, cross-attention, a small
#   network. All residual; deep stacks are easier to train in pre-norm, and post-norm wants a warm-up.
# - Keys and values of earlier tokens never change: keep them when decoding.

# %% [markdown]
# ## Sources
#
# - A. Vaswani and others, *Attention is all you need* (2017): sections 3.1 to 3.5, equation 3 (the
#   schedule), section 5.4 (label smoothing).
# - R. Xiong and others, *On layer normalization in the Transformer architecture* (2020): section 3.
# - J. Su and others, *RoFormer: enhanced Transformer with rotary position embedding* (2021): equation 15.
# - A. Rush and others, *The annotated Transformer* (2018): the paper line by line, in code.
# - The module: `minitorch_attn/nn/multihead_attention.py`, `transformer.py`, `positional_encoding.py`;
#   the plain form: `minitorch_attn/attention/scaled_dot_product.py`; the network:
#   `minitorch_attn/models/transformer.py`.
