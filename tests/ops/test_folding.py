import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal

SETTINGS = [
    {},
    {"stride": 2},
    {"padding": (2, 1)},
    {"dilation": (1, 2)},
    {"dilation": 2, "padding": (1, 3), "stride": (3, 1)},
]


def theirs(name, *args, **options):
    def op(x):
        import torch

        return getattr(torch.nn.functional, name)(x, *args, **options)

    return op


def compare_both(x, kernel, options):
    """Unfold images as PyTorch does, and fold their columns."""
    size = x.shape[-2:]
    compare(lambda x: F.unfold(x, kernel, **options), theirs("unfold", kernel, **options), x)
    columns = normal(*F.unfold(x, kernel, **options).shape)
    compare(
        lambda x: F.fold(x, size, kernel, **options),
        theirs("fold", size, kernel, **options),
        columns,
    )


@settings(max_examples=80, deadline=None)
@given(
    N=st.integers(0, 3),
    C=st.integers(1, 3),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_both_agree_with_pytorch_at_any_shape(N, C, size, kernel, dilation, padding, stride):
    x, options = normal(N, C, *size), {"dilation": dilation, "padding": padding, "stride": stride}
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    if any(r > n + 2 * p for r, n, p in zip(reach, size, padding)):
        with pytest.raises(mt.ShapeError, match="^unfold: .*does not fit into an image"):
            F.unfold(x, kernel, **options)
        with pytest.raises(mt.ShapeError, match="^fold: .*does not fit into an image"):
            F.fold(normal(N, C * kernel[0] * kernel[1], 1), size, kernel, **options)
    else:
        compare_both(x, kernel, options)


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize("shape", [(2, 3, 6, 7), (3, 6, 7)], ids=["batch", "one image"])
def test_both_agree_with_pytorch_for_a_batch_and_for_one_image(options, shape):
    compare_both(normal(*shape), 2, options)
    compare_both(normal(*shape), (3, 2), options)


@pytest.mark.parametrize("options", SETTINGS)
def test_each_is_the_transpose_of_the_other(options):
    """<unfold(x), y> = <x, fold(y)> for any images x and columns y."""
    x = normal(2, 3, 7, 8)
    columns = F.unfold(x, (2, 3), **options).numpy()
    y = normal(*columns.shape, seed=1)
    images = F.fold(y, (7, 8), (2, 3), **options).numpy()
    assert (columns * y).sum() == pytest.approx((x * images).sum())


@pytest.mark.parametrize("options", SETTINGS)
def test_gradients_are_those_measured(options):
    x = normal(2, 2, 6, 7)
    check_gradients(F.unfold, x, (2, 3), **options)
    columns = normal(*F.unfold(x, (2, 3), **options).shape)
    check_gradients(F.fold, columns, (6, 7), (2, 3), **options)


def test_a_column_holds_what_the_kernel_sees_channel_by_channel():
    x = np.arange(2 * 4 * 5).reshape(1, 2, 4, 5)
    columns = F.unfold(x, (2, 3)).numpy()
    assert columns.shape == (1, 2 * 2 * 3, 3 * 3) and columns.dtype == x.dtype
    for p, q in np.ndindex(3, 3):
        np.testing.assert_array_equal(
            columns[0, :, p * 3 + q], x[0, :, p : p + 2, q : q + 3].ravel()
        )


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": (2, 1)}])
def test_a_convolution_is_a_matrix_product_with_the_columns(options):
    x, w = normal(2, 3, 7, 6), normal(4, 3, 3, 2)
    y = F.conv2d(x, w, **options).numpy()
    product = w.reshape(4, -1) @ F.unfold(x, (3, 2), **options).numpy()
    np.testing.assert_allclose(y.reshape(2, 4, -1), product, atol=1e-12)


def test_folding_what_was_unfolded_counts_how_often_each_pixel_was_seen():
    x = normal(2, 3, 5, 5)
    folded = F.fold(F.unfold(x, 3), 5, 3).numpy()
    seen = np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1])
    np.testing.assert_allclose(folded, x * seen, atol=1e-12)


def test_patches_side_by_side_fold_back_to_the_image():
    x = normal(2, 3, 6, 8)
    columns = F.unfold(x, (3, 4), stride=(3, 4))
    np.testing.assert_array_equal(F.fold(columns, (6, 8), (3, 4), stride=(3, 4)).numpy(), x)


def test_inputs_that_are_not_contiguous():
    x = normal(5, 6, 2, 3).transpose(2, 3, 0, 1)[:, :, ::-1]
    np.testing.assert_array_equal(F.unfold(x, 2).numpy(), F.unfold(x.copy(), 2).numpy())
    columns = normal(20, 12, 2).T
    np.testing.assert_array_equal(
        F.fold(columns, (5, 6), 2).numpy(), F.fold(columns.copy(), (5, 6), 2).numpy()
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.unfold(normal(2, 3, 4, 5), 0), ValueError, "unfold: kernel_size must be"),
        (lambda: F.unfold(normal(2, 3, 4, 5), 2, 0), ValueError, "unfold: dilation must be"),
        (lambda: F.unfold(normal(2, 3, 4, 5), 2, 1, -1), ValueError, "unfold: padding must be"),
        (lambda: F.unfold(normal(2, 3, 4, 5), 2, 1, 0, 0), ValueError, "unfold: stride must be"),
        (
            lambda: F.unfold(normal(2, 3, 4, 5), (5, 2)),
            mt.ShapeError,
            "unfold: a kernel of 5x2 does not fit into an image of 4x5",
        ),
        (
            lambda: F.unfold(normal(4, 5), 2),
            mt.ShapeError,
            r"unfold: needs images of shape \(N, C, H, W\).*not \(4, 5\)",
        ),
        (lambda: F.fold(normal(2, 8, 12), 0, 2), ValueError, "fold: output_size must be"),
        (
            lambda: F.fold(normal(8), 4, 2),
            mt.ShapeError,
            r"fold: needs columns of shape \(N, C \* R \* S, L\).*not \(8,\)",
        ),
        (
            lambda: F.fold(normal(2, 9, 12), (4, 5), 2),
            mt.ShapeError,
            r"fold: columns of 9 numbers .*2x2 pixels: they need 4 numbers for each channel",
        ),
        (
            lambda: F.fold(normal(2, 8, 11), (4, 5), 2),
            mt.ShapeError,
            "fold: a kernel of 2x2 .* has 3x4 = 12 places in an image of 4x5, .*11 columns",
        ),
        (
            lambda: F.fold(normal(2, 8, 13), (4, 5), 2),
            mt.ShapeError,
            "fold: .* 13 columns: give 12",
        ),
        (
            lambda: F.fold(normal(2, 8, 11), (1, 5), 2),
            mt.ShapeError,
            "fold: a kernel of 2x2 does not fit into an image of 1x5",
        ),
    ],
)
def test_what_does_not_fit_is_explained(call, error, message):
    with pytest.raises(error, match="^" + message):
        call()


def test_writing_into_columns_leaves_the_image_alone():
    x = mt.ones(1, 2, 3, 3)
    F.unfold(x, 1)[...] = 0
    assert x.numpy().all()
