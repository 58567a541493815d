"""Xception: separable convolutions alone, with shortcuts around them."""

from __future__ import annotations

from .. import nn
from ..engine import Tensor
from .conv_bn import ConvBN
from .resnet import projection

#: Channels of the two separable convolutions of each entry block: figure 5 of the paper.
ENTRY = (128, 256, 728)
#: Blocks of the middle flow, all of 728 channels.
MIDDLE = 8


class SeparableConv2d(nn.Module):
    r"""One 3x3 kernel for each channel, then a 1x1 convolution, and nothing between them.

    .. math:: y_o = \sum_c V_{oc}\, (w_c * x_c)

    Its 3x3 kernel from channel c to channel o is :math:`V_{oc} w_c`: every output channel sees the
    same filtered image of c.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels C and O.

    References
    ----------
    Chollet, "Xception" (2017), section 2; that nothing stands between: section 4.7.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, H, W)."""
        return self.pointwise(self.depthwise(x))


class XceptionBlock(nn.Module):
    r"""Separable convolutions, each behind a ReLU, with a shortcut around them.

    .. math:: y = pool(f_n(\ldots f_1(x))) + s(x), \qquad f_i(x) = BN(sep_i(relu(x)))

    With stride 2, pool is a 3x3 maximum and s a 1x1 convolution with batch normalisation, both of
    stride 2; with stride 1 neither is there, and s(x) = x.

    Parameters
    ----------
    in_channels : int
        Channels C.
    widths : tuple of int
        Output channels of each separable convolution.
    stride : int
        1 or 2.
    first_relu : bool
        Without it, :math:`f_1(x) = BN(sep_1(x))`: the first block of the network, whose input has
        been through a ReLU already.

    References
    ----------
    Chollet, "Xception" (2017), figure 5.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        stride: int = 1,
        first_relu: bool = True,
    ):
        super().__init__()
        self.residual = nn.Sequential()
        for before, after in zip((in_channels, *widths), widths):
            if first_relu or len(self.residual):
                self.residual.append(nn.ReLU())
            self.residual.append(SeparableConv2d(before, after))
            self.residual.append(nn.BatchNorm2d(after))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.residual.append(nn.MaxPool2d(3, stride, padding=1))
            self.shortcut = projection(in_channels, widths[-1], stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        return self.residual(x) + self.shortcut(x)


class Xception(nn.Module):
    """Inception driven to its extreme: 34 separable convolutions in residual blocks.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.

    Attributes
    ----------
    stem, entry, middle, exit, avgpool, fc : Module
        Two plain convolutions; three blocks that halve the image; eight that keep it; one that
        halves it and two separable convolutions; the mean of each channel; the classifier.

    References
    ----------
    Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (2017), figure 5.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        self.stem = nn.Sequential(ConvBN(in_channels, 32, 3, 2), ConvBN(32, 64, 3))
        self.entry = nn.Sequential(
            *(
                XceptionBlock(before, (width, width), 2, first_relu=before != 64)
                for before, width in zip((64, *ENTRY), ENTRY)
            )
        )
        self.middle = nn.Sequential(*(XceptionBlock(728, (728, 728, 728)) for _ in range(MIDDLE)))
        self.exit = nn.Sequential(
            XceptionBlock(728, (728, 1024), 2),
            SeparableConv2d(1024, 1536),
            nn.BatchNorm2d(1536),
            nn.ReLU(),
            SeparableConv2d(1536, 2048),
            nn.BatchNorm2d(2048),
            nn.ReLU(),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.exit(self.middle(self.entry(self.stem(x))))
        return self.fc(self.avgpool(x).flatten(1))


def xception(num_classes: int = 1000, in_channels: int = 3) -> Xception:
    """Xception: 22,855,952 parameters with 1000 classes. See `Xception`."""
    return Xception(num_classes, in_channels)
