import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import BAM
from minitorch_attn.models import bam_resnet

from ..nn.parity import normal
from .networks import Nothing, check_training, count


def test_it_can_be_trained():
    mt.manual_seed(0)
    check_training(bam_resnet(widths=(16, 16, 8)), 1, 8, 8, num_classes=10)


def test_a_module_stands_behind_each_stage_but_the_last():
    model = bam_resnet(widths=(4, 8, 16))
    assert [(type(m), m.channels) for m in model.attention] == [(BAM, 4), (BAM, 8)]
    sizes = []
    for module in model.attention:
        module.gate.register_forward_hook(lambda m, inputs, M: sizes.append(M.shape))
    model(mt.ones(2, 1, 8, 8))
    assert sizes == [(2, 4, 8, 8), (2, 8, 4, 4)]  # at full size, before the halving


def test_what_passes_the_bottleneck_is_what_the_module_lets_through():
    model = bam_resnet(widths=(4, 8), blocks=(1, 1), attention=Nothing).eval()
    scores = model(mt.tensor(normal(3, 1, 8, 8), dtype="float32")).numpy()
    assert (scores == scores[0]).all()


def test_without_attention_the_rest_is_the_same_network():
    models = [bam_resnet(widths=(4, 8), blocks=(1, 2), attention=a) for a in (None, Nothing)]
    state = models[0].state_dict()
    models[1].load_state_dict(state)
    assert not any(name.startswith("attention") for name in state)
    bam = bam_resnet(widths=(4, 8), blocks=(1, 2))
    assert count(bam) == count(models[0]) + count(bam.attention)


def test_what_it_cannot_build_is_refused():
    with pytest.raises(ValueError, match="blocks"):
        bam_resnet(widths=(4, 8), blocks=(1,))
    with pytest.raises(TypeError, match="make a module for each block"):
        bam_resnet(attention=True)
    assert np.isfinite(bam_resnet(widths=(8,), blocks=(1,))(mt.ones(2, 1, 4, 4)).numpy()).all()
