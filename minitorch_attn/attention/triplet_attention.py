from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import Tensor
from ..ops.arguments import integer
from .arguments import as_images

# Each swaps two of the axes N, C, H, W, and undoes itself.
ROTATIONS = {"width": (0, 3, 2, 1), "height": (0, 2, 1, 3), "channel": (0, 1, 2, 3)}


class TripletAttention(nn.Module):
    r"""Triplet attention: spatial attention three times, each time seen along another axis.

    .. math::

        s(x) &= \sigma(\mathrm{BN}(f^{7 \times 7}[\max_c x;\ \mathrm{mean}_c\, x])), \qquad
        g(x) = s(x) \odot x \\
        y &= \tfrac{1}{3} \bigl(\pi_1(g_1(\pi_1(x))) + \pi_2(g_2(\pi_2(x))) + g_3(x)\bigr)

    :math:`\pi_1` swaps channels with columns, :math:`\pi_2` channels with rows. So the three gates
    have the shapes (H, C), (C, W) and (H, W), and channels speak with places without a
    bottleneck. The price is 3 (98 + 2) = 300 parameters, whatever C is.

    Parameters
    ----------
    kernel_size : int
        Of the convolutions, odd.

    Attributes
    ----------
    branches : ModuleDict
        "width", "height" and "channel", named after the axis that is squeezed. A forward hook on
        `branches["channel"].gate` sees s, (N, 1, H, W).

    Raises
    ------
    ValueError
        If the kernel's size is no odd integer of at least 1.

    References
    ----------
    Misra, Nalamada, Arasanipalai and Hou, "Rotate to Attend: Convolutional Triplet Attention
    Module" (WACV 2021), section 3.2.
    """

    def __init__(self, kernel_size: int = 7):
        super().__init__()
        self.branches = nn.ModuleDict({name: SqueezedGate(kernel_size) for name in ROTATIONS})

    def forward(self, x: Tensor) -> Tensor:
        """Weigh x (N, C, H, W) along three axes; the shape stays."""
        x = as_images(self, x)
        gated = [
            self.branches[name](x.permute(*axes)).permute(*axes) for name, axes in ROTATIONS.items()
        ]
        return (gated[0] + gated[1] + gated[2]) / 3


class SqueezedGate(nn.Module):
    """Weigh the places of x (N, A, P, Q) by the maximum and the mean of its axis A.

    Parameters
    ----------
    kernel_size : int
        Of the convolution, odd.
    """

    def __init__(self, kernel_size: int = 7):
        super().__init__()
        kernel_size = integer("TripletAttention", "kernel_size", kernel_size, least=1)
        if kernel_size % 2 == 0:
            raise ValueError(
                f"TripletAttention: kernel_size must be odd, not {kernel_size}: only then does the "
                "size stay"
            )
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, A, P, Q) -> (N, A, P, Q)."""
        squeezed = F.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * self.gate(self.norm(self.conv(squeezed)))
