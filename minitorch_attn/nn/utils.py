"""Gradient clipping: a bound on how far one step can go."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..engine import AnomalyError, Tensor, array_module, tensor
from ..engine.backend import Array


def clip_grad_norm_(
    parameters: Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    r"""Scale all gradients together so that their common norm is at most `max_norm`.

    .. math:: g \leftarrow g \cdot \min\left(1, \frac{max\_norm}{\|g\| + 10^{-6}}\right)

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
    norms = [_norm(g.data.ravel(), norm_type) for _, g in gradients]
    total = _norm(np.array(norms), norm_type)
    if error_if_nonfinite and not np.isfinite(total):
        raise AnomalyError(f"the norm of the gradients is {total}: they cannot be clipped")
    scale = max_norm / (total + 1e-6)
    if not scale >= 1:  # NaN too: it spreads to all gradients, where it will be noticed
        for p, g in gradients:
            p.grad = Tensor(g.data * scale)
    return tensor(total)


def clip_grad_value_(parameters: Iterable[Tensor], clip_value: float) -> None:
    """Cut every element of every gradient off at -clip_value and clip_value."""
    for p, g in _gradients(parameters):
        p.grad = Tensor(g.data.clip(-clip_value, clip_value))


def _gradients(parameters: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [(p, p.grad) for p in parameters if p.grad is not None]


def _norm(values: Array, norm_type: float) -> float:
    if values.size == 0:
        return 0.0
    wide = values.astype(np.promote_types(values.dtype, np.float32), copy=False)
    return float(array_module(values).linalg.norm(wide, norm_type))
