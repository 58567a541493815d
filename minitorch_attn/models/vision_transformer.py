"""Vision Transformer: an image as a sequence of patches, and a Transformer's encoder on it."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .. import nn
from ..attention.arguments import as_images
from ..attention.patch_embedding import PatchEmbedding
from ..engine import ShapeError, Tensor, zeros
from ..ops.arguments import integer


class EncoderBlock(nn.Module):
    r"""Self-attention and a small network for each token, both with normalisation in front.

    .. math::

        u &= x + \mathrm{MHA}(\mathrm{LN}_1(x)) \\
        y &= u + W_2\, \mathrm{gelu}(W_1\, \mathrm{LN}_2(u) + b_1) + b_2

    Parameters
    ----------
    features : int
        D of a token.
    heads : int
        E.
    hidden : int
        Width of the small network.
    dropout : float
        Behind both maps of the small network, and behind attention.

    Attributes
    ----------
    ln_1, self_attention, ln_2, mlp : Module
        A forward hook on `self_attention.softmax` sees the weights, (N, E, L, L).

    References
    ----------
    Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021), equations 2 and 3.
    """

    def __init__(self, features: int, heads: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.ln_1 = nn.LayerNorm(features, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = nn.LayerNorm(features, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(features, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, features),
            nn.Dropout(dropout),
        )
        for layer in (self.mlp[0], self.mlp[3]):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, L, D) -> (N, L, D)."""
        z = self.ln_1(x)
        read, _ = self.self_attention(z, z, z, need_weights=False)
        x = x + self.dropout(read)
        return x + self.mlp(self.ln_2(x))


class VisionTransformerEncoder(nn.Module):
    r"""A vector for each place is added to the tokens; then blocks, and one more normalisation.

    Parameters
    ----------
    length : int
        Tokens L.
    features, heads, hidden, dropout
        As `EncoderBlock`.
    layers : int
        Number of blocks.
    """

    def __init__(
        self, length: int, layers: int, features: int, heads: int, hidden: int, dropout: float
    ):
        super().__init__()
        self.pos_embedding = nn.Parameter(zeros(1, length, features))
        nn.init.normal_(self.pos_embedding, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(
            {
                f"encoder_layer_{i}": EncoderBlock(features, heads, hidden, dropout)
                for i in range(layers)
            }
        )
        self.ln = nn.LayerNorm(features, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, L, D) -> (N, L, D)."""
        return self.ln(self.layers(self.dropout(x + self.pos_embedding)))


class VisionTransformer(nn.Module):
    r"""Vision Transformer (ViT): no convolution but the first, which only cuts the patches.

    .. math::

        z_0 &= [t_{class};\ t_1;\ \dots;\ t_L] + p && \text{one more token, and places} \\
        z_m &= \mathrm{block}_m(z_{m-1}) \\
        y &= W\, \mathrm{LN}(z_M)_{class} + b

    Parameters
    ----------
    image_size, patch_size : int
        The image's side, and a patch's.
    layers, features, heads, hidden : int
        Blocks M, features D of a token, heads E, width of the small networks.
    num_classes : int
        K.
    in_channels : int
        C.
    dropout : float
        As `EncoderBlock`, and behind the sum of tokens and places.

    Attributes
    ----------
    conv_proj, class_token, encoder, heads : Module or Parameter
        Names and shapes are torchvision's, so that its state dicts load.

    Raises
    ------
    ValueError
        If the patches do not cover the image, the heads do not share out the features, or a count
        is no integer of at least 1.

    References
    ----------
    Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at
    Scale" (ICLR 2021), equations 1 to 4 and table 1.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        layers: int = 12,
        features: int = 768,
        heads: int = 12,
        hidden: int = 3072,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
    ):
        super().__init__()
        counts = {
            "image_size": image_size,
            "patch_size": patch_size,
            "layers": layers,
            "features": features,
            "heads": heads,
            "hidden": hidden,
            "num_classes": num_classes,
            "in_channels": in_channels,
        }
        for name, count in counts.items():
            integer("VisionTransformer", name, count, least=1)
        if image_size % patch_size:
            raise ValueError(
                f"VisionTransformer: patches of {patch_size} pixels do not cover an image of "
                f"{image_size}: the image's size must be a multiple of the patch's"
            )
        self.image_size = image_size
        self.conv_proj = PatchEmbedding(in_channels, features, patch_size)
        std = (1 / (in_channels * patch_size**2)) ** 0.5
        nn.init.trunc_normal_(self.conv_proj.weight, std=std, a=-2 * std, b=2 * std)
        self.conv_proj.bias = nn.Parameter(zeros(features))
        self.class_token = nn.Parameter(zeros(1, 1, features))
        length = (image_size // patch_size) ** 2 + 1
        self.encoder = VisionTransformerEncoder(length, layers, features, heads, hidden, dropout)
        self.heads = nn.Sequential({"head": nn.Linear(features, num_classes)})
        for p in self.heads.parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images x (N, C, H, W)."""
        x = as_images(self, x, self.conv_proj.in_channels)
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ShapeError(
                f"VisionTransformer: was made for images of {self.image_size}x{self.image_size} "
                f"pixels, for it knows the places of their patches, and got {x.shape}"
            )
        patches = self.conv_proj(x)
        token = self.class_token.expand(len(x), -1, -1)
        return self.heads(self.encoder(F.cat([token, patches], dim=1))[:, 0])


def vit_b_16(**settings: Any) -> VisionTransformer:
    """ViT-B/16: 86,567,656 parameters at 224 x 224 and 1,000 classes."""
    return VisionTransformer(**{"patch_size": 16, **settings})


def vit_b_32(**settings: Any) -> VisionTransformer:
    """ViT-B/32: 88,224,232 parameters."""
    return VisionTransformer(**{"patch_size": 32, **settings})


def vit_l_16(**settings: Any) -> VisionTransformer:
    """ViT-L/16: 304,326,632 parameters."""
    large = {"patch_size": 16, "layers": 24, "features": 1024, "heads": 16, "hidden": 4096}
    return VisionTransformer(**{**large, **settings})
