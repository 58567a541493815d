"""Losses: how far an answer is from the right one, as one number.

A loss is first computed for each element (or each sample), then reduced over all of them:
"mean", "sum", or "none" to keep them apart.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine import DTypeError, ShapeError, Tensor, array_module, primitive
from ..engine.backend import Array, on_gpu
from ..engine.dtypes import accumulator, is_floating
from ..engine.kernels import Kernel
from ..engine.tensor import as_operands
from . import lines
from .arguments import any_wrong
from .arithmetic import clamp, minimum
from .axes import check_not_enlarged
from .elementwise import Elementwise
from .similarity import pairwise_distance

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "smooth_l1_loss",
    "triplet_margin_loss",
]


@primitive(floats="first")
def cross_entropy(
    input,
    target,
    *,
    weight=None,
    ignore_index=-100,
    reduction="mean",
    label_smoothing=0.0,
):
    r"""Cross-entropy between target probabilities t and the softmax of the input.

    .. math:: \ell = -\sum_k w_k\, t_k \log p_k, \qquad p = \mathrm{softmax}(x)

    For a class index, t is 1 at that class and 0 elsewhere. Without weights the gradient of the
    input is p - t.

    Parameters
    ----------
    input : (N, K), (K,) or (N, K, ...)
        A score (logit) for each of K classes.
    target : integers (N,), () or (N, ...); or floats of the input's shape
        The right class of each sample; or the probability of every class.
    weight : (K,), optional
        Weight w of each class.
    ignore_index : int
        The class index of samples that do not count.
    reduction : "mean", "sum" or "none"
        With class indices the mean is the sum over the summed weights of the right classes; with
        probabilities it is the sum over the number of samples.
    label_smoothing : float
        The share e of the target that is spread evenly: t becomes (1 - e) t + e / K.

    Returns
    -------
    (); without reduction (N,), () or (N, ...)

    Raises
    ------
    ShapeError
        If the target or the weight do not fit the input.
    DTypeError
        If the target is boolean.
    IndexError
        If a target is not a class. On a GPU, where the host would have to wait for the answer in
        every step, that target's loss is NaN instead, and so is its gradient.
    ValueError
        If an option is out of its range.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"cross_entropy: label_smoothing is a share, from 0 to 1, not {label_smoothing}"
        )
    xp, axis = array_module(input), _class_axis("cross_entropy", input)
    K, weight = input.shape[axis], _class_weights("cross_entropy", weight, input)
    target = xp.asarray(target)
    if is_floating(target.dtype) and target.shape == input.shape:
        t, counted, count = target, True, input.size // K
    elif on_gpu(input):
        _check_classes("cross_entropy", target, input)
        options = ignore_index, float(label_smoothing)
        return _cross_entropy_of_classes(input, target, weight, reduction, options)
    else:
        t, counted = _one_hot("cross_entropy", target, input, ignore_index)
        count = _total(_weighted(t, weight))
    if label_smoothing:
        t = ((1 - label_smoothing) * t + label_smoothing / K) * counted
    wt = _weighted(t, weight)
    shifted = input - input.max(axis=axis, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))
    losses = -(wt * xp.where(wt == 0, 0, log_p)).sum(axis=axis)  # 0 log 0 = 0
    loss, spread = _reduced(losses, reduction, count)

    def vjp_input(dloss):
        dlosses = xp.expand_dims(spread(dloss), axis)
        return dlosses * (xp.exp(log_p) * wt.sum(axis=axis, keepdims=True) - wt)

    def vjp_target(dloss):
        dlosses = xp.expand_dims(spread(dloss), axis)
        return -(1 - label_smoothing) * dlosses * _weighted(log_p, weight)

    return loss, (vjp_input, vjp_target)


_CROSS_ENTROPY = Kernel(
    "cross_entropy",
    lines.SOURCE
    + lines.EXPONENTIALS
    + r"""
// Of each line of scores x its loss; the weight of its right class; the sum of its weighted
// targets; and its level, log(sum of exp(x)): log p = x - level.
extern "C" __global__ void __launch_bounds__(BLOCK)
cross_entropy(const T* x, const long long* classes, const acc_t* weight, acc_t* losses,
              acc_t* weights, acc_t* sums, acc_t* levels, long long lines, long long length,
              long long inner, long long ignored, double smoothing) {
    if (LINE >= lines) return;
    x += first_of_line(length, inner);
    const Exponentials e = exponentials(x, length, inner);
    const acc_t level = e.most + log(e.sum), smooth = smoothing, zero = 0;
    const long long right = classes[LINE];
    acc_t loss = 0, sum = 0, w = 0;
    if (right != ignored) {
        const bool exists = 0 <= right && right < length;
        w = exists ? weight[right] : zero / zero;  // NaN
        sum = (1 - smooth) * w;
        loss = w == 0 || !exists ? sum : sum * (level - acc_t(x[right * inner]));  // 0 log 0 = 0
        if (smooth > 0) {
            acc_t all = 0, along = 0;
            FOR_EACH_OF_LINE(k, length) {
                all += weight[k];
                if (weight[k] != 0) along += weight[k] * (level - acc_t(x[k * inner]));
            }
            sum += smooth / length * line_sum(all);
            loss += smooth / length * line_sum(along);
        }
    }
    if (threadIdx.x == 0) {
        losses[LINE] = loss;
        weights[LINE] = w;
        sums[LINE] = sum;
        levels[LINE] = level;
    }
}
""",
    lines.VARIANTS,
)

_CROSS_ENTROPY_BACKWARD = Kernel(
    "cross_entropy_backward",
    lines.SOURCE
    + r"""
extern "C" __global__ void __launch_bounds__(BLOCK)
cross_entropy_backward(const T* x, const long long* classes, const acc_t* weight,
                       const acc_t* dlosses, const acc_t* sums, const acc_t* levels, T* dx,
                       long long lines, long long length, long long inner, long long ignored,
                       double smoothing) {
    if (LINE >= lines) return;
    const long long first = first_of_line(length, inner), right = classes[LINE];
    const acc_t dloss = dlosses[LINE], sum = sums[LINE], level = levels[LINE], smooth = smoothing;
    FOR_EACH_OF_LINE(k, length) {
        const long long at = first + k * inner;
        const acc_t t = smooth / length + (k == right ? 1 - smooth : 0);
        const acc_t slope = exp(acc_t(x[at]) - level) * sum - weight[k] * t;
        dx[at] = T(right == ignored ? 0 : dloss * slope);
    }
}
""",
    lines.VARIANTS,
)


def _cross_entropy_of_classes(
    x: Array, classes: Array, weight: Array | None, reduction: str, options: tuple[int, float]
) -> tuple[Array, tuple[Callable, None]]:
    """The loss of class indices on a GPU, one kernel each way: no array of probabilities."""
    xp, dtype, along = array_module(x), x.dtype, lines.Lines.along(_class_axis("", x), x.shape)
    settings, sizes = {"T": dtype, "WIDTH": along.width}, (*along.sizes, *options)
    working, shape = accumulator(dtype), classes.shape
    x, classes = xp.ascontiguousarray(x), xp.ascontiguousarray(classes, dtype=np.int64)
    weight = xp.ones(along.length, working) if weight is None else weight.astype(working)
    losses, weights, sums, levels = xp.empty((4, along.count), working)
    arrays = (x, classes, weight, losses, weights, sums, levels)
    _CROSS_ENTROPY(*along.launch, *arrays, *sizes, **settings)
    loss, spread = _reduced(losses.reshape(shape), reduction, count=_total(weights))

    def vjp_input(dloss):
        dx, dlosses = xp.empty(x.shape, dtype), xp.ascontiguousarray(spread(dloss), dtype=working)
        arrays = (x, classes, weight, dlosses, sums, levels, dx)
        _CROSS_ENTROPY_BACKWARD(*along.launch, *arrays, *sizes, **settings)
        return dx

    return loss.astype(dtype, copy=False), (vjp_input, None)


@primitive(floats="first")
def nll_loss(input, target, *, weight=None, ignore_index=-100, reduction="mean"):
    r"""Negative log-likelihood of the right classes: minus the input at each of them.

    .. math:: \ell = -w_t\, x_t

    `cross_entropy` is this loss of `log_softmax`.

    Parameters
    ----------
    input : (N, K), (K,) or (N, K, ...)
        Log-probability of each of K classes.
    target : integers (N,), () or (N, ...)
        The right class of each sample.
    weight : (K,), optional
        Weight w of each class.
    ignore_index : int
        The class index of samples that do not count.
    reduction : "mean", "sum" or "none"
        The mean is the sum over the summed weights of the right classes.

    Returns
    -------
    (); without reduction (N,), () or (N, ...)

    Raises
    ------
    ShapeError, DTypeError, IndexError, ValueError
        As `cross_entropy`.
    """
    xp, axis = array_module(input), _class_axis("nll_loss", input)
    weight = _class_weights("nll_loss", weight, input)
    t, _ = _one_hot("nll_loss", xp.asarray(target), input, ignore_index)
    wt = _weighted(t, weight)
    losses = -(wt * xp.where(wt == 0, 0, input)).sum(axis=axis)
    loss, spread = _reduced(losses, reduction, count=_total(wt))

    def vjp_input(dloss):
        return -xp.expand_dims(spread(dloss), axis) * wt

    return loss, (vjp_input, None)


@primitive(floats="all")
def mse_loss(input, target, *, reduction="mean"):
    r"""Squared error (x - t)^2.

    Parameters
    ----------
    input, target : (*)
        Of one shape; other shapes are broadcast, with a warning.
    reduction : "mean", "sum" or "none"

    Returns
    -------
    (); without reduction (*)
    """
    error = input - target
    _warn_of_broadcasting("mse_loss", input, target)
    loss, spread = _reduced(error * error, reduction)

    def vjp_input(dloss):
        return spread(2 * dloss) * error

    def vjp_target(dloss):
        return spread(-2 * dloss) * error

    return loss, (vjp_input, vjp_target)


@primitive(floats="all")
def l1_loss(input, target, *, reduction="mean"):
    r"""Absolute error abs(x - t); where it is 0 the gradient is 0.

    Parameters
    ----------
    input, target : (*)
        Of one shape; other shapes are broadcast, with a warning.
    reduction : "mean", "sum" or "none"

    Returns
    -------
    (); without reduction (*)
    """
    xp = array_module(input)
    error = input - target
    _warn_of_broadcasting("l1_loss", input, target)
    slope = xp.sign(error)
    loss, spread = _reduced(xp.abs(error), reduction)

    def vjp_input(dloss):
        return spread(dloss) * slope

    def vjp_target(dloss):
        return spread(dloss) * -slope

    return loss, (vjp_input, vjp_target)


@primitive(floats="all")
def smooth_l1_loss(input, target, *, reduction="mean", beta=1.0):
    r"""Absolute error, squared near zero: a loss that no outlier dominates.

    .. math:: \ell = \begin{cases} e^2 / (2 \beta) & |e| < \beta \\ |e| - \beta / 2 &
              \text{otherwise} \end{cases}, \qquad e = x - t

    Parameters
    ----------
    input, target : (*)
        Of one shape; other shapes are broadcast, with a warning.
    reduction : "mean", "sum" or "none"
    beta : float
        Where the two pieces meet; 0 is the absolute error.

    Returns
    -------
    (); without reduction (*)

    Raises
    ------
    ValueError
        If beta is negative.

    References
    ----------
    Girshick, "Fast R-CNN" (2015), equation 3.
    """
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, it is {beta}")
    xp = array_module(input)
    error = input - target
    _warn_of_broadcasting("smooth_l1_loss", input, target)
    slope = xp.clip(error / beta, -1, 1) if beta else xp.sign(error)
    losses = slope * (error - beta / 2 * slope)  # both pieces: slope is error / beta, or a sign
    loss, spread = _reduced(losses, reduction)

    def vjp_input(dloss):
        return spread(dloss) * slope

    def vjp_target(dloss):
        return spread(dloss) * -slope

    return loss, (vjp_input, vjp_target)


_YES_OR_NO = Elementwise("yes_or_no", "(1 - t) * x + softplus(-x)", ["x", "t"])
_YES_OR_NO_SLOPE = Elementwise("yes_or_no_slope", "dloss * (logistic(x) - t)", ["x", "t", "dloss"])


@primitive(floats="all")
def binary_cross_entropy_with_logits(
    input, target, *, weight=None, reduction="mean", pos_weight=None
):
    r"""Cross-entropy of yes-or-no answers, without overflow.

    .. math:: \ell = -w \left(\pi\, t \log p + (1 - t) \log (1 - p)\right), \qquad p = \sigma(x)

    Parameters
    ----------
    input : (*)
        Scores (logits).
    target : (*)
        Probabilities of yes, most often 0 or 1.
    weight : broadcastable to (*), optional
        Weight w of each element.
    reduction : "mean", "sum" or "none"
    pos_weight : broadcastable to (*), optional
        Weight pi of yes against no.

    Returns
    -------
    (); without reduction (*)

    Raises
    ------
    ShapeError
        If input and target have different shapes.
    """
    if np.shape(input) != np.shape(target):
        raise ShapeError(
            f"binary_cross_entropy_with_logits: the target {np.shape(target)} must have the "
            f"shape of the input {np.shape(input)}"
        )
    if on_gpu(input) and weight is None and pos_weight is None:
        return _yes_or_no_on_gpu(input, target, reduction)
    xp, x, t = array_module(input), input, target
    w = 1 if weight is None else xp.asarray(weight, dtype=x.dtype)
    extra = 0 if pos_weight is None else xp.asarray(pos_weight, dtype=x.dtype) - 1
    minus_log_p = xp.log1p(xp.exp(-xp.abs(x))) + xp.maximum(-x, 0)
    yes = 1 + extra * t
    # log(1 - p) = log p - x: one stable logarithm serves both answers.
    losses = w * ((1 - t) * x + yes * minus_log_p)
    check_not_enlarged("binary_cross_entropy_with_logits", losses, x, weight=w, pos_weight=extra)
    loss, spread = _reduced(losses, reduction)

    def vjp_input(dloss):
        one_minus_p = xp.exp(-x - minus_log_p)
        return spread(dloss) * w * (1 - t - yes * one_minus_p)

    def vjp_target(dloss):
        return spread(dloss) * w * (extra * minus_log_p - x)

    return loss, (vjp_input, vjp_target)


def _yes_or_no_on_gpu(x: Array, t: Array, reduction: str) -> tuple[Array, tuple[Callable, ...]]:
    """The same without weights, one kernel each way."""
    x = x.astype(np.result_type(x, t), copy=False)
    loss, spread = _reduced(_YES_OR_NO(x, t), reduction)

    def vjp_input(dloss):
        return _YES_OR_NO_SLOPE(x, t, spread(dloss))

    def vjp_target(dloss):
        return spread(dloss) * -x

    return loss, (vjp_input, vjp_target)


def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    r"""How much nearer than a margin an anchor is to its negative than to its positive.

    .. math:: \ell = \max(d(a, b) - d(a, c) + m,\ 0), \qquad
              d(x, y) = \lVert x - y + \epsilon \rVert_p

    with anchor a, positive b, negative c and margin m. A triplet whose negative is further away by
    the margin or more costs nothing and has no gradient.

    Parameters
    ----------
    anchor, positive, negative : (N, D) or (D,)
        Vectors; the positive is of the anchor's kind, the negative is not.
    margin : float
        m, greater than 0.
    p : float
        Of the norm.
    eps : float
        Added to every difference, see `pairwise_distance`.
    swap : bool
        Whether the negative's distance is that from the anchor or from the positive, whichever is
        smaller.
    reduction : "mean", "sum" or "none"

    Returns
    -------
    (); without reduction (N,) or ()

    Raises
    ------
    ShapeError
        If the three do not have as many axes each, or do not broadcast.
    ValueError
        If the margin or p is not positive.

    References
    ----------
    Schroff, Kalenichenko and Philbin, "FaceNet" (CVPR 2015), equation 2, with squared distances.
    `swap`: Balntas, Riba, Ponsa and Mikolajczyk, "Learning Local Feature Descriptors with Triplets
    and Shallow Convolutional Neural Networks" (BMVC 2016).
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(
            f"triplet_margin_loss: reduction must be 'mean', 'sum' or 'none', not {reduction!r}"
        )
    if not margin > 0:
        raise ValueError(f"triplet_margin_loss: margin must be greater than 0, not {margin}")
    a, b, c = as_operands(anchor, positive, negative)
    if not a.ndim == b.ndim == c.ndim:
        raise ShapeError(
            "triplet_margin_loss: anchor, positive and negative must have as many axes each, got "
            f"shapes {a.shape}, {b.shape} and {c.shape}"
        )
    near, far = pairwise_distance(a, b, p=p, eps=eps), pairwise_distance(a, c, p=p, eps=eps)
    if swap:
        far = minimum(far, pairwise_distance(b, c, p=p, eps=eps))
    losses = clamp(near - far + margin, min=0)
    return losses if reduction == "none" else getattr(losses, reduction)()


def _total(weights: Array) -> Any:
    """The sum of weights: a number, or on a GPU an array that the host does not wait for."""
    total = weights.sum()
    return total if on_gpu(total) else total.item()


def _reduced(
    losses: Array, reduction: str, count: Any = None
) -> tuple[Array, Callable[[Array], Array]]:
    """The reduced loss, and how its gradient spreads over the losses it was made of."""
    if reduction == "none":
        return losses, lambda dloss: dloss
    if reduction == "sum":
        share = 1.0
    elif reduction == "mean":
        count = losses.size if count is None else count
        if on_gpu(count):
            return _mean_on_gpu(losses, count)
        share = 1 / count if count else 0.0
    else:
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    shape, broadcast_to = losses.shape, array_module(losses).broadcast_to
    total = losses.sum() * (share or math.nan)  # the mean of nothing is NaN, its gradient 0
    return total, lambda dloss: broadcast_to(dloss * share, shape)


def _mean_on_gpu(losses: Array, count: Array) -> tuple[Array, Callable[[Array], Array]]:
    """`_reduced` by a count that the host does not know."""
    xp, shape = array_module(losses), losses.shape
    share, nothing = 1 / count, count == 0
    total = losses.sum() * xp.where(nothing, math.nan, share)
    share = xp.where(nothing, 0, share)
    return total, lambda dloss: xp.broadcast_to(dloss * share, shape)


def _class_axis(op: str, x: Array) -> int:
    if x.ndim < 1:
        raise ShapeError(f"{op}: the input needs an axis of classes, its shape is {x.shape}")
    return 0 if x.ndim == 1 else 1


def _weighted(per_class: Array, weight: Array | None) -> Array:
    """Values of each class (N, K, ...) times the weights of the classes (K,)."""
    if weight is None:
        return per_class
    return per_class * weight.reshape(-1, *(1,) * (per_class.ndim - 2))


def _class_weights(op: str, weight: Array | None, x: Array) -> Array | None:
    K = x.shape[_class_axis(op, x)]
    if weight is not None and np.shape(weight) != (K,):
        raise ShapeError(
            f"{op}: the weight needs one number for each of {K} classes, shape ({K},), "
            f"not {np.shape(weight)}"
        )
    return None if weight is None else array_module(x).asarray(weight, dtype=x.dtype)


def _check_classes(op: str, classes: Array, x: Array) -> None:
    """Raise if these cannot be class indices of the samples of x, whatever their values."""
    axis = _class_axis(op, x)
    samples = x.shape[:axis] + x.shape[axis + 1 :]
    if classes.dtype.kind == "b" or (is_floating(classes.dtype) and classes.shape == samples):
        raise DTypeError(
            f"{op}: the target is {classes.dtype}: class indices are integers, convert them "
            "with .long()"
        )
    if classes.shape != samples or is_floating(classes.dtype):
        probabilities = f", or probabilities of shape {x.shape}" if op == "cross_entropy" else ""
        raise ShapeError(
            f"{op}: for an input of shape {x.shape} the target needs integers of shape {samples}"
            f"{probabilities}, not {classes.dtype} of shape {classes.shape}"
        )


def _one_hot(op: str, classes: Array, x: Array, ignore_index: int) -> tuple[Array, Array]:
    """1 at the right class of each sample (N, K, ...), and which samples count (N, 1, ...).

    On a GPU a class that does not exist gives NaN for all classes of its sample.
    """
    _check_classes(op, classes, x)
    xp, axis = array_module(x), _class_axis(op, x)
    K = x.shape[axis]
    counted = classes != ignore_index
    wrong = counted & ((classes < 0) | (classes >= K))
    if any_wrong(wrong):
        raise IndexError(
            f"{op}: target {classes[wrong][0]} is not one of the {K} classes, 0 to {K - 1} "
            f"(and not ignore_index={ignore_index})"
        )
    every_class = xp.arange(K).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    classes, counted = xp.expand_dims(classes, axis), xp.expand_dims(counted, axis)
    t = ((every_class == classes) & counted).astype(x.dtype)
    if on_gpu(x):
        t = xp.where(xp.expand_dims(wrong, axis), math.nan, t)
    return t, counted


def _warn_of_broadcasting(op: str, x: Array, t: Array) -> None:
    if np.shape(x) != np.shape(t):
        warnings.warn(
            f"{op}: the input {np.shape(x)} and the target {np.shape(t)} have different shapes "
            "and are broadcast against each other, which is seldom meant: reshape one of them",
            stacklevel=4,
        )
