"""The data sets of the course.

Hashes of the published archives are their SHA-256. Of what Fashion-MNIST's unzip to, which is
asked only of files put there by hand, an MD5 is what is known.
"""

from __future__ import annotations

import os

import numpy as np

from ..engine.optional import require
from .download import RemoteFile, Source
from .formats import read_cifar10, read_idx
from .images import ImageDataset
from .transforms import Transform

DIGITS = tuple("0123456789")
GARMENTS = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
OBJECTS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
PHOTOGRAPHS = ("china", "flower")
BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue (ITU-R BT.601)

MNIST = Source(
    title="MNIST",
    folder="mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://yann.lecun.com/exdb/mnist/",
    ),
    files=(
        RemoteFile(
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        RemoteFile(
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
)

FASHION_MNIST = Source(
    title="Fashion-MNIST",
    folder="fashion_mnist",
    mirrors=(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    files=(
        RemoteFile(
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "md5:f4a8712d7a061bf5bd6d2ca38dc4d50a",
        ),
        RemoteFile(
            "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "md5:9018921c3c673c538a1fc5bad174d6f9",
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "md5:8181f5470baa50b63fa0f6fddb340f0a",
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            "md5:15d484375f8d13e6eb1aabb0c3f46965",
        ),
    ),
)

CIFAR10 = Source(
    title="CIFAR-10",
    folder="cifar10",
    mirrors=(
        "https://www.cs.toronto.edu/~kriz/",
        "https://cave.cs.toronto.edu/kriz/",
        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
    ),
    files=(
        RemoteFile(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
)


def digits(train: bool = True, *, transform: Transform | None = None) -> ImageDataset:
    """Handwritten digits, 8x8 grey: 1,442 training and 355 test images that need no network.

    They come with scikit-learn. The authors give no split; here every fifth image of each class,
    in the order of the file, is a test image, so that both parts have the classes in the same
    proportion and the split never changes.

    Parameters
    ----------
    train : bool
        Whether to give the training or the test images.
    transform : callable, optional
        As for `ImageDataset`.

    Returns
    -------
    ImageDataset
        Images (N, 1, 8, 8) float32 in [0, 1], multiples of 1/16; labels (N,) int64, the digits.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.

    References
    ----------
    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998 (its test set).
    """
    sklearn = require("sklearn.datasets", extra="course", purpose="load the digits")
    pixels, labels = sklearn.load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    for_testing = _every_fifth(labels)
    chosen = ~for_testing if train else for_testing
    return ImageDataset(images[chosen], labels[chosen], DIGITS, transform)


def photograph(name: str = "china", *, grey: bool = False) -> np.ndarray:
    """A colour photograph that needs no network, 427 x 640; it comes with scikit-learn.

    Parameters
    ----------
    name : str
        "china", a temple, or "flower", a dahlia.
    grey : bool
        Whether to give its brightness alone, 0.299 red + 0.587 green + 0.114 blue.

    Returns
    -------
    ndarray
        (3, H, W), or (H, W) in grey; float32 in [0, 1].

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If there is no photograph of that name.
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"photograph: there are {' and '.join(PHOTOGRAPHS)}, not {name!r}")
    sklearn = require("sklearn.datasets", extra="course", purpose="load a photograph")
    pixels = (sklearn.load_sample_image(f"{name}.jpg") / 255).astype(np.float32)
    return pixels @ BRIGHTNESS if grey else pixels.transpose(2, 0, 1)


def mnist(
    train: bool = True,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    transform: Transform | None = None,
) -> ImageDataset:
    """MNIST: handwritten digits, 28x28 grey, 60,000 training and 10,000 test images.

    Parameters
    ----------
    train : bool
        Whether to give the training or the test images.
    root : path, optional
        The folder that holds the four IDX files, zipped or not, or their folder `mnist`; left
        out, the folder in the environment variable MINITORCH_ATTN_DATA, or the user's cache.
    download : bool
        Whether missing files may be downloaded (11.6 MB in all), into `root/mnist`.
    transform : callable, optional
        As for `ImageDataset`.

    Returns
    -------
    ImageDataset
        Images (N, 1, 28, 28) uint8, handed out as floats in [0, 1]; labels (N,) int64.

    Raises
    ------
    FileNotFoundError
        If a file is neither on disk nor to be downloaded; says how to put it there by hand.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE 86(11), 1998.
    """
    return _idx_dataset(MNIST, DIGITS, train, root, download, transform)


def fashion_mnist(
    train: bool = True,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    transform: Transform | None = None,
) -> ImageDataset:
    """Fashion-MNIST: garments, 28x28 grey, 60,000 training and 10,000 test images.

    Parameters
    ----------
    train, download, transform
        As for `mnist`; 30.9 MB are downloaded in all.
    root : path, optional
        As for `mnist`; the folder of its files is `fashion_mnist`.

    Returns
    -------
    ImageDataset
        Images (N, 1, 28, 28) uint8, handed out as floats in [0, 1]; labels (N,) int64.

    Raises
    ------
    FileNotFoundError
        If a file is neither on disk nor to be downloaded; says how to put it there by hand.

    References
    ----------
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
    learning algorithms", arXiv:1708.07747, 2017.
    """
    return _idx_dataset(FASHION_MNIST, GARMENTS, train, root, download, transform)


def cifar10(
    train: bool = True,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    transform: Transform | None = None,
) -> ImageDataset:
    """CIFAR-10: photographs of ten kinds of things, 32x32 RGB, 50,000 training and 10,000 test.

    Parameters
    ----------
    train, transform
        As for `mnist`.
    root : path, optional
        The folder that holds `cifar-10-binary.tar.gz`, or its folder `cifar10`; otherwise as for
        `mnist`.
    download : bool
        Whether the archive may be downloaded (170 MB), into `root/cifar10`.

    Returns
    -------
    ImageDataset
        Images (N, 3, 32, 32) uint8, handed out as floats in [0, 1]; labels (N,) int64.

    Raises
    ------
    FileNotFoundError
        If the archive is neither on disk nor to be downloaded; says how to put it there by hand.

    References
    ----------
    A. Krizhevsky, "Learning multiple layers of features from tiny images", technical report,
    University of Toronto, 2009.
    """
    archive = CIFAR10.read(CIFAR10.files[0].name, root, download)
    images, labels = read_cifar10(archive, train)
    return ImageDataset(images, labels, OBJECTS, transform)


def _idx_dataset(
    source: Source,
    classes: tuple[str, ...],
    train: bool,
    root: str | os.PathLike[str] | None,
    download: bool,
    transform: Transform | None,
) -> ImageDataset:
    part = "train" if train else "t10k"
    images = read_idx(source.read(f"{part}-images-idx3-ubyte.gz", root, download))
    labels = read_idx(source.read(f"{part}-labels-idx1-ubyte.gz", root, download))
    return ImageDataset(images[:, np.newaxis], labels, classes, transform)


def _every_fifth(labels: np.ndarray) -> np.ndarray:
    """Whether an item is the 5th, 10th, 15th, ... of its label. (N,) -> (N,) bool."""
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rank[labels == label] = np.arange(np.count_nonzero(labels == label))
    return rank % 5 == 4
