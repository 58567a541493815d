"""NASNet-A: two cells that a search has found, stacked."""

from __future__ import annotations

from typing import NamedTuple

from .. import functional as F
from .. import nn
from ..engine import Tensor

#: An operation and the number of the state that it reads.
Step = tuple[str, int]


class CellPlan(NamedTuple):
    """What a cell computes: a graph over numbered states.

    State 0 is the cell's input h_i, state 1 the input h_{i-1} of the cell before. Each block adds
    two operations on earlier states and makes the next state: 2, 3, ...

    Attributes
    ----------
    stride : int
        Of the operations that read states 0 and 1.
    blocks : tuple
        Of each block: (operation, state), (operation, state).
    output : tuple of int
        The states that are put side by side.
    """

    stride: int
    blocks: tuple[tuple[Step, Step], ...]
    output: tuple[int, ...]


#: NASNet-A, found by search: figure 4 of the paper.
NORMAL = CellPlan(
    stride=1,
    blocks=(
        (("sep5", 0), ("sep3", 1)),
        (("sep5", 1), ("sep3", 1)),
        (("avg3", 0), ("identity", 1)),
        (("avg3", 1), ("avg3", 1)),
        (("sep3", 0), ("identity", 0)),
    ),
    output=(1, 2, 3, 4, 5, 6),
)
REDUCTION = CellPlan(
    stride=2,
    blocks=(
        (("sep5", 0), ("sep7", 1)),
        (("max3", 0), ("sep7", 1)),
        (("avg3", 0), ("sep5", 1)),
        (("avg3", 2), ("identity", 3)),
        (("sep3", 2), ("max3", 0)),
    ),
    output=(3, 4, 5, 6),
)


class ReLUConvBN(nn.Sequential):
    r"""A ReLU, a 1x1 convolution and batch normalisation: brings a cell's input to its width.

    .. math:: y = BN(U\, relu(x))

    Parameters
    ----------
    in_channels, out_channels : int
        Channels C and O.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, eps=0.001),
        )


class FactorizedReduction(nn.Module):
    r"""Halve an image without losing three of its four pixels, at the price of a 1x1 convolution.

    .. math:: y = BN([U\, relu(x)_{::2, ::2},\; V\, relu(x)_{1::2, 1::2}])

    The second half of the channels reads the image shifted by one pixel, with a zero where it ends.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels C and O.

    References
    ----------
    Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition" (2018), as
    in the authors' program.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.conv2 = nn.Conv2d(in_channels, out_channels - half, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / 2 rounded up."""
        x = F.relu(x)
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        halves = [self.conv1(x[:, :, ::2, ::2]), self.conv2(shifted[:, :, ::2, ::2])]
        return self.bn(F.cat(halves, dim=1))


class SeparableConv2d(nn.Module):
    """A depthwise and a 1x1 convolution; with stride 1 the image keeps its size.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels C and O.
    kernel_size, stride : int
        Of the depthwise convolution, which is padded as `pad_same` says.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, kernel_size, stride, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, O, P, Q), with P = H / stride rounded up."""
        padded = pad_same(x, self.depthwise.kernel_size[0], self.depthwise.stride[0])
        return self.pointwise(self.depthwise(padded))


class SeparableTwice(nn.Sequential):
    r"""The operation "sep" of a cell, which is applied twice: :math:`y = f(f_{stride}(x))`.

    .. math:: f(x) = BN(sep(relu(x)))

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride
        Of the first `SeparableConv2d`; the second keeps the shape.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int):
        super().__init__(
            nn.ReLU(),
            SeparableConv2d(in_channels, out_channels, kernel_size, stride),
            nn.BatchNorm2d(out_channels, eps=0.001),
            nn.ReLU(),
            SeparableConv2d(out_channels, out_channels, kernel_size),
            nn.BatchNorm2d(out_channels, eps=0.001),
        )


class Pool3(nn.Module):
    """Mean or maximum of 3x3 windows; padding never counts.

    Parameters
    ----------
    kind : str
        "avg" or "max".
    stride : int
        1 or 2.
    """

    def __init__(self, kind: str, stride: int):
        super().__init__()
        self.kind = kind
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, C, P, Q), with P = H / stride rounded up."""
        # With stride 2 and an even size the windows begin at the first pixel, and the last one
        # sticks out: TensorFlow's padding, see `pad_same`.
        padding = (1, 1) if self.stride == 1 else (x.shape[2] % 2, x.shape[3] % 2)
        if self.kind == "max":
            return F.max_pool2d(x, 3, self.stride, padding, ceil_mode=True)
        return F.avg_pool2d(x, 3, self.stride, padding, ceil_mode=True, count_include_pad=False)

    def extra_repr(self) -> str:
        return f"{self.kind}, stride={self.stride}"


class Block(nn.Module):
    """Two operations, added: y = left(a) + right(b).

    Parameters
    ----------
    left, right : Module
        Each gives (N, F, P, Q).
    """

    def __init__(self, left: nn.Module, right: nn.Module):
        super().__init__()
        self.left = left
        self.right = right

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Map two states (N, C, H, W) to one (N, F, P, Q)."""
        return self.left(a) + self.right(b)


class Cell(nn.Module):
    """A graph of operations on the outputs of the two cells before (see `CellPlan`).

    First both inputs are brought to the cell's width and to the size of h_i.

    Parameters
    ----------
    plan : CellPlan
        `NORMAL` or `REDUCTION`.
    in_channels, previous_channels : int
        Channels of h_i and of h_{i-1}.
    width : int
        Channels F of every state. The output has as many times F as the plan has output states.
    previous : str
        How h_{i-1} is brought to F channels: "project" by a 1x1 convolution; "halve" by a
        `FactorizedReduction`, where its image is twice as large; "keep" leaves it as it is,
        possible where separable convolutions alone read it.

    References
    ----------
    Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition" (2018),
    section 3.1, figure 4 and appendix A.
    """

    def __init__(
        self,
        plan: CellPlan,
        in_channels: int,
        previous_channels: int,
        width: int,
        previous: str = "project",
    ):
        super().__init__()
        self.plan = plan
        self.prepare = ReLUConvBN(in_channels, width)
        self.prepare_previous: nn.Module = nn.Identity()
        if previous == "halve":
            self.prepare_previous = FactorizedReduction(previous_channels, width)
        elif previous == "project":
            self.prepare_previous = ReLUConvBN(previous_channels, width)
        channels = [width, previous_channels if previous == "keep" else width]
        self.blocks = nn.ModuleList()
        for steps in plan.blocks:
            left, right = (
                _operation(name, channels[state], width, plan.stride if state < 2 else 1)
                for name, state in steps
            )
            self.blocks.append(Block(left, right))
            channels.append(width)

    def forward(self, h: Tensor, h_previous: Tensor) -> Tensor:
        """Map h_i (N, C, H, W) and h_{i-1} to the cell's output (N, O, P, Q)."""
        states = [self.prepare(h), self.prepare_previous(h_previous)]
        for block, ((_, i), (_, j)) in zip(self.blocks, self.plan.blocks):
            states.append(block(states[i], states[j]))
        return F.cat([states[i] for i in self.plan.output], dim=1)


class NASNetA(nn.Module):
    """Three stages of N normal cells with reduction cells between them, and a classifier.

    A reduction halves the image and doubles the width F. Left out are the auxiliary classifier and
    the dropping of paths on a schedule, with which the paper trains.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images.
    width : int
        F in the first stage.
    cells : int
        N.
    stem_channels : int
        Channels of the first convolution.
    stem_reductions : bool
        True for ImageNet: the first convolution has stride 2, and two reduction cells of F / 4
        and F / 2 follow it. False for CIFAR.
    skip_reduction : bool
        Whether the cell behind a reduction cell reads, as h_{i-1}, what the reduction cell read as
        h_{i-1}, as in the large network, instead of what it read as h_i.
    dropout : float
        Before the classifier.

    Attributes
    ----------
    stem, avgpool, dropout, fc : Module
        What stands before and behind the cells.
    stem_cells, cells : ModuleList
        The reduction cells of the stem, and the cells of the three stages with the reductions
        between them.

    References
    ----------
    Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition" (2018),
    figure 2. What the paper leaves open is as in the authors' program.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        width: int,
        cells: int,
        stem_channels: int,
        stem_reductions: bool,
        skip_reduction: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        stride, padding = (2, 0) if stem_reductions else (1, 1)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, stem_channels, 3, stride, padding, bias=False),
            nn.BatchNorm2d(stem_channels, eps=0.001),
        )
        plans = [(REDUCTION, width // 4), (REDUCTION, width // 2)] if stem_reductions else []
        before = len(plans)
        for stage in range(3):
            if stage > 0:
                plans.append((REDUCTION, width * 2**stage))
            plans += [(NORMAL, width * 2**stage)] * cells
        made = []
        channels = previous_channels = stem_channels
        previous = "keep" if stem_reductions else "project"
        for plan, filters in plans:
            made.append(Cell(plan, channels, previous_channels, filters, previous))
            previous_channels, channels = channels, filters * len(plan.output)
            previous = "halve" if plan is REDUCTION else "project"
        self.stem_cells = nn.ModuleList(made[:before])
        self.cells = nn.ModuleList(made[before:])
        self.skips = [skip_reduction and plan is REDUCTION for plan, _ in plans[before:]]
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        h = h_previous = self.stem(x)
        for cell in self.stem_cells:
            h, h_previous = cell(h, h_previous), h
        for cell, skips in zip(self.cells, self.skips):
            h, h_previous = cell(h, h_previous), h_previous if skips else h
        x = self.avgpool(F.relu(h))
        return self.fc(self.dropout(x.flatten(1)))


def nasnet_a_mobile(num_classes: int = 1000, in_channels: int = 3) -> NASNetA:
    """NASNet-A (4 @ 1056): 5,289,978 parameters with 1000 classes. See `NASNetA`."""
    return NASNetA(
        num_classes,
        in_channels,
        width=44,
        cells=4,
        stem_channels=32,
        stem_reductions=True,
        dropout=0.5,
    )


def nasnet_a_large(num_classes: int = 1000, in_channels: int = 3) -> NASNetA:
    """NASNet-A (6 @ 4032): 88,753,150 parameters with 1000 classes. See `NASNetA`."""
    return NASNetA(
        num_classes,
        in_channels,
        width=168,
        cells=6,
        stem_channels=96,
        stem_reductions=True,
        skip_reduction=True,
        dropout=0.5,
    )


def nasnet_a_cifar(
    num_classes: int = 10, in_channels: int = 3, width: int = 32, cells: int = 6
) -> NASNetA:
    """NASNet-A (6 @ 768) for images of 32 x 32: 3,328,234 parameters with 10 classes.

    The paper says 3.3 million. The first cells read the output of the first convolution, which has
    3 F channels, as every cell reads its inputs: through a 1x1 convolution to F. See `NASNetA`.
    """
    return NASNetA(num_classes, in_channels, width, cells, 3 * width, stem_reductions=False)


def pad_same(x: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Pad images (N, C, H, W) with zeros so that P = H / stride rounded up, as TensorFlow does.

    An odd number of zeros puts the one that is over at the bottom and at the right, so that with
    stride 2 the places of the windows depend on whether the size is even.
    """
    top, bottom = _border(x.shape[2], kernel_size, stride)
    left, right = _border(x.shape[3], kernel_size, stride)
    return F.pad(x, (left, right, top, bottom))


def _border(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Zeros before and behind an axis."""
    places = -(-size // stride)
    total = max(0, (places - 1) * stride + kernel_size - size)
    return total // 2, total - total // 2


def _operation(name: str, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The module of an operation's name; the kernel's size is the name's last letter."""
    if name == "identity":
        return nn.Identity()
    if name in ("avg3", "max3"):
        return Pool3(name[:3], stride)
    return SeparableTwice(in_channels, out_channels, int(name[-1]), stride)
