import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Code, Exercise, module, rules

# -- squeeze --------------------------------------------------------------------------------


def squeeze_reference(x):
    H, W = x.shape[2:]

    def vjp_x(dy):
        return np.broadcast_to(dy[:, :, None, None] / (H * W), x.shape)

    return x.mean(axis=(2, 3)), vjp_x


squeeze = Exercise(
    "13.squeeze",
    reference=squeeze_reference,
    observe=rules,
    cases=[
        Case("one image, one channel", np.array([[[[1.0, 3.0], [5.0, 7.0]]]])),
        Case("one image, two channels", np.arange(12.0).reshape(1, 2, 2, 3)),
        Case("two images", np.arange(24.0).reshape(2, 3, 2, 2) - 8),
    ],
    more=lambda rng: Case("any shape", rng.normal(size=rng.integers(1, 5, size=4))),
    hints=[
        "Every channel of every image becomes one number. Which axes does the output lack?",
        "`x.mean(axis=(2, 3))` averages over both position axes at once.",
        "Each position enters the mean with weight 1 / (H * W), so each gets that share of dy. "
        "`dy[:, :, None, None]` has axes of length 1 where the positions were.",
    ],
)


@squeeze.mutant("You added the positions up; the squeeze is their mean, so divide by H * W.")
def sum_for_mean(x):
    shape = x.shape
    return x.sum(axis=(2, 3)), lambda dy: np.broadcast_to(dy[:, :, None, None], shape)


@squeeze.mutant("The rule gives every position the whole dy; each has only a share 1 / (H * W).")
def whole_dy_everywhere(x):
    shape = x.shape
    return x.mean(axis=(2, 3)), lambda dy: np.broadcast_to(dy[:, :, None, None], shape)


@squeeze.mutant("The rule's result has axes of length 1; the gradient of x needs the shape of x.")
def not_spread_out(x):
    H, W = x.shape[2:]
    return x.mean(axis=(2, 3)), lambda dy: dy[:, :, None, None] / (H * W)


@squeeze.mutant("You averaged over the channels; the squeeze keeps them and averages positions.")
def over_channels(x):
    C = x.shape[1]
    return x.mean(axis=1), lambda dy: np.broadcast_to(dy[:, None] / C, x.shape)


@squeeze.mutant("You averaged over the images of the batch too; each has its own squeeze.")
def over_the_batch(x):
    N, _, H, W = x.shape
    y = x.mean(axis=(0, 2, 3))
    return y, lambda dy: np.broadcast_to(dy[None, :, None, None] / (N * H * W), x.shape)


# -- excite ---------------------------------------------------------------------------------


def excite_reference(z, w1, w2):
    h = np.maximum(z @ w1.T, 0)
    return 1 / (1 + np.exp(-(h @ w2.T)))


def _weights(rng, N, C, hidden):
    return (rng.normal(size=(N, C)), rng.normal(size=(hidden, C)), rng.normal(size=(C, hidden)))


excite = Exercise(
    "13.excite",
    reference=excite_reference,
    cases=[
        Case(
            "one image, two channels, two hidden units",
            np.array([[1.0, 2.0]]),
            np.array([[1.0, -0.25], [0.5, -1.0]]),
            np.array([[2.0, 1.0], [-2.0, 0.5]]),
        ),
        Case(
            "two images",
            np.array([[1.0, 2.0], [2.0, 0.5]]),
            np.array([[1.0, -1.0], [0.5, 0.5]]),
            np.array([[1.0, 0.5], [-1.0, 2.0]]),
        ),
        Case("four channels", *_weights(np.random.default_rng(0), 3, 4, 2)),
    ],
    more=lambda rng: Case("any sizes", *_weights(rng, *rng.integers(1, 6, size=3))),
    hints=[
        "Two linear layers, a ReLU between them, a sigmoid at the end. W1 comes first.",
        "A weight of shape (out, in) acts on rows from the right as its transpose: `z @ w1.T`.",
        "`h = np.maximum(z @ w1.T, 0)`, and the sigmoid of `h @ w2.T` is what is asked.",
    ],
)


@excite.mutant("The ReLU between the two layers is missing.")
def no_relu(z, w1, w2):
    return 1 / (1 + np.exp(-(z @ w1.T @ w2.T)))


@excite.mutant("The final sigmoid is missing: a gate lies between 0 and 1.")
def no_sigmoid(z, w1, w2):
    return np.maximum(z @ w1.T, 0) @ w2.T


@excite.mutant("The exponent's sign is turned round: the sigmoid is 1 / (1 + exp(-v)).")
def sigmoid_of_the_opposite(z, w1, w2):
    return 1 / (1 + np.exp(np.maximum(z @ w1.T, 0) @ w2.T))


@excite.mutant("Softmax makes the channels compete; here each has a gate of its own, a sigmoid.")
def softmax_for_sigmoid(z, w1, w2):
    e = np.exp(np.maximum(z @ w1.T, 0) @ w2.T)
    return e / e.sum(axis=1, keepdims=True)


@excite.mutant("The ReLU belongs between the two layers; you applied it behind the second.")
def relu_behind_both(z, w1, w2):
    return 1 / (1 + np.exp(-np.maximum(z @ w1.T @ w2.T, 0)))


@excite.mutant(
    "You applied the ReLU to the output of the second layer too, so no gate is below 1/2."
)
def relu_before_the_sigmoid(z, w1, w2):
    return 1 / (1 + np.exp(-np.maximum(np.maximum(z @ w1.T, 0) @ w2.T, 0)))


# -- scale ----------------------------------------------------------------------------------


def scale_reference(x, s):
    gate = s[:, :, None, None]

    def vjp_x(dy):
        return dy * gate

    def vjp_s(dy):
        return (dy * x).sum(axis=(2, 3))

    return x * gate, (vjp_x, vjp_s)


def _scaled(rng, shape):
    return rng.normal(size=shape), rng.uniform(size=shape[:2])


scale = Exercise(
    "13.scale",
    reference=scale_reference,
    observe=rules,
    cases=[
        Case(
            "two images, two channels",
            np.arange(1.0, 9.0).reshape(2, 2, 1, 2),
            np.array([[0.5, 0.25], [1.0, 0.0]]),
        ),
        Case("two images, three channels", *_scaled(np.random.default_rng(1), (2, 3, 2, 3))),
        Case("as many channels as columns", *_scaled(np.random.default_rng(2), (3, 3, 3, 3))),
    ],
    more=lambda rng: Case("any shape", *_scaled(rng, tuple(rng.integers(1, 5, size=4)))),
    hints=[
        "s has shape (N, C). What shape does it need, so that it lines up with N and C of x?",
        "`s[:, :, None, None]` has shape (N, C, 1, 1).",
        "One gate multiplies all positions of its channel, so its gradient is a sum over them.",
    ],
)


@scale.mutant("One gate acts on all positions of its channel: sum dy * x over them, not the mean.")
def mean_for_sum(x, s):
    gate = s[:, :, None, None]
    return x * gate, (lambda dy: dy * gate, lambda dy: (dy * x).mean(axis=(2, 3)))


@scale.mutant("The rule of s is not summed over the positions: a gradient has its input's shape.")
def not_summed(x, s):
    gate = s[:, :, None, None]
    return x * gate, (lambda dy: dy * gate, lambda dy: dy * x)


@scale.mutant("The rule of s sums dy alone: the other factor of the product, x, is missing.")
def without_x(x, s):
    gate = s[:, :, None, None]
    return x * gate, (lambda dy: dy * gate, lambda dy: dy.sum(axis=(2, 3)))


@scale.mutant("The rule of s sums over the batch too; each image has gates of its own.")
def summed_over_the_batch(x, s):
    gate = s[:, :, None, None]
    return x * gate, (lambda dy: dy * gate, lambda dy: (dy * x).sum(axis=(0, 2, 3)))


@scale.mutant("The other factor in the gradient of s is x, what s multiplies, not the product y.")
def output_for_x(x, s):
    gate = s[:, :, None, None]
    y = x * gate
    return y, (lambda dy: dy * gate, lambda dy: (dy * y).sum(axis=(2, 3)))


@scale.mutant("The two rules are in each other's place: first the one of x, then the one of s.")
def rules_swapped(x, s):
    y, (vjp_x, vjp_s) = scale_reference(x, s)
    return y, (vjp_s, vjp_x)


@scale.mutant(
    "`x * s` lines s up with the last axes, rows and columns; it belongs to the first two."
)
def wrong_axes(x, s):
    return x * s, (lambda dy: dy * s, lambda dy: (dy * x).sum(axis=(0, 1)))


# -- squeeze_excite -------------------------------------------------------------------------


def _squeeze_excite(
    x,
    w1,
    w2,
    *,
    context=1.0,
    gather=np.sum,
    slope=lambda s: s * (1 - s),
    mask=lambda a: a > 0,
):
    """The whole module with its rules; each setting can be replaced by a mistake."""
    H, W = x.shape[2:]
    z = x.mean(axis=(2, 3))
    a = z @ w1.T
    h = np.maximum(a, 0)
    s = 1 / (1 + np.exp(-(h @ w2.T)))
    gate = s[:, :, None, None]

    def back_to_v(dy):
        return gather(dy * x, axis=(2, 3)) * slope(s)

    def back_to_a(dy):
        return (back_to_v(dy) @ w2) * mask(a)

    def vjp_x(dy):
        dz = back_to_a(dy) @ w1
        return gate * dy + context * dz[:, :, None, None] / (H * W)

    def vjp_w1(dy):
        return back_to_a(dy).T @ z

    def vjp_w2(dy):
        return back_to_v(dy).T @ h

    return gate * x, (vjp_x, vjp_w1, vjp_w2)


def squeeze_excite_reference(x, w1, w2):
    return _squeeze_excite(x, w1, w2)


def _whole(rng, N, C, hidden, H, W):
    return (
        rng.normal(size=(N, C, H, W)) + 0.5,
        rng.normal(size=(hidden, C)),
        rng.normal(size=(C, hidden)),
    )


squeeze_excite = Exercise(
    "13.squeeze_excite",
    reference=squeeze_excite_reference,
    observe=rules,
    cases=[
        Case(
            "one image, two channels, one hidden unit",
            np.array([[[[1.0, 3.0]], [[2.0, 0.0]]]]),
            np.array([[1.0, 0.5]]),
            np.array([[0.5], [-1.0]]),
        ),
        Case("two images, four channels", *_whole(np.random.default_rng(3), 2, 4, 3, 2, 2)),
        Case("three images, wide", *_whole(np.random.default_rng(4), 3, 3, 4, 2, 3)),
    ],
    more=lambda rng: Case("any sizes", *_whole(rng, *rng.integers(2, 5, size=5))),
    tolerance=1e-6,
    hints=[
        "Write the forward first and give every step its letter: z, a, h, v, s. Then go backwards, "
        "one letter at a time: ds, dv, dh, da, dz.",
        "ds sums dy * x over positions; dv = ds * s * (1 - s); dh = dv @ w2; da = dh * (a > 0); "
        "dz = da @ w1.",
        "dW1 = da.T @ z and dW2 = dv.T @ h: each has the shape of its weight.",
        "x has two paths to the loss: dx = gate * dy + dz / (H * W), the second spread over all "
        "positions.",
    ],
)


@squeeze_excite.mutant(
    "x reaches the loss on two paths, and you followed the first: the context term "
    "dz / (H * W), through the mean that made the gate, is missing in dx."
)
def context_forgotten(x, w1, w2):
    return _squeeze_excite(x, w1, w2, context=0.0)


@squeeze_excite.mutant("In the context term dz is not divided by H * W: the squeeze is a mean.")
def context_not_divided(x, w1, w2):
    return _squeeze_excite(x, w1, w2, context=x.shape[2] * x.shape[3])


@squeeze_excite.mutant("The sigmoid's slope s * (1 - s) is missing on the way from ds to dv.")
def slope_of_sigmoid_forgotten(x, w1, w2):
    return _squeeze_excite(x, w1, w2, slope=np.ones_like)


@squeeze_excite.mutant("The sigmoid's slope is s * (1 - s); the factor 1 - s is missing.")
def half_the_slope_of_sigmoid(x, w1, w2):
    return _squeeze_excite(x, w1, w2, slope=lambda s: s)


@squeeze_excite.mutant("One gate acts on all positions, so ds is the sum of dy * x, not its mean.")
def mean_for_ds(x, w1, w2):
    return _squeeze_excite(x, w1, w2, gather=np.mean)


@squeeze_excite.mutant("The context term is added to the first path's, not subtracted.")
def context_subtracted(x, w1, w2):
    return _squeeze_excite(x, w1, w2, context=-1.0)


@squeeze_excite.mutant("The slope of the ReLU is 1 or 0, a > 0; you multiplied by its output h.")
def relu_output_for_slope(x, w1, w2):
    return _squeeze_excite(x, w1, w2, mask=lambda a: np.maximum(a, 0))


@squeeze_excite.mutant("The ReLU lets a gradient pass only where a > 0: dh is not masked.")
def relu_not_masked(x, w1, w2):
    return _squeeze_excite(x, w1, w2, mask=np.ones_like)


@squeeze_excite.mutant("The gradients of the weights are transposed: dW1 = da.T @ z, (C/r, C).")
def transposed_weights(x, w1, w2):
    y, (vjp_x, vjp_w1, vjp_w2) = _squeeze_excite(x, w1, w2)
    return y, (vjp_x, lambda dy: vjp_w1(dy).T, lambda dy: vjp_w2(dy).T)


# -- SqueezeExcitation ----------------------------------------------------------------------


class SqueezeExcitationReference(nn.Module):
    def __init__(self, channels, reduction=16):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction, bias=False)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=False)

    def forward(self, x):
        return x * self.gates(x.mean(dim=(2, 3)))

    def gates(self, z):
        s = F.sigmoid(self.fc2(F.relu(self.fc1(z))))
        return s.reshape(*s.shape, 1, 1)


def _images(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).round(1)


SqueezeExcitation = Exercise(
    "13.SqueezeExcitation",
    reference=SqueezeExcitationReference,
    observe=module,
    cases=[
        Case("4 channels, reduction 2", _images(2, 4, 2, 2), channels=4, reduction=2),
        Case("6 channels, reduction 3", _images(3, 6, 2, 3), channels=6, reduction=3),
        Case("reduction left at 16", _images(2, 32, 2, 2), channels=32),
    ],
    more=lambda rng: Case(
        "8 channels", rng.normal(size=(2, 8, 3, 2)), channels=8, reduction=int(rng.choice([2, 4]))
    ),
    tolerance=1e-6,
    hints=[
        "In `__init__`, after `super().__init__()`: `self.fc1` and `self.fc2`, two `nn.Linear` "
        "without bias. Which sizes have they?",
        "fc1 goes from `channels` to `channels // reduction`, fc2 back.",
        "In `forward`: `x.mean(dim=(2, 3))`, then the layers, F.relu and F.sigmoid.",
        "`s.reshape(*s.shape, 1, 1)` turns (N, C) into (N, C, 1, 1), which multiplies x.",
    ],
)


@SqueezeExcitation.mutant("`nn.Linear` has a bias unless it is told `bias=False`.")
class biases_left_in(SqueezeExcitationReference):
    def __init__(self, channels, reduction=16):
        super().__init__(channels, reduction)
        self.fc1 = nn.Linear(channels, channels // reduction)
        self.fc2 = nn.Linear(channels // reduction, channels)


@SqueezeExcitation.mutant("The hidden layer should have channels // reduction units.")
class reduction_ignored(SqueezeExcitationReference):
    def __init__(self, channels, reduction=16):
        super().__init__(channels, reduction=1)


@SqueezeExcitation.mutant("The gates come back alone: they are still to be multiplied with x.")
class gates_alone(SqueezeExcitationReference):
    def forward(self, x):
        return self.gates(x.mean(dim=(2, 3))).reshape(*x.shape[:2])


@SqueezeExcitation.mutant("You added the gates to x; they scale it, so multiply.")
class added_gates(SqueezeExcitationReference):
    def forward(self, x):
        return x + self.gates(x.mean(dim=(2, 3)))


@SqueezeExcitation.mutant(
    "The squeeze takes the largest value of each channel; here it is the mean."
)
class max_squeeze(SqueezeExcitationReference):
    def forward(self, x):
        return x * self.gates(F.amax(x, dim=(2, 3)))


@SqueezeExcitation.mutant(
    "The squeeze was detached from the graph: the gradient's path through the gate is cut, and x "
    "lacks its context term."
)
class detached_squeeze(SqueezeExcitationReference):
    def forward(self, x):
        return x * self.gates(x.detach().mean(dim=(2, 3)))


@SqueezeExcitation.mutant("The ReLU belongs between the two layers; here it stands behind both.")
class relu_behind_both_layers(SqueezeExcitationReference):
    def gates(self, z):
        s = F.sigmoid(F.relu(self.fc2(self.fc1(z))))
        return s.reshape(*s.shape, 1, 1)


@SqueezeExcitation.mutant("The ReLU between the two layers is missing.")
class relu_missing(SqueezeExcitationReference):
    def gates(self, z):
        s = F.sigmoid(self.fc2(self.fc1(z)))
        return s.reshape(*s.shape, 1, 1)


@SqueezeExcitation.mutant(
    "x is added on top: that belongs to the block around it; return x * s alone."
)
class with_a_shortcut(SqueezeExcitationReference):
    def forward(self, x):
        return x + super().forward(x)


# -- place ----------------------------------------------------------------------------------


def place_reference(x, residual, attention, placement):
    if placement == "standard":
        return np.maximum(attention(residual(x)) + x, 0)
    if placement == "pre":
        return np.maximum(residual(attention(x)) + x, 0)
    if placement == "post":
        return attention(np.maximum(residual(x) + x, 0))
    return np.maximum(residual(x) + attention(x), 0)


BRANCH = Code("lambda x: 1 - 2 * x[:, ::-1]")
HALF = Code("lambda x: x / 2")
GATED = Code("lambda x: x / (1 + np.exp(-x.mean(axis=(2, 3), keepdims=True)))")
PLACEMENTS = ("standard", "pre", "post", "identity")


def _placed(label, x, attention, placement):
    return Case(f"{label}, {placement}", x, BRANCH, attention, placement)


place = Exercise(
    "13.place",
    reference=place_reference,
    cases=[
        *(_placed("a half", np.array([[[[3.0]], [[-1.0]]]]), HALF, p) for p in PLACEMENTS),
        *(_placed("gates of the mean", _images(2, 3, 2, 2), GATED, p) for p in PLACEMENTS),
    ],
    more=lambda rng: _placed(
        "any shape", rng.normal(size=rng.integers(1, 4, size=4)), GATED, str(rng.choice(PLACEMENTS))
    ),
    hints=[
        "Write the block without the module first: `np.maximum(residual(x) + x, 0)`. In each "
        "placement one thing of it is handed through `attention`. Which?",
        "standard: what the branch gives. pre: what the branch is given. post: the block's output. "
        "identity: the x that is added.",
        "For example, pre is `np.maximum(residual(attention(x)) + x, 0)`: x is added as it came.",
    ],
)


@place.mutant("In the standard place the module weighs the branch alone; you weighed the sum.")
def sum_weighed(x, residual, attention, placement):
    if placement == "standard":
        return np.maximum(attention(residual(x) + x), 0)
    return place_reference(x, residual, attention, placement)


@place.mutant("In the standard place the ReLU comes behind the addition; yours is before it.")
def relu_before_the_addition(x, residual, attention, placement):
    if placement == "standard":
        return np.maximum(attention(residual(x)), 0) + x
    return place_reference(x, residual, attention, placement)


@place.mutant("In pre the branch alone sees what was weighed; the x that is added is as it came.")
def shortcut_weighed_in_pre(x, residual, attention, placement):
    if placement == "pre":
        weighed = attention(x)
        return np.maximum(residual(weighed) + weighed, 0)
    return place_reference(x, residual, attention, placement)


@place.mutant("In post the module comes last, behind the ReLU; the ReLU changes the means it sees.")
def relu_last_in_post(x, residual, attention, placement):
    if placement == "post":
        return np.maximum(attention(residual(x) + x), 0)
    return place_reference(x, residual, attention, placement)


@place.mutant("In identity the module weighs the x that is added, not what the branch gives.")
def branch_weighed_in_identity(x, residual, attention, placement):
    if placement == "identity":
        return np.maximum(attention(residual(x)) + x, 0)
    return place_reference(x, residual, attention, placement)


@place.mutant("In identity the branch gets x as it came; you gave it the weighed x too.")
def branch_sees_weighed_in_identity(x, residual, attention, placement):
    if placement == "identity":
        weighed = attention(x)
        return np.maximum(residual(weighed) + weighed, 0)
    return place_reference(x, residual, attention, placement)


@place.mutant("Pre and standard are in each other's place: pre stands in front of the branch.")
def pre_behind_the_branch(x, residual, attention, placement):
    swapped = {"pre": "standard", "standard": "pre"}.get(placement, placement)
    return place_reference(x, residual, attention, swapped)


@place.mutant("Post and standard are in each other's place: post stands behind the whole block.")
def post_on_the_branch(x, residual, attention, placement):
    swapped = {"post": "standard", "standard": "post"}.get(placement, placement)
    return place_reference(x, residual, attention, swapped)


@place.mutant("Pre and identity are in each other's place: identity weighs the x that is added.")
def identity_in_front_of_the_branch(x, residual, attention, placement):
    swapped = {"pre": "identity", "identity": "pre"}.get(placement, placement)
    return place_reference(x, residual, attention, swapped)


@place.mutant("In post the module stands behind the addition and the ReLU, not on the branch.")
def branch_weighed_in_post(x, residual, attention, placement):
    return place_reference(x, residual, attention, placement.replace("post", "standard"))


@place.mutant("In post there is one ReLU, behind the addition: the branch has none of its own.")
def relu_twice_in_post(x, residual, attention, placement):
    if placement == "post":
        return attention(np.maximum(np.maximum(residual(x), 0) + x, 0))
    return place_reference(x, residual, attention, placement)


@place.mutant("In identity the module is missing: it weighs the x that is added.")
def identity_without_the_module(x, residual, attention, placement):
    if placement == "identity":
        return np.maximum(residual(x) + x, 0)
    return place_reference(x, residual, attention, placement)


@place.mutant(
    "In identity the module is there once, on the x that is added, not on the branch, too."
)
def both_weighed_in_identity(x, residual, attention, placement):
    if placement == "identity":
        return np.maximum(attention(residual(x)) + attention(x), 0)
    return place_reference(x, residual, attention, placement)


@place.mutant("All placements give the standard one: tell them apart by `placement`.")
def always_standard(x, residual, attention, placement):
    return place_reference(x, residual, attention, "standard")


@place.mutant("`attention` gives what is weighed already, not the gates: multiply by nothing more.")
def multiplied_once_more(x, residual, attention, placement):
    if placement == "standard":
        return np.maximum(residual(x) * attention(residual(x)) + x, 0)
    return place_reference(x, residual, attention, placement)


@place.mutant("x is missing: a residual block adds it to what the branch makes.")
def without_the_shortcut(x, residual, attention, placement):
    if placement == "standard":
        return np.maximum(attention(residual(x)), 0)
    if placement == "pre":
        return np.maximum(residual(attention(x)), 0)
    if placement == "post":
        return attention(np.maximum(residual(x), 0))
    return np.maximum(residual(x), 0)


@place.mutant("The ReLU of the block is missing: max(..., 0).")
def without_the_relu(x, residual, attention, placement):
    if placement == "standard":
        return attention(residual(x)) + x
    if placement == "pre":
        return residual(attention(x)) + x
    if placement == "post":
        return attention(residual(x) + x)
    return residual(x) + attention(x)
