"""DenseNet: every layer sees what all layers before it have made."""

from __future__ import annotations

from collections.abc import Sequence

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .initialization import initialize
from .stages import blocks_per_stage


class DenseLayer(nn.Module):
    r"""What a dense block adds at each step: k new channels, made of all that came before.

    .. math:: y = V * relu(BN(U * relu(BN(x))))

    V is 3x3. The 1x1 kernels U, to 4 k channels, make it a "DenseNet-B"; without them,
    :math:`y = V * relu(BN(x))`.

    Parameters
    ----------
    in_channels : int
        Channels C of all that came before.
    growth_rate : int
        New channels k.
    bottleneck : bool
        Whether the 1x1 convolution is there.
    dropout : float
        Probability of a zero in the result.

    References
    ----------
    Huang et al., "Densely Connected Convolutional Networks" (2017), section 3.
    """

    def __init__(
        self, in_channels: int, growth_rate: int, bottleneck: bool = True, dropout: float = 0.0
    ):
        super().__init__()
        self.bottleneck = bottleneck
        self.norm1 = nn.BatchNorm2d(in_channels)
        if bottleneck:
            self.conv1 = nn.Conv2d(in_channels, 4 * growth_rate, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(4 * growth_rate)
            self.conv2 = nn.Conv2d(4 * growth_rate, growth_rate, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, growth_rate, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, k, H, W)."""
        x = self.conv1(F.relu(self.norm1(x)))
        if self.bottleneck:
            x = self.conv2(F.relu(self.norm2(x)))
        return self.dropout(x)


class DenseBlock(nn.Module):
    r"""Dense layers one behind the other, each seeing the input and all earlier layers' channels.

    .. math:: x_l = H_l([x_0, x_1, \ldots, x_{l-1}])

    New channels stand behind the old ones. So the gradient of :math:`x_j` is the sum of what all
    later layers send back to its channels: each layer is taught directly.

    Parameters
    ----------
    layers : int
        Number of layers.
    in_channels, growth_rate, bottleneck, dropout
        As in `DenseLayer`; each layer has k more input channels than the one before.

    References
    ----------
    Huang et al., "Densely Connected Convolutional Networks" (2017), equation 2 and figure 1.
    """

    def __init__(
        self,
        layers: int,
        in_channels: int,
        growth_rate: int,
        bottleneck: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        for i in range(layers):
            layer = DenseLayer(in_channels + i * growth_rate, growth_rate, bottleneck, dropout)
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, C + layers * k, H, W)."""
        for layer in self.children():
            x = F.cat([x, layer(x)], dim=1)
        return x


def transition(in_channels: int, out_channels: int) -> nn.Sequential:
    """Between dense blocks: fewer channels by a 1x1 convolution, half the image by a mean."""
    return nn.Sequential(
        {
            "norm": nn.BatchNorm2d(in_channels),
            "relu": nn.ReLU(),
            "conv": nn.Conv2d(in_channels, out_channels, 1, bias=False),
            "pool": nn.AvgPool2d(2),
        }
    )


class DenseNet(nn.Module):
    """A convolution, dense blocks with transitions between them, the channels' means, a linear map.

    The names of the parameters are torchvision's.

    Parameters
    ----------
    blocks : sequence of int
        Layers of each dense block.
    growth_rate : int
        Channels k that each layer adds.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    stem_channels : int
        Channels of the first convolution.
    small_images : bool
        The first convolution is 3x3, and no pooling follows it, instead of 7x7 with stride 2,
        batch normalisation, ReLU and a max pool.
    bottleneck : bool
        Whether layers have a 1x1 convolution in front ("B").
    compression : float
        Share of the channels that a transition keeps; less than 1 makes it a DenseNet-C.
    dropout : float
        Probability of a zero in the result of each layer.

    Attributes
    ----------
    features, avgpool, classifier : Module
        Its parts.

    References
    ----------
    Huang et al., "Densely Connected Convolutional Networks" (2017), table 1 and section 3.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        growth_rate: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem_channels: int = 64,
        small_images: bool = False,
        bottleneck: bool = True,
        compression: float = 0.5,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.features = _stem(in_channels, stem_channels, small_images)
        channels = stem_channels
        for number, layers in enumerate(blocks, start=1):
            block = DenseBlock(layers, channels, growth_rate, bottleneck, dropout)
            self.features.add_module(f"denseblock{number}", block)
            channels += layers * growth_rate
            if number < len(blocks):
                kept = int(channels * compression)
                self.features.add_module(f"transition{number}", transition(channels, kept))
                channels = kept
        self.features.add_module(f"norm{len(blocks) + 1}", nn.BatchNorm2d(channels))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = F.relu(self.features(x))
        return self.classifier(self.avgpool(x).flatten(1))


def _stem(in_channels: int, out_channels: int, small_images: bool) -> nn.Sequential:
    if small_images:
        return nn.Sequential(
            {"conv0": nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)}
        )
    return nn.Sequential(
        {
            "conv0": nn.Conv2d(in_channels, out_channels, 7, 2, padding=3, bias=False),
            "norm0": nn.BatchNorm2d(out_channels),
            "relu0": nn.ReLU(),
            "pool0": nn.MaxPool2d(3, 2, padding=1),
        }
    )


def densenet121(num_classes: int = 1000, in_channels: int = 3) -> DenseNet:
    """DenseNet-121 (k = 32): 7,978,856 parameters with 1000 classes. See `DenseNet`."""
    return DenseNet((6, 12, 24, 16), 32, num_classes, in_channels)


def densenet169(num_classes: int = 1000, in_channels: int = 3) -> DenseNet:
    """DenseNet-169 (k = 32): 14,149,480 parameters with 1000 classes. See `DenseNet`."""
    return DenseNet((6, 12, 32, 32), 32, num_classes, in_channels)


def densenet201(num_classes: int = 1000, in_channels: int = 3) -> DenseNet:
    """DenseNet-201 (k = 32): 20,013,928 parameters with 1000 classes. See `DenseNet`."""
    return DenseNet((6, 12, 48, 32), 32, num_classes, in_channels)


def densenet161(num_classes: int = 1000, in_channels: int = 3) -> DenseNet:
    """DenseNet-161 (k = 48): 28,681,000 parameters with 1000 classes. See `DenseNet`."""
    return DenseNet((6, 12, 36, 24), 48, num_classes, in_channels, stem_channels=96)


def cifar_densenet(
    depth: int = 40,
    growth_rate: int = 12,
    num_classes: int = 10,
    in_channels: int = 3,
    bc: bool = False,
    stem_channels: int | None = None,
    dropout: float = 0.0,
) -> DenseNet:
    """DenseNet for CIFAR, of three dense blocks; L = 40, k = 12 has 1,019,722 parameters.

    Parameters
    ----------
    depth : int
        L: 3 n + 4 layers that have weights, or 6 n + 4 in a DenseNet-BC.
    growth_rate : int
        Channels k that each layer adds.
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    bc : bool
        DenseNet-BC: a 1x1 convolution in front of each 3x3, and transitions that keep half of the
        channels. L = 100, k = 12 has 769,162 parameters.
    stem_channels : int, optional
        Channels of the first convolution: if left out, 16, and 2 k in a DenseNet-BC, as the paper
        says. The authors' program takes 2 k always.
    dropout : float
        Probability of a zero in the result of each layer; the paper takes 0.2 without
        augmentation.

    Raises
    ------
    ValueError
        If there is no such depth.

    References
    ----------
    Huang et al., "Densely Connected Convolutional Networks" (2017), table 2.
    """
    if stem_channels is None:
        stem_channels = 2 * growth_rate if bc else 16
    return DenseNet(
        (blocks_per_stage(depth, layers_per_block=2 if bc else 1, other_layers=4),) * 3,
        growth_rate,
        num_classes,
        in_channels,
        stem_channels,
        small_images=True,
        bottleneck=bc,
        compression=0.5 if bc else 1.0,
        dropout=dropout,
    )
