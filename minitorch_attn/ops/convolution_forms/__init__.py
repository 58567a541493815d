"""The ways in which a convolution is computed, and the choice between them.

Each form is a module with the same three functions, of arrays:

====================================  =========================================
``forward(x, weight, geometry)``      y, the output
``grad_input(dy, weight, geometry)``  dx, and the forward of the transposed one
``grad_weight(dy, x, geometry)``      dw
====================================  =========================================
"""

from __future__ import annotations

from types import ModuleType

from . import columns
from .geometry import Geometry

__all__ = ["Geometry", "choose"]


def choose(geometry: Geometry) -> ModuleType:
    """The form in which a convolution of these shapes is quickest."""
    return columns
