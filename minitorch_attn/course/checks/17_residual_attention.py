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
