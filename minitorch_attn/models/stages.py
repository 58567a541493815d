"""Stages: blocks one behind the other, and how many of them a network of some depth has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import nn


def stage(
    block: Any, in_channels: int, width: int, count: int, stride: int, **options: Any
) -> nn.Sequential:
    """Blocks of one width, one behind the other; the first has the stride and changes the channels.

    Parameters
    ----------
    block : class
        Called as ``block(in_channels, width, stride, **options)``; ``width * block.expansion``
        channels come out.
    in_channels : int
        Channels before the first block.
    width, count, stride : int
        Of the blocks, their number, and of the first of them.

    Raises
    ------
    ValueError
        If there would be no block.
    """
    if count < 1:
        raise ValueError(f"a stage needs a block at least, not {count} of them")
    first = block(in_channels, width, stride, **options)
    others = (block(width * block.expansion, width, 1, **options) for _ in range(count - 1))
    return nn.Sequential(first, *others)


def blocks_per_stage(depth: int, layers_per_block: int, other_layers: int = 2) -> int:
    """The number n of blocks in each of three stages of a network of so many layers.

    Raises
    ------
    ValueError
        If no n gives that depth.
    """
    step = 3 * layers_per_block
    n, rest = divmod(depth - other_layers, step)
    if rest or n < 1:
        nearest = max(1, round((depth - other_layers) / step)) * step + other_layers
        raise ValueError(
            f"depth must be {step} n + {other_layers}, with n blocks in each of three stages, "
            f"not {depth}: take {nearest}"
        )
    return n


def check_stages(network: nn.Module, count: int, **settings: Sequence[Any]) -> None:
    """See that every setting has one value for each of so many stages.

    Raises
    ------
    ValueError
        If one has more or fewer.
    """
    for name, values in settings.items():
        if len(values) != count:
            raise ValueError(
                f"{type(network).__name__}: {name}={tuple(values)} has {len(values)} values for "
                f"{count} stages: give one for each"
            )
