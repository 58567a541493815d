"""What differs between a module and a state dict, in words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

SHOWN = 8  # names per kind of difference; a wrong file can differ in hundreds


class IncompatibleKeys(NamedTuple):
    """Names that only the module has, and names that only the state dict has."""

    missing_keys: list[str]
    unexpected_keys: list[str]


@dataclass
class Difference:
    """Names on one side only, and lines about shapes that disagree."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    def problems(self, strict: bool) -> list[str]:
        """What stands in the way of loading, a line each."""
        missing = [f"missing: {name!r}{self._near(name)}" for name in self.missing[:SHOWN]]
        unexpected = [f"unexpected: {name!r}" for name in self.unexpected[:SHOWN]]
        if not strict:
            return _cut(self.misshapen[:SHOWN], self.misshapen)
        return [
            *_cut(missing, self.missing),
            *_cut(unexpected, self.unexpected),
            *_cut(self.misshapen[:SHOWN], self.misshapen),
        ]

    def _near(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.unexpected, n=1)
        return f" (is it the unexpected {near[0]!r}?)" if near else ""


def compare(own: Mapping[str, Any], given: Mapping[str, Any]) -> Difference:
    """Compare the tensors a module has with those of a state dict."""
    return Difference(
        missing=[name for name in own if name not in given],
        unexpected=[name for name in given if name not in own],
        misshapen=[
            f"shape: {name!r} needs {tensor.shape}, the state dict has {given[name].shape}"
            for name, tensor in own.items()
            if name in given and tensor.shape != given[name].shape
        ],
    )


def _cut(shown: list[str], all_of_them: list[str]) -> list[str]:
    more = len(all_of_them) - len(shown)
    return [*shown, f"... and {more} more"] if more else shown
