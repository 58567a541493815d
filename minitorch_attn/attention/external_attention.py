from __future__ import annotations

from .. import nn
from ..engine import Tensor
from ..ops.arguments import integer
from .arguments import as_images


class ExternalAttention(nn.Module):
    r"""External attention: positions look not at one another but at a learned memory.

    .. math::

        q_i &= W_q\, x_i + b_q \\
        \tilde w_{is} &= \mathrm{softmax}_i(q_i \cdot m^k_s), \qquad
        w_{is} = \frac{\tilde w_{is}}{\epsilon + \sum_t \tilde w_{it}}
            && \text{double normalisation} \\
        y_i &= x_i + W_o \sum_s w_{is}\, m^v_s + b_o

    The keys m^k and values m^v, S of each, are parameters, the same for all images: so images
    share what they know, and the cost is linear in the positions. The softmax runs over the
    positions i, the second normalisation over the memory s.

    Parameters
    ----------
    channels : int
        Channels C.
    memories : int
        S.

    Attributes
    ----------
    query, memory_key, softmax, weights, memory_value, output : Module
        Its parts. A forward hook on `weights` sees w, (N, H W, S).

    Raises
    ------
    ValueError
        If a count is no integer of at least 1.

    Notes
    -----
    The authors' code ties the two memories (:math:`m^v = m^k`), has a batch normalisation behind
    W_o and a ReLU behind the sum; the paper's equations, built here, have none of them.

    References
    ----------
    Guo, Liu, Mu and Hu, "Beyond Self-attention: External Attention using Two Linear Layers for
    Visual Tasks" (TPAMI 2022), section 3.2, equations 5 to 9.
    """

    def __init__(self, channels: int, memories: int = 64):
        super().__init__()
        channels = integer("ExternalAttention", "channels", channels, least=1)
        memories = integer("ExternalAttention", "memories", memories, least=1)
        self.channels = channels
        self.query = nn.Linear(channels, channels)
        self.memory_key = nn.Linear(channels, memories, bias=False)
        self.softmax = nn.Softmax(dim=1)
        self.weights = SumToOne(dim=2)
        self.memory_value = nn.Linear(memories, channels, bias=False)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Read from the memory for every position of x (N, C, H, W); the shape stays."""
        x = as_images(self, x, self.channels)
        tokens = x.flatten(2).transpose(1, 2)  # (N, L, C)
        w = self.weights(self.softmax(self.memory_key(self.query(tokens))))
        read = self.output(self.memory_value(w))
        return x + read.transpose(1, 2).reshape(x.shape)

    def extra_repr(self) -> str:
        return f"{self.channels}"


class SumToOne(nn.Module):
    r"""Divide numbers that are not negative by their sum: :math:`y_s = x_s / (\epsilon + \sum x)`.

    Parameters
    ----------
    dim : int
        The axis of the sum.
    eps : float
        Keeps the quotient finite where all are 0.
    """

    def __init__(self, dim: int, eps: float = 1e-9):
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(*) -> (*)."""
        return x / (x.sum(dim=self.dim, keepdim=True) + self.eps)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
