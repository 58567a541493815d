"""The card of these tests: the simulated one, and where there is a real one that too."""

import pytest

from minitorch_attn.engine import backend
from minitorch_attn.simulator import kernels, simulated_gpu

CARDS = ["simulated"]
if backend.gpu_is_available():
    CARDS.append(pytest.param("real", marks=pytest.mark.gpu))


@pytest.fixture(params=CARDS)
def card(request):
    """A GPU to move tensors to; the simulated one gives its `Traffic`, the real one None."""
    if request.param == "real":
        yield None
        return
    try:
        kernels.compiler()
    except kernels.NoCompiler as missing:
        pytest.skip(str(missing))
    with simulated_gpu() as traffic:
        yield traffic
