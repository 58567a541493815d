"""The computational graph behind a tensor, drawn: what was computed from what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine import GraphError, Tensor, sum_to_shape
from ..engine.graph import Node
from ..engine.optional import require
from .layout import Layout, layered_layout
from .style import BLUE, GREEN, GREY, VERMILION, WIDTH, new_figure, styled

LARGEST = 200  # boxes: beyond, neither the eye nor the layout follows
FEW, LONGEST = 4, 24  # elements, and characters, of values that are written out
TEXT, SMALL = 10.0, 9.0  # font sizes in points
PADDING = 0.09  # inches between a text and its box


@dataclass
class Box:
    """One box of the picture.

    Attributes
    ----------
    kind : {"leaf", "operation", "output"}
    title : str
        What stands in it: a tensor's name, or an operation's.
    notes : list of (text, colour)
        Lines below the title.
    """

    kind: str
    title: str
    notes: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Arrow:
    """One arrow: from the box that makes a value to the one that uses it, with its label."""

    source: int
    target: int
    lines: list[tuple[str, str]]


@styled
def draw_graph(
    output: Tensor,
    *,
    names: Mapping[str, Tensor] | None = None,
    values: bool = False,
    gradients: bool = False,
    direction: str | None = None,
) -> Any:
    """Draw the graph that `output.backward()` would walk.

    A box with square corners is an operation, one with round corners a tensor. Shapes stand in
    the leaves and at the arrows from operations; without one it is a single number. Only what
    needs a gradient is recorded, so constants do not appear.

    Parameters
    ----------
    output : Tensor
        A computed tensor.
    names : mapping of str to Tensor
        Names for leaves, and for computed tensors, whose name then stands at their operation;
        `dict(model.named_parameters())` names a module's.
    values : bool
        Write the values of the leaves, of the named tensors and of the output, if they are few.
    gradients : bool
        Carry a gradient of 1 back from the output and write on each arrow what comes back along
        it, and in each leaf the sum; larger arrays are given by their norm. `.grad` is untouched.
    direction : {"right", "down"}, optional
        Of the flow; by default to the right where that fits the width of a notebook.

    Returns
    -------
    Figure

    Raises
    ------
    GraphError
        If nothing was recorded, `backward()` has released the graph, or it has more than 200
        boxes.

    Examples
    --------
    >>> x = mt.tensor([1.0, 2.0], requires_grad=True)
    >>> w = mt.tensor(3.0, requires_grad=True)
    >>> y = (w * x).sum()
    >>> draw_graph(y, names={"x": x, "w": w, "y": y}, values=True, gradients=True)
    """
    boxes, arrows = read_graph(output, names=names, values=values, gradients=gradients)
    if direction is None:
        direction = "right"
        layout = _lay_out(boxes, arrows, direction)
        if layout.length > WIDTH:
            direction = "down"
    if direction not in ("right", "down"):
        raise ValueError(f"direction is {direction!r}: choose 'right' or 'down'")
    return _draw(boxes, arrows, _lay_out(boxes, arrows, direction), direction)


def read_graph(
    output: Tensor,
    *,
    names: Mapping[str, Tensor] | None = None,
    values: bool = False,
    gradients: bool = False,
) -> tuple[list[Box], list[Arrow]]:
    """What `draw_graph` draws, as data: the boxes, and the arrows by index of box."""
    nodes = recorded_nodes(output)
    named = {tensor._node: (name, tensor) for name, tensor in (names or {}).items()}
    arrived, flows = _carry_back(nodes, np.ones(output.shape)) if gradients else ({}, {})
    index = {node: i for i, node in enumerate(nodes)}
    boxes, arrows = [], []
    for node in nodes:
        name, tensor = named.get(node, ("", None))
        if node.edges == ():
            tensor = node.target() if node.target else None
            box = Box("leaf", name or "leaf", _notes(node.shape, tensor if values else None))
            box.notes += _labels((), arrived.get(node))
        else:
            box = Box("operation", node.name)
            if tensor is not None and node is not output._node:
                known = _written_out(tensor.numpy()) if values else ""
                box.notes.append((f"{name} = {known}" if known else name, GREEN))
        boxes.append(box)
        for i, (source, _) in enumerate(node.edges or ()):
            shape = source.shape if source.edges else ()  # a leaf's stands in its box
            lines = _labels(shape, flows.get((node, i)))
            arrows.append(Arrow(index[source], index[node], lines))
    name, _ = named.get(output._node, ("output", None))
    boxes.append(Box("output", name, _notes(output.shape, output if values else None)))
    lines = _labels(output.shape, arrived.get(output._node))
    arrows.append(Arrow(len(boxes) - 2, len(boxes) - 1, lines))
    return boxes, arrows


def recorded_nodes(output: Tensor) -> list[Node]:
    """Every node behind a tensor: the leaves, then the operations in the order they were run."""
    if output._node is None or output.is_leaf:
        raise GraphError(
            "draw_graph found no graph behind this tensor: it was not computed from a tensor with "
            "requires_grad=True, or it was computed in no_grad()"
        )
    found, waiting = set(), [output._node]
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        if node.edges is None:
            raise GraphError(
                f"the graph behind {node.name!r} was released by backward(): draw it before, or "
                "call backward(retain_graph=True)"
            )
        found.add(node)
        if len(found) > LARGEST:
            raise GraphError(
                f"this graph has more than {LARGEST} operations and leaves: draw a part of it, "
                "for example one layer on a small input"
            )
        waiting.extend(source for source, _ in node.edges)
    return sorted(found, key=lambda node: (node.edges != (), node.number))


def _carry_back(nodes: list[Node], dy: np.ndarray) -> tuple[dict, dict]:
    """What arrives at every node, and along each of its edges: (node, number of edge)."""
    arrived, flows = {nodes[-1]: dy}, {}
    for node in reversed(nodes):
        for i, (source, rule) in enumerate(node.edges or ()):
            dx = np.asarray(rule(arrived[node]))
            dx = dx if dx.shape == source.shape else sum_to_shape(dx, source.shape)
            flows[node, i] = dx
            arrived[source] = arrived.get(source, 0) + dx
    return arrived, flows


def _notes(shape: tuple[int, ...], tensor: Tensor | None) -> list[tuple[str, str]]:
    """A tensor's value if it is wanted and short, else its shape."""
    value = _written_out(tensor.numpy()) if tensor is not None else ""
    return [(value, "black")] if value else _labels(shape)


def _labels(shape: tuple[int, ...], gradient: Any = None) -> list[tuple[str, str]]:
    lines = [(f"{shape}", GREY)] if shape else []
    return lines if gradient is None else [*lines, (f"grad {_short(gradient)}", VERMILION)]


def _short(array: Any) -> str:
    array = np.asarray(array)
    return _written_out(array) or f"norm {np.sqrt((array.astype(float) ** 2).sum()):.2g}"


def _written_out(array: np.ndarray) -> str:
    """The values on one line, or nothing if that were long."""
    if array.size > FEW:
        return ""
    text = np.array2string(array, formatter={"float": lambda value: f"{value:.3g}"})
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else ""


# -- drawing ------------------------------------------------------------------------------


def _text_size(lines: list[tuple[str, float]]) -> tuple[float, float]:
    """Width and height in inches of lines of (text, font size)."""
    textpath = require("matplotlib.textpath", extra="course", purpose="draw a graph")
    widths = [
        textpath.TextPath((0, 0), text, size=size).get_extents().width for text, size in lines
    ]
    return max(widths, default=0.0) / 72, sum(1.3 * size for _, size in lines) / 72


def _box_size(box: Box) -> tuple[float, float]:
    width, height = _text_size([(box.title, TEXT), *((text, SMALL) for text, _ in box.notes)])
    return max(width + 2 * PADDING, 0.45), height + 1.2 * PADDING


def _turned(size: tuple[float, float], direction: str) -> tuple[float, float]:
    """(width, height) as (along, across) the flow."""
    return size if direction == "right" else (size[1], size[0])


def _lay_out(boxes: list[Box], arrows: list[Arrow], direction: str) -> Layout:
    sizes: dict[Any, tuple[float, float]] = {
        i: _turned(_box_size(box), direction) for i, box in enumerate(boxes)
    }
    labels = [
        _turned(_text_size([(text, SMALL) for text, _ in arrow.lines]), direction)
        for arrow in arrows
    ]
    edges = [(a.source, a.target) for a in arrows]
    return layered_layout(sizes, edges, labels, gap=(0.2 if direction == "right" else 0.15, 0.2))


def _draw(boxes: list[Box], arrows: list[Arrow], layout: Layout, direction: str) -> Any:
    margin = 0.06

    def at(point: tuple[float, float]) -> tuple[float, float]:
        along, across = point[0] + margin, point[1] + margin
        return (along, across) if direction == "right" else (across, along)

    # Whole tenths of an inch, so that the size does not hang on the last digit of a font's width.
    needed = at((layout.length + margin, layout.breadth + margin))
    width, height = (np.ceil(10 * extent) / 10 for extent in needed)
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    ports = _ports(boxes, arrows, layout, direction)
    for arrow, route, (start, end) in zip(arrows, layout.routes, ports):
        _draw_arrow(ax, arrow, [start, *_through_layers(route, layout), end], route[0], at)
    for i, box in enumerate(boxes):
        _draw_box(ax, box, at(layout.places[i]))
    return figure


def _ports(
    boxes: list[Box], arrows: list[Arrow], layout: Layout, direction: str
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Where each arrow leaves its box and enters the next, spread so that tips stay apart."""
    extent = [_turned(_box_size(box), direction) for box in boxes]
    for i, arrow in enumerate(arrows):
        along, across = layout.places[arrow.source]
        start = (along + extent[arrow.source][0] / 2, across)
        entering = [j for j, other in enumerate(arrows) if other.target == arrow.target]
        entering.sort(key=lambda j: layout.routes[j][-1][1])
        along, across = layout.places[arrow.target]
        room = min(0.5 * extent[arrow.target][1], 0.16 * (len(entering) - 1))
        share = entering.index(i) / max(len(entering) - 1, 1) - 0.5
        yield start, (along - extent[arrow.target][0] / 2, across + share * room)


def _through_layers(route: list[tuple[float, float]], layout: Layout) -> list[tuple[float, float]]:
    """The points where an arrow enters and leaves each layer that it passes straight."""
    points = []
    for along, across in route:
        start, end = next(layer for layer in layout.layers if layer[0] <= along <= layer[1])
        points += [(start, across), (end, across)]
    return points


def _draw_arrow(ax: Any, arrow: Arrow, points: list, label: tuple[float, float], at: Any) -> None:
    patches = require("matplotlib.patches", extra="course", purpose="draw a graph")
    path = require("matplotlib.path", extra="course", purpose="draw a graph").Path
    vertices, codes = [at(points[0])], [path.MOVETO]
    for (a, p), (b, q) in zip(points, points[1:]):
        middle = (a + b) / 2
        vertices += [at((middle, p)), at((middle, q)), at((b, q))]
        codes += [path.CURVE4] * 3
    ax.add_patch(
        patches.FancyArrowPatch(
            path=path(vertices, codes),
            arrowstyle="-|>,head_length=5,head_width=2.5",
            color=GREY,
            linewidth=1.1,
            shrinkA=0,
            shrinkB=0,
            zorder=1,
        )
    )
    lines = [(text, SMALL, colour) for text, colour in arrow.lines]
    _draw_lines(ax, lines, at(label), background="white")


def _draw_box(ax: Any, box: Box, centre: tuple[float, float]) -> None:
    patches = require("matplotlib.patches", extra="course", purpose="draw a graph")
    edge, face, corner = {
        "leaf": (BLUE, "#E3F0F8", 0.12),
        "operation": (GREY, "#F6F2E6", 0.0),
        "output": (GREEN, "#E2F3ED", 0.12),
    }[box.kind]
    width, height = _box_size(box)
    style = f"round,pad=0,rounding_size={corner}" if corner else "square,pad=0"
    left, top = centre[0] - width / 2, centre[1] - height / 2
    ax.add_patch(
        patches.FancyBboxPatch(
            (left, top), width, height, boxstyle=style, edgecolor=edge, facecolor=face, zorder=2
        )
    )
    lines = [(box.title, TEXT, "black"), *((text, SMALL, colour) for text, colour in box.notes)]
    _draw_lines(ax, lines, centre)


def _draw_lines(
    ax: Any,
    lines: list[tuple[str, float, str]],
    centre: tuple[float, float],
    background: str | None = None,
) -> None:
    heights = [1.3 * size / 72 for _, size, _ in lines]
    top = centre[1] - sum(heights) / 2
    box = {"facecolor": background, "edgecolor": "none", "pad": 1} if background else None
    for (text, size, colour), height in zip(lines, heights):
        ax.text(
            centre[0],
            top + height / 2,
            text,
            size=size,
            color=colour,
            ha="center",
            va="center",
            bbox=box,
            zorder=3,
        )
        top += height
