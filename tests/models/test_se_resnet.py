import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import optim
from minitorch_attn.attention import SqueezeExcitation
from minitorch_attn.models import SEBlock, se_resnet
from minitorch_attn.models.se_resnet import PLACEMENTS

from ..nn.parity import compare_modules, normal
from .networks import count


def torch_block(torch, in_channels, out_channels, stride, reduction, placement):
    """Figure 5 of the paper, written out with PyTorch."""
    tnn = torch.nn

    class Squeeze(tnn.Module):
        def __init__(self, channels):
            super().__init__()
            self.fc1 = tnn.Linear(channels, channels // reduction, bias=False)
            self.fc2 = tnn.Linear(channels // reduction, channels, bias=False)

        def forward(self, x):
            s = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean(dim=(2, 3))))))
            return x * s[:, :, None, None]

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = tnn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
            self.bn1 = tnn.BatchNorm2d(out_channels)
            self.conv2 = tnn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
            self.bn2 = tnn.BatchNorm2d(out_channels)
            self.shortcut = tnn.Identity()
            if stride != 1 or in_channels != out_channels:
                self.shortcut = tnn.Sequential(
                    tnn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                    tnn.BatchNorm2d(out_channels),
                )
            self.attention = tnn.Identity()
            if placement is not None:
                self.attention = Squeeze(in_channels if placement == "pre" else out_channels)

        def forward(self, x):
            branch = self.attention(x) if placement == "pre" else x
            branch = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(branch)))))
            branch = self.attention(branch) if placement == "standard" else branch
            added = self.shortcut(x)
            added = self.attention(added) if placement == "identity" else added
            y = torch.relu(branch + added)
            return self.attention(y) if placement == "post" else y

    return Block()


@pytest.mark.parametrize("placement", [*PLACEMENTS, None])
@pytest.mark.parametrize(("in_channels", "out_channels", "stride"), [(4, 4, 1), (4, 8, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_the_papers_figure(in_channels, out_channels, stride, placement, training):
    torch = pytest.importorskip("torch")
    reduction = None if placement is None else 2
    block = SEBlock(in_channels, out_channels, stride, reduction, placement or "standard")
    theirs = torch_block(torch, in_channels, out_channels, stride, 2, placement)
    compare_modules(block, theirs, normal(3, in_channels, 5, 6), training=training)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_block_passes_the_gradient_check(placement):
    mt.manual_seed(0)
    block = SEBlock(2, 4, 2, 2, placement).double()
    report = mt.gradcheck(block, normal(2, 2, 3, 3))
    assert len(report.inputs) == 1 + len(list(block.parameters()))


def test_the_placements_differ():
    outputs = []
    for placement in PLACEMENTS:
        mt.manual_seed(0)
        block = SEBlock(4, 4, 1, 2, placement).double()
        outputs.append(block(mt.tensor(normal(2, 4, 5, 5))).numpy())
    for i, a in enumerate(outputs):
        for b in outputs[:i]:
            assert np.abs(a - b).max() > 0.01


@pytest.mark.parametrize(("layers", "parameters"), [(20, 272_474), (56, 855_770), (110, 1_730_714)])
def test_without_attention_it_is_the_resnet_of_cifar(layers, parameters):
    depth = ((layers - 2) // 6,) * 3
    assert count(se_resnet(in_channels=3, blocks=depth, attention=False)) == parameters


@pytest.mark.parametrize(
    ("placement", "channels"),
    [
        ("standard", [16, 16, 32, 32, 64, 64]),
        ("pre", [16, 16, 16, 32, 32, 64]),
        ("post", [16, 16, 32, 32, 64, 64]),
        ("identity", [16, 16, 32, 32, 64, 64]),
    ],
)
def test_attention_adds_two_c_squared_over_r_in_each_block(placement, channels):
    plain = se_resnet(blocks=(2, 2, 2), attention=False)
    net = se_resnet(blocks=(2, 2, 2), reduction=8, placement=placement)
    gates = [m for m in net.modules() if isinstance(m, SqueezeExcitation)]
    assert [m.channels for m in gates] == channels
    assert count(net) - count(plain) == sum(2 * C * C // 8 for C in channels)


def test_the_defaults_make_a_network_of_80_442_parameters():
    net = se_resnet()
    assert repr(net).splitlines()[0].split("  ")[-1].strip() == "80,442 parameters"
    assert net.fc.weight.shape == (10, 64)


def test_kernels_start_with_the_variance_that_keeps_the_gradients():
    kernel = se_resnet(widths=(64, 128), blocks=(1, 1)).get_submodule("stages.1.0.conv1").weight
    assert kernel.numpy().std() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("size", [8, 28, 5])
def test_scores_of_images_of_any_size(size):
    net = se_resnet(num_classes=7, in_channels=2, widths=(4, 8), blocks=(1, 2), reduction=2)
    assert net(mt.ones(3, 2, size, size)).shape == (3, 7)
    assert net.stages(mt.ones(3, 4, size, size)).shape == (3, 8, -(-size // 2), -(-size // 2))


def test_a_hook_sees_the_weights_of_a_block():
    net, seen = se_resnet().eval(), []
    gate = net.get_submodule("stages.1.0.attention.gate")
    with mt.no_grad(), gate.register_forward_hook(lambda m, inputs, s: seen.append(s)):
        net(mt.ones(3, 1, 8, 8))
    assert seen[0].shape == (3, 32)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="SEBlock: placement must be one of .*, not 'before'"):
        se_resnet(placement="before")
    with pytest.raises(ValueError, match=r"blocks=\(1,\) has 1 values for 2 stages"):
        se_resnet(widths=(16, 32), blocks=(1,))
    with pytest.raises(ValueError, match="SEResNet: needs a stage at least"):
        se_resnet(widths=(), blocks=())
    with pytest.raises(ValueError, match="reduction=32 leaves no unit"):
        se_resnet(reduction=32)
    with pytest.raises(ValueError, match="a stage needs a block at least, not 0"):
        se_resnet(blocks=(1, 0, 1))
    with pytest.raises(TypeError, match=r"True or False, not a type.*take cifar_resnet"):
        se_resnet(attention=SqueezeExcitation)


def test_an_error_deep_inside_names_its_layer():
    with pytest.raises(mt.ShapeError, match=r"in layer SEResNet.conv1: Conv2d\(1, 16, kernel_size"):
        se_resnet()(mt.ones(2, 3, 8, 8))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_it_learns_a_batch_by_heart(placement):
    mt.manual_seed(0)
    net = se_resnet(widths=(8, 16), blocks=(1, 1), placement=placement)
    x, classes = mt.tensor(normal(20, 1, 8, 8).astype("float32")), np.arange(20) % 10
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        loss = F.cross_entropy(net(x), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
