"""The training loop: what it does in every epoch, and what it does when something goes wrong."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from . import functional as F
from .amp import GradScaler, autocast, scale_gradients
from .checkpoint import Checkpoint
from .engine import (
    AnomalyError,
    Tensor,
    default_generator,
    detect_anomaly,
    manual_seed,
    no_grad,
)
from .engine.backend import is_array, to_device
from .nn import Module
from .nn.utils import clip_grad_norm_
from .optim import Optimizer
from .optim.lr_scheduler import LRScheduler

History = dict[str, list[float]]
Metric = Callable[[Tensor, Tensor], float]


class DivergedError(AnomalyError):
    """A training that was stopped because a number was NaN or infinite.

    Attributes
    ----------
    history : dict of str to list of float
        That of the finished epochs.
    """

    def __init__(self, message: str, history: History):
        super().__init__(message)
        self.history = history


def accuracy(output: Tensor, target: Tensor) -> float:
    """Share of samples whose greatest score is that of their class. (N, K), (N,) -> number."""
    return (output.data.argmax(axis=1) == target.data).mean().item()


def fit(
    model: Module,
    train_loader: Any,
    *,
    optimizer: Optimizer,
    epochs: int,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    valid_loader: Any = None,
    scheduler: LRScheduler | None = None,
    scheduler_every: str = "epoch",
    metrics: Mapping[str, Metric] | None = None,
    clip_grad: float | None = None,
    precision: str | None = None,
    seed: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    resume: bool = True,
    notes: Mapping[str, Any] | None = None,
    history: History | None = None,
    progress: bool | None = None,
    after_epoch: Callable[[History], Any] | None = None,
) -> History:
    """Train a model, and return what was measured in every epoch.

    Every batch (inputs, targets) takes one step: it is moved to the device of the model,
    `loss(model(inputs), targets)` is computed and differentiated, and the optimiser moves the
    parameters. If a loss or a gradient is not
    finite, training stops before that step, and the error names the operation and the layer
    where it began.

    Parameters
    ----------
    model : Module
        Put into training mode at the start of every epoch.
    train_loader : iterable of (inputs, targets), with a length
        A `DataLoader`, or a list of batches.
    optimizer : Optimizer
        Made of the model's parameters.
    epochs : int
        In all: those of a checkpoint or of a given history count.
    loss : callable
        (output, targets) -> Tensor with one element, the mean over the batch.
    valid_loader : iterable of (inputs, targets), optional
        What to evaluate on after every epoch.
    scheduler : LRScheduler, optional
        Of the same optimiser.
    scheduler_every : {"epoch", "batch"}
        When the schedule takes its step.
    metrics : mapping of str to callable, optional
        (output, targets) -> mean over the batch. By default {"accuracy": accuracy} where the
        targets are classes (N,), integers, of scores (N, K), and none for other targets.
    clip_grad : float, optional
        Largest norm of all gradients together.
    precision : "float16" or "bfloat16", optional
        Compute products in half precision (see `autocast`); the parameters stay in theirs. In
        float16 the loss is scaled (see `amp.GradScaler`), and a batch whose scaled gradients
        overflow takes no step. By default everything is computed in the parameters' precision.
    seed : int, optional
        Where the default generator starts (dropout, and a loader without its own generator). The
        model has drawn its first weights before: `manual_seed` decides those.
    checkpoint : path, optional
        A file to write after every epoch, see `minitorch_attn.checkpoint`. Going on from it gives
        the very numbers that an uninterrupted run gives (on a GPU, without random noise).
    resume : bool
        Whether to go on from the checkpoint if the file is there.
    notes : mapping of str to str or number, optional
        What else a checkpoint must agree in, such as the name of the data set. (Model, optimiser,
        schedule, loss and the number of batches are compared anyway.)
    history : dict, optional
        Filled epoch by epoch; pass one of your own to have it if training is interrupted, and
        again to go on.
    progress : bool, optional
        Whether to show a bar; by default in a terminal and in a notebook (where tqdm is installed).
    after_epoch : callable, optional
        Called with the history after every epoch.

    Returns
    -------
    dict of str to list of float
        One number for each epoch: "epoch" (from 1), "learning_rate" (of its first step),
        "train_loss" and "train_accuracy" (means over the batches as they came, in training mode),
        "valid_loss" and "valid_accuracy"; other metrics likewise. `viz.plot_history` draws it.

    Raises
    ------
    DivergedError
        If the loss or a gradient is not finite; its `history` has the finished epochs.
    CheckpointError
        If the checkpoint is damaged, or of a training with other settings; nothing is changed.
    TypeError
        If the train_loader has no length, as a generator, which is used up after one epoch.
    ValueError
        If an option is none of those it may be.
    KeyboardInterrupt
        If it is stopped by hand: history and checkpoint are those of the last finished epoch.

    Examples
    --------
    >>> from minitorch_attn.data import DataLoader, digits
    >>> train = DataLoader(digits(), batch_size=64, shuffle=True, generator=0)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> optimizer = optim.SGD(model.parameters(), lr=0.5)
    >>> history = fit(model, train, optimizer=optimizer, epochs=3)
    >>> [round(value, 1) for value in history["train_accuracy"]]
    [0.7, 0.9, 0.9]
    """
    if scheduler_every not in ("epoch", "batch"):
        raise ValueError(f"scheduler_every is {scheduler_every!r}: choose 'epoch' or 'batch'")
    if not hasattr(train_loader, "__len__"):
        raise TypeError(
            f"train_loader must have a length and give its batches anew in every epoch, which a "
            f"{type(train_loader).__name__} does not: pass a DataLoader or a list of batches"
        )
    history = {} if history is None else history
    _check_precision(precision, model)
    scaler = GradScaler(enabled=precision == "float16")
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(
            checkpoint,
            _with_state(
                model=model,
                optimizer=optimizer,
                scaler=scaler if scaler.is_enabled() else None,
                scheduler=scheduler,
                train_loader=train_loader,
                valid_loader=valid_loader,
            ),
            _settings(model, optimizer, scheduler, loss, clip_grad, seed, len(train_loader))
            | {"precision": precision}
            | dict(notes or {}),
        )
    if saved is not None and resume and saved.path.exists():
        restored = saved.restore()
        history.clear()
        history.update(restored)
    elif seed is not None and not history:
        manual_seed(seed)

    done, batches = len(history.get("epoch", [])), len(train_loader)
    with _progress_bar(epochs * batches, done * batches, progress) as bar:
        try:
            for epoch in range(done + 1, epochs + 1):
                bar.set_description(f"epoch {epoch} of {epochs}")
                measured = {"epoch": epoch, "learning_rate": optimizer.param_groups[0]["lr"]}
                step_of_batch = scheduler if scheduler_every == "batch" else None
                trained = _train_epoch(
                    model,
                    train_loader,
                    optimizer,
                    loss,
                    metrics,
                    clip_grad,
                    precision,
                    scaler,
                    step_of_batch,
                    bar,
                )
                measured |= {f"train_{name}": value for name, value in trained.items()}
                if valid_loader is not None:
                    valid = evaluate(
                        model, valid_loader, loss=loss, metrics=metrics, precision=precision
                    )
                    measured |= {f"valid_{name}": value for name, value in valid.items()}
                if scheduler is not None and scheduler_every == "epoch":
                    scheduler.step()
                # In one step, so that an interruption leaves lists of one length.
                history.update({k: [*history.get(k, []), v] for k, v in measured.items()})
                if saved is not None:
                    saved.save(history)
                bar.set_postfix_str(_in_words(measured))
                if after_epoch is not None:
                    after_epoch(history)
        except AnomalyError as cause:
            raise DivergedError(
                f"epoch {epoch}, {cause}\n{_kept(history, saved)}", history
            ) from None
        except KeyboardInterrupt as stopped:
            stopped.add_note(f"Stopped in epoch {epoch}. {_kept(history, saved)}")
            raise
    return history


def evaluate(
    model: Module,
    loader: Any,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    precision: str | None = None,
) -> dict[str, float]:
    """Measure a model on data, in evaluation mode and without recording a graph.

    Parameters
    ----------
    model : Module
        Its parts are put back into the mode they were in.
    loader : iterable of (inputs, targets)
        What to measure on.
    loss, metrics, precision
        As for `fit`.

    Returns
    -------
    dict of str to float
        "loss" and each metric, means over all samples.

    Raises
    ------
    ValueError
        If there are no samples, no such precision, or parameters in float64 with one.
    """
    _check_precision(precision, model)
    means, device = _Means(), _device(model)
    with _evaluating(model), no_grad(), _computing_in(precision):
        for batch in loader:
            inputs, targets = _pair(batch, device)
            output = model(inputs)
            means.add(len(targets), _measure(output, targets, loss(output, targets), metrics))
    return means.result()


# -- an epoch -----------------------------------------------------------------------------


@np.errstate(all="ignore")  # what is not finite is looked for, and explained, below
def _train_epoch(
    model: Module,
    loader: Any,
    optimizer: Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    metrics: Mapping[str, Metric] | None,
    clip_grad: float | None,
    precision: str | None,
    scaler: GradScaler,
    scheduler: LRScheduler | None,
    bar: Any,
) -> dict[str, float]:
    """A step for every batch; returns the means of what was measured on the way."""
    means, device = _Means(), _device(model)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    model.train()
    for number, batch in enumerate(loader, 1):
        inputs, targets = _pair(batch, device)
        generator_before = default_generator().bit_generator.state
        optimizer.zero_grad()
        with _computing_in(precision):
            output = model(inputs)
            value = loss(output, targets)
        scaler.scale(value).backward()
        if scaler.is_enabled():
            # Where a scaled gradient overflows, the scale is too large, and nothing else is wrong.
            is_sound = scaler.unscale_(optimizer) or scaler.get_scale() > 1
        else:
            is_sound = scale_gradients(parameters)
        if not is_sound or not math.isfinite(value.item()):
            what = "a gradient" if math.isfinite(value.item()) else "the loss"
            default_generator().bit_generator.state = generator_before
            with _computing_in(precision):
                cause = _first_fault(model, loss, inputs, targets)
            raise AnomalyError(
                f"batch {number}: {what} is not a finite number, training stopped.\n{cause}\n"
                "This batch has changed no parameter. Often the learning rate "
                f"({optimizer.param_groups[0]['lr']:g}) is too large, or clip_grad=1.0 helps."
            )
        if clip_grad is not None:
            clip_grad_norm_(parameters, clip_grad)
        scaler.step(optimizer)
        scaler.update()
        if scheduler is not None:
            scheduler.step()
        means.add(len(targets), _measure(output, targets, value, metrics))
        bar.update()
    return means.result()


def _pair(batch: Any, device: str) -> tuple[Any, Any]:
    """Inputs and targets, on a device."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        kind = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise ValueError(f"a batch must be a pair (inputs, targets), got {kind}")
    return _moved(batch[0], device), _moved(batch[1], device)


def _moved(value: Any, device: str) -> Any:
    """Tensors and arrays, also in tuples, lists and dicts, on a device; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_array(value):
        return to_device(value, device)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_moved(item, device) for item in value)
    return value


def _device(model: Module) -> str:
    """Where a model's parameters lie; a model without any is at home on the CPU."""
    return next((p.device for p in model.parameters()), "cpu")


def _check_precision(precision: str | None, model: Module) -> None:
    if precision not in (None, "float16", "bfloat16"):
        raise ValueError(
            f"precision is 'float16' or 'bfloat16', not {precision!r}; leave it out to compute in "
            "the precision of the parameters"
        )
    if precision and any(p.dtype == np.float64 for p in model.parameters()):
        raise ValueError(
            f"precision={precision!r} casts no float64, which the model's parameters are: convert "
            "them with model.float(), or leave precision out"
        )


def _computing_in(precision: str | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if precision is None else autocast(precision)


def _measure(
    output: Tensor, targets: Tensor, loss: Tensor, metrics: Mapping[str, Metric] | None
) -> dict[str, float]:
    if metrics is None:
        metrics = {"accuracy": accuracy} if _are_classes(targets, output) else {}
    return {
        "loss": float(loss.item()),
        **{name: float(metric(output.detach(), targets)) for name, metric in metrics.items()},
    }


def _are_classes(targets: Any, output: Any) -> bool:
    """Whether targets are classes (N, ...) of scores (N, K, ...)."""
    if not (isinstance(targets, Tensor) and isinstance(output, Tensor)) or output.ndim < 2:
        return False
    return targets.dtype.kind in "iu" and targets.shape == output.shape[:1] + output.shape[2:]


class _Means:
    """Means over samples, from means over batches that may differ in size."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: dict[str, float] = {}

    def add(self, count: int, means: Mapping[str, float]) -> None:
        self.count += count
        for name, mean in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + count * mean

    def result(self) -> dict[str, float]:
        if self.count == 0:
            raise ValueError("the loader gave no batch: is the dataset empty, or drop_last set?")
        return {name: total / self.count for name, total in self.sums.items()}


@contextlib.contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode for a while; parts that were frozen in it before stay so."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


# -- when numbers are not finite ------------------------------------------------------------


def _first_fault(
    model: Module, loss: Callable[[Tensor, Tensor], Tensor], inputs: Any, targets: Any
) -> str:
    """Where the first number that is not finite comes from, found by repeating the batch."""
    for what, tensor in (("inputs", inputs), ("targets", targets)):
        if isinstance(tensor, Tensor) and not np.isfinite(tensor.numpy()).all():
            return f"The {what} of the batch hold NaN or infinity already: look at the data."
    for name, p in model.named_parameters():
        if not np.isfinite(p.numpy()).all():
            return f"The parameter {name!r} holds NaN or infinity already."
    try:
        with detect_anomaly() as inspector, np.errstate(all="ignore"):
            loss(model(inputs), targets).backward()
    except AnomalyError as fault:
        return f"It began here: {fault}."
    finally:
        model.zero_grad()
    if inspector.first_infinity:
        return f"It began here: {inspector.first_infinity} gave an infinity."
    return "When the batch was repeated, it did not come again."


def _kept(history: History, saved: Checkpoint | None) -> str:
    """What there is left to work with, in words."""
    done = len(history.get("epoch", []))
    if done == 0:
        return "No epoch was finished."
    epochs = "1 epoch is" if done == 1 else f"{done} epochs are"
    in_file = f", and {saved.path} holds the state after the last of them" if saved else ""
    return f"{epochs} finished and in the history{in_file}."


# -- what a checkpoint needs ----------------------------------------------------------------


def _with_state(**parts: Any) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if hasattr(part, "state_dict")}


def _settings(
    model: Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    loss: Any,
    clip_grad: float | None,
    seed: int | None,
    batches: int,
) -> dict[str, Any]:
    """What two trainings must share for one to go on where the other stopped."""
    return {
        "model": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(next(model.parameters()).dtype),
        "optimizer": f"{type(optimizer).__name__} {optimizer.defaults}",
        "scheduler": _described(scheduler),
        "loss": getattr(loss, "__name__", type(loss).__name__),
        "batches per epoch": batches,
        "clip_grad": clip_grad,
        "seed": seed,
    }


def _described(value: Any) -> Any:
    """A schedule by its name and numbers, with those that it is made of."""
    if isinstance(value, list):
        return [_described(item) for item in value]
    if not isinstance(value, LRScheduler):
        return value if isinstance(value, (int, float)) else None
    settings = {k: _described(v) for k, v in vars(value).items() if k != "last_epoch"}
    return f"{type(value).__name__} {settings}"


# -- the bar --------------------------------------------------------------------------------


class _NoBar:
    """Stands for a progress bar where none is wanted."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self) -> None: ...

    def set_description(self, text: str) -> None: ...

    def set_postfix_str(self, text: str) -> None: ...


def _progress_bar(total: int, done: int, wanted: bool | None) -> Any:
    """A bar of tqdm's over all batches of all epochs, or a silent stand-in."""
    if wanted is None:
        wanted = sys.stderr.isatty() or _in_notebook()
    if wanted:
        with contextlib.suppress(ImportError):
            tqdm = importlib.import_module("tqdm.auto").tqdm
            return tqdm(total=total, initial=done, unit="batch")
    return _NoBar()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a notebook has imported it
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def _in_words(measured: Mapping[str, float]) -> str:
    part = "valid" if "valid_loss" in measured else "train"
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.3g}"
        for name, value in measured.items()
        if name.startswith(part)
    )
