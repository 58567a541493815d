"""Captioned pictures: the caption is true, and what is asked in a test was never said before."""

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.data import CaptionDataset, DataLoader, Vocabulary, captioned_digits, digits

pytest.importorskip("sklearn")


@pytest.mark.parametrize("train", [True, False])
def test_a_caption_says_what_is_to_be_seen_and_where(train):
    pictures = captioned_digits(200, train, generator=0)
    written = digits(train)
    known = {
        np.round(255 * image).astype(np.uint8).tobytes(): label
        for image, label in zip(written.images[:, 0], written.labels)
    }
    for image, caption, labels, boxes in zip(
        pictures.images[:, 0], pictures.captions, pictures.labels, pictures.boxes
    ):
        seen, inside = [], 0
        for top, left, height, width in boxes:
            piece = image[top : top + height, left : left + width]
            assert piece.shape == (8, 8)
            seen.append(known[piece.tobytes()])
            inside += int(piece.sum())
        assert inside == image.sum(dtype=int)
        assert seen == labels.tolist()
        (down, right), (a, b) = boxes[1, :2] - boxes[0, :2], seen
        assert (right >= 8 and abs(down) <= 2) or (down >= 8 and abs(right) <= 2)
        assert caption == f"a {a} {'left of' if right >= 8 else 'above'} a {b}"


def test_what_is_asked_in_a_test_was_never_said_in_training():
    train, test = (
        set(captioned_digits(4000, part, generator=0).captions) for part in (True, False)
    )
    assert len(train) == 160 and len(test) == 40
    assert not train & test


def test_every_digit_is_named_in_both_places_and_both_relations():
    for part in True, False:
        words = [caption.split() for caption in captioned_digits(4000, part, generator=1).captions]
        said = {(w[2], place, w[where]) for w in words for place, where in (("1", 1), ("2", -1))}
        assert len(said) == 2 * 2 * 10


def test_the_relations_are_about_as_frequent_and_places_are_anywhere():
    pictures = captioned_digits(1000, size=20, generator=0)
    assert 420 < sum("above" in caption for caption in pictures.captions) < 580
    corners = pictures.boxes[:, :, :2].reshape(-1, 2)
    assert corners.min(axis=0).tolist() == [0, 0] and corners.max(axis=0).tolist() == [12, 12]


def test_the_smallest_picture_has_room_for_two():
    assert captioned_digits(20, size=16, generator=0).images.shape == (20, 1, 16, 16)


def test_a_batch_is_pictures_and_framed_tokens():
    pictures = captioned_digits(30, generator=0)
    images, tokens = next(iter(DataLoader(pictures, batch_size=8)))
    assert images.shape == (8, 1, 24, 24) and images.dtype == mt.get_default_dtype()
    assert 0 <= images.data.min() and images.data.max() <= 1
    assert pictures.vocabulary.decode(tokens.data) == pictures.captions[:8]
    assert (tokens.data[:, 0] == 1).all() and ((tokens.data == 2).sum(axis=1) == 1).all()
    image, caption = pictures[3]
    np.testing.assert_array_equal(image, images.data[3])
    assert caption == pictures.captions[3]


def test_the_words_are_fourteen():
    vocabulary = captioned_digits(1, generator=0).vocabulary
    assert len(vocabulary) == 17 and vocabulary.separator == " "


def test_a_seed_repeats_the_pictures():
    one, two, other = (captioned_digits(9, generator=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.images, two.images)
    assert one.captions == two.captions and one.captions != other.captions
    assert len(captioned_digits(0)) == 0


@pytest.mark.parametrize(
    ("settings", "words"), [({"count": -1}, "count"), ({"count": 2, "size": 15}, "size .* 16")]
)
def test_what_cannot_be_drawn_is_refused(settings, words):
    with pytest.raises(ValueError, match="captioned_digits: " + words):
        captioned_digits(**settings)


def test_pictures_without_captions_are_refused():
    pictures = captioned_digits(3, generator=0)
    with pytest.raises(mt.ShapeError, match="3 images, 2 captions, 3 labels and 3 boxes"):
        CaptionDataset(
            pictures.images,
            pictures.captions[:2],
            Vocabulary("ab"),
            pictures.labels,
            pictures.boxes,
        )
