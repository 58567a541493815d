"""Hangs the operations onto Tensor: `x + y`, `x[i]`, `x.sum()`, `x.reshape(2, 3)`.

A method has the name and the arguments of its operation. Type checkers read the operators'
declarations in `Tensor`.
"""

from __future__ import annotations

from ..engine import Tensor
from . import (
    activation,
    arithmetic,
    comparison,
    conversion,
    indexing,
    linalg,
    reduction,
    shape,
    sorting,
)


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

    return method


def _itself(self):
    """The tensor itself: +x."""
    return self


def _conversion(target):
    """A method that converts to a dtype or moves to a device: `x.double()`, `x.cuda()`."""

    def method(self):
        return conversion.to(self, target)

    return method


OPERATORS = {
    "__add__": arithmetic.add,
    "__sub__": arithmetic.subtract,
    "__mul__": arithmetic.multiply,
    "__truediv__": arithmetic.divide,
    "__floordiv__": arithmetic.floor_divide,
    "__mod__": arithmetic.remainder,
    "__pow__": arithmetic.pow,
    "__matmul__": linalg.matmul,
    "__and__": comparison.bitwise_and,
    "__or__": comparison.bitwise_or,
    "__xor__": comparison.bitwise_xor,
}
COMPARISONS = {
    "__eq__": comparison.eq,
    "__ne__": comparison.ne,
    "__lt__": comparison.lt,
    "__le__": comparison.le,
    "__gt__": comparison.gt,
    "__ge__": comparison.ge,
}
OF_ONE_OPERAND = {
    "__neg__": arithmetic.negative,
    "__pos__": _itself,
    "__abs__": arithmetic.abs,
    "__invert__": comparison.bitwise_not,
    "__getitem__": indexing.getitem,
}

METHODS = {
    activation: "log_softmax relu sigmoid softmax tanh",
    arithmetic: """abs ceil clamp clip cos exp expm1 floor log log1p maximum minimum pow reciprocal
        round rsqrt sign sin sqrt square""",
    comparison: "eq ge gt isfinite isinf isnan le logical_and logical_not logical_or lt ne",
    conversion: "to",
    indexing: "gather index_select",
    linalg: "bmm dot matmul outer",
    reduction: """all amax amin any argmax argmin cumsum logsumexp max mean min norm prod std sum
        var""",
    shape: """broadcast_to chunk clone contiguous expand_as flatten masked_fill movedim roll split
        squeeze t transpose tril triu unbind unsqueeze""",
    sorting: "argsort sort topk",
}
METHODS_OF_SIZES = "expand flip permute repeat reshape"

CONVERSIONS = {
    "half": "float16",
    "bfloat16": "bfloat16",
    "float": "float32",
    "double": "float64",
    "int": "int32",
    "long": "int64",
    "bool": "bool",
    "cpu": "cpu",
    "cuda": "cuda",
}


def attach(name, method, doc=None):
    """Make a function a method of Tensor."""
    if doc is not None:
        method.__name__, method.__qualname__, method.__doc__ = name, f"Tensor.{name}", doc
    setattr(Tensor, name, method)


for name, op in (OPERATORS | COMPARISONS | OF_ONE_OPERAND).items():
    attach(name, op)
for name, op in OPERATORS.items():
    attach(f"__r{name[2:]}", _reflected(op), op.__doc__)
for file, names in METHODS.items():
    for name in names.split():
        attach(name, getattr(file, name))
for name in METHODS_OF_SIZES.split():
    op = getattr(shape, name)
    attach(name, _sizes(op), op.__doc__)
for name, target in CONVERSIONS.items():
    attach(name, _conversion(target), f"The tensor as {target}; itself if it is that already.")

Tensor.view = Tensor.reshape
Tensor.T = property(lambda x: shape.permute(x, dims=range(x.ndim)[::-1]), doc="All axes reversed.")
Tensor.mT = property(lambda x: shape.transpose(x, -2, -1), doc="The last two axes swapped.")
