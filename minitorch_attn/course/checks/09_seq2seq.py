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


# -- rnn ------------------------------------------------------------------------------------


def _rnn(
    x,
    w_ih,
    w_hh,
    *,
    carry=lambda da, w_hh: da @ w_hh,
    slope=lambda y: 1 - y**2,
    steps=slice(None),
    reaches=lambda dy: dy,
    before=slice(None, -1),
):
    """The network with its rules; each setting can be replaced by a mistake."""
    h = _states(x, w_ih, w_hh)
    y = h[:, 1:]

    def through_time(dy):
        dy = reaches(dy)
        da, dh = np.empty_like(y), np.zeros_like(y[:, 0])
        for t in reversed(range(y.shape[1])):
            dh = dh + dy[:, t]
            da[:, t] = dh * slope(y[:, t])
            dh = carry(da[:, t], w_hh)
        return da

    def vjp_x(dy):
        return through_time(dy) @ w_ih

    def vjp_w_ih(dy):
        return np.einsum("nld,nli->di", through_time(dy)[:, steps], x[:, steps])

    def vjp_w_hh(dy):
        return np.einsum("nld,nle->de", through_time(dy)[:, steps], h[:, before][:, steps])

    return y, (vjp_x, vjp_w_ih, vjp_w_hh)


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
    return _rnn(x, w_ih, w_hh, carry=lambda da, w_hh: np.zeros_like(da))


@rnn.mutant("On the way back through the step rows are multiplied by `w_hh`, not its transpose.")
def transposed_on_the_way_back(x, w_ih, w_hh):
    return _rnn(x, w_ih, w_hh, carry=lambda da, w_hh: da @ w_hh.T)


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


# -- lstm_step ------------------------------------------------------------------------------


def _logistic(x):
    return 1 / (1 + np.exp(-x))


def _lstm_step(
    a,
    c,
    *,
    order=(0, 1, 2, 3),
    show=np.tanh,
    shown_slope=lambda shown, kept: 1 - shown**2,
    g_slope=lambda g: 1 - g**2,
    through_h=1.0,
    carousel=lambda dc, f: dc * f,
    f_factor=lambda c, g: c,
):
    """The step with its rules; each setting can be replaced by a mistake."""
    D = c.shape[1]
    i, f, g, o = (a[:, k * D : (k + 1) * D] for k in order)
    i, f, g, o = _logistic(i), _logistic(f), np.tanh(g), _logistic(o)
    kept = f * c + i * g
    shown = show(kept)

    def back_to_c(dy):
        return dy[:, D:] + through_h * dy[:, :D] * o * shown_slope(shown, kept)

    def vjp_a(dy):
        dc = back_to_c(dy)
        parts = [
            dc * g * i * (1 - i),
            dc * f_factor(c, g) * f * (1 - f),
            dc * i * g_slope(g),
            dy[:, :D] * shown * o * (1 - o),
        ]
        return np.concatenate([parts[order.index(k)] for k in range(4)], axis=1)

    def vjp_c(dy):
        return carousel(back_to_c(dy), f)

    return np.concatenate([o * shown, kept], axis=1), (vjp_a, vjp_c)


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
    return _lstm_step(a, c, show=lambda kept: kept, shown_slope=lambda shown, kept: 1.0)


@lstm_step.mutant("The rule of c lacks the forget gate: c' holds f * c, so dc = dc' * f.")
def carousel_without_gate(a, c):
    return _lstm_step(a, c, carousel=lambda dc, f: dc)


@lstm_step.mutant(
    "c' also reaches the output through h': add dh' * o * (1 - tanh(c') ** 2) to dc'."
)
def memory_not_shown(a, c):
    return _lstm_step(a, c, through_h=0.0)


@lstm_step.mutant("The slope of tanh(c') is 1 - tanh(c') ** 2; you squared c' itself.")
def slope_of_the_memory(a, c):
    return _lstm_step(a, c, shown_slope=lambda shown, kept: 1 - kept**2)


@lstm_step.mutant("g is a tanh, so its slope is 1 - g ** 2; g (1 - g) is that of a sigmoid.")
def slope_of_a_sigmoid(a, c):
    return _lstm_step(a, c, g_slope=lambda g: g * (1 - g))


@lstm_step.mutant(
    "The forget gate multiplies the old memory: its gradient has the factor c, not g."
)
def forget_gate_of_g(a, c):
    return _lstm_step(a, c, f_factor=lambda c, g: g)


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


# -- GRUCell --------------------------------------------------------------------------------


class GRUCellReference(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.ih = nn.Linear(input_size, 3 * hidden_size)
        self.hh = nn.Linear(hidden_size, 3 * hidden_size)

    def forward(self, x, h):
        a_r, a_z, a_n = self.ih(x).chunk(3, 1)
        u_r, u_z, u_n = self.hh(h).chunk(3, 1)
        r, z = F.sigmoid(a_r + u_r), F.sigmoid(a_z + u_z)
        return self.mixed(h, z, F.tanh(self.new(h, r, a_n, u_n)))

    def new(self, h, r, a_n, u_n):
        return a_n + r * u_n

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
