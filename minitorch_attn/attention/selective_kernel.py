from __future__ import annotations

from typing import Any

from .. import functional as F
from .. import nn
from ..engine import Tensor
from ..ops.arguments import integer
from .arguments import as_images


class SelectiveKernel(nn.Module):
    r"""Selective kernel convolution (SK): several window sizes, and each channel picks among them.

    .. math::

        u^m &= \mathrm{relu}(\mathrm{BN}(f^m(x)))
            && \text{branch m: a 3x3 convolution of dilation m} \\
        s &= \frac{1}{HW} \sum_{i,j} \sum_m u^m_{i,j} && \text{squeeze} \\
        z &= \mathrm{relu}(\mathrm{BN}(W s)) \\
        a^m_c &= \mathrm{softmax}_m(A^m_c \cdot z + b^m_c) && \text{which branch?} \\
        y_c &= \sum_m a^m_c\, u^m_c

    Parameters
    ----------
    channels, out_channels : int
        Channels C in and O out (C, if left out).
    branches : int
        Their number; branch m = 1, 2, ... sees 1 + 2 m positions along each axis.
    reduction, least : int
        z has max(O // reduction, least) numbers.
    groups : int
        Groups of the branches' convolutions.
    stride : int
        Of the branches' convolutions.

    Attributes
    ----------
    branches : ModuleList
    fc, select, weights : Module
        A forward hook on `weights` sees a, (N, branches, O).

    Raises
    ------
    ValueError
        If a count is no integer of at least 1.

    Notes
    -----
    The paper calls the second branch a 5x5 convolution, and uses a 3x3 of dilation 2 for it, as
    here. Batch normalisation of z compares the images of a batch: training needs two at least.

    References
    ----------
    Li, Wang, Hu and Yang, "Selective Kernel Networks" (CVPR 2019), section 3.1, equations 1 to 6.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int | None = None,
        branches: int = 2,
        reduction: int = 16,
        least: int = 32,
        groups: int = 1,
        stride: int = 1,
    ):
        super().__init__()
        name = "SelectiveKernel"
        self.channels = integer(name, "channels", channels, least=1)
        out_channels = channels if out_channels is None else out_channels
        out_channels = integer(name, "out_channels", out_channels, least=1)
        branches = integer(name, "branches", branches, least=1)
        reduction = integer(name, "reduction", reduction, least=1)
        hidden = max(out_channels // reduction, integer(name, "least", least, least=1))
        shared: dict[str, Any] = {"stride": stride, "groups": groups, "bias": False}
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, out_channels, 3, padding=m, dilation=m, **shared),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(),
            )
            for m in range(1, branches + 1)
        )
        self.fc = nn.Sequential(
            nn.Linear(out_channels, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()
        )
        self.select = nn.Linear(hidden, branches * out_channels)
        self.weights = nn.Softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, C, H, W) in all branches, and mix them: (N, O, P, Q)."""
        x = as_images(self, x, self.channels)
        u = F.stack([branch(x) for branch in self.branches], dim=1)  # (N, branches, O, P, Q)
        s = u.sum(dim=1).mean(dim=(2, 3))
        a = self.weights(self.select(self.fc(s)).reshape(*u.shape[:3]))
        return (u * a.reshape(*a.shape, 1, 1)).sum(dim=1)

    def extra_repr(self) -> str:
        return f"{self.channels}"
