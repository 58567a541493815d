"""Residual attention networks: stages of a residual network, with attention modules in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import functional as F
from .. import nn
from ..attention import ResidualAttentionModule
from ..engine import Tensor
from .conv_bn import ConvBN
from .initialization import initialize
from .preact_resnet import PreActBottleneck
from .resnet import Bottleneck, projection
from .stages import blocks_per_stage, check_stages

#: Makes a unit: (in_channels, out_channels, stride).
Unit = Callable[[int, int, int], nn.Module]


class InceptionUnit(nn.Module):
    r"""A residual unit whose branch looks through windows of 1, 3 and 5 pixels side by side.

    .. math:: y = relu(W * [a_1(x), a_3(x), a_5(x)] + S(x))

    Each path :math:`a` begins with a 1x1 convolution to C / 8 channels, and goes on with none, one
    or two 3x3 convolutions, all with batch normalisation and ReLU. The 1x1 convolution W, with
    batch normalisation, leads back to C channels. The paper names an attention network of Inception
    units and does not print the unit; this is one of the kind of Inception-ResNet-A, at about the
    price of the paper's own unit.

    Parameters
    ----------
    in_channels, out_channels, stride : int
        Where one of them changes the shape, the shortcut S is a 1x1 convolution with batch
        normalisation; else it is x. The last convolution of each path has the stride.

    References
    ----------
    Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
    Learning" (2017), figure 16.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        width = _check_width("inception", out_channels, 8) // 8
        self.path1 = ConvBN(in_channels, width, 1, stride)
        self.path3 = nn.Sequential(
            ConvBN(in_channels, width, 1), ConvBN(width, width, 3, stride, padding=1)
        )
        self.path5 = nn.Sequential(
            ConvBN(in_channels, width, 1),
            ConvBN(width, width, 3, padding=1),
            ConvBN(width, width, 3, stride, padding=1),
        )
        self.merge = ConvBN(3 * width, out_channels, 1, relu=False)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        paths = [self.path1(x), self.path3(x), self.path5(x)]
        return F.relu(self.merge(F.cat(paths, dim=1)) + self.downsample(x))


def preactivation_unit(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """The paper's unit: a pre-activation bottleneck of out_channels / 4 channels."""
    width = _check_width("preactivation", out_channels, 4) // 4
    return PreActBottleneck(in_channels, width, stride)


def residual_unit(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """A bottleneck of ResNet, with out_channels / 4 channels inside."""
    width = _check_width("residual", out_channels, 4) // 4
    return Bottleneck(in_channels, width, stride)


def resnext_unit(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """A bottleneck of ResNeXt: out_channels / 2 channels inside, in 32 groups (AttentionNeXt).

    Attention-56 of them has 31,322,408 parameters: 3,584 more than the published description, whose
    masks have no batch normalisation in front of their first 1x1 convolution. Here all units share
    one mask.
    """
    width = _check_width("resnext", out_channels, 64) // 4
    return Bottleneck(in_channels, width, stride, groups=32, width_per_group=4)


UNITS: dict[str, Unit] = {
    "preactivation": preactivation_unit,
    "residual": residual_unit,
    "resnext": resnext_unit,
    "inception": InceptionUnit,
}


class ResidualAttentionNetwork(nn.Module):
    """Three stages, a unit and then attention modules in each; three units; means; a linear map.

    Parameters
    ----------
    unit : callable
        ``unit(in_channels, out_channels, stride)`` makes every unit, also those of the modules.
    stem : Module
        In front of the first stage.
    stem_channels : int
        That come out of the stem.
    widths : (int, int, int)
        Channels of the stages. The second and the third halve the image.
    modules : (int, int, int)
        Attention modules of each stage.
    last_width, last_stride : int
        Of the three units at the end.
    num_classes : int
        Classes K.
    final_norm : bool
        Whether a batch normalisation and a ReLU follow the last unit: pre-activation units, which
        end with a sum, need them.
    halvings : (int, int, int)
        Of the masks of each stage.
    pre, trunk, between, activation, learning
        As in `ResidualAttentionModule`.

    Raises
    ------
    ValueError
        If there are not three values for each stage, or a setting of the modules is unknown.

    Attributes
    ----------
    stem, stages, last, norm, avgpool, fc : Module
        Its parts. ``stages[0][1].mask`` gives the first mask to a hook.

    References
    ----------
    Wang et al., "Residual Attention Network for Image Classification" (CVPR 2017), table 2.
    """

    def __init__(
        self,
        unit: Unit,
        stem: nn.Module,
        stem_channels: int,
        widths: Sequence[int],
        modules: Sequence[int],
        last_width: int,
        last_stride: int,
        num_classes: int,
        final_norm: bool = True,
        halvings: Sequence[int] = (3, 2, 1),
        pre: int = 1,
        trunk: int = 2,
        between: int = 1,
        activation: str = "mixed",
        learning: str = "residual",
    ):
        super().__init__()
        check_stages(self, 3, widths=widths, modules=modules, halvings=halvings)

        def attention(width: int, depth: int) -> nn.Module:
            return ResidualAttentionModule(
                width,
                lambda channels: unit(channels, channels, 1),
                depth,
                pre,
                trunk,
                between,
                activation,
                learning,
            )

        self.stem = stem
        self.stages = nn.Sequential()
        before = (stem_channels, *widths)
        for i, (width, count, depth) in enumerate(zip(widths, modules, halvings)):
            first = unit(before[i], width, 1 if i == 0 else 2)
            others = (attention(width, depth) for _ in range(count))
            self.stages.append(nn.Sequential(first, *others))
        self.last = nn.Sequential(
            unit(widths[-1], last_width, last_stride),
            unit(last_width, last_width, 1),
            unit(last_width, last_width, 1),
        )
        self.norm: nn.Module = nn.Identity()
        if final_norm:
            self.norm = nn.Sequential(nn.BatchNorm2d(last_width), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last_width, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.norm(self.last(self.stages(self.stem(x))))
        return self.fc(self.avgpool(x).flatten(1))


def residual_attention_network(
    modules: Sequence[int],
    num_classes: int = 1000,
    in_channels: int = 3,
    unit: str = "preactivation",
    activation: str = "mixed",
    learning: str = "residual",
) -> ResidualAttentionNetwork:
    """A residual attention network for images of ImageNet's size, 224 x 224.

    Parameters
    ----------
    modules : (int, int, int)
        Attention modules of each stage. A trunk has 12 layers a module and 20 others.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    unit : str
        "preactivation" (the paper's), "residual", "resnext" (AttentionNeXt) or "inception".
    activation, learning
        As in `ResidualAttentionModule`.

    Raises
    ------
    ValueError
        If a setting is unknown, or there are not three numbers of modules.

    References
    ----------
    Wang et al., "Residual Attention Network for Image Classification" (CVPR 2017), table 2.
    """
    return ResidualAttentionNetwork(
        _choose(unit),
        nn.Sequential(ConvBN(in_channels, 64, 7, 2, padding=3), nn.MaxPool2d(3, 2, padding=1)),
        64,
        widths=(256, 512, 1024),
        modules=modules,
        last_width=2048,
        last_stride=2,
        num_classes=num_classes,
        final_norm=unit == "preactivation",
        activation=activation,
        learning=learning,
    )


def attention56(
    num_classes: int = 1000,
    in_channels: int = 3,
    unit: str = "preactivation",
    activation: str = "mixed",
    learning: str = "residual",
) -> ResidualAttentionNetwork:
    """Attention-56: 31,810,728 parameters with 1000 classes. See `residual_attention_network`.

    The paper prints 31.9 million.
    """
    return residual_attention_network(
        (1, 1, 1), num_classes, in_channels, unit, activation, learning
    )


def attention92(
    num_classes: int = 1000,
    in_channels: int = 3,
    unit: str = "preactivation",
    activation: str = "mixed",
    learning: str = "residual",
) -> ResidualAttentionNetwork:
    """Attention-92: 52,466,344 parameters with 1000 classes. See `residual_attention_network`.

    The paper prints 51.3 million; the network description published with it has as many as this.
    """
    return residual_attention_network(
        (1, 2, 3), num_classes, in_channels, unit, activation, learning
    )


def cifar_attention(
    depth: int = 92,
    num_classes: int = 10,
    in_channels: int = 3,
    unit: str = "preactivation",
    activation: str = "mixed",
    learning: str = "residual",
) -> ResidualAttentionNetwork:
    """The residual attention network for CIFAR of any depth; Attention-92 has 1,959,706
    parameters.

    A 3x3 convolution to 16 channels, and as many modules in each of three stages of 64, 128 and 256
    channels. The paper does not print the widths. These are those of the pre-activation ResNet-164
    that it is compared with, and lead to its 1.9 million parameters for Attention-92.

    Parameters
    ----------
    depth : int
        Layers of the trunk: 36 m + 20, with m modules in each stage.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    unit, activation, learning
        As in `residual_attention_network`.

    Raises
    ------
    ValueError
        If there is no such depth, or a setting is unknown.

    References
    ----------
    Wang et al., "Residual Attention Network for Image Classification" (CVPR 2017), section 4.1.
    """
    m = blocks_per_stage(depth, layers_per_block=12, other_layers=20)
    return ResidualAttentionNetwork(
        _choose(unit),
        nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
        16,
        widths=(64, 128, 256),
        modules=(m, m, m),
        last_width=256,
        last_stride=1,
        num_classes=num_classes,
        final_norm=unit == "preactivation",
        activation=activation,
        learning=learning,
    )


def _check_width(unit: str, channels: int, step: int) -> int:
    if channels < step or channels % step:
        raise ValueError(
            f"a unit {unit!r} must have a multiple of {step} channels, so that it can divide them "
            f"inside, not {channels}"
        )
    return channels


def _choose(unit: str) -> Unit:
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, not {unit!r}")
    return UNITS[unit]
