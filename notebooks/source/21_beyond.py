# %% [markdown]
# # 21 · Beyond
#
# What was proposed after the modules of the lessons before, seen through one question: who may speak to whom, and
# at what price?
#
# **You will be able to**
#
# - find out who hears of whom in a module by touching one position, and tell a gate from a mixer by silencing one;
# - regroup attention so that its cost grows with the number of positions, not with its square, and derive its
#   backward;
# - build a dozen modules of the literature in a few lines each, and say what each costs.
#
# **You need** lessons 12 (one frame for all), 13 (squeeze and excitation), 18 (non-local) and 11 (Transformer).
#
# **Time** about 60 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import (
    ECA,
    CoordinateAttention,
    CrissCrossAttention,
    DoubleAttention,
    EfficientAttention,
    ExternalAttention,
    GlobalContext,
    LinearAttention,
    NonLocalBlock,
    PatchEmbedding,
    SelectiveKernel,
    SimAM,
    SqueezeExcitation,
    TripletAttention,
)
from minitorch_attn.data import DataLoader, TensorDataset, digits
from minitorch_attn.models import VisionTransformer
from minitorch_attn.training import fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# A handwritten digit passes through a convolution with random weights: a feature map $x$ of 16 channels, 8 by 8
# positions. We *touch* it: at one position, near the middle, every channel is changed a little. Then each module is
# given the map before and after, and we draw at which positions its output *feels* the touch, on a logarithmic scale
# from a hundred-thousandth of the touch to all of it.

# %%
images, labels = digits(train=False)[:]
image = images[int(np.flatnonzero(labels == 3)[2])]  # (1, 8, 8)
mt.manual_seed(0)
C = 16
stem = nn.Conv2d(1, C, 3, padding=1)
with mt.no_grad():
    x = stem(mt.tensor(image[None]))  # (1, 16, 8, 8)

MODULES = {
    "SE": SqueezeExcitation(C, reduction=2),
    "ECA": ECA(C),
    "SimAM": SimAM(),
    "coordinate": CoordinateAttention(C),
    "triplet": TripletAttention(),
    "selective kernel": SelectiveKernel(C, least=8),
    "global context": GlobalContext(C, reduction=2),
    "double": DoubleAttention(C, reduction=2),
    "external": ExternalAttention(C, memories=16),
    "efficient": EfficientAttention(C),
    "criss-cross, once": CrissCrossAttention(C, reduction=2, rounds=1),
    "criss-cross, twice": CrissCrossAttention(C, reduction=2, rounds=2),
}
MODULES["global context"].fc2.reset_parameters()  # these start at 0 and would do nothing
for name in ("criss-cross, once", "criss-cross, twice"):
    MODULES[name].gamma.data = np.ones(1)

touched = np.zeros((1, C, 8, 8))
touched[:, :, 3, 4] = 0.1


def felt(module, x, touch):
    """How much each position of the output changes, relative to the touch: (H, W)."""
    module.eval()
    with mt.no_grad():
        change = module(x + touch).data - module(x).data
    return np.linalg.norm(change[0], axis=0) / np.linalg.norm(touch)


maps = np.stack([felt(module, x, touched) for module in MODULES.values()])
everywhere = dict(zip(MODULES, (maps > 1e-12).mean(axis=(1, 2)), strict=True))
cross, corner = (8 + 8 - 1) / 64, 1 / 64
partly = {"coordinate": cross, "criss-cross, once": cross, "triplet": 1 - corner}
for name, one in zip(MODULES, maps, strict=True):
    assert everywhere[name] == partly.get(name, 1)
    assert name == "selective kernel" or one.argmax() == 3 * 8 + 4
    others = np.delete(one, 3 * 8 + 4)
    if name in ("global context", "double", "external", "efficient"):
        assert others.max() < 1.2 * others.min()

drawn = np.log10(np.clip(maps, 1e-5, 1))
figure, axes = viz.panels(3, 4, height=7.0)
for ax, name, one in zip(axes.ravel(), MODULES, drawn, strict=True):
    picture = ax.imshow(one, cmap="viridis", vmin=-5, vmax=0)
    ax.set(title=name, xticks=[], yticks=[])
figure.colorbar(
    picture, ax=axes, shrink=0.6, label="change / touch", ticks=[-5, -3, -1]
).ax.set_yticklabels(["$10^{-5}$", "$10^{-3}$", "$10^{-1}$"])
figure

# %% [markdown]
# *Figure 1. The touched position feels most, but for the selective kernel, which passes nothing on as it is. What
# the others feel shows whom the module connects. SE, ECA and SimAM tell everybody a little, through means of the
# whole image. Global context, double and efficient attention tell all others the same; so does external attention,
# but hardly anything. Coordinate attention and one round of criss-cross attention tell row and column and nobody
# else; two rounds tell all. Triplet attention tells every row and every column less than four away, which leaves out
# one corner; the selective kernel tells its windows most.*
#
# Two families stand behind these pictures. A **gate** multiplies what is at a position, $y_i = s_i(x) \odot x_i$; a
# touch elsewhere reaches it through $s_i$ alone. A **mixer** brings over what others hold,
# $y_i = x_i + \sum_j w_{ij}(x)\, v_j$. Lesson 12 had both in one frame; here come their younger relatives. A
# position that holds nothing tells the families apart: a gate multiplies, and 0 stays 0 whatever the others hold.

# %%
silent = x.data.copy()
silent[:, :, 6, 1] = 0
gates = []
for name, module in MODULES.items():
    with mt.no_grad():
        made = module(mt.tensor(silent)).data[0, :, 6, 1]
    gates += [name] if (made == 0).all() else []
print("stay silent:    ", "; ".join(gates))
print("bring something:", "; ".join(name for name in MODULES if name not in gates))
assert gates == ["SE", "ECA", "SimAM", "coordinate", "triplet"]

# %% [markdown]
# The selective kernel is a gate, too, but on the outputs of convolutions, and these bring over what the neighbours
# hold.

# %% [markdown]
# ## The equations
#
# As before, $x$ is a feature map $(N, C, H, W)$, or a list of $L = HW$ tokens $x_i$ of $C$ features each; $q_i$,
# $k_i$ and $v_i$ are its queries, keys and values, of $D$ features (lesson 11), and $i$, $j$ run over positions.
#
# Softmax attention needs all $L^2$ weights:
#
# $$y_i = \sum_j w_{ij}\, v_j, \qquad w_{ij} = \frac{e^{q_i \cdot k_j}}{\sum_l e^{q_i \cdot k_l}}$$
#
# (with the scale $1/\sqrt{D}$ put into $q$). In the modules below, $W_o$ is a last linear map, back to the $C$
# channels of $x$. Suppose for a moment that the exponential were not there:
#
# $$\sum_j (q_i \cdot k_j)\, v_j = \sum_j v_j\, (k_j^\top q_i) = \Big(\sum_j v_j k_j^\top\Big)\, q_i$$
#
# The number $q_i \cdot k_j = k_j^\top q_i$ may stand behind the vector $v_j$, and
# $v_j (k_j^\top q_i) = (v_j k_j^\top) q_i$, for matrix products are associative. On the right the sum over $j$ no
# longer depends on $i$. It is a $D \times D$ matrix, and it is worked out *once*. With the tokens as rows of $Q$,
# $K$, $V$ the line reads
#
# $$(Q K^\top)\, V = Q\, (K^\top V)$$
#
# Left of the equals sign there are $2 L^2 D$ multiply-adds, right of it $2 L D^2$. What forbids the regrouping is the
# exponential, which needs each number $q_i \cdot k_j$ by itself. There are five ways around it:
#
# | way | module |
# |---|---|
# | a softmax for each factor, in place of one for the product | efficient attention, double attention |
# | another kernel: $\phi(q_i) \cdot \phi(k_j)$ in place of $e^{q_i \cdot k_j}$ | linear attention |
# | keys and values that are learned, and few | external attention |
# | one query for all positions | global context |
# | fewer pairs $(i, j)$ | criss-cross attention |

# %% [markdown]
# ### Linear attention
#
# Take a function $\phi$ with positive values, applied to each feature, $\phi(a) = \mathrm{elu}(a) + 1$: that is
# $a + 1$ for $a > 0$, and $e^a$ otherwise. Attention with the kernel $\phi(q_i) \cdot \phi(k_j)$ is
#
# $$y_i = \frac{\sum_j (f_i \cdot g_j)\, v_j}{\sum_j f_i \cdot g_j}, \qquad f_i = \phi(q_i), \quad g_j = \phi(k_j)$$
#
# The weights are positive and divided by their sum, so that each $y_i$ is a weighted mean of the values, as with a
# softmax. Regrouped,
#
# $$S = \sum_j g_j v_j^\top \;\; (D \times D), \qquad z = \sum_j g_j \;\; (D), \qquad
# n_i = f_i \cdot z, \qquad y_i = \frac{S^\top f_i}{n_i}$$
#
# ### Backward
#
# From the last equation to the first, with $dy_i$ given. Write $u_i = S^\top f_i$, so that $y_i = u_i / n_i$.
#
# **Quotient.** $n_i$ is a number:
#
# $$du_i = \frac{dy_i}{n_i}, \qquad dn_i = -\frac{u_i \cdot dy_i}{n_i^2} = -\, y_i \cdot du_i$$
#
# **Products.** $u_i = S^\top f_i$ and $n_i = f_i \cdot z$ both hold $f_i$, so two terms add up for it; $S$ and $z$
# take part for every $i$, so their gradients sum over $i$:
#
# $$df_i = S\, du_i + dn_i\, z, \qquad dS = \sum_i f_i\, du_i^\top, \qquad dz = \sum_i dn_i\, f_i$$
#
# **Sums.** $g_j$ is in $S$, with $v_j$, and in $z$; $v_j$ is in $S$ alone:
#
# $$dg_j = dS\, v_j + dz, \qquad dv_j = dS^\top g_j$$
#
# **Kernel.** $\phi'(a)$ is 1 for $a > 0$ and $e^a = \phi(a)$ otherwise; so $\phi'(a) = \min(\phi(a), 1)$:
#
# $$dq_i = df_i \odot \min(f_i, 1), \qquad dk_j = dg_j \odot \min(g_j, 1)$$
#
# There is no $L \times L$ table anywhere, forward or backward.

# %% [markdown]
# ## The code
#
# First as it is defined, pair by pair:


# %%
def phi(a):
    return np.where(a > 0, a + 1, np.exp(np.minimum(a, 0)))


def linear_attention_loops(q, k, v):
    """q, k, v (L, D) -> y (L, D)."""
    y = np.zeros_like(v)
    for i in range(len(q)):
        total = 0.0
        for j in range(len(k)):
            weight = phi(q[i]) @ phi(k[j])
            y[i] += weight * v[j]
            total += weight
        y[i] /= total
    return y


# %% [markdown]
# And regrouped, as a primitive with its three rules, line by line those above:


# %%
def linear_attention(q, k, v):
    """q, k, v (L, D) -> y (L, D), and a rule for each."""
    f, g = phi(q), phi(k)
    S, z = g.T @ v, g.sum(axis=0)
    n = f @ z
    y = f @ S / n[:, None]

    def back(dy):
        du = dy / n[:, None]
        return du, -(y * du).sum(axis=1)

    def vjp_q(dy):
        du, dn = back(dy)
        return (du @ S.T + dn[:, None] * z) * np.minimum(f, 1)

    def vjp_k(dy):
        du, dn = back(dy)
        dS, dz = f.T @ du, dn @ f
        return (v @ dS.T + dz) * np.minimum(g, 1)

    def vjp_v(dy):
        du, _ = back(dy)
        return g @ (f.T @ du)

    return y, (vjp_q, vjp_k, vjp_v)


rng = np.random.default_rng(0)
q, k, v = rng.normal(size=(3, 6, 4))
y, _ = linear_attention(q, k, v)
print("pairs and regrouped agree:", np.allclose(y, linear_attention_loops(q, k, v)))
library = LinearAttention()(mt.tensor(q), mt.tensor(k), mt.tensor(v))
print("the library's agrees:     ", np.allclose(library.data, y, rtol=1e-5))

# %% [markdown]
# (The library adds a millionth to $n_i$, so that the quotient stays finite where all $\phi$ are nearly 0.)
#
# **Causal, it is a recurrent network.** If position $i$ may look at $j \le i$ alone, the two sums become running
# sums. A decoder then needs no cache that grows with the text (lesson 11): a state $(S, z)$ of fixed size is all it
# carries from token to token, like the LSTM of lesson 09.

# %%
state, total, steps = np.zeros((4, 4)), np.zeros(4), []
for q_i, k_i, v_i in zip(q, k, v, strict=True):
    state += np.outer(phi(k_i), v_i)
    total += phi(k_i)
    steps.append(phi(q_i) @ state / (phi(q_i) @ total))

causal = LinearAttention(is_causal=True)(mt.tensor(q), mt.tensor(k), mt.tensor(v))
print("a step at a time agrees:", np.allclose(steps, causal.data, rtol=1e-5))

# %% [markdown]
# ### Efficient attention: two softmaxes
#
# $$Q' = \mathrm{softmax}_{\text{features}}(Q), \qquad K' = \mathrm{softmax}_{\text{positions}}(K), \qquad
# y = x + Q' (K'^\top V)\, W_o^\top$$
#
# Cost: four 1x1 convolutions (for $Q$, $K$, $V$ and $W_o$), and $2 L D^2$ in place of $2 L^2 D$. Each row of
# $Q' K'^\top$ sums to 1, as a softmax's would: $\sum_j \sum_d Q'_{id} K'_{jd} = \sum_d Q'_{id} = 1$. It is another
# function than softmax attention, not an approximation of it.

# %%
x = mt.randn(2, C, 5, 4)  # small maps for the checks of this section


def tokens(x):
    """(N, C, H, W) -> (N, L, C)."""
    return x.flatten(2).transpose(1, 2)


def image_of(tokens, like):
    """(N, L, C) -> (N, C, H, W)."""
    return tokens.transpose(1, 2).reshape(like.shape)


def agrees(ours, theirs):
    print("agrees with the library:", np.allclose(ours.data, theirs.data))


m = EfficientAttention(C)
Q = F.softmax(tokens(m.query(x)), dim=2)
K = F.softmax(tokens(m.key(x)), dim=1)
agrees(x + m.output(image_of(Q @ (K.transpose(1, 2) @ tokens(m.value(x))), x)), m(x))

# %% [markdown]
# ### Double attention (A2-Net): gather, then hand out
#
# $$Z = A\, \mathrm{softmax}_{\text{positions}}(B)^\top, \qquad y = x + W_o\, Z\, \mathrm{softmax}_{\text{features}}(V)$$
#
# where $A$, $B$, $V$ are 1x1 convolutions of $x$ to $m$, $n$ and $n$ channels; here a *column* belongs to a
# position, as in the paper. The columns of $Z$ are $n$ weighted means over the whole image; each position then takes
# its own mixture of them. So what passes between positions has rank $n$ at most.

# %%
m = DoubleAttention(C, reduction=4)
A, B, V = (conv(x).flatten(2) for conv in (m.features, m.gather, m.distribute))
Z = A @ F.softmax(B, dim=2).transpose(1, 2)  # (N, m, n)
agrees(x + m.output((Z @ F.softmax(V, dim=1)).reshape(2, 4, 5, 4)), m(x))

mixing = F.softmax(B, dim=2).transpose(1, 2) @ F.softmax(V, dim=1)  # (N, L, L)
print("rank of the mixing of 20 positions:", np.linalg.matrix_rank(mixing.data[0]))

# %% [markdown]
# Transpose the formula, and it is efficient attention: $V$ here is the query there, $B$ the key, $A$ the value. Two
# groups came to one function. With the parameters of the one put into the other:

# %%
double, twin = DoubleAttention(C, reduction=1), EfficientAttention(C)
for here, there in {"distribute": "query", "gather": "key", "features": "value"}.items():
    getattr(twin, there).load_state_dict(getattr(double, here).state_dict())
twin.output.load_state_dict(double.output.state_dict())
print("double and efficient attention agree:", np.allclose(double(x).data, twin(x).data))

# %% [markdown]
# ### External attention: a memory for all images
#
# $$w = \mathrm{norm}(Q M_k^\top), \qquad y = x + w\, M_v\, W_o^\top$$
#
# $M_k$ and $M_v$, of $S$ rows each, are *parameters*: positions do not look at one another, but at what the network
# knows from all images. The normalisation is a softmax over the positions and then a division by the sum over the
# memory; it is through this softmax alone that a position hears of others, and so little in figure 1. Cost: two
# linear maps, and $2 L S C$ for the memory, whose parameters are $2 S C$ numbers.

# %%
m = ExternalAttention(C, memories=6)
w = F.softmax(m.query(tokens(x)) @ m.memory_key.weight.t(), dim=1)
w = w / (w.sum(dim=2, keepdim=True) + 1e-9)
agrees(x + image_of(m.output(w @ m.memory_value.weight.t()), x), m(x))

# %% [markdown]
# ### Global context (GCNet): one query for all
#
# Its authors looked at the maps of trained non-local blocks (lesson 18), and found that they hardly depend on the
# position that asks. So they let all positions ask the same:
#
# $$a_j = \mathrm{softmax}_j(w_k \cdot x_j), \qquad z = \sum_j a_j x_j, \qquad
# y_i = x_i + W_2\, \mathrm{relu}(\mathrm{LN}(W_1 z))$$
#
# Here $w_k$ is the one query; $W_1$ and $W_2$ lead through a bottleneck of $C / r$ units, with a layer normalisation
# LN inside. Cost: $2 L C + 2 C^2 / r$. With equal weights $a_j = 1/L$, and a gate in place of the sum, it would be
# squeeze and excitation. ($W_2$ starts at 0, so that the block at first does nothing; for the check we draw it
# anew.)

# %%
m = GlobalContext(C, reduction=2)
m.fc2.reset_parameters()
a = F.softmax(m.mask(x).flatten(2), dim=2)  # (N, 1, L)
z = (a @ tokens(x)).squeeze(1)
agrees(x + m.fc2(F.relu(m.norm(m.fc1(z)))).reshape(2, C, 1, 1), m(x))

# %% [markdown]
# ### Criss-cross attention (CCNet): fewer pairs
#
# A position looks along its row and its column, $H + W - 1$ places in place of $HW$, with one softmax over all of
# them. Two rounds with the same parameters take everything everywhere: first along the row, then along the column.
# In a square image $H + W = 2 \sqrt{L}$, so that the scores of all positions cost a multiple of $L^{3/2}$. The
# number $\gamma$ is learned, and starts at 0.
#
# $$y_i = x_i + \gamma \sum_{j \in \mathrm{cross}(i)} \mathrm{softmax}_j(q_i \cdot k_j)\, v_j$$
#
# The check below looks at one position, row 1, column 2.

# %%
m = CrissCrossAttention(C, reduction=2, rounds=1)
m.gamma.data = np.ones(1)
q_map, k_map, v_map = m.query(x), m.key(x), m.value(x)
cross = [(1, j) for j in range(4)] + [(i, 2) for i in range(5) if i != 1]
scores = F.stack([(q_map[:, :, 1, 2] * k_map[:, :, i, j]).sum(dim=1) for i, j in cross], dim=1)
values = F.stack([v_map[:, :, i, j] for i, j in cross], dim=1)  # (N, 8, C)
fetched = (F.softmax(scores, dim=1).unsqueeze(2) * values).sum(dim=1)
agrees(x[:, :, 1, 2] + fetched, m(x)[:, :, 1, 2])

# %% [markdown]
# ### Gates: efficient channel attention, selective kernels
#
# **ECA** you know from lesson 13: with the channels' means $z$, $s = \sigma(\mathrm{conv}_k(z))$ along the channels,
# $k$ parameters. **SK** has several branches, convolutions of $x$ with windows of several sizes. Branch $m$ makes a
# map $u^m$, and each channel picks among the maps:
#
# $$s = \mathrm{mean}\Big(\sum_m u^m\Big), \qquad a^m = \mathrm{softmax}_m(A^m\, \mathrm{relu}(\mathrm{BN}(W s))), \qquad
# y_c = \sum_m a^m_c u^m_c$$
#
# The mean is over the positions, $W$ leads to a bottleneck, and $A^m$ from there to one score a channel for branch
# $m$. The softmax runs over the branches: attention over window sizes.

# %%
m = ECA(C)
z = x.mean(dim=(2, 3)).unsqueeze(1)
agrees(x * F.sigmoid(m.conv(z)).reshape(2, C, 1, 1), m(x))

m = SelectiveKernel(C, least=8).eval()
small, large = (branch(x) for branch in m.branches)
scores = m.select(m.fc((small + large).mean(dim=(2, 3)))).reshape(2, 2, C, 1, 1)
a = F.softmax(scores, dim=1)
agrees(a[:, 0] * small + a[:, 1] * large, m(x))

# %% [markdown]
# ### Coordinate attention: squeeze one axis at a time
#
# The mean over all positions forgets places. The means of rows, $z^h: (N, C, H)$, and of columns, $z^w: (N, C, W)$,
# do not. They are put one behind the other, go through one 1x1 convolution $F_1$, batch normalisation and a hard
# swish, $\mathrm{hswish}(a) = a \min(\max(a + 3, 0), 6) / 6$, and are taken apart again into $f^h$ and $f^w$:
#
# $$[f^h; f^w] = \mathrm{hswish}(\mathrm{BN}(F_1 [z^h; z^w])), \qquad y_{cij} = \sigma(F_h f^h)_{ci}\; \sigma(F_w f^w)_{cj}\; x_{cij}$$
#
# with two more 1x1 convolutions $F_h$ and $F_w$. Each channel's gate is one number a row times one a column, a
# matrix of rank 1.

# %%
m = CoordinateAttention(C).eval()
f = F.hardswish(m.norm(m.fc(F.cat([x.mean(dim=3), x.mean(dim=2)], dim=2))))  # (N, 8, H + W)
rows, columns = F.sigmoid(m.conv_h(f[:, :, :5])), F.sigmoid(m.conv_w(f[:, :, 5:]))
agrees(rows.unsqueeze(3) * columns.unsqueeze(2) * x, m(x))

# %% [markdown]
# ### Triplet attention: CBAM's spatial gate along three axes
#
# CBAM's spatial gate (lesson 15) takes maximum and mean over the channels, and puts a 7x7 convolution on the two
# maps. Here the same is done three times: over the channels, over the rows and over the columns, each by turning the
# feature map, and the three results are averaged. It has $3 \cdot (2 \cdot 49 + 2) = 300$ parameters, the last 2 of
# a batch normalisation, whatever $C$ is. The check takes the branch that squeezes the columns.

# %%
m = TripletAttention().eval()
turned = x.permute(0, 3, 2, 1)  # (N, W, H, C): the columns stand where channels stood
pooled = F.cat([turned.amax(dim=1, keepdim=True), turned.mean(dim=1, keepdim=True)], dim=1)
branch = m.branches["width"]
gate = F.sigmoid(branch.norm(branch.conv(pooled)))  # (N, 1, H, C)
agrees(gate * turned, branch(turned))
print(f"{sum(p.numel() for p in m.parameters())} parameters")

# %% [markdown]
# ### SimAM: no parameters at all
#
# An element stands out if it lies far from its channel's mean $\mu_c$, measured by the channel's variance $v_c$;
# $\lambda$ is a small number that keeps the quotient finite:
#
# $$y_{cij} = x_{cij}\; \sigma\Big(\frac{(x_{cij} - \mu_c)^2}{4 (v_c + \lambda)} + \frac{1}{2}\Big)$$

# %%
m = SimAM()
d = (x - x.mean(dim=(2, 3), keepdim=True)) ** 2
variance = x.var(dim=(2, 3), keepdim=True)
agrees(x * F.sigmoid(d / (4 * (variance + 1e-4)) + 0.5), m(x))

# %% [markdown]
# ### Vision Transformer: patches as tokens
#
# If attention mixes positions, are convolutions needed at all? The Vision Transformer cuts the image into patches of
# $R \times R$ pixels, makes a token of each by one linear map, puts one more token in front, the *class token*, adds
# a learned vector for each place, and leaves everything else to the Transformer's encoder (lesson 11). The scores of
# the classes are read from what has become of the class token. Cutting and mapping is a convolution whose stride is
# its kernel's size.

# %%
embed = PatchEmbedding(channels=1, features=6, patch_size=2)
picture = mt.tensor(image[None])
patches = image[0].reshape(4, 2, 4, 2).swapaxes(1, 2).reshape(16, 4)  # 16 patches of 4 pixels
agrees(mt.tensor(patches[None]) @ embed.weight.reshape(6, 4).t() + embed.bias, embed(picture))

vit = VisionTransformer(
    image_size=8,
    patch_size=2,
    layers=3,
    features=48,
    heads=4,
    hidden=96,
    num_classes=10,
    in_channels=1,
)
print(f"a small one for digits: {sum(p.numel() for p in vit.parameters()):,} parameters")

# %% [markdown]
# ### What they cost
#
# The multiply-adds of convolutions and matrix products, counted by running each module once on 16 channels, for
# larger and larger images, with the non-local block of lesson 18 beside them. Means, sums and products of elements
# are not in the count; every module needs some, and they grow with $L$.

# %%
SIDES = 8, 16, 32, 64
PRICED = {
    "non-local": NonLocalBlock(C),
    "criss-cross, twice": MODULES["criss-cross, twice"],
    "efficient": MODULES["efficient"],
    "global context": MODULES["global context"],
    "SE": MODULES["SE"],
}
costs = {
    name: [mt.summary(module, (C, side, side)).multiply_adds for side in SIDES]
    for name, module in PRICED.items()
}
growth = {name: cost[-1] / cost[-2] for name, cost in costs.items()}  # for 4 times the positions
for name, factor in growth.items():
    print(f"{name:20} 4 times the positions cost {factor:.1f} times as much")
assert growth["non-local"] > 15 and 3.9 < growth["efficient"] < 4.1 and growth["SE"] == 1
assert 4.1 < growth["criss-cross, twice"] < 8

figure, ax = viz.panels(height=3.6)
for (name, cost), colour in zip(costs.items(), viz.COLOURS, strict=False):
    ax.loglog([side**2 for side in SIDES], cost, "o-", color=colour, label=name)
ax.set(xlabel="positions L", ylabel="multiply-adds")
ax.set_xticks([side**2 for side in SIDES], [f"{side}x{side}" for side in SIDES])
ax.minorticks_off()
ax.grid()
ax.legend(fontsize=9, frameon=False)
figure

# %% [markdown]
# *Figure 2. On logarithmic scales a power of $L$ is a straight line and its slope the power: 2 for the non-local
# block, at most $3/2$ for criss-cross attention, 1 for efficient attention and global context. The two small
# matrices of SE do not see how large the image is.*

# %% [markdown]
# ## The gradient check
#
# The rules of linear attention against central differences (lesson 03):

# %%
report = mt.check_vjp(linear_attention, q, k, v)
print(report)

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 3. Left the gradients that the rules give, in the middle the measured ones, right the errors: dark
# throughout.*
#
# And with a mistake that is easily made: the quotient's lower part is taken as a constant, $dn_i = 0$.


# %%
def normaliser_forgotten(q, k, v):
    y, (_, _, vjp_v) = linear_attention(q, k, v)
    f, g = phi(q), phi(k)
    n = f @ g.sum(axis=0)

    def vjp_q(dy):
        return (dy / n[:, None]) @ (g.T @ v).T * np.minimum(f, 1)

    def vjp_k(dy):
        return v @ (f.T @ (dy / n[:, None])).T * np.minimum(g, 1)

    return y, (vjp_q, vjp_k, vjp_v)


wrong = mt.check_vjp(normaliser_forgotten, q, k, v, raise_on_failure=False)
print(wrong)
assert [one.ok for one in wrong.inputs] == [False, False, True]

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 4. The rules of $q$ and $k$ are wrong; that of $v$, which is not in the quotient's lower part, is right. An
# error that spares exactly one input says where to look.*

# %% [markdown]
# ## At work
#
# ### The marked digit
#
# A picture is a grid of $4 \times 4$ handwritten digits. One of them is marked. Six or more of the sixteen are of
# the marked digit's class: which? Each position must be told of the class of one other position, and compare it with
# its own. The class is drawn anew for each picture, so that a position by itself says nothing.

# %%
SIDE = 4
DIGITS = {"train": digits()[:], "test": digits(train=False)[:]}


def marked_digits(part, count, seed):
    """Pictures (count, 65, 4, 4) of 64 pixels and the mark, and 1 where the class is that of the marked."""
    rng = np.random.default_rng(seed)
    images, labels = DIGITS[part]
    L = SIDE**2
    shown = rng.integers(10, size=(count, L))
    mark = rng.integers(L, size=count)
    told = shown[np.arange(count), mark]
    alike = rng.random((count, L)).argsort(axis=1) < 6
    shown = np.where(alike, told[:, None], shown)
    x = np.zeros((count, L, 65))
    for digit in range(10):
        of_class = np.flatnonzero(labels == digit)
        chosen = rng.choice(of_class, size=(shown == digit).sum())
        x[shown == digit, :64] = images[chosen].reshape(-1, 64)
    x[np.arange(count), mark, 64] = 1
    target = (shown == told[:, None]).astype(float)
    return x.swapaxes(1, 2).reshape(count, 65, SIDE, SIDE), target.reshape(count, SIDE, SIDE)


pictures, targets = marked_digits("test", 2, seed=3)
assert (targets.sum(axis=(1, 2)) >= 6).all() and (pictures[:, 64].sum(axis=(1, 2)) == 1).all()


def side_by_side(picture):
    """Pixels (64, 4, 4) -> one image (40, 40), with grey between the digits."""
    framed = np.full((SIDE, SIDE, 10, 10), 0.4)
    framed[:, :, 1:9, 1:9] = picture.transpose(1, 2, 0).reshape(SIDE, SIDE, 8, 8)
    return framed.swapaxes(1, 2).reshape(10 * SIDE, 10 * SIDE)


figure, axes = viz.panels(2, 2, height=7.2)
for n, (left, right) in enumerate(axes):
    left.imshow(side_by_side(pictures[n, :64]), cmap="gray")
    (row,), (column,) = np.nonzero(pictures[n, 64])
    around = np.array([0, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 0])
    left.plot(10 * (column + around[0]) - 0.5, 10 * (row + around[1]) - 0.5, color="#e69f00", lw=3)
    left.set(xticks=[], yticks=[], title="picture")
    right.imshow(targets[n], cmap="viridis")
    right.set(xticks=[], yticks=[], title="of the marked class (yellow)")
figure

# %% [markdown]
# *Figure 5. Two pictures with their marked digit (frame), and the places of its class (yellow).*
#
# The network reads each digit by itself (two 1x1 convolutions, 16 channels), then comes *one* module, then two 1x1
# convolutions decide for each position by itself. Everything but the module is the same, and so are data, budget and
# seeds. (The modules have from no parameters, SimAM, to 1,088: the three in the last rows.)


# %%
class Linear(nn.Module):
    """Linear attention between the positions of an image, with maps around it as efficient attention has."""

    def __init__(self, channels):
        super().__init__()
        self.project = nn.Conv2d(channels, 3 * channels, 1)
        self.attend = LinearAttention()
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        q, k, v = (tokens(part) for part in F.chunk(self.project(x), 3, dim=1))
        return x + self.output(image_of(self.attend(q, k, v), x))


ARMS = {
    "none": nn.Identity,
    "SE": lambda: SqueezeExcitation(C, reduction=2),
    "SimAM": SimAM,
    "global context": lambda: GlobalContext(C, reduction=2),
    "double": lambda: DoubleAttention(C, reduction=1),
    "efficient": lambda: EfficientAttention(C),
    "linear": lambda: Linear(C),
}
SEEDS = 0, 1
EPOCHS = 12


class Reader(nn.Module):
    """Pictures (N, 65, 4, 4) -> a score for each position (N, 4, 4): above 0 it is alike."""

    def __init__(self, module):
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(65, 32, 1), nn.ReLU(), nn.Conv2d(32, C, 1))
        self.module = module
        self.head = nn.Sequential(nn.Conv2d(C, 64, 1), nn.ReLU(), nn.Conv2d(64, 1, 1))

    def forward(self, x):
        return self.head(self.module(self.embed(x))).squeeze(1)


def share_right(arm, seed):
    """Positions of 500 unseen pictures that are told rightly after training, in %."""
    mt.manual_seed(seed)
    model = Reader(ARMS[arm]())
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    data = TensorDataset(*marked_digits("train", 1500, seed))
    loader = DataLoader(data, batch_size=50, shuffle=True, generator=seed)
    fit(
        model,
        loader,
        optimizer=optimizer,
        epochs=EPOCHS,
        loss=F.binary_cross_entropy_with_logits,
        scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(loader)),
        scheduler_every="batch",
        progress=False,
    )
    x, target = marked_digits("test", 500, seed=1000)
    model.eval()
    with mt.no_grad():
        return 100 * ((model(mt.tensor(x)).data > 0) == target).mean()


outcomes = {arm: [share_right(arm, seed) for seed in SEEDS] for arm in ARMS}
for arm, runs in outcomes.items():
    print(f"{arm:16}", "  ".join(f"{run:.1f} %" for run in runs))

counts = {arm: sum(p.numel() for p in build().parameters()) for arm, build in ARMS.items()}
assert counts["SimAM"] == 0 and counts["double"] == counts["efficient"] == counts["linear"] == 1088
assert abs(np.mean(outcomes["none"]) - 59) < 1 and 62 < min(outcomes["SE"])
for arm in ("SimAM", "double", "efficient", "linear"):
    assert min(outcomes[arm]) > max(outcomes["SE"])
assert 3 < np.abs(np.subtract(outcomes["double"], outcomes["efficient"])).max() < 5

# %%
viz.plot_arms(outcomes, label="positions told rightly, %")

# %% [markdown]
# *Figure 6. A dot is one seed, the bar their mean.*
#
# Without a module nobody knows what is marked, and the best a position can do is to guess from the mark alone: the
# marked one says yes, and is right; the others say no, and are wrong with probability
# $6/16 + 10/16 \cdot 1/10 = 0.44$. That makes 59 % right. SE helps: the most frequent class of the picture is in its
# means, and most often that is the marked one. Mixers that give each position its own question (double, efficient,
# linear) do better than SE, on these two seeds and on three more that we tried. So does global context as a rule,
# one question for all; one of its five starts had not found out in twelve passes over the data, and stayed behind
# SE. And SimAM, a gate without a parameter, is ahead of SE on all five, too: the layers in front of it can be
# trained to make features whose distance from their mean says something.
#
# Beware of the order of the last three. Double and efficient attention are *one function* here, and yet with one of
# the seeds they lie about four points apart, and with one of the three others nearly nine: so much is chance, of the
# draw of the first parameters. Two seeds and one small task
# tell nothing about which module is best, and nothing about ImageNet. They do tell what the pictures at the top
# told: ask first *who must hear of whom* in your task, then try the cheapest module that lets them. And try it, for
# SimAM shows that being a gate alone does not decide.

# %% [markdown]
# ## Paper and code
#
# | | paper | code | here |
# |---|---|---|---|
# | ECA | computes $k$ from $C$ | is handed $k$, 3 by default | from $C$, or handed |
# | GCNet | the context is added | added, and $W_2$ starts at 0; a well-known port gates with it instead | as the code, or a gate |
# | SK | a 5x5 window, as a 3x3 kernel of dilation 2; 32 groups | the same | the same; 1 group, can be set |
# | external attention | two memories | one memory for both, batch normalisation and a ReLU behind | as the paper |
# | SimAM | variance divided by $HW$ | by $HW - 1$ | as the code |
# | criss-cross | $H + W - 1$ weights | $H + W$, of which one is put to 0 by a score of $-\infty$ | as the code |
# | linear attention | nothing added below the line | $10^{-6}$ | as the code |
#
# One warning belongs here. A popular collection of such modules has a double attention that calls softmax without
# naming an axis; on its inputs of three axes that means the *batch*. For a batch of one all weights are 1, for
# larger ones images compete with one another, and no error is raised. Lesson 03's advice holds for modules, too:
# compare with loops written from the paper.

# %% [markdown]
# ## Predict before you run
#
# **1.** The positions of the feature map are shuffled, all in the same way for all channels, and shuffled back
# behind the module. Which modules do not notice?

# %%
order = np.random.default_rng(1).permutation(64)
mt.manual_seed(1)
x = mt.randn(1, C, 8, 8)
shuffled = x.flatten(2)[:, :, order].reshape(1, C, 8, 8)
for name, module in MODULES.items():
    module.eval()
    before, after = module(x).data.reshape(C, 64), module(shuffled).data.reshape(C, 64)
    print(f"{name:20} {'does not notice' if np.allclose(before[:, order], after) else 'notices'}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Those that sum over all positions alike: SE, ECA, SimAM, global context, double, external and efficient attention.
# Who knows rows, columns or neighbours notices: coordinate, triplet and criss-cross attention, and the selective
# kernel.
#
# </details>
#
# **2.** All queries and keys are multiplied by 10. Attention with a softmax becomes choosier. And linear attention?

# %%
q, k = rng.normal(size=(2, 20, 4))


def largest_weight(kernel, factor):
    w = kernel(factor * q, factor * k)
    return (w / w.sum(axis=1, keepdims=True)).max(axis=1).mean()


def exponential(q, k):
    scores = q @ k.T
    return np.exp(scores - scores.max(axis=1, keepdims=True))  # the factor cancels


for factor in (1, 10, 100):
    soft = largest_weight(exponential, factor)
    linear = largest_weight(lambda q, k: phi(q) @ phi(k).T, factor)
    print(
        f"times {factor:<3} largest weight of 20, on average: softmax {soft:.2f}, linear {linear:.2f}"
    )

# %% [markdown]
# <details><summary>Answer</summary>
#
# A little, and then no more. For large factors $\phi(ca)$ is near 0 where the feature $a$ is negative; where it is
# positive, $\phi(ca) = ca + 1$ is about $c$ times $a$, and $c$ cancels in the quotient. There is nothing like the
# exponential, which lets the largest score take all. That is its price: it can mix, but hardly pick.
#
# </details>
#
# **3.** Linear attention's table of weights for 20 tokens with 4 features: what is its rank?

# %%
f, g = phi(q), phi(k)
print("linear: ", np.linalg.matrix_rank((f @ g.T) / (f @ g.sum(axis=0))[:, None]))
print("softmax:", np.linalg.matrix_rank(np.exp(q @ k.T)))

# %% [markdown]
# <details><summary>Answer</summary>
#
# 4, the number of features: it is a product of $(20, 4)$ and $(4, 20)$, and dividing rows by numbers changes no
# rank. The exponential, taken element by element, makes the softmax's table full.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`21_beyond`](../exercises/21_beyond.ipynb):
#
# 1. **linear_attention**: regrouped, with its three rules.
# 2. **causal**: the same, a token at a time.
# 3. **simam**: no parameters, and a rule with two paths.
# 4. **criss_cross_weights**: one softmax over a row and a column.
# 5. **patches**: an image as a list of patches, and back by the rule.
# 6. **GlobalContext**: the module.

# %% [markdown]
# ## What to remember
#
# - A gate weighs what is there, a mixer brings what is elsewhere. Silence one position to see which you have, touch
#   one to see who hears of it.
# - $(QK^\top)V = Q(K^\top V)$: without the exponential between $Q$ and $K$ attention is linear in the number of
#   positions, and its table of weights has the rank of the features.
# - A softmax for each factor, another kernel, a learned memory, one query, fewer pairs: five ways to get there.
# - Which of them helps is a question of the task: train each from several seeds, and see how far the seeds differ.

# %% [markdown]
# ## Sources
#
# - A. Katharopoulos and others, *Transformers are RNNs*, ICML 2020. Z. Shen and others, *Efficient Attention*, WACV
#   2021.
# - Y. Chen and others, *A2-Nets: Double Attention Networks*, NeurIPS 2018. M.-H. Guo and others, *Beyond
#   Self-attention: External Attention using Two Linear Layers*, TPAMI 2022.
# - Y. Cao and others, *GCNet*, ICCV Workshops 2019. Z. Huang and others, *CCNet*, ICCV 2019.
# - Q. Wang and others, *ECA-Net*, CVPR 2020. X. Li and others, *Selective Kernel Networks*, CVPR 2019. Q. Hou and
#   others, *Coordinate Attention*, CVPR 2021. D. Misra and others, *Rotate to Attend*, WACV 2021. L. Yang and
#   others, *SimAM*, ICML 2021.
# - A. Dosovitskiy and others, *An Image is Worth 16x16 Words*, ICLR 2021.
