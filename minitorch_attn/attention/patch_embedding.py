from __future__ import annotations

from .. import nn
from ..engine import ShapeError, Tensor
from ..ops.arguments import integer
from .arguments import as_images


class PatchEmbedding(nn.Conv2d):
    r"""Cut an image into patches, and make a token of each: the door from images to Transformers.

    .. math:: t_l = W\, \mathrm{vec}(\mathrm{patch}_l(x)) + b, \qquad l = 1, \dots, L = HW / R^2

    The patches of R x R pixels do not overlap. One linear map of each of them is a convolution
    whose stride is its kernel's size, and that is how it is computed.

    Parameters
    ----------
    channels : int
        Channels C of the image.
    features : int
        Features D of a token.
    patch_size : int
        R.

    Attributes
    ----------
    weight : Parameter
        (D, C, R, R).
    bias : Parameter
        (D,).

    Raises
    ------
    ValueError
        If a count is no integer of at least 1.
    ShapeError
        If the patches do not cover the image.

    References
    ----------
    Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at
    Scale" (ICLR 2021), section 3.1, equation 1.
    """

    def __init__(self, channels: int, features: int, patch_size: int):
        name = "PatchEmbedding"
        channels = integer(name, "channels", channels, least=1)
        features = integer(name, "features", features, least=1)
        self.patch_size = integer(name, "patch_size", patch_size, least=1)
        super().__init__(channels, features, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, L, D) of images x (N, C, H, W), row by row."""
        x = as_images(self, x, self.in_channels)
        if x.shape[2] % self.patch_size or x.shape[3] % self.patch_size:
            raise ShapeError(
                f"PatchEmbedding: patches of {self.patch_size}x{self.patch_size} pixels do not "
                f"cover an image {x.shape}: height and width must be multiples of "
                f"{self.patch_size}; resize or pad the image"
            )
        return super().forward(x).flatten(2).transpose(1, 2)
