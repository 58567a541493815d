"""How a message goes over a pipe: a JSON header, then its arrays in NumPy's .npy format.

Neither end ever unpickles: what the other end sends can only become numbers and text.
"""

from __future__ import annotations

import io
import json
import math
import struct
from typing import IO, Any

import numpy as np

#: A message larger than this is refused, whoever sends it.
MOST_BYTES = 128 * 2**20

#: A reply whose header is larger than this is refused: numbers and text that are read from JSON
#: take many times the memory that they take on the pipe.
MOST_WORDS = 2 * 2**20

#: The arrays that cross: booleans, integers, floats, complex numbers, text.
KINDS = "biufcUS"

_LENGTHS = struct.Struct("<4sQ")
_MAGIC = b"mta1"


class WireError(RuntimeError):
    """The other end sent what is no message, or closed the pipe."""


def write_message(pipe: IO[bytes], message: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Send a message and its arrays.

    Raises
    ------
    WireError
        If the message is larger than `MOST_BYTES`.
    """
    blobs = [_to_npy(array) for array in arrays]
    header = json.dumps({"message": message, "arrays": [len(blob) for blob in blobs]}).encode()
    total = len(header) + sum(map(len, blobs))
    if total > MOST_BYTES:
        raise WireError(f"a message of {total} bytes: at most {MOST_BYTES} can be sent")
    pipe.write(_LENGTHS.pack(_MAGIC, len(header)))
    pipe.write(header)
    for blob in blobs:
        pipe.write(blob)
    pipe.flush()


def read_message(
    pipe: IO[bytes], most_words: int = MOST_BYTES
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Receive a message and its arrays; trusts nothing that it reads.

    Parameters
    ----------
    pipe : binary file
        Where it comes from.
    most_words : int
        How many bytes its header may have.

    Raises
    ------
    WireError
        If the pipe ends, or what comes is not a message.
    """
    magic, length = _LENGTHS.unpack(_exactly(pipe, _LENGTHS.size))
    if magic != _MAGIC or length > most_words:
        raise WireError("this is not a message")
    try:
        header = json.loads(_exactly(pipe, length))
        message, lengths = header["message"], header["arrays"]
        if not (isinstance(message, dict) and all(type(one) is int for one in lengths)):
            raise WireError("the header is not one")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError(f"the header cannot be read: {error}") from error
    if min(lengths, default=0) < 0 or sum(lengths) > MOST_BYTES:
        raise WireError(f"the message announces {sum(lengths)} bytes of arrays")
    return message, [_from_npy(_exactly(pipe, one)) for one in lengths]


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    parts = []
    while count:
        part = pipe.read(min(count, 2**20))
        if not part:
            raise WireError("the pipe was closed")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _to_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _from_npy(blob: bytes) -> np.ndarray:
    """Read an array whose header may lie about its size: nothing is allocated on its word."""
    buffer = io.BytesIO(blob)
    try:
        version = np.lib.format.read_magic(buffer)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, columns_first, dtype = read_header(buffer)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise WireError(f"an array's header cannot be read: {error}") from error
    data = memoryview(blob)[buffer.tell() :]
    # Text of no letters fits any shape into no bytes, and NumPy would make room for a letter each.
    sizes_fit = dtype.itemsize and all(type(n) is int and n >= 0 for n in shape)
    if dtype.kind not in KINDS or not sizes_fit or math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"an array of dtype {dtype} and shape {shape} in {len(data)} bytes")
    if not data:
        return np.empty(shape, dtype)
    return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if columns_first else "C")
