"""PyramidNet: a residual network that widens a little at every block."""

from __future__ import annotations

import math

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .cifar_resnet import add_zero_channels
from .initialization import initialize
from .stages import blocks_per_stage


class PyramidBlock(nn.Module):
    r"""Two 3x3 convolutions with batch normalisation before, between and behind them, and one ReLU.

    .. math:: y = BN(V * relu(BN(U * BN(x)))) + S(x)

    U and V are the kernels. The shortcut S has no parameters: zeros stand for the channels that x
    has not, and where the image is halved, S is the mean of 2x2 pixels.

    Parameters
    ----------
    in_channels, width : int
        Channels before and after.
    stride : int
        Of the first convolution: 2 halves the image.

    References
    ----------
    Han et al., "Deep Pyramidal Residual Networks" (2017), figure 6 (d) and section 3.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        branch = self.conv1(self.bn1(x))
        branch = self.conv2(F.relu(self.bn2(branch)))
        branch = self.bn3(branch)
        return branch + _shortcut(x, branch.shape[1], self.stride)


class PyramidBottleneck(nn.Module):
    r"""A 1x1, a 3x3 and a 1x1 convolution, with batch normalisation as in `PyramidBlock`.

    .. math:: y = BN(W * relu(BN(V * relu(BN(U * BN(x)))))) + S(x)

    U and W are 1x1 kernels, V is 3x3, and S is as in `PyramidBlock`.

    Parameters
    ----------
    in_channels, width : int
        Channels before, and a quarter of those after.
    stride : int
        Of the 3x3 convolution.

    References
    ----------
    Han et al., "Deep Pyramidal Residual Networks" (2017), figure 6 (d) and section 3.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn4 = nn.BatchNorm2d(width * self.expansion)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, 4 * width, P, Q), with P = H / stride rounded up."""
        branch = self.conv1(self.bn1(x))
        branch = self.conv2(F.relu(self.bn2(branch)))
        branch = self.conv3(F.relu(self.bn3(branch)))
        branch = self.bn4(branch)
        return branch + _shortcut(x, branch.shape[1], self.stride)


def _shortcut(x: Tensor, out_channels: int, stride: int) -> Tensor:
    if stride > 1:
        x = F.avg_pool2d(x, stride, ceil_mode=True)
    return add_zero_channels(x, out_channels)


class PyramidNet(nn.Module):
    r"""A 3x3 convolution, three stages of blocks that widen steadily, means, a linear map.

    The k-th of 3 n blocks has the width

    .. math:: D_k = \lfloor 16 + k \alpha / (3 n) + 1/2 \rfloor

    The last sum is followed by a batch normalisation and a ReLU.

    Parameters
    ----------
    block : class
        `PyramidBlock` or `PyramidBottleneck`.
    n : int
        Blocks in each stage.
    alpha : int
        Widening :math:`\alpha` from the first convolution to the last block.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.

    Attributes
    ----------
    conv1, bn1, layer1, layer2, layer3, bn_final, avgpool, fc : Module
        Its parts.

    References
    ----------
    Han et al., "Deep Pyramidal Residual Networks" (2017), equation 3 and table 1.
    """

    def __init__(
        self,
        block: type[PyramidBlock] | type[PyramidBottleneck],
        n: int,
        alpha: int,
        num_classes: int = 10,
        in_channels: int = 3,
    ):
        super().__init__()
        widths = [math.floor(16 + k * alpha / (3 * n) + 0.5) for k in range(1, 3 * n + 1)]
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = [16, *(width * block.expansion for width in widths)]
        strides = [2 if k in (n, 2 * n) else 1 for k in range(3 * n)]
        blocks = [block(c, width, stride) for c, width, stride in zip(channels, widths, strides)]
        self.layer1 = nn.Sequential(*blocks[:n])
        self.layer2 = nn.Sequential(*blocks[n : 2 * n])
        self.layer3 = nn.Sequential(*blocks[2 * n :])
        self.bn_final = nn.BatchNorm2d(channels[-1])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[-1], num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.bn1(self.conv1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.relu(self.bn_final(x))
        return self.fc(self.avgpool(x).flatten(1))


def pyramidnet(
    depth: int = 110,
    alpha: int = 48,
    num_classes: int = 10,
    in_channels: int = 3,
    bottleneck: bool = False,
) -> PyramidNet:
    """PyramidNet for CIFAR; 110 layers with alpha = 48 have 1,772,706 parameters.

    Parameters
    ----------
    depth : int
        Layers that have weights: 6 n + 2, or 9 n + 2 with bottlenecks.
    alpha : int
        Widening from the first convolution to the last block.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    bottleneck : bool
        Whether to build of `PyramidBottleneck` rather than `PyramidBlock`.

    Raises
    ------
    ValueError
        If there is no such depth.

    References
    ----------
    Han et al., "Deep Pyramidal Residual Networks" (2017), table 4.
    """
    block: type[PyramidBlock] | type[PyramidBottleneck]
    block, layers = (PyramidBottleneck, 3) if bottleneck else (PyramidBlock, 2)
    return PyramidNet(block, blocks_per_stage(depth, layers), alpha, num_classes, in_channels)
