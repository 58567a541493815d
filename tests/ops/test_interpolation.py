import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.engine import ShapeError

from .parity import check_gradients, compare, normal, torch

LINES, IMAGES, VOLUMES = normal(2, 3, 7), normal(2, 3, 5, 6), normal(2, 2, 3, 4, 5)
BY_DIMS = {1: LINES, 2: IMAGES, 3: VOLUMES}

# mode, dimensions, and whether align_corners has a meaning
MODES = [
    *[(mode, dims, False) for mode in ("nearest", "nearest-exact", "area") for dims in (1, 2, 3)],
    ("linear", 1, True),
    ("bilinear", 2, True),
    ("trilinear", 3, True),
    ("bicubic", 2, True),
]
CORNERS = [
    (mode, dims, align_corners)
    for mode, dims, has_corners in MODES
    for align_corners in ((None, False, True) if has_corners else (None,))
]

SIZES = {
    1: [1, 3, 7, 13, 14],
    2: [1, 3, (5, 6), (10, 12), (4, 13)],
    3: [1, 3, (6, 8, 10), (3, 4, 9)],
}
FACTORS = [1, 2, 0.5, 1.3, 0.7, 1.1, 2.7, 3, 0.34]


def their_interpolate(x, *args, **options):
    return torch.nn.functional.interpolate(x, *args, **options)


@pytest.mark.parametrize("mode, dims, align_corners", CORNERS)
def test_to_a_size_agrees_with_pytorch(mode, dims, align_corners):
    for size in SIZES[dims]:
        options = {"size": size, "mode": mode, "align_corners": align_corners}
        compare(F.interpolate, their_interpolate, BY_DIMS[dims], **options)


@pytest.mark.parametrize("recompute", [None, False, True])
@pytest.mark.parametrize("mode, dims, align_corners", CORNERS)
def test_by_a_factor_agrees_with_pytorch(mode, dims, align_corners, recompute):
    for factor in FACTORS:
        if factor % 1 and mode in ("nearest", "bicubic"):
            if any(int(n * factor) in (n, 2 * n) for n in BY_DIMS[dims].shape[2:]):
                continue  # there PyTorch's gradient is not that of its own output
        options = {
            "scale_factor": factor,
            "mode": mode,
            "align_corners": align_corners,
            "recompute_scale_factor": recompute,
        }
        compare(F.interpolate, their_interpolate, BY_DIMS[dims], **options)


@pytest.mark.skipif(torch is None, reason="needs PyTorch")
def test_a_factor_that_keeps_the_size_gives_pytorchs_image():
    for mode in ("nearest", "bicubic"):
        theirs = their_interpolate(torch.tensor(IMAGES), scale_factor=1.1, mode=mode)
        ours = F.interpolate(IMAGES, scale_factor=1.1, mode=mode)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=1e-12)
        check_gradients(F.interpolate, IMAGES, scale_factor=1.1, mode=mode)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
def test_each_axis_may_have_its_own_factor(mode):
    compare(F.interpolate, their_interpolate, IMAGES, scale_factor=(1.4, 0.8), mode=mode)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_the_nearest_pixel_is_pytorchs_for_many_sizes(mode):
    for size in (1, 2, 3, 5, 6, 7, 10, 28, 49):
        x = np.arange(float(size)).reshape(1, 1, 1, size)
        for places in (*range(1, 40, 3), 28, 56, 98, 200):
            options = {"size": (1, places), "mode": mode, "dtypes": ("float32",)}
            compare(F.interpolate, their_interpolate, x, **options)
        for factor in (0.1, 0.3, 0.6, 1.2, 1.7, 2.3, 3.3):
            if int(size * factor):
                options = {"scale_factor": (1.0, factor), "mode": mode, "dtypes": ("float32",)}
                compare(F.interpolate, their_interpolate, x, **options)


@pytest.mark.parametrize("mode, dims, align_corners", CORNERS)
@pytest.mark.parametrize("size", [1, 3, 9])
def test_gradients_agree_with_central_differences(mode, dims, align_corners, size):
    x = BY_DIMS[dims][:, :2]
    check_gradients(F.interpolate, x, size=size, mode=mode, align_corners=align_corners)


@pytest.mark.parametrize("mode, dims, align_corners", CORNERS)
def test_the_same_size_is_the_same_image(mode, dims, align_corners):
    x = BY_DIMS[dims]
    y = F.interpolate(x, x.shape[2:], mode=mode, align_corners=align_corners)
    np.testing.assert_allclose(y.numpy(), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode, dims, align_corners", CORNERS)
def test_an_even_image_stays_even(mode, dims, align_corners):
    x = np.full(BY_DIMS[dims].shape, 2.5)
    for options in ({"size": 4}, {"scale_factor": 1.7}):
        y = F.interpolate(x, mode=mode, align_corners=align_corners, **options)
        np.testing.assert_allclose(y.numpy(), 2.5, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode, dims, align_corners", CORNERS)
def test_one_pixel_fills_every_size_and_no_images_give_none(mode, dims, align_corners):
    options = {"size": 3, "mode": mode, "align_corners": align_corners}
    compare(F.interpolate, their_interpolate, normal(2, 1, *(1,) * dims), **options)
    x = mt.tensor(np.zeros((0, 2, *(4,) * dims)), requires_grad=True)
    y = F.interpolate(x, **options)
    y.backward(np.zeros(y.shape))
    assert y.shape == (0, 2, *(3,) * dims) and x.grad.shape == x.shape


def test_the_weights_of_two_pixels_made_four():
    x = np.array([[[0.0, 1.0]]])
    by_edges = F.interpolate(x, 4, mode="linear").numpy().ravel()
    by_centres = F.interpolate(x, 4, mode="linear", align_corners=True).numpy().ravel()
    np.testing.assert_allclose(by_edges, [0, 0.25, 0.75, 1])
    np.testing.assert_allclose(by_centres, [0, 1 / 3, 2 / 3, 1])


def test_the_factor_as_given_places_the_pixels_unless_recomputed():
    x = np.arange(5.0).reshape(1, 1, 5)
    given = F.interpolate(x, scale_factor=1.5, mode="linear").numpy().ravel()
    recomputed = F.interpolate(
        x, scale_factor=1.5, mode="linear", recompute_scale_factor=True
    ).numpy()
    p = np.arange(7)
    np.testing.assert_allclose(given, np.clip((p + 0.5) / 1.5 - 0.5, 0, 4))
    np.testing.assert_allclose(recomputed.ravel(), np.clip((p + 0.5) * 5 / 7 - 0.5, 0, 4))


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_an_infinite_pixel_does_not_spread_where_pixels_are_copied(mode):
    y = F.interpolate(np.array([[[1.0, -np.inf, 2.0]]]), 6, mode=mode).numpy().ravel()
    np.testing.assert_array_equal(y, [1, 1, -np.inf, -np.inf, 2, 2])


def test_integer_images_become_floats_where_they_are_weighed():
    y = F.interpolate(np.array([[[0, 1]]]), 4, mode="linear").numpy().ravel()
    np.testing.assert_allclose(y, [0, 0.25, 0.75, 1])


@pytest.mark.parametrize(
    "x, options, error, words",
    [
        (IMAGES, {}, ValueError, "either size or scale_factor, not neither"),
        (IMAGES, {"size": 2, "scale_factor": 2}, ValueError, "not both"),
        (IMAGES, {"size": (2, 2, 2)}, ValueError, "size must be an integer, or 2 of them"),
        (IMAGES, {"scale_factor": (2.0,)}, ValueError, "must be a finite number, or 2 of them"),
        (IMAGES, {"size": 2.5}, ValueError, "size must be an integer, or 2 of them.* not 2.5"),
        (IMAGES, {"size": "4"}, ValueError, "size must be an integer.* not '4'"),
        (IMAGES, {"scale_factor": "2"}, ValueError, "scale_factor must be a finite.* not '2'"),
        (IMAGES, {"scale_factor": np.inf}, ValueError, "scale_factor must be a finite.* not inf"),
        (IMAGES, {"size": 0}, ValueError, r"leaves no pixel: \(5, 6\) would become \(0, 0\)"),
        (IMAGES, {"scale_factor": 0.19}, ValueError, r"would become \(0, 1\)"),
        (IMAGES, {"size": 2, "mode": "linear"}, ShapeError, r"is for images \(N, C, W\).*bilinear"),
        (LINES, {"size": 2, "mode": "bicubic"}, ShapeError, r"is for images \(N, C, H, W\)"),
        (IMAGES, {"size": 2, "mode": "cubic"}, ValueError, "must be one of 'nearest', .*'bicubic'"),
        (IMAGES, {"size": 2, "align_corners": True}, ValueError, "only for 'linear'"),
        (IMAGES, {"size": 2, "recompute_scale_factor": True}, ValueError, "needs a scale_factor"),
        (
            IMAGES,
            {"size": 2, "mode": "bilinear", "antialias": True},
            ValueError,
            "antialias=True is not built here",
        ),
        (IMAGES[0, 0], {"size": 2}, ShapeError, r"\(N, C, W\), \(N, C, H, W\), \(N, C, D, H, W\)"),
        (IMAGES[:, :, :0], {"size": 2}, ShapeError, "no pixels"),
    ],
)
def test_errors_say_what_would_fit(x, options, error, words):
    with pytest.raises(error, match=words):
        F.interpolate(x, **options)
