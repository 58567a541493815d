from __future__ import annotations

from .. import nn
from ..engine import Tensor
from .arguments import as_images, reduced


class DoubleAttention(nn.Module):
    r"""Double attention block (A2-Net): gather features of the whole image, then hand them out.

    .. math::

        A &= W_a x + b_a, \quad (N, m, HW) && \text{features} \\
        B &= \mathrm{softmax}_j(W_b x + b_b), \quad (N, n, HW)
            && \text{n maps: where to gather} \\
        V &= \mathrm{softmax}_k(W_v x + b_v), \quad (N, n, HW)
            && \text{of each position: what it needs} \\
        y &= x + W_o\,(A B^T V) + b_o

    The first softmax runs over the positions, the second over the n gathered features. What passes
    between positions is the m x n matrix :math:`A B^T` alone: the mixing of positions,
    :math:`B^T V`, has rank n at most.

    Parameters
    ----------
    channels : int
        Channels C.
    reduction : int
        m = n = C // reduction.

    Attributes
    ----------
    features, gather, distribute, output : Module
        The four 1x1 convolutions.
    gather_weights, distribute_weights : Module
        Forward hooks on them see B and V, (N, n, H W).

    Raises
    ------
    ValueError
        If the reduction leaves no channels.

    References
    ----------
    Chen, Kalantidis, Li, Yan and Feng, "A2-Nets: Double Attention Networks" (NeurIPS 2018),
    section 3.
    """

    def __init__(self, channels: int, reduction: int = 4):
        super().__init__()
        hidden = reduced(self, channels, reduction)
        self.channels = channels
        self.features = nn.Conv2d(channels, hidden, 1)
        self.gather = nn.Conv2d(channels, hidden, 1)
        self.distribute = nn.Conv2d(channels, hidden, 1)
        self.gather_weights = nn.Softmax(dim=2)
        self.distribute_weights = nn.Softmax(dim=1)
        self.output = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gather from x (N, C, H, W) and hand out to it; the shape stays."""
        x = as_images(self, x, self.channels)
        a = self.features(x).flatten(2)
        b = self.gather_weights(self.gather(x).flatten(2))
        v = self.distribute_weights(self.distribute(x).flatten(2))
        z = (a @ b.transpose(1, 2)) @ v  # (N, m, n) @ (N, n, HW)
        return x + self.output(z.reshape(len(x), -1, *x.shape[2:]))

    def extra_repr(self) -> str:
        return f"{self.channels}"
