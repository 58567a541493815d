import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal


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


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("options", WINDOWS)
def test_avg_pool2d_agrees_with_pytorch(options, count_include_pad):
    agree("avg_pool2d", normal(2, 3, 7, 8), **options, count_include_pad=count_include_pad)


def test_avg_pool2d_divides_by_another_number():
    agree("avg_pool2d", normal(2, 3, 7, 8), 3, stride=2, padding=1, divisor_override=4)


@settings(max_examples=80, deadline=None)
@given(
    batch=st.integers(0, 2),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    ceil_mode=st.booleans(),
    count_include_pad=st.booleans(),
)
def test_pools_agree_with_pytorch_at_any_shape(
    batch, size, kernel, stride, padding, dilation, ceil_mode, count_include_pad
):
    assume(all(2 * p <= k for p, k in zip(padding, kernel)))
    window = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    x = tied(batch, 2, *size)
    for name, options in [
        ("max_pool2d", window | {"dilation": dilation}),
        ("avg_pool2d", window | {"count_include_pad": count_include_pad}),
    ]:
        try:
            y = getattr(F, name)(x, **options)
        except mt.ShapeError:
            with pytest.raises(RuntimeError, match="Output size is too small"):
                theirs(name, **options)(as_torch(x))
        else:
            # A dilated window may step over a small image and see padding alone. PyTorch 2.13
            # writes outside its memory in the backward pass of such a window.
            assume(np.isfinite(y.numpy()).all())
            agree(name, x, **options)


def as_torch(x):
    return pytest.importorskip("torch").tensor(x)


@pytest.mark.parametrize("output_size", [1, 2, 5, (3, 4), (None, 2), (7, None), (9, 3)])
@pytest.mark.parametrize("name", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_adaptive_pools_agree_with_pytorch(name, output_size):
    agree(name, normal(2, 3, 7, 8), output_size)
    agree(name, tied(2, 3, 7, 8), output_size)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    output_size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_adaptive_pools_agree_with_pytorch_at_any_shape(size, output_size):
    x = tied(2, 1, *size)
    agree("adaptive_avg_pool2d", x, output_size)
    agree("adaptive_max_pool2d", x, output_size)


@pytest.mark.parametrize("options", WINDOWS + DILATED)
def test_max_pool2d_gradients_are_those_measured(options):
    check_gradients(F.max_pool2d, distinct(2, 2, 5, 6), **options)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("options", WINDOWS)
def test_avg_pool2d_gradients_are_those_measured(options, count_include_pad):
    check_gradients(
        F.avg_pool2d, normal(2, 2, 5, 6), **options, count_include_pad=count_include_pad
    )


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


@pytest.mark.parametrize("name", ["adaptive_max_pool2d", "adaptive_avg_pool2d"])
def test_adaptive_pools_of_one_image_and_of_an_empty_batch(name):
    agree(name, normal(3, 6, 5), (2, 3))
    agree(name, normal(0, 3, 6, 5), (2, 3))


def test_a_maximum_of_integers_stays_an_integer():
    x = mt.tensor(np.arange(-8, 8).reshape(1, 1, 4, 4))
    y = F.max_pool2d(x, 3, 2, 1)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y.numpy(), [[[[-3, -1], [5, 7]]]])


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
