import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.engine import GraphError
from minitorch_attn.ops.arithmetic import add, multiply
from minitorch_attn.viz import draw_graph
from minitorch_attn.viz.graph import read_graph

FigureCanvasAgg = pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg


@pytest.fixture
def example():
    """L = (a b + c)^2 with the square as a product, so that one value is used twice."""
    a, b, c = (mt.tensor(v, requires_grad=True) for v in (2.0, -3.0, 10.0))
    d = multiply(a, b)
    e = add(d, c)
    return {"a": a, "b": b, "c": c, "d": d, "e": e, "L": multiply(e, e)}


def test_every_operation_leaf_and_arrow_is_read(example):
    boxes, arrows = read_graph(example["L"], names=example)
    assert [b.title for b in boxes] == ["a", "b", "c", "multiply", "add", "multiply", "L"]
    assert [b.kind for b in boxes] == ["leaf"] * 3 + ["operation"] * 3 + ["output"]
    assert [(x.source, x.target) for x in arrows] == [
        (0, 3),
        (1, 3),
        (3, 4),
        (2, 4),
        (4, 5),
        (4, 5),  # the square uses it twice
        (5, 6),
    ]


def test_values_stand_at_leaves_named_tensors_and_the_output(example):
    boxes, _ = read_graph(example["L"], names=example, values=True)
    notes = [[text for text, _ in b.notes] for b in boxes]
    assert notes == [["2"], ["-3"], ["10"], ["d = -6"], ["e = 4"], [], ["16"]]


def test_gradients_on_arrows_are_those_that_backward_gives(example):
    boxes, arrows = read_graph(example["L"], names=example, gradients=True)
    assert [x.lines[-1][0] for x in arrows] == [
        "grad -24",
        "grad 16",
        "grad 8",
        "grad 8",
        "grad 4",
        "grad 4",
        "grad 1",
    ]
    assert example["a"].grad is None  # drawing is not a backward pass
    example["L"].backward()
    for box, name in zip(boxes, "abc"):
        assert box.notes[-1][0] == f"grad {example[name].grad.item():g}"


def test_a_leaf_used_twice_shows_the_sum_of_what_comes_back():
    x = mt.tensor(3.0, requires_grad=True)
    boxes, _ = read_graph(multiply(x, x), names={"x": x}, gradients=True)
    assert "grad 6" in [text for text, _ in boxes[0].notes]


def test_shapes_stand_in_leaves_and_at_arrows_and_gradients_have_them():
    w = mt.tensor(np.ones((3,)), requires_grad=True)
    x = mt.tensor(np.ones((2, 3)), requires_grad=True)
    boxes, arrows = read_graph(add(multiply(w, x), w), gradients=True)
    assert [b.notes[0][0] for b in boxes[:2]] == ["(3,)", "(2, 3)"]
    assert [[text for text, _ in a.lines] for a in arrows] == [
        ["grad [2 2 2]"],  # summed over the axis that was broadcast
        ["grad norm 2.4"],
        ["(2, 3)", "grad norm 2.4"],
        ["grad [2 2 2]"],
        ["(2, 3)", "grad norm 2.4"],
    ]


def test_values_that_are_long_give_way_to_the_shape():
    x = mt.tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
    y = mt.tensor(np.full((2, 2), 0.000123), requires_grad=True)
    boxes, _ = read_graph(multiply(x, y), values=True)
    assert [b.notes[0][0] for b in boxes[:2]] == ["[[1 2] [3 4]]", "(2, 2)"]


@pytest.mark.parametrize("direction", ["right", "down"])
def test_a_drawing_holds_every_text_inside_the_figure_and_apart(example, direction):
    figure = draw_graph(
        example["L"], names=example, values=True, gradients=True, direction=direction
    )
    (ax,) = figure.axes
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [t.get_window_extent(renderer) for t in ax.texts]
    width, height = figure.bbox.size
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    for n, box in enumerate(boxes):
        for other in boxes[:n]:
            overlap_x = min(box.x1, other.x1) - max(box.x0, other.x0)
            overlap_y = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert overlap_x <= 1 or overlap_y <= 3  # lines of one label may touch


def test_there_is_one_arrow_for_each_use_and_one_box_for_each_node(example):
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    (ax,) = draw_graph(example["L"]).axes
    assert sum(isinstance(p, FancyArrowPatch) for p in ax.patches) == 7
    assert sum(isinstance(p, FancyBboxPatch) for p in ax.patches) == 7


def test_a_long_graph_runs_down_the_page_and_a_short_one_across(example):
    x = y = mt.tensor(1.0, requires_grad=True)
    for _ in range(12):
        y = multiply(y, x)
    width, height = draw_graph(y).get_size_inches()
    assert height > width
    assert width <= 8
    width, height = draw_graph(example["L"]).get_size_inches()
    assert width > height


def test_a_tensor_without_a_graph_says_so():
    with pytest.raises(GraphError, match="requires_grad=True"):
        draw_graph(mt.tensor(1.0, requires_grad=True))


def test_a_released_graph_says_how_to_keep_it(example):
    example["L"].backward()
    with pytest.raises(GraphError, match="retain_graph=True"):
        draw_graph(example["L"])


def test_a_graph_too_large_to_read_is_refused():
    x = mt.tensor(1.0, requires_grad=True)
    for _ in range(300):
        x = multiply(x, 1.0)
    with pytest.raises(GraphError, match="more than 200"):
        draw_graph(x)


def test_an_unknown_direction_is_refused(example):
    with pytest.raises(ValueError, match="'right' or 'down'"):
        draw_graph(example["L"], direction="up")
