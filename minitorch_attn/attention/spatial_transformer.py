from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn
from ..engine import ShapeError, Tensor, as_tensor, tensor
from ..engine.backend import Array, on_gpu, to_device
from ..ops.arguments import integers
from .arguments import as_images

IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])

# What each entry of theta adds to the map [[a, b, x], [c, d, y]].
AFFINE_FAMILIES: dict[str, Any] = {
    "translation": [[[0, 0, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]],
    "attention": [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]],
    "similarity": [
        [[1, 0, 0], [0, 1, 0]],
        [[0, -1, 0], [1, 0, 0]],
        [[0, 0, 1], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 1]],
    ],
    "affine": np.eye(6).reshape(6, 2, 3),
}


class AffineGrid(nn.Module):
    r"""Grid of an affine map, or of a smaller family of them: all are linear in theta.

    .. math:: A_\theta = A_0 + \sum_k \theta_k B_k, \qquad
              \begin{pmatrix} x^s \\ y^s \end{pmatrix} =
              A_\theta \begin{pmatrix} x^t \\ y^t \\ 1 \end{pmatrix}

    ============= ========================== =========================================
    family        theta                      :math:`A_\theta`
    ============= ========================== =========================================
    "translation" x, y                       [[1, 0, x], [0, 1, y]]
    "attention"   s, x, y (equation 2)       [[s, 0, x], [0, s, y]]
    "similarity"  s cos, s sin, x, y         [[s cos, -s sin, x], [s sin, s cos, y]]
    "affine"      all six, row by row        [[a, b, x], [c, d, y]]
    ============= ========================== =========================================

    Parameters
    ----------
    family : str
        One of these.
    align_corners : bool
        As `functional.affine_grid`.

    Attributes
    ----------
    identity : ndarray
        The theta of the map that changes nothing.
    """

    def __init__(self, family: str = "affine", align_corners: bool = False):
        super().__init__()
        if family not in AFFINE_FAMILIES:
            raise ValueError(
                f"AffineGrid: family must be one of {', '.join(AFFINE_FAMILIES)}, not {family!r}"
            )
        self.family = family
        self.align_corners = align_corners
        self.basis = np.array(AFFINE_FAMILIES[family], dtype=float)
        fixed = family == "translation"  # whose maps all contain the identity
        self.origin = IDENTITY if fixed else np.zeros((2, 3))
        self.identity = np.einsum("kij,ij->k", self.basis, IDENTITY - self.origin)
        self.identity /= (self.basis**2).sum(axis=(1, 2))

    def forward(self, theta: Tensor, size: tuple[int, int]) -> Tensor:
        """Grid (N, P, Q, 2) of theta (N, n), for a result of size (P, Q)."""
        maps = self.maps(theta)
        return F.affine_grid(maps, size=(len(maps), 1, *size), align_corners=self.align_corners)

    def maps(self, theta: Tensor) -> Tensor:
        """The affine maps A (N, 2, 3) of theta (N, n)."""
        _check_theta(self, theta)
        basis = _constant(self.basis.reshape(-1, 6), theta)
        return (theta @ basis).reshape(-1, 2, 3) + _constant(self.origin, theta)

    def extra_repr(self) -> str:
        return repr(self.family)


class ProjectiveGrid(nn.Module):
    r"""Grid of a projective map: straight lines stay straight, parallel ones need not.

    .. math:: \begin{pmatrix} u \\ v \\ w \end{pmatrix} =
              \begin{pmatrix} \theta_1 & \theta_2 & \theta_3 \\ \theta_4 & \theta_5 & \theta_6 \\
              \theta_7 & \theta_8 & 1 \end{pmatrix}
              \begin{pmatrix} x^t \\ y^t \\ 1 \end{pmatrix}, \qquad
              (x^s, y^s) = \left(\frac{u}{w}, \frac{v}{w}\right)

    Where w is not positive, which needs :math:`|\theta_7| + |\theta_8| \ge 1`, the grid folds
    over: start near 0 and learn slowly.

    Parameters
    ----------
    align_corners : bool
        As `functional.affine_grid`.

    Attributes
    ----------
    identity : ndarray
        The theta of the map that changes nothing.
    """

    def __init__(self, align_corners: bool = False):
        super().__init__()
        self.align_corners = align_corners
        self.identity = np.array([1.0, 0, 0, 0, 1, 0, 0, 0])

    def forward(self, theta: Tensor, size: tuple[int, int]) -> Tensor:
        """Grid (N, P, Q, 2) of theta (N, 8), for a result of size (P, Q)."""
        _check_theta(self, theta)
        target = target_grid(size, self.align_corners).reshape(-1, 2)
        ones = np.ones((len(target), 1))
        points = _constant(np.concatenate([target, ones], axis=1), theta)  # (P Q, 3)
        corner = _constant(np.ones((len(theta), 1)), theta)
        maps = F.cat([theta, corner], dim=1).reshape(-1, 3, 3)
        places = points @ maps.transpose(1, 2)  # (N, P Q, 3)
        return (places[:, :, :2] / places[:, :, 2:]).reshape(-1, *size, 2)


class ThinPlateSplineGrid(nn.Module):
    r"""Grid that bends: the smoothest map that takes K control points to given places.

    The control points :math:`p_k` are a regular table over the result; theta holds the place
    :math:`q_k` in the input that each of them reads. The grid is linear in these places:

    .. math:: (x^s, y^s) = (x^t, y^t) + \sum_k a_k(x^t, y^t)\, (q_k - p_k)

    The weights :math:`a_k` come from one linear system, solved once for each size of the result.
    With :math:`\varphi(r) = r^2 \log r` and :math:`g = (x^t, y^t)`,

    .. math:: \begin{pmatrix} a & \cdot \end{pmatrix} =
              \begin{pmatrix} \varphi(|g - p_k|)_k & 1 & g \end{pmatrix}
              \begin{pmatrix} \varphi(|p_j - p_k|)_{jk} & 1 & p \\ 1 & 0 & 0 \\ p^T & 0 & 0
              \end{pmatrix}^{-1}

    Parameters
    ----------
    points : int
        Control points along each axis: K = points^2. The paper has 16 in all.
    align_corners : bool
        As `functional.affine_grid`.

    Attributes
    ----------
    identity : ndarray
        The theta of the map that changes nothing: the control points, (x, y) each in turn.

    References
    ----------
    Bookstein, "Principal warps: thin-plate splines and the decomposition of deformations"
    (1989).
    """

    def __init__(self, points: int = 4, align_corners: bool = False):
        super().__init__()
        if points < 2:
            raise ValueError(
                f"ThinPlateSplineGrid: points must be at least 2 along each axis, not {points}: "
                "all control points on one line leave the map undetermined"
            )
        self.points = points
        self.align_corners = align_corners
        self.identity = control_points(points).ravel()

    def forward(self, theta: Tensor, size: tuple[int, int]) -> Tensor:
        """Grid (N, P, Q, 2) of theta (N, 2 K), for a result of size (P, Q)."""
        _check_theta(self, theta)
        moved = (theta - _constant(self.identity, theta)).reshape(len(theta), -1, 2)
        target = target_grid(size, self.align_corners)
        weights = _spline_weights(self.points, *size, self.align_corners)  # (P Q, K)
        bent = (_constant(weights, theta) @ moved).reshape(-1, *size, 2)
        return _constant(target, theta) + bent

    def extra_repr(self) -> str:
        return f"points={self.points}"


GRIDS: dict[str, Any] = {
    **{family: functools.partial(AffineGrid, family) for family in AFFINE_FAMILIES},
    "projective": ProjectiveGrid,
    "thin_plate_spline": ThinPlateSplineGrid,
}


class LocalisationNet(nn.Sequential):
    """The default localisation network: two convolutions and a linear layer.

    That of the paper's ST-CNN on distorted digits (appendix A.4), but with padding, and pooled to
    4x4 in the end instead of halved in the beginning, so that images of every size
    from 2x2 fit.

    Parameters
    ----------
    channels : int
        Channels C of the input.
    features : int
        Features D of the result, (N, C, H, W) -> (N, D).
    width : int
        Channels of the convolutions.
    """

    def __init__(self, channels: int, features: int = 20, width: int = 20):
        super().__init__(
            nn.Conv2d(channels, width, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, width, 5, padding=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(16 * width, features),
            nn.ReLU(),
        )


class SpatialTransformer(nn.Module):
    r"""Spatial transformer: look at the image, then choose where to read it.

    .. math::

        \theta &= W f_{loc}(x) + b && \text{localisation: what to do with this image} \\
        (x^s_{pq}, y^s_{pq}) &= T_\theta(x^t_{pq}, y^t_{pq})
            && \text{grid: where the result's pixel (p, q) is read} \\
        y_{cpq} &= \sum_{i,j} x_{cij}\, k(h_{pq} - i)\, k(w_{pq} - j) && \text{sampler}

    with :math:`k(d) = \max(0, 1 - |d|)` and (h, w) the place :math:`(y^s, x^s)` counted in pixels.
    All channels are read at the same places. W starts at 0 and b at the identity, so that the
    module at first changes nothing, not by a rounding error (of finite x, in the dtype of its
    parameters).

    Parameters
    ----------
    channels : int
        Channels C.
    transform : str or Module
        "affine" (6 numbers), "translation" (2), "attention" (3: scale and place), "similarity"
        (4: rotation too), "projective" (8), "thin_plate_spline" (32), or a module that makes a
        grid (N, P, Q, 2) of theta (N, n) and a size (P, Q) and has the attribute `identity`, (n,).
        Rotations are by the coordinates -1 to 1: they shear images that are not square.
    localisation : Module, optional
        f_loc: (N, C, H, W) -> (N, D). `LocalisationNet(channels, features)` if left out.
    features : int
        D, what the localisation network returns.
    output_size : int or (int, int), optional
        Size (P, Q) of the result; that of the input if left out.
    padding_mode : str
        What is read outside the image, as in `functional.grid_sample`.
    align_corners : bool
        Whether -1 and 1 are the centres of the outermost pixels or their outer edges; grid and
        sampler are told the same, so that the identity is one either way.

    Attributes
    ----------
    localisation, fc, grid : Module
        Its parts. A forward hook on `fc` sees theta, (N, n); one on `grid` the places that are
        read, (N, P, Q, 2).

    Raises
    ------
    ValueError
        If the transform is unknown, or a module that has no `identity` or takes -1 and 1 for other
        points than the sampler; or if the output has no pixels.

    Notes
    -----
    Code of the paper's time takes -1 and 1 for the centres of the outermost pixels: that is
    `align_corners=True`. The default is PyTorch's.

    A place outside the image has no gradient (with "zeros" and "border"): a transformer that has
    left all images never comes back. Where that happens, give `localisation` and `fc` a smaller
    learning rate.

    Costs beside the localisation network: n (D + 1) parameters; for each image n D multiply-adds
    for theta, 6 P Q for an affine grid and 4 C P Q for reading.

    References
    ----------
    Jaderberg, Simonyan, Zisserman and Kavukcuoglu, "Spatial Transformer Networks" (NIPS 2015),
    sections 3.1 to 3.4, equations 1 to 7.
    """

    def __init__(
        self,
        channels: int,
        transform: str | nn.Module = "affine",
        localisation: nn.Module | None = None,
        features: int = 20,
        output_size: int | tuple[int, int] | None = None,
        padding_mode: str = "zeros",
        align_corners: bool = False,
    ):
        super().__init__()
        self.channels = channels
        self.features = features
        self.output_size = None if output_size is None else _size(output_size)
        self.padding_mode = padding_mode
        self.align_corners = align_corners
        if localisation is None:
            localisation = LocalisationNet(channels, features)
        self.localisation = localisation
        self.grid = _grid(transform, align_corners)
        self.fc = nn.Linear(features, len(self.grid.identity))
        nn.init.zeros_(self.fc.weight)
        identity = tensor(self.grid.identity, dtype=self.fc.weight.dtype)
        self.fc.bias = nn.Parameter(identity)  # whatever the image

    def forward(self, x: Tensor) -> Tensor:
        """Read x (N, C, H, W) where it says itself: (N, C, P, Q)."""
        x = as_images(self, x, self.channels)
        located = self.localisation(x)
        if located.shape != (len(x), self.features):
            raise ShapeError(
                "SpatialTransformer: the localisation network must return (N, D) with "
                f"D = {self.features} features, got {located.shape} for an input {x.shape}: "
                "end it with nn.Flatten(), and pass features=D"
            )
        grid = self.grid(self.fc(located), self.output_size or x.shape[2:])
        return F.grid_sample(
            x, grid, padding_mode=self.padding_mode, align_corners=self.align_corners
        )

    def extra_repr(self) -> str:
        size = "" if self.output_size is None else f", output_size={self.output_size}"
        return f"{self.channels}{size}"


def _size(output_size: int | tuple[int, int]) -> tuple[int, int]:
    size = integers("SpatialTransformer", "output_size", output_size)
    size = size * 2 if len(size) == 1 else size
    if len(size) != 2 or min(size) < 1:
        raise ValueError(
            "SpatialTransformer: output_size must be one size or two (P, Q), and at least 1, not "
            f"{output_size}"
        )
    return size[0], size[1]


def target_grid(size: tuple[int, int], align_corners: bool = False) -> np.ndarray:
    """Coordinates (x, y) of the result's own pixels, from -1 to 1: (P, Q, 2)."""
    return F.affine_grid(IDENTITY[None], size=(1, 1, *size), align_corners=align_corners).numpy()[0]


def control_points(points: int) -> np.ndarray:
    """A regular table of points (x, y) from -1 to 1, row by row: (points^2, 2)."""
    along = np.linspace(-1, 1, points)
    y, x = np.meshgrid(along, along, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


@functools.lru_cache(maxsize=16)
def _spline_weights(points: int, P: int, Q: int, align_corners: bool) -> np.ndarray:
    """How much each control point moves each pixel: (P Q, K), read-only."""
    control = control_points(points)
    K = len(control)
    system = np.zeros((K + 3, K + 3))
    system[:K] = _spline_terms(control, control)
    system[K:, :K] = system[:K, K:].T
    terms = _spline_terms(target_grid((P, Q), align_corners).reshape(-1, 2), control)
    weights = np.linalg.solve(system, terms.T).T[:, :K]  # the system is symmetric
    weights.flags.writeable = False
    return weights


def _spline_terms(g: np.ndarray, control: np.ndarray) -> np.ndarray:
    """The rows (phi(|g - p_k|), 1, g) of points g (M, 2): (M, K + 3)."""
    squared = ((g[:, None] - control) ** 2).sum(axis=2)
    phi = 0.5 * squared * np.log(np.where(squared > 0, squared, 1))  # r^2 log r, and 0 at 0
    return np.concatenate([phi, np.ones((len(g), 1)), g], axis=1)


def _grid(transform: str | nn.Module, align_corners: bool) -> Any:
    if isinstance(transform, nn.Module):
        if not hasattr(transform, "identity"):
            raise ValueError(
                f"SpatialTransformer: {type(transform).__name__} needs an attribute `identity`, "
                "the theta (n,) of the map that changes nothing"
            )
        of_grid = getattr(transform, "align_corners", align_corners)
        if of_grid != align_corners:
            raise ValueError(
                "SpatialTransformer: grid and sampler must agree, but align_corners is "
                f"{of_grid} in {type(transform).__name__} and {align_corners} here"
            )
        return transform
    if not isinstance(transform, str) or transform not in GRIDS:
        raise ValueError(
            f"SpatialTransformer: transform must be one of {', '.join(GRIDS)}, or a module that "
            f"makes grids, not {transform!r}"
        )
    return GRIDS[transform](align_corners=align_corners)


def _check_theta(grid: Any, theta: Tensor) -> None:
    if theta.ndim != 2 or theta.shape[1] != len(grid.identity):
        raise ShapeError(
            f"{type(grid).__name__}: theta must be (N, {len(grid.identity)}), not {theta.shape}"
        )


def _constant(array: np.ndarray, like: Tensor) -> Tensor:
    """An array as a constant of a tensor's dtype, where that tensor is."""
    array = array.astype(like.dtype)
    if on_gpu(like.data):
        return as_tensor(_on_gpu(array.tobytes(), array.shape, array.dtype))
    return as_tensor(array)


@functools.lru_cache(maxsize=64)
def _on_gpu(numbers: bytes, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """A constant stays there once it is copied: for each copy the host would wait."""
    return to_device(np.frombuffer(numbers, dtype).reshape(shape), "cuda")
