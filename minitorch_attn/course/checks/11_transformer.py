import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules


def _softmax(s, axis=1):
    e = np.exp(s - s.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


# -- attention_weights ------------------------------------------------------------------------


def attention_weights_reference(q, k):
    return _softmax(q @ k.T / np.sqrt(q.shape[1]))


def _queries_and_keys(rng, L, S, D):
    return rng.normal(size=(L, D)), rng.normal(size=(S, D))


attention_weights = Exercise(
    "11.attention_weights",
    reference=attention_weights_reference,
    cases=[
        Case(
            "one query, two keys",
            np.array([[1.0, 1.0, 1.0, 1.0]]),
            np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]),
        ),
        Case("two queries, three keys", *_queries_and_keys(np.random.default_rng(0), 2, 3, 4)),
        Case("as many queries as keys", *_queries_and_keys(np.random.default_rng(1), 3, 3, 2)),
        Case(
            "scores in the thousands",
            np.array([[100.0, 0.0, 0.0, 0.0]]),
            np.array([[20.0, 1.0, 0.0, 0.0], [20.0, 0.0, 1.0, 0.0], [19.9, 0.0, 0.0, 5.0]]),
        ),
    ],
    more=lambda rng: Case("any sizes", *_queries_and_keys(rng, *rng.integers(2, 6, size=3))),
    hints=[
        "All scores at once are a matrix product of q with the transpose of k. Which shape has it?",
        "`s = q @ k.T / np.sqrt(D)`, with D the number of columns of q.",
        "The softmax is along each row, axis 1: `e = np.exp(s - s.max(axis=1, keepdims=True))`, "
        "divided by its own sum along the row.",
    ],
)


@attention_weights.mutant("The scores are to be divided by the square root of D.")
def not_scaled(q, k):
    return _softmax(q @ k.T)


@attention_weights.mutant("You divided by D; the scores are divided by its square root.")
def divided_by_features(q, k):
    return _softmax(q @ k.T / q.shape[1])


@attention_weights.mutant("You multiplied by the square root of D; the scores are divided by it.")
def multiplied(q, k):
    return _softmax(q @ k.T * np.sqrt(q.shape[1]))


@attention_weights.mutant(
    "Your columns add up to 1. Each query shares out its weight among the keys: the softmax is "
    "along the rows, axis 1."
)
def over_the_queries(q, k):
    return _softmax(q @ k.T / np.sqrt(q.shape[1]), axis=0)


@attention_weights.mutant("All weights together add up to 1; it should be so in each row.")
def over_everything(q, k):
    s = q @ k.T / np.sqrt(q.shape[1])
    e = np.exp(s - s.max())
    return e / e.sum()


@attention_weights.mutant(
    "The root is that of the number of keys; it is that of the number of features, q.shape[1]."
)
def root_of_the_keys(q, k):
    return _softmax(q @ k.T / np.sqrt(len(k)))


@attention_weights.mutant(
    "Large scores overflow to infinity, and infinity / infinity is NaN: subtract the largest score "
    "of each row before the exponential."
)
def overflowing(q, k):
    with np.errstate(all="ignore"):
        e = np.exp(q @ k.T / np.sqrt(q.shape[1]))
        return e / e.sum(axis=1, keepdims=True)


# -- attention --------------------------------------------------------------------------------


def _attention(q, k, v, *, softmax_rule=None, scale_back=True):
    """The look-up with its rules; a setting replaces a part by a mistake."""
    scale = 1 / np.sqrt(q.shape[1])
    p = _softmax(scale * q @ k.T)
    back_scale = scale if scale_back else 1.0

    def back_to_s(dy):
        dp = dy @ v.T
        if softmax_rule is not None:
            return softmax_rule(p, dp)
        return p * (dp - (p * dp).sum(axis=1, keepdims=True))

    def vjp_q(dy):
        return back_scale * back_to_s(dy) @ k

    def vjp_k(dy):
        return back_scale * back_to_s(dy).T @ q

    def vjp_v(dy):
        return p.T @ dy

    return p @ v, (vjp_q, vjp_k, vjp_v)


def attention_reference(q, k, v):
    return _attention(q, k, v)


def _look_up(rng, L, S, D, Dv):
    return rng.normal(size=(L, D)), rng.normal(size=(S, D)), rng.normal(size=(S, Dv))


attention = Exercise(
    "11.attention",
    reference=attention_reference,
    observe=rules,
    cases=[
        Case(
            "one query, two keys",
            np.array([[1.0, 1.0, 0.0, 2.0]]),
            np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.5]]),
            np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]]),
        ),
        Case("two queries, four keys", *_look_up(np.random.default_rng(2), 2, 4, 3, 2)),
        Case("all sizes equal", *_look_up(np.random.default_rng(3), 3, 3, 3, 3)),
    ],
    more=lambda rng: Case("any sizes", *_look_up(rng, *rng.integers(2, 6, size=4))),
    tolerance=1e-6,
    hints=[
        "Write the forward first, with names: s, p, y. Then go back: dy to dv and dp, dp to ds, ds "
        "to dq and dk.",
        "y = p @ v is a matrix product: dv = p.T @ dy and dp = dy @ v.T.",
        "ds = p * (dp - (p * dp).sum(axis=1, keepdims=True)): each row has a mean of its own.",
        "s = q @ k.T / sqrt(D): dq = ds @ k / sqrt(D), dk = ds.T @ q / sqrt(D).",
    ],
)


@attention.mutant("On the way back the division by sqrt(D) is missing in dq and dk.")
def scale_forgotten_in_the_rules(q, k, v):
    return _attention(q, k, v, scale_back=False)


@attention.mutant("The division of the scores by sqrt(D) is missing altogether.")
def without_any_scale(q, k, v):
    return _attention(q * np.sqrt(q.shape[1]), k, v, scale_back=False)


@attention.mutant(
    "You took the softmax's slope to be p * (1 - p), as a sigmoid's. A score also lowers the other "
    "weights of its row: ds = p * (dp - sum(p * dp))."
)
def elementwise_slope(q, k, v):
    return _attention(q, k, v, softmax_rule=lambda p, dp: p * (1 - p) * dp)


@attention.mutant("In ds the row's mean sum(p * dp) is not subtracted.")
def mean_not_subtracted(q, k, v):
    return _attention(q, k, v, softmax_rule=lambda p, dp: p * dp)


@attention.mutant(
    "What is subtracted in ds is the sum of p * dp along each row; you took the plain mean of dp."
)
def plain_mean(q, k, v):
    return _attention(q, k, v, softmax_rule=lambda p, dp: p * (dp - dp.mean(axis=1, keepdims=True)))


@attention.mutant("The sum in ds runs along the keys of each query, axis 1, not along the queries.")
def summed_over_queries(q, k, v):
    return _attention(
        q, k, v, softmax_rule=lambda p, dp: p * (dp - (p * dp).sum(axis=0, keepdims=True))
    )


@attention.mutant("The softmax was left out on the way back: ds is not dp.")
def softmax_passed_by(q, k, v):
    return _attention(q, k, v, softmax_rule=lambda p, dp: dp)


@attention.mutant("The rules of queries and keys are in each other's place.")
def swapped_rules(q, k, v):
    y, (vjp_q, vjp_k, vjp_v) = _attention(q, k, v)
    return y, (vjp_k, vjp_q, vjp_v)


# -- may_look ---------------------------------------------------------------------------------


def may_look_reference(tokens):
    L = tokens.shape[1]
    return np.tril(np.ones((L, L), bool)) & (tokens != 0)[:, None, :]


def _sequences(rng, N, L):
    lengths = rng.integers(1, L + 1, size=N)
    return np.where(np.arange(L) < lengths[:, None], rng.integers(1, 9, size=(N, L)), 0)


may_look = Exercise(
    "11.may_look",
    reference=may_look_reference,
    cases=[
        Case("one sequence of two tokens and one padding", np.array([[5, 7, 0]])),
        Case("two sequences", np.array([[3, 4, 6, 8], [2, 0, 0, 0]])),
        Case("as many sequences as places", np.array([[3, 4, 0], [2, 0, 0], [1, 1, 1]])),
    ],
    more=lambda rng: Case("any batch", _sequences(rng, *rng.integers(2, 7, size=2))),
    hints=[
        "Two conditions, joined by &. Each is an array of booleans; which axes has each?",
        "`np.tril(np.ones((L, L), bool))` is True where j <= i, for row i and column j.",
        "`tokens != 0` is (N, L), and its L is that of the keys, j: `(tokens != 0)[:, None, :]`.",
    ],
)


@may_look.mutant("It is turned round: True is to say that it may look.")
def turned_round(tokens):
    return ~may_look_reference(tokens)


@may_look.mutant("A place may look at itself, too: j <= i, the diagonal belongs to it.")
def without_itself(tokens):
    L = tokens.shape[1]
    return np.tril(np.ones((L, L), bool), -1) & (tokens != 0)[:, None, :]


@may_look.mutant("Yours look ahead: row i is who looks, and may see the columns j up to i.")
def ahead_only(tokens):
    L = tokens.shape[1]
    return np.triu(np.ones((L, L), bool)) & (tokens != 0)[:, None, :]


@may_look.mutant("The padding is hidden, but everyone may look ahead: j <= i is missing.")
def not_causal(tokens):
    N, L = tokens.shape
    return np.broadcast_to((tokens != 0)[:, None, :], (N, L, L))


@may_look.mutant("Nobody looks ahead, but all look at the padding: tokens != 0 is missing.")
def padding_seen(tokens):
    N, L = tokens.shape
    return np.broadcast_to(np.tril(np.ones((L, L), bool)), (N, L, L))


@may_look.mutant(
    "You kept padding from looking; it is to be kept from being looked at, so its axis is the "
    "last one."
)
def padding_on_the_wrong_axis(tokens):
    L = tokens.shape[1]
    return np.tril(np.ones((L, L), bool)) & (tokens != 0)[:, :, None]


# -- places -----------------------------------------------------------------------------------


def _places(length, features, *, frequencies=None, first=0):
    if frequencies is None:
        frequencies = 10000 ** (-2 * np.arange(features // 2) / features)
    angles = np.arange(first, first + length)[:, None] * frequencies
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, -1)


def places_reference(length, features):
    return _places(length, features)


places = Exercise(
    "11.places",
    reference=places_reference,
    cases=[
        Case("three places, two features", 3, 2),
        Case("four places, four features", 4, 4),
        Case("five places, eight features", 5, 8),
    ],
    more=lambda rng: Case("any table", int(rng.integers(2, 30)), 2 * int(rng.integers(2, 9))),
    hints=[
        "There are D / 2 frequencies, one for each pair of features. Make them first.",
        "`np.arange(length)[:, None] * frequencies` holds all angles, (length, D / 2).",
        "Even columns are sines, odd ones cosines: `table[:, 0::2] = np.sin(angles)`.",
    ],
)


@places.mutant("All sines come first and then all cosines; they should take turns, pair by pair.")
def in_two_halves(length, features):
    table = _places(length, features)
    return np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)


@places.mutant("Sine and cosine are in each other's place: even columns are sines.")
def cosines_first(length, features):
    return _places(length, features).reshape(length, -1, 2)[:, :, ::-1].reshape(length, -1)


@places.mutant("The exponent is -2i / D; you wrote -i / D, so frequencies fall half as fast.")
def half_the_exponent(length, features):
    return _places(length, features, frequencies=10000 ** (-np.arange(features // 2) / features))


@places.mutant(
    "Every column has a frequency of its own in yours; the two features of a pair share one, "
    "10000 ** (-2i / D) with i the number of the pair."
)
def frequency_of_the_column(length, features):
    columns = np.arange(features)
    angles = np.arange(length)[:, None] * 10000.0 ** (-2 * columns / features)
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))


@places.mutant("The exponent's sign is turned round: frequencies fall from 1, they do not grow.")
def growing_frequencies(length, features):
    return _places(length, features, frequencies=10000 ** (2 * np.arange(features // 2) / features))


@places.mutant("Places count from 0: the first row is 0, 1, 0, 1, and so on.")
def counted_from_one(length, features):
    return _places(length, features, first=1)


# -- learning_rate ----------------------------------------------------------------------------


def learning_rate_reference(step, features, warmup):
    return features**-0.5 * min(step**-0.5, step * warmup**-1.5)


learning_rate = Exercise(
    "11.learning_rate",
    reference=learning_rate_reference,
    cases=[
        Case("in the warm-up", 100, 64, 400),
        Case("at its end", 400, 64, 400),
        Case("after it", 1600, 64, 400),
        Case("the paper's peak", 4000, 512, 4000),
    ],
    more=lambda rng: Case(
        "any step",
        int(rng.integers(1, 3000)),
        int(rng.integers(8, 600)),
        int(rng.integers(50, 900)),
    ),
    hints=[
        "`step**-0.5` falls and `step * warmup**-1.5` rises. Which of the two is smaller early?",
        "`min` takes the smaller one; both are multiplied by `features**-0.5`.",
    ],
)


@learning_rate.mutant("It is the smaller of the two, min; with max it starts and ends too high.")
def larger_of_both(step, features, warmup):
    return features**-0.5 * max(step**-0.5, step * warmup**-1.5)


@learning_rate.mutant("There is no warm-up in yours: it falls from the first step.")
def no_warm_up(step, features, warmup):
    return features**-0.5 * step**-0.5


@learning_rate.mutant(
    "Yours never comes down again: after the warm-up it is step**-0.5 that counts."
)
def never_down(step, features, warmup):
    return features**-0.5 * step * warmup**-1.5


@learning_rate.mutant("The factor features**-0.5 is missing.")
def features_forgotten(step, features, warmup):
    return min(step**-0.5, step * warmup**-1.5)


@learning_rate.mutant(
    "The rising part is step * warmup**-1.5; with another power the two parts do not meet at the "
    "end of the warm-up."
)
def another_power(step, features, warmup):
    return features**-0.5 * min(step**-0.5, step * warmup**-2.0)


# -- SelfAttention ----------------------------------------------------------------------------


class SelfAttentionReference(nn.Module):
    def __init__(self, features, heads):
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)

    def forward(self, x):
        q, k, v = (self.split(part) for part in self.parts(x))
        return self.out(self.merge(self.weights(q, k) @ v))

    def parts(self, x):
        return self.project(x).chunk(3, dim=-1)

    def split(self, x):
        N, L, D = x.shape
        return x.reshape(N, L, self.heads, D // self.heads).transpose(1, 2)

    def weights(self, q, k):
        return F.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1)

    def merge(self, y):
        N, E, L, d = y.shape
        return y.transpose(1, 2).reshape(N, L, E * d)


def _tokens(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).round(1)


SelfAttention = Exercise(
    "11.SelfAttention",
    reference=SelfAttentionReference,
    observe=module,
    cases=[
        Case("4 features in 2 heads", _tokens(1, 3, 4), features=4, heads=2),
        Case("6 features in 3 heads", _tokens(2, 4, 6), features=6, heads=3),
        Case("one head", _tokens(2, 3, 2), features=2, heads=1),
    ],
    more=lambda rng: Case(
        "8 features", rng.normal(size=(2, 5, 8)), features=8, heads=int(rng.choice([2, 4]))
    ),
    tolerance=1e-6,
    hints=[
        "`self.project = nn.Linear(features, 3 * features)` makes queries, keys and values in one; "
        "`chunk(3, dim=-1)` takes them apart.",
        "Heads: `reshape(N, L, self.heads, d)` cuts the features, then `transpose(1, 2)` puts the "
        "heads in front of the tokens.",
        "`q @ k.transpose(-2, -1)` has shape (N, E, L, L); divide by the root of d, the features "
        "of one head, and take the softmax along the last axis.",
        "Back: `transpose(1, 2)` first, then `reshape(N, L, D)`, then `self.out`.",
    ],
)


@SelfAttention.mutant(
    "`reshape(N, E, L, d)` has the right shape and cuts through the tokens: reshape to "
    "(N, L, E, d), then exchange the axes of tokens and heads."
)
class reshaped_into_heads(SelfAttentionReference):
    def split(self, x):
        N, L, D = x.shape
        return x.reshape(N, self.heads, L, D // self.heads)


@SelfAttention.mutant(
    "The heads are put side by side without exchanging the axes back: transpose(1, 2) comes before "
    "reshape(N, L, D)."
)
class merged_without_transposing(SelfAttentionReference):
    def merge(self, y):
        N, E, L, d = y.shape
        return y.reshape(N, L, E * d)


@SelfAttention.mutant(
    "The scores are divided by the root of all D features; a head has d = D / E of them."
)
class scaled_by_all_features(SelfAttentionReference):
    def weights(self, q, k):
        return F.softmax(q @ k.transpose(-2, -1) / (q.shape[-1] * self.heads) ** 0.5, dim=-1)


@SelfAttention.mutant("The division of the scores by the root of d is missing.")
class scores_not_scaled(SelfAttentionReference):
    def weights(self, q, k):
        return F.softmax(q @ k.transpose(-2, -1), dim=-1)


@SelfAttention.mutant("The softmax is along the keys, the last axis; yours is along the queries.")
class softmax_over_queries(SelfAttentionReference):
    def weights(self, q, k):
        return F.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-2)


@SelfAttention.mutant("Queries come first in the projection, then keys; yours are exchanged.")
class keys_before_queries(SelfAttentionReference):
    def parts(self, x):
        q, k, v = super().parts(x)
        return k, q, v


@SelfAttention.mutant("The last linear layer, `out`, is not applied.")
class without_the_last_layer(SelfAttentionReference):
    def forward(self, x):
        q, k, v = (self.split(part) for part in self.parts(x))
        return self.merge(self.weights(q, k) @ v) + 0 * self.out(x)


@SelfAttention.mutant("All features make one head: they are to be cut into `heads` of them.")
class one_head(SelfAttentionReference):
    def __init__(self, features, heads):
        super().__init__(features, 1)


@SelfAttention.mutant("x is added on top: that belongs to the layer around it.")
class with_a_shortcut(SelfAttentionReference):
    def forward(self, x):
        return x + super().forward(x)
