import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules

# -- conv_cost ------------------------------------------------------------------------------


def conv_cost_reference(C, O, kernel, places, groups=1):
    parameters = O * (C // groups) * kernel[0] * kernel[1]
    return parameters, places[0] * places[1] * parameters


def _any_convolution(rng):
    groups, c, o, r, s, p, q = (int(n) for n in rng.integers(1, 9, size=7))
    return Case("any convolution", groups * c, groups * o, (r, s), (p, q), groups=groups)


conv_cost = Exercise(
    "08.conv_cost",
    reference=conv_cost_reference,
    cases=[
        Case("one channel, one kernel", 1, 1, (3, 3), (2, 2)),
        Case("64 channels to 128", 64, 128, (3, 3), (14, 14)),
        Case("a 1 x 7 kernel", 4, 6, (1, 7), (5, 3)),
        Case("4 groups", 64, 128, (3, 3), (14, 14), groups=4),
        Case("depthwise", 32, 32, (5, 5), (8, 8), groups=32),
    ],
    more=_any_convolution,
    hints=[
        "The weights have shape (O, C / G, R, S). How many numbers is that?",
        "Each weight is multiplied once at every one of the P * Q places.",
    ],
)


@conv_cost.mutant(
    "A kernel of a grouped convolution reads C / G channels; you counted all C of them."
)
def groups_ignored(C, O, kernel, places, groups=1):
    return conv_cost_reference(C, O, kernel, places)


@conv_cost.mutant(
    "You divided by the groups twice: each kernel reads C / G, but there are O kernels."
)
def groups_twice(C, O, kernel, places, groups=1):
    parameters = (O // groups) * (C // groups) * kernel[0] * kernel[1]
    return parameters, places[0] * places[1] * parameters


@conv_cost.mutant("The two numbers are in each other's place: first the parameters.")
def swapped(C, O, kernel, places, groups=1):
    return conv_cost_reference(C, O, kernel, places, groups)[::-1]


@conv_cost.mutant("You counted a bias for each output channel; this convolution has none.")
def with_bias(C, O, kernel, places, groups=1):
    parameters = O * (C // groups) * kernel[0] * kernel[1] + O
    return parameters, places[0] * places[1] * parameters


@conv_cost.mutant("The kernel need not be square: R * S, not R * R.")
def square_kernel(C, O, kernel, places, groups=1):
    return conv_cost_reference(C, O, (kernel[0], kernel[0]), places, groups)


# -- channel_shuffle ------------------------------------------------------------------------


def _transposed(x, rows):
    N, C, H, W = x.shape
    return x.reshape(N, rows, C // rows, H, W).swapaxes(1, 2).reshape(N, C, H, W)


def channel_shuffle_reference(x, groups):
    def vjp_x(dy):
        return _transposed(dy, x.shape[1] // groups)

    return _transposed(x, groups), vjp_x


def _channels(count):
    return np.arange(float(count)).reshape(1, count, 1, 1)


def _shuffled(rng):
    groups, each, N, H, W = rng.integers(2, 5, size=5)
    return Case("any shape", rng.normal(size=(N, groups * each, H, W)), groups=int(groups))


channel_shuffle = Exercise(
    "08.channel_shuffle",
    reference=channel_shuffle_reference,
    observe=rules,
    cases=[
        Case("six channels, two groups", _channels(6), groups=2),
        Case("six channels, three groups", _channels(6), groups=3),
        Case("one group", _channels(4), groups=1),
        Case("two images of 2 x 3", np.arange(96.0).reshape(2, 8, 2, 3), groups=4),
    ],
    more=_shuffled,
    hints=[
        "Write the channels as a matrix of G rows and C / G columns. The order asked for reads "
        "it column by column.",
        "`x.reshape(N, groups, C // groups, H, W)` makes the matrix, `swapaxes(1, 2)` turns it, "
        "and a second reshape makes one axis of channels again.",
        "The rule brings every channel back to where it came from. Turning a matrix back is to "
        "turn one of C / G rows and G columns.",
    ],
)


@channel_shuffle.mutant(
    "The rule shuffles with the same number of groups once more; the way back has C / G groups."
)
def shuffled_again(x, groups):
    return _transposed(x, groups), lambda dy: _transposed(dy, groups)


@channel_shuffle.mutant("The rule hands dy on as it is: its channels are still in the new order.")
def rule_without_shuffle(x, groups):
    return _transposed(x, groups), lambda dy: dy


@channel_shuffle.mutant(
    "The matrix has C / G rows in your answer; it has G rows, one for each group."
)
def rows_and_columns_swapped(x, groups):
    C = x.shape[1]
    return _transposed(x, C // groups), lambda dy: _transposed(dy, groups)


@channel_shuffle.mutant(
    "Reshaping alone moves nothing: between the two reshapes the axes are to be swapped."
)
def not_transposed(x, groups):
    return x.copy(), lambda dy: dy


@channel_shuffle.mutant("You turned the order of the groups round; the groups are to take turns.")
def groups_reversed(x, groups):
    N, C, H, W = x.shape

    def reversed_groups(x):
        return x.reshape(N, groups, C // groups, H, W)[:, ::-1].reshape(N, C, H, W)

    return reversed_groups(x), reversed_groups


# -- shortcut -------------------------------------------------------------------------------


def _shortcut(x, channels, start=0, before=0, step=2):
    """Every `step`-th position from `start`, `before` channels of zeros in front."""
    N, C = x.shape[:2]
    kept = x[:, :, start::step, start::step]
    y = np.zeros((N, channels, *kept.shape[2:]))
    y[:, before : before + C] = kept

    def vjp_x(dy):
        dx = np.zeros(x.shape)
        dx[:, :, start::step, start::step] = dy[:, before : before + C]
        return dx

    return y, vjp_x


def shortcut_reference(x, channels):
    return _shortcut(x, channels)


def _halved(rng):
    N, C, H, W = (int(n) for n in rng.integers(2, 6, size=4))
    return Case("any shape", rng.normal(size=(N, C, H, W)), channels=C + int(rng.integers(1, 5)))


shortcut = Exercise(
    "08.shortcut",
    reference=shortcut_reference,
    observe=rules,
    cases=[
        Case("one channel of 2 x 2", np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), channels=2),
        Case("two images of 4 x 4", np.arange(1.0, 65.0).reshape(2, 2, 4, 4), channels=4),
        Case("odd sizes", np.arange(1.0, 31.0).reshape(1, 2, 3, 5), channels=3),
    ],
    more=_halved,
    hints=[
        "A slice can take steps: `x[:, :, ::2, ::2]`.",
        "Make an array of zeros of the output's shape and write into its first C channels.",
        "In the rule: positions that were left out get zero, and what arrives at the channels of "
        "zeros goes nowhere. An array of zeros again, and `dx[:, :, ::2, ::2] = dy[:, :C]`.",
    ],
)


@shortcut.mutant(
    "The zeros stand in front of the channels in your answer; they belong behind them."
)
def zeros_in_front(x, channels):
    return _shortcut(x, channels, before=channels - x.shape[1])


@shortcut.mutant(
    "Half of the zeros stand in front of the channels in your answer; all belong behind them."
)
def zeros_on_both_sides(x, channels):
    return _shortcut(x, channels, before=(channels - x.shape[1]) // 2)


@shortcut.mutant("You took every second position from the second one on; begin with the first.")
def from_the_second(x, channels):
    N, C, H, W = x.shape
    padded = np.zeros((N, C, H + H % 2, W + W % 2))
    padded[:, :, :H, :W] = x
    y, vjp = _shortcut(padded, channels, start=1)
    return y, lambda dy: vjp(dy)[:, :, :H, :W]


@shortcut.mutant(
    "The channels were repeated to fill up; the parameter-free shortcut fills up with zeros."
)
def repeated_channels(x, channels):
    C = x.shape[1]
    source = np.arange(channels) % C

    def vjp_x(dy):
        dx = np.zeros(x.shape)
        for channel, c in enumerate(source):
            dx[:, c, ::2, ::2] += dy[:, channel]
        return dx

    return x[:, source, ::2, ::2], vjp_x


@shortcut.mutant(
    "The rule gives the positions that were left out a gradient too; they did not reach the output."
)
def spread_over_all(x, channels):
    H, W = x.shape[2:]
    y, _ = _shortcut(x, channels)

    def vjp_x(dy):
        return dy[:, : x.shape[1]].repeat(2, axis=2).repeat(2, axis=3)[:, :, :H, :W]

    return y, vjp_x


@shortcut.mutant("You averaged 2 x 2 positions; this shortcut takes one of them as it is.")
def averaged(x, channels):
    N, C, H, W = x.shape
    padded = np.zeros((N, C, H + H % 2, W + W % 2))
    padded[:, :, :H, :W] = x
    corners = [_shortcut(padded[:, :, i:, j:], channels) for i in (0, 1) for j in (0, 1)]

    def vjp_x(dy):
        dx = np.zeros(padded.shape)
        for i in (0, 1):
            for j in (0, 1):
                dx[:, :, i::2, j::2] = dy[:, :C] / 4
        return dx[:, :, :H, :W]

    return sum(y for y, _ in corners) / 4, vjp_x


# -- full_kernel ----------------------------------------------------------------------------


def full_kernel_reference(w, groups):
    O, D, R, S = w.shape
    full = np.zeros((groups, O // groups, groups, D, R, S))
    for g in range(groups):
        full[g, :, g] = w.reshape(groups, O // groups, D, R, S)[g]
    return full.reshape(O, groups * D, R, S)


def _kernels(*shape):
    return np.arange(1.0, 1 + np.prod(shape)).reshape(shape)


def _grouped(rng):
    groups, o, d, r, s = (int(n) for n in rng.integers(1, 4, size=5))
    return Case("any shape", rng.normal(size=(groups * o, d, r, s)), groups=groups)


full_kernel = Exercise(
    "08.full_kernel",
    reference=full_kernel_reference,
    cases=[
        Case("depthwise, two channels", _kernels(2, 1, 1, 1), groups=2),
        Case("two groups of three kernels", _kernels(6, 2, 1, 2), groups=2),
        Case("one group", _kernels(2, 3, 2, 2), groups=1),
        Case("three groups", _kernels(6, 2, 3, 3), groups=3),
    ],
    more=_grouped,
    hints=[
        "Begin with zeros of the shape that is asked for. What is C, if each group reads C / G?",
        "For group g: which kernels are its own, and which channels do they read?",
        "Kernels g * O/G to (g + 1) * O/G read channels g * C/G to (g + 1) * C/G. Seen as a matrix "
        "of kernels and channels, the weights stand in blocks on the diagonal.",
    ],
)


@full_kernel.mutant(
    "You repeated the weights for every group: then each kernel reads all channels. Channels of "
    "other groups have weight zero."
)
def tiled(w, groups):
    return np.tile(w, (1, groups, 1, 1))


@full_kernel.mutant(
    "All groups read the first C / G channels; group g reads the g-th C / G of them."
)
def all_read_the_first(w, groups):
    O, D, R, S = w.shape
    full = np.zeros((O, groups * D, R, S))
    full[:, :D] = w
    return full


@full_kernel.mutant(
    "Kernels take turns between the groups in your answer; the first O / G belong to the first "
    "group."
)
def kernels_take_turns(w, groups):
    O, D, R, S = w.shape
    full = np.zeros((O, groups * D, R, S))
    for o in range(O):
        g = o % groups
        full[o, g * D : (g + 1) * D] = w[o]
    return full


@full_kernel.mutant(
    "Channels take turns between the groups in your answer; group g reads C / G in a row."
)
def channels_take_turns(w, groups):
    O, D, R, S = w.shape
    full = np.zeros((O, groups * D, R, S))
    for o in range(O):
        full[o, o * groups // O :: groups] = w[o]
    return full


@full_kernel.mutant(
    "A group reads C / G channels and has O / G kernels; you took C / G kernels for each group."
)
def as_many_kernels_as_channels(w, groups):
    O, D, R, S = w.shape
    full = np.zeros((O, groups * D, R, S))
    for o in range(min(O, groups * D)):
        g = o // D
        full[o, g * D : (g + 1) * D] = w[o]
    return full


# -- dense_layer ----------------------------------------------------------------------------


def _dense_layer(x, w, *, relu=True, mask=True, own=1.0, front=False):
    """The layer with its rules; each setting can be replaced by a mistake."""
    C, k = x.shape[1], w.shape[0]
    a = np.einsum("kc,nchw->nkhw", w, x)
    r = np.maximum(a, 0) if relu else a
    old, new = (slice(k, None), slice(None, k)) if front else (slice(None, C), slice(C, None))

    def back_to_a(dy):
        return dy[:, new] * (a > 0) if mask else dy[:, new]

    def vjp_x(dy):
        return own * dy[:, old] + np.einsum("kc,nkhw->nchw", w, back_to_a(dy))

    def vjp_w(dy):
        return np.einsum("nkhw,nchw->kc", back_to_a(dy), x)

    return np.concatenate([r, x] if front else [x, r], axis=1), (vjp_x, vjp_w)


def dense_layer_reference(x, w):
    return _dense_layer(x, w)


def _layer(rng, N, C, H, W, k):
    return rng.normal(size=(N, C, H, W)), rng.normal(size=(k, C))


dense_layer = Exercise(
    "08.dense_layer",
    reference=dense_layer_reference,
    observe=rules,
    cases=[
        Case(
            "one position, two channels",
            np.array([[[[1.0]], [[2.0]]]]),
            np.array([[1.0, 1.0], [1.0, -1.0]]),
        ),
        Case("two images", *_layer(np.random.default_rng(0), 2, 3, 2, 2, 2)),
        Case("as many new channels as old", *_layer(np.random.default_rng(1), 3, 3, 1, 3, 3)),
    ],
    more=lambda rng: Case("any shape", *_layer(rng, *(int(n) for n in rng.integers(2, 5, size=5)))),
    hints=[
        'At each position, w acts on the channels: `np.einsum("kc,nchw->nkhw", w, x)`.',
        "`np.concatenate([x, r], axis=1)` joins; the rule first cuts dy at channel C.",
        "The second part of dy goes back through the ReLU, da = dy[:, C:] * (a > 0), and from "
        "there to x and to w.",
        "x is read twice: by the join, which hands dy[:, :C] back, and by the convolution. "
        "Add both.",
    ],
)


@dense_layer.mutant("x is joined to the output as well: dy[:, :C] is missing in the gradient of x.")
def join_forgotten(x, w):
    return _dense_layer(x, w, own=0.0)


@dense_layer.mutant(
    "The gradient of x holds the joined part alone; x was read by the convolution, too."
)
def convolution_forgotten(x, w):
    y, (_, vjp_w) = _dense_layer(x, w)
    return y, (lambda dy: dy[:, : x.shape[1]], vjp_w)


@dense_layer.mutant("The rules do not mask with a > 0: the ReLU stops what is not positive.")
def unmasked(x, w):
    return _dense_layer(x, w, mask=False)


@dense_layer.mutant("The ReLU is missing in front of the join.")
def no_relu(x, w):
    return _dense_layer(x, w, relu=False, mask=False)


@dense_layer.mutant("The new channels stand in front of the old ones in your answer: y = [x, r].")
def new_in_front(x, w):
    return _dense_layer(x, w, front=True)


@dense_layer.mutant("You added r to x; a DenseNet lays it behind x.")
def added(x, w):
    a = np.einsum("kc,nchw->nkhw", w, x)
    return x + np.maximum(a, 0), (lambda dy: dy, lambda dy: w)


# -- PreActivationBlock ---------------------------------------------------------------------


class PreActivationBlockReference(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x):
        a = F.relu(self.bn1(x))
        s = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(a)
        return s + self.branch(a)

    def branch(self, a):
        return self.conv2(F.relu(self.bn2(self.conv1(a))))


def _images(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).round(1)


PreActivationBlock = Exercise(
    "08.PreActivationBlock",
    reference=PreActivationBlockReference,
    observe=module,
    cases=[
        Case("the shape stays", _images(2, 2, 3, 3), in_channels=2, out_channels=2),
        Case("more channels", _images(2, 2, 3, 3), in_channels=2, out_channels=3),
        Case("stride 2", _images(3, 2, 4, 4), in_channels=2, out_channels=2, stride=2),
        Case("both", _images(2, 2, 4, 4), in_channels=2, out_channels=4, stride=2),
    ],
    more=lambda rng: Case(
        "another size",
        rng.normal(size=(3, 3, 5, 4)),
        in_channels=3,
        out_channels=int(rng.choice([3, 4])),
        stride=int(rng.choice([1, 2])),
    ),
    tolerance=1e-6,
    hints=[
        "bn1 normalises what comes in, so it has in_channels; bn2 stands behind conv1.",
        "The stride belongs to conv1 and to the shortcut; both convolutions of 3 x 3 have "
        "padding 1.",
        "The shortcut is a convolution if `stride != 1 or in_channels != out_channels`.",
        "In forward, compute `a = F.relu(self.bn1(x))` once: the branch reads it, and a shortcut "
        "that is a convolution, too. An identity shortcut hands on x.",
    ],
)


@PreActivationBlock.mutant(
    "The identity shortcut hands on a; it is to hand on x, or the sum is no longer left alone."
)
class identity_of_a(PreActivationBlockReference):
    def forward(self, x):
        a = F.relu(self.bn1(x))
        return self.shortcut(a) + self.branch(a)


@PreActivationBlock.mutant(
    "The convolution of the shortcut reads x; where the shape changes it reads a, as the branch "
    "does."
)
class shortcut_of_x(PreActivationBlockReference):
    def forward(self, x):
        return self.shortcut(x) + self.branch(F.relu(self.bn1(x)))


@PreActivationBlock.mutant(
    "There is a ReLU behind the sum: that is the first ResNet. Here nothing stands behind it."
)
class relu_behind_the_sum(PreActivationBlockReference):
    def forward(self, x):
        return F.relu(super().forward(x))


@PreActivationBlock.mutant("The ReLU behind bn2 is missing.")
class second_relu_missing(PreActivationBlockReference):
    def branch(self, a):
        return self.conv2(self.bn2(self.conv1(a)))


@PreActivationBlock.mutant("The ReLU behind bn1 is missing.")
class first_relu_missing(PreActivationBlockReference):
    def forward(self, x):
        a = self.bn1(x)
        s = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(a)
        return s + self.branch(a)


@PreActivationBlock.mutant("The shortcut is missing in the sum: the branch comes back alone.")
class no_shortcut(PreActivationBlockReference):
    def forward(self, x):
        return self.branch(F.relu(self.bn1(x)))


@PreActivationBlock.mutant("`nn.Conv2d` has a bias unless it is told `bias=False`.")
class biases_left_in(PreActivationBlockReference):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)


@PreActivationBlock.mutant(
    "The ReLU stands in front of the batch normalisation: a = relu(BN(x)), and so in the branch."
)
class relu_first(PreActivationBlockReference):
    def forward(self, x):
        a = self.bn1(F.relu(x))
        s = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(a)
        return s + self.branch(a)

    def branch(self, a):
        return self.conv2(self.bn2(F.relu(self.conv1(a))))


@PreActivationBlock.mutant("The stride is in the second convolution; the first one has it.")
class stride_in_the_second(PreActivationBlockReference):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False)


@PreActivationBlock.mutant(
    "The shortcut is a convolution only where the channels change; a stride changes the shape, too."
)
class stride_forgotten_in_the_shortcut(PreActivationBlockReference):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        if in_channels == out_channels:
            self.shortcut = nn.Identity()


@PreActivationBlock.mutant("The shortcut is a convolution in every block; keep x where it fits.")
class convolution_in_every_shortcut(PreActivationBlockReference):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


@PreActivationBlock.mutant(
    "The shortcut has a batch normalisation behind its convolution; this one has none, for it "
    "reads what bn1 has normalised."
)
class normalised_shortcut(PreActivationBlockReference):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(in_channels, out_channels, stride)
        if not isinstance(self.shortcut, nn.Identity):
            self.shortcut = nn.Sequential(self.shortcut, nn.BatchNorm2d(out_channels))
