from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .arguments import as_images, check_choice
from .squeeze_excitation import SqueezeExcitation

COMBINATIONS = {"max": F.maximum, "sum": lambda c, s: c + s, "product": lambda c, s: c * s}


class SpatialSE(nn.Module):
    r"""Spatial squeeze and excitation (sSE): weigh each position by what its channels hold.

    .. math::

        q_{i,j} &= \sigma\Bigl(\sum_c w_c\, x_{c,i,j}\Bigr)
                   && \text{squeeze the channels, one weight a position} \\
        y_{c,i,j} &= q_{i,j}\, x_{c,i,j} && \text{scale}

    The mirror image of `SqueezeExcitation`: there space is squeezed and channels are weighed. Its
    price is C parameters.

    Parameters
    ----------
    channels : int
        Channels C.
    bias : bool
        Whether a number is added in front of the sigmoid, as in the authors' code; the paper's
        equation has none.

    Attributes
    ----------
    conv, gate : Module
        Its parts. A forward hook on `gate` sees the weights q, (N, 1, H, W).

    Raises
    ------
    ShapeError
        If the input is not (N, C, H, W), with the C that it was made for.

    References
    ----------
    Roy, Navab and Wachinger, "Concurrent Spatial and Channel Squeeze & Excitation in Fully
    Convolutional Networks" (MICCAI 2018).
    """

    def __init__(self, channels: int, bias: bool = False):
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(channels, 1, 1, bias=bias)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the positions of x (N, C, H, W); the shape stays."""
        x = as_images(self, x, self.channels)
        return x * self.gate(self.conv(x))

    def extra_repr(self) -> str:
        return f"{self.channels}"


class ChannelSpatialSE(nn.Module):
    r"""Channel and spatial squeeze and excitation (scSE): what and where, side by side.

    .. math::

        c &= s \odot x, \quad s = \sigma(W_2\, \mathrm{relu}(W_1 z))
             && \text{channels weighed: } SqueezeExcitation \\
        p &= q \odot x, \quad q = \sigma(w \cdot x)
             && \text{positions weighed: } SpatialSE \\
        y &= \max(c, p), \quad c + p \quad \text{or} \quad c \odot p
             && \text{combine}

    What is combined are the weighed features, not the weights. So the three are quite different:
    with :math:`x > 0` the maximum and the sum are :math:`\max(s, q)\, x` and :math:`(s + q)\, x`,
    but the product is :math:`s q x^2`. With :math:`x < 0` the maximum takes the *smaller* weight.

    Parameters
    ----------
    channels : int
        Channels C.
    reduction : int
        r of the SqueezeExcitation. The authors take 2.
    combine : str
        "max", "sum" or "product". The first paper (MICCAI 2018) adds; the second (TMI 2019)
        compares, and the authors' code has, the maximum.
    bias : bool
        Whether the layers have biases, as in the authors' code; the papers' equations have none.

    Attributes
    ----------
    channel, spatial : Module
        The `SqueezeExcitation` and the `SpatialSE`, each of which can be had alone. Forward hooks
        on `channel.gate` and `spatial.gate` see the weights s (N, C) and q (N, 1, H, W).

    Raises
    ------
    ValueError
        If the combination is unknown, or the reduction leaves no unit in the bottleneck.
    ShapeError
        If the input is not (N, C, H, W), with the C that it was made for.

    Notes
    -----
    It costs 2 C^2 / r + C parameters, and with biases C / r + C + 1 more.

    In a residual network: ``cifar_resnet(20, attention=lambda channels: ChannelSpatialSE(channels,
    2))``.

    References
    ----------
    Roy, Navab and Wachinger, "Concurrent Spatial and Channel Squeeze & Excitation in Fully
    Convolutional Networks" (MICCAI 2018), and "Recalibrating Fully Convolutional Networks with
    Spatial and Channel Squeeze & Excitation Blocks" (TMI 2019). The latter also concatenates c and
    p, which doubles the channels; that is not built here.
    """

    def __init__(
        self, channels: int, reduction: int = 16, combine: str = "max", bias: bool = False
    ):
        super().__init__()
        self.channels = channels
        self.combine = check_choice(self, "combine", combine, COMBINATIONS)
        self.channel = SqueezeExcitation(channels, reduction, bias)
        self.spatial = SpatialSE(channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels and the positions of x (N, C, H, W); the shape stays."""
        x = as_images(self, x, self.channels)
        return COMBINATIONS[self.combine](self.channel(x), self.spatial(x))

    def extra_repr(self) -> str:
        return f"{self.channels}, combine={self.combine!r}"
