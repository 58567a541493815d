import numpy as np

from minitorch_attn.course.exercise import Case, Exercise, rules

# -- running --------------------------------------------------------------------------------


def running_reference(s):
    maxima = np.maximum.accumulate(s)
    return maxima, np.array([np.exp(s[: n + 1] - m).sum() for n, m in enumerate(maxima)])


running = Exercise(
    "20.running",
    reference=running_reference,
    cases=[
        Case("one key", np.array([3.0])),
        Case("a maximum that rises at the third key", np.array([0.0, 0.0, np.log(2), 0.0])),
        Case("a maximum that rises twice", np.array([-1.0, 1.0, 0.0, 2.0, 2.0])),
        Case("scores of hundreds", np.array([-800.0, 790.0, 800.0, 799.0])),
    ],
    more=lambda rng: Case("any scores", 3 * rng.normal(size=rng.integers(2, 8))),
    hints=[
        "Keep two numbers, m = -inf and l = 0, and renew both at every score.",
        "When the maximum rises from m to `largest`, each old term exp(s_j - m) becomes "
        "exp(s_j - largest). Which factor lies between the two? It is the same for all terms.",
        "`l = np.exp(m - largest) * l + np.exp(score - largest)`, and only then `m = largest`.",
    ],
)


def _running(s, step):
    m, l = -np.inf, 0.0
    maxima, sums = [], []
    for score in s:
        m, l = step(m, l, score)
        maxima.append(m)
        sums.append(l)
    return np.array(maxima), np.array(sums)


@running.mutant(
    "The old sum is not scaled down when the maximum rises: its terms are relative to the old one."
)
def sum_not_scaled(s):
    return _running(s, lambda m, l, x: (max(m, x), l + np.exp(x - max(m, x))))


@running.mutant(
    "The old sum is scaled up instead of down: the factor is exp(old maximum - new maximum)."
)
def scaled_the_wrong_way(s):
    def step(m, l, x):
        largest = max(m, x)
        factor = np.exp(largest - m) if l else 0.0
        return largest, factor * l + np.exp(x - largest)

    with np.errstate(over="ignore"):
        return _running(s, step)


@running.mutant(
    "The new key counts relative to the old maximum; subtract the new one from its score too."
)
def new_term_relative_to_the_old_maximum(s):
    def step(m, l, x):
        largest = max(m, x)
        return largest, np.exp(m - largest) * l + (np.exp(x - m) if l else 1.0)

    with np.errstate(over="ignore"):
        return _running(s, step)


@running.mutant("When the maximum rises, the new key itself must be counted too: it adds 1.")
def rise_without_its_key(s):
    def step(m, l, x):
        if x > m and l:
            return x, np.exp(m - x) * l
        return max(m, x), l + np.exp(x - max(m, x))

    return _running(s, step)


@running.mutant(
    "You used the maximum of the whole row from the start; after key n only n scores are known."
)
def maximum_of_the_whole_row(s):
    return np.full(len(s), s.max()), np.cumsum(np.exp(s - s.max()))


@running.mutant("No maximum is subtracted: the sums are those of exp(s), which overflow.")
def without_the_maximum(s):
    with np.errstate(over="ignore"):
        return np.maximum.accumulate(s), np.cumsum(np.exp(s))


# -- merge ----------------------------------------------------------------------------------


def merge_reference(m1, l1, a1, m2, l2, a2):
    m = np.maximum(m1, m2)
    shrink1, shrink2 = np.exp(m1 - m), np.exp(m2 - m)
    return m, shrink1 * l1 + shrink2 * l2, shrink1 * a1 + shrink2 * a2


def _part(rng, L, Dv, spread):
    return spread * rng.normal(size=(L, 1)), rng.uniform(1, 5, (L, 1)), rng.normal(size=(L, Dv))


def _two_parts(rng, L, Dv, spread=2.0):
    return *_part(rng, L, Dv, spread), *_part(rng, L, Dv, spread)


merge = Exercise(
    "20.merge",
    reference=merge_reference,
    cases=[
        Case(
            "one query, the second maximum is larger",
            np.array([[0.0]]),
            np.array([[2.0]]),
            np.array([[1.0, 4.0]]),
            np.array([[np.log(2)]]),
            np.array([[1.0]]),
            np.array([[0.5, 1.0]]),
        ),
        Case("four queries", *_two_parts(np.random.default_rng(0), 4, 2)),
        Case("maxima of hundreds", *_two_parts(np.random.default_rng(1), 3, 2, 400.0)),
    ],
    more=lambda rng: Case("any sizes", *_two_parts(rng, *rng.integers(1, 5, size=2))),
    hints=[
        "Of both parts together the maximum is the larger of the two, query by query.",
        "Everything in part 1 is relative to m1; to make it relative to m, multiply by "
        "`np.exp(m1 - m)`. The same for part 2.",
        "`l` and `a` are scaled by the same factor; then the parts are added. Nothing is divided.",
    ],
)


@merge.mutant("The sums are added as they are, though each is relative to a maximum of its own.")
def added_without_scaling(m1, l1, a1, m2, l2, a2):
    return np.maximum(m1, m2), l1 + l2, a1 + a2


@merge.mutant("The two factors are in each other's place: part 1 shrinks by exp(m1 - m).")
def factors_swapped(m1, l1, a1, m2, l2, a2):
    m = np.maximum(m1, m2)
    f1, f2 = np.exp(m2 - m), np.exp(m1 - m)
    return m, f1 * l1 + f2 * l2, f1 * a1 + f2 * a2


@merge.mutant("`a` is not scaled; it is relative to the same maximum as `l`, and needs its factor.")
def values_not_scaled(m1, l1, a1, m2, l2, a2):
    m, l, _ = merge_reference(m1, l1, a1, m2, l2, a2)
    return m, l, a1 + a2


@merge.mutant("You divided by the sum already; that is done once, when all parts have been met.")
def divided_too_early(m1, l1, a1, m2, l2, a2):
    m, l, a = merge_reference(m1, l1, a1, m2, l2, a2)
    return m, l, a / l


@merge.mutant("Only the second part is scaled; where it has the larger maximum, the first must be.")
def relative_to_the_first(m1, l1, a1, m2, l2, a2):
    with np.errstate(over="ignore"):
        f = np.exp(m2 - m1)
        return m1, l1 + f * l2, a1 + f * a2


@merge.mutant("The maximum is taken over all queries; each query has its own.")
def one_maximum_for_all_queries(m1, l1, a1, m2, l2, a2):
    m = np.maximum(m1, m2).max(axis=0, keepdims=True) + 0 * m1
    f1, f2 = np.exp(m1 - m), np.exp(m2 - m)
    return m, f1 * l1 + f2 * l2, f1 * a1 + f2 * a2


# -- forward --------------------------------------------------------------------------------


def _attend(q, k, v, tau=None):
    """y (L, Dv), log_sum (L, 1) and the weights (L, S), at once."""
    tau = 1 / np.sqrt(q.shape[1]) if tau is None else tau
    s = tau * (q @ k.T)
    m = s.max(axis=1, keepdims=True)
    e = np.exp(s - m)
    l = e.sum(axis=1, keepdims=True)
    return e @ v / l, m + np.log(l), e / l


def forward_reference(q, k, v, size):
    return _attend(q, k, v)[:2]


def _sequences(rng, L, S, D, Dv, spread=1.0):
    return (
        spread * rng.normal(size=(L, D)),
        spread * rng.normal(size=(S, D)),
        rng.normal(size=(S, Dv)),
    )


forward = Exercise(
    "20.forward",
    reference=forward_reference,
    cases=[
        Case(
            "one query, two tiles of one key",
            np.array([[1.0]]),
            np.array([[0.0], [2.0]]),
            np.array([[1.0, 0.0], [0.0, 1.0]]),
            1,
        ),
        Case("tiles that divide the keys", *_sequences(np.random.default_rng(0), 3, 4, 4, 2), 2),
        Case("a shorter last tile", *_sequences(np.random.default_rng(1), 4, 5, 2, 3), 2),
        Case("scores of hundreds", *_sequences(np.random.default_rng(2), 3, 6, 4, 2, 25.0), 2),
        Case("a tile that holds all", *_sequences(np.random.default_rng(3), 3, 4, 3, 2), 9),
    ],
    more=lambda rng: Case(
        "any sizes", *_sequences(rng, *rng.integers(2, 7, size=4)), int(rng.integers(1, 4))
    ),
    hints=[
        "Start from m = -inf, l = 0 and a = 0 for every query. Each tile of scores (L, c) renews "
        "all three, as in `running`; the new terms are now sums over the tile's keys.",
        "`range(0, len(k), size)` gives the starts, and NumPy cuts a slice that reaches beyond "
        "the end.",
        "`e = np.exp(s - largest)` has the tile's exponentials: `e.sum(axis=1, keepdims=True)` "
        "goes to l, `e @ v[start : start + size]` to a.",
        "After the last tile: `return a / l, m + np.log(l)`.",
    ],
)


def _forward(q, k, v, size, *, tau=None, scale_l=True, scale_a=True, stop=None, finish=None):
    """Attention in tiles of keys; each setting can be replaced by a mistake."""
    tau = 1 / np.sqrt(q.shape[1]) if tau is None else tau
    m = np.full((len(q), 1), -np.inf)
    l, a = np.zeros((len(q), 1)), np.zeros((len(q), v.shape[1]))
    for start in range(0, len(k) if stop is None else stop, size):
        s = tau * (q @ k[start : start + size].T)
        largest = np.maximum(m, s.max(axis=1, keepdims=True))
        shrink, e = np.exp(m - largest), np.exp(s - largest)
        l = (shrink if scale_l else 1) * l + e.sum(axis=1, keepdims=True)
        a = (shrink if scale_a else 1) * a + e @ v[start : start + size]
        m = largest
    return finish(m, l, a) if finish else (a / l, m + np.log(l))


@forward.mutant("The scores are not divided by the square root of D.")
def without_the_scale(q, k, v, size):
    return _forward(q, k, v, size, tau=1.0)


@forward.mutant("The sum of exponentials is not scaled down when the maximum rises.")
def sum_stays(q, k, v, size):
    return _forward(q, k, v, size, scale_l=False)


@forward.mutant("The sum of values is not scaled down when the maximum rises.")
def values_stay(q, k, v, size):
    return _forward(q, k, v, size, scale_a=False)


@forward.mutant("The keys behind the last full tile are left out; the last tile may be shorter.")
def last_keys_left_out(q, k, v, size):
    full = len(k) // size * size
    if full == 0:
        return np.zeros((len(q), v.shape[1])), np.full((len(q), 1), -np.inf)
    return _forward(q, k, v, size, stop=full)


@forward.mutant("log_sum lacks the maximum: the sum l is relative to it, so m + log(l) is asked.")
def logarithm_without_the_maximum(q, k, v, size):
    return _forward(q, k, v, size, finish=lambda m, l, a: (a / l, np.log(l)))


@forward.mutant("The output is not divided by the sum of the exponentials.")
def not_divided(q, k, v, size):
    return _forward(q, k, v, size, finish=lambda m, l, a: (a, m + np.log(l)))


@forward.mutant(
    "Each tile has a softmax of its own, and their outputs are added: the weights sum to the "
    "number of tiles. The sum of exponentials must run over all of them."
)
def a_softmax_for_every_tile(q, k, v, size):
    tiles = [slice(start, start + size) for start in range(0, len(k), size)]
    y = sum(_attend(q, k[tile], v[tile])[0] for tile in tiles)
    return y, _attend(q, k, v)[1]


# -- score_gradient -------------------------------------------------------------------------


def score_gradient_reference(s, log_sum, v, y, dy):
    p = np.exp(s - log_sum)
    return p * (dy @ v.T - (dy * y).sum(axis=1, keepdims=True))


def _tile(rng, r, S, c, Dv):
    """A tile of c keys out of S, as `score_gradient` gets it."""
    s, v, dy = rng.normal(size=(r, S)), rng.normal(size=(S, Dv)), rng.normal(size=(r, Dv))
    log_sum = np.log(np.exp(s).sum(axis=1, keepdims=True))
    return s[:, :c], log_sum, v[:c], np.exp(s - log_sum) @ v, dy


score_gradient = Exercise(
    "20.score_gradient",
    reference=score_gradient_reference,
    cases=[
        Case(
            "one query, one of two keys of equal scores",
            np.array([[0.0]]),
            np.array([[np.log(2)]]),
            np.array([[4.0]]),
            np.array([[3.0]]),
            np.array([[1.0]]),
        ),
        Case("two of five keys", *_tile(np.random.default_rng(0), 3, 5, 2, 2)),
        Case("as many keys as queries", *_tile(np.random.default_rng(1), 3, 7, 3, 4)),
    ],
    more=lambda rng: Case(
        "any tile", *_tile(rng, *(int(n) for n in rng.integers((2, 5, 2, 2), (5, 8, 5, 5))))
    ),
    hints=[
        "The weights of the tile are `np.exp(s - log_sum)`: log_sum knows of all keys.",
        "Take dy_i out of the sum over all keys. What is left is the sum of p times v: you have "
        "been given that.",
        "`delta = (dy * y).sum(axis=1, keepdims=True)`, one number for each query.",
    ],
)


@score_gradient.mutant(
    "The sum runs over the keys of this tile alone; the softmax couples all keys. dy * y, summed "
    "over the features, knows them all."
)
def sum_over_the_tile(s, log_sum, v, y, dy):
    p, dp = np.exp(s - log_sum), dy @ v.T
    return p * (dp - (p * dp).sum(axis=1, keepdims=True))


@score_gradient.mutant("The sum over all keys is missing: that is the rule of exp, not of softmax.")
def without_the_sum(s, log_sum, v, y, dy):
    return np.exp(s - log_sum) * (dy @ v.T)


@score_gradient.mutant(
    "The weights are normalised within the tile; log_sum holds the sum over all keys."
)
def softmax_of_the_tile(s, log_sum, v, y, dy):
    e = np.exp(s - s.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return p * (dy @ v.T - (dy * y).sum(axis=1, keepdims=True))


@score_gradient.mutant("The factor p is missing: ds is p times the difference.")
def without_the_weights(s, log_sum, v, y, dy):
    return dy @ v.T - (dy * y).sum(axis=1, keepdims=True)


@score_gradient.mutant("dy * y is summed over the queries too; each query has its own sum.")
def one_sum_for_all_queries(s, log_sum, v, y, dy):
    return np.exp(s - log_sum) * (dy @ v.T - (dy * y).sum())


@score_gradient.mutant("The sum is added; it must be subtracted.")
def sum_added(s, log_sum, v, y, dy):
    return np.exp(s - log_sum) * (dy @ v.T + (dy * y).sum(axis=1, keepdims=True))


# -- tiled_attention ------------------------------------------------------------------------


def _tiled(q, k, v, size, *, tau=None, back=None, tile_sum=False, overwrite=False, weights=None):
    """The whole with its rules; each setting can be replaced by a mistake."""
    forward_tau = 1 / np.sqrt(q.shape[1])
    tau = forward_tau if tau is None else tau
    y, log_sum, _ = _attend(q, k, v)

    def backward(dy):
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        for start in range(0, len(k), size):
            keys = slice(start, start + size)
            p = np.exp(forward_tau * (q @ k[keys].T) - log_sum)
            dp = dy @ v[keys].T
            ds = p * (dp - ((p * dp) if tile_sum else (dy * y)).sum(axis=1, keepdims=True))
            if overwrite:
                dq[:] = tau * (ds @ k[keys])
            else:
                dq += tau * (ds @ k[keys])
            dk[keys] = tau * (ds.T @ q)
            dv[keys] = (ds if weights == "ds" else p).T @ dy
        return dq, dk, dv

    order = back or (0, 1, 2)
    return y, tuple(lambda dy, i=i: backward(dy)[i] for i in order)


def tiled_attention_reference(q, k, v, *, size):
    return _tiled(q, k, v, size)


tiled_attention = Exercise(
    "20.tiled_attention",
    reference=tiled_attention_reference,
    observe=rules,
    cases=[
        Case(
            "one query, two tiles of one key",
            np.array([[1.0]]),
            np.array([[0.0], [2.0]]),
            np.array([[1.0], [3.0]]),
            size=1,
        ),
        Case("two tiles", *_sequences(np.random.default_rng(0), 3, 4, 4, 2), size=2),
        Case("a shorter last tile", *_sequences(np.random.default_rng(1), 5, 5, 3, 3), size=2),
        Case("scores of hundreds", *_sequences(np.random.default_rng(2), 2, 6, 4, 2, 15.0), size=4),
    ],
    more=lambda rng: Case(
        "any sizes",
        *_sequences(rng, *rng.integers(2, 7, size=4)),
        size=int(rng.integers(1, 4)),
    ),
    hints=[
        "y and log_sum are what `forward` returns; the rules need nothing else from it.",
        "Write one inner function that goes over the tiles and returns dq, dk and dv; each rule "
        "takes its own: `lambda dy: backward(dy)[0]`.",
        "Every tile adds to dq; dk and dv of the tile's keys come from this tile alone.",
        "With `s = tau * (q @ k[keys].T)` and `ds = score_gradient(...)`: `dq += tau * (ds @ "
        "k[keys])`, `dk[keys] = tau * (ds.T @ q)`, `dv[keys] = np.exp(s - log_sum).T @ dy`.",
    ],
)


@tiled_attention.mutant("The factor 1 / sqrt(D) of the scores is missing in dq and dk.")
def rules_without_the_scale(q, k, v, *, size):
    return _tiled(q, k, v, size, tau=1.0)


@tiled_attention.mutant("Each tile overwrites dq: a query meets every tile, so they add up.")
def overwritten(q, k, v, *, size):
    return _tiled(q, k, v, size, overwrite=True)


@tiled_attention.mutant("The softmax's sum runs over one tile; it is dy * y, summed over features.")
def the_sum_of_one_tile(q, k, v, *, size):
    return _tiled(q, k, v, size, tile_sum=True)


@tiled_attention.mutant("dv is made of the scores' gradient; the values were weighed by p.")
def scores_gradient_for_the_values(q, k, v, *, size):
    return _tiled(q, k, v, size, weights="ds")


@tiled_attention.mutant("The rules of q and k are in each other's place.")
def rules_swapped(q, k, v, *, size):
    return _tiled(q, k, v, size, back=(1, 0, 2))


@tiled_attention.mutant(
    "The gradient passes the softmax as if the weights did not sum to 1: the sum dy * y is missing."
)
def softmax_without_its_sum(q, k, v, *, size):
    y, (_, _, vjp_v) = _tiled(q, k, v, size)
    tau, (_, _, p) = 1 / np.sqrt(q.shape[1]), _attend(q, k, v)
    return y, (
        lambda dy: tau * (p * (dy @ v.T)) @ k,
        lambda dy: tau * (p * (dy @ v.T)).T @ q,
        vjp_v,
    )
