"""Comparisons and logic, elementwise with broadcasting: questions that have no gradient.

The answers are tensors of booleans (bitwise operations keep integers). (*) -> (*).
"""

from __future__ import annotations

import numpy as np

from ..engine import primitive

_NO_GRADIENTS = (None, None)


@primitive
def eq(a, b):
    """Where a == b."""
    return a == b, _NO_GRADIENTS


@primitive
def ne(a, b):
    """Where a != b."""
    return a != b, _NO_GRADIENTS


@primitive
def lt(a, b):
    """Where a < b."""
    return a < b, _NO_GRADIENTS


@primitive
def le(a, b):
    """Where a <= b."""
    return a <= b, _NO_GRADIENTS


@primitive
def gt(a, b):
    """Where a > b."""
    return a > b, _NO_GRADIENTS


@primitive
def ge(a, b):
    """Where a >= b."""
    return a >= b, _NO_GRADIENTS


@primitive
def logical_and(a, b):
    """Where both a and b are true (not zero)."""
    return np.logical_and(a, b), _NO_GRADIENTS


@primitive
def logical_or(a, b):
    """Where a or b is true (not zero), or both."""
    return np.logical_or(a, b), _NO_GRADIENTS


@primitive
def logical_xor(a, b):
    """Where exactly one of a and b is true (not zero)."""
    return np.logical_xor(a, b), _NO_GRADIENTS


@primitive
def logical_not(x):
    """Where x is false (zero)."""
    return np.logical_not(x), None


@primitive
def bitwise_and(a, b):
    """The bits that are set in both a and b; of booleans, where both are true."""
    return a & b, _NO_GRADIENTS


@primitive
def bitwise_or(a, b):
    """The bits that are set in a or b; of booleans, where one is true, or both."""
    return a | b, _NO_GRADIENTS


@primitive
def bitwise_xor(a, b):
    """The bits that are set in exactly one of a and b; of booleans, where they differ."""
    return a ^ b, _NO_GRADIENTS


@primitive
def bitwise_not(x):
    """All bits flipped; of booleans, where x is false."""
    return ~x, None


@primitive
def isnan(x):
    """Where x is not a number."""
    return np.isnan(x), None


@primitive
def isinf(x):
    """Where x is infinite."""
    return np.isinf(x), None


@primitive
def isfinite(x):
    """Where x is neither infinite nor NaN."""
    return np.isfinite(x), None
