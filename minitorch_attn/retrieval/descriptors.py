"""Global descriptors: one vector of a whole feature map, by which an image is found again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import functional as F
from .. import nn
from ..engine import ShapeError, Tensor
from ..engine.tensor import operand
from .regions import region_grid


def mac(x: Any) -> Tensor:
    r"""Maximum activations of convolutions: :math:`y_c = \max_{h,w} x_{chw}`.

    Parameters
    ----------
    x : (N, C, H, W)

    Returns
    -------
    (N, C)

    References
    ----------
    Razavian, Sullivan, Maki and Carlsson, "A Baseline for Visual Instance Retrieval with Deep
    Convolutional Networks" (2014).
    """
    return _maps("mac", x).amax(dim=(2, 3))


def spoc(x: Any) -> Tensor:
    r"""Mean-pooled convolutional features: :math:`y_c = \frac{1}{HW} \sum_{h,w} x_{chw}`.

    The paper sums, which is the same once lengths are divided out.

    Parameters
    ----------
    x : (N, C, H, W)

    Returns
    -------
    (N, C)

    References
    ----------
    Babenko and Lempitsky, "Aggregating Deep Convolutional Features for Image Retrieval" (ICCV
    2015).
    """
    return _maps("spoc", x).mean(dim=(2, 3))


def gem(x: Any, p: Any = 3.0, eps: float = 1e-6) -> Tensor:
    r"""Generalised mean: between the mean (p = 1) and the maximum (p towards infinity).

    .. math:: y_c = \Bigl(\frac{1}{HW} \sum_{h,w} \max(x_{chw}, \epsilon)^p\Bigr)^{1/p}

    Parameters
    ----------
    x : (N, C, H, W)
        Not negative: what is below eps counts as eps, and has no gradient.
    p : float or Tensor
        One positive number, for all channels. Has a gradient if it is a Tensor that requires one.
    eps : float
        The least value, positive.

    Returns
    -------
    (N, C)

    Raises
    ------
    ShapeError
        If x is not (N, C, H, W), or p more than one number.
    ValueError
        If p or eps is not positive.

    Notes
    -----
    The largest value of each channel is taken out of the sum first, so that powers of large values
    stay finite.

    References
    ----------
    Radenović, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation" (TPAMI
    2019), equation 3.
    """
    x, power = _maps("gem", x), operand(p)
    if power.numel() != 1:
        raise ShapeError(f"gem: needs one power p for all channels, got {power.shape}")
    if not power.item() > 0 or not eps > 0:
        raise ValueError(f"gem: p and eps must be positive, not {power.item():g} and {eps:g}")
    x = x.clamp(min=eps)
    largest = x.detach().amax(dim=(2, 3), keepdim=True)
    mean = ((x / largest) ** p).mean(dim=(2, 3))
    return largest.reshape(*mean.shape) * mean ** (1 / p)


class GeM(nn.Module):
    """Generalised mean with a power that is learned, one for all channels. (N, C, H, W) -> (N, C).

    Parameters
    ----------
    p : float
        The power at first.
    eps : float
        As `gem`.

    Attributes
    ----------
    p : Parameter
        (1,).
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6):
        super().__init__()
        self.p = nn.Parameter([float(p)])
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Pool x (N, C, H, W) to (N, C)."""
        return gem(x, self.p, self.eps)

    def extra_repr(self) -> str:
        return f"p={self.p.item():g}, eps={self.eps:g}"


def rmac(
    x: Any,
    levels: int = 3,
    whiten: Callable[[Tensor], Any] | None = None,
    whole: bool = False,
    attention: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    r"""Regional maximum activations: the sum of many regions' `mac`, each of length 1.

    .. math:: y = \sum_r w_r\, \widehat{W \widehat{\mathrm{mac}(x_r)}}

    over the regions r of `region_grid`; a hat divides by the length (see `functional.normalize`:
    a region of zeros stays zero, but its gradient is huge). W is the whitening, or nothing; the
    weights :math:`w_r` are 1 without an attention.

    Parameters
    ----------
    x : (N, C, H, W)
    levels : int
        Sizes of regions.
    whiten : callable, optional
        (N, R, C) -> (N, R, D), put between two divisions by the length: `PCAWhitening.transform`,
        through which no gradient passes, or a layer.
    whole : bool
        Whether the whole map is one more region, as in the released code.
    attention : callable, optional
        (N, R, C), (N, C) -> (N, R): weights of the regions, from the mean features of each and of
        the whole map; `attention.RegionalAttention`.

    Returns
    -------
    (N, C) or (N, D)
        Not divided by its length.

    References
    ----------
    Tolias, Sicre and Jégou, "Particular Object Retrieval with Integral Max-Pooling of CNN
    Activations" (ICLR 2016), section 3.2; with attention, Kim and Yoon, "Regional Attention Based
    Deep Feature for Image Retrieval" (BMVC 2018), section 3.3, who take the mean of the regions
    for the sum.
    """
    vectors = F.normalize(region_vectors(x, levels, whole=whole), dim=2)
    if whiten is not None:
        vectors = F.normalize(whiten(vectors), dim=2)
    if attention is not None:
        vectors = _weights(attention, x, levels, whole) * vectors
    return vectors.sum(dim=1)


class RegionalMAC(nn.Module):
    r"""The regions' maxima, weighed by attention: what regional attention is trained on.

    .. math:: y = \frac{1}{R} \sum_r w_r\, \mathrm{mac}(x_r)

    Between a network that was trained to classify and its last layer, both frozen, it is trained
    by the same loss: the weights learn which regions speak for the class. A search then takes
    `rmac` with this attention, whose regions have length 1.

    Parameters
    ----------
    attention : Module
        As that of `rmac`.
    levels, whole
        As `rmac`. (The authors take 5 levels.)

    Attributes
    ----------
    attention : Module

    References
    ----------
    Kim and Yoon, "Regional Attention Based Deep Feature for Image Retrieval" (BMVC 2018), section
    3.2, and their program.
    """

    def __init__(self, attention: nn.Module, levels: int = 3, whole: bool = False):
        super().__init__()
        self.attention = attention
        self.levels = levels
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        """Pool x (N, C, H, W) to (N, C)."""
        vectors = region_vectors(x, self.levels, whole=self.whole)
        return (_weights(self.attention, x, self.levels, self.whole) * vectors).mean(dim=1)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, whole={self.whole}"


def region_vectors(
    x: Any, levels: int = 3, pool: Callable[[Any], Tensor] = mac, whole: bool = False
) -> Tensor:
    """One vector for each region of `region_grid`: (N, C, H, W) -> (N, R, C).

    Parameters
    ----------
    x : (N, C, H, W)
    levels : int
        Sizes of regions.
    pool : callable
        `mac`, `spoc` or `gem`: (N, C, h, w) -> (N, C).
    whole : bool
        Whether the whole map comes last, as one more region.
    """
    x = _maps("region_vectors", x)
    vectors = [
        pool(x[:, :, top : top + size, left : left + size])
        for top, left, size in region_grid(x.shape[2], x.shape[3], levels)
    ]
    return F.stack([*vectors, pool(x)] if whole else vectors, dim=1)


def _weights(attention: Callable, x: Any, levels: int, whole: bool) -> Tensor:
    """The regions' weights, as a factor for their vectors: (N, R, 1)."""
    means = region_vectors(x, levels, pool=spoc, whole=whole)
    return attention(means, spoc(x)).unsqueeze(2)


def _maps(name: str, x: Any) -> Tensor:
    x = operand(x)
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise ShapeError(f"{name}: needs feature maps (N, C, H, W), got {x.shape}")
    return x
