"""The layer that most networks are made of: a convolution, batch normalisation, a ReLU."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .. import nn
from ..engine import Tensor


class ConvBN(nn.Module):
    r"""A convolution without bias, batch normalisation and a ReLU.

    .. math:: y = relu(BN(conv(x)))

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, groups
        Of the `nn.Conv2d`.
    eps : float
        Of the `nn.BatchNorm2d`.
    relu : bool
        Without it, :math:`y = BN(conv(x))`.

    Attributes
    ----------
    conv, bn : Module
        The parts that have parameters.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        eps: float = 1e-5,
        relu: bool = True,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels, eps)
        self.relu = relu

    def forward(self, x: Any) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q)."""
        y = self.bn(self.conv(x))
        return F.relu(y) if self.relu else y

    def extra_repr(self) -> str:
        return "" if self.relu else "relu=False"
