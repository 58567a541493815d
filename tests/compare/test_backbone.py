"""The backbone, and the places in it."""

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn
from minitorch_attn.compare import Backbone, place
from minitorch_attn.compare.families import FAMILIES


def counts_calls(calls):
    class Counted(nn.Identity):
        def forward(self, x):
            calls.append(x.shape)
            return x

    return Counted


@pytest.mark.parametrize(
    ("where", "shapes"),
    [
        ("front", [(2, 1, 24, 24)]),
        ("block", [(2, 8, 12, 12), (2, 16, 6, 6)]),
        ("convolution", [(2, 8, 12, 12), (2, 16, 6, 6)]),
        ("between", [(2, 8, 12, 12)]),
    ],
)
def test_a_place_hands_over_the_maps_that_it_promises(where, shapes):
    calls = []
    backbone = place(Backbone(widths=(8, 16)), where, lambda channels: counts_calls(calls)())
    assert backbone(np.ones((2, 1, 24, 24))).shape == (2, 10)
    assert calls == shapes


def test_a_pooling_is_in_place_of_the_mean_and_a_head_of_the_linear_map_too():
    x = np.random.default_rng(0).random((2, 1, 24, 24))
    largest = place(
        Backbone(), "pool", lambda channels: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    )
    features = largest.features(x)
    expected = features.amax(dim=(2, 3)) @ largest.fc.weight.t() + largest.fc.bias
    np.testing.assert_allclose(largest(x).numpy(), expected.numpy(), rtol=1e-5)

    head = place(
        Backbone(),
        "head",
        lambda channels, classes: nn.Sequential(nn.Flatten(), nn.Linear(36 * channels, classes)),
    )
    assert head(x).shape == (2, 10)
    assert "fc.1.weight" in dict(head.named_parameters())


def test_the_modules_are_made_for_the_channels_where_they_stand():
    asked = []
    for where in ("front", "block", "between", "pool"):
        place(
            Backbone(in_channels=3, widths=(8, 16)),
            where,
            lambda c: asked.append(c) or nn.Identity(),
        )
    place(Backbone(5, widths=(8, 16)), "head", lambda c, k: asked.append((c, k)) or nn.Identity())
    assert asked == [3, 8, 16, 8, 16, (16, 5)]


def test_unknown_place_is_told_with_those_there_are():
    with pytest.raises(ValueError, match="no place 'middle'.*front, block"):
        place(Backbone(), "middle", nn.Identity)


def test_features_are_halved_twice_and_not_negative():
    features = Backbone().features(np.random.default_rng(0).random((2, 1, 24, 20)))
    assert features.shape == (2, 32, 6, 5)
    assert (features.numpy() >= 0).all() and (features.numpy() > 0).any()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_family_makes_stages_of_the_width_and_size_that_are_asked(name, stride):
    mt.manual_seed(0)
    before, after = (16, 16) if stride == 1 else (16, 32)
    stage = FAMILIES[name](before, after, stride)
    x = mt.tensor(np.random.default_rng(0).random((2, before, 12, 12)), requires_grad=True)
    y = stage(x)
    assert y.shape == (2, after, 12 // stride, 12 // stride)
    y.sum().backward()
    assert all(p.grad is not None for p in stage.parameters())
    assert np.abs(x.grad.numpy()).max() > 0
