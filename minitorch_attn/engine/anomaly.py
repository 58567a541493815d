"""Finding where the first value that is not a number came from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from .backend import Array
from .dtypes import is_floating
from .errors import AnomalyError
from .graph import Node, mode

if TYPE_CHECKING:
    from .tensor import Tensor


Watcher = TypeVar("Watcher", bound="Inspector")


class Inspector:
    """Looks at what every operation and rule returns, and remembers which layer each belongs to."""

    def __init__(self) -> None:
        self.layers: list[str] = []  # those that are running, from the outermost
        self.first_infinity = ""
        self._layer_of: WeakKeyDictionary[Node, str] = WeakKeyDictionary()

    def after_op(
        self, op: str, output: Tensor, inputs: Sequence[Any], settings: Mapping[str, Any]
    ) -> None:
        """Called with every operation's output, the arrays and numbers it was given, and how."""
        layer = ".".join(self.layers)
        if output._node is not None:
            self._layer_of[output._node] = layer
        self._judge(_place("forward", op, layer), output._data, inputs)

    def after_rule(self, node: Node, dx: Array, dy: Array) -> None:
        """Called with every rule's gradient, and the gradient that came in."""
        layer = self._layer_of.get(node, "")
        self._judge(_place("backward", node.name, layer), dx, [dy])

    def _judge(self, place: str, result: Array, inputs: Sequence[Any]) -> None:
        if _has(np.isnan, result):
            source = (
                "NaN inputs" if any(_has(np.isnan, x) for x in inputs) else "inputs without NaN"
            )
            infinity = f"; the first infinity came from {self.first_infinity}"
            raise AnomalyError(
                f"{place} produced NaN from {source}" + (infinity if self.first_infinity else "")
            )
        if not self.first_infinity and _has(np.isinf, result):
            if not any(_has(np.isinf, x) for x in inputs):
                self.first_infinity = place


@contextlib.contextmanager
def detect_anomaly() -> Iterator[Inspector]:
    """Raise where the first NaN arises, naming the operation and the layer.

    Every result is searched, so operations are slower inside; use it to find a fault.

    Raises
    ------
    AnomalyError
        From the operation, or the backward rule, that first gave a NaN.
    """
    with inspecting(Inspector()) as inspector:
        yield inspector


@contextlib.contextmanager
def inspecting(inspector: Watcher) -> Iterator[Watcher]:
    """Show every operation of this thread to an inspector."""
    before, mode.inspector = mode.inspector, inspector
    try:
        yield inspector
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


def _place(direction: str, op: str, layer: str) -> str:
    return f"the {direction} of {op!r}" + (f" in layer {layer!r}" if layer else "")


def _has(test: Callable[[Any], Any], value: Any) -> bool:
    floating = isinstance(value, float) or is_floating(getattr(value, "dtype", np.dtype(int)))
    return floating and bool(test(value).any().item())
