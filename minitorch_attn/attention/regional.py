from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import ShapeError, Tensor, as_tensor
from ..ops.arguments import integer
from .arguments import check_choice

ACTIVATIONS = {"softplus": nn.Softplus, "tanh": nn.Tanh}


class RegionalAttention(nn.Module):
    r"""Context-aware regional attention: how much each region of an image should count.

    .. math::

        u_r &= [v_r;\ g] && \text{a region's mean features, and the image's} \\
        w_r &= \mathrm{softplus}(W_c\, \varphi(W_r u_r + b_r) + b_c) && \text{one number a region}

    The weights are positive and not normalised over the regions: every region is judged by itself,
    in the light of the whole. They weigh the regions' maxima m: the image's vector is
    :math:`\frac{1}{R} \sum_r w_r m_r` while the weights are trained by classification
    (`retrieval.RegionalMAC`), and in a search :math:`\sum_r w_r \hat m_r` with whitened regions of
    length 1 (`retrieval.rmac` with this as its attention).

    Parameters
    ----------
    channels : int
        Channels C of a region's vector.
    hidden : int
        Rows of W_r.
    activation : str
        :math:`\varphi`: "softplus", which the authors' training program has, or "tanh", which
        their test program has with the same weights.

    Attributes
    ----------
    fc1, activation, fc2, gate : Module
        Its parts. A forward hook on `gate` sees the weights, (N, R, 1).

    Raises
    ------
    ValueError
        If a size is not an integer of at least 1, or the activation is unknown.
    ShapeError
        In a forward pass, if the vectors have other shapes.

    References
    ----------
    Kim and Yoon, "Regional Attention Based Deep Feature for Image Retrieval" (BMVC 2018), section
    3.2, equation 3.
    """

    def __init__(self, channels: int, hidden: int = 64, activation: str = "softplus"):
        super().__init__()
        self.channels = channels = integer("RegionalAttention", "channels", channels, least=1)
        hidden = integer("RegionalAttention", "hidden", hidden, least=1)
        self.fc1 = nn.Linear(2 * channels, hidden)
        self.activation = ACTIVATIONS[check_choice(self, "activation", activation, ACTIVATIONS)]()
        self.fc2 = nn.Linear(hidden, 1)
        self.gate = nn.Softplus()

    def forward(self, regions: Tensor, whole: Tensor) -> Tensor:
        """Weights (N, R) of regions' mean features (N, R, C) in images of mean features (N, C)."""
        regions, whole = as_tensor(regions), as_tensor(whole)
        if regions.ndim != 3 or regions.shape[2] != self.channels:
            raise ShapeError(
                f"RegionalAttention: needs regions (N, R, C) with C = {self.channels} channels, "
                f"got {regions.shape}"
            )
        if whole.shape != (len(regions), self.channels):
            raise ShapeError(
                "RegionalAttention: needs one vector for each image, "
                f"{(len(regions), self.channels)}, beside regions {regions.shape}, "
                f"got {whole.shape}"
            )
        context = whole.unsqueeze(1).expand(-1, regions.shape[1], -1)
        u = F.cat([regions, context], dim=2)
        return self.gate(self.fc2(self.activation(self.fc1(u)))).squeeze(2)

    def extra_repr(self) -> str:
        return f"{self.channels}"
