"""Finding where the first value that is not a number came from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from .backend import Array, array_module, is_array
from .errors import AnomalyError
from .graph import mode


class Inspector:
    """Looks at the output of every operation and rule, and remembers which layer is running."""

    def __init__(self) -> None:
        self.layers: list[str] = []
        self.first_infinity = ""

    def after_op(self, op: str, y: Array, inputs: Sequence[Any]) -> None:
        """Called with every operation's output and inputs."""
        self._judge(f"the forward of {op!r}", y, inputs)

    def after_rule(self, op: str, dx: Array, dy: Array) -> None:
        """Called with every rule's gradient, and the gradient that came in."""
        self._judge(f"the backward of {op!r}", dx, [dy])

    def _judge(self, where: str, result: Array, inputs: Sequence[Any]) -> None:
        layer = f" in layer {'.'.join(self.layers)}" if self.layers else ""
        if _has(result, "isnan"):
            source = "NaN inputs" if any(_has(x, "isnan") for x in inputs) else "inputs without NaN"
            infinity = f"; the first infinity came from {self.first_infinity}"
            raise AnomalyError(
                f"{where}{layer} produced NaN from {source}"
                + (infinity if self.first_infinity else "")
            )
        if not self.first_infinity and _has(result, "isinf"):
            if not any(_has(x, "isinf") for x in inputs):
                self.first_infinity = f"{where}{layer}"


@contextlib.contextmanager
def detect_anomaly() -> Iterator[Inspector]:
    """Raise where the first NaN arises, naming the operation and the layer.

    Every result is searched, so operations are slower inside; use it to find a fault.

    Raises
    ------
    AnomalyError
        From the operation, or the backward rule, that first gave a NaN.
    """
    before, mode.inspector = mode.inspector, Inspector()
    try:
        yield mode.inspector
    finally:
        mode.inspector = before


@contextlib.contextmanager
def inside_layer(name: str) -> Iterator[None]:
    """Tell the running inspector, if any, that the operations inside belong to a layer."""
    if mode.inspector is None:
        yield
        return
    mode.inspector.layers.append(name)
    try:
        yield
    finally:
        mode.inspector.layers.pop()


def _has(value: Any, test: str) -> bool:
    if not is_array(value) or value.dtype.kind != "f":
        return False
    return bool(getattr(array_module(value), test)(value).any())
