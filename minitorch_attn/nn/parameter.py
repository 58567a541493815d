from __future__ import annotations

from typing import Any

from ..engine import Tensor
from ..engine.backend import to_device


class Parameter(Tensor):
    """A tensor that a module learns: assigned to an attribute of a Module, it is found by name.

    Parameters
    ----------
    data : array_like or Tensor
        The first values; they are copied.
    requires_grad : bool
        Whether it is trained; a frozen parameter is still saved and moved with its module.

    Raises
    ------
    DTypeError
        If a gradient is asked of values that are not floating-point numbers.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        super().__init__(data, requires_grad)
        self._data = self._data.copy()

    def convert_(self, dtype: Any = None, device: str | None = None) -> Parameter:
        """Change the dtype or the device of this very tensor, so that optimisers keep hold of it.

        A gradient that has been computed goes along.
        """
        for t in (self, self.grad):
            if t is not None:
                t._data = to_device(t._data, device or t.device).astype(
                    dtype or t.dtype, copy=False
                )
        return self

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
