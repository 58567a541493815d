"""The regions of R-MAC: squares of several sizes, spread evenly over a feature map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..ops.arguments import integer

WANTED_OVERLAP = 0.4  # of neighbouring regions of the largest size


class Region(NamedTuple):
    """A square of a feature map: rows top to top + size, columns left to left + size."""

    top: int
    left: int
    size: int


def region_grid(height: int, width: int, levels: int = 3) -> list[Region]:
    r"""Regions of R-MAC, the largest first, row by row.

    At level l = 1 ... levels the squares have the size
    :math:`\lfloor 2 \min(H, W) / (l + 1) \rfloor`; there are l of them along the shorter side and
    l + m along the longer, from edge to edge with places rounded down. m is chosen so that
    neighbours at level 1 overlap by as near to 40 % as can be, from 1 to 6; for a square map m = 0.
    (A map more than 7 times as long as wide has gaps between them.)

    Parameters
    ----------
    height, width : int
        Size H x W of the feature map.
    levels : int
        Number of sizes.

    Returns
    -------
    list of Region
        14 for a square map with three levels, 20 for one of 4 : 3. Levels whose size would be 0
        are left out.

    Raises
    ------
    ValueError
        If a size is not an integer of at least 1.

    Notes
    -----
    The released code adds the whole map to these, which for a square map is its first region
    once more.

    References
    ----------
    Tolias, Sicre and Jégou, "Particular Object Retrieval with Integral Max-Pooling of CNN
    Activations" (ICLR 2016), section 3.2.
    """
    height = integer("region_grid", "height", height, least=1)
    width = integer("region_grid", "width", width, least=1)
    levels = integer("region_grid", "levels", levels, least=1)
    shorter = min(height, width)
    more = _more_along_the_longer_side(shorter, max(height, width))
    regions = []
    for level in range(1, levels + 1):
        size = 2 * shorter // (level + 1)
        if size == 0:
            break
        tops = _spread(height - size, level + more * (height > width))
        lefts = _spread(width - size, level + more * (width > height))
        regions += [Region(top, left, size) for top in tops for left in lefts]
    return regions


def _more_along_the_longer_side(shorter: int, longer: int) -> int:
    """How many regions more than along the shorter side: m."""
    if shorter == longer:
        return 0
    counts = np.arange(2, 8)
    steps = (longer - shorter) / (counts - 1)
    overlaps = (shorter**2 - shorter * steps) / shorter**2
    return int(np.abs(overlaps - WANTED_OVERLAP).argmin()) + 1


def _spread(room: int, count: int) -> list[int]:
    """Places of so many squares from 0 to `room`, evenly, rounded down."""
    return [0] if count == 1 else [room * j // (count - 1) for j in range(count)]
