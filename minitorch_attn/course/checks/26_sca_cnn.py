import math
from collections import Counter

import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules


def _softmax(e, axis=1):
    alpha = np.exp(e - e.max(axis=axis, keepdims=True))
    return alpha / alpha.sum(axis=axis, keepdims=True)


# -- channel_weights ------------------------------------------------------------------------


def _channel_weights(
    x,
    h,
    u,
    v,
    w,
    *,
    known_by=lambda x: x.mean(axis=2),
    bend=np.tanh,
    state=lambda h, v: (h @ v.T)[:, None],
    weigh=_softmax,
):
    return weigh(bend(known_by(x)[:, :, None] * u + state(h, v)) @ w)


def channel_weights_reference(x, h, u, v, w):
    return _channel_weights(x, h, u, v, w)


def _channels(label, rng, N, C, L, D, A):
    return Case(
        label,
        rng.normal(size=(N, C, L)) + rng.normal(size=(N, C, 1)),
        rng.normal(size=(N, D)),
        rng.normal(size=A),
        rng.normal(size=(A, D)),
        rng.normal(size=A),
    )


channel_weights = Exercise(
    "26.channel_weights",
    reference=channel_weights_reference,
    cases=[
        Case(
            "one map of two channels and two places, one hidden unit",
            np.array([[[1.0, 3.0], [0.0, -1.0]]]),
            np.array([[0.5]]),
            np.array([0.5]),
            np.array([[-1.0]]),
            np.array([1.5]),
        ),
        _channels("two maps", np.random.default_rng(0), 2, 3, 4, 2, 5),
        _channels("all sizes alike", np.random.default_rng(1), 3, 3, 3, 3, 3),
        Case(
            "large scores",
            np.array([[[1.0], [-1.0], [2.0]], [[-1.0], [-2.0], [-3.0]]]),
            np.array([[0.0], [0.0]]),
            np.array([1.0]),
            np.array([[1.0]]),
            np.array([1500.0]),
        ),
    ],
    more=lambda rng: _channels("any sizes", rng, *rng.integers(2, 6, size=5)),
    hints=[
        "`x.mean(axis=2)` (N, C) is what the channels are known by.",
        "The sum inside the tanh has three axes (N, C, A): `m[:, :, None] * u` is the share of the "
        "mean, `(h @ v.T)[:, None]` that of the state, the same for all channels.",
        "`@ w` makes scores (N, C) of it. The softmax runs over the channels, axis 1; subtract the "
        "largest score of each row before the exponential.",
    ],
)


@channel_weights.mutant("A channel is known by its mean over the places; you took their sum.")
def sum_for_mean(x, h, u, v, w):
    return _channel_weights(x, h, u, v, w, known_by=lambda x: x.sum(axis=2))


@channel_weights.mutant("You took the mean over the channels, axis 1; it is over the places.")
def mean_over_the_channels(x, h, u, v, w):
    return _channel_weights(x, h, u, v, w, known_by=lambda x: x.mean(axis=1))


@channel_weights.mutant("A channel is known by its mean; you took its greatest place.")
def greatest_for_mean(x, h, u, v, w):
    return _channel_weights(x, h, u, v, w, known_by=lambda x: x.max(axis=2))


@channel_weights.mutant("The softmax is over the maps of the batch; the channels share the weight.")
def over_the_batch(x, h, u, v, w):
    return _channel_weights(x, h, u, v, w, weigh=lambda e: _softmax(e, axis=0))


@channel_weights.mutant(
    "These are sigmoids, as squeeze and excitation has them: each channel by itself. Here the "
    "channels compete, by a softmax."
)
def sigmoid_for_softmax(x, h, u, v, w):
    with np.errstate(over="ignore"):
        return _channel_weights(x, h, u, v, w, weigh=lambda e: 1 / (1 + np.exp(-e)))


@channel_weights.mutant(
    "The state is not heard. It belongs inside the tanh, beside u m: added behind it, it adds the "
    "same to the scores of all channels, and a softmax does not see that."
)
def state_left_out(x, h, u, v, w):
    return _channel_weights(x, h, u, v, w, state=lambda h, v: 0.0)


@channel_weights.mutant("The tanh is missing.")
def tanh_left_out(x, h, u, v, w):
    return _channel_weights(x, h, u, v, w, bend=lambda p: p)


@channel_weights.mutant("The ReLU is soft attention's in a well-known port; here it is a tanh.")
def relu_for_tanh(x, h, u, v, w):
    return _channel_weights(x, h, u, v, w, bend=lambda p: np.maximum(p, 0))


@channel_weights.mutant(
    "The tanh came last, after w. The hidden units are bent first, each by itself, and then "
    "added up with the weights w."
)
def tanh_after_w(x, h, u, v, w):
    return _softmax(np.tanh(_channel_weights(x, h, u, v, w, bend=lambda p: p, weigh=lambda e: e)))


@channel_weights.mutant(
    "The shares of the mean and of the state were multiplied; inside the tanh they are added."
)
def shares_multiplied(x, h, u, v, w):
    p = x.mean(axis=2)[:, :, None] * u * (h @ v.T)[:, None]
    return _softmax(np.tanh(p) @ w)


@channel_weights.mutant(
    "w is missing: the hidden units were added up as they are. Each counts as much as w says."
)
def w_left_out(x, h, u, v, w):
    return _channel_weights(x, h, u, v, np.ones_like(w))


@channel_weights.mutant(
    "You made a score for each place, and the mean of the scores. The mean comes first: a channel "
    "is known by one number, and that has a score."
)
def scored_at_each_place(x, h, u, v, w):
    return _softmax((np.tanh(x[..., None] * u + (h @ v.T)[:, None, None]) @ w).mean(axis=2))


@channel_weights.mutant(
    "The softmax ran over the hidden units. They are added up with the weights w, one score a "
    "channel, and the softmax is over the channels."
)
def over_the_hidden_units(x, h, u, v, w):
    p = x.mean(axis=2)[:, :, None] * u + (h @ v.T)[:, None]
    return _softmax(np.tanh(p), axis=2) @ w


@channel_weights.mutant(
    "The softmax ran over all numbers at once; here each map has its own, a row that adds up to 1: "
    "`sum(axis=1, keepdims=True)`."
)
def over_all_at_once(x, h, u, v, w):
    return _channel_weights(x, h, u, v, w, weigh=lambda e: _softmax(e, axis=None))


@channel_weights.mutant(
    "The exponentials come back as they are: divide each row by its sum, so that the channels "
    "share one weight."
)
def not_divided_by_the_sum(x, h, u, v, w):
    def weigh(e):
        return np.exp(e - e.max(axis=1, keepdims=True))

    return _channel_weights(x, h, u, v, w, weigh=weigh)


@channel_weights.mutant(
    "The exponentials come back as they are. Two steps are missing: subtract the largest score of "
    "each row before, and divide each row by its sum behind."
)
def exponentials_alone(x, h, u, v, w):
    def weigh(e):
        with np.errstate(over="ignore"):
            return np.exp(e)

    return _channel_weights(x, h, u, v, w, weigh=weigh)


@channel_weights.mutant(
    "The scores were divided by their sum without the exponential: a softmax makes all of them "
    "positive first."
)
def without_exponential(x, h, u, v, w):
    return _channel_weights(x, h, u, v, w, weigh=lambda e: e / e.sum(axis=1, keepdims=True))


@channel_weights.mutant(
    "The largest score of all maps was subtracted. Where a map's scores are far below it nothing "
    "is left of them, 0 / 0: subtract the largest of each row, `max(axis=1, keepdims=True)`."
)
def largest_of_all_maps(x, h, u, v, w):
    def weigh(e):
        with np.errstate(all="ignore"):
            powers = np.exp(e - e.max())
            return powers / powers.sum(axis=1, keepdims=True)

    return _channel_weights(x, h, u, v, w, weigh=weigh)


@channel_weights.mutant("The map came back, weighed. The weights alone are asked, (N, C).")
def map_weighed(x, h, u, v, w):
    return channel_weights_reference(x, h, u, v, w)[:, :, None] * x


@channel_weights.mutant("The scores come back: the softmax over the channels is missing.")
def scores_alone(x, h, u, v, w):
    return _channel_weights(x, h, u, v, w, weigh=lambda e: e)


@channel_weights.mutant(
    "The weights are multiplied by the number of channels; that comes later, when the map is "
    "weighed. Here each row adds up to 1."
)
def multiplied_by_their_number(x, h, u, v, w):
    return x.shape[1] * channel_weights_reference(x, h, u, v, w)


@channel_weights.mutant("exp of a large score overflows: subtract the largest of its row first.")
def overflowing(x, h, u, v, w):
    def weigh(e):
        with np.errstate(all="ignore"):
            return np.exp(e) / np.exp(e).sum(axis=1, keepdims=True)

    return _channel_weights(x, h, u, v, w, weigh=weigh)


# -- weigh_places ---------------------------------------------------------------------------


def _weigh_places(
    x,
    h,
    *,
    u,
    v,
    w,
    factor=None,
    factor_back=None,
    item=1.0,
    key=1.0,
    gather=lambda dp: dp.sum(axis=1),
    slope=lambda a: 1 - a**2,
    mean=lambda alpha, dalpha: (alpha * dalpha).sum(axis=1, keepdims=True),
    slope_of_softmax=lambda alpha: alpha,
    inner=lambda x, dy: (x * dy).sum(axis=1),
    rows=lambda x: x.swapaxes(1, 2),
    bend=np.tanh,
    hear=1.0,
    weigh=_softmax,
    read=None,
):
    """The whole, with the rules of map and state; each setting can be replaced by a mistake."""
    factor = x.shape[2] if factor is None else factor
    factor_back = factor if factor_back is None else factor_back
    a = bend(rows(x) @ u.T + hear * (h @ v.T)[:, None])
    alpha = weigh(a @ w)

    def back_to_a(dy):
        dalpha = factor_back * inner(x, dy)
        de = slope_of_softmax(alpha) * (dalpha - mean(alpha, dalpha))
        return de[:, :, None] * (w if read is None else read) * slope(a)

    def vjp_x(dy):
        return item * factor * alpha[:, None] * dy + key * (back_to_a(dy) @ u).swapaxes(1, 2)

    def vjp_h(dy):
        return hear * gather(back_to_a(dy)) @ v

    return factor * alpha[:, None] * x, (vjp_x, vjp_h)


def weigh_places_reference(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w)


def _places(label, rng, N, C, L, D, A):
    return Case(
        label,
        rng.normal(size=(N, C, L)),
        rng.normal(size=(N, D)),
        u=rng.normal(size=(A, C)),
        v=rng.normal(size=(A, D)),
        w=rng.normal(size=A) + 0.5,
    )


weigh_places = Exercise(
    "26.weigh_places",
    reference=weigh_places_reference,
    observe=rules,
    cases=[
        Case(
            "one map of one channel, two places and one hidden unit",
            np.array([[[1.0, -0.5]]]),
            np.array([[0.5]]),
            u=np.array([[0.5]]),
            v=np.array([[1.0]]),
            w=np.array([2.0]),
        ),
        _places(
            "two maps of two channels and three places", np.random.default_rng(0), 2, 2, 3, 2, 4
        ),
        _places("all sizes alike", np.random.default_rng(1), 3, 3, 3, 3, 3),
    ],
    more=lambda rng: _places("any sizes", rng, *rng.integers(2, 5, size=5)),
    hints=[
        "`x.swapaxes(1, 2)` (N, L, C) has a place in each row; times `u.T` it is (N, L, A). The "
        "state is the same for all places: `(h @ v.T)[:, None]`.",
        "Backward, first to the weights: alpha_j is one number for all channels of a place, so "
        "`dalpha = L * (x * dy).sum(axis=1)`; then the softmax, then `w` and the slope of tanh.",
        "The state took part in every place: add up over the places before `@ v`.",
        "The map has two shares: `L * alpha[:, None] * dy`, and what comes back through the "
        "scores, `(back_to_a(dy) @ u).swapaxes(1, 2)`.",
    ],
)


@weigh_places.mutant(
    "The share through the scores is missing in the rule of x: a place is also what its weight is "
    "made from."
)
def key_path_forgotten(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, key=0.0)


@weigh_places.mutant(
    "The direct share is missing in the rule of x: a place is weighed, and hands on L alpha dy."
)
def item_path_forgotten(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, item=0.0)


@weigh_places.mutant("The factor L is missing: equal weights would shrink the map.")
def factor_left_out(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, factor=1)


@weigh_places.mutant("The factor is the number of places L; you took the number of channels.")
def factor_of_channels(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, factor=x.shape[1])


@weigh_places.mutant("The factor L is missing on the way back to the weights: dalpha has it, too.")
def factor_left_out_backward(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, factor_back=1)


@weigh_places.mutant(
    "The share through the scores has L twice: dalpha has it already, and it is not multiplied by "
    "it again."
)
def factor_twice(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, key=x.shape[2])


@weigh_places.mutant("The softmax runs over the places of a map, not over the batch.")
def softmax_over_the_batch(x, h, *, u, v, w):
    def weigh(e):
        return _softmax(e, axis=0)

    def mean(alpha, dalpha):
        return (alpha * dalpha).sum(axis=0)

    return _weigh_places(x, h, u=u, v=v, w=w, weigh=weigh, mean=mean)


@weigh_places.mutant(
    "The softmax's rule lacks the sum: every score moves all weights of its map. Subtract the sum "
    "of alpha * dalpha."
)
def sum_left_out(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, mean=lambda alpha, dalpha: 0.0)


@weigh_places.mutant(
    "alpha (1 - alpha) is the slope of one weight by its own score; every score moves the others "
    "as well."
)
def diagonal_alone(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, mean=lambda alpha, dalpha: alpha * dalpha)


@weigh_places.mutant("The sum in the softmax's rule runs over the places, each map by itself.")
def sum_over_the_batch(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, mean=lambda alpha, dalpha: (alpha * dalpha).sum())


@weigh_places.mutant(
    "In the softmax's rule you subtracted the plain mean of dalpha; each place counts with its "
    "weight there: the sum of alpha * dalpha."
)
def plain_mean_subtracted(x, h, *, u, v, w):
    def mean(alpha, dalpha):
        return dalpha.mean(axis=1, keepdims=True)

    return _weigh_places(x, h, u=u, v=v, w=w, mean=mean)


@weigh_places.mutant(
    "In the softmax's rule you subtracted the sum of dalpha; each place counts with its weight "
    "there: the sum of alpha * dalpha."
)
def plain_sum_subtracted(x, h, *, u, v, w):
    def mean(alpha, dalpha):
        return dalpha.sum(axis=1, keepdims=True)

    return _weigh_places(x, h, u=u, v=v, w=w, mean=mean)


@weigh_places.mutant(
    "In the softmax's rule the sum was added: more for one place is less for the others, so it is "
    "subtracted."
)
def sum_added(x, h, *, u, v, w):
    def mean(alpha, dalpha):
        return -(alpha * dalpha).sum(axis=1, keepdims=True)

    return _weigh_places(x, h, u=u, v=v, w=w, mean=mean)


@weigh_places.mutant(
    "The softmax's rule lacks its first factor: alpha times (dalpha minus the sum)."
)
def alpha_left_out_backward(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, slope_of_softmax=lambda alpha: 1.0)


@weigh_places.mutant(
    "The way back goes from the weights to the scores as if there were no softmax: "
    "de = alpha (dalpha - the sum of alpha dalpha)."
)
def softmax_not_passed(x, h, *, u, v, w):
    return _weigh_places(
        x, h, u=u, v=v, w=w, slope_of_softmax=lambda _: 1.0, mean=lambda alpha, dalpha: 0.0
    )


@weigh_places.mutant(
    "dalpha lacks the map: y = L alpha x, so a weight gets x times dy, added up over the channels."
)
def map_left_out_backward(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, inner=lambda x, dy: dy.sum(axis=1))


@weigh_places.mutant(
    "A weight is one number for all channels of its place: their shares of dalpha are added up, "
    "not averaged."
)
def averaged_over_channels(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, inner=lambda x, dy: (x * dy).mean(axis=1))


@weigh_places.mutant(
    "Each place has its own share through the scores; you averaged them over the places. That is "
    "how channel attention does it, where the key is a mean."
)
def key_of_a_channel(x, h, *, u, v, w):
    y, (_, vjp_h) = weigh_places_reference(x, h, u=u, v=v, w=w)
    _, (item, _) = _weigh_places(x, h, u=u, v=v, w=w, key=0.0)
    _, (key, _) = _weigh_places(x, h, u=u, v=v, w=w, item=0.0)
    return y, (lambda dy: item(dy) + key(dy).mean(axis=2, keepdims=True), vjp_h)


@weigh_places.mutant("The direct share lacks dy: a place hands on L alpha dy, not L alpha.")
def dy_left_out(x, h, *, u, v, w):
    y, (_, vjp_h) = weigh_places_reference(x, h, u=u, v=v, w=w)
    _, (item, _) = _weigh_places(x, h, u=u, v=v, w=w, key=0.0)
    _, (key, _) = _weigh_places(x, h, u=u, v=v, w=w, item=0.0)
    return y, (lambda dy: item(np.ones_like(dy)) + key(dy), vjp_h)


@weigh_places.mutant(
    "The direct share of the rule of x lacks the factor L: y = L alpha x, so dy comes back times "
    "L alpha."
)
def factor_left_out_directly(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, item=1 / x.shape[2])


@weigh_places.mutant("The rules came in the other order: that of the map first, `(vjp_x, vjp_h)`.")
def rules_in_the_other_order(x, h, *, u, v, w):
    y, (vjp_x, vjp_h) = weigh_places_reference(x, h, u=u, v=v, w=w)
    return y, (vjp_h, vjp_x)


@weigh_places.mutant("The weights came back; the output is the map that they weigh, (N, C, L).")
def weights_alone(x, h, *, u, v, w):
    _, back = weigh_places_reference(x, h, u=u, v=v, w=w)
    return _softmax(np.tanh(x.swapaxes(1, 2) @ u.T + (h @ v.T)[:, None]) @ w), back


@weigh_places.mutant("The map was added to the output: there is no shortcut here, y = L alpha x.")
def map_added(x, h, *, u, v, w):
    y, (vjp_x, vjp_h) = weigh_places_reference(x, h, u=u, v=v, w=w)
    return x + y, (lambda dy: dy + vjp_x(dy), vjp_h)


@weigh_places.mutant("The state is not heard: add V h inside the tanh, for all places the same.")
def state_not_heard(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, hear=0.0)


@weigh_places.mutant("The tanh is missing.")
def tanh_missing(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, bend=lambda p: p, slope=lambda a: 1.0)


@weigh_places.mutant(
    "`x.reshape(N, L, C)` does not make a row of each place: it cuts the numbers up anew, in the "
    "order of memory. Use `x.swapaxes(1, 2)`."
)
def rows_by_reshape(x, h, *, u, v, w):
    N, C, L = x.shape
    return _weigh_places(x, h, u=u, v=v, w=w, rows=lambda x: x.reshape(N, L, C))


@weigh_places.mutant(
    "The slope of tanh was taken at a, which is the tanh already: 1 - a**2, not 1 - tanh(a)**2."
)
def tanh_taken_twice(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, slope=lambda a: 1 - np.tanh(a) ** 2)


@weigh_places.mutant("The slope of tanh is 1 - a**2; the square is missing.")
def slope_not_squared(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, slope=lambda a: 1 - a)


@weigh_places.mutant("The slope of tanh is 1 - a**2; it is missing.")
def slope_left_out(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, slope=lambda a: 1.0)


@weigh_places.mutant("The slope of tanh is 1 - a**2; a (1 - a) is that of a sigmoid.")
def slope_of_a_sigmoid(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, slope=lambda a: a * (1 - a))


@weigh_places.mutant("w is missing on the way back: e = w a, so a gets de times w.")
def w_left_out_backward(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, read=1.0)


@weigh_places.mutant("The state took part in all places: its shares are added up, not averaged.")
def averaged_over_places(x, h, *, u, v, w):
    return _weigh_places(x, h, u=u, v=v, w=w, gather=lambda dp: dp.mean(axis=1))


@weigh_places.mutant("Equal weights for all places: the scores are not used.")
def scores_not_used(x, h, *, u, v, w):
    return x.copy(), (lambda dy: dy.copy(), lambda dy: np.zeros_like(h))


@weigh_places.mutant(
    "The places were averaged away, as soft attention does; here the map stays, weighed."
)
def averaged_away(x, h, *, u, v, w):
    y, (vjp_x, vjp_h) = weigh_places_reference(x, h, u=u, v=v, w=w)
    L = x.shape[2]

    def spread(dz):
        return np.repeat(dz[:, :, None], L, axis=2) / L

    return y.mean(axis=2), (lambda dz: vjp_x(spread(dz)), lambda dz: vjp_h(spread(dz)))


# -- ChannelSpatial -------------------------------------------------------------------------


class ChannelSpatialReference(nn.Module):
    def __init__(self, channels, state, hidden):
        super().__init__()
        self.channel_map = nn.Linear(1, hidden)
        self.channel_state = nn.Linear(state, hidden, bias=False)
        self.channel_score = nn.Linear(hidden, 1, bias=False)
        self.place_map = nn.Linear(channels, hidden)
        self.place_state = nn.Linear(state, hidden, bias=False)
        self.place_score = nn.Linear(hidden, 1, bias=False)

    def bend(self, p):
        return F.tanh(p)

    def known_by(self, x):
        return x.mean(dim=(2, 3))

    def beta(self, x, h):
        m = self.known_by(x).unsqueeze(2)
        hidden = self.bend(self.channel_map(m) + self.channel_state(h).unsqueeze(1))
        return F.softmax(self.channel_score(hidden).squeeze(2), dim=1)

    def alpha(self, x, h):
        places = x.flatten(2).transpose(1, 2)
        hidden = self.bend(self.place_map(places) + self.place_state(h).unsqueeze(1))
        return F.softmax(self.place_score(hidden).squeeze(2), dim=1)

    def weigh_channels(self, x, h):
        N, C, _, _ = x.shape
        return C * self.beta(x, h).reshape(N, C, 1, 1) * x

    def weigh_places(self, x, h):
        N, _, H, W = x.shape
        return H * W * self.alpha(x, h).reshape(N, 1, H, W) * x

    def forward(self, x, h):
        return self.weigh_places(self.weigh_channels(x, h), h)


def _seen(label, rng, N, C, H, W, state, hidden):
    x = rng.normal(size=(N, C, H, W)) + rng.normal(size=(N, C, 1, 1))
    sizes = {"channels": int(C), "state": int(state), "hidden": int(hidden)}
    return Case(label, x, rng.normal(size=(N, state)), **sizes)


ChannelSpatial = Exercise(
    "26.ChannelSpatial",
    reference=ChannelSpatialReference,
    observe=module,
    cases=[
        _seen("one small image", np.random.default_rng(0), 1, 2, 2, 3, 2, 2),
        _seen("two images, higher than wide", np.random.default_rng(1), 2, 3, 3, 2, 4, 5),
        _seen("as many channels as places and states", np.random.default_rng(2), 4, 4, 2, 2, 4, 4),
    ],
    more=lambda rng: _seen("any sizes", rng, *rng.integers(2, 5, size=6)),
    hints=[
        "`x.mean(dim=(2, 3)).unsqueeze(2)` (N, C, 1) has each channel as a row of one number: that "
        "goes into `channel_map`. The state's share gets its axis by `.unsqueeze(1)`.",
        "`self.channel_score(...).squeeze(2)` are the scores (N, C). Reshape the weights to "
        "(N, C, 1, 1) to multiply the image by them, and by C.",
        "For the places, `x.flatten(2).transpose(1, 2)` (N, L, C), of the image that is weighed "
        "already. The rest is as before, with weights (N, 1, H, W) and the factor H W.",
    ],
)


@ChannelSpatial.mutant("You weighed the places first: C-S weighs the channels first.")
class places_first(ChannelSpatialReference):
    def forward(self, x, h):
        return self.weigh_channels(self.weigh_places(x, h), h)


@ChannelSpatial.mutant(
    "The weights of the places are made from the image as it came. In C-S they are made from the "
    "one whose channels are weighed."
)
class side_by_side(ChannelSpatialReference):
    def forward(self, x, h):
        N, _, H, W = x.shape
        return H * W * self.alpha(x, h).reshape(N, 1, H, W) * self.weigh_channels(x, h)


@ChannelSpatial.mutant(
    "The weights of the places multiply the image as it came, so that those of the channels are "
    "lost. They multiply the one whose channels are weighed."
)
class channels_lost(ChannelSpatialReference):
    def forward(self, x, h):
        N, _, H, W = x.shape
        weighed = self.weigh_channels(x, h)
        return H * W * self.alpha(weighed, h).reshape(N, 1, H, W) * x


@ChannelSpatial.mutant(
    "Both were made of the image as it came, and added. In C-S they stand behind one another: the "
    "places are weighed in what the channels' weights have made."
)
class added_up(ChannelSpatialReference):
    def forward(self, x, h):
        return self.weigh_channels(x, h) + self.weigh_places(x, h)


@ChannelSpatial.mutant(
    "C came too late: the places' weights were made from an image that had shrunk by C. Multiply "
    "by C at once."
)
class channels_rescaled_at_the_end(ChannelSpatialReference):
    def forward(self, x, h):
        C = x.shape[1]
        return C * self.weigh_places(self.weigh_channels(x, h) / C, h)


@ChannelSpatial.mutant(
    "The factors are exchanged: the channels' weights are times C, the places' times H W."
)
class factors_exchanged(ChannelSpatialReference):
    def forward(self, x, h):
        _, C, H, W = x.shape
        weighed = self.weigh_channels(x, h) * (H * W / C)
        return self.weigh_places(weighed, h) * (C / (H * W))


@ChannelSpatial.mutant("The places' weights are times H W, how many places there are; you took H.")
class height_alone(ChannelSpatialReference):
    def weigh_places(self, x, h):
        return super().weigh_places(x, h) / x.shape[3]


@ChannelSpatial.mutant(
    "The state is not heard: its share, `channel_state(h)` and `place_state(h)`, belongs inside "
    "the tanh. Added behind it, it is the same for all and a softmax does not see it."
)
class state_not_heard_at_all(ChannelSpatialReference):
    def forward(self, x, h):
        return super().forward(x, h * 0)


@ChannelSpatial.mutant("The places do not hear the state: `place_state(h)` is missing in the tanh.")
class places_without_state(ChannelSpatialReference):
    def weigh_places(self, x, h):
        return super().weigh_places(x, h * 0)


@ChannelSpatial.mutant("The tanh is missing.")
class no_tanh(ChannelSpatialReference):
    def bend(self, p):
        return p


@ChannelSpatial.mutant(
    "The softmax of the channels ran over an axis of length 1, so that all weights are 1. Take "
    "that axis away first: `.squeeze(2)`, then `dim=1`."
)
class softmax_of_one_channel(ChannelSpatialReference):
    def beta(self, x, h):
        return super().beta(x, h) * 0 + 1


@ChannelSpatial.mutant(
    "The map was detached where the weights are made of it: it is also what a weight is made from, "
    "and has a gradient by that path."
)
class keys_detached(ChannelSpatialReference):
    def alpha(self, x, h):
        return super().alpha(x.detach(), h)

    def beta(self, x, h):
        return super().beta(x.detach(), h)


@ChannelSpatial.mutant(
    "`channel_map` goes from 1 to K: a channel is known by one number, its mean, and the same "
    "weights serve all channels."
)
class all_means_at_once(ChannelSpatialReference):
    def __init__(self, channels, state, hidden):
        super().__init__(channels, state, hidden)
        self.channel_map = nn.Linear(channels, hidden)


@ChannelSpatial.mutant("The weights are not multiplied by how many they are: the image shrinks.")
class not_rescaled(ChannelSpatialReference):
    def forward(self, x, h):
        N, C, H, W = x.shape
        x = self.beta(x, h).reshape(N, C, 1, 1) * x
        return self.alpha(x, h).reshape(N, 1, H, W) * x


@ChannelSpatial.mutant("The weights of the channels are not multiplied by C.")
class channels_not_rescaled(ChannelSpatialReference):
    def weigh_channels(self, x, h):
        return super().weigh_channels(x, h) / x.shape[1]


@ChannelSpatial.mutant("The weights of the places are not multiplied by H W.")
class places_not_rescaled(ChannelSpatialReference):
    def weigh_places(self, x, h):
        return super().weigh_places(x, h) / (x.shape[2] * x.shape[3])


@ChannelSpatial.mutant("The places are not weighed: only the channels are.")
class channels_alone(ChannelSpatialReference):
    def forward(self, x, h):
        return self.weigh_channels(x, h)


@ChannelSpatial.mutant("The channels are not weighed: only the places are.")
class places_alone(ChannelSpatialReference):
    def forward(self, x, h):
        return self.weigh_places(x, h)


@ChannelSpatial.mutant(
    "`x.reshape(N, H * W, C)` does not put the channels last: it cuts the numbers up anew. Use "
    "`x.flatten(2).transpose(1, 2)`."
)
class places_by_reshape(ChannelSpatialReference):
    def alpha(self, x, h):
        N, C, H, W = x.shape
        return super().alpha(x.reshape(N, H * W, C).transpose(1, 2).reshape(N, C, H, W), h)


@ChannelSpatial.mutant("Sigmoids in place of the softmax: here channels and places compete.")
class sigmoids(ChannelSpatialReference):
    def beta(self, x, h):
        m = self.known_by(x).unsqueeze(2)
        hidden = self.bend(self.channel_map(m) + self.channel_state(h).unsqueeze(1))
        return F.sigmoid(self.channel_score(hidden).squeeze(2))

    def alpha(self, x, h):
        places = x.flatten(2).transpose(1, 2)
        hidden = self.bend(self.place_map(places) + self.place_state(h).unsqueeze(1))
        return F.sigmoid(self.place_score(hidden).squeeze(2))


@ChannelSpatial.mutant(
    "The softmax ran over an axis of length 1, so that all weights are 1. Take that axis away "
    "first: `.squeeze(2)`, then `dim=1`."
)
class softmax_of_one(ChannelSpatialReference):
    def beta(self, x, h):
        return super().beta(x, h) * 0 + 1

    def alpha(self, x, h):
        return super().alpha(x, h) * 0 + 1


@ChannelSpatial.mutant(
    "The softmax runs over the batch; the channels of an image compete, and its places: `dim=1`."
)
class softmaxes_over_the_batch(ChannelSpatialReference):
    def beta(self, x, h):
        m = self.known_by(x).unsqueeze(2)
        hidden = self.bend(self.channel_map(m) + self.channel_state(h).unsqueeze(1))
        return F.softmax(self.channel_score(hidden).squeeze(2), dim=0)

    def alpha(self, x, h):
        places = x.flatten(2).transpose(1, 2)
        hidden = self.bend(self.place_map(places) + self.place_state(h).unsqueeze(1))
        return F.softmax(self.place_score(hidden).squeeze(2), dim=0)


@ChannelSpatial.mutant("A ReLU in place of the tanh: that is a well-known port's.")
class relu_in_place_of_tanh(ChannelSpatialReference):
    def bend(self, p):
        return F.relu(p)


@ChannelSpatial.mutant("A channel is known by its mean; you took its maximum.")
class known_by_the_maximum(ChannelSpatialReference):
    def known_by(self, x):
        return x.amax(dim=(2, 3))


@ChannelSpatial.mutant("A channel is known by its mean; you took its sum.")
class known_by_the_sum(ChannelSpatialReference):
    def known_by(self, x):
        return x.sum(dim=(2, 3))


@ChannelSpatial.mutant(
    "The state was detached: the question is learned, too, and needs its gradient."
)
class state_detached(ChannelSpatialReference):
    def forward(self, x, h):
        return super().forward(x, h.detach())


@ChannelSpatial.mutant(
    "The scores have a bias: the same number for all, which a softmax does not see."
)
class biased_scores(ChannelSpatialReference):
    def __init__(self, channels, state, hidden):
        super().__init__(channels, state, hidden)
        self.channel_score = nn.Linear(hidden, 1)
        self.place_score = nn.Linear(hidden, 1)


@ChannelSpatial.mutant(
    "The input was added to the output: there is no shortcut. Equal weights leave it as it is "
    "already."
)
class with_a_shortcut(ChannelSpatialReference):
    def forward(self, x, h):
        return x + super().forward(x, h)


# -- doubly_stochastic ----------------------------------------------------------------------


def _doubly_stochastic(
    alpha, is_word, *, wanted=1.0, masked=True, masked_back=True, slope=-2.0, count=None
):
    mu = is_word[:, :, None] if masked else np.ones((*is_word.shape, 1))
    mu_back = mu if masked_back else np.ones((*is_word.shape, 1))
    missing = wanted - (mu * alpha).sum(axis=1)
    count = len(alpha) if count is None else count

    def vjp_alpha(dy):
        return dy * mu_back * (slope * missing / count)[:, None]

    return (missing**2).sum() / count, vjp_alpha


def doubly_stochastic_reference(alpha, *, is_word):
    return _doubly_stochastic(alpha, is_word)


def _captions(label, rng, N, T, L):
    lengths = rng.integers(1, T, size=N, endpoint=True)
    alpha = _softmax(rng.normal(size=(N, T, L)), axis=2)
    return Case(label, alpha, is_word=np.arange(T) < lengths[:, None])


doubly_stochastic = Exercise(
    "26.doubly_stochastic",
    reference=doubly_stochastic_reference,
    observe=rules,
    cases=[
        Case(
            "three looks at the first of three places, one at the second",
            np.array([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]]),
            is_word=np.array([[True, True, True, True]]),
        ),
        Case(
            "twice at the first of two places",
            np.array([[[1.0, 0.0], [1.0, 0.0]]]),
            is_word=np.array([[True, True]]),
        ),
        Case(
            "two captions of some lengths",
            np.array(
                [
                    [[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]],
                    [[0.75, 0.25, 0.0], [0.25, 0.25, 0.5]],
                ]
            ),
            is_word=np.array([[True, True], [True, False]]),
        ),
        _captions("three captions", np.random.default_rng(0), 3, 4, 5),
        _captions("as many words as places", np.random.default_rng(1), 3, 3, 3),
    ],
    more=lambda rng: _captions("any sizes", rng, *rng.integers(2, 6, size=3)),
    hints=[
        "`(is_word[:, :, None] * alpha).sum(axis=1)` (N, L) is how much each place was looked at.",
        "The penalty is the sum over the places of (1 - that) squared, and the mean over the "
        "captions.",
        "In the rule, the slope of (1 - s)**2 is -2 (1 - s), the same for all words of a caption, "
        "0 in the padding, and divided by N. dy is one number.",
    ],
)


@doubly_stochastic.mutant("The padding is counted: only words of the caption have looked.")
def padding_counted(alpha, *, is_word):
    return _doubly_stochastic(alpha, is_word, masked=False)


@doubly_stochastic.mutant(
    "`is_word` was taken the wrong way round: it is True at words, and what is False is padding."
)
def padding_for_words(alpha, *, is_word):
    return _doubly_stochastic(alpha, ~is_word)


@doubly_stochastic.mutant("The padding gets a gradient; its weights were not counted.")
def gradient_in_the_padding(alpha, *, is_word):
    return _doubly_stochastic(alpha, is_word, masked_back=False)


@doubly_stochastic.mutant("The sign of the rule is wrong: more weight makes what is missing less.")
def sign_forgotten(alpha, *, is_word):
    return _doubly_stochastic(alpha, is_word, slope=2.0)


@doubly_stochastic.mutant("dy is not used: the rule is linear in it.")
def dy_not_used(alpha, *, is_word):
    penalty, rule = doubly_stochastic_reference(alpha, is_word=is_word)
    return penalty, lambda dy: rule(1.0)


@doubly_stochastic.mutant("The 2 of the square is missing in the rule.")
def two_forgotten(alpha, *, is_word):
    return _doubly_stochastic(alpha, is_word, slope=-1.0)


@doubly_stochastic.mutant("The mean over the captions is asked; you added them up.")
def captions_added_up(alpha, *, is_word):
    return _doubly_stochastic(alpha, is_word, count=1)


@doubly_stochastic.mutant(
    "You took the mean over the places, too, as a well-known port does; the paper adds them up."
)
def mean_over_places(alpha, *, is_word):
    return _doubly_stochastic(alpha, is_word, count=len(alpha) * alpha.shape[2])


@doubly_stochastic.mutant("The mean over the captions is missing in the rule: divide by N.")
def mean_forgotten_backward(alpha, *, is_word):
    return _doubly_stochastic(alpha, is_word, slope=-2.0 * len(alpha))


@doubly_stochastic.mutant(
    "You compared each weight with 1. Only their sum over the words of the caption should be 1."
)
def each_weight_by_itself(alpha, *, is_word):
    mu = is_word[:, :, None]
    penalty = (mu * (1 - alpha) ** 2).sum() / len(alpha)
    return penalty, lambda dy: dy * mu * -2 * (1 - alpha) / len(alpha)


@doubly_stochastic.mutant(
    "You added up over the places; that is 1 at every word. Add up over the words, axis 1."
)
def over_the_places(alpha, *, is_word):
    mu = is_word[:, :, None]
    missing = mu * (1 - alpha.sum(axis=2, keepdims=True))
    penalty = (missing**2).sum() / len(alpha)
    return penalty, lambda dy: dy * -2 * missing * np.ones_like(alpha) / len(alpha)


@doubly_stochastic.mutant(
    "You took the mean over the words. A place should be looked at once in all, not once a word: "
    "add up over the words."
)
def mean_over_words(alpha, *, is_word):
    mu = is_word[:, :, None] / is_word.sum(axis=1)[:, None, None]
    missing = 1 - (mu * alpha).sum(axis=1)
    penalty = (missing**2).sum() / len(alpha)
    return penalty, lambda dy: -2 * dy * mu * missing[:, None] / len(alpha)


@doubly_stochastic.mutant(
    "You took the mean over axis 1, the padding counted along. A place should be looked at once in "
    "all: add up over the words."
)
def mean_over_axis_1(alpha, *, is_word):
    mu = is_word[:, :, None] / alpha.shape[1]
    missing = 1 - (mu * alpha).sum(axis=1)
    penalty = (missing**2).sum() / len(alpha)
    return penalty, lambda dy: -2 * dy * mu * missing[:, None] / len(alpha)


@doubly_stochastic.mutant(
    "You divided by the number of words. The mean is over the captions, whatever their lengths: "
    "divide by N."
)
def divided_by_the_words(alpha, *, is_word):
    return _doubly_stochastic(alpha, is_word, count=is_word.sum())


@doubly_stochastic.mutant(
    "You took the absolute value of what is missing; it is squared, and that punishes large gaps "
    "more."
)
def absolute_value(alpha, *, is_word):
    mu = is_word[:, :, None]
    missing = 1 - (mu * alpha).sum(axis=1)
    penalty = np.abs(missing).sum() / len(alpha)
    return penalty, lambda dy: -dy * mu * np.sign(missing)[:, None] / len(alpha)


@doubly_stochastic.mutant(
    "The sum over the places came before the square: too much at one place and too little at "
    "another cancel there. Square first."
)
def summed_before_the_square(alpha, *, is_word):
    mu = is_word[:, :, None] * np.ones_like(alpha)
    missing = (1 - (mu * alpha).sum(axis=1)).sum(axis=1)
    return (missing**2).mean(), lambda dy: -2 * dy * mu * missing[:, None, None] / len(alpha)


@doubly_stochastic.mutant(
    "All captions were added up before the square, as one; each has its own places to look at."
)
def captions_as_one(alpha, *, is_word):
    mu = is_word[:, :, None]
    missing = 1 - (mu * alpha).sum(axis=(0, 1))
    return (missing**2).sum(), lambda dy: -2 * dy * mu * missing * np.ones_like(alpha)


@doubly_stochastic.mutant(
    "The rule has alpha as a factor too many: the sum over t has a slope of 1 (or 0, in the "
    "padding) by each weight."
)
def alpha_in_the_rule(alpha, *, is_word):
    penalty, rule = doubly_stochastic_reference(alpha, is_word=is_word)
    return penalty, lambda dy: alpha * rule(dy)


@doubly_stochastic.mutant(
    "The 1 is forgotten in the rule: the slope of (1 - s)**2 is -2 (1 - s), not a multiple of s."
)
def one_forgotten_backward(alpha, *, is_word):
    mu = is_word[:, :, None]
    penalty, _ = doubly_stochastic_reference(alpha, is_word=is_word)
    looked = (mu * alpha).sum(axis=1)[:, None]
    return penalty, lambda dy: 2 * dy * mu * looked / len(alpha)


@doubly_stochastic.mutant("The square is missing: too much here and too little there would cancel.")
def not_squared(alpha, *, is_word):
    mu = is_word[:, :, None]
    missing = 1 - (mu * alpha).sum(axis=1)
    return missing.sum() / len(alpha), lambda dy: -dy * mu * np.ones_like(alpha) / len(alpha)


# -- cider ----------------------------------------------------------------------------------


def _grams(text, n):
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def _df(references, n):
    return Counter(gram for reference in references for gram in set(_grams(reference, n)))


def _shared(c, r):
    return sum(min(c[gram], r[gram]) * r[gram] for gram in c if gram in r)


def _norms(c, r):
    return math.hypot(*c.values()) * math.hypot(*r.values())


def _cider(
    texts,
    references,
    n,
    *,
    grams=_grams,
    df=_df,
    rarity=lambda N, df: math.log(N / max(1, df)),
    shared=_shared,
    norms=_norms,
    brevity=lambda text, reference: math.exp(-((len(text) - len(reference)) ** 2) / 72),
    factor=10.0,
):
    frequency = df(references, n)

    def vector(text):
        return {
            gram: count * rarity(len(references), frequency[gram])
            for gram, count in grams(text, n).items()
        }

    total = 0.0
    for text, reference in zip(texts, references):
        c, r = vector(text), vector(reference)
        length = norms(c, r)
        total += brevity(text, reference) * shared(c, r) / length if length else 0.0
    return factor * total / len(texts)


def cider_reference(texts, references, n):
    return _cider(texts, references, n)


def _said(label, rng, count, n):
    words = np.array(["a", "cat", "dog", "sits", "runs", "here"])
    references = [list(map(str, rng.choice(words, size=rng.integers(4, 8)))) for _ in range(count)]
    texts = [
        [str(rng.choice(words)) if rng.random() < 0.3 else word for word in reference]
        + ["a"] * int(rng.integers(2))
        for reference in references
    ]
    return Case(label, texts, references, int(n))


def _words(*texts):
    return [text.split() for text in texts]


cider = Exercise(
    "26.cider",
    reference=cider_reference,
    cases=[
        Case("both right", _words("a cat", "a dog"), _words("a cat", "a dog"), 1),
        Case("one right, one wrong", _words("a cat", "a cat"), _words("a cat", "a dog"), 1),
        Case(
            "words twice",
            _words("a cat cat cat", "the dog sat down"),
            _words("a cat a cat", "the dog and the cat"),
            1,
        ),
        Case(
            "too short, and a word that no reference has",
            _words("a cat", "the zebra sat", "a dog sat here"),
            _words("a cat sat on a mat", "the dog sat", "a dog sat here"),
            1,
        ),
        Case(
            "pairs of words",
            _words("a 3 left of a 7", "a 1 above a 2", "a 5 above a 5"),
            _words("a 3 left of a 1", "a 1 above a 2", "a 5 left of a 5"),
            2,
        ),
        Case("too short for a pair", _words("cat", "a dog"), _words("a cat", "a dog"), 2),
    ],
    more=lambda rng: _said("any texts", rng, int(rng.integers(2, 5)), rng.integers(1, 3)),
    hints=[
        "`Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))` counts the n-grams of "
        "a text. For df, count each n-gram once for each reference: go over `set(...)` of it.",
        "A vector is a dict from n-gram to count times log(N / max(1, df)); an n-gram that no "
        "reference has gets log N.",
        "The upper part runs over the n-grams that both have; the norms over all that each has: "
        "`math.hypot(*vector.values())`.",
        "Where a norm is 0, so is s. At the end, 10 times the mean.",
    ],
)


@cider.mutant("All n-grams count alike: each is to be multiplied by log(N / df).")
def rarity_left_out(texts, references, n):
    return _cider(texts, references, n, rarity=lambda N, df: 1.0)


@cider.mutant(
    "You took an n-gram's share in its text, as CIDEr does; CIDEr-D, this one, counts it: divided "
    "by the length of each text the two numbers are no longer of one measure."
)
def shares_for_counts(texts, references, n):
    def grams(text, n):
        counts = _grams(text, n)
        return {gram: count / counts.total() for gram, count in counts.items()}

    return _cider(texts, references, n, grams=grams)


@cider.mutant("The logarithm is missing: N / df itself is the factor.")
def logarithm_left_out(texts, references, n):
    return _cider(texts, references, n, rarity=lambda N, df: N / max(1, df))


@cider.mutant(
    "df counts in how many references an n-gram stands; you counted how often it comes in all."
)
def occurrences_for_documents(texts, references, n):
    def df(references, n):
        return sum((_grams(reference, n) for reference in references), Counter())

    return _cider(texts, references, n, df=df)


@cider.mutant("df is counted in the texts; it is a matter of the references.")
def frequencies_of_the_texts(texts, references, n):
    return _cider(texts, references, n, df=lambda _, n: _df(texts, n))


@cider.mutant("1 was added to df: rare ones count too little, and common ones less than nothing.")
def one_added(texts, references, n):
    return _cider(texts, references, n, rarity=lambda N, df: math.log(N / (1 + df)))


@cider.mutant(
    "A word that is said too often wins: in the upper part the smaller of both numbers is taken, "
    "times the reference's."
)
def not_clipped(texts, references, n):
    def shared(c, r):
        return sum(c[gram] * r[gram] for gram in c if gram in r)

    return _cider(texts, references, n, shared=shared)


@cider.mutant("The smaller number was squared; it is multiplied by the reference's.")
def smaller_one_squared(texts, references, n):
    def shared(c, r):
        return sum(min(c[gram], r[gram]) ** 2 for gram in c if gram in r)

    return _cider(texts, references, n, shared=shared)


@cider.mutant("The pay for another length, exp(-(|c| - |r|)**2 / 72), is missing.")
def length_free(texts, references, n):
    return _cider(texts, references, n, brevity=lambda text, reference: 1.0)


@cider.mutant("Only short texts pay, as in BLEU; here a long one pays as well.")
def only_short_ones_pay(texts, references, n):
    def brevity(text, reference):
        return math.exp(-(max(0, len(reference) - len(text)) ** 2) / 72)

    return _cider(texts, references, n, brevity=brevity)


@cider.mutant("The division by 72 is missing: one word more or less would cost nearly all.")
def width_forgotten(texts, references, n):
    def brevity(text, reference):
        return math.exp(-((len(text) - len(reference)) ** 2))

    return _cider(texts, references, n, brevity=brevity)


@cider.mutant(
    "The exponent has the wrong sign: another length is to cost something, `exp(-d**2 / 72)`."
)
def pay_with_the_wrong_sign(texts, references, n):
    def brevity(text, reference):
        return math.exp((len(text) - len(reference)) ** 2 / 72)

    return _cider(texts, references, n, brevity=brevity)


@cider.mutant("The difference of the lengths is squared, not only taken without its sign.")
def difference_not_squared(texts, references, n):
    def brevity(text, reference):
        return math.exp(-abs(len(text) - len(reference)) / 72)

    return _cider(texts, references, n, brevity=brevity)


@cider.mutant(
    "df is counted in references and texts together; it is a matter of the references alone: else "
    "a score would depend on what the network says of other pictures."
)
def frequencies_of_both(texts, references, n):
    return _cider(texts, references, n, df=lambda _, n: _df([*references, *texts], n))


@cider.mutant(
    "N is the number of pictures, so of references; you took the number of different n-grams."
)
def grams_for_pictures(texts, references, n):
    ratio = len(_df(references, n)) / len(references)
    return _cider(texts, references, n, rarity=lambda N, df: math.log(ratio * N / max(1, df)))


@cider.mutant("N is the number of pictures, so of references; you took the number of words.")
def words_for_pictures(texts, references, n):
    ratio = sum(map(len, references)) / len(references)
    return _cider(texts, references, n, rarity=lambda N, df: math.log(ratio * N / max(1, df)))


@cider.mutant(
    "1 was added inside the logarithm: what stands in every reference would still count, by log 2."
)
def one_added_in_the_logarithm(texts, references, n):
    return _cider(texts, references, n, rarity=lambda N, df: math.log1p(N / max(1, df)))


@cider.mutant(
    "In the upper part the smaller number is multiplied by the reference's; you multiplied by the "
    "text's."
)
def times_the_text(texts, references, n):
    def shared(c, r):
        return sum(min(c[gram], r[gram]) * c[gram] for gram in c if gram in r)

    return _cider(texts, references, n, shared=shared)


@cider.mutant(
    "In the upper part the smaller numbers are added up as they are; each is multiplied by the "
    "reference's number, as in an inner product."
)
def smaller_ones_alone(texts, references, n):
    def shared(c, r):
        return sum(min(c[gram], r[gram]) for gram in c if gram in r)

    return _cider(texts, references, n, shared=shared)


@cider.mutant(
    "In the upper part the greater number was taken, and a word said too often would win: take the "
    "smaller one, times the reference's. (A fraction upside down, log(df / N), ends there as well: "
    "all numbers are negative, and the smaller one stands for the more frequent word.)"
)
def greater_for_smaller(texts, references, n):
    def shared(c, r):
        return sum(max(c[gram], r[gram]) * r[gram] for gram in c if gram in r)

    return _cider(texts, references, n, shared=shared)


@cider.mutant("The norms lack their roots: divide by the norms, not by the sums of squares.")
def norms_without_roots(texts, references, n):
    return _cider(texts, references, n, norms=lambda c, r: _norms(c, r) ** 2)


@cider.mutant(
    "n-grams of all lengths up to n are counted, as BLEU has them; here n is one length alone."
)
def all_lengths_up_to_n(texts, references, n):
    def grams(text, n):
        return sum((_grams(text, length) for length in range(1, n + 1)), Counter())

    return _cider(
        texts,
        references,
        n,
        grams=grams,
        df=lambda rs, n: Counter(gram for r in rs for gram in set(grams(r, n))),
    )


@cider.mutant(
    "At the end of a text you counted pieces that are shorter than n. A text has "
    "len(text) - n + 1 n-grams."
)
def short_pieces_counted(texts, references, n):
    def grams(text, n):
        return Counter(tuple(text[i : i + n]) for i in range(len(text)))

    return _cider(
        texts,
        references,
        n,
        grams=grams,
        df=lambda rs, n: Counter(gram for r in rs for gram in set(grams(r, n))),
    )


@cider.mutant("The norms are missing: long texts would score high.")
def norms_left_out(texts, references, n):
    return _cider(texts, references, n, norms=lambda c, r: 1.0)


@cider.mutant("The norm is the root of the sum of squares; you took the sum.")
def sums_for_norms(texts, references, n):
    return _cider(texts, references, n, norms=lambda c, r: sum(c.values()) * sum(r.values()))


@cider.mutant("The norm of a text runs over all its n-grams, not only over those that are shared.")
def norms_of_what_is_shared(texts, references, n):
    def norms(c, r):
        both = [gram for gram in c if gram in r]
        return math.hypot(*(c[g] for g in both)) * math.hypot(*(r[g] for g in both))

    return _cider(texts, references, n, norms=norms)


@cider.mutant("An n-gram that no reference has is left out; it counts log N, and makes c longer.")
def unknown_ones_left_out(texts, references, n):
    return _cider(texts, references, n, rarity=lambda N, df: math.log(N / df) if df else 0.0)


@cider.mutant("The factor 10 is missing.")
def ten_forgotten(texts, references, n):
    return _cider(texts, references, n, factor=1.0)


@cider.mutant("You counted different n-grams, each once; one counts as often as it comes.")
def sets_of_grams(texts, references, n):
    return _cider(texts, references, n, grams=lambda text, n: Counter(set(_grams(text, n))))


@cider.mutant("The last n-gram is missing: a text has len(text) - n + 1 of them.")
def last_gram_forgotten(texts, references, n):
    def grams(text, n):
        return Counter(tuple(text[i : i + n]) for i in range(len(text) - n))

    return _cider(
        texts,
        references,
        n,
        grams=grams,
        df=lambda rs, n: Counter(gram for r in rs for gram in set(grams(r, n))),
    )
