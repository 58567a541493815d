"""Saving and loading: safetensors files, never pickle (which runs code when it is opened).

A state dict becomes a plain safetensors file, which PyTorch's `safetensors.torch` reads, and
whose files are read here. Of anything nested (a checkpoint of model, optimiser and epoch), the
arrays are stored under dotted names, and all else as JSON in the file's metadata.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .engine import DTypeError, Tensor
from .engine.backend import Array, is_array, to_device
from .engine.optional import require

STRUCTURE = "minitorch_attn.structure"  # the key of the metadata for what is not an array
_REFERENCE = "$tensor"  # marks, in the structure, the place of an array
_PICKLES = (b"PK\x03\x04", b"\x80\x02")  # how PyTorch's files begin, new and old


def save(state: Mapping[str, Any], path: str | os.PathLike, metadata: Any = None) -> None:
    """Save a state dict, or a checkpoint that holds several, as a safetensors file.

    The file is replaced in one step: if the program is stopped while it saves, the old file stays.

    Parameters
    ----------
    state : dict
        Names to tensors or arrays; or nested: dicts with string keys and lists of tensors,
        arrays, numbers, strings, booleans and None.
    path : path
        Where to; usually ends in ".safetensors".
    metadata : dict of str to str, optional
        Anything to note in the file, for `read_metadata`.

    Raises
    ------
    TypeError
        If the state holds something else; the message says where.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"save() takes a dict such as model.state_dict(), not a {_kind(state)}")
    arrays: dict[str, np.ndarray] = {}
    structure = _take_arrays(state, "", arrays)
    notes = {str(key): str(value) for key, value in (metadata or {}).items()}
    if structure != {name: {_REFERENCE: name} for name in arrays}:
        notes[STRUCTURE] = json.dumps(structure)
    numpy_format = require("safetensors.numpy", extra="course", purpose="save a state dict")
    _write_atomically(Path(path), numpy_format.save(arrays, metadata=notes or None))


def load(path: str | os.PathLike) -> dict[str, Any]:
    """Load what `save` wrote, or any safetensors file.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict
        Names to tensors, or the nested state that was saved. Every dtype is kept but bfloat16,
        which NumPy does not have: its values are widened to float32, exactly.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is a pickle (says how to convert it), not complete, or no safetensors file.
    DTypeError
        If it holds numbers of a type that NumPy has not (8-bit floats).
    """
    safetensors = require("safetensors", extra="course", purpose="load a state dict")
    content, notes = _read(path)
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no safetensors file ({error})") from None
    tensors = {name: Tensor(_to_array(name, entry)) for name, entry in entries}
    structure = notes.get(STRUCTURE)
    return tensors if structure is None else _put_arrays(json.loads(structure), tensors)


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """What `save` was given as metadata; empty if nothing."""
    _, notes = _read(path)
    return {key: value for key, value in notes.items() if key != STRUCTURE}


# -- the state, its arrays apart ------------------------------------------------------------


def _take_arrays(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The state with references in place of its arrays, which are collected by name."""
    if isinstance(value, Tensor) or is_array(value):
        if name in arrays:
            raise ValueError(f"two arrays of the state would have the one name {name!r}")
        array = value.data if isinstance(value, Tensor) else value
        arrays[name] = np.ascontiguousarray(to_device(array, "cpu")).reshape(array.shape)
        return {_REFERENCE: name}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"keys must be strings, not {key!r} (in {name or 'the state'!r})")
        return {key: _take_arrays(v, _join(name, key), arrays) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_take_arrays(v, _join(name, str(i)), arrays) for i, v in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(
        f"{name!r} is a {_kind(value)}, which cannot be saved: only tensors, arrays, numbers, "
        "strings, booleans, None, and dicts and lists of them can"
    )


def _put_arrays(structure: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(structure, list):
        return [_put_arrays(value, tensors) for value in structure]
    if not isinstance(structure, dict):
        return structure
    if structure.keys() == {_REFERENCE}:
        return tensors[structure[_REFERENCE]]
    return {key: _put_arrays(value, tensors) for key, value in structure.items()}


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _kind(value: Any) -> str:
    hint = ": pass its .state_dict()" if hasattr(value, "state_dict") else ""
    return type(value).__name__ + hint


# -- the file -------------------------------------------------------------------------------
# 8 bytes: the length of the header; the header, JSON; then the numbers of all arrays.


def _read(path: str | os.PathLike) -> tuple[bytes, dict[str, str]]:
    """A file's content and metadata. Refuses a pickle and what is cut off, saying what to do."""
    content = Path(path).read_bytes()
    if content.startswith(_PICKLES):
        raise ValueError(
            f"{path} is a pickle (PyTorch's own format), which can run any code when it is opened. "
            "If you trust it, convert it once where PyTorch is installed: "
            "state = torch.load('model.pt', weights_only=True); "
            "safetensors.torch.save_file(state, 'model.safetensors')"
        )
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8:start]) if 8 < start <= len(content) else {}
        notes = header.pop("__metadata__", {})
        size = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged, or no safetensors file") from None
    if len(content) < size:
        raise ValueError(
            f"{path} is not complete, or no safetensors file: it should have {size:,} bytes and "
            f"has {len(content):,}. Save or download it again"
        )
    return content, notes


def _to_array(name: str, entry: Mapping[str, Any]) -> Array:
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?", "U8": "u1", "I8": "i1"}
    kinds |= {f"{k}{8 * size}": f"<{k.lower()}{size}" for k in "IU" for size in (2, 4, 8)}
    kind = entry["dtype"]
    if kind == "BF16":  # the upper half of a float32
        halves = np.frombuffer(entry["data"], "<u2").astype(np.uint32) << 16
        return halves.view(np.float32).reshape(entry["shape"])
    if kind not in kinds:
        raise DTypeError(
            f"{name!r} holds numbers of type {kind}, which NumPy does not have: convert them to "
            "float32 where the file was made"
        )
    return np.frombuffer(entry["data"], kinds[kind]).reshape(entry["shape"])


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
