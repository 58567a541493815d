"""The file formats of the classic data sets, read from bytes."""

from __future__ import annotations

import io
import math
import tarfile

import numpy as np


def read_idx(data: bytes) -> np.ndarray:
    """Array of an IDX file of bytes (the format of MNIST).

    Two zero bytes, the type (8: unsigned byte), the number of axes, the size of each axis as a
    big-endian 32-bit integer, then the values.

    Parameters
    ----------
    data : bytes
        The file, not zipped.

    Returns
    -------
    uint8 array
        Read-only: it shares the memory of `data`.

    Raises
    ------
    ValueError
        If the header is another one, or the length does not fit it.
    """
    if data[:3] != b"\0\0\x08" or len(data) < 4:
        raise ValueError(f"not an IDX file of bytes: it begins with {data[:4].hex(' ')}")
    start = 4 + 4 * data[3]
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    if len(data) != start + math.prod(shape):
        raise ValueError(
            f"IDX file of shape {tuple(shape)}: it should have {start + math.prod(shape):,} bytes, "
            f"it has {len(data):,}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_cifar10(data: bytes, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from the binary archive of CIFAR-10 (`cifar-10-binary.tar.gz`).

    A file holds records of 3073 bytes: the label, then the red, green and blue planes of a 32x32
    image, row by row. Of the two archives that the authors publish this one is read because it
    is plain bytes: the other holds pickles, and to load a pickle is to run a program.

    Parameters
    ----------
    data : bytes
        The archive.
    train : bool
        Whether to read the five training files (50,000 images) or the test file (10,000).

    Returns
    -------
    (N, 3, 32, 32) uint8 array, (N,) uint8 array
        Images and labels.

    Raises
    ------
    ValueError
        If a file is missing in the archive, or does not consist of whole records.
    """
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if train else ["test_batch.bin"]
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for member in archive:  # in the order of the file: it is unzipped only once
            name = member.name.rpartition("/")[2]
            file = archive.extractfile(member) if name in names else None
            if file is not None:
                found[name] = file.read()
    for name in names:
        if name not in found or len(found[name]) % 3073:
            raise ValueError(f"CIFAR-10 archive: {name} is missing or does not hold whole images")
    records = np.concatenate([np.frombuffer(found[n], np.uint8).reshape(-1, 3073) for n in names])
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
