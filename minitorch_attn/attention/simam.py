from __future__ import annotations

from .. import nn
from ..engine import ShapeError, Tensor
from .arguments import as_images


class SimAM(nn.Module):
    r"""SimAM: weigh each element by how far it stands out from its channel; no parameters.

    .. math::

        d_{c,i,j} = (x_{c,i,j} - \mu_c)^2, \qquad v_c = \frac{1}{HW - 1} \sum_{i,j} d_{c,i,j},
        \qquad y_{c,i,j} = x_{c,i,j}\;
        \sigma\Bigl(\frac{d_{c,i,j}}{4 (v_c + \lambda)} + \frac{1}{2}\Bigr)

    with the mean :math:`\mu_c` of the channel. Inside the sigmoid is one over the least energy of
    a linear classifier that tells the element from the rest of its channel; the paper solves it in
    closed form. (Its variance is divided by H W; that of the authors' program, built here, by
    H W - 1.) No gate lies below :math:`\sigma(1/2) \approx 0.62`: nothing is closed.

    Parameters
    ----------
    lam : float
        :math:`\lambda`, positive: keeps the quotient finite where a channel is constant.

    Attributes
    ----------
    gate : Module
        A forward hook on it sees the weights, (N, C, H, W).

    Raises
    ------
    ValueError
        If lam is not positive.
    ShapeError
        On the call, if there is a single position, which stands out from nothing.

    References
    ----------
    Yang, Zhang, Li and Xie, "SimAM: A Simple, Parameter-Free Attention Module for Convolutional
    Neural Networks" (ICML 2021), section 3.
    """

    def __init__(self, lam: float = 1e-4):
        super().__init__()
        if not lam > 0:  # NaN is not positive either
            raise ValueError(f"SimAM: lam must be positive, not {lam}")
        self.lam = lam
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the elements of x (N, C, H, W); the shape stays."""
        x = as_images(self, x)
        places = x.shape[2] * x.shape[3]
        if places < 2:
            raise ShapeError(f"SimAM: needs two positions at least to compare, got {x.shape}")
        d = (x - x.mean(dim=(2, 3), keepdim=True)) ** 2
        v = d.sum(dim=(2, 3), keepdim=True) / (places - 1)
        return x * self.gate(d / (4 * (v + self.lam)) + 0.5)

    def extra_repr(self) -> str:
        return f"lam={self.lam:g}"
