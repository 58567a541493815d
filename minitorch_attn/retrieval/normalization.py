"""Lengths: descriptors are compared by direction."""

from __future__ import annotations

import numpy as np


def l2_normalized(x: np.ndarray, eps: float = 1e-12) -> np.ndarray:
    r"""Divide descriptors by their length: :math:`x / \max(|x|_2, \epsilon)`. (..., D) -> (..., D).

    Parameters
    ----------
    x : (..., D) array
    eps : float
        Keeps a descriptor of zeros zero.
    """
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), eps)
