"""Which arguments of a primitive are inputs and which are settings, however a call gives them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any


class Signature:
    """The arguments of a primitive: positional ones are inputs, keyword-only ones are settings.

    A call may also give settings by position after the inputs, as in `softmax(x, -1)`, and
    inputs by name, as in `linear(x, weight=w)`. What an equation calls x, or a and b, may also be
    named as PyTorch names it: `add(input=x, other=y)`.
    """

    PYTORCH_NAMES = {"x": "input", "a": "input", "b": "other"}

    def __init__(self, forward: Callable):
        self.op = forward.__name__.strip("_")
        parameters = inspect.signature(forward).parameters.values()
        self.inputs = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        self.input_names = {p.name: p.name for p in self.inputs}  # by every name it may be given
        self.input_names |= {
            self.PYTORCH_NAMES[p.name]: p.name for p in self.inputs if p.name in self.PYTORCH_NAMES
        }
        self.settings = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.most_inputs = math.inf if variadic else len(self.inputs)

    def sort(self, inputs: tuple, settings: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """The inputs in order, and the settings by name.

        Raises
        ------
        TypeError
            If there are too many arguments, or an input is given twice, or is missing before a
            named one.
        """
        if len(inputs) > self.most_inputs:
            inputs, extra = inputs[: len(self.inputs)], inputs[len(self.inputs) :]
            names = self.settings[: len(extra)]
            if len(names) < len(extra) or not settings.keys().isdisjoint(names):
                known = ", ".join([p.name for p in self.inputs] + self.settings)
                raise TypeError(f"{self.op}: too many arguments, it takes {known}")
            settings |= zip(names, extra)
        if not self.input_names.keys().isdisjoint(settings):
            settings = {self.input_names.get(name, name): x for name, x in settings.items()}
            last = max(i for i, p in enumerate(self.inputs) if p.name in settings)
            for p in self.inputs[: len(inputs)]:
                if p.name in settings:
                    raise TypeError(f"{self.op}: its input {p.name!r} is given twice")
            for p in self.inputs[len(inputs) : last + 1]:
                if p.name not in settings and p.default is p.empty:
                    raise TypeError(f"{self.op}: its input {p.name!r} is missing")
                inputs += (settings.pop(p.name, p.default),)
        return inputs, settings
