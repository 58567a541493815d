from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from .module import Module


class MSELoss(Module):
    r"""Squared error of an input and a target, both (*). -> (), or (*) with "none".

    .. math:: \ell = (x - t)^2

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
        What becomes of the losses of all elements.
    """

    def __init__(self, *, reduction: str = "mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(Module):
    r"""Absolute error of an input and a target, both (*). -> (), or (*) with "none".

    .. math:: \ell = |x - t|

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
        What becomes of the losses of all elements.
    """

    def __init__(self, *, reduction: str = "mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(Module):
    r"""Absolute error, squared near zero, of input and target (*). -> (), or (*) with "none".

    .. math:: \ell = \begin{cases} e^2 / (2 \beta) & |e| < \beta \\ |e| - \beta / 2 &
              \text{otherwise} \end{cases}, \qquad e = x - t

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
        What becomes of the losses of all elements.
    beta : float
        Where the two pieces meet.

    References
    ----------
    Girshick, "Fast R-CNN" (2015), equation 3.
    """

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0):
        super().__init__()
        self.reduction = reduction
        self.beta = beta

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class CrossEntropyLoss(Module):
    r"""Cross-entropy between target probabilities t and the softmax of scores x.

    .. math:: \ell = -\sum_k w_k\, t_k \log p_k, \qquad p = \mathrm{softmax}(x)

    Called with scores (N, K) or (N, K, ...), those before a softmax, and a target: classes
    (N,) or (N, ...), or probabilities of the shape of the scores. -> (), or (N, ...) with "none".

    Parameters
    ----------
    weight : Tensor (K,), optional
        Weight w of each class; a buffer.
    ignore_index : int
        The class of samples that do not count.
    reduction : "mean", "sum" or "none"
        With weights, the mean over classes is a weighted one (see `functional.cross_entropy`).
    label_smoothing : float
        The share e of the target that is spread evenly: t becomes (1 - e) t + e / K.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class BCEWithLogitsLoss(Module):
    r"""Cross-entropy of yes-or-no answers: scores x and targets t in [0, 1], both (*).

    .. math:: \ell = -w \left(\pi\, t \log p + (1 - t) \log (1 - p)\right), \qquad p = \sigma(x)

    The scores are those before a sigmoid. -> (), or (*) with "none".

    Parameters
    ----------
    weight : Tensor, broadcastable to (*), optional
        Weight w of each element; a buffer.
    reduction : "mean", "sum" or "none"
        What becomes of the losses of all elements.
    pos_weight : Tensor, broadcastable to (*), optional
        Weight pi of yes against no; a buffer.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)
        self.reduction = reduction

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input,
            target,
            weight=self.weight,
            reduction=self.reduction,
            pos_weight=self.pos_weight,
        )


class TripletMarginLoss(Module):
    r"""How much nearer than a margin an anchor is to its negative than to its positive.

    .. math:: \ell = \max(d(a, b) - d(a, c) + m,\ 0)

    Called with anchor a, positive b and negative c, each (N, D); see
    `functional.triplet_margin_loss`. -> (), or (N,) with "none".

    Parameters
    ----------
    margin : float
        m, greater than 0.
    p : float
        Of the norm in the distance d.
    eps : float
        Added to every difference.
    swap : bool
        Whether the negative's distance is that from the anchor or from the positive, whichever is
        smaller.
    reduction : "mean", "sum" or "none"
        What becomes of the losses of all triplets.
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        *,
        reduction: str = "mean",
    ):
        super().__init__()
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap
        self.reduction = reduction

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Tensor:
        return F.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )
