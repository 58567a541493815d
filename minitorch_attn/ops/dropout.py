"""Dropout: noise that switches elements off during training."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import Tensor, array_module, as_tensor, default_generator, primitive

__all__ = ["dropout"]


def dropout(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    generator: np.random.Generator | None = None,
) -> Tensor:
    r"""Set each element to zero with probability p, and scale the others by 1 / (1 - p).

    .. math:: y = \frac{x \, m}{1 - p}, \qquad m \sim \mathrm{Bernoulli}(1 - p)

    The scale keeps the expected value: without training nothing is left to do.

    Parameters
    ----------
    input : (*)
    p : float
        Probability of a zero, from 0 to 1.
    training : bool
        Without it, the input is returned as it is.
    generator : numpy.random.Generator, optional
        Where the noise comes from; the default one (see `manual_seed`) if left out.

    Returns
    -------
    (*)

    Raises
    ------
    ValueError
        If p is not a probability.

    References
    ----------
    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
    JMLR 15 (2014).
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability, from 0 to 1, not {p}")
    if not training or p == 0:
        return as_tensor(input)
    return _dropout(input, p=p, generator=generator or default_generator())


@primitive(floats="all")
def _dropout(x, *, p, generator):
    kept = generator.random(x.shape, dtype=np.float32) >= p  # the same mask in every dtype
    scale = array_module(x).asarray(kept, dtype=x.dtype)
    scale *= 0.0 if p == 1 else 1 / (1 - p)

    def vjp_x(dy):
        return dy * scale

    return x * scale, vjp_x
