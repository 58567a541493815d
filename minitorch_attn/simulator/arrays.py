"""The stand-in's array: NumPy inside, and no more polite than CuPy's.

Where CuPy's array differs from NumPy's, this one does as CuPy's:

- it is never mixed with a NumPy array (operators, functions, assignment), but for what CuPy
  copies to the device by itself: indices, and what is assigned at indices;
- ``np.asarray(x)`` raises; ``x.get()`` copies to the host;
- results without axes stay arrays; there is no ``flags.writeable``;
- indices out of range wrap around silently;
- what several equal indices write is left open (here the first value stays, in NumPy the last);
- only CuPy's methods exist, with CuPy's parameters.

In one thing it is stricter: CuPy allows ``float(x)``, ``int(x)`` and ``if x:``, each of which
makes the host wait for the device unseen. Here they raise; ``x.item()`` says it openly.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .surface import signature, surface
from .traffic import copied_to_host, note

SCALARS = (bool, int, float, complex, np.generic)


class Flags:
    """How an array lies in memory."""

    def __init__(self, flags: Any):
        self.c_contiguous = flags.c_contiguous
        self.f_contiguous = flags.f_contiguous
        self.owndata = flags.owndata

    def __getitem__(self, name: str) -> bool:
        return getattr(self, name.lower())


class Memory:
    """Where an array begins in the simulated device's memory."""

    def __init__(self, array: ndarray):
        self.ptr: int = array._host.ctypes.data
        self.device_id = 0


class ndarray:
    """An array that behaves as CuPy's does.

    Parameters
    ----------
    shape, dtype, order
        As in CuPy: memory of this form, with nothing sensible in it.

    Attributes
    ----------
    _host : numpy.ndarray
        The values: for the stand-in itself, and for kernels run on the CPU.
    base : ndarray or None
        The array whose memory this one shows.
    """

    __module__ = "cupy"
    __slots__ = ("__weakref__", "_host", "base")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float, order: Any = "C"):
        self._host = rubbish(np.empty(shape, dtype, order))
        self.base: ndarray | None = None

    # -- what it is ---------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self._host.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        self._host = self._host.reshape(shape, copy=False)

    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    strides = property(lambda self: self._host.strides)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    flags = property(lambda self: Flags(self._host.flags))
    data = property(Memory)
    T = property(lambda self: wrap(self._host.T, self))
    mT = property(lambda self: wrap(self._host.mT, self))
    real = property(lambda self: wrap(self._host.real, self))
    imag = property(lambda self: wrap(self._host.imag, self))

    @property
    def device(self) -> Any:
        from .module import Device

        return Device(0)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of unsized object")
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # -- to the host --------------------------------------------------------------------

    def get(self, stream: Any = None, order: Any = "C", out: Any = None, blocking: bool = True):
        """A copy in the host's memory."""
        copied_to_host()
        if out is None:
            return self._host.copy(order)
        out[...] = self._host
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Overwrite the values with those of a host's array of the same shape and dtype."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if (arr.dtype, arr.shape) != (self.dtype, self.shape):
            raise ValueError(f"{arr.dtype}{arr.shape} cannot be set to {self.dtype}{self.shape}")
        note("to_device")
        self._host[...] = arr

    def item(self) -> Any:
        """The value of the only element, as a Python number."""
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        copied_to_host()
        return self._host.item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        copied_to_host()
        return self._host.tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        """The values as bytes."""
        copied_to_host()
        return self._host.tobytes(order)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def _hidden_wait(self, what: str) -> Any:
        raise TypeError(
            f"{what} of an array on the device would make the host wait, unseen: write "
            "x.item() where that is meant (CuPy itself allows it)"
        )

    def __bool__(self) -> bool:
        return self._hidden_wait("the truth value")

    def __float__(self) -> float:
        return self._hidden_wait("float()")

    def __int__(self) -> int:
        return self._hidden_wait("int()")

    def __complex__(self) -> complex:
        return self._hidden_wait("complex()")

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    def __reduce__(self) -> tuple:
        return upload, (self.get(),)

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: dict) -> ndarray:
        return self.copy()

    if TYPE_CHECKING:  # attached below

        def __getattr__(self, name: str) -> Any: ...

    # -- elements -----------------------------------------------------------------------

    def __getitem__(self, index: Any) -> ndarray:
        chosen = host_index(self, index)
        found = self._host[chosen]
        if isinstance(found, np.generic):  # a number of NumPy's, but of CuPy's a view
            found = self._host[(*chosen, ...)]
        return wrap(found, self)

    def __setitem__(self, index: Any, value: Any) -> None:
        chosen = host_index(self, index)
        if not _picks(chosen):
            if isinstance(value, ndarray):
                self._host[chosen] = value._host
            else:
                self[index].fill(value)
            return
        value = device_operand(value, self.dtype)
        if repeats(chosen):
            # Several values may meet in one place, and which stays is left open by CuPy: the
            # first does here, as NumPy's users rely on the last.
            places = np.arange(self.size).reshape(self.shape)[chosen]
            values = np.broadcast_to(value, places.shape)
            self._host.flat[places.ravel()[::-1]] = values.ravel()[::-1]
        else:
            self._host[chosen] = value

    def fill(self, value: Any) -> None:
        """Set every element to a number."""
        if isinstance(value, ndarray):
            value = value._host
        value = np.asarray(value, self.dtype)
        if value.shape != ():
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self._host.fill(value)

    def take(self, indices: Any, axis: int | None = None, out: Any = None) -> ndarray:
        """Elements along an axis; indices out of range wrap around."""
        chosen = device_operand(indices)
        return wrap(self._host.take(chosen, axis, mode="wrap", out=host(out)), self, out)

    def scatter_add(self, slices: Any, value: Any) -> None:
        """CuPy's old name of ``cupy.add.at``."""
        warnings.warn("use cupy.add.at", DeprecationWarning, stacklevel=2)
        from .functions import cupy_ufunc

        cupy_ufunc("add").at(self, slices, value)

    # -- NumPy's functions ----------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **settings: Any) -> Any:
        from .functions import cupy_ufunc

        ours = cupy_ufunc(ufunc.__name__)
        if ours is None:
            return NotImplemented
        operands = inputs + settings.get("out", ())
        if not all(isinstance(x, (ndarray, np.ndarray, *SCALARS)) for x in operands):
            return NotImplemented
        if len(settings.get("out", ())) == 1:
            settings["out"] = settings["out"][0]
        return (ours if method == "__call__" else getattr(ours, method))(*inputs, **settings)

    def __array_function__(self, function: Any, types: Any, args: tuple, settings: dict) -> Any:
        from .functions import cupy_function

        ours = cupy_function(function.__module__, function.__name__)
        if ours is None or not all(issubclass(t, (ndarray, np.ndarray)) for t in types):
            return NotImplemented
        return ours(*args, **settings)


# -- between stand-in and NumPy -----------------------------------------------------------


def wrap(result: Any, *sources: Any) -> Any:
    """A NumPy result as the stand-in's array: one of `sources` itself, or a view of it, if it is.

    Tuples and lists are wrapped element by element; what is no array stays.
    """
    if isinstance(result, np.generic):
        result = np.asarray(result)
    if isinstance(result, (tuple, list)):
        return type(result)([wrap(item, *sources) for item in result])
    if not isinstance(result, np.ndarray):
        return result
    array = object.__new__(ndarray)
    array._host = result
    array.base = None
    owner = _owner(result)
    for source in sources:
        if isinstance(source, ndarray):
            if source._host is result:
                return source
            if _owner(source._host) is owner:
                array.base = source if source.base is None else source.base
    return array


def _owner(array: np.ndarray) -> Any:
    """The array whose memory a view shows; as_strided puts other objects between the two."""
    owner: Any = array
    base: Any = array
    while (base := getattr(base, "base", None)) is not None:
        owner = base
    return owner


def host(value: Any) -> Any:
    """A value with the stand-in's arrays in it replaced by their NumPy arrays.

    Raises
    ------
    TypeError
        If a NumPy array is in it: CuPy takes none.
    """
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if type(value) in (tuple, list):
        return type(value)(map(host, value))
    return value


def upload(values: Any, dtype: Any = None, order: Any = None) -> ndarray:
    """Values of the host, copied to the device."""
    values = np.array(_without_devices(values), dtype, order=order or "K")
    if values.dtype.kind not in "biufc" and values.dtype.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {values.dtype}")
    if values.dtype == np.longdouble or values.dtype == np.clongdouble:
        raise ValueError(f"Unsupported dtype {values.dtype}")
    note("to_device")
    return wrap(values)


def _without_devices(values: Any) -> Any:
    """Nested lists with the device's arrays in them, which CuPy joins on the device."""
    if isinstance(values, (tuple, list)):
        return [_without_devices(item) for item in values]
    return values._host if isinstance(values, ndarray) else values


def device_operand(value: Any, dtype: Any = None) -> np.ndarray:
    """What CuPy copies to the device by itself if it is not there: its values."""
    if not isinstance(value, ndarray):
        value = upload(value)
    return value._host if dtype is None else value._host.astype(dtype, copy=False)


def host_index(array: ndarray, index: Any) -> Any:
    """An index as NumPy takes it: arrays checked, copied to the device, and wrapped around."""
    parts = [_index_part(part) for part in (index if isinstance(index, tuple) else (index,))]
    given = sum(_axes_of(part) for part in parts)
    axis = 0
    for place, part in enumerate(parts):
        if part is Ellipsis:
            axis += array.ndim - given
        elif isinstance(part, np.ndarray) and part.dtype.kind != "b" and axis < array.ndim:
            length = array.shape[axis]
            parts[place] = part % length if length else part
        axis += 0 if part is Ellipsis else _axes_of(part)
    return tuple(parts)


def _index_part(part: Any) -> Any:
    if part is None or part is Ellipsis or isinstance(part, slice):
        return part
    if isinstance(part, SCALARS) and not isinstance(part, (bool, np.bool_)):
        return operator.index(part)  # type: ignore[arg-type]
    empty = isinstance(part, (tuple, list)) and not len(part)
    values = device_operand(part, np.int32 if empty else None)
    if values.dtype.kind not in "biu":
        raise IndexError(
            "arrays used as indices must be of integer or boolean type. "
            f"(actual: {values.dtype.type})"
        )
    if values.dtype.kind == "b":
        note("synchronisations")  # how many are True decides the shape
    return values


def _axes_of(part: Any) -> int:
    """How many axes of an array a part of an index takes."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else 1


def _picks(index: tuple) -> bool:
    """Whether an index picks by arrays (and the result is a copy)."""
    return any(isinstance(part, np.ndarray) for part in index)


def repeats(index: tuple) -> bool:
    """Whether an index may name a place twice."""
    return any(isinstance(part, np.ndarray) and part.dtype.kind != "b" for part in index)


def rubbish(values: np.ndarray) -> np.ndarray:
    """Memory as a busy pool hands it out: nothing that could be taken for a result."""
    values.ravel("K").view(np.uint8).fill(0xFF)  # NaN, or -1
    return values


# -- methods and operators ----------------------------------------------------------------


def _method(name: str, parameters: str) -> Callable:
    """CuPy's method of this name, computed by NumPy's."""
    allowed = signature(parameters)
    waits = name in ("nonzero", "compress")
    sorts = name in ("sort", "argsort", "partition", "argpartition")

    def method(self: ndarray, *args: Any, **settings: Any) -> Any:
        allowed.bind(*args, **settings)
        if sorts and self.dtype.name == "bfloat16":
            raise NotImplementedError("Sorting arrays with dtype 'bfloat16' is not supported")
        if settings.get("kind") not in (None, "stable"):
            raise ValueError("kind can only be None or 'stable'")
        if waits:
            note("synchronisations")
        with np.errstate(all="ignore"):
            result = getattr(self._host, name)(*host(args), **_host_settings(settings))
        return wrap(result, self, settings.get("out"))

    method.__name__ = name
    return method


def _host_settings(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: host(value) for name, value in settings.items()}


def _operator(name: str, place: str) -> Callable:
    """A binary operator as a method: `place` is "" (x + y), "r" (y + x) or "i" (x += y)."""

    def method(self: ndarray, other: Any) -> Any:
        from .functions import cupy_function, cupy_ufunc

        if not isinstance(other, ndarray) and getattr(other, "__array_ufunc__", self) is None:
            return NotImplemented
        if isinstance(other, np.ndarray) and other.ndim == 0 and name in _COMPARISONS:
            other = other.item()
        if not isinstance(other, (ndarray, np.ndarray, *SCALARS)):
            return NotImplemented
        compute = cupy_function("numpy", name) if name == "matmul" else cupy_ufunc(name)
        if place == "i":
            return compute(self, other, out=self)
        return compute(other, self) if place == "r" else compute(self, other)

    return method


_COMPARISONS = {
    "less": "lt",
    "less_equal": "le",
    "equal": "eq",
    "not_equal": "ne",
    "greater": "gt",
    "greater_equal": "ge",
}
_ARITHMETIC = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "truediv",
    "floor_divide": "floordiv",
    "remainder": "mod",
    "power": "pow",
    "left_shift": "lshift",
    "right_shift": "rshift",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
}
_UNARY = {"negative": "neg", "positive": "pos", "absolute": "abs", "invert": "invert"}


def _unary(name: str) -> Callable[[ndarray], ndarray]:
    def method(self: ndarray) -> ndarray:
        from .functions import cupy_ufunc

        return cupy_ufunc(name)(self)

    return method


def _attach(names: Iterable[tuple[str, Callable]]) -> None:
    for name, method in names:
        setattr(ndarray, name, method)


_attach(
    (name, _method(name, parameters))
    for name, parameters in surface()["methods"].items()
    if name not in ndarray.__dict__ and hasattr(np.ndarray, name)
)
_attach((f"__{short}__", _operator(name, "")) for name, short in _COMPARISONS.items())
_attach((f"__{short}__", _unary(name)) for name, short in _UNARY.items())
for _place in ("", "r", "i"):
    _attach(
        (f"__{_place}{short}__", _operator(name, _place)) for name, short in _ARITHMETIC.items()
    )
_attach([("__matmul__", _operator("matmul", "")), ("__rmatmul__", _operator("matmul", "r"))])
