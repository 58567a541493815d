"""ResNet: blocks that learn what to add to their input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .initialization import initialize
from .stages import check_stages, stage

#: Makes a module that weighs the output of a residual branch, from its number of channels.
Attention = Callable[[int], nn.Module]
#: Makes the shortcut of a block that changes the shape: (in_channels, out_channels, stride).
Shortcut = Callable[[int, int, int], nn.Module]


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The shortcut that the paper calls option B: a 1x1 convolution with batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def attend(attention: Attention | None, channels: int) -> nn.Module:
    """The module that `attention` makes for so many channels, or one that changes nothing.

    Raises
    ------
    TypeError
        If it cannot be called, or is a module itself.
    """
    if attention is None:
        return nn.Identity()
    if isinstance(attention, nn.Module) or not callable(attention):
        raise TypeError(
            "attention must make a module for each block from its number of channels, such as "
            "SqueezeExcitation or lambda channels: SqueezeExcitation(channels, reduction=4), "
            f"not be a {type(attention).__name__} itself"
        )
    return attention(channels)


class BasicBlock(nn.Module):
    r"""A residual block of two 3x3 convolutions.

    .. math:: y = relu(R(x) + S(x)), \qquad R(x) = BN(V * relu(BN(U * x)))

    U and V are the kernels. The shortcut S is x itself, and where the shape changes what `shortcut`
    makes. So the gradient of x is the sum's own plus what comes back through R: it reaches the
    first layers of a deep network undiminished.

    Parameters
    ----------
    in_channels, width : int
        Channels before and after.
    stride : int
        Of the first convolution: 2 halves the image.
    shortcut : callable
        ``shortcut(in_channels, out_channels, stride)`` makes S where the shape changes.
    attention : callable, optional
        ``attention(channels)`` makes a module that R(x) goes through before the addition.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition" (2016), figure 5, left.
    """

    expansion = 1  # channels that come out for each of `width`

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        shortcut: Shortcut = projection,
        attention: Attention | None = None,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != width:
            self.downsample = shortcut(in_channels, width, stride)
        self.attention = attend(attention, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        branch = F.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        return F.relu(self.attention(branch) + self.downsample(x))


class Bottleneck(nn.Module):
    r"""A residual block of a 1x1, a 3x3 and a 1x1 convolution, four times as wide at its ends.

    .. math:: y = relu(R(x) + S(x)), \qquad R(x) = BN(W * relu(BN(V * relu(BN(U * x)))))

    U and W are 1x1 kernels, V is 3x3, and S is as in `BasicBlock`. The 3x3 convolution has the
    stride, as in torchvision and in the program that its authors later wrote for Torch; in the
    paper's own it is the first 1x1, which throws three of four pixels away unseen.

    Parameters
    ----------
    in_channels, width : int
        Channels before, and a quarter of those after.
    stride : int
        Of the 3x3 convolution: 2 halves the image.
    shortcut, attention : callable
        As in `BasicBlock`.
    groups, width_per_group : int
        The 3x3 convolution has width * width_per_group / 64 channels in each group: more than one
        group makes a ResNeXt of it, more than 64 a wide ResNet.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition" (2016), figure 5, right;
    Xie et al., "Aggregated Residual Transformations" (2017), figure 3 (c).
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        shortcut: Shortcut = projection,
        attention: Attention | None = None,
        groups: int = 1,
        width_per_group: int = 64,
    ):
        super().__init__()
        inner, outer = width * width_per_group // 64 * groups, width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outer, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != outer:
            self.downsample = shortcut(in_channels, outer, stride)
        self.attention = attend(attention, outer)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, 4 * width, P, Q), with P = H / stride rounded up."""
        branch = F.relu(self.bn1(self.conv1(x)))
        branch = F.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        return F.relu(self.attention(branch) + self.downsample(x))


class ResNet(nn.Module):
    """A 7x7 convolution, a max pool, four stages of blocks, the channels' means, a linear map.

    Every stage but the first halves the image, which the stem has quartered. The names of the
    parameters are torchvision's.

    Parameters
    ----------
    block : class
        `BasicBlock` or `Bottleneck`.
    blocks : (int, int, int, int)
        Their number in each stage.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    **options
        For each block: `attention`, `shortcut`, and a Bottleneck's `groups` and `width_per_group`.

    Raises
    ------
    ValueError
        If there are not four numbers of blocks, each of them 1 at least.

    Attributes
    ----------
    conv1, bn1, maxpool, layer1, layer2, layer3, layer4, avgpool, fc : Module
        Its parts.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition" (2016), table 1.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        **options: Any,
    ):
        super().__init__()
        check_stages(self, 4, blocks=blocks)
        expansion = block.expansion
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = stage(block, 64, 64, blocks[0], 1, **options)
        self.layer2 = stage(block, 64 * expansion, 128, blocks[1], 2, **options)
        self.layer3 = stage(block, 128 * expansion, 256, blocks[2], 2, **options)
        self.layer4 = stage(block, 256 * expansion, 512, blocks[3], 2, **options)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * expansion, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(
    num_classes: int = 1000, in_channels: int = 3, attention: Attention | None = None
) -> ResNet:
    """ResNet-18: 11,689,512 parameters with 1000 classes. See `ResNet`."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, attention=attention)


def resnet34(
    num_classes: int = 1000, in_channels: int = 3, attention: Attention | None = None
) -> ResNet:
    """ResNet-34: 21,797,672 parameters with 1000 classes. See `ResNet`."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, attention=attention)


def resnet50(
    num_classes: int = 1000, in_channels: int = 3, attention: Attention | None = None
) -> ResNet:
    """ResNet-50: 25,557,032 parameters with 1000 classes. See `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, attention=attention)


def resnet101(
    num_classes: int = 1000, in_channels: int = 3, attention: Attention | None = None
) -> ResNet:
    """ResNet-101: 44,549,160 parameters with 1000 classes. See `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels, attention=attention)


def resnet152(
    num_classes: int = 1000, in_channels: int = 3, attention: Attention | None = None
) -> ResNet:
    """ResNet-152: 60,192,808 parameters with 1000 classes. See `ResNet`."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, in_channels, attention=attention)
