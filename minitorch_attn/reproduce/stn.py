"""Spatial transformers on distorted digits: Jaderberg et al. (2015), table 1, in small."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, engine, nn, optim, viz
from .. import functional as F
from ..attention import SpatialTransformer
from ..command_line import count, rate
from ..data import DataLoader, ImageDataset, TensorDataset
from ..engine.optional import require
from ..training import DivergedError, evaluate, fit
from .distorted_digits import PROTOCOLS, SIZE, Distort

TRANSFORMS = ("affine", "projective", "thin_plate_spline")

# Errors in percent, by protocol: FCN, CNN, and ST-FCN and ST-CNN with each of the transforms. The
# cluttered digits, "TC", stand beside the table, and the transform they were read with is not told.
TABLE_1: dict[str, Any] = {
    "R": {"FCN": 2.1, "CNN": 1.2, "ST-FCN": (1.2, 1.3, 1.1), "ST-CNN": (0.7, 0.8, 0.7)},
    "RTS": {"FCN": 5.2, "CNN": 0.8, "ST-FCN": (0.8, 0.9, 0.8), "ST-CNN": (0.5, 0.6, 0.5)},
    "P": {"FCN": 3.1, "CNN": 1.5, "ST-FCN": (1.5, 1.4, 1.4), "ST-CNN": (0.8, 0.8, 0.8)},
    "E": {"FCN": 3.2, "CNN": 1.4, "ST-FCN": (2.7, 2.6, 2.4), "ST-CNN": (1.2, 1.3, 1.1)},
    "TC": {"FCN": 13.2, "CNN": 3.5, "ST-FCN": 2.0, "ST-CNN": 1.7},
}
MODELS = ("FCN", "CNN", "ST-FCN", "ST-CNN")
WATCHED = 8  # test images in an animation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``python -m minitorch_attn reproduce stn``."""
    parser.description = (
        "Train a fully connected and a convolutional network on distorted digits, each with and "
        "without a spatial transformer in front, and print their errors beside those of the "
        "paper, which trained far longer: 150,000 steps of 256 images by SGD, means of three "
        "seeds. Behind the transformer of TC stands an average over 2 x 2, as in the paper. That "
        "of RTS reads 28 x 28 pixels of the frame at once, where the paper's averages too."
    )
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="R", help="the distortion (default %(default)s)"
    )
    parser.add_argument(
        "--transform", choices=TRANSFORMS, default="affine", help="default %(default)s"
    )
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=MODELS, help="default: all four"
    )
    parser.add_argument(
        "--data",
        choices=("mnist", "digits"),
        default="mnist",
        help="mnist is downloaded once; digits need no network, and are enlarged to 28 x 28 "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--data-folder", type=Path, metavar="FOLDER", help="where the files of mnist are, or go"
    )
    parser.add_argument("--no-download", action="store_true", help="use only files that are there")
    parser.add_argument(
        "--limit", type=count, metavar="N", help="first N training and test images (default: all)"
    )
    parser.add_argument("--epochs", type=count, default=10, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--batch-size", type=count, default=64, metavar="N", help="default %(default)s"
    )
    parser.add_argument(
        "--lr", type=rate, default=1e-3, metavar="X", help="of Adam (default %(default)s)"
    )
    parser.add_argument(
        "--filters",
        type=count,
        default=32,
        metavar="N",
        help="channels of the two convolutions; the paper has 32 to 64 (default %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=count, default=1, metavar="N", help="runs to average (default %(default)s)"
    )
    parser.add_argument(
        "--animate",
        type=_animation_file,
        metavar="FILE",
        help="a .gif or .png that shows, epoch by epoch, where the last of the models with a "
        "transformer reads a few test images",
    )


def _animation_file(name: str) -> Path:
    path = Path(name)
    if path.suffix.lower() not in (".gif", ".png") or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{name!r}: a .gif or .png, in a folder that is there")
    return path


def run(args: argparse.Namespace) -> int:
    """Train, and print the table.

    Returns
    -------
    int
        0; 1 if the numbers were not finite; 2 if the data are not to be had, or nothing that is to
        be animated.
    """
    if args.animate and not any(name.startswith("ST-") for name in args.models):
        return _failed("--animate: none of the models has a transformer", 2)
    try:
        if args.animate:
            require("matplotlib", extra="course", purpose="draw an animation")
        train, test = (_dataset(args, part) for part in (True, False))
        _report(args, train, test)
    except DivergedError as error:
        return _failed(error, 1)
    except FileNotFoundError as error:
        return _failed(f"{error}\nHere that is --data-folder FOLDER and --data digits.", 2)
    except (ImportError, OSError) as error:
        return _failed(error, 2)
    return 0


def _failed(why: object, status: int) -> int:
    print(f"python -m minitorch_attn reproduce stn: {why}", file=sys.stderr)
    return status


def _report(args: argparse.Namespace, train: ImageDataset, test: ImageDataset) -> None:
    size = Distort(args.protocol).size
    print(
        f"{args.data}, protocol {args.protocol}: {len(train):,} training and {len(test):,} test "
        f"images of {size}x{size}, distorted anew in every epoch"
    )
    print(
        f"epochs: {args.epochs}, steps in each: {-(-len(train) // args.batch_size):,}, Adam with "
        f"learning rate {args.lr:g} falling to 0, {args.transform} transformers, "
        f"seeds: {args.seeds}"
    )
    print("model    parameters   error %   paper, 150,000 steps")
    for name in args.models:
        errors = [_error(args, name, train, test, seed) for seed in range(args.seeds)]
        parameters = sum(p.numel() for p in _model(args, name).parameters())
        paper = TABLE_1[args.protocol][name]
        if isinstance(paper, tuple):
            paper = paper[TRANSFORMS.index(args.transform)]
        print(f"{name:8} {parameters:10,} {np.mean(errors):9.2f} {paper:7.1f}", flush=True)


def _error(
    args: argparse.Namespace, name: str, train: ImageDataset, test: ImageDataset, seed: int
) -> float:
    """Train a model from a seed; its error on the distorted test images, in percent."""
    engine.manual_seed(seed)
    model = _model(args, name)
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    loader = DataLoader(train, args.batch_size, shuffle=True, generator=seed)
    images, labels = test.batch(np.arange(len(test)), np.random.default_rng(1))
    watched = args.animate and seed == 0 and name.startswith("ST-")
    readings = Readings(model, images[:WATCHED]) if watched else None
    history = fit(
        model,
        loader,
        optimizer=optimizer,
        epochs=args.epochs,
        scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(loader)),
        scheduler_every="batch",
        after_epoch=readings,
    )
    if readings:
        titles = [f"{name} on {args.protocol}, epoch {t}" for t in range(args.epochs + 1)]
        animation = viz.animate_sampling(readings.images, readings.grids, readings.views, titles)
        animation.save(args.animate)
    with np.errstate(all="ignore"):  # what is not finite is told in words
        measured = evaluate(model, DataLoader(TensorDataset(images, labels), 256))
    if not np.isfinite(measured["loss"]):
        raise DivergedError(f"{name}: the loss on the test images is not finite", history)
    return 100 * (1 - measured["accuracy"])


class Readings:
    """Where the transformer in front of a model reads some images, and what it reads there.

    Noted once at the beginning, and then each time it is called.
    """

    def __init__(self, model: Any, images: np.ndarray):
        self.transformer = model[0]
        self.images = images
        self.grids: list[np.ndarray] = []
        self.views: list[np.ndarray] = []
        self()

    def __call__(self, history: Any = None) -> None:
        def keep(module: Any, inputs: Any, grid: Any) -> None:
            self.grids.append(grid.numpy())

        with self.transformer.grid.register_forward_hook(keep), engine.no_grad():
            self.views.append(self.transformer(engine.tensor(self.images)).numpy())


def _dataset(args: argparse.Namespace, train: bool) -> ImageDataset:
    """Images (N, 1, 28, 28), handed out distorted."""
    if args.data == "digits":
        small = data.digits(train)
        images = F.interpolate(small.images, size=SIZE, mode="bilinear").numpy()
        labels = small.labels
    else:
        mnist = data.mnist(train, root=args.data_folder, download=not args.no_download)
        images, labels = mnist.images, mnist.labels
    kept = slice(args.limit)
    return ImageDataset(images[kept], labels[kept], transform=Distort(args.protocol))


def _model(args: argparse.Namespace, name: str) -> nn.Module:
    size = Distort(args.protocol).size
    with_transformer, convolutional = name.startswith("ST-"), name.endswith("CNN")
    read = SIZE if with_transformer and args.protocol == "RTS" else size
    pooled = with_transformer and args.protocol == "TC"
    seen = read // 2 if pooled else read
    classifier = _cnn(seen, args.filters) if convolutional else _fcn(seen)
    if not with_transformer:
        return classifier
    localisation, features = _small_cnn(size) if convolutional else _small_fcn(size)
    transformer = SpatialTransformer(1, args.transform, localisation, features, output_size=read)
    if pooled:
        return nn.Sequential(transformer, nn.AvgPool2d(2), classifier)
    return nn.Sequential(transformer, classifier)


def _fcn(size: int) -> nn.Module:
    """Two hidden layers of 256 units."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(size**2, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


def _cnn(size: int, filters: int) -> nn.Module:
    """A 9x9 and a 7x7 convolution, each halved by a maximum, and a linear layer."""
    left = ((size - 8) // 2 - 6) // 2
    return nn.Sequential(
        nn.Conv2d(1, filters, 9),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(filters, filters, 7),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(filters * left**2, 10),
    )


def _small_fcn(size: int) -> tuple[nn.Module, int]:
    """Localisation for the ST-FCN: three layers of 32 units."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (size**2, 32, 32):
        layers += [nn.Linear(inputs, 32), nn.ReLU()]
    return nn.Sequential(*layers), 32


def _small_cnn(size: int) -> tuple[nn.Module, int]:
    """Localisation for the ST-CNN: halved, two 5x5 convolutions of 20 channels, 20 units."""
    left = (size // 2 - 4) // 2 - 4
    net = nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 20, 5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20 * left**2, 20),
        nn.ReLU(),
    )
    return net, 20
