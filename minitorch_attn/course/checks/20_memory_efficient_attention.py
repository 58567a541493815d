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


@running.mutant(
    "You started from m = 0; before the first key m is -inf, for scores may be negative."
)
def maximum_from_zero(s):
    def step(m, l, x):
        m, largest = max(m, 0.0), max(m, x, 0.0)
        return largest, np.exp(m - largest) * l + np.exp(x - largest)

    return _running(s, step)


@running.mutant(
    "The first key counts twice: if you start from m = s[0] and l = 1, begin the loop at the "
    "second key."
)
def first_key_twice(s):
    def step(m, l, x):
        m, l, largest = (m, l, max(m, x)) if l else (x, 1.0, x)
        return largest, np.exp(m - largest) * l + np.exp(x - largest)

    return _running(s, step)


@running.mutant(
    "The new term is scaled as well: exp(m - largest) is for the old sum alone, as the new term "
    "has `largest` in its exponent from the start."
)
def new_term_scaled_too(s):
    def step(m, l, x):
        largest = max(m, x)
        return largest, np.exp(m - largest) * (l + np.exp(x - largest)) if l else 1.0

    return _running(s, step)


@running.mutant("Each key adds 1; it adds exp(s_n - m_n), which is 1 only for the largest score.")
def one_for_each_key(s):
    return _running(s, lambda m, l, x: (max(m, x), np.exp(m - max(m, x)) * l + 1))


@running.mutant("A key that does not raise the maximum is passed over; it adds exp(s_n - m_n).")
def smaller_scores_passed_over(s):
    return _running(s, lambda m, l, x: (x, np.exp(m - x) * l + 1) if x > m else (m, l))


@running.mutant("The latest score takes the maximum's place, though it may be smaller.")
def latest_for_the_largest(s):
    with np.errstate(over="ignore"):
        return _running(s, lambda m, l, x: (x, np.exp(m - x) * l + 1))


@running.mutant("You gave the logarithms, m + log(l); here the sums l themselves are asked.")
def logarithms_of_the_sums(s):
    m, l = running_reference(s)
    return m, m + np.log(l)


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


@merge.mutant("The factors are upside down: exp(m1 - m), at most 1, leads from m1 to m.")
def factors_upside_down(m1, l1, a1, m2, l2, a2):
    m = np.maximum(m1, m2)
    with np.errstate(over="ignore"):
        f1, f2 = np.exp(m - m1), np.exp(m - m2)
        return m, f1 * l1 + f2 * l2, f1 * a1 + f2 * a2


@merge.mutant("All is relative to m2; where the first part has the larger maximum, take that.")
def relative_to_the_second(m1, l1, a1, m2, l2, a2):
    with np.errstate(over="ignore"):
        f = np.exp(m1 - m2)
        return m2, f * l1 + l2, f * a1 + a2


@merge.mutant("Only the first part is scaled; where it has the larger maximum, the second must be.")
def second_not_scaled(m1, l1, a1, m2, l2, a2):
    m = np.maximum(m1, m2)
    f = np.exp(m1 - m)
    return m, f * l1 + l2, f * a1 + a2


@merge.mutant("The part with the larger maximum is taken alone; the other has keys that count too.")
def larger_part_alone(m1, l1, a1, m2, l2, a2):
    first = m1 >= m2
    return np.maximum(m1, m2), np.where(first, l1, l2), np.where(first, a1, a2)


@merge.mutant(
    "A mean of a1 and a2, weighted by l, is what joins *outputs* a / l; the sums a are added, "
    "scaled like l."
)
def mean_of_the_sums(m1, l1, a1, m2, l2, a2):
    m = np.maximum(m1, m2)
    l1, l2 = np.exp(m1 - m) * l1, np.exp(m2 - m) * l2
    return m, l1 + l2, (l1 * a1 + l2 * a2) / (l1 + l2)


@merge.mutant("The factors are exp(m1) and exp(m2), which overflow; m must be subtracted in them.")
def factors_without_the_maximum(m1, l1, a1, m2, l2, a2):
    with np.errstate(over="ignore"):
        f1, f2 = np.exp(m1), np.exp(m2)
        return np.maximum(m1, m2), f1 * l1 + f2 * l2, f1 * a1 + f2 * a2


@merge.mutant("You gave m + log(l) for l; the sum itself is asked, relative to m.")
def logarithm_for_the_sum(m1, l1, a1, m2, l2, a2):
    m, l, a = merge_reference(m1, l1, a1, m2, l2, a2)
    return m, m + np.log(l), a


@merge.mutant(
    "`max(m1, m2)` asks which of two arrays is larger; `np.maximum` compares query by query.",
    raises=True,
)
def larger_of_two_arrays(m1, l1, a1, m2, l2, a2):
    m = max(m1, m2)
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


def _forward(
    q, k, v, size, *, tau=None, scale_l=True, scale_a=True, stop=None, finish=None, largest_of=None
):
    """Attention in tiles of keys; each setting can be replaced by a mistake."""
    tau = 1 / np.sqrt(q.shape[1]) if tau is None else tau
    m = np.full((len(q), 1), -np.inf)
    l, a = np.zeros((len(q), 1)), np.zeros((len(q), v.shape[1]))
    for start in range(0, len(k) if stop is None else stop, size):
        s = tau * (q @ k[start : start + size].T)
        highest = s.max(axis=1, keepdims=True)
        largest = largest_of(m, highest) if largest_of else np.maximum(m, highest)
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


@forward.mutant("The scores are divided by D; the scale is 1 over its square root.")
def divided_by_the_width(q, k, v, size):
    return _forward(q, k, v, size, tau=1 / q.shape[1])


@forward.mutant("The scale is made of the number of keys; it is 1 over the root of the features D.")
def scale_of_the_keys(q, k, v, size):
    return _forward(q, k, v, size, tau=1 / np.sqrt(len(k)))


@forward.mutant(
    "`largest` is the maximum of this tile alone: after a larger one exp(m - largest) grows, and "
    "overflows for scores of hundreds. Take the larger of m and the tile's."
)
def maximum_of_the_tile_alone(q, k, v, size):
    with np.errstate(over="ignore", invalid="ignore"):
        return _forward(q, k, v, size, largest_of=lambda m, highest: highest)


@forward.mutant("No maximum is subtracted: exp(s) overflows for scores of hundreds.")
def exponentials_of_the_scores(q, k, v, size):
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(q @ k.T / np.sqrt(q.shape[1]))
        l = e.sum(axis=1, keepdims=True)
        return e @ v / l, np.log(l)


@forward.mutant(
    "The output is divided by l after every tile, and then scaled as if it were not: keep a whole, "
    "and divide once, after the last."
)
def divided_after_every_tile(q, k, v, size):
    tau, m, l, a = 1 / np.sqrt(q.shape[1]), -np.inf, 0, 0
    for start in range(0, len(k), size):
        s = tau * (q @ k[start : start + size].T)
        largest = np.maximum(m, s.max(axis=1, keepdims=True))
        shrink, e = np.exp(m - largest), np.exp(s - largest)
        l = shrink * l + e.sum(axis=1, keepdims=True)
        a = (shrink * a + e @ v[start : start + size]) / l
        m = largest
    return a, m + np.log(l)


@forward.mutant(
    "The tiles' outputs are averaged as if all weighed the same; a tile with larger scores weighs "
    "more."
)
def mean_of_the_tiles(q, k, v, size):
    tiles = [slice(start, start + size) for start in range(0, len(k), size)]
    y = np.mean([_attend(q, k[tile], v[tile])[0] for tile in tiles], axis=0)
    return y, _attend(q, k, v)[1]


@forward.mutant(
    "Only the last tile is left: start m, l and a once, before the loop, and let each turn end "
    "with `m = largest`, or the next takes the factor exp(-inf - largest) = 0."
)
def started_anew_at_every_tile(q, k, v, size):
    last = slice((len(k) - 1) // size * size, None)
    return _attend(q, k[last], v[last])[:2]


@forward.mutant("The maximum is subtracted in log_sum: l is exp(-m) times the sum, so m is added.")
def maximum_subtracted_in_the_logarithm(q, k, v, size):
    return _forward(q, k, v, size, finish=lambda m, l, a: (a / l, np.log(l) - m))


@forward.mutant("You returned the sum l; log_sum is m + log(l).")
def sum_for_its_logarithm(q, k, v, size):
    return _forward(q, k, v, size, finish=lambda m, l, a: (a / l, l))


@forward.mutant("A tile of keys meets all values; cut the values as you cut the keys.", raises=True)
def values_not_cut(q, k, v, size):
    e = np.exp(q @ k[:size].T / np.sqrt(q.shape[1]))
    return e @ v / e.sum(axis=1, keepdims=True), np.log(e.sum(axis=1, keepdims=True))


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
            "one query, two of three keys, which weigh 1/4 and 1/2",
            np.array([[0.0, np.log(2)]]),
            np.array([[np.log(4)]]),
            np.array([[4.0], [2.0]]),
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


@score_gradient.mutant(
    "The scores' exponentials are not divided by their sum: p is exp(s - log_sum)."
)
def weights_not_normalised(s, log_sum, v, y, dy):
    return np.exp(s) * (dy @ v.T - (dy * y).sum(axis=1, keepdims=True))


@score_gradient.mutant("You divided by log_sum; it is a logarithm: p is exp(s - log_sum).")
def divided_by_the_logarithm(s, log_sum, v, y, dy):
    return np.exp(s) / log_sum * (dy @ v.T - (dy * y).sum(axis=1, keepdims=True))


@score_gradient.mutant("The exponent is negated: the weights are exp(s - log_sum), below 1.")
def exponent_negated(s, log_sum, v, y, dy):
    return np.exp(log_sum - s) * (dy @ v.T - (dy * y).sum(axis=1, keepdims=True))


@score_gradient.mutant("The factor p stands before dp alone; it multiplies the whole difference.")
def weights_before_the_first_term(s, log_sum, v, y, dy):
    return np.exp(s - log_sum) * (dy @ v.T) - (dy * y).sum(axis=1, keepdims=True)


@score_gradient.mutant(
    "p (1 - p) is how a score moves its own weight; it lowers those of the other keys as well."
)
def own_weight_alone(s, log_sum, v, y, dy):
    p = np.exp(s - log_sum)
    return p * (1 - p) * (dy @ v.T)


@score_gradient.mutant(
    "The outputs are summed without dy: the sum over all keys is that of dy * y."
)
def outputs_without_their_gradient(s, log_sum, v, y, dy):
    return np.exp(s - log_sum) * (dy @ v.T - y.sum(axis=1, keepdims=True))


@score_gradient.mutant(
    "dy @ y.T pairs every query with every other; each needs its own dot product alone: "
    "(dy * y).sum(axis=1, keepdims=True).",
    raises=True,
)
def queries_paired(s, log_sum, v, y, dy):
    return np.exp(s - log_sum) * (dy @ v.T - dy @ y.T)


# -- tiled_attention ------------------------------------------------------------------------


def _tiled(
    q,
    k,
    v,
    size,
    *,
    tau=None,
    again=None,
    back=None,
    tile_sum=False,
    overwrite=False,
    weights=None,
    first_alone=False,
):
    """The whole with its rules; each setting can be replaced by a mistake."""
    forward_tau = 1 / np.sqrt(q.shape[1])
    tau = forward_tau if tau is None else tau
    y, log_sum, _ = _attend(q, k, v)

    def backward(dy):
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        for start in range(0, len(k), size):
            keys = slice(start, start + size)
            p = np.exp((again or forward_tau) * (q @ k[keys].T) - log_sum)
            if weights == "tile":
                p = p / p.sum(axis=1, keepdims=True)
            dp = dy @ v[keys].T
            ds = p * (dp - ((p * dp) if tile_sum else (dy * y)).sum(axis=1, keepdims=True))
            if overwrite:
                dq[:] = tau * (ds @ k[keys])
            else:
                dq += tau * (ds @ k[keys])
            dk[keys] = tau * (ds.T @ q)
            dv[keys] = (ds if weights == "ds" else p).T @ dy
            if first_alone:
                break
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


@tiled_attention.mutant(
    "The scores of the backward pass lack the factor 1 / sqrt(D) of the forward."
)
def scores_again_without_the_scale(q, k, v, *, size):
    return _tiled(q, k, v, size, again=1.0)


@tiled_attention.mutant("dq and dk have the factor 1 / sqrt(D) twice: it is in them once.")
def scale_twice(q, k, v, *, size):
    return _tiled(q, k, v, size, tau=1 / q.shape[1])


@tiled_attention.mutant(
    "In the backward pass each tile's weights are normalised to 1; with log_sum, which knows all "
    "keys, they are exp(s - log_sum)."
)
def weights_of_the_tile_alone(q, k, v, *, size):
    return _tiled(q, k, v, size, weights="tile")


@tiled_attention.mutant("Only the first tile is met: `return` belongs behind the loop, not in it.")
def first_tile_alone(q, k, v, *, size):
    return _tiled(q, k, v, size, first_alone=True)


@tiled_attention.mutant(
    "The rule of q gives dv. If you made the rules in a loop: a lambda reads its `i` when it is "
    "called, after the loop, so write `lambda dy, i=i: ...`. If not, look at their order: q, k, v."
)
def rules_of_a_loop(q, k, v, *, size):
    return _tiled(q, k, v, size, back=(2, 2, 2))


@tiled_attention.mutant(
    "dk lacks the factor 1 / sqrt(D), which dq has: the scores hold it for both."
)
def keys_without_the_scale(q, k, v, *, size):
    y, (vjp_q, vjp_k, vjp_v) = _tiled(q, k, v, size)
    return y, (vjp_q, lambda dy: np.sqrt(q.shape[1]) * vjp_k(dy), vjp_v)


@tiled_attention.mutant(
    "A rule finds what the rule before it has added: make dq, dk and dv anew, of zeros, inside the "
    "inner function."
)
def sums_kept_between_the_rules(q, k, v, *, size):
    y, rules_of = _tiled(q, k, v, size)
    return y, tuple(lambda dy, n=n, rule=rule: n * rule(dy) for n, rule in enumerate(rules_of, 1))
