import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.models import VisionTransformer, vit_b_16, vit_b_32

from ..nn.parity import compare_modules, normal
from .networks import check_training, count

SMALL = {
    "image_size": 8,
    "patch_size": 2,
    "layers": 3,
    "features": 48,
    "heads": 4,
    "hidden": 96,
    "num_classes": 10,
    "in_channels": 1,
}


def paper_module(torch, image_size, patch_size, layers, features, heads, hidden, K, channels):
    """Equations 1 to 4 with PyTorch's own attention, under torchvision's names."""
    tnn = torch.nn

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1 = tnn.LayerNorm(features, eps=1e-6)
            self.self_attention = tnn.MultiheadAttention(features, heads, batch_first=True)
            self.ln_2 = tnn.LayerNorm(features, eps=1e-6)
            self.mlp = tnn.Sequential(
                tnn.Linear(features, hidden),
                tnn.GELU(),
                tnn.Dropout(0),
                tnn.Linear(hidden, features),
            )

        def forward(self, x):
            z = self.ln_1(x)
            x = x + self.self_attention(z, z, z)[0]
            return x + self.mlp(self.ln_2(x))

    class Encoder(tnn.Module):
        def __init__(self):
            super().__init__()
            length = (image_size // patch_size) ** 2 + 1
            self.pos_embedding = tnn.Parameter(torch.zeros(1, length, features))
            self.layers = tnn.Sequential()
            for i in range(layers):
                self.layers.add_module(f"encoder_layer_{i}", Block())
            self.ln = tnn.LayerNorm(features, eps=1e-6)

        def forward(self, x):
            return self.ln(self.layers(x + self.pos_embedding))

    class Paper(tnn.Module):
        def __init__(self):
            super().__init__()
            self.class_token = tnn.Parameter(torch.zeros(1, 1, features))
            self.conv_proj = tnn.Conv2d(channels, features, patch_size, patch_size)
            self.encoder = Encoder()
            self.heads = tnn.Sequential()
            self.heads.add_module("head", tnn.Linear(features, K))

        def forward(self, x):
            tokens = self.conv_proj(x).flatten(2).permute(0, 2, 1)
            tokens = torch.cat([self.class_token.repeat(len(x), 1, 1), tokens], dim=1)
            return self.heads(self.encoder(tokens)[:, 0])

    return Paper()


def test_outputs_and_all_gradients_are_those_of_the_papers_equations():
    torch = pytest.importorskip("torch")
    ours = VisionTransformer(**{**SMALL, "layers": 2, "features": 12, "hidden": 16})
    theirs = paper_module(torch, 8, 2, 2, 12, 4, 16, 10, 1)
    compare_modules(ours, theirs, normal(3, 1, 8, 8), dtypes=("float64",))


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    tiny = {"image_size": 4, "layers": 1, "features": 4, "heads": 2, "hidden": 3}
    model = VisionTransformer(**{**SMALL, **tiny, "num_classes": 2}).double()
    model.heads.head.weight.data = normal(2, 4)
    model.class_token.data = normal(1, 1, 4)
    assert mt.gradcheck(model, normal(2, 1, 4, 4)).ok


@pytest.mark.parametrize(("build", "parameters"), [(vit_b_16, 86_567_656), (vit_b_32, 88_224_232)])
def test_parameter_counts_are_torchvisions(build, parameters):
    assert count(build()) == parameters


def test_the_small_one_of_the_lesson_is_small():
    assert count(VisionTransformer(**SMALL)) == 58_570


def test_every_parameter_gets_a_gradient():
    mt.manual_seed(0)
    model = VisionTransformer(**SMALL)
    mt.nn.init.normal_(model.heads.head.weight)  # at 0 nothing in front of it has a gradient
    mt.nn.init.normal_(model.class_token)
    check_training(model, 1, 8, 8, num_classes=10)


def test_at_the_start_all_classes_score_0():
    scores = VisionTransformer(**SMALL)(mt.ones(2, 1, 8, 8))
    np.testing.assert_array_equal(scores.numpy(), 0)


def test_a_hook_sees_which_patches_a_patch_looks_at():
    model, seen = VisionTransformer(**SMALL), []
    block = model.encoder.layers.encoder_layer_1
    hook = block.self_attention.softmax.register_forward_hook(lambda m, i, w: seen.append(w))
    model(mt.ones(2, 1, 8, 8))
    hook.remove()
    (w,) = seen
    assert w.shape == (2, 4, 17, 17)
    np.testing.assert_allclose(w.numpy().sum(axis=-1), 1, rtol=1e-5)


def test_it_knows_places():
    mt.manual_seed(0)
    model = VisionTransformer(**SMALL).double()
    mt.nn.init.normal_(model.heads.head.weight)
    x = normal(1, 1, 8, 8)
    before = model(mt.tensor(x)).numpy()
    assert np.abs(model(mt.tensor(x[..., ::-1].copy())).numpy() - before).max() > 1e-3


def test_images_of_another_size_are_refused():
    model = VisionTransformer(**SMALL)
    with pytest.raises(mt.ShapeError, match="made for images of 8x8 pixels"):
        model(mt.ones(2, 1, 16, 16))
    with pytest.raises(mt.ShapeError, match="needs .* C = 1 channels"):
        model(mt.ones(2, 3, 8, 8))
    with pytest.raises(ValueError, match="patches of 3 pixels do not cover an image of 8"):
        VisionTransformer(**{**SMALL, "patch_size": 3})


@pytest.mark.parametrize("setting", sorted(SMALL))
@pytest.mark.parametrize("count", [0, 2.0])
def test_counts_that_are_no_positive_integers_are_refused_by_name(setting, count):
    with pytest.raises(ValueError, match=f"VisionTransformer: {setting} must be an integer of at"):
        VisionTransformer(**{**SMALL, setting: count})


def test_what_is_no_batch_of_images_is_refused():
    with pytest.raises(mt.ShapeError, match=r"VisionTransformer: needs an input \(N, C, H, W\)"):
        VisionTransformer(**SMALL)(mt.ones(1, 8, 8))
