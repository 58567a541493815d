from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import Tensor
from ..ops.arguments import integer
from .arguments import as_images


class DELFAttention(nn.Module):
    r"""Attention of DELF: a score for each place, and the sum of features weighed by it.

    .. math::

        \alpha_{ij} &= \mathrm{softplus}(w^T \mathrm{relu}(W x_{ij} + b) + b')
            && \text{one score a place} \\
        y &= \sum_{ij} \alpha_{ij}\, \frac{x_{ij}}{|x_{ij}|_2}

    The score sees the features as they are, the sum has them divided by their lengths. It is
    trained by classification of y, with the features fixed; in search, y is not used: the places
    of the highest scores are kept as local features.

    Parameters
    ----------
    channels : int
        Channels C.
    hidden : int
        Rows of W.
    normalize : bool
        Whether the features are divided by their lengths in the sum.

    Attributes
    ----------
    conv1, conv2, score : Module
        Its parts, 1x1 convolutions and softplus. A forward hook on `score` sees
        :math:`\alpha`, (N, 1, H, W).

    Raises
    ------
    ValueError
        If a size is not an integer of at least 1.

    Notes
    -----
    The authors' program has a batch normalisation behind `conv1` and takes the mean over places;
    the paper, built here, has neither.

    References
    ----------
    Noh, Araujo, Sim, Weyand and Han, "Large-Scale Image Retrieval with Attentive Deep Local
    Features" (ICCV 2017), section 3.2, equations 1 to 4.
    """

    def __init__(self, channels: int, hidden: int = 512, normalize: bool = True):
        super().__init__()
        self.channels = channels = integer("DELFAttention", "channels", channels, least=1)
        hidden = integer("DELFAttention", "hidden", hidden, least=1)
        self.normalize = normalize
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, 1, 1)
        self.score = nn.Softplus()

    def forward(self, x: Tensor) -> Tensor:
        """The weighed sum (N, C) of features x (N, C, H, W)."""
        alpha = self.scores(x)
        features = F.normalize(x, dim=1) if self.normalize else x
        return (alpha * features).sum(dim=(2, 3))

    def scores(self, x: Tensor) -> Tensor:
        """Scores (N, 1, H, W) of the places of features x (N, C, H, W)."""
        x = as_images(self, x, self.channels)
        return self.score(self.conv2(F.relu(self.conv1(x))))

    def extra_repr(self) -> str:
        return f"{self.channels}"
