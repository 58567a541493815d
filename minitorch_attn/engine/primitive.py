"""`@primitive`: the one door from arrays into the graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .backend import Array, is_array
from .errors import DeviceError, DTypeError, ShapeError, explain
from .graph import Node, mode
from .tensor import Tensor, wrap


def primitive(forward: Callable[..., tuple[Array, Any]]) -> Callable[..., Tensor]:
    """Make a differentiable operation of a function of arrays.

    The function returns its output and, for each positional input, the rule that carries a
    gradient of the output back to that input (None for an input that has no gradient)::

        @primitive
        def multiply(a, b):
            def vjp_a(dy):
                return dy * b

            def vjp_b(dy):
                return dy * a

            return a * b, (vjp_a, vjp_b)

    Positional arguments are differentiable inputs, keyword-only arguments are settings. A rule
    may return its gradient in the output's broadcast shape: the engine sums it to the input's.
    Only rules whose input requires a gradient are kept, and with them what they captured.

    Parameters
    ----------
    forward : callable
        ``forward(*arrays, **settings) -> (array, rule)`` or ``(array, (rule, rule, ...))``.

    Returns
    -------
    callable
        The same function on tensors; arrays and numbers are taken as constants. The function
        of arrays remains its ``__wrapped__``.
    """
    name = forward.__name__.strip("_")

    @functools.wraps(forward)
    def apply(*inputs: Any, **settings: Any) -> Tensor:
        arrays = []
        needed = False
        for x in inputs:
            if isinstance(x, Tensor):
                arrays.append(x._data)
                needed = needed or x._requires_grad
            else:
                arrays.append(_constant(name, x))
        try:
            y, rules = forward(*arrays, **settings)
        except (ValueError, TypeError, IndexError) as error:
            raise _explained(error, name, inputs, arrays) from error
        if not isinstance(y, np.ndarray) and not is_array(y):
            y = np.asarray(y)  # NumPy's ufuncs turn 0-d arrays into scalars
        if mode.inspector is not None:
            mode.inspector.after_op(name, y, arrays)
        if not (needed and mode.recording):
            return wrap(y, None)
        if callable(rules):
            rules = (rules,)
        edges = []
        for x, array, rule in zip(inputs, arrays, rules, strict=True):
            if isinstance(x, Tensor) and x._requires_grad and rule is not None:
                source = x if x._node is None else x._node
                edges.append((source, rule, array.shape, array.dtype))
        return wrap(y, Node(name, tuple(edges)) if edges else None)

    return apply


def _constant(op: str, value: Any) -> Any:
    """A constant operand: Python numbers stay weakly typed, arrays are safe from later writes."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (float, int)):
        return value
    if isinstance(value, (list, tuple)):
        return np.asarray(value)
    if is_array(value):
        return value.copy()
    raise DTypeError(f"{op}: cannot use a {type(value).__name__} as an operand: {value!r}")


def _explained(error: Exception, op: str, inputs: Any, arrays: list) -> Exception:
    kinds = {type(a) for a in arrays if is_array(a)}
    if len(kinds) > 1:
        places = ", ".join(x.device if isinstance(x, Tensor) else "cpu" for x in inputs)
        return DeviceError(f"{op}: its inputs lie on different devices ({places}): move them first")
    if isinstance(error, (ShapeError, DTypeError)) and str(error).startswith(f"{op}:"):
        return error
    return explain(error, op, inputs)
