import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules


def _rounded(rng, *shape):
    return rng.normal(size=shape).round(1)


# -- scores ---------------------------------------------------------------------------------


def _softplus(s):
    return np.logaddexp(0, s)


def scores_reference(x, W, b, w, c):
    return _softplus(np.maximum(x @ W.T + b, 0) @ w + c)


def _network(rng, L, C, D):
    return (
        _rounded(rng, L, C),
        _rounded(rng, D, C),
        _rounded(rng, D),
        _rounded(rng, D),
        float(_rounded(rng)),
    )


scores = Exercise(
    "24.scores",
    reference=scores_reference,
    cases=[
        Case(
            "two places, one hidden number",
            np.array([[1.0, 2.0], [-1.0, 0.5]]),
            np.array([[1.0, 0.5]]),
            np.array([0.5]),
            np.array([-2.0]),
            3.0,
        ),
        Case("five places", *_network(np.random.default_rng(0), 5, 4, 3)),
        Case("as many of all", *_network(np.random.default_rng(3), 3, 3, 3)),
        Case(
            "a score of 2000, and one of nearly 0",
            np.array([[100.0], [-100.0]]),
            np.array([[2.0], [-2.0]]),
            np.array([1.0, 1.0]),
            np.array([10.0, -10.0]),
            0.5,
        ),
    ],
    more=lambda rng: Case("any sizes", *_network(rng, *rng.integers(2, 6, size=3))),
    hints=[
        "Two linear layers: `x @ W.T + b` has shape (L, D), its positive part times `w` (L,).",
        "`np.log(1 + np.exp(s))` overflows for large s. There is a function of NumPy that adds two "
        "numbers whose logarithms it is given: log(e^a + e^b).",
        "`np.logaddexp(0, s)` is log(e^0 + e^s).",
    ],
)


@scores.mutant("e^s overflows for large s, and the score is infinite: take `np.logaddexp(0, s)`.")
def overflows(x, W, b, w, c):
    with np.errstate(over="ignore"):
        return np.log(1 + np.exp(np.maximum(x @ W.T + b, 0) @ w + c))


@scores.mutant("The ReLU between the two layers is missing.")
def no_relu(x, W, b, w, c):
    return _softplus((x @ W.T + b) @ w + c)


@scores.mutant("The softplus at the end is missing: a score must be positive.")
def no_softplus(x, W, b, w, c):
    return np.maximum(x @ W.T + b, 0) @ w + c


@scores.mutant("At the end stands a softplus, not a ReLU: with a ReLU most scores would be 0.")
def relu_for_softplus(x, W, b, w, c):
    return np.maximum(np.maximum(x @ W.T + b, 0) @ w + c, 0)


@scores.mutant(
    "A softmax makes the scores of a picture add up to 1; these do not: each place is judged by "
    "itself."
)
def softmax_over_places(x, W, b, w, c):
    s = np.maximum(x @ W.T + b, 0) @ w + c
    e = np.exp(s - s.max())
    return e / e.sum()


@scores.mutant("That is the logistic function, the slope of softplus; the score is log(1 + e^s).")
def logistic(x, W, b, w, c):
    return np.exp(-_softplus(-(np.maximum(x @ W.T + b, 0) @ w + c)))


@scores.mutant("Softplus stands between the layers as well; there it is a ReLU.")
def softplus_twice(x, W, b, w, c):
    return _softplus(_softplus(x @ W.T + b) @ w + c)


@scores.mutant("The bias b is missing.")
def no_first_bias(x, W, b, w, c):
    return _softplus(np.maximum(x @ W.T, 0) @ w + c)


@scores.mutant("The bias c of the second layer is missing.")
def no_second_bias(x, W, b, w, c):
    return _softplus(np.maximum(x @ W.T + b, 0) @ w)


@scores.mutant("c is added behind the softplus; it belongs into it.")
def second_bias_too_late(x, W, b, w, c):
    return _softplus(np.maximum(x @ W.T + b, 0) @ w) + c


@scores.mutant(
    "You divided the features by their lengths first. That is for the sum; the score sees them as "
    "they are."
)
def of_length_one(x, W, b, w, c):
    return scores_reference(x / np.linalg.norm(x, axis=1, keepdims=True), W, b, w, c)


def _hidden(x, W, b):
    return np.maximum(x @ W.T + b, 0)


@scores.mutant("b was added behind the ReLU; it belongs into it: max(W x + b, 0).")
def first_bias_too_late(x, W, b, w, c):
    return _softplus((np.maximum(x @ W.T, 0) + b) @ w + c)


@scores.mutant("A ReLU stands before the softplus as well: no score could be below log 2.")
def relu_before_softplus(x, W, b, w, c):
    return _softplus(np.maximum(_hidden(x, W, b) @ w + c, 0))


@scores.mutant("w is not used: the hidden numbers are added up as they are, each has its weight.")
def hidden_numbers_added(x, W, b, w, c):
    return _softplus(_hidden(x, W, b).sum(axis=1) + c)


@scores.mutant(
    "The softplus was taken of each hidden number, and then you added them up: add first, with `@ "
    "w`; a place has one s."
)
def softplus_of_each(x, W, b, w, c):
    return _softplus(_hidden(x, W, b) * w + c).sum(axis=1)


@scores.mutant(
    "The scores of the picture were divided by their sum. They need not add up to 1: each place is "
    "judged by itself."
)
def divided_by_their_sum(x, W, b, w, c):
    alpha = scores_reference(x, W, b, w, c)
    return alpha / alpha.sum()


@scores.mutant("That is e^s; softplus is log(1 + e^s), which for large s is nearly s.")
def exponential(x, W, b, w, c):
    with np.errstate(over="ignore"):
        return np.exp(_hidden(x, W, b) @ w + c)


@scores.mutant(
    "You took `np.logaddexp(1, s)`, that is log(e + e^s): it is given logarithms, and log 1 is 0."
)
def logarithm_of_e(x, W, b, w, c):
    return np.logaddexp(1, _hidden(x, W, b) @ w + c)


@scores.mutant("Between the two layers stands the logistic function; there it is a ReLU.")
def logistic_between(x, W, b, w, c):
    return _softplus(np.exp(-_softplus(-(x @ W.T + b))) @ w + c)


@scores.mutant(
    "s was cut off so that e^s does not overflow: all larger scores become the same. Nothing has "
    "to be cut off with `np.logaddexp(0, s)`."
)
def cut_off(x, W, b, w, c):
    return np.log(1 + np.exp(np.minimum(_hidden(x, W, b) @ w + c, 700)))


# -- attended_sum ---------------------------------------------------------------------------


def _attended(alpha, x, *, y=None, vjp_alpha=None, vjp_x=None):
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x_hat = x / length
    return (
        alpha @ x_hat if y is None else y,
        (
            vjp_alpha or (lambda dy: x_hat @ dy),
            vjp_x or (lambda dy: alpha[:, None] / length * (dy - x_hat * (x_hat @ dy)[:, None])),
        ),
    )


def attended_sum_reference(alpha, x):
    return _attended(alpha, x)


def _weighed(rng, L, C):
    return rng.uniform(0.1, 2, L).round(1), _rounded(rng, L, C) + 0.05


attended_sum = Exercise(
    "24.attended_sum",
    reference=attended_sum_reference,
    observe=rules,
    cases=[
        Case("one place", np.array([2.0]), np.array([[3.0, 4.0]])),
        Case("three places", *_weighed(np.random.default_rng(0), 3, 2)),
        Case("as many places as channels", *_weighed(np.random.default_rng(1), 4, 4)),
    ],
    more=lambda rng: Case("any sizes", *_weighed(rng, *rng.integers(2, 6, size=2))),
    hints=[
        "`length = np.linalg.norm(x, axis=1, keepdims=True)` has shape (L, 1); with `x_hat = x / "
        "length` the sum is `alpha @ x_hat`.",
        "vjp_alpha takes the product of each row of `x_hat` with dy: (L, C) times (C,).",
        "In vjp_x, `(x_hat @ dy)[:, None]` is how much of dy lies along each feature, (L, 1). "
        "Times `x_hat` it is the part to be taken off.",
        "`alpha[:, None] / length * (dy - x_hat * (x_hat @ dy)[:, None])`",
    ],
)


@attended_sum.mutant("The features are not divided by their lengths.")
def not_normalised(alpha, x):
    return alpha @ x, (lambda dy: x @ dy, lambda dy: alpha[:, None] * dy)


@attended_sum.mutant(
    "The rule of x takes the length for a constant. It depends on x: the part of dy along the "
    "feature has to be taken off."
)
def length_taken_for_a_constant(alpha, x):
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return _attended(alpha, x, vjp_x=lambda dy: alpha[:, None] / length * dy)


@attended_sum.mutant("The rule of x is not divided by the length of the feature.")
def not_divided_backward(alpha, x):
    x_hat = x / np.linalg.norm(x, axis=1, keepdims=True)
    return _attended(
        alpha, x, vjp_x=lambda dy: alpha[:, None] * (dy - x_hat * (x_hat @ dy)[:, None])
    )


@attended_sum.mutant("The rule of x forgets the scores: each place's gradient is times its alpha.")
def scores_forgotten_backward(alpha, x):
    _, (_, vjp_x) = _attended(alpha, x)
    return _attended(alpha, x, vjp_x=lambda dy: vjp_x(dy) / alpha[:, None])


@attended_sum.mutant("The part along the feature is added; it has to be taken off.")
def part_added(alpha, x):
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x_hat = x / length
    return _attended(
        alpha,
        x,
        vjp_x=lambda dy: alpha[:, None] / length * (dy + x_hat * (x_hat @ dy)[:, None]),
    )


@attended_sum.mutant(
    "The part to be taken off is made with x itself; it needs x_hat, the feature of length 1, both "
    "times."
)
def part_of_the_wrong_length(alpha, x):
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return _attended(
        alpha, x, vjp_x=lambda dy: alpha[:, None] / length * (dy - x * (x @ dy)[:, None])
    )


@attended_sum.mutant("The rule of alpha multiplies dy with the features as they are: take x_hat.")
def raw_features_for_alpha(alpha, x):
    return _attended(alpha, x, vjp_alpha=lambda dy: x @ dy)


@attended_sum.mutant(
    "You divided by the length of each channel over the places (axis 0); a feature is a row, "
    "axis 1."
)
def divided_along_the_places(alpha, x):
    length = np.linalg.norm(x, axis=0, keepdims=True)
    x_hat = x / length
    return _attended(
        alpha,
        x,
        y=alpha @ x_hat,
        vjp_alpha=lambda dy: x_hat @ dy,
        vjp_x=lambda dy: alpha[:, None] / length * dy - x_hat * (alpha @ x_hat) * dy / length,
    )


@attended_sum.mutant(
    "The sum is divided by the sum of the scores. Here they need not add up to 1: a picture may "
    "have much to say, or little."
)
def mean_for_sum(alpha, x):
    y, (vjp_alpha, vjp_x) = _attended(alpha, x)
    total = alpha.sum()
    return y / total, (
        lambda dy: (vjp_alpha(dy) - (y / total) @ dy) / total,
        lambda dy: vjp_x(dy) / total,
    )


@attended_sum.mutant(
    "You took the mean over the places, as the authors' program does; the exercise has the paper's "
    "sum."
)
def divided_by_the_places(alpha, x):
    y, (vjp_alpha, vjp_x) = _attended(alpha, x)
    L = len(alpha)
    return y / L, (lambda dy: vjp_alpha(dy) / L, lambda dy: vjp_x(dy) / L)


@attended_sum.mutant(
    "You divided by the length of the whole matrix: `np.linalg.norm(x)` is one number. Each row "
    "has its own: `axis=1, keepdims=True`."
)
def one_length_for_all(alpha, x):
    length = np.linalg.norm(x)
    return (
        alpha @ x / length,
        (
            lambda dy: x @ dy / length,
            lambda dy: alpha[:, None] * dy / length - x * (alpha @ x @ dy) / length**3,
        ),
    )


@attended_sum.mutant("The features are added up without their scores: y is the sum of alpha_n x_n.")
def scores_unused(alpha, x):
    y, _ = _attended(np.ones_like(alpha), x)
    return _attended(alpha, x, y=y)


@attended_sum.mutant(
    "The output is divided by its length. The features are, each by itself; their sum is not."
)
def sum_of_length_one(alpha, x):
    y, rules = _attended(alpha, x)
    size = np.linalg.norm(y)
    y_hat = y / size

    def before(dy):
        return (dy - y_hat * (y_hat @ dy)) / size

    return y_hat, (lambda dy: rules[0](before(dy)), lambda dy: rules[1](before(dy)))


def _parts(x):
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return length, x / length


@attended_sum.mutant(
    "The rules stand in the wrong order: that of alpha comes first, as alpha is the first argument."
)
def rules_swapped(alpha, x):
    y, rules = _attended(alpha, x)
    return y, rules[::-1]


@attended_sum.mutant(
    "`np.linalg.norm(x, axis=1)` has shape (L,), and divides the columns, or fits not at all: "
    "`keepdims=True` makes it (L, 1), a length beside each row.",
    raises=True,
)
def length_without_its_axis(alpha, x):
    return _attended(alpha, x, y=alpha @ (x / np.linalg.norm(x, axis=1)))


@attended_sum.mutant(
    "You divided by the square of the length: `(x**2).sum(axis=1)` still needs its root."
)
def divided_by_the_square(alpha, x):
    length, x_hat = _parts(x)
    return (
        alpha @ (x_hat / length),
        (
            lambda dy: x_hat @ dy / length[:, 0],
            lambda dy: alpha[:, None] / length**2 * (dy - 2 * x_hat * (x_hat @ dy)[:, None]),
        ),
    )


@attended_sum.mutant(
    "You divided by the sum of the sizes of a feature's numbers; its length is the root of the sum "
    "of their squares."
)
def city_block_length(alpha, x):
    return _attended(alpha, x, y=alpha @ (x / np.abs(x).sum(axis=1, keepdims=True)))


@attended_sum.mutant(
    "The rule of alpha is times alpha; but dalpha_n is what y gains from more of it: dy along "
    "x_hat, and no alpha."
)
def alpha_in_its_own_rule(alpha, x):
    _, x_hat = _parts(x)
    return _attended(alpha, x, vjp_alpha=lambda dy: alpha * (x_hat @ dy))


@attended_sum.mutant(
    "The rule of x is alpha dy, that of x_hat: the division by the length follows."
)
def division_forgotten_backward(alpha, x):
    return _attended(alpha, x, vjp_x=lambda dy: alpha[:, None] * dy)


@attended_sum.mutant("The rule of x is divided by the square of the length; once is enough.")
def divided_by_the_square_backward(alpha, x):
    _, (_, vjp_x) = _attended(alpha, x)
    return _attended(alpha, x, vjp_x=lambda dy: vjp_x(dy) / _parts(x)[0])


@attended_sum.mutant(
    "In the part to be taken off, x_hat is meant both times; you have x once.",
)
def part_with_x_once(alpha, x):
    length, x_hat = _parts(x)
    return _attended(
        alpha, x, vjp_x=lambda dy: alpha[:, None] / length * (dy - x * (x_hat @ dy)[:, None])
    )


@attended_sum.mutant(
    "The score is missing on the part that you take off: alpha_n / |x_n| stands before the "
    "brackets."
)
def score_on_dy_alone(alpha, x):
    length, x_hat = _parts(x)
    return _attended(
        alpha, x, vjp_x=lambda dy: (alpha[:, None] * dy - x_hat * (x_hat @ dy)[:, None]) / length
    )


@attended_sum.mutant(
    "The part along the feature is not x_hat * x_hat * dy, number by number: the product "
    "x_hat . dy is summed first, one number for each place."
)
def part_number_by_number(alpha, x):
    length, x_hat = _parts(x)
    return _attended(alpha, x, vjp_x=lambda dy: alpha[:, None] / length * (dy - x_hat * x_hat * dy))


@attended_sum.mutant(
    "x_hat . dy is summed over the channels alone; you summed it over the places as well. Each "
    "place takes off its own part."
)
def part_of_all_places(alpha, x):
    length, x_hat = _parts(x)
    return _attended(
        alpha, x, vjp_x=lambda dy: alpha[:, None] / length * (dy - x_hat * (x_hat @ dy).sum())
    )


@attended_sum.mutant(
    "The part that you take off is made with y. Each place takes off its own: x_hat_n . dy."
)
def part_along_the_sum(alpha, x):
    length, x_hat = _parts(x)
    return _attended(
        alpha, x, vjp_x=lambda dy: alpha[:, None] / length * (dy - x_hat * (alpha @ x_hat @ dy))
    )


# -- field_of -------------------------------------------------------------------------------


def field_of_reference(layers):
    size, stride, start = 1, 1, 0.0
    for R, s, p in layers:
        start += stride * ((R - 1) / 2 - p)
        size += stride * (R - 1)
        stride *= s
    return size, stride, start


def _any_layers(rng):
    count = int(rng.integers(2, 5))
    return Case(
        "any chain",
        [
            tuple(int(n) for n in (rng.integers(2, 6), rng.integers(1, 4), rng.integers(0, 3)))
            for _ in range(count)
        ],
    )


field_of = Exercise(
    "24.field_of",
    reference=field_of_reference,
    cases=[
        Case("no layers", []),
        Case("one convolution", [(3, 1, 0)]),
        Case("a kernel of 2", [(2, 1, 0)]),
        Case("one with stride and padding", [(5, 3, 1)]),
        Case("a stride, then a window", [(3, 2, 1), (3, 1, 0)]),
        Case("a pool of 2 between two convolutions", [(5, 2, 0), (2, 2, 0), (3, 1, 1)]),
        Case("four layers", [(7, 2, 3), (3, 2, 1), (4, 3, 2), (3, 1, 0)]),
    ],
    more=_any_layers,
    hints=[
        "Begin with size 1, stride 1, start 0.0, and change the three in a loop over the layers.",
        "A kernel of R spans R - 1 steps, and one step is `stride` pixels.",
        "start grows by stride * ((R - 1) / 2 - p), size by stride * (R - 1); only then the stride "
        "is multiplied by s.",
    ],
)


def _chain(layers, *, span=1, with_padding=True, new_stride=False, start_too=True, half=True):
    size, stride, start = 1, 1, 0.0
    for R, s, p in layers:
        step = stride * s if new_stride else stride
        moved = ((R - 1) / 2 if half else R / 2) - (p if with_padding else 0)
        start += (step if start_too else 1) * moved
        size += step * (R - span)
        stride *= s
    return size, stride, start


@field_of.mutant("A kernel of R reaches over R - 1 steps, not R.")
def r_steps(layers):
    return _chain(layers, span=0)


@field_of.mutant(
    "You multiplied the stride by s too early: the steps within a kernel are those before its "
    "stride."
)
def new_stride_too_early(layers):
    return _chain(layers, new_stride=True)


@field_of.mutant("The padding is not taken off the start.")
def padding_forgotten(layers):
    return _chain(layers, with_padding=False)


@field_of.mutant(
    "The start moves in pixels: (R - 1) / 2 - p is in steps, each of them `stride` pixels."
)
def start_in_steps(layers):
    return _chain(layers, start_too=False)


@field_of.mutant("The middle of a kernel of R is (R - 1) / 2 steps behind its first, not R / 2.")
def half_a_kernel(layers):
    return _chain(layers, half=False)


@field_of.mutant(
    "Strides multiply: two layers of stride 2 make a step of 4 pixels; you added them."
)
def strides_added(layers):
    size, stride, start = 1, 1, 0.0
    for R, s, p in layers:
        start += stride * ((R - 1) / 2 - p)
        size += stride * (R - 1)
        stride += s - 1
    return size, stride, start


@field_of.mutant(
    "The size grows by the kernels as if all strides were 1: a later kernel's steps are `stride` "
    "pixels each."
)
def strides_forgotten_in_the_size(layers):
    _, stride, start = field_of_reference(layers)
    return 1 + sum(R - 1 for R, _, _ in layers), stride, start


@field_of.mutant(
    "(R - 1) // 2 is a whole number: an even kernel has its middle between two pixels."
)
def middle_rounded(layers):
    size, stride, start = 1, 1, 0.0
    for R, s, p in layers:
        start += stride * ((R - 1) // 2 - p)
        size += stride * (R - 1)
        stride *= s
    return size, stride, start


@field_of.mutant(
    "You went through the layers from the last to the first, with rules that start at the first."
)
def from_behind(layers):
    return field_of_reference(layers[::-1])


@field_of.mutant(
    "That is the left end of the first window; the start is its middle, (R - 1) / 2 steps further."
)
def left_end(layers):
    size, stride, start = field_of_reference(layers)
    return size, stride, start - (size - 1) / 2


@field_of.mutant(
    "The padding is in steps of the layer's input, `stride` pixels each: the brackets go around "
    "(R - 1) / 2 - p.",
    like=["paddings_off_at_the_end"],
)
def padding_in_pixels(layers):
    size, stride, start = 1, 1, 0.0
    for R, s, p in layers:
        start += stride * (R - 1) / 2 - p
        size += stride * (R - 1)
        stride *= s
    return size, stride, start


@field_of.mutant("A pixel sees itself: the size begins at 1, not at 0.")
def begins_at_nothing(layers):
    size, stride, start = field_of_reference(layers)
    return size - 1, stride, start


def _each(layers, step, size=1, stride=1, start=0.0):
    """A loop over the layers; `step` makes of (size, stride, start, *layer) the next three."""
    for layer in layers:
        size, stride, start = step(size, stride, start, *layer)
    return size, stride, start


@field_of.mutant(
    "The size has the new stride, the start the old one: both are in steps from before this "
    "layer's stride."
)
def new_stride_in_the_size(layers):
    def step(size, stride, start, R, s, p):
        return size + stride * s * (R - 1), stride * s, start + stride * ((R - 1) / 2 - p)

    return _each(layers, step)


@field_of.mutant(
    "The start has the new stride, the size the old one: both are in steps from before this "
    "layer's stride."
)
def new_stride_in_the_start(layers):
    def step(size, stride, start, R, s, p):
        return size + stride * (R - 1), stride * s, start + stride * s * ((R - 1) / 2 - p)

    return _each(layers, step)


@field_of.mutant(
    "You took the layer's own stride s for its steps. Its steps are those of the layers *before* "
    "it, all multiplied."
)
def own_stride_for_the_steps(layers):
    def step(size, stride, start, R, s, p):
        return size + s * (R - 1), stride * s, start + s * ((R - 1) / 2 - p)

    return _each(layers, step)


@field_of.mutant("The padding moves the first window to the left: it is taken off, not added.")
def padding_added(layers):
    return field_of_reference([(R, s, -p) for R, s, p in layers])


@field_of.mutant(
    "The padding is taken off the size. It moves the windows; what each of them spans, zeros "
    "included, it leaves as it is."
)
def padding_off_the_size(layers):
    def step(size, stride, start, R, s, p):
        return size + stride * (R - 1 - 2 * p), stride * s, start + stride * ((R - 1) / 2 - p)

    return _each(layers, step)


@field_of.mutant("Each layer is (R, s, p): kernel, stride, padding. You read them as (R, p, s).")
def stride_for_padding(layers):
    return field_of_reference([(R, p, s) for R, s, p in layers])


@field_of.mutant("The start is set anew by each layer; it adds up: `start +=`.")
def start_not_added_up(layers):
    def step(size, stride, start, R, s, p):
        return size + stride * (R - 1), stride * s, stride * ((R - 1) / 2 - p)

    return _each(layers, step)


@field_of.mutant("The size is set anew by each layer; it adds up: `size +=`.")
def size_not_added_up(layers):
    def step(size, stride, start, R, s, p):
        return 1 + stride * (R - 1), stride * s, start + stride * ((R - 1) / 2 - p)

    return _each(layers, step)


@field_of.mutant("The stride is that of the last layer alone; strides multiply: `stride *=`.")
def stride_not_multiplied(layers):
    def step(size, stride, start, R, s, p):
        return size + stride * (R - 1), s, start + stride * ((R - 1) / 2 - p)

    return _each(layers, step)


@field_of.mutant("You multiplied the sizes; each layer adds its R - 1 steps.")
def sizes_multiplied(layers):
    def step(size, stride, start, R, s, p):
        return size * R, stride * s, start + stride * ((R - 1) / 2 - p)

    return _each(layers, step)


@field_of.mutant(
    "The paddings are added up in pixels and taken off at the end. Each is in steps, and a step is "
    "the stride so far.",
    like=["padding_in_pixels"],
)
def paddings_off_at_the_end(layers):
    size, stride, _ = field_of_reference(layers)
    return size, stride, (size - 1) / 2 - sum(p for _, _, p in layers)


@field_of.mutant("The order of the answer is size, stride, start; you began with the start.")
def start_first(layers):
    size, stride, start = field_of_reference(layers)
    return start, size, stride


@field_of.mutant(
    "Pixels are counted by their middles, and pixel 0 lies at 0: the start begins at 0.0, not at "
    "half a pixel."
)
def start_at_half_a_pixel(layers):
    size, stride, start = field_of_reference(layers)
    return size, stride, start + 0.5


@field_of.mutant("You rounded the start; an even kernel has its middle between two pixels.")
def start_rounded(layers):
    size, stride, start = field_of_reference(layers)
    return size, stride, int(start)


@field_of.mutant("Pixels are counted from 0: the start begins at 0.0, not at 1.")
def start_at_one(layers):
    size, stride, start = field_of_reference(layers)
    return size, stride, start + 1


@field_of.mutant(
    "Three numbers are asked for, `return size, stride, start`; an array makes all of them floats."
)
def an_array(layers):
    return np.array(field_of_reference(layers))


# -- match ----------------------------------------------------------------------------------


def match_reference(a, b, most):
    distances = np.linalg.norm(a[:, None] - b, axis=2)
    nearest = distances.argmin(axis=1)
    near = np.flatnonzero(distances.min(axis=1) <= most)
    return np.stack([near, nearest[near]], axis=1)


def _unit(rows):
    rows = np.asarray(rows, dtype=float)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _descriptors(rng, M, K, D):
    """Rows of b, and of a some that are near to them and some that are not."""
    b = _unit(rng.normal(size=(K, D)))
    a = b[rng.integers(0, K, M)] + rng.uniform(0.05, 0.8, (M, 1)) * rng.normal(size=(M, D))
    return _unit(a), b, 0.8


# Of length 1 but for rounding, and rather longer: the products of equal rows are above 1.
_SAME = (1 + 1e-15) * np.array([[0.6, 0.8], [0.8, -0.6], [-0.6, -0.8], [-0.8, 0.6]])

match = Exercise(
    "24.match",
    reference=match_reference,
    cases=[
        Case(
            "three and two",
            np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
            np.array([[0.0, 1.0], [0.8, 0.6]]),
            0.8,
        ),
        Case("two rows want the same partner", _unit([[3, 1], [3, 2]]), _unit([[1, 0], [0, 1]]), 1),
        Case(
            "none is near",
            np.array([[1.0, 0.0]]),
            np.array([[-1.0, 0.0], [0.0, -1.0]]),
            0.8,
        ),
        Case(
            "a product of 0.3, one of 0.5, and one of 0.7",
            np.array([[0.3, 0.91**0.5], [0.5, 0.75**0.5], [0.7, 0.51**0.5]]),
            np.array([[1.0, 0.0]]),
            0.8,
        ),
        Case(
            "one as far as is allowed",
            np.array([[1.0, 0.0], [0.0, 1.0]]),
            np.array([[-1.0, 0.0]]),
            2.0,
        ),
        Case("the same in both, but for rounding", _SAME, _SAME[::-1], 0.5),
        Case("twelve and nine", *_descriptors(np.random.default_rng(1), 12, 9, 4)),
        Case("six and ten", *_descriptors(np.random.default_rng(5), 6, 10, 3)),
    ],
    more=lambda rng: Case("any numbers", *_descriptors(rng, *rng.integers(4, 12, size=2), 3)),
    hints=[
        "The table of all products is `a @ b.T`, (M, K). What have the distance and the product of "
        "two vectors of length 1 to do with each other?",
        "|a - b|² = 2 - 2 a·b: the nearest has the greatest product, `argmax(axis=1)`. Where "
        "rounding makes the product greater than 1, `np.maximum(2 - 2 * ..., 0)` keeps the root "
        "real.",
        "`np.flatnonzero(distances <= most)` has the rows of a that are kept; stack it beside "
        "their partners, `axis=1`.",
    ],
)


def _pairs(a, b, keep, nearest=None):
    nearest = (a @ b.T).argmax(axis=1) if nearest is None else nearest
    near = np.flatnonzero(keep)
    return np.stack([near, nearest[near]], axis=1)


def _distance(a, b):
    return np.sqrt(np.maximum(2 - 2 * (a @ b.T).max(axis=1), 0))


@match.mutant("The distances are squared: 2 - 2 a·b is the square, and `most` is not.")
def squared_distance(a, b, most):
    return _pairs(a, b, _distance(a, b) ** 2 <= most)


@match.mutant("Pairs that are too far apart are not left out.")
def all_are_kept(a, b, most):
    return _pairs(a, b, np.ones(len(a), dtype=bool))


@match.mutant(
    "You compared the cosine with `most`, as if it were a distance: `a·b <= most` keeps the pairs "
    "that are far apart."
)
def cosine_for_distance(a, b, most):
    return _pairs(a, b, (a @ b.T).max(axis=1) <= most)


@match.mutant("You compared the cosine with `most`; what is asked for is the distance.")
def cosine_at_least(a, b, most):
    return _pairs(a, b, (a @ b.T).max(axis=1) >= most)


@match.mutant("1 - a·b is not the distance: that is the root of 2 - 2 a·b.")
def cosine_distance(a, b, most):
    return _pairs(a, b, 1 - (a @ b.T).max(axis=1) <= most)


@match.mutant("You took the furthest, not the nearest: the product is greatest where it is near.")
def furthest(a, b, most):
    products = a @ b.T
    keep = np.sqrt(2 - 2 * products.min(axis=1)) <= most
    return _pairs(a, b, keep, products.argmin(axis=1))


@match.mutant("For each row of b you looked for the nearest of a: it is the other way round.")
def the_other_way_round(a, b, most):
    return match_reference(b, a, most)[:, ::-1]


@match.mutant("In each pair the row of a comes first, then the row of b.")
def columns_swapped(a, b, most):
    return match_reference(a, b, most)[:, ::-1]


@match.mutant(
    "The partners are not those of the rows that were kept: take `nearest[near]`, not the first "
    "ones."
)
def partners_not_selected(a, b, most):
    near, nearest = np.flatnonzero(_distance(a, b) <= most), (a @ b.T).argmax(axis=1)
    return np.stack([near, nearest[: len(near)]], axis=1)


@match.mutant(
    "You kept the pairs that are each other's nearest. That is a good idea, and not asked for "
    "here: two rows of a may have the same partner."
)
def mutual(a, b, most):
    products = a @ b.T
    back = products.argmax(axis=0)[products.argmax(axis=1)]
    return _pairs(a, b, (_distance(a, b) <= most) & (back == np.arange(len(a))))


@match.mutant(
    "You gave every pair that is near enough; each row of a is in one pair at most, with its "
    "nearest."
)
def every_near_pair(a, b, most):
    return np.argwhere(np.linalg.norm(a[:, None] - b, axis=2) <= most)


def _table(a, b):
    return np.linalg.norm(a[:, None] - b, axis=2)


@match.mutant("A pair *at most* `most` apart is kept: compare by <=, not by <.")
def less_than_most(a, b, most):
    return _pairs(a, b, _distance(a, b) < most)


@match.mutant(
    "Of two rows that are equal, rounding can make the product a little greater than 1. Then "
    "2 - 2 a·b is negative, its root is nan, and the very best pair is lost: "
    "`np.maximum(2 - 2 * ..., 0)`."
)
def root_of_less_than_nothing(a, b, most):
    with np.errstate(invalid="ignore"):
        return _pairs(a, b, np.sqrt(2 - 2 * (a @ b.T).max(axis=1)) <= most)


@match.mutant("You kept the pairs that are too far apart, and left out the near ones.")
def the_far_ones(a, b, most):
    return _pairs(a, b, _distance(a, b) >= most)


@match.mutant("The factor 2 is missing: the distance is the root of 2 - 2 a·b, not of 1 - a·b.")
def root_without_its_factor(a, b, most):
    return _pairs(a, b, _distance(a, b) / 2**0.5 <= most)


@match.mutant("You compared the angle with `most`; the distance is a little less than the angle.")
def angle(a, b, most):
    return _pairs(a, b, np.arccos((a @ b.T).max(axis=1).clip(-1, 1)) <= most)


@match.mutant("You added the sizes of the differences; take the Euclidean distance.")
def city_block_distance(a, b, most):
    table = np.abs(a[:, None] - b).sum(axis=2)
    return _pairs(a, b, table.min(axis=1) <= most, table.argmin(axis=1))


@match.mutant(
    "The pairs are sorted by their distance; asked for is the order of the rows of a. `np."
    "flatnonzero` gives it."
)
def sorted_by_distance(a, b, most):
    near = np.flatnonzero(_distance(a, b) <= most)
    return match_reference(a, b, most)[np.argsort(_distance(a, b)[near], kind="stable")]


@match.mutant(
    "Each row of b was given away once only. Two rows of a may have the same partner: nothing is "
    "to be struck off."
)
def each_partner_once(a, b, most):
    pairs = match_reference(a, b, most)
    return pairs[np.sort(np.unique(pairs[:, 1], return_index=True)[1])]


@match.mutant(
    "`argmin` without an axis counts through the whole table: `axis=1` gives the nearest of each "
    "row."
)
def nearest_of_the_whole_table(a, b, most):
    nearest = np.full(len(a), _table(a, b).argmin())
    return _pairs(a, b, _distance(a, b) <= most, nearest)


@match.mutant(
    "You took the first row of b that is near enough (`argmax` of a table of bool finds the first "
    "True); asked for is the nearest."
)
def first_that_is_near(a, b, most):
    return _pairs(a, b, _distance(a, b) <= most, (_table(a, b) <= most).argmax(axis=1))


@match.mutant(
    "You compared with the second nearest: the ratio of both distances is another good test, not "
    "the one asked for here."
)
def ratio_to_the_second(a, b, most):
    table = np.sort(_table(a, b), axis=1)
    second = table[:, 1] if table.shape[1] > 1 else np.inf
    return _pairs(a, b, table[:, 0] <= most * second)


@match.mutant(
    "Rows without a partner have a row of their own in your answer, with -1. They are left out."
)
def minus_one_for_none(a, b, most):
    nearest = np.where(_distance(a, b) <= most, (a @ b.T).argmax(axis=1), -1)
    return np.stack([np.arange(len(a)), nearest], axis=1)


@match.mutant(
    "These are the partners alone. A pair has two numbers: `np.stack([near, nearest[near]], "
    "axis=1)`."
)
def partners_alone(a, b, most):
    return match_reference(a, b, most)[:, 1]


@match.mutant(
    "That is the table that says which rows are near; asked for are the numbers of the pairs, of "
    "each row of a its nearest."
)
def table_of_the_near(a, b, most):
    return _table(a, b) <= most


@match.mutant(
    "You took the size of the product: vectors that point against each other are far apart, not "
    "near."
)
def size_of_the_product(a, b, most):
    products = np.abs(a @ b.T)
    distances = np.sqrt(np.maximum(2 - 2 * products.max(axis=1), 0))
    return _pairs(a, b, distances <= most, products.argmax(axis=1))


# -- best_inliers ---------------------------------------------------------------------------


def best_inliers_reference(source, target, triples, tolerance):
    return _ransac(source, target, triples, tolerance)


def _ransac(source, target, triples, tolerance, *, distance=None, better=None, degenerate=False):
    distance = distance or (lambda off: np.linalg.norm(off, axis=1))
    better = better or (lambda new, old: new > old)
    with_ones = np.column_stack([source, np.ones(len(source))])
    best = None
    for three in triples:
        if abs(np.linalg.det(with_ones[three])) < 1e-6:
            if not degenerate:
                continue
            A = np.linalg.pinv(with_ones[three]) @ target[three]
        else:
            A = np.linalg.solve(with_ones[three], target[three])
        inliers = distance(with_ones @ A - target) <= tolerance
        if best is None or better(inliers.sum(), best.sum()):
            best = inliers
    return best


def _views(rng, right, wrong, trials, tolerance=2.0):
    """Pairs under one map, some wrong ones, and trials; in a few of them places on a line."""
    K = right + wrong
    source = rng.integers(0, 50, (K, 2)).astype(float)
    source[K - 3 :] = source[K - 3] + np.arange(3)[:, None] * np.array([4.0, 3.0])
    A = np.eye(2) + rng.uniform(-0.3, 0.3, (2, 2)).round(1)
    target = (source @ A.T + rng.integers(-9, 9, 2)).round(1)
    target[:right] += rng.choice([-0.3, 0, 0.3], (right, 2))
    target[right:] = rng.integers(0, 60, (wrong, 2))
    triples = np.stack([rng.permutation(K)[:3] for _ in range(trials)])
    triples[0] = (K - 3, K - 2, K - 1)
    triples[-1] = _a_triangle(source, right)
    return source, target, triples, tolerance


def _a_triangle(source, right):
    """The three of the first places that span the greatest triangle."""
    with_ones = np.column_stack([source, np.ones(len(source))])
    every = [(i, j, k) for k in range(right) for j in range(k) for i in range(j)]
    return max(every, key=lambda three: abs(np.linalg.det(with_ones[list(three)])))


EIGHT = np.array([(0.0, 0), (9, 0), (0, 9), (9, 9), (20, 10), (30, 12), (22, 25), (5, 30)])

ON_A_LINE = np.array([(0.0, 0), (2, 1), (4, 2), (6, 3), (8, 4), (20, -10), (5, 20), (-10, 5)])

# The first three: a triangle of area 2e-8.
NEARLY = np.array([(0.0, 0), (4, 0), (8, 1e-8), (3, 20), (12, 30), (20, 5), (8, 8), (-9, 2)])

best_inliers = Exercise(
    "24.best_inliers",
    reference=best_inliers_reference,
    cases=[
        Case(
            "five places that move to the right, the last one wrong",
            EIGHT[:5],
            EIGHT[:5] + np.array([(5.0, 0.0)] * 4 + [(5.0, 9.0)]),
            np.array([(0, 1, 2)]),
            1.0,
        ),
        Case(
            "some near, some not",
            EIGHT,
            EIGHT + np.array([(0, 0)] * 3 + [(2, 1), (1.6, 0), (2, 2), (0, 3), (9, 9)]),
            np.array([(0, 1, 2)]),
            2.5,
        ),
        Case(
            "two trials with as many inliers: the first counts",
            EIGHT,
            EIGHT + np.array([(0.0, 0.0)] * 4 + [(9.0, 4.0)] * 4),
            np.array([(0, 4, 5), (0, 1, 2), (4, 5, 6), (1, 5, 6)]),
            1.0,
        ),
        Case(
            "three times as large",
            EIGHT,
            3 * EIGHT + np.array([(0.0, 0.0)] * 4 + [(4.0, 0.0), (1.7, 1.7), (5.0, 0.0), (0, 9)]),
            np.array([(0, 1, 2)]),
            2.0,
        ),
        Case(
            "the first trial has its places on a line",
            ON_A_LINE,
            ON_A_LINE + np.array([(0.0, 0.0)] * 5 + [(7.0, 1.0), (0.0, 0.0), (-8.0, 5.0)]),
            np.array([(0, 2, 4), (5, 6, 7), (0, 5, 7)]),
            1.0,
        ),
        Case(
            "the best trial goes round the other way",
            EIGHT,
            EIGHT + np.array([(0.0, 0.0)] * 5 + [(9.0, 4.0), (-4.0, 9.0), (6.0, -8.0)]),
            np.array([(5, 6, 7), (0, 2, 1)]),
            1.0,
        ),
        Case(
            "the first trial has its places nearly on a line",
            NEARLY,
            NEARLY + np.array([(0.0, 0.0)] * 6 + [(5.0, 3.0)] * 2),
            np.array([(0, 1, 2), (0, 6, 7), (2, 6, 7)]),
            1.0,
        ),
        Case("eight right of twelve", *_views(np.random.default_rng(0), 8, 4, 12)),
        Case("six right of thirteen", *_views(np.random.default_rng(4), 6, 7, 20)),
    ],
    more=lambda rng: Case("any pairs", *_views(rng, int(rng.integers(5, 10)), 5, 15)),
    hints=[
        "An affine map of all places at once is a product: `np.column_stack([source, ones]) @ A` "
        "with A of shape (3, 2).",
        "For one trial: `A = np.linalg.solve(with_ones[three], target[three])`.",
        "The inliers are `np.linalg.norm(with_ones @ A - target, axis=1) <= tolerance`.",
        "Keep them if there are more than in the best trial so far; `continue` where "
        "`abs(np.linalg.det(with_ones[three]))` is 0 (below 1e-6).",
    ],
)


@best_inliers.mutant("You compared the squares of the distances with the tolerance.")
def squares(source, target, triples, tolerance):
    return _ransac(source, target, triples, tolerance, distance=lambda off: (off**2).sum(axis=1))


@best_inliers.mutant(
    "You asked each coordinate to be within the tolerance; the distance takes both together."
)
def each_coordinate(source, target, triples, tolerance):
    return _ransac(source, target, triples, tolerance, distance=lambda off: np.abs(off).max(axis=1))


@best_inliers.mutant("You added the differences of both coordinates; take the Euclidean distance.")
def city_blocks(source, target, triples, tolerance):
    return _ransac(source, target, triples, tolerance, distance=lambda off: np.abs(off).sum(axis=1))


@best_inliers.mutant(
    "The last trial counts in your answer, not the best one. Did later trials write into the array "
    "that you kept? `best = inliers` gives it another name; only a new array is another array."
)
def last_trial(source, target, triples, tolerance):
    return _ransac(source, target, triples, tolerance, better=lambda new, old: True)


@best_inliers.mutant("Of trials with as many inliers the first counts: compare by >, not by >=.")
def last_of_the_best(source, target, triples, tolerance):
    return _ransac(source, target, triples, tolerance, better=lambda new, old: new >= old)


@best_inliers.mutant("You kept the trial with the fewest inliers.")
def fewest(source, target, triples, tolerance):
    return _ransac(source, target, triples, tolerance, better=lambda new, old: new < old)


@best_inliers.mutant(
    "The map has no shift: it is (x, y, 1) that is multiplied, not (x, y). Without the 1 it leaves "
    "(0, 0) where it is."
)
def without_shift(source, target, triples, tolerance):
    best = np.zeros(len(source), dtype=bool)
    for three in triples:
        A = np.linalg.pinv(source[three]) @ target[three]
        inliers = np.linalg.norm(source @ A - target, axis=1) <= tolerance
        best = inliers if inliers.sum() > best.sum() else best
    return best


@best_inliers.mutant("The map leads from target to source; it should move source to target.")
def backwards(source, target, triples, tolerance):
    best = np.zeros(len(source), dtype=bool)
    with_ones = np.column_stack([target, np.ones(len(target))])
    for three in triples:
        A = np.linalg.pinv(with_ones[three]) @ source[three]
        inliers = np.linalg.norm(with_ones @ A - source, axis=1) <= tolerance
        best = inliers if inliers.sum() > best.sum() else best
    return best


@best_inliers.mutant(
    "You fitted one map to all pairs by least squares; the wrong pairs pull it away from the right "
    "ones. That is why three at a time are tried."
)
def least_squares_of_all(source, target, triples, tolerance):
    with_ones = np.column_stack([source, np.ones(len(source))])
    A = np.linalg.lstsq(with_ones, target, rcond=None)[0]
    return np.linalg.norm(with_ones @ A - target, axis=1) <= tolerance


@best_inliers.mutant(
    "You found a map for three places on a line, too. Many maps move those three rightly; least "
    "squares takes one of them, and it has all the line for inliers. Pass such trials over."
)
def some_map_for_a_line(source, target, triples, tolerance):
    return _ransac(source, target, triples, tolerance, degenerate=True)


@best_inliers.mutant(
    "A trial was not passed over whose three places lie on a line: `np.linalg.solve` finds no map.",
    raises=True,
)
def line_not_passed_over(source, target, triples, tolerance):
    with_ones = np.column_stack([source, np.ones(len(source))])
    best = np.zeros(len(source), dtype=bool)
    for three in triples:
        A = np.linalg.solve(with_ones[three].round(6), target[three])
        inliers = np.linalg.norm(with_ones @ A - target, axis=1) <= tolerance
        best = inliers if inliers.sum() > best.sum() else best
    return best


@best_inliers.mutant(
    "You fitted the map to the inliers once more and counted again. That is a good next step, but "
    "the inliers asked for are those of the trial."
)
def fitted_once_more(source, target, triples, tolerance):
    best = _ransac(source, target, triples, tolerance)
    with_ones = np.column_stack([source, np.ones(len(source))])
    A = np.linalg.lstsq(with_ones[best], target[best], rcond=None)[0]
    return np.linalg.norm(with_ones @ A - target, axis=1) <= tolerance


def _trials(source, target, triples, tolerance, *, change=lambda inliers, three: inliers):
    """The inliers of each good trial, one after the other."""
    with_ones = np.column_stack([source, np.ones(len(source))])
    for three in triples:
        if abs(np.linalg.det(with_ones[three])) >= 1e-6:
            A = np.linalg.solve(with_ones[three], target[three])
            off = np.linalg.norm(with_ones @ A - target, axis=1)
            yield change(off <= tolerance, three)


@best_inliers.mutant(
    "The sign of the determinant says which way round the three places go; you passed over all "
    "that go one way. Take its size: `abs(np.linalg.det(...))`."
)
def sign_of_the_determinant(source, target, triples, tolerance):
    best = np.zeros(len(source), dtype=bool)
    with_ones = np.column_stack([source, np.ones(len(source))])
    for three in triples:
        if np.linalg.det(with_ones[three]) >= 1e-6:
            A = np.linalg.solve(with_ones[three], target[three])
            inliers = np.linalg.norm(with_ones @ A - target, axis=1) <= tolerance
            best = inliers if inliers.sum() > best.sum() else best
    return best


@best_inliers.mutant(
    "Three places *nearly* on a line were not passed over. The determinant is then tiny, but not "
    "0, and `np.linalg.solve` raises nothing: compare its size with 1e-6."
)
def only_exactly_on_a_line(source, target, triples, tolerance):
    best = np.zeros(len(source), dtype=bool)
    with_ones = np.column_stack([source, np.ones(len(source))])
    for three in triples:
        if abs(np.linalg.det(with_ones[three])) > 1e-9:
            A = np.linalg.solve(with_ones[three], target[three])
            inliers = np.linalg.norm(with_ones @ A - target, axis=1) <= tolerance
            best = inliers if inliers.sum() > best.sum() else best
    return best


@best_inliers.mutant(
    "You stopped at the first trial on a line (`break`); pass over it and go on (`continue`)."
)
def stops_at_a_line(source, target, triples, tolerance):
    with_ones = np.column_stack([source, np.ones(len(source))])
    on_a_line = [abs(np.linalg.det(with_ones[three])) < 1e-6 for three in triples] + [True]
    tried = _trials(source, target, triples[: on_a_line.index(True)], tolerance)
    return max(tried, key=np.sum, default=np.zeros(len(source), dtype=bool))


@best_inliers.mutant("You gave the inliers of the first good trial; the others were not tried.")
def first_trial(source, target, triples, tolerance):
    return next(_trials(source, target, triples, tolerance))


@best_inliers.mutant(
    "You collected the inliers of all trials; asked for are those of the best one alone."
)
def inliers_of_any_trial(source, target, triples, tolerance):
    return np.any(list(_trials(source, target, triples, tolerance)), axis=0)


@best_inliers.mutant(
    "The three pairs of the trial count, too: the map moves them rightly, so they are inliers."
)
def the_three_left_out(source, target, triples, tolerance):
    def without(inliers, three):
        return inliers & ~np.isin(np.arange(len(inliers)), three)

    tried = list(_trials(source, target, triples, tolerance, change=without))
    return max(tried, key=np.sum)


@best_inliers.mutant("You looked at x alone; a place has two coordinates.")
def x_alone(source, target, triples, tolerance):
    return _ransac(source, target, triples, tolerance, distance=lambda off: np.abs(off[:, 0]))


@best_inliers.mutant(
    "You took the root of the *mean* of both squares; the distance has their sum. "
    "(`np.linalg.norm` along axis 1 does it.)"
)
def mean_of_the_squares(source, target, triples, tolerance):
    def distance(off):
        return np.sqrt((off**2).mean(axis=1))

    return _ransac(source, target, triples, tolerance, distance=distance)


@best_inliers.mutant(
    "No pair is near enough in your answer. `np.linalg.norm` without an axis is one number for all "
    "pairs; `axis=1` gives each its distance. Or is the map a wrong one, x' and y' swapped?"
)
def one_distance_for_all(source, target, triples, tolerance):
    def distance(off):
        return np.full(len(off), np.linalg.norm(off))

    return _ransac(source, target, triples, tolerance, distance=distance)


@best_inliers.mutant(
    "You took the norm along axis 0, over the pairs. Along axis 1, over x and y, it gives each "
    "pair its distance."
)
def norm_over_the_pairs(source, target, triples, tolerance):
    return _ransac(
        source, target, triples, tolerance, distance=lambda off: np.linalg.norm(off, axis=0)
    )


@best_inliers.mutant(
    "These are the numbers of the inliers; asked for is an array of bool, one for each pair."
)
def numbers_of_the_inliers(source, target, triples, tolerance):
    return np.flatnonzero(best_inliers_reference(source, target, triples, tolerance))


@best_inliers.mutant("That is how many inliers the best trial has; asked for is which they are.")
def their_count(source, target, triples, tolerance):
    return best_inliers_reference(source, target, triples, tolerance).sum()


@best_inliers.mutant(
    "The map is transposed. With places as rows, `with_ones @ A` needs A as `np.linalg.solve` "
    "gives it, (3, 2): one column for x', one for y'."
)
def inverse_transposed(source, target, triples, tolerance):
    best = np.zeros(len(source), dtype=bool)
    with_ones = np.column_stack([source, np.ones(len(source))])
    for three in triples:
        if abs(np.linalg.det(with_ones[three])) >= 1e-6:
            A = np.linalg.solve(with_ones[three].T, target[three])
            inliers = np.linalg.norm(with_ones @ A - target, axis=1) <= tolerance
            best = inliers if inliers.sum() > best.sum() else best
    return best


# -- DELFAttention --------------------------------------------------------------------------


class DELFAttentionReference(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, 1, 1)
        self.score = nn.Softplus()

    def forward(self, x):
        return (self.scores(x) * self.features(x)).sum(dim=(2, 3))

    def scores(self, x):
        return self.score(self.conv2(F.relu(self.conv1(x))))

    def features(self, x):
        return F.normalize(x, dim=1)


def _maps(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).round(1) + 0.05


DELFAttention = Exercise(
    "24.DELFAttention",
    reference=DELFAttentionReference,
    observe=module,
    cases=[
        Case("2 channels", _maps(1, 2, 2, 2), channels=2, hidden=3),
        Case("3 channels", _maps(2, 3, 2, 4), channels=3, hidden=4),
        Case("as many of all", _maps(3, 3, 3, 3), channels=3, hidden=3),
    ],
    more=lambda rng: Case(
        "4 channels", rng.normal(size=(2, 4, *rng.integers(2, 5, size=2))), channels=4, hidden=5
    ),
    hints=[
        "In `__init__`: `nn.Conv2d(channels, hidden, 1)`, `nn.Conv2d(hidden, 1, 1)`, "
        "`nn.Softplus()`.",
        "The scores, (N, 1, H, W): `self.score(self.conv2(F.relu(self.conv1(x))))`.",
        "A feature runs along the channels: `F.normalize(x, dim=1)`. Times the scores, and summed "
        "over the last two axes.",
    ],
)


@DELFAttention.mutant(
    "You took the mean over the places; the paper adds them up. (The authors' program takes the "
    "mean.)"
)
class mean_over_places(DELFAttentionReference):
    def forward(self, x):
        return (self.scores(x) * self.features(x)).mean(dim=(2, 3))


@DELFAttention.mutant("The features in the sum are not divided by their lengths.")
class lengths_left_in(DELFAttentionReference):
    def features(self, x):
        return x


@DELFAttention.mutant(
    "The score is computed of the features of length 1; it sees them as they are, and the sum "
    "alone has them divided."
)
class scores_of_length_one(DELFAttentionReference):
    def scores(self, x):
        return super().scores(F.normalize(x, dim=1))


@DELFAttention.mutant("The ReLU between the two convolutions is missing.")
class relu_missing(DELFAttentionReference):
    def scores(self, x):
        return self.score(self.conv2(self.conv1(x)))


@DELFAttention.mutant("The softplus is missing: a score must be positive.")
class softplus_missing(DELFAttentionReference):
    def scores(self, x):
        return self.conv2(F.relu(self.conv1(x)))


@DELFAttention.mutant("A ReLU stands at the end; scores are a softplus, never quite 0.")
class relu_at_the_end(DELFAttentionReference):
    def scores(self, x):
        return F.relu(self.conv2(F.relu(self.conv1(x))))


@DELFAttention.mutant("The last function is a softplus, log(1 + e^s), not the logistic one.")
class sigmoid_at_the_end(DELFAttentionReference):
    def scores(self, x):
        return F.sigmoid(self.conv2(F.relu(self.conv1(x))))


@DELFAttention.mutant(
    "A softmax over the places makes the scores of a picture add up to 1; here each place is "
    "judged by itself, with a softplus."
)
class softmax_for_softplus(DELFAttentionReference):
    def scores(self, x):
        s = self.conv2(F.relu(self.conv1(x)))
        return F.softmax(s.flatten(2), dim=2).reshape(*s.shape)


@DELFAttention.mutant(
    "`F.normalize` divides along an axis: the channels of one place are axis 1. Along another axis "
    "it mixes places."
)
class normalised_along_a_row(DELFAttentionReference):
    def features(self, x):
        return F.normalize(x, dim=3)


@DELFAttention.mutant("The sum is divided by the sum of the scores; they need not add up to 1.")
class weighed_mean(DELFAttentionReference):
    def forward(self, x):
        alpha = self.scores(x)
        return (alpha * self.features(x)).sum(dim=(2, 3)) / alpha.sum(dim=(2, 3))


@DELFAttention.mutant("Both convolutions have a bias.")
class without_biases(DELFAttentionReference):
    def __init__(self, channels, hidden):
        super().__init__(channels, hidden)
        self.conv1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.conv2 = nn.Conv2d(hidden, 1, 1, bias=False)


@DELFAttention.mutant("The second convolution leads to one channel: one score for each place.")
class a_score_for_each_channel(DELFAttentionReference):
    def __init__(self, channels, hidden):
        super().__init__(channels, hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 1)


@DELFAttention.mutant(
    "The scores are not in the sum. Were they left out? Or did you divide the weighed features by "
    "their lengths: that takes the scores out again. First divide, then weigh."
)
class weighed_then_divided(DELFAttentionReference):
    def forward(self, x):
        return F.normalize(self.scores(x) * x, dim=1).sum(dim=(2, 3))


@DELFAttention.mutant(
    "The sum is divided by its length. The features are, each by itself; their sum is not."
)
class sum_divided(DELFAttentionReference):
    def forward(self, x):
        return F.normalize(super().forward(x), dim=1)


@DELFAttention.mutant("The scores are added to the features; they are to be multiplied.")
class scores_added(DELFAttentionReference):
    def forward(self, x):
        return (self.scores(x) + self.features(x)).sum(dim=(2, 3))


@DELFAttention.mutant(
    "The features were added once more, without scores: y is the weighed sum alone."
)
class features_added_once_more(DELFAttentionReference):
    def forward(self, x):
        return ((1 + self.scores(x)) * self.features(x)).sum(dim=(2, 3))


@DELFAttention.mutant(
    "These are the scores. `forward` gives the sums (N, C): the scores times the features of "
    "length 1, added up over the places."
)
class scores_alone(DELFAttentionReference):
    def forward(self, x):
        return self.scores(x)


@DELFAttention.mutant(
    "The weighed features are not added up: `.sum(dim=(2, 3))` leaves (N, C) of them."
)
class not_added_up(DELFAttentionReference):
    def forward(self, x):
        return self.scores(x) * self.features(x)


@DELFAttention.mutant("You added up the channels; the sum goes over the places, dim=(2, 3).")
class channels_added_up(DELFAttentionReference):
    def forward(self, x):
        return (self.scores(x) * self.features(x)).sum(dim=1)


@DELFAttention.mutant("You added up along the rows only; the places are two axes, dim=(2, 3).")
class rows_alone_added_up(DELFAttentionReference):
    def forward(self, x):
        return (self.scores(x) * self.features(x)).sum(dim=3)


@DELFAttention.mutant(
    "No gradient goes from the scores to the features (`detach`). The module does not fix them: "
    "`begin_stage(2)` of the whole network does."
)
class scores_of_detached_features(DELFAttentionReference):
    def scores(self, x):
        return super().scores(x.detach())


@DELFAttention.mutant(
    "The features in the sum were detached: they have a gradient of it, too, unless someone "
    "outside fixes them."
)
class detached_in_the_sum(DELFAttentionReference):
    def features(self, x):
        return F.normalize(x.detach(), dim=1)


@DELFAttention.mutant(
    "The length was detached, as if it were a constant; it depends on x, and its gradient takes "
    "off the part along the feature."
)
class length_detached(DELFAttentionReference):
    def features(self, x):
        return x / ((x**2).sum(dim=1, keepdim=True) ** 0.5).detach()


@DELFAttention.mutant(
    "`F.normalize(x, dim=2)` divides each column of a channel: it mixes places. The numbers of one "
    "place are axis 1."
)
class normalised_along_a_column(DELFAttentionReference):
    def features(self, x):
        return F.normalize(x, dim=2)


@DELFAttention.mutant(
    "You divided each channel by its length over all places; a feature is the channels of one "
    "place, dim=1."
)
class normalised_over_the_places(DELFAttentionReference):
    def features(self, x):
        return x / ((x**2).sum(dim=(2, 3), keepdim=True) ** 0.5)


@DELFAttention.mutant("A softplus stands between the convolutions as well; there it is a ReLU.")
class softplus_between(DELFAttentionReference):
    def scores(self, x):
        return self.score(self.conv2(self.score(self.conv1(x))))


@DELFAttention.mutant("A ReLU stands before the softplus as well: no score could be below log 2.")
class relu_before_the_softplus(DELFAttentionReference):
    def scores(self, x):
        return self.score(F.relu(self.conv2(F.relu(self.conv1(x)))))


@DELFAttention.mutant(
    "The ReLU was applied to x as well; it stands between the convolutions alone."
)
class relu_before_the_first(DELFAttentionReference):
    def scores(self, x):
        return super().scores(F.relu(x))


@DELFAttention.mutant(
    "conv1 has a kernel of 3: the score would see a place's neighbours. With 1 it judges a place "
    "by its feature alone."
)
class kernels_of_three(DELFAttentionReference):
    def __init__(self, channels, hidden):
        super().__init__(channels, hidden)
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1)


@DELFAttention.mutant("`hidden` is not used: conv1 leads to `hidden` channels, conv2 starts there.")
class hidden_unused(DELFAttentionReference):
    def __init__(self, channels, hidden):
        super().__init__(channels, hidden)
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.conv2 = nn.Conv2d(channels, 1, 1)
