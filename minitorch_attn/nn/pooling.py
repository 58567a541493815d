from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from ..ops.windows import Sizes
from .module import Module
from .representation import settings

Size = int | tuple[int | None, int | None]


class MaxPool2d(Module):
    r"""Greatest element of each window of an image. (N, C, H, W) -> (N, C, P, Q).

    .. math:: y_{n,c,p,q} = \max_{r,s} x_{n,\,c,\,pa+rd,\,qa+sd}

    with stride a and dilation d; `functional.max_pool2d` says more.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Size (R, S) of a window.
    stride : int or (int, int), optional
        Step between windows; the size of a window if left out.
    padding : int or (int, int)
        Border of -inf around the images, at most half a window wide.
    dilation : int or (int, int)
        Step between the elements of a window.
    ceil_mode : bool
        Also keep a last window that sticks out at the bottom or right, if it starts inside.
    """

    def __init__(
        self,
        kernel_size: int | Sizes,
        stride: int | Sizes | None = None,
        padding: int | Sizes = 0,
        dilation: int | Sizes = 1,
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
    r"""Mean of each window of an image. (N, C, H, W) -> (N, C, P, Q).

    .. math:: y_{n,c,p,q} = \frac{1}{RS} \sum_{r,s} x_{n,\,c,\,pa+r,\,qa+s}

    with stride a; `functional.avg_pool2d` says more.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Size (R, S) of a window.
    stride : int or (int, int), optional
        Step between windows; the size of a window if left out.
    padding : int or (int, int)
        Border of zeros around the images, at most half a window wide.
    ceil_mode : bool
        Also keep a last window that sticks out at the bottom or right, if it starts inside.
    count_include_pad : bool
        Whether the padding counts in the number that the sum is divided by.
    divisor_override : int, optional
        A number to divide every sum by instead of R S.
    """

    def __init__(
        self,
        kernel_size: int | Sizes,
        stride: int | Sizes | None = None,
        padding: int | Sizes = 0,
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
    r"""Mean of each of P x Q windows that cover an image. (N, C, H, W) -> (N, C, P, Q).

    Window p covers the rows from :math:`\lfloor pH/P \rfloor` to below
    :math:`\lceil (p+1)H/P \rceil`, window q the columns likewise. `AdaptiveAvgPool2d(1)` is the
    global mean.

    Parameters
    ----------
    output_size : int or (int or None, int or None)
        (P, Q); None keeps the size of the input.
    """

    def __init__(self, output_size: Size):
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return str(self.output_size)


class AdaptiveMaxPool2d(Module):
    """Greatest element of each of P x Q windows of an image. (N, C, H, W) -> (N, C, P, Q).

    The windows are those of `AdaptiveAvgPool2d`.

    Parameters
    ----------
    output_size : int or (int or None, int or None)
        (P, Q); None keeps the size of the input.
    """

    def __init__(self, output_size: Size):
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        return F.adaptive_max_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return str(self.output_size)
