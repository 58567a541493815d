import io

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.viz import Animation, animate_sampling

pytest.importorskip("matplotlib")
pillow = pytest.importorskip("PIL.Image")

COLOURS = np.zeros((3, 4, 6, 3), np.uint8)  # black, red, blue
COLOURS[1, ..., 0] = COLOURS[2, ..., 2] = 255


def stored(data):
    """The pictures in a file, as arrays, and how long each is shown."""
    pictures, milliseconds = [], []
    with pillow.open(io.BytesIO(data)) as file:
        for n in range(file.n_frames):
            file.seek(n)
            pictures.append(np.asarray(file.convert("RGB")))
            milliseconds.append(file.info.get("duration"))
    return np.stack(pictures), milliseconds


def test_a_notebook_stores_a_png_that_moves_and_stands_still_as_the_last_picture():
    pictures, milliseconds = stored(Animation(COLOURS, seconds=0.25)._repr_png_())
    np.testing.assert_array_equal(pictures, COLOURS[[2, 0, 1, 2]])
    assert milliseconds == [None, 250, 250, 1000]


def test_a_notebook_shows_it_as_a_picture_and_nothing_else():
    formatters = pytest.importorskip("IPython.core.formatters")
    data, _ = formatters.DisplayFormatter().format(Animation(COLOURS))
    assert set(data) == {"image/png", "text/plain"}
    assert data["text/plain"] == "Animation(3 frames of 4x6)"


@pytest.mark.parametrize("suffix, still", [("gif", 0), ("png", 1), ("GIF", 0)])
def test_it_is_saved_by_its_suffix(suffix, still, tmp_path):
    file = tmp_path / f"colours.{suffix}"
    Animation(COLOURS).save(file)
    pictures, milliseconds = stored(file.read_bytes())
    np.testing.assert_array_equal(pictures[still:], COLOURS)
    assert milliseconds[still:] == [400, 400, 1600]
    with pillow.open(file) as animation:
        assert animation.format == suffix.upper() and animation.info["loop"] == 0


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"saved as \.gif or \.png, not as .*colours\.mp4"):
        Animation(COLOURS).save(tmp_path / "colours.mp4")


@pytest.mark.parametrize("frames", [COLOURS[0], COLOURS / 255, COLOURS[:0], COLOURS[..., :2]])
def test_frames_are_colours_in_bytes(frames):
    with pytest.raises(ValueError, match=r"frames must be \(T, H, W, 3\) in uint8"):
        Animation(frames)


def reading(images, maps):
    """Grids (T, N, 8, 8, 2) of maps (T, 2, 3), the same for all images, and what they read."""
    N = len(images)
    grids = [F.affine_grid(np.tile(a, (N, 1, 1)), size=(N, 1, 8, 8)).numpy() for a in maps]
    return np.stack(grids), np.stack([F.grid_sample(images, g).numpy() for g in grids])


def zoom(scale, x=0.0, y=0.0):
    return np.array([[scale, 0, x], [0, scale, y]])


IMAGES = np.zeros((2, 1, 16, 16))
IMAGES[:, :, 9:14, 2:7] = 1  # a square at the lower left
GRIDS, VIEWS = reading(IMAGES, [zoom(1.0), zoom(0.4, 0.4, -0.4), zoom(0.3, -0.44, 0.44)])


def test_the_outline_goes_to_where_is_read_and_the_view_shows_it():
    frames = animate_sampling(IMAGES, GRIDS, VIEWS).frames.astype(int)
    half = frames.shape[1] // 2 + 20
    orange = (frames[..., 0] > 200) & (frames[..., 2] < 60)
    places = [np.argwhere(drawn[:half]) for drawn in orange]
    widths = [np.ptp(p[p[:, 1] < frames.shape[2] // 2], axis=0).max() for p in places]
    assert widths[0] > 2 * widths[1] > 2.1 * widths[2]
    assert not orange[:, half:].any()
    (up, right), (down, left) = (places[n].mean(axis=0) for n in (1, 2))
    assert up < down - 20 and left < right - 20
    white = (frames[:, half:] > 250).all(axis=3).sum(axis=(1, 2))
    assert white[1] < white[0] < white[2] - 1000  # nothing, a small square, a large one


def test_in_a_wide_image_the_outline_is_wide():
    wide = np.zeros((1, 1, 8, 24))
    grid = F.affine_grid(zoom(1.0)[None], size=(1, 1, 8, 24)).numpy()
    drawn = animate_sampling(wide, grid[None], wide[None]).frames[0].astype(int)
    height, width = np.ptp(np.argwhere((drawn[..., 0] > 200) & (drawn[..., 2] < 60)), axis=0)
    assert 2.5 < width / height < 3.5  # of places: 23 by 7 pixels, and the ring


def test_the_images_stay_and_titles_tell_the_moment():
    named = animate_sampling(IMAGES, GRIDS[:1].repeat(2, 0), VIEWS[:1].repeat(2, 0), ["a", "b"])
    changed = np.argwhere((named.frames[0] != named.frames[1]).any(axis=2))
    assert len(changed) and changed[:, 0].max() < 40


def test_corners_of_the_grid_count_from_edges_or_from_centres():
    settings = {"size": (2, 1, 16, 16)}
    theta = np.tile(zoom(1.0), (2, 1, 1))
    pictures = [
        animate_sampling(
            IMAGES,
            F.affine_grid(theta, align_corners=by_grid, **settings).numpy()[None],
            IMAGES[None],
            align_corners=by_drawing,
        ).frames
        for by_grid, by_drawing in [(False, False), (True, True), (True, False)]
    ]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


def test_it_takes_colours_tensors_and_lists_and_is_the_same_each_time():
    colours = np.random.default_rng(0).random((2, 3, 16, 16))
    grids, views = reading(colours, [zoom(1.0), zoom(0.5)])
    one = animate_sampling(mt.tensor(colours), list(grids), [mt.tensor(v) for v in views])
    two = animate_sampling(colours, grids, views)
    assert one._repr_png_() == two._repr_png_()
    assert len(one.frames) == 2


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1000])
def test_each_picture_is_shown_for_some_time(seconds):
    with pytest.raises(ValueError, match="seconds must be from 0.001 to 60"):
        Animation(COLOURS, seconds)


@pytest.mark.parametrize(
    "grids, views",
    [
        (GRIDS[:0], VIEWS[:0]),
        (GRIDS[0], VIEWS),
        (GRIDS, VIEWS[:2]),
        (GRIDS[:, :1], VIEWS[:, :1]),
        (GRIDS, VIEWS[..., :7]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(grids, views):
    with pytest.raises(ValueError, match=r"need grids \(T, N, P, Q, 2\) and views"):
        animate_sampling(IMAGES, grids, views)


def test_titles_must_be_as_many_as_moments():
    with pytest.raises(ValueError, match="1 titles for 3 moments"):
        animate_sampling(IMAGES, GRIDS, VIEWS, ["only one"])
