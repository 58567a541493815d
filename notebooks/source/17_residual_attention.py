# %% [markdown]
# # 17 · Residual attention
#
# A branch beside the network shrinks the image, looks at the whole, grows back to full size, and weighs
# every single element of what the network computes.
#
# **You will be able to**
#
# - derive the gradient of $(1 + M)\, T$ and its two paths, one of which is easily forgotten;
# - build the hourglass that makes the mask, and count what it costs;
# - say why a chain of masks below one fades, and show it by measurement.
#
# **You need** lessons 05 to 08 (convolution, pooling, batch normalisation, pre-activation blocks) and
# lesson 13.
#
# **Time** about 50 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import ResidualAttentionModule
from minitorch_attn.data import DataLoader, TensorDataset, digits
from minitorch_attn.models import attention56, cifar_attention
from minitorch_attn.training import evaluate, fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# Below stands a handwritten digit with noise on it. Call it $T$: what some network has computed. Beside the
# network we make a *mask*: the picture is halved and blown up again to its old size, which blurs the noise
# away, and a sigmoid turns what is left into weights $M$ between 0 and 1. Where there is ink, the weight is
# large.

# %%
train, test = digits(), digits(train=False)
images, labels = test[:]
image = images[int(np.flatnonzero(labels == 3)[2])]  # (1, 8, 8)
rng = np.random.default_rng(0)
T = mt.tensor((image + 0.15 * rng.normal(size=image.shape))[None])  # (1, 1, 8, 8)

small = F.avg_pool2d(T, 2)
large = F.interpolate(small, size=(8, 8), mode="bilinear", align_corners=True)
M = F.sigmoid(8 * (large - large.mean()))

ink, paper = image[None] > 0.5, image[None] == 0
print(f"mean weight on the ink {M.data[ink].mean():.2f}, on the paper {M.data[paper].mean():.2f}")
assert M.data[ink].mean() > 2 * M.data[paper].mean()

pictures = np.concatenate([T.data, M.data, (M * T).data, ((1 + M) * T).data])[:, 0]
viz.show_feature_maps(
    pictures, ["T", "mask M", "M T", "(1 + M) T"], columns=4, signed=False, label="value"
)

# %% [markdown]
# *Figure 1. A noisy 3, a mask made by shrinking and growing it, and the two ways to use the mask. The
# product $M\,T$ weakens the noise on the paper and the ink a little; $(1 + M)\,T$ keeps everything and makes
# the ink stronger.*
#
# Both products set the ink off from the paper. The difference shows when modules are put one behind the
# other, and that is what this lesson is about.

# %% [markdown]
# ## The equations
#
# Let $x$ be a feature map $(N, C, H, W)$ with even $H$ and $W$. The module has two branches that start from
# it.
#
# **Trunk.** Any network that keeps the shape: $T = \mathrm{trunk}(x)$.
#
# **Mask.** Down, up, and a sigmoid $\sigma$. Written for one halving, the mean of each 2 x 2 square, and one
# mixture of the channels at the bottom, with weights $w: (C, C)$:
#
# $$a = \mathrm{down}(x), \qquad b_{nopq} = \sum_c w_{oc}\, a_{ncpq}, \qquad
# v = A\, b\, B^\top, \qquad M = \sigma(v)$$
#
# Here $a$ and $b$ have shape $(N, C, P, Q)$ with $P = H/2$, $Q = W/2$. Bilinear enlargement is linear along
# each axis, so it is a matrix for each: $A: (H, P)$ for the rows, $B: (W, Q)$ for the columns, and
# $A\, b\, B^\top$ is taken for every image and channel. So $v$ and $M$ have the shape of $T$: *one weight for
# every element*, of every channel and position.
#
# **Product.** In the naive form, and in the residual form that the paper proposes:
#
# $$y = M\,T \qquad\text{or}\qquad y = (1 + M)\,T = T + M\,T$$
#
# (The paper writes $H$ for the result; here $H$ is the number of rows.)

# %% [markdown]
# ### Backward
#
# The loss depends on $x$ through both branches, so its gradient has **two paths**. Start from the product.
# Call its incoming gradient $dy$. By the product rule, element by element,
#
# $$dT = (1 + M)\, dy, \qquad dM = T\, dy$$
#
# and in the naive form $dT = M\,dy$, with the same $dM$.
#
# **Along the mask.** The sigmoid's slope is $M(1 - M)$, element by element:
#
# $$dv = dM\, M (1 - M)$$
#
# Enlarging is $v_{ij} = \sum_{p,q} A_{ip}\, b_{pq}\, B_{jq}$, so $b_{pq}$ reaches every $v_{ij}$ with the factor
# $A_{ip} B_{jq}$, and collects all of them; the mixture is a linear layer over the channels (lesson 13):
#
# $$db_{pq} = \sum_{i,j} A_{ip}\, dv_{ij}\, B_{jq}, \quad\text{that is}\quad db = A^\top dv\, B$$
#
# $$da_{ncpq} = \sum_o w_{oc}\, db_{nopq}, \qquad dw_{oc} = \sum_{n,p,q} db_{nopq}\, a_{ncpq}$$
#
# Last comes the rule of down: a mean of four gives each of them a quarter (lesson 07).
#
# **Together.** With $J_T^\top$ and $J_{\mathrm{down}}^\top$ for the rules of trunk and down,
#
# $$\boxed{\; dx = \underbrace{J_T^\top\big[(1 + M)\, dy\big]}_{\text{through the trunk}}
# + \underbrace{J_{\mathrm{down}}^\top\, da}_{\text{through the mask}} \;}$$
#
# The paper calls the mask a filter of gradients, from $\partial (M T) / \partial \phi = M\,
# \partial T / \partial \phi$, with $\phi$ the trunk's weights. That is the first path. It is right for weights *inside*
# the trunk. What stands in front of the split has the second path, too. And in the residual form the factor is
# $1 + M$, between 1 and 2: it makes some gradients stronger, and cannot stop any.

# %% [markdown]
# ### A chain of masks
#
# Put $m$ modules one behind the other, and let for a moment every trunk hand on what it gets. Then
#
# $$\text{naive: } M_m \cdots M_2 M_1\, x \qquad\qquad \text{residual: } (1 + M_m) \cdots (1 + M_2)(1 + M_1)\, x$$
#
# At the start of training all masks are near $\sigma(0) = 1/2$. The naive chain multiplies by $(1/2)^m$: after
# eight modules 0.4 % of the signal is left. The residual chain multiplies by $(3/2)^m$, which is about 26.
# On their way back through the trunks, gradients are multiplied by the same factors. Multiplied out, the residual product
# has $2^m$ terms, one of which is $x$ itself, touched by no mask.

# %%
m = np.arange(9)
print("naive:   ", 0.5 ** m[8])
print("residual:", 1.5 ** m[8])

# %% [markdown]
# ### What it costs
#
# Masks are deeper than the one above: $d$ halvings, with $r$ units (small residual blocks) on each level on the
# way down and again on the way up. On the innermost level these are $2r$ units; each of the other $d - 1$ levels
# has one more, in a skip from the way down to the way up. So a mask has $2r + (d - 1)(2r + 1)$ units, and at its
# end two 1x1 convolutions of $C^2$ weights each.
#
# The paper takes $r = 1$, one unit in front of the branches, two in the trunk and one behind the product. Its unit
# is a pre-activation bottleneck: 1x1 to $C/4$ channels, 3x3, and 1x1 back have
# $C^2/4 + 9\,C^2/16 + C^2/4 \approx 1.06\, C^2$ weights. So a module with three halvings has 4 units in and around
# the trunk and 8 in the mask: the mask is the larger part.

# %%
network = attention56()
for stage, size in zip(network.stages, (56, 28, 14), strict=True):
    module = stage[1]
    trunk = sum(
        p.numel() for part in (module.pre, module.trunk, module.post) for p in part.parameters()
    )
    mask = sum(p.numel() for p in module.mask.parameters())
    print(f"{size} x {size}, halvings: {module.halvings}, trunk {trunk:,}, mask {mask:,}")
    assert module.halvings == 1 or mask > trunk

total = sum(p.numel() for p in network.parameters())
print(f"Attention-56: {total:,} parameters")
assert total == 31_810_728

# %% [markdown]
# ## The code
#
# First as loops. The trunk is a mixture of the channels with weights $t: (C, C)$, down is the mean
# of each 2 x 2 square, and the enlargement is a matrix: position $i$ of the large image lies at
# $i\,(P - 1) / (H - 1)$ of the small one, between two of its pixels (corners on corners).


# %%
def enlarge(H, P):
    """Bilinear enlargement along one axis as a matrix (H, P), corners on corners."""
    A = np.zeros((H, P))
    for i in range(H):
        place = i * (P - 1) / (H - 1)
        left = min(int(place), P - 2)
        A[i, left] = 1 - (place - left)
        A[i, left + 1] = place - left
    return A


def attend_loops(x, t, w):
    """x (N, C, H, W), t and w (C, C) -> (1 + M) T, element by element."""
    N, C, H, W = x.shape
    A, B = enlarge(H, H // 2), enlarge(W, W // 2)
    y = np.empty_like(x)
    for n in range(N):
        for o in range(C):
            b = np.zeros((H // 2, W // 2))
            for p in range(H // 2):
                for q in range(W // 2):
                    for c in range(C):
                        b[p, q] += w[o, c] * x[n, c, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2].mean()
            for i in range(H):
                for j in range(W):
                    v = sum(
                        A[i, p] * b[p, q] * B[j, q] for p in range(H // 2) for q in range(W // 2)
                    )
                    T = sum(t[o, c] * x[n, c, i, j] for c in range(C))
                    y[n, o, i, j] = (1 + 1 / (1 + np.exp(-v))) * T
    return y


print(enlarge(4, 2).round(2))

# %% [markdown]
# Now with whole arrays, in primitive form. `mix` is the sum over channels; the rules are those above.


# %%
def mix(weight, x):
    return np.einsum("oc,nchw->nohw", weight, x)


def attend(x, t, w, *, one=1.0):
    """x (N, C, H, W), t and w (C, C) -> (one + M) T, and a rule for each; one=0 is the naive form."""
    N, C, H, W = x.shape
    A, B = enlarge(H, H // 2), enlarge(W, W // 2)
    T = mix(t, x)
    a = x.reshape(N, C, H // 2, 2, W // 2, 2).mean(axis=(3, 5))
    M = 1 / (1 + np.exp(-(A @ mix(w, a) @ B.T)))

    def back_to_b(dy):
        dM = T * dy
        return A.T @ (dM * M * (1 - M)) @ B

    def vjp_x(dy):
        da = mix(w.T, back_to_b(dy))
        through_mask = da.repeat(2, axis=2).repeat(2, axis=3) / 4
        return mix(t.T, (one + M) * dy) + through_mask

    def vjp_t(dy):
        return np.einsum("nohw,nchw->oc", (one + M) * dy, x)

    def vjp_w(dy):
        return np.einsum("nopq,ncpq->oc", back_to_b(dy), a)

    return (one + M) * T, (vjp_x, vjp_t, vjp_w)


# %%
rng = np.random.default_rng(0)
x = rng.normal(size=(2, 3, 6, 6))
t, w = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
print("loops and arrays agree:", np.allclose(attend(x, t, w)[0], attend_loops(x, t, w)))

# %% [markdown]
# The module itself is put together from parts that have their rules. A *unit* is any small residual block; ours
# is a pre-activation block with one convolution. The hourglass contains a smaller hourglass: at each level the
# image is halved, goes through a unit, then through a smaller hourglass with a skip beside it, through a unit
# again, and is enlarged.


# %%
class Unit(nn.Module):
    """x + conv(relu(bn(x))): the sum itself is neither normalised nor rectified."""

    def __init__(self, channels):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x):
        return x + self.conv(F.relu(self.bn(x)))


class OurHourglass(nn.Module):
    def __init__(self, channels, halvings):
        super().__init__()
        self.down = nn.Sequential(Unit(channels))
        if halvings > 1:
            self.skip = Unit(channels)
            self.inner = OurHourglass(channels, halvings - 1)
        self.up = nn.Sequential(Unit(channels))
        self.halvings = halvings

    def forward(self, x):
        a = self.down(F.max_pool2d(x, 3, stride=2, padding=1))
        if self.halvings > 1:
            a = self.skip(a) + self.inner(a)
        return F.interpolate(self.up(a), size=x.shape[2:], mode="bilinear", align_corners=True)


class OurMask(nn.Module):
    def __init__(self, channels, halvings):
        super().__init__()
        self.hourglass = OurHourglass(channels, halvings)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x):
        m = self.conv1(F.relu(self.bn1(self.hourglass(x))))
        return F.sigmoid(self.conv2(F.relu(self.bn2(m))))


class OurResidualAttention(nn.Module):
    """A unit, then (1 + M) T from a trunk of two units and a mask, then a unit."""

    def __init__(self, channels, halvings):
        super().__init__()
        self.pre = nn.Sequential(Unit(channels))
        self.trunk = nn.Sequential(Unit(channels), Unit(channels))
        self.mask = OurMask(channels, halvings)
        self.post = nn.Sequential(Unit(channels))

    def forward(self, x):
        x = self.pre(x)
        return self.post((1 + self.mask(x)) * self.trunk(x))


# %% [markdown]
# The library's module takes the unit as an argument: the trunk may be made of any. Its parameters have the same
# names, so ours can take its weights.

# %%
mt.manual_seed(0)
library = ResidualAttentionModule(4, Unit, halvings=2)
ours = OurResidualAttention(4, halvings=2)
ours.load_state_dict(library.state_dict())
x4 = mt.tensor(rng.normal(size=(2, 4, 8, 8)))
print("our module agrees with the library's:", np.allclose(ours(x4).data, library(x4).data))

# %% [markdown]
# ## The gradient check
#
# The rules of the residual and of the naive form against central differences (lesson 03):

# %%
report = mt.check_vjp(attend, x, t, w)
print(report)
print("naive form passes too:", mt.check_vjp(attend, x, t, w, one=0.0).ok)

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 2. The gradient by the rules, the measured one, and the error, which is dark throughout.*
#
# And now the mistake that is easily made: $dx$ through the trunk alone, as if the mask were given and did not
# depend on $x$.


# %%
def trunk_alone(x, t, w):
    y, (_, vjp_t, vjp_w) = attend(x, t, w)
    ratio = y / mix(t, x)  # 1 + M

    def vjp_x(dy):
        return mix(t.T, ratio * dy)

    return y, (vjp_x, vjp_t, vjp_w)


wrong = mt.check_vjp(trunk_alone, x, t, w, raise_on_failure=False)
print(wrong)
assert not wrong.ok and not wrong.inputs[0].ok and wrong.inputs[1].ok and wrong.inputs[2].ok

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 3. The error of $x$ is made of squares of two by two: what is missing came down through a mean of four
# pixels, which all get the same. The weights' rules are still right: they stand behind the split.*

# %%
dy = rng.normal(size=x.shape)
missing = attend(x, t, w)[1][0](dy) - trunk_alone(x, t, w)[1][0](dy)
squares = missing.reshape(2, 3, 3, 2, 3, 2)
print("constant on 2 x 2 squares:", np.allclose(squares, squares[:, :, :, :1, :, :1]))
assert np.abs(missing).max() > 0.01

# %% [markdown]
# ## At work
#
# ### The chain, measured
#
# Eight modules whose units hand on what they get, so that nothing but the masks acts; the masks have the weights
# they are made with. Digits go in behind a convolution. How large is the response on average behind each module?

# %%
WIDTH, COUNT = 8, 8
start = mt.tensor(images[:100])


def behind_each(network, modules, x):
    """Mean absolute response behind each module."""
    seen = []
    hooks = [
        one.register_forward_hook(lambda m, i, out: seen.append(np.abs(out.data).mean()))
        for one in modules
    ]
    with mt.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return np.array(seen)


def idle(channels):
    """A unit that hands on what it gets."""
    return nn.Identity()


def bare_chain(learning, seed):
    mt.manual_seed(seed)
    stem = nn.Conv2d(1, WIDTH, 3, padding=1)
    modules = [ResidualAttentionModule(WIDTH, idle, learning=learning) for _ in range(COUNT)]
    chain = nn.Sequential(stem, *modules)
    return behind_each(chain, chain, start)  # in front of the first module, and behind each


bare = {
    learning: np.array([bare_chain(learning, seed) for seed in range(5)])
    for learning in ("naive", "residual")
}
relative = {learning: runs / runs[:, :1] for learning, runs in bare.items()}
for learning, runs in relative.items():
    print(f"{learning:9}", "  ".join(f"{v:.2g}" for v in runs.mean(axis=0)))
assert (relative["naive"][:, -1] < 0.02).all() and (relative["residual"][:, -1] > 10).all()

# %%
figure, ax = viz.panels(1, 1, width=6.5, height=3.4)
lines = {"residual": 1.5, "naive": 0.5}
for colour, (learning, factor) in zip(viz.COLOURS, lines.items()):
    ax.plot(
        m, factor**m, color=colour, linestyle="--", linewidth=1, label=f"{factor} to the power m"
    )
    for run in relative[learning]:
        ax.plot(m, run, color=colour, marker="o", markersize=3, linewidth=0, alpha=0.6)
    ax.plot(
        [], [], color=colour, marker="o", markersize=3, linewidth=0, label=f"{learning}, measured"
    )
ax.set(yscale="log", xlabel="modules m", ylabel="response, relative to the start")
ax.legend()
figure

# %% [markdown]
# *Figure 4. Dots: five seeds. Dashed: the powers of 1/2 and 3/2. The naive chain loses more than 98 % of the signal
# in eight modules, the residual one grows as calculated.*

# %% [markdown]
# ### Depth
#
# And in a network that is trained? Ten classes of digits, a convolution, $m$ modules with a unit each in front,
# in the trunk and behind, a linear layer. Three arms: **naive**, **residual**, and **no mask**, the same three
# units without one. All see the same batches, in the same number of steps.


# %%
def module(arm):
    if arm == "no mask":
        return nn.Sequential(Unit(WIDTH), Unit(WIDTH), Unit(WIDTH))
    return ResidualAttentionModule(WIDTH, Unit, trunk=1, learning=arm)


def train_network(arm, count, seed, epochs, answers=None):
    """Train on digits with these answers; the network, and its accuracy on unseen digits, in %."""
    mt.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, WIDTH, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        *(module(arm) for _ in range(count)),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * WIDTH, 10),
    )
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    x, truth = train[:]
    data = TensorDataset(x, truth if answers is None else answers)
    loader = DataLoader(data, batch_size=64, shuffle=True, generator=seed)
    optimizer = optim.Adam(network.parameters(), lr=5e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    fit(
        network,
        loader,
        optimizer=optimizer,
        epochs=epochs,
        scheduler=schedule,
        scheduler_every="batch",
        progress=False,
    )
    return network, 100 * evaluate(network, DataLoader(test, batch_size=500))["accuracy"]


# %%
ARMS = "naive", "residual", "no mask"


def on_seeds(arm, count):
    return [train_network(arm, count, seed, epochs=3) for seed in (0, 1)]


trained = {(arm, 2): on_seeds(arm, 2) for arm in ARMS}

# %%
trained["naive", 8] = on_seeds("naive", 8)

# %%
trained["residual", 8] = on_seeds("residual", 8)
trained["no mask", 8] = on_seeds("no mask", 8)

# %%
accuracies = {key: [accuracy for _, accuracy in runs] for key, runs in trained.items()}
for (arm, count), runs in accuracies.items():
    print(f"{count} modules, {arm:8}", "  ".join(f"{run:.0f} %" for run in runs))

shallow = [np.mean(accuracies[arm, 2]) for arm in ARMS]
assert max(shallow) - min(shallow) < 5
deep = {arm: accuracies[arm, 8] for arm in ARMS}
assert max(deep["naive"]) + 5 < min(deep["residual"] + deep["no mask"])
assert all(abs(np.mean(deep["residual"]) - run) < 10 for run in deep["no mask"])

# %%
figure, axes = viz.panels(1, 2, width=8.0, height=2.8)
for ax, count in zip(axes, (2, 8), strict=True):
    viz.plot_arms({arm: accuracies[arm, count] for arm in ARMS}, label="accuracy, %", ax=ax)
    ax.set(title=f"{count} modules", xlim=(20, 100), xlabel="accuracy on unseen digits, %")
figure

# %% [markdown]
# *Figure 5. A dot is one seed, the bar the mean. With two modules the arms are near one another. With eight the
# naive network is far behind in the same number of steps; the residual one is not.*
#
# The paper finds the same direction on CIFAR-10 (table 3): the naive form does worse at every depth, a little at
# 56 and 92 layers, and much at 164. But look at the third arm. On these digits the network **without any mask** does
# about as well as the residual one, with little more than half the parameters. What the comparison shows is that
# the residual form makes masks *bearable* in depth. That masks help is a claim about harder images, which ours do
# not bear out.
#
# What happens inside? The responses behind each of the eight trained modules, for the first seed:

# %%
profiles = {}
for arm in ARMS:
    network = trained[arm, 8][0][0].eval()
    profiles[arm] = behind_each(network, list(network)[2:10], start)
    print(f"{arm:8}", "  ".join(f"{v:.1f}" for v in profiles[arm]))
assert profiles["residual"][-1] > 5 * profiles["no mask"][-1]
assert profiles["naive"].max() < 2 * profiles["naive"].min()
growth = {arm: (profile[-1] / profile[0]) ** (1 / 7) for arm, profile in profiles.items()}
assert 1.4 < growth["residual"] < 1.8 and growth["no mask"] < 1.3  # a module, on average

# %%
figure, ax = viz.panels(1, 1, width=6.5, height=3.2)
for colour, (arm, profile) in zip(viz.COLOURS, profiles.items()):
    ax.plot(np.arange(1, 9), profile, color=colour, marker="o", label=arm)
ax.set(yscale="log", xlabel="module", ylabel="mean absolute response")
ax.legend()
figure

# %% [markdown]
# *Figure 6. Without a mask the response grows slowly, as every unit adds to it. With residual masks it grows much
# faster, by more than half with each module. With naive masks it stays about where it is: each mask takes away
# about as much as the units around it add.*
#
# So in a real network the naive response does not vanish, as it did in the bare chain: batch normalisation gives
# every unit an input of the usual size, and the unit adds something fresh. What is lost is the *old* part. Behind
# eight masks near one half, little of what arrives has come unchanged from the first layers. That is a likely
# reason why the naive network is so hard to train: its units have shortcuts, and the masks close the way that
# leads from one to the next.

# %% [markdown]
# ### Wrong labels
#
# The paper also trains with labels of which a part is wrong, and finds its network more robust than a residual
# network (table 5). We try it in small: of the labels, 30 % or 60 % are replaced by a wrong class, two modules, three
# seeds.


# %%
def mislabelled(share, seed):
    """The labels, of which a share is replaced by one of the nine other classes."""
    rng = np.random.default_rng(100 + seed)
    answers = train[:][1].copy()
    wrong = rng.random(len(answers)) < share
    answers[wrong] = (answers[wrong] + rng.integers(1, 10, wrong.sum())) % 10
    return answers


def with_wrong(share):
    """Accuracies of both arms, three seeds each, trained with a share of wrong labels."""
    return {
        f"{arm}, {share:.0%} wrong": [
            train_network(arm, 2, seed, 4, mislabelled(share, seed))[1] for seed in range(3)
        ]
        for arm in ("no mask", "residual")
    }


noisy = with_wrong(0.3)

# %%
noisy |= with_wrong(0.6)
for arm, runs in noisy.items():
    print(f"{arm:20}", "  ".join(f"{run:.0f} %" for run in runs))

for share in (0.3, 0.6):
    masked, plain = (np.array(noisy[f"{a}, {share:.0%} wrong"]) for a in ("residual", "no mask"))
    assert (masked > plain).any() and (masked < plain).any()
    assert max(masked.mean(), plain.mean()) < 90

# %%
viz.plot_arms(noisy, label="accuracy on unseen digits, %")

# %% [markdown]
# *Figure 7. Dots are seeds. Wrong labels cost both networks much. Which of them bears it better, these
# seeds do not say: at either share, the residual network is ahead with some seeds and behind with others.*
#
# With three further seeds the residual network is ahead in eight of the twelve pairs, and over all six by about
# three points on average at either share. That is a hint, and no more: the seeds of one arm differ by more than
# that, and the masks bring parameters of their own. A fair answer would need more seeds, and an arm as large without
# masks. The paper's comparison is on CIFAR-10, with networks of about equal size.

# %% [markdown]
# ### What the masks look like
#
# A hook on `mask` reads the weights, one map for each of the eight channels; another one, on its last
# convolution, the numbers $v$ in front of the sigmoid.

# %%
network, _ = trained["residual", 2][0]
mask, seen = network[2].mask, {}
hooks = [
    mask.register_forward_hook(lambda m, inputs, M: seen.update(M=M.data)),
    mask.conv2.register_forward_hook(lambda m, inputs, v: seen.update(v=v.data)),
]
with mt.no_grad():
    network.eval()(mt.tensor(images[:1]))
for hook in hooks:
    hook.remove()
maps = seen["M"][0]  # (8, 4, 4)
assert maps.shape == (8, 4, 4) and maps.min() > 0 and maps.max() < 1
between, within = maps.mean(axis=(1, 2)).std(), maps.std(axis=(1, 2)).mean()
print("weights differ between channels and within them:", between > 0.02 and within > 0.02)
viz.show_feature_maps(maps, columns=8, label="weight M", signed=False)

# %% [markdown]
# *Figure 8. The first mask of the trained network with two modules, for one digit, at the 4 x 4 places to which
# the network has pooled it. Every channel has a map of its own, and every map is uneven: this mask says what and
# where at once. Squeeze and excitation (lesson 13) has one number a channel.*
#
# A sigmoid for each element is one of three activations that the paper compares. It calls it *mixed*, as it
# constrains nothing. *Channel* divides the numbers by their length over the channels, at each place; *spatial*
# subtracts from each map its mean and divides by its deviation, before the sigmoid. Here are all three for the same
# numbers $v$:

# %%
masks = {}
for activation in "mixed", "channel", "spatial":
    gate = ResidualAttentionModule(WIDTH, Unit, activation=activation).mask.gate
    masks[activation] = gate(mt.tensor(seen["v"])).data[0]
assert np.allclose(masks["mixed"], maps)
assert np.allclose((masks["channel"] ** 2).sum(axis=0), 1, atol=1e-3) and masks["channel"].min() < 0
half = masks["spatial"] > 0.5
assert half.any(axis=(1, 2)).all() and not half.all(axis=(1, 2)).any()

titles = [f"{activation} {channel}" for activation in masks for channel in range(WIDTH)]
viz.show_feature_maps(np.concatenate(list(masks.values())), titles, columns=8, label="weight M")

# %% [markdown]
# *Figure 9. Above, the masks of figure 8. In the middle, weights of length one over the eight channels of a place,
# some of them negative. Below, every map has places above and places below one half: a channel as a whole can be
# neither on nor off.*

# %% [markdown]
# ## Paper and code
#
# | | paper | published network description | here |
# |---|---|---|---|
# | up and down | max pools and bilinear interpolation (figure 3) | pools whose windows reach over the lower right edge; interpolation with corners on corners | pools with a border of one pixel; the same interpolation |
# | trunk added to the mask before its last convolutions | no | no | no (some programs in use do) |
# | modules of Attention-92 | two in each stage by the formula for the depth, one, two and three by table 2 | one, two and three | one, two and three |
# | parameters of Attention-56 and -92 | 31.9 and 51.3 million | 31.8 and 52.5 million, counted | 31,810,728 and 52,466,344, the same |
# | channel activation f2 | divided by the length; no sigmoid, so weights can be negative | – | the same, and a small number under the root |
#
# Of the three activations mixed, which constrains the mask least, did best on CIFAR-10 in the paper (table 1). The
# library has them as `activation=`.
#
# The trunk may be made of any unit. The paper also uses those of ResNeXt and of Inception, and the library has four:

# %%
for unit in "preactivation", "residual", "resnext", "inception":
    network = cifar_attention(56, unit=unit)
    print(f"{unit:13} {sum(p.numel() for p in network.parameters()):,} parameters")

# %% [markdown]
# A trap: a pooling path must go on from the *previous level*. If every level pools the input itself, all levels see
# the same scale; the shapes still fit, and nothing complains.

# %% [markdown]
# ## Predict before you run
#
# **1.** The last convolution of the mask is set to zero. What does the residual module do to its trunk?

# %%
mt.manual_seed(0)
library = ResidualAttentionModule(4, Unit)
nn.init.zeros_(library.mask.conv2.weight)
values = {}
library.trunk.register_forward_hook(lambda m, inputs, out: values.update(T=out.data))
library.post.register_forward_hook(lambda m, inputs, out: values.update(y=inputs[0].data))
library(x4)
print("y / T is 1.5 everywhere:", np.allclose(values["y"], 1.5 * values["T"]))

# %% [markdown]
# <details><summary>Answer</summary>
#
# It multiplies by one and a half: $1 + \sigma(0)$. It is not the identity. That would need $M = 0$, which a sigmoid
# reaches only far down on its left.
#
# </details>
#
# **2.** How much of a gradient can the residual mask hold back from the trunk's weights?

# %%
ratio = 1 + 1 / (1 + np.exp(-np.linspace(-8, 8, 101)))
print(f"dT / dy lies between {ratio.min():.1f} and {ratio.max():.1f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Nothing: $dT = (1 + M)\,dy$ is at least $dy$. To filter gradients out is what the naive form can do.
#
# </details>
#
# **3.** An image of 6 x 7 pixels goes through a module with three halvings. What sizes does the mask see on its way?

# %%
sizes = []
library = ResidualAttentionModule(4, Unit, halvings=3).eval()
for part in library.mask.modules():
    if isinstance(part, nn.MaxPool2d):
        part.register_forward_hook(lambda m, inputs, out: sizes.append(out.shape[2:]))
y = library(mt.ones(1, 4, 6, 7))
print(" -> ".join(f"{h} x {w}" for h, w in sizes), "and back to", f"{y.shape[2]} x {y.shape[3]}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Each pool halves and rounds up: 3 x 4, 2 x 2, 1 x 1. On the way up each level is enlarged to the size of the level
# above, whatever that was, so that the mask always fits the trunk.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`17_residual_attention`](../exercises/17_residual_attention.ipynb):
#
# 1. **attend**: $(1 + M)\,T$ with both of its rules.
# 2. **enlarge**: bilinear enlargement as a matrix.
# 3. **chain_factor**: what a chain of masks makes of a signal.
# 4. **mask_units**: count the units of a mask.
# 5. **channel_mask**: the mask of length one, with its rule.
# 6. **Hourglass**: down, a skip and a smaller hourglass, up.

# %% [markdown]
# ## What to remember
#
# - A trunk, a mask of the same shape from an hourglass beside it, and their product $(1 + M)\,T$.
# - Two paths of the gradient: $(1 + M)\,dy$ into the trunk, $T\,dy$ into the mask.
# - A chain of masks below one fades as $(1/2)^m$ at the start; with $1 + M$ it grows as $(3/2)^m$.
# - Deep naive networks trained badly here and in the paper. On small digits, masks did not beat no masks, and only
#   hinted at bearing wrong labels better.

# %% [markdown]
# ## Sources
#
# - F. Wang, M. Jiang, C. Qian, S. Yang, C. Li, H. Zhang, X. Wang, X. Tang, *Residual Attention Network for Image
#   Classification*, CVPR 2017: equations 1 to 6; figures 2 to 4; tables 1 to 7. The authors' network descriptions
#   for Caffe, published beside it.
# - K. He, X. Zhang, S. Ren, J. Sun, *Identity Mappings in Deep Residual Networks*, ECCV 2016: the
#   pre-activation unit.
