"""ResNet for small images, 32 x 32 and less: three stages and no pooling before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .initialization import initialize
from .resnet import Attention, BasicBlock, Bottleneck, projection
from .stages import blocks_per_stage, check_stages, stage


class ZeroPadding(nn.Module):
    """The shortcut that the paper calls option A: no parameters, and zeros for new channels.

    Every stride-th pixel is taken, and the channels that are missing are put behind those of x.
    (The paper does not say where they stand. Behind is where the authors' program has them;
    another known one puts half of them before, and its weights are not interchangeable with these.)

    Parameters
    ----------
    in_channels, out_channels, stride : int
        As of a convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        return add_zero_channels(x[:, :, :: self.stride, :: self.stride], self.out_channels)

    def extra_repr(self) -> str:
        return f"{self.out_channels}, stride={self.stride}"


SHORTCUTS = {"A": ZeroPadding, "B": projection}


def add_zero_channels(x: Tensor, out_channels: int) -> Tensor:
    """Put zeros behind the channels of x until there are O: (N, C, H, W) -> (N, O, H, W)."""
    return F.pad(x, (0, 0, 0, 0, 0, out_channels - x.shape[1]))


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of n blocks, the channels' means, and a linear map.

    The second and the third stage halve the image.

    Parameters
    ----------
    block : class
        `BasicBlock` or `Bottleneck`.
    n : int
        Blocks in each stage.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    stem_channels : int
        Channels of the first convolution.
    widths : (int, int, int)
        Of the blocks of each stage.
    **options
        For each block, as in `ResNet`.

    Raises
    ------
    ValueError
        If there are not three widths, or n is less than 1.

    Attributes
    ----------
    conv1, bn1, layer1, layer2, layer3, avgpool, fc : Module
        Its parts.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        n: int,
        num_classes: int = 10,
        in_channels: int = 3,
        stem_channels: int = 16,
        widths: Sequence[int] = (16, 32, 64),
        **options: Any,
    ):
        super().__init__()
        check_stages(self, 3, widths=widths)
        first, second, third = (width * block.expansion for width in widths)
        self.conv1 = nn.Conv2d(in_channels, stem_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_channels)
        self.layer1 = stage(block, stem_channels, widths[0], n, 1, **options)
        self.layer2 = stage(block, first, widths[1], n, 2, **options)
        self.layer3 = stage(block, second, widths[2], n, 2, **options)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def cifar_resnet(
    depth: int,
    num_classes: int = 10,
    in_channels: int = 3,
    shortcut: str = "A",
    bottleneck: bool = False,
    attention: Attention | None = None,
) -> CifarResNet:
    """The ResNet for CIFAR of any depth.

    Parameters
    ----------
    depth : int
        Layers that have weights: 6 n + 2, or 9 n + 2 with bottlenecks.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    shortcut : str
        Where the shape changes: "A", zeros for new channels, without parameters, as the paper has
        it; or "B", a projection. Bottlenecks, which widen four times at once, are meant for "B".
    bottleneck : bool
        Whether to build of `Bottleneck` rather than `BasicBlock`.
    attention : callable, optional
        ``attention(channels)`` makes a module for the residual branch of each block.

    Raises
    ------
    ValueError
        If there is no such depth or shortcut.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2.
    """
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut must be one of {', '.join(SHORTCUTS)}, not {shortcut!r}")
    return CifarResNet(
        Bottleneck if bottleneck else BasicBlock,
        blocks_per_stage(depth, layers_per_block=3 if bottleneck else 2),
        num_classes,
        in_channels,
        shortcut=SHORTCUTS[shortcut],
        attention=attention,
    )


def resnet20(
    num_classes: int = 10,
    in_channels: int = 3,
    shortcut: str = "A",
    attention: Attention | None = None,
) -> CifarResNet:
    """ResNet-20 for CIFAR: 269,722 parameters, 272,474 with shortcut B. See `cifar_resnet`."""
    return cifar_resnet(20, num_classes, in_channels, shortcut, attention=attention)


def resnet32(
    num_classes: int = 10,
    in_channels: int = 3,
    shortcut: str = "A",
    attention: Attention | None = None,
) -> CifarResNet:
    """ResNet-32 for CIFAR: 464,154 parameters. See `cifar_resnet`."""
    return cifar_resnet(32, num_classes, in_channels, shortcut, attention=attention)


def resnet44(
    num_classes: int = 10,
    in_channels: int = 3,
    shortcut: str = "A",
    attention: Attention | None = None,
) -> CifarResNet:
    """ResNet-44 for CIFAR: 658,586 parameters. See `cifar_resnet`."""
    return cifar_resnet(44, num_classes, in_channels, shortcut, attention=attention)


def resnet56(
    num_classes: int = 10,
    in_channels: int = 3,
    shortcut: str = "A",
    attention: Attention | None = None,
) -> CifarResNet:
    """ResNet-56 for CIFAR: 853,018 parameters, 855,770 with shortcut B. See `cifar_resnet`."""
    return cifar_resnet(56, num_classes, in_channels, shortcut, attention=attention)


def resnet110(
    num_classes: int = 10,
    in_channels: int = 3,
    shortcut: str = "A",
    attention: Attention | None = None,
) -> CifarResNet:
    """ResNet-110 for CIFAR: 1,727,962 parameters. See `cifar_resnet`."""
    return cifar_resnet(110, num_classes, in_channels, shortcut, attention=attention)


def resnet1202(
    num_classes: int = 10,
    in_channels: int = 3,
    shortcut: str = "A",
    attention: Attention | None = None,
) -> CifarResNet:
    """ResNet-1202 for CIFAR: 19,421,274 parameters. See `cifar_resnet`."""
    return cifar_resnet(1202, num_classes, in_channels, shortcut, attention=attention)
