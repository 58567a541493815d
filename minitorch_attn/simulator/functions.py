"""The stand-in's functions and ufuncs: CuPy's names and parameters, NumPy's arithmetic."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .arrays import (
    SCALARS,
    device_operand,
    host,
    host_index,
    ndarray,
    repeats,
    rubbish,
    upload,
    wrap,
)
from .surface import signature, surface
from .traffic import note

# What they return, or the errors that they raise, depends on values: the host waits.
WAITS = {
    *("nonzero", "flatnonzero", "argwhere", "extract", "compress", "trim_zeros", "delete"),
    *("unique", "unique_all", "unique_counts", "unique_inverse", "unique_values"),
    *("union1d", "intersect1d", "setdiff1d", "setxor1d", "nanmax", "nanmin", "place"),
    *("bincount", "histogram", "histogram2d", "histogramdd", "ravel_multi_index", "unravel_index"),
    *("array2string", "array_repr", "array_str", "asarray_chkfinite"),
}
# Where several threads may add to one element, only these types can be added to.
_REALS = {"int32", "int64", "uint32", "uint64", "float32", "float64"}
AT_TYPES = {
    "add": _REALS | {"float16"},
    "subtract": {"int32", "uint32"},
    "maximum": _REALS,
    "minimum": _REALS,
} | dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), _REALS - {"float32", "float64"})
# They take numbers of the host. All others compute with arrays of the device: one must be there.
FROM_NUMBERS = {
    *("arange", "bartlett", "blackman", "broadcast_shapes", "can_cast", "diag_indices", "empty"),
    *("eye", "full", "hamming", "hanning", "identity", "indices", "isdtype", "isscalar"),
    *("issubdtype", "iterable", "kaiser", "linspace", "logspace", "min_scalar_type", "ones"),
    *("promote_types", "result_type", "tri", "tril_indices", "triu_indices", "zeros"),
}
# They read a number of the host out of an argument: an array there would make the host wait.
NEEDS_NUMBERS = {"arange", "empty", "eye", "identity", "indices", "ones", "tri", "zeros"}


class ufunc:
    """A function of CuPy that works element by element.

    Its operands are the device's arrays and numbers. There is no ``where=``; ``reduce``,
    ``accumulate``, ``at`` and ``reduceat`` exist for the few ufuncs that CuPy has them for.
    """

    def __init__(self, name: str, methods: Iterable[str]):
        self.name = self.__name__ = name
        self._numpy = getattr(np, name)
        self._methods = frozenset(methods)
        self.nin = getattr(self._numpy, "nin", 1)
        self.nout = getattr(self._numpy, "nout", 1)

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, **settings: Any) -> Any:
        if settings.keys() - {"casting"}:
            raise TypeError(f"Wrong arguments {settings}")
        if len(args) > self.nin:
            args, out = args[: self.nin], args[self.nin]
        if dtype is not None:
            settings["dtype"] = dtype
        if out is not None:
            settings["out"] = _operand(out)
        with np.errstate(all="ignore"):
            return wrap(self._numpy(*map(_operand, args), **settings), *args, out)

    def _must_have(self, method: str) -> None:
        if method not in self._methods:
            raise NotImplementedError(f"`{self.name}.{method}` is not supported yet")

    def outer(self, a: Any, b: Any, **settings: Any) -> ndarray:
        """The function of all pairs of two arrays' elements."""
        a, b = (x if isinstance(x, ndarray) else upload(x) for x in (a, b))
        return self(a.reshape(a.shape + (1,) * b.ndim), b, **settings)

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        """Change elements in place, as often as an index names them."""
        self._must_have("at")
        if not isinstance(a, ndarray):
            raise TypeError(f"`{self.name}.at` changes an array of the device, not {type(a)}")
        chosen, value = host_index(a, indices), device_operand(b, a.dtype)
        if repeats(chosen) and a.dtype.name not in AT_TYPES[self.name]:
            raise TypeError(
                f"cupy.{self.name}.at only supports {', '.join(sorted(AT_TYPES[self.name]))}, "
                f"not {a.dtype}"
            )
        with np.errstate(all="ignore"):
            self._numpy.at(a._host, chosen, value)

    def reduce(
        self,
        array: ndarray,
        axis: Any = 0,
        dtype: Any = None,
        out: Any = None,
        keepdims: bool = False,
    ) -> ndarray:
        """Sum or product along axes."""
        self._must_have("reduce")
        method = array.sum if self.name == "add" else array.prod
        return method(axis, dtype, out, keepdims)

    def accumulate(
        self, array: ndarray, axis: int = 0, dtype: Any = None, out: Any = None
    ) -> ndarray:
        """Sums or products so far along an axis."""
        self._must_have("accumulate")
        return (array.cumsum if self.name == "add" else array.cumprod)(axis, dtype, out)

    def reduceat(
        self, array: ndarray, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None
    ) -> ndarray:
        """Sums of slices."""
        self._must_have("reduceat")
        return wrap(self._numpy.reduceat(array._host, device_operand(indices), axis, dtype))


def _operand(value: Any) -> Any:
    """An operand of a ufunc for NumPy: CuPy takes arrays of the device and numbers only."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, SCALARS):
        return value
    raise TypeError(f"Unsupported type {type(value)}")


@functools.cache
def cupy_ufunc(name: str) -> Any:
    """The ufunc of this name, if CuPy has it."""
    if name == "matmul":  # a ufunc in NumPy
        return cupy_function("numpy", name)
    methods = surface()["modules"]["cupy"]["ufuncs"].get(name)
    return None if methods is None else ufunc(name, methods)


@functools.cache
def cupy_function(numpy_module: str, name: str) -> Any:
    """The function that does what NumPy's of this name does, if CuPy has it."""
    module = numpy_module.replace("numpy", "cupy", 1)
    contents = surface()["modules"].get(module, {})
    if name in contents.get("ufuncs", ()):
        return cupy_ufunc(name)
    parameters = contents.get("functions", {}).get(name)
    if parameters is None:
        return None
    if module == "cupy.random":
        return None  # see random.py
    if module == "cupy" and name in _OWN:
        return _OWN[name]
    place: Any = np
    for part in module.split(".")[1:]:
        place = getattr(place, part)
    theirs = getattr(place, name, None)
    return None if theirs is None else _function(f"{module}.{name}", theirs, parameters)


def _function(path: str, compute: Callable, parameters: str) -> Callable:
    """A function with CuPy's parameters, computed by NumPy's."""
    allowed = signature(parameters)
    name = path.rpartition(".")[2]

    def function(*args: Any, **settings: Any) -> Any:
        allowed.bind(*args, **settings)
        given = list(_arrays([*args, *settings.values()]))
        if not given and name not in FROM_NUMBERS:
            kinds = ", ".join(type(x).__name__ for x in args)
            raise TypeError(f"{path} takes cupy.ndarray, not {kinds}")
        if given and name in NEEDS_NUMBERS:
            raise TypeError(f"{path}: a number inside an array must be read by .item()")
        if "sort" in name and settings.get("kind") not in (None, "stable"):
            raise ValueError("kind can only be None or 'stable'")
        if name in WAITS or (name == "where" and len(args) == 1):
            note("synchronisations")
        with np.errstate(all="ignore"):
            result = compute(*host(args), **{key: host(x) for key, x in settings.items()})
        if isinstance(result, bool) and name in ("allclose", "array_equal", "array_equiv"):
            result = np.asarray(result)
        if name == "count_nonzero":
            result = np.asarray(result)
        if name.startswith("empty"):
            result = rubbish(result)
        return wrap(result, *given)

    function.__name__ = function.__qualname__ = name
    return function


def _arrays(values: Iterable[Any]) -> Iterable[ndarray]:
    """The device's arrays among values, also in lists."""
    for value in values:
        if isinstance(value, ndarray):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _arrays(value)


# -- functions that are CuPy's own, or cross to the device --------------------------------


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool | None = True,
    order: str | None = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    """An array of the device, of values from anywhere."""
    if isinstance(obj, ndarray):
        result = obj.astype(obj.dtype if dtype is None else dtype, order or "K", copy=bool(copy))
    else:
        result = upload(obj, dtype, order)
    missing = ndmin - result.ndim
    return result.reshape((1,) * missing + result.shape) if missing > 0 else result


def asarray(
    a: Any,
    dtype: Any = None,
    order: str | None = None,
    *,
    copy: bool | None = None,
    blocking: bool = False,
) -> ndarray:
    """An array of the device; one that is there already is returned as it is."""
    return array(a, dtype, copy, order)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    """An array of the device that lies row by row; at least one axis."""
    return array(a, dtype, None, "C", ndmin=1)


def asfortranarray(a: Any, dtype: Any = None) -> ndarray:
    """An array of the device that lies column by column; at least one axis."""
    return array(a, dtype, None, "F", ndmin=1)


def asnumpy(
    a: Any, stream: Any = None, order: Any = "C", out: Any = None, *, blocking: bool = True
) -> np.ndarray:
    """A copy in the host's memory; a host's array as it is."""
    if isinstance(a, ndarray):
        return a.get(stream, order, out, blocking)
    return np.asarray(a, order=order)


def get_array_module(*args: Any) -> Any:
    """`cupy` if an array of the device is among the arguments, else `numpy`."""
    return sys.modules["cupy"] if any(isinstance(x, ndarray) for x in args) else np


def einsum(*operands: Any, dtype: Any = None, optimize: Any = False) -> ndarray:
    """Einstein's summation; out=, order= and casting= are not there."""
    if not isinstance(operands[0], str):
        raise NotImplementedError("the stand-in's einsum takes a string of subscripts")
    with np.errstate(all="ignore"):
        arrays = [_array_operand(x) for x in operands[1:]]
        return wrap(np.einsum(operands[0], *arrays, dtype=dtype, optimize=optimize), *operands[1:])


def matmul(a: Any, b: Any, out: Any = None, *, dtype: Any = None) -> ndarray:
    """The product of matrices, over all leading axes; of bfloat16 only of two matrices."""
    first, second = _array_operand(a), _array_operand(b)
    is_batch = max(first.ndim, second.ndim) > 2
    if is_batch and first.dtype.name == second.dtype.name == "bfloat16":
        raise TypeError("CuPy has no product of more than two axes for bfloat16")
    with np.errstate(all="ignore"):
        result = np.matmul(first, second, out=host(out), dtype=dtype)
    return wrap(result, out)


def _array_operand(value: Any) -> np.ndarray:
    if not isinstance(value, ndarray):
        raise TypeError(f"cupy.ndarray expected, not {type(value)}")
    return value._host


def copyto(dst: ndarray, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
    """Copy values into an array of the device; of the host, a number only."""
    if isinstance(src, np.ndarray) and src.size != 1:
        raise ValueError("non-scalar numpy.ndarray cannot be used for copyto")
    source = src.squeeze()[()] if isinstance(src, np.ndarray) else host(src)
    np.copyto(dst._host, source, casting=casting, where=True if where is None else host(where))


def take(a: ndarray, indices: Any, axis: int | None = None, out: Any = None) -> ndarray:
    """Elements along an axis; indices out of range wrap around."""
    return a.take(indices, axis, out)


_OWN: dict[str, Callable] = {
    "array": array,
    "asarray": asarray,
    "asanyarray": asarray,
    "ascontiguousarray": ascontiguousarray,
    "asfortranarray": asfortranarray,
    "asnumpy": asnumpy,
    "copyto": copyto,
    "einsum": einsum,
    "get_array_module": get_array_module,
    "is_available": lambda: True,
    "matmul": matmul,
    "take": take,
}
