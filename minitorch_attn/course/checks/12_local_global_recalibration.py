import numpy as np

from minitorch_attn.course.exercise import Case, Exercise, rules


def _softmax(e, axis=1):
    exponentials = np.exp(e - e.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def _sigmoid(a):
    return 1 / (1 + np.exp(-a))


# -- convolution_weights --------------------------------------------------------------------


def convolution_weights_reference(kernel, H, W):
    R, S = kernel.shape
    w = np.zeros((H * W, H * W))
    for p, q, r, s in np.ndindex(H, W, R, S):
        row, column = p + r - R // 2, q + s - S // 2
        if 0 <= row < H and 0 <= column < W:
            w[p * W + q, row * W + column] = kernel[r, s]
    return w


convolution_weights = Exercise(
    "12.convolution_weights",
    reference=convolution_weights_reference,
    cases=[
        Case("a kernel of one row", np.array([[1.0, 2.0, 3.0]]), 1, 3),
        Case("a kernel of one column", np.array([[1.0], [2.0], [3.0]]), 3, 2),
        Case("3 x 3 on 2 x 3", np.arange(1.0, 10.0).reshape(3, 3), 2, 3),
        Case("3 x 5 on 4 x 4", np.arange(1.0, 16.0).reshape(3, 5), 4, 4),
    ],
    more=lambda rng: Case(
        "any sizes",
        rng.normal(size=2 * rng.integers(0, 3, size=2) + 1),
        int(rng.integers(2, 6)),
        int(rng.integers(2, 6)),
    ),
    hints=[
        "Go through all output positions (p, q) and all taps (r, s): each is one entry of the "
        "table.",
        "The tap in the middle of the kernel is for the position itself. Tap (r, s) looks at row "
        "p + r - R // 2 and column q + s - S // 2.",
        "Where that row or column lies outside the map there is nothing to write. Else the entry "
        "is `w[p * W + q, row * W + column] = kernel[r, s]`.",
    ],
)


@convolution_weights.mutant(
    "The kernel is flipped: the tap right of the middle should look to the right. Or the table is "
    "transposed, which comes to the same: its rows are the outputs i, its columns the inputs j."
)
def flipped(kernel, H, W):
    return convolution_weights_reference(kernel[::-1, ::-1], H, W)


@convolution_weights.mutant(
    "Your windows go on in the next row: a neighbour beyond the right edge is not the first "
    "position of the row below. Test row and column, not the number of the position."
)
def wraps_into_the_next_row(kernel, H, W):
    R, S = kernel.shape
    w = np.zeros((H * W, H * W))
    for i, r, s in np.ndindex(H * W, R, S):
        j = i + (r - R // 2) * W + s - S // 2
        if 0 <= j < H * W:
            w[i, j] += kernel[r, s]
    return w


@convolution_weights.mutant(
    "The window begins at the position itself; it should have the position in its middle."
)
def not_centred(kernel, H, W):
    R, S = kernel.shape
    w = np.zeros((H * W, H * W))
    for p, q, r, s in np.ndindex(H, W, R, S):
        if p + r < H and q + s < W:
            w[p * W + q, (p + r) * W + q + s] = kernel[r, s]
    return w


@convolution_weights.mutant(
    "The map is taken for a ring, where one edge meets the other; beyond the edge there is nothing."
)
def round_the_edges(kernel, H, W):
    R, S = kernel.shape
    w = np.zeros((H * W, H * W))
    for p, q, r, s in np.ndindex(H, W, R, S):
        row, column = (p + r - R // 2) % H, (q + s - S // 2) % W
        w[p * W + q, row * W + column] += kernel[r, s]
    return w


@convolution_weights.mutant(
    "Positions are numbered row by row, p * W + q: a row has W of them, not H."
)
def numbered_with_the_height(kernel, H, W):
    R, S = kernel.shape
    w = np.zeros((H * W, H * W))
    for p, q, r, s in np.ndindex(H, W, R, S):
        row, column = p + r - R // 2, q + s - S // 2
        if 0 <= row < H and 0 <= column < W:
            w[min(p * H + q, H * W - 1), min(row * H + column, H * W - 1)] = kernel[r, s]
    return w


def _windows(kernel, H, W, *, middle=None, place=lambda row, column: (row, column)):
    """The table, with the kernel's middle and the place of each tap open to mistakes."""
    R, S = kernel.shape
    above, left = middle or (R // 2, S // 2)
    w = np.zeros((H * W, H * W))
    for p, q, r, s in np.ndindex(H, W, R, S):
        if where := place(p + r - above, q + s - left):
            w[p * W + q, where[0] * W + where[1]] += kernel[r, s]
    return w


@convolution_weights.mutant(
    "You wrote into the table without asking whether the tap's row and column lie in the map: "
    "beyond the edges there is nothing to write.",
    raises=True,
)
def edges_not_tested(kernel, H, W):
    return _windows(kernel, H, W)


@convolution_weights.mutant(
    "Rows and columns below 0 are not tested: a negative index is no error in NumPy, it counts "
    "from the end, and so a tap beyond the upper or left edge was written to the far side."
)
def only_the_far_edges_tested(kernel, H, W):
    return _windows(
        kernel,
        H,
        W,
        place=lambda row, column: (row, column) if row < H and column < W else None,
    )


@convolution_weights.mutant(
    "The edge is repeated: a tap beyond it was added to the last position inside. Beyond the edge "
    "there is nothing."
)
def edge_repeated(kernel, H, W):
    return _windows(
        kernel,
        H,
        W,
        place=lambda row, column: (min(max(row, 0), H - 1), min(max(column, 0), W - 1)),
    )


@convolution_weights.mutant(
    "The two sides of the kernel are mixed up: R // 2 belongs to the rows, S // 2 to the columns."
)
def sides_mixed_up(kernel, H, W):
    R, S = kernel.shape
    return _windows(
        kernel,
        H,
        W,
        middle=(S // 2, R // 2),
        place=lambda row, column: (row, column) if 0 <= row < H and 0 <= column < W else None,
    )


@convolution_weights.mutant("The kernel is transposed: r steps over rows, s over columns.")
def kernel_transposed(kernel, H, W):
    return convolution_weights_reference(kernel.T, H, W)


# -- attention_weights ----------------------------------------------------------------------


def attention_weights_reference(x, scale):
    return _softmax(scale * x @ x.T)


attention_weights = Exercise(
    "12.attention_weights",
    reference=attention_weights_reference,
    cases=[
        Case("two positions", np.array([[1.0, 0.0], [0.0, 2.0]]), 1.0),
        Case("three positions, scale 0.5", np.array([[1.0, 2.0], [2.0, 0.0], [0.0, -1.0]]), 0.5),
        Case("long vectors", np.array([[30.0, 10.0], [10.0, 40.0], [40.0, 40.0]]), 1.0),
        Case("five positions", np.random.default_rng(0).normal(size=(5, 3)).round(1), 2.0),
    ],
    more=lambda rng: Case(
        "any sizes", rng.normal(size=rng.integers(2, 6, size=2)), float(rng.uniform(0.2, 2))
    ),
    hints=[
        "All dot products at once are a matrix product, of shape (L, L).",
        "`e = scale * x @ x.T`; then exp(e), divided by the sum of each row.",
        "exp overflows for numbers above 709. Take the largest of each row off first, "
        "`e - e.max(axis=1, keepdims=True)`: the quotient stays the same.",
    ],
)


@attention_weights.mutant(
    "Your columns sum up to 1; each position i shares its attention out over the j, so each row "
    "should: divide by the sum over axis 1, with `keepdims=True`."
)
def columns_sum_to_one(x, scale):
    return _softmax(scale * x @ x.T, axis=0)


@attention_weights.mutant("The scale is missing: it multiplies the dot products.")
def no_scale(x, scale):
    return _softmax(x @ x.T)


@attention_weights.mutant("You divided by the scale; it multiplies.")
def divided_by_the_scale(x, scale):
    return _softmax(x @ x.T / scale)


@attention_weights.mutant(
    "The scale multiplies the weights, not the dot products: so no row sums up to 1."
)
def scale_behind_the_softmax(x, scale):
    return scale * _softmax(x @ x.T)


@attention_weights.mutant("All entries together sum up to 1; each row should by itself.")
def one_softmax_for_all(x, scale):
    e = np.exp(scale * x @ x.T - (scale * x @ x.T).max())
    return e / e.sum()


@attention_weights.mutant(
    "Long vectors give dot products whose exp overflows: take the largest of the row off first."
)
def overflows(x, scale):
    with np.errstate(all="ignore"):
        e = np.exp(scale * x @ x.T)
        return e / e.sum(axis=1, keepdims=True)


@attention_weights.mutant("The softmax is missing: dot products can be negative.")
def plain_dot_products(x, scale):
    return scale * x @ x.T


@attention_weights.mutant(
    "You took the largest number of the whole table off. In a row of much smaller ones every exp "
    "is then 0, and 0 / 0 is no number: take the largest of each row off."
)
def largest_of_the_table(x, scale):
    with np.errstate(all="ignore"):
        e = scale * x @ x.T
        exponentials = np.exp(e - e.max())
        return exponentials / exponentials.sum(axis=1, keepdims=True)


@attention_weights.mutant("The exponentials are still to be divided by the sum of their row.")
def not_divided(x, scale):
    e = scale * x @ x.T
    return np.exp(e - e.max(axis=1, keepdims=True))


@attention_weights.mutant(
    "The exp is missing: divided by their sum, dot products can come out negative."
)
def divided_without_exp(x, scale):
    with np.errstate(all="ignore"):
        e = scale * x @ x.T
        return e / e.sum(axis=1, keepdims=True)


@attention_weights.mutant(
    "Here the scale is given: do not divide by the root of the number of channels."
)
def scaled_by_the_channels(x, scale):
    return _softmax(x @ x.T / np.sqrt(x.shape[1]))


@attention_weights.mutant(
    "You compared directions alone, with vectors brought to length 1; here the dot product is "
    "taken as it is."
)
def cosines(x, scale):
    with np.errstate(all="ignore"):
        directions = x / np.linalg.norm(x, axis=1, keepdims=True)
        return _softmax(scale * directions @ directions.T)


@attention_weights.mutant("You compared channels; compare positions, x @ x.T, of shape (L, L).")
def between_channels(x, scale):
    return _softmax(scale * x.T @ x)


@attention_weights.mutant("That is y = w x; the weights alone are asked for.")
def already_applied(x, scale):
    return _softmax(scale * x @ x.T) @ x


# -- attend ---------------------------------------------------------------------------------


def _attend(x, scale, *, values=1.0, looking=1.0, looked_at=1.0, centred=1.0, factor=None):
    """The primitive; each setting can be replaced by a mistake."""
    w = _softmax(scale * x @ x.T)
    factor = scale if factor is None else factor

    def vjp_x(dy):
        dw = dy @ x.T
        de = w * (dw - centred * (dw * w).sum(axis=1, keepdims=True))
        return values * w.T @ dy + factor * (looking * de + looked_at * de.T) @ x

    return w @ x, vjp_x


def attend_reference(x, *, scale):
    return _attend(x, scale)


attend = Exercise(
    "12.attend",
    reference=attend_reference,
    observe=rules,
    cases=[
        Case("two positions, one channel", np.array([[1.0], [-0.5]]), scale=1.0),
        Case(
            "three positions, two channels",
            np.array([[1.0, 0.0], [0.5, 1.0], [-1.0, 0.5]]),
            scale=0.5,
        ),
        Case("four positions", np.random.default_rng(1).normal(size=(4, 3)).round(1), scale=0.75),
    ],
    more=lambda rng: Case(
        "any sizes",
        rng.normal(size=rng.integers(2, 6, size=2)),
        scale=float(rng.uniform(0.3, 1.5)),
    ),
    tolerance=1e-6,
    hints=[
        "x has three parts to play: as the values that are summed, as the one who looks, and as "
        "the one looked at. Each gives a term.",
        "The values: `w.T @ dy`. For the other two you need dw = dy @ x.T, and from it de, "
        "through the softmax of each row.",
        "`de = w * (dw - (dw * w).sum(axis=1, keepdims=True))`.",
        "`return w.T @ dy + scale * (de + de.T) @ x`.",
    ],
)


@attend.mutant(
    "The weights were made from x: you treated them as fixed, so that x has its gradient as the "
    "values alone."
)
def weights_taken_as_fixed(x, *, scale):
    return _attend(x, scale, looking=0.0, looked_at=0.0)


@attend.mutant("x is looked at, too: the term with de.T is missing.")
def not_looked_at(x, *, scale):
    return _attend(x, scale, looked_at=0.0)


@attend.mutant("x looks, too: the term with de, not transposed, is missing.")
def not_looking(x, *, scale):
    return _attend(x, scale, looking=0.0)


@attend.mutant("x is also what is summed up: the term w.T @ dy is missing.")
def values_forgotten(x, *, scale):
    return _attend(x, scale, values=0.0)


@attend.mutant(
    "The softmax's rule lacks its second term: raising one e lowers the other weights of its row."
)
def softmax_like_exp(x, *, scale):
    return _attend(x, scale, centred=0.0)


@attend.mutant("The scale belongs into the rule as well: e = scale * x @ x.T.")
def scale_missing_in_the_rule(x, *, scale):
    return _attend(x, scale, factor=1.0)


def _attend_with(x, scale, slope=None, second_path=None):
    """Attention with another way from dw to de, or from de to x."""
    y, _ = _attend(x, scale)
    w = _softmax(scale * x @ x.T)

    def through_softmax(w, dw):
        return w * (dw - (dw * w).sum(axis=1, keepdims=True))

    def both_sides(de, dy):
        return scale * (de + de.T) @ x

    def vjp_x(dy):
        return w.T @ dy + (second_path or both_sides)((slope or through_softmax)(w, dy @ x.T), dy)

    return y, vjp_x


@attend.mutant(
    "The one who looks and the one looked at have different terms: de is not symmetric, so take "
    "de + de.T, not twice de."
)
def twice_looking(x, *, scale):
    return _attend_with(x, scale, second_path=lambda de, dy: 2 * scale * de @ x)


@attend.mutant(
    "A softmax runs over each row, so the sum in its rule does too: axis 1, with `keepdims=True`."
)
def softmax_rule_over_columns(x, *, scale):
    return _attend_with(
        x, scale, slope=lambda w, dw: w * (dw - (dw * w).sum(axis=0, keepdims=True))
    )


@attend.mutant(
    "The sum over the row lost its axis: without `keepdims=True` it is subtracted along the wrong "
    "one."
)
def without_keepdims(x, *, scale):
    return _attend_with(x, scale, slope=lambda w, dw: w * (dw - (dw * w).sum(axis=1)))


@attend.mutant(
    "w (1 - w) is a sigmoid's slope. In a softmax each w_ij depends on all e of its row: "
    "subtract the sum of dw * w over the row."
)
def softmax_like_sigmoid(x, *, scale):
    return _attend_with(x, scale, slope=lambda w, dw: w * (1 - w) * dw)


@attend.mutant("In the softmax's rule the sum over the row is of dw * w, not of dw alone.")
def sum_without_weights(x, *, scale):
    return _attend_with(x, scale, slope=lambda w, dw: w * (dw - dw.sum(axis=1, keepdims=True)))


@attend.mutant("You came back to the weights, dw, but not yet through the softmax to e.")
def softmax_left_out(x, *, scale):
    return _attend_with(x, scale, slope=lambda w, dw: dw)


@attend.mutant("dw is transposed: dw_ij = dy_i . x_j, as matrices dy @ x.T.")
def dw_transposed(x, *, scale):
    def slope(w, dw):
        return w * (dw.T - (dw.T * w).sum(axis=1, keepdims=True))

    return _attend_with(x, scale, slope=slope)


@attend.mutant("The scale stands in e alone: the term of the values, w.T @ dy, has none.")
def values_scaled(x, *, scale):
    return _attend(x, scale, values=scale)


@attend.mutant("de goes back to x through x, the other factor of the dot product, not through dy.")
def times_dy(x, *, scale):
    return _attend_with(x, scale, second_path=lambda de, dy: scale * (de + de.T) @ dy)


@attend.mutant("The values' term needs w.T: x_j gathers from all i that looked at it.")
def w_not_transposed(x, *, scale):
    y, vjp_x = _attend(x, scale)
    w = _softmax(scale * x @ x.T)
    return y, lambda dy: vjp_x(dy) - w.T @ dy + w @ dy


# -- recalibrate ----------------------------------------------------------------------------


def _recalibrate(
    x,
    u,
    v,
    b,
    *,
    values=1.0,
    here=1.0,
    context=1.0,
    share=None,
    factor=None,
    slope=lambda g: g * (1 - g),
):
    """The primitive; each setting can be replaced by a mistake."""
    z = x.mean(axis=0)
    g = _sigmoid(x @ u.T + z @ v.T + b)
    share = 1 / len(x) if share is None else share
    factor = x if factor is None else factor

    def back_to_a(dy):
        return dy * factor * slope(g)

    def vjp_x(dy):
        da = back_to_a(dy)
        return values * g * dy + here * da @ u + context * share * da.sum(axis=0) @ v

    def vjp_u(dy):
        return back_to_a(dy).T @ x

    def vjp_v(dy):
        return np.outer(back_to_a(dy).sum(axis=0), z)

    def vjp_b(dy):
        return back_to_a(dy).sum(axis=0)

    return g * x, (vjp_x, vjp_u, vjp_v, vjp_b)


def recalibrate_reference(x, u, v, b):
    return _recalibrate(x, u, v, b)


def _gated(rng, L, C):
    return (
        rng.normal(size=(L, C)).round(1) + 0.5,
        rng.normal(size=(C, C)).round(1),
        rng.normal(size=(C, C)).round(1),
        rng.normal(size=C).round(1),
    )


recalibrate = Exercise(
    "12.recalibrate",
    reference=recalibrate_reference,
    observe=rules,
    cases=[
        Case(
            "two positions, one channel",
            np.array([[1.0], [2.0]]),
            np.array([[0.5]]),
            np.array([[-1.5]]),
            np.array([0.5]),
        ),
        Case("three positions, two channels", *_gated(np.random.default_rng(2), 3, 2)),
        Case("as many positions as channels", *_gated(np.random.default_rng(3), 3, 3)),
    ],
    more=lambda rng: Case("any sizes", *_gated(rng, *map(int, rng.integers(2, 6, size=2)))),
    tolerance=1e-6,
    hints=[
        "Forward: z is the mean over the positions, axis 0. With x_i as rows, U x_i is `x @ u.T`, "
        "and V z is `z @ v.T`, which broadcasts over the positions.",
        "Backward: dg = dy * x, da = dg * g * (1 - g). All four rules use da.",
        "du = da.T @ x; the sum of da over the positions is db; its outer product with z is dv.",
        "x has three paths: `g * dy`, `da @ u`, and `da.sum(axis=0) @ v / L`, the same for every "
        "position.",
    ],
)


@recalibrate.mutant(
    "The context is missing in the gradient of x: every x_j is in the mean z, and so in all gates."
)
def context_forgotten(x, u, v, b):
    return _recalibrate(x, u, v, b, context=0.0)


@recalibrate.mutant("z is a mean, so each position has only a share 1 / L of its gradient.")
def context_not_divided(x, u, v, b):
    return _recalibrate(x, u, v, b, share=1.0)


@recalibrate.mutant("x_i also made its own gate: the term da @ u is missing in its gradient.")
def own_gate_forgotten(x, u, v, b):
    return _recalibrate(x, u, v, b, here=0.0)


@recalibrate.mutant(
    "x made the gates, both by itself and through the mean: you treated the gates as fixed."
)
def gates_taken_as_fixed(x, u, v, b):
    return _recalibrate(x, u, v, b, here=0.0, context=0.0)


@recalibrate.mutant("The sigmoid's slope g * (1 - g) is missing on the way from dg to da.")
def slope_forgotten(x, u, v, b):
    return _recalibrate(x, u, v, b, slope=np.ones_like)


@recalibrate.mutant("The gradients of U and V are transposed: each has the shape of its weight.")
def transposed_weights(x, u, v, b):
    y, (vjp_x, vjp_u, vjp_v, vjp_b) = _recalibrate(x, u, v, b)
    return y, (vjp_x, lambda dy: vjp_u(dy).T, lambda dy: vjp_v(dy).T, vjp_b)


@recalibrate.mutant("The context is the mean over the positions, not their sum.")
def sum_for_mean(x, u, v, b):
    L = len(x)
    y, (vjp_x, vjp_u, vjp_v, vjp_b) = _recalibrate(x, u, L * v, b, share=1 / L)
    return y, (vjp_x, vjp_u, lambda dy: L * vjp_v(dy), vjp_b)


@recalibrate.mutant(
    "The gates come back alone: they are still to be multiplied with x.",
)
def gates_alone(x, u, v, b):
    _, rules_of_all = _recalibrate(x, u, v, b)
    return _sigmoid(x @ u.T + x.mean(axis=0) @ v.T + b), rules_of_all


@recalibrate.mutant("x is also what the gates multiply: the term g * dy is missing.")
def values_not_counted(x, u, v, b):
    return _recalibrate(x, u, v, b, values=0.0)


@recalibrate.mutant("The other factor of the product is missing: dg = dy * x, not dy alone.")
def dg_without_x(x, u, v, b):
    return _recalibrate(x, u, v, b, factor=1.0)


@recalibrate.mutant(
    "With x_i as rows, U x_i is `x @ u.T` and V z is `z @ v.T`; you took u and v as they are."
)
def forward_not_transposed(x, u, v, b):
    y, (vjp_x, vjp_u, vjp_v, vjp_b) = _recalibrate(x, u.T, v.T, b)
    return y, (vjp_x, lambda dy: vjp_u(dy).T, lambda dy: vjp_v(dy).T, vjp_b)


@recalibrate.mutant(
    "On the way back the weights stand the other way round: `da @ u` and `da.sum(axis=0) @ v`, "
    "without a transpose."
)
def backward_transposed(x, u, v, b):
    y, (vjp_x, *others) = _recalibrate(x, u, v, b)
    da = others[2]  # the rule of b sums da over the positions

    def wrong_vjp_x(dy):
        g = _sigmoid(x @ u.T + x.mean(axis=0) @ v.T + b)
        return g * dy + (dy * x * g * (1 - g)) @ u.T + da(dy) @ v.T / len(x)

    return y, (wrong_vjp_x, *others)


@recalibrate.mutant(
    "z took part in all gates, so its gradient is the sum of da over the positions: each x_j gets "
    "the same, not a part of its own da."
)
def context_of_its_own(x, u, v, b):
    y, (vjp_x, *others) = _recalibrate(x, u, v, b, context=0.0)

    def wrong_vjp_x(dy):
        g = _sigmoid(x @ u.T + x.mean(axis=0) @ v.T + b)
        return vjp_x(dy) + (dy * x * g * (1 - g)) @ v / len(x)

    return y, (wrong_vjp_x, *others)


@recalibrate.mutant("V is multiplied by the mean z, not by each x_i: dv is (sum of da) z^T.")
def v_meets_x(x, u, v, b):
    y, (vjp_x, vjp_u, _, vjp_b) = _recalibrate(x, u, v, b)
    return y, (vjp_x, vjp_u, vjp_u, vjp_b)


@recalibrate.mutant(
    "b and z are used at every position, so their gradients sum da over the positions; you took "
    "a mean."
)
def mean_of_da(x, u, v, b):
    y, (vjp_x, vjp_u, vjp_v, vjp_b) = _recalibrate(x, u, v, b)
    return y, (vjp_x, vjp_u, lambda dy: vjp_v(dy) / len(x), lambda dy: vjp_b(dy) / len(x))


@recalibrate.mutant(
    "b is used at every position, so its gradient is the sum of da over them; you took a mean."
)
def mean_for_the_bias(x, u, v, b):
    y, (vjp_x, vjp_u, vjp_v, vjp_b) = _recalibrate(x, u, v, b)
    return y, (vjp_x, vjp_u, vjp_v, lambda dy: vjp_b(dy) / len(x))


@recalibrate.mutant(
    "z is the mean over the positions (axis 0), a number for each channel; you averaged over the "
    "channels."
)
def mean_over_channels(x, u, v, b):
    z = np.broadcast_to(x.mean(axis=1, keepdims=True), x.shape)
    _, rules_of_all = _recalibrate(x, u, v, b)
    return _sigmoid(x @ u.T + z @ v.T + b) * x, rules_of_all


@recalibrate.mutant("The bias b is missing in the gates.")
def bias_forgotten(x, u, v, b):
    return _recalibrate(x, u, v, np.zeros_like(b))


@recalibrate.mutant("The sigmoid is missing: a gate is sigmoid(a).")
def sigmoid_forgotten(x, u, v, b):
    _, rules_of_all = _recalibrate(x, u, v, b)
    return (x @ u.T + x.mean(axis=0) @ v.T + b) * x, rules_of_all


@recalibrate.mutant("Here the gate multiplies alone, y = g x; there is no 1 + g.")
def with_a_residual(x, u, v, b):
    y, rules_of_all = _recalibrate(x, u, v, b)
    return x + y, rules_of_all


# -- cost -----------------------------------------------------------------------------------

KERNEL = 9


def _cost(layer, L, C, *, pair=2, context=True, window=KERNEL, per_channel=1):
    """(parameters, multiply-adds); each setting can be replaced by a mistake."""
    if layer == "fully connected":
        return per_channel * L**2, L**2 * C
    if layer == "convolution":
        return per_channel * KERNEL, window * L * C
    if layer == "attention":
        return 0, pair * L**2 * C
    return 2 * C**2 + C, L * C**2 + (C**2 if context else 0)


def cost_reference(layer, L, C):
    return _cost(layer, L, C)


LAYERS = "fully connected", "convolution", "attention", "recalibration"

cost = Exercise(
    "12.cost",
    reference=cost_reference,
    cases=[
        *(Case(f"{layer}, 4 positions, 3 channels", layer, 4, 3) for layer in LAYERS),
        *(Case(f"{layer}, 64 positions, 8 channels", layer, 64, 8) for layer in LAYERS),
    ],
    more=lambda rng: Case(
        "other sizes",
        str(rng.choice(LAYERS)),
        int(rng.integers(2, 100)),
        int(rng.integers(2, 32)),
    ),
    hints=[
        "How many numbers are learned? Attention in its bare form learns none; recalibration "
        "learns U, V and b.",
        "y = w x with a full table sums L products for each of L C outputs. A window has 9 "
        "instead of L.",
        "Attention sums twice: C products for each of the L^2 dot products, then L for each of "
        "the L C outputs.",
        "Recalibration: U x_i at each of L positions, C^2 products each; V z only once.",
    ],
)


@cost.mutant(
    "Attention has two sums of products: the dot products, and then the weighted sum. You counted "
    "one."
)
def attention_sums_once(layer, L, C):
    return _cost(layer, L, C, pair=1)


@cost.mutant("V z is to be counted as well: C^2 products, once for all positions.")
def context_not_counted(layer, L, C):
    return _cost(layer, L, C, context=False)


@cost.mutant("V z is computed once, not for every position: z is the same for all.")
def context_at_every_position(layer, L, C):
    parameters, products = _cost(layer, L, C)
    return parameters, 2 * L * C**2 if layer == "recalibration" else products


@cost.mutant(
    "A convolution sums over its window, 9 products for an output, not over all L positions."
)
def convolution_looks_everywhere(layer, L, C):
    return _cost(layer, L, C, window=L)


@cost.mutant("All channels share the table here: do not multiply its parameters by C.")
def a_table_for_each_channel(layer, L, C):
    return _cost(layer, L, C, per_channel=C)


@cost.mutant("Multiply-adds count every channel: multiply by C.")
def one_channel_only(layer, L, C):
    parameters, products = _cost(layer, L, C)
    return parameters, products if layer == "recalibration" else products // C


@cost.mutant("The bias b of the gates is a parameter too: C more.")
def bias_not_counted(layer, L, C):
    parameters, products = _cost(layer, L, C)
    return parameters - (C if layer == "recalibration" else 0), products


@cost.mutant("First the parameters, then the multiply-adds: you returned them the other way round.")
def the_wrong_way_round(layer, L, C):
    return _cost(layer, L, C)[::-1]


@cost.mutant(
    "The four are counted without the mixing of channels: it stands in front, in a linear map of "
    "its own. A table has one number for each pair of positions, a kernel nine."
)
def channels_mixed(layer, L, C):
    parameters, products = _cost(layer, L, C)
    if layer in ("fully connected", "convolution"):
        return parameters * C**2, products * C
    return parameters, products


@cost.mutant(
    "Attention in its bare form learns nothing: its table of L^2 weights is made from the input."
)
def attention_learns_its_table(layer, L, C):
    parameters, products = _cost(layer, L, C)
    return L**2 if layer == "attention" else parameters, products


@cost.mutant(
    "Attention in its bare form learns nothing: the maps of queries and keys come with a network."
)
def attention_with_queries_and_keys(layer, L, C):
    parameters, products = _cost(layer, L, C)
    return 2 * C**2 if layer == "attention" else parameters, products


@cost.mutant(
    "Each of attention's L^2 dot products is itself a sum of C products: both steps cost L^2 C."
)
def dot_products_for_one(layer, L, C):
    parameters, products = _cost(layer, L, C)
    return parameters, L**2 * C + L**2 if layer == "attention" else products


@cost.mutant("Recalibration has two maps, U and V, of C^2 weights each; you counted one.")
def one_map_counted(layer, L, C):
    parameters, products = _cost(layer, L, C)
    return parameters - (C**2 if layer == "recalibration" else 0), products


@cost.mutant("The product of a gate with x is not summed up, so it is not counted here.")
def gate_products_counted(layer, L, C):
    parameters, products = _cost(layer, L, C)
    return parameters, products + (L * C if layer == "recalibration" else 0)


@cost.mutant(
    "The gates themselves cost more than to apply them: U x_i takes C^2 products at each position, "
    "and V z as many once."
)
def gates_for_nothing(layer, L, C):
    parameters, products = _cost(layer, L, C)
    return parameters, L * C if layer == "recalibration" else products


@cost.mutant(
    "Written as a table a convolution has L^2 entries, but its numbers are those of the kernel, "
    "nine, and its sums run over nine positions."
)
def convolution_as_a_full_table(layer, L, C):
    return (L**2, L**2 * C) if layer == "convolution" else _cost(layer, L, C)
