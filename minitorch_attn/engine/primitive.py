"""`@primitive`: the one door from arrays into the graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, overload

import numpy as np

from . import backend, dtypes
from .autocast import precision_of
from .backend import Array, as_array, is_array
from .devices import beside
from .dtypes import FLOAT32, FLOAT64, as_floats, unwidened
from .errors import DTypeError, GraphError, ShapeError, explain
from .graph import Node, mode
from .signature import Signature
from .tensor import Tensor, as_numbers, wrap

Forward = Callable[..., tuple[Array, Any]]
Operation = Callable[..., Tensor]
Floats = Literal["all", "first", "half"]


@overload
def primitive(forward: Forward) -> Operation: ...
@overload
def primitive(
    *,
    floats: Floats | None = None,
    takes_half: bool = False,
    sets_dtype: bool = False,
) -> Callable[[Forward], Operation]: ...
def primitive(
    forward: Forward | None = None,
    *,
    floats: Floats | None = None,
    takes_half: bool = False,
    sets_dtype: bool = False,
) -> Any:
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

    In a mixed-precision computation (`mt.autocast`) its name decides in which precision its inputs
    arrive: see the lists of `engine/autocast.py`.

    Parameters
    ----------
    forward : callable
        ``forward(*arrays, **settings) -> (array, rule)`` or ``(array, (rule, rule, ...))``.
    floats : "all", "first" or "half", optional
        ``@primitive(floats="all")``: `forward` computes in float32 or float64. Integers arrive in
        the default dtype, float16 and bfloat16 in float32, of which the result is rounded again.
        "first": only the first input does, as the others may be class indices, or parameters
        that do not decide on the dtype of the result. "half": only float16 and bfloat16 do.
    takes_half : bool
        On a GPU `forward` reads float16 and bfloat16 itself, where all floats are of one of them:
        by kernels that sum in float32.
    sets_dtype : bool
        `forward` decides on its result's dtype; else integers do not widen floats to float64.

    Returns
    -------
    callable
        The same function on tensors. Arrays and numbers are taken as constants; tensors and
        arrays among the settings reach `forward` as arrays, lists as tuples. The function of
        arrays remains its ``__wrapped__``.
    """
    if forward is None:
        return functools.partial(
            primitive, floats=floats, takes_half=takes_half, sets_dtype=sets_dtype
        )
    name = forward.__name__.strip("_")
    precision = precision_of(name)
    signature = Signature(forward)
    most_inputs = signature.most_inputs

    @functools.wraps(forward)
    def apply(*inputs: Any, **settings: Any) -> Tensor:
        if settings or len(inputs) > most_inputs:
            inputs, settings = signature.sort(inputs, settings)
        if precision is not None and mode.autocast is not None:
            inputs = mode.autocast(inputs, precision)
        arrays, sources = [], []
        for x in inputs:
            if isinstance(x, Tensor):
                arrays.append(x._data)
                sources.append(x._node)
            else:
                arrays.append(_constant(name, x))
                sources.append(None)
        given = settings
        if settings:
            settings = {key: _setting(name, key, value) for key, value in settings.items()}
        if backend.gpu_in_use:
            arrays, settings = beside(name, inputs, arrays, given, settings)
        if floats is not None:
            arrays, half = as_floats(arrays, floats, takes_half)
        else:
            half = None
        try:
            result = forward(*arrays, **settings)
        except AttributeError as error:
            odd = [f"the number {x}" for x in arrays if isinstance(x, (int, float))]
            if "NoneType" in str(error):
                odd += ["None" for x in arrays if x is None]
            if not odd:
                raise
            raise TypeError(f"{name}: takes tensors, not {odd[0]}") from error
        except (ValueError, TypeError, IndexError) as error:
            if isinstance(error, (ShapeError, DTypeError)) and str(error).startswith(f"{name}:"):
                raise  # the author has explained it
            raise explain(error, name, arrays) from error
        if type(result) is not tuple or len(result) != 2:
            raise TypeError(f"{name} must return (output, rules), as @primitive describes")
        y, rules = result
        if not isinstance(y, np.ndarray):
            y = as_array(y, name)
        if (y.dtype is FLOAT64 or dtypes.bfloat16_in_use) and not sets_dtype:
            y = unwidened(y, arrays)
        if half is not None:
            y, rules = y.astype(half), _in_single(rules)
        output = wrap(y, _record(name, y, sources, rules) if mode.recording else None)
        if mode.inspector is not None:
            mode.inspector.after_op(name, output, arrays, settings)
        return output

    return apply


def _in_single(rules: Any) -> list:
    """Rules that compute in float32, as the output before it was rounded."""

    def in_single(rule: Callable | None) -> Callable | None:
        return None if rule is None else lambda dy: rule(dy.astype(FLOAT32))

    return [in_single(rule) for rule in (rules if isinstance(rules, (tuple, list)) else (rules,))]


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
    if mode.recording and _holds_gradient(value):
        raise GraphError(
            f"{op}: no gradient flows through a list of tensors: make one tensor of them with "
            "stack(), or pass x.detach()"
        )
    try:
        return as_numbers(value).copy()
    except (DTypeError, ShapeError) as error:
        raise type(error)(f"{op}: {error}") from None


def _setting(op: str, key: str, value: Any) -> Any:
    """A setting as arrays, tuples and plain values, which nobody changes unnoticed."""
    if value is None or type(value) in (int, float, bool, str):
        return value
    if isinstance(value, Tensor):
        if mode.recording and value.requires_grad:
            raise GraphError(f"{op}: no gradient flows to {key}: pass {key}.detach()")
        return value._data
    if is_array(value):
        return value.copy()
    if type(value) in (tuple, list):
        return tuple(_setting(op, key, item) for item in value)
    return value


def _holds_gradient(value: Any) -> bool:
    """Whether a tensor inside nested lists waits for a gradient."""
    if isinstance(value, (tuple, list)):
        return any(map(_holds_gradient, value))
    return isinstance(value, Tensor) and value.requires_grad
