"""A training in one file: enough to go on from there as if it had never stopped."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .engine import Tensor, default_generator
from .serialization import load, read_metadata, save

KIND = "minitorch_attn training"
_ANOTHER_NAME = "Choose another name for this one, or pass resume=False to overwrite it"


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from; the message says why, and what to do."""


class Checkpoint:
    """A file that holds a training at the end of an epoch.

    Model, optimiser, schedule, the states of all random generators, and the history go into one
    safetensors file, which is replaced in one step: whenever the program is killed, the file is a
    whole checkpoint, the new one or the one before.

    Parameters
    ----------
    path : path
        The file; its folder is made if need be.
    parts : mapping of str to object
        What has `state_dict()` and `load_state_dict()`: model, optimiser, schedule, loaders.
    settings : mapping of str to str, number or None
        What must be the same for the numbers to be the same; `restore` compares it.
    """

    def __init__(
        self, path: str | os.PathLike, parts: Mapping[str, Any], settings: Mapping[str, Any]
    ):
        self.path = Path(path)
        self.parts = parts
        self.settings = json.loads(json.dumps(settings))

    def save(self, history: Mapping[str, list[float]]) -> None:
        """Write the training as it stands, in place of the file that was there."""
        state = {
            "settings": self.settings,
            "history": dict(history),
            "generator": default_generator().bit_generator.state,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save(state, self.path, metadata={"kind": KIND, "crc32": str(_crc32(state))})

    def restore(self) -> dict[str, list[float]]:
        """Bring all parts and generators to where the file has them.

        Returns
        -------
        dict of str to list of float
            The history.

        Raises
        ------
        CheckpointError
            If the file is damaged, no checkpoint, or of a training with other settings or parts;
            nothing is changed then.
        """
        state = self._read()
        self._compare(state["settings"])
        self._load_all(state["parts"])
        default_generator().bit_generator.state = _arrays(state["generator"])
        for left_over in glob.glob(f"{glob.escape(str(self.path))}.*.part"):
            with contextlib.suppress(OSError):
                os.unlink(left_over)  # of a program that was killed while it saved
        return state["history"]

    def _load_all(self, states: dict[str, Any]) -> None:
        """Load the state of every part; if one does not fit, put back those before it."""
        if different := states.keys() ^ self.parts.keys():
            raise CheckpointError(
                f"{self.path} is of another training: only one of the two has a state for "
                f"{', '.join(sorted(different))}. {_ANOTHER_NAME}"
            )
        before = {name: part.state_dict() for name, part in self.parts.items()}
        for name, part in self.parts.items():
            try:
                part.load_state_dict(_arrays(states[name]))
            except Exception as error:
                for loaded, state in before.items():
                    self.parts[loaded].load_state_dict(state)
                raise CheckpointError(
                    f"cannot go on from the checkpoint {self.path}, its {name} does not fit: "
                    f"{error}\n{_ANOTHER_NAME}"
                ) from error

    def _read(self) -> dict[str, Any]:
        again = "delete it or pass resume=False to start anew"
        try:
            state, notes = load(self.path), read_metadata(self.path)
        except ValueError as error:
            raise CheckpointError(f"cannot go on from the checkpoint: {error}; {again}") from None
        if notes.get("kind") != KIND:
            raise CheckpointError(
                f"{self.path} is no checkpoint of a training (a model alone?): choose another name"
            )
        if notes.get("crc32") != str(_crc32(state)):
            raise CheckpointError(
                f"cannot go on from the checkpoint: {self.path} is damaged, its numbers do not "
                f"agree with their checksum; {again}"
            )
        return state

    def _compare(self, saved: dict[str, Any]) -> None:
        differences = [
            f"  {name}: {saved.get(name)} in the file, {self.settings.get(name)} here"
            for name in sorted(saved.keys() | self.settings.keys())
            if saved.get(name) != self.settings.get(name)
        ]
        if differences:
            raise CheckpointError(
                f"{self.path} is of another training:\n"
                + "\n".join(differences)
                + f"\n{_ANOTHER_NAME}"
            )


def _crc32(value: Any, crc: int = 0) -> int:
    """A checksum of a nested state: the same before it is saved and after it is loaded."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            crc = _crc32(value[key], zlib.crc32(key.encode(), crc))
        return crc
    if isinstance(value, (list, tuple)):
        for item in value:
            crc = _crc32(item, crc)
        return crc
    if isinstance(value, (Tensor, np.ndarray)):
        array = np.asarray(value.numpy() if isinstance(value, Tensor) else value)
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)  # as it is loaded
        return zlib.crc32(np.ascontiguousarray(array).tobytes(), crc)
    plain = value.item() if isinstance(value, np.generic) else value
    return zlib.crc32(repr(plain).encode(), crc)


def _arrays(value: Any) -> Any:
    """A loaded state with arrays in place of tensors, as states have them."""
    if isinstance(value, dict):
        return {key: _arrays(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_arrays(v) for v in value]
    return value.numpy() if isinstance(value, Tensor) else value
