"""One small network with places in which an attention may stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import functional as F
from .. import nn
from ..engine import Tensor
from ..models.initialization import initialize
from ..models.resnet import BasicBlock

#: Makes one stage: (channels before, channels after, stride) -> a module.
Stage = Callable[[int, int, int], nn.Module]

PLACES = ("front", "block", "convolution", "between", "pool", "head")


class Backbone(nn.Module):
    r"""A small residual network, and where in it an attention may stand.

    .. math::

        a &= relu(BN(conv(\mathrm{front}(x)))) && (N, C_1, H/2, W/2) \\
        b &= \mathrm{between}(\mathrm{stage_1}(a)) && (N, C_1, H/2, W/2) \\
        c &= \mathrm{stage_2}(b) && (N, C_2, H/4, W/4) \\
        y &= W\, \mathrm{pool}(c) + b && (N, K)

    A stage is one residual block. What stands at `front` and `between` changes nothing at first,
    and `pool` is the mean over places; `place` puts an attention there.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels C of the images.
    widths : (int, int)
        Channels of the two stages.
    stage : callable
        ``stage(before, after, stride)`` makes a stage; a `BasicBlock` by default.

    Attributes
    ----------
    front, conv1, bn1, stage1, between, stage2, pool, fc : Module
        Its parts.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: Sequence[int] = (16, 32),
        stage: Stage = BasicBlock,
    ):
        super().__init__()
        first, second = widths
        self.widths = first, second
        self.num_classes = num_classes
        self.front: nn.Module = nn.Identity()
        self.conv1 = nn.Conv2d(in_channels, first, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.stage1 = stage(first, first, 1)
        self.between: nn.Module = nn.Identity()
        self.stage2 = stage(first, second, 2)
        self.pool: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc: nn.Module = nn.Linear(second, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        return self.fc(self.pool(self.features(x)))

    def features(self, x: Tensor) -> Tensor:
        """What is pooled: (N, C, H, W) -> (N, C2, H / 4, W / 4), nowhere negative."""
        x = F.relu(self.bn1(self.conv1(self.front(x))))
        return self.stage2(self.between(self.stage1(x)))


def place(backbone: Backbone, where: str, make: Callable[..., nn.Module]) -> Backbone:
    """Put an attention into a backbone of residual blocks.

    ==============  ===========================================================================
    where           what is called, and what becomes of the module it makes
    ==============  ===========================================================================
    "front"         ``make(C)``, for images (N, C, H, W) -> (N, C, H, W)
    "block"         ``make(channels)`` for each block: at the end of its residual branch
    "convolution"   ``make(channels)`` for each block: in place of its second convolution
    "between"       ``make(channels)``: between the two stages
    "pool"          ``make(channels)``, for maps (N, C, H, W) -> (N, C): in place of the mean
    "head"          ``make(channels, K)``, for maps -> scores: in place of mean and linear map
    ==============  ===========================================================================

    The weights of the backbone are drawn before: with one seed, all attentions are put into the
    very same network.

    Returns
    -------
    Backbone
        The same, changed.

    Raises
    ------
    ValueError
        If there is no such place.
    """
    first, second = backbone.widths
    if where == "front":
        backbone.front = make(backbone.conv1.in_channels)
    elif where == "between":
        backbone.between = make(first)
    elif where == "pool":
        backbone.pool = make(second)
    elif where == "head":
        backbone.pool, backbone.fc = nn.Identity(), make(second, backbone.num_classes)
    elif where in ("block", "convolution"):
        part = "attention" if where == "block" else "conv2"
        stages: Any = (backbone.stage1, backbone.stage2)
        for stage, width in zip(stages, backbone.widths):
            setattr(stage, part, make(width))
    else:
        raise ValueError(f"there is no place {where!r}: choose one of {', '.join(PLACES)}")
    return backbone
