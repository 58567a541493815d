from __future__ import annotations

import numpy as np

from .. import functional as F
from .. import nn
from ..engine import Tensor
from ..ops.arguments import integer
from .arguments import as_images, check_choice, reduced

# Statistics of each pooling, in the order in which the spatial attention stacks them.
POOLS = {"both": ("avg", "max"), "avg": ("avg",), "max": ("max",)}

SPATIAL_POOLS = (*POOLS, "conv")

ORDERS = ("channel_spatial", "spatial_channel", "parallel", "channel", "spatial")


class ChannelAttention(nn.Module):
    r"""What to look at: a weight for each channel, from its average and from its maximum.

    .. math::

        z^{avg}_c &= \frac{1}{HW} \sum_{h,w} x_{chw}, \qquad z^{max}_c = \max_{h,w} x_{chw} \\
        m &= \sigma(W_2\, \mathrm{relu}(W_1 z^{avg}) + W_2\, \mathrm{relu}(W_1 z^{max}))

    Both go through the same two layers :math:`W_1 \in R^{C/r \times C}`,
    :math:`W_2 \in R^{C \times C/r}`, so that the gradients of both add up in them. Of equal maxima
    the first takes the whole gradient.

    It returns the weights alone: ``x * attention(x)`` applies them.

    Parameters
    ----------
    channels : int
        Channels C.
    reduction : int
        r: the layer between has C // r units.
    pool : str
        "both", or "avg" or "max" alone (table 1). "avg" is `SqueezeExcitation`.
    bias : bool
        Whether the two layers have biases, as in the authors' code; the paper's equations have
        none. The bias of the second one is added twice, once for each pooling.

    Attributes
    ----------
    fc1, fc2, gate : Module
        Its parts.

    Raises
    ------
    ValueError
        If a number is not whole and at least 1, the reduction leaves no unit in the layer between,
        or the pooling is unknown.

    References
    ----------
    Woo, Park, Lee and Kweon, "CBAM: Convolutional Block Attention Module" (ECCV 2018), section 3,
    equation 2.
    """

    def __init__(self, channels: int, reduction: int = 16, pool: str = "both", bias: bool = False):
        super().__init__()
        hidden = reduced(self, channels, reduction)
        self.channels = channels
        self.reduction = reduction
        self.pool = check_choice(self, "pool", pool, POOLS)
        self.fc1 = nn.Linear(channels, hidden, bias)
        self.fc2 = nn.Linear(hidden, channels, bias)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Weights (N, C, 1, 1) between 0 and 1 for x (N, C, H, W)."""
        x = as_images(self, x, self.channels)
        N, C = x.shape[:2]
        flat = x.flatten(2)
        scores = [self.mlp(_pool(flat, statistic, dim=2)) for statistic in POOLS[self.pool]]
        return self.gate(sum(scores[1:], scores[0])).reshape(N, C, 1, 1)

    def mlp(self, z: Tensor) -> Tensor:
        """The two layers that both poolings share, (N, C) -> (N, C)."""
        return self.fc2(F.relu(self.fc1(z)))

    def extra_repr(self) -> str:
        return f"{self.channels}, reduction={self.reduction}" + _unless_both(self.pool)


class SpatialAttention(nn.Module):
    r"""Where to look: a weight for each position, from the channels there and around it.

    .. math::

        q^{avg}_{hw} &= \frac{1}{C} \sum_c x_{chw}, \qquad q^{max}_{hw} = \max_c x_{chw} \\
        m &= \sigma(k * [q^{avg}, q^{max}])

    with one kernel :math:`k` of 2 x R x R numbers and zeros around the image. Of equal maxima the
    first channel takes the whole gradient. With ``pool="conv"`` there is one map instead of the
    two, a weighted sum of the channels that is learned: :math:`q_{hw} = \sum_c w_c\, x_{chw}`.

    It returns the weights alone: ``x * attention(x)`` applies them.

    Parameters
    ----------
    kernel_size : int
        R, odd. The paper has 7; on maps of 8 x 8 that is mostly border, and 3 is enough.
    pool : str
        "both", or "avg" or "max" alone; or "conv", a 1x1 convolution from the channels to one map,
        with which the paper compares (table 2; that it has no bias here is our choice).
    batch_norm : bool
        Whether the result of the convolution is normalised before the sigmoid, as in the authors'
        code; the paper's equation does not.
    channels : int, optional
        Channels C of the input. Only "conv" needs to know them; the statistics take any number.

    Attributes
    ----------
    conv, bn, gate : Module
        Its parts; `bn` is an Identity without `batch_norm`.
    squeeze : Conv2d
        The 1x1 convolution, with ``pool="conv"`` alone.

    Raises
    ------
    ValueError
        If the kernel's size is even, the pooling is unknown, or "conv" is not told the channels.

    References
    ----------
    Woo et al., "CBAM: Convolutional Block Attention Module" (ECCV 2018), section 3, equation 3.
    """

    def __init__(
        self,
        kernel_size: int = 7,
        pool: str = "both",
        batch_norm: bool = False,
        channels: int | None = None,
    ):
        super().__init__()
        is_whole = isinstance(kernel_size, int | np.integer)
        if not is_whole or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"SpatialAttention: kernel_size must be odd and positive, not {kernel_size}: only "
                "then has a window a middle, and the map the size of the image"
            )
        self.pool = check_choice(self, "pool", pool, SPATIAL_POOLS)
        self.channels = channels
        if pool == "conv":
            if channels is None:
                raise ValueError(
                    "SpatialAttention: pool='conv' needs channels=, the number of channels that "
                    "its 1x1 convolution reads"
                )
            channels = integer("SpatialAttention", "channels", channels, least=1)
            self.squeeze = nn.Conv2d(channels, 1, 1, bias=False)
        maps = 2 if pool == "both" else 1
        self.conv = nn.Conv2d(maps, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(1, momentum=0.01) if batch_norm else nn.Identity()
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Weights (N, 1, H, W) between 0 and 1 for x (N, C, H, W)."""
        x = as_images(self, x, self.channels)
        return self.gate(self.bn(self.conv(self.maps(x))))

    def maps(self, x: Tensor) -> Tensor:
        """The one or two maps (N, 1 or 2, H, W) that the kernel reads, for x (N, C, H, W)."""
        if self.pool == "conv":
            return self.squeeze(x)
        return F.cat([_pool(x, s, dim=1, keepdim=True) for s in POOLS[self.pool]], dim=1)

    def extra_repr(self) -> str:
        return f"{self.conv.kernel_size[0]}" + _unless_both(self.pool)


class CBAM(nn.Module):
    r"""Convolutional block attention module: weigh the channels, then the positions.

    .. math::

        x' &= m^{channel}(x) \odot x && \text{what: (N, C, 1, 1), see ChannelAttention} \\
        y &= m^{spatial}(x') \odot x' && \text{where: (N, 1, H, W), see SpatialAttention}

    The second attention sees what the first has left. At a position of a channel that both pass,
    two weights between 0 and 1 are multiplied: at the start about a quarter of x comes through.

    Parameters
    ----------
    channels : int
        Channels C.
    reduction : int
        r of the channel attention.
    kernel_size : int
        R of the spatial attention, odd.
    order : str
        "channel_spatial", the paper's choice; "spatial_channel"; "parallel", where both look at x
        and y is the product of x and both weights; or "channel" or "spatial" alone (table 3).
        (The paper gives no formula for "parallel".)
    channel_pool : str
        "both", "avg" or "max" (table 1).
    spatial_pool : str
        "both", "avg", "max", or "conv", a 1x1 convolution (table 2).
    bias : bool
        Whether the layers of the channel attention have biases.
    batch_norm : bool
        Whether the spatial attention has a batch normalisation.

    Attributes
    ----------
    channel : ChannelAttention
        A forward hook on it sees the weights of the channels, (N, C, 1, 1).
    spatial : SpatialAttention
        A forward hook on it sees the weights of the positions, (N, 1, H, W).

    Raises
    ------
    ValueError
        If the reduction leaves no unit, the kernel's size is even, or a setting is unknown.

    Notes
    -----
    The defaults are the paper's equations. ``bias=True, batch_norm=True`` is the authors' code,
    apart from two things: it stacks the maximum before the average, so that the two slices of a
    kernel change places when weights are copied; and its ResNet sets the weight of the batch
    normalisation to 0, so that every position starts at 1/2 and the kernel has no gradient in the
    first step.

    Costs 2 C^2 / r + 2 R^2 parameters, and 4 C^2 / r + 2 R^2 HW multiplications for an image,
    beside 2 CHW for the scaling. (With ``spatial_pool="conv"``, C + R^2 in place of 2 R^2.)

    In a residual network: ``cifar_resnet(20, attention=lambda channels: CBAM(channels, 4))``.

    References
    ----------
    Woo, Park, Lee and Kweon, "CBAM: Convolutional Block Attention Module" (ECCV 2018), section 3,
    equation 1; tables 1 to 3.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        kernel_size: int = 7,
        order: str = "channel_spatial",
        channel_pool: str = "both",
        spatial_pool: str = "both",
        bias: bool = False,
        batch_norm: bool = False,
    ):
        super().__init__()
        self.channels = channels
        self.order = check_choice(self, "order", order, ORDERS)
        if order != "spatial":
            self.channel = ChannelAttention(channels, reduction, channel_pool, bias)
        if order != "channel":
            self.spatial = SpatialAttention(kernel_size, spatial_pool, batch_norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels and positions of x (N, C, H, W); the shape stays."""
        x = as_images(self, x, self.channels)
        if self.order == "parallel":
            return x * self.channel(x) * self.spatial(x)
        for attention in self.order.split("_"):
            x = x * self.get_submodule(attention)(x)
        return x

    def extra_repr(self) -> str:
        return f"{self.channels}, order={self.order!r}"


def _pool(x: Tensor, statistic: str, dim: int, keepdim: bool = False) -> Tensor:
    """The average or the first maximum along an axis."""
    return x.mean(dim, keepdim) if statistic == "avg" else F.max(x, dim, keepdim).values


def _unless_both(pool: str) -> str:
    return "" if pool == "both" else f", pool={pool!r}"
