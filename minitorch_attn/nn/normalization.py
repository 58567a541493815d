from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..engine import ShapeError, Tensor, ones, zeros
from ..engine.tensor import operand
from ..ops.arguments import integer, integers
from .module import Module
from .parameter import Parameter
from .representation import settings


class _ChannelNorm(Module):
    """What batch and instance normalisation share: parameters and statistics of each channel."""

    dimensions: tuple[int, ...]  # how many axes an input may have
    shapes: str
    defaults = (True, True)  # of affine and track_running_stats

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
    ):
        super().__init__()
        num_features = integer(type(self).__name__, "num_features", num_features, least=0)
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

    @property
    def _uses_input(self) -> bool:
        """Whether to normalise by what the input has, not by the running statistics."""
        return self.training or not self.track_running_stats

    def _check(self, shape: tuple[int, ...], channels: int) -> None:
        if len(shape) not in self.dimensions or shape[channels] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__}: needs an input {self.shapes} with C = {self.num_features} "
                f"channels, got {shape}"
            )

    def extra_repr(self) -> str:
        affine, tracked = self.defaults
        return str(self.num_features) + settings(
            eps=(self.eps, 1e-5),
            momentum=(self.momentum, 0.1),
            affine=(self.affine, affine),
            track_running_stats=(self.track_running_stats, tracked),
        )


class _BatchNorm(_ChannelNorm):
    """What batch normalisation is, whatever the number of axes (see `functional.batch_norm`)."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Any) -> Tensor:
        """Normalise each channel of an input; its shape stays."""
        x = operand(x)
        self._check(x.shape, channels=1)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self._uses_input,
            momentum=self._count_batch() if self.training else 0.0,
            eps=self.eps,
        )

    def _count_batch(self) -> float:
        """Count a batch, and return its share in the running statistics."""
        if self.num_batches_tracked is None:
            return 0.0
        self.num_batches_tracked.data = self.num_batches_tracked.data + 1
        return 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum


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


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of volumes (N, C, D, H, W).

    Parameters and attributes are those of `BatchNorm2d`.
    """

    dimensions = (5,)
    shapes = "(N, C, D, H, W)"


class _InstanceNorm(_ChannelNorm):
    """What instance normalisation is, whatever the number of axes."""

    defaults = (False, False)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Any) -> Tensor:
        """Normalise each channel of each example; the shape stays."""
        x, batched = operand(x), max(self.dimensions)
        self._check(x.shape, channels=1 if x.ndim == batched else 0)
        y = F.instance_norm(
            x if x.ndim == batched else x.unsqueeze(0),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            use_input_stats=self._uses_input,
            momentum=0.0 if self.momentum is None else self.momentum,
            eps=self.eps,
        )
        return y if x.ndim == batched else y.squeeze(0)


class InstanceNorm2d(_InstanceNorm):
    r"""Instance normalisation of images: each channel of each image over its pixels.

    .. math:: y = \gamma \frac{x - \mu_{n,c}}{\sqrt{\sigma_{n,c}^2 + \epsilon}} + \beta

    Parameters
    ----------
    num_features : int
        Channels C.
    eps : float
        Added to the variance.
    momentum : float or None
        How far a batch moves the running statistics; None does not move them.
    affine : bool
        Whether gamma (`weight`) and beta (`bias`) are learned.
    track_running_stats : bool
        With them, evaluation normalises by the running statistics.

    Attributes
    ----------
    weight, bias : Parameter (C,) or None
        At first 1 and 0.
    running_mean, running_var : Tensor (C,) or None
        Buffers, at first 0 and 1.
    num_batches_tracked : Tensor () of int64 or None
        Buffer that stays 0, as in PyTorch.

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky, "Instance Normalization" (2016).
    """

    dimensions = (3, 4)
    shapes = "(C, H, W) or (N, C, H, W)"


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of sequences (C, L) or (N, C, L); else as `InstanceNorm2d`."""

    dimensions = (2, 3)
    shapes = "(C, L) or (N, C, L)"


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of volumes (C, D, H, W) or (N, C, D, H, W).

    Parameters and attributes are those of `InstanceNorm2d`.
    """

    dimensions = (4, 5)
    shapes = "(C, D, H, W) or (N, C, D, H, W)"


class GroupNorm(Module):
    r"""Normalise each group of channels of each example over its channels and positions.

    .. math:: y = \gamma \frac{x - \mu_{n,g}}{\sqrt{\sigma_{n,g}^2 + \epsilon}} + \beta

    Parameters
    ----------
    num_groups : int
        G, which divides C.
    num_channels : int
        C.
    eps : float
        Added to the variance.
    affine : bool
        Whether gamma (`weight`) and beta (`bias`) are learned.

    Attributes
    ----------
    weight, bias : Parameter (C,) or None
        At first 1 and 0.

    References
    ----------
    Wu and He, "Group Normalization" (2018).
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        num_groups = integer("GroupNorm", "num_groups", num_groups, least=1)
        num_channels = integer("GroupNorm", "num_channels", num_channels, least=0)
        if num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_groups={num_groups} does not divide num_channels={num_channels}"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.weight = Parameter(ones(num_channels)) if affine else None
        self.bias = Parameter(zeros(num_channels)) if affine else None

    def forward(self, x: Any) -> Tensor:
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}" + settings(
            eps=(self.eps, 1e-5), affine=(self.affine, True)
        )


class LocalResponseNorm(Module):
    """Each value divided by a power of the mean square of its neighbours in channel.

    Parameters are those of `functional.local_response_norm`.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, x: Any) -> Tensor:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return str(self.size) + settings(
            alpha=(self.alpha, 1e-4), beta=(self.beta, 0.75), k=(self.k, 1.0)
        )


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
        self.normalized_shape = integers("LayerNorm", "normalized_shape", normalized_shape)
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
