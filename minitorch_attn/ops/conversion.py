"""The same values in another dtype or on another device; the gradient makes the way back."""

from __future__ import annotations

from ..engine import Tensor, primitive
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
    """
    for arg in args:
        if isinstance(arg, Tensor):
            dtype, device = arg.dtype, arg.device
        elif isinstance(arg, str) and arg.startswith(("cpu", "cuda")):
            device = arg
        else:
            dtype = arg
    if dtype is not None and as_dtype(dtype) != x.dtype:
        x = astype(x, dtype=dtype)
    if device is not None and device != x.device:
        x = move(x, device=device)
    return x
