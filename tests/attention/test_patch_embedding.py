import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import PatchEmbedding

from ..nn.parity import compare_modules, normal


def paper_module(torch, channels, features, size):
    """Each patch cut out by slicing, and the same linear map for each."""

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(features, channels, size, size))
            self.bias = torch.nn.Parameter(torch.zeros(features))

        def forward(self, x):
            H, W = x.shape[2:]
            corners = [(i, j) for i in range(0, H, size) for j in range(0, W, size)]
            patches = [x[:, :, i : i + size, j : j + size].flatten(1) for i, j in corners]
            return torch.stack(patches, dim=1) @ self.weight.flatten(1).T + self.bias

    return Paper()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_outputs_and_all_gradients_are_those_of_cut_patches(size):
    torch = pytest.importorskip("torch")
    compare_modules(
        PatchEmbedding(2, 5, size), paper_module(torch, 2, 5, size), normal(3, 2, 6, 12)
    )


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    assert mt.gradcheck(PatchEmbedding(2, 3, 2).double(), normal(2, 2, 4, 6)).ok


def test_patches_are_read_row_by_row():
    embed = PatchEmbedding(1, 1, 2).double()
    embed.weight.data = np.ones((1, 1, 2, 2))
    embed.bias.data = np.zeros(1)
    x = np.kron(np.arange(6.0).reshape(1, 1, 2, 3), np.ones((2, 2)))
    np.testing.assert_array_equal(embed(mt.tensor(x)).numpy()[0, :, 0], 4 * np.arange(6))


def test_images_that_patches_do_not_cover_are_refused():
    embed = PatchEmbedding(3, 4, patch_size=4)
    with pytest.raises(mt.ShapeError, match="must be multiples of 4; resize or pad"):
        embed(mt.ones(1, 3, 8, 6))
    with pytest.raises(mt.ShapeError, match="PatchEmbedding: needs .* C = 3 channels"):
        embed(mt.ones(1, 1, 8, 8))


@pytest.mark.parametrize("setting", ["channels", "features", "patch_size"])
@pytest.mark.parametrize("count", [0, 2.0, (2, 2)])
def test_counts_that_are_no_positive_integers_are_refused_by_name(setting, count):
    with pytest.raises(ValueError, match=f"PatchEmbedding: {setting} must be an integer of at"):
        PatchEmbedding(**{"channels": 1, "features": 6, "patch_size": 2, setting: count})
