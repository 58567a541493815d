"""Choosing elements: by slices, masks and integer arrays; their gradients go back to where they
were taken from, and add up where one element was taken several times.

On a GPU nothing looks at an index array beforehand, for which the processor would have to wait: an
index out of bounds raises no error but counts on from the other end (n is 0 again). Only where the
result's shape depends on values (a mask, `one_hot` without a number of classes) does it wait.
Shares of one element are added up there in whatever order the threads come, so that from run to
run the last digits may differ.
"""

from __future__ import annotations

from types import EllipsisType

import numpy as np

from ..engine import DTypeError, ShapeError, Tensor, array_module, primitive
from ..engine.backend import is_array, on_gpu
from ..engine.tensor import as_operands
from .axes import axis_of


def getitem(x, index):
    """x[index], where the index may hold integers, slices, None, ..., masks and integer arrays.

    Integers, slices and None give a view; masks and integer arrays a copy.

    Raises
    ------
    IndexError
        If the index is out of bounds, or has more entries than the tensor has axes. An array of
        integers on a GPU is not looked at: there an index out of bounds counts on from the other
        end.
    """
    return _getitem(x, index=_plain(index))


@primitive
def _getitem(x, *, index):
    shape = x.shape

    def vjp_x(dy):
        if not _takes_each_once(index):
            return added_at(shape, index, dy)
        dx = array_module(dy).zeros(shape, dy.dtype)
        dx[index] = dy
        return dx

    return x[index], vjp_x


@primitive
def gather(x, *, dim, index):
    """Values picked along one axis: y[i, j, k] = x[i, index[i, j, k], k] for `dim=1`.

    Parameters
    ----------
    x : (*)
    dim : int
    index : integers, of as many axes as x; along the other axes at most as long as x
        The result has its shape.
    """
    places = _places(x, dim, index)
    shape = x.shape

    def vjp_x(dy):
        return added_at(shape, places, dy)

    return x[places], vjp_x


def take_along_dim(input, indices, dim):
    """Values picked along one axis as by `gather`; input and indices broadcast along the others."""
    x, indices = as_operands(input, indices)
    axis = axis_of("take_along_dim", dim, x.ndim)
    common = list(np.broadcast_shapes(_without(x.shape, axis), _without(indices.shape, axis)))
    along_x = common[:axis] + [x.shape[axis]] + common[axis:]
    along_indices = common[:axis] + [indices.shape[axis]] + common[axis:]
    return gather(x.broadcast_to(along_x), dim=dim, index=indices.broadcast_to(along_indices))


@primitive
def index_select(x, *, dim, index):
    """The slices of x at the positions of a 1-D index along one axis, in the index's order."""
    index = array_module(x).asarray(_integers("index_select", index))
    axis, shape = axis_of("index_select", dim, x.ndim), x.shape
    if index.ndim > 1:
        raise ShapeError(f"index_select: needs an index of one axis, not {index.shape}: x[index]")

    def vjp_x(dy):
        return added_at(shape, (slice(None),) * axis + (index,), dy)

    return x.take(index, axis=axis), vjp_x


def one_hot(index, num_classes=-1):
    """Class indices (*) as vectors (*, K) of integers: 1 at the class, else 0.

    K is `num_classes`, or if that is -1, one more than the largest index.

    Raises
    ------
    IndexError
        If an index is negative, or not smaller than `num_classes`. On a GPU its vector is 0.
    """
    index = _integers("one_hot", index._data if isinstance(index, Tensor) else index)
    if on_gpu(index):
        if num_classes == -1:
            num_classes = index.max().item() + 1 if index.size else 0
        return _one_hot(index, num_classes)
    largest = int(index.max(initial=-1))
    classes = largest + 1 if num_classes == -1 else num_classes
    if largest >= classes or index.min(initial=0) < 0:
        wrong = largest if largest >= classes else int(index.min())
        raise IndexError(f"one_hot: class {wrong} is not one of the {classes} classes, from 0 on")
    return _one_hot(index, classes)


def _one_hot(index, classes):
    return Tensor((index[..., None] == array_module(index).arange(classes)).astype(np.int64))


# -- what they share -------------------------------------------------------------------------------


def _plain(index):
    """An index whose tensors and lists are arrays that nobody else will change."""
    if isinstance(index, tuple):
        return tuple(_plain(i) for i in index)
    if isinstance(index, Tensor):
        return index._data
    if isinstance(index, np.ndarray):
        return index.copy()
    if isinstance(index, list):
        return np.asarray([_plain(i) for i in index], dtype=None if index else np.intp)
    return index


def _takes_each_once(index):
    """Whether no element can be taken twice: integers, slices, None, ..., and masks."""
    entries = index if isinstance(index, tuple) else (index,)
    return all(
        i is None or isinstance(i, (int, slice, EllipsisType, np.integer)) or _is_mask(i)
        for i in entries
    )


def _is_mask(i):
    return getattr(i, "dtype", None) == np.bool_


def added_at(shape, index, dy):
    """Zeros of a shape, with dy added at an index: a place named several times gets every share.

    NumPy adds at flat positions, because it adds single numbers several times faster than rows. A
    GPU adds in float32 at least.
    """
    xp = array_module(dy)
    if on_gpu(dy):
        dx = xp.zeros(shape, np.promote_types(dy.dtype, np.float32))
        xp.add.at(dx, index, dy)
        return dx.astype(dy.dtype, copy=False)
    dx = np.zeros(shape, dy.dtype)
    positions = np.arange(dx.size).reshape(shape)[index]
    np.add.at(dx.reshape(-1), positions.reshape(-1), dy.reshape(-1))
    return dx


def _places(x, dim, index):
    """The full index that `gather` stands for: its own position along every axis but `dim`."""
    index = _integers("gather", index)
    axis = axis_of("gather", dim, x.ndim)
    fits = index.ndim == x.ndim and all(
        n <= m for d, (n, m) in enumerate(zip(index.shape, x.shape)) if d != axis
    )
    if not fits:
        raise ShapeError(
            f"gather: an index of shape {index.shape} does not fit a tensor of shape {x.shape}: it "
            f"needs as many axes, and along those other than {dim} at most the same size"
        )
    places = list(array_module(index).ogrid[tuple(slice(n) for n in index.shape)])
    places[axis : axis + 1] = [index]
    return tuple(places)


def _integers(op, index):
    if not is_array(index):
        index = np.asarray(index)
    if index.dtype.kind not in "iu":
        raise DTypeError(f"{op}: an index holds integers, not {index.dtype}: index.long()")
    return index


def _without(shape, axis):
    return shape[:axis] + shape[axis + 1 :]
