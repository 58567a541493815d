"""The networks of the Squeeze-and-Excitation paper: SE-ResNet, SE-ResNeXt, SE-Inception, SENet-154.

All but the last are networks of the review with `SqueezeExcitation` as the `attention` of their
blocks; `reduction` is its r. The released models have biases in both layers of each, so `bias` is
true here; without it they are those of the paper's ablations. With 1000 classes and r = 16:

==========================  ===========  ====================  =============
network                     parameters   attention's share     without bias
==========================  ===========  ====================  =============
SE-ResNet-50                28,088,024   2,530,992             28,071,976
SE-ResNet-101               49,326,872   4,777,712             49,292,328
SE-ResNet-152               66,821,848   6,629,040             66,770,984
SE-ResNeXt-50 (32 x 4d)     27,559,896   2,530,992             27,543,848
SE-ResNeXt-101 (32 x 4d)    48,955,416   4,777,712             48,920,872
SE-Inception (GoogLeNet)    7,105,007    480,103               7,099,176
SENet-154                   115,088,984  6,629,040             115,038,120
==========================  ===========  ====================  =============
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from .. import nn
from ..attention import SqueezeExcitation
from ..engine import Tensor
from .conv_bn import ConvBN
from .googlenet import GoogLeNet, googlenet
from .initialization import initialize
from .resnet import (
    Attention,
    Bottleneck,
    ResNet,
    Shortcut,
    projection,
    resnet50,
    resnet101,
    resnet152,
)
from .resnext import resnext50_32x4d, resnext101_32x4d
from .stages import check_stages, stage


def squeeze_excitation(reduction: int, bias: bool) -> Attention:
    """What makes the SqueezeExcitation of a block, from its number of channels."""
    return partial(SqueezeExcitation, reduction=reduction, bias=bias)


def se_resnet50(
    num_classes: int = 1000, in_channels: int = 3, reduction: int = 16, bias: bool = True
) -> ResNet:
    """SE-ResNet-50: 28,088,024 parameters with 1000 classes.

    SE weighs the residual branch of each block, behind its last batch normalisation and before the
    addition. The stride is in the 3x3 convolution, as in `resnet50`; in the released SE-ResNets it
    is in the first 1x1. That changes no parameter's shape, but what the network computes.
    """
    return resnet50(num_classes, in_channels, squeeze_excitation(reduction, bias))


def se_resnet101(
    num_classes: int = 1000, in_channels: int = 3, reduction: int = 16, bias: bool = True
) -> ResNet:
    """SE-ResNet-101: 49,326,872 parameters with 1000 classes. See `se_resnet50`."""
    return resnet101(num_classes, in_channels, squeeze_excitation(reduction, bias))


def se_resnet152(
    num_classes: int = 1000, in_channels: int = 3, reduction: int = 16, bias: bool = True
) -> ResNet:
    """SE-ResNet-152: 66,821,848 parameters with 1000 classes. See `se_resnet50`."""
    return resnet152(num_classes, in_channels, squeeze_excitation(reduction, bias))


def se_resnext50_32x4d(
    num_classes: int = 1000, in_channels: int = 3, reduction: int = 16, bias: bool = True
) -> ResNet:
    """SE-ResNeXt-50 (32 x 4d): 27,559,896 parameters with 1000 classes.

    As `se_resnet50`; here the released model, too, has the stride in the 3x3 convolution.
    """
    return resnext50_32x4d(num_classes, in_channels, squeeze_excitation(reduction, bias))


def se_resnext101_32x4d(
    num_classes: int = 1000, in_channels: int = 3, reduction: int = 16, bias: bool = True
) -> ResNet:
    """SE-ResNeXt-101 (32 x 4d): 48,955,416 parameters. See `se_resnext50_32x4d`."""
    return resnext101_32x4d(num_classes, in_channels, squeeze_excitation(reduction, bias))


def se_googlenet(
    num_classes: int = 1000,
    in_channels: int = 3,
    aux_logits: bool = False,
    batch_norm: bool = True,
    reduction: int = 16,
    bias: bool = True,
) -> GoogLeNet:
    """SE-Inception: GoogLeNet with SE behind each Inception module; 7,105,007 parameters.

    The module as a whole is what is weighed: its four branches are concatenated first. (The paper
    takes a later Inception with batch normalisation; the place is the same.) See `GoogLeNet`.
    """
    attention = squeeze_excitation(reduction, bias)
    return googlenet(num_classes, in_channels, aux_logits, batch_norm, attention)


def wide_projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The shortcut of SENet-154: a 3x3 convolution where the image is halved, else a 1x1."""
    if stride == 1:
        return projection(in_channels, out_channels, stride)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class SENetBlock(Bottleneck):
    r"""The block of SENet-154: a ResNeXt's, with half the channels behind its first convolution.

    .. math:: y = relu(SE(R(x)) + S(x)), \qquad R(x) = BN(W * relu(BN(V *_G relu(BN(U * x)))))

    The 1x1 kernel U makes half as many channels as the 3x3 kernel V, which has G groups. That costs
    less, and hardly loses accuracy, says the paper.

    Parameters
    ----------
    in_channels, width, stride, shortcut, attention, groups, width_per_group
        As in `Bottleneck`.

    References
    ----------
    Hu et al., "Squeeze-and-Excitation Networks" (TPAMI 2020), appendix, "Details of SENet-154".
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        shortcut: Shortcut = wide_projection,
        attention: Attention | None = None,
        groups: int = 64,
        width_per_group: int = 4,
    ):
        super().__init__(in_channels, width, stride, shortcut, attention, groups, width_per_group)
        inner = self.conv2.in_channels
        self.conv1 = nn.Conv2d(in_channels, inner // 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner // 2)
        self.conv2 = nn.Conv2d(inner // 2, inner, 3, stride, padding=1, groups=groups, bias=False)


class SENet(nn.Module):
    """Three 3x3 convolutions, a max pool, four stages of `SENetBlock`, dropout, a linear map.

    The stem quarters the image as the 7x7 convolution of a ResNet does; every stage but the first
    halves it.

    Parameters
    ----------
    blocks : (int, int, int, int)
        Their number in each stage.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    attention : callable, optional
        ``attention(channels)`` makes a module for the residual branch of each block.
    dropout : float
        Probability of the dropout in front of the linear map.

    Raises
    ------
    ValueError
        If there are not four numbers of blocks, each of them 1 at least.

    Attributes
    ----------
    stem, layer1, layer2, layer3, layer4, avgpool, dropout, fc : Module
        Its parts; `layer1.0.attention.gate` gives the channel weights of a block to a hook.

    References
    ----------
    Hu et al., "Squeeze-and-Excitation Networks" (TPAMI 2020), appendix, "Details of SENet-154".
    """

    def __init__(
        self,
        blocks: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        attention: Attention | None = None,
        dropout: float = 0.2,
    ):
        super().__init__()
        check_stages(self, 4, blocks=blocks)
        self.stem = nn.Sequential(
            ConvBN(in_channels, 64, 3, stride=2, padding=1),
            ConvBN(64, 64, 3, padding=1),
            ConvBN(64, 128, 3, padding=1),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
        )
        self.layer1 = stage(SENetBlock, 128, 64, blocks[0], 1, attention=attention)
        self.layer2 = stage(SENetBlock, 256, 128, blocks[1], 2, attention=attention)
        self.layer3 = stage(SENetBlock, 512, 256, blocks[2], 2, attention=attention)
        self.layer4 = stage(SENetBlock, 1024, 512, blocks[3], 2, attention=attention)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


def senet154(
    num_classes: int = 1000, in_channels: int = 3, reduction: int = 16, bias: bool = True
) -> SENet:
    """SENet-154, of the entry that won ILSVRC 2017: 115,088,984 parameters with 1000 classes.

    A ResNeXt-152 (64 x 4d) with SE in each block and six changes, of which four are in the network:
    the first 1x1 convolution of each block has half the channels, the stem is three 3x3
    convolutions, shortcuts that halve the image are 3x3 convolutions, and there is dropout in front
    of the classifier. (The others are label smoothing, and batch normalisation frozen in the last
    epochs.) See `SENet`.
    """
    attention = squeeze_excitation(reduction, bias)
    return SENet((3, 8, 36, 3), num_classes, in_channels, attention)
