"""Pictures of two handwritten digits, and a sentence that says what is to be seen and where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..engine import ShapeError
from ..ops.arguments import integer
from .catalogue import DIGITS, digits
from .dataset import Dataset, Seed, as_generator
from .sequences import Vocabulary
from .transforms import to_float

RELATIONS = "left of", "above"
WORDS = ("a", "left", "of", "above", *DIGITS)
SIDE = 8  # of a digit, in pixels


class CaptionDataset(Dataset):
    """Pictures and what is said of them.

    `dataset[i]` is an image (C, H, W) and its caption, a str; a batch is made of arrays: images
    (N, C, H, W) in the default dtype, and tokens (N, T) of the captions with start and end.

    Parameters
    ----------
    images : (N, C, H, W) array, uint8 or float
    captions : sequence of N str
    vocabulary : Vocabulary
        Of the captions' words.
    labels : (N, B) array of int
        What things there are in each picture, in the order in which its caption names them.
    boxes : (N, B, 4) array of int
        Where they are: top, left, height and width, in pixels.

    Attributes
    ----------
    images, captions, vocabulary, labels, boxes
        As given.

    Raises
    ------
    ShapeError
        If they are not as many of each.
    """

    def __init__(
        self,
        images: np.ndarray,
        captions: Sequence[str],
        vocabulary: Vocabulary,
        labels: np.ndarray,
        boxes: np.ndarray,
    ):
        if not len(images) == len(captions) == len(labels) == len(boxes):
            raise ShapeError(
                f"CaptionDataset: {len(images)} images, {len(captions)} captions, {len(labels)} "
                f"labels and {len(boxes)} boxes: needs as many of each"
            )
        self.images, self.captions, self.vocabulary = images, list(captions), vocabulary
        self.labels, self.boxes = labels, boxes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        return to_float(self.images[index]), self.captions[index]

    def batch(
        self, indices: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, C, H, W) and tokens (N, T) of the samples of some numbers."""
        captions = [self.captions[int(i)] for i in indices]
        return to_float(self.images[indices]), self.vocabulary.encode(captions, framed=True)


def captioned_digits(
    count: int, train: bool = True, *, size: int = 24, generator: Seed = None
) -> CaptionDataset:
    """Pictures of two digits, with captions such as "a 3 left of a 7" and "a 3 above a 7".

    The digits are those of `digits`. Of two that stand beside one another the left one is named
    first, of two that stand below one another the upper one; each of the two relations is as
    likely. Of the 200 captions that there are, 40 are kept for testing: what is asked for there was
    never said in training, but every digit was named in both places and in both relations.

    Parameters
    ----------
    count : int
        How many pictures.
    train : bool
        Whether images and captions are of those for training, or of those for testing.
    size : int
        Side of a picture in pixels, at least 16.
    generator : numpy.random.Generator or int, optional
        A generator or a seed; the default generator if left out.

    Returns
    -------
    CaptionDataset
        Images (N, 1, size, size) uint8; labels (N, 2), the digits, and their boxes (N, 2, 4).

    Raises
    ------
    ValueError
        If a number is no integer or too small.
    ImportError
        If scikit-learn is not installed.
    """
    who = "captioned_digits"
    count = integer(who, "count", count, least=0)
    size = integer(who, "size", size, least=2 * SIDE)
    random = as_generator(generator)

    facts = random.choice(_facts(train), count)
    relations, labels = facts[:, 0], facts[:, 1:]
    corners = _corners(relations, size, random)

    written = digits(train)
    pixels = np.round(255 * written.images[:, 0]).astype(np.uint8)
    images = np.zeros((count, 1, size, size), np.uint8)
    for image, both, places in zip(images, labels, corners):
        for label, (top, left) in zip(both, places):
            sample = random.choice(np.flatnonzero(written.labels == label))
            image[0, top : top + SIDE, left : left + SIDE] = pixels[sample]

    captions = [f"a {a} {RELATIONS[r]} a {b}" for r, a, b in facts]
    boxes = np.concatenate([corners, np.full_like(corners, SIDE)], axis=2)
    return CaptionDataset(images, captions, Vocabulary(WORDS, " "), labels, boxes)


def _facts(train: bool) -> np.ndarray:
    """What can be said: relation, first digit, second digit, (F, 3)."""
    r, a, b = np.mgrid[:2, :10, :10].reshape(3, -1)
    is_for_testing = (a + 2 * b + r) % 5 == 0
    return np.stack([r, a, b], axis=1)[is_for_testing != train]


def _corners(relations: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Top left corners of two digits, (N, 2, 2), clearly beside or clearly above one another."""
    N, room = len(relations), size - SIDE
    first = random.integers(0, room - SIDE, N, endpoint=True)
    along = np.stack([first, random.integers(first + SIDE, room, endpoint=True)], axis=1)
    start = random.integers(0, room, N, endpoint=True)
    shift = random.integers(-SIDE // 4, SIDE // 4, N, endpoint=True)
    across = np.stack([start, np.clip(start + shift, 0, room)], axis=1)
    is_above = (relations == 1)[:, None]
    return np.stack([np.where(is_above, along, across), np.where(is_above, across, along)], axis=2)
