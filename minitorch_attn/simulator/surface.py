"""What CuPy really has: the names, parameters and methods that the stand-in allows, and no others.

`surface.json` beside this file was read off an installed CuPy, which needs no GPU for that;
``python -m minitorch_attn.simulator.surface`` reads it again and rewrites the file. A list of
parameters is written as in Python, with the defaults left out: ``"a, axis=, *, out="``.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
from inspect import Parameter, Signature
from pathlib import Path
from types import ModuleType
from typing import Any

FILE = Path(__file__).with_name("surface.json")
MODULES = (
    "cupy",
    "cupy.fft",
    "cupy.lib",
    "cupy.lib.stride_tricks",
    "cupy.linalg",
    "cupy.random",
    "cupyx.scipy.special",
)
UFUNC_METHODS = ("outer", "at", "reduce", "accumulate", "reduceat")


@functools.cache
def surface() -> dict[str, Any]:
    """The stored surface: ``version``, ``modules``, ``methods``, ``attributes``, ``generator``."""
    return json.loads(FILE.read_text())


@functools.cache
def signature(parameters: str) -> Signature:
    """The signature that a stored list of parameters describes."""
    kind: Any = Parameter.POSITIONAL_OR_KEYWORD
    found: list[Parameter] = []
    for word in parameters.split(", ") if parameters else ():
        name = word.strip("*=")
        if word == "*":
            kind = Parameter.KEYWORD_ONLY
        elif word == "/":
            found = [p.replace(kind=Parameter.POSITIONAL_ONLY) for p in found]
        elif word.startswith("**"):
            found.append(Parameter(name, Parameter.VAR_KEYWORD))
        elif word.startswith("*"):
            found.append(Parameter(name, Parameter.VAR_POSITIONAL))
            kind = Parameter.KEYWORD_ONLY
        else:
            default = ... if word.endswith("=") else Parameter.empty
            found.append(Parameter(name, kind, default=default))
    return Signature(found)


def read_installed() -> dict[str, Any]:
    """The surface of the CuPy that is installed."""
    cupy: Any = importlib.import_module("cupy")
    methods, attributes = {}, []
    for name in _public(cupy.ndarray):
        member = getattr(cupy.ndarray, name)
        parameters = _parameters(member) if callable(member) else None
        if parameters is None:
            attributes.append(name)
        else:
            methods[name] = parameters.removeprefix("self").removeprefix(", ")
    generator = cupy.random.Generator
    return {
        "version": cupy.__version__,
        "modules": {name: _contents(importlib.import_module(name)) for name in MODULES},
        "methods": methods,
        "attributes": attributes,
        "generator": {
            name: (_parameters(getattr(generator, name)) or "").removeprefix("self, ")
            for name in _public(generator)
        },
    }


def _public(owner: Any) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]


def _contents(module: ModuleType) -> dict[str, Any]:
    """Functions with their parameters, ufuncs with their methods, and the remaining names."""
    functions, ufuncs, others = {}, {}, []
    for name in _public(module):
        member = getattr(module, name)
        parameters = None if isinstance(member, type) else _parameters(member)
        if type(member).__name__ == "ufunc":
            ufuncs[name] = [way for way in UFUNC_METHODS if _implements(member, way)]
        elif parameters is not None:
            functions[name] = parameters
        elif name != "annotations":
            others.append(name)
    return {"functions": functions, "ufuncs": ufuncs, "others": others}


class _Listener:
    """Answers like an array to what a ufunc's method asks of it, without a GPU."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


def _implements(ufunc: Any, way: str) -> bool:
    """Whether a ufunc has a method: CuPy says no only when it is called."""
    if way == "outer":
        return ufunc.nin == 2
    try:
        getattr(ufunc, way)(_Listener(), *([0] if way in ("at", "reduceat") else []))
    except NotImplementedError:
        return False
    return True


def _parameters(function: Any) -> str | None:
    """The parameters of a function; compiled ones tell theirs in their docstring's first line."""
    if not callable(function):
        return None
    try:
        words, starred = [], False
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is Parameter.KEYWORD_ONLY and not starred:
                words.append("*")
            starred |= parameter.kind in (Parameter.KEYWORD_ONLY, Parameter.VAR_POSITIONAL)
            stars: dict[Any, str] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
            equals = "" if parameter.default is Parameter.empty else "="
            words.append(stars.get(parameter.kind, "") + parameter.name + equals)
        return ", ".join(words)
    except (TypeError, ValueError):
        line = (getattr(function, "__doc__", None) or "").strip().split("\n")[0]
        found = re.match(r"[\w.]+\((.*?)\)(\s*->.*)?$", line)
        if found is None:
            return None
        words = [word.strip() for word in found[1].split(",") if word.strip()]
        return ", ".join(re.sub(r"^(?:\w+ )*(\**\w+)\s*(=?).*$", r"\1\2", word) for word in words)


def main() -> None:
    """Rewrite the stored surface."""
    FILE.write_text(json.dumps(read_installed(), indent=1, sort_keys=True) + "\n")
    print(f"wrote {FILE.name}")


if __name__ == "__main__":
    main()
