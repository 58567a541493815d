# %% [markdown]
# # 03 · Gradient checking
#
# A wrong gradient raises no error. This lesson finds it, by measuring slopes with small steps.
#
# **You will be able to**
#
# - derive the errors of one-sided and central differences, and choose the best step from them;
# - check a rule for arrays: with a random `dy`, one input at a time, and with an eye for kinks;
# - read from the pattern of an error which mistake made it.
#
# **You need** lessons [01](01_computational_graphs.ipynb) and
# [02](02_tensors_and_broadcasting.ipynb): rules that carry `dy` back, and shapes that broadcast.
#
# **Time** about 40 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import viz
from minitorch_attn.data import digits

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# Ten *templates* tell digits apart without any training: the mean image of each class, minus the
# mean of all ten. An image $x$ of $D = 64$ pixels gets a score from each template, $z_k =
# \sum_d W_{kd}\, x_d$ for $k = 0 \dots 9$. Softmax makes probabilities $p_k = e^{z_k} / \sum_j
# e^{z_j}$ of the scores, and the loss is $L = -\log p_t$, where $t$ is the right class.

# %%
images, labels = digits()[:]
pixels = images.reshape(len(images), 64).astype(float)  # (N, D), ink from 0 to 1
W = np.stack([pixels[labels == k].mean(axis=0) for k in range(10)])  # (K, D)
W -= W.mean(axis=0)


def probabilities(x):
    z = W @ x
    e = np.exp(z - z.max())
    return e / e.sum()


def loss(x, t):
    return -np.log(probabilities(x)[t])


# %% [markdown]
# How does the loss change with each pixel? With $o$ the one-hot row of the right class, 1 there and 0
# elsewhere, the answer is $dx = W^\top (p - o)$; it is worked out in two lines under *Which dy?* below.
# Two people write it down. One of them forgets $p$. And a third knows no calculus: she gives one pixel a
# little more ink, then a little less, looks at the loss both times, and divides its change by the
# pixel's change.

# %%
x, t = pixels[labels == 8][7], 8
o = np.eye(10)[t]  # one-hot

by_the_rule = W.T @ (probabilities(x) - o)
by_a_wrong_rule = W.T @ (0 - o)

h = 1e-5
measured = np.zeros(64)
for d in range(64):
    step = np.zeros(64)
    step[d] = h
    measured[d] = (loss(x + step, t) - loss(x - step, t)) / (2 * h)

assert np.allclose(by_the_rule, measured, atol=1e-9)
assert not np.allclose(by_a_wrong_rule, measured, atol=0.1)
viz.show_images(x.reshape(1, 8, 8), ["an eight"])

# %%
viz.show_feature_maps(
    np.stack([by_the_rule, measured, by_a_wrong_rule]).reshape(3, 8, 8),
    titles=["by the rule", "measured", "by the wrong rule"],
    columns=3,
    label="change of the loss with a pixel",
)

# %% [markdown]
# *Figure 1. An eight, and three answers to how its loss changes with each pixel: where it is blue, more
# ink would lower the loss. The rule and the measurement agree. The wrong rule looks plausible, and is
# wrong.*
#
# That is a gradient check: **two ways to the same numbers that have no mistake in common**. The
# measurement needs no derivation, only the function itself. It is too slow to train with, but to
# check a rule once it is enough.

# %% [markdown]
# ## The equations
#
# ### A slope from two values
#
# Let $f$ be a smooth function of one number, and $h > 0$ a small step. Taylor's theorem, to first
# order and with its remainder, says that
#
# $$f(x + h) = f(x) + h f'(x) + \tfrac{h^2}{2} f''(\xi)$$
#
# for some $\xi$ between $x$ and $x + h$. Subtract $f(x)$ and divide by $h$:
#
# $$\underbrace{\frac{f(x + h) - f(x)}{h}}_{\text{one-sided difference}} = f'(x) +
# \tfrac{h}{2} f''(\xi)$$
#
# The first term is what we want, the second is the *truncation error*. It shrinks in proportion to
# $h$. Now go one order further, on both sides:
#
# $$\begin{aligned}
# f(x + h) &= f(x) + h f'(x) + \tfrac{h^2}{2} f''(x) + \tfrac{h^3}{6} f'''(\xi_+) \\
# f(x - h) &= f(x) - h f'(x) + \tfrac{h^2}{2} f''(x) - \tfrac{h^3}{6} f'''(\xi_-)
# \end{aligned}$$
#
# Subtract the second line from the first. The even terms $f(x)$ and $\tfrac{h^2}{2} f''(x)$ cancel,
# the odd ones double. Divide by $2h$, and let $\xi$ be a place where $f'''$ takes the mean of its two
# values (there is one between them, if $f'''$ is continuous):
#
# $$\underbrace{\frac{f(x + h) - f(x - h)}{2h}}_{\text{central difference}} = f'(x) +
# \tfrac{h^2}{6} f'''(\xi)$$
#
# Two evaluations again, but the truncation error now shrinks with $h^2$: a step ten times smaller, an
# error a hundred times smaller.

# %% [markdown]
# ### What rounding adds
#
# So make $h$ as small as possible? A computer keeps a number $f$ only up to a relative error. Let
# $\varepsilon$ (*epsilon*; NumPy calls it `eps`, and it has nothing to do with the small change
# $\epsilon$ of lesson 01) be the distance from 1 to the next larger number: $2.2 \cdot 10^{-16}$ in float64, and
# $1.2 \cdot 10^{-7}$ in float32. Rounding to the nearest is off by at most half of that, so the two
# values of a difference are each off by up to $\tfrac{\varepsilon}{2} |f|$, and the difference by up
# to $\varepsilon |f|$. (That is the best case, a function that is exact up to its last rounding.)
# Then this is divided by $h$ or $2h$:
#
# | | truncation | rounding | together |
# |---|---|---|---|
# | one-sided | $\tfrac{h}{2} \lvert f'' \rvert$ | $\varepsilon \lvert f \rvert / h$ | $E_1(h)$ |
# | central | $\tfrac{h^2}{6} \lvert f''' \rvert$ | $\varepsilon \lvert f \rvert / (2h)$ | $E_2(h)$ |
#
# One error falls with $h$, the other grows as $h$ falls: there is a best step in between, where the
# derivative of their sum is 0.
#
# One-sided: $\; E_1'(h) = \tfrac12 |f''| - \varepsilon |f| / h^2 = 0 \;$ gives
# $\; h_1 = \sqrt{2 \varepsilon |f| / |f''|}$.
#
# Central: $\; E_2'(h) = \tfrac{h}{3} |f'''| - \varepsilon |f| / (2 h^2) = 0 \;$ gives
# $\; h_2 = \sqrt[3]{3 \varepsilon |f| / (2 |f'''|)}$.
#
# Put back in, $E_1(h_1) = \sqrt{2 \varepsilon |f| |f''|}$, and since the line before says that
# $\varepsilon |f| = \tfrac23 h_2^3 |f'''|$, $E_2(h_2) = \tfrac{h_2^2}{6} |f'''| + \tfrac{h_2^2}{3}
# |f'''| = \tfrac{h_2^2}{2} |f'''|$.
#
# For $f = \exp$ all derivatives equal $f$, which cancels in both steps:

# %%
for dtype in "float64", "float32":
    epsilon = float(np.finfo(dtype).eps)
    h1, h2 = (2 * epsilon) ** (1 / 2), (1.5 * epsilon) ** (1 / 3)
    print(f"{dtype}  one-sided: best step {h1:.0e}, relative error {h1:.0e}")
    print(f"         central:   best step {h2:.0e}, relative error {h2**2 / 2:.0e}")

# %% [markdown]
# A central difference in float64 can be right to ten or eleven digits; one in float32 not even to
# five. *Check in float64, with central differences.* Does the computer agree?


# %%
def one_sided(f, x, h):
    return (f(x + h) - f(x)) / ((x + h) - x)  # by the step that is left after rounding


def central(f, x, h):
    return (f(x + h) - f(x - h)) / ((x + h) - (x - h))


steps = {"float64": np.logspace(-13, -0.5, 101), "float32": np.logspace(-6, -0.5, 101)}
errors = {}  # relative, by dtype and formula
for dtype, hs in steps.items():
    at = np.dtype(dtype).type(1)
    for formula in one_sided, central:
        slopes = np.array([formula(np.exp, at, np.dtype(dtype).type(h)) for h in hs])
        errors[dtype, formula.__name__] = np.abs(slopes.astype(float) / np.exp(1.0) - 1)

figure, axes = viz.panels(1, 2, height=3.6)
for ax, (dtype, hs) in zip(axes, steps.items(), strict=True):
    epsilon = float(np.finfo(dtype).eps)
    expected = {
        "one_sided": hs / 2 + epsilon / hs,
        "central": hs**2 / 6 + epsilon / (2 * hs),
    }
    for (name, curve), colour in zip(expected.items(), viz.COLOURS, strict=False):
        ax.loglog(hs, errors[dtype, name], ".", markersize=4, color=colour)
        ax.loglog(hs, curve, color=colour, linewidth=1.2, label=name.replace("_", "-"))
    ax.set(title=dtype, xlabel="step $h$")
    ax.grid(axis="y")
axes[0].set_ylabel("relative error of the slope")
axes[0].legend(frameon=False)
figure

# %%
for name, order in ("one_sided", 1), ("central", 2):
    large = (steps["float64"] > 1e-3) & (steps["float64"] < 1e-1)
    error = errors["float64", name][large]
    fitted = np.polyfit(np.log(steps["float64"][large]), np.log(error), 1)[0]
    print(f"{name:9}  for large steps the error goes with h to the power {fitted:.1f}")
    assert abs(fitted - order) < 0.05

small = steps["float64"] < 1e-9
bound = 2 * np.finfo(float).eps / steps["float64"][small]
assert all((errors["float64", name][small] < 3 * bound).all() for name in ("one_sided", "central"))
assert errors["float64", "central"].min() < 1e-10 < errors["float64", "one_sided"].min()
assert errors["float32", "central"].min() < 1e-4

# %% [markdown]
# *Figure 2. The slope of $\exp$ at 1: dots are measured errors, lines the derived $E_1$ and $E_2$.
# From the right, truncation: the one-sided error falls with slope 1, the central one with slope 2. On
# the left, rounding: both grow like $\varepsilon / h$, scattered, as rounding is sometimes lucky. The
# lowest point of each line is the best step.*
#
# The library takes $h = 10^{-6}$ (times $|x|$ where that is above 1), a little to the left of the best
# central step. Where $f$ bends strongly that is the safer side.

# %% [markdown]
# ### From numbers to arrays
#
# Now let $f$ take an array $x$ of $n$ elements and return an array $y$ of $m$ elements. All its slopes
# together are its *Jacobian*, a table of $m \times n$ numbers:
#
# $$J_{ji} = \frac{\partial y_j}{\partial x_i}$$
#
# A rule never shows us this table. It takes `dy`, with one number for each $y_j$, and returns the
# *vector-Jacobian product* (lesson 01):
#
# $$dx_i = \sum_j dy_j \, J_{ji}$$
#
# To measure the same numbers, fix `dy` and define **one** number that depends on $x$:
#
# $$\varphi(x) = \sum_j dy_j \, f_j(x), \qquad \text{so that} \qquad
# \frac{\partial \varphi}{\partial x_i} = \sum_j dy_j \frac{\partial y_j}{\partial x_i} = dx_i$$
#
# The derivative went into the sum because `dy` is constant. So `dx[i]` is an ordinary slope, and a
# central difference measures it. With $e_i$ the array that is 1 at place $i$ and 0 elsewhere:
#
# $$\boxed{\; dx_i \approx \sum_j dy_j \, \frac{f_j(x + h e_i) - f_j(x - h e_i)}{2h} \;}$$
#
# Two evaluations of $f$ for each element of $x$: $2n$ altogether, however many outputs there are.

# %% [markdown]
# ### Which dy? A random one, not ones
#
# The tempting choice is $dy_j = 1$ for all $j$: then $\varphi$ is the sum of the outputs. Look at
# softmax, $y_j = e^{x_j} / \sum_k e^{x_k}$. Write $Z$ for the sum below the line; its derivative by
# $x_i$ is $e^{x_i}$. The quotient rule, with $\delta_{ij} = 1$ if $i = j$ and 0 otherwise, gives
#
# $$\frac{\partial y_j}{\partial x_i} = \frac{\delta_{ij} e^{x_j} Z - e^{x_j} e^{x_i}}{Z^2}
# = y_j (\delta_{ij} - y_i)$$
#
# and with it the rule
#
# $$dx_i = \sum_j dy_j \, y_j (\delta_{ij} - y_i) = y_i \Big( dy_i - \sum_j dy_j \, y_j \Big)$$
#
# Put $dy_j = 1$: the bracket is $1 - \sum_j y_j = 1 - 1 = 0$. No wonder: the outputs add up to 1
# whatever $x$ is, and a constant has slope 0. A rule that returns zeros passes this check. So does the
# right rule with a wrong sign.
#
# What of a random `dy`? Suppose a rule computes $A\,dy$ where $J^\top dy$ is right. Its error is
# $(A - J^\top)\,dy$. If the matrix $A - J^\top$ is not zero, the `dy` that it sends to zero all lie in
# a subspace with at least one dimension missing: a plane in space, a line in a plane. Drawn from a
# normal distribution, `dy` falls on it with probability zero.
#
# While the softmax is at hand, the two lines that the first picture owes. For $L = -\log p_t$ with
# $p_k = e^{z_k} / \sum_j e^{z_j}$ the logarithm makes a difference of the fraction, whose second term
# has the derivative $p_k$; the first depends on $z_k$ only if $k = t$:
#
# $$L = \log \sum_j e^{z_j} - z_t \qquad dz_k = \frac{\partial L}{\partial z_k} =
# \frac{e^{z_k}}{\sum_j e^{z_j}} - o_k = p_k - o_k$$
#
# And since $z_k = \sum_d W_{kd}\, x_d$, each pixel collects from all scores: $dx_d = \sum_k dz_k W_{kd}$,
# which is $dx = W^\top (p - o)$.

# %% [markdown]
# ### Each input on its own
#
# A function of several inputs has a rule for each. Move all inputs together, and only the sum of what
# they do is seen, in which two mistakes can cancel. So each input is moved while the others stand
# still, each rule is compared by itself, and the report says *which* one is wrong.

# %% [markdown]
# ### Kinks
#
# relu, $\max(x, 0)$, has slope 1 to the right of 0 and slope 0 to its left. At 0 the central
# difference gives $(h - 0) / 2h = \tfrac12$: neither. A rule may answer 0 or 1 there, and the
# measurement contradicts both. Likewise, where two elements tie for a maximum, raising one raises the
# maximum, lowering it does not. Such places must be left out. How are they recognised? By comparing
# the slope ahead and the slope behind:
#
# $$g(h) = \left| \frac{f(x + h) - f(x)}{h} - \frac{f(x) - f(x - h)}{h} \right|$$
#
# - Where $f$ is smooth, both slopes tend to $f'(x)$. By Taylor's lines above, $g(h) \approx h |f''|$:
#   the gap **shrinks** with the step.
# - At a kink, the two slopes are different numbers: the gap **stays**.
# - At a jump of size $c$, one of the slopes is about $c / h$: the gap **grows**.
#
# So it takes two steps, one smaller than the other, to tell a kink from a strong curve.


# %%
def gap(f, x, h):
    ahead = (f(x + h) - f(x)) / h
    behind = (f(x) - f(x - h)) / h
    return abs(ahead - behind)


def relu(x):
    return np.maximum(x, 0.0)


places = {
    "jump: x >= 0, at 0": (lambda x: float(x >= 0), 0.0),
    "kink: relu, at 0": (relu, 0.0),
    "beside it: relu, at 0.001": (relu, 0.001),
    "smooth: exp, at 0": (np.exp, 0.0),
}
hs = np.logspace(-5, -1, 81)
figure, ax = viz.panels(1, 1, height=3.2)
styles = zip(("-", "--", ":", "-."), viz.COLOURS, strict=False)
for (name, (f, at)), (style, colour) in zip(places.items(), styles, strict=False):
    gaps = np.array([gap(f, at, h) for h in hs])
    ax.loglog(hs, np.where(gaps < 1e-7, np.nan, gaps), style, color=colour, label=name)
ax.set(xlabel="step $h$", ylabel="gap $g(h)$", ylim=(1e-6, 1e6))
figure.legend(loc="outside right upper", frameon=False)
figure

# %%
ratio = {name: gap(f, at, 1e-5) / gap(f, at, 4e-5) for name, (f, at) in places.items()}
for name in list(places)[0], list(places)[1], list(places)[3]:
    print(f"{name:24} a step 4 times smaller: the gap is {ratio[name]:.2f} times as large")
assert [round(r, 2) for r in ratio.values()][:2] == [4, 1] and 0.2 < list(ratio.values())[3] < 0.3

# %% [markdown]
# *Figure 3. The gap between the slopes ahead and behind. Only at the smooth place does it fall in
# proportion to the step. Dotted: 0.001 away from the kink, a step above 0.001 still reaches across,
# and a smaller one does not; the gap is gone.*

# %% [markdown]
# ## The code
#
# ### The measurement
#
# First the long way: the whole Jacobian, column after column, then its product with `dy`.


# %%
def jacobian(f, x, h=1e-6):
    """The table of all ∂y[j]/∂x[i]: (m, n), for x with n elements and y = f(x) with m."""
    columns = []
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        columns.append(((f(x + step) - f(x - step)) / (2 * h)).ravel())
    return np.stack(columns, axis=1)


def softmax(x):
    """Exponentials that add up to 1 along the last axis: (N, K) -> (N, K), and its rule."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y = e / e.sum(axis=-1, keepdims=True)

    def vjp_x(dy):
        return y * (dy - (dy * y).sum(axis=-1, keepdims=True))

    return y, vjp_x


rng = np.random.default_rng(0)
x = rng.normal(size=(2, 5))
J = jacobian(lambda x: softmax(x)[0], x)
print("Jacobian", J.shape)

figure, ax = viz.panels(1, 1, width=4.4, height=3.4)
picture = ax.imshow(J, cmap="RdBu_r", vmin=-0.25, vmax=0.25)
ax.set(xlabel="$i$, element of $x$", ylabel="$j$, element of $y$")
figure.colorbar(picture)
assert np.allclose(J[:5, 5:], 0) and np.allclose(J.sum(axis=0), 0)
figure

# %% [markdown]
# *Figure 4. The Jacobian of softmax for two rows of five numbers. The two rows know nothing of each
# other, so two of the four blocks are empty. In a block, the diagonal is positive (a larger score, a
# larger probability) and the rest negative (at the cost of the others). Every column adds up to 0.*
#
# The short way multiplies with `dy` at once and keeps nothing:


# %%
def measured_vjp(f, x, dy, h=1e-6):
    """sum_j dy[j] * ∂y[j]/∂x[i] for every element of x, by central differences."""
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        dx[i] = (dy * (f(x + step) - f(x - step))).sum() / (2 * h)
    return dx


y, rule = softmax(x)
dy = rng.normal(size=y.shape)
dx = measured_vjp(lambda x: softmax(x)[0], x, dy)
print("the long and the short way agree:", np.allclose(dx, (dy.ravel() @ J).reshape(x.shape)))
print("and the rule agrees with both:   ", np.allclose(dx, rule(dy)))

# %% [markdown]
# ### A gradient check in twenty lines
#
# When are two numbers the same? Measured to about $10^{-10}$, never exactly. A **relative** tolerance,
# $|a - b| \le r\,|b|$, suits large and small gradients alike, but breaks where $b = 0$: there the
# measurement gives some $10^{-11}$, the rule 0, and their relative error is 100 %. So a small
# **absolute** tolerance is added:
#
# $$|dx^{\text{rule}}_i - dx^{\text{measured}}_i| \;\le\; 10^{-7} + 10^{-5}\,|dx^{\text{measured}}_i|$$


# %%
def small_gradcheck(f, *inputs, seed=1):
    """Compare each rule of f, a function in primitive form, with central differences."""
    y, rules = f(*inputs)
    rules = rules if isinstance(rules, tuple) else (rules,)
    dy = np.random.default_rng(seed).normal(size=y.shape)
    verdicts = []
    for i, rule in enumerate(rules):

        def output(x, i=i):
            return f(*inputs[:i], x, *inputs[i + 1 :])[0]

        analytic, numeric = rule(dy), measured_vjp(output, inputs[i], dy)
        if analytic.shape != numeric.shape:
            verdicts.append(f"shape {analytic.shape} instead of {numeric.shape}")
        elif (abs(analytic - numeric) <= 1e-7 + 1e-5 * abs(numeric)).all():
            verdicts.append("ok")
        else:
            verdicts.append("WRONG")
    return verdicts


def product(x, w):
    return x @ w, (lambda dy: dy @ w.T, lambda dy: x.T @ dy)


def does_nothing(x):
    return softmax(x)[0], lambda dy: np.zeros_like(dy)


w = rng.normal(size=(5, 3))
print("softmax     ", small_gradcheck(softmax, x))
print("product     ", small_gradcheck(product, x, w))
print("does_nothing", small_gradcheck(does_nothing, x))

# %% [markdown]
# The rule that does nothing is caught. With ones for `dy` it would not have been:

# %%
ones = np.ones((2, 5))
by_ones = measured_vjp(lambda x: softmax(x)[0], x, ones)
print("measured with dy = 1, all zero:", np.allclose(by_ones, 0, atol=1e-9))
print(
    "the rule that does nothing agrees:", np.allclose(does_nothing(x)[1](ones), by_ones, atol=1e-9)
)

# %% [markdown]
# ### Only two evaluations
#
# For a large array $2n$ evaluations are many. To learn only *whether* a rule is right, move all
# elements of one input at once, in a random direction $u$. By the chain rule $\varphi$ then changes at
# the rate $\sum_i dx_i u_i$. Two evaluations, at the price that nothing says *where* the error is.

# %%
u = rng.normal(size=x.shape)
h = 1e-6
rate = (dy * (softmax(x + h * u)[0] - softmax(x - h * u)[0])).sum() / (2 * h)
print("the rule agrees along a random direction:", np.isclose((rule(dy) * u).sum(), rate))

# %% [markdown]
# ### The library's
#
# `mt.check_vjp` does the same for functions in primitive form, and `mt.gradcheck` for functions of
# Tensors, whose gradients come from the engine's reverse pass. Beyond our twenty lines they look for
# kinks, refuse float32 and functions that are random, warn when the gradient is zero and so proves
# little, and put the pattern of an error into words.

# %%
print(mt.check_vjp(softmax, x))
print(mt.check_vjp(product, x, w))
print(mt.check_vjp(does_nothing, x, raise_on_failure=False))


# %%
def template_loss(x, w):
    """The loss of the first picture, in Tensors: images (N, D), templates (K, D)."""
    log_p = F.log_softmax(x @ w.T, dim=1)
    return -(log_p * np.eye(10)[labels[:4]]).sum(dim=1)


print(mt.gradcheck(template_loss, pixels[:4], W))

# %% [markdown]
# (256 pixels and 640 weights, all measured. A wrong gradient raises a `GradcheckError` with the same
# report; `raise_on_failure=False` only returns it.)

# %% [markdown]
# ## The gradient check
#
# Now a small museum. Each exhibit is a rule with a mistake that people make, its picture, and what the
# report says. Try to see the pattern in the picture before you read its name. First, the right ones,
# for comparison:

# %%
rng = np.random.default_rng(3)
x, b, w = rng.normal(size=(4, 4)), rng.normal(size=4), rng.normal(size=(4, 4))
report = mt.check_vjp(product, x, w)
assert report.ok
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 5. A right product. Left the rule's gradient, in the middle the measured one, right the size of
# their difference, dark throughout.*
#
# **Exhibit 1.** The difference $y = a - b$, whose second rule returns `dy`.


# %%
def difference(a, b):
    return a - b, (lambda dy: dy, lambda dy: dy)


report = mt.check_vjp(difference, x, w, raise_on_failure=False)
assert "exactly negated" in report.inputs[1].diagnosis and report.inputs[0].ok
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 6. Red and blue are exchanged in the second row: `b` is negated. The rule of `a` is right.*
#
# **Exhibit 2.** The product $y = x w$ with $dw = dy^\top x$ where $x^\top dy$ is right. With a square
# $w$ the shapes give nothing away.


# %%
def product_turned(x, w):
    return x @ w, (lambda dy: dy @ w.T, lambda dy: dy.T @ x)


report = mt.check_vjp(product_turned, x, w, raise_on_failure=False)
assert report.inputs[1].diagnosis == "transposed"
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 7. Mirror the left map of `w` along its diagonal, and you have the middle one. (With shapes
# that all differ, say (4, 3) and (3, 5), this mistake cannot hide: check with sizes that differ.)*
#
# **Exhibit 3.** The mean over the rows, $y_d = \frac1N \sum_n x_{nd}$, with the rule of a sum.


# %%
def mean_rows(x):
    return x.mean(axis=0), lambda dy: np.broadcast_to(dy, x.shape)


report = mt.check_vjp(mean_rows, x, raise_on_failure=False)
assert "4 times too large: a mean treated as a sum?" in report.inputs[0].diagnosis
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 8. The same pattern on both sides, but paler where it was measured: only a factor.*
#
# **Exhibit 4.** A bias is added to every row, $y_{nd} = x_{nd} + b_d$, and its rule returns `dy` as it
# came. Each $b_d$ takes part in $N$ outputs, so its gradient is the sum over $n$ (lesson 02).


# %%
def add_bias(x, b):
    return x + b, (lambda dy: dy, lambda dy: dy)


report = mt.check_vjp(add_bias, x, b, raise_on_failure=False)
assert "not summed over the broadcast axis 0" in report.inputs[1].diagnosis
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 9. Four rows where there should be one. (In a `@primitive` the engine sums over broadcast
# axes, and this very rule is right.)*
#
# **Exhibit 5.** The mean of each row is taken off, $y_{nd} = x_{nd} - \frac1D \sum_e x_{ne}$, and the
# rule returns `dy`. But $x_{nd}$ also took part in the mean, by which every output of its row went
# down: right is $dx_{nd} = dy_{nd} - \frac1D \sum_e dy_{ne}$.


# %%
def centre(x):
    return x - x.mean(axis=1, keepdims=True), lambda dy: dy


report = mt.check_vjp(centre, x, raise_on_failure=False)
assert "off by a constant along axis 1" in report.inputs[0].diagnosis
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 10. The error has one size in each row: what is missing is a term that sums over the row.*
#
# **Exhibit 6.** Softmax with $dx = dy \odot y$ (the circle multiplies element by element). The sum
# $\sum_j dy_j\,y_j$ is missing: someone thought of each output as depending on its own input alone.


# %%
def softmax_alone(x):
    y, _ = softmax(x)
    return y, lambda dy: dy * y


scores = rng.normal(size=(4, 4)) / 2
report = mt.check_vjp(softmax_alone, scores, raise_on_failure=False)
error = report.inputs[0].analytic - report.inputs[0].numeric
missing = error / softmax(scores)[0]
print("error / y, row by row:\n" + "\n".join(" ".join(f"{v:6.2f}" for v in row) for row in missing))
missing_sum = report.inputs[0].analytic.sum(axis=1, keepdims=True)  # this rule gives dy * y
print("equal to the sums of dy * y:", np.allclose(missing, missing_sum))
assert not report.ok and np.allclose(missing, missing_sum)
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 11. Wrong everywhere, and no known pattern: the report gives no cause. The same idea helps
# that named the last exhibit: divide the error by $y$, and each row has one value. It is the missing
# sum, as the printed line says.*
#
# **Exhibit 7.** Log-softmax, $y_i = x_i - \log \sum_k e^{x_k}$, whose right rule is $dx_i = dy_i - p_i
# \sum_j dy_j$ with $p = \operatorname{softmax}(x)$. Someone took a mean for the second term, as if every
# $p_i$ were one over the number of classes. This one hides.


# %%
def log_softmax_mean(x):
    y = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return y, lambda dy: dy - dy.mean(axis=1, keepdims=True)


at_zero = mt.check_vjp(log_softmax_mean, np.zeros((4, 4)), raise_on_failure=False)
at_random = mt.check_vjp(log_softmax_mean, scores, raise_on_failure=False)
print("checked at zeros:         ", "passed" if at_zero.ok else "FAILED")
print("checked at random numbers:", "passed" if at_random.ok else "FAILED")
assert at_zero.ok and not at_random.ok

# %% [markdown]
# Where all scores are equal, all $p_i$ *are* one over the number of classes, and the wrong rule is
# right. Zeros, ones and equal numbers are too symmetric to check at: take random ones.
#
# Last, not a mistake: a maximum with ties, at which there is nothing to compare.


# %%
def largest(x):
    """The largest number of each row: (N, K) -> (N,). The first of equals takes the gradient."""
    chosen = x.argmax(axis=1)[:, None] == np.arange(x.shape[1])
    return x.max(axis=1), lambda dy: dy[:, None] * chosen


ties = np.array([[3.0, 1.0, 2.0, 0.0], [2.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
report = mt.check_vjp(largest, ties)
assert report.ok and report.inputs[0].on_kink.tolist() == [
    [False] * 4,
    [True, True, False, False],
    [True] * 4,
]
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 12. Crosses mark the elements on a kink: two that tie in the second row, four in the third.
# The others were compared, and are right.*

# %% [markdown]
# ## At work
#
# ### A network that learns, whatever its gradient
#
# Is a wrong gradient not noticed at once, because nothing is learned? Let us see. A network with one
# hidden layer of 32 units reads the digits:
#
# $$v = \max(x w_1 + b_1, 0) \qquad z = v w_2 + b_2 \qquad p = \operatorname{softmax}(z) \qquad
# L = -\frac1N \sum_n \log p_{n t_n}$$
#
# ($v$ holds the values of the hidden layer.) The rules follow from last to first. Softmax and logarithm
# together have the short gradient $p - o$ that we derived under *Which dy?*, here over $N$ for the mean
# and with one row of $o$ for each image: $dz = (p - o)/N$. `mistake` puts one of four errors in.

# %%
MISTAKES = {
    "none": "right",
    "N": "1/N forgotten",
    "relu": "relu's mask forgotten",
    "w1": "no gradient for w1",
    "p": "p forgotten",
}


def network(x, w1, b1, w2, b2, *, targets, mistake="none"):
    """The loss of a batch, x (N, 64), in primitive form; x itself gets no rule."""
    a = x @ w1 + b1
    v = np.maximum(a, 0)
    p, _ = softmax(v @ w2 + b2)
    o = np.eye(10)[targets]
    L = -np.log((p * o).sum(axis=1)).mean()

    dz = -o if mistake == "p" else p - o
    if mistake != "N":
        dz = dz / len(x)
    da = dz @ w2.T
    if mistake != "relu":
        da = da * (a > 0)
    dw1 = np.zeros_like(w1) if mistake == "w1" else x.T @ da
    gradients = dw1, da.sum(axis=0), v.T @ dz, dz.sum(axis=0)
    return L, (None, *(lambda dy, g=g: dy * g for g in gradients))


# %% [markdown]
# Training is gradient descent (lesson 01) on small batches, ten times through the training images.
# A network with a wrong gradient may only need another learning rate, so each arm is tried with six of
# them, and each of those from three seeds. All arms start from the same weights and see the same
# batches.

# %%
unseen, answers = digits(train=False)[:]
unseen = unseen.reshape(len(unseen), 64).astype(float)


def fresh_weights(rng, hidden=32):
    w1 = rng.normal(size=(64, hidden)) / np.sqrt(64)
    w2 = rng.normal(size=(hidden, 10)) / np.sqrt(hidden)
    return [w1, np.zeros(hidden), w2, np.zeros(10)]


def accuracy_after_training(rate, mistake, seed):
    rng = np.random.default_rng(seed)
    weights = fresh_weights(rng)
    for _ in range(10):
        for batch in np.array_split(rng.permutation(len(pixels)), 23):
            _, (_, *rules) = network(
                pixels[batch], *weights, targets=labels[batch], mistake=mistake
            )
            weights = [w - rate * rule(1.0) for w, rule in zip(weights, rules, strict=True)]
    w1, b1, w2, b2 = weights
    z = np.maximum(unseen @ w1 + b1, 0) @ w2 + b2
    return 100 * (z.argmax(axis=1) == answers).mean()


RATES = 2.0 ** np.array([-9, -7, -5, -3, -1, 1])
SEEDS = 0, 1, 2
with np.errstate(all="ignore"):  # some of these trainings overflow
    results = {
        mistake: np.array(
            [[accuracy_after_training(rate, mistake, seed) for rate in RATES] for seed in SEEDS]
        )
        for mistake in MISTAKES
    }  # (seeds, rates) each

# %%
figure, ax = viz.panels(1, 1, width=7.2, height=4.0)
styles = "-", "--", "-.", ":", "-"
for (mistake, runs), colour, style in zip(results.items(), viz.COLOURS, styles, strict=False):
    ax.fill_between(RATES, runs.min(axis=0), runs.max(axis=0), color=colour, alpha=0.2, linewidth=0)
    ax.plot(RATES, runs.mean(axis=0), style, marker="o", color=colour, label=MISTAKES[mistake])
ax.set(xlabel="learning rate", ylabel="accuracy on unseen digits, %", ylim=(0, 100))
ax.set_xscale("log", base=2)
ax.grid(axis="y")
figure.legend(loc="outside right upper", frameon=False)
figure

# %%
best = {mistake: runs.mean(axis=0).argmax() for mistake, runs in results.items()}


def rate_of(mistake):
    power = int(np.log2(RATES[best[mistake]]))
    return f"1/{2**-power}" if power < 0 else f"{2**power}"


for mistake, runs in results.items():
    at_best = runs[:, best[mistake]]
    numbers = "  ".join(f"{run:.1f} %" for run in at_best)
    print(f"{MISTAKES[mistake]:22} best at {rate_of(mistake):5}:  {numbers}")

top = {mistake: runs[:, best[mistake]] for mistake, runs in results.items()}
assert RATES[best["none"]] == 64 * RATES[best["N"]]
assert min(top["N"].min(), top["none"].min(), top["relu"].min()) > 95
assert best["relu"] == best["none"]
lost = np.rint((top["none"] - top["relu"]) / 100 * len(answers))  # images, seed by seed
assert 0 <= lost.min() and lost.max() == 5 and len(answers) == 355
assert (80 < top["w1"]).all() and (top["w1"] < 90).all() and (top["p"] < 20).all()
assert (results["N"][:, best["none"]] < 15).all()
assert results["relu"][:, -1].mean() > 50 > results["none"][:, -1].mean()

# %% [markdown]
# *Figure 13. Accuracy after ten epochs. Lines are means over three seeds, bands reach from the worst to
# the best.*
#
# Only one of the four mistakes is plain to see: with $p$ forgotten nothing holds the scores back, they
# grow without end, and the network stays near chance at every rate tried.
#
# - **1/N forgotten.** As good as the right one, at a learning rate 64 times smaller, for our batches
#   have 62 or 63 images. Whoever finds the rate by trial never hears of it, until the batch size
#   changes. At the rate that suits the right gradient it stays at chance.
# - **relu's mask forgotten.** It is best at the same rate, and with the same start and the same batches
#   it loses at most 1.4 points (five images of 355) on any seed; without the right one beside it nobody
#   would notice. At the largest rate it even holds out where the right one breaks down.
# - **No gradient for $w_1$.** The first layer stays random, and the second makes the best of it: over
#   80 %. Someone who never saw the right network may think that this is what it can do.
#
# (The best rates were chosen on the same unseen digits, for all arms alike. That flatters all numbers
# a little; for comparing the arms it is fair.)
#
# ### What the check says
#
# Not one training is needed:

# %%
weights = fresh_weights(np.random.default_rng(0), hidden=8)
weights[1] = np.random.default_rng(1).normal(size=8) / 4
reports = {
    mistake: mt.check_vjp(
        network,
        pixels[:7],
        *weights,
        targets=labels[:7],
        mistake=mistake,
        raise_on_failure=False,
    )
    for mistake in MISTAKES
}
for mistake, report in reports.items():
    print(f"{MISTAKES[mistake]}: {'passed' if report.ok else 'FAILED'}")
    for compared in report.inputs:
        if not compared.ok:
            print(f"    {compared.name}: {compared.diagnosis or 'wrong'}")

assert [report.ok for report in reports.values()] == [True, False, False, False, False]
assert "7 times too large" in reports["N"].inputs[3].diagnosis

# %%
assert [compared.ok for compared in reports["relu"].inputs] == [False, False, True, True]
assert not any(compared.diagnosis for compared in reports["relu"].inputs)  # no words for it
on = pixels[:7] @ weights[0] + weights[1] > 0  # (7 images, 8 units)
always_on, always_off = on.all(axis=0), ~on.any(axis=0)
b1 = reports["relu"].inputs[1]
assert np.array_equal(np.isclose(b1.analytic, b1.numeric, atol=1e-8), always_on)
assert always_off.any() and b1.analytic[always_off].all() and not b1.numeric[always_off].any()
viz.draw_gradcheck(reports["relu"])

# %% [markdown]
# *Figure 14. relu's mask forgotten. The columns of `w1` that are right belong to the units which were on
# for all seven images; there the mask makes no difference. Where the measured map is blank, the unit was
# off for all seven, and the rule lets a gradient through all the same. `w2` and `b2`, which do not go through the
# mask, are right throughout.*
#
# So the mistake sits, walking back from the loss, after `w2` and `b2` and before `b1` and `w1`. The
# report says no more than *wrong*: the mask acts on each image by itself, `w1` and `b1` add up over all
# seven, and in such a sum no word finds it. Where the words are missing, look at which inputs are right
# and at the picture: here it shows columns that should be blank.
#
# **That training goes well is no proof that a gradient is right.** Gradient descent forgives: any
# direction that goes downhill most of the time will do. A check does not forgive.

# %% [markdown]
# ## Paper and code
#
# There is no one paper; textbooks agree on the mathematics. Implementations differ in what they do
# about its pitfalls.
#
# | | textbooks | PyTorch's `gradcheck` | here |
# |---|---|---|---|
# | formula | central | central | central, by the step left after rounding |
# | step | about $\varepsilon^{1/3}$ | $10^{-6}$ | $10^{-6} \cdot \max(1, \lvert x \rvert)$ |
# | what is compared | one slope, or one direction | the whole Jacobian, or with `fast_mode=True` a random projection | all of `dx`, for a random `dy` |
# | tolerances | left open | relative $10^{-3}$, absolute $10^{-5}$ | relative $10^{-5}$, absolute $10^{-7}$ (times the largest value, if above 1) |
# | kinks | avoid them | avoid them | found and left out |
# | when it fails | a large number | both Jacobians | the place, the pattern in words, a picture |
#
# There is also a way around cancellation: if $f$ works for complex numbers, then $f(x + ih) = f(x) + i h
# f'(x) - \dots$, so the imaginary part divided by $h$ is $f'(x)$, and nothing was subtracted. The
# *complex step* may be as small as $10^{-20}$. It needs functions that know complex numbers; $\max$ and
# the absolute value do not.

# %%
print(
    "complex step, exact to rounding:",
    np.isclose(np.exp(1 + 1e-20j).imag / 1e-20, np.e, rtol=1e-14),
)

# %% [markdown]
# ## Predict before you run
#
# **1.** How large is the error of the central difference of $f(x) = x^2$ at 3, with the huge step
# $h = 1$? And that of the one-sided one?

# %%
print("central error:  ", central(lambda x: x * x, 3.0, 1.0) - 6)
print("one-sided error:", one_sided(lambda x: x * x, 3.0, 1.0) - 6)

# %% [markdown]
# <details><summary>Answer</summary>
#
# The central one is 0: its error is $\tfrac{h^2}{6} f'''$, and a parabola has $f''' = 0$. The one-sided
# error is $\tfrac{h}{2} f'' = \tfrac12 \cdot 2 = 1$.
#
# </details>
#
# **2.** A wrong rule for relu, which returns zeros, is checked at three inputs: all negative, all zero,
# and mixed. Which of the checks notice?


# %%
def relu_zero(x):
    return np.maximum(x, 0), lambda dy: np.zeros_like(dy)


for x in np.array([-1.0, -2.0]), np.zeros(2), np.array([-1.0, 2.0]):
    print(mt.check_vjp(relu_zero, x, raise_on_failure=False))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Only the last one tells that the rule is wrong. At negative inputs the gradient *is* zero, so the rule
# passes, with a warning that this proves little. At zero every element is on a kink and nothing was
# compared; the report counts that as failed, for a check that compared nothing must not pass.
#
# </details>
#
# **3.** Measured gradients are right to many digits, and need no rules. Why not train with them? How
# many evaluations of the network would *one* step of the training above take?

# %%
count = sum(w.size for w in fresh_weights(np.random.default_rng(0)))
print(f"{count} weights, {2 * count} evaluations for one gradient")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Two for each weight, thousands for this small network, where the reverse pass costs about as much as
# two or three evaluations, whatever the number of weights. With $10^8$ weights one step would take as
# long as 200 million evaluations.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`03_gradient_checking`](../exercises/03_gradient_checking.ipynb):
#
# 1. **central_difference**: the slope of a function of one number.
# 2. **numerical_vjp**: the gradient of a function of arrays, for any `dy`.
# 3. **agree**: are two gradients the same, up to tolerances?
# 4. **mended**: a layer with three wrong rules; read the report, mend it.
# 5. **is_kink**: tell a kink from a curve.

# %% [markdown]
# ## What to remember
#
# - A wrong gradient raises no error, and the network may learn all the same.
# - Central differences: truncation $h^2/6 \cdot |f'''|$, rounding $\varepsilon |f| / 2h$, best step near
#   $\varepsilon^{1/3}$. In float64.
# - A random `dy`, never ones; random inputs, never zeros; shapes whose sizes all differ; one input at a
#   time.
# - At kinks there is nothing to compare. They show when the step is made smaller: the gap of the slopes
#   stays.
# - Look at the pattern of the error: it names the mistake.

# %% [markdown]
# ## Sources
#
# - W. H. Press, S. A. Teukolsky, W. T. Vetterling, B. P. Flannery, *Numerical Recipes*, 3rd edition,
#   Cambridge University Press 2007, section 5.7: numerical derivatives and the choice of the step.
# - J. Nocedal, S. J. Wright, *Numerical Optimization*, 2nd edition, Springer 2006, section 8.1: finite
#   differences and their errors.
# - I. Goodfellow, Y. Bengio, A. Courville, *Deep Learning*, MIT Press 2016, section 11.5: checking
#   derivatives when debugging, along a random direction, and the complex step.
# - W. Squire, G. Trapp, *Using Complex Variables to Estimate Derivatives of Real Functions*, SIAM Review
#   40, 1998.
# - PyTorch's documentation: `torch.autograd.gradcheck`, *Gradcheck mechanics*.
