from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..engine import DTypeError, ShapeError, Tensor, as_tensor
from ..engine.backend import on_gpu
from ..engine.dtypes import is_floating
from .module import Module


class MaskedSoftmax(Module):
    r"""Softmax over the last axis, in which a mask has its say. (*, S) -> (*, S).

    .. math::
        y_j = \frac{m_j\, e^{x_j + b_j}}{\sum_k m_k\, e^{x_k + b_k}}, \qquad m_j \in \{0, 1\}

    A mask of booleans gives m (True: takes part), one of floats gives b, whose negative infinities
    count as m = 0. Where all of a row is masked, its weights are 0. (PyTorch's softmax of a row of
    negative infinities is NaN.)

    It is a module, though without parameters, so that a forward hook can look at the weights of
    whatever attention it is a part of.
    """

    def forward(self, x: Any, mask: Any = None) -> Tensor:
        """Weights of scores x (*, S); the mask broadcasts to their shape.

        Raises
        ------
        ShapeError
            If the mask does not broadcast to the scores.
        DTypeError
            If the mask holds neither booleans nor floats.
        """
        if mask is None:
            return F.softmax(x, dim=-1)
        x, mask = as_tensor(x), as_tensor(mask)
        _check(mask.shape, x.shape)
        if is_floating(mask.dtype):
            masked = mask.data == -float("inf")
            x = x + F.masked_fill(mask, masked, 0.0).to(x.dtype)
        elif mask.dtype == bool:
            masked = ~mask.data
        else:
            raise DTypeError(
                f"MaskedSoftmax: a mask holds booleans (True: takes part) or floats (added to the "
                f"scores), not {mask.dtype}: write mask != 0"
            )
        y = F.softmax(F.masked_fill(x, masked, LOWEST), dim=-1)
        if on_gpu(masked) or masked.all(axis=-1).any():  # the host would wait for a GPU's answer
            y = F.masked_fill(y, masked, 0.0)
        return y

    @property
    def is_watched(self) -> bool:
        """Whether a hook wants to see the weights."""
        return bool(self._forward_hooks or self._forward_pre_hooks)


def _check(mask: tuple[int, ...], scores: tuple[int, ...]) -> None:
    try:
        fits = np.broadcast_shapes(mask, scores) == scores
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"MaskedSoftmax: a mask of shape {mask} does not broadcast to scores of shape "
            f"{scores}: counted from the last axis, each of its sizes must be that of the "
            "scores, or 1"
        )


# Its exponential is 0 beside any score, and unlike minus infinity it can be subtracted from itself.
LOWEST = -1e30
