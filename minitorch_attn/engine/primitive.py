"""`@primitive`: the one door from arrays into the graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .backend import Array, as_array, device_of, is_array
from .dtypes import FLOAT64, unwidened
from .errors import DeviceError, DTypeError, GraphError, ShapeError, explain
from .graph import Node, mode
from .signature import Signature
from .tensor import Tensor, as_numbers, wrap


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

    Positional arguments are differentiable inputs, keyword-only arguments are settings. (A call
    may still give settings by position, after the inputs, and inputs by name.) A rule may return
    its gradient in the output's broadcast shape: the engine sums it to the input's. It must not
    write into `dy`, which other rules may be given too. Only rules whose input requires a
    gradient are kept, and with them what they captured.

    Parameters
    ----------
    forward : callable
        ``forward(*arrays, **settings) -> (array, rule)`` or ``(array, (rule, rule, ...))``.

    Returns
    -------
    callable
        The same function on tensors. Arrays and numbers are taken as constants; tensors and
        arrays among the settings reach `forward` as arrays, lists as tuples. The function of
        arrays remains its ``__wrapped__``.
    """
    name = forward.__name__.strip("_")
    signature = Signature(forward)
    most_inputs = signature.most_inputs

    @functools.wraps(forward)
    def apply(*inputs: Any, **settings: Any) -> Tensor:
        if settings or len(inputs) > most_inputs:
            inputs, settings = signature.sort(inputs, settings)
        arrays, sources = [], []
        for x in inputs:
            if isinstance(x, Tensor):
                arrays.append(x._data)
                sources.append(x._node)
            else:
                arrays.append(_constant(name, x))
                sources.append(None)
        if settings:
            settings = {key: _setting(name, key, value) for key, value in settings.items()}
        try:
            result = forward(*arrays, **settings)
        except (ValueError, TypeError, IndexError) as error:
            if isinstance(error, (ShapeError, DTypeError)) and str(error).startswith(f"{name}:"):
                raise  # the author has explained it
            raise _explained(error, name, arrays) from error
        if type(result) is not tuple or len(result) != 2:
            raise TypeError(f"{name} must return (output, rules), as @primitive describes")
        y, rules = result
        if not isinstance(y, np.ndarray):
            y = as_array(y, name)
        if y.dtype is FLOAT64 and "dtype" not in settings:
            y = unwidened(y, arrays)
        output = wrap(y, _record(name, y, sources, rules) if mode.recording else None)
        if mode.inspector is not None:
            mode.inspector.after_op(name, output, arrays)
        return output

    return apply


def _record(op: str, y: Array, sources: list[Node | None], rules: Any) -> Node | None:
    """The node of an operation whose inputs come from `sources`; None if none needs a gradient."""
    if not isinstance(rules, (tuple, list)):
        rules = (rules,)
    if len(rules) != len(sources):
        raise TypeError(
            f"{op} returned {len(rules)} rules for {len(sources)} inputs: it must return one for "
            "each, or None for an input that has no gradient"
        )
    edges = []
    for source, rule in zip(sources, rules):
        if source is not None and rule is not None:
            edges.append((source, rule))
    return Node(op, edges, y) if edges else None


def _constant(op: str, value: Any) -> Any:
    """A constant operand: numbers stay weakly typed, arrays are made safe from later writes.

    None is an input that was left out, such as a bias.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (float, int, bool):
        return value
    try:
        return as_numbers(value).copy()
    except (DTypeError, ShapeError) as error:
        raise type(error)(f"{op}: {error}") from None


def _setting(op: str, key: str, value: Any) -> Any:
    """A setting as arrays, tuples and plain values, which nobody changes unnoticed."""
    if value is None or type(value) in (int, float, bool, str):
        return value
    if isinstance(value, Tensor):
        if value.requires_grad and mode.recording:
            raise GraphError(f"{op}: no gradient flows to {key}: pass {key}.detach()")
        return value._data
    if is_array(value):
        return value.copy()
    if type(value) in (tuple, list):
        return tuple(_setting(op, key, item) for item in value)
    return value


def _explained(error: Exception, op: str, arrays: list) -> Exception:
    devices = [device_of(a) for a in arrays if is_array(a)]
    if len(set(devices)) > 1:
        return DeviceError(
            f"{op}: its inputs lie on different devices ({', '.join(devices)}): move them to one"
        )
    return explain(error, op, arrays)
