import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, Mistake, module, rules


def softplus(a):
    return np.logaddexp(0, a)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def _normal(rng, *shape):
    return rng.normal(size=shape).round(1)


# -- gem ------------------------------------------------------------------------------------


def _gem(x, p, *, f=None, of_x=None, of_p=None):
    """GeM with its rules; each can be replaced by a mistake."""
    if f is None:
        f = (x**p).mean(axis=1) ** (1 / p)
    column = f[:, None]
    q = x**p / (x**p).sum(axis=1, keepdims=True)
    of_x = (x / column) ** (p - 1) / x.shape[1] if of_x is None else of_x(x, p, column)
    right = f / p * ((q * np.log(x)).sum(axis=1) - np.log(f))
    of_p = right if of_p is None else of_p(x, p, f, q)
    return f, (lambda dy: dy[:, None] * of_x, lambda dy: np.array([(dy * of_p).sum()]))


def gem_reference(x, p):
    return _gem(x, p)


def _positive(rng, C, L):
    return rng.uniform(0.3, 3, size=(C, L)).round(1) + 0.05 * np.arange(L)


gem = Exercise(
    "22.gem",
    reference=gem_reference,
    observe=rules,
    cases=[
        Case("one channel, two positions, p = 2", np.array([[1.0, 7.0]]), np.array([2.0])),
        Case("the plain mean, p = 1", np.array([[1.0, 2.0, 6.0]]), np.array([1.0])),
        Case("two channels, p = 3", _positive(np.random.default_rng(0), 2, 3), np.array([3.0])),
        Case("three channels", _positive(np.random.default_rng(1), 3, 4), np.array([2.5])),
    ],
    more=lambda rng: Case(
        "any shape",
        _positive(rng, *rng.integers(2, 5, size=2)),
        rng.uniform(1.5, 5, size=1).round(1),
    ),
    hints=[
        "The mean is over the positions, the last axis: `(x**p).mean(axis=1)`. Then the root, "
        "`** (1 / p)`.",
        "f has one number for each channel; beside x it needs an axis, `f[:, None]`; so does dy.",
        "The rule of x is `dy[:, None] * (x / f[:, None]) ** (p - 1) / L`, with `L = x.shape[1]`.",
        "For p: `q = x**p / (x**p).sum(axis=1, keepdims=True)`, then one number for each channel, "
        "`f / p * ((q * np.log(x)).sum(axis=1) - np.log(f))`. All channels share p: multiply by dy "
        "and add up, `np.array([... .sum()])`.",
    ],
)


@gem.mutant("You added the powers up; the mean divides by how many there are.")
def sum_for_mean(x, p):
    return _gem(x, p, f=(x**p).sum(axis=1) ** (1 / p))


@gem.mutant("The root is missing: the mean of the powers is raised to 1/p.")
def without_the_root(x, p):
    return _gem(x, p, f=(x**p).mean(axis=1))


@gem.mutant("You averaged over the channels; each channel is averaged over its positions, axis 1.")
def mean_over_channels(x, p):
    f = (x**p).mean(axis=0) ** (1 / p)
    return f, (lambda dy: 0 * x, lambda dy: 0 * p)


@gem.mutant("In the rule of x, the 1/L of the mean is missing.")
def without_one_over_L(x, p):
    return _gem(x, p, of_x=lambda x, p, f: (x / f) ** (p - 1))


@gem.mutant(
    "A factor p is left in the rule of x. The power brings p, and the root 1/p: they cancel."
)
def p_left_in_the_rule_of_x(x, p):
    return _gem(x, p, of_x=lambda x, p, f: p * (x / f) ** (p - 1) / x.shape[1])


@gem.mutant("The exponent in the rule of x is p - 1: differentiating a power lowers it by one.")
def exponent_not_lowered(x, p):
    return _gem(x, p, of_x=lambda x, p, f: (x / f) ** p / x.shape[1])


@gem.mutant("x / f is upside down in the rule of x: what is larger gets more.")
def ratio_upside_down(x, p):
    return _gem(x, p, of_x=lambda x, p, f: (f / x) ** (p - 1) / x.shape[1])


@gem.mutant(
    "The root has a derivative of its own, f^(1-p) / p: it is missing in the rule of x, which is "
    "that of the mean of the powers."
)
def root_not_differentiated(x, p):
    return _gem(x, p, of_x=lambda x, p, f: p * x ** (p - 1) / x.shape[1])


@gem.mutant("p also stands in the root: the term - ln f is missing in its rule.")
def root_forgotten_in_the_rule_of_p(x, p):
    return _gem(x, p, of_p=lambda x, p, f, q: f / p * (q * np.log(x)).sum(axis=1))


@gem.mutant("p also stands in the power: the term with ln x is missing in its rule.")
def power_forgotten_in_the_rule_of_p(x, p):
    return _gem(x, p, of_p=lambda x, p, f, q: -f / p * np.log(f))


@gem.mutant("In the rule of p, the factor f is missing: that is the derivative of ln f.")
def derivative_of_the_logarithm(x, p):
    return _gem(x, p, of_p=lambda x, p, f, q: ((q * np.log(x)).sum(axis=1) - np.log(f)) / p)


@gem.mutant("In the rule of p, the factor 1/p is missing.")
def without_one_over_p(x, p):
    return _gem(x, p, of_p=lambda x, p, f, q: f * ((q * np.log(x)).sum(axis=1) - np.log(f)))


@gem.mutant("The shares q have the sum 1 in each channel; yours were averaged once more.")
def shares_averaged(x, p):
    return _gem(x, p, of_p=lambda x, p, f, q: f / p * ((q * np.log(x)).mean(axis=1) - np.log(f)))


@gem.mutant(
    "The logarithms are weighed by the shares q, x^p divided by their sum; you took their plain "
    "mean."
)
def plain_mean_of_logarithms(x, p):
    return _gem(x, p, of_p=lambda x, p, f, q: f / p * (np.log(x).mean(axis=1) - np.log(f)))


@gem.mutant("In the rule of p, dy is missing.")
def rule_of_p_without_dy(x, p):
    f, (vjp_x, vjp_p) = _gem(x, p)
    return f, (vjp_x, lambda dy: vjp_p(np.ones_like(dy)))


@gem.mutant("The gradient of p has p's shape, (1,): all channels share it, so they are added up.")
def one_gradient_of_p_for_each_channel(x, p):
    f, (vjp_x, vjp_p) = _gem(x, p)
    eye = np.eye(len(f))
    return f, (vjp_x, lambda dy: np.array([vjp_p(dy * row)[0] for row in eye]))


@gem.mutant("The gradient of p is an array of one number, `np.array([...])`, as p is.")
def gradient_of_p_without_an_axis(x, p):
    f, (vjp_x, vjp_p) = _gem(x, p)
    return f, (vjp_x, lambda dy: vjp_p(dy)[0])


@gem.mutant("You averaged over channels and positions; each channel has a mean of its own, axis 1.")
def mean_over_everything(x, p):
    return _gem(x, p, f=np.full(len(x), (x**p).mean()) ** (1 / p))


@gem.mutant("`** 1 / p` takes the power 1 and divides by p: the root needs brackets, `** (1 / p)`.")
def root_without_brackets(x, p):
    return _gem(x, p, f=(x**p).mean(axis=1) / p)


@gem.mutant("In the rule of x, dy is missing.")
def rule_of_x_without_dy(x, p):
    f, (vjp_x, vjp_p) = _gem(x, p)
    return f, (lambda dy: vjp_x(np.ones_like(dy)), vjp_p)


@gem.mutant("In the rule of x you divided by the channels; L is the number of positions.")
def divided_by_the_channels(x, p):
    return _gem(x, p, of_x=lambda x, p, f: (x / f) ** (p - 1) / len(x))


@gem.mutant("In the rule of x you divided by all elements; L is the number of positions alone.")
def divided_by_the_size(x, p):
    return _gem(x, p, of_x=lambda x, p, f: (x / f) ** (p - 1) / x.size)


@gem.mutant("In the rule of x, x is divided by f before the power is taken: f is missing.")
def not_divided_by_f(x, p):
    return _gem(x, p, of_x=lambda x, p, f: x ** (p - 1) / x.shape[1])


@gem.mutant("In the rule of x, p - 1 is an exponent, `** (p - 1)`; you multiplied by it.")
def times_p_minus_one(x, p):
    return _gem(x, p, of_x=lambda x, p, f: x / f * (p - 1) / x.shape[1])


@gem.mutant("In the rule of p, ln f is subtracted; you added it.")
def logarithm_of_f_added(x, p):
    return _gem(x, p, of_p=lambda x, p, f, q: f / p * ((q * np.log(x)).sum(axis=1) + np.log(f)))


@gem.mutant("In the rule of p stands ln f; you took ln M, before the root: it is p times as large.")
def logarithm_before_the_root(x, p):
    return _gem(x, p, of_p=lambda x, p, f, q: f / p * ((q * np.log(x)).sum(axis=1) - p * np.log(f)))


@gem.mutant("In the rule of p you divided by p twice: with ln M = p ln f one p cancels.")
def divided_by_p_twice(x, p):
    return _gem(x, p, of_p=lambda x, p, f, q: f / p**2 * ((q * np.log(x)).sum(axis=1) - np.log(f)))


@gem.mutant("The shares q are x^p divided by its sum over the positions; you did not divide.")
def powers_for_shares(x, p):
    return _gem(x, p, of_p=lambda x, p, f, q: f / p * ((x**p * np.log(x)).sum(axis=1) - np.log(f)))


@gem.mutant("You divided x^p by its mean; shares have the sum 1: divide by the sum.")
def shares_of_the_mean(x, p):
    return _gem(
        x, p, of_p=lambda x, p, f, q: f / p * ((q * np.log(x)).sum(axis=1) * x.shape[1] - np.log(f))
    )


@gem.mutant("The shares q are those of x^p; you took those of x.")
def shares_without_the_power(x, p):
    return _gem(
        x,
        p,
        of_p=lambda x, p, f, q: f / p * ((x * np.log(x)).sum(axis=1) / x.sum(axis=1) - np.log(f)),
    )


@gem.mutant("Each channel has its own shares: sum x^p over axis 1 with keepdims, not over all.")
def shares_of_all_channels(x, p):
    return _gem(
        x,
        p,
        of_p=lambda x, p, f, q: f / p * ((x**p / (x**p).sum() * np.log(x)).sum(axis=1) - np.log(f)),
    )


@gem.mutant("All channels share p: what comes from them is added up; you took the mean.")
def gradient_of_p_averaged(x, p):
    f, (vjp_x, vjp_p) = _gem(x, p)
    return f, (vjp_x, lambda dy: vjp_p(dy) / len(x))


# -- region_grid ----------------------------------------------------------------------------


def more_regions(shorter, longer):
    if shorter == longer:
        return 0
    overlaps = [1 - (longer - shorter) / (n - 1) / shorter for n in range(2, 8)]
    return 1 + min(range(6), key=lambda i: abs(overlaps[i] - 0.4))


def _spread(room, count):
    return [j * room // max(count - 1, 1) for j in range(count)]


def _grid(
    height,
    width,
    levels,
    *,
    size=lambda shorter, longer, level: 2 * shorter // (level + 1),
    spread=_spread,
    counts=lambda level, m, height, width: (
        level + m * (height > width),
        level + m * (width > height),
    ),
    columns_first=False,
):
    """The regions; each setting can be replaced by a mistake."""
    shorter, longer = min(height, width), max(height, width)
    m = more_regions(shorter, longer)
    regions = []
    for level in range(1, levels + 1):
        z = size(shorter, longer, level)
        rows, columns = counts(level, m, height, width)
        tops, lefts = spread(height - z, rows), spread(width - z, columns)
        if columns_first:
            regions += [(top, left, z) for left in lefts for top in tops]
        else:
            regions += [(top, left, z) for top in tops for left in lefts]
    return regions


def region_grid_reference(height, width, levels=3):
    return _grid(height, width, levels)


region_grid = Exercise(
    "22.region_grid",
    reference=region_grid_reference,
    cases=[
        Case("2 x 3 positions, one level", 2, 3, 1),
        Case("a square map, two levels", 7, 7, 2),
        Case("a square map, three levels", 8, 8, 3),
        Case("higher than wide", 14, 9, 3),
        Case("wider than high", 6, 11, 3),
    ],
    more=lambda rng: Case("any map", int(rng.integers(5, 30)), int(rng.integers(5, 30)), 3),
    hints=[
        "For each level find the size, then where the squares begin from top to bottom, then from "
        "left to right; two loops, the tops outside, give the list.",
        "`//` divides and rounds down: the size is `2 * min(height, width) // (level + 1)`.",
        "A helper `starts(room, count)` with `room = height - size` serves both directions: "
        "`[j * room // (count - 1) for j in range(count)]`, and `[0]` for a single one.",
        "The count along the height is `level + m * (height > width)`: m more only where the "
        "height is the longer side.",
    ],
)


@region_grid.mutant(
    "For a single square there is nothing to divide by: n - 1 is 0. It begins at 0.", raises=True
)
def divided_by_zero(height, width, levels=3):
    return _grid(height, width, levels, spread=lambda r, n: [j * r // (n - 1) for j in range(n)])


@region_grid.mutant("The size is 2 min(H, W) divided by l + 1; you divided by l.")
def size_divided_by_the_level(height, width, levels=3):
    return _grid(height, width, levels, size=lambda short, long, level: 2 * short // level)


@region_grid.mutant("The size is rounded down; you rounded it to the nearest.")
def size_rounded(height, width, levels=3):
    return _grid(
        height, width, levels, size=lambda short, long, level: round(2 * short / (level + 1))
    )


@region_grid.mutant("The size comes from the shorter side of the map; you took the longer.")
def size_from_the_longer(height, width, levels=3):
    return _grid(height, width, levels, size=lambda short, long, level: 2 * long // (level + 1))


@region_grid.mutant("The factor 2 is missing: the size is 2 min(H, W) // (l + 1).")
def size_without_the_two(height, width, levels=3):
    return _grid(height, width, levels, size=lambda short, long, level: short // (level + 1))


@region_grid.mutant(
    "The last square should end at the edge: n squares have n - 1 steps between them, you took n."
)
def as_many_steps_as_squares(height, width, levels=3):
    return _grid(height, width, levels, spread=lambda r, n: [j * r // n for j in range(n)])


@region_grid.mutant("The places are rounded down; you rounded them to the nearest.")
def places_rounded(height, width, levels=3):
    return _grid(
        height,
        width,
        levels,
        spread=lambda r, n: [round(j * r / max(n - 1, 1)) for j in range(n)],
    )


@region_grid.mutant(
    "You rounded the step and multiplied it; the last square does not reach the edge. Multiply "
    "first, then divide: `j * room // (n - 1)`."
)
def step_rounded(height, width, levels=3):
    return _grid(
        height, width, levels, spread=lambda r, n: [j * (r // max(n - 1, 1)) for j in range(n)]
    )


@region_grid.mutant(
    "The squares have room to begin in H - z positions, not in H: yours reach over the edge."
)
def over_the_edge(height, width, levels=3):
    regions = []
    m = more_regions(min(height, width), max(height, width))
    for level in range(1, levels + 1):
        size = 2 * min(height, width) // (level + 1)
        tops = _spread(height, level + m * (height > width))
        lefts = _spread(width, level + m * (width > height))
        regions += [(top, left, size) for top in tops for left in lefts]
    return regions


@region_grid.mutant(
    "The m regions more are along the longer side; yours are along both.",
)
def more_along_both(height, width, levels=3):
    return _grid(height, width, levels, counts=lambda level, m, h, w: (level + m, level + m))


@region_grid.mutant("The m regions more are along the longer side; yours are along the shorter.")
def more_along_the_shorter(height, width, levels=3):
    return _grid(
        height,
        width,
        levels,
        counts=lambda level, m, h, w: (level + m * (w > h), level + m * (h > w)),
    )


@region_grid.mutant("On a longer map there are m regions more along the longer side: m is missing.")
def as_on_a_square(height, width, levels=3):
    return _grid(height, width, levels, counts=lambda level, m, h, w: (level, level))


@region_grid.mutant("There are l squares in a direction at level l; yours has one more.")
def one_square_more(height, width, levels=3):
    return _grid(
        height,
        width,
        levels,
        counts=lambda level, m, h, w: (level + 1 + m * (h > w), level + 1 + m * (w > h)),
    )


@region_grid.mutant("Row by row: the loop over the tops is the outer one, the lefts run quickly.")
def columns_first(height, width, levels=3):
    return _grid(height, width, levels, columns_first=True)


@region_grid.mutant("Top and left are in each other's place: (top, left, size).")
def left_before_top(height, width, levels=3):
    return [(left, top, size) for top, left, size in _grid(height, width, levels)]


@region_grid.mutant("A region is (top, left, size), three numbers: height and width are the same.")
def height_and_width(height, width, levels=3):
    return [(top, left, size, size) for top, left, size in _grid(height, width, levels)]


@region_grid.mutant(
    "Levels are counted from 1 to `levels`: `range(1, levels + 1)`. `range(levels)` begins with 0, "
    "and `range(1, levels)` leaves out the last."
)
def last_level_left_out(height, width, levels=3):
    return _grid(height, width, levels - 1)


@region_grid.mutant(
    "The size is rounded down to an integer, by `//`; yours is a fraction where it does not divide."
)
def size_not_rounded(height, width, levels=3):
    return _grid(height, width, levels, size=lambda short, long, level: 2 * short / (level + 1))


@region_grid.mutant(
    "The places are rounded down to integers, by `//`; some of yours are fractions."
)
def places_not_rounded(height, width, levels=3):
    return _grid(
        height, width, levels, spread=lambda r, n: [j * r / max(n - 1, 1) for j in range(n)]
    )


@region_grid.mutant(
    "You divided and rounded before you multiplied by 2: `2 * min(H, W) // (l + 1)` goes from left "
    "to right and rounds once, at the end."
)
def size_rounded_too_soon(height, width, levels=3):
    return _grid(height, width, levels, size=lambda short, long, level: 2 * (short // (level + 1)))


def _grid_with(height, width, levels, m):
    counts = lambda level, _, h, w: (level + m * (h > w), level + m * (w > h))  # noqa: E731
    return _grid(height, width, levels, counts=counts)


@region_grid.mutant(
    "`more_regions(shorter, longer)` wants the shorter side first: "
    "`more_regions(min(height, width), max(height, width))`."
)
def more_regions_of_longer_and_shorter(height, width, levels=3):
    m = more_regions(max(height, width), min(height, width))
    return _grid_with(height, width, levels, m)


@region_grid.mutant(
    "`more_regions` was called with (height, width); it wants the shorter side first, and that is "
    "the width if the map is higher than wide."
)
def more_regions_of_height_and_width(height, width, levels=3):
    return _grid_with(height, width, levels, more_regions(height, width))


@region_grid.mutant(
    "`more_regions` was called with (width, height); it wants the shorter side first, and that is "
    "the height if the map is wider than high."
)
def more_regions_of_width_and_height(height, width, levels=3):
    return _grid_with(height, width, levels, more_regions(width, height))


@region_grid.mutant(
    "On a longer map there are n = l + m squares along the longer side, and l + m - 1 steps "
    "between them; you divided by l - 1, as on a square map."
)
def steps_of_a_square_map(height, width, levels=3):
    m = more_regions(min(height, width), max(height, width))
    regions = []
    for level in range(1, levels + 1):
        size, steps = 2 * min(height, width) // (level + 1), max(level - 1, 1)
        tops = [j * (height - size) // steps for j in range(level + m * (height > width))]
        lefts = [j * (width - size) // steps for j in range(level + m * (width > height))]
        regions += [(top, left, size) for top in tops for left in lefts]
    return regions


def _grid_in_rooms(height, width, levels, room_of_tops, room_of_lefts):
    m = more_regions(min(height, width), max(height, width))
    regions = []
    for level in range(1, levels + 1):
        size = 2 * min(height, width) // (level + 1)
        tops = _spread(room_of_tops - size, level + m * (height > width))
        lefts = _spread(room_of_lefts - size, level + m * (width > height))
        regions += [(top, left, size) for top in tops for left in lefts]
    return regions


@region_grid.mutant(
    "From left to right there is room for W - z, not H - z: you took the height twice."
)
def room_of_the_height_twice(height, width, levels=3):
    return _grid_in_rooms(height, width, levels, height, height)


@region_grid.mutant(
    "In each direction the room is that direction's length less z; you took the shorter side for "
    "both, and the squares do not reach the far edge of a longer map."
)
def room_of_the_shorter_side(height, width, levels=3):
    shorter = min(height, width)
    return _grid_in_rooms(height, width, levels, shorter, shorter)


@region_grid.mutant(
    "The rooms are in each other's place: tops go with the height, lefts with the width."
)
def rooms_crossed(height, width, levels=3):
    return _grid_in_rooms(height, width, levels, width, height)


@region_grid.mutant("The m squares more are there at every level; yours are at the first alone.")
def more_at_the_first_level_alone(height, width, levels=3):
    counts = lambda level, m, h, w: (  # noqa: E731
        level + m * (h > w) * (level == 1),
        level + m * (w > h) * (level == 1),
    )
    return _grid(height, width, levels, counts=counts)


@region_grid.mutant("Along the longer side there are l + m squares; yours are l (1 + m).")
def more_times_the_level(height, width, levels=3):
    counts = lambda level, m, h, w: (level * (1 + m * (h > w)), level * (1 + m * (w > h)))  # noqa: E731
    return _grid(height, width, levels, counts=counts)


@region_grid.mutant(
    "A region is (top, left, size), three numbers; you gave the row and column where it ends."
)
def from_corner_to_corner(height, width, levels=3):
    return [(t, a, t + size, a + size) for t, a, size in _grid(height, width, levels)]


@region_grid.mutant("One list of all regions is wanted; yours has a list for each level.")
def a_list_for_each_level(height, width, levels=3):
    regions = _grid(height, width, levels)
    sizes = sorted({size for _, _, size in regions}, reverse=True)
    return [[region for region in regions if region[2] == size] for size in sizes]


@region_grid.mutant(
    "You added the whole map as one more region; the squares of the levels are all."
)
def whole_map_added(height, width, levels=3):
    return [(0, 0, min(height, width)), *_grid(height, width, levels)]


# -- regional_attention ---------------------------------------------------------------------


def _attention(
    m,
    u,
    w1,
    b1,
    w2,
    b2,
    *,
    inner=softplus,
    inner_slope=lambda a, h: sigmoid(a),
    gate=softplus,
    gate_slope=lambda s, w: sigmoid(s),
    divide=True,
    of_m=lambda w, dy, R: np.outer(w, dy) / R,
    of_w=lambda m, dy, R: m @ dy / R,
    of_h=lambda ds, w2: np.outer(ds, w2),
    of_w1=lambda da, u: da.T @ u,
    of_b1=lambda da: da.sum(axis=0),
    of_b2=lambda ds: ds.sum(keepdims=True),
    of_w2=lambda ds, h, a: ds @ h,
    of_u=lambda da, w1: da @ w1,
):
    """With its rules; each setting can be replaced by a mistake."""
    R = len(m)
    a = u @ w1.T + b1
    h = inner(a)
    s = h @ w2 + b2
    w = gate(s)

    def back_to_s(dy):
        return of_w(m, dy, R) * gate_slope(s, w)

    def back_to_a(dy):
        return of_h(back_to_s(dy), w2) * inner_slope(a, h)

    return (w @ m / R if divide else w @ m), (
        lambda dy: of_m(w, dy, R),
        lambda dy: of_u(back_to_a(dy), w1),
        lambda dy: of_w1(back_to_a(dy), u),
        lambda dy: of_b1(back_to_a(dy)),
        lambda dy: of_w2(back_to_s(dy), h, a),
        lambda dy: of_b2(back_to_s(dy)),
    )


def regional_attention_reference(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2)


def _picture(label, rng, R, C, D):
    shapes = (R, 2 * C), (D, 2 * C), (D,), (D,), (1,)
    m = rng.uniform(0.1, 2, size=(R, C)).round(1) + 0.05
    return Case(label, m, *[_normal(rng, *shape) + 0.05 for shape in shapes])


regional_attention = Exercise(
    "22.regional_attention",
    reference=regional_attention_reference,
    observe=rules,
    cases=[
        _picture("two regions, one channel, one hidden unit", np.random.default_rng(0), 2, 1, 1),
        _picture("three regions, two channels", np.random.default_rng(1), 3, 2, 3),
        _picture("as many hidden units as entries of u", np.random.default_rng(2), 4, 2, 4),
        _picture("as many hidden units as regions", np.random.default_rng(3), 3, 3, 3),
    ],
    more=lambda rng: _picture("any shape", rng, *rng.integers(2, 5, size=3)),
    hints=[
        "Forward, all regions at once: `a = u @ w1.T + b1` is (R, D), `s = softplus(a) @ w2 + b2` "
        "is (R,), and `softplus(s) @ m / R` adds up.",
        "Backward: y is linear in m, so its rule is `np.outer(w, dy) / R`; and linear in w, so "
        "`dw = m @ dy / R`.",
        "Softplus has the derivative sigmoid: `ds = dw * sigmoid(s)`. Then "
        "`da = np.outer(ds, w2) * sigmoid(a)`, (R, D).",
        "What all regions share adds up over them: `w1` gets `da.T @ u`, `b1` gets "
        "`da.sum(axis=0)`, `w2` gets `ds @ h`, `b2` gets `ds.sum(keepdims=True)`. And u gets "
        "`da @ w1`.",
    ],
)


@regional_attention.mutant("y is the mean over the regions: divide by R.")
def sum_of_regions(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, divide=False)


@regional_attention.mutant(
    "The gate is a sigmoid in yours; here it is softplus, with no upper end."
)
def sigmoid_gate(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, gate=sigmoid, gate_slope=lambda s, w: w * (1 - w))


@regional_attention.mutant(
    "You made the weights shares by a softmax. Here each region is weighed by itself: softplus."
)
def shares_of_the_regions(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, gate=lambda s: np.exp(s) / np.exp(s).sum())


@regional_attention.mutant("The scores s are used as weights: softplus is missing at the end.")
def scores_for_weights(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, gate=lambda s: s, gate_slope=lambda s, w: 1.0)


@regional_attention.mutant("Between the two layers stands softplus; yours is a ReLU.")
def relu_inside(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, inner=lambda a: np.maximum(a, 0))


@regional_attention.mutant(
    "Between the two layers stands softplus; yours is tanh, as in the authors' test program."
)
def tanh_inside(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, inner=np.tanh, inner_slope=lambda a, h: 1 - h**2)


@regional_attention.mutant("Between the two layers softplus is missing.")
def nothing_inside(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, inner=lambda a: a, inner_slope=lambda a, h: 1.0)


@regional_attention.mutant(
    "w (1 - w) is the derivative of a sigmoid. The gate is a softplus: its derivative is "
    "sigmoid(s)."
)
def slope_of_a_sigmoid_gate(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, gate_slope=lambda s, w: w * (1 - w))


@regional_attention.mutant(
    "The derivative of softplus is the sigmoid of its input, sigmoid(s); you took its output w."
)
def slope_at_the_output(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, gate_slope=lambda s, w: sigmoid(w))


@regional_attention.mutant("The last softplus has a derivative: ds = dw sigmoid(s).")
def gate_not_differentiated(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, gate_slope=lambda s, w: 1.0)


@regional_attention.mutant(
    "The inner softplus has a derivative, too: da has the factor sigmoid(a)."
)
def inner_not_differentiated(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, inner_slope=lambda a, h: 1.0)


@regional_attention.mutant(
    "The derivative of the inner softplus is the sigmoid of its input a; you took its output h."
)
def inner_slope_at_the_output(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, inner_slope=lambda a, h: sigmoid(h))


@regional_attention.mutant("The rule of m leaves out the weights: region r gets w_r dy / R.")
def rule_of_m_without_weights(m, u, w1, b1, w2, b2):
    of_m = lambda w, dy, R: np.outer(np.ones(R), dy) / R  # noqa: E731
    return _attention(m, u, w1, b1, w2, b2, of_m=of_m)


@regional_attention.mutant("The rule of m leaves out the 1/R of the mean.")
def rule_of_m_without_the_mean(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_m=lambda w, dy, R: np.outer(w, dy))


@regional_attention.mutant("dw leaves out the 1/R of the mean: dw_r = m_r . dy / R.")
def rule_of_w_without_the_mean(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_w=lambda m, dy, R: m @ dy)


@regional_attention.mutant("On the way from s to h, w2 is missing: dh = ds w2.")
def without_w2(m, u, w1, b1, w2, b2):
    of_h = lambda ds, w2: np.outer(ds, np.ones_like(w2))  # noqa: E731
    return _attention(m, u, w1, b1, w2, b2, of_h=of_h)


@regional_attention.mutant("The rule of w1 is transposed: da.T @ u, of shape (D, 2C).")
def rule_of_w1_transposed(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_w1=lambda da, u: u.T @ da)


@regional_attention.mutant("All regions share b1: its gradient is the sum over the regions.")
def b1_not_summed(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_b1=lambda da: da)


@regional_attention.mutant("b1's gradient is the sum over the regions, not the mean.")
def b1_averaged(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_b1=lambda da: da.mean(axis=0))


@regional_attention.mutant("All regions share b2: its gradient is the sum over the regions.")
def b2_not_summed(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_b2=lambda ds: ds)


@regional_attention.mutant("The gradient of b2 has its shape, (1,): `.sum(keepdims=True)`.")
def b2_without_an_axis(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_b2=lambda ds: ds.sum())


@regional_attention.mutant("w2 multiplies h, so its rule is ds @ h; you took a, before softplus.")
def rule_of_w2_with_a(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_w2=lambda ds, h, a: ds @ a)


@regional_attention.mutant("In a_r = W_1 u_r + b_1, b1 is missing.")
def without_b1(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, 0 * b1, w2, b2)


@regional_attention.mutant("In s_r = w_2 . h_r + b_2, b2 is missing.")
def without_b2(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, 0 * b2)


@regional_attention.mutant(
    "You divided by the sum of the weights. The weights are no shares: y is divided by R."
)
def divided_by_the_weights(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, gate=lambda s: softplus(s) * len(s) / softplus(s).sum())


@regional_attention.mutant("You divided by the channels C; the mean is over the R regions.")
def divided_by_the_channels_of_m(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, gate=lambda s: softplus(s) * len(m) / m.shape[1])


@regional_attention.mutant(
    "Between the two layers stands one softplus; in yours it is taken twice."
)
def inner_softplus_twice(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, inner=lambda a: softplus(softplus(a)))


@regional_attention.mutant("The rule of m has the weights w = softplus(s); you took the scores s.")
def rule_of_m_with_scores(m, u, w1, b1, w2, b2):
    y, (_, *others) = _attention(m, u, w1, b1, w2, b2)
    s = softplus(u @ w1.T + b1) @ w2 + b2
    return y, (lambda dy: np.outer(s, dy) / len(m), *others)


@regional_attention.mutant("dw_r is divided by R, the number of regions; you divided by C.")
def rule_of_w_with_the_channels(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_w=lambda m, dy, R: m @ dy / m.shape[1])


@regional_attention.mutant("m_r . dy is a sum over the channels; you took the mean.")
def mean_over_the_channels(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_w=lambda m, dy, R: m @ dy / R / m.shape[1])


@regional_attention.mutant(
    "Each region has a dw of its own, m_r . dy / R: a sum over the channels, `m @ dy`; you summed "
    "over the regions, too."
)
def one_dw_for_all(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_w=lambda m, dy, R: np.full(R, (m * dy).sum() / R))


@regional_attention.mutant(
    "The derivative of softplus(s) is sigmoid(s); you took w, softplus itself."
)
def softplus_for_its_slope(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, gate_slope=lambda s, w: w)


@regional_attention.mutant(
    "sigmoid(s) (1 - sigmoid(s)) is the derivative of a sigmoid, the second of softplus. The gate "
    "is a softplus: its derivative is sigmoid(s)."
)
def second_derivative_of_the_gate(m, u, w1, b1, w2, b2):
    slope = lambda s, w: sigmoid(s) * (1 - sigmoid(s))  # noqa: E731
    return _attention(m, u, w1, b1, w2, b2, gate_slope=slope)


@regional_attention.mutant(
    "The derivative of the inner softplus is sigmoid(a); you took h, softplus itself."
)
def softplus_for_its_slope_inside(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, inner_slope=lambda a, h: h)


@regional_attention.mutant(
    "sigmoid(a) (1 - sigmoid(a)) is the derivative of a sigmoid. Inside is a softplus: its "
    "derivative is sigmoid(a)."
)
def second_derivative_inside(m, u, w1, b1, w2, b2):
    slope = lambda a, h: sigmoid(a) * (1 - sigmoid(a))  # noqa: E731
    return _attention(m, u, w1, b1, w2, b2, inner_slope=slope)


@regional_attention.mutant(
    "h (1 - h) is the derivative of a sigmoid; that of softplus is sigmoid(a)."
)
def slope_of_a_sigmoid_inside(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, inner_slope=lambda a, h: h * (1 - h))


@regional_attention.mutant(
    "0 or 1 is the derivative of a ReLU. Inside is a softplus: its derivative is sigmoid(a)."
)
def slope_of_a_relu_inside(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, inner_slope=lambda a, h: 1.0 * (a > 0))


@regional_attention.mutant(
    "u_r = [v_r; g] has 2C entries, and so has its gradient; yours ends after those of v_r."
)
def rule_of_u_without_context(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_u=lambda da, w1: (da @ w1)[:, : m.shape[1]])


@regional_attention.mutant("w1's gradient is the sum over the regions, not the mean.")
def w1_averaged(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_w1=lambda da, u: da.T @ u / len(u))


@regional_attention.mutant("w2's gradient is the sum over the regions, not the mean.")
def w2_averaged(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_w2=lambda ds, h, a: ds @ h / len(h))


@regional_attention.mutant("b2's gradient is the sum over the regions, not the mean.")
def b2_averaged(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_b2=lambda ds: ds.mean(keepdims=True))


@regional_attention.mutant("b1's gradient is summed over the regions, axis 0; you took axis 1.")
def b1_summed_over_units(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_b1=lambda da: da.sum(axis=1))


@regional_attention.mutant(
    "w2 multiplies h, so its rule is ds @ h; you took sigmoid(a), the slope of h."
)
def rule_of_w2_with_the_slope(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_w2=lambda ds, h, a: ds @ sigmoid(a))


@regional_attention.mutant(
    "The rules come in the order of the inputs: m, u, w1, b1, w2, b2. Those of b1 and w2 are in "
    "each other's place."
)
def rules_of_b1_and_w2_swapped(m, u, w1, b1, w2, b2):
    y, rules_of = _attention(m, u, w1, b1, w2, b2)
    return y, tuple(rules_of[i] for i in (0, 1, 2, 4, 3, 5))


@regional_attention.mutant(
    "u's gradient is divided by R twice: dw has the 1/R of the mean already."
)
def rule_of_u_divided_twice(m, u, w1, b1, w2, b2):
    return _attention(m, u, w1, b1, w2, b2, of_u=lambda da, w1: da @ w1 / len(m))


# -- average_precision ----------------------------------------------------------------------


def _walk(
    ranking,
    positives,
    junk,
    *,
    start=1.0,
    height=lambda now, before: (now + before) / 2,
    divide_by=None,
    first_place=1,
):
    """The area; each setting can be replaced by a mistake."""
    area, found, recall, precision = 0.0, 0, 0.0, start
    kept = [picture for picture in ranking if picture not in junk]
    count = len(positives) if divide_by is None else divide_by(kept)
    for place, picture in enumerate(kept, start=first_place):
        found += picture in positives
        before = recall, precision
        recall, precision = found / max(count, 1), found / place
        area += (recall - before[0]) * height(precision, before[1])
    return area


def average_precision_reference(ranking, positives, junk):
    return _walk(ranking, positives, junk)


def _ranking(rng):
    pictures = rng.permutation(12).tolist()
    kinds = rng.permutation(14).tolist()
    return Case("any ranking", pictures, sorted(kinds[:4]), sorted(kinds[4:6]))


average_precision = Exercise(
    "22.average_precision",
    reference=average_precision_reference,
    cases=[
        Case("the example", [3, 1, 0, 7, 2], [3, 7], [1]),
        Case("the first is wrong", [5, 3, 2, 4], [2, 3], []),
        Case("a positive that never comes", [4, 0, 1], [4, 9], []),
        Case("junk at the top", [8, 9, 1, 0, 2, 3], [0, 3], [8, 9]),
        Case("all are found at once", [2, 1, 0, 3], [1, 2], [3]),
    ],
    more=_ranking,
    hints=[
        "First `kept = [picture for picture in ranking if picture not in junk]`: only then count "
        "places.",
        "Keep recall and precision from the place before; at the start they are 0 and 1.",
        "`for place, picture in enumerate(kept, start=1)`: count what was found, then "
        "`found / len(positives)` and `found / place`.",
        "Add `(recall - old_recall) * (precision + old_precision) / 2` at every place; where "
        "nothing was found, recall stays and the term is 0.",
    ],
)


@average_precision.mutant(
    "You took the precision at each positive for all the way to it: that is the area by steps. The "
    "trapezoid takes the mean with the precision at the place before."
)
def by_steps(ranking, positives, junk):
    return _walk(ranking, positives, junk, height=lambda now, before: now)


@average_precision.mutant(
    "You took the precision of the place before alone; the trapezoid takes both."
)
def precision_before(ranking, positives, junk):
    return _walk(ranking, positives, junk, height=lambda now, before: before)


@average_precision.mutant(
    "Junk counts as wrong in yours; it is taken out before places are counted."
)
def junk_counts_as_wrong(ranking, positives, junk):
    return _walk(ranking, positives, [])


@average_precision.mutant("Junk counts as right in yours; it counts neither way.")
def junk_counts_as_right(ranking, positives, junk):
    return _walk(ranking, [*positives, *junk], [])


@average_precision.mutant("Precision starts at 1, before the first place; yours starts at 0.")
def precision_starts_at_zero(ranking, positives, junk):
    return _walk(ranking, positives, junk, start=0.0)


@average_precision.mutant(
    "Recall is divided by all positives, also by those that never come; you divided by those that "
    "were found."
)
def divided_by_those_found(ranking, positives, junk):
    found = lambda kept: sum(picture in positives for picture in kept)  # noqa: E731
    return _walk(ranking, positives, junk, divide_by=found)


@average_precision.mutant(
    "You divided by the places; recall is a share of the positives: divide by `len(positives)`."
)
def divided_by_the_places(ranking, positives, junk):
    return _walk(ranking, positives, junk, divide_by=len)


@average_precision.mutant("The first place is number 1: `enumerate(kept, start=1)`; yours is 2.")
def places_start_at_two(ranking, positives, junk):
    return _walk(ranking, positives, junk, first_place=2)


@average_precision.mutant(
    "You left the junk out, but counted its places: the precision divides by the places of what is "
    "kept."
)
def places_of_junk_counted(ranking, positives, junk):
    area, found, recall, precision = 0.0, 0, 0.0, 1.0
    for place, picture in enumerate(ranking, start=1):
        if picture in junk:
            continue
        found += picture in positives
        before = recall, precision
        recall, precision = found / len(positives), found / place
        area += (recall - before[0]) * (precision + before[1]) / 2
    return area


@average_precision.mutant(
    "You looked at the positives alone: the precision before a positive is that of the place "
    "before it, be it right or wrong, not that of the last positive."
)
def between_positives_alone(ranking, positives, junk):
    kept = [picture for picture in ranking if picture not in junk]
    places = [place for place, picture in enumerate(kept, start=1) if picture in positives]
    precision = [1.0] + [j / place for j, place in enumerate(places, start=1)]
    return sum((a + b) / 2 for a, b in zip(precision, precision[1:])) / len(positives)


@average_precision.mutant(
    "A trapezoid has the mean of its two heights: the division by 2 is missing."
)
def heights_added(ranking, positives, junk):
    return _walk(ranking, positives, junk, height=lambda now, before: now + before)


@average_precision.mutant("Recall starts at 0, before the first place; yours starts at 1.")
def recall_starts_at_one(ranking, positives, junk):
    right = _walk(ranking, positives, junk)
    first = next(picture for picture in ranking if picture not in junk)
    return right - (1 + (first in positives)) / 2


@average_precision.mutant(
    "Recall and precision are in each other's place: the width of a trapezoid is a step of recall, "
    "its heights are precisions."
)
def recall_and_precision_swapped(ranking, positives, junk):
    area, found, recall, precision = 0.0, 0, 0.0, 1.0
    for place, picture in enumerate([p for p in ranking if p not in junk], start=1):
        found += picture in positives
        before = recall, precision
        recall, precision = found / len(positives), found / place
        area += (precision - before[1]) * (recall + before[0]) / 2
    return area


@average_precision.mutant(
    "The width of a trapezoid is the step that recall makes, recall - old_recall; you took the "
    "whole recall."
)
def whole_recall_for_its_step(ranking, positives, junk):
    area, found, precision = 0.0, 0, 1.0
    for place, picture in enumerate([p for p in ranking if p not in junk], start=1):
        found += picture in positives
        before, precision = precision, found / place
        area += found / len(positives) * (precision + before) / 2
    return area


@average_precision.mutant(
    "The first place is number 1: `enumerate(kept, start=1)`; yours is 0.", raises=True
)
def places_start_at_zero(ranking, positives, junk):
    return _walk(ranking, positives, junk, first_place=0)


@average_precision.mutant(
    "The point before the first place is missing: recall 0, precision 1. Your area begins at the "
    "first place."
)
def begins_at_the_first_place(ranking, positives, junk):
    kept = [picture for picture in ranking if picture not in junk]
    precision = float(kept[0] in positives)
    first = precision / len(positives) * (precision + 1) / 2
    return _walk(ranking, positives, junk) - first


@average_precision.mutant(
    "You kept the positives alone. The wrong pictures stay in the ranking, they take places; only "
    "the junk goes."
)
def wrong_ones_taken_out(ranking, positives, junk):
    return _walk([picture for picture in ranking if picture in positives], positives, junk)


@average_precision.mutant(
    "You took the positives out with the junk, or the wrong part of a condition: nothing is found."
)
def positives_taken_out(ranking, positives, junk):
    return _walk(ranking, positives, [*positives, *junk])


@average_precision.mutant(
    "Recall is divided by the positives alone; you counted the junk with them."
)
def divided_by_positives_and_junk(ranking, positives, junk):
    return _walk(ranking, positives, junk, divide_by=lambda kept: len(positives) + len(junk))


@average_precision.mutant(
    "You took the mean of the precisions at all places. The area counts only the places where "
    "recall moves on."
)
def mean_of_the_precisions(ranking, positives, junk):
    kept = [picture for picture in ranking if picture not in junk]
    found = np.cumsum([picture in positives for picture in kept])
    return float((found / np.arange(1, len(kept) + 1)).mean())


@average_precision.mutant("That is the precision at the end; the area is over the whole ranking.")
def precision_at_the_end(ranking, positives, junk):
    kept = [picture for picture in ranking if picture not in junk]
    return sum(picture in positives for picture in kept) / len(kept)


@average_precision.mutant(
    "You came back after the first place: `return` stands inside the loop, one step too far right."
)
def returned_too_soon(ranking, positives, junk):
    return _walk([p for p in ranking if p not in junk][:1], positives, [])


# -- whiten ---------------------------------------------------------------------------------


def _whiten(
    x,
    learned,
    components,
    *,
    mean=lambda x, learned: learned.mean(axis=0),
    power=-0.5,
    pick=lambda variances, vectors, B: (variances[-B:], vectors[:, -B:]),
    normalize=True,
    source=lambda x, learned: learned,
):
    """Each setting can be replaced by a mistake."""
    source = source(x, learned)
    centred = source - mean(x, source)
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(source))
    variances, vectors = pick(variances, vectors, components)
    y = (x - mean(x, source)) @ vectors * variances**power
    return y / np.linalg.norm(y, axis=1, keepdims=True) if normalize else y


def whiten_reference(x, learned, components):
    return _whiten(x, learned, components)


def products(subject, case):
    """What no sign of an eigenvector changes: the shape, and the products of the rows."""
    y = subject(*case.inputs)
    if y is None:
        yield "the output", y
        return
    if not isinstance(y, np.ndarray) or y.ndim != 2:
        raise Mistake(
            "A table should come back, an array (N, components): a row for each row of x.",
            "not a table",
        )
    yield "the shape of the output", y.shape
    yield "the products of its rows, y @ y.T", y @ y.T


def _descriptors(label, rng, N, M, C, B):
    spread = rng.normal(size=(C, C)) * np.linspace(0.3, 2, C)
    learned = (rng.normal(size=(M, C)) @ spread + 1).round(1)
    return Case(label, (rng.normal(size=(N, C)) @ spread + 1).round(1), learned, B)


whiten = Exercise(
    "22.whiten",
    reference=whiten_reference,
    observe=products,
    cases=[
        _descriptors("two numbers, both kept", np.random.default_rng(0), 3, 8, 2, 2),
        _descriptors("three numbers, two kept", np.random.default_rng(1), 3, 10, 3, 2),
        _descriptors("five numbers, three kept", np.random.default_rng(2), 4, 20, 5, 3),
    ],
    more=lambda rng: _descriptors("any sizes", rng, 4, 20, 5, int(rng.integers(2, 5))),
    hints=[
        "Everything is learned from `learned` alone: mean, eigenvectors, eigenvalues. x is only "
        "transformed.",
        "`np.linalg.eigh` takes the symmetric (C, C) matrix "
        "`(learned - mean).T @ (learned - mean) / M`, and returns eigenvalues and, as the columns "
        "of a matrix, eigenvectors.",
        "It gives the smallest eigenvalue first. The largest are the last: `[-components:]`, and "
        "`[:, -components:]` for the columns.",
        "`y = (x - mean) @ vectors / np.sqrt(variances)`, then each row divided by "
        "`np.linalg.norm(y, axis=1, keepdims=True)`.",
    ],
    tolerance=1e-6,
)


@whiten.mutant("The mean of `learned` is subtracted from x, too; you subtracted that of x.")
def own_mean_subtracted(x, learned, components):
    return _whiten(x, learned, components, mean=lambda data, source: data.mean(axis=0))


@whiten.mutant("The mean is not subtracted from x.")
def x_not_centred(x, learned, components):
    return whiten_reference(x + learned.mean(axis=0), learned, components)


@whiten.mutant(
    "The mean is not subtracted anywhere: the widest direction is then that of the mean."
)
def nothing_centred(x, learned, components):
    return _whiten(x, learned, components, mean=lambda data, source: 0.0)


@whiten.mutant("That is PCA: the components are not yet divided by the root of their variances.")
def pca_alone(x, learned, components):
    return _whiten(x, learned, components, power=0.0)


@whiten.mutant("You divided by the variances; it is their root, the spread.")
def divided_by_variances(x, learned, components):
    return _whiten(x, learned, components, power=-1.0)


@whiten.mutant("You multiplied by the root of the variances; divide by it.")
def multiplied(x, learned, components):
    return _whiten(x, learned, components, power=0.5)


@whiten.mutant(
    "You took the smallest eigenvalues: `eigh` gives them in rising order, so the largest are last."
)
def narrowest_directions(x, learned, components):
    pick = lambda variances, vectors, B: (variances[:B], vectors[:, :B])  # noqa: E731
    return _whiten(x, learned, components, pick=pick)


@whiten.mutant("Eigenvectors are the columns of what `eigh` returns; you took rows.")
def rows_for_columns(x, learned, components):
    pick = lambda variances, vectors, B: (variances[-B:], vectors.T[:, -B:])  # noqa: E731
    return _whiten(x, learned, components, pick=pick)


@whiten.mutant("The results are to have length 1: divide each row by its length at the end.")
def lengths_left(x, learned, components):
    return _whiten(x, learned, components, normalize=False)


@whiten.mutant("You divided x by its length at first; it is the result that has length 1, too.")
def normalised_at_the_start(x, learned, components):
    return _whiten(
        x / np.linalg.norm(x, axis=1, keepdims=True), learned, components, normalize=False
    )


@whiten.mutant("You learned from x itself; it is learned from other descriptors, `learned`.")
def learned_from_x(x, learned, components):
    centred = x - x.mean(axis=0)
    _, s, rows = np.linalg.svd(centred, full_matrices=False)
    y = centred @ rows[:components].T / np.maximum(s[:components], 1e-6)
    return y / np.linalg.norm(y, axis=1, keepdims=True)


@whiten.mutant(
    "You divided each number by its own spread. The numbers go up and down together: the "
    "eigenvectors of the covariance are the directions that do not."
)
def each_number_by_itself(x, learned, components):
    y = ((x - learned.mean(axis=0)) / learned.std(axis=0))[:, :components]
    return y / np.linalg.norm(y, axis=1, keepdims=True)


@whiten.mutant("A row for each row of x should come back: (N, components); yours is transposed.")
def transposed(x, learned, components):
    return whiten_reference(x, learned, components).T


@whiten.mutant(
    "All components are kept; only the `components` widest should be: the last columns of the "
    "eigenvectors, and no way back by `@ vectors.T`."
)
def all_components(x, learned, components):
    return whiten_reference(x, learned, x.shape[1])


@whiten.mutant("mu has a number for each column: `learned.mean(axis=0)`; yours is one for all.")
def one_mean_for_all(x, learned, components):
    return _whiten(x, learned, components, mean=lambda data, source: source.mean())


@whiten.mutant("Subtract the mean from x; you added it.")
def mean_added(x, learned, components):
    return whiten_reference(x + 2 * learned.mean(axis=0), learned, components)


@whiten.mutant(
    "The covariance is that of `learned` less its mean: `(learned - mean).T @ (learned - mean)`. "
    "You subtracted the mean from x alone."
)
def learned_not_centred(x, learned, components):
    variances, vectors = np.linalg.eigh(learned.T @ learned / len(learned))
    y = (x - learned.mean(axis=0)) @ vectors[:, -components:] / np.sqrt(variances[-components:])
    return y / np.linalg.norm(y, axis=1, keepdims=True)


@whiten.mutant(
    "You took the correlations, where each number was divided by its spread; it is the covariance."
)
def correlations(x, learned, components):
    variances, vectors = np.linalg.eigh(np.corrcoef(learned, rowvar=False))
    y = (x - learned.mean(axis=0)) @ vectors[:, -components:] / np.sqrt(variances[-components:])
    return y / np.linalg.norm(y, axis=1, keepdims=True)


@whiten.mutant(
    "The eigenvalues are in another order than the eigenvectors: what is reversed in one has to be "
    "reversed in the other."
)
def values_turned_round(x, learned, components):
    pick = lambda variances, vectors, B: (variances[-B:][::-1], vectors[:, -B:])  # noqa: E731
    return _whiten(x, learned, components, pick=pick)


@whiten.mutant(
    "You took the vectors of the largest eigenvalues, and divided by the roots of the smallest."
)
def smallest_values_of_largest_vectors(x, learned, components):
    pick = lambda variances, vectors, B: (variances[:B], vectors[:, -B:])  # noqa: E731
    return _whiten(x, learned, components, pick=pick)


@whiten.mutant(
    "Each row is divided by its own length, axis 1; you took the lengths of the columns."
)
def columns_of_length_one(x, learned, components):
    y = _whiten(x, learned, components, normalize=False)
    return y / np.linalg.norm(y, axis=0)


@whiten.mutant("Each row is divided by its own length: `axis=1`; yours is one length for all rows.")
def one_length_for_all(x, learned, components):
    y = _whiten(x, learned, components, normalize=False)
    return y / np.linalg.norm(y)


@whiten.mutant("A length is a root of squares; you divided by the squares' sum.")
def divided_by_squared_lengths(x, learned, components):
    y = _whiten(x, learned, components, normalize=False)
    return y / (y**2).sum(axis=1, keepdims=True)


@whiten.mutant("A length is a root of squares, `np.linalg.norm`; you divided by the sum.")
def divided_by_sums(x, learned, components):
    y = _whiten(x, learned, components, normalize=False)
    return y / y.sum(axis=1, keepdims=True)


@whiten.mutant(
    "You divided by the lengths before you divided by the roots of the variances; the length comes "
    "last."
)
def lengths_too_soon(x, learned, components):
    mean = learned.mean(axis=0)
    variances, vectors = np.linalg.eigh((learned - mean).T @ (learned - mean) / len(learned))
    y = (x - mean) @ vectors[:, -components:]
    return y / np.linalg.norm(y, axis=1, keepdims=True) / np.sqrt(variances[-components:])


# -- RegionalAttention ----------------------------------------------------------------------


class RegionalAttentionReference(nn.Module):
    def __init__(self, channels, hidden=64):
        super().__init__()
        self.fc1 = nn.Linear(2 * channels, hidden)
        self.fc2 = nn.Linear(hidden, 1)

    def joined(self, regions, whole):
        return F.cat([regions, whole.unsqueeze(1).expand(-1, regions.shape[1], -1)], dim=2)

    def forward(self, regions, whole):
        u = self.joined(regions, whole)
        return F.softplus(self.fc2(F.softplus(self.fc1(u)))).squeeze(2)


def _means(label, rng, N, R, C, hidden):
    return Case(label, _normal(rng, N, R, C), _normal(rng, N, C), channels=C, hidden=hidden)


RegionalAttention = Exercise(
    "22.RegionalAttention",
    reference=RegionalAttentionReference,
    observe=module,
    cases=[
        _means("one picture, two regions", np.random.default_rng(0), 1, 2, 1, 2),
        _means("two pictures, three regions", np.random.default_rng(1), 2, 3, 2, 3),
        _means("as many regions as pictures", np.random.default_rng(2), 3, 3, 2, 5),
    ],
    more=lambda rng: _means("any sizes", rng, *rng.integers(2, 5, size=4).tolist()),
    hints=[
        "`fc1` sees the region and the whole: `nn.Linear(2 * channels, hidden)`. `fc2` gives one "
        "number.",
        "The context is the same for all regions of a picture: "
        "`whole.unsqueeze(1).expand(-1, regions.shape[1], -1)` is (N, R, C).",
        "`F.cat([regions, context], dim=2)`, regions first, is (N, R, 2C); a linear layer works on "
        "the last axis.",
        "`F.softplus(self.fc2(F.softplus(self.fc1(u)))).squeeze(2)`.",
    ],
)


@RegionalAttention.mutant("The gate is a sigmoid in yours; here it is softplus.")
class gate_is_a_sigmoid(RegionalAttentionReference):
    def forward(self, regions, whole):
        u = self.joined(regions, whole)
        return F.sigmoid(self.fc2(F.softplus(self.fc1(u)))).squeeze(2)


@RegionalAttention.mutant(
    "You made the weights of a picture shares by a softmax. Each region is weighed by itself: "
    "softplus."
)
class softmax_over_regions(RegionalAttentionReference):
    def forward(self, regions, whole):
        u = self.joined(regions, whole)
        return F.softmax(self.fc2(F.softplus(self.fc1(u))).squeeze(2), dim=1)


@RegionalAttention.mutant("Between the layers stands softplus; yours is a ReLU.")
class relu_between(RegionalAttentionReference):
    def forward(self, regions, whole):
        u = self.joined(regions, whole)
        return F.softplus(self.fc2(F.relu(self.fc1(u)))).squeeze(2)


@RegionalAttention.mutant("Between the layers stands softplus; yours is tanh.")
class tanh_between(RegionalAttentionReference):
    def forward(self, regions, whole):
        u = self.joined(regions, whole)
        return F.softplus(self.fc2(F.tanh(self.fc1(u)))).squeeze(2)


@RegionalAttention.mutant("Between the layers softplus is missing.")
class nothing_between(RegionalAttentionReference):
    def forward(self, regions, whole):
        return F.softplus(self.fc2(self.fc1(self.joined(regions, whole)))).squeeze(2)


@RegionalAttention.mutant("The last softplus is missing: the weights may become negative.")
class without_the_gate(RegionalAttentionReference):
    def forward(self, regions, whole):
        return self.fc2(F.softplus(self.fc1(self.joined(regions, whole)))).squeeze(2)


@RegionalAttention.mutant("The region comes first in u = [v; g]; yours begins with the context.")
class context_first(RegionalAttentionReference):
    def joined(self, regions, whole):
        return F.cat([whole.unsqueeze(1).expand(-1, regions.shape[1], -1), regions], dim=2)


@RegionalAttention.mutant(
    "The context is the mean of the whole map, `whole`; you took the mean of the regions, which "
    "overlap."
)
class mean_of_the_regions(RegionalAttentionReference):
    def joined(self, regions, whole):
        return super().joined(regions, regions.mean(dim=1) + 0 * whole)


@RegionalAttention.mutant("`whole` is not used: the regions are joined with themselves.")
class regions_twice(RegionalAttentionReference):
    def joined(self, regions, whole):
        return F.cat([regions, regions + 0 * whole.unsqueeze(1)], dim=2)


@RegionalAttention.mutant(
    "fc1 sees the region alone: u has the context below it, and so 2C entries."
)
class without_context(RegionalAttentionReference):
    def __init__(self, channels, hidden=64):
        super().__init__(channels, hidden)
        self.fc1 = nn.Linear(channels, hidden)

    def joined(self, regions, whole):
        return regions + 0 * whole.unsqueeze(1)


@RegionalAttention.mutant("The weights are (N, R): take the last axis, of length 1, away.")
class last_axis_kept(RegionalAttentionReference):
    def forward(self, regions, whole):
        return super().forward(regions, whole).unsqueeze(2)


@RegionalAttention.mutant("Both layers have biases: leave `bias=False` out.")
class without_biases(RegionalAttentionReference):
    def __init__(self, channels, hidden=64):
        super().__init__(channels, hidden)
        self.fc1 = nn.Linear(2 * channels, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, 1, bias=False)


@RegionalAttention.mutant("`hidden` is not used: yours always has 64 hidden units.")
class always_64(RegionalAttentionReference):
    def __init__(self, channels, hidden=64):
        super().__init__(channels)


@RegionalAttention.mutant(
    "The weights are divided by the number of regions in yours. That is part of the mean that "
    "comes after, not of the weights."
)
class divided_by_the_regions(RegionalAttentionReference):
    def forward(self, regions, whole):
        return super().forward(regions, whole) / regions.shape[1]


@RegionalAttention.mutant("Both softplus are missing: between the layers, and at the end.")
class no_softplus(RegionalAttentionReference):
    def forward(self, regions, whole):
        return self.fc2(self.fc1(self.joined(regions, whole))).squeeze(2)


@RegionalAttention.mutant("The gate is a ReLU in yours; here it is softplus, which is never 0.")
class gate_is_a_relu(RegionalAttentionReference):
    def forward(self, regions, whole):
        u = self.joined(regions, whole)
        return F.relu(self.fc2(F.softplus(self.fc1(u)))).squeeze(2)


@RegionalAttention.mutant("Between the layers stands softplus; yours is a sigmoid.")
class sigmoid_between(RegionalAttentionReference):
    def forward(self, regions, whole):
        u = self.joined(regions, whole)
        return F.softplus(self.fc2(F.sigmoid(self.fc1(u)))).squeeze(2)


@RegionalAttention.mutant("At the end softplus is taken twice in yours.")
class gate_twice(RegionalAttentionReference):
    def forward(self, regions, whole):
        return F.softplus(super().forward(regions, whole))


@RegionalAttention.mutant(
    "The module gives the weights alone, (N, R); yours has multiplied the regions by them already."
)
class weighted_regions(RegionalAttentionReference):
    def forward(self, regions, whole):
        return (super().forward(regions, whole).unsqueeze(2) * regions).mean(dim=1)


@RegionalAttention.mutant(
    "Each region needs the context beside it: repeat it along the regions by "
    "`.expand(-1, regions.shape[1], -1)` before you join.",
    raises=True,
)
class context_not_repeated(RegionalAttentionReference):
    def joined(self, regions, whole):
        return F.cat([regions, whole.unsqueeze(1)], dim=2)


@RegionalAttention.mutant(
    "The context is joined along the features, `dim=2`, so that u has 2C entries; yours was added "
    "to the regions, or stands as one more region.",
    raises=True,
)
class context_as_one_more_region(RegionalAttentionReference):
    def joined(self, regions, whole):
        return F.cat([regions, whole.unsqueeze(1)], dim=1)


@RegionalAttention.mutant("fc2 gives one number for each region: `nn.Linear(hidden, 1)`.")
class fc2_as_wide_as_hidden(RegionalAttentionReference):
    def __init__(self, channels, hidden=64):
        super().__init__(channels, hidden)
        self.fc2 = nn.Linear(hidden, hidden)


@RegionalAttention.mutant("fc2 gives one number for each region, not one for each channel.")
class fc2_as_wide_as_channels(RegionalAttentionReference):
    def __init__(self, channels, hidden=64):
        super().__init__(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)


@RegionalAttention.mutant(
    "`nn.Linear` takes what comes in first, then what goes out; yours are turned."
)
class linear_turned(RegionalAttentionReference):
    def __init__(self, channels, hidden=64):
        super().__init__(channels, hidden)
        self.fc1 = nn.Linear(hidden, 2 * channels)
        self.fc2 = nn.Linear(1, hidden)
