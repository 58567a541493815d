import pytest

from minitorch_attn import nn

from .parity import compare_modules, normal

torch = pytest.importorskip("torch")
tnn = torch.nn


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda n: n.PixelShuffle(2), (2, 8, 3, 2)),
        (lambda n: n.PixelUnshuffle(3), (2, 2, 3, 6)),
        (lambda n: n.ChannelShuffle(3), (2, 6, 2, 2)),
    ],
)
def test_a_shuffle_is_pytorchs(make, shape):
    compare_modules(make(nn), make(tnn), normal(*shape))
    assert make(nn).extra_repr() == make(tnn).extra_repr()
