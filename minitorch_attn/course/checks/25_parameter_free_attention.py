import numpy as np

from minitorch_attn.course.exercise import Case, Exercise, rules


def _positive(rng, *shape):
    """Numbers of which each is positive, with one digit behind the point."""
    return rng.uniform(0.1, 1.5, size=shape).round(1)


def _normal(rng, *shape):
    return rng.normal(size=shape).round(1)


# -- spatial_weights ------------------------------------------------------------------------


def _softmax(s, axis=(1, 2)):
    e = np.exp(s - s.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _weights(s, norm):
    if norm == "softmax":
        return _softmax(s)
    return s / s.sum(axis=(1, 2), keepdims=True)


def spatial_weights_reference(x, squeeze="sum", norm="softmax"):
    return _weights(getattr(x, squeeze)(axis=1), norm)


def _any_weights(rng):
    x = _positive(rng, *rng.integers(2, 5, size=4))
    return Case(
        "any shape", x, str(rng.choice(["sum", "mean"])), str(rng.choice(["softmax", "l1"]))
    )


TWO_PLACES = np.array([[[[1.0, 2.0]], [[0.5, 0.5]]]])

spatial_weights = Exercise(
    "25.spatial_weights",
    reference=spatial_weights_reference,
    cases=[
        Case("two channels, two places, as in the paper", TWO_PLACES, "sum", "softmax"),
        Case("the same, as in the program", TWO_PLACES, "mean", "l1"),
        Case("the softmax of a mean", TWO_PLACES, "mean", "softmax"),
        Case(
            "two images of three channels, the paper's",
            _positive(np.random.default_rng(0), 2, 3, 2, 3),
            "sum",
            "softmax",
        ),
        Case(
            "two images of three channels, the program's",
            _positive(np.random.default_rng(1), 2, 3, 3, 2),
            "mean",
            "l1",
        ),
        Case(
            "a loud image, whose exponentials overflow",
            900 + 100 * _positive(np.random.default_rng(2), 1, 4, 2, 2),
            "sum",
            "softmax",
        ),
    ],
    more=_any_weights,
    hints=[
        "x is (N, C, H, W). Which axis goes away when the channels are squeezed?",
        "`s = x.sum(axis=1)` or `x.mean(axis=1)` is (N, H, W). Each image has one sum over all its "
        "places: `axis=(1, 2), keepdims=True`.",
        "For the softmax subtract the greatest of each image first: "
        "`e = np.exp(s - s.max(axis=(1, 2), keepdims=True))`.",
    ],
)


@spatial_weights.mutant(
    "Your softmax goes along the rows alone. All places of an image compete: `axis=(1, 2)`."
)
def softmax_of_each_row(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    return _softmax(s, axis=2) if norm == "softmax" else s / s.sum(axis=2, keepdims=True)


@spatial_weights.mutant(
    "Your softmax goes over the images of the batch too. Each image has its own sum: leave axis 0 "
    "alone."
)
def softmax_over_the_batch(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    e = np.exp(s - s.max()) if norm == "softmax" else s
    return e / e.sum()


@spatial_weights.mutant("The channels are added up where `squeeze` says mean, or the reverse.")
def squeezes_swapped(x, squeeze="sum", norm="softmax"):
    return spatial_weights_reference(x, "mean" if squeeze == "sum" else "sum", norm)


@spatial_weights.mutant(
    "You always take the softmax; with norm='l1' the map is divided by its sum, no exponential."
)
def always_softmax(x, squeeze="sum", norm="softmax"):
    return spatial_weights_reference(x, squeeze, "softmax")


@spatial_weights.mutant(
    "You always divide by the sum; norm='softmax' takes exponentials before that."
)
def never_softmax(x, squeeze="sum", norm="softmax"):
    return spatial_weights_reference(x, squeeze, "l1")


@spatial_weights.mutant(
    "exp overflows for large sums, and infinity divided by infinity is nan. Subtract the greatest "
    "of each image before: the softmax does not change."
)
def overflows(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    with np.errstate(all="ignore"):
        e = np.exp(s) if norm == "softmax" else s
        return e / e.sum(axis=(1, 2), keepdims=True)


@spatial_weights.mutant(
    "You averaged places for each channel, which says what is there. Here the channels are "
    "squeezed, axis 1, which says where."
)
def squeezed_the_places(x, squeeze="sum", norm="softmax"):
    z = getattr(x, squeeze)(axis=(2, 3))
    e = np.exp(z - z.max(axis=1, keepdims=True)) if norm == "softmax" else z
    return e / e.sum(axis=1, keepdims=True)


@spatial_weights.mutant("You normalised before squeezing; first the channels are put together.")
def normalised_each_channel(x, squeeze="sum", norm="softmax"):
    M = _softmax(x, axis=(2, 3)) if norm == "softmax" else x / x.sum(axis=(2, 3), keepdims=True)
    return getattr(M, squeeze)(axis=1)


@spatial_weights.mutant(
    "The greatest of each image is divided by; the sum of the weights has to be 1."
)
def divided_by_the_greatest(x, squeeze="sum", norm="softmax"):
    s = getattr(x, squeeze)(axis=1)
    e = np.exp(s - s.max(axis=(1, 2), keepdims=True)) if norm == "softmax" else s
    return e / e.max(axis=(1, 2), keepdims=True)


# -- parameter_free -------------------------------------------------------------------------


def _layer(x, back):
    """y = M x with M the softmax of the sum; `back` makes dx of dy, x and M (N, 1, H, W)."""
    M = _softmax(x.sum(axis=1))[:, None]
    return M * x, lambda dy: back(dy, x, M)


def _ds(dy, x, M):
    dM = (dy * x).sum(axis=1, keepdims=True)
    return M * (dM - (M * dM).sum(axis=(2, 3), keepdims=True))


def parameter_free_reference(x):
    return _layer(x, lambda dy, x, M: M * dy + _ds(dy, x, M))


parameter_free = Exercise(
    "25.parameter_free",
    reference=parameter_free_reference,
    observe=rules,
    cases=[
        Case("two channels, two places", TWO_PLACES),
        Case("one image", _normal(np.random.default_rng(3), 1, 2, 2, 2)),
        Case("two images of three channels", _normal(np.random.default_rng(4), 2, 3, 2, 3)),
    ],
    more=lambda rng: Case("any shape", _normal(rng, *rng.integers(2, 4, size=4))),
    hints=[
        "x reaches y on two paths: it is weighed, and through s it makes the weights.",
        "dM adds up over the channels, as one weight serves them all: "
        "`dM = (dy * x).sum(axis=1, keepdims=True)`, (N, 1, H, W).",
        "ds = M (dM - sum of M dM), the sum over all places of an image. s is a sum over channels: "
        "each of them gets all of ds.",
        "`return M * x, vjp_x`, where vjp_x(dy) is `M * dy + ds`.",
    ],
)


@parameter_free.mutant(
    "x also made the weights. Your rule has M dy alone; the path through s is missing."
)
def weights_taken_for_constants(x):
    return _layer(x, lambda dy, x, M: M * dy)


@parameter_free.mutant("Your rule has the path through the weights alone; M dy is missing.")
def product_forgotten(x):
    return _layer(x, lambda dy, x, M: 0 * dy + _ds(dy, x, M))


@parameter_free.mutant(
    "The slope of the softmax has a second part: ds = M (dM - sum of M dM). You left the sum out."
)
def softmax_without_its_sum(x):
    return _layer(x, lambda dy, x, M: M * dy + M * (dy * x).sum(axis=1, keepdims=True))


@parameter_free.mutant(
    "s is the sum of the channels, so each channel gets all of ds; you divided it among them, as "
    "for a mean.",
    like=["mean_over_channels"],
)
def shared_among_channels(x):
    return _layer(x, lambda dy, x, M: M * dy + _ds(dy, x, M) / x.shape[1])


@parameter_free.mutant(
    "One weight serves all channels of its place, so dM adds up over them; you kept a dM for each."
)
def a_weight_for_each_channel(x):
    def back(dy, x, M):
        dM = dy * x
        return M * dy + M * (dM - (M * dM).sum(axis=(2, 3), keepdims=True))

    return _layer(x, back)


@parameter_free.mutant(
    "dM is a sum over the channels, not a mean: the weight serves them all.",
    like=["shared_among_channels"],
)
def mean_over_channels(x):
    def back(dy, x, M):
        dM = (dy * x).mean(axis=1, keepdims=True)
        return M * dy + M * (dM - (M * dM).sum(axis=(2, 3), keepdims=True))

    return _layer(x, back)


@parameter_free.mutant(
    "The sum in the slope of the softmax goes over the places of one image; yours goes over the "
    "batch, too."
)
def summed_over_the_batch(x):
    def back(dy, x, M):
        dM = (dy * x).sum(axis=1, keepdims=True)
        return M * dy + M * (dM - (M * dM).sum())

    return _layer(x, back)


@parameter_free.mutant(
    "The slope of a softmax is M (dM - sum of M dM): in the sum each dM counts with its weight."
)
def unweighted_sum(x):
    def back(dy, x, M):
        dM = (dy * x).sum(axis=1, keepdims=True)
        return M * dy + M * (dM - dM.sum(axis=(2, 3), keepdims=True))

    return _layer(x, back)


@parameter_free.mutant(
    "You used M (1 - M) for the slope: that is a sigmoid's. In a softmax all places compete."
)
def slope_of_a_sigmoid(x):
    def back(dy, x, M):
        return M * dy + M * (1 - M) * (dy * x).sum(axis=1, keepdims=True)

    return _layer(x, back)


@parameter_free.mutant("This squeezes by the mean; the paper's layer, asked for here, by the sum.")
def mean_for_sum(x):
    C = x.shape[1]
    M = _softmax(x.mean(axis=1))[:, None]
    return M * x, lambda dy: M * dy + _ds(dy, x, M) / C


# -- triplet_loss ---------------------------------------------------------------------------


def _lengths(a, b):
    return np.sqrt(((a - b) ** 2).sum(axis=1))


def _triplet(a, b, c, margin, active=None, divide=True):
    """The loss and its rules; `active` tells which triplets have one, `divide` whether by N."""
    near, far = _lengths(a, b), _lengths(a, c)
    losses = np.maximum(near - far + margin, 0)
    on = (losses > 0).astype(float) if active is None else active(losses)
    share = on / len(a) if divide else on
    to_b = (a - b) / _lengths(a, b)[:, None] * share[:, None]
    to_c = (a - c) / _lengths(a, c)[:, None] * share[:, None]
    return losses.mean(), (
        lambda dy: dy * (to_b - to_c),
        lambda dy: -dy * to_b,
        lambda dy: dy * to_c,
    )


def triplet_loss_reference(a, b, c, margin):
    return _triplet(a, b, c, margin)


FLAT = np.array([[0.0, 0.0], [1.0, 1.0]])


def _any_triplets(rng):
    return Case(
        "any size",
        *rng.normal(size=(3, *rng.integers(2, 5, size=2))),
        margin=float(rng.uniform(0.2, 2)),
    )


triplet_loss = Exercise(
    "25.triplet_loss",
    reference=triplet_loss_reference,
    observe=rules,
    cases=[
        Case(
            "one triplet in a plane: distances 5 and 1",
            np.array([[0.0, 0.0]]),
            np.array([[3.0, 4.0]]),
            np.array([[0.0, 1.0]]),
            margin=0.5,
        ),
        Case(
            "two triplets, the second costs nothing",
            FLAT,
            np.array([[0.0, 2.0], [1.0, 2.0]]),
            np.array([[1.0, 0.0], [7.0, 9.0]]),
            margin=0.3,
        ),
        Case(
            "five triplets", *np.random.default_rng(5).normal(size=(3, 5, 4)).round(1), margin=0.7
        ),
    ],
    more=_any_triplets,
    hints=[
        "`near = np.sqrt(((a - b) ** 2).sum(axis=1))`, (N,); `far` likewise with c.",
        "The gradient of a distance |a - b| towards a is the unit vector (a - b) / |a - b|, and "
        "towards b its opposite.",
        "Only triplets whose loss is positive have a gradient, and the mean gives each of them "
        "1 / N: `share = (losses > 0) / len(a)`, as a column.",
        "With u = (a - b) / near and v = (a - c) / far: da = share (u - v), db = - share u, "
        "dc = share v, all times dy.",
    ],
)


@triplet_loss.mutant("The loss has no margin in it: max(near - far + margin, 0).")
def without_margin(a, b, c, margin):
    return _triplet(a, b, c, 0.0)


@triplet_loss.mutant(
    "You subtract the margin; it is added, so that the negative has to be further by the margin."
)
def margin_subtracted(a, b, c, margin):
    return _triplet(a, b, c, -margin)


@triplet_loss.mutant(
    "Positive and negative are in each other's place: the positive b is to be near, c far."
)
def places_swapped(a, b, c, margin):
    y, (da, dc, db) = _triplet(a, c, b, margin)
    return y, (da, db, dc)


@triplet_loss.mutant(
    "A triplet that costs nothing has no gradient either: multiply by (losses > 0)."
)
def pulls_on_without_end(a, b, c, margin):
    return _triplet(a, b, c, margin, active=np.ones_like)


@triplet_loss.mutant("The mean over the triplets divides the rules by N, too; yours do not.")
def mean_forgotten_backward(a, b, c, margin):
    return _triplet(a, b, c, margin, divide=False)


@triplet_loss.mutant("The losses are averaged over the triplets; you added them up.")
def sum_for_mean(a, b, c, margin):
    y, rules_ = _triplet(a, b, c, margin, divide=False)
    return y * len(a), rules_


@triplet_loss.mutant(
    "The mean goes over all triplets, those of loss 0 too; you divided by the number of the others."
)
def mean_of_the_active(a, b, c, margin):
    near, far = _lengths(a, b), _lengths(a, c)
    scale = len(a) / max(int((near - far + margin > 0).sum()), 1)
    y, rules_ = _triplet(a, b, c, margin)
    return y * scale, tuple(lambda dy, rule=rule: rule(dy) * scale for rule in rules_)


@triplet_loss.mutant(
    "These are squared distances; the loss asked for has the distances themselves, with the root."
)
def squared_distances(a, b, c, margin):
    near, far = ((a - b) ** 2).sum(axis=1), ((a - c) ** 2).sum(axis=1)
    losses = np.maximum(near - far + margin, 0)
    share = 2 * (losses > 0)[:, None] / len(a)
    return losses.mean(), (
        lambda dy: dy * share * (c - b),
        lambda dy: -dy * share * (a - b),
        lambda dy: dy * share * (a - c),
    )


@triplet_loss.mutant(
    "The gradient of a distance is a unit vector: a - b divided by |a - b|. You did not divide."
)
def direction_not_of_length_one(a, b, c, margin):
    y, _ = _triplet(a, b, c, margin)
    share = (_lengths(a, b) - _lengths(a, c) + margin > 0)[:, None] / len(a)
    return y, (
        lambda dy: dy * share * (c - b),
        lambda dy: -dy * share * (a - b),
        lambda dy: dy * share * (a - c),
    )


@triplet_loss.mutant(
    "The rules of b and c have the wrong sign: b is pulled towards a, c pushed off."
)
def signs_turned(a, b, c, margin):
    y, (da, db, dc) = _triplet(a, b, c, margin)
    return y, (da, lambda dy: -db(dy), lambda dy: -dc(dy))


@triplet_loss.mutant(
    "The anchor stands in both distances: its gradient has a part from each; yours has the first "
    "alone."
)
def anchor_pulled_only(a, b, c, margin):
    y, (_, db, dc) = _triplet(a, b, c, margin)
    return y, (lambda dy: -db(dy), db, dc)


# -- hardest --------------------------------------------------------------------------------


def _hardest(distances, identities, positives=np.argmax, negatives=np.argmin):
    d, t = distances, identities
    same = t[:, None] == t
    other = same & ~np.eye(len(t), dtype=bool)
    worst = -np.inf if positives is np.argmax else np.inf
    best = np.inf if negatives is np.argmin else -np.inf
    return np.stack(
        [
            positives(np.where(other, d, worst), axis=1),
            negatives(np.where(same, best, d), axis=1),
        ]
    )


def hardest_reference(distances, identities):
    return _hardest(distances, identities)


def _table(rng, identities):
    """Distances between points: symmetric, 0 on the diagonal, no two others alike."""
    N = len(identities)
    d = np.zeros((N, N))
    above = np.triu_indices(N, 1)
    d[above] = 1 + rng.permutation(len(above[0]))
    return d + d.T


def _batch(rng, label, identities):
    return Case(label, _table(rng, identities), np.array(identities))


def _any_batch(rng):
    P, K = rng.integers(2, 4, size=2)
    return _batch(rng, "any batch", rng.permutation(np.repeat(np.arange(P), K)))


hardest = Exercise(
    "25.hardest",
    reference=hardest_reference,
    cases=[
        _batch(np.random.default_rng(6), "two identities with two pictures each", [0, 0, 1, 1]),
        _batch(np.random.default_rng(7), "three pictures each, mixed", [3, 5, 3, 5, 5, 3]),
        _batch(np.random.default_rng(8), "three identities", [0, 1, 2, 2, 1, 0, 0, 1]),
        Case(
            "a picture that was put in twice: distance 0 to its copy",
            np.array([[0.0, 0, 4, 5], [0, 0, 6, 7], [4, 6, 0, 2], [5, 7, 2, 0]]),
            np.array([0, 0, 1, 1]),
        ),
    ],
    more=_any_batch,
    hints=[
        "`same = identities[:, None] == identities` is a table (N, N) of who is whose picture.",
        "A picture is not its own positive: `other = same & ~np.eye(N, dtype=bool)`.",
        "Rule out what may not be chosen: `np.where(other, distances, -np.inf).argmax(axis=1)`; "
        "for the negatives with +inf and argmin.",
    ],
)


@hardest.mutant(
    "The hardest positive is the farthest picture of the same identity; you took the nearest."
)
def nearest_positive(distances, identities):
    return _hardest(distances, identities, positives=np.argmin)


@hardest.mutant(
    "The hardest negative is the nearest picture of another identity, not the farthest."
)
def farthest_negative(distances, identities):
    return _hardest(distances, identities, negatives=np.argmax)


@hardest.mutant("Both are turned round: you looked for the easiest triplets.")
def easiest(distances, identities):
    return _hardest(distances, identities, np.argmin, np.argmax)


@hardest.mutant("Positives and negatives are in each other's row: row 0 has the positives.")
def rows_swapped(distances, identities):
    return _hardest(distances, identities)[::-1]


@hardest.mutant(
    "You set what may not be chosen to 0 by multiplying with a mask. For the negatives 0 is the "
    "smallest of all, and is then chosen: rule out with infinity."
)
def masked_by_zero(distances, identities):
    same = identities[:, None] == identities
    other = same & ~np.eye(len(identities), dtype=bool)
    return np.stack([(distances * other).argmax(axis=1), (distances * ~same).argmin(axis=1)])


@hardest.mutant(
    "You searched for the positive among the strangers; it is a picture of the anchor's identity."
)
def positives_among_strangers(distances, identities):
    same = identities[:, None] == identities
    return np.stack(
        [
            np.where(same, -np.inf, distances).argmax(axis=1),
            np.where(same, np.inf, distances).argmin(axis=1),
        ]
    )


@hardest.mutant(
    "The nearest of all but itself is not always of another identity: rule out the whole identity "
    "for the negatives."
)
def own_identity_as_negative(distances, identities):
    diagonal = np.eye(len(identities), dtype=bool)
    y = _hardest(distances, identities)
    return np.stack([y[0], np.where(diagonal, np.inf, distances).argmin(axis=1)])


@hardest.mutant(
    "A picture is its own positive here: with a copy of itself in the batch, at distance 0, the "
    "first of both is taken. Rule out the diagonal."
)
def itself_as_positive(distances, identities):
    same = identities[:, None] == identities
    y = _hardest(distances, identities)
    return np.stack([np.where(same, distances, -np.inf).argmax(axis=1), y[1]])


# -- cmc ------------------------------------------------------------------------------------


def _first_matches(d, q, g, q_camera, g_camera, left_out):
    """Place of the first match of each query from 0, -1 where there is none."""
    found = []
    for i, order in enumerate(np.argsort(d, axis=1, kind="stable")):
        order = order[~left_out(q[i] == g[order], q_camera[i] == g_camera[order])]
        places = np.flatnonzero(g[order] == q[i])
        found.append(places[0] if len(places) else -1)
    return np.array(found)


def _junk(same_identity, same_camera):
    return same_identity & same_camera


def _curve(first, ranks):
    return (first[first >= 0][:, None] <= np.arange(ranks)).mean(axis=0)


def cmc_reference(distances, q, g, q_camera, g_camera, ranks):
    return _curve(_first_matches(distances, q, g, q_camera, g_camera, _junk), ranks)


def _search(rng, label, queries, gallery, ranks=3, identities=3):
    while True:
        d = rng.permutation(queries * gallery).reshape(queries, gallery) / 10.0
        q, g = (rng.integers(identities, size=count) for count in (queries, gallery))
        q_camera, g_camera = (rng.integers(2, size=count) for count in (queries, gallery))
        can_match = ((q[:, None] == g) & (q_camera[:, None] != g_camera)).any(axis=1)
        if can_match.any():
            return Case(label, d, q, g, q_camera, g_camera, ranks)


ONE_QUERY = (
    np.array([[0.1, 0.2, 0.3, 0.4]]),
    np.array([7]),
    np.array([7, 8, 7, 8]),
    np.array([0]),
    np.array([0, 0, 1, 1]),
)

cmc = Exercise(
    "25.cmc",
    reference=cmc_reference,
    cases=[
        Case("one query, whose nearest is from its own camera", *ONE_QUERY, 3),
        Case(
            "a query that has no match by the other camera",
            np.array([[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]]),
            np.array([1, 2]),
            np.array([1, 2, 2]),
            np.array([0, 0]),
            np.array([0, 1, 1]),
            2,
        ),
        _search(np.random.default_rng(9), "four queries, eight pictures", 4, 8),
        _search(np.random.default_rng(10), "six queries, twelve pictures", 6, 12, ranks=5),
    ],
    more=lambda rng: _search(rng, "any search", *rng.integers(4, 9, size=2)),
    hints=[
        "For each query: the order of the gallery, `np.argsort(distances[i])`, without the "
        "pictures of its identity by its camera.",
        "`junk = (g == q[i]) & (g_camera == q_camera[i])`; `order = order[~junk[order]]`.",
        "The place of the first match is `np.flatnonzero(g[order] == q[i])[0]`, if there is one; "
        "queries without a match are left out.",
        "`cmc[k]` is the share of the queries that are left whose first place is at most k, "
        "counted from 0.",
    ],
)


@cmc.mutant(
    "The pictures of the same identity by the same camera are still there; the search is to go "
    "across cameras."
)
def own_camera_kept(distances, q, g, q_camera, g_camera, ranks):
    none = lambda identity, camera: np.zeros_like(identity)  # noqa: E731
    return _curve(_first_matches(distances, q, g, q_camera, g_camera, none), ranks)


@cmc.mutant(
    "You left out all pictures by the query's camera. Only those of its own identity go; strangers "
    "by the same camera stay, and mislead."
)
def whole_camera_left_out(distances, q, g, q_camera, g_camera, ranks):
    return _curve(
        _first_matches(distances, q, g, q_camera, g_camera, lambda identity, camera: camera), ranks
    )


@cmc.mutant("You kept the pictures by the query's camera and left out those by the other one.")
def other_camera_left_out(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(
        distances, q, g, q_camera, g_camera, lambda identity, camera: identity & ~camera
    )
    return _curve(first, ranks) if (first >= 0).any() else np.zeros(ranks)


@cmc.mutant("A query without a match counts as missed; it is left out of the mean.")
def unanswerable_counts(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)
    return ((first >= 0)[:, None] & (first[:, None] <= np.arange(ranks))).mean(axis=0)


@cmc.mutant(
    "That is the share of queries whose first match is exactly at k. The curve adds up: at k or "
    "before."
)
def not_cumulative(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)
    return (first[first >= 0][:, None] == np.arange(ranks)).mean(axis=0)


@cmc.mutant("Your curve starts one place late: cmc[0] is for the first place.")
def one_place_late(distances, q, g, q_camera, g_camera, ranks):
    first = _first_matches(distances, q, g, q_camera, g_camera, _junk)
    return (first[first >= 0][:, None] < np.arange(ranks)).mean(axis=0)


@cmc.mutant("The gallery is sorted from far to near; the nearest comes first.")
def farthest_first(distances, q, g, q_camera, g_camera, ranks):
    return cmc_reference(-distances, q, g, q_camera, g_camera, ranks)


@cmc.mutant(
    "The mask of pictures to leave out is in the gallery's order, and was applied to the sorted "
    "numbers: `order[~junk[order]]`."
)
def mask_not_sorted(distances, q, g, q_camera, g_camera, ranks):
    found = []
    for i, order in enumerate(np.argsort(distances, axis=1)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))]
        places = np.flatnonzero(g[order] == q[i])
        found.append(places[0] if len(places) else -1)
    return _curve(np.array(found), ranks)


@cmc.mutant(
    "This is the share of matches among the first k, the precision. The curve asks of each query "
    "whether there is a match at all."
)
def precision_for_cmc(distances, q, g, q_camera, g_camera, ranks):
    curves = []
    for i, order in enumerate(np.argsort(distances, axis=1)):
        order = order[~((g == q[i]) & (g_camera == q_camera[i]))[order]]
        hits = np.zeros(ranks)
        matches = (g[order] == q[i])[:ranks]
        hits[: len(matches)] = matches
        if (g[order] == q[i]).any():
            curves.append(hits.cumsum() / np.arange(1, ranks + 1))
    return np.mean(curves, axis=0)
