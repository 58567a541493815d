from __future__ import annotations

import math

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
        The root that is taken: above 1 it flattens the weights, at 1 there is none, below 1 it
        sharpens them.

    Raises
    ------
    ValueError
        If a power is not positive and finite; in a forward pass, if a feature is negative.

    Notes
    -----
    A place where no channel is active has the weight 0, and no gradient passes through s there:
    slopes of powers may be infinite at 0, but there is nothing to weigh. The activity is divided by
    its largest value before a power is taken: s stays the same, and no power overflows.

    References
    ----------
    Kalantidis, Mellina and Osindero (2016), section 4.1.
    """

    def __init__(self, a: float = 2.0, b: float = 2.0):
        super().__init__()
        if not (0 < a < math.inf and 0 < b < math.inf):
            raise ValueError(
                f"CroW: the powers a and b must be positive and finite, not {a} and {b}"
            )
        self.a = a
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        """Weights (N, H, W) of features x (N, C, H, W), none of them negative."""
        x = as_images(self, x)
        if (x < 0).any():
            raise ValueError(
                "CroW: weighs features that are not negative, such as those behind a ReLU, got "
                f"some down to {x.amin().item():g}"
            )
        activity = x.sum(dim=1)
        largest = activity.detach().amax(dim=(1, 2), keepdim=True)
        u = activity / F.where(largest > 0, largest, 1.0)  # in [0, 1]
        active = u > 0
        u = F.where(active, u, 1.0)
        powers = F.where(active, u**self.a, 0.0).sum(dim=(1, 2), keepdim=True)
        norm = powers.clamp(min=1) ** (1 / self.a)  # u is 1 somewhere, but in a map of zeros
        return F.where(active, (u / norm) ** (1 / self.b), 0.0)

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
        With 0, as in the authors' program, a channel that is never active has the weight 0. With
        :math:`\epsilon > 0`, as in the paper, it has the largest of all, and nothing to weigh; the
        other weights move a little closer together.

    Raises
    ------
    ValueError
        If eps is negative or infinite.

    References
    ----------
    Kalantidis, Mellina and Osindero (2016), section 4.2.
    """

    def __init__(self, eps: float = 0.0):
        super().__init__()
        if not 0 <= eps < math.inf:
            raise ValueError(f"CroW: eps must be finite and not negative, not {eps}")
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

    Raises
    ------
    ValueError
        As `SpatialWeights` and `ChannelWeights`.

    Notes
    -----
    The power a is in one number for the whole image: it changes the length of y alone, which a
    search by cosine does not notice. A greater b brings y nearer to the plain sum.

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
