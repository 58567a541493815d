# %% [markdown]
# # Exercises 09: sequence to sequence
#
# From the loop of a recurrent network, and back through it, to a decoder that writes on its own. The
# letters are those of [lesson 09](../notebooks/09_seq2seq.ipynb): `x` is a batch of sequences (N, L, D_in),
# `y` all the states (N, L, D).
#
# Run a cell, then its check. `hint("09.rnn_forward")` gives one hint at a time, and after a try
# `solution("09.rnn_forward")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. All states
#
# From $h_0 = 0$ on,
#
# $$h_t = \tanh(x_t W_{ih}^\top + h_{t-1} W_{hh}^\top)$$
#
# Return the states after every element. For example, one sequence of the single numbers 1, 0 with
# `w_ih = [[1]]`, `w_hh = [[2]]` has the states $\tanh(1) = 0.76$ and $\tanh(2 \cdot 0.76) = 0.91$.


# %% exercise="rnn_forward"
def rnn_forward(x, w_ih, w_hh):
    """x (N, L, D_in), w_ih (D, D_in), w_hh (D, D) -> y (N, L, D), the state after each element."""
    ### BEGIN SOLUTION
    N, L, _ = x.shape
    h = np.zeros((N, len(w_hh)))
    y = np.empty((N, L, len(w_hh)))
    for t in range(L):
        h = np.tanh(x[:, t] @ w_ih.T + h @ w_hh.T)
        y[:, t] = h
    return y
    ### END SOLUTION


# %% check="rnn_forward" points=2
check("09.rnn_forward", rnn_forward)

# %% [markdown]
# ## 2. Back through time
#
# The same with its rules: `return y, (vjp_x, vjp_w_ih, vjp_w_hh)`. A rule takes `dy` (N, L, D), the
# gradient that reaches each state from outside. Walk from the last element to the first, and carry what
# each step hands to the one before:
#
# $$da_t = dh_t \odot (1 - h_t^2), \qquad dh_{t-1} = dy_{t-1} + da_t\, W_{hh}$$
#
# The gradients of the weights are sums over time.


# %% exercise="rnn"
def rnn(x, w_ih, w_hh):
    """x (N, L, D_in), w_ih (D, D_in), w_hh (D, D) -> y (N, L, D), and a rule for each input."""
    ### BEGIN SOLUTION
    N, L, _ = x.shape
    h = np.zeros((N, L + 1, len(w_hh)))  # h[:, t] is the state before element t
    for t in range(L):
        h[:, t + 1] = np.tanh(x[:, t] @ w_ih.T + h[:, t] @ w_hh.T)
    y = h[:, 1:]

    def through_time(dy):
        da, dh = np.empty_like(y), np.zeros_like(y[:, 0])
        for t in reversed(range(L)):
            dh = dh + dy[:, t]
            da[:, t] = dh * (1 - y[:, t] ** 2)
            dh = da[:, t] @ w_hh
        return da

    def vjp_x(dy):
        return through_time(dy) @ w_ih

    def vjp_w_ih(dy):
        return np.einsum("nld,nli->di", through_time(dy), x)

    def vjp_w_hh(dy):
        return np.einsum("nld,nle->de", through_time(dy), h[:, :-1])

    return y, (vjp_x, vjp_w_ih, vjp_w_hh)
    ### END SOLUTION


# %% check="rnn" points=4
check("09.rnn", rnn)

# %% [markdown]
# ## 3. A step of an LSTM
#
# `a` has four parts side by side, those of $i$, $f$, $g$, $o$ in this order, each (N, D):
#
# $$c' = \sigma(a^f) \odot c + \sigma(a^i) \odot \tanh(a^g), \qquad h' = \sigma(a^o) \odot \tanh(c')$$
#
# Return $h'$ and $c'$ side by side, (N, 2 D), and the rules of `a` and of `c`: `return y, (vjp_a, vjp_c)`. So
# the first half of `dy` is $dh'$, the second is the $dc'$ that comes from the next step.


# %% exercise="lstm_step"
def lstm_step(a, c):
    """a (N, 4 D), c (N, D) -> h' and c' side by side (N, 2 D), and a rule for each input."""
    ### BEGIN SOLUTION
    D = c.shape[1]
    i, f, g, o = (a[:, k * D : (k + 1) * D] for k in range(4))
    i, f, o = (1 / (1 + np.exp(-part)) for part in (i, f, o))
    g = np.tanh(g)
    kept = f * c + i * g
    shown = np.tanh(kept)

    def back_to_c(dy):
        dh, dc = dy[:, :D], dy[:, D:]
        return dc + dh * o * (1 - shown**2)

    def vjp_a(dy):
        dh, dc = dy[:, :D], back_to_c(dy)
        parts = [
            dc * g * i * (1 - i),
            dc * c * f * (1 - f),
            dc * i * (1 - g**2),
            dh * shown * o * (1 - o),
        ]
        return np.concatenate(parts, axis=1)

    def vjp_c(dy):
        return back_to_c(dy) * f

    return np.concatenate([o * shown, kept], axis=1), (vjp_a, vjp_c)
    ### END SOLUTION


# %% check="lstm_step" points=4
check("09.lstm_step", lstm_step)

# %% [markdown]
# ## 4. The loss of a sequence
#
# `logits` (N, T - 1, K) are the decoder's scores after each token of a target (N, T), but its last. What they
# should have foretold is the target without its first token. The loss is the mean of
# $-\log \mathrm{softmax}(\mathrm{logits})$ at the right tokens, over all tokens of all sequences that are not
# padding (0). Tokens of a long sequence count as much as those of a short one. For example, two tokens in all
# that were foretold with the probabilities 1/2 and 1/4 give the loss $(\log 2 + \log 4) / 2 = 1.04$.


# %% exercise="sequence_loss"
def sequence_loss(logits, target):
    """logits (N, T - 1, K), target (N, T) of integers, padded with 0 -> a number."""
    ### BEGIN SOLUTION
    right = target[:, 1:]
    shifted = logits - logits.max(axis=2, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
    picked = np.take_along_axis(log_p, right[:, :, None], axis=2)[:, :, 0]
    return -picked[right != 0].mean()
    ### END SOLUTION


# %% check="sequence_loss" points=2
check("09.sequence_loss", sequence_loss)

# %% [markdown]
# ## 5. Greedy decoding
#
# `step(tokens, state)` is a decoder: it takes the tokens that were written last, (N,), and a state, and
# returns scores (N, K) and the next state. Begin with token 1 for every sequence, and choose the token with
# the greatest score each time. Write `longest` tokens; but when a sequence has written its end, 2, it goes
# on with padding, 0, whatever the scores say. For example, scores that are greatest for 3, 2 and 4 in turn give
# the tokens 3, 2, 0.


# %% exercise="greedy"
def greedy(step, state, count, longest):
    """A decoder, its state before the first token, N = count -> tokens (N, longest) of integers."""
    ### BEGIN SOLUTION
    token, over = np.full(count, 1), np.zeros(count, dtype=bool)
    written = []
    for _ in range(longest):
        scores, state = step(token, state)
        token = np.where(over, 0, scores.argmax(axis=1))
        over = over | (token == 2)
        written.append(token)
    return np.stack(written, axis=1)
    ### END SOLUTION


# %% check="greedy" points=3
check("09.greedy", greedy)

# %% [markdown]
# ## 6. The cell of a GRU
#
# As an `nn.Module`, in PyTorch's form. With $a = x W_{ih}^\top + b_{ih}$ and
# $u = h W_{hh}^\top + b_{hh}$, both in three parts side by side, those of $r$, $z$, $n$:
#
# $$r = \sigma(a^r + u^r), \qquad z = \sigma(a^z + u^z), \qquad n = \tanh(a^n + r \odot u^n), \qquad
# h' = (1 - z) \odot n + z \odot h$$
#
# Two linear layers, `ih` and `hh`, hold the weights and biases. `tensor.chunk(3, 1)` cuts a tensor into three
# parts along axis 1.


# %% exercise="GRUCell"
class GRUCell(nn.Module):
    """One step of a gated recurrent unit: x (N, D_in) and h (N, D) -> the next h (N, D)."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        ### BEGIN SOLUTION
        self.ih = nn.Linear(input_size, 3 * hidden_size)
        self.hh = nn.Linear(hidden_size, 3 * hidden_size)
        ### END SOLUTION

    def forward(self, x, h):
        ### BEGIN SOLUTION
        a_r, a_z, a_n = self.ih(x).chunk(3, 1)
        u_r, u_z, u_n = self.hh(h).chunk(3, 1)
        r, z = F.sigmoid(a_r + u_r), F.sigmoid(a_z + u_z)
        n = F.tanh(a_n + r * u_n)
        return (1 - z) * n + z * h
        ### END SOLUTION


# %% check="GRUCell" points=3
check("09.GRUCell", GRUCell)
