import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules


def sigmoid(m):
    return 1 / (1 + np.exp(-m))


# -- combine --------------------------------------------------------------------------------


def combine_reference(x, u, v):
    M = sigmoid(u[:, :, None, None] + v[:, None])

    def back_to_m(dy):
        return dy * x * M * (1 - M)

    def vjp_x(dy):
        return (1 + M) * dy

    def vjp_u(dy):
        return back_to_m(dy).sum(axis=(2, 3))

    def vjp_v(dy):
        return back_to_m(dy).sum(axis=1)

    return (1 + M) * x, (vjp_x, vjp_u, vjp_v)


def _combined(rng, N, C, H, W):
    shapes = (N, C, H, W), (N, C), (N, H, W)
    return tuple(rng.normal(size=shape).round(1) for shape in shapes)


def _any_combined(rng):
    return Case("any shape", *_combined(rng, *rng.integers(1, 5, size=4)))


MAPS = [
    Case(
        "one image, two channels, one row",
        np.array([[[[1.0, 2.0]], [[-1.0, 3.0]]]]),
        np.array([[0.5, -1.0]]),
        np.array([[[1.0, -0.5]]]),
    ),
    Case("two images, three channels", *_combined(np.random.default_rng(0), 2, 3, 2, 4)),
    Case("all sizes alike", *_combined(np.random.default_rng(1), 3, 3, 3, 3)),
]

combine = Exercise(
    "14.combine",
    reference=combine_reference,
    observe=rules,
    cases=MAPS,
    more=_any_combined,
    hints=[
        "u has shape (N, C) and v has (N, H, W). Which axes does each lack to be added to an "
        "(N, C, H, W)?",
        "`u[:, :, None, None]` is (N, C, 1, 1) and `v[:, None]` is (N, 1, H, W).",
        "Go back in two steps that u and v share: dM = dy * x, then dm = dM * M * (1 - M).",
        "u was repeated along axes 2 and 3, so its gradient sums dm over them; v along axis 1.",
    ],
)


def _combine(x, u, v):
    """M, y, and the three rules, for wrong answers to change one thing."""
    y, (vjp_x, vjp_u, vjp_v) = combine_reference(x, u, v)
    return sigmoid(u[:, :, None, None] + v[:, None]), y, vjp_x, vjp_u, vjp_v


@combine.mutant("The residual is missing: y = x + M x, so x is multiplied by 1 + M, not by M.")
def without_the_residual(x, u, v):
    M, _, _, vjp_u, vjp_v = _combine(x, u, v)
    return M * x, (lambda dy: M * dy, vjp_u, vjp_v)


@combine.mutant("The rule of x forgets the residual: the factor of x is 1 + M, so dx = (1 + M) dy.")
def residual_forgotten_on_the_way_back(x, u, v):
    M, y, _, vjp_u, vjp_v = _combine(x, u, v)
    return y, (lambda dy: M * dy, vjp_u, vjp_v)


@combine.mutant("u was repeated, not averaged: sum over the positions, do not take their mean.")
def mean_over_positions(x, u, v):
    M, y, vjp_x, _, vjp_v = _combine(x, u, v)
    return y, (vjp_x, lambda dy: (dy * x * M * (1 - M)).mean(axis=(2, 3)), vjp_v)


@combine.mutant("v was repeated, not averaged: sum over the channels, do not take their mean.")
def mean_over_channels(x, u, v):
    M, y, vjp_x, vjp_u, _ = _combine(x, u, v)
    return y, (vjp_x, vjp_u, lambda dy: (dy * x * M * (1 - M)).mean(axis=1))


@combine.mutant(
    "The slope of the sigmoid, M (1 - M), is missing in the gradients of u and v: you came back to "
    "M, but not yet to m."
)
def without_the_slope(x, u, v):
    _, y, vjp_x, _, _ = _combine(x, u, v)
    return y, (vjp_x, lambda dy: (dy * x).sum(axis=(2, 3)), lambda dy: (dy * x).sum(axis=1))


@combine.mutant("The other factor of the product is missing: dM = dy * x, not dy alone.")
def without_x(x, u, v):
    M, y, vjp_x, _, _ = _combine(x, u, v)
    dm = M * (1 - M)
    return y, (vjp_x, lambda dy: (dy * dm).sum(axis=(2, 3)), lambda dy: (dy * dm).sum(axis=1))


@combine.mutant("Each branch got a sigmoid of its own; the sum goes through one sigmoid.")
def two_sigmoids(x, u, v):
    a, b = sigmoid(u)[:, :, None, None], sigmoid(v)[:, None]
    return (1 + a + b) * x, (
        lambda dy: (1 + a + b) * dy,
        lambda dy: (dy * x * a * (1 - a)).sum(axis=(2, 3)),
        lambda dy: (dy * x * b * (1 - b)).sum(axis=1),
    )


@combine.mutant(
    "The gradients of u and v have the shape of x: what was repeated by broadcasting is still to "
    "be added up."
)
def not_summed(x, u, v):
    M, y, vjp_x, _, _ = _combine(x, u, v)

    def vjp(dy):
        return dy * x * M * (1 - M)

    return y, (vjp_x, vjp, vjp)


@combine.mutant("The rule of x forgets M: the factor of x is 1 + M, so dx = (1 + M) dy.")
def the_gradient_of_the_residual_alone(x, u, v):
    _, y, _, vjp_u, vjp_v = _combine(x, u, v)
    return y, (lambda dy: dy, vjp_u, vjp_v)


@combine.mutant("Half of the sigmoid's slope is missing: it is M (1 - M), not M.")
def half_a_slope(x, u, v):
    M, y, vjp_x, _, _ = _combine(x, u, v)
    dm = M * x
    return y, (vjp_x, lambda dy: (dy * dm).sum(axis=(2, 3)), lambda dy: (dy * dm).sum(axis=1))


@combine.mutant(
    "u and v are inputs of their own here. The rule of x is for the path through the product "
    "alone, (1 + M) dy; what goes through M belongs to u and v."
)
def x_takes_what_is_for_the_branches(x, u, v):
    M, y, _, vjp_u, vjp_v = _combine(x, u, v)
    return y, (lambda dy: (1 + M) * dy + dy * x * M * (1 - M), vjp_u, vjp_v)


@combine.mutant("M multiplies x: y = x + M x, not x + M.")
def map_added(x, u, v):
    M, _, *rules_of_all = _combine(x, u, v)
    return x + M, tuple(rules_of_all)


@combine.mutant("The map comes back alone: 1 + M is still to be multiplied with x.")
def factor_alone(x, u, v):
    M, _, *rules_of_all = _combine(x, u, v)
    return 1 + M, tuple(rules_of_all)


@combine.mutant("The sigmoid is missing: M is sigmoid(u + v).")
def no_sigmoid(x, u, v):
    _, _, *rules_of_all = _combine(x, u, v)
    return (1 + u[:, :, None, None] + v[:, None]) * x, tuple(rules_of_all)


@combine.mutant(
    "The rules of u and v have changed places, or sum over each other's axes: u was repeated over "
    "the positions, v over the channels."
)
def rules_changed_places(x, u, v):
    _, y, vjp_x, vjp_u, vjp_v = _combine(x, u, v)
    return y, (vjp_x, vjp_v, vjp_u)


# -- combine_product ------------------------------------------------------------------------


def combine_product_reference(x, u, v):
    a, b = u[:, :, None, None], v[:, None]
    M = sigmoid(a * b)

    def back_to_m(dy):
        return dy * x * M * (1 - M)

    def vjp_x(dy):
        return (1 + M) * dy

    def vjp_u(dy):
        return (back_to_m(dy) * b).sum(axis=(2, 3))

    def vjp_v(dy):
        return (back_to_m(dy) * a).sum(axis=1)

    return (1 + M) * x, (vjp_x, vjp_u, vjp_v)


combine_product = Exercise(
    "14.combine_product",
    reference=combine_product_reference,
    observe=rules,
    cases=MAPS,
    more=_any_combined,
    hints=[
        "Only the step from m back to u and v differs from the sum.",
        "m = u v: the derivative by u is v, and the derivative by v is u.",
        "`(dm * v[:, None]).sum(axis=(2, 3))` is the gradient of u: multiply first, then sum.",
    ],
)


def _product(x, u, v):
    y, (vjp_x, vjp_u, vjp_v) = combine_product_reference(x, u, v)
    a, b = u[:, :, None, None], v[:, None]
    M = sigmoid(a * b)
    return a, b, lambda dy: dy * x * M * (1 - M), y, vjp_x, vjp_u, vjp_v


@combine_product.mutant("The branches are multiplied here, m = u v; you added them.")
def added(x, u, v):
    return combine_reference(x, u, v)


@combine_product.mutant(
    "The rules of u and v are those of the sum: in a product each needs the other factor."
)
def rules_of_the_sum(x, u, v):
    _, _, back, y, vjp_x, _, _ = _product(x, u, v)
    return y, (vjp_x, lambda dy: back(dy).sum(axis=(2, 3)), lambda dy: back(dy).sum(axis=1))


@combine_product.mutant(
    "You multiplied by the factor itself: the derivative of u v by u is v, and by v it is u."
)
def own_factor(x, u, v):
    a, b, back, y, vjp_x, _, _ = _product(x, u, v)
    return y, (
        vjp_x,
        lambda dy: (back(dy) * a).sum(axis=(2, 3)),
        lambda dy: (back(dy) * b).sum(axis=1),
    )


@combine_product.mutant(
    "You summed first and multiplied by a sum of v afterwards: v differs from position to position "
    "and belongs inside the sum. The same goes for u."
)
def summed_before_multiplying(x, u, v):
    _, _, back, y, vjp_x, _, _ = _product(x, u, v)
    return y, (
        vjp_x,
        lambda dy: back(dy).sum(axis=(2, 3)) * v.sum(axis=(1, 2))[:, None],
        lambda dy: back(dy).sum(axis=1) * u.sum(axis=1)[:, None, None],
    )


@combine_product.mutant("The sigmoid comes behind the product: sigmoid(u v), not sigmoid(u) * v.")
def sigmoid_of_u_alone(x, u, v):
    b = v[:, None]
    s = sigmoid(u)[:, :, None, None]
    return (1 + s * b) * x, (
        lambda dy: (1 + s * b) * dy,
        lambda dy: (dy * x * b * s * (1 - s)).sum(axis=(2, 3)),
        lambda dy: (dy * x * s).sum(axis=1),
    )


@combine_product.mutant("Each branch got a sigmoid of its own: it is sigmoid(u v), of the product.")
def a_sigmoid_for_each(x, u, v):
    *_, vjp_x, vjp_u, vjp_v = _product(x, u, v)
    M = sigmoid(u)[:, :, None, None] * sigmoid(v)[:, None]
    return (1 + M) * x, (vjp_x, vjp_u, vjp_v)


@combine_product.mutant("The residual is missing: here, too, x is multiplied by 1 + M, not by M.")
def product_without_the_residual(x, u, v):
    a, b, _, _, _, vjp_u, vjp_v = _product(x, u, v)
    M = sigmoid(a * b)
    return M * x, (lambda dy: M * dy, vjp_u, vjp_v)


@combine_product.mutant(
    "The rule of x forgets the residual: the factor of x is 1 + M, so dx = (1 + M) dy."
)
def residual_forgotten_by_the_rule(x, u, v):
    a, b, _, y, _, vjp_u, vjp_v = _product(x, u, v)
    return y, (lambda dy: sigmoid(a * b) * dy, vjp_u, vjp_v)


@combine_product.mutant(
    "The slope of the sigmoid, M (1 - M), is missing in the gradients of u and v."
)
def product_without_the_slope(x, u, v):
    a, b, _, y, vjp_x, _, _ = _product(x, u, v)
    return y, (
        vjp_x,
        lambda dy: (dy * x * b).sum(axis=(2, 3)),
        lambda dy: (dy * x * a).sum(axis=1),
    )


@combine_product.mutant("dM = dy * x: the other factor of (1 + M) x is missing.")
def product_without_x(x, u, v):
    a, b, _, y, vjp_x, _, _ = _product(x, u, v)
    dm = sigmoid(a * b) * (1 - sigmoid(a * b))
    return y, (
        vjp_x,
        lambda dy: (dy * dm * b).sum(axis=(2, 3)),
        lambda dy: (dy * dm * a).sum(axis=1),
    )


@combine_product.mutant(
    "u and v were repeated, not averaged: sum over the axes along which each was repeated."
)
def means_for_sums(x, u, v):
    a, b, back, y, vjp_x, _, _ = _product(x, u, v)
    return y, (
        vjp_x,
        lambda dy: (back(dy) * b).mean(axis=(2, 3)),
        lambda dy: (back(dy) * a).mean(axis=1),
    )


@combine_product.mutant(
    "The rule of u is right; in that of v stands v itself. The derivative of u v by v is u."
)
def own_factor_in_the_rule_of_v(x, u, v):
    _, b, back, y, vjp_x, vjp_u, _ = _product(x, u, v)
    return y, (vjp_x, vjp_u, lambda dy: (back(dy) * b).sum(axis=1))


# -- positions_read -------------------------------------------------------------------------


def positions_read_reference(size, middle, dilation):
    offsets = [(first + second) * dilation for first in (-1, 0, 1) for second in (-1, 0, 1)]
    return sorted({middle + offset for offset in offsets if 0 <= middle + offset < size})


positions_read = Exercise(
    "14.positions_read",
    reference=positions_read_reference,
    cases=[
        Case("everything fits: size 9, middle 4, d = 1", 9, 4, 1),
        Case("with holes: size 17, middle 8, d = 4", 17, 8, 4),
        Case("mostly padding: size 8, middle 3, d = 4", 8, 3, 4),
        Case("at the edge: size 9, middle 1, d = 2", 9, 1, 2),
        Case("at the other edge: size 8, middle 7, d = 1", 8, 7, 1),
    ],
    more=lambda rng: Case(
        "another place",
        size := int(rng.integers(1, 20)),
        int(rng.integers(size)),
        int(rng.integers(1, 5)),
    ),
    hints=[
        "The second kernel reads middle - d, middle and middle + d. Each of these positions was "
        "made by the first kernel, which read three positions around it.",
        "Together the taps lie at -2d, -d, 0, d and 2d from the middle.",
        "Keep those with `0 <= position < size`: the others are padding.",
    ],
)


@positions_read.mutant(
    "Positions outside of the map are padding: leave out what is not 0...size-1."
)
def padding_counted(size, middle, dilation):
    return [middle + step * dilation for step in (-2, -1, 0, 1, 2)]


@positions_read.mutant("That is one dilated layer; the branch has two, one behind the other.")
def one_layer(size, middle, dilation):
    return [p for p in (middle - dilation, middle, middle + dilation) if 0 <= p < size]


@positions_read.mutant(
    "That is the whole field without its holes: of it only every d-th position is read."
)
def without_holes(size, middle, dilation):
    return [p for p in range(middle - 2 * dilation, middle + 2 * dilation + 1) if 0 <= p < size]


@positions_read.mutant("The dilation is missing: neighbouring taps are `dilation` positions apart.")
def undilated(size, middle, dilation):
    return [p for p in range(middle - 2, middle + 3) if 0 <= p < size]


@positions_read.mutant(
    "Dilations add up, they do not multiply: the far taps are at 2d, not at d^2."
)
def multiplied(size, middle, dilation):
    offsets = {a * dilation + b * dilation**2 for a in (-1, 0, 1) for b in (-1, 0, 1)}
    return sorted(middle + offset for offset in offsets if 0 <= middle + offset < size)


@positions_read.mutant("The last position is size - 1; you kept `size`, too.")
def one_too_far(size, middle, dilation):
    places = [middle + step * dilation for step in (-2, -1, 0, 1, 2)]
    return [p for p in places if 0 <= p <= size]


def _taps(middle, dilation, steps=(-2, -1, 0, 1, 2)):
    return [middle + step * dilation for step in steps]


@positions_read.mutant("Several pairs of taps meet at the same position: list each position once.")
def listed_more_than_once(size, middle, dilation):
    places = [middle + (a + b) * dilation for a in (-1, 0, 1) for b in (-1, 0, 1)]
    return sorted(place for place in places if 0 <= place < size)


@positions_read.mutant(
    "The edge is not repeated: a tap beyond it reads padding, and not the last position."
)
def moved_to_the_edge(size, middle, dilation):
    return sorted({min(max(place, 0), size - 1) for place in _taps(middle, dilation)})


@positions_read.mutant("The map is no ring: a tap beyond one edge does not come back at the other.")
def round_the_edge(size, middle, dilation):
    return sorted({place % size for place in _taps(middle, dilation)})


@positions_read.mutant(
    "The far taps lie at 2d, not at 4d: each of the two kernels reaches d to either side."
)
def twice_as_far(size, middle, dilation):
    return [p for p in _taps(middle, dilation, range(-4, 5)) if 0 <= p < size]


@positions_read.mutant(
    "The taps at -d and d are missing: there a middle tap of one kernel meets an outer one of the "
    "other."
)
def far_taps_alone(size, middle, dilation):
    return [p for p in _taps(middle, dilation, (-2, 0, 2)) if 0 <= p < size]


@positions_read.mutant("The map begins at position 0, and you left it out.")
def without_the_first(size, middle, dilation):
    return [p for p in _taps(middle, dilation) if 0 < p < size]


# -- extra_parameters -----------------------------------------------------------------------


def extra_parameters_reference(channels, reduction):
    k = channels // reduction
    channel = (channels * k + k) + (k * channels + channels) + 2 * channels
    spatial = (channels * k + k) + 2 * (9 * k * k + k) + (k + 1) + 2
    return channel + spatial


extra_parameters = Exercise(
    "14.extra_parameters",
    reference=extra_parameters_reference,
    cases=[
        Case("6 channels, r = 2", 6, 2),
        Case("4 channels, r = 2", 4, 2),
        Case("64 channels, r = 16", 64, 16),
        Case("256 channels, r = 16", 256, 16),
        Case("10 channels, r = 4", 10, 4),
    ],
    more=lambda rng: Case("others", int(rng.integers(8, 200)), int(rng.integers(1, 8))),
    hints=[
        "Write k = channels // reduction first. Then go through the layers one by one; each has a "
        "kernel and biases.",
        "A layer from A to B channels with an S x S kernel has A * B * S * S weights and B biases.",
        "Batch normalisation has two numbers a channel: 2 * channels here, 2 there.",
    ],
)


@extra_parameters.mutant("A 3x3 kernel has nine weights for each pair of channels.")
def kernels_of_one_pixel(channels, reduction):
    k = channels // reduction
    return extra_parameters_reference(channels, reduction) - 2 * 8 * k * k


@extra_parameters.mutant("There are two dilated convolutions in the spatial branch; you took one.")
def one_dilated(channels, reduction):
    k = channels // reduction
    return extra_parameters_reference(channels, reduction) - (9 * k * k + k)


@extra_parameters.mutant("The biases are missing: one for each output channel of each layer.")
def without_biases(channels, reduction):
    k = channels // reduction
    return extra_parameters_reference(channels, reduction) - (5 * k + channels + 1)


@extra_parameters.mutant("Batch normalisation has a weight and a bias for each channel, too.")
def without_batch_norm(channels, reduction):
    return extra_parameters_reference(channels, reduction) - 2 * channels - 2


@extra_parameters.mutant("That is the channel branch alone; the spatial branch is missing.")
def channel_alone(channels, reduction):
    k = channels // reduction
    return 2 * channels * k + k + channels + 2 * channels


@extra_parameters.mutant(
    "The reduction is applied to the number of weights; it is to the channels of the bottleneck: "
    "the 3x3 kernels have (C // r)^2 pairs of channels."
)
def reduced_once(channels, reduction):
    k = channels // reduction
    wrong = 2 * 9 * (channels * k - k * k)
    return extra_parameters_reference(channels, reduction) + wrong


@extra_parameters.mutant(
    "The running mean and variance of batch normalisation are buffers; its parameters are two for "
    "each channel, a weight and a bias."
)
def running_statistics_counted(channels, reduction):
    return extra_parameters_reference(channels, reduction) + 2 * channels + 2


@extra_parameters.mutant(
    "Batch normalisation has two parameters for each channel, a weight and a bias; you counted one."
)
def half_a_batch_norm(channels, reduction):
    return extra_parameters_reference(channels, reduction) - channels - 1


@extra_parameters.mutant(
    "The spatial branch ends in batch normalisation, too: of its one channel, so with 2 parameters."
)
def batch_norm_of_the_channels_alone(channels, reduction):
    return extra_parameters_reference(channels, reduction) - 2


@extra_parameters.mutant(
    "The channel branch ends in batch normalisation, too: 2 parameters for each of its C channels."
)
def batch_norm_of_the_map_alone(channels, reduction):
    return extra_parameters_reference(channels, reduction) - 2 * channels


@extra_parameters.mutant(
    "At the end of the spatial branch there is one channel, so its batch normalisation has two "
    "parameters alone."
)
def spatial_batch_norm_of_the_bottleneck(channels, reduction):
    return extra_parameters_reference(channels, reduction) - 2 + 2 * (channels // reduction)


@extra_parameters.mutant(
    "The spatial branch ends in *one* channel: its last convolution has C/r weights and one bias."
)
def spatial_branch_ends_in_all_channels(channels, reduction):
    k = channels // reduction
    return extra_parameters_reference(channels, reduction) + (k + 1) * (channels - 1)


@extra_parameters.mutant("That is the spatial branch alone; the channel branch is missing.")
def spatial_alone(channels, reduction):
    k = channels // reduction
    return extra_parameters_reference(channels, reduction) - (2 * channels * k + k + 3 * channels)


@extra_parameters.mutant(
    "Both branches begin with a layer from C to C/r of their own; you counted it once."
)
def first_layer_shared(channels, reduction):
    k = channels // reduction
    return extra_parameters_reference(channels, reduction) - (channels * k + k)


@extra_parameters.mutant(
    "A 3x3 convolution that keeps C/r channels has a kernel for each *pair* of them: 9 (C/r)^2 "
    "weights."
)
def a_kernel_for_each_channel(channels, reduction):
    k = channels // reduction
    return extra_parameters_reference(channels, reduction) - 18 * k * k + 18 * k


@extra_parameters.mutant("C/r is rounded down: `channels // reduction`.")
def not_rounded_down(channels, reduction):
    k = channels / reduction
    channel = (channels * k + k) + (k * channels + channels) + 2 * channels
    return channel + (channels * k + k) + 2 * (9 * k * k + k) + (k + 1) + 2


# -- BAM ------------------------------------------------------------------------------------


class BAMReference(nn.Module):
    def __init__(self, channels, reduction=16, dilation=4):
        super().__init__()
        hidden = channels // reduction
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.BatchNorm2d(channels),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            self.dilated(hidden, dilation),
            nn.ReLU(),
            self.dilated(hidden, dilation),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
            nn.BatchNorm2d(1),
        )

    @staticmethod
    def dilated(hidden, dilation):
        return nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation)

    def forward(self, x):
        return x * (1 + F.sigmoid(self.channel(x) + self.spatial(x)))


def _images(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).round(1)


BAM = Exercise(
    "14.BAM",
    reference=BAMReference,
    observe=module,
    cases=[
        Case("4 channels, r = 2, d = 1", _images(2, 4, 3, 3), channels=4, reduction=2, dilation=1),
        Case("6 channels, r = 3, d = 2", _images(3, 6, 4, 5), channels=6, reduction=3, dilation=2),
        Case("r and d left at 16 and 4", _images(3, 32, 6, 5), channels=32),
    ],
    more=lambda rng: Case(
        "8 channels",
        rng.normal(size=(3, 8, 4, 5)),
        channels=8,
        reduction=int(rng.choice([2, 4])),
        dilation=int(rng.choice([1, 2])),
    ),
    tolerance=1e-6,
    hints=[
        "`self.channel = nn.Sequential(...)` and `self.spatial = nn.Sequential(...)`, with the "
        "layers in the order of the task; `hidden = channels // reduction`.",
        "A 3x3 convolution with dilation d needs padding d to keep the size: "
        "`nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation)`.",
        "The ReLUs stand between the convolutions; behind the last one stands batch normalisation.",
        "In `forward` the two branches broadcast by themselves: (N, C, 1, 1) + (N, 1, H, W).",
    ],
)


@BAM.mutant("The map comes back alone: it is still to be multiplied with x.")
class map_alone(BAMReference):
    def forward(self, x):
        return 1 + F.sigmoid(self.channel(x) + self.spatial(x))


@BAM.mutant("The residual is missing: y = x + M x, so the factor is 1 + M.")
class no_residual(BAMReference):
    def forward(self, x):
        return x * F.sigmoid(self.channel(x) + self.spatial(x))


@BAM.mutant("The branches are multiplied, as in the authors' program; the paper's M adds them.")
class multiplied_branches(BAMReference):
    def forward(self, x):
        return x * (1 + F.sigmoid(self.channel(x) * self.spatial(x)))


@BAM.mutant("Each branch got a sigmoid of its own; one sigmoid takes the sum of both.")
class a_sigmoid_each(BAMReference):
    def forward(self, x):
        return x * (1 + F.sigmoid(self.channel(x)) + F.sigmoid(self.spatial(x)))


@BAM.mutant(
    "The branches stand one behind the other; both read x itself, and their answers are added."
)
class one_behind_the_other(BAMReference):
    def forward(self, x):
        x = x * (1 + F.sigmoid(self.channel(x)))
        return x * (1 + F.sigmoid(self.spatial(x)))


@BAM.mutant(
    "The padding of a dilated 3x3 convolution is its dilation, not 1: with less the map shrinks "
    "and no longer fits x.",
    raises=True,
)
class padding_of_one(BAMReference):
    @staticmethod
    def dilated(hidden, dilation):
        return nn.Conv2d(hidden, hidden, 3, padding=1, dilation=dilation)


@BAM.mutant("The dilation is missing: these are plain 3x3 convolutions with padding 1.")
class plain_convolutions(BAMReference):
    @staticmethod
    def dilated(hidden, dilation):
        return nn.Conv2d(hidden, hidden, 3, padding=1)


@BAM.mutant("The ReLUs between the layers are missing.")
class no_relu(BAMReference):
    def __init__(self, channels, reduction=16, dilation=4):
        super().__init__(channels, reduction, dilation)
        for branch in self.channel, self.spatial:
            for i, part in enumerate(branch):
                if isinstance(part, nn.ReLU):
                    branch[i] = nn.Identity()


@BAM.mutant("The residual is there twice: x (1 + M) is all, it holds x and x M already.")
class residual_twice(BAMReference):
    def forward(self, x):
        return x + x * (1 + F.sigmoid(self.channel(x) + self.spatial(x)))


@BAM.mutant("M multiplies x: y = x + x M, not x + M.")
class map_added_to_x(BAMReference):
    def forward(self, x):
        return x + F.sigmoid(self.channel(x) + self.spatial(x))


@BAM.mutant("The sigmoid is missing: M is the sigmoid of the sum.")
class sum_without_sigmoid(BAMReference):
    def forward(self, x):
        return x * (1 + self.channel(x) + self.spatial(x))


@BAM.mutant("The greater of the two branches is taken; the paper's M adds them.")
class greater_branch(BAMReference):
    def forward(self, x):
        return x * (1 + F.sigmoid(F.maximum(self.channel(x), self.spatial(x))))


@BAM.mutant(
    "A ReLU stands between layers, none behind the last: behind batch normalisation it would cut "
    "off all that the branch holds against a channel or a place."
)
class relu_at_the_end(BAMReference):
    def forward(self, x):
        return x * (1 + F.sigmoid(F.relu(self.channel(x)) + F.relu(self.spatial(x))))


@BAM.mutant(
    "A ReLU stands between layers, none behind the last: the channel branch ends in batch "
    "normalisation."
)
class relu_at_the_end_of_the_channel_branch(BAMReference):
    def forward(self, x):
        return x * (1 + F.sigmoid(F.relu(self.channel(x)) + self.spatial(x)))


@BAM.mutant("Both 3x3 convolutions are dilated; the second of yours is not.")
class second_convolution_plain(BAMReference):
    def __init__(self, channels, reduction=16, dilation=4):
        super().__init__(channels, reduction, dilation)
        self.spatial[4] = self.dilated(channels // reduction, 1)


@BAM.mutant("The channel branch begins with the mean of each channel; you took the largest.")
class largest_for_mean(BAMReference):
    def __init__(self, channels, reduction=16, dilation=4):
        super().__init__(channels, reduction, dilation)
        self.channel[0] = nn.AdaptiveMaxPool2d(1)


@BAM.mutant(
    "The spatial branch ends in one channel, which is added to all: its last convolution goes from "
    "`hidden` to 1."
)
class spatial_branch_to_all_channels(BAMReference):
    def __init__(self, channels, reduction=16, dilation=4):
        super().__init__(channels, reduction, dilation)
        self.spatial[6] = nn.Conv2d(channels // reduction, channels, 1)
        self.spatial[7] = nn.BatchNorm2d(channels)


@BAM.mutant(
    "Without padding a 3x3 convolution with dilation d makes the map 2 d narrower, and it no "
    "longer fits x: `padding=dilation`.",
    raises=True,
)
class no_padding(BAMReference):
    @staticmethod
    def dilated(hidden, dilation):
        return nn.Conv2d(hidden, hidden, 3, dilation=dilation)


@BAM.mutant("All convolutions have biases here: leave `bias` at its default.")
class without_convolution_biases(BAMReference):
    def __init__(self, channels, reduction=16, dilation=4):
        super().__init__(channels, reduction, dilation)
        for branch in self.channel, self.spatial:
            for part in branch:
                if isinstance(part, nn.Conv2d):
                    part.bias = None


@BAM.mutant(
    "Batch normalisation stands behind the hidden layers, as in the authors' program; in the "
    "paper's form it stands behind the last layer of each branch."
)
class as_in_the_program(BAMReference):
    def __init__(self, channels, reduction=16, dilation=4):
        super().__init__(channels, reduction, dilation)
        hidden = channels // reduction
        first, relu, last = self.channel[1], self.channel[2], self.channel[3]
        self.channel = nn.Sequential(self.channel[0], first, nn.BatchNorm2d(hidden), relu, last)
        parts = []
        for part in list(self.spatial)[:-1]:
            parts.append(part)
            if isinstance(part, nn.Conv2d) and part.out_channels == hidden:
                parts.append(nn.BatchNorm2d(hidden))
        self.spatial = nn.Sequential(*parts)
