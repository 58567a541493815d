# %% [markdown]
# # 30 · Every mechanism side by side
#
# All mechanisms of the course under one roof: put into the same small network, trained alike on the same
# images, weighed by what they bring and by what they cost.
#
# **You will be able to**
#
# - put any mechanism, also one of your own, into one of six places of a network, and compare it with all
#   others by one command;
# - derive the backward of an attention whose queries, keys and values all come from the same input;
# - read a table of results: differences with their errors, the part of luck, prices; and say what it
#   cannot show.
#
# **You need** the lessons whose mechanisms you want to compare; lessons 03, 08 and 12 for the rest.
#
# **Time** about 90 minutes, and as long again for the exercises.

# %%
import math

import numpy as np

import minitorch_attn as mt
from minitorch_attn import compare, nn, viz
from minitorch_attn.attention import MultiplicativeAttention, ParameterFreeSpatialAttention
from minitorch_attn.compare import MECHANISMS, ROWS, Backbone, Mechanism, Settings, place
from minitorch_attn.compare.mechanisms import LookUp, Pool
from minitorch_attn.compare.report import GROUPS, figure, group_of, not_learned, ordered, table
from minitorch_attn.compare.sweep import scenes, seeded
from minitorch_attn.data import cluttered_digits

mt.set_default_dtype("float64")
SETTINGS = Settings()

# %% [markdown]
# ## The idea in one picture
#
# The task: a handwritten digit lies somewhere among pieces of other digits; which one is it? The network: a
# convolution, two stages of one residual block each, the mean over places, and a linear map. In it there are
# six places where an attention may stand. Below, the network without any, trained (that takes some seconds),
# and what it makes of one scene: the scores at the end, and on the way the mean over the channels.

# %%
plain = compare.train(ROWS["nothing"], seed=0)
test = cluttered_digits(
    SETTINGS.test_images, train=False, size=24, digit=12, clutter=4, generator=0
)
images = test.images / 255.0
assert np.array_equal(images, scenes(SETTINGS, train=False).arrays[0])


def hooked(network, parts, x, training=False):
    """What some parts of a network return for x, each as an array; and its scores."""
    seen = {}
    network.train(training)
    with mt.no_grad():
        hooks = [
            part.register_forward_hook(
                lambda module, inputs, output, name=name: seen.update({name: output.numpy()})
            )
            for name, part in parts.items()
        ]
        scores = network(x).numpy()
    for hook in hooks:
        hook.remove()
    return seen, scores


network = plain.network
parts = {"convolution": network.bn1, "stage 1": network.stage1, "stage 2": network.stage2}
seen, scores = hooked(network, parts, images)
SHOWN = 3  # which scene

drawn, axes = viz.panels(1, 5, width=9.0, height=2.5)
top, left, height, width = test.boxes[SHOWN]
axes[0].imshow(images[SHOWN, 0], cmap="gray")
axes[0].plot(
    left - 0.5 + np.array([0, width, width, 0, 0]),
    top - 0.5 + np.array([0, 0, height, height, 0]),
    color="#E69F00",
)
axes[0].set(title="scene (1, 24, 24)", xlabel="front  →")
under = {"convolution": "→", "stage 1": "block, convolution\nbetween  →"}
under["stage 2"] = "block, convolution\npool, head  →"
for ax, (name, maps) in zip(axes[1:4], seen.items(), strict=True):
    ax.imshow(np.maximum(maps[SHOWN], 0).mean(axis=0))
    ax.set(title=f"{name} {maps.shape[1:]}", xlabel=under[name])
for ax in axes[:4]:
    ax.set(xticks=[], yticks=[])
axes[4].bar(range(10), scores[SHOWN], color="#666666")
axes[4].set(title="scores (10,)", xlabel="digit", xticks=range(10), yticks=[])
for ax in axes:
    ax.title.set_size(9)
assert scores[SHOWN].argmax() == test.labels[SHOWN]
assert [maps.shape[1:] for maps in seen.values()] == [(16, 12, 12), (16, 12, 12), (32, 6, 6)]
drawn

# %% [markdown]
# *Figure 1. The roof. Under the maps, the places: in front of all; inside each block, at the end of its
# branch or in place of its second convolution; between the stages; in place of the mean over places, or of
# mean and linear map. (The frame shows where the digit lies. The network is not told.)*

# %% [markdown]
# ## The equations
#
# ### Two sentences for thirty mechanisms
#
# With $x_j$ the features at place $j$ of $L$, nearly all that the course has built says one of two things:
#
# $$\text{weigh:}\quad y_j = w_j(x) \odot x_j \qquad\qquad
# \text{gather:}\quad y_i = \sum_j a_{ij}(x)\, v_j(x)$$
#
# *Weigh* is recalibration: $w$ depends on the channel (SE, ECA), on the place (sSE), on both (BAM, CBAM,
# residual attention). *Gather* is self-attention, with a row of weights $a_{i\cdot}$ for each place $i$, and
# with a single row it is a pooling: global context, DELF, additive attention. A spatial transformer gathers,
# too: $a_{ij}$ are bilinear weights, at most four of a row not zero.
#
# In both, $x$ stands in several places, and backward each of them sends something back. For *weigh*
# (lesson 12), by the product rule, $dx = w \odot dy$ plus what comes back through $w$. For *gather* we take
# the smallest example in which everything comes from the same $x$: a pooling that asks with the mean.
#
# ### A pooling that asks with the mean
#
# For one image, $x: (L, D)$, a row of $D$ features for each place:
#
# $$q = \frac1L \sum_k x_k, \qquad e_j = q \cdot x_j, \qquad a = \mathrm{softmax}(e), \qquad
# y = \sum_j a_j\, x_j$$
#
# The shapes: $q: (D,)$, $e, a: (L,)$, $y: (D,)$. Now backward, from the last equation to the first. Let $dy$
# be given, $(D,)$.
#
# 1. $y = \sum_j a_j x_j$ is a product of two things that both depend on $x$. With $a$ held fixed, the *values*
#    send back $a_j\, dy$ to $x_j$. With the values held fixed, $da_j = x_j \cdot dy$.
# 2. The softmax (lesson 18): $de_j = a_j\, (da_j - \sum_k a_k\, da_k)$.
# 3. $e_j = q \cdot x_j$ is a product, too. With $q$ held fixed, the *keys* send back $de_j\, q$ to $x_j$. With
#    the keys held fixed, $dq = \sum_j de_j\, x_j$.
# 4. $q$ is a mean: the *query* sends back $dq / L$ to every place.
#
# What reaches $x_j$ is the sum of the three:
#
# $$dx_j = \underbrace{a_j\, dy}_{\text{value}} + \underbrace{de_j\, q}_{\text{key}} +
# \underbrace{\tfrac1L \sum_k de_k\, x_k}_{\text{query}}$$
#
# ### What a difference is worth
#
# Now $a$ and $e$ are needed for something else. Two rows of a table, each trained from the same $S$ seeds:
# $a_s$ and $b_s$ are their accuracies. A seed decides the first weights of the network and the order of the
# images, for both rows alike. So we look at the differences $d_s = a_s - b_s$, their mean $\bar d$, and how far
# that mean may be off by luck, its *standard error*
#
# $$e = \frac{s}{\sqrt S}, \qquad s^2 = \frac{1}{S - 1} \sum_s (d_s - \bar d)^2$$
#
# The variance of a difference is $\mathrm{var}(a) + \mathrm{var}(b) - 2\, \mathrm{cov}(a, b)$: if a seed that
# is good for one is good for the other, the last term makes the error smaller than that of two rows with
# seeds of their own. Whether it is so, the numbers must tell.
#
# And luck has more chances the more rows there are. A row that does nothing is ahead of the baseline with
# probability 1/2 a seed, with all $S$ seeds with probability $2^{-S}$; among $M$ such rows one expects
# $M\, 2^{-S}$ that are ahead with every seed. And as all are held against one and the same baseline, they come in
# crowds: where it had bad luck, many look good at once.

# %% [markdown]
# ## The code
#
# The pooling, first in loops over places, then with arrays, in primitive form.


# %%
def mean_query_loops(x):
    L, D = x.shape
    q = [sum(x[k, d] for k in range(L)) / L for d in range(D)]
    e = [sum(q[d] * x[j, d] for d in range(D)) for j in range(L)]
    total = sum(math.exp(e_j) for e_j in e)
    return np.array([sum(math.exp(e[j]) / total * x[j, d] for j in range(L)) for d in range(D)])


def mean_query(x):
    """x (L, D) -> y (D,), and the rule of x."""
    q = x.mean(axis=0)
    e = x @ q
    a = np.exp(e - e.max())
    a = a / a.sum()

    def vjp_x(dy):
        da = x @ dy
        de = a * (da - a @ da)
        dq = de @ x
        return np.outer(a, dy) + np.outer(de, q) + dq / len(x)

    return a @ x, vjp_x


x = np.random.default_rng(0).normal(size=(6, 4))
print("loops and arrays agree:", np.allclose(mean_query_loops(x), mean_query(x)[0]))

# %% [markdown]
# The library has no module of that name, and needs none: it is multiplicative attention (lesson 10) with its
# "dot" score, and the image's mean for a query. `LookUp` hands these over; it reads a map $(N, D, H, W)$.

# %%
pool = LookUp(MultiplicativeAttention(4, 4, score="dot"))
as_map = mt.tensor(x.T.reshape(1, 4, 2, 3), requires_grad=True)
y = pool(as_map)
dy = np.array([1.0, -2.0, 0.5, 3.0])
y.backward(dy[None])
ours, vjp_x = mean_query(x)
print("the library's agrees:  ", np.allclose(y.data[0], ours))
print("and so does its rule:  ", np.allclose(as_map.grad.data.reshape(4, 6).T, vjp_x(dy)))

# %% [markdown]
# Now the roof. It is a network whose parts are attributes, and to put a mechanism in means to set one of them.
# By hand, and by `place`, which does just that, for the channels that are there:

# %%
mt.manual_seed(0)
by_hand = Backbone()
by_hand.pool = LookUp(MultiplicativeAttention(32, 32, score="dot"))

mt.manual_seed(0)
placed = place(
    Backbone(), "pool", lambda channels: LookUp(MultiplicativeAttention(channels, channels, "dot"))
)
with mt.no_grad():
    same = np.array_equal(by_hand(images[:2]).data, placed(images[:2]).data)
print("by hand and placed agree:", same)

# %% [markdown]
# The backbone draws its first weights *before* the guest comes: with one seed, all mechanisms move into the
# very same network (all but those that bring a network or blocks of their own). And what a place costs is soon
# said. `mt.summary` counts what lesson 08 counted by hand:

# %%
C1, C2, K = 16, 32, 10
stem = 1 * C1 * 9
stage1 = 2 * C1 * C1 * 9
stage2 = C1 * C2 * 9 + C2 * C2 * 9 + C1 * C2  # the last is the shortcut's 1 x 1 convolution
multiply_adds = 12 * 12 * (stem + stage1) + 6 * 6 * stage2 + C2 * K
norms = 2 * (C1 + 2 * C1 + 3 * C2)
parameters = stem + stage1 + stage2 + norms + (C2 + 1) * K
told = mt.summary(Backbone(), (1, 24, 24))
print("multiply-adds by hand and counted:", f"{multiply_adds:,}", f"{told.multiply_adds:,}")
print("parameters by hand and counted:   ", f"{parameters:,}", f"{told.parameters:,}")
assert (multiply_adds, parameters) == (told.multiply_adds, told.parameters)

# %% [markdown]
# A mechanism with its place and a name is a row of the comparison. These are all of them; and a row of your
# own is one line.

# %%
mine = Mechanism(
    "asks with the mean", "pool", lambda C: LookUp(MultiplicativeAttention(C, C, "dot")), 30
)
print("mine, before any training:", mine.network(24)(images[:2]).shape)
for group in GROUPS:
    names = [name for name in ROWS if group_of(compare.Row(name)) == group]
    print(f"\n{group}: {', '.join(names)}")

# %% [markdown]
# ## The gradient check
#
# The rule of `mean_query` against central differences (lesson 03), as numbers and as a picture:

# %%
report = mt.check_vjp(mean_query, x)
print(report)
assert report.ok

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 2. The gradient by the rule, the measured one, and their difference: dark throughout.*
#
# A mistake that is easily made: the query is "only" a mean of what is there, and someone takes it for a
# constant.


# %%
def query_as_a_constant(x):
    q = x.mean(axis=0)
    a = np.exp(x @ q) / np.exp(x @ q).sum()

    def vjp_x(dy):
        da = x @ dy
        de = a * (da - a @ da)
        return np.outer(a, dy) + np.outer(de, q)

    return a @ x, vjp_x


wrong = mt.check_vjp(query_as_a_constant, x, raise_on_failure=False)
(of_x,) = wrong.inputs
lacking = of_x.numeric - of_x.analytic
print("the rule of x:", "right" if of_x.ok else "wrong")
print(of_x.diagnosis)
print("what is lacking is the same at every place:", np.allclose(lacking, lacking[0], atol=1e-6))
assert not wrong.ok and np.allclose(lacking, lacking[0], atol=1e-6)

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 3. The error has one value in each column: every place lacks the same, and that is the share
# $dq / L$ that the mean should have handed to each.*
#
# ### All rows at once
#
# A whole network, too, is a function with a slope. Move the image and all parameters a little along one random
# direction $v$, and compare the change of the output, measured on both sides, with what the reverse pass says
# of that direction: one number a row.


# %%
def slope_error(row, seed, h=1e-7):
    """Relative error of the reverse pass along one random direction."""
    rng = np.random.default_rng(seed)
    mt.manual_seed(seed)
    network = row.network(24)
    x = mt.tensor(rng.random((3, 1, 24, 24)), requires_grad=True)
    moved = [x, *network.parameters()]
    for p in moved[1:]:  # so that what starts at 0 takes part
        p.data = p.data + 0.05 * rng.normal(size=p.shape)
    start = [np.array(t.data) for t in moved]
    direction = [rng.normal(size=t.shape) for t in moved]
    dy = rng.normal(size=(3, 10))
    network(x).backward(dy)
    pairs = [(t, v) for t, v in zip(moved, direction, strict=True) if t.grad is not None]
    by_rule = sum((t.grad.data * v).sum() for t, v in pairs)

    def output(step):
        for t, t0, v in zip(moved, start, direction, strict=True):
            t.data = t0 + step * v
        with mt.no_grad():
            return (network(x).data * dy).sum()

    measured = (output(h) - output(-h)) / (2 * h)
    return abs(by_rule - measured) / abs(measured)


def along_a_smooth_direction(row):
    """A direction may cross a kink, where a ReLU opens: then another is tried, and a third."""
    for seed in range(3):
        error = slope_error(row, seed)
        if error < 1e-6:
            break
    return error


errors = {name: along_a_smooth_direction(row) for name, row in ROWS.items()}
groups = {name: group_of(compare.Row(name)) for name in ROWS}
drawn, ax = viz.panels(height=2.8)
for level, (group, (_, colour)) in enumerate(GROUPS.items()):
    values = [errors[name] for name in ROWS if groups[name] == group]
    ax.scatter(values, [level] * len(values), color=colour, alpha=0.7)
ax.set_yticks(range(len(GROUPS)), labels=list(GROUPS))
ax.set(xscale="log", xlim=(1e-11, 1), ylim=(len(GROUPS) - 0.5, -0.5), xlabel="relative error")
ax.grid(axis="x")
print("rows checked:", len(errors), "- all right:", max(errors.values()) < 1e-5)
assert max(errors.values()) < 1e-5
drawn

# %% [markdown]
# *Figure 4. A dot for each row, networks of lesson 08 among them. A wrong rule would stand at the right edge,
# near 1. The spatial transformer, at the front, stands apart: it reads between pixels, and where a place that it
# reads crosses from one pixel to the next is a kink, too. Of three directions it may not have one without.*

# %% [markdown]
# ## At work
#
# ### Four rows, here and now
#
# The network of figure 1 has no attention: its mean over places gives each of them the same weight. Three
# poolings in its stead, from the same seed: additive attention, that asks with the mean of the image (lesson
# 10); parameter-free attention, a softmax of the *sum* of the channels (lesson 25); and, a row of our own, the
# same with their *mean* for the sum.


# %%
def parameter_free_of_the_mean(channels):
    attention = ParameterFreeSpatialAttention(squeeze="mean")
    return nn.Sequential(attention, Pool(lambda x: x.sum(dim=(2, 3))))


softmaxes = {
    "AdditiveAttention": lambda network: network.pool.attention.softmax,
    "ParameterFreeSpatialAttention": lambda network: network.pool[0].weights,
    "the same, of the mean": lambda network: network.pool[0].weights,
}
live_rows = {
    "AdditiveAttention": ROWS["AdditiveAttention"],
    "ParameterFreeSpatialAttention": ROWS["ParameterFreeSpatialAttention"],
    "the same, of the mean": Mechanism("of the mean", "pool", parameter_free_of_the_mean, 25),
}
live = {"nothing": plain}
for name, row in live_rows.items():
    live[name] = compare.train(row, seed=0)

covered = np.zeros((len(images), 24, 24))  # 1 within the digit's frame
for scene, (top, left, height, width) in enumerate(test.boxes):
    covered[scene, top : top + height, left : left + width] = 1
covered = covered.reshape(-1, 6, 4, 6, 4).mean(axis=(2, 4))  # share of each place of a 6 x 6 map

looks = {"nothing": np.full(covered.shape, 1 / 36)}
for name, softmax in softmaxes.items():
    network = live[name].network
    seen, _ = hooked(network, {"weights": softmax(network)}, images)
    looks[name] = seen["weights"].reshape(covered.shape)

within = {name: (w * covered).sum(axis=(1, 2)).mean() for name, w in looks.items()}
accuracy = {name: run.accuracy for name, run in live.items()}
print("more than half of the weight within the frame:", [n for n in live if within[n] > 0.5])
print("behind the plain network by 10 points and more:", end=" ")
print([name for name in live if accuracy[name] < accuracy["nothing"] - 0.1])

# %%
drawn, axes = viz.panels(4, 6, width=9.0, height=6.2)
for column, scene in enumerate(range(6)):
    top, left, height, width = test.boxes[scene]
    for ax in axes[:, column]:
        ax.plot(
            left - 0.5 + np.array([0, width, width, 0, 0]),
            top - 0.5 + np.array([0, 0, height, height, 0]),
            color="#E69F00",
        )
        ax.set(xticks=[], yticks=[])
    axes[0, column].imshow(images[scene, 0], cmap="gray")
    for ax, name in zip(axes[1:, column], softmaxes, strict=True):
        ax.imshow(looks[name][scene], extent=(-0.5, 23.5, 23.5, -0.5), vmin=0, vmax=1)
labels = ("scene", "additive", "parameter-free", "of the mean")
for ax, label in zip(axes[:, 0], labels, strict=True):
    ax.set_ylabel(label)
assert min(within[name] for name in softmaxes) > 0.5 and abs(within["nothing"] - 0.25) < 0.01
assert accuracy["ParameterFreeSpatialAttention"] < accuracy["nothing"] - 0.1
assert accuracy["AdditiveAttention"] > accuracy["nothing"] - 0.05
assert accuracy["the same, of the mean"] > accuracy["nothing"] - 0.05
drawn

# %% [markdown]
# *Figure 5. Where they look (bright is 1): from this seed all three have most of their weight on the digit,
# though nobody told them where it is; the frame covers a quarter of the scene.*
#
# So all look at the right thing, and yet one is far behind. *Where* an attention looks, and *whether that
# helps*, are two questions, and a map answers the first alone. (Even that answer is one seed's: from another,
# parameter-free attention ended with some 60 % of its weight in the frame.)
#
# Why is it behind? A guess: a softmax of sums of 32 channels is saturated (lesson 25) before the first step, so
# that one place speaks for all, and the others learn nothing.

# %%
largest = {}
for name, softmax in softmaxes.items():
    untrained = seeded(live_rows[name], 0, SETTINGS)
    seen, _ = hooked(untrained, {"weights": softmax(untrained)}, images[:200], training=True)
    largest[name] = seen["weights"].max(axis=1).mean()
    print(f"{name:30} largest weight, untrained: {largest[name]:.2f}")
assert max(largest["AdditiveAttention"], largest["the same, of the mean"]) < 0.1
assert largest["ParameterFreeSpatialAttention"] > 0.5

# %% [markdown]
# Our own row is the test of that guess: the mean of 32 channels is the sum divided by 32 and nothing else has
# changed, no parameter was added, the very same channels decide. It does not start saturated, and it is not
# behind. (From seed 1 it was so again. It also ends less sharp, as figure 5 shows; which of the two matters, this
# does not tell.)
#
# Mind what that says of the table that comes now. One setting, that many would not even mention, decides
# whether this mechanism is far behind. The table has it as its paper has it; and it has every other mechanism in
# *one* setting, too. A row is a mechanism with its settings, not an idea.

# %% [markdown]
# ### All rows
#
# These trainings take some seconds each. All of them, from several seeds, were made by the command
#
# ```
# python -m minitorch_attn compare --json benchmarks/results/compare.json --figure docs/compare.png
# ```
#
# in about a quarter of an hour on two cores; what it wrote lies beside the library, and is read here. (To make
# it anew: that command with `--afresh`, then `python -m minitorch_attn build 30 --force`.) Every training has
# the same 1,200 scenes, 8 epochs, and Adam with one learning rate that falls along half a cosine; the accuracy
# is that behind the last epoch, on 1,000 scenes of digits that were never trained on. (Mostly a seed gives the
# very same accuracy everywhere. But processors round differently, and a saturated softmax makes much of little:
# the parameter-free row may differ by some scenes.)

# %%
stored = compare.load()
assert stored.settings == SETTINGS
seeds = sorted(stored.rows["nothing"].accuracies)
print(
    "made with NumPy",
    stored.about["numpy"],
    "on",
    stored.about["system"],
    "from",
    len(seeds),
    "seeds",
)
for name in ("nothing", "AdditiveAttention", "ParameterFreeSpatialAttention"):
    apart = abs(stored.rows[name].accuracies[0] - accuracy[name])
    print(f"{name:30} seed 0, trained above: within three points of the stored:", apart < 0.03)
    assert apart < 0.03

# %%
mechanism_groups = [group for group in GROUPS if group != "blocks of other networks"]
figure(stored, mechanism_groups)

# %% [markdown]
# *Figure 6. Left, a dot for each seed and a bar at the mean; the grey band is the range of the network without
# attention. Right, what a row costs, divided by what that network costs: parameters, multiply-adds for an
# image, time of a training step (with its quartiles), and memory at the peak of a step.*
#
# The same as a table. *Difference* is the mean of the paired differences to the baseline, with its standard
# error; *ahead*, in how many seeds; *time* is a ratio.

# %%
print(table(stored))

# %% [markdown]
# Not few mechanisms are *behind* the plain network. Before we ask how much of that is luck, a look at how they
# fall behind: the accuracy on the scenes they were trained on (as these came in the last epoch), against that on
# new ones.

# %%
plain_row = stored.rows["nothing"]
rows = [row.name for row in MECHANISMS]
M = len(rows)
lost = [name for name in not_learned(stored) if name in rows]  # have hardly begun to learn
learned = {name: stored.rows[name].train_mean for name in rows if name not in lost}
named = ("nothing", "a quarter wider", max(learned, key=learned.get))
drawn, ax = viz.panels(height=4.2)
for name in [*learned, *(row.name for row in compare.CONTROLS)]:
    row = stored.rows[name]
    at = 100 * row.train_mean, 100 * row.mean
    ax.scatter(*at, color=GROUPS[groups[name]][1], s=30)
    if name in named:
        ax.annotate(name, at, xytext=(-4, 5), textcoords="offset points", size=9, ha="right")
ax.axvline(100 * plain_row.train_mean, color="#666666", linewidth=1)
ax.axhline(100 * plain_row.mean, color="#666666", linewidth=1)
for group, (_, colour) in GROUPS.items():
    if any(groups[name] == group for name in learned):
        ax.scatter([], [], color=colour, label=group)
ax.legend(frameon=False, fontsize=9)
ax.set(xlabel="accuracy on training scenes, %", ylabel="accuracy on test scenes, %")
ax.grid()

behind = [name for name in rows if stored.rows[name].mean < plain_row.mean]
print(f"mechanisms behind the plain network on test scenes: {len(behind)} of {M}")
share = {}
for group in ("inside each block", "between the stages", "as the pooling"):
    members = [name for name in learned if groups[name] == group]
    share[group] = np.mean([learned[name] > plain_row.train_mean for name in members])
    print(f"{group:20} ahead of it on training scenes: {100 * share[group]:.0f} %")
both_ways = [
    sum(learned[name] < plain_row.train_mean for name in behind if name in learned),
    sum(learned[name] > plain_row.train_mean for name in behind if name in learned),
]
print(f"of those behind, {both_ways[0]} learned less of the training scenes, {both_ways[1]} more")
assert len(behind) >= 5 and min(both_ways) >= 1
assert share["as the pooling"] > share["inside each block"]
drawn

# %% [markdown]
# *Figure 7. Two ways of falling behind; the lines are those of the plain network. A row left of the upright line
# has learned less of the training scenes in the same 300 steps. A row right of it has learned them better; if it
# stands below the level line, that was no help on new ones. Of the poolings a larger share stands right of it than
# of what is inside the blocks.*
#
# Guesses are soon made: a gate near 1/2 makes features smaller, and a new map must first be learned, so both cost
# steps, of which there are few; a pooling that listens to single places can learn scenes by heart. They are
# guesses, until somebody tries. Would the first catch up with more steps, and the second with more scenes?
# `--epochs` and `--images` of the command tell; with them, and `--only`, it takes minutes.

# %% [markdown]
# ### How much of that is luck?
#
# One row of the table is there for this question alone: the baseline, from the same first weights, given the
# same images in another order. What differs between the two is nothing that deserves a name.

# %%
base = stored.rows["nothing"].accuracies
again = stored.rows["nothing, in another order"].accuracies
points = [100 * (again[seed] - base[seed]) for seed in seeds]
print("another order, seed by seed, in points:", " ".join(f"{d:+.1f}" for d in points))
print(f"largest difference that is luck alone: {max(map(abs, points)):.1f} points")

ahead = {name: sum(stored.rows[name].accuracies[s] > base[s] for s in seeds) for name in rows}
S = len(seeds)
print(f"rows: {M}, seeds: {S}; ahead of the baseline with every seed by luck alone: {M / 2**S:.1f}")
print(f"in fact: {sum(n == S for n in ahead.values())} ahead with every seed, ", end="")
print(f"{sum(n == 0 for n in ahead.values())} with none")
needed = math.ceil(math.log2(M / 0.05))
print(f"seeds until 'ahead with every one' is below 5 % among {M} rows: {needed}")

unpaired = {name: math.hypot(stored.rows[name].spread, plain_row.spread) / S**0.5 for name in rows}
gained = np.median([stored.difference(name)[1] / unpaired[name] for name in rows])
print(
    f"error of a paired difference, by that of an unpaired one: {gained:.1f} (median of all rows)"
)
assert max(map(abs, points)) > 0.3

# %% [markdown]
# So a single seed tells little: as much as the second line says comes from shuffling alone. And the count of
# wins alone cannot convince with fewer seeds than `needed` (an exercise makes a test of it). The size of a
# difference, held against its error, says more; how much smaller that error is by pairing, the last line tells
# (1 would be: not at all). As each row's error comes from few differences, twice the error is too narrow for 19
# times of 20; for five seeds it takes 2.8 errors (Student's $t$).

# %%
T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}.get(S, 2.2)
print("hardly begun to learn, and left out of the pictures:", ", ".join(lost) or "none")
others = [name for name in ROWS if groups[name] != "blocks of other networks"][1:]
differences = {name: stored.difference(name) for name in others}
shown = sorted((n for n in others if n not in lost), key=lambda name: differences[name][0])
drawn, ax = viz.panels(height=8.2)
for level, name in enumerate(shown):
    mean, error = differences[name]
    colour = GROUPS[groups[name]][1]
    ax.plot(100 * (mean + T * error * np.array([-1, 1])), [level] * 2, color=colour, linewidth=1.5)
    ax.scatter([100 * mean], [level], color=colour, s=22)
ax.axvline(0, color="#666666", linewidth=1)
ax.set_yticks(range(len(shown)), labels=shown, size=9)
for label, name in zip(ax.get_yticklabels(), shown, strict=True):
    label.set_color(GROUPS[groups[name]][1])
ends = 100 * differences[shown[0]][0] - 8, 100 * differences[shown[-1]][0] + 8
ax.set(xlabel="accuracy minus the baseline's, points", xlim=ends, ylim=(-0.7, len(shown) - 0.3))
ax.grid(axis="x")
clear = [name for name in rows if abs(differences[name][0]) > T * differences[name][1]]
print(f"mechanisms whose difference is clear of zero: {len(clear)} of {M}", end="")
print(f" (by luck alone, one in twenty: {M / 20:.1f})")
mean, error = differences["nothing, in another order"]
near = sum(abs(differences[name][0]) <= abs(mean) for name in rows)
print(f"the baseline in another order: {100 * mean:+.1f} points, ", end="")
print("clear of zero" if abs(mean) > T * error else "its range holds zero")
print(f"mechanisms that lie no further from zero than that: {near} of {M}")
assert np.all(np.diff([differences[name][0] for name in shown]) >= 0)
drawn

# %% [markdown]
# *Figure 8. The paired differences, each with the range that the true mean lies in 19 times of 20, if it stood
# alone and differences were spread as a bell (the fewer seeds, the wider; some may run out of the picture). Among
# so many rows some will lie beside theirs.*
#
# Look at the last two lines that were printed. The baseline in another order is the same network, and sees the
# same images: whatever its row shows is luck, be its range clear of zero or not. A mechanism that lies no further
# from zero than that row has shown nothing here.

# %% [markdown]
# ### What it costs
#
# Which rows are worth their price? Those that no other beats in accuracy *and* in price (an exercise). Once
# with multiply-adds for the price, and once with time.


# %%
def not_beaten(accuracy, cost):
    """Which of several rows no other beats: at least as good in both, and better in one."""
    return [
        not any(b >= a and d <= c and (b > a or d < c) for b, d in zip(accuracy, cost, strict=True))
        for a, c in zip(accuracy, cost, strict=True)
    ]


def write_names(ax, points):
    """Names at the right edge, a line from each to its point (x, y), none on top of another."""
    left, right = ax.get_xlim()
    low, high = ax.get_ylim()
    ax.set_xlim(left, right + 0.5 * (right - left))
    level = -math.inf
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        level = max(y, level + (high - low) / 22)
        line = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6}
        ax.annotate(name, (x, y), (right, level), va="center", size=8, arrowprops=line)


priced = [
    row
    for row in ordered(stored)
    if groups[row.name] != "blocks of other networks"
    and row.name not in (*lost, "nothing, in another order")
]
accuracies = [row.mean for row in priced]
drawn, axes = viz.panels(1, 2, width=9.0, height=4.2)
kept = {}
for ax, cost in zip(axes, ("multiply_adds", "time"), strict=True):
    prices = np.array([getattr(row.costs, cost) for row in priced], dtype=float)
    prices = prices / prices[0]
    front = not_beaten(accuracies, prices)
    kept[cost] = [row.name for row, stays in zip(priced, front, strict=True) if stays]
    for row, price, stays in zip(priced, prices, front, strict=True):
        colour = GROUPS[groups[row.name]][1]
        ax.scatter([price], [100 * row.mean], color=colour, s=40 if stays else 14)
    ax.set(xlabel=f"{cost.replace('_', '-')} / baseline's", ylabel="accuracy, %")
    ax.grid()
    told = {
        row.name: (price, 100 * row.mean)
        for row, price in zip(priced, prices, strict=True)
        if row.name in (*kept[cost], "a quarter wider")
    }
    write_names(ax, told)
best = max(accuracies)
assert all(max(stored.rows[name].mean for name in names) == best for names in kept.values())
for cost, names in kept.items():
    print(f"not beaten, price in {cost.replace('_', '-')}: {', '.join(names)}")
drawn

# %% [markdown]
# *Figure 9. Accuracy against price; large are the rows that none beats. Which they are depends on
# what is counted as price, and, where means lie within each other's error, on luck.*
#
# Mind the black dot with a name: a quarter more width, which no paper would be written about, for half as many
# multiply-adds again. A gain at a price means something only beside what that price buys without any idea. Which
# mechanisms are ahead of it, and which of these for fewer multiply-adds?

# %%
wider = stored.rows["a quarter wider"]
better = [name for name in rows if stored.rows[name].mean > wider.mean]
cheaper = [n for n in better if stored.rows[n].costs.multiply_adds < wider.costs.multiply_adds]
print(f"mechanisms ahead of it: {len(better)} of {M};", ", ".join(better) or "none")
print("for fewer multiply-adds:", ", ".join(cheaper) or "none")
assert 1.5 < wider.costs.multiply_adds / plain_row.costs.multiply_adds < 1.6

# %% [markdown]
# Multiply-adds and time are different prices: an operation that reads a map and writes it again counts no
# multiply-add, and takes time and memory. SimAM has neither parameters nor multiply-adds:

# %%
for name in ("SimAM", "TripletAttention", "SelectiveKernel", "ResidualAttentionModule"):
    costs, plain_costs = stored.rows[name].costs, stored.rows["nothing"].costs
    print(
        f"{name:24} multiply-adds x {costs.multiply_adds / plain_costs.multiply_adds:.2f}, "
        f"time x {costs.time:.2f}, memory x {costs.memory / plain_costs.memory:.2f}"
    )
sim_am = stored.rows["SimAM"].costs
assert sim_am.multiply_adds == stored.rows["nothing"].costs.multiply_adds
assert sim_am.memory > 1.1 * stored.rows["nothing"].costs.memory

# %% [markdown]
# ### The other networks
#
# Lesson 08's networks differ in their blocks. Here each lends its block to the same two stages, of the same
# widths; so their prices differ much more than those of the mechanisms did.

# %%
figure(stored, ["no attention", "blocks of other networks"])

# %% [markdown]
# *Figure 10. The blocks of lesson 08's networks in the same frame. Grouped, depthwise and bottleneck blocks cost
# a fraction of the multiply-adds, and much more than that fraction of the time.*
#
# Blocks with few parameters have learned less here than the plain block, as one would expect. In their own
# networks, what they save is spent on more of them; that is not tried here.

# %%
families = [row for row in stored.rows.values() if groups[row.name] == "blocks of other networks"]
shares = {
    row.name: (row.costs.multiply_adds / plain_row.costs.multiply_adds, row.costs.time)
    for row in families
}
cheap = {name: pair for name, pair in shares.items() if pair[0] < 0.5}
print("blocks with less than half of the multiply-adds:", len(cheap), "of", len(families))
print("their time is a larger share than that:", all(t > c for c, t in cheap.values()))
small = [row for row in families if row.costs.parameters < plain_row.costs.parameters / 2]
less = sum(row.mean < plain_row.mean for row in small)
print(f"with less than half of the parameters: {len(small)}, behind the plain block: {less}")
assert cheap and all(t > c for c, t in cheap.values())
assert less > len(small) / 2

# %% [markdown]
# ### What this can show, and what not
#
# - It shows what each mechanism *costs* exactly (parameters, multiply-adds), nearly so (memory), and, for this
#   library on one thread of one processor, in time. On a GPU the times would be others.
# - It shows what each does *to this network, on this task, with this budget*: 20,000 parameters, small grey
#   scenes, 300 steps, one learning rate for all, no augmentation. A mechanism that learns slowly is behind
#   here, and may be ahead in the papers' hundreds of thousands of steps; one that costs capacity where
#   there is none to spare, likewise. Nothing was tuned for any row: that is fair in one sense, and unfair to
#   each that needs other settings than the baseline (remember the sum and the mean). So it is no verdict on any
#   mechanism, and says nothing of large networks and photographs.
# - Figure 8 holds each row against the baseline. Two other rows are held against each other by
#   `stored.difference(one, to=other)`; and if you chose the two because they lie apart, the best of many is ahead
#   once more.
# - The scenes are the same for all seeds: luck in *them* is in no error bar, and does not shrink with more seeds.
#   With 1,000 test scenes an accuracy of 80 % is itself known to $\sqrt{0.8 \cdot 0.2 / 1000}$, or 1.3 points;
#   that error is partly shared by all rows. And few training scenes favour whatever learns from few.
# - Several rows are not meant for this at all. Retrieval's poolings (CroW, R-MAC, DELF, regional attention) are
#   to tell things apart that were never trained on (lessons 22 to 24); SCA-CNN is to follow a sentence
#   (lesson 26); criss-cross, efficient and linear attention are to save on maps far larger than 12 x 12; a vision
#   transformer is to be trained on millions of images.
#   Here they are classifiers' parts, and compared as such.
#
# So what is the table for? To try an idea in a minute; to see at once what an idea costs; and to learn how large
# an effect must be before it is one.

# %% [markdown]
# ## Paper and code
#
# Where the rows depart from the papers (and from the library's defaults), so that all fit into one small frame:
#
# | rows | here | in the papers |
# |---|---|---|
# | SE, scSE, CBAM, BAM, global context | reduction 4 | 16 (scSE 2) |
# | CBAM, triplet attention | kernels of 3, for maps of 12 and 6 | 7 |
# | BAM | dilation 2 | 4 |
# | selective kernel | in place of the second 3 x 3 convolution, at least 8 wide inside | in place of a ResNeXt's grouped one, 32 |
# | double, external attention | half the channels; 32 memories | a quarter; 64 |
# | additive, DELF, SCA-CNN, regional | 16 hidden features | up to 512 and more |
# | residual attention | units of a quarter's width, one in the trunk, two halvings, once | several modules |
# | non-local, dual, criss-cross and their like | once, between the stages | late in a deep network |
# | position attention, criss-cross | reduction 4 | 8 |
# | scaled dot product, linear attention | one head, with maps for q, k, v and the output | within a Transformer |
# | DANet's head | scores of places, averaged; only their sum is trained | segmentation, three losses |
# | additive, multiplicative | the query is the image's mean | a decoder's state |
# | SCA-CNN | the state is the image's mean | a decoder's state |
# | R-MAC, regional attention | no whitening; trained with the network | whitened; network frozen |
# | CroW, DELF | sums divided by the number of places; trained with the network | length 1, PCA; frozen |
# | parameter-free | followed by a sum | followed by a mean, which is 1/HW of it |
# | ViT | two layers, 32 features, patches of 4 | twelve and more, 768, of 16 |
#
# Papers, for their part, often compare at equal depth and from one seed; the mechanism then costs something that
# the baseline has not. That is why three more rows without attention stand here: one that spends on a block,
# one that spends on width, and one that spends nothing.

# %% [markdown]
# ## Predict before you run
#
# **1.** The non-local block without its map (lesson 20: in tiles) is the same function. Is its accuracy in the
# table the same? Its memory?

# %%
with_map, in_tiles = stored.rows["NonLocalBlock"], stored.rows["NonLocalBlock, in tiles"]
apart = [abs(with_map.accuracies[s] - in_tiles.accuracies[s]) for s in seeds]
print("accuracies differ by more than three scenes in a hundred:", max(apart) > 0.03)
for size in (24, 48):
    large, _ = compare.measure(
        ["NonLocalBlock", "NonLocalBlock, in tiles"], Settings(size=size, images=16, batch_size=16)
    )
    ratio = large["NonLocalBlock"].memory / large["NonLocalBlock, in tiles"].memory
    print(f"scenes of {size} x {size}: the map makes the step's memory {ratio:.1f} times as large")
assert max(apart) <= 0.03 and ratio > 2

# %% [markdown]
# <details><summary>Answer</summary>
#
# The same, but for what rounding does: the sums are added in another order (and 300 steps may make a scene or
# some of it). The memory is not: with scenes
# twice as large in each direction the maps of 12 x 12 become 24 x 24, and $L^2$ grows by 16 where all else
# grows by 4.
#
# </details>
#
# **2.** Suppose no mechanism did anything: all rows were the baseline, with a spread like its own, each with luck
# of its own. By how much would the best of them be ahead?

# %%
rng = np.random.default_rng(0)
spread = stored.rows["nothing"].spread
tables = plain_row.mean + spread * rng.normal(size=(2000, M + 1, S))
gain = tables[:, 1:].mean(axis=2).max(axis=1) - tables[:, 0].mean(axis=1)
print(
    f"gain of the best of {M} rows that do nothing, in spreads of one seed: "
    f"{gain.mean() / spread:.1f} on average"
)
assert gain.mean() > 0.5 * spread

# %% [markdown]
# <details><summary>Answer</summary>
#
# There is always a best row, and it looks like a gain: the largest of many draws lies well above their middle.
# Who picks the winner of a table and reports its lead reports that, too. Train the winner once more from new
# seeds, and compare again.
#
# </details>
#
# **3.** Every row starts from the same weights of the backbone. Which mechanisms leave the scores exactly as they
# are before the first step?

# %%
silent = []
mt.manual_seed(0)
before = Backbone()(images[:4]).data
for row in MECHANISMS:
    mt.manual_seed(0)
    if row.place != "network" and np.allclose(row.network(24)(images[:4]).data, before):
        silent.append(row.name)
print("start as nothing:", ", ".join(silent))
assert "NonLocalBlock" in silent and "SqueezeExcitation" not in silent

# %% [markdown]
# <details><summary>Answer</summary>
#
# Those whose last scale or map starts at zero, and the spatial transformer, which starts by reading the image
# where it is. They can be put into a trained network (an exercise). Gates start near 1/2, and change all
# features at once.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`30_capstone`](../exercises/30_capstone.ipynb):
#
# 1. **paired_difference**: a difference and its error.
# 2. **luck**: how likely a row without effect is ahead so often.
# 3. **holm**: which of many rows stand out.
# 4. **not_beaten**: which rows are worth their price.
# 5. **mean_query**: the pooling that asks with the mean, with its rule.
# 6. **StartsAsNothing**: a guest that can move into a trained network.
#
# And with no check: a `Mechanism` of your own, and `compare.train(yours, seed=0)`.

# %% [markdown]
# ## What to remember
#
# - Nearly every mechanism weighs or gathers; in both, $x$ stands in several places, and backward each of them
#   sends something back. Forget one, and the check finds it.
# - A map shows where an attention looks, not whether looking there helps. And a row of a table shows a mechanism
#   with its settings, in one network, on one task: change one of them and compare, before you give a reason.
# - One seed tells little. Compare seed by seed, give the error, and mind how many rows you looked at: the best
#   of many is always ahead.
# - Parameters, multiply-adds, time and memory are four prices, not one. Buy a control for the same price.

# %% [markdown]
# ## Sources
#
# - The mechanisms: their lessons.
# - X. Bouthillier et al., *Accounting for Variance in Machine Learning Benchmarks*, MLSys 2021.
# - M. Dehghani et al., *The Efficiency Misnomer*, ICLR 2022.
# - S. Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 6, 1979.
# - Student, *The probable error of a mean*, Biometrika 6, 1908.
