"""The mechanisms of the course, each in its place under one roof."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import nn
from ..attention import (
    BAM,
    CBAM,
    ECA,
    AdditiveAttention,
    ChannelSelfAttention,
    ChannelSpatialSE,
    CoordinateAttention,
    CrissCrossAttention,
    CroW,
    DELFAttention,
    DoubleAttention,
    DualAttentionHead,
    EfficientAttention,
    ExternalAttention,
    GlobalContext,
    LinearAttention,
    MultiheadAttention,
    MultiplicativeAttention,
    NonLocalBlock,
    ParameterFreeSpatialAttention,
    PositionAttention,
    RegionalAttention,
    ResidualAttentionModule,
    SCAAttention,
    ScaledDotProductAttention,
    SelectiveKernel,
    SimAM,
    SpatialTransformer,
    SqueezeExcitation,
    TripletAttention,
)
from ..attention.dual_attention import DualAttentionOutputs
from ..attention.spatial_transformer import LocalisationNet
from ..engine import Tensor
from ..models import VisionTransformer
from ..models.initialization import initialize
from ..models.preact_resnet import PreActBottleneck
from ..models.resnet import BasicBlock
from ..retrieval import GeM, mac, region_vectors, rmac, spoc
from .backbone import Backbone, place
from .families import FAMILIES


@dataclass(frozen=True)
class Mechanism:
    """One row of the comparison.

    Attributes
    ----------
    name : str
        As it is printed; a class of `attention` where it is one.
    place : str
        A place of `place`, "network" where `make()` is a whole network, or "family" where ``make``
        makes the stages of a backbone.
    make : callable
        Makes the module.
    lesson : int
        That builds it.
    shuffle : int
        Added to the seed that decides the order of the images.
    """

    name: str
    place: str
    make: Callable[..., nn.Module]
    lesson: int
    shuffle: int = 0

    def network(self, size: int) -> nn.Module:
        """The backbone with this in its place, for images (N, 1, size, size) of 10 classes."""
        if self.place == "network":
            return self.make(size)
        if self.place == "family":
            return Backbone(stage=self.make)
        backbone = Backbone()
        return backbone if self.place == "nothing" else place(backbone, self.place, self.make)


# -- modules that read or return something else than a map ----------------------------------------


class OnTokens(nn.Module):
    r"""Let an attention over tokens read a feature map, and add what it reads.

    .. math:: t = LN(x), \qquad y = x + W_o\, \mathrm{attend}(W_q t, W_k t, W_v t)

    Parameters
    ----------
    channels : int
        Channels C.
    attend : Module
        Queries, keys and values (N, L, C) -> (N, L, C).
    """

    def __init__(self, channels: int, attend: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.attend = attend
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        tokens = self.norm(places(x))
        read = self.attend(self.query(tokens), self.key(tokens), self.value(tokens))
        return x + self.output(read).transpose(1, 2).reshape(x.shape)


class InHeads(nn.Module):
    r"""The same with several heads: :math:`y = x + \mathrm{MultiHead}(t, t, t)`, t = LN(x)."""

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attend = MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        tokens = self.norm(places(x))
        read, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        return x + read.transpose(1, 2).reshape(x.shape)


class LookUp(nn.Module):
    """Pool by looking up the image's mean in its places: (N, C, H, W) -> (N, C).

    Parameters
    ----------
    attention : Module
        Query (N, C), memory (N, L, C) -> context (N, C), weights (N, L).
    """

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        context, _ = self.attention(spoc(x), places(x))
        return context


class ToldTheMean(nn.Module):
    """Pool by an attention that is told a state, which here is the image's mean, then by a mean.

    Parameters
    ----------
    attention : Module
        Maps (N, C, H, W), states (N, C) -> maps.
    """

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        return spoc(self.attention(x, spoc(x)))


class RegionalPooling(nn.Module):
    r"""The mean of R-MAC's regions, weighed by `RegionalAttention`: :math:`\frac1R \sum_r w_r m_r`.

    Parameters
    ----------
    channels : int
        Channels C.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.attention = RegionalAttention(channels, hidden=16)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        w = self.attention(region_vectors(x, pool=spoc), spoc(x))
        return (w.unsqueeze(2) * region_vectors(x, pool=mac)).mean(dim=1)


class Pool(nn.Module):
    """A pooling that is a function: (N, C, H, W) -> (N, C)."""

    def __init__(self, pool: Callable[[Tensor], Tensor]):
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        return self.pool(x)


class MeanOverPlaces(nn.Module):
    """A pooling that is a sum over places, made a mean, so that the classifier knows its size."""

    def __init__(self, pool: nn.Module):
        super().__init__()
        self.attention = pool

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        return self.attention(x) / (x.shape[2] * x.shape[3])


class DenseScores(nn.Module):
    """A head that scores every place (N, K, H, W), and the mean of its scores: (N, K)."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        scores = self.head(x)
        return spoc(scores.logits if isinstance(scores, DualAttentionOutputs) else scores)


def places(x: Tensor) -> Tensor:
    """A feature map (N, C, H, W) as a row for each place, (N, L, C)."""
    return x.flatten(2).transpose(1, 2)


# -- the rows -------------------------------------------------------------------------------------


def _one_more(channels: int) -> nn.Module:
    block = BasicBlock(channels, channels)
    initialize(block)
    return block


def _wider(size: int) -> nn.Module:
    return Backbone(widths=(20, 40))


def _vision_transformer(size: int) -> nn.Module:
    return VisionTransformer(
        size, 4, layers=2, features=32, heads=4, hidden=64, num_classes=10, in_channels=1
    )


def _residual_attention(channels: int) -> nn.Module:
    return ResidualAttentionModule(
        channels, lambda width: PreActBottleneck(width, width // 4), halvings=2, trunk=1
    )


def _transformer(channels: int) -> nn.Module:
    return SpatialTransformer(channels, localisation=LocalisationNet(channels, 20, width=8))


BASELINE = Mechanism("nothing", "nothing", nn.Identity, 8)

#: What each stands for: the same network without attention, with what else its price could buy,
#: and trained again in another order, which tells what luck alone does.
CONTROLS = (
    BASELINE,
    Mechanism("nothing, in another order", "nothing", nn.Identity, 8, shuffle=1000),
    Mechanism("one block more", "between", _one_more, 8),
    Mechanism("a quarter wider", "network", _wider, 8),
)

MECHANISMS = (
    # read the image
    Mechanism("SpatialTransformer", "front", _transformer, 16),
    # recalibrate
    Mechanism("SqueezeExcitation", "block", lambda C: SqueezeExcitation(C, 4), 13),
    Mechanism("ChannelSpatialSE", "block", lambda C: ChannelSpatialSE(C, 4), 13),
    Mechanism("ECA", "block", ECA, 13),
    Mechanism("CBAM", "block", lambda C: CBAM(C, 4, kernel_size=3), 15),
    Mechanism("GlobalContext", "block", lambda C: GlobalContext(C, 4), 21),
    Mechanism("CoordinateAttention", "block", CoordinateAttention, 21),
    Mechanism("TripletAttention", "block", lambda C: TripletAttention(3), 21),
    Mechanism("SimAM", "block", lambda C: SimAM(), 21),
    Mechanism("SelectiveKernel", "convolution", lambda C: SelectiveKernel(C, least=8), 21),
    Mechanism("BAM", "between", lambda C: BAM(C, 4, dilation=2), 14),
    Mechanism("ResidualAttentionModule", "between", _residual_attention, 17),
    # let places look at one another
    Mechanism("ScaledDotProductAttention", "between", lambda C: OnTokens(C, _scaled()), 11),
    Mechanism("MultiheadAttention", "between", InHeads, 11),
    Mechanism("NonLocalBlock", "between", NonLocalBlock, 18),
    Mechanism("NonLocalBlock, in tiles", "between", lambda C: NonLocalBlock(C, make_map=False), 20),
    Mechanism("PositionAttention", "between", lambda C: PositionAttention(C, 4), 19),
    Mechanism("ChannelSelfAttention", "between", ChannelSelfAttention, 19),
    Mechanism("DualAttentionHead", "head", lambda C, K: DenseScores(_dual(C, K)), 19),
    Mechanism("CrissCrossAttention", "between", lambda C: CrissCrossAttention(C, 4), 21),
    Mechanism("DoubleAttention", "between", lambda C: DoubleAttention(C, 2), 21),
    Mechanism("ExternalAttention", "between", lambda C: ExternalAttention(C, 32), 21),
    Mechanism("EfficientAttention", "between", EfficientAttention, 21),
    Mechanism("LinearAttention", "between", lambda C: OnTokens(C, LinearAttention()), 21),
    # pool
    Mechanism("AdditiveAttention", "pool", lambda C: LookUp(AdditiveAttention(C, C, 16)), 10),
    Mechanism("MultiplicativeAttention", "pool", lambda C: LookUp(_multiplicative(C)), 10),
    Mechanism("MAC", "pool", lambda C: Pool(mac), 22),
    Mechanism("GeM", "pool", lambda C: GeM(), 22),
    Mechanism("R-MAC", "pool", lambda C: Pool(lambda x: rmac(x)), 22),
    Mechanism("RegionalAttention", "pool", RegionalPooling, 22),
    Mechanism("CroW", "pool", lambda C: MeanOverPlaces(CroW()), 23),
    Mechanism("DELFAttention", "pool", lambda C: MeanOverPlaces(DELFAttention(C, 16)), 24),
    Mechanism("ParameterFreeSpatialAttention", "pool", lambda C: _parameter_free(), 25),
    Mechanism("SCAAttention", "pool", lambda C: ToldTheMean(SCAAttention(C, C, 16)), 26),
    # in place of all
    Mechanism("VisionTransformer", "network", _vision_transformer, 21),
)


def _scaled() -> nn.Module:
    return ScaledDotProductAttention()


def _dual(channels: int, classes: int) -> nn.Module:
    return DualAttentionHead(channels, classes, reduction=2, dropout=0.0, query_reduction=4)


def _multiplicative(channels: int) -> nn.Module:
    return MultiplicativeAttention(channels, channels)


def _parameter_free() -> nn.Module:
    """The paper's, followed by a sum: a weighted mean."""
    return nn.Sequential(ParameterFreeSpatialAttention(), Pool(lambda x: x.sum(dim=(2, 3))))


#: The blocks of lesson 08's networks as stages of the backbone; its own is a ResNet's.
FAMILY_ROWS = tuple(Mechanism(name, "family", make, 8) for name, make in FAMILIES.items())

ROWS = {row.name: row for row in (*CONTROLS, *MECHANISMS, *FAMILY_ROWS)}
