import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules


def phi(a):
    return np.where(a > 0, a + 1, np.exp(np.minimum(a, 0)))


# -- linear_attention -----------------------------------------------------------------------


def _linear_attention(q, k, v, phi=phi, slope=lambda f: np.minimum(f, 1)):
    f, g = phi(q), phi(k)
    S, z = g.T @ v, g.sum(axis=0)
    n = f @ z
    y = f @ S / n[:, None]

    def back(dy):
        du = dy / n[:, None]
        return du, -(y * du).sum(axis=1)

    def vjp_q(dy):
        du, dn = back(dy)
        return (du @ S.T + dn[:, None] * z) * slope(f)

    def vjp_k(dy):
        du, dn = back(dy)
        return (v @ (f.T @ du).T + dn @ f) * slope(g)

    def vjp_v(dy):
        du, _ = back(dy)
        return g @ (f.T @ du)

    return y, (vjp_q, vjp_k, vjp_v)


def linear_attention_reference(q, k, v):
    return _linear_attention(q, k, v)


def _tokens(rng, L, D, M):
    return tuple(rng.normal(size=shape).round(1) for shape in ((L, D), (L, D), (L, M)))


TOKENS = [
    Case("one token", np.array([[1.0, -1.0]]), np.array([[0.5, 2.0]]), np.array([[3.0, -2.0]])),
    Case("two tokens of one feature", *_tokens(np.random.default_rng(0), 2, 1, 1)),
    Case("four tokens, values of another width", *_tokens(np.random.default_rng(1), 4, 3, 2)),
    Case("all sizes alike", *_tokens(np.random.default_rng(2), 3, 3, 3)),
]


def _any_tokens(rng):
    return Case("any tokens", *_tokens(rng, *rng.integers(2, 6, size=3)))


linear_attention = Exercise(
    "21.linear_attention",
    reference=linear_attention_reference,
    observe=rules,
    cases=TOKENS[1:],  # of one token the gradients of q and k are 0 but for rounding
    more=_any_tokens,
    hints=[
        "Forward needs four lines: f and g, then S = g.T @ v and z = g.sum(axis=0), then "
        "n = f @ z, then the quotient. n has shape (L,): give it a second axis to divide rows.",
        "Backward through the quotient: du = dy / n, and dn = -(y * du) summed over the features.",
        "f stands in u = f S and in n = f z: df = du @ S.T + dn[:, None] * z. For g: dS = f.T @ du "
        "and dz = dn @ f, then dg = v @ dS.T + dz.",
        "The kernel's slope is min(phi(a), 1): multiply df by np.minimum(f, 1), dg by "
        "np.minimum(g, 1). v is not in the kernel: dv = g @ dS.",
    ],
)


@linear_attention.mutant(
    "The weights are not divided by their sum: y_i = (sum of weights times values) / (sum of "
    "weights)."
)
def not_normalised(q, k, v):
    f, g = phi(q), phi(k)
    S = g.T @ v
    return f @ S, (
        lambda dy: dy @ S.T * np.minimum(f, 1),
        lambda dy: v @ (f.T @ dy).T * np.minimum(g, 1),
        lambda dy: g @ (f.T @ dy),
    )


@linear_attention.mutant(
    "The output is right, but the rules of q and k take the sum n below the line as a constant; q "
    "and k are in it, so dn = -(y * du).sum() has to travel on, too.",
    like=["query_forgets_the_sum"],
)
def normaliser_taken_as_constant(q, k, v):
    y, (_, _, vjp_v) = linear_attention_reference(q, k, v)
    f, g = phi(q), phi(k)
    n = (f @ g.sum(axis=0))[:, None]
    return y, (
        lambda dy: (dy / n) @ (g.T @ v).T * np.minimum(f, 1),
        lambda dy: v @ (f.T @ (dy / n)).T * np.minimum(g, 1),
        vjp_v,
    )


@linear_attention.mutant(
    "The output is right, but the kernel's slope is missing in the rules of q and k: those are "
    "gradients of phi(q) and phi(k)."
)
def slope_forgotten(q, k, v):
    return _linear_attention(q, k, v, slope=lambda f: 1.0)


@linear_attention.mutant("That is elu without the + 1: weights could be negative, and sum to 0.")
def elu_without_one(q, k, v):
    y, vjps = _linear_attention(
        q, k, v, phi=lambda a: phi(a) - 1, slope=lambda f: np.minimum(f + 1, 1)
    )
    return y, vjps


@linear_attention.mutant("phi is given: elu + 1, not the exponential.")
def exponential_kernel(q, k, v):
    return _linear_attention(q, k, v, phi=np.exp, slope=lambda f: f)


@linear_attention.mutant(
    "The output is right. In the rule of k the way through z is missing: g_j is in S, with v_j, "
    "and in z, so dz = sum of dn_i f_i is added for each j."
)
def key_forgets_the_sum(q, k, v):
    y, (vjp_q, _, vjp_v) = linear_attention_reference(q, k, v)
    f, g = phi(q), phi(k)
    n = (f @ g.sum(axis=0))[:, None]
    return y, (vjp_q, lambda dy: v @ (f.T @ (dy / n)).T * np.minimum(g, 1), vjp_v)


@linear_attention.mutant(
    "The output is right. In the rule of q the way through n is missing: f_i is in S f and in "
    "n_i = f_i z, so dn_i z is added.",
    like=["normaliser_taken_as_constant"],
)
def query_forgets_the_sum(q, k, v):
    y, (_, vjp_k, vjp_v) = linear_attention_reference(q, k, v)
    f, g = phi(q), phi(k)
    n = (f @ g.sum(axis=0))[:, None]
    return y, (lambda dy: (dy / n) @ (g.T @ v).T * np.minimum(f, 1), vjp_k, vjp_v)


@linear_attention.mutant(
    "dn has the wrong sign: y = u / n falls when n grows, so dn = -(y * du).sum()."
)
def sign_of_the_normaliser(q, k, v):
    y, (_, _, vjp_v) = linear_attention_reference(q, k, v)
    f, g = phi(q), phi(k)
    z = g.sum(axis=0)
    n = f @ z

    def back(dy):
        du = dy / n[:, None]
        return du, (y * du).sum(axis=1)

    def vjp_q(dy):
        du, dn = back(dy)
        return (du @ (g.T @ v).T + dn[:, None] * z) * np.minimum(f, 1)

    def vjp_k(dy):
        du, dn = back(dy)
        return (v @ (f.T @ du).T + dn @ f) * np.minimum(g, 1)

    return y, (vjp_q, vjp_k, vjp_v)


# -- causal ---------------------------------------------------------------------------------


def _masked(q, k, v, mask, over=None):
    """The quadratic form: weights where the mask is True, divided by their sum over `over`."""
    w = phi(q) @ phi(k).T
    below = w * (mask if over is None else over)
    return (w * mask) @ v / below.sum(axis=1, keepdims=True)


def causal_reference(q, k, v):
    return _masked(q, k, v, np.tri(len(q)))


causal = Exercise(
    "21.causal",
    reference=causal_reference,
    cases=TOKENS,
    more=_any_tokens,
    hints=[
        "The first token sees only itself: y[0] = v[0].",
        "Keep S (D, M) and z (D,), at first 0. At token i add np.outer(g, v[i]) to S and g to z, "
        "where g = phi(k[i]).",
        "Then y[i] = f @ S / (f @ z) with f = phi(q[i]).",
    ],
)


@causal.mutant("Every token sees all tokens here; token i may see only those up to i.")
def sees_everything(q, k, v):
    return _masked(q, k, v, np.ones((len(q), len(q))))


@causal.mutant("S is a running sum, but z is the sum over all tokens: both must run.")
def normaliser_sees_everything(q, k, v):
    return _masked(q, k, v, np.tri(len(q)), over=np.ones((len(q), len(q))))


@causal.mutant("The sums run from the end: token i sees what comes after it.")
def sees_the_future(q, k, v):
    return _masked(q, k, v, np.tri(len(q)).T)


@causal.mutant("S and z are replaced at each token, not added to: token i sees itself alone.")
def state_replaced(q, k, v):
    return v * 1.0


@causal.mutant(
    "Token i should see itself, too: add its key and value to the sums before you read them."
)
def reads_before_it_adds(q, k, v):
    y = np.zeros_like(v)
    if len(q) > 1:
        w = (phi(q) @ phi(k).T) * np.tri(len(q), k=-1)
        y[1:] = w[1:] @ v / w[1:].sum(axis=1, keepdims=True)
    return y


@causal.mutant("The running sums are divided by nothing: y_i = S f_i / (z f_i).")
def running_but_not_normalised(q, k, v):
    return (phi(q) @ phi(k).T * np.tri(len(q))) @ v


# -- simam ----------------------------------------------------------------------------------

POSITIONS = (2, 3)


def _simam(x, lam, minus=1, quarter=4, half=0.5, over=POSITIONS, paths=("V", "mean"), direct=True):
    """SimAM with its rule; the settings are what wrong answers change."""
    count = np.prod([x.shape[axis] for axis in over])
    n = count - minus
    delta = x - x.mean(axis=over, keepdims=True)
    V = (delta**2).sum(axis=over, keepdims=True) / n + lam
    s = 1 / (1 + np.exp(-(delta**2 / (quarter * V) + half)))

    def vjp_x(dy):
        da = dy * x * s * (1 - s)
        dV = -(da * delta**2).sum(axis=over, keepdims=True) / (quarter * V**2)
        ddelta = 2 * delta * da / (quarter * V)
        if "V" in paths:
            ddelta = ddelta + 2 * delta * dV / n
        if "mean" in paths:
            ddelta = ddelta - ddelta.mean(axis=over, keepdims=True)
        return dy * s * direct + ddelta * bool(paths)

    return s * x, vjp_x


def simam_reference(x, *, lam=1e-4):
    return _simam(x, lam)


simam = Exercise(
    "21.simam",
    reference=simam_reference,
    observe=rules,
    cases=[
        Case("one channel of two pixels", np.array([[[[1.0, 4.0]]]])),
        Case("one channel", np.array([[[[1.0, 2.0], [3.0, 6.0]]]])),
        Case(
            "two images of three channels",
            np.random.default_rng(0).normal(size=(2, 3, 3, 2)).round(1),
        ),
        Case(
            "a large lambda",
            np.random.default_rng(1).normal(size=(2, 2, 2, 4)).round(1),
            lam=0.5,
        ),
    ],
    more=lambda rng: Case(
        "any shape",
        rng.normal(size=(*rng.integers(1, 4, size=2), *rng.integers(2, 5, size=2))).round(1),
        lam=float(rng.choice([0.01, 0.3])),
    ),
    hints=[
        "`x.mean(axis=(2, 3), keepdims=True)` keeps the axes, so that it can be subtracted.",
        "Backward, first to the sigmoid's argument a: da = dy * x * s * (1 - s). The product gives "
        "dy * s besides.",
        "a = delta^2 / (4 V) + 1/2, and V is one number a channel: dV = -(da * delta^2).sum(...) / "
        "(4 V^2). So ddelta = 2 * delta * (da / (4 V) + dV / n).",
        "delta = x - mean(x): its rule is ddelta - mean(ddelta). Add dy * s.",
    ],
)


@simam.mutant("The sum of squares is divided by n = H W - 1, not by H W.")
def divided_by_all(x, *, lam=1e-4):
    return _simam(x, lam, minus=0)


@simam.mutant("Inside the sigmoid 1/2 is added.")
def without_the_half(x, *, lam=1e-4):
    return _simam(x, lam, half=0.0)


@simam.mutant("The square is divided by 4 V, not by V.")
def without_the_four(x, *, lam=1e-4):
    return _simam(x, lam, quarter=1)


@simam.mutant("Mean and variance are those of each channel: over axes 2 and 3, not over channels.")
def over_channels_too(x, *, lam=1e-4):
    return _simam(x, lam, over=(1, 2, 3))


@simam.mutant("lambda is missing: it is added to the variance.")
def without_lambda(x, *, lam=1e-4):
    return _simam(x, 0.0)


@simam.mutant(
    "The output is right. The rule holds the product alone: x also makes the gate, through delta "
    "and V."
)
def gate_taken_as_constant(x, *, lam=1e-4):
    return _simam(x, lam, paths=())


@simam.mutant("The output is right. The rule takes V as a constant; every delta is in it.")
def variance_taken_as_constant(x, *, lam=1e-4):
    return _simam(x, lam, paths=("mean",))


@simam.mutant(
    "The output is right. The rule takes the mean as a constant: delta = x - mean(x), so its "
    "gradient is ddelta - mean(ddelta)."
)
def mean_taken_as_constant(x, *, lam=1e-4):
    return _simam(x, lam, paths=("V",))


@simam.mutant(
    "The output is right. The rule holds the gate's path alone: y = s x, so dy * s is added."
)
def product_forgotten(x, *, lam=1e-4):
    return _simam(x, lam, direct=False)


# -- criss_cross_weights --------------------------------------------------------------------


def _softmax(scores):
    w = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return w / w.sum(axis=-1, keepdims=True)


def _cross_scores(q, k, itself=-np.inf):
    H = q.shape[1]
    row = np.einsum("dhw,dhj->hwj", q, k)
    column = np.einsum("dhw,djw->hwj", q, k)
    if itself is not None:
        column[np.arange(H), :, np.arange(H)] = itself
    return row, column


def criss_cross_weights_reference(q, k):
    return _softmax(np.concatenate(_cross_scores(q, k), axis=2))


def _maps(rng, D, H, W):
    return tuple(rng.normal(size=(D, H, W)).round(1) for _ in "qk")


criss_cross_weights = Exercise(
    "21.criss_cross_weights",
    reference=criss_cross_weights_reference,
    cases=[
        Case("one row of two", np.array([[[1.0, 0.0]]]), np.array([[[2.0, -1.0]]])),
        Case("one column of two", np.array([[[1.0], [0.5]]]), np.array([[[2.0], [-1.0]]])),
        Case("two rows, three columns", *_maps(np.random.default_rng(0), 2, 2, 3)),
        Case("a square", *_maps(np.random.default_rng(1), 4, 3, 3)),
    ],
    more=lambda rng: Case("any map", *_maps(rng, *rng.integers(1, 5, size=3))),
    hints=[
        'Scores of the row: `np.einsum("dhw,dhj->hwj", q, k)`, for each position (h, w) and each '
        "j in its row.",
        'Scores of the column: `np.einsum("dhw,djw->hwj", q, k)`, where j is a row.',
        "In the column the position itself has j == h: put a score of -inf there, which the "
        "softmax makes a weight of 0.",
        "Concatenate along the last axis, and take one softmax over it.",
    ],
)


@criss_cross_weights.mutant(
    "The position itself counts twice, in its row and in its column: in the column its weight is 0."
)
def itself_twice(q, k):
    return _softmax(np.concatenate(_cross_scores(q, k, itself=None), axis=2))


@criss_cross_weights.mutant(
    "A score of 0 is not a weight of 0: the softmax makes exp(0) of it. Use -inf."
)
def score_of_zero(q, k):
    return _softmax(np.concatenate(_cross_scores(q, k, itself=0.0), axis=2))


@criss_cross_weights.mutant(
    "Row and column have a softmax each, and sum to 2 together; one softmax runs over both."
)
def two_softmaxes(q, k):
    row, column = _cross_scores(q, k)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.concatenate([_softmax(row), _softmax(column)], axis=2))


@criss_cross_weights.mutant("The row comes first, then the column.")
def column_first(q, k):
    row, column = _cross_scores(q, k)
    return _softmax(np.concatenate([column, row], axis=2))


@criss_cross_weights.mutant("No scale is asked for here: the scores are plain dot products.")
def scaled(q, k):
    return criss_cross_weights_reference(q / np.sqrt(len(q)), k)


@criss_cross_weights.mutant("Queries and keys are exchanged: position (h, w) asks with its query.")
def roles_exchanged(q, k):
    return criss_cross_weights_reference(k, q)


@criss_cross_weights.mutant(
    "You set the position's own weight to 0 after the softmax: then the others no longer sum to 1."
)
def zeroed_after_the_softmax(q, k):
    w = _softmax(np.concatenate(_cross_scores(q, k, itself=None), axis=2))
    H, W = q.shape[1:]
    w[np.arange(H), :, W + np.arange(H)] = 0
    return w


# -- patches --------------------------------------------------------------------------------


def patches_reference(x, *, size):
    return _patches(x, size, (0, 2, 4, 1, 3, 5))


def _patches(x, size, order):
    """Patches by a permutation of the axes (N, C, P, size, Q, size), and its rule."""
    N, C, H, W = x.shape
    P, Q = H // size, W // size
    cut = x.reshape(N, C, P, size, Q, size).transpose(order)

    def vjp_x(dy):
        return dy.reshape(cut.shape).transpose(np.argsort(order)).reshape(x.shape)

    return cut.reshape(N, P * Q, C * size * size), vjp_x


patches = Exercise(
    "21.patches",
    reference=patches_reference,
    observe=rules,
    cases=[
        Case("sixteen pixels", np.arange(16.0).reshape(1, 1, 4, 4), size=2),
        Case("one patch of two channels", np.arange(8.0).reshape(1, 2, 2, 2), size=2),
        Case("wider than high", np.arange(36.0).reshape(1, 2, 3, 6), size=3),
        Case("two images, two channels", np.arange(64.0).reshape(2, 2, 4, 4), size=2),
    ],
    more=lambda rng: Case(
        "any image",
        rng.integers(
            10, size=(*rng.integers(1, 4, size=2), *(s := rng.integers(1, 4, size=3))[:2] * s[2])
        ).astype(float),
        size=int(s[2]),
    ),
    hints=[
        "Split the axis H into two, rows of patches and rows in a patch: "
        "`x.reshape(N, C, H // size, size, W // size, size)`.",
        "Now bring the axes into the order N, row of patches, column of patches, C, row, column: "
        "`.transpose(0, 2, 4, 1, 3, 5)`; then reshape.",
        "The rule goes the same way back: reshape dy to six axes, transpose by (0, 3, 1, 4, 2, 5), "
        "reshape to the shape of x.",
    ],
)


@patches.mutant(
    "A reshape alone does not cut patches: it takes pixels in the order in which they are stored, "
    "row by row of the whole image. Split the axes, transpose, then reshape."
)
def reshaped_only(x, *, size):
    N, C, H, W = x.shape
    y = x.reshape(N, (H // size) * (W // size), C * size * size)
    return y, lambda dy: dy.reshape(x.shape)


@patches.mutant("The patches come column by column; they should come row by row.")
def column_by_column(x, *, size):
    return _patches(x, size, (0, 4, 2, 1, 3, 5))


@patches.mutant("Within a patch the channel comes last; it should come first.")
def channel_last(x, *, size):
    return _patches(x, size, (0, 2, 4, 3, 5, 1))


@patches.mutant("Each patch is transposed: within it, rows come before columns.")
def transposed_within(x, *, size):
    return _patches(x, size, (0, 2, 4, 1, 5, 3))


@patches.mutant(
    "The patches are right; the rule must put them back to their places, and a reshape alone does "
    "not: undo the transpose, too."
)
def rule_only_reshapes(x, *, size):
    y, _ = patches_reference(x, size=size)
    return y, lambda dy: dy.reshape(x.shape)


@patches.mutant(
    "The patches are right. The rule transposes by the same order once more; what undoes "
    "(0, 2, 4, 1, 3, 5) is (0, 3, 1, 4, 2, 5)."
)
def rule_transposes_the_same_way(x, *, size):
    y, _ = patches_reference(x, size=size)
    N, C, H, W = x.shape
    six = (N, H // size, W // size, C, size, size)
    return y, lambda dy: dy.reshape(six).transpose(0, 2, 4, 1, 3, 5).reshape(x.shape)


# -- GlobalContext --------------------------------------------------------------------------


class GlobalContextReference(nn.Module):
    def __init__(self, channels, reduction=16):
        super().__init__()
        hidden = channels // reduction
        self.mask = nn.Conv2d(channels, 1, 1, bias=False)
        self.fc1 = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x):
        return self.fuse(x, self.transform(self.context(x)))

    def context(self, x):
        a = F.softmax(self.mask(x).flatten(2), dim=2)
        return (x.flatten(2) * a).sum(dim=2)

    def transform(self, z):
        return self.fc2(F.relu(self.norm(self.fc1(z))))

    def fuse(self, x, v):
        return x + v.reshape(*v.shape, 1, 1)


def _images(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).round(1)


def _any_images(rng):
    N, hidden, reduction, H, W = (int(n) for n in rng.integers(2, 4, size=5))
    channels = hidden * reduction
    images = rng.normal(size=(N, channels, H, W)).round(1)
    return Case("any images", images, channels=channels, reduction=reduction)


GlobalContext = Exercise(
    "21.GlobalContext",
    reference=GlobalContextReference,
    observe=module,
    cases=[
        Case("one image", _images(0, 1, 4, 2, 2), channels=4, reduction=2),
        Case("three images", _images(1, 3, 6, 3, 2), channels=6, reduction=2),
        Case("as many positions as channels", _images(2, 2, 4, 2, 2), channels=4, reduction=1),
    ],
    more=_any_images,
    hints=[
        "`self.mask(x)` has shape (N, 1, H, W). Flatten the positions before the softmax, so that "
        "it runs over all of them: dim=2 of (N, 1, H W).",
        "z is the sum over positions of a times x: (N, 1, L) @ (N, L, C), or a product and a sum.",
        "The result of fc2 is (N, C): reshape it to (N, C, 1, 1) and add it to x.",
    ],
)


@GlobalContext.mutant("The context is the plain mean here: the mask's softmax weights are missing.")
class PlainMean(GlobalContextReference):
    def context(self, x):
        return x.mean(dim=(2, 3)) + 0 * self.mask(x).sum()


@GlobalContext.mutant("The softmax runs over one row or column alone; flatten H and W first.")
class SoftmaxOverRows(GlobalContextReference):
    def context(self, x):
        return (x * F.softmax(self.mask(x), dim=3)).sum(dim=(2, 3))


@GlobalContext.mutant("You used a sigmoid for each position: the weights should sum to 1.")
class SigmoidWeights(GlobalContextReference):
    def context(self, x):
        return (x * F.sigmoid(self.mask(x))).sum(dim=(2, 3))


@GlobalContext.mutant("The softmax runs over an axis of length 1, so all weights are 1.")
class SoftmaxOfOne(GlobalContextReference):
    def context(self, x):
        return (x * F.softmax(self.mask(x), dim=1)).sum(dim=(2, 3))


@GlobalContext.mutant("The result is added to x; you used it as a gate.")
class Gate(GlobalContextReference):
    def fuse(self, x, v):
        return x * F.sigmoid(v.reshape(*v.shape, 1, 1))


@GlobalContext.mutant("x itself is missing: y = x + context.")
class WithoutX(GlobalContextReference):
    def fuse(self, x, v):
        return 0 * x + v.reshape(*v.shape, 1, 1)


@GlobalContext.mutant("The normalisation stands between fc1 and the ReLU, not behind the ReLU.")
class NormBehindRelu(GlobalContextReference):
    def transform(self, z):
        return self.fc2(self.norm(F.relu(self.fc1(z))))


@GlobalContext.mutant("The ReLU between norm and fc2 is missing.")
class WithoutRelu(GlobalContextReference):
    def transform(self, z):
        return self.fc2(self.norm(self.fc1(z)))


@GlobalContext.mutant(
    "The mask has no bias: a number added to all scores does not change their softmax."
)
class MaskWithBias(GlobalContextReference):
    def __init__(self, channels, reduction=16):
        super().__init__(channels, reduction)
        self.mask = nn.Conv2d(channels, 1, 1)


@GlobalContext.mutant("The linear maps have biases: leave `bias` at its default.")
class WithoutBiases(GlobalContextReference):
    def __init__(self, channels, reduction=16):
        super().__init__(channels, reduction)
        hidden = channels // reduction
        self.fc1 = nn.Linear(channels, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, channels, bias=False)
