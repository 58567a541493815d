"""A residual network for small images, with a BAM at each bottleneck between its stages."""

from __future__ import annotations

from collections.abc import Sequence

from .. import functional as F
from .. import nn
from ..attention import BAM
from ..engine import Tensor
from .initialization import initialize
from .resnet import Attention, BasicBlock, attend
from .stages import check_stages, stage


class BAMResNet(nn.Module):
    """A 3x3 convolution, stages of blocks, the mean of each channel, and a linear classifier.

    Every stage but the first halves the image, and in front of each of these stands an attention
    module: it weighs what is about to pass through the bottleneck. See `bam_resnet` for the
    parameters.

    Attributes
    ----------
    conv1, bn1, stages, attention, avgpool, fc : Module
        Its parts; `attention.0.gate` gives the map behind the first stage to a hook.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        attention: Attention | None,
    ):
        super().__init__()
        check_stages(self, len(widths), blocks=blocks)
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = nn.Sequential()
        for before, width, depth in zip((widths[0], *widths), widths, blocks):
            stride = 2 if len(self.stages) else 1
            self.stages.append(stage(BasicBlock, before, width, depth, stride))
        self.attention = nn.Sequential(*(attend(attention, width) for width in widths[:-1]))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = F.relu(self.bn1(self.conv1(x)))
        *stages, last = self.stages
        for one, attention in zip(stages, self.attention):
            x = attention(one(x))
        return self.fc(self.avgpool(last(x)).flatten(1))


def small_bam(channels: int) -> BAM:
    """BAM for small images: r = 4 and d = 2, which on 8 x 8 pixels see a field of 9."""
    return BAM(channels, reduction=4, dilation=2)


def bam_resnet(
    num_classes: int = 10,
    in_channels: int = 1,
    widths: Sequence[int] = (16, 32, 64),
    blocks: Sequence[int] = (1, 1, 1),
    attention: Attention | None = small_bam,
) -> BAMResNet:
    """A residual network for small images with BAM between its stages.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images: 1 grey, 3 colour.
    widths : sequence of int
        Channels of each stage.
    blocks : sequence of int
        Number of `BasicBlock` of each stage.
    attention : callable or None
        ``attention(channels)`` makes the module behind each stage but the last. Here that is a BAM
        with r = 4 and d = 2; None is the same network without any.

    Returns
    -------
    BAMResNet
        Maps images (N, C, H, W) to scores (N, K).

    Raises
    ------
    ValueError
        If a stage has no block or no width of its own, or the reduction leaves no channel.
    TypeError
        If attention cannot be called, or is a module itself.

    References
    ----------
    Park et al., "BAM: Bottleneck Attention Module" (2018), section 3;
    He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2.
    """
    return BAMResNet(num_classes, in_channels, widths, blocks, attention)
