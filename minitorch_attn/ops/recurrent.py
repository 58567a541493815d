r"""Recurrence: a step that is taken once for every element of a sequence, and its way back in time.

At time t a step sees a, the input's share :math:`W_{ih} x_t + b_{ih}` of what goes into it, and
u, the share :math:`W_{hh} h + b_{hh}` of the state h that the step before has left. `recurrence`
takes all steps of a sequence as one operation: a graph of all the small operations inside would
cost several times as much as their arithmetic.

A step is written like a primitive: it returns its new state, and the rule that carries a gradient
of that state back. Back-propagation through time calls the rules of all steps, the last one first.
"""

from __future__ import annotations

import numpy as np

from ..engine import ShapeError, array_module, primitive
from ..engine.backend import on_gpu
from ..engine.kernels import FLOATS, Kernel
from .elementwise import FUNCTIONS, Elementwise
from .shared_rules import shared_rules

# -- one step ------------------------------------------------------------------------------------
#
# step(a, u, *state) -> the new state, as a tuple, and a rule: gradients of the new state -> those
# of a, of u, and of the state apart from what goes through u. 0 stands for no gradient. On a GPU
# each is one kernel.

_RNN_TANH = Elementwise("rnn_tanh", "tanh(a + u)", ["a", "u"])
_RNN_TANH_BACKWARD = Elementwise("rnn_tanh_backward", "dh * (1 - h * h)", ["dh", "h"])


def rnn_tanh(a, u, h):
    """Plain recurrence, h' = tanh(a + u). (N, D), (N, D), (N, D) -> (N, D)."""
    h = _RNN_TANH(a, u) if on_gpu(a) else np.tanh(a + u)

    def rule(dh):
        da = _RNN_TANH_BACKWARD(dh, h) if on_gpu(h) else dh * (1 - h * h)
        return da, da, (0,)

    return (h,), rule


def rnn_relu(a, u, h):
    """Plain recurrence, h' = max(a + u, 0). (N, D), (N, D), (N, D) -> (N, D)."""
    h = np.maximum(a + u, 0)

    def rule(dh):
        da = dh * (h > 0)
        return da, da, (0,)

    return (h,), rule


def lstm(a, u, h, c):
    """Memory c' = f c + i g, of which it shows h' = o tanh(c').

    (N, 4 D), (N, 4 D), (N, D), (N, D) -> (N, D), (N, D). The parts of a + u are those of i, f, g,
    o in this order: i, f and o are their sigmoid, g is its tanh.
    """
    if on_gpu(a):
        return _lstm_on_gpu(a, u, c)
    D = h.shape[1]
    x = a + u
    i, f, g, o = (x[:, k * D : (k + 1) * D] for k in range(4))
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    kept = f * c + i * g
    shown = np.tanh(kept)

    def rule(dh, dc):
        dc = dc + dh * o * (1 - shown * shown)
        da = np.concatenate(
            [
                dc * g * i * (1 - i),
                dc * c * f * (1 - f),
                dc * i * (1 - g * g),
                dh * shown * o * (1 - o),
            ],
            axis=1,
        )
        return da, da, (0, dc * f)

    return (o * shown, kept), rule


def gru(a, u, h):
    """Gated recurrence h' = (1 - z) n + z h. (N, 3 D), (N, 3 D), (N, D) -> (N, D).

    The parts of a and u are those of r, z, n in this order: r and z are the sigmoid of a + u, and
    n = tanh(a + r u).
    """
    if on_gpu(a):
        return _gru_on_gpu(a, u, h)
    D = h.shape[1]
    a_r, a_z, a_n = (a[:, k * D : (k + 1) * D] for k in range(3))
    u_r, u_z, u_n = (u[:, k * D : (k + 1) * D] for k in range(3))
    r, z = _sigmoid(a_r + u_r), _sigmoid(a_z + u_z)
    n = np.tanh(a_n + r * u_n)

    def rule(dh):
        dn = dh * (1 - z) * (1 - n * n)
        dz = dh * (h - n) * z * (1 - z)
        dr = dn * u_n * r * (1 - r)
        da = np.concatenate([dr, dz, dn], axis=1)
        du = np.concatenate([dr, dz, dn * r], axis=1)
        return da, du, (dh * z,)

    return (n + z * (h - n),), rule


def _sigmoid(x):
    with np.errstate(over="ignore"):  # an infinite exp(-x) rightly gives 1 / inf = 0
        return 1 / (1 + np.exp(-x))


# -- one step on a GPU: a thread computes one number of the state --------------------------------
#
# A row of a, of u and of the gates holds the parts side by side, D numbers each.

_VARIANTS = [{"T": t} for t in FLOATS]

_LSTM = Kernel(
    "lstm_step",
    FUNCTIONS
    + r"""
extern "C" __global__ void lstm_step(const T* a, const T* u, const T* c, T* gates, T* new_h,
                                     T* new_c, long long n, long long D) {
    FOR_EACH(at, n) {
        const long long part = at / D * 4 * D + at % D;
        const acc_t i = logistic(acc_t(a[part]) + acc_t(u[part]));
        const acc_t f = logistic(acc_t(a[part + D]) + acc_t(u[part + D]));
        const acc_t g = tanh(acc_t(a[part + 2 * D]) + acc_t(u[part + 2 * D]));
        const acc_t o = logistic(acc_t(a[part + 3 * D]) + acc_t(u[part + 3 * D]));
        const acc_t kept = f * acc_t(c[at]) + i * g;
        gates[part] = T(i);
        gates[part + D] = T(f);
        gates[part + 2 * D] = T(g);
        gates[part + 3 * D] = T(o);
        new_c[at] = T(kept);
        new_h[at] = T(o * tanh(kept));
    }
}
""",
    _VARIANTS,
)

_LSTM_BACKWARD = Kernel(
    "lstm_step_backward",
    r"""
extern "C" __global__ void lstm_step_backward(const T* gates, const T* c, const T* new_c,
                                              const T* dh_of, const T* dc_of, T* da, T* old_dc,
                                              long long n, long long D) {
    FOR_EACH(at, n) {
        const long long part = at / D * 4 * D + at % D;
        const acc_t i = gates[part], f = gates[part + D];
        const acc_t g = gates[part + 2 * D], o = gates[part + 3 * D];
        const acc_t shown = tanh(acc_t(new_c[at])), dh = dh_of[at];
        const acc_t dc = acc_t(dc_of[at]) + dh * o * (1 - shown * shown);
        da[part] = T(dc * g * i * (1 - i));
        da[part + D] = T(dc * acc_t(c[at]) * f * (1 - f));
        da[part + 2 * D] = T(dc * i * (1 - g * g));
        da[part + 3 * D] = T(dh * shown * o * (1 - o));
        old_dc[at] = T(dc * f);
    }
}
""",
    _VARIANTS,
)


def _lstm_on_gpu(a, u, c):
    xp, D = array_module(a), c.shape[1]
    gates, new_h, new_c = xp.empty(a.shape, a.dtype), xp.empty_like(c), xp.empty_like(c)
    _LSTM.over(c.size, a, u, c, gates, new_h, new_c, c.size, D, T=a.dtype)

    def rule(dh, dc):
        da, old_dc = xp.empty_like(gates), xp.empty_like(c)
        arrays = gates, c, new_c, xp.ascontiguousarray(dh), xp.ascontiguousarray(dc), da, old_dc
        _LSTM_BACKWARD.over(c.size, *arrays, c.size, D, T=c.dtype)
        return da, da, (0, old_dc)

    return (new_h, new_c), rule


_GRU = Kernel(
    "gru_step",
    FUNCTIONS
    + r"""
extern "C" __global__ void gru_step(const T* a, const T* u, const T* h, T* gates, T* new_h,
                                    long long count, long long D) {
    FOR_EACH(at, count) {
        const long long part = at / D * 3 * D + at % D;
        const acc_t r = logistic(acc_t(a[part]) + acc_t(u[part]));
        const acc_t z = logistic(acc_t(a[part + D]) + acc_t(u[part + D]));
        const acc_t n = tanh(acc_t(a[part + 2 * D]) + r * acc_t(u[part + 2 * D]));
        gates[part] = T(r);
        gates[part + D] = T(z);
        gates[part + 2 * D] = T(n);
        new_h[at] = T(n + z * (acc_t(h[at]) - n));
    }
}
""",
    _VARIANTS,
)

_GRU_BACKWARD = Kernel(
    "gru_step_backward",
    r"""
extern "C" __global__ void gru_step_backward(const T* gates, const T* u, const T* h,
                                             const T* dh_of, T* da, T* du, T* old_dh,
                                             long long count, long long D) {
    FOR_EACH(at, count) {
        const long long part = at / D * 3 * D + at % D;
        const acc_t r = gates[part], z = gates[part + D], n = gates[part + 2 * D], dh = dh_of[at];
        const acc_t dn = dh * (1 - z) * (1 - n * n);
        const acc_t dz = dh * (acc_t(h[at]) - n) * z * (1 - z);
        const acc_t dr = dn * acc_t(u[part + 2 * D]) * r * (1 - r);
        da[part] = du[part] = T(dr);
        da[part + D] = du[part + D] = T(dz);
        da[part + 2 * D] = T(dn);
        du[part + 2 * D] = T(dn * r);
        old_dh[at] = T(dh * z);
    }
}
""",
    _VARIANTS,
)


def _gru_on_gpu(a, u, h):
    xp, D = array_module(a), h.shape[1]
    gates, new_h = xp.empty(a.shape, a.dtype), xp.empty_like(h)
    _GRU.over(h.size, a, u, h, gates, new_h, h.size, D, T=a.dtype)

    def rule(dh):
        da, du, old_dh = xp.empty_like(gates), xp.empty_like(gates), xp.empty_like(h)
        arrays = gates, u, h, xp.ascontiguousarray(dh), da, du, old_dh
        _GRU_BACKWARD.over(h.size, *arrays, h.size, D, T=h.dtype)
        return da, du, (old_dh,)

    return (new_h,), rule


# -- all steps -----------------------------------------------------------------------------------


@primitive(floats="all")
def recurrence(a, weight, bias, *state, step, batch_sizes, reverse=False):
    """Take a step for every element of N sequences, the longest first.

    Sequences of several lengths are packed: first come the first elements of all of them, then
    the second elements of those that have one, and so on. A sequence that is over (or, in
    reverse, has not begun) keeps its state meanwhile.

    Parameters
    ----------
    a : (B, G D)
        The input's share of each of B elements in all, packed.
    weight : (G D, D)
    bias : (G D,) or None
        Of the state's share u = h weight^T + bias.
    *state : (N, D), one for `rnn_tanh`, `rnn_relu` and `gru`: h; two for `lstm`: h and c
        Before the first step.
    step : callable
        One of those four.
    batch_sizes : tuple of int
        How many sequences have a first element, a second one, ...: falling, from N.
    reverse : bool
        Whether to begin at the last elements.

    Returns
    -------
    (B + S N, D)
        The state h after each element, packed; then the S last states of the N sequences.

    Raises
    ------
    ShapeError
        If the sizes do not fit.
    """
    _check(a, weight, bias, state, batch_sizes)
    xp, (N, D), B = array_module(a), state[0].shape, len(a)
    now = list(state)
    ends = np.cumsum(batch_sizes).tolist()
    steps = [(n, slice(end - n, end)) for n, end in zip(batch_sizes, ends)]  # who, and which rows
    if reverse:
        steps.reverse()
    y = xp.empty((B + len(state) * N, D), a.dtype)
    before, rules = xp.empty((B, D), a.dtype), []  # h before each element
    for n, rows in steps:
        old = [s[:n] for s in now]
        before[rows] = old[0]
        u = old[0] @ weight.T
        if bias is not None:
            u += bias
        new, rule = step(a[rows], u, *old)
        y[rows] = new[0]
        rules.append(rule)
        now = [s if n == N else xp.concatenate([s, over[n:]]) for s, over in zip(new, now)]
    y[B:] = xp.concatenate(now)

    def through_time(dy):
        da, du = xp.empty((B, len(weight)), dy.dtype), xp.empty((B, len(weight)), dy.dtype)
        dstate = dy[B:].reshape(len(state), N, D).copy()
        for (n, rows), rule in zip(reversed(steps), reversed(rules)):
            dstate[0, :n] += dy[rows]
            da[rows], du[rows], direct = rule(*dstate[:, :n])
            for ds, direct_share in zip(dstate, direct):
                ds[:n] = direct_share
            dstate[0, :n] += du[rows] @ weight
        return da, du.T @ before, du.sum(axis=0), *dstate

    return y, shared_rules(through_time, 3 + len(state))


def _check(a, weight, bias, state, batch_sizes):
    shapes = [s.shape for s in state]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ShapeError(
            f"recurrence: h, and c, need one shape (N, D), not {', '.join(map(str, shapes))}"
        )
    N, D = shapes[0]
    if weight.ndim != 2 or weight.shape[1] != D:
        raise ShapeError(
            f"recurrence: a state of {D} features needs a weight of shape (G * {D}, {D}), not "
            f"{weight.shape}"
        )
    falling = all(n >= m >= 0 for n, m in zip(batch_sizes, batch_sizes[1:]))
    if not falling or batch_sizes[:1] != (N,):
        raise ShapeError(
            f"recurrence: batch_sizes must fall from N = {N}, the sequences that the state "
            f"{shapes[0]} is of, which {batch_sizes} does not"
        )
    if a.shape != (sum(batch_sizes), len(weight)):
        raise ShapeError(
            f"recurrence: {sum(batch_sizes)} elements and a weight of {len(weight)} rows need an "
            f"input share of shape {(sum(batch_sizes), len(weight))}, not {a.shape}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"recurrence: the bias needs shape {weight.shape[:1]}, one number for each row of the "
            f"weight, not {bias.shape}"
        )
