import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.data import catalogue, cifar10, digits, fashion_mnist, mnist, photograph
from minitorch_attn.data.catalogue import CIFAR10, FASHION_MNIST, MNIST
from minitorch_attn.engine.optional import require

from .test_formats import cifar_archive, idx

REAL = Path(__file__).parents[3] / "shared" / "data"
needs_real_mnist = pytest.mark.skipif(
    not (REAL / "mnist").exists(), reason="the files of MNIST are not here"
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here may reach a mirror."""
    for name in ("MNIST", "FASHION_MNIST", "CIFAR10"):
        monkeypatch.setattr(
            catalogue, name, dataclasses.replace(getattr(catalogue, name), mirrors=())
        )


def test_digits_are_1797_images_of_which_a_fifth_of_each_class_is_for_testing():
    pytest.importorskip("sklearn")
    train, test = digits(), digits(train=False)
    assert train.images.shape == (1442, 1, 8, 8) and test.images.shape == (355, 1, 8, 8)
    assert np.bincount(train.labels).tolist() == [143, 146, 142, 147, 145, 146, 145, 144, 140, 144]
    assert np.bincount(test.labels).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    assert train.classes == tuple("0123456789")


def test_digits_are_floats_between_0_and_1_in_the_default_dtype():
    pytest.importorskip("sklearn")
    data = digits()
    assert data.images.dtype == np.float32
    assert data.images.min() == 0 and data.images.max() == 1
    assert np.array_equal(data.images * 16, np.round(data.images * 16))
    mt.set_default_dtype("float64")
    try:
        assert data[0][0].dtype == np.float64
    finally:
        mt.set_default_dtype("float32")


def test_digits_are_never_in_both_parts_and_are_all_there():
    sklearn = pytest.importorskip("sklearn.datasets")
    pixels = sklearn.load_digits().data / 16
    parts = np.concatenate([digits().images, digits(train=False).images]).reshape(-1, 64)
    assert sorted(map(tuple, parts.tolist())) == sorted(map(tuple, pixels.tolist()))


def test_without_scikit_learn_digits_say_what_to_install(monkeypatch):
    monkeypatch.setattr(catalogue, "require", lambda name, **why: require(f"no_{name}", **why))
    with pytest.raises(ImportError, match=r"load the digits.*minitorch-attn\[course\]"):
        digits()


@pytest.mark.parametrize("name", ["china", "flower"])
def test_photographs_are_floats_between_0_and_1_in_colour_or_grey(name):
    datasets = pytest.importorskip("sklearn.datasets")
    colour, grey = photograph(name), photograph(name, grey=True)
    assert colour.shape == (3, 427, 640) and grey.shape == (427, 640)
    assert colour.dtype == grey.dtype == np.float32
    assert 0 <= colour.min() and 0.9 < colour.max() <= 1
    red, green, blue = datasets.load_sample_image(f"{name}.jpg")[100, 200] / 255
    np.testing.assert_allclose(colour[:, 100, 200], [red, green, blue], atol=1e-6)
    assert grey[100, 200] == pytest.approx(0.299 * red + 0.587 * green + 0.114 * blue, abs=1e-6)


def test_a_photograph_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match="there are china and flower, not 'boat'"):
        photograph("boat")


@needs_real_mnist
@pytest.mark.parametrize("root", [REAL, REAL / "mnist"])
def test_the_real_mnist_is_read(root):
    train = mnist(root=root, download=False)
    assert train.images.shape == (60_000, 1, 28, 28) and train.images.dtype == np.uint8
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(train.labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert round(train.images.mean() / 255, 4) == 0.1307
    assert round(train.images.std() / 255, 4) == 0.3081


@needs_real_mnist
def test_the_real_test_images_of_mnist_are_read():
    test = mnist(train=False, root=REAL, download=False)
    assert test.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    image, label = test[0]
    assert label == 7 and image.dtype == np.float32 and image.max() == 1
    assert (test.images[0, 0] > 127).sum(axis=1).argmax() == 8  # the bar of the seven


@needs_real_mnist
def test_mnist_is_not_taken_for_fashion_mnist():
    with pytest.raises(FileNotFoundError, match=r"Fashion-MNIST(.|\n)*damaged, or another file"):
        fashion_mnist(root=REAL / "mnist", download=False)


def test_the_idx_files_of_a_part_are_its_images_and_labels(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    labels = np.array([9, 0, 3, 3, 1, 2], np.uint8)
    arrays = {
        "train-images-idx3-ubyte": images[:4],
        "train-labels-idx1-ubyte": labels[:4],
        "t10k-images-idx3-ubyte": images[4:],
        "t10k-labels-idx1-ubyte": labels[4:],
    }
    files = []
    for file in FASHION_MNIST.files:
        name = file.name.removesuffix(".gz")
        content = idx(arrays[name])
        (tmp_path / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.append(dataclasses.replace(file, content=f"sha256:{digest}"))
    monkeypatch.setattr(
        catalogue, "FASHION_MNIST", dataclasses.replace(FASHION_MNIST, files=tuple(files))
    )
    train = fashion_mnist(root=tmp_path, download=False)
    test = fashion_mnist(train=False, root=tmp_path, download=False)
    assert np.array_equal(train.images[:, 0], images[:4]) and train.labels.tolist() == [9, 0, 3, 3]
    assert np.array_equal(test.images[:, 0], images[4:]) and test.labels.tolist() == [1, 2]
    assert train.classes[train.labels[0]] == "ankle boot"


def test_cifar10_is_read_from_the_archive_that_holds_no_pickle(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    archive = cifar_archive(np.arange(12, dtype=np.uint8) % 10, images)
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(archive)
    file = dataclasses.replace(CIFAR10.files[0], sha256=hashlib.sha256(archive).hexdigest())
    monkeypatch.setattr(catalogue, "CIFAR10", dataclasses.replace(CIFAR10, files=(file,)))
    train, test = cifar10(root=tmp_path), cifar10(False, root=tmp_path)
    assert len(train) == 10 and len(test) == 2 and train.classes[9] == "truck"
    np.testing.assert_allclose(test[1][0], images[11] / 255, rtol=1e-6)


@pytest.mark.parametrize("source", [MNIST, FASHION_MNIST, CIFAR10], ids=lambda s: s.title)
def test_every_published_file_has_mirrors_and_hashes(source):
    assert len(source.mirrors) >= 2 and all(m.endswith("/") for m in source.mirrors)
    digits = {"sha256": 64, "md5": 32}
    for file in source.files:
        assert len(bytes.fromhex(file.sha256)) == 32 and file.size > 0
        if file.content:
            algorithm, _, digest = file.content.partition(":")
            assert len(digest) == digits[algorithm] and bytes.fromhex(digest)


def test_importing_the_data_module_imports_no_optional_package():
    code = (
        "import sys, minitorch_attn.data\n"
        "wanted = {'sklearn', 'pooch', 'requests', 'tqdm', 'PIL', 'matplotlib', 'scipy'}\n"
        "print(sorted(wanted & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
