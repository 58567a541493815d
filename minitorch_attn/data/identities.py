"""Batches in which every identity has several pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..engine import ShapeError
from ..ops.arguments import integer
from .dataset import Seed, as_generator, batch_of
from .loader import to_tensors


class IdentityLoader:
    """Iterate over a dataset in batches of some identities with some pictures each.

    An epoch goes over the identities in a new random order, and takes pictures of each at random:
    batches as the triplet loss over the hardest of a batch needs them.

    Parameters
    ----------
    dataset : Dataset or sequence
        The samples.
    labels : (N,) array of int
        The identity of each sample.
    identities : int
        Identities in a batch; those that are left over in an epoch are not shown in it.
    pictures : int
        Pictures of each, without repetition; an identity that has fewer shows some twice.
    generator : numpy.random.Generator or int, optional
        A generator or a seed; the default generator (`manual_seed`) if left out.

    Yields
    ------
    tuple of Tensor, or Tensor
        What a sample has, with a first axis N = identities * pictures; the pictures of an identity
        follow one another.

    Raises
    ------
    ShapeError
        If there is not one label for each sample.
    ValueError
        If a number is not a positive integer, or there are fewer identities than a batch needs.

    References
    ----------
    Hermans, Beyer and Leibe, "In Defense of the Triplet Loss for Person Re-Identification" (2017),
    section 2: batches of P identities and K pictures.
    """

    def __init__(
        self,
        dataset: Any,
        labels: Any,
        identities: int = 8,
        pictures: int = 4,
        *,
        generator: Seed = None,
    ):
        who = "IdentityLoader"
        labels = np.asarray(labels)
        if labels.shape != (len(dataset),):
            raise ShapeError(
                f"{who}: needs one label for each of {len(dataset)} samples, got labels of shape "
                f"{labels.shape}"
            )
        self.dataset = dataset
        self.identities = integer(who, "identities", identities, least=1)
        self.pictures = integer(who, "pictures", pictures, least=1)
        self.generator = as_generator(generator)
        self._samples = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        if len(self._samples) < self.identities:
            raise ValueError(
                f"{who}: a batch needs {self.identities} identities, the labels hold "
                f"{len(self._samples)}"
            )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._samples) // self.identities

    def __iter__(self) -> Iterator[Any]:
        order = self.generator.permutation(len(self._samples))
        for start in range(0, len(self) * self.identities, self.identities):
            chosen = [self._some(i) for i in order[start : start + self.identities]]
            yield to_tensors(batch_of(self.dataset, np.concatenate(chosen), self.generator))

    def _some(self, identity: int) -> np.ndarray:
        """Numbers of some pictures of an identity."""
        samples = self._samples[identity]
        return np.resize(self.generator.permutation(samples), self.pictures)
