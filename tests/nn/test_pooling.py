import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn

SIZES = {1: (9,), 2: (9, 7), 3: (5, 9, 7)}
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])


def images(dims):
    return np.random.default_rng(dims).standard_normal((2, 3, *SIZES[dims])).astype(np.float32)


def layer(home, name, dims, *args, **options):
    return getattr(home, f"{name}{dims}d")(*args, **options)


@DIMS
@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("MaxPool", (3, 2, 1, 1, False, True), {}),
        ("MaxPool", (2,), {"dilation": 2, "stride": 1}),
        ("MaxPool", (2,), {"return_indices": True}),
        ("AvgPool", (3, 2, 1, True, False), {}),
        ("AvgPool", (2,), {}),
        ("LPPool", (2, 3, 2, True), {}),
        ("LPPool", (float("inf"), 2), {}),
        ("AdaptiveAvgPool", (3,), {}),
        ("AdaptiveMaxPool", (2,), {}),
        ("AdaptiveMaxPool", (4, True), {}),
    ],
)
def test_layers_agree_with_pytorch_argument_by_argument(name, args, options, dims):
    torch = pytest.importorskip("torch")
    ours = layer(nn, name, dims, *args, **options)(mt.tensor(images(dims)))
    theirs = layer(torch.nn, name, dims, *args, **options)(torch.tensor(images(dims)))
    if not isinstance(theirs, tuple):
        ours, theirs = (ours,), (theirs,)
    assert len(ours) == len(theirs)
    for y, expected in zip(ours, theirs):
        np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_mean_may_have_another_divisor(dims):
    x = mt.tensor(images(dims))
    y = layer(nn, "AvgPool", dims, 2, divisor_override=1)(x)
    mean = layer(nn, "AvgPool", dims, 2)(x)
    np.testing.assert_allclose(y.numpy(), mean.numpy() * 2**dims, rtol=1e-5)


@DIMS
def test_an_unpool_layer_takes_indices_and_the_size_of_what_was_pooled(dims):
    x = mt.tensor(images(dims))
    y, indices = layer(nn, "MaxPool", dims, 3, 2, 1, return_indices=True)(x)
    back = layer(nn, "MaxUnpool", dims, 3, 2, 1)(y, indices, output_size=x.shape)
    kept = back.numpy() != 0
    assert back.shape == x.shape and kept.any()
    np.testing.assert_array_equal(back.numpy()[kept], x.numpy()[kept])
    assert set(y.numpy().flat) == set(back.numpy()[kept])


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        (nn.MaxPool1d(3, 2, return_indices=True), "MaxPool1d(3, stride=2, return_indices=True)"),
        (nn.AvgPool1d(2, padding=1), "AvgPool1d(2, padding=1)"),
        (nn.AvgPool3d((1, 2, 2)), "AvgPool3d((1, 2, 2))"),
        (nn.LPPool2d(2, 3, ceil_mode=True), "LPPool2d(2, 3, ceil_mode=True)"),
        (nn.MaxUnpool2d(3, 2, 1), "MaxUnpool2d(3, stride=2, padding=1)"),
        (nn.AdaptiveMaxPool3d(2, True), "AdaptiveMaxPool3d(2, return_indices=True)"),
        (nn.AdaptiveAvgPool3d((1, None, None)), "AdaptiveAvgPool3d((1, None, None))"),
    ],
)
def test_a_pool_shows_what_differs_from_the_defaults(module, shown):
    assert repr(module) == shown
