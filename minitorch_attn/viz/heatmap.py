"""A table of numbers as colours, with its scale beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine.optional import require
from .style import no_ticks

GAP = "#DDDDDD"  # no value: a gap between maps, or NaN


def heat_map(
    ax: Any,
    table: np.ndarray,
    *,
    label: str = "",
    bar: bool = True,
    numbers: bool = True,
    **colours: Any,
) -> Any:
    """Draw a table (rows, columns) as colours, with a colour bar, and numbers if there are few.

    Parameters
    ----------
    ax : Axes
    table : ndarray
        NaN is drawn as a grey gap.
    label : str
        What the colours measure, written at the bar.
    bar, numbers : bool
        Whether to draw the bar, and to write the numbers if the table is small.
    **colours
        `cmap`, `vmin`, `vmax`.

    Returns
    -------
    AxesImage
    """
    rows, columns = table.shape
    squarish = 0.25 <= rows / max(columns, 1) <= 4
    cmap = require("matplotlib", extra="course", purpose="draw a heat map").colormaps[
        colours.pop("cmap")
    ]
    image = ax.imshow(
        table, cmap=cmap.with_extremes(bad=GAP), aspect="equal" if squarish else "auto", **colours
    )
    no_ticks(ax, frame=True)
    if bar:
        colour_bar(ax, image, label)
    if numbers and rows <= 6 and columns <= 6:
        write_numbers(ax, table, image)
    return image


def colour_bar(ax: Any, image: Any, label: str = "") -> Any:
    """The scale of a heat map, beside it; `ax` may be several axes that share the scale."""
    figure = (ax if hasattr(ax, "figure") else np.ravel(ax)[0]).figure
    bar = figure.colorbar(image, ax=ax, shrink=0.9, aspect=18, label=label or None)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9)
    bar.ax.locator_params(nbins=5)
    return bar


def write_numbers(ax: Any, table: np.ndarray, image: Any) -> None:
    """Write each number into its cell, dark on light cells and light on dark ones.

    Two digits of each, but none that is beyond the third of the largest.
    """
    largest = np.nanmax(np.abs(table), initial=0.0)
    decimals = 2 - int(np.floor(np.log10(largest))) if largest else 0
    rounded = np.round(table, decimals) + 0.0  # + 0.0 makes -0 a 0
    texts = ["" if np.isnan(value) else f"{value:.2g}" for value in rounded.flat]
    for (row, column), value, text in zip(np.ndindex(table.shape), table.flat, texts):
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        ax.text(
            column,
            row,
            text,
            size=9,
            color="white" if dark else "black",
            ha="center",
            va="center",
        )


def drop_numbers_too_wide(figure: Any) -> None:
    """Take the numbers out of each map in which one of them is wider than its cell."""
    figure.draw_without_rendering()  # only now the cells have their sizes
    for ax in figure.axes:
        (left, _), (right, _) = ax.transData.transform([(0, 0), (1, 0)])
        if any(text.get_window_extent().width > 0.98 * (right - left) for text in ax.texts):
            for text in list(ax.texts):
                text.remove()
