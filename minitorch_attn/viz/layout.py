"""Where to put the boxes of a graph so that its arrows can be followed: a layered layout.

After Sugiyama, Tagawa and Toda (1981): boxes go into layers along the direction of flow, an arrow
that passes a layer gets an empty place in it, the order inside the layers is chosen so that few
arrows cross, and places are then pulled straight.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

Key = Hashable


@dataclass
class Layout:
    """Places found for boxes and arrows, in the units of their sizes.

    Attributes
    ----------
    places : dict of key -> (along, across)
        Centre of every box: `along` grows with the flow.
    routes : list of list of (along, across)
        For every edge the centres of the places it passes between its two boxes, in order.
    layers : list of (start, end)
        Extent of each layer along the flow.
    length, breadth : float
        Extent of the whole along and across the flow.
    """

    places: dict[Key, tuple[float, float]] = field(default_factory=dict)
    routes: list[list[tuple[float, float]]] = field(default_factory=list)
    layers: list[tuple[float, float]] = field(default_factory=list)
    length: float = 0.0
    breadth: float = 0.0


def layered_layout(
    sizes: dict[Key, tuple[float, float]],
    edges: Sequence[tuple[Key, Key]],
    labels: Sequence[tuple[float, float]],
    *,
    gap: tuple[float, float],
) -> Layout:
    """Lay out a graph without cycles.

    Parameters
    ----------
    sizes : dict of key -> (along, across)
        Extent of every box.
    edges : sequence of (source key, target key)
        Arrows; several may join the same boxes.
    labels : sequence of (along, across)
        For every edge the extent of its label, which is placed halfway: `routes[i]` holds its
        centre as the first of its points.
    gap : (along, across)
        Space between layers, and between neighbours in a layer.

    Returns
    -------
    Layout
        Boxes stand in even layers, labels in odd ones.
    """
    sizes = dict(sizes)
    layer_of = _layers(sizes, edges)
    chains: list[list[Key]] = []
    for i, (source, target) in enumerate(edges):
        first, last = layer_of[source] + 1, layer_of[target]
        chain: list[Key] = [("via", i, layer) for layer in range(first, last)]
        for layer, via in zip(range(first, last), chain):
            layer_of[via], sizes[via] = layer, (0.0, 0.0)
        sizes[chain[0]] = labels[i]
        chains.append(chain)
    links = [
        link
        for (source, target), chain in zip(edges, chains)
        for link in zip([source, *chain], [*chain, target])
    ]
    order = _order(layer_of, links)
    across = _straighten(order, links, sizes, gap[1])
    return _assemble(order, across, sizes, gap[0], chains)


def _layers(sizes: dict[Key, tuple], edges: Sequence[tuple[Key, Key]]) -> dict[Key, int]:
    """Even layers counted from the start; every box stands as late as what it feeds allows."""
    targets: dict[Key, list[Key]] = {key: [] for key in sizes}
    for source, target in edges:
        targets[source].append(target)
    to_end: dict[Key, int] = {}

    def steps_to_end(key: Key) -> int:
        if key not in to_end:
            to_end[key] = 1 + max((steps_to_end(t) for t in targets[key]), default=-1)
        return to_end[key]

    longest = max(steps_to_end(key) for key in sizes)
    return {key: 2 * (longest - to_end[key]) for key in sizes}


def _neighbours(links: list[tuple[Key, Key]], reverse: bool) -> dict[Key, list[Key]]:
    found: dict[Key, list[Key]] = {}
    for source, target in links:
        key, neighbour = (source, target) if reverse else (target, source)
        found.setdefault(key, []).append(neighbour)
    return found


def _order(layer_of: dict[Key, int], links: list[tuple[Key, Key]]) -> list[list[Key]]:
    """Order each layer by the mean place of its neighbours, forth and back; keep the best."""
    order: list[list[Key]] = [[] for _ in range(1 + max(layer_of.values()))]
    for key, layer in layer_of.items():
        order[layer].append(key)
    best, fewest = list(order), _crossings(order, links)
    for sweep in range(24):
        backward = sweep % 2 == 0
        neighbours = _neighbours(links, backward)
        place = {key: j for row in order for j, key in enumerate(row)}
        layers = range(len(order))
        for i in reversed(layers) if backward else layers:
            wanted = {
                key: np.mean([place[n] for n in neighbours.get(key, [key])]) for key in order[i]
            }
            order[i] = sorted(order[i], key=wanted.__getitem__)
            place.update((key, j) for j, key in enumerate(order[i]))
        crossings = _crossings(order, links)
        if crossings < fewest:
            best, fewest = list(order), crossings
    return best


def _crossings(order: list[list[Key]], links: list[tuple[Key, Key]]) -> int:
    place = {key: (i, j) for i, row in enumerate(order) for j, key in enumerate(row)}
    by_layer: dict[int, list[tuple[int, int]]] = {}
    for source, target in links:
        by_layer.setdefault(place[source][0], []).append((place[source][1], place[target][1]))
    return sum(
        (a[0] - b[0]) * (a[1] - b[1]) < 0
        for pairs in by_layer.values()
        for n, a in enumerate(pairs)
        for b in pairs[:n]
    )


def _straighten(
    order: list[list[Key]], links: list[tuple[Key, Key]], sizes: dict[Key, tuple], gap: float
) -> dict[Key, float]:
    """Pull every place towards the mean of its neighbours, as far as the gaps allow."""
    distances = [
        [(sizes[a][1] + sizes[b][1]) / 2 + gap for a, b in zip(row, row[1:])] for row in order
    ]
    across: dict[Key, float] = {key: 0.0 for row in order for key in row}
    for sweep in range(40):
        backward = sweep % 2 == 0  # ends forward: arrows run straight out of boxes
        neighbours = _neighbours(links, backward)
        layers = range(len(order))
        for i in reversed(layers) if backward else layers:
            wanted = [
                float(np.mean([across[n] for n in neighbours.get(key, [key])])) for key in order[i]
            ]
            across.update(zip(order[i], spread_apart(wanted, distances[i])))
    return across


def spread_apart(wanted: Sequence[float], distances: Sequence[float]) -> list[float]:
    """The places closest to the wanted ones (least squares) in the same order and far enough apart.

    With the distances subtracted this is the regression of a sequence that may not fall, solved
    by pooling neighbours that violate it.

    Parameters
    ----------
    wanted : sequence of float
        n places.
    distances : sequence of float
        The n - 1 least distances between neighbours.

    Returns
    -------
    list of float
    """
    offsets = np.concatenate([[0.0], np.cumsum(distances)])
    pools: list[list[float]] = []  # [mean, count]
    for value in np.asarray(wanted) - offsets:
        pools.append([float(value), 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    levels = np.concatenate([np.full(int(count), mean) for mean, count in pools])
    return [float(place) for place in levels + offsets]


def _assemble(
    order: list[list[Key]],
    across: dict[Key, float],
    sizes: dict[Key, tuple],
    gap: float,
    chains: list[list[Key]],
) -> Layout:
    layout, start = Layout(), 0.0
    along: dict[Key, float] = {}
    for row in order:
        end = start + max(sizes[key][0] for key in row)
        layout.layers.append((start, end))
        along.update((key, (start + end) / 2) for key in row)
        start = end + gap
    lowest = min(across[key] - sizes[key][1] / 2 for key in sizes)
    highest = max(across[key] + sizes[key][1] / 2 for key in sizes)
    point = {key: (along[key], across[key] - lowest) for key in sizes}
    via = {key for chain in chains for key in chain}
    layout.places = {key: place for key, place in point.items() if key not in via}
    layout.routes = [[point[key] for key in chain] for chain in chains]
    layout.length, layout.breadth = layout.layers[-1][1], highest - lowest
    return layout
