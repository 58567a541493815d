from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from .module import Module

Size = int | tuple[int, ...]
Factor = float | tuple[float, ...]


class Upsample(Module):
    """Images of another size. (N, C, H, W) -> (N, C, P, Q), and so with one or three axes of space.

    `functional.interpolate` has the equations of each mode.

    Parameters
    ----------
    size : int or ints, optional
        P, or one for each axis of space. Either this or `scale_factor`.
    scale_factor : float or floats, optional
        P / H; P is rounded down.
    mode : str
        "nearest", "nearest-exact", "area"; "linear" (one axis of space), "bilinear" (two),
        "trilinear" (three); "bicubic" (two).
    align_corners : bool, optional
        Whether the centres of the corner pixels stay where they are, rather than their outer
        corners. For the linear and cubic modes.
    recompute_scale_factor : bool, optional
        Whether positions use H / P, of the rounded P, also where `scale_factor` is given.
    """

    def __init__(
        self,
        size: Size | None = None,
        scale_factor: Factor | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ):
        super().__init__()
        self.size = size
        if isinstance(scale_factor, (tuple, list)):
            self.scale_factor: Factor | None = tuple(map(float, scale_factor))
        else:
            self.scale_factor = None if scale_factor is None else float(scale_factor)
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, x: Any) -> Tensor:
        return F.interpolate(
            x,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        if self.scale_factor is not None:
            return f"scale_factor={self.scale_factor}, mode={self.mode!r}"
        return f"size={self.size}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Images enlarged by repeating pixels. (N, C, H, W) -> (N, C, P, Q).

    Parameters
    ----------
    size : int or (int, int), optional
        (P, Q). Either this or `scale_factor`.
    scale_factor : float or (float, float), optional
        (P / H, Q / W), rounded down.
    """

    def __init__(self, size: Size | None = None, scale_factor: Factor | None = None):
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Images enlarged by bilinear interpolation with `align_corners`.

    (N, C, H, W) -> (N, C, P, Q).

    Parameters
    ----------
    size : int or (int, int), optional
        (P, Q). Either this or `scale_factor`.
    scale_factor : float or (float, float), optional
        (P / H, Q / W), rounded down.
    """

    def __init__(self, size: Size | None = None, scale_factor: Factor | None = None):
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)
