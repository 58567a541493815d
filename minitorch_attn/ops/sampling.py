"""Sampling: images read at places that a grid names, each between pixels.

What is read at a place is a weighted sum of the pixels around it, one along each axis for
"nearest", two for "bilinear", four for "bicubic":

    y = sum over k of w_k x_k

so the gradient of a pixel is w_k dy, added up over all places that read it, and the gradient of a
weight is x_k dy, which goes on to the place because the weights depend on it. A weight is a
product of one for each axis of space.

All neighbours of a place lie at fixed distances from the first of them, once the images have a
border wide enough: so one index per place finds them all.

On a GPU kernels do the same with a thread for each place (`sampling.cu`). Many places may read one
pixel, whose gradient the threads then add up in whatever order they come: from run to run its last
digits may differ.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..engine import ShapeError, array_module, primitive
from ..engine.backend import Array, on_gpu
from ..engine.kernels import FLOATS, Kernel
from .arguments import integers
from .interpolation import cubic, cubic_slopes, linear
from .windows import AXES, blocks, inside, pad, symmetric

__all__ = ["affine_grid", "grid_sample"]

NEIGHBOURS = {"nearest": 1, "bilinear": 2, "bicubic": 4}  # along one axis
PADDING_MODES = ("zeros", "border", "reflection")

SOURCE = Path(__file__).with_name("sampling.cu")
VARIANTS = [{"T": t, "DIMS": 2, "NEIGHBOURS": 2} for t in FLOATS]
VARIANTS += [
    {"T": "float", "DIMS": dims, "NEIGHBOURS": count}
    for dims, count in ((2, 1), (2, 4), (3, 1), (3, 2))
]
READ = Kernel("read_places", SOURCE, VARIANTS)
READ_BACKWARD_INPUT = Kernel("read_places_backward_input", SOURCE, VARIANTS)
READ_BACKWARD_GRID = Kernel("read_places_backward_grid", SOURCE, VARIANTS)
SHARE = 16  # channels that one thread reads at its place


class Axis(NamedTuple):
    """The neighbours of each place along one axis of space.

    Attributes
    ----------
    first : (N, P)
        Index of the first neighbour in the images with their border.
    weights : one (N, P) for each neighbour
    slopes : callable
        Gives the derivatives of the weights with respect to the grid.
    """

    first: Array
    weights: tuple[Array, ...]
    slopes: Callable[[], tuple[Array, ...]]


@primitive(floats="all")
def affine_grid(theta, *, size, align_corners=False):
    r"""The grid that reads an image under an affine map.

    .. math:: \begin{pmatrix} x \\ y \end{pmatrix} =
              \theta_n \begin{pmatrix} x^t_q \\ y^t_p \\ 1 \end{pmatrix}

    for the pixel of the result in row p and column q. Its own coordinates run from -1 to 1: with
    `align_corners` from the centre of the first pixel to that of the last,
    :math:`x^t_q = 2q / (Q - 1) - 1`, else from edge to edge, :math:`x^t_q = (2q + 1) / Q - 1`.

    Source: Jaderberg et al., Spatial Transformer Networks (2015), equation 1.

    Parameters
    ----------
    theta : (N, 2, 3) or (N, 3, 4)
        An affine map for each image or volume. The identity is [[1, 0, 0], [0, 1, 0]].
    size : ints
        Shape of the images to be read: (N, C, P, Q) or (N, C, O, P, Q).
    align_corners : bool
        As `grid_sample` will be told.

    Returns
    -------
    (N, P, Q, 2) or (N, O, P, Q, 3)
        Coordinates (x, y) or (x, y, z), for `grid_sample`.

    Raises
    ------
    ShapeError
        If `theta` is not as many maps, of as many dimensions, as `size` asks for.
    """
    size = integers("affine_grid", "size", size)
    dims = len(size) - 2
    if dims not in (2, 3) or theta.shape != (size[0], dims, dims + 1):
        fitting = f"({size[0]}, {dims}, {dims + 1})" if dims in (2, 3) else "(N, 2, 3)"
        raise ShapeError(
            f"affine_grid: size must be (N, C, P, Q) or (N, C, O, P, Q), and theta for "
            f"size={size} be {fitting}, not {theta.shape}"
        )
    if min(size) < 1:
        raise ShapeError(f"affine_grid: size={size} has no pixels: each must be at least 1")
    xp = array_module(theta)
    pixels = _pixel_coordinates(xp, size[2:], align_corners).astype(theta.dtype)  # (P, D+1)

    def vjp_theta(dy):
        return dy.reshape(len(dy), math.prod(size[2:]), dims).swapaxes(1, 2) @ pixels

    return (pixels @ theta.swapaxes(1, 2)).reshape(size[0], *size[2:], dims), vjp_theta


def _pixel_coordinates(xp: ModuleType, sizes: tuple[int, ...], align_corners: bool) -> Array:
    """Coordinates (x, y, 1) of all pixels of an image, row by row: (P Q, 3)."""
    along = []
    for size in sizes:
        centres = 2 * xp.arange(size) - (size - 1)  # even steps around the middle
        along.append(centres / max(size - 1, 1) if align_corners else centres / size)
    axes = xp.meshgrid(*along, indexing="ij")
    return xp.stack([axis.ravel() for axis in (*axes[::-1], xp.ones(sizes))], axis=1)


@primitive(floats="all", takes_half=True)
def grid_sample(input, grid, *, mode="bilinear", padding_mode="zeros", align_corners=False):
    r"""Images read at the places that a grid names.

    A place (x, y) is given in coordinates that run from -1 to 1 over the image. In pixels it is

    .. math::
        w = \frac{(x + 1)\, W - 1}{2} \qquad\text{or, with align_corners,}\qquad
        w = \frac{(x + 1)(W - 1)}{2}

    so that -1 is the outer edge of the first pixel, or its centre; and so for h. What is read is

    .. math:: y_{n,c,p,q} = \sum_{i,j} k(h_{n,p,q} - i)\, k(w_{n,p,q} - j)\; x_{n,c,i,j}

    with the kernel of linear interpolation, :math:`k(d) = \max(0, 1 - |d|)`, or the cubic one,
    which `interpolate` states; "nearest" reads the pixel at the rounded place. The gradients are

    .. math::
        dx_{n,c,i,j} = \sum_{p,q} k(h - i)\, k(w - j)\, dy_{n,c,p,q} \qquad
        dw_{n,p,q} = \sum_{c,i,j} k(h - i)\, k'(w - j)\, x_{n,c,i,j}\, dy_{n,c,p,q}

    and that of the grid's x is dw times W / 2, or (W - 1) / 2. "nearest" gives the grid none. A GPU
    sums dx in whatever order its threads come: the last digits may differ from run to run.

    Source: Jaderberg et al., Spatial Transformer Networks (2015), equations 5 to 7; for "bicubic"
    Keys, Cubic convolution interpolation for digital image processing (1981).

    Parameters
    ----------
    input : (N, C, H, W) or (N, C, D, H, W)
        Images or volumes.
    grid : (N, P, Q, 2) or (N, O, P, Q, 3)
        A place (x, y) or (x, y, z) for each pixel of the result; x goes along the last axis.
    mode : "bilinear", "nearest" or "bicubic"
        "bilinear" is trilinear for volumes; "bicubic" is for images alone.
    padding_mode : "zeros", "border" or "reflection"
        What lies outside: zeros; the pixels of the edge, on and on; or the image mirrored at its
        edge (at the centres of the outermost pixels with `align_corners`), again and again. Where
        a place is moved to the edge, "bilinear" gives the grid no gradient.
    align_corners : bool
        Whether -1 and 1 are the centres of the outermost pixels, or their outer edges.

    Returns
    -------
    (N, C, P, Q) or (N, C, O, P, Q)
        A place within rounding of a pixel is that pixel: `affine_grid` of the identity, with the
        size of the input, gives the input back bit for bit, in float32 and float64.
        Where a coordinate is NaN, "nearest" and "bilinear" read as at -1 if `padding_mode` is
        "border" or "reflection". Else the result is NaN, but 0 with "nearest".

    Raises
    ------
    ShapeError
        If the shapes do not fit each other, or the images have no pixels.
    ValueError
        If a mode is not one of these.
    """
    _check(input, grid, mode, padding_mode)
    if on_gpu(input):
        return _grid_sample_on_gpu(input, grid, mode, padding_mode, align_corners)
    xp = array_module(input)
    N, C, *sizes = input.shape
    P = math.prod(grid.shape[1:-1])
    axes = [
        _neighbours(grid[..., ~d].reshape(N, P), size, mode, padding_mode, align_corners)
        for d, size in enumerate(sizes)
    ]
    bordered, without_border = _add_border(input, mode, padding_mode, align_corners)
    pixels, border_shape, grid_shape = bordered.reshape(-1), bordered.shape, grid.shape

    # Indices into `pixels`, row-major: that of the first neighbour of each place in channel 0,
    # and how far beyond it the channels and the other neighbours lie.
    first = xp.arange(N)[:, None] * C
    for axis, size in zip(axes, border_shape[2:]):
        first = first * size + axis.first
    channels = xp.arange(C)[:, None] * math.prod(border_shape[2:])
    away = [
        int(np.ravel_multi_index(k, border_shape[2:]))
        for k in itertools.product(range(NEIGHBOURS[mode]), repeat=len(sizes))
    ]
    weights = _combine([axis.weights for axis in axes])  # (N, P) for each neighbour

    y = xp.empty((N, C, P), dtype=xp.result_type(input, grid))
    parts = list(blocks(N, len(away) * C * P * input.itemsize))
    neighbours = []  # of each block of images: (n, C, P) for each neighbour
    for part in parts:
        index = first[part, None] + channels
        neighbours.append([pixels[k:].take(index) for k in away])
        y[part] = _sum(x * w[part, None] for x, w in zip(neighbours[-1], weights))

    def vjp_input(dy):
        dy = dy.reshape(N, C, P)
        dbordered = xp.zeros(border_shape, dtype=dy.dtype)
        dpixels = dbordered.reshape(-1)
        for part in parts:
            index = (first[part, None] + channels).reshape(-1)
            for k, w in zip(away, weights):
                xp.add.at(dpixels[k:], index, (w[part, None] * dy[part]).reshape(-1))
        return without_border(dbordered)

    def vjp_grid(dy):
        if mode == "nearest":
            return xp.zeros(grid_shape, dtype=dy.dtype)
        dy = dy.reshape(N, C, P)
        dweights = xp.empty((len(away), N, P), dtype=dy.dtype)
        for part, xs in zip(parts, neighbours):
            for dw, x in zip(dweights, xs):
                dw[part] = xp.einsum("ncp,ncp->np", x, dy[part])
        dgrid = xp.empty((N, P, len(axes)), dtype=dy.dtype)
        for d, axis in enumerate(axes):
            slopes = _combine([axis.slopes() if a is axis else a.weights for a in axes])
            dgrid[..., ~d] = _sum(dw * slope for dw, slope in zip(dweights, slopes))
        return dgrid.reshape(grid_shape)

    return y.reshape(N, C, *grid_shape[1:-1]), (vjp_input, vjp_grid)


def _grid_sample_on_gpu(
    input: Array, grid: Array, mode: str, padding_mode: str, align_corners: bool
) -> tuple[Array, tuple[Callable, Callable]]:
    """As `grid_sample`, by kernels."""
    xp, dtype = array_module(input), np.result_type(input.dtype, grid.dtype)
    x, grid = (xp.ascontiguousarray(a, dtype=dtype) for a in (input, grid))
    N, C, *size = x.shape
    P = math.prod(grid.shape[1:-1])
    images = (C, *(1,) * (3 - len(size)), *size, PADDING_MODES.index(padding_mode), align_corners)
    constants = {"T": dtype, "DIMS": len(size), "NEIGHBOURS": NEIGHBOURS[mode]}
    threads = N * -(-C // SHARE) * P
    shape, grid_shape = x.shape, grid.shape

    y = xp.empty((N, C, *grid_shape[1:-1]), dtype)
    READ.over(threads, x, grid, y, threads, P, SHARE, *images, **constants)

    def vjp_input(dy):
        dx = xp.zeros(shape, np.promote_types(dtype, np.float32))
        dy = xp.ascontiguousarray(dy)
        READ_BACKWARD_INPUT.over(threads, dy, grid, dx, threads, P, SHARE, *images, **constants)
        return dx.astype(dtype, copy=False)

    def vjp_grid(dy):
        if mode == "nearest":
            return xp.zeros(grid_shape, dtype)
        dgrid, dy = xp.empty(grid_shape, dtype), xp.ascontiguousarray(dy)
        READ_BACKWARD_GRID.over(N * P, x, grid, dy, dgrid, N * P, P, *images, **constants)
        return dgrid

    return y, (vjp_input, vjp_grid)


def _combine(along_axes: list[tuple[Array, ...]]) -> list[Array]:
    """The products of one factor for each axis of space, in the order of the neighbours."""
    return [functools.reduce(operator.mul, factors) for factors in itertools.product(*along_axes)]


def _sum(terms: Iterable[Array]) -> Array:
    """The sum of arrays that nobody else holds: it grows in the first of them."""
    return functools.reduce(operator.iadd, terms)


def _neighbours(
    coordinate: Array, size: int, mode: str, padding_mode: str, align_corners: bool
) -> Axis:
    """The neighbours of places along one axis of space, from coordinates (N, P)."""
    xp, count = array_module(coordinate), NEIGHBOURS[mode]
    place, slope = _places(coordinate, size, mode, padding_mode, align_corners)
    before = (count - 1) // 2  # neighbours before the pixel that a place is at or behind
    place = xp.clip(place, before - count, size + before)  # further ones see the same border
    below = xp.rint(place) if mode == "nearest" else xp.floor(place)
    first = xp.fmax(below, before - count).astype(np.int32)  # NaN is no index
    first += count - before
    first = first.astype(np.intp)  # by way of 32 bits: half the time
    if mode == "nearest":
        return Axis(first, (xp.ones_like(place),), tuple)
    a = place - below
    if mode == "bilinear":
        return Axis(first, linear(a), lambda: (-slope, slope))
    return Axis(first, cubic(a), lambda: tuple(k * slope for k in cubic_slopes(a)))


def _places(
    coordinate: Array, size: int, mode: str, padding_mode: str, align_corners: bool
) -> tuple[Array, Any]:
    """Places in pixels, moved to where `padding_mode` finds them; and their slopes.

    They are counted from a point two sizes away first. Half the distance of neighbouring numbers
    is there more than 3/8 size * eps, and the rounding errors of coordinate and product are at
    most that: so a place that is meant to be a pixel is rounded to that pixel.
    """
    xp = array_module(coordinate)
    slope, middle = (size - 1) / 2 if align_corners else size / 2, (size - 1) / 2
    away = 2 * size
    place = coordinate * slope
    place += away
    place -= away - middle
    if padding_mode == "reflection":
        place, sign = _reflect(place, size, align_corners)
        slope = sign * slope
    if padding_mode != "zeros" and mode != "bicubic":  # whose neighbours are moved one by one
        slope = slope * ((place > 0) & (place < size - 1))
        place = xp.fmin(xp.fmax(place, 0), size - 1)
    return place, slope


def _reflect(place: Array, size: int, align_corners: bool) -> tuple[Array, Array]:
    """Places mirrored into the image as often as needed; and -1 where that turned them around."""
    xp = array_module(place)
    edge = 0.0 if align_corners else -0.5
    span = size - 1 - 2 * edge
    if span == 0:
        return xp.zeros_like(place), xp.zeros_like(place)
    distance = abs(place - edge)
    with np.errstate(invalid="ignore"):  # an infinite place is nowhere
        distance = xp.fmod(distance, 2 * span)
    beyond = distance > span
    sign = xp.where(beyond ^ (place < edge), -1, 1).astype(place.dtype)
    return xp.where(beyond, 2 * span - distance, distance) + edge, sign


def _add_border(
    x: Array, mode: str, padding_mode: str, align_corners: bool
) -> tuple[Array, Callable[[Array], Array]]:
    """Images with a border that holds all neighbours outside; and the rule that undoes it.

    Only "bicubic" reads a border that is not of zeros: else the places themselves are moved, and
    neighbours in the border weigh nothing.
    """
    width, dims = NEIGHBOURS[mode], x.ndim - 2
    if mode != "bicubic" or padding_mode == "zeros":
        border = symmetric((width,) * dims)
        return pad(x, border), lambda dbordered: inside(dbordered, border)
    repeated: Any = {"border": "edge", "reflection": "reflect" if align_corners else "symmetric"}
    sources = [np.pad(np.arange(size), width, mode=repeated[padding_mode]) for size in x.shape[2:]]
    bordered = x
    for axis, source in enumerate(sources, start=2):
        bordered = bordered.take(array_module(x).asarray(source), axis=axis)

    def without_border(dbordered):
        for axis, source in enumerate(sources, start=2):
            lines = dbordered.swapaxes(0, axis)
            inner = lines[width:-width].copy()
            for line in (*range(width), *range(-width, 0)):
                inner[source[line]] += lines[line]
            dbordered = inner.swapaxes(0, axis)
        return dbordered

    return bordered, without_border


def _check(input: Array, grid: Array, mode: str, padding_mode: str) -> None:
    if mode not in NEIGHBOURS:
        raise ValueError(f"grid_sample: mode must be one of {', '.join(NEIGHBOURS)}, not {mode!r}")
    if padding_mode not in PADDING_MODES:
        raise ValueError(
            f"grid_sample: padding_mode must be one of {', '.join(PADDING_MODES)}, "
            f"not {padding_mode!r}"
        )
    dims = input.ndim - 2
    if dims not in (2, 3):
        raise ShapeError(
            f"grid_sample: needs images {AXES[2]} or volumes {AXES[3]}, not {input.shape}"
        )
    if mode == "bicubic" and dims == 3:
        raise ValueError(
            f"grid_sample: mode='bicubic' is for images {AXES[2]}, not for volumes {input.shape}: "
            "use 'bilinear' or 'nearest'"
        )
    if grid.ndim != input.ndim or grid.shape[-1] != dims or len(grid) != len(input):
        fitting = ("P, Q, 2", "O, P, Q, 3")[dims - 2]
        raise ShapeError(
            f"grid_sample: the grid for an input of shape {input.shape} must be "
            f"({len(input)}, {fitting}), not {grid.shape}"
        )
    if 0 in input.shape[2:]:
        raise ShapeError(f"grid_sample: images of shape {input.shape} have no pixels to read")
