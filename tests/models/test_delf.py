import importlib

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.attention import SqueezeExcitation
from minitorch_attn.models import (
    DELF,
    BasicBlock,
    LocalFeatures,
    ReceptiveField,
    delf_resnet50,
    fit_affine,
    match_features,
    receptive_field,
)
from minitorch_attn.models.delf import PYRAMID
from minitorch_attn.retrieval import PCAWhitening

from ..nn.parity import normal
from .networks import count


def small_backbone():
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, 2, padding=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2)
    )


def small_delf(dtype="float64"):
    mt.manual_seed(0)
    return DELF(small_backbone(), 6, num_classes=3, hidden=5).to(dtype).eval()


# -- the network ----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [1, 2])
def test_outputs_and_gradients_of_each_stage_are_those_of_its_formula(stage):
    torch = pytest.importorskip("torch")
    model = small_delf().train()
    learning = model.begin_stage(stage)
    images, dy = normal(4, 1, 17, 15), normal(4, 3)
    p = {
        n: torch.tensor(t.numpy().copy(), requires_grad=n in names(model, learning))
        for n, t in model.state_dict().items()
        if t.dtype.kind == "f"
    }
    functional = torch.nn.functional
    x = functional.conv2d(
        torch.tensor(images), p["backbone.0.weight"], p["backbone.0.bias"], 2, padding=2
    )
    statistics = p["backbone.1.running_mean"].clone(), p["backbone.1.running_var"].clone()
    x = functional.batch_norm(
        x, *statistics, p["backbone.1.weight"], p["backbone.1.bias"], training=stage == 1
    )
    x = functional.conv2d(x.relu(), p["backbone.3.weight"], p["backbone.3.bias"], 2)
    places = x.flatten(2).transpose(1, 2)
    if stage == 1:
        y = places.mean(1) @ p["mean_classifier.weight"].T + p["mean_classifier.bias"]
    else:
        w1, w2 = (p[f"attention.conv{i}.weight"].flatten(1) for i in (1, 2))
        inner = (places @ w1.T + p["attention.conv1.bias"]).relu()
        alpha = torch.log1p(torch.exp(inner @ w2.T + p["attention.conv2.bias"]))
        summed = (alpha * places / places.norm(dim=2, keepdim=True)).sum(1)
        y = summed @ p["attended_classifier.weight"].T + p["attended_classifier.bias"]
    y.backward(torch.tensor(dy))

    ours = model(mt.tensor(images))
    ours.backward(dy)
    np.testing.assert_allclose(ours.numpy(), y.detach().numpy(), atol=1e-12)
    for name, parameter in model.named_parameters():
        if p[name].grad is None:
            assert parameter.grad is None, name
        else:
            # The bias in front of the batch normalisation has a gradient of rounding alone.
            np.testing.assert_allclose(
                parameter.grad.numpy(), p[name].grad.numpy(), atol=1e-12, err_msg=name
            )


def names(model, parameters):
    return {n for n, q in model.named_parameters() if any(q is one for one in parameters)}


def test_each_stage_trains_its_own_part():
    model = small_delf()
    first, second = names(model, model.begin_stage(1)), names(model, model.begin_stage(2))
    assert {n.partition(".")[0] for n in first} == {"backbone", "mean_classifier"}
    assert {n.partition(".")[0] for n in second} == {"attention", "attended_classifier"}
    assert len(first) == 6 + 2 and len(second) == 4 + 2


def test_stage_2_leaves_the_backbones_statistics_alone():
    model = small_delf().train()
    model.begin_stage(2)
    assert model.attention.training and not model.backbone.training
    model.eval().train()  # as a training loop does between epochs
    before = {n: b.numpy().copy() for n, b in model.named_buffers()}
    model(mt.tensor(normal(4, 1, 16, 16)))
    for name, buffer in model.named_buffers():
        np.testing.assert_array_equal(buffer.numpy(), before[name])
    model.begin_stage(1)
    assert model.train().backbone.training


def test_delf_of_a_resnet_50_has_its_parameters_and_its_field(unfilled):
    model = delf_resnet50(num_classes=10)
    whole = 25_557_032 - (2048 * 1000 + 1000)
    layer4 = 14_964_736
    assert count(model.backbone) == whole - layer4
    assert count(model.attention) == 1024 * 512 + 512 + 512 + 1
    assert count(model) == count(model.backbone) + 525_313 + 2 * (1024 * 10 + 10)
    assert model.field == ReceptiveField(267, 16, 0.0)


def test_the_backbone_of_delf_resnet50_is_the_resnets_first_part(quick_random):
    model = delf_resnet50(num_classes=2).eval()
    assert list(model.state_dict())[0] == "backbone.conv1.weight"
    with mt.no_grad():
        assert model.backbone(mt.tensor(normal(1, 3, 40, 33))).shape == (1, 1024, 3, 3)


# -- the receptive field --------------------------------------------------------------------

CHAINS = {
    "one convolution": lambda: nn.Sequential(nn.Conv2d(1, 2, 5, 3, padding=1)),
    "padding as wide as half": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, 2, padding=1), nn.Conv2d(2, 2, 3, padding=1)
    ),
    "pools": lambda: nn.Sequential(
        nn.AvgPool2d(2), nn.Conv2d(1, 2, 3), nn.Tanh(), nn.AvgPool2d(3, 2, padding=1)
    ),
    "dilation, in parts of parts": lambda: nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2)), nn.Conv2d(2, 1, 2, 2)
    ),
    "residual block": lambda: nn.Sequential(BasicBlock(1, 2, 2).eval(), nn.Conv2d(2, 1, 3)),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_receptive_field_is_where_the_gradient_comes_from(chain):
    """The pixels that one place depends on, found by a reverse pass from it."""
    mt.manual_seed(3)
    network = CHAINS[chain]().double()
    field = receptive_field(network)
    for at in (3, 4):
        reached = np.zeros(60, dtype=bool)
        for seed in range(3):  # a ReLU may shut a pixel out in one of them
            x = mt.tensor(normal(1, 1, 60, 60, seed=seed), requires_grad=True)
            y = network(x)
            dy = np.zeros(y.shape)
            dy[:, :, at, at] = 1
            y.backward(dy)
            reached |= (np.abs(x.grad.numpy()[0, 0]) > 1e-12).any(axis=0)  # not rounding
        pixels = np.flatnonzero(reached)
        middle = field.start + at * field.stride
        assert (pixels[0], pixels[-1]) == (
            middle - (field.size - 1) / 2,
            middle + (field.size - 1) / 2,
        )


def test_receptive_field_says_what_it_cannot_tell():
    for part in (SqueezeExcitation(4, 2), nn.ConvTranspose2d(1, 1, 3), nn.AdaptiveAvgPool2d(2)):
        with pytest.raises(ValueError, match=f"a {type(part).__name__} .* field=ReceptiveField"):
            receptive_field(nn.Sequential(nn.Conv2d(1, 4, 3), part))
    with pytest.raises(ValueError, match="what a Upsample sees"):
        receptive_field(nn.Upsample(scale_factor=2))
    with pytest.raises(ValueError, match=r"kernel_size of .* one integer .* not \(3, 1\)"):
        receptive_field(nn.Conv2d(1, 1, (3, 1)))
    with pytest.raises(ValueError, match="padding of .* not 'same'"):
        receptive_field(nn.Conv2d(1, 1, 3, padding="same"))
    given = ReceptiveField(9, 4, 0.0)
    assert DELF(SqueezeExcitation(4, 2), 4, 2, field=given).field is given


# -- local features -------------------------------------------------------------------------


def test_extract_gives_the_places_of_the_highest_scores():
    model, image = small_delf(), normal(1, 23, 30)
    found = model.extract(image, scales=(1.0,), count=7)
    x = model.backbone(mt.tensor(image[None]))
    alpha = model.attention.scores(x).numpy()[0, 0]
    wanted = sorted(
        ((alpha[p, q], p, q) for p in range(alpha.shape[0]) for q in range(alpha.shape[1])),
        reverse=True,
    )[:7]
    np.testing.assert_array_equal(found.scores, [a for a, _, _ in wanted])
    assert model.field == ReceptiveField(9, 4, 2.0)
    np.testing.assert_allclose(found.places, [(2 + 4 * q, 2 + 4 * p) for _, p, q in wanted])
    for descriptor, (_, p, q) in zip(found.descriptors, wanted, strict=True):
        feature = x.numpy()[0, :, p, q]
        np.testing.assert_allclose(descriptor, feature / np.sqrt((feature**2).sum()))


def test_a_place_of_every_scale_is_where_the_pattern_is():
    """A lone bright spot in an image that is enlarged: the features that see it lie around it."""
    backbone = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False)).double()
    backbone[0].weight.data = np.ones((1, 1, 3, 3))
    model = DELF(backbone, 1, 2, hidden=2)
    image = np.zeros((1, 40, 40))
    image[0, 11:13, 25:27] = 1  # its middle is (25.5, 11.5)
    for scale in (0.5, 1.0, 2.0, 1.3):
        found = model.extract(image, scales=(scale,), count=10**4, rank=lambda f: f)
        weights = found.scores / found.scores.sum()
        np.testing.assert_allclose(weights @ found.places, (25.5, 11.5), atol=0.1)
        assert set(found.scales) == {scale}


def test_all_scales_compete():
    model, image = small_delf(), normal(1, 32, 32)
    alone = [model.extract(image, (scale,), 10**4) for scale in (0.5, 1.0)]
    both = model.extract(image, (0.5, 1.0), 20)
    scores = np.sort(np.concatenate([one.scores for one in alone]))[::-1]
    np.testing.assert_array_equal(both.scores, scores[:20])
    assert set(both.scales) == {0.5, 1.0}
    assert PYRAMID == pytest.approx((0.25, 0.3536, 0.5, 0.7071, 1, 1.4142, 2), abs=1e-4)


def test_descriptors_are_made_short_between_two_divisions_by_the_length():
    model, image = small_delf(), normal(1, 40, 40)
    plain = model.extract(image, (1.0,), 50)
    pca = PCAWhitening(3, whiten=False, normalize=False).fit(plain.descriptors)
    short = model.extract(image, (1.0,), 50, reduce=pca.transform)
    y = pca.transform(plain.descriptors)
    np.testing.assert_allclose(short.descriptors, y / np.sqrt((y**2).sum(1, keepdims=True)))
    np.testing.assert_array_equal(short.places, plain.places)


def test_least_score_and_equal_scores():
    model, image = small_delf(), normal(1, 32, 32)
    all_of_them = model.extract(image, (1.0,), 10**4)
    middle = np.median(all_of_them.scores)
    some = model.extract(image, (1.0,), 10**4, least_score=middle)
    np.testing.assert_array_equal(some.scores, all_of_them.scores[all_of_them.scores >= middle])
    backwards = model.extract(image, (1.0,), 5, rank=lambda f: -model.attention.scores(f))
    np.testing.assert_array_equal(backwards.scores, -all_of_them.scores[::-1][:5])
    none = model.extract(mt.tensor(image), (1.0,), least_score=1e9, reduce=lambda x: 1 / 0)
    assert none.descriptors.shape == (0, 6) and none.places.shape == (0, 2)
    equal = model.extract(image, (1.0,), 3, rank=lambda f: np.ones((1, 1, *f.shape[2:])))
    np.testing.assert_array_equal(equal.places, [(2, 2), (6, 2), (10, 2)])


def test_extract_tracks_no_gradient_and_keeps_the_mode():
    model = small_delf().train()
    model.extract(normal(1, 32, 32), (1.0,))
    assert model.training
    assert model(mt.tensor(normal(2, 1, 16, 16))).requires_grad


def test_extract_refuses_what_does_not_fit():
    model, image = small_delf(), normal(1, 32, 32)
    with pytest.raises(mt.ShapeError, match=r"needs one image \(C_in, H, W\), got \(32, 32\)"):
        model.extract(image[0])
    with pytest.raises(
        mt.ShapeError, match="at scale 0.01, where the image is 1 x 1: .* does not fit"
    ):
        model.extract(image, (1.0, 0.01))
    for scales in ((), (1.0, 0.0), (float("nan"),), (float("inf"),)):
        with pytest.raises(ValueError, match="scales must be positive, one at least"):
            model.extract(image, scales)
    with pytest.raises(ValueError, match="count must be an integer of at least 1, not 0"):
        model.extract(image, count=0)
    with pytest.raises(mt.ShapeError, match=r"rank must give scores \(1, 1, 7, 7\) .* \(1, 6, "):
        model.extract(image, (1.0,), rank=lambda f: f)
    with pytest.raises(ValueError, match="stages 1 and 2, not 3"):
        model.begin_stage(3)
    with pytest.raises(ValueError, match="num_classes must be an integer"):
        DELF(small_backbone(), 6, 0)


# -- pairs and maps -------------------------------------------------------------------------


def features(descriptors):
    descriptors = F.normalize(np.asarray(descriptors, dtype=float), dim=1).numpy()
    M = len(descriptors)
    return LocalFeatures(descriptors, np.zeros((M, 2)), np.ones(M), np.ones(M))


def test_matches_are_the_nearest_within_a_distance():
    scipy = pytest.importorskip("scipy.spatial")
    a, b = features(normal(40, 5)), features(normal(30, 5, seed=1))
    distances, nearest = scipy.cKDTree(b.descriptors).query(a.descriptors)
    for most in (0.4, 0.8, 2.0):
        wanted = [(i, nearest[i]) for i in range(40) if distances[i] <= most]
        np.testing.assert_array_equal(match_features(a, b, most), wanted)
    assert 0 < len(match_features(a, b, 0.8)) < 40


def test_matches_of_nothing_are_none_and_lengths_must_agree():
    none = features(np.zeros((0, 5)))
    some = features(normal(3, 5))
    for pairs in (match_features(none, some), match_features(some, none)):
        assert pairs.shape == (0, 2) and pairs.dtype.kind == "i"
    np.testing.assert_array_equal(match_features(some, some, 1e-6), [(0, 0), (1, 1), (2, 2)])
    with pytest.raises(mt.ShapeError, match="of 5 and of 4 numbers"):
        match_features(some, features(normal(3, 4)))


TRUE = np.array([[0.9, -0.3, 12.0], [0.25, 1.1, -7.0]])


def pairs_with_wrong_ones(right, wrong, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.uniform(0, 200, (right + wrong, 2))
    target = source @ TRUE[:, :2].T + TRUE[:, 2] + rng.uniform(-noise, noise, source.shape)
    target[right:] = rng.uniform(0, 200, (wrong, 2))
    return source, target


def test_the_map_is_found_among_as_many_wrong_pairs():
    source, target = pairs_with_wrong_ones(40, 40)
    fit = fit_affine(source, target, tolerance=3)
    assert fit.inliers[:40].all() and fit.inliers[40:].sum() <= 2
    np.testing.assert_allclose(fit.matrix[:, :2], TRUE[:, :2], atol=0.01)
    np.testing.assert_allclose(fit.matrix[:, 2], TRUE[:, 2], atol=1)
    again = fit_affine(source, target, tolerance=3)
    np.testing.assert_array_equal(again.matrix, fit.matrix)


def test_exact_pairs_give_the_map_by_least_squares():
    source, target = pairs_with_wrong_ones(5, 0, noise=0)
    fit = fit_affine(source.tolist(), target.tolist(), tolerance=1e-6)
    assert fit.inliers.all()
    np.testing.assert_allclose(fit.matrix, TRUE, atol=1e-8)


def test_the_map_is_the_least_squares_map_of_its_inliers():
    source, target = pairs_with_wrong_ones(40, 20, noise=2)
    fit = fit_affine(source, target, tolerance=3)
    with_ones = np.column_stack([source, np.ones(len(source))])[fit.inliers]
    least_squares = np.linalg.lstsq(with_ones, target[fit.inliers], rcond=None)[0].T
    np.testing.assert_allclose(fit.matrix, least_squares, atol=1e-8)


def test_the_tolerance_is_a_distance_in_pixels():
    """Moved by (3, 4), a pair is 5 pixels off: inlier to a tolerance of 5.1 and not of 4.9."""
    source, target = pairs_with_wrong_ones(30, 0, noise=0)
    target[0] += (3, 4)
    assert not fit_affine(source, target, tolerance=4.5).inliers[0]
    assert fit_affine(source, target, tolerance=5.5).inliers[0]


def test_a_map_that_squeezes_all_to_one_place_does_not_win():
    source, target = pairs_with_wrong_ones(15, 40)
    target[15:] = (77.0, 33.0) + np.random.default_rng(1).uniform(-1, 1, (40, 2))
    fit = fit_affine(source, target, tolerance=3, trials=3000)
    assert fit.inliers[:15].all() and fit.inliers.sum() < 20
    assert fit_affine(source, target, 3, 3000, stretch=1e3).inliers[15:].all()


def test_a_mirrored_view_is_no_view():
    source = np.random.default_rng(0).uniform(0, 100, (20, 2))
    assert fit_affine(source, source * (-1, 1)).matrix is None
    assert fit_affine(source, source * (-1, -1)).inliers.all()


def test_where_no_three_pairs_fix_a_map_there_is_none():
    line = np.stack([np.arange(6.0), 2 * np.arange(6.0)], axis=1)
    for places in (line[:0], line[:2], line):
        fit = fit_affine(places, places)
        assert fit.matrix is None
        np.testing.assert_array_equal(fit.inliers, np.zeros(len(places), dtype=bool))


def test_fit_affine_refuses_what_does_not_fit():
    places = normal(5, 2)
    for source, target in ((places, places[:4]), (places[:, :1], places[:, :1]), ([], [])):
        with pytest.raises(mt.ShapeError, match=r"fit_affine: needs places \(K, 2\)"):
            fit_affine(source, target)
    with pytest.raises(ValueError, match="nan or infinite"):
        fit_affine(places, places * np.nan)
    for settings in ({"tolerance": 0}, {"tolerance": float("nan")}, {"stretch": 0.5}):
        with pytest.raises(ValueError, match="tolerance must be positive and stretch at least 1"):
            fit_affine(places, places, **settings)
    with pytest.raises(ValueError, match="trials must be an integer of at least 1"):
        fit_affine(places, places, trials=0)


def test_a_missing_scikit_learn_is_named(monkeypatch):
    def without_it(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name="sklearn")

    monkeypatch.setattr(importlib, "import_module", without_it)
    with pytest.raises(ImportError, match="RANSAC.*'sklearn' is needed"):
        fit_affine(normal(5, 2), normal(5, 2))


def test_two_views_of_an_image_are_found_to_be_turned_and_moved():
    """The whole chain on a picture of blobs and its quarter turn, by features that turn along."""
    model = DELF(
        nn.Sequential(nn.AvgPool2d(5, 2), nn.Conv2d(1, 24, 1), nn.ReLU()).double(), 24, 2, hidden=4
    )
    assert model.field == ReceptiveField(5, 2, 2.0)
    image = F.avg_pool2d(normal(1, 1, 75, 75), 5, 1).numpy()[0]
    turned = np.rot90(image, axes=(1, 2)).copy()
    a, b = (model.extract(one, (1.0,), 400) for one in (image, turned))
    pairs = match_features(a, b, 0.01)
    fit = fit_affine(a.places[pairs[:, 0]], b.places[pairs[:, 1]], tolerance=2.5)
    assert fit.inliers.sum() > 50
    np.testing.assert_allclose(fit.matrix, [[0, 1, 0], [-1, 0, 70]], atol=0.3)
