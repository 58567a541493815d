"""MobileNet: convolutions split into one kernel for each channel and a mixing of channels."""

from __future__ import annotations

from .. import nn
from ..engine import Tensor
from .conv_bn import ConvBN

#: (width, stride) of each depthwise separable convolution: table 1 of the paper.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)


class DepthwiseSeparable(nn.Module):
    r"""One 3x3 kernel for each channel, then a mixing of channels at each pixel.

    .. math:: z_c = relu(BN(w_c * x_c)), \qquad y = relu(BN(V z))

    with a kernel :math:`w_c` of 3x3 for channel c, and a 1x1 convolution V. It multiplies
    :math:`1/O + 1/9` times as often as a full 3x3 convolution to O channels.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels C and O.
    stride : int
        Of the depthwise convolution.

    References
    ----------
    Howard et al., "MobileNets" (2017), section 3.1 and figure 3.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.depthwise = ConvBN(in_channels, in_channels, 3, stride, 1, groups=in_channels)
        self.pointwise = ConvBN(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        return self.pointwise(self.depthwise(x))


class MobileNetV1(nn.Module):
    """A 3x3 convolution and 13 depthwise separable ones, the mean of each channel, a classifier.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    width_mult : float
        Every layer has so many times the channels of the paper's table 1, where it is alpha.

    Attributes
    ----------
    features, avgpool, fc : Module
        Its parts.

    References
    ----------
    Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
    Applications" (2017), table 1 and section 3.3.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, width_mult: float = 1.0):
        super().__init__()
        width = int(32 * width_mult)
        self.features = nn.Sequential(ConvBN(in_channels, width, 3, 2, 1))
        for full_width, stride in BLOCKS:
            before, width = width, int(full_width * width_mult)
            self.features.append(DepthwiseSeparable(before, width, stride))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        return self.fc(self.avgpool(self.features(x)).flatten(1))


def mobilenet_v1(
    num_classes: int = 1000, in_channels: int = 3, width_mult: float = 1.0
) -> MobileNetV1:
    """MobileNet: 4,231,976 parameters with 1000 classes. See `MobileNetV1`."""
    return MobileNetV1(num_classes, in_channels, width_mult)
