from __future__ import annotations

import math

from .. import nn
from ..engine import Tensor
from ..ops.arguments import integer
from .arguments import as_images


class ECA(nn.Module):
    r"""Efficient channel attention: weigh each channel by the means of itself and its neighbours.

    .. math::

        z_c &= \frac{1}{HW} \sum_{i,j} x_{c,i,j} && \text{squeeze, as in SqueezeExcitation} \\
        s_c &= \sigma\Bigl(\sum_{m=1}^{k} w_m\, z_{c + m - (k + 1) / 2}\Bigr)
               && \text{a convolution along the channels} \\
        y_{c,i,j} &= s_c\, x_{c,i,j} && \text{scale}

    There is no bottleneck: in place of two matrices of :math:`C^2 / r` numbers stand k numbers that
    all channels share, whatever C is. Beyond the first and the last channel there are zeros. Which
    channels are neighbours is a matter of their order alone; the layer in front learns to suit it.

    Parameters
    ----------
    channels : int
        Channels C.
    kernel_size : int, optional
        k, odd. Without it, `adaptive_kernel_size` of the channels.
    gamma, b : float
        Its constants.

    Attributes
    ----------
    squeeze, conv, gate : Module
        Its parts. A forward hook on `gate` sees the weights s, (N, 1, C).

    Raises
    ------
    ValueError
        If the kernel's size is even or not positive, or there are no channels.
    ShapeError
        If the input is not (N, C, H, W), with the C that it was made for.

    Notes
    -----
    The authors' code is handed k for each stage, 3 by default; the paper computes it.

    References
    ----------
    Wang, Wu, Zhu, Li, Zuo and Hu, "ECA-Net: Efficient Channel Attention for Deep Convolutional
    Neural Networks" (CVPR 2020), section 3.
    """

    def __init__(
        self, channels: int, kernel_size: int | None = None, gamma: float = 2, b: float = 1
    ):
        super().__init__()
        self.channels = integer("ECA", "channels", channels, least=1)
        if kernel_size is None:
            kernel_size = adaptive_kernel_size(channels, gamma, b)
        kernel_size = integer("ECA", "kernel_size", kernel_size, least=1)
        if kernel_size % 2 == 0:
            raise ValueError(
                f"ECA: kernel_size must be odd, not {kernel_size}: only then has a channel as many "
                "neighbours on its left as on its right"
            )
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x (N, C, H, W); the shape stays."""
        x = as_images(self, x, self.channels)
        N, C, _, _ = x.shape
        z = self.squeeze(x).reshape(N, 1, C)  # the channels as a sequence
        s = self.gate(self.conv(z))
        return x * s.reshape(N, C, 1, 1)

    def extra_repr(self) -> str:
        return f"{self.channels}"


def adaptive_kernel_size(channels: int, gamma: float = 2, b: float = 1) -> int:
    r"""The odd number that is nearest to :math:`|\log_2 C / \gamma + b / \gamma|`.

    With the defaults 3 for 8 channels and more, 5 for 128 and more, 7 for 2048 and more. In the
    middle between two odd numbers it is the greater. (The 80 parameters that the paper gives for
    the 16 blocks of ResNet-50 would be kernels of 5 alone. The rule gives 6 for 2048 channels,
    which is 7 here, and 86 parameters.)

    Parameters
    ----------
    channels : int
        C, at least 1.
    gamma, b : float
        How slowly it grows, and from where.

    Raises
    ------
    ValueError
        If there are no channels, or gamma is zero.

    References
    ----------
    Wang et al., "ECA-Net" (CVPR 2020), section 3.3.
    """
    channels = integer("ECA", "channels", channels, least=1)
    if gamma == 0:
        raise ValueError("ECA: gamma must not be 0: the logarithm of the channels is divided by it")
    size = abs((math.log2(channels) + b) / gamma)
    return 2 * int(size / 2) + 1
