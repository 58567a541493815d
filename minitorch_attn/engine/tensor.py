"""Tensor: an array, its gradient, and its place in the graph."""

from __future__ import annotations

import contextlib
import copy
import operator
import weakref
from collections.abc import Callable, Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from . import backend, devices, graph, mutation
from .backend import Array
from .dtypes import as_dtype, get_default_dtype, is_floating, unwidened
from .errors import DeviceError, DTypeError, GraphError, ShapeError, describe, explain, no_such_dim
from .graph import Node, mode

_new = object.__new__


def _in_place(sign: str, compute: Callable, update: Callable) -> Callable[[Tensor, Any], Tensor]:
    """The operator `x += y`, or another, as a method."""

    def method(self: Tensor, other: Any) -> Tensor:
        return self._update(f"x {sign}= y", compute, update, other)

    return method


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
        so that the engine knows of the change; `x.data = array` replaces the values by a copy.
    grad : Tensor or None
        Gradient that `backward()` has summed up so far, of the tensor's shape and dtype.
    """

    # _node is where gradients of this tensor meet in the graph; None if it needs no gradient.
    __slots__ = ("__weakref__", "_data", "_grad", "_node")

    __array_ufunc__ = None  # lets `array * tensor` reach Tensor.__rmul__

    def __init__(self, data: Any, requires_grad: bool = False):
        self._data: Array = as_numbers(data)
        self._node: Node | None = None
        self._grad: Tensor | None = None
        self.requires_grad = requires_grad

    # -- what it holds ------------------------------------------------------------------

    @property
    def data(self) -> Array:
        return backend.read_only(self._data)

    @data.setter
    def data(self, given: Any) -> None:
        values = as_numbers(given).copy()
        if not isinstance(given, Tensor):  # a constant comes along, a tensor says where it lies
            values = backend.to_device(values, self.device)
        if values.shape != self.shape:
            raise ShapeError(f"data of shape {values.shape} cannot replace data of {self.shape}")
        if self.requires_grad:
            _check_floating(values)
        self._data = values
        if self._node is not None and self.is_leaf and self._node.dtype != values.dtype:
            self._node = self._leaf_node()

    @property
    def grad(self) -> Tensor | None:
        return self._grad

    @grad.setter
    def grad(self, gradient: Tensor | None) -> None:
        if gradient is not None and getattr(gradient, "shape", None) != self.shape:
            raise ShapeError(
                f"the gradient of a tensor of shape {self.shape} is a tensor of that shape, or "
                f"None to forget it, not {describe(gradient)}"
            )
        if gradient is not None and backend.gpu_in_use:
            devices.common_device("x.grad = gradient", {"x": self, "gradient": gradient})
            gradient = devices.moved(gradient, self.device)
        self._grad = None if gradient is None else as_tensor(gradient)

    @property
    def requires_grad(self) -> bool:
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not self.is_leaf:
            if not value:
                raise GraphError("a computed tensor keeps requiring a gradient: use x.detach()")
        elif not value:
            self._node = None
        elif self._node is None:
            _check_floating(self._data)
            self._node = self._leaf_node()

    def _leaf_node(self) -> Node:
        node = Node("leaf", (), self._data)
        node.target = weakref.ref(self)
        return node

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def ndim(self) -> int:
        return self._data.ndim

    def dim(self) -> int:
        """Number of axes."""
        return self._data.ndim

    def numel(self) -> int:
        """Number of elements."""
        return self._data.size

    def size(self, dim: int | None = None) -> Any:
        """The shape, or its size along one axis."""
        if dim is None:
            return self.shape
        if not -self.ndim <= dim < self.ndim:
            raise IndexError(f"size: {no_such_dim(dim, self.ndim)}")
        return self.shape[dim]

    @property
    def device(self) -> str:
        """`"cpu"` or `"cuda"`."""
        return backend.device_of(self._data)

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was made by the user, not computed from one that needs a gradient."""
        return self._node is None or self._node.edges == ()

    def numpy(self) -> np.ndarray:
        """The values as a read-only NumPy array (copied from the GPU if they lie there)."""
        return backend.read_only(backend.to_device(self._data, "cpu"))

    def item(self) -> float | int | bool:
        """The value of a one-element tensor as a Python number."""
        if self.numel() != 1:
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
        for node, dx in _gradients(self, gradient, retain_graph).items():
            if node.target is not None and (tensor := node.target()) is not None:
                tensor.accumulate_grad(dx)

    def accumulate_grad(self, dx: Array) -> None:
        """Add an array to `.grad`, which never shares memory with it."""
        total = dx.copy("K") if self._grad is None else self._grad._data + dx
        self._grad = wrap(backend.as_array(total), None)

    def detach(self) -> Tensor:
        """The same values without their history; memory is shared."""
        return wrap(self._data, None)

    def retain_grad(self) -> None:
        """Ask `backward()` to fill `.grad` of this computed tensor too."""
        if self._node is None:
            raise GraphError("retain_grad() needs a tensor that requires a gradient")
        self._node.target = weakref.ref(self)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self._grad = None

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` and return the tensor."""
        self.requires_grad = requires_grad
        return self

    # -- writing in place ---------------------------------------------------------------

    def __setitem__(self, index: Any, value: Any) -> None:
        self._assign("x[index] = value", index, value)

    def copy_(self, values: Any) -> Tensor:
        """Overwrite the values in place, by values that may lie on another device."""
        return self._assign("x.copy_(values)", ..., values)

    def fill_(self, value: float) -> Tensor:
        """Set every element to a number, in place."""
        return self._assign("x.fill_(value)", ..., value)

    def zero_(self) -> Tensor:
        """Set every element to 0, in place."""
        return self._assign("x.zero_()", ..., 0)

    def _assign(self, what: str, index: Any, value: Any) -> Tensor:
        if mode.recording and (self.requires_grad or getattr(value, "requires_grad", False)):
            raise GraphError(
                f"{what} cannot be recorded for a gradient: use where(), concatenate() "
                "or a mask instead, or write inside `with no_grad():`"
            )
        self._write(what, operator.setitem, self._data, _plain(index), _plain(value))
        return self

    __iadd__ = _in_place("+", operator.add, operator.iadd)
    __isub__ = _in_place("-", operator.sub, operator.isub)
    __imul__ = _in_place("*", operator.mul, operator.imul)
    __itruediv__ = _in_place("/", operator.truediv, operator.itruediv)
    __ifloordiv__ = _in_place("//", operator.floordiv, operator.ifloordiv)
    __imod__ = _in_place("%", operator.mod, operator.imod)
    __ipow__ = _in_place("**", operator.pow, operator.ipow)
    __iand__ = _in_place("&", operator.and_, operator.iand)
    __ior__ = _in_place("|", operator.or_, operator.ior)
    __ixor__ = _in_place("^", operator.xor, operator.ixor)

    def _update(self, what: str, compute: Callable, update: Callable, other: Any) -> Tensor:
        """In place where nothing is recorded; else a new tensor, that the name is bound to."""
        if mode.recording and (self.requires_grad or getattr(other, "requires_grad", False)):
            if self.is_leaf and self.requires_grad:
                raise GraphError(
                    "a leaf that requires a gradient cannot be changed in place while operations "
                    "are recorded: update it inside `with no_grad():`"
                )
            return compute(self, other)
        if backend.gpu_in_use:
            devices.common_device(what, {"x": self, "y": other})
        self._write(what, update, self._data, _plain(other))
        return self

    def _write(self, what: str, write: Callable, *arguments: Any) -> None:
        """Write into the array, so that the graph hears of it and errors say what was done."""
        if backend.gpu_in_use:
            arguments = tuple(devices.moved(x, self.device) for x in arguments)
        mutation.note_write(self._data)
        try:
            write(*arguments)
        except (ValueError, TypeError, IndexError) as error:
            raise explain(error, what, (self, arguments[-1])) from error

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
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __copy__(self) -> Self:
        return _new(type(self))._become(*self._leaf())

    def __deepcopy__(self, memo: dict) -> Self:
        return _new(type(self))._become(*copy.deepcopy(self._leaf(), memo))

    def __getstate__(self) -> tuple:  # a pickle holds arrays of NumPy, and says where they lay
        values, requires_grad, gradient = self._leaf()
        return backend.to_device(values, "cpu"), self.device, requires_grad, gradient

    def __setstate__(self, state: tuple) -> None:
        values, device, requires_grad, gradient = state
        try:
            values = backend.to_device(values, device)
        except (DeviceError, ImportError) as error:
            raise type(error)(
                f"{error}; to load a tensor or model without a GPU, pickle x.cpu() or model.cpu()"
            ) from None
        self._become(values, requires_grad, gradient)

    def _leaf(self) -> tuple[Array, bool, Tensor | None]:
        """What a copy is made of."""
        if not self.is_leaf:
            raise GraphError("only leaf tensors can be copied or pickled: use x.detach()")
        return self._data, self.requires_grad, self.grad

    def _become(self, values: Array, requires_grad: bool, gradient: Tensor | None) -> Self:
        self._data, self._node, self._grad = values, None, gradient
        self.requires_grad = requires_grad
        return self

    def __repr__(self) -> str:
        body = np.array2string(
            self.numpy(), separator=", ", precision=4, threshold=100, prefix="tensor("
        )
        notes = f", shape={self.shape}" if self.numel() == 0 else ""
        if self.dtype not in (get_default_dtype(), np.int64, np.bool_):
            notes += f", dtype={self.dtype}"
        if self.device != "cpu":
            notes += f", device={self.device!r}"
        if self._node is not None:
            notes += ", requires_grad=True" if self.is_leaf else f", op=<{self._node.name}>"
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
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __rand__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __ror__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __rxor__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...


def tensor(
    data: Any, dtype: Any = None, requires_grad: bool = False, device: str | None = None
) -> Tensor:
    """Make a tensor from numbers, nested lists or an array; the data is copied.

    Parameters
    ----------
    data : array_like
        The values. Of a tensor they are copied without their history.
    dtype : dtype, optional
        Type of the elements. Left out, whatever has a dtype keeps it and Python floats get the
        default one (float32, see `set_default_dtype`).
    requires_grad : bool
        Whether `backward()` should compute the gradient with respect to this tensor.
    device : "cpu" or "cuda", optional
        Where the copy lies. Left out, a tensor or an array of a GPU stays where it is, anything
        else goes to the default device (see `set_default_device`).

    Raises
    ------
    DeviceError
        If there is no such device, or no GPU that can be used.
    DTypeError
        If the values are not numbers, or a gradient is asked of integers.
    ShapeError
        If nested lists differ in length.
    """
    values = as_numbers(data, dtype)
    if backend.gpu_in_use or device is not None:
        stays = isinstance(data, Tensor) or backend.on_gpu(values)
        device = backend.device_of(values) if stays and device is None else backend.placed(device)
        if device != backend.device_of(values):
            return Tensor(backend.to_device(values, device), requires_grad)
    return Tensor(values.copy(), requires_grad)


def as_tensor(data: Any, dtype: Any = None) -> Tensor:
    """A tensor that shares its memory with an array where it can; a tensor is returned as it is.

    The engine cannot see writes to the array itself: do not change it between a computation and
    its `backward()`. A tensor of another dtype is converted, as by `x.to(dtype)`.
    """
    if isinstance(data, Tensor):
        return data if dtype in (None, data.dtype) else data.to(dtype)
    return wrap(as_numbers(data, dtype), None)


def operand(data: Any) -> Tensor:
    """A tensor as it is; anything else as a constant, copied."""
    return data if isinstance(data, Tensor) else tensor(data)


def as_operands(*data: Any) -> list[Any]:
    """Tensors and None as they are; anything else as a constant, copied to the tensors' device."""
    device = next((x.device for x in data if isinstance(x, Tensor)), None)
    return [x if x is None or isinstance(x, Tensor) else tensor(x, device=device) for x in data]


def wrap(array: Array, node: Node | None) -> Tensor:
    """A tensor around an array, made by a node of the graph (without the checks of `Tensor`)."""
    tensor = _new(Tensor)
    tensor._data = array
    tensor._node = node
    tensor._grad = None
    return tensor


def grad(
    output: Tensor,
    inputs: Tensor | Sequence[Tensor],
    grad_output: Any = None,
    retain_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of one tensor with respect to others, without touching any `.grad`.

    Parameters
    ----------
    output : Tensor
        What to differentiate.
    inputs : Tensor or sequence of Tensor
        Leaves or computed tensors that `output` was computed from.
    grad_output : array_like, optional
        dL/d(output), of its shape; may be left out for one element (then it is 1).
    retain_graph : bool
        Keep the graph for a second pass; otherwise it is released as the pass goes.
    allow_unused : bool
        Give None for an input that `output` was not computed from, instead of an error.

    Returns
    -------
    tuple of Tensor
        One gradient per input, of its shape and dtype.

    Raises
    ------
    GraphError
        If `output` was not computed from an input, and as in `Tensor.backward`.
    ShapeError
        As in `Tensor.backward`.
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    wanted = {x._node for x in inputs if x._node is not None}
    found = _gradients(output, grad_output, retain_graph, wanted)
    gradients: list[Tensor | None] = []
    for i, x in enumerate(inputs):
        dx = None if x._node is None else found.get(x._node)
        if dx is None and not allow_unused:
            raise GraphError(
                f"grad(): no gradient reaches input {i} of shape {x.shape}: the output was not "
                "computed from it, or it requires none"
            )
        gradients.append(None if dx is None else wrap(dx.copy(), None))
    return tuple(gradients)


def _gradients(
    output: Tensor, dy: Any, retain_graph: bool, wanted: Set[Node] = frozenset()
) -> dict[Node, Array]:
    """The reverse pass from a tensor, with its gradient checked, or 1 if it was left out."""
    if output._node is None:
        raise GraphError(
            "backward() found no graph: no tensor this was computed from requires a gradient "
            "(make one with requires_grad=True), or it was computed in no_grad()"
        )
    if dy is None:
        if output.numel() != 1:
            raise ShapeError(
                "backward() without a gradient needs one element, this tensor has shape "
                f"{output.shape}: reduce it first (for example .sum()), or pass gradient="
            )
        dy = backend.array_module(output._data).ones_like(output._data)
    dy = backend.to_device(as_numbers(dy, output.dtype), output.device)
    if dy.shape != output.shape:
        raise ShapeError(f"gradient of shape {dy.shape} for a tensor of shape {output.shape}")
    return graph.gradients(output._node, dy, retain_graph, wanted)


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


def as_numbers(data: Any, dtype: Any = None) -> Array:
    """Data as an array of numbers, with memory shared where that can be."""
    if isinstance(data, Tensor):
        data = data._data
    if isinstance(data, np.ndarray):
        values = np.asarray(data)  # without NumPy's subclasses, whose operators differ
    elif backend.is_array(data):
        values = data
    else:
        try:
            plain = _plain(data)
            values = np.asarray(devices.moved(plain, "cpu") if backend.gpu_in_use else plain)
        except ValueError as error:
            raise ShapeError(f"nested lists of unequal lengths make no tensor ({error})") from None
        if values.dtype == np.float64 and dtype is None and not hasattr(data, "dtype"):
            values = unwidened(values, list(_typed(data)))
    dtype = values.dtype if dtype is None else as_dtype(dtype)
    if not _holds_numbers(values.dtype) or not _holds_numbers(dtype):
        given = describe(data) if values.dtype == object else f"{values.dtype} as {dtype}"
        raise DTypeError(f"a tensor holds floats, integers or booleans, not {given}")
    return values.astype(dtype, copy=False)


def _holds_numbers(dtype: np.dtype) -> bool:
    return dtype.kind in "fiub" or is_floating(as_dtype(dtype))


def _check_floating(values: Array) -> None:
    if not is_floating(values.dtype):
        raise DTypeError(
            f"only floating-point tensors have gradients, this one is {values.dtype}: "
            "make it with dtype='float32'"
        )


def _typed(data: Any) -> Iterator[Any]:
    """What brings its own dtype in nested lists."""
    if isinstance(data, (tuple, list)):
        for item in data:
            yield from _typed(item)
    elif hasattr(data, "dtype"):
        yield data


def _plain(value: Any) -> Any:
    """A value or index with its tensors replaced by their arrays."""
    if isinstance(value, Tensor):
        return value._data
    if isinstance(value, (tuple, list)):
        return (tuple if isinstance(value, tuple) else list)(map(_plain, value))
    return value
