from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .arguments import as_images, check_choice

SQUEEZES = ("sum", "mean")
NORMS = ("softmax", "l1", "l2")


class ParameterFreeSpatialAttention(nn.Module):
    r"""Parameter-free spatial attention: weigh places by how active their channels are in all.

    .. math::

        s_{ij} &= \sum_c x_{cij} && \text{squeeze the channels} \\
        M_{ij} &= \frac{e^{s_{ij}}}{\sum_{hw} e^{s_{hw}}} && \text{over all places} \\
        y_{cij} &= M_{ij}\, x_{cij}

    It stands in front of a global average pooling alone, which becomes a weighted mean (up to the
    factor 1 / H W).

    Parameters
    ----------
    squeeze : str
        "sum", as in the paper; or "mean", as in the authors' program. A sum grows with the
        channels: with many of them the softmax leaves one place and nothing else.
    norm : str
        "softmax", as in the paper; "l1", as in the program: :math:`M = s / |s|_1`; or "l2":
        :math:`M = s / |s|_2`, CroW's weights without a root. The last two are for features that are
        not negative (the program divides by :math:`\sum s`, which is the same for them); a map of
        zeros is left as it is.

    Attributes
    ----------
    weights : Module
        A forward hook on it sees M, (N, H W).

    Raises
    ------
    ValueError
        If a setting is unknown.

    References
    ----------
    Wang, Fan, Wang, Jiao and Schiele, "Parameter-Free Spatial Attention Network for Person
    Re-Identification" (2018), section 3.2.
    """

    def __init__(self, squeeze: str = "sum", norm: str = "softmax"):
        super().__init__()
        self.squeeze = check_choice(self, "squeeze", squeeze, SQUEEZES)
        self.norm = check_choice(self, "norm", norm, NORMS)
        self.weights = nn.Softmax(dim=1) if norm == "softmax" else Normalize(p=int(norm[1]))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the places of x (N, C, H, W); the shape stays."""
        x = as_images(self, x)
        N, C, H, W = x.shape
        s = x.sum(dim=1).reshape(N, H * W)
        M = self.weights(s / C if self.squeeze == "mean" else s)
        return x * M.reshape(N, 1, H, W)

    def extra_repr(self) -> str:
        return f"squeeze={self.squeeze!r}, norm={self.norm!r}"


class Normalize(nn.Module):
    r"""Divide rows by their norm: :math:`x / \max(|x|_p, \epsilon)`. (N, L) -> (N, L).

    Parameters
    ----------
    p : int
        1 or 2.
    """

    def __init__(self, p: int):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(N, L) -> (N, L)."""
        return F.normalize(x, p=self.p, dim=1)

    def extra_repr(self) -> str:
        return f"p={self.p}"
