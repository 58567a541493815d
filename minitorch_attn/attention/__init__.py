"""Attention modules of the literature, one file per mechanism, named after it."""

from .bam import BAM
from .cbam import CBAM, ChannelAttention, SpatialAttention
from .spatial_transformer import SpatialTransformer
from .squeeze_excitation import SqueezeExcitation

__all__ = [
    "BAM",
    "CBAM",
    "ChannelAttention",
    "SpatialAttention",
    "SpatialTransformer",
    "SqueezeExcitation",
]
