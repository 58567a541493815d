import pytest

from minitorch_attn.simulator import simulated_gpu


@pytest.fixture
def traffic():
    """The counts of a simulated GPU that the test runs on."""
    with simulated_gpu() as traffic:
        yield traffic


@pytest.fixture
def cupy(traffic):
    """The stand-in for CuPy, also what `import cupy` gives during the test."""
    import cupy

    return cupy
