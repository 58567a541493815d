"""Datasets: numbered samples, and how several of them become one batch of arrays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine import ShapeError, Tensor, default_generator

Seed = np.random.Generator | int | None


class Dataset:
    """Samples by number: `len(dataset)` of them, `dataset[i]` each one, often (input, target).

    A dataset of your own defines `__len__` and `__getitem__`. One that can answer for many
    samples at once, faster than one by one, also overrides `batch`.
    """

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not define __len__")

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__")

    def batch(self, indices: np.ndarray, generator: np.random.Generator) -> Any:
        """Several samples as arrays with a first axis N.

        Parameters
        ----------
        indices : (N,) int array
            Numbers of the samples.
        generator : numpy.random.Generator
            Where random transforms draw from.
        """
        return collate([self[int(i)] for i in indices])


class TensorDataset(Dataset):
    """Arrays that agree in their first axis: sample i is `(arrays[0][i], arrays[1][i], ...)`.

    Parameters
    ----------
    *arrays : array_like or Tensor
        Each (N, ...); shared, not copied.

    Raises
    ------
    ShapeError
        If the arrays differ in their number of samples N.
    """

    def __init__(self, *arrays: Any):
        self.arrays = tuple(a.data if isinstance(a, Tensor) else np.asarray(a) for a in arrays)
        shapes = [a.shape for a in self.arrays]
        if not shapes or any(shape[:1] != shapes[0][:1] or not shape for shape in shapes):
            raise ShapeError(
                "TensorDataset needs arrays that have the same number of samples in axis 0, got "
                f"shapes {', '.join(map(str, shapes)) or 'of no array'}"
            )

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(a[index] for a in self.arrays)

    def batch(self, indices: np.ndarray, generator: np.random.Generator) -> tuple[Any, ...]:
        return self[indices]


class Subset(Dataset):
    """Some samples of a dataset, in the given order.

    Parameters
    ----------
    dataset : Dataset or sequence
        Where the samples come from.
    indices : sequence of int
        Their numbers there.
    """

    def __init__(self, dataset: Any, indices: Any):
        self.dataset = dataset
        self.indices = np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        chosen = self.indices[index]
        return self.dataset[chosen if chosen.ndim else int(chosen)]

    def batch(self, indices: np.ndarray, generator: np.random.Generator) -> Any:
        return batch_of(self.dataset, self.indices[indices], generator)


def random_split(dataset: Any, lengths: Sequence[float], generator: Seed = None) -> list[Subset]:
    """Split a dataset at random into subsets that do not overlap.

    Parameters
    ----------
    dataset : Dataset or sequence
        What to split.
    lengths : sequence of int or float
        Sizes that add up to `len(dataset)`, or fractions that add up to 1; samples that rounding
        leaves over go one each to the first subsets.
    generator : numpy.random.Generator or int, optional
        What decides the split: a generator or a seed; the default generator if left out.

    Returns
    -------
    list of Subset
        One per length.

    Raises
    ------
    ValueError
        If the lengths do not add up.
    """
    count = len(dataset)
    sizes = _sizes(lengths, count)
    order = as_generator(generator).permutation(count)
    ends = itertools.accumulate(sizes)
    return [Subset(dataset, order[end - size : end]) for size, end in zip(sizes, ends)]


def _sizes(lengths: Sequence[float], count: int) -> list[int]:
    if any(isinstance(length, float) for length in lengths):
        if min(lengths) < 0 or not math.isclose(sum(lengths), 1):
            raise ValueError(f"fractions must add up to 1, got {list(lengths)}")
        sizes = [math.floor(count * fraction) for fraction in lengths]
        left = count - sum(sizes)
        return [size + (i < left) for i, size in enumerate(sizes)]
    if min(lengths) < 0 or sum(lengths) != count:
        raise ValueError(
            f"lengths {list(lengths)} add up to {sum(lengths)}, the dataset has {count} samples; "
            "fractions such as [0.8, 0.2] are taken too"
        )
    return [int(length) for length in lengths]


def batch_of(dataset: Any, indices: np.ndarray, generator: np.random.Generator) -> Any:
    """A batch of a dataset, or of any sequence of samples."""
    if isinstance(dataset, Dataset):
        return dataset.batch(indices, generator)
    return collate([dataset[int(i)] for i in indices])


def collate(samples: Sequence[Any]) -> Any:
    """Stack samples along a new first axis; tuples are stacked part by part.

    Raises
    ------
    ShapeError
        If samples differ in shape.
    """
    if isinstance(samples[0], (tuple, list)):
        return tuple(collate(part) for part in zip(*samples, strict=True))
    arrays = [np.asarray(sample) for sample in samples]
    if len({a.shape for a in arrays}) > 1:
        shapes = sorted({a.shape for a in arrays})
        raise ShapeError(
            f"samples of shapes {', '.join(map(str, shapes))} do not stack into one batch: bring "
            "them to one shape first, or give the DataLoader a collate_fn that does"
        )
    return np.stack(arrays)


def as_generator(generator: Seed) -> np.random.Generator:
    """A generator from a generator, a seed, or None (the default generator)."""
    if generator is None:
        return default_generator()
    return np.random.default_rng(generator)  # hands a Generator back as it is
