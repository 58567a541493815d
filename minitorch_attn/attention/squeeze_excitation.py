from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .arguments import as_images, check_choice, reduced

SQUEEZES = {"avg": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}
GATES = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


class SqueezeExcitation(nn.Module):
    r"""Squeeze-and-Excitation: weigh each channel by what the whole image holds.

    .. math::

        z_c &= \frac{1}{HW} \sum_{i,j} x_{c,i,j} && \text{squeeze: one number a channel} \\
        s &= \sigma(W_2\, \mathrm{relu}(W_1 z)) && \text{excitation: one weight a channel} \\
        y_{c,i,j} &= s_c\, x_{c,i,j} && \text{scale}

    The bottleneck :math:`W_1 \in R^{C/r \times C}`, :math:`W_2 \in R^{C \times C/r}` lets channels
    speak of one another at the price of :math:`2 C^2 / r` parameters.

    Parameters
    ----------
    channels : int
        Channels C.
    reduction : int
        r: the bottleneck has C // r units. With one or two units left, a ReLU that never fires
        can freeze the gate at 1/2: take a smaller r for few channels.
    bias : bool
        Whether the two linear maps have biases (C / r + C parameters more). The paper's equations
        and its ablations have none; the authors' released models have them.
    squeeze : str
        "avg", or "max" for the greatest value of each channel (table 11).
    gate : str
        "sigmoid", or "tanh" or "relu" (table 12: both do worse).

    Attributes
    ----------
    squeeze, fc1, fc2, gate : Module
        Its parts. A forward hook on `gate` sees the weights s, (N, C).

    Raises
    ------
    ValueError
        If the reduction leaves no unit in the bottleneck, or a setting is unknown.
    ShapeError
        If the input is not (N, C, H, W), with the C that it was made for.

    References
    ----------
    Hu, Shen, Albanie, Sun and Wu, "Squeeze-and-Excitation Networks" (TPAMI 2020), section 3,
    equations 2 to 4.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        bias: bool = False,
        squeeze: str = "avg",
        gate: str = "sigmoid",
    ):
        super().__init__()
        hidden = reduced(self, channels, reduction)
        self.channels = channels
        self.reduction = reduction
        self.squeeze = SQUEEZES[check_choice(self, "squeeze", squeeze, SQUEEZES)](1)
        self.fc1 = nn.Linear(channels, hidden, bias)
        self.fc2 = nn.Linear(hidden, channels, bias)
        self.gate = GATES[check_choice(self, "gate", gate, GATES)]()

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x (N, C, H, W); the shape stays."""
        x = as_images(self, x, self.channels)
        N, C, _, _ = x.shape
        z = self.squeeze(x).reshape(N, C)
        s = self.gate(self.fc2(F.relu(self.fc1(z))))  # (N, C)
        return x * s.reshape(N, C, 1, 1)

    def extra_repr(self) -> str:
        return f"{self.channels}, reduction={self.reduction}"
