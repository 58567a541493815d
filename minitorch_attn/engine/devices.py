"""Where the operands of an operation lie: tensors on one device, constants beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .backend import is_array, to_device
from .errors import DeviceError, describe


def common_device(op: str, operands: Mapping[str, Any]) -> str | None:
    """The device of all tensors among named operands; None if there is no tensor.

    Raises
    ------
    DeviceError
        If they lie on different ones.
    """
    places: dict[str, tuple[str, Any]] = {}  # of each device the first operand that lies there
    for name, value in operands.items():
        for x in _tensors(value):
            places.setdefault(x.device, (name, x))
    if len(places) > 1:
        where = " and ".join(
            f"{name} {describe(x)} lies on {device!r}" for device, (name, x) in places.items()
        )
        raise DeviceError(
            f"{op}: {where}: move one of them, for example with x.to('cuda'), or all parameters "
            "of a module with model.to('cuda')"
        )
    return next(iter(places), None)


def beside(
    op: str, inputs: Iterable[Any], arrays: list, given: Mapping[str, Any], settings: dict
) -> tuple[list, dict]:
    """The operands of an operation with its constants moved to where its tensors lie.

    NumPy arrays and lists have no device of their own: they come along.

    Raises
    ------
    DeviceError
        If tensors lie on different devices.
    """
    named = {f"input {i}": x for i, x in enumerate(inputs)} | dict(given)
    device = common_device(op, named)
    if device is None:
        return arrays, settings
    arrays = [moved(x, device) for x in arrays]
    return arrays, {key: moved(value, device) for key, value in settings.items()}


def moved(value: Any, device: str) -> Any:
    """Arrays, also those inside tuples and lists, on a device; anything else as it is."""
    if is_array(value):
        return to_device(value, device)
    kind = type(value)
    return kind([moved(item, device) for item in value]) if kind in (tuple, list) else value


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "_node"):  # a Tensor, which is defined above this file
        yield value
