"""A gradient check as a picture: the rule's gradient, the measured one, and their difference."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from ..engine.gradcheck import GradcheckReport, InputReport
from .heatmap import colour_bar, drop_numbers_too_wide, heat_map
from .style import MAGNITUDE, SIGNED, VERMILION, WIDTH, new_figure, no_ticks, signed_range, styled


@styled
def draw_gradcheck(report: GradcheckReport) -> Any:
    """Draw a gradient check: one row for each input, three heat maps in it.

    The first two, the gradient under test and the measured one, share their colours: white is 0.
    The colours of the error reach at least up to a thousandth of the measured gradient, so that a
    right gradient gives an even dark field and rounding is not blown up. A grey cell with a cross
    is an element on a kink, which is not compared. Kernels (C_out, C_in, R, S) are laid out as a
    table of C_out x C_in small maps.

    Parameters
    ----------
    report : GradcheckReport
        What `gradcheck` or `check_vjp` returned; of a failed check it is `error.report`, or what
        is returned with `raise_on_failure=False`.

    Returns
    -------
    Figure
    """
    rows = len(report.inputs)
    figure = new_figure(WIDTH, 0.3 + sum(_row_height(i) for i in report.inputs))
    verdict = "passed" if report.ok else "FAILED"
    figure.suptitle(f"gradcheck of {report.function}: {verdict}", fontsize=12)
    heights = [_row_height(i) for i in report.inputs]
    for row, compared in zip(
        figure.subfigures(rows, 1, squeeze=False, height_ratios=heights), report.inputs
    ):
        _draw_input(row[0], compared)
    drop_numbers_too_wide(figure)
    return figure


def as_table(array: np.ndarray) -> np.ndarray:
    """An array of any number of axes as one table to be drawn as a heat map.

    A vector is a row; of three axes the maps stand side by side; of four or more the axes before
    the last two are the rows and columns of a table of maps. A line of NaN, which is drawn as a
    gap, parts the maps.
    """
    array = np.atleast_2d(array)
    if array.ndim == 2:
        return array
    *outer, height, width = array.shape
    columns = outer[-1]
    maps = array.reshape(-1, columns, height, width)
    table = np.full((len(maps), height + 1, columns, width + 1), np.nan)
    table[:, :height, :, :width] = maps.transpose(0, 2, 1, 3)
    return table.reshape(len(maps) * (height + 1), columns * (width + 1))[:-1, :-1]


def _row_height(compared: InputReport) -> float:
    tables = as_table(compared.analytic), as_table(compared.numeric)
    slope = max(len(table) / max(table.shape[1], 1) for table in tables)
    map_height = float(np.clip(0.75 * WIDTH / 3 * slope, 0.5, 1.8))
    return round(0.75 + 0.2 * len(_remarks(compared)) + map_height, 1)


def _draw_input(figure: Any, compared: InputReport) -> None:
    left, middle, right = figure.subplots(1, 3)
    heading = f"{compared.name} {compared.numeric.shape}: {'ok' if compared.ok else 'WRONG'}"
    figure.suptitle(
        "\n".join([heading, *_remarks(compared)]),
        fontsize=11,
        color="black" if compared.ok else VERMILION,
    )
    limit = signed_range(compared.analytic, compared.numeric)
    signed: dict[str, Any] = {"cmap": SIGNED, "vmin": -limit, "vmax": limit, "bar": False}
    left.set_title("by the rule")
    middle.set_title("measured")
    if compared.analytic.shape != compared.numeric.shape:
        heat_map(left, as_table(compared.analytic), **signed)
        left.set_title(f"by the rule {compared.analytic.shape}")
        colour_bar([left, middle], heat_map(middle, as_table(compared.numeric), **signed))
        right.text(0.5, 0.5, "shapes differ", ha="center", va="center", transform=right.transAxes)
        no_ticks(right)
        return
    compare = ~compared.on_kink
    heat_map(left, as_table(np.where(compare, compared.analytic, np.nan)), **signed)
    shown = heat_map(middle, as_table(np.where(compare, compared.numeric, np.nan)), **signed)
    colour_bar([left, middle], shown)
    right.set_title(f"error, at most {compared.max_error:.1g}")
    floor = 1e-3 * (np.abs(compared.numeric).max(initial=0.0) or 1.0)
    heat_map(
        right,
        as_table(np.where(compare, compared.error, np.nan)),
        cmap=MAGNITUDE,
        vmin=0,
        vmax=max(np.nan_to_num(compared.max_error), floor),
        numbers=False,
    )
    y, x = np.nonzero(as_table(compared.on_kink.astype(float)) == 1)
    for ax in (left, middle, right) if len(x) else ():
        ax.scatter(x, y, marker="x", color="black", s=36, linewidth=1.5)


def _remarks(compared: InputReport) -> list[str]:
    remarks = [compared.diagnosis] if compared.diagnosis else []
    if compared.on_kink.any():
        remarks.append(f"x: on a kink, not compared ({int(compared.on_kink.sum())})")
    if compared.warning:
        remarks.append(f"warning: {compared.warning}")
    return [line for remark in remarks for line in textwrap.wrap(remark, 95)]
