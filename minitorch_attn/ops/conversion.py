"""The same values in another dtype or on another device; the gradient makes the way back."""

from __future__ import annotations

from ..engine import DTypeError, Tensor, primitive
from ..engine.backend import device_of, to_device
from ..engine.dtypes import as_dtype, is_floating


@primitive(sets_dtype=True)
def astype(x, *, dtype):
    """The values in another dtype; a gradient passes between floating-point types."""
    y = x.astype(as_dtype(dtype), copy=False)

    def vjp_x(dy):  # the engine casts it to the dtype of x
        return dy

    return y, vjp_x if is_floating(y.dtype) else None


@primitive
def move(x, *, device):
    """The values on a device: "cpu" or "cuda"."""
    source = device_of(x)

    def vjp_x(dy):
        return to_device(dy, source)

    return to_device(x, device), vjp_x


def to(x, *args, dtype=None, device=None):
    """The tensor in a dtype or on a device, or both, given in any order: `x.to("cuda", "float64")`.

    Another tensor stands for its dtype and device. Where nothing changes, `x` itself is returned.

    Raises
    ------
    DTypeError, DeviceError
        If there is no such dtype or device, or no GPU that can be used.
    """
    dtype, device = dtype_and_device(args, dtype, device)
    if dtype is not None and as_dtype(dtype) != x.dtype:
        x = astype(x, dtype=dtype)
    if device is not None and device != x.device:
        x = move(x, device=device)
    return x


def dtype_and_device(targets, dtype=None, device=None):
    """What the arguments of `to` ask for: a dtype, a device, or None where they leave it.

    Raises
    ------
    DTypeError
        If one of them is neither.
    """
    for target in targets:
        if isinstance(target, Tensor):
            dtype, device = target.dtype, target.device
        elif isinstance(target, str) and target.startswith(("cpu", "cuda")):
            device = target
        elif target is not None:
            try:
                dtype = as_dtype(target)
            except DTypeError:
                raise DTypeError(
                    f"to({target!r}): neither a device, 'cpu' or 'cuda', nor the name of a dtype "
                    "such as 'float32'"
                ) from None
    return dtype, device
