import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.data.transforms import (
    Compose,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    apply,
    to_float,
)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((50, 3, 6, 5), dtype=np.float32)


@pytest.fixture
def double():
    mt.set_default_dtype("float64")
    yield
    mt.set_default_dtype("float32")


def draw(transform, images, seed=0):
    return apply(transform, images, np.random.default_rng(seed))


def test_bytes_become_numbers_between_0_and_1_and_floats_stay():
    pixels = np.array([0, 51, 255], np.uint8)
    assert to_float(pixels).dtype == np.float32
    assert to_float(pixels).tolist() == [0, np.float32(0.2), 1]
    assert to_float(np.array([0.5, 2.0])).tolist() == [0.5, 2.0]
    assert pixels.tolist() == [0, 51, 255]


def test_images_follow_the_default_dtype(double):
    assert to_float(np.array([51], np.uint8)).tolist() == [0.2]


def test_normalize_gives_each_channel_mean_0_and_deviation_1(images):
    axes = (0, 2, 3)
    out = draw(Normalize(images.mean(axes).tolist(), images.std(axes).tolist()), images)
    np.testing.assert_allclose(out.mean(axes), 0, atol=1e-6)
    np.testing.assert_allclose(out.std(axes), 1, atol=1e-5)
    assert out.dtype == np.float32 and out.shape == images.shape


def test_normalize_takes_one_number_for_all_channels(images):
    np.testing.assert_allclose(draw(Normalize(0.5, 2.0), images), (images - 0.5) / 2, rtol=1e-6)


def test_normalize_refuses_another_number_of_channels(images):
    with pytest.raises(mt.ShapeError, match="3 values for images of 1 channels"):
        draw(Normalize([0.1, 0.2, 0.3], 1), images[:, :1])
    with pytest.raises(mt.ShapeError, match="2 values"):
        draw(Normalize(0, [1, 1]), images)


def test_a_flip_mirrors_whole_images_left_to_right(images):
    out = draw(RandomHorizontalFlip(), images)
    mirrored = [np.array_equal(a, b[..., ::-1]) for a, b in zip(out, images)]
    same = [np.array_equal(a, b) for a, b in zip(out, images)]
    assert all(m != s for m, s in zip(mirrored, same))
    assert 10 < sum(mirrored) < 40
    assert draw(RandomHorizontalFlip(p=0), images).tolist() == images.tolist()
    assert draw(RandomHorizontalFlip(p=1), images).tolist() == images[..., ::-1].tolist()


def test_a_crop_is_a_window_of_the_padded_image_at_a_place_of_its_own(images):
    out = draw(RandomCrop((4, 5), padding=1), images)
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    assert out.shape == (50, 3, 4, 5) and out.dtype == np.float32
    places = set()
    for window, image in zip(out, padded):
        fits = [
            (i, j)
            for i in range(5)
            for j in range(3)
            if np.array_equal(image[:, i : i + 4, j : j + 5], window)
        ]
        assert len(fits) == 1
        places.update(fits)
    assert {i for i, _ in places} == set(range(5)) and {j for _, j in places} == set(range(3))


def test_a_crop_of_the_whole_image_changes_nothing(images):
    assert draw(RandomCrop((6, 5)), images).tolist() == images.tolist()


def test_a_crop_larger_than_the_image_is_refused_with_both_sizes(images):
    with pytest.raises(mt.ShapeError, match="9x9 does not fit into images of 8x7"):
        draw(RandomCrop(9, padding=1), images)


def test_compose_applies_in_order_with_one_generator(images):
    both = Compose([RandomCrop(5, padding=2), lambda x: 10 * x, RandomHorizontalFlip()])
    generator = np.random.default_rng(3)
    expected = RandomCrop(5, padding=2)(images, generator) * 10
    expected = RandomHorizontalFlip()(expected, generator)
    assert draw(both, images, seed=3).tolist() == expected.tolist()


@pytest.mark.parametrize("transform", [RandomCrop(6, padding=2), RandomHorizontalFlip()])
def test_the_generator_decides_random_transforms(images, transform):
    assert draw(transform, images, 1).tolist() == draw(transform, images, 1).tolist()
    assert draw(transform, images, 1).tolist() != draw(transform, images, 2).tolist()


def test_a_transform_shows_its_settings():
    assert repr(RandomCrop(32, padding=4)) == "RandomCrop(size=32, padding=4)"
