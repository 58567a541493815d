"""Global descriptors side by side: images of a class are searched for, also of classes not seen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, engine, nn, optim
from ..attention import CroW, RegionalAttention
from ..command_line import count, rate
from ..data import DataLoader, ImageDataset, TensorDataset
from ..retrieval import (
    Index,
    PCAWhitening,
    RegionalMAC,
    average_precision,
    expand_queries,
    gem,
    l2_normalized,
    mac,
    precision_at_k,
    region_vectors,
    rerank,
    rmac,
    spoc,
)
from ..training import DivergedError, fit

SEEN = 0.7  # the share of classes that the network is trained on
APART = 10  # of the training images every tenth is kept apart, and whitening learned on these
LOOKED_AT = 10  # the answers of P@k, and those a query is expanded by
NEIGHBOURS = 20, 6  # k1 and k2 of re-ranking, as in the paper
ATTENDED = 10_000  # training images, at most, that attention is trained on
SCENES = {"train": 4000, "test": 2000}  # of cluttered digits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``python -m minitorch_attn reproduce retrieval``."""
    parser.description = (
        "Train a small network to tell the first 70 %% of the classes apart, turn its last feature "
        "map into one vector an image in six ways, and search for images of the same class. One "
        "gallery holds test images of all classes; queries of classes that were trained on and of "
        "those that were not are told apart. The papers search for buildings, with large networks: "
        "compare the order of the descriptors, not the numbers."
    )
    parser.add_argument(
        "--data",
        choices=("cifar10", "mnist", "fashion_mnist", "digits", "folder"),
        default="cifar10",
        help="digits are handwritten digits in clutter, which need no download; a folder holds "
        "train/CLASS and test/CLASS, with images of one size; the others are downloaded once "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--data-folder", type=Path, metavar="FOLDER", help="where the files are, or go"
    )
    parser.add_argument("--no-download", action="store_true", help="use only files that are there")
    parser.add_argument(
        "--limit", type=count, metavar="N", help="first N training images of a class (default: all)"
    )
    parser.add_argument(
        "--queries",
        type=count,
        default=20,
        metavar="N",
        help="test images of a class that are searched for (default %(default)s)",
    )
    parser.add_argument(
        "--gallery",
        type=count,
        default=200,
        metavar="N",
        help="further test images of a class that are searched, or as many as there are "
        "(default %(default)s)",
    )
    parser.add_argument("--epochs", type=count, default=10, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--batch-size", type=count, default=64, metavar="N", help="default %(default)s"
    )
    parser.add_argument(
        "--lr", type=rate, default=3e-3, metavar="X", help="of Adam (default %(default)s)"
    )
    parser.add_argument(
        "--channels",
        type=count,
        default=64,
        metavar="N",
        help="of the feature map (default %(default)s)",
    )
    parser.add_argument(
        "--components",
        type=count,
        default=16,
        metavar="N",
        help="numbers of a whitened descriptor (default %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=count, default=1, metavar="N", help="runs to average (default %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Train, search, and print the table.

    Returns
    -------
    int
        0; 1 if the numbers were not finite; 2 if the data are not to be had, or are too few.
    """
    try:
        _report(args)
    except DivergedError as error:
        return _failed(error, 1)
    except FileNotFoundError as error:
        if args.data == "folder":
            return _failed(error, 2)
        return _failed(f"{error}\nHere that is --data-folder FOLDER and --data digits.", 2)
    except (ImportError, OSError, ValueError) as error:
        return _failed(error, 2)
    return 0


def _failed(why: object, status: int) -> int:
    print(f"python -m minitorch_attn reproduce retrieval: {why}", file=sys.stderr)
    return status


def _report(args: argparse.Namespace) -> None:
    train, test = _dataset(args, "train"), _dataset(args, "test")
    seen = _seen_classes(train.classes, test.classes)
    fitted, apart = _training_images(train.labels, seen, args.limit)
    most = min(args.channels, len(apart) - 1)
    if args.components > most:
        raise ValueError(
            f"--components {args.components} are too many: --channels {args.channels} and "
            f"{len(apart)} images kept apart for whitening allow {max(most, 0)}"
        )
    queries, gallery = _split(test.labels, args.queries, args.gallery)
    print(
        f"{args.data}: {len(fitted):,} training images of {seen} classes, and {len(apart):,} kept "
        "apart for whitening;\n"
        f"{len(queries):,} queries and {len(gallery):,} images in the gallery, of "
        f"{len(test.classes)} classes",
        flush=True,
    )
    runs = []
    for seed in range(args.seeds):
        engine.manual_seed(seed)
        backbone, attention = _train(args, train.images[fitted], train.labels[fitted], seen, seed)
        search = Search(
            _features(backbone, test.images[queries]),
            test.labels[queries],
            _features(backbone, test.images[gallery]),
            test.labels[gallery],
            seen,
        )
        maps = _features(backbone, train.images[apart])
        runs.append(dict(_measure(args.components, search, attention, maps)))
    print("                                mAP, %         P@10, %")
    print("descriptor                    seen  unseen   seen  unseen")
    for descriptor, step in runs[0]:
        numbers = 100 * np.mean([one[descriptor, step] for one in runs], axis=0)
        name = f"  {step}" if step else descriptor
        print(f"{name:28}", "{:5.1f}  {:6.1f}  {:5.1f}  {:6.1f}".format(*numbers))


# -- data -----------------------------------------------------------------------------------


def _dataset(args: argparse.Namespace, part: str) -> ImageDataset:
    train = part == "train"
    if args.data == "digits":
        return data.cluttered_digits(SCENES[part], train=train, generator=int(train))
    if args.data == "folder":
        if args.data_folder is None:
            raise ValueError("--data folder needs --data-folder FOLDER")
        return data.image_folder(args.data_folder / part)
    load = getattr(data, args.data)
    return load(train, root=args.data_folder, download=not args.no_download)


def _seen_classes(train: Sequence[str], test: Sequence[str]) -> int:
    """How many classes are trained on, the first ones; the others are left for the search."""
    if list(train) != list(test):
        raise ValueError(f"train/ and test/ hold different classes: {[*train]} and {[*test]}")
    seen = round(SEEN * len(train))
    if not 2 <= seen < len(train):
        raise ValueError(
            f"needs 3 classes at least, two to tell apart and one not seen, there are {len(train)}"
        )
    return seen


def _training_images(
    labels: np.ndarray, seen: int, limit: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the images to train on and of those kept apart, of the first `seen` classes."""
    of_class = [np.flatnonzero(labels == label)[:limit] for label in range(seen)]
    numbers = np.sort(np.concatenate(of_class))
    apart = np.arange(len(numbers)) % APART == APART - 1
    return numbers[~apart], numbers[apart]


def _split(labels: np.ndarray, queries: int, gallery: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the queries and of the gallery's images, so many of each class."""
    of_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    fewest = min(map(len, of_class))
    if fewest <= queries:
        raise ValueError(
            f"--queries {queries} leaves nothing to search for: there are {fewest} test images of "
            "a class"
        )
    asked = np.concatenate([one[:queries] for one in of_class])
    return asked, np.concatenate([one[queries : queries + gallery] for one in of_class])


# -- networks -------------------------------------------------------------------------------


def _train(
    args: argparse.Namespace, images: np.ndarray, labels: np.ndarray, classes: int, seed: int
) -> tuple[nn.Module, nn.Module]:
    """A network, and then attention before its last layer while all else stays as it is.

    Returns
    -------
    backbone : Module
        (N, C, H, W) -> (N, D, H / 4, W / 4).
    attention : Module
        Of regions of its feature maps.
    """
    half, channels = max(args.channels // 2, 1), args.channels
    backbone = nn.Sequential(
        _convolution(images.shape[1], half, 1),
        _convolution(half, half, 2),
        _convolution(half, channels, 1),
        _convolution(channels, channels, 2),
        _convolution(channels, channels, 1),
    )
    classifier = nn.Linear(channels, classes)
    network = nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)
    accuracy = _fit(args, network, ImageDataset(images, labels), args.epochs, seed)
    backbone.eval()

    attention = RegionalAttention(channels)
    classifier.requires_grad_(False)
    weighed = nn.Sequential(RegionalMAC(attention), classifier)
    step = -(-len(images) // ATTENDED)  # a folder's images are sorted by class: take some of all
    maps = TensorDataset(_features(backbone, images[::step]), labels[::step])
    with_attention = _fit(args, weighed, maps, max(args.epochs // 2, 1), seed)
    print(
        f"seed {seed}: {100 * accuracy:.1f} % of the training images right in the last epoch, "
        f"{100 * with_attention:.1f} % by regions with attention",
        flush=True,
    )
    return backbone, attention


def _convolution(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def _fit(args: argparse.Namespace, model: nn.Module, dataset: Any, epochs: int, seed: int) -> float:
    """Train, and return the accuracy on the training images in the last epoch."""
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = optim.Adam(learned, lr=args.lr)
    loader = DataLoader(dataset, args.batch_size, shuffle=True, generator=seed)
    history = fit(
        model,
        loader,
        optimizer=optimizer,
        epochs=epochs,
        scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader)),
        scheduler_every="batch",
    )
    return history["train_accuracy"][-1]


def _features(backbone: nn.Module, images: np.ndarray) -> np.ndarray:
    """Feature maps of images (N, C, H, W), as an array."""
    loader = DataLoader(ImageDataset(images, np.zeros(len(images))), 256)
    with engine.no_grad():
        return np.concatenate([backbone(engine.as_tensor(x)).numpy() for x, _ in loader])


# -- descriptors, search --------------------------------------------------------------------


class Pooled:
    """A descriptor of the whole map: pooled, divided by its length, whitened."""

    def __init__(self, pool: Callable[[Any], Any]):
        self.pool = pool

    def parts(self, maps: np.ndarray) -> np.ndarray:
        """What is whitened, (N, C)."""
        return l2_normalized(self.pool(maps))

    def __call__(self, maps: np.ndarray, whiten: Any = None) -> np.ndarray:
        parts = self.parts(maps)
        return parts if whiten is None else whiten(parts)


class Regional:
    """R-MAC: each region is whitened by itself, and weighed by attention if there is one."""

    def __init__(self, attention: nn.Module | None = None):
        self.attention = attention

    def parts(self, maps: np.ndarray) -> np.ndarray:
        """What is whitened: all regions of all images, (N R, C)."""
        return l2_normalized(region_vectors(maps)).reshape(-1, maps.shape[1])

    def __call__(self, maps: np.ndarray, whiten: Any = None) -> np.ndarray:
        with engine.no_grad():
            return rmac(maps, whiten=whiten, attention=self.attention).numpy()


class Search:
    """Queries and a gallery, as feature maps and labels.

    Parameters
    ----------
    queries, gallery : (Q, C, H, W) and (G, C, H, W) arrays
    query_labels, gallery_labels : (Q,) and (G,) arrays of int
    seen : int
        Labels below it are of classes that were trained on.
    """

    def __init__(
        self,
        queries: np.ndarray,
        query_labels: np.ndarray,
        gallery: np.ndarray,
        gallery_labels: np.ndarray,
        seen: int,
    ):
        self.queries, self.gallery = queries, gallery
        self.wanted = [np.flatnonzero(gallery_labels == label) for label in query_labels]
        self.is_seen = query_labels < seen

    def score(self, rankings: np.ndarray) -> list[float]:
        """Mean average precision of queries of seen and of unseen classes, then their P@k."""
        pairs = list(zip(rankings, self.wanted))
        precision = np.array([average_precision(*pair) for pair in pairs])
        first = np.array([precision_at_k(*pair, LOOKED_AT) for pair in pairs])
        parts = self.is_seen, ~self.is_seen
        return [float(each[part].mean()) for each in (precision, first) for part in parts]


def _measure(
    components: int, search: Search, attention: nn.Module, apart: np.ndarray
) -> Iterator[tuple[tuple[str, str], list[float]]]:
    """Scores of every descriptor as it is, and after one step: whitened, expanded, re-ranked."""
    descriptors: dict[str, Pooled | Regional] = {
        "MAC": Pooled(mac),
        "SPoC": Pooled(spoc),
        "GeM": Pooled(gem),
        "R-MAC": Regional(),
        "R-MAC, regional attention": Regional(attention),
        "CroW": Pooled(CroW()),
    }
    for name, describe in descriptors.items():
        q, index = describe(search.queries), Index(describe(search.gallery))
        whiten = PCAWhitening(components).fit(describe.parts(apart)).transform
        whitened = Index(describe(search.gallery, whiten)).search(describe(search.queries, whiten))
        expanded = expand_queries(index, q, min(LOOKED_AT, len(index)))
        yield (name, ""), search.score(index.search(q))
        yield (name, "whitened"), search.score(whitened)
        yield (name, "expanded"), search.score(index.search(expanded))
        k1, k2 = (min(k, len(index)) for k in NEIGHBOURS)
        yield (name, "re-ranked"), search.score(rerank(index, q, k1, k2))
