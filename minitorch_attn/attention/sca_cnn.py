from __future__ import annotations

import math

from .. import functional as F
from .. import nn
from ..engine import ShapeError, Tensor, as_tensor
from ..ops.arguments import integer
from .arguments import as_images, check_choice

ORDERS = ("channel_spatial", "spatial_channel", "channel", "spatial")


class SCASpatial(nn.Module):
    r"""Spatial attention of SCA-CNN: where to look next, in the light of what was said.

    .. math::

        a_{ij} &= \tanh(W_s\, x_{ij} + b_s + W_h\, h) && \text{K numbers a place} \\
        \alpha &= \mathrm{softmax}_{ij}(w^T a_{ij} + b)

    Parameters
    ----------
    channels : int
        Channels C of the feature map.
    state : int
        Features D of the decoder's state h.
    hidden : int
        K.

    Attributes
    ----------
    map, state, score, weights : Module
        W_s, W_h, w, and the softmax: a forward hook on `weights` sees :math:`\alpha`, (N, H W).
    """

    def __init__(self, channels: int, state: int, hidden: int):
        super().__init__()
        self.map = nn.Linear(channels, hidden)
        self.state = nn.Linear(state, hidden, bias=False)
        self.score = nn.Linear(hidden, 1)
        self.weights = nn.Softmax(dim=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Weights (N, 1, H, W) of the places of x (N, C, H, W), for a state h (N, D)."""
        N, _, H, W = x.shape
        places = x.flatten(2).transpose(1, 2)  # (N, L, C)
        a = F.tanh(self.map(places) + self.state(h).unsqueeze(1))
        return self.weights(self.score(a).squeeze(2)).reshape(N, 1, H, W)


class SCAChannel(nn.Module):
    r"""Channel attention of SCA-CNN: what to look for next, in the light of what was said.

    .. math::

        z_c &= \frac{1}{HW} \sum_{ij} x_{cij} \\
        b_c &= \tanh(w_z z_c + b_z + W_h\, h) && \text{K numbers a channel} \\
        \beta &= \mathrm{softmax}_c(w^T b_c + b)

    A channel is known by its mean alone (w_z is one column of K numbers for all channels): two
    channels of the same mean have the same weight.

    Parameters
    ----------
    state, hidden : int
        As `SCASpatial`.

    Attributes
    ----------
    map, state, score, weights : Module
        w_z, W_h, w, and the softmax: a forward hook on `weights` sees :math:`\beta`, (N, C).
    """

    def __init__(self, state: int, hidden: int):
        super().__init__()
        self.map = nn.Linear(1, hidden)
        self.state = nn.Linear(state, hidden, bias=False)
        self.score = nn.Linear(hidden, 1)
        self.weights = nn.Softmax(dim=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Weights (N, C, 1, 1) of the channels of x (N, C, H, W), for a state h (N, D)."""
        z = x.mean(dim=(2, 3)).unsqueeze(2)  # (N, C, 1)
        b = F.tanh(self.map(z) + self.state(h).unsqueeze(1))
        return self.weights(self.score(b).squeeze(2)).reshape(*x.shape[:2], 1, 1)


class SCAAttention(nn.Module):
    r"""SCA-CNN's attention: a feature map weighed by channel and by place, anew for each word.

    .. math::

        \text{channel first:}\quad x' = C\, \beta(x, h) \odot x, \qquad
        y = H W\, \alpha(x', h) \odot x'

    and the other way round for "spatial_channel". Several of them stand behind one another in a
    network, with convolutions between, all told of the same state h of the decoder:
    `minitorch_attn.models.SCALayers`. Spatial attention with a mean over the places behind it is
    the soft attention of "Show, attend and tell". The biases b of the scores are in the paper's
    equations, though a softmax does not see them.

    Parameters
    ----------
    channels : int
        Channels C.
    state : int
        Features D of the decoder's state.
    hidden : int
        K: both attentions compare in so many numbers.
    order : str
        "channel_spatial", "spatial_channel", or "channel" or "spatial" for one alone.
    rescale : bool
        Whether the weights are multiplied by their number (the factors C and H W above), so that
        equal weights change nothing: in the authors' program, not in the paper. Without it the
        map shrinks by a factor of C H W, and layers behind it have next to no input.

    Attributes
    ----------
    channel, spatial : Module or None
        Forward hooks on their `weights` see :math:`\beta`, (N, C), and :math:`\alpha`, (N, H W).

    Raises
    ------
    ValueError
        If a size is not an integer of at least 1, or the order is unknown.
    ShapeError
        In a forward pass, if the map or the state has another shape.

    References
    ----------
    Chen, Zhang, Xiao, Nie, Shao, Liu and Chua, "SCA-CNN: Spatial and Channel-wise Attention in
    Convolutional Networks for Image Captioning" (CVPR 2017), sections 3.2 to 3.4.
    """

    def __init__(
        self,
        channels: int,
        state: int,
        hidden: int = 512,
        order: str = "channel_spatial",
        rescale: bool = True,
    ):
        super().__init__()
        self.channels = channels = integer("SCAAttention", "channels", channels, least=1)
        self.features = state = integer("SCAAttention", "state", state, least=1)
        hidden = integer("SCAAttention", "hidden", hidden, least=1)
        self.order = check_choice(self, "order", order, ORDERS)
        self.rescale = rescale
        self.channel = SCAChannel(state, hidden) if "channel" in order else None
        self.spatial = SCASpatial(channels, state, hidden) if "spatial" in order else None

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Weigh x (N, C, H, W) in the light of a state h (N, D); the shape stays."""
        x, h = as_images(self, x, self.channels), as_tensor(h)
        if h.shape != (len(x), self.features):
            raise ShapeError(
                f"SCAAttention: needs a state {(len(x), self.features)} beside images {x.shape}, "
                f"got {h.shape}"
            )
        for name in self.order.split("_"):
            attend = self.channel if name == "channel" else self.spatial
            w = attend(x, h)  # type: ignore[misc]
            x = x * (w * math.prod(w.shape[1:]) if self.rescale else w)
        return x

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.features}, order={self.order!r}"
