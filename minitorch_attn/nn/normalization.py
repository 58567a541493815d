from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..engine import ShapeError, Tensor, ones, zeros
from .module import Module
from .parameter import Parameter
from .representation import settings


class _BatchNorm(Module):
    """What batch normalisation is, whatever the number of axes (see `functional.batch_norm`)."""

    dimensions: tuple[int, ...]  # how many axes an input may have
    shapes: str

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ):
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.weight = Parameter(ones(num_features)) if affine else None
        self.bias = Parameter(zeros(num_features)) if affine else None
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features) if tracked else None)
        self.register_buffer("running_var", ones(num_features) if tracked else None)
        count = Tensor(np.array(0, dtype=np.int64)) if tracked else None
        self.register_buffer("num_batches_tracked", count)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of an input; its shape stays."""
        if x.ndim not in self.dimensions or x.shape[1] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__}: needs an input {self.shapes} with C = {self.num_features} "
                f"channels, got {x.shape}"
            )
        by_batch = self.training or not self.track_running_stats
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=by_batch,
            momentum=self._count_batch() if self.training else 0.0,
            eps=self.eps,
        )

    def _count_batch(self) -> float:
        """Count a batch, and return its share in the running statistics."""
        if self.num_batches_tracked is None:
            return 0.0
        self.num_batches_tracked.data = self.num_batches_tracked.data + 1
        return 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum

    def extra_repr(self) -> str:
        return str(self.num_features) + settings(
            eps=(self.eps, 1e-5),
            momentum=(self.momentum, 0.1),
            affine=(self.affine, True),
            track_running_stats=(self.track_running_stats, True),
        )


class BatchNorm2d(_BatchNorm):
    r"""Batch normalisation of images: each channel over the batch and all pixels.

    .. math:: y = \gamma \frac{x - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} + \beta

    In training by the batch's own mean and variance, which also move the running ones; in
    evaluation by the running ones.

    Parameters
    ----------
    num_features : int
        Channels C.
    eps : float
        Added to the variance.
    momentum : float or None
        How far a batch moves the running statistics; None averages over all batches.
    affine : bool
        Whether gamma (`weight`) and beta (`bias`) are learned.
    track_running_stats : bool
        Without them, evaluation too normalises by the batch.

    Attributes
    ----------
    weight, bias : Parameter (C,) or None
        At first 1 and 0.
    running_mean, running_var : Tensor (C,) or None
        Buffers, at first 0 and 1.
    num_batches_tracked : Tensor () of int64 or None
        Buffer: batches seen in training.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization" (2015).
    """

    dimensions = (4,)
    shapes = "(N, C, H, W)"


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of features (N, C), or of sequences (N, C, L).

    Parameters and attributes are those of `BatchNorm2d`.
    """

    dimensions = (2, 3)
    shapes = "(N, C) or (N, C, L)"


class LayerNorm(Module):
    r"""Normalise each example over its last axes: :math:`y = \gamma (x - \mu) / \sigma + \beta`.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Sizes of the last axes.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether gamma (`weight`) and beta (`bias`) are learned.
    bias : bool
        Whether beta is.

    Attributes
    ----------
    weight, bias : Parameter (*normalized_shape) or None
        At first 1 and 0.

    References
    ----------
    Ba, Kiros and Hinton, "Layer Normalization" (2016).
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ):
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape = tuple(shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight = Parameter(ones(*self.normalized_shape)) if elementwise_affine else None
        self.bias = (
            Parameter(zeros(*self.normalized_shape)) if elementwise_affine and bias else None
        )

    def forward(self, x: Any) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        shape = self.normalized_shape
        return f"{shape[0] if len(shape) == 1 else shape}" + settings(
            eps=(self.eps, 1e-5),
            elementwise_affine=(self.elementwise_affine, True),
            bias=(self.bias is not None, self.elementwise_affine),
        )
