from __future__ import annotations

from typing import NamedTuple

from .. import functional as F
from .. import nn
from ..engine import Tensor, zeros
from ..ops.arguments import integer
from .arguments import as_images, check_choice, reduced

SIGNS = {"paper": 1, "program": -1}
BRANCHES = ("both", "position", "channel")


class PositionAttention(nn.Module):
    r"""Position attention (DANet): each position gathers from all positions that are like it.

    .. math::

        q &= W_q x + b_q, \quad k = W_k x + b_k, \quad v = W_v x + b_v && \text{1x1 convolutions} \\
        w_{ij} &= \mathrm{softmax}_j(q_i \cdot k_j) && \text{(L, L), with } L = HW \\
        y_i &= \gamma \sum_j w_{ij}\, v_j + x_i

    It is a non-local block with an embedded Gaussian, without a bottleneck for the values, and with
    a scalar :math:`\gamma` that starts at 0 in place of the last convolution. There is no
    :math:`1/\sqrt{D}`, and the bias of k has no gradient: it adds the same to a whole row.

    Parameters
    ----------
    channels : int
        Channels C.
    reduction : int
        Queries and keys have C // reduction channels: 8 in the authors' program; the paper's text
        leaves all C.
    make_map : bool
        Whether the weights are made, for a hook to see. If not, memory grows with L and not with
        its square (`functional.scaled_dot_product_attention`).

    Attributes
    ----------
    query, key, value, weights : Module
    gamma : Parameter
        (1,). A forward hook on `weights` sees w, (N, L, L): row i holds what i looks at.

    Raises
    ------
    ValueError
        If the reduction leaves no channels.

    References
    ----------
    Fu, Liu, Tian, Li, Bao, Fang and Lu, "Dual Attention Network for Scene Segmentation" (CVPR
    2019), section 3.2, equations 1 and 2.
    """

    def __init__(self, channels: int, reduction: int = 8, make_map: bool = True):
        super().__init__()
        hidden = reduced(self, channels, reduction)
        self.channels = channels
        self.make_map = make_map
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.weights = nn.Softmax(dim=2)
        self.gamma = nn.Parameter(zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Add to x (N, C, H, W) what each position gathers; the shape stays."""
        x = as_images(self, x, self.channels)
        q, k, v = (conv(x).flatten(2) for conv in (self.query, self.key, self.value))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (N, L, D)
        if self.make_map:
            gathered = self.weights(q @ k.transpose(1, 2)) @ v
        else:
            gathered = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return self.gamma * gathered.transpose(1, 2).reshape(x.shape) + x

    def extra_repr(self) -> str:
        return f"{self.channels}"


class ChannelSelfAttention(nn.Module):
    r"""Channel attention (DANet): each channel gathers from channels by how they go together.

    .. math::

        e_{cd} &= \sum_i x_{ci}\, x_{di} && \text{energy, over all positions i} \\
        w_{cd} &= \mathrm{softmax}_d(\pm e_{cd}) && \text{(C, C)} \\
        y_c &= \beta \sum_d w_{cd}\, x_d + x_c

    There are no convolutions, and x appears three times. The sign is where the paper and the
    authors' program part:

    ==========  ==================================================================================
    sign        what it does
    ==========  ==================================================================================
    "paper"     equation 3, :math:`+e`: a channel looks at those that are most like it. The energy
                grows with the number of positions, until each row has all its weight on one
                channel: on itself, if the channels are equally strong and not alike. Then w is the
                identity, and y is :math:`(1 + \beta)\, x`.
    "program"   :math:`\max_d e_{cd} - e_{cd}`, which the softmax makes :math:`-e`: a channel looks
                at those that are least like it, hardly ever at itself.
    ==========  ==================================================================================

    Parameters
    ----------
    channels : int
        Channels C.
    sign : str
        "paper" or "program".
    mean : bool
        Whether the energy is divided by L = HW, so that it does not grow with the image (neither
        the paper's nor the program's).

    Attributes
    ----------
    weights : Module
    gamma : Parameter
        :math:`\beta`, (1,), at first 0; it is called gamma in the program. A forward hook on
        `weights` sees w, (N, C, C).

    Raises
    ------
    ValueError
        If the sign is unknown, or channels is not a positive integer.

    References
    ----------
    Fu et al., "Dual Attention Network for Scene Segmentation" (CVPR 2019), section 3.3, equations
    3 and 4.
    """

    def __init__(self, channels: int, sign: str = "paper", mean: bool = False):
        super().__init__()
        self.channels = integer("ChannelSelfAttention", "channels", channels, least=1)
        self.sign = check_choice(self, "sign", sign, SIGNS)
        self.mean = mean
        self.weights = nn.Softmax(dim=2)
        self.gamma = nn.Parameter(zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Add to each channel of x (N, C, H, W) what it gathers; the shape stays."""
        x = as_images(self, x, self.channels)
        flat = x.flatten(2)  # (N, C, L)
        energy = flat @ flat.transpose(1, 2)
        if self.mean:
            energy = energy / flat.shape[2]
        w = self.weights(SIGNS[self.sign] * energy)
        return self.gamma * (w @ flat).reshape(x.shape) + x

    def extra_repr(self) -> str:
        return f"{self.channels}, sign={self.sign!r}"


class DualAttentionOutputs(NamedTuple):
    """Scores (N, K, H, W) of the sum of both branches, and of each branch."""

    logits: Tensor
    position_logits: Tensor
    channel_logits: Tensor


class DualAttentionHead(nn.Module):
    r"""Head of DANet: both attentions side by side, added, and a score for each class and place.

    .. math::

        p &= f_p(\mathrm{PositionAttention}(g_p(x))), \qquad
        c = f_c(\mathrm{ChannelSelfAttention}(g_c(x))) \\
        y &= V_1(p + c), \qquad y_p = V_2\, p, \qquad y_c = V_3\, c

    Each g and f is a 3x3 convolution with batch normalisation and a ReLU, each V a 1x1 convolution
    behind a dropout of whole channels. In training the branches are supervised, too; in evaluation
    y is all there is.

    Parameters
    ----------
    in_channels : int
        Channels C.
    num_classes : int
        Classes K.
    reduction : int
        The branches have C // reduction channels.
    branches : str
        "both", or "position" or "channel" for one alone, as in the paper's ablation: then there
        are no further scores in training either.
    dropout : float
        Of channels, in front of each V.
    sign : str
        As `ChannelSelfAttention`.
    query_reduction : int
        `reduction` of the `PositionAttention`.

    Attributes
    ----------
    conv5a, conv5c, sa, sc, conv51, conv52, conv6, conv7, conv8 : Module
        g_p, g_c, the attentions, f_p, f_c, V_2, V_3 and V_1, under the names of the authors'
        program. Of a branch that is left out nothing is there.

    Raises
    ------
    ValueError
        If a reduction leaves no channels, or a setting is unknown.

    References
    ----------
    Fu et al., "Dual Attention Network for Scene Segmentation" (CVPR 2019), section 3.4, figure 2.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        reduction: int = 4,
        branches: str = "both",
        dropout: float = 0.1,
        sign: str = "paper",
        query_reduction: int = 8,
    ):
        super().__init__()
        width = reduced(self, in_channels, reduction)
        self.in_channels = in_channels
        self.branches = check_choice(self, "branches", branches, BRANCHES)
        if branches != "channel":
            self.conv5a = _conv(in_channels, width)
            self.sa = PositionAttention(width, query_reduction)
            self.conv51 = _conv(width, width)
        if branches != "position":
            self.conv5c = _conv(in_channels, width)
            self.sc = ChannelSelfAttention(width, sign)
            self.conv52 = _conv(width, width)
        if branches == "both":
            self.conv6 = _scores(width, num_classes, dropout)
            self.conv7 = _scores(width, num_classes, dropout)
        self.conv8 = _scores(width, num_classes, dropout)

    def forward(self, x: Tensor) -> Tensor | DualAttentionOutputs:
        """Scores (N, K, H, W) of features x (N, C, H, W); in training those of the branches too."""
        x = as_images(self, x, self.in_channels)
        if self.branches == "position":
            return self.conv8(self.position(x))
        if self.branches == "channel":
            return self.conv8(self.channel(x))
        p, c = self.position(x), self.channel(x)
        logits = self.conv8(p + c)
        return (
            DualAttentionOutputs(logits, self.conv6(p), self.conv7(c)) if self.training else logits
        )

    def position(self, x: Tensor) -> Tensor:
        """The position branch, (N, C, H, W) -> (N, C / reduction, H, W)."""
        return self.conv51(self.sa(self.conv5a(x)))

    def channel(self, x: Tensor) -> Tensor:
        """The channel branch, (N, C, H, W) -> (N, C / reduction, H, W)."""
        return self.conv52(self.sc(self.conv5c(x)))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, branches={self.branches!r}"


def _conv(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def _scores(channels: int, num_classes: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))
