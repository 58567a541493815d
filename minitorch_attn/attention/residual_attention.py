from __future__ import annotations

from collections.abc import Callable

from .. import functional as F
from .. import nn
from ..engine import ShapeError, Tensor
from ..ops.arguments import integer
from .arguments import as_images, check_choice

#: Makes a network of any depth that keeps the shape, from its number of channels.
Unit = Callable[[int], nn.Module]

LEARNING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "residual": lambda M, T: (1 + M) * T,
    "naive": lambda M, T: M * T,
}


class ResidualAttentionModule(nn.Module):
    r"""A trunk, and beside it an hourglass that says where the trunk counts.

    .. math::

        x' &= \mathrm{pre}(x) && p \text{ units} \\
        T &= \mathrm{trunk}(x') && t \text{ units} \\
        M &= \mathrm{mask}(x') && \text{one weight for every element of } T: (N, C, H, W) \\
        H &= (1 + M)\, T && \text{residual; or naive: } H = M\, T \\
        y &= \mathrm{post}(H) && p \text{ units}

    Where M is a sigmoid, 1 + M lies between 1 and 2: the mask can point out, and cannot put out.
    The naive form multiplies by a number below 1, and a chain of such modules fades.

    Parameters
    ----------
    channels : int
        Channels C, the same throughout.
    unit : callable
        ``unit(channels)`` makes one unit of the trunk or the mask: any module that keeps the shape.
        The paper's is a pre-activation bottleneck; `models.residual_attention_network` has it and
        three others.
    halvings : int
        d: how often the mask halves the image on its way down. The paper takes as many as lead to
        maps of 7 x 7.
    pre, trunk, between : int
        p, t and r of the paper: units in front of the split and behind the product; units of the
        trunk; units of the mask on each level, down and up.
    activation : str
        What makes the mask of the numbers m at the top of the hourglass, at position i and channel
        c:

        ==========  ===========================================  ==================================
        "mixed"     :math:`\sigma(m_{ic})`                       every element for itself (f1)
        "channel"   :math:`m_{ic} / \lVert m_i \rVert`           length 1 over the channels (f2)
        "spatial"   :math:`\sigma((m_{ic} - \mu_c) / s_c)`       mean and deviation of each map (f3)
        ==========  ===========================================  ==================================

        "channel" has no sigmoid, so that its weights lie between -1 and 1.
    learning : str
        "residual", or "naive".

    Attributes
    ----------
    pre, trunk, mask, post : Module
        Its parts. Forward hooks on `trunk` and `mask` see T and M, both (N, C, H, W).

    Raises
    ------
    ValueError
        If there is not one halving and one unit of each kind at least, or a setting is unknown.
    TypeError
        If unit cannot be called, is a module itself, or makes none.

    Notes
    -----
    The paper draws the parts, and the network description that its authors published says how they
    are joined; this follows both. One thing differs: pooling windows there reach over the lower
    right edge of the image, while here they are centred, with a border of one pixel, as in the stem
    of a ResNet. Both halve. Some programs in use add the trunk to the mask before its last two
    convolutions; neither source does.

    References
    ----------
    Wang et al., "Residual Attention Network for Image Classification" (CVPR 2017), section 3,
    equations 1 to 6 and figures 2 and 3.
    """

    def __init__(
        self,
        channels: int,
        unit: Unit,
        halvings: int = 1,
        pre: int = 1,
        trunk: int = 2,
        between: int = 1,
        activation: str = "mixed",
        learning: str = "residual",
    ):
        super().__init__()
        check_choice(self, "learning", learning, LEARNING)
        counts = {"channels": channels, "halvings": halvings}
        counts |= {"pre": pre, "trunk": trunk, "between": between}
        for name, count in counts.items():
            integer("ResidualAttentionModule", name, count, least=1)
        if isinstance(unit, nn.Module) or not callable(unit):
            raise TypeError(
                "ResidualAttentionModule: unit must make a module from its number of channels, "
                f"such as lambda channels: BasicBlock(channels, channels), not be a "
                f"{type(unit).__name__} itself"
            )
        self.channels, self.halvings, self.learning = channels, halvings, learning
        self.pre = _units(unit, channels, pre)
        self.trunk = _units(unit, channels, trunk)
        self.mask = SoftMask(channels, unit, halvings, between, activation)
        self.post = _units(unit, channels, pre)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh what the trunk makes of x (N, C, H, W); the shape stays."""
        x = as_images(self, x, self.channels)
        split = self.pre(x)
        if split.shape != x.shape:
            raise ShapeError(
                f"ResidualAttentionModule: a unit must keep the shape, and this one made "
                f"{split.shape} of {x.shape}: give it stride 1 and as many channels as go in"
            )
        return self.post(LEARNING[self.learning](self.mask(split), self.trunk(split)))

    def extra_repr(self) -> str:
        return f"{self.channels}, halvings={self.halvings}, learning={self.learning!r}"


class SoftMask(nn.Module):
    r"""The mask branch: an hourglass, two 1x1 convolutions, and the activation.

    .. math:: M = f(W_2 * relu(BN(W_1 * relu(BN(\mathrm{hourglass}(x))))))

    Parameters
    ----------
    channels, unit, halvings, between, activation
        As in `ResidualAttentionModule`.

    Attributes
    ----------
    hourglass, bn1, conv1, bn2, conv2, gate : Module
        Its parts.

    References
    ----------
    Wang et al., "Residual Attention Network for Image Classification" (CVPR 2017), figure 3.
    """

    def __init__(
        self, channels: int, unit: Unit, halvings: int, between: int = 1, activation: str = "mixed"
    ):
        super().__init__()
        check_choice(self, "activation", activation, ACTIVATIONS)
        self.hourglass = Hourglass(channels, unit, halvings, between)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.gate = ACTIVATIONS[activation](channels)

    def forward(self, x: Tensor) -> Tensor:
        """The mask (N, C, H, W) that x (N, C, H, W) leads to."""
        m = self.conv1(F.relu(self.bn1(self.hourglass(x))))
        return self.gate(self.conv2(F.relu(self.bn2(m))))


class Hourglass(nn.Module):
    r"""Down to half the size and up again; at half the size, beside a skip, a smaller hourglass.

    .. math:: y = \mathrm{larger}(\mathrm{up}(s(a) + \mathrm{inner}(a))), \qquad
              a = \mathrm{down}(\mathrm{smaller}(x))

    At the innermost level y = larger(up(a)). Smaller is a 3x3 max pool of stride 2; larger is
    bilinear interpolation to the size of x with the corners on the corners; down and up are r
    units each, the skip s is one. With d halvings that makes 2 r + (d - 1) (2 r + 1) units.

    Parameters
    ----------
    channels, unit, halvings, between
        As in `ResidualAttentionModule`.

    Attributes
    ----------
    smaller, down, skip, inner, up : Module
        Its parts; the innermost has neither `skip` nor `inner`.
    """

    def __init__(self, channels: int, unit: Unit, halvings: int, between: int = 1):
        super().__init__()
        self.smaller = nn.MaxPool2d(3, 2, padding=1)
        self.down = _units(unit, channels, between)
        self.is_innermost = halvings == 1
        if not self.is_innermost:
            self.skip = unit(channels)
            self.inner = Hourglass(channels, unit, halvings - 1, between)
        self.up = _units(unit, channels, between)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to the same shape."""
        a = self.down(self.smaller(x))
        if not self.is_innermost:
            a = self.skip(a) + self.inner(a)
        return F.interpolate(self.up(a), size=x.shape[2:], mode="bilinear", align_corners=True)


class UnitLength(nn.Module):
    """Divide the channels at each position by their length: x / sqrt(sum of x^2 over C + 1e-5).

    Behind a ReLU all channels may be zero; the small number keeps the gradient within bounds there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to the same shape."""
        return x / ((x * x).sum(dim=1, keepdim=True) + 1e-5).sqrt()


def _mixed(channels: int) -> nn.Module:
    return nn.Sigmoid()


def _channel(channels: int) -> nn.Module:
    return UnitLength()


def _spatial(channels: int) -> nn.Module:
    return nn.Sequential(nn.InstanceNorm2d(channels), nn.Sigmoid())


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "mixed": _mixed,
    "channel": _channel,
    "spatial": _spatial,
}


def _units(unit: Unit, channels: int, count: int) -> nn.Sequential:
    units = [unit(channels) for _ in range(count)]
    if not isinstance(units[0], nn.Module):
        raise TypeError(
            f"ResidualAttentionModule: unit({channels}) must be a module, and it is a "
            f"{type(units[0]).__name__}: does the function that makes units lack its return?"
        )
    return nn.Sequential(*units)
