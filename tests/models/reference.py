"""Layers that reference networks are written with."""

from __future__ import annotations

from typing import Any


def torch_conv_bn(
    torch: Any,
    in_channels: int,
    out_channels: int,
    kernel_size: Any,
    stride: int = 1,
    padding: Any = 0,
    groups: int = 1,
    eps: float = 1e-5,
    relu: bool = True,
) -> Any:
    """PyTorch's convolution, batch normalisation and ReLU under the names of ConvBN."""
    tnn = torch.nn

    class ConvBN(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv = tnn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding, 1, groups, bias=False
            )
            self.bn = tnn.BatchNorm2d(out_channels, eps)

        def forward(self, x):
            y = self.bn(self.conv(x))
            return torch.relu(y) if relu else y

    return ConvBN()
