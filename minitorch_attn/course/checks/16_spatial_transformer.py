import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, array_of, module, rules, there

IDENTITY = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])

# -- affine_places --------------------------------------------------------------------------


def _pixels(P, Q):
    u, v = (2 * np.arange(Q) + 1) / Q - 1, (2 * np.arange(P) + 1) / P - 1
    return np.stack([np.tile(u, P), np.repeat(v, Q), np.ones(P * Q)], axis=1)


def _places(A, P, Q, t):
    def vjp_A(dy):
        return dy.reshape(len(A), P * Q, 2).swapaxes(1, 2) @ t

    return (t @ A.swapaxes(1, 2)).reshape(len(A), P, Q, 2), vjp_A


def affine_places_reference(A, *, P, Q):
    return _places(A, P, Q, _pixels(P, Q))


affine_places = Exercise(
    "16.affine_places",
    reference=affine_places_reference,
    observe=rules,
    cases=[
        Case("the identity, one row of two pixels", IDENTITY, P=1, Q=2),
        Case(
            "a shift and a scale, two rows of three pixels",
            np.array([[[0.5, 0.0, 0.25], [0.0, 2.0, -0.5]]]),
            P=2,
            Q=3,
        ),
        Case(
            "two maps that turn",
            np.array([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]], [[0.6, -0.8, 0.1], [0.8, 0.6, 0.2]]]),
            P=2,
            Q=2,
        ),
    ],
    more=lambda rng: Case(
        "any maps",
        rng.normal(size=(int(rng.integers(1, 4)), 2, 3)),
        P=int(rng.integers(1, 5)),
        Q=int(rng.integers(2, 5)),
    ),
    hints=[
        "First the coordinates of all pixels of the result as rows (u, v, 1): an array (P Q, 3).",
        "u changes along a row of the result, v from row to row: `np.tile(u, P)` and "
        "`np.repeat(v, Q)`.",
        "The map of rows is `t @ A.swapaxes(1, 2)`, of shape (N, P Q, 2). What is left is to give "
        "it the shape (N, P, Q, 2).",
        "One map serves all pixels, so dA sums over them: dy as (N, 2, P Q), times t.",
    ],
)


@affine_places.mutant(
    "Your coordinates run from centre to centre, with -1 and 1 on the outermost pixels; here -1 "
    "and 1 are the outer edges: (2 q + 1) / Q - 1."
)
def corners_aligned(A, *, P, Q):
    u, v = np.linspace(-1, 1, Q), np.linspace(-1, 1, P)
    return _places(A, P, Q, np.stack([np.tile(u, P), np.repeat(v, Q), np.ones(P * Q)], axis=1))


@affine_places.mutant(
    "2 q / Q - 1 is the left edge of a pixel; its middle, half a pixel on, is (2 q + 1) / Q - 1."
)
def left_edges(A, *, P, Q):
    return _places(A, P, Q, _pixels(P, Q) - [1 / Q, 1 / P, 0])


@affine_places.mutant("Your coordinates run from 0 to 1; here they run from -1 to 1.")
def from_zero_to_one(A, *, P, Q):
    return _places(A, P, Q, (_pixels(P, Q) + [1, 1, 1]) / 2)


@affine_places.mutant(
    "P and Q are in each other's place: a result of size (P, Q) has P rows and Q columns."
)
def sizes_swapped(A, *, P, Q):
    return _places(A, P, Q, _pixels(Q, P))


@affine_places.mutant("Rows and columns are in each other's place: u goes along a row, with q.")
def columns_first(A, *, P, Q):
    u, v = (2 * np.arange(Q) + 1) / Q - 1, (2 * np.arange(P) + 1) / P - 1
    return _places(A, P, Q, np.stack([np.repeat(u, P), np.tile(v, Q), np.ones(P * Q)], axis=1))


@affine_places.mutant("The pairs come as (v, u); the first number of a place is u, to the right.")
def v_before_u(A, *, P, Q):
    grid, vjp_A = affine_places_reference(A, P=P, Q=Q)
    return grid[..., ::-1], lambda dy: vjp_A(dy[..., ::-1])


@affine_places.mutant("The shift is missing: the last column of A multiplies a 1.")
def without_shift(A, *, P, Q):
    return _places(A, P, Q, _pixels(P, Q) * [1, 1, 0])


@affine_places.mutant(
    "The first two columns of A are transposed: u is the product of its first row with (u, v, 1)."
)
def linear_part_transposed(A, *, P, Q):
    def turned(A):
        return np.concatenate([A[:, :, :2].swapaxes(1, 2), A[:, :, 2:]], axis=2)

    grid, vjp_A = affine_places_reference(turned(A), P=P, Q=Q)
    return grid, lambda dy: turned(vjp_A(dy))


@affine_places.mutant(
    "`A @ t.T` is (N, 2, P Q), and a reshape does not move its axis of 2 to the end: "
    "`.swapaxes(1, 2)` first."
)
def reshaped_for_transposed(A, *, P, Q):
    t = _pixels(P, Q)
    return (A @ t.T).reshape(len(A), P, Q, 2), affine_places_reference(A, P=P, Q=Q)[1]


@affine_places.mutant(
    "In the rule of A, the pair is the last axis of dy, and a reshape to (N, 2, P Q) does not move "
    "it: reshape to (N, P Q, 2), then `.swapaxes(1, 2)`."
)
def rule_reshaped_for_transposed(A, *, P, Q):
    grid, _ = affine_places_reference(A, P=P, Q=Q)
    return grid, lambda dy: dy.reshape(len(A), 2, P * Q) @ _pixels(P, Q)


@affine_places.mutant("The rule of A takes the mean over the pixels; their gradients add up.")
def mean_over_pixels(A, *, P, Q):
    grid, vjp_A = affine_places_reference(A, P=P, Q=Q)
    return grid, lambda dy: vjp_A(dy) / (P * Q)


@affine_places.mutant("The rule of A sums over the batch too; each image has a map of its own.")
def summed_over_the_batch(A, *, P, Q):
    grid, vjp_A = affine_places_reference(A, P=P, Q=Q)
    return grid, lambda dy: np.broadcast_to(vjp_A(dy).sum(axis=0), A.shape)


# -- attention_map --------------------------------------------------------------------------


def _attention(theta):
    A = np.zeros((len(theta), 2, 3))
    A[:, 0, 0] = A[:, 1, 1] = theta[:, 0]
    A[:, :, 2] = theta[:, 1:]
    return A


def attention_map_reference(theta):
    def vjp_theta(dy):
        return np.stack([dy[:, 0, 0] + dy[:, 1, 1], dy[:, 0, 2], dy[:, 1, 2]], axis=1)

    return _attention(theta), vjp_theta


attention_map = Exercise(
    "16.attention_map",
    reference=attention_map_reference,
    observe=rules,
    cases=[
        Case("half the width, a little to the right", np.array([[0.5, 0.25, 0.0]])),
        Case("two images", np.array([[0.5, 0.25, -0.5], [2.0, 0.0, 1.0]])),
    ],
    more=lambda rng: Case("any theta", rng.normal(size=(int(rng.integers(1, 5)), 3))),
    hints=[
        "Start from zeros of shape (N, 2, 3) and fill in s twice, and the two shifts once each.",
        "`A[:, 0, 0]` and `A[:, 1, 1]` are s; `A[:, :, 2]` is the pair of shifts.",
        "s stands in A twice, so its gradient is the sum of two entries of dy.",
    ],
)


@attention_map.mutant("s stands in A twice: its gradient is dy[:, 0, 0] + dy[:, 1, 1].")
def one_path_of_s(theta):
    return _attention(theta), lambda dy: np.stack([dy[:, 0, 0], dy[:, 0, 2], dy[:, 1, 2]], axis=1)


@attention_map.mutant("The gradient of s is the sum of its two entries of dy, not their mean.")
def mean_of_both_paths(theta):
    _, vjp_theta = attention_map_reference(theta)
    return _attention(theta), lambda dy: vjp_theta(dy) * [0.5, 1, 1]


@attention_map.mutant(
    "The rule takes all four entries for s; it stands at [0, 0] and [1, 1] alone, the others are "
    "always zero."
)
def all_four_paths(theta):
    return _attention(theta), lambda dy: np.stack(
        [dy[:, :, :2].sum(axis=(1, 2)), dy[:, 0, 2], dy[:, 1, 2]], axis=1
    )


@attention_map.mutant(
    "In the rule the two shifts are swapped: t_u stands in the first row, so its gradient is "
    "dy[:, 0, 2]."
)
def rule_swaps_the_shifts(theta):
    _, vjp_theta = attention_map_reference(theta)
    return _attention(theta), lambda dy: vjp_theta(dy)[:, [0, 2, 1]]


@attention_map.mutant("s scales both directions: A[:, 1, 1] is s too.")
def one_direction_scaled(theta):
    A = _attention(theta)
    A[:, 1, 1] = 1
    return A, one_path_of_s(theta)[1]


@attention_map.mutant("s stands on the diagonal alone; off it, A is zero: nothing is turned.")
def s_in_all_four(theta):
    A = _attention(theta)
    A[:, 0, 1] = A[:, 1, 0] = theta[:, 0]
    return A, all_four_paths(theta)[1]


@attention_map.mutant(
    "You divided by s; the map multiplies by it. That a small s brings things closer comes by "
    "itself, for the map goes from the result to the input."
)
def divided_by_s(theta):
    _, vjp_theta = attention_map_reference(theta)
    s = theta[:, :1]
    inverse = np.concatenate([1 / s, theta[:, 1:]], axis=1)
    ones = np.ones_like(theta[:, 1:])
    return _attention(inverse), lambda dy: vjp_theta(dy) * np.concatenate([-1 / s**2, ones], axis=1)


@attention_map.mutant("theta is (s, t_u, t_v): the scale comes first.")
def scale_last(theta):
    _, vjp_theta = attention_map_reference(theta)
    return _attention(theta[:, [2, 0, 1]]), lambda dy: vjp_theta(dy)[:, [1, 2, 0]]


@attention_map.mutant("The two shifts are in each other's row: t_u belongs to the first, u.")
def shifts_swapped(theta):
    _, vjp_theta = attention_map_reference(theta)
    swapped = theta[:, [0, 2, 1]]
    return _attention(swapped), lambda dy: vjp_theta(dy)[:, [0, 2, 1]]


@attention_map.mutant("You scaled the shifts by s; in this map they are added as they are.")
def scaled_shifts(theta):
    s, t = theta[:, :1], theta[:, 1:]

    def vjp_theta(dy):
        ds = dy[:, 0, 0] + dy[:, 1, 1] + (dy[:, :, 2] * t).sum(axis=1)
        return np.concatenate([ds[:, None], dy[:, :, 2] * s], axis=1)

    return _attention(np.concatenate([s, s * t], axis=1)), vjp_theta


# -- read_pixel -----------------------------------------------------------------------------


def read_pixel_reference(x, h, w):
    H, W = x.shape
    rows = np.maximum(0, 1 - abs(h - np.arange(H)))
    columns = np.maximum(0, 1 - abs(w - np.arange(W)))
    return rows @ x @ columns


SMALL = np.array([[0.0, 4.0], [8.0, 12.0]])
WIDE = np.array([[1.0, 5.0, -2.0, 3.0], [2.0, 0.0, 4.0, -1.0], [6.0, 1.0, 0.0, 2.0]])


def _place(rng, H, W, beyond=0.9):
    return float(rng.uniform(-beyond, H - 1 + beyond)), float(rng.uniform(-beyond, W - 1 + beyond))


read_pixel = Exercise(
    "16.read_pixel",
    reference=read_pixel_reference,
    cases=[
        Case("the example", SMALL, 0.5, 0.25),
        Case("3 rows, 4 columns", WIDE, 1.25, 2.5),
        Case("across the lower edge", WIDE, 2.75, 1.5),
        Case("across the left edge", WIDE, 0.5, -0.25),
    ],
    more=lambda rng: Case("any place", rng.normal(size=(3, 5)), *_place(rng, 3, 5)),
    hints=[
        "The weights are a product: one factor for the row, one for the column.",
        "`np.maximum(0, 1 - abs(h - np.arange(H)))` are the factors of all rows at once. All but "
        "two of them are zero.",
        "A row of factors times the image times a column of factors: `rows @ x @ columns`.",
    ],
)


@read_pixel.mutant("You took the nearest pixel; between pixels the four around are averaged.")
def nearest(x, h, w):
    i, j = round(h), round(w)
    return x[i, j] if 0 <= i < x.shape[0] and 0 <= j < x.shape[1] else 0.0


@read_pixel.mutant(
    "You took the mean of the four pixels around, wherever between them the place is; the nearer "
    "ones weigh more."
)
def equal_weights(x, h, w):
    H, W = x.shape
    i, j = np.arange(H), np.arange(W)
    return (0.5 * (abs(h - i) < 1)) @ x @ (0.5 * (abs(w - j) < 1))


@read_pixel.mutant(
    "1 - |d| falls below zero beyond a distance of 1; the tent ends at 0: max(0, ...)."
)
def without_an_end(x, h, w):
    H, W = x.shape
    return (1 - abs(h - np.arange(H))) @ x @ (1 - abs(w - np.arange(W)))


@read_pixel.mutant(
    "You took one tent of the distance in the plane; here it is the product of two, one for the "
    "row and one for the column."
)
def one_tent_of_the_distance(x, h, w):
    H, W = x.shape
    distance = np.hypot(h - np.arange(H)[:, None], w - np.arange(W))
    return (np.maximum(0, 1 - distance) * x).sum()


@read_pixel.mutant("The weights of row and column were added; they are multiplied.")
def weights_added(x, h, w):
    H, W = x.shape
    rows = np.maximum(0, 1 - abs(h - np.arange(H)))
    columns = np.maximum(0, 1 - abs(w - np.arange(W)))
    return ((rows[:, None] + columns) * x).sum()


@read_pixel.mutant("h and w are counted in pixels already; you converted them once more.")
def converted_once_more(x, h, w):
    H, W = x.shape
    return read_pixel_reference(x, ((h + 1) * H - 1) / 2, ((w + 1) * W - 1) / 2)


@read_pixel.mutant(
    "Across the edge you read nothing at all; up to a distance of 1, the outermost pixels still "
    "count with their weights."
)
def nothing_across_the_edge(x, h, w):
    H, W = x.shape
    inside = 0 <= h <= H - 1 and 0 <= w <= W - 1
    return read_pixel_reference(x, h, w) if inside else 0.0


@read_pixel.mutant(
    "`int` cuts towards zero, so that -0.25 becomes 0; the pixel to the left of it is -1: "
    "`np.floor`."
)
def cut_towards_zero(x, h, w):
    i, j = int(h), int(w)
    beta, alpha = h - i, w - j
    padded = np.pad(x, 1)[i + 1 : i + 3, j + 1 : j + 3]
    return np.array([1 - beta, beta]) @ padded @ np.array([1 - alpha, alpha])


@read_pixel.mutant(
    "At the lower and the right edge a neighbour has an index beyond the image: count it as zero, "
    "for example by a border of zeros, `np.pad(x, 1)`, and indices one higher.",
    raises=True,
)
def index_beyond_the_image(x, h, w):
    alpha, beta, x00, x01, x10, x11 = _corners(x, h, w)
    return (1 - beta) * ((1 - alpha) * x00 + alpha * x01) + beta * ((1 - alpha) * x10 + alpha * x11)


@read_pixel.mutant("h counts rows and w counts columns: the first axis of x goes with h.")
def row_and_column_swapped(x, h, w):
    return read_pixel_reference(x.T, h, w)


@read_pixel.mutant(
    "The weights are in each other's place: a pixel weighs 1 minus its distance, so the nearer "
    "one weighs more."
)
def weight_is_distance(x, h, w):
    H, W = x.shape
    i, j = np.arange(H), np.arange(W)
    return (abs(h - i) * (abs(h - i) < 1)) @ x @ (abs(w - j) * (abs(w - j) < 1))


@read_pixel.mutant("Beyond the edge you repeated the outermost pixels; outside there is zero.")
def edge_repeated(x, h, w):
    H, W = x.shape
    return read_pixel_reference(x, np.clip(h, 0, H - 1), np.clip(w, 0, W - 1))


@read_pixel.mutant(
    "Before the first row or column, an index of -1 reads the last one: Python counts from the end."
)
def around_the_back(x, h, w):
    padded = np.pad(x, 1)
    padded[0, 1:-1], padded[1:-1, 0] = x[-1], x[:, -1]
    return read_pixel_reference(padded, h + 1, w + 1)


# -- slopes ---------------------------------------------------------------------------------


def _corners(x, h, w):
    i, j = int(np.floor(h)), int(np.floor(w))
    return w - j, h - i, x[i, j], x[i, j + 1], x[i + 1, j], x[i + 1, j + 1]


def slopes_reference(x, h, w):
    alpha, beta, x00, x01, x10, x11 = _corners(x, h, w)
    down = (1 - alpha) * (x10 - x00) + alpha * (x11 - x01)
    right = (1 - beta) * (x01 - x00) + beta * (x11 - x10)
    return np.array([down, right])


def _inside(rng):
    return float(rng.integers(2) + rng.uniform(0.1, 0.9)), float(
        rng.integers(4) + rng.uniform(0.1, 0.9)
    )


slopes = Exercise(
    "16.slopes",
    reference=slopes_reference,
    cases=[
        Case("the example", SMALL, 0.5, 0.25),
        Case("3 rows, 4 columns", WIDE, 1.25, 2.5),
        Case("in the first square", WIDE, 0.75, 0.25),
    ],
    more=lambda rng: Case("any place", rng.normal(size=(3, 5)), *_inside(rng)),
    hints=[
        "Give the four neighbours names: x00, x01 to the right, x10 below, x11 both.",
        "With alpha = w - floor(w) and beta = h - floor(h), y = (1 - beta) ((1 - alpha) x00 + "
        "alpha x01) + beta ((1 - alpha) x10 + alpha x11).",
        "Differentiate that with respect to alpha: (1 - beta) (x01 - x00) + beta (x11 - x10).",
    ],
)


@slopes.mutant("The two derivatives are in each other's place: first the one by h, then by w.")
def derivatives_swapped(x, h, w):
    return slopes_reference(x, h, w)[::-1]


@slopes.mutant(
    "The difference of the upper (or left) pair alone is not enough: the other pair counts too, "
    "with the weight beta (or alpha)."
)
def one_pair_alone(x, h, w):
    _, _, x00, x01, x10, _ = _corners(x, h, w)
    return np.array([x10 - x00, x01 - x00])


@slopes.mutant(
    "You added the differences of both pairs as they are; each counts with its weight, 1 - beta "
    "and beta (1 - alpha and alpha)."
)
def pairs_added(x, h, w):
    _, _, x00, x01, x10, x11 = _corners(x, h, w)
    return np.array([x10 - x00 + x11 - x01, x01 - x00 + x11 - x10])


@slopes.mutant(
    "You took the plain mean of both pairs; the nearer pair weighs more: 1 - beta and beta "
    "(1 - alpha and alpha)."
)
def mean_of_both_pairs(x, h, w):
    return pairs_added(x, h, w) / 2


@slopes.mutant(
    "The derivatives are asked for in pixels; the factors H / 2 and W / 2 come in with coordinates "
    "from -1 to 1."
)
def per_coordinate(x, h, w):
    return slopes_reference(x, h, w) * x.shape / np.array(2)


def _tent_slopes(x, h, w, reach=1.0):
    """The slopes of the tents of all rows and columns, without an end if the reach has none."""
    from_row, from_column = h - np.arange(x.shape[0]), w - np.arange(x.shape[1])
    return tuple(-np.sign(d) * (abs(d) < reach) for d in (from_row, from_column))


@slopes.mutant(
    "The slope of the tent is -sign(d) where |d| < 1 alone; beyond that the tent is flat, and its "
    "slope 0."
)
def slope_without_an_end(x, h, w):
    (down, right), H, W = _tent_slopes(x, h, w, np.inf), *x.shape
    rows = np.maximum(0, 1 - abs(h - np.arange(H)))
    columns = np.maximum(0, 1 - abs(w - np.arange(W)))
    return np.array([down @ x @ columns, rows @ x @ right])


@slopes.mutant(
    "In a product k(h - i) k(w - j), h is in one factor alone: in dy/dh the other one stays as it "
    "is, k(w - j)."
)
def other_factor_dropped(x, h, w):
    down, right = _tent_slopes(x, h, w)
    return np.array([down @ x.sum(axis=1), x.sum(axis=0) @ right])


@slopes.mutant("The two numbers are to be one array: `np.array([dy_dh, dy_dw])`.")
def a_tuple(x, h, w):
    return tuple(slopes_reference(x, h, w))


@slopes.mutant("The sign is turned round: right minus left, and lower minus upper.")
def signs_turned(x, h, w):
    return -slopes_reference(x, h, w)


@slopes.mutant("The weights are in each other's place: near the upper pair, beta is small.")
def weights_swapped(x, h, w):
    alpha, beta, x00, x01, x10, x11 = _corners(x, h, w)
    down = alpha * (x10 - x00) + (1 - alpha) * (x11 - x01)
    return np.array([down, beta * (x01 - x00) + (1 - beta) * (x11 - x10)])


@slopes.mutant(
    "The slope to the right is weighed by where the place is between the rows, beta; you took "
    "alpha, and beta for the other."
)
def alpha_and_beta_swapped(x, h, w):
    alpha, beta, x00, x01, x10, x11 = _corners(x, h, w)
    down = (1 - beta) * (x10 - x00) + beta * (x11 - x01)
    return np.array([down, (1 - alpha) * (x01 - x00) + alpha * (x11 - x10)])


# -- sample ---------------------------------------------------------------------------------


def _sample(x, grid, *, in_pixels=None, edge=False, scale=None, channels="sum", step=1, reach=1):
    """The sampler with its rules; each setting can be replaced by a mistake."""
    H, W = x.shape[2:]
    in_pixels = in_pixels or (lambda u, size: ((u + 1) * size - 1) / 2)
    u, v = np.moveaxis(grid[..., ::step], -1, 0)[..., None]
    w, h = in_pixels(u, W), in_pixels(v, H)
    if edge:
        w, h = np.clip(w, 0, W - 1), np.clip(h, 0, H - 1)
    from_column, from_row = w - np.arange(W), h - np.arange(H)
    across, down = np.maximum(0, 1 - abs(from_column)), np.maximum(0, 1 - abs(from_row))

    def slope(distance):
        return -np.sign(distance) * (abs(distance) < reach)

    def vjp_x(dy):
        return np.einsum("ncpq,npqi,npqj->ncij", dy, down, across)

    def vjp_grid(dy):
        dw = np.einsum("ncpq,npqi,npqj,ncij->npq", dy, down, slope(from_column), x)
        dh = np.einsum("ncpq,npqi,npqj,ncij->npq", dy, slope(from_row), across, x)
        share = x.shape[1] if channels == "mean" else 1
        across_and_down = scale(W, H) if scale else (W / 2, H / 2)
        return (np.stack([dw, dh], axis=-1) * across_and_down / share)[..., ::step]

    return np.einsum("ncij,npqi,npqj->ncpq", x, down, across), (vjp_x, vjp_grid)


def sample_reference(x, grid):
    return _sample(x, grid)


def _read(rng, N, C, H, W, P, Q):
    places = rng.uniform(-1.1, 1.1, size=(N, P, Q, 2)).round(3) + 0.0004  # none on a pixel
    return rng.normal(size=(N, C, H, W)), places


sample = Exercise(
    "16.sample",
    reference=sample_reference,
    observe=rules,
    cases=[
        Case(
            "one image of 2 x 2, one place",
            SMALL[None, None],
            np.array([[[[-0.25, 0.1]]]]),
        ),
        Case("one image of 3 x 4, two places", *_read(np.random.default_rng(1), 1, 1, 3, 4, 1, 2)),
        Case("several images and channels", *_read(np.random.default_rng(2), 2, 3, 4, 3, 3, 2)),
        Case(
            "places outside",
            WIDE[None, None],
            np.array([[[[-1.15, 0.1], [0.3, 1.2]], [[2.5, 0.2], [0.1, -3.0]]]]),
        ),
    ],
    more=lambda rng: Case("any shapes", *_read(rng, *rng.integers(2, 5, size=6))),
    tolerance=1e-6,
    hints=[
        "`((grid[..., :1] + 1) * W - 1) / 2 - np.arange(W)` is the distance of each place from "
        "each column: (N, P, Q, W). The same for rows, with `grid[..., 1:]` and H.",
        "y is `np.einsum('ncij,npqi,npqj->ncpq', x, down, across)` with the tents of both. The "
        "rule of x has the same letters in another order.",
        "The slope of the tent max(0, 1 - |d|) is -sign(d) where |d| < 1, and 0 beyond.",
        "For dw put the slopes of the columns in the place of their tents, and sum over c, i and "
        "j. Then du = W / 2 * dw, and dv = H / 2 * dh.",
    ],
)


@sample.mutant(
    "The rule of the grid stays in pixels: a step of 1 in u is W / 2 pixels, so du = W / 2 * dw."
)
def gradient_in_pixels(x, grid):
    return _sample(x, grid, scale=lambda W, H: (1, 1))


@sample.mutant("The factors are in each other's place: du = W / 2 * dw, and dv = H / 2 * dh.")
def factors_swapped(x, grid):
    return _sample(x, grid, scale=lambda W, H: (H / 2, W / 2))


@sample.mutant(
    "You divided where the chain rule multiplies: w grows by W / 2 for each 1 of u, so "
    "du = W / 2 * dw."
)
def divided_by_the_factor(x, grid):
    return _sample(x, grid, scale=lambda W, H: (2 / W, 2 / H))


@sample.mutant("The rule of the grid gives (dv, du); u is the first number of a place.")
def gradients_of_u_and_v_swapped(x, grid):
    y, (vjp_x, vjp_grid) = _sample(x, grid)
    return y, (vjp_x, lambda dy: vjp_grid(dy)[..., ::-1])


@sample.mutant("The rules come in the order of the inputs: first that of x, then that of grid.")
def rules_swapped(x, grid):
    y, rules = _sample(x, grid)
    return y, rules[::-1]


@sample.mutant(
    "The slope of the tent is -sign(d) where |d| < 1 alone; beyond that the tent is flat, and its "
    "slope 0."
)
def tent_slope_without_an_end(x, grid):
    return _sample(x, grid, reach=np.inf)


@sample.mutant(
    "Far outside the image a place learns nothing, for all is zero there; you moved such places to "
    "the edge of the image's border, where there is a slope. Let the border be two zeros wide."
)
def moved_to_a_slope(x, grid):
    size = np.array([x.shape[3], x.shape[2]])
    low, high = (2 * (-1) + 1) / size - 1, (2 * (size - 1e-9) + 1) / size - 1
    return _sample(x, np.clip(grid, low + 1e-12, high))


@sample.mutant(
    "The half pixel is missing: w = ((u + 1) W - 1) / 2, for 0 is the middle of the first pixel, "
    "and its edge is at -1/2."
)
def half_a_pixel_missing(x, grid):
    return _sample(x, grid, in_pixels=lambda u, size: (u + 1) * size / 2)


@sample.mutant("All channels are read at one place: their gradients add up, no mean over them.")
def mean_over_channels(x, grid):
    return _sample(x, grid, channels="mean")


@sample.mutant(
    "You took -1 and 1 for the centres of the outermost pixels, w = (u + 1) (W - 1) / 2; here they "
    "are the outer edges."
)
def corners_in_pixels(x, grid):
    y, (vjp_x, vjp_grid) = _sample(x, grid, in_pixels=lambda u, size: (u + 1) * (size - 1) / 2)
    H, W = x.shape[2:]
    return y, (vjp_x, lambda dy: vjp_grid(dy) * [(W - 1) / W, (H - 1) / H])


@sample.mutant("The first number of a place, u, goes along the columns, the last axis of x.")
def row_before_column(x, grid):
    return _sample(x, grid, step=-1)


@sample.mutant("Outside the image you repeated its edge; here what lies outside is zero.")
def edge_for_zeros(x, grid):
    return _sample(x, grid, edge=True)


@sample.mutant(
    "`dx[index] += ...` keeps one contribution where an index occurs twice; a pixel that several "
    "places read gets the sum of them: `np.add.at`."
)
def contributions_lost(x, grid):
    y, (_, vjp_grid) = _sample(x, grid)
    N, C, H, W = x.shape
    w, h = ((grid[..., 0] + 1) * W - 1) / 2, ((grid[..., 1] + 1) * H - 1) / 2
    column = np.clip(np.floor(w), -1, W - 1).astype(int)
    row = np.clip(np.floor(h), -1, H - 1).astype(int)

    def vjp_x(dy):
        dpadded = np.zeros((N, H + 2, W + 2, C))
        n = np.arange(N)[:, None, None]
        for down in 0, 1:
            for right in 0, 1:
                i, j = row + down, column + right
                weight = np.maximum(0, 1 - abs(h - i)) * np.maximum(0, 1 - abs(w - j))
                dpadded[n, i + 1, j + 1] += weight[..., None] * dy.transpose(0, 2, 3, 1)
        return dpadded.transpose(0, 3, 1, 2)[:, :, 1:-1, 1:-1]

    return y, (vjp_x, vjp_grid)


@sample.mutant("The slope has the wrong sign: away from a pixel, its weight falls.")
def slope_turned(x, grid):
    y, (vjp_x, vjp_grid) = _sample(x, grid)
    return y, (vjp_x, lambda dy: -vjp_grid(dy))


# -- SpatialTransformer ---------------------------------------------------------------------


class SpatialTransformerReference(nn.Module):
    first_bias = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    zero_weight = True

    def __init__(self, channels, height, width, features=8):
        super().__init__()
        self.fc1 = nn.Linear(channels * height * width, features)
        self.fc2 = nn.Linear(features, 6)
        if self.zero_weight:
            nn.init.zeros_(self.fc2.weight)
        self.fc2.bias = nn.Parameter(list(self.first_bias))

    def forward(self, x):
        return F.grid_sample(x, F.affine_grid(self.theta(x), size=x.shape))

    def theta(self, x):
        return self.fc2(F.relu(self.fc1(x.reshape(len(x), -1)))).reshape(-1, 2, 3)


def identity_then_module(subject, case):
    """The output of a fresh module, then all that is asked of any module."""
    there(subject, "mt.manual_seed")(case.seed)
    model = subject(**case.settings)
    if there(subject, "lambda m: isinstance(m, mt.nn.Module)")(model):
        image = there(subject, "mt.tensor")(case.inputs[0].astype("float32"))
        yield "the output at the start", np.round(array_of(model(image)), 4)
    yield from module(subject, case)


def _images(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).round(1)


SpatialTransformer = Exercise(
    "16.SpatialTransformer",
    reference=SpatialTransformerReference,
    observe=identity_then_module,
    cases=[
        Case("one channel", _images(2, 1, 3, 4), channels=1, height=3, width=4, features=3),
        Case("two channels", _images(3, 2, 4, 3), channels=2, height=4, width=3, features=5),
        Case("features left at 8", _images(2, 1, 3, 3), channels=1, height=3, width=3),
    ],
    more=lambda rng: Case(
        "three channels",
        rng.normal(size=(2, 3, 3, 4)),
        channels=3,
        height=3,
        width=4,
        features=int(rng.choice([2, 4])),
    ),
    tolerance=1e-6,
    hints=[
        "fc1 goes from `channels * height * width` to `features`, fc2 from there to 6.",
        "`nn.init.zeros_(self.fc2.weight)`, and `self.fc2.bias = nn.Parameter([1.0, 0, ...])`, the "
        "identity row by row.",
        "`x.reshape(len(x), -1)` makes one row of each image.",
        "The six numbers become a map with `.reshape(-1, 2, 3)`; then F.affine_grid, then "
        "F.grid_sample.",
    ],
)


@SpatialTransformer.mutant(
    "fc2 keeps its random weights: at the start every image is distorted. Set them to zero."
)
class random_start(SpatialTransformerReference):
    zero_weight = False


@SpatialTransformer.mutant(
    "With a bias of zeros every pixel is read at the middle of the image. The identity is "
    "1, 0, 0, 0, 1, 0."
)
class bias_of_zeros(SpatialTransformerReference):
    first_bias = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@SpatialTransformer.mutant(
    "The identity is in the wrong order: row by row it is 1, 0, 0 and then 0, 1, 0."
)
class bias_column_by_column(SpatialTransformerReference):
    first_bias = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


@SpatialTransformer.mutant("Grid and sampler must agree in `align_corners`; here only one has it.")
class mixed_conventions(SpatialTransformerReference):
    def forward(self, x):
        grid = F.affine_grid(self.theta(x), size=x.shape)
        return F.grid_sample(x, grid, align_corners=True)


@SpatialTransformer.mutant(
    "`align_corners=True` in both is a convention of its own; left out, it is False in both."
)
class the_other_convention(SpatialTransformerReference):
    def forward(self, x):
        grid = F.affine_grid(self.theta(x), size=x.shape, align_corners=True)
        return F.grid_sample(x, grid, align_corners=True)


@SpatialTransformer.mutant(
    "The zeros belong in the weight of fc2; you wrote them into that of fc1."
)
class zeros_in_fc1(SpatialTransformerReference):
    zero_weight = False

    def __init__(self, *sizes, **features):
        super().__init__(*sizes, **features)
        nn.init.zeros_(self.fc1.weight)


@SpatialTransformer.mutant(
    "The identity is added in `forward`, to a bias of zeros; it is to be the bias itself, so that "
    "fc2 gives the whole of theta."
)
class identity_added(SpatialTransformerReference):
    first_bias = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def theta(self, x):
        return super().theta(x) + np.eye(2, 3, dtype="float32")


@SpatialTransformer.mutant(
    "The six numbers make two rows of three, `.reshape(-1, 2, 3)`; you transposed them."
)
class map_transposed(SpatialTransformerReference):
    def theta(self, x):
        return super().theta(x).reshape(-1, 3, 2).transpose(1, 2)


@SpatialTransformer.mutant(
    "There is a ReLU behind fc2: no number of the map can be negative then, so nothing can be "
    "turned or moved to the left. It belongs between the two layers."
)
class relu_behind(SpatialTransformerReference):
    def theta(self, x):
        return F.relu(super().theta(x))


@SpatialTransformer.mutant("Between the two layers stands another function; a ReLU is asked for.")
class tanh_for_relu(SpatialTransformerReference):
    def theta(self, x):
        return self.fc2(F.tanh(self.fc1(x.reshape(len(x), -1)))).reshape(-1, 2, 3)


@SpatialTransformer.mutant(
    "Outside the image its edge was repeated; leave `padding_mode` out, and zeros are read there."
)
class border_for_zeros(SpatialTransformerReference):
    def forward(self, x):
        grid = F.affine_grid(self.theta(x), size=x.shape)
        return F.grid_sample(x, grid, padding_mode="border")


@SpatialTransformer.mutant(
    "The grid was returned; what is asked for is what is read through it: F.grid_sample(x, grid)."
)
class grid_returned(SpatialTransformerReference):
    def forward(self, x):
        return F.affine_grid(self.theta(x), size=x.shape)


@SpatialTransformer.mutant("The ReLU between the two layers is missing.")
class relu_missing(SpatialTransformerReference):
    def theta(self, x):
        return self.fc2(self.fc1(x.reshape(len(x), -1))).reshape(-1, 2, 3)


@SpatialTransformer.mutant(
    "x gets two gradients, one through the sampler and one through the localisation network; the "
    "second is missing. Was the grid, theta or x detached from the graph on the way?"
)
class grid_detached(SpatialTransformerReference):
    def forward(self, x):
        return F.grid_sample(x, F.affine_grid(self.theta(x), size=x.shape).detach())


@SpatialTransformer.mutant("The input is added on top; return what was read alone.")
class with_a_shortcut(SpatialTransformerReference):
    def forward(self, x):
        return x + super().forward(x)
