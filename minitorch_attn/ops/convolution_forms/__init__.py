"""The ways in which a convolution is computed, and the choice between them.

Each form is a module with the same three functions, of arrays:

====================================  =========================================
``forward(x, weight, geometry)``      y, the output
``grad_input(dy, weight, geometry)``  dx, and the forward of the transposed one
``grad_weight(dy, x, geometry)``      dw
====================================  =========================================

They are, from the obvious to the quick:

================  =============================================================
`loops`           every product by itself: what the others are compared with
`columns`         windows as columns, one matrix product; works for every shape
`rows`            windows as rows, whole pixels at a time
`pointwise`       kernels of one tap: a matrix product without any copies
`depthwise`       a channel sees itself alone: no matrix, rows of pixels at once
`winograd_rows`   small kernels: half the multiplications, hardly anything to move
`winograd`        small kernels: a quarter of the multiplications
================  =============================================================

Arrays on a GPU have a form of their own, `gpu`, in which two kernels stand for all of these.

The thresholds below are from timing all forms side by side on one thread of an x86-64 core with
AVX-512 and 1 MB of cache. Near a threshold the two forms are about as quick, so that they need not
be exact.
"""

from __future__ import annotations

from types import ModuleType

from . import columns, depthwise, gpu, pointwise, rows, winograd, winograd_rows
from .geometry import Geometry

__all__ = ["Geometry", "choose"]


def choose(g: Geometry, on_gpu: bool = False) -> ModuleType:
    """The form in which a convolution of these shapes is quickest."""
    if on_gpu:
        return gpu
    if pointwise.suits(g):
        return pointwise
    if depthwise.suits(g):
        return depthwise
    # To transform tiles takes time for each channel, what is saved grows with S * C * O. Where most
    # of a tile sticks out of a small image nothing is saved. For groups there is no winograd_rows.
    enough = 4600 if g.G == 1 else 3000
    if winograd.suits(g) and g.kernel[1] * g.C * g.O >= enough and winograd.saving(g) >= 2:
        return winograd
    if winograd_rows.suits(g) and min(g.C, g.O) >= 4 and winograd_rows.saving(g) >= 1.5:
        return winograd_rows
    # Copying is quicker the longer the runs: S pixels in a row, a row of places in a column.
    if rows.suits(g) and rows.run(g) >= g.places[-1]:
        return rows
    return columns
