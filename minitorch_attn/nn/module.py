"""Module: parameters, buffers and other modules under one name, and what is done to them all."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..engine import DTypeError, Tensor, as_tensor, inside_layer, no_grad
from ..engine.dtypes import as_dtype, is_floating
from ..engine.graph import mode
from ..ops.conversion import dtype_and_device
from .hooks import RemovableHandle
from .parameter import Parameter
from .representation import title, tree
from .state import IncompatibleKeys, compare


class Module:
    """A layer, or a network of layers.

    A subclass calls `super().__init__()`, then assigns its parameters and the modules it is made
    of to attributes, and says in `forward` what it computes::

        class Scale(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.weight = nn.Parameter(mt.ones(channels))

            def forward(self, x):
                return x * self.weight

    The attributes' names, joined by dots, are the names of the parameters
    (`stages.0.conv1.weight`). Calling the module runs `forward` and the hooks.

    Attributes
    ----------
    training : bool
        Whether layers that behave differently in training (dropout, batch normalisation) do so.
    """

    training: bool

    def __init__(self) -> None:
        self.training = True
        self._buffer_names: dict[str, bool] = {}  # name -> persistent
        self._forward_hooks: dict[int, Callable] = {}
        self._forward_pre_hooks: dict[int, Callable] = {}

    def forward(self, *inputs: Any, **settings: Any) -> Any:
        """Compute the output from the inputs: what a subclass defines."""
        raise NotImplementedError(
            f"{type(self).__name__} has no forward(): define what it computes from its inputs"
        )

    def __call__(self, *inputs: Any, **settings: Any) -> Any:
        if mode.inspector is None:
            return self._run(inputs, settings)
        with _shown_to_inspector(self):
            return self._run(inputs, settings)

    def _run(self, inputs: tuple, settings: dict) -> Any:
        for hook in tuple(self._forward_pre_hooks.values()):
            changed = hook(self, inputs)
            if changed is not None:
                inputs = changed if isinstance(changed, tuple) else (changed,)
        try:
            output = self.forward(*inputs, **settings)
        except _ERRORS_TO_LOCATE as error:
            _name_layer(error, self)
            raise
        for hook in tuple(self._forward_hooks.values()):
            changed = hook(self, inputs, output)
            if changed is not None:
                output = changed
        return output

    # -- what it is made of -------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        attributes = self.__dict__
        if isinstance(value, (Parameter, Module)) and "training" not in attributes:
            raise AttributeError(
                f"cannot assign {name!r} yet: call super().__init__() first in "
                f"{type(self).__name__}.__init__()"
            )
        if value is not None:
            self._check_kind(name, value)
        object.__setattr__(self, name, value)

    def _check_kind(self, name: str, value: Any) -> None:
        """Refuse a value by which a parameter, a buffer or a part would be lost unnoticed."""
        before = self.__dict__.get(name)
        kind: type[Tensor] | type[Module]
        if isinstance(before, Parameter):
            kind, what = Parameter, "parameter"
            mend = "nn.Parameter(...), or overwrite its values with "
            mend += f"`{name}.copy_(...)` inside `with no_grad():`"
        elif isinstance(before, Module):
            kind, what, mend = Module, "part", "an nn.Module; nn.Identity() passes its input on"
        elif name in self.__dict__.get("_buffer_names", ()):
            kind, what = Tensor, "buffer"
            mend = f"a tensor, or overwrite its values with `{name}.copy_(...)`"
        else:
            return
        if not isinstance(value, kind):
            raise TypeError(
                f"{name!r} is a {what} of {type(self).__name__} and must stay one, not a "
                f"{type(value).__name__}: assign {mend}"
            )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            what = f"{type(self).__name__!r} object has no attribute {name!r}"
            if "training" not in self.__dict__:
                what += f": call super().__init__() first in {type(self).__name__}.__init__()"
            raise AttributeError(what, name=name, obj=self)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Keep a tensor that belongs to the module but is not trained, such as a running mean.

        Parameters
        ----------
        name : str
            The attribute it is kept under.
        tensor : Tensor or None
            Its values; None is a place that is kept free.
        persistent : bool
            Whether it is part of the state dict.
        """
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"buffer {name!r} must be a Tensor or None, not {tensor!r}")
        self._check_name(name, known=name in self._buffer_names)
        self._buffer_names[name] = persistent
        setattr(self, name, tensor)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Assign a parameter to an attribute whose name is given as a string."""
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(f"{name!r} must be an nn.Parameter or None, not {parameter!r}")
        self._check_name(name, known=isinstance(self.__dict__.get(name), Parameter))
        setattr(self, name, parameter)

    def add_module(self, name: str, module: Module | None) -> None:
        """Assign a module to an attribute whose name is given as a string."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{name!r} must be an nn.Module or None, not {module!r}")
        self._check_name(name, known=isinstance(self.__dict__.get(name), Module))
        setattr(self, name, module)

    def _check_name(self, name: str, known: bool) -> None:
        if not isinstance(name, str) or name == "" or "." in name:
            raise KeyError(f"a name must be a string without dots, and not empty: {name!r}")
        if not known and hasattr(self, name):
            raise KeyError(f"{type(self).__name__} already has an attribute {name!r}")

    def _own_parameters(self) -> dict[str, Parameter]:
        return {name: p for name, p in vars(self).items() if isinstance(p, Parameter)}

    def _own_buffers(self) -> dict[str, Tensor]:
        tensors = {name: vars(self).get(name) for name in self._buffer_names}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules it is directly made of, with their names."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        """The modules it is directly made of."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """The module itself and all that it is made of, each once, with dotted names."""
        seen = set()
        for name, module in self._walk(prefix):
            if module not in seen:
                seen.add(module)
                yield name, module

    def _walk(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Like `named_modules`, but a module that is used twice comes under both its names."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(_join(prefix, name))

    def modules(self) -> Iterator[Module]:
        """The module itself and all that it is made of, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """All parameters, each once, with dotted names."""
        seen = set()
        for path, module in self.named_modules(prefix):
            for name, p in module._own_parameters().items():
                if p not in seen:
                    seen.add(p)
                    yield _join(path, name), p

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once: what an optimiser is given."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """All buffers, with dotted names."""
        for path, module in self.named_modules(prefix):
            for name, tensor in module._own_buffers().items():
                yield _join(path, name), tensor

    def buffers(self) -> Iterator[Tensor]:
        """All buffers."""
        return (tensor for _, tensor in self.named_buffers())

    def get_submodule(self, target: str) -> Module:
        """The module of a dotted name: `model.get_submodule("stages.0.attention")`.

        Raises
        ------
        AttributeError
            If there is none.
        """
        module = self
        for name in target.split(".") if target else ():
            found = vars(module).get(name)
            if not isinstance(found, Module):
                names = ", ".join(n for n, _ in module.named_children()) or "none"
                raise AttributeError(
                    f"no module {target!r}: {type(module).__name__} has no part {name!r} "
                    f"(its parts: {names})"
                )
            module = found
        return module

    # -- its state ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """A snapshot of all parameters and persistent buffers, by name.

        The values are copies: what the module learns later does not change them. (PyTorch's
        share their memory with the module; there, copy what you want to keep.)
        """
        return {name: Tensor(tensor.data.copy()) for name, tensor in self._state().items()}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> IncompatibleKeys:
        """Overwrite parameters and buffers with saved values, in place.

        Either all of it is loaded or, if something does not fit, nothing. Values are converted to
        the dtype and device that the module has.

        Parameters
        ----------
        state_dict : dict of str to Tensor or array
            What `state_dict()` or `minitorch_attn.load()` returned.
        strict : bool
            Whether every name must be on both sides. Shapes must agree in any case.

        Returns
        -------
        (missing_keys, unexpected_keys)
            Names that only the module has, and names that only the state dict has.

        Raises
        ------
        RuntimeError
            If it does not fit: says all that is missing, unexpected or of another shape.
        """
        own = self._state()
        given = {name: as_tensor(values) for name, values in state_dict.items()}
        difference = compare(own, given)
        if problems := difference.problems(strict):
            raise RuntimeError(
                f"the state dict does not fit {type(self).__name__}, nothing was loaded:\n"
                + "\n".join(f"  {problem}" for problem in problems)
            )
        with no_grad():
            for name in own.keys() & given.keys():
                own[name].copy_(given[name])
        return IncompatibleKeys(difference.missing, difference.unexpected)

    def _state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for path, module in self._walk():
            tensors = module._own_parameters() | {
                name: tensor
                for name, tensor in module._own_buffers().items()
                if module._buffer_names[name]
            }
            state |= {_join(path, name): tensor for name, tensor in tensors.items()}
        return state

    # -- what is done to all of it ------------------------------------------------------

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call a function with every part, then with the module itself."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def train(self, training: bool = True) -> Self:
        """Put the module and its parts into training mode (or out of it)."""
        for module in self.modules():
            module.training = training
        return self

    def eval(self) -> Self:
        """Put the module and its parts into evaluation mode."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Say whether the parameters are trained; `False` freezes them."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters():
            p.zero_grad()

    def to(self, *targets: Any, dtype: Any = None, device: str | None = None) -> Self:
        """Convert parameters and buffers, in place: `to("cuda")`, `to("float64")`, or both.

        Parameters
        ----------
        *targets : str, dtype or Tensor
            "cpu" or "cuda" is a device, anything else a dtype; a tensor stands for its own.
        dtype : dtype, optional
            The floating-point type of what is floating-point; integer buffers stay as they are.
        device : str, optional
            "cpu" or "cuda".

        Raises
        ------
        DTypeError
            If there is no such dtype, or it is not a floating-point type.
        DeviceError
            If there is no such device, or no GPU that can be used.
        """
        dtype, device = dtype_and_device(targets, dtype, device)
        if dtype is not None and not is_floating(as_dtype(dtype)):
            raise DTypeError(f"parameters must be floating-point numbers, not {as_dtype(dtype)}")
        for tensor in itertools.chain(self.parameters(), self.buffers()):
            kept = dtype if is_floating(tensor.dtype) else None
            converted = tensor.detach().to(dtype=kept, device=device)
            if (converted.dtype, converted.device) != (tensor.dtype, tensor.device):
                tensor.data = converted  # still the same tensor: an optimiser may hold it
            if tensor.grad is not None:
                tensor.grad = tensor.grad.to(dtype=kept, device=device)
        return self

    def cuda(self) -> Self:
        """Move parameters and buffers to the GPU."""
        return self.to("cuda")

    def cpu(self) -> Self:
        """Move parameters and buffers to the CPU."""
        return self.to("cpu")

    def half(self) -> Self:
        """Convert parameters and buffers to float16."""
        return self.to(np.float16)

    def bfloat16(self) -> Self:
        """Convert parameters and buffers to bfloat16."""
        return self.to("bfloat16")

    def float(self) -> Self:
        """Convert parameters and buffers to float32."""
        return self.to(np.float32)

    def double(self) -> Self:
        """Convert parameters and buffers to float64, as a gradient check needs them."""
        return self.to(np.float64)

    def register_forward_hook(self, hook: Callable) -> RemovableHandle:
        """Call `hook(module, inputs, output)` after every forward.

        What the hook returns, unless it is None, replaces the output. Attention maps are looked
        at in this way, without a change to the module.
        """
        return RemovableHandle(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call `hook(module, inputs)` before every forward.

        What the hook returns, unless it is None, replaces the inputs.
        """
        return RemovableHandle(self._forward_pre_hooks, hook)

    def extra_repr(self) -> str:
        """The settings to print between the parentheses of the module's name."""
        return ""

    def __repr__(self) -> str:
        return tree(self)


# -- which layer is running ---------------------------------------------------------------


class _Running(threading.local):
    """The modules that are being called in this thread, while an inspector looks on."""

    def __init__(self) -> None:
        self.modules: list[Module] = []


_running = _Running()


@contextlib.contextmanager
def _shown_to_inspector(module: Module) -> Iterator[None]:
    callers = _running.modules
    name = _name_within(callers[-1], module) if callers else type(module).__name__
    callers.append(module)
    try:
        with inside_layer(name):
            yield
    finally:
        callers.pop()


# An AnomalyError names its layer itself; a KeyError is printed as its key, not as a sentence.
_ERRORS_TO_LOCATE = (ValueError, TypeError, RuntimeError, IndexError, AttributeError)


def _name_layer(error: Exception, module: Module) -> None:
    """Add to an error which layer it came from; every module on its way out adds its name."""
    if len(error.args) != 1 or not isinstance(error.args[0], str):
        return  # not a message: some errors keep other things there
    message, layers = vars(error).setdefault("raised_in", (str(error), []))
    layers.insert(0, module)
    names = [type(module).__name__]
    names += [_name_within(outer, inner) for outer, inner in itertools.pairwise(layers)]
    error.args = (f"{message} (in layer {'.'.join(names)}: {title(layers[-1])})",)


def _name_within(outer: Module, inner: Module) -> str:
    names = (name for name, module in outer.named_modules() if module is inner)
    return next(names, type(inner).__name__)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
