"""The graph that a backward pass walks: nodes apart from tensors, numbered as they are made."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from . import mutation
from .backend import Array
from .errors import GraphError, ShapeError

if TYPE_CHECKING:
    from .tensor import Tensor

next_number = itertools.count(1).__next__  # the clock of the graph: nodes and in-place writes

# An edge leads from a node to one of its inputs: (node or leaf tensor, rule, shape, dtype).
Edge = tuple[Any, Callable, tuple[int, ...], Any]


class Mode(threading.local):
    """What happens to operations in this thread: recorded or not, inspected or not."""

    recording = True
    inspector: Any = None


mode = Mode()


class Node:
    """One recorded operation: its name, its number, and a rule for each input that needs one.

    A node holds its input nodes and what its rules captured, never the tensors in between:
    an activation that no rule needs is freed as soon as the program lets go of it. The number
    grows with every node, so it orders the graph: an input's number is the smaller one.
    """

    __slots__ = ("edges", "name", "number", "retained_by")

    def __init__(self, name: str, edges: tuple[Edge, ...]):
        self.name = name
        self.edges: tuple[Edge, ...] | None = edges
        self.number = next_number()
        self.retained_by: weakref.ref[Tensor] | None = None


def gradients(root: Node, dy: Array, retain_graph: bool = False) -> list[tuple[Tensor, Array]]:
    """Carry a gradient from a node back to every leaf: the reverse pass.

    The node with the largest number goes first. All operations that used its output have larger
    numbers still, so by then they have all added their share to its gradient: each node is
    visited once, and no recursion is needed however deep the graph is.

    Parameters
    ----------
    root : Node
        The operation that made the tensor to differentiate.
    dy : array
        Gradient of the result with respect to that tensor, of its shape.
    retain_graph : bool
        Keep what the rules hold, so that a second pass can follow.

    Returns
    -------
    list of (leaf tensor, gradient array)
        One entry per leaf; an array may be shared between entries.

    Raises
    ------
    GraphError
        If a previous pass released the graph, or an array that a rule holds was overwritten.
    """
    waiting = {root.number: (root, dy)}
    numbers = [-root.number]  # a heap, negated: heappop gives the largest number
    leaves: dict[int, tuple[Tensor, Array]] = {}
    inspector = mode.inspector
    while numbers:
        node, dy = waiting.pop(-heappop(numbers))
        if node.edges is None or node.number < mutation.last_write:
            _check_usable(node)
        if node.retained_by is not None:
            _retain(node, dy)
        for source, rule, shape, dtype in node.edges:  # type: ignore[union-attr]
            dx = rule(dy)
            if inspector is not None:
                inspector.after_rule(node.name, dx, dy)
            if dx.shape != shape or dx.dtype != dtype:
                dx = _fit(dx, shape, dtype, node.name)
            if type(source) is not Node:
                leaf, total = leaves.get(id(source), (source, None))
                leaves[id(source)] = (leaf, dx if total is None else total + dx)
            elif source.number in waiting:
                waiting[source.number] = (source, waiting[source.number][1] + dx)
            else:
                waiting[source.number] = (source, dx)
                heappush(numbers, -source.number)
        if not retain_graph:
            node.edges = None
    return list(leaves.values())


def sum_to_shape(dy: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: sum over the axes that were added, and over those that were 1.

    Copying a value to k places makes its gradient the sum of the k places' gradients.

    Raises
    ------
    ShapeError
        If `shape` does not broadcast to the shape of `dy`.
    """
    added = dy.ndim - len(shape)
    if added < 0 or any(n not in (1, m) for n, m in zip(shape, dy.shape[added:], strict=True)):
        raise ShapeError(f"{shape} does not broadcast to {dy.shape}")
    stretched = [added + i for i, n in enumerate(shape) if n == 1]
    return dy.sum(axis=(*range(added), *stretched)).reshape(shape)


def _check_usable(node: Node) -> None:
    if node.edges is None:
        raise GraphError(
            f"the graph behind {node.name!r} was released by an earlier backward(): compute the "
            "result again, or call the first backward(retain_graph=True)"
        )
    for _, rule, _, _ in node.edges:
        if mutation.overwritten(rule, since=node.number):
            raise GraphError(
                f"{node.name!r} saved an array for its backward pass, and a tensor that shares its "
                "memory was changed in place afterwards: change a copy (x.clone()), or change it "
                "after backward()"
            )


def _fit(dx: Array, shape: tuple[int, ...], dtype: Any, op: str) -> Array:
    """A rule's gradient in the shape and dtype of its input."""
    if dx.shape != shape:
        try:
            dx = sum_to_shape(dx, shape)
        except ShapeError:
            raise ShapeError(
                f"a rule of {op!r} returned a gradient of shape {dx.shape} for an input "
                f"of shape {shape}: a gradient has the shape of its input"
            ) from None
    return dx.astype(dtype, copy=False)


def _retain(node: Node, dy: Array) -> None:
    tensor = node.retained_by() if node.retained_by is not None else None
    if tensor is not None:
        tensor.accumulate_grad(dy)
