"""A comparison as a table and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..viz.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, new_figure, styled
from .mechanisms import BASELINE, CONTROLS
from .results import Comparison, Row

#: What the rows of a group have in common, with its places and its colour.
GROUPS: dict[str, tuple[tuple[str, ...], str]] = {
    "no attention": ((), BLACK),
    "at the front": (("front",), PURPLE),
    "inside each block": (("block", "convolution"), BLUE),
    "between the stages": (("between",), VERMILION),
    "as the pooling": (("pool", "head"), GREEN),
    "in place of all": (("network",), ORANGE),
    "blocks of other networks": (("family",), SKY),
}
#: Attributes of `Costs`, and what they are called.
COSTS = {name: name.replace("_", "-") for name in ("parameters", "multiply_adds", "time", "memory")}


def group_of(row: Row) -> str:
    """The name in `GROUPS` of the group that a row is in."""
    if row.name in {control.name for control in CONTROLS}:
        return "no attention"
    return next(name for name, (places, _) in GROUPS.items() if row.place in places)


def ordered(comparison: Comparison) -> list[Row]:
    """The rows that were trained, group by group, in each the most accurate first."""
    groups = list(GROUPS)
    rows = [row for row in comparison.rows.values() if row.accuracies]
    return sorted(
        rows, key=lambda row: (groups.index(group_of(row)), row.name != BASELINE.name, -row.mean)
    )


def not_learned(comparison: Comparison) -> list[str]:
    """Names of the rows that reach less than half of the baseline's accuracy."""
    base = comparison.rows[BASELINE.name].mean
    return [row.name for row in comparison.rows.values() if row.accuracies and row.mean < base / 2]


def table(comparison: Comparison) -> str:
    """The comparison in lines of text, one a row.

    Accuracies in percent with their standard deviation over the seeds, the mean difference to the
    baseline over the same seeds with its standard error, and how many seeds it is ahead in.
    """
    rows = ordered(comparison)
    heads = ("row", "where", "accuracy", "difference", "ahead", *COSTS.values())
    lines = [heads, *(_cells(comparison, row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def _cells(comparison: Comparison, row: Row) -> tuple[str, ...]:
    cells = [row.name, row.place, _plus_minus(row.mean, row.spread)]
    base = comparison.rows.get(BASELINE.name)
    shared = sorted(row.accuracies.keys() & base.accuracies.keys()) if base else []
    if shared and base and row is not base:
        mean, error = comparison.difference(row.name)
        ahead = sum(row.accuracies[seed] > base.accuracies[seed] for seed in shared)
        cells += [_plus_minus(mean, error, "+"), f"{ahead}/{len(shared)}"]
    else:
        cells += ["", ""]
    if row.costs is None:
        return (*cells, "", "", "", "")
    time = "" if np.isnan(row.costs.time) else f"{row.costs.time:.2f}"
    megabytes = f"{row.costs.memory / 1e6:.1f} MB"
    return (*cells, f"{row.costs.parameters:,}", f"{row.costs.multiply_adds:,}", time, megabytes)


def _plus_minus(mean: float, error: float, sign: str = "") -> str:
    return f"{100 * mean:{sign}.1f}" + ("" if np.isnan(error) else f" ± {100 * error:.1f}")


@styled
def figure(comparison: Comparison, groups: Sequence[str] = tuple(GROUPS)) -> Any:
    """Draw the comparison: a dot for each seed's accuracy, and four costs beside it.

    The costs are divided by the baseline's. A band shows the range of the baseline's seeds, and
    bars the quartiles of the times. The accuracy of rows that are `not_learned` is told in words.

    Parameters
    ----------
    comparison : Comparison
        With the baseline in it.
    groups : sequence of str
        Names of `GROUPS` to draw.

    Returns
    -------
    Figure
    """
    base = comparison.rows[BASELINE.name]
    rows = [row for row in ordered(comparison) if group_of(row) in groups]
    drawn = new_figure(9.0, 1.3 + 0.235 * len(rows))
    axes = drawn.subplots(1, 5, sharey=True, width_ratios=(2.2, 1, 1, 1, 1))
    levels = list(range(len(rows)))
    colours = [GROUPS[group_of(row)][1] for row in rows]
    seeds = [100 * value for value in base.accuracies.values()]
    axes[0].axvspan(min(seeds), max(seeds), color="#EEEEEE")
    lost = not_learned(comparison)
    for level, row, colour in zip(levels, rows, colours):
        if row.name in lost:
            _name_at_the_edge(axes[0], f"← {100 * row.mean:.0f} %", level, colour)
            continue
        values = [100 * value for value in row.accuracies.values()]
        axes[0].scatter(values, [level] * len(values), s=14, color=colour, alpha=0.6, linewidth=0)
        axes[0].plot([100 * row.mean] * 2, [level - 0.35, level + 0.35], color=colour, linewidth=2)
    axes[0].set_title("accuracy, %")
    axes[0].set_yticks(levels, labels=[row.name for row in rows], size=9)
    for label, colour in zip(axes[0].get_yticklabels(), colours):
        label.set_color(colour)
    for ax, (cost, called) in zip(axes[1:], COSTS.items()):
        ax.set_title(f"{called}\nx {BASELINE.name}", size=10)
        _draw_cost(ax, cost, rows, base, colours)
    for ax in axes:
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
        for before, (above, below) in enumerate(zip(rows, rows[1:])):
            if group_of(above) != group_of(below):
                ax.axhline(before + 0.5, color=GREY, linewidth=0.6)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return drawn


def _name_at_the_edge(ax: Any, text: str, level: float, colour: str) -> None:
    ax.annotate(
        text,
        (0, level),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        size=8,
        color=colour,
    )


def _draw_cost(ax: Any, cost: str, rows: list[Row], base: Row, colours: list[str]) -> None:
    ax.axvline(1.0, color=GREY, linewidth=1)
    for level, (row, colour) in enumerate(zip(rows, colours)):
        if row.costs is None or base.costs is None:
            continue
        if cost == "time":
            ax.plot(
                [row.costs.time_low, row.costs.time_high], [level] * 2, color=colour, linewidth=1
            )
            value = row.costs.time
        else:
            value = getattr(row.costs, cost) / getattr(base.costs, cost)
        ax.scatter([value], [level], s=20, color=colour, linewidth=0)
