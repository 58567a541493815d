"""DPN: a residual and a dense path through the same blocks."""

from __future__ import annotations

from collections.abc import Sequence

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .conv_bn import ConvBN
from .stages import check_stages


class BNReLUConv(nn.Module):
    r"""Batch normalisation and a ReLU before the convolution: :math:`y = conv(relu(BN(x)))`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, groups
        Of the `nn.Conv2d`, which keeps the image's size at stride 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
    ):
        super().__init__()
        padding = kernel_size // 2
        self.bn = nn.BatchNorm2d(in_channels, eps=0.001)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q)."""
        return self.conv(F.relu(self.bn(x)))


class DualPathBlock(nn.Module):
    r"""A bottleneck that adds to one path, as a ResNet does, and appends to another, as a DenseNet.

    .. math:: (a, b) = F([r, d]), \qquad r \leftarrow r + a, \qquad d \leftarrow [d, b]

    F is a 1x1, a grouped 3x3 and a 1x1 convolution, each behind batch normalisation and a ReLU. The
    first block of a stage makes both paths anew, by a 1x1 convolution of its input.

    Parameters
    ----------
    in_channels : int
        Channels of both paths together.
    width : int
        Channels inside the bottleneck.
    residual : int
        Channels of the residual path r.
    growth : int
        Channels appended to the dense path d; a first block makes two times as many first.
    groups : int
        G, of the 3x3 convolution.
    stride : int, optional
        Of a first block; None for the others.

    References
    ----------
    Chen et al., "Dual Path Networks" (2017), section 3.2 and figure 2 (d).
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        residual: int,
        growth: int,
        groups: int,
        stride: int | None = None,
    ):
        super().__init__()
        self.residual = residual
        self.projection: nn.Module | None = None
        if stride is not None:
            self.projection = BNReLUConv(in_channels, residual + 2 * growth, 1, stride)
        self.bottleneck = nn.Sequential(
            BNReLUConv(in_channels, width),
            BNReLUConv(width, width, 3, stride or 1, groups),
            BNReLUConv(width, residual + growth),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map both paths, side by side in x = [r, d] (N, C, H, W), to the new ones."""
        r, d = self.paths(x if self.projection is None else self.projection(x))
        a, b = self.paths(self.bottleneck(x))
        return F.cat([r + a, d, b], dim=1)

    def paths(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cut channels into the residual path and the dense path."""
        return x[:, : self.residual], x[:, self.residual :]


class DPN(nn.Module):
    """A convolution, four stages of dual path blocks, the mean of each channel, a classifier.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    stem_channels : int
        Channels of the first convolution.
    stem_kernel : int
        Its kernel's size, 3 or 7.
    residual : int
        Channels of the residual path in the first stage; doubled with each stage.
    width : int
        Channels inside a bottleneck in the first stage; doubled with each stage.
    groups : int
        Of the 3x3 convolutions.
    blocks : sequence of int
        Number of blocks of each stage.
    growth : sequence of int
        Channels that a block of each stage appends to the dense path.

    Attributes
    ----------
    stem, stages, norm, avgpool, fc : Module
        Its parts.

    Raises
    ------
    ValueError
        If `blocks` and `growth` differ in length.
    ShapeError
        If `groups` does not divide the width.

    References
    ----------
    Chen et al., "Dual Path Networks" (2017), table 1: DPN-92 and DPN-98. The others are in the
    authors' program.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        stem_channels: int,
        stem_kernel: int,
        residual: int,
        width: int,
        groups: int,
        blocks: Sequence[int],
        growth: Sequence[int],
    ):
        super().__init__()
        check_stages(self, len(blocks), growth=growth)
        self.stem = nn.Sequential(
            ConvBN(in_channels, stem_channels, stem_kernel, 2, stem_kernel // 2, eps=0.001),
            nn.MaxPool2d(3, 2, padding=1),
        )
        self.stages = nn.Sequential()
        before = stem_channels
        for number, (depth, k) in enumerate(zip(blocks, growth)):
            r, inside = residual * 2**number, width * 2**number
            stage = nn.Sequential()
            for i in range(depth):
                stride = None if i > 0 else 1 if number == 0 else 2
                stage.append(DualPathBlock(before, inside, r, k, groups, stride))
                before = r + (3 + i) * k
            self.stages.append(stage)
        self.norm = nn.BatchNorm2d(before, eps=0.001)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = F.relu(self.norm(self.stages(self.stem(x))))
        return self.fc(self.avgpool(x).flatten(1))


def dpn68(num_classes: int = 1000, in_channels: int = 3) -> DPN:
    """DPN-68: 12,611,602 parameters with 1000 classes. See `DPN`."""
    return DPN(
        num_classes,
        in_channels,
        stem_channels=10,
        stem_kernel=3,
        residual=64,
        width=128,
        groups=32,
        blocks=(3, 4, 12, 3),
        growth=(16, 32, 32, 64),
    )


def dpn92(num_classes: int = 1000, in_channels: int = 3) -> DPN:
    """DPN-92: 37,668,392 parameters with 1000 classes. See `DPN`."""
    return DPN(
        num_classes,
        in_channels,
        stem_channels=64,
        stem_kernel=7,
        residual=256,
        width=96,
        groups=32,
        blocks=(3, 4, 20, 3),
        growth=(16, 32, 24, 128),
    )


def dpn98(num_classes: int = 1000, in_channels: int = 3) -> DPN:
    """DPN-98: 61,570,728 parameters with 1000 classes. See `DPN`."""
    return DPN(
        num_classes,
        in_channels,
        stem_channels=96,
        stem_kernel=7,
        residual=256,
        width=160,
        groups=40,
        blocks=(3, 6, 20, 3),
        growth=(16, 32, 32, 128),
    )


def dpn107(num_classes: int = 1000, in_channels: int = 3) -> DPN:
    """DPN-107: 86,917,800 parameters with 1000 classes. See `DPN`."""
    return DPN(
        num_classes,
        in_channels,
        stem_channels=128,
        stem_kernel=7,
        residual=256,
        width=200,
        groups=50,
        blocks=(4, 8, 20, 3),
        growth=(20, 64, 64, 128),
    )


def dpn131(num_classes: int = 1000, in_channels: int = 3) -> DPN:
    """DPN-131: 79,254,504 parameters with 1000 classes. See `DPN`."""
    return DPN(
        num_classes,
        in_channels,
        stem_channels=128,
        stem_kernel=7,
        residual=256,
        width=160,
        groups=40,
        blocks=(4, 8, 28, 3),
        growth=(16, 32, 32, 128),
    )
