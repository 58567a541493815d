"""Stages of the backbone made of the blocks of other networks, from VGG to NASNet."""

from __future__ import annotations

from .. import nn
from ..engine import Tensor
from ..models.conv_bn import ConvBN
from ..models.densenet import DenseBlock
from ..models.dpn import DualPathBlock
from ..models.googlenet import Inception
from ..models.mobilenet_v1 import DepthwiseSeparable
from ..models.mobilenet_v2 import InvertedResidual as LinearBottleneck
from ..models.nasnet import NORMAL, REDUCTION, Cell
from ..models.preact_resnet import PreActBasicBlock
from ..models.pyramidnet import PyramidBlock
from ..models.resnet import Bottleneck
from ..models.shufflenet_v1 import ShuffleUnit
from ..models.shufflenet_v2 import InvertedResidual as HalfPassing
from ..models.squeezenet import Fire
from ..models.xception import XceptionBlock
from .backbone import Stage


def vgg(before: int, after: int, stride: int) -> nn.Module:
    """Two plain 3x3 convolutions."""
    layers = (ConvBN(before, after, 3, padding=1), ConvBN(after, after, 3, padding=1))
    return nn.Sequential(*_halved(stride), *layers)


def inception(before: int, after: int, stride: int) -> nn.Module:
    """An Inception module, with batch normalisation: a quarter, a half and two eighths."""
    eighth = after // 8
    widths = (2 * eighth, 2 * eighth, 4 * eighth, eighth, eighth, eighth)
    return nn.Sequential(*_halved(stride), Inception(before, widths, batch_norm=True))


def preact_resnet(before: int, after: int, stride: int) -> nn.Module:
    """A pre-activation block; the normalisation and ReLU that its network ends with are here."""
    return nn.Sequential(PreActBasicBlock(before, after, stride), *_activated(after))


def pyramidnet(before: int, after: int, stride: int) -> nn.Module:
    """A block with batch normalisation before, between and behind, and one ReLU."""
    return nn.Sequential(PyramidBlock(before, after, stride), *_activated(after))


def resnext(before: int, after: int, stride: int) -> nn.Module:
    """A bottleneck in four groups, half as wide as its ends."""
    return Bottleneck(before, after // 4, stride, groups=4, width_per_group=32)


def densenet(before: int, after: int, stride: int) -> nn.Module:
    """Four dense layers, and a 1x1 convolution to the width that is wanted."""
    dense = DenseBlock(4, before, after // 4, bottleneck=False)
    return nn.Sequential(*_halved(stride), dense, ConvBN(before + after, after, 1))


def dual_path(before: int, after: int, stride: int) -> nn.Module:
    """A dual path block: a quarter of the channels is added to, the others are appended."""
    quarter = after // 4
    block = DualPathBlock(before, 2 * quarter, quarter, quarter, groups=4, stride=stride)
    return nn.Sequential(block, *_activated(after))


def xception(before: int, after: int, stride: int) -> nn.Module:
    """Two separable convolutions with a shortcut around them."""
    block = XceptionBlock(before, (after, after), stride, first_relu=False)
    return nn.Sequential(block, nn.ReLU())


def mobilenet(before: int, after: int, stride: int) -> nn.Module:
    """Two depthwise separable convolutions."""
    return nn.Sequential(
        DepthwiseSeparable(before, after, stride), DepthwiseSeparable(after, after)
    )


def mobilenet_v2(before: int, after: int, stride: int) -> nn.Module:
    """An inverted residual block, four times as wide inside."""
    return nn.Sequential(LinearBottleneck(before, after, stride, expansion=4), nn.ReLU6())


def shufflenet(before: int, after: int, stride: int) -> nn.Module:
    """Two shuffle units of two groups."""
    return nn.Sequential(
        ShuffleUnit(before, after, stride, groups=2), ShuffleUnit(after, after, 1, groups=2)
    )


def shufflenet_v2(before: int, after: int, stride: int) -> nn.Module:
    """Two units through which half of the channels pass."""
    return nn.Sequential(HalfPassing(before, after, stride), HalfPassing(after, after, 1))


def squeezenet(before: int, after: int, stride: int) -> nn.Module:
    """A Fire module, and the batch normalisation that its network lacks."""
    fire = Fire(before, after // 4, after // 2)
    return nn.Sequential(*_halved(stride), fire, nn.BatchNorm2d(after))


class NASNetStage(nn.Module):
    """A cell of NASNet-A, and a 1x1 convolution to the width that is wanted.

    Both inputs of the cell are the one that there is.

    Parameters
    ----------
    before, after, stride : int
        Channels before and after; the reduction cell is for stride 2.
    """

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        plan, width = (NORMAL if stride == 1 else REDUCTION), after // 4
        self.cell = Cell(plan, before, before, width)
        self.fit = ConvBN(len(plan.output) * width, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, O, P, Q)."""
        return self.fit(self.cell(x, x))


def _halved(stride: int) -> list[nn.Module]:
    return [nn.MaxPool2d(2)] if stride == 2 else []


def _activated(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


FAMILIES: dict[str, Stage] = {
    "VGG": vgg,
    "Inception": inception,
    "pre-activation ResNet": preact_resnet,
    "PyramidNet": pyramidnet,
    "ResNeXt": resnext,
    "DenseNet": densenet,
    "dual path network": dual_path,
    "Xception": xception,
    "MobileNet": mobilenet,
    "MobileNetV2": mobilenet_v2,
    "ShuffleNet": shufflenet,
    "ShuffleNetV2": shufflenet_v2,
    "SqueezeNet": squeezenet,
    "NASNet-A": NASNetStage,
}
