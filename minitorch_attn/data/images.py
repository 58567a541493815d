"""Datasets of labelled images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import ShapeError, default_generator
from ..engine.optional import require
from .dataset import TensorDataset
from .transforms import Transform, apply, to_float

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class ImageDataset(TensorDataset):
    """Labelled images: sample i is (image, label).

    Images are kept as they are given, as bytes in a quarter of the memory, and handed out in the
    default dtype: bytes 0 ... 255 as numbers 0 ... 1, then through the transform.

    Parameters
    ----------
    images : (N, C, H, W) array, uint8 or float
        The images.
    labels : (N,) array of int
        The class of each.
    classes : sequence of str, optional
        Names of the classes, by label.
    transform : callable, optional
        Applied to a batch of float images, see `minitorch_attn.data.transforms`.

    Attributes
    ----------
    images, labels, classes, transform
        As given; labels int64.

    Raises
    ------
    ShapeError
        If the images have not four axes, or are not as many as the labels.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        classes: Sequence[str] = (),
        transform: Transform | None = None,
    ):
        super().__init__(images, np.asarray(labels, dtype=np.int64))
        self.images, self.labels = self.arrays
        if self.images.ndim != 4 or self.labels.ndim != 1:
            raise ShapeError(
                "ImageDataset needs images (N, C, H, W) and labels (N,), got shapes "
                f"{self.images.shape} and {self.labels.shape}"
            )
        self.classes = tuple(classes)
        self.transform = transform

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        if isinstance(index, slice) or np.ndim(index) > 0:
            return self.batch(index, default_generator())
        images, labels = self.batch(np.array([index]), default_generator())
        return images[0], labels[0]

    def batch(self, indices: Any, generator: np.random.Generator) -> tuple[Any, ...]:
        images = to_float(self.images[indices])
        if self.transform is not None:
            images = apply(self.transform, images, generator)
        return images, self.labels[indices]

    def __repr__(self) -> str:
        C, H, W = self.images.shape[1:]
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"ImageDataset({len(self):,} images of {C}x{H}x{W}{classes})"


def image_folder(
    root: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    mode: str = "RGB",
    transform: Transform | None = None,
) -> ImageDataset:
    """Labelled images from a folder that holds one folder per class.

    All images are read into memory at once, as bytes. Classes are numbered in the order of their
    names; files are read in the order of theirs.

    Parameters
    ----------
    root : path
        The folder: `root/cat/001.jpg`, `root/dog/001.jpg`, ...
    size : int or (int, int), optional
        Height and width that every image is resized to; needed where they differ.
    mode : str
        `"RGB"` (C = 3) or `"L"` (grey, C = 1).
    transform : callable, optional
        As for `ImageDataset`.

    Returns
    -------
    ImageDataset
        Images (N, C, H, W) uint8, labels (N,) int64, classes named after the folders.

    Raises
    ------
    FileNotFoundError
        If no folder of images is there.
    ShapeError
        If images differ in size and no `size` is given.
    ImportError
        If Pillow is not installed.
    """
    root = Path(root).expanduser()
    folders = sorted(path for path in root.glob("[!.]*") if path.is_dir())
    files = [(label, f) for label, folder in enumerate(folders) for f in _image_files(folder)]
    if not files:
        raise FileNotFoundError(
            f"no images found: {root} should hold one folder per class with image files in it "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    images = [_read_image(file, size, mode) for _, file in files]
    for (_, file), image in zip(files, images):
        if image.shape != images[0].shape:
            raise ShapeError(
                f"{file} has (channels, height, width) {image.shape}, {files[0][1]} has "
                f"{images[0].shape}: pass size= to bring all images to one size"
            )
    labels = np.array([label for label, _ in files])
    return ImageDataset(np.stack(images), labels, [f.name for f in folders], transform)


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in SUFFIXES)


def _read_image(file: Path, size: int | tuple[int, int] | None, mode: str) -> np.ndarray:
    """One image file as bytes. -> (C, H, W) uint8."""
    pillow = require("PIL.Image", extra="course", purpose="read image files")
    with pillow.open(file) as picture:
        picture = picture.convert(mode)
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else size
            picture = picture.resize((width, height), pillow.Resampling.BILINEAR)
        pixels = np.asarray(picture)
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
