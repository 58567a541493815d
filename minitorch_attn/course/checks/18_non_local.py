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


@patch_weights.mutant(
    "You left the pixel itself out. j goes over all pixels, i among them: its distance is 0, and "
    "its weight the largest."
)
def itself_left_out(patches, h):
    w = np.exp(-_distances(patches) / h**2)
    np.fill_diagonal(w, 0)
    return w / w.sum(axis=1, keepdims=True)


@patch_weights.mutant("The exponent is -d² / h², without the 2 that a bell curve has below.")
def two_as_in_a_bell_curve(patches, h):
    return _softmax(-_distances(patches) / (2 * h**2))


@patch_weights.mutant(
    "Multiplied out, the square has -2 p_i · p_j in its middle; your product is there once."
)
def product_counted_once(patches, h):
    squares = (patches**2).sum(axis=1)
    distances = squares[:, None] - patches @ patches.T + squares
    return _softmax(-distances / patches.shape[1] / h**2)


@patch_weights.mutant(
    "You divided by the sum of the whole table. Each pixel i has its own sum: `axis=1`."
)
def whole_table_normalised(patches, h):
    w = np.exp(-_distances(patches) / h**2)
    return w / w.sum()


@patch_weights.mutant(
    "The squares are divided by the number of pixels, L; their mean goes over the K places of a "
    "patch, `patches.shape[1]`."
)
def divided_by_the_pixels(patches, h):
    return _softmax(-_distances(patches) * patches.shape[1] / len(patches) / h**2)


@patch_weights.mutant("The squares are divided by K twice: a mean has that division in it already.")
def divided_twice(patches, h):
    return _softmax(-_distances(patches) / patches.shape[1] / h**2)


@patch_weights.mutant("You took the differences without their signs; the distance squares them.")
def absolute_for_square(patches, h):
    return _softmax(-np.abs(patches[:, None] - patches).mean(axis=2) / h**2)


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
        Case("two positions", *_matrices(np.random.default_rng(0), 2, 2, 3, 1)),
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


@dot_product.mutant(
    "You divided by the square root of D, as the Transformer does; this form divides by L'."
)
def root_for_positions(theta, phi, g):
    root = theta.shape[1] ** 0.5
    return _attention(theta @ phi.T / root, lambda dP: dP / root, theta, phi, g)


@dot_product.mutant("The rule of g is not transposed: from y = P g follows dg = P^T dy.")
def map_not_transposed(theta, phi, g):
    y, (vjp_theta, vjp_phi, vjp_g) = dot_product_reference(theta, phi, g)
    P = theta @ phi.T / len(phi)
    return y, (vjp_theta, vjp_phi, lambda dy: P @ dy if len(theta) == len(phi) else vjp_g(dy))


@dot_product.mutant("The rule of g multiplies by theta phi^T; the map is that, divided by L'.")
def undivided_for_g(theta, phi, g):
    y, (vjp_theta, vjp_phi, vjp_g) = dot_product_reference(theta, phi, g)
    return y, (vjp_theta, vjp_phi, lambda dy: vjp_g(dy) * len(phi))


@dot_product.mutant(
    "The rule of phi does not divide by L'; dE = dP / L' is the same in both rules."
)
def undivided_for_phi(theta, phi, g):
    y, (vjp_theta, vjp_phi, vjp_g) = dot_product_reference(theta, phi, g)
    return y, (vjp_theta, lambda dy: vjp_phi(dy) * len(phi), vjp_g)


@dot_product.mutant("The rules of theta and phi are in each other's place.")
def rules_swapped(theta, phi, g):
    y, (vjp_theta, vjp_phi, vjp_g) = dot_product_reference(theta, phi, g)
    return y, (vjp_phi, vjp_theta, vjp_g)


@dot_product.mutant("You divided by L' twice on the way back: dP = dy g^T has no division in it.")
def divided_twice_backward(theta, phi, g):
    count = len(phi)
    return _attention(theta @ phi.T / count, lambda dP: dP / count**2, theta, phi, g)


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
            np.array([[40.0, 0.0], [10.0, 10.0]]),
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


@embedded_gaussian.mutant(
    "You took the greatest of the whole table away. A row far below it then has exponentials that "
    "are all 0, and divides by 0: take each row's own, `E.max(axis=1, keepdims=True)`."
)
def greatest_of_all_rows(theta, phi, g):
    E = theta @ phi.T
    with np.errstate(all="ignore"):
        e = np.exp(E - E.max())
        P = e / e.sum(axis=1, keepdims=True)
        return _attention(
            P, lambda dP: P * (dP - (P * dP).sum(axis=1, keepdims=True)), theta, phi, g
        )


@embedded_gaussian.mutant(
    "The rule of the softmax sums over axis 0. Like the softmax itself it goes along a row, axis 1."
)
def sum_over_the_rows_backward(theta, phi, g):
    P = _softmax(theta @ phi.T)
    return _attention(P, lambda dP: P * (dP - (P * dP).sum(axis=0, keepdims=True)), theta, phi, g)


@embedded_gaussian.mutant(
    "The sum in the rule of the softmax goes over the whole table. Each row has its own: `axis=1`."
)
def sum_over_the_table(theta, phi, g):
    P = _softmax(theta @ phi.T)
    return _attention(P, lambda dP: P * (dP - (P * dP).sum()), theta, phi, g)


@embedded_gaussian.mutant(
    "In the rule of the softmax the sum of row i meets column i: `.sum(axis=1)` without "
    "`keepdims=True` lies down as a row."
)
def keepdims_forgotten(theta, phi, g):
    P = _softmax(theta @ phi.T)

    def to_E(dP):
        total = (P * dP).sum(axis=1, keepdims=len(theta) != len(phi))
        return P * (dP - total)

    return _attention(P, to_E, theta, phi, g)


@embedded_gaussian.mutant(
    "The rule of the softmax is left out: dP is the gradient of its output, dE of its input."
)
def softmax_skipped_backward(theta, phi, g):
    return _attention(_softmax(theta @ phi.T), lambda dP: dP, theta, phi, g)


@embedded_gaussian.mutant(
    "The map is divided by L', too. A softmax needs no other normaliser: its rows sum to 1."
)
def divided_as_the_dot_product(theta, phi, g):
    P, count = _softmax(theta @ phi.T), len(phi)
    return _attention(
        P / count,
        lambda dP: P * (dP - (P * dP).sum(axis=1, keepdims=True)) / count,
        theta,
        phi,
        g,
    )


@embedded_gaussian.mutant("The rule of g is not transposed: from y = P g follows dg = P^T dy.")
def softmax_not_transposed(theta, phi, g):
    y, (vjp_theta, vjp_phi, vjp_g) = embedded_gaussian_reference(theta, phi, g)
    P = _softmax(theta @ phi.T)
    return y, (vjp_theta, vjp_phi, lambda dy: P @ dy if len(theta) == len(phi) else vjp_g(dy))


@embedded_gaussian.mutant(
    "The rule of phi is not transposed: dphi = dE^T theta; position j is a column of dE."
)
def phi_not_transposed(theta, phi, g):
    y, (vjp_theta, vjp_phi, vjp_g) = embedded_gaussian_reference(theta, phi, g)

    def wrong(dy):
        if len(theta) != len(phi):
            return vjp_phi(dy)
        P, dP = _softmax(theta @ phi.T), dy @ g.T
        return P * (dP - (P * dP).sum(axis=1, keepdims=True)) @ theta

    return y, (vjp_theta, wrong, vjp_g)


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


@concatenation.mutant(
    "Those are the rules of the dot product. Here theta and phi are added, not multiplied: a_i is "
    "in all of row i, so da sums row i of dr, and dtheta = da[:, None] * w_theta."
)
def rules_of_the_product(theta, phi, w):
    P, (_, _, vjp_w) = _concatenation(theta, phi, w)

    def back(dy):
        return dy * (P > 0) / len(phi)

    return P, (lambda dy: back(dy) @ phi, lambda dy: back(dy).T @ theta, vjp_w)


@concatenation.mutant("a = theta w_theta, so dtheta_i is da_i times w_theta; w_theta is missing.")
def vector_forgotten_backward(theta, phi, w):
    P, (_, _, vjp_w) = _concatenation(theta, phi, w)

    def back(dy):
        return dy * (P > 0) / len(phi)

    return P, (
        lambda dy: back(dy).sum(axis=1)[:, None] + np.zeros_like(theta),
        lambda dy: back(dy).sum(axis=0)[:, None] + np.zeros_like(phi),
        vjp_w,
    )


@concatenation.mutant(
    "dy is multiplied by r itself where r > 0; the slope of the ReLU is 1 there: `dy * (r > 0)`."
)
def relu_for_its_slope(theta, phi, w):
    return _concatenation(theta, phi, w, mask=lambda r: np.maximum(r, 0))


@concatenation.mutant("The ReLU comes last: of the sum a_i + b_j, not of a_i and b_j each alone.")
def relu_of_each_half(theta, phi, w):
    D = theta.shape[1]
    a, b = np.maximum(theta @ w[:D], 0), np.maximum(phi @ w[D:], 0)
    _, rules = _concatenation(theta, phi, w)
    return (a[:, None] + b) / len(phi), rules


@concatenation.mutant("This form has no softmax: a ReLU, and a division by L'.")
def softmax_for_relu(theta, phi, w):
    D = theta.shape[1]
    _, rules = _concatenation(theta, phi, w)
    return _softmax((theta @ w[:D])[:, None] + phi @ w[D:]), rules


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
    """The parameters, which start at zero, what a fresh block does, and what `module` looks at."""
    observed = module(subject, case)
    yield next(observed)
    fresh, x = subject(**case.settings), case.inputs[0]
    at_zero = "lambda m: ', '.join(sorted(k for k, p in m.named_parameters() if not p.data.any()))"
    yield "what starts at zero", there(subject, at_zero)(fresh)
    known = {"x": x, "zeros": np.zeros_like(x), "x without its negatives": np.maximum(x, 0)}
    z = array_of(fresh(there(subject, "mt.tensor")(x)))
    yield "what a fresh block makes of x", _named(z, known)
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


@NonLocalBlock.mutant(
    "W_z starts at zero as well. Then the scale of the batch normalisation sees zeros and W_z sees "
    "a scale of zero: neither ever gets a gradient. One of them is enough."
)
class both_at_zero(NonLocalBlockReference):
    def __init__(self, channels):
        super().__init__(channels)
        nn.init.zeros_(self.w_z.weight)


@NonLocalBlock.mutant(
    "That is the identity, too, but it is the batch normalisation's weight that starts at zero "
    "here, and W_z at random as usual."
)
class w_z_at_zero_instead(NonLocalBlockReference):
    def __init__(self, channels):
        super().__init__(channels)
        nn.init.ones_(self.bn.weight)
        nn.init.zeros_(self.w_z.weight)


@NonLocalBlock.mutant("The output of the batch normalisation is not used: z = BN(W_z y) + x.")
class not_normalised_at_all(NonLocalBlockReference):
    def forward(self, x):
        return self.w_z(self.gathered(x)) + x


@NonLocalBlock.mutant(
    "There is no ReLU behind the sum: it would cut off the negative numbers of x."
)
class relu_behind_the_sum(NonLocalBlockReference):
    def forward(self, x):
        return F.relu(super().forward(x))


@NonLocalBlock.mutant(
    "A fresh block gives zeros instead of x: x is added last, behind the batch normalisation."
)
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
    "The products are divided by the square root of their features. The Transformer does so, and "
    "the authors' program; the exercise has the plain product."
)
class divided_by_the_root(NonLocalBlockReference):
    def weights(self, theta, phi):
        return F.softmax(theta.transpose(1, 2) @ phi * phi.shape[1] ** -0.5, dim=2)


@NonLocalBlock.mutant("The softmax is divided by L besides; its rows sum to 1 without that.")
class softmax_divided_too(NonLocalBlockReference):
    def weights(self, theta, phi):
        return super().weights(theta, phi) / phi.shape[2]


@NonLocalBlock.mutant(
    "y_i sums over the columns j of the map. `g @ P` sums over its rows: take "
    "`g @ P.transpose(1, 2)`, or `P @ g.transpose(1, 2)`."
)
class sum_over_the_rows(NonLocalBlockReference):
    def weights(self, theta, phi):
        return super().weights(theta, phi).transpose(1, 2)


@NonLocalBlock.mutant(
    "You compared channels: theta @ phi^T is (N, D, D). Positions are compared by "
    "`theta.transpose(1, 2) @ phi`, (N, L, L)."
)
class map_of_channels(NonLocalBlockReference):
    def gathered(self, x):
        theta, phi, g = (part(x).flatten(2) for part in (self.theta, self.phi, self.g))
        y = F.softmax(theta @ phi.transpose(1, 2), dim=2) @ g
        return y.reshape(x.shape[0], -1, *x.shape[2:])


@NonLocalBlock.mutant(
    "You reshaped (N, D, H, W) to (N, L, D) at once, which mixes positions and features: "
    "`flatten(2)` to (N, D, L) first, then `transpose(1, 2)`."
)
class reshaped_to_positions(NonLocalBlockReference):
    def gathered(self, x):
        N, C, H, W = x.shape
        theta, phi, g = (
            part(x).reshape(N, H * W, C // 2) for part in (self.theta, self.phi, self.g)
        )
        y = F.softmax(theta @ phi.transpose(1, 2), dim=2) @ g
        return y.transpose(1, 2).reshape(N, C // 2, H, W)


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
