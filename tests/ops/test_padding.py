import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal, torch

MODES = ["reflect", "replicate", "circular"]
every_mode = pytest.mark.parametrize("mode", MODES)


def compare_pad(x, widths, **options):
    compare(
        lambda x: F.pad(x, widths, **options),
        lambda x: torch.nn.functional.pad(x, widths, **options),
        x,
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 2), min_size=0, max_size=3), st.lists(st.integers(-1, 2)))
def test_constant_pad_by_any_widths_as_in_pytorch(before, after):
    compare_pad(normal(3, 4, 5), [w for pair in zip(before, after) for w in pair], value=1.5)


@every_mode
@pytest.mark.parametrize("batch", [(2, 3), (3,), (0, 3)])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=3))
def test_pad_from_the_inside_as_in_pytorch(mode, batch, pairs):
    sizes = (4, 5, 6)[-len(pairs) :]
    compare_pad(normal(*batch, *sizes), [w for pair in pairs for w in pair], mode=mode)


@every_mode
@pytest.mark.parametrize("widths", [(-1, 2), (2, -1), (-3, 2), (-1, -1), (0, 0)])
def test_negative_widths_cut_off_as_in_pytorch(mode, widths):
    compare_pad(normal(2, 3, 5), widths, mode=mode)
    compare_pad(normal(2, 3, 5, 5), (1, 1, *widths), mode=mode)


@pytest.mark.parametrize(("mode", "widest"), [("reflect", 4), ("circular", 5), ("replicate", 9)])
def test_the_widest_border(mode, widest):
    compare_pad(normal(2, 3, 5), (widest, widest), mode=mode)
    check_gradients(F.pad, normal(3, 5), (widest, widest), mode)


@every_mode
def test_gradients_of_a_border_go_to_where_its_values_came_from(mode):
    check_gradients(F.pad, normal(2, 3, 4), (2, 1), mode)
    check_gradients(F.pad, normal(2, 3, 3, 4), (2, 1, 0, 2), mode)
    check_gradients(F.pad, normal(1, 2, 2, 3, 3), (1, 1, 2, 1, 1, 0), mode)
    check_gradients(F.pad, normal(2, 3, 4), (-1, 2), mode)


def test_what_the_modes_do_with_a_row():
    row = mt.tensor([[0, 1, 2, 3]])
    assert F.pad(row, (2, 2), "reflect").tolist() == [[2, 1, 0, 1, 2, 3, 2, 1]]
    assert F.pad(row, (2, 2), "replicate").tolist() == [[0, 0, 0, 1, 2, 3, 3, 3]]
    assert F.pad(row, (2, 2), "circular").tolist() == [[2, 3, 0, 1, 2, 3, 0, 1]]
    assert F.pad(row, (2, 2), value=7).tolist() == [[7, 7, 0, 1, 2, 3, 7, 7]]


@every_mode
def test_corners_are_padded_in_both_directions(mode):
    wrap = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    x = normal(1, 4, 5)
    expected = np.pad(x, ((0, 0), (1, 2), (2, 3)), mode=wrap)
    np.testing.assert_array_equal(F.pad(x, (2, 3, 1, 2), mode).numpy(), expected)


def test_pad_counts_from_the_last_axis():
    y = F.pad(mt.ones(1, 2), (1, 0, 0, 2))
    np.testing.assert_array_equal(y.numpy(), [[0, 1, 1], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("shape", "widths", "mode", "message"),
    [
        ((2, 2), (1,), "constant", r"pad: needs \(before, after\) for up to 2 axes"),
        ((2, 2), (1, 2, 3), "constant", r"pad: needs \(before, after\) for up to 2 axes"),
        ((2, 2), (1,) * 6, "constant", r"pad: needs \(before, after\) for up to 2 axes"),
        ((2, 2), (-2, -1), "constant", r"cutting \(-2, -1\) off leaves nothing of \(2, 2\)"),
        ((2, 2), (-2, -1), "reflect", r"cutting \(-2, -1\) off leaves nothing of \(2, 2\)"),
        ((3,), (1, 1), "reflect", r"needs widths .* axes of positions .* \(3,\) got \(1, 1\)"),
        ((2, 3, 4, 5), (1, 1), "circular", r"\(2, 3, 4, 5\) got \(1, 1\)"),
        ((2, 3, 4), (1, 1, 1), "replicate", r"input \(2, 3, 4\), .* not \(1, 1, 1\)"),
        ((2, 3, 4), 1, "constant", r"needs \(before, after\) for up to 3 axes .* not \(1,\)"),
        ((2, 3, 4), (0, 4), "reflect", r"border of an axis of size 4 at most 3 wide, not 4"),
        ((2, 3, 4), (5, 0), "circular", r"border of an axis of size 4 at most 4 wide, not 5"),
        ((2, 3, 0), (1, 0), "replicate", r"border of an axis of size 0 at most 0 wide, not 1"),
        ((2, 3, 0), (1, 0), "reflect", r"border of an axis of size 0 at most 0 wide, not 1"),
    ],
)
def test_widths_that_do_not_fit(shape, widths, mode, message):
    with pytest.raises(mt.ShapeError, match=f"^pad: .*{message.removeprefix('pad: ')}"):
        F.pad(mt.ones(*shape), widths, mode)


@pytest.mark.parametrize("widths", [(1.5, 1), "11", [[1, 1]], None])
def test_widths_are_integers(widths):
    with pytest.raises(ValueError, match="^pad: pad must be an integer or a tuple of integers"):
        F.pad(mt.ones(2, 2), widths)


def test_modes_and_their_values():
    with pytest.raises(ValueError, match="pad: mode is one of constant, reflect, replicate, circ"):
        F.pad(mt.ones(2, 2), (1, 1), mode="edge")
    with pytest.raises(ValueError, match="pad: mode 'reflect' takes no value"):
        F.pad(mt.ones(2, 2), (1, 1), mode="reflect", value=1.0)
    assert F.pad(mt.ones(2, 2), (1, 1), mode="reflect", value=0.0).shape == (2, 4)
    with pytest.raises(TypeError, match="^pad: value must be a number, not 'zero'"):
        F.pad(mt.ones(2, 2), (1, 1), value="zero")
