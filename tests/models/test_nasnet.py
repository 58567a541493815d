import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.models.nasnet import (
    NORMAL,
    REDUCTION,
    Cell,
    FactorizedReduction,
    NASNetA,
    Pool3,
    nasnet_a_cifar,
    nasnet_a_large,
    nasnet_a_mobile,
    pad_same,
)

from ..nn.parity import compare_modules, normal
from .networks import check_training, count


def torch_cell(torch, is_reduction, C, C_previous, width, previous):
    """A cell of figure 4 of the paper, block by block, with PyTorch.

    The padding of stride 2 at an even size is made as it is often done: a zero row and column more
    at the top and left, symmetric padding, and the first row and column of the result cut off.
    """
    tnn, stride = torch.nn, 2 if is_reduction else 1

    def bn():
        return tnn.BatchNorm2d(width, 0.001)

    def is_shifted(x, stride):
        assert x.shape[2] % 2 == x.shape[3] % 2
        return stride == 2 and x.shape[2] % 2 == 0

    def shifted(x, stride, f):
        return (
            f(tnn.functional.pad(x, (1, 0, 1, 0)))[:, :, 1:, 1:] if is_shifted(x, stride) else f(x)
        )

    class Separable(tnn.Module):
        def __init__(self, before, k, stride):
            super().__init__()
            self.depthwise = tnn.Conv2d(
                before, before, k, stride, k // 2, groups=before, bias=False
            )
            self.pointwise = tnn.Conv2d(before, width, 1, bias=False)

        def forward(self, x):
            return self.pointwise(shifted(x, self.depthwise.stride[0], self.depthwise))

    class Pool(tnn.Module):
        def __init__(self, kind, stride):
            super().__init__()
            self.stride = stride
            self.pool = tnn.MaxPool2d(3, stride, 1)
            if kind == "avg":
                self.pool = tnn.AvgPool2d(3, stride, 1, count_include_pad=False)

        def forward(self, x):
            if is_shifted(x, self.stride) and isinstance(self.pool, tnn.AvgPool2d):
                # The zeros must not count: divide by the number of pixels under each window.
                ones = tnn.functional.pad(torch.ones_like(x), (0, 1, 0, 1))
                total = tnn.functional.pad(x, (0, 1, 0, 1)).unfold(2, 3, 2).unfold(3, 3, 2)
                return total.sum((-1, -2)) / ones.unfold(2, 3, 2).unfold(3, 3, 2).sum((-1, -2))
            return shifted(x, self.stride, self.pool)

    def sep(k, stride=stride, before=width):
        layers = [tnn.ReLU(), Separable(before, k, stride), bn()]
        return tnn.Sequential(*layers, tnn.ReLU(), Separable(width, k, 1), bn())

    def project(before):
        return tnn.Sequential(tnn.ReLU(), tnn.Conv2d(before, width, 1, bias=False), bn())

    class Halve(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = tnn.Conv2d(C_previous, width // 2, 1, bias=False)
            self.conv2 = tnn.Conv2d(C_previous, width // 2, 1, bias=False)
            self.bn = bn()

        def forward(self, x):
            x = torch.relu(x)
            a = tnn.functional.avg_pool2d(x, 1, 2)
            x = tnn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
            return self.bn(torch.cat((self.conv1(a), self.conv2(x)[:, :, ::2, ::2]), 1))

    class Block(tnn.Module):
        def __init__(self, left, right):
            super().__init__()
            self.left, self.right = left, right

    class Theirs(tnn.Module):
        def __init__(self):
            super().__init__()
            self.prepare = project(C)
            kinds = {"project": lambda: project(C_previous), "halve": Halve, "keep": tnn.Identity}
            self.prepare_previous = kinds[previous]()
            L = C_previous if previous == "keep" else width
            nothing, avg = tnn.Identity, lambda s=stride: Pool("avg", s)
            pairs = [
                (sep(5), sep(3)),
                (sep(5), sep(3)),
                (avg(), nothing()),
                (avg(), avg()),
                (sep(3), nothing()),
            ]
            if is_reduction:
                pairs = [
                    (sep(5), sep(7, before=L)),
                    (Pool("max", 2), sep(7, before=L)),
                    (avg(), sep(5, before=L)),
                    (avg(1), nothing()),
                    (sep(3, 1), Pool("max", 2)),
                ]
            self.blocks = tnn.ModuleList(Block(*pair) for pair in pairs)

        def forward(self, h, h_previous):
            r, l = self.prepare(h), self.prepare_previous(h_previous)
            (a, b), (c, d), (e, f), (g, i), (j, k) = ((p.left, p.right) for p in self.blocks)
            if is_reduction:
                b0, b1, b2 = a(r) + b(l), c(r) + d(l), e(r) + f(l)
                return torch.cat((b1, b2, g(b0) + b1, j(b0) + k(r)), 1)
            return torch.cat((l, a(r) + b(l), c(l) + d(l), e(r) + l, g(l) + i(l), j(r) + r), 1)

    return Theirs()


@pytest.mark.parametrize("previous", ["project", "halve"])
@pytest.mark.parametrize("training", [True, False])
def test_a_normal_cell_is_the_papers_figure(previous, training):
    torch = pytest.importorskip("torch")
    cell = Cell(NORMAL, 5, 3, 4, previous)
    theirs = torch_cell(torch, False, 5, 3, 4, previous)
    size = 12 if previous == "halve" else 6
    inputs = normal(2, 5, 6, 6), normal(2, 3, size, size)
    compare_modules(cell, theirs, *inputs, training=training)


@pytest.mark.parametrize("previous", ["project", "halve", "keep"])
@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("training", [True, False])
def test_a_reduction_cell_is_the_papers_figure(previous, size, training):
    torch = pytest.importorskip("torch")
    cell = Cell(REDUCTION, 5, 3, 4, previous)
    theirs = torch_cell(torch, True, 5, 3, 4, previous)
    before = 2 * size if previous == "halve" else size
    inputs = normal(2, 5, size, size), normal(2, 3, before, before)
    compare_modules(cell, theirs, *inputs, training=training)


def test_a_normal_cell_keeps_six_states_and_a_reduction_four_at_half_the_size():
    h, h_previous = (mt.tensor(normal(2, C, 7, 9).astype("float32")) for C in (5, 3))
    assert Cell(NORMAL, 5, 3, 4)(h, h_previous).shape == (2, 24, 7, 9)
    assert Cell(REDUCTION, 5, 3, 4)(h, h_previous).shape == (2, 16, 4, 5)


def test_padding_of_an_even_size_puts_the_odd_zero_behind():
    x = mt.ones(1, 1, 4, 5)
    padded = pad_same(x, 3, 2).numpy()[0, 0]
    assert padded.shape == (5, 7)
    assert padded[:4, 1:6].all()
    assert padded.sum() == 20
    assert pad_same(x, 3, 1).shape == (1, 1, 6, 7)
    assert pad_same(x, 1, 2).shape == (1, 1, 4, 5)


def test_pools_never_count_the_padding():
    x = mt.tensor(-np.ones((1, 1, 6, 7)))
    for kind in ("avg", "max"):
        for stride in (1, 2):
            y = Pool3(kind, stride)(x).numpy()
            np.testing.assert_array_equal(y, -np.ones((1, 1, -(-6 // stride), -(-7 // stride))))


def test_both_halves_of_a_factorized_reduction_read_different_pixels():
    layer = FactorizedReduction(1, 2).eval()
    for parity in (0, 1):
        x = np.zeros((1, 1, 6, 6), dtype="float32")
        x[:, :, parity::2, parity::2] = 1
        y = np.abs(layer(mt.tensor(x)).numpy()).sum(axis=(0, 2, 3))
        assert y[parity] > 0
        assert y[1 - parity] == 0


@pytest.mark.parametrize(
    ("network", "parameters"),
    [(nasnet_a_mobile, 5_289_978), (nasnet_a_large, 88_753_150), (nasnet_a_cifar, 3_328_234)],
)
def test_it_has_the_parameters_of_the_reference(unfilled, network, parameters):
    """The last of them is the paper's 3.3 million: there is no exact number to compare with."""
    assert count(network()) == parameters


def test_the_last_cell_has_24_times_the_width_of_the_first(unfilled):
    assert nasnet_a_mobile().fc.in_features == 1056
    assert nasnet_a_large().fc.in_features == 4032
    assert nasnet_a_cifar().fc.in_features == 768


@pytest.mark.parametrize("network", [nasnet_a_mobile, nasnet_a_cifar])
def test_every_parameter_gets_a_gradient(quick_random, network):
    check_training(network(7, in_channels=1), 1, 32, 32, num_classes=7)


@pytest.mark.parametrize("size", [32, 37])
def test_every_parameter_of_a_narrow_large_network_gets_a_gradient(size):
    net = NASNetA(7, 1, 8, 2, 4, stem_reductions=True, skip_reduction=True, dropout=0.5)
    check_training(net, 1, size, size, num_classes=7)


@pytest.mark.parametrize("skip", [True, False])
def test_the_cell_behind_a_reduction_may_skip_what_was_right_before_it(skip):
    net = NASNetA(7, 1, 8, 2, 4, stem_reductions=False, skip_reduction=skip)
    outputs, inputs = [], []

    def see(module, xs, y):
        inputs.append(xs)
        outputs.append(y)

    for cell in net.cells:
        cell.register_forward_hook(see)
    net(mt.ones(2, 1, 16, 16))
    (h, h_previous), reduction = inputs[3], 2
    assert h is outputs[reduction]
    assert h_previous is (outputs[0] if skip else outputs[1])
