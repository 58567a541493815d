import pytest

from minitorch_attn import nn

from .parity import compare_modules, normal

torch = pytest.importorskip("torch")
tnn = torch.nn

LINES, IMAGES, VOLUMES = normal(2, 3, 5), normal(2, 3, 5, 4), normal(2, 2, 3, 4, 2)

LAYERS = {
    "nearest": (lambda n: n.Upsample(scale_factor=2), IMAGES),
    "nearest, a size": (lambda n: n.Upsample((3, 9)), IMAGES),
    "linear": (lambda n: n.Upsample(scale_factor=1.5, mode="linear"), LINES),
    "bilinear": (lambda n: n.Upsample(7, mode="bilinear"), IMAGES),
    "bilinear, aligned": (lambda n: n.Upsample(7, mode="bilinear", align_corners=True), IMAGES),
    "bicubic": (lambda n: n.Upsample(scale_factor=(2, 1.5), mode="bicubic"), IMAGES),
    "bilinear, recomputed": (
        lambda n: n.Upsample(None, 1.7, "bilinear", False, recompute_scale_factor=True),
        IMAGES,
    ),
    "trilinear": (lambda n: n.Upsample(scale_factor=2, mode="trilinear"), VOLUMES),
    "nearest of images": (lambda n: n.UpsamplingNearest2d(scale_factor=3), IMAGES),
    "bilinear of images": (lambda n: n.UpsamplingBilinear2d(scale_factor=3), IMAGES),
    "bilinear of images, a size": (lambda n: n.UpsamplingBilinear2d((8, 9)), IMAGES),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_pytorchs_output_and_gradients(name):
    make, x = LAYERS[name]
    compare_modules(make(nn), make(tnn), x)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_shows_its_settings_as_pytorchs_does(name):
    make, _ = LAYERS[name]
    assert make(nn).extra_repr() == make(tnn).extra_repr()


def test_factors_may_be_a_list():
    assert nn.Upsample(scale_factor=[2, 3])(normal(1, 1, 2, 2)).shape == (1, 1, 4, 6)
