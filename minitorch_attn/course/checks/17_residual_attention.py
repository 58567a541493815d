import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules

# -- attend ---------------------------------------------------------------------------------


def _sigmoid(v):
    return 1 / (1 + np.exp(-v))


def attend_reference(T, v):
    M = _sigmoid(v)

    def vjp_T(dy):
        return (1 + M) * dy

    def vjp_v(dy):
        return T * dy * M * (1 - M)

    return (1 + M) * T, (vjp_T, vjp_v)


def _pair(rng, shape):
    return rng.normal(size=shape).round(2), rng.normal(size=shape).round(2)


attend = Exercise(
    "17.attend",
    reference=attend_reference,
    observe=rules,
    cases=[
        Case("one element", np.array([[[[2.0]]]]), np.array([[[[0.0]]]])),
        Case("two elements", np.array([[[[2.0, -3.0]]]]), np.array([[[[1.0, -2.0]]]])),
        Case("two images, three channels", *_pair(np.random.default_rng(0), (2, 3, 2, 2))),
    ],
    more=lambda rng: Case("any shape", *_pair(rng, tuple(rng.integers(1, 5, size=4)))),
    hints=[
        "First M, then the product. M has the shape of T: nothing is broadcast or summed.",
        "The product rule: with M held fast, dT = (1 + M) * dy; with T held fast, dM = T * dy.",
        "From M back to v with the sigmoid's slope: dv = dM * M * (1 - M).",
    ],
)


@attend.mutant("This is the naive form M * T; the residual form is (1 + M) * T.")
def naive_form(T, v):
    M = _sigmoid(v)
    return M * T, (lambda dy: M * dy, lambda dy: T * dy * M * (1 - M))


@attend.mutant("The rule of T is that of the naive form: the 1 of 1 + M passes dy on as well.")
def rule_without_the_one(T, v):
    y, (_, vjp_v) = attend_reference(T, v)
    return y, (lambda dy: _sigmoid(v) * dy, vjp_v)


@attend.mutant("The rule of v stops at M: the sigmoid's slope M * (1 - M) is missing.")
def without_slope(T, v):
    y, (vjp_T, _) = attend_reference(T, v)
    return y, (vjp_T, lambda dy: T * dy)


@attend.mutant("The other factor in the gradient of M is T, what M multiplies, not the output y.")
def output_for_trunk(T, v):
    y, (vjp_T, _) = attend_reference(T, v)
    M = _sigmoid(v)
    return y, (vjp_T, lambda dy: y * dy * M * (1 - M))


@attend.mutant("The sigmoid's slope is M * (1 - M), with M alone; you used 1 + M as if it were M.")
def slope_of_the_sum(T, v):
    y, (vjp_T, _) = attend_reference(T, v)
    M = _sigmoid(v)
    return y, (vjp_T, lambda dy: T * dy * (1 + M) * (1 - M))


@attend.mutant("The mask is added to T; it is to multiply it: (1 + M) * T.")
def added_mask(T, v):
    M = _sigmoid(v)
    return T + M, (lambda dy: dy, lambda dy: dy * M * (1 - M))


@attend.mutant("The two rules are in each other's place: first the one of T, then the one of v.")
def rules_swapped(T, v):
    y, (vjp_T, vjp_v) = attend_reference(T, v)
    return y, (vjp_v, vjp_T)


def _attend_with(T, v, *, vjp_T=None, vjp_v=None):
    """The right output, with a mistake in one of the rules."""
    y, rules_of = attend_reference(T, v)
    return y, (vjp_T or rules_of[0], vjp_v or rules_of[1])


@attend.mutant("The mask is the sigmoid of v, not v itself.")
def numbers_for_mask(T, v):
    return (1 + v) * T, (lambda dy: (1 + v) * dy, lambda dy: T * dy)


@attend.mutant("The 1 is added to the mask, behind the sigmoid; you added it to v, in front.")
def one_inside_the_sigmoid(T, v):
    return naive_form(T, 1 + v)


@attend.mutant("This is 1 + M alone: it weighs T, so multiply by T.")
def without_trunk(T, v):
    M = _sigmoid(v)
    return 1 + M, (lambda dy: 0 * dy, lambda dy: dy * M * (1 - M))


@attend.mutant("The rule of T hands dy on as if there were no mask: its factor is 1 + M.")
def mask_forgotten_in_the_rule(T, v):
    return _attend_with(T, v, vjp_T=lambda dy: dy)


@attend.mutant("The rule of T divides; y is T times 1 + M, and so dT is dy times 1 + M.")
def divided_by_the_mask(T, v):
    return _attend_with(T, v, vjp_T=lambda dy: dy / (1 + _sigmoid(v)))


@attend.mutant("In the rule of T stands T; y is linear in T, so its rule does not depend on T.")
def rule_of_T_with_T(T, v):
    return _attend_with(T, v, vjp_T=lambda dy: (1 + _sigmoid(v)) * T * dy)


@attend.mutant("In the rule of v the factor T is missing: M is multiplied by T, so dM = T * dy.")
def trunk_forgotten_in_the_rule(T, v):
    M = _sigmoid(v)
    return _attend_with(T, v, vjp_v=lambda dy: dy * M * (1 - M))


@attend.mutant("The sigmoid's slope is written with its output, M * (1 - M), not with v.")
def slope_of_the_input(T, v):
    return _attend_with(T, v, vjp_v=lambda dy: T * dy * v * (1 - v))


@attend.mutant("The sigmoid's slope is M * (1 - M): the factor M is missing.")
def half_of_the_slope(T, v):
    return _attend_with(T, v, vjp_v=lambda dy: T * dy * (1 - _sigmoid(v)))


@attend.mutant("The sigmoid's slope is M * (1 - M); 1 + M has the same one, not (1 + M) * (-M).")
def slope_at_one_plus_mask(T, v):
    M = _sigmoid(v)
    return _attend_with(T, v, vjp_v=lambda dy: T * dy * (1 + M) * (-M))


@attend.mutant("The factor 1 + M belongs to dT; in the rule of v, dM = T * dy.")
def factors_exchanged(T, v):
    M = _sigmoid(v)
    return _attend_with(T, v, vjp_v=lambda dy: (1 + M) * dy * M * (1 - M))


# -- enlarge --------------------------------------------------------------------------------


def enlarge_reference(H, P):
    return _enlarged(H, P, lambda i: i * (P - 1) / (H - 1))


def _enlarged(H, P, place_of, nearest=False):
    A = np.zeros((H, P))
    for i in range(H):
        place = min(max(place_of(i), 0.0), P - 1.0)
        left = min(int(place), P - 2)
        share = place - left
        if nearest:
            share = float(share >= 0.5)
        A[i, left] = 1 - share
        A[i, left + 1] = share
    return A


def _sizes(rng):
    P = int(rng.integers(2, 6))
    return P + int(rng.integers(1, 6)), P


enlarge = Exercise(
    "17.enlarge",
    reference=enlarge_reference,
    cases=[
        Case("2 pixels to 4", 4, 2),
        Case("3 pixels to 5", 5, 3),
        Case("4 pixels to 7", 7, 4),
        Case("as many as before", 3, 3),
    ],
    more=lambda rng: Case("any sizes", *_sizes(rng)),
    hints=[
        "A row of A belongs to one large position and has two entries that are not zero; they add "
        "up to 1.",
        "`place = i * (P - 1) / (H - 1)`; the pixel left of it is `int(place)`.",
        "The pixel at `left` gets 1 - (place - left), the next one place - left. At the last "
        "position there is no next pixel: take left = P - 2 there.",
    ],
)


@enlarge.mutant("The two weights are exchanged: the nearer pixel has the larger one.")
def exchanged_weights(H, P):
    A = enlarge_reference(H, P)
    for i in range(H):
        left = min(int(i * (P - 1) / (H - 1)), P - 2)
        A[i, left], A[i, left + 1] = A[i, left + 1], A[i, left]
    return A


@enlarge.mutant("This has the edges of the outer pixels on one another, not their centres.")
def edges_on_edges(H, P):
    return _enlarged(H, P, lambda i: (i + 0.5) * P / H - 0.5)


@enlarge.mutant("This takes the nearest pixel alone; bilinear enlargement mixes two.")
def nearest_pixel(H, P):
    return _enlarged(H, P, lambda i: i * (P - 1) / (H - 1), nearest=True)


@enlarge.mutant("The step is (P - 1) / (H - 1), so that the corners meet; you took P / H.")
def step_of_sizes(H, P):
    return _enlarged(H, P, lambda i: i * P / H)


@enlarge.mutant("The matrix is transposed: it has a row for each large position, (H, P).")
def transposed(H, P):
    return enlarge_reference(H, P).T


@enlarge.mutant("The last position lies on the last pixel; you left its row empty.")
def last_row_empty(H, P):
    A = enlarge_reference(H, P)
    A[-1] = 0
    return A


@enlarge.mutant(
    "This takes the pixel on the left alone: does the share of the right one become a whole number?"
)
def left_pixel(H, P):
    A = np.zeros((H, P))
    for i in range(H):
        A[i, i * (P - 1) // (H - 1)] = 1
    return A


@enlarge.mutant(
    "At the last position there is no pixel to the right: `left = min(int(place), P - 2)`.",
    raises=True,
)
def beyond_the_last_pixel(H, P):
    A = np.zeros((H, P))
    for i in range(H):
        place = i * (P - 1) / (H - 1)
        left = int(place)
        A[i, left] = 1 - (place - left)
        A[i, left + 1] = place - left
    return A


# -- chain_factor ---------------------------------------------------------------------------


def chain_factor_reference(masks, residual=True):
    return np.cumprod(1 + masks if residual else masks)


chain_factor = Exercise(
    "17.chain_factor",
    reference=chain_factor_reference,
    cases=[
        Case("two halves, naive", np.array([0.5, 0.5]), residual=False),
        Case("two halves, residual", np.array([0.5, 0.5]), residual=True),
        Case("four masks, residual as it stands", np.array([0.1, 0.9, 0.5, 0.3])),
        Case("four masks, naive", np.array([0.1, 0.9, 0.5, 0.3]), residual=False),
    ],
    more=lambda rng: Case(
        "any masks",
        rng.uniform(size=rng.integers(2, 9)).round(2),
        residual=bool(rng.integers(2)),
    ),
    hints=[
        "Each module multiplies by its own factor. What is it in the naive form, what in the "
        "residual one?",
        "`np.cumprod` gives the product of the first, the first two, the first three, ... numbers.",
    ],
)


@chain_factor.mutant("You gave the factor behind the last module; it is asked behind each.")
def last_alone(masks, residual=True):
    return np.prod(1 + masks if residual else masks)


@chain_factor.mutant("Factors of modules in a row are multiplied, not added.")
def summed(masks, residual=True):
    return np.cumsum(1 + masks if residual else masks)


@chain_factor.mutant(
    "The 1 stands in every module, 1 + M: you added it once, to the whole product."
)
def one_added_once(masks, residual=True):
    return np.cumprod(masks) + (1 if residual else 0)


@chain_factor.mutant("You took the naive form whatever `residual` says.")
def always_naive(masks, residual=True):
    return np.cumprod(masks)


@chain_factor.mutant("You took the residual form whatever `residual` says.")
def always_residual(masks, residual=True):
    return np.cumprod(1 + masks)


@chain_factor.mutant("Each module has a mask of its own; you took the first one for all.")
def first_mask_for_all(masks, residual=True):
    return (masks[0] + (1 if residual else 0)) ** np.arange(1, len(masks) + 1)


@chain_factor.mutant(
    "These are the factors of the single modules; a signal behind the second has passed both."
)
def each_for_itself(masks, residual=True):
    return 1 + masks if residual else masks


@chain_factor.mutant("The factor in front of the first module, 1, is not asked for.")
def with_the_start(masks, residual=True):
    return np.concatenate([[1.0], chain_factor_reference(masks, residual)])


@chain_factor.mutant("These are the factors in front of each module; they are asked for behind it.")
def in_front(masks, residual=True):
    return with_the_start(masks, residual)[:-1]


@chain_factor.mutant("You went from the last module to the first; the signal enters the first.")
def from_the_end(masks, residual=True):
    return chain_factor_reference(masks[::-1], residual)


@chain_factor.mutant(
    "(1 + a)(1 + b) is 1 + a + b + a b: you added the masks up and left their products out."
)
def products_left_out(masks, residual=True):
    return 1 + np.cumsum(masks) if residual else np.cumprod(masks)


# -- mask_units -----------------------------------------------------------------------------


def mask_units_reference(d, r):
    return 2 * r + (d - 1) * (2 * r + 1)


mask_units = Exercise(
    "17.mask_units",
    reference=mask_units_reference,
    cases=[
        Case("one halving", 1, 1),
        Case("two halvings", 2, 1),
        Case("three halvings, as at 56 x 56", 3, 1),
        Case("three halvings, two units between pools", 3, 2),
    ],
    more=lambda rng: Case("any numbers", int(rng.integers(1, 7)), int(rng.integers(1, 5))),
    hints=[
        "Count the innermost level first, then what each further level adds.",
        "The innermost has 2 r; each of the other d - 1 levels has r + 1 + r.",
    ],
)


@mask_units.mutant("The skips are missing: each level but the innermost has one unit in its skip.")
def no_skips(d, r):
    return 2 * r * d


@mask_units.mutant("The innermost level has no skip: there are d - 1 of them, not d.")
def skip_at_every_level(d, r):
    return d * (2 * r + 1)


@mask_units.mutant("The innermost level has r units down and r up, 2 r in all; you counted r.")
def innermost_once(d, r):
    return r + (d - 1) * (2 * r + 1)


@mask_units.mutant("A skip holds one unit, whatever r is; you gave it r.")
def skips_of_r(d, r):
    return 2 * r + (d - 1) * 3 * r


@mask_units.mutant("You counted the way down alone; the way up has r units a level too.")
def way_down_alone(d, r):
    return 2 * r + (d - 1) * (r + 1)


@mask_units.mutant("The innermost level is missing: it has r units down and r up.")
def without_innermost(d, r):
    return (d - 1) * (2 * r + 1)


@mask_units.mutant("There are d levels in all, the innermost among them: you counted one too many.")
def one_level_too_many(d, r):
    return 2 * r + d * (2 * r + 1)


@mask_units.mutant("You took r = 1 whatever it is.")
def always_one_between(d, r):
    return 2 + (d - 1) * 3


@mask_units.mutant("An hourglass holds one smaller hourglass, not two: nothing doubles on the way.")
def two_inside_each(d, r):
    return 2 * r if d == 1 else 2 * r + 1 + 2 * two_inside_each(d - 1, r)


# -- channel_mask ---------------------------------------------------------------------------


def channel_mask_reference(v):
    length = np.sqrt((v**2).sum(axis=1, keepdims=True))
    M = v / length

    def vjp_v(dy):
        return (dy - M * (M * dy).sum(axis=1, keepdims=True)) / length

    return M, vjp_v


def _lengthy(rng, shape):
    return (rng.normal(size=shape) + np.where(rng.random(shape) < 0.5, -1, 1)).round(2)


channel_mask = Exercise(
    "17.channel_mask",
    reference=channel_mask_reference,
    observe=rules,
    cases=[
        Case("two channels, one position", np.array([[[[3.0]], [[4.0]]]])),
        Case("three channels", _lengthy(np.random.default_rng(1), (1, 3, 1, 2))),
        Case("two images", _lengthy(np.random.default_rng(2), (2, 4, 2, 3))),
    ],
    more=lambda rng: Case("any shape", _lengthy(rng, tuple(rng.integers(2, 5, size=4)))),
    tolerance=1e-6,
    hints=[
        "The length has one number for each image and position: `keepdims=True` keeps its axis.",
        "With M = v / length, dv has a direct part, dy / length, and one through the length.",
        "The derivative of the length by v_c is v_c / length = M_c; that of M_c by the length is "
        "-M_c / length. So the second part is -M * sum_c(M * dy) / length.",
    ],
)


@channel_mask.mutant(
    "The length depends on v, too: its part, -M * sum(M * dy) / length, is missing."
)
def length_held_fast(v):
    length = np.sqrt((v**2).sum(axis=1, keepdims=True))
    return v / length, lambda dy: dy / length


@channel_mask.mutant("The part through the length is subtracted, not added.")
def length_added(v):
    length = np.sqrt((v**2).sum(axis=1, keepdims=True))
    M = v / length
    return M, lambda dy: (dy + M * (M * dy).sum(axis=1, keepdims=True)) / length


@channel_mask.mutant("The rule lacks its division by the length.")
def not_divided(v):
    length = np.sqrt((v**2).sum(axis=1, keepdims=True))
    M = v / length
    return M, lambda dy: dy - M * (M * dy).sum(axis=1, keepdims=True)


@channel_mask.mutant(
    "Each channel enters the length of all: sum M * dy over the channels before multiplying by M."
)
def channels_apart(v):
    length = np.sqrt((v**2).sum(axis=1, keepdims=True))
    M = v / length
    return M, lambda dy: (dy - M * M * dy) / length


@channel_mask.mutant("The length is the root of the sum of squares; the root is missing.")
def no_root(v):
    square = (v**2).sum(axis=1, keepdims=True)
    M = v / square
    return M, lambda dy: (dy - 2 * M * (v * dy).sum(axis=1, keepdims=True)) / square


@channel_mask.mutant("You took the length over positions; it goes over the channels, axis 1.")
def over_positions(v):
    length = np.sqrt((v**2).sum(axis=(2, 3), keepdims=True))
    M = v / length
    return M, lambda dy: (dy - M * (M * dy).sum(axis=(2, 3), keepdims=True)) / length


def _divided_by(v, length):
    """v / length with the rule that holds where the length is held fast."""
    return v / length, lambda dy: dy / length


@channel_mask.mutant("You divided by the sum of magnitudes; the length is the root of the squares.")
def sum_of_magnitudes(v):
    return _divided_by(v, np.abs(v).sum(axis=1, keepdims=True))


@channel_mask.mutant("You divided by the sum of the channels; the length is the root of squares.")
def sum_for_length(v):
    return _divided_by(v, v.sum(axis=1, keepdims=True))


@channel_mask.mutant("You divided by the largest magnitude; the length is the root of squares.")
def largest_magnitude(v):
    return _divided_by(v, np.abs(v).max(axis=1, keepdims=True))


@channel_mask.mutant("You took the length over the images; it goes over the channels, axis 1.")
def length_over_the_batch(v):
    return _divided_by(v, np.sqrt((v**2).sum(axis=0, keepdims=True)))


@channel_mask.mutant("One length for a whole image: each position has its own, over the channels.")
def length_of_the_image(v):
    return _divided_by(v, np.sqrt((v**2).sum(axis=(1, 2, 3), keepdims=True)))


@channel_mask.mutant(
    "One length for all there is: each position of each image has its own, over the channels."
)
def length_of_everything(v):
    return _divided_by(v, np.sqrt((v**2).sum()))


@channel_mask.mutant("This is a softmax: its sum is 1. Here the length is 1, and there is no exp.")
def softmax_for_length(v):
    e = np.exp(v)
    return _divided_by(e, e.sum(axis=1, keepdims=True))


@channel_mask.mutant("There is no sigmoid in this mask: its weights may be negative.")
def with_sigmoid(v):
    return _sigmoid(channel_mask_reference(v)[0]), lambda dy: dy


def _with_rule(v, rule):
    M, length = channel_mask_reference(v)[0], np.sqrt((v**2).sum(axis=1, keepdims=True))
    return M, lambda dy: rule(dy, M, length)


@channel_mask.mutant("That is the rule of a softmax, M * (dy - ...); here dy is not weighed by M.")
def rule_of_a_softmax(v):
    return _with_rule(v, lambda dy, M, _: M * (dy - (M * dy).sum(axis=1, keepdims=True)))


@channel_mask.mutant(
    "In the part through the length stands v for M: either M twice, or v twice and the length to "
    "the third power."
)
def numbers_for_mask_in_the_rule(v):
    return _with_rule(
        v, lambda dy, _, length: (dy - v * (v * dy).sum(axis=1, keepdims=True)) / length
    )


@channel_mask.mutant("With v in place of M the length stands in the third power, not the second.")
def power_too_low(v):
    return _with_rule(
        v, lambda dy, _, length: dy / length - v * (v * dy).sum(axis=1, keepdims=True) / length**2
    )


@channel_mask.mutant("Sum M * dy over the channels alone: each position has a length of its own.")
def summed_over_everything(v):
    return _with_rule(v, lambda dy, M, length: (dy - M * (M * dy).sum()) / length)


@channel_mask.mutant("In the part through the length M * dy is summed, not dy alone.")
def gradient_summed_bare(v):
    return _with_rule(v, lambda dy, M, length: (dy - M * dy.sum(axis=1, keepdims=True)) / length)


@channel_mask.mutant(
    "You divided by the square of the length; once is enough, as M is of length 1."
)
def divided_twice(v):
    return _with_rule(
        v, lambda dy, M, length: (dy - M * (M * dy).sum(axis=1, keepdims=True)) / length**2
    )


@channel_mask.mutant("The direct part is missing: dy / length, as if the length were fixed.")
def direct_part_missing(v):
    return _with_rule(v, lambda dy, M, length: -M * (M * dy).sum(axis=1, keepdims=True) / length)


# -- Hourglass ------------------------------------------------------------------------------


def _unit(channels):
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False)


class HourglassReference(nn.Module):
    def __init__(self, channels, halvings):
        super().__init__()
        self.halvings = halvings
        self.down = _unit(channels)
        if halvings > 1:
            self.skip = _unit(channels)
            self.inner = type(self)(channels, halvings - 1)
        self.up = _unit(channels)

    def smaller(self, x):
        return F.max_pool2d(x, 3, stride=2, padding=1)

    def larger(self, y, size):
        return F.interpolate(y, size=size, mode="bilinear", align_corners=True)

    def middle(self, a):
        return self.skip(a) + self.inner(a) if self.halvings > 1 else a

    def forward(self, x):
        a = self.down(self.smaller(x))
        return self.larger(self.up(self.middle(a)), x.shape[2:])


def _images(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).round(2)


Hourglass = Exercise(
    "17.Hourglass",
    reference=HourglassReference,
    observe=module,
    cases=[
        Case("one halving", _images(1, 2, 4, 4), channels=2, halvings=1),
        Case("two halvings", _images(2, 2, 8, 8), channels=2, halvings=2),
        Case("three halvings, odd sizes", _images(1, 2, 7, 9), channels=2, halvings=3),
    ],
    more=lambda rng: Case(
        "other sizes",
        rng.normal(size=(1, 2, int(rng.integers(4, 9)), int(rng.integers(4, 9)))),
        channels=2,
        halvings=int(rng.integers(1, 4)),
    ),
    tolerance=1e-6,
    hints=[
        "`down` and `up` are there on every level; `skip` and `inner` only if halvings > 1.",
        "`self.inner = Hourglass(channels, halvings - 1)`: the class uses itself, smaller.",
        "In `forward`: pool, down, then `self.skip(a) + self.inner(a)` if there are any, up, "
        "enlarge. Remember the number of halvings, or ask for it, to know which level this is.",
        "`F.interpolate(..., size=x.shape[2:], mode='bilinear', align_corners=True)`.",
    ],
)


@Hourglass.mutant("The skip is missing in the sum: the inner hourglass alone goes up.")
class skip_unused(HourglassReference):
    def middle(self, a):
        return self.inner(a) + 0 * self.skip(a) if self.halvings > 1 else a


@Hourglass.mutant("`a` itself is added beside the inner hourglass; the skip is a unit of its own.")
class skip_of_nothing(HourglassReference):
    def middle(self, a):
        return a + self.inner(a) + 0 * self.skip(a) if self.halvings > 1 else a


@Hourglass.mutant("Skip and inner hourglass are side by side on a; you put one behind the other.")
class skip_in_series(HourglassReference):
    def middle(self, a):
        return self.inner(self.skip(a)) if self.halvings > 1 else a


@Hourglass.mutant("The image is halved by its means; here the pool takes the largest of 3 x 3.")
class mean_pool(HourglassReference):
    def smaller(self, x):
        return F.avg_pool2d(x, 3, stride=2, padding=1)


@Hourglass.mutant("The enlargement takes the nearest pixel; mode='bilinear' mixes neighbours.")
class nearest(HourglassReference):
    def larger(self, y, size):
        return F.interpolate(y, size=size, mode="nearest")


@Hourglass.mutant("The corners are not on the corners: `align_corners=True` is missing.")
class corners_apart(HourglassReference):
    def larger(self, y, size):
        return F.interpolate(y, size=size, mode="bilinear", align_corners=False)


@Hourglass.mutant("`nn.Conv2d` has a bias unless it is told `bias=False`.")
class biases_left_in(HourglassReference):
    def __init__(self, channels, halvings):
        super().__init__(channels, halvings)
        self.down = nn.Conv2d(channels, channels, 3, padding=1)
        self.up = nn.Conv2d(channels, channels, 3, padding=1)


@Hourglass.mutant("x is added to the result: that shortcut belongs to the units, not to the whole.")
class with_a_shortcut(HourglassReference):
    def forward(self, x):
        return x + super().forward(x)


@Hourglass.mutant(
    "Skip and inner hourglass are side by side on a; the skip stands behind the inner."
)
class skip_behind_inner(HourglassReference):
    def middle(self, a):
        return self.skip(self.inner(a)) if self.halvings > 1 else a


@Hourglass.mutant("The inner hourglass gets what the skip made; both start from a.")
class inner_from_the_skip(HourglassReference):
    def middle(self, a):
        if self.halvings == 1:
            return a
        s = self.skip(a)
        return s + self.inner(s)


@Hourglass.mutant("Beside skip and inner hourglass a itself is added; the two make the sum.")
class three_in_the_sum(HourglassReference):
    def middle(self, a):
        return a + super().middle(a) if self.halvings > 1 else a


@Hourglass.mutant("Skip and inner hourglass are multiplied; they are added.")
class multiplied(HourglassReference):
    def middle(self, a):
        return self.skip(a) * self.inner(a) if self.halvings > 1 else a


@Hourglass.mutant("The inner hourglass is missing in the sum: the skip alone goes up.")
class inner_unused(HourglassReference):
    def middle(self, a):
        return self.skip(a) if self.halvings > 1 else a


@Hourglass.mutant("The inner hourglass gets the pooled x; it stands behind `down`, on a.")
class inner_from_the_pool(HourglassReference):
    def forward(self, x):
        p = self.smaller(x)
        a = self.down(p)
        if self.halvings > 1:
            a = self.skip(a) + self.inner(p)
        return self.larger(self.up(a), x.shape[2:])


@Hourglass.mutant("The skip gets the pooled x; it stands behind `down`, on a.")
class skip_from_the_pool(HourglassReference):
    def forward(self, x):
        p = self.smaller(x)
        a = self.down(p)
        if self.halvings > 1:
            a = self.skip(p) + self.inner(a)
        return self.larger(self.up(a), x.shape[2:])


@Hourglass.mutant("`up` gets the inner hourglass alone; it stands behind the sum with the skip.")
class skip_past_up(HourglassReference):
    def forward(self, x):
        a = self.down(self.smaller(x))
        y = self.up(a)
        if self.halvings > 1:
            y = self.skip(a) + self.up(self.inner(a))
        return self.larger(y, x.shape[2:])


@Hourglass.mutant("`down` works at the full size; the pool comes first.")
class down_before_the_pool(HourglassReference):
    def forward(self, x):
        a = self.smaller(self.down(x))
        return self.larger(self.up(self.middle(a)), x.shape[2:])


@Hourglass.mutant("`up` works at the full size; it comes before the enlargement.")
class up_behind_the_enlargement(HourglassReference):
    def forward(self, x):
        a = self.down(self.smaller(x))
        return self.up(self.larger(self.middle(a), x.shape[2:]))


@Hourglass.mutant("`up` is made and not used.")
class up_unused(HourglassReference):
    def forward(self, x):
        return self.larger(self.middle(self.down(self.smaller(x))), x.shape[2:])


@Hourglass.mutant("The pool is missing: nothing becomes smaller on the way down.")
class without_pool(HourglassReference):
    def smaller(self, x):
        return x


@Hourglass.mutant(
    "The pool has windows of 2 x 2; here they are 3 x 3, with stride 2 and padding 1."
)
class small_windows(HourglassReference):
    def smaller(self, x):
        return F.max_pool2d(x, 2)


@Hourglass.mutant("The result does not have the size of x: enlarge it with `size=x.shape[2:]`.")
class without_enlargement(HourglassReference):
    def larger(self, y, size):
        return y


@Hourglass.mutant("There is a ReLU; a unit is the convolution alone here.")
class with_relu(HourglassReference):
    def forward(self, x):
        a = self.down(self.smaller(x))
        return self.larger(F.relu(self.up(self.middle(a))), x.shape[2:])


@Hourglass.mutant("There is a sigmoid at the end; it belongs to the mask around, not to this.")
class with_sigmoid_at_the_end(HourglassReference):
    def forward(self, x):
        return F.sigmoid(super().forward(x))
