"""The graph that a backward pass walks: nodes apart from tensors, numbered as they are made."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence, Set
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from . import mutation
from .backend import Array, as_array
from .dtypes import accumulator
from .errors import GraphError, ShapeError, explain
from .mutation import tick

if TYPE_CHECKING:
    from .anomaly import Inspector
    from .autocast import Precision
    from .tensor import Tensor


class Mode(threading.local):
    """What happens to the operations of this thread: recorded, inspected, in which precision."""

    recording = True
    inspector: Inspector | None = None
    autocast: Callable[[tuple, Precision], tuple] | None = None  # gives the inputs as cast


mode = Mode()


class Node:
    """A point of the graph where gradients meet: a recorded operation, or a leaf.

    A node holds its input nodes and what its rules captured, never the tensors in between: an
    activation that no rule needs is freed as soon as the program lets go of it. The number grows
    with every node, so it orders the graph: an input's number is the smaller one.

    Attributes
    ----------
    name : str
        The operation's, or ``"leaf"``.
    edges : sequence of (Node, rule), or None
        One edge for each input that needs a gradient: its node, and the rule that carries the
        gradient there. Empty for a leaf, None once a backward pass has released it.
    shape, dtype
        Of the array that was computed: its gradient has the same.
    number : int
        When the node was made.
    target : weak reference to Tensor, or None
        The tensor whose `.grad` takes the gradient that meets here: a leaf, or one that asked
        for it with `retain_grad()`.
    """

    __slots__ = ("__weakref__", "dtype", "edges", "name", "number", "shape", "target")

    def __init__(self, name: str, edges: Sequence[tuple[Node, Callable]], y: Array):
        self.name = name
        self.edges: Sequence[tuple[Node, Callable]] | None = edges
        self.shape = y.shape
        self.dtype = y.dtype
        self.number = tick()
        self.target: weakref.ref[Tensor] | None = None


def gradients(
    root: Node, dy: Array, retain_graph: bool = False, wanted: Set[Node] = frozenset()
) -> dict[Node, Array]:
    """Carry a gradient from a node back to every leaf: the reverse pass.

    The node with the largest number goes first. Every operation that used its output has a larger
    number still, so by then all of them have added their share to its gradient: each node is
    visited once, and no recursion is needed however deep the graph is.

    Parameters
    ----------
    root : Node
        The operation that made the tensor to differentiate.
    dy : array
        Gradient of the result with respect to that tensor, of its shape and dtype.
    retain_graph : bool
        Keep what the rules hold, so that a second pass can follow.
    wanted : set of Node
        Nodes whose gradient to return besides those that have a target.

    Returns
    -------
    dict of Node to array
        The gradients that met there. An array may be shared between entries.

    Raises
    ------
    GraphError
        If a previous pass released the graph, or an array that a rule holds was overwritten.
    ShapeError
        If a rule returns a gradient that does not have its input's shape.
    """
    arrived = {root: dy}
    order = [(-root.number, root)]  # a heap: the largest number comes first
    found = {}
    kind, inspector = type(dy), mode.inspector
    while order:
        _, node = heappop(order)
        dy = arrived.pop(node)
        if node.edges is None or node.number < mutation.last_write:
            _check_usable(node)
        if node.target is not None or node in wanted:
            found[node] = dy
        for source, rule in node.edges:  # type: ignore[union-attr]
            try:
                dx = rule(dy)
            except (ValueError, TypeError, IndexError) as error:
                raise explain(error, f"the backward of {node.name!r}", [dy]) from error
            if type(dx) is not kind or dx.shape != source.shape or dx.dtype is not source.dtype:
                dx = _fit(dx, source, node.name)
            if inspector is not None:
                inspector.after_rule(node, dx, dy)
            if source in arrived:
                arrived[source] = as_array(arrived[source] + dx)
            else:
                arrived[source] = dx
                heappush(order, (-source.number, source))
        if node.edges and not retain_graph:
            node.edges = None
    return found


def sum_to_shape(dy: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: sum over the axes that were added, and over those that were 1.

    Copying a value to k places makes its gradient the sum of the k places' gradients. Half
    precision is summed, and returned, in float32.

    Raises
    ------
    ShapeError
        If `shape` does not broadcast to the shape of `dy`.
    """
    added = dy.ndim - len(shape)
    if added < 0 or any(n not in (1, m) for n, m in zip(shape, dy.shape[added:], strict=True)):
        raise ShapeError(f"{shape} does not broadcast to {dy.shape}")
    stretched = [added + i for i, n in enumerate(shape) if n == 1]
    total = dy.sum(axis=(*range(added), *stretched), dtype=accumulator(dy.dtype))
    return total.reshape(shape)


def _check_usable(node: Node) -> None:
    if node.edges is None:
        raise GraphError(
            f"the graph behind {node.name!r} was released by an earlier backward(): compute the "
            "result again, or call the first backward(retain_graph=True)"
        )
    if any(mutation.overwritten(rule, since=node.number) for _, rule in node.edges):
        raise GraphError(
            f"{node.name!r} saved an array for its backward pass, and a tensor that shares its "
            "memory was changed in place afterwards: change a copy (x.clone()), or change it "
            "after backward()"
        )


def _fit(dx: Any, source: Node, op: str) -> Array:
    """What a rule returned, as an array of its input's shape and dtype."""
    dx = as_array(dx, f"a rule of {op!r}")
    if dx.shape != source.shape:
        try:
            dx = sum_to_shape(dx, source.shape)
        except ShapeError:
            raise ShapeError(
                f"a rule of {op!r} returned a gradient of shape {dx.shape} for an input of shape "
                f"{source.shape}: a gradient has the shape of its input"
            ) from None
    return dx.astype(source.dtype, copy=False)
