"""What every module of the room is given, right or wrong."""

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import attention

from ..nn.parity import normal

IMAGES = abs(normal(2, 16, 8, 8)).astype("float32")
MODULES = {
    "BAM": lambda: attention.BAM(16, 4, dilation=1),
    "CBAM": lambda: attention.CBAM(16, 4),
    "ChannelAttention": lambda: attention.ChannelAttention(16, 4),
    "ChannelSelfAttention": lambda: attention.ChannelSelfAttention(16),
    "ChannelSpatialSE": lambda: attention.ChannelSpatialSE(16, 4),
    "CoordinateAttention": lambda: attention.CoordinateAttention(16),
    "CrissCrossAttention": lambda: attention.CrissCrossAttention(16),
    "CroW": attention.CroW,
    "DELFAttention": lambda: attention.DELFAttention(16),
    "DoubleAttention": lambda: attention.DoubleAttention(16),
    "DualAttentionHead": lambda: attention.DualAttentionHead(16, 3, 2, query_reduction=2),
    "ECA": lambda: attention.ECA(16),
    "EfficientAttention": lambda: attention.EfficientAttention(16),
    "ExternalAttention": lambda: attention.ExternalAttention(16),
    "GlobalContext": lambda: attention.GlobalContext(16),
    "NonLocalBlock": lambda: attention.NonLocalBlock(16),
    "ParameterFreeSpatialAttention": attention.ParameterFreeSpatialAttention,
    "PatchEmbedding": lambda: attention.PatchEmbedding(16, 4, 2),
    "PositionAttention": lambda: attention.PositionAttention(16),
    "SelectiveKernel": lambda: attention.SelectiveKernel(16),
    "SimAM": attention.SimAM,
    "SpatialAttention": attention.SpatialAttention,
    "SpatialSE": lambda: attention.SpatialSE(16),
    "SpatialTransformer": lambda: attention.SpatialTransformer(16),
    "SqueezeExcitation": lambda: attention.SqueezeExcitation(16, 4),
    "TripletAttention": attention.TripletAttention,
}
every_module = pytest.mark.parametrize("name", MODULES)


@every_module
def test_an_array_serves_as_a_tensor(name):
    mt.manual_seed(0)
    module = MODULES[name]().eval()
    expected = module(mt.tensor(IMAGES)).numpy()
    np.testing.assert_array_equal(module(IMAGES).numpy(), expected)


@every_module
def test_an_image_without_a_batch_is_refused_by_name(name):
    with pytest.raises(mt.ShapeError, match=rf"{name}: needs an input \(N, C, H, W\)"):
        MODULES[name]()(mt.tensor(IMAGES[0]))
