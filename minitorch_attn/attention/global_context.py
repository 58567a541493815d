from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .arguments import as_images, check_choice, reduced

FUSIONS = ("add", "scale")


class GlobalContext(nn.Module):
    r"""Global context block (GCNet): one weighted mean of all positions, given to every position.

    .. math::

        a_j &= \mathrm{softmax}_j(w_k^T x_j + b_k) && \text{one map for the whole image} \\
        z &= \sum_j a_j\, x_j && \text{context} \\
        v &= W_2\, \mathrm{relu}(\mathrm{LN}(W_1 z + b_1)) + b_2 && \text{transform} \\
        y_i &= x_i + v \quad\text{or}\quad y_i = x_i \odot \sigma(v) && \text{fusion}

    The positions i, j run over all H W. A non-local block works out a map for each position i; its
    authors saw that trained maps hardly depend on i, and one map for all costs H W numbers in
    place of (H W)^2. With "scale" and equal weights a it is squeeze and excitation with a layer
    normalisation inside.

    Parameters
    ----------
    channels : int
        Channels C.
    reduction : int
        r: the bottleneck has C // r units.
    fusion : str
        "add" (the paper's block), or "scale" for gates.

    Attributes
    ----------
    mask, weights, fc1, norm, fc2 : Module
        Its parts. A forward hook on `weights` sees the map a, (N, 1, H W).

    Raises
    ------
    ValueError
        If the reduction leaves no unit in the bottleneck, or the fusion is unknown.

    Notes
    -----
    W_2 and its bias start at 0, as in the authors' code, so that with "add" the block at first
    changes nothing, and with "scale" halves everything.

    References
    ----------
    Cao, Xu, Lin, Wei and Hu, "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
    Beyond" (ICCV Workshops 2019), section 3.3, equation 5.
    """

    def __init__(self, channels: int, reduction: int = 16, fusion: str = "add"):
        super().__init__()
        hidden = reduced(self, channels, reduction)
        self.channels = channels
        self.fusion = check_choice(self, "fusion", fusion, FUSIONS)
        self.mask = nn.Conv2d(channels, 1, 1)
        self.weights = nn.Softmax(dim=2)
        self.fc1 = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, channels)
        for p in self.fc2.parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        """Give every position of x (N, C, H, W) the context of all; the shape stays."""
        x = as_images(self, x, self.channels)
        N, C, _, _ = x.shape
        a = self.weights(self.mask(x).reshape(N, 1, -1))
        z = (a @ x.reshape(N, C, -1).transpose(1, 2)).reshape(N, C)
        v = self.fc2(F.relu(self.norm(self.fc1(z)))).reshape(N, C, 1, 1)
        return x + v if self.fusion == "add" else x * F.sigmoid(v)

    def extra_repr(self) -> str:
        return f"{self.channels}, fusion={self.fusion!r}"
