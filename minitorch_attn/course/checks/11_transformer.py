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
        Case(  # numbers of queries, keys and features whose roots differ
            "two queries, three keys",
            np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 2.0, 0.0, 1.0]]),
            np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 0.0]]),
        ),
        Case("one query, four keys", *_queries_and_keys(np.random.default_rng(0), 1, 4, 3)),
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
    "The root is that of the number of queries; it is that of the number of features, q.shape[1]."
)
def root_of_the_queries(q, k):
    return _softmax(q @ k.T / np.sqrt(len(q)))


@attention_weights.mutant(
    "These are the exponentials. Each row is still to be divided by its own sum, so that it adds "
    "up "
    "to 1."
)
def not_divided_by_the_sum(q, k):
    s = q @ k.T / np.sqrt(q.shape[1])
    return np.exp(s - s.max(axis=1, keepdims=True))


@attention_weights.mutant("These are the scores: the softmax of each row is missing.")
def scores_alone(q, k):
    return q @ k.T / np.sqrt(q.shape[1])


@attention_weights.mutant(
    "The scores are divided by their sum, without an exponential: one below 0 would get a negative "
    "weight."
)
def shares_of_the_scores(q, k):
    s = q @ k.T / np.sqrt(q.shape[1])
    return s / s.sum(axis=1, keepdims=True)


@attention_weights.mutant(
    "You divided the weights by the root of D, behind the softmax, so a row no longer adds up to "
    "1. "
    "It is the scores that are divided, before the exponential."
)
def weights_divided(q, k):
    return _softmax(q @ k.T) / np.sqrt(q.shape[1])


@attention_weights.mutant(
    "The largest score is subtracted above, but not in the sum below: both take the same "
    "exponentials."
)
def subtracted_above_alone(q, k):
    s = q @ k.T / np.sqrt(q.shape[1])
    with np.errstate(all="ignore"):
        return np.exp(s - s.max(axis=1, keepdims=True)) / np.exp(s).sum(axis=1, keepdims=True)


@attention_weights.mutant(
    "You have the scores of keys to queries, k @ q.T. Rows are to be queries, L of them, and "
    "columns keys: q @ k.T."
)
def keys_ask(q, k):
    return _softmax(k @ q.T / np.sqrt(q.shape[1]))


@attention_weights.mutant(
    "Large scores overflow to infinity, and infinity / infinity is NaN: subtract the largest score "
    "of each row before the exponential."
)
def overflowing(q, k):
    with np.errstate(all="ignore"):
        e = np.exp(q @ k.T / np.sqrt(q.shape[1]))
        return e / e.sum(axis=1, keepdims=True)


# -- attention --------------------------------------------------------------------------------


def _attention(q, k, v, *, softmax_rule=None, power=-0.5, power_q=None, power_k=None, axis=1):
    """The look-up with its rules; a setting replaces a part by a mistake.

    The scores are multiplied by D to a power; the rules of q and k may have others.
    """
    D = q.shape[1]
    p = _softmax(D**power * q @ k.T, axis=axis)
    scale_q, scale_k = (D ** (power if own is None else own) for own in (power_q, power_k))

    def back_to_s(dy):
        dp = dy @ v.T
        if softmax_rule is not None:
            return softmax_rule(p, dp)
        return p * (dp - (p * dp).sum(axis=axis, keepdims=True))

    def vjp_q(dy):
        return scale_q * back_to_s(dy) @ k

    def vjp_k(dy):
        return scale_k * back_to_s(dy).T @ q

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
            "two queries, three keys",
            np.array([[1.0, 1.0, 0.0, 2.0], [0.0, 1.0, 1.0, -1.0]]),
            np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.5], [1.0, 1.0, 0.0, 0.0]]),
            np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 1.0]]),
        ),
        Case("one query, four keys", *_look_up(np.random.default_rng(2), 1, 4, 3, 2)),
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


@attention.mutant(
    "On the way back the division by sqrt(D) is missing: dq and dk are both divided by it."
)
def scale_forgotten_in_the_rules(q, k, v):
    return _attention(q, k, v, power_q=0, power_k=0)


@attention.mutant("dq is right, but in dk the division by sqrt(D) is missing.")
def scale_forgotten_for_keys(q, k, v):
    return _attention(q, k, v, power_k=0)


@attention.mutant(
    "In yours dq and dk are divided by D, that is, by sqrt(D) twice; once is right, as for the "
    "scores."
)
def scaled_back_twice(q, k, v):
    return _attention(q, k, v, power_q=-1, power_k=-1)


@attention.mutant("The division of the scores by sqrt(D) is missing altogether.")
def without_any_scale(q, k, v):
    return _attention(q, k, v, power=0)


@attention.mutant("You divided by D; the scores, and dq and dk, are divided by its square root.")
def divided_by_all_features(q, k, v):
    return _attention(q, k, v, power=-1)


@attention.mutant(
    "Your weights add up to 1 along the queries. The softmax is along the keys of each query, "
    "axis 1."
)
def softmax_along_the_queries(q, k, v):
    return _attention(q, k, v, axis=0)


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


@attention.mutant(
    "What is subtracted in ds is the sum of p * dp along each row; you took its mean, that is, you "
    "divided by the number of keys, too."
)
def mean_of_the_products(q, k, v):
    return _attention(
        q, k, v, softmax_rule=lambda p, dp: p * (dp - (p * dp).mean(axis=1, keepdims=True))
    )


@attention.mutant("In the sum that ds subtracts, each dp is to be weighted by its p: sum(p * dp).")
def sum_without_weights(q, k, v):
    return _attention(q, k, v, softmax_rule=lambda p, dp: p * (dp - dp.sum(axis=1, keepdims=True)))


@attention.mutant("In ds the sum is added; it is to be subtracted: ds = p * (dp - sum(p * dp)).")
def sum_added(q, k, v):
    return _attention(
        q, k, v, softmax_rule=lambda p, dp: p * (dp + (p * dp).sum(axis=1, keepdims=True))
    )


@attention.mutant(
    "The bracket in ds is right, but the factor p in front of it is missing: ds = p * (dp - ...)."
)
def weight_in_front_forgotten(q, k, v):
    return _attention(q, k, v, softmax_rule=lambda p, dp: dp - (p * dp).sum(axis=1, keepdims=True))


@attention.mutant(
    "The p in front of ds multiplies the sum as well: mind the brackets, p * (dp - sum(p * dp))."
)
def brackets_forgotten(q, k, v):
    return _attention(
        q, k, v, softmax_rule=lambda p, dp: p * dp - (p * dp).sum(axis=1, keepdims=True)
    )


@attention.mutant(
    "The sum in ds runs over the whole array; each query has a sum of its own: axis=1, "
    "keepdims=True."
)
def summed_over_everything(q, k, v):
    return _attention(q, k, v, softmax_rule=lambda p, dp: p * (dp - (p * dp).sum()))


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


@attention.mutant(
    "dv is dy itself in yours: a value counts by its weights, in every query: dv = p.T @ dy."
)
def values_without_weights(q, k, v):
    y, (vjp_q, vjp_k, _) = _attention(q, k, v)
    return y, (vjp_q, vjp_k, lambda dy: dy)


@attention.mutant(
    "What you return first are the weights p; the output is their mean of values, y = p @ v."
)
def weights_returned(q, k, v):
    _, vjps = _attention(q, k, v)
    return _softmax(q @ k.T / np.sqrt(q.shape[1])), vjps


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
        Case("one sequence of three tokens and one padding", np.array([[5, 7, 2, 0]])),
        Case("two sequences", np.array([[3, 4, 6, 8], [2, 0, 0, 0]])),
        Case("as many sequences as places", np.array([[3, 4, 0], [2, 0, 0], [1, 1, 1]])),
        Case("padding in front", np.array([[0, 5, 7], [0, 0, 4]])),
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


@may_look.mutant(
    "The next place, j = i + 1, is shown as well: the decoder would be told the token it is to "
    "name. "
    "Only j <= i may be seen."
)
def one_ahead(tokens):
    L = tokens.shape[1]
    return np.tril(np.ones((L, L), bool), 1) & (tokens != 0)[:, None, :]


@may_look.mutant("Both conditions must hold: join them by &; with | one of them is enough.")
def either_is_enough(tokens):
    L = tokens.shape[1]
    return np.tril(np.ones((L, L), bool)) | (tokens != 0)[:, None, :]


@may_look.mutant("tokens == 0 is the padding: you show that alone. Tokens are where tokens != 0.")
def padding_alone(tokens):
    L = tokens.shape[1]
    return np.tril(np.ones((L, L), bool)) & (tokens == 0)[:, None, :]


@may_look.mutant(
    "The axes of who looks and who is looked at are exchanged: row i is who looks, column j what "
    "it "
    "sees."
)
def axes_exchanged(tokens):
    return may_look_reference(tokens).transpose(0, 2, 1)


@may_look.mutant(
    "This is a mask to be added to the scores, 0 and minus infinity. What is asked for is "
    "booleans, "
    "True where it may look."
)
def to_be_added(tokens):
    return np.where(may_look_reference(tokens), 0.0, -np.inf)


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


@may_look.mutant(
    "There is one mask for all, (L, L); each sequence has padding of its own. "
    "`(tokens != 0)[:, None, :]` has an axis for the rows, and with the mask of places it "
    "broadcasts to (N, L, L)."
)
def one_for_all(tokens):
    return may_look_reference(tokens)[0]


@may_look.mutant(
    "You kept padding from looking, too: its rows are all False. It is enough that nobody looks at "
    "it: `tokens != 0` belongs to the last axis alone."
)
def padding_on_both_axes(tokens):
    return may_look_reference(tokens) & (tokens != 0)[:, :, None]


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


@places.mutant(
    "The frequencies fall too fast: with i counting the pairs, the exponent is -2i / D. You "
    "doubled it "
    "once more."
)
def twice_the_exponent(length, features):
    return _places(
        length, features, frequencies=10000 ** (-4 * np.arange(features // 2) / features)
    )


@places.mutant("The pairs count from 0: the first frequency is 10000 ** 0 = 1.")
def pairs_from_one(length, features):
    pairs = np.arange(1, features // 2 + 1)
    return _places(length, features, frequencies=10000 ** (-2 * pairs / features))


@places.mutant(
    "Your exponents run from 0 to -1, both ends included; -2i / D with i up to D / 2 - 1 ends "
    "before."
)
def to_the_end(length, features):
    frequencies = 10000 ** -np.linspace(0, 1, features // 2)
    return _places(length, features, frequencies=frequencies)


@places.mutant(
    "All pairs turn at one speed in yours: the frequencies are to fall, 10000 ** (-2i / D). (With "
    "// for / every exponent would be 0.)"
)
def one_frequency(length, features):
    return _places(length, features, frequencies=np.ones(features // 2))


@places.mutant("The exponent is to be divided by D, the number of features: -2i / D.")
def exponent_not_divided(length, features):
    return _places(length, features, frequencies=10000.0 ** (-2 * np.arange(features // 2)))


@places.mutant("Every column is a sine in yours; the odd ones are cosines.")
def sines_alone(length, features):
    return np.repeat(_places(length, features)[:, 0::2], 2, axis=1)


@places.mutant(
    "The angle is omega_i * t, in radians; you have a factor 2 pi in it, so the first pair turns "
    "once "
    "a place."
)
def whole_turns(length, features):
    frequencies = 2 * np.pi * 10000 ** (-2 * np.arange(features // 2) / features)
    return _places(length, features, frequencies=frequencies)


@places.mutant(
    "-10000 ** x is -(10000 ** x) in Python: the minus belongs into the exponent, 10000 ** (-x)."
)
def minus_in_front(length, features):
    frequencies = -(10000 ** (2 * np.arange(features // 2) / features))
    return _places(length, features, frequencies=frequencies)


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


@learning_rate.mutant(
    "There is no warm-up in yours: it falls from the first step. If you have taken the smaller of "
    "both parts, look at the power of the warm-up: it is -1.5."
)
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


@learning_rate.mutant("The power of the features is -0.5; you multiplied by the root instead.")
def root_of_the_features(step, features, warmup):
    return features**0.5 * min(step**-0.5, step * warmup**-1.5)


@learning_rate.mutant("You divided by the features; it is by their square root.")
def divided_by_the_features(step, features, warmup):
    return min(step**-0.5, step * warmup**-1.5) / features


@learning_rate.mutant("A power is written **: features**-0.5. You multiplied by -0.5.")
def times_minus_a_half(step, features, warmup):
    return features * -0.5 * min(step**-0.5, step * warmup**-1.5)


@learning_rate.mutant(
    "The power -1.5 is that of the warm-up alone; in yours the step has it, too: step * "
    "warmup**-1.5."
)
def power_of_the_product(step, features, warmup):
    return features**-0.5 * min(step**-0.5, (step * warmup) ** -1.5)


@learning_rate.mutant(
    "warmup**-1.5 multiplies the step, inside min; yours multiplies the smaller of the two."
)
def warmup_outside(step, features, warmup):
    return features**-0.5 * min(step**-0.5, step) * warmup**-1.5


@learning_rate.mutant("Steps count from 1 already: add nothing to them.")
def one_step_ahead(step, features, warmup):
    return learning_rate_reference(step + 1, features, warmup)


@learning_rate.mutant("Steps count from 1: take nothing away from them.")
def one_step_behind(step, features, warmup):
    return learning_rate_reference(step - 1, features, warmup) if step > 1 else 0.0


@learning_rate.mutant(
    "Yours stays at its peak after the warm-up: the falling part is step**-0.5, not warmup**-0.5."
)
def stays_at_the_peak(step, features, warmup):
    return features**-0.5 * min(warmup**-0.5, step * warmup**-1.5)


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
        Case("6 features in 2 heads", _tokens(1, 4, 6), features=6, heads=2),
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


@SelfAttention.mutant("You divided by d itself; the scores are divided by its square root.")
class scaled_by_the_head_without_a_root(SelfAttentionReference):
    def weights(self, q, k):
        return F.softmax(q @ k.transpose(-2, -1) / q.shape[-1], dim=-1)


@SelfAttention.mutant(
    "The scores are divided by the root of the number of heads; it is that of a head's features, d."
)
class scaled_by_the_heads(SelfAttentionReference):
    def weights(self, q, k):
        return F.softmax(q @ k.transpose(-2, -1) / self.heads**0.5, dim=-1)


@SelfAttention.mutant(
    "The scores are divided by the root of the number of tokens; it is that of a head's features, "
    "d."
)
class scaled_by_the_tokens(SelfAttentionReference):
    def weights(self, q, k):
        return F.softmax(q @ k.transpose(-2, -1) / q.shape[-2] ** 0.5, dim=-1)


@SelfAttention.mutant(
    "You divided the weights, behind the softmax; it is the scores that are divided by the root "
    "of d."
)
class weights_divided_in_heads(SelfAttentionReference):
    def weights(self, q, k):
        return F.softmax(q @ k.transpose(-2, -1), dim=-1) / q.shape[-1] ** 0.5


@SelfAttention.mutant("The softmax of the scores is missing.")
class without_softmax(SelfAttentionReference):
    def weights(self, q, k):
        return q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5


@SelfAttention.mutant(
    "The softmax is along the heads, axis 1; it is along the keys, the last axis."
)
class softmax_over_heads(SelfAttentionReference):
    def weights(self, q, k):
        return F.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=1)


@SelfAttention.mutant(
    "The axes of tokens and heads are never exchanged, so in each token the heads ask one another: "
    "`transpose(1, 2)` behind `reshape(N, L, E, d)`."
)
class heads_ask_one_another(SelfAttentionReference):
    def split(self, x):
        N, L, D = x.shape
        return x.reshape(N, L, self.heads, D // self.heads)

    def merge(self, y):
        N, L, E, d = y.shape
        return y.reshape(N, L, E * d)


@SelfAttention.mutant(
    "The features of a head lie side by side: reshape to (N, L, E, d), not to (N, L, d, E)."
)
class every_other_feature(SelfAttentionReference):
    def split(self, x):
        N, L, D = x.shape
        cut = x.reshape(N, L, D // self.heads, self.heads)
        return cut.transpose(2, 3).transpose(1, 2)


@SelfAttention.mutant(
    "You cut the 3 D features into heads first, so a head's queries, keys and values lie side by "
    "side. First `chunk(3, dim=-1)` into queries, keys and values, then each into heads."
)
class cut_into_heads_first(SelfAttentionReference):
    def forward(self, x):
        N, L, D = x.shape
        heads = self.project(x).reshape(N, L, self.heads, 3 * D // self.heads).transpose(1, 2)
        q, k, v = heads.chunk(3, dim=-1)
        return self.out(self.merge(self.weights(q, k) @ v))


@SelfAttention.mutant(
    "Queries come first in the projection, then keys, then values: yours start with values."
)
class values_first(SelfAttentionReference):
    def parts(self, x):
        v, q, k = super().parts(x)
        return q, k, v


@SelfAttention.mutant("The weights average the keys in yours; it is the values: p @ v.")
class mean_of_keys(SelfAttentionReference):
    def forward(self, x):
        q, k, v = (self.split(part) for part in self.parts(x))
        return self.out(self.merge(self.weights(q, k) @ k)) + 0 * v.sum()


@SelfAttention.mutant("There is no mask here: every token may look at every other, also ahead.")
class masked(SelfAttentionReference):
    def weights(self, q, k):
        L = q.shape[-2]
        ahead = np.triu(np.ones((L, L), bool), 1)
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        return F.softmax(F.masked_fill(scores, ahead, -np.inf), dim=-1)
