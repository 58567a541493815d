import pytest

import minitorch_attn as mt
from minitorch_attn.attention import TripletAttention

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def paper_module(torch, kernel_size):
    """Each branch by moving the squeezed axis to the front, with its own names for the axes."""

    class Gate(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
            self.norm = torch.nn.BatchNorm2d(1)

        def forward(self, x, dim):
            pooled = torch.stack([x.max(dim=dim).values, x.mean(dim=dim)], dim=1)
            return torch.sigmoid(self.norm(self.conv(pooled)))[:, 0]

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.branches = torch.nn.ModuleDict(
                {name: Gate() for name in ("width", "height", "channel")}
            )

        def forward(self, x):
            # (N, C, H) is transposed to (N, H, C): the convolution sees rows first.
            over_w = self.branches["width"](x.transpose(1, 2), 3).transpose(1, 2)[..., None]
            over_h = self.branches["height"](x, 2)[:, :, None, :]
            over_c = self.branches["channel"](x, 1)[:, None]
            return x * (over_w + over_h + over_c) / 3

    return Paper()


@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_all_gradients_are_those_of_the_paper(kernel_size, training):
    torch = pytest.importorskip("torch")
    ours = TripletAttention(kernel_size)
    compare_modules(ours, paper_module(torch, kernel_size), IMAGES, training=training)


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    assert mt.gradcheck(TripletAttention(3).double(), normal(2, 4, 3, 2)).ok


def test_it_has_300_parameters():
    assert sum(p.numel() for p in TripletAttention().parameters()) == 300


def test_a_hook_sees_the_gate_of_a_branch():
    module, seen = TripletAttention().double(), []
    gate = module.branches["channel"].gate
    with gate.register_forward_hook(lambda m, inputs, s: seen.append(s)):
        module(mt.tensor(IMAGES))
    assert seen[0].shape == (3, 1, 5, 4)


def test_bad_settings_and_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="kernel_size must be odd, not 4"):
        TripletAttention(4)
    for kernel_size in (0, 7.0):
        with pytest.raises(ValueError, match=f"must be an integer .* 1, not {kernel_size}"):
            TripletAttention(kernel_size)
    with pytest.raises(
        mt.ShapeError, match=r"TripletAttention: needs an input \(N, C, H, W\), got"
    ):
        TripletAttention()(mt.ones(8, 3, 3))
