"""MobileNetV2: residual blocks that are wide inside and narrow where they are added."""

from __future__ import annotations

from .. import nn
from ..engine import Tensor

#: Expansion t, channels c, repeats n and first stride s of each stage: table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class ConvBNReLU6(nn.Sequential):
    r"""A convolution that keeps the image's size at stride 1: :math:`y = relu6(BN(conv(x)))`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, groups
        Of the `nn.Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
    ):
        padding = kernel_size // 2
        super().__init__(
            nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    r"""Expand, filter each channel, project: a residual block that is wide inside, not outside.

    .. math:: R(x) = BN(V\, relu6(BN(w * relu6(BN(U x)))))

    U is a 1x1 convolution to t C channels (left out if t = 1), w a depthwise 3x3 convolution, and V
    a 1x1 convolution to O channels that no activation follows: the "linear bottleneck". Where the
    shape stays, :math:`y = x + R(x)`, else :math:`y = R(x)`.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels C and O.
    stride : int
        Of the depthwise convolution.
    expansion : int
        t.

    References
    ----------
    Sandler et al., "MobileNetV2" (2018), table 1 and figure 4 (d).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int):
        super().__init__()
        width = expansion * in_channels
        self.is_residual = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential()
        if expansion != 1:
            self.conv.append(ConvBNReLU6(in_channels, width, 1))
        self.conv.append(ConvBNReLU6(width, width, 3, stride, groups=width))
        self.conv.append(nn.Conv2d(width, out_channels, 1, bias=False))
        self.conv.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        return x + self.conv(x) if self.is_residual else self.conv(x)


class MobileNetV2(nn.Module):
    """A 3x3 convolution, 17 inverted residual blocks, a 1x1 convolution, a classifier.

    The parameters have torchvision's names.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    width_mult : float
        Multiplies the channels of every layer, which are then rounded to multiples of 8; the last
        1x1 convolution is never narrower than 1280.

    Attributes
    ----------
    features, avgpool, classifier : Module
        Its parts.

    References
    ----------
    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), table 2.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, width_mult: float = 1.0):
        super().__init__()
        before, last = _to_eights(32 * width_mult), _to_eights(1280 * max(1.0, width_mult))
        self.features = nn.Sequential(ConvBNReLU6(in_channels, before, 3, stride=2))
        for expansion, channels, repeats, stride in STAGES:
            after = _to_eights(channels * width_mult)
            for i in range(repeats):
                s = stride if i == 0 else 1
                self.features.append(InvertedResidual(before, after, s, expansion))
                before = after
        self.features.append(ConvBNReLU6(before, last, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def mobilenet_v2(
    num_classes: int = 1000, in_channels: int = 3, width_mult: float = 1.0
) -> MobileNetV2:
    """MobileNetV2: 3,504,872 parameters with 1000 classes. See `MobileNetV2`."""
    return MobileNetV2(num_classes, in_channels, width_mult)


def _to_eights(channels: float) -> int:
    """The nearest multiple of 8, but at least 8 and at least nine tenths of the channels."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
