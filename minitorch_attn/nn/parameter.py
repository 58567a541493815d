from __future__ import annotations

from typing import Any

from ..engine import Tensor, tensor


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
        super().__init__(tensor(data), requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
