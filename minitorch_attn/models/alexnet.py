"""AlexNet: the network that began it, five convolutions and three linear layers."""

from __future__ import annotations

from .. import nn
from ..engine import Tensor


class AlexNet(nn.Module):
    """Five convolutions with three max pools, and three linear layers.

    The form for one device, in which the layers are not cut in two and there is no local response
    normalisation. The images must be 63 x 63 at least. The names of the parameters are
    torchvision's.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    dropout : float
        Probability of a zero in front of each hidden linear layer.

    Attributes
    ----------
    features, avgpool, classifier : Module
        Its parts.

    References
    ----------
    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural
    Networks" (2012); Krizhevsky, "One weird trick for parallelizing convolutional neural networks"
    (2014), section 5, whose widths these are.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 11, 4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.avgpool(self.features(x))
        return self.classifier(x.flatten(1))


def alexnet(num_classes: int = 1000, in_channels: int = 3) -> AlexNet:
    """AlexNet: 61,100,840 parameters with 1000 classes. See `AlexNet`."""
    return AlexNet(num_classes, in_channels)
