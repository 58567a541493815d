"""Every test here is repeated on a (simulated) GPU, call by call."""

from ..shadow import _shadow, pytest_configure, pytest_generate_tests

__all__ = ["_shadow", "pytest_configure", "pytest_generate_tests"]
