import pytest

from minitorch_attn.attention import SqueezeExcitation
from minitorch_attn.models import (
    DPN,
    VGG,
    BasicBlock,
    CifarResNet,
    PolyNet,
    ResNet,
    ShuffleNetV2,
    resnet20,
    wrn,
)
from minitorch_attn.models.preact_resnet import PreActBasicBlock, PreActResNet
from minitorch_attn.models.stages import blocks_per_stage, stage


def test_the_first_block_has_the_stride_and_changes_the_channels():
    blocks = stage(BasicBlock, 4, 6, 3, 2)
    assert [b.conv1.weight.shape for b in blocks] == [(6, 4, 3, 3), (6, 6, 3, 3), (6, 6, 3, 3)]
    assert [b.conv1.stride for b in blocks] == [(2, 2), (1, 1), (1, 1)]


@pytest.mark.parametrize(("layers", "other", "depth", "n"), [(2, 2, 20, 3), (3, 2, 164, 18)])
def test_a_depth_is_layers_of_three_stages_and_a_few_more(layers, other, depth, n):
    assert blocks_per_stage(depth, layers, other) == n
    with pytest.raises(ValueError, match=f"not {depth + 1}: take {depth}"):
        blocks_per_stage(depth + 1, layers, other)


@pytest.mark.parametrize("depth", [15, 4, 0, -2])
def test_a_wide_network_of_no_such_depth_is_told_with_the_nearest(depth):
    with pytest.raises(ValueError, match=rf"not {depth}: take {16 if depth == 15 else 10}"):
        wrn(depth, 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResNet(BasicBlock, (2, 2, 2)), r"ResNet: blocks=\(2, 2, 2\) has 3 values for 4"),
        (lambda: ResNet(BasicBlock, (1, 1, 1, 1, 1)), "has 5 values for 4 stages"),
        (lambda: ResNet(BasicBlock, (1, 0, 1, 1)), "needs a block at least, not 0"),
        (lambda: CifarResNet(BasicBlock, 1, widths=(8, 16)), r"widths=\(8, 16\) has 2 values"),
        (lambda: CifarResNet(BasicBlock, 0), "needs a block at least, not 0"),
        (lambda: PreActResNet(PreActBasicBlock, 1, widths=(8,) * 4), "has 4 values for 3 stages"),
        (lambda: VGG((1, 1, 1, 1)), "VGG: depths=.* has 4 values for 5 stages"),
        (lambda: PolyNet(blocks=(1, 1)), "PolyNet: blocks=.* has 2 values for 3 stages"),
        (lambda: ShuffleNetV2(widths=(8, 16, 32)), "ShuffleNetV2: widths=.* has 3 values for 4"),
        (lambda: DPN(7, 1, 8, 3, 16, 8, 4, (1, 1), (4,)), "DPN: growth=.* has 1 values for 2"),
    ],
)
def test_a_list_that_does_not_fit_the_stages_is_told(unfilled, build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("attention", [SqueezeExcitation(16), True])
@pytest.mark.parametrize("build", [resnet20, lambda **options: wrn(10, 1, **options)])
def test_attention_that_is_a_module_instead_of_making_one_is_told(build, attention):
    name = type(attention).__name__
    with pytest.raises(TypeError, match=f"make a module for each block.* not be a {name} itself"):
        build(attention=attention)
