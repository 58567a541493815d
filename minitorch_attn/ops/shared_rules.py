"""Rules of several inputs whose gradients come out of one computation."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from ..engine.backend import Array

Rule = Callable[[Array], Array]


def shared_rules(gradients: Callable[[Array], Sequence[Array]], count: int) -> tuple[Rule, ...]:
    """One rule for each of the `count` arrays that `gradients(dy)` returns.

    The rule that is called first computes them all; the others take theirs. What was taken is
    held no longer.
    """
    ready: dict[int, Array] = {}
    made_for: Callable = lambda: None  # noqa: E731  (a weak reference, once there is a gradient)

    def rule_of(i: int) -> Rule:
        def rule(dy: Array) -> Array:
            nonlocal ready, made_for
            if made_for() is not dy or i not in ready:
                ready, made_for = dict(enumerate(gradients(dy))), weakref.ref(dy)
            return ready.pop(i)

        return rule

    return tuple(rule_of(i) for i in range(count))
