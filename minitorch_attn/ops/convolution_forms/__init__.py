"""The ways in which a convolution is computed, and the choice between them.

Each form is a module with the same three functions, of arrays:

====================================  =========================================
``forward(x, weight, geometry)``      y, the output
``grad_input(dy, weight, geometry)``  dx, and the forward of the transposed one
``grad_weight(dy, x, geometry)``      dw
====================================  =========================================

They are, from the obvious to the quick:

=============  ================================================================
`loops`        every product by itself: what the others are compared with
`columns`      windows as columns, one matrix product; works for every shape
`rows`         windows as rows, whole pixels at a time
`pointwise`    kernels of one tap: a matrix product without any copies
`winograd`     small kernels: a quarter of the multiplications
=============  ================================================================

The thresholds below are from timing all forms side by side (`benchmarks/convolution.py`) on one
thread of an x86-64 core with AVX-512; all but the quickest are close together near a threshold.
"""

from __future__ import annotations

from types import ModuleType

from . import columns, pointwise, rows, winograd
from .geometry import Geometry

__all__ = ["Geometry", "choose"]


def choose(g: Geometry) -> ModuleType:
    """The form in which a convolution of these shapes is quickest."""
    if pointwise.suits(g):
        return pointwise
    # Below that many channels, to transform tiles takes longer than to multiply what they save;
    # so it does if most of a tile sticks out of a small image.
    if winograd.suits(g) and g.C * g.O >= 256 and winograd.saving(g) >= 2:
        return winograd
    # Copying is quicker the longer the runs: S pixels in a row, a row of places in a column.
    if rows.suits(g) and rows.run(g) >= g.places[-1]:
        return rows
    return columns
