"""Primitives: every operation with its gradient rules, one file per idea."""

from . import operators  # noqa: F401  (hangs operators and methods onto Tensor)
