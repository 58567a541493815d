import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules


def _maps(rng, *shape):
    """A feature map (..., C, H, W) from a ReLU, with something active at each place."""
    x = np.maximum(rng.normal(size=shape), 0).round(1)
    x[..., 0, :, :] += 0.1 * (x.sum(axis=-3) == 0)
    return x


# -- spatial_weights ------------------------------------------------------------------------


def spatial_weights_reference(x, a=2, b=2):
    activity = x.sum(axis=0)
    return (activity / (activity**a).sum() ** (1 / a)) ** (1 / b)


def _any_powers(rng):
    C, H, W = rng.integers(2, 5, size=3)
    return Case("any shape and powers", _maps(rng, C, H, W), *rng.choice([0.5, 1, 2, 3], size=2))


spatial_weights = Exercise(
    "23.spatial_weights",
    reference=spatial_weights_reference,
    cases=[
        Case("two channels, two places", np.array([[[1.0, 4.0]], [[2.0, 0.0]]]), 2, 2),
        Case("the same, without a root", np.array([[[1.0, 4.0]], [[2.0, 0.0]]]), 2, 1),
        Case("three channels, a = 3", _maps(np.random.default_rng(0), 3, 2, 4), 3, 2),
        Case("three channels, a = 1, b = 4", _maps(np.random.default_rng(1), 3, 3, 2), 1, 4),
        Case("an empty place", np.array([[[0.0, 2.0, 1.0]], [[0.0, 1.0, 0.5]]]), 2, 2),
    ],
    more=_any_powers,
    hints=[
        "x is (C, H, W). Adding up the channels leaves one number for each place: which axis goes?",
        "The norm is one number for the whole map: `(activity**a).sum() ** (1 / a)`.",
        "Divide first, take the root last: `(activity / norm) ** (1 / b)`.",
    ],
)


@spatial_weights.mutant("The root is missing: what you divided by the norm is raised to 1 / b.")
def root_forgotten(x, a=2, b=2):
    return spatial_weights_reference(x, a, 1)


@spatial_weights.mutant("You raised to the power b. It is the b-th root: the power 1 / b.")
def power_for_root(x, a=2, b=2):
    return spatial_weights_reference(x, a, 1 / b)


@spatial_weights.mutant(
    "You divided by the sum of the powers; the norm takes their a-th root as well: "
    "`(activity**a).sum() ** (1 / a)`."
)
def norm_without_its_root(x, a=2, b=2):
    activity = x.sum(axis=0)
    return (activity / (activity**a).sum()) ** (1 / b)


@spatial_weights.mutant(
    "You took the root before the norm, so that the norm is that of the roots. Divide first."
)
def root_before_the_norm(x, a=2, b=2):
    root = x.sum(axis=0) ** (1 / b)
    return root / (root**a).sum() ** (1 / a)


@spatial_weights.mutant("The two powers are in each other's place: a is the norm's, b the root's.")
def powers_exchanged(x, a=2, b=2):
    return spatial_weights_reference(x, b, a)


@spatial_weights.mutant(
    "The norm is always the 2-norm in yours: it should have the power a that is given."
)
def always_the_two_norm(x, a=2, b=2):
    return spatial_weights_reference(x, 2, b)


@spatial_weights.mutant("The root is always the square root in yours; it should be the b-th.")
def always_the_square_root(x, a=2, b=2):
    return spatial_weights_reference(x, a, 2)


@spatial_weights.mutant(
    "You took the largest channel at each place; the activity is the sum of the channels."
)
def maximum_of_channels(x, a=2, b=2):
    return spatial_weights_reference(x.max(axis=0, keepdims=True), a, b)


@spatial_weights.mutant(
    "You took the channels' Euclidean length at each place; the activity is their plain sum."
)
def length_of_channels(x, a=2, b=2):
    return spatial_weights_reference(np.sqrt((x**2).sum(axis=0, keepdims=True)), a, b)


@spatial_weights.mutant(
    "You made the weights sum to 1. They are divided by the a-norm alone, and then the root is "
    "taken."
)
def sum_to_one(x, a=2, b=2):
    s = x.sum(axis=0) ** (1 / b)
    return s / s.sum()


@spatial_weights.mutant("You divided by the largest activity; it is the a-norm of all of them.")
def divided_by_the_largest(x, a=2, b=2):
    activity = x.sum(axis=0)
    return (activity / activity.max()) ** (1 / b)


@spatial_weights.mutant(
    "Each row has its own norm in yours. There is one norm, over all places of the image."
)
def norm_of_each_row(x, a=2, b=2):
    activity = x.sum(axis=0)
    norm = (activity**a).sum(axis=1, keepdims=True) ** (1 / a)
    return (activity / np.where(norm > 0, norm, 1)) ** (1 / b)


@spatial_weights.mutant(
    "You added up the places and kept the channels; it is the channels that are added up: axis 0."
)
def places_added_up(x, a=2, b=2):
    activity = x.sum(axis=(1, 2))
    return (activity / (activity**a).sum() ** (1 / a)) ** (1 / b)


@spatial_weights.mutant("The norm is missing: what the root is taken of is divided by it.")
def norm_forgotten(x, a=2, b=2):
    return x.sum(axis=0) ** (1 / b)


@spatial_weights.mutant(
    "`** 1 / a` raises to the power 1 and then divides by a: put brackets, `** (1 / a)`."
)
def norm_without_brackets(x, a=2, b=2):
    activity = x.sum(axis=0)
    return (activity / ((activity**a).sum() / a)) ** (1 / b)


@spatial_weights.mutant(
    "`** 1 / b` raises to the power 1 and then divides by b: put brackets, `** (1 / b)`."
)
def root_without_brackets(x, a=2, b=2):
    return spatial_weights_reference(x, a, 1) / b


@spatial_weights.mutant(
    "You took the mean of the powers in the norm; the norm takes their sum, over all places."
)
def mean_in_the_norm(x, a=2, b=2):
    activity = x.sum(axis=0)
    return (activity / (activity**a).mean() ** (1 / a)) ** (1 / b)


@spatial_weights.mutant(
    "Your norm is that of all numbers of x. It is the norm of the activity, where the channels are "
    "added up already."
)
def norm_of_x(x, a=2, b=2):
    return (x.sum(axis=0) / (x**a).sum() ** (1 / a)) ** (1 / b)


@spatial_weights.mutant(
    "Each column has its own norm in yours. There is one norm, over all places of the image."
)
def norm_of_each_column(x, a=2, b=2):
    activity = x.sum(axis=0)
    norm = (activity**a).sum(axis=0) ** (1 / a)
    return (activity / np.where(norm > 0, norm, 1)) ** (1 / b)


@spatial_weights.mutant(
    "You added up the columns, the last axis; it is the channels that are added up: axis 0."
)
def columns_added_up(x, a=2, b=2):
    activity = x.sum(axis=-1)
    return (activity / (activity**a).sum() ** (1 / a)) ** (1 / b)


@spatial_weights.mutant(
    "The two roots are in each other's place: the norm ends with the a-th root, and the b-th is "
    "taken of the quotient."
)
def roots_exchanged(x, a=2, b=2):
    activity = x.sum(axis=0)
    return (activity / (activity**a).sum() ** (1 / b)) ** (1 / a)


@spatial_weights.mutant("`1 // b` rounds down, to 0 for a b above 1: write `1 / b`.")
def root_rounded_down(x, a=2, b=2):
    return spatial_weights_reference(x, a, np.inf if b > 1 else 1 / (1 // b))


@spatial_weights.mutant(
    "You took the b-th root of the norm alone: `**` comes before `/`. Put the quotient in "
    "brackets, `(activity / norm) ** (1 / b)`."
)
def root_of_the_norm_alone(x, a=2, b=2):
    activity = x.sum(axis=0)
    return activity / ((activity**a).sum() ** (1 / a)) ** (1 / b)


@spatial_weights.mutant(
    "You divided by the sum of the activity, the norm of a = 1; the power a that is given is not "
    "used."
)
def always_the_sum(x, a=2, b=2):
    return spatial_weights_reference(x, 1, b)


@spatial_weights.mutant(
    "You raised the channels to the power a before adding them up. The activity is their plain "
    "sum; the power a belongs to the norm."
)
def power_of_the_channels(x, a=2, b=2):
    activity = (x**a).sum(axis=0)
    return (activity / activity.sum() ** (1 / a)) ** (1 / b)


@spatial_weights.mutant(
    "That is a softmax over the places. There is no exponential here: the activity is divided by "
    "its a-norm."
)
def softmax_of_the_places(x, a=2, b=2):
    powers = np.exp(x.sum(axis=0))
    return powers / powers.sum()


@spatial_weights.mutant(
    "You returned the weighted features, (C, H, W); the weights s alone are asked for, (H, W)."
)
def weighted_features(x, a=2, b=2):
    return spatial_weights_reference(x, a, b) * x


@spatial_weights.mutant(
    "`np.linalg.norm` of a table with a power takes a norm of matrices, which is another thing and "
    "has few powers. Write the sum out, `(activity**a).sum() ** (1 / a)`.",
    raises=True,
)
def norm_of_a_matrix(x, a=2, b=2):
    activity = x.sum(axis=0)
    return (activity / np.linalg.norm(activity, a)) ** (1 / b)


# -- channel_weights ------------------------------------------------------------------------


def _rarity(q):
    """log(sum of q / q), and 0 where q is 0."""
    return np.where(q > 0, np.log(q.sum() / np.where(q > 0, q, 1)), 0)


def channel_weights_reference(x):
    return _rarity((x > 0).mean(axis=(1, 2)))


def _any_map(rng):
    x = _maps(rng, *rng.integers(2, 5, size=3))
    x[rng.integers(len(x))] *= rng.integers(2)
    return Case("any shape", x)


channel_weights = Exercise(
    "23.channel_weights",
    reference=channel_weights_reference,
    cases=[
        Case("one active everywhere, one at half", np.array([[[1.0, 3.0]], [[0.0, 2.0]]])),
        Case("three channels", _maps(np.random.default_rng(3), 3, 3, 4)),
        Case("one that is never active", np.array([[[1.0, 3.0]], [[0.0, 0.0]], [[2.0, 0.0]]])),
        Case("a single active channel", np.array([[[0.0, 0.0]], [[1.0, 0.0]]])),
    ],
    more=_any_map,
    hints=[
        "`x > 0` is an array of truth values, and the mean of truth values is the share of True.",
        "`q = (x > 0).mean(axis=(1, 2))` has one share for each channel; `q.sum()` is one number.",
        "Begin with zeros, `t = np.zeros(len(q))`, and fill in the active channels only: with "
        "`active = q > 0`, assign to `t[active]`.",
    ],
)


def _divide(above, below):
    with np.errstate(all="ignore"):
        return above / below


@channel_weights.mutant(
    "A channel that is active nowhere got an infinite weight, log(sum / 0). Its weight is to be 0."
)
def infinite_for_the_silent(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.log(_divide(q.sum(), q))


@channel_weights.mutant(
    "You kept zero from the division by adding a little to it, as the paper does: then the silent "
    "channel has the largest weight. Here its weight is 0, and nothing is added for the others."
)
def a_little_added(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.log((len(q) * 1e-6 + q.sum()) / (1e-6 + q))


@channel_weights.mutant(
    "You added up the values of each channel. Here it counts at how many places a channel is "
    "active, not how strongly: `x > 0`."
)
def strength_for_count(x):
    return _rarity(x.mean(axis=(1, 2)))


@channel_weights.mutant(
    "Above the line stands the sum of all shares, not 1: log(1 / q) is 0 for a channel that is "
    "active everywhere."
)
def one_above_the_line(x):
    q = (x > 0).mean(axis=(1, 2))
    return -np.log(np.where(q > 0, q, 1))


@channel_weights.mutant("Above the line stands the sum of all shares, not the number of channels.")
def channels_above_the_line(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.where(q > 0, np.log(len(q) / np.where(q > 0, q, 1)), 0)


@channel_weights.mutant("The quotient is upside down: your weights are negative.")
def upside_down(x):
    return -channel_weights_reference(x)


@channel_weights.mutant("The logarithm is missing.")
def without_logarithm(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.where(q > 0, _divide(q.sum(), q), 0)


@channel_weights.mutant("It is the natural logarithm, `np.log`; yours is that to the base 2.")
def logarithm_to_the_base_two(x):
    return channel_weights_reference(x) / np.log(2)


@channel_weights.mutant("It is the natural logarithm, `np.log`; yours is that to the base 10.")
def logarithm_to_the_base_ten(x):
    return channel_weights_reference(x) / np.log(10)


@channel_weights.mutant(
    "You added 1 under the logarithm, as some forms of idf do; here nothing is added."
)
def one_added(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.where(q > 0, np.log(1 + _divide(q.sum(), q)), 0)


@channel_weights.mutant(
    "You took the share of places where the channel is silent; q is that where it is active."
)
def silent_for_active(x):
    return _rarity((x == 0).mean(axis=(1, 2)))


@channel_weights.mutant("Above the line stands the mean of the shares in yours; it is their sum.")
def mean_above_the_line(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.where(q > 0, np.log(_divide(q.mean(), np.where(q > 0, q, 1))), 0)


@channel_weights.mutant(
    "You counted channels at each place. One weight for each channel is asked for: count places, "
    "axes 1 and 2."
)
def counted_along_channels(x):
    return _rarity((x > 0).mean(axis=0))


@channel_weights.mutant(
    "You counted zeros as active: a channel is active where it is greater than 0, not equal to it."
)
def zeros_counted(x):
    return _rarity((x >= 0).mean(axis=(1, 2)))


@channel_weights.mutant(
    "You put 1 in place of q where a channel is silent, before adding the shares up: that changes "
    "the weights of all channels. Add up first, and the silent channel gets 0."
)
def one_for_q_in_the_sum(x):
    q = (x > 0).mean(axis=(1, 2))
    q = np.where(q > 0, q, 1)
    return np.log(q.sum() / q)


@channel_weights.mutant(
    "A channel that is active nowhere got log(sum / 1), as if it were active everywhere. Its "
    "weight is to be 0."
)
def one_for_q(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.log(q.sum() / np.where(q > 0, q, 1))


@channel_weights.mutant(
    "A channel that is active nowhere got the weight 1. Its weight is to be 0: begin with zeros."
)
def one_for_the_silent(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.where(q > 0, np.log(_divide(q.sum(), np.where(q > 0, q, 1))), 1)


@channel_weights.mutant(
    "You kept zero from the division with a tiny number: then a channel that is active nowhere has "
    "a huge weight. It is to be 0."
)
def a_tiny_number_for_zero(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.log(q.sum() / np.maximum(q, 1e-12))


@channel_weights.mutant(
    "You kept zero from the division by adding a little to every q: all weights are off by a "
    "little, and that of a silent channel, which is to be 0, by much."
)
def a_little_below_the_line(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.log(q.sum() / (q + 1e-6))


@channel_weights.mutant(
    "You left the silent channels out. t has a number for every channel, 0 for these."
)
def silent_left_out(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.log(q.sum() / q[q > 0])


@channel_weights.mutant(
    "Your weights are whole numbers: `np.zeros_like` of counts makes an array of integers, which "
    "cuts off what is put into it. `np.zeros(len(q))` holds fractions."
)
def whole_numbers(x):
    return channel_weights_reference(x).astype(int)


@channel_weights.mutant(
    "You took the logarithm of the sum alone, and divided after. The logarithm is that of the "
    "quotient."
)
def logarithm_of_the_sum(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.where(q > 0, np.log(q.sum()) / np.where(q > 0, q, 1), 0)


@channel_weights.mutant(
    "Above the line you left out the channel's own share. The sum runs over all channels."
)
def sum_of_the_others(x):
    q = (x > 0).mean(axis=(1, 2))
    quotient = _divide(q.sum() - q, np.where(q > 0, q, 1))
    return np.where((q > 0) & (quotient > 0), np.log(np.where(quotient > 0, quotient, 1)), 0)


@channel_weights.mutant("Above the line stands the sum of all shares, not the largest of them.")
def largest_above_the_line(x):
    q = (x > 0).mean(axis=(1, 2))
    return np.where(q > 0, np.log(q.max() / np.where(q > 0, q, 1)), 0)


@channel_weights.mutant(
    "You counted along the columns alone, and have a share for each row. A channel has one share, "
    "over all its places: axes 1 and 2."
)
def rows_kept(x):
    return _rarity((x > 0).mean(axis=2))


@channel_weights.mutant(
    "Active means greater than 0; you counted the places that are above the mean."
)
def above_the_mean(x):
    return _rarity((x > x.mean()).mean(axis=(1, 2)))


# -- weighted_sum ---------------------------------------------------------------------------


def _weighted_sum(
    x,
    a,
    b,
    *,
    direct=lambda s, column: s * column,
    contribution=lambda s, ds: s * ds,
    share=lambda u, a: u**a,
    taken=lambda p, e: p * e.sum(),
    below=lambda b, activity, s: b * activity,
    out=lambda s, x: (s * x).sum(axis=(1, 2)),
    spread=lambda g, x: g,
    powers=None,
):
    """With its rule; each setting can be replaced by a mistake."""
    a_used, b_used = powers or (a, b)
    activity = x.sum(axis=0)
    norm = (activity**a_used).sum() ** (1 / a_used)
    s = (activity / norm) ** (1 / b_used)

    def vjp_x(dy):
        column = dy[:, None, None]
        e = contribution(s, (column * x).sum(axis=0))
        p = share(activity / norm, a)
        through_s = (e - taken(p, e)) / below(b, activity, s)
        return direct(s, column) + spread(through_s, x)

    return out(s, x), vjp_x


def weighted_sum_reference(x, *, a=2, b=2):
    return _weighted_sum(x, a, b)


def _full(rng, *shape):
    return (np.abs(rng.normal(size=shape)) + 0.2).round(1)


weighted_sum = Exercise(
    "23.weighted_sum",
    reference=weighted_sum_reference,
    observe=rules,
    cases=[
        Case("two channels, two places", np.array([[[1.0, 4.0]], [[2.0, 0.0]]]), a=2, b=2),
        Case("three channels, without a root", _full(np.random.default_rng(0), 3, 2, 2), a=2, b=1),
        Case("as many channels as rows", _full(np.random.default_rng(1), 3, 3, 2), a=3, b=2),
        Case("the norm of a = 1", _full(np.random.default_rng(2), 2, 3, 2), a=1, b=3),
    ],
    more=lambda rng: Case(
        "any shape and powers",
        _full(rng, *rng.integers(2, 5, size=3)),
        a=int(rng.integers(1, 4)),
        b=int(rng.integers(1, 4)),
    ),
    hints=[
        "Forward: s as in exercise 1, then `(s * x).sum(axis=(1, 2))`.",
        "In the rule dy is (C,): `column = dy[:, None, None]` broadcasts over the places. Then "
        "`s * column` is the first term, (C, H, W).",
        "`e = s * (column * x).sum(axis=0)` and `p = activity**a / (activity**a).sum()`, both "
        "(H, W).",
        "The second term, `(e - p * e.sum()) / (b * activity)`, is (H, W): added to the first it "
        "broadcasts over the channels.",
    ],
)


@weighted_sum.mutant(
    "The output is right. x also made the weights: the second term of the rule is missing."
)
def weights_taken_as_constant(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, spread=lambda g, x: 0)


@weighted_sum.mutant(
    "The output is right. The norm was taken for a constant in the rule; a place that gains weight "
    "takes it from the others: - p times the sum of e."
)
def norm_taken_as_constant(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, taken=lambda p, e: 0)


@weighted_sum.mutant(
    "The output is right. The first term is missing: through the sum itself x gets s dy."
)
def sum_forgotten(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, direct=lambda s, column: 0 * column)


@weighted_sum.mutant(
    "The output is right. The root brings a factor 1 / b, which is missing in the second term."
)
def root_not_differentiated(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, below=lambda b, activity, s: activity)


@weighted_sum.mutant("The output is right. 1 / b became b in the second term.")
def times_b(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, below=lambda b, activity, s: activity / b)


@weighted_sum.mutant(
    "The output is right. The second term is divided by s' in the equation; yours is not."
)
def not_divided_by_activity(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, below=lambda b, activity, s: b)


@weighted_sum.mutant(
    "The output is right. The second term is divided by the activity s', not by the weight s."
)
def divided_by_the_weight(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, below=lambda b, activity, s: b * s)


@weighted_sum.mutant(
    "The output is right. p are shares of the activity to the power a: they sum to 1. Yours is the "
    "activity over its norm, without the power."
)
def share_without_power(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, share=lambda u, a: u)


@weighted_sum.mutant(
    "The output is right. p are shares of the activity to the power a; yours are shares of the "
    "activity itself."
)
def share_of_the_activity(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, share=lambda u, a: u / u.sum())


@weighted_sum.mutant(
    "The output is right. p are shares of the activity to the power a; yours are shares of the "
    "weights s."
)
def share_of_the_weights(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, share=lambda u, a: u ** (1 / b) / (u ** (1 / b)).sum())


@weighted_sum.mutant(
    "The output is right. In the second term stands the sum of e over all places, not their mean."
)
def mean_of_contributions(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, taken=lambda p, e: p * e.mean())


@weighted_sum.mutant(
    "The output is right. Each place takes p times the sum of all e; yours takes p times its own e."
)
def its_own_contribution(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, taken=lambda p, e: p * e)


@weighted_sum.mutant("The output is right. What the norm takes is subtracted, not added.")
def added_for_subtracted(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, taken=lambda p, e: -p * e.sum())


@weighted_sum.mutant(
    "The output is right. In e the factor s is missing: e = s times the sum of dy x over the "
    "channels."
)
def contribution_without_weight(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, contribution=lambda s, ds: ds)


@weighted_sum.mutant(
    "The output is right. The second term was divided by the number of channels; x enters the "
    "activity with weight 1."
)
def divided_by_channels(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, spread=lambda g, x: g / len(x))


@weighted_sum.mutant(
    "The output is right. The second term is the same for all channels; yours is multiplied by x."
)
def times_x(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, spread=lambda g, x: g * x)


@weighted_sum.mutant("You took the mean over the places; y is their sum, with the weights s.")
def mean_over_places(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, out=lambda s, x: (s * x).mean(axis=(1, 2)))


@weighted_sum.mutant("The weights are missing in the output: y sums s x, not x.")
def plain_sum(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, out=lambda s, x: x.sum(axis=(1, 2)))


@weighted_sum.mutant(
    "You divided by the sum of the weights, as in a weighted mean; y is a weighted sum."
)
def weighted_mean(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, out=lambda s, x: (s * x).sum(axis=(1, 2)) / s.sum())


@weighted_sum.mutant("The root of the weights is missing: s is raised to 1 / b.")
def weights_without_root(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, powers=(a, 1))


@weighted_sum.mutant("The powers are not those that are given: yours are 2 and 2 always.")
def powers_of_the_paper(x, *, a=2, b=2):
    return _weighted_sum(x, 2, 2)


@weighted_sum.mutant(
    "The output is right. In the first term each channel gets its own dy, not the sum of all: give "
    "dy two axes more, `dy[:, None, None]`."
)
def gradients_added_up(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, direct=lambda s, column: s * column.sum() + 0 * column)


@weighted_sum.mutant(
    "The output is right. One number was made of e; it sums over the channels and keeps the "
    "places, (H, W)."
)
def one_number_for_e(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, contribution=lambda s, ds: s * ds.sum())


@weighted_sum.mutant(
    "The output is right. e should be summed over the channels, (H, W): a place's weight takes "
    "part in all of them. Yours still has an axis of channels."
)
def channels_of_e_kept(x, *, a=2, b=2):
    y, _ = weighted_sum_reference(x, a=a, b=b)
    activity = x.sum(axis=0)
    s = spatial_weights_reference(x, a, b)

    def vjp_x(dy):
        e = s * dy[:, None, None] * x
        p = activity**a / (activity**a).sum()
        return s * dy[:, None, None] + (e - p * e.sum()) / (b * activity)

    return y, vjp_x


@weighted_sum.mutant(
    "The output is right. The first term is missing in the rule, and with it the axis of channels: "
    "dx has a number for each channel at each place."
)
def first_term_and_its_axis_forgotten(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, direct=lambda s, column: 0)


@weighted_sum.mutant(
    "The output is right. In the first term the weight s is missing: it is s dy, not dy."
)
def first_term_without_weight(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, direct=lambda s, column: column + 0 * s)


@weighted_sum.mutant(
    "The output is right. The first term is s dy; yours is x dy. The other factor of the product "
    "s x is what stands beside dy."
)
def first_term_with_x(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, direct=lambda s, column: x * column)


@weighted_sum.mutant(
    "The output is right. In the rule dy has the shape (C,), and was laid along the last axis, "
    "that of the columns. Give it two axes more: `dy[:, None, None]`."
)
def gradient_along_the_columns(x, *, a=2, b=2):
    y, _ = weighted_sum_reference(x, a=a, b=b)
    activity = x.sum(axis=0)
    s = spatial_weights_reference(x, a, b)

    def vjp_x(dy):
        e = s * (dy * x).sum(axis=0)
        p = activity**a / (activity**a).sum()
        return s * dy + (e - p * e.sum()) / (b * activity)

    return y, vjp_x


@weighted_sum.mutant(
    "The output is right. p are shares of the activity to the power a. Yours is s to the power a; "
    "s is a b-th root already, so that it would be s to the power a b."
)
def share_from_the_root(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, share=lambda u, a: u ** (a / b))


@weighted_sum.mutant(
    "The output is right. In p the powers are divided by the norm, which has a root; they should "
    "be divided by the sum of the powers, `(activity**a).sum()`."
)
def share_of_the_norm(x, *, a=2, b=2):
    activity = x.sum(axis=0)
    norm = (activity**a).sum() ** (1 / a)
    return _weighted_sum(x, a, b, share=lambda u, a: activity**a / norm)


@weighted_sum.mutant(
    "The output is right. `/ b * activity` divides by b and then multiplies by the activity: put "
    "brackets, `/ (b * activity)`."
)
def activity_above_the_line(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, below=lambda b, activity, s: b / activity)


@weighted_sum.mutant(
    "The output is right. Both e and p times the sum of e are divided by b s'; in yours only the "
    "second is. Put brackets: `(e - p * e.sum()) / (b * activity)`."
)
def numerator_without_brackets(x, *, a=2, b=2):
    activity = x.sum(axis=0)
    return _weighted_sum(
        x,
        a,
        b,
        taken=lambda p, e: p * e.sum() / (b * activity),
        below=lambda b, activity, s: 1,
    )


@weighted_sum.mutant(
    "The output is right. Below the line stands b s'. The power a is not there: the derivative of "
    "the power brings it above, and the root of the norm takes it away again."
)
def divided_by_a_as_well(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, below=lambda b, activity, s: a * b * activity)


@weighted_sum.mutant("The output is right. Below the line stands b s'; yours is a s'.")
def a_for_b(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, below=lambda b, activity, s: a * activity)


@weighted_sum.mutant(
    "The output is right. The p of a place is multiplied by the sum of e; yours has summed p e "
    "over the places, the same number everywhere."
)
def sum_of_p_times_e(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, taken=lambda p, e: (p * e).sum())


@weighted_sum.mutant(
    "The output is right. dy is missing in e: a channel counts there by what the loss asks of it, "
    "s times the sum of dy x."
)
def contribution_without_the_gradient(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, contribution=lambda s, ds: s * x.sum(axis=0))


@weighted_sum.mutant(
    "The output is right. The second term is added to the first; you subtracted it."
)
def second_term_subtracted(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, spread=lambda g, x: -g)


@weighted_sum.mutant(
    "The output is right. In the numerator e itself is missing: it is e less p times the sum of e."
)
def own_contribution_forgotten(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, taken=lambda p, e: e + p * e.sum())


@weighted_sum.mutant(
    "y has a number for each channel, (C,): sum over the places, axes 1 and 2. You summed over the "
    "channels."
)
def channels_summed(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, out=lambda s, x: (s * x).sum(axis=0))


@weighted_sum.mutant("y is summed over the places, axes 1 and 2; yours still has them.")
def places_kept(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, out=lambda s, x: s * x)


@weighted_sum.mutant(
    "In the weights the norm is missing: the activity is divided by it before the root is taken."
)
def weights_without_norm(x, *, a=2, b=2):
    return _weighted_sum(x, a, b, out=lambda s, x: (x.sum(axis=0) ** (1 / b) * x).sum(axis=(1, 2)))


# -- CroW -----------------------------------------------------------------------------------


class CroWReference(nn.Module):
    def __init__(self, a=2, b=2):
        super().__init__()
        self.a, self.b = a, b

    def places(self, x):
        return F.normalize(x.sum(dim=1), p=self.a, dim=(1, 2)) ** (1 / self.b)

    def counted(self, x):
        return (x > 0).to(x.dtype)

    def channels(self, x):
        q = self.counted(x).mean(dim=(2, 3))
        return (q.sum(dim=1, keepdim=True) / q).log()

    def forward(self, x):
        return self.channels(x) * (x * self.places(x).unsqueeze(1)).sum(dim=(2, 3))


def _active_maps(seed, *shape):
    """Each channel of each image is active somewhere, and each place has something active."""
    x = _maps(np.random.default_rng(seed), *shape)
    x[:, :, 0, 0] += 0.1 * (x.sum(axis=(2, 3)) == 0)
    return x


CroW = Exercise(
    "23.CroW",
    reference=CroWReference,
    observe=module,
    cases=[
        Case("one image", _active_maps(0, 1, 2, 2, 3)),
        Case("two images", _active_maps(1, 2, 3, 2, 3)),
        Case("two images, other powers", _active_maps(2, 2, 3, 3, 2), a=3, b=1),
        Case("as many images as channels", _active_maps(4, 3, 3, 2, 2), a=1, b=3),
    ],
    more=lambda rng: Case(
        "any shape and powers",
        _active_maps(int(rng.integers(100)), *(int(n) for n in rng.integers(2, 5, size=4))),
        a=int(rng.integers(1, 4)),
        b=int(rng.integers(1, 4)),
    ),
    hints=[
        "Keep the powers in `__init__`: `self.a, self.b = a, b`.",
        "Places: `x.sum(dim=1)` is (N, H, W). `F.normalize(..., p=self.a, dim=(1, 2))` divides "
        "each image by its own norm; then `** (1 / self.b)`.",
        "Channels: `q = (x > 0).to(x.dtype).mean(dim=(2, 3))` is (N, C), and its sum over the "
        "channels is taken with `dim=1, keepdim=True`.",
        "`(x * s.unsqueeze(1)).sum(dim=(2, 3))` is the weighted sum, (N, C); multiply it by t.",
    ],
)


@CroW.mutant("The weights of the channels are missing: multiply by t at the end.")
class WithoutChannels(CroWReference):
    def channels(self, x):
        return 1.0


@CroW.mutant("The weights of the places are missing: yours is t times the plain sum.")
class WithoutPlaces(CroWReference):
    def forward(self, x):
        return self.channels(x) * x.sum(dim=(2, 3))


@CroW.mutant(
    "The norm runs over the whole batch in yours: an image's weights then depend on the others "
    "beside it. Over dims 1 and 2 of (N, H, W) alone."
)
class NormOfTheBatch(CroWReference):
    def places(self, x):
        return F.normalize(x.sum(dim=1), p=self.a, dim=(0, 1, 2)) ** (1 / self.b)


@CroW.mutant(
    "You counted over the whole batch: one t for all images. Each image has its own, (N, C)."
)
class CountedOverTheBatch(CroWReference):
    def channels(self, x):
        q = self.counted(x).mean(dim=(0, 2, 3), keepdim=True).reshape(1, -1)
        return (q.sum(dim=1, keepdim=True) / q).log()


@CroW.mutant(
    "The output is right. The weights of the places were cut off from the graph: x made them, too."
)
class PlacesCutOff(CroWReference):
    def places(self, x):
        return super().places(x).detach()


@CroW.mutant(
    "t is made of the channels' values in yours. It is made of the shares of places where they are "
    "active: `(x > 0).to(x.dtype)`."
)
class StrengthForCount(CroWReference):
    def counted(self, x):
        return x


@CroW.mutant("The weighted values are summed over the places; you took their mean.")
class MeanOverPlaces(CroWReference):
    def forward(self, x):
        return super().forward(x) / (x.shape[2] * x.shape[3])


@CroW.mutant(
    "You divided y by its length. That comes after the module, before a search; here y keeps its "
    "length."
)
class DividedByItsLength(CroWReference):
    def forward(self, x):
        return F.normalize(super().forward(x), dim=1)


@CroW.mutant(
    "You weighed the channels first and made the weights of the places of the result. Both kinds "
    "of weights are made of x itself."
)
class ChannelsFirst(CroWReference):
    def forward(self, x):
        x = x * self.channels(x).unsqueeze(2).unsqueeze(3)
        return (x * self.places(x).unsqueeze(1)).sum(dim=(2, 3))


@CroW.mutant(
    "You weighed the places first and made t of the result's values. t counts, in x itself."
)
class PlacesFirst(CroWReference):
    def forward(self, x):
        weighed = x * self.places(x).unsqueeze(1)
        q = weighed.mean(dim=(2, 3))
        return (q.sum(dim=1, keepdim=True) / q).log() * weighed.sum(dim=(2, 3))


@CroW.mutant("The power a is not used: your norm is the 2-norm always.")
class AlwaysTheTwoNorm(CroWReference):
    def places(self, x):
        return F.normalize(x.sum(dim=1), dim=(1, 2)) ** (1 / self.b)


@CroW.mutant("The power b is not used: your root is the square root always.")
class AlwaysTheSquareRoot(CroWReference):
    def places(self, x):
        return F.normalize(x.sum(dim=1), p=self.a, dim=(1, 2)) ** 0.5


@CroW.mutant("The root is missing: the normalised activity is raised to 1 / b.")
class WithoutRoot(CroWReference):
    def places(self, x):
        return F.normalize(x.sum(dim=1), p=self.a, dim=(1, 2))


@CroW.mutant("The logarithm is missing in the weights of the channels.")
class WithoutLogarithm(CroWReference):
    def channels(self, x):
        return super().channels(x).exp()


@CroW.mutant(
    "In t the sum of the shares is missing above the line: it is log(sum / q), not log(1 / q)."
)
class OneAboveTheLine(CroWReference):
    def channels(self, x):
        return -self.counted(x).mean(dim=(2, 3)).log()


@CroW.mutant(
    "The sum of the shares runs over the images in yours: over the channels, dim 1, of each image."
)
class SummedOverImages(CroWReference):
    def channels(self, x):
        q = self.counted(x).mean(dim=(2, 3))
        return (q.sum(dim=0, keepdim=True) / q).log()


@CroW.mutant(
    "The activity is the sum of the channels, dim 1 of (N, C, H, W); you took the largest."
)
class LargestChannel(CroWReference):
    def places(self, x):
        return F.normalize(x.amax(dim=1), p=self.a, dim=(1, 2)) ** (1 / self.b)


@CroW.mutant(
    "The sum of the shares runs over images and channels in yours: over the channels of each "
    "image, `q.sum(dim=1, keepdim=True)`."
)
class SummedOverAll(CroWReference):
    def channels(self, x):
        q = self.counted(x).mean(dim=(2, 3))
        return (q.sum() / q).log()


@CroW.mutant(
    "Each column has its own norm in yours: `F.normalize` runs over dim 1 if no other is given. "
    "The norm is over both axes of places, `dim=(1, 2)`."
)
class NormOfEachColumn(CroWReference):
    def places(self, x):
        return F.normalize(x.sum(dim=1), p=self.a) ** (1 / self.b)


@CroW.mutant(
    "Each row has its own norm in yours. The norm is over both axes of places, `dim=(1, 2)`."
)
class NormOfEachRow(CroWReference):
    def places(self, x):
        return F.normalize(x.sum(dim=1), p=self.a, dim=2) ** (1 / self.b)


@CroW.mutant(
    "You divided each channel by its own norm, and added up after. Add the channels up first: "
    "there is one norm for an image."
)
class NormOfEachChannel(CroWReference):
    def places(self, x):
        return F.normalize(x, p=self.a, dim=(2, 3)).sum(dim=1) ** (1 / self.b)


@CroW.mutant("You raised to the power b. It is the b-th root: `** (1 / self.b)`.")
class PowerForRoot(CroWReference):
    def places(self, x):
        return F.normalize(x.sum(dim=1), p=self.a, dim=(1, 2)) ** self.b


@CroW.mutant("The two powers are in each other's place: a is the norm's, b the root's.")
class PowersExchanged(CroWReference):
    def places(self, x):
        return F.normalize(x.sum(dim=1), p=self.b, dim=(1, 2)) ** (1 / self.a)


@CroW.mutant("The norm is missing in the weights of the places: `F.normalize` divides by it.")
class WithoutNorm(CroWReference):
    def places(self, x):
        return x.sum(dim=1) ** (1 / self.b)


@CroW.mutant(
    "The weights of the places are a softmax in yours; they are the activity, divided by its "
    "a-norm, and the root of that."
)
class SoftmaxOfThePlaces(CroWReference):
    def places(self, x):
        N, _, H, W = x.shape
        return F.softmax(x.sum(dim=1).reshape(N, H * W), dim=1).reshape(N, H, W)


@CroW.mutant("The quotient in t is upside down: it is log(sum / q).")
class UpsideDown(CroWReference):
    def channels(self, x):
        return -super().channels(x)


@CroW.mutant("You added t to the weighted sum; y is their product.")
class AddedForMultiplied(CroWReference):
    def forward(self, x):
        return self.channels(x) + (x * self.places(x).unsqueeze(1)).sum(dim=(2, 3))


@CroW.mutant("The sum over the places is missing: y is (N, C).")
class PlacesKept(CroWReference):
    def forward(self, x):
        t = self.channels(x).unsqueeze(2).unsqueeze(3)
        return t * x * self.places(x).unsqueeze(1)


@CroW.mutant(
    "The weights of the places are (N, H, W), the features (N, C, H, W): axes are aligned from the "
    "right, so that N would meet C. Give the weights an axis of channels, `s.unsqueeze(1)`.",
    raises=True,
)
class WithoutAxisOfChannels(CroWReference):
    def forward(self, x):
        return self.channels(x) * (x * self.places(x)).sum(dim=(2, 3))


@CroW.mutant(
    "The sum of the shares has lost its axis: (N,) over (N, C) lays the images along the channels. "
    "`q.sum(dim=1, keepdim=True)` is (N, 1).",
    raises=True,
)
class SharesWithoutTheirAxis(CroWReference):
    def channels(self, x):
        q = self.counted(x).mean(dim=(2, 3))
        return (q.sum(dim=1) / q).log()


# -- expanded_query -------------------------------------------------------------------------


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _first(q, g, k):
    return np.argsort(-(g @ q), kind="stable")[:k]


def expanded_query_reference(q, g, k):
    return _unit(q + g[_first(q, g, k)].sum(axis=0))


def _search(label, rng, G, D, k):
    q, g = _unit(rng.normal(size=D)), _unit(rng.normal(size=(G, D)))
    return Case(label, q, g, int(k))


expanded_query = Exercise(
    "23.expanded_query",
    reference=expanded_query_reference,
    cases=[
        Case(
            "three descriptors, one answer",
            np.array([1.0, 0.0]),
            np.array([[0.0, 1.0], [0.8, 0.6], [0.6, 0.8]]),
            1,
        ),
        Case(
            "three descriptors, two answers",
            np.array([1.0, 0.0]),
            np.array([[0.0, 1.0], [0.8, 0.6], [0.6, 0.8]]),
            2,
        ),
        _search("ten descriptors, four answers", np.random.default_rng(0), 10, 4, 4),
        _search("as many answers as there are", np.random.default_rng(1), 5, 3, 5),
    ],
    more=lambda rng: _search(
        "any size", rng, int(rng.integers(4, 9)), int(rng.integers(2, 5)), int(rng.integers(1, 5))
    ),
    hints=[
        "`g @ q` has the likeness of the query to each descriptor, (G,).",
        "`first = np.argsort(-(g @ q), kind='stable')[:k]` are the numbers of the first answers, "
        "and `g[first]` their descriptors, (k, D).",
        "Add `g[first].sum(axis=0)` to q, then divide by `np.linalg.norm` of the result.",
    ],
)


@expanded_query.mutant(
    "You added the mean of the answers, or the query to each of them: it then counts as much as "
    "all answers together. Add their sum, to one query."
)
def mean_of_the_answers(q, g, k):
    return _unit(q + g[_first(q, g, k)].mean(axis=0))


@expanded_query.mutant("The query itself is missing: it is added to the first answers.")
def without_the_query(q, g, k):
    return _unit(g[_first(q, g, k)].sum(axis=0))


@expanded_query.mutant(
    "Your answers are the least alike: `argsort` counts up. Turn the sign: `np.argsort(-values)`."
)
def the_least_alike(q, g, k):
    return _unit(q + g[_first(-q, g, k)].sum(axis=0))


@expanded_query.mutant("The new query should be divided by its length.")
def length_not_one(q, g, k):
    return q + g[_first(q, g, k)].sum(axis=0)


@expanded_query.mutant(
    "You divided by k + 1, which makes a mean; its length is not 1. Divide by the length."
)
def mean_for_length(q, g, k):
    return (q + g[_first(q, g, k)].sum(axis=0)) / (k + 1)


@expanded_query.mutant(
    "You divided the answers' sum by its length before adding it: then the query counts as much as "
    "all answers together."
)
def answers_of_length_one(q, g, k):
    return _unit(q + _unit(g[_first(q, g, k)].sum(axis=0)))


@expanded_query.mutant(
    "You weighed each answer by its likeness. That is a later form; here all of them count alike."
)
def weighed_by_likeness(q, g, k):
    first = _first(q, g, k)
    return _unit(q + (g @ q)[first] @ g[first])


@expanded_query.mutant(
    "You left the most alike out, as if it were the query itself. Here the query is not in the "
    "gallery: the first k count."
)
def first_left_out(q, g, k):
    return _unit(q + g[_first(q, g, k + 1)[1:]].sum(axis=0))


@expanded_query.mutant("You added every descriptor of the gallery; only the first k are added.")
def whole_gallery(q, g, k):
    return _unit(q + g.sum(axis=0))


@expanded_query.mutant(
    "You took the first k rows of the gallery as they stand; sort them by likeness first."
)
def not_sorted(q, g, k):
    return _unit(q + g[:k].sum(axis=0))


@expanded_query.mutant(
    "You returned the numbers of the first answers; the new query is asked for, (D,)."
)
def numbers_for_query(q, g, k):
    return _first(q, g, k)


@expanded_query.mutant(
    "You summed the numbers of the answers, without an axis or along the last one. Answers are "
    "added as vectors: `axis=0`."
)
def one_number_of_the_answers(q, g, k):
    return _unit(q + g[_first(q, g, k)].sum())


@expanded_query.mutant(
    "The answers were not added up: yours has a row for each. `g[first].sum(axis=0)` is one "
    "vector, (D,)."
)
def answers_kept_apart(q, g, k):
    return _unit(q + g[_first(q, g, k)])


@expanded_query.mutant("You added the k-th answer alone; all of the first k are added.")
def the_kth_alone(q, g, k):
    return _unit(q + g[_first(q, g, k)[-1]])


@expanded_query.mutant("You added one answer too many: the first k are `[:k]`.")
def one_too_many(q, g, k):
    return _unit(q + g[_first(q, g, k + 1)].sum(axis=0))


@expanded_query.mutant("You added one answer too few: the first k are `[:k]`.")
def one_too_few(q, g, k):
    return _unit(q + g[_first(q, g, k - 1)].sum(axis=0))


@expanded_query.mutant(
    "You divided by the sum of the numbers. The length of a vector is the root of the sum of its "
    "squares, `np.linalg.norm`."
)
def divided_by_the_sum(q, g, k):
    both = q + g[_first(q, g, k)].sum(axis=0)
    return both / both.sum()


@expanded_query.mutant(
    "You divided by the sum of the absolute values. The length of a vector is the root of the sum "
    "of its squares, `np.linalg.norm`."
)
def divided_by_the_absolute_values(q, g, k):
    both = q + g[_first(q, g, k)].sum(axis=0)
    return both / np.abs(both).sum()


@expanded_query.mutant(
    "You divided by the length squared: the root is missing, `np.sqrt(v @ v)` or `np.linalg.norm`."
)
def divided_by_the_squared_length(q, g, k):
    both = q + g[_first(q, g, k)].sum(axis=0)
    return both / (both @ both)
