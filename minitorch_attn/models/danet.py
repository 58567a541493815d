"""DANet: a dilated residual network, and dual attention on its features."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .. import nn
from ..attention.dual_attention import DualAttentionHead, DualAttentionOutputs
from ..engine import Tensor
from .resnet import Bottleneck, ResNet


class DilatedResNet(ResNet):
    r"""A ResNet without its classifier whose last two stages widen their windows, not their stride.

    Where a stage would halve the map, it keeps it, and its 3x3 kernels and those of the stages
    behind it are spread by a factor of two: each sees what it saw before, at four times as many
    places. The result is 1/8 of the image's height and width in place of 1/32; the parameters are
    those of the ResNet, so that trained ones fit.

    Parameters
    ----------
    blocks : (int, int, int, int)
        `Bottleneck`s in each stage.
    in_channels : int
        Channels of the images.

    References
    ----------
    Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions" (ICLR 2016); Fu et al.,
    "Dual Attention Network for Scene Segmentation" (CVPR 2019), section 3.1.
    """

    def __init__(self, blocks: tuple[int, int, int, int], in_channels: int = 3):
        super().__init__(Bottleneck, blocks, in_channels=in_channels)
        del self.avgpool, self.fc
        _dilate(self.layer3, first=1, others=2)
        _dilate(self.layer4, first=2, others=4)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, 2048, H / 8, W / 8) of images (N, C, H, W)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class DANet(nn.Module):
    """A backbone, a `DualAttentionHead` on its features, and its scores enlarged to the image.

    In training with both branches it returns `DualAttentionOutputs`, of which
    `auxiliary_cross_entropy` with a weight of 1 makes the paper's loss; otherwise scores alone.

    Parameters
    ----------
    backbone : Module
        Images (N, 3, H, W) -> features (N, C, P, Q).
    head : Module
        Features -> scores (N, K, P, Q), or a tuple of scores.

    References
    ----------
    Fu et al., "Dual Attention Network for Scene Segmentation" (CVPR 2019), figure 2.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor | DualAttentionOutputs:
        """Scores (N, K, H, W) of images x (N, C, H, W)."""
        scores = self.head(self.backbone(x))
        size = x.shape[2:]
        if isinstance(scores, tuple):
            return DualAttentionOutputs(*(_enlarge(one, size) for one in scores))
        return _enlarge(scores, size)


def danet_resnet50(num_classes: int = 19, in_channels: int = 3, **head: Any) -> DANet:
    """DANet on a dilated ResNet-50; `head` are settings of the `DualAttentionHead`."""
    backbone = DilatedResNet((3, 4, 6, 3), in_channels)
    return DANet(backbone, DualAttentionHead(2048, num_classes, **head))


def danet_resnet101(num_classes: int = 19, in_channels: int = 3, **head: Any) -> DANet:
    """DANet on a dilated ResNet-101; `head` are settings of the `DualAttentionHead`."""
    backbone = DilatedResNet((3, 4, 23, 3), in_channels)
    return DANet(backbone, DualAttentionHead(2048, num_classes, **head))


def _enlarge(scores: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=True)


def _dilate(stage: nn.Sequential, first: int, others: int) -> None:
    """Take a stage's stride away, and spread the 3x3 kernels of its first block and the others."""
    for i, block in enumerate(stage):
        rate = others if i else first
        spread: Any = block.get_submodule("conv2")
        spread.stride, spread.padding, spread.dilation = (1, 1), (rate, rate), (rate, rate)
    shortcut: Any = stage.get_submodule("0.downsample.0")
    shortcut.stride = (1, 1)
