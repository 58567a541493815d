r"""ResNeXt: the 3x3 convolution of a bottleneck, cut into groups.

.. math:: y = x + \sum_{g=1}^{G} T_g(x)

Each of G branches goes down to d channels, through a 3x3 convolution, and up again. That is the
same as one bottleneck whose 3x3 convolution has G d channels in G groups: `Bottleneck` with
`groups` and `width_per_group`.
"""

from __future__ import annotations

from .cifar_resnet import CifarResNet
from .resnet import Attention, Bottleneck, ResNet
from .stages import blocks_per_stage


def resnext50_32x4d(
    num_classes: int = 1000, in_channels: int = 3, attention: Attention | None = None
) -> ResNet:
    """ResNeXt-50 (32 x 4d): 25,028,904 parameters with 1000 classes. See `ResNet`."""
    options = {"groups": 32, "width_per_group": 4, "attention": attention}
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, **options)


def resnext101_32x4d(
    num_classes: int = 1000, in_channels: int = 3, attention: Attention | None = None
) -> ResNet:
    """ResNeXt-101 (32 x 4d): 44,177,704 parameters with 1000 classes. See `ResNet`."""
    options = {"groups": 32, "width_per_group": 4, "attention": attention}
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels, **options)


def resnext101_32x8d(
    num_classes: int = 1000, in_channels: int = 3, attention: Attention | None = None
) -> ResNet:
    """ResNeXt-101 (32 x 8d): 88,791,336 parameters with 1000 classes. See `ResNet`."""
    options = {"groups": 32, "width_per_group": 8, "attention": attention}
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels, **options)


def resnext101_64x4d(
    num_classes: int = 1000, in_channels: int = 3, attention: Attention | None = None
) -> ResNet:
    """ResNeXt-101 (64 x 4d): 83,455,272 parameters with 1000 classes. See `ResNet`."""
    options = {"groups": 64, "width_per_group": 4, "attention": attention}
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels, **options)


def cifar_resnext(
    depth: int = 29,
    groups: int = 8,
    width_per_group: int = 64,
    num_classes: int = 10,
    in_channels: int = 3,
    attention: Attention | None = None,
) -> CifarResNet:
    """ResNeXt for CIFAR; ResNeXt-29 (8 x 64d) has 34,426,698 parameters.

    Parameters
    ----------
    depth : int
        9 n + 2 layers that have weights.
    groups : int
        G, which the paper calls the cardinality.
    width_per_group : int
        Channels d of each group in the first stage; each further stage doubles them.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    attention : callable, optional
        ``attention(channels)`` makes a module for the residual branch of each block.

    Raises
    ------
    ValueError
        If there is no such depth.

    References
    ----------
    Xie et al., "Aggregated Residual Transformations for Deep Neural Networks" (2017), section 5.3.
    """
    return CifarResNet(
        Bottleneck,
        blocks_per_stage(depth, layers_per_block=3),
        num_classes,
        in_channels,
        stem_channels=64,
        widths=(64, 128, 256),
        groups=groups,
        width_per_group=width_per_group,
        attention=attention,
    )
