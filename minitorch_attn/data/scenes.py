"""Scenes composed of real handwritten digits: something to be found among things to be ignored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import functional as F
from ..ops.arguments import integer
from .catalogue import DIGITS, digits
from .dataset import Seed, as_generator
from .images import ImageDataset


class SceneDataset(ImageDataset):
    """Labelled images of which it is known where the labelled thing is.

    Parameters
    ----------
    images, labels, classes
        As `ImageDataset`.
    boxes : (N, 4) array of int
        Top, left, height and width of the labelled thing, in pixels.
    samples : (N,) array of int
        Which written digit it is: scenes of one number show the same one.

    Attributes
    ----------
    boxes, samples
        As given.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        boxes: np.ndarray,
        samples: np.ndarray,
        classes: Sequence[str] = (),
    ):
        super().__init__(images, labels, classes)
        self.boxes = boxes
        self.samples = samples


def cluttered_digits(
    count: int,
    classes: Sequence[int] = range(10),
    train: bool = True,
    *,
    size: int = 32,
    digit: int = 16,
    clutter: int = 6,
    generator: Seed = None,
) -> SceneDataset:
    """Scenes of one handwritten digit each, somewhere among pieces of other digits.

    The digits are those of `digits`, enlarged; the pieces have 3/8 of their side, come from digits
    of the chosen classes, and lie anywhere, also over the digit: the brighter of the two is seen.

    Parameters
    ----------
    count : int
        How many scenes.
    classes : sequence of int
        The digits to choose from, each as likely as the others.
    train : bool
        Whether they are of the images for training, or of those for testing.
    size : int
        Side of a scene in pixels.
    digit : int
        Side of the digit's square in pixels.
    clutter : int
        Pieces in a scene.
    generator : numpy.random.Generator or int, optional
        A generator or a seed; the default generator if left out.

    Returns
    -------
    SceneDataset
        Images (N, 1, size, size) uint8; labels are the digits, also where few classes are chosen.

    Raises
    ------
    ValueError
        If a number is no integer or too small, a class is no digit, or the digit does not fit.
    ImportError
        If scikit-learn is not installed.
    """
    who = "cluttered_digits"
    count = integer(who, "count", count, least=0)
    digit = integer(who, "digit", digit, least=8)
    size = integer(who, "size", size, least=digit)
    clutter = integer(who, "clutter", clutter, least=0)
    chosen = np.array([integer(who, "classes", one, least=0) for one in classes], dtype=int)
    if chosen.size == 0 or chosen.max() > 9:
        raise ValueError(f"{who}: classes must be digits from 0 to 9, one at least, not {classes}")
    random = as_generator(generator)

    written = digits(train)
    samples = _one_for_each(random.choice(chosen, count), written.labels, random)
    bitmaps = _enlarged(written.images, digit)
    images = np.zeros((count, size, size), np.uint8)
    corners = random.integers(0, size - digit, (count, 2), endpoint=True)
    _draw(images, bitmaps[samples], corners)

    side = 3 * digit // 8
    others = np.flatnonzero(np.isin(written.labels, chosen))
    for _ in range(clutter):
        pieces = bitmaps[random.choice(others, count)]
        pieces = _cut(pieces, random.integers(0, digit - side, (count, 2), endpoint=True), side)
        _draw(images, pieces, random.integers(0, size - side, (count, 2), endpoint=True))

    boxes = np.concatenate([corners, np.full((count, 2), digit)], axis=1)
    return SceneDataset(images[:, None], written.labels[samples], boxes, samples, DIGITS)


def _one_for_each(
    wanted: np.ndarray, labels: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """For each label that is wanted the number of a sample that has it."""
    samples = np.zeros(len(wanted), dtype=np.int64)
    for label in np.unique(wanted):
        places = wanted == label
        samples[places] = random.choice(np.flatnonzero(labels == label), places.sum())
    return samples


def _enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """(N, 1, 8, 8) float in [0, 1] -> (N, side, side) uint8."""
    large = F.interpolate(images, size=(side, side), mode="bilinear").numpy()[:, 0]
    return np.round(255 * large).astype(np.uint8)


def _cut(images: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
    """A square of each image: (N, H, W), (N, 2) -> (N, side, side)."""
    return images[_square(corners, side)]


def _draw(images: np.ndarray, pieces: np.ndarray, corners: np.ndarray) -> None:
    """Put a square piece into each image, in place, where it is the brighter."""
    square = _square(corners, pieces.shape[1])
    images[square] = np.maximum(images[square], pieces)


def _square(corners: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index of a square in each of N images, by its top left corner (N, 2)."""
    top, left = corners.T.reshape(2, -1, 1, 1)
    down, right = np.mgrid[:side, :side]
    return np.arange(len(corners)).reshape(-1, 1, 1), top + down, left + right
