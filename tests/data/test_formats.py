import gzip
import io
import tarfile

import numpy as np
import pytest

from minitorch_attn.data.formats import read_cifar10, read_idx


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def cifar_archive(labels, images, leave_out=None):
    """An archive in the layout of CIFAR-10's, with 2 images in each of the six files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in (3, 0, 5, 2, 1, 4):  # in no order, as in the published archive
            name = "test_batch.bin" if number == 5 else f"data_batch_{number + 1}.bin"
            two = slice(2 * number, 2 * number + 2)
            records = np.column_stack([labels[two], images[two].reshape(2, -1)])
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = records.nbytes
            if name != leave_out:
                archive.addfile(member, io.BytesIO(records.tobytes()))
    return buffer.getvalue()


@pytest.fixture
def photographs():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 12, dtype=np.uint8)
    return labels, rng.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 28, 28)])
def test_an_idx_file_gives_back_the_array(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    read = read_idx(idx(array))
    assert read.shape == shape and np.array_equal(read, array)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0", gzip.compress(idx(np.zeros(3, np.uint8)), mtime=0)],
    ids=["nothing", "zeros", "still zipped"],
)
def test_what_is_not_an_idx_file_is_refused(data):
    with pytest.raises(ValueError, match="not an IDX file"):
        read_idx(data)


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"0", lambda d: d[:6]])
def test_an_idx_file_of_another_length_is_refused(change):
    with pytest.raises(ValueError, match="should have"):
        read_idx(change(idx(np.zeros((2, 3), np.uint8))))


def test_cifar10_images_are_planes_of_red_green_and_blue_in_the_order_of_the_files(photographs):
    labels, images = photographs
    archive = cifar_archive(labels, images)
    read, classes = read_cifar10(archive, train=True)
    assert np.array_equal(read, images[:10]) and np.array_equal(classes, labels[:10])
    read, classes = read_cifar10(archive, train=False)
    assert np.array_equal(read, images[10:]) and np.array_equal(classes, labels[10:])


def test_an_archive_without_one_of_the_files_is_refused(photographs):
    labels, images = photographs
    with pytest.raises(ValueError, match=r"data_batch_4\.bin is missing"):
        read_cifar10(cifar_archive(labels, images, leave_out="data_batch_4.bin"), train=True)


def test_a_file_that_does_not_hold_whole_images_is_refused(photographs):
    labels, images = photographs
    with pytest.raises(ValueError, match=r"test_batch\.bin .* does not hold whole images"):
        read_cifar10(cifar_archive(labels, images[..., 1:]), train=False)
