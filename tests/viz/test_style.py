import subprocess
import sys

import numpy as np
import pytest

from minitorch_attn import viz

matplotlib = pytest.importorskip("matplotlib")


def test_importing_viz_does_not_import_matplotlib():
    code = "import sys, minitorch_attn.viz; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_figure_is_shown_once_because_pyplot_does_not_know_it():
    import matplotlib.pyplot as plt

    plt.close("all")
    figure = viz.show_channel_weights([0.1, 0.9])
    assert plt.get_fignums() == []
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_notebook_shows_the_picture_and_a_size_that_is_the_same_each_time():
    formatters = pytest.importorskip("IPython.core.formatters")
    figure = viz.show_channel_weights([0.1, 0.9])
    data, _ = formatters.DisplayFormatter().format(figure)
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == "<Figure size 800x240 with 1 Axes>"


def test_drawing_twice_gives_the_same_bytes():
    first, second = (viz.show_channel_weights([0.1, 0.9])._repr_png_() for _ in range(2))
    assert first == second


def test_drawing_leaves_the_users_settings_alone_and_does_not_depend_on_them():
    plain = viz.show_channel_weights([0.1, 0.9])._repr_png_()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        assert viz.show_channel_weights([0.1, 0.9])._repr_png_() == plain
        assert dict(matplotlib.rcParams) == before


def test_a_function_given_axes_draws_there_and_returns_nothing_to_show_twice():
    figure, (left, right) = viz.panels(1, 2)
    assert viz.show_channel_weights([0.1, 0.9], ax=left) is None
    assert viz.plot_arms({"a": [1.0], "b": [2.0]}, ax=right) is None
    assert [bar.get_height() for bar in left.patches] == [0.1, 0.9]
    assert right.has_data()


def test_colours_differ_in_lightness_or_hue_for_every_kind_of_sight():
    """Distances in a simulation of red-blind and green-blind sight (Viénot et al. 1999)."""
    rgb = np.array([matplotlib.colors.to_rgb(c) for c in viz.COLOURS]) ** 2.2
    red_blind = np.array([[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.0040, -0.0040, 1]])
    green_blind = np.array([[0.2928, 0.7072, 0], [0.2928, 0.7072, 0], [-0.0223, 0.0223, 1]])
    for sight in (np.eye(3), red_blind, green_blind):
        seen = np.clip(rgb @ sight.T, 0, 1) ** (1 / 2.2)
        distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        assert distance[~np.eye(len(rgb), dtype=bool)].min() >= 0.12
