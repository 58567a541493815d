import math

import numpy as np

import minitorch_attn as mt
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, array_of, module, rules, there

# -- paired_difference ----------------------------------------------------------------------


def paired_difference_reference(a, b):
    d = a - b
    return d.mean(), d.std(ddof=1) / math.sqrt(len(d))


def _accuracies(rng, count):
    """Accuracies that go up and down together from seed to seed."""
    common = rng.uniform(0.6, 0.9, size=count)
    return tuple((common + rng.uniform(-0.05, 0.05, size=count)).round(3) for _ in range(2))


paired_difference = Exercise(
    "30.paired_difference",
    reference=paired_difference_reference,
    cases=[
        Case("the example", np.array([0.8, 0.9]), np.array([0.7, 0.6])),
        Case("three seeds", np.array([0.81, 0.84, 0.79]), np.array([0.8, 0.85, 0.75])),
        Case("five seeds", *_accuracies(np.random.default_rng(0), 5)),
    ],
    more=lambda rng: Case("any seeds", *_accuracies(rng, int(rng.integers(3, 9)))),
    hints=[
        "First the differences, seed by seed: one array. Everything else is about it alone.",
        "The standard deviation with S - 1 below is `d.std(ddof=1)`.",
        "The error of a mean is the standard deviation divided by the root of S.",
    ],
)


@paired_difference.mutant(
    "You took each row's spread by itself. Seeds that are hard for one are hard for the other: in "
    "the differences that cancels."
)
def as_if_not_paired(a, b):
    S = len(a)
    return (a - b).mean(), math.sqrt(a.var(ddof=1) / S + b.var(ddof=1) / S)


@paired_difference.mutant(
    "That is the spread of one seed; the mean of S seeds has 1 / sqrt(S) of it."
)
def spread_for_error(a, b):
    return (a - b).mean(), (a - b).std(ddof=1)


@paired_difference.mutant(
    "Divide the squares by S - 1: their mean is one of the S numbers already."
)
def divided_by_all_seeds(a, b):
    return (a - b).mean(), (a - b).std() / math.sqrt(len(a))


@paired_difference.mutant("The sign is turned round: how much a is ahead of b.")
def turned_round(a, b):
    return (b - a).mean(), (a - b).std(ddof=1) / math.sqrt(len(a))


@paired_difference.mutant("You divided the standard deviation by S, not by its root.")
def root_forgotten(a, b):
    return (a - b).mean(), (a - b).std(ddof=1) / len(a)


@paired_difference.mutant("The squares are averaged, but the root is not taken.")
def variance_for_error(a, b):
    return (a - b).mean(), (a - b).var(ddof=1) / len(a)


@paired_difference.mutant("You forgot the signs: seeds in which a is behind must count against it.")
def without_signs(a, b):
    d = np.abs(a - b)
    return d.mean(), d.std(ddof=1) / math.sqrt(len(d))


# -- luck -----------------------------------------------------------------------------------


def luck_reference(wins, seeds):
    return sum(math.comb(seeds, k) for k in range(wins, seeds + 1)) / 2**seeds


def _any_score(rng):
    seeds = int(rng.integers(3, 13))
    return Case("any score", int(rng.integers(1, seeds)), seeds)


luck = Exercise(
    "30.luck",
    reference=luck_reference,
    cases=[
        Case("two of three", 2, 3),
        Case("all of five", 5, 5),
        Case("four of five", 4, 5),
        Case("none of four, or more", 0, 4),
        Case("three of ten", 3, 10),
    ],
    more=_any_score,
    hints=[
        "Write down the eight ways in which three seeds can fall out. In how many is it ahead "
        "twice or thrice?",
        "`math.comb(seeds, k)` is the number of ways to be ahead in exactly k.",
        "Add those up for k from `wins` to `seeds`, and divide by 2**seeds.",
    ],
)


@luck.mutant("That is exactly so many; `or with more` counts too.")
def exactly_so_many(wins, seeds):
    return math.comb(seeds, wins) / 2**seeds


@luck.mutant("You left out `wins` itself: `range(wins, seeds + 1)` begins with it.")
def more_than_so_many(wins, seeds):
    return luck_reference(wins + 1, seeds)


@luck.mutant("The range stops too early: being ahead in all seeds is one of the ways.")
def without_all(wins, seeds):
    return luck_reference(wins, seeds) - 1 / 2**seeds


@luck.mutant("You added up from 0: that is how likely it is to be ahead so often or more seldom.")
def so_many_or_fewer(wins, seeds):
    return sum(math.comb(seeds, k) for k in range(wins + 1)) / 2**seeds


@luck.mutant("Asked is how likely it is to be ahead; you counted being behind as often, too.")
def both_sides(wins, seeds):
    return min(1.0, 2 * luck_reference(wins, seeds))


@luck.mutant("That is how likely it is to be ahead in `wins` seeds that were named beforehand.")
def named_beforehand(wins, seeds):
    return 0.5**wins


@luck.mutant("These are ways; divide by the 2**seeds that there are in all.")
def ways_not_divided(wins, seeds):
    return float(sum(math.comb(seeds, k) for k in range(wins, seeds + 1)))


# -- holm -----------------------------------------------------------------------------------


def holm_reference(p, level):
    stands_out = np.zeros(len(p), dtype=bool)
    for rank, row in enumerate(np.argsort(p)):
        if p[row] > level / (len(p) - rank):
            break
        stands_out[row] = True
    return stands_out


def _any_p(rng):
    count = int(rng.integers(3, 9))
    level = float(rng.choice([0.05, 0.1]))
    p = level / count * rng.uniform(0.1, 4, size=count)
    return Case("any rows", p.round(4), level)


holm = Exercise(
    "30.holm",
    reference=holm_reference,
    cases=[
        Case("the example", np.array([0.04, 0.01, 0.3]), 0.05),
        Case("one row", np.array([0.04]), 0.05),
        Case("the second is helped by the first", np.array([0.02, 0.3, 0.016]), 0.05),
        Case("two small, two large", np.array([0.018, 0.6, 0.001, 0.7]), 0.05),
        Case(
            "after the first that fails, all fail",
            np.array([0.001, 0.02, 0.024, 0.0245, 0.5]),
            0.05,
        ),
        Case("none", np.array([0.6, 0.2, 0.04]), 0.05),
        Case("all", np.array([0.04, 0.002, 0.02]), 0.05),
        Case("exactly at the limit", np.array([0.5, 0.025]), 0.05),
        Case("larger numbers behind smaller ones", np.array([0.03, 0.04, 0.041, 0.042]), 0.1),
    ],
    more=_any_p,
    hints=[
        "`np.argsort(p)` gives the rows from the smallest p to the largest. Begin with all False.",
        "The k-th of them, counted from 0, is compared with `level / (M - k)`.",
        "At the first that is above its limit, `break`. The others stay False.",
    ],
)


@holm.mutant("Each row is held against the level by itself. Among many, some fall below by luck.")
def no_correction(p, level):
    return p <= level


@holm.mutant(
    "That is Bonferroni's: level / M for all. Holm's second row has one row fewer beside it."
)
def bonferroni(p, level):
    return p <= level / len(p)


@holm.mutant("You went on after a row that did not stand out: with that one it is over.")
def goes_on_after_a_failure(p, level):
    ranks = np.argsort(np.argsort(p))
    return p <= level / (len(p) - ranks)


@holm.mutant("The answers stand in the order of sorted p; give them in the order of the rows.")
def in_sorted_order(p, level):
    return np.sort(holm_reference(p, level))[::-1]


@holm.mutant(
    "You looked for the last row below its limit and took all before it (Hochberg's procedure). "
    "Holm's stops at the first above it."
)
def from_the_other_end(p, level):
    order = np.argsort(p)
    passing = np.flatnonzero(p[order] <= level / (len(p) - np.arange(len(p))))
    stands_out = np.zeros(len(p), dtype=bool)
    if len(passing):
        stands_out[order[: passing[-1] + 1]] = True
    return stands_out


@holm.mutant(
    "The limits level * rank / M are those of false discoveries (Benjamini and Hochberg), where a "
    "share of false alarms is allowed; here not even one is."
)
def share_of_false_alarms(p, level):
    order = np.argsort(p)
    passing = np.flatnonzero(p[order] <= level * np.arange(1, len(p) + 1) / len(p))
    stands_out = np.zeros(len(p), dtype=bool)
    if len(passing):
        stands_out[order[: passing[-1] + 1]] = True
    return stands_out


@holm.mutant("At its very limit a row stands out: p <= level / (M - k).")
def limit_left_out(p, level):
    stands_out = np.zeros(len(p), dtype=bool)
    for rank, row in enumerate(np.argsort(p)):
        if p[row] >= level / (len(p) - rank):
            break
        stands_out[row] = True
    return stands_out


@holm.mutant("You began with the largest p. The smallest comes first.")
def largest_first(p, level):
    stands_out = np.zeros(len(p), dtype=bool)
    for rank, row in enumerate(np.argsort(p)[::-1]):
        if p[row] > level / (len(p) - rank):
            break
        stands_out[row] = True
    return stands_out


# -- not_beaten -----------------------------------------------------------------------------


def not_beaten_reference(accuracy, cost):
    no_worse = (accuracy >= accuracy[:, None]) & (cost <= cost[:, None])
    better = (accuracy > accuracy[:, None]) | (cost < cost[:, None])
    return ~(no_worse & better).any(axis=1)


def _any_rows(rng):
    count = int(rng.integers(4, 9))
    accuracy = rng.choice([0.7, 0.8, 0.85, 0.9], size=count)
    return Case("any rows", accuracy, rng.integers(1, 5, size=count).astype(float))


not_beaten = Exercise(
    "30.not_beaten",
    reference=not_beaten_reference,
    cases=[
        Case("the example", np.array([0.8, 0.9, 0.7]), np.array([1.0, 3.0, 2.0])),
        Case("two that are the same", np.array([0.8, 0.8, 0.7]), np.array([1.0, 1.0, 2.0])),
        Case("as accurate, but dearer", np.array([0.8, 0.8, 0.9]), np.array([1.0, 2.0, 2.5])),
        Case("as dear, but worse", np.array([0.8, 0.9, 0.7]), np.array([1.0, 1.0, 0.5])),
        Case("one row", np.array([0.5]), np.array([2.0])),
        Case(
            "six rows",
            np.array([0.9, 0.7, 0.85, 0.8, 0.7, 0.95]),
            np.array([3.0, 1.0, 2.0, 2.0, 1.5, 6.0]),
        ),
    ],
    more=_any_rows,
    hints=[
        "For one row i: which other rows are no worse in both? And of these, is one better in one?",
        "All pairs at once: `accuracy >= accuracy[:, None]` has row i down and row j across.",
        "`beaten = (no_worse & better).any(axis=1)`, with `better` an *or* of two conditions.",
    ],
)


@not_beaten.mutant(
    "A row that is as good in one and worse in the other is beaten too; you asked for better in "
    "both."
)
def better_in_both(accuracy, cost):
    return ~((accuracy > accuracy[:, None]) & (cost < cost[:, None])).any(axis=1)


@not_beaten.mutant("Every row is beaten by itself, or by its like: one of the two must be better.")
def beaten_by_itself(accuracy, cost):
    return ~((accuracy >= accuracy[:, None]) & (cost <= cost[:, None])).any(axis=1)


@not_beaten.mutant("A cost is better when it is lower.")
def dear_for_cheap(accuracy, cost):
    return not_beaten_reference(accuracy, -cost)


@not_beaten.mutant("These are the rows that are beaten.")
def the_beaten(accuracy, cost):
    return ~not_beaten_reference(accuracy, cost)


@not_beaten.mutant(
    "The table is turned: you found the rows that beat no other, not those that none beats."
)
def beats_no_other(accuracy, cost):
    no_worse = (accuracy >= accuracy[:, None]) & (cost <= cost[:, None])
    better = (accuracy > accuracy[:, None]) | (cost < cost[:, None])
    return ~(no_worse & better).any(axis=0)


@not_beaten.mutant(
    "Of rows that cost the same you kept all: the most accurate of them beats the others."
)
def dearer_ones_alone(accuracy, cost):
    cheaper = cost < cost[:, None]
    return ~((accuracy >= accuracy[:, None]) & cheaper).any(axis=1)


@not_beaten.mutant(
    "Of rows that are as accurate you kept all: the cheapest of them beats the others."
)
def less_accurate_ones_alone(accuracy, cost):
    return ~((accuracy > accuracy[:, None]) & (cost <= cost[:, None])).any(axis=1)


@not_beaten.mutant(
    "You divided one by the other. The best value for money is one row; asked are all that no row "
    "beats in both."
)
def value_for_money(accuracy, cost):
    value = accuracy / cost
    return value == value.max()


@not_beaten.mutant("Of two rows that are the same you kept one: neither beats the other.")
def one_of_two_that_are_the_same(accuracy, cost):
    best, stays = -math.inf, np.zeros(len(cost), dtype=bool)
    for row in np.lexsort((-accuracy, cost)):
        stays[row] = accuracy[row] > best
        best = max(best, accuracy[row])
    return stays


# -- mean_query -----------------------------------------------------------------------------


def _mean_query(x, rule, scale=1.0):
    """The pooling, with a rule made of what it computed."""
    q = x.mean(axis=0)
    e = scale * (x @ q)
    a = np.exp(e - e.max())
    a = a / a.sum()
    return a @ x, lambda dy: rule(x, q, a, dy)


def _three_ways(x, q, a, dy):
    """What goes back through the values, the keys and the query."""
    da = x @ dy
    de = a * (da - a @ da)
    return np.outer(a, dy), np.outer(de, q), np.broadcast_to(de @ x / len(x), x.shape)


def _right_rule(x, q, a, dy):
    return sum(_three_ways(x, q, a, dy))


def mean_query_reference(x):
    return _mean_query(x, _right_rule)


def _places(rng, L, D):
    return (0.7 * rng.normal(size=(L, D))).round(1)


mean_query = Exercise(
    "30.mean_query",
    reference=mean_query_reference,
    observe=rules,
    cases=[
        Case("two places", np.array([[1.0, 0.0], [0.5, 1.0]])),
        Case("as many places as features", _places(np.random.default_rng(0), 3, 3)),
        Case("five places of two features", _places(np.random.default_rng(1), 5, 2)),
        Case(
            "large products", np.array([[30.0, -20.0, 5.0], [31.0, -20.0, 5.0], [29.0, -21.0, 5.0]])
        ),
    ],
    more=lambda rng: Case("any sizes", _places(rng, *rng.integers(2, 6, size=2))),
    hints=[
        "x stands in three places: as the values of the sum, as the keys, and in the query. The "
        "rule adds up what comes back from each.",
        "Values: `np.outer(a, dy)`. The weights: `da = x @ dy`, and through the softmax "
        "`de = a * (da - a @ da)`.",
        "From e_j = q · x_j: `np.outer(de, q)` for the keys, `dq = de @ x` for the query.",
        "q is a mean: each place gets dq / L.",
    ],
)


@mean_query.mutant(
    "The weights are no constants: they were made of x. Yours is the way through the values alone."
)
def weights_as_constants(x):
    return _mean_query(x, lambda *parts: _three_ways(*parts)[0])


@mean_query.mutant("The query is made of x too: dq / L goes back to every place.")
def query_as_a_constant(x):
    return _mean_query(x, lambda *parts: sum(_three_ways(*parts)[:2]))


@mean_query.mutant("The keys are x too: de_j q goes back to place j.")
def keys_as_constants(x):
    def rule(*parts):
        values, _, query = _three_ways(*parts)
        return values + query

    return _mean_query(x, rule)


@mean_query.mutant("The values are x too: a_j dy goes back to place j.")
def values_as_constants(x):
    return _mean_query(x, lambda *parts: sum(_three_ways(*parts)[1:]))


@mean_query.mutant("The query is a mean of L places: each has the share dq / L, not dq.")
def share_forgotten(x):
    def rule(x, *parts):
        values, keys, query = _three_ways(x, *parts)
        return values + keys + len(x) * query

    return _mean_query(x, rule)


@mean_query.mutant(
    "The rule of the softmax lacks its second part: de = a (da - sum of a da). All weights share a "
    "sum, so what one gains the others lose."
)
def softmax_by_elements(x):
    def rule(x, q, a, dy):
        de = a * (x @ dy)
        return np.outer(a, dy) + np.outer(de, q) + de @ x / len(x)

    return _mean_query(x, rule)


@mean_query.mutant(
    "There is no softmax in it: these weights are the products, divided by their sum."
)
def no_exponential(x):
    q = x.mean(axis=0)
    e = x @ q
    return e @ x / e.sum(), lambda dy: np.outer(e / e.sum(), dy)


@mean_query.mutant("The products are not divided by the root of D here.")
def scaled_as_a_transformer(x):
    scale = x.shape[1] ** -0.5

    def rule(x, q, a, dy):
        values, keys, query = _three_ways(x, q, a, dy)
        return values + scale * (keys + query)

    return _mean_query(x, rule, scale)


@mean_query.mutant("The weights are all equal: you returned the mean.")
def plain_mean(x):
    return x.mean(axis=0), lambda dy: np.broadcast_to(dy / len(x), x.shape)


@mean_query.mutant("The query is the mean of the places; you added them up.")
def sum_for_mean(x):
    q = x.sum(axis=0)
    e = x @ q
    a = np.exp(e - e.max())
    a = a / a.sum()

    def vjp_x(dy):
        values, keys, query = _three_ways(x, q, a, dy)
        return values + keys + len(x) * query

    return a @ x, vjp_x


@mean_query.mutant(
    "Products can be large, and their exponentials overflow: subtract the greatest of them first."
)
def greatest_not_subtracted(x):
    q = x.mean(axis=0)
    with np.errstate(all="ignore"):
        a = np.exp(x @ q)
        a = a / a.sum()
    return a @ x, lambda dy: _right_rule(x, q, a, dy)


# -- StartsAsNothing ------------------------------------------------------------------------


class StartsAsNothingReference(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.guest = nn.Conv2d(channels, channels, 3, padding=1)
        self.gamma = nn.Parameter(mt.zeros(1))

    def forward(self, x):
        return x + self.gamma * self.guest(x)


_NAMES = "lambda model: sorted(name for name, _ in model.named_parameters())"
_MOVED = """lambda model: [
    name
    for name, parameter in model.named_parameters()
    if parameter.grad is not None and abs(parameter.grad.numpy()).max() > 0
]"""


def as_it_is_made(subject, case):
    """A fresh module's output, and what moves first; then all that `module` looks at."""
    there(subject, "mt.manual_seed")(case.seed)
    fresh = subject(**case.settings)
    yield "the names of the parameters", there(subject, _NAMES)(fresh)
    y = fresh(there(subject, "mt.tensor")(case.inputs[0]))
    output = array_of(y)
    yield "the output of a new module", output
    if y.requires_grad:
        y.backward(case.cotangent(output))
        yield "the parameters whose gradient is not zero at first", there(subject, _MOVED)(fresh)
    yield from module(subject, case)


StartsAsNothing = Exercise(
    "30.StartsAsNothing",
    reference=StartsAsNothingReference,
    observe=as_it_is_made,
    cases=[
        Case("one channel", np.arange(1.0, 10.0).reshape(1, 1, 3, 3), channels=1),
        Case(
            "two images of three channels",
            np.random.default_rng(0).normal(size=(2, 3, 4, 3)).round(1),
            channels=3,
        ),
    ],
    more=lambda rng: Case(
        "any size", rng.normal(size=(2, 2, *rng.integers(2, 5, size=2))).round(1), channels=2
    ),
    hints=[
        "Two parts: `self.guest`, an `nn.Conv2d` with `padding=1`, and `self.gamma`.",
        "`nn.Parameter(mt.zeros(1))` is a number that is trained and starts at 0.",
        "`return x + self.gamma * self.guest(x)`.",
    ],
)


@StartsAsNothing.mutant("gamma starts at 1: a new guest is heard at once, and the network breaks.")
class starts_at_one(StartsAsNothingReference):
    def __init__(self, channels):
        super().__init__(channels)
        self.gamma = nn.Parameter(mt.ones(1))


@StartsAsNothing.mutant(
    "gamma is a plain number: no optimiser knows of it, and the guest never gets a word in. Make "
    "it an nn.Parameter."
)
class gamma_is_no_parameter(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.guest = nn.Conv2d(channels, channels, 3, padding=1)
        self.gamma = 0.0

    def forward(self, x):
        return x + self.gamma * self.guest(x)


@StartsAsNothing.mutant("x itself is gone: with gamma at 0, nothing passes at all. Add x.")
class without_x(StartsAsNothingReference):
    def forward(self, x):
        return self.gamma * self.guest(x)


@StartsAsNothing.mutant("gamma scales the guest alone; yours scales x a second time.")
class gamma_on_the_sum(StartsAsNothingReference):
    def forward(self, x):
        return x + self.gamma * (x + self.guest(x))


@StartsAsNothing.mutant(
    "gamma and the guest's weight are both 0 at first. Then neither has a gradient, and nothing "
    "ever starts: leave the convolution as it is made."
)
class starts_at_zero_twice(StartsAsNothingReference):
    def __init__(self, channels):
        super().__init__(channels)
        nn.init.zeros_(self.guest.weight)
        nn.init.zeros_(self.guest.bias)
