import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn

from .parity import compare_modules, normal

torch = pytest.importorskip("torch")
tnn = torch.nn

LAYERS = {
    "batch norm of volumes": (lambda n: n.BatchNorm3d(3), (2, 3, 2, 3, 2)),
    "group norm": (lambda n: n.GroupNorm(3, 6), (2, 6, 4, 3)),
    "group norm of rows": (lambda n: n.GroupNorm(2, 6, affine=False), (4, 6)),
    "group norm, eps": (lambda n: n.GroupNorm(1, 6, 1e-2), (2, 6, 5)),
    "instance norm": (lambda n: n.InstanceNorm2d(3), (2, 3, 4, 5)),
    "instance norm, one image": (lambda n: n.InstanceNorm2d(3, affine=True), (3, 4, 5)),
    "instance norm, affine": (lambda n: n.InstanceNorm2d(3, 1e-3, affine=True), (2, 3, 4, 5)),
    "instance norm, tracked": (
        lambda n: n.InstanceNorm2d(3, momentum=0.3, affine=True, track_running_stats=True),
        (2, 3, 4, 5),
    ),
    "instance norm, no momentum": (
        lambda n: n.InstanceNorm1d(3, momentum=None, track_running_stats=True),
        (2, 3, 4),
    ),
    "instance norm of a sequence": (lambda n: n.InstanceNorm1d(3), (3, 7)),
    "instance norm of volumes": (lambda n: n.InstanceNorm3d(2, affine=True), (3, 2, 2, 3, 2)),
    "local response norm": (lambda n: n.LocalResponseNorm(3, 0.5, 0.6, 2.0), (2, 6, 3, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_gives_pytorchs_output_gradients_and_buffers(name, training):
    make, shape = LAYERS[name]
    compare_modules(make(nn), make(tnn), normal(*shape), training=training)


def test_layers_print_what_differs_from_the_defaults():
    assert nn.GroupNorm(2, 6, affine=False).extra_repr() == "2, 6, affine=False"
    assert nn.InstanceNorm2d(3).extra_repr() == "3"
    assert nn.InstanceNorm2d(3, affine=True).extra_repr() == "3, affine=True"
    assert nn.BatchNorm3d(3, affine=False).extra_repr() == "3, affine=False"
    assert nn.LocalResponseNorm(5, k=2.0).extra_repr() == "5, k=2.0"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.BatchNorm2d("3"), "BatchNorm2d: num_features must be an integer .* not '3'"),
        (lambda: nn.InstanceNorm1d(-3), "InstanceNorm1d: num_features must be .* not -3"),
        (lambda: nn.GroupNorm("3", 3), "GroupNorm: num_groups must be .* at least 1, not '3'"),
        (lambda: nn.GroupNorm(3, 3.0), "GroupNorm: num_channels must be an integer .* not 3.0"),
        (lambda: nn.LayerNorm(8.0), "LayerNorm: normalized_shape must be an integer or a tuple"),
    ],
)
def test_sizes_are_integers(make, message):
    with pytest.raises(ValueError, match="^" + message):
        make()


def test_a_layer_takes_arrays_and_lists():
    images = normal(2, 3, 2, 2)
    for layer in (nn.BatchNorm2d(3), nn.InstanceNorm2d(3), nn.GroupNorm(1, 3), nn.LayerNorm(2)):
        expected = layer(mt.tensor(images)).numpy()
        np.testing.assert_array_equal(layer(images).numpy(), expected)
        np.testing.assert_allclose(layer(images.tolist()).numpy(), expected, atol=1e-5)


def test_groups_divide_the_channels():
    with pytest.raises(ValueError, match="GroupNorm: num_groups=4 does not divide num_channels=6"):
        nn.GroupNorm(4, 6)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.BatchNorm3d(3), (2, 3, 4, 4), r"\(N, C, D, H, W\) with C = 3 .* got \(2, 3, 4, 4\)"),
        (nn.InstanceNorm2d(3), (2, 4, 5, 5), r"\(C, H, W\) or \(N, C, H, W\) with C = 3 channels"),
        (nn.InstanceNorm2d(3), (4, 5, 5), r"got \(4, 5, 5\)"),
        (nn.InstanceNorm1d(3), (3,), r"\(C, L\) or \(N, C, L\) .* got \(3,\)"),
        (nn.GroupNorm(2, 6), (2, 4, 3), r"group_norm: weight needs one number for each of the 4"),
    ],
)
def test_inputs_that_do_not_fit(layer, shape, message):
    with pytest.raises(mt.ShapeError, match=message):
        layer(mt.ones(*shape))


def test_instance_norm_does_not_count_batches():
    layer = nn.InstanceNorm2d(3, track_running_stats=True)
    layer(mt.tensor(normal(2, 3, 4, 4)))
    assert layer.num_batches_tracked.item() == 0
    assert layer.running_mean.numpy().any()


def test_cosine_similarity():
    x, y = normal(4, 3), normal(4, 3, seed=1)
    compare_modules(nn.CosineSimilarity(), tnn.CosineSimilarity(), x, y)
    compare_modules(nn.CosineSimilarity(0, 2.0), tnn.CosineSimilarity(0, 2.0), x, y)
    assert nn.CosineSimilarity(0).extra_repr() == "dim=0"
    assert np.isfinite(nn.CosineSimilarity()(mt.zeros(1, 3), mt.ones(1, 3)).numpy()).all()


def test_pairwise_distance_is_pytorchs():
    x, y = normal(4, 5), normal(4, 5, seed=1)
    compare_modules(nn.PairwiseDistance(), tnn.PairwiseDistance(), x, y)
    compare_modules(nn.PairwiseDistance(3, 0.1, True), tnn.PairwiseDistance(3, 0.1, True), x, y)
    assert nn.PairwiseDistance().extra_repr() == "p=2.0"
    assert nn.PairwiseDistance(1, keepdim=True).extra_repr() == "p=1, keepdim=True"
