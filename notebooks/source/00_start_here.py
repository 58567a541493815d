# %% [markdown]
# # 00 · Start here
#
# What this course is, how its lessons and exercises work, and a first taste of attention.
#
# **You will be able to**
#
# - say what attention does, in five lines of NumPy, and show it on a real image;
# - find your way through the lessons, and know what each part of one is for;
# - write an exercise, have it checked, and get help when you are stuck.
#
# **You need** Python with a little NumPy, and the derivatives of a first calculus course.
#
# **Time** about 20 minutes, and as long again for the exercises.
#
# Run the cells from top to bottom: Shift+Enter runs one and goes on to the next. Each time the text
# says what came out, it comes from the cell above it.

# %%
import numpy as np
from IPython.display import Markdown

from minitorch_attn import viz
from minitorch_attn.course import check, hint, progress, solution
from minitorch_attn.course.plan import LESSONS, PARTS
from minitorch_attn.data import digits

# %% [markdown]
# ## The idea in one picture
#
# Here are two handwritten digits of 8 × 8 pixels, ink in white. Each passes through two fixed filters.
# One answers where the ink changes from left to right, that is at **upright** strokes; the other where
# it changes from top to bottom, at **level** strokes. So each image becomes two *maps*.

# %%
images, labels = digits()[:]
one = images[labels == 1][2, 0].astype(float)  # (8, 8), ink from 0 to 1
two = images[labels == 2][1, 0].astype(float)
viz.show_images(np.stack([one, two]), ["a one", "a two"])


# %%
def edges(image):
    """Upright and level edges: (8, 8) -> (2, 8, 8)."""
    padded = np.pad(image, 1)
    upright = padded[1:-1, 2:] - padded[1:-1, :-2]  # right neighbour minus left neighbour
    level = padded[2:, 1:-1] - padded[:-2, 1:-1]  # lower neighbour minus upper neighbour
    return np.abs(np.stack([upright, level]))


maps = {"one": edges(one), "two": edges(two)}
assert maps["one"][0].mean() > 2 * maps["one"][1].mean()
viz.show_feature_maps(
    np.concatenate([maps["one"], maps["two"]]),
    titles=["one: upright", "one: level", "two: upright", "two: level"],
    columns=4,
    label="response",
)

# %% [markdown]
# *Figure 1. Two digits, and what two filters make of them. The strokes of the one are upright, so its
# first map has far more to say than its second. The two has level strokes as well, at its foot.*
#
# Which of the two maps is worth listening to? That depends on the image. **Attention is to let the
# image decide**: work out a weight for each map *from the maps themselves*, and add the maps up with
# these weights. Here is all of it:


# %%
def attend(maps):
    """One map from several, each weighed by how much it has to say: (C, H, W) -> (H, W), (C,)."""
    z = maps.mean(axis=(1, 2))  # what each map has to say, as one number
    e = np.exp(20 * z)  # large numbers win
    weights = e / e.sum()  # positive, and together 1
    return (weights[:, None, None] * maps).sum(axis=0), weights


results = {name: attend(pair) for name, pair in maps.items()}
for name, (_, weights) in results.items():
    print(f"{name:5}  upright {weights[0]:.2f}  level {weights[1]:.2f}")

# %%
assert results["one"][1][0] > 0.98 and 0.7 < results["two"][1][0] < 0.8
viz.show_feature_maps(
    np.stack([y for y, _ in results.values()]),
    titles=[f"{name}: attended" for name in results],
    label="response",
)

# %% [markdown]
# *Figure 2. The sum of the two maps, weighed by the image. The one is seen through its upright edges
# alone; in the two, the level edges have about a quarter of the say.*
#
# Nothing in these lines is learned: the filters are fixed, the 20 is chosen by hand. In the course the
# filters and the weights are learned from data, by gradients, and you will build everything that takes.

# %% [markdown]
# ## The equations
#
# Let there be $C$ maps of $H \times W$ numbers, and $x_{chw}$ the number of map $c$ in row $h$ and
# column $w$. The three steps are
#
# $$z_c = \frac{1}{HW} \sum_{h,w} x_{chw} \qquad a_c = \frac{e^{\tau z_c}}{\sum_k e^{\tau z_k}} \qquad
# y_{hw} = \sum_c a_c \, x_{chw}$$
#
# with $\tau = 20$ above. The fraction in the middle is called *softmax*: it makes positive numbers $a_c$
# of any $z_c$, and they add up to 1, since the sum below the line is the sum of all that stand above it.
#
# How strongly it decides is $\tau$. For two maps, divide above and below by $e^{\tau z_1}$:
#
# $$a_1 = \frac{1}{1 + e^{-\tau (z_1 - z_2)}}$$
#
# Only the difference of the two means counts. If it is 0, both weights are one half, and so they are
# for $\tau = 0$, whatever the image is; if $\tau (z_1 - z_2)$ is large, the first takes nearly all.
#
# Most of this course is that line with the three steps changed: where the weights come from (a few
# layers that learn), and what is weighed (channels, places in an image, words of a sentence).

# %% [markdown]
# ## The code
#
# In every lesson the code comes twice: first as loops that follow the equations letter by letter, then
# with whole arrays, which is shorter and much faster. Then both are shown to be equal.


# %%
def attend_loops(x):
    """The three equations, letter by letter: (C, H, W) -> (H, W)."""
    C, H, W = x.shape
    z = [sum(x[c, h, w] for h in range(H) for w in range(W)) / (H * W) for c in range(C)]
    a = [np.exp(20 * z[c]) / sum(np.exp(20 * z[k]) for k in range(C)) for c in range(C)]
    return np.array(
        [[sum(a[c] * x[c, h, w] for c in range(C)) for w in range(W)] for h in range(H)]
    )


print("loops and arrays agree:", np.allclose(attend_loops(maps["one"]), results["one"][0]))

# %% [markdown]
# If `weights[:, None, None] * maps` is new to you: `weights` has shape (C,), and `None` adds axes of
# length 1, so that it becomes (C, 1, 1) and multiplies every place of its map. Lesson 02 is about that.

# %% [markdown]
# ## At work
#
# Every lesson also asks: does it do what it says, on real data, compared with leaving it out? Our data
# are 1,442 handwritten digits. All of them go through the filters, and we look at the weight of the
# upright map, class by class. Without the gate ($\tau = 0$) it is one half for every image.


# %%
def upright_weight(difference, tau=20):
    return 1 / (1 + np.exp(-tau * difference))


means = np.array([edges(image[0]).mean(axis=(1, 2)) for image in images])  # (N, 2)
difference = means[:, 0] - means[:, 1]
gates = {
    "as above": upright_weight(difference),
    "less the average difference": upright_weight(difference - difference.mean()),
}

figure, axes = viz.panels(1, 2, height=3.2)
for ax, (name, gate) in zip(axes, gates.items(), strict=True):
    of_class = [gate[labels == k] for k in range(10)]
    low, high = np.array([np.quantile(each, [0.1, 0.9]) for each in of_class]).T
    ax.vlines(range(10), low, high, color=viz.COLOURS[0], alpha=0.35, linewidth=6)
    ax.plot(range(10), [each.mean() for each in of_class], "o", color=viz.COLOURS[0])
    ax.axhline(0.5, color=viz.COLOURS[1], linestyle="--")
    ax.set(title=name, xlabel="digit", ylim=(0, 1), xticks=range(10))
axes[0].set_ylabel("weight of the upright map")
figure

# %%
for name, gate in gates.items():
    mean = np.array([gate[labels == k].mean() for k in range(10)])
    within = np.mean([gate[labels == k].std() for k in range(10)])
    print(f"{name}: class means from {mean.min():.2f} to {mean.max():.2f}")
    print(f"    they spread by {mean.std():.2f}, the images of one class by {within:.2f}")
    assert mean.argmax() == 1 and mean.argmin() == 2
assert gates["as above"].mean() > 0.9

ink = images[:, 0] > 0.25  # (N, 8, 8)
tall = ink.any(axis=2).sum(axis=1) > ink.any(axis=1).sum(axis=1)  # more rows with ink than columns
print(f"taller than wide: {tall.mean():.0%}; upright map ahead: {(difference > 0).mean():.0%}")
assert tall.all() and (difference > 0).all()

# %% [markdown]
# *Figure 3. The weight of the upright map for each digit: dots are means, bars hold eight of ten images.
# Dashed: without the gate.*
#
# What came out is not quite what we hoped. On the left the gate hardly decides anything: *every* digit is
# taller than it is wide (counted where there is more than a quarter of the full ink), the upright map
# wins each time, and a fixed weight of 0.9 would have done nearly the same. The two of the first picture was picked because it is an exception.
#
# On the right the average difference was taken off first, so that the gate asks: more upright *than
# usual*? Now it uses its range, and ones and twos lie far apart, but the images of one class differ about
# as much as the classes do. A layer that learns finds such a shift by itself: it is what its *bias* is
# for. And whether that helps to read digits is another question, which has to be measured. Lesson 13
# does, with gates that are learned.

# %% [markdown]
# ## How the course goes
#
# The course builds a small library for deep learning, from the first derivative on, and with it the
# attention mechanisms of the literature. One idea carries all of it: a **primitive** is a NumPy function
# that returns its output and, for each of its inputs, the rule that carries a gradient back. Layers,
# attention and whole networks are primitives put together.
#
# These are the lessons. Each one uses only what those before it built.


# %%
def row(lesson):
    title = f"[{lesson.title}]({lesson.name}.ipynb)" if lesson.is_written else lesson.title
    return f"| {lesson.number:02d} | {title} | {lesson.minutes} min |"


lines = ["| | | |", "|---|---|---|"]
for part, name in PARTS.items():
    heading = name if part == "0" else f"Part {part}. {name}"
    lines += [f"| | **{heading}** | |", *(row(one) for one in LESSONS if one.part == part)]
Markdown("\n".join(lines))

# %% [markdown]
# (A title without a link is a lesson that is still being written. The minutes are for reading and
# running it; its exercises take about as long again.)
#
# ### How a lesson goes
#
# The headings are always the same, so that you know where you are:
#
# | heading | what it is for |
# |---|---|
# | The idea in one picture | what it is about, on a real image |
# | The equations | every step derived, forward and backward, with shapes |
# | The code | loops, then arrays, shown equal; then equal to the library's |
# | The gradient check | is the backward right? As numbers and as a picture (from lesson 03 on) |
# | At work | an honest experiment on real data, with and without the mechanism |
# | Paper and code | where the paper and its published code differ, and which is built here |
# | Predict before you run | three questions: answer first, then run |
# | Exercises, What to remember, Sources | |
#
# Guess before you run, here as well. A wrong guess teaches more than a right reading.

# %% [markdown]
# ### How exercises work
#
# Every lesson has a set of exercises with the same name, in the folder `exercises`. You write a function
# in one cell, and `check` looks at it in the next. Nothing can go wrong by checking: do it early and
# often. Here is the first exercise of set 00, relu: *keep what is positive, replace what is negative by
# 0*. Somebody wrote this:


# %%
def relu(x):
    return np.abs(x)


check("00.relu", relu)

# %% [markdown]
# A failed check shows the case on which it failed, what was expected and what came, and often a *likely
# cause*: the checks know the mistakes that people make. If that is not enough, ask for a hint. Each call
# gives one more.

# %%
hint("00.relu")

# %%
hint("00.relu")


# %% [markdown]
# So:


# %%
def relu(x):
    return np.maximum(x, 0)


check("00.relu", relu)

# %% [markdown]
# A passed check says what was looked at. And it is noted: `progress()` shows the whole course, what you
# have done and what comes next. (It is kept in a file of your own on this computer, and it is sent
# nowhere.)

# %% tags=["nbval-ignore-output"]
progress()

# %% [markdown]
# ### When you are stuck
#
# 1. Read what the check says, slowly, and work the failing case through with a pencil. It is small on
#    purpose.
# 2. `hint("00.softmax")` gives a hint, as above; the last one is nearly the answer.
# 3. Print shapes. Many a mistake is visible in `x.shape` at once.
# 4. `solution("00.softmax")` shows the solution, once you have tried. It also returns it, so that you
#    can go on with the next exercise.

# %%
solution("00.softmax")

# %% [markdown]
# Looking is no shame, and `solution("00.softmax", show=True)` shows it at once. It does not count as
# done, though; close it, and write it again from memory.

# %% [markdown]
# ## Predict before you run
#
# **1.** The two is turned by a quarter turn. What happens to its two weights?

# %%
_, turned = attend(edges(np.rot90(two)))
print("before", results["two"][1].round(2), " after", turned.round(2))

# %% [markdown]
# <details><summary>Answer</summary>
#
# They change places. What was upright is now level. (Both filters are the same, but for a quarter turn.)
#
# </details>
#
# **2.** Every pixel of the one gets half as much ink. The picture shows the same stroke, paler. Do the
# weights stay the same?

# %%
_, paler = attend(edges(one / 2))
print("before", results["one"][1].round(2), " after", paler.round(2))

# %% [markdown]
# <details><summary>Answer</summary>
#
# No, they move towards one half. All means are halved, and so is their difference, on which softmax
# depends; it is as if $\tau$ were 10. Whether a mechanism should care about the size of its input is a
# question that returns often: that is what normalisation is for (lesson 07), and why lesson 11 divides
# by a square root.
#
# </details>
#
# **3.** The same number, say 100, is added to every $z_c$. What happens to the weights?

# %%
z = maps["one"].mean(axis=(1, 2))


def softmax_of_two(z):
    return np.exp(z) / np.exp(z).sum()


print("the same weights:", np.allclose(softmax_of_two(z), softmax_of_two(z + 100)))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Nothing: $e^{z + 100} = e^{100} e^z$, and the factor stands above and below the line. You can use that in
# exercise 3, where numbers get so large that $e^z$ no longer fits into a float.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`00_start_here`](../exercises/00_start_here.ipynb):
#
# 1. **relu**: keep what is positive (you have just seen it; write it yourself all the same).
# 2. **relu_rule**: the same with its rule, your first primitive.
# 3. **softmax**: numbers that are positive and add up to 1, even for large inputs.

# %% [markdown]
# ## What to remember
#
# - Attention: weights worked out from the input itself, then a weighted sum.
# - Softmax makes the weights: positive, together 1, and it depends only on differences.
# - `check` early and often, then `hint`, then `solution`; `progress()` shows where you are.
#
# Next: lesson [01](01_computational_graphs.ipynb), on how a program of numbers is differentiated.

# %% [markdown]
# ## Sources
#
# - The digits: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning
#   Repository 1998, as they come with scikit-learn.
# - A wide view of where attention goes from here: A. Vaswani and others, *Attention Is All You Need*,
#   NeurIPS 2017 (lesson 11); J. Hu and others, *Squeeze-and-Excitation Networks*, CVPR 2018 (lesson 13).
