# %% [markdown]
# # 26 · Spatial and channel-wise attention for captions (SCA-CNN)
#
# A network that describes a picture in words, and looks at it anew before each word: at places, and at
# kinds of features.
#
# **You will be able to**
#
# - derive soft attention and SCA-CNN's two attentions from one layer, forward and backward, and say by
#   which two paths a gradient reaches the picture;
# - build a decoder that looks while it writes, train it on real digits, and judge it by exact match, BLEU
#   and CIDEr;
# - find out, by taking one attention away at a time, which of them a trained network uses.
#
# **You need** lessons 09 and 10 (decoders, additive attention, BLEU) and 13 (weights for channels).
#
# **Time** about 60 minutes, and as long again for the exercises.

# %%
import math

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import SCAAttention
from minitorch_attn.data import DataLoader, captioned_digits, cluttered_digits
from minitorch_attn.metrics import bleu, cider, exact_match
from minitorch_attn.models import (
    CaptionDecoder,
    Captioner,
    Coordinates,
    SCALayers,
    SoftAttention,
    beam_search,
    greedy_decode,
)
from minitorch_attn.nn.utils import clip_grad_norm_
from minitorch_attn.training import fit
from minitorch_attn.viz.maps import draw_overlay

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# Each picture shows two handwritten digits, and has a caption. Of the 200 captions that there are, 40 are
# kept for testing: a network must put them together from parts, as it has never been told one of them.

# %%
SIZE = 20
train_data = captioned_digits(2000, size=SIZE, generator=0)
test_data = captioned_digits(400, train=False, size=SIZE, generator=1)
WORDS = train_data.vocabulary
assert not set(train_data.captions) & set(test_data.captions)
viz.show_images(test_data.images[:5], test_data.captions[:5], columns=5)

# %% [markdown]
# *Figure 1. Five pictures for testing. Of two digits the left one, or the upper one, is named first.*
#
# First, a network must see digits. As in the papers, it is trained to *classify*, on pictures of one digit
# among pieces of others (`cluttered_digits`), and then left as it is. Its maps have $5 \times 5$ places of
# 32 channels. An attention does not know where a place is, it sees only what is there (lesson 18); so two
# channels more say how far down and how far right it is (`Coordinates`), in numbers from -4 to 4, so that two
# channels are heard among 34.


# %%
def convolution(channels_in, channels_out, kernel):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


mt.manual_seed(0)
trunk = nn.Sequential(
    convolution(1, 16, 3), nn.MaxPool2d(2), convolution(16, 32, 3), nn.MaxPool2d(2), Coordinates(4)
)
last = nn.Sequential(convolution(34, 32, 1), Coordinates(4))
classifier = nn.Sequential(trunk, last, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(34, 10))
single = cluttered_digits(2000, size=16, digit=8, clutter=2, generator=0)
batches = DataLoader(single, batch_size=50, shuffle=True, generator=0)
optimizer = optim.Adam(classifier.parameters(), lr=0.01)
history = fit(
    classifier,
    batches,
    optimizer=optimizer,
    epochs=6,
    scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, 6 * len(batches)),
    scheduler_every="batch",
    progress=False,
)
classifier.eval()
for parameter in classifier.parameters():
    parameter.requires_grad = False
print(f"digits known in training: {100 * history['train_accuracy'][-1]:.0f} %")
assert history["train_accuracy"][-1] > 0.95


def maps_of(data):
    """Maps of all pictures, in front of the last convolution and behind it, (N, 34, 5, 5) each."""
    images, _ = data.batch(np.arange(len(data)), None)
    with mt.no_grad():
        low = [trunk(mt.tensor(part)) for part in np.split(images, len(data) // 200)]
        high = [last(part) for part in low]
    return np.concatenate([m.data for m in low]), np.concatenate([m.data for m in high])


train_maps, test_maps = (
    dict(zip(("low", "high"), maps_of(data), strict=True)) for data in (train_data, test_data)
)
print("a picture is a map of", train_maps["high"].shape[1:])

# %% [markdown]
# A decoder, an LSTM, writes the caption. The library's `Captioner` is such a network. It is trained as in
# lesson 09 (teacher forcing), on maps that are made once and for all. Before each word it looks at the map,
# by an `SCAAttention` that weighs the 34 channels, and then the 25 places. Its weights for the places we can
# lay over the picture.

# %%
C, D, A, EMBEDDING, STEPS = 34, 32, 16, 16, 250
tokens = WORDS.encode(train_data.captions, framed=True)


def train(look, seed=0, level="high"):
    """A captioner with some look, trained on 250 batches of 48 pictures."""
    mt.manual_seed(seed)
    model = Captioner(nn.Identity(), CaptionDecoder(len(WORDS), EMBEDDING, D, C, look()))
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = optim.Adam(learned, lr=0.012)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    rng = np.random.default_rng(seed)
    for _ in range(STEPS):
        chosen = rng.integers(len(tokens), size=48)
        x, target = train_maps[level][chosen], tokens[chosen]
        optimizer.zero_grad()
        scores = model(x, target[:, :-1]).reshape(-1, len(WORDS))
        F.cross_entropy(scores, target[:, 1:].reshape(-1), ignore_index=0).backward()
        clip_grad_norm_(learned, 1.0)
        optimizer.step()
        scheduler.step()
    return model


def sca(order):
    return SCALayers(SCAAttention(C, D, A, order), features=C)


captioner = train(lambda: sca("channel_spatial"))


# %%
def watch(model, module, x):
    """What a captioner writes for maps x, and what a module of it gives at each word (N, T, ...)."""
    seen = []
    with module.register_forward_hook(lambda module, inputs, output: seen.append(output.data)):
        texts = WORDS.decode(greedy_decode(model, x, max_length=8))
    return texts, np.stack(seen, axis=1)


def places(model):
    """The module that makes the weights of the places."""
    look = model.decoder.look
    return (
        look.attention.softmax
        if isinstance(look, SoftAttention)
        else look.attentions[-1].spatial.weights
    )


def share_on(boxes, weights):
    """Share of weights (T, 25) that lies on a box (top, left, height, width): (T,)."""
    centre = 4 * np.arange(5) + 1.5
    top, left, height, width = boxes
    down = (centre > top - 1) & (centre < top + height)
    right = (centre > left - 1) & (centre < left + width)
    return weights.reshape(-1, 5, 5)[:, down][:, :, right].sum(axis=(1, 2))


texts, weights = watch(captioner, places(captioner), test_maps["high"])


def right_of(texts):
    return np.array(
        [text == caption for text, caption in zip(texts, test_data.captions, strict=True)]
    )


def looks_at_named(weights, n):
    """Share of the look that lies on the first digit when it is named, and on the second."""
    words = test_data.captions[n].split()
    first, second = test_data.boxes[n]
    return share_on(first, weights[n])[1], share_on(second, weights[n])[len(words) - 1]


def draw_looks(row, image, maps, words=None):
    """A picture for each word, with the weights (T, 25) before it laid over it."""
    for t, ax in enumerate(row):
        if t < len(maps):
            draw_overlay(ax, image / 255, maps[t].reshape(5, 5), 0, 0.5)
        else:
            ax.set_axis_off()
        if words is not None and t < len(words):
            ax.set_title(words[t])


is_right = right_of(texts)
shown = [n for n in range(100) if is_right[n] and min(looks_at_named(weights, n)) > 0.5][:2]
figure, axes = viz.panels(2, 7, height=3.2)
for n, row in zip(shown, axes, strict=True):
    words = [*texts[n].split(), "(end)"]
    draw_looks(row, test_data.images[n, 0], weights[n, : len(words)], words)
assert len(shown) == 2 and all(min(looks_at_named(weights, n)) > 0.5 for n in shown)
figure

# %% [markdown]
# *Figure 2. Two pictures that were described rightly, and where the network looked before each word: bright
# is a large weight (0.5 and more). When a digit is named it looks at this digit. (These are the first two with more
# than half of the look there; all 400 pictures are counted further down.) Nobody has told it where the digits are,
# or that a word has a place.*

# %% [markdown]
# ## The equations
#
# ### A decoder that looks
#
# A convolutional network makes a map $x$ of the picture: $C$ channels, $L = HW$ places; $x_j$ are the $C$
# numbers of place $j$, and $\bar x$ is their mean. The decoder writes words $y_1, y_2, \dots$ With $E y$ the
# features of a word, $h$ and $c$ the state and the memory of an LSTM (lesson 09), and $W_h$, $W_c$, $L_o$,
# $L_h$, $L_z$ linear maps:
#
# $$h_0 = \tanh(W_h \bar x), \quad c_0 = \tanh(W_c \bar x), \qquad
# z_t = \mathrm{look}(x, h_{t-1})$$
#
# $$h_t, c_t = \mathrm{LSTM}([E y_{t-1}; z_t], h_{t-1}, c_{t-1}), \qquad
# p(y_t) = \mathrm{softmax}\bigl(L_o (E y_{t-1} + L_h h_t + L_z z_t)\bigr)$$
#
# All decoders of this lesson are this one. They differ in the *look*.
#
# ### Three looks
#
# **None.** $z_t = \bar x$, for every word the same.
#
# **Soft attention** (*Show, attend and tell*): additive attention of lesson 10 with the places as memory, and a
# gate, one number a word, that says how much the picture counts for this word:
#
# $$e_j = w^\top \tanh(U x_j + b + V h), \qquad \alpha = \mathrm{softmax}(e), \qquad
# z = \sigma(w_\beta^\top h + b_\beta) \sum_j \alpha_j\, x_j$$
#
# with $A$ hidden units: $U: (A, C)$, $V: (A, D)$, $w: (A)$. The map is averaged away; $z$ has no places any more.
#
# **SCA-CNN** keeps the map. It *weighs* it, and hands it on to the next layers of the network. Its weights for
# places are those of soft attention (with letters of their own), and $x_j$ becomes $\alpha_j x_j$. And a channel
# has a weight, too. The channel $c$ is known by its mean $m_c$ over the places, one number; with $u, b': (A)$,
# $V': (A, D)$, $w': (A)$
#
# $$m_c = \frac1L \sum_j x_{cj}, \qquad e_c = w'^\top \tanh(u\, m_c + b' + V' h), \qquad
# \beta = \mathrm{softmax}_c(e), \qquad x_{cj} \mapsto \beta_c\, x_{cj}$$
#
# $u$ is the same for all channels. So a channel has no name here: two channels of the same mean get the same
# weight.
#
# **Order.** C-S first weighs channels, and makes the weights of the places from what comes out of it. S-C
# goes the other way round.
#
# **Scale.** The weights add up to 1, so on average a channel is divided by $C$, and a place by $L$. After
# both the map is smaller by a factor of $CL$, and the layers behind, which expect numbers of the old size,
# see next to nothing. So the authors' program multiplies by the number of weights: equal weights then change
# nothing.
#
# ### One layer for both
#
# Both attentions do the same thing with $M$ *items*: an item $x_m$ is weighed, in the light of the state, by what
# it is known by, its *key* $k_m$:
#
# $$p_m = U k_m + b + V h, \quad a_m = \tanh p_m, \quad e_m = w^\top a_m, \quad
# \alpha = \mathrm{softmax}(e), \quad y_m = M\, \alpha_m\, x_m$$
#
# | | items $x_m$ | their keys $k_m$ | $M$ |
# |---|---|---|---|
# | spatial | the places, $C$ numbers each | the same $C$ numbers | $L$ |
# | channel | the channels, $L$ numbers each | their mean, 1 number | $C$ |
#
# And soft attention is a special case. The mean over the places of what spatial attention gives is
#
# $$\frac1L \sum_j L\, \alpha_j\, x_j = \sum_j \alpha_j\, x_j$$
#
# its context, up to the gate. So *spatial SCA, then a mean* is soft attention. What SCA-CNN adds is that layers
# may stand behind the weighed map, with another attention there (*multi-layer*), and channels.

# %% [markdown]
# ### Backward
#
# $dy$ comes in. From the last equation to the first:
#
# **Product.** $y_m = M \alpha_m x_m$, and by the product rule each factor gets $dy_m$ times the other.
# $\alpha_m$ is one number for a whole item, so its shares are added up, an inner product:
#
# $$dx_m = M\, \alpha_m\, dy_m, \qquad d\alpha_m = M\; x_m \cdot dy_m$$
#
# **Softmax** (lesson 10): $\; de_m = \alpha_m \bigl(d\alpha_m - \sum_n \alpha_n\, d\alpha_n\bigr)$.
#
# **Scores.** $e_m = w^\top a_m$ and $a_m = \tanh p_m$, whose slope is $1 - a_m^2$:
#
# $$dw = \sum_m de_m\, a_m, \qquad dp_m = de_m\; w \odot (1 - a_m^2)$$
#
# **Three linear shares.** $p_m = U k_m + b + V h$. $U$, $b$, $V$ and $h$ take part in every item, so their
# shares are added up; $k_m$ in its own alone:
#
# $$dk_m = U^\top dp_m, \qquad dU = \sum_m dp_m k_m^\top, \qquad db = \sum_m dp_m, \qquad
# dV = \Bigl(\sum_m dp_m\Bigr) h^\top, \qquad dh = V^\top \sum_m dp_m$$
#
# That is one picture. The pictures of a batch share $U$, $b$, $V$ and $w$, whose gradients are added up over
# them, too; $k_m$ and $h$ each picture has for itself.
#
# **Back to the map.** The map is item and key at once, and gets both gradients. Spatial, the key of a place
# is the place: $dx_j = L\, \alpha_j\, dy_j + U^\top dp_j$. Channel, the key is a mean, in which each place
# has a share of $1/L$:
#
# $$\boxed{\; dx_{cj} = \underbrace{C\, \beta_c\, dy_{cj}}_{\text{as what is weighed}} +
# \underbrace{\tfrac1L\, u^\top dp_c}_{\text{as what it is known by}} \;}$$
#
# The second part is the same at all places of a channel.
#
# $dh$ leads back into the decoder, to the words before: the question is learned, too.
#
# ### Parameters and cost
#
# Without the biases of the scores, which a softmax does not see, spatial attention has $A(C + D + 2)$
# parameters, channel attention $A(D + 3)$: few, as channels share $u$. Multiply-adds a word: $L A (C + 1) +
# AD$ and $2 C A + AD$. And every layer behind an attention runs anew for each word, where soft attention
# needs the network once a picture. That is SCA-CNN's price.

# %% [markdown]
# ## The code
#
# First as loops, for one picture after the other.


# %%
def weigh_loops(x, k, h, U, b, V, w):
    """Items x (N, M, ...), keys k (N, M, Dk), h (N, D) -> y, like x."""
    N, M, _ = x.shape
    y = np.zeros(x.shape)
    for n in range(N):
        e = []
        for m in range(M):
            a = [math.tanh(U[i] @ k[n, m] + b[i] + V[i] @ h[n]) for i in range(len(w))]
            e.append(sum(w[i] * a[i] for i in range(len(w))))
        total = sum(math.exp(score) for score in e)
        for m in range(M):
            y[n, m] = M * math.exp(e[m]) / total * x[n, m]
    return y


# %% [markdown]
# Then with whole arrays, as a primitive. The rules are those above; what they share is `back_to_e` and
# `back_to_p`.


# %%
def weigh(x, k, h, U, b, V, w):
    """x (N, M, F), k (N, M, Dk), h (N, D), U (A, Dk), b (A,), V (A, D), w (A,) -> y, and seven rules."""
    M = x.shape[1]
    a = np.tanh(k @ U.T + b + (h @ V.T)[:, None])  # (N, M, A)
    e = a @ w
    alpha = np.exp(e - e.max(axis=1, keepdims=True))
    alpha /= alpha.sum(axis=1, keepdims=True)

    def back_to_e(dy):
        dalpha = M * (x * dy).sum(axis=2)
        return alpha * (dalpha - (alpha * dalpha).sum(axis=1, keepdims=True))

    def back_to_p(dy):
        return back_to_e(dy)[:, :, None] * w * (1 - a**2)

    def vjp_x(dy):
        return M * alpha[:, :, None] * dy

    def vjp_k(dy):
        return back_to_p(dy) @ U

    def vjp_h(dy):
        return back_to_p(dy).sum(axis=1) @ V

    def vjp_U(dy):
        return np.einsum("nma,nmd->ad", back_to_p(dy), k)

    def vjp_b(dy):
        return back_to_p(dy).sum(axis=(0, 1))

    def vjp_V(dy):
        return back_to_p(dy).sum(axis=1).T @ h

    def vjp_w(dy):
        return np.einsum("nm,nma->a", back_to_e(dy), a)

    return M * alpha[:, :, None] * x, (vjp_x, vjp_k, vjp_h, vjp_U, vjp_b, vjp_V, vjp_w)


# %%
rng = np.random.default_rng(0)
x, h = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5))  # 3 channels, 4 places
U, b, V, w = (rng.normal(size=shape) for shape in ((6, 3), 6, (6, 5), 6))
u, b2, V2, w2 = (rng.normal(size=shape) for shape in ((6, 1), 6, (6, 5), 6))


def spatial(x, h):
    """A map (N, C, L), its places weighed."""
    at_places = x.swapaxes(1, 2)
    return weigh(at_places, at_places, h, U, b, V, w)[0].swapaxes(1, 2)


def channel(x, h):
    """A map (N, C, L), its channels weighed."""
    return weigh(x, x.mean(axis=2, keepdims=True), h, u, b2, V2, w2)[0]


at_places = x.swapaxes(1, 2)
loops = weigh_loops(at_places, at_places, h, U, b, V, w)
print("loops and arrays agree:", np.allclose(spatial(x, h), loops.swapaxes(1, 2)))

# %% [markdown]
# The library's `SCAAttention` has the two attentions as `spatial` and `channel`. Both orders, with our
# weights in it:


# %%
def with_our_weights(order):
    module = SCAAttention(3, 5, 6, order)
    for part, weights in ((module.spatial, (U, b, V, w)), (module.channel, (u, b2, V2, w2))):
        part.map.weight.data, part.map.bias.data = weights[0], weights[1]
        part.state.weight.data, part.score.weight.data = weights[2], weights[3][None]
    return module


image = mt.tensor(x.reshape(2, 3, 2, 2))
for order, ours in (
    ("channel_spatial", spatial(channel(x, h), h)),
    ("spatial_channel", channel(spatial(x, h), h)),
):
    library = with_our_weights(order)(image, h).data.reshape(2, 3, 4)
    print(f"{order}: the library's agrees:", np.allclose(library, ours))

parts = with_our_weights("channel_spatial")
spatial_size, channel_size = (
    sum(p.numel() for p in part.parameters()) - 1 for part in (parts.spatial, parts.channel)
)  # without the bias of the scores
assert (spatial_size, channel_size) == (6 * (3 + 5 + 2), 6 * (5 + 3))

# %% [markdown]
# And soft attention is the spatial one with a mean behind it, its gate left out:

# %%
soft = SoftAttention(3, 5, 6, gate=False)
soft.attention.key.weight.data, soft.attention.query.bias.data = U, b
soft.attention.query.weight.data, soft.attention.score.weight.data = V, w[None]
print("the mean is soft attention:", np.allclose(spatial(x, h).mean(axis=2), soft(image, h).data))

# %% [markdown]
# ### In the decoder
#
# Teacher forcing, in full: as the look needs the state, it goes word by word. With the trained captioner's
# parts it gives the library's scores.


# %%
def teacher_forced(decoder, x, tokens):
    """Scores (N, T, K) for what follows each token of (N, T), by the parts of a decoder."""
    mean = x.mean(dim=(2, 3))
    h, c = F.tanh(decoder.first_state(mean)), F.tanh(decoder.first_cell(mean))
    scores = []
    for t in range(tokens.shape[1]):
        z = decoder.look(x, h)  # with the state before the word
        word = decoder.embedding(tokens[:, t])
        h, c = decoder.rnn(F.cat([word, z], 1), (h, c))
        scores.append(decoder.output(word + decoder.from_state(h) + decoder.from_look(z)))
    return F.stack(scores, 1)


x4, tokens4 = mt.tensor(train_maps["high"][:4]), mt.tensor(tokens[:4, :-1])
scores = teacher_forced(captioner.decoder, x4, tokens4)
print(
    "scores",
    scores.shape,
    "as the library's:",
    np.allclose(scores.data, captioner(x4, tokens4).data),
)

# %% [markdown]
# ## The gradient check
#
# The seven rules against central differences (lesson 03):

# %%
report = mt.check_vjp(weigh, x, x.mean(axis=2, keepdims=True), h, u, b2, V2, w2)
print(report)

# %% [markdown]
# Now channel attention as a function of map and state, in which the map takes both paths, and a mistake that is
# easily made: the mean is taken for a sum, and $1/L$ forgotten.


# %%
def channel_attention(x, h, *, share=None):
    """x (N, C, L), h (N, D) -> y (N, C, L), and the rules of both."""
    L = x.shape[2]
    share = 1 / L if share is None else share
    y, (vjp_item, vjp_k, vjp_h, *_) = weigh(x, x.mean(axis=2, keepdims=True), h, u, b2, V2, w2)

    def vjp_x(dy):
        return vjp_item(dy) + share * vjp_k(dy)  # (N, C, 1): for all places alike

    return y, (vjp_x, vjp_h)


def mean_taken_for_a_sum(x, h):
    return channel_attention(x, h, share=1.0)


assert mt.check_vjp(channel_attention, x, h).ok
wrong = mt.check_vjp(mean_taken_for_a_sum, x[:1], h[:1], raise_on_failure=False)
print(wrong)

# %%
viz.draw_gradcheck(wrong)

# %%
dy = rng.normal(size=(1, 3, 4))
_, (rule, _) = channel_attention(x[:1], h[:1])
_, (wrong_rule, _) = mean_taken_for_a_sum(x[:1], h[:1])
error = (wrong_rule(dy) - rule(dy))[0]  # (C, L)
assert [one.ok for one in wrong.inputs] == [False, True]
assert np.allclose(error, error[:, :1]) and np.abs(error).max() > 0.01

# %% [markdown]
# *Figure 3. Left the gradients by the rules, in the middle the measured ones, right the errors; for the map
# $x$, a row is a channel. The rule of $h$ is right. In the map's error each row has one colour: what is wrong
# is the same at all places of a channel, so it came through the mean.*

# %% [markdown]
# ## At work
#
# ### With and without
#
# Five looks, and else the same decoder, data, budget and seed: none; channel attention alone; soft attention;
# SCA, C-S; and C-S twice, in front of the last convolution and behind it (*two layers*: that convolution runs
# anew for each word). Judged is what they write by greedy decoding for the 400 test pictures: exact match,
# BLEU (lesson 10), and **CIDEr**, which was made for captions. It weighs an n-gram by the logarithm of how
# rare it is: with $N$ pictures, $\mathrm{df}$ of them with that n-gram in their references,
#
# $$g_\omega = \#_\omega \log \frac{N}{\mathrm{df}_\omega}$$
#
# so "a", which is said of every picture, counts nothing. Candidate and reference are such vectors, one for
# each length 1 to 4 of n-grams, compared by their cosine, averaged, times 10. (This is CIDEr-D, as it is
# usually computed; the exercises have the details.)


# %%
def two_layers():
    stages = (SCAAttention(C, D, A), last), SCAAttention(C, D, A)
    return SCALayers(*stages, features=C)


LOOKS = {
    "none": (lambda: None, "high"),
    "channel": (lambda: sca("channel"), "high"),
    "soft": (lambda: SoftAttention(C, D, A), "high"),
    "C-S": (None, "high"),  # trained at the top
    "two layers": (two_layers, "low"),
}
models = {
    name: captioner if name == "C-S" else train(look, level=level)
    for name, (look, level) in LOOKS.items()
}


def judge(texts):
    references = [[caption.split()] for caption in test_data.captions]
    candidates = [text.split() for text in texts]
    return (
        100 * exact_match(texts, test_data.captions),
        100 * bleu(candidates, references),
        cider(candidates, references),
    )


def describe(model, level="high", decode=greedy_decode):
    return WORDS.decode(decode(model, test_maps[level], max_length=8))


written = {name: describe(models[name], level) for name, (_, level) in LOOKS.items()}
outcomes = {name: judge(texts) for name, texts in written.items()}
print(f"{'look':12} exact   BLEU  CIDEr")
for name, (exact, b, c) in outcomes.items():
    print(f"{name:12} {exact:4.1f} % {b:5.1f} {c:6.2f}")

# %%
figure = viz.plot_arms({name: [exact] for name, (exact, *_) in outcomes.items()})
figure.axes[0].set_xlabel("captions without a mistake, %")
figure

# %%
with_places = [outcomes[name][0] for name in ("soft", "C-S", "two layers")]
assert max(outcomes["none"][0], outcomes["channel"][0]) < 35 < 50 < min(with_places)

# %% [markdown]
# *Figure 4. The share of test pictures that are described without a mistake, after one training each.*
#
# Without places, no look can do it: a mean says which digits there are, and nothing of their order, nor
# whether they stand beside or above one another. That leaves four captions for the same two digits, and about
# one picture in five is described rightly. Weights for channels change nothing about it: a channel is a kind
# of feature, and its mean has no place. With weights for places most captions are right.
#
# We have repeated all this with five other seeds, for classifier, pictures and captioner: none and channel
# 15 to 21 %, soft 67 to 85 %, C-S 62 to 87 %, two layers 78 to 85 %. That places are needed held every time. The
# rest of the order did not: two layers were first three times, and twice a little behind both others; soft
# attention was ahead of C-S three times and behind it twice. Where one look was learned badly, two layers still
# came to 78 % or more; where it was learned well, a second look won nothing. At this budget two layers are
# steadier, then, but not better, and they take two (C-S) to three times (soft) as long to train. Figure 4 alone,
# one run, would have told another story.
#
# ### Where it looks
#
# Soft attention and C-S, on one picture; for two layers the places of both.

# %%
seen = {"soft": watch(models["soft"], places(models["soft"]), test_maps["high"])[1], "C-S": weights}
for name, k in (("two layers, first", 0), ("two layers, second", 1)):
    module = models["two layers"].decoder.look.attentions[k].spatial.weights
    seen[name] = watch(models["two layers"], module, test_maps["low"])[1]

everywhere_right = np.logical_and.reduce(
    [right_of(written[name]) for name in ("soft", "C-S", "two layers")]
)
is_beside = np.array(["left" in caption for caption in test_data.captions])
one = np.flatnonzero(everywhere_right & is_beside)[0]
words = [*test_data.captions[one].split(), "(end)"]
figure, axes = viz.panels(4, len(words), height=5.0)
for k, (row, (name, maps)) in enumerate(zip(axes, seen.items(), strict=True)):
    draw_looks(row, test_data.images[one, 0], maps[one], words if k == 0 else None)
    row[0].set_ylabel(name.replace(", ", ",\n"))
assert all(np.allclose(maps[one].sum(axis=1), 1) for maps in seen.values())
figure

# %% [markdown]
# *Figure 5. One picture, a row for each attention, a column for each word: before it the network looked where
# it is bright.*
#
# One picture is an anecdote. For all 400: how much of the look lies on the first digit when that is named, and on
# the second when that is named? (About a fifth of the places lie on a digit.)

# %%
named = {
    name: np.mean([looks_at_named(maps, n) for n in range(len(test_data))], axis=0)
    for name, maps in seen.items()
}
for name, (first, second) in named.items():
    print(
        f"{name:19} on the digit that is named: first {100 * first:.0f} %, second {100 * second:.0f} %"
    )
assert min(min(named[name]) for name in ("soft", "C-S", "two layers, second")) > 0.5
assert max(named["two layers, first"]) < 0.5

# %% [markdown]
# Equal weights would put about 20 % there. The looks of soft attention, of C-S, and of the second of two
# layers are where they should be; the first of the two layers has learned something less plain, though its
# network writes best in this run. To be seen in a map is one thing, to be useful another.
#
# ### What it looks for
#
# The other half: C-S's weights for the 34 channels, in multiples of their mean. The last two channels are
# the coordinates.

# %%
_, beta = watch(captioner, captioner.decoder.look.attentions[0].channel.weights, test_maps["high"])
beside = [n for n in np.flatnonzero(is_beside) if right_of(texts)[n]]
by_word = C * beta[beside].mean(axis=0)  # (T, C)
rows = ["a", "digit", "left", "of", "a", "digit", "(end)"]
viz.show_channel_weights(by_word[:7], rows, label="weight, 1 = all alike")

# %%
assert np.allclose(by_word.mean(axis=1), 1)
moved = np.abs(by_word[:7].max(axis=0) - by_word[:7].min(axis=0))
print(f"most that a channel's mean weight changes from word to word: {moved.max():.1f}")
spread = by_word.max(axis=1) - by_word.min(axis=1)
assert min(spread[2], spread[6]) > 2 * max(spread[[0, 1, 3, 4, 5]])
assert by_word[2, 32:].max() < by_word[2, :32].min()

# %% [markdown]
# *Figure 6. Mean weights of the channels at each word, over the test pictures "left of" that were described
# rightly.*
#
# In this run the channels are weighed in earnest at two words only: "left", where it must be decided how the
# digits stand, and the end. There the coordinates are turned down, and with them the features' share goes up.
# That is what this network has learned, and no more: with one other seed it was the end above all, with another
# hardly any word.
#
# ### Taking it away
#
# A picture of weights does not say whether a network needs them (lesson 18). So we put equal weights in their
# place, by a hook that returns something else, and let the trained networks write again.


# %%
def flattened(model, name, level):
    """What a model writes with equal weights in all its attentions of a kind."""

    def equal(module, inputs, weights):
        return mt.ones(*weights.shape) / weights.shape[1]

    parts = [getattr(attention, name).weights for attention in model.decoder.look.attentions]
    handles = [part.register_forward_hook(equal) for part in parts]
    texts = describe(model, level)
    for handle in handles:
        handle.remove()
    return texts


taken_away = {}
for name, level in (("C-S", "high"), ("two layers", "low")):
    ways = written[name], *(flattened(models[name], kind, level) for kind in ("channel", "spatial"))
    own, channels, flat_places = taken_away[name] = [100 * right_of(way).mean() for way in ways]
    print(
        f"{name:10} {own:4.1f} %, channels alike {channels:4.1f} %, places alike {flat_places:4.1f} %"
    )
assert all(
    own > channels > 50 and flat_places < 10 for own, channels, flat_places in taken_away.values()
)

# %% [markdown]
# Without its weights for places neither can write. Without those for channels both lose some captions, in this run
# C-S more than two layers; with our five other seeds C-S lost from 1 to 22 points, two layers 2 or 3. Does this task
# need channel attention, then? That is another question, as a network that never had it can learn otherwise. So we
# trained two layers with *spatial attention alone*, too, with the five other seeds: 82 to 86 %, where both
# attentions came to 78 to 85 %. Weights for channels are used by a network that has them, and not missed by one
# that has not. One digit at a place is no hard case of *what*; on captions of photographs the paper reports gains
# from channels.
#
# ## Paper and code
#
# | | paper | authors' program | here |
# |---|---|---|---|
# | SCA: scale | none written | weights times $C$ and $HW$ | as the program; `rescale=False` leaves it out |
# | SCA: where | layers of VGG-19 and ResNet-152, one to three | ResNet-152, the last two | any layers, `SCALayers` |
# | SCA: behind the last | mean | mean, divided by its norm | mean |
# | soft: gate | one number a word | there, not used by default; in a well-known port one for each channel | one number, or none |
# | soft: score | a small network | tanh; the port has a ReLU | tanh |
# | words' scores | of $E y$, $h$ and $z$ | by default of $h$ alone, with a tanh | as the paper |
# | first state | of $\bar x$ | tanh | tanh |
# | soft: a further loss | $\lambda \sum_j (1 - \sum_t \alpha_{tj})^2$ | the same | in the exercises |
#
# The further loss asks that over a whole caption each place is looked at about as much as the others (*doubly
# stochastic*). For our task that makes no sense: seven words cannot look at 25 places with a weight of 1
# each, and most of them are empty. The papers' captions are of photographs, of ten words and more.
#
# The paper of SCA-CNN compares both orders, and one to three layers, on photographs; C-S comes out ahead of S-C.
# With our five other seeds S-C came to 70 to 83 %, twice ahead of C-S and three times behind it.

# %% [markdown]
# ## Predict before you run
#
# **1.** All channels of a map have the same mean. What does channel attention do?

# %%
flat = rng.normal(size=(2, 3, 4))
flat -= flat.mean(axis=2, keepdims=True) - 1
print("unchanged:", np.allclose(channel(flat, h), flat))

# %% [markdown]
# <details><summary>Answer</summary>
#
# Nothing. A channel is known by its mean alone, so all get the same score, the weights are $1/C$, and $C$ times
# that is one. Behind an instance normalisation (lesson 07), which makes all means zero, channel attention would
# be idle.
#
# </details>
#
# **2.** In the map behind the last convolution we exchange left and right, but leave the two channels of
# coordinates as they are. What does the network write of "a 3 left of a 7"?

# %%
mirrored = test_maps["high"][is_beside]
mirrored[:, :32] = mirrored[:, :32, :, ::-1]
turned = WORDS.decode(greedy_decode(captioner, mirrored, max_length=8))
labels = test_data.labels[is_beside]
exchanged = [f"a {b} left of a {a}" for a, b in labels]
print(f"digits exchanged:  {100 * exact_match(turned, exchanged):.0f} %")
true = [caption for caption in test_data.captions if "left" in caption]
print(f"as the picture is: {100 * exact_match(turned, true):.0f} %")
assert exact_match(turned, exchanged) > 0.5 and exact_match(turned, true) < 0.1

# %% [markdown]
# <details><summary>Answer</summary>
#
# "A 7 left of a 3", in more than half of the pictures, and hardly ever what is in the picture. Where a feature
# stands in the array does not matter to an attention and a mean; what counts is which coordinates stand
# beside it.
#
# </details>
#
# **3.** Beam search looks at several captions at once (lesson 10). How much is won?

# %%
beams = beam_search(captioner, test_maps["high"], beam_size=4, max_length=8)
best = WORDS.decode(beams.tokens[:, 0])
print(
    f"greedy {100 * right_of(texts).mean():.1f} %, beam search {100 * right_of(best).mean():.1f} %"
)
same = np.mean([a == b for a, b in zip(best, texts, strict=True)])
print(f"the same caption for {100 * same:.0f} % of the pictures")
assert same > 0.8 and abs(right_of(best).mean() - right_of(texts).mean()) < 0.05

# %% [markdown]
# <details><summary>Answer</summary>
#
# Next to nothing. Beam search helps where a word that seems likely leads to unlikely ones. Here each digit is
# decided by what is seen, and hardly by the other words.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`26_sca_cnn`](../exercises/26_sca_cnn.ipynb):
#
# 1. **channel_weights**: what to look for, from means and a state.
# 2. **weigh_places**: spatial attention, with its rules.
# 3. **ChannelSpatial**: the module, C-S.
# 4. **doubly_stochastic**: the further loss, with its rule.
# 5. **cider**: the measure, for n-grams of one length.

# %% [markdown]
# ## What to remember
#
# - A captioner is a decoder that looks: before each word its state asks the map.
# - Spatial and channel attention are one layer. An item is weighed by what its key says to the state; the map
#   gets its gradient as what is weighed and as what it is known by.
# - Soft attention is spatial SCA with a mean behind it. SCA keeps the map, so that layers can follow, run
#   anew for each word.
# - Order needs places, and places need coordinates. What an attention is worth, its removal tells, not its
#   picture.

# %% [markdown]
# ## Sources
#
# - L. Chen, H. Zhang, J. Xiao, L. Nie, J. Shao, W. Liu, T.-S. Chua, *SCA-CNN: Spatial and Channel-wise
#   Attention in Convolutional Networks for Image Captioning*, CVPR 2017: section 3.
# - K. Xu, J. Ba, R. Kiros, K. Cho, A. Courville, R. Salakhutdinov, R. Zemel, Y. Bengio, *Show, Attend and
#   Tell: Neural Image Caption Generation with Visual Attention*, ICML 2015: sections 3 and 4.2.
# - R. Vedantam, C. L. Zitnick, D. Parikh, *CIDEr: Consensus-based Image Description Evaluation*, CVPR 2015.
# - R. Liu and others, *An Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution*,
#   NeurIPS 2018.
