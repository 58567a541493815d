"""Attention modules of the literature, one file per mechanism, named after it."""

from .spatial_transformer import SpatialTransformer
from .squeeze_excitation import SqueezeExcitation

__all__ = ["SpatialTransformer", "SqueezeExcitation"]
