"""One look for all pictures: colours that everyone can tell apart, text that can be read.

Every drawing function works in this style by itself and leaves matplotlib's settings alone.
A function that makes a figure returns it, and a notebook shows it once; a function that is given
`ax=` draws there and returns nothing, as the figure is its owner's to show.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..engine import Tensor
from ..engine.optional import require

# Okabe and Ito (2008), "Color universal design", without their yellow: it vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLOURS
GREY = "#666666"
MAGNITUDE = "viridis"  # grows evenly in lightness: also right in grey print
SIGNED = "RdBu_r"  # white at zero, blue below, red above

WIDTH = 8.0  # inches: the text width of a notebook at 100 dots per inch

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "lines.linewidth": 2,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "image.interpolation": "nearest",
}

Draw = TypeVar("Draw", bound=Callable)


def styled(draw: Draw) -> Draw:
    """Run a drawing function in the project's style, whatever matplotlib is set to outside."""

    @functools.wraps(draw)
    def in_style(*args: Any, **settings: Any) -> Any:
        with use_style():
            return draw(*args, **settings)

    return in_style  # type: ignore[return-value]


def use_style() -> Any:
    """Context in which matplotlib draws in this style: `with use_style(): ...`."""
    matplotlib_style = require("matplotlib.style", extra="course", purpose="draw a picture")
    return matplotlib_style.context(STYLE, after_reset=True)


@styled
def new_figure(width: float = WIDTH, height: float = 4.0) -> Any:
    """An empty figure of a size in inches, its parts kept from overlapping."""
    from .figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


@styled
def panels(rows: int = 1, columns: int = 1, *, width: float = WIDTH, height: float = 4.0) -> Any:
    """A figure and its grid of axes, to hand to functions that take `ax=`.

    Parameters
    ----------
    rows, columns : int
        Size of the grid.
    width, height : float
        Size of the figure in inches.

    Returns
    -------
    figure : Figure
        End the cell with it to show it.
    axes : ndarray of Axes
        Of shape (rows, columns); without the axes of length 1, and a single Axes is itself.
    """
    figure = new_figure(width, height)
    return figure, figure.subplots(rows, columns)


def to_array(values: Any) -> np.ndarray:
    """Tensors, arrays or lists of them as one NumPy array."""
    if isinstance(values, Tensor):
        return values.numpy()
    if isinstance(values, (list, tuple)):
        return np.stack([to_array(v) for v in values])
    return np.asarray(values)


def signed_range(*arrays: np.ndarray) -> float:
    """The largest finite magnitude, so that a signed map can have 0 in the middle."""
    values = np.concatenate([np.abs(a[np.isfinite(a)]).ravel() for a in arrays])
    return float(values.max(initial=0.0)) or 1.0


def no_ticks(ax: Any, frame: bool = False) -> None:
    """Take the ticks off an axes that shows a picture, and its frame unless asked to keep it."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(frame)
        spine.set_linewidth(0.8)
