"""Attention modules of the literature, one file per mechanism, named after it."""

from .bam import BAM
from .cbam import CBAM, ChannelAttention, SpatialAttention
from .channel_spatial_se import ChannelSpatialSE, SpatialSE
from .eca import ECA
from .non_local import NonLocalBlock
from .residual_attention import ResidualAttentionModule
from .spatial_transformer import SpatialTransformer
from .squeeze_excitation import SqueezeExcitation

__all__ = [
    "BAM",
    "CBAM",
    "ECA",
    "ChannelAttention",
    "ChannelSpatialSE",
    "NonLocalBlock",
    "ResidualAttentionModule",
    "SpatialAttention",
    "SpatialSE",
    "SpatialTransformer",
    "SqueezeExcitation",
]
