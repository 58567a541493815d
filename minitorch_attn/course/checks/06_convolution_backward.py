import numpy as np

from minitorch_attn.course.exercise import Case, Code, Exercise, rules


def windows(x, kernel, stride=1):
    view = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))
    return view[:, :, ::stride, ::stride].transpose(0, 1, 4, 5, 2, 3)


def conv2d(x, w, b=0.0, stride=1):
    y = np.einsum("ocrs,ncrspq->nopq", w, windows(x, w.shape[2:], stride))
    return y + np.reshape(b, (-1, 1, 1))


def _whole(rng, *shape):
    """Random whole numbers: what is computed with them can be followed by hand."""
    return rng.integers(-4, 5, size=shape).astype(float)


# -- weight_and_bias ------------------------------------------------------------------------


def weight_and_bias_reference(x, w, b, *, stride=1):
    seen = windows(x, w.shape[2:], stride)

    def vjp_w(dy):
        return np.einsum("nopq,ncrspq->ocrs", dy, seen)

    def vjp_b(dy):
        return dy.sum(axis=(0, 2, 3))

    return conv2d(x, w, b, stride), (None, vjp_w, vjp_b)


def _layer(rng, N, C, O, R, S, P, Q, stride=1):
    x = _whole(rng, N, C, (P - 1) * stride + R, (Q - 1) * stride + S)
    return x, _whole(rng, O, C, R, S), _whole(rng, O)


def _any_layer(rng):
    N, C, O, R, S, P, Q = (int(n) for n in rng.integers(1, 4, size=7))
    stride = int(rng.integers(1, 4))
    return Case("any sizes", *_layer(rng, N, C, O, R, S, P, Q, stride), stride=stride)


weight_and_bias = Exercise(
    "06.weight_and_bias",
    reference=weight_and_bias_reference,
    observe=rules,
    cases=[
        Case(
            "one image, a kernel of one row",
            np.array([[[[1.0, 2.0, 3.0, 5.0]]]]),
            np.array([[[[1.0, -1.0]]]]),
            np.array([0.5]),
        ),
        Case("two images, two kernels", *_layer(np.random.default_rng(0), 2, 1, 2, 2, 2, 2, 3)),
        Case("three channels", *_layer(np.random.default_rng(1), 3, 3, 3, 3, 3, 2, 3)),
        Case("stride 2", *_layer(np.random.default_rng(2), 2, 2, 3, 3, 2, 3, 2, 2), stride=2),
    ],
    more=_any_layer,
    hints=[
        "The equation has six letters with dy and x under the sum: which of them does dw keep?",
        "`seen` holds x at (n, c, r, s, p, q). Multiply with dy at (n, o, p, q) and sum over "
        "images and places.",
        '`np.einsum("nopq,ncrspq->ocrs", dy, seen)` sums over the letters that are missing on '
        "the right.",
        "The bias went to every place of every image: sum dy over axes 0, 2 and 3.",
    ],
)


def _mistaken_layer(x, w, b, stride, vjp_w=None, vjp_b=None):
    y, (_, right_w, right_b) = weight_and_bias_reference(x, w, b, stride=stride)
    return y, (None, vjp_w or right_w, vjp_b or right_b)


@weight_and_bias.mutant(
    "Only the last image is in dw: all images use the same kernels, so their shares add up. In a "
    "loop over the batch write +=."
)
def last_image_only(x, w, b, *, stride=1):
    _, (_, vjp_w, _) = weight_and_bias_reference(x[-1:], w, b, stride=stride)
    return _mistaken_layer(x, w, b, stride, vjp_w=lambda dy: vjp_w(dy[-1:]))


@weight_and_bias.mutant(
    "dw is divided by the number of images. A rule sums; where a mean is wanted, the loss takes "
    "it, and dy knows of it."
)
def mean_over_images(x, w, b, *, stride=1):
    _, (_, vjp_w, _) = weight_and_bias_reference(x, w, b, stride=stride)
    return _mistaken_layer(x, w, b, stride, vjp_w=lambda dy: vjp_w(dy) / len(x))


@weight_and_bias.mutant("The bias is added at every place, so db is the sum of dy, not its mean.")
def bias_averaged(x, w, b, *, stride=1):
    return _mistaken_layer(x, w, b, stride, vjp_b=lambda dy: dy.mean(axis=(0, 2, 3)))


@weight_and_bias.mutant(
    "db still has an axis of images: it is the same bias for all of them, so sum over axis 0 too."
)
def bias_for_each_image(x, w, b, *, stride=1):
    return _mistaken_layer(x, w, b, stride, vjp_b=lambda dy: dy.sum(axis=(2, 3)))


@weight_and_bias.mutant(
    "dw is turned by 180 degrees. The flipped kernel belongs to the gradient of x; in dw every "
    "tap keeps its place."
)
def turned_round(x, w, b, *, stride=1):
    _, (_, vjp_w, _) = weight_and_bias_reference(x, w, b, stride=stride)
    return _mistaken_layer(x, w, b, stride, vjp_w=lambda dy: vjp_w(dy)[:, :, ::-1, ::-1])


@weight_and_bias.mutant(
    "The windows in dw are one pixel apart, whatever the stride: the place p looks at row "
    "p * stride + r."
)
def stride_forgotten(x, w, b, *, stride=1):
    def vjp_w(dy):
        P, Q = dy.shape[2:]
        return np.einsum("nopq,ncrspq->ocrs", dy, windows(x, w.shape[2:])[..., :P, :Q])

    return _mistaken_layer(x, w, b, stride, vjp_w=vjp_w)


@weight_and_bias.mutant("dw has its channels swapped: output channels o come first, then c.")
def channels_swapped(x, w, b, *, stride=1):
    _, (_, vjp_w, _) = weight_and_bias_reference(x, w, b, stride=stride)
    return _mistaken_layer(x, w, b, stride, vjp_w=lambda dy: vjp_w(dy).swapaxes(0, 1))


# -- col2im ---------------------------------------------------------------------------------


def col2im_reference(values, shape, stride=1):
    return _add_up(values, shape, stride)


def _add_up(values, shape, stride, write=np.add, step=None, tap=1):
    """Windows added up; a mistake overwrites, or takes other steps from place or tap."""
    step = stride if step is None else step
    x = np.zeros(shape)
    for r, s, p, q in np.ndindex(values.shape[2:]):
        place = (slice(None), slice(None), p * step + r * tap, q * step + s * tap)
        x[place] = write(x[place], values[:, :, r, s, p, q])
    return x


def _columns(rng, N, C, R, S, P, Q, stride=1, rest=0):
    shape = (N, C, (P - 1) * stride + R + rest, (Q - 1) * stride + S + rest)
    return _whole(rng, N, C, R, S, P, Q), shape


def _any_columns(rng):
    stride = int(rng.integers(1, 4))
    sizes = (int(n) for n in rng.integers(1, 4, size=6))
    values, shape = _columns(rng, *sizes, stride, rest=int(rng.integers(stride)))
    return Case("any sizes", values, shape, stride)


col2im = Exercise(
    "06.col2im",
    reference=col2im_reference,
    cases=[
        Case(
            "two windows of two in a row",
            np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 1, 2, 1, 2),
            (1, 1, 1, 3),
        ),
        Case("one window: the image itself", *_columns(np.random.default_rng(0), 1, 1, 2, 3, 1, 1)),
        Case("ones: how many windows hold a pixel", np.ones((1, 1, 3, 3, 3, 3)), (1, 1, 5, 5)),
        Case("two images, two channels", *_columns(np.random.default_rng(1), 2, 2, 2, 3, 3, 2)),
        Case("stride 2", *_columns(np.random.default_rng(2), 1, 2, 3, 3, 3, 2, 2), 2),
        Case(
            "stride 3, and rows at the end that no window holds",
            *_columns(np.random.default_rng(3), 1, 1, 2, 2, 2, 3, 3, 1),
            3,
        ),
    ],
    more=_any_columns,
    hints=[
        "Start with zeros of the shape asked for, and go through the taps or the places.",
        "For one tap (r, s), the pixels it meets at all places are a slice with a step: rows r, "
        "r + stride, r + 2 * stride, ...",
        "There are P of them, so the slice ends after r + (P - 1) * stride: "
        "`slice(r, r + (P - 1) * stride + 1, stride)`.",
        "`x[:, :, rows, columns] += values[:, :, r, s]`, for all r and s.",
    ],
)


@col2im.mutant("Where windows overlap the last one overwrites the others: add with +=.")
def overwritten(values, shape, stride=1):
    return _add_up(values, shape, stride, write=lambda old, new: new)


@col2im.mutant(
    "You took the mean where windows overlap. That brings an image back from its own windows, but "
    "the adjoint is the sum."
)
def averaged_at_overlaps(values, shape, stride=1):
    counts = _add_up(np.ones_like(values), shape, stride)
    return _add_up(values, shape, stride) / np.maximum(counts, 1)


@col2im.mutant(
    "The windows lie one pixel apart, whatever the stride: place p begins at p * stride."
)
def places_side_by_side(values, shape, stride=1):
    return _add_up(values, shape, stride, step=1)


@col2im.mutant(
    "The taps of a window are turned round: tap r lies r rows below the window's first row."
)
def taps_turned_round(values, shape, stride=1):
    return _add_up(values[:, :, ::-1, ::-1], shape, stride)


@col2im.mutant(
    "The last place in each direction is left out. A slice stops before its end: it needs "
    "(P - 1) * stride + 1 rows from its start."
)
def last_place_forgotten(values, shape, stride=1):
    return _add_up(values[..., :-1, :-1], shape, stride)


@col2im.mutant("The images of the batch were added into the first; each has windows of its own.")
def images_mixed(values, shape, stride=1):
    x = np.zeros(shape)
    x[:1] = _add_up(values.sum(axis=0, keepdims=True), (1, *shape[1:]), stride)
    return x


# -- input_by_gathering ---------------------------------------------------------------------


def input_by_gathering_reference(dy, w, padding=0):
    return _gathered(dy, w[:, :, ::-1, ::-1].swapaxes(0, 1), padding)


def _gathered(dy, kernels, padding):
    R, S = kernels.shape[2:]
    around = np.pad(dy, ((0, 0), (0, 0), (R - 1, R - 1), (S - 1, S - 1)))
    dx = conv2d(around, kernels)
    return dx[:, :, padding : dx.shape[2] - padding, padding : dx.shape[3] - padding]


def _back(rng, N, O, C, R, S, P, Q):
    return _whole(rng, N, O, P, Q), _whole(rng, O, C, R, S)


def _any_back(rng):
    N, O, C = (int(n) for n in rng.integers(1, 4, size=3))
    R, S, P, Q = (int(n) for n in rng.integers(2, 5, size=4))
    return Case("any sizes", *_back(rng, N, O, C, R, S, P, Q), int(rng.integers(2)))


input_by_gathering = Exercise(
    "06.input_by_gathering",
    reference=input_by_gathering_reference,
    cases=[
        Case(
            "one row",
            np.array([[[[1.0, 10.0]]]]),
            np.array([[[[1.0, 2.0, 3.0]]]]),
        ),
        Case("one channel", *_back(np.random.default_rng(0), 1, 1, 1, 2, 3, 2, 2)),
        Case("two images, two channels", *_back(np.random.default_rng(1), 2, 2, 2, 3, 3, 2, 3)),
        Case(
            "three kernels of two channels", *_back(np.random.default_rng(2), 1, 3, 2, 3, 2, 3, 3)
        ),
        Case("padding 1", *_back(np.random.default_rng(3), 2, 2, 3, 3, 3, 3, 4), 1),
        Case("padding 2", *_back(np.random.default_rng(4), 1, 1, 1, 3, 3, 4, 3), 2),
    ],
    more=_any_back,
    hints=[
        "Which three things are done to dy and w before they go into a convolution?",
        "The border is R - 1 rows above and below, S - 1 columns on each side: `np.pad` takes a "
        "pair for each axis, `((0, 0), (0, 0), (R - 1, R - 1), (S - 1, S - 1))`.",
        "`w[:, :, ::-1, ::-1]` flips, `.swapaxes(0, 1)` makes (C, O, R, S) of it.",
        "Crop `padding` at both ends; the end of a slice as `H - padding`, since `-0` would leave "
        "nothing.",
    ],
)


@input_by_gathering.mutant(
    "The kernel is not flipped: a pixel that tap r met lies r rows after its place, so seen from "
    "the pixel the taps run backwards."
)
def kernel_not_flipped(dy, w, padding=0):
    return _gathered(dy, w.swapaxes(0, 1), padding)


@input_by_gathering.mutant("The kernel is flipped in one direction only: turn rows and columns.")
def flipped_in_columns_only(dy, w, padding=0):
    return _gathered(dy, w[:, :, :, ::-1].swapaxes(0, 1), padding)


@input_by_gathering.mutant(
    "The channels are not swapped: the sum runs over o, and c is the channel of the result."
)
def channels_as_they_are(dy, w, padding=0):
    return _gathered(dy, w[:, :, ::-1, ::-1], padding)


@input_by_gathering.mutant(
    "With reshape the axes get other lengths but the numbers keep their order; channels are "
    "swapped by `swapaxes(0, 1)`."
)
def channels_reshaped(dy, w, padding=0):
    O, C, R, S = w.shape
    return _gathered(dy, w[:, :, ::-1, ::-1].reshape(C, O, R, S), padding)


@input_by_gathering.mutant(
    "The padding is still there: the gradient of x has the size of x, without the border that the "
    "forward put around it."
)
def padding_not_cropped(dy, w, padding=0):
    return input_by_gathering_reference(dy, w)


@input_by_gathering.mutant(
    "The kernel does not fit into dy. It has to hang over the edges: R - 1 rows of zeros above and "
    "below dy, S - 1 columns on each side, whatever the padding was.",
    raises=True,
)
def no_border(dy, w, padding=0):
    return conv2d(dy, w[:, :, ::-1, ::-1].swapaxes(0, 1))


@input_by_gathering.mutant(
    "The border is too wide: at least one tap must lie on dy, so it is R - 1 and S - 1, not R and "
    "S."
)
def border_of_kernel_size(dy, w, padding=0):
    around = np.pad(dy, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return input_by_gathering_reference(around, w, padding)


@input_by_gathering.mutant(
    "Without padding nothing is left: `-0` is 0, so the slice `padding:-padding` ends where it "
    "begins. Write its end as `H - padding`."
)
def cropped_to_nothing(dy, w, padding=0):
    dx = input_by_gathering_reference(dy, w)
    return dx[:, :, padding:-padding, padding:-padding]


# -- adjoint_gap ----------------------------------------------------------------------------


def adjoint_gap_reference(A, B, x, v):
    return (A(x) * v).sum() - (x * B(v)).sum()


def _any_pair(rng):
    O, D = (int(n) for n in rng.integers(2, 5, size=2))
    matrix = f"np.arange(1.0, {O * D + 1}).reshape({O}, {D})"
    other = rng.choice([f"{matrix}.T", f"{matrix}[::-1].T"])
    A, B = Code(f"lambda x: x @ {matrix}.T"), Code(f"lambda v: v @ {other}.T")
    return Case("any matrix", A, B, _whole(rng, 2, D), _whole(rng, 2, O))


adjoint_gap = Exercise(
    "06.adjoint_gap",
    reference=adjoint_gap_reference,
    cases=[
        Case(
            "doubles and triples",
            Code("lambda x: 2 * x"),
            Code("lambda v: 3 * v"),
            np.array([1.0, 2.0]),
            np.array([3.0, 4.0]),
        ),
        Case(
            "a matrix and its transpose",
            Code("lambda x: np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]) @ x"),
            Code("lambda v: np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]).T @ v"),
            np.array([1.0, -2.0, 4.0]),
            np.array([3.0, 5.0]),
        ),
        Case(
            "a sum over columns, and a rule that forgets to spread",
            Code("lambda x: x.sum(axis=1)"),
            Code("lambda v: np.stack([v, 0 * v], axis=1)"),
            np.array([[1.0, 2.0], [3.0, -5.0], [0.5, 4.0]]),
            np.array([2.0, -1.0, 3.0]),
        ),
        Case(
            "images: every second pixel, and zeros between",
            Code("lambda x: x[..., ::2, ::2]"),
            Code("lambda v: np.kron(v, np.array([[1.0, 0.0], [0.0, 0.0]]))"),
            _whole(np.random.default_rng(0), 1, 2, 4, 4),
            _whole(np.random.default_rng(1), 1, 2, 2, 2),
        ),
    ],
    more=_any_pair,
    hints=[
        "An inner product is one number: multiply element by element, then sum over everything.",
        "`(A(x) * v).sum()` is the left side, whatever the number of axes.",
    ],
)


@adjoint_gap.mutant(
    "This is the gap of the lesson, without its sign and as a share of the terms; asked is the "
    "plain difference."
)
def share_of_the_terms(A, B, x, v):
    return abs(adjoint_gap_reference(A, B, x, v)) / np.linalg.norm(A(x) * v)


@adjoint_gap.mutant(
    "Not summed yet: an inner product adds all products up, so the gap is one number."
)
def products_not_summed(A, B, x, v):
    return A(x) * v - x * B(v)


@adjoint_gap.mutant(
    "You say whether the two sides agree; asked is by how much they differ, left minus right."
)
def yes_or_no(A, B, x, v):
    return bool(np.isclose((A(x) * v).sum(), (x * B(v)).sum()))


@adjoint_gap.mutant("You left the sign out: the left side minus the right one may be negative.")
def without_sign(A, B, x, v):
    return abs(adjoint_gap_reference(A, B, x, v))


@adjoint_gap.mutant(
    "The right side comes first; asked is the left one, <A(x), v>, minus the right."
)
def sides_exchanged(A, B, x, v):
    return -adjoint_gap_reference(A, B, x, v)


@adjoint_gap.mutant("An inner product sums the products; you took their mean.")
def means_for_sums(A, B, x, v):
    return (A(x) * v).mean() - (x * B(v)).mean()


@adjoint_gap.mutant("The two sides are added; the gap is their difference.")
def sides_added(A, B, x, v):
    return (A(x) * v).sum() + (x * B(v)).sum()


@adjoint_gap.mutant(
    "You compared the sums of A(x) and B(v) alone: each is multiplied with the other array first."
)
def sums_without_products(A, B, x, v):
    return A(x).sum() - B(v).sum()


@adjoint_gap.mutant(
    "`@` on images multiplies matrices; an inner product multiplies element by element, "
    "`(a * b).sum()`."
)
def matrix_products(A, B, x, v):
    return np.sum(A(x) @ v.swapaxes(-1, -2) if v.ndim > 1 else A(x) @ v) - np.sum(
        x @ B(v).swapaxes(-1, -2) if x.ndim > 1 else x @ B(v)
    )


# -- grouped_conv2d -------------------------------------------------------------------------


def grouped_conv2d_reference(x, w, b, *, stride=1, padding=0, groups=1):
    return _grouped(x, w, b, stride, padding, groups)


def _consecutive(x, groups):
    return x.reshape(len(x), groups, x.shape[1] // groups, *x.shape[2:])


def _interleaved(x, groups):
    return x.reshape(len(x), x.shape[1] // groups, groups, *x.shape[2:]).swapaxes(1, 2)


def _grouped(
    x, w, b, stride, padding, groups, cut=_consecutive, write=np.add, step=None, crop=None
):
    """The convolution and its rules; each argument at the end is room for one mistake."""
    step = stride if step is None else step
    crop = padding if crop is None else crop
    margin = (padding, padding)
    padded = np.pad(x, ((0, 0), (0, 0), margin, margin))
    (O, each, R, S), G = w.shape, groups
    seen = windows(cut(padded, G).reshape(-1, each, *padded.shape[2:]), (R, S), stride)
    seen = seen.reshape(len(x), G, *seen.shape[1:])
    kernels = w.reshape(G, O // G, each, R, S)
    N, _, _, _, _, P, Q = seen.shape
    y = np.einsum("gocrs,ngcrspq->ngopq", kernels, seen).reshape(N, O, P, Q)

    def vjp_x(dy):
        dseen = np.einsum("gocrs,ngopq->ngcrspq", kernels, _consecutive(dy, G))
        if cut is _interleaved:
            dseen = dseen.swapaxes(1, 2)
        dseen = dseen.reshape(N, -1, R, S, P, Q)
        dpadded = _add_up(dseen, padded.shape, stride, write=write, step=step)
        H, W = dpadded.shape[2:]
        return dpadded[:, :, crop : H - crop, crop : W - crop]

    def vjp_w(dy):
        return np.einsum("ngopq,ngcrspq->gocrs", _consecutive(dy, G), seen).reshape(w.shape)

    def vjp_b(dy):
        return dy.sum(axis=(0, 2, 3))

    return y + b[:, None, None], (vjp_x, vjp_w, vjp_b)


def _grouped_layer(rng, N, G, C, O, R, S, H, W):
    return _whole(rng, N, G * C, H, W), _whole(rng, G * O, C, R, S), _whole(rng, G * O)


def _any_grouped_layer(rng):
    N, G, C, O = (int(n) for n in rng.integers(1, 4, size=4))
    R, S = (int(n) for n in rng.integers(1, 4, size=2))
    H, W = (int(n) for n in rng.integers(3, 7, size=2))
    return Case(
        "any sizes and options",
        *_grouped_layer(rng, N, G, C, O, R, S, H, W),
        stride=int(rng.integers(1, 4)),
        padding=int(rng.integers(3)),
        groups=G,
    )


grouped_conv2d = Exercise(
    "06.grouped_conv2d",
    reference=grouped_conv2d_reference,
    observe=rules,
    cases=[
        Case(
            "one row, one kernel",
            np.array([[[[1.0, 2.0, 4.0, 8.0]]]]),
            np.array([[[[1.0, 2.0, 3.0]]]]),
            np.array([1.0]),
        ),
        Case(
            "two images, two channels",
            *_grouped_layer(np.random.default_rng(0), 2, 1, 2, 3, 2, 3, 4, 4),
        ),
        Case(
            "stride 2",
            *_grouped_layer(np.random.default_rng(1), 1, 1, 2, 2, 3, 3, 7, 6),
            stride=2,
        ),
        Case(
            "padding 1",
            *_grouped_layer(np.random.default_rng(2), 1, 1, 1, 2, 3, 2, 3, 4),
            padding=1,
        ),
        Case(
            "two groups",
            *_grouped_layer(np.random.default_rng(3), 2, 2, 2, 2, 2, 2, 3, 3),
            groups=2,
        ),
        Case(
            "depthwise",
            *_grouped_layer(np.random.default_rng(4), 1, 3, 1, 1, 3, 3, 5, 4),
            groups=3,
        ),
        Case(
            "all at once",
            *_grouped_layer(np.random.default_rng(5), 2, 2, 2, 3, 3, 2, 6, 5),
            stride=2,
            padding=1,
            groups=2,
        ),
    ],
    more=_any_grouped_layer,
    seconds=20.0,
    hints=[
        "Build it in steps, and run the check after each: one group without padding, then padding "
        "and its crop, then groups.",
        "Cut into groups: windows (N, G, C / G, R, S, P, Q), kernels (G, O / G, C / G, R, S), dy "
        "(N, G, O / G, P, Q). Then the letter g stands everywhere in the einsums.",
        'Forward `"gocrs,ngcrspq->ngopq"`, weights `"ngopq,ngcrspq->gocrs"`, and for x '
        '`"gocrs,ngopq->ngcrspq"`, which are values of windows.',
        "Add those up in zeros of the padded size, as in col2im with the stride, and crop the "
        "padding off.",
    ],
)


@grouped_conv2d.mutant(
    "In the gradient of x the stamps lie one pixel apart, whatever the stride: place p begins at "
    "row p * stride."
)
def stride_ignored_in_dx(x, w, b, *, stride=1, padding=0, groups=1):
    return _grouped(x, w, b, stride, padding, groups, step=1)


@grouped_conv2d.mutant(
    "Where windows overlap, the last one overwrites the others in the gradient of x: add with +=."
)
def overwritten_at_overlaps(x, w, b, *, stride=1, padding=0, groups=1):
    return _grouped(x, w, b, stride, padding, groups, write=lambda old, new: new)


@grouped_conv2d.mutant("The gradient of x has the size of x: crop the padding off at both ends.")
def border_not_cropped(x, w, b, *, stride=1, padding=0, groups=1):
    return _grouped(x, w, b, stride, padding, groups, crop=0)


@grouped_conv2d.mutant(
    "The border is cropped at the end only: the image begins behind the first `padding` rows and "
    "columns, so these have to go as well."
)
def cropped_at_the_end_only(x, w, b, *, stride=1, padding=0, groups=1):
    y, (vjp_x, *others) = _grouped(x, w, b, stride, padding, groups, crop=0)
    H, W = x.shape[2:]
    return y, (lambda dy: vjp_x(dy)[:, :, :H, :W], *others)


@grouped_conv2d.mutant(
    "Without padding nothing is left of the gradient of x: `-0` is 0, so the slice "
    "`padding:-padding` ends where it begins. Write its end as `padding + H`."
)
def nothing_left_of_dx(x, w, b, *, stride=1, padding=0, groups=1):
    y, (vjp_x, *others) = _grouped(x, w, b, stride, padding, groups, crop=0)
    return y, (lambda dy: vjp_x(dy)[:, :, padding:-padding, padding:-padding], *others)


@grouped_conv2d.mutant(
    "The groups are mixed: channels that follow one another belong together, so cut them by a "
    "reshape to (N, G, C / G, ...)."
)
def groups_interleaved(x, w, b, *, stride=1, padding=0, groups=1):
    return _grouped(x, w, b, stride, padding, groups, cut=_interleaved)


@grouped_conv2d.mutant("The bias is added at every place: db is the sum of dy, not its mean.")
def mean_for_the_bias(x, w, b, *, stride=1, padding=0, groups=1):
    y, (vjp_x, vjp_w, _) = _grouped(x, w, b, stride, padding, groups)
    return y, (vjp_x, vjp_w, lambda dy: dy.mean(axis=(0, 2, 3)))


@grouped_conv2d.mutant(
    "Only the last image is in the gradient of w: the shares of all images add up."
)
def weights_of_the_last_image(x, w, b, *, stride=1, padding=0, groups=1):
    y, (vjp_x, _, vjp_b) = _grouped(x, w, b, stride, padding, groups)
    _, (_, vjp_w, _) = _grouped(x[-1:], w, b, stride, padding, groups)
    return y, (vjp_x, lambda dy: vjp_w(dy[-1:]), vjp_b)


@grouped_conv2d.mutant(
    "The kernels in the gradient of x are turned round. Whoever scatters does not flip: each "
    "place stamps the kernel as it is."
)
def flipped_stamps(x, w, b, *, stride=1, padding=0, groups=1):
    y, (_, *others) = _grouped(x, w, b, stride, padding, groups)
    _, (vjp_x, *_) = _grouped(x, w[:, :, ::-1, ::-1], b, stride, padding, groups)
    return y, (vjp_x, *others)


@grouped_conv2d.mutant("The bias is not added: y is the sum of products plus b for its channel.")
def bias_left_out(x, w, b, *, stride=1, padding=0, groups=1):
    return _grouped(x, w, 0 * b, stride, padding, groups)


# -- conv_transpose2d -----------------------------------------------------------------------


def conv_transpose2d_reference(x, w, b, *, stride=1, padding=0, output_padding=0):
    return _transposed(x, w, b, stride, padding, output_padding)


def _transposed(x, w, b, stride, padding, output_padding, write=np.add, crop=None):
    """The layer and its rules; `write` and `crop` are room for mistakes."""
    front, back = crop or (padding, padding)
    (H, W), (_, O, R, S) = x.shape[2:], w.shape
    rows = (H - 1) * stride + R + output_padding
    columns = (W - 1) * stride + S + output_padding
    shape = (len(x), O, rows, columns)
    kept = (..., slice(front, rows - back), slice(front, columns - back))
    stamps = np.einsum("ncij,cors->norsij", x, w)
    y = _add_up(stamps, shape, stride, write=write)[kept]

    def seen(dy):
        whole = np.zeros(shape)
        whole[kept] = dy
        return windows(whole, (R, S), stride)[..., :H, :W]

    def vjp_x(dy):
        return np.einsum("cors,norsij->ncij", w, seen(dy))

    def vjp_w(dy):
        return np.einsum("ncij,norsij->cors", x, seen(dy))

    def vjp_b(dy):
        return dy.sum(axis=(0, 2, 3))

    return y + b[:, None, None], (vjp_x, vjp_w, vjp_b)


def _enlarger(rng, N, C, O, R, S, H, W):
    return _whole(rng, N, C, H, W), _whole(rng, C, O, R, S), _whole(rng, O)


def _any_enlarger(rng):
    N, C, O, H, W = (int(n) for n in rng.integers(1, 4, size=5))
    R, S = (int(n) for n in rng.integers(3, 5, size=2))
    stride = int(rng.integers(1, 4))
    return Case(
        "any sizes and options",
        *_enlarger(rng, N, C, O, R, S, H, W),
        stride=stride,
        padding=int(rng.integers(2)),
        output_padding=int(rng.integers(stride)),
    )


conv_transpose2d = Exercise(
    "06.conv_transpose2d",
    reference=conv_transpose2d_reference,
    observe=rules,
    cases=[
        Case(
            "one row, stride 2",
            np.array([[[[1.0, 10.0]]]]),
            np.array([[[[1.0, 2.0, 3.0]]]]),
            np.array([0.5]),
            stride=2,
        ),
        Case("stride 1", *_enlarger(np.random.default_rng(0), 1, 1, 1, 3, 2, 2, 3)),
        Case("two to three channels", *_enlarger(np.random.default_rng(1), 2, 2, 3, 2, 2, 2, 2)),
        Case(
            "as many channels in as out",
            *_enlarger(np.random.default_rng(2), 1, 2, 2, 3, 3, 2, 2),
            stride=2,
        ),
        Case(
            "padding 1",
            *_enlarger(np.random.default_rng(3), 1, 2, 1, 3, 4, 3, 2),
            stride=2,
            padding=1,
        ),
        Case(
            "padding and output padding",
            *_enlarger(np.random.default_rng(4), 2, 2, 2, 3, 3, 2, 3),
            stride=2,
            padding=1,
            output_padding=1,
        ),
        Case(
            "output padding alone: rows that no stamp reaches",
            *_enlarger(np.random.default_rng(5), 1, 1, 2, 2, 2, 2, 2),
            stride=3,
            output_padding=2,
        ),
    ],
    more=_any_enlarger,
    seconds=20.0,
    hints=[
        "First the output without cropping: zeros of (H - 1) * stride + R rows, and one stamp for "
        "each pixel, added at (i * stride, j * stride).",
        'The stamp of pixel (i, j) is `np.einsum("nc,cors->nors", x[:, :, i, j], w)`.',
        "Make the zeros `output_padding` larger, then crop `padding` at both ends; add the bias "
        "last, to all that is kept.",
        "Backward, put dy into zeros of the uncropped size: its windows (N, O, R, S, H, W), with "
        "the stride, are what each pixel stamped on.",
        'Then `"cors,norsij->ncij"` is the gradient of x, a convolution, and `"ncij,norsij->cors"` '
        "that of w.",
    ],
)


@conv_transpose2d.mutant("Where stamps overlap, the last one overwrites the others: add with +=.")
def stamps_overwritten(x, w, b, *, stride=1, padding=0, output_padding=0):
    return _transposed(x, w, b, stride, padding, output_padding, write=lambda old, new: new)


@conv_transpose2d.mutant(
    "The padding is not cropped: here it takes rows and columns away, for it belongs to the "
    "convolution that goes the other way."
)
def nothing_cropped(x, w, b, *, stride=1, padding=0, output_padding=0):
    return _transposed(x, w, b, stride, 0, output_padding)


@conv_transpose2d.mutant(
    "The padding is added around the output, as in a convolution; here it is cropped."
)
def padded_instead(x, w, b, *, stride=1, padding=0, output_padding=0):
    y, (vjp_x, vjp_w, vjp_b) = _transposed(x, w, 0 * b, stride, 0, output_padding)
    z = padding
    around = np.pad(y, ((0, 0), (0, 0), (z, z), (z, z)))
    H, W = y.shape[2:]

    def inside(dy):
        return dy[:, :, z : z + H, z : z + W]

    return around + b[:, None, None], (
        lambda dy: vjp_x(inside(dy)),
        lambda dy: vjp_w(inside(dy)),
        vjp_b,
    )


@conv_transpose2d.mutant(
    "The output padding is missing: the output has that many rows and columns more at its end."
)
def no_output_padding(x, w, b, *, stride=1, padding=0, output_padding=0):
    return _transposed(x, w, b, stride, padding, 0)


@conv_transpose2d.mutant(
    "The rows of the output padding are zeros put behind the cropped output; they are rows of the "
    "whole output, cropped later: what the stamps left there counts, and the bias."
)
def zeros_for_output_padding(x, w, b, *, stride=1, padding=0, output_padding=0):
    y, given = _transposed(x, w, b, stride, padding, 0)
    H, W = y.shape[2:]
    y = np.pad(y, ((0, 0), (0, 0), (0, output_padding), (0, output_padding)))
    return y, tuple(lambda dy, rule=rule: rule(dy[:, :, :H, :W]) for rule in given)


@conv_transpose2d.mutant(
    "The rows of the output padding hold the bias alone. They are rows of the whole output that "
    "the padding would have cropped: keep what the stamps left there."
)
def bias_alone_for_output_padding(x, w, b, *, stride=1, padding=0, output_padding=0):
    y, (*given, _) = zeros_for_output_padding(
        x, w, 0 * b, stride=stride, padding=padding, output_padding=output_padding
    )
    return y + b[:, None, None], (*given, lambda dy: dy.sum(axis=(0, 2, 3)))


@conv_transpose2d.mutant(
    "The output padding came in at the start; the rows and columns more are at the end."
)
def output_padding_in_front(x, w, b, *, stride=1, padding=0, output_padding=0):
    crop = (padding - output_padding, padding + output_padding)
    if crop[0] >= 0:
        return _transposed(x, w, b, stride, padding, output_padding, crop=crop)
    y, given = _transposed(x, w, b, stride, padding, 0)
    more = output_padding
    y = np.pad(y, ((0, 0), (0, 0), (more, 0), (more, 0)))
    y[:, :, :more], y[:, :, :, :more] = b[:, None, None], b[:, None, None]
    vjp_x, vjp_w, vjp_b = given
    return y, (
        lambda dy: vjp_x(dy[:, :, more:, more:]),
        lambda dy: vjp_w(dy[:, :, more:, more:]),
        vjp_b,
    )


@conv_transpose2d.mutant(
    "The stride is left out: neighbours stamp `stride` rows or columns apart, which is what makes "
    "the output larger."
)
def stamps_side_by_side(x, w, b, *, stride=1, padding=0, output_padding=0):
    return _transposed(x, w, b, 1, padding, output_padding)


@conv_transpose2d.mutant(
    "The kernels are turned round. A stamp is the kernel as it is; the flip belongs to the form "
    "that gathers."
)
def turned_stamps(x, w, b, *, stride=1, padding=0, output_padding=0):
    y, (vjp_x, vjp_w, vjp_b) = _transposed(
        x, w[:, :, ::-1, ::-1], b, stride, padding, output_padding
    )
    return y, (vjp_x, lambda dy: vjp_w(dy)[:, :, ::-1, ::-1], vjp_b)


@conv_transpose2d.mutant(
    "The weight's channels are taken as (out, in), which fits only where both are as many: in a "
    "transposed convolution the input's come first.",
    raises=True,
)
def weight_of_a_convolution(x, w, b, *, stride=1, padding=0, output_padding=0):
    y, (vjp_x, vjp_w, vjp_b) = _transposed(x, w.swapaxes(0, 1), b, stride, padding, output_padding)
    return y, (vjp_x, lambda dy: vjp_w(dy).swapaxes(0, 1), vjp_b)


@conv_transpose2d.mutant(
    "The gradient of x turns the kernels round. Going back from a transposed convolution is the "
    "forward of the convolution, which takes the kernel as it is."
)
def gradient_with_turned_kernels(x, w, b, *, stride=1, padding=0, output_padding=0):
    y, (_, vjp_w, vjp_b) = _transposed(x, w, b, stride, padding, output_padding)
    _, (vjp_x, *_) = _transposed(x, w[:, :, ::-1, ::-1], b, stride, padding, output_padding)
    return y, (vjp_x, vjp_w, vjp_b)


@conv_transpose2d.mutant(
    "Without padding nothing is left: `-0` is 0, so the slice `padding:-padding` ends where it "
    "begins. Write its end as `padding + P`."
)
def nothing_left_of_the_output(x, w, b, *, stride=1, padding=0, output_padding=0):
    y, given = _transposed(x, w, b, stride, 0, output_padding)
    return y[:, :, padding:-padding, padding:-padding], given


@conv_transpose2d.mutant("The bias is not added: each output channel has a number of its own.")
def without_bias(x, w, b, *, stride=1, padding=0, output_padding=0):
    return _transposed(x, w, 0 * b, stride, padding, output_padding)


@conv_transpose2d.mutant("The gradient of b is the sum of dy over images and places, not the mean.")
def average_for_the_bias(x, w, b, *, stride=1, padding=0, output_padding=0):
    y, (vjp_x, vjp_w, _) = _transposed(x, w, b, stride, padding, output_padding)
    return y, (vjp_x, vjp_w, lambda dy: dy.mean(axis=(0, 2, 3)))


@conv_transpose2d.mutant(
    "The gradient of w has its channels exchanged: it has the shape of w, (C, O, R, S)."
)
def weight_gradient_exchanged(x, w, b, *, stride=1, padding=0, output_padding=0):
    y, (vjp_x, vjp_w, vjp_b) = _transposed(x, w, b, stride, padding, output_padding)
    return y, (vjp_x, lambda dy: vjp_w(dy).swapaxes(0, 1), vjp_b)
