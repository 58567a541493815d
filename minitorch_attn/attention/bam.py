from __future__ import annotations

from typing import Any

from .. import functional as F
from .. import nn
from ..engine import Tensor
from ..ops.arguments import integer
from .arguments import as_images, check_choice, reduced

COMBINATIONS = {"sum": lambda c, s: c + s, "product": lambda c, s: c * s, "max": F.maximum}
NORMS = ("end", "hidden")
BRANCHES = ("both", "channel", "spatial")


class BAM(nn.Module):
    r"""Bottleneck attention module: what and where, worked out side by side, and added.

    .. math::

        M_c &= BN(W_1\, \mathrm{relu}(W_0\, z + b_0) + b_1), \quad
               z_c = \frac{1}{HW} \sum_{i,j} x_{c,i,j} && \text{channel: } (N, C, 1, 1) \\
        M_s &= BN(f_3^{1 \times 1}(f_2^{3 \times 3}(f_1^{3 \times 3}(f_0^{1 \times 1}(x)))))
               && \text{spatial: } (N, 1, H, W) \\
        M &= \sigma(M_c + M_s) && \text{broadcast: } (N, C, H, W) \\
        y &= x + x M = (1 + M)\, x

    Both branches go through a bottleneck of C / r channels. The two 3x3 convolutions are dilated,
    so that a position sees 1 + 4 d positions in each direction. A ReLU stands between the layers of
    both branches. (The paper's equations leave it out; the authors' program has it.)

    The paper and the authors' program are not the same module, and both can be had:

    ==========  ====================================  ==========================================
    setting     paper (default)                       authors' program
    ==========  ====================================  ==========================================
    combine     "sum": :math:`\sigma(M_c + M_s)`      "product": :math:`\sigma(M_c M_s)`
    norm        "end": batch normalisation behind     "hidden": behind each layer but the last,
                the last layer of each branch         before its ReLU
    ==========  ====================================  ==========================================

    The residual form :math:`(1 + M)\, x` is that of both.

    Parameters
    ----------
    channels : int
        Channels C.
    reduction : int
        r: both bottlenecks have C // r channels.
    dilation : int
        d of the two 3x3 convolutions, and their padding, so that the size stays. On a map narrower
        than 1 + 4 d they see padding too: take a smaller d for small maps.
    combine : str
        "sum", "product", or "max" for the greater of the two.
    norm : str
        Where batch normalisation stands: "end" or "hidden". In the channel branch it compares the
        images of a batch with one another, so that training needs two of them at least.
    branches : str
        "both", or "channel" or "spatial" for one alone, as in the paper's ablation.

    Attributes
    ----------
    channel, spatial, gate : Module
        Its parts. Forward hooks on them see :math:`M_c` (N, C, 1, 1), :math:`M_s` (N, 1, H, W) and
        M (N, C, H, W). A branch that is left out is an `nn.Identity` that is never called.

    Raises
    ------
    ValueError
        If the reduction leaves no channel in the bottleneck, the dilation is less than 1, or a
        setting is unknown; in training, if the channel branch is given a single image.
    ShapeError
        If the input is not (N, C, H, W), with the C that it was made for.

    References
    ----------
    Park, Woo, Lee and Kweon, "BAM: Bottleneck Attention Module" (BMVC 2018), section 3.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        dilation: int = 4,
        combine: str = "sum",
        norm: str = "end",
        branches: str = "both",
    ):
        super().__init__()
        check_choice(self, "combine", combine, tuple(COMBINATIONS))
        check_choice(self, "norm", norm, NORMS)
        check_choice(self, "branches", branches, BRANCHES)
        integer("BAM", "dilation", dilation, least=1)
        hidden = reduced(self, channels, reduction)
        self.channels, self.reduction, self.dilation = channels, reduction, dilation
        self.combine, self.norm, self.branches = combine, norm, branches
        self.channel: nn.Module = nn.Identity()
        self.spatial: nn.Module = nn.Identity()
        if branches != "spatial":
            self.channel = channel_branch(channels, hidden, norm)
        if branches != "channel":
            self.spatial = spatial_branch(channels, hidden, dilation, norm)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Strengthen x (N, C, H, W) by 1 + M; the shape stays."""
        x = as_images(self, x, self.channels)
        return x * (1 + self.gate(self.combined(x)))

    def combined(self, x: Tensor) -> Tensor:
        """The map before its sigmoid; where one branch is left out, the other alone."""
        if self.branches == "channel":
            return self.channel(x)
        if self.branches == "spatial":
            return self.spatial(x)
        return COMBINATIONS[self.combine](self.channel(x), self.spatial(x))

    def extra_repr(self) -> str:
        settings = f"{self.channels}, reduction={self.reduction}, dilation={self.dilation}"
        if self.branches != "both":
            return f"{settings}, branches={self.branches!r}, norm={self.norm!r}"
        return f"{settings}, combine={self.combine!r}, norm={self.norm!r}"


def channel_branch(channels: int, hidden: int, norm: str) -> nn.Sequential:
    """What counts: the mean of each channel, and two linear layers on it.

    A linear layer is a 1x1 convolution on an image of one pixel, and so keeps the axes apart that
    are to be broadcast: (N, C, H, W) -> (N, C, 1, 1).
    """
    layers = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), *_stacked(layers, norm))


def spatial_branch(channels: int, hidden: int, dilation: int, norm: str) -> nn.Sequential:
    """Where it counts: a 1x1, two dilated 3x3, and a 1x1 convolution to one map.

    (N, C, H, W) -> (N, 1, H, W).
    """
    wide: dict[str, Any] = {"padding": dilation, "dilation": dilation}
    layers = (
        nn.Conv2d(channels, hidden, 1),
        nn.Conv2d(hidden, hidden, 3, **wide),
        nn.Conv2d(hidden, hidden, 3, **wide),
        nn.Conv2d(hidden, 1, 1),
    )
    return nn.Sequential(*_stacked(layers, norm))


def _stacked(layers: tuple[nn.Conv2d, ...], norm: str) -> list[nn.Module]:
    """The layers with a ReLU between them, and batch normalisation where `norm` says."""
    *hidden, last = layers
    parts: list[nn.Module] = []
    for layer in hidden:
        parts.append(layer)
        if norm == "hidden":
            parts.append(nn.BatchNorm2d(layer.out_channels))
        parts.append(nn.ReLU())
    parts.append(last)
    if norm == "end":
        parts.append(nn.BatchNorm2d(last.out_channels))
    return parts
