# %% [markdown]
# # 23 · Cross-dimensional weighting (CroW)
#
# A descriptor of an image that weighs the places and the channels of a feature map, and learns
# nothing.
#
# **You will be able to**
#
# - compute CroW's weights of places and of channels, and say what its two powers do, and which of
#   them a search never notices;
# - derive the gradient that goes back through a normalised weight, and check it;
# - find out by controls whether weights help because they point at the right places, or by chance.
#
# **You need** lessons 07, 08 and 22: networks, and how images are searched by descriptors.
#
# **Time** about 45 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import CroW
from minitorch_attn.data import DataLoader, cluttered_digits, photograph
from minitorch_attn.retrieval import (
    Index,
    PCAWhitening,
    expand_queries,
    gem,
    l2_normalized,
    mac,
    mean_average_precision,
    rmac,
)
from minitorch_attn.training import fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# A network has turned an image into a feature map. To search for the image we need one vector, and the
# plainest is the sum over all places. But an empty place then counts like a place that is full of
# things, and a channel that answers everywhere like one that answers seldom and says more.
#
# Below, a feature map with seven channels of a photograph, made by hand: four of them answer to edges in
# one direction each, one to what is dark, one to red, one to green. Each is 0 where it has nothing to
# say. *Cross-dimensional weighting*, CroW, makes two kinds of weights of this feature map. A place
# weighs more where the channels together are more active. A channel weighs more if it is active in fewer
# places, as a rare word tells more about a text than a frequent one.

# %%
photo = photograph("china").astype(float)
red, green, blue = photo[:, 1:-1, 1:-1]
rows = np.array([[-1.0, -1, -1], [0, 0, 0], [1, 1, 1]]) / 3
diagonal = np.array([[-1.0, -1, 0], [-1, 0, 1], [0, 1, 1]]) / 3
kernels = np.stack([rows, diagonal, rows.T, diagonal[:, ::-1]])[:, None]  # (4, 1, 3, 3)
edges = F.conv2d(mt.tensor(photo.mean(axis=0)[None, None]), mt.tensor(kernels)).abs().data[0]
dark = 0.3 - photo.mean(axis=0)[1:-1, 1:-1]
colours = red - np.maximum(green, blue) - 0.1, green - np.maximum(red, blue) - 0.02
channels = np.maximum(np.stack([*edges - 0.1, dark, *colours]), 0)
x = F.max_pool2d(mt.tensor(channels[None]), 8)  # (1, 7, 53, 79)

crow = CroW()
s, t = crow.spatial(x), crow.channel(x)  # (1, 53, 79) and (1, 7)
sky = s.data[0, :12, -20:]
assert sky.max() < s.data.mean() / 4
viz.show_attention(photo, s, label="weight s")

# %%
active = (x.data[0] > 0).mean(axis=(1, 2))
names = ["edge —", "edge /", "edge |", "edge \\", "dark", "red", "green"]
figure, axes = viz.panels(1, 2, height=2.6)
viz.show_channel_weights(active, label="share of places", value_range=(0, 1), ax=axes[0])
viz.show_channel_weights(t[0], label="weight t", ax=axes[1])
for ax in axes:
    ax.set_xticks(range(7), labels=names, rotation=45)
assert (np.argsort(active) == np.argsort(-t.data[0])).all() and names[active.argmin()] == "red"
figure

# %% [markdown]
# *Figure 1. Above, the weights of the places: the building and the trees count, the sky does not. Below,
# for each channel the share of places where it is active, and its weight. Red is the rarest and weighs
# most.*
#
# Nothing here is learned. The weights are read off the feature map itself, by two formulas of a line
# each, and can be put behind any network.

# %% [markdown]
# ## The equations
#
# Let $x$ be the feature map of one image, of shape $(C, H, W)$, with no negative numbers in it: it comes
# from a ReLU. Write $x_{cij}$ for channel $c$ at row $i$ and column $j$.
#
# **Places.** First add up the channels, then divide by the length of what comes out (its $a$-norm), then
# take a root:
#
# $$s'_{ij} = \sum_c x_{cij}, \qquad
# s_{ij} = \left(\frac{s'_{ij}}{\big(\sum_{kl} s'^{\,a}_{kl}\big)^{1/a}}\right)^{1/b}
# \qquad s', s: (H, W)$$
#
# The paper takes $a = b = 2$.
#
# **Channels.** Let $q_c$ be the share of places where channel $c$ is active,
# $q_c = \frac{1}{HW} \#\{(i,j) : x_{cij} > 0\}$. Then
#
# $$t_c = \log \frac{\sum_d q_d}{q_c} \qquad t: (C,)$$
#
# and $t_c = 0$ where $q_c = 0$. Text search weighs words in this way, by the *inverse document
# frequency*: there, by how many texts a word stands in.
#
# **The descriptor** is a weighted sum over the places:
#
# $$y_c = t_c \sum_{ij} s_{ij}\, x_{cij} \qquad y: (C,)$$
#
# For a search it is divided by its length, whitened (lesson 22) and divided by its length again. With
# all weights 1 it would be the plain sum, which up to its length is SPoC.

# %% [markdown]
# ### What the powers do
#
# Pull the norm out of the root. It is one number for the whole image, so
#
# $$y_c = \frac{t_c}{\big(\sum_{kl} s'^{\,a}_{kl}\big)^{1/ab}} \; \sum_{ij} s'^{\,1/b}_{ij}\, x_{cij}$$
#
# **$a$ changes the length of $y$ alone**, not its direction. A search compares directions: it never
# notices $a$.
#
# **$b$ matters.** At $b = 1$ a place with twice the activity weighs twice as much. As $b$ grows, $1/b$
# goes to 0 and all places where anything is active weigh alike, which is the plain sum again. As $b$
# falls towards 0, the most active place is all that is left.
#
# A picture of twice the contrast has $2x$ in place of $x$. Then $s$ is the same (norm and activity both
# double), $q$ and $t$ are the same, and $y$ doubles: its direction stays.

# %% [markdown]
# ### Backward
#
# Nothing in CroW needs a gradient to be learned. But a network in front of it can be trained through it.
# As always, $dy$ stands for $\partial L / \partial y$ and has the shape of $y$.
#
# **Channels.** $q_c$ counts. It does not change when positive numbers change by a little, and a 0 behind a
# ReLU stays 0 when the number in front of it, below 0, changes by a little. So $t_c$ is a constant.
#
# **The weighted sum.** The product $s_{ij}\, x_{cij}$ has two factors. $s_{ij}$ takes part in all
# channels, so its gradient adds them up:
#
# $$ds_{ij} = \sum_c t_c\, dy_c\, x_{cij}$$
#
# and $x_{cij}$, through this product alone, gets $s_{ij}\, t_c\, dy_c$.
#
# **From $s$ to $s'$.** Take logarithms, so that the quotient becomes a difference:
#
# $$\log s_{ij} = \frac{1}{b} \log s'_{ij} - \frac{1}{ab} \log \sum_{kl} s'^{\,a}_{kl}$$
#
# Differentiate with respect to $s'_{kl}$. The first term depends on it only for $(i,j) = (k,l)$; the
# second always. With $p_{kl} = s'^{\,a}_{kl} / \sum_{mn} s'^{\,a}_{mn}$, which are shares that sum to 1,
# and $\delta = 1$ for $(i,j) = (k,l)$ and 0 otherwise,
#
# $$\frac{\partial \log s_{ij}}{\partial s'_{kl}}
# = \frac{1}{b\, s'_{kl}} \left( \delta - p_{kl} \right)$$
#
# The derivative of $s_{ij}$ itself is $s_{ij}$ times this, by the chain rule for the logarithm. And by the
# chain rule once more, $ds'_{kl}$ sums over all $(i, j)$ the product of $ds_{ij}$ with it. Write
# $e_{ij} = ds_{ij}\, s_{ij}$, and $E$ for the sum of all $e_{ij}$. Then
#
# $$ds'_{kl} = \frac{e_{kl} - p_{kl}\, E}{b\, s'_{kl}}$$
#
# **$E$ is known already.** $E = \sum_{ij} s_{ij} \sum_c t_c\, dy_c\, x_{cij} = \sum_c dy_c\, y_c$. And so is
# $p$: compare it with $s$, and find $p_{kl} = s_{kl}^{\,ab}$.
#
# **From $s'$ to $x$.** Each $x_{ckl}$ enters the sum $s'_{kl}$ with weight 1. Both paths together:
#
# $$\boxed{\; dx_{ckl} = \underbrace{s_{kl}\, t_c\, dy_c}_{\text{the weighted sum}}
# + \underbrace{\frac{e_{kl} - p_{kl} \sum_d dy_d\, y_d}{b\, s'_{kl}}}_{\text{the weights}} \;}$$
#
# The second term is the same for all channels. Its numerator asks whether a place has a larger share in
# what the loss sees than in the norm: weight that one place gains is taken from the others.
#
# Where $s'_{kl} = 0$ no channel is active. There is nothing to weigh, and the second term is left out: the
# ReLU in front would let no gradient through.

# %% [markdown]
# ### What it costs
#
# No parameters, and $CHW$ multiplications for the weighted sum; the activity and the counts take $CHW$
# additions each. A single 1x1 convolution from $C$ to $C$ channels has $C^2 HW$ multiplications.

# %% [markdown]
# ## The code
#
# First the equations as loops, for one image.


# %%
def crow_loops(x, a=2, b=2):
    """x (C, H, W) -> y (C,)."""
    C, H, W = x.shape
    places = [(i, j) for i in range(H) for j in range(W)]
    activity = {(i, j): sum(x[c, i, j] for c in range(C)) for i, j in places}
    norm = sum(v**a for v in activity.values()) ** (1 / a)
    q = [sum(x[c, i, j] > 0 for i, j in places) / (H * W) for c in range(C)]
    y = np.zeros(C)
    for c in range(C):
        for i, j in places:
            y[c] += (activity[i, j] / norm) ** (1 / b) * x[c, i, j]
        y[c] *= np.log(sum(q) / q[c]) if q[c] > 0 else 0
    return y


# %% [markdown]
# Now for a batch, as arrays and in primitive form, with the rule in the box. `where` keeps the two
# divisions from dividing by zero: for a channel that is never active, and for a place where nothing is.


# %%
def crow_weights(x, a=2, b=2):
    """x (N, C, H, W) -> activity s' (N, H, W), weights s (N, H, W) and t (N, C)."""
    activity = x.sum(axis=1)
    norm = (activity**a).sum(axis=(1, 2), keepdims=True) ** (1 / a)
    s = (activity / np.where(norm > 0, norm, 1)) ** (1 / b)
    q = (x > 0).mean(axis=(2, 3))
    t = np.log(np.where(q > 0, q.sum(axis=1, keepdims=True) / np.where(q > 0, q, 1), 1))
    return activity, s, t


def crow_pool(x, *, a=2, b=2):
    """x (N, C, H, W), none negative -> y (N, C), and the rule of x."""
    activity, s, t = crow_weights(x, a, b)
    y = t * np.einsum("nhw,nchw->nc", s, x)

    def vjp_x(dy):
        e = s * np.einsum("nc,nchw->nhw", t * dy, x)
        E = (dy * y).sum(axis=1)[:, None, None]
        p = s ** (a * b)
        through_s = (e - p * E) / (b * np.where(activity > 0, activity, 1))
        return s[:, None] * (t * dy)[:, :, None, None] + through_s[:, None]

    return y, vjp_x


# %%
rng = np.random.default_rng(0)
small = np.maximum(rng.normal(size=(2, 5, 3, 4)), 0)
y, _ = crow_pool(small)
print("loops and arrays agree: ", np.allclose(y, [crow_loops(one) for one in small]))
print("library's module agrees:", np.allclose(CroW()(mt.tensor(small)).data, y))
print(
    "and with other powers:  ",
    np.allclose(CroW(a=3, b=1)(small).data, crow_pool(small, a=3, b=1)[0]),
)

# %% [markdown]
# The library's `CroW` has its weights as submodules, `spatial` and `channel`; a forward hook on one of
# them sees its weights. Either can be left out.

# %%
CroW()

# %% [markdown]
# ## The gradient check
#
# In a network CroW stands behind a ReLU. So does it here: the zeros of the feature map then stay zeros
# when the input is moved a little, as central differences do (lesson 03). Without the ReLU a zero would
# become active, and the weight of its channel would jump.


# %%
def behind_relu(z, *, a=2, b=2):
    """Feature maps before their ReLU z (N, C, H, W) -> y (N, C), and the rule of z."""
    y, vjp_x = crow_pool(np.maximum(z, 0), a=a, b=b)

    def vjp_z(dy):
        return vjp_x(dy) * (z > 0)

    return y, vjp_z


z = rng.normal(size=(1, 5, 3, 4))
for a, b in (2, 2), (1, 1), (3, 0.5):
    report = mt.check_vjp(behind_relu, z, a=a, b=b)
    print(f"a = {a}, b = {b}: {'passed' if report.ok else 'failed'}")
print(report)

# %%
viz.draw_gradcheck(mt.check_vjp(behind_relu, z))

# %% [markdown]
# *Figure 2. The rule, the measured gradient, and their difference, dark throughout. The five channels
# stand side by side, with a grey line between them. White cells in the first two are places where the
# ReLU is silent.*
#
# And the mistake that is easiest to make. Someone takes the norm for a constant, and so forgets that a
# place that gains weight takes it from the others. On a feature map without zeros:


# %%
def norm_taken_as_constant(x, *, a=2, b=2):
    activity, s, t = crow_weights(x, a, b)

    def vjp_x(dy):
        e = s * np.einsum("nc,nchw->nhw", t * dy, x)
        through_s = e / (b * activity)
        return s[:, None] * (t * dy)[:, :, None, None] + through_s[:, None]

    return crow_pool(x, a=a, b=b)[0], vjp_x


full = np.abs(rng.normal(size=(1, 5, 3, 4))) + 0.1
assert mt.check_vjp(crow_pool, full).ok
wrong = mt.check_vjp(norm_taken_as_constant, full, raise_on_failure=False)
print(wrong)
assert not wrong.ok and "constant along axis 1" in wrong.inputs[0].diagnosis

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 3. The error is the same for all five channels: constant along axis 1. What is missing does not
# depend on the channel, and depends on the place: that is $p_{kl} E / (b\, s'_{kl})$.*

# %% [markdown]
# ## At work
#
# ### Digits in clutter
#
# The images are scenes: one handwritten digit somewhere among pieces of other digits. A small network
# learns to name the digits 0 to 6. Then it is used as it is: its last feature map, with 32 channels on
# 8 x 8 places, is turned into descriptors, and scenes of the test set are searched for others with the
# same digit. We search twice: among the digits that the network was trained on, and among 7, 8 and 9,
# which it has never seen. All of it with three networks, from three seeds.

# %%
SEEDS = 0, 1, 2
SEEN, UNSEEN = range(7), range(7, 10)


def convolution(in_channels, out_channels, stride):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def train_backbone(seed):
    mt.manual_seed(seed)
    scenes = cluttered_digits(1500, SEEN, generator=seed)
    backbone = nn.Sequential(
        convolution(1, 16, 2),
        convolution(16, 32, 2),
        convolution(32, 32, 1),
        convolution(32, 32, 1),
    )
    model = nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 7))
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    loader = DataLoader(scenes, batch_size=50, shuffle=True, generator=seed)
    fit(
        model,
        loader,
        optimizer=optimizer,
        epochs=6,
        scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, 6 * len(loader)),
        scheduler_every="batch",
        progress=False,
    )
    return backbone.eval()


def features(backbone, scenes):
    """Feature maps (N, 32, 8, 8) of scenes."""
    with mt.no_grad():
        return np.concatenate(
            [
                backbone(mt.tensor(scenes[i : i + 100][0])).numpy()
                for i in range(0, len(scenes), 100)
            ]
        )


backbones = [train_backbone(seed) for seed in SEEDS]

# %%
searches = []  # for each seed and kind of digits: maps and labels of queries and of the gallery
gallery_scenes = {}
for seed, backbone in zip(SEEDS, backbones, strict=True):
    for kind, classes in {"seen": SEEN, "unseen": UNSEEN}.items():
        queries = cluttered_digits(100, classes, train=False, generator=100 + 2 * seed)
        gallery = cluttered_digits(500, classes, train=False, generator=101 + 2 * seed)
        searches.append(
            (
                kind,
                features(backbone, queries),
                queries.labels,
                features(backbone, gallery),
                gallery.labels,
            )
        )
        gallery_scenes[seed, kind] = gallery
print("a feature map:", searches[0][3].shape[1:])


def search(describe, kind):
    """Mean average precision in percent for each seed."""
    found = []
    for its_kind, q, q_labels, g, g_labels in searches:
        if its_kind == kind:
            ranking = Index(describe(g)).search(describe(q))
            same = [np.flatnonzero(g_labels == label) for label in q_labels]
            found.append(100 * mean_average_precision(ranking, same))
    return np.array(found)


def print_row(name, values, unit="%"):
    print(f"{name:26}", "  ".join(f"{value:.1f} {unit}" for value in values))


# %% [markdown]
# Where does the weight lie? It is known where each digit is, and its square is a quarter of the scene.
# Two strides of 2 lead to the feature map: its place $i$ looks at the pixels around pixel $4i$.

# %%
scenes, maps = gallery_scenes[SEEDS[0], "seen"], searches[0][3]
centres = 4 * np.arange(8)  # of the 8 x 8 places, in pixels
top, left, height, width = scenes.boxes.T[:, :, None]
in_rows = (centres >= top) & (centres < top + height)
in_columns = (centres >= left) & (centres < left + width)
on_digit = in_rows[:, :, None] & in_columns[:, None, :]  # (500, 8, 8)


def share_on_digit(s):
    return 100 * ((s * on_digit).sum(axis=(1, 2)) / s.sum(axis=(1, 2))).mean()


shares = {"all places alike": share_on_digit(np.ones((500, 8, 8)))}
for b in 2, 1, 0.5:
    shares[f"weights with b = {b}"] = share_on_digit(crow_weights(maps, b=b)[1])
for name, share in shares.items():
    print_row(name, [share])
assert list(shares.values()) == sorted(shares.values()) and 30 < shares["weights with b = 2"] < 50

# %%
chosen = [0, 1, 2, 3, 4]
figure, axes = viz.panels(2, 5, height=3.6)
for column, n in enumerate(chosen):
    axes[0, column].imshow(scenes.images[n, 0], cmap="gray")
    axes[0, column].set_title(f"a {scenes.labels[n]}")
    axes[1, column].imshow(crow_weights(maps[n : n + 1])[1][0], cmap="viridis", vmin=0)
    top, left, height, width = scenes.boxes[n]
    corners = np.array([left, left + width, left + width, left, left])
    sides = np.array([top, top, top + height, top + height, top])
    axes[0, column].plot(corners - 0.5, sides - 0.5, color=viz.COLOURS[4])
    axes[1, column].plot((corners - 0.5) / 4, (sides - 0.5) / 4, color=viz.COLOURS[4])
    axes[1, column].set(xlim=(-0.5, 8), ylim=(8, -0.5))
for ax in axes.flat:
    ax.set_axis_off()
assert on_digit[chosen].mean() < 0.3
figure

# %% [markdown]
# *Figure 4. Five scenes, and the weights $s$ of their places (bright is large). The frame shows where the
# digit is. More of the weight lies in it than a quarter, but far from all: the formula does not know
# what a digit is, only that the network answers more to some things than to others.*

# %% [markdown]
# ### Which weights help?
#
# Four descriptors: the plain sum, with the weights of places alone, with those of channels alone, with
# both.

# %%
plain = CroW(spatial=False, channel=False)
arms = {
    "plain sum": plain,
    "places": CroW(channel=False),
    "channels": CroW(spatial=False),
    "both": CroW(),
}
found = {(arm, kind): search(d, kind) for kind in ("seen", "unseen") for arm, d in arms.items()}
for kind in "seen", "unseen":
    print(kind)
    for arm in arms:
        print_row("  " + arm, found[arm, kind])

# %% [markdown]
# The seeds differ by more than the arms do. But each arm was tried on the same three networks, so we may
# compare network by network. Four controls besides. The first two are made of the very same numbers, in
# the wrong place; the others are $t$ by the same formula, with something else in place of $q$:
#
# - **another's places**: the weights $s$ of another scene;
# - **others' channels**: the weights $t$ of the image, each given to another channel;
# - **strength for count**: $q_c$ is the sum of the channel's values. If $t$ helped only because it
#   strengthens the weak channels, this would help as well;
# - **idf of the gallery**: $q_c$ is how often the channel is active in the gallery as a whole, one weight
#   for all images, as in text search.


# %%
def anothers_places(x):
    _, s, _ = crow_weights(x)
    return np.einsum("nhw,nchw->nc", np.roll(s, 1, axis=0), x)


def others_channels(x):
    _, _, t = crow_weights(x)
    return np.roll(t, 5, axis=1) * x.sum(axis=(2, 3))


def strength_for_count(x):
    strength = x.sum(axis=(2, 3))
    share = strength / strength.sum(axis=1, keepdims=True)
    return -np.log(np.where(share > 0, share, 1)) * strength


def search_with_gallery_idf(kind):
    found = []
    for its_kind, q, q_labels, g, g_labels in searches:
        if its_kind == kind:
            share = (g > 0).mean(axis=(0, 2, 3))
            t = np.log(share.sum() / share)
            ranking = Index(t * g.sum(axis=(2, 3))).search(t * q.sum(axis=(2, 3)))
            same = [np.flatnonzero(g_labels == label) for label in q_labels]
            found.append(100 * mean_average_precision(ranking, same))
    return np.array(found)


base = found["plain sum", "seen"]
gains = {arm: found[arm, "seen"] - base for arm in ("places", "channels", "both")}
gains["another's places"] = search(anothers_places, "seen") - base
gains["others' channels"] = search(others_channels, "seen") - base
gains["strength for count"] = search(strength_for_count, "seen") - base
gains["idf of the gallery"] = search_with_gallery_idf("seen") - base
for arm, gain in gains.items():
    print_row(arm, gain, "points")

places, channels, both, wrong_places, wrong_channels, by_strength, of_gallery = gains.values()
assert (
    (places > 0.5).all() and (channels > 0.3).all() and (both > np.maximum(places, channels)).all()
)
assert (wrong_places < 0).all() and (wrong_channels < 0).all() and (by_strength < 0).all()
assert (np.abs(of_gallery) < 0.5).all() and (channels > of_gallery).all()
assert (found["both", "unseen"] > found["plain sum", "unseen"]).all()

# %%
figure, ax = viz.panels(1, 1, height=3.8)
viz.plot_arms(gains, label="gain over the plain sum, points", ax=ax)
ax.axvline(0, color="black", linewidth=1)
figure

# %% [markdown]
# *Figure 5. Gains in mean average precision on digits that were seen, network by network. The weights of
# places help on each, those of channels a little less, both together most: two to three points. In the
# wrong place the same weights do harm. Strength in place of the count does harm as well: what helps is to
# count **places**. And frequencies of the gallery bring next to nothing: what helps is what is seldom
# active **in this image**.*
#
# So the idf of text search is an image to think with, but not what happens here. Over the whole gallery
# the channels are active about equally often; within one image they are not:

# %%
for seed, (_, _, _, g, _) in zip(SEEDS, searches[::2], strict=True):
    t_gallery = np.log((g > 0).mean(axis=(0, 2, 3)).sum() / (g > 0).mean(axis=(0, 2, 3)))
    t_image = crow_weights(g)[2]
    spread = 100 * t_gallery.std() / t_gallery.mean()
    within = 100 * (t_image.std(axis=1) / t_image.mean(axis=1)).mean()
    print(
        f"seed {seed}: t varies by {spread:.0f} % over the gallery, by {within:.0f} % in one image"
    )
    assert within > 1.5 * spread

# %% [markdown]
# A likely reason why that helps: a channel that is active at few places of an image answers to something
# particular in it; one that is active everywhere answers to the clutter as well.
#
# On the digits that were never seen both weights together gain on each network, too, half a point to two
# points. The search is poor there: with three classes, guessing gives about 33 % (with seven, 14 %).

# %% [markdown]
# ### The power b
#
# The weights of places alone, for many values of $1/b$. At $1/b = 0$ they are all alike.

# %%
inverse = np.array([0, 0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 10])


def weighed_by_power(power):
    """Weights s'^(1/b) for power = 1/b; the norm, which changes no direction, is left out."""
    return lambda x: np.einsum("nhw,nchw->nc", x.sum(axis=1) ** power, x)


curves = {
    kind: np.array([search(weighed_by_power(p), kind) for p in inverse])
    for kind in ("seen", "unseen")
}
assert np.allclose(curves["seen"][0], base) and np.allclose(
    curves["seen"][2], found["places", "seen"]
)
best = inverse[curves["seen"].argmax(axis=0)]
print("best 1/b on seen digits, by seed:", best)
assert (best >= 1).all() and (curves["seen"][3] > curves["seen"][2]).all()

figure, axes = viz.panels(1, 2, height=3)
for ax, (kind, curve) in zip(axes, curves.items(), strict=True):
    for runs, colour in zip(curve.T, viz.COLOURS, strict=False):
        ax.plot(inverse, runs, "o-", color=colour, markersize=4)
    ax.axvline(0.5, color="black", linewidth=1, linestyle="--")
    ax.set(xlabel="1/b", title=f"{kind} digits")
axes[0].set_ylabel("mAP, %")
figure

# %% [markdown]
# *Figure 6. Mean average precision against $1/b$, a line for each network. The dashed line is the paper's
# $b = 2$. For these networks a smaller $b$ would be better.*
#
# The paper searches photographs of buildings, which often fill the picture, with another network. Here
# the digit is a quarter of the picture, and sharper weights pay. There is no reason why one power should
# be right for all data: $b$ is the one number to choose, on a set apart.

# %% [markdown]
# ### Beside other descriptors, and what follows the descriptor
#
# The paper goes on: length 1, whitening to few dimensions, length 1, and in a second round query
# expansion. The whitening is learned on scenes apart from those that are searched, of digits that were
# seen.

# %%
apart = [
    features(backbone, cluttered_digits(400, SEEN, generator=500 + seed))
    for seed, backbone in zip(SEEDS, backbones, strict=True)
]


def search_after(describe, kind, whiten_to=None, expand=None):
    found = []
    ours = [one for one in searches if one[0] == kind]
    for (_, q, q_labels, g, g_labels), separate in zip(ours, apart, strict=True):
        q, g, separate = (l2_normalized(describe(x)) for x in (q, g, separate))
        if whiten_to:
            whitening = PCAWhitening(whiten_to).fit(separate)
            q, g = whitening.transform(q), whitening.transform(g)
        index = Index(g)
        if expand:
            q = expand_queries(index, q, k=expand)
        same = [np.flatnonzero(g_labels == label) for label in q_labels]
        found.append(100 * mean_average_precision(index.search(q), same))
    return np.array(found)


table = {
    "MAC": {"describe": mac},
    "GeM, p = 3": {"describe": gem},
    "R-MAC": {"describe": rmac},
    "plain sum": {"describe": plain},
    "CroW": {"describe": crow},
    "plain sum, whitened to 8": {"describe": plain, "whiten_to": 8},
    "CroW, whitened to 8": {"describe": crow, "whiten_to": 8},
    "CroW, whitened, all 32": {"describe": crow, "whiten_to": 32},
    "CroW, expanded by 10": {"describe": crow, "expand": 10},
}
measured = {
    (name, kind): search_after(kind=kind, **settings)
    for name, settings in table.items()
    for kind in ("seen", "unseen")
}
for kind in "seen", "unseen":
    print(kind)
    for name in table:
        print_row("  " + name, measured[name, kind])

# %%
seen = {name: measured[name, "seen"] for name in table}
unseen = {name: measured[name, "unseen"] for name in table}
assert (np.abs(seen["CroW"] - seen["GeM, p = 3"]) < 1.5).all()
assert (seen["CroW"] > seen["R-MAC"] + 2).all()
assert (seen["CroW, whitened to 8"] < seen["CroW"]).all()
assert (seen["CroW, whitened to 8"] > seen["plain sum, whitened to 8"] + 1).all()
assert (seen["CroW, whitened, all 32"] < seen["CroW"] - 20).all()
assert (unseen["CroW, whitened, all 32"] > unseen["CroW"] - 2).all()
assert (seen["CroW, expanded by 10"] > seen["CroW"] + 1).all()
assert (np.abs(unseen["CroW, expanded by 10"] - unseen["CroW"]) < 1.5).all()

figure, axes = viz.panels(1, 2, height=3.6)
for ax, kind in zip(axes, ("seen", "unseen"), strict=True):
    for row, name in enumerate(table):
        runs = measured[name, kind]
        ax.plot(runs, [row] * len(runs), "o", color=viz.COLOURS[1 if "CroW" in name else 0])
    ax.set(xlabel="mAP, %", title=f"{kind} digits", ylim=(len(table) - 0.5, -0.5))
    ax.grid(axis="x")
axes[0].set_yticks(range(len(table)), labels=list(table))
axes[1].set_yticks(range(len(table)), labels=[""] * len(table))
figure

# %% [markdown]
# *Figure 7. A dot is one network. CroW is about as good as the generalised mean, and ahead of R-MAC, where
# all regions count alike, also those that hold little of the digit. Query expansion helps where the first answers are mostly right. Whitening
# does harm on digits that were seen, and much harm when all directions are kept; behind it, too, CroW is
# ahead of the plain sum.*
#
# Why does whitening hurt, when in the paper it helps? The network was trained to put seven classes apart,
# which takes six directions. Along each principal direction, let us part the variance of the gallery's
# descriptors in two: that of the means of the seven classes, and the rest, within the classes.

# %%
for seed, (_, _, _, g, labels), separate in zip(SEEDS, searches[::2], apart, strict=True):
    principal = PCAWhitening(32, whiten=False, normalize=False)
    principal.fit(l2_normalized(crow(separate).data))
    y = principal.transform(l2_normalized(crow(g).data))
    of_means = np.array([y[labels == label].mean(axis=0) for label in labels]).var(axis=0)
    between = 100 * of_means / y.var(axis=0)
    first = 100 * principal.variances[:6].sum() / principal.variances.sum()
    print(
        f"seed {seed}: six of 32 directions hold {first:.0f} % of the variance; between classes lie "
        f"{between[:6].mean():.0f} % of it there, {between[6:].mean():.0f} % in the others"
    )
    assert first > 85 and between[:6].mean() > 50 and between[6:].mean() < 10

# %% [markdown]
# So the directions in which the descriptors vary most *are* the classes, and whitening makes all directions
# equally long: it turns up the noise. The paper's network had learned the thousand classes of ImageNet, and
# was then used to search for buildings. The digits 7 to 9 are more like that, and there whitening costs one
# network a point or two and gives another as much or more.

# %% [markdown]
# ## Paper and code
#
# | | paper | the authors' program | here |
# |---|---|---|---|
# | weight of a channel | $\log \frac{C \epsilon + \sum_d q_d}{\epsilon + q_c}$, with a small $\epsilon$ | $\log(\sum_d q_d / q_c)$, and 0 where $q_c = 0$ | the program's; the paper's with `CroW(eps=...)` |
# | active | $x > 0$ | not zero | $x > 0$; the two differ only for negative features, which are refused |
# | powers | $a = b = 2$ | 2 and 2, can be set | the same |
# | a map of zeros | | 0 / 0 | weights 0, a descriptor of zeros |
# | plain sum, "uCroW" | all weights 1 | a function of its own | `CroW(spatial=False, channel=False)` |
# | whitening | to 128, 256 or 512 dimensions, learned on Paris for a search in Oxford, and the other way round | scikit-learn's | `PCAWhitening`, lesson 22 |
# | query expansion | with the first answers | the query plus the sum of the first 10 | `expand_queries(index, queries, k=10)`, the same direction |
#
# The paper's $\epsilon$ gives a channel that is never active the largest weight of all. It has no
# effect: the sum that it weighs is 0.
#
# With $b = 1$ the weights of the places are, up to how they are normalised, those of the released code of
# *parameter-free spatial attention* (lesson 25), where a network is trained with them.

# %% [markdown]
# ## Predict before you run
#
# **1.** The power $a$ is changed from 2 to 1, and to 5. What happens to the ranking?

# %%
_, q, _, g, _ = searches[0]
ranking = Index(CroW(a=2)(g)).search(CroW(a=2)(q), k=20)
for a in 1, 5:
    other = Index(CroW(a=a)(g)).search(CroW(a=a)(q), k=20)
    print(f"a = {a}: the same first 20 for every query:", np.array_equal(other, ranking))
assert np.array_equal(other, ranking)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Nothing. $a$ is in the norm alone, one number for the whole image, and a search compares directions.
#
# </details>
#
# **2.** With $b = 1$ and without the weights of channels, the descriptor can be had from the products of
# channels with channels, $G = X X^\top$, where $X: (C, HW)$ has a row for each channel. How?

# %%
X = small[0].reshape(5, 12)
G = X @ X.T
y = CroW(b=1, channel=False)(small[:1]).data[0]
direction = G.sum(axis=1)
print("the direction of G's row sums:", np.allclose(l2_normalized(direction), l2_normalized(y)))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Add up each row of $G$: $\sum_d G_{cd} = \sum_{ij} x_{cij} \sum_d x_{dij} = \sum_{ij} s'_{ij} x_{cij}$.
# A channel counts by how much it is active *together* with the others.
#
# </details>
#
# **3.** Someone appends a channel that is 10 at every place of every image. It says nothing. What does it
# do to the weights of the places, and is its own weight 0?

# %%
always = np.concatenate([small, np.full((2, 1, 3, 4), 10.0)], axis=1)
spread = [s.std() / s.mean() for s in (crow_weights(small)[1][0], crow_weights(always)[1][0])]
t = crow_weights(always)[2][0]
print(f"spread of the weights of places: {spread[0]:.2f} without it, {spread[1]:.2f} with it")
print(f"weights of the channels: from {t.min():.2f} to {t.max():.2f}; of the new one {t[-1]:.2f}")
assert spread[1] < spread[0] / 2 and t[-1] == t.min() > 0

# %% [markdown]
# <details><summary>Answer</summary>
#
# It flattens the weights of places, as it adds the same to all. Its own weight is the least of all, but
# not 0: that would need $q_c = \sum_d q_d$, no other active channel. So it gets a large part of the
# descriptor. CroW lessens what is everywhere; it does not remove it. (Subtracting a mean does: that is
# the first step of whitening.)
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`23_crow`](../exercises/23_crow.ipynb):
#
# 1. **spatial_weights**: the weights of the places.
# 2. **channel_weights**: the weights of the channels, also where one is never active.
# 3. **weighted_sum**: the sum with the weights of places, with the rule of $x$.
# 4. **CroW**: the module.
# 5. **expanded_query**: a second round of search, with the first answers added to the query.

# %% [markdown]
# ## What to remember
#
# - CroW weighs places by how much is active there, channels by how seldom they are active in the image;
#   no parameter, no training.
# - A weight that is divided by a norm takes from the others what it gives to one: $e - pE$ in the
#   backward. The root brings $1/b$, the norm nothing that a search could notice.
# - Here both weights helped, by two to three points together; the same weights in the wrong place did
#   harm, and the frequencies of the whole gallery nothing.
# - The formula cannot know what is asked for: more than half of the weight lay outside the digit's square. A
#   learned weight can (lessons 22 and 24).

# %% [markdown]
# ## Sources
#
# - Y. Kalantidis, C. Mellina, S. Osindero, *Cross-Dimensional Weighting for Aggregated Deep Convolutional
#   Features*, ECCV Workshops 2016: section 4 and algorithm 1.
# - A. Babenko, V. Lempitsky, *Aggregating Deep Convolutional Features for Image Retrieval*, ICCV 2015: the
#   plain sum (SPoC).
# - H. Jégou, O. Chum, *Negative Evidences and Co-occurences in Image Retrieval: The Benefit of PCA and
#   Whitening*, ECCV 2012.
