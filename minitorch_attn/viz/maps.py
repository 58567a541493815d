"""Images, what a network makes of them, and where it looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .heatmap import colour_bar
from .style import (
    BLUE,
    MAGNITUDE,
    SIGNED,
    VERMILION,
    WIDTH,
    new_figure,
    no_ticks,
    signed_range,
    styled,
    to_array,
)

LARGEST = 2.6  # inches: width of a picture when there are few
OVERLAY = 0.6  # how much of the attention's colour covers the image
LIFT = 0.4  # the grey that black becomes under it, so that colours show on dark images too


@styled
def show_images(
    images: Any,
    titles: Sequence[Any] | None = None,
    *,
    wrong: Sequence[bool] | None = None,
    columns: int = 8,
    value_range: tuple[float, float] | None = None,
) -> Any:
    """Draw images in a grid.

    Parameters
    ----------
    images : array_like or Tensor
        (N, H, W) or (N, 1, H, W) in grey, or (N, 3, H, W) in colour.
    titles : sequence, optional
        What to write over each image, such as its label.
    wrong : sequence of bool, optional
        Images to frame in red and mark with a cross in their title: mistakes of a classifier.
    columns : int
        Images in a row.
    value_range : (float, float), optional
        What is drawn black and white; by default the least and largest of all the values.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If the shape is not one of these, or the titles are not as many as the images.
    """
    pictures = as_pictures(images, value_range)
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} images: give one for each")
    figure, axes = _grid(len(pictures), columns, pictures.shape[1] / pictures.shape[2])
    for i, (ax, picture) in enumerate(zip(axes, pictures)):
        draw_picture(ax, picture)
        is_wrong = wrong is not None and bool(wrong[i])
        if titles is not None:
            ax.set_title(
                f"{titles[i]}{' ✗' if is_wrong else ''}", color=VERMILION if is_wrong else "black"
            )
        if is_wrong:
            no_ticks(ax, frame=True)
            for spine in ax.spines.values():
                spine.set(color=VERMILION, linewidth=2.5)
    return figure


@styled
def show_feature_maps(
    maps: Any,
    titles: Sequence[Any] | None = None,
    *,
    columns: int = 8,
    signed: bool | None = None,
    label: str = "",
) -> Any:
    """Draw the channels of a feature map, all in the same colours.

    Parameters
    ----------
    maps : array_like or Tensor
        (C, H, W), or (1, C, H, W).
    titles : sequence, optional
        One for each channel; by default its number.
    columns : int
        Maps in a row.
    signed : bool, optional
        Colours that tell the signs apart, with white at 0; by default if there are both signs.
    label : str
        What the values are, written at the colour bar.

    Returns
    -------
    Figure
    """
    maps = to_array(maps)
    maps = maps[0] if maps.ndim == 4 and len(maps) == 1 else maps
    if maps.ndim != 3 or maps.size == 0:
        raise ValueError(f"feature maps of shape {maps.shape}: needs (C, H, W), of one image")
    if signed is None:
        signed = bool((maps < 0).any() and (maps > 0).any())
    limit = signed_range(maps)
    colours = (
        {"cmap": SIGNED, "vmin": -limit, "vmax": limit}
        if signed
        else {"cmap": MAGNITUDE, "vmin": maps.min(), "vmax": maps.max()}
    )
    figure, axes = _grid(len(maps), columns, maps.shape[1] / maps.shape[2], bar=True)
    for i, (ax, channel) in enumerate(zip(axes, maps)):
        image = ax.imshow(channel, **colours)
        ax.set_title(titles[i] if titles is not None else i)
        no_ticks(ax, frame=True)
    colour_bar(axes, image, label)
    return figure


@styled
def show_attention(
    image: Any,
    attention: Any,
    titles: Sequence[Any] | None = None,
    *,
    value_range: tuple[float, float] | None = None,
    label: str = "attention",
) -> Any:
    """Draw attention maps over the image they belong to, beside the image itself.

    A map of lower resolution is stretched over the whole image; its cells are interpolated for
    the eye only.

    Parameters
    ----------
    image : array_like or Tensor
        (H, W), (1, H, W) or (3, H, W).
    attention : array_like or Tensor
        (h, w), or (K, h, w) for K maps, such as heads or steps.
    titles : sequence of str, optional
        One for each map.
    value_range : (float, float), optional
        Ends of the colours; by default 0 and the largest value, and all maps share them.
    label : str
        What the values are, written at the colour bar.

    Returns
    -------
    Figure
    """
    picture = as_pictures(to_array(image)[None], None)[0]
    maps = to_array(attention)
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.ndim != 3:
        raise ValueError(
            f"attention of shape {to_array(attention).shape}: needs (h, w) or (K, h, w)"
        )
    low, high = value_range or (min(0.0, float(maps.min())), float(maps.max()))
    slope = picture.shape[0] / picture.shape[1]
    figure, axes = _grid(1 + len(maps), min(5, 1 + len(maps)), slope, bar=True)
    draw_picture(axes[0], picture)
    axes[0].set_title("image")
    for i, (ax, one) in enumerate(zip(axes[1:], maps)):
        overlay = draw_overlay(ax, picture, one, low, high)
        ax.set_title(titles[i] if titles is not None else label if len(maps) == 1 else i)
    colour_bar(axes, overlay, label)
    return figure


def draw_overlay(
    ax: Any, picture: np.ndarray, attention: np.ndarray, low: float, high: float
) -> Any:
    """Draw a picture (H, W) or (H, W, 3) in grey and an attention map (h, w) over it."""
    height, width = picture.shape[:2]
    grey = picture @ np.array([0.299, 0.587, 0.114]) if picture.ndim == 3 else picture
    draw_picture(ax, LIFT + (1 - LIFT) * grey)
    return ax.imshow(
        attention,
        cmap=MAGNITUDE,
        vmin=low,
        vmax=high,
        alpha=OVERLAY,
        interpolation="bilinear",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )


@styled
def show_channel_weights(
    weights: Any,
    rows: Sequence[Any] | None = None,
    *,
    value_range: tuple[float, float] | None = None,
    label: str = "weight",
    ax: Any = None,
) -> Any:
    """Draw the weights that an attention module gives to the channels.

    Parameters
    ----------
    weights : array_like or Tensor
        (C,) is drawn as bars; (K, C), such as the mean weights of K classes, as a heat map of
        rows and channels.
    rows : sequence, optional
        Names of the K rows; by default their numbers.
    value_range : (float, float), optional
        Ends of the scale; by default 0 to the largest for bars, the range of the values for a map.
    label : str
        What the values are.
    ax : Axes, optional
        Where to draw; otherwise a figure is made and returned.

    Returns
    -------
    Figure or None
    """
    weights = to_array(weights)
    if weights.ndim not in (1, 2):
        raise ValueError(f"channel weights of shape {weights.shape}: needs (C,) or (K, C)")
    figure = None
    if ax is None:
        figure = new_figure(WIDTH, 2.4 if weights.ndim == 1 else 1.2 + 0.28 * len(weights))
        ax = figure.subplots()
    if weights.ndim == 1:
        ax.bar(np.arange(len(weights)), weights, color=BLUE, width=0.8)
        ax.set(ylabel=label, xlim=(-0.6, len(weights) - 0.4))
        ax.grid(axis="y")
        if value_range:
            ax.set_ylim(*value_range)
    else:
        low, high = value_range or (float(weights.min()), float(weights.max()))
        table = ax.imshow(weights, aspect="auto", cmap=MAGNITUDE, vmin=low, vmax=high)
        colour_bar(ax, table, label)
        ax.set_yticks(range(len(weights)), labels=list(rows) if rows is not None else None)
        ax.tick_params(length=0)
    ax.set_xlabel("channel")
    ax.locator_params(axis="x", integer=True)
    return figure


def as_pictures(images: Any, value_range: tuple[float, float] | None) -> np.ndarray:
    """Images as matplotlib draws them: (N, H, W) or (N, H, W, 3), with values from 0 to 1."""
    array = to_array(images)
    if array.ndim == 4 and array.shape[1] == 3:
        array = array.transpose(0, 2, 3, 1)
    elif array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim != 3:
        raise ValueError(
            f"images of shape {array.shape}: needs (N, H, W), (N, 1, H, W) or (N, 3, H, W); "
            "one image is images[None]"
        )
    if array.size == 0:
        raise ValueError(f"images of shape {array.shape}: there is nothing to draw")
    low, high = value_range or (float(array.min()), float(array.max()))
    return np.clip((array - low) / ((high - low) or 1.0), 0.0, 1.0)


def draw_picture(ax: Any, picture: np.ndarray) -> None:
    """Draw a picture (H, W) or (H, W, 3) with values from 0 to 1, and nothing around it."""
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    no_ticks(ax)


def _grid(count: int, columns: int, slope: float, bar: bool = False) -> tuple[Any, list[Any]]:
    """A figure with one axes for each of `count` titled pictures of height / width `slope`.

    The size follows from the numbers alone; `bar` leaves room for a colour bar.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    side = min(LARGEST, (WIDTH - 0.9 * bar) / columns)
    figure = new_figure(
        round(columns * side + 0.9 * bar, 1), round(rows * (side * slope + 0.3) + 0.1, 1)
    )
    figure.set_layout_engine("compressed")  # pictures stay together and keep their proportions
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, axes[:count]
