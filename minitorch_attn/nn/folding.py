from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from ..ops.windows import Sizes
from .module import Module
from .representation import settings

Option = int | Sizes


class Unfold(Module):
    r"""What a kernel sees at each place, as columns. (N, C, H, W) -> (N, C * R * S, L).

    .. math:: y_{n,\,(c,r,s),\,(p,q)} = x_{n,\,c,\,pa+rd,\,qa+sd}

    with stride a and dilation d; `functional.unfold` says more.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Size (R, S) of the kernel.
    dilation, padding, stride : int or (int, int)
        Step between the taps, zeros around the images, and step between places.
    """

    def __init__(
        self,
        kernel_size: Option,
        dilation: Option = 1,
        padding: Option = 0,
        stride: Option = 1,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, x: Any) -> Tensor:
        return F.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return str(self.kernel_size) + settings(
            dilation=(self.dilation, 1), padding=(self.padding, 0), stride=(self.stride, 1)
        )


class Fold(Module):
    r"""Columns laid down as patches and added up, the transpose of `Unfold`.

    (N, C * R * S, L) -> (N, C, H, W).

    .. math:: y_{n,\,c,\,pa+rd,\,qa+sd} \mathrel{+}= x_{n,\,(c,r,s),\,(p,q)}

    with stride a and dilation d; `functional.fold` says more.

    Parameters
    ----------
    output_size : int or (int, int)
        Size (H, W) of the images.
    kernel_size : int or (int, int)
        Size (R, S) of the kernel.
    dilation, padding, stride : int or (int, int)
        As in `Unfold`.
    """

    def __init__(
        self,
        output_size: Option,
        kernel_size: Option,
        dilation: Option = 1,
        padding: Option = 0,
        stride: Option = 1,
    ):
        super().__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, x: Any) -> Tensor:
        return F.fold(
            x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )

    def extra_repr(self) -> str:
        return f"{self.output_size}, {self.kernel_size}" + settings(
            dilation=(self.dilation, 1), padding=(self.padding, 0), stride=(self.stride, 1)
        )
