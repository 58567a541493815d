import math
from collections import Counter

import numpy as np

from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules

# -- masked_softmax -------------------------------------------------------------------------


def _softmax(e, axis=1):
    alpha = np.exp(e - e.max(axis=axis, keepdims=True))
    return alpha / alpha.sum(axis=axis, keepdims=True)


def _softmax_rule(alpha, *, mean=lambda alpha, dalpha: (alpha * dalpha).sum(1, keepdims=True)):
    return lambda dalpha: alpha * (dalpha - mean(alpha, dalpha))


def masked_softmax_reference(e, *, mask):
    alpha = _softmax(np.where(mask, e, -1e30))
    return alpha, _softmax_rule(alpha)


def _scored(rng, N, L):
    lengths = rng.integers(1, L, size=N, endpoint=True)
    return rng.normal(size=(N, L)), np.arange(L) < lengths[:, None]


def _scores(label, rng, N, L):
    e, mask = _scored(rng, N, L)
    return Case(label, e, mask=mask)


masked_softmax = Exercise(
    "10.masked_softmax",
    reference=masked_softmax_reference,
    observe=rules,
    cases=[
        Case(
            "three places, one masked",
            np.array([[0.0, 1.0, 3.0]]),
            mask=np.array([[True, True, False]]),
        ),
        _scores("three sources of some lengths", np.random.default_rng(0), 3, 4),
        Case(
            "a gap in the middle",
            np.array([[0.5, 2.0, -1.0], [1.0, 0.0, -1.0]]),
            mask=np.array([[True, False, True], [True, True, True]]),
        ),
        Case(
            "large scores",
            np.array([[1000.0, 999.0, 1200.0]]),
            mask=np.array([[True, True, False]]),
        ),
    ],
    more=lambda rng: _scores("any sizes", rng, *rng.integers(2, 6, size=2)),
    hints=[
        "The mask acts on the scores: what may not be looked at gets a score that is lower than "
        "any, `np.where(mask, e, -1e30)`.",
        "Subtract the largest score of each row before the exponential; the weights stay the same.",
        "In the rule, `(alpha * dalpha).sum(axis=1, keepdims=True)` is the mean of dalpha with the "
        "weights alpha. Subtract it from dalpha and multiply by alpha.",
    ],
)


@masked_softmax.mutant("The mask is not used: the padding gets a share of the weights.")
def mask_ignored(e, *, mask):
    alpha = _softmax(e)
    return alpha, _softmax_rule(alpha)


@masked_softmax.mutant(
    "You masked the weights after the softmax, so they do not add up to 1: mask the scores."
)
def masked_after(e, *, mask):
    alpha = _softmax(e)
    rule = _softmax_rule(alpha)
    return alpha * mask, lambda dalpha: rule(dalpha * mask)


@masked_softmax.mutant("A masked score of 0 is a score like any other; it must be far below all.")
def score_of_zero(e, *, mask):
    alpha = _softmax(np.where(mask, e, 0.0))
    rule = _softmax_rule(alpha)
    return alpha, lambda dalpha: rule(dalpha) * mask


@masked_softmax.mutant("The mask is the wrong way round: it is true where one may look.")
def mask_turned_round(e, *, mask):
    alpha = _softmax(np.where(mask, -1e30, e))
    return alpha, _softmax_rule(alpha)


@masked_softmax.mutant("The softmax is over the batch; each row has weights that add up to 1.")
def over_the_batch(e, *, mask):
    alpha = _softmax(np.where(mask, e, -1e30), axis=0)
    return alpha, lambda dalpha: alpha * (dalpha - (alpha * dalpha).sum(0, keepdims=True))


@masked_softmax.mutant("exp of a large score overflows: subtract the largest of its row first.")
def overflowing(e, *, mask):
    with np.errstate(all="ignore"):
        alpha = np.exp(e) * mask
        alpha = alpha / alpha.sum(axis=1, keepdims=True)
    return alpha, _softmax_rule(alpha)


@masked_softmax.mutant(
    "alpha (1 - alpha) is the slope of one weight by its own score. Every score moves all the "
    "weights of its row: subtract the sum of alpha * dalpha."
)
def diagonal_alone(e, *, mask):
    alpha, _ = masked_softmax_reference(e, mask=mask)
    return alpha, lambda dalpha: dalpha * alpha * (1 - alpha)


@masked_softmax.mutant("The sum that is subtracted has the weights alpha in it, not dalpha alone.")
def unweighted_mean(e, *, mask):
    alpha, _ = masked_softmax_reference(e, mask=mask)
    return alpha, _softmax_rule(alpha, mean=lambda alpha, dalpha: dalpha.sum(1, keepdims=True))


@masked_softmax.mutant("The sum that is subtracted is that of each row, not of the whole batch.")
def mean_of_the_batch(e, *, mask):
    alpha, _ = masked_softmax_reference(e, mask=mask)
    return alpha, _softmax_rule(alpha, mean=lambda alpha, dalpha: (alpha * dalpha).sum())


@masked_softmax.mutant("The sum that is subtracted runs over the places (axis 1), not the batch.")
def mean_of_a_column(e, *, mask):
    alpha, _ = masked_softmax_reference(e, mask=mask)
    return alpha, _softmax_rule(alpha, mean=lambda alpha, dalpha: (alpha * dalpha).sum(axis=0))


@masked_softmax.mutant(
    "What is subtracted is the mean of dalpha with the weights alpha, not its plain mean."
)
def plain_mean(e, *, mask):
    alpha, _ = masked_softmax_reference(e, mask=mask)
    return alpha, _softmax_rule(alpha, mean=lambda alpha, dalpha: dalpha.mean(1, keepdims=True))


@masked_softmax.mutant(
    "The factor alpha in front of the bracket is missing: a place without weight gets no gradient."
)
def factor_forgotten(e, *, mask):
    alpha, _ = masked_softmax_reference(e, mask=mask)
    return alpha, lambda dalpha: dalpha - (alpha * dalpha).sum(axis=1, keepdims=True)


# -- additive_attention ---------------------------------------------------------------------


def _additive(
    s,
    m,
    w,
    u,
    v,
    *,
    weigh=_softmax,
    bend=np.tanh,
    slope=lambda z: 1 - z**2,
    value=1.0,
    key=1.0,
    gather=np.sum,
    mean=lambda alpha, dalpha: (alpha * dalpha).sum(1, keepdims=True),
    back=None,
    read=None,
):
    """The whole, with the rules of query and memory; each setting can be replaced by a mistake."""
    z = bend((s @ w.T)[:, None] + m @ u.T)
    alpha = weigh(z @ v)
    c = np.einsum("nl,nld->nd", alpha, m)

    def back_to_a(dc):
        dalpha = np.einsum("nld,nd->nl", m, dc)
        de = _softmax_rule(alpha, mean=mean)(dalpha) if back is None else back(alpha, dalpha)
        return de[:, :, None] * (v if read is None else read) * slope(z)

    def vjp_s(dc):
        return gather(back_to_a(dc), axis=1) @ w

    def vjp_m(dc):
        return value * alpha[:, :, None] * dc[:, None] + key * back_to_a(dc) @ u

    return c, (vjp_s, vjp_m)


def additive_attention_reference(s, m, *, w, u, v):
    return _additive(s, m, w, u, v)


def _looked_up(label, rng, N, L, Dq, D, A):
    return Case(
        label,
        rng.normal(size=(N, Dq)),
        rng.normal(size=(N, L, D)),
        w=rng.normal(size=(A, Dq)),
        u=rng.normal(size=(A, D)),
        v=rng.normal(size=A) + 0.5,
    )


additive_attention = Exercise(
    "10.additive_attention",
    reference=additive_attention_reference,
    observe=rules,
    cases=[
        Case(
            "two queries, two places each of one feature, one unit",
            np.array([[0.5], [-1.0]]),
            np.array([[[1.0], [-1.0]], [[2.0], [0.5]]]),
            w=np.array([[1.0]]),
            u=np.array([[0.5]]),
            v=np.array([2.0]),
        ),
        _looked_up("two queries, three places", np.random.default_rng(1), 2, 3, 2, 3, 4),
        _looked_up("all sizes alike", np.random.default_rng(2), 3, 3, 3, 3, 3),
    ],
    more=lambda rng: _looked_up("any sizes", rng, *rng.integers(2, 5, size=5)),
    tolerance=1e-6,
    hints=[
        "`(s @ w.T)[:, None]` is (N, 1, A) and `m @ u.T` is (N, L, A): their sum broadcasts over "
        "the places.",
        "Go back one letter at a time: dalpha (N, L) is the inner product of each place with dc; "
        "de comes from the rule of the softmax; da = de v (1 - z ** 2), (N, L, A).",
        "The query takes part in the scores of all places: ds = (sum of da over the places) @ w.",
        "The memory is averaged *and* scored: dm = alpha dc + da @ u.",
    ],
)


@additive_attention.mutant(
    "The memory reaches the context on two paths, and you followed the first, the value: the key "
    "path da @ u, through the scores, is missing."
)
def key_path_forgotten(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, key=0.0)


@additive_attention.mutant(
    "The memory is also what is averaged: the value path alpha * dc is missing in its gradient."
)
def value_path_forgotten(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, value=0.0)


@additive_attention.mutant("The two paths of the memory add up; you subtracted one.")
def key_path_subtracted(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, key=-1.0)


@additive_attention.mutant("The tanh is missing: without it the query shifts all scores alike.")
def no_tanh(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, bend=lambda a: a, slope=np.ones_like)


@additive_attention.mutant("The slope of tanh, 1 - z ** 2, is missing on the way back.")
def slope_forgotten(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, slope=np.ones_like)


@additive_attention.mutant("z is a tanh, so its slope is 1 - z ** 2; z (1 - z) is a sigmoid's.")
def slope_of_a_sigmoid(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, slope=lambda z: z * (1 - z))


@additive_attention.mutant("The query acts on all places: sum da over them, do not average.")
def mean_over_places(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, gather=np.mean)


@additive_attention.mutant("The softmax is over the places of each query, not over the batch.")
def softmax_over_the_batch(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, weigh=lambda e: _softmax(e, axis=0))


@additive_attention.mutant("The scores themselves are used as weights: the softmax is missing.")
def no_softmax(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, weigh=lambda e: e)


@additive_attention.mutant(
    "On the way back through the softmax the sum of alpha * dalpha is to be subtracted."
)
def softmax_without_its_mean(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, mean=lambda alpha, dalpha: 0.0)


@additive_attention.mutant("The weights of each query add up to 1; yours do so over the batch.")
def softmax_over_all(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, weigh=lambda e: np.exp(e) / np.exp(e).sum())


@additive_attention.mutant(
    "dalpha was taken for de: the rule of the softmax, exercise 1, comes between them."
)
def rule_of_the_softmax_forgotten(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, back=lambda alpha, dalpha: dalpha)


@additive_attention.mutant(
    "alpha (1 - alpha) is the slope of one weight by its own score; every score moves all weights."
)
def softmax_by_its_diagonal(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, back=lambda alpha, dalpha: alpha * (1 - alpha) * dalpha)


@additive_attention.mutant("e = z @ v, so da has the factor v; it is missing on the way back.")
def readout_forgotten(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, read=1.0)


@additive_attention.mutant("z is the tanh already: its slope is 1 - z ** 2, without another tanh.")
def tanh_taken_twice(s, m, *, w, u, v):
    return _additive(s, m, w, u, v, slope=lambda z: 1 - np.tanh(z) ** 2)


@additive_attention.mutant(
    "On the value path a place gets dc times its weight alpha; the weight is missing."
)
def value_without_its_weight(s, m, *, w, u, v):
    c, (vjp_s, vjp_m) = _additive(s, m, w, u, v, value=0.0)
    return c, (vjp_s, lambda dc: dc[:, None] + vjp_m(dc))


# -- MultiplicativeAttention ----------------------------------------------------------------


class MultiplicativeAttentionReference(nn.Module):
    def __init__(self, query_size, memory_size):
        super().__init__()
        self.query = nn.Linear(query_size, memory_size, bias=False)
        self.softmax = nn.MaskedSoftmax()

    def forward(self, query, memory, mask=None):
        weights = self.softmax(self.scores(query, memory), mask)
        return (weights.unsqueeze(1) @ memory).squeeze(1)

    def scores(self, query, memory):
        return (memory @ self.query(query).unsqueeze(2)).squeeze(2)


def _asked(label, rng, sizes, masked):
    N, L, Dq, D = sizes
    inputs = [rng.normal(size=(N, Dq)).round(1), rng.normal(size=(N, L, D)).round(1)]
    if masked:
        inputs.append(_scored(rng, N, L)[1])
    return Case(label, *inputs, query_size=int(Dq), memory_size=int(D))


MultiplicativeAttention = Exercise(
    "10.MultiplicativeAttention",
    reference=MultiplicativeAttentionReference,
    observe=module,
    cases=[
        _asked("one query, two places", np.random.default_rng(3), (1, 2, 2, 3), masked=False),
        _asked("three queries, with a mask", np.random.default_rng(4), (3, 5, 3, 4), masked=True),
        _asked("all sizes alike", np.random.default_rng(5), (3, 3, 3, 3), masked=True),
    ],
    more=lambda rng: _asked("any sizes", rng, rng.integers(2, 6, size=4), masked=True),
    tolerance=1e-6,
    hints=[
        "In `__init__`, after `super().__init__()`: `self.query`, an `nn.Linear` without bias. "
        "From which size to which, so that its output has an inner product with a place?",
        "`self.query = nn.Linear(query_size, memory_size, bias=False)`, and "
        "`self.softmax = nn.MaskedSoftmax()`.",
        "`memory @ self.query(query).unsqueeze(2)` is (N, L, D) @ (N, D, 1); squeeze axis 2 away "
        "and you have scores (N, L).",
        "The context is (N, 1, L) @ (N, L, D): `(weights.unsqueeze(1) @ memory).squeeze(1)`.",
    ],
)


@MultiplicativeAttention.mutant("`nn.Linear` has a bias unless it is told `bias=False`.")
class bias_left_in(MultiplicativeAttentionReference):
    def __init__(self, query_size, memory_size):
        super().__init__(query_size, memory_size)
        self.query = nn.Linear(query_size, memory_size)


@MultiplicativeAttention.mutant("The mask is not used: give it to the softmax.")
class mask_not_used(MultiplicativeAttentionReference):
    def forward(self, query, memory, mask=None):
        return super().forward(query, memory)


@MultiplicativeAttention.mutant(
    "You masked the weights after the softmax, so they do not add up to 1: give it the mask."
)
class mask_after_the_softmax(MultiplicativeAttentionReference):
    def forward(self, query, memory, mask=None):
        weights = self.softmax(self.scores(query, memory), None)
        weights = weights if mask is None else weights * mask
        return (weights.unsqueeze(1) @ memory).squeeze(1)


@MultiplicativeAttention.mutant(
    "Scores times the mask: a score of 0 is a score like any other. Give the softmax the mask."
)
class scores_times_the_mask(MultiplicativeAttentionReference):
    def forward(self, query, memory, mask=None):
        scores = self.scores(query, memory)
        weights = self.softmax(scores if mask is None else scores * mask, None)
        return (weights.unsqueeze(1) @ memory).squeeze(1)


@MultiplicativeAttention.mutant("The scores themselves are used as weights: no softmax was taken.")
class scores_as_weights(MultiplicativeAttentionReference):
    def forward(self, query, memory, mask=None):
        return (self.scores(query, memory).unsqueeze(1) @ memory).squeeze(1)


@MultiplicativeAttention.mutant("There is no tanh in this score: that is the additive one's.")
class tanh_left_in(MultiplicativeAttentionReference):
    def scores(self, query, memory):
        return (memory @ self.query(query).tanh().unsqueeze(2)).squeeze(2)


@MultiplicativeAttention.mutant("The mask is true where one may look: do not turn it round.")
class mask_inverted(MultiplicativeAttentionReference):
    def forward(self, query, memory, mask=None):
        return super().forward(query, memory, None if mask is None else ~mask)


@MultiplicativeAttention.mutant(
    "The scores are divided by the root of the size: that is the Transformer's (lesson 11); "
    "Luong's are not."
)
class scores_scaled(MultiplicativeAttentionReference):
    def scores(self, query, memory):
        return super().scores(query, memory) / math.sqrt(memory.shape[2])


@MultiplicativeAttention.mutant("The weights come back; asked is the context, their mean of m.")
class weights_alone(MultiplicativeAttentionReference):
    def forward(self, query, memory, mask=None):
        return self.softmax(self.scores(query, memory), mask)


@MultiplicativeAttention.mutant(
    "The memory was detached: as a key or a value, it must get its gradient on both paths."
)
class memory_detached(MultiplicativeAttentionReference):
    def scores(self, query, memory):
        return super().scores(query, memory.detach())


# -- beam_step ------------------------------------------------------------------------------


def _beam_step(log_p, step_log_p, has_ended, *, price=0.0, choose=None):
    B, K = step_log_p.shape
    step_log_p = np.where(has_ended[:, None], -np.inf, step_log_p)
    step_log_p[has_ended, 0] = price
    total = (log_p[:, None] + step_log_p).ravel()
    best = np.argsort(-total, kind="stable")[:B] if choose is None else choose(total, B, K)
    return best // K, best % K, total[best]


def beam_step_reference(log_p, step_log_p, has_ended):
    return _beam_step(log_p, step_log_p, has_ended)


def _beams(label, rng, sizes, ended):
    B, K = sizes
    step_log_p = rng.normal(size=(B, K))
    step_log_p -= np.log(np.exp(step_log_p).sum(axis=1, keepdims=True))
    has_ended = np.arange(B) < ended
    return Case(label, np.sort(-rng.exponential(size=B))[::-1].copy(), step_log_p, has_ended)


beam_step = Exercise(
    "10.beam_step",
    reference=beam_step_reference,
    cases=[
        Case(
            "two beams, two tokens",
            np.log([0.6, 0.4]),
            np.log([[0.5, 0.5], [0.9, 0.1]]),
            np.array([False, False]),
        ),
        Case(
            "both go on from the second",
            np.log([0.5, 0.4]),
            np.log([[0.2, 0.2, 0.2, 0.2, 0.2], [0.02, 0.5, 0.4, 0.04, 0.04]]),
            np.array([False, False]),
        ),
        Case(
            "the first has ended",
            np.log([0.5, 0.4]),
            np.log([[0.1, 0.2, 0.7], [0.2, 0.7, 0.1]]),
            np.array([True, False]),
        ),
        _beams("four beams of six tokens, one ended", np.random.default_rng(6), (4, 6), ended=1),
    ],
    more=lambda rng: _beams("any sizes", rng, rng.integers(3, 6, size=2), ended=rng.integers(3)),
    hints=[
        "The log-probability of a text is the sum of those of its tokens: `log_p[:, None] + "
        "step_log_p` has all B K ways to go on.",
        "Flatten it; `np.argsort(-total, kind='stable')[:B]` are the numbers of the best, the best "
        "first. From a number in the flat array, beam and token are `// K` and `% K`.",
        "For a beam that has ended, set its row of step_log_p to minus infinity, but for token 0, "
        "where it is 0. Work on a copy.",
    ],
)


@beam_step.mutant("You kept the best way on of each beam; the B best are looked for among all.")
def one_of_each_beam(log_p, step_log_p, has_ended):
    def choose(total, B, K):
        best = np.arange(B) * K + total.reshape(B, K).argmax(axis=1)
        return best[np.argsort(-total[best], kind="stable")]

    return _beam_step(log_p, step_log_p, has_ended, choose=choose)


@beam_step.mutant("The beams' own log-probabilities are missing: the step's are added to them.")
def past_forgotten(log_p, step_log_p, has_ended):
    return _beam_step(np.zeros_like(log_p), step_log_p, has_ended)


@beam_step.mutant("Logarithms of probabilities are added, not multiplied.")
def logarithms_multiplied(log_p, step_log_p, has_ended):
    B, K = step_log_p.shape
    total = (log_p[:, None] * step_log_p).ravel()
    best = np.argsort(-total, kind="stable")[:B]
    return best // K, best % K, total[best]


@beam_step.mutant("These are the B worst: the greatest log-probability is the best.")
def the_worst(log_p, step_log_p, has_ended):
    return _beam_step(
        log_p, step_log_p, has_ended, choose=lambda total, B, K: np.argsort(total)[:B]
    )


@beam_step.mutant("Beam and token are exchanged: a beam has K numbers, so it is `best // K`.")
def beam_and_token_exchanged(log_p, step_log_p, has_ended):
    beam, token, total = beam_step_reference(log_p, step_log_p, has_ended)
    return token, beam, total


@beam_step.mutant("A beam that has ended goes on with padding alone, at no price.")
def ended_ones_go_on(log_p, step_log_p, has_ended):
    return _beam_step(log_p, step_log_p, np.zeros_like(has_ended))


@beam_step.mutant(
    "A beam that has ended was dropped; it keeps its place while it is among the best."
)
def ended_ones_dropped(log_p, step_log_p, has_ended):
    return _beam_step(log_p, step_log_p, has_ended, price=-np.inf)


@beam_step.mutant("The right ways on, but not in their order: asked is the best first.")
def best_not_first(log_p, step_log_p, has_ended):
    def choose(total, B, K):
        return np.sort(np.argsort(-total, kind="stable")[:B])

    return _beam_step(log_p, step_log_p, has_ended, choose=choose)


@beam_step.mutant(
    "Each beam keeps its own best way on; the B best are looked for among all, the best first."
)
def one_of_each_beam_in_place(log_p, step_log_p, has_ended):
    def choose(total, B, K):
        return np.arange(B) * K + total.reshape(B, K).argmax(axis=1)

    return _beam_step(log_p, step_log_p, has_ended, choose=choose)


@beam_step.mutant(
    "Of equals the last comes first: turning an argsort round turns them round, too. Sort -total."
)
def last_of_equals(log_p, step_log_p, has_ended):
    def choose(total, B, K):
        return np.argsort(total, kind="stable")[::-1][:B]

    return _beam_step(log_p, step_log_p, has_ended, choose=choose)


@beam_step.mutant("A beam has K numbers in the flat array: `// K` and `% K`, not B.")
def divided_by_beams(log_p, step_log_p, has_ended):
    beam, token, total = beam_step_reference(log_p, step_log_p, has_ended)
    B, K = step_log_p.shape
    best = beam * K + token
    return best // B, best % B, total


@beam_step.mutant("Free of charge is a logarithm of 0; 1 is the probability.")
def probability_for_logarithm(log_p, step_log_p, has_ended):
    return _beam_step(log_p, step_log_p, has_ended, price=1.0)


@beam_step.mutant("A beam that has ended goes on in one way only; you let it take every token.")
def every_token_free(log_p, step_log_p, has_ended):
    free = np.where(has_ended[:, None], 0.0, step_log_p)
    return beam_step_reference(log_p, free, np.zeros_like(has_ended))


@beam_step.mutant(
    "A beam that has ended may take token 0 alone: all its other tokens are minus infinity."
)
def other_tokens_left(log_p, step_log_p, has_ended):
    left = step_log_p.copy()
    left[has_ended, 0] = 0.0
    return beam_step_reference(log_p, left, np.zeros_like(has_ended))


# -- bleu -----------------------------------------------------------------------------------


def _runs(text, n):
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def _bleu(
    texts,
    references,
    max_order,
    *,
    common=lambda ours, theirs: sum((ours & theirs).values()),
    brevity=lambda C, R: min(1.0, math.exp(1 - R / C)),
    average=lambda precisions: math.prod(precisions) ** (1 / len(precisions)),
    runs=_runs,
    share=lambda shared, ours, theirs: sum(shared) / sum(map(Counter.total, ours)),
):
    precisions = []
    for n in range(1, max_order + 1):
        ours, theirs = ([runs(text, n) for text in side] for side in (texts, references))
        shared = [common(*both) for both in zip(ours, theirs)]
        precisions.append(share(shared, ours, theirs) if any(shared) else 0.0)
    return brevity(sum(map(len, texts)), sum(map(len, references))) * average(precisions)


def bleu_reference(texts, references, max_order):
    return _bleu(texts, references, max_order)


def _corpus(label, rng, count, max_order):
    texts, references = [], []
    for _ in range(count):
        wanted = rng.choice(list("abc"), size=rng.integers(6, 12))
        ours = np.where(rng.random(len(wanted)) < 0.2, "a", wanted)[: rng.integers(5, 12)]
        texts.append("".join(ours))
        references.append("".join(wanted))
    return Case(label, texts, references, max_order)


bleu = Exercise(
    "10.bleu",
    reference=bleu_reference,
    cases=[
        Case("one text, runs of one and two", ["aab"], ["abc"], 2),
        Case("a letter too often", ["aaaa"], ["abab"], 1),
        Case("too short", ["abcd"], ["abcdef"], 2),
        Case("too long", ["abcdefff"], ["abcdef"], 2),
        Case("nothing shared", ["abc"], ["xyz"], 2),
        Case("two texts of two lengths", ["1979-05-03", "2001-1"], ["1979-05-13", "2001-11-20"], 4),
    ],
    more=lambda rng: _corpus("any texts", rng, int(rng.integers(1, 4)), int(rng.integers(1, 4))),
    hints=[
        "`Counter(text[i : i + n] for i in range(len(text) - n + 1))` counts the runs of n.",
        "`ours & theirs` of two Counters keeps of each run the smaller count: no run is shared "
        "more often than the reference has it.",
        "Add up shared runs and all runs over the corpus for each n, then divide.",
        "At the end, multiply the product to the power 1 / max_order by `min(1, exp(1 - R / C))`.",
    ],
)


@bleu.mutant("A run counts no more often than the reference has it: take the smaller count.")
def not_clipped(texts, references, max_order):
    def common(ours, theirs):
        return sum(count for run, count in ours.items() if run in theirs)

    return _bleu(texts, references, max_order, common=common)


@bleu.mutant("You counted which runs are shared, each once; they count as often as they come.")
def each_run_once(texts, references, max_order):
    return _bleu(
        texts, references, max_order, common=lambda ours, theirs: len(set(ours) & set(theirs))
    )


@bleu.mutant("The brevity penalty is missing: a text that is too short pays.")
def no_brevity_penalty(texts, references, max_order):
    return _bleu(texts, references, max_order, brevity=lambda C, R: 1.0)


@bleu.mutant("A text that is too long gets no bonus: the penalty is at most 1.")
def bonus_for_length(texts, references, max_order):
    return _bleu(texts, references, max_order, brevity=lambda C, R: math.exp(1 - R / C))


@bleu.mutant("In the penalty R, the references' length, is divided by C, the texts'.")
def penalty_turned_round(texts, references, max_order):
    return _bleu(texts, references, max_order, brevity=lambda C, R: min(1.0, math.exp(1 - C / R)))


@bleu.mutant("The p_n are multiplied (a geometric mean), not averaged.")
def arithmetic_mean(texts, references, max_order):
    return _bleu(texts, references, max_order, average=lambda p: sum(p) / len(p))


@bleu.mutant("The root is missing: the product is taken to the power 1 / max_order.")
def no_root(texts, references, max_order):
    return _bleu(texts, references, max_order, average=math.prod)


@bleu.mutant("Counts are added over the corpus before they are divided; yours is a mean of texts.")
def mean_over_texts(texts, references, max_order):
    scores = [_bleu([text], [wanted], max_order) for text, wanted in zip(texts, references)]
    return sum(scores) / len(scores)


@bleu.mutant("The shared runs are divided by all runs of the texts, not of the references.")
def divided_by_the_references(texts, references, max_order):
    def share(shared, ours, theirs):
        return sum(shared) / sum(map(Counter.total, theirs))

    return _bleu(texts, references, max_order, share=share)


@bleu.mutant("The last run is missing: a text has len(text) - n + 1 runs of n.")
def last_run_forgotten(texts, references, max_order):
    def runs(text, n):
        return Counter(text[i : i + n] for i in range(len(text) - n))

    return _bleu(texts, references, max_order, runs=runs)


@bleu.mutant("Each p_n is a share in the whole corpus; yours is the mean of the texts' shares.")
def shares_averaged(texts, references, max_order):
    def share(shared, ours, theirs):
        return sum(a / b.total() for a, b in zip(shared, ours) if a) / len(ours)

    return _bleu(texts, references, max_order, share=share)


@bleu.mutant("The root is that of max_order numbers, 1 / max_order; not always the fourth.")
def always_the_fourth_root(texts, references, max_order):
    return _bleu(texts, references, max_order, average=lambda p: math.prod(p) ** 0.25)


@bleu.mutant("A p_n of 0 makes BLEU 0; you left it out of the product.")
def zeros_left_out(texts, references, max_order):
    def average(p):
        return math.prod(x for x in p if x) ** (1 / len(p))

    return _bleu(texts, references, max_order, average=average)


@bleu.mutant("You counted *different* runs, as a set does; a run counts as often as it comes.")
def sets_of_runs(texts, references, max_order):
    return _bleu(texts, references, max_order, runs=lambda text, n: Counter(set(_runs(text, n))))
