"""Every form of convolution against the loops, and the choice between them."""

import dataclasses

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.ops.convolution_forms import (
    Geometry,
    choose,
    columns,
    depthwise,
    loops,
    pointwise,
    rows,
    winograd,
    winograd_rows,
)

from .parity import normal

FORMS = (columns, rows, pointwise, depthwise, winograd, winograd_rows)


def geometry(
    N=2, C=3, O=4, size=(7, 6), kernel=(3, 3), stride=(1, 1), dilation=(1, 1), padding=(1, 1), G=1
) -> Geometry:
    """A convolution that has as many places as fit."""
    border = tuple(p if isinstance(p, tuple) else (p, p) for p in padding)
    places = tuple(
        (n + sum(b) - d * (k - 1) - 1) // s + 1
        for n, b, d, k, s in zip(size, border, dilation, kernel, stride)
    )
    return Geometry(N, C, O, G, size, kernel, places, stride, dilation, border)


SHAPES = {
    "3x3": geometry(),
    "3x3 without padding": geometry(padding=(0, 0)),
    "3x3 with the widest padding": geometry(padding=(2, 2)),
    "3x3 on several tiles": geometry(size=(9, 14)),
    "3x3 on one pixel": geometry(size=(1, 1)),
    "uneven padding": geometry(kernel=(2, 4), padding=((0, 1), (1, 2))),
    "more padding than kernel": geometry(kernel=(2, 3), padding=(3, 4)),
    "5x5": geometry(kernel=(5, 5), padding=(2, 2)),
    "1x5": geometry(kernel=(1, 5), padding=(0, 2)),
    "7x7": geometry(C=2, O=1, kernel=(7, 7), padding=(3, 3)),
    "1x1": geometry(kernel=(1, 1), padding=(0, 0)),
    "1x1 with stride": geometry(kernel=(1, 1), padding=(0, 0), stride=(2, 3)),
    "one channel": geometry(C=1),
    "many outputs": geometry(C=1, O=9),
    "few outputs": geometry(C=9, O=1),
    "stride": geometry(stride=(2, 2)),
    "stride and dilation": geometry(stride=(3, 1), dilation=(1, 2), padding=(1, 2)),
    "dilation": geometry(size=(8, 9), dilation=(2, 3), padding=(2, 3)),
    "groups": geometry(C=4, O=6, G=2),
    "many groups": geometry(C=32, O=64, G=16, size=(3, 4)),
    "depthwise": geometry(C=6, O=6, G=6),
    "depthwise, two kernels each": geometry(C=5, O=10, G=5),
    "depthwise with stride": geometry(C=6, O=6, G=6, stride=(2, 2)),
    "one axis": geometry(size=(9,), kernel=(3,), stride=(2,), dilation=(1,), padding=(1,)),
    "one axis, one tap": geometry(size=(9,), kernel=(1,), stride=(1,), dilation=(1,), padding=(0,)),
    "three axes": geometry(
        size=(4, 5, 3), kernel=(2, 3, 1), stride=(1, 2, 1), dilation=(1, 1, 1), padding=(1, 1, 0)
    ),
    "depthwise, dilation": geometry(C=6, O=6, G=6, dilation=(2, 1), padding=(2, 1)),
    "planes a multiple of 1 KB apart": geometry(C=9, O=9, size=(8, 16)),
    "1x1 that leaves a column out": dataclasses.replace(
        geometry(kernel=(1, 1), padding=(0, 0)), places=(7, 5)
    ),
    "dilation that leaves a column out": dataclasses.replace(
        geometry(C=2, O=2, G=2, dilation=(2, 2), size=(9, 9)), places=(7, 6)
    ),
    "no images": geometry(N=0),
    "no images, depthwise": geometry(N=0, C=2, O=2, G=2),
}


def suits(form, g):
    return form is columns or form.suits(g)


CASES = [
    pytest.param(form, g, id=f"{form.__name__.rpartition('.')[2]}, {name}")
    for form in FORMS
    for name, g in SHAPES.items()
    if suits(form, g)
]


def arrays(g, dtype=np.float64):
    """x, weight and dy."""
    shapes = g.x_shape, g.weight_shape, g.y_shape
    return [normal(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes)]


def passes(form, g, x, weight, dy):
    return form.forward(x, weight, g), form.grad_input(dy, weight, g), form.grad_weight(dy, x, g)


def last(x):
    """The same values with the channels last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


@pytest.mark.parametrize(("form", "g"), CASES)
def test_a_form_agrees_with_the_loops(form, g):
    x, weight, dy = arrays(g)
    shapes = g.y_shape, g.x_shape, g.weight_shape
    for result, expected, shape in zip(
        passes(form, g, x, weight, dy), passes(loops, g, x, weight, dy), shapes
    ):
        assert result.shape == shape
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("form", "g"), CASES)
def test_the_layout_of_the_images_changes_nothing(form, g):
    x, weight, dy = arrays(g)
    expected = passes(form, g, x, weight, dy)
    strided = np.zeros((*x.shape[:-1], 2 * x.shape[-1]))[..., ::2]
    strided[...] = x
    for other_x, other_dy in ((last(x), last(dy)), (strided, dy[::-1][::-1])):
        for result, same in zip(passes(form, g, other_x, weight, other_dy), expected):
            np.testing.assert_allclose(result, same, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("form", "g"), CASES)
def test_single_precision_is_kept_and_nearly_exact(form, g):
    exact = passes(form, g, *arrays(g))
    for result, expected in zip(passes(form, g, *arrays(g, np.float32)), exact):
        assert result.dtype == np.float32
        largest = np.abs(expected).max(initial=0)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(("form", "g"), CASES)
def test_threads_change_nothing_but_the_order_of_sums(form, g, monkeypatch):
    monkeypatch.setattr("minitorch_attn.engine.threads.SMALL", 0)
    g = dataclasses.replace(g, N=5)
    inputs = arrays(g)
    expected = passes(form, g, *inputs)
    try:
        mt.set_num_threads(3)
        together, again = passes(form, g, *inputs), passes(form, g, *inputs)
    finally:
        mt.set_num_threads(1)
    for result, repeated, alone in zip(together, again, expected):
        np.testing.assert_array_equal(result, repeated)
        np.testing.assert_allclose(result, alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize("form", [columns, rows, winograd, winograd_rows])
def test_images_in_several_blocks_give_what_each_gives_alone(form):
    g = geometry(N=40, C=32, O=32, size=(12, 12))
    x, weight, dy = arrays(g)
    together = passes(form, g, x, weight, dy)
    one = dataclasses.replace(g, N=1)
    alone = [passes(form, one, x[n : n + 1], weight, dy[n : n + 1]) for n in range(g.N)]
    for i in (0, 1):
        np.testing.assert_allclose(together[i], np.concatenate([a[i] for a in alone]), atol=1e-11)
    np.testing.assert_allclose(together[2], sum(a[2] for a in alone), atol=1e-10)


def test_winograd_in_single_precision_stays_within_1e_5_of_the_largest_value():
    g = geometry(N=4, C=64, O=64, size=(16, 16))
    exact = passes(columns, g, *arrays(g))
    for result, expected in zip(passes(winograd, g, *arrays(g, np.float32)), exact):
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("g", "form"),
    [
        (geometry(C=64, O=64, size=(14, 14)), winograd),
        (geometry(C=32, O=32, size=(14, 14), G=16), winograd),
        (geometry(C=32, O=32, size=(14, 14)), winograd_rows),
        (geometry(C=32, O=32, size=(14, 14), kernel=(5, 5), padding=(2, 2)), winograd),
        (geometry(C=64, O=64, size=(14, 14), G=64), depthwise),
        (geometry(C=64, O=64, size=(1, 1)), rows),
        (geometry(C=64, O=64, size=(14, 14), stride=(2, 2)), rows),
        (geometry(C=64, O=64, size=(14, 14), dilation=(2, 2)), rows),
        (geometry(C=64, O=16, kernel=(1, 1), padding=(0, 0)), pointwise),
        (geometry(C=1, O=16, size=(28, 28)), columns),
        (geometry(C=2, O=1, size=(28, 28), kernel=(7, 7)), columns),
        (SHAPES["depthwise with stride"], columns),
    ],
)
def test_the_form_follows_from_the_shapes(g, form):
    assert choose(g) is form
