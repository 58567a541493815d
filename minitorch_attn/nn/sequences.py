"""Batches of sequences of several lengths: padded to the longest, or packed without padding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..engine import ShapeError, Tensor, tensor
from ..engine.tensor import operand
from ..ops.packing import pack, unpack


class PackedSequence(NamedTuple):
    """Sequences of several lengths without padding, time by time; the longest sequence is first.

    Made by `pack_padded_sequence` or `pack_sequence`; a recurrent layer takes one for its input.
    Of the sequences abc and x the rows are a x b c, and the batch sizes 2, 1, 1.

    Attributes
    ----------
    data : Tensor (B, *)
        The first elements of all sequences, then the second elements of those that have one, ...
    batch_sizes : Tensor (L,) of integers
        How many sequences have a first element, a second one, ...: they add up to B. On the CPU.
    sorted_indices, unsorted_indices : Tensor (N,) of integers, or None
        Which sequence of the batch each packed one is, and the reverse; None for the same order.
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None


def pad_sequence(
    sequences: Iterable[Any], batch_first: bool = False, padding_value: float = 0.0
) -> Tensor:
    """One tensor of sequences of several lengths, filled up behind each.

    Parameters
    ----------
    sequences : iterable of (L_n, *)
        Each of its own length L_n.
    batch_first : bool
        Whether the result is (N, L, *) instead of (L, N, *).
    padding_value : float
        What to fill up with.

    Returns
    -------
    (L, N, *) or (N, L, *)
        With the greatest length L.

    Raises
    ------
    ShapeError
        If there is no sequence, or they differ in another size than their length.
    """
    sequences = [operand(s) for s in sequences]
    if not sequences:
        raise ShapeError("pad_sequence: needs at least one sequence")
    shapes = [s.shape for s in sequences]
    if () in shapes or len({shape[1:] for shape in shapes}) > 1:
        raise ShapeError(
            "pad_sequence: sequences (L_n, *) may differ in their length alone, the first size, "
            f"not {', '.join(map(str, shapes))}"
        )
    lengths = np.array([len(s) for s in sequences])
    index, time = np.nonzero(np.arange(lengths.max()) < lengths[:, None])
    places, size = (index, time), (len(lengths), int(lengths.max()))
    if not batch_first:
        places, size = places[::-1], size[::-1]
    return unpack(F.cat(sequences), places=places, size=size, value=padding_value)


def pack_padded_sequence(
    input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Leave the padding out of a padded batch.

    Parameters
    ----------
    input : (L, N, *), or (N, L, *) with `batch_first`
        Sequences, filled up behind each.
    lengths : (N,) of integers
        Their lengths, from 1 to L.
    batch_first : bool
        Which of the two axes comes first.
    enforce_sorted : bool
        Whether to insist on falling lengths; else the sequences are sorted here, and the layer
        that reads them gives its states in the order of the batch again.

    Returns
    -------
    PackedSequence

    Raises
    ------
    ShapeError
        If the input has less than two axes, there is not one length for each sequence, or one is
        not from 1 to L.
    ValueError
        If the lengths do not fall although `enforce_sorted` is set.
    """
    x = operand(input)
    if x.ndim < 2:
        raise ShapeError(
            "pack_padded_sequence: needs a padded batch "
            f"{'(N, L, *)' if batch_first else '(L, N, *)'}, not {x.shape}"
        )
    lengths = np.asarray(lengths)
    L, N = x.shape[1::-1] if batch_first else x.shape[:2]
    if lengths.shape != (N,) or lengths.dtype.kind not in "iu" or not N:
        raise ShapeError(
            f"pack_padded_sequence: an input {x.shape} of N = {N} sequences needs as many lengths, "
            f"integers, not {lengths.tolist()}"
            + (" (is batch_first right?)" if lengths.shape == (L,) else "")
        )
    lengths = lengths.astype(np.int64)  # unsigned ones have no differences below 0
    if lengths.min() < 1 or lengths.max() > L:
        raise ShapeError(
            f"pack_padded_sequence: lengths must be from 1 to L = {L}, those of the input "
            f"{x.shape}, not {lengths.tolist()}"
        )
    order = None
    if enforce_sorted:
        if (np.diff(lengths) > 0).any():
            raise ValueError(
                f"pack_padded_sequence: the lengths must fall, not {lengths.tolist()}: sort the "
                "batch, or let it be done here with enforce_sorted=False"
            )
    else:
        order = np.argsort(-lengths, kind="stable")
        lengths = lengths[order]
    batch_sizes = (np.arange(lengths[0])[:, None] < lengths).sum(axis=1)
    time, index = _places(batch_sizes)
    if order is not None:
        index = order[index]
    rows = pack(x, places=(index, time) if batch_first else (time, index))
    if order is None:
        return PackedSequence(rows, tensor(batch_sizes))
    back = np.argsort(order)
    return PackedSequence(
        rows, tensor(batch_sizes), tensor(order).to(rows.device), tensor(back).to(rows.device)
    )


def pack_sequence(sequences: Iterable[Any], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences (L_n, *) of several lengths; see `pack_padded_sequence`."""
    sequences = list(sequences)
    lengths = [len(s) for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Put packed sequences back into a padded batch, in the order that they came in.

    Parameters
    ----------
    sequence : PackedSequence
    batch_first : bool
        Whether the result is (N, L, *) instead of (L, N, *).
    padding_value : float
        What to fill up with.
    total_length : int, optional
        L; the greatest length if left out.

    Returns
    -------
    Tensor (L, N, *) or (N, L, *), and Tensor (N,)
        The padded sequences, and their lengths.

    Raises
    ------
    TypeError
        If `sequence` is no PackedSequence.
    ValueError
        If `total_length` is less than the greatest length.
    """
    if not isinstance(sequence, PackedSequence):
        raise TypeError(
            f"pad_packed_sequence: needs a PackedSequence, not a {type(sequence).__name__}"
        )
    batch_sizes = sequence.batch_sizes.numpy()
    L = len(batch_sizes) if total_length is None else total_length
    if L < len(batch_sizes):
        raise ValueError(
            f"pad_packed_sequence: total_length={total_length} is less than {len(batch_sizes)}, "
            "the greatest length"
        )
    lengths = (batch_sizes[:, None] > np.arange(batch_sizes[0])).sum(axis=0)
    time, index = _places(batch_sizes)
    if sequence.sorted_indices is not None:
        order = sequence.sorted_indices.numpy()
        index = order[index]
        lengths = lengths[np.argsort(order)]
    places, size = (time, index), (L, len(lengths))
    if batch_first:
        places, size = places[::-1], size[::-1]
    padded = unpack(sequence.data, places=places, size=size, value=padding_value)
    return padded, tensor(lengths)


def _places(batch_sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Time, and number of the sequence, of each packed row."""
    time, index = np.nonzero(batch_sizes[:, None] > np.arange(batch_sizes[0]))
    return time, index
