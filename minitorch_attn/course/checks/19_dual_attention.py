import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules, there
from minitorch_attn.engine import ones, zeros


def softmax(E, axis=1):
    e = np.exp(E - E.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_back(P, dP):
    return P * (dP - (P * dP).sum(axis=1, keepdims=True))


def _normal(rng, *shape):
    return rng.normal(size=shape).round(1)


# -- channel_map ----------------------------------------------------------------------------


def channel_map_reference(x, program=False):
    E = x @ x.T
    return softmax(E.max(axis=1, keepdims=True) - E if program else E)


def _any_channels(rng):
    C, L = rng.integers(2, 5, size=2)
    return Case("any shape", _normal(rng, C, L), bool(rng.integers(2)))


SMALL = np.array([[1.0], [2.0]])
LOUD = np.array([[1.0, 2.0, 0.5], [-1.0, 1.5, 1.0]])

channel_map = Exercise(
    "19.channel_map",
    reference=channel_map_reference,
    cases=[
        Case("two channels, one position, the paper's", SMALL, False),
        Case("two channels, one position, the program's", SMALL, True),
        Case("two channels, three positions, the paper's", LOUD, False),
        Case("four channels, the program's", _normal(np.random.default_rng(0), 4, 3), True),
        Case(
            "three loud channels, the program's", 30 * _normal(np.random.default_rng(1), 3, 4), True
        ),
    ],
    more=_any_channels,
    hints=[
        "x x^T compares rows of x with rows of x. What shape has it?",
        "`E = x @ x.T` is (C, C). `softmax(E)` makes each row a row of shares.",
        "The largest of each row, kept as a column: `E.max(axis=1, keepdims=True)`. The program's "
        "energy is this minus E.",
    ],
)


@channel_map.mutant("You compared positions: x^T x is (L, L). Channels are the rows: x x^T.")
def positions_for_channels(x, program=False):
    return channel_map_reference(x.T, program)


@channel_map.mutant(
    "You subtracted the maximum from E; a softmax does not see that. The program subtracts E from "
    "the maximum, which turns the sign."
)
def maximum_subtracted(x, program=False):
    return softmax(x @ x.T)


@channel_map.mutant("The two signs are in each other's place: the paper's is the softmax of +E.")
def signs_swapped(x, program=False):
    return channel_map_reference(x, not program)


@channel_map.mutant("The columns of your map have sum 1; it is the rows: softmax over d.")
def softmax_over_rows(x, program=False):
    E = x @ x.T
    return softmax(E.max(axis=1, keepdims=True) - E if program else E, axis=0)


@channel_map.mutant(
    "You took the maximum of the whole of E or none at all and exponentiated by hand: with loud "
    "channels exp overflows. The given `softmax` is safe.",
)
def by_hand_without_care(x, program=False):
    E = x @ x.T
    with np.errstate(all="ignore"):
        e = np.exp(E.max() - E if program else E)
        return e / e.sum(axis=1, keepdims=True)


@channel_map.mutant("The energy is divided by the number of positions; here it is the plain sum.")
def mean_for_sum(x, program=False):
    return channel_map_reference(x / np.sqrt(x.shape[1]), program)


@channel_map.mutant(
    "The maxima of the rows came out side by side, so each column lost the maximum of another row. "
    "Keep them as a column: `keepdims=True`."
)
def maxima_side_by_side(x, program=False):
    E = x @ x.T
    return softmax(E.max(axis=1) - E if program else E)


@channel_map.mutant(
    "You took 1 - P. That has no rows of sum 1; the sign turns before the softmax, in E."
)
def one_minus_the_map(x, program=False):
    P = channel_map_reference(x)
    return 1 - P if program else P


@channel_map.mutant(
    "You took the maximum minus P, the shares. The maximum is that of E, before the softmax."
)
def maximum_of_the_map(x, program=False):
    P = channel_map_reference(x)
    return P.max(axis=1, keepdims=True) - P if program else P


# -- channel_attention ----------------------------------------------------------------------


def _channel_attention(
    x,
    gamma,
    *,
    added=True,
    back=softmax_back,
    through_o=lambda P, do: P.T @ do,
    through_E=lambda dE, x: dE @ x + dE.T @ x,
    map_back=lambda do, x: do @ x.T,
    scalar=lambda dy, o: np.array([(dy * o).sum()]),
    gated=True,
    scale=1,
):
    """With its rules; each setting can be replaced by a mistake."""
    P = softmax(scale * x @ x.T)
    o = P @ x

    def vjp_x(dy):
        do = gamma * dy if gated else dy
        dE = scale * back(P, map_back(do, x))
        return added * dy + through_o(P, do) + through_E(dE, x)

    return gamma * o + x, (vjp_x, lambda dy: scalar(dy, o))


def channel_attention_reference(x, gamma):
    return _channel_attention(x, gamma)


def _channels(label, rng, C, L):
    return Case(label, _normal(rng, C, L) / 2, rng.normal(size=1).round(1) + 0.05)


channel_attention = Exercise(
    "19.channel_attention",
    reference=channel_attention_reference,
    observe=rules,
    cases=[
        Case("two channels, one position", np.array([[1.0], [0.5]]), np.array([2.0])),
        Case("two channels, two positions", np.array([[1.0, -0.5], [0.5, 1.0]]), np.array([-0.5])),
        _channels("three channels, four positions", np.random.default_rng(0), 3, 4),
        _channels("as many channels as positions", np.random.default_rng(1), 3, 3),
        Case("at the start", _normal(np.random.default_rng(2), 3, 4), np.zeros(1)),
    ],
    more=lambda rng: _channels("any shape", rng, *rng.integers(2, 5, size=2)),
    hints=[
        "Go back from y: do = gamma * dy. Then the product o = P x has two factors, P and x.",
        "dP = do @ x.T, and dE = softmax_back(P, dP). In o, x gets P.T @ do.",
        "E = x x^T is a product whose factors are both x: the left one gets dE @ x, the right one "
        "dE.T @ x.",
        "Four terms: `dy + P.T @ do + dE @ x + dE.T @ x`. And gamma multiplies every element of o: "
        "`np.array([(dy * o).sum()])`.",
    ],
)


@channel_attention.mutant(
    "dE is not symmetric, though E is: 2 dE x counts one factor twice. It is dE x + dE^T x."
)
def taken_for_symmetric(x, gamma):
    return _channel_attention(x, gamma, through_E=lambda dE, x: 2 * dE @ x)


@channel_attention.mutant(
    "E = x x^T has x as both factors; the gradient of the right one, dE^T x, is missing."
)
def one_factor_of_E(x, gamma):
    return _channel_attention(x, gamma, through_E=lambda dE, x: dE @ x)


@channel_attention.mutant(
    "E = x x^T has x as both factors; the gradient of the left one, dE x, is missing."
)
def the_other_factor_of_E(x, gamma):
    return _channel_attention(x, gamma, through_E=lambda dE, x: dE.T @ x)


@channel_attention.mutant("x also made the map: the gradient through E is missing.")
def map_taken_as_constant(x, gamma):
    return _channel_attention(x, gamma, through_E=lambda dE, x: 0 * x)


@channel_attention.mutant(
    "In o = P x the factor x has a gradient of its own, P^T do: it is missing."
)
def without_the_values(x, gamma):
    return _channel_attention(x, gamma, through_o=lambda P, do: 0 * do)


@channel_attention.mutant("In o = P x the factor x gets P^T do; your P is not transposed.")
def map_not_transposed(x, gamma):
    return _channel_attention(x, gamma, through_o=lambda P, do: P @ do)


@channel_attention.mutant("x was added to the output, so dy itself belongs to its gradient.")
def without_the_shortcut(x, gamma):
    return _channel_attention(x, gamma, added=False)


@channel_attention.mutant("What reaches o is gamma * dy; your rule of x leaves gamma out.")
def without_gamma(x, gamma):
    return _channel_attention(x, gamma, gated=False)


@channel_attention.mutant(
    "The softmax's rule is elementwise in yours; each row's sum of P dP has to be subtracted."
)
def softmax_without_its_sum(x, gamma):
    return _channel_attention(x, gamma, back=lambda P, dP: P * dP)


@channel_attention.mutant("The softmax's own rule is missing: dP was taken for dE.")
def dP_taken_for_dE(x, gamma):
    return _channel_attention(x, gamma, back=lambda P, dP: dP)


@channel_attention.mutant(
    "dP is transposed in yours. In o = P x the left factor is P: dP = do x^T, a row for each "
    "channel that looks."
)
def dP_transposed(x, gamma):
    return _channel_attention(x, gamma, map_back=lambda do, x: x @ do.T)


@channel_attention.mutant(
    "x is added as it is, beside gamma: dy belongs to its gradient without gamma."
)
def shortcut_times_gamma(x, gamma):
    return _channel_attention(x, gamma, added=gamma)


@channel_attention.mutant(
    "gamma stands twice in your rule of x: do = gamma * dy has it already, and dP and dE with it."
)
def gamma_twice(x, gamma):
    return _channel_attention(
        x,
        gamma,
        through_o=lambda P, do: gamma * P.T @ do,
        through_E=lambda dE, x: gamma * (dE @ x + dE.T @ x),
    )


@channel_attention.mutant("gamma multiplies o, so its gradient sums dy * o; yours sums dy * x.")
def gamma_from_x(x, gamma):
    return _channel_attention(x, gamma, scalar=lambda dy, o: np.array([(dy * x).sum()]))


@channel_attention.mutant("gamma multiplies o, so its gradient sums dy * o; yours sums dy * y.")
def gamma_from_y(x, gamma):
    scalar = lambda dy, o: np.array([(dy * (gamma * o + x)).sum()])  # noqa: E731
    return _channel_attention(x, gamma, scalar=scalar)


@channel_attention.mutant(
    "In the rule of gamma you took do, which has gamma as a factor. It is dy * o, summed."
)
def gamma_from_do(x, gamma):
    return _channel_attention(x, gamma, scalar=lambda dy, o: gamma * (dy * o).sum())


@channel_attention.mutant("gamma multiplies every element of o: a sum over them, not a mean.")
def gamma_from_the_mean(x, gamma):
    return _channel_attention(x, gamma, scalar=lambda dy, o: np.array([(dy * o).mean()]))


@channel_attention.mutant("The rules are in each other's place: first that of x, then of gamma.")
def rules_in_the_other_order(x, gamma):
    y, (vjp_x, vjp_gamma) = _channel_attention(x, gamma)
    return y, (vjp_gamma, vjp_x)


@channel_attention.mutant("x is not added to the output: y = gamma o + x.")
def x_not_added(x, gamma):
    y, (vjp_x, vjp_gamma) = _channel_attention(x, gamma, added=False)
    return y - x, (vjp_x, vjp_gamma)


@channel_attention.mutant("gamma multiplies x in yours; it belongs to o: y = gamma o + x.")
def gamma_times_x(x, gamma):
    y, rules_of = _channel_attention(x, gamma)
    P = softmax(x @ x.T)
    return P @ x + gamma * x, rules_of


@channel_attention.mutant(
    "o takes from the columns of P in yours. Row c says from which channels c takes: o = P x."
)
def map_transposed_in_the_output(x, gamma):
    P = softmax(x @ x.T)
    return gamma * (P.T @ x) + x, _channel_attention(x, gamma)[1]


@channel_attention.mutant("That is the program's sign; here it is the paper's, softmax of +E.")
def sign_of_the_program(x, gamma):
    return _channel_attention(x, gamma, scale=-1)


@channel_attention.mutant("E is divided by the number of positions; here it is the plain sum.")
def energy_as_a_mean(x, gamma):
    return _channel_attention(x, gamma, scale=1 / x.shape[1])


@channel_attention.mutant("gamma multiplies o, so its gradient sums dy * o; yours sums dy alone.")
def gamma_without_o(x, gamma):
    return _channel_attention(x, gamma, scalar=lambda dy, o: np.array([dy.sum()]))


@channel_attention.mutant(
    "The gradient of gamma has the shape of gamma, (1,): sum over all elements."
)
def gamma_not_summed(x, gamma):
    return _channel_attention(x, gamma, scalar=lambda dy, o: dy * o)


# -- position_attention ---------------------------------------------------------------------


def position_attention_reference(q, k, v):
    P = softmax(q.T @ k)

    def vjp_q(dy):
        return k @ softmax_back(P, dy.T @ v).T

    def vjp_k(dy):
        return q @ softmax_back(P, dy.T @ v)

    def vjp_v(dy):
        return dy @ P

    return v @ P.T, (vjp_q, vjp_k, vjp_v)


def _positions(label, rng, D, C, L):
    return Case(label, _normal(rng, D, L), _normal(rng, D, L), _normal(rng, C, L))


position_attention = Exercise(
    "19.position_attention",
    reference=position_attention_reference,
    observe=rules,
    cases=[
        Case(
            "two positions",
            np.array([[1.0, 0.0]]),
            np.array([[0.5, -1.0]]),
            np.array([[2.0, 4.0], [1.0, -1.0]]),
        ),
        _positions("four positions", np.random.default_rng(0), 2, 3, 4),
        _positions("all sizes alike", np.random.default_rng(1), 3, 3, 3),
    ],
    more=lambda rng: _positions("any shape", rng, *rng.integers(1, 5, size=3)),
    hints=[
        "q^T k is (L, L). Column i of o is the sum of columns of v, with the weights of row i of "
        "P: which matrix product is that?",
        "`v @ P.T`. Its rules: dv = dy @ P, and dP = dy.T @ v.",
        "With dE = softmax_back(P, dP): E = q^T k gives dq = k @ dE.T and dk = q @ dE.",
    ],
)


@position_attention.mutant("o_i sums over j with row i of P: v P^T. Yours takes column i of P.")
def map_transposed(q, k, v):
    P = softmax(q.T @ k)
    vjp_q = lambda dy: k @ softmax_back(P, v.T @ dy).T  # noqa: E731
    vjp_k = lambda dy: q @ softmax_back(P, v.T @ dy)  # noqa: E731
    return v @ P, (vjp_q, vjp_k, lambda dy: dy @ P.T)


@position_attention.mutant("The softmax runs over j, along each row; yours runs down the columns.")
def softmax_over_queries(q, k, v):
    P = softmax(q.T @ k, axis=0)

    def back(dy):
        return softmax_back(P.T, (dy.T @ v).T).T

    return v @ P.T, (lambda dy: k @ back(dy).T, lambda dy: q @ back(dy), lambda dy: dy @ P)


@position_attention.mutant(
    "Divided by the root of D, as in the Transformer; here there is no scale."
)
def scaled(q, k, v):
    root = np.sqrt(len(q))
    o, (vjp_q, vjp_k, vjp_v) = position_attention_reference(q / root, k, v)
    return o, (lambda dy: vjp_q(dy) / root, vjp_k, vjp_v)


@position_attention.mutant("The rules of q and of k are in each other's place.")
def rules_swapped(q, k, v):
    o, (vjp_q, vjp_k, vjp_v) = position_attention_reference(q, k, v)
    return o, (vjp_k, vjp_q, vjp_v)


@position_attention.mutant("dE is used as it is in both rules: for q it has to be transposed.")
def dE_not_transposed(q, k, v):
    o, (_, vjp_k, vjp_v) = position_attention_reference(q, k, v)
    P = softmax(q.T @ k)
    return o, (lambda dy: k @ softmax_back(P, dy.T @ v), vjp_k, vjp_v)


@position_attention.mutant("In the rule of v the map is transposed; o = v P^T gives dv = dy P.")
def map_transposed_in_the_rule_of_v(q, k, v):
    o, (vjp_q, vjp_k, _) = position_attention_reference(q, k, v)
    P = softmax(q.T @ k)
    return o, (vjp_q, vjp_k, lambda dy: dy @ P.T)


@position_attention.mutant("The softmax's own rule is missing: dP was taken for dE.")
def without_the_softmax_rule(q, k, v):
    o, (_, _, vjp_v) = position_attention_reference(q, k, v)
    return o, (lambda dy: k @ (dy.T @ v).T, lambda dy: q @ (dy.T @ v), vjp_v)


@position_attention.mutant(
    "Queries and keys are in each other's place: E = q^T k, a row for each query."
)
def keys_look_at_queries(q, k, v):
    o, (vjp_k, vjp_q, vjp_v) = position_attention_reference(k, q, v)
    return o, (vjp_q, vjp_k, vjp_v)


def _with_dE(q, k, v, dE):
    o, (_, _, vjp_v) = position_attention_reference(q, k, v)
    P = softmax(q.T @ k)
    return o, (lambda dy: k @ dE(P, dy).T, lambda dy: q @ dE(P, dy), vjp_v)


@position_attention.mutant("dP is transposed in yours: o = v P^T gives dP = dy^T v.")
def dP_transposed_here(q, k, v):
    return _with_dE(q, k, v, lambda P, dy: softmax_back(P, v.T @ dy))


@position_attention.mutant(
    "The softmax's rule is elementwise in yours; each row's sum of P dP has to be subtracted."
)
def softmax_rule_without_its_sum(q, k, v):
    return _with_dE(q, k, v, lambda P, dy: P * (dy.T @ v))


@position_attention.mutant("In the rule of k, dE is transposed: E = q^T k gives dk = q dE.")
def dE_transposed_in_the_rule_of_k(q, k, v):
    o, (vjp_q, _, vjp_v) = position_attention_reference(q, k, v)
    P = softmax(q.T @ k)
    return o, (vjp_q, lambda dy: q @ softmax_back(P, dy.T @ v).T, vjp_v)


@position_attention.mutant(
    "In E = q^T k each gets the gradient with the other as its factor: dq has k, dk has q."
)
def own_factor_in_place_of_the_other(q, k, v):
    o, (_, _, vjp_v) = position_attention_reference(q, k, v)
    P = softmax(q.T @ k)
    back = lambda dy: softmax_back(P, dy.T @ v)  # noqa: E731
    return o, (lambda dy: q @ back(dy).T, lambda dy: k @ back(dy), vjp_v)


# -- mean_iou -------------------------------------------------------------------------------


def _overlaps(predicted, target, num_classes, *, union=lambda p, t: (p | t).sum(), absent=None):
    """The overlap of each class; what an absent one counts, None leaves it out."""
    found = []
    for k in range(num_classes):
        p, t = predicted == k, target == k
        if (p | t).any():
            found.append((p & t).sum() / union(p, t) if union(p, t) else 0.0)
        elif absent is not None:
            found.append(absent)
    return found


def mean_iou_reference(predicted, target, num_classes):
    return float(np.mean(_overlaps(predicted, target, num_classes)))


def _masks(rng, K, H, W):
    return rng.integers(K, size=(H, W)), rng.integers(K, size=(H, W))


mean_iou = Exercise(
    "19.mean_iou",
    reference=mean_iou_reference,
    cases=[
        Case("five pixels", np.array([0, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 1]), 2),
        Case(
            "a class that is in neither", np.array([[0, 2], [2, 2]]), np.array([[0, 0], [2, 2]]), 4
        ),
        Case("a class that is only predicted", np.array([0, 1, 2, 0]), np.array([0, 0, 2, 2]), 3),
        Case("a class that is missed", np.array([0, 0, 2, 0]), np.array([0, 1, 2, 2]), 3),
        Case("four classes", *_masks(np.random.default_rng(0), 4, 5, 6), 4),
    ],
    more=lambda rng: Case("any masks", *_masks(rng, 3, *rng.integers(2, 6, size=2)), 4),
    hints=[
        "`predicted == k` is a mask of its own: true where class k was predicted.",
        "Two such masks have an intersection, `p & t`, and a union, `p | t`; `.sum()` counts.",
        "Collect the ratios in a list, skip a class whose union is empty, return `np.mean(list)`.",
    ],
)


@mean_iou.mutant("A class in neither mask counts as 0 in yours; it is left out of the mean.")
def absent_counts_zero(predicted, target, num_classes):
    return float(np.mean(_overlaps(predicted, target, num_classes, absent=0.0)))


@mean_iou.mutant("A class in neither mask counts as 1 in yours; it is left out of the mean.")
def absent_counts_one(predicted, target, num_classes):
    return float(np.mean(_overlaps(predicted, target, num_classes, absent=1.0)))


@mean_iou.mutant(
    "You divided by the pixels of the target: that is the recall, and it never fines "
    "what was predicted too much."
)
def recall(predicted, target, num_classes):
    union = lambda p, t: t.sum()  # noqa: E731
    return float(np.mean(_overlaps(predicted, target, num_classes, union=union)))


@mean_iou.mutant("You divided by the pixels of both masks added up: those in both count twice.")
def both_counted_twice(predicted, target, num_classes):
    union = lambda p, t: p.sum() + t.sum()  # noqa: E731
    return float(np.mean(_overlaps(predicted, target, num_classes, union=union)))


@mean_iou.mutant("That is the share of right pixels; the classes are asked one by one.")
def pixel_accuracy(predicted, target, num_classes):
    return float((predicted == target).mean())


@mean_iou.mutant(
    "A class that is only in the prediction counts, too, with 0: its union is not empty."
)
def classes_of_the_target_only(predicted, target, num_classes):
    found = [
        ((predicted == k) & (target == k)).sum() / ((predicted == k) | (target == k)).sum()
        for k in range(num_classes)
        if (target == k).any()
    ]
    return float(np.mean(found))


@mean_iou.mutant(
    "A class that is only in the target counts, too, with 0: it was missed, and its union is not "
    "empty."
)
def classes_of_the_prediction_only(predicted, target, num_classes):
    return classes_of_the_target_only(target, predicted, num_classes)


@mean_iou.mutant(
    "A class without a right pixel is left out in yours. It counts with 0, as soon as it is in one "
    "of the masks."
)
def zeros_left_out(predicted, target, num_classes):
    found = [overlap for overlap in _overlaps(predicted, target, num_classes) if overlap]
    return float(np.mean(found)) if found else 0.0


@mean_iou.mutant(
    "You divided by the pixels of the prediction: that is the precision, and it never fines what "
    "was missed."
)
def precision(predicted, target, num_classes):
    union = lambda p, t: p.sum()  # noqa: E731
    return float(np.mean(_overlaps(predicted, target, num_classes, union=union)))


@mean_iou.mutant(
    "Twice the intersection over both masks added up is the Dice coefficient; the IoU divides by "
    "the union."
)
def dice(predicted, target, num_classes):
    return 2 * both_counted_twice(predicted, target, num_classes)


@mean_iou.mutant("Class 0 counts as well, though it is often the background: k starts at 0.")
def without_class_0(predicted, target, num_classes):
    has_0 = bool(((predicted == 0) | (target == 0)).any())
    found = _overlaps(predicted, target, num_classes)[has_0:]
    return float(np.mean(found)) if found else 0.0


@mean_iou.mutant(
    "You added up all intersections and all unions and divided once; large classes then weigh "
    "more. Divide class by class, then take the mean."
)
def divided_once(predicted, target, num_classes):
    right = (predicted == target).sum()
    return float(right / (2 * target.size - right))


# -- PositionAttention ----------------------------------------------------------------------


class PositionAttentionReference(nn.Module):
    def __init__(self, channels, reduction=8):
        super().__init__()
        self.query = nn.Conv2d(channels, channels // reduction, 1)
        self.key = nn.Conv2d(channels, channels // reduction, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(zeros(1))

    def gathered(self, x):
        q, k, v = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        return (v @ F.softmax(q.transpose(1, 2) @ k, dim=2).transpose(1, 2)).reshape(x.shape)

    def forward(self, x):
        return self.gamma * self.gathered(x) + x


def start_and_module(subject, case):
    """The parameters, what gamma starts from, and what `module` looks at."""
    observed = module(subject, case)
    yield next(observed)
    yield (
        "gamma at the start",
        there(subject, "lambda m: m.gamma.numpy()")(subject(**case.settings)),
    )
    yield from observed


def _images(*shape, seed=0):
    return _normal(np.random.default_rng([seed, *shape]), *shape)


PositionAttention = Exercise(
    "19.PositionAttention",
    reference=PositionAttentionReference,
    observe=start_and_module,
    cases=[
        Case("one image, two channels", _images(1, 2, 1, 3), channels=2, reduction=1),
        Case("two images, four channels", _images(2, 4, 2, 3), channels=4, reduction=2),
        Case("as wide as high", _images(2, 8, 2, 2), channels=8, reduction=8),
    ],
    more=lambda rng: Case(
        "any sizes",
        _normal(rng, *rng.integers(1, 3, size=1), 4, *rng.integers(1, 4, size=2)),
        channels=4,
        reduction=int(rng.choice([1, 2, 4])),
    ),
    hints=[
        "Three `nn.Conv2d(..., ..., 1)` and an `nn.Parameter(mt.zeros(1))`. Which of them keep all "
        "channels?",
        "After `.flatten(2)`, q and k are (N, D, L), v is (N, C, L). `q.transpose(1, 2) @ k` is "
        "(N, L, L): a row for each position that looks.",
        "Softmax over `dim=2`, along the rows. Then `v @ P.transpose(1, 2)` is (N, C, L): "
        "`.reshape(x.shape)` brings it back to (N, C, H, W).",
        "Last, `self.gamma * o + x`.",
    ],
)


@PositionAttention.mutant("x is not added: with gamma at 0 nothing would come out at the start.")
class without_x(PositionAttentionReference):
    def forward(self, x):
        return self.gamma * self.gathered(x)


@PositionAttention.mutant("gamma is not used: it multiplies what is gathered.")
class without_the_scalar(PositionAttentionReference):
    def forward(self, x):
        return self.gathered(x) + x + 0 * self.gamma


@PositionAttention.mutant("gamma multiplies x as well; only what is gathered is scaled.")
class gamma_times_all(PositionAttentionReference):
    def forward(self, x):
        return self.gamma * (self.gathered(x) + x)


@PositionAttention.mutant(
    "The softmax runs over the positions that look; it is over those looked at."
)
class softmax_over_the_lookers(PositionAttentionReference):
    def gathered(self, x):
        q, k, v = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        return (v @ F.softmax(q.transpose(1, 2) @ k, dim=1).transpose(1, 2)).reshape(x.shape)


@PositionAttention.mutant(
    "The map is not transposed behind v: position i then gets from those that look at it."
)
class map_not_transposed_behind_v(PositionAttentionReference):
    def gathered(self, x):
        q, k, v = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        return (v @ F.softmax(q.transpose(1, 2) @ k, dim=2)).reshape(x.shape)


@PositionAttention.mutant("The energy is divided by the root of D; DANet has no scale.")
class scaled_by_the_root(PositionAttentionReference):
    def gathered(self, x):
        q, k, v = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        E = q.transpose(1, 2) @ k / q.shape[1] ** 0.5
        return (v @ F.softmax(E, dim=2).transpose(1, 2)).reshape(x.shape)


@PositionAttention.mutant(
    "The values keep all channels; yours are reduced as queries and keys are."
)
class values_reduced(PositionAttentionReference):
    def __init__(self, channels, reduction=8):
        super().__init__(channels, reduction)
        self.value = nn.Conv2d(channels, channels // reduction, 1)


@PositionAttention.mutant("The convolutions have biases here: leave `bias=False` out.")
class without_biases(PositionAttentionReference):
    def __init__(self, channels, reduction=8):
        super().__init__(channels, reduction)
        self.query = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.key = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)


@PositionAttention.mutant(
    "gamma starts at 1 in yours. It starts at 0, `mt.zeros(1)`, so that a fresh module is the "
    "identity."
)
class gamma_starts_at_one(PositionAttentionReference):
    def __init__(self, channels, reduction=8):
        super().__init__(channels, reduction)
        self.gamma = nn.Parameter(ones(1))


@PositionAttention.mutant(
    "gamma is no parameter in yours, so no optimizer would find it: `nn.Parameter(mt.zeros(1))`."
)
class gamma_no_parameter(PositionAttentionReference):
    def __init__(self, channels, reduction=8):
        super().__init__(channels, reduction)
        del self.gamma
        self.gamma = zeros(1)


@PositionAttention.mutant("gamma has the shape (1,): `mt.zeros(1)`, a row of one number.")
class gamma_without_an_axis(PositionAttentionReference):
    def __init__(self, channels, reduction=8):
        super().__init__(channels, reduction)
        self.gamma = nn.Parameter(zeros(()))


@PositionAttention.mutant(
    "Queries and keys have `channels // reduction` channels; yours keep them all."
)
class queries_not_reduced(PositionAttentionReference):
    def __init__(self, channels, reduction=8):
        super().__init__(channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)


@PositionAttention.mutant("`reduction` is not used: yours always divides the channels by 8.")
class reduction_not_used(PositionAttentionReference):
    def __init__(self, channels, reduction=8):
        super().__init__(channels)


@PositionAttention.mutant("The kernels are 1x1: `nn.Conv2d(..., ..., 1)`.")
class kernels_of_three(PositionAttentionReference):
    def __init__(self, channels, reduction=8):
        super().__init__(channels, reduction)
        self.query = nn.Conv2d(channels, channels // reduction, 3, padding=1)
        self.key = nn.Conv2d(channels, channels // reduction, 3, padding=1)
        self.value = nn.Conv2d(channels, channels, 3, padding=1)


class _FromParts(PositionAttentionReference):
    """What is gathered, from queries, keys, values and x of shape (N, ..., L)."""

    def gathered(self, x):
        q, k, v = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        return self.attend(q, k, v, x.flatten(2)).reshape(x.shape)


def _rows(q, k):
    return F.softmax(q.transpose(1, 2) @ k, dim=2)


@PositionAttention.mutant(
    "Queries and keys are in each other's place: a row of the map is for a query, q^T k."
)
class keys_that_look(_FromParts):
    def attend(self, q, k, v, x):
        return v @ _rows(k, q).transpose(1, 2)


@PositionAttention.mutant("The keys are made by `query` in yours; they have a convolution, `key`.")
class queries_for_keys(_FromParts):
    def attend(self, q, k, v, x):
        return v @ _rows(q, q).transpose(1, 2)


@PositionAttention.mutant("x itself is gathered in yours; gather what `value` makes of it.")
class x_for_the_values(_FromParts):
    def attend(self, q, k, v, x):
        return x @ _rows(q, k).transpose(1, 2)


@PositionAttention.mutant(
    "What you gathered is (N, L, C) and was reshaped as it is, which mixes channels and positions. "
    "It has to be (N, C, L) first: `.transpose(1, 2)`."
)
class reshaped_with_channels_last(_FromParts):
    def attend(self, q, k, v, x):
        return _rows(q, k) @ v.transpose(1, 2)


@PositionAttention.mutant("gamma multiplies x in yours; it belongs to what is gathered.")
class gamma_at_x(PositionAttentionReference):
    def forward(self, x):
        return self.gathered(x) + self.gamma * x


@PositionAttention.mutant(
    "x is kept whole; yours takes (1 - gamma) of it. y = gamma o + x is no mixture."
)
class a_mixture(PositionAttentionReference):
    def forward(self, x):
        return self.gamma * self.gathered(x) + (1 - self.gamma) * x
