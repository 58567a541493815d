import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.engine import ShapeError

from .parity import check_gradients, compare, normal, torch

MODES = ("nearest", "bilinear", "bicubic")
PADDING_MODES = ("zeros", "border", "reflection")
OPTIONS = [
    {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    for mode, padding_mode, align_corners in itertools.product(MODES, PADDING_MODES, (False, True))
]
VOLUME_OPTIONS = [options for options in OPTIONS if options["mode"] != "bicubic"]


def places(*shape, reach=1.7, seed=0):
    """Places inside and outside the image, almost surely on no kink."""
    return np.random.default_rng([seed, *shape]).uniform(-reach, reach, shape)


def off_kinks(*shape, sizes, align_corners, reach=1.7, seed=0):
    """Places whose position in pixels is well between an integer and the next half.

    `sizes` are those of the image, last axis first: the order of the coordinates.
    """
    rng = np.random.default_rng([seed, *shape])
    grid = np.empty(shape)
    for d, size in enumerate(sizes):
        step = (size - 1) / 2 if align_corners else size / 2
        halves = np.floor(2 * rng.uniform(-reach, reach, shape[:-1]) * step)
        grid[..., d] = (halves / 2 + rng.uniform(0.1, 0.4, shape[:-1])) / step
        if (size - 1) % 2:  # the middle of the image is half a pixel off
            grid[..., d] += 0.5 / step
    return grid


def their_grid_sample(x, grid, **options):
    options.setdefault("align_corners", False)  # else it warns
    return torch.nn.functional.grid_sample(x, grid, **options)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(
    "image, result", [((2, 3, 5, 6), (4, 7)), ((1, 1, 1, 1), (3, 3)), ((3, 2, 1, 4), (1, 5))]
)
def test_grid_sample_of_images_agrees_with_pytorch(image, result, options):
    grid = places(image[0], *result, 2)
    compare(F.grid_sample, their_grid_sample, normal(*image), grid, **options)


@pytest.mark.parametrize("options", VOLUME_OPTIONS)
@pytest.mark.parametrize(
    "volume, result", [((2, 3, 4, 5, 6), (3, 2, 4)), ((1, 2, 1, 3, 1), (2, 2, 2))]
)
def test_grid_sample_of_volumes_agrees_with_pytorch(volume, result, options):
    grid = places(volume[0], *result, 3)
    compare(F.grid_sample, their_grid_sample, normal(*volume), grid, **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_grid_sample_far_outside_agrees_with_pytorch(options):
    grid = places(2, 6, 5, 2, reach=9)
    compare(F.grid_sample, their_grid_sample, normal(2, 3, 4, 3), grid, **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_on_pixels_and_on_the_edges_are_pytorchs(options):
    # With 5 x 5 pixels, or 4 x 4 of them, these places are exact: pixels, midpoints, edges.
    size, step = (5, 0.25) if options["align_corners"] else (4, 0.125)
    along = np.arange(-3, 3 + step, step)
    grid = np.stack(np.meshgrid(along, along), axis=-1)[None]
    compare(F.grid_sample, their_grid_sample, normal(1, 2, size, size), grid, **options)


@pytest.mark.parametrize("options", VOLUME_OPTIONS)
def test_gradients_on_voxels_and_on_the_edges_are_pytorchs(options):
    size, step = (3, 0.5) if options["align_corners"] else (2, 0.25)
    along = np.arange(-2, 2 + step, step)
    grid = np.stack(np.meshgrid(along, along, along[::3]), axis=-1)[None]
    compare(F.grid_sample, their_grid_sample, normal(1, 2, size, size, size), grid, **options)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("sizes", [(3, 4), (4, 5)])
def test_gradients_of_images_agree_with_central_differences(options, sizes):
    H, W = sizes
    grid = off_kinks(2, 3, 3, 2, sizes=(W, H), align_corners=options["align_corners"])
    if options["mode"] == "nearest":  # the grid has no gradient to check
        check_gradients(lambda x: F.grid_sample(x, grid, **options), normal(2, 2, H, W))
    else:
        check_gradients(F.grid_sample, normal(2, 2, H, W), grid, **options)


@pytest.mark.parametrize("options", VOLUME_OPTIONS)
def test_gradients_of_volumes_agree_with_central_differences(options):
    grid = off_kinks(1, 2, 2, 3, 3, sizes=(4, 3, 2), align_corners=options["align_corners"])
    if options["mode"] == "nearest":
        check_gradients(lambda x: F.grid_sample(x, grid, **options), normal(1, 2, 2, 3, 4))
    else:
        check_gradients(F.grid_sample, normal(1, 2, 2, 3, 4), grid, **options)


@pytest.mark.parametrize(
    "dims, options",
    [*((2, options) for options in OPTIONS), *((3, options) for options in VOLUME_OPTIONS)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_identity_grid_gives_the_image_back_bit_for_bit(dims, options, dtype):
    x = normal(2, 3, *(5, 6, 49)[:dims]).astype(dtype)
    y = F.grid_sample(x, identity_grid(x, options["align_corners"]), **options).numpy()
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_at_every_size_the_identity_is_exact(dtype, align_corners, padding_mode):
    for size in [*range(1, 65), 224, 299, 1023, 2048]:
        x = normal(1, 1, size, 3).astype(dtype)
        options = {"padding_mode": padding_mode, "align_corners": align_corners}
        y = F.grid_sample(x, identity_grid(x, align_corners), **options).numpy()
        np.testing.assert_array_equal(y, x, err_msg=f"of {size} rows")


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(2, 64), st.integers(2, 64)),
    shift=st.tuples(st.integers(-64, 64), st.integers(-64, 64)),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_a_shift_by_whole_pixels_moves_them_unchanged(size, shift, dtype):
    (H, W), (i, j) = size, shift
    x = normal(1, 1, H, W).astype(dtype)
    theta = np.array([[[1, 0, 2 * j / W], [0, 1, 2 * i / H]]], dtype)
    y = F.grid_sample(x, F.affine_grid(theta, x.shape)).numpy()
    far = np.pad(x, ((0, 0), (0, 0), (64, 64), (64, 64)))
    np.testing.assert_array_equal(y, far[:, :, 64 + i : 64 + i + H, 64 + j : 64 + j + W])


@pytest.mark.parametrize("align_corners", [False, True])
def test_at_the_identity_every_slope_is_that_to_the_right(align_corners):
    """Not to the left wherever rounding falls just short of a pixel."""
    x = normal(1, 1, 49, 49).astype("float32")
    grid = mt.tensor(identity_grid(x, align_corners), requires_grad=True)
    F.grid_sample(x, grid, align_corners=align_corners).sum().backward()
    step = (49 - 1) / 2 if align_corners else 49 / 2
    right = np.diff(x, axis=3, append=0)[0, 0]
    np.testing.assert_allclose(grid.grad.numpy()[0, ..., 0], right * step, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_places_are_off_by_no_more_than_rounding(dtype, align_corners):
    size, eps = 37, np.finfo(dtype).eps
    grid = places(1, 200, 200, 2, reach=0.97).astype(dtype)
    ramp = np.broadcast_to(np.arange(size, dtype=dtype), (1, 1, size, size))
    w = F.grid_sample(ramp, grid, align_corners=align_corners).numpy()[0, 0]
    g = grid[0, ..., 0].astype(np.longdouble)
    exact = (g + 1) / 2 * (size - 1) if align_corners else ((g + 1) * size - 1) / 2
    assert np.abs(w - exact).max() < 3 * size * eps


def identity_grid(x, align_corners):
    dims = x.ndim - 2
    theta = np.tile(np.eye(dims, dims + 1, dtype=x.dtype), (len(x), 1, 1))
    return F.affine_grid(theta, x.shape, align_corners=align_corners).numpy()


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_ramp_is_read_as_the_position_itself(align_corners):
    H, W = 7, 8
    rows, columns = np.meshgrid(np.arange(H), np.arange(W), indexing="ij")
    grid = places(1, 4, 5, 2, reach=0.4)  # all neighbours lie inside
    y = F.grid_sample(np.stack([rows, columns])[None], grid, align_corners=align_corners)
    for channel, coordinate, size in ((0, 1, H), (1, 0, W)):
        g = grid[0, ..., coordinate]
        position = (g + 1) / 2 * (size - 1) if align_corners else ((g + 1) * size - 1) / 2
        np.testing.assert_allclose(y.numpy()[0, channel], position, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reach", [1e5, 1e9, 1e30])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
def test_huge_coordinates_are_outside(mode, padding_mode, reach):
    corners = reach * np.array([[-1.0, -1], [1, -1], [-1, 1], [1, 1]]).reshape(1, 2, 2, 2)
    x, grid = mt.tensor(normal(1, 2, 3, 4), requires_grad=True), mt.tensor(corners)
    grid.requires_grad = True
    y = F.grid_sample(x, grid, mode, padding_mode, False)
    expected = x.numpy()[:, :, ::2, ::3] if padding_mode == "border" else np.zeros((1, 2, 2, 2))
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=1e-12)
    y.sum().backward()
    np.testing.assert_allclose(grid.grad.numpy(), 0, rtol=0, atol=1e-12)
    assert x.grad.numpy().sum() == pytest.approx(8 if padding_mode == "border" else 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_mirrored_place_is_inside_however_far_it_was(mode, align_corners):
    far = np.array([1e9, -1e9, 1e30, -1e30]).reshape(1, 1, 2, 2)
    y = F.grid_sample(np.ones((1, 1, 3, 4)), far, mode, "reflection", align_corners)
    np.testing.assert_allclose(y.numpy(), 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("dims", [2, 3])
def test_infinite_coordinates_are_outside_and_nan_counts_as_the_first_edge(
    mode, dims, align_corners
):
    x = np.arange(1.0, 5).reshape(1, 1, *(1,) * (dims - 1), 4)
    grid = np.zeros((1, *(1,) * (dims - 1), 3, dims))
    grid[..., 0] = np.inf, -np.inf, np.nan
    with np.errstate(all="raise"):
        zeros = F.grid_sample(x, grid, mode, "zeros", align_corners).numpy().ravel()
        border = F.grid_sample(x, grid, mode, "border", align_corners).numpy().ravel()
        mirrored = F.grid_sample(x, grid, mode, "reflection", align_corners).numpy().ravel()
    np.testing.assert_array_equal(zeros, [0, 0, np.nan if mode == "bilinear" else 0])
    np.testing.assert_array_equal(border, [4, 1, 1])
    assert mirrored[2] == 1 and set(mirrored) <= {1.0, 2.0, 3.0, 4.0}


def test_nan_in_the_grid_leaves_other_places_alone():
    x, grid = normal(1, 2, 4, 4), places(1, 2, 3, 2)
    grid[0, 0, 1] = np.nan
    image, where = mt.tensor(x, requires_grad=True), mt.tensor(grid, requires_grad=True)
    y = F.grid_sample(image, where)
    y.backward(np.ones(y.shape))
    assert np.isnan(y.numpy()).sum() == 2
    assert np.isfinite(image.grad.numpy()).all()
    assert np.isfinite(where.grad.numpy()[0, 1]).all()


def test_an_infinite_pixel_is_read_by_its_own_places_alone():
    x = normal(1, 1, 4, 4)
    x[0, 0, 3, 3] = np.inf
    y = F.grid_sample(x, np.array([[[[-0.5, -0.5], [0.9, 0.9]]]])).numpy().ravel()
    assert np.isfinite(y[0]) and np.isinf(y[1])


@pytest.mark.parametrize("options", OPTIONS)
def test_no_images_give_no_images(options):
    compare(F.grid_sample, their_grid_sample, normal(0, 2, 3, 4), normal(0, 5, 6, 2), **options)


def test_no_places_and_no_channels_give_nothing():
    assert F.grid_sample(normal(2, 3, 4, 4), np.zeros((2, 0, 5, 2))).shape == (2, 3, 0, 5)
    x = mt.tensor(np.zeros((2, 0, 4, 4)), requires_grad=True)
    grid = mt.tensor(places(2, 3, 5, 2), requires_grad=True)
    y = F.grid_sample(x, grid)
    y.backward(np.zeros(y.shape))
    assert y.shape == (2, 0, 3, 5) and x.grad.shape == x.shape and not grid.grad.numpy().any()


def test_many_images_are_sampled_block_by_block():
    compare(F.grid_sample, their_grid_sample, normal(7, 40, 9, 9), places(7, 30, 30, 2))


def test_integer_images_are_sampled_as_floats():
    x = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    grid = F.affine_grid(np.eye(2, 3)[None], (1, 1, 4, 4))
    y = F.grid_sample(x, grid)
    np.testing.assert_allclose(y.numpy(), x, rtol=0, atol=1e-12)


AFFINE = [(3, 2, 4, 5), (1, 1, 1, 1), (2, 3, 1, 4), (2, 1, 3, 4, 5), (1, 2, 1, 1, 3)]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", AFFINE)
def test_affine_grid_agrees_with_pytorch_and_with_central_differences(size, align_corners):
    theta = normal(size[0], len(size) - 2, len(size) - 1)
    settings = {"size": size, "align_corners": align_corners}
    compare(F.affine_grid, their_affine_grid, theta, **settings)
    check_gradients(F.affine_grid, theta, **settings)


def their_affine_grid(theta, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of axes of one pixel
        return torch.nn.functional.affine_grid(theta, **settings)


def test_coordinates_run_between_centres_or_between_edges():
    identity = np.eye(2, 3)[None]
    between_edges = F.affine_grid(identity, (1, 1, 1, 4)).numpy()[0, 0, :, 0]
    between_centres = F.affine_grid(identity, (1, 1, 1, 4), align_corners=True).numpy()[0, 0, :, 0]
    np.testing.assert_allclose(between_edges, [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(between_centres, [-1, -1 / 3, 1 / 3, 1])


def test_mixed_conventions_shrink_the_image():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    grid = F.affine_grid(np.eye(2, 3)[None], x.shape, align_corners=False)
    y = F.grid_sample(x, grid, align_corners=True).numpy()[0, 0]
    np.testing.assert_allclose(y[0], [1.875, 2.625, 3.375, 4.125])


IMAGE, GRID = np.zeros((2, 3, 4, 5)), np.zeros((2, 6, 7, 2))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: F.grid_sample(IMAGE[0], GRID), ShapeError, r"images \(N, C, H, W\) or volumes"),
        (lambda: F.grid_sample(IMAGE, GRID[:1]), ShapeError, r"must be \(2, P, Q, 2\), not \(1,"),
        (lambda: F.grid_sample(IMAGE, GRID[..., :1]), ShapeError, r"must be \(2, P, Q, 2\)"),
        (lambda: F.grid_sample(IMAGE[..., None], GRID), ShapeError, r"be \(2, O, P, Q, 3\)"),
        (lambda: F.grid_sample(IMAGE[:, :, :0], GRID), ShapeError, "no pixels to read"),
        (lambda: F.grid_sample(IMAGE, GRID, "cubic"), ValueError, "nearest, bilinear, bicubic"),
        (
            lambda: F.grid_sample(IMAGE, GRID, padding_mode="edge"),
            ValueError,
            "zeros, border, reflection, not 'edge'",
        ),
        (
            lambda: F.grid_sample(IMAGE[..., None], np.zeros((2, 6, 7, 8, 3)), "bicubic"),
            ValueError,
            "use 'bilinear' or 'nearest'",
        ),
        (
            lambda: F.affine_grid(np.zeros((2, 3, 3)), (2, 1, 4, 4)),
            ShapeError,
            r"be \(2, 2, 3\), not \(2, 3, 3\)",
        ),
        (
            lambda: F.affine_grid(np.zeros((1, 3, 4)), (2, 1, 4, 4, 4)),
            ShapeError,
            r"be \(2, 3, 4\), not \(1, 3, 4\)",
        ),
        (lambda: F.affine_grid(np.zeros((2, 2, 3)), (4, 4)), ShapeError, r"\(N, C, P, Q\) or"),
        (lambda: F.affine_grid(np.zeros((2, 2, 3)), (2, 1, 0, 4)), ShapeError, "at least 1"),
    ],
)
def test_errors_say_what_would_fit(call, error, words):
    with pytest.raises(error, match=words):
        call()
