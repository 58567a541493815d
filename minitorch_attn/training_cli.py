"""`python -m minitorch_attn train`: train a model on a data set from a shell."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import data, engine, nn, optim
from .checkpoint import CheckpointError
from .command_line import count
from .data import DataLoader, ImageDataset, Subset, transforms
from .engine import DeviceError
from .models import se_resnet
from .optim import lr_scheduler
from .serialization import save
from .training import DivergedError, History, fit

DATA: dict[str, Callable[..., ImageDataset]] = {
    "digits": data.digits,
    "mnist": data.mnist,
    "fashion_mnist": data.fashion_mnist,
    "cifar10": data.cifar10,
}
MIRRORED = ("fashion_mnist", "cifar10")  # whose images show the same thing when mirrored
MODELS = ("se_resnet", "resnet", "mlp")
LEARNING_RATES = {"sgd": 0.1, "adam": 0.002, "adamw": 0.002}
SCHEDULES = ("cosine", "warmup", "step", "constant")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``python -m minitorch_attn train``."""
    parser.description = (
        "Train a model on the training images of a data set, and measure it on the test images "
        "after every epoch. The same arguments give the same numbers on the same machine."
    )
    what = parser.add_argument_group("what to train, on what")
    what.add_argument(
        "--model",
        choices=MODELS,
        default="se_resnet",
        help="a residual network with Squeeze-and-Excitation, the same without it, or a "
        "perceptron with a hidden layer (default %(default)s)",
    )
    what.add_argument(
        "--blocks",
        type=count,
        default=1,
        metavar="N",
        help="residual blocks in each of the three stages (default %(default)s)",
    )
    what.add_argument(
        "--data",
        choices=DATA,
        default="digits",
        help="digits need no network, the others are downloaded once (default %(default)s)",
    )
    what.add_argument(
        "--data-folder",
        type=Path,
        metavar="FOLDER",
        help="where the files of the data sets are, or go (default: the user's cache)",
    )
    what.add_argument("--no-download", action="store_true", help="use only files that are there")
    what.add_argument(
        "--limit",
        type=count,
        metavar="N",
        help="take only the first N training and the first N test images (default: all)",
    )
    what.add_argument(
        "--augment",
        action="store_true",
        help="shift training images at random, and mirror those of fashion_mnist and cifar10",
    )

    how = parser.add_argument_group("how to train")
    how.add_argument(
        "--epochs", type=count, default=5, metavar="N", help="in all (default %(default)s)"
    )
    how.add_argument(
        "--batch-size",
        type=count,
        default=64,
        metavar="N",
        help="images in a step (default %(default)s)",
    )
    how.add_argument(
        "--optimizer",
        choices=LEARNING_RATES,
        default="sgd",
        help="sgd with Nesterov's momentum 0.9, adam or adamw (default %(default)s)",
    )
    rates = ", ".join(f"{rate:g} for {name}" for name, rate in LEARNING_RATES.items())
    how.add_argument(
        "--lr", type=_not_negative, metavar="X", help=f"learning rate (default {rates})"
    )
    how.add_argument(
        "--weight-decay", type=_not_negative, default=5e-4, metavar="X", help="default %(default)s"
    )
    how.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default="cosine",
        help="of the learning rate: half a cosine down to 0, the same after a rise over the first "
        "epoch, a tenth from 1/2 and a hundredth from 3/4 of the steps, or none "
        "(default %(default)s)",
    )
    how.add_argument(
        "--clip-grad",
        type=_not_negative,
        metavar="X",
        help="largest norm of all gradients together (default: none)",
    )
    how.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of weights, order and augmentation (default %(default)s)",
    )
    how.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="float64 prints the same digits on every processor (default %(default)s)",
    )
    how.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda is a GPU, by way of CuPy (default %(default)s)",
    )
    how.add_argument(
        "--precision",
        choices=("float16", "bfloat16"),
        help="compute products of float32 numbers in half precision (default: in float32)",
    )

    files = parser.add_argument_group("files")
    files.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="write the whole state here after every epoch (.safetensors; default: nowhere)",
    )
    files.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on from the checkpoint if it is there (default: --resume)",
    )
    files.add_argument(
        "--csv", type=Path, metavar="FILE", help="write the history here after every epoch"
    )
    files.add_argument(
        "--save", type=Path, metavar="FILE", help="write the trained model here (.safetensors)"
    )
    parser.add_argument("--quiet", action="store_true", help="print no table and show no bar")


def run(args: argparse.Namespace) -> int:
    """Train, and print a row for each epoch.

    Returns
    -------
    int
        0; 1 if the numbers were not finite; 2 if data, checkpoint, files or GPU are not to be had,
        or options exclude each other; 130 if it was stopped by hand.
    """
    if args.precision and args.dtype == "float64":
        return _complain("--precision casts no float64: leave out one of it and --dtype float64", 2)
    dtype_before = engine.get_default_dtype()
    engine.set_default_dtype(args.dtype)
    try:
        return _train(args)
    except DivergedError as error:
        return _complain(error, 1)
    except (CheckpointError, DeviceError, ImportError, OSError) as error:
        return _complain(error, 2)
    except KeyboardInterrupt as stopped:
        return _complain("; ".join(getattr(stopped, "__notes__", ["stopped"])), 130)
    finally:
        engine.set_default_dtype(dtype_before)


def _train(args: argparse.Namespace) -> int:
    train, test = _datasets(args)
    engine.manual_seed(args.seed)
    model = _model(args.model, args.blocks, train)
    loader = DataLoader(_first(train, args.limit), args.batch_size, shuffle=True)
    tests = DataLoader(_first(test, args.limit), 256)
    model.to(args.device)
    optimizer = _optimizer(args, model)
    table = _Table(quiet=args.quiet, csv_path=args.csv)
    table.say(f"{args.model}: {sum(p.numel() for p in model.parameters()):,} parameters")
    size = "x".join(map(str, train.images.shape[1:]))
    table.say(
        f"{args.data}: {len(loader.dataset):,} training and {len(tests.dataset):,} test images "
        f"of {size}, {len(train.classes)} classes"
    )
    history = fit(
        model,
        loader,
        optimizer=optimizer,
        epochs=args.epochs,
        valid_loader=tests,
        scheduler=_schedule(args.schedule, optimizer, args.epochs, len(loader)),
        scheduler_every="batch",
        clip_grad=args.clip_grad,
        precision=args.precision,
        checkpoint=args.checkpoint,
        resume=args.resume,
        notes={name: getattr(args, name) for name in ("data", "limit", "augment", "model", "seed")},
        progress=False if args.quiet else None,
        after_epoch=table.update,
    )
    table.update(history)
    if args.save:
        args.save.parent.mkdir(parents=True, exist_ok=True)
        save(model.state_dict(), args.save)
    return 0


# -- what the arguments stand for -----------------------------------------------------------


def _datasets(args: argparse.Namespace) -> tuple[ImageDataset, ImageDataset]:
    """Training and test images, in numbers of mean 0 and standard deviation 1."""
    where = (
        {}
        if args.data == "digits"
        else {
            "root": args.data_folder,
            "download": not args.no_download,
        }
    )
    train, test = (DATA[args.data](train=part, **where) for part in (True, False))
    sample = transforms.to_float(train.images[:10_000])
    mean, std = sample.mean(axis=(0, 2, 3)), sample.std(axis=(0, 2, 3))
    normalize = transforms.Normalize(mean.tolist(), std.tolist())
    train.transform = test.transform = normalize
    if args.augment:
        size = train.images.shape[-1]
        steps: list[Any] = [transforms.RandomCrop(size, padding=size // 8)]
        steps += [transforms.RandomHorizontalFlip()] if args.data in MIRRORED else []
        train.transform = transforms.Compose([*steps, normalize])
    return train, test


def _first(dataset: ImageDataset, limit: int | None) -> Any:
    return dataset if limit is None else Subset(dataset, np.arange(min(limit, len(dataset))))


def _model(name: str, blocks: int, dataset: ImageDataset) -> nn.Module:
    _, C, H, W = dataset.images.shape
    K = len(dataset.classes)
    if name == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 128), nn.ReLU(), nn.Linear(128, K))
    return se_resnet(K, C, blocks=(blocks,) * 3, attention=name == "se_resnet")


def _optimizer(args: argparse.Namespace, model: nn.Module) -> optim.Optimizer:
    lr = LEARNING_RATES[args.optimizer] if args.lr is None else args.lr
    settings = {"lr": lr, "weight_decay": args.weight_decay}
    if args.optimizer == "sgd":
        return optim.SGD(model.parameters(), momentum=0.9, nesterov=True, **settings)
    kind = optim.Adam if args.optimizer == "adam" else optim.AdamW
    return kind(model.parameters(), **settings)


def _schedule(
    name: str, optimizer: optim.Optimizer, epochs: int, batches: int
) -> lr_scheduler.LRScheduler | None:
    """The schedule of a name, stepped once a batch."""
    steps = epochs * batches
    if name == "constant":
        return None
    if name == "step":
        return lr_scheduler.MultiStepLR(optimizer, [steps // 2, 3 * steps // 4])
    if name == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)
    warm_up = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=batches)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, max(steps - batches, 1))
    return lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], [batches])


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, not {text}")
    return number


# -- what is printed and written --------------------------------------------------------------


class _Table:
    """Prints the epochs that it has not printed yet, and keeps the CSV file up to date."""

    def __init__(self, quiet: bool, csv_path: Path | None):
        self.quiet = quiet
        self.csv_path = csv_path
        self.rows = 0

    def say(self, line: str) -> None:
        if self.quiet:
            return
        tqdm = sys.modules.get("tqdm")
        print(line, flush=True) if tqdm is None else tqdm.tqdm.write(line)  # over the bar

    def update(self, history: History) -> None:
        epochs = list(zip(*history.values()))
        for epoch in epochs[self.rows :]:
            if self.rows == 0:
                self.say("epoch   learning rate   train loss  accuracy   test loss  accuracy")
            e, lr, train_loss, train_accuracy, test_loss, test_accuracy = epoch
            self.say(
                f"{e:5d} {lr:15.4g} {train_loss:12.4f} {train_accuracy:8.1%} "
                f"{test_loss:12.4f} {test_accuracy:8.1%}"
            )
            self.rows += 1
        if self.csv_path is not None:
            self.csv_path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.csv_path, "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([list(history), *epochs])


def _complain(error: object, status: int) -> int:
    print(f"python -m minitorch_attn train: {error}", file=sys.stderr)
    return status
