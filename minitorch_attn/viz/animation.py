"""Pictures that move: one quantity drawn at several moments, such as after each epoch."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.optional import require
from .maps import as_pictures, draw_picture
from .style import ORANGE, WIDTH, new_figure, no_ticks, styled, to_array

MARGIN = 0.2  # of the image: how far around it places outside are shown
OUTSIDE = "#DDDDDD"
HOLD = 4  # times as long as the others the last frame stays


class Animation:
    """Pictures of one size, shown in turn, again and again.

    A notebook stores it as an animated PNG. That moves wherever a PNG is shown, needs neither
    JavaScript nor trust in the notebook, and where nothing can move the last picture stands.

    Parameters
    ----------
    frames : (T, H, W, 3) array of uint8
        The pictures, in colour.
    seconds : float
        How long each of them is shown; the last one four times as long.

    Attributes
    ----------
    frames, seconds
        As given.

    Raises
    ------
    ValueError
        If the frames are not of this shape and dtype, or there are none, or no time for each.
    """

    def __init__(self, frames: np.ndarray, seconds: float = 0.4):
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise ValueError(
                f"Animation: frames must be (T, H, W, 3) in uint8, not {frames.shape} in "
                f"{frames.dtype}"
            )
        if not 0.001 <= seconds <= 60:
            raise ValueError(f"Animation: seconds must be from 0.001 to 60, not {seconds}")
        self.frames = frames
        self.seconds = seconds

    def save(self, path: str | os.PathLike) -> None:
        """Write it to a file, as an animated GIF or PNG by the name's suffix."""
        suffix = Path(path).suffix.lower()
        if suffix not in (".gif", ".png"):
            raise ValueError(f"an animation is saved as .gif or .png, not as {os.fspath(path)!r}")
        Path(path).write_bytes(self._encoded(suffix[1:]))

    def _encoded(self, form: str) -> bytes:
        pillow = require("PIL.Image", extra="course", purpose="store an animation")
        pictures = [pillow.fromarray(frame) for frame in self.frames]
        milliseconds = round(1000 * self.seconds)
        settings = {
            "duration": [milliseconds] * (len(pictures) - 1) + [HOLD * milliseconds],
            "loop": 0,  # for ever
        }
        if form == "png":  # before the frames, what is shown where nothing moves
            pictures.insert(0, pictures[-1])
            settings["default_image"] = True
        file = io.BytesIO()
        pictures[0].save(file, form, save_all=True, append_images=pictures[1:], **settings)
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return self._encoded("png")

    def __repr__(self) -> str:
        T, H, W, _ = self.frames.shape
        return f"Animation({T} frames of {H}x{W})"


@styled
def animate_sampling(
    images: Any,
    grids: Any,
    views: Any,
    titles: Sequence[Any] | None = None,
    *,
    align_corners: bool = False,
    seconds: float = 0.4,
) -> Animation:
    """Show where images are read, and what is read there, moment by moment.

    Above stand the images, always the same, each with the outline of the grid it is read by; a
    ring marks the place that is read for the upper left pixel. Below is what is read.

    Parameters
    ----------
    images : array_like or Tensor
        (N, H, W) or (N, 1, H, W) in grey, or (N, 3, H, W) in colour.
    grids : array_like or Tensor
        (T, N, P, Q, 2): at T moments the places (x, y) from -1 to 1, as `functional.grid_sample`
        takes them.
    views : array_like or Tensor
        (T, N, P, Q) or (T, N, C, P, Q): what was read there.
    titles : sequence, optional
        One for each moment, such as its epoch; by default its number.
    align_corners : bool
        As `grid_sample` was told.
    seconds : float
        How long a moment is shown.

    Returns
    -------
    Animation

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or nothing is to be shown, or the titles are not as
        many as the moments.
    """
    pillow = require("PIL.Image", extra="course", purpose="draw an animation")
    images, grids, views = to_array(images), to_array(grids), to_array(views)
    _check(images, grids, views, titles)
    T, N = grids.shape[:2]
    value_range = min(0.0, float(images.min())), float(images.max())
    pictures = as_pictures(images, value_range)
    read = as_pictures(views.reshape(T * N, *views.shape[2:]), value_range)
    read = read.reshape(T, N, *read.shape[1:])
    outlines = _outlines(grids, pictures.shape[1:3], align_corners)

    side = WIDTH / max(N, 4)
    figure = new_figure(N * side, 2 * side + 0.5)
    axes = figure.subplots(2, N, squeeze=False)
    curves, shown = [], []
    for above, below, picture, first in zip(*axes, pictures, read[0]):
        draw_picture(above, picture)
        H, W = picture.shape[:2]
        y, x = MARGIN * H, MARGIN * W
        above.set(xlim=(-0.5 - x, W - 0.5 + x), ylim=(H - 0.5 + y, -0.5 - y), facecolor=OUTSIDE)
        curves.append(above.plot([], [], color=ORANGE, marker="o", markevery=[0], fillstyle="none"))
        shown.append(below.imshow(first, cmap="gray", vmin=0, vmax=1))
        no_ticks(below)
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel("read")

    frames = []
    for t in range(T):
        for (curve,), outline in zip(curves, outlines[t]):
            curve.set_data(*outline.T)
        for image, view in zip(shown, read[t]):
            image.set_data(view)
        figure.suptitle(str(titles[t] if titles is not None else t))
        drawn = pillow.open(io.BytesIO(figure._repr_png_()))
        frames.append(np.asarray(drawn.convert("RGB")))
        figure.set_layout_engine("none")  # all stays where it was in the first frame
    return Animation(np.stack(frames), seconds)


def _outlines(grids: np.ndarray, sizes: tuple[int, ...], align_corners: bool) -> np.ndarray:
    """Places along the edge of each grid, closed: (T, N, points, 2), in pixels (column, row)."""
    around = np.concatenate(
        [
            grids[:, :, 0, :-1],
            grids[:, :, :-1, -1],
            grids[:, :, -1, :0:-1],
            grids[:, :, ::-1, 0],
        ],
        axis=2,
    )
    size = np.array(sizes[::-1])
    slope = (size - 1) / 2 if align_corners else size / 2
    return around * slope + (size - 1) / 2


def _check(
    images: np.ndarray, grids: np.ndarray, views: np.ndarray, titles: Sequence[Any] | None
) -> None:
    fits = (
        grids.ndim == 5
        and grids.shape[4] == 2
        and grids.shape[1] == len(images)
        and views.ndim in (4, 5)
        and (*views.shape[:2], *views.shape[-2:]) == grids.shape[:4]
        and grids.size > 0
    )
    if not fits:
        raise ValueError(
            "animate_sampling: images (N, H, W) need grids (T, N, P, Q, 2) and views (T, N, P, Q) "
            f"or (T, N, C, P, Q), got {images.shape}, {grids.shape} and {views.shape}"
        )
    if titles is not None and len(titles) != len(grids):
        raise ValueError(f"{len(titles)} titles for {len(grids)} moments: give one for each")
