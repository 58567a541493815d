import tarfile
from pathlib import Path

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.data import ImageDataset, image_folder

CIFAR_JPEG = Path(__file__).parents[3] / "shared" / "data" / "cifar10" / "cifar10_24k_jpeg.tar.gz"


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 3, 4, 5), dtype=np.uint8)


def save(path, size=(5, 4), colour=(255, 0, 0)):
    Image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_bytes_are_kept_and_floats_handed_out(images):
    data = ImageDataset(images, np.arange(6))
    assert data.images.dtype == np.uint8
    image, label = data[2]
    assert image.shape == (3, 4, 5) and image.dtype == np.float32 and label == 2
    np.testing.assert_allclose(image, images[2] / 255, rtol=1e-6)
    assert data[-1][1] == 5
    with pytest.raises(IndexError):
        data[6]


def test_slices_and_lists_of_numbers_give_batches(images):
    data = ImageDataset(images, np.arange(6))
    assert data[:][0].shape == (6, 3, 4, 5)
    assert data[[4, 1]][1].tolist() == [4, 1]


def test_the_transform_sees_float_batches_and_never_the_stored_images():
    def blacken(batch):
        assert batch.ndim == 4 and batch.dtype == np.float32
        batch[:] = 0
        return batch

    images = np.ones((3, 1, 2, 2), np.float32)
    data = ImageDataset(images, np.zeros(3), transform=blacken)
    assert data[0][0].tolist() == [[[0, 0], [0, 0]]]
    assert data[:][0].sum() == 0
    assert images.min() == 1


def test_labels_are_int64_whatever_they_were(images):
    assert ImageDataset(images, np.zeros(6, np.uint8)).labels.dtype == np.int64


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((4, 8, 8)), np.zeros(4)),
        (np.zeros((4, 1, 8, 8)), np.zeros((4, 1))),
        (np.zeros((4, 1, 8, 8)), np.zeros(5)),
    ],
)
def test_shapes_that_are_not_labelled_images_are_refused(images, labels):
    with pytest.raises(mt.ShapeError, match="got shapes"):
        ImageDataset(images, labels)


def test_it_says_what_it_holds(images):
    data = ImageDataset(images, np.arange(6), ("cat", "dog"))
    assert repr(data) == "ImageDataset(6 images of 3x4x5, 2 classes)"


def test_a_folder_per_class_becomes_labels_in_the_order_of_names(tmp_path):
    save(tmp_path / "dog" / "b.png", colour=(0, 0, 255))
    save(tmp_path / "cat" / "a.PNG", colour=(255, 0, 0))
    save(tmp_path / "dog" / "a.bmp", colour=(0, 255, 0))
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    save(tmp_path / ".cache" / "hidden.png")
    data = image_folder(tmp_path)
    assert data.classes == ("cat", "dog") and data.labels.tolist() == [0, 1, 1]
    assert data.images.dtype == np.uint8 and data.images.shape == (3, 3, 4, 5)
    assert data.images[:, :, 0, 0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_rows_and_columns_of_an_image_file_stay_what_they_are(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 7, 3), dtype=np.uint8)
    (tmp_path / "noise").mkdir()
    Image.fromarray(pixels).save(tmp_path / "noise" / "a.png")
    assert np.array_equal(image_folder(tmp_path).images[0], pixels.transpose(2, 0, 1))


def test_a_folder_can_be_read_in_grey_and_at_one_size(tmp_path):
    save(tmp_path / "a" / "1.png", size=(8, 6))
    save(tmp_path / "a" / "2.png", size=(3, 9))
    assert image_folder(tmp_path, size=(4, 5), mode="L").images.shape == (2, 1, 4, 5)
    assert image_folder(tmp_path, size=4).images.shape == (2, 3, 4, 4)


def test_images_of_several_sizes_are_refused_with_their_names(tmp_path):
    save(tmp_path / "a" / "1.png", size=(8, 6))
    save(tmp_path / "a" / "2.png", size=(3, 9))
    with pytest.raises(mt.ShapeError, match=r"2\.png has .*\(3, 9, 3\).*1\.png.*pass size="):
        image_folder(tmp_path)


def test_a_folder_without_images_says_what_it_should_look_like(tmp_path):
    with pytest.raises(FileNotFoundError, match="one folder per class"):
        image_folder(tmp_path)


@pytest.mark.skipif(not CIFAR_JPEG.exists(), reason="the JPEG part of CIFAR-10 is not here")
def test_real_photographs_are_read(tmp_path):
    with tarfile.open(CIFAR_JPEG) as archive:
        for member in archive:
            if member.isfile() and member.name.startswith("test/"):
                archive.extract(member, tmp_path, filter="data")
    data = image_folder(tmp_path / "test")
    assert data.images.shape == (4000, 3, 32, 32)
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(data.labels).tolist() == [400] * 10
    red, _, blue = data.images.mean(axis=(0, 2, 3))
    assert 115 < blue < red < 135  # known of CIFAR-10: mean red 125, blue 114
