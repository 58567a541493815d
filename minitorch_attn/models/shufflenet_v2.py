"""ShuffleNet v2: half of the channels pass, half are filtered, then all are shuffled."""

from __future__ import annotations

from collections.abc import Sequence

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .stages import check_stages

#: Units of stages 2, 3 and 4.
REPEATS = (4, 8, 4)


class InvertedResidual(nn.Module):
    r"""Half of the channels pass, the other half are filtered; then the halves are shuffled.

    .. math:: y = shuffle([a, R(b)]), \qquad
              R(b) = relu(BN(V\, BN(w * relu(BN(U b)))))

    with a and b the halves of x, 1x1 convolutions U and V without groups, and a depthwise 3x3
    convolution w. With stride 2 nothing is cut: b is x, and in place of a stands a branch of its
    own, a depthwise and a 1x1 convolution of x.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels C and O; equal with stride 1.
    stride : int
        1 or 2.

    Raises
    ------
    ValueError
        If the output channels have no halves, or the stride is 1 and changes their number.

    References
    ----------
    Ma et al., "ShuffleNet V2" (2018), figure 3 (c) and (d). The name is torchvision's.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        if out_channels % 2 or (stride == 1 and in_channels != out_channels):
            raise ValueError(
                f"InvertedResidual: out_channels must be even, and with stride 1 equal to "
                f"in_channels, not {out_channels} with in_channels={in_channels}, stride={stride}"
            )
        half = out_channels // 2
        self.stride = stride
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(
                *_depthwise(in_channels, stride), *_pointwise(in_channels, half)
            )
        self.branch2 = nn.Sequential(
            *_pointwise(in_channels if stride > 1 else half, half),
            *_depthwise(half, stride),
            *_pointwise(half, half),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        a, b = (x, x) if self.stride > 1 else F.chunk(x, 2, dim=1)
        return F.channel_shuffle(F.cat([self.branch1(a), self.branch2(b)], dim=1), 2)


class ShuffleNetV2(nn.Module):
    """A 3x3 convolution, three stages of units, a 1x1 convolution, a classifier.

    The parameters have torchvision's names.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    widths : sequence of int
        Channels of stages 2, 3 and 4, all even, and of the last convolution.

    Attributes
    ----------
    conv1, maxpool, stage2, stage3, stage4, conv5, avgpool, fc : Module
        Its parts.

    Raises
    ------
    ValueError
        If there are not four widths, or a stage's is odd.

    References
    ----------
    Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design" (2018),
    table 5.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        widths: Sequence[int] = (116, 232, 464, 1024),
    ):
        super().__init__()
        check_stages(self, 4, widths=widths)
        *stage_widths, last = widths
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()
        )
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.stage2, self.stage3, self.stage4 = (
            _stage(before, width, repeats)
            for before, width, repeats in zip((24, *stage_widths), stage_widths, REPEATS)
        )
        self.conv5 = nn.Sequential(*_pointwise(stage_widths[-1], last))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.maxpool(self.conv1(x))
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        return self.fc(self.avgpool(x).flatten(1))


def shufflenet_v2_x0_5(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV2:
    """ShuffleNet v2 of half width: 1,366,792 parameters with 1000 classes. See `ShuffleNetV2`."""
    return ShuffleNetV2(num_classes, in_channels, (48, 96, 192, 1024))


def shufflenet_v2_x1_0(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV2:
    """ShuffleNet v2: 2,278,604 parameters with 1000 classes. See `ShuffleNetV2`."""
    return ShuffleNetV2(num_classes, in_channels, (116, 232, 464, 1024))


def shufflenet_v2_x1_5(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV2:
    """ShuffleNet v2, 1.5 times as wide: 3,503,624 parameters. See `ShuffleNetV2`."""
    return ShuffleNetV2(num_classes, in_channels, (176, 352, 704, 1024))


def shufflenet_v2_x2_0(num_classes: int = 1000, in_channels: int = 3) -> ShuffleNetV2:
    """ShuffleNet v2 of double width: 7,393,996 parameters with 1000 classes. See `ShuffleNetV2`."""
    return ShuffleNetV2(num_classes, in_channels, (244, 488, 976, 2048))


def _stage(in_channels: int, width: int, repeats: int) -> nn.Sequential:
    """One unit that halves the image, then units that keep it."""
    return nn.Sequential(
        InvertedResidual(in_channels, width, 2),
        *(InvertedResidual(width, width, 1) for _ in range(repeats - 1)),
    )


def _pointwise(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """A 1x1 convolution, batch normalisation and a ReLU."""
    return (
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def _depthwise(channels: int, stride: int) -> tuple[nn.Module, ...]:
    """A 3x3 kernel for each channel and batch normalisation; no ReLU."""
    return (
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    )
