"""Dropout: noise that switches elements off during training."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import ShapeError, Tensor, array_module, as_tensor, default_generator, primitive

__all__ = ["dropout", "dropout2d"]


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
    return _thinned("dropout", as_tensor(input), p, training, generator, dims=None)


def dropout2d(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    generator: np.random.Generator | None = None,
) -> Tensor:
    r"""Set whole channels to zero with probability p, and scale the others by 1 / (1 - p).

    .. math::

        y_{nchw} = \frac{x_{nchw} \, m_{nc}}{1 - p}, \qquad
        m_{nc} \sim \mathrm{Bernoulli}(1 - p)

    Neighbours in a feature map tell nearly the same: a zero beside them hides little. A channel
    that is gone is gone everywhere.

    Parameters
    ----------
    input : (N, C, H, W)
    p, training, generator
        As `dropout`.

    Returns
    -------
    (N, C, H, W)

    Raises
    ------
    ValueError
        If p is not a probability.
    ShapeError
        If the input has not four axes.

    References
    ----------
    Tompson et al., "Efficient Object Localization Using Convolutional Networks" (CVPR 2015),
    section 3.2.
    """
    x = as_tensor(input)
    if x.ndim != 4:
        raise ShapeError(f"dropout2d: needs an input (N, C, H, W), got {x.shape}")
    return _thinned("dropout2d", x, p, training, generator, dims=2)


def _thinned(
    name: str,
    x: Tensor,
    p: float,
    training: bool,
    generator: np.random.Generator | None,
    dims: int | None,
) -> Tensor:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is a probability, from 0 to 1, not {p}")
    if not training or p == 0:
        return x
    return _dropout(x, p=p, generator=generator or default_generator(), dims=dims)


@primitive(floats="all")
def _dropout(x, *, p, generator, dims):
    """Noise for each element or, with `dims`, for each item of the first so many axes."""
    shape = x.shape if dims is None else x.shape[:dims] + (1,) * (x.ndim - dims)
    kept = generator.random(shape, dtype=np.float32) >= p  # the same mask in every dtype
    scale = array_module(x).asarray(kept, dtype=x.dtype)
    scale *= 0.0 if p == 1 else 1 / (1 - p)

    def vjp_x(dy):
        return dy * scale

    return x * scale, vjp_x
