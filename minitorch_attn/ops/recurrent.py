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
from .shared_rules import shared_rules

# -- one step ------------------------------------------------------------------------------------
#
# step(a, u, *state) -> the new state, as a tuple, and a rule: gradients of the new state -> those
# of a, of u, and of the state apart from what goes through u. 0 stands for no gradient.


def rnn_tanh(a, u, h):
    """Plain recurrence, h' = tanh(a + u). (N, D), (N, D), (N, D) -> (N, D)."""
    h = np.tanh(a + u)

    def rule(dh):
        da = dh * (1 - h * h)
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
    xp, D = array_module(a), h.shape[1]
    x = a + u
    i, f, g, o = (x[:, k * D : (k + 1) * D] for k in range(4))
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    kept = f * c + i * g
    shown = np.tanh(kept)

    def rule(dh, dc):
        dc = dc + dh * o * (1 - shown * shown)
        da = xp.concatenate(
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
    xp, D = array_module(a), h.shape[1]
    a_r, a_z, a_n = (a[:, k * D : (k + 1) * D] for k in range(3))
    u_r, u_z, u_n = (u[:, k * D : (k + 1) * D] for k in range(3))
    r, z = _sigmoid(a_r + u_r), _sigmoid(a_z + u_z)
    n = np.tanh(a_n + r * u_n)

    def rule(dh):
        dn = dh * (1 - z) * (1 - n * n)
        dz = dh * (h - n) * z * (1 - z)
        dr = dn * u_n * r * (1 - r)
        da = xp.concatenate([dr, dz, dn], axis=1)
        du = xp.concatenate([dr, dz, dn * r], axis=1)
        return da, du, (dh * z,)

    return (n + z * (h - n),), rule


def _sigmoid(x):
    with np.errstate(over="ignore"):  # an infinite exp(-x) rightly gives 1 / inf = 0
        return 1 / (1 + np.exp(-x))


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
