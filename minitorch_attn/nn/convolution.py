from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

from .. import functional as F
from ..engine import ShapeError, Tensor, zeros
from ..engine.tensor import operand
from ..ops.arguments import integer
from ..ops.convolution import border_of, padding_option, smallest_output
from ..ops.windows import Sizes, by, per_axis
from . import init
from .module import Module
from .parameter import Parameter
from .representation import settings

Option = int | Sizes

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Kernels(Module):
    """What convolutions and their transposes share: kernels, and the steps they move by."""

    dims: int  # axes of space
    operation: Callable[..., Tensor]
    padding: Sizes | str

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Option,
        stride: Option,
        dilation: Option,
        groups: int,
        bias: bool,
    ):
        super().__init__()
        in_channels = integer(self._name, "in_channels", in_channels, least=0)
        out_channels = integer(self._name, "out_channels", out_channels, least=0)
        groups = integer(self._name, "groups", groups, least=1)
        if in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"{self._name}: groups={groups} must divide in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = self._per_axis("kernel_size", kernel_size, least=1)
        self.stride = self._per_axis("stride", stride, least=1)
        self.dilation = self._per_axis("dilation", dilation, least=1)
        self.groups = groups
        self.weight = Parameter(zeros(*self._weight_channels(), *self.kernel_size))
        self.bias = Parameter(zeros(out_channels)) if bias else None
        self.reset_parameters()

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _per_axis(self, name: str, value: Any, least: int) -> Sizes:
        return per_axis(self._name, name, value, self.dims, least)

    def _weight_channels(self) -> Sizes:
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draw the first values anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # this gain makes it 1/sqrt(fan in)
        if self.bias is not None:
            bound = 1 / math.sqrt(max(1, math.prod(self.weight.shape[1:])))
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        ones = (1,) * self.dims
        return f"{self.in_channels}, {self.out_channels}" + settings(
            kernel_size=(self.kernel_size, None),
            stride=(self.stride, ones),
            padding=(self.padding, (0,) * self.dims),
            dilation=(self.dilation, ones),
            groups=(self.groups, 1),
            bias=(self.bias is not None, True),
        )


class _Convolution(_Kernels):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Option,
        stride: Option = 1,
        padding: Option | str = 0,
        dilation: Option = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, bias)
        if padding_mode not in PADDING_MODES:
            modes = ", ".join(PADDING_MODES)
            raise ValueError(f"{self._name}: padding_mode is one of {modes}, not {padding_mode!r}")
        self.padding = padding_option(self._name, padding, self.stride)
        self.padding_mode = padding_mode

    def _weight_channels(self) -> Sizes:
        return self.out_channels, self.in_channels // self.groups

    def forward(self, x: Any) -> Tensor:
        """Map images (N, C, H, W) to (N, O, P, Q), or what has as many axes of space as `dims`."""
        padding = self.padding
        if self.padding_mode != "zeros":
            border = border_of(padding, self.kernel_size, self.dilation)
            last_axis_first = tuple(itertools.chain.from_iterable(reversed(border)))
            x, padding = F.pad(x, last_axis_first, mode=self.padding_mode), "valid"
        return self.operation(
            x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        return super().extra_repr() + settings(padding_mode=(self.padding_mode, "zeros"))


class Conv1d(_Convolution):
    r"""Convolution of sequences with learned kernels. (N, C, W) -> (N, O, P).

    .. math:: y_{n,o,p} = b_o + \sum_{c,r} w_{o,c,r}\, x_{n,\,c,\,pa+rd}

    with stride a and dilation d. Arguments and attributes are those of `Conv2d`, with one axis of
    space.
    """

    dims = 1
    operation = staticmethod(F.conv1d)


class Conv2d(_Convolution):
    r"""Convolution of images with learned kernels. (N, C, H, W) -> (N, O, P, Q).

    .. math:: y_{n,o,p,q} = b_o + \sum_{c,r,s} w_{o,c,r,s}\, x_{n,\,c,\,pa+rd,\,qa+sd}

    with stride a and dilation d; `functional.conv2d` says more.

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
    padding_mode : str
        What stands in the padding: "zeros", or the pixels of `functional.pad` with the mode
        "reflect", "replicate" or "circular".

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
        If a size is neither one integer nor two, or too small, or an option is unknown.
    """

    dims = 2
    operation = staticmethod(F.conv2d)


class Conv3d(_Convolution):
    r"""Convolution of volumes with learned kernels. (N, C, D, H, W) -> (N, O, ...).

    Equation, arguments and attributes are those of `Conv2d`, with a third axis of space, the
    depth, before height and width.
    """

    dims = 3
    operation = staticmethod(F.conv3d)


class _ConvTranspose(_Kernels):
    padding: Sizes

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Option,
        stride: Option = 1,
        padding: Option = 0,
        output_padding: Option = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Option = 1,
        padding_mode: str = "zeros",
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, bias)
        if padding_mode != "zeros":
            raise ValueError(f"{self._name}: padding_mode is 'zeros' alone, not {padding_mode!r}")
        self.padding = self._per_axis("padding", padding, least=0)
        self.output_padding = self._per_axis("output_padding", output_padding, least=0)

    def _weight_channels(self) -> Sizes:
        return self.in_channels, self.out_channels // self.groups

    def forward(self, x: Any, output_size: Option | None = None) -> Tensor:
        """Map images (N, C, H, W) to (N, O, P, Q), or what has as many axes of space as `dims`.

        Parameters
        ----------
        x : (N, C, H, W) or (C, H, W)
        output_size : int or (int, int), optional
            (P, Q), also as the whole shape of the output, instead of the layer's output_padding.

        Raises
        ------
        ShapeError
            If no output padding leads to that size.
        """
        x, output_padding = operand(x), self.output_padding
        if output_size is not None:
            output_padding = self._output_padding_for(output_size, x.shape)
        return self.operation(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            output_padding,
            self.groups,
            self.dilation,
        )

    def extra_repr(self) -> str:
        nothing = (0,) * self.dims
        return super().extra_repr() + settings(output_padding=(self.output_padding, nothing))

    def _output_padding_for(self, output_size: Option, input_shape: Sizes) -> Sizes:
        if isinstance(output_size, (tuple, list)) and len(output_size) == len(input_shape):
            output_size = tuple(output_size[-self.dims :])
        size = self._per_axis("output_size", output_size, least=1)
        image = input_shape[-self.dims :]
        smallest = smallest_output(
            image, self.kernel_size, self.stride, self.padding, self.dilation
        )
        largest = tuple(n + step - 1 for n, step in zip(smallest, self.stride))
        if not all(low <= n <= high for low, n, high in zip(smallest, size, largest)):
            raise ShapeError(
                f"{self._name}: of images of {by(image)} no output_size of {by(size)} can be made, "
                f"only one from {by(smallest)} to {by(largest)}"
            )
        return tuple(map(operator.sub, size, smallest))


class ConvTranspose1d(_ConvTranspose):
    """The transpose of a convolution of sequences. (N, C, W) -> (N, O, P).

    Equation, arguments and attributes are those of `ConvTranspose2d`, with one axis of space.
    """

    dims = 1
    operation = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    r"""The transpose of a convolution of images, which enlarges them. (N, C, H, W) -> (N, O, P, Q).

    .. math:: y_{n,\,o,\,pa+rd,\,qa+sd} \mathrel{+}= \sum_c w_{c,o,r,s}\, x_{n,c,p,q}

    with stride a and dilation d; `functional.conv_transpose2d` says more.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels C of the input and O of the output.
    kernel_size : int or (int, int)
        Size (R, S) of the kernels.
    stride, padding, output_padding, groups, dilation
        As in `functional.conv_transpose2d`.
    bias : bool
        Whether a number is added to each output channel.
    padding_mode : "zeros"

    Attributes
    ----------
    weight : Parameter (C, O / groups, R, S)
        At first uniform in [-b, b] with b = 1 / sqrt(R S O / groups), as in PyTorch.
    bias : Parameter (O,) or None
        Likewise.

    Raises
    ------
    ShapeError
        If the groups do not divide the channels.
    ValueError
        If a size is neither one integer nor two, or too small.
    """

    dims = 2
    operation = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """The transpose of a convolution of volumes. (N, C, D, H, W) -> (N, O, ...).

    Equation, arguments and attributes are those of `ConvTranspose2d`, with a third axis of space,
    the depth, before height and width.
    """

    dims = 3
    operation = staticmethod(F.conv_transpose3d)
