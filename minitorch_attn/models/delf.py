"""DELF: local features that a network learns to choose, and pictures compared by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from .. import nn
from ..attention.delf import DELFAttention
from ..engine import ShapeError, Tensor, as_tensor, no_grad
from ..engine.optional import require
from ..ops.arguments import integer
from .resnet import BasicBlock, Bottleneck, resnet50

PYRAMID = tuple(2 ** (power / 2) for power in range(-4, 3))  # 0.25 ... 2, as in the paper


class ReceptiveField(NamedTuple):
    """What one place of a feature map sees of the image, along one axis.

    Attributes
    ----------
    size : int
        Pixels in the window of a place.
    stride : int
        Pixels from one window to the next.
    start : float
        Pixel in the middle of the first window; pixel 0 is the first, padding is negative.
    """

    size: int
    stride: int
    start: float


class LocalFeatures(NamedTuple):
    """The features of one image that were chosen, the best first.

    Attributes
    ----------
    descriptors : (M, D) array
        Of length 1.
    places : (M, 2) array
        (x, y) in pixels, x to the right, y down; (0, 0) is the middle of the first pixel.
    scales : (M,) array
        Of the pyramid's image that a feature comes from: at 0.5 it saw twice as much.
    scores : (M,) array
        What they were chosen by.
    """

    descriptors: np.ndarray
    places: np.ndarray
    scales: np.ndarray
    scores: np.ndarray


class AffineFit(NamedTuple):
    """An affine map that pairs of places agree on.

    Attributes
    ----------
    matrix : (2, 3) array or None
        To be multiplied with (x, y, 1): the least-squares map of the inliers. None if no three
        pairs fix a map.
    inliers : (K,) array of bool
        Which pairs the best trial's map, exact for three of them, moves to within the tolerance.
        (The matrix, which takes all of them into account, may move some a little further.)
    """

    matrix: np.ndarray | None
    inliers: np.ndarray


class DELF(nn.Module):
    r"""A network whose local features are chosen by attention, and trained in two stages.

    .. math::

        \text{stage 1:} \quad & V\, \tfrac{1}{PQ} \textstyle\sum_{pq} x_{pq}
            && \text{the features } x \text{ learn, without attention} \\
        \text{stage 2:} \quad & W\, \textstyle\sum_{pq} \alpha_{pq}\, \hat x_{pq}
            && \text{the scores } \alpha \text{ learn, with the features fixed}

    Both are trained by classification of whole images. Nobody says which places matter: a score
    rises where features help to tell the classes apart. In search the classifiers are not used:
    `extract` gives the features at the places of the highest scores.

    Parameters
    ----------
    backbone : Module
        Images (N, C_in, H, W) -> features (N, C, P, Q), not negative.
    channels : int
        Channels C of the features.
    num_classes : int
        Classes K.
    hidden : int
        Of the `DELFAttention`.
    field : ReceptiveField, optional
        That of the backbone, where `receptive_field` cannot tell it.

    Attributes
    ----------
    backbone, attention : Module
    mean_classifier, attended_classifier : Module
        V and W, each with a bias.
    stage : int
        1 or 2; `begin_stage` changes it.
    field : ReceptiveField

    Raises
    ------
    ValueError
        If a size is not an integer of at least 1.

    Notes
    -----
    The authors' later program trains both at once, and lets no gradient of the scores into the
    features.

    References
    ----------
    Noh, Araujo, Sim, Weyand and Han, "Large-Scale Image Retrieval with Attentive Deep Local
    Features" (ICCV 2017), section 3.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        num_classes: int,
        hidden: int = 512,
        field: ReceptiveField | None = None,
    ):
        super().__init__()
        num_classes = integer("DELF", "num_classes", num_classes, least=1)
        self.backbone = backbone
        self.attention = DELFAttention(channels, hidden)
        self.mean_classifier = nn.Linear(channels, num_classes)
        self.attended_classifier = nn.Linear(channels, num_classes)
        self.field = receptive_field(backbone) if field is None else field
        self.stage = 1

    def begin_stage(self, stage: int) -> list[nn.Parameter]:
        """Go to stage 1 or 2; returns the parameters that learn in it, for the optimiser.

        All others are frozen, and in stage 2 the backbone stays in evaluation mode, so that its
        batch normalisations keep their statistics.
        """
        if stage not in (1, 2):
            raise ValueError(f"DELF: there are the stages 1 and 2, not {stage!r}")
        self.stage = stage
        self.requires_grad_(False)
        learning = (
            (self.backbone, self.mean_classifier)
            if stage == 1
            else (self.attention, self.attended_classifier)
        )
        for part in learning:
            part.requires_grad_()
        self.train(self.training)
        return [p for p in self.parameters() if p.requires_grad]

    def train(self, training: bool = True) -> DELF:
        """Training mode; the backbone is left out of it in stage 2."""
        super().train(training)
        if self.stage == 2:
            self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes (N, K) of images x (N, C_in, H, W), as the stage has them."""
        features = self.backbone(x)
        if self.stage == 1:
            return self.mean_classifier(features.mean(dim=(2, 3)))
        return self.attended_classifier(self.attention(features))

    def extract(
        self,
        image: Any,
        scales: Sequence[float] = PYRAMID,
        count: int = 1000,
        least_score: float = -math.inf,
        reduce: Callable[[np.ndarray], np.ndarray] | None = None,
        rank: Callable[[Tensor], Any] | None = None,
    ) -> LocalFeatures:
        """Local features of one image, of several sizes, chosen by their scores.

        Gradients are not tracked. The model's mode is left as it is: call `model.eval()` before if
        its backbone has batch normalisation or dropout.

        Parameters
        ----------
        image : (C_in, H, W)
        scales : sequence of float
            The image is enlarged by each of them, by bilinear interpolation.
        count : int
            How many features are kept at most.
        least_score : float
            Features of lower scores are left out.
        reduce : callable, optional
            (M, C) -> (M, D), put between two divisions by the length: `transform` of a
            `PCAWhitening` to 40 components without whitening, as in the paper.
        rank : callable, optional
            Features (1, C, P, Q) -> scores (1, 1, P, Q) to choose by, instead of the attention's.

        Returns
        -------
        LocalFeatures
            Of equal scores the first scale, row and column comes first.

        Raises
        ------
        ShapeError
            If the image has not three axes, or is too small for the backbone at one of the scales,
            or `rank` gives other than one score a place.
        ValueError
            If there is no scale, one is not positive and finite, or count is no integer of at
            least 1.

        Notes
        -----
        No feature is left out for lying near a better one, as in the released settings.
        """
        count = integer("DELF.extract", "count", count, least=1)
        if len(scales) == 0 or not all(0 < scale < math.inf for scale in scales):
            raise ValueError(f"DELF.extract: scales must be positive, one at least, not {scales}")
        image = np.asarray(image)
        if image.ndim != 3:
            raise ShapeError(f"DELF.extract: needs one image (C_in, H, W), got {image.shape}")
        image = as_tensor(image[None])
        rank = self.attention.scores if rank is None else rank
        with no_grad():
            levels = [self._level(image, float(scale), rank) for scale in scales]
        found = LocalFeatures(*(np.concatenate(parts) for parts in zip(*levels, strict=True)))
        best = np.argsort(-found.scores, kind="stable")[:count]
        best = best[found.scores[best] >= least_score]
        descriptors = _of_length_one(found.descriptors[best])
        if reduce is not None and len(best):
            descriptors = _of_length_one(reduce(descriptors))
        return LocalFeatures(
            descriptors, found.places[best], found.scales[best], found.scores[best]
        )

    def _level(
        self, image: Tensor, scale: float, rank: Callable[[Tensor], Any]
    ) -> tuple[np.ndarray, ...]:
        """All features of the image (1, C_in, H, W) at one scale, as they are."""
        H, W = image.shape[2:]
        size = max(1, round(scale * H)), max(1, round(scale * W))
        resized_image = F.interpolate(image, size=size, mode="bilinear")
        try:
            features = self.backbone(resized_image)
        except ShapeError as error:
            raise ShapeError(
                f"DELF.extract: at scale {scale:g}, where the image is {size[0]} x {size[1]}: "
                f"{error}"
            ) from error
        _, C, P, Q = features.shape
        scores = rank(features)
        if scores.shape != (1, 1, P, Q):
            raise ShapeError(
                f"DELF.extract: rank must give scores (1, 1, {P}, {Q}) of features "
                f"{features.shape}, not {scores.shape}"
            )
        y, x = (
            (self.field.start + self.field.stride * np.arange(n) + 0.5) * full / resized - 0.5
            for n, full, resized in zip((P, Q), (H, W), size, strict=True)
        )
        places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        descriptors = features.numpy().reshape(C, P * Q).T
        return descriptors, places, np.full(P * Q, scale), np.asarray(scores).reshape(-1)


def delf_resnet50(num_classes: int, in_channels: int = 3) -> DELF:
    """DELF on the first three stages of a ResNet-50: 1024 channels, one place each 16 pixels.

    In the authors' program the stride stands in the last block of each stage instead of the first:
    one place each 32 pixels that sees 291 of them, here 267.
    """
    whole = resnet50(in_channels=in_channels)
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    parts: dict[str, nn.Module] = {
        name: nn.ReLU() if name == "relu" else whole.get_submodule(name) for name in names
    }
    return DELF(nn.Sequential(parts), 1024, num_classes)


def receptive_field(network: nn.Module) -> ReceptiveField:
    r"""What one place of a chain's output sees of its input.

    Layer by layer, from size 1, stride 1 and start 0; for a kernel of R spread by a dilation d,
    with stride s and padding p,

    .. math::

        \text{start} &\leftarrow \text{start} + \text{stride} \cdot \bigl(d (R - 1) / 2 - p\bigr) \\
        \text{size} &\leftarrow \text{size} + \text{stride} \cdot d (R - 1) \\
        \text{stride} &\leftarrow \text{stride} \cdot s

    Parameters
    ----------
    network : Module
        A layer, an `nn.Sequential` of layers, `BasicBlock`s and `Bottleneck`s; their shortcuts see
        less. Layers with a window are convolutions and pools of two axes; layers without one, such
        as activations and batch normalisations, work at each place by itself.

    Raises
    ------
    ValueError
        If a part is none of these, or its window is not square.
    """
    size, stride, start = 1, 1, 0.0
    for layer in _chain(network):
        R, s, p, d = (
            _one_for_both_axes(layer, name)
            for name in ("kernel_size", "stride", "padding", "dilation")
        )
        start += stride * (d * (R - 1) / 2 - p)
        size += stride * d * (R - 1)
        stride *= s
    return ReceptiveField(size, stride, start)


def match_features(first: LocalFeatures, second: LocalFeatures, most: float = 0.8) -> np.ndarray:
    """Pairs of features: for each of the first image the nearest of the second, if it is near.

    Parameters
    ----------
    first, second : LocalFeatures
    most : float
        The greatest distance of two descriptors of length 1.

    Returns
    -------
    (K, 2) array of int
        Number in the first, number in the second.

    Raises
    ------
    ShapeError
        If the descriptors are not equally long.
    """
    a, b = first.descriptors, second.descriptors
    if len(a) == 0 or len(b) == 0:
        return np.zeros((0, 2), dtype=np.int64)
    if a.shape[1] != b.shape[1]:
        raise ShapeError(
            f"match_features: descriptors of {a.shape[1]} and of {b.shape[1]} numbers: "
            "reduce both by the same map"
        )
    cosines = a @ b.T
    nearest = cosines.argmax(axis=1)
    distances = np.sqrt(np.maximum(2 - 2 * cosines[np.arange(len(a)), nearest], 0))
    near = np.flatnonzero(distances <= most)
    return np.stack([near, nearest[near]], axis=1)


def fit_affine(
    source: Any,
    target: Any,
    tolerance: float = 20.0,
    trials: int = 1000,
    stretch: float = 4.0,
    seed: int = 0,
) -> AffineFit:
    r"""Find the affine map that most pairs of places agree on, by RANSAC.

    Three pairs, drawn by chance, fix a map A; the pairs with
    :math:`|A (x, y, 1)^T - (x', y')^T|_2 \le` tolerance are its inliers. That is tried again and
    again, the map with the most inliers wins, and it is fitted to them by least squares. Passed
    over are three pairs whose places lie on a line, and maps that no change of view explains: that
    mirror, or stretch or squeeze beyond measure. (A map that squeezes all to one place agrees with
    all pairs that lead there.) The work is done by scikit-learn's `RANSACRegressor`.

    Parameters
    ----------
    source, target : (K, 2) array_like
        Places (x, y) of pairs.
    tolerance : float
        In pixels.
    trials : int
        At most; it ends earlier once a better map is improbable (1 %).
    stretch : float
        Lengths may grow or shrink by this factor, in the mean of all directions: the determinant of
        A is between its square and the inverse of that.
    seed : int
        Of the draws.

    Returns
    -------
    AffineFit
        Without a map if there are fewer than three pairs, or no three of them fix one.

    Raises
    ------
    ShapeError
        If the places are not as many pairs (x, y).
    ValueError
        If places are not finite, the tolerance is not positive, the stretch below 1, or trials no
        integer of at least 1.
    ImportError
        If scikit-learn is not installed.

    References
    ----------
    Fischler and Bolles, "Random Sample Consensus" (Communications of the ACM, 1981).
    """
    source, target = np.asarray(source, dtype=float), np.asarray(target, dtype=float)
    if source.ndim != 2 or source.shape[1] != 2 or source.shape != target.shape:
        raise ShapeError(
            "fit_affine: needs places (K, 2) and as many that they lead to, got "
            f"{source.shape} and {target.shape}"
        )
    if not np.isfinite(source).all() or not np.isfinite(target).all():
        raise ValueError("fit_affine: some places are nan or infinite")
    trials = integer("fit_affine", "trials", trials, least=1)
    if not tolerance > 0 or not stretch >= 1:
        raise ValueError(
            "fit_affine: tolerance must be positive and stretch at least 1, not "
            f"{tolerance} and {stretch}"
        )
    linear_model = require(
        "sklearn.linear_model", extra="course", purpose="fit a map to pairs of places by RANSAC"
    )
    none = AffineFit(None, np.zeros(len(source), dtype=bool))
    if len(source) < 3:
        return none

    def is_a_change_of_view(a: np.ndarray, b: np.ndarray) -> bool:
        before, after = _double_area(a), _double_area(b)
        return before != 0 and stretch**-2 <= after / before <= stretch**2

    ransac = linear_model.RANSACRegressor(
        linear_model.LinearRegression(),
        min_samples=3,
        residual_threshold=tolerance,
        max_trials=trials,
        loss=lambda true, guess: np.sqrt(((true - guess) ** 2).sum(axis=1)),
        is_data_valid=is_a_change_of_view,
        random_state=seed,
    )
    try:
        ransac.fit(source, target)
    except ValueError:  # scikit-learn's word for: no three pairs fix a map
        return none
    line = ransac.estimator_
    return AffineFit(np.column_stack([line.coef_, line.intercept_]), ransac.inlier_mask_)


def _double_area(corners: np.ndarray) -> float:
    """Twice the area of a triangle (3, 2), negative if its corners go round the other way."""
    (a, b), (c, d) = corners[1:] - corners[0]
    return a * d - b * c


def _of_length_one(descriptors: np.ndarray) -> np.ndarray:
    return F.normalize(descriptors, dim=1).numpy()


def _chain(network: nn.Module) -> Iterator[nn.Module]:
    """The layers with a window that an input goes through, one after the other."""
    if isinstance(network, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)):
        yield network
        return
    parts = list(network.named_children())
    is_chain = isinstance(network, (nn.Sequential, BasicBlock, Bottleneck))
    resizes = any(hasattr(network, name) for name in ("kernel_size", "output_size", "scale_factor"))
    if resizes or (parts and not is_chain):
        raise ValueError(
            f"receptive_field: cannot tell what a {type(network).__name__} sees: neither a chain "
            "of layers, nor a convolution or pool of two axes. Pass DELF a "
            "field=ReceptiveField(size, stride, start)"
        )
    for name, part in parts:
        if name != "downsample":
            yield from _chain(part)


def _one_for_both_axes(layer: nn.Module, name: str) -> int:
    value = getattr(layer, name, 1)
    values = set(value) if isinstance(value, tuple) else {value}
    if len(values) != 1 or not isinstance(number := values.pop(), int):
        raise ValueError(
            f"receptive_field: the {name} of {layer} must be one integer for both axes, "
            f"not {value!r}"
        )
    return number
