"""How a training went, and how trainings compare over several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .layout import spread_apart
from .style import BLUE, COLOURS, GREY, VERMILION, WIDTH, new_figure, styled

History = Mapping[str, Sequence[float]]


@styled
def plot_history(history: History) -> Any:
    """Draw one training: the loss over the epochs, and the accuracy if there is one.

    Parameters
    ----------
    history : mapping of str to sequence of float
        What `fit` returns: one value per epoch under `epoch`, `train_loss`, `valid_loss`,
        `train_accuracy`, `valid_accuracy`; any but `train_loss` may be missing.

    Returns
    -------
    Figure
    """
    metrics = ["loss"] + [
        name.removeprefix("train_")
        for name in history
        if name.startswith("train_") and name != "train_loss"
    ]
    figure = new_figure(WIDTH if len(metrics) > 1 else 0.6 * WIDTH, 3.0)
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    for ax, metric in zip(axes, metrics):
        ends = []
        for part, colour in (("train", BLUE), ("valid", VERMILION)):
            values = history.get(f"{part}_{metric}")
            if values:
                epochs = _epochs(history, len(values))
                ax.plot(epochs, values, color=colour, marker="o" if len(values) == 1 else None)
                ends.append((values[-1], part, colour))
        _finish(ax, metric)
        _label_ends(ax, epochs[-1], ends)
    return figure


@styled
def plot_runs(
    arms: Mapping[str, Sequence[History]],
    metric: str = "valid_accuracy",
    *,
    ax: Any = None,
) -> Any:
    """Draw a metric over the epochs for several arms of an experiment, each run on several seeds.

    The line is the mean over the seeds, the band reaches from the lowest to the highest of them.

    Parameters
    ----------
    arms : mapping of str to sequence of histories
        For each arm the histories of its runs, one for each seed.
    metric : str
        Key of the histories.
    ax : Axes, optional
        Where to draw; otherwise a figure is made and returned.

    Returns
    -------
    Figure or None

    Raises
    ------
    KeyError
        If a history has no such metric.
    """
    figure = None
    if ax is None:
        figure = new_figure(0.8 * WIDTH, 3.6)
        ax = figure.subplots()
    ends = []
    for (name, runs), colour in zip(arms.items(), _colours(len(arms))):
        values = np.array([_series(run, metric) for run in runs], dtype=float)  # (seeds, epochs)
        epochs = _epochs(runs[0], values.shape[1])
        mean = values.mean(axis=0)
        ax.fill_between(
            epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0
        )
        ax.plot(epochs, mean, color=colour)
        ends.append((mean[-1], name, colour))
    _finish(ax, metric)
    _label_ends(ax, epochs[-1], ends)
    seeds = {len(runs) for runs in arms.values()}
    if seeds != {1}:
        ax.set_title(
            f"mean and range over {'–'.join(str(s) for s in sorted(seeds))} seeds", color=GREY
        )
    return figure


@styled
def plot_arms(
    arms: Mapping[str, Sequence[float]],
    label: str = "accuracy",
    *,
    ax: Any = None,
) -> Any:
    """Compare the outcomes of the arms of an experiment: a dot for each seed, a bar at the mean.

    Parameters
    ----------
    arms : mapping of str to sequence of float
        For each arm the outcomes of its runs.
    label : str
        What was measured.
    ax : Axes, optional
        Where to draw; otherwise a figure is made and returned.

    Returns
    -------
    Figure or None
    """
    figure = None
    if ax is None:
        figure = new_figure(0.8 * WIDTH, 0.9 + 0.45 * len(arms))
        ax = figure.subplots()
    for row, (runs, colour) in enumerate(zip(arms.values(), _colours(len(arms)))):
        outcomes = np.asarray(runs, dtype=float)
        spread = np.linspace(-0.16, 0.16, len(outcomes)) if len(outcomes) > 1 else [0.0]
        ax.scatter(outcomes, row + np.asarray(spread), color=colour, s=36, alpha=0.75, linewidth=0)
        ax.plot([outcomes.mean()] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=3)
        ax.annotate(
            f"{outcomes.mean():#.3g}".rstrip("."),
            (outcomes.mean(), row - 0.3),
            xytext=(0, 1),
            textcoords="offset points",
            ha="center",
            va="bottom",
            size=9,
        )
    ax.set_yticks(range(len(arms)), labels=list(arms))
    ax.set(ylim=(len(arms) - 0.5, -0.7), xlabel=f"{label}: each seed, and the mean")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    return figure


def _series(run: History, metric: str) -> Sequence[float]:
    if metric not in run:
        raise KeyError(f"no {metric!r} in this history: it has {', '.join(run)}")
    return run[metric]


def _epochs(history: History, count: int) -> Sequence[float]:
    return history.get("epoch") or range(1, count + 1)


def _colours(count: int) -> list[str]:
    if count > len(COLOURS):
        raise ValueError(
            f"{count} arms cannot be told apart by colour: draw at most {len(COLOURS)}"
        )
    return list(COLOURS[:count])


def _finish(ax: Any, metric: str) -> None:
    ax.set(xlabel="epoch", ylabel=metric.replace("_", " "))
    if ax.dataLim.width == 0:  # a single epoch
        ax.set_xlim(ax.dataLim.x0 - 1, ax.dataLim.x0 + 1)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(axis="y")


def _label_ends(ax: Any, x: float, ends: list[tuple[float, str, str]]) -> None:
    """Write each line's name at its end, moved apart where they would overlap."""
    ax.autoscale_view()
    low, high = ax.get_ylim()
    ends = sorted(ends)
    places = spread_apart([y for y, *_ in ends], [0.08 * (high - low)] * (len(ends) - 1))
    for place, (_, name, colour) in zip(places, ends):
        ax.annotate(
            name,
            (x, place),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )
