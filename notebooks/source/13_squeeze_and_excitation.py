# %% [markdown]
# # 13 · Squeeze and excitation
#
# A small module that looks at a whole feature map, and then decides how much of each channel to
# keep.
#
# **You will be able to**
#
# - derive the module's forward and backward, and say by which two paths a gradient reaches its
#   input;
# - build it, place it in a residual network, and count what it costs;
# - tell from an experiment when it helps, and when it does not.
#
# **You need** lessons 01 to 08: primitives, modules, convolution, batch normalisation, residual
# blocks.
#
# **Time** about 70 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import ECA, ChannelSpatialSE, SqueezeExcitation
from minitorch_attn.data import DataLoader, TensorDataset, digits
from minitorch_attn.models import SEBlock, SENetBlock, se_googlenet, se_resnet, se_resnext50_32x4d
from minitorch_attn.training import evaluate, fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# A convolution sees a small window. Whether a *channel* matters often depends on more: on what the
# image as a whole is like. Below, one handwritten digit passes through four fixed filters, each of
# which answers to edges in one direction. That gives a feature map of four channels.

# %%
train, test = digits(), digits(train=False)
images, labels = test[:]
one = int(np.flatnonzero(labels == 1)[2])
image = images[one]  # (1, 8, 8)
assert image.shape == (1, 8, 8) and image.max() <= 1 and labels[one] == 1
viz.show_images(image, ["a digit one"])

# %%
rows = np.array([[-1.0, -1, -1], [0, 0, 0], [1, 1, 1]])
diagonal = np.array([[-1.0, -1, 0], [-1, 0, 1], [0, 1, 1]])
kernels = np.stack([rows, diagonal, rows.T, diagonal[:, ::-1]])[:, None]  # (4, 1, 3, 3)
edges = ["horizontal", "rising", "vertical", "falling"]

x = F.conv2d(mt.tensor(image[None]), mt.tensor(kernels), padding=1).abs()  # (1, 4, 8, 8)
viz.show_feature_maps(x[0], titles=edges, columns=4, label="response")

# %% [markdown]
# *Figure 1. A digit one, and the four channels that the filters make of it. Its strokes are upright,
# so the third channel has most to say.*
#
# Squeeze and excitation turns this feature map into four numbers, works out four *gates* between 0
# and 1 from them, and multiplies every channel by its gate. Here the gates are chosen by hand: a
# channel whose mean is above the average of the four is opened, the others are closed.

# %%
z = x.mean(dim=(2, 3))  # squeeze: one number a channel
s = F.sigmoid(20 * (z - z.mean()))  # excitation, by hand
y = x * s.reshape(1, 4, 1, 1)  # scale

figure, axes = viz.panels(1, 2, height=2.2)
viz.show_channel_weights(z[0], label="squeeze z", ax=axes[0])
viz.show_channel_weights(s[0], label="gate s", value_range=(0, 1), ax=axes[1])
assert s[0].argmax() == 2
figure

# %%
viz.show_feature_maps(y[0], titles=edges, columns=4, label="response")

# %% [markdown]
# *Figure 2. Top: what the squeeze saw, and the gates. Bottom: the channels after scaling. Nothing
# moved; some channels grew quiet.*
#
# That is the whole mechanism. What makes it useful is that the gates are not chosen by hand but
# learned, from the task, by gradient descent.

# %% [markdown]
# ## The equations
#
# Let $x$ be a feature map of shape $(N, C, H, W)$: $N$ images, $C$ channels, $H \times W$
# positions. We write $x_{nchw}$ for one element.
#
# **Squeeze.** Each channel is averaged over its positions:
#
# $$z_{nc} = \frac{1}{HW} \sum_{h=1}^{H} \sum_{w=1}^{W} x_{nchw} \qquad z: (N, C)$$
#
# **Excitation.** Two linear layers with a bottleneck between them, whose width is $C$ divided by a
# *reduction* $r$. With weights $W_1: (C/r, C)$ and $W_2: (C, C/r)$,
#
# $$a = z W_1^\top, \qquad h = \max(a, 0), \qquad v = h W_2^\top, \qquad
# s = \sigma(v) = \frac{1}{1 + e^{-v}}$$
#
# so that $a$ and $h$ have shape $(N, C/r)$, while $v$ and $s$ have shape $(N, C)$. (The letter $h$
# without indices is this hidden layer; as an index it counts rows.)
#
# **Scale.** Every position of a channel is multiplied by the channel's gate:
#
# $$y_{nchw} = s_{nc} \, x_{nchw}$$

# %% [markdown]
# ### Backward
#
# Let $L$ be the loss. As in all lessons, $dy$ stands for $\partial L / \partial
# y$, an array of $y$'s shape, and likewise $dx$, $ds$ and so on. We go through the equations from
# the last to the first.
#
# **Scale.** $y_{nchw}$ is a product. The gate $s_{nc}$ takes part in all $HW$ positions of its
# channel, so its gradient sums over them (the multivariable chain rule):
#
# $$ds_{nc} = \sum_{h,w} dy_{nchw} \, x_{nchw}$$
#
# The other factor is $x_{nchw}$ itself. Seen through this product alone, its gradient is
# $s_{nc} \, dy_{nchw}$. Keep that in mind; it is not all.
#
# **Sigmoid.** $\sigma' = \sigma (1 - \sigma)$, elementwise:
#
# $$dv_{nc} = ds_{nc} \, s_{nc} (1 - s_{nc})$$
#
# **Second linear layer.** With indices, $v_{nc} = \sum_k h_{nk} (W_2)_{ck}$. The weight $(W_2)_{ck}$
# takes part in $v_{nc}$ for every image $n$, and $h_{nk}$ in $v_{nc}$ for every channel $c$:
#
# $$(dW_2)_{ck} = \sum_n dv_{nc} \, h_{nk}, \qquad dh_{nk} = \sum_c dv_{nc} \, (W_2)_{ck}$$
#
# or, as matrix products (lesson 02),
#
# $$dW_2 = dv^\top h, \qquad dh = dv \, W_2$$
#
# **ReLU.** Only where its input was positive does a gradient pass. $\mathbb{1}[a > 0]$ is 1 there
# and 0 elsewhere:
#
# $$da = dh \odot \mathbb{1}[a > 0]$$
#
# **First linear layer.** In the same way, for $a = z W_1^\top$:
#
# $$dW_1 = da^\top z, \qquad dz = da \, W_1$$
#
# **Squeeze.** Each $x_{nchw}$ enters the mean $z_{nc}$ with weight $1/HW$.
#
# So $x$ reaches the loss on **two paths**: through the product, and through the mean that made the
# gate. The gradients of both add up:
#
# $$\boxed{\; dx_{nchw} = \underbrace{s_{nc} \, dy_{nchw}}_{\text{the gated signal}}
# + \underbrace{\frac{1}{HW} \, dz_{nc}}_{\text{the context}} \;}$$
#
# The second term has no $h, w$ on its right-hand side: it is the same at every position of a
# channel. Through it, a pixel learns from what happens anywhere in the image.

# %% [markdown]
# ### What it costs
#
# The weights are $2 \cdot C \cdot C/r$ numbers, and the multiplications for one image are as many,
# plus $CHW$ for the scaling. With one module for each residual block of ResNet-50, whose four
# stages have $3, 4, 6, 3$ blocks of $256, 512, 1024, 2048$ channels, and with $r = 16$:

# %%
stages = zip([3, 4, 6, 3], [256, 512, 1024, 2048], strict=True)
extra = sum(blocks * 2 * C * C // 16 for blocks, C in stages)
print(f"{extra:,} weights")
assert extra == 2_514_944

# %% [markdown]
# which is about a tenth of ResNet-50's 25.6 million. Most of them sit in the last stage, where $C^2$
# is largest.

# %% [markdown]
# ## The code
#
# First the equations as loops, for one gate after the other.


# %%
def squeeze_excite_loops(x, w1, w2):
    """x (N, C, H, W), w1 (C/r, C), w2 (C, C/r) -> y (N, C, H, W)."""
    N, C, H, W = x.shape
    y = np.empty_like(x)
    for n in range(N):
        z = [sum(x[n, c, i, j] for i in range(H) for j in range(W)) / (H * W) for c in range(C)]
        hidden = [max(sum(w1[k, c] * z[c] for c in range(C)), 0.0) for k in range(len(w1))]
        for c in range(C):
            v = sum(w2[c, k] * hidden[k] for k in range(len(w1)))
            y[n, c] = x[n, c] / (1 + np.exp(-v))
    return y


# %% [markdown]
# Now the same with whole arrays, in the form of a primitive: it returns `y` and a rule for each input.
# (Under `@mt.primitive` it would take tensors; as it stands it is a function of arrays.) The rules are
# the equations above, line by line. What they share, the way from `dy` back to `dv` and on to `da`, has
# names of its own.


# %%
def squeeze_excite(x, w1, w2):
    """x (N, C, H, W), w1 (C/r, C), w2 (C, C/r) -> y (N, C, H, W), and a rule for each."""
    H, W = x.shape[2:]
    z = x.mean(axis=(2, 3))
    a = z @ w1.T
    h = np.maximum(a, 0)
    s = 1 / (1 + np.exp(-(h @ w2.T)))
    gate = s[:, :, None, None]  # (N, C, 1, 1) broadcasts over positions

    def back_to_v(dy):
        ds = (dy * x).sum(axis=(2, 3))
        return ds * s * (1 - s)

    def back_to_a(dy):
        return (back_to_v(dy) @ w2) * (a > 0)

    def vjp_x(dy):
        dz = back_to_a(dy) @ w1
        return gate * dy + dz[:, :, None, None] / (H * W)

    def vjp_w1(dy):
        return back_to_a(dy).T @ z

    def vjp_w2(dy):
        return back_to_v(dy).T @ h

    return gate * x, (vjp_x, vjp_w1, vjp_w2)


# %%
rng = np.random.default_rng(0)
x = rng.normal(size=(2, 4, 3, 3))
w1, w2 = rng.normal(size=(2, 4)), rng.normal(size=(4, 2))

y, _ = squeeze_excite(x, w1, w2)
print("loops and arrays agree:", np.allclose(y, squeeze_excite_loops(x, w1, w2)))

# %% [markdown]
# In a network nobody writes the rules out: the module is put together from parts that have theirs.


# %%
class OurSqueezeExcitation(nn.Module):
    """s = sigmoid(W2 relu(W1 mean(x))), y = s x.  (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels, reduction=16):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction, bias=False)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=False)

    def forward(self, x):
        z = x.mean(dim=(2, 3))
        s = F.sigmoid(self.fc2(F.relu(self.fc1(z))))
        return x * s.reshape(*s.shape, 1, 1)


# %% [markdown]
# The library's `SqueezeExcitation` has the same parameters under the same names, so weights can be
# copied from one to the other.

# %%
ours, library = OurSqueezeExcitation(4, reduction=2), SqueezeExcitation(4, reduction=2)
for module in ours, library:
    module.load_state_dict({"fc1.weight": mt.tensor(w1), "fc2.weight": mt.tensor(w2)})

print("our module agrees:       ", np.allclose(ours(mt.tensor(x)).data, y))
print("library's module agrees: ", np.allclose(library(mt.tensor(x)).data, y))
library

# %% [markdown]
# ## The gradient check
#
# The rules are compared with central differences, in float64 and for random `dy` (lesson 03).

# %%
report = mt.check_vjp(squeeze_excite, x, w1, w2)
print(report)

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 3. Left the gradient that the rules give, in the middle the measured one, right the error:
# dark throughout.*
#
# And now with the mistake that is easiest to make. Someone multiplies `dy` by the gate and forgets
# that `x` also made the gate:


# %%
def without_context(x, w1, w2):
    y, (_, vjp_w1, vjp_w2) = squeeze_excite(x, w1, w2)
    z = x.mean(axis=(2, 3))
    gate = (1 / (1 + np.exp(-(np.maximum(z @ w1.T, 0) @ w2.T))))[:, :, None, None]

    def vjp_x(dy):
        return gate * dy

    return y, (vjp_x, vjp_w1, vjp_w2)


wrong = mt.check_vjp(without_context, x, w1, w2, raise_on_failure=False)
print(wrong)
assert not wrong.ok and "constant along axis" in wrong.inputs[0].diagnosis

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 4. The error of `x` has one value for each channel of each image: it is constant over the
# positions, axes 2 and 3. That is the fingerprint of the missing context term $dz / (HW)$, which does not depend
# on them. The weights' rules are still right.*

# %% [markdown]
# ## At work
#
# ### Where it makes no difference
#
# First the plain task: which digit is it? A small residual network with a module in every block,
# and the same network without, each from three seeds. Both arms of a seed see the same batches.

# %%
SEEDS = 0, 1, 2


def train_digits(attention, seed):
    mt.manual_seed(seed)
    model = se_resnet(widths=(8, 16), blocks=(1, 1), reduction=2, attention=attention)
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    loader = DataLoader(train, batch_size=64, shuffle=True, generator=seed)
    fit(model, loader, optimizer=optimizer, epochs=4, progress=False)
    return model, 100 * evaluate(model, DataLoader(test, batch_size=500))["accuracy"]


plain = [train_digits(False, seed) for seed in SEEDS]
gated = [train_digits(True, seed) for seed in SEEDS]
on_digits = {
    "without": [accuracy for _, accuracy in plain],
    "with SE": [accuracy for _, accuracy in gated],
}
for arm, runs in on_digits.items():
    print(f"{arm:8}", "  ".join(f"{run:.1f} %" for run in runs))

# %%
viz.plot_arms(on_digits, label="accuracy on unseen digits, %")

# %% [markdown]
# *Figure 5. A dot is one seed, the bar their mean. The arms overlap: on this task the module makes no
# difference that three seeds could show.*
#
# A likely reason: the few channels of a small network serve all ten digits, and leave a gate little to
# decide.

# %% [markdown]
# ### Where it does: read the brightest picture
#
# So let us make a task in which channels matter. Each input has four channels, and each channel is
# another noisy picture of a digit. One of the four is a little brighter all over. *Which digit does
# it show?*
#
# The extra brightness is 0.2 for every pixel, with noise of the same size on top: one pixel tells
# little. The mean of 64 pixels tells much, because their noise averages out. Which channel counts
# is a fact about the image as a whole.

# %%
DIGITS = {"train": train[:], "test": test[:]}


def brightest(part, count, seed):
    """Pictures (count, 4, 8, 8), the digit in the brightest channel, and that channel."""
    rng = np.random.default_rng(seed)
    images, labels = DIGITS[part]
    chosen, told = rng.integers(len(images), size=(count, 4)), rng.integers(4, size=count)
    x = images[chosen, 0] + 0.2 * rng.normal(size=(count, 4, 8, 8))
    x[np.arange(count), told] += 0.2
    return x, labels[chosen[np.arange(count), told]], told


pictures, digit, told = brightest("test", 2, seed=1)
means = pictures.mean(axis=(2, 3)).ravel()
assert (means.reshape(2, 4).argmax(axis=1) == told).all()
print("the digits to read:", digit)
viz.show_images(pictures.reshape(8, 8, 8), [f"mean {m:.2f}" for m in means], columns=4)

# %% [markdown]
# *Figure 6. Two inputs, one in each row. By eye it is hard to say which of the four pictures is the
# brightest; their means say it clearly.*
#
# The network: a convolution that keeps the four pictures apart (4 groups of 8 channels each), a
# place for a gate, a second convolution, a linear layer. Both convolutions halve the image. Three
# arms:
#
# - **no gate**: nothing there;
# - **local gate**: the same weights $W_1, W_2$, but without the squeeze: every position makes its own
#   gate from its own channels. As many parameters, no view of the whole;
# - **SE**: squeeze and excitation.


# %%
class LocalGate(SqueezeExcitation):
    """Excitation without squeeze: a gate for every position, from that position alone."""

    def forward(self, x):
        s = F.sigmoid(self.fc2(F.relu(self.fc1(x.permute(0, 2, 3, 1)))))  # (N, H, W, C)
        return x * s.permute(0, 3, 1, 2)


def convolution(in_channels, out_channels, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def reader(gate):
    """A network for pictures (N, 4, 8, 8), with a gate behind its first convolution."""
    return nn.Sequential(
        convolution(4, 32, stride=2, groups=4),
        gate,
        convolution(32, 32, stride=2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 10),
    )


def train_reader(build, seed, epochs=4):
    """Train a network from a seed; return it and its accuracy on 1000 unseen inputs, in %."""
    mt.manual_seed(seed)
    model = build()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    x, digit, _ = brightest("train", 2000, seed)
    loader = DataLoader(TensorDataset(x, digit), batch_size=32, shuffle=True, generator=seed)
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
    x, digit, _ = brightest("test", 1000, 1000 + seed)
    return model, 100 * evaluate(model, [(mt.tensor(x), mt.tensor(digit))])["accuracy"]


def show_runs(arms):
    for arm, runs in arms.items():
        print(
            f"{arm:10}", "  ".join(f"{run:.1f} %" for run in runs), f"  mean {np.mean(runs):.1f} %"
        )


# %%
gates = {
    "no gate": nn.Identity,
    "local gate": lambda: LocalGate(32, reduction=2),
    "SE": lambda: SqueezeExcitation(32, reduction=2),
}
readers = {
    arm: [train_reader(lambda gate=gate: reader(gate()), seed) for seed in SEEDS]
    for arm, gate in gates.items()
}
on_brightest = {arm: [accuracy for _, accuracy in runs] for arm, runs in readers.items()}
show_runs(on_brightest)

assert min(on_brightest["SE"]) > max(on_brightest["local gate"])
assert (np.array(on_brightest["local gate"]) > on_brightest["no gate"]).all()
bare, local, whole = (np.mean(runs) for runs in on_brightest.values())
assert local - bare < (whole - bare) / 2

# %%
viz.plot_arms(on_brightest, label="accuracy on unseen inputs, %")

# %% [markdown]
# *Figure 7. Here the module helps: every run with it beats every run without. The local gate, with the
# same number of parameters, brings less than half of that: what helps most is the view of the whole.*

# %% [markdown]
# ### What the gates learned
#
# A forward hook reads the gates. We average them over the inputs in which
# picture 0 was the brightest, then picture 1, and so on, and over the eight channels of each group.

# %%
model, _ = readers["SE"][0]
seen = []
handle = model[1].gate.register_forward_hook(
    lambda module, inputs, output: seen.append(output.data)
)
x, _, told = brightest("test", 1000, seed=7)
model.eval()
with mt.no_grad():
    model(mt.tensor(x))
handle.remove()

s = seen[0].reshape(1000, 4, 8).mean(axis=2)  # (inputs, group of channels)
mean_gate = np.stack([s[told == picture].mean(axis=0) for picture in range(4)])
figure, ax = viz.panels(1, 1, width=5.5, height=3)
viz.show_channel_weights(
    mean_gate, rows=[f"picture {i}" for i in range(4)], label="mean gate", ax=ax
)
ax.set_xlabel("group of channels")
figure

# %% [markdown]
# *Figure 8. One row for each brightest picture, one column for each group of channels. Each column is
# brightest where the group's own picture is the one to read.*

# %%
own = np.diag(mean_gate)
others = (mean_gate.sum(axis=0) - own) / 3
print("a picture's own gates, when it is the brightest:", own.round(2))
print("and when another one is:                        ", others.round(2))
assert (own > others).all() and (mean_gate.argmax(axis=0) == np.arange(4)).all()

# %% [markdown]
# In every group the gates are wider open when the group's own picture is the one to read. Nobody
# told the module to do that.
#
# And on the digits? The same for each of the ten classes, in the two blocks of a network that was
# trained above:

# %%
model, _ = gated[0]
seen = {}
blocks = {"first block": model.stages[0][0], "second block": model.stages[1][0]}
for name, block in blocks.items():
    block.attention.gate.register_forward_hook(
        lambda module, inputs, output, name=name: seen.update({name: output.data})
    )
images, labels = test[:]
model.eval()
with mt.no_grad():
    model(mt.tensor(images))

per_class = {
    name: np.stack([s[labels == k].mean(axis=0) for k in range(10)]) for name, s in seen.items()
}
figure, axes = viz.panels(1, 2, height=3.4)
for ax, (name, weights) in zip(axes, per_class.items(), strict=True):
    viz.show_channel_weights(weights, value_range=(0, 1), label=f"mean gate, {name}", ax=ax)
figure

# %%
for name, weights in per_class.items():
    spread = weights.std(axis=0).mean()
    print(f"{name}: mean gate {weights.mean():.2f}, spread between classes {spread:.2f}")
assert per_class["second block"].mean() > 0.9
assert all(weights.std(axis=0).mean() < 0.1 for weights in per_class.values())
assert per_class["second block"].mean(axis=1).argmin() == 8

# %% [markdown]
# *Figure 9. Rows are the ten digits, columns the channels. The gates differ little between the
# classes, most for the eight in the last block. Those of the first block have stayed near one half,
# where they started; those of the last block are mostly open.*
#
# A gate that is nearly always open might as well be left out. We take the last module out of the trained
# networks:

# %%
unchanged = []
for model, accuracy in gated:
    model.stages[1][0].attention = nn.Identity()
    without = 100 * evaluate(model, DataLoader(test, batch_size=500))["accuracy"]
    unchanged.append(abs(without - accuracy) < 1)
    print(f"{accuracy:.1f} % with the last module, {without:.1f} % without")
assert all(unchanged)

# %% [markdown]
# The paper tells the same of the last stage of its ResNet-50, where most gates are close to one; its
# modules were removed there at little loss (section 7.2). Further in front, on a thousand classes, it
# saw gates that do differ from class to class. Our two blocks on ten digits do not show that.

# %% [markdown]
# ### How narrow may the bottleneck be?
#
# The reduction $r$ is a price: the module has $2 C^2 / r$ weights. On ImageNet hardly anything
# depends on it; from $r = 2$ to $r = 16$ the paper's errors are alike (table 10). Here $C = 32$, and
# the bottleneck of $C / r$ units becomes narrow.

# %%
bottlenecks = {"r = 2": on_brightest["SE"]}
for r in 4, 16:
    bottlenecks[f"r = {r}"] = [
        train_reader(lambda r=r: reader(SqueezeExcitation(32, reduction=r)), seed)[1]
        for seed in SEEDS
    ]
for r in 2, 4, 16:
    weights = sum(p.numel() for p in SqueezeExcitation(32, reduction=r).parameters())
    print(f"r = {r:2}: {32 // r:2} units, {weights:4} weights")
    assert weights == 2 * 32 * 32 // r
show_runs(bottlenecks)

# %%
wide, middle, narrow = np.array(list(bottlenecks.values()))  # by seed
assert (wide > narrow).all()
assert np.ptp(middle) > 2 * np.ptp(wide) and abs(middle.mean() - wide.mean()) < 5
viz.plot_arms(bottlenecks, label="accuracy on unseen inputs, %")

# %% [markdown]
# *Figure 10. On every seed, 16 units do better than 2. With 8 units the mean is about that of 16 units,
# but the seeds lie more than twice as far apart.*
#
# So here the ratio matters. The number 16 is not to blame: on ImageNet $r = 16$ leaves 16 units at the
# narrowest place of ResNet-50 and 128 at the widest, here it leaves two. A likely reason: two units would
# have to tell which of four pictures is the brightest, and a unit whose ReLU falls silent for all inputs
# is lost. With few channels take a small $r$.

# %% [markdown]
# ### Mean or maximum?
#
# The squeeze might take the greatest value of each channel in place of the mean. On ImageNet the
# maximum does a little worse (table 11). Which of the two can tell the brightest picture at all? No
# network is needed to find out. For comparison, a second kind of input: instead of the whole picture,
# a single random pixel is brighter, by 2.

# %%
x, _, told = brightest("test", 1000, seed=8)
spark, rng = x.copy(), np.random.default_rng(8)
image, row, column = np.arange(1000), rng.integers(8, size=1000), rng.integers(8, size=1000)
spark[image, told] -= 0.2
spark[image, told, row, column] += 2

found = {}
for name, inputs in {"all pixels brighter": x, "one pixel brighter": spark}.items():
    for squeeze in np.mean, np.max:
        hits = (squeeze(inputs, axis=(2, 3)).argmax(axis=1) == told).mean()
        found[name, squeeze.__name__] = 100 * hits
        print(f"{name:20} found by the {squeeze.__name__:4} in {100 * hits:.0f} %")

assert min(found["all pixels brighter", "mean"], found["one pixel brighter", "max"]) > 99
assert max(found["all pixels brighter", "max"], found["one pixel brighter", "mean"]) < 80

# %% [markdown]
# Each squeeze nearly always finds one of the two cues, and often misses the other. In our task all
# pixels are brighter. So the module should do worse with a maximum:

# %%
squeezes = {"no gate": on_brightest["no gate"], "maximum": [], "mean": on_brightest["SE"]}
for seed in SEEDS:
    _, accuracy = train_reader(
        lambda: reader(SqueezeExcitation(32, reduction=2, squeeze="max")), seed
    )
    squeezes["maximum"].append(accuracy)
show_runs(squeezes)
assert max(squeezes["maximum"]) < min(squeezes["mean"])
assert abs(np.mean(squeezes["maximum"]) - np.mean(squeezes["no gate"])) < 3

# %%
viz.plot_arms(squeezes, label="accuracy on unseen inputs, %")

# %% [markdown]
# *Figure 11. Every run with the mean is ahead of every run with the maximum, which gains nothing over no
# gate that three seeds could show.*
#
# Which squeeze is right is a question to the task. CBAM (lesson 15) takes both.

# %% [markdown]
# ### Four places in a residual block
#
# Let $R(x)$ be the residual branch of a block (convolution, batch normalisation, ReLU, convolution,
# batch normalisation), and $S(x)$ its shortcut: $x$ itself, or a 1x1 convolution with batch
# normalisation where the shape changes. The paper tries the module in four places (figure 5):
#
# | placement | the block |
# |---|---|
# | standard | $y = \max(\mathrm{SE}(R(x)) + S(x),\ 0)$ |
# | pre | $y = \max(R(\mathrm{SE}(x)) + S(x),\ 0)$ |
# | post | $y = \mathrm{SE}(\max(R(x) + S(x),\ 0))$ |
# | identity | $y = \max(R(x) + \mathrm{SE}(S(x)),\ 0)$ |
#
# On ImageNet standard, pre and identity come out alike, and post is worse (table 14). We try them on
# the brightest picture, from two seeds: such a block takes the place of our second convolution.


# %%
def residual_reader(placement):
    """The network with a residual block; `placement` None leaves its module out."""
    with_module = {} if placement is None else {"reduction": 2, "placement": placement}
    return nn.Sequential(
        convolution(4, 32, stride=2, groups=4),
        SEBlock(32, 32, stride=2, **{"reduction": None, **with_module}),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 10),
    )


placements = {
    placement or "none": [
        train_reader(lambda p=placement: residual_reader(p), seed)[1] for seed in SEEDS[:2]
    ]
    for placement in (None, "standard", "pre", "post", "identity")
}
show_runs(placements)

# %%
none, standard, pre, post, identity = np.array(list(placements.values()))  # by seed
others = np.stack([none, standard, post, identity])
assert (pre > others).all()
assert pre.mean() - others.mean() > np.ptp(others.mean(axis=1))
viz.plot_arms(placements, label="accuracy on unseen inputs, %")

# %% [markdown]
# *Figure 12. The seeds differ much, so compare seed by seed, in the rows above: the module in front of
# the block is ahead of all others on both (and on a third that we tried). In the three other places it
# makes no difference of that size.*
#
# A reason suggests itself. In front of the block, each group of channels still belongs to one picture: to turn
# the group down is to turn the picture down. Behind the convolutions of the branch or of the shortcut,
# which see all channels, every channel is a mixture of four pictures. A gate can turn mixtures up and
# down there, but no single picture. *A gate can only choose between what the channels hold apart.* (The
# paper's order, in which post alone falls behind, does not show here.)

# %% [markdown]
# ## Paper and code
#
# | | paper | released models | here |
# |---|---|---|---|
# | biases in the two linear layers | none: "removing the biases ... facilitates the modelling of channel dependencies" (section 6) | there | `bias=False`, can be set |
# | the two layers | linear layers on $z$ | 1x1 convolutions on $z$ as a 1x1 image, the same arithmetic | linear layers |
# | reduction | $r = 16$ | $r = 16$ | `reduction=16`; smaller for few channels |
# | squeeze, gate | mean and sigmoid; maximum, tanh and ReLU tried | mean and sigmoid | `squeeze="avg"`, `gate="sigmoid"`, can be set |
# | place in a residual block | end of the branch, before the addition | the same, scaling and addition in one step | four placements |
#
# Two traps. With $r = 16$ and 16 channels only one hidden unit is left, and while its ReLU is silent
# for all images, its weights get no gradient and the gates stay at one half. And in the standard place
# $z$ is the mean of a batch-normalised map, which is close to that channel's shift for every image: at
# first the gate has little to go by.
#
# ### The networks of the paper
#
# The module fits wherever there are channels: behind each Inception module, whose branches are
# concatenated first, or at the end of each residual branch of a ResNeXt. With biases, as released:

# %%
for build in se_googlenet, se_resnext50_32x4d:
    model = build()
    inside = [m for m in model.modules() if isinstance(m, SqueezeExcitation)]
    share = sum(p.numel() for m in inside for p in m.parameters())
    total = sum(p.numel() for p in model.parameters())
    print(f"{build.__name__:18} {total:,} parameters, {share:,} of them in {len(inside)} modules")

# %% [markdown]
# SENet-154, of the entry that won ILSVRC 2017, is the `senet154` of `minitorch_attn.models`: a
# ResNeXt-152 with a module in each block, and with 115,088,984 parameters too large to be made here. Its
# stem is three 3x3 convolutions of 64, 64 and 128 channels in place of one 7x7. In its blocks, the first
# convolution makes half as many channels as the second, and a shortcut that halves the image is a 3x3
# convolution. This is one of them, the first of its second stage:

# %%
block = SENetBlock(256, 128, stride=2, attention=lambda C: SqueezeExcitation(C, bias=True))
assert block.conv1.out_channels == block.conv2.out_channels // 2
assert block.downsample[0].kernel_size == (3, 3)
block

# %% [markdown]
# ### What came after
#
# **scSE** (Roy, Navab, Wachinger 2018), made for segmentation, asks not only *what* but also *where*:
# beside the gates $s_{nc}$ stands a gate for each position, one for all channels,
#
# $$q_{nhw} = \sigma\Bigl(\sum_c w_c \, x_{nchw}\Bigr), \qquad
# y_{nchw} = s_{nc} \, x_{nchw} + q_{nhw} \, x_{nchw}$$
#
# at the price of $C$ weights more. (The authors' program takes the greater of the two products instead of
# their sum; the library has both.)

# %%
x = np.random.default_rng(2).normal(size=(2, 8, 5, 5))
scse = ChannelSpatialSE(8, reduction=2, combine="sum")
w1, w2 = scse.channel.fc1.weight.data, scse.channel.fc2.weight.data
w = scse.spatial.conv.weight.data.reshape(1, 8, 1, 1)

weighed, _ = squeeze_excite(x, w1, w2)  # the primitive from above
q = 1 / (1 + np.exp(-(w * x).sum(axis=1, keepdims=True)))  # (N, 1, H, W)
print("scSE agrees:", np.allclose(scse(x).data, weighed + q * x))
assert sum(p.numel() for p in scse.parameters()) == 2 * 8 * 8 // 2 + 8

# %% [markdown]
# **ECA** (Wang and others 2020) does without the bottleneck. Each gate is made from the means of a
# channel and its neighbours, by $k$ weights that all channels share: a convolution along the channels,
#
# $$s_{nc} = \sigma\Bigl(\sum_{m=1}^{k} w_m \, z_{n,\, c + m - (k+1)/2}\Bigr)$$
#
# with zeros beyond the first and the last channel. The number $k$ is odd and grows with $\log_2 C$: 3 for
# 64 channels, 5 for 256. So it costs 5 weights where squeeze and excitation with $r = 16$ has 8192.

# %%
eca = ECA(8)
(w,) = eca.conv.weight.data[0]  # k = 3 numbers
z = np.pad(x.mean(axis=(2, 3)), [(0, 0), (1, 1)])
s = 1 / (1 + np.exp(-(w[0] * z[:, :-2] + w[1] * z[:, 1:-1] + w[2] * z[:, 2:])))
print("ECA agrees:", np.allclose(eca(x).data, s[:, :, None, None] * x))
print("weights at 64 and 256 channels:", [ECA(C).conv.weight.numel() for C in (64, 256)])
assert sum(p.numel() for p in SqueezeExcitation(256).parameters()) == 8192

# %% [markdown]
# ## Predict before you run
#
# **1.** At the start of training the weights are small. What does the module do to its input then?

# %%
mt.manual_seed(0)
fresh = SqueezeExcitation(64)
x = mt.randn(8, 64, 4, 4)
ratio = fresh(x).data / x.data
print(f"output / input: {ratio.mean():.2f} on average, from {ratio.min():.2f} to {ratio.max():.2f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# It halves it: $\sigma(0) = 1/2$. In a standard block the residual branch starts at half its size.
# It is not the identity at the start, unlike some modules of later lessons.
#
# </details>
#
# **2.** All pixels of the input are shuffled, in every channel in the same way. What happens to the
# gates?

# %%
gates_seen = []
fresh.gate.register_forward_hook(lambda module, inputs, output: gates_seen.append(output.data))
order = np.random.default_rng(0).permutation(16)
fresh(x)
fresh(x.reshape(8, 64, 16)[:, :, order].reshape(8, 64, 4, 4))
print("gates unchanged:", np.allclose(gates_seen[0], gates_seen[1]))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Nothing. The squeeze is a mean over positions, and a mean does not know their order. The module can
# tell *what* is in an image, never *where*.
#
# </details>
#
# **3.** The slope of the sigmoid multiplies every gradient that reaches the weights. How large can
# it be?

# %%
v = np.linspace(-8, 8, 1601)
s = 1 / (1 + np.exp(-v))
print(f"largest slope: {(s * (1 - s)).max():.2f}, at v = {v[(s * (1 - s)).argmax()]:.1f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# At most one quarter, where the gate is one half. A gate that is nearly open or nearly closed learns
# slowly.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`13_squeeze_and_excitation`](../exercises/13_squeeze_and_excitation.ipynb):
#
# 1. **squeeze**: the mean of every channel, with its rule.
# 2. **excite**: from the means to the gates.
# 3. **scale**: the product, with both of its rules.
# 4. **squeeze_excite**: all three steps in one, with the rules of all three inputs.
# 5. **SqueezeExcitation**: the module.
# 6. **place**: the module in a residual block, in each of the four places.

# %% [markdown]
# ## What to remember
#
# - Squeeze (a mean over positions), excite (two linear layers, a sigmoid), scale (a product).
# - The gradient to the input has two paths: $s \odot dy$, and a context term $dz / (HW)$ that is the
#   same at every position.
# - It costs $2C^2/r$ weights, and as many multiplications for each image.
# - It helps where the image as a whole decides which channels count, and where the channels still
#   hold apart what is to be chosen between. On plain digits it made no difference.
# - With few channels take a small $r$; and see that the squeeze can tell what the gates need to know.

# %% [markdown]
# ## Sources
#
# - J. Hu, L. Shen, S. Albanie, G. Sun, E. Wu, *Squeeze-and-Excitation Networks*, IEEE TPAMI 2020
#   (first at CVPR 2018): equations 2 to 5; tables 10 to 14; figure 5 for the placements.
# - K. He, X. Zhang, S. Ren, J. Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016: the
#   residual block.
# - A. G. Roy, N. Navab, C. Wachinger, *Concurrent Spatial and Channel Squeeze & Excitation in Fully
#   Convolutional Networks*, MICCAI 2018: scSE.
# - Q. Wang, B. Wu, P. Zhu, P. Li, W. Zuo, Q. Hu, *ECA-Net: Efficient Channel Attention for Deep
#   Convolutional Neural Networks*, CVPR 2020: ECA, and the rule for $k$ (section 3.3).
