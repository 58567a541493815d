"""Hangs the operations onto Tensor: `x + y`, `x[i]`, `x.sum()`, `x.reshape(2, 3)`.

A method has the name of its operation. The declarations for type checkers are in `Tensor`.
"""

from __future__ import annotations

from ..engine import Tensor
from . import activation, arithmetic, comparison, conversion, indexing, linalg, reduction, shape


def _reflected(op):
    """The operator with the tensor on the right: `2 - x`."""

    def method(self, other):
        return op(other, self)

    return method


def _sizes(op):
    """A method that takes its sizes or axes one by one as well: `x.reshape(2, 3)`."""

    def method(self, *sizes):
        one_sequence = len(sizes) == 1 and isinstance(sizes[0], (tuple, list))
        return op(self, tuple(sizes[0]) if one_sequence else sizes)

    method.__name__, method.__doc__ = op.__name__, op.__doc__
    return method


OPERATORS = {
    "__add__": arithmetic.add,
    "__radd__": arithmetic.add,
    "__sub__": arithmetic.subtract,
    "__rsub__": _reflected(arithmetic.subtract),
    "__mul__": arithmetic.multiply,
    "__rmul__": arithmetic.multiply,
    "__truediv__": arithmetic.divide,
    "__rtruediv__": _reflected(arithmetic.divide),
    "__floordiv__": arithmetic.floor_divide,
    "__rfloordiv__": _reflected(arithmetic.floor_divide),
    "__mod__": arithmetic.remainder,
    "__rmod__": _reflected(arithmetic.remainder),
    "__pow__": arithmetic.pow,
    "__rpow__": _reflected(arithmetic.pow),
    "__matmul__": linalg.matmul,
    "__rmatmul__": _reflected(linalg.matmul),
    "__neg__": arithmetic.negative,
    "__abs__": arithmetic.abs,
    "__eq__": comparison.eq,
    "__ne__": comparison.ne,
    "__lt__": comparison.lt,
    "__le__": comparison.le,
    "__gt__": comparison.gt,
    "__ge__": comparison.ge,
    "__and__": comparison.logical_and,
    "__or__": comparison.logical_or,
    "__xor__": comparison.logical_xor,
    "__invert__": comparison.logical_not,
    "__getitem__": indexing.getitem,
}

METHODS = [
    *(arithmetic.abs, arithmetic.clamp, arithmetic.exp, arithmetic.log, arithmetic.pow),
    *(arithmetic.round, arithmetic.sign, arithmetic.sqrt, arithmetic.rsqrt, arithmetic.square),
    *(reduction.all, reduction.amax, reduction.amin, reduction.any, reduction.argmax),
    *(reduction.argmin, reduction.cumsum, reduction.logsumexp, reduction.max, reduction.mean),
    *(reduction.min, reduction.norm, reduction.prod, reduction.std, reduction.sum, reduction.var),
    *(shape.broadcast_to, shape.chunk, shape.clone, shape.flatten, shape.masked_fill),
    *(shape.movedim, shape.roll, shape.split, shape.squeeze, shape.transpose, shape.tril),
    *(shape.triu, shape.unsqueeze),
    *(indexing.gather, indexing.index_select, linalg.bmm, linalg.dot, linalg.matmul),
    *(activation.log_softmax, activation.relu, activation.sigmoid, activation.softmax),
    *(activation.tanh, conversion.to),
]

for _name, _op in OPERATORS.items():
    setattr(Tensor, _name, _op)
for _op in METHODS:
    setattr(Tensor, _op.__name__, _op)
for _op in (shape.expand, shape.flip, shape.permute, shape.repeat, shape.reshape):
    setattr(Tensor, _op.__name__, _sizes(_op))

Tensor.view = Tensor.reshape
Tensor.T = property(lambda x: shape.permute(x, dims=tuple(range(x.ndim))[::-1]))
Tensor.mT = property(lambda x: shape.transpose(x, dim0=-2, dim1=-1))

Tensor.float = lambda x: conversion.to(x, "float32")
Tensor.double = lambda x: conversion.to(x, "float64")
Tensor.half = lambda x: conversion.to(x, "float16")
Tensor.long = lambda x: conversion.to(x, "int64")
Tensor.int = lambda x: conversion.to(x, "int32")
Tensor.bool = lambda x: conversion.to(x, "bool")
Tensor.cpu = lambda x: conversion.to(x, "cpu")
Tensor.cuda = lambda x: conversion.to(x, "cuda")
