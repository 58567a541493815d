"""The same values in another arrangement: reshaped, permuted, joined, cut.

Where PyTorch's result is a view that shares its memory with the input, so is this one, where NumPy
can.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..engine import DTypeError, ShapeError, array_module, primitive
from ..engine.backend import is_array
from ..engine.dtypes import accumulator
from ..engine.tensor import operand
from .arguments import integer, integers
from .axes import axis_of, check_not_enlarged

# -- the axes --------------------------------------------------------------------------------------


@primitive
def reshape(x, *, shape):
    """The same values, in the same order, in another shape; one size may be -1, "what is left".

    Raises
    ------
    ShapeError
        If the shapes do not hold the same number of elements.
    """
    before = x.shape
    try:
        y = x.reshape(shape)
    except ValueError:
        raise ShapeError(_why_not(before, shape)) from None

    def vjp_x(dy):
        return dy.reshape(before)

    return y, vjp_x


def flatten(input, start_dim=0, end_dim=-1):
    """Axes `start_dim` to `end_dim` merged into one: (N, C, H, W) -> (N, C*H*W) for start_dim=1.

    Raises
    ------
    IndexError
        If there is no such axis.
    ShapeError
        If `start_dim` comes after `end_dim`.
    """
    x = operand(input)
    if x.ndim == 0:
        return reshape(x, shape=(1,))
    first, last = axis_of("flatten", start_dim, x.ndim), axis_of("flatten", end_dim, x.ndim)
    if first > last:
        raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    merged = math.prod(x.shape[first : last + 1])
    return reshape(x, shape=(*x.shape[:first], merged, *x.shape[last + 1 :]))


def squeeze(input, dim=None):
    """Without the axes of size 1: all of them, or those of `dim` (int or tuple) that are 1.

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    x = operand(input)
    dims = range(x.ndim) if dim is None else dim if isinstance(dim, (tuple, list)) else (dim,)
    dropped = {axis_of("squeeze", d, x.ndim) for d in dims}
    kept = [n for axis, n in enumerate(x.shape) if n != 1 or axis not in dropped]
    return reshape(x, shape=tuple(kept))


def unsqueeze(input, dim):
    """With a new axis of size 1 at position `dim`.

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    x = operand(input)
    axis = axis_of("unsqueeze", dim, x.ndim + 1)
    return reshape(x, shape=(*x.shape[:axis], 1, *x.shape[axis:]))


@primitive
def transpose(x, *, dim0, dim1):
    """With two axes swapped.

    Raises
    ------
    IndexError
        If there is no such axis.
    """

    def vjp_x(dy):
        return dy.swapaxes(dim0, dim1)

    return x.swapaxes(dim0, dim1), vjp_x


def t(x):
    """A matrix with its two axes swapped; a vector or a number as it is."""
    if x.ndim > 2:
        raise ShapeError(f"t: needs a matrix, not {x.shape}: use mT or transpose()")
    return transpose(x, 0, 1) if x.ndim == 2 else x


@primitive
def permute(x, *, dims):
    """With its axes in another order: axis i of the result is axis dims[i] of x.

    Raises
    ------
    IndexError
        If there is no such axis.
    ShapeError
        If `dims` does not name each axis once.
    """
    axes = [axis_of("permute", dim, x.ndim) for dim in integers("permute", "dims", dims)]
    if sorted(axes) != list(range(x.ndim)):
        raise ShapeError(f"permute: dims={dims} must name each axis of {x.shape} once")
    back = np.argsort(axes).tolist()

    def vjp_x(dy):
        return dy.transpose(back)

    return x.transpose(axes), vjp_x


@primitive
def movedim(x, *, source, destination):
    """With one axis, or several, moved to other positions; the others stay in order.

    Raises
    ------
    IndexError
        If there is no such axis.
    """

    def vjp_x(dy):
        return np.moveaxis(dy, destination, source)

    return np.moveaxis(x, source, destination), vjp_x


@primitive
def broadcast_to(x, *, shape):
    """Repeated, without copying, along axes of size 1 and new ones on the left.

    Raises
    ------
    ShapeError
        If a size of x is neither 1 nor that of the shape.
    """
    shape = integers("broadcast_to", "shape", shape)

    def vjp_x(dy):  # the engine sums over the repeated axes
        return dy

    try:
        return np.broadcast_to(x, shape), vjp_x
    except ValueError:
        raise ShapeError(
            f"broadcast_to: {x.shape} does not broadcast to {shape}: counted from the last "
            "axis, sizes must be equal, or 1 before"
        ) from None


def expand(input, sizes):
    """As `broadcast_to`; a size of -1 leaves an axis as it is.

    Raises
    ------
    ShapeError
        As there.
    """
    x, sizes = operand(input), integers("expand", "sizes", sizes)
    added = len(sizes) - x.ndim
    kept = [x.shape[i - added] if n == -1 and i >= added else n for i, n in enumerate(sizes)]
    return broadcast_to(x, shape=tuple(kept))


def expand_as(x, other):
    """Broadcast to the shape of another tensor."""
    return broadcast_to(x, shape=other.shape)


# -- several tensors, or several parts -------------------------------------------------------------


def cat(tensors, dim=0):
    """Tensors one after the other along an existing axis; their other sizes must be equal.

    Raises
    ------
    ShapeError
        If their other sizes differ.
    """
    return _cat(*tensors, dim=dim)


concatenate = cat  # NumPy's name


@primitive
def _cat(*xs, dim):
    if not xs:
        raise ShapeError("cat: needs at least one tensor")
    axis = axis_of("cat", dim, xs[0].ndim)
    for i, x in enumerate(xs):
        _check_joinable("cat", xs[0].shape, x.shape, i, axis)
    ends = np.cumsum([x.shape[axis] for x in xs]).tolist()

    def vjp_of(start, end):
        part = (slice(None),) * axis + (slice(start, end),)

        def vjp_x(dy):
            return dy[part]

        return vjp_x

    rules = tuple(vjp_of(start, end) for start, end in zip([0, *ends], ends))
    return array_module(xs[0]).concatenate(xs, axis=axis), rules


def stack(tensors, dim=0):
    """Tensors of one shape side by side along a new axis.

    Raises
    ------
    ShapeError
        If their shapes differ.
    """
    return _stack(*tensors, dim=dim)


@primitive
def _stack(*xs, dim):
    if not xs:
        raise ShapeError("stack: needs at least one tensor")
    for i, x in enumerate(xs):
        _check_joinable("stack", xs[0].shape, x.shape, i, None)
    axis = axis_of("stack", dim, xs[0].ndim + 1)

    def vjp_of(i):
        part = (slice(None),) * axis + (i,)

        def vjp_x(dy):
            return dy[part]

        return vjp_x

    return array_module(xs[0]).stack(xs, axis=axis), tuple(map(vjp_of, range(len(xs))))


def split(input, split_size_or_sections, dim=0):
    """Parts along an axis, as a tuple: of a size (the last may be smaller), or of several sizes.

    Raises
    ------
    IndexError
        If there is no such axis.
    ShapeError
        If several sizes do not add up to that of the axis, or one is too small.
    """
    x = operand(input)
    axis = axis_of("split", dim, x.ndim)
    total = x.shape[axis]
    sizes = list(integers("split", "split_size_or_sections", split_size_or_sections))
    if not isinstance(split_size_or_sections, Iterable):
        (size,) = sizes
        if size < 1:
            raise ShapeError(f"split: the parts need a size of at least 1, not {size}")
        sizes = [min(size, total - start) for start in range(0, total, size)] or [0]
    if sum(sizes) != total or min(sizes) < 0:
        raise ShapeError(
            f"split: sizes of 0 or more must add up to {total}, the size of dim {dim}, and {sizes} "
            f"add up to {sum(sizes)}"
        )
    ends = np.cumsum(sizes).tolist()
    before = (slice(None),) * axis
    return tuple(x[(*before, slice(start, end))] for start, end in zip([0, *ends], ends))


def chunk(input, chunks, dim=0):
    """At most `chunks` parts along an axis, equal but for the last, as a tuple.

    Raises
    ------
    IndexError
        If there is no such axis.
    ValueError
        If `chunks` is below 1.
    """
    x, chunks = operand(input), integer("chunk", "chunks", chunks, least=1)
    size = x.shape[axis_of("chunk", dim, x.ndim)]
    return split(x, max(1, math.ceil(size / chunks)), dim)


def unbind(input, dim=0):
    """The slices along an axis, without it, as a tuple.

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    x = operand(input)
    axis = axis_of("unbind", dim, x.ndim)
    before = (slice(None),) * axis
    return tuple(x[(*before, i)] for i in range(x.shape[axis]))


# -- copies and repetitions ------------------------------------------------------------------------


@primitive
def clone(x):
    """A copy of the values; the gradient passes."""

    def vjp_x(dy):
        return dy

    return x.copy(), vjp_x


def contiguous(x):
    """The tensor itself if its values lie in memory in their order, else such a copy."""
    return x if x._data.flags.c_contiguous else clone(x)


@primitive
def repeat(x, *, sizes):
    """Copies side by side, sizes[i] of them along axis i; extra sizes add axes on the left.

    Raises
    ------
    ShapeError
        If there are fewer sizes than axes, or one is negative.
    """
    sizes = integers("repeat", "sizes", sizes)
    if len(sizes) < x.ndim or min(sizes, default=0) < 0:
        raise ShapeError(
            f"repeat: the {x.ndim} axes of {x.shape} need at least {x.ndim} sizes of 0 or more, "
            f"not {sizes}"
        )
    shape = (1,) * (len(sizes) - x.ndim) + x.shape
    copies_and_sizes = [n for pair in zip(sizes, shape) for n in pair]

    def vjp_x(dy):
        copies = tuple(range(0, 2 * len(sizes), 2))
        return dy.reshape(copies_and_sizes).sum(axis=copies, dtype=accumulator(dy.dtype))

    return np.tile(x, sizes), vjp_x


@primitive
def flip(x, *, dims):
    """In reverse order along an axis, or several: a copy, as in PyTorch.

    Raises
    ------
    IndexError
        If there is no such axis.
    ShapeError
        If an axis is named twice.
    """
    dims = tuple(axis_of("flip", dim, x.ndim) for dim in integers("flip", "dims", dims))
    if len(set(dims)) < len(dims):
        raise ShapeError(f"flip: dims={dims} name an axis of {x.shape} twice")

    def vjp_x(dy):
        return np.flip(dy, dims)

    return np.flip(x, dims).copy(), vjp_x


@primitive
def roll(x, *, shifts, dims=None):
    """Shifted along axes (of all values in a row without `dims`); what leaves comes in again.

    Raises
    ------
    IndexError
        If there is no such axis.
    ShapeError
        If there are not as many shifts as axes.
    """
    shifts = integers("roll", "shifts", shifts)
    if dims is not None:
        dims = tuple(axis_of("roll", dim, x.ndim) for dim in integers("roll", "dims", dims))
    if len(shifts) != (1 if dims is None else len(dims)):
        raise ShapeError(f"roll: shifts={shifts} and dims={dims} must be equally many")

    def vjp_x(dy):
        return np.roll(dy, [-shift for shift in shifts], dims)

    return np.roll(x, shifts, dims), vjp_x


# -- filling ---------------------------------------------------------------------------------------


@primitive
def masked_fill(x, *, mask, value):
    """`value` where the mask is true, else x; the mask, of booleans, broadcasts to x.

    Raises
    ------
    ShapeError
        If the mask does not broadcast to the shape of x.
    TypeError
        If the mask holds no booleans, or `value` is no number.
    """
    xp = array_module(x)
    if (value if is_array(value) else np.asarray(value)).dtype.kind not in "biuf":
        raise TypeError(f"masked_fill: value must be a number, not {value!r}")
    mask = xp.asarray(mask)
    if mask.dtype != bool:
        raise DTypeError(f"masked_fill: the mask must be of booleans, not {mask.dtype}: try != 0")
    y = np.where(mask, value, x)
    check_not_enlarged("masked_fill", y, x, mask=mask, value=value)

    def vjp_x(dy):
        return np.where(mask, 0, dy)

    return y, vjp_x


@primitive
def tril(x, *, diagonal=0):
    """The lower triangles of matrices: zero above the diagonal, or above another one.

    (*, n, m) -> (*, n, m). `diagonal` counts upwards from the main one, which is 0.

    Raises
    ------
    ShapeError
        If x has fewer than two axes.
    """
    _check_matrices("tril", x)
    diagonal = integer("tril", "diagonal", diagonal)

    def vjp_x(dy):
        return np.tril(dy, diagonal)

    return np.tril(x, diagonal), vjp_x


@primitive
def triu(x, *, diagonal=0):
    """The upper triangles of matrices: zero below the diagonal, or below another one.

    (*, n, m) -> (*, n, m). `diagonal` counts upwards from the main one, which is 0.

    Raises
    ------
    ShapeError
        If x has fewer than two axes.
    """
    _check_matrices("triu", x)
    diagonal = integer("triu", "diagonal", diagonal)

    def vjp_x(dy):
        return np.triu(dy, diagonal)

    return np.triu(x, diagonal), vjp_x


# -- what they share -------------------------------------------------------------------------------


def _why_not(before, shape):
    held, sizes = math.prod(before), shape if isinstance(shape, (tuple, list)) else (shape,)
    if sum(n < 0 for n in sizes) > 1:
        return f"reshape: {shape} is not a shape: sizes are 0 or more, and one may be -1"
    if -1 in sizes:
        rest = math.prod(n for n in sizes if n != -1)
        return f"reshape: {before} holds {held} elements, which {rest} does not divide: {shape}"
    return f"reshape: {before} holds {held} elements, {shape} needs {math.prod(sizes)}"


def _check_matrices(op, x):
    if x.ndim < 2:
        raise ShapeError(f"{op}: needs matrices (*, n, m), not {x.shape}")


def _check_joinable(op, first, other, i, axis):
    """Raise unless two shapes are equal, apart from an axis."""
    if len(first) != len(other):
        raise ShapeError(f"{op}: tensor 0 has shape {first}, tensor {i} has shape {other}")
    for d, (n, m) in enumerate(zip(first, other)):
        if n != m and d != axis:
            but = "all sizes" if axis is None else f"all sizes but those of dim {axis}"
            raise ShapeError(
                f"{op}: tensor 0 has shape {first} and tensor {i} {other}: {n} and {m} in dim {d}; "
                f"{but} must be equal"
            )
