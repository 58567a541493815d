import numpy as np
import pytest

from minitorch_attn.engine import check_vjp
from minitorch_attn.viz import draw_gradcheck
from minitorch_attn.viz.gradients import as_table

pytest.importorskip("matplotlib")
RNG = np.random.default_rng(0)


def relu(x):
    return np.maximum(x, 0), lambda dy: dy * (x > 0)


def scale_wrongly(x, w):
    return x * w, (lambda dy: dy * w, lambda dy: -dy * x)


def axes_of(report):
    """Per input the three maps: by the rule, measured, error."""
    axes = [ax for ax in draw_gradcheck(report).axes if ax.images and not ax.get_ylabel()]
    maps = [ax for ax in axes if ax.get_title()]
    return [maps[i : i + 3] for i in range(0, len(maps), 3)]


def values(ax):
    return np.ma.filled(ax.images[0].get_array(), np.nan)


def test_each_input_shows_the_rule_the_measured_gradient_and_their_error():
    x, w = RNG.standard_normal((2, 4, 5))
    report = check_vjp(scale_wrongly, x, w, raise_on_failure=False)
    rows = axes_of(report)
    assert len(rows) == 2
    for row, compared in zip(rows, report.inputs):
        for ax, expected in zip(row, (compared.analytic, compared.numeric, compared.error)):
            np.testing.assert_array_equal(values(ax), expected)


def test_gradients_share_a_scale_with_zero_in_the_middle():
    report = check_vjp(scale_wrongly, *RNG.standard_normal((2, 4, 5)), raise_on_failure=False)
    for (rule, measured, _), compared in zip(axes_of(report), report.inputs):
        limit = max(np.abs(compared.analytic).max(), np.abs(compared.numeric).max())
        assert rule.images[0].get_clim() == measured.images[0].get_clim() == (-limit, limit)


def test_rounding_is_not_blown_up_to_look_like_an_error():
    report = check_vjp(relu, RNG.standard_normal((3, 4)))
    ((_, _, error),) = axes_of(report)
    assert np.nanmax(values(error)) < 1e-3 * error.images[0].get_clim()[1]


def test_kinks_are_crossed_out_in_every_map():
    x = RNG.standard_normal((3, 4))
    x[1, 2] = 0.0
    (row,) = axes_of(check_vjp(relu, x))
    for ax in row:
        assert np.isnan(values(ax)[1, 2])
        assert np.isnan(values(ax)).sum() == 1
        np.testing.assert_array_equal(ax.collections[0].get_offsets(), [(2, 1)])


def test_a_wrong_shape_is_drawn_and_said():
    def unsummed(x, b):
        return x + b, (lambda dy: dy, lambda dy: dy)

    report = check_vjp(unsummed, np.ones((4, 3)), np.ones(3), raise_on_failure=False)
    figure = draw_gradcheck(report)
    titles = [ax.get_title() for ax in figure.axes]
    assert "by the rule (4, 3)" in titles
    said = figure.subfigs[1].get_suptitle()
    assert "b (3,): WRONG" in said
    assert "not summed over the broadcast axis 0" in said


def test_the_verdict_stands_at_the_top():
    assert "relu: passed" in draw_gradcheck(check_vjp(relu, np.ones(3))).get_suptitle()


@pytest.mark.parametrize(
    ("shape", "table"),
    [
        ((), (1, 1)),
        ((5,), (1, 5)),
        ((4, 5), (4, 5)),
        ((3, 4, 5), (4, 17)),  # three maps 4 x 5 side by side, two gaps
        ((2, 3, 4, 5), (9, 17)),  # two rows of them
    ],
)
def test_arrays_of_any_number_of_axes_become_a_table(shape, table):
    assert as_table(np.zeros(shape)).shape == table


def test_a_kernel_stands_at_its_row_and_column_of_the_table():
    kernels = RNG.standard_normal((2, 3, 4, 5))
    table = as_table(kernels)
    np.testing.assert_array_equal(table[5:9, 12:17], kernels[1, 2])
    assert np.isnan(table[4]).all()
    assert np.isnan(table[:, 5]).all()
    assert np.nansum(table) == pytest.approx(kernels.sum())


@pytest.mark.parametrize(
    ("x", "written"),
    [
        (np.array([0.00123, -0.00145, 0.0019, 0.0011, -0.0012, 0.0017]), False),
        (np.array([[1.0, 2.0], [-3.0, 4.5]]), True),
        (np.arange(5.0), True),
    ],
    ids=["long numbers", "two by two", "short numbers"],
)
def test_numbers_are_written_where_they_fit(x, written):
    figure = draw_gradcheck(check_vjp(lambda x: (x * x, lambda dy: 2 * dy * x), x))
    figure.draw_without_rendering()
    rule = next(ax for ax in figure.axes if ax.get_title() == "by the rule")
    assert bool(rule.texts) == written
    boxes = [text.get_window_extent() for text in rule.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
