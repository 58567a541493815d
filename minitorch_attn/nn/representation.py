"""How a module is printed: its parts, one a line, with the number of their parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .module import Module


def tree(module: Module) -> str:
    """The tree of a module's parts; the right column counts parameters, the total comes first."""
    lines = list(_lines(module))
    if lines[0][1] == 0:
        return "\n".join(text for text, _ in lines)
    width = max(len(text) for text, count in lines if count)
    digits = len(f"{lines[0][1]:,}")
    shown = [f"{text:<{width}}  {count:>{digits},}" if count else text for text, count in lines]
    return "\n".join([f"{shown[0]} {_unit(module)}", *shown[1:]])


def title(module: Module) -> str:
    """A module without its parts, as it could be made: `Linear(3, 8, bias=False)`."""
    return f"{type(module).__name__}({module.extra_repr()})"


def count_parameters(module: Module) -> int:
    """Number of elements of all parameters; what is shared counts once."""
    return sum(p.numel() for p in module.parameters())


def settings(**values_and_defaults: tuple[Any, Any]) -> str:
    """Settings that differ from their defaults, for `extra_repr`: `, kernel_size=3, padding=1`."""
    shown = ""
    for name, (value, default) in values_and_defaults.items():
        if value != default:
            is_square = isinstance(value, tuple) and len(set(value)) == 1
            shown += f", {name}={value[0] if is_square else value!r}"
    return shown


def _lines(module: Module) -> Iterator[tuple[str, int]]:
    yield title(module), count_parameters(module)
    for name, child in module.named_children():
        first, *others = _lines(child)
        yield f"  ({name}): {first[0]}", first[1]
        for text, count in others:
            yield f"  {text}", count


def _unit(module: Module) -> str:
    total = count_parameters(module)
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    unit = "parameter" if total == 1 else "parameters"
    return f"{unit}, {frozen:,} of them frozen" if frozen else unit
