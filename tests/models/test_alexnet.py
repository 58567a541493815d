import pytest

import minitorch_attn as mt
from minitorch_attn.models import alexnet

from ..nn.parity import compare_modules, normal
from .networks import check_training, count, shapes


def test_parameters_are_as_many_as_published(unfilled):
    assert count(alexnet()) == 61_100_840


def test_multiply_adds(unfilled):
    table = mt.summary(alexnet(), (3, 224, 224), depth=1)
    assert table.multiply_adds == 714_188_480
    rows = {row.name: row.output_shape for row in table.rows}
    assert rows["features"] == rows["avgpool"] == (1, 256, 6, 6)


def test_every_parameter_gets_a_gradient(quick_random):
    check_training(alexnet(7, 1).eval(), 1, 63, 63, num_classes=7)


def test_names_and_shapes_are_torchvisions(unfilled):
    layers = [f"features.{i}" for i in (0, 3, 6, 8, 10)]
    layers += [f"classifier.{i}" for i in (1, 4, 6)]
    state = shapes(alexnet())
    assert list(state) == [f"{layer}.{p}" for layer in layers for p in ("weight", "bias")]
    assert state["features.0.weight"] == (64, 3, 11, 11)
    assert state["features.3.weight"] == (192, 64, 5, 5)
    assert state["classifier.1.weight"] == (4096, 9216)
    assert state["classifier.6.bias"] == (1000,)


def test_the_features_are_what_pytorch_computes(unfilled):
    torch = pytest.importorskip("torch")
    tnn = torch.nn
    theirs = tnn.Sequential(
        tnn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
        tnn.ReLU(),
        tnn.MaxPool2d(kernel_size=3, stride=2),
        tnn.Conv2d(64, 192, kernel_size=5, padding=2),
        tnn.ReLU(),
        tnn.MaxPool2d(kernel_size=3, stride=2),
        tnn.Conv2d(192, 384, kernel_size=3, padding=1),
        tnn.ReLU(),
        tnn.Conv2d(384, 256, kernel_size=3, padding=1),
        tnn.ReLU(),
        tnn.Conv2d(256, 256, kernel_size=3, padding=1),
        tnn.ReLU(),
        tnn.MaxPool2d(kernel_size=3, stride=2),
    )
    compare_modules(alexnet(2).features, theirs, normal(1, 3, 64, 65), dtypes=("float64",))
