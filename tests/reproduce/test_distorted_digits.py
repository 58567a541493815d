import numpy as np
import pytest

from minitorch_attn.attention.spatial_transformer import control_points
from minitorch_attn.reproduce import distorted_digits
from minitorch_attn.reproduce.distorted_digits import PROTOCOLS, Distort, projective_map


def disc(radius=8.0):
    """A bright disc in the middle: what turning leaves alone. (28, 28)"""
    i, j = np.mgrid[:28, :28] - 13.5
    return np.clip(radius - np.hypot(i, j), 0, 1).astype("float32")


def middle(picture):
    """Where the ink is on average, in pixels from the middle: (row, column)."""
    ink, (H, W) = picture.sum(), picture.shape
    rows, columns = np.mgrid[:H, :W]
    return np.array([(picture * rows).sum(), (picture * columns).sum()]) / ink - (H - 1) / 2


def many(protocol, count=400):
    images = np.broadcast_to(disc(), (count, 1, 28, 28))
    return Distort(protocol)(images, np.random.default_rng(0))[:, 0]


def test_an_unknown_protocol_is_refused_at_once():
    with pytest.raises(ValueError, match="protocol must be one of R, RTS, P, E, TC, not 'Z'"):
        Distort("Z")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_images_keep_their_dtype_and_the_seed_decides(protocol):
    images = np.random.default_rng(0).uniform(size=(3, 1, 28, 28)).astype("float32")
    a, b, c = (Distort(protocol)(images, np.random.default_rng(seed)) for seed in (0, 0, 1))
    size = {"RTS": 42, "TC": 60}.get(protocol, 28)
    assert a.shape == (3, 1, size, size) and a.dtype == np.float32
    assert (a == b).all() and np.abs(a - c).max() > 0.1
    assert Distort(protocol).size == size


def test_turning_leaves_a_disc_alone_and_reaches_a_right_angle_either_way():
    np.testing.assert_allclose(many("R"), np.broadcast_to(disc(), (400, 28, 28)), atol=0.35)
    right = np.zeros((400, 1, 28, 28), "float32")
    right[:, :, 13:15, 20:24] = 1  # a spot to the right of the middle
    angles = [
        np.degrees(np.arctan2(*middle(picture)))
        for picture in Distort("R")(right, np.random.default_rng(0))[:, 0]
    ]
    assert -90.5 < min(angles) < -85 and 85 < max(angles) < 90.5
    assert abs(np.mean(angles)) < 10


def test_placing_scales_by_no_more_than_it_says_and_keeps_a_digit_in_the_frame():
    pictures = many("RTS")
    scales = np.sqrt(pictures.sum(axis=(1, 2)) / disc().sum())
    assert 0.68 < scales.min() < 0.75 and 1.15 < scales.max() < 1.22
    places = np.array([middle(picture) for picture in pictures])
    assert np.abs(places).max() < 7.5 and np.abs(places).max() > 6
    assert pictures[:, 0].max() == pictures[:, :, -1].max() == 0


def test_perspective_takes_the_corners_to_their_places():
    points = control_points(2) * 0.8 + np.random.default_rng(0).normal(0, 0.1, (5, 4, 2))
    theta = projective_map(points, control_points(2))
    for p, t in zip(points, theta, strict=True):
        m = np.append(t, 1).reshape(3, 3) @ np.append(p, np.ones((4, 1)), axis=1).T
        np.testing.assert_allclose((m[:2] / m[2]).T, control_points(2), atol=1e-12)


@pytest.mark.parametrize("protocol", ["P", "E"])
def test_perspective_and_bending_make_smaller_on_average_and_stay_in_the_middle(protocol):
    pictures = many(protocol)
    scale = np.sqrt(np.median(pictures.sum(axis=(1, 2))) / disc().sum())
    assert 0.8 < scale < 0.95
    places = np.array([middle(picture) for picture in pictures])
    assert np.abs(np.median(places, axis=0)).max() < 0.5
    assert places.std() > 0.3


def test_a_digit_in_clutter_is_moved_by_whole_pixels_anywhere_in_the_frame(monkeypatch):
    monkeypatch.setattr(distorted_digits, "PATCHES", 0)
    images = np.random.default_rng(0).uniform(0.1, 1, (400, 1, 28, 28)).astype("float32")
    pictures = Distort("TC")(images, np.random.default_rng(0))
    corners = []
    for picture, (image,) in zip(pictures[:, 0], images, strict=True):
        i, j = np.argwhere(picture)[0]
        np.testing.assert_array_equal(picture[i : i + 28, j : j + 28], image)
        assert np.count_nonzero(picture) == 28 * 28
        corners.append((i, j))
    assert np.min(corners, axis=0).tolist() == [0, 0]
    assert np.max(corners, axis=0).tolist() == [32, 32]


def test_clutter_is_six_fragments_of_other_images_no_brighter_than_white():
    black_and_white = np.stack([np.zeros((1, 28, 28)), np.ones((1, 28, 28))]).astype("float32")
    rng = np.random.default_rng(0)
    pictures = np.stack([Distort("TC")(black_and_white, rng)[:, 0] for _ in range(200)])
    black, white = pictures[:, 0], pictures[:, 1]
    ink = black.sum(axis=(1, 2))
    assert ink.max() == 6 * 36 and 6 * 36 * 0.85 < ink.mean() < 6 * 36  # where none overlap
    assert set(np.unique(pictures)) == {0.0, 1.0}
    assert black.any(axis=(0, 1)).all() and black.any(axis=(0, 2)).all()
    assert (white.sum(axis=(1, 2)) == 28 * 28).all()  # its fragments are all of the black one


def test_one_image_alone_is_cluttered_by_itself():
    assert Distort("TC")(np.ones((1, 1, 28, 28)), np.random.default_rng(0)).sum() > 28 * 28


def test_without_noise_nothing_moves(monkeypatch):
    """The grids are those of a plain scaling, if the random parts are taken away."""

    class Still:
        def uniform(self, low, high, size):
            return np.full(size, high)

        def normal(self, mean, std, size):
            return np.full(size, mean, float)

    images = disc()[None, None]
    for protocol in ("P", "E"):
        grid = distorted_digits.PROTOCOLS[protocol](1, Still())
        assert np.abs(Distort(protocol)(images, Still()) - images).max() < 1e-4, grid
