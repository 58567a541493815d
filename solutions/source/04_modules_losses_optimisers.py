# %% [markdown]
# # Exercises 04: modules, losses, optimisers
#
# A layer, a loss, two optimisers and a network: what training needs. The letters are those of
# [lesson 04](../notebooks/04_modules_losses_optimisers.ipynb): `N` samples, `D_in` and `D_out`
# features, `K` classes; `dy` is the gradient of the loss by `y`.
#
# Run a cell, then its check. `hint("04.linear")` gives one hint at a time, and after a try
# `solution("04.linear")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. The linear layer
#
# $$y_{nk} = \sum_d x_{nd} W_{kd} + b_k$$
#
# in primitive form: `return y, (vjp_x, vjp_weight, vjp_bias)`. Each rule takes `dy` of shape
# (N, D_out) and returns a gradient of the shape of its input. For example, `x = [[1, 2]]`,
# `weight = [[3, 4]]` and `bias = [10]` give `[[21]]`.


# %% exercise="linear"
def linear(x, weight, bias):
    """x (N, D_in), weight (D_out, D_in), bias (D_out,) -> y (N, D_out), and a rule for each."""
    ### BEGIN SOLUTION

    def vjp_x(dy):
        return dy @ weight

    def vjp_weight(dy):
        return dy.T @ x

    def vjp_bias(dy):
        return dy.sum(axis=0)

    return x @ weight.T + bias, (vjp_x, vjp_weight, vjp_bias)
    ### END SOLUTION


# %% check="linear" points=2
check("04.linear", linear)

# %% [markdown]
# ## 2. Cross-entropy
#
# From scores `z` (N, K) and right classes `target`, whole numbers of shape (N,), to one number:
#
# $$L = \frac1N \sum_n \Big( \log \sum_j e^{z_{nj}} - z_{n t_n} \Big) \qquad
# dz_{nk} = \frac{\texttt{dloss}}{N} \big( p_{nk} - o_{nk} \big), \quad
# p = \operatorname{softmax}(z)$$
#
# in primitive form: `return loss, vjp_z`. Here $t_n$ is the right class of sample $n$, $o_{nk}$ is 1
# for $k = t_n$ and 0 for the other classes, and `dloss` is a single number, the gradient that comes in.
# It must also hold for scores such as 1000 and −1000. For example, a row of equal scores gives
# $\log K$.


# %% exercise="cross_entropy"
def cross_entropy(z, *, target):
    """Scores z (N, K), classes target (N,) -> the mean loss, (), and the rule dloss -> dz (N, K)."""
    ### BEGIN SOLUTION
    N = len(z)
    rows = np.arange(N)
    shifted = z - z.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    def vjp_z(dloss):
        dz = np.exp(log_p)
        dz[rows, target] -= 1
        return dloss * dz / N

    return -log_p[rows, target].mean(), vjp_z
    ### END SOLUTION


# %% check="cross_entropy" points=3
check("04.cross_entropy", cross_entropy)

# %% [markdown]
# ## 3. A step with momentum
#
# A parameter `p`, its gradient `g` and the running sum `b` of gradients, all of one shape:
#
# $$b \leftarrow \mu b + g \qquad p \leftarrow p - \eta b$$
#
# Return the new values as new arrays, `return p, b`; those that were given stay as they are. `lr` is
# $\eta$ and `momentum` is $\mu$. For example, with `p = 1`, `g = 2`, `b = 10`, `lr = 0.1` and
# `momentum = 0.5`, the new `b` is 7 and the new `p` is 0.3.


# %% exercise="sgd_momentum"
def sgd_momentum(p, g, b, lr, momentum):
    """One step: p, g, b (*) -> the new p and b, (*) each."""
    ### BEGIN SOLUTION
    b = momentum * b + g
    return p - lr * b, b
    ### END SOLUTION


# %% check="sgd_momentum" points=1
check("04.sgd_momentum", sgd_momentum)

# %% [markdown]
# ## 4. A step of Adam
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2$$
#
# $$\hat m = \frac{m}{1 - \beta_1^t} \qquad \hat v = \frac{v}{1 - \beta_2^t} \qquad
# p \leftarrow p - \eta\, \frac{\hat m}{\sqrt{\hat v} + \epsilon}$$
#
# `t` is the number of this step; the first has `t = 1`. Return the new values as new arrays,
# `return p, m, v`. In the first step, from `m = 0` and `v = 0`, each element of `p` moves by about
# `lr` against the sign of its gradient.


# %% exercise="adam"
def adam(p, g, m, v, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    """Step t (1, 2, ...): p, g, m, v (*) -> the new p, m and v, (*) each."""
    ### BEGIN SOLUTION
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v
    ### END SOLUTION


# %% check="adam" points=3
check("04.adam", adam)

# %% [markdown]
# ## 5. A multilayer perceptron
#
# A module of linear layers with a ReLU between any two of them: `MLP([64, 32, 10])` goes from 64
# features to 32, then to 10 scores. There is no ReLU behind the last layer, and no softmax: the loss
# has it. Use `nn.Linear` and `F.relu`, and keep the layers in an attribute `layers`, so that the
# parameters are named `layers.0.weight`, `layers.0.bias`, `layers.1.weight` and so on.


# %% exercise="MLP"
class MLP(nn.Module):
    """Linear layers with ReLU between them: (N, sizes[0]) -> (N, sizes[-1])."""

    def __init__(self, sizes):
        super().__init__()
        ### BEGIN SOLUTION
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = nn.ModuleList(nn.Linear(D_in, D_out) for D_in, D_out in pairs)
        ### END SOLUTION

    def forward(self, x):
        """From features (N, sizes[0]) to scores (N, sizes[-1])."""
        ### BEGIN SOLUTION
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)
        ### END SOLUTION


# %% check="MLP" points=3
check("04.MLP", MLP)
