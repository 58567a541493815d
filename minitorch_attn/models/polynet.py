"""PolyNet: residual units put together as polynomials."""

from __future__ import annotations

from collections.abc import Sequence

from .. import functional as F
from .. import nn
from ..engine import Tensor
from .conv_bn import ConvBN
from .stages import check_stages

#: Channels and kernel of each convolution of a path.
Path = tuple[tuple[int, int | tuple[int, int]], ...]

#: Channels of each stage, and the paths of its residual branch: those of Inception-ResNet-v2.
UNITS: dict[str, tuple[int, tuple[Path, ...]]] = {
    "A": (384, (((32, 1), (48, 3), (64, 3)), ((32, 1), (32, 3)), ((32, 1),))),
    "B": (1152, (((128, 1), (160, (1, 7)), (192, (7, 1))), ((192, 1),))),
    "C": (2048, (((192, 1), (224, (1, 3)), (256, (3, 1))), ((192, 1),))),
}


class SharedConvBN(nn.Module):
    r"""One convolution for all orders k of a polynomial, with a batch normalisation for each.

    .. math:: y = relu(BN_k(conv(x)))

    Parameters
    ----------
    in_channels, out_channels, kernel_size
        Of the `nn.Conv2d`, which keeps the image's size.
    orders : int
        How often it is used.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        orders: int = 1,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=_same(kernel_size), bias=False
        )
        self.bn = nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in range(orders))

    def forward(self, x: Tensor, order: int = 0) -> Tensor:
        """Map x (N, C, H, W) to (N, O, H, W)."""
        return F.relu(self.bn[order](self.conv(x)))


class SharedPath(nn.Sequential):
    """Layers of `SharedConvBN` one after the other, all told which order k it is."""

    def forward(self, x: Tensor, order: int = 0) -> Tensor:
        """Map x (N, C, H, W) to (N, O, H, W)."""
        for layer in self:
            x = layer(x, order)
        return x


class InceptionUnit(nn.Module):
    r"""The residual branch F of Inception-ResNet: paths side by side, and a 1x1 convolution.

    .. math:: F(x) = BN(V [p_1(x), p_2(x), \ldots])

    Used several times, it shares the convolutions of its paths, but neither V nor any batch
    normalisation.

    Parameters
    ----------
    kind : str
        "A", "B" or "C": the stage that it is made for, see `UNITS`.
    orders : int
        How often it is used.

    References
    ----------
    Szegedy et al., "Inception-v4, Inception-ResNet" (2017), figures 16, 17 and 19.
    """

    def __init__(self, kind: str, orders: int = 1):
        super().__init__()
        channels, paths = UNITS[kind]
        self.paths = nn.ModuleList()
        for path in paths:
            layers, before = SharedPath(), channels
            for width, kernel_size in path:
                layers.append(SharedConvBN(before, width, kernel_size, orders))
                before = width
            self.paths.append(layers)
        joined = sum(path[-1][0] for path in paths)
        self.join = nn.ModuleList(ConvBN(joined, channels, 1, relu=False) for _ in range(orders))

    def forward(self, x: Tensor, order: int = 0) -> Tensor:
        """Map x (N, C, H, W) to F(x) of the same shape."""
        return self.join[order](F.cat([path(x, order) for path in self.paths], dim=1))


class Poly(nn.Module):
    r"""poly-n: a polynomial of one residual unit, :math:`I + F + F^2 + \ldots + F^n`.

    .. math:: y = relu\left(x + \beta \sum_{k=1}^n z_k\right), \qquad
              z_1 = F(x), \quad z_{k+1} = F(relu(z_k))

    Parameters
    ----------
    kind : str
        "A", "B" or "C" of the `InceptionUnit`.
    n : int
        Order of the polynomial.
    scale : float
        :math:`\beta`, which keeps the sum of many modules small.

    References
    ----------
    Zhang et al., "PolyNet" (2017), section 3.1 and figure 4.
    """

    def __init__(self, kind: str, n: int = 2, scale: float = 1.0):
        super().__init__()
        self.n = n
        self.scale = scale
        self.unit = InceptionUnit(kind, orders=n)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to y of the same shape."""
        z, y = x, x
        for order in range(self.n):
            z = self.unit(z, order)
            y = y + self.scale * z
            z = F.relu(z)
        return F.relu(y)

    def extra_repr(self) -> str:
        return f"n={self.n}, scale={self.scale:.6g}"


class MPoly(nn.Module):
    r"""mpoly-n: a polynomial of n units that share nothing, :math:`I + F + GF + \ldots`.

    .. math:: y = relu\left(x + \beta \sum_{k=1}^n z_k\right), \qquad
              z_1 = F_1(x), \quad z_{k+1} = F_{k+1}(relu(z_k))

    Parameters
    ----------
    kind, n, scale
        As in `Poly`.

    References
    ----------
    Zhang et al., "PolyNet" (2017), section 3.1 and figure 4.
    """

    def __init__(self, kind: str, n: int = 2, scale: float = 1.0):
        super().__init__()
        self.scale = scale
        self.units = nn.ModuleList(InceptionUnit(kind) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to y of the same shape."""
        z, y = x, x
        for unit in self.units:
            z = unit(z)
            y = y + self.scale * z
            z = F.relu(z)
        return F.relu(y)

    def extra_repr(self) -> str:
        return f"scale={self.scale:.6g}"


class MultiWay(nn.Module):
    r"""n-way: units side by side, :math:`I + F + G + \ldots`.

    .. math:: y = relu\left(x + \beta \sum_{k=1}^n F_k(x)\right)

    Parameters
    ----------
    kind, n, scale
        As in `Poly`.

    References
    ----------
    Zhang et al., "PolyNet" (2017), section 3.1 and figure 4.
    """

    def __init__(self, kind: str, n: int = 2, scale: float = 1.0):
        super().__init__()
        self.scale = scale
        self.units = nn.ModuleList(InceptionUnit(kind) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to y of the same shape."""
        y = x
        for unit in self.units:
            y = y + self.scale * unit(x)
        return F.relu(y)

    def extra_repr(self) -> str:
        return f"scale={self.scale:.6g}"


class Branches(nn.Module):
    """Branches side by side: their outputs are put behind one another along the channels.

    Parameters
    ----------
    *branches : Module
        Each maps the same x (N, C, H, W) to (N, O, P, Q), with a channel count O of its own.
    """

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to (N, sum of O, P, Q)."""
        return F.cat([branch(x) for branch in self.branches], dim=1)


class PolyNet(nn.Module):
    """Inception-ResNet with poly-3 and 2-way modules in place of plain residual units.

    Stage A is made of 2-way modules; in stages B and C poly-3 and 2-way take turns. The residual
    scale goes down from 1 in the first module to 0.7 in the last.

    Parameters
    ----------
    num_classes : int
        Classes K.
    in_channels : int
        Channels of the images, which are to be 331 x 331 and can be as small as 75 x 75.
    blocks : sequence of int
        Number of modules of stages A, B and C.

    Attributes
    ----------
    stem, stage_a, reduction_a, stage_b, reduction_b, stage_c, avgpool, dropout, fc : Module
        Its parts.

    Raises
    ------
    ValueError
        If there are not three numbers of modules.

    References
    ----------
    Zhang et al., "PolyNet: A Pursuit of Structural Diversity in Very Deep Networks" (2017), section
    4: the very deep PolyNet. What the paper leaves open is as in the authors' Caffe model.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        blocks: Sequence[int] = (10, 20, 10),
    ):
        super().__init__()
        check_stages(self, 3, blocks=blocks)
        self.stem = _stem(in_channels)
        modules: list[nn.Module] = []
        count = sum(blocks)
        for kind, depth in zip("ABC", blocks):
            for i in range(depth):
                scale = 1 - 0.3 * len(modules) / max(1, count - 1)
                is_poly = kind != "A" and i % 2 == 0
                modules.append(Poly(kind, 3, scale) if is_poly else MultiWay(kind, 2, scale))
        a, b = blocks[0], blocks[0] + blocks[1]
        self.stage_a = nn.Sequential(*modules[:a])
        self.reduction_a = Branches(
            nn.Sequential(ConvBN(384, 256, 1), ConvBN(256, 256, 3, 1, 1), ConvBN(256, 384, 3, 2)),
            ConvBN(384, 384, 3, 2),
            nn.MaxPool2d(3, 2),
        )
        self.stage_b = nn.Sequential(*modules[a:b])
        self.reduction_b = Branches(
            nn.Sequential(ConvBN(1152, 256, 1), ConvBN(256, 256, 3, 1, 1), ConvBN(256, 256, 3, 2)),
            nn.Sequential(ConvBN(1152, 256, 1), ConvBN(256, 256, 3, 2)),
            nn.Sequential(ConvBN(1152, 256, 1), ConvBN(256, 384, 3, 2)),
            nn.MaxPool2d(3, 2),
        )
        self.stage_c = nn.Sequential(*modules[b:])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of images (N, C, H, W), before a softmax."""
        x = self.reduction_a(self.stage_a(self.stem(x)))
        x = self.stage_c(self.reduction_b(self.stage_b(x)))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


def polynet(num_classes: int = 1000, in_channels: int = 3) -> PolyNet:
    """Very deep PolyNet: 95,366,600 parameters with 1000 classes. See `PolyNet`."""
    return PolyNet(num_classes, in_channels)


def _stem(in_channels: int) -> nn.Sequential:
    """The first layers, as in Inception-v4: an image of 75 x 75 becomes one of 7 x 7."""
    return nn.Sequential(
        ConvBN(in_channels, 32, 3, 2),
        ConvBN(32, 32, 3),
        ConvBN(32, 64, 3, 1, 1),
        Branches(nn.MaxPool2d(3, 2), ConvBN(64, 96, 3, 2)),
        Branches(
            nn.Sequential(ConvBN(160, 64, 1), ConvBN(64, 96, 3)),
            nn.Sequential(
                ConvBN(160, 64, 1),
                ConvBN(64, 64, (7, 1), 1, (3, 0)),
                ConvBN(64, 64, (1, 7), 1, (0, 3)),
                ConvBN(64, 96, 3),
            ),
        ),
        Branches(nn.MaxPool2d(3, 2), ConvBN(192, 192, 3, 2)),
    )


def _same(kernel_size: int | tuple[int, int]) -> int | tuple[int, int]:
    """The padding that keeps an image's size."""
    if isinstance(kernel_size, int):
        return kernel_size // 2
    return kernel_size[0] // 2, kernel_size[1] // 2
