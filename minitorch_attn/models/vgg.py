"""VGG: the plain network, 3x3 convolutions one behind the other."""

from __future__ import annotations

from collections.abc import Sequence

from .. import nn
from ..engine import Tensor
from .stages import check_stages

#: Convolutions in each of the five stages, by the number of layers that have weights: table 1.
STAGES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each ended by a max pool, and three linear layers.

    Two 3x3 convolutions see 5x5 pixels with 18 C^2 weights instead of 25 C^2, three see 7x7 with
    27 C^2 instead of 49 C^2, and there is a ReLU behind each.

    The images must be 32 x 32 at least, as they are halved five times. The names of the parameters
    are torchvision's.

    Parameters
    ----------
    depths : sequence of int
        Convolutions in each stage.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    batch_norm : bool
        Whether each convolution is followed by batch normalisation, which the paper, being
        older, has not.
    hidden : int
        Width of the two hidden linear layers, which hold most of the parameters.
    dropout : float
        Probability of a zero behind each of them.

    Attributes
    ----------
    features, avgpool, classifier : Module
        Its parts.

    Raises
    ------
    ValueError
        If there are not five depths.

    References
    ----------
    Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
    (2015), table 1 and section 2.3.
    """

    def __init__(
        self,
        depths: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        batch_norm: bool = False,
        hidden: int = 4096,
        dropout: float = 0.5,
    ):
        super().__init__()
        check_stages(self, len(WIDTHS), depths=depths)
        self.features = nn.Sequential()
        before = in_channels
        for depth, width in zip(depths, WIDTHS):
            for _ in range(depth):
                self.features.append(nn.Conv2d(before, width, 3, padding=1))
                if batch_norm:
                    self.features.append(nn.BatchNorm2d(width))
                self.features.append(nn.ReLU())
                before = width
            self.features.append(nn.MaxPool2d(2))
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(before * 7 * 7, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first values anew: kernels that keep the gradient's variance, biases zero."""
        for name, p in self.named_parameters():
            if p.ndim == 4:
                nn.init.kaiming_normal_(p, mode="fan_out", nonlinearity="relu")
            elif p.ndim == 2:
                nn.init.normal_(p, std=0.01)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.avgpool(self.features(x))
        return self.classifier(x.flatten(1))


def vgg11(
    num_classes: int = 1000, in_channels: int = 3, batch_norm: bool = False, hidden: int = 4096
) -> VGG:
    """VGG-11 (configuration A): 132,863,336 parameters with 1000 classes. See `VGG`."""
    return VGG(STAGES[11], num_classes, in_channels, batch_norm, hidden)


def vgg13(
    num_classes: int = 1000, in_channels: int = 3, batch_norm: bool = False, hidden: int = 4096
) -> VGG:
    """VGG-13 (configuration B): 133,047,848 parameters with 1000 classes. See `VGG`."""
    return VGG(STAGES[13], num_classes, in_channels, batch_norm, hidden)


def vgg16(
    num_classes: int = 1000, in_channels: int = 3, batch_norm: bool = False, hidden: int = 4096
) -> VGG:
    """VGG-16 (configuration D): 138,357,544 parameters with 1000 classes. See `VGG`."""
    return VGG(STAGES[16], num_classes, in_channels, batch_norm, hidden)


def vgg19(
    num_classes: int = 1000, in_channels: int = 3, batch_norm: bool = False, hidden: int = 4096
) -> VGG:
    """VGG-19 (configuration E): 143,667,240 parameters with 1000 classes. See `VGG`."""
    return VGG(STAGES[19], num_classes, in_channels, batch_norm, hidden)
