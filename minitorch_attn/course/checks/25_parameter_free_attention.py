import numpy as np

from minitorch_attn.course.exercise import Case, Exercise, rules


def _positive(rng, *shape):
    """Numbers of which each is positive, with one digit behind the point."""
    return rng.uniform(0.1, 1.5, size=shape).round(1)


def _normal(rng, *shape):
    return rng.normal(size=shape).round(1)


# -- spatial_weights ------------------------------------------------------------------------


def _softmax(s, axis=(1, 2)):
    e = np.exp(s - s.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _weights(s, norm):
    if norm == "softmax":
        return _softmax(s)
    return s / s.sum(axis=(1, 2), keepdims=True)


def spatial_weights_reference(x, squeeze="sum", norm="softmax"):
    return _weights(getattr(x, squeeze)(axis=1), norm)


def _any_weights(rng):
    x = _positive(rng, *rng.integers(2, 5, size=4))
    return Case(
        "any shape", x, str(rng.choice(["sum", "mean"])), str(rng.choice(["softmax", "l1"]))
    )


TWO_PLACES = np.array([[[[1.0, 2.0]], [[0.5, 0.5]]]])

spatial_weights = Exercise(
    "25.spatial_weights",
    reference=spatial_weights_reference,
    cases=[
        Case("two channels, two places, as in the paper", TWO_PLACES, "sum", "softmax"),
        Case("the same, as in the program", TWO_PLACES, "mean", "l1"),
        Case("the softmax of a mean", TWO_PLACES, "mean", "softmax"),
        Case(
            "two images of three channels, the paper's",
            _positive(np.random.default_rng(0), 2, 3, 2, 3),
            "sum",
            "softmax",
        ),
        Case(
            "two images of three channels, the program's",
            _positive(np.random.default_rng(1), 2, 3, 3, 2),
            "mean",
            "l1",
        ),
        Case(
            "a loud image, whose exponentials overflow, and a quiet one",
            np.array([1000, 1])[:, None, None, None]
            * (1 + _positive(np.random.default_rng(2), 2, 4, 2, 2)),
            "sum",
            "softmax",
        ),
    ],
    more=_any_weights,
    hints=[
        "x is (N, C, H, W). Which axis goes away when the channels are squeezed?",
        "`s = x.sum(axis=1)` or `x.mean(axis=1)` is (N, H, W). Each image has one sum over all its "
        "places: `axis=(1, 2), keepdims=True`.",
        "For the softmax subtract the greatest of each image first: "
        "`e = np.exp(s - s.max(axis=(1, 2), keepdims=True))`.",
    ],
)


@spatial_weights.mutant(
    "Your softmax goes along the rows alone. All places of an image compete: `axis=(1, 2)`."
)
def softmax_of_each_row(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    return _softmax(s, axis=2) if norm == "softmax" else s / s.sum(axis=2, keepdims=True)


@spatial_weights.mutant(
    "Your softmax goes over the images of the batch too. Each image has its own sum: leave axis 0 "
    "alone."
)
def softmax_over_the_batch(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    e = np.exp(s - s.max()) if norm == "softmax" else s
    return e / e.sum()


@spatial_weights.mutant("The channels are added up where `squeeze` says mean, or the reverse.")
def squeezes_swapped(x, squeeze="sum", norm="softmax"):
    return spatial_weights_reference(x, "mean" if squeeze == "sum" else "sum", norm)


@spatial_weights.mutant(
    "You always take the softmax; with norm='l1' the map is divided by its sum, no exponential."
)
def always_softmax(x, squeeze="sum", norm="softmax"):
    return spatial_weights_reference(x, squeeze, "softmax")


@spatial_weights.mutant(
    "You always divide by the sum; norm='softmax' takes exponentials before that."
)
def never_softmax(x, squeeze="sum", norm="softmax"):
    return spatial_weights_reference(x, squeeze, "l1")


@spatial_weights.mutant(
    "exp overflows for large sums, and infinity divided by infinity is nan. Subtract the greatest "
    "of each image before: the softmax does not change."
)
def overflows(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    with np.errstate(all="ignore"):
        e = np.exp(s) if norm == "softmax" else s
        return e / e.sum(axis=(1, 2), keepdims=True)


@spatial_weights.mutant(
    "You averaged places for each channel, which says what is there. Here the channels are "
    "squeezed, axis 1, which says where."
)
def squeezed_the_places(x, squeeze="sum", norm="softmax"):
    z = getattr(x, squeeze)(axis=(2, 3))
    e = np.exp(z - z.max(axis=1, keepdims=True)) if norm == "softmax" else z
    return e / e.sum(axis=1, keepdims=True)


@spatial_weights.mutant("You normalised before squeezing; first the channels are put together.")
def normalised_each_channel(x, squeeze="sum", norm="softmax"):
    M = _softmax(x, axis=(2, 3)) if norm == "softmax" else x / x.sum(axis=(2, 3), keepdims=True)
    return getattr(M, squeeze)(axis=1)


@spatial_weights.mutant(
    "Each map is divided by its greatest; divide by its sum, so that the weights add up to 1."
)
def divided_by_the_greatest(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    e = np.exp(s - s.max(axis=(1, 2), keepdims=True)) if norm == "softmax" else s
    return e / e.max(axis=(1, 2), keepdims=True)


@spatial_weights.mutant(
    "Axis 0 holds the images, each of which gets its own map; the channels are axis 1."
)
def squeezed_the_images(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=0)
    return _weights(s, norm)


@spatial_weights.mutant(
    "You squeezed the last axis, as if the channels came last; x is (N, C, H, W), they are axis 1."
)
def squeezed_the_last_axis(x, squeeze="sum", norm="softmax"):
    return _weights(getattr(x, squeeze)(axis=-1), norm)


@spatial_weights.mutant("These are the weighed features, M x; asked for are the weights M alone.")
def weighed_already(x, squeeze="sum", norm="softmax"):
    return spatial_weights_reference(x, squeeze, norm)[:, None] * x


@spatial_weights.mutant(
    "You always take the softmax of the sum; `squeeze` and `norm` say which weights are asked for."
)
def settings_not_read(x, squeeze="sum", norm="softmax"):
    return spatial_weights_reference(x)


@spatial_weights.mutant(
    "Your softmax goes along the columns alone. All places of an image compete: `axis=(1, 2)`."
)
def softmax_of_each_column(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    return _softmax(s, axis=1) if norm == "softmax" else s / s.sum(axis=1, keepdims=True)


@spatial_weights.mutant("The channels are always added up; with squeeze='mean' they are averaged.")
def always_the_sum(x, squeeze="sum", norm="softmax"):
    return spatial_weights_reference(x, "sum", norm)


@spatial_weights.mutant("The channels are always averaged; with squeeze='sum' they are added up.")
def always_the_mean(x, squeeze="sum", norm="softmax"):
    return spatial_weights_reference(x, "mean", norm)


@spatial_weights.mutant(
    "The two norms are in each other's place: exponentials are for norm='softmax'."
)
def norms_swapped(x, squeeze="sum", norm="softmax"):
    return spatial_weights_reference(x, squeeze, "l1" if norm == "softmax" else "softmax")


@spatial_weights.mutant(
    "The greatest is subtracted for the sake of exp alone; with norm='l1' nothing is subtracted."
)
def l1_less_the_greatest(x, squeeze="sum", norm="softmax"):
    if norm == "softmax":
        return spatial_weights_reference(x, squeeze, norm)
    s = getattr(x, squeeze)(axis=1)
    return _weights(s - s.max(axis=(1, 2), keepdims=True), norm)


@spatial_weights.mutant(
    "The exponentials are not divided by their sum: the weights of an image have to add up to 1."
)
def softmax_without_division(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    if norm == "l1":
        return _weights(s, norm)
    return np.exp(s - s.max(axis=(1, 2), keepdims=True))


@spatial_weights.mutant(
    "With norm='l1' the map itself comes back: divide it by its sum over the places."
)
def l1_without_division(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    return s if norm == "l1" else _softmax(s)


@spatial_weights.mutant(
    "That is divided by the mean over the places, so that a weight is 1 on average; the sum "
    "has to be 1."
)
def divided_by_the_mean(x, squeeze="sum", norm="softmax"):
    M = spatial_weights_reference(x, squeeze, norm)
    return M / M.mean(axis=(1, 2), keepdims=True)


@spatial_weights.mutant(
    "For norm='l1' you divided by the root of the sum of squares: that is 'l2'. Divide by "
    "the plain sum."
)
def l2_for_l1(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    return _softmax(s) if norm == "softmax" else s / np.sqrt((s**2).sum(axis=(1, 2), keepdims=True))


@spatial_weights.mutant(
    "You took exponentials of x and squeezed those. First squeeze the channels: exp of a sum "
    "is not the sum of exps."
)
def exponentials_before_the_squeeze(x, squeeze="sum", norm="softmax"):
    if norm == "l1":
        return spatial_weights_reference(x, squeeze, norm)
    e = np.exp(x - x.max(axis=(1, 2, 3), keepdims=True))
    return _weights(getattr(e, squeeze)(axis=1), "l1")


@spatial_weights.mutant(
    "Your weights compete among the channels of a place; it is the places of an image that do."
)
def channels_compete(x, squeeze="sum", norm="softmax"):
    M = _softmax(x, axis=1) if norm == "softmax" else x / x.sum(axis=1, keepdims=True)
    return getattr(M, squeeze)(axis=1)


@spatial_weights.mutant(
    "Before exp you divided by the greatest of each image; subtract it. Only that leaves the "
    "softmax as it is."
)
def divided_before_exp(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    if norm == "l1":
        return _weights(s, norm)
    return _weights(np.exp(s / s.max(axis=(1, 2), keepdims=True)), "l1")


@spatial_weights.mutant(
    "You subtracted another greatest in each row. That changes the weights of rows against "
    "each other: take one for all places of an image."
)
def greatest_of_each_row(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    return _weights(np.exp(s - s.max(axis=2, keepdims=True)) if norm == "softmax" else s, "l1")


@spatial_weights.mutant(
    "You subtracted the greatest of the whole batch: a quiet image beside a loud one then "
    "has only zeros, and 0 / 0 is nan. Take the greatest of each image."
)
def greatest_of_the_batch(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    with np.errstate(all="ignore"):
        return _weights(np.exp(s - s.max()) if norm == "softmax" else s, "l1")


@spatial_weights.mutant(
    "You subtracted the smallest of each image, which leaves large numbers that overflow. "
    "Subtract the greatest."
)
def less_the_smallest(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    with np.errstate(all="ignore"):
        e = np.exp(s - s.min(axis=(1, 2), keepdims=True)) if norm == "softmax" else s
        return _weights(e, "l1")


@spatial_weights.mutant(
    "Each image is divided by the sum of the whole batch; each has its own sum, `axis=(1, 2)`."
)
def sum_of_the_batch(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    e = np.exp(s - s.max(axis=(1, 2), keepdims=True)) if norm == "softmax" else s
    return e / e.sum()


@spatial_weights.mutant(
    "You divided by the sum before the softmax, which makes it nearly flat. A softmax takes "
    "the squeezed channels as they are."
)
def softmax_of_shares(x, squeeze="sum", norm="softmax"):
    M = spatial_weights_reference(x, squeeze, "l1")
    return _softmax(M) if norm == "softmax" else M


# -- parameter_free -------------------------------------------------------------------------


def _layer(x, back):
    """y = M x with M the softmax of the sum; `back` makes dx of dy, x and M (N, 1, H, W)."""
    M = _softmax(x.sum(axis=1))[:, None]
    return M * x, lambda dy: back(dy, x, M)


def _softmax_slope(dM, M):
    return M * (dM - (M * dM).sum(axis=(2, 3), keepdims=True))


def _ds(dy, x, M):
    return _softmax_slope((dy * x).sum(axis=1, keepdims=True), M)


def parameter_free_reference(x):
    return _layer(x, lambda dy, x, M: M * dy + _ds(dy, x, M))


parameter_free = Exercise(
    "25.parameter_free",
    reference=parameter_free_reference,
    observe=rules,
    cases=[
        Case("two channels, two places", TWO_PLACES),
        Case("one image", _normal(np.random.default_rng(3), 1, 2, 2, 2)),
        Case("two images of three channels", _normal(np.random.default_rng(4), 2, 3, 2, 3)),
        Case(
            "a loud image, whose exponentials overflow",
            400 + _normal(np.random.default_rng(11), 1, 2, 2, 2),
        ),
    ],
    more=lambda rng: Case("any shape", _normal(rng, *rng.integers(2, 4, size=4))),
    hints=[
        "x reaches y on two paths: it is weighed, and through s it makes the weights.",
        "dM adds up over the channels, as one weight serves them all: "
        "`dM = (dy * x).sum(axis=1, keepdims=True)`, (N, 1, H, W).",
        "ds = M (dM - sum of M dM), the sum over all places of an image. s is a sum over channels: "
        "each of them gets all of ds.",
        "`return M * x, vjp_x`, where vjp_x(dy) is `M * dy + ds`.",
    ],
)


@parameter_free.mutant(
    "x also made the weights. Your rule has M dy alone; the path through s is missing, or comes to "
    "zero. (dM adds up over the channels, axis 1, and is a number for each place.)"
)
def weights_taken_for_constants(x):
    return _layer(x, lambda dy, x, M: M * dy)


@parameter_free.mutant("Your rule has the path through the weights alone; M dy is missing.")
def product_forgotten(x):
    return _layer(x, lambda dy, x, M: 0 * dy + _ds(dy, x, M))


@parameter_free.mutant(
    "The slope of the softmax has a second part: ds = M (dM - sum of M dM). You left the sum out."
)
def softmax_without_its_sum(x):
    return _layer(x, lambda dy, x, M: M * dy + M * (dy * x).sum(axis=1, keepdims=True))


@parameter_free.mutant(
    "s is the sum of the channels, so each channel gets all of ds; you divided it among them, as "
    "for a mean.",
    like=["mean_over_channels"],
)
def shared_among_channels(x):
    return _layer(x, lambda dy, x, M: M * dy + _ds(dy, x, M) / x.shape[1])


@parameter_free.mutant(
    "One weight serves all channels of its place, so dM adds up over them; you kept a dM for each."
)
def a_weight_for_each_channel(x):
    def back(dy, x, M):
        dM = dy * x
        return M * dy + M * (dM - (M * dM).sum(axis=(2, 3), keepdims=True))

    return _layer(x, back)


@parameter_free.mutant(
    "dM is a sum over the channels, not a mean: the weight serves them all.",
    like=["shared_among_channels"],
)
def mean_over_channels(x):
    def back(dy, x, M):
        dM = (dy * x).mean(axis=1, keepdims=True)
        return M * dy + M * (dM - (M * dM).sum(axis=(2, 3), keepdims=True))

    return _layer(x, back)


@parameter_free.mutant(
    "The sum in the slope of the softmax goes over the places of one image; yours goes over the "
    "batch, too."
)
def summed_over_the_batch(x):
    def back(dy, x, M):
        dM = (dy * x).sum(axis=1, keepdims=True)
        return M * dy + M * (dM - (M * dM).sum())

    return _layer(x, back)


@parameter_free.mutant(
    "The slope of a softmax is M (dM - sum of M dM): in the sum each dM counts with its weight."
)
def unweighted_sum(x):
    def back(dy, x, M):
        dM = (dy * x).sum(axis=1, keepdims=True)
        return M * dy + M * (dM - dM.sum(axis=(2, 3), keepdims=True))

    return _layer(x, back)


@parameter_free.mutant(
    "You used M (1 - M) for the slope: that is a sigmoid's. In a softmax all places compete: "
    "M dM is added up over the places of an image."
)
def slope_of_a_sigmoid(x):
    def back(dy, x, M):
        return M * dy + M * (1 - M) * (dy * x).sum(axis=1, keepdims=True)

    return _layer(x, back)


@parameter_free.mutant("This squeezes by the mean; the paper's layer, asked for here, by the sum.")
def mean_for_sum(x):
    C = x.shape[1]
    M = _softmax(x.mean(axis=1))[:, None]
    return M * x, lambda dy: M * dy + _ds(dy, x, M) / C


@parameter_free.mutant("The path through the weights is added to M dy, not subtracted.")
def path_subtracted(x):
    return _layer(x, lambda dy, x, M: M * dy - _ds(dy, x, M))


@parameter_free.mutant(
    "ds is the gradient of s already, and s is a plain sum of the channels: ds goes to x "
    "without a further factor x."
)
def ds_times_x(x):
    return _layer(x, lambda dy, x, M: M * dy + _ds(dy, x, M) * x)


@parameter_free.mutant("dy is in dM already; ds is added as it is, without a further factor dy.")
def ds_times_dy(x):
    return _layer(x, lambda dy, x, M: M * dy + _ds(dy, x, M) * dy)


@parameter_free.mutant(
    "y is a product: dM is the sum of dy x over the channels. Yours lacks the x."
)
def dM_without_x(x):
    return _layer(x, lambda dy, x, M: M * dy + _softmax_slope(dy.sum(axis=1, keepdims=True), M))


@parameter_free.mutant(
    "In dM stands x, the other factor of the product; you took y = M x, which has M in it "
    "once more."
)
def y_for_x_in_dM(x):
    return _layer(x, lambda dy, x, M: M * dy + _ds(dy, M * x, M))


@parameter_free.mutant(
    "In the slope of the softmax M dM is added up over the places; you averaged it."
)
def mean_of_M_dM(x):
    def back(dy, x, M):
        dM = (dy * x).sum(axis=1, keepdims=True)
        return M * dy + M * (dM - (M * dM).mean(axis=(2, 3), keepdims=True))

    return _layer(x, back)


@parameter_free.mutant(
    "The sum in the slope of the softmax goes over all places; yours goes along the rows alone."
)
def slope_of_each_row(x):
    def back(dy, x, M):
        dM = (dy * x).sum(axis=1, keepdims=True)
        return M * dy + M * (dM - (M * dM).sum(axis=3, keepdims=True))

    return _layer(x, back)


@parameter_free.mutant(
    "That is the slope of the L1 norm, divided by the sum of s. The weights here are a "
    "softmax: ds = M (dM - sum of M dM)."
)
def slope_of_l1(x):
    def back(dy, x, M):
        return M * dy + _ds(dy, x, M) / M / x.sum(axis=(1, 2, 3), keepdims=True)

    return _layer(x, back)


@parameter_free.mutant("ds = M (dM - sum of M dM): the M in front of the bracket is missing.")
def M_in_front_forgotten(x):
    return _layer(x, lambda dy, x, M: M * dy + _ds(dy, x, M) / M)


@parameter_free.mutant("The direct path is M dy, as y = M x; you passed dy on as it is.")
def dy_without_M(x):
    return _layer(x, lambda dy, x, M: dy + _ds(dy, x, M))


@parameter_free.mutant(
    "The direct path to x has the other factor of the product, M dy; x dy belongs to the path of M."
)
def x_dy_for_M_dy(x):
    return _layer(x, lambda dy, x, M: x * dy + _ds(dy, x, M))


@parameter_free.mutant(
    "Only ds is shared by all channels; the direct path M dy stays with its channel, and you "
    "added it up over them."
)
def M_dy_summed(x):
    return _layer(x, lambda dy, x, M: (M * dy).sum(axis=1, keepdims=True) + _ds(dy, x, M))


@parameter_free.mutant("Each channel gets ds once; you multiplied it by their number.")
def ds_times_C(x):
    return _layer(x, lambda dy, x, M: M * dy + x.shape[1] * _ds(dy, x, M))


@parameter_free.mutant(
    "You divided the sums by their sum, as the program does; the paper's layer takes their softmax."
)
def l1_for_softmax(x):
    s = x.sum(axis=1, keepdims=True)
    S = s.sum(axis=(2, 3), keepdims=True)
    return s / S * x, lambda dy: s / S * dy + _ds(dy, x, s / S) / s


@parameter_free.mutant(
    "Your softmax goes over the channels of a place. Squeeze them by their sum; then the "
    "places compete."
)
def softmax_over_channels(x):
    M = _softmax(x, axis=1)
    return M * x, lambda dy: M * dy


@parameter_free.mutant(
    "You took a softmax in each channel for itself. All channels share one map: first their "
    "sum, axis 1."
)
def softmax_in_each_channel(x):
    M = _softmax(x, axis=(2, 3))
    return M * x, lambda dy: M * dy


@parameter_free.mutant(
    "Your softmax goes over the whole batch. Each image has its own: leave axis 0 alone."
)
def softmax_over_the_images(x):
    M = _softmax(x.sum(axis=1, keepdims=True), axis=(0, 2, 3))
    return M * x, lambda dy: M * dy


@parameter_free.mutant(
    "Your softmax goes along the rows alone. All places of an image compete: `axis=(2, 3)`."
)
def softmax_along_rows(x):
    M = _softmax(x.sum(axis=1, keepdims=True), axis=3)
    return M * x, lambda dy: M * dy


@parameter_free.mutant("That is M alone; the layer gives the weighed features, M x.")
def map_for_features(x):
    M = _softmax(x.sum(axis=1))[:, None]
    return M, lambda dy: _ds(dy, x, M)


@parameter_free.mutant(
    "You added x itself, as a residual block does. Here y = M x and nothing else."
)
def with_a_shortcut(x):
    y, vjp_x = parameter_free_reference(x)
    return x + y, lambda dy: dy + vjp_x(dy)


@parameter_free.mutant(
    "You pooled as well. The layer stands in front of the pooling: y keeps the shape of x."
)
def pooled_already(x):
    y, vjp_x = parameter_free_reference(x)
    return y.sum(axis=(2, 3)), lambda dy: vjp_x(dy[:, :, None, None] + 0 * x)


@parameter_free.mutant(
    "You multiplied by the number of places. The weights of an image add up to 1, as the "
    "text has it."
)
def times_places(x):
    places = x.shape[2] * x.shape[3]
    y, vjp_x = parameter_free_reference(x)
    return places * y, lambda dy: places * vjp_x(dy)


@parameter_free.mutant(
    "exp overflows for large sums, and infinity divided by infinity is nan. Subtract the "
    "greatest of each image before: the softmax does not change."
)
def overflows_in_the_layer(x):
    with np.errstate(all="ignore"):
        e = np.exp(x.sum(axis=1, keepdims=True))
        M = e / e.sum(axis=(2, 3), keepdims=True)
    return M * x, lambda dy: M * dy + _ds(dy, x, M)


@parameter_free.mutant(
    "ds = M (dM - sum of M dM): the M in front stands before the whole bracket, also before "
    "the sum."
)
def bracket_forgotten(x):
    def back(dy, x, M):
        M_dM = M * (dy * x).sum(axis=1, keepdims=True)
        return M * dy + M_dM - M_dM.sum(axis=(2, 3), keepdims=True)

    return _layer(x, back)


@parameter_free.mutant(
    "In the slope of the softmax the sum is subtracted, dM - sum of M dM; you added it."
)
def sum_added(x):
    def back(dy, x, M):
        dM = (dy * x).sum(axis=1, keepdims=True)
        return M * dy + M * (dM + (M * dM).sum(axis=(2, 3), keepdims=True))

    return _layer(x, back)


@parameter_free.mutant(
    "ds belongs to one place, and goes to x as it is; you divided it by the number of places."
)
def shared_among_places(x):
    places = x.shape[2] * x.shape[3]
    return _layer(x, lambda dy, x, M: M * dy + _ds(dy, x, M) / places)


@parameter_free.mutant(
    "You took a sigmoid's slope, M (1 - M), in each channel for itself. dM adds up over the "
    "channels, and in a softmax all places compete."
)
def sigmoid_in_each_channel(x):
    return _layer(x, lambda dy, x, M: M * dy + M * (1 - M) * dy * x)


@parameter_free.mutant("The channels are squeezed by their sum; you took the greatest.")
def greatest_channel(x):
    M = _softmax(x.max(axis=1))[:, None]
    return M * x, lambda dy: M * dy


# -- triplet_loss ---------------------------------------------------------------------------


def _lengths(a, b):
    return np.sqrt(((a - b) ** 2).sum(axis=1))


def _pulls(u, w, share):
    """The rules, from the slopes of both distances and what each triplet counts, (N,)."""
    share = np.asarray(share)[..., None]
    return (
        lambda dy: dy * share * (u - w),
        lambda dy: -dy * share * u,
        lambda dy: dy * share * w,
    )


def _directions(a, b, c):
    return (a - b) / _lengths(a, b)[:, None], (a - c) / _lengths(a, c)[:, None]


def _triplet(a, b, c, margin, active=None, divide=True):
    """The loss and its rules; `active` tells which triplets have one, `divide` whether by N."""
    near, far = _lengths(a, b), _lengths(a, c)
    losses = np.maximum(near - far + margin, 0)
    on = (losses > 0).astype(float) if active is None else active(losses)
    share = on / len(a) if divide else on
    return losses.mean(), _pulls(*_directions(a, b, c), share)


def triplet_loss_reference(a, b, c, margin):
    return _triplet(a, b, c, margin)


FLAT = np.array([[0.0, 0.0], [1.0, 1.0]])


def _any_triplets(rng):
    return Case(
        "any size",
        *rng.normal(size=(3, *rng.integers(2, 5, size=2))),
        margin=float(rng.uniform(0.2, 2)),
    )


triplet_loss = Exercise(
    "25.triplet_loss",
    reference=triplet_loss_reference,
    observe=rules,
    cases=[
        Case(
            "one triplet in a plane: distances 5 and 1",
            np.array([[0.0, 0.0]]),
            np.array([[3.0, 4.0]]),
            np.array([[0.0, 1.0]]),
            margin=0.5,
        ),
        Case(
            "two triplets, the second costs nothing",
            FLAT,
            np.array([[0.0, 2.0], [1.0, 2.0]]),
            np.array([[1.0, 0.0], [7.0, 9.0]]),
            margin=0.3,
        ),
        Case(
            "five triplets", *np.random.default_rng(5).normal(size=(3, 5, 4)).round(1), margin=0.7
        ),
    ],
    more=_any_triplets,
    hints=[
        "`near = np.sqrt(((a - b) ** 2).sum(axis=1))`, (N,); `far` likewise with c.",
        "The gradient of a distance |a - b| towards a is the unit vector (a - b) / |a - b|, and "
        "towards b its opposite.",
        "Only triplets whose loss is positive have a gradient, and the mean gives each of them "
        "1 / N: `share = (losses > 0) / len(a)`, as a column.",
        "With u = (a - b) / near and w = (a - c) / far: da = share (u - w), db = - share u, "
        "dc = share w, all times dy.",
    ],
)


@triplet_loss.mutant("The loss has no margin in it: max(near - far + margin, 0).")
def without_margin(a, b, c, margin):
    return _triplet(a, b, c, 0.0)


@triplet_loss.mutant(
    "You subtract the margin; it is added, so that the negative has to be further by the margin."
)
def margin_subtracted(a, b, c, margin):
    return _triplet(a, b, c, -margin)


@triplet_loss.mutant(
    "Positive and negative are in each other's place: the positive b is to be near, c far."
)
def places_swapped(a, b, c, margin):
    y, (da, dc, db) = _triplet(a, c, b, margin)
    return y, (da, db, dc)


@triplet_loss.mutant(
    "A triplet that costs nothing has no gradient either: multiply by (losses > 0)."
)
def pulls_on_without_end(a, b, c, margin):
    return _triplet(a, b, c, margin, active=np.ones_like)


@triplet_loss.mutant("The mean over the triplets divides the rules by N, too; yours do not.")
def mean_forgotten_backward(a, b, c, margin):
    return _triplet(a, b, c, margin, divide=False)


@triplet_loss.mutant("The losses are averaged over the triplets; you added them up.")
def sum_for_mean(a, b, c, margin):
    y, rules_ = _triplet(a, b, c, margin, divide=False)
    return y * len(a), rules_


@triplet_loss.mutant(
    "The mean goes over all triplets, those of loss 0 too; you divided by the number of the others."
)
def mean_of_the_active(a, b, c, margin):
    near, far = _lengths(a, b), _lengths(a, c)
    scale = len(a) / max(int((near - far + margin > 0).sum()), 1)
    y, rules_ = _triplet(a, b, c, margin)
    return y * scale, tuple(lambda dy, rule=rule: rule(dy) * scale for rule in rules_)


@triplet_loss.mutant(
    "These are squared distances; the loss asked for has the distances themselves, with the root."
)
def squared_distances(a, b, c, margin):
    near, far = ((a - b) ** 2).sum(axis=1), ((a - c) ** 2).sum(axis=1)
    losses = np.maximum(near - far + margin, 0)
    share = 2 * (losses > 0)[:, None] / len(a)
    return losses.mean(), (
        lambda dy: dy * share * (c - b),
        lambda dy: -dy * share * (a - b),
        lambda dy: dy * share * (a - c),
    )


@triplet_loss.mutant(
    "The gradient of a distance is a unit vector: a - b divided by |a - b|. You did not divide."
)
def direction_not_of_length_one(a, b, c, margin):
    y, _ = _triplet(a, b, c, margin)
    share = (_lengths(a, b) - _lengths(a, c) + margin > 0)[:, None] / len(a)
    return y, (
        lambda dy: dy * share * (c - b),
        lambda dy: -dy * share * (a - b),
        lambda dy: dy * share * (a - c),
    )


@triplet_loss.mutant(
    "The rule of b has the wrong sign: a step against the gradient has to pull b towards a. Look "
    "at that of c, too, which is pushed off."
)
def signs_turned(a, b, c, margin):
    y, (da, db, dc) = _triplet(a, b, c, margin)
    return y, (da, lambda dy: -db(dy), lambda dy: -dc(dy))


@triplet_loss.mutant(
    "The anchor stands in both distances: its gradient has a part from each; yours has the first "
    "alone."
)
def anchor_pulled_only(a, b, c, margin):
    y, (_, db, dc) = _triplet(a, b, c, margin)
    return y, (lambda dy: -db(dy), db, dc)


@triplet_loss.mutant(
    "The anchor stands in both distances: its gradient has a part from each; yours has the second "
    "alone."
)
def anchor_pushed_only(a, b, c, margin):
    y, (_, db, dc) = _triplet(a, b, c, margin)
    return y, (lambda dy: -dc(dy), db, dc)


@triplet_loss.mutant("The rules do not use dy: each is multiplied by the gradient that comes in.")
def dy_forgotten(a, b, c, margin):
    y, rules_ = _triplet(a, b, c, margin)
    return y, tuple(lambda dy, rule=rule: rule(1.0) for rule in rules_)


@triplet_loss.mutant(
    "The second distance is subtracted in the loss, so its part in da is, too: da = u - w."
)
def anchor_parts_added(a, b, c, margin):
    y, (_, db, dc) = _triplet(a, b, c, margin)
    return y, (lambda dy: dc(dy) - db(dy), db, dc)


@triplet_loss.mutant(
    "da has the wrong sign: it is u - w, with u = (a - b) / |a - b| and w = (a - c) / |a - "
    "c|. Look at the other rules, too."
)
def sign_of_the_anchor(a, b, c, margin):
    y, (da, db, dc) = _triplet(a, b, c, margin)
    return y, (lambda dy: -da(dy), db, dc)


@triplet_loss.mutant(
    "dc has the wrong sign: the distance |a - c| is subtracted, and grows as c goes away from a."
)
def sign_of_the_negative(a, b, c, margin):
    y, (da, db, dc) = _triplet(a, b, c, margin)
    return y, (da, db, lambda dy: -dc(dy))


@triplet_loss.mutant(
    "You added up absolute values; the distance is the root of the sum of squares."
)
def sum_of_absolute_values(a, b, c, margin):
    near, far = np.abs(a - b).sum(axis=1), np.abs(a - c).sum(axis=1)
    return np.maximum(near - far + margin, 0).mean(), _triplet(a, b, c, margin)[1]


@triplet_loss.mutant(
    "A triplet that is far enough apart counts as negative here; its loss is 0: max(..., 0) "
    "for each triplet."
)
def no_maximum(a, b, c, margin):
    losses = _lengths(a, b) - _lengths(a, c) + margin
    return losses.mean(), _pulls(*_directions(a, b, c), np.ones(len(a)) / len(a))


@triplet_loss.mutant(
    "The maximum with 0 is taken of the mean; take it for each triplet, and the mean after it."
)
def maximum_of_the_mean(a, b, c, margin):
    loss = max((_lengths(a, b) - _lengths(a, c) + margin).mean(), 0)
    return loss, _pulls(*_directions(a, b, c), np.full(len(a), (loss > 0) / len(a)))


@triplet_loss.mutant(
    "The margin is inside the maximum, max(near - far + margin, 0); it is not its lower end."
)
def margin_as_lower_end(a, b, c, margin):
    excess = _lengths(a, b) - _lengths(a, c)
    share = (excess > margin) / len(a)
    return np.maximum(excess, margin).mean(), _pulls(*_directions(a, b, c), share)


@triplet_loss.mutant("The margin stands inside the maximum; added behind it, it moves nothing.")
def margin_behind_the_maximum(a, b, c, margin):
    y, rules_ = _triplet(a, b, c, 0.0)
    return y + margin, rules_


@triplet_loss.mutant(
    "Your rules forget the margin: a triplet pulls where near - far + margin > 0. Where near > "
    "far, or the loss > margin, which is the same, asks for too much."
)
def margin_forgotten_backward(a, b, c, margin):
    y, _ = _triplet(a, b, c, margin)
    return y, _triplet(a, b, c, 0.0)[1]


@triplet_loss.mutant(
    "Yours is one distance for the whole batch. Each triplet has its own: sum the squares "
    "over axis 1."
)
def one_length_for_all(a, b, c, margin):
    near, far = np.sqrt(((a - b) ** 2).sum()), np.sqrt(((a - c) ** 2).sum())
    loss = max(near - far + margin, 0)
    return loss, _pulls((a - b) / near, (a - c) / far, float(loss > 0))


@triplet_loss.mutant(
    "The squares are added up over axis 0, the triplets; a distance adds up the D numbers of "
    "one row, axis 1."
)
def lengths_of_columns(a, b, c, margin):
    losses = np.maximum(_lengths(a.T, b.T) - _lengths(a.T, c.T) + margin, 0)
    return losses.mean(), _triplet(a, b, c, margin)[1]


@triplet_loss.mutant(
    "A column (N, 1) met a row (N,), and every `near` was compared with every `far`. Keep "
    "both in one shape."
)
def columns_against_rows(a, b, c, margin):
    losses = np.maximum(_lengths(a, b)[:, None] - _lengths(a, c) + margin, 0)
    return losses.mean(), _triplet(a, b, c, margin)[1]


@triplet_loss.mutant(
    "The second distance is that from the anchor to the negative, |a - c|; yours goes from b to c."
)
def distance_of_b_and_c(a, b, c, margin):
    losses = np.maximum(_lengths(a, b) - _lengths(b, c) + margin, 0)
    return losses.mean(), _triplet(a, b, c, margin)[1]


@triplet_loss.mutant(
    "Backward you divided by N D, as if all numbers were averaged; the mean goes over the N "
    "triplets."
)
def divided_by_all_numbers(a, b, c, margin):
    y, rules_ = _triplet(a, b, c, margin)
    return y, tuple(lambda dy, rule=rule: rule(dy) / a.shape[1] for rule in rules_)


@triplet_loss.mutant(
    "Your slopes are half of what they should be: the root has 1 / (2 |v|), but the square inside "
    "has a 2, and both go. What is left is the unit vector v / |v|."
)
def two_of_the_square_forgotten(a, b, c, margin):
    y, rules_ = _triplet(a, b, c, margin)
    return y, tuple(lambda dy, rule=rule: rule(dy) / 2 for rule in rules_)


@triplet_loss.mutant(
    "A distance is the root of the sum of squares over the D numbers; you took their mean."
)
def root_of_the_mean(a, b, c, margin):
    near, far = (_lengths(a, other) / np.sqrt(a.shape[1]) for other in (b, c))
    return np.maximum(near - far + margin, 0).mean(), _triplet(a, b, c, margin)[1]


@triplet_loss.mutant(
    "The rules of b and c are in each other's place: `return loss, (vjp_a, vjp_b, vjp_c)`."
)
def rules_of_b_and_c_swapped(a, b, c, margin):
    y, (da, db, dc) = _triplet(a, b, c, margin)
    return y, (da, dc, db)


@triplet_loss.mutant(
    "You took the absolute value of near - far + margin; where it is negative the loss is 0."
)
def absolute_value(a, b, c, margin):
    losses = _lengths(a, b) - _lengths(a, c) + margin
    return np.abs(losses).mean(), _pulls(*_directions(a, b, c), np.sign(losses) / len(a))


@triplet_loss.mutant(
    "You divided a, b and c by their lengths before. The loss asked for takes them as they are."
)
def normalised_before(a, b, c, margin):
    a, b, c = (v / np.maximum(_lengths(v, 0), 1e-12)[:, None] for v in (a, b, c))
    return _triplet(a, b, c, margin)


@triplet_loss.mutant("The slope of max(l, 0) is 1 where l > 0; you multiplied by the loss itself.")
def loss_for_its_slope(a, b, c, margin):
    return _triplet(a, b, c, margin, active=lambda losses: losses)


@triplet_loss.mutant(
    "The lengths are (N,) and were divided into (N, D): NumPy lines them up with the "
    "columns. Make them a column, `near[:, None]` or `keepdims=True`."
)
def lengths_along_columns(a, b, c, margin):
    y, rules_ = _triplet(a, b, c, margin)
    near, far = _lengths(a, b), _lengths(a, c)
    share = (near - far + margin > 0) / len(a)
    u, w = (a - b) / near, (a - c) / far
    return y, (
        lambda dy: dy * share * (u - w),
        lambda dy: -dy * share * u,
        lambda dy: dy * share * w,
    )


@triplet_loss.mutant(
    "Each distance has its own length: w = (a - c) / |a - c|. You divided both by |a - b|."
)
def near_for_both(a, b, c, margin):
    y, _ = _triplet(a, b, c, margin)
    near, far = _lengths(a, b), _lengths(a, c)
    u, w = _directions(a, b, c)
    return y, _pulls(u, w * (far / near)[:, None], (near - far + margin > 0) / len(a))


@triplet_loss.mutant(
    "da is the difference of two unit vectors, u - w; you made it one unit vector from b to c."
)
def anchor_from_b_to_c(a, b, c, margin):
    y, (_, db, dc) = _triplet(a, b, c, margin)
    share = (_lengths(a, b) - _lengths(a, c) + margin > 0)[:, None] / len(a)
    return y, (lambda dy: dy * share * (c - b) / _lengths(b, c)[:, None], db, dc)


@triplet_loss.mutant(
    "2 (a - b) is the gradient of the square of a distance. The root on top of it divides by "
    "2 |a - b|: what is left is the unit vector."
)
def slope_of_the_square(a, b, c, margin):
    y, _ = _triplet(a, b, c, margin)
    share = (_lengths(a, b) - _lengths(a, c) + margin > 0) / len(a)
    return y, _pulls(2 * (a - b), 2 * (a - c), share)


@triplet_loss.mutant(
    "You divided a - b by the square of its length; a unit vector is divided by the length itself."
)
def divided_by_the_square(a, b, c, margin):
    y, _ = _triplet(a, b, c, margin)
    near, far = _lengths(a, b)[:, None], _lengths(a, c)[:, None]
    share = (near - far + margin > 0)[:, 0] / len(a)
    return y, _pulls((a - b) / near**2, (a - c) / far**2, share)


@triplet_loss.mutant(
    "Which triplets pull is (N,) and was multiplied into (N, D): NumPy lines it up with the "
    "columns. Make it a column, `[:, None]`."
)
def share_along_columns(a, b, c, margin):
    y, _ = _triplet(a, b, c, margin)
    share = (_lengths(a, b) - _lengths(a, c) + margin > 0) / len(a)
    u, w = _directions(a, b, c)
    return y, (
        lambda dy: dy * share * (u - w),
        lambda dy: -dy * share * u,
        lambda dy: dy * share * w,
    )


@triplet_loss.mutant(
    "Python's `max` asks which of two is greater, and an array of several losses has no one "
    "answer. `np.maximum(losses, 0)` goes element by element.",
    raises=True,
)
def pythons_max(a, b, c, margin):
    losses = max(_lengths(a, b) - _lengths(a, c) + margin, 0)
    return losses.mean(), _triplet(a, b, c, margin)[1]


# -- hardest --------------------------------------------------------------------------------


def _hardest(distances, identities, positives=np.argmax, negatives=np.argmin):
    d, t = distances, identities
    same = t[:, None] == t
    other = same & ~np.eye(len(t), dtype=bool)
    worst = -np.inf if positives is np.argmax else np.inf
    best = np.inf if negatives is np.argmin else -np.inf
    return np.stack(
        [
            positives(np.where(other, d, worst), axis=1),
            negatives(np.where(same, best, d), axis=1),
        ]
    )


def hardest_reference(distances, identities):
    return _hardest(distances, identities)


def _table(rng, identities):
    """Distances between points: symmetric, 0 on the diagonal, no two others alike."""
    N = len(identities)
    d = np.zeros((N, N))
    above = np.triu_indices(N, 1)
    d[above] = 1 + rng.permutation(len(above[0]))
    return d + d.T


def _batch(rng, label, identities):
    return Case(label, _table(rng, identities), np.array(identities))


def _any_batch(rng):
    P, K = rng.integers(2, 4, size=2)
    return _batch(rng, "any batch", rng.permutation(np.repeat(np.arange(P), K)))


hardest = Exercise(
    "25.hardest",
    reference=hardest_reference,
    cases=[
        _batch(np.random.default_rng(6), "two identities with two pictures each", [0, 0, 1, 1]),
        _batch(np.random.default_rng(7), "three pictures each, mixed", [3, 5, 3, 5, 5, 3]),
        _batch(np.random.default_rng(8), "three identities", [0, 1, 2, 2, 1, 0, 0, 1]),
        Case(
            "two pictures at distance 0 from each other",
            np.array([[0.0, 2, 7, 8], [2, 0, 5, 6], [7, 5, 0, 0], [8, 6, 0, 0]]),
            np.array([0, 0, 1, 1]),
        ),
    ],
    more=_any_batch,
    hints=[
        "`same = identities[:, None] == identities` is a table (N, N) of who is whose picture.",
        "A picture is not its own positive: `other = same & ~np.eye(N, dtype=bool)`.",
        "Rule out what may not be chosen: `np.where(other, distances, -np.inf).argmax(axis=1)`; "
        "for the negatives with +inf and argmin.",
    ],
)


@hardest.mutant(
    "The hardest positive is the farthest picture of the same identity; you took the nearest."
)
def nearest_positive(distances, identities):
    return _hardest(distances, identities, positives=np.argmin)


@hardest.mutant(
    "The hardest negative is the nearest picture of another identity, not the farthest."
)
def farthest_negative(distances, identities):
    return _hardest(distances, identities, negatives=np.argmax)


@hardest.mutant("Both are turned round: you looked for the easiest triplets.")
def easiest(distances, identities):
    return _hardest(distances, identities, np.argmin, np.argmax)


@hardest.mutant("Positives and negatives are in each other's row: row 0 has the positives.")
def rows_swapped(distances, identities):
    return _hardest(distances, identities)[::-1]


@hardest.mutant(
    "You set what may not be chosen to 0 by multiplying with a mask. For the negatives 0 is the "
    "smallest of all, and is then chosen: rule out with infinity."
)
def masked_by_zero(distances, identities):
    same = identities[:, None] == identities
    other = same & ~np.eye(len(identities), dtype=bool)
    return np.stack([(distances * other).argmax(axis=1), (distances * ~same).argmin(axis=1)])


@hardest.mutant(
    "You searched for the positive among the strangers; it is a picture of the anchor's identity."
)
def positives_among_strangers(distances, identities):
    same = identities[:, None] == identities
    return np.stack(
        [
            np.where(same, -np.inf, distances).argmax(axis=1),
            np.where(same, np.inf, distances).argmin(axis=1),
        ]
    )


@hardest.mutant(
    "The nearest of all but itself is not always of another identity: rule out the whole identity "
    "for the negatives."
)
def own_identity_as_negative(distances, identities):
    diagonal = np.eye(len(identities), dtype=bool)
    y = _hardest(distances, identities)
    return np.stack([y[0], np.where(diagonal, np.inf, distances).argmin(axis=1)])


@hardest.mutant(
    "A picture is its own positive here: with a copy in the batch, at distance 0, the "
    "first of both is taken. Rule out the diagonal, too."
)
def itself_as_positive(distances, identities):
    same = identities[:, None] == identities
    y = _hardest(distances, identities)
    return np.stack([np.where(same, distances, -np.inf).argmax(axis=1), y[1]])


@hardest.mutant(
    "These are the distances; asked for are the numbers of the pictures: argmax and argmin, "
    "not max and min."
)
def distances_for_numbers(distances, identities):
    d = distances
    found = _hardest(d, identities)
    return np.take_along_axis(d, found.T, axis=1).T


@hardest.mutant(
    "These are the identities of the pictures found; asked for are the numbers of the pictures."
)
def identities_for_numbers(distances, identities):
    return identities[_hardest(distances, identities)]


@hardest.mutant(
    "You searched in a list of the candidates alone, and gave the place in that list. Its "
    "numbers are not those of the batch: keep all N, and rule out with infinity."
)
def place_among_the_candidates(distances, identities):
    found = []
    for i, d in enumerate(distances):
        own = identities == identities[i]
        others = own & (np.arange(len(d)) != i)
        found.append([d[others].argmax(), d[~own].argmin()])
    return np.array(found).T


@hardest.mutant(
    "For the farthest, what is ruled out has to be as near as can be: -inf. You set it to "
    "+inf, and argmax chose it."
)
def ruled_out_by_plus_infinity(distances, identities):
    same = identities[:, None] == identities
    other = same & ~np.eye(len(identities), dtype=bool)
    positives = np.where(other, distances, np.inf).argmax(axis=1)
    return np.stack([positives, _hardest(distances, identities)[1]])


@hardest.mutant(
    "Strangers stand at +inf in your search for the farthest, so that one of them is found. There "
    "they have to stand at -inf."
)
def strangers_at_plus_infinity(distances, identities):
    same = identities[:, None] == identities
    positives = np.where(same, distances, np.inf).argmax(axis=1)
    return np.stack([positives, _hardest(distances, identities)[1]])


@hardest.mutant(
    "For the nearest, what is ruled out has to be as far as can be: +inf. You set it to -inf or to "
    "0, and argmin chose it."
)
def ruled_out_by_minus_infinity(distances, identities):
    same = identities[:, None] == identities
    negatives = np.where(same, -np.inf, distances).argmin(axis=1)
    return np.stack([_hardest(distances, identities)[0], negatives])


@hardest.mutant(
    "You took the hardest of the whole batch for everybody; each picture has its own: `axis=1`."
)
def one_for_the_batch(distances, identities):
    found = _hardest(distances, identities)
    anchors = np.arange(len(identities))
    worst = found[0, distances[anchors, found[0]].argmax()]
    best = found[1, distances[anchors, found[1]].argmin()]
    return np.stack([np.full_like(anchors, worst), np.full_like(anchors, best)])


@hardest.mutant(
    "`argmax()` without an axis gives one number for the whole table, its place if the table "
    "were one long row. Each picture has its own: `axis=1`."
)
def no_axis(distances, identities):
    same = identities[:, None] == identities
    other = same & ~np.eye(len(identities), dtype=bool)
    positives = np.where(other, distances, -np.inf).argmax()
    return np.stack([positives, np.where(same, np.inf, distances).argmin()])


@hardest.mutant("The identities are not looked at: these are the farthest and the nearest of all.")
def identities_not_looked_at(distances, identities):
    return np.stack([distances.argmax(axis=1), distances.argmin(axis=1)])


@hardest.mutant("The identities are not looked at; only a picture itself is ruled out.")
def only_itself_ruled_out(distances, identities):
    d = distances + np.diag(np.full(len(distances), np.inf))
    return np.stack([distances.argmax(axis=1), d.argmin(axis=1)])


@hardest.mutant(
    "`identities == identities` compares each with itself, and is always true. For a table "
    "of all pairs one side has to be a column: `identities[:, None]`."
)
def compared_with_themselves(distances, identities):
    everybody = np.zeros(len(identities))
    return _hardest(distances, everybody)


@hardest.mutant(
    "You took it that the pictures of an identity follow one another. Nothing says so: "
    "compare `identities`."
)
def pictures_in_blocks(distances, identities):
    K = int((identities == identities[0]).sum())
    return _hardest(distances, np.arange(len(identities)) // K)


@hardest.mutant(
    "A 0 rules out only what is farther off: where all own pictures are copies, at distance "
    "0, the first of the batch is taken, whoever it is. Start from -inf."
)
def positives_ruled_out_by_zero(distances, identities):
    same = identities[:, None] == identities
    other = same & ~np.eye(len(identities), dtype=bool)
    return np.stack([(distances * other).argmax(axis=1), _hardest(distances, identities)[1]])


@hardest.mutant(
    "You ruled out with a number that is not large enough: distances have no upper end. Take "
    "`np.inf`."
)
def added_a_number(distances, identities):
    same = identities[:, None] == identities
    negatives = (distances + 10 * same).argmin(axis=1)
    return np.stack([_hardest(distances, identities)[0], negatives])


@hardest.mutant("argmax and argmin stop at a nan and give its place. Rule out with infinity.")
def ruled_out_by_nan(distances, identities):
    same = identities[:, None] == identities
    other = same & ~np.eye(len(identities), dtype=bool)
    return np.stack(
        [
            np.where(other, distances, np.nan).argmax(axis=1),
            np.where(same, np.nan, distances).argmin(axis=1),
        ]
    )


@hardest.mutant(
    "Two rows are asked for, positives and negatives; yours has the anchors' numbers on top."
)
def anchors_on_top(distances, identities):
    found = _hardest(distances, identities)
    return np.concatenate([np.arange(len(identities))[None], found])


@hardest.mutant("Pictures are numbered from 0, as rows are; you count from 1.")
def numbered_from_one(distances, identities):
    return _hardest(distances, identities) + 1


@hardest.mutant(
    "The largest and smallest distance so far are carried from one picture to the next; "
    "start anew with each."
)
def never_started_anew(distances, identities):
    found = np.zeros((2, len(identities)), dtype=int)
    most, least = -np.inf, np.inf
    for i, d in enumerate(distances):
        for j in range(len(d)):
            if identities[j] == identities[i] and j != i and d[j] > most:
                most, found[0, i] = d[j], j
            if identities[j] != identities[i] and d[j] < least:
                least, found[1, i] = d[j], j
    return found


@hardest.mutant(
    "Two arrays came back; one array of two rows is asked for: `np.stack([positives, negatives])`."
)
def two_arrays(distances, identities):
    return tuple(_hardest(distances, identities))


@hardest.mutant(
    "Each picture is its own nearest, at distance 0: for the negatives the diagonal has to "
    "be ruled out with all of its identity."
)
def itself_as_negative(distances, identities):
    same = identities[:, None] == identities
    other = same & ~np.eye(len(identities), dtype=bool)
    negatives = np.where(other, np.inf, distances).argmin(axis=1)
    return np.stack([_hardest(distances, identities)[0], negatives])


@hardest.mutant(
    "The mask of the negatives is the wrong way round: strangers are ruled out, and the own "
    "identity is searched."
)
def strangers_ruled_out(distances, identities):
    same = identities[:, None] == identities
    negatives = np.where(same, distances, np.inf).argmin(axis=1)
    return np.stack([_hardest(distances, identities)[0], negatives])


@hardest.mutant(
    "`distances[mask]` is one long row of all that fits, without a row for each picture. "
    "Keep the table, and rule out with `np.where`."
)
def flattened_by_the_mask(distances, identities):
    same = identities[:, None] == identities
    return np.stack([distances[same].argmax(), distances[~same].argmin()])


# -- cmc ------------------------------------------------------------------------------------


def _first_matches(d, q, g, q_camera, g_camera, left_out):
    """Place of the first match of each query from 0, -1 where there is none."""
    found = []
    for i, order in enumerate(np.argsort(d, axis=1, kind="stable")):
        order = order[~left_out(q[i] == g[order], q_camera[i] == g_camera[order])]
        places = np.flatnonzero(g[order] == q[i])
        found.append(places[0] if len(places) else -1)
    return np.array(found)


def _junk(same_identity, same_camera):
    return same_identity & same_camera


def _curve(first, ranks):
    return (first[first >= 0][:, None] <= np.arange(ranks)).mean(axis=0)


def cmc_reference(distances, q, g, q_camera, g_camera, ranks):
    return _curve(_first_matches(distances, q, g, q_camera, g_camera, _junk), ranks)


def _search(rng, label, queries, gallery, ranks=3, identities=3):
    while True:
        d = rng.permutation(queries * gallery).reshape(queries, gallery) / 10.0
        q, g = (rng.integers(identities, size=count) for count in (queries, gallery))
        q_camera, g_camera = (rng.integers(2, size=count) for count in (queries, gallery))
        can_match = ((q[:, None] == g) & (q_camera[:, None] != g_camera)).any(axis=1)
        if can_match.any():
            return Case(label, d, q, g, q_camera, g_camera, ranks)


ONE_QUERY = (
    np.array([[0.1, 0.2, 0.3, 0.4]]),
    np.array([7]),
    np.array([7, 8, 7, 8]),
    np.array([0]),
    np.array([0, 0, 1, 1]),
)

cmc = Exercise(
    "25.cmc",
    reference=cmc_reference,
    cases=[
        Case("one query, whose nearest is from its own camera", *ONE_QUERY, 3),
        Case(
            "a query that has no match by the other camera",
            np.array([[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]]),
            np.array([1, 2]),
            np.array([1, 2, 2]),
            np.array([0, 0]),
            np.array([0, 1, 1]),
            2,
        ),
        Case("one query, and a curve longer than its gallery", *ONE_QUERY, 5),
        _search(np.random.default_rng(9), "four queries, eight pictures", 4, 8),
        _search(np.random.default_rng(10), "six queries, twelve pictures", 6, 12, ranks=5),
    ],
    more=lambda rng: _search(rng, "any search", *rng.integers(4, 9, size=2)),
    hints=[
        "For each query: the order of the gallery, `np.argsort(distances[i])`, without the "
        "pictures of its identity by its camera.",
        "`junk = (g == q[i]) & (g_camera == q_camera[i])`; `order = order[~junk[order]]`.",
        "The place of the first match is `np.flatnonzero(g[order] == q[i])[0]`, if there is one; "
        "queries without a match are left out.",
        "`cmc[k]` is the share of the queries that are left whose first place is at most k, "
        "counted from 0.",
    ],
)


@cmc.mutant(
    "The pictures of the same identity by the same camera are still there; the search is to go "
    "across cameras."
)
def own_camera_kept(distances, q, g, q_camera, g_camera, ranks):
    none = lambda identity, camera: np.zeros_like(identity)  # noqa: E731
    return _curve(_first_matches(distances, q, g, q_camera, g_camera, none), ranks)


@cmc.mutant(
    "You left out all pictures by the query's camera. Only those of its own identity go; strangers "
    "by the same camera stay, and mislead."
)
def whole_camera_left_out(distances, q, g, q_camera, g_camera, ranks):
    return _curve(
        _first_matches(distances, q, g, q_camera, g_camera, lambda identity, camera: camera), ranks
    )


@cmc.mutant("You kept the pictures by the query's camera and left out those by the other one.")
def other_camera_left_out(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(
        distances, q, g, q_camera, g_camera, lambda identity, camera: identity & ~camera
    )
    return _curve(first, ranks) if (first >= 0).any() else np.zeros(ranks)


@cmc.mutant("A query without a match counts as missed; it is left out of the mean.")
def unanswerable_counts(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)
    return ((first >= 0)[:, None] & (first[:, None] <= np.arange(ranks))).mean(axis=0)


@cmc.mutant(
    "That is the share of queries whose first match is exactly at k. The curve adds up: at k or "
    "before."
)
def not_cumulative(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)
    return (first[first >= 0][:, None] == np.arange(ranks)).mean(axis=0)


@cmc.mutant("Your curve starts one place late: cmc[0] is for the first place.")
def one_place_late(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)
    return (first[first >= 0][:, None] < np.arange(ranks)).mean(axis=0)


@cmc.mutant("The gallery is sorted from far to near; the nearest comes first.")
def farthest_first(distances, q, g, q_camera, g_camera, ranks):
    return cmc_reference(-distances, q, g, q_camera, g_camera, ranks)


@cmc.mutant(
    "The mask of pictures to leave out is in the gallery's order, and was applied to the sorted "
    "numbers: `order[~junk[order]]`."
)
def mask_not_sorted(distances, q, g, q_camera, g_camera, ranks):
    found = []
    for i, order in enumerate(np.argsort(distances, axis=1)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))]
        places = np.flatnonzero(g[order] == q[i])
        found.append(places[0] if len(places) else -1)
    return _curve(np.array(found), ranks)


@cmc.mutant(
    "This is the share of matches among the first k, the precision. The curve asks of each query "
    "whether there is a match at all."
)
def precision_for_cmc(distances, q, g, q_camera, g_camera, ranks):
    curves = []
    for i, order in enumerate(np.argsort(distances, axis=1)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))[order]]
        hits = np.zeros(ranks)
        matches = (g[order] == q[i])[:ranks]
        hits[: len(matches)] = matches
        if (g[order] == q[i]).any():
            curves.append(hits.cumsum() / np.arange(1, ranks + 1))
    return np.mean(curves, axis=0)


@cmc.mutant(
    "The pictures to leave out were moved to the end, but still count as matches there: a "
    "query that has only these is left out. Take them out of the order."
)
def junk_at_the_end(distances, q, g, q_camera, g_camera, ranks):
    junk = (q[:, None] == g) & (q_camera[:, None] == g_camera)
    far = np.where(junk, np.inf, distances)
    none = lambda identity, camera: np.zeros_like(identity)  # noqa: E731
    return _curve(_first_matches(far, q, g, q_camera, g_camera, none), ranks)


@cmc.mutant(
    "A picture that is left out is no match here, but still takes a place of the ranking. "
    "Take it out before you count places."
)
def junk_takes_a_place(distances, q, g, q_camera, g_camera, ranks):
    first = []
    for i, order in enumerate(np.argsort(distances, axis=1)):
        places = np.flatnonzero((g[order] == q[i]) & (g_camera[order] != q_camera[i]))
        first.append(places[0] if len(places) else -1)
    return _curve(np.array(first), ranks)


@cmc.mutant(
    "A query may have no match, and then there is no first place, `[0]` of an empty array. "
    "Leave such queries out.",
    raises=True,
)
def always_a_match(distances, q, g, q_camera, g_camera, ranks):
    first = []
    for i, order in enumerate(np.argsort(distances, axis=1)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))[order]]
        first.append(np.flatnonzero(g[order] == q[i])[0])
    return _curve(np.array(first), ranks)


@cmc.mutant(
    "`argmax` of a row without a match is 0, as if the first picture were one. Ask `.any()` "
    "first, and leave such queries out."
)
def argmax_without_a_match(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)
    return _curve(np.maximum(first, 0), ranks)


@cmc.mutant(
    "That is how many queries have found their match; the curve is a share: divide by how "
    "many there are."
)
def counts_for_shares(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)
    return (first[first >= 0][:, None] <= np.arange(ranks)).sum(axis=0)


@cmc.mutant("Your curve starts one place early: cmc[0] is for the first place alone.")
def one_place_early(distances, q, g, q_camera, g_camera, ranks):
    return cmc_reference(distances, q, g, q_camera, g_camera, ranks + 1)[1:]


@cmc.mutant("Your curve has one number too many: `ranks` of them, for the places 1 to `ranks`.")
def one_number_too_many(distances, q, g, q_camera, g_camera, ranks):
    return cmc_reference(distances, q, g, q_camera, g_camera, ranks + 1)


@cmc.mutant(
    "Either is enough for you to leave a picture out. It has to be of the same identity "
    "*and* by the same camera."
)
def identity_or_camera_left_out(distances, q, g, q_camera, g_camera, ranks):
    left_out = lambda identity, camera: identity | camera  # noqa: E731
    first = _first_matches(distances, q, g, q_camera, g_camera, left_out)
    return _curve(first, ranks) if (first >= 0).any() else np.zeros(ranks)


@cmc.mutant("The mask is the wrong way round: you kept what is to be left out, and nothing else.")
def only_junk_kept(distances, q, g, q_camera, g_camera, ranks):
    kept = lambda identity, camera: ~(identity & camera)  # noqa: E731
    first = _first_matches(distances, q, g, q_camera, g_camera, kept)
    return _curve(first, ranks) if (first >= 0).any() else np.zeros(ranks)


@cmc.mutant(
    "You left out strangers by the query's camera. It is the pictures of its own identity by "
    "that camera that go."
)
def strangers_left_out(distances, q, g, q_camera, g_camera, ranks):
    strangers = lambda identity, camera: ~identity & camera  # noqa: E731
    return _curve(_first_matches(distances, q, g, q_camera, g_camera, strangers), ranks)


@cmc.mutant(
    "argsort of argsort gives each picture's place in the ranking. Asked for is the reverse, "
    "which picture stands at each place: argsort once."
)
def sorted_twice(distances, q, g, q_camera, g_camera, ranks):
    order = np.argsort(distances, axis=1)  # sorted once more by the reference
    return cmc_reference(order, q, g, q_camera, g_camera, ranks)


@cmc.mutant(
    "The distances are sorted along axis 0, the queries; each query sorts the gallery, its own row."
)
def sorted_the_queries(distances, q, g, q_camera, g_camera, ranks):
    first = []
    for i, order in enumerate(np.argsort(distances, axis=0)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))[order]]
        places = np.flatnonzero(g[order] == q[i])
        first.append(places[0] if len(places) else -1)
    return _curve(np.array(first), ranks)


@cmc.mutant(
    "The place of the first match is counted in the gallery as it is given, not in the "
    "sorted one: `g[order] == q[i]`."
)
def gallery_not_sorted(distances, q, g, q_camera, g_camera, ranks):
    places = np.broadcast_to(np.arange(len(g)), distances.shape)
    return cmc_reference(places, q, g, q_camera, g_camera, ranks)


@cmc.mutant(
    "Your first match is looked for in `g`, where nothing is sorted or left out: it has to be "
    "`g[order] == q[i]`."
)
def order_not_used(distances, q, g, q_camera, g_camera, ranks):
    places = np.broadcast_to(np.arange(len(g)), distances.shape)
    return own_camera_kept(places, q, g, q_camera, g_camera, ranks)


@cmc.mutant("That is the place of the last match. The curve asks for the first: `[0]`.")
def last_match(distances, q, g, q_camera, g_camera, ranks):
    first = []
    for i, order in enumerate(np.argsort(distances, axis=1)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))[order]]
        first.append(max(np.flatnonzero(g[order] == q[i]), default=-1))
    return _curve(np.array(first), ranks)


@cmc.mutant(
    "This is the share of its matches that a query has found, the recall. The curve asks "
    "whether there is one."
)
def recall_for_cmc(distances, q, g, q_camera, g_camera, ranks):
    curves = []
    for i, order in enumerate(np.argsort(distances, axis=1)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))[order]]
        places = np.flatnonzero(g[order] == q[i])
        if len(places):
            curves.append((places[:, None] <= np.arange(ranks)).mean(axis=0))
    return np.mean(curves, axis=0)


@cmc.mutant(
    "You added up all matches of a query; from its first match on it counts as 1, however "
    "many follow."
)
def every_match_counts(distances, q, g, q_camera, g_camera, ranks):
    curves = []
    for i, order in enumerate(np.argsort(distances, axis=1)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))[order]]
        places = np.flatnonzero(g[order] == q[i])
        if len(places):
            curves.append((places[:, None] <= np.arange(ranks)).sum(axis=0))
    return np.mean(curves, axis=0)


@cmc.mutant(
    "Where fewer pictures are left than `ranks`, the curve goes on: who has found a match at "
    "the third place has found it at the tenth."
)
def ends_with_the_gallery(distances, q, g, q_camera, g_camera, ranks):
    curves = []
    for i, order in enumerate(np.argsort(distances, axis=1)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))[order]]
        places = np.flatnonzero(g[order] == q[i])
        if len(places):
            k = np.arange(ranks)
            curves.append((k >= places[0]) & (k < len(order)))
    return np.mean(curves, axis=0)


@cmc.mutant(
    "Your curve is as long as the pictures that are left; `ranks` numbers are asked for. Where "
    "fewer pictures are left, its end goes on."
)
def as_long_as_the_gallery(distances, q, g, q_camera, g_camera, ranks):
    curves = []
    for i, order in enumerate(np.argsort(distances, axis=1)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))[order]]
        found = (g[order] == q[i]).cumsum() > 0
        if found.any():
            curves.append(found[:ranks])
    return np.mean([curve for curve in curves if len(curve) == len(curves[0])], axis=0)


@cmc.mutant(
    "The gallery was made shorter before sorting, so that `order` counts in the shorter one; "
    "its identities are `g[keep][order]`, not `g[order]`."
)
def numbers_of_the_shorter_gallery(distances, q, g, q_camera, g_camera, ranks):
    first = []
    for i, d in enumerate(distances):
        order = np.argsort(d[~((g == q[i]) & (g_camera == q_camera[i]))])
        places = np.flatnonzero(g[order] == q[i])
        first.append(places[0] if len(places) else -1)
    return _curve(np.array(first), ranks)


@cmc.mutant(
    "A query whose camera is in the gallery, too, is left out as a whole; leave out only "
    "those pictures."
)
def query_left_out(distances, q, g, q_camera, g_camera, ranks):
    junk = (q[:, None] == g) & (q_camera[:, None] == g_camera)
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)[~junk.any(axis=1)]
    return _curve(first, ranks) if (first >= 0).any() else np.zeros(ranks)


@cmc.mutant("The curve is added up twice: shares of `<=` are cumulative already.")
def added_up_twice(distances, q, g, q_camera, g_camera, ranks):
    return cmc_reference(distances, q, g, q_camera, g_camera, ranks).cumsum()


@cmc.mutant("That is rank 1 alone, one number; give the curve for the first `ranks` places.")
def rank_one_alone(distances, q, g, q_camera, g_camera, ranks):
    return cmc_reference(distances, q, g, q_camera, g_camera, ranks)[0]


@cmc.mutant(
    "`np.sort` gives the distances in order. The numbers of the pictures in that order are "
    "`np.argsort`.",
    raises=True,
)
def sort_for_argsort(distances, q, g, q_camera, g_camera, ranks):
    first = []
    for i, order in enumerate(np.sort(distances, axis=1)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))[order]]
        places = np.flatnonzero(g[order] == q[i])
        first.append(places[0] if len(places) else -1)
    return _curve(np.array(first), ranks)


@cmc.mutant(
    "`and` asks for one truth value, and an array has many. `&` goes element by element, "
    "with each comparison in brackets.",
    raises=True,
)
def pythons_and(distances, q, g, q_camera, g_camera, ranks):
    junk = [(g == one) and (g_camera == camera) for one, camera in zip(q, q_camera, strict=True)]
    return _curve(np.array(junk), ranks)


@cmc.mutant(
    "A first match may stand beyond the first `ranks` places, where your curve has no "
    "number. Such a query counts among the queries, with a 0 everywhere.",
    raises=True,
)
def match_beyond_the_curve(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)
    first, at = first[first >= 0], np.zeros(ranks)
    for place in first:
        at[place] += 1
    return at.cumsum() / len(first)


@cmc.mutant(
    "Queries whose match stands beyond the first `ranks` places are left out of your mean. "
    "Only those without any match are."
)
def late_matches_left_out(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)
    return _curve(np.where(first < ranks, first, -1), ranks)


@cmc.mutant(
    "The curve has a number for each picture of the gallery here; give its first `ranks` numbers."
)
def a_number_for_each_picture(distances, q, g, q_camera, g_camera, ranks):
    return cmc_reference(distances, q, g, q_camera, g_camera, len(g))


@cmc.mutant(
    "You averaged over the places, for each query. The curve averages over the queries, for "
    "each place: `axis=0`."
)
def averaged_over_places(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)
    return (first[first >= 0][:, None] <= np.arange(ranks)).mean(axis=1)
