"""The generator behind dropout, initialisation and shuffling when none is passed."""

from __future__ import annotations

import numpy as np

_generator = np.random.default_rng()


def default_generator() -> np.random.Generator:
    """The generator that is used where no `generator=` is given."""
    return _generator


def manual_seed(seed: int) -> np.random.Generator:
    """Restart the default generator at a seed, and return it."""
    _generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state
    return _generator
