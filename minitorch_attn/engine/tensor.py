"""Tensor: an array, its gradient, and its place in the graph."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backend, graph, mutation
from .backend import Array
from .dtypes import get_default_dtype
from .errors import DTypeError, GraphError, ShapeError
from .graph import Node, mode

_new = object.__new__


class Tensor:
    """An array that remembers how it was computed.

    `tensor(...)` makes one from data. A tensor that requires a gradient is a leaf; what is
    computed from it is recorded, and `backward()` fills the `.grad` of every leaf.
    Operators and methods (`x + y`, `x.sum()`, ...) are attached by `minitorch_attn.ops`.

    Parameters
    ----------
    data : array_like
        The values; an array is shared, not copied.
    requires_grad : bool
        Whether `backward()` should compute the gradient with respect to this tensor.

    Attributes
    ----------
    data : array
        A read-only view of the values. Write through the tensor (`x[...] = v`, `x.copy_(v)`),
        so that the engine knows of the change; `x.data = array` replaces the values.
    grad : Tensor or None
        Gradient that `backward()` has summed up so far, of the tensor's shape and dtype.
    """

    __slots__ = ("__weakref__", "_data", "_node", "_requires_grad", "grad")

    __array_ufunc__ = None  # lets `array * tensor` reach Tensor.__rmul__

    def __init__(self, data: Any, requires_grad: bool = False):
        self._data: Array = _as_array(data, None)
        self._node: Node | None = None
        self._requires_grad = False
        self.grad: Tensor | None = None
        self.requires_grad = requires_grad

    # -- what it holds ------------------------------------------------------------------

    @property
    def data(self) -> Array:
        return backend.read_only(self._data)

    @data.setter
    def data(self, values: Any) -> None:
        values = _as_array(values, self.dtype)
        if values.shape != self.shape:
            raise ShapeError(f"data of shape {values.shape} cannot replace data of {self.shape}")
        self._data = values

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.dtype.kind != "f":
            raise DTypeError(
                f"only floating-point tensors have gradients, this one is {self.dtype}: "
                "make it with dtype='float32'"
            )
        if not value and self._node is not None:
            raise GraphError("a computed tensor cannot stop requiring a gradient: use x.detach()")
        self._requires_grad = bool(value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._data.size

    @property
    def device(self) -> str:
        """`"cpu"` or `"cuda"`."""
        return backend.device_of(self._data)

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was made by the user, not computed from one that needs a gradient."""
        return self._node is None

    def numpy(self) -> np.ndarray:
        """The values as a read-only NumPy array (copied from the GPU if they lie there)."""
        return backend.read_only(backend.to_device(self._data, "cpu"))

    def item(self) -> float | int | bool:
        """The value of a one-element tensor as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item() needs exactly one element, the tensor has shape {self.shape}")
        return self._data.item()

    def tolist(self) -> Any:
        """The values as nested Python lists."""
        return self._data.tolist()

    # -- gradients ----------------------------------------------------------------------

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf it was computed from.

        Parameters
        ----------
        gradient : array_like, optional
            dL/d(this tensor), of its shape; may be left out for one element (then it is 1).
        retain_graph : bool
            Keep the graph for a second pass; otherwise it is released as the pass goes.

        Raises
        ------
        GraphError
            If nothing was recorded, or the graph was released by an earlier pass.
        ShapeError
            If `gradient` is missing for a tensor of several elements, or has another shape.
        """
        dy = self._seed(gradient)
        if self._node is None:
            if not self._requires_grad:
                raise GraphError(
                    "backward() found no graph: no tensor this was computed from requires a "
                    "gradient (make one with requires_grad=True), or it was computed in no_grad()"
                )
            self.accumulate_grad(dy)
            return
        for leaf, dx in graph.gradients(self._node, dy, retain_graph):
            leaf.accumulate_grad(dx)

    def _seed(self, gradient: Any) -> Array:
        if gradient is None:
            if self.size != 1:
                raise ShapeError(
                    "backward() without a gradient needs one element, this tensor has shape "
                    f"{self.shape}: reduce it first (for example .sum()), or pass gradient="
                )
            return backend.array_module(self._data).ones_like(self._data)
        dy = gradient._data if isinstance(gradient, Tensor) else _as_array(gradient, self.dtype)
        if dy.shape != self.shape:
            raise ShapeError(f"gradient of shape {dy.shape} for a tensor of shape {self.shape}")
        return dy.astype(self.dtype, copy=False)

    def accumulate_grad(self, dx: Array) -> None:
        """Add an array to `.grad`."""
        # A new array, never +=: the pass may have handed the same array to several leaves.
        self.grad = wrap(dx if self.grad is None else self.grad._data + dx, None)

    def detach(self) -> Tensor:
        """The same values without their history; memory is shared."""
        return wrap(self._data, None)

    def retain_grad(self) -> None:
        """Ask `backward()` to fill `.grad` of this computed tensor too."""
        if self._node is not None:
            self._node.retained_by = weakref.ref(self)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` and return the tensor."""
        self.requires_grad = requires_grad
        return self

    # -- writing in place ---------------------------------------------------------------

    def __setitem__(self, index: Any, value: Any) -> None:
        self._refuse_recorded_write("x[index] = value", value)
        self._data[_plain(index)] = _plain(value)
        mutation.note_write(self._data, graph.next_number())

    def copy_(self, values: Any) -> Tensor:
        """Overwrite the values in place."""
        self[...] = values
        return self

    def fill_(self, value: float) -> Tensor:
        """Set every element to a number, in place."""
        self[...] = value
        return self

    def zero_(self) -> Tensor:
        """Set every element to 0, in place."""
        return self.fill_(0)

    def _update(self, ufunc: np.ufunc, other: Any) -> Tensor:
        """`x += y` and its kin: in place where nothing is recorded, else a new tensor."""
        if mode.recording and (self._requires_grad or getattr(other, "_requires_grad", False)):
            if self._node is None and self._requires_grad:
                raise GraphError(
                    "a leaf that requires a gradient cannot be changed in place while operations "
                    "are recorded: update it inside `with no_grad():`"
                )
            return getattr(self, f"__{_OPERATOR[ufunc]}__")(other)
        ufunc(self._data, _plain(other), out=self._data, casting="same_kind")
        mutation.note_write(self._data, graph.next_number())
        return self

    def __iadd__(self, other: Any) -> Tensor:
        return self._update(np.add, other)

    def __isub__(self, other: Any) -> Tensor:
        return self._update(np.subtract, other)

    def __imul__(self, other: Any) -> Tensor:
        return self._update(np.multiply, other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._update(np.divide, other)

    def _refuse_recorded_write(self, what: str, value: Any) -> None:
        if mode.recording and (self._requires_grad or getattr(value, "_requires_grad", False)):
            raise GraphError(
                f"{what} cannot be recorded for a gradient: use where(), concatenate() or a mask "
                "instead, or write inside `with no_grad():`"
            )

    # -- Python's protocols -------------------------------------------------------------

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"only an integer tensor can be an index, this one is {self.dtype}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    __hash__ = object.__hash__  # by identity: == compares elements

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self.numpy()
        return np.array(values, dtype=dtype) if copy else np.asarray(values, dtype=dtype)

    def __deepcopy__(self, memo: dict) -> Tensor:
        if self._node is not None:
            raise GraphError("only leaf tensors can be deep-copied: use x.detach().clone()")
        copied = _new(type(self))
        memo[id(self)] = copied
        copied._data, copied._node = self._data.copy(), None
        copied._requires_grad = self._requires_grad
        copied.grad = None if self.grad is None else wrap(self.grad._data.copy(), None)
        return copied

    def __repr__(self) -> str:
        body = np.array2string(
            self.numpy(), separator=", ", precision=4, threshold=100, prefix="tensor("
        )
        notes = "" if self.dtype in (get_default_dtype(), np.int64, np.bool_) else f", {self.dtype}"
        if self.device != "cpu":
            notes += f", device={self.device!r}"
        if self._node is not None:
            notes += f", op=<{self._node.name}>"
        elif self._requires_grad:
            notes += ", requires_grad=True"
        return f"tensor({body}{notes})"

    if TYPE_CHECKING:  # attached by minitorch_attn.ops

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...


_OPERATOR = {np.add: "add", np.subtract: "sub", np.multiply: "mul", np.divide: "truediv"}


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Make a tensor from numbers, nested lists or an array; the data is copied.

    Parameters
    ----------
    data : array_like
        The values.
    dtype : dtype, optional
        Type of the elements. Left out, an array keeps its own and Python floats get the default
        dtype (float32, see `set_default_dtype`).
    requires_grad : bool
        Whether `backward()` should compute the gradient with respect to this tensor.

    Raises
    ------
    DTypeError
        If the values are not numbers, or a gradient is asked of integers.
    """
    values = _as_array(data, dtype)
    return Tensor(values.copy() if np.shares_memory(values, data) else values, requires_grad)


def as_tensor(data: Any, dtype: Any = None) -> Tensor:
    """A tensor that shares its memory with an array where it can; a tensor is returned as it is.

    The engine cannot see writes to the array itself: do not change it between a computation and
    its `backward()`.
    """
    if isinstance(data, Tensor) and dtype in (None, data.dtype):
        return data
    return wrap(_as_array(data, dtype), None)


def wrap(array: Array, node: Node | None) -> Tensor:
    """A tensor around an array, made by a node of the graph (without the checks of `Tensor`)."""
    tensor = _new(Tensor)
    tensor._data = array
    tensor._node = node
    tensor._requires_grad = node is not None
    tensor.grad = None
    return tensor


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside: for evaluation, and for updating parameters in place."""
    before, mode.recording = mode.recording, False
    try:
        yield
    finally:
        mode.recording = before


@contextlib.contextmanager
def enable_grad() -> Iterator[None]:
    """Record again inside a `no_grad()` block."""
    before, mode.recording = mode.recording, True
    try:
        yield
    finally:
        mode.recording = before


def is_grad_enabled() -> bool:
    """Whether operations are being recorded."""
    return mode.recording


def _as_array(data: Any, dtype: Any) -> Array:
    if isinstance(data, Tensor):
        data = data._data
    if not backend.is_array(data):
        typed = isinstance(data, np.generic)
        try:
            data = np.asarray([_plain(x) for x in data] if isinstance(data, list) else data)
        except ValueError as error:
            raise ShapeError(f"tensor: nested lists of unequal lengths ({error})") from None
        if data.dtype == np.float64 and not typed and dtype is None:
            dtype = get_default_dtype()
    if data.dtype.kind not in "fiub":
        raise DTypeError(f"a tensor holds floats, integers or booleans, not {data.dtype}")
    return data if dtype is None else data.astype(dtype, copy=False)


def _plain(value: Any) -> Any:
    """A value or index with its tensors replaced by their arrays."""
    if isinstance(value, Tensor):
        return value._data
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(v) for v in value)
    return value
