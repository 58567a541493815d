import numpy as np
import pytest

from minitorch_attn.viz import plot_arms, plot_history, plot_runs

pytest.importorskip("matplotlib")


def history(offset=0.0):
    return {
        "epoch": [1, 2, 3],
        "train_loss": [2.0, 1.0, 0.5 + offset],
        "valid_loss": [2.1, 1.2, 0.9 + offset],
        "train_accuracy": [0.3, 0.6, 0.9 + offset],
        "valid_accuracy": [0.3, 0.5, 0.7 + offset],
        "learning_rate": [0.1, 0.1, 0.1],
    }


def labels(ax):
    return {text.get_text(): text for text in ax.texts}


def test_a_history_is_drawn_as_it_is():
    loss, accuracy = plot_history(history()).axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [(1, 2), (2, 1), (3, 0.5)])
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), [2.1, 1.2, 0.9])
    np.testing.assert_array_equal(accuracy.lines[1].get_ydata(), [0.3, 0.5, 0.7])
    assert loss.get_ylabel() == "loss"
    assert accuracy.get_ylabel() == "accuracy"


def test_a_history_with_nothing_but_the_loss_is_drawn_too():
    (ax,) = plot_history({"train_loss": [1.0, 0.5]}).axes
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2])


def test_lines_are_named_at_their_ends_in_their_colours():
    loss, _ = plot_history(history()).axes
    for line, name in zip(loss.lines, ("train", "valid")):
        assert labels(loss)[name].get_color() == line.get_color()
    assert labels(loss)["train"].xy[1] < labels(loss)["valid"].xy[1]


def test_names_of_lines_that_end_together_are_moved_apart():
    arms = {name: [history(), history()] for name in "abc"}
    (ax,) = plot_runs(arms).axes
    heights = sorted(text.xy[1] for text in ax.texts)
    low, high = ax.get_ylim()
    assert np.diff(heights).min() > 0.05 * (high - low)


def test_runs_show_the_mean_and_the_range_over_seeds():
    runs = [history(0.0), history(0.1), history(-0.04)]
    (ax,) = plot_runs({"SE": runs}).axes
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.3, 0.5, 0.72])
    band = ax.collections[0].get_paths()[0].vertices
    at_end = band[band[:, 0] == 3, 1]
    np.testing.assert_allclose((at_end.min(), at_end.max()), (0.66, 0.8))
    assert ax.get_title() == "mean and range over 3 seeds"


def test_one_run_has_no_range_to_speak_of():
    (ax,) = plot_runs({"SE": [history()]}).axes
    assert ax.get_title() == ""


def test_a_metric_that_was_not_recorded_is_named_with_those_that_were():
    with pytest.raises(KeyError, match="no 'valid_top5' in this history: it has epoch, train_loss"):
        plot_runs({"SE": [history()]}, "valid_top5")


def test_every_seed_of_an_arm_is_a_dot_and_their_mean_a_bar():
    (ax,) = plot_arms({"plain": [0.7, 0.8], "SE": [0.9, 0.9, 0.6]}).axes
    dots = [c.get_offsets()[:, 0].tolist() for c in ax.collections]
    assert dots == [[0.7, 0.8], [0.9, 0.9, 0.6]]
    np.testing.assert_allclose([line.get_xdata()[0] for line in ax.lines], [0.75, 0.8])
    assert [t.get_text() for t in ax.texts] == ["0.750", "0.800"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["plain", "SE"]


def test_a_mean_of_three_digits_before_the_point_has_no_point():
    (ax,) = plot_arms({"a": [132.0, 134.0], "b": [100.0]}).axes
    assert [t.get_text() for t in ax.texts] == ["133", "100"]


def test_arms_beyond_the_palette_are_refused():
    with pytest.raises(ValueError, match="9 arms cannot be told apart"):
        plot_arms({str(i): [1.0] for i in range(9)})
