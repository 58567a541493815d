from __future__ import annotations

from .. import nn
from ..engine import Tensor
from ..ops.arguments import integer
from .arguments import as_images


class EfficientAttention(nn.Module):
    r"""Efficient attention: two softmaxes in place of one, and the product of three is regrouped.

    .. math::

        q &= \mathrm{softmax}_d(W_q x + b_q), \quad (N, E, L, D)
            && \text{over the channels of a position} \\
        k &= \mathrm{softmax}_j(W_k x + b_k), \quad (N, E, L, D)
            && \text{over the positions of a channel} \\
        y &= x + W_o\, q\,(k^T v) + b_o

    Each row of :math:`q k^T` sums to one, as a softmax would; but the D x D' matrix
    :math:`k^T v` can now be worked out first, so that the L x L weights (L = H W) are never
    written down: time and memory are linear in L. It is another function than
    :math:`\mathrm{softmax}(q k^T) v`, not an approximation of it.

    Parameters
    ----------
    channels : int
        Channels C; values have as many.
    key_channels : int, optional
        Channels of queries and keys in all heads; C if left out.
    heads : int
        E; divides both.

    Attributes
    ----------
    query, key, value, output : Module
        The four 1x1 convolutions.
    query_weights, key_weights : Module
        Forward hooks on them see q and k, (N, E, L, D).

    Raises
    ------
    ValueError
        If the heads do not divide the channels, or a count is no integer of at least 1.

    References
    ----------
    Shen, Zhang, Zhao, Yi and Li, "Efficient Attention: Attention with Linear Complexities" (WACV
    2021), section 3.
    """

    def __init__(self, channels: int, key_channels: int | None = None, heads: int = 1):
        super().__init__()
        name = "EfficientAttention"
        channels = integer(name, "channels", channels, least=1)
        key_channels = channels if key_channels is None else key_channels
        key_channels = integer(name, "key_channels", key_channels, least=1)
        heads = integer(name, "heads", heads, least=1)
        for setting, count in (("channels", channels), ("key_channels", key_channels)):
            if count % heads:
                raise ValueError(
                    f"{name}: heads={heads} must divide {setting}={count}: each head has its own"
                )
        self.channels = channels
        self.heads = heads
        self.query = nn.Conv2d(channels, key_channels, 1)
        self.key = nn.Conv2d(channels, key_channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.query_weights = nn.Softmax(dim=3)
        self.key_weights = nn.Softmax(dim=2)
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the positions of x (N, C, H, W); the shape stays."""
        x = as_images(self, x, self.channels)
        q = self.query_weights(self._split(self.query(x)))
        k = self.key_weights(self._split(self.key(x)))
        v = self._split(self.value(x))
        read = q @ (k.transpose(2, 3) @ v)  # (N, E, L, D) @ (N, E, D, C / E)
        return x + self.output(read.transpose(2, 3).reshape(x.shape))

    def _split(self, x: Tensor) -> Tensor:
        """(N, E D, H, W) -> (N, E, L, D)."""
        N, channels, H, W = x.shape
        return x.reshape(N, self.heads, channels // self.heads, H * W).transpose(2, 3)

    def extra_repr(self) -> str:
        return f"{self.channels}, heads={self.heads}"
