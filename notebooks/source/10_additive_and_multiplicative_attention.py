# %% [markdown]
# # 10 · Additive and multiplicative attention
#
# A decoder that, before every token it writes, looks back at the whole source and takes from it what it
# needs now.
#
# **You will be able to**
#
# - derive the alignment model of Bahdanau forward and backward, and say by which two paths a gradient
#   reaches each place of the source;
# - build additive and multiplicative attention with their masks, put them into a decoder, and read their
#   alignment maps;
# - tell from an experiment what attention mends and what it does not, with greedy and beam decoding,
#   exact match and BLEU.
#
# **You need** lesson 09: encoder and decoder, teacher forcing, and the two problems of their summary.
#
# **Time** about 60 minutes, and as long again for the exercises.

# %%
import math
from collections import Counter

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, viz
from minitorch_attn.attention import AdditiveAttention, MultiplicativeAttention
from minitorch_attn.data import DataLoader, SequencePairs, date_pairs, reversal_pairs, sorting_pairs
from minitorch_attn.metrics import bleu, exact_match
from minitorch_attn.models import Seq2Seq, beam_search, greedy_decode
from minitorch_attn.models.seq2seq import Decoder, Encoder
from minitorch_attn.nn.utils import clip_grad_norm_

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# People write dates in many ways; a computer wants one. Translate: read *thursday, may 3, 1979* letter by
# letter, and write *1979-05-03*.

# %%
all_dates = date_pairs(350 * 32, train=True, generator=0)
vocabularies = all_dates.source_vocabulary, all_dates.target_vocabulary
train_dates = SequencePairs(all_dates.pairs[: 250 * 32], *vocabularies)
test_dates = date_pairs(200, train=False, generator=9)
for source, target in test_dates.pairs[:6]:
    print(f"{source:32} {target}")

# %% [markdown]
# To write the first 1 one must know that the year stands at the end, and what it is. To write the month
# one must look at another place. A person's eyes would jump there; a decoder that has only a summary cannot
# look anywhere. So let us give it eyes: at every step, a *weight* for each place of the source, and the
# mean of what the encoder has kept of each place, with these weights. What the weights should be is
# learned, along with everything else.
#
# The model is that of lesson 09, with `attention=` given. It is trained for 250 batches of 32 dates; how
# it works inside is what this lesson is about. A hook (lesson 04) shows us the weights.


# %%
def make_model(pairs, attention=None, attend="previous", hidden=32, seed=0):
    """An encoder and a decoder; attention makes one from the sizes of query and memory."""
    mt.manual_seed(seed)
    encoder = Encoder(len(pairs.source_vocabulary), 16, hidden)
    look = None if attention is None else attention(hidden, encoder.memory_size)
    K = len(pairs.target_vocabulary)
    return Seq2Seq(encoder, Decoder(K, 16, hidden, encoder.memory_size, look, attend))


def loss_of(scores, target):
    """Cross-entropy of scores (N, T - 1, K) for a target (N, T), the mean over its tokens."""
    K = scores.shape[-1]
    return F.cross_entropy(scores.reshape(-1, K), target[:, 1:].reshape(-1), ignore_index=0)


def write(model, pairs, decode=greedy_decode, room=1):
    """What a model writes for each source, as texts of at most `room` more than the longest target."""
    sources, targets = zip(*pairs.pairs)
    longest = max(map(len, targets)) + room
    tokens = decode(model, pairs.source_vocabulary.encode(sources), max_length=longest)
    return pairs.target_vocabulary.decode(tokens)


def exact(model, pairs):
    """Share of the targets, in %, that are written without a mistake."""
    return 100 * exact_match(write(model, pairs), [target for _, target in pairs.pairs])


def train(model, pairs, every=None, unseen=None):
    """Train on each pair once, in batches of 32; with `every`, accuracies on the way."""
    optimizer = optim.Adam(model.parameters(), lr=5e-3)
    batches = DataLoader(pairs, batch_size=32, generator=0)
    curve = []
    for step, (source, lengths, target) in enumerate(batches, start=1):
        optimizer.zero_grad()
        loss_of(model(source, target[:, :-1], lengths), target).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if every and step % every == 0:
            curve.append((step, exact(model, unseen)))
    return curve


def additive(query_size, memory_size):
    return AdditiveAttention(query_size, memory_size, hidden_size=query_size)


dates = make_model(train_dates, additive)
curves = {"additive": train(dates, train_dates, every=50, unseen=test_dates)}


# %%
def look_and_write(model, pairs):
    """What a model writes, and where it looks for each token: texts, and weights (N, T, L)."""
    seen = []
    softmax = model.decoder.attention.softmax
    with softmax.register_forward_hook(lambda module, inputs, weights: seen.append(weights.data)):
        texts = write(model, pairs)
    return texts, np.stack(seen, axis=1)


def draw_alignment(ax, weights, source, text, title=""):
    """Weights (T, L), a row for each token that was written, a column for each that was read."""
    letters = [*text, "end"]
    ax.imshow(weights[: len(letters), : len(source)], cmap="viridis", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(source)), list(source))
    ax.set_yticks(range(len(letters)), letters)
    ax.tick_params(length=0)
    ax.set_title(title)


one = SequencePairs([("thursday, may 3, 1979", "1979-05-03")], *vocabularies)
(text,), (weights,) = look_and_write(dates, one)
print("written:", text)
year, month, day = weights[:4, 17:21], weights[6, 10:13], weights[9, 14]
assert text == "1979-05-03" and year.sum(axis=1).min() > 0.8
assert month.sum() > 0.5 and day > 0.5

# %%
figure, ax = viz.panels(1, 1, width=8, height=3.8)
draw_alignment(ax, weights, one[0][0], text)
ax.set(xlabel="read", ylabel="written")
figure

# %% [markdown]
# *Figure 1. An alignment map. A row is a token that was written, a column a letter that was read; dark is
# a weight of 0, yellow of 1, and each row adds up to 1. While the year is written the network looks at the end
# of the source, then it jumps back to the month, and forward to the day. For a hyphen, which is always the
# same, its look is spread out.*
#
# Nobody has told it what the parts of a date are, or where they stand. It has seen pairs of texts.

# %% [markdown]
# ## The equations
#
# ### The bottleneck, and the way around it
#
# In lesson 09 the encoder makes a memory of each of the $L$ places of the source, $m_1, \dots, m_L$ of
# $D$ features each (there its states $h_j$, of both directions), and then all but the last of each direction
# are thrown away: the decoder is given the same summary $c$ at every step. That had two faults: whatever the
# length, a summary has one size; and a gradient comes to a place only through all the steps between it and
# an end of the source.
#
# Bahdanau, Cho and Bengio kept the memory. At each step the decoder's state $s$ asks, as the *query*, and is
# given a context $c$ of its own. Three steps, for one query of $D_q$ features:
#
# **Scores.** A small network, the *alignment model*, says how well place $j$ fits the query. It has $A$
# hidden units, and weights $W: (A, D_q)$, $U: (A, D)$ and $v: (A)$:
#
# $$a_j = W s + U m_j, \qquad z_j = \tanh(a_j), \qquad e_j = v^\top z_j$$
#
# The two shares are added up, hence **additive** attention.
#
# **Weights.** A softmax makes numbers from 0 to 1 of them that add up to 1:
#
# $$\alpha_j = \frac{e^{e_j}}{\sum_k e^{e_k}}$$
#
# **Context.** The mean of the memory with these weights:
#
# $$c = \sum_j \alpha_j\, m_j$$
#
# Picking *one* place would be a choice, and has no gradient. The mean is a soft choice, and has one
# everywhere.
#
# **Mask.** In a batch, short sources are padded. Padding must get no weight, and the others must still add
# up to 1: so the mask acts on the *scores*, before the softmax. With $\mu_j = 1$ for a token and 0 for
# padding,
#
# $$\alpha_j = \frac{\mu_j\, e^{e_j}}{\sum_k \mu_k\, e^{e_k}}$$
#
# which is the same as a score of $-\infty$ where $\mu_j = 0$. (One row that is all padding would be 0 / 0; the
# library then gives weights 0.)

# %% [markdown]
# ### Backward
#
# $dc$ comes in from the decoder. From the last line to the first:
#
# **Context.** $c$ is a sum of products $\alpha_j m_j$, and by the product rule each factor gets $dc$ times the
# other; $\alpha_j$ is one number, used for all features, so its shares are added up, an inner product:
#
# $$d\alpha_j = m_j \cdot dc, \qquad dm_j \leftarrow \alpha_j\, dc$$
#
# The arrow says that this is a first share of $dm_j$. Keep it in mind.
#
# **Softmax.** From the quotient rule, $\partial \alpha_j / \partial e_k = \alpha_j (\delta_{jk} - \alpha_k)$,
# where $\delta_{jk}$ is 1 if $j = k$ and else 0. By the chain rule, over all the weights that $e_k$ moves,
#
# $$de_k = \sum_j d\alpha_j\, \alpha_j (\delta_{jk} - \alpha_k)
# = \alpha_k \Bigl(d\alpha_k - \sum_j \alpha_j\, d\alpha_j\Bigr)$$
#
# Put $d\alpha_j = m_j \cdot dc$ in. As $\sum_j \alpha_j\, m_j = c$, it can be read:
# $de_k = \alpha_k\, (m_k - c) \cdot dc$. A place is told to score higher or lower
# by how its memory would move the context, compared with the mean that the context is. A place that
# is masked, $\alpha_k = 0$, gets none.
#
# **Scores.** $e_j = v^\top z_j$ uses $v$ at every place, and tanh has the slope $1 - z^2$:
#
# $$dv = \sum_j de_j\, z_j, \qquad da_j = de_j\; v \odot (1 - z_j^2)$$
#
# **The two shares.** $a_j = W s + U m_j$ are two linear maps, with the rules of lesson 02. $W$, $U$ and $s$ take
# part in every place, so their shares are added up; $m_j$ takes part in its own alone:
#
# $$ds = W^\top \sum_j da_j, \qquad dW = \Bigl(\sum_j da_j\Bigr) s^\top, \qquad
# dU = \sum_j da_j\, m_j^\top, \qquad dm_j \leftarrow U^\top da_j$$
#
# So a place of the memory reaches the loss on **two paths**, as the *value* that is averaged, and as the
# *key* that is scored:
#
# $$\boxed{\; dm_j = \underbrace{\alpha_j\, dc}_{\text{value}} + \underbrace{U^\top da_j}_{\text{key}} \;}$$
#
# And here is the remedy for the second fault, the long way. From the context $c_t$ of any step $t$ the gradient
# comes to any place $j$ in *one* step, $\alpha_{tj}\, dc_t$, however far apart they are. How much comes is a
# matter of the weight, no longer of the distance.

# %% [markdown]
# ### Multiplicative attention
#
# Luong, Pham and Manning scored by inner products instead:
#
# $$e_j = s^\top m_j \quad \text{(dot)}, \qquad e_j = (W s)^\top m_j \quad \text{(general, } W: (D, D_q))$$
#
# The dot has no parameters, but asks for $D_q = D$. Softmax and context are as before, and so is all of the
# backward but the scores. With the query $q = W s$ (for the dot, $q = s$) an inner product gives each factor
# $de_j$ times the other: $dm_j \leftarrow de_j\, q$, the key path, and $dq = \sum_j de_j\, m_j$. From there
# it is a linear map again, $ds = W^\top dq$, $dW = dq\, s^\top$. No tanh for each place: a product of matrices
# does it all. They also let *another state ask*:
#
# | | Bahdanau | Luong |
# |---|---|---|
# | who asks | $s_{t-1}$, the state **before** the step | $s_t$, the state **after** it |
# | the context $c_t$ goes | into the step that makes $s_t$, and the readout | into the readout, and the *next* step |
# | score | additive | dot, general; and *concat*, which is the additive one |
# | parameters | $A (D_q + D + 1)$ | 0, or $D_q D$ |
# | multiplications for a query's scores | $A (D_q + L)$ | $L D$, or $D_q D + L D$ |
#
# (The context takes $L D$ more with either. The keys $U m_j$, $L D A$ multiplications, are the same for all
# queries and are made once a source.) To hand $c_t$ on to the next step is *input feeding*: the decoder should
# know where it has looked already.
#
# ### Two ways to decode
#
# A decoder gives the probability $p(y_t \mid y_{<t}, x)$ of a token $y_t$, given the tokens before it, $y_{<t}$,
# and the source $x$. Greedy decoding takes the likeliest token and never turns back. But a likely token
# may lead to unlikely ones. **Beam search** keeps the $B$ likeliest beginnings: each goes on with each of the
# $K$ tokens, and of these $B K$ the best $B$ stay. The probability of a text is the product of those of its
# tokens, so it falls with every token, and short texts would win. So its logarithm is divided by a penalty $lp$ for
# the number of tokens, $|y|$ (Wu et al. 2016, where the power 0.6 is a setting):
#
# $$\mathrm{score}(y) = \frac{\sum_t \log p(y_t \mid y_{<t}, x)}{lp(|y|)}, \qquad
# lp(T) = \left(\frac{5 + T}{6}\right)^{0.6}$$
#
# ### Two ways to judge
#
# **Exact match** is the share of texts without any mistake. It knows no half. **BLEU** counts the *n-grams*,
# runs of $n$ tokens, that a text shares with its reference, but none more often than the reference has it.
# With $p_n$ the share of the n-grams of all texts together that are so shared, and $C$, $R$ the lengths of all
# texts and of all references,
#
# $$\mathrm{BLEU} = \underbrace{\min(1,\ e^{1 - R / C})}_{\text{brevity penalty}}\;
# (p_1\, p_2\, p_3\, p_4)^{1/4}$$
#
# Four, because a text with the right tokens in a wrong order has a high $p_1$ but a low $p_4$. Without the
# penalty one could write only what one is sure of.

# %% [markdown]
# ## The code
#
# First the equations as loops, for one query after the other.


# %%
def attention_loops(s, m, w, u, v):
    """s (N, Dq), m (N, L, D), w (A, Dq), u (A, D), v (A,) -> contexts (N, D)."""
    N, L, D = m.shape
    c = np.zeros((N, D))
    for n in range(N):
        e = []
        for j in range(L):
            z = [math.tanh(w[a] @ s[n] + u[a] @ m[n, j]) for a in range(len(v))]
            e.append(sum(v[a] * z[a] for a in range(len(v))))
        total = sum(math.exp(score) for score in e)
        for j in range(L):
            c[n] += math.exp(e[j]) / total * m[n, j]
    return c


# %% [markdown]
# Then with whole arrays, as a primitive. The mask is a setting: it has no gradient. Line by line the
# rules are those above; what they share is `back_to_e` and `back_to_a`.


# %%
def additive_attention(s, m, w, u, v, *, mask=None):
    """s (N, Dq), m (N, L, D), w (A, Dq), u (A, D), v (A,) -> c (N, D), and a rule for each."""
    z = np.tanh((s @ w.T)[:, None] + m @ u.T)  # (N, L, A)
    e = z @ v  # (N, L)
    if mask is not None:
        e = np.where(mask, e, -1e30)
    alpha = np.exp(e - e.max(axis=1, keepdims=True))
    alpha /= alpha.sum(axis=1, keepdims=True)
    c = np.einsum("nl,nld->nd", alpha, m)

    def back_to_e(dc):
        dalpha = np.einsum("nld,nd->nl", m, dc)
        return alpha * (dalpha - (alpha * dalpha).sum(axis=1, keepdims=True))

    def back_to_a(dc):
        return back_to_e(dc)[:, :, None] * v * (1 - z**2)

    def vjp_s(dc):
        return back_to_a(dc).sum(axis=1) @ w

    def vjp_m(dc):
        value = alpha[:, :, None] * dc[:, None]
        key = back_to_a(dc) @ u
        return value + key

    def vjp_w(dc):
        return back_to_a(dc).sum(axis=1).T @ s

    def vjp_u(dc):
        return np.einsum("nla,nld->ad", back_to_a(dc), m)

    def vjp_v(dc):
        return np.einsum("nl,nla->a", back_to_e(dc), z)

    return c, (vjp_s, vjp_m, vjp_w, vjp_u, vjp_v)


# %%
rng = np.random.default_rng(0)
N, L, Dq, D, A = 2, 5, 3, 4, 6
s, m = rng.normal(size=(N, Dq)), rng.normal(size=(N, L, D))
w, u, v = rng.normal(size=(A, Dq)), rng.normal(size=(A, D)), rng.normal(size=A)
c, _ = additive_attention(s, m, w, u, v)
print("loops and arrays agree:", np.allclose(c, attention_loops(s, m, w, u, v)))

mask = np.arange(L) < np.array([[5], [3]])  # the second source has three tokens
masked, _ = additive_attention(s, m, w, u, v, mask=mask)
alone, _ = additive_attention(s[1:], m[1:, :3], w, u, v)
print("padded and masked, as alone:", np.allclose(masked[1:], alone))

# %% [markdown]
# As modules, put together from parts that have their rules. Both return context and weights. `softmax` is
# a module, though it has no parameters, so that a hook can watch it.


# %%
class OurAdditive(nn.Module):
    """Bahdanau's attention: query (N, Dq), memory (N, L, D) -> context (N, D), weights (N, L)."""

    def __init__(self, query_size, memory_size, hidden_size):
        super().__init__()
        self.query = nn.Linear(query_size, hidden_size, bias=False)
        self.key = nn.Linear(memory_size, hidden_size, bias=False)
        self.score = nn.Linear(hidden_size, 1, bias=False)
        self.softmax = nn.MaskedSoftmax()

    def forward(self, query, memory, mask=None):
        hidden = F.tanh(self.query(query).unsqueeze(1) + self.key(memory))  # (N, L, A)
        weights = self.softmax(self.score(hidden).squeeze(2), mask)
        return (weights.unsqueeze(1) @ memory).squeeze(1), weights


class OurMultiplicative(nn.Module):
    """Luong's attention, "general": query (N, Dq), memory (N, L, D) -> context, weights."""

    def __init__(self, query_size, memory_size):
        super().__init__()
        self.query = nn.Linear(query_size, memory_size, bias=False)
        self.softmax = nn.MaskedSoftmax()

    def forward(self, query, memory, mask=None):
        scores = (memory @ self.query(query).unsqueeze(2)).squeeze(2)  # (N, L)
        weights = self.softmax(scores, mask)
        return (weights.unsqueeze(1) @ memory).squeeze(1), weights


# %%
ours, library = OurAdditive(Dq, D, A), AdditiveAttention(Dq, D, A)
for module in ours, library:
    module.load_state_dict(
        {
            "query.weight": mt.tensor(w),
            "key.weight": mt.tensor(u),
            "score.weight": mt.tensor(v[None]),
        }
    )
for module in ours, library:
    context, weights = module(mt.tensor(s), mt.tensor(m), mt.tensor(mask))
    print(type(module).__name__, np.allclose(context.data, masked), weights.shape)

ours, library = OurMultiplicative(Dq, D), MultiplicativeAttention(Dq, D, score="general")
library.load_state_dict(ours.state_dict())
outputs = [module(mt.tensor(s), mt.tensor(m), mt.tensor(mask)) for module in (ours, library)]
print("multiplicative, both agree:", all(np.allclose(a.data, b.data) for a, b in zip(*outputs)))

# %% [markdown]
# ### In the decoder
#
# With attention the steps of a target can no longer be computed all at once: the context of a step needs
# the state before it. So teacher forcing is a loop. Here it is for both, in full; with the library's
# weights it gives the library's scores.


# %%
def teacher_forced(decoder, attention, memory, summary, mask, tokens, attend):
    """Scores (N, T, K) for what follows each token of (N, T), by the parts of a decoder."""
    state, context, scores = F.tanh(decoder.bridge(summary)), summary, []
    for t in range(tokens.shape[1]):
        before = decoder.embedding(tokens[:, t])
        if attend == "previous":  # Bahdanau: look, then step
            context, _ = attention(state, memory, mask)
        step = F.cat([before, context], 1).unsqueeze(1)
        _, last = decoder.rnn(step, state.unsqueeze(0))
        state = last.squeeze(0)
        if attend == "current":  # Luong: step, then look
            context, _ = attention(state, memory, mask)
        scores.append(decoder.readout(F.cat([state, context, before], 1)))
    return F.stack(scores, 1)


source, lengths, target = next(iter(DataLoader(test_dates, batch_size=4)))
mask = mt.tensor(np.arange(source.shape[1]) < np.asarray(lengths.data)[:, None])
for name, look, attend in (
    ("Bahdanau", additive, "previous"),
    ("Luong", MultiplicativeAttention, "current"),
):
    model = make_model(test_dates, look, attend)
    memory, summary = model.encoder(source, lengths)
    scores = teacher_forced(
        model.decoder, model.decoder.attention, memory, summary, mask, target[:, :-1], attend
    )
    expected = model(source, target[:, :-1], lengths)
    print(
        f"{name:9} scores {scores.shape}, as the library's:",
        np.allclose(scores.data, expected.data),
    )

# %% [markdown]
# ### Beam search and BLEU
#
# Beam search for one source, in plain lists: a beginning is its tokens, its log-probability and the
# decoder's state. What has ended keeps its place for as long as no better one comes.


# %%
def beam_search_lists(model, source, B, longest, alpha=0.6):
    """The best text for one source (1, L), as a list of tokens."""

    def score(beginning):
        tokens, log_p, _ = beginning
        return log_p / ((5 + len(tokens)) / 6) ** alpha

    beams = [([], 0.0, model.start(source))]
    for _ in range(longest):
        goes_on = []
        for tokens, log_p, state in beams:
            if tokens and tokens[-1] == 2:  # it has ended
                goes_on.append((tokens, log_p, state))
                continue
            logits, after = model.step([tokens[-1] if tokens else 1], state)
            for k, step_log_p in enumerate(F.log_softmax(logits, dim=1).data[0]):
                goes_on.append(([*tokens, k], log_p + step_log_p, after))
        beams = sorted(goes_on, key=score, reverse=True)[:B]
    return beams[0][0]


def bleu_of(texts, references):
    """BLEU of a corpus with one reference a text, up to runs of four."""
    product = 1.0
    for n in range(1, 5):
        shared = total = 0
        for text, reference in zip(texts, references):
            ours, theirs = (
                Counter(x[i : i + n] for i in range(len(x) - n + 1)) for x in (text, reference)
            )
            shared += sum(min(count, theirs[run]) for run, count in ours.items())
            total += sum(ours.values())
        product *= shared / total
    C, R = sum(map(len, texts)), sum(map(len, references))
    return min(1.0, math.exp(1 - R / C)) * product**0.25


# %%
def best_of(beams):
    """Beam search as `write` wants it: the best text of each search."""
    return lambda *inputs, **settings: beam_search(*inputs, beam_size=beams, **settings).tokens[
        :, 0
    ]


few = SequencePairs(test_dates.pairs[:8], *vocabularies)
by_library = write(dates, few, best_of(3))
read, written = vocabularies
by_lists = [
    written.decode([beam_search_lists(dates, read.encode([text]), B=3, longest=11)])[0]
    for text, _ in few.pairs
]
print("beam search, both agree:", by_lists == by_library)

texts, references = ["1979-05-03", "1979-05-13"], ["1979-05-03", "1979-06-30"]
ours, library = bleu_of(texts, references), bleu(texts, [[text] for text in references])
print(f"BLEU {ours:.3f}, the library agrees: {np.isclose(ours, library)}")

# %% [markdown]
# ## The gradient check
#
# All five rules, with a mask, in float64 and for a random `dy`:

# %%
mask = np.arange(L) < np.array([[5], [3]])
report = mt.check_vjp(additive_attention, s, m, w, u, v, mask=mask)
print(report)

# %%
viz.draw_gradcheck(report)

# %% [markdown]
# *Figure 2. The error is dark throughout. Of the memory, `m`, the two sources stand side by side and a row is
# a place: in the last two rows on the right, the places that are masked, the gradient is zero.*
#
# Now the mistake that is easiest to make: the memory is averaged, so its gradient is $\alpha_j\, dc$. That
# it was *scored*, too, is forgotten.


# %%
def without_the_key_path(m, *, s, w, u, v):
    c, _ = additive_attention(s, m, w, u, v)
    z = np.tanh((s @ w.T)[:, None] + m @ u.T)
    alpha = np.exp(z @ v)
    alpha /= alpha.sum(axis=1, keepdims=True)

    def vjp_m(dc):
        return alpha[:, :, None] * dc[:, None]

    return c, vjp_m


wrong = mt.check_vjp(without_the_key_path, m, s=s, w=w, u=u, v=v, raise_on_failure=False)
print(wrong)
by_the_rule, measured = wrong.inputs[0].analytic, wrong.inputs[0].numeric  # (N, L, D)
assert not wrong.inputs[0].ok
assert np.linalg.matrix_rank(by_the_rule, tol=1e-5).tolist() == [1, 1]
assert np.linalg.matrix_rank(measured, tol=1e-5).min() > 1

# %%
viz.draw_gradcheck(wrong)

# %% [markdown]
# *Figure 3. The gradient of `m` alone, now without a mask. By the rule all rows of a source are multiples of one
# another: $\alpha_j$ times one and the same $dc$. The measured rows are not.*

# %% [markdown]
# ## At work
#
# ### Dates: with and without
#
# The model of Figure 1 was trained for 250 batches. Here is the same without attention: same seed, same
# batches, and then 100 batches more. On the way both write 200 dates of days that are in no training pair.

# %%
plain = make_model(all_dates)
curves["no attention"] = train(plain, all_dates, every=50, unseen=test_dates)
for name, curve in curves.items():
    print(f"{name:13}", "  ".join(f"{step}: {share:.0f} %" for step, share in curve[::2]))
attentive, blind = (np.array(curve)[:, 1] for curve in curves.values())
assert attentive[4] > 85 and blind[4] < 50 and blind[6] > blind[4] + 10  # after 250, and 350

# %%
COLOURS = dict(zip(["no attention", "additive", "multiplicative"], viz.COLOURS))
figure, ax = viz.panels(1, 1, width=6.5, height=3.2)
for name, curve in curves.items():
    ax.plot(*np.transpose(curve), color=COLOURS[name], marker="o", markersize=4, label=name)
ax.set(xlabel="batches of 32 dates", ylabel="written without mistake, %", ylim=(-3, 103))
ax.legend(loc="lower right")
figure

# %% [markdown]
# *Figure 4. With attention nearly all dates are right after 250 batches, and without it fewer than half. But
# the batches that follow bring the model without attention on, too.*
#
# A date is short: there is room for it in a summary, and that model is learning to use it, its curve still rises.
# For a short source attention is above all *quicker to learn*, counted in examples. (A batch takes it about
# twice the time, so that on the clock the two are closer.)

# %% [markdown]
# ### Reading the maps
#
# Three more dates. In all our formats the year stands last: how much of the weight lies on the last four
# letters while the year is written, and how much after that?

# %%
texts, weights = look_and_write(dates, test_dates)
sources = [source for source, _ in test_dates.pairs]
on_digits = np.array([w[:, len(text) - 4 : len(text)] for w, text in zip(weights, sources)])
on_year = on_digits.sum(axis=2)
print(f"on the year, while it is written: {100 * on_year[:, :4].mean():.0f} %")
print(f"on the year, for month and day:   {100 * on_year[:, 5:10].mean():.0f} %")
for w, text in zip(weights, sources):
    assert not w[:, len(text) :].any()  # padding has no weight at all
assert on_year[:, :4].mean() > 0.7 > 0.3 > on_year[:, 5:10].mean()
assert on_digits[:, 0, 1].mean() > 0.5  # the first digit is written, the second looked at

# %%
shown = [next(i for i, text in enumerate(sources) if sign in text) for sign in ("the ", "/", ".")]
figure, axes = viz.panels(1, 3, width=10, height=3.4)
for ax, i in zip(axes, shown):
    draw_alignment(ax, weights[i], sources[i], texts[i])
    ax.set_xlabel("read")
axes[0].set_ylabel("written")
assert all(texts[i] == test_dates[i][1] for i in shown)
on_first, on_later = (weights[shown[1:], 6, a : a + 2].sum(axis=1) for a in (0, 3))  # for the month
assert on_first[0] > 0.5 > on_first[1] and on_later[1] > 0.5 > on_later[0]
figure

# %% [markdown]
# *Figure 5. Other ways to write a date, other jumps. In the middle the month stands first, on the right the day:
# that the sign between the numbers tells which, the network has found out.*
#
# A map shows where the decoder looks, not why, and not all it knows: the memory of a place was made by a
# network that reads in both directions, and holds something of its neighbours. A neighbour of the
# right place may do as well: while the first digit of a year is written, most of the weight lies on the second.

# %% [markdown]
# ### Words backwards: accuracy over length
#
# Where lesson 09 failed: words to be written backwards. 200 batches of words of 2 to 10 letters; then
# unseen words, up to 14 letters long. And the control: to *sort* the letters.

# %%
ARMS = {
    "no attention": (None, "previous"),
    "additive": (additive, "previous"),
    "multiplicative": (MultiplicativeAttention, "current"),
}
LENGTHS = range(2, 15, 2)


def over_length(make_pairs, arm, batches, seed):
    pairs = make_pairs(batches * 32, 2, 10, generator=seed)
    model = make_model(pairs, *ARMS[arm], seed=seed)
    train(model, pairs)
    unseen = [make_pairs(100, length, length, generator=1000 + length) for length in LENGTHS]
    return model, np.array([exact(model, one) for one in unseen])


backwards = {arm: over_length(reversal_pairs, arm, batches=200, seed=0) for arm in ARMS}
ordered = {
    arm: [over_length(sorting_pairs, arm, batches=150, seed=seed)[1] for seed in (0, 1)]
    for arm in ("no attention", "additive")
}
print(f"{'letters':14}", *(f"{length:5}" for length in LENGTHS))
print("backwards")
for arm, (_, shares) in backwards.items():
    print(f"{arm:14}", *(f"{share:3.0f} %" for share in shares))
print("sorted, two seeds")
for arm, runs in ordered.items():
    for shares in runs:
        print(f"{arm:14}", *(f"{share:3.0f} %" for share in shares))

# %%
figure, axes = viz.panels(1, 2, width=9, height=3.4)
for arm, (_, shares) in backwards.items():
    axes[0].plot(LENGTHS, shares, color=COLOURS[arm], marker="o", label=arm)
for arm, runs in ordered.items():
    for shares in runs:
        axes[1].plot(LENGTHS, shares, color=COLOURS[arm], marker="o")
for ax, title in zip(axes, ("written backwards", "sorted (two seeds)")):
    ax.axvspan(10, 14.3, color="#EEEEEE")
    ax.set(xlabel="letters in the word", title=title, ylim=(-3, 103), xlim=(1.7, 14.3))
axes[0].set_ylabel("without mistake, %")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
none, added, multiplied = (shares for _, shares in backwards.values())
assert none[4] < 10 and added[4] > 75 and multiplied[4] > 60 and multiplied[6] > added[6] + 10
assert np.abs(np.mean(ordered["additive"], 0) - np.mean(ordered["no attention"], 0))[:5].max() < 20
figure

# %% [markdown]
# *Figure 6. Left: backwards, the model with a summary fails from six letters on, and with attention most words of
# ten come out right. Grey: longer than any word in training. Right: to sort, attention is of no use.*
#
# - Words **backwards** are what attention is for: every letter is needed, once, at its own time.
# - To **sort**, it is enough to know how often each letter comes, a few counts, and a look at single places does
#   not tell them. The curves with and without cross.
# - **Longer** words than in training remain hard. The additive model writes next to none of 14 letters, the
#   multiplicative one a part. Three seeds bear this out, but not that the *score* does it: the two arms also
#   differ in who asks (`attend=`). With one of the two exchanged, either way, 14 letters mostly failed.
#   Attention removes the bottleneck of the summary; to count places the model must still rely on its recurrent
#   states.

# %%
word, many = (reversal_pairs(count, 10, 10, generator=count + 2) for count in (1, 200))
has_double = np.array([any(a == b for a, b in zip(text, text[1:])) for text, _ in many.pairs])
figure, axes = viz.panels(1, 2, width=8.5, height=3.6)
for ax, arm in zip(axes, ("additive", "multiplicative")):
    (text,), (weights,) = look_and_write(backwards[arm][0], word)
    draw_alignment(ax, weights, word[0][0], text, arm)
    texts, weights = look_and_write(backwards[arm][0], many)
    off = weights[:, :10].argmax(axis=2) - np.arange(9, -1, -1)  # from the place that is its turn
    right = np.array([text == target for text, (_, target) in zip(texts, many.pairs)])
    print(
        f"{arm:14} most weight on the right place or next to it: {(abs(off) <= 1).mean():.0%}; "
        f"right words with a double letter {right[has_double].mean():.0%}, "
        f"without {right[~has_double].mean():.0%}"
    )
    assert (abs(off) <= 1).mean() > 0.9 and right[~has_double].mean() > right[has_double].mean()
axes[0].set(xlabel="read", ylabel="written")
assert word[0] == ("habcbhhfaa", "aafhhbcbah") and text == "aafhbcbah"
figure

# %% [markdown]
# *Figure 7. The alignment of a word that is written backwards is the other diagonal. Right: a mistake that can be
# seen. Of two h the model wrote one, and its weight jumps over a column. (To write the end it needs no letter:
# where that row looks says nothing.)*
#
# Double letters are hard: what two equal neighbours hold is nearly alike, and a score knows only what is held.

# %% [markdown]
# ### The way of a gradient
#
# The second fault was the long way back. As in lesson 09: fresh models, words of 40 letters, and the norm
# of the gradient of the loss with respect to the embedding of the letter at each place of the source.

# %%
long_words = reversal_pairs(32, 40, 40, generator=0)
source, lengths, target = next(iter(DataLoader(long_words, batch_size=32)))


def norms_over_places(arm):
    model, kept = make_model(long_words, *ARMS[arm]), []

    def keep_gradient(module, inputs, output):
        output.retain_grad()
        kept.append(output)

    with model.encoder.embedding.register_forward_hook(keep_gradient):
        loss_of(model(source, target[:, :-1], lengths), target).backward()
    return np.linalg.norm(kept[0].grad.data, axis=(0, 2))


norms = {arm: norms_over_places(arm) for arm in ARMS}
for arm, values in norms.items():
    ratio = np.log10(values[19:21].mean() / values[[0, -1]].mean())
    print(f"{arm:14} powers of ten from the ends to the middle: {ratio:.0f}")
assert norms["no attention"][19:21].max() < 1e-3 * norms["no attention"][0]
assert (
    min(norms[arm][19:21].min() / norms[arm].max() for arm in ("additive", "multiplicative")) > 1e-2
)

# %%
figure, ax = viz.panels(1, 1, width=7, height=3)
for arm, values in norms.items():
    ax.semilogy(range(1, 41), values, color=COLOURS[arm], marker="o", markersize=4, label=arm)
ax.set(xlabel="place in the source", ylabel="norm of the gradient")
ax.legend(fontsize=9)
figure

# %% [markdown]
# *Figure 8. Without attention the gradient falls exponentially towards the middle, the place that is farthest
# from both ends, where the two directions of the encoder leave their summaries. With it every place has its
# direct share $\alpha_{tj}\, dc_t$, and the curve is nearly flat.*
#
# A fresh model looks everywhere alike, $\alpha \approx 1/40$: that is enough for each place to be told what it
# should have held. From there on, training sharpens the weights.

# %% [markdown]
# ### Greedy and beams, exact match and BLEU
#
# To see what a search can do we need a model that is unsure: the additive one, on words of 12 letters, which
# are longer than it knows. All texts are to have one length, so there is no penalty for it (the power is 0, and
# $lp = 1$). Beside exact match and BLEU, here is what the search is then after: the mean of
# $\log p(y \mid x) = \sum_t \log p(y_t \mid y_{<t}, x)$ over the texts it found.

# %%
model, words = backwards["additive"][0], reversal_pairs(200, 12, 12, generator=5)
source = words.source_vocabulary.encode([text for text, _ in words.pairs])
references = [target for _, target in words.pairs]
found = {}
for B in (1, 2, 4, 8):
    tokens, log_p = beam_search(model, source, beam_size=B, max_length=16, length_penalty=0.0)
    texts = words.target_vocabulary.decode(tokens[:, 0])
    match, likeness = exact_match(texts, references), bleu(texts, [[text] for text in references])
    found[B] = log_p[:, 0].mean(), match, likeness
    print(f"beams {B}: log p {found[B][0]:.2f}   exact match {match:.0%}   BLEU {likeness:.2f}")
greedy = words.target_vocabulary.decode(greedy_decode(model, source, max_length=16))
assert found[1][1] == exact_match(greedy, references)  # one beam is greedy
assert found[8][0] > found[1][0] and abs(found[8][1] - found[1][1]) < 0.1
assert all(match < 0.4 and likeness > 0.6 for _, match, likeness in found.values())

# %% [markdown]
# The search does its work: with more beams it finds texts that the model holds for likelier. They are hardly more
# often right: what a model does not know, no search will find. (On the longer and more ambiguous texts of
# translation a beam gains more.)
#
# And look at the two measures. Most words have a mistake in them, and yet BLEU is near 0.8: a word that lacks one
# letter shares most of its runs with the right one. For a translation, where many texts are good, one
# wants such a measure. For a date or a word backwards, one does not.

# %% [markdown]
# ## Paper and code
#
# | | Bahdanau 2015 | Luong 2015 | here |
# |---|---|---|---|
# | who asks | $s_{t-1}$ | $s_t$ | both, `attend=` |
# | score | additive; biases left out of the equations | dot, general, concat, location | additive (a bias if wanted), dot, general; concat is the additive one |
# | decoder's first state | from the *backward* encoder's state at the first word | the encoder's last states | from both directions |
# | readout | maxout over $s_{t-1}$, $c_t$, $E y_{t-1}$ | $\tanh(W [c_t; s_t])$ | tanh over $s_t$, $c_t$, $E y_{t-1}$ |
# | input feeding | the context is an input anyway | $\tanh(W [c_t; s_t])$ goes into the next step | $c_t$ does |
# | a window instead of all places | | local attention | no |
#
# Implementations differ in small things: many versions of Bahdanau's let $s_t$ into the readout, as here, and
# some leave out the mask, so that padding is looked at. Two mistakes are met often: a mask after the softmax,
# which leaves weights that do not add up to 1, and a row of nothing but $-\infty$, whose softmax is NaN. BLEU
# depends on how texts are cut into tokens, and on the smoothing of runs that never match
# (`smoothing=`): compare only numbers that were computed alike.

# %% [markdown]
# ## Predict before you run
#
# **1.** Someone sets the weights of the padding to 0 *after* the softmax. What do the weights of a source of
# 3 tokens in a batch of length 5 add up to, when all scores are equal?

# %%
scores, padding = mt.zeros(1, 5), mt.tensor(np.array([[True, True, True, False, False]]))
after = F.softmax(scores, dim=1) * padding
before = nn.MaskedSoftmax()(scores, padding)
print(f"mask after the softmax: {after.sum().item():.2f}   before: {before.sum().item():.2f}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# 3/5: the padding has taken its share first. The context then shrinks with the amount of padding, and the same
# source gives another answer in another batch.
#
# </details>
#
# **2.** The places of a *memory* are shuffled. What becomes of the weights, and what of the context?

# %%
look = AdditiveAttention(3, 4, 6)
query, memory, order = mt.tensor(s), mt.tensor(m), [3, 0, 4, 2, 1]
context, weights = look(query, memory)
shuffled_context, shuffled_weights = look(query, memory[:, order])
print("weights shuffled alike:", np.allclose(shuffled_weights.data, weights.data[:, order]))
print("context the same:      ", np.allclose(shuffled_context.data, context.data))

# %% [markdown]
# <details><summary>Answer</summary>
#
# The weights are shuffled alike, and the context, a sum, is the same. Attention does not know where a place
# is. Here the encoder, which reads in order, has left it in what each place holds. Lesson 11 takes the
# recurrent network away, and must find another way to say it.
#
# </details>
#
# **3.** The models that write backwards get words of one letter only, `aaaaaaaa`. Any place is as good as any
# other to find an *a*. Do they write as many as they have read?

# %%
letters = words.source_vocabulary
same = SequencePairs([("a" * n, "a" * n) for n in (2, 4, 6, 8, 10)], letters, letters)
for arm in ("additive", "multiplicative"):
    print(f"{arm:14}", [len(text) for text in write(backwards[arm][0], same, room=10)])

# %% [markdown]
# <details><summary>Answer</summary>
#
# For short words they do, for longer ones not quite. Where no letter tells the places apart, the models must
# know *how far* they are, and that is counted in their recurrent states alone.
#
# </details>

# %% [markdown]
# ## Exercises
#
# Open [`10_additive_and_multiplicative_attention`](../exercises/10_additive_and_multiplicative_attention.ipynb):
#
# 1. **masked_softmax**: weights from scores, with its rule.
# 2. **additive_attention**: the whole of it, with the rules of query and memory.
# 3. **MultiplicativeAttention**: the module, with its mask.
# 4. **beam_step**: one step of a beam search.
# 5. **bleu**: the score of a corpus.

# %% [markdown]
# ## What to remember
#
# - Attention: score every place against a query, softmax, mean. A soft choice of one's own at every step
#   takes the place of one summary for all.
# - Additive scores come from a small network, multiplicative ones from an inner product. Masks act on the
#   scores, before the softmax.
# - The memory learns on two paths, as value and as key; and from every step to every place it is one step back.
# - It helps where single places are needed, not where a summary is enough, and it does not count.
# - Weights say where a model looks. To judge it, let it write on its own, and choose a measure that fits
#   the task.

# %% [markdown]
# ## Sources
#
# - D. Bahdanau, K. Cho, Y. Bengio, *Neural Machine Translation by Jointly Learning to Align and Translate*, ICLR
#   2015: section 3.1 and appendix A.
# - M.-T. Luong, H. Pham, C. D. Manning, *Effective Approaches to Attention-based Neural Machine Translation*,
#   EMNLP 2015: section 3.
# - Y. Wu et al., *Google's Neural Machine Translation System*, 2016: equation 14, the length penalty.
# - K. Papineni, S. Roukos, T. Ward, W.-J. Zhu, *BLEU: a Method for Automatic Evaluation of Machine Translation*, ACL
#   2002. M. Post, *A Call for Clarity in Reporting BLEU Scores*, WMT 2018.
