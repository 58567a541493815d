"""GoogLeNet (Inception v1): windows of several sizes side by side."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from .. import functional as F
from .. import nn
from ..engine import ShapeError, Tensor
from .conv_bn import ConvBN
from .resnet import Attention, attend


class GoogLeNetOutputs(NamedTuple):
    """Scores (N, K) of the network and of its two auxiliary classifiers, deepest first."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class ConvReLU(nn.Module):
    """A convolution with bias and a ReLU: :math:`y = relu(conv(x))`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding
        Of the `nn.Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)

    def forward(self, x: Any) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q)."""
        return F.relu(self.conv(x))


class Inception(nn.Module):
    r"""Four branches that see windows of different sizes, side by side.

    .. math:: y = [c_{1\times1}(x),\; c_{3\times3}(c_{1\times1}(x)),\;
                   c_{5\times5}(c_{1\times1}(x)),\; c_{1\times1}(pool_{3\times3}(x))]

    Each c is a convolution and a ReLU. The 1x1 convolutions before the wide kernels make few
    channels of many, so that the wide kernels cost little.

    Parameters
    ----------
    in_channels : int
        Channels C.
    widths : tuple of int
        Output channels of the 1x1 branch; of the reduction before the 3x3 kernel and of the kernel;
        of the reduction before the 5x5 kernel and of the kernel; of the pool branch.
    batch_norm : bool
        False is the module of the paper. True is torchvision's: batch normalisation in place of
        biases, and, by an old mistake that its weights have grown around, 3x3 kernels in the branch
        of 5x5.
    attention : callable, optional
        ``attention(channels)`` makes a module that y goes through.

    References
    ----------
    Szegedy et al., "Going Deeper with Convolutions" (2015), figure 2 (b).
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        batch_norm: bool = False,
        attention: Attention | None = None,
    ):
        super().__init__()
        ones, reduce3, threes, reduce5, fives, pooled = widths
        widest = 3 if batch_norm else 5
        self.branch1 = _conv(batch_norm, in_channels, ones, 1)
        self.branch2 = nn.Sequential(
            _conv(batch_norm, in_channels, reduce3, 1),
            _conv(batch_norm, reduce3, threes, 3, padding=1),
        )
        self.branch3 = nn.Sequential(
            _conv(batch_norm, in_channels, reduce5, 1),
            _conv(batch_norm, reduce5, fives, widest, padding=widest // 2),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            _conv(batch_norm, in_channels, pooled, 1),
        )
        self.attention = attend(attention, ones + threes + fives + pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, H, W); O is the sum of the branches' widths."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return self.attention(F.cat([branch(x) for branch in branches], dim=1))


class InceptionAux(nn.Module):
    """An auxiliary classifier, which brings a gradient into the middle of the network.

    Mean of windows, a 1x1 convolution to 128 channels, two linear layers with dropout of 0.7
    between them.

    Parameters
    ----------
    in_channels : int
        Channels C.
    num_classes : int
        Classes K.
    batch_norm : bool
        The paper takes means of 5x5 windows at stride 3, which make 4x4 places of an image of
        14x14; torchvision 4x4 windows that cover an image of any size.

    Raises
    ------
    ShapeError
        By `forward`, if the means of the paper's windows do not make 4x4 places.

    References
    ----------
    Szegedy et al., "Going Deeper with Convolutions" (2015), section 5.
    """

    def __init__(self, in_channels: int, num_classes: int, batch_norm: bool = False):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4) if batch_norm else nn.AvgPool2d(5, stride=3)
        self.conv = _conv(batch_norm, in_channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of x (N, C, 14, 14)."""
        pooled = self.pool(x)
        if pooled.shape[2:] != (4, 4):
            raise ShapeError(
                f"InceptionAux: needs maps of 14x14, of images of 224x224, not {x.shape}: resize "
                "the images, or leave the auxiliary classifiers out (aux_logits=False)"
            )
        x = self.conv(pooled).flatten(1)
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


class GoogLeNet(nn.Module):
    """Inception v1: three plain convolutions, nine Inception modules, a classifier.

    In training with auxiliary classifiers it returns `GoogLeNetOutputs`, which
    `auxiliary_cross_entropy` makes a loss of; otherwise the scores alone.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    aux_logits : bool
        Whether it has the two auxiliary classifiers, behind 4a and 4d. Those of the paper
        (`batch_norm=False`) need images of 224 x 224.
    batch_norm : bool
        False is the network of the paper: convolutions with bias, local response normalisation, no
        batch normalisation. True is torchvision's, with its parameter names; `Inception` says what
        is different in the modules.
    attention : callable, optional
        ``attention(channels)`` makes a module for what comes out of each Inception module.

    Attributes
    ----------
    conv1, conv2, conv3, norm, maxpool, maxpool4, avgpool, dropout, fc : Module
        What stands before, between and behind the Inception modules.
    inception3a, inception3b, inception4a, ..., inception4e, inception5a, inception5b : Inception
        The nine modules.
    aux1, aux2 : InceptionAux
        The auxiliary classifiers, if it has them.

    References
    ----------
    Szegedy et al., "Going Deeper with Convolutions" (2015), table 1 and figure 3. What the paper
    leaves open (the settings of the local response normalisation, windows that stick out) is as in
    the authors' Caffe model.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        aux_logits: bool = False,
        batch_norm: bool = False,
        attention: Attention | None = None,
    ):
        super().__init__()
        self.aux_logits = aux_logits
        self.conv1 = _conv(batch_norm, in_channels, 64, 7, stride=2, padding=3)
        self.conv2 = _conv(batch_norm, 64, 64, 1)
        self.conv3 = _conv(batch_norm, 64, 192, 3, padding=1)
        self.norm = nn.Identity() if batch_norm else nn.LocalResponseNorm(5)
        self.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2 if batch_norm else 3, stride=2, ceil_mode=True)
        inception = partial(Inception, batch_norm=batch_norm, attention=attention)
        self.inception3a = inception(192, (64, 96, 128, 16, 32, 32))
        self.inception3b = inception(256, (128, 128, 192, 32, 96, 64))
        self.inception4a = inception(480, (192, 96, 208, 16, 48, 64))
        self.inception4b = inception(512, (160, 112, 224, 24, 64, 64))
        self.inception4c = inception(512, (128, 128, 256, 24, 64, 64))
        self.inception4d = inception(512, (112, 144, 288, 32, 64, 64))
        self.inception4e = inception(528, (256, 160, 320, 32, 128, 128))
        self.inception5a = inception(832, (256, 160, 320, 32, 128, 128))
        self.inception5b = inception(832, (384, 192, 384, 48, 128, 128))
        if aux_logits:
            self.aux1 = InceptionAux(512, num_classes, batch_norm)
            self.aux2 = InceptionAux(528, num_classes, batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2 if batch_norm else 0.4)
        self.fc = nn.Linear(1024, num_classes)
        if not batch_norm:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernels anew, so that images keep their variance without batch normalisation."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.norm(self.maxpool(self.conv1(x)))
        x = self.maxpool(self.norm(self.conv3(self.conv2(x))))
        x = self.maxpool(self.inception3b(self.inception3a(x)))
        a = self.inception4a(x)
        d = self.inception4d(self.inception4c(self.inception4b(a)))
        x = self.maxpool4(self.inception4e(d))
        x = self.avgpool(self.inception5b(self.inception5a(x)))
        logits = self.fc(self.dropout(x.flatten(1)))
        if self.training and self.aux_logits:
            return GoogLeNetOutputs(logits, self.aux2(d), self.aux1(a))
        return logits


def googlenet(
    num_classes: int = 1000,
    in_channels: int = 3,
    aux_logits: bool = False,
    batch_norm: bool = False,
    attention: Attention | None = None,
) -> GoogLeNet:
    """GoogLeNet: 6,998,552 parameters with 1000 classes (batch_norm: 6,624,904)."""
    return GoogLeNet(num_classes, in_channels, aux_logits, batch_norm, attention)


def auxiliary_cross_entropy(outputs: Any, target: Any, weight: float = 0.3) -> Tensor:
    r"""Cross-entropy of a network and, with a smaller weight, of its auxiliary classifiers.

    .. math:: L = CE(y, t) + w \sum_i CE(y_i, t)

    Parameters
    ----------
    outputs : Tensor (N, K) or tuple of them
        Scores y of the network; the first of a tuple, whose others are the auxiliary scores.
    target : array of int (N,)
        Classes t.
    weight : float
        w.

    Returns
    -------
    Tensor ()
        The loss.

    References
    ----------
    Szegedy et al., "Going Deeper with Convolutions" (2015), section 5.
    """
    if not isinstance(outputs, tuple):
        return F.cross_entropy(outputs, target)
    loss, *auxiliary = (F.cross_entropy(scores, target) for scores in outputs)
    return loss + weight * sum(auxiliary)


def _conv(
    batch_norm: bool,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
) -> nn.Module:
    """A convolution as the paper has it, or as torchvision has it."""
    if batch_norm:
        return ConvBN(in_channels, out_channels, kernel_size, stride, padding, eps=0.001)
    return ConvReLU(in_channels, out_channels, kernel_size, stride, padding)
