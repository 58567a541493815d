import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.models import squeezenet1_0, squeezenet1_1
from minitorch_attn.models.squeezenet import Fire

from ..nn.parity import compare_modules, normal
from .networks import check_training, count, shapes


@pytest.mark.parametrize(
    ("build", "parameters"), [(squeezenet1_0, 1_248_424), (squeezenet1_1, 1_235_496)]
)
def test_parameters_are_as_many_as_published(unfilled, build, parameters):
    assert count(build()) == parameters


@pytest.mark.parametrize("build", [squeezenet1_0, squeezenet1_1])
def test_every_parameter_gets_a_gradient(build):
    mt.manual_seed(0)
    check_training(build(7, 1), 1, 63, 63, num_classes=7)


@pytest.mark.parametrize(
    ("build", "fires"),
    [
        (squeezenet1_0, (3, 4, 5, 7, 8, 9, 10, 12)),
        (squeezenet1_1, (3, 4, 6, 7, 9, 10, 11, 12)),
    ],
)
def test_names_are_torchvisions(unfilled, build, fires):
    parts = ("squeeze", "expand1x1", "expand3x3")
    layers = ["features.0", *(f"features.{i}.{part}" for i in fires for part in parts)]
    names = [f"{layer}.{p}" for layer in [*layers, "classifier.1"] for p in ("weight", "bias")]
    assert list(shapes(build())) == names


def test_shapes_are_torchvisions(unfilled):
    first, second = shapes(squeezenet1_0()), shapes(squeezenet1_1())
    assert first["features.0.weight"] == (96, 3, 7, 7)
    assert first["features.3.squeeze.weight"] == (16, 96, 1, 1)
    assert first["features.12.expand3x3.weight"] == (256, 64, 3, 3)
    assert first["classifier.1.weight"] == (1000, 512, 1, 1)
    assert second["features.0.weight"] == (64, 3, 3, 3)
    assert second["features.3.squeeze.weight"] == (16, 64, 1, 1)
    assert second["features.9.squeeze.weight"] == (48, 256, 1, 1)


def torch_fire(torch, before, squeezed, expanded):
    tnn = torch.nn

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            self.squeeze = tnn.Conv2d(before, squeezed, kernel_size=1)
            self.expand1x1 = tnn.Conv2d(squeezed, expanded, kernel_size=1)
            self.expand3x3 = tnn.Conv2d(squeezed, expanded, kernel_size=3, padding=1)

        def forward(self, x):
            x = torch.relu(self.squeeze(x))
            sides = [torch.relu(self.expand1x1(x)), torch.relu(self.expand3x3(x))]
            return torch.cat(sides, 1)

    return Block()


def test_a_fire_module_computes_what_pytorch_does():
    torch = pytest.importorskip("torch")
    compare_modules(Fire(5, 3, 4), torch_fire(torch, 5, 3, 4), normal(3, 5, 4, 6))


def test_a_network_computes_what_pytorch_does():
    torch = pytest.importorskip("torch")
    tnn = torch.nn

    class Network(tnn.Module):
        def __init__(self):
            super().__init__()
            fires = [(96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128)]
            fires += [(256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)]
            layers = [tnn.Conv2d(2, 96, kernel_size=7, stride=2), tnn.ReLU()]
            for i, fire in enumerate(fires):
                if i in (0, 3, 7):
                    layers.append(tnn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True))
                layers.append(torch_fire(torch, *fire))
            self.features = tnn.Sequential(*layers)
            last = tnn.Conv2d(512, 5, kernel_size=1)
            self.classifier = tnn.Sequential(tnn.Identity(), last, tnn.ReLU())

        def forward(self, x):
            return self.classifier(self.features(x)).mean((2, 3))

    images = normal(2, 2, 40, 41)
    compare_modules(squeezenet1_0(5, 2), Network(), images, training=False, dtypes=("float64",))


def test_first_values():
    mt.manual_seed(0)
    state = {name: t.numpy() for name, t in squeezenet1_1().state_dict().items()}
    assert state["classifier.1.weight"].std() == pytest.approx(0.01, rel=0.01)
    kernels = state["features.12.expand3x3.weight"]
    bound = np.sqrt(6 / (64 * 9))
    assert 0.999 * bound < np.abs(kernels).max() <= bound * (1 + 1e-6)
    assert not any(values.any() for name, values in state.items() if name.endswith("bias"))
