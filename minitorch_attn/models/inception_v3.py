"""Inception v3: large windows factorised into small ones, into rows and columns."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from .. import functional as F
from .. import nn
from ..engine import Tensor
from . import conv_bn

ConvBN = partial(conv_bn.ConvBN, eps=0.001)


class InceptionOutputs(NamedTuple):
    """Scores (N, K) of the network and of its auxiliary classifier."""

    logits: Tensor
    aux_logits: Tensor


class InceptionA(nn.Module):
    r"""At 35 x 35: the module of Inception v1, with a pair of 3x3 kernels as its widest window.

    .. math:: y = [c_1(x),\; c_{5\times5}(c_1(x)),\; c_{3\times3}(c_{3\times3}(c_1(x))),\;
                   c_1(mean_{3\times3}(x))]

    Each c is a convolution, batch normalisation and a ReLU; c_1 has 1x1 kernels.

    Parameters
    ----------
    in_channels : int
        Channels C.
    pool_features : int
        Channels of the last branch; the others have 64, 64 and 96.

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture" (2016), figure 5.
    """

    def __init__(self, in_channels: int, pool_features: int):
        super().__init__()
        self.branch1x1 = ConvBN(in_channels, 64, 1)
        self.branch5x5_1 = ConvBN(in_channels, 48, 1)
        self.branch5x5_2 = ConvBN(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvBN(in_channels, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3, padding=1)
        self.branch_pool = ConvBN(in_channels, pool_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, 224 + pool_features, H, W)."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pooled = self.branch_pool(F.avg_pool2d(x, 3, 1, 1))
        return F.cat([self.branch1x1(x), five, double, pooled], dim=1)


class InceptionB(nn.Module):
    r"""From 35 x 35 to 17 x 17: convolutions of stride 2 beside a maximum of stride 2.

    .. math:: y = [c_{3\times3,2}(x),\; c_{3\times3,2}(c_{3\times3}(c_1(x))),\;
                   max_{3\times3,2}(x)]

    Parameters
    ----------
    in_channels : int
        Channels C.

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture" (2016), figure 10.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        self.branch3x3 = ConvBN(in_channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvBN(in_channels, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, C + 480, P, Q), with P = (H - 1) / 2 rounded down."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return F.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], dim=1)


class InceptionC(nn.Module):
    r"""At 17 x 17: 7x7 windows factorised into rows and columns.

    .. math:: y = [c_1(x),\; c_{7\times1}(c_{1\times7}(c_1(x))),\;
                   c_{1\times7}(c_{7\times1}(c_{1\times7}(c_{7\times1}(c_1(x))))),\;
                   c_1(mean_{3\times3}(x))]

    A row and a column of 7 cost 2/7 of a 7x7 kernel.

    Parameters
    ----------
    in_channels : int
        Channels C.
    channels_7x7 : int
        Channels inside the factorised branches; each branch ends with 192.

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture" (2016), section 3.2 and figure 6.
    """

    def __init__(self, in_channels: int, channels_7x7: int):
        super().__init__()
        c7 = channels_7x7
        self.branch1x1 = ConvBN(in_channels, 192, 1)
        self.branch7x7_1 = ConvBN(in_channels, c7, 1)
        self.branch7x7_2 = ConvBN(c7, c7, (1, 7), padding=(0, 3))
        self.branch7x7_3 = ConvBN(c7, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = ConvBN(in_channels, c7, 1)
        self.branch7x7dbl_2 = ConvBN(c7, c7, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = ConvBN(c7, c7, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = ConvBN(c7, c7, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = ConvBN(c7, 192, (1, 7), padding=(0, 3))
        self.branch_pool = ConvBN(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, 768, H, W)."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pooled = self.branch_pool(F.avg_pool2d(x, 3, 1, 1))
        return F.cat([self.branch1x1(x), seven, double, pooled], dim=1)


class InceptionD(nn.Module):
    r"""From 17 x 17 to 8 x 8, with a factorised 7x7 window in one branch.

    .. math:: y = [c_{3\times3,2}(c_1(x)),\;
                   c_{3\times3,2}(c_{7\times1}(c_{1\times7}(c_1(x)))),\; max_{3\times3,2}(x)]

    Parameters
    ----------
    in_channels : int
        Channels C.

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture" (2016), section 5.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        self.branch3x3_1 = ConvBN(in_channels, 192, 1)
        self.branch3x3_2 = ConvBN(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvBN(in_channels, 192, 1)
        self.branch7x7x3_2 = ConvBN(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvBN(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvBN(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, C + 512, P, Q), with P = (H - 1) / 2 rounded down."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return F.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, 2)], dim=1)


class InceptionE(nn.Module):
    r"""At 8 x 8: rows and columns of 3 side by side, for many channels where places are few.

    .. math:: y = [c_1(x),\; s(c_1(x)),\; s(c_{3\times3}(c_1(x))),\; c_1(mean_{3\times3}(x))],
              \qquad s(z) = [c_{1\times3}(z), c_{3\times1}(z)]

    Parameters
    ----------
    in_channels : int
        Channels C.

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture" (2016), figure 7.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        self.branch1x1 = ConvBN(in_channels, 320, 1)
        self.branch3x3_1 = ConvBN(in_channels, 384, 1)
        self.branch3x3_2a = ConvBN(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvBN(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvBN(in_channels, 448, 1)
        self.branch3x3dbl_2 = ConvBN(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvBN(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvBN(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = ConvBN(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, 2048, H, W)."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(F.avg_pool2d(x, 3, 1, 1)),
        ]
        return F.cat(branches, dim=1)


class InceptionAux(nn.Module):
    """The auxiliary classifier at 17 x 17: mean of windows, two convolutions, a linear layer.

    Parameters
    ----------
    in_channels : int
        Channels C.
    num_classes : int
        Classes K.

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture" (2016), section 4 and figure 8.
    """

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.conv0 = ConvBN(in_channels, 128, 1)
        self.conv1 = ConvBN(128, 768, 5)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of x (N, C, H, W), at least 17 x 17."""
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, 3)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class InceptionV3(nn.Module):
    """Inception v3: five plain convolutions, eleven modules of five kinds, a classifier.

    In training with the auxiliary classifier it returns `InceptionOutputs`, which
    `auxiliary_cross_entropy` makes a loss of; otherwise the scores alone. The parameters have
    torchvision's names.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images, which are to be 299 x 299 and can be as small as 75 x 75, with the
        auxiliary classifier 299 x 299.
    aux_logits : bool
        Whether it has the auxiliary classifier.

    Attributes
    ----------
    Conv2d_1a_3x3, Conv2d_2a_3x3, Conv2d_2b_3x3, Conv2d_3b_1x1, Conv2d_4a_3x3 : ConvBN
        The plain convolutions.
    Mixed_5b, Mixed_5c, Mixed_5d, Mixed_6a, ..., Mixed_6e, Mixed_7a, Mixed_7b, Mixed_7c : Module
        The modules.
    AuxLogits : InceptionAux
        The auxiliary classifier, if it has one.
    maxpool1, maxpool2, avgpool, dropout, fc : Module
        The rest.

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016), table 1,
    with the widths of the authors' released model.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, aux_logits: bool = False):
        super().__init__()
        self.aux_logits = aux_logits
        self.Conv2d_1a_3x3 = ConvBN(in_channels, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvBN(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvBN(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = ConvBN(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvBN(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        if aux_logits:
            self.AuxLogits = InceptionAux(768, num_classes)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, x: Tensor) -> Tensor | InceptionOutputs:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        middle = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(middle)))
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        if self.training and self.aux_logits:
            return InceptionOutputs(logits, self.AuxLogits(middle))
        return logits


def inception_v3(
    num_classes: int = 1000, in_channels: int = 3, aux_logits: bool = False
) -> InceptionV3:
    """Inception v3: 23,834,568 parameters with 1000 classes (27,161,264 with aux_logits)."""
    return InceptionV3(num_classes, in_channels, aux_logits)
