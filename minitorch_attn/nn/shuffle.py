from __future__ import annotations

from typing import Any

from .. import functional as F
from ..engine import Tensor
from .module import Module


class PixelShuffle(Module):
    """Channels spread into squares of pixels. (*, C r^2, H, W) -> (*, C, H r, W r).

    Parameters
    ----------
    upscale_factor : int
        r, see `functional.pixel_shuffle`.
    """

    def __init__(self, upscale_factor: int):
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, x: Any) -> Tensor:
        return F.pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Squares of pixels gathered into channels. (*, C, H r, W r) -> (*, C r^2, H, W).

    Parameters
    ----------
    downscale_factor : int
        r, see `functional.pixel_unshuffle`.
    """

    def __init__(self, downscale_factor: int):
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, x: Any) -> Tensor:
        return F.pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Channels dealt out over the groups, so that groups mix. (N, C, ...) -> (N, C, ...).

    Parameters
    ----------
    groups : int
        See `functional.channel_shuffle`.
    """

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x: Any) -> Tensor:
        return F.channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
