"""DataLoader: a dataset, batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..engine import as_tensor
from .dataset import Seed, as_generator, batch_of


class DataLoader:
    """Iterate over a dataset in batches of tensors, once per `for` loop.

    The generator decides the order and the random transforms. Every epoch goes on where it
    stood, so that epochs differ; the same seed, or a restored `state_dict()`, repeats them.

    Parameters
    ----------
    dataset : Dataset or sequence
        The samples.
    batch_size : int
        Samples in a batch; the last batch holds what is left.
    shuffle : bool
        Whether every epoch has a new random order.
    drop_last : bool
        Whether to leave out a last batch that is not full.
    collate_fn : callable, optional
        Makes a batch from a list of samples, for those that do not stack (sequences of several
        lengths). Its result is handed out as it is.
    generator : numpy.random.Generator or int, optional
        A generator or a seed; the default generator (`manual_seed`) if left out.

    Yields
    ------
    tuple of Tensor, or Tensor
        What a sample has, with a first axis N = batch_size: images (N, C, H, W) and labels (N,)
        for a dataset of images.

    Raises
    ------
    ValueError
        If `batch_size` is not a positive integer.

    Examples
    --------
    >>> from minitorch_attn.data import DataLoader, digits
    >>> loader = DataLoader(digits(), batch_size=64, shuffle=True, generator=0)
    >>> images, labels = next(iter(loader))
    >>> images.shape, labels.shape
    ((64, 1, 8, 8), (64,))
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        collate_fn: Callable[[list], Any] | None = None,
        generator: Seed = None,
    ):
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}")
        self.dataset = dataset
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.collate_fn = collate_fn
        self.generator = as_generator(generator)

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, left = divmod(len(self.dataset), self.batch_size)
        return full + (left > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        count = len(self.dataset)
        order = self.generator.permutation(count) if self.shuffle else np.arange(count)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield self._batch(order[start : start + self.batch_size])

    def _batch(self, indices: np.ndarray) -> Any:
        if self.collate_fn is not None:
            return self.collate_fn([self.dataset[int(i)] for i in indices])
        return to_tensors(batch_of(self.dataset, indices, self.generator))

    def state_dict(self) -> dict[str, Any]:
        """Where the generator stands: taken between epochs, it repeats the epochs that follow."""
        return {"generator": self.generator.bit_generator.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict()`; a generator that is shared is set back for all."""
        self.generator.bit_generator.state = state_dict["generator"]


def to_tensors(batch: Any) -> Any:
    """A batch of arrays, or a tuple of them, as tensors that share their memory."""
    if isinstance(batch, tuple):
        return tuple(to_tensors(part) for part in batch)
    return as_tensor(batch)
