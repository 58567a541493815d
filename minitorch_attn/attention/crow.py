from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .arguments import as_images


class SpatialWeights(nn.Module):
    r"""Weights of places: where many channels are active, more is kept (CroW).

    .. math:: s'_{ij} = \sum_c x_{cij}, \qquad
              s_{ij} = \Bigl(\frac{s'_{ij}}{(\sum_{hw} s'^a_{hw})^{1/a}}\Bigr)^{1/b}

    Parameters
    ----------
    a : float
        Power of the norm that s' is divided by.
    b : float
        The root that flattens the weights: none for 1.

    References
    ----------
    Kalantidis, Mellina and Osindero (2016), section 4.1.
    """

    def __init__(self, a: float = 2.0, b: float = 2.0):
        super().__init__()
        if a <= 0 or b <= 0:
            raise ValueError(f"CroW: the powers a and b must be positive, not {a} and {b}")
        self.a = a
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        """Weights (N, H, W) of features x (N, C, H, W), none of them negative."""
        x = as_images(self, x)
        s = x.sum(dim=1)
        norm = (s**self.a).sum(dim=(1, 2), keepdim=True) ** (1 / self.a)
        s = s / F.where(norm == 0, 1.0, norm)  # a map of zeros keeps its weights at 0
        return s if self.b == 1 else s ** (1 / self.b)

    def extra_repr(self) -> str:
        return f"a={self.a:g}, b={self.b:g}"


class ChannelWeights(nn.Module):
    r"""Weights of channels: those that are seldom active count more (CroW).

    .. math:: q_c = \frac{1}{HW} \#\{x_{cij} > 0\}, \qquad
              t_c = \log \frac{C \epsilon + \sum_d q_d}{\epsilon + q_c}

    As a rare word tells more of a text than a frequent one. The weights count, and have no
    gradient.

    Parameters
    ----------
    eps : float
        With 0, as in the authors' program, a channel that is never active has the weight 0; with
        :math:`\epsilon > 0`, as in the paper, the largest of all, which changes nothing as there is
        nothing to weigh.

    References
    ----------
    Kalantidis, Mellina and Osindero (2016), section 4.2.
    """

    def __init__(self, eps: float = 0.0):
        super().__init__()
        if eps < 0:
            raise ValueError(f"CroW: eps must not be negative, not {eps}")
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Weights (N, C) of features x (N, C, H, W)."""
        x = as_images(self, x)
        q = (x > 0).to(x.dtype).mean(dim=(2, 3))
        active = q + self.eps
        total = active.sum(dim=1, keepdim=True)
        return F.where(active > 0, total / F.where(active > 0, active, 1.0), 1.0).log()

    def extra_repr(self) -> str:
        return f"eps={self.eps:g}"


class CroW(nn.Module):
    r"""Cross-dimensional weighting: a sum over places, weighed by place and by channel.

    .. math:: y_c = t_c \sum_{ij} s_{ij}\, x_{cij}

    with the weights s of `SpatialWeights` and t of `ChannelWeights`. Nothing is learned: it turns
    the features of any network, of rectified convolutions, into a descriptor of an image.

    Parameters
    ----------
    a, b : float
        As `SpatialWeights`.
    eps : float
        As `ChannelWeights`.
    spatial, channel : bool
        Whether these weights are there; without both, this is the sum over places ("uCroW").

    Attributes
    ----------
    spatial, channel : Module or None
        Forward hooks on them see s, (N, H, W), and t, (N, C).

    References
    ----------
    Kalantidis, Mellina and Osindero, "Cross-dimensional Weighting for Aggregated Deep Convolutional
    Features" (ECCV Workshops 2016), section 4 and algorithm 1.
    """

    def __init__(
        self,
        a: float = 2.0,
        b: float = 2.0,
        eps: float = 0.0,
        spatial: bool = True,
        channel: bool = True,
    ):
        super().__init__()
        self.spatial = SpatialWeights(a, b) if spatial else None
        self.channel = ChannelWeights(eps) if channel else None

    def forward(self, x: Tensor) -> Tensor:
        """Descriptors (N, C) of features x (N, C, H, W); not divided by their length."""
        x = as_images(self, x)
        weighed = x if self.spatial is None else x * self.spatial(x).unsqueeze(1)
        y = weighed.sum(dim=(2, 3))
        return y if self.channel is None else y * self.channel(x)
