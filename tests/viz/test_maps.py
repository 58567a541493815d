import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.viz import (
    show_attention,
    show_channel_weights,
    show_feature_maps,
    show_images,
)

pytest.importorskip("matplotlib")
RNG = np.random.default_rng(0)


def shown(ax):
    """The arrays of an axes' images, the lowest first."""
    return [np.asarray(image.get_array()) for image in ax.images]


@pytest.mark.parametrize("shape", [(3, 8, 6), (3, 1, 8, 6)])
def test_grey_images_are_drawn_as_they_are(shape):
    images = RNG.random(shape)
    figure = show_images(images)
    scaled = (images - images.min()) / (images.max() - images.min())
    for ax, image in zip(figure.axes, scaled):
        np.testing.assert_allclose(shown(ax)[0], image.reshape(8, 6))
        assert ax.images[0].get_cmap().name == "gray"
        assert ax.images[0].get_clim() == (0, 1)


def test_colour_images_have_their_channels_last_and_a_range_for_all():
    images = RNG.random((2, 3, 4, 5))
    figure = show_images(images, value_range=(0, 2))
    np.testing.assert_allclose(shown(figure.axes[1])[0], images[1].transpose(1, 2, 0) / 2)


def test_tensors_and_lists_of_tensors_are_taken():
    image = mt.tensor(RNG.random((8, 8)))
    assert len(show_images([image, image]).axes) == 2


def test_mistakes_are_marked_by_more_than_colour():
    figure = show_images(RNG.random((2, 8, 8)), ["3", "8 as 3"], wrong=[False, True])
    assert [ax.get_title() for ax in figure.axes] == ["3", "8 as 3 ✗"]
    assert [ax.spines["top"].get_visible() for ax in figure.axes] == [False, True]


def test_unused_places_of_the_grid_stay_empty():
    figure = show_images(RNG.random((5, 8, 8)), columns=3)
    assert [len(ax.images) for ax in figure.axes] == [1, 1, 1, 1, 1, 0]
    assert not figure.axes[5].axison


@pytest.mark.parametrize("shape", [(8, 8), (2, 4, 8, 8)])
def test_a_shape_that_is_no_list_of_images_is_refused(shape):
    with pytest.raises(ValueError, match=r"needs \(N, H, W\)"):
        show_images(np.zeros(shape))


def test_titles_must_be_as_many_as_images():
    with pytest.raises(ValueError, match="1 titles for 2 images"):
        show_images(np.zeros((2, 8, 8)), ["only one"])


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        show_images(np.zeros((0, 8, 8)))


def test_feature_maps_share_one_scale():
    maps = RNG.random((4, 6, 6))
    maps[2] *= 10
    *axes, bar = show_feature_maps(maps).axes
    assert {ax.images[0].get_clim() for ax in axes} == {(maps.min(), maps.max())}
    np.testing.assert_array_equal(shown(axes[2])[0], maps[2])
    assert bar.get_ylim() == (maps.min(), maps.max())


def test_signed_feature_maps_have_zero_in_the_middle():
    maps = RNG.standard_normal((1, 3, 6, 6)) + 1
    *axes, _ = show_feature_maps(maps).axes
    limit = np.abs(maps).max()
    assert {ax.images[0].get_clim() for ax in axes} == {(-limit, limit)}


def test_attention_is_drawn_over_the_whole_image():
    image, attention = RNG.random((3, 32, 48)), RNG.random((4, 6))
    plain, overlaid, _ = show_attention(image, attention).axes
    assert shown(plain)[0].shape == (32, 48, 3)
    grey, over = overlaid.images
    assert grey.get_array().shape == (32, 48)
    np.testing.assert_array_equal(over.get_array(), attention)
    assert list(over.get_extent()) == list(grey.get_extent())
    assert 0 < over.get_alpha() < 1


def test_attention_maps_of_several_heads_share_one_scale_from_zero():
    attention = RNG.random((3, 4, 4)) + 0.5
    _, *axes, _ = show_attention(RNG.random((8, 8)), attention, ["a", "b", "c"]).axes
    assert [ax.get_title() for ax in axes] == ["a", "b", "c"]
    assert {ax.images[1].get_clim() for ax in axes} == {(0, attention.max())}


def test_channel_weights_are_the_heights_of_bars():
    weights = RNG.random(16)
    (ax,) = show_channel_weights(weights, value_range=(0, 1)).axes
    np.testing.assert_array_equal([bar.get_height() for bar in ax.patches], weights)
    assert ax.get_ylim() == (0, 1)


def test_channel_weights_of_classes_are_rows_of_a_heat_map():
    weights = RNG.random((3, 16))
    ax, bar = show_channel_weights(weights, ["cat", "dog", "fox"], label="gate").axes
    np.testing.assert_array_equal(shown(ax)[0], weights)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog", "fox"]
    assert bar.get_ylabel() == "gate"


@pytest.mark.parametrize("draw", [show_feature_maps, show_channel_weights])
def test_a_shape_that_cannot_be_drawn_is_named(draw):
    with pytest.raises(ValueError, match=r"\(2, 2, 2, 2\)"):
        draw(np.zeros((2, 2, 2, 2)))
