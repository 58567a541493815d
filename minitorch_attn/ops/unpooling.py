"""Unpooling: what max pooling kept goes back to where it was, among zeros."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..engine import DTypeError, ShapeError, Tensor, array_module, primitive
from ..engine.backend import Array, on_gpu
from ..engine.tensor import as_operands
from .pooling_windows import Option
from .windows import Sizes, by, check_images, per_axis

__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d"]


def max_unpool1d(
    input: Any,
    indices: Any,
    kernel_size: Option,
    stride: Option | None = None,
    padding: Option = 0,
    output_size: Any = None,
) -> Tensor:
    """Put elements of a sequence back where `max_pool1d` found them: as `max_unpool2d`.

    Parameters
    ----------
    input, indices : (N, C, P) or (C, P)
    kernel_size, stride, padding, output_size
        As in `max_unpool2d`.

    Returns
    -------
    (N, C, W) or (C, W)
    """
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Any,
    indices: Any,
    kernel_size: Option,
    stride: Option | None = None,
    padding: Option = 0,
    output_size: Any = None,
) -> Tensor:
    r"""Put elements back where `max_pool2d` found them, with zeros everywhere else.

    .. math:: y_{n,\,c,\,i_{n,c,p,q}} = x_{n,c,p,q}

    with flat positions i. Where overlapping windows found the same element, the last of them
    writes it; on a GPU any of them.

    Parameters
    ----------
    input : (N, C, P, Q) or (C, P, Q)
    indices : integers of the same shape
        h * W + w for row h and column w, as `max_pool2d` returns them.
    kernel_size, stride, padding
        Those of the pool, which say how large the images were.
    output_size : (int, int), or the shape of the result, optional
        H and W, less than a stride away from ``(P - 1) * stride - 2 * padding + R``, which they
        are if left out: several sizes shrink to P under a pool.

    Returns
    -------
    (N, C, H, W) or (C, H, W)

    Raises
    ------
    ShapeError
        If the indices are not of the input's shape, or no pool makes P x Q of the output's size.
    ValueError
        If an option is out of its range.
    IndexError
        If an index lies outside the image. On a GPU nobody looks at them beforehand: what such an
        index does is left open.
    """
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Any,
    indices: Any,
    kernel_size: Option,
    stride: Option | None = None,
    padding: Option = 0,
    output_size: Any = None,
) -> Tensor:
    """Put elements of a volume back where `max_pool3d` found them: as `max_unpool2d`.

    Parameters
    ----------
    input, indices : (N, C, ...) or (C, ...)
    kernel_size, stride, padding, output_size
        As in `max_unpool2d`; an option has one integer, or three for (depth, height, width).

    Returns
    -------
    (N, C, D, H, W) or (C, D, H, W)
    """
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)


def _unpool(dims, input, indices, kernel_size, stride, padding, output_size) -> Tensor:
    op = f"max_unpool{dims}d"
    x, positions = as_operands(input, indices)
    if positions.shape != x.shape:
        raise ShapeError(
            f"{op}: each element of the input needs an index: the input is {x.shape}, the indices "
            f"{positions.shape}"
        )
    if positions.dtype.kind not in "iu":
        raise DTypeError(f"{op}: indices are integers, not {positions.dtype}")
    if x.ndim == dims + 1:
        batch = _unpool(dims, x[None], positions[None], kernel_size, stride, padding, output_size)
        return batch[0]
    check_images(op, x, dims)
    kernel = per_axis(op, "kernel_size", kernel_size, dims, least=1)
    steps = kernel if stride is None else per_axis(op, "stride", stride, dims, least=1)
    padding = per_axis(op, "padding", padding, dims, least=0)
    size = _size(op, x.shape[2:], kernel, steps, padding, output_size)
    return _UNPOOLS[dims](x, positions=positions, size=size)


def _unpooling(op: str) -> Callable[..., Tensor]:
    """The primitive under the name that errors and graphs show."""

    def unpool(x, *, positions, size):
        if not on_gpu(positions):
            _check_inside(op, positions, size)
        xp, shape, N_and_C = array_module(x), x.shape, x.shape[:2]
        flat = positions.reshape(*N_and_C, math.prod(shape[2:]))
        y = xp.zeros((*N_and_C, math.prod(size)), dtype=x.dtype)
        xp.put_along_axis(y, flat, x.reshape(flat.shape), axis=2)

        def vjp_x(dy):
            dy = dy.reshape(*N_and_C, math.prod(size))
            return xp.take_along_axis(dy, flat, axis=2).reshape(shape)

        return y.reshape(*N_and_C, *size), vjp_x

    unpool.__name__ = op
    return primitive(unpool)


_UNPOOLS = {dims: _unpooling(f"max_unpool{dims}d") for dims in (1, 2, 3)}


def _check_inside(op: str, positions: Array, size: Sizes) -> None:
    total = math.prod(size)
    if positions.size and not 0 <= positions.min() <= positions.max() < total:
        wrong = positions.min() if positions.min() < 0 else positions.max()
        raise IndexError(
            f"{op}: index {wrong} lies outside an image of {by(size)}, whose last is {total - 1}: "
            "give the output_size that was pooled"
        )


def _size(
    op: str, pooled: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, output_size: Any
) -> Sizes:
    """The size of the images that were pooled."""
    usual = tuple(
        (n - 1) * step + taps - 2 * p for n, step, taps, p in zip(pooled, stride, kernel, padding)
    )
    if output_size is None:
        size = usual
    else:
        dims = len(kernel)
        given = output_size
        if isinstance(given, (tuple, list)) and len(given) in (dims + 1, dims + 2):
            given = given[-dims:]  # the shape of the whole result
        size = per_axis(op, "output_size", given, dims, least=1)
    if min(size) < 1 or any(abs(n - m) >= step for n, m, step in zip(size, usual, stride)):
        fitting = " and ".join(
            f"{max(1, n - step + 1)} to {n + step - 1}" for n, step in zip(usual, stride)
        )
        raise ShapeError(
            f"{op}: images of {by(size)} do not pool to {by(pooled)} with stride {stride}: "
            f"output_size may be {fitting}"
        )
    return size
