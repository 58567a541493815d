"""What is done to images on their way into a batch.

A transform is a function of a batch of float images (N, C, H, W) that returns a batch. One that
derives from `RandomTransform` is also given the generator to draw from, the loader's own, so that
a seed repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..engine import ShapeError, get_default_dtype


class RandomTransform:
    """A transform `f(images, generator)` that draws at random, anew for each image."""

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


Transform = Callable[[np.ndarray], np.ndarray] | RandomTransform


def apply(transform: Transform, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Apply a transform, random or not, to a batch."""
    if isinstance(transform, RandomTransform):
        return transform(images, generator)
    return transform(images)


def to_float(images: np.ndarray) -> np.ndarray:
    """Images in the default dtype; bytes 0 ... 255 become numbers 0 ... 1. (*) -> (*)."""
    scaled = images.astype(get_default_dtype())
    if images.dtype == np.uint8:
        scaled /= 255
    return scaled


@dataclass(frozen=True)
class Compose(RandomTransform):
    """Several transforms, one after the other.

    Parameters
    ----------
    transforms : sequence of callable
        Applied from the first to the last.
    """

    transforms: Sequence[Transform]

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            images = apply(transform, images, generator)
        return images


@dataclass(frozen=True)
class Normalize:
    """Shift and scale each channel: `(images - mean) / std`. (N, C, H, W) -> (N, C, H, W).

    Parameters
    ----------
    mean, std : float or sequence of float
        One for all channels, or C of them.

    Raises
    ------
    ShapeError
        If there are neither one nor C of them.
    """

    mean: float | Sequence[float]
    std: float | Sequence[float]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return (images - self._per_channel(self.mean, images)) / self._per_channel(self.std, images)

    def _per_channel(self, values: float | Sequence[float], images: np.ndarray) -> np.ndarray:
        column = np.reshape(np.asarray(values, images.dtype), (-1, 1, 1))
        if len(column) not in (1, images.shape[1]):
            raise ShapeError(
                f"Normalize has {len(column)} values for images of {images.shape[1]} channels "
                f"(shape {images.shape}): give one, or one per channel"
            )
        return column


@dataclass(frozen=True)
class RandomHorizontalFlip(RandomTransform):
    """Mirror an image left to right with probability p. (N, C, H, W) -> (N, C, H, W)."""

    p: float = 0.5

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        mirrored = generator.random(len(images)) < self.p
        return np.where(mirrored[:, None, None, None], images[..., ::-1], images)


@dataclass(frozen=True)
class RandomCrop(RandomTransform):
    """Cut a window out at a random place. (N, C, H, W) -> (N, C, *size).

    Parameters
    ----------
    size : int or (int, int)
        Height and width of the window.
    padding : int
        Zeros put around the image before.

    Raises
    ------
    ShapeError
        If the window is larger than the padded image.
    """

    size: int | tuple[int, int]
    padding: int = 0

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        p = self.padding
        padded = np.pad(images, ((0, 0), (0, 0), (p, p), (p, p)))
        rows, columns = padded.shape[2] - height + 1, padded.shape[3] - width + 1
        if rows < 1 or columns < 1:
            raise ShapeError(
                f"RandomCrop of {height}x{width} does not fit into images of "
                f"{padded.shape[2]}x{padded.shape[3]} (padding {p} included)"
            )
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        N = len(images)
        top, left = generator.integers(rows, size=N), generator.integers(columns, size=N)
        return windows[np.arange(N), :, top, left]
