from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import functional as F
from .. import nn
from ..engine import ShapeError, Tensor, zeros
from ..nn.representation import settings
from ..ops.arguments import integer
from .arguments import check_choice, reduced

PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
SUBSAMPLE = ("after", "before")
SHAPES = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, T, H, W)"}

CONVOLUTION: dict[int, Callable] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM: dict[int, Callable] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
# Clips are made smaller in space alone: neighbouring frames are few, and each is wanted.
POOL: dict[int, Callable] = {
    1: lambda: nn.MaxPool1d(2),
    2: lambda: nn.MaxPool2d(2),
    3: lambda: nn.MaxPool3d((1, 2, 2)),
}


class NonLocalBlock(nn.Module):
    r"""Non-local block: every position takes in a weighted sum over all positions.

    With :math:`x_i` the C features at position i, of L positions in a sequence, an image or a clip,

    .. math::

        y_i &= \frac{1}{\mathcal{C}(x)} \sum_j f(x_i, x_j)\, W_g x_j && \text{(1)} \\
        z_i &= BN(W_z y_i) + x_i && \text{(6)}

    where f says how much position j matters to position i, and :math:`\mathcal{C}` normalises: the
    Gaussian forms by the sum of f, which makes them a softmax, the others by the number of j:

    ===================  ===================================================  ======================
    pairwise             :math:`f(x_i, x_j)`                                  :math:`\mathcal{C}(x)`
    ===================  ===================================================  ======================
    "gaussian"           :math:`e^{x_i \cdot x_j}`                            :math:`\sum_j f`
    "embedded_gaussian"  :math:`e^{\theta_i \cdot \phi_j}`                    :math:`\sum_j f`
    "dot_product"        :math:`\theta_i \cdot \phi_j`                        L
    "concatenation"      :math:`\mathrm{relu}(w_f \cdot [\theta_i, \phi_j])`  L
    ===================  ===================================================  ======================

    with :math:`\theta_i = W_\theta x_i`, :math:`\phi_j = W_\phi x_j`. All four W are convolutions
    with kernels of size 1: :math:`W_\theta, W_\phi, W_g` lead to C / r channels, :math:`W_z` leads
    back. The scale of the batch normalisation starts at 0, and without it :math:`W_z`: at first
    the block is the identity, and can be put into a trained network without disturbing it.

    The map :math:`f / \mathcal{C}` has L x L numbers for each input (an image of 28 x 28 in
    float32: 2.5 MB). To compute it, and y, takes 2 L² C / r multiply-adds (for "gaussian"
    (1 + 1 / r) L² C, for "concatenation" L² C / r), beside the 4 L C² / r of the convolutions,
    which have 4 C² / r weights (of both, "gaussian" has half). `subsample` makes a quarter of L²
    in an image; without `make_map` no map is made.

    Where the paper and the authors' program differ:

    ==============  ===========================  ===============================  ===============
    \               paper                        program                          here
    ==============  ===========================  ===============================  ===============
    subsample       after phi and g              before them                      both
    scale           none                         :math:`1 / \sqrt{C / r}`         both
    biases of W     none                         there                            both
    first weights   He et al.                    normal, 0.01                     as `nn.Conv2d`
    ==============  ===========================  ===============================  ===============

    Parameters
    ----------
    channels : int
        Channels C.
    pairwise : str
        f: "gaussian", "embedded_gaussian", "dot_product" or "concatenation".
    dims : int
        Axes of space: 1 for (N, C, L), 2 for (N, C, H, W), 3 for (N, C, T, H, W).
    reduction : int
        r: theta, phi and g have C // r channels.
    subsample : str, optional
        "after" takes the greatest of each 2 x 2 positions of phi and g, a quarter of the positions
        j (a half in one dimension; in three, time is left as it is); "before" does so with x, in
        front of phi and g. The positions i stay as they are.
    batch_norm : bool
        Whether :math:`W_z y` is batch-normalised.
    bias : bool
        Whether the four convolutions have biases. Softmax never heeds that of phi, which adds the
        same to a whole row, and batch normalisation takes away that of :math:`W_z`.
    scale : bool
        Gaussian forms: whether the product in the exponent is divided by the square root of its
        number of terms.
    make_map : bool
        Whether the map is made, for a hook to see. If not, the Gaussian forms run
        `functional.scaled_dot_product_attention`, whose memory grows with L; and "dot_product" is
        computed as :math:`\theta (\phi^\top g) / L`, whose time grows with L, too. "concatenation"
        has no such form.

    Attributes
    ----------
    theta, phi, g, w_z, bn : Module
        Its parts; `theta` and `phi` are an Identity for "gaussian", and `bn` without `batch_norm`.
    affinity : Module
        A forward hook on it sees the map :math:`f / \mathcal{C}`, (N, L, L'): row i holds the
        weights of all positions j for position i, both counted as in ``x.flatten(2)``. (L' is L,
        or what `subsample` leaves of it.)

    Raises
    ------
    ValueError
        If the reduction leaves no channel, or a setting is unknown or does not go with `pairwise`.

    References
    ----------
    Wang, Girshick, Gupta and He, "Non-local Neural Networks" (CVPR 2018), section 3.
    """

    def __init__(
        self,
        channels: int,
        pairwise: str = "embedded_gaussian",
        dims: int = 2,
        reduction: int = 2,
        subsample: str | None = None,
        batch_norm: bool = True,
        bias: bool = False,
        scale: bool = False,
        make_map: bool = True,
    ):
        super().__init__()
        check_choice(self, "pairwise", pairwise, PAIRWISE)
        if subsample is not None:
            check_choice(self, "subsample", subsample, SUBSAMPLE)
        dims = integer("NonLocalBlock", "dims", dims)
        if dims not in SHAPES:
            raise ValueError(f"NonLocalBlock: dims must be 1, 2 or 3 axes of space, not {dims!r}")
        _check_fits(pairwise, scale, make_map)
        hidden = reduced(self, channels, reduction)
        self.channels, self.reduction = channels, reduction
        self.pairwise, self.dims = pairwise, dims
        self.subsample, self.scale, self.make_map = subsample, scale, make_map

        convolution = CONVOLUTION[dims]
        embedded = pairwise != "gaussian"
        self.theta = convolution(channels, hidden, 1, bias=bias) if embedded else nn.Identity()
        self.phi = convolution(channels, hidden, 1, bias=bias) if embedded else nn.Identity()
        self.g = convolution(channels, hidden, 1, bias=bias)
        self.pool = POOL[dims]() if subsample else nn.Identity()
        self.affinity = _affinity(pairwise, hidden, scale)
        self.w_z = convolution(hidden, channels, 1, bias=bias)
        self.bn = NORM[dims](channels) if batch_norm else nn.Identity()
        for parameter in self.bn.parameters() if batch_norm else self.w_z.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Add to x (N, C, ...) what each position gathers from all; the shape stays."""
        self._check(x)
        theta = _as_tokens(self.theta(x))  # (N, L, D)
        source = self.pool(x) if self.subsample == "before" else x
        phi, g = self.phi(source), self.g(source)
        if self.subsample == "after":
            phi, g = self.pool(phi), self.pool(g)
        phi, g = _as_tokens(phi), _as_tokens(g)  # (N, L', D)
        if self.make_map:
            y = self.affinity(theta, phi) @ g
        else:
            y = self.affinity.gather(theta, phi, g)  # (N, L, D)
        y = y.transpose(1, 2).reshape(x.shape[0], y.shape[2], *x.shape[2:])
        return self.bn(self.w_z(y)) + x

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 + self.dims or x.shape[1] != self.channels:
            raise ShapeError(
                f"NonLocalBlock: needs an input {SHAPES[self.dims]} with C = {self.channels} "
                f"channels, got {x.shape}"
            )
        halved = x.shape[-min(self.dims, 2) :]
        if self.subsample and min(halved) < 2:
            raise ShapeError(
                f"NonLocalBlock: subsample={self.subsample!r} halves the last axes, so they need "
                f"at least 2 positions each; got {x.shape}"
            )

    def extra_repr(self) -> str:
        shown = f"{self.channels}, pairwise={self.pairwise!r}, dims={self.dims}"
        return shown + settings(
            reduction=(self.reduction, 2),
            subsample=(self.subsample, None),
            scale=(self.scale, False),
            make_map=(self.make_map, True),
        )


class GaussianAffinity(nn.Module):
    r"""Weights :math:`softmax_j(s\, \theta_i \cdot \phi_j)`: each row is positive and sums to 1.

    Parameters
    ----------
    scale : bool
        Whether s is :math:`1 / \sqrt{D}`, for D features; else it is 1.
    """

    def __init__(self, scale: bool = False):
        super().__init__()
        self.scale = scale

    def factor(self, theta: Tensor) -> float:
        """The s for theta (N, L, D)."""
        return theta.shape[-1] ** -0.5 if self.scale else 1.0

    def forward(self, theta: Tensor, phi: Tensor) -> Tensor:
        """Weights (N, L, L') of theta (N, L, D) and phi (N, L', D)."""
        return F.softmax(theta * self.factor(theta) @ phi.transpose(1, 2), dim=-1)

    def gather(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """Their product with g (N, L', D'), in tiles: the weights are never all there."""
        return F.scaled_dot_product_attention(theta, phi, g, scale=self.factor(theta))


class DotProductAffinity(nn.Module):
    r"""Weights :math:`\theta_i \cdot \phi_j / L'`, of either sign."""

    def forward(self, theta: Tensor, phi: Tensor) -> Tensor:
        """Weights (N, L, L') of theta (N, L, D) and phi (N, L', D)."""
        return theta @ phi.transpose(1, 2) / phi.shape[1]

    def gather(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """Their product with g (N, L', D), in the order that makes no weights."""
        return theta @ (phi.transpose(1, 2) @ g / phi.shape[1])


class ConcatenationAffinity(nn.Module):
    r"""Weights :math:`relu(w_f \cdot [\theta_i, \phi_j]) / L'`, positive or zero.

    A product with a vector of two halves is the sum of two products, :math:`a_i + b_j`: no pair is
    ever put together.

    Parameters
    ----------
    features : int
        D.

    Attributes
    ----------
    w_f : Parameter (2 D,)
        Its first half is for theta.
    """

    def __init__(self, features: int):
        super().__init__()
        bound = (2 * features) ** -0.5
        self.w_f = nn.Parameter(nn.init.uniform_(zeros(2 * features), -bound, bound))

    def forward(self, theta: Tensor, phi: Tensor) -> Tensor:
        """Weights (N, L, L') of theta (N, L, D) and phi (N, L', D)."""
        D = theta.shape[-1]
        a, b = theta @ self.w_f[:D], phi @ self.w_f[D:]
        return F.relu(a.unsqueeze(2) + b.unsqueeze(1)) / phi.shape[1]


def _affinity(pairwise: str, hidden: int, scale: bool) -> Any:
    if pairwise == "dot_product":
        return DotProductAffinity()
    if pairwise == "concatenation":
        return ConcatenationAffinity(hidden)
    return GaussianAffinity(scale)


def _as_tokens(x: Tensor) -> Tensor:
    """A feature map (N, D, ...) as (N, L, D): the D features at each of the L positions."""
    return x.flatten(2).transpose(1, 2)


def _check_fits(pairwise: str, scale: bool, make_map: bool) -> None:
    if scale and pairwise not in ("gaussian", "embedded_gaussian"):
        raise ValueError(
            f"NonLocalBlock: scale is for the exponent of the Gaussian forms; {pairwise!r} is "
            "divided by the number of positions instead"
        )
    if not make_map and pairwise == "concatenation":
        raise ValueError(
            "NonLocalBlock: 'concatenation' needs its map, as the ReLU stands between the two "
            "products: leave make_map=True"
        )
