import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, array_of, module, rules, there


def _rounded(rng, *shape):
    return rng.normal(size=shape).round(1)


# -- patch_weights --------------------------------------------------------------------------


def _softmax(E, axis=1):
    e = np.exp(E - E.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _distances(patches):
    return ((patches[:, None] - patches) ** 2).mean(axis=2)


def patch_weights_reference(patches, h):
    return _softmax(-_distances(patches) / h**2)


patch_weights = Exercise(
    "18.patch_weights",
    reference=patch_weights_reference,
    cases=[
        Case("two patches of two pixels", np.array([[0.0, 0.0], [1.0, 1.0]]), 1.0),
        Case("another h", np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 1.0]]), 0.5),
        Case("five patches of nine pixels", _rounded(np.random.default_rng(0), 5, 9), 0.8),
    ],
    more=lambda rng: Case(
        "any sizes", rng.normal(size=rng.integers(2, 7, size=2)), float(rng.uniform(0.5, 2))
    ),
    hints=[
        "First the table of all squared distances, (L, L). Which two axes of `patches` must be set "
        "side by side so that every patch meets every other?",
        "`patches[:, None] - patches` has shape (L, L, K); the mean of its squares over the last "
        "axis is d squared.",
        "`w = np.exp(-d2 / h**2)`, and each row is divided by its sum: `axis=1, keepdims=True`.",
    ],
)


@patch_weights.mutant("The squares are averaged over the K places of a patch; you added them up.")
def sum_for_mean(patches, h):
    return _softmax(-_distances(patches) * patches.shape[1] / h**2)


@patch_weights.mutant("h is squared in the exponent, as the distance is.")
def h_not_squared(patches, h):
    return _softmax(-_distances(patches) / h)


@patch_weights.mutant("The weights of a pixel i sum to 1 over j: along the rows, not the columns.")
def columns_normalised(patches, h):
    return _softmax(-_distances(patches) / h**2, axis=0)


@patch_weights.mutant("The weights are not divided by the sum of their row.")
def not_normalised(patches, h):
    return np.exp(-_distances(patches) / h**2)


@patch_weights.mutant("The sign is turned round: the nearer two patches, the larger the weight.")
def far_for_near(patches, h):
    return _softmax(_distances(patches) / h**2)


@patch_weights.mutant(
    "You compared by the product alone. That leaves out the squares: the one of patch j is another "
    "for each j, and does not cancel in the softmax."
)
def product_for_distance(patches, h):
    return _softmax(2 * patches @ patches.T / patches.shape[1] / h**2)


@patch_weights.mutant("The distance in the exponent is squared; you took its root.")
def distance_not_squared(patches, h):
    return _softmax(-np.sqrt(_distances(patches)) / h**2)


# -- dot_product ----------------------------------------------------------------------------


def _attention(P, to_E, theta, phi, g):
    """y = P g and its rules, where `to_E` carries dP back to the products theta phi^T."""

    def back(dy):
        return to_E(dy @ g.T)

    return P @ g, (
        lambda dy: back(dy) @ phi,
        lambda dy: back(dy).T @ theta,
        lambda dy: P.T @ dy,
    )


def dot_product_reference(theta, phi, g):
    count = len(phi)
    return _attention(theta @ phi.T / count, lambda dP: dP / count, theta, phi, g)


def _matrices(rng, L, M, D, K):
    return _rounded(rng, L, D), _rounded(rng, M, D), _rounded(rng, M, K)


def _any_matrices(rng):
    return Case("any sizes", *_matrices(rng, *rng.integers(2, 6, size=4)))


dot_product = Exercise(
    "18.dot_product",
    reference=dot_product_reference,
    observe=rules,
    cases=[
        Case("two positions", *_matrices(np.random.default_rng(0), 2, 2, 1, 1)),
        Case("as many features as positions", *_matrices(np.random.default_rng(1), 3, 3, 3, 3)),
        Case("four positions i, two j", *_matrices(np.random.default_rng(2), 4, 2, 3, 5)),
    ],
    more=_any_matrices,
    hints=[
        "Two matrix products, with a division between them. The normaliser is `len(phi)`.",
        "From the last product: dg = P^T dy and dP = dy g^T.",
        "From the first: with E = theta phi^T, dtheta = dE phi and dphi = dE^T theta. "
        "Between them, dE = dP / L'.",
    ],
)


@dot_product.mutant("The map is not divided by the number of positions j.")
def without_normaliser(theta, phi, g):
    return _attention(theta @ phi.T, lambda dP: dP, theta, phi, g)


@dot_product.mutant("The forward divides by L', the rules of theta and phi do not: dE = dP / L'.")
def normaliser_forgotten_backward(theta, phi, g):
    return _attention(theta @ phi.T / len(phi), lambda dP: dP, theta, phi, g)


@dot_product.mutant(
    "You divided by the number of positions i, the rows of theta. Each y sums over j: `len(phi)`."
)
def counts_the_queries(theta, phi, g):
    count = len(theta)
    return _attention(theta @ phi.T / count, lambda dP: dP / count, theta, phi, g)


@dot_product.mutant("You divided by the number of features; the normaliser counts positions.")
def counts_the_features(theta, phi, g):
    count = theta.shape[1]
    return _attention(theta @ phi.T / count, lambda dP: dP / count, theta, phi, g)


@dot_product.mutant("This map is a softmax; the dot product has none, it divides by L' alone.")
def softmax_for_division(theta, phi, g):
    P = _softmax(theta @ phi.T)
    return _attention(P, lambda dP: P * (dP - (P * dP).sum(axis=1, keepdims=True)), theta, phi, g)


@dot_product.mutant(
    "The rule of phi is not transposed: dphi = dE^T theta; position j is a column of dE."
)
def transpose_forgotten(theta, phi, g):
    y, (vjp_theta, _, vjp_g) = dot_product_reference(theta, phi, g)
    return y, (vjp_theta, lambda dy: dy @ g.T / len(phi) @ theta, vjp_g)


# -- embedded_gaussian ----------------------------------------------------------------------


def embedded_gaussian_reference(theta, phi, g):
    P = _softmax(theta @ phi.T)
    return _attention(P, lambda dP: P * (dP - (P * dP).sum(axis=1, keepdims=True)), theta, phi, g)


embedded_gaussian = Exercise(
    "18.embedded_gaussian",
    reference=embedded_gaussian_reference,
    observe=rules,
    cases=[
        Case("two positions", *_matrices(np.random.default_rng(3), 2, 2, 2, 1)),
        Case("as many features as positions", *_matrices(np.random.default_rng(4), 3, 3, 3, 3)),
        Case("four positions i, two j", *_matrices(np.random.default_rng(5), 4, 2, 3, 5)),
        Case(
            "large products",
            np.array([[40.0, 0.0], [30.0, 10.0]]),
            np.array([[39.0, 1.0], [39.0, 1.1]]),
            np.array([[1.0], [2.0]]),
        ),
    ],
    more=_any_matrices,
    tolerance=1e-6,
    hints=[
        "Row i of the map belongs to position i and sums to 1: the softmax goes over the columns, "
        "`axis=1`.",
        "E.max(axis=1, keepdims=True) taken away from E changes nothing but keeps exp small.",
        "dP = dy @ g.T; dE = P * (dP - (P * dP).sum(axis=1, keepdims=True)).",
        "dtheta = dE @ phi, dphi = dE.T @ theta, dg = P.T @ dy.",
    ],
)


@embedded_gaussian.mutant("The softmax goes over the positions j, axis 1; you took axis 0.")
def softmax_over_the_rows(theta, phi, g):
    P = _softmax(theta @ phi.T, axis=0)
    return _attention(P, lambda dP: P * (dP - (P * dP).sum(axis=0, keepdims=True)), theta, phi, g)


@embedded_gaussian.mutant(
    "In the rule of the softmax the sum is missing: dE = P * (dP - (P * dP).sum(...)). The weights "
    "of a row compete: as they sum to 1, not all can grow."
)
def softmax_as_if_each_alone(theta, phi, g):
    P = _softmax(theta @ phi.T)
    return _attention(P, lambda dP: P * dP, theta, phi, g)


@embedded_gaussian.mutant(
    "That is the slope of a sigmoid, P (1 - P): it leaves out how the weights of a row depend on "
    "one another."
)
def slope_of_a_sigmoid(theta, phi, g):
    P = _softmax(theta @ phi.T)
    return _attention(P, lambda dP: P * (1 - P) * dP, theta, phi, g)


@embedded_gaussian.mutant("In the rule of the softmax you summed dP alone; the sum weighs it by P.")
def sum_without_weights(theta, phi, g):
    P = _softmax(theta @ phi.T)
    return _attention(P, lambda dP: P * (dP - dP.sum(axis=1, keepdims=True)), theta, phi, g)


@embedded_gaussian.mutant(
    "Here the product is divided by the square root of D. The Transformer does so; this form has "
    "the plain product in the exponent."
)
def scaled_by_the_root(theta, phi, g):
    s = theta.shape[1] ** -0.5
    P = _softmax(s * theta @ phi.T)
    return _attention(
        P, lambda dP: s * P * (dP - (P * dP).sum(axis=1, keepdims=True)), theta, phi, g
    )


@embedded_gaussian.mutant("exp of a large product overflows: take the greatest of each row away.")
def overflowing(theta, phi, g):
    with np.errstate(all="ignore"):
        e = np.exp(theta @ phi.T)
        P = e / e.sum(axis=1, keepdims=True)
        return _attention(
            P, lambda dP: P * (dP - (P * dP).sum(axis=1, keepdims=True)), theta, phi, g
        )


# -- concatenation --------------------------------------------------------------------------


def _concatenation(theta, phi, w, *, mask=None, normaliser=None, backward=None, relu=True):
    D = theta.shape[1]
    count = len(phi) if normaliser is None else normaliser
    behind = count if backward is None else backward
    r = (theta @ w[:D])[:, None] + phi @ w[D:]
    passes = (r > 0 if relu else np.ones_like(r)) if mask is None else mask(r)

    def back(dy):
        return dy * passes / behind

    return (np.maximum(r, 0) if relu else r) / count, (
        lambda dy: back(dy).sum(axis=1)[:, None] * w[:D],
        lambda dy: back(dy).sum(axis=0)[:, None] * w[D:],
        lambda dy: np.concatenate([theta.T @ back(dy).sum(axis=1), phi.T @ back(dy).sum(axis=0)]),
    )


def concatenation_reference(theta, phi, w):
    return _concatenation(theta, phi, w)


def _pairs(rng, L, M, D):
    return _rounded(rng, L, D), _rounded(rng, M, D), _rounded(rng, 2 * D)


concatenation = Exercise(
    "18.concatenation",
    reference=concatenation_reference,
    observe=rules,
    cases=[
        Case(
            "one feature",
            np.array([[1.0], [2.0]]),
            np.array([[1.0], [-1.0], [3.0]]),
            np.array([1.0, -1.5]),
        ),
        Case("four positions i, three j", *_pairs(np.random.default_rng(6), 4, 3, 2)),
        Case("as many features as positions", *_pairs(np.random.default_rng(8), 4, 4, 4)),
    ],
    more=lambda rng: Case("any sizes", *_pairs(rng, *rng.integers(2, 6, size=3))),
    hints=[
        "A product with a vector of two halves is the sum of two products: a number a for each i, "
        "a number b for each j.",
        "`a[:, None] + b` is the table of all sums, (L, L').",
        "dr = dy * (r > 0) / len(phi). a_i takes part in row i, b_j in column j: "
        "da = dr.sum(axis=1), db = dr.sum(axis=0).",
        "dtheta = da[:, None] * w_theta, dw_theta = theta.T @ da, and likewise with b and phi; the "
        "two halves of dw are put together by np.concatenate.",
    ],
)


@concatenation.mutant("The ReLU is missing: a map of this form has no negative number.")
def no_relu(theta, phi, w):
    return _concatenation(theta, phi, w, relu=False)


@concatenation.mutant("The ReLU lets a gradient pass only where r > 0: dy is not masked.")
def relu_not_masked(theta, phi, w):
    return _concatenation(theta, phi, w, mask=np.ones_like)


@concatenation.mutant("The map is not divided by the number of positions j.")
def map_not_divided(theta, phi, w):
    return _concatenation(theta, phi, w, normaliser=1)


@concatenation.mutant("The map is divided by L', so its gradient is, too: it is missing in dr.")
def division_forgotten_backward(theta, phi, w):
    return _concatenation(theta, phi, w, backward=1)


@concatenation.mutant("You divided by the rows of theta; each y sums over j, the rows of phi.")
def counts_the_rows_of_theta(theta, phi, w):
    return _concatenation(theta, phi, w, normaliser=len(theta))


@concatenation.mutant("The halves of w are in each other's place: the first goes with theta.")
def halves_swapped(theta, phi, w):
    D = theta.shape[1]
    P, (vjp_theta, vjp_phi, vjp_w) = _concatenation(theta, phi, np.concatenate([w[D:], w[:D]]))
    return P, (vjp_theta, vjp_phi, lambda dy: np.roll(vjp_w(dy), D))


@concatenation.mutant("The halves of dw are in each other's place; the first is that of theta.")
def halves_of_dw_swapped(theta, phi, w):
    P, (vjp_theta, vjp_phi, vjp_w) = _concatenation(theta, phi, w)
    return P, (vjp_theta, vjp_phi, lambda dy: np.roll(vjp_w(dy), theta.shape[1]))


# -- NonLocalBlock --------------------------------------------------------------------------


class NonLocalBlockReference(nn.Module):
    def __init__(self, channels):
        super().__init__()
        for name in ("theta", "phi", "g"):
            setattr(self, name, nn.Conv2d(channels, channels // 2, 1, bias=False))
        self.w_z = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x):
        return self.bn(self.w_z(self.gathered(x))) + x

    def gathered(self, x):
        N, C, H, W = x.shape
        theta, phi, g = (part(x).flatten(2) for part in (self.theta, self.phi, self.g))
        y = self.weights(theta, phi) @ g.transpose(1, 2)
        return y.transpose(1, 2).reshape(N, C // 2, H, W)

    def weights(self, theta, phi):
        return F.softmax(theta.transpose(1, 2) @ phi, dim=2)


def _named(z, known):
    for name, values in known.items():
        if np.shape(z) == values.shape and np.allclose(z, values):
            return name
    return "something else"


def start_and_module(subject, case):
    """The parameters, whether it starts as the identity, and then all that `module` looks at."""
    observed = module(subject, case)
    yield next(observed)
    x = case.inputs[0]
    z = array_of(subject(**case.settings)(there(subject, "mt.tensor")(x)))
    yield "what a fresh block makes of x", _named(z, {"x": x, "zeros": np.zeros_like(x)})
    yield from observed


def _images(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).round(1)


NonLocalBlock = Exercise(
    "18.NonLocalBlock",
    reference=NonLocalBlockReference,
    observe=start_and_module,
    cases=[
        Case("2 channels", _images(2, 2, 2, 2), channels=2),
        Case("4 channels", _images(2, 4, 2, 3), channels=4),
        Case("6 channels, as many positions", _images(3, 6, 3, 2), channels=6),
    ],
    more=lambda rng: Case("8 channels", rng.normal(size=(2, 8, 3, 2)), channels=8),
    tolerance=1e-6,
    hints=[
        "In `__init__`: three `nn.Conv2d(channels, channels // 2, 1, bias=False)`, one back, and "
        "the batch normalisation, whose weight you set to zero.",
        "`self.theta(x).flatten(2)` has shape (N, D, L), with the positions last.",
        "The products of all positions are `theta.transpose(1, 2) @ phi`, (N, L, L); the softmax "
        "goes over the last axis.",
        "`P @ g.transpose(1, 2)` is (N, L, D). Turn it round, `transpose(1, 2)`, before you "
        "reshape it to (N, D, H, W).",
    ],
)


@NonLocalBlock.mutant(
    "The weight of the batch normalisation starts at 1 as usual; set it to zero, so that a fresh "
    "block is the identity."
)
class not_the_identity_at_first(NonLocalBlockReference):
    def __init__(self, channels):
        super().__init__(channels)
        nn.init.ones_(self.bn.weight)


@NonLocalBlock.mutant("The input is not added: a fresh block gives zeros instead of x.")
class no_shortcut(NonLocalBlockReference):
    def forward(self, x):
        return self.bn(self.w_z(self.gathered(x)))


@NonLocalBlock.mutant("The softmax goes over the positions j, the last axis of the map.")
class columns_sum_to_one(NonLocalBlockReference):
    def weights(self, theta, phi):
        return F.softmax(theta.transpose(1, 2) @ phi, dim=1)


@NonLocalBlock.mutant("The softmax is missing; this map is that of the dot product.")
class softmax_missing(NonLocalBlockReference):
    def weights(self, theta, phi):
        return theta.transpose(1, 2) @ phi / phi.shape[2]


@NonLocalBlock.mutant(
    "You reshaped (N, L, D) to (N, D, H, W) without turning it round first, which mixes positions "
    "and features."
)
class reshaped_without_transpose(NonLocalBlockReference):
    def gathered(self, x):
        y = super().gathered(x)
        return y.flatten(2).transpose(1, 2).reshape(y.shape)


@NonLocalBlock.mutant(
    "theta and phi are in each other's place: the rows of the map belong to theta."
)
class theta_and_phi_swapped(NonLocalBlockReference):
    def weights(self, theta, phi):
        return super().weights(phi, theta)


@NonLocalBlock.mutant("`nn.Conv2d` has a bias unless it is told `bias=False`.")
class biases_left_in(NonLocalBlockReference):
    def __init__(self, channels):
        super().__init__(channels)
        for name in ("theta", "phi", "g"):
            setattr(self, name, nn.Conv2d(channels, channels // 2, 1))
        self.w_z = nn.Conv2d(channels // 2, channels, 1)


@NonLocalBlock.mutant("theta, phi and g lead to half as many channels, `channels // 2`.")
class no_bottleneck(NonLocalBlockReference):
    def __init__(self, channels):
        super().__init__(channels)
        for name in ("theta", "phi", "g", "w_z"):
            setattr(self, name, nn.Conv2d(channels, channels, 1, bias=False))

    def gathered(self, x):
        theta, phi, g = (part(x).flatten(2) for part in (self.theta, self.phi, self.g))
        y = self.weights(theta, phi) @ g.transpose(1, 2)
        return y.transpose(1, 2).reshape(x.shape)
