import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minitorch_attn.course.exercise import Case, Exercise, there

# -- output_size ----------------------------------------------------------------------------


def output_size_reference(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def any_size(rng):
    kernel, dilation = (int(n) for n in rng.integers(1, 5, size=2))
    options = {"stride": int(rng.integers(1, 5)), "padding": int(rng.integers(0, 4))}
    size = dilation * (kernel - 1) + 1 + int(rng.integers(0, 20))
    return Case("any sizes", size, kernel, dilation=dilation, **options)


output_size = Exercise(
    "05.output_size",
    reference=output_size_reference,
    cases=[
        Case("28 pixels, 3 taps", 28, 3),
        Case("a kernel of one tap", 5, 1),
        Case("a kernel as large as the axis", 5, 5),
        Case("stride 2, nothing left over", 9, 3, stride=2),
        Case("stride 2, a pixel left over", 8, 3, stride=2),
        Case("padding that keeps the size", 28, 5, padding=2),
        Case("dilation 2", 9, 3, dilation=2),
        Case("all at once", 17, 4, stride=3, padding=2, dilation=3),
    ],
    more=any_size,
    hints=[
        "Which pixels does the kernel meet at place 0, and which at place p?",
        "At place p the last tap meets pixel p * stride + (kernel - 1) * dilation of the padded "
        "axis, whose last pixel is size + 2 * padding - 1.",
        "Rounded down, (size + 2 * padding - dilation * (kernel - 1) - 1) / stride is the last "
        "place; the places begin at 0, so there is one more. `//` rounds down.",
    ],
)


@output_size.mutant("The places are counted from 0: there is one more than the last one's number.")
def first_place_forgotten(size, kernel, stride=1, padding=0, dilation=1):
    return output_size_reference(size, kernel, stride, padding, dilation) - 1


@output_size.mutant("You round up: a place that is only partly inside the image is no place.")
def rounded_up(size, kernel, stride=1, padding=0, dilation=1):
    return math.ceil((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1


@output_size.mutant("The padding is added at both ends of the axis, so it counts twice.")
def padding_counted_once(size, kernel, stride=1, padding=0, dilation=1):
    return (size + padding - dilation * (kernel - 1) - 1) // stride + 1


@output_size.mutant(
    "With dilation d a kernel of R taps reaches over d * (R - 1) + 1 pixels: R - 1 gaps, not R."
)
def dilation_times_taps(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * kernel) // stride + 1


@output_size.mutant("The dilation is missing: it makes the kernel reach further.")
def dilation_forgotten(size, kernel, stride=1, padding=0, dilation=1):
    return output_size_reference(size, kernel, stride, padding)


@output_size.mutant("The stride is missing: with larger steps there are fewer places.")
def stride_forgotten(size, kernel, stride=1, padding=0, dilation=1):
    return output_size_reference(size, kernel, 1, padding, dilation)


@output_size.mutant(
    "You divide first and add the 1 before rounding down: only whole steps count, and the 1 "
    "stands outside the division."
)
def one_inside_the_division(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel - 1)) // stride


@output_size.mutant(
    "You do not round down: there is no half a place. `//` divides and rounds down."
)
def not_rounded(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1


# -- conv2d_loops ---------------------------------------------------------------------------


def _convolve(x, w, b=0.0, stride=1, padding=0, dilation=1, groups=1):
    """Convolution by sums over taps, another way than the exercises go."""
    (N, _, H, W), (O, each, R, S) = x.shape, w.shape
    P = output_size_reference(H, R, stride, padding, dilation)
    Q = output_size_reference(W, S, stride, padding, dilation)
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    y = np.zeros((N, groups, O // groups, P, Q), np.result_type(x, w))
    split = x.reshape(N, groups, each, *x.shape[2:])
    kernels = w.reshape(groups, O // groups, each, R, S)
    for r, s in np.ndindex(R, S):
        rows = slice(r * dilation, r * dilation + (P - 1) * stride + 1, stride)
        columns = slice(s * dilation, s * dilation + (Q - 1) * stride + 1, stride)
        y += np.einsum("ngcpq,goc->ngopq", split[..., rows, columns], kernels[..., r, s])
    return y.reshape(N, O, P, Q) + np.reshape(b, (-1, 1, 1))


def conv2d_loops_reference(x, w, stride=1):
    return _convolve(x, w, stride=stride)


def _numbers(seed, *shape):
    return np.random.default_rng([seed, *shape]).integers(-9, 10, size=shape) / 2.0


def any_images(rng):
    N, C, O, R, S, more, stride = (int(n) for n in rng.integers(1, 4, size=7))
    x = rng.normal(size=(N, C, R + more, S + 2 * more))
    return Case("any sizes", x, rng.normal(size=(O, C, R, S)), stride=stride)


conv2d_loops = Exercise(
    "05.conv2d_loops",
    reference=conv2d_loops_reference,
    cases=[
        Case(
            "one image, one kernel",
            np.arange(9.0).reshape(1, 1, 3, 3),
            np.array([[[[1.0, 0.0], [0.0, 10.0]]]]),
        ),
        Case("a kernel that is wider than high", _numbers(0, 1, 1, 4, 5), _numbers(1, 1, 1, 2, 3)),
        Case("two channels", _numbers(2, 1, 2, 3, 4), _numbers(3, 1, 2, 2, 2)),
        Case("two channels, three kernels", _numbers(4, 1, 2, 4, 3), _numbers(5, 3, 2, 2, 2)),
        Case("stride 2", _numbers(6, 1, 1, 6, 7), _numbers(7, 1, 1, 3, 3), stride=2),
        Case("two images", _numbers(8, 2, 2, 5, 4), _numbers(9, 3, 2, 3, 2)),
    ],
    more=any_images,
    hints=[
        "Four loops choose the number of the output: n, o, p, q. Which three does the sum run "
        "over?",
        "Where does the kernel lie at place (p, q)? Its tap (r, s) meets pixel "
        "(p * stride + r, q * stride + s).",
        "The sum over c and the window can be one line: "
        "`(w[o] * x[n, :, top : top + R, left : left + S]).sum()` with `top = p * stride`.",
    ],
)


@conv2d_loops.mutant(
    "You flip the kernel. That is convolution as mathematics has it; here, as in all deep learning "
    "libraries, the kernel is not flipped."
)
def kernel_flipped(x, w, stride=1):
    return _convolve(x, w[:, :, ::-1, ::-1], stride=stride)


@conv2d_loops.mutant(
    "The stride is ignored: the kernel moves by `stride` pixels from place to place."
)
def stride_ignored(x, w, stride=1):
    return _convolve(x, w)


@conv2d_loops.mutant(
    "There are as many places as the stride allows, but the windows do not move by it: place p "
    "begins at pixel p * stride."
)
def windows_side_by_side(x, w, stride=1):
    P, Q = _convolve(x, w, stride=stride).shape[2:]
    return _convolve(x, w)[:, :, :P, :Q]


@conv2d_loops.mutant("Each product replaces the one before; they are to be added up (`+=`).")
def products_replaced(x, w, stride=1):
    last = np.zeros_like(w)
    last[:, -1, -1, -1] = w[:, -1, -1, -1]
    return _convolve(x, last, stride=stride)


@conv2d_loops.mutant("The sum runs over the window of one channel; it runs over all channels, too.")
def first_channel_only(x, w, stride=1):
    return _convolve(x[:, :1], w[:, :1], stride=stride)


@conv2d_loops.mutant("You take the mean over the channels; their products are added up.")
def mean_over_channels(x, w, stride=1):
    return _convolve(x, w, stride=stride) / x.shape[1]


@conv2d_loops.mutant("All kernels gave one sum; each makes an output channel of its own.")
def kernels_added(x, w, stride=1):
    return _convolve(x, w, stride=stride).sum(axis=1, keepdims=True)


@conv2d_loops.mutant(
    "One place is missing at the end of each axis: there are (H - R) // stride + 1 of them."
)
def last_place_missing(x, w, stride=1):
    return _convolve(x, w, stride=stride)[:, :, :-1, :-1]


# -- windows --------------------------------------------------------------------------------


def windows_reference(x, R, S, stride=1, dilation=1):
    return _view(x, R, S, stride, dilation)


def _view(x, R, S, stride, dilation, steps=None):
    P, Q = (
        output_size_reference(H, K, stride, 0, dilation)
        for H, K in ((x.shape[2], R), (x.shape[3], S))
    )
    n, c, h, w = x.strides
    steps = steps or (n, c, h * dilation, w * dilation, h * stride, w * stride)
    return as_strided(x, (*x.shape[:2], R, S, P, Q), steps)


# The images are a part of a larger array, whose other numbers are -99.
_IN_A_LARGER_ARRAY = """
lambda windows, x, *sizes, **options: (
    lambda larger: (lambda y: (y, isinstance(y, np.ndarray) and np.shares_memory(y, larger)))(
        windows(larger[3:-3, 3:-3, 8:-8, 8:-8], *sizes, **options)
    )
)(np.pad(x, ((3, 3), (3, 3), (8, 8), (8, 8)), constant_values=-99))
"""


def a_view(subject, case):
    """The windows, and whether they lie in the images' memory."""
    look = there(subject, _IN_A_LARGER_ARRAY.strip())
    output, shared = look(subject, *case.inputs, **case.settings)
    yield "the output", output
    yield "whether it lies in the memory of x", "yes" if shared else "no, it is a copy"


def any_windows(rng):
    N, C, R, S, stride, dilation = (int(n) for n in rng.integers(1, 4, size=6))
    H, W = dilation * (R - 1) + 1 + rng.integers(0, 5), dilation * (S - 1) + 1 + rng.integers(0, 5)
    x = rng.normal(size=(N, C, H, W)).astype(rng.choice(["float64", "float32"]))
    return Case("any sizes", x, R, S, stride=stride, dilation=dilation)


windows = Exercise(
    "05.windows",
    reference=windows_reference,
    observe=a_view,
    cases=[
        Case("one image of 2 x 3, windows of 2 x 2", np.arange(6.0).reshape(1, 1, 2, 3), 2, 2),
        Case("windows that are wider than high", np.arange(20.0).reshape(1, 1, 4, 5), 2, 3),
        Case("two images of two channels", np.arange(48.0).reshape(2, 2, 3, 4), 2, 2),
        Case("stride 2", np.arange(35.0).reshape(1, 1, 5, 7), 3, 3, stride=2),
        Case("dilation 2", np.arange(30.0).reshape(1, 1, 5, 6), 2, 2, dilation=2),
        Case(
            "stride 3 and dilation 2",
            np.arange(63.0).reshape(1, 1, 7, 9),
            2,
            3,
            stride=3,
            dilation=2,
        ),
        Case("float32", np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4), 2, 2),
    ],
    more=any_windows,
    hints=[
        "For each of the six axes: how far in memory is the next element? From one image to the "
        "next and from one channel to the next it is as in x.",
        "With `n, c, h, w = x.strides`, the next tap of a column of the kernel is `h * dilation` "
        "bytes further on.",
        "And the next place in a column is `h * stride` bytes further on. For rows it is w "
        "instead of h.",
        "`as_strided(x, (N, C, R, S, P, Q), (n, c, h * dilation, w * dilation, h * stride, "
        "w * stride))`; P and Q as in exercise 1, without padding.",
    ],
)


@windows.mutant("The windows are right, but copied: `as_strided` alone makes a view of them.")
def copied(x, R, S, stride=1, dilation=1):
    return windows_reference(x, R, S, stride, dilation).copy()


@windows.mutant(
    "Stride and dilation are in each other's place: the next tap is `dilation` pixels on, the next "
    "place `stride` pixels."
)
def stride_and_dilation_exchanged(x, R, S, stride=1, dilation=1):
    n, c, h, w = x.strides
    steps = (n, c, h * stride, w * stride, h * dilation, w * dilation)
    return _view(x, R, S, stride, dilation, steps)


@windows.mutant("The axes are in another order: first the taps R and S, then the places P and Q.")
def places_before_taps(x, R, S, stride=1, dilation=1):
    return windows_reference(x, R, S, stride, dilation).transpose(0, 1, 4, 5, 2, 3)


@windows.mutant(
    "You work the steps out from the shape of x, as if it were an array of its own. It may be a "
    "part of a larger one: take them from `x.strides`."
)
def steps_from_the_shape(x, R, S, stride=1, dilation=1):
    _, C, H, W = x.shape
    n, c, h, w = (x.itemsize * k for k in (C * H * W, H * W, W, 1))
    steps = (n, c, h * dilation, w * dilation, h * stride, w * stride)
    return _view(x, R, S, stride, dilation, steps)


@windows.mutant(
    "The strides of an array are counted in bytes, not in elements; `x.strides` has the right unit."
)
def steps_in_elements(x, R, S, stride=1, dilation=1):
    n, c, h, w = (step // x.itemsize for step in x.strides)
    steps = (n, c, h * dilation, w * dilation, h * stride, w * stride)
    return _view(x, R, S, stride, dilation, steps)


@windows.mutant(
    "The places follow one another by one pixel whatever the stride: their steps are h * stride "
    "and w * stride."
)
def places_side_by_side(x, R, S, stride=1, dilation=1):
    n, c, h, w = x.strides
    return _view(x, R, S, stride, dilation, (n, c, h * dilation, w * dilation, h, w))


@windows.mutant("The dilation is missing: it is the distance from one tap to the next.")
def dilation_ignored(x, R, S, stride=1, dilation=1):
    return windows_reference(x, R, S, stride)


@windows.mutant(
    "There are too many places. The dilation counts: in a column it leaves "
    "(H - dilation * (R - 1) - 1) // stride + 1 of them."
)
def places_counted_without_dilation(x, R, S, stride=1, dilation=1):
    P, Q = (
        output_size_reference(x.shape[2], R, stride),
        output_size_reference(x.shape[3], S, stride),
    )
    n, c, h, w = x.strides
    steps = (n, c, h * dilation, w * dilation, h * stride, w * stride)
    return as_strided(x, (*x.shape[:2], R, S, P, Q), steps)


# -- columns --------------------------------------------------------------------------------


def _columns(x, R, S, stride=1, padding=0, dilation=1, order="ncrspq"):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    seen = windows_reference(x, R, S, stride, dilation)
    N, C, R, S, P, Q = seen.shape
    return np.einsum(f"ncrspq->{order}", seen).reshape(N, C * R * S, P * Q)


def columns_reference(x, R, S, stride=1, padding=0, dilation=1):
    return _columns(x, R, S, stride, padding, dilation)


def any_columns(rng):
    N, C, R, S, stride, dilation = (int(n) for n in rng.integers(1, 4, size=6))
    H, W = dilation * (R - 1) + 1 + rng.integers(0, 4), dilation * (S - 1) + 1 + rng.integers(0, 4)
    options = {"stride": stride, "padding": int(rng.integers(0, 3)), "dilation": dilation}
    return Case("any sizes", rng.normal(size=(N, C, H, W)), R, S, **options)


columns = Exercise(
    "05.columns",
    reference=columns_reference,
    cases=[
        Case("one image of 2 x 3, windows of 2 x 2", np.arange(6.0).reshape(1, 1, 2, 3), 2, 2),
        Case("windows that are wider than high", np.arange(20.0).reshape(1, 1, 4, 5), 2, 3),
        Case("two channels", np.arange(24.0).reshape(1, 2, 3, 4), 2, 2),
        Case("two images", np.arange(24.0).reshape(2, 1, 3, 4), 2, 3),
        Case("padding 1", np.arange(1.0, 5.0).reshape(1, 1, 2, 2), 2, 2, padding=1),
        Case("stride 2", np.arange(20.0).reshape(1, 1, 4, 5), 2, 2, stride=2),
        Case("dilation 2", np.arange(20.0).reshape(1, 1, 4, 5), 2, 2, dilation=2),
    ],
    more=any_columns,
    hints=[
        "`np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))` puts zeros around "
        "rows and columns, not around images and channels.",
        "The windows have the axes (N, C, R, S, P, Q). Which three become the rows, which two the "
        "columns?",
        "They are neighbours in the right order, so `.reshape(N, C * R * S, P * Q)` is all; -1 in "
        "place of P * Q lets NumPy work it out.",
    ],
)


@columns.mutant("The rows are in the order r, s, c; they should be in the order c, r, s.")
def channels_last_in_a_row(x, R, S, stride=1, padding=0, dilation=1):
    return _columns(x, R, S, stride, padding, dilation, "nrscpq")


@columns.mutant("Rows and columns are exchanged: a place is a column, of C * R * S numbers.")
def places_as_rows(x, R, S, stride=1, padding=0, dilation=1):
    return columns_reference(x, R, S, stride, padding, dilation).swapaxes(1, 2)


@columns.mutant(
    "The numbers got mixed up: an array whose places come before its taps cannot be reshaped to "
    "this matrix, its axes have to change places first (`transpose`)."
)
def reshaped_without_transposing(x, R, S, stride=1, padding=0, dilation=1):
    return _columns(x, R, S, stride, padding, dilation, "ncpqrs")


@columns.mutant(
    "The places go down the columns of the image first; they go along its rows, p then q."
)
def places_column_after_column(x, R, S, stride=1, padding=0, dilation=1):
    return _columns(x, R, S, stride, padding, dilation, "ncrsqp")


@columns.mutant("The taps are in the order s, r: the rows of a window come one after the other.")
def taps_column_after_column(x, R, S, stride=1, padding=0, dilation=1):
    return _columns(x, R, S, stride, padding, dilation, "ncsrpq")


@columns.mutant("The zeros are above and on the left only; they go around all four sides.")
def padding_on_one_side(x, R, S, stride=1, padding=0, dilation=1):
    x = np.pad(x, ((0, 0), (0, 0), (padding, 0), (padding, 0)))
    return _columns(x, R, S, stride, 0, dilation)


@columns.mutant("The border repeats the image's edge; padding is with zeros.")
def edge_repeated(x, R, S, stride=1, padding=0, dilation=1):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), mode="edge")
    return _columns(x, R, S, stride, 0, dilation)


@columns.mutant("The padding is ignored: put zeros around the images first.")
def padding_ignored(x, R, S, stride=1, padding=0, dilation=1):
    return _columns(x, R, S, stride, 0, dilation)


@columns.mutant("The stride is ignored: pass it on to where the windows are made.")
def every_place(x, R, S, stride=1, padding=0, dilation=1):
    return _columns(x, R, S, 1, padding, dilation)


@columns.mutant("The dilation is ignored: pass it on to where the windows are made.")
def taps_side_by_side(x, R, S, stride=1, padding=0, dilation=1):
    return _columns(x, R, S, stride, padding)


@columns.mutant(
    "All four axes are padded: `np.pad(x, padding)` adds empty images and channels too. Give it a "
    "pair of numbers for each axis."
)
def every_axis_padded(x, R, S, stride=1, padding=0, dilation=1):
    return _columns(np.pad(x, padding), R, S, stride, 0, dilation)


# -- conv2d ---------------------------------------------------------------------------------


def conv2d_reference(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    return _convolve(x, w, b, stride, padding, dilation, groups)


def _layer(seed, N, C, O, size, kernel, groups=1):
    x, w = _numbers(seed, N, C, *size), _numbers(seed + 1, O, C // groups, *kernel)
    return x, w, _numbers(seed + 2, O)


def any_layer(rng):
    N, R, S, stride, dilation, groups = (int(n) for n in rng.integers(1, 4, size=6))
    C, O = groups * int(rng.integers(1, 3)), groups * int(rng.integers(1, 3))
    H, W = dilation * (R - 1) + 1 + rng.integers(0, 5), dilation * (S - 1) + 1 + rng.integers(0, 5)
    x, w = rng.normal(size=(N, C, H, W)), rng.normal(size=(O, C // groups, R, S))
    options = {"stride": stride, "padding": int(rng.integers(0, 3)), "dilation": dilation}
    return Case("any sizes", x, w, rng.normal(size=O), groups=groups, **options)


conv2d = Exercise(
    "05.conv2d",
    reference=conv2d_reference,
    cases=[
        Case("one channel, one kernel", *_layer(0, 1, 1, 1, (3, 4), (2, 2))),
        Case("two channels, three kernels", *_layer(1, 1, 2, 3, (3, 5), (2, 2))),
        Case("two images", *_layer(2, 2, 2, 3, (4, 3), (2, 3))),
        Case("padding 1", *_layer(3, 1, 1, 2, (3, 4), (3, 3)), padding=1),
        Case("stride 2", *_layer(4, 1, 2, 2, (5, 6), (2, 2)), stride=2),
        Case("dilation 2", *_layer(5, 1, 2, 2, (5, 6), (2, 3)), dilation=2),
        Case("two groups", *_layer(6, 1, 4, 6, (3, 4), (2, 2), groups=2), groups=2),
        Case("depthwise", *_layer(7, 2, 3, 3, (4, 3), (3, 2), groups=3), groups=3),
        Case(
            "all at once",
            *_layer(8, 2, 4, 4, (7, 9), (3, 2), groups=2),
            stride=2,
            padding=1,
            dilation=2,
            groups=2,
        ),
    ],
    more=any_layer,
    hints=[
        "Without groups: `columns(x, ...)` is (N, C*R*S, P*Q), and `w.reshape(O, -1)` is (O, "
        "C*R*S). `@` multiplies the last two axes, for each image.",
        "The product is (N, O, P*Q); reshape it to (N, O, P, Q), with Q from exercise 1 and -1 "
        "for P. The bias needs the shape (O, 1, 1) to go along the channels.",
        "With groups: the columns as (N, G, C/G*R*S, P*Q), the kernels as (G, O/G, C/G*R*S). Since "
        "c is the slowest letter in C*R*S, the channels of a group are neighbours, and one reshape "
        "each is enough.",
        "The product is then (N, G, O/G, P*Q), and reshaping it to (N, O, P, Q) puts the groups "
        "one after the other.",
    ],
)


@conv2d.mutant("The bias is missing: each output channel has a number added to it.")
def bias_forgotten(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    return _convolve(x, w, 0.0, stride, padding, dilation, groups)


@conv2d.mutant(
    "You flip the kernels. That is convolution as mathematics has it; here, as in all deep "
    "learning libraries, kernels are not flipped."
)
def kernels_flipped(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    return _convolve(x, w[:, :, ::-1, ::-1], b, stride, padding, dilation, groups)


@conv2d.mutant(
    "Kernels and columns number their C * R * S entries in different orders: both must be in the "
    "order c, r, s."
)
def kernels_in_another_order(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    mixed = w.transpose(0, 2, 3, 1).reshape(w.shape)
    return _convolve(x, mixed, b, stride, padding, dilation, groups)


@conv2d.mutant(
    "The output's rows and columns are mixed up: reshape P * Q to (P, Q), not to (Q, P)."
)
def output_size_turned(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    y = _convolve(x, w, b, stride, padding, dilation, groups)
    return y.reshape(*y.shape[:2], y.shape[3], y.shape[2])


@conv2d.mutant("The channels of the output are its last axis; here they come second, (N, O, P, Q).")
def channels_last(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    return _convolve(x, w, b, stride, padding, dilation, groups).transpose(0, 2, 3, 1)


@conv2d.mutant("Stride and dilation are in each other's place; check the order of the arguments.")
def stride_for_dilation(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    return _convolve(x, w, b, dilation, padding, stride, groups)


@conv2d.mutant("The padding is on one side only: zeros go around all four sides.")
def padded_on_one_side(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    x = np.pad(x, ((0, 0), (0, 0), (padding, 0), (padding, 0)))
    return _convolve(x, w, b, stride, 0, dilation, groups)


@conv2d.mutant(
    "A group takes every G-th channel; it takes C/G neighbours: the first group the first ones, "
    "and so on."
)
def groups_take_every_gth_channel(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    order = np.arange(x.shape[1]).reshape(-1, groups).T.ravel()
    return _convolve(x[:, order], w, b, stride, padding, dilation, groups)


@conv2d.mutant(
    "The output's channels take turns between the groups; first come all of the first group, then "
    "all of the second."
)
def output_takes_turns(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    y = _convolve(x, w, 0.0, stride, padding, dilation, groups)
    order = np.arange(len(w)).reshape(groups, -1).T.ravel()
    return y[:, order] + b[:, None, None]


@conv2d.mutant(
    "The kernels take turns between the groups; the first O/G belong to the first group, so that "
    "they are reshaped with G in front of O/G."
)
def kernels_take_turns(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    order = np.arange(len(w)).reshape(-1, groups).T.ravel()
    return _convolve(x, w[order], b, stride, padding, dilation, groups)


@conv2d.mutant(
    "Channels and taps of the groups got mixed up: in C * R * S the letter c is the slowest, so "
    "that the columns are reshaped with G in front of C/G * R * S."
)
def groups_of_taps(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    seen = columns_reference(x, *w.shape[2:], stride, padding, dilation)
    seen = seen.reshape(len(x), -1, groups, seen.shape[2]).swapaxes(1, 2)
    y = w.reshape(groups, len(w) // groups, -1) @ seen
    Q = output_size_reference(x.shape[3], w.shape[3], stride, padding, dilation)
    return y.reshape(len(x), len(w), -1, Q) + b[:, None, None]


@conv2d.mutant(
    "The groups are ignored: with C/G channels to a kernel, the matrices no longer fit. Make G an "
    "axis in front of both.",
    raises=True,
)
def groups_ignored(x, w, b, stride=1, padding=0, dilation=1, groups=1):
    seen = columns_reference(x, *w.shape[2:], stride, padding, dilation)
    y = w.reshape(len(w), -1) @ seen + b[:, None]
    Q = output_size_reference(x.shape[3], w.shape[3], stride, padding, dilation)
    return y.reshape(*y.shape[:2], -1, Q)


# -- receptive_field ------------------------------------------------------------------------


def receptive_field_reference(layers):
    width, jump = 1, 1
    for kernel, stride, dilation in layers:
        width += (kernel - 1) * dilation * jump
        jump *= stride
    return width


def any_stack(rng):
    layers = rng.integers(1, 4, size=(rng.integers(1, 6), 3))
    return Case("any stack", [tuple(int(n) for n in layer) for layer in layers])


receptive_field = Exercise(
    "05.receptive_field",
    reference=receptive_field_reference,
    cases=[
        Case("one layer of 5", [(5, 1, 1)]),
        Case("two layers of 3", [(3, 1, 1), (3, 1, 1)]),
        Case("no layer: the pixel itself", []),
        Case("a stride in the first layer", [(3, 2, 1), (3, 1, 1)]),
        Case("a stride in the last layer", [(3, 1, 1), (3, 2, 1)]),
        Case("strides 2, 2 and another layer", [(3, 2, 1), (3, 2, 1), (5, 1, 1)]),
        Case("dilations 1, 2, 4", [(3, 1, 1), (3, 1, 2), (3, 1, 4)]),
        Case("a layer of 1 with a stride", [(1, 2, 1), (3, 1, 2)]),
        Case("the first layers of a ResNet", [(7, 2, 1), (3, 2, 1), (3, 1, 1), (3, 1, 1)]),
    ],
    more=any_stack,
    hints=[
        "Go through the layers from the image upwards with two numbers: the width, and how many "
        "pixels of the image lie between neighbours.",
        "A layer adds (kernel - 1) * dilation steps of the layer *below* it; its own stride makes "
        "the steps of those above it larger.",
        "In each round first `width += (kernel - 1) * dilation * jump`, then `jump *= stride`.",
    ],
)


@receptive_field.mutant(
    "A layer's own stride is applied too early: it spaces the pixels of that layer, on which the "
    "next one counts. First the width, then the jump."
)
def stride_too_early(layers):
    width, jump = 1, 1
    for kernel, stride, dilation in layers:
        jump *= stride
        width += (kernel - 1) * dilation * jump
    return width


@receptive_field.mutant("The strides are missing: behind a stride of 2 each step is two pixels.")
def strides_ignored(layers):
    return 1 + sum((kernel - 1) * dilation for kernel, _, dilation in layers)


@receptive_field.mutant("The dilation is missing: it sets the taps of a layer apart.")
def dilations_ignored(layers):
    return receptive_field_reference([(kernel, stride, 1) for kernel, stride, _ in layers])


@receptive_field.mutant(
    "The stack is read from the other end: the first layer is the one next to the image."
)
def from_the_other_end(layers):
    return receptive_field_reference(layers[::-1])


@receptive_field.mutant(
    "Each layer adds kernel - 1 gaps, not kernel: the window of one pixel has width 1."
)
def taps_for_gaps(layers):
    width, jump = 1, 1
    for kernel, stride, dilation in layers:
        width += kernel * dilation * jump
        jump *= stride
    return width


@receptive_field.mutant(
    "The jump is replaced by the last stride; the strides of all layers below multiply."
)
def last_stride_only(layers):
    width, jump = 1, 1
    for kernel, stride, dilation in layers:
        width += (kernel - 1) * dilation * jump
        jump = stride
    return width


@receptive_field.mutant(
    "The dilation is part of the jump here; it sets apart the taps of its layer only."
)
def dilation_in_the_jump(layers):
    width, jump = 1, 1
    for kernel, stride, dilation in layers:
        width += (kernel - 1) * dilation * jump
        jump *= stride * dilation
    return width


@receptive_field.mutant(
    "Each layer is spaced by its own stride; what counts are the strides of the layers below it, "
    "multiplied."
)
def own_stride(layers):
    return 1 + sum((kernel - 1) * dilation * stride for kernel, stride, dilation in layers)


@receptive_field.mutant("The strides are added to the jump; they multiply: the jump begins at 1.")
def strides_added(layers):
    width, jump = 1, 1
    for kernel, stride, dilation in layers:
        width += (kernel - 1) * dilation * jump
        jump += stride
    return width


@receptive_field.mutant(
    "Only the gaps between taps are spaced out: (kernel - 1) * dilation * jump, with the -1 inside."
)
def one_taken_off_too_late(layers):
    width, jump = 1, 1
    for kernel, stride, dilation in layers:
        width += kernel * dilation * jump - 1
        jump *= stride
    return width
