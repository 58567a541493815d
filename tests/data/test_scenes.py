"""Scenes of digits: what is in them, where it is, and that training and test never meet."""

import numpy as np
import pytest

from minitorch_attn.data import cluttered_digits, digits

pytest.importorskip("sklearn")


def test_scenes_have_the_shapes_that_are_asked_for():
    scenes = cluttered_digits(5, size=40, digit=24, generator=0)
    assert scenes.images.shape == (5, 1, 40, 40) and scenes.images.dtype == np.uint8
    assert scenes.labels.shape == scenes.samples.shape == (5,)
    assert scenes.boxes.shape == (5, 4)
    image, label = scenes[0]
    assert image.shape == (1, 40, 40) and image.max() <= 1 and label == scenes.labels[0]


@pytest.mark.parametrize("train", [True, False])
def test_without_clutter_a_scene_shows_its_sample_in_its_box_and_nothing_else(train):
    scenes = cluttered_digits(20, train=train, digit=8, clutter=0, generator=0)
    written = digits(train)
    for image, label, box, sample in zip(
        scenes.images[:, 0], scenes.labels, scenes.boxes, scenes.samples
    ):
        top, left, height, width = box
        inside = image[top : top + height, left : left + width]
        np.testing.assert_array_equal(inside, np.round(255 * written.images[sample, 0]))
        assert image.sum() == inside.sum()
        assert written.labels[sample] == label


def test_clutter_adds_pieces_and_hides_nothing():
    bare = cluttered_digits(50, clutter=0, generator=3)
    full = cluttered_digits(50, clutter=6, generator=3)
    np.testing.assert_array_equal(bare.labels, full.labels)
    assert (full.images >= bare.images).all()
    added = (full.images > bare.images).sum(axis=(1, 2, 3))
    assert (added > 0).all() and added.max() <= 6 * 6 * 6


def test_only_the_chosen_classes_appear_each_about_as_often():
    scenes = cluttered_digits(600, classes=[7, 9], generator=0)
    values, counts = np.unique(scenes.labels, return_counts=True)
    assert values.tolist() == [7, 9]
    assert counts.min() > 250


def test_a_seed_gives_the_same_scenes_again():
    one, two = cluttered_digits(9, generator=1), cluttered_digits(9, generator=1)
    other = cluttered_digits(9, generator=2)
    np.testing.assert_array_equal(one.images, two.images)
    assert (one.images != other.images).any()


def test_no_scenes_are_none():
    assert cluttered_digits(0, generator=0).images.shape == (0, 1, 32, 32)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": -1}, "count"),
        ({"count": 2, "classes": []}, "one at least"),
        ({"count": 2, "classes": [10]}, "0 to 9"),
        ({"count": 2, "size": 12}, "size"),
        ({"count": 2, "digit": 4}, "digit"),
        ({"count": 2, "clutter": -1}, "clutter"),
    ],
)
def test_what_cannot_be_drawn_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        cluttered_digits(generator=0, **settings)
