"""A residual network for small images, with Squeeze-and-Excitation in each block."""

from __future__ import annotations

from collections.abc import Sequence

from .. import functional as F
from .. import nn
from ..attention import SqueezeExcitation
from ..engine import Tensor
from .resnet import projection
from .stages import check_stages, stage

PLACEMENTS = ("standard", "pre", "post", "identity")


class SEBlock(nn.Module):
    r"""A residual block of two 3x3 convolutions, with Squeeze-and-Excitation in one of four places.

    With the residual branch :math:`R(x) = BN(conv(relu(BN(conv(x)))))`:

    ==========  ==========================================================
    standard    :math:`y = relu(SE(R(x)) + x)`
    pre         :math:`y = relu(R(SE(x)) + x)`
    post        :math:`y = SE(relu(R(x) + x))`
    identity    :math:`y = relu(R(x) + SE(x))`
    ==========  ==========================================================

    Where the shape changes, a 1x1 convolution with batch normalisation stands for the x that is
    added ("option B"); in "identity" SE comes behind it.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after.
    stride : int
        Of the first convolution: 2 halves the image.
    reduction : int or None
        r of the SqueezeExcitation; None leaves it out.
    placement : str
        One of the four.

    Raises
    ------
    ValueError
        If the placement is unknown.

    References
    ----------
    Hu et al., "Squeeze-and-Excitation Networks" (TPAMI 2020), figure 5 and table 14;
    He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        reduction: int | None = 16,
        placement: str = "standard",
    ):
        super().__init__()
        if placement not in PLACEMENTS:
            raise ValueError(
                f"SEBlock: placement must be one of {', '.join(PLACEMENTS)}, not {placement!r}"
            )
        self.placement = placement
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = projection(in_channels, out_channels, stride)
        self.attention: nn.Module = nn.Identity()
        if reduction is not None:
            channels = in_channels if placement == "pre" else out_channels
            self.attention = SqueezeExcitation(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        identity = self.shortcut(x)
        if self.placement == "standard":
            return F.relu(self.attention(self.residual(x)) + identity)
        if self.placement == "pre":
            return F.relu(self.residual(self.attention(x)) + identity)
        if self.placement == "post":
            return self.attention(F.relu(self.residual(x) + identity))
        return F.relu(self.residual(x) + self.attention(identity))

    def residual(self, x: Tensor) -> Tensor:
        """The residual branch R(x)."""
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))

    def extra_repr(self) -> str:
        return self.placement if isinstance(self.attention, SqueezeExcitation) else ""


class SEResNet(nn.Module):
    """A 3x3 convolution, stages of blocks, the mean of each channel, and a linear classifier.

    Every stage but the first halves the image. See `se_resnet` for the parameters.

    Attributes
    ----------
    conv1, bn1, stages, avgpool, fc : Module
        Its parts; `stages.1.0.attention.gate` gives the channel weights of a block to a hook.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        reduction: int | None,
        placement: str,
    ):
        super().__init__()
        check_stages(self, len(widths), blocks=blocks)
        if not len(widths):
            raise ValueError("SEResNet: needs a stage at least: give its width and its blocks")
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = nn.Sequential()
        options = {"reduction": reduction, "placement": placement}
        for before, width, depth in zip((widths[0], *widths), widths, blocks):
            stride = 2 if len(self.stages) else 1
            self.stages.append(stage(SEBlock, before, width, depth, stride, **options))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernels anew, so that they keep the variance of the gradient."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.avgpool(self.stages(x)).flatten(1))


def se_resnet(
    num_classes: int = 10,
    in_channels: int = 1,
    widths: Sequence[int] = (16, 32, 64),
    blocks: Sequence[int] = (1, 1, 1),
    reduction: int = 4,
    placement: str = "standard",
    attention: bool = True,
) -> SEResNet:
    """A residual network for small images with Squeeze-and-Excitation in each block.

    `blocks=(n, n, n)` is the ResNet of 6 n + 2 layers that the ResNet paper trains on CIFAR-10.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images: 1 grey, 3 colour.
    widths : sequence of int
        Channels of each stage.
    blocks : sequence of int
        Number of blocks of each stage.
    reduction : int
        r of each SqueezeExcitation. 4 rather than the paper's 16, which would leave one unit of
        16 channels.
    placement : str
        "standard", "pre", "post" or "identity", see `SEBlock`.
    attention : bool
        False is the same network without SqueezeExcitation. (To put in another module, take
        `cifar_resnet`, whose `attention` is a function that makes it.)

    Returns
    -------
    SEResNet
        Maps images (N, C, H, W) to scores (N, K).

    Raises
    ------
    ValueError
        If the placement is unknown, a stage has no block or no width of its own, or the reduction
        leaves no unit.
    TypeError
        If attention is neither True nor False.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2, and `SEBlock`'s.
    """
    if not isinstance(attention, bool):
        raise TypeError(
            f"se_resnet: attention must be True or False, not a {type(attention).__name__}: to put "
            "in a module of your choice, take cifar_resnet(depth, attention=...)"
        )
    return SEResNet(
        num_classes, in_channels, widths, blocks, reduction if attention else None, placement
    )
