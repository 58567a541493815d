from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from ..ops.windows import Pair
from .module import Module
from .summary import settings

Size = int | tuple[int | None, int | None]


class MaxPool2d(Module):
    """Greatest element of each window of an image (see `functional.max_pool2d`)."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        ceil_mode: bool = False,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def forward(self, x: Any) -> Tensor:
        return F.max_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def extra_repr(self) -> str:
        return str(self.kernel_size) + settings(
            stride=(self.stride, self.kernel_size),
            padding=(self.padding, 0),
            dilation=(self.dilation, 1),
            ceil_mode=(self.ceil_mode, False),
        )


class AvgPool2d(Module):
    """Mean of each window of an image (see `functional.avg_pool2d`)."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, x: Any) -> Tensor:
        return F.avg_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return str(self.kernel_size) + settings(
            stride=(self.stride, self.kernel_size),
            padding=(self.padding, 0),
            ceil_mode=(self.ceil_mode, False),
            count_include_pad=(self.count_include_pad, True),
            divisor_override=(self.divisor_override, None),
        )


class AdaptiveAvgPool2d(Module):
    """Mean of each of P x Q windows that cover an image; `AdaptiveAvgPool2d(1)` is global."""

    def __init__(self, output_size: Size):
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return str(self.output_size)


class AdaptiveMaxPool2d(Module):
    """Greatest element of each of P x Q windows that cover an image."""

    def __init__(self, output_size: Size):
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        return F.adaptive_max_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return str(self.output_size)
