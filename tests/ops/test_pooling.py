import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal, positive


def theirs(name, *args, **options):
    def pool(x):
        import torch

        return getattr(torch.nn.functional, name)(x, *args, **options)

    return pool


def agree(name, x, *args, **options):
    compare(lambda t: getattr(F, name)(t, *args, **options), theirs(name, *args, **options), x)


def tied(*shape, seed=0):
    """Few different values, so that most windows have several greatest elements."""
    return np.random.default_rng([seed, *shape]).integers(0, 3, shape).astype(float)


def distinct(*shape, seed=0):
    """No two values nearer than a small step can reach, so that no maximum is on a kink."""
    size = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(size).reshape(shape) / size


WINDOWS = [
    {"kernel_size": 2},
    {"kernel_size": (3, 2), "stride": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (1, 3), "padding": (1, 0), "ceil_mode": True},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 3, "stride": 5, "ceil_mode": True},
]
DILATED = [
    {"kernel_size": 2, "dilation": 3, "stride": 1},
    {"kernel_size": 3, "dilation": (1, 2), "padding": 1, "stride": 2},
    {"kernel_size": (3, 2), "dilation": 2, "ceil_mode": True},
]


@pytest.mark.parametrize("options", WINDOWS + DILATED)
def test_max_pool2d_agrees_with_pytorch_also_on_ties(options):
    agree("max_pool2d", normal(2, 3, 7, 8), **options)
    agree("max_pool2d", tied(2, 3, 7, 8), **options)
    agree("max_pool2d", tied(2, 3, 7, 8), **options, return_indices=True)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("options", WINDOWS)
def test_avg_pool2d_agrees_with_pytorch(options, count_include_pad):
    agree("avg_pool2d", normal(2, 3, 7, 8), **options, count_include_pad=count_include_pad)


@pytest.mark.parametrize("divisor", [4, -3])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_mean_may_be_divided_by_another_number(dims, divisor):
    x = normal(2, 3, *(4, 7, 5)[-dims:])
    agree(f"avg_pool{dims}d", x, 3, stride=2, padding=1, divisor_override=divisor)


@st.composite
def windows_of_a_pool(draw):
    """Images in one, two or three dimensions, and options that PyTorch takes for them."""
    dims = draw(st.integers(1, 3))

    def one_each(least, most):
        return draw(st.tuples(*[st.integers(least, most)] * dims))

    kernel = one_each(1, 4)
    options = {
        "kernel_size": kernel,
        "stride": draw(st.none() | st.just(one_each(1, 4))),
        "padding": tuple(min(p, k // 2) for p, k in zip(one_each(0, 2), kernel)),
        "ceil_mode": draw(st.booleans()),
    }
    return tied(draw(st.integers(0, 2)), 2, *one_each(1, 8)), options, one_each(1, 3)


def both_agree_or_refuse(name, x, **options):
    """Whatever PyTorch takes gives the same here; what it refuses is refused."""
    try:
        y = getattr(F, name)(x, **options)
    except mt.ShapeError:
        with pytest.raises(RuntimeError, match="[Oo]utput size"):
            theirs(name, **options)(as_torch(x))
    else:
        y = y[0] if isinstance(y, tuple) else y
        # A dilated window may step over a small image and see padding alone. PyTorch 2.13
        # writes outside its memory in the backward pass of such a window.
        assume(np.isfinite(y.numpy()).all())
        agree(name, x, **options)


@settings(max_examples=120, deadline=None)
@given(given=windows_of_a_pool(), count_include_pad=st.booleans(), return_indices=st.booleans())
def test_pools_agree_with_pytorch_at_any_shape(given, count_include_pad, return_indices):
    x, options, dilation = given
    d = x.ndim - 2
    both_agree_or_refuse(
        f"max_pool{d}d", x, **options, dilation=dilation, return_indices=return_indices
    )
    if d == 3 and any(k > n for k, n in zip(options["kernel_size"], x.shape[2:])):
        return  # PyTorch's mean of a volume wants it larger than the window without its border
    both_agree_or_refuse(f"avg_pool{d}d", x, **options, count_include_pad=count_include_pad)


@settings(max_examples=40, deadline=None)
@given(given=windows_of_a_pool(), power=st.sampled_from([1, 2, 3, 0.5, np.inf, -np.inf]))
def test_norm_pools_agree_with_pytorch_at_any_shape(given, power):
    x, options, _ = given
    x = 0.5 + x if power == 0.5 else x  # the slope of the root at 0 is infinite
    del options["padding"]
    if x.ndim == 5:
        assume(all(k <= n for k, n in zip(options["kernel_size"], x.shape[2:])))  # as above
    if x.ndim == 3:  # PyTorch's is for integers only here
        options = {name: v[0] if isinstance(v, tuple) else v for name, v in options.items()}
    both_agree_or_refuse(f"lp_pool{x.ndim - 2}d", x, norm_type=power, **options)


def test_a_norm_pool_of_negative_sums_has_no_root_and_of_zeros_no_gradient():
    agree("lp_pool1d", np.array([[[-1.0, 2.0, -3.0, 1.0]]]), 3, 2)
    agree("lp_pool1d", np.array([[[-1.0, 2.0, -3.0, 3.0]]]), 1, 2)
    agree("lp_pool1d", np.array([[[0.0, 0.0, 3.0, 4.0]]]), 2, 2)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("values", [[0, np.nan, 2], [np.nan, 1], [-np.inf], [-np.inf, -np.inf, 0]])
def test_indices_and_gradients_agree_with_pytorch_on_nan_and_infinity(values, dims):
    x = np.random.default_rng(7).choice(values, (2, 3, *(5, 4, 6)[-dims:])).astype(float)
    for options in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}):
        agree(f"max_pool{dims}d", x, **options)
        agree(f"max_pool{dims}d", x, **options, return_indices=True)
    agree(f"max_pool{dims}d", x, 2, dilation=2, padding=1, stride=1, return_indices=True)
    agree(f"adaptive_max_pool{dims}d", x, 2, return_indices=True)
    agree(f"adaptive_max_pool{dims}d", x, 3, return_indices=True)


@pytest.mark.parametrize("name", ["avg_pool2d", "adaptive_avg_pool2d"])
def test_an_infinite_pixel_stays_in_its_windows(name):
    x = normal(1, 1, 6, 7)
    x[0, 0, 2, 3] = np.inf
    agree(name, x, 4) if "adaptive" in name else agree(name, x, 2)


def test_indices_are_positions_in_the_image_and_record_nothing():
    x = mt.tensor(normal(2, 3, 5, 6), requires_grad=True)
    y, indices = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert indices.dtype == np.int64 and not indices.requires_grad
    picked = np.take_along_axis(x.numpy().reshape(2, 3, 30), indices.numpy().reshape(2, 3, -1), 2)
    np.testing.assert_array_equal(picked.reshape(y.shape), y.numpy())
    one, of_one = F.max_pool2d(x[0], 3, 2, 1, return_indices=True)
    np.testing.assert_array_equal(of_one.numpy(), indices.numpy()[0])
    np.testing.assert_array_equal(one.numpy(), y.numpy()[0])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_graph_shows_the_public_names(dims):
    x = mt.tensor(normal(1, 2, *(4,) * dims), requires_grad=True)
    y, indices = getattr(F, f"max_pool{dims}d")(x, 2, return_indices=True)
    results = {
        "max_pool": y,
        "avg_pool": getattr(F, f"avg_pool{dims}d")(x, 2),
        "lp_pool": getattr(F, f"lp_pool{dims}d")(x, 2, 2),
        "adaptive_avg_pool": getattr(F, f"adaptive_avg_pool{dims}d")(x, 2),
        "adaptive_max_pool": getattr(F, f"adaptive_max_pool{dims}d")(x, 2),
        "max_unpool": getattr(F, f"max_unpool{dims}d")(y, indices, 2),
    }
    for name, result in results.items():
        assert result._node.name == f"{name}{dims}d"


def unpooled(x, output_size=None, **window):
    """The squares of what a pool kept, back in place: in the library of the tensor."""
    home = F if isinstance(x, mt.Tensor) else pytest.importorskip("torch").nn.functional
    dims = x.ndim - 2
    y, indices = getattr(home, f"max_pool{dims}d")(x, **window, return_indices=True)
    unpool = getattr(home, f"max_unpool{dims}d")
    return unpool(y * y, indices, **window, output_size=output_size)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "window",
    [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 3}],
)
def test_unpooling_agrees_with_pytorch(window, dims):
    def there_and_back(x):
        return unpooled(x, x.shape, **window)

    x = normal(2, 3, *(7, 6, 9)[-dims:])
    compare(there_and_back, there_and_back, x)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_unpooling_finds_the_usual_size_by_itself(dims):
    def there_and_back(x):
        return unpooled(x, kernel_size=3, stride=2, padding=1)

    x = normal(2, 3, *(7, 5, 9)[-dims:])
    compare(there_and_back, there_and_back, x)
    assert there_and_back(mt.tensor(x)).shape == x.shape


def test_unpooling_puts_the_greatest_back_and_zeros_elsewhere():
    x = mt.tensor([[[[1.0, 5.0, 2.0], [3.0, 4.0, 9.0]]]])
    y, indices = F.max_pool2d(x, (2, 1), return_indices=True)
    back = F.max_unpool2d(y, indices, (2, 1))
    assert back.tolist() == [[[[0, 5, 0], [3, 0, 9]]]]
    again, same = F.max_pool2d(back, (2, 1), return_indices=True)
    assert again.tolist() == y.tolist() and same.tolist() == indices.tolist()
    assert F.max_unpool2d(y[0], indices[0], (2, 1)).tolist() == back[0].tolist()


@settings(max_examples=30, deadline=None)
@given(given=windows_of_a_pool())
def test_a_pool_of_what_was_unpooled_is_the_pool(given):
    x, options, _ = given
    assume(x.shape[0])
    d = x.ndim - 2
    x = 1 + x
    del options["ceil_mode"]
    try:
        y, indices = getattr(F, f"max_pool{d}d")(x, **options, return_indices=True)
    except mt.ShapeError:
        return
    back = getattr(F, f"max_unpool{d}d")(y, indices, **options, output_size=x.shape)
    assert back.shape == x.shape
    again = getattr(F, f"max_pool{d}d")(back, **options)
    np.testing.assert_array_equal(again.numpy(), y.numpy())


def as_torch(x):
    return pytest.importorskip("torch").tensor(x)


@pytest.mark.parametrize("output_size", [1, 2, 5, (3, 4), (None, 2), (7, None), (9, 3)])
@pytest.mark.parametrize("name", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_adaptive_pools_agree_with_pytorch(name, output_size):
    agree(name, normal(2, 3, 7, 8), output_size)
    agree(name, tied(2, 3, 7, 8), output_size)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dims=st.integers(1, 3), return_indices=st.booleans())
def test_adaptive_pools_agree_with_pytorch_at_any_shape(data, dims, return_indices):
    size = data.draw(st.tuples(*[st.integers(1, 9)] * dims))
    output_size = data.draw(st.tuples(*[st.integers(1, 6)] * dims))
    x = tied(2, 1, *size)
    agree(f"adaptive_avg_pool{dims}d", x, output_size)
    agree(f"adaptive_max_pool{dims}d", x, output_size, return_indices=return_indices)


@pytest.mark.parametrize("options", WINDOWS + DILATED)
def test_max_pool2d_gradients_are_those_measured(options):
    check_gradients(F.max_pool2d, distinct(2, 2, 5, 6), **options)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("options", WINDOWS)
def test_avg_pool2d_gradients_are_those_measured(options, count_include_pad):
    check_gradients(
        F.avg_pool2d, normal(2, 2, 5, 6), **options, count_include_pad=count_include_pad
    )


@pytest.mark.parametrize("dims", [1, 3])
def test_gradients_in_one_and_three_dimensions_are_those_measured(dims):
    x = distinct(2, 2, *(4, 3, 5)[-dims:])
    window = {"kernel_size": 3, "stride": 2, "padding": 1}
    for name, options in [
        ("max_pool", window | {"dilation": 2 if dims == 1 else 1}),
        ("avg_pool", window | {"count_include_pad": False}),
        ("adaptive_avg_pool", {"output_size": 2}),
        ("adaptive_max_pool", {"output_size": 2}),
    ]:
        check_gradients(getattr(F, f"{name}{dims}d"), x, **options)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("power", [1, 2, 3.5])
def test_norm_pool_gradients_are_those_measured(dims, power):
    x = positive(2, 2, *(4, 3, 5)[-dims:])
    op = getattr(F, f"lp_pool{dims}d")
    check_gradients(op, x, norm_type=power, kernel_size=2, stride=1, ceil_mode=True)


def test_unpooling_gradients_are_those_measured():
    indices = np.array([[[[0, 7], [14, 9]]]])
    check_gradients(lambda x: F.max_unpool2d(x, indices, 2), normal(1, 1, 2, 2))


@pytest.mark.parametrize("output_size", [1, (2, 4), (None, 7)])
def test_adaptive_gradients_are_those_measured(output_size):
    check_gradients(F.adaptive_avg_pool2d, normal(2, 2, 5, 6), output_size=output_size)
    check_gradients(F.adaptive_max_pool2d, distinct(2, 2, 5, 6), output_size=output_size)


@pytest.mark.parametrize(
    "pool", [lambda x: F.max_pool2d(x, 2), lambda x: F.adaptive_max_pool2d(x, 1)]
)
def test_the_first_of_equal_maxima_gets_the_gradient(pool):
    """The first row by row: the right one of the upper row comes before the left one below."""
    x = mt.tensor([[[[0.0, 1.0], [1.0, 1.0]]]], requires_grad=True)
    pool(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[[[0, 1], [0, 0]]]])


def test_padding_never_wins_a_maximum():
    x = mt.tensor(-1 - np.arange(9.0).reshape(1, 1, 3, 3), requires_grad=True)
    y = F.max_pool2d(x, 2, stride=2, padding=1)
    np.testing.assert_array_equal(y.numpy(), [[[[-1, -2], [-4, -5]]]])
    y.sum().backward()
    assert x.grad.numpy().sum() == 4


def test_a_window_that_sees_padding_alone_has_no_maximum_and_no_gradient():
    x = mt.tensor([[[[5.0]]]], requires_grad=True)
    y = F.max_pool2d(x, (1, 2), padding=(0, 1), dilation=(1, 2))
    assert y.item() == -np.inf
    y.backward()
    assert x.grad.item() == 0


def test_more_taps_than_a_byte_can_count():
    x = np.zeros((1, 1, 1, 400))
    x[..., 390] = 1
    t = mt.tensor(x, requires_grad=True)
    F.max_pool2d(t, (1, 400)).sum().backward()
    np.testing.assert_array_equal(t.grad.numpy(), x)


def test_global_pools_are_the_mean_and_the_maximum_of_each_channel():
    x = normal(3, 4, 5, 7)
    mean, greatest = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, (1, 1))
    np.testing.assert_allclose(mean.numpy()[:, :, 0, 0], x.mean(axis=(2, 3)), atol=1e-12)
    np.testing.assert_array_equal(greatest.numpy()[:, :, 0, 0], x.max(axis=(2, 3)))


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("args", [(2,), (3, 1, 1)])
def test_one_image_an_empty_batch_and_a_transposed_one(name, args):
    agree(name, normal(3, 6, 5), *args)
    agree(name, normal(0, 3, 6, 5), *args)
    x = normal(5, 6, 2, 3).T
    assert not x.flags.c_contiguous
    expected = getattr(F, name)(x.copy(), *args).numpy()
    np.testing.assert_array_equal(getattr(F, name)(x, *args).numpy(), expected)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_channels_last_in_memory_stay_last(name, padding):
    """The strides of what a convolution gave: the same result, and the same layout for the next."""
    x = normal(2, 6, 8, 5).transpose(0, 3, 1, 2)
    results = []
    for images in (x, x.copy()):
        t = mt.Tensor(images, requires_grad=True)
        y = getattr(F, name)(t, 3, 2, padding)
        y.backward(normal(*y.shape))
        results.append((y, t.grad))
    assert results[0][0].data.transpose(0, 2, 3, 1).flags.c_contiguous
    for last, first in zip(*results):
        np.testing.assert_array_equal(last.numpy(), first.numpy())


@pytest.mark.parametrize("name", ["adaptive_max_pool2d", "adaptive_avg_pool2d"])
def test_adaptive_pools_of_one_image_and_of_an_empty_batch(name):
    agree(name, normal(3, 6, 5), (2, 3))
    agree(name, normal(0, 3, 6, 5), (2, 3))


def test_a_maximum_of_integers_stays_an_integer():
    x = mt.tensor(np.arange(-8, 8).reshape(1, 1, 4, 4))
    y = F.max_pool2d(x, 3, 2, 1)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y.numpy(), [[[[-3, -1], [5, 7]]]])


def unpool(x, indices, output_size=None):
    return F.max_unpool2d(x, indices, 2, output_size=output_size)


def like(x, value):
    return np.full(x.shape, value)


@pytest.mark.parametrize(
    ("pool", "error", "message"),
    [
        (lambda x: F.max_pool2d(x, 7), mt.ShapeError, r"max_pool2d: no window of 7x7 fits .*5, 6"),
        (lambda x: F.avg_pool2d(x, (2, 9)), mt.ShapeError, "avg_pool2d: no window of 2x9"),
        (lambda x: F.max_pool2d(x, 3, dilation=3), mt.ShapeError, r"3x3, dilation \(3, 3\)"),
        (lambda x: F.max_pool2d(x, 2, padding=2), ValueError, "at most half of the window, 2x2"),
        (lambda x: F.avg_pool2d(x, 3, padding=2), ValueError, "at most half of the window, 3x3"),
        (lambda x: F.max_pool2d(x, 0), ValueError, "kernel_size must be an integer of at least 1"),
        (lambda x: F.max_pool2d(x, 2, stride=0), ValueError, "stride must be"),
        (lambda x: F.max_pool2d(x, 2, dilation=0), ValueError, "dilation must be"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=0), ValueError, "must not be 0"),
        (lambda x: F.max_pool2d(x[0, 0], 2), mt.ShapeError, r"\(N, C, H, W\).*not \(5, 6\)"),
        (lambda x: F.adaptive_avg_pool2d(x[0, 0], 2), mt.ShapeError, r"not \(5, 6\)"),
        (lambda x: F.adaptive_avg_pool2d(x, 0), ValueError, "adaptive_avg_pool2d: output_size"),
        (lambda x: F.adaptive_max_pool2d(x, (1, 2, 3)), ValueError, r"output_size.*\(1, 2, 3\)"),
        (lambda x: F.adaptive_max_pool2d(x[:, :, :0], 2), mt.ShapeError, "no pixels"),
        (
            lambda x: F.max_pool1d(x, 2),
            mt.ShapeError,
            r"max_pool1d.*\(N, C, W\).*not \(2, 3, 5, 6\)",
        ),
        (lambda x: F.avg_pool3d(x[0, 0], 2), mt.ShapeError, r"avg_pool3d.*\(N, C, D, H, W\)"),
        (lambda x: F.lp_pool2d(x, 2, 7), mt.ShapeError, "lp_pool2d: no window of 7x7"),
        (lambda x: F.lp_pool2d(x, 0, 2), ValueError, "lp_pool2d: norm_type must not be 0"),
        (lambda x: unpool(x, [[0]]), mt.ShapeError, r"\(2, 3, 5, 6\), the indices \(1, 1\)"),
        (lambda x: unpool(x, x), mt.DTypeError, "max_unpool2d: indices are integers, not float64"),
        (lambda x: unpool(x, x > 0), mt.DTypeError, "not bool"),
        (lambda x: unpool(x, like(x, 120)), IndexError, "index 120 lies outside an image of 10x12"),
        (lambda x: unpool(x, like(x, -1)), IndexError, "index -1 lies outside"),
        (lambda x: unpool(x, like(x, 0), (12, 12)), mt.ShapeError, "may be 9 to 11 and 11 to 13"),
        (lambda x: unpool(x, like(x, 0), (10, 14)), mt.ShapeError, "images of 10x14 do not pool"),
        (lambda x: unpool(x, like(x, 0), (1, 2, 3, 4, 5)), ValueError, "output_size"),
        (lambda x: F.max_unpool2d(x[0, 0], like(x[0, 0], 0), 2), mt.ShapeError, r"\(N, C, H, W\)"),
    ],
)
def test_what_cannot_be_pooled_is_explained(pool, error, message):
    with pytest.raises(error, match=message):
        pool(mt.tensor(normal(2, 3, 5, 6)))


@pytest.mark.parametrize("pool", [F.adaptive_avg_pool2d, F.avg_pool2d])
def test_the_mean_of_bytes_neither_wraps_nor_vanishes(pool):
    images = np.full((1, 2, 4, 4), 201, np.uint8)
    assert (pool(mt.tensor(images), 2) == 201).all()


def test_an_image_may_be_nested_lists():
    assert F.max_pool2d([[[1.0, 2.0], [3.0, 4.0]]], 2).tolist() == [[[4.0]]]
    assert F.conv2d([[[1.0, 2.0]]], mt.ones(1, 1, 1, 2)).tolist() == [[[3.0]]]
