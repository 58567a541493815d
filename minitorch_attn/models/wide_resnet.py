"""Wide ResNets: fewer blocks, each with more channels."""

from __future__ import annotations

from .preact_resnet import PreActBasicBlock, PreActResNet
from .resnet import Attention, Bottleneck, ResNet
from .stages import blocks_per_stage


def wrn(
    depth: int = 28,
    width: int = 10,
    num_classes: int = 10,
    in_channels: int = 3,
    dropout: float = 0.0,
    attention: Attention | None = None,
) -> PreActResNet:
    """WRN-d-k for CIFAR: a pre-activation ResNet of basic blocks that are k times as wide.

    Parameters and multiply-adds grow with k squared; WRN-28-10 has 36,479,194 parameters.

    Parameters
    ----------
    depth : int
        d = 6 n + 4, where the shortcuts' convolutions are counted as a layer of each stage.
    width : int
        k: the stages have 16 k, 32 k and 64 k channels.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    dropout : float
        Probability of a zero between the two convolutions of a block. The paper takes 0.3 on
        CIFAR and 0.4 on SVHN.
    attention : callable, optional
        ``attention(channels)`` makes a module for the residual branch of each block.

    Raises
    ------
    ValueError
        If there is no such depth.

    References
    ----------
    Zagoruyko and Komodakis, "Wide Residual Networks" (2016), table 1.
    """
    n = blocks_per_stage(depth, layers_per_block=2, other_layers=4)
    widths = (16 * width, 32 * width, 64 * width)
    return PreActResNet(
        PreActBasicBlock,
        n,
        num_classes,
        in_channels,
        widths,
        dropout=dropout,
        attention=attention,
    )


def wide_resnet50_2(
    num_classes: int = 1000, in_channels: int = 3, attention: Attention | None = None
) -> ResNet:
    """ResNet-50 with 3x3 convolutions twice as wide: 68,883,240 parameters. See `ResNet`."""
    options = {"width_per_group": 128, "attention": attention}
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, **options)


def wide_resnet101_2(
    num_classes: int = 1000, in_channels: int = 3, attention: Attention | None = None
) -> ResNet:
    """ResNet-101 with 3x3 convolutions twice as wide: 126,886,696 parameters. See `ResNet`."""
    options = {"width_per_group": 128, "attention": attention}
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels, **options)
