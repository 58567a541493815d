import numpy as np
import pytest

from minitorch_attn.attention.non_local_means import non_local_means, non_local_weights
from minitorch_attn.engine import DTypeError, ShapeError

from ..nn.parity import normal

GREY = normal(7, 6)
COLOUR = normal(3, 6, 5)


def by_the_formula(image, h, patch_size, search_size, spread=None, sigma=0.0):
    """The weights w_ij of section 3, (H, W, H, W), one pixel and one place at a time."""
    channels = image.reshape(-1, *image.shape[-2:])
    _, H, W = channels.shape
    half, reach = patch_size // 2, (search_size or 2 * max(H, W)) // 2
    a = np.array(
        [
            [1.0 if spread is None else np.exp(-(r**2 + s**2) / (2 * spread**2))
             for s in range(-half, half + 1)]
            for r in range(-half, half + 1)
        ]
    )  # fmt: skip
    a /= a.sum()

    def at(y, x):
        y, x = abs(y), abs(x)
        return channels[:, min(y, 2 * (H - 1) - y), min(x, 2 * (W - 1) - x)]

    w = np.zeros((H, W, H, W))
    for y, x, v, u in np.ndindex(w.shape):
        if abs(y - v) <= reach and abs(x - u) <= reach:
            d = sum(
                a[r + half, s + half] * np.mean((at(y + r, x + s) - at(v + r, u + s)) ** 2)
                for r in range(-half, half + 1)
                for s in range(-half, half + 1)
            )
            w[y, x, v, u] = np.exp(-max(d - 2 * sigma**2, 0) / h**2)
    return w / w.sum(axis=(2, 3), keepdims=True)


SETTINGS = [
    {"patch_size": 3, "search_size": 5},
    {"patch_size": 5, "search_size": 3, "spread": 1.0},
    {"patch_size": 3, "search_size": None},
    {"patch_size": 3, "search_size": 5, "sigma": 0.7},
    {"patch_size": 1, "search_size": 3},
    {"patch_size": 3, "search_size": 1},
    {"patch_size": 3, "search_size": 99, "spread": 0.5},
]


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_image_and_weights_are_those_of_the_formula(settings, image):
    w = by_the_formula(image, 0.9, **settings)
    expected = np.einsum("yxvu,...vu->...yx", w, image)
    np.testing.assert_allclose(non_local_means(image, 0.9, **settings), expected, atol=1e-13)
    for pixel in (0, 0), (3, 2), (image.shape[-2] - 1, image.shape[-1] - 1):
        np.testing.assert_allclose(
            non_local_weights(image, pixel, 0.9, **settings), w[pixel], rtol=1e-9, atol=1e-15
        )


def test_over_the_whole_image_it_is_softmax_attention_of_patches_to_pixels():
    border = np.pad(GREY, 1, mode="reflect")
    patches = np.lib.stride_tricks.sliding_window_view(border, (3, 3)).reshape(GREY.size, 9)
    energy = (2 * patches @ patches.T - (patches**2).sum(axis=1)) / 9 / 0.8**2
    weights = np.exp(energy - energy.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    denoised = non_local_means(GREY, 0.8, patch_size=3, search_size=None)
    np.testing.assert_allclose(denoised.ravel(), weights @ GREY.ravel(), atol=1e-13)


def test_scikit_image_says_the_same_up_to_its_rough_exponential():
    restoration = pytest.importorskip("skimage.restoration")
    rng = np.random.default_rng(0)
    image = np.kron(rng.uniform(size=(6, 6)), np.ones((5, 5))) + 0.1 * rng.normal(size=(30, 30))
    ours = non_local_means(image, 0.1, patch_size=5, search_size=13, spread=1.0, sigma=0.05)
    theirs = restoration.denoise_nl_means(
        image, patch_size=5, patch_distance=6, h=0.1, sigma=0.05, fast_mode=False
    )
    assert np.abs(ours - theirs).max() < 2e-2 and np.abs(ours - theirs).mean() < 2e-3


def test_a_tiny_h_changes_nothing_and_a_huge_one_takes_the_mean_of_the_window():
    np.testing.assert_allclose(non_local_means(GREY, 1e-3), GREY, atol=1e-13)
    mean = non_local_means(GREY, 1e6, search_size=None)
    np.testing.assert_allclose(mean, np.full(GREY.shape, GREY.mean()), atol=1e-9)


def test_what_repeats_is_recovered_where_a_blur_would_mix():
    rng = np.random.default_rng(1)
    stripes = np.tile([0.0, 0.0, 1.0, 1.0], (16, 6))
    noisy = stripes + 0.2 * rng.normal(size=stripes.shape)
    denoised = non_local_means(noisy, 0.2, patch_size=5, search_size=None)
    assert np.std(denoised - stripes) < 0.3 * np.std(noisy - stripes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_stays(dtype):
    image = COLOUR.astype(dtype)
    assert non_local_means(image, 0.5, spread=1.5, sigma=0.1).dtype == dtype
    assert non_local_weights(image, (1, 1), 0.5, spread=1.5, sigma=0.1).dtype == dtype
    expected = non_local_means(COLOUR, 0.5, spread=1.5, sigma=0.1)
    np.testing.assert_allclose(
        non_local_means(image, 0.5, spread=1.5, sigma=0.1), expected, rtol=0, atol=1e-5
    )


def test_the_image_that_is_given_stays_as_it_is():
    image = GREY.copy()
    non_local_means(image, 0.5)
    assert np.array_equal(image, GREY)


@pytest.mark.parametrize(
    "denoise", [non_local_means, lambda v, h, **s: non_local_weights(v, (0, 0), h, **s)]
)
@pytest.mark.parametrize(
    ("image", "settings", "error", "message"),
    [
        (normal(2, 3, 4, 4), {}, ShapeError, r"needs an image \(H, W\) or \(C, H, W\)"),
        (GREY[:0], {}, ShapeError, r"at least one pixel, got \(0, 6\)"),
        (GREY, {"patch_size": 4}, ValueError, "patch_size must be odd, not 4"),
        (GREY, {"patch_size": 3.0}, ValueError, "patch_size must be an integer .*, not 3.0"),
        (GREY, {"search_size": 0}, ValueError, "search_size must be .* at least 1, not 0"),
        (GREY, {"h": 0.0}, ValueError, "h must be positive, not 0.0"),
        (GREY, {"h": np.nan}, ValueError, "h must be positive, not nan"),
        (GREY, {"spread": 0.0}, ValueError, "spread must be positive or None, not 0.0"),
        (GREY, {"sigma": -0.1}, ValueError, "sigma must be 0 or more, not -0.1"),
        (np.zeros((4, 4), np.uint8), {}, DTypeError, "image / 255"),
        (GREY.tolist(), {}, DTypeError, "needs an array of floats, not list"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(denoise, image, settings, error, message):
    with pytest.raises(error, match=message):
        denoise(image, **{"h": 0.5, **settings})


@pytest.mark.parametrize("pixel", [(7, 0), (0, 6), (-1, 0), (1, 2, 3), (1.0, 0)])
def test_a_pixel_outside_the_image_is_refused_with_where_it_may_be(pixel):
    with pytest.raises(ValueError, match="pixel must be"):
        non_local_weights(GREY, pixel, 0.5)
