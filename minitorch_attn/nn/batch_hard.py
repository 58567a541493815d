"""The triplet loss over the hardest triplets of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..engine import ShapeError, Tensor, as_tensor
from ..engine.tensor import operand
from .module import Module


def hardest_triplets(features: Any, identities: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""For each sample of a batch the farthest of its own identity and the nearest of another.

    .. math::

        b_i = \operatorname*{arg\,max}_{j \ne i,\ t_j = t_i} \lVert f_i - f_j \rVert, \qquad
        c_i = \operatorname*{arg\,min}_{j:\ t_j \ne t_i} \lVert f_i - f_j \rVert

    Parameters
    ----------
    features : (N, D)
        Where each sample lies. No gradient passes through the choice.
    identities : (N,) of int
        Whose picture each sample is.

    Returns
    -------
    anchors, positives, negatives : (M,) arrays of int
        Numbers of samples. An anchor without another picture of its identity, or without a picture
        of another one, is left out, so that M is at most N. Of equals the first is taken.

    Raises
    ------
    ShapeError
        If there is not one identity for each row of features.

    References
    ----------
    Hermans, Beyer and Leibe, "In Defense of the Triplet Loss for Person Re-Identification" (2017),
    equation 5.
    """
    f, t = as_tensor(features).numpy(), as_tensor(identities).numpy()
    if f.ndim != 2 or t.shape != f.shape[:1]:
        raise ShapeError(
            "hardest_triplets: needs features (N, D) and one identity for each, (N,); got shapes "
            f"{f.shape} and {t.shape}"
        )
    f = f.astype(np.promote_types(f.dtype, np.float64))
    f = f - f[:1]  # else the squares of what all have in common drown the distances
    squares = (f**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * f @ f.T  # (N, N), squared: the order is the same
    same = t[:, None] == t
    others = same & ~np.eye(len(t), dtype=bool)
    anchors = np.flatnonzero(others.any(axis=1) & ~same.all(axis=1))
    if not len(anchors):
        return anchors, anchors, anchors
    positives = np.where(others, distances, -np.inf)[anchors].argmax(axis=1)
    negatives = np.where(same, np.inf, distances)[anchors].argmin(axis=1)
    return anchors, positives, negatives


class BatchHardTripletLoss(Module):
    r"""Triplet loss in which each sample of a batch meets its hardest positive and negative.

    .. math::

        L = \frac{1}{M} \sum_i \max(d(f_i, f_{b_i}) - d(f_i, f_{c_i}) + m,\ 0)

    with the triplets of `hardest_triplets`; or, without a margin, the soft one
    :math:`\log(1 + e^{d(f_i, f_{b_i}) - d(f_i, f_{c_i})})`, which pulls on without end.

    Called with features (N, D) and identities (N,) of int. -> ()

    Parameters
    ----------
    margin : float, optional
        m, greater than 0; None is the soft margin.

    Raises
    ------
    ValueError
        If the margin is not positive; in `forward`, if no sample of the batch has both a positive
        and a negative.

    References
    ----------
    Hermans, Beyer and Leibe, "In Defense of the Triplet Loss for Person Re-Identification" (2017),
    equation 5 and section 2, "soft-margin".
    """

    def __init__(self, margin: float | None = 0.3):
        super().__init__()
        if margin is not None and not margin > 0:
            raise ValueError(
                "BatchHardTripletLoss: margin must be greater than 0, or None for the soft one, "
                f"not {margin}"
            )
        self.margin = margin

    def forward(self, features: Any, identities: Any) -> Tensor:
        """(N, D), (N,) -> ()."""
        f = operand(features)
        anchors, positives, negatives = hardest_triplets(f, identities)
        if not len(anchors):
            raise ValueError(
                "BatchHardTripletLoss: no picture of the batch has another one of its identity and "
                "one of another identity: put at least 2 pictures each of 2 identities into a batch"
            )
        a, b, c = f[anchors], f[positives], f[negatives]
        if self.margin is None:
            return F.softplus(F.pairwise_distance(a, b) - F.pairwise_distance(a, c)).mean()
        return F.triplet_margin_loss(a, b, c, margin=self.margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin}"
