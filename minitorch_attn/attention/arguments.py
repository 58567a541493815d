"""Checks that the modules of this room share, in words that their callers can act on."""

from __future__ import annotations

from collections.abc import Iterable

from .. import nn
from ..engine import ShapeError, Tensor
from ..ops.arguments import integer


def check_images(module: nn.Module, x: Tensor, channels: int | None = None) -> None:
    """Raise a `ShapeError` in the module's name unless x is (N, C, H, W) with C = `channels`."""
    if x.ndim != 4 or channels not in (None, x.shape[1]):
        needed = "" if channels is None else f" with C = {channels} channels"
        raise ShapeError(
            f"{type(module).__name__}: needs an input (N, C, H, W){needed}, got {x.shape}"
        )


def check_choice(module: nn.Module, setting: str, choice: str, choices: Iterable[str]) -> str:
    """The choice; a ValueError in the module's name if it is none of the choices."""
    if choice not in choices:
        raise ValueError(
            f"{type(module).__name__}: {setting} must be one of {', '.join(choices)}, "
            f"not {choice!r}"
        )
    return choice


def reduced(module: nn.Module, channels: int, reduction: int) -> int:
    """The channels that a reduction leaves, C // r; a ValueError if it leaves none."""
    name = type(module).__name__
    channels = integer(name, "channels", channels, least=1)
    reduction = integer(name, "reduction", reduction)
    if reduction < 1:
        raise ValueError(
            f"{name}: reduction must be at least 1, not {reduction}: the bottleneck has "
            "channels // reduction units"
        )
    if reduction > channels:
        raise ValueError(
            f"{name}: reduction={reduction} leaves no unit in the bottleneck of {channels} "
            f"channels: take a reduction of at most {channels}"
        )
    return channels // reduction
