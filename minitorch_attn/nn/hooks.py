from __future__ import annotations

import itertools
from collections.abc import Callable

_numbers = itertools.count()


class RemovableHandle:
    """What registering a hook returns: `remove()` takes the hook off again.

    As a context manager it takes the hook off at the end of the block::

        with model.gate.register_forward_hook(keep):
            model(images)
    """

    def __init__(self, hooks: dict[int, Callable], hook: Callable):
        self._hooks = hooks
        self._number = next(_numbers)
        hooks[self._number] = hook

    def remove(self) -> None:
        """Take the hook off; doing it twice does no harm."""
        self._hooks.pop(self._number, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
