"""Pre-activation ResNet: normalise and rectify before each convolution, and never after adding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .cifar_resnet import ZeroPadding
from .initialization import initialize
from .resnet import Attention, Shortcut, attend
from .stages import blocks_per_stage, check_stages, stage


def plain_projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option B of a pre-activation network: a 1x1 convolution, without batch normalisation."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


SHORTCUTS = {"A": ZeroPadding, "B": plain_projection}


class PreActBasicBlock(nn.Module):
    r"""A residual block of two 3x3 convolutions, each behind its batch normalisation and ReLU.

    .. math:: a = relu(BN(x)), \qquad y = V * relu(BN(U * a)) + S

    U and V are the kernels. The shortcut S is x itself, unchanged from one end of a stage to the
    other. Where the shape changes, the branch and the shortcut share the activation: S is made of
    a, not of x.

    Parameters
    ----------
    in_channels, width : int
        Channels before and after.
    stride : int
        Of the first convolution: 2 halves the image.
    shortcut : callable
        ``shortcut(in_channels, out_channels, stride)`` makes S of a where the shape changes.
    attention : callable, optional
        ``attention(channels)`` makes a module that the branch goes through before the addition.
    dropout : float
        Probability of a zero in front of the second convolution (wide networks).

    References
    ----------
    He et al., "Identity Mappings in Deep Residual Networks" (2016), figure 4 (e) and appendix;
    Zagoruyko and Komodakis, "Wide Residual Networks" (2016), figure 1 (d).
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        shortcut: Shortcut = plain_projection,
        attention: Attention | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        keeps_shape = stride == 1 and in_channels == width
        self.shortcut = None if keeps_shape else shortcut(in_channels, width, stride)
        self.attention = attend(attention, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        a = F.relu(self.bn1(x))
        branch = F.relu(self.bn2(self.conv1(a)))
        branch = self.conv2(self.dropout(branch))
        return self.attention(branch) + (x if self.shortcut is None else self.shortcut(a))


class PreActBottleneck(nn.Module):
    r"""A 1x1, a 3x3 and a 1x1 convolution, each behind its batch normalisation and ReLU.

    .. math:: a = relu(BN(x)), \qquad y = W * relu(BN(V * relu(BN(U * a)))) + S

    U and W are 1x1 kernels, V is 3x3, and S is as in `PreActBasicBlock`. The 3x3 convolution has
    the stride, as in `Bottleneck`; the program published with the paper gives it to the first 1x1.

    Parameters
    ----------
    in_channels, width : int
        Channels before, and a quarter of those after.
    stride, shortcut, attention
        As in `PreActBasicBlock`.

    References
    ----------
    He et al., "Identity Mappings in Deep Residual Networks" (2016), figure 4 (e).
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        shortcut: Shortcut = plain_projection,
        attention: Attention | None = None,
    ):
        super().__init__()
        outer = width * self.expansion
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outer, 1, bias=False)
        keeps_shape = stride == 1 and in_channels == outer
        self.shortcut = None if keeps_shape else shortcut(in_channels, outer, stride)
        self.attention = attend(attention, outer)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, 4 * width, P, Q), with P = H / stride rounded up."""
        a = F.relu(self.bn1(x))
        branch = F.relu(self.bn2(self.conv1(a)))
        branch = F.relu(self.bn3(self.conv2(branch)))
        branch = self.conv3(branch)
        return self.attention(branch) + (x if self.shortcut is None else self.shortcut(a))


class PreActResNet(nn.Module):
    """A 3x3 convolution, three stages of n blocks, a last activation, means, a linear map.

    The last block's sum has not been normalised nor rectified: the network ends with a batch
    normalisation and a ReLU of its own, in front of the mean.

    Parameters
    ----------
    block : class
        `PreActBasicBlock` or `PreActBottleneck`.
    n : int
        Blocks in each stage.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    widths : (int, int, int)
        Of the blocks of each stage.
    **options
        For each block: `shortcut`, `attention`, and a basic one's `dropout`.

    Raises
    ------
    ValueError
        If there are not three widths, or n is less than 1.

    Attributes
    ----------
    conv1, layer1, layer2, layer3, bn, avgpool, fc : Module
        Its parts.

    References
    ----------
    He et al., "Identity Mappings in Deep Residual Networks" (2016), appendix.
    """

    def __init__(
        self,
        block: type[PreActBasicBlock] | type[PreActBottleneck],
        n: int,
        num_classes: int = 10,
        in_channels: int = 3,
        widths: Sequence[int] = (16, 32, 64),
        **options: Any,
    ):
        super().__init__()
        check_stages(self, 3, widths=widths)
        first, second, third = (width * block.expansion for width in widths)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.layer1 = stage(block, 16, widths[0], n, 1, **options)
        self.layer2 = stage(block, first, widths[1], n, 2, **options)
        self.layer3 = stage(block, second, widths[2], n, 2, **options)
        self.bn = nn.BatchNorm2d(third)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = F.relu(self.bn(x))
        return self.fc(self.avgpool(x).flatten(1))


def preact_resnet(
    depth: int,
    num_classes: int = 10,
    in_channels: int = 3,
    shortcut: str = "B",
    bottleneck: bool = True,
    attention: Attention | None = None,
) -> PreActResNet:
    """The pre-activation ResNet for CIFAR of any depth.

    Parameters
    ----------
    depth : int
        Layers that have weights: 9 n + 2, or 6 n + 2 without bottlenecks.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    shortcut : str
        Where the shape changes: "A", zeros for new channels, or "B", a 1x1 convolution.
    bottleneck : bool
        Whether to build of `PreActBottleneck` rather than `PreActBasicBlock`.
    attention : callable, optional
        ``attention(channels)`` makes a module for the residual branch of each block.

    Raises
    ------
    ValueError
        If there is no such depth or shortcut.

    References
    ----------
    He et al., "Identity Mappings in Deep Residual Networks" (2016), table 3.
    """
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut must be one of {', '.join(SHORTCUTS)}, not {shortcut!r}")
    return PreActResNet(
        PreActBottleneck if bottleneck else PreActBasicBlock,
        blocks_per_stage(depth, layers_per_block=3 if bottleneck else 2),
        num_classes,
        in_channels,
        shortcut=SHORTCUTS[shortcut],
        attention=attention,
    )


def preact_resnet110(
    num_classes: int = 10, in_channels: int = 3, attention: Attention | None = None
) -> PreActResNet:
    """Pre-activation ResNet-110 of basic blocks: 1,727,962 parameters. See `preact_resnet`."""
    return preact_resnet(110, num_classes, in_channels, "A", False, attention)


def preact_resnet164(
    num_classes: int = 10, in_channels: int = 3, attention: Attention | None = None
) -> PreActResNet:
    """Pre-activation ResNet-164 of bottlenecks: 1,703,258 parameters. See `preact_resnet`."""
    return preact_resnet(164, num_classes, in_channels, "B", True, attention)


def preact_resnet1001(
    num_classes: int = 10, in_channels: int = 3, attention: Attention | None = None
) -> PreActResNet:
    """Pre-activation ResNet-1001 of bottlenecks: 10,327,706 parameters. See `preact_resnet`."""
    return preact_resnet(1001, num_classes, in_channels, "B", True, attention)
