import pytest

from minitorch_attn.models.googlenet import auxiliary_cross_entropy
from minitorch_attn.models.inception_v3 import (
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
    inception_v3,
)

from ..nn.parity import compare_modules, normal
from .networks import check_training, count, shapes
from .reference import torch_conv_bn


def torch_branches(torch, layers, branches, pool):
    """A module of the paper with PyTorch: its layers by name, and the paths through them.

    layers: (name, C, O, kernel size, stride, padding). branches: names of the layers, one behind
    the other; "pool" is the module's pool.
    """

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, C, width, kernel_size, stride, padding in layers:
                conv = torch_conv_bn(torch, C, width, kernel_size, stride, padding, eps=0.001)
                self.add_module(name, conv)

        def forward(self, x):
            ends = []
            for branch in branches:
                y = x
                for name in branch.split():
                    y = pool(y) if name == "pool" else getattr(self, name)(y)
                ends.append(y)
            return torch.cat(ends, dim=1)

    return Module()


ROW, COLUMN = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
SHORT_ROW, SHORT_COLUMN = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))

MODULES = {
    "A": (
        lambda: InceptionA(5, 7),
        [
            ("branch1x1", 5, 64, 1, 1, 0),
            ("branch5x5_1", 5, 48, 1, 1, 0),
            ("branch5x5_2", 48, 64, 5, 1, 2),
            ("branch3x3dbl_1", 5, 64, 1, 1, 0),
            ("branch3x3dbl_2", 64, 96, 3, 1, 1),
            ("branch3x3dbl_3", 96, 96, 3, 1, 1),
            ("branch_pool", 5, 7, 1, 1, 0),
        ],
        [
            "branch1x1",
            "branch5x5_1 branch5x5_2",
            "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3",
            "pool branch_pool",
        ],
        "avg",
    ),
    "B": (
        lambda: InceptionB(5),
        [
            ("branch3x3", 5, 384, 3, 2, 0),
            ("branch3x3dbl_1", 5, 64, 1, 1, 0),
            ("branch3x3dbl_2", 64, 96, 3, 1, 1),
            ("branch3x3dbl_3", 96, 96, 3, 2, 0),
        ],
        ["branch3x3", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3", "pool"],
        "max",
    ),
    "C": (
        lambda: InceptionC(5, 6),
        [
            ("branch1x1", 5, 192, 1, 1, 0),
            ("branch7x7_1", 5, 6, 1, 1, 0),
            ("branch7x7_2", 6, 6, *ROW),
            ("branch7x7_3", 6, 192, *COLUMN),
            ("branch7x7dbl_1", 5, 6, 1, 1, 0),
            ("branch7x7dbl_2", 6, 6, *COLUMN),
            ("branch7x7dbl_3", 6, 6, *ROW),
            ("branch7x7dbl_4", 6, 6, *COLUMN),
            ("branch7x7dbl_5", 6, 192, *ROW),
            ("branch_pool", 5, 192, 1, 1, 0),
        ],
        [
            "branch1x1",
            "branch7x7_1 branch7x7_2 branch7x7_3",
            "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5",
            "pool branch_pool",
        ],
        "avg",
    ),
    "D": (
        lambda: InceptionD(5),
        [
            ("branch3x3_1", 5, 192, 1, 1, 0),
            ("branch3x3_2", 192, 320, 3, 2, 0),
            ("branch7x7x3_1", 5, 192, 1, 1, 0),
            ("branch7x7x3_2", 192, 192, *ROW),
            ("branch7x7x3_3", 192, 192, *COLUMN),
            ("branch7x7x3_4", 192, 192, 3, 2, 0),
        ],
        [
            "branch3x3_1 branch3x3_2",
            "branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4",
            "pool",
        ],
        "max",
    ),
    "E": (
        lambda: InceptionE(5),
        [
            ("branch1x1", 5, 320, 1, 1, 0),
            ("branch3x3_1", 5, 384, 1, 1, 0),
            ("branch3x3_2a", 384, 384, *SHORT_ROW),
            ("branch3x3_2b", 384, 384, *SHORT_COLUMN),
            ("branch3x3dbl_1", 5, 448, 1, 1, 0),
            ("branch3x3dbl_2", 448, 384, 3, 1, 1),
            ("branch3x3dbl_3a", 384, 384, *SHORT_ROW),
            ("branch3x3dbl_3b", 384, 384, *SHORT_COLUMN),
            ("branch_pool", 5, 192, 1, 1, 0),
        ],
        [
            "branch1x1",
            "branch3x3_1 branch3x3_2a",
            "branch3x3_1 branch3x3_2b",
            "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a",
            "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3b",
            "pool branch_pool",
        ],
        "avg",
    ),
}


@pytest.mark.parametrize("kind", MODULES)
def test_a_module_is_the_papers_figure(kind):
    torch = pytest.importorskip("torch")
    build, layers, branches, pool = MODULES[kind]
    pools = {"avg": torch.nn.AvgPool2d(3, 1, 1), "max": torch.nn.MaxPool2d(3, 2)}
    theirs = torch_branches(torch, layers, branches, pools[pool])
    compare_modules(build(), theirs, normal(2, 5, 7, 8), training=False)


def test_it_has_the_parameters_of_the_reference(unfilled):
    assert count(inception_v3()) == 23_834_568
    assert count(inception_v3(aux_logits=True)) == 27_161_264


def test_its_parameters_have_the_names_of_torchvision(unfilled):
    named = shapes(inception_v3(aux_logits=True))
    assert len(named) == 96 * 6 + 2 * 2
    assert named["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert named["Conv2d_3b_1x1.bn.weight"] == (80,)
    assert named["Conv2d_4a_3x3.conv.weight"] == (192, 80, 3, 3)
    assert named["Mixed_5b.branch1x1.conv.weight"] == (64, 192, 1, 1)
    assert named["Mixed_5c.branch5x5_2.conv.weight"] == (64, 48, 5, 5)
    assert named["Mixed_5d.branch3x3dbl_3.bn.running_var"] == (96,)
    assert named["Mixed_6a.branch3x3.conv.weight"] == (384, 288, 3, 3)
    assert named["Mixed_6b.branch7x7_2.conv.weight"] == (128, 128, 1, 7)
    assert named["Mixed_6e.branch7x7dbl_4.conv.weight"] == (192, 192, 7, 1)
    assert named["AuxLogits.conv0.conv.weight"] == (128, 768, 1, 1)
    assert named["AuxLogits.conv1.conv.weight"] == (768, 128, 5, 5)
    assert named["AuxLogits.fc.weight"] == (1000, 768)
    assert named["Mixed_7a.branch7x7x3_4.conv.weight"] == (192, 192, 3, 3)
    assert named["Mixed_7b.branch3x3_2a.conv.weight"] == (384, 384, 1, 3)
    assert named["Mixed_7c.branch_pool.conv.weight"] == (192, 2048, 1, 1)
    assert named["fc.weight"] == (1000, 2048)


def test_every_parameter_gets_a_gradient(quick_random):
    check_training(inception_v3(7, in_channels=1), 1, 75, 75, num_classes=7)


@pytest.mark.slow
def test_every_parameter_of_both_classifiers_gets_a_gradient(quick_random):
    net = inception_v3(7, in_channels=1, aux_logits=True)
    check_training(net, 1, 299, 299, num_classes=7, loss=auxiliary_cross_entropy)
