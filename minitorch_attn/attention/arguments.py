"""Checks that the modules of this room share, in words that their callers can act on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import nn
from ..engine import ShapeError, Tensor, as_tensor
from ..ops.arguments import integer


def as_images(module: nn.Module, x: Any, channels: int | None = None) -> Tensor:
    """An array or Tensor (N, C, H, W) as a Tensor.

    Raises a `ShapeError` in the module's name if it has other axes, or C is not `channels`.
    """
    x = as_tensor(x)
    if x.ndim != 4 or channels not in (None, x.shape[1]):
        needed = "" if channels is None else f" with C = {channels} channels"
        raise ShapeError(
            f"{type(module).__name__}: needs an input (N, C, H, W){needed}, got {x.shape}"
        )
    return x


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


def check_look_up(
    module: nn.Module, query: Any, memory: Any, mask: Any, query_size: int, memory_size: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Query (N, Dq), memory (N, L, Dm) and mask (N, L) or None as tensors that fit.

    Raises a `ShapeError` in the module's name if they do not.
    """
    name = type(module).__name__
    query, memory = as_tensor(query), as_tensor(memory)
    N, L = memory.shape[:2] if memory.ndim == 3 else (None, None)
    if query.shape != (N, query_size) or memory.shape != (N, L, memory_size):
        raise ShapeError(
            f"{name}: needs a query (N, {query_size}) and a memory (N, L, {memory_size}), got "
            f"{query.shape} and {memory.shape}"
        )
    if mask is None:
        return query, memory, None
    mask = as_tensor(mask)
    if mask.shape != (N, L):
        raise ShapeError(
            f"{name}: needs a mask (N, L) = {(N, L)}, true where it may look, got {mask.shape}"
        )
    return query, memory, mask
