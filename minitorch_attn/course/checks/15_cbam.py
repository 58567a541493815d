import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules

# -- global_max -----------------------------------------------------------------------------


def _global_max(x, send):
    """The maxima, and a rule that sends dz (N, C, 1) into zeros of shape (N, C, H W)."""
    flat = x.reshape(*x.shape[:2], -1)

    def vjp_x(dy):
        return send(flat, dy[:, :, None]).reshape(x.shape)

    return flat.max(axis=2), vjp_x


def _to_place(flat, dz, place):
    dx = np.zeros_like(flat)
    np.put_along_axis(dx, place, dz, axis=2)
    return dx


def _is_max(flat):
    return flat == flat.max(axis=2, keepdims=True)


def global_max_reference(x):
    return _global_max(x, lambda flat, dz: _to_place(flat, dz, flat.argmax(2, keepdims=True)))


global_max = Exercise(
    "15.global_max",
    reference=global_max_reference,
    observe=rules,
    cases=[
        Case("one image, one channel", np.array([[[[1.0, 3.0], [7.0, 5.0]]]])),
        Case("two images, two channels", np.random.default_rng(0).normal(size=(2, 2, 2, 3))),
        Case("equal maxima: the first takes all", np.array([[[[1.0, 5.0], [5.0, 2.0]]]])),
        Case("a silent channel: all places are equal", np.zeros((1, 1, 2, 2))),
        Case("channels that are all below 0", -1 - np.arange(12.0).reshape(1, 2, 2, 3)),
    ],
    more=lambda rng: Case("any shape", rng.normal(size=rng.integers(1, 5, size=4))),
    hints=[
        "With the positions in one axis, `flat = x.reshape(*x.shape[:2], -1)`, it is a maximum "
        "along the last axis.",
        "`flat.argmax(axis=2, keepdims=True)` is the place of the first maximum, (N, C, 1).",
        "`np.put_along_axis(dx, place, dy[:, :, None], axis=2)` writes dy there, into an array of "
        "zeros; then give it the shape of x.",
    ],
)


@global_max.mutant(
    "You spread the gradient over all places, as a mean does; a maximum sends it to one."
)
def spread_like_a_mean(x):
    return _global_max(x, lambda flat, dz: np.broadcast_to(dz / flat.shape[2], flat.shape))


@global_max.mutant("Of equal maxima each got the whole gradient; the first one takes it alone.")
def whole_to_each(x):
    return _global_max(x, lambda flat, dz: dz * _is_max(flat))


@global_max.mutant(
    "Equal maxima share the gradient in your rule; here the first one takes it alone."
)
def shared_evenly(x):
    def send(flat, dz):
        return dz * _is_max(flat) / _is_max(flat).sum(axis=2, keepdims=True)

    return _global_max(x, send)


@global_max.mutant("Of equal maxima the last one got the gradient; here it is the first.")
def to_the_last(x):
    def send(flat, dz):
        last = flat.shape[2] - 1 - flat[:, :, ::-1].argmax(2, keepdims=True)
        return _to_place(flat, dz, last)

    return _global_max(x, send)


@global_max.mutant("The gradient at the maximum is dy, not dy times the maximum: its slope is 1.")
def times_the_maximum(x):
    def send(flat, dz):
        dz = dz * flat.max(axis=2, keepdims=True)
        return _to_place(flat, dz, flat.argmax(2, keepdims=True))

    return _global_max(x, send)


@global_max.mutant(
    "You took the value of greatest magnitude; the maximum of -5 and 1 is 1, however large -5 is."
)
def greatest_magnitude(x):
    flat = x.reshape(*x.shape[:2], -1)
    place = np.abs(flat).argmax(2, keepdims=True)

    def vjp_x(dy):
        return _to_place(flat, dy[:, :, None], place).reshape(x.shape)

    return np.take_along_axis(flat, place, 2)[:, :, 0], vjp_x


@global_max.mutant(
    "`dx[:, :, row, column] = dy` with arrays of places writes every place into every image and "
    "channel; `np.put_along_axis` gives each its own."
)
def places_of_all(x):
    N, C, _, W = x.shape
    place = x.reshape(N, C, -1).argmax(axis=2)

    def vjp_x(dy):
        dx = np.zeros_like(x)
        dx[:, :, place // W, place % W] = dy
        return dx

    return x.max(axis=(2, 3)), vjp_x


@global_max.mutant(
    "In a flat map of W columns place p lies in row p // W and column p % W; you divided by the "
    "number of rows."
)
def divided_by_the_rows(x):
    N, C, H, W = x.shape
    place = x.reshape(N, C, -1).argmax(axis=2)

    def vjp_x(dy):
        dx = np.zeros_like(x)
        for n in range(N):
            for c in range(C):
                dx[n, c, place[n, c] // H, place[n, c] % H] = dy[n, c]
        return dx

    return x.max(axis=(2, 3)), vjp_x


# -- shared_mlp -----------------------------------------------------------------------------


def _shared_mlp(z_avg, z_max, w1, w2, *, w1_paths=(1, 1), h_paths=(1, 1), masks=None):
    """The MLP with its rules; each setting can be replaced by a mistake."""
    a = [z_avg @ w1.T, z_max @ w1.T]
    h = [np.maximum(each, 0) for each in a]
    open_avg, open_max = masks(*a) if masks else (a[0] > 0, a[1] > 0)

    def back_to_avg(dy):
        return (dy @ w2) * open_avg

    def back_to_max(dy):
        return (dy @ w2) * open_max

    def vjp_avg(dy):
        return back_to_avg(dy) @ w1

    def vjp_max(dy):
        return back_to_max(dy) @ w1

    def vjp_w1(dy):
        return w1_paths[0] * back_to_avg(dy).T @ z_avg + w1_paths[1] * back_to_max(dy).T @ z_max

    def vjp_w2(dy):
        return dy.T @ (h_paths[0] * h[0] + h_paths[1] * h[1])

    return (h[0] + h[1]) @ w2.T, (vjp_avg, vjp_max, vjp_w1, vjp_w2)


def shared_mlp_reference(z_avg, z_max, w1, w2):
    return _shared_mlp(z_avg, z_max, w1, w2)


def _mlp_inputs(rng, N, C, hidden):
    return (
        rng.normal(size=(N, C)),
        rng.normal(size=(N, C)) + 0.5,
        rng.normal(size=(hidden, C)),
        rng.normal(size=(C, hidden)),
    )


shared_mlp = Exercise(
    "15.shared_mlp",
    reference=shared_mlp_reference,
    observe=rules,
    cases=[
        Case(
            "one image, two channels, two hidden units",
            np.array([[1.0, 2.0]]),
            np.array([[3.0, 2.5]]),
            np.array([[1.0, -0.75], [-0.5, 1.0]]),
            np.array([[1.0, -2.0], [0.5, 1.0]]),
        ),
        Case("three images, four channels", *_mlp_inputs(np.random.default_rng(0), 3, 4, 3)),
        Case("as many hidden units as channels", *_mlp_inputs(np.random.default_rng(1), 4, 4, 4)),
    ],
    more=lambda rng: Case("any sizes", *_mlp_inputs(rng, *rng.integers(2, 6, size=3))),
    tolerance=1e-6,
    hints=[
        "Write the forward with a name for each step: a_avg, a_max before the ReLU, h_avg, h_max "
        "behind it.",
        "dy is the gradient of a sum, so both terms get all of it: dh = dy @ w2 for both. Each "
        "ReLU then has a mask of its own, a_avg > 0 and a_max > 0.",
        "A weight that is used twice gets the sum of two gradients: dW1 = da_avg.T @ z_avg + "
        "da_max.T @ z_max, and dW2 = dy.T @ (h_avg + h_max).",
    ],
)


@shared_mlp.mutant(
    "The gradient of w1 has the path of the maximum alone: of two uses of a weight, both add."
)
def w1_from_the_last_path(z_avg, z_max, w1, w2):
    return _shared_mlp(z_avg, z_max, w1, w2, w1_paths=(0, 1))


@shared_mlp.mutant("The gradient of w1 has the path of the mean alone: both uses of w1 add.")
def w1_from_the_first_path(z_avg, z_max, w1, w2):
    return _shared_mlp(z_avg, z_max, w1, w2, w1_paths=(1, 0))


@shared_mlp.mutant(
    "The gradient of w2 has one path alone: it multiplies h_avg and h_max, add both."
)
def w2_from_one_path(z_avg, z_max, w1, w2):
    return _shared_mlp(z_avg, z_max, w1, w2, h_paths=(0, 1))


@shared_mlp.mutant("The gradient of w2 has the path of the mean alone: add that of the maximum.")
def w2_from_the_first_path(z_avg, z_max, w1, w2):
    return _shared_mlp(z_avg, z_max, w1, w2, h_paths=(1, 0))


@shared_mlp.mutant(
    "w2 multiplies what comes out of the ReLUs; its gradient has what goes into them."
)
def w2_from_before_the_relu(z_avg, z_max, w1, w2):
    v, (vjp_avg, vjp_max, vjp_w1, _) = _shared_mlp(z_avg, z_max, w1, w2)
    return v, (vjp_avg, vjp_max, vjp_w1, lambda dy: dy.T @ ((z_avg + z_max) @ w1.T))


def _with_other_w1_rule(z_avg, z_max, w1, w2, rule):
    v, (vjp_avg, vjp_max, _, vjp_w2) = _shared_mlp(z_avg, z_max, w1, w2)
    return v, (vjp_avg, vjp_max, lambda dy: rule(dy @ w2), vjp_w2)


@shared_mlp.mutant("In the gradient of w1 the ReLUs' masks are missing.")
def w1_without_masks(z_avg, z_max, w1, w2):
    return _with_other_w1_rule(z_avg, z_max, w1, w2, lambda dh: dh.T @ (z_avg + z_max))


@shared_mlp.mutant(
    "The gradient of w1 has one mask, that of the sum; each path has its own, a_avg > 0 and "
    "a_max > 0."
)
def w1_with_one_mask(z_avg, z_max, w1, w2):
    is_open = (z_avg + z_max) @ w1.T > 0
    return _with_other_w1_rule(z_avg, z_max, w1, w2, lambda dh: (dh * is_open).T @ (z_avg + z_max))


@shared_mlp.mutant(
    "In the gradient of w1 each path meets the other's input: da_avg belongs to z_avg, da_max to "
    "z_max."
)
def w1_paths_crossed(z_avg, z_max, w1, w2):
    open_avg, open_max = z_avg @ w1.T > 0, z_max @ w1.T > 0
    return _with_other_w1_rule(
        z_avg, z_max, w1, w2, lambda dh: (dh * open_avg).T @ z_max + (dh * open_max).T @ z_avg
    )


@shared_mlp.mutant(
    "Mean and maximum are two inputs: the gradient of each comes along its own path; you added "
    "both."
)
def inputs_of_both_paths(z_avg, z_max, w1, w2):
    v, (vjp_avg, vjp_max, vjp_w1, vjp_w2) = _shared_mlp(z_avg, z_max, w1, w2)

    def both(dy):
        return vjp_avg(dy) + vjp_max(dy)

    return v, (both, both, vjp_w1, vjp_w2)


@shared_mlp.mutant("You averaged the two gradients of the shared weights; they add.")
def averaged_gradients(z_avg, z_max, w1, w2):
    return _shared_mlp(z_avg, z_max, w1, w2, w1_paths=(0.5, 0.5), h_paths=(0.5, 0.5))


@shared_mlp.mutant("The mean's mask stands on both paths; each ReLU has a mask of its own.")
def one_mask_for_both(z_avg, z_max, w1, w2):
    return _shared_mlp(z_avg, z_max, w1, w2, masks=lambda a, b: (a > 0, a > 0))


@shared_mlp.mutant(
    "The two paths have changed places: the masks of the two ReLUs, or the rules of the two inputs."
)
def masks_swapped(z_avg, z_max, w1, w2):
    return _shared_mlp(z_avg, z_max, w1, w2, masks=lambda a, b: (b > 0, a > 0))


@shared_mlp.mutant("The ReLUs' masks are missing: where a unit was silent no gradient passes.")
def masks_missing(z_avg, z_max, w1, w2):
    return _shared_mlp(z_avg, z_max, w1, w2, masks=lambda a, b: (1.0, 1.0))


@shared_mlp.mutant(
    "You added mean and maximum and ran the MLP once; the ReLU of a sum is not the sum of ReLUs."
)
def added_before_the_mlp(z_avg, z_max, w1, w2):
    z = z_avg + z_max
    a = z @ w1.T
    h = np.maximum(a, 0)

    def back(dy):
        return (dy @ w2) * (a > 0)

    def vjp_z(dy):
        return back(dy) @ w1

    return h @ w2.T, (vjp_z, vjp_z, lambda dy: back(dy).T @ z, lambda dy: dy.T @ h)


# -- channel_gates --------------------------------------------------------------------------


def _sigmoid(v):
    return 1 / (1 + np.exp(-v))


def _mlp(z, w1, w2):
    return np.maximum(z @ w1.T, 0) @ w2.T


def channel_gates_reference(x, w1, w2):
    return _sigmoid(_mlp(x.mean(axis=(2, 3)), w1, w2) + _mlp(x.max(axis=(2, 3)), w1, w2))


def _gate_inputs(rng, N, C, hidden, H, W):
    return (
        rng.normal(size=(N, C, H, W)),
        rng.normal(size=(hidden, C)),
        rng.normal(size=(C, hidden)),
    )


channel_gates = Exercise(
    "15.channel_gates",
    reference=channel_gates_reference,
    cases=[
        Case(
            "one image, two channels, two hidden units",
            np.array([[[[1.0, 0.0]], [[2.0, -1.0]]]]),
            np.array([[1.0, -0.25], [0.5, -1.5]]),
            np.array([[0.5, 1.0], [-1.0, 0.5]]),
        ),
        Case("two images, four channels", *_gate_inputs(np.random.default_rng(2), 2, 4, 3, 2, 2)),
        Case("three images", *_gate_inputs(np.random.default_rng(3), 3, 3, 3, 2, 3)),
    ],
    more=lambda rng: Case("any sizes", *_gate_inputs(rng, *rng.integers(2, 5, size=5))),
    hints=[
        "Mean and maximum over the positions, `axis=(2, 3)`, are both (N, C). Which function do "
        "both go through?",
        "`np.maximum(z @ w1.T, 0) @ w2.T`, once with z the mean and once with z the maximum.",
        "Add the two results, then take one sigmoid.",
    ],
)


@channel_gates.mutant("The maximum is missing: this is squeeze and excitation.")
def means_alone(x, w1, w2):
    return _sigmoid(_mlp(x.mean(axis=(2, 3)), w1, w2))


@channel_gates.mutant("The mean is missing: both poolings count.")
def maxima_alone(x, w1, w2):
    return _sigmoid(_mlp(x.max(axis=(2, 3)), w1, w2))


@channel_gates.mutant(
    "You added mean and maximum before the MLP; each goes through it alone, then the scores add."
)
def pooled_together(x, w1, w2):
    return _sigmoid(_mlp(x.mean(axis=(2, 3)) + x.max(axis=(2, 3)), w1, w2))


@channel_gates.mutant("You took a sigmoid of each and added these: a gate must not exceed 1.")
def two_sigmoids_added(x, w1, w2):
    return _sigmoid(_mlp(x.mean(axis=(2, 3)), w1, w2)) + _sigmoid(_mlp(x.max(axis=(2, 3)), w1, w2))


@channel_gates.mutant("You multiplied two gates; the scores are added, then comes one sigmoid.")
def two_sigmoids_multiplied(x, w1, w2):
    return _sigmoid(_mlp(x.mean(axis=(2, 3)), w1, w2)) * _sigmoid(_mlp(x.max(axis=(2, 3)), w1, w2))


@channel_gates.mutant("The two scores are added, not averaged.")
def scores_averaged(x, w1, w2):
    return _sigmoid((_mlp(x.mean(axis=(2, 3)), w1, w2) + _mlp(x.max(axis=(2, 3)), w1, w2)) / 2)


@channel_gates.mutant("The final sigmoid is missing: a gate lies between 0 and 1.")
def sigmoid_missing(x, w1, w2):
    return _mlp(x.mean(axis=(2, 3)), w1, w2) + _mlp(x.max(axis=(2, 3)), w1, w2)


@channel_gates.mutant("The ReLU between the two layers is missing.")
def relu_missing(x, w1, w2):
    return _sigmoid((x.mean(axis=(2, 3)) + x.max(axis=(2, 3))) @ w1.T @ w2.T)


@channel_gates.mutant("You added the places up; the mean also divides by H * W.")
def sums_for_means(x, w1, w2):
    return _sigmoid(_mlp(x.sum(axis=(2, 3)), w1, w2) + _mlp(x.max(axis=(2, 3)), w1, w2))


@channel_gates.mutant("The mean went through the MLP twice; the second time it is the maximum.")
def means_twice(x, w1, w2):
    return _sigmoid(2 * _mlp(x.mean(axis=(2, 3)), w1, w2))


@channel_gates.mutant(
    "You took a sigmoid of each score and averaged; the scores are added, then comes one sigmoid."
)
def two_sigmoids_averaged(x, w1, w2):
    return two_sigmoids_added(x, w1, w2) / 2


@channel_gates.mutant("You took the greater of the two scores; they are added.")
def greater_score(x, w1, w2):
    return _sigmoid(np.maximum(_mlp(x.mean(axis=(2, 3)), w1, w2), _mlp(x.max(axis=(2, 3)), w1, w2)))


@channel_gates.mutant(
    "A softmax makes the gates of an image add up to 1; here each is a sigmoid for itself."
)
def softmax_for_sigmoid(x, w1, w2):
    e = np.exp(sigmoid_missing(x, w1, w2))
    return e / e.sum(axis=1, keepdims=True)


@channel_gates.mutant(
    "A ReLU stands behind the second layer too: no gate can then be below one half. It belongs "
    "between the layers."
)
def relu_at_the_end(x, w1, w2):
    return _sigmoid(np.maximum(sigmoid_missing(x, w1, w2), 0))


@channel_gates.mutant(
    "You took the value of greatest magnitude; the maximum of -5 and 1 is 1, however large -5 is."
)
def magnitude_for_maximum(x, w1, w2):
    return _sigmoid(_mlp(x.mean(axis=(2, 3)), w1, w2) + _mlp(np.abs(x).max(axis=(2, 3)), w1, w2))


@channel_gates.mutant("This is the weighed feature map s x; the gates s alone are asked for.")
def gates_applied(x, w1, w2):
    return channel_gates_reference(x, w1, w2)[:, :, None, None] * x


# -- spatial_maps ---------------------------------------------------------------------------


def _spatial_maps(x, *, share=None, send=None):
    """The two maps with their rule; each setting can be replaced by a mistake."""
    share = 1 / x.shape[1] if share is None else share
    send = send or (lambda x, dq: _to_channel(x, dq, x.argmax(axis=1, keepdims=True)))

    def vjp_x(dy):
        return share * dy[:, :1] + send(x, dy[:, 1:])

    return np.stack([x.mean(axis=1), x.max(axis=1)], axis=1), vjp_x


def _to_channel(x, dq, channel):
    dx = np.zeros_like(x)
    np.put_along_axis(dx, channel, dq, axis=1)
    return dx


def spatial_maps_reference(x):
    return _spatial_maps(x)


spatial_maps = Exercise(
    "15.spatial_maps",
    reference=spatial_maps_reference,
    observe=rules,
    cases=[
        Case("one place, three channels", np.array([1.0, 4.0, 2.0]).reshape(1, 3, 1, 1)),
        Case("two images", np.random.default_rng(4).normal(size=(2, 3, 2, 4))),
        Case("equal maxima: the first channel takes all", np.full((1, 3, 1, 2), 2.0)),
    ],
    more=lambda rng: Case("any shape", rng.normal(size=rng.integers(2, 5, size=4))),
    hints=[
        "Both go over the channels, `axis=1`, and leave (N, H, W); `np.stack(..., axis=1)` makes "
        "(N, 2, H, W) of the two.",
        "The mean gives each of the C channels a share 1 / C of `dy[:, :1]`.",
        "`x.argmax(axis=1, keepdims=True)` is the first channel with the maximum, (N, 1, H, W); "
        "`np.put_along_axis(dx, first, dy[:, 1:], axis=1)` writes the gradient there.",
    ],
)


@spatial_maps.mutant(
    "The two maps have changed places: first the mean, then the maximum (the authors' code has "
    "them the other way round)."
)
def maximum_first(x):
    q, vjp_x = _spatial_maps(x)
    return q[:, ::-1], lambda dy: vjp_x(dy[:, ::-1])


@spatial_maps.mutant("The mean gives each channel a share 1 / C of dy, not the whole.")
def whole_share(x):
    return _spatial_maps(x, share=1.0)


@spatial_maps.mutant("The mean goes over the channels: a share is 1 / C, not 1 / (H * W).")
def share_of_the_positions(x):
    return _spatial_maps(x, share=1 / (x.shape[2] * x.shape[3]))


@spatial_maps.mutant(
    "The path through the maximum is missing in the rule: x reaches the output twice."
)
def maximum_forgotten(x):
    return _spatial_maps(x, send=lambda x, dq: np.zeros_like(x))


@spatial_maps.mutant(
    "Of equal maxima each got the whole gradient; the first channel takes it alone."
)
def to_every_maximum(x):
    return _spatial_maps(x, send=lambda x, dq: dq * (x == x.max(axis=1, keepdims=True)))


@spatial_maps.mutant("The maximum's gradient went to all channels; it belongs to the greatest one.")
def maximum_to_all(x):
    return _spatial_maps(x, send=lambda x, dq: np.broadcast_to(dq, x.shape))


@spatial_maps.mutant("You added the channels up; the first map is their mean.")
def sum_for_mean(x):
    q, vjp_x = _spatial_maps(x, share=1.0)
    return np.stack([x.sum(axis=1), q[:, 1]], axis=1), vjp_x


@spatial_maps.mutant(
    "You went over the positions, as the channel attention does; these two maps go over the "
    "channels, axis 1."
)
def over_the_positions(x):
    q = np.stack([x.mean(axis=(2, 3)), x.max(axis=(2, 3))], axis=1)
    return q, lambda dy: np.zeros_like(x)


@spatial_maps.mutant(
    "In the rule the two slices have changed places: dy[:, 0] is the mean's, dy[:, 1] that of the "
    "maximum."
)
def slices_swapped_in_the_rule(x):
    q, vjp_x = _spatial_maps(x)
    return q, lambda dy: vjp_x(dy[:, ::-1])


# -- cbam_parameters ------------------------------------------------------------------------


def cbam_parameters_reference(stages, reduction, kernel_size):
    return sum(n * (2 * c * c // reduction + 2 * kernel_size**2) for n, c in stages)


RESNET_50 = [(3, 256), (4, 512), (6, 1024), (3, 2048)]

cbam_parameters = Exercise(
    "15.cbam_parameters",
    reference=cbam_parameters_reference,
    cases=[
        Case("one block of 64 channels", [(1, 64)], 16, 7),
        Case("two stages, windows of 3x3", [(2, 32), (1, 64)], 4, 3),
        Case("ResNet-50", RESNET_50, 16, 7),
    ],
    more=lambda rng: Case(
        "other stages",
        [(int(n), 16 * int(c)) for n, c in rng.integers(1, 9, size=(3, 2))],
        int(rng.choice([2, 4, 8, 16])),
        int(rng.choice([3, 5, 7])),
    ),
    hints=[
        "One module has two matrices and one kernel. How many numbers has each?",
        "The MLP is shared, so its 2 * C * C / r weights are there once.",
        "The kernel reads two maps and makes one: 2 * R * R weights, whatever C is.",
    ],
)


@cbam_parameters.mutant("The MLP is shared by mean and maximum: its weights count once, not twice.")
def mlp_counted_twice(stages, reduction, kernel_size):
    return sum(n * (4 * c * c // reduction + 2 * kernel_size**2) for n, c in stages)


@cbam_parameters.mutant("The kernel reads two maps, mean and maximum: 2 * R * R weights.")
def one_map(stages, reduction, kernel_size):
    return sum(n * (2 * c * c // reduction + kernel_size**2) for n, c in stages)


@cbam_parameters.mutant("The kernel reads two maps, not the C channels: 2 * R * R weights.")
def kernel_over_channels(stages, reduction, kernel_size):
    return sum(n * (2 * c * c // reduction + c * kernel_size**2) for n, c in stages)


@cbam_parameters.mutant("The spatial attention's kernel is missing.")
def kernel_missing(stages, reduction, kernel_size):
    return sum(n * (2 * c * c // reduction) for n, c in stages)


@cbam_parameters.mutant("Each block of a stage has a module of its own: multiply by the blocks.")
def one_module_a_stage(stages, reduction, kernel_size):
    return sum(2 * c * c // reduction + 2 * kernel_size**2 for _, c in stages)


@cbam_parameters.mutant("You counted biases too; neither the layers nor the convolution has one.")
def with_biases(stages, reduction, kernel_size):
    return sum(
        n * (2 * c * c // reduction + c // reduction + c + 2 * kernel_size**2 + 1)
        for n, c in stages
    )


@cbam_parameters.mutant("The MLP has two matrices, one in and one out: 2 * C * C / r weights.")
def one_matrix(stages, reduction, kernel_size):
    return sum(n * (c * c // reduction + 2 * kernel_size**2) for n, c in stages)


@cbam_parameters.mutant("Every block has a kernel of its own; you counted one for the network.")
def one_kernel_in_all(stages, reduction, kernel_size):
    return sum(n * (2 * c * c // reduction) for n, c in stages) + 2 * kernel_size**2


@cbam_parameters.mutant("The window has R rows of R weights: 2 * R * R, not 2 * R.")
def one_row_of_the_window(stages, reduction, kernel_size):
    return sum(n * (2 * c * c // reduction + 2 * kernel_size) for n, c in stages)


@cbam_parameters.mutant("The hidden layer has C / r units, not r.")
def r_hidden_units(stages, reduction, kernel_size):
    return sum(n * (2 * c * reduction + 2 * kernel_size**2) for n, c in stages)


@cbam_parameters.mutant("You counted the MLP's biases; it has none here.")
def with_biases_in_the_mlp(stages, reduction, kernel_size):
    return sum(
        n * (2 * c * c // reduction + c // reduction + c + 2 * kernel_size**2) for n, c in stages
    )


@cbam_parameters.mutant("This is the first stage alone: does the `return` stand inside the loop?")
def first_stage_alone(stages, reduction, kernel_size):
    return cbam_parameters_reference(stages[:1], reduction, kernel_size)


# -- CBAM -----------------------------------------------------------------------------------


class CBAMReference(nn.Module):
    def __init__(self, channels, reduction=16, kernel_size=7):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction, bias=False)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=False)
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x):
        x = x * self.what(x)
        return x * self.where(x)

    def what(self, x):
        s = F.sigmoid(self.mlp(x.mean(dim=(2, 3))) + self.mlp(self.maxima(x)))
        return s.reshape(*s.shape, 1, 1)

    def mlp(self, z):
        return self.fc2(F.relu(self.fc1(z)))

    def maxima(self, x):
        return F.max(x.flatten(2), dim=2).values

    def where(self, x):
        return F.sigmoid(self.conv(self.maps(x)))

    def maps(self, x):
        return F.stack([x.mean(dim=1), F.max(x, dim=1).values], dim=1)


CBAM = Exercise(
    "15.CBAM",
    reference=CBAMReference,
    observe=module,
    cases=[
        Case(
            "4 channels, windows of 3x3",
            np.random.default_rng(7).normal(size=(2, 4, 4, 4)).round(2),
            channels=4,
            reduction=2,
            kernel_size=3,
        ),
        Case(
            "6 channels, windows of 5x5",
            np.random.default_rng(5).normal(size=(3, 6, 4, 5)),
            channels=6,
            reduction=3,
            kernel_size=5,
        ),
        Case(
            "reduction left at 16, windows at 7x7",
            np.random.default_rng(6).normal(size=(2, 32, 3, 2)),
            channels=32,
        ),
    ],
    more=lambda rng: Case(
        "8 channels",
        rng.normal(size=(2, 8, 4, 3)),
        channels=8,
        reduction=int(rng.choice([2, 4])),
        kernel_size=int(rng.choice([3, 5])),
    ),
    tolerance=1e-6,
    hints=[
        "In `__init__`: `fc1` from channels to channels // reduction, `fc2` back, and `conv`, a "
        "`nn.Conv2d` from 2 channels to 1. What padding keeps the size of the map?",
        "`padding=kernel_size // 2`, and `bias=False` everywhere.",
        "First `x = x * s` with s of shape (N, C, 1, 1): the second half must see the weighed x.",
        "`q = F.stack([x.mean(dim=1), F.max(x, dim=1).values], dim=1)` is (N, 2, H, W), and "
        "`x * F.sigmoid(self.conv(q))` the result.",
    ],
)


@CBAM.mutant(
    "The spatial attention looks at the module's input; it should look at what the channel "
    "attention has let through."
)
class where_from_the_input(CBAMReference):
    def forward(self, x):
        return x * self.what(x) * self.where(x)


@CBAM.mutant("You weighed the places first; the channels come first.")
class spatial_first(CBAMReference):
    def forward(self, x):
        x = x * self.where(x)
        return x * self.what(x)


@CBAM.mutant("The spatial attention is missing: this is the first half alone.")
class channels_alone(CBAMReference):
    def forward(self, x):
        return x * self.what(x)


@CBAM.mutant("x is added on top: that belongs to the block around it.")
class with_a_shortcut(CBAMReference):
    def forward(self, x):
        return x + super().forward(x)


@CBAM.mutant("The maps stand in the authors' order, maximum and mean; here the mean comes first.")
class maximum_map_first(CBAMReference):
    def maps(self, x):
        return F.stack([F.max(x, dim=1).values, x.mean(dim=1)], dim=1)


@CBAM.mutant("`nn.Conv2d` has a bias unless it is told `bias=False`.")
class convolution_with_bias(CBAMReference):
    def __init__(self, channels, reduction=16, kernel_size=7):
        super().__init__(channels, reduction, kernel_size)
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)


@CBAM.mutant("The MLP is shared: mean and maximum go through the same fc1 and fc2.")
class two_mlps(CBAMReference):
    def __init__(self, channels, reduction=16, kernel_size=7):
        super().__init__(channels, reduction, kernel_size)
        self.fc3 = nn.Linear(channels, channels // reduction, bias=False)
        self.fc4 = nn.Linear(channels // reduction, channels, bias=False)

    def what(self, x):
        z = self.fc4(F.relu(self.fc3(self.maxima(x))))
        s = F.sigmoid(self.mlp(x.mean(dim=(2, 3))) + z)
        return s.reshape(*s.shape, 1, 1)


@CBAM.mutant("The channels' gates come from their means alone: the maximum is missing.")
class squeeze_and_excitation(CBAMReference):
    def what(self, x):
        s = F.sigmoid(self.mlp(x.mean(dim=(2, 3))))
        return s.reshape(*s.shape, 1, 1)


@CBAM.mutant("The maximum was detached from the graph: no gradient reaches x through it.")
class detached_maximum(CBAMReference):
    def maxima(self, x):
        return super().maxima(x.detach())


@CBAM.mutant(
    "The map of the places has another size than x: `padding=kernel_size // 2` keeps it.",
    raises=True,
)
class without_padding(CBAMReference):
    def __init__(self, channels, reduction=16, kernel_size=7):
        super().__init__(channels, reduction, kernel_size)
        self.conv = nn.Conv2d(2, 1, kernel_size, bias=False)


@CBAM.mutant("The window is 7x7 whatever `kernel_size` says.")
class always_seven(CBAMReference):
    def __init__(self, channels, reduction=16, kernel_size=7):
        super().__init__(channels, reduction)


@CBAM.mutant("The convolution makes one map, for all channels: `nn.Conv2d(2, 1, ...)`.")
class a_map_for_each_channel(CBAMReference):
    def __init__(self, channels, reduction=16, kernel_size=7):
        super().__init__(channels, reduction, kernel_size)
        self.conv = nn.Conv2d(2, channels, kernel_size, padding=kernel_size // 2, bias=False)


@CBAM.mutant("The ReLU between fc1 and fc2 is missing.")
class without_relu(CBAMReference):
    def mlp(self, z):
        return self.fc2(self.fc1(z))


@CBAM.mutant("The map of the places lacks its sigmoid: a gate lies between 0 and 1.")
class places_without_sigmoid(CBAMReference):
    def where(self, x):
        return self.conv(self.maps(x))


@CBAM.mutant("A ReLU makes the gates of the places; it is a sigmoid, as for the channels.")
class relu_for_sigmoid(CBAMReference):
    def where(self, x):
        return F.relu(self.conv(self.maps(x)))


@CBAM.mutant("The gates of the places come back alone; they are to be multiplied with x'.")
class gates_alone(CBAMReference):
    def forward(self, x):
        return self.where(x * self.what(x))


@CBAM.mutant(
    "The places' gates are multiplied with the module's input; they belong on x' = s x, so that "
    "both count."
)
class channel_gates_dropped(CBAMReference):
    def forward(self, x):
        return x * self.where(x * self.what(x))


@CBAM.mutant("The two gates are added; CBAM multiplies with one after the other.")
class gates_added(CBAMReference):
    def forward(self, x):
        s = self.what(x)
        return x * (s + self.where(x * s))


@CBAM.mutant("You multiplied with 1 + t, as other modules do; CBAM's gate is t itself.")
class one_plus_gate(CBAMReference):
    def forward(self, x):
        x = x * self.what(x)
        return x * (1 + self.where(x))


@CBAM.mutant("Both maps are the mean; the second one is the maximum over the channels.")
class mean_map_twice(CBAMReference):
    def maps(self, x):
        return F.stack([x.mean(dim=1), x.mean(dim=1)], dim=1)


@CBAM.mutant("The mean went through the MLP twice; the second time it is the maximum.")
class means_for_maxima(CBAMReference):
    def maxima(self, x):
        return x.mean(dim=(2, 3))


@CBAM.mutant(
    "The maximum over the channels was detached from the graph: no gradient reaches x through it."
)
class detached_maximum_map(CBAMReference):
    def maps(self, x):
        return F.stack([x.mean(dim=1), F.max(x.detach(), dim=1).values], dim=1)
