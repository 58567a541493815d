# %% [markdown]
# # 04 · Modules, losses, optimisers
#
# A module holds what is to be learned, a loss says how wrong it is, and an optimiser makes it less
# wrong.
#
# **You will be able to**
#
# - write a module whose parameters are found by their names, and say what a state dict is;
# - derive the cross-entropy loss and its gradient from maximum likelihood, and compute both without
#   overflow;
# - choose first weights through which a signal survives, explain momentum and Adam, and compare
#   optimisers honestly.
#
# **You need** lessons 01 to 03: primitives, shapes, the gradient check.
#
# **Time** about 60 minutes, and as long again for the exercises.

# %%
import functools

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.data import DataLoader, digits, random_split
from minitorch_attn.training import DivergedError, evaluate, fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# The data are handwritten digits, images of 8 × 8 pixels. We write the pixels of $N$ images as the
# rows of an array $x$ of shape $(N, 64)$. For each of the ten digits we keep 64 weights, a
# *template*, as in lesson 03. An image's *score* for a digit is the sum of its pixels times the
# template's weights. With all templates in an array $W$ of shape $(10, 64)$, the scores are
# $z = x W^\top$, of shape $(N, 10)$.
#
# At first all weights are 0, and so are all scores. We compute how fast a certain loss changes with
# each weight, and look at the opposite of that gradient: the direction in which the loss falls.

# %%
train, test = digits(), digits(train=False)
images, labels = train[:]
first = [int(np.flatnonzero(labels == k)[0]) for k in range(10)]
assert (labels[first] == np.arange(10)).all()
viz.show_images(images[first], labels[first], columns=10)

# %%
x = mt.tensor(images.reshape(-1, 64))  # (1442, 64)
W = mt.tensor(np.zeros((10, 64)), requires_grad=True)

z = x @ W.transpose(0, 1)  # (1442, 10)
F.cross_entropy(z, labels).backward()
downhill = -W.grad.numpy()  # (10, 64)
for k in range(10):
    more = x.data[labels == k].mean(axis=0) - x.data.mean(axis=0)  # ink, compared with all digits
    assert np.corrcoef(downhill[k], more)[0, 1] > 0.95
viz.show_feature_maps(downhill.reshape(10, 8, 8), columns=5, label="opposite of the gradient")

# %% [markdown]
# *Figure 1. Above, ten of the images. Below, the first step for the ten templates. Nobody drew
# these: where the images of a digit have more ink than others, its weight should grow (red), and
# where they have less, shrink (blue).*
#
# Now one step in that direction, and then 199 more, each with a new gradient.

# %%
losses, accuracies = [], []
for _ in range(200):
    W.zero_grad()
    z = x @ W.transpose(0, 1)
    loss = F.cross_entropy(z, labels)
    loss.backward()
    losses.append(loss.item())
    accuracies.append(100 * (z.data.argmax(axis=1) == labels).mean())
    with mt.no_grad():
        W -= 0.5 * W.grad

figure, axes = viz.panels(1, 2, height=2.8)
for ax, values, name in zip(axes, (losses, accuracies), ("loss", "accuracy, %"), strict=True):
    ax.plot(values)
    ax.set(xlabel="steps taken", ylabel=name, ylim=(0, None))
    ax.grid(axis="y")
assert losses == sorted(losses, reverse=True)
assert accuracies[1] - accuracies[0] > 50 > accuracies[-1] - accuracies[1] > 0
figure

# %%
print(f"right before the first step: {accuracies[0]:.0f} %")
print(f"right after one step:        {accuracies[1]:.0f} %")
print(f"right after 199 steps:       {accuracies[-1]:.0f} %")

# %% [markdown]
# *Figure 2. The loss falls in every step. The accuracy jumps in the first.*
#
# Three things took part: weights (a **module** will hold them), `F.cross_entropy` (a **loss**) and
# the line with `-=` (an **optimiser**). This lesson builds the three, and asks of each why it is
# made the way it is.

# %% [markdown]
# ## The equations
#
# ### A linear layer
#
# Let $x$ have shape $(N, D_{in})$: $N$ samples of $D_{in}$ features. With a weight $W$ of shape
# $(D_{out}, D_{in})$ and a bias $b$ of shape $(D_{out})$, the output $y$ of shape $(N, D_{out})$ is
#
# $$y_{nk} = \sum_d x_{nd} W_{kd} + b_k \qquad\text{or}\qquad y = x W^\top + b$$
#
# where $d$ runs over the features that come in and $k$ over those that go out. (The weight has one row
# for each output, like the templates; so it is stored in PyTorch too. The small networks of lesson 03
# had theirs transposed.) Let $dy$ be the gradient of the loss by $y$, as in the lessons before. Each
# rule asks: in which outputs does this number take part, and with which factor?
#
# - $x_{nd}$ takes part in $y_{nk}$ for all $k$, with the factor $W_{kd}$:
#   $\;dx_{nd} = \sum_k dy_{nk} W_{kd}$, which is $\;dx = dy\, W$.
# - $W_{kd}$ takes part in $y_{nk}$ for all $n$, with the factor $x_{nd}$:
#   $\;dW_{kd} = \sum_n dy_{nk} x_{nd}$, which is $\;dW = dy^\top x$.
# - $b_k$ takes part in $y_{nk}$ for all $n$, with the factor 1: $\;db_k = \sum_n dy_{nk}$.

# %% [markdown]
# ### A loss for numbers: squared error
#
# A loss can be chosen by taste, or derived from a model of chance: *choose the parameters under
# which what was observed is most probable*. That is the principle of **maximum likelihood**.
#
# Let a network predict numbers $y_j$, where $t_j$ was observed, for $j = 1 \dots M$. Assume that
# the observation is the prediction plus normal noise of standard deviation $s$, drawn anew each
# time:
#
# 1. The density of one observation is
#    $p(t_j) = \frac{1}{\sqrt{2\pi}\,s}\, e^{-(t_j - y_j)^2 / 2s^2}$.
# 2. Independent observations: their densities are multiplied, $\prod_j p(t_j)$.
# 3. The logarithm grows with its argument, so the maximum stays where it is, and the product
#    becomes a sum: $\sum_j \log p(t_j) = -\frac{1}{2s^2} \sum_j (t_j - y_j)^2 + \text{const}$.
#    (*const* collects what does not depend on the predictions.)
# 4. To maximise it is to minimise the sum of squares. Divided by $M$, so that it does not grow with
#    the amount of data, this is the **mean squared error**:
#
# $$L = \frac1M \sum_j (y_j - t_j)^2 \qquad dy_j = \frac2M (y_j - t_j)$$

# %% [markdown]
# ### A loss for classes: cross-entropy
#
# For $K$ classes a network gives $K$ scores $z_{n1} \dots z_{nK}$ for sample $n$. **Softmax** turns
# them into probabilities, positive and of sum 1:
#
# $$p_{nk} = \frac{e^{z_{nk}}}{\sum_j e^{z_{nj}}}$$
#
# Let $t_n$ be the right class of sample $n$, now a whole number. Maximum likelihood again:
#
# 1. The network gives the right class of sample $n$ the probability $p_{n t_n}$.
# 2. Independent samples: $\prod_n p_{n t_n}$.
# 3. Logarithm: $\sum_n \log p_{n t_n}$.
# 4. Minimise the opposite, divided by the number of samples:
#    $\;L = -\frac1N \sum_n \log p_{n t_n}$.
# 5. Put the softmax in; the logarithm of a quotient is a difference, and $\log e^z = z$:
#
# $$\boxed{\;L = \frac1N \sum_n \Big( \underbrace{\log \sum_j e^{z_{nj}}}_{\ell_n}
# \; - \; z_{n t_n} \Big)\;}$$
#
# The term $\ell_n$ is called *log-sum-exp*. It is a smooth stand-in for the largest score, so the
# loss of a sample is about zero when the right class has by far the largest score, and otherwise
# about as large as what the right class lacks.
#
# **Backward.** The score $z_{nk}$ takes part in row $n$ alone, so of the sum over $n$ one term is
# left. In it:
#
# 1. The derivative of a logarithm is one over its argument, and that of $e^{z}$ is $e^z$. Only the
#    term $j = k$ depends on $z_{nk}$:
#    $\;\dfrac{\partial \ell_n}{\partial z_{nk}} = \dfrac{e^{z_{nk}}}{\sum_j e^{z_{nj}}} = p_{nk}$.
#    The softmax is back.
# 2. $z_{n t_n}$ depends on $z_{nk}$ only if $k = t_n$, with the factor 1:
#    $\;\dfrac{\partial z_{n t_n}}{\partial z_{nk}} = o_{nk}$, which is 1 at the right class and 0
#    elsewhere: $o_n$ is the *one-hot* row of sample $n$ (lessons 02 and 03).
# 3. Their difference, and the factor $1/N$ of the mean:
#
# $$\boxed{\;dz_{nk} = \frac1N \big( p_{nk} - o_{nk} \big) \;}$$
#
# Softmax minus one-hot, over $N$: what the network believes minus what is true. It lies between
# $-1/N$ and $1/N$ however large the scores are, and each row adds up to 0. In figure 1 all $p_{nk}$
# were $1/10$.
#
# **Without overflow.** The largest number that a float64 can hold is about $10^{308}$, and
# $e^{710}$ is larger. But for any number $m$,
#
# $$\log \sum_j e^{z_j} = \log \Big( e^m \sum_j e^{z_j - m} \Big) = m + \log \sum_j e^{z_j - m}$$
#
# With $m$ the largest score, all exponents are at most 0 and one of them is exactly 0. So the sum
# lies between 1 and $K$: it cannot overflow, and it is never the logarithm of 0 that is taken.
#
# **Label smoothing.** The loss is 0 only for infinite scores, so training pushes them ever further
# apart. Choose a small share $\varepsilon$, such as 0.1, and spread it over all classes: the target is
# not 1 at the right class but $(1 - \varepsilon) + \varepsilon / K$ there, and $\varepsilon / K$
# elsewhere. Then the gradient is $p$ minus *that*, by the same steps, and becomes
# zero at finite scores.

# %% [markdown]
# ### First weights: why their scale matters
#
# A deep network multiplies by one weight matrix after the other. Take a layer $a_k = \sum_d W_{kd}\,
# x_d$ of $D$ inputs, and behind it a ReLU. The weights are drawn independently, symmetrically around
# 0, with variance $\sigma^2$ ($\sigma$ is a standard deviation here, and no logistic function). We ask
# how large $a_k$ is to be expected, as the mean of its square; $E$ is that mean over all draws of the
# weights.
#
# 1. Square the sum: $E[a_k^2] = \sum_d \sum_e E[W_{kd} W_{ke}]\, x_d x_e$.
# 2. For $d \ne e$ the weights are independent with mean 0, so $E[W_{kd} W_{ke}] = 0$. For $d = e$
#    it is $\sigma^2$. What remains is $E[a_k^2] = \sigma^2 \sum_d x_d^2$, which is $D \sigma^2$
#    times the mean square of the inputs.
# 3. $a_k$ is as often negative as positive, symmetrically. ReLU makes zeros of the negative half,
#    so the mean square is halved.
#
# Together, one layer multiplies the mean square of the signal by
#
# $$\tfrac12 D \sigma^2$$
#
# and several layers by a power of that, one factor for each. A factor of $1/4$ in 20 layers is
# $10^{-12}$. There is one scale that keeps the signal, $\sigma^2 = 2/D$ (Kaiming He and others, 2015).
#
# **Backward** the same happens: $dx_d = \sum_k W_{kd}\, da_k$ is a sum over the $D_{out}$ outputs,
# of which the ReLU lets half pass. The factor is $\frac12 D_{out} \sigma^2$: for layers of equal
# width the same scale keeps the gradient too.

# %% [markdown]
# ### Gradient descent, and its trouble with valleys
#
# Let $p$ be the parameters (from here on $p$ is no probability), $g$ the gradient of the loss by
# $p$, and $\eta$ the *learning rate*. **Gradient descent** takes steps
#
# $$p \leftarrow p - \eta g$$
#
# In one direction in which the loss is $\frac12 c\, p^2$, with curvature $c$ (the $\lambda$ of
# lesson 02, a letter that is needed for something else below), the gradient is $c\,p$, and a step
# multiplies $p$ by $1 - \eta c$. That shrinks $p$ if $\eta < 2/c$; beyond, it grows without end.
# Now take two directions, of curvatures 1 and 25: a valley. The steep one demands $\eta < 0.08$,
# and then the flat one shrinks by less than a tenth in a step. *The steepest direction sets the
# pace for all.*
#
# In training, $g$ is not the gradient of the whole loss but that of a **minibatch**, some samples
# drawn at random. Its mean is the whole gradient and it costs a fraction; that is *stochastic*
# gradient descent (SGD).

# %% [markdown]
# ### Momentum
#
# Keep a running sum $b$ of gradients (PyTorch's letter; it is no bias here), in which the past fades
# with a factor $\mu$, often 0.9:
#
# $$b \leftarrow \mu b + g \qquad p \leftarrow p - \eta b$$
#
# What it does shows in two extremes, by the geometric series:
#
# - The gradient is always the same, $g$: $\;b \to g (1 + \mu + \mu^2 + \dots) = g / (1 - \mu)$. For
#   $\mu = 0.9$ the step is ten times as long.
# - The gradient turns round in every step, $g, -g, g \dots$: $\;|b| \to |g| (1 - \mu + \mu^2 -
#   \dots) = |g| / (1 + \mu)$. It is about halved.
#
# Along the valley it runs, across the valley it is damped.

# %% [markdown]
# ### Adam
#
# Adam keeps two running means for each parameter, $m$ of the gradient and $v$ of its square, and from
# here on $t$ counts the steps, from 1, and $g_t$ is the gradient in step $t$:
#
# $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2
# \qquad m_0 = v_0 = 0$$
#
# usually with $\beta_1 = 0.9$ and $\beta_2 = 0.999$. **Bias correction:** having started at 0, the
# means are too small at first. By how much?
#
# 1. Put the recursion into itself: $m_t = (1 - \beta_1) \sum_{s=1}^{t} \beta_1^{t-s} g_s$.
# 2. Let the gradients have the same mean $\bar g$ in all steps. The mean of $m_t$ is
#    $\bar g\,(1 - \beta_1) \sum_{s=1}^t \beta_1^{t-s}$.
# 3. The geometric sum is $(1 - \beta_1^t) / (1 - \beta_1)$. So the mean of $m_t$ is
#    $(1 - \beta_1^t)\, \bar g$.
# 4. Divide by that factor: $\hat m_t = m_t / (1 - \beta_1^t)$, and likewise
#    $\hat v_t = v_t / (1 - \beta_2^t)$.
#
# The step divides by the root of the mean square, with a small $\epsilon$ against division by 0:
#
# $$\boxed{\; p \leftarrow p - \eta\, \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon} \;}$$
#
# In the first step $\hat m_1 = g$ and $\hat v_1 = g^2$: every parameter moves by $\eta$, in the
# direction of its gradient's sign. Gradients a thousand times as large change nothing; *each
# parameter has its own scale*. Where a gradient keeps its sign, the steps stay near $\eta$; where
# it is mostly noise, $\hat m$ is small against $\sqrt{\hat v}$ and the steps shrink.

# %% [markdown]
# ### Weight decay, and a schedule
#
# Large weights make a function that reacts to every detail. **Weight decay** pulls them to 0: with a
# small number $\lambda$, add $\frac\lambda2 \|p\|^2$, that is $\frac\lambda2$ times the sum of all
# squares, to the loss, and so $\lambda p$ to the gradient. For gradient descent that
# is $p \leftarrow (1 - \eta\lambda)\,p - \eta g$: all weights shrink at one rate. In Adam,
# $\lambda p$ is divided by $\sqrt{\hat v}$ with the rest, so a parameter with large gradients
# hardly decays. **AdamW** shrinks $p$ by $1 - \eta\lambda$ by itself and leaves $\lambda$ out of
# $m$ and $v$.
#
# A **schedule** lowers the learning rate while training goes on. The gradient of a minibatch is
# noisy, and near the minimum the steps only follow the noise, at a distance that grows with
# $\eta$. Large steps to get there, small ones to settle. The *cosine* schedule goes from $\eta$
# to 0 in $T$ steps: $\;\eta_t = \frac12 \eta\, (1 + \cos(\pi t / T))$.

# %% [markdown]
# ## The code
#
# ### The linear layer
#
# As loops, and as a primitive whose rules are the three lines above.


# %%
def linear_loops(x, weight, bias):
    """x (N, D_in), weight (D_out, D_in), bias (D_out,) -> y (N, D_out)."""
    y = np.zeros((len(x), len(weight)))
    for n in range(len(x)):
        for o in range(len(weight)):
            y[n, o] = bias[o]
            for i in range(x.shape[1]):
                y[n, o] += x[n, i] * weight[o, i]
    return y


@mt.primitive
def linear(x, weight, bias):
    """x (N, D_in), weight (D_out, D_in), bias (D_out,) -> y (N, D_out)."""

    def vjp_x(dy):
        return dy @ weight

    def vjp_weight(dy):
        return dy.T @ x

    def vjp_bias(dy):
        return dy.sum(axis=0)

    return x @ weight.T + bias, (vjp_x, vjp_weight, vjp_bias)


# %%
rng = np.random.default_rng(0)
x, weight, bias = rng.normal(size=(5, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
y = linear(x, weight, bias)
print("loops and arrays agree:", np.allclose(y.data, linear_loops(x, weight, bias)))
print("the library agrees:    ", np.allclose(y.data, F.linear(x, weight, bias).data))

# %% [markdown]
# ### The loss
#
# First as the equation has it, sample by sample.


# %%
def cross_entropy_loops(z, target):
    """z (N, K), target (N,) -> (): minus the mean log-probability of the right class."""
    total = 0.0
    for scores, right in zip(z, target, strict=True):
        p = np.exp(scores) / np.exp(scores).sum()
        total -= np.log(p[right])
    return total / len(z)


z, target = rng.normal(size=(4, 3)), np.array([2, 0, 1, 1])
print(f"random scores:  {cross_entropy_loops(z, target):.4f}")
with np.errstate(all="ignore"):
    print(f"a score of 800: {cross_entropy_loops(z + [0, 800, 0], target):.4f}")

# %% [markdown]
# `exp(800)` is infinite, and infinity divided by infinity is not a number. Such scores do come up
# in training. As a primitive, with the largest score taken out, and the gradient as derived:


# %%
@mt.primitive
def cross_entropy(z, *, target):
    """Scores z (N, K), classes target (N,) -> (): the mean over the samples."""
    N = len(z)
    shifted = z - z.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))  # (N, K)
    rows = np.arange(N)

    def vjp_z(dloss):
        dz = np.exp(log_p)
        dz[rows, target] -= 1
        return dloss * dz / N

    return -log_p[rows, target].mean(), vjp_z


ours = cross_entropy(z, target=target)
print("agrees with the loops:", np.allclose(ours.data, cross_entropy_loops(z, target)))
print("the library agrees:   ", np.allclose(ours.data, F.cross_entropy(z, target).data))
print(f"a score of 800:        {cross_entropy(z + [0, 800, 0], target=target).item():.1f}")

# %% [markdown]
# ### The module
#
# A network has many parameters, and we want to say things about all of them at once: move them,
# save them, count them. So they need names. A module finds its parameters by looking at its own
# attributes, and at those of the modules among them; the names are the attributes', joined by dots.


# %%
class OurModule:
    """A layer, or a network of layers."""

    def __init__(self):
        self.training = True

    def __call__(self, *inputs):
        return self.forward(*inputs)

    def named_modules(self, prefix=""):
        yield prefix, self
        for name, value in vars(self).items():
            if isinstance(value, OurModule):
                yield from value.named_modules(f"{prefix}{name}.")

    def named_parameters(self):
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, mt.Tensor):
                    yield prefix + name, value

    def state_dict(self):
        return {name: p.numpy().copy() for name, p in self.named_parameters()}

    def load_state_dict(self, state):
        with mt.no_grad():
            for name, p in self.named_parameters():
                p.copy_(state[name])

    def train(self, training=True):
        for _, module in self.named_modules():
            module.training = training


# %% [markdown]
# That is all a module does. A linear layer on top of it holds two tensors; a sequence holds
# modules, under the names "0", "1" and so on.


# %%
class OurLinear(OurModule):
    def __init__(self, in_features, out_features):
        super().__init__()
        scale = np.sqrt(2 / in_features)
        weight = mt.default_generator().normal(scale=scale, size=(out_features, in_features))
        self.weight = mt.tensor(weight, requires_grad=True)
        self.bias = mt.tensor(np.zeros(out_features), requires_grad=True)

    def forward(self, x):
        return linear(x, self.weight, self.bias)


class OurReLU(OurModule):
    def forward(self, x):
        return F.relu(x)


class OurSequential(OurModule):
    def __init__(self, *modules):
        super().__init__()
        for number, module in enumerate(modules):
            setattr(self, str(number), module)
        self.order = modules  # a tuple is no module: nothing is found twice

    def forward(self, x):
        for module in self.order:
            x = module(x)
        return x


mt.manual_seed(0)
ours = OurSequential(OurLinear(64, 32), OurReLU(), OurLinear(32, 10))
for name, p in ours.named_parameters():
    print(f"{name:9} {p.shape}")

# %% [markdown]
# The **state dict** is a snapshot: names and arrays, nothing else. It does not know the code, and
# that is its strength. Since the library's modules use the same names and shapes, our state fits
# there (and in PyTorch too).

# %%
library = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
library.load_state_dict(ours.state_dict())
x, target = mt.tensor(images[:64].reshape(64, 64)), labels[:64]
print("outputs agree:", np.allclose(ours(x).data, library(x).data))
library

# %% [markdown]
# Why `train()`? Some layers behave differently in training and in use. **Dropout** is the shortest:
# in training it sets each element to 0 with a fixed probability (`p` in code), so that no unit can
# rely on a single other one, and divides the rest by 1 less that probability, so that the mean stays.
# In use it does nothing.


# %%
class OurDropout(OurModule):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        kept = mt.default_generator().random(x.shape) >= self.p
        return x * (kept / (1 - self.p))


dropout = OurSequential(OurDropout(0.5))
ones = mt.tensor(np.ones((1, 8)))
print("in training:", dropout(ones).data[0])
dropout.train(False)
print("in use:     ", dropout(ones).data[0])

# %% [markdown]
# To forget that switch is a common mistake. The library's `evaluate` takes care of it; elsewhere it
# is `model.eval()`, which is `train(False)`.

# %% [markdown]
# ### The optimisers
#
# They remember something for each parameter and move it in place. The lines are the equations.


# %%
class OurSGD:
    """Gradient descent, with momentum if it is not 0."""

    def __init__(self, parameters, lr, momentum=0.0):
        self.parameters, self.lr, self.momentum = list(parameters), lr, momentum
        self.b = [np.zeros(p.shape) for p in self.parameters]

    def step(self):
        with mt.no_grad():
            for p, b in zip(self.parameters, self.b, strict=True):
                b[...] = self.momentum * b + p.grad.numpy()
                p -= self.lr * b


class OurAdamW:
    """Adam; with decoupled weight decay if it is not 0."""

    def __init__(self, parameters, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        self.parameters, self.lr, self.betas = list(parameters), lr, betas
        self.eps, self.weight_decay, self.t = eps, weight_decay, 0
        self.m = [np.zeros(p.shape) for p in self.parameters]
        self.v = [np.zeros(p.shape) for p in self.parameters]

    def step(self):
        beta1, beta2 = self.betas
        self.t += 1
        with mt.no_grad():
            for p, m, v in zip(self.parameters, self.m, self.v, strict=True):
                g = p.grad.numpy()
                m[...] = beta1 * m + (1 - beta1) * g
                v[...] = beta2 * v + (1 - beta2) * g**2
                m_hat, v_hat = m / (1 - beta1**self.t), v / (1 - beta2**self.t)
                p *= 1 - self.lr * self.weight_decay
                p -= self.lr * m_hat / (np.sqrt(v_hat) + self.eps)


# %% [markdown]
# Now everything of ours against everything of the library's: twenty steps on the same 64 images,
# and then all parameters are compared.


# %%
def twenty_steps(model, loss, optimizer):
    for _ in range(20):
        for _, p in model.named_parameters():
            p.zero_grad()
        loss(model(x), target).backward()
        optimizer.step()
    return dict(model.named_parameters())


def our_loss(z, target):
    return cross_entropy(z, target=target)


pairs = {
    "SGD": (OurSGD, optim.SGD, {"lr": 0.1}),
    "momentum": (OurSGD, optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "Adam": (OurAdamW, optim.Adam, {"lr": 0.01}),
    "AdamW": (OurAdamW, optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
}
start = ours.state_dict()
for name, (our_kind, library_kind, settings) in pairs.items():
    ours.load_state_dict(start)
    library.load_state_dict(start)
    our_optimizer = our_kind((p for _, p in ours.named_parameters()), **settings)
    a = twenty_steps(ours, our_loss, our_optimizer)
    b = twenty_steps(library, F.cross_entropy, library_kind(library.parameters(), **settings))
    agree = all(np.allclose(a[key].data, b[key].data) for key in start)
    print(f"{name:9} same parameters after 20 steps: {agree}")
    assert agree

# %% [markdown]
# ### The scale of first weights, drawn
#
# Twenty layers of 64 units with ReLU, on real digits, without training. The scale of the weights is
# $\sqrt{2/D}$, half of it, and twice it. On the way back goes a random gradient.


# %%
def strengths(scale, depth=20, width=64):
    """Root mean square of the signal after each layer, and of the gradient before each."""
    rng = np.random.default_rng(0)
    signal, layers, forward = images.reshape(-1, 64)[:200], [], []
    for _ in range(depth):
        weight = rng.normal(scale=scale * np.sqrt(2 / width), size=(width, width))
        a = signal @ weight.T
        signal = np.maximum(a, 0)
        layers.append((weight, a > 0))
        forward.append(np.sqrt((signal**2).mean()))
    gradient, backward = rng.normal(size=signal.shape), []
    for weight, positive in reversed(layers):
        gradient = (gradient * positive) @ weight
        backward.append(np.sqrt((gradient**2).mean()))
    return np.array(forward), np.array(backward[::-1])


scales = {"half": 0.5, r"$\sqrt{2/D}$": 1.0, "twice": 2.0}
measured = {name: strengths(scale) for name, scale in scales.items()}

figure, axes = viz.panels(1, 2, height=3.2)
layers = np.arange(1, 21)
for ax, way, title in zip(axes, (0, 1), ("signal, forward", "gradient, backward"), strict=True):
    for (name, both), colour in zip(measured.items(), viz.COLOURS, strict=False):
        ax.semilogy(layers, both[way], color=colour, label=name)
    ax.set(xlabel="layer", title=title, xticks=[1, 5, 10, 15, 20])
    ax.grid(axis="y")
axes[0].set_ylabel("root mean square")
axes[0].legend(title="scale of the weights", fontsize=9, title_fontsize=9)
figure

# %%
for name, scale in scales.items():
    for values in measured[name][0], measured[name][1][::-1]:
        per_layer = (values[-1] / values[0]) ** (1 / 19)
        assert abs(per_layer / scale - 1) < 0.1  # as derived, up to the luck of the draw

# %% [markdown]
# *Figure 3. A straight line on this axis is a constant factor for each layer. At half the scale the
# signal is halved layer by layer, and after twenty layers a millionth of it is left; at twice the
# scale it doubles. The gradient does the same on its way from layer 20 down to layer 1.*

# %% [markdown]
# ### Paths through a valley
#
# The valley from above: $f(p) = \frac12 (p_1^2 + 25\, p_2^2)$ with its lowest point at 0. And the
# same valley turned by 45 degrees. Each optimiser takes 30 steps, at the one of nine learning rates
# that leads it lowest.


# %%
def walk(optimizer_kind, turn, lr, steps=30, **settings):
    """The points of a path through the valley, (steps + 1, 2), and the height at its end."""
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.array([[c, -s], [s, c]])
    curvature = rotation @ np.diag([1.0, 25.0]) @ rotation.T
    p = mt.tensor(rotation @ [-4.0, 1.0], requires_grad=True)
    optimizer = optimizer_kind([p], lr=lr, **settings)
    path = [p.numpy().copy()]
    for _ in range(steps):
        p.grad = mt.tensor(curvature @ p.numpy())
        optimizer.step()
        path.append(p.numpy().copy())
    return np.array(path), 0.5 * path[-1] @ curvature @ path[-1]


RATES = 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5
walkers = {
    "gradient descent": (OurSGD, {}),
    "momentum 0.8": (OurSGD, {"momentum": 0.8}),
    "Adam": (OurAdamW, {}),
}
figure, axes = viz.panels(1, 2, height=3.6)
u, v = np.meshgrid(np.linspace(-4.6, 1.8, 161), np.linspace(-3.6, 1.8, 136))
height = {}
for ax, degrees in zip(axes, (0, 45), strict=True):
    turn = np.deg2rad(degrees)
    along, across = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    levels = [0.3, 1, 3, 10, 30, 100]
    ax.contour(u, v, 0.5 * (along**2 + 25 * across**2), levels, colors="#BBBBBB", linewidths=0.8)
    for (name, (kind, settings)), colour in zip(walkers.items(), viz.COLOURS, strict=False):
        tried = [walk(kind, turn, lr, **settings) for lr in RATES]
        path, height[name, degrees] = min(tried, key=lambda one: one[1])
        ax.plot(*path.T, color=colour, marker="o", markersize=3, linewidth=1.2, label=name)
    ax.plot(0, 0, marker="*", color="black", markersize=11)
    ax.set(title=f"turned by {degrees}°", xlabel="$p_1$", ylabel="$p_2$", aspect="equal")
axes[0].legend(fontsize=9, loc="lower right")
figure

# %%
for name in walkers:
    print(f"{name:17} height {height[name, 0]:.2f}, turned {height[name, 45]:.2f}")
for name in "gradient descent", "momentum 0.8":
    assert np.isclose(height[name, 0], height[name, 45])
assert height["Adam", 45] > 2 * height["Adam", 0]
assert min(height, key=height.get)[0] == "momentum 0.8"

# %% [markdown]
# *Figure 4. Thirty steps from the left towards the star. Gradient descent jumps from wall to wall
# while it creeps along the floor; momentum overshoots, but gets further. Adam gives each of the two
# numbers its own scale, which helps if the valley lies along an axis. Turned, the same valley takes
# that advantage away; the other two do not notice the turn.*
#
# None of them is the best everywhere, and a valley without noise is not a network. We shall
# measure.

# %% [markdown]
# ## The gradient check
#
# The rule of our loss against central differences (lesson 03), and the three rules of the layer.

# %%
z, target = rng.normal(size=(7, 5)), np.array([2, 0, 3, 3, 1, 4, 2])
report = mt.check_vjp(cross_entropy, z, target=target)
print(report)
x, weight, bias = rng.normal(size=(5, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
print(mt.check_vjp(linear, x, weight, bias))

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 5. One row for each sample. In each, one element has the other sign: the right class,
# whose score should move against all the others. The error is dark throughout.*
#
# Two wrong rules. The first forgets to subtract the one-hot row; the second forgets that the loss
# is a mean.


# %%
def without_one_hot(z, *, target):
    loss, _ = cross_entropy.__wrapped__(z, target=target)
    e = np.exp(z - z.max(axis=1, keepdims=True))

    def vjp_z(dloss):
        return dloss * e / e.sum(axis=1, keepdims=True) / len(z)

    return loss, vjp_z


def without_mean(z, *, target):
    loss, vjp = cross_entropy.__wrapped__(z, target=target)

    def vjp_z(dloss):
        return vjp(dloss) * len(z)

    return loss, vjp_z


wrong = mt.check_vjp(without_one_hot, z, target=target, raise_on_failure=False)
too_large = mt.check_vjp(without_mean, z, target=target, raise_on_failure=False)
print(too_large)
off = wrong.inputs[0].error > 1e-3
assert (off == np.eye(5, dtype=bool)[target]).all()
assert "mean" in too_large.inputs[0].diagnosis

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 6. The error is the one-hot array itself: one cell in each row, at the right class. The
# words above it only say that most elements are right; the picture says which term is missing. With
# the forgotten mean it is the other way round: every element is wrong by one factor, of which a
# picture shows little, and the words name it.*

# %% [markdown]
# ## At work
#
# ### A network for digits
#
# A network of two hidden layers of 64 units (a *multilayer perceptron*, MLP), with momentum, a
# little weight decay and a cosine schedule. To choose settings by looking at the test images would make them training images
# of a kind. So a fifth of the training images is set aside as **validation** images: choices are
# made on them, and the test images are looked at when all is chosen.


# %%
fitting, validation = random_split(train, [0.8, 0.2], generator=0)
valid_loader = DataLoader(validation, batch_size=500)
test_loader = DataLoader(test, batch_size=500)


def mlp(hidden, scale=1.0):
    """Linear layers with ReLU between them; weights of `scale` times Kaiming's, biases 0."""
    sizes = [64, *hidden, 10]
    layers = [nn.Flatten()]
    for D_in, D_out in zip(sizes, sizes[1:], strict=False):
        layer = nn.Linear(D_in, D_out)
        if scale is not None:  # None leaves the layer's own first values
            nn.init.normal_(layer.weight, std=scale * np.sqrt(2 / D_in))
            nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


mt.manual_seed(0)
model = mlp([64, 64])
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
loader = DataLoader(fitting, batch_size=32, shuffle=True, generator=0)
schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 20 * len(loader))
history = fit(
    model,
    loader,
    optimizer=optimizer,
    epochs=20,
    valid_loader=valid_loader,
    scheduler=schedule,
    scheduler_every="batch",
    progress=False,
)
viz.plot_history(history)

# %%
result = evaluate(model, test_loader)
print(f"training images:   {100 * history['train_accuracy'][-1]:.1f} %")
print(f"validation images: {100 * history['valid_accuracy'][-1]:.1f} %")
print(f"test images:       {100 * result['accuracy']:.1f} %")
seen, unseen = history["train_loss"], history["valid_loss"]
assert seen[-1] < 0.4 * seen[7] and unseen[-1] > 0.8 * unseen[7]

# %% [markdown]
# *Figure 7. Both losses fall. After some eight epochs the one on the training images goes on
# towards 0, while the one on images that the network has not seen hardly moves any more: from there
# on it learns its training images by heart.*
#
# ### Its mistakes
#
# A percentage hides what happened. We look at all the test images that the network reads wrongly:
# the right digit, what was read, and the probability it gave to that.

# %%
test_images, test_labels = test[:]
with mt.no_grad():
    p = F.softmax(model(mt.tensor(test_images)), dim=1).data
read = p.argmax(axis=1)
mistakes = np.flatnonzero(read != test_labels)
mistakes = mistakes[np.argsort(-p[mistakes, read[mistakes]])]  # the surest first
titles = [f"{test_labels[i]} → {read[i]}, {100 * p[i, read[i]]:.0f} %" for i in mistakes]
viz.show_images(test_images[mistakes], titles, wrong=[True] * len(mistakes), columns=5)

# %%
print(f"{len(mistakes)} of {len(test_labels)} images are read wrongly")
right = read == test_labels
print(f"mean probability where it is right: {100 * p[right].max(axis=1).mean():.0f} %")
print(f"and where it is wrong:              {100 * p[~right].max(axis=1).mean():.0f} %")
assert p[right].max(axis=1).mean() > 0.95 and (p[mistakes[:2]].max(axis=1) > 0.9).all()

# %% [markdown]
# *Figure 8. All mistakes on the test images, the surest first: the right digit → what was read.*
#
# Most of them are hard to read for us too. On average the network is less sure of its mistakes than
# of the rest, but of some it is very sure: a probability that a network gives is no promise.
#
# ### An honest comparison of optimisers
#
# Which optimiser is the best? If each gets some learning rate, the answer is about the learning
# rates. So each gets four, and for each of them three seeds; what counts is the mean accuracy on
# the validation images. The network is the one from above, the budget ten epochs, without schedule
# or weight decay. A training whose loss becomes infinite counts as guessing: 10 %.


# %%
def train_once(build, kind, lr, seed, epochs=10, cosine=False, **settings):
    """Train a network from a seed; return it and its history, which is None if it diverged."""
    mt.manual_seed(seed)
    model = build()
    optimizer = kind(model.parameters(), lr=lr, **settings)
    loader = DataLoader(fitting, batch_size=32, shuffle=True, generator=seed)
    schedule = None
    if cosine:
        schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    try:
        history = fit(
            model,
            loader,
            optimizer=optimizer,
            epochs=epochs,
            scheduler=schedule,
            scheduler_every="batch",
            progress=False,
        )
    except DivergedError:
        history = None
    return model, history


def accuracy_on(loader, trained):
    model, history = trained
    return 10.0 if history is None else 100 * evaluate(model, loader)["accuracy"]


def try_rates(build, kind, rates, seeds, **settings):
    """Accuracy on the validation images for each rate and seed: (rates, seeds)."""
    return np.array(
        [
            [
                accuracy_on(valid_loader, train_once(build, kind, lr, seed, **settings))
                for seed in seeds
            ]
            for lr in rates
        ]
    )


arms = {
    "SGD": (optim.SGD, (0.03, 0.1, 0.3, 1.0), {}),
    "momentum 0.9": (optim.SGD, (0.01, 0.03, 0.1, 0.3), {"momentum": 0.9}),
    "Adam": (optim.Adam, (0.001, 0.003, 0.01, 0.03), {}),
}
best = {}
figure, ax = viz.panels(width=6.4, height=3.2)
for (name, (kind, rates, settings)), colour in zip(arms.items(), viz.COLOURS, strict=False):
    tried = try_rates(lambda: mlp([64, 64]), kind, rates, seeds=(0, 1, 2), **settings)
    best[name] = rates[tried.mean(axis=1).argmax()]
    ax.plot(rates, tried.mean(axis=1), color=colour, marker="o", label=name)
    ax.fill_between(rates, tried.min(axis=1), tried.max(axis=1), color=colour, alpha=0.2, lw=0)
    print(f"{name:13} best rate {best[name]:5}, with a mean of {tried.mean(axis=1).max():.0f} %")
    assert tried.mean(axis=1).min() > 90 if name == "Adam" else tried.mean(axis=1)[-1] < 50
ax.set(xscale="log", xlabel="learning rate", ylabel="accuracy, validation, %", ylim=(0, 102))
ax.grid(axis="y")
ax.legend(loc="lower left", fontsize=9)
figure

# %% [markdown]
# *Figure 9. Mean and range over three seeds. Each optimiser has its own good rates; for SGD and
# momentum there is a cliff beyond them. The rate with the highest mean is taken.*
#
# Now five *new* seeds at the chosen rates (the old ones helped to choose), with the rate constant
# and with a cosine schedule that starts from it, on the test images.

# %%
SEEDS = 10, 11, 12, 13, 14
outcomes = {}
for name, (kind, _, settings) in arms.items():
    for cosine in False, True:
        runs = [
            train_once(lambda: mlp([64, 64]), kind, best[name], seed, cosine=cosine, **settings)
            for seed in SEEDS
        ]
        arm = f"{name}, cosine" if cosine else name
        outcomes[arm] = [accuracy_on(test_loader, run) for run in runs]
for arm, runs in outcomes.items():
    print(f"{arm:20} mean {np.mean(runs):.1f} %, from {min(runs):.1f} % to {max(runs):.1f} %")

mean = {arm: np.mean(runs) for arm, runs in outcomes.items()}
settled = [mean[f"{name}, cosine"] for name in arms]
assert max(settled) - min(settled) < 1
with_cosine = [outcomes[f"{name}, cosine"] for name in arms]
assert max(map(min, with_cosine)) < min(map(max, with_cosine))  # their seeds overlap
gain = {name: mean[f"{name}, cosine"] - mean[name] for name in arms}
assert gain["SGD"] > 8 and 1 < gain["momentum 0.9"] < 2 and 0 < gain["Adam"] < 0.6
assert min(outcomes["SGD, cosine"]) > 95
assert sum(run < 85 for run in outcomes["SGD"]) == 2

# %%
viz.plot_arms(outcomes, label="accuracy on test images, %")

# %% [markdown]
# *Figure 10. A dot is one seed, the bar their mean.*
#
# With a schedule the three optimisers lie less than a point apart, and their seeds overlap: on this
# task, at tuned rates, no one of them is the best. At a constant rate, plain SGD depends on where
# the noise has left it in the last step, and twice of five times that was a bad place. So the
# schedule gave plain SGD about ten points, momentum between one and two, and Adam next to nothing.
# What Adam gave here is figure 9: any of its four rates did well. All this holds for a small network on easy data; the next experiment
# looks different.
#
# ### With and without good first weights
#
# A factor for each layer counts twice in two layers, and eight times in eight. So the network now
# has eight hidden layers of 64 units, with three kinds of first weights: Kaiming's $\sigma^2 =
# 2/D$, twice that $\sigma$, and the library's own (which is PyTorch's: uniform between $\pm
# 1/\sqrt{D}$). Each arm gets the best of several rates, a factor of ten apart, chosen with two
# seeds on the validation images, and then three new seeds. All have the same budget of six epochs.

# %%
DEEP = [64] * 8
scales = {"Kaiming": 1.0, "twice Kaiming": 2.0, "library's default": None}
deep_arms = {
    "momentum 0.9": (optim.SGD, (0.0001, 0.001, 0.01, 0.1), {"momentum": 0.9}),
    "Adam": (optim.Adam, (0.001, 0.01), {}),
}
deep, chosen, best_tried = {}, {}, {}
for name, (kind, rates, settings) in deep_arms.items():
    deep[name] = {}
    settings = settings | {"epochs": 6}
    for first, scale in scales.items():
        build = functools.partial(mlp, DEEP, scale)
        tried = try_rates(build, kind, rates, seeds=(0, 1), **settings)
        lr = chosen[name, first] = rates[tried.mean(axis=1).argmax()]
        best_tried[name, first] = tried.max()
        runs = [train_once(build, kind, lr, seed, **settings) for seed in SEEDS[:3]]
        deep[name][first] = [accuracy_on(test_loader, run) for run in runs]
        print(
            f"{name:13} {first:18} rate {lr:<6}",
            "  ".join(f"{run:.0f} %" for run in deep[name][first]),
        )

# %%
figure, axes = viz.panels(2, 1, height=4.2)
for ax, (name, outcome) in zip(axes, deep.items(), strict=True):
    viz.plot_arms(outcome, label=f"{name}: accuracy on test images, %", ax=ax)
    ax.set_xlim(0, 102)
figure

# %%
for name, outcome in deep.items():
    others = [run for first, runs in outcome.items() if first != "Kaiming" for run in runs]
    assert min(outcome["Kaiming"]) > max(others) + 5, name
assert (
    max(*deep["momentum 0.9"]["library's default"], best_tried["momentum 0.9", "library's default"])
    < 15
)
assert chosen["momentum 0.9", "twice Kaiming"] < chosen["momentum 0.9", "Kaiming"]
assert min(run for runs in deep["Adam"].values() for run in runs) > 40
assert min(deep["Adam"]["Kaiming"]) > max(deep["momentum 0.9"]["Kaiming"])

# %% [markdown]
# *Figure 11. Three seeds each. With momentum, the library's default stays at guessing at every rate
# that was tried, and twice Kaiming's needs a smaller rate and gets less far. Adam, whose steps do
# not depend on the size of the gradient, gets somewhere from all of them, and furthest from
# Kaiming's.*
#
# The library's default has the variance $1/(3D)$, a sixth of Kaiming's. By the derivation above,
# eight layers leave of the mean square $6^{-8}$, less than a millionth. For deep networks the first
# weights are set on purpose, as here with `nn.init`. (Lesson 07 has another remedy: to normalise
# the signal on its way.)

# %% [markdown]
# ## Paper and code
#
# | | paper or textbook | PyTorch | here |
# |---|---|---|---|
# | momentum | $b \leftarrow \mu b - \eta g$, $p \leftarrow p + b$ (Sutskever and others) | $\eta$ outside: $p \leftarrow p - \eta b$. The same at a constant rate; when $\eta$ changes, it acts at once | as PyTorch |
# | Adam's $\epsilon$ | added to $\sqrt{\hat v}$ (algorithm 1); the end of section 2 gives a faster form in which it stands beside $\sqrt{v}$, which is another $\epsilon$ | as algorithm 1 | as algorithm 1 |
# | AdamW's decay | $\lambda p$ times the schedule's factor alone (algorithm 2) | times $\eta$ too: a larger rate decays more | as PyTorch |
# | `weight_decay` of Adam | the paper has none | added to the gradient | as PyTorch; use `AdamW` |
# | first weights of `Linear` | $2/D_{in}$ for ReLU (He and others, equation 10) | uniform in $\pm 1/\sqrt{D_{in}}$, variance $1/(3 D_{in})$ | as PyTorch; `nn.init` for the rest |
# | `state_dict()` | | shares its memory with the module | a copy |
# | cross-entropy of | probabilities | scores: softmax and logarithm are inside | as PyTorch |
#
# The last line is a common trap: with a softmax as the network's last layer *and* this loss,
# softmax is taken twice. Nothing fails; training is only slow and stays poor.

# %% [markdown]
# ## Predict before you run
#
# **1.** A network of three linear layers with ReLU starts with all weights and biases at 0. Which
# of its parameters get a gradient that is not 0?

# %%
zeros = mlp([16, 16], scale=0.0)
F.cross_entropy(zeros(mt.tensor(images[:50])), labels[:50]).backward()
for name, p in zeros.named_parameters():
    print(f"{name:9} {'moves' if np.any(p.grad.data) else 'stays'}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# Only the last bias. The last weights multiply hidden units that are 0, so their gradient is 0; and
# no gradient passes back through weights of 0. The network can learn how frequent the classes are, and
# nothing else. That is why first weights are random, and why the single layer of figure 1 could
# start at 0: there, no weight lies on the way to another.
#
# </details>
#
# **2.** A network for $K = 10$ classes has just been made and knows nothing: it gives about the
# same score to each class. What is its loss?

# %%
z, target = np.zeros((50, 10)), labels[:50]
print(f"loss: {F.cross_entropy(z, target).item():.3f}, log 10: {np.log(10):.3f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# $-\log \frac1{10} = \log 10 \approx 2.303$. It is worth knowing: a first loss far above $\log K$
# says that the first scores are too large, and a loss that stays at $\log K$ says that nothing is
# learned.
#
# </details>
#
# **3.** Someone multiplies the loss by 1000. How does that change the first step of SGD, and how
# the first step of Adam?

# %%
for kind in optim.SGD, optim.Adam:
    steps = []
    for factor in 1, 1000:
        p = mt.tensor([1.0, -2.0], requires_grad=True)
        (factor * p**2).sum().backward()
        kind([p], lr=0.001).step()
        steps.append(p.numpy() - [1.0, -2.0])
    print(f"{kind.__name__:5} {(steps[1] / steps[0]).round(3)} times as long")

# %% [markdown]
# <details><summary>Answer</summary>
#
# SGD takes steps a thousand times as long, and very likely diverges. Adam's step is $\hat m /
# \sqrt{\hat v}$, in which the factor cancels: nothing changes.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`04_modules_losses_optimisers`](../exercises/04_modules_losses_optimisers.ipynb):
#
# 1. **linear**: the layer in primitive form, with its three rules.
# 2. **cross_entropy**: the loss that does not overflow, and its gradient.
# 3. **sgd_momentum**: one step of gradient descent with momentum.
# 4. **adam**: one step of Adam, with its bias correction.
# 5. **MLP**: a module of as many layers as you like, whose parameters are found.

# %% [markdown]
# ## What to remember
#
# - A module finds its parameters in its attributes, by name; a state dict is those names with
#   arrays.
# - Cross-entropy is maximum likelihood for classes. Its gradient is (softmax − one-hot) / N, and
#   the largest score is taken out before the exponential.
# - Weights of variance $2/D$ keep a signal through ReLU layers; any other scale is a power of the
#   depth.
# - Momentum adds up what gradients agree on. Adam gives each parameter its own scale and divides by
#   $1 - \beta^t$ because it started at 0.
# - Compare optimisers at tuned rates, over several seeds, chosen on validation images. First look
#   at the rate, the schedule and the first weights.

# %% [markdown]
# ## Sources
#
# - K. He, X. Zhang, S. Ren, J. Sun, *Delving Deep into Rectifiers*, ICCV 2015: section 2.2,
#   equations 10 and 14.
# - X. Glorot, Y. Bengio, *Understanding the difficulty of training deep feedforward neural
#   networks*, AISTATS 2010.
# - B. T. Polyak, *Some methods of speeding up the convergence of iteration methods*, USSR
#   Computational Mathematics and Mathematical Physics 4(5), 1964: momentum.
# - I. Sutskever, J. Martens, G. Dahl, G. Hinton, *On the importance of initialization and momentum
#   in deep learning*, ICML 2013.
# - D. P. Kingma, J. Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015: algorithm 1,
#   section 3.
# - I. Loshchilov, F. Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019: algorithm 2;
#   *SGDR*, ICLR 2017: the cosine schedule.
# - C. Szegedy and others, *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016,
#   section 7: label smoothing.
# - N. Srivastava and others, *Dropout: A Simple Way to Prevent Neural Networks from Overfitting*,
#   Journal of Machine Learning Research 15, 2014.
# - The images: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine
#   Learning Repository, 1998, as they come with scikit-learn.
