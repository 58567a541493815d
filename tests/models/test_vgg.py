import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.models import VGG, vgg, vgg11, vgg13, vgg16, vgg19

from ..nn.parity import compare_modules, normal
from .networks import check_training, count, shapes

BUILDERS = (vgg11, vgg13, vgg16, vgg19)


@pytest.mark.parametrize(
    ("build", "plain", "normalised"),
    [
        (vgg11, 132_863_336, 132_868_840),
        (vgg13, 133_047_848, 133_053_736),
        (vgg16, 138_357_544, 138_365_992),
        (vgg19, 143_667_240, 143_678_248),
    ],
)
def test_parameters_are_as_many_as_published(unfilled, build, plain, normalised):
    assert count(build()) == plain
    assert count(build(batch_norm=True)) == normalised


def test_multiply_adds_of_vgg16(unfilled):
    assert mt.summary(vgg16(), (3, 224, 224)).multiply_adds == 15_470_264_320


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("build", BUILDERS)
def test_every_parameter_gets_a_gradient(quick_random, build, batch_norm):
    check_training(build(7, 1, batch_norm, hidden=64), 1, 32, 32, num_classes=7)


def test_names_and_shapes_are_torchvisions(unfilled):
    plain = {name: p.shape for name, p in vgg16().named_parameters()}
    normalised = shapes(vgg16(batch_norm=True, hidden=8))
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    layers = [f"features.{i}" for i in convolutions] + [f"classifier.{i}" for i in (0, 3, 6)]
    assert list(plain) == [f"{layer}.{p}" for layer in layers for p in ("weight", "bias")]
    assert plain["features.0.weight"] == (64, 3, 3, 3)
    assert plain["features.28.weight"] == (512, 512, 3, 3)
    assert plain["classifier.0.weight"] == (4096, 25088)
    assert plain["classifier.6.bias"] == (1000,)
    assert normalised["features.1.running_mean"] == (64,)
    assert normalised["features.40.weight"] == (512, 512, 3, 3)
    assert normalised["features.41.weight"] == (512,)
    assert list(shapes(vgg11(hidden=8)))[-8] == "features.18.weight"
    assert list(shapes(vgg19(hidden=8)))[-8] == "features.34.weight"


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_it_computes_what_pytorch_does(monkeypatch, batch_norm, training):
    torch = pytest.importorskip("torch")
    tnn = torch.nn
    monkeypatch.setattr(vgg, "WIDTHS", (4, 6, 8, 10, 12))

    class Plain(tnn.Module):
        def __init__(self):
            super().__init__()
            layers, before = [], 2
            for width, depth in [(4, 1), (6, 2), (8, 1), (10, 1), (12, 1)]:
                for _ in range(depth):
                    layers += [tnn.Conv2d(before, width, 3, padding=1)]
                    layers += [tnn.BatchNorm2d(width)] if batch_norm else []
                    layers += [tnn.ReLU()]
                    before = width
                layers += [tnn.MaxPool2d(2, 2)]
            self.features = tnn.Sequential(*layers)
            self.avgpool = tnn.AdaptiveAvgPool2d((7, 7))
            self.classifier = tnn.Sequential(
                tnn.Linear(12 * 7 * 7, 8),
                tnn.ReLU(),
                tnn.Dropout(0.0),
                tnn.Linear(8, 8),
                tnn.ReLU(),
                tnn.Dropout(0.0),
                tnn.Linear(8, 5),
            )

        def forward(self, x):
            return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    ours = VGG((1, 2, 1, 1, 1), 5, 2, batch_norm, hidden=8, dropout=0.0)
    images = normal(1, 2, 65, 96)  # 2 x 3 pixels are left to be spread over 7 x 7
    compare_modules(ours, Plain(), images, training=training, dtypes=("float64",))


def test_first_values():
    mt.manual_seed(0)
    model = VGG((1, 1, 1, 1, 1), hidden=512)
    state = {name: t.numpy() for name, t in model.state_dict().items()}
    assert state["features.9.weight"].std() == pytest.approx(np.sqrt(2 / (9 * 512)), rel=0.01)
    assert state["classifier.0.weight"].std() == pytest.approx(0.01, rel=0.01)
    assert not any(values.any() for name, values in state.items() if name.endswith("bias"))


def test_images_that_are_too_small_are_told():
    with pytest.raises(mt.ShapeError, match=r"in layer VGG\.features\."):
        VGG((1, 1, 1, 1, 1), hidden=8)(mt.zeros(1, 3, 28, 28))
