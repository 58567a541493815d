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
        Case("the example", np.array([0.8, 0.9, 0.7]), np.array([0.7, 0.5, 0.6])),
        Case("two seeds", np.array([0.81, 0.84]), np.array([0.8, 0.85])),
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


@paired_difference.mutant("Asked are the mean and then its error; you gave the error first.")
def error_first(a, b):
    return paired_difference_reference(a, b)[::-1]


@paired_difference.mutant("You added up the squares and took the root; divide by S (S - 1) before.")
def squares_not_divided(a, b):
    d = a - b
    return d.mean(), math.sqrt(((d - d.mean()) ** 2).sum())


@paired_difference.mutant(
    "You squared the differences themselves. The error tells how far they lie from their mean: "
    "subtract it first."
)
def mean_not_subtracted(a, b):
    d, S = a - b, len(a)
    return d.mean(), math.sqrt((d**2).sum() / (S * (S - 1)))


@paired_difference.mutant("S - 1 stands in it once, and S once; you divided by S - 1 twice.")
def one_less_twice(a, b):
    d = a - b
    return d.mean(), d.std(ddof=1) / math.sqrt(len(d) - 1)


@paired_difference.mutant(
    "`1 / S * (S - 1)` multiplies by S - 1: put the product below in brackets."
)
def product_without_brackets(a, b):
    d, S = a - b, len(a)
    return d.mean(), math.sqrt(1 / S * (S - 1) * ((d - d.mean()) ** 2).sum())


@paired_difference.mutant(
    "That is the variance of one seed. Its root is the spread of one seed, and the mean of S seeds "
    "has 1 / sqrt(S) of that."
)
def variance_of_one_seed(a, b):
    return (a - b).mean(), (a - b).var(ddof=1)


@paired_difference.mutant(
    "You divided by S twice: `std()` divides the squares by S, not by S - 1, and the error of the "
    "mean is the spread by the root of S."
)
def all_seeds_and_no_root(a, b):
    return (a - b).mean(), (a - b).std() / len(a)


@paired_difference.mutant(
    "You took each row's spread by itself, and its squares divided by S. Take the differences, "
    "seed by seed, and S - 1."
)
def not_paired_by_all_seeds(a, b):
    return (a - b).mean(), math.sqrt((a.var() + b.var()) / len(a))


@paired_difference.mutant(
    "You sorted the rows first. The pairs are gone then: a[s] and b[s] come from the same seed."
)
def sorted_first(a, b):
    return paired_difference_reference(np.sort(a), np.sort(b))


@paired_difference.mutant("That is the gain as a share of b; asked is the difference a - b.")
def share_of_b(a, b):
    return paired_difference_reference(a / b, np.ones_like(b))


@paired_difference.mutant("The differences are added up; their mean is asked.")
def sum_of_differences(a, b):
    mean, error = paired_difference_reference(a, b)
    return len(a) * mean, error


@paired_difference.mutant("That is twice the error, half the width of a range; the error is asked.")
def two_errors(a, b):
    mean, error = paired_difference_reference(a, b)
    return mean, 2 * error


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
        Case("the example", 4, 6),
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


@luck.mutant("You began one too early: `range(wins, seeds + 1)` begins with `wins`.")
def one_too_early(wins, seeds):
    return luck_reference(max(wins - 1, 0), seeds)


@luck.mutant("`//` rounds down to a whole number, and a probability below 1 to 0: divide with `/`.")
def rounded_down(wins, seeds):
    return luck_reference(wins, seeds) // 1


@luck.mutant("`^` is no power in Python (it compares bits): write `2**seeds`.")
def caret_for_power(wins, seeds):
    ways = sum(math.comb(seeds, k) for k in range(wins, seeds + 1))
    return ways / (2 ^ seeds) if 2 ^ seeds else math.inf


@luck.mutant("With two outcomes for each seed there are 2**seeds ways in all, not 2 * seeds.")
def twice_the_seeds(wins, seeds):
    return sum(math.comb(seeds, k) for k in range(wins, seeds + 1)) / (2 * seeds)


@luck.mutant("With two outcomes for each seed there are 2**seeds ways in all, not seeds**2.")
def square_of_the_seeds(wins, seeds):
    return sum(math.comb(seeds, k) for k in range(wins, seeds + 1)) / seeds**2


@luck.mutant("All the seeds fall out one way or the other: divide by 2**seeds, not by 2**wins.")
def divided_by_the_wins(wins, seeds):
    return sum(math.comb(seeds, k) for k in range(wins, seeds + 1)) / 2**wins


@luck.mutant(
    "You divided each number of ways by 2**k. All the ways are equally likely, whatever k: divide "
    "by 2**seeds."
)
def divided_by_each_number(wins, seeds):
    return sum(math.comb(seeds, k) / 2**k for k in range(wins, seeds + 1))


@luck.mutant(
    "`math.perm` counts orders; in which order the seeds are won is the same here: `math.comb`."
)
def orders_for_ways(wins, seeds):
    return sum(math.perm(seeds, k) for k in range(wins, seeds + 1)) / 2**seeds


@luck.mutant("The arguments are turned round: `math.comb(seeds, k)` chooses k of the seeds.")
def choice_turned_round(wins, seeds):
    return sum(math.comb(k, seeds) for k in range(wins, seeds + 1)) / 2**seeds


@luck.mutant(
    "You counted numbers of wins, as if all were equally likely. There are many ways to be ahead "
    "in half of the seeds, and one to be ahead in all."
)
def all_numbers_alike(wins, seeds):
    return (seeds - wins + 1) / (seeds + 1)


@luck.mutant(
    "That is the share of seeds in which it was ahead; asked is how likely luck makes it so large."
)
def share_of_wins(wins, seeds):
    return wins / seeds


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


@holm.mutant(
    "You went through the rows as they stand. Take them from the smallest p to the largest: "
    "`np.argsort(p)`."
)
def as_they_stand(p, level):
    passing = p <= level / (len(p) - np.arange(len(p)))
    return np.logical_and.accumulate(passing)


@holm.mutant(
    "`np.argsort(p)` tells which row comes k-th, not which rank a row has. Go through it: "
    "`for k, row in enumerate(np.argsort(p))`. And after the first failure it is over."
)
def order_for_ranks(p, level):
    return p <= level / (len(p) - np.argsort(p))


@holm.mutant(
    "Your limits are one step ahead: the first is level / M, and you began with level / (M - 1)."
)
def one_row_too_few(p, level):
    stands_out = np.zeros(len(p), dtype=bool)
    for rank, row in enumerate(np.argsort(p)):
        if p[row] > level / max(len(p) - rank - 1, 1):
            break
        stands_out[row] = True
    return stands_out


@holm.mutant(
    "Your limits are one step behind: the first is level / M, and you began with level / (M + 1)."
)
def one_row_too_many(p, level):
    stands_out = np.zeros(len(p), dtype=bool)
    for rank, row in enumerate(np.argsort(p)):
        if p[row] > level / (len(p) - rank + 1):
            break
        stands_out[row] = True
    return stands_out


@holm.mutant(
    "Your limits become stricter, level / (k + 1). They begin with level / M, the strictest, and "
    "end with the level itself."
)
def limits_turned_round(p, level):
    stands_out = np.zeros(len(p), dtype=bool)
    for rank, row in enumerate(np.argsort(p)):
        if p[row] > level / (rank + 1):
            break
        stands_out[row] = True
    return stands_out


@holm.mutant("You marked a row before you looked: the first that fails its limit stands out too.")
def marked_before_the_test(p, level):
    stands_out = np.zeros(len(p), dtype=bool)
    for rank, row in enumerate(np.argsort(p)):
        stands_out[row] = True
        if p[row] > level / (len(p) - rank):
            break
    return stands_out


@holm.mutant("The last row never gets its turn: the loop ends one row too early.")
def without_the_last(p, level):
    stands_out = holm_reference(p, level)
    stands_out[np.argsort(p)[-1]] = False
    return stands_out


@holm.mutant(
    "The level itself must stay: each limit is level / (M - k), not the last limit divided."
)
def level_divided_on_and_on(p, level):
    stands_out = np.zeros(len(p), dtype=bool)
    for rank, row in enumerate(np.argsort(p)):
        level = level / (len(p) - rank)
        if p[row] > level:
            break
        stands_out[row] = True
    return stands_out


@holm.mutant("These are the numbers of the rows that stand out; give True or False for every row.")
def numbers_of_rows(p, level):
    return np.flatnonzero(holm_reference(p, level))


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


@not_beaten.mutant(
    "Better in one is not enough to beat a row: the other must be no worse in the second, too. "
    "Both conditions hold at once (`and`, `&`)."
)
def better_in_either(accuracy, cost):
    better = (accuracy > accuracy[:, None]) | (cost < cost[:, None])
    return ~better.any(axis=1)


@not_beaten.mutant(
    "You asked for no worse in one *or* the other. To beat, a row must be no worse in both (`and`, "
    "`&`)."
)
def no_worse_in_either(accuracy, cost):
    no_worse = (accuracy >= accuracy[:, None]) | (cost <= cost[:, None])
    np.fill_diagonal(no_worse, False)
    return ~no_worse.any(axis=1)


@not_beaten.mutant(
    "You dropped the rows that are better in one and not in the other. Those are no better: each "
    "has something that the other has not."
)
def better_in_one_alone(accuracy, cost):
    better = (accuracy > accuracy[:, None]) ^ (cost < cost[:, None])
    return ~better.any(axis=1)


@not_beaten.mutant("One row that is better suffices to beat: `any`, not `all`.")
def beaten_by_all(accuracy, cost):
    no_worse = (accuracy >= accuracy[:, None]) & (cost <= cost[:, None])
    better = (accuracy > accuracy[:, None]) | (cost < cost[:, None])
    return ~(no_worse & better).all(axis=1)


@not_beaten.mutant(
    "The answers stand in the order of the costs; give them in the order of the rows."
)
def in_order_of_costs(accuracy, cost):
    return not_beaten_reference(accuracy, cost)[np.argsort(cost, kind="stable")]


@not_beaten.mutant("Those are the numbers of the rows; give True or False for every row.")
def numbers_of_rows_not_beaten(accuracy, cost):
    return np.flatnonzero(not_beaten_reference(accuracy, cost))


@not_beaten.mutant(
    "The most accurate row is one of them, but a cheaper one need not be beaten by it."
)
def most_accurate_alone(accuracy, cost):
    return accuracy == accuracy.max()


@not_beaten.mutant(
    "You kept the most accurate and the cheapest. Between them may be others that none beats."
)
def the_two_ends(accuracy, cost):
    return (accuracy == accuracy.max()) | (cost == cost.min())


@not_beaten.mutant(
    "You held each row against the mean. A row is beaten by another row, not by what is usual."
)
def against_the_mean(accuracy, cost):
    return (accuracy >= accuracy.mean()) & (cost <= cost.mean())


@not_beaten.mutant("You held all against the first row alone; any row may beat any other.")
def against_the_first(accuracy, cost):
    no_worse = (accuracy[0] >= accuracy) & (cost[0] <= cost)
    return ~(no_worse & ((accuracy[0] > accuracy) | (cost[0] < cost)))


@not_beaten.mutant("You held each row against the one before it alone; any row may beat any other.")
def against_the_one_before(accuracy, cost):
    return np.append(True, accuracy[1:] > accuracy[:-1])


@not_beaten.mutant(
    "That is a table of pairs, row against row: put together what it says of each row."
)
def table_of_pairs(accuracy, cost):
    no_worse = (accuracy >= accuracy[:, None]) & (cost <= cost[:, None])
    return ~(no_worse & ((accuracy > accuracy[:, None]) | (cost < cost[:, None])))


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
        Case("two places", np.array([[1.0, 0.0, 2.0], [0.5, 1.0, -1.0]])),
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


def _rule_by(from_weights):
    """The rule with a step of its own from `da` back to `de`."""

    def rule(x, q, a, dy):
        de = from_weights(a, x @ dy)
        return np.outer(a, dy) + np.outer(de, q) + de @ x / len(x)

    return rule


@mean_query.mutant(
    "The softmax has a rule, too: between da and de stands de = a (da - sum of a da)."
)
def softmax_passed_over(x):
    return _mean_query(x, _rule_by(lambda a, da: da))


@mean_query.mutant(
    "a (1 - a) is how each weight answers to its own product. It answers to all the others as "
    "well: de = a (da - sum of a da)."
)
def own_products_alone(x):
    return _mean_query(x, _rule_by(lambda a, da: a * (1 - a) * da))


@mean_query.mutant("In de = a (da - sum of a da) the sum is weighted by a; you added up da alone.")
def sum_without_weights(x):
    return _mean_query(x, _rule_by(lambda a, da: a * (da - da.sum())))


@mean_query.mutant("In de = a (da - sum of a da) you took a mean for the sum of a da.")
def mean_in_the_softmax(x):
    return _mean_query(x, _rule_by(lambda a, da: a * (da - (a * da).mean())))


@mean_query.mutant("The weights sum to 1, so subtract `a @ da`, not the mean of da.")
def mean_without_weights(x):
    return _mean_query(x, _rule_by(lambda a, da: a * (da - da.mean())))


@mean_query.mutant("e_j = q · x_j: what goes back to place j is de_j times the *other* factor, q.")
def places_for_the_query(x):
    def rule(x, q, a, dy):
        de = a * (x @ dy - a @ (x @ dy))
        return np.outer(a, dy) + de[:, None] * x + de @ x / len(x)

    return _mean_query(x, rule)


@mean_query.mutant(
    "q belongs to all places: add up de_k x_k over all of them, and give each place 1 / L of that "
    "sum, not of its own part."
)
def own_part_of_the_query(x):
    def rule(x, q, a, dy):
        de = a * (x @ dy - a @ (x @ dy))
        return np.outer(a, dy) + np.outer(de, q) + de[:, None] * x / len(x)

    return _mean_query(x, rule)


@mean_query.mutant("The mean is over the L places: dq / L, not dq / D.")
def divided_by_features(x):
    def rule(x, *parts):
        values, keys, query = _three_ways(x, *parts)
        return values + keys + query * len(x) / x.shape[1]

    return _mean_query(x, rule)


@mean_query.mutant("The exponentials are not divided by their sum, so the weights do not sum to 1.")
def weights_not_normalised(x):
    q = x.mean(axis=0)
    e = x @ q
    a = np.exp(e - e.max())
    return a @ x, lambda dy: _right_rule(x, q, a, dy)


@mean_query.mutant("The greatest product is subtracted above and not below: use the same in both.")
def subtracted_above_alone(x):
    q = x.mean(axis=0)
    e = x @ q
    with np.errstate(all="ignore"):
        a = np.exp(e - e.max()) / np.exp(e).sum()
    return a @ x, lambda dy: _right_rule(x, q, a, dy)


@mean_query.mutant("The places are weighted, but not added up: y has D numbers.")
def places_not_added(x):
    q = x.mean(axis=0)
    e = x @ q
    a = np.exp(e - e.max())
    a = a / a.sum()
    return a[:, None] * x, lambda dy: a[:, None] * dy


@mean_query.mutant("The weights sum to 1 already: add up a_j x_j, do not take their mean.")
def mean_for_the_sum(x):
    y, rule = mean_query_reference(x)
    return y / len(x), lambda dy: rule(dy) / len(x)


@mean_query.mutant(
    "Here every place asked, and the mean was taken at the end. One query asks, and it is the mean."
)
def every_place_asks(x):
    E = x @ x.T
    a = np.exp(E - E.max(axis=1, keepdims=True))
    a = a / a.sum(axis=1, keepdims=True)
    return (a @ x).mean(axis=0), lambda dy: a.T @ np.broadcast_to(dy / len(x), x.shape)


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
    "gamma is no parameter (but a number, a plain tensor, or not there at all): no optimiser knows "
    "of it, and the guest never gets a word in. Make it an nn.Parameter."
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


@StartsAsNothing.mutant(
    "gamma stands at the wrong one: x passes as it is, and gamma scales the guest."
)
class gamma_at_x(StartsAsNothingReference):
    def forward(self, x):
        return self.guest(x) + self.gamma * x


@StartsAsNothing.mutant(
    "You mix x and the guest, (1 - gamma) x + gamma guest(x). Here x stays whole, and the guest is "
    "added."
)
class mixed_with_the_guest(StartsAsNothingReference):
    def forward(self, x):
        return (1 - self.gamma) * x + self.gamma * self.guest(x)


@StartsAsNothing.mutant(
    "gamma itself scales the guest. The sigmoid of 0 is 1/2, and so the guest is heard at once."
)
class gate_for_gamma(StartsAsNothingReference):
    def forward(self, x):
        return x + self.gamma.sigmoid() * self.guest(x)


@StartsAsNothing.mutant(
    "Nothing else is done to x: a ReLU behind the sum takes its negative part, and then the guest "
    "does not start as nothing."
)
class relu_behind(StartsAsNothingReference):
    def forward(self, x):
        return (x + self.gamma * self.guest(x)).relu()


@StartsAsNothing.mutant("You return x alone: add what the guest makes of it, gamma times.")
class guest_left_out(StartsAsNothingReference):
    def forward(self, x):
        return x


@StartsAsNothing.mutant(
    "gamma is one number for all channels, of shape (1,); yours has one for each."
)
class gamma_for_each_channel(StartsAsNothingReference):
    def __init__(self, channels):
        super().__init__(channels)
        self.guest = nn.Conv2d(channels, channels, 3, padding=1)
        self.gamma = nn.Parameter(mt.zeros(channels))

    def forward(self, x):
        return x + self.gamma.reshape(1, -1, 1, 1) * self.guest(x)


@StartsAsNothing.mutant(
    "gamma has no axis; it should have shape (1,), as in the library's blocks: `mt.zeros(1)`."
)
class gamma_without_an_axis(StartsAsNothingReference):
    def __init__(self, channels):
        super().__init__(channels)
        self.guest = nn.Conv2d(channels, channels, 3, padding=1)
        self.gamma = nn.Parameter(mt.tensor(0.0))


@StartsAsNothing.mutant("The guest is a 3 x 3 convolution with `padding=1`; yours is 1 x 1.")
class guest_of_one_pixel(StartsAsNothingReference):
    def __init__(self, channels):
        super().__init__(channels)
        self.guest = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(mt.zeros(1))


@StartsAsNothing.mutant("The guest must keep the size: give the convolution `padding=1`.")
class guest_without_padding(StartsAsNothingReference):
    def __init__(self, channels):
        super().__init__(channels)
        self.guest = nn.Conv2d(channels, channels, 3)
        self.gamma = nn.Parameter(mt.zeros(1))


@StartsAsNothing.mutant("The guest has a bias here: leave out `bias=False`.")
class guest_without_bias(StartsAsNothingReference):
    def __init__(self, channels):
        super().__init__(channels)
        self.guest = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.gamma = nn.Parameter(mt.zeros(1))


@StartsAsNothing.mutant("gamma scales the guest alone; yours scales x a second time.")
class gamma_on_the_sum(StartsAsNothingReference):
    def forward(self, x):
        return x + self.gamma * (x + self.guest(x))


@StartsAsNothing.mutant(
    "No gradient reaches gamma, so nothing ever starts. Either the guest's weight is 0 at first, "
    "too (leave the convolution as it is made), or gamma became a plain number on the way "
    "(`gamma.item()`: multiply by gamma itself)."
)
class starts_at_zero_twice(StartsAsNothingReference):
    def __init__(self, channels):
        super().__init__(channels)
        nn.init.zeros_(self.guest.weight)
        nn.init.zeros_(self.guest.bias)
