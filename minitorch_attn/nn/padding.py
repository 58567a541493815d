from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from ..ops.arguments import integers
from .module import Module


class _Pad(Module):
    """A border around the last axes of an input, of so many as `axes` says."""

    axes: int
    mode = "constant"

    def __init__(self, padding: int | tuple[int, ...]):
        super().__init__()
        widths = integers(type(self).__name__, "padding", padding)
        if len(widths) not in (1, 2 * self.axes):
            raise ValueError(
                f"{type(self).__name__}: padding is one width for all sides, or {2 * self.axes}, "
                f"(before, after) of the last axis first, not {padding}"
            )
        self.padding = widths * (2 * self.axes // len(widths))

    def forward(self, x: Any) -> Tensor:
        return F.pad(x, self.padding, self.mode)

    def extra_repr(self) -> str:
        return str(self.padding)


class ConstantPad1d(_Pad):
    """A border of one value at both ends of the last axis. (*, L) -> (*, before + L + after).

    Parameters
    ----------
    padding : int or (int, int)
        Width of the border, or (before, after). A negative width cuts off.
    value : float
    """

    axes = 1

    def __init__(self, padding: int | tuple[int, ...], value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, x: Any) -> Tensor:
        return F.pad(x, self.padding, value=self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}, value={self.value}"


class ConstantPad2d(ConstantPad1d):
    """A border of one value around images (*, H, W).

    Parameters
    ----------
    padding : int or four int
        Width of the border, or (left, right, top, bottom). A negative width cuts off.
    value : float
    """

    axes = 2


class ConstantPad3d(ConstantPad1d):
    """A border of one value around volumes (*, D, H, W).

    Parameters
    ----------
    padding : int or six int
        Width of the border, or (left, right, top, bottom, front, back).
    value : float
    """

    axes = 3


class ZeroPad1d(_Pad):
    """As `ConstantPad1d`, of zeros."""

    axes = 1


class ZeroPad2d(_Pad):
    """As `ConstantPad2d`, of zeros."""

    axes = 2


class ZeroPad3d(_Pad):
    """As `ConstantPad3d`, of zeros."""

    axes = 3


class ReflectionPad1d(_Pad):
    """A border that mirrors the inside: 2 1 (0 1 2 3) 2 1 for a padding of 2.

    Inputs are (C, L) or (N, C, L), see `functional.pad`.

    Parameters
    ----------
    padding : int or (int, int)
        Width of the border, or (before, after); smaller than what it mirrors.
    """

    axes = 1
    mode = "reflect"


class ReflectionPad2d(ReflectionPad1d):
    """As `ReflectionPad1d`, around images (C, H, W) or (N, C, H, W)."""

    axes = 2


class ReflectionPad3d(ReflectionPad1d):
    """As `ReflectionPad1d`, around volumes (C, D, H, W) or (N, C, D, H, W)."""

    axes = 3


class ReplicationPad1d(_Pad):
    """A border that repeats the outermost value: 0 0 (0 1 2 3) 3 3 for a padding of 2.

    Inputs are (C, L) or (N, C, L), see `functional.pad`.

    Parameters
    ----------
    padding : int or (int, int)
        Width of the border, or (before, after).
    """

    axes = 1
    mode = "replicate"


class ReplicationPad2d(ReplicationPad1d):
    """As `ReplicationPad1d`, around images (C, H, W) or (N, C, H, W)."""

    axes = 2


class ReplicationPad3d(ReplicationPad1d):
    """As `ReplicationPad1d`, around volumes (C, D, H, W) or (N, C, D, H, W)."""

    axes = 3


class CircularPad1d(_Pad):
    """A border that goes on with the other end: 2 3 (0 1 2 3) 0 1 for a padding of 2.

    Inputs are (C, L) or (N, C, L), see `functional.pad`.

    Parameters
    ----------
    padding : int or (int, int)
        Width of the border, or (before, after); at most the size of the axis.
    """

    axes = 1
    mode = "circular"


class CircularPad2d(CircularPad1d):
    """As `CircularPad1d`, around images (C, H, W) or (N, C, H, W)."""

    axes = 2


class CircularPad3d(CircularPad1d):
    """As `CircularPad1d`, around volumes (C, D, H, W) or (N, C, D, H, W)."""

    axes = 3
