import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitorch_attn.viz.layout import layered_layout, spread_apart

GAP = (0.5, 0.25)


def lay_out(count, edges):
    return layered_layout(
        {i: (1.0, 1.0 + i % 3) for i in range(count)}, edges, [(0.6, 0.3)] * len(edges), gap=GAP
    )


@st.composite
def graphs(draw):
    """A graph whose every box has a way to the last one, as in a reverse pass."""
    count = draw(st.integers(2, 12))
    edges = []
    for i in range(count - 1):
        targets = st.lists(st.integers(i + 1, count - 1), min_size=1, max_size=3)
        edges += [(i, target) for target in draw(targets)]
    return count, edges


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_every_arrow_goes_forward(graph):
    layout = lay_out(*graph)
    for (source, target), route in zip(graph[1], layout.routes):
        along = [layout.places[source][0], *(p for p, _ in route), layout.places[target][0]]
        assert (np.diff(along) > 0).all()


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_boxes_and_labels_keep_their_distance(graph):
    count, edges = graph
    layout = lay_out(*graph)
    taken = [(*layout.places[i], 1.0 + i % 3) for i in range(count)]
    taken += [(*route[0], 0.3) for route in layout.routes]
    taken += [(*point, 0.0) for route in layout.routes for point in route[1:]]
    for n, (along, across, breadth) in enumerate(taken):
        for other_along, other_across, other_breadth in taken[:n]:
            if abs(along - other_along) < 1e-9:
                room = (breadth + other_breadth) / 2 + GAP[1]
                assert abs(across - other_across) > room - 1e-9


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_everything_lies_inside_the_extent(graph):
    layout = lay_out(*graph)
    for i, (along, across) in layout.places.items():
        assert 0.5 - 1e-9 <= along <= layout.length - 0.5 + 1e-9
        half = (1.0 + i % 3) / 2
        assert half - 1e-9 <= across <= layout.breadth - half + 1e-9


def test_an_input_stands_just_before_what_uses_it_first():
    layout = lay_out(5, [(0, 1), (1, 2), (2, 3), (4, 3)])
    assert layout.places[4][0] == layout.places[2][0]


def test_arrows_that_need_not_cross_do_not():
    # Boxes listed in an order that crosses: 0 and 1 feed 3 and 2.
    layout = layered_layout(
        dict.fromkeys(range(5), (1.0, 1.0)),
        [(0, 3), (1, 2), (2, 4), (3, 4)],
        [(0.0, 0.0)] * 4,
        gap=GAP,
    )
    places = layout.places
    assert (places[0][1] < places[1][1]) == (places[3][1] < places[2][1])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([0.0, 5.0], [0.0, 5.0]),  # far enough apart: left alone
        ([0.0, 0.0], [-0.5, 0.5]),  # moved apart evenly
        ([0.0, 0.0, 0.0], [-1.0, 0.0, 1.0]),
        ([3.0, 0.0], [1.0, 2.0]),  # wanted in the other order: the order is kept
    ],
)
def test_spread_apart_moves_as_little_as_it_can(wanted, expected):
    np.testing.assert_allclose(spread_apart(wanted, [1.0] * (len(wanted) - 1)), expected)
