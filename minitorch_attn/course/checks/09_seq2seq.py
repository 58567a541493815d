import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Code, Exercise, module, rules

# -- rnn_forward ----------------------------------------------------------------------------


def _states(x, w_ih, w_hh, *, step=lambda a, u: np.tanh(a + u)):
    """The state before each element and after the last, (N, L + 1, D)."""
    N, L, _ = x.shape
    h = np.zeros((N, L + 1, len(w_hh)))
    for t in range(L):
        h[:, t + 1] = step(x[:, t] @ w_ih.T, h[:, t] @ w_hh.T)
    return h


def rnn_forward_reference(x, w_ih, w_hh):
    return _states(x, w_ih, w_hh)[:, 1:]


def _network(rng, N, L, D_in, D):
    return (
        rng.normal(size=(N, L, D_in)),
        rng.normal(size=(D, D_in)) / np.sqrt(D_in),
        rng.normal(size=(D, D)) / np.sqrt(D),
    )


def _networks(seed):
    """Cases of growing size for a recurrent network."""
    rng = np.random.default_rng(seed)
    return [
        Case(
            "one sequence of two numbers",
            np.array([[[1.0], [0.0]]]),
            np.array([[1.0]]),
            np.array([[2.0]]),
        ),
        Case("three elements, a state of two", *_network(rng, 1, 3, 2, 2)),
        Case("two sequences of four elements", *_network(rng, 2, 4, 3, 2)),
    ]


rnn_forward = Exercise(
    "09.rnn_forward",
    reference=rnn_forward_reference,
    cases=_networks(0),
    more=lambda rng: Case("any sizes", *_network(rng, *rng.integers(1, 5, size=4))),
    hints=[
        "A step needs the step before: what is left is a loop over the L elements.",
        "Begin with `h = np.zeros((N, D))`; element t of all sequences is `x[:, t]`, (N, D_in).",
        "`h = np.tanh(x[:, t] @ w_ih.T + h @ w_hh.T)`, and the new h belongs to `y[:, t]`.",
    ],
)


@rnn_forward.mutant("The state is not carried along: every step starts from zeros again.")
def nothing_carried(x, w_ih, w_hh):
    return np.tanh(x @ w_ih.T)


@rnn_forward.mutant("The weight of the state is transposed: rows are multiplied by `w_hh.T`.")
def state_weight_transposed(x, w_ih, w_hh):
    return _states(x, w_ih, w_hh.T)[:, 1:]


@rnn_forward.mutant("You returned the last state alone; the state after every element is asked.")
def last_state_alone(x, w_ih, w_hh):
    return _states(x, w_ih, w_hh)[:, -1]


@rnn_forward.mutant("You kept the state before each element; it is the state after it.")
def state_before(x, w_ih, w_hh):
    return _states(x, w_ih, w_hh)[:, :-1]


@rnn_forward.mutant("The tanh is taken of the element's share alone; it is of the sum of both.")
def tanh_of_one_share(x, w_ih, w_hh):
    return _states(x, w_ih, w_hh, step=lambda a, u: np.tanh(a) + u)[:, 1:]


@rnn_forward.mutant("The tanh is missing.")
def no_tanh(x, w_ih, w_hh):
    return _states(x, w_ih, w_hh, step=lambda a, u: a + u)[:, 1:]


@rnn_forward.mutant(
    "You kept the sum before the tanh; what is carried along is right, but h is its tanh."
)
def sums_kept(x, w_ih, w_hh):
    h = _states(x, w_ih, w_hh)
    return x @ w_ih.T + h[:, :-1] @ w_hh.T


@rnn_forward.mutant("You carry the sum along; what the next step needs is its tanh, the state.")
def sums_carried(x, w_ih, w_hh):
    return np.tanh(_states(x, w_ih, w_hh, step=lambda a, u: a + u)[:, 1:])


@rnn_forward.mutant(
    "Every element holds the last state: is it one array, overwritten in each step? Make a new h."
)
def one_array_for_all(x, w_ih, w_hh):
    y = rnn_forward_reference(x, w_ih, w_hh)
    return np.repeat(y[:, -1:], y.shape[1], axis=1)


@rnn_forward.mutant("The first state of yours is h_0 = 0; begin with the one after an element.")
def zeros_in_front(x, w_ih, w_hh):
    return _states(x, w_ih, w_hh)


@rnn_forward.mutant(
    "Your loop goes over the sequences, axis 0; time is axis 1: element t of all is `x[:, t]`."
)
def loop_over_the_batch(x, w_ih, w_hh):
    return _states(x.swapaxes(0, 1), w_ih, w_hh)[:, 1:].swapaxes(0, 1)


@rnn_forward.mutant(
    "A sequence begins with the last state of the one before it; each begins with zeros."
)
def carried_to_the_next_sequence(x, w_ih, w_hh):
    N, L, D_in = x.shape
    return rnn_forward_reference(x.reshape(1, N * L, D_in), w_ih, w_hh).reshape(N, L, -1)


@rnn_forward.mutant("You read from the last element to the first; begin with `x[:, 0]`.")
def read_from_the_end(x, w_ih, w_hh):
    return rnn_forward_reference(x[:, ::-1], w_ih, w_hh)[:, ::-1]


@rnn_forward.mutant(
    "The weights are exchanged: w_ih belongs to the element x, w_hh to the state h."
)
def weights_of_the_other(x, w_ih, w_hh):
    return _states(x, w_hh, w_ih)[:, 1:]


# -- rnn ------------------------------------------------------------------------------------


def _rnn(
    x,
    w_ih,
    w_hh,
    *,
    carry=lambda da, dh, w_hh: da @ w_hh,
    slope=lambda y: 1 - y**2,
    walk=reversed,
    steps=slice(None),
    divide=lambda x: 1,
    reaches=lambda dy: dy,
    before=slice(None, -1),
    slope_at=slice(1, None),
    to_x=lambda da, w_ih: da @ w_ih,
):
    """The network with its rules; each setting can be replaced by a mistake."""
    h = _states(x, w_ih, w_hh)
    y = h[:, 1:]

    def through_time(dy):
        dy = reaches(dy)
        da, dh = np.empty_like(y), np.zeros_like(y[:, 0])
        for t in walk(range(y.shape[1])):
            dh = dh + dy[:, t]
            da[:, t] = dh * slope(h[:, slope_at][:, t])
            dh = carry(da[:, t], dh, w_hh)
        return da

    def vjp_x(dy):
        return to_x(through_time(dy), w_ih)

    def vjp_w_ih(dy):
        return np.einsum("nld,nli->di", through_time(dy)[:, steps], x[:, steps]) / divide(x)

    def vjp_w_hh(dy):
        da = through_time(dy)
        return np.einsum("nld,nle->de", da[:, steps], h[:, before][:, steps]) / divide(x)

    return y, (vjp_x, vjp_w_ih, vjp_w_hh)


def _rules_from(through_time, x, w_ih, h):
    return (
        lambda dy: through_time(dy) @ w_ih,
        lambda dy: np.einsum("nld,nli->di", through_time(dy), x),
        lambda dy: np.einsum("nld,nle->de", through_time(dy), h[:, :-1]),
    )


def rnn_reference(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh)


rnn = Exercise(
    "09.rnn",
    reference=rnn_reference,
    observe=rules,
    cases=_networks(1),
    more=lambda rng: Case("any sizes", *_network(rng, *rng.integers(1, 5, size=4))),
    hints=[
        "Keep all states in the forward. A function `through_time(dy)`, which all three rules use, "
        "can compute da for every element.",
        "Start with dh = 0 and go through `reversed(range(L))`: add dy[:, t], multiply by the "
        "slope `1 - y[:, t] ** 2`, and you have da of this element.",
        "What goes to the state before is `dh = da[:, t] @ w_hh`.",
        "dw_hh pairs da of element t with the state *before* it, and dw_ih with the element; sum "
        'over n and t: `np.einsum("nld,nle->de", da, h_before)`.',
    ],
)


@rnn.mutant("The gradient is not carried to the step before: add what comes back, da @ w_hh.")
def no_way_back(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, carry=lambda da, dh, w_hh: np.zeros_like(da))


@rnn.mutant("On the way back through the step rows are multiplied by `w_hh`, not its transpose.")
def transposed_on_the_way_back(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, carry=lambda da, dh, w_hh: da @ w_hh.T)


@rnn.mutant("The slope of the tanh, 1 - y ** 2, is missing.")
def no_slope(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, slope=np.ones_like)


@rnn.mutant("The slope of tanh(a) is 1 - tanh(a) ** 2: the state is y itself, so 1 - y ** 2.")
def slope_of_the_slope(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, slope=lambda y: 1 - np.tanh(y) ** 2)


@rnn.mutant("Only what reaches the last state counts in yours; dy has a gradient for every state.")
def last_output_alone(x, w_ih, w_hh):
    def last(dy):
        alone = np.zeros_like(dy)
        alone[:, -1] = dy[:, -1]
        return alone

    return _rnn(x, w_ih, w_hh, reaches=last)


@rnn.mutant("The weights are used at every time: sum their gradients over all elements.")
def weights_of_the_last_step(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, steps=slice(-1, None))


@rnn.mutant("dw_hh pairs da with the state before the element, which w_hh multiplied, not after.")
def state_after(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, before=slice(1, None))


@rnn.mutant("You walk from the first element on; the gradient comes from the last: `reversed`.")
def walked_forwards(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, walk=iter)


@rnn.mutant("What goes back to the step before is da @ w_hh, with the slope; yours is dh @ w_hh.")
def carried_without_the_slope(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, carry=lambda da, dh, w_hh: dh @ w_hh)


@rnn.mutant("What goes back to the step before passes its weight: da @ w_hh, not da alone.")
def carried_without_the_weight(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, carry=lambda da, dh, w_hh: da)


@rnn.mutant("da_t has the slope at h_t, the state after the element; you took the one before it.")
def slope_of_the_state_before(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, slope_at=slice(None, -1))


@rnn.mutant("The slope of the tanh is 1 - y ** 2; in yours y is not squared.")
def slope_not_squared(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, slope=lambda y: 1 - y)


@rnn.mutant("y (1 - y) is the slope of a sigmoid; that of the tanh is 1 - y ** 2.")
def slope_of_the_sigmoid(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, slope=lambda y: y * (1 - y))


@rnn.mutant(
    "dy of the last element counts twice: begin with dh = 0 if dy[:, t] is added in every step."
)
def last_output_twice(x, w_ih, w_hh):
    def twice(dy):
        return np.concatenate([dy[:, :-1], 2 * dy[:, -1:]], axis=1)

    return _rnn(x, w_ih, w_hh, reaches=twice)


@rnn.mutant(
    "The gradient goes back one step in yours and no further: the walk must hand on all of dh, "
    "with what has come from later."
)
def one_step_back(x, w_ih, w_hh):
    y, _ = rnn_reference(x, w_ih, w_hh)
    h = _states(x, w_ih, w_hh)

    def truncated(dy):
        da = dy * (1 - y**2)
        da[:, :-1] += (da[:, 1:] @ w_hh) * (1 - y[:, :-1] ** 2)
        return da

    return y, _rules_from(truncated, x, w_ih, h)


@rnn.mutant("dx = da @ w_ih: on the way back rows are multiplied by it, not its transpose.")
def input_weight_transposed(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, to_x=lambda da, w_ih: da @ w_ih.T)


@rnn.mutant("You averaged over the elements; the gradient of a weight is the sum over time.")
def mean_over_time(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, divide=lambda x: x.shape[1])


@rnn.mutant(
    "You averaged over the sequences; all of them use the weight, so their gradients add up."
)
def mean_over_sequences(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, divide=len)


@rnn.mutant(
    "x has the right rule, but the weights' rules do not go through time: they need the same da."
)
def weights_without_the_way_back(x, w_ih, w_hh):
    y, (vjp_x, _, _) = rnn_reference(x, w_ih, w_hh)
    _, (_, vjp_w_ih, vjp_w_hh) = no_way_back(x, w_ih, w_hh)
    return y, (vjp_x, vjp_w_ih, vjp_w_hh)


@rnn.mutant(
    "The rules of the weights are exchanged: they stand in the order of the arguments, w_ih, w_hh."
)
def weights_exchanged(x, w_ih, w_hh):
    y, (vjp_x, vjp_w_ih, vjp_w_hh) = rnn_reference(x, w_ih, w_hh)
    return y, (vjp_x, vjp_w_hh, vjp_w_ih)


# -- lstm_step ------------------------------------------------------------------------------


def _logistic(x):
    return 1 / (1 + np.exp(-x))


def _lstm_step(
    a,
    c,
    *,
    order=(0, 1, 2, 3),
    g_of=np.tanh,
    g_slope=lambda g: 1 - g**2,
    gate_slope=lambda gate: gate * (1 - gate),
    new=lambda i, f, g, c: f * c + i * g,
    show=np.tanh,
    back=lambda dh, dc, o, shown, kept: dc + dh * o * (1 - shown**2),
    factors=lambda c, g, kept, shown: (g, c, shown),
    g_from=lambda dc, i: dc * i,
    o_from=lambda dh, dc: dh,
    carousel=lambda dc, f, dc_next: dc * f,
    side_by_side=lambda h, c: np.concatenate([h, c], axis=1),
):
    """The step with its rules; each setting can be replaced by a mistake."""
    D = c.shape[1]
    i, f, g, o = (a[:, k * D : (k + 1) * D] for k in order)
    i, f, g, o = _logistic(i), _logistic(f), g_of(g), _logistic(o)
    kept = new(i, f, g, c)
    shown = show(kept)

    def back_to_c(dy):
        return back(dy[:, :D], dy[:, D:], o, shown, kept)

    def vjp_a(dy):
        dc = back_to_c(dy)
        i_factor, f_factor, o_factor = factors(c, g, kept, shown)
        parts = [
            dc * i_factor * gate_slope(i),
            dc * f_factor * gate_slope(f),
            g_from(dc, i) * g_slope(g),
            o_from(dy[:, :D], dc) * o_factor * gate_slope(o),
        ]
        return np.concatenate([parts[order.index(k)] for k in range(4)], axis=1)

    def vjp_c(dy):
        return carousel(back_to_c(dy), f, dy[:, D:])

    return side_by_side(o * shown, kept), (vjp_a, vjp_c)


def lstm_step_reference(a, c):
    return _lstm_step(a, c)


def _step(rng, N, D):
    return rng.normal(size=(N, 4 * D)), rng.normal(size=(N, D))


lstm_step = Exercise(
    "09.lstm_step",
    reference=lstm_step_reference,
    observe=rules,
    cases=[
        Case("one number", np.array([[1.0, -1.0, 0.5, 2.0]]), np.array([[0.5]])),
        Case("two features", *_step(np.random.default_rng(2), 1, 2)),
        Case("three sequences", *_step(np.random.default_rng(3), 3, 2)),
    ],
    more=lambda rng: Case("any sizes", *_step(rng, *rng.integers(1, 5, size=2))),
    hints=[
        "Cut `a` into four parts of D columns, take the sigmoid of i, f and o and the tanh of g.",
        "c' gets a gradient on two ways: from the second half of dy, and from h', which shows it "
        "through the tanh and the gate o. Add them before you go on.",
        "With that dc: the gradient of each factor is dc times the other factor, and then the "
        "slope of its sigmoid, s (1 - s), or of its tanh, 1 - g ** 2.",
        "The output gate takes no part in c': its gradient is dh' * tanh(c') * o * (1 - o). And "
        "the rule of c is dc * f.",
    ],
)


@lstm_step.mutant("The parts are those of i, f, g, o in this order; you took the third for o.")
def output_gate_third(a, c):
    return _lstm_step(a, c, order=(0, 1, 3, 2))


@lstm_step.mutant("Input and forget gate are exchanged: the first part is i, the second is f.")
def forget_gate_first(a, c):
    return _lstm_step(a, c, order=(1, 0, 2, 3))


@lstm_step.mutant("h' shows the memory through a tanh, o * tanh(c'); yours is o * c'.")
def no_tanh_before_it_is_shown(a, c):
    return _lstm_step(a, c, show=lambda kept: kept, back=lambda dh, dc, o, *_: dc + dh * o)


@lstm_step.mutant("The rule of c lacks the forget gate: c' holds f * c, so dc = dc' * f.")
def carousel_without_gate(a, c):
    return _lstm_step(a, c, carousel=lambda dc, f, dc_next: dc)


@lstm_step.mutant(
    "c' also reaches the output through h': add dh' * o * (1 - tanh(c') ** 2) to dc'."
)
def memory_not_shown(a, c):
    return _lstm_step(a, c, back=lambda dh, dc, *_: dc)


@lstm_step.mutant("The slope of tanh(c') is 1 - tanh(c') ** 2; you squared c' itself.")
def slope_of_the_memory(a, c):
    def back(dh, dc, o, shown, kept):
        return dc + dh * o * (1 - kept**2)

    return _lstm_step(a, c, back=back)


@lstm_step.mutant("g is a tanh, so its slope is 1 - g ** 2; g (1 - g) is that of a sigmoid.")
def slope_of_a_sigmoid(a, c):
    return _lstm_step(a, c, g_slope=lambda g: g * (1 - g))


@lstm_step.mutant(
    "The forget gate multiplies the old memory: its gradient has the factor c, not g."
)
def forget_gate_of_g(a, c):
    return _lstm_step(a, c, factors=lambda c, g, kept, shown: (g, g, shown))


@lstm_step.mutant(
    "The forget gate multiplied the old memory c: its gradient has that factor, not the new c'."
)
def forget_gate_of_the_new_memory(a, c):
    return _lstm_step(a, c, factors=lambda c, g, kept, shown: (g, kept, shown))


@lstm_step.mutant("In i * g the gradient of i is dc times the other factor, g; it is missing.")
def input_gate_without_g(a, c):
    return _lstm_step(a, c, factors=lambda c, g, kept, shown: (1, c, shown))


@lstm_step.mutant("The output gate multiplies tanh(c'), and so does its gradient; you took c'.")
def output_gate_of_the_memory(a, c):
    return _lstm_step(a, c, factors=lambda c, g, kept, shown: (g, c, kept))


@lstm_step.mutant("The output gate takes no part in c': its gradient is made of dh', not of dc'.")
def output_gate_from_the_memory(a, c):
    return _lstm_step(a, c, o_from=lambda dh, dc: dc)


@lstm_step.mutant("The slopes of the three gates, s (1 - s) of a sigmoid s, are missing.")
def no_gate_slopes(a, c):
    return _lstm_step(a, c, gate_slope=np.ones_like)


@lstm_step.mutant("A gate is a sigmoid, so its slope is s (1 - s); 1 - s ** 2 is that of a tanh.")
def gate_slopes_of_a_tanh(a, c):
    return _lstm_step(a, c, gate_slope=lambda gate: 1 - gate**2)


@lstm_step.mutant("The slope of g, 1 - g ** 2, is missing.")
def no_slope_of_g(a, c):
    return _lstm_step(a, c, g_slope=np.ones_like)


@lstm_step.mutant("g, what is new, is a tanh; you took its sigmoid, as of the gates.")
def g_as_a_gate(a, c):
    return _lstm_step(a, c, g_of=_logistic, g_slope=lambda g: g * (1 - g))


@lstm_step.mutant(
    "You wrote with 1 - f; an LSTM has an input gate of its own, i. (To mix with z and 1 - z is "
    "the GRU's way.)"
)
def written_with_the_rest(a, c):
    return _lstm_step(a, c, new=lambda i, f, g, c: f * c + (1 - f) * g)


@lstm_step.mutant("Nothing comes from the next step in yours: the second half of dy is dc'.")
def nothing_from_the_next_step(a, c):
    def back(dh, dc, o, shown, kept):
        return dh * o * (1 - shown**2)

    return _lstm_step(a, c, back=back)


@lstm_step.mutant("h' = o * tanh(c'): on the way from h' to c' the factor o is missing.")
def shown_without_the_gate(a, c):
    return _lstm_step(a, c, back=lambda dh, dc, o, shown, kept: dc + dh * (1 - shown**2))


@lstm_step.mutant("h' = o * tanh(c'): on the way from h' to c' the slope of the tanh is missing.")
def shown_without_the_slope(a, c):
    return _lstm_step(a, c, back=lambda dh, dc, o, *_: dc + dh * o)


@lstm_step.mutant(
    "The slope of the tanh belongs to what comes through h' alone; dc' reaches c' directly."
)
def slope_on_both_ways(a, c):
    return _lstm_step(a, c, back=lambda dh, dc, o, shown, kept: (dc + dh * o) * (1 - shown**2))


@lstm_step.mutant(
    "The rule of a is right; that of c uses only the dc' from the next step. It needs the same "
    "sum: c' also reaches the output through h'."
)
def carousel_of_the_next_step_alone(a, c):
    return _lstm_step(a, c, carousel=lambda dc, f, dc_next: dc_next * f)


@lstm_step.mutant("c' = f * c + ...: the rule of c has the factor f; f (1 - f) belongs to a.")
def carousel_with_a_slope(a, c):
    return _lstm_step(a, c, carousel=lambda dc, f, dc_next: dc * f * (1 - f))


@lstm_step.mutant("h' and c' are exchanged: h' is the first half of the output, c' the second.")
def memory_first(a, c):
    return _lstm_step(a, c, side_by_side=lambda h, c: np.concatenate([c, h], axis=1))


@lstm_step.mutant("In i * g the gradient of g is dc times the other factor, i; it is missing.")
def new_without_the_input_gate(a, c):
    return _lstm_step(a, c, g_from=lambda dc, i: dc)


@lstm_step.mutant("All four slopes are missing: s (1 - s) of the gates, 1 - g ** 2 of g.")
def no_slopes(a, c):
    return _lstm_step(a, c, gate_slope=np.ones_like, g_slope=np.ones_like)


@lstm_step.mutant("On the way back the halves of dy are exchanged: the first is dh', then dc'.")
def halves_of_dy_exchanged(a, c):
    y, rules = lstm_step_reference(a, c)

    def exchanged(rule):
        return lambda dy: rule(np.roll(dy, c.shape[1], axis=1))

    return y, tuple(map(exchanged, rules))


@lstm_step.mutant("Side by side is along axis 1, (N, 2 D); you put h' above c', along axis 0.")
def one_above_the_other(a, c):
    return _lstm_step(a, c, side_by_side=lambda h, c: np.concatenate([h, c], axis=0))


# -- sequence_loss --------------------------------------------------------------------------


def _log_probabilities(logits, right):
    shifted = logits - logits.max(axis=2, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
    return np.take_along_axis(log_p, right[:, :, None], axis=2)[:, :, 0]


def sequence_loss_reference(logits, target):
    right = target[:, 1:]
    return -_log_probabilities(logits, right)[right != 0].mean()


def _targets(rng, lengths, K):
    """Targets of some lengths, framed by 1 and 2 and padded with 0, and random logits."""
    target = np.zeros((len(lengths), max(lengths) + 2), dtype=int)
    for row, length in zip(target, lengths, strict=True):
        row[: length + 2] = [1, *rng.integers(3, K, size=length), 2]
    return rng.normal(size=(len(lengths), target.shape[1] - 1, K)), target


sequence_loss = Exercise(
    "09.sequence_loss",
    reference=sequence_loss_reference,
    cases=[
        Case(
            "one token and the end",
            np.log(np.array([[[0.1, 0.1, 0.2, 0.6], [0.1, 0.1, 0.5, 0.3]]])),
            np.array([[1, 3, 2]]),
        ),
        Case("two sequences of one length", *_targets(np.random.default_rng(4), [2, 2], 5)),
        Case("two lengths", *_targets(np.random.default_rng(5), [4, 1], 6)),
        Case(
            "large logits",
            np.array([[[1000.0, 0, 0, 999], [0, -900, 0, 0]]]),
            np.array([[1, 3, 2]]),
        ),
    ],
    more=lambda rng: Case(
        "any lengths", *_targets(rng, rng.integers(1, 5, size=3).tolist(), int(rng.integers(5, 8)))
    ),
    hints=[
        "The right tokens are `target[:, 1:]`: for each place of the logits, what follows.",
        "log softmax is `logits - log(sum(exp(logits)))` along the last axis; subtract the largest "
        "logit first, so that nothing overflows.",
        "`np.take_along_axis(log_p, right[:, :, None], axis=2)[:, :, 0]` picks the right ones, and "
        "`picked[right != 0].mean()` leaves the padding out.",
    ],
)


@sequence_loss.mutant(
    "The padding counts in yours: average over the places where a token is right."
)
def padding_counted(logits, target):
    return -_log_probabilities(logits, target[:, 1:]).mean()


@sequence_loss.mutant("You divided by all places, padding included; divide by the tokens alone.")
def divided_by_all_places(logits, target):
    right = target[:, 1:]
    return -(_log_probabilities(logits, right) * (right != 0)).mean()


@sequence_loss.mutant(
    "You compared with the tokens that were given; compare with those that follow."
)
def not_shifted(logits, target):
    right = target[:, :-1]
    return -_log_probabilities(logits, right)[right != 0].mean()


@sequence_loss.mutant("You averaged within each sequence first; every token counts the same.")
def mean_of_means(logits, target):
    right = target[:, 1:]
    counts = (right != 0).sum(axis=1)
    return -((_log_probabilities(logits, right) * (right != 0)).sum(axis=1) / counts).mean()


@sequence_loss.mutant("That is the sum over the tokens; the loss is their mean.")
def sum_of_tokens(logits, target):
    right = target[:, 1:]
    return -_log_probabilities(logits, right)[right != 0].sum()


@sequence_loss.mutant("The end counts as well: to stop is what the decoder must learn, too.")
def end_left_out(logits, target):
    right = target[:, 1:]
    return -_log_probabilities(logits, right)[right > 2].mean()


@sequence_loss.mutant("exp of a large logit overflows: subtract the largest one first.")
def overflowing(logits, target):
    right = target[:, 1:]
    with np.errstate(all="ignore"):
        log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    picked = np.take_along_axis(log_p, np.asarray(right)[:, :, None], axis=2)[:, :, 0]
    return -picked[right != 0].mean()


@sequence_loss.mutant("The log is missing: that is the mean probability, negated.")
def no_log(logits, target):
    right = target[:, 1:]
    return -np.exp(_log_probabilities(logits, right))[right != 0].mean()


@sequence_loss.mutant(
    "You took the log of the mean probability; the loss is the mean of the logs, -log p each."
)
def log_of_the_mean(logits, target):
    right = target[:, 1:]
    return -np.log(np.exp(_log_probabilities(logits, right))[right != 0].mean())


@sequence_loss.mutant("The softmax is missing: you averaged the logits of the right tokens.")
def no_softmax(logits, target):
    right = target[:, 1:]
    picked = np.take_along_axis(logits, right[:, :, None], axis=2)[:, :, 0]
    return -picked[right != 0].mean()


@sequence_loss.mutant("Your softmax is over the places, axis 1; it is over the K tokens, axis 2.")
def softmax_over_time(logits, target):
    right = target[:, 1:]
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -np.take_along_axis(log_p, right[:, :, None], axis=2)[:, :, 0][right != 0].mean()


@sequence_loss.mutant(
    "You took the greatest probability, that of what the decoder would write; it is that of the "
    "right token."
)
def of_the_most_probable(logits, target):
    shifted = logits - logits.max(axis=2, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
    return -log_p.max(axis=2)[target[:, 1:] != 0].mean()


@sequence_loss.mutant(
    "You divided by the tokens of the whole target; its start is given, and is not foretold."
)
def start_counted(logits, target):
    right = target[:, 1:]
    return -_log_probabilities(logits, right)[right != 0].sum() / (target != 0).sum()


@sequence_loss.mutant(
    "You left out the places where the token that was given is padding; it is the token that "
    "follows that must be none."
)
def mask_not_shifted(logits, target):
    return -_log_probabilities(logits, target[:, 1:])[target[:, :-1] != 0].mean()


@sequence_loss.mutant("You divided by the number of sequences; divide by that of the tokens.")
def mean_over_sequences_alone(logits, target):
    right = target[:, 1:]
    return -_log_probabilities(logits, right)[right != 0].sum() / len(target)


# -- greedy ---------------------------------------------------------------------------------


def _greedy(
    step,
    state,
    count,
    longest,
    *,
    start=1,
    choose=lambda scores: scores.argmax(axis=1),
    feed=lambda token: token,
    state_of=lambda before, after: after,
    over_of=lambda over, token: over | (token == 2),
    filling=0,
):
    """Greedy decoding; each setting can be replaced by a mistake."""
    token, over = np.full(count, start), np.zeros(count, dtype=bool)
    written = []
    for _ in range(longest):
        scores, after = step(feed(token), state)
        state = state_of(state, after)
        token = np.where(over, filling, choose(scores))
        over = over_of(over, token)
        written.append(token)
    return np.stack(written, axis=1)


def greedy_reference(step, state, count, longest):
    return _greedy(step, state, count, longest)


def _decoder(rng, K, times):
    """A decoder whose scores depend on the token before, and on a state that counts upwards."""
    table = rng.integers(0, 100, size=(times, K, K))
    table[:, :, :2] = -100  # it writes neither padding nor a start
    return Code(
        f"lambda tokens, state: (np.array({table.tolist()})[state % {times}, tokens], state + 1)"
    )


SPELL = Code(
    "lambda tokens, state: (np.array([[0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0]])"
    "[tokens], state)"
)

greedy = Exercise(
    "09.greedy",
    reference=greedy_reference,
    cases=[
        Case("3, then the end", SPELL, np.zeros(1, dtype=int), 1, 2),
        Case("three sequences", _decoder(np.random.default_rng(6), 5, 4), np.arange(3), 3, 6),
        Case("four sequences", _decoder(np.random.default_rng(7), 6, 5), np.arange(4), 4, 9),
        Case("two steps", _decoder(np.random.default_rng(8), 9, 7), np.arange(5), 5, 2),
    ],
    more=lambda rng: Case("another decoder", _decoder(rng, 5, 6), np.arange(4), 4, 8),
    hints=[
        "One token for each sequence at a time: begin with `token = np.full(count, 1)`, and call "
        "`scores, state = step(token, state)` in a loop.",
        "The next token is `scores.argmax(axis=1)`. It is what the next call is given.",
        "Keep a boolean for each sequence, `over`, at first False. Where it is True write 0: "
        "`np.where(over, 0, scores.argmax(axis=1))`; and it turns True where the token is 2.",
        "`np.stack(written, axis=1)` makes (N, longest) of the list of tokens (N,).",
    ],
)


@greedy.mutant(
    "A sequence that has written its end, 2, goes on with padding; yours goes on writing."
)
def never_over(step, state, count, longest):
    return _greedy(step, state, count, longest, over_of=lambda over, token: over)


@greedy.mutant("The first token that the decoder is given is the start, 1.")
def starts_with_padding(step, state, count, longest):
    return _greedy(step, state, count, longest, start=0)


@greedy.mutant("The next state is not handed on: the decoder is at its first step every time.")
def state_not_handed_on(step, state, count, longest):
    return _greedy(step, state, count, longest, state_of=lambda before, after: before)


@greedy.mutant("The decoder is given the start every time; give it the token that it wrote last.")
def start_again_and_again(step, state, count, longest):
    return _greedy(step, state, count, longest, feed=lambda token: np.full(count, 1))


@greedy.mutant("When one sequence ends you end all; the others go on until their own end.")
def all_end_with_the_first(step, state, count, longest):
    def any_over(over, token):
        return over | (token == 2).any()

    return _greedy(step, state, count, longest, over_of=any_over)


@greedy.mutant("Behind the end comes padding, 0; you repeat the end.")
def end_repeated(step, state, count, longest):
    return _greedy(step, state, count, longest, filling=2)


@greedy.mutant("That chooses the token with the least score; greedy takes the greatest.")
def least_score(step, state, count, longest):
    return _greedy(step, state, count, longest, choose=lambda scores: scores.argmin(axis=1))


@greedy.mutant("The end itself is part of what is written; yours is overwritten by padding.")
def end_not_written(step, state, count, longest):
    written = greedy_reference(step, state, count, longest)
    return np.where(written == 2, 0, written)


@greedy.mutant(
    "Behind the end comes one padding, and then yours goes on writing: once a sequence is over, "
    "it stays so."
)
def over_for_one_step(step, state, count, longest):
    return _greedy(step, state, count, longest, over_of=lambda over, token: token == 2)


@greedy.mutant("The start is given, not written: it has no place in the result.")
def start_written(step, state, count, longest):
    written = greedy_reference(step, state, count, longest)
    return np.concatenate([np.ones((count, 1), dtype=written.dtype), written], axis=1)


@greedy.mutant(
    "You stop when all sequences are over; the result has `longest` columns all the same, filled "
    "with padding."
)
def stopped_early(step, state, count, longest):
    written = greedy_reference(step, state, count, longest)
    ended = (written == 2).any(axis=1).all()
    return written[:, : (written == 2).argmax(axis=1).max() + 1] if ended else written


@greedy.mutant(
    "The end can't be chosen in yours: only letters, 3 and up, are looked at. It ends a sequence "
    "when its score is the greatest."
)
def letters_alone(step, state, count, longest):
    return _greedy(
        step, state, count, longest, choose=lambda scores: 3 + scores[:, 3:].argmax(axis=1)
    )


# -- GRUCell --------------------------------------------------------------------------------


class GRUCellReference(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.ih = nn.Linear(input_size, 3 * hidden_size)
        self.hh = nn.Linear(hidden_size, 3 * hidden_size)

    def forward(self, x, h):
        a_r, a_z, a_n = self.ih(x).chunk(3, 1)
        u_r, u_z, u_n = self.hh(h).chunk(3, 1)
        r, z = self.gate(a_r, u_r), self.gate(a_z, u_z)
        return self.mixed(h, z, self.bend(self.new(h, r, a_n, u_n)))

    def gate(self, a, u):
        return F.sigmoid(a + u)

    def new(self, h, r, a_n, u_n):
        return a_n + r * u_n

    def bend(self, n):
        return F.tanh(n)

    def mixed(self, h, z, n):
        return (1 - z) * n + z * h


def _cell(rng, N, D_in, D):
    return rng.normal(size=(N, D_in)), rng.normal(size=(N, D))


GRUCell = Exercise(
    "09.GRUCell",
    reference=GRUCellReference,
    observe=module,
    cases=[
        Case(
            "one feature",
            *_cell(np.random.default_rng(9), 1, 1, 1),
            input_size=1,
            hidden_size=1,
        ),
        Case(
            "two sequences",
            *_cell(np.random.default_rng(10), 2, 3, 2),
            input_size=3,
            hidden_size=2,
        ),
    ],
    more=lambda rng: Case("other sizes", *_cell(rng, 3, 2, 4), input_size=2, hidden_size=4),
    hints=[
        "`self.ih` is a Linear from input_size to 3 * hidden_size, `self.hh` one from hidden_size "
        "to 3 * hidden_size.",
        "`a_r, a_z, a_n = self.ih(x).chunk(3, 1)`, and the same of h for u.",
        "Only n keeps the shares apart: `F.tanh(a_n + r * u_n)`.",
        "The new state is `(1 - z) * n + z * h`.",
    ],
)


@GRUCell.mutant("z and 1 - z are exchanged: z is the share of the old state that is kept.")
class update_exchanged(GRUCellReference):
    def mixed(self, h, z, n):
        return z * n + (1 - z) * h


@GRUCell.mutant(
    "You reset the state before the matrix, as the paper does; PyTorch's form resets the share "
    "u of the state: r * u_n."
)
class reset_before_the_matrix(GRUCellReference):
    def new(self, h, r, a_n, u_n):
        _, _, of_the_reset = self.hh(r * h).chunk(3, 1)
        return a_n + of_the_reset


@GRUCell.mutant("r resets the share of the state alone; yours resets that of the input, too.")
class reset_of_both_shares(GRUCellReference):
    def new(self, h, r, a_n, u_n):
        return r * (a_n + u_n)


@GRUCell.mutant("The reset gate is not used: it multiplies u_n.")
class no_reset(GRUCellReference):
    def new(self, h, r, a_n, u_n):
        return a_n + u_n


@GRUCell.mutant("The parts are those of r, z, n in this order; you took the first for z.")
class gates_exchanged(GRUCellReference):
    def forward(self, x, h):
        a_z, a_r, a_n = self.ih(x).chunk(3, 1)
        u_z, u_r, u_n = self.hh(h).chunk(3, 1)
        r, z = F.sigmoid(a_r + u_r), F.sigmoid(a_z + u_z)
        return self.mixed(h, z, F.tanh(self.new(h, r, a_n, u_n)))


@GRUCell.mutant("The old state is missing: what is new, n, is mixed with z * h.")
class nothing_kept(GRUCellReference):
    def mixed(self, h, z, n):
        return (1 - z) * n


@GRUCell.mutant("What is new has the share 1 - z; yours is added in full, n + z * h.")
class new_in_full(GRUCellReference):
    def mixed(self, h, z, n):
        return n + z * h


@GRUCell.mutant("r resets the share of the state, u_n; yours resets that of the input, a_n.")
class reset_of_the_input(GRUCellReference):
    def new(self, h, r, a_n, u_n):
        return r * a_n + u_n


@GRUCell.mutant("n is a tanh; you took its sigmoid, as of the gates.")
class new_as_a_gate(GRUCellReference):
    def bend(self, n):
        return F.sigmoid(n)


@GRUCell.mutant("The tanh of n is missing.")
class new_without_tanh(GRUCellReference):
    def bend(self, n):
        return n


@GRUCell.mutant("r and z are gates between 0 and 1, a sigmoid; you took the tanh.")
class gates_as_tanh(GRUCellReference):
    def gate(self, a, u):
        return F.tanh(a + u)


@GRUCell.mutant("The gates look at the state as well: r and z are the sigmoid of a + u.")
class gates_of_the_input(GRUCellReference):
    def gate(self, a, u):
        return F.sigmoid(a)


@GRUCell.mutant("The sigmoid of the gates is missing.")
class gates_without_sigmoid(GRUCellReference):
    def gate(self, a, u):
        return a + u


@GRUCell.mutant("The layers are exchanged: `ih` takes the input x, `hh` the state h.")
class layers_exchanged(GRUCellReference):
    def __init__(self, input_size, hidden_size):
        nn.Module.__init__(self)
        self.ih = nn.Linear(hidden_size, 3 * hidden_size)
        self.hh = nn.Linear(input_size, 3 * hidden_size)

    def forward(self, x, h):
        a_r, a_z, a_n = self.hh(x).chunk(3, 1)
        u_r, u_z, u_n = self.ih(h).chunk(3, 1)
        return self.mixed(
            h, self.gate(a_z, u_z), self.bend(self.new(h, self.gate(a_r, u_r), a_n, u_n))
        )
