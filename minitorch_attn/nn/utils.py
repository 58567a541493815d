"""Gradient clipping: a bound on how far one step can go."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..engine import AnomalyError, Tensor, array_module, tensor
from ..engine.backend import on_gpu
from ..engine.dtypes import accumulator
from ..engine.kernels import FLOATS, Kernel
from ..engine.many_arrays import PARTS, blocks_of, by_dtype, launch_over, writable


def clip_grad_norm_(
    parameters: Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    r"""Scale all gradients together so that their common norm is at most `max_norm`.

    .. math:: g \leftarrow g \cdot \min\left(1, \frac{max\_norm}{\|g\| + 10^{-6}}\right)

    On a GPU nothing waits for the norm, unless `error_if_nonfinite` is set.

    Parameters
    ----------
    parameters : iterable of Tensor
        What has no gradient is left out.
    max_norm : float
    norm_type : float
        Which norm: 2, 1, ..., or infinity.
    error_if_nonfinite : bool
        Whether to stop where the norm is infinite or not a number.

    Returns
    -------
    Tensor ()
        The norm of all gradients as they came.

    Raises
    ------
    AnomalyError
        If the norm is not finite and `error_if_nonfinite` is set.
    """
    gradients = _gradients(parameters)
    if gradients and on_gpu(gradients[0][1].data):
        return _clip_on_gpu(gradients, max_norm, norm_type, error_if_nonfinite)
    norms = [_norm(g.data.ravel(), norm_type) for _, g in gradients]
    total = _norm(np.array(norms), norm_type)
    if error_if_nonfinite:
        _check_finite(total)
    scale = max_norm / (total + 1e-6)
    if not scale >= 1:  # NaN too: it spreads to all gradients, where it will be noticed
        for p, g in gradients:
            p.grad = g * scale
    return tensor(total)


def clip_grad_value_(parameters: Iterable[Tensor], clip_value: float) -> None:
    """Cut every element of every gradient off at -clip_value and clip_value."""
    for p, g in _gradients(parameters):
        p.grad = g.clip(-clip_value, clip_value)


def _check_finite(norm: float) -> None:
    if not math.isfinite(norm):
        raise AnomalyError(f"the norm of the gradients is {norm}: they cannot be clipped")


def _gradients(parameters: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [(p, p.grad) for p in parameters if p.grad is not None]


def _norm(values: np.ndarray, norm_type: float) -> float:
    if values.size == 0:
        return 0.0
    wide = values.astype(np.promote_types(values.dtype, np.float32), copy=False)
    return float(np.linalg.norm(wide, norm_type))


# -- on a GPU: two launches for all gradients of a dtype -------------------------------------------

POWERS = Kernel(
    "powers",
    PARTS
    + r"""
// Of each block the sum of abs(x)^order, or the largest abs(x) for an infinite order. What is not
// a number is not larger than anything, so a maximum must be told of it.
extern "C" __global__ void powers(const long long* table, long long arrays, double order,
                                  acc_t* results) {
    __shared__ acc_t scratch[32];
    Part part = part_of_block(table, arrays);
    const T* x = array_of<const T>(table, arrays, part, 0);
    acc_t result = 0, none = 0;
    FOR_EACH_OF(part, i) {
        acc_t value = x[i], size = value < 0 ? -value : value;
        if (value != value) none = value;
        if (INFINITE) result = size > result ? size : result;
        else result += order == 2 ? size * size : acc_t(pow(double(size), order));
    }
    if (INFINITE) result = block_max(result, scratch) + block_sum(none, scratch);
    else result = block_sum(result, scratch);
    if (threadIdx.x == 0) results[blockIdx.x] = result;
}
""",
    variants=[{"T": T, "INFINITE": infinite} for T in FLOATS for infinite in (False, True)],
)

CLIP = Kernel(
    "clip",
    PARTS
    + r"""
extern "C" __global__ void clip(const long long* table, long long arrays, double max_norm,
                                const acc_t* norm) {
    acc_t factor = acc_t(max_norm) / (*norm + acc_t(1e-6));
    if (factor >= 1) return;  // NaN is not: it spreads to all gradients, where it will be noticed
    Part part = part_of_block(table, arrays);
    T* x = array_of<T>(table, arrays, part, 0);
    FOR_EACH_OF(part, i) x[i] = T(acc_t(x[i]) * factor);
}
""",
    variants=[{"T": T} for T in FLOATS],
)


def _clip_on_gpu(
    gradients: list[tuple[Tensor, Tensor]],
    max_norm: float,
    norm_type: float,
    error_if_nonfinite: bool,
) -> Tensor:
    groups = by_dtype(writable(g) for _, g in gradients)
    xp, infinite = array_module(groups[0][0]), norm_type == math.inf
    norms = []
    for arrays in groups:
        results = xp.zeros(max(1, blocks_of(arrays).sum()), accumulator(arrays[0].dtype))
        launch_over(
            POWERS, [arrays], float(norm_type), results, T=arrays[0].dtype, INFINITE=infinite
        )
        norms.append(results.max() if infinite else results.sum() ** (1 / norm_type))
    total = norms[0] if len(norms) == 1 else xp.linalg.norm(xp.stack(norms), norm_type)
    if error_if_nonfinite:
        _check_finite(total.item())
    for arrays in groups:
        norm = total.astype(accumulator(arrays[0].dtype), copy=False)
        launch_over(CLIP, [arrays], float(max_norm), norm, T=arrays[0].dtype)
    return Tensor(total)
