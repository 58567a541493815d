"""Attention modules of the literature, one file per mechanism, named after it."""

from .squeeze_excitation import SqueezeExcitation

__all__ = ["SqueezeExcitation"]
