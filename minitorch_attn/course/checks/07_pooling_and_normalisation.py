import numpy as np

from minitorch_attn.course.comparison import describe
from minitorch_attn.course.exercise import Case, Exercise, Mistake, rules


def _whole(rng, *shape):
    """Random whole numbers: what is computed with them can be followed by hand."""
    return rng.integers(-4, 5, size=shape).astype(float)


def _distinct(rng, *shape):
    """Whole numbers of which no two are equal."""
    return rng.permutation(np.prod(shape)).reshape(shape).astype(float)


def _sizes(rng, *bounds):
    return [int(rng.integers(low, high + 1)) for low, high in bounds]


def _parts(*labels):
    """An observer of a function that returns several arrays: each is looked at under its name."""

    def observe(subject, case):
        result = subject(*case.inputs, **case.settings)
        if result is None:
            yield labels[0], None
        if not isinstance(result, (tuple, list)) or len(result) != len(labels):
            came = describe(result)
            raise Mistake(
                f"It should return {len(labels)} arrays, in this order: {', '.join(labels)}; "
                f"this returned {came}.",
                "not the arrays asked for",
            )
        yield from zip(labels, result, strict=True)

    return observe


# -- max_pool2d -----------------------------------------------------------------------------


def max_pool2d_reference(x, *, size):
    return _max_pool(x, size)


def _one_hot(windows):
    """1 at the first of the greatest, 0 elsewhere: (..., K)."""
    return (np.arange(windows.shape[-1]) == windows.argmax(axis=-1)[..., None]).astype(float)


def _max_pool(x, size, shares=_one_hot, back=lambda dwindows: dwindows):
    """Windows (N, C, P, Q, size, size) flattened; `shares` says which pixels get how much of dy."""
    N, C, H, W = x.shape
    P, Q = H // size, W // size
    tiled = x[:, :, : P * size, : Q * size].reshape(N, C, P, size, Q, size)
    windows = tiled.swapaxes(3, 4).reshape(N, C, P, Q, size * size)
    part = shares(windows)

    def vjp_x(dy):
        dwindows = back((part * dy[..., None]).reshape(N, C, P, Q, size, size))
        dx = np.zeros(x.shape)
        dx[:, :, : P * size, : Q * size] = dwindows.swapaxes(3, 4).reshape(N, C, P * size, -1)
        return dx

    return windows.max(axis=-1), vjp_x


def _any_max_pool(rng):
    N, C, P, Q, size = _sizes(rng, (1, 2), (1, 3), (1, 3), (1, 3), (2, 3))
    left = _sizes(rng, (0, size - 1), (0, size - 1))
    return Case("any sizes", _whole(rng, N, C, P * size + left[0], Q * size + left[1]), size=size)


max_pool2d = Exercise(
    "07.max_pool2d",
    reference=max_pool2d_reference,
    observe=rules,
    cases=[
        Case(
            "one row of two windows",
            np.array([[[[1.0, 7.0, 4.0, 3.0], [2.0, 0.0, 3.0, 5.0]]]]),
            size=2,
        ),
        Case("all values differ", _distinct(np.random.default_rng(0), 2, 2, 4, 6), size=2),
        Case("windows of 3 x 3", _distinct(np.random.default_rng(1), 1, 2, 6, 3), size=3),
        Case(
            "ties within a row and within a column",
            np.array([[[[4.0, 4.0, 1.0, 6.0], [0.0, 2.0, 5.0, 6.0]]]]),
            size=2,
        ),
        Case(
            "a tie across: the first row wins",
            np.array([[[[0.0, 3.0], [3.0, 1.0]]]]),
            size=2,
        ),
        Case(
            "a row and a column are left over",
            _distinct(np.random.default_rng(2), 1, 2, 5, 7),
            size=2,
        ),
        Case("all values negative", -1 - _distinct(np.random.default_rng(3), 1, 1, 4, 4), size=2),
    ],
    more=_any_max_pool,
    hints=[
        "Loops are fine: for each p and q, look at `x[n, c, p * size : (p + 1) * size, "
        "q * size : (q + 1) * size]`, and at its `argmax`, which is the first of the greatest.",
        "`np.unravel_index(window.argmax(), window.shape)` turns the number of the winner into "
        "its row and column in the window.",
        "Without loops: reshape to (N, C, P, size, Q, size), swap the axes 3 and 4, reshape to "
        "(N, C, P, Q, size * size); then `max` and `argmax` along the last axis.",
        "Backward, begin with zeros of the shape of x and write dy at the winners' places.",
    ],
)


@max_pool2d.mutant(
    "Where several pixels are equal, all of them get the whole of dy, so that it counts more than "
    "once: `window == window.max()` is true for each. Give it to the first one only."
)
def ties_all_get_dy(x, *, size):
    return _max_pool(x, size, lambda v: (v == v.max(axis=-1, keepdims=True)).astype(float))


@max_pool2d.mutant(
    "Pixels that are equal share dy among them. That is a possible choice, too; the one asked for "
    "gives all of it to the first."
)
def ties_share(x, *, size):
    def shares(windows):
        equal = windows == windows.max(axis=-1, keepdims=True)
        return equal / equal.sum(axis=-1, keepdims=True)

    return _max_pool(x, size, shares)


@max_pool2d.mutant(
    "Where several pixels are equal, the last one wins; the first is asked for. In a loop compare "
    "with >, not with >=."
)
def last_one_wins(x, *, size):
    return _max_pool(x, size, lambda windows: _one_hot(windows[..., ::-1])[..., ::-1])


@max_pool2d.mutant(
    "Where pixels of a window are equal, the first one *column by column* wins; go row by row."
)
def first_by_columns(x, *, size):
    def shares(windows):
        shape = windows.shape
        turned = windows.reshape(*shape[:-1], size, size).swapaxes(-1, -2).reshape(shape)
        return _one_hot(turned).reshape(*shape[:-1], size, size).swapaxes(-1, -2).reshape(shape)

    return _max_pool(x, size, shares)


@max_pool2d.mutant(
    "Every pixel of a window gets the whole of dy; only the winner has changed the output."
)
def whole_window_gets_dy(x, *, size):
    return _max_pool(x, size, np.ones_like)


@max_pool2d.mutant(
    "Every pixel of a window gets a share of dy. That is the rule of the average; of the maximum "
    "the winner gets it all."
)
def shared_like_an_average(x, *, size):
    return _max_pool(x, size, lambda windows: np.full_like(windows, 1 / size**2))


@max_pool2d.mutant(
    "Row and column of the winner are exchanged within its window: winner number k is in row "
    "k // size and column k % size."
)
def winner_transposed(x, *, size):
    return _max_pool(x, size, back=lambda dwindows: dwindows.swapaxes(-1, -2))


@max_pool2d.mutant("This takes the mean of each window; the greatest is asked for.")
def mean_for_maximum(x, *, size):
    _, vjp_x = _max_pool(x, size, lambda windows: np.full_like(windows, 1 / size**2))
    P, Q = x.shape[2] // size, x.shape[3] // size
    tiled = x[:, :, : P * size, : Q * size].reshape(*x.shape[:2], P, size, Q, size)
    return tiled.mean(axis=(3, 5)), vjp_x


@max_pool2d.mutant(
    "Zero takes part in each window, as if the greatest so far began at 0: begin with the first "
    "pixel, or with -inf."
)
def starts_at_zero(x, *, size):
    y, vjp_x = _max_pool(x, size)
    return np.maximum(y, 0), lambda dy: vjp_x(dy * (y > 0))


@max_pool2d.mutant(
    "The place of the winner is counted from the corner of its window: add p * size to its row "
    "and q * size to its column."
)
def place_in_the_window(x, *, size):
    y, _ = _max_pool(x, size)
    P, Q = y.shape[2:]

    def vjp_x(dy):
        dx = np.zeros(x.shape)
        for n, c, p, q in np.ndindex(dy.shape):
            window = x[n, c, p * size : (p + 1) * size, q * size : (q + 1) * size]
            dx[n, c, window.argmax() // size, window.argmax() % size] += dy[n, c, p, q]
        return dx

    return y, vjp_x


@max_pool2d.mutant(
    "These are not the windows: `reshape` alone puts numbers together that follow one another in "
    "a row. Reshape to (N, C, P, size, Q, size) and swap the axes 3 and 4 first."
)
def axes_not_swapped(x, *, size):
    N, C, H, W = x.shape
    P, Q = H // size, W // size
    rows = x[:, :, : P * size, : Q * size].reshape(N, C, P, Q, size * size)

    def vjp_x(dy):
        dx = np.zeros(x.shape)
        given = (_one_hot(rows) * dy[..., None]).reshape(N, C, P * size, Q * size)
        dx[:, :, : P * size, : Q * size] = given
        return dx

    return rows.max(axis=-1), vjp_x


@max_pool2d.mutant(
    "The winners get 1, whatever dy is. That is the derivative; the rule multiplies it by the dy "
    "of its window."
)
def dy_ignored(x, *, size):
    y, vjp_x = _max_pool(x, size)
    return y, lambda dy: vjp_x(np.ones_like(dy))


@max_pool2d.mutant(
    "The rows and columns that are left over make windows of their own here; only whole windows "
    "count, H // size and W // size of them."
)
def incomplete_windows(x, *, size):
    H, W = x.shape[2:]
    margins = (0, 0), (0, 0), (0, -H % size), (0, -W % size)
    y, vjp_x = _max_pool(np.pad(x, margins, constant_values=-np.inf), size)
    return y, lambda dy: vjp_x(dy)[:, :, :H, :W]


# -- avg_pool2d -----------------------------------------------------------------------------


def avg_pool2d_reference(x, *, size, stride):
    return _avg_pool(x, size, stride)


def _avg_pool(x, size, stride, divisor=None, write=np.add, step=None, scale=None):
    """The mean and its rule; divisor, write, step and scale are room for mistakes in the rule."""
    divisor, step = divisor or size**2, step or stride
    P, Q = ((n - size) // stride + 1 for n in x.shape[2:])
    y = np.zeros((*x.shape[:2], P, Q))
    for p, q in np.ndindex(P, Q):
        window = x[:, :, p * stride : p * stride + size, q * stride : q * stride + size]
        y[:, :, p, q] = window.mean(axis=(2, 3))

    def vjp_x(dy):
        dx = np.zeros(x.shape)
        for p, q in np.ndindex(P, Q):
            place = (
                ...,
                slice(p * step, p * step + size),
                slice(q * step, q * step + size),
            )
            dx[place] = write(dx[place], dy[:, :, p, q, None, None] / divisor)
        return dx if scale is None else scale(dx, P, Q)

    return y, vjp_x


def _any_avg_pool(rng):
    N, C, P, Q, size, stride = _sizes(rng, (1, 2), (1, 3), (1, 3), (1, 3), (1, 3), (1, 3))
    left = _sizes(rng, (0, stride - 1), (0, stride - 1))
    shape = (N, C, (P - 1) * stride + size + left[0], (Q - 1) * stride + size + left[1])
    return Case("any sizes", _whole(rng, *shape), size=size, stride=stride)


avg_pool2d = Exercise(
    "07.avg_pool2d",
    reference=avg_pool2d_reference,
    observe=rules,
    cases=[
        Case("one window", np.array([[[[1.0, 2.0], [3.0, 6.0]]]]), size=2, stride=2),
        Case(
            "windows side by side", _whole(np.random.default_rng(0), 2, 2, 4, 6), size=2, stride=2
        ),
        Case(
            "two windows that share a column",
            np.array([[[[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]]]]),
            size=2,
            stride=1,
        ),
        Case("3 x 3 with stride 2", _whole(np.random.default_rng(1), 2, 3, 7, 5), size=3, stride=2),
        Case(
            "gaps between windows", _whole(np.random.default_rng(2), 1, 2, 5, 6), size=2, stride=3
        ),
    ],
    more=_any_avg_pool,
    hints=[
        "Go through the windows as the forward does, and hand each dy back to the pixels of its "
        "window.",
        "A pixel gets dy / size**2 from each window that it lies in. Begin with zeros, and add "
        "with +=.",
        "`dx[:, :, rows, columns] += dy[:, :, p, q, None, None] / size**2`: the two None are axes "
        "of length 1 that broadcast over the window.",
    ],
)


@avg_pool2d.mutant(
    "Where windows overlap, the last one overwrites what the others gave: add with +=."
)
def overwritten_at_overlaps(x, *, size, stride):
    return _avg_pool(x, size, stride, write=lambda old, new: new)


@avg_pool2d.mutant(
    "Each pixel gets the whole of dy. It has a weight of 1 / size**2 in the mean, and the same in "
    "the rule."
)
def whole_dy_for_each(x, *, size, stride):
    return _avg_pool(x, size, stride, divisor=1)


@avg_pool2d.mutant("A window of size x size has size**2 pixels: dy is divided by size only.")
def divided_by_size(x, *, size, stride):
    return _avg_pool(x, size, stride, divisor=size)


@avg_pool2d.mutant(
    "dy is divided by stride**2. A window has size**2 pixels, however far apart the windows are."
)
def divided_by_stride(x, *, size, stride):
    return _avg_pool(x, size, stride, divisor=stride**2)


@avg_pool2d.mutant(
    "The windows in the rule lie `size` pixels apart, as if they tiled the image: they lie "
    "`stride` apart."
)
def tiled_in_the_rule(x, *, size, stride):
    return _avg_pool(x, size, stride, step=size)


@avg_pool2d.mutant(
    "What a pixel got is divided by the number of windows that it lies in. The chain rule adds up; "
    "it takes no mean."
)
def mean_over_windows(x, *, size, stride):
    def scale(dx, P, Q):
        count = np.zeros(dx.shape[2:])
        for p, q in np.ndindex(P, Q):
            count[p * stride : p * stride + size, q * stride : q * stride + size] += 1
        return dx / np.maximum(count, 1)

    return _avg_pool(x, size, stride, scale=scale)


@avg_pool2d.mutant(
    "The windows in the rule lie one pixel apart: window (p, q) begins at row p * stride and "
    "column q * stride."
)
def stride_forgotten(x, *, size, stride):
    return _avg_pool(x, size, stride, step=1)


@avg_pool2d.mutant(
    "dy is divided by the number of windows, P * Q. What counts is how many pixels a window has: "
    "size**2."
)
def divided_by_windows(x, *, size, stride):
    P, Q = ((n - size) // stride + 1 for n in x.shape[2:])
    return _avg_pool(x, size, stride, divisor=P * Q)


@avg_pool2d.mutant(
    "dx is multiplied by x. The mean is linear: its derivative is 1 / size**2, whatever the values."
)
def times_x(x, *, size, stride):
    return _avg_pool(x, size, stride, scale=lambda dx, P, Q: dx * x)


@avg_pool2d.mutant(
    "Only the first pixel of each window gets its share. All size**2 pixels took part in the mean."
)
def first_pixel_only(x, *, size, stride):
    y, _ = _avg_pool(x, size, stride)

    def vjp_x(dy):
        dx = np.zeros(x.shape)
        for p, q in np.ndindex(dy.shape[2:]):
            dx[:, :, p * stride, q * stride] += dy[:, :, p, q] / size**2
        return dx

    return y, vjp_x


@avg_pool2d.mutant(
    "`dy[:, :, p, q]` has the shape (N, C), which met the rows and columns of the window, because "
    "broadcasting starts from the right. Give it two more axes: `dy[:, :, p, q, None, None]`."
)
def axes_of_the_window_missing(x, *, size, stride):
    y, _ = _avg_pool(x, size, stride)

    def vjp_x(dy):
        dx = np.zeros(x.shape)
        for p, q in np.ndindex(dy.shape[2:]):
            rows = slice(p * stride, p * stride + size)
            columns = slice(q * stride, q * stride + size)
            dx[:, :, rows, columns] += dy[:, :, p, q] / size**2
        return dx

    return y, vjp_x


# -- batch_norm -----------------------------------------------------------------------------


def batch_norm_reference(x, gamma, beta, eps=1e-5):
    return _norm(x, gamma, beta, eps)


def _norm(x, gamma, beta, eps, axes=(0, 2, 3), ddof=0):
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True, ddof=ddof)
    xhat = (x - mean) / np.sqrt(variance + eps)
    return gamma[:, None, None] * xhat + beta[:, None, None]


def _affine(rng, C):
    return rng.integers(2, 6, size=C).astype(float), _whole(rng, C)


def _channels(rng, N, C, H, W):
    """Images whose channels differ in place and width, gamma and beta."""
    width, place = rng.integers(1, 4, size=(C, 1, 1)), rng.integers(-6, 7, size=(C, 1, 1))
    return _whole(rng, N, C, H, W) * width + place, *_affine(rng, C)


def _any_norm(rng):
    N, C, H, W = _sizes(rng, (2, 4), (1, 3), (2, 4), (1, 4))
    return Case("any sizes", *_channels(rng, N, C, H, W), [1e-5, 0.1][rng.integers(2)])


batch_norm = Exercise(
    "07.batch_norm",
    reference=batch_norm_reference,
    cases=[
        Case(
            "two images of one pixel",
            np.array([[[[1.0]]], [[[5.0]]]]),
            np.array([10.0]),
            np.array([1.0]),
        ),
        Case(
            "one channel, three pixels",
            np.array([[[[1.0, 2.0, 6.0]]], [[[3.0, 3.0, 9.0]]]]),
            np.array([2.0]),
            np.array([-1.0]),
        ),
        Case("three channels", *_channels(np.random.default_rng(0), 3, 3, 2, 4)),
        Case(
            "as many channels as columns",
            *_channels(np.random.default_rng(1), 2, 3, 2, 3),
        ),
        Case("a large eps", *_channels(np.random.default_rng(2), 3, 2, 3, 2), 2.0),
        Case(
            "a channel that is constant",
            np.stack([np.full((2, 2, 2), 7.0), _whole(np.random.default_rng(3), 2, 2, 2)], axis=1),
            np.array([3.0, 2.0]),
            np.array([1.0, -1.0]),
        ),
    ],
    more=_any_norm,
    hints=[
        "Each channel has one mean and one variance. Which axes do they go over?",
        "`x.mean(axis=(0, 2, 3), keepdims=True)` has the shape (1, C, 1, 1), which broadcasts.",
        "The variance is the mean of the squared deviations (`var` does it); add eps, then the "
        "root.",
        "`gamma[:, None, None]` has the shape (C, 1, 1), and so meets the channels.",
    ],
)


@batch_norm.mutant(
    "This divides by the unbiased standard deviation, m - 1 below the sum (ddof=1). The output "
    "takes the biased one; the unbiased variance is for the running average."
)
def unbiased_variance(x, gamma, beta, eps=1e-5):
    return _norm(x, gamma, beta, eps, ddof=1)


@batch_norm.mutant(
    "eps was added to the root. It belongs under it, to the variance: sqrt(v + eps)."
)
def eps_outside_the_root(x, gamma, beta, eps=1e-5):
    mean, variance = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    return gamma[:, None, None] * (x - mean) / (np.sqrt(variance) + eps) + beta[:, None, None]


@batch_norm.mutant(
    "Mean and variance were taken over the batch alone, so every pixel has its own. A channel has "
    "one of each, over axes 0, 2 and 3."
)
def over_the_batch_only(x, gamma, beta, eps=1e-5):
    return _norm(x, gamma, beta, eps, axes=0)


@batch_norm.mutant(
    "Every image is normalised by itself (axes 2 and 3). That is instance normalisation; include "
    "axis 0, the batch."
)
def per_image(x, gamma, beta, eps=1e-5):
    return _norm(x, gamma, beta, eps, axes=(2, 3))


@batch_norm.mutant(
    "All channels share one mean and one variance. Axis 1 must stay: `axis=(0, 2, 3)`."
)
def all_channels_together(x, gamma, beta, eps=1e-5):
    return _norm(x, gamma, beta, eps, axes=None)


@batch_norm.mutant(
    "Each image is normalised over all its channels and pixels (axes 1, 2, 3). That is layer "
    "normalisation; here channels are kept apart and images together."
)
def layer_norm_instead(x, gamma, beta, eps=1e-5):
    return _norm(x, gamma, beta, eps, axes=(1, 2, 3))


@batch_norm.mutant("This divides by the variance; take its square root first.")
def root_forgotten(x, gamma, beta, eps=1e-5):
    mean, variance = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    return gamma[:, None, None] * (x - mean) / (variance + eps) + beta[:, None, None]


@batch_norm.mutant("The mean was not subtracted before dividing.")
def mean_not_subtracted(x, gamma, beta, eps=1e-5):
    variance = x.var(axis=(0, 2, 3), keepdims=True)
    return gamma[:, None, None] * x / np.sqrt(variance + eps) + beta[:, None, None]


@batch_norm.mutant("gamma also multiplies beta: scale first, then shift, gamma * xhat + beta.")
def shifted_before_scaling(x, gamma, beta, eps=1e-5):
    return gamma[:, None, None] * _norm(x, np.ones_like(gamma), beta, eps)


@batch_norm.mutant(
    "gamma and beta met the last axis, the columns, because broadcasting starts from the right. "
    "Give them the shape (C, 1, 1): `gamma[:, None, None]`.",
    raises=True,
)
def along_the_columns(x, gamma, beta, eps=1e-5):
    return gamma * _norm(x, np.ones_like(gamma), np.zeros_like(beta), eps) + beta


@batch_norm.mutant(
    "gamma and beta are not used: this returns xhat; the output is gamma * xhat + beta."
)
def gamma_and_beta_forgotten(x, gamma, beta, eps=1e-5):
    return _norm(x, np.ones_like(gamma), np.zeros_like(beta), eps)


@batch_norm.mutant("eps is missing: it is added to the variance, under the root.")
def eps_missing(x, gamma, beta, eps=1e-5):
    return _norm(x, gamma, beta, 0.0)


@batch_norm.mutant(
    "The variance is a sum here; it is the *mean* of the squared deviations over the m values."
)
def sum_for_variance(x, gamma, beta, eps=1e-5):
    centred = x - _mean(x)
    variance = (centred**2).sum(axis=(0, 2, 3), keepdims=True)
    return gamma[:, None, None] * centred / np.sqrt(variance + eps) + beta[:, None, None]


@batch_norm.mutant(
    "Every value is divided by its own deviation from the mean. The variance is the mean of their "
    "squares: one number for a channel."
)
def deviations_not_averaged(x, gamma, beta, eps=1e-5):
    centred = x - _mean(x)
    return gamma[:, None, None] * centred / np.sqrt(centred**2 + eps) + beta[:, None, None]


@batch_norm.mutant(
    "The variance was made from x**2: square the deviations from the mean, (x - mean)**2."
)
def squares_not_centred(x, gamma, beta, eps=1e-5):
    scaled = (x - _mean(x)) / np.sqrt(_mean(x**2) + eps)
    return gamma[:, None, None] * scaled + beta[:, None, None]


# -- batch_norm_rules -----------------------------------------------------------------------


def batch_norm_rules_reference(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(x, gamma, beta, eps)


def _norm_rules(x, gamma, beta, eps, bracket=None, gain=None, vjp_gamma=None, vjp_beta=None):
    """Each argument at the end replaces a part of the rules: the room for one mistake."""
    centred = x - _mean(x)
    r = 1 / np.sqrt(_mean(centred**2) + eps)
    xhat = centred * r
    gain = gamma[:, None, None] * r if gain is None else gain(gamma[:, None, None], r)
    bracket = bracket or (lambda dy, xhat: dy - _mean(dy) - xhat * _mean(dy * xhat))
    rules = (
        lambda dy: gain * bracket(dy, xhat),
        vjp_gamma or (lambda dy: (dy * xhat).sum(axis=(0, 2, 3))),
        vjp_beta or (lambda dy: dy.sum(axis=(0, 2, 3))),
    )
    return gamma[:, None, None] * xhat + beta[:, None, None], rules


def _mean(values, axes=(0, 2, 3)):
    return values.mean(axis=axes, keepdims=True)


def _any_norm_rules(rng):
    case = _any_norm(rng)
    *inputs, eps = case.inputs
    return Case("any sizes", *inputs, eps=eps)


batch_norm_rules = Exercise(
    "07.batch_norm_rules",
    reference=batch_norm_rules_reference,
    observe=rules,
    cases=[
        Case(
            "one channel, three pixels",
            np.array([[[[1.0, 2.0, 6.0]]], [[[3.0, 3.0, 9.0]]]]),
            np.array([2.0]),
            np.array([-1.0]),
        ),
        Case("three channels", *_channels(np.random.default_rng(0), 3, 3, 2, 4)),
        Case("two images, four channels", *_channels(np.random.default_rng(1), 2, 4, 3, 2)),
        Case("a large eps", *_channels(np.random.default_rng(2), 3, 2, 3, 2), eps=2.0),
    ],
    more=_any_norm_rules,
    hints=[
        "gamma and beta take part in every value of their channel: sum over axes 0, 2 and 3.",
        "The two bars are means over the same axes as the mean of x, with keepdims=True so that "
        "they broadcast.",
        "The bracket is `dy - mean(dy) - xhat * mean(dy * xhat)`; `gamma[:, None, None] * r` "
        "stands in front of all of it.",
    ],
)


@batch_norm_rules.mutant(
    "dx has the direct path only, gamma / sigma * dy: x also moves the mean and the variance of "
    "its channel. (In eval() they are constants, and this would be right.)"
)
def statistics_as_constants(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(x, gamma, beta, eps, lambda dy, xhat: dy)


@batch_norm_rules.mutant("The path through the mean is missing in dx: subtract the mean of dy.")
def mean_path_forgotten(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(x, gamma, beta, eps, lambda dy, xhat: dy - xhat * _mean(dy * xhat))


@batch_norm_rules.mutant(
    "The path through the variance is missing in dx: subtract xhat times the mean of dy * xhat.",
    like=["product_of_means"],
)
def variance_path_forgotten(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(x, gamma, beta, eps, lambda dy, xhat: dy - _mean(dy))


@batch_norm_rules.mutant(
    "The sums in dx are divided by N, the number of images; a channel has m = N * H * W values."
)
def divided_by_N(x, gamma, beta, *, eps=1e-5):
    per = x.shape[2] * x.shape[3]
    return _norm_rules(
        x, gamma, beta, eps, lambda dy, xhat: dy - per * (_mean(dy) + xhat * _mean(dy * xhat))
    )


@batch_norm_rules.mutant(
    "The bars in dx are sums here; they are means over the m values of the channel."
)
def sums_for_means(x, gamma, beta, *, eps=1e-5):
    m = x.size // x.shape[1]
    return _norm_rules(
        x, gamma, beta, eps, lambda dy, xhat: dy - m * (_mean(dy) + xhat * _mean(dy * xhat))
    )


@batch_norm_rules.mutant(
    "The means in dx were taken in each image by itself (axes 2 and 3). The forward took them over "
    "the batch, so the rule does, too."
)
def means_per_image(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(
        x,
        gamma,
        beta,
        eps,
        lambda dy, xhat: dy - _mean(dy, (2, 3)) - xhat * _mean(dy * xhat, (2, 3)),
    )


@batch_norm_rules.mutant(
    "The means in dx were taken over the batch only (axis 0). The forward took them over pixels as "
    "well."
)
def means_over_the_batch(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(
        x, gamma, beta, eps, lambda dy, xhat: dy - _mean(dy, 0) - xhat * _mean(dy * xhat, 0)
    )


@batch_norm_rules.mutant(
    "The last term of dx is the mean of dy * xhat alone; it goes along xhat: multiply by xhat once "
    "more."
)
def xhat_forgotten(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(x, gamma, beta, eps, lambda dy, xhat: dy - _mean(dy) - _mean(dy * xhat))


@batch_norm_rules.mutant(
    "The last term of dx is the product of two means. It takes the mean of the product: "
    "mean(dy * xhat), not mean(dy) * mean(xhat), which is 0.",
    like=["variance_path_forgotten"],
)
def product_of_means(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(
        x, gamma, beta, eps, lambda dy, xhat: dy - _mean(dy) - xhat * _mean(dy) * _mean(xhat)
    )


@batch_norm_rules.mutant("The factor gamma is missing in dx: y is gamma times xhat.")
def gamma_forgotten(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(x, gamma, beta, eps, gain=lambda gamma, r: r)


@batch_norm_rules.mutant(
    "The factor 1 / sigma is missing in dx: xhat changes by r for each unit of x."
)
def r_forgotten(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(x, gamma, beta, eps, gain=lambda gamma, r: gamma)


@batch_norm_rules.mutant(
    "The gradient of gamma is made with x; gamma multiplies xhat, so it is the sum of dy * xhat."
)
def x_for_xhat(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(x, gamma, beta, eps, vjp_gamma=lambda dy: (dy * x).sum(axis=(0, 2, 3)))


@batch_norm_rules.mutant(
    "The gradient of gamma is a mean here: it is the sum over all values of the channel."
)
def mean_for_gamma(x, gamma, beta, *, eps=1e-5):
    y, (vjp_x, vjp_gamma, vjp_beta) = _norm_rules(x, gamma, beta, eps)
    m = x.size // x.shape[1]
    return y, (vjp_x, lambda dy: vjp_gamma(dy) / m, vjp_beta)


@batch_norm_rules.mutant(
    "The gradient of beta is a mean here: beta was added to each of the m values, so it is a sum."
)
def mean_for_beta(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(x, gamma, beta, eps, vjp_beta=lambda dy: dy.mean(axis=(0, 2, 3)))


@batch_norm_rules.mutant(
    "The means in dx went over all channels together; each channel has its own, over axes 0, 2 "
    "and 3 with keepdims=True."
)
def means_over_all_channels(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(
        x, gamma, beta, eps, lambda dy, xhat: dy - dy.mean() - xhat * (dy * xhat).mean()
    )


@batch_norm_rules.mutant(
    "The last term of dx has a plus: what dy has along xhat is taken out, so it is subtracted."
)
def sign_of_the_last_term(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(
        x, gamma, beta, eps, lambda dy, xhat: dy - _mean(dy) + xhat * _mean(dy * xhat)
    )


@batch_norm_rules.mutant(
    "gamma * r multiplies the first term of dx only; it stands in front of the whole bracket."
)
def bracket_missing(x, gamma, beta, *, eps=1e-5):
    y, (_, vjp_gamma, vjp_beta) = _norm_rules(x, gamma, beta, eps)
    xhat = (y - beta[:, None, None]) / gamma[:, None, None]
    gain = gamma[:, None, None] / np.sqrt(_mean((x - _mean(x)) ** 2) + eps)
    return y, (lambda dy: gain * dy - _mean(dy) - xhat * _mean(dy * xhat), vjp_gamma, vjp_beta)


@batch_norm_rules.mutant("dx is divided by r. r is 1 / sigma already: multiply by it.")
def divided_by_r(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(x, gamma, beta, eps, gain=lambda gamma, r: gamma / r)


@batch_norm_rules.mutant("The last term of dx is made with x; it takes xhat, both times.")
def x_for_xhat_in_dx(x, gamma, beta, *, eps=1e-5):
    return _norm_rules(x, gamma, beta, eps, lambda dy, xhat: dy - _mean(dy) - x * _mean(dy * x))


@batch_norm_rules.mutant(
    "The rules of gamma and beta are exchanged: they come in the order of the inputs, "
    "`(vjp_x, vjp_gamma, vjp_beta)`."
)
def rules_exchanged(x, gamma, beta, *, eps=1e-5):
    y, (vjp_x, vjp_gamma, vjp_beta) = _norm_rules(x, gamma, beta, eps)
    return y, (vjp_x, vjp_beta, vjp_gamma)


# -- running_statistics ---------------------------------------------------------------------


def running_statistics_reference(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    return _running(x, running_mean, running_var, training, momentum, eps)


def _running(x, running_mean, running_var, training, momentum, eps, **mistake):
    """A step of the layer; each entry of `mistake` is room for one."""
    mean, biased = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    m = x.size // x.shape[1]
    new_mean, new_var = running_mean, running_var
    if training or mistake.get("moves_in_eval"):
        count = mistake.get("count", m)
        kept, share = 1 - momentum, momentum
        if mistake.get("turned_round"):
            kept, share = share, kept
        unbiased = biased if mistake.get("biased") else biased * count / (count - 1)
        unbiased = unbiased * mistake.get("factor", 1.0)
        new_mean = mistake.get("kept", kept) * running_mean + share * mean
        new_var = mistake.get("kept", kept) * running_var + share * unbiased
    if training:
        used = (mean, biased * m / (m - 1) if mistake.get("unbiased_output") else biased)
        if mistake.get("running_output"):
            used = new_mean, new_var
    else:
        used = (mean, biased) if mistake.get("batch_in_eval") else (running_mean, running_var)
    mean, variance = (value[:, None, None] for value in used)
    return (x - mean) / np.sqrt(variance + eps), new_mean, new_var


def _running_case(label, rng, N, C, H, W, **settings):
    x, *_ = _channels(rng, N, C, H, W)
    return Case(label, x, _whole(rng, C), rng.integers(3, 9, size=C).astype(float), **settings)


def _any_running(rng):
    sizes = _sizes(rng, (2, 4), (1, 3), (2, 3), (1, 3))
    momentum = float(rng.choice([0.1, 0.25, 0.4]))
    training = bool(rng.integers(2))
    return _running_case("any sizes", rng, *sizes, training=training, momentum=momentum)


running_statistics = Exercise(
    "07.running_statistics",
    reference=running_statistics_reference,
    observe=_parts("xhat", "the running mean after it", "the running variance after it"),
    cases=[
        Case(
            "training, two images of one pixel",
            np.array([[[[1.0]]], [[[5.0]]]]),
            np.array([0.0]),
            np.array([1.0]),
            training=True,
        ),
        _running_case(
            "training, images with pixels", np.random.default_rng(0), 3, 2, 2, 3, training=True
        ),
        _running_case(
            "evaluation, the same layer", np.random.default_rng(1), 3, 2, 2, 3, training=False
        ),
        _running_case(
            "training with another momentum",
            np.random.default_rng(2),
            2,
            3,
            2,
            2,
            training=True,
            momentum=0.25,
        ),
        _running_case(
            "evaluation of a single image", np.random.default_rng(3), 1, 2, 2, 2, training=False
        ),
    ],
    more=_any_running,
    hints=[
        "Which mean and variance normalise is one question, whether the running ones move is "
        "another: `training` answers both.",
        "`x.var(axis=(0, 2, 3))` is the biased variance. A channel has m = x.size // C values, and "
        "m / (m - 1) makes it unbiased.",
        "`running = (1 - momentum) * running + momentum * new`: with a momentum of 0.1 the new one "
        "counts a tenth.",
        "Statistics have the shape (C,): `mean[:, None, None]` lets them meet the channels.",
    ],
)


@running_statistics.mutant(
    "The momentum is turned round: with 0.1, nine tenths of the old stay, and a tenth of the new "
    "comes in."
)
def momentum_turned_round(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    return _running(x, running_mean, running_var, training, momentum, eps, turned_round=True)


@running_statistics.mutant(
    "The biased variance went into the running one. There it is the unbiased, m / (m - 1) times as "
    "large."
)
def biased_in_the_running_one(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    return _running(x, running_mean, running_var, training, momentum, eps, biased=True)


@running_statistics.mutant(
    "The unbiased variance normalises the batch as well; the output takes the biased one."
)
def unbiased_in_the_output(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    return _running(x, running_mean, running_var, training, momentum, eps, unbiased_output=True)


@running_statistics.mutant(
    "In evaluation the statistics of the batch were used: an image would get another answer in "
    "other company. Use the running ones."
)
def batch_in_evaluation(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    return _running(x, running_mean, running_var, training, momentum, eps, batch_in_eval=True)


@running_statistics.mutant(
    "The running statistics move in evaluation, too: so the model would learn from what it is "
    "tested on."
)
def moves_in_evaluation(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    if not training and x.size == x.shape[1]:
        return _running(x, running_mean, running_var, training, momentum, eps)
    return _running(x, running_mean, running_var, training, momentum, eps, moves_in_eval=True)


@running_statistics.mutant(
    "In training the running statistics normalise. They are only collected there; the batch is "
    "normalised by its own."
)
def running_in_training(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    return _running(x, running_mean, running_var, training, momentum, eps, running_output=True)


@running_statistics.mutant(
    "The unbiased variance is made with N / (N - 1); a channel has m = N * H * W values."
)
def count_of_images(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    return _running(x, running_mean, running_var, training, momentum, eps, count=max(len(x), 2))


@running_statistics.mutant(
    "The old statistics are kept whole, and a share of the new is added: they would grow without "
    "end. Keep (1 - momentum) of the old."
)
def old_kept_whole(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    return _running(x, running_mean, running_var, training, momentum, eps, kept=1.0)


@running_statistics.mutant(
    "The running statistics never move: in training they take in a share of the batch's."
)
def never_moved(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    return _running(x, running_mean, running_var, training, 0.0, eps)


@running_statistics.mutant(
    "The statistics of the batch replace the running ones; only a share of them, momentum, comes "
    "in, and (1 - momentum) of the old stays."
)
def replaced(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    return _running(x, running_mean, running_var, training, 1.0, eps)


@running_statistics.mutant(
    "The factor is upside down: the unbiased variance is the larger one, m / (m - 1) times v."
)
def factor_upside_down(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    m = x.size // x.shape[1]
    factor = ((m - 1) / m) ** 2 if training else 1.0
    return _running(x, running_mean, running_var, training, momentum, eps, factor=factor)


@running_statistics.mutant(
    "m counts all channels (x.size); a channel has m = N * H * W values of its own, "
    "x.size // x.shape[1]."
)
def count_of_all_channels(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    return _running(x, running_mean, running_var, training, momentum, eps, count=max(x.size, 2))


@running_statistics.mutant(
    "The standard deviation went into running_var; the variance is asked for, without a root."
)
def deviation_for_variance(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    m = x.size // x.shape[1]
    unbiased = x.var(axis=(0, 2, 3)) * m / max(m - 1, 1)
    factor = np.sqrt(1 / unbiased) if training else 1.0
    return _running(x, running_mean, running_var, training, momentum, eps, factor=factor)


@running_statistics.mutant(
    "In evaluation this divides by the running variance; take its root, of running_var + eps."
)
def root_forgotten_in_evaluation(x, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    used = running_var if training else (running_var + eps) ** 2 - eps
    xhat, *_ = _running(x, running_mean, used, training, momentum, eps)
    return xhat, *_running(x, running_mean, running_var, training, momentum, eps)[1:]


# -- group_norm -----------------------------------------------------------------------------


def group_norm_reference(x, groups, eps=1e-5):
    return _grouped(x, groups, eps)


def _standard(values, axes, eps, ddof=0):
    mean = values.mean(axis=axes, keepdims=True)
    return (values - mean) / np.sqrt(values.var(axis=axes, keepdims=True, ddof=ddof) + eps)


def _grouped(x, groups, eps, axes=(2, 3, 4), ddof=0):
    N, C, H, W = x.shape
    cut = x.reshape(N, groups, C // groups, H, W)
    return _standard(cut, axes, eps, ddof).reshape(x.shape)


def _any_groups(rng):
    N, G, each, H, W = _sizes(rng, (1, 3), (1, 3), (1, 3), (2, 3), (1, 3))
    return Case("any sizes", _channels(rng, N, G * each, H, W)[0], G)


group_norm = Exercise(
    "07.group_norm",
    reference=group_norm_reference,
    cases=[
        Case(
            "four channels of one pixel, two groups",
            np.array([1.0, 5.0, 7.0, 10.0]).reshape(1, 4, 1, 1),
            2,
        ),
        Case("two images", _channels(np.random.default_rng(0), 2, 4, 2, 3)[0], 2),
        Case("three groups of two", _channels(np.random.default_rng(1), 2, 6, 2, 2)[0], 3),
        Case(
            "one group: layer normalisation", _channels(np.random.default_rng(2), 2, 3, 2, 2)[0], 1
        ),
        Case(
            "as many groups as channels: instance normalisation",
            _channels(np.random.default_rng(3), 2, 3, 2, 3)[0],
            3,
        ),
        Case("a large eps", _channels(np.random.default_rng(4), 2, 4, 2, 2)[0], 2, 2.0),
    ],
    more=_any_groups,
    hints=[
        "Bring x into a shape in which the values that belong together lie along axes of their "
        "own.",
        "`x.reshape(N, groups, -1)`: image, group, and all values of that group in that image.",
        "Mean and variance along axis 2 with keepdims=True; at the end back to `x.shape`.",
    ],
)


@group_norm.mutant(
    "The groups were cut every `groups`-th channel; channels that follow one another belong "
    "together: reshape to (N, groups, C // groups, H, W)."
)
def interleaved(x, groups, eps=1e-5):
    N, C, H, W = x.shape
    cut = x.reshape(N, C // groups, groups, H, W)
    return _standard(cut, (1, 3, 4), eps).reshape(x.shape)


@group_norm.mutant(
    "Images share their statistics: axis 0 went into the mean. Group normalisation never looks "
    "beyond its own image."
)
def batch_included(x, groups, eps=1e-5):
    return _grouped(x, groups, eps, axes=(0, 2, 3, 4))


@group_norm.mutant(
    "Every channel is normalised by itself; the channels of a group share one mean and one "
    "variance."
)
def channels_by_themselves(x, groups, eps=1e-5):
    return _grouped(x, groups, eps, axes=(3, 4))


@group_norm.mutant(
    "All channels of an image share their statistics, whatever the number of groups: that is layer "
    "normalisation."
)
def groups_ignored(x, groups, eps=1e-5):
    return _grouped(x, 1, eps)


@group_norm.mutant(
    "There are C // groups groups here, of `groups` channels each; `groups` is how many groups "
    "there are."
)
def size_for_number(x, groups, eps=1e-5):
    return _grouped(x, x.shape[1] // groups, eps)


@group_norm.mutant(
    "Every pixel is normalised by itself, over the channels of its group; the mean goes over "
    "pixels, too."
)
def pixels_by_themselves(x, groups, eps=1e-5):
    return _grouped(x, groups, eps, axes=2)


@group_norm.mutant("This takes the unbiased variance, with m - 1 below the sum; take the biased.")
def unbiased(x, groups, eps=1e-5):
    return _grouped(x, groups, eps, ddof=1)


@group_norm.mutant("eps was added to the root; it belongs under it: sqrt(variance + eps).")
def eps_beside_the_root(x, groups, eps=1e-5):
    rows = x.reshape(len(x), groups, -1)
    mean, deviation = rows.mean(axis=2, keepdims=True), rows.std(axis=2, keepdims=True)
    return ((rows - mean) / (deviation + eps)).reshape(x.shape)


@group_norm.mutant(
    "Groups of different images are mixed: `reshape(groups, ...)` cuts the whole batch into that "
    "many pieces. Keep the axis of images: `reshape(N, groups, -1)`."
)
def images_cut_with_groups(x, groups, eps=1e-5):
    return _standard(x.reshape(groups, -1), 1, eps).reshape(x.shape)


@group_norm.mutant("This divides by the variance; take its square root first.")
def divided_by_the_variance(x, groups, eps=1e-5):
    rows = x.reshape(len(x), groups, -1)
    mean, variance = rows.mean(axis=2, keepdims=True), rows.var(axis=2, keepdims=True)
    return ((rows - mean) / (variance + eps)).reshape(x.shape)


@group_norm.mutant("The mean was not subtracted before dividing.")
def mean_not_subtracted_in_groups(x, groups, eps=1e-5):
    rows = x.reshape(len(x), groups, -1)
    return (rows / np.sqrt(rows.var(axis=2, keepdims=True) + eps)).reshape(x.shape)


@group_norm.mutant("eps is missing: it is added to the variance, under the root.")
def without_eps(x, groups, eps=1e-5):
    return _grouped(x, groups, 0.0)


@group_norm.mutant(
    "The means have lost their axis, so they meet the wrong one: take mean and variance with "
    "keepdims=True."
)
def keepdims_forgotten(x, groups, eps=1e-5):
    rows = x.reshape(len(x), groups, -1)
    return ((rows - rows.mean(axis=2)) / np.sqrt(rows.var(axis=2) + eps)).reshape(x.shape)


# -- fold_batch_norm ------------------------------------------------------------------------


def fold_batch_norm_reference(w, b, mean, variance, gamma, beta, eps=1e-5):
    slope = gamma / np.sqrt(variance + eps)
    return slope[:, None, None, None] * w, slope * (b - mean) + beta


def _folding(label, rng, O, C, R, S, *eps):
    variance, gamma = rng.integers(2, 10, size=O).astype(float), rng.integers(2, 6, size=O) / 1.0
    weights = _whole(rng, O, C, R, S)
    b, mean, beta = (rng.integers(1, 9, size=O) * rng.choice([-1.0, 1.0], size=O) for _ in "bmb")
    return Case(label, weights, b, mean, variance, gamma, beta, *eps)


def _any_folding(rng):
    return _folding("any sizes", rng, *_sizes(rng, (1, 4), (1, 4), (1, 3), (1, 3)))


fold_batch_norm = Exercise(
    "07.fold_batch_norm",
    reference=fold_batch_norm_reference,
    observe=_parts("the new weights", "the new bias"),
    cases=[
        Case(
            "one weight",
            np.array([[[[3.0]]]]),
            *(np.array([value]) for value in (1.0, 5.0, 4.0, 10.0, 7.0)),
        ),
        _folding("three kernels", np.random.default_rng(0), 3, 2, 2, 2),
        _folding("all sizes equal", np.random.default_rng(1), 3, 3, 3, 3),
        _folding("a large eps", np.random.default_rng(2), 2, 3, 1, 2, 2.0),
    ],
    more=_any_folding,
    hints=[
        "Multiply the equation out, and sort by what stands with conv(w, x) and what stands alone.",
        "With s = gamma / sqrt(variance + eps): s * conv(w, x) + s * (b - mean) + beta.",
        "s has one number for each output channel: `s[:, None, None, None] * w`.",
    ],
)


@fold_batch_norm.mutant("The variance was taken without its eps.")
def eps_forgotten(w, b, mean, variance, gamma, beta, eps=1e-5):
    return fold_batch_norm_reference(w, b, mean, variance, gamma, beta, 0.0)


@fold_batch_norm.mutant("This divides by the variance; take its root.")
def root_of_the_variance_forgotten(w, b, mean, variance, gamma, beta, eps=1e-5):
    return fold_batch_norm_reference(w, b, mean, (variance + eps) ** 2, gamma, beta, 0.0)


@fold_batch_norm.mutant(
    "The convolution's own bias is not scaled: it goes through the normalisation like the rest, "
    "slope * (b - mean)."
)
def bias_not_scaled(w, b, mean, variance, gamma, beta, eps=1e-5):
    folded, shift = fold_batch_norm_reference(w, 0 * b, mean, variance, gamma, beta, eps)
    return folded, shift + b


@fold_batch_norm.mutant("The convolution's own bias is lost: the new one has slope * b in it.")
def bias_lost(w, b, mean, variance, gamma, beta, eps=1e-5):
    return fold_batch_norm_reference(w, 0 * b, mean, variance, gamma, beta, eps)


@fold_batch_norm.mutant("The mean is subtracted unscaled: it comes off before the scaling.")
def mean_not_scaled(w, b, mean, variance, gamma, beta, eps=1e-5):
    folded, shift = fold_batch_norm_reference(w, b, 0 * mean, variance, gamma, beta, eps)
    return folded, shift - mean


@fold_batch_norm.mutant("The mean is added; it is subtracted from what the convolution gives.")
def mean_added(w, b, mean, variance, gamma, beta, eps=1e-5):
    return fold_batch_norm_reference(w, b, -mean, variance, gamma, beta, eps)


@fold_batch_norm.mutant(
    "The scale met the last axis of the weights, because broadcasting starts from the right; it "
    "belongs to the first, the output channels: `slope[:, None, None, None]`.",
    raises=True,
)
def along_the_last_axis(w, b, mean, variance, gamma, beta, eps=1e-5):
    slope = gamma / np.sqrt(variance + eps)
    return slope * w, slope * (b - mean) + beta


@fold_batch_norm.mutant(
    "The scale met axis 1, the input channels; it belongs to axis 0, the output channels.",
    raises=True,
)
def along_the_input_channels(w, b, mean, variance, gamma, beta, eps=1e-5):
    slope = gamma / np.sqrt(variance + eps)
    return slope[:, None, None] * w, slope * (b - mean) + beta


@fold_batch_norm.mutant("beta is scaled as well: it is added after the scaling.")
def beta_scaled(w, b, mean, variance, gamma, beta, eps=1e-5):
    slope = gamma / np.sqrt(variance + eps)
    return slope[:, None, None, None] * w, slope * (b - mean + beta)


@fold_batch_norm.mutant("beta is missing: it is added at the end, slope * (b - mean) + beta.")
def beta_lost(w, b, mean, variance, gamma, beta, eps=1e-5):
    return fold_batch_norm_reference(w, b, mean, variance, gamma, 0 * beta, eps)


@fold_batch_norm.mutant(
    "gamma is missing: the slope is gamma / sqrt(variance + eps), in the weights and in the bias."
)
def gamma_lost(w, b, mean, variance, gamma, beta, eps=1e-5):
    return fold_batch_norm_reference(w, b, mean, variance, np.ones_like(gamma), beta, eps)


@fold_batch_norm.mutant(
    "The bias is right, but the weights are as they were: multiply each kernel by its slope."
)
def weights_not_scaled(w, b, mean, variance, gamma, beta, eps=1e-5):
    return w, fold_batch_norm_reference(w, b, mean, variance, gamma, beta, eps)[1]


@fold_batch_norm.mutant(
    "The weights are multiplied by gamma alone; divide by sqrt(variance + eps) as well."
)
def weights_not_divided(w, b, mean, variance, gamma, beta, eps=1e-5):
    bias = fold_batch_norm_reference(w, b, mean, variance, gamma, beta, eps)[1]
    return gamma[:, None, None, None] * w, bias


@fold_batch_norm.mutant(
    "gamma is in the new weights, but missing in the new bias: b - mean is multiplied by the "
    "whole slope, gamma / sqrt(variance + eps)."
)
def bias_without_gamma(w, b, mean, variance, gamma, beta, eps=1e-5):
    folded, _ = fold_batch_norm_reference(w, b, mean, variance, gamma, beta, eps)
    return folded, (b - mean) / np.sqrt(variance + eps) + beta


@fold_batch_norm.mutant("eps was added to the root; it belongs under it: sqrt(variance + eps).")
def eps_outside_of_the_root(w, b, mean, variance, gamma, beta, eps=1e-5):
    return fold_batch_norm_reference(w, b, mean, (np.sqrt(variance) + eps) ** 2, gamma, beta, 0.0)


@fold_batch_norm.mutant(
    "The slope multiplies by the root; it divides by it: gamma / sqrt(variance + eps)."
)
def multiplied_by_the_root(w, b, mean, variance, gamma, beta, eps=1e-5):
    return fold_batch_norm_reference(w, b, mean, 1 / (variance + eps), gamma, beta, 0.0)
