import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules


def phi(a):
    return np.where(a > 0, a + 1, np.exp(np.minimum(a, 0)))


def _softmax(scores, axis=-1):
    w = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return w / w.sum(axis=axis, keepdims=True)


# -- linear_attention -----------------------------------------------------------------------


def _slope(a):
    return np.minimum(phi(a), 1)


def _linear_attention(q, k, v, phi=phi, slope=_slope, back_to_n=lambda y, u, du: -(y * du)):
    """Linear attention with its rules; the settings are what wrong answers change."""
    f, g = phi(q), phi(k)
    S, z = g.T @ v, g.sum(axis=0)
    n = f @ z
    u = f @ S
    y = u / n[:, None]

    def back(dy):
        du = dy / n[:, None]
        return du, back_to_n(y, u, du).sum(axis=1)

    def vjp_q(dy):
        du, dn = back(dy)
        return (du @ S.T + dn[:, None] * z) * slope(q)

    def vjp_k(dy):
        du, dn = back(dy)
        return (v @ (f.T @ du).T + dn @ f) * slope(k)

    def vjp_v(dy):
        du, _ = back(dy)
        return g @ (f.T @ du)

    return y, (vjp_q, vjp_k, vjp_v)


def linear_attention_reference(q, k, v):
    return _linear_attention(q, k, v)


def _tokens(rng, L, D, M):
    return tuple(rng.normal(size=shape).round(1) for shape in ((L, D), (L, D), (L, M)))


TOKENS = [
    Case("two tokens", *_tokens(np.random.default_rng(5), 2, 3, 2)),
    Case("four tokens, values of another width", *_tokens(np.random.default_rng(1), 4, 3, 2)),
    Case("all sizes alike", *_tokens(np.random.default_rng(2), 3, 3, 3)),
    Case("one token", np.array([[1.0, -1.0]]), np.array([[0.5, 2.0]]), np.array([[3.0, -2.0]])),
]


def _any_tokens(rng):
    return Case("any tokens", *_tokens(rng, *rng.integers(2, 6, size=3)))


linear_attention = Exercise(
    "21.linear_attention",
    reference=linear_attention_reference,
    observe=rules,
    cases=TOKENS[:-1],  # of one token the gradients of q and k are 0 but for rounding
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
    return _linear_attention(q, k, v, slope=np.ones_like)


@linear_attention.mutant("That is elu without the + 1: weights could be negative, and sum to 0.")
def elu_without_one(q, k, v):
    return _linear_attention(q, k, v, phi=lambda a: phi(a) - 1)


@linear_attention.mutant("phi is given: elu + 1, not the exponential.")
def exponential_kernel(q, k, v):
    return _linear_attention(q, k, v, phi=np.exp, slope=np.exp)


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
    return _linear_attention(q, k, v, back_to_n=lambda y, u, du: y * du)


@linear_attention.mutant(
    "The output is right. In dn one division by n is missing: dn = -(u * dy) / n^2, and with "
    "du = dy / n that is -(y * du), not -(u * du)."
)
def divided_once(q, k, v):
    return _linear_attention(q, k, v, back_to_n=lambda y, u, du: -(u * du))


@linear_attention.mutant(
    "That is attention with a softmax: the weights should be phi(q_i) . phi(k_j), without an "
    "exponential of the scores."
)
def softmax_attention(q, k, v):
    return _softmax(q @ k.T) @ v, linear_attention_reference(q, k, v)[1]


@linear_attention.mutant("phi is missing: the weights are products of q and k themselves.")
def without_phi(q, k, v):
    return _linear_attention(q, k, v, phi=lambda a: a, slope=np.ones_like)


@linear_attention.mutant("No scale is asked for here: f = phi(q), without a root of D.")
def scaled_queries(q, k, v):
    return _linear_attention(q / np.sqrt(q.shape[1]), k, v)


@linear_attention.mutant(
    "z should keep its D numbers: sum over the tokens alone, g.sum(axis=0), then n = f @ z."
)
def one_number_for_z(q, k, v):
    f, g = phi(q), phi(k)
    y = f @ (g.T @ v) / (f.sum(axis=1, keepdims=True) * g.sum())
    return y, linear_attention_reference(q, k, v)[1]


@linear_attention.mutant(
    "The sum of weights times values is divided by the number of tokens; it should be divided by "
    "the sum of the weights, n = f @ z."
)
def divided_by_the_length(q, k, v):
    f, g = phi(q), phi(k)
    return f @ (g.T @ v) / len(k), linear_attention_reference(q, k, v)[1]


@linear_attention.mutant(
    "The output is right. The kernel's slope was taken as 0 for negative features, as a ReLU's; "
    "phi is e^a there, and so is its slope."
)
def slope_of_a_relu(q, k, v):
    return _linear_attention(q, k, v, slope=lambda a: (a > 0) * 1.0)


@linear_attention.mutant(
    "The output is right. The kernel's slope is phi(a) only for negative a; for positive a it is "
    "1: together min(phi(a), 1)."
)
def slope_of_an_exponential(q, k, v):
    return _linear_attention(q, k, v, slope=phi)


@linear_attention.mutant(
    "The output is right. The kernel's slope is the lesser of phi(a) and 1; you took that of a "
    "and 1."
)
def slope_of_the_wrong_number(q, k, v):
    return _linear_attention(q, k, v, slope=lambda a: np.minimum(a, 1))


@linear_attention.mutant("The rules come in the order of the inputs: q, k, v; two are exchanged.")
def rules_exchanged(q, k, v):
    y, (vjp_q, vjp_k, vjp_v) = linear_attention_reference(q, k, v)
    return y, (vjp_k, vjp_q, vjp_v)


@linear_attention.mutant(
    "The output is right. The rule of v takes dy where it needs du = dy / n: v is in u, above the "
    "line of the quotient."
)
def value_forgets_the_quotient(q, k, v):
    y, (vjp_q, vjp_k, _) = linear_attention_reference(q, k, v)
    f, g = phi(q), phi(k)
    return y, (vjp_q, vjp_k, lambda dy: g @ (f.T @ dy))


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


@causal.mutant(
    "The sum is divided by the number of all tokens; it should be divided by the sum of the "
    "weights so far, f @ z."
)
def divided_by_all_tokens(q, k, v):
    return running_but_not_normalised(q, k, v) / len(q)


@causal.mutant(
    "The sum is divided by the number of tokens seen; it should be divided by the sum of their "
    "weights, f @ z."
)
def divided_by_the_tokens_seen(q, k, v):
    return running_but_not_normalised(q, k, v) / np.arange(1, len(q) + 1)[:, None]


@causal.mutant("z is summed over its features here; it should be weighed by f: f @ z.")
def normaliser_without_the_query(q, k, v):
    return running_but_not_normalised(q, k, v) / np.cumsum(phi(k).sum(axis=1))[:, None]


@causal.mutant("S runs, but z holds the last key alone: both are added to at each token.")
def normaliser_does_not_run(q, k, v):
    return running_but_not_normalised(q, k, v) / (phi(q) * phi(k)).sum(axis=1, keepdims=True)


@causal.mutant("phi is missing for the queries: f = phi(q[i]).")
def queries_without_phi(q, k, v):
    w = (q @ phi(k).T) * np.tri(len(q))
    return w @ v / w.sum(axis=1, keepdims=True)


@causal.mutant("phi is missing for the keys: g = phi(k[i]).")
def keys_without_phi(q, k, v):
    w = (phi(q) @ k.T) * np.tri(len(q))
    return w @ v / w.sum(axis=1, keepdims=True)


@causal.mutant("phi is missing: the weights are phi(q_i) . phi(k_j), not q_i . k_j.")
def causal_without_phi(q, k, v):
    w = (q @ k.T) * np.tri(len(q))
    return w @ v / w.sum(axis=1, keepdims=True)


@causal.mutant("That is causal attention with a softmax; the weights are phi(q_i) . phi(k_j).")
def causal_softmax(q, k, v):
    return _softmax(np.where(np.tri(len(q)) > 0, q @ k.T, -np.inf)) @ v


@causal.mutant("The queries are summed up, too: only keys and values go into the running sums.")
def queries_run_too(q, k, v):
    w = (np.cumsum(phi(q), axis=0) @ phi(k).T) * np.tri(len(q))
    return w @ v / w.sum(axis=1, keepdims=True)


# -- simam ----------------------------------------------------------------------------------

POSITIONS = (2, 3)


def _gate(delta2, V):
    return 1 / (1 + np.exp(-(delta2 / (4 * V) + 0.5)))


def _total(a):
    return a.sum(axis=POSITIONS, keepdims=True)


def _simam(
    x,
    lam,
    minus=1,
    over=POSITIONS,
    gate=_gate,
    to_gate=lambda dy, x, s: dy * x * s * (1 - s),
    to_V=lambda da, delta2, V: -_total(da * delta2) / (4 * V**2),
    to_mean=lambda ddelta: ddelta.mean(axis=POSITIONS, keepdims=True),
):
    """SimAM with its rule; the settings are what wrong answers change."""
    n = np.prod([x.shape[axis] for axis in over]) - minus
    delta = x - x.mean(axis=over, keepdims=True)
    V = (delta**2).sum(axis=over, keepdims=True) / n + lam
    s = gate(delta**2, V)

    def vjp_x(dy):
        da = to_gate(dy, x, s)
        ddelta = 2 * delta * (da / (4 * V) + to_V(da, delta**2, V) / n)
        return dy * s + ddelta - to_mean(ddelta)

    return s * x, vjp_x


def simam_reference(x, *, lam=1e-4):
    return _simam(x, lam)


simam = Exercise(
    "21.simam",
    reference=simam_reference,
    observe=rules,
    cases=[
        Case("one channel", np.array([[[[1.0, 2.0], [3.0, 6.0]]]]), lam=0.1),
        Case("lambda left as it is", np.array([[[[0.0, -1.0, 2.0], [0.5, 1.0, -0.5]]]])),
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
    return _simam(x, lam, gate=lambda delta2, V: 1 / (1 + np.exp(-delta2 / (4 * V))))


@simam.mutant("The square is divided by 4 V, not by V.")
def without_the_four(x, *, lam=1e-4):
    return _simam(x, lam, gate=lambda delta2, V: _gate(delta2, V / 4))


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
    return _simam(x, lam, to_gate=lambda dy, x, s: 0)


@simam.mutant("The output is right. The rule takes V as a constant; every delta is in it.")
def variance_taken_as_constant(x, *, lam=1e-4):
    return _simam(x, lam, to_V=lambda da, delta2, V: 0)


@simam.mutant(
    "The output is right. The rule takes the mean as a constant: delta = x - mean(x), so its "
    "gradient is ddelta - mean(ddelta)."
)
def mean_taken_as_constant(x, *, lam=1e-4):
    return _simam(x, lam, to_mean=lambda ddelta: 0)


@simam.mutant(
    "The output is right. The rule holds the gate's path alone: y = s x, so dy * s is added."
)
def product_forgotten(x, *, lam=1e-4):
    y, vjp_x = _simam(x, lam)
    return y, lambda dy: vjp_x(dy) - dy * y / x


@simam.mutant(
    "lambda is added to the variance, and both are multiplied by 4: 4 (variance + lambda)."
)
def lambda_beside_the_four(x, *, lam=1e-4):
    return _simam(x, lam, gate=lambda delta2, V: _gate(delta2, V - 0.75 * lam))


@simam.mutant("The square is divided by 4 V with the variance V; you took its square root.")
def standard_deviation(x, *, lam=1e-4):
    return _simam(x, lam, gate=lambda delta2, V: _gate(delta2, np.sqrt(V)))


@simam.mutant("delta is not squared in the gate: its sign would count.")
def not_squared(x, *, lam=1e-4):
    delta = x - x.mean(axis=POSITIONS, keepdims=True)
    return _simam(x, lam, gate=lambda delta2, V: _gate(delta, V))


@simam.mutant("The variance is missing: the square is to be divided by 4 V.")
def without_the_variance(x, *, lam=1e-4):
    return _simam(x, lam, gate=lambda delta2, V: _gate(delta2, 1 + 0 * V))


@simam.mutant("That is the gate s alone; the output is s x.")
def gate_alone(x, *, lam=1e-4):
    y, vjp_x = simam_reference(x, lam=lam)
    delta = x - x.mean(axis=POSITIONS, keepdims=True)
    V = _total(delta**2) / (x.shape[2] * x.shape[3] - 1) + lam
    return _gate(delta**2, V), vjp_x


@simam.mutant("x is added on top: the output is s x alone.")
def x_on_top(x, *, lam=1e-4):
    y, vjp_x = simam_reference(x, lam=lam)
    return x + y, lambda dy: dy + vjp_x(dy)


@simam.mutant("Each image has its own mean and variance: take axes 2 and 3, not the batch as well.")
def over_the_batch_too(x, *, lam=1e-4):
    return _simam(x, lam, over=(0, 2, 3))


@simam.mutant("Inside the sigmoid 1/2 is added, not subtracted.")
def half_subtracted(x, *, lam=1e-4):
    return _simam(x, lam, gate=lambda delta2, V: 1 / (1 + np.exp(-(delta2 / (4 * V) - 0.5))))


@simam.mutant("Mean and variance are those of a whole channel, not of each row: axes 2 and 3.")
def over_rows(x, *, lam=1e-4):
    return _simam(x, lam, over=(3,))


@simam.mutant(
    "The output is right. On the way to the gate x is missing: y = s x, so ds = dy * x, and "
    "da = ds * s * (1 - s)."
)
def x_forgotten(x, *, lam=1e-4):
    return _simam(x, lam, to_gate=lambda dy, x, s: dy * s * (1 - s))


@simam.mutant("The output is right. The sigmoid's slope s * (1 - s) is missing in the rule.")
def slope_of_the_sigmoid_forgotten(x, *, lam=1e-4):
    return _simam(x, lam, to_gate=lambda dy, x, s: dy * x)


@simam.mutant("The output is right. The slope of delta^2 is 2 delta: the 2 is missing in the rule.")
def two_forgotten(x, *, lam=1e-4):
    return _simam(x, lam, to_gate=lambda dy, x, s: dy * x * s * (1 - s) / 2)


@simam.mutant(
    "The output is right. V is one number for a whole channel, so its gradient sums over the "
    "positions: the sum is missing in dV."
)
def sum_over_positions_forgotten(x, *, lam=1e-4):
    return _simam(x, lam, to_V=lambda da, delta2, V: -da * delta2 / (4 * V**2))


@simam.mutant("The output is right. dV has the wrong sign: a = delta^2 / (4 V) falls when V grows.")
def sign_of_the_variance(x, *, lam=1e-4):
    return _simam(x, lam, to_V=lambda da, delta2, V: _total(da * delta2) / (4 * V**2))


@simam.mutant("The output is right. The slope of 1 / V is -1 / V^2: V is not squared in the rule.")
def variance_not_squared(x, *, lam=1e-4):
    return _simam(x, lam, to_V=lambda da, delta2, V: -_total(da * delta2) / (4 * V))


@simam.mutant(
    "The output is right. V is a sum divided by n, and so is the gradient that comes through it: "
    "dV / n is missing in the rule."
)
def count_forgotten(x, *, lam=1e-4):
    n = x.shape[2] * x.shape[3] - 1
    return _simam(x, lam, to_V=lambda da, delta2, V: -_total(da * delta2) / (4 * V**2) * n)


# -- criss_cross_weights --------------------------------------------------------------------


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
        Case("two rows, three columns", *_maps(np.random.default_rng(0), 2, 2, 3)),
        Case("one row of two", np.array([[[1.0, 0.0]]]), np.array([[[2.0, -1.0]]])),
        Case("one column of two", np.array([[[1.0], [0.5]]]), np.array([[[2.0], [-1.0]]])),
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


@criss_cross_weights.mutant(
    "In the row the position keeps its weight; it is in the column that its weight is to be 0."
)
def itself_removed_from_the_row(q, k):
    row, column = _cross_scores(q, k, itself=None)
    row[:, np.arange(row.shape[1]), np.arange(row.shape[1])] = -np.inf
    return _softmax(np.concatenate([row, column], axis=2))


@criss_cross_weights.mutant(
    "The position is gone from its row and from its column; it should count once, in the row."
)
def itself_nowhere(q, k):
    row, column = _cross_scores(q, k)
    row[:, np.arange(row.shape[1]), np.arange(row.shape[1])] = -np.inf
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(_softmax(np.concatenate([row, column], axis=2)))


@criss_cross_weights.mutant(
    "The softmax runs over the rows of the map; it should run over the W + H places that one "
    "position looks at, the last axis."
)
def softmax_over_positions(q, k):
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(_softmax(np.concatenate(_cross_scores(q, k), axis=2), axis=0))


@criss_cross_weights.mutant(
    "All weights of the map together sum to 1; those of each position should."
)
def softmax_over_everything(q, k):
    return _softmax(np.concatenate(_cross_scores(q, k), axis=2), axis=None)


@criss_cross_weights.mutant("Those are the scores; the softmax is still to come.")
def scores_alone(q, k):
    return np.concatenate(_cross_scores(q, k), axis=2)


@criss_cross_weights.mutant("The exponentials are not divided by their sum.")
def not_divided(q, k):
    return np.exp(np.concatenate(_cross_scores(q, k), axis=2))


@criss_cross_weights.mutant(
    "Row and column have a softmax each, halved; one softmax runs over both together."
)
def two_halves(q, k):
    return two_softmaxes(q, k) / 2


@criss_cross_weights.mutant(
    "The position's place in the column was left out; it should stay, with the weight 0, so that "
    "the last axis is W + H long."
)
def place_left_out(q, k):
    H, W = q.shape[1:]
    w = criss_cross_weights_reference(q, k)
    return np.stack([np.delete(w[h], W + h, axis=1) for h in range(H)])


# -- patches --------------------------------------------------------------------------------


def patches_reference(x, *, size):
    return _patches(x, size, (0, 2, 4, 1, 3, 5))


def _patches(x, size, order, strided=False):
    """Patches by a permutation of the axes (N, C, P, size, Q, size), and its rule."""
    N, C, H, W = x.shape
    P, Q = H // size, W // size
    split = (N, C, size, P, size, Q) if strided else (N, C, P, size, Q, size)
    cut = x.reshape(split).transpose(order)

    def vjp_x(dy):
        return dy.reshape(cut.shape).transpose(np.argsort(order)).reshape(x.shape)

    return cut.reshape(N, P * Q, C * size * size), vjp_x


patches = Exercise(
    "21.patches",
    reference=patches_reference,
    observe=rules,
    cases=[
        Case("sixteen pixels", np.arange(16.0).reshape(1, 1, 4, 4), size=2),
        Case("higher than wide", np.arange(24.0).reshape(1, 1, 6, 4), size=2),
        Case("one patch of two channels", np.arange(8.0).reshape(1, 2, 2, 2), size=2),
        Case("wider than high, two channels", np.arange(36.0).reshape(1, 2, 3, 6), size=3),
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


@patches.mutant(
    "Each patch takes every so many-th pixel of the whole image; its pixels should be neighbours: "
    "split H into (H // size, size), in this order, and W likewise."
)
def pixels_from_afar(x, *, size):
    return _patches(x, size, (0, 3, 5, 1, 2, 4), strided=True)


@patches.mutant(
    "A patch should hold its pixels of all channels: the channel axis stands behind the two axes "
    "of the patches."
)
def channel_by_channel(x, *, size):
    return _patches(x, size, (0, 1, 2, 4, 3, 5))


@patches.mutant("The two last axes are exchanged: first the patches, L, then their numbers.")
def tokens_last(x, *, size):
    y, vjp_x = patches_reference(x, size=size)
    return y.swapaxes(1, 2), lambda dy: vjp_x(dy.swapaxes(1, 2))


@patches.mutant(
    "The patches are right. The rule takes the channel for the last axis within a patch; it is "
    "the first: reshape dy to (N, H // size, W // size, C, size, size)."
)
def rule_takes_channel_last(x, *, size):
    N, C, H, W = x.shape
    P, Q = H // size, W // size
    y, _ = patches_reference(x, size=size)
    return (
        y,
        lambda dy: dy.reshape(N, P, Q, size, size, C).transpose(0, 5, 1, 3, 2, 4).reshape(x.shape),
    )


@patches.mutant(
    "The patches are right. The rule takes them as if they came column by column; they come row "
    "by row: reshape dy to (N, H // size, W // size, C, size, size)."
)
def rule_goes_column_by_column(x, *, size):
    N, C, H, W = x.shape
    P, Q = H // size, W // size
    y, _ = patches_reference(x, size=size)
    return (
        y,
        lambda dy: dy.reshape(N, Q, P, C, size, size).transpose(0, 3, 2, 4, 1, 5).reshape(x.shape),
    )


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
        Case("two images", _images(1, 2, 6, 3, 2), channels=6, reduction=2),
        Case("one image", _images(0, 1, 4, 2, 2), channels=4, reduction=2),
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


@GlobalContext.mutant("The softmax is missing: the weights of the positions should sum to 1.")
class WithoutSoftmax(GlobalContextReference):
    def context(self, x):
        return (x * self.mask(x)).sum(dim=(2, 3))


@GlobalContext.mutant(
    "The softmax runs over the images of the batch, dim=0; it should run over the positions."
)
class SoftmaxOverTheBatch(GlobalContextReference):
    def context(self, x):
        return (x * F.softmax(self.mask(x), dim=0)).sum(dim=(2, 3))


@GlobalContext.mutant(
    "The softmax runs over the rows, for each column by itself; flatten H and W first."
)
class SoftmaxOverColumns(GlobalContextReference):
    def context(self, x):
        return (x * F.softmax(self.mask(x), dim=2)).sum(dim=(2, 3))


@GlobalContext.mutant("The weights sum to 1 already, so z is a sum over the positions, not a mean.")
class MeanOfWeighted(GlobalContextReference):
    def context(self, x):
        return super().context(x) / (x.shape[2] * x.shape[3])


@GlobalContext.mutant(
    "(N, C, H, W) was reshaped to (N, L, C): that takes the numbers in the order in which they are "
    "stored. Flatten to (N, C, L), then transpose."
)
class ReshapedToTokens(GlobalContextReference):
    def context(self, x):
        N, C, H, W = x.shape
        a = F.softmax(self.mask(x).reshape(N, 1, H * W), dim=2)
        return (a @ x.reshape(N, H * W, C)).reshape(N, C)


@GlobalContext.mutant("The normalisation between fc1 and the ReLU is missing in `forward`.")
class WithoutNorm(GlobalContextReference):
    def transform(self, z):
        return self.fc2(F.relu(self.fc1(z))) + 0 * self.norm(self.fc1(z)).sum()


@GlobalContext.mutant(
    "The context z itself is added; first it goes through fc1, norm, ReLU and fc2."
)
class WithoutTransform(GlobalContextReference):
    def transform(self, z):
        return z + 0 * super().transform(z)


@GlobalContext.mutant("There is no ReLU behind fc2: what is added may be negative.")
class ReluBehindBoth(GlobalContextReference):
    def transform(self, z):
        return F.relu(super().transform(z))


@GlobalContext.mutant("The result is added to x; you multiplied.")
class Product(GlobalContextReference):
    def fuse(self, x, v):
        return x * v.reshape(*v.shape, 1, 1)


@GlobalContext.mutant("fc1 leads to channels // reduction units, and norm and fc2 take as many.")
class ReductionIgnored(GlobalContextReference):
    def __init__(self, channels, reduction=16):
        super().__init__(channels, reduction=1)


@GlobalContext.mutant(
    "The mask is one map for the image: a convolution to one channel, not to all."
)
class MaskForEachChannel(GlobalContextReference):
    def __init__(self, channels, reduction=16):
        super().__init__(channels, reduction)
        self.mask = nn.Conv2d(channels, channels, 1, bias=False)


@GlobalContext.mutant("norm stands behind fc1, on its `hidden` units: `nn.LayerNorm(hidden)`.")
class NormOfChannels(GlobalContextReference):
    def __init__(self, channels, reduction=16):
        super().__init__(channels, reduction)
        self.norm = nn.LayerNorm(channels)

    def transform(self, z):
        return self.fc2(F.relu(self.fc1(self.norm(z))))


@GlobalContext.mutant(
    "norm is `nn.LayerNorm(hidden)`, within each image; a batch normalisation compares the images."
)
class BatchNormalisation(GlobalContextReference):
    def __init__(self, channels, reduction=16):
        super().__init__(channels, reduction)
        self.norm = nn.BatchNorm1d(channels // reduction)


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
