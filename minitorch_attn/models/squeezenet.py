"""SqueezeNet: few parameters, by 1x1 convolutions that narrow the input of the 3x3 ones."""

from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import Tensor


class Fire(nn.Module):
    r"""Squeeze to few channels, then expand by 1x1 and by 3x3 kernels, side by side.

    .. math:: s = relu(U * x), \qquad y = relu([V * s, W * s])

    U and V are 1x1 kernels, W is 3x3; all have biases.

    Parameters
    ----------
    in_channels : int
        Channels C before.
    squeeze_channels : int
        Channels of s.
    expand_channels : int
        Channels of each of the two parts of y.

    References
    ----------
    Iandola et al., "SqueezeNet" (2016), figure 1.
    """

    def __init__(self, in_channels: int, squeeze_channels: int, expand_channels: int):
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze_channels, 1)
        self.expand1x1 = nn.Conv2d(squeeze_channels, expand_channels, 1)
        self.expand3x3 = nn.Conv2d(squeeze_channels, expand_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, 2 * expand_channels, H, W)."""
        s = F.relu(self.squeeze(x))
        return F.relu(F.cat([self.expand1x1(s), self.expand3x3(s)], dim=1))


class SqueezeNet(nn.Module):
    """A convolution, eight fire modules with max pools between them, a 1x1 convolution, means.

    The last convolution gives a map of scores for each class; a ReLU follows it, and the scores
    are the maps' means, never negative. The names of the parameters are torchvision's.

    Parameters
    ----------
    features : Sequential
        All but the last convolution; 512 channels come out.
    num_classes : int
        Classes K.
    dropout : float
        Probability of a zero in front of the last convolution.

    Attributes
    ----------
    features, classifier : Module
        Its parts.

    References
    ----------
    Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (2016), table 1.
    """

    def __init__(self, features: nn.Sequential, num_classes: int = 1000, dropout: float = 0.5):
        super().__init__()
        self.features = features
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Conv2d(512, num_classes, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first values anew; the last convolution begins near zero, biases at zero."""
        for p in self.parameters():
            if p.ndim == 4:
                nn.init.kaiming_uniform_(p)
            else:
                nn.init.zeros_(p)
        nn.init.normal_(self.classifier[1].weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        return self.classifier(self.features(x)).flatten(1)


def squeezenet1_0(num_classes: int = 1000, in_channels: int = 3) -> SqueezeNet:
    """SqueezeNet 1.0, of the paper: 1,248,424 parameters with 1000 classes. See `SqueezeNet`."""
    features = nn.Sequential(
        nn.Conv2d(in_channels, 96, 7, 2),
        nn.ReLU(),
        _pool(),
        Fire(96, 16, 64),
        Fire(128, 16, 64),
        Fire(128, 32, 128),
        _pool(),
        Fire(256, 32, 128),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        _pool(),
        Fire(512, 64, 256),
    )
    return SqueezeNet(features, num_classes)


def squeezenet1_1(num_classes: int = 1000, in_channels: int = 3) -> SqueezeNet:
    """SqueezeNet 1.1, which pools earlier: 1,235,496 parameters. See `SqueezeNet`."""
    features = nn.Sequential(
        nn.Conv2d(in_channels, 64, 3, 2),
        nn.ReLU(),
        _pool(),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        _pool(),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        _pool(),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )
    return SqueezeNet(features, num_classes)


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)
