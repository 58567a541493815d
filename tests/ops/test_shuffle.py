import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import check_gradients, compare, normal


def pytorch(name):
    import torch

    return getattr(torch.nn.functional, name)


@pytest.mark.parametrize("r", [1, 2, 3])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_pixel_shuffle_agrees_with_pytorch(batch, r):
    pytest.importorskip("torch")
    compare(F.pixel_shuffle, pytorch("pixel_shuffle"), normal(*batch, 2 * r * r, 3, 4), r)
    compare(F.pixel_unshuffle, pytorch("pixel_unshuffle"), normal(*batch, 2, 3 * r, 2 * r), r)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_pixel_unshuffle_undoes_pixel_shuffle(r):
    x = normal(2, 2 * r * r, 3, 4)
    np.testing.assert_array_equal(F.pixel_unshuffle(F.pixel_shuffle(x, r), r).numpy(), x)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("rest", [(4,), (2, 3), (2, 1, 2)])
def test_channel_shuffle_agrees_with_pytorch(rest, groups):
    pytest.importorskip("torch")
    compare(F.channel_shuffle, pytorch("channel_shuffle"), normal(2, 6, *rest), groups)


def test_an_empty_batch_keeps_its_shapes():
    x = mt.zeros(0, 8, 3, 4, requires_grad=True)
    y = F.pixel_shuffle(x, 2)
    y.sum().backward()
    assert (y.shape, x.grad.shape) == ((0, 2, 6, 8), (0, 8, 3, 4))
    assert F.channel_shuffle(x, 4).shape == x.shape


def test_channel_shuffle_deals_the_channels_out():
    x = mt.arange(6).reshape(1, 6, 1)
    assert F.channel_shuffle(x, 2).reshape(-1).tolist() == [0, 3, 1, 4, 2, 5]


def test_gradients_are_those_measured():
    check_gradients(F.pixel_shuffle, normal(1, 8, 2, 3), 2)
    check_gradients(F.pixel_unshuffle, normal(1, 2, 4, 2), 2)
    check_gradients(F.channel_shuffle, normal(2, 6, 2), 3)


def test_inputs_that_are_not_contiguous():
    x = normal(4, 3, 8).T
    for op in (F.pixel_shuffle, F.pixel_unshuffle):
        y = op(x[:, :2, :], 2) if op is F.pixel_unshuffle else op(x, 2)
        z = op(x[:, :2, :].copy(), 2) if op is F.pixel_unshuffle else op(x.copy(), 2)
        np.testing.assert_array_equal(y.numpy(), z.numpy())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.pixel_shuffle(mt.ones(1, 6, 2, 2), 2), mt.ShapeError, "4 divides.* has 6"),
        (lambda: F.pixel_shuffle(mt.ones(4, 4), 2), mt.ShapeError, r"\(\*, C, H, W\), not \(4, 4"),
        (lambda: F.pixel_shuffle(mt.ones(4, 2, 2), 0), ValueError, "upscale_factor must be"),
        (lambda: F.pixel_shuffle(mt.ones(4, 2, 2), "2"), ValueError, "at least 1, not '2'"),
        (
            lambda: F.pixel_unshuffle(mt.ones(1, 4, 5), 2),
            mt.ShapeError,
            r"downscale_factor=2 does not divide the height and the width of the input \(1, 4, 5\)",
        ),
        (lambda: F.pixel_unshuffle(mt.ones(1, 4, 4), -1), ValueError, "downscale_factor must be"),
        (lambda: F.channel_shuffle(mt.ones(1, 4, 2), 3), mt.ShapeError, "groups=3 does not divide"),
        (lambda: F.channel_shuffle(mt.ones(1, 4, 2), 0), ValueError, "at least 1, not 0"),
        (lambda: F.channel_shuffle(mt.ones(1, 4, 2), 2.0), ValueError, "at least 1, not 2.0"),
        (lambda: F.channel_shuffle(mt.ones(1, 4), 2), mt.ShapeError, r"\(N, C, L, ...\), not"),
    ],
)
def test_what_does_not_fit_is_explained(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "shuffle",
    [
        lambda x: F.pixel_shuffle(x, 1),
        lambda x: F.pixel_unshuffle(x, 1),
        lambda x: F.channel_shuffle(x, 1),
        lambda x: F.channel_shuffle(x, 4),
    ],
)
def test_writing_into_a_shuffle_that_moves_nothing_leaves_the_input_alone(shuffle):
    x = mt.ones(1, 4, 2, 2)
    shuffle(x)[...] = 0
    assert x.numpy().all()
