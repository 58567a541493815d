# %% [markdown]
# # 09 · Sequence to sequence
#
# A network that reads a sequence one element at a time and keeps a state; and two of them together: one
# reads a sequence, the other writes a new one from what the first has kept.
#
# **You will be able to**
#
# - derive the gradient of a recurrent network through time, and say why it vanishes, and what the
#   gates of an LSTM and a GRU do about that;
# - build an encoder and a decoder, train them with teacher forcing, and let them write on their own;
# - show by experiment the two problems that attention, in the next lesson, was invented to solve.
#
# **You need** lessons 01 to 04: primitives, gradient checks, modules, losses and optimisers.
#
# **Time** about 60 minutes, and as long again for the exercises.

# %%
import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.data import DataLoader, digits, reversal_pairs, sorting_pairs
from minitorch_attn.models import Seq2Seq
from minitorch_attn.models.seq2seq import Decoder, Encoder
from minitorch_attn.nn.utils import clip_grad_norm_
from minitorch_attn.training import evaluate, fit

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# So far a network saw its input all at once. One can also *read* it: a piece at a time, in order,
# with a state that is carried along and changed a little by every piece. Here is a handwritten digit,
# as an image and as what it is for such a network: a sequence of eight rows of eight numbers.

# %%
train, test = digits(), digits(train=False)
images, labels = test[:]
nine = int(np.flatnonzero(labels == 9)[1])
figure, axes = viz.panels(1, 2, width=7, height=2.6)
axes[0].imshow(images[nine, 0], cmap="gray", vmin=0, vmax=1)
axes[0].set_title("an image")
axes[0].axis("off")
for t, row in enumerate(images[nine, 0]):
    axes[1].imshow(row[None], cmap="gray", vmin=0, vmax=1, extent=(0, 8, -t, -t + 0.7))
    axes[1].text(8.4, -t + 0.35, f"$x_{t + 1}$", va="center")
axes[1].set(xlim=(0, 10), ylim=(-7.2, 0.9), title="a sequence of rows")
axes[1].axis("off")
assert labels[nine] == 9 and images[nine, 0].shape == (8, 8)
figure

# %% [markdown]
# *Figure 1. A digit nine, and the eight rows that are read one after the other.*
#
# A small recurrent network, `nn.GRU`, reads the rows; after each of them a linear layer turns its
# state into scores for the ten classes. It is trained to name the digit after every row, as well as it
# can. (`clip_grad=1.0` scales a gradient down whose norm is above 1; why a recurrent network needs that, we
# shall see.) Then we ask it after each row, on images that it has not seen.


# %%
class RowReader(nn.Module):
    """Images (N, 1, 8, 8) to scores for the classes after each row, (N, 10, 8)."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(8, 48, batch_first=True)
        self.classes = nn.Linear(48, 10)

    def forward(self, x):
        states, _ = self.rnn(x.squeeze(1))  # (N, 8, 48): the state after each row
        return self.classes(states).transpose(1, 2)


def at_every_row(scores, digit):
    return F.cross_entropy(scores, digit.unsqueeze(1).expand(len(digit), 8))


mt.manual_seed(0)
reader = RowReader()
fit(
    reader,
    DataLoader(train, batch_size=64, shuffle=True, generator=0),
    optimizer=optim.Adam(reader.parameters(), lr=1e-2),
    loss=at_every_row,
    epochs=12,
    clip_grad=1.0,
    metrics={},
    progress=False,
)
with mt.no_grad():
    belief = reader(mt.tensor(images)).softmax(1).data  # (images, classes, rows)
right = (belief.argmax(axis=1) == labels[:, None]).mean(axis=0)
print("right after each row:", "  ".join(f"{100 * share:.0f} %" for share in right))
assert right[0] < 0.45 and right[-1] > 0.85 and belief[nine, :, -1].argmax() == 9

# %%
figure, ax = viz.panels(1, 1, width=6, height=3.4)
drawn = ax.imshow(belief[nine], cmap="viridis", vmin=0, vmax=1, aspect="auto")
figure.colorbar(drawn, label="probability")
ax.set_xticks(range(8), [f"$x_{t}$" for t in range(1, 9)])
ax.set_yticks(range(10))
ax.set(xlabel="after row", ylabel="class")
assert belief[nine, 9, -1] > 0.5 > belief[nine, 9, 0]
figure

# %% [markdown]
# *Figure 2. What the network believes after each row of the nine: a column is a row that was read, and
# shows the probability of each class. At first there is little to go by; with every row the belief
# gathers on fewer digits, and in the end on the nine.*
#
# All that the network knows of the rows above is in its state, 48 numbers. That is the idea of this
# lesson, and in its second half it becomes a limit.

# %% [markdown]
# ## The equations
#
# A batch holds $N$ sequences of $L$ elements. $x_t$, of shape $(N, D_{in})$, are the elements at *time*
# $t = 1, \dots, L$, and $h_t$, of shape $(N, D)$, are the states after them; $h_0 = 0$.
#
# **A recurrent network** (RNN) computes the next state from the element and the state before, with
# the same weights $W_{ih}: (D, D_{in})$ and $W_{hh}: (D, D)$ at every time:
#
# $$a_t = x_t W_{ih}^\top + h_{t-1} W_{hh}^\top, \qquad h_t = \tanh(a_t)$$
#
# (A bias belongs to it too; it is left out here to keep the lines short.) The output is all the states:
# $y_t = h_t$.
#
# ### Backward, through time
#
# First with single numbers, $a_t = u\, x_t + w\, h_{t-1}$. Let $\ell$ be the loss, $dy_t$ the gradient
# that reaches $h_t$ from whoever reads the outputs, and $dh_t$ its whole gradient. $h_t$ is used twice:
# as output, and by the next step. Gradients of uses add up:
#
# $$dh_t = dy_t + w\, da_{t+1}, \qquad da_{L+1} = 0$$
#
# Through the tanh, whose slope is $1 - \tanh^2$:
#
# $$da_t = (1 - h_t^2)\, dh_t$$
#
# Nothing comes after the last element, so there $dh_L = dy_L$. One walks backwards, from $t = L$ to $t = 1$,
# and carries $dh$ along: *back-propagation through time*. It is the reverse pass of lesson 01 on a graph that
# repeats itself. The weights are used at every time, so their gradients are sums over time:
#
# $$dw = \sum_t da_t\, h_{t-1}, \qquad du = \sum_t da_t\, x_t, \qquad dx_t = u\, da_t$$
#
# With batches and matrices, by the rules of a matrix product (lesson 02), and $\odot$ for the
# elementwise product:
#
# $$\boxed{\; da_t = dh_t \odot (1 - h_t^2), \qquad dh_{t-1} = dy_{t-1} + da_t\, W_{hh} \;}$$
#
# $$dW_{hh} = \sum_t da_t^\top h_{t-1}, \qquad dW_{ih} = \sum_t da_t^\top x_t, \qquad
# dx_t = da_t\, W_{ih}$$
#
# ### Why it vanishes
#
# How does the state $k$ steps ago act on the one now? By the chain rule, as a product of $k$ factors;
# with single numbers,
#
# $$\frac{\partial h_L}{\partial h_{L-k}} = \prod_{t=L-k+1}^{L} w\, (1 - h_t^2)$$
#
# Every factor is at most $|w|$, as the slope of tanh is at most 1. If $|w| < 1$ the product is at most
# $|w|^k$: it *vanishes* exponentially with $k$. If $|w|$ is large it may *explode*, unless the states
# are so large that the slopes $1 - h_t^2$ are near zero. With matrices the place of $|w|$ is taken by
# $\|W_{hh}\|$, the most by which the matrix lengthens any vector (its largest *singular value*):
#
# $$\left\| \frac{\partial h_L}{\partial h_{L-k}} \right\| \le \|W_{hh}\|^k$$
#
# If $\|W_{hh}\| < 1$ the gradient must vanish. If not, it still may: the bound holds for the direction that
# is lengthened most, and other directions are shortened.
#
# Against the explosion there is a simple remedy: *clip* the gradient, that is, scale it down to a given
# norm where it is longer. Against the vanishing, scaling up is none. The gradient of the weights is a sum
# over time; in it the share of an early element, which tells the weights what they should have kept of it,
# is lost beside the shares of the late ones.

# %% [markdown]
# ### LSTM: a path with nothing in its way
#
# The *long short-term memory* carries a second state $c_t$, its memory, which no matrix touches. It
# is changed by *gates*, numbers between 0 and 1. From the same sums,
# $a_t = x_t W_{ih}^\top + h_{t-1} W_{hh}^\top$, now four times as wide, in parts $a^i, a^f, a^g, a^o$ of shape
# $(N, D)$ each (the index $t$ of parts and gates is left out, and $\sigma$ is the sigmoid):
#
# $$i = \sigma(a^i), \quad f = \sigma(a^f), \quad g = \tanh(a^g), \quad o = \sigma(a^o)$$
#
# $$c_t = f \odot c_{t-1} + i \odot g, \qquad h_t = o \odot \tanh(c_t)$$
#
# What is in the memory is kept as far as the *forget gate* $f$ is open; the *input gate* $i$ says how
# much of the new $g$ is written, the *output gate* $o$ how much is shown.
#
# Backward, from the last line to the first. $c_t$ is used by $h_t$ and by the next step. What has come from
# the next step is in $dc_t$ already; what comes through $h_t$ is added:
#
# $$dc_t \leftarrow dc_t + dh_t \odot o \odot (1 - \tanh^2 c_t)$$
#
# $$da^o = dh_t \odot \tanh(c_t) \odot o (1 - o), \qquad da^f = dc_t \odot c_{t-1} \odot f (1 - f)$$
#
# $$da^i = dc_t \odot g \odot i (1 - i), \qquad da^g = dc_t \odot i \odot (1 - g^2)$$
#
# Each is the gradient of a product: $dc_t$ (or $dh_t$) times the other factor, and then times the slope,
# $s(1 - s)$ of a sigmoid $s$ or $1 - g^2$ of the tanh. From $da_t$ on all goes as above:
# $dh_{t-1} = dy_{t-1} + da_t W_{hh}$, and the same sums for the weights. The memory's own way back is the shortest:
#
# $$\boxed{\; dc_{t-1} = dc_t \odot f \;}$$
#
# That last line is the point of it all: on the way back through the memory there is no matrix and no
# slope, only the forget gates. While they are open, near 1, the gradient passes step after step almost
# unchanged. (The first LSTM had no forget gate: the factor was 1, and its inventors called this the *constant
# error carousel*.)
#
# ### GRU: the same idea, smaller
#
# The *gated recurrent unit* has one state, and a gate $z$ that mixes the old with the new:
#
# $$r = \sigma(a^r + u^r), \qquad z = \sigma(a^z + u^z), \qquad n = \tanh(a^n + r \odot u^n)$$
#
# $$h_t = (1 - z) \odot n + z \odot h_{t-1}$$
#
# where $a = x_t W_{ih}^\top$ and $u = h_{t-1} W_{hh}^\top$, in three parts each, are kept apart, because the
# *reset gate* $r$ acts on the share of the state alone. The direct path back is
# $dh_{t-1} = dh_t \odot z + \dots$: again a gate, and no matrix.

# %% [markdown]
# ### From sequence to sequence
#
# Now a sequence is to become *another* one, of another length: a sentence its translation, a date as
# written by hand the same date as a computer wants it. Two networks share the work. (In this part the letters
# are those of the papers: $c$ is no longer the memory of an LSTM, and $y$ no longer a state.)
#
# The **encoder** reads the *source* $x_1, \dots, x_L$. What it hands over is its last state: a
# **summary** $c = h_L$ (also called *context vector*). A *bidirectional* encoder reads in both directions
# and hands over both last states, side by side; the last one of the backward direction is that after $x_1$.
#
# The **decoder** writes the *target* $y_1, \dots, y_T$, a *token* (a letter, a word) at a time. Its state
# $s_t$ begins with the summary, and each step is given the token before and the summary again. With an
# embedding $E$, which looks up a row of numbers for every token,
#
# $$s_0 = \tanh(W_0 c), \qquad s_t = \mathrm{GRU}([E y_{t-1};\, c],\ s_{t-1}), \qquad
# p_t = \mathrm{softmax}(\mathrm{readout}(s_t, c, E y_{t-1}))$$
#
# $[\,\cdot\,;\,\cdot\,]$ puts its parts side by side, and *readout* is a small network of two linear layers
# with a tanh between. $p_t$ has a probability for each token that may come next. The first $y_0$ is a special
# token that means *start*; another one means *end*, and when it is written the decoder is done. The loss is the
# cross-entropy of the right tokens,
#
# $$\ell = -\sum_t \log p_t[y_t]$$
#
# over all $t$ and all sequences, divided by the number of tokens. In training the decoder is given the
# *right* token before, whatever it would have written itself: **teacher forcing**. So all steps of a
# target have their inputs beforehand. Left alone, it is given its own: in **greedy decoding** always the most
# probable one.

# %% [markdown]
# ## The code
#
# ### A recurrent network
#
# First the equation as loops, for one number after the other.


# %%
def rnn_loops(x, w_ih, w_hh):
    """x (N, L, D_in), w_ih (D, D_in), w_hh (D, D) -> y (N, L, D), all the states."""
    N, L, D_in = x.shape
    D = len(w_hh)
    y = np.zeros((N, L, D))
    for n in range(N):
        h = [0.0] * D
        for t in range(L):
            a = [
                sum(w_ih[d, i] * x[n, t, i] for i in range(D_in))
                + sum(w_hh[d, e] * h[e] for e in range(D))
                for d in range(D)
            ]
            h = [np.tanh(value) for value in a]
            y[n, t] = h
    return y


# %% [markdown]
# Then with whole arrays, in the form of a primitive. One loop is left, the one over time: a step needs
# the step before. `through_time` is the walk backwards of the derivation; it carries `dh`. Each of the three
# rules takes the walk anew, which keeps them short; the library takes it once for all three.


# %%
def rnn(x, w_ih, w_hh):
    """x (N, L, D_in), w_ih (D, D_in), w_hh (D, D) -> y (N, L, D), and a rule for each."""
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


# %%
rng = np.random.default_rng(0)
x = rng.normal(size=(2, 6, 3))
w_ih, w_hh = rng.normal(size=(4, 3)), 0.7 * rng.normal(size=(4, 4))
y, _ = rnn(x, w_ih, w_hh)
print("loops and arrays agree:", np.allclose(y, rnn_loops(x, w_ih, w_hh)))

library = nn.RNN(3, 4, bias=False, batch_first=True)
library.load_state_dict({"weight_ih_l0": mt.tensor(w_ih), "weight_hh_l0": mt.tensor(w_hh)})
states, last = library(mt.tensor(x))
print("the library agrees:    ", np.allclose(states.data, y))
print("last state:            ", last.shape, np.allclose(last[0].data, y[:, -1]))

# %% [markdown]
# ### An LSTM
#
# Its step, again in primitive form: from `a`, the four parts side by side, and the memory before, to
# $h_t$ and $c_t$ side by side.


# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(a, c):
    """a (N, 4 D), c (N, D) -> h and the new c side by side (N, 2 D), and a rule for each."""
    D = c.shape[1]
    i, f, g, o = a[:, :D], a[:, D : 2 * D], a[:, 2 * D : 3 * D], a[:, 3 * D :]
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    kept = f * c + i * g
    shown = np.tanh(kept)

    def back_to_c(dy):
        dh, dc = dy[:, :D], dy[:, D:]
        return dc + dh * o * (1 - shown**2)

    def vjp_a(dy):
        dh, dc = dy[:, :D], back_to_c(dy)
        da_i = dc * g * i * (1 - i)
        da_f = dc * c * f * (1 - f)
        da_g = dc * i * (1 - g**2)
        da_o = dh * shown * o * (1 - o)
        return np.concatenate([da_i, da_f, da_g, da_o], axis=1)

    def vjp_c(dy):
        return back_to_c(dy) * f  # the carousel

    return np.concatenate([o * shown, kept], axis=1), (vjp_a, vjp_c)


# %% [markdown]
# A whole sequence is a loop over it. With the library's weights it gives the library's states. (PyTorch
# has two biases, one for each share, and the library follows it: one would do.)

# %%
library = nn.LSTM(3, 4, batch_first=True)
w = {name: p.data for name, p in library.named_parameters()}
h, c = np.zeros((2, 4)), np.zeros((2, 4))
for t in range(6):
    from_x = x[:, t] @ w["weight_ih_l0"].T + w["bias_ih_l0"]
    from_h = h @ w["weight_hh_l0"].T + w["bias_hh_l0"]
    y, _ = lstm_step(from_x + from_h, c)
    h, c = y[:, :4], y[:, 4:]

_, (last_h, last_c) = library(mt.tensor(x))
print("the library agrees:", np.allclose(last_h[0].data, h), np.allclose(last_c[0].data, c))
for name, values in w.items():
    print(f"{name:13}", values.shape)

# %% [markdown]
# The library computes all steps of a layer in one operation, with such rules inside: a graph of all the
# small operations of all steps gives the same, and takes longer.
#
# ### Sequences of several lengths
#
# The sequences of a batch seldom have one length. They are *padded* to the longest, for which token 0
# is kept free. But a network that goes on reading the padding changes its state. So the padding is
# taken out again before: a *packed* batch has the first elements of all sequences, then the second
# elements of those that have one, and so on.

# %%
padded = nn.pad_sequence([mt.tensor(x[0]), mt.tensor(x[1, :2])], batch_first=True)
packed = nn.pack_padded_sequence(padded, lengths=[6, 2], batch_first=True)
print(
    "padded:",
    padded.shape,
    " packed:",
    packed.data.shape,
    " at each time:",
    packed.batch_sizes.data,
)

alone, _ = library(mt.tensor(x[1:, :2]))
_, (last_packed, _) = library(packed)
_, (last_padded, _) = library(padded)
print(
    "packed, the short one ends as it does alone:",
    np.allclose(last_packed[0, 1].data, alone[0, 1].data),
)
print(
    "padded, the short one ends as it does alone:",
    np.allclose(last_padded[0, 1].data, alone[0, 1].data),
)

# %% [markdown]
# ### Encoder and decoder
#
# Now the equations of the last part, put together from modules.


# %%
class OurEncoder(nn.Module):
    """Tokens (N, L) of some lengths (N,) -> the summary (N, 2 hidden)."""

    def __init__(self, vocabulary, embedding, hidden):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=0)  # row 0 stays zero
        self.rnn = nn.GRU(embedding, hidden, batch_first=True, bidirectional=True)

    def forward(self, tokens, lengths):
        packed = nn.pack_padded_sequence(
            self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        _, (forward, backward) = self.rnn(packed)  # the last states, (2, N, hidden)
        return F.cat([forward, backward], 1)


class OurDecoder(nn.Module):
    """Tokens (N, T), each the one before, and a summary -> scores for the next (N, T, vocabulary)."""

    def __init__(self, vocabulary, embedding, hidden, summary):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=0)
        self.bridge = nn.Linear(summary, hidden)
        self.rnn = nn.GRU(embedding + summary, hidden, batch_first=True)
        self.readout = nn.Sequential(
            nn.Linear(hidden + summary + embedding, hidden),
            nn.Tanh(),
            nn.Linear(hidden, vocabulary),
        )

    def forward(self, tokens, summary):
        before = self.embedding(tokens)
        N, T, _ = before.shape
        c = summary.unsqueeze(1).expand(N, T, -1)
        s0 = F.tanh(self.bridge(summary))
        s, _ = self.rnn(F.cat([before, c], 2), s0.unsqueeze(0))
        return self.readout(F.cat([s, c, before], 2))


# %% [markdown]
# The first task for them: **write a word backwards**. It is easy to say and to check, and one must have
# kept all of the word. `reversal_pairs` makes words of nine letters; each batch has sources, their
# lengths, and targets. In the targets, token 1 is the start and 2 the end.

# %%
words = reversal_pairs(4, shortest=2, longest=5, generator=1)
source, lengths, target = next(iter(DataLoader(words, batch_size=4)))
print("pairs:  ", words.pairs)
print("source: ", *source.data, sep="\n")
print("target: ", *target.data, sep="\n")

# %% [markdown]
# Teacher forcing is a shift by one: the decoder is given the target without its last token, and is to
# say the target without its first. Where that is padding, nothing is to be said: `ignore_index=0`.
#
# The library's `Encoder` and `Decoder` do the same with the same weights. (Its encoder also returns the
# states after all elements, its *memory*, of `memory_size` features each. Lesson 10 needs them.)


# %%
def loss_of(scores, target):
    """Cross-entropy of scores (N, T - 1, K) for a target (N, T), the mean over its tokens."""
    K = scores.shape[-1]
    return F.cross_entropy(scores.reshape(-1, K), target[:, 1:].reshape(-1), ignore_index=0)


# %%
mt.manual_seed(0)
library = Seq2Seq(Encoder(12, 4, 6), Decoder(12, 4, 6, memory_size=12))
encoder, decoder = OurEncoder(12, 4, 6), OurDecoder(12, 4, 6, summary=12)
encoder.load_state_dict(library.encoder.state_dict())
decoder.load_state_dict(library.decoder.state_dict())

scores = decoder(target[:, :-1], encoder(source, lengths))
expected = library(source, target[:, :-1], lengths)
print("scores:", scores.shape, " the library agrees:", np.allclose(scores.data, expected.data))
print(f"loss {loss_of(scores, target).item():.2f}, of a blind guess {np.log(12):.2f}")

# %% [markdown]
# Left alone, the decoder goes step by step: the library's `start` reads the source, and `step` takes the
# tokens that were written last, one for each sequence, and a state, and returns scores and the next
# state. Greedy decoding is then a short loop. It goes on behind the end; `decode`, which makes words of
# tokens, stops there.


# %%
def greedy(model, source, longest):
    """Write a target for each source (N, L): tokens (N, longest), each the most probable one."""
    with mt.no_grad():
        state = model.start(source)
        token = np.full(len(source), 1)  # the start
        written = []
        for _ in range(longest):
            scores, state = model.step(token, state)
            token = scores.data.argmax(axis=1)
            written.append(token)
    return np.stack(written, axis=1)


tokens = greedy(library, source, 6)
print("an untrained model writes", words.target_vocabulary.decode(tokens))

# %% [markdown]
# ## The gradient check
#
# The rules of the recurrent network, in float64 and for a random `dy` (lesson 03):

# %%
report = mt.check_vjp(rnn, x, w_ih, w_hh)
print(report)
print(mt.check_vjp(lstm_step, rng.normal(size=(2, 12)), rng.normal(size=(2, 3))))

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 3. The gradient of all six elements of both sequences, and of both weights, through six steps:
# the error is dark throughout.*
#
# And now a mistake: the walk backwards does not carry `dh` along. Each step learns from its own output
# alone.


# %%
def without_the_way_back(x, w_ih, w_hh):
    y, _ = rnn(x, w_ih, w_hh)
    h = np.concatenate([np.zeros_like(y[:, :1]), y], axis=1)

    def of_each_step_alone(dy):
        return dy * (1 - y**2)

    def vjp_x(dy):
        return of_each_step_alone(dy) @ w_ih

    def vjp_w_ih(dy):
        return np.einsum("nld,nli->di", of_each_step_alone(dy), x)

    def vjp_w_hh(dy):
        return np.einsum("nld,nle->de", of_each_step_alone(dy), h[:, :-1])

    return y, (vjp_x, vjp_w_ih, vjp_w_hh)


wrong = mt.check_vjp(without_the_way_back, x, w_ih, w_hh, raise_on_failure=False)
print(wrong)
error = np.abs(wrong.inputs[0].analytic - wrong.inputs[0].numeric)  # (N, L, D_in)
assert not wrong.ok and error[:, -1].max() < 1e-6 < 0.1 < error[:, :-1].max(axis=(0, 2)).min()

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 4. In the error of `x`, where a row is an element and the two sequences stand side by side, the
# last row alone is dark: after the last element nothing comes, so nothing is missing there. All
# earlier elements lack what they did to later states.*

# %% [markdown]
# ## At work
#
# ### How far a gradient reaches
#
# Fresh cells, 64 features wide, read 50 random elements. Fresh weights are uniform between $-1/\sqrt{D}$ and
# $1/\sqrt{D}$, as in PyTorch. A random gradient is put in at the last state, and we measure its norm at the
# state $k$ steps before (for an LSTM, at its memory $c$), for five seeds. Two LSTMs have the bias of the forget
# gate set, to 1 and to 3: $\sigma(1) = 0.73$, $\sigma(3) = 0.95$. And two RNNs have for $W_{hh}$ an orthogonal
# matrix, all of whose singular values are 1, times 1 and times 1.5.


# %%
def lstm_cell(forget_bias):
    cell = nn.LSTMCell(16, 64)
    with mt.no_grad():
        cell.bias_ih[64:128] = forget_bias  # the parts are those of i, f, g, o
    return cell


def orthogonal_rnn_cell(gain):
    cell = nn.RNNCell(16, 64)
    q, _ = np.linalg.qr(mt.randn(64, 64).data)
    with mt.no_grad():
        cell.weight_hh.copy_(gain * q)
    return cell


CELLS = {
    "RNN": lambda: nn.RNNCell(16, 64),
    "GRU": lambda: nn.GRUCell(16, 64),
    "LSTM": lambda: nn.LSTMCell(16, 64),
    "LSTM, bias 1": lambda: lstm_cell(1.0),
    "LSTM, bias 3": lambda: lstm_cell(3.0),
    "RNN, orthogonal": lambda: orthogonal_rnn_cell(1.0),
    "RNN, 1.5 orthogonal": lambda: orthogonal_rnn_cell(1.5),
}


def norms_back_in_time(make, seed):
    """Norm of the gradient 0, 1, ..., 49 steps before the last, relative to the first."""
    mt.manual_seed(seed)
    cell, state, kept = make(), None, []
    for _ in range(50):
        state = cell(mt.randn(1, 16), state)
        kept.append(state[1] if isinstance(state, tuple) else state)
        kept[-1].retain_grad()
    kept[-1].backward(mt.randn(1, 64))
    norms = np.array([np.linalg.norm(h.grad.data) for h in reversed(kept)])
    return norms / norms[0]


reach = {
    name: np.exp(np.mean([np.log(norms_back_in_time(make, seed)) for seed in range(5)], axis=0))
    for name, make in CELLS.items()
}
print("powers of ten left after 10 and 40 steps:")
for name, norms in reach.items():
    print(f"{name:20} {round(np.log10(norms[10])):3} {round(np.log10(norms[40])):4}")

mt.manual_seed(0)
singular_values = np.linalg.svd(nn.RNNCell(16, 64).weight_hh.data, compute_uv=False)
typical = np.sqrt(np.mean(singular_values**2))
print(f"W_hh of a fresh RNN lengthens a vector {singular_values[0]:.1f} times at most,", end=" ")
print(f"a random one {typical:.1f} times")
assert singular_values[0] > 1 and 0.5 < typical < 0.65
assert reach["RNN"][40] < 1e-8 and reach["LSTM"][40] < 1e-6 and reach["GRU"][40] < 1e-6
assert reach["LSTM"][40] < reach["LSTM, bias 1"][40] < reach["LSTM, bias 3"][40]
assert 0.1 < reach["LSTM, bias 3"][40] < 10 and 1 < reach["RNN, 1.5 orthogonal"][49] < 100

# %%
figure, ax = viz.panels(1, 1, height=4)
for (name, norms), colour in zip(reach.items(), viz.COLOURS, strict=True):
    ax.semilogy(norms, color=colour, linestyle="--" if "orthogonal" in name else "-", label=name)
ax.set(xlabel="steps back in time", ylabel="norm of the gradient", ylim=(1e-12, 1e2))
ax.legend(loc="lower left", fontsize=9, ncols=2)
figure

# %% [markdown]
# *Figure 5. Means over five seeds, on a logarithmic scale: a straight line that falls is exponential decay.
# The RNN loses more than a power of ten in every five steps.*
#
# The RNN's decay is exponential, although the largest singular value of its $W_{hh}$ is a little above 1 and
# the bound would allow growth: a gradient has a share in all directions, and most are shortened. The weights
# have the variance $1/(3D)$, so a random vector is left with $1/\sqrt3 = 0.58$ of its length; forty steps of
# that alone are nine to ten powers of ten, and the slopes of the tanh take the rest.
#
# But look at the LSTM: with the usual first weights its gradient vanishes **too**, and so does that of the
# GRU, though more slowly than that of the RNN. Their gates begin half open, at $\sigma(0) = 1/2$, and
# $\tfrac12 \cdot \tfrac12 \cdots$ vanishes as well. (Not quite as fast as that: a little comes back through the
# matrices, too.) The gates make the long path *possible*; whether it is there when training begins is decided,
# in an LSTM, by the forget gate's bias. With 3 the norm stays about the same for all 50 steps.
#
# An orthogonal $W_{hh}$ helps an RNN as far as the slopes of the tanh allow. Made 1.5 times as large it no
# longer vanishes, nor does it explode: the norm grows a few times in 50 steps, where $1.5^{49}$ would be more
# than eight powers of ten. The states have grown, too, and their slopes hold it back.

# %% [markdown]
# ### Does it matter? Read, wait, answer
#
# Back to the digits, read row by row. Now the question is asked at the end alone: at once, or after 20 blank
# rows have been read. Then the network must carry what it has seen over a long wait. Four layers with 32
# features, the same short training of 5 epochs for all, two seeds each.


# %%
class PatientReader(nn.Module):
    """Read the eight rows of an image, then some blank ones, and name the digit."""

    def __init__(self, rnn, blank_rows):
        super().__init__()
        self.rnn = rnn
        self.classes = nn.Linear(rnn.hidden_size, 10)
        self.blank = mt.zeros(1, blank_rows, 8)

    def forward(self, x):
        rows = x.squeeze(1)
        if self.blank.shape[1]:
            rows = F.cat([rows, self.blank.expand(len(x), -1, -1)], 1)
        states, _ = self.rnn(rows)
        return self.classes(states[:, -1])


def open_lstm():
    layer = nn.LSTM(8, 32, batch_first=True)
    with mt.no_grad():
        layer.bias_ih_l0[32:64] = 3.0
    return layer


LAYERS = {
    "RNN": lambda: nn.RNN(8, 32, batch_first=True),
    "GRU": lambda: nn.GRU(8, 32, batch_first=True),
    "LSTM": lambda: nn.LSTM(8, 32, batch_first=True),
    "LSTM, bias 3": open_lstm,
}


def patience(make, blank_rows, seed):
    mt.manual_seed(seed)
    model = PatientReader(make(), blank_rows)
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    loader = DataLoader(train, batch_size=64, shuffle=True, generator=seed)
    fit(model, loader, optimizer=optimizer, epochs=5, clip_grad=1.0, progress=False)
    return 100 * evaluate(model, DataLoader(test, batch_size=500))["accuracy"]


at_once = {name: [patience(make, 0, seed) for seed in (0, 1)] for name, make in LAYERS.items()}
after_20 = {name: [patience(make, 20, seed) for seed in (0, 1)] for name, make in LAYERS.items()}
for name in LAYERS:
    runs = "  ".join(f"{run:.0f} %" for run in at_once[name])
    remembering = sum(run > 30 for run in after_20[name])
    print(f"{name:13} at once {runs}   after the wait {remembering} of 2 runs above 30 %")

assert min(map(min, at_once.values())) > 75
assert np.mean(at_once["RNN"]) == max(map(np.mean, at_once.values()))
assert np.mean(at_once["LSTM, bias 3"]) == min(map(np.mean, at_once.values()))
assert max(after_20["RNN"] + after_20["LSTM"]) < 28
assert min(after_20["GRU"]) > 32 and min(after_20["LSTM, bias 3"]) > 45

# %%
figure, axes = viz.panels(1, 2, height=3)
for ax, runs, title in zip(axes, (at_once, after_20), ("asked at once", "after 20 blank rows")):
    viz.plot_arms(runs, label="accuracy, %", ax=ax)
    ax.axvline(10, color="grey", linestyle=":")
    ax.set(title=title, xlim=(0, 100))
figure

# %% [markdown]
# *Figure 6. A dot is a seed, the dotted line a guess, 10 %. Left: asked at once, all four read digits; the
# plain RNN does it as well as any, and the LSTM with the open forget gate worst. Right: after the wait the order is
# another. The LSTM as it comes does no better than a guess, and the RNN little better; with the forget gate
# opened beforehand, the same LSTM remembers.*
#
# For the RNN and the two LSTMs that is what Figure 5 made one expect. The GRU does better than its curve there:
# first weights are the start of a training, and not all of it. (After as many steps as these a training ends a
# little differently on another processor; so the print says only which runs are above 30 %.)

# %% [markdown]
# ### The bottleneck: accuracy over length
#
# Now the encoder and the decoder. Whatever the source's length, the decoder is told of it by *one*
# summary of a fixed size. For how long a word is that enough? Three models, each trained for 300 batches on
# words of 2 to 10 letters: two that write words **backwards**, with states of 16 and of 48 features (and so
# summaries of 32 and of 96); and one with 48 that **sorts** the letters. To sort, nine counts are all one must
# keep; the order of the letters may be forgotten.


# %%
def train_model(pairs, hidden, seed=0):
    mt.manual_seed(seed)
    encoder = Encoder(len(pairs.source_vocabulary), 16, hidden)
    decoder = Decoder(len(pairs.target_vocabulary), 16, hidden, encoder.memory_size)
    model = Seq2Seq(encoder, decoder)
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    for source, lengths, target in DataLoader(pairs, batch_size=32, generator=seed):
        optimizer.zero_grad()
        loss_of(model(source, target[:, :-1], lengths), target).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def exact(model, pairs):
    """Share of pairs, in %, whose target is written without a mistake."""
    sources, targets = zip(*pairs.pairs)
    tokens = greedy(model, pairs.source_vocabulary.encode(sources), len(targets[0]) + 1)
    written = pairs.target_vocabulary.decode(tokens)
    return 100 * np.mean([ours == right for ours, right in zip(written, targets)])


TASKS = {
    "backwards, 16 features": (reversal_pairs, 16),
    "backwards, 48 features": (reversal_pairs, 48),
    "sorted, 48 features": (sorting_pairs, 48),
}
LENGTHS = range(2, 13, 2)
models, by_length = {}, {}
for name, (make_pairs, hidden) in TASKS.items():
    models[name] = train_model(make_pairs(300 * 32, 2, 10, generator=0), hidden)
    unseen = [make_pairs(200, length, length, generator=1000 + length) for length in LENGTHS]
    by_length[name] = np.array([exact(models[name], pairs) for pairs in unseen])

print(f"{'letters':22}", *(f"{length:5}" for length in LENGTHS))
for name, shares in by_length.items():
    print(f"{name:22}", *(f"{share:3.0f} %" for share in shares))

small, large, ordered = by_length.values()
assert small[0] > 95 and large[0] > 95 and small[-1] == large[-1] == 0
assert (large[1:4] > small[1:4]).all() and (ordered[2:5] > large[2:5] + 20).all()

# %%
figure, ax = viz.panels(1, 1, width=7, height=3.4)
for (name, shares), colour in zip(by_length.items(), viz.COLOURS):
    ax.plot(LENGTHS, shares, color=colour, marker="o", label=name)
ax.axvspan(10, 12.3, color="#EEEEEE")
ax.text(11.15, 60, "longer than\nin training", ha="center", fontsize=9)
ax.set(xlabel="letters in the word", ylabel="written without mistake, %", xlim=(1.7, 12.3))
ax.set_xticks(LENGTHS)
ax.legend(loc="lower left", fontsize=9)
figure

# %% [markdown]
# *Figure 7. Of the words of 2 letters all or nearly all come out right; with every letter more the share falls.
# In the larger model, with its larger summary, it falls at longer words. The control, green, is of the same size:
# to sort, less must be kept, and of words as long many more come out right.*
#
# Ten letters are not too many to write: the sorted words have ten, too. What differs is how much of the source the
# summary must hold. (300 batches are few. With three times as many each curve falls at words a few letters
# longer; but all still fall, and in the same order.)

# %% [markdown]
# ### The long way
#
# A letter of the source can be learned from only as far as a gradient comes to it. A fresh model, and
# words of 40 letters: how large is the gradient of the loss with respect to the embedding of each?

# %%
mt.manual_seed(0)
fresh = Seq2Seq(Encoder(12, 16, 48), Decoder(12, 16, 48, memory_size=96))
source, lengths, target = next(iter(DataLoader(reversal_pairs(32, 40, 40, generator=0), 32)))
embedded = []


def keep_gradient(module, inputs, output):
    output.retain_grad()
    embedded.append(output)


handle = fresh.encoder.embedding.register_forward_hook(keep_gradient)
loss_of(fresh(source, target[:, :-1], lengths), target).backward()
handle.remove()
norms = np.linalg.norm(embedded[0].grad.data, axis=(0, 2))  # one for each of the 40 places
assert norms[18:22].max() < 1e-3 * min(norms[0], norms[-1])

# %%
figure, ax = viz.panels(1, 1, width=7, height=2.8)
ax.semilogy(range(1, 41), norms, color=viz.COLOURS[0], marker="o", markersize=4)
ax.set(xlabel="place in the source", ylabel="norm of the gradient")
figure

# %% [markdown]
# *Figure 8. The gradient is largest at both ends and, on this logarithmic scale, falls in straight lines to
# the middle, where less than a thousandth is left.*
#
# The first letter is the last one that the encoder's backward direction reads, and the last letter the last
# one of the forward direction: those two are close to the summary. What stands in the middle is twenty steps
# away from it, in both directions.
#
# These are the **two problems** of this design: one summary of a fixed size, and a way to it that is as long
# as the sequence.

# %% [markdown]
# ### Given the right token, and given its own
#
# In training the decoder never sees a mistake of its own. On words of eight letters, is each letter
# right when the ones before are the *right* ones, and when they are what it *wrote* itself?

# %%
model, pairs = models["backwards, 48 features"], reversal_pairs(300, 8, 8, generator=77)
sources, targets = zip(*pairs.pairs)
source = pairs.source_vocabulary.encode(sources)
target = pairs.target_vocabulary.encode(targets, framed=True)
with mt.no_grad():
    forced = model(source, target[:, :-1]).data.argmax(axis=2)
free = greedy(model, source, 9)
right = {
    "given the right ones": 100 * (forced == target[:, 1:]).mean(axis=0),
    "given its own": 100 * (free == target[:, 1:]).mean(axis=0),
}
for name, shares in right.items():
    print(f"{name:21} first letter {shares[0]:.0f} %, all on average {shares.mean():.0f} %")
given, own = right.values()
assert given[0] == own[0] and given.mean() > own.mean() + 5

# %%
figure, ax = viz.panels(1, 1, width=7, height=3)
for (name, shares), colour in zip(right.items(), viz.COLOURS):
    ax.plot(range(1, 10), shares, color=colour, marker="o", label=name)
ax.set(xlabel="place in the target (9 is the end)", ylabel="right tokens, %", ylim=(0, 100))
ax.legend(loc="lower left", fontsize=9)
figure

# %% [markdown]
# *Figure 9. For the first letter both are the same task. From then on a mistake of its own leads the decoder to
# where training never took it, and fewer of the letters after it come out right.*
#
# That it was trained on right beginnings alone is called *exposure bias*; the gap is what it costs. It is why a
# sequence model must always be judged by what it writes on its own.

# %% [markdown]
# ## Paper and code
#
# | | papers | PyTorch | here |
# |---|---|---|---|
# | LSTM | 1997: no forget gate; it came in 2000 | forget gate; two biases; gates in the order $i, f, g, o$ | as PyTorch |
# | forget gate's bias | positive (Gers 2000), 1 (Jozefowicz 2015) | about 0 | about 0; to be set by hand, as above |
# | GRU, reset | Cho 2014: $W_{hn} (r \odot h)$, before the matrix | $r \odot (W_{hn} h)$, after it, as cuDNN needs it | as PyTorch |
# | GRU, update | Bahdanau and Chung: $h' = (1-z) h + z n$; Cho: the other way | $h' = (1-z) n + z h$ | as PyTorch |
# | encoder | Sutskever 2014: four LSTM layers, the source reversed; Cho 2014: one GRU | (has none) | one GRU, both directions |
# | summary | Sutskever: the decoder's first state alone; Cho: first state, and given at every step | (has none) | first state and every step |
#
# Other libraries put the parts in another order (Keras those of a GRU as $z, r, n$), so weights that are
# carried over must be rearranged. Sutskever's reversal of the source is a remedy for the long way: the
# first words of source and target come close together.

# %% [markdown]
# ## Predict before you run
#
# **1.** An RNN without tanh is linear: $h_t = h_{t-1} W$. For which $W$ does the gradient neither vanish nor
# explode, whatever its direction?

# %%
q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))
dh = np.ones(8)
for name, matrix in {"q": q, "0.9 q": 0.9 * q, "1.1 q": 1.1 * q}.items():
    back = dh @ np.linalg.matrix_power(matrix.T, 50)
    print(
        f"{name:6} norm after 50 steps: {np.linalg.norm(back) / np.linalg.norm(dh):.3f} of the first"
    )

# %% [markdown]
# <details><summary>Answer</summary>
#
# For an orthogonal one, whose singular values are all 1: it turns a vector and keeps its length. A tenth
# less or more, and 50 steps leave a two-hundredth of it, or make it more than a hundred times as long.
#
# </details>
#
# **2.** How many parameters has an LSTM from 32 to 64 features, and how many a GRU? In which ratio?

# %%
counts = {
    name: sum(p.numel() for p in layer(32, 64).parameters())
    for name, layer in {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}.items()
}
print(counts)

# %% [markdown]
# <details><summary>Answer</summary>
#
# $G \cdot 64 \cdot (32 + 64 + 2)$ with $G = 1, 3, 4$ parts a step: two weights and two biases each. So the GRU has
# three quarters of the LSTM's.
#
# </details>
#
# **3.** The model that writes backwards gets two words that differ in their first letter alone. Can the
# first token that it writes be another one?

# %%
pair = reversal_pairs(1, 8, 8, generator=5).source_vocabulary.encode(["abcdefgh", "ibcdefgh"])
model = models["backwards, 48 features"]
state = model.start(pair)
scores, _ = model.step([1, 1], state)
print("summaries differ:   ", not np.allclose(state["context"].data[0], state["context"].data[1]))
print("first scores differ:", not np.allclose(scores.data[0], scores.data[1]))

# %% [markdown]
# <details><summary>Answer</summary>
#
# It can: the scores do differ. Everything the decoder learns of the source comes
# through the summary, in which all letters are mixed. That the first letter written depends on the last
# one read, and on no other, is something it must learn.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`09_seq2seq`](../exercises/09_seq2seq.ipynb):
#
# 1. **rnn_forward**: all states of a recurrent network.
# 2. **rnn**: the same with its rules, back through time.
# 3. **lstm_step**: a step of an LSTM with its rules, and the carousel among them.
# 4. **sequence_loss**: teacher forcing's loss, without the padding.
# 5. **greedy**: let a decoder write on its own.
# 6. **GRUCell**: the module.

# %% [markdown]
# ## What to remember
#
# - A recurrent network applies the same step at every time; its gradient walks back through the
#   steps, and the weights' gradients are sums over time.
# - Each step back multiplies by a slope and a matrix: the gradient vanishes, or explodes,
#   exponentially. On the memory of an LSTM it multiplies by the forget gate alone: open it at the
#   start.
# - An encoder makes a summary, a decoder writes from it; it is trained with teacher forcing, and
#   judged by what it writes on its own.
# - Two problems are left: one summary of a fixed size for any length, and a way to it that is as long
#   as the sequence. Lesson 10 mends both at once.

# %% [markdown]
# ## Sources
#
# - J. L. Elman, *Finding Structure in Time*, Cognitive Science 14, 1990.
# - S. Hochreiter, J. Schmidhuber, *Long Short-Term Memory*, Neural Computation 9, 1997: the carousel,
#   sections 3 and 4. F. A. Gers, J. Schmidhuber, F. Cummins, *Learning to Forget*, Neural Computation
#   12, 2000: the forget gate.
# - R. Jozefowicz, W. Zaremba, I. Sutskever, *An Empirical Exploration of Recurrent Network
#   Architectures*, ICML 2015: the forget gate's bias.
# - K. Cho et al., *Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
#   Translation*, EMNLP 2014: the GRU, and the summary at every step.
# - I. Sutskever, O. Vinyals, Q. V. Le, *Sequence to Sequence Learning with Neural Networks*, NIPS 2014.
# - D. Bahdanau, K. Cho, Y. Bengio, *Neural Machine Translation by Jointly Learning to Align and
#   Translate*, ICLR 2015: the encoder that reads in both directions. J. Chung, C. Gulcehre, K. Cho, Y. Bengio,
#   *Empirical Evaluation of Gated Recurrent Neural Networks on Sequence Modeling*, 2014.
# - R. J. Williams, D. Zipser, *A Learning Algorithm for Continually Running Fully Recurrent Neural
#   Networks*, Neural Computation 1, 1989: teacher forcing.
# - M. Ranzato, S. Chopra, M. Auli, W. Zaremba, *Sequence Level Training with Recurrent Neural
#   Networks*, ICLR 2016: exposure bias.
# - R. Pascanu, T. Mikolov, Y. Bengio, *On the Difficulty of Training Recurrent Neural Networks*, ICML
#   2013: why gradients vanish and explode, and how to clip them.
