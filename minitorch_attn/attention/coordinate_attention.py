from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import Tensor
from ..ops.arguments import integer
from .arguments import as_images


class CoordinateAttention(nn.Module):
    r"""Coordinate attention: squeeze along one axis at a time, so that places are kept.

    .. math::

        z^h_{c,i} &= \frac{1}{W} \sum_j x_{c,i,j}, \qquad z^w_{c,j} = \frac{1}{H} \sum_i x_{c,i,j}
            && \text{means of rows, and of columns} \\
        f &= \delta\bigl(\mathrm{BN}(F_1 [z^h; z^w])\bigr), \quad (N, m, H + W)
            && \text{one map for both} \\
        s^h &= \sigma(F_h f^h), \qquad s^w = \sigma(F_w f^w) && \text{taken apart again} \\
        y_{c,i,j} &= s^h_{c,i}\, s^w_{c,j}\, x_{c,i,j}

    :math:`\delta` is the hard swish. The gate of a channel is a product of one number a row and
    one a column: a matrix of rank 1.

    Parameters
    ----------
    channels : int
        Channels C.
    reduction, least : int
        m = max(C // reduction, least).

    Attributes
    ----------
    fc, norm, conv_h, conv_w, gate_h, gate_w : Module
        Its parts. Forward hooks on the gates see s^h (N, C, H) and s^w (N, C, W).

    Raises
    ------
    ValueError
        If a count is no integer of at least 1.

    References
    ----------
    Hou, Zhou and Feng, "Coordinate Attention for Efficient Mobile Network Design" (CVPR 2021),
    section 3.2, equations 4 to 9.
    """

    def __init__(self, channels: int, reduction: int = 32, least: int = 8):
        super().__init__()
        name = "CoordinateAttention"
        self.channels = integer(name, "channels", channels, least=1)
        reduction = integer(name, "reduction", reduction, least=1)
        hidden = max(channels // reduction, integer(name, "least", least, least=1))
        self.fc = nn.Conv1d(channels, hidden, 1)
        self.norm = nn.BatchNorm1d(hidden)
        self.conv_h = nn.Conv1d(hidden, channels, 1)
        self.conv_w = nn.Conv1d(hidden, channels, 1)
        self.gate_h = nn.Sigmoid()
        self.gate_w = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Weigh rows and columns of x (N, C, H, W); the shape stays."""
        x = as_images(self, x, self.channels)
        H, W = x.shape[2:]
        z = F.cat([x.mean(dim=3), x.mean(dim=2)], dim=2)  # (N, C, H + W)
        f_h, f_w = F.split(F.hardswish(self.norm(self.fc(z))), [H, W], dim=2)
        s_h, s_w = self.gate_h(self.conv_h(f_h)), self.gate_w(self.conv_w(f_w))
        return x * s_h.unsqueeze(3) * s_w.unsqueeze(2)

    def extra_repr(self) -> str:
        return f"{self.channels}"
