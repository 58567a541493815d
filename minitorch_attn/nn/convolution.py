from __future__ import annotations

import math
from typing import Any

from .. import functional as F
from ..engine import ShapeError, Tensor, zeros
from ..ops.windows import Sizes, per_axis
from . import init
from .module import Module
from .parameter import Parameter
from .representation import settings


class Conv2d(Module):
    """Convolution of images with learned kernels (see `functional.conv2d`).

    Parameters
    ----------
    in_channels, out_channels : int
        Channels C of the input and O of the output.
    kernel_size : int or (int, int)
        Size (R, S) of the kernels.
    stride, padding, dilation, groups
        As in `functional.conv2d`.
    bias : bool
        Whether a number is added to each output channel. In front of a BatchNorm2d, which
        subtracts the mean, it would do nothing.

    Attributes
    ----------
    weight : Parameter (O, C / groups, R, S)
        At first uniform in [-b, b] with b = 1 / sqrt(R S C / groups).
    bias : Parameter (O,) or None
        Likewise.

    Raises
    ------
    ShapeError
        If the groups do not divide the channels.
    ValueError
        If a size is neither one integer nor two, or too small.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sizes,
        stride: int | Sizes = 1,
        padding: int | Sizes | str = 0,
        dilation: int | Sizes = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__()
        if groups < 1:
            raise ValueError(f"Conv2d: groups must be at least 1, not {groups}")
        if in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"Conv2d: groups={groups} must divide in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = per_axis("Conv2d", "kernel_size", kernel_size, 2, least=1)
        self.stride = per_axis("Conv2d", "stride", stride, 2, least=1)
        self.padding = (
            padding
            if isinstance(padding, str)
            else per_axis("Conv2d", "padding", padding, 2, least=0)
        )
        self.dilation = per_axis("Conv2d", "dilation", dilation, 2, least=1)
        self.groups = groups
        self.weight = Parameter(zeros(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = Parameter(zeros(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first values anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # this gain makes it 1/sqrt(fan in)
        if self.bias is not None:
            bound = 1 / math.sqrt(max(1, math.prod(self.weight.shape[1:])))
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any) -> Tensor:
        """Map images (N, C, H, W) to (N, O, P, Q)."""
        return F.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    def extra_repr(self) -> str:
        first = f"{self.in_channels}, {self.out_channels}"
        return first + settings(
            kernel_size=(self.kernel_size, None),
            stride=(self.stride, (1, 1)),
            padding=(self.padding, (0, 0)),
            dilation=(self.dilation, (1, 1)),
            groups=(self.groups, 1),
            bias=(self.bias is not None, True),
        )
