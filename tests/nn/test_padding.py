import numpy as np
import pytest

from minitorch_attn import nn

from .parity import compare_modules, normal

torch = pytest.importorskip("torch")
tnn = torch.nn

SHAPES = {1: (2, 3, 5), 2: (2, 3, 4, 5), 3: (2, 3, 3, 4, 5)}
WIDTHS = {1: (2, 1), 2: (2, 1, 0, 2), 3: (2, 1, 0, 2, 1, 2)}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Zero", "Reflection", "Replication", "Circular"])
def test_a_border_is_pytorchs(kind, axes):
    ours, theirs = (getattr(n, f"{kind}Pad{axes}d") for n in (nn, tnn))
    for padding in (1, WIDTHS[axes]):
        compare_modules(ours(padding), theirs(padding), normal(*SHAPES[axes]))
        compare_modules(ours(padding), theirs(padding), normal(*SHAPES[axes][1:]))
        assert ours(padding).extra_repr() == theirs(padding).extra_repr()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_constant_border_is_pytorchs(axes):
    ours, theirs = (getattr(n, f"ConstantPad{axes}d") for n in (nn, tnn))
    compare_modules(ours(WIDTHS[axes], 3.5), theirs(WIDTHS[axes], 3.5), normal(*SHAPES[axes]))
    compare_modules(ours(-1, 3.5), theirs(-1, 3.5), normal(*SHAPES[axes]))
    assert ours(1, 3.5).extra_repr() == f"{(1,) * 2 * axes}, value=3.5"


def test_padding_has_two_widths_an_axis():
    with pytest.raises(ValueError, match=r"ZeroPad2d: padding is one width for all sides, or 4, "):
        nn.ZeroPad2d((1, 2))


@pytest.mark.parametrize("padding", ["1", 1.5, None])
def test_padding_is_integers(padding):
    with pytest.raises(ValueError, match="ZeroPad2d: padding must be an integer or a tuple of int"):
        nn.ZeroPad2d(padding)


def test_padding_may_be_numpys_integer():
    assert nn.ZeroPad2d(np.int64(1)).padding == (1, 1, 1, 1)
