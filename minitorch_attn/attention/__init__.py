"""Attention modules of the literature, one file per mechanism, named after it."""

from .additive import AdditiveAttention
from .bam import BAM
from .cbam import CBAM, ChannelAttention, SpatialAttention
from .channel_spatial_se import ChannelSpatialSE, SpatialSE
from .coordinate_attention import CoordinateAttention
from .criss_cross import CrissCrossAttention
from .crow import CroW
from .delf import DELFAttention
from .double_attention import DoubleAttention
from .dual_attention import ChannelSelfAttention, DualAttentionHead, PositionAttention
from .eca import ECA
from .efficient_attention import EfficientAttention
from .external_attention import ExternalAttention
from .global_context import GlobalContext
from .linear_attention import LinearAttention
from .multi_head import MultiheadAttention
from .multiplicative import MultiplicativeAttention
from .non_local import NonLocalBlock
from .parameter_free import ParameterFreeSpatialAttention
from .patch_embedding import PatchEmbedding
from .regional import RegionalAttention
from .residual_attention import ResidualAttentionModule
from .sca_cnn import SCAAttention
from .scaled_dot_product import ScaledDotProductAttention
from .selective_kernel import SelectiveKernel
from .simam import SimAM
from .spatial_transformer import SpatialTransformer
from .squeeze_excitation import SqueezeExcitation
from .triplet_attention import TripletAttention

__all__ = [
    "BAM",
    "CBAM",
    "ECA",
    "AdditiveAttention",
    "ChannelAttention",
    "ChannelSelfAttention",
    "ChannelSpatialSE",
    "CoordinateAttention",
    "CrissCrossAttention",
    "CroW",
    "DELFAttention",
    "DoubleAttention",
    "DualAttentionHead",
    "EfficientAttention",
    "ExternalAttention",
    "GlobalContext",
    "LinearAttention",
    "MultiheadAttention",
    "MultiplicativeAttention",
    "NonLocalBlock",
    "ParameterFreeSpatialAttention",
    "PatchEmbedding",
    "PositionAttention",
    "RegionalAttention",
    "ResidualAttentionModule",
    "SCAAttention",
    "ScaledDotProductAttention",
    "SelectiveKernel",
    "SimAM",
    "SpatialAttention",
    "SpatialSE",
    "SpatialTransformer",
    "SqueezeExcitation",
    "TripletAttention",
]
