import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import optim
from minitorch_attn.attention import ECA
from minitorch_attn.attention.eca import adaptive_kernel_size
from minitorch_attn.models import cifar_resnet

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def count(module):
    return sum(p.numel() for p in module.parameters())


def paper_module(torch, channels, k):
    """Each channel's weight from the means of its k neighbours, written out with PyTorch."""

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(1, 1, k, bias=False)

        def forward(self, x):
            z = x.mean(dim=(2, 3))
            weights, scores = self.conv.weight.flatten(), []
            for c in range(channels):
                near = [(m, c + m - k // 2) for m in range(k)]
                scores.append(sum(weights[m] * z[:, i] for m, i in near if 0 <= i < channels))
            return x * torch.sigmoid(torch.stack(scores, dim=1))[:, :, None, None]

    return Paper()


@pytest.mark.parametrize("k", [1, 3, 5, 11])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(k):
    torch = pytest.importorskip("torch")
    compare_modules(ECA(8, kernel_size=k), paper_module(torch, 8, k), IMAGES)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_gradient_check_passes(k):
    mt.manual_seed(0)
    report = mt.gradcheck(ECA(6, kernel_size=k).double(), normal(3, 6, 2, 3))
    assert len(report.inputs) == 2
    assert not any(i.warning for i in report.inputs), str(report)


@pytest.mark.parametrize(
    ("channels", "k"),
    [
        *[(1, 1), (4, 1), (7, 1), (8, 3), (16, 3), (32, 3), (64, 3), (127, 3)],
        *[(128, 5), (256, 5), (512, 5), (1024, 5), (2047, 5), (2048, 7)],
    ],
)
def test_the_kernel_grows_with_the_logarithm_of_the_channels(channels, k):
    assert adaptive_kernel_size(channels) == k
    assert ECA(channels).conv.weight.shape == (1, 1, k)


def test_the_constants_of_the_kernels_size_can_be_chosen():
    assert adaptive_kernel_size(256, gamma=1, b=1) == 9  # of 8 + 1
    assert adaptive_kernel_size(256, gamma=4, b=0) == 3  # of 2
    assert ECA(256, gamma=1, b=3).conv.weight.shape == (1, 1, 11)
    assert ECA(256, kernel_size=3, gamma=1).conv.weight.shape == (1, 1, 3)


def test_resnet50_pays_86_parameters():
    stages = {256: 3, 512: 4, 1024: 6, 2048: 3}  # channels behind a block, number of blocks
    assert sum(blocks * count(ECA(channels)) for channels, blocks in stages.items()) == 86


def test_a_hook_on_the_gate_sees_one_weight_a_channel():
    module, seen = ECA(8).double(), []
    with module.gate.register_forward_hook(lambda m, inputs, s: seen.append(s.numpy())):
        y = module(mt.tensor(IMAGES))
    (s,) = seen
    assert s.shape == (3, 1, 8) and (s > 0).all() and (s < 1).all()
    np.testing.assert_allclose(y.numpy(), IMAGES * s.reshape(3, 8, 1, 1), rtol=1e-12)


def test_a_channel_sees_its_neighbours_alone():
    module, x = ECA(8, kernel_size=3).double(), IMAGES.copy()
    before = module(mt.tensor(x)).numpy() / x
    x[:, 2] += 1
    changed = np.abs(module(mt.tensor(x)).numpy() / x - before).max(axis=(0, 2, 3)) > 1e-9
    np.testing.assert_array_equal(np.flatnonzero(changed), [1, 2, 3])


def test_a_residual_network_learns_a_batch_by_heart():
    mt.manual_seed(0)
    net = cifar_resnet(8, in_channels=1, attention=ECA)
    x, classes = mt.tensor(normal(20, 1, 8, 8).astype("float32")), np.arange(20) % 10
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    for _ in range(40):
        loss = F.cross_entropy(net(x), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize(
    ("kernel_size", "needed"),
    [
        (2, "odd, not 2: "),
        (0, "an integer of at least 1, not 0"),
        (-3, "an integer of at least 1, not -3"),
        (3.0, "an integer of at least 1, not 3.0"),
    ],
)
def test_a_kernel_without_a_middle_is_refused(kernel_size, needed):
    with pytest.raises(ValueError, match=f"ECA: kernel_size must be {needed}"):
        ECA(8, kernel_size=kernel_size)


def test_the_kernels_size_is_the_one_of_the_authors_program():
    for channels in range(1, 3000):
        whole = int(abs((np.log2(channels) + 1) / 2))
        assert adaptive_kernel_size(channels) == (whole if whole % 2 else whole + 1)


def test_no_channels_and_no_growth_are_refused():
    for kernel_size in (None, 3):
        with pytest.raises(ValueError, match="channels must be an integer of at least 1, not 0"):
            ECA(0, kernel_size)
    with pytest.raises(ValueError, match="gamma must not be 0"):
        ECA(8, gamma=0)


@pytest.mark.parametrize("shape", [(2, 6, 3, 3), (8, 3, 3), (2, 8)])
def test_an_input_of_another_shape_is_refused_by_name(shape):
    with pytest.raises(mt.ShapeError, match=r"an input \(N, C, H, W\) with C = 8 channels"):
        ECA(8)(mt.ones(*shape))
