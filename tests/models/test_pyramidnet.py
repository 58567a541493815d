import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.models import PyramidNet, pyramidnet
from minitorch_attn.models.pyramidnet import PyramidBlock, PyramidBottleneck

from ..nn.parity import compare_modules, normal
from .networks import check_training, count


@pytest.mark.parametrize(
    ("depth", "alpha", "bottleneck", "parameters", "features"),
    [
        (110, 48, False, 1_772_706, 64),
        (110, 84, False, 3_904_446, 100),
        (110, 270, False, 28_485_477, 286),
        (164, 48, True, 1_715_442, 256),
        (164, 84, True, 3_757_494, 400),
        (164, 270, True, 27_216_021, 1144),
        (200, 240, True, 26_752_702, 1024),
        (236, 220, True, 26_969_046, 944),
        (272, 200, True, 26_210_842, 864),
    ],
)
def test_parameters_are_as_many_as_published(
    unfilled, depth, alpha, bottleneck, parameters, features
):
    model = pyramidnet(depth, alpha, bottleneck=bottleneck)
    assert count(model) == parameters
    assert model.fc.in_features == features


@pytest.mark.parametrize(
    ("depth", "alpha", "bottleneck"),
    [(110, 48, False), (110, 270, False), (164, 48, True), (272, 200, True)],
)
def test_every_parameter_gets_a_gradient(quick_random, depth, alpha, bottleneck):
    model = pyramidnet(depth, alpha, 7, 1, bottleneck)
    check_training(model, 1, 8, 8, num_classes=7)


def torch_block(torch, before, width, stride=1, bottleneck=False):
    tnn = torch.nn
    outer = 4 * width if bottleneck else width

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            self.bn1 = tnn.BatchNorm2d(before)
            if bottleneck:
                self.conv1 = tnn.Conv2d(before, width, 1, bias=False)
                self.bn2 = tnn.BatchNorm2d(width)
                self.conv2 = tnn.Conv2d(width, width, 3, stride, 1, bias=False)
                self.bn3 = tnn.BatchNorm2d(width)
                self.conv3 = tnn.Conv2d(width, outer, 1, bias=False)
                self.bn4 = tnn.BatchNorm2d(outer)
            else:
                self.conv1 = tnn.Conv2d(before, width, 3, stride, 1, bias=False)
                self.bn2 = tnn.BatchNorm2d(width)
                self.conv2 = tnn.Conv2d(width, width, 3, 1, 1, bias=False)
                self.bn3 = tnn.BatchNorm2d(width)

        def forward(self, x):
            out = self.conv2(torch.relu(self.bn2(self.conv1(self.bn1(x)))))
            if bottleneck:
                out = self.conv3(torch.relu(self.bn3(out)))
            out = self.bn4(out) if bottleneck else self.bn3(out)
            if stride == 2:
                x = tnn.functional.avg_pool2d(x, 2, 2, ceil_mode=True)
            zeros = torch.zeros(len(x), outer - before, *x.shape[2:], dtype=x.dtype)
            return out + torch.cat([x, zeros], dim=1)

    return Block()


@pytest.mark.parametrize(("before", "width", "stride"), [(4, 4, 1), (4, 7, 1), (4, 5, 2)])
@pytest.mark.parametrize("training", [False, True])
def test_a_block_computes_what_pytorch_does(before, width, stride, training):
    torch = pytest.importorskip("torch")
    ours, theirs = PyramidBlock(before, width, stride), torch_block(torch, before, width, stride)
    compare_modules(ours, theirs, normal(3, before, 5, 6), training=training)


@pytest.mark.parametrize(("before", "width", "stride"), [(8, 2, 1), (4, 3, 1), (8, 3, 2)])
@pytest.mark.parametrize("training", [False, True])
def test_a_bottleneck_computes_what_pytorch_does(before, width, stride, training):
    torch = pytest.importorskip("torch")
    ours = PyramidBottleneck(before, width, stride)
    theirs = torch_block(torch, before, width, stride, bottleneck=True)
    compare_modules(ours, theirs, normal(3, before, 5, 6), training=training)


def test_a_network_computes_what_pytorch_does():
    torch = pytest.importorskip("torch")
    tnn = torch.nn

    class Network(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = tnn.Conv2d(2, 16, 3, padding=1, bias=False)
            self.bn1 = tnn.BatchNorm2d(16)
            self.layer1 = tnn.Sequential(torch_block(torch, 16, 18), torch_block(torch, 18, 19))
            second = torch_block(torch, 19, 21, 2)
            self.layer2 = tnn.Sequential(second, torch_block(torch, 21, 23))
            third = torch_block(torch, 23, 24, 2)
            self.layer3 = tnn.Sequential(third, torch_block(torch, 24, 26))
            self.bn_final = tnn.BatchNorm2d(26)
            self.fc = tnn.Linear(26, 5)

        def forward(self, x):
            x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)))))
            return self.fc(torch.relu(self.bn_final(x)).mean((2, 3)))

    ours = PyramidNet(PyramidBlock, 2, 10, 5, 2)
    compare_modules(ours, Network(), normal(2, 2, 9, 12), dtypes=("float64",))


def test_without_its_branch_a_block_pads_with_zeros_at_the_end():
    block = PyramidBlock(3, 5).eval()
    with mt.no_grad():
        block.bn3.weight.fill_(0)
    x = normal(2, 3, 4, 4).astype(np.float32)
    y = block(mt.tensor(x)).numpy()
    np.testing.assert_array_equal(y[:, :3], x)
    assert not y[:, 3:].any()
