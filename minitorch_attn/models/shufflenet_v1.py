"""ShuffleNet: 1x1 convolutions in groups, and a shuffle of channels between the groups."""

from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .conv_bn import ConvBN

#: Channels of stages 2, 3 and 4 by the number of groups: table 1 of the paper.
WIDTHS = {
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}
#: Units of each stage.
REPEATS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    r"""A bottleneck of grouped 1x1 convolutions, with a shuffle that lets the groups talk.

    .. math:: R(x) = BN(V\, BN(w * shuffle(relu(BN(U x)))))

    U and V are 1x1 convolutions in g groups, to a quarter of the output channels and back; w is a
    depthwise 3x3 convolution, which no ReLU follows. With stride 1,
    :math:`y = relu(x + R(x))`. With stride 2, :math:`y = relu([pool(x), R(x)])`: the 3x3 mean of x
    is put beside R(x), which makes only the O - C channels that are missing.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels C and O; equal with stride 1.
    stride : int
        1 or 2.
    groups : int
        g, of V and of the shuffle.
    groups_in : int, optional
        Groups of U; g if left out. The first unit of the network has 1: its few channels are not
        worth a division.

    References
    ----------
    Zhang et al., "ShuffleNet" (2018), figure 2 (b) and (c).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        groups: int,
        groups_in: int | None = None,
    ):
        super().__init__()
        width = out_channels // 4
        made = out_channels if stride == 1 else out_channels - in_channels
        self.stride = stride
        self.groups = groups
        self.reduce = ConvBN(in_channels, width, 1, groups=groups_in or groups)
        self.depthwise = ConvBN(width, width, 3, stride, 1, groups=width, relu=False)
        self.expand = ConvBN(width, made, 1, groups=groups, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        branch = F.channel_shuffle(self.reduce(x), self.groups)
        branch = self.expand(self.depthwise(branch))
        if self.stride == 1:
            return F.relu(x + branch)
        return F.relu(F.cat([F.avg_pool2d(x, 3, 2, 1), branch], dim=1))


class ShuffleNetV1(nn.Module):
    """A 3x3 convolution, three stages of shuffle units, the mean of each channel, a classifier.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    groups : int
        g: 1, 2, 3, 4 or 8. More groups make room for more channels.

    Attributes
    ----------
    conv1, maxpool, stages, avgpool, fc : Module
        Its parts.

    Raises
    ------
    ValueError
        If the paper has no such network.

    References
    ----------
    Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
    Devices" (2018), table 1.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, groups: int = 3):
        super().__init__()
        if groups not in WIDTHS:
            raise ValueError(
                f"ShuffleNetV1: groups must be one of {', '.join(map(str, WIDTHS))}, for which the "
                f"paper gives widths, not {groups}"
            )
        before = 24
        self.conv1 = ConvBN(in_channels, before, 3, 2, 1)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.stages = nn.Sequential()
        for number, (width, repeats) in enumerate(zip(WIDTHS[groups], REPEATS)):
            groups_in = 1 if number == 0 else groups
            stage = nn.Sequential(ShuffleUnit(before, width, 2, groups, groups_in))
            for _ in range(repeats - 1):
                stage.append(ShuffleUnit(width, width, 1, groups))
            self.stages.append(stage)
            before = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.stages(self.maxpool(self.conv1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def shufflenet_v1(num_classes: int = 1000, in_channels: int = 3, groups: int = 3) -> ShuffleNetV1:
    """ShuffleNet: 1,865,728 parameters with 3 groups and 1000 classes. See `ShuffleNetV1`."""
    return ShuffleNetV1(num_classes, in_channels, groups)
