from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import functional as F
from ..engine import Tensor
from ..ops.windows import Sizes
from .module import Module
from .representation import settings

Option = int | Sizes
Size = int | tuple[int | None, ...]


class _Pool(Module):
    """What pools of windows share: an operation, and the windows' size and step."""

    operation: Callable

    def __init__(self, kernel_size: Option, stride: Option | None):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride

    def _shown(self, **values_and_defaults: tuple[Any, Any]) -> str:
        return str(self.kernel_size) + settings(
            stride=(self.stride, self.kernel_size), **values_and_defaults
        )


class _MaxPool(_Pool):
    def __init__(
        self,
        kernel_size: Option,
        stride: Option | None = None,
        padding: Option = 0,
        dilation: Option = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__(kernel_size, stride)
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, x: Any) -> Any:
        """The greatest elements, or with `return_indices` a tuple of them and their positions."""
        return self.operation(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
        )

    def extra_repr(self) -> str:
        return self._shown(
            padding=(self.padding, 0),
            dilation=(self.dilation, 1),
            return_indices=(self.return_indices, False),
            ceil_mode=(self.ceil_mode, False),
        )


class MaxPool1d(_MaxPool):
    """Greatest element of each window of a sequence. (N, C, W) -> (N, C, P).

    Arguments are those of `MaxPool2d`, with one axis of space.
    """

    operation = staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPool):
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
    return_indices : bool
        Also return where the greatest elements are, for `MaxUnpool2d`.
    ceil_mode : bool
        Also keep a last window that sticks out at the bottom or right, if it starts inside.
    """

    operation = staticmethod(F.max_pool2d)


class MaxPool3d(_MaxPool):
    """Greatest element of each window of a volume. (N, C, D, H, W) -> (N, C, ...).

    Arguments are those of `MaxPool2d`, with a third axis of space, the depth, before height and
    width.
    """

    operation = staticmethod(F.max_pool3d)


class _MaxUnpool(_Pool):
    def __init__(self, kernel_size: Option, stride: Option | None = None, padding: Option = 0):
        super().__init__(kernel_size, stride)
        self.padding = padding

    def forward(self, x: Any, indices: Any, output_size: Any = None) -> Tensor:
        """Put elements where the indices say; `output_size` as in `functional.max_unpool2d`."""
        return self.operation(x, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return self._shown(padding=(self.padding, 0))


class MaxUnpool1d(_MaxUnpool):
    """Elements back where a `MaxPool1d` found them. (N, C, P) -> (N, C, W).

    Arguments are those of `MaxUnpool2d`, with one axis of space.
    """

    operation = staticmethod(F.max_unpool1d)


class MaxUnpool2d(_MaxUnpool):
    """Elements back where a `MaxPool2d` found them, zeros elsewhere. (N, C, P, Q) -> (N, C, H, W).

    It is called with the pool's result and indices: ``unpool(y, indices, output_size=x.shape)``;
    `functional.max_unpool2d` says more.

    Parameters
    ----------
    kernel_size, stride, padding : int or (int, int)
        Those of the pool.
    """

    operation = staticmethod(F.max_unpool2d)


class MaxUnpool3d(_MaxUnpool):
    """Elements back where a `MaxPool3d` found them. (N, C, ...) -> (N, C, D, H, W).

    Arguments are those of `MaxUnpool2d`, with a third axis of space.
    """

    operation = staticmethod(F.max_unpool3d)


class AvgPool1d(_Pool):
    """Mean of each window of a sequence. (N, C, W) -> (N, C, P).

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, count_include_pad
        As in `AvgPool2d`, with one axis of space.
    """

    operation = staticmethod(F.avg_pool1d)

    def __init__(
        self,
        kernel_size: Option,
        stride: Option | None = None,
        padding: Option = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__(kernel_size, stride)
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def _options(self) -> tuple:
        return self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad

    def forward(self, x: Any) -> Tensor:
        return self.operation(x, *self._options())

    def extra_repr(self) -> str:
        return self._shown(
            padding=(self.padding, 0),
            ceil_mode=(self.ceil_mode, False),
            count_include_pad=(self.count_include_pad, True),
        )


class AvgPool2d(AvgPool1d):
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

    operation = staticmethod(F.avg_pool2d)

    def __init__(
        self,
        kernel_size: Option,
        stride: Option | None = None,
        padding: Option = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = divisor_override

    def _options(self) -> tuple:
        return *super()._options(), self.divisor_override

    def extra_repr(self) -> str:
        return super().extra_repr() + settings(divisor_override=(self.divisor_override, None))


class AvgPool3d(AvgPool2d):
    """Mean of each window of a volume. (N, C, D, H, W) -> (N, C, ...).

    Arguments are those of `AvgPool2d`, with a third axis of space.
    """

    operation = staticmethod(F.avg_pool3d)


class _LPPool(_Pool):
    def __init__(
        self,
        norm_type: float,
        kernel_size: Option,
        stride: Option | None = None,
        ceil_mode: bool = False,
    ):
        super().__init__(kernel_size, stride)
        self.norm_type = norm_type
        self.ceil_mode = ceil_mode

    def forward(self, x: Any) -> Tensor:
        return self.operation(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return f"{self.norm_type}, " + self._shown(ceil_mode=(self.ceil_mode, False))


class LPPool1d(_LPPool):
    """Norm of each window of a sequence. (N, C, W) -> (N, C, P).

    Arguments are those of `LPPool2d`, with one axis of space.
    """

    operation = staticmethod(F.lp_pool1d)


class LPPool2d(_LPPool):
    r"""Norm of each window of an image. (N, C, H, W) -> (N, C, P, Q).

    .. math:: y_{n,c,p,q} = \Bigl(\sum_{r,s} x_{n,\,c,\,pa+r,\,qa+s}^m\Bigr)^{1/m}

    with stride a and the norm's power m; `functional.lp_pool2d` says more.

    Parameters
    ----------
    norm_type : float
        The power m, not 0; infinity takes the greatest magnitude.
    kernel_size : int or (int, int)
        Size (R, S) of a window.
    stride : int or (int, int), optional
        Step between windows; the size of a window if left out.
    ceil_mode : bool
        Also keep a last window that sticks out at the bottom or right, if it starts inside.
    """

    operation = staticmethod(F.lp_pool2d)


class LPPool3d(_LPPool):
    """Norm of each window of a volume. (N, C, D, H, W) -> (N, C, ...).

    Arguments are those of `LPPool2d`, with a third axis of space.
    """

    operation = staticmethod(F.lp_pool3d)


class _AdaptiveAvgPool(Module):
    operation: Callable

    def __init__(self, output_size: Size):
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        return self.operation(x, self.output_size)

    def extra_repr(self) -> str:
        return str(self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Mean of each of P windows that cover a sequence. (N, C, W) -> (N, C, P).

    Parameters
    ----------
    output_size : int
        P; the windows are those of `AdaptiveAvgPool2d`.
    """

    operation = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    r"""Mean of each of P x Q windows that cover an image. (N, C, H, W) -> (N, C, P, Q).

    Window p covers the rows from :math:`\lfloor pH/P \rfloor` to below
    :math:`\lceil (p+1)H/P \rceil`, window q the columns likewise. `AdaptiveAvgPool2d(1)` is the
    global mean.

    Parameters
    ----------
    output_size : int or (int or None, int or None)
        (P, Q); None keeps the size of the input.
    """

    operation = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Mean of each of the windows that cover a volume. (N, C, D, H, W) -> (N, C, *output_size).

    Parameters
    ----------
    output_size : int or three of int or None
        None keeps the size of the input; the windows are those of `AdaptiveAvgPool2d`.
    """

    operation = staticmethod(F.adaptive_avg_pool3d)


class _AdaptiveMaxPool(Module):
    operation: Callable

    def __init__(self, output_size: Size, return_indices: bool = False):
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, x: Any) -> Any:
        """The greatest elements, or with `return_indices` a tuple of them and their positions."""
        return self.operation(x, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return str(self.output_size) + settings(return_indices=(self.return_indices, False))


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Greatest element of each of P windows of a sequence. (N, C, W) -> (N, C, P).

    Parameters
    ----------
    output_size : int
        P; the windows are those of `AdaptiveAvgPool2d`.
    return_indices : bool
        Also return where the greatest elements are.
    """

    operation = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Greatest element of each of P x Q windows of an image. (N, C, H, W) -> (N, C, P, Q).

    The windows are those of `AdaptiveAvgPool2d`.

    Parameters
    ----------
    output_size : int or (int or None, int or None)
        (P, Q); None keeps the size of the input.
    return_indices : bool
        Also return where the greatest elements are.
    """

    operation = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Greatest element of each of the windows of a volume. (N, C, D, H, W) -> (N, C, *output_size).

    Parameters
    ----------
    output_size : int or three of int or None
        None keeps the size of the input; the windows are those of `AdaptiveAvgPool2d`.
    return_indices : bool
        Also return where the greatest elements are.
    """

    operation = staticmethod(F.adaptive_max_pool3d)
