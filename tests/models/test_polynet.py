import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.models.polynet import (
    UNITS,
    InceptionUnit,
    MPoly,
    MultiWay,
    Poly,
    PolyNet,
    polynet,
)

from ..nn.parity import compare_modules, normal
from .networks import check_training, count
from .reference import torch_conv_bn


@pytest.fixture
def narrow(monkeypatch):
    """A unit of few channels, with all kinds of kernels."""
    paths = (((3, 1), (4, (1, 7)), (5, (7, 1))), ((2, 1), (3, 3)), ((2, 1),))
    monkeypatch.setitem(UNITS, "narrow", (6, paths))


def torch_unit(torch, orders):
    """The narrow unit with PyTorch."""
    tnn = torch.nn

    class Shared(tnn.Module):
        def __init__(self, before, after, kernel_size, padding):
            super().__init__()
            self.conv = tnn.Conv2d(before, after, kernel_size, padding=padding, bias=False)
            self.bn = tnn.ModuleList([tnn.BatchNorm2d(after) for _ in range(orders)])

    class Unit(tnn.Module):
        def __init__(self):
            super().__init__()
            first = [Shared(6, 3, 1, 0), Shared(3, 4, (1, 7), (0, 3)), Shared(4, 5, (7, 1), (3, 0))]
            second = [Shared(6, 2, 1, 0), Shared(2, 3, 3, 1)]
            third = [Shared(6, 2, 1, 0)]
            paths = (tnn.ModuleList(path) for path in (first, second, third))
            self.paths = tnn.ModuleList(paths)
            join = [torch_conv_bn(torch, 10, 6, 1, relu=False) for _ in range(orders)]
            self.join = tnn.ModuleList(join)

        def forward(self, x, order=0):
            ends = []
            for path in self.paths:
                y = x
                for layer in path:
                    y = torch.relu(layer.bn[order](layer.conv(y)))
                ends.append(y)
            return self.join[order](torch.cat(ends, 1))

    return Unit()


def torch_module(torch, form, scale):
    """Figure 4 of the paper, written out with PyTorch for two units."""
    tnn = torch.nn

    class Module(tnn.Module):
        def __init__(self):
            super().__init__()
            if form is Poly:
                self.unit = torch_unit(torch, 2)
            else:
                self.units = tnn.ModuleList([torch_unit(torch, 1), torch_unit(torch, 1)])

        def forward(self, x):
            if form is Poly:
                first = self.unit(x, 0)
                second = self.unit(torch.relu(first), 1)
            else:
                first = self.units[0](x)
                second = self.units[1](torch.relu(first) if form is MPoly else x)
            return torch.relu(x + scale * first + scale * second)

    return Module()


@pytest.mark.parametrize("form", [Poly, MPoly, MultiWay])
@pytest.mark.parametrize("training", [True, False])
def test_a_module_is_the_papers_figure(narrow, form, training):
    torch = pytest.importorskip("torch")
    theirs = torch_module(torch, form, 0.7)
    compare_modules(form("narrow", 2, 0.7), theirs, normal(2, 6, 5, 6), training=training)


def test_a_poly_module_shares_the_kernels_of_its_paths_alone(narrow):
    once, twice = count(InceptionUnit("narrow")), count(Poly("narrow", 2))
    shared = 6 * 3 + 3 * 4 * 7 + 4 * 5 * 7 + 6 * 2 + 2 * 3 * 9 + 6 * 2
    assert twice == 2 * once - shared
    assert count(MPoly("narrow", 2)) == count(MultiWay("narrow", 2)) == 2 * once


@pytest.mark.parametrize("form", [Poly, MPoly, MultiWay])
def test_without_its_branches_a_module_is_a_relu(narrow, form):
    x = normal(2, 6, 5, 6).astype("float32")
    y = form("narrow", 3, scale=0.0)(mt.tensor(x))
    np.testing.assert_array_equal(y.numpy(), np.maximum(x, 0))


def test_it_has_the_parameters_of_the_reference(unfilled):
    assert count(polynet()) == 95_366_600


def test_the_residual_scale_goes_down_from_1_to_7_tenths(unfilled):
    net = polynet()
    stages = [*net.stage_a, *net.stage_b, *net.stage_c]
    np.testing.assert_allclose([m.scale for m in stages], np.linspace(1, 0.7, 40))
    assert [len(net.stage_a), len(net.stage_b), len(net.stage_c)] == [10, 20, 10]
    assert [type(m) for m in net.stage_c] == [Poly, MultiWay] * 5


def test_every_parameter_gets_a_gradient(quick_random):
    check_training(PolyNet(7, 1, blocks=(1, 2, 2)), 1, 75, 75, num_classes=7)
